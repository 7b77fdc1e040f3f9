//! Tests the modes of `--bootstrap` with a registry that is up or down.

use super::*;

/// A bootstrapped base does not replace the registry's base for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_returns_is_used_again() {
    let Some(machine) = endpoint(Which::Machine) else {
        return;
    };
    let mut bases = Bases::start(Which::Machine, Login::None);
    let digest = bases.push("modes:1");
    let reference = bases.reference("modes:1");
    let project = Project::fast(&[&machine]);
    project.builder("one", &machine.address.to_string(), "slots = 2");
    project.set_base(&reference);
    project.will_remove_base(&digest);
    let plan = |mode: &str| command(&project, "plan", mode, &[]).output().unwrap();

    bases.registry.kill();
    let stderr = failure(&plan("never"));
    assert!(stderr.contains("tried the registry, for"), "{stderr}");
    let offline = plan("auto");
    assert!(String::from_utf8_lossy(&offline.stderr).contains("is not from a registry"));
    assert_eq!(planned(&offline)[0].0, "bootstrap");
    let built = report(&command(&project, "build", "auto", &[]).output().unwrap());
    assert!(
        built["images"][0]["platforms"][0]["base"]["name"]
            .as_str()
            .unwrap()
            .ends_with("-bootstrap")
    );

    // The engine reports the digest of its base without the bootstrap cache.
    let mut without_cache = command(&project, "plan", "auto", &[]);
    without_cache.env("OBGP_CACHE_DIR", bases.dir.path());
    let (origin, known) = planned(&without_cache.output().unwrap()).remove(0);
    assert_eq!(origin, "engine");
    assert!(known.is_some());

    bases.registry.restart();
    assert_eq!(
        planned(&plan("auto"))[0],
        ("registry".to_string(), Some(digest.clone()))
    );
    assert_eq!(planned(&plan("always"))[0], ("bootstrap".to_string(), None));
    let built = report(&command(&project, "build", "auto", &[]).output().unwrap());
    assert_based_on(&built, &reference, &digest);

    // While the registry is down, a pulled base is preferred over a base of another origin.
    bases.registry.kill();
    for mode in ["never", "auto"] {
        assert_eq!(
            planned(&plan(mode))[0],
            ("engine".to_string(), Some(digest.clone())),
            "{mode}"
        );
    }
    project.clean().await;
}

/// A base that does not exist is an error before the build starts.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_base_in_build_toml_takes_effect_at_once() {
    let Some(machine) = endpoint(Which::Machine) else {
        return;
    };
    let bases = Bases::start(Which::Machine, Login::None);
    let project = Project::fast(&[&machine]);
    project.builder("one", &machine.address.to_string(), "slots = 2");
    for name in ["first:1", "second:1"] {
        let digest = bases.push(name);
        project.will_remove_base(&digest);
        project.set_base(&bases.reference(name));
        let built = report(&command(&project, "build", "auto", &[]).output().unwrap());
        assert_based_on(&built, &bases.reference(name), &digest);
    }
    for missing in ["none:1", "second:2"] {
        project.set_base(&bases.reference(missing));
        for mode in ["auto", "never"] {
            let stderr = failure(&command(&project, "plan", mode, &[]).output().unwrap());
            assert!(stderr.contains("has no tag"), "{stderr}");
        }
    }
    project.clean().await;
}
