//! Tests help, usage errors and exit codes of the command line. Needs no engine.

#[path = "support/outcome.rs"]
mod support;

use assert_cmd::Command;

fn obgp_build() -> Command {
    let mut command = Command::cargo_bin("obgp-build").expect("the binary is built with the tests");
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", "/nonexistent")
        .env("COLUMNS", "100")
        // An unreachable engine proves that these commands need none.
        .env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    command
}

fn outcome(command: &mut Command) -> String {
    support::outcome(&command.output().unwrap())
}

#[test]
fn help() {
    insta::assert_snapshot!(outcome(obgp_build().arg("--help")));
}

#[test]
fn help_of_every_subcommand() {
    for command in [
        "build",
        "plan",
        "verify",
        "push",
        "promote",
        "inspect",
        "prune",
        "diff",
        "sbom",
        "ingest",
        "dockerfile",
        "bootstrap",
        "lock",
        "doctor",
        "completions",
    ] {
        insta::assert_snapshot!(
            format!("help_{command}"),
            outcome(obgp_build().args([command, "--help"]))
        );
    }
}

#[test]
fn an_unknown_distro_is_a_usage_error_that_lists_the_known_distros() {
    insta::assert_snapshot!(outcome(obgp_build().args(["--distro", "fedora"])));
}

#[test]
fn master_on_jammy_is_rejected_before_the_build_starts() {
    insta::assert_snapshot!(outcome(obgp_build().args([
        "plan",
        "--distro",
        "ubuntu_jammy",
        "--project-ref",
        "master"
    ])));
}

#[test]
fn a_flag_overrides_the_variable_of_the_old_script() {
    let mut by_environment = obgp_build();
    by_environment.env("DISTRO", "fedora");
    assert!(outcome(&mut by_environment).contains("no distro \"fedora\""));
    let mut by_flag = obgp_build();
    by_flag.env("DISTRO", "fedora").args(["plan", "--distro", "plan9"]);
    assert!(outcome(&mut by_flag).contains("no distro \"plan9\""));
}

#[test]
fn sign_requires_push() {
    insta::assert_snapshot!(outcome(obgp_build().args(["--sign", "cosign.key"])));
    // PUSH=true sets --push, so the run fails only at the missing key.
    let pushed = outcome(obgp_build().args(["--sign", "/nonexistent.key"]).env("PUSH", "true"));
    assert!(pushed.contains("/nonexistent"), "{pushed}");
}

#[test]
fn a_runtime_binary_for_another_architecture_is_rejected() {
    let mut program = b"\x7fELF\x02\x01\x01".to_vec();
    program.resize(64, 0);
    program[18] = 62;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("obgp-runtime"), program).unwrap();
    let build_with = |platform: &str| {
        outcome(
            obgp_build()
                .args(["--config", concat!(env!("CARGO_MANIFEST_DIR"), "/build.toml")])
                .args(["--runtime-binary", &format!("{platform}=obgp-runtime")])
                .current_dir(dir.path()),
        )
    };
    insta::assert_snapshot!(build_with("linux/arm64"));
    // With the right architecture the run fails only at the engine.
    assert!(build_with("linux/amd64").contains("/nonexistent/docker.sock"));
}

#[test]
fn a_runtime_binary_without_a_platform_is_a_usage_error() {
    insta::assert_snapshot!(outcome(obgp_build().args(["--runtime-binary", "obgp-runtime"])));
}

#[test]
fn an_unreachable_engine_is_reported_with_its_address() {
    insta::assert_snapshot!(outcome(obgp_build().args(["--distro", "debian_bookworm"])));
}

#[test]
fn an_image_without_a_location_is_a_usage_error() {
    insta::assert_snapshot!(outcome(obgp_build().args(["verify", "ubuntu:24.04"])));
}

#[test]
fn a_missing_layout_is_reported() {
    insta::assert_snapshot!(outcome(obgp_build().args(["verify", "oci:/nonexistent:tag"])));
}

#[test]
fn a_configuration_error_names_the_field_and_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("build.toml");
    std::fs::write(&path, "[image]\nname = \"x\"\nregistri = \"y\"\n").unwrap();
    let text = outcome(obgp_build().args(["plan", "--config"]).arg(&path));
    assert!(text.starts_with("exit code: 2"), "{text}");
    assert!(text.contains("registri") && text.contains("line 3"), "{text}");
}

/// What bash is offered for the last word.
fn completed(words: &[&str]) -> String {
    let output = obgp_build()
        .env("COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", words.len().to_string())
        .env("_CLAP_IFS", "\n")
        .args(["--", "obgp-build"])
        .args(words)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn completion_offers_subcommands_flags_distros_and_platforms() {
    for (words, offered) in [
        (vec!["boot"], "bootstrap"),
        (vec!["build", "--project"], "--project-ref"),
        (vec!["--distro", "ubuntu_n"], "ubuntu_noble"),
        (vec!["plan", "--distro", ""], "all"),
        (vec!["dockerfile", "debian_t"], "debian_trixie"),
        (vec!["lock", "--distro", "debian_b"], "debian_bookworm"),
        (vec!["verify", "x", "--platform", "linux/ar"], "linux/arm64"),
    ] {
        let text = completed(&words);
        assert!(text.lines().any(|line| line == offered), "{words:?}: {text}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let text = outcome(obgp_build().args(["completions", shell]));
        assert!(text.contains("exit code: 0") && text.contains("COMPLETE"), "{text}");
    }
}

/// Runs a script with this shell, which must be installed; `None` outside CI if it is not.
fn in_shell(shell: &str, arguments: &[&str]) -> Option<String> {
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_obgp-build")).parent().unwrap();
    let output = std::process::Command::new("timeout")
        .args(["30", shell])
        .args(arguments)
        .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display()))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    if output.status.code() == Some(127) {
        assert!(
            std::env::var_os("CI").is_none(),
            "{shell} is missing (apt-get install {shell})"
        );
        eprintln!("SKIPPED: {shell} is missing (apt-get install {shell})");
        return None;
    }
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn fish_completes_the_values_of_flags() {
    let script = "source (obgp-build completions fish | psub); complete -C 'obgp-build plan --distro debian_t'";
    if let Some(offered) = in_shell("fish", &["--no-config", "-c", script]) {
        assert_eq!(offered.trim(), "debian_trixie");
    }
}

/// zsh completes only where it edits lines: in a terminal, which its module `zpty` makes.
#[test]
fn zsh_completes_the_values_of_flags() {
    let script = "
        zmodload zsh/zpty
        zpty z zsh -f -i
        zpty -w z 'PS1=; autoload -U compinit; compinit -u -D; source <(obgp-build completions zsh); print READY-$((1+1))'
        zpty -r z line '*READY-2*'
        zpty -w -n z $'obgp-build plan --distro debian_t\\t'
        zpty -r z line '*debian_trixie*' && print completed
        zpty -d z";
    if let Some(printed) = in_shell("zsh", &["-f", "-c", script]) {
        assert_eq!(printed.trim(), "completed");
    }
}

#[test]
fn a_wrong_value_is_a_usage_error_that_names_its_flag_before_an_engine_is_asked() {
    for (arguments, named) in [
        (vec!["--tag", "a:b"], "--tag <TAG>"),
        (vec!["--registry", "https://quay.io"], "quay.io"),
        (vec!["--registry", "quay.io/team"], "--registry"),
        (vec!["--image-prefix", "Team"], "--image-prefix"),
        (vec!["--base", "Debian"], "--base"),
        (vec!["--platform", "linux/mips"], "--platform"),
        (vec!["--registry-ca", "/nope/ca.pem"], "--registry-ca"),
        (vec!["--output", "/proc/nope"], "--output"),
        (vec!["--output", "build.toml"], "--output"),
        (vec!["--builder-id", "foo"], "--builder-id"),
        (vec!["--builder-id", "https://ci.example"], "--builder-id"),
        (vec!["--push", "--zuul-artifacts", "/nope/x"], "--zuul-artifacts"),
        (vec!["--push", "--zuul-artifacts", "/tmp"], "--zuul-artifacts"),
        (vec!["--zuul-artifacts", "x.json"], "--push"),
        (vec!["--extra-tag", "x"], "--push"),
        (vec!["--push", "--extra-tag", "a/b"], "--extra-tag"),
        (vec!["--label", "org.opencontainers.image.version=9"], "--project-ref"),
        (vec!["--label", "org.openstack.obgp-build.suite=x"], "--label"),
        (vec!["--cache-from", "Foo"], "--cache-from"),
        (vec!["--cache-from", "type=inline"], "cache-from"),
        (vec!["--distro", "all,fedora"], "fedora"),
        (vec!["--project-ref", "7.0.0+local"], "7.0.0+local"),
        (
            vec!["--platform", "amd64", "--runtime-binary", "linux/arm64=/bin/true"],
            "--runtime-binary",
        ),
    ] {
        for command in ["build", "plan"] {
            let text = outcome(obgp_build().arg(command).args(&arguments));
            assert!(text.starts_with("exit code: 2\n"), "{command} {arguments:?}: {text}");
            assert!(text.contains(named), "{command} {arguments:?}: {text}");
        }
    }
    for (arguments, named) in [
        (vec!["push", "oci:dist/oci:x", "https://quay.io/a"], "https://quay.io/a"),
        (vec!["push", "oci:dist/oci:x", "quay.io/a:b:c"], "quay.io/a:b:c"),
        (
            vec!["push", "oci:x", "quay.io/a:b", "--zuul-artifacts", "/nope/x"],
            "--zuul-artifacts",
        ),
        (vec!["verify", "oci:x", "--contract", "/nope"], "--contract"),
        (vec!["verify", "oci:x", "--distro", "fedora"], "fedora"),
        (vec!["ingest", "docker:x", "--tag", "a:b"], "--tag"),
        (vec!["ingest", "docker:x:y", "--output", "/proc/nope"], "--output"),
        (vec!["inspect", "quay.io"], "quay.io"),
        (vec!["prune", "quay.io/a:b", "--prefix", "x"], "quay.io/a:b"),
        (
            vec![
                "attest",
                "quay.io/a:b",
                "--key",
                "k",
                "--predicate",
                "build.toml",
                "--type",
                "foo",
            ],
            "--type",
        ),
    ] {
        let text = outcome(obgp_build().args(&arguments));
        assert!(text.starts_with("exit code: 2\n"), "{arguments:?}: {text}");
        assert!(text.contains(named), "{arguments:?}: {text}");
    }
}

#[test]
fn the_name_of_something_that_this_machine_does_not_have_is_a_usage_error() {
    for arguments in [
        vec!["verify", "oci:/nope:x"],
        vec!["sbom", "oci:/nope:x"],
        vec!["diff", "oci:/nope:x", "oci:/nope:y"],
        vec!["push", "oci:/nope:x", "quay.io/a:b"],
        vec!["verify", "oci:/usr:x"],
        vec!["sign", "quay.io/a:b", "--key", "/nope.key"],
        vec!["sign", "quay.io/a:b", "--key", "env://NOPE"],
        vec!["verify", "quay.io/a:b", "--key", "/etc/passwd"],
        vec!["verify", "quay.io/a:b", "--key", "/nope.pub"],
        vec!["build", "--push", "--key", "/nope.key"],
        vec!["plan", "--push", "--key", "/nope.key"],
    ] {
        let text = outcome(obgp_build().args(&arguments));
        assert!(text.starts_with("exit code: 2\n"), "{arguments:?}: {text}");
    }
}

#[test]
fn a_key_that_does_not_exist_is_found_before_an_engine_is_asked() {
    for flag in ["--key", "--sign"] {
        for command in ["build", "plan"] {
            let text = outcome(obgp_build().args([command, "--push", flag, "/nope.key"]));
            assert!(text.contains("/nope.key") && !text.contains("docker.sock"), "{text}");
        }
        let text = outcome(obgp_build().args(["sign", "quay.io/a:b", flag, "/nope.key"]));
        assert!(text.contains("/nope.key"), "{text}");
        let text = outcome(obgp_build().args(["push", "oci:/nope:x", "quay.io/a:b", flag, "/nope.key"]));
        assert!(text.contains("/nope.key"), "{text}");
    }
}

/// A copy of this repository's build.toml with one piece of text replaced, in a directory of its own.
fn changed_build_toml(from: &str, to: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/build.toml")).unwrap();
    std::fs::write(dir.path().join("build.toml"), text.replacen(from, to, 1)).unwrap();
    dir
}

#[test]
fn a_wrong_value_in_build_toml_is_reported_with_its_line_by_every_command() {
    let dir = changed_build_toml("uid = 42494", "uid = 0");
    for arguments in [
        vec!["plan"],
        vec!["build"],
        vec!["doctor"],
        vec!["dockerfile", "ubuntu_noble"],
        vec!["verify", "oci:x"],
    ] {
        let text = outcome(obgp_build().current_dir(dir.path()).args(&arguments));
        assert!(text.starts_with("exit code: 2\n"), "{arguments:?}: {text}");
        assert!(
            text.contains("build.toml: line ") && text.contains("user.uid: 0 is root's ID"),
            "{text}"
        );
    }
}

#[test]
fn global_options_work_before_and_after_the_subcommand() {
    let after = outcome(obgp_build().args(["plan", "--distro", "fedora", "--json", "--progress", "quiet"]));
    let before = outcome(obgp_build().args(["--json", "--progress", "quiet", "plan", "--distro", "fedora"]));
    assert_eq!(before, after);
    assert!(before.contains("no distro"), "{before}");
    // A flag of build there would be ignored.
    let text = outcome(obgp_build().args(["--distro", "ubuntu_noble", "plan"]));
    assert!(
        text.starts_with("exit code: 2\n") && text.contains("--distro"),
        "{text}"
    );
}

#[test]
fn plan_takes_every_flag_of_build() {
    let flags = |command: &str| {
        let text = outcome(obgp_build().args([command, "--help"]));
        let words = text
            .split_whitespace()
            .map(|word| word.trim_end_matches(',').to_string());
        words
            .filter(|word| word.starts_with("--"))
            .collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(flags("plan"), flags("build"));
}

#[test]
fn under_json_an_error_is_json_too() {
    for arguments in [
        vec!["--json", "--nonsense"],
        vec!["plan", "--json", "--tag", "a:b"],
        vec!["plan", "--json", "--distro", "fedora"],
        vec!["verify", "--json"],
        vec!["verify", "oci:/nonexistent:x", "--json"],
    ] {
        let output = obgp_build().args(&arguments).output().unwrap();
        let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            result["exit_code"],
            output.status.code().unwrap(),
            "{arguments:?}: {result}"
        );
        assert!(
            result["error"].as_str().is_some_and(|e| !e.is_empty()),
            "{arguments:?}: {result}"
        );
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    let help = obgp_build().args(["--json", "--help"]).output().unwrap();
    assert!(help.status.success() && help.stdout.starts_with(b"Build, verify"));
}

#[test]
fn empty_environment_variables_count_as_unset() {
    let unset = outcome(obgp_build().arg("plan"));
    let mut empty = obgp_build();
    for name in [
        "DISTRO",
        "PROJECT_REF",
        "REGISTRY",
        "IMAGE_PREFIX",
        "PUSH",
        "OBGP_BUILD_CONFIG",
        "OBGP_REGISTRY_CA",
        "RUST_LOG",
        "SOURCE_DATE_EPOCH",
        "OBGP_CACHE_DIR",
        "DOCKER_CONTEXT",
        "COMPLETE",
    ] {
        empty.env(name, "");
    }
    assert_eq!(outcome(empty.arg("plan")), unset);
    assert!(unset.contains("/nonexistent/docker.sock"), "{unset}");
}

#[test]
fn the_dockerfile_subcommand_prints_the_committed_file() {
    let output = obgp_build().args(["dockerfile", "ubuntu_noble"]).output().unwrap();
    let committed = std::fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/dockerfiles/Dockerfile.ubuntu_noble"
    ))
    .unwrap();
    assert_eq!(output.stdout, committed);
}
