//! `starling-node`: one node of a Starling cluster.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Arg, ArgMatches, Command};
use starling_node::config::{Config, KEYS, Settings};
use starling_node::lifecycle::Ended;
use starling_node::{logging, run};
use starling_proto::BUILD;

/// Threads for blocking reads; each is started when first needed and ends when idle.
const MAX_BLOCKING_THREADS: usize = 40;

/// Blocking work has so long to end before this process goes on as another.
const LAST_WORK: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let matches = command().get_matches();
    let outcome = match matches.subcommand() {
        Some(("config", of_config)) => print_config(of_config),
        _ => serve(&matches),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("starling-node: {error:#}");
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}

/// The configuration is at fault.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

fn command() -> Command {
    let config = Command::new("config")
        .about("Print the effective settings, and where each comes from")
        .after_help("Example:\n  starling-node config --name n1 --listen 127.0.0.1:7402");
    with_settings(Command::new("starling-node"))
        .version(BUILD)
        .about("One node of a Starling cluster")
        .after_help(
            "Settings come from the TOML file given by --config, environment variables (STARLING_NAME, …) and flags; \
             flags win.\n\nExamples:\n  starling-node --name n1 --seeds 127.0.0.1:7402\n  \
             starling-node --config /etc/starling/node.toml\n  starling-node config --name n1",
        )
        .subcommand(config)
}

fn with_settings(command: Command) -> Command {
    let file =
        Arg::new("config").long("config").env("STARLING_CONFIG").value_name("FILE").help("A TOML file of settings");
    KEYS.iter().fold(command.arg(file.global(true)), |command, key| {
        let default = key.default.filter(|default| !default.is_empty());
        let help = default.map_or_else(|| key.help.to_owned(), |default| format!("{} [default: {default}]", key.help));
        command.arg(Arg::new(key.name).long(key.flag()).value_name("VALUE").help(help).global(true))
    })
}

fn settings(matches: &ArgMatches) -> anyhow::Result<Settings> {
    let path: Option<PathBuf> = matches.get_one::<String>("config").map(PathBuf::from);
    let read = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    let text = path.as_deref().map(read).transpose()?;
    let file = path.as_deref().zip(text.as_deref());
    let given = |key: &&str| matches.get_one::<String>(key).cloned();
    let flags = KEYS.iter().filter_map(|key| Some((key.name.to_owned(), given(&key.name)?)));
    // A variable that is not text is none of ours, or its value will be found wrong.
    let text =
        |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned()));
    Ok(Settings::collect(file, std::env::vars_os().filter_map(text), flags))
}

fn config(settings: &Settings) -> anyhow::Result<Config> {
    Config::from_settings(settings).map_err(|mistakes| Usage(mistakes.to_string()).into())
}

fn print_config(matches: &ArgMatches) -> anyhow::Result<()> {
    let settings = settings(matches)?;
    for key in KEYS {
        match settings.get(key.name) {
            Some((value, source)) => println!("{:<20} = {value:<24} # {source}", key.name),
            None => println!("{:<20}   {:<24} # not set", key.name, ""),
        }
    }
    config(&settings).map(drop)
}

fn serve(matches: &ArgMatches) -> anyhow::Result<()> {
    let config = config(&settings(matches)?)?;
    logging::install(&config.log).map_err(|error| Usage(format!("log: {error}")))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .build()
        .context("cannot start the runtime")?;
    let ended = runtime.block_on(run(config))?;
    // Whatever still runs has nothing to do any more, and a disk that hangs is not waited for.
    runtime.shutdown_timeout(LAST_WORK);
    match ended {
        Ended::Stopped => Ok(()),
        Ended::Superseded(_) => start_anew(),
    }
}

/// Becomes a new process of the same id: nothing of what this one has open is left, and nobody has to start it.
fn start_anew() -> anyhow::Result<()> {
    tracing::info!("starting anew");
    let program = std::env::current_exe().context("cannot find this program, to start it anew")?;
    let error = std::process::Command::new(program).args(std::env::args_os().skip(1)).exec();
    Err(error).context("cannot start this program anew")
}
