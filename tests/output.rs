//! What a person sees: the whole output of commands that read images, compared with snapshots. Needs no engine.
//!
//! `cargo insta review`, or `INSTA_UPDATE=always cargo test --test output`, accepts a change.

mod support;

use std::process::Command;

use support::image::TestImage;
use support::outcome::outcome;
use support::tool::Tool;

const KIB: usize = 1024;

/// The [`outcome`] without the project's path, which differs from run to run.
fn output_of(command: &mut Command, tool: &Tool) -> String {
    let output = command.env("COLUMNS", "120").output().unwrap();
    outcome(&output).replace(&tool.project.path().display().to_string(), "PROJECT")
}

macro_rules! assert_output {
    ($tool:expr, $arguments:expr) => {
        insta::with_settings!({filters => vec![
            (r"sha256:[0-9a-f]{64}", "sha256:DIGEST"),
            (r"sha256:[0-9a-f]{12}\b", "sha256:SHORT"),
            (r"\d+(\.\d+)? m?s\b", "TIME"),
            (r"\d+(\.\d+)? GiB free at \S+", "FREE at DISK"),
            // doctor: what the tests' machine has.
            (r"\w+ +(keyring: \w+|uidmap|CA bundle) .*\n( +-> .*\n)?", "…        $1\n"),
        ]}, {
            insta::assert_snapshot!(output_of(&mut $tool.command($arguments), &$tool));
        })
    };
}

fn every_user_is_root(image: &mut TestImage) {
    image.file("etc/sudoers.d/all", 0o440, "ALL ALL=(ALL) NOPASSWD: ALL\n");
}

#[test]
fn verify_of_an_image_that_keeps_its_contract() {
    let tool = Tool::new("");
    tool.project.make("good", 1, KIB);
    assert_output!(tool, &["verify", "oci:dist/oci:good"]);
}

#[test]
fn verify_of_an_image_that_breaks_its_contract_names_file_expected_and_found() {
    let tool = Tool::new("");
    tool.project.make_with("bad", 2, KIB, every_user_is_root);
    assert_output!(tool, &["verify", "oci:dist/oci:bad"]);
}

#[test]
fn diff_of_two_images_lists_what_was_added_removed_and_changed() {
    let tool = Tool::new("");
    tool.project.make("old", 3, KIB);
    tool.project.make_with("new", 3, KIB, |image| {
        every_user_is_root(image);
        image.remove("usr/bin/vtysh");
        image.append("etc/passwd", "guest:x:1000:1000::/:/bin/sh");
    });
    assert_output!(tool, &["diff", "oci:dist/oci:old", "oci:dist/oci:new"]);
}

#[test]
fn diff_of_an_image_with_itself_is_empty() {
    let tool = Tool::new("");
    tool.project.make("same", 4, KIB);
    assert_output!(tool, &["diff", "oci:dist/oci:same", "oci:dist/oci:same"]);
}

/// Nothing is installed, no engine answers, and the network is a proxy that nobody listens at.
#[test]
fn doctor_on_a_machine_without_anything_prints_the_commands_that_fix_it() {
    let mut tool = Tool::new("");
    for (name, value) in [
        ("PATH", "/nonexistent"),
        ("DOCKER_HOST", "unix:///nonexistent/docker.sock"),
        ("HTTP_PROXY", "http://127.0.0.1:1"),
        ("HTTPS_PROXY", "http://127.0.0.1:1"),
    ] {
        tool.environment.push((name.to_string(), value.to_string()));
    }
    assert_output!(tool, &["doctor"]);
}

#[test]
fn plan_without_an_engine_is_an_error_that_says_where_it_looked() {
    let mut tool = Tool::new("");
    let host = ("DOCKER_HOST".to_string(), "unix:///nonexistent/docker.sock".to_string());
    tool.environment.push(host);
    assert_output!(tool, &["plan", "--distro", "debian_bookworm"]);
}

#[test]
fn diff_with_exit_code_tells_scripts_whether_images_differ() {
    let tool = Tool::new("");
    tool.project.make("old", 5, KIB);
    tool.project.make_with("new", 5, KIB, every_user_is_root);
    let code = |arguments: &[&str]| tool.command(arguments).output().unwrap().status.code();
    let (old, new) = ("oci:dist/oci:old", "oci:dist/oci:new");
    assert_eq!(code(&["diff", old, new]), Some(0));
    assert_eq!(code(&["diff", old, new, "--exit-code"]), Some(1));
    assert_eq!(code(&["diff", old, old, "--exit-code"]), Some(0));
}

#[test]
fn completion_offers_the_tags_of_the_layout_from_anywhere_in_the_project() {
    let tool = Tool::new("");
    tool.project.make("7.0.0-ubuntu_noble", 6, KIB);
    let offered = |directory: &str, word: &str| {
        let mut command = tool.command(&["--", "obgp-build", "verify", word]);
        command.current_dir(tool.project.path().join(directory));
        command.envs([("COMPLETE", "bash"), ("_CLAP_COMPLETE_INDEX", "2"), ("_CLAP_IFS", "\n")]);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert!(
        offered(".", "").contains("oci:dist/oci:7.0.0-ubuntu_noble"),
        "{}",
        offered(".", "")
    );
    assert_eq!(offered(".", "oci:dist/oci:7"), "oci:dist/oci:7.0.0-ubuntu_noble");
    assert_eq!(offered("images", "oci:"), "oci:../dist/oci:7.0.0-ubuntu_noble");
    assert!(!offered(".", "oci:dist/oci:8").contains("7.0.0"));
}

/// Reads stderr up to the line with this text.
fn wait_for(stderr: &mut impl std::io::BufRead, text: &str) -> String {
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        assert!(
            stderr.read_line(&mut line).unwrap() > 0,
            "the run ended without {text:?}"
        );
    }
    line
}

#[test]
fn a_run_waits_for_the_layout_of_another_run_and_shows_who_has_it() {
    let tool = Tool::new("");
    tool.project.make("t", 1, KIB);
    let dir = tool.project.image("t").dir;
    let other_run = obgp_build::layout::Layout::open_or_create(&dir).unwrap();
    let start = || {
        let mut child = tool
            .command(&["verify", "oci:dist/oci:t"])
            .stderr(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
        let line = wait_for(&mut stderr, "is in use by");
        let holder = format!("process {} (", std::process::id());
        assert!(line.contains(&holder) && line.contains("waiting for it"), "{line}");
        (child, stderr)
    };
    // Ctrl-C ends the wait.
    let (mut child, _stderr) = start();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    // A limit ends it as well, at once if it is 0.
    let limited = tool
        .command(&["verify", "oci:dist/oci:t", "--lock-timeout", "0"])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&limited.stderr);
    assert_eq!(limited.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("is in use by") && !stderr.contains("waiting"),
        "{stderr}"
    );
    let (mut child, _stderr) = start();
    // Longer than the former limit of 5 s.
    std::thread::sleep(std::time::Duration::from_secs(6));
    assert!(child.try_wait().unwrap().is_none());
    drop(other_run);
    assert!(child.wait().unwrap().success());
}
