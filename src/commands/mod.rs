//! One file per subcommand: each orchestrates stages and owns no logic. Here: what they share, and the one
//! place where an error becomes words and an exit code.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::CommandFactory;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command, GlobalArgs, LogFormat};
use crate::config::file::{BuildFile, ConfigError};
use crate::oci::ReferenceError;
use crate::plan::settings;
use crate::progress::Progress;
use crate::publish::PublishError;
use crate::registry::{Overrides, Registries};
use crate::report::terminal::Terminal;
use crate::util::cancel::{Interrupted, unless_cancelled};
use crate::util::errors::render;
use crate::util::files::write_atomically;

mod attest;
mod bootstrap;
mod build;
mod diff;
mod dockerfile;
mod doctor;
mod image;
mod ingest;
mod inspect;
mod lock;
mod plan;
mod promote;
mod prune;
mod publishing;
mod push;
mod sbom;
mod sign;
mod signing;
mod verify;

/// What every command is given. Clones share the terminal and the cancellation.
#[derive(Clone)]
pub struct Context {
    pub global: GlobalArgs,
    pub terminal: Terminal,
    /// Cancelled by Ctrl-C and SIGTERM: stages stop at the next safe point and clean up.
    pub cancel: CancellationToken,
}

impl Context {
    pub fn build_file(&self) -> Result<BuildFile, ConfigError> {
        settings::load(self.global.config.as_deref())
    }

    /// The registries as build.toml and the flags have them.
    pub fn registries(&self, file: &BuildFile) -> Registries {
        let overrides = Overrides {
            plain_http: self.global.registries.plain_http,
            // Relative to where the person is, not to build.toml.
            ca: self
                .global
                .registries
                .registry_ca
                .as_ref()
                .map(|p| std::path::absolute(p).unwrap_or_else(|_| p.clone())),
        };
        Registries::new(
            &file.registries,
            &file.root,
            overrides,
            Arc::new(Notes(self.terminal.clone())),
        )
    }

    /// Waits for `work` unless the person stops the run first.
    pub async fn unless_cancelled<F: Future>(&self, work: F) -> Result<F::Output, Interrupted> {
        unless_cancelled(&self.cancel, work).await
    }

    /// The result: JSON where a script asked for it, else the text.
    pub fn print<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        let written = if self.global.json {
            serde_json::to_writer_pretty(&mut out, value)
                .map_err(std::io::Error::from)
                .and_then(|()| writeln!(out))
        } else {
            out.write_all(text().as_bytes())
        };
        match written.and_then(|()| out.flush()) {
            // Whoever reads has seen enough (`obgp-build plan | head`).
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(|e| Failure::Failed(anyhow::Error::new(e).context("cannot write to stdout"))),
        }
    }
}

/// Passes on what must reach the person, and has no line of its own.
struct Notes(Terminal);

impl Progress for Notes {
    fn step(&self, _: &str) {}
    fn bytes(&self, _: u64, _: Option<u64>) {}
    fn log(&self, _: &str) {}
    fn note(&self, text: &str) {
        self.0.say(text);
    }
}

/// Why a command did not end well; each has its exit code.
#[derive(Debug)]
pub enum Failure {
    /// 1: something could not be done.
    Failed(anyhow::Error),
    /// 2: it was asked for wrongly.
    Usage(anyhow::Error),
    /// 3: the image breaks its contract. The report has been printed.
    Contract,
    /// 130 or 143: the person, or the service manager, stopped it.
    Interrupted,
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        if error.chain().any(|cause| cause.is::<Interrupted>()) {
            Failure::Interrupted
        } else if error.chain().any(is_usage) {
            Failure::Usage(error)
        } else {
            Failure::Failed(error)
        }
    }
}

/// Whether it was asked for wrongly: an unknown distro, a name that cannot be one.
fn is_usage(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.is::<ConfigError>()
        || cause.is::<ReferenceError>()
        || matches!(cause.downcast_ref(), Some(PublishError::Destination { .. }))
}

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;
const EXIT_CONTRACT: u8 = 3;
const EXIT_SIGINT: u8 = 128 + 2;
const EXIT_SIGTERM: u8 = 128 + 15;

pub fn run(cli: Cli) -> ExitCode {
    init_logs(cli.global.log_format);
    // Every TLS connection of this program is made by the same library; an error means that it is chosen already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("error: cannot start the runtime: {e}");
            return ExitCode::from(EXIT_FAILED);
        }
    };
    let code = runtime.block_on(run_until_signal(cli));
    // Blocking threads that still read from an engine must not hold up the exit.
    runtime.shutdown_background();
    ExitCode::from(code)
}

async fn run_until_signal(cli: Cli) -> u8 {
    let context = Context {
        terminal: Terminal::new(cli.global.progress),
        cancel: CancellationToken::new(),
        global: cli.global,
    };
    let command = cli.command.unwrap_or(Command::Build(Box::new(cli.build)));
    let signal = watch_signals(context.cancel.clone());
    let result = dispatch(command, &context).await;
    let caught = context.cancel.is_cancelled();
    let signal_code = if caught {
        signal.await.unwrap_or(EXIT_SIGINT)
    } else {
        EXIT_SIGINT
    };
    match result {
        Ok(()) => 0,
        Err(Failure::Contract) => EXIT_CONTRACT,
        Err(Failure::Interrupted) => {
            context.terminal.say("interrupted: stopped and cleaned up");
            signal_code
        }
        Err(_) if caught => {
            context.terminal.say("interrupted: stopped and cleaned up");
            signal_code
        }
        Err(Failure::Failed(error)) => {
            context.terminal.say(&render(&error));
            EXIT_FAILED
        }
        Err(Failure::Usage(error)) => {
            context.terminal.say(&render(&error));
            EXIT_USAGE
        }
    }
}

async fn dispatch(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Build(args) => build::run(context, &args).await,
        Command::Plan(args) => plan::run(context, &args).await,
        Command::Verify(args) => verify::run(context, &args).await,
        Command::Push(args) => push::run(context, &args).await,
        Command::Sign(args) => sign::run(context, &args).await,
        Command::Attest(args) => attest::run(context, &args).await,
        Command::Promote(args) => promote::run(context, &args).await,
        Command::Inspect(args) => inspect::run(context, &args).await,
        Command::Prune(args) => prune::run(context, &args).await,
        Command::Diff(args) => diff::run(context, &args).await,
        Command::Sbom(args) => sbom::run(context, &args).await,
        Command::Ingest(args) => ingest::run(context, &args).await,
        Command::Dockerfile(args) => dockerfile::run(context, &args),
        Command::Bootstrap(args) => bootstrap::run(context, &args).await,
        Command::Lock(args) => lock::run(context, &args).await,
        Command::Doctor(args) => doctor::run(context, &args).await,
        Command::Completions(args) => {
            clap_complete::generate(args.shell, &mut Cli::command(), "obgp-build", &mut std::io::stdout());
            Ok(())
        }
    }
}

/// A result in a file, with mode 0644, whole or not at all.
fn write_file(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    write_atomically(path, content).with_context(|| format!("writing {}", path.display()))
}

/// Cancels on the first signal; ends the process on the second, for whoever cannot wait.
fn watch_signals(cancel: CancellationToken) -> tokio::task::JoinHandle<u8> {
    use tokio::signal::unix::{SignalKind, signal};
    tokio::spawn(async move {
        let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
            return EXIT_SIGINT;
        };
        let code = tokio::select! { _ = int.recv() => EXIT_SIGINT, _ = term.recv() => EXIT_SIGTERM };
        cancel.cancel();
        tokio::spawn(async move {
            tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
            std::process::exit(code.into());
        });
        code
    })
}

fn init_logs(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
}
