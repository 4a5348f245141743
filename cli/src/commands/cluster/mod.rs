//! `starling cluster`: making one, looking at it as a whole, and changing its ring.

mod changes;
mod force;
mod init;
mod transfers;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use futures::future::join_all;
use starling_proto::control::{NodeStatus, PeerView};

use crate::args::{Global, Timeout};
use crate::commands::node::status_of;
use crate::failure::{Failure, Intent};
use crate::names::Names;
use crate::output::Out;
use crate::report::cluster::StatusReport;
use crate::report::history::HistoryReport;
use crate::report::ring::RingReport;
use crate::session::{STATUS_LIMIT, Session, any_control, roster};

pub use changes::{commit, show, stage};
pub use init::{Rules, init, parse_replicas};
pub use transfers::{Moving, Said, wait_settled};

const EXAMPLES: &str = "\
Examples:
  starling cluster init
  starling cluster status
  starling cluster ring
  starling cluster join n4 n5              stage it, and see what it comes to
  starling cluster commit --wait

Changes of the ring are staged on one node, shown by `plan`, and take effect by `commit`.";

/// Make a cluster, look at it as a whole, and change who is in it
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    Init(init::InitArgs),
    /// How every node is
    #[command(after_help = "Examples:\n  starling cluster status\n  \
                            starling cluster status -o json | jq '.nodes[] | {node, state}'")]
    Status,
    /// Draw the ring, and each node's share of it
    #[command(after_help = "Examples:\n  starling cluster ring\n  \
                            starling cluster ring -o json | jq '.ring[0]'")]
    Ring(RingArgs),
    Join(changes::JoinArgs),
    /// Stage that members hand their data over and leave
    #[command(after_help = "Examples:\n  starling cluster leave n4 n5\n  starling cluster commit --wait\n\n\
                            A node that has left goes on until it holds nothing: `transfers` shows when to stop it.")]
    Leave(changes::Members),
    /// Stage that members are dead, with their disks: nobody waits for them
    #[command(after_help = "Examples:\n  starling cluster remove n3\n  starling cluster commit\n\n\
                            For members that are gone for good. One that lives is asked to `leave` instead.")]
    Remove(changes::Members),
    ForceRemove(force::ForceArgs),
    /// Stage that a new node takes an old one's place and weight
    #[command(after_help = "Examples:\n  starling cluster replace n3 n6\n  starling cluster commit --wait\n\n\
                            An old node that is up leaves; one that is down is removed as dead.")]
    Replace(changes::ReplaceArgs),
    /// Stage other shares of the data
    #[command(after_help = "Examples:\n  starling cluster weight n1=2\n  starling cluster weight n1=2 n2=2")]
    Weight(changes::WeightArgs),
    /// Stage that members are in other zones
    #[command(after_help = "Examples:\n  starling cluster zone n1=rack-7")]
    Zone(changes::ZoneArgs),
    /// Stage another number of copies of each object
    #[command(after_help = "Examples:\n  starling cluster replicas 5")]
    Replicas(changes::ReplicasArgs),
    /// Forget what is staged
    #[command(after_help = "Examples:\n  starling cluster unstage")]
    Unstage,
    /// Show what the staged changes come to: shares, moves, bytes, warnings
    #[command(after_help = "Examples:\n  starling cluster plan\n  \
                            starling cluster plan -o json | jq '{moves, bytes, warnings}'")]
    Plan,
    Commit(changes::CommitArgs),
    /// List every change of the ring that was ever chosen
    #[command(after_help = "Examples:\n  starling cluster history\n  \
                            starling cluster history -o json | jq '.entries[-1]'")]
    History,
    Transfers(transfers::TransfersArgs),
}

#[derive(Debug, Args)]
struct RingArgs {
    #[command(flatten)]
    timeout: Timeout,
}

pub async fn run(args: ClusterArgs, global: &Global, out: &Out) -> Result<ExitCode, Failure> {
    match args.command {
        ClusterCommand::Init(args) => init::run(args, global, out).await?,
        ClusterCommand::Status => out.print(&status(global).await?)?,
        ClusterCommand::Ring(args) => {
            let session = Session::open(global, args.timeout.timeout).await?;
            out.print(&RingReport::new(&session.layout()))?;
        }
        ClusterCommand::Join(args) => changes::show(args.changes(), global, out).await?,
        ClusterCommand::Leave(members) => changes::show(members.leave(), global, out).await?,
        ClusterCommand::Remove(members) => changes::show(members.remove(), global, out).await?,
        ClusterCommand::ForceRemove(args) => force::run(args, global, out).await?,
        ClusterCommand::Replace(args) => changes::replace(args, global, out).await?,
        ClusterCommand::Weight(args) => changes::show(args.changes(), global, out).await?,
        ClusterCommand::Zone(args) => changes::show(args.changes(), global, out).await?,
        ClusterCommand::Replicas(args) => changes::show(args.changes(), global, out).await?,
        ClusterCommand::Unstage => changes::unstage(global, out).await?,
        ClusterCommand::Plan => changes::plan(global, out).await?,
        ClusterCommand::Commit(args) => changes::run_commit(args, global, out).await?,
        ClusterCommand::History => out.print(&history(global).await?)?,
        ClusterCommand::Transfers(args) => transfers::run(args, global, out).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks one node for the cluster, then every node how it is.
async fn status(global: &Global) -> Result<StatusReport, Failure> {
    let (control, view) = any_control(global, STATUS_LIMIT).await?;
    let peers = roster(&control, &view).await;
    let answers = join_all(peers.iter().map(status_of_peer)).await;
    Ok(StatusReport::new(&view, peers.into_iter().zip(answers).collect()))
}

/// How a node is, if it is still the one that answers at its address.
async fn status_of_peer(peer: &PeerView) -> Result<NodeStatus, String> {
    let status = status_of(&peer.address).await?;
    if status.name == peer.name { Ok(status) } else { Err(format!("{} answers at its address", status.name)) }
}

async fn history(global: &Global) -> Result<HistoryReport, Failure> {
    let (control, view) = any_control(global, STATUS_LIMIT).await?;
    let log = control.log(STATUS_LIMIT).await;
    let log = log.map_err(|error| Failure::from_client(error, Intent::Read, &Names::of_view(&view)))?;
    Ok(HistoryReport::new(view.seen_by.to_string(), &log))
}
