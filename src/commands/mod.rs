//! One file per subcommand: each reads its arguments, calls the stages in order and prints the result. Here: the start of the
//! program, its signals, and the one place where an error becomes text and an exit code.

use std::process::ExitCode;

use clap::CommandFactory;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command, LogFormat};
use crate::report::terminal::Terminal;
use crate::util::errors::render;

mod attest;
mod bootstrap;
mod build;
mod context;
mod diff;
mod dockerfile;
mod doctor;
mod failure;
mod ingest;
mod inspect;
mod lock;
mod plan;
mod promote;
mod prune;
mod push;
mod sbom;
mod sign;
mod verify;

pub use context::Context;
pub use failure::Failure;

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

/// Cancels on the first signal; ends the process on the second.
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
