//! The command line as a whole, and the arguments that several commands share.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use starling_core::ids::RequestId;
use starling_core::name::{BucketName, InvalidName, MAX_KEY_BYTES, ObjectKey};
use starling_core::quorum::Level;
use starling_proto::BUILD;

use crate::commands::{
    bench, bucket, buckets, cluster, completions, delete, get, import, keys, local, locate, node, put, repair,
    tombstones,
};
use crate::failure::Failure;
use crate::output::Format;
use crate::settings::parse_address;

const EXAMPLES: &str = "\
Examples:
  starling local up                        five nodes on this machine
  starling put carts alice '3 apples'      write a value
  starling get carts alice                 read it back
  starling import packages packages.jsonl --key Package
  starling cluster status                  how every node is

Addresses come from --node, else STARLING_NODES (separated by commas), else the configuration file \
(~/.config/starling/config.toml: nodes = [\"host:port\"]), else the local cluster.

Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 quorum not met or outcome unknown, 5 unreachable or \
overloaded and nothing was done.";

/// Starling, a leaderless key-value database: read, write, administer, import, measure
#[derive(Debug, Parser)]
#[command(name = "starling", version = BUILD, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Args)]
pub struct Global {
    /// A node to begin with, as host:port; repeat it for several [default: the local cluster]
    #[arg(id = "seed", long = "node", global = true, value_name = "ADDR", value_parser = parse_address, help_heading = "Everywhere")]
    pub nodes: Vec<String>,
    /// A configuration file instead of STARLING_CONFIG or ~/.config/starling/config.toml
    #[arg(long, global = true, value_name = "FILE", help_heading = "Everywhere")]
    pub config: Option<PathBuf>,
    /// For people, or one line of JSON, in the shapes that docs/json.md documents
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORM", help_heading = "Everywhere")]
    pub output: Format,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Get(get::GetArgs),
    Put(put::PutArgs),
    Delete(delete::DeleteArgs),
    Keys(keys::KeysArgs),
    Buckets(buckets::BucketsArgs),
    Bucket(bucket::BucketArgs),
    Import(import::ImportArgs),
    Locate(locate::LocateArgs),
    Repair(repair::RepairArgs),
    Tombstones(tombstones::TombstonesArgs),
    Cluster(cluster::ClusterArgs),
    Node(node::NodeArgs),
    Local(local::LocalArgs),
    Bench(bench::BenchArgs),
    Completions(completions::CompletionsArgs),
}

/// A key's place: bucket and key, the first two words of most commands.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// The bucket's name
    pub bucket: BucketName,
    /// Any 1 to 1024 bytes that the shell can pass
    #[arg(value_parser = key_parser())]
    pub key: Bytes,
}

impl KeyArgs {
    pub fn object(&self) -> Result<ObjectKey, Failure> {
        ObjectKey::new(self.bucket.clone(), self.key.clone()).map_err(|error| Failure::usage(error.to_string()))
    }
}

/// How long everything may take.
#[derive(Debug, Clone, Args)]
pub struct Timeout {
    /// Everything, retries included, ends within this
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
}

/// What a put and a delete have in common.
#[derive(Debug, Args)]
pub struct WriteArgs {
    /// Replicas that have to make it durable: a number, one, quorum, all or default
    #[arg(long, value_name = "LEVEL", default_value_t, hide_default_value = true)]
    pub w: Level,
    /// How many of them have to be primaries
    #[arg(long, value_name = "LEVEL", default_value_t, hide_default_value = true)]
    pub pw: Level,
    #[command(flatten)]
    pub timeout: Timeout,
    /// Print what each replica did
    #[arg(long)]
    pub explain: bool,
    /// Repeat an earlier write whose outcome is unknown: it stays one write
    #[arg(long, value_name = "ID")]
    pub request: Option<RequestId>,
}

/// Keys are bytes; a shell can pass all but the zero byte.
pub fn key_parser() -> impl TypedValueParser<Value = Bytes> {
    bytes_parser().try_map(|key| match key.len() {
        1..=MAX_KEY_BYTES => Ok(key),
        length => Err(InvalidName::KeyLength(length)),
    })
}

pub fn bytes_parser() -> impl TypedValueParser<Value = Bytes> {
    OsStringValueParser::new().map(|text: OsString| Bytes::from(text.into_vec()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Examples:\n  "), "`{path} --help` shows no example");
            // Prose is wrapped where the terminal ends; a command must not be.
            let widest = help.lines().filter(|line| line.starts_with("  ")).map(|line| line.chars().count()).max();
            assert!(widest <= Some(80), "an example of `{path}` is wider than 80 columns");
            command.get_subcommands().filter(|sub| sub.get_name() != "help").for_each(|sub| check(sub, &path));
        }
        check(&Cli::command(), "");
    }

    #[test]
    fn options_of_everywhere_may_stand_anywhere() {
        let cli = Cli::try_parse_from(["starling", "get", "b", "k", "-o", "json", "--node", "a:1", "--node", "b:2"]);
        let global = cli.unwrap().global;
        assert_eq!((global.output, global.nodes), (Format::Json, vec!["a:1".to_owned(), "b:2".to_owned()]));
    }

    #[test]
    fn mistakes_are_found_before_anything_is_sent() {
        let refused = |words: &[&str]| Cli::try_parse_from(words).unwrap_err().to_string();
        assert!(refused(&["starling", "get", "b", ""]).contains("a key has 1 to 1024 bytes"));
        assert!(refused(&["starling", "get", "b", "k", "--r", "most"]).contains("`most` is not a quorum"));
        assert!(refused(&["starling", "get", "b", "k", "--node", "here"]).contains("host:port"));
        assert!(refused(&["starling", "delet", "b", "k"]).contains("'delete'"));
    }

    #[test]
    fn a_key_may_be_any_bytes() {
        let words = ["starling", "get", "b"].map(OsString::from).into_iter().chain([OsString::from_vec(vec![0xff, 1])]);
        let Command::Get(get) = Cli::try_parse_from(words).unwrap().command else { panic!("it is a get") };
        assert_eq!(get.place.key, Bytes::from_static(&[0xff, 1]));
    }
}
