//! The command line: what a person types and what the exit code says.
//!
//! 0: done. 1: failed, or not all as it should be. 2: wrong use, which a wrong configuration is, too.

use std::{
    io::{self, IsTerminal as _, Write as _},
    os::{fd::AsFd as _, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::{
    EnvFilter,
    filter::{Directive, LevelFilter},
};

use crate::{
    attach::{self, Trial},
    baseline, build, compare,
    config::{Config, ConfigError, DEFAULT_BTF, HookChoice},
    demo, hold, lint, preflight, replay, run, symbols,
};

/// From request to exposure to click, seen from the kernel: which tracking links of a
/// recommendation service are broken, and in which release.
#[derive(Debug, Parser)]
#[command(name = "linktracer", version = build::VERSION, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// What to log, to standard error: error, warn, info, debug, trace, or a filter by module.
    #[arg(long, global = true, env = "LINKTRACER_LOG", default_value = "info", value_name = "LEVEL")]
    log: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Trace, join and serve metrics until SIGTERM or SIGINT.
    Run(RunArgs),
    /// End what a daemon with a `state_dir` left at work in the kernel; what it counted is kept.
    Detach(ConfigArgs),
    /// Say whether tracing can work here, line by line, and what to do where it cannot.
    Check(ConfigArgs),
    /// Write every event to a file, for `replay`.
    Record(RecordArgs),
    /// Join recorded events and print what became of them.
    Replay(replay::ReplayArgs),
    /// Compare two releases: did users click less, or did links break?
    Compare(compare::CompareArgs),
    /// Say what CTR is usual at this hour, from the past week.
    Baseline(baseline::BaselineArgs),
    /// Say what is wrong with AnalysisTemplates of Argo Rollouts, and why.
    Lint(lint::LintArgs),
    /// Show which functions of a program could be probed, at which place, and why there.
    Symbols(SymbolsArgs),
    /// Have this kernel verify every program of the kernel side, and print what there was to verify.
    Programs,
    /// Trace a small service with faults of known number, and show the truth beside what was measured.
    Demo(demo::DemoArgs),
    /// The process that holds programs for a daemon, which starts it with a socket as standard input.
    #[command(hide = true)]
    ExecGate,
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// The configuration file; every key is explained in deploy/linktracer.yaml.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Which kind of kernel hook to use, whatever the configuration says.
    #[arg(long, value_enum)]
    hooks: Option<HookChoice>,
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Also write every event to this file; it must not exist yet. A name in `.zst` packs it.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Let the kernel side log what it loses (it costs something on each loss).
    #[arg(long)]
    kernel_log: bool,
}

#[derive(Debug, Args)]
struct RecordArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where to; must not exist yet. A name in `.zst` packs it. `-` is standard output.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// End after this long, such as `60s`; without it at SIGTERM or SIGINT.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
}

#[derive(Debug, Args)]
struct SymbolsArgs {
    /// An executable or a shared library.
    #[arg(value_name = "BINARY")]
    binary: PathBuf,
    /// A function's name, exact or with `*`; without it the exported ones are listed.
    #[arg(value_name = "PATTERN")]
    pattern: Option<String>,
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let kernel_log = matches!(&cli.command, Command::Run(RunArgs { kernel_log: true, .. }));
    if let Err(error) = start_log(&cli.log, kernel_log) {
        return wrong_use(&error);
    }
    let result = match &cli.command {
        Command::Run(args) => configured(&args.config).and_then(|config| {
            let options = run::Options {
                record: args.record.clone(),
                serve: true,
                duration: None,
                kernel_log: args.kernel_log,
                durable: true,
            };
            Ok(run::run(&config, &args.config.file(), &options).map(|()| true)?)
        }),
        Command::Record(args) => configured(&args.config).and_then(|config| {
            let options = run::Options {
                record: Some(args.output.clone()),
                duration: args.duration,
                ..run::Options::default()
            };
            Ok(run::run(&config, &args.config.file(), &options).map(|()| true)?)
        }),
        Command::Detach(args) => configured(args).and_then(|config| Ok(detach(&config)?)),
        Command::Check(args) => configured(args).and_then(|config| Ok(check(&config)?)),
        Command::Replay(args) => replay_command(args).map_err(Failure::Failed),
        Command::Compare(args) => {
            let compared = compare::run(args, &mut io::stdout().lock(), &mut io::stderr().lock());
            compared.map(|()| true).map_err(Failure::Failed)
        }
        Command::Baseline(args) => {
            baseline::run(args, &mut io::stdout()).map(|()| true).map_err(Failure::Failed)
        }
        Command::Lint(args) => lint::run(args, &mut io::stdout().lock()).map_err(Failure::Failed),
        Command::Symbols(args) => {
            let described =
                symbols::describe(&args.binary, args.pattern.as_deref(), &mut io::stdout().lock());
            described.map(|()| true).map_err(|error| Failure::Failed(error.into()))
        }
        Command::Programs => programs().map_err(Failure::Failed),
        Command::ExecGate => exec_gate().map(|()| true).map_err(Failure::Failed),
        Command::Demo(args) => {
            let mut out = io::stdout();
            demo::run(args, tracer_common::limits::MAX_ID_LEN, &mut out).map_err(Failure::Failed)
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Failure::Config(error)) => wrong_use(&error.to_string()),
        Err(Failure::Failed(error)) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Why a command ended without its result.
enum Failure {
    Config(ConfigError),
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl ConfigArgs {
    fn file(&self) -> run::ConfigFile {
        run::ConfigFile { path: self.config.clone(), hooks: self.hooks }
    }
}

fn configured(args: &ConfigArgs) -> Result<Config, Failure> {
    args.file().load().map_err(Failure::Config)
}

/// Prints the report; true when nothing failed.
fn check(config: &Config) -> anyhow::Result<bool> {
    let checks = preflight::run(config);
    let failed = preflight::failures(&checks).count();
    let mut out = io::stdout().lock();
    for check in &checks {
        writeln!(out, "{check}")?;
    }
    match failed {
        0 => writeln!(out, "tracing can work here")?,
        count => writeln!(out, "{count} of {} checks failed: tracing cannot work here yet", checks.len())?,
    }
    Ok(failed == 0)
}

/// Takes away what is pinned.
fn detach(config: &Config) -> anyhow::Result<bool> {
    let removed = run::detach(config)?;
    let place = config.pin_dir.display();
    let mut out = io::stdout().lock();
    match removed {
        0 => writeln!(out, "nothing is pinned in {place}")?,
        _ => writeln!(out, "detached, and removed from {place}")?,
    }
    if let Some(state_dir) = &config.state_dir {
        writeln!(out, "what was counted is still in {}", state_dir.display())?;
    }
    Ok(true)
}

/// Prints one line for each program: its name and the number of instructions that the verifier went through,
/// `?` where the kernel does not tell, or its refusal. A refusal is no failure: there are programs that only
/// newer kernels take, with others to stand in for them.
fn programs() -> anyhow::Result<bool> {
    let offsets = preflight::layout::read(Path::new(DEFAULT_BTF))?;
    let mut out = io::stdout().lock();
    for Trial { program, verified } in attach::try_each(offsets)? {
        match verified {
            Ok(Some(count)) => writeln!(out, "{program} {count}")?,
            Ok(None) => writeln!(out, "{program} ?")?,
            Err(error) => {
                let text = error.to_string();
                writeln!(out, "{program} refused: {}", text.lines().next().unwrap_or_default())?;
            }
        }
    }
    Ok(true)
}

fn exec_gate() -> anyhow::Result<()> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    hold::serve(UnixStream::from(socket))
}

fn replay_command(args: &replay::ReplayArgs) -> anyhow::Result<bool> {
    let progress = replay::ProgressDrawTarget::stderr();
    replay::run(args, io::stdin(), io::stdout(), io::stderr(), progress)?;
    Ok(true)
}

/// Logs by `filter`, and what the kernel side says where that was asked for.
fn start_log(filter: &str, kernel_log: bool) -> Result<(), String> {
    let wrong =
        |reason: &str| format!("--log {filter}: {reason}\n  remedy: one of error, warn, info, debug, trace");
    // On its own, a word that is no level would be taken for the name of a module.
    if !filter.contains(['=', ',']) && filter.parse::<LevelFilter>().is_err() {
        return Err(wrong("not a level"));
    }
    let filter = EnvFilter::try_new(filter).map_err(|error| wrong(&error.to_string()))?;
    let filter = filter.add_directive(kubernetes_client_directive());
    let filter = if kernel_log { filter.add_directive(kernel_side_directive()) } else { filter };
    let color = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(color).init();
    Ok(())
}

/// The kernel side logs under the name of its object, `linktracer`.
fn kernel_side_directive() -> Directive {
    const KERNEL_SIDE: &str = "linktracer=debug";
    KERNEL_SIDE.parse().unwrap_or_else(|_| LevelFilter::DEBUG.into())
}

/// What the client says of a failure, the daemon says itself, once.
fn kubernetes_client_directive() -> Directive {
    const CLIENT: &str = "kube_client=off";
    CLIENT.parse().unwrap_or_else(|_| LevelFilter::INFO.into())
}

fn wrong_use(message: &str) -> ExitCode {
    complain(message);
    ExitCode::from(2)
}

fn complain(message: &str) {
    // Where standard error is gone there is nobody left to tell.
    let _ = writeln!(io::stderr(), "error: {message}");
}
