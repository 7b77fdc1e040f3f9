//! Changes that break the patches rule: record, files, texts, label and the project's patches must agree.

use obgp_build::plan::patches::{LABEL, Patch};
use serde_json::json;

use crate::Break;
use crate::breaks;
use crate::support::image::{SITE, TestImage};
use crate::support::patch::{AGENT, PATCH, PATCH_NAME, patch};

const HELLO: &str = "ovn_bgp_agent/hello.py";

fn path(name: &str) -> String {
    format!("{AGENT}/patches/{name}.patch")
}

/// Adds a patch to the project, or replaces the existing one.
fn project_has(image: &mut TestImage, name: &str, text: &str) {
    let patch = Patch::parse(name, text.as_bytes(), "ovn_bgp_agent").unwrap();
    match image.patches.as_mut() {
        Some(all) if name != PATCH_NAME => all.push(patch),
        _ => image.patches = Some(vec![patch]),
    }
}

/// Adds a second patch to the image, its record and its label.
fn add_second(image: &mut TestImage, name: &str, text: &str) -> Patch {
    let patch = Patch::parse(name, text.as_bytes(), "ovn_bgp_agent").unwrap();
    image.file(&path(name), 0o644, text);
    image.patch_record(|record| {
        let entry = json!({ "name": name, "sha256": patch.sha256, "files": patch.files });
        record["patches"].as_array_mut().unwrap().push(entry);
    });
    let label = image.config["config"]["Labels"][LABEL].as_str().unwrap().to_string();
    image.config["config"]["Labels"][LABEL] = json!(format!("{label},{name}@{}", &patch.sha256[..12]));
    patch
}

pub const BREAKS: &[Break] = &[
    // The image was built without the patch.
    breaks(
        "patches",
        |i| {
            i.remove(&format!("{AGENT}/PATCHES"));
            i.remove(&path(PATCH_NAME));
            i.config["config"]["Labels"].as_object_mut().unwrap().remove(LABEL);
        },
        "not applied",
    ),
    breaks("patches", |i| i.remove(&format!("{AGENT}/PATCHES")), "not recorded"),
    breaks(
        "patches",
        |i| i.file(&format!("{AGENT}/PATCHES"), 0o644, "{}"),
        "missing field",
    ),
    breaks("patches", |i| i.patch_record(|r| r["more"] = json!(1)), "unknown field"),
    breaks(
        "patches",
        |i| drop(i.config["config"]["Labels"].as_object_mut().unwrap().remove(LABEL)),
        "no such label",
    ),
    breaks(
        "patches",
        |i| i.config["config"]["Labels"][LABEL] = json!("0001-say-hello@000000000000"),
        "0001-say-hello@000000000000",
    ),
    breaks("patches", |i| i.remove(&path(PATCH_NAME)), "the patch, as recorded"),
    breaks(
        "patches",
        |i| i.replace(&path(PATCH_NAME), "Nothing was said", "Nothing"),
        "as recorded",
    ),
    breaks(
        "patches",
        |i| i.file(&path("0009-other"), 0o644, PATCH),
        "0009-other.patch",
    ),
    // The file was changed after the patch, or never patched.
    breaks(
        "patches",
        |i| i.append(&format!("{SITE}/{HELLO}"), "import os"),
        "as recorded",
    ),
    breaks(
        "patches",
        |i| {
            i.replace(&format!("{SITE}/{HELLO}"), "print('hello')", "print()");
            let hash = "e2b0a6e6f0c8a4fd2b6ee5c1ee7f4d0f5f3a86bb2f9a5b6c2f9bdb0a2ff6a86c";
            i.patch_record(|r| r["files"][HELLO] = json!(hash));
        },
        "as recorded",
    ),
    breaks(
        "patches",
        |i| {
            i.replace(&format!("{SITE}/{HELLO}"), "print('hello')", "print()");
            i.patch_record(|r| r["files"][HELLO] = json!(hash_of("# hello\nprint()\n")));
        },
        "the change of 0001-say-hello",
    ),
    breaks(
        "patches",
        |i| i.remove(&format!("{SITE}/{HELLO}")),
        "missing, or not a source",
    ),
    breaks(
        "patches",
        |i| i.patch_record(|r| r["files"] = json!({})),
        "each file that a patch changes",
    ),
    breaks(
        "patches",
        |i| i.patch_record(|r| r["files"]["ovn_bgp_agent/__init__.py"] = json!("00")),
        "each file that a patch changes",
    ),
    // The patches of the project differ.
    breaks("patches", |i| project_has(i, "0002-more", PATCH), "0002-more"),
    breaks(
        "patches",
        |i| project_has(i, PATCH_NAME, &PATCH.replace("Nothing was said", "Nothing")),
        "of the project, sha256",
    ),
    breaks(
        "patches",
        |i| i.patches = Some(Vec::new()),
        "only the project's patches",
    ),
    breaks(
        "patches",
        |i| {
            let second = add_second(i, "0002-more", &PATCH.replace("hello.py", "__init__.py"));
            i.patches = Some(vec![second, patch()]);
        },
        "another order",
    ),
    breaks(
        "patches",
        |i| {
            let text = PATCH.replace("ovn_bgp_agent/hello.py", "os/path.py");
            i.file(&path(PATCH_NAME), 0o644, &text);
            i.patch_record(|r| r["patches"][0]["sha256"] = json!(hash_of(&text)));
            i.config["config"]["Labels"][LABEL] = json!(format!("{PATCH_NAME}@{}", &hash_of(&text)[..12]));
            i.patches = None;
        },
        "a patch of the agent",
    ),
];

fn hash_of(text: &str) -> String {
    use sha2::{Digest as _, Sha256};

    hex::encode(Sha256::digest(text))
}
