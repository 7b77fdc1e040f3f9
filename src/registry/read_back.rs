//! Reads a tag after it was set.

use super::error::RegistryError;
use super::repository::Repository;

impl Repository {
    /// The digest of a tag that was set to `digest`. If it is another one, reads it again with the client's patience: some
    /// registries show a new tag seconds later.
    pub async fn read_back(&self, tag: &str, digest: &str) -> Result<Option<String>, RegistryError> {
        let mut waits = self.client.patience.waits();
        loop {
            let content = self.find_manifest(tag).await?;
            let found = content.map(|content| content.descriptor.digest().to_string());
            if found.as_deref() == Some(digest) {
                return Ok(found);
            }
            let Some(wait) = waits.next() else { return Ok(found) };
            let shows = found.as_deref().unwrap_or("no such tag");
            self.client.note(&format!(
                "registry {}, reading back the tag {tag} of {}: found {shows}, not {digest}; reading it again in {:.1} s",
                self.host(),
                self.path(),
                wait.as_secs_f32()
            ));
            tokio::time::sleep(wait).await;
        }
    }
}
