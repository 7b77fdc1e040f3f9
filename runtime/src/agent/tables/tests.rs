//! Real files and given kernel tables. tests/agent.rs covers the real kernel.

use super::*;

const STANDARD: &str = "255\tlocal\n254\tmain\n253\tdefault\n0\tunspec\n";

struct Scratch {
    directory: tempfile::TempDir,
}

impl Scratch {
    fn with(text: &str) -> Self {
        let scratch = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        std::fs::write(scratch.path(), text).unwrap();
        scratch
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("rt_tables")
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.path()).unwrap()
    }

    fn ensure(&self, vrf: u32, kernel: &KernelTables) -> Result<Outcome, TableError> {
        ensure_in(&self.path(), "br-ex", vrf, kernel)
    }
}

fn kernel(taken: &[u32], interface_table: Option<u32>) -> KernelTables {
    KernelTables {
        taken: taken.iter().copied().collect(),
        interface_table,
    }
}

fn added(id: u32) -> Outcome {
    Outcome::Added {
        interface: "br-ex".into(),
        id,
    }
}

#[test]
fn a_bridge_is_added_once() {
    let scratch = Scratch::with(STANDARD);
    assert_eq!(scratch.ensure(10, &kernel(&[100, 101], None)).unwrap(), added(102));
    assert_eq!(scratch.text(), format!("{STANDARD}102 br-ex\n"));
    let again = scratch.ensure(10, &kernel(&[], Some(55))).unwrap();
    assert_eq!(again.to_string(), "br-ex has routing table 102");
    assert_eq!(scratch.text(), format!("{STANDARD}102 br-ex\n"));
}

#[test]
fn the_kernels_table_of_the_bridge_is_used_again_unless_it_collides() {
    for (vrf, text, interface_table, expected) in [
        (10, STANDARD, 77, 77),
        (77, STANDARD, 77, 100),
        (20, STANDARD, 10, 100),
        (10, "77 other\n", 77, 100),
        (10, "0x4d other\n", 77, 100),
        (10, "77 br-ex2", 77, 100),
    ] {
        let scratch = Scratch::with(text);
        scratch.ensure(vrf, &kernel(&[], Some(interface_table))).unwrap();
        let newline = if text.ends_with('\n') { "" } else { "\n" };
        assert_eq!(scratch.text(), format!("{text}{newline}{expected} br-ex\n"));
    }
}

#[test]
fn a_bridge_never_has_the_table_of_the_vrf() {
    let scratch = Scratch::with("20 br-ex\n");
    let error = scratch.ensure(20, &kernel(&[], None)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("gives br-ex table 20, which is the table of the agent's VRF"),
        "{error}"
    );
    let scratch = Scratch::with(STANDARD);
    assert_eq!(scratch.ensure(100, &kernel(&[], None)).unwrap(), added(101));
}

#[test]
fn a_missing_file_is_created_with_the_standard_tables() {
    let scratch = Scratch::with("");
    std::fs::remove_file(scratch.path()).unwrap();
    assert_eq!(scratch.ensure(10, &kernel(&[], None)).unwrap(), added(100));
    let entries = rt_tables::parse(&scratch.text());
    for name in ["local", "main", "default", "unspec", "br-ex"] {
        assert!(rt_tables::find(&entries, name).is_some(), "{name}: {}", scratch.text());
    }
}

#[test]
fn a_full_file_and_a_huge_file_are_errors() {
    let full: String = (1..=252).map(|id| format!("{id} t{id}\n")).collect();
    let error = Scratch::with(&full).ensure(10, &kernel(&[], None)).unwrap_err();
    assert!(error.to_string().contains("no free number"), "{error}");
    let huge = "#".repeat(rt_tables::MAX_SIZE as usize + 1);
    assert!(matches!(
        Scratch::with(&huge).ensure(10, &kernel(&[], None)),
        Err(TableError::File {
            source: FileError::TooLarge { .. }
        })
    ));
}

#[test]
fn concurrent_additions_get_different_numbers() {
    let scratch = Scratch::with(STANDARD);
    let path = scratch.path();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let path = &path;
            scope.spawn(move || ensure_in(path, &format!("br-{number}"), 10, &kernel(&[], None)).unwrap());
        }
    });
    let mut ids: Vec<u32> = rt_tables::parse(&scratch.text()).iter().map(|entry| entry.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 12, "{}", scratch.text());
}
