//! Records when a temporary tag was set. Registries do not report this time, and an image's dates are those of its
//! sources. The record is a referrer with annotations only, which `prune` reads.

use jiff::Timestamp;
use oci_spec::image::{Descriptor, MediaType};
use serde_json::json;

use super::{Publication, Site};
use crate::oci::{Artifact, Content, Place};
use crate::registry::Registries;
use crate::registry::prune::CREATED;

pub const RECORD_TYPE: &str = "application/vnd.obgp-build.push.v1";
const TAG: &str = "dev.obgp-build.push.tag";

/// The record for a site with changed temporary tags.
pub(super) fn of(
    site: &Site,
    publication: &Publication,
    before: &[Vec<Option<String>>],
    registries: &Registries,
) -> Option<Artifact> {
    let digest = publication.root.descriptor.digest().to_string();
    let tag = site.tags.iter().find(|tag| registries.is_temporary(&site.name, tag))?;
    let unchanged = before.iter().flatten().all(|has| has.as_deref() == Some(&digest));
    (!unchanged).then(|| artifact(&publication.root.descriptor, tag, Timestamp::now()))
}

fn artifact(subject: &Descriptor, tag: &str, now: Timestamp) -> Artifact {
    let empty = Content::new(MediaType::EmptyJSON, &b"{}"[..]);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageManifest.to_string(),
        "artifactType": RECORD_TYPE,
        "config": empty.descriptor,
        "layers": [empty.descriptor],
        "subject": {
            "mediaType": subject.media_type(),
            "digest": subject.digest(),
            "size": subject.size(),
        },
        "annotations": { TAG: tag, CREATED: now.to_string() },
    });
    Artifact {
        manifest: Content::new(MediaType::ImageManifest, manifest.to_string()),
        blobs: vec![empty],
        place: Place::Referrer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::prune::pushed_at;

    #[test]
    fn the_latest_record_counts() {
        let digest = crate::oci::sha256_digest(&[7; 32]);
        let subject = Descriptor::new(MediaType::ImageIndex, 9, digest);
        let referrer = |second| {
            let made = artifact(&subject, "change_1_x", Timestamp::from_second(second).unwrap());
            let manifest: serde_json::Value = serde_json::from_slice(&made.manifest.bytes).unwrap();
            let mut descriptor = made.manifest.descriptor;
            descriptor.set_annotations(serde_json::from_value(manifest["annotations"].clone()).unwrap());
            descriptor
        };
        let all = [referrer(5), referrer(9), subject.clone(), referrer(7)];
        assert_eq!(pushed_at(&all), Some(Timestamp::from_second(9).unwrap()));
        assert_eq!(pushed_at(&[subject]), None);
    }
}
