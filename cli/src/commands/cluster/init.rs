//! `starling cluster init`: making a cluster.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use starling_client::ControlClient;
use starling_core::layout::{BucketRules, Layout};
use starling_core::name::{BucketName, NodeName};
use starling_core::object::SiblingMode;
use starling_core::quorum::ReplicaCount;
use starling_core::token::PartitionCount;
use starling_proto::control::{Init, PeerView};

use crate::args::Global;
use crate::failure::{Failure, Intent, Kind};
use crate::names::Names;
use crate::output::Out;
use crate::report::ring::RingReport;
use crate::session::{any_control, roster};

const EXAMPLES: &str = "\
Examples:
  starling cluster init                    of all nodes that the first knows
  starling cluster init --members n1,n2,n3 --weight n1=2
  starling cluster init --bucket sessions:lww --bucket cache:n=2,lww

Once, on any node: nodes never form a cluster by themselves. The number of partitions and replicas and the buckets' \
rules are part of the layout; defaults for r and w, and limits, are not.";

/// Make the nodes a cluster
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct InitArgs {
    /// The members, by name, separated by commas [default: every node that the first one knows]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    members: Vec<NodeName>,
    /// A member's share of the data relative to the others', as n1=2; repeat it for several
    #[arg(long = "weight", value_name = "NODE=WEIGHT", value_parser = parse_weight)]
    weights: Vec<(NodeName, u32)>,
    #[command(flatten)]
    rules: Rules,
    /// Everything ends within this
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// What a first layout fixes for all members alike.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Rules {
    /// Copies of each object, 1 to 7
    #[arg(long, value_name = "N", default_value = "3", value_parser = parse_replicas)]
    pub replicas: ReplicaCount,
    /// Slices of the ring: a power of two, fixed for good
    #[arg(long, value_name = "Q", default_value = "256", value_parser = parse_partitions)]
    pub partitions: PartitionCount,
    /// Rules of a bucket, as NAME:n=2,lww with fewer copies (n) or last-write-wins (lww); repeat it for several
    #[arg(long = "bucket", value_name = "NAME:RULES", value_parser = parse_bucket)]
    pub buckets: Vec<(BucketName, BucketRules)>,
}

pub async fn run(args: InitArgs, global: &Global, out: &Out) -> Result<(), Failure> {
    let deadline = Instant::now() + args.timeout;
    let (control, view) = any_control(global, args.timeout).await?;
    check(&args, &roster(&control, &view).await)?;
    let left = deadline.saturating_duration_since(Instant::now());
    let layout = init(&control, args.into_init(), left).await?;
    out.print(&RingReport::summary(&layout))?;
    out.note("\nThe cluster is ready: `starling cluster ring` draws it.");
    Ok(())
}

/// What can be known to be wrong before the nodes are asked.
fn check(args: &InitArgs, peers: &[PeerView]) -> Result<(), Failure> {
    let is_member = |name: &NodeName| match args.members.as_slice() {
        [] => peers.iter().any(|peer| peer.name == *name),
        members => members.contains(name),
    };
    if let Some((stranger, _)) = args.weights.iter().find(|(name, _)| !is_member(name)) {
        return Err(Failure::usage(format!("--weight {stranger}=…: no member is named so")));
    }
    args.rules.check()
}

/// Makes layout version 1 through a node.
pub async fn init(control: &ControlClient, init: Init, timeout: Duration) -> Result<Layout, Failure> {
    control.init(init, timeout).await.map_err(|error| {
        let failure = Failure::from_client(error, Intent::Write(None), &Names::default());
        match failure.kind {
            Kind::Incomplete => failure.hint("run the same command again when all members are up"),
            Kind::Refused => failure.hint("`starling cluster status` shows the nodes and what they belong to"),
            _ => failure,
        }
    })
}

impl InitArgs {
    fn into_init(self) -> Init {
        Init { members: self.members, weights: self.weights.into_iter().collect(), ..self.rules.into_init() }
    }
}

impl Rules {
    /// # Errors
    /// A bucket asks for more than the cluster keeps.
    pub fn check(&self) -> Result<(), Failure> {
        let replicas = self.replicas;
        let greedy = self.buckets.iter().find(|(_, rules)| rules.replicas.is_some_and(|asked| asked > replicas));
        greedy.map_or(Ok(()), |(bucket, _)| {
            Err(Failure::usage(format!("bucket `{bucket}` asks for more copies than the cluster's {replicas}")))
        })
    }

    pub fn is_default(&self) -> bool {
        let Rules { replicas, partitions, buckets } = self;
        *replicas == ReplicaCount::DEFAULT && *partitions == PartitionCount::DEFAULT && buckets.is_empty()
    }

    /// For all nodes that are known, of equal weight.
    pub fn into_init(self) -> Init {
        Init {
            members: Vec::new(),
            weights: BTreeMap::new(),
            partitions: self.partitions,
            replicas: self.replicas,
            buckets: self.buckets.into_iter().collect(),
        }
    }
}

pub fn parse_weight(text: &str) -> Result<(NodeName, u32), String> {
    let (name, weight) = text.split_once('=').ok_or("expected NODE=WEIGHT, such as n1=2")?;
    let name = name.parse().map_err(|error: starling_core::name::InvalidName| error.to_string())?;
    match weight.parse() {
        Ok(weight) if weight > 0 => Ok((name, weight)),
        _ => Err(format!("`{weight}` is not a weight: use a whole number from 1")),
    }
}

pub fn parse_replicas(text: &str) -> Result<ReplicaCount, String> {
    let count: u8 = text.parse().map_err(|_| "expected a number from 1 to 7".to_owned())?;
    ReplicaCount::try_from(count).map_err(|error| error.to_string())
}

fn parse_partitions(text: &str) -> Result<PartitionCount, String> {
    let count: u32 = text.parse().map_err(|_| "expected a power of two".to_owned())?;
    PartitionCount::try_from(count).map_err(|error| error.to_string())
}

/// The rules stand behind the last colon, since a bucket's name may hold some.
fn parse_bucket(text: &str) -> Result<(BucketName, BucketRules), String> {
    let (name, words) = text.rsplit_once(':').ok_or("expected NAME:RULES, such as cache:n=2,lww")?;
    let name = name.parse().map_err(|error: starling_core::name::InvalidName| error.to_string())?;
    let mut rules = BucketRules::default();
    for word in words.split(',').map(str::trim) {
        match (word, word.strip_prefix("n=")) {
            (_, Some(count)) => rules.replicas = Some(parse_replicas(count)?),
            ("lww", _) => rules.mode = SiblingMode::LastWriteWins,
            ("siblings", _) => rules.mode = SiblingMode::Keep,
            _ => return Err(format!("`{word}` is no rule: use n=2, lww or siblings")),
        }
    }
    Ok((name, rules))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_buckets_are_read_from_behind_the_last_colon() {
        let (name, rules) = parse_bucket("a:b:n=2,lww").unwrap();
        assert_eq!(name.as_str(), "a:b");
        assert_eq!(rules.replicas.map(ReplicaCount::get), Some(2));
        assert_eq!(rules.mode, SiblingMode::LastWriteWins);
        assert!(parse_bucket("cache").is_err());
        assert_eq!(parse_bucket("cache:last").unwrap_err(), "`last` is no rule: use n=2, lww or siblings");
        assert!(parse_bucket("cache:n=9").is_err());
    }

    #[test]
    fn weights_are_whole_and_positive() {
        assert_eq!(parse_weight("n1=2").unwrap().1, 2);
        assert!(parse_weight("n1").is_err() && parse_weight("n1=0").is_err() && parse_weight("N=1").is_err());
    }

    #[test]
    fn partitions_are_a_power_of_two() {
        assert!(parse_partitions("64").is_ok());
        assert!(parse_partitions("100").unwrap_err().contains("choose a power of two"));
    }
}
