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

#[test]
fn completions_contain_subcommands_and_flags() {
    let text = outcome(obgp_build().args(["completions", "bash"]));
    assert!(text.contains("bootstrap") && text.contains("--project-ref"), "{text}");
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
