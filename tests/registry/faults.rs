//! Everything that can go wrong on the way to a registry, provoked in front of a real one: the image arrives whole, or the
//! tag stays what it was.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::MIB;
use super::support::distribution::Distribution;
use super::support::faults::{Asked, Fault, FaultyProxy, uploaded};
use super::support::published::Project;
use futures_util::TryStreamExt;
use obgp_build::oci::{Artifact, Content, Place};
use obgp_build::progress::{Progress, Silent};
use obgp_build::publish::{Destination, PublishError, Published, publish};
use obgp_build::registry::{
    Access, Overrides, Patience, Registries, RegistryError, RemoteImage, RemoteRoot, Repository,
};
use oci_spec::image::{Descriptor, MediaType};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// Notes what is told about tries.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Progress for Notes {
    fn step(&self, _: &str) {}
    fn bytes(&self, _: u64, _: Option<u64>) {}
    fn log(&self, _: &str) {}
    fn note(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_string());
    }
}

struct Lab {
    project: Project,
    registry: Distribution,
    proxy: FaultyProxy,
    notes: Arc<Notes>,
}

impl Lab {
    async fn new() -> Self {
        Self::with("").await
    }

    /// With these `[[registries]]`.
    async fn with(registries: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let registry = Distribution::start();
        Self {
            project: Project::new(registries),
            proxy: FaultyProxy::start(registry.address()).await,
            registry,
            notes: Arc::default(),
        }
    }

    fn registries(&self) -> Registries {
        let patience = Patience {
            tries: 6,
            first: Duration::from_millis(50),
            longest: Duration::from_secs(1),
        };
        let file = self.project.file();
        Registries::new(&file.registries, &file.root, Overrides::default(), self.notes.clone()).with_patience(patience)
    }

    fn destination(&self, host: &str, tag: &str) -> Destination {
        Destination::new(&format!("{host}/team/agent:{tag}").parse().unwrap(), None).unwrap()
    }

    /// Through the proxy, under the same tag as in the layout.
    async fn push(&self, tag: &str, to: &str) -> Result<Published, PublishError> {
        self.push_to(tag, &[self.destination(&self.proxy.host(), to)]).await
    }

    async fn push_to(&self, tag: &str, to: &[Destination]) -> Result<Published, PublishError> {
        let (image, index) = self.project.verified(tag);
        let cancel = CancellationToken::new();
        publish(image.layout(), &index, to, &[], &self.registries(), &Silent, &cancel).await
    }

    /// Empties the registry's files about what it has, and says how many they were.
    fn emptied_links(&self) -> usize {
        let mut emptied = 0;
        let mut directories = vec![self.registry.data()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else if path.ends_with("link") && !path.components().any(|part| part.as_os_str() == "index") {
                    std::fs::write(path, "").unwrap();
                    emptied += 1;
                }
            }
        }
        emptied
    }

    /// The digest under the tag, everything of the image being there; asked for without the proxy.
    async fn complete(&self, tag: &str) -> Option<String> {
        let name = self.destination(&self.registry.host(), tag).repository;
        whole(&self.registries(), &name, tag).await
    }
}

/// Reads the whole image, every blob of it with its digest checked.
async fn whole(registries: &Registries, name: &obgp_build::oci::RepositoryName, tag: &str) -> Option<String> {
    let repository = registries.repository(name, Access::Pull).unwrap();
    repository.tag_digest(tag).await.unwrap()?;
    let image = RemoteImage::open(RemoteRoot::open(&repository, tag).await.unwrap())
        .await
        .unwrap();
    assert_eq!(image.platforms.len(), 2);
    for blob in image.blobs().unwrap() {
        read(&repository, &blob).await.unwrap();
    }
    Some(image.root.descriptor.digest().to_string())
}

/// How many bytes came, the digest being right.
async fn read(repository: &Repository, blob: &Descriptor) -> Result<u64, RegistryError> {
    let pieces = repository.download(blob, 0);
    pieces
        .try_fold(0, async |sum, piece| Ok(sum + piece.len() as u64))
        .await
}

fn upload_of_a_layer(asked: &Asked) -> bool {
    asked.uploads()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_survives_a_registry_restart_during_an_upload() {
    let mut lab = Lab::new().await;
    let index = lab.project.make("t", 1, 24 * MIB);
    let (sender, mut killed) = tokio::sync::mpsc::unbounded_channel();
    // Cut in the middle, and at the same moment the registry dies.
    let mut left = 1;
    lab.proxy.on(move |asked| {
        if left > 0 && upload_of_a_layer(asked) {
            left -= 1;
            let _ = sender.send(());
            return Some(Fault::Cut(8 << 20));
        }
        None
    });
    let registries = lab.registries();
    let (image, verified) = lab.project.verified("t");
    let to = [lab.destination(&lab.proxy.host(), "t")];
    let cancel = CancellationToken::new();
    let push = publish(image.layout(), &verified, &to, &[], &registries, &Silent, &cancel);
    let restart = async {
        killed.recv().await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
        lab.registry.kill();
        tokio::time::sleep(Duration::from_millis(400)).await;
        lab.registry.restart();
    };
    let (published, ()) = tokio::join!(push, restart);
    published.unwrap();
    assert_eq!(lab.complete("t").await, Some(index.digest().to_string()));
}

/// docker-registry writes what it has, and what a tag stands for, into files in place. Killed meanwhile, or with its disk
/// full, it leaves them empty, and answers 500 for what they are about from then on.
#[tokio::test(flavor = "multi_thread")]
async fn content_that_the_registry_lost_is_sent_again() {
    let mut lab = Lab::with("[[registries]]\nhost = \"127.0.0.1:*\"\nimmutable = [\"team/agent:7.*\"]").await;
    let index = lab.project.make("t", 16, MIB).digest().to_string();
    lab.push("t", "t").await.unwrap();
    lab.push("t", "7.0").await.unwrap();
    let emptied = lab.emptied_links();
    assert!(emptied >= 10, "{emptied}: layers, configurations, manifests, tags");
    lab.registry.kill();
    lab.registry.restart();
    lab.push("t", "t").await.unwrap();
    assert_eq!(lab.complete("t").await, Some(index));
    // What a tag stands for has to be known where it must stay that.
    let error = lab.push("t", "7.0").await.unwrap_err().to_string();
    assert!(error.contains("500") && error.contains("manifest 7.0"), "{error}");
}

/// As bundles have their configuration in common. docker-registry fails at a blob that it gets twice at a time.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_shared_by_artifacts_is_checked_and_sent_once() {
    let lab = Lab::new().await;
    let subject = lab.project.make("t", 17, MIB);
    let empty = Content::new(MediaType::EmptyJSON, b"{}".to_vec());
    let artifact = |kind: &str| Artifact {
        manifest: Content::new(
            MediaType::ImageManifest,
            json!({
                "schemaVersion": 2, "mediaType": MediaType::ImageManifest.to_string(), "artifactType": kind,
                "config": empty.descriptor, "layers": [empty.descriptor], "subject": subject,
            })
            .to_string(),
        ),
        blobs: vec![empty.clone()],
        place: Place::Referrer,
    };
    let artifacts = ["text/a", "text/b", "text/c"].map(artifact);
    let (image, index) = lab.project.verified("t");
    let to = [lab.destination(&lab.proxy.host(), "t")];
    let cancel = CancellationToken::new();
    publish(
        image.layout(),
        &index,
        &to,
        &artifacts,
        &lab.registries(),
        &Silent,
        &cancel,
    )
    .await
    .unwrap();
    let asked = lab.proxy.take();
    let path = format!("/blobs/{}", empty.descriptor.digest());
    assert_eq!(asked.iter().filter(|asked| asked.is("HEAD", &path)).count(), 1);
    let closing = format!("digest={}", empty.descriptor.digest().to_string().replace(':', "%3A"));
    assert_eq!(asked.iter().filter(|asked| asked.is("PUT", &closing)).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_survives_dropped_connections() {
    let lab = Lab::new().await;
    let index = lab.project.make("t", 2, 4 * MIB);
    lab.proxy.fail(3, upload_of_a_layer, Fault::Cut(1 << 20));
    lab.push("t", "t").await.unwrap();
    assert_eq!(lab.complete("t").await, Some(index.digest().to_string()));
    assert!(
        !lab.notes.0.lock().unwrap().is_empty(),
        "the person is told of another try"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_resumes_at_the_offset_that_the_registry_reports() {
    let lab = Lab::new().await;
    // Larger than a chunk, so that there is something to go on from.
    let index = lab.project.make("t", 3, 40 * MIB);
    // Chunks that end an upload of several are cut, twice.
    let patched = Mutex::new(HashSet::new());
    let upload = |asked: &Asked| asked.path.split('?').next().unwrap_or_default().to_string();
    let second = move |asked: &Asked| {
        if asked.is("PATCH", "/blobs/uploads/") {
            patched.lock().unwrap().insert(upload(asked));
        }
        asked.is("PUT", "/blobs/uploads/") && patched.lock().unwrap().contains(&upload(asked))
    };
    lab.proxy.fail(2, second, Fault::CutBuffered(4 << 20));
    lab.push("t", "t").await.unwrap();
    let asked = lab.proxy.take();
    assert_eq!(lab.complete("t").await, Some(index.digest().to_string()));
    let status: Vec<&Asked> = asked.iter().filter(|a| a.is("GET", "/blobs/uploads/")).collect();
    assert_eq!(status.len(), 2, "it was not asked how far the upload is");
    // Sent twice is at most what the two cut requests had; never a first chunk.
    let total = 2 * 40 * MIB as u64;
    let sent = uploaded(&asked);
    assert!(sent < total + 2 * (6 << 20), "{sent} bytes were sent for {total}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_response_causes_no_second_upload() {
    let lab = Lab::new().await;
    let index = lab.project.make("t", 4, 4 * MIB);
    lab.proxy
        .fail(2, |asked| asked.is("PUT", "/blobs/uploads/"), Fault::LoseAnswer);
    lab.push("t", "t").await.unwrap();
    let sent = uploaded(&lab.proxy.take());
    assert!(sent < 9 * MIB as u64, "{sent} bytes were sent for 8 MiB");
    assert_eq!(lab.complete("t").await, Some(index.digest().to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_waits_as_long_as_retry_after_says() {
    let lab = Lab::new().await;
    lab.project.make("t", 5, MIB);
    let wait = |seconds: &str| Fault::Answer(429, vec![("Retry-After", seconds.to_string())]);
    lab.proxy.fail(1, |asked| asked.is("HEAD", "/blobs/"), wait("2"));
    let started = Instant::now();
    lab.push("t", "t").await.unwrap();
    assert!(
        started.elapsed() >= Duration::from_secs(2),
        "it did not wait: {:?}",
        started.elapsed()
    );
    lab.project.make("u", 6, MIB);
    lab.proxy.fail(1, upload_of_a_layer, wait("1"));
    let started = Instant::now();
    lab.push("u", "u").await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert!(lab.complete("t").await.is_some() && lab.complete("u").await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_the_server_pass_everywhere_and_are_told_when_they_do_not() {
    let lab = Lab::new().await;
    let index = lab.project.make("t", 7, MIB);
    // Whatever is asked fails the first time; every session of an upload has another name.
    let mut seen = HashSet::new();
    lab.proxy.on(move |asked| {
        let path = asked.path.split("/uploads/").next().unwrap().to_string();
        let first = seen.insert((asked.method.clone(), path));
        first.then(|| Fault::Answer([500, 502, 503][seen.len() % 3], Vec::new()))
    });
    lab.push("t", "t").await.unwrap();
    assert_eq!(lab.complete("t").await, Some(index.digest().to_string()));
    lab.project.make("t", 8, MIB);
    lab.proxy
        .on(|asked| asked.is("PUT", "/manifests/").then(|| Fault::Answer(503, Vec::new())));
    let error = lab.push("t", "t").await.unwrap_err().to_string();
    assert!(
        error.contains("503") && error.contains("putting the manifest"),
        "{error}"
    );
    // The tag is what it was.
    assert_eq!(lab.complete("t").await, Some(index.digest().to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_arrives_changed_is_sent_again_and_a_damaged_one_is_not() {
    let lab = Lab::new().await;
    let index = lab.project.make("t", 9, 2 * MIB);
    lab.proxy.fail(2, upload_of_a_layer, Fault::ChangeByte);
    lab.push("t", "t").await.unwrap();
    assert_eq!(lab.complete("t").await, Some(index.digest().to_string()));
    // Changed on the disk, after it was verified.
    lab.project.make("u", 10, 2 * MIB);
    let (image, verified) = lab.project.verified("u");
    let manifest: oci_spec::image::ImageManifest = image.layout().read_json(&image.platforms[0].1).unwrap();
    let path = image.layout().blob_path(manifest.layers()[1].digest()).unwrap();
    let mut content = std::fs::read(&path).unwrap();
    content[4000] ^= 1;
    std::fs::write(&path, content).unwrap();
    let to = [lab.destination(&lab.proxy.host(), "u")];
    let cancel = CancellationToken::new();
    let error = publish(image.layout(), &verified, &to, &[], &lab.registries(), &Silent, &cancel)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("the file is damaged"), "{error}");
    assert_eq!(lab.complete("u").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_serves_changed_is_refused_and_a_broken_download_goes_on() {
    let lab = Lab::new().await;
    lab.project.make("t", 11, 4 * MIB);
    lab.push("t", "t").await.unwrap();
    let name = lab.destination(&lab.proxy.host(), "t").repository;
    let repository = lab.registries().repository(&name, Access::Pull).unwrap();
    let image = RemoteImage::open(RemoteRoot::open(&repository, "t").await.unwrap())
        .await
        .unwrap();
    let largest = image.blobs().unwrap().into_iter().max_by_key(|b| b.size()).unwrap();
    lab.proxy
        .fail(3, |asked| asked.is("GET", "/blobs/sha256"), Fault::CutAnswer(1 << 20));
    lab.proxy.take();
    assert_eq!(read(&repository, &largest).await.unwrap(), largest.size());
    let received: u64 = lab
        .proxy
        .take()
        .iter()
        .map(|a| a.received.load(std::sync::atomic::Ordering::Relaxed))
        .sum();
    // Three times from the beginning would be three MiB more; some of what is cut off was on its way.
    assert!(
        received < largest.size() + (2 << 20),
        "{received} bytes came for {}",
        largest.size()
    );
    lab.proxy
        .fail(1, |asked| asked.is("GET", "/blobs/sha256"), Fault::ChangeAnswer);
    let error = read(&repository, &largest).await.unwrap_err().to_string();
    assert!(error.contains("was changed"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pushes_of_one_tag_leave_one_image_and_tell_the_other() {
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
    // Someone sets the tag between our setting and our reading back.
    let (a, b) = (digests[0].digest().to_string(), digests[1].digest().to_string());
    let direct = [lab.destination(&lab.registry.host(), "taken")];
    let mut put = false;
    let (sender, receiver) = std::sync::mpsc::channel();
    let (resume, resumed) = std::sync::mpsc::channel::<()>();
    lab.proxy.on(move |asked| {
        put |= asked.is("PUT", "/manifests/taken");
        if put && asked.is("GET", "/manifests/taken") {
            let _ = sender.send(());
            // The runtime's other tasks go on elsewhere meanwhile, the other push's too.
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
    lab.proxy.on(move |asked| {
        if asked.uploads() {
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

/// SIGKILL of the program at points that are spread over the time a push takes.
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
        // Killed at the n-th request, over all of them in turn: that is where its state in the registry changes.
        let at = 1 + (round as usize * 7) % requests;
        let mut child = push("new").spawn().unwrap();
        let pid = child.id();
        let mut n = 0;
        lab.proxy.take();
        lab.proxy.on(move |_| {
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
        lab.proxy.on(|_| None);
        lab.proxy.take();
        assert!(run(push("new")).await.unwrap().success(), "round {round}");
        requests = requests.max(lab.proxy.take().len());
        assert_eq!(lab.complete("t").await.as_deref(), Some(new.as_str()), "round {round}");
        old = new;
    }
    assert!(killed >= 15, "only {killed} of 20 were killed before their end");
}
