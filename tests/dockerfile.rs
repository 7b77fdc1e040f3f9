//! Checks that the committed Dockerfiles equal the rendered template and use only features of the oldest engine.

use std::fs;
use std::path::Path;

use obgp_build::config::BuildFile;
use obgp_build::plan::dockerfile::render;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn file() -> BuildFile {
    BuildFile::load(&root().join("build.toml")).unwrap()
}

/// `OBGP_BLESS=1 cargo test --test dockerfile` writes the Dockerfiles.
#[test]
fn committed_dockerfiles_equal_the_rendered_template() {
    let file = file();
    for (name, distro) in &file.distros {
        let path = root().join(format!("dockerfiles/Dockerfile.{name}"));
        let rendered = render(name, distro, &file).unwrap();
        if std::env::var_os("OBGP_BLESS").is_some() {
            fs::write(&path, &rendered).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == rendered,
            "{} differs from the rendered template; write it with: OBGP_BLESS=1 cargo test --test dockerfile\n{}",
            path.display(),
            similar::TextDiff::from_lines(&committed, &rendered).unified_diff()
        );
    }
    for entry in fs::read_dir(root().join("dockerfiles")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let distro = name.strip_prefix("Dockerfile.").unwrap();
        assert!(
            distro == "template" || file.distros.contains_key(distro),
            "{name} does not belong to a distro of build.toml"
        );
    }
}

/// Engine 20.10, see the comments in the template.
#[test]
fn dockerfiles_use_only_features_of_the_oldest_engine() {
    let file = file();
    for (name, distro) in &file.distros {
        let text = render(name, distro, &file).unwrap();
        for line in text.lines() {
            let instruction = line.split_whitespace().next().unwrap_or_default();
            assert!(!line.contains("<<"), "{name}: heredoc: {line}");
            assert!(
                !(line.starts_with('#') && line.contains("syntax=")),
                "{name}: a frontend to pull: {line}"
            );
            assert!(!line.contains("env="), "{name}: a secret as variable: {line}");
            for flag in [
                "--link",
                "--exclude",
                "--parents",
                "--checksum",
                "--network",
                "--security",
            ] {
                assert!(
                    !(["COPY", "ADD", "RUN"].contains(&instruction) && line.contains(flag)),
                    "{name}: {flag}: {line}"
                );
            }
        }
    }
}

#[test]
fn identities_and_labels_come_from_build_toml() {
    let mut file = file();
    file.user.name = "agent".into();
    file.user.uid = 4711;
    file.user.groups.push(obgp_build::config::file::Group {
        name: "hugetlbfs".into(),
        gid: 4712,
    });
    file.image
        .labels
        .insert("org.example.price".into(), "5 $ \"net\"".into());
    let text = render("debian_trixie", &file.distros["debian_trixie"], &file).unwrap();
    assert!(text.contains("ARG USER_NAME=agent\n"));
    assert!(text.contains("ARG USER_UID=4711\n"));
    assert!(text.contains("ARG USER_GROUPS=\"openvswitch:42424 hugetlbfs:4712\"\n"));
    assert!(text.contains(r#"org.example.price="5 \$ \"net\"""#), "{text}");
    let jammy = render("ubuntu_jammy", &file.distros["ubuntu_jammy"], &file).unwrap();
    assert!(jammy.contains("ARG LOCK=6.0.0-py3.10.txt"));
}

/// Returns the stages that build obgp-runtime.
fn runtime_stages(dockerfile: &str) -> &str {
    let start = dockerfile.find("AS runtime-toolchain").unwrap();
    let end = dockerfile.find("AS runtime\n").unwrap();
    &dockerfile[start..end]
}

/// An engine compiles the runtime once for all distros.
#[test]
fn all_distros_share_the_runtime_stages() {
    let file = file();
    let texts: Vec<String> = file.distros.iter().map(|(n, d)| render(n, d, &file).unwrap()).collect();
    for text in &texts {
        assert_eq!(runtime_stages(text), runtime_stages(&texts[0]));
        assert!(text.contains("ARG RUNTIME_BASE=docker.io/library/debian:trixie-slim\n"));
        assert!(text.contains("ARG RUNTIME_FROM=compiled\n"));
    }
    assert!(runtime_stages(&texts[0]).contains("ENV APT_FAMILY=debian APT_SUITE=trixie\n"));
}

#[test]
fn the_runtime_distro_comes_from_build_toml_and_must_exist() {
    let mut file = file();
    file.runtime.distro = "debian_bookworm".into();
    let text = render("ubuntu_noble", &file.distros["ubuntu_noble"], &file).unwrap();
    assert!(text.contains("ARG RUNTIME_BASE=docker.io/library/debian:bookworm-slim\n"));
    file.runtime.distro = "debian_sid".into();
    let error = render("ubuntu_noble", &file.distros["ubuntu_noble"], &file).unwrap_err();
    assert!(error.to_string().contains("debian_sid"), "{error}");
}
