//! One file per subcommand: each reads its arguments, calls the stages in order and prints the result. Here: the start of the
//! program, its signals, and the one place where an error becomes text and an exit code.

use std::ffi::OsString;
use std::process::ExitCode;

use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::cli::{self, Cli, Command, LogFormat};

mod attest;
mod bootstrap;
mod build;
mod completions;
mod context;
mod diff;
mod dockerfile;
mod doctor;
mod failure;
mod ingest;
mod inspect;
mod lock;
mod plan;
mod print;
mod promote;
mod prune;
mod push;
mod sbom;
mod sign;
mod signals;
mod verify;

pub use context::Context;
pub use failure::Failure;

/// Runs the program. `arguments` begin with its name.
pub fn main(arguments: &[OsString]) -> ExitCode {
    match Cli::read(arguments) {
        Ok(cli) => run(cli),
        Err(error) => failure::refuse(&error, cli::wants_json(arguments)),
    }
}

fn run(cli: Cli) -> ExitCode {
    init_logs(cli.global.log_format);
    // Every TLS connection of this program is made by the same library; an error means that it is chosen already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("error: cannot start the runtime: {e}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run_until_signal(cli));
    // Blocking threads that still read from an engine must not hold up the exit.
    runtime.shutdown_background();
    ExitCode::from(code)
}

async fn run_until_signal(cli: Cli) -> u8 {
    let context = Context::new(cli.global, CancellationToken::new());
    let command = cli.command.unwrap_or(Command::Build(Box::new(cli.build)));
    let signal = signals::watch(context.cancel.clone(), context.terminal.clone());
    let result = dispatch(command, &context).await;
    let signal = match context.cancel.is_cancelled() {
        true => Some(signal.await.unwrap_or(signals::EXIT_SIGINT)),
        false => None,
    };
    match result {
        Ok(()) => 0,
        Err(failure) => failure.report(&context, signal),
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
        Command::Completions(args) => completions::run(&args),
    }
}

fn init_logs(format: LogFormat) {
    let levels = std::env::var("RUST_LOG").ok().filter(|levels| !levels.is_empty());
    let filter = EnvFilter::try_new(levels.as_deref().unwrap_or("off")).unwrap_or_else(|error| {
        eprintln!("warning: RUST_LOG is ignored: {error}");
        EnvFilter::new("off")
    });
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
}
