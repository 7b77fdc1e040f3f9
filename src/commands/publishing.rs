//! What `build --push`, `push`, `sign` and `attest` share: the key, what is signed with it, and what Zuul is told.

use std::sync::Arc;

use oci_spec::image::{Descriptor, ImageIndex};
use serde_json::json;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::cli::PublishArgs;
use crate::layout::{self, Layout};
use crate::publish::Published;
use crate::sign::{Key, KeyError, KeySource, Password};

/// A key that is being read: an encrypted one takes a moment, and its password 64 MiB; a token may wait for its PIN.
pub struct PendingKey(Option<JoinHandle<Result<Key, KeyError>>>);

impl PendingKey {
    /// Begins at once, so that it is ready when something is to be signed.
    pub fn load(source: Option<&KeySource>) -> Self {
        PendingKey(
            source
                .cloned()
                .map(|source| spawn_blocking(move || Key::load(&source, Password::from_env().as_ref()))),
        )
    }

    pub async fn ready(self) -> anyhow::Result<Option<Arc<Key>>> {
        match self.0 {
            Some(task) => Ok(Some(Arc::new(task.await??))),
            None => Ok(None),
        }
    }
}

/// An index of a layout and the manifests that it names.
pub fn subjects(layout: &Layout, root: &Descriptor) -> anyhow::Result<Vec<Descriptor>> {
    let mut subjects = vec![root.clone()];
    if layout::is_index(root.media_type()) {
        let index: ImageIndex = layout.read_json(root)?;
        subjects.extend(index.manifests().iter().cloned());
    }
    Ok(subjects)
}

/// The list that a Zuul job returns as `zuul.artifacts`, one entry for each tag. Nothing is written if nobody asked.
pub fn tell_zuul(args: &PublishArgs, published: &[Published]) -> anyhow::Result<()> {
    let Some(path) = &args.zuul_artifacts else {
        return Ok(());
    };
    let entries: Vec<_> = published
        .iter()
        .flat_map(|image| image.destinations.iter().map(move |d| (&image.digest, &d.reference)))
        .map(|(digest, reference)| {
            let (repository, tag) = reference.rsplit_once(':').unwrap_or((reference, ""));
            json!({
                "name": reference,
                "url": format!("docker://{reference}"),
                "metadata": {
                    "type": "container_image",
                    "repository": repository,
                    "tag": tag,
                    "digest": digest,
                },
            })
        })
        .collect();
    super::write_file(path, (serde_json::to_string_pretty(&entries)? + "\n").as_bytes())
}
