//! `starling`, the command line.
//!
//! What was typed becomes arguments (`args.rs`, and the `…Args` of each command), a command does its work and returns a
//! report, and the report is printed in the form that was asked for. So doing (`commands/`) knows no tables and no JSON, and
//! rendering (`report/`) knows no connections. `docs/json.md` documents every shape that `-o json` prints.
//!
//! Where to read next: `commands/get.rs` with `report/get.rs` is the whole path of the simplest command; `settings.rs` says
//! where the addresses come from, `failure.rs` what each exit code means.
//!
//! Left out on purpose: everything that an application needs (that is the client crate), and RocksDB.

mod args;
mod commands;
mod failure;
mod names;
mod output;
mod report;
mod session;
mod settings;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;
use crate::failure::Failure;
use crate::output::{Format, Out};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(refusal) => return refuse(&refusal),
    };
    let out = Out::new(cli.global.output);
    let ended = run(cli, &out);
    ended.unwrap_or_else(|failure| {
        out.fail(&failure);
        failure.exit()
    })
}

fn run(cli: Cli, out: &Out) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io("start the threads that requests run on", &error))?;
    let ended = runtime.block_on(commands::run(cli, out));
    // Nothing that is still running is worth waiting for: whatever had to be done was awaited.
    runtime.shutdown_background();
    ended
}

/// Help and version go to standard output and are no failure. A mistake is told in the form that was asked for, as far as
/// that can be known of a command line that makes no sense.
fn refuse(refusal: &clap::Error) -> ExitCode {
    let asked_for_json = Format::is_json_among(std::env::args_os().skip(1));
    if refusal.use_stderr() && asked_for_json {
        let failure = Failure::from_clap(refusal);
        Out::new(Format::Json).fail(&failure);
        return failure.exit();
    }
    // A reader that went away is no reason to fail.
    let _ = refusal.print();
    if refusal.use_stderr() { failure::USAGE.into() } else { ExitCode::SUCCESS }
}
