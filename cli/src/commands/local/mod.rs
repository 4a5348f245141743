//! `starling local`: real nodes on this machine.
//!
//! Processes are the business of the crate `starling-local`, whose calls block: there is nothing else for this process to
//! do meanwhile. Whether a node works is asked from the node.

mod act;
mod logs;
mod up;
mod wait;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use futures::future::join_all;
use starling_local::{ClusterView, LocalCluster, NodeRef, NodeStatus};

use crate::commands::node::status_of;
use crate::failure::Failure;
use crate::output::Out;
use crate::report::cluster::state;
use crate::report::local::{LocalNode, LocalStatusReport};

const EXAMPLES: &str = "\
Examples:
  starling local up                        five nodes in three zones
  starling local kill 2                    as a crash does
  starling local status
  starling local start 2
  starling local down                      data is kept; `up` goes on with it
  starling local wipe                      remove it all";

/// Run a cluster of real nodes on this machine
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct LocalArgs {
    /// Where data and logs are [default: STARLING_LOCAL_DIR, else ~/.local/share/starling/local]
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    command: LocalCommand,
}

#[derive(Debug, Subcommand)]
enum LocalCommand {
    Up(up::UpArgs),
    /// Stop all nodes; their data is kept
    #[command(after_help = "Examples:\n  starling local down\n  starling local down --within 2m")]
    Down(Within),
    /// Which processes run, and what the nodes say
    #[command(after_help = "Examples:\n  starling local status\n  starling local status -o json | jq '.nodes[].pid'")]
    Status,
    /// Kill nodes at once (SIGKILL), as a crash does
    #[command(after_help = "Examples:\n  starling local kill 2\n  starling local kill n2 n3")]
    Kill(Which),
    /// Freeze nodes (SIGSTOP): they keep their connections and say nothing
    #[command(after_help = "Examples:\n  starling local pause 2")]
    Pause(Which),
    /// Let frozen nodes go on (SIGCONT)
    #[command(after_help = "Examples:\n  starling local resume 2")]
    Resume(Which),
    /// Stop nodes gracefully (SIGTERM)
    #[command(after_help = "Examples:\n  starling local stop 2")]
    Stop(StopArgs),
    /// Start nodes that do not run, and wait until they serve
    #[command(after_help = "Examples:\n  starling local start 2\n  starling local start n2 n3")]
    Start(Which),
    Logs(logs::LogsArgs),
    /// Remove all nodes and their data; or the data of some, as a lost disk does
    #[command(
        after_help = "Examples:\n  starling local wipe\n  starling local wipe 2                    only the data of n2"
    )]
    Wipe(act::WipeArgs),
}

#[derive(Debug, Args)]
struct Which {
    /// A number or a name: 2 and n2 are the same
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<NodeRef>,
}

#[derive(Debug, Args)]
struct Within {
    /// How long the nodes may take
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    within: Duration,
}

#[derive(Debug, Args)]
struct StopArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    limit: Within,
}

pub async fn run(args: LocalArgs, out: &Out) -> Result<ExitCode, Failure> {
    let elsewhere = args.dir.is_some();
    let dir = args.dir.map_or_else(LocalCluster::default_dir, Ok)?;
    match args.command {
        LocalCommand::Up(args) => out.print(&up::run(args, &dir, elsewhere, out).await?)?,
        LocalCommand::Status => out.print(&status(&ClusterView::read(&dir)?).await?)?,
        LocalCommand::Down(limit) => out.print(&act::down(&mut LocalCluster::open(&dir)?, limit.within)?)?,
        LocalCommand::Kill(which) => out.print(&act::kill(&mut LocalCluster::open(&dir)?, &which.nodes)?)?,
        LocalCommand::Pause(which) => out.print(&act::pause(&mut LocalCluster::open(&dir)?, &which.nodes)?)?,
        LocalCommand::Resume(which) => out.print(&act::resume(&mut LocalCluster::open(&dir)?, &which.nodes)?)?,
        LocalCommand::Stop(args) => {
            out.print(&act::stop(&mut LocalCluster::open(&dir)?, &args.which.nodes, args.limit.within)?)?;
        }
        LocalCommand::Start(which) => out.print(&up::start(&mut LocalCluster::open(&dir)?, &which.nodes).await?)?,
        LocalCommand::Logs(args) => logs::run(args, &ClusterView::read(&dir)?, out).await?,
        LocalCommand::Wipe(args) => out.print(&act::wipe(args, LocalCluster::open(&dir)?, out)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn status(view: &ClusterView) -> Result<LocalStatusReport, Failure> {
    Ok(LocalStatusReport { dir: view.dir().to_owned(), nodes: local_nodes(view).await? })
}

/// Each node's process, and what those that run say of themselves.
async fn local_nodes(view: &ClusterView) -> Result<Vec<LocalNode>, Failure> {
    let processes = view.status()?;
    let answers = join_all(processes.iter().map(standing)).await;
    let now = SystemTime::now();
    Ok(processes.iter().zip(answers).map(|(process, answer)| LocalNode::new(process, answer, now)).collect())
}

async fn standing(process: &NodeStatus) -> Option<&'static str> {
    if !matches!(process.state, starling_local::NodeState::Running { .. }) {
        return None;
    }
    let status = status_of(&process.address.to_string()).await.ok()?;
    // Another program's node may have taken the port.
    (status.name == process.name).then(|| state(&status).0)
}
