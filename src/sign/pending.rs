//! A key's source -> the key, read while other stages run.

use std::sync::Arc;

use tokio::task::{JoinHandle, spawn_blocking};

use super::{Key, KeyError, KeySource, Password};

/// A key that is being read. An encrypted key takes a moment, and its password 64 MiB; a token may wait for its PIN.
pub struct PendingKey(Option<JoinHandle<Result<Key, KeyError>>>);

impl PendingKey {
    /// Starts reading at once; a source that does not exist is an error at once. Without a source, [`PendingKey::ready`]
    /// returns `None`.
    pub fn load(source: Option<&KeySource>) -> Result<Self, KeyError> {
        let Some(source) = source.cloned() else {
            return Ok(PendingKey(None));
        };
        source.check().map_err(|problem| KeyError {
            from: source.to_string(),
            problem,
        })?;
        let load = move || Key::load(&source, Password::from_env().as_ref());
        Ok(PendingKey(Some(spawn_blocking(load))))
    }

    pub async fn ready(self) -> anyhow::Result<Option<Arc<Key>>> {
        match self.0 {
            Some(task) => Ok(Some(Arc::new(task.await??))),
            None => Ok(None),
        }
    }
}
