//! `starling bucket`: the rules of buckets, and staging others.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use starling_core::change::Change;
use starling_core::layout::{BucketRules, Layout};
use starling_core::name::BucketName;
use starling_core::object::SiblingMode;
use starling_core::quorum::ReplicaCount;

use crate::args::Global;
use crate::commands::cluster::{parse_replicas, show};
use crate::failure::{Failure, Kind};
use crate::output::Out;
use crate::report::bucket::{BucketReport, BucketsReport};
use crate::session::{STATUS_LIMIT, any_control};

const EXAMPLES: &str = "\
Examples:
  starling bucket list
  starling bucket show carts
  starling bucket set sessions --replicas 2 --siblings last-write-wins
  starling cluster commit --wait

How many replicas a bucket has and what becomes of concurrent writes is part of the layout: it is staged, shown by \
`cluster plan`, and takes effect by `cluster commit`, with all that it moves.";

/// Show the rules of buckets, and change them
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct BucketArgs {
    #[command(subcommand)]
    command: BucketCommand,
}

#[derive(Debug, Subcommand)]
enum BucketCommand {
    /// The buckets that have rules of their own, and those of all others
    #[command(after_help = "Examples:\n  starling bucket list\n  \
                            starling bucket list -o json | jq '.buckets[] | {bucket, replicas}'")]
    List,
    /// The rules of one bucket
    #[command(after_help = "Examples:\n  starling bucket show carts")]
    Show {
        /// Any bucket, with rules of its own or without
        bucket: BucketName,
    },
    Set(SetArgs),
}

/// Stage other rules of a bucket
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[group(required = true, multiple = true, id = "rules", args = ["replicas", "siblings"])]
struct SetArgs {
    /// The bucket's name
    bucket: BucketName,
    /// Copies of each object, no more than the cluster's; `cluster` for as many as the cluster keeps
    #[arg(long, value_name = "N", value_parser = parse_copies)]
    replicas: Option<Copies>,
    /// What becomes of concurrent writes
    #[arg(long, value_enum, value_name = "MODE")]
    siblings: Option<Siblings>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copies {
    AsTheCluster,
    These(ReplicaCount),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Siblings {
    /// All stay until a later write has seen them
    Keep,
    /// One stays, by the clocks of the nodes; the others are lost
    LastWriteWins,
}

pub async fn run(args: BucketArgs, global: &Global, out: &Out) -> Result<ExitCode, Failure> {
    match args.command {
        BucketCommand::List => out.print(&BucketsReport::new(&layout(global).await?))?,
        BucketCommand::Show { bucket } => out.print(&BucketReport::new(&layout(global).await?, &bucket))?,
        BucketCommand::Set(args) => {
            let layout = layout(global).await?;
            let rules = args.changed(layout.rules(&args.bucket));
            show(vec![Change::Bucket { bucket: args.bucket, rules }], global, out).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn layout(global: &Global) -> Result<Layout, Failure> {
    let (_, view) = any_control(global, STATUS_LIMIT).await?;
    let none = || Failure::new(Kind::NoCluster, format!("{} belongs to no cluster yet", view.seen_by));
    view.layout.clone().ok_or_else(none)
}

impl SetArgs {
    /// What was not given stays as it is.
    fn changed(&self, present: BucketRules) -> BucketRules {
        let replicas = match self.replicas {
            Some(Copies::AsTheCluster) => None,
            Some(Copies::These(replicas)) => Some(replicas),
            None => present.replicas,
        };
        let mode = match self.siblings {
            Some(Siblings::Keep) => SiblingMode::Keep,
            Some(Siblings::LastWriteWins) => SiblingMode::LastWriteWins,
            None => present.mode,
        };
        BucketRules { replicas, mode }
    }
}

fn parse_copies(text: &str) -> Result<Copies, String> {
    match text {
        "cluster" => Ok(Copies::AsTheCluster),
        count => parse_replicas(count).map(Copies::These),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_stays_as_it_is() {
        let two = BucketRules { replicas: Some(ReplicaCount::try_from(2).unwrap()), mode: SiblingMode::LastWriteWins };
        let set = |replicas, siblings| SetArgs { bucket: "b".parse().unwrap(), replicas, siblings };
        assert_eq!(set(None, Some(Siblings::Keep)).changed(two), BucketRules { mode: SiblingMode::Keep, ..two });
        assert_eq!(set(Some(Copies::AsTheCluster), None).changed(two), BucketRules { replicas: None, ..two });
        assert_eq!(parse_copies("3"), Ok(Copies::These(ReplicaCount::DEFAULT)));
        assert!(parse_copies("9").is_err());
    }
}
