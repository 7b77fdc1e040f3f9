//! Runs `build/apply-patches` on a small Python distribution: the files it writes, and its errors.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use obgp_build::image::applied::Applied;
use obgp_build::plan::patches::{self, Patch};

const SOURCE: &str = "import os\n\n\ndef tables(given=None):\n    given = given or {}\n    return given\n";
const HEAD: &str = "Description: Keep it\nAuthor: a test\nForwarded: no\nApplies-To: >=1\nDrop-When: never\n\
    Last-Update: 2026-01-02\n\n";
const KEEP: &str = "--- a/pkg/x.py\n+++ b/pkg/x.py\n@@ -3,4 +3,5 @@\n \n def tables(given=None):\n-    given = given or {}\n\
    +    if given is None:\n+        given = {}\n     return given\n";

struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Site {
            dir: tempfile::tempdir().unwrap(),
        };
        site.write("site/pkg/x.py", SOURCE);
        site.write("site/pkg/y.py", "pass\n");
        site.write(
            "site/pkg-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: pkg\nVersion: 1.0\n",
        );
        site.write(
            "site/pkg-1.0.dist-info/RECORD",
            "pkg-1.0.dist-info/RECORD,,\npkg/x.py,sha256=old,1\npkg/y.py,sha256=same,5\n",
        );
        site
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    fn patch(&self, name: &str, diff: &str) -> Patch {
        let text = format!("{HEAD}{diff}");
        self.write(&format!("patches/{name}.patch"), &text);
        Patch::parse(name, text.as_bytes(), "pkg").unwrap()
    }

    fn apply(&self, names: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("images/ovn-bgp-agent/build/apply-patches");
        Command::new(script)
            .arg(self.path("site"))
            .arg("pkg")
            .arg(self.path("patches"))
            .args(names)
            .output()
            .unwrap()
    }

    /// Runs the script, which must fail, and returns its stderr.
    fn failure(&self, names: &[&str]) -> String {
        let output = self.apply(names);
        assert!(!output.status.success());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!text.contains("Traceback"), "{text}");
        text
    }
}

#[test]
fn applied_patches_are_recorded_in_the_distribution() {
    let site = Site::new();
    let first = site.patch("0001-keep", KEEP);
    let second = site.patch("0002-add", "--- /dev/null\n+++ b/pkg/z.py\n@@ -0,0 +1 @@\n+pass\n");
    // `git apply` must ignore an enclosing repository that does not track the files.
    let status = Command::new("git").args(["init", "-q"]).arg(site.dir.path()).status();
    assert!(status.unwrap().success());
    let output = site.apply(&["0001-keep", "0002-add"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(site.read("site/pkg/x.py").contains("if given is None"));
    assert_eq!(site.read("site/pkg/z.py"), "pass\n");
    let record: Applied = serde_json::from_str(&site.read("site/pkg-1.0.dist-info/PATCHES")).unwrap();
    let names: Vec<(&str, &str)> = record
        .patches
        .iter()
        .map(|p| (p.name.as_str(), p.sha256.as_str()))
        .collect();
    assert_eq!(
        names,
        [(&*first.name, &*first.sha256), (&*second.name, &*second.sha256)]
    );
    assert_eq!(record.patches[1].files, second.files);
    assert_eq!(record.files.keys().collect::<Vec<_>>(), ["pkg/x.py", "pkg/z.py"]);
    assert_eq!(
        site.read("site/pkg-1.0.dist-info/patches/0001-keep.patch"),
        format!("{HEAD}{KEEP}")
    );
    let rows = site.read("site/pkg-1.0.dist-info/RECORD");
    for row in [
        "pkg-1.0.dist-info/PATCHES,sha256=",
        "pkg-1.0.dist-info/patches/0001-keep.patch,sha256=",
        "pkg-1.0.dist-info/patches/0002-add.patch,sha256=",
        "pkg-1.0.dist-info/RECORD,,",
        "pkg/x.py,sha256=",
        "pkg/y.py,sha256=same,5",
        "pkg/z.py,sha256=",
    ] {
        assert_eq!(
            rows.lines().filter(|line| line.starts_with(row)).count(),
            1,
            "{row}\n{rows}"
        );
    }
    assert!(!rows.contains("sha256=old"));
    assert!(patches::label_of(&[first, second]).unwrap().starts_with("0001-keep@"));
}

#[test]
fn a_change_that_is_already_present_fails() {
    let site = Site::new();
    site.patch("0001-keep", KEEP);
    site.patch("0002-again", KEEP);
    let text = site.failure(&["0001-keep", "0002-again"]);
    insta::assert_snapshot!(text, @r"
    applying 0002-again.patch to pkg/x.py of pkg 1.0: the change is already in
    help: delete 0002-again.patch, or narrow its Applies-To field to the releases that need it
    ");
}

#[test]
fn a_patch_with_missing_context_fails() {
    let site = Site::new();
    // patch(1) with fuzz would ignore this difference in the last line of context.
    site.patch("0001-keep", &KEEP.replace(" return given", " return  given"));
    let text = site.failure(&["0001-keep"]);
    assert!(
        text.starts_with("applying 0001-keep.patch to pkg/x.py of pkg 1.0: it does not apply: "),
        "{text}"
    );
    assert!(
        text.contains("narrow its Applies-To") && text.contains("write it again"),
        "{text}"
    );
    assert_eq!(site.read("site/pkg/x.py"), SOURCE);
}

#[test]
fn a_missing_patch_file_fails() {
    let site = Site::new();
    fs::create_dir(site.path("patches")).unwrap();
    assert!(
        site.failure(&["0001-keep"])
            .contains("0001-keep.patch: there is no such file")
    );
}
