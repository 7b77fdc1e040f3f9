//! The patch of the test image.

use obgp_build::plan::patches::{LABEL, Patch, label_of};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::image::{SITE, TestImage};

/// The metadata directory of the agent.
pub const AGENT: &str = "usr/local/lib/python3.12/dist-packages/ovn_bgp_agent-7.0.0.dist-info";

/// The only patch of the test image and of its project.
pub const PATCH_NAME: &str = "0001-say-hello";
pub const PATCH: &str = "Description: Say hello\n Nothing was said.\nAuthor: a test\nForwarded: no\nApplies-To: >=5.0.0\n\
    Drop-When: never\nLast-Update: 2026-01-02\n\n\
    --- a/ovn_bgp_agent/hello.py\n+++ b/ovn_bgp_agent/hello.py\n@@ -1,2 +1,2 @@\n # hello\n-print()\n+print('hello')\n";

/// [`PATCH`], parsed.
pub fn patch() -> Patch {
    Patch::parse(PATCH_NAME, PATCH.as_bytes(), "ovn_bgp_agent").unwrap()
}

impl TestImage {
    /// Adds the files that `build/apply-patches` writes.
    pub fn patched(&mut self) {
        let (file, source) = ("ovn_bgp_agent/hello.py", "# hello\nprint('hello')\n");
        self.file(&format!("{SITE}/{file}"), 0o644, source);
        let patch = patch();
        let record = json!({
            "files": { file: hex::encode(Sha256::digest(source)) },
            "patches": [{ "files": patch.files, "name": patch.name, "sha256": patch.sha256 }],
        });
        self.file(&format!("{AGENT}/PATCHES"), 0o644, &format!("{record:#}\n"));
        self.file(&format!("{AGENT}/patches/{PATCH_NAME}.patch"), 0o644, PATCH);
        let label = label_of(&[patch]).unwrap();
        self.config["config"]["Labels"][LABEL] = json!(label);
    }

    /// Changes the JSON record of the patches.
    pub fn patch_record(&mut self, change: impl FnOnce(&mut Value)) {
        self.edit(&format!("{AGENT}/PATCHES"), |text| {
            let mut record = serde_json::from_str(text).unwrap();
            change(&mut record);
            format!("{record:#}\n")
        });
    }
}
