//! Prunes repositories of registries with habits: a tag is removed, or everything is as it was.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::MIB;
use crate::support::distribution::Distribution;
use crate::support::habits::{Habit, HabitRegistry, Link};
use crate::support::tool::Tool;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A manifest without blobs; each name gives another one.
fn manifest(name: &str) -> Value {
    json!({"schemaVersion": 2, "mediaType": MANIFEST, "annotations": {"name": name}})
}

/// The signature's tag of a digest.
fn signature(digest: &str) -> String {
    format!("{}.sig", digest.replace(':', "-"))
}

struct Lab {
    tool: Tool,
    registry: HabitRegistry,
}

impl Lab {
    /// `a/b` with the temporary tags `change_1` and `change_2`. `stable` has the image and the signature of `change_1`.
    async fn new(habits: impl IntoIterator<Item = Habit>) -> Self {
        let registry = HabitRegistry::start(habits).await;
        let image = registry.put("a/b", Some("change_1"), MANIFEST, &manifest("one"));
        registry.put("a/b", Some("stable"), MANIFEST, &manifest("one"));
        registry.put("a/b", Some("change_2"), MANIFEST, &manifest("two"));
        registry.put("a/b", Some(&signature(&image)), MANIFEST, &manifest("signature"));
        Self {
            tool: Tool::new(""),
            registry,
        }
    }

    fn repository(&self) -> String {
        format!("{}/a/b", self.registry.host())
    }

    fn tags(&self) -> BTreeMap<String, String> {
        self.registry.tags("a/b")
    }

    async fn prune(&self) -> Value {
        self.tool
            .json(&["prune", &self.repository(), "--prefix", "change_"])
            .await
    }

    /// Returns the error of a prune, after which each tag is what it was.
    async fn prune_in_vain(&self, what: &str) -> String {
        let before = self.tags();
        let error = self
            .tool
            .failure(1, &["prune", &self.repository(), "--prefix", "change_"])
            .await;
        assert_eq!(self.tags(), before, "{what}: {error}");
        error
    }

    /// The tags without `change_*`.
    fn expected(&self) -> BTreeMap<String, String> {
        let mut tags = self.tags();
        tags.retain(|tag, _| !tag.starts_with("change_"));
        tags
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_changes_nothing_where_deletion_is_not_enabled() {
    for status in [400, 401, 403, 404, 405, 412, 501] {
        let lab = Lab::new([Habit::Delete(status)]).await;
        let error = lab.prune_in_vain(&status.to_string()).await;
        assert!(error.contains("help: "), "{error}");
        let writes: Vec<_> = lab
            .registry
            .take_requests()
            .into_iter()
            .filter(|asked| asked.is("PUT", "/manifests/"))
            .collect();
        if status != 404 {
            assert!(writes.is_empty(), "{status}: {writes:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_that_fails_reports_what_it_removed() {
    for status in [403, 409, 412] {
        let lab = Lab::new([Habit::DeleteOf("change_2", status)]).await;
        let before = lab.tags();
        let arguments = ["prune", &lab.repository(), "--prefix", "change_"];
        let output = lab.tool.output(&arguments).await;
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            text.contains("change_1 removed") && text.contains("change_2 not removed"),
            "{status}: {text}"
        );
        assert_eq!(lab.tags().get("change_2"), before.get("change_2"), "{status}");
        assert!(!lab.tags().contains_key("change_1"), "{status}");
    }
}

/// The first request that would reveal it succeeds, and the deletion of the moved tag fails.
#[tokio::test(flavor = "multi_thread")]
async fn prune_sets_a_tag_back_when_its_deletion_fails_half_way() {
    for late in [
        Habit::DeleteTagged(400),
        Habit::DeleteTagged(403),
        Habit::DeleteKeepsTags,
    ] {
        let lab = Lab::new([Habit::DeleteTag(405), late.clone()]).await;
        let error = lab.prune_in_vain(&format!("{late:?}")).await;
        assert!(error.contains("no tag was changed"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_of_a_docker_registry_as_installed_changes_nothing() {
    let tool = Tool::new("");
    tool.project.make("t", 1, MIB);
    let registry = Distribution::start_without_deletion();
    let repository = format!("{}/a/b", registry.host());
    let tag = format!("{repository}:change_1");
    let pushed = tool.json(&["push", &tool.image("t"), &tag]).await;
    let error = tool.failure(1, &["prune", &repository, "--prefix", "change_"]).await;
    assert!(error.contains("storage.delete.enabled"), "{error}");
    assert_eq!(tool.json(&["inspect", &tag]).await["digest"], pushed["digest"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_removes_tags_with_and_without_deletion_of_tags() {
    for habits in [
        vec![],
        vec![Habit::DeleteTag(405)],
        vec![Habit::DeleteTag(400)],
        vec![Habit::DeleteTag(404)],
        vec![Habit::DeleteTagged(400)],
        vec![Habit::HeadManifest(404)],
        vec![Habit::HeadManifest(405), Habit::DeleteTag(405)],
        vec![Habit::NoDigestHeader],
    ] {
        let lab = Lab::new(habits.clone()).await;
        let expected = lab.expected();
        let pruned = lab.prune().await;
        assert!(
            pruned["tags"]
                .as_array()
                .unwrap()
                .iter()
                .all(|tag| tag["removed"] == true),
            "{habits:?}: {pruned}"
        );
        assert_eq!(lab.tags(), expected, "{habits:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_tags_that_a_registry_removes_with_one_are_set_again() {
    let lab = Lab::new([Habit::DeleteTagDeletesManifest]).await;
    let before = lab.tags();
    let error = lab
        .tool
        .failure(1, &["prune", &lab.repository(), "--prefix", "change_1"])
        .await;
    assert!(error.contains("stable"), "{error}");
    assert_eq!(lab.tags()["stable"], before["stable"]);
    assert!(lab.tags().contains_key(&signature(&before["stable"])));
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_of_released_images_stay_in_every_form_of_pages() {
    for form in [
        Link::Absolute,
        Link::Query,
        Link::Prefixed,
        Link::AfterFirst,
        Link::SecondHeader,
        Link::Cased,
        Link::RelList,
        Link::Quoted,
        Link::Missing,
    ] {
        for size in [1, 3] {
            let lab = Lab::new([Habit::PageSize(size), Habit::Link(form)]).await;
            let expected = lab.expected();
            lab.prune().await;
            assert_eq!(lab.tags(), expected, "{form:?} {size}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_removes_nothing_on_the_strength_of_a_list_that_may_be_short() {
    for form in [Link::Same, Link::Endless, Link::OtherHost, Link::Broken] {
        let lab = Lab::new([Habit::PageSize(3), Habit::Link(form)]).await;
        let started = Instant::now();
        let error = lab.prune_in_vain(&format!("{form:?}")).await;
        assert!(error.contains("listing the tags"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10), "{form:?}");
    }
}

/// The limit is a number of tags; pages of one tag reach it in requests.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_ever_new_tags_ends_with_an_error() {
    let lab = Lab::new([Habit::EverNewTags]).await;
    let started = Instant::now();
    let error = lab.prune_in_vain("ever new tags").await;
    assert!(error.contains("the list does not end"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(120), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_signature_of_a_platform_stays_while_a_released_index_has_it() {
    let lab = Lab::new([]).await;
    let platform = lab.registry.put("a/b", Some("change_3"), MANIFEST, &manifest("arm64"));
    let entry = json!({"mediaType": MANIFEST, "digest": platform, "size": manifest("arm64").to_string().len()});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
    lab.registry.put("a/b", Some("stable-2"), INDEX, &index);
    lab.registry
        .put("a/b", Some(&signature(&platform)), MANIFEST, &manifest("its signature"));
    let expected = lab.expected();
    lab.prune().await;
    assert_eq!(lab.tags(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_stay_while_a_listed_tag_cannot_be_read() {
    let lab = Lab::new([Habit::Dangling("unreadable")]).await;
    lab.registry.put("a/b", Some("unreadable"), MANIFEST, &manifest("two"));
    let two = lab.tags()["change_2"].clone();
    lab.registry
        .put("a/b", Some(&signature(&two)), MANIFEST, &manifest("its signature"));
    let expected = lab.expected();
    lab.prune().await;
    assert_eq!(lab.tags(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_immutable_tag_is_not_pruned() {
    let registry = HabitRegistry::start([]).await;
    registry.put("a/b", Some("7.0.0"), MANIFEST, &manifest("one"));
    let tool = Tool::new("[[registries]]\nhost = \"127.0.0.1:*\"\nimmutable = [\"a/b:7.*\"]");
    let repository = format!("{}/a/b", registry.host());
    let pruned = tool.json(&["prune", &repository, "--prefix", "7"]).await;
    assert_eq!(pruned["tags"][0]["kept"], "it is immutable");
    assert!(registry.tags("a/b").contains_key("7.0.0"));
}

/// A registry that deletes manifests only by digest, in which a killed prune left the tag `change_1` at its dummy. Also
/// returns the digest of the image that the tag had.
async fn killed_half_way() -> (Lab, String) {
    let lab = Lab::new([Habit::DeleteTag(405)]).await;
    // The prune waits before it tries the second step again.
    let busy = Habit::DeleteTagged(503);
    lab.registry.switch_on(busy.clone());
    let image = lab.tags()["change_1"].clone();
    let arguments = ["prune", &lab.repository(), "--prefix", "change_1"];
    let mut prune = lab.tool.command(&arguments).spawn().unwrap();
    let started = Instant::now();
    while lab.tags()["change_1"] == image {
        assert!(started.elapsed() < Duration::from_secs(30), "the tag was not moved");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    prune.kill().unwrap();
    prune.wait().unwrap();
    lab.registry.switch_off(&busy);
    (lab, image)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_finishes_what_a_killed_one_began() {
    let (lab, image) = killed_half_way().await;
    let arguments = ["prune", &lab.repository(), "--prefix", "change_1", "--older-than", "1d"];
    let dry = lab.tool.json(&[&arguments[..], &["--dry-run"]].concat()).await;
    assert_eq!(dry["tags"][0]["kept"], Value::Null, "{dry}");
    let pruned = lab.tool.json(&arguments).await;
    assert_eq!(pruned["tags"][0]["removed"], true, "{pruned}");
    assert_eq!(pruned["tags"][0]["digest"], image, "{pruned}");
    let tags = lab.tags();
    assert!(!tags.contains_key("change_1") && tags["stable"] == image, "{tags:?}");
    // `stable` has the image, so its signature stays.
    assert!(tags.contains_key(&signature(&image)), "{tags:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_sets_a_half_removed_tag_back_if_it_cannot_finish() {
    let (lab, image) = killed_half_way().await;
    lab.registry.switch_on(Habit::Delete(405));
    let arguments = ["prune", &lab.repository(), "--prefix", "change_1"];
    let error = lab.tool.failure(1, &arguments).await;
    assert!(error.contains("help: "), "{error}");
    assert_eq!(lab.tags()["change_1"], image, "{error}");
}
