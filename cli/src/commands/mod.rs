//! What each command does. A file a family; how its result looks is in `report/`.

pub mod bench;
pub mod bucket;
pub mod buckets;
pub mod cluster;
pub mod completions;
pub mod delete;
pub mod get;
pub mod import;
pub mod keys;
pub mod local;
pub mod locate;
pub mod node;
pub mod put;
pub mod repair;
pub mod tombstones;

use std::process::ExitCode;

use crate::args::{Cli, Command};
use crate::failure::Failure;
use crate::output::Out;

pub async fn run(cli: Cli, out: &Out) -> Result<ExitCode, Failure> {
    let Cli { global, command } = cli;
    match command {
        Command::Get(args) => get::run(args, &global, out).await,
        Command::Put(args) => put::run(args, &global, out).await,
        Command::Delete(args) => delete::run(args, &global, out).await,
        Command::Keys(args) => keys::run(args, &global, out).await,
        Command::Buckets(args) => buckets::run(args, &global, out).await,
        Command::Bucket(args) => bucket::run(args, &global, out).await,
        Command::Repair(args) => repair::run(args, &global, out).await,
        Command::Tombstones(args) => tombstones::run(args, &global, out).await.map(|()| ExitCode::SUCCESS),
        Command::Import(args) => import::run(args, &global, out).await,
        Command::Locate(args) => locate::run(args, &global, out).await,
        Command::Cluster(args) => cluster::run(args, &global, out).await,
        Command::Node(args) => node::run(args, &global, out).await,
        Command::Local(args) => local::run(args, out).await,
        Command::Bench(args) => bench::run(args, &global, out).await,
        Command::Completions(args) => completions::run(args, out),
    }
}
