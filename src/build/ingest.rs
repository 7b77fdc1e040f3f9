//! An image from its builder -> the layout: out of the engine that has it, or as a buildkitd sends it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use oci_spec::image::Digest;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::Run;
use super::target::Job;
use crate::base::resolve::BaseImage;
use crate::buildkit::{self, Receive, SolveError, Solved};
use crate::engine::storage::{Archive, ReadFrom};
use crate::engine::{Engine, EngineImage};
use crate::image::Image;
use crate::image::state::{Remembered, State};
use crate::layout::{self, Compression, IngestError, IngestOptions, Ingested, Layout, StoreError, Wait};
use crate::oci::Platform;
use crate::plan::{ImagePlan, output};
use crate::progress::SharedProgress;
use crate::util::bridge;
use crate::util::cancel::unless_cancelled;
use crate::util::hash;
use crate::verify;

/// Images that are read from their builders at a time. One keeps all cores busy for the last part only and waits for its
/// engine before; of memory each takes some 50 MiB.
const INGESTS: usize = 2;

/// The layout of a run, and what is remembered of the images in it.
pub struct Store {
    run: Arc<Run>,
    pub(super) layout: Arc<Layout>,
    pub(super) compression: Compression,
    pub(super) state: State,
    ingests: Semaphore,
}

impl Store {
    /// Opens the layout below the output directory, or creates it.
    pub fn open(run: &Arc<Run>, output: &Path, compression: Compression, wait: &Wait<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            run: Arc::clone(run),
            layout: Arc::new(Layout::open_or_create_with(output::layout(output), wait)?),
            compression,
            state: State::new(output),
            ingests: Semaphore::new(INGESTS),
        })
    }
}

/// The image of one target, and every input of its bytes except the stream.
pub(super) struct Incoming {
    store: Arc<Store>,
    image: Arc<ImagePlan>,
    platform: Platform,
    base_diff_ids: Vec<Digest>,
    progress: SharedProgress,
    /// When its build began, in seconds since 1970.
    started: i64,
}

/// An image in the layout.
pub(super) struct Arrived {
    pub remembered: Remembered,
    pub image: Image,
    /// The layout had it already.
    pub unchanged: bool,
    /// Set if an engine's image was read.
    pub read_from: Option<ReadFrom>,
}

/// Reads an archive into the layout, on a thread that may block.
type Ingest<'a> = dyn FnMut(Archive) -> Result<Ingested, IngestError> + 'a;

impl Incoming {
    pub fn new(store: &Arc<Store>, job: Job<'_>, base: &BaseImage) -> anyhow::Result<Self> {
        let base_diff_ids = base.diff_ids.iter().map(|d| d.parse());
        Ok(Self {
            store: Arc::clone(store),
            image: Arc::clone(job.image),
            platform: job.target.platform,
            base_diff_ids: base_diff_ids.collect::<Result<_, _>>()?,
            progress: Arc::clone(job.progress),
            started: Timestamp::now().as_second(),
        })
    }

    /// Out of the engine that has it.
    pub async fn export(&self, engine: &Engine, image: &EngineImage) -> anyhow::Result<Arrived> {
        let (engine, image) = (engine.clone(), image.clone());
        let (id, size) = (image.id.clone(), image.size);
        let storage = self.store.run.settings.file.engine.read_storage;
        self.take(&id, Some(size), move |ingest| {
            let (ingested, from) = engine.read_image(&image, storage, ingest)?;
            Ok((ingested, Some(from)))
        })
        .await
    }

    /// As it was in the layout, or read in one pass. `id` is the image's with its builder; `read` has the archive.
    async fn take<R>(&self, id: &str, size: Option<u64>, read: R) -> anyhow::Result<Arrived>
    where
        R: FnOnce(&mut Ingest<'_>) -> Result<(Ingested, Option<ReadFrom>), IngestError> + Send + 'static,
    {
        let store = Arc::clone(&self.store);
        let name = format!("{}-{}", self.image.tag, self.platform.slug());
        let diff_ids: Vec<&str> = self.base_diff_ids.iter().map(AsRef::as_ref).collect();
        let key = hash::key(&[
            id,
            &*self.image.source_date_epoch.to_string(),
            &*diff_ids.join(" "),
            &*format!("{:?}", store.compression),
        ]);
        if let Some(remembered) = store.state.recall(&name, &key)
            && store.layout.holds(&remembered.manifest)
        {
            let blobs = Arc::clone(&store.layout);
            let manifest = remembered.manifest.clone();
            return Ok(Arrived {
                image: Image::of_blobs(self.platform, blobs, manifest, verify::read_options(false)),
                remembered,
                unchanged: true,
                read_from: None,
            });
        }
        let _permit = self.store.ingests.acquire().await?;
        self.progress.step("exporting into the layout");
        let (platform, epoch, started) = (self.platform, self.image.source_date_epoch, self.started);
        let (base_diff_ids, progress) = (self.base_diff_ids.clone(), Arc::clone(&self.progress));
        let task = spawn_blocking(move || {
            let options = IngestOptions {
                platform,
                base_diff_ids,
                source_date_epoch: epoch,
                compression: store.compression,
                labels: BTreeMap::new(),
                expected_size: size,
                read: verify::read_options(false),
            };
            let (ingested, read_from) =
                read(&mut |archive| layout::ingest(&store.layout, archive, &options, progress.as_ref()))?;
            let remembered = Remembered {
                manifest: ingested.manifest.clone(),
                uncompressed_bytes: ingested.layers.iter().map(|l| l.uncompressed_size).sum(),
                built: (started, Timestamp::now().as_second()),
                files: ingested.tree.len(),
            };
            // A cache that cannot be written costs the next run an export, not this one its image.
            if let Err(error) = store.state.remember(&name, key, &remembered, &ingested.tree) {
                tracing::warn!(%error, "cannot remember what was built");
            }
            Ok::<_, IngestError>(Arrived {
                remembered,
                image: Image::ingested(platform, ingested),
                unchanged: false,
                read_from,
            })
        });
        let arrived = unless_cancelled(&self.store.run.cancel, task)
            .await??
            .context("reading the image from its builder")?;
        Ok(arrived)
    }
}

/// Takes the image that a buildkitd sends while its solve ends.
pub(super) struct Receiver {
    incoming: Incoming,
    /// What came of the latest that was sent.
    arrived: Mutex<Option<anyhow::Result<Arrived>>>,
}

impl Receiver {
    pub fn new(incoming: Incoming) -> Self {
        Self {
            incoming,
            arrived: Mutex::default(),
        }
    }

    /// What came, once the solve is over. Where the image could not be read, that is why the solve failed, unless the
    /// connection broke under both.
    pub fn outcome(&self, solved: Result<Solved, SolveError>) -> anyhow::Result<(Solved, Arrived)> {
        let arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (solved, arrived) {
            (Ok(solved), Some(Ok(arrived))) => Ok((solved, arrived)),
            (Ok(_) | Err(SolveError::Failed(_)), Some(Err(error))) => Err(error),
            (Err(error), _) => Err(error.into()),
            (Ok(_), None) => Err(anyhow!("the buildkitd reported success but sent no image; build again")),
        }
    }
}

#[tonic::async_trait]
impl Receive for Receiver {
    async fn receive(&self, image: &str, archive: buildkit::Archive) -> Result<bool, String> {
        let read = |ingest: &mut Ingest<'_>| {
            let ingested = ingest(Box::new(bridge::reader(&Handle::current(), archive)))?;
            Ok((ingested, None))
        };
        let arrived = self.incoming.take(image, None, read).await;
        let answer = match &arrived {
            Ok(arrived) => Ok(!arrived.unchanged),
            Err(error) => Err(format!("{error:#}")),
        };
        *self.arrived.lock().unwrap_or_else(PoisonError::into_inner) = Some(arrived);
        answer
    }
}
