//! What is typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use starling_core::fault::Fault;

#[derive(Parser)]
#[command(name = "starling-simulate", about = "Whole Starling clusters in one process, from one seed")]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// One seed
    Run(Single),
    /// Many seeds, one after another on every core; can be interrupted and goes on where it was
    Campaign(Campaign),
    /// Every seed twice: both runs have to be the same to the last byte
    Twice(Twice),
    /// Is every deliberate fault found, by what, and after how many seeds?
    Trial(Trial),
}

#[derive(Args, Clone)]
pub struct Single {
    #[arg(long)]
    pub seed: u64,
    /// Tell the run line by line: what matters, or, with `all`, everything
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "1")]
    pub trace: Option<Trace>,
    /// Leave out of it what is about other keys
    #[arg(long, value_name = "BUCKET/KEY")]
    pub key: Option<String>,
    /// Break the product on purpose
    #[arg(long, value_name = "FAULT")]
    pub fault: Option<Fault>,
    #[command(flatten)]
    pub reduction: Reduction,
    /// Say what came of it as one line of JSON
    #[arg(long, hide = true)]
    pub json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Trace {
    #[value(name = "1")]
    Main,
    All,
}

/// A smaller run of the same seed.
#[derive(Args, Clone, Default, PartialEq, Eq)]
pub struct Reduction {
    /// Only these of the run's troubles, by number
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', num_args = 0..)]
    pub only_troubles: Option<Vec<usize>>,
    /// Only the first clients
    #[arg(long)]
    pub clients: Option<usize>,
    /// Only the first operations of each client
    #[arg(long)]
    pub operations: Option<usize>,
}

#[derive(Args, Clone)]
pub struct Campaign {
    /// How many seeds
    #[arg(long, default_value_t = 200)]
    pub seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    pub first: u64,
    #[arg(long, value_name = "FAULT")]
    pub fault: Option<Fault>,
    /// Processes at once; as many as there are cores if not given
    #[arg(long)]
    pub jobs: Option<usize>,
    /// What has been run is written here, and not run again
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
}

#[derive(Args, Clone)]
pub struct Twice {
    #[arg(long, default_value_t = 20)]
    pub seeds: u64,
    #[arg(long, default_value_t = 1)]
    pub first: u64,
}

#[derive(Args, Clone)]
pub struct Trial {
    /// Only this fault
    #[arg(long, value_name = "FAULT")]
    pub fault: Option<Fault>,
    /// Seeds after which a fault counts as not found
    #[arg(long, default_value_t = 200)]
    pub seeds: u64,
    /// The first seed of the first search
    #[arg(long, default_value_t = 1)]
    pub first: u64,
    /// For a fault that is seldom found: where the search begins instead, e.g. near where it was found last
    #[arg(long, value_name = "FAULT=SEED", value_parser = beginning)]
    pub begin: Vec<(Fault, u64)>,
    /// Searches, each from another first seed; their median is reported
    #[arg(long, default_value_t = 3)]
    pub searches: u64,
    #[arg(long)]
    pub jobs: Option<usize>,
}

fn beginning(text: &str) -> Result<(Fault, u64), String> {
    let (fault, seed) = text.split_once('=').ok_or("expected FAULT=SEED")?;
    let fault = fault.parse::<Fault>().map_err(|error| error.to_string())?;
    Ok((fault, seed.parse().map_err(|error| format!("`{seed}` is no seed: {error}"))?))
}
