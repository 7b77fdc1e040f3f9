//! Tags during parallel, cancelled and killed pushes.

use std::time::Duration;

use obgp_build::progress::Silent;
use obgp_build::publish::{PublishError, publish};
use tokio_util::sync::CancellationToken;

use super::Lab;
use crate::MIB;

#[tokio::test(flavor = "multi_thread")]
async fn parallel_pushes_of_a_tag_leave_one_complete_image() {
    let lab = Lab::new().await;
    let digests = [lab.project.make("a", 12, 2 * MIB), lab.project.make("b", 13, 2 * MIB)];
    for round in 0..5 {
        let tag = format!("t{round}");
        let (first, second) = tokio::join!(lab.push("a", &tag), lab.push("b", &tag));
        let under_the_tag = lab.complete(&tag).await.unwrap();
        assert!(digests.iter().any(|d| d.digest().to_string() == under_the_tag));
        for (done, index) in [first, second].into_iter().zip(&digests) {
            match done {
                Ok(published) => assert_eq!(published.digest, index.digest().to_string()),
                Err(PublishError::TagTaken { found, .. }) => assert_eq!(found, under_the_tag),
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_taken_by_a_parallel_push_is_reported() {
    let lab = Lab::new().await;
    let digests = [lab.project.make("a", 12, 2 * MIB), lab.project.make("b", 13, 2 * MIB)];
    // The other push sets the tag between our setting and our reading back.
    let (a, b) = (digests[0].digest().to_string(), digests[1].digest().to_string());
    let direct = [lab.destination(&lab.registry.host(), "taken")];
    let mut put = false;
    let (sender, receiver) = std::sync::mpsc::channel();
    let (resume, resumed) = std::sync::mpsc::channel::<()>();
    lab.proxy.set_rule(move |request| {
        put |= request.is("PUT", "/manifests/taken");
        if put && request.is("GET", "/manifests/taken") {
            let _ = sender.send(());
            // The other push continues on another thread meanwhile.
            let _ = tokio::task::block_in_place(|| resumed.recv_timeout(Duration::from_secs(20)));
        }
        None
    });
    let other = async {
        tokio::task::spawn_blocking(move || receiver.recv_timeout(Duration::from_secs(20)).unwrap())
            .await
            .unwrap();
        lab.push_to("b", &direct).await.unwrap();
        resume.send(()).unwrap();
    };
    let (ours, ()) = tokio::join!(lab.push("a", "taken"), other);
    let error = ours.unwrap_err();
    assert!(
        matches!(&error, PublishError::TagTaken { new, found, .. } if *new == a && *found == b),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_push_leaves_the_tag_unchanged() {
    let lab = Lab::new().await;
    let old = lab.project.make("t", 14, MIB);
    lab.push("t", "t").await.unwrap();
    lab.project.make("t", 15, 8 * MIB);
    let cancel = CancellationToken::new();
    let token = cancel.clone();
    lab.proxy.set_rule(move |request| {
        if request.is_upload() {
            token.cancel();
        }
        None
    });
    let (image, index) = lab.project.verified("t");
    let to = [lab.destination(&lab.proxy.host(), "t")];
    let done = publish(image.layout(), &index, &to, &[], &lab.registries(), &Silent, &cancel).await;
    assert!(matches!(done, Err(PublishError::Cancelled)), "{done:?}");
    assert_eq!(lab.complete("t").await, Some(old.digest().to_string()));
}

/// Kills the program with SIGKILL at requests spread over a push.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_killed_at_any_request_leaves_the_old_or_the_new_image() {
    let lab = Lab::new().await;
    let push = |image: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_obgp-build"));
        command
            .args(["push", &lab.project.image(image).to_string()])
            .arg(format!("{}/team/agent:t", lab.proxy.host()))
            .args(["--progress", "quiet", "--config"])
            .arg(lab.project.build_toml())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        command
    };
    let run = |mut command: std::process::Command| tokio::task::spawn_blocking(move || command.status().unwrap());
    let mut old = lab.project.make("old", 100, MIB).digest().to_string();
    assert!(run(push("old")).await.unwrap().success());
    assert_eq!(lab.complete("t").await.as_deref(), Some(old.as_str()));
    let mut killed = 0;
    let mut requests = 12;
    for round in 0..20u64 {
        let new = lab.project.make("new", 101 + round, 2 * MIB).digest().to_string();
        // The state in the registry changes with requests, so the program is killed at the n-th one.
        let at = 1 + (round as usize * 7) % requests;
        let mut child = push("new").spawn().unwrap();
        let pid = child.id();
        let mut n = 0;
        lab.proxy.take_requests();
        lab.proxy.set_rule(move |_| {
            n += 1;
            if n == at {
                let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            None
        });
        let status = tokio::task::spawn_blocking(move || child.wait().unwrap())
            .await
            .unwrap();
        killed += usize::from(!status.success());
        let found = lab.complete("t").await.unwrap();
        assert!(
            found == old || found == new,
            "round {round}: {found} is neither {old} nor {new}"
        );
        lab.proxy.set_rule(|_| None);
        lab.proxy.take_requests();
        assert!(run(push("new")).await.unwrap().success(), "round {round}");
        requests = requests.max(lab.proxy.take_requests().len());
        assert_eq!(lab.complete("t").await.as_deref(), Some(new.as_str()), "round {round}");
        old = new;
    }
    assert!(killed >= 15, "only {killed} of 20 were killed before their end");
}
