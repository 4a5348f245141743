//! `starling bucket`: the rules and settings of buckets, and changing them.

use std::process::ExitCode;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, Subcommand, ValueEnum};
use starling_core::change::Change;
use starling_core::layout::{BucketRules, Layout};
use starling_core::name::BucketName;
use starling_core::object::SiblingMode;
use starling_core::quorum::{Level, ReplicaCount};
use starling_core::settings::{Changes, Registers, Setting, Settings};
use starling_core::wall::Lifetime;
use starling_proto::control::{ClusterView, Set};

use crate::args::Global;
use crate::commands::cluster::{parse_replicas, show};
use crate::failure::{Failure, Intent, Kind};
use crate::names::Names;
use crate::output::Out;
use crate::report::bucket::{BucketReport, BucketsReport};
use crate::session::{STATUS_LIMIT, any_control};

const EXAMPLES: &str = "\
Examples:
  starling bucket list
  starling bucket show carts
  starling bucket set sessions --r one --ttl 30m
  starling bucket set sessions --replicas 2 --siblings last-write-wins
  starling cluster commit --wait

How many replicas a bucket has and what becomes of concurrent writes is part of the layout: it is staged, shown by \
`cluster plan`, and takes effect by `cluster commit`, with all that it moves. Everything else is a plain setting: it \
takes effect at once on the node that is asked, and within seconds on all others.";

/// Show the rules and settings of buckets, and change them
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct BucketArgs {
    #[command(subcommand)]
    command: BucketCommand,
}

#[derive(Debug, Subcommand)]
enum BucketCommand {
    /// The buckets that have rules or settings of their own, and the rules of all others
    #[command(after_help = "Examples:\n  starling bucket list\n  \
                            starling bucket list -o json | jq '.buckets[] | {bucket, replicas}'")]
    List,
    /// The rules and settings of one bucket
    #[command(after_help = "Examples:\n  starling bucket show carts")]
    Show {
        /// Any bucket, with rules and settings of its own or without
        bucket: BucketName,
    },
    Set(SetArgs),
}

/// Stage other rules of a bucket, or change its settings
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[group(required = true, multiple = true, id = "what", args = [
    "replicas", "siblings", "r", "w", "ttl", "max_siblings", "max_object_size",
])]
struct SetArgs {
    /// The bucket's name
    bucket: BucketName,
    #[command(flatten)]
    rules: RulesArgs,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Rules, by the next commit")]
struct RulesArgs {
    /// Copies of each object, no more than the cluster's; `cluster` for as many as the cluster keeps
    #[arg(long, value_name = "N", value_parser = parse_copies)]
    replicas: Option<Copies>,
    /// What becomes of concurrent writes
    #[arg(long, value_enum, value_name = "MODE")]
    siblings: Option<Siblings>,
}

const RULES: [&str; 2] = ["replicas", "siblings"];

#[derive(Debug, Args)]
#[command(next_help_heading = "Settings, at once; `default` clears one")]
struct SettingsArgs {
    /// Replicas that answer a read which does not say: a number, one, quorum or all
    #[arg(long, value_name = "LEVEL", conflicts_with_all = RULES)]
    r: Option<Level>,
    /// Replicas on which a write is durable which does not say, in the same forms; what is more than a bucket has copies
    /// stands for all of them
    #[arg(long, value_name = "LEVEL", conflicts_with_all = RULES)]
    w: Option<Level>,
    /// How long a value lives that is put without --ttl, e.g. 30m or 7days; `never` for as long as it is not deleted
    #[arg(long, value_name = "DURATION", value_parser = parse_ttl, conflicts_with_all = RULES)]
    ttl: Option<Text>,
    /// Siblings of a key above which writes that add one are refused
    #[arg(long, value_name = "COUNT", value_parser = parse_count, conflicts_with_all = RULES)]
    max_siblings: Option<Text>,
    /// Bytes in all siblings of a key above which writes that add to them are refused, e.g. 64KiB
    #[arg(long, value_name = "SIZE", value_parser = parse_size, conflicts_with_all = RULES)]
    max_object_size: Option<Text>,
}

/// What something is set to, as nodes say it; nothing clears it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Text(Option<String>);

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
        BucketCommand::List => {
            let (layout, settings, names) = present(global).await?;
            out.print(&BucketsReport::new(&layout, &settings, &names))?;
        }
        BucketCommand::Show { bucket } => {
            let (layout, settings, names) = present(global).await?;
            out.print(&BucketReport::new(&layout, &bucket, settings.registers(&bucket), &names))?;
        }
        BucketCommand::Set(SetArgs { bucket, rules, settings }) => match settings.changes() {
            changes if changes.is_empty() => {
                let (_, view) = any_control(global, STATUS_LIMIT).await?;
                let rules = rules.changed(layout_of(&view)?.rules(&bucket));
                show(vec![Change::Bucket { bucket, rules }], global, out).await?;
            }
            changes => {
                let (layout, registers, names) = set(global, &bucket, changes).await?;
                out.print(&BucketReport::new(&layout, &bucket, Some(&registers), &names))?;
            }
        },
    }
    Ok(ExitCode::SUCCESS)
}

async fn present(global: &Global) -> Result<(Layout, Settings, Names), Failure> {
    let (control, view) = any_control(global, STATUS_LIMIT).await?;
    let (layout, names) = (layout_of(&view)?, Names::of_view(&view));
    let settings = control.settings(STATUS_LIMIT).await;
    let settings = settings.map_err(|error| Failure::from_client(error, Intent::Read, &names))?;
    Ok((layout, settings, names))
}

async fn set(global: &Global, bucket: &BucketName, changes: Changes) -> Result<(Layout, Registers, Names), Failure> {
    let (control, view) = any_control(global, STATUS_LIMIT).await?;
    let (layout, names) = (layout_of(&view)?, Names::of_view(&view));
    let registers = control.set(Set { bucket: bucket.clone(), changes }, STATUS_LIMIT).await;
    let registers = registers.map_err(|error| Failure::from_client(error, Intent::Write(None), &names))?;
    Ok((layout, registers, names))
}

fn layout_of(view: &ClusterView) -> Result<Layout, Failure> {
    let none = || Failure::new(Kind::NoCluster, format!("{} belongs to no cluster yet", view.seen_by));
    view.layout.clone().ok_or_else(none)
}

impl RulesArgs {
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

impl SettingsArgs {
    /// Of what was given.
    fn changes(self) -> Changes {
        let level = |level: Level| Text((level != Level::Default).then(|| level.to_string()));
        let given = [
            (Setting::R, self.r.map(level)),
            (Setting::W, self.w.map(level)),
            (Setting::Ttl, self.ttl),
            (Setting::MaxSiblings, self.max_siblings),
            (Setting::MaxObjectSize, self.max_object_size),
        ];
        given.into_iter().filter_map(|(setting, text)| Some((setting.name().to_owned(), text?.0))).collect()
    }
}

fn parse_copies(text: &str) -> Result<Copies, String> {
    match text {
        "cluster" => Ok(Copies::AsTheCluster),
        count => parse_replicas(count).map(Copies::These),
    }
}

fn parse_ttl(text: &str) -> Result<Text, String> {
    match text {
        "never" => Ok(Text(None)),
        other => or_default(other, |text| {
            let ttl: Duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
            let ttl = Lifetime::try_from(ttl).map_err(|error| error.to_string())?;
            Ok(ttl.get().as_millis().to_string())
        }),
    }
}

fn parse_count(text: &str) -> Result<Text, String> {
    let expected = || "expected a number, or default".to_owned();
    or_default(text, |text| text.parse().map(|count: usize| count.to_string()).map_err(|_| expected()))
}

fn parse_size(text: &str) -> Result<Text, String> {
    let expected = || "expected a size such as 64KiB, or default".to_owned();
    or_default(text, |text| text.parse().map(|ByteSize(bytes)| bytes.to_string()).map_err(|_: String| expected()))
}

fn or_default(text: &str, parse: impl FnOnce(&str) -> Result<String, String>) -> Result<Text, String> {
    if text == "default" { Ok(Text(None)) } else { parse(text).map(|text| Text(Some(text))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_stays_as_it_is() {
        let two = BucketRules { replicas: Some(ReplicaCount::try_from(2).unwrap()), mode: SiblingMode::LastWriteWins };
        let set = |replicas, siblings| RulesArgs { replicas, siblings };
        assert_eq!(set(None, Some(Siblings::Keep)).changed(two), BucketRules { mode: SiblingMode::Keep, ..two });
        assert_eq!(set(Some(Copies::AsTheCluster), None).changed(two), BucketRules { replicas: None, ..two });
        assert_eq!(parse_copies("3"), Ok(Copies::These(ReplicaCount::DEFAULT)));
        assert!(parse_copies("9").is_err());
    }

    #[test]
    fn settings_are_given_as_people_write_them() {
        let text = |text: &str| Ok(Text(Some(text.to_owned())));
        assert_eq!(
            (parse_ttl("30m"), parse_size("64KiB"), parse_count("7")),
            (text("1800000"), text("65536"), text("7"))
        );
        assert_eq!((parse_ttl("never"), parse_ttl("default")), (Ok(Text(None)), Ok(Text(None))));
        assert!(parse_ttl("200years").is_err() && parse_ttl("0s").is_err() && parse_count("few").is_err());
        let given = SettingsArgs {
            r: Some(Level::One),
            w: Some(Level::Default),
            ttl: parse_ttl("1s").ok(),
            max_siblings: None,
            max_object_size: parse_size("default").ok(),
        };
        let expected = [("r", Some("one")), ("w", None), ("ttl", Some("1000")), ("max_object_size", None)];
        let expected = expected.map(|(name, text)| (name.to_owned(), text.map(str::to_owned)));
        assert_eq!(given.changes(), Changes::from(expected));
    }
}
