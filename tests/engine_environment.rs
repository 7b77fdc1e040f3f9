//! Tests what an engine takes from the user's environment: `ssh` on the PATH and docker's logins.
//!
//! The tests change the environment before they start a runtime, so they have a binary of their own.

mod support;

use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use obgp_build::engine::{Address, Endpoint, Engine, Origin};
use obgp_build::oci::{Architecture, Platform};
use obgp_build::progress::Silent;
use support::registry::{PASSWORD, Registry, TOKEN, USER};
use support::{Recorder, Which, address_for_containers, host_platform};

/// A directory for docker's configuration and for programs, first on the PATH.
fn environment() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("environment-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
        // SAFETY: every test of this binary calls this before it starts threads that read the environment.
        unsafe {
            std::env::set_var("PATH", path);
            std::env::set_var("DOCKER_CONFIG", &dir);
        }
        dir
    })
}

fn program(name: &str, script: &str) {
    let path = environment().join(name);
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
}

fn run(test: impl Future<Output = ()>) {
    environment();
    tokio::runtime::Runtime::new().unwrap().block_on(test);
}

/// Replaces ssh: records its arguments and runs the remote command locally.
const SSH: &str = r#"#!/bin/sh
echo "$@" >> "$(dirname "$0")/ssh-arguments"
host=
while [ $# -gt 0 ]; do
    case $1 in
    --) host=$2; shift 2; break ;;
    *) shift ;;
    esac
done
case $host in
closed.example) echo "me@closed.example: Permission denied (publickey)." >&2; exit 255 ;;
esac
exec "$@"
"#;

#[test]
fn a_build_runs_over_ssh_and_dial_stdio() {
    environment();
    program("ssh", SSH);
    run(async {
        let at = |host: &str| Endpoint {
            address: Address::parse(host, None).unwrap(),
            origin: Origin::DockerHost,
        };
        support::on_endpoint(at("ssh://me@far.example:2222"), async |lab| {
            let base = lab.shell_image().await;
            let request = lab.request(&format!("FROM {base}\nCOPY f /\n"), &[("f", &"x".repeat(5 << 20))]);
            lab.solve(&request).await.unwrap();
        })
        .await;
        let arguments = std::fs::read_to_string(environment().join("ssh-arguments")).unwrap();
        let first = arguments.lines().next().unwrap();
        assert_eq!(
            first,
            "-o ConnectTimeout=30 -T -l me -p 2222 -- far.example docker system dial-stdio"
        );

        let error = match Engine::connect(at("ssh://closed.example")).await {
            Ok(_) => panic!("it connected"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains("Permission denied (publickey)"), "{error}");
        assert!(error.contains("without a password"), "{error}");
    });
}

/// Changes docker's configuration, which the tests of this binary share.
fn configure_docker(add: impl FnOnce(&mut serde_json::Value)) {
    static CONFIG: Mutex<serde_json::Value> = Mutex::new(serde_json::Value::Null);
    let mut config = CONFIG.lock().unwrap();
    if config.is_null() {
        *config = serde_json::json!({"auths": {}, "credHelpers": {}});
    }
    add(&mut config);
    std::fs::write(environment().join("config.json"), config.to_string()).unwrap();
}

/// Pulls a private base from a registry that fails at first. BuildKit gets the login from the session, the solve is
/// retried, and the engine's own pull gets the login as well.
async fn pull_a_private_base(which: Which, host: &str, registry: Arc<Registry>) {
    support::on(which, async |lab| {
        let base = format!("{host}:{}/test/base:1", registry.port);
        let mut request = lab.request(&format!("FROM {base}\nRUN true\n"), &[]);
        request.attempts = 5;
        registry.failing.store(true, Ordering::Relaxed);
        let recorder = Arc::new(Recorder::default());
        let repair = tokio::spawn({
            let (registry, recorder) = (registry.clone(), recorder.clone());
            async move {
                while recorder.notes.lock().unwrap().is_empty() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                registry.failing.store(false, Ordering::Relaxed);
            }
        });
        let solved = lab.solve_with(&request, recorder.as_ref()).await;
        repair.abort();
        solved.unwrap();
        assert!(registry.failures.load(Ordering::Relaxed) > 0);
        let notes = recorder.notes.lock().unwrap().clone();
        assert!(notes[0].contains("503") && notes[0].contains("retrying"), "{notes:?}");

        // The platforms in parallel: in the classic store each pull moves the name.
        let before = registry.logins.load(Ordering::Relaxed);
        let pulls = Architecture::ALL.map(|architecture| {
            let (lab, base) = (lab.clone(), base.clone());
            async move {
                let platform = Platform(architecture);
                let name = lab.image_name();
                let pulled = lab.engine.pull(&base, platform, &name, &Silent).await.unwrap();
                assert!(pulled.is_for(platform), "{pulled:?}");
                pulled.repo_digests.iter().for_each(|digest| lab.will_remove(digest));
                let mut request = lab.request(&format!("FROM {name}\nCOPY Dockerfile /\n"), &[]);
                request.platform = platform;
                let solved = lab.solve(&request).await.unwrap();
                let built = lab.engine.inspect_image_for(&solved.image_id, platform).await.unwrap();
                assert_eq!(built.expect("the image for its platform").labels, pulled.labels);
                assert!(lab.engine.inspect_image_for(&name, platform).await.unwrap().is_some());
            }
        });
        futures_util::future::join_all(pulls).await;
        assert!(registry.logins.load(Ordering::Relaxed) > before);
        let tag = lab.engine.inspect_image(&base).await.unwrap();
        assert_eq!(tag, None, "the pulled reference is removed");
        let missing = format!("{host}:{}/test/missing:1", registry.port);
        let error = lab
            .engine
            .pull(&missing, host_platform(), &lab.image_name(), &Silent)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("test/missing"), "{error}");
    })
    .await;
}

#[test]
fn a_login_in_dockers_config_is_used_on_the_hosts_engine() {
    run(async {
        let registry = Registry::start(support::busybox_layer()).await;
        let login = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let name = format!("127.0.0.1:{}", registry.port);
        configure_docker(|config| config["auths"][name] = serde_json::json!({"auth": login}));
        pull_a_private_base(Which::Machine, "127.0.0.1", registry).await;
    });
}

#[test]
fn a_registry_token_in_dockers_config_is_used_on_the_hosts_engine() {
    run(async {
        let registry = Registry::start(support::busybox_layer()).await;
        registry.bearer.store(true, Ordering::Relaxed);
        let name = format!("127.0.0.1:{}", registry.port);
        configure_docker(|config| config["auths"][name] = serde_json::json!({"registrytoken": TOKEN}));
        pull_a_private_base(Which::Machine, "127.0.0.1", registry).await;
    });
}

#[test]
fn a_credential_helper_is_used_on_a_modern_engine() {
    environment();
    let helper = format!("#!/bin/sh\ncat >/dev/null\necho '{{\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}'\n");
    program("docker-credential-obgp-test", &helper);
    run(async {
        let registry = Registry::start(support::busybox_layer()).await;
        let host = address_for_containers();
        let name = format!("{host}:{}", registry.port);
        configure_docker(|config| config["credHelpers"][name] = "obgp-test".into());
        pull_a_private_base(Which::Modern, &host, registry).await;
    });
}
