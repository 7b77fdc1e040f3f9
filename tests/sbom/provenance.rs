//! Tests the provenance statement, made from a plan and a result.

use std::collections::BTreeMap;

use obgp_build::attest::Subject;
use obgp_build::attest::provenance::{Flags, Run, statement};
use obgp_build::base::BaseReport;
use obgp_build::base::resolve::{BasePlan, Origin};
use obgp_build::buildkit::context::Context;
use obgp_build::config::cache::Cache;
use obgp_build::plan::runtime_binary::RuntimePlan;
use obgp_build::plan::source::Source;
use obgp_build::plan::{BuilderKind, BuilderPlan, ImagePlan, LockPlan, Target};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::DIGEST;
use crate::support::patch::{PATCH_NAME, patch};
use crate::validators::{Kind, Validators};

const DOCKERFILE: &str = "FROM scratch\n";

fn base_plan(name: &str) -> BasePlan {
    BasePlan {
        platform: "linux/amd64".parse().unwrap(),
        origin: Origin::Registry,
        name: name.to_string(),
        engine_tag: "base:amd64".into(),
        digest: None,
        engine_image: None,
        not_from_registry: None,
    }
}

fn plan(source: Source, runtime: &[(&str, &str)]) -> ImagePlan {
    let mut context = Context::new();
    context.add("Dockerfile", 0o644, DOCKERFILE.to_string());
    context.add("images/x/build/y", 0o755, "#!/bin/sh\n".to_string());
    for (path, content) in runtime {
        context.add(*path, 0o644, content.to_string());
    }
    ImagePlan {
        distro: "debian_bookworm".into(),
        name: "docker.io/openstackhelm/ovn-bgp-agent:7.0.0-debian_bookworm".into(),
        tag: "7.0.0-debian_bookworm".into(),
        reference: "7.0.0".into(),
        source,
        python: "3.11".into(),
        constraints: "2026.2".into(),
        lock: LockPlan {
            name: "7.0.0-py3.11.txt".into(),
            path: "/somebodys/home/7.0.0-py3.11.txt".into(),
            digest: format!("sha256:{}", "1".repeat(64)),
            distributions: 87,
        },
        patches: vec![patch()],
        source_date_epoch: 1_767_225_600,
        context_digest: format!("sha256:{}", "2".repeat(64)),
        context: context.to_tar().unwrap(),
        labels: BTreeMap::from([("org.opencontainers.image.version".into(), "7.0.0".into())]),
        targets: vec![Target {
            platform: "linux/amd64".parse().unwrap(),
            builder: "default".into(),
            engine_tag: "x-amd64".into(),
            base: base_plan("docker.io/library/debian:bookworm-slim"),
            build_base: base_plan("docker.io/library/debian:bookworm-slim"),
            emulated: false,
            runtime: RuntimePlan::Compiled {
                base: base_plan("docker.io/library/debian:trixie-slim"),
                sources_digest: format!("sha256:{}", "4".repeat(64)),
            },
            cache: Cache::default(),
        }],
    }
}

fn statement_of(plan: &ImagePlan) -> Value {
    let base = BaseReport {
        name: "docker.io/library/debian:bookworm-slim".into(),
        digest: Some(format!("sha256:{}", "3".repeat(64))),
    };
    let run = Run {
        project: "ovn-bgp-agent",
        builder_id: "https://ci.example.org/builders/1",
        builder: &BuilderPlan {
            name: "default".into(),
            kind: BuilderKind::Engine,
            endpoint: "unix:///run/somebodys.sock".into(),
            version: "28.5.2".into(),
            store: Some("containerd".into()),
            native: "linux/amd64".parse().unwrap(),
            platforms: vec!["linux/amd64".parse().unwrap()],
            slots: 2,
        },
        flags: Flags {
            no_cache: true,
            locked: false,
            compression: "gzip",
            base: None,
        },
        emulated: false,
        base: &base,
        build_base: None,
        started: "2026-11-24T12:00:00.123456Z".parse().unwrap(),
        finished: "2026-11-24T12:01:30Z".parse().unwrap(),
    };
    let subject = Subject::new("docker.io/openstackhelm/ovn-bgp-agent", &DIGEST.parse().unwrap());
    let bytes = statement(subject, plan, &plan.targets[0], &run).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn pypi() -> Source {
    Source::PyPI {
        version: "7.0.0".into(),
    }
}

fn dependency<'a>(statement: &'a Value, name: &str) -> &'a Value {
    let all = &statement["predicate"]["buildDefinition"]["resolvedDependencies"];
    crate::find(all, name)
}

#[test]
fn patches_are_dependencies_with_their_hashes() {
    let statement = statement_of(&plan(pypi(), &[]));
    let found = dependency(&statement, &format!("patches/{PATCH_NAME}.patch"));
    assert_eq!(found["digest"]["sha256"], patch().sha256);
    assert_eq!(found["annotations"]["summary"], "Say hello");
}

#[test]
fn provenance_passes_its_validator() {
    let Some(validators) = Validators::get() else { return };
    let good = statement_of(&plan(pypi(), &[]));
    let breaks = [
        ("/_type", json!("https://in-toto.io/Statement/v0.1")),
        ("/subject/0/digest", json!({})),
        ("/predicateType", json!("https://slsa.dev/provenance/v0.2")),
        ("/predicate/buildDefinition/buildType", json!("")),
        (
            "/predicate/buildDefinition/resolvedDependencies/0",
            json!({"annotations": {"x": "y"}}),
        ),
        ("/predicate/runDetails/builder", json!({"identity": "x"})),
        ("/predicate/runDetails/metadata/startedOn", json!("yesterday")),
    ];
    validators.assert_rejects(Kind::Provenance, &good, &breaks);
}

#[test]
fn provenance_names_every_input() {
    let statement = statement_of(&plan(
        pypi(),
        &[("runtime/Cargo.toml", "x"), ("runtime/src/main.rs", "y")],
    ));
    assert_eq!(statement["subject"][0]["digest"]["sha256"], "a".repeat(64));
    let definition = &statement["predicate"]["buildDefinition"];
    assert_eq!(
        definition["externalParameters"],
        json!({
            "distro": "debian_bookworm",
            "platform": "linux/amd64",
            "ref": "7.0.0",
            "image": "docker.io/openstackhelm/ovn-bgp-agent:7.0.0-debian_bookworm",
            "flags": {"noCache": true, "locked": false, "compression": "gzip"},
        })
    );
    let base = dependency(&statement, "docker.io/library/debian:bookworm-slim");
    assert_eq!(base["digest"]["sha256"], "3".repeat(64));
    let dockerfile = hex::encode(Sha256::digest(DOCKERFILE));
    assert_eq!(dependency(&statement, "Dockerfile")["digest"]["sha256"], dockerfile);
    assert_eq!(
        dependency(&statement, "build context")["digest"]["sha256"],
        "2".repeat(64)
    );
    assert_eq!(
        dependency(&statement, "locks/7.0.0-py3.11.txt")["digest"]["sha256"],
        "1".repeat(64)
    );
    assert_eq!(
        dependency(&statement, "ovn-bgp-agent")["uri"],
        "pkg:pypi/ovn-bgp-agent@7.0.0"
    );
    // The dirHash of in-toto, like the h1 of Go modules: the digest of a sha256sum listing.
    let listing = format!(
        "{}  runtime/Cargo.toml\n{}  runtime/src/main.rs\n",
        hex::encode(Sha256::digest("x")),
        hex::encode(Sha256::digest("y"))
    );
    assert_eq!(
        dependency(&statement, "runtime")["digest"]["dirHash"],
        hex::encode(Sha256::digest(listing))
    );
    let details = &statement["predicate"]["runDetails"];
    assert_eq!(details["metadata"]["startedOn"], "2026-11-24T12:00:00Z");
    assert_eq!(details["builder"]["version"]["engine"], "28.5.2");
    // Paths of the build host are private.
    assert!(!statement.to_string().contains("somebodys"));
}

#[test]
fn a_git_ref_is_recorded_with_its_commit() {
    let commit = "b".repeat(40);
    let source = Source::Git {
        url: "https://opendev.org/openstack/ovn-bgp-agent".into(),
        commit: commit.clone(),
    };
    let mut plan = plan(source, &[]);
    plan.reference = "master".into();
    let statement = statement_of(&plan);
    let project = dependency(&statement, "ovn-bgp-agent");
    assert_eq!(project["uri"], "git+https://opendev.org/openstack/ovn-bgp-agent@master");
    assert_eq!(project["digest"]["gitCommit"], commit);
}
