//! Whole Starling clusters in one process, from one seed.
//!
//! Real nodes (coordinator, replica, handoff, read repair, gossip) and real clients run on a simulated network, simulated
//! disks and simulated time, while things break that a seed chooses. Two judges look on: the witness from inside, at every
//! step, and the checker from outside, in the end. `docs/correctness.md` says what that is worth.
//!
//! Where to read next: [`plan`] (what can go wrong), [`run`] (how it goes), [`witness`] (what must hold), [`duty`] (which
//! requests must succeed), `run/exam.rs` (what is asked in the end), `kernel` (the world below), [`campaign`] (many seeds), [`shrink`] (a failing run made small), [`trial`] (the simulation itself on
//! trial: builds that are broken on purpose).

mod arguments;
mod campaign;
mod describe;
mod duty;
mod kernel;
mod logs;
mod names;
mod observer;
mod panics;
mod plan;
mod run;
mod server;
mod shrink;
mod single;
mod summary;
mod transcript;
mod trial;
mod verdict;
mod wiretap;
mod witness;
mod workload;

use std::process::ExitCode;

use clap::Parser as _;

use arguments::{Arguments, Command};

fn main() -> ExitCode {
    // SAFETY: nothing runs yet. A transcript that is piped into `head` or `less` ends with its reader, without a word.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let passed = match Arguments::parse().command {
        Command::Run(arguments) => single::run(&arguments),
        Command::Campaign(arguments) => campaign::run(&arguments),
        Command::Twice(arguments) => campaign::run_twice(&arguments),
        Command::Trial(arguments) => trial::run(&arguments),
    };
    match passed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("starling-simulate: {error:#}");
            ExitCode::from(2)
        }
    }
}
