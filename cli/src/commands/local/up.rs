//! `starling local up` and `start`: processes first, then whether they work.
//!
//! A node answers, then gossip finds the others, then, once, `cluster init` makes them a cluster, and at last all serve.
//! Each step is waited for with a limit, and a node that ends meanwhile is told with its last words.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use starling_client::ControlClient;
use starling_core::name::NodeName;
use starling_local::{LocalCluster, LocalError, NodeRef, NodeState, Ports, Shape};
use starling_proto::control::{Init, NodeStanding, NodeStatus};

use crate::commands::cluster::{Rules, init};
use crate::commands::local::local_nodes;
use crate::commands::local::wait::{address_of, joined, wait_acquainted, wait_connected, wait_until};
use crate::commands::node::status_of;
use crate::failure::{Failure, Kind};
use crate::output::Out;
use crate::report::local::{DoneNode, DoneReport, UpReport};

const EXAMPLES: &str = "\
Examples:
  starling local up                        five nodes in three zones
  starling local up --nodes 3 --zones 1
  starling local up --base-port 9001 --bucket sessions:lww
  starling local up -- --log debug         flags for the nodes themselves

After `down`, `up` starts the same nodes with their data.";

const DEFAULT_NODES: usize = 5;
const DEFAULT_ZONES: usize = 3;

/// Start the nodes, and make them a cluster if they are none yet
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct UpArgs {
    /// How many nodes a new cluster has [default: 5]
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,
    /// Over how many zones they are dealt [default: 3, or as many as nodes]
    #[arg(long, value_name = "Z")]
    zones: Option<usize>,
    /// The port of the first node; the others follow [default: 7401]
    #[arg(long, value_name = "PORT")]
    base_port: Option<u16>,
    #[command(flatten)]
    rules: Rules,
    /// How long each step may take
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    within: Duration,
    /// Flags for the nodes, kept for later starts
    #[arg(last = true, value_name = "NODE FLAGS")]
    flags: Vec<String>,
}

pub async fn run(args: UpArgs, dir: &Path, elsewhere: bool, out: &Out) -> Result<UpReport, Failure> {
    args.rules.check()?;
    let (mut cluster, created) = open_or_create(&args, dir)?;
    let started = cluster.start_all()?;
    let names = cluster.view().names();
    if !started.is_empty() {
        out.note(format!("starting {} …", joined(&started)));
    }
    let awake = awake(&cluster, out)?;
    if awake.is_empty() {
        return Err(Failure::failed("all nodes are paused").hint("`starling local resume NODE …` lets them go on"));
    }
    let limit = args.within;
    let statuses = wait_until(&mut cluster, &awake, limit, "answers", |_| true).await?;
    let identity = if statuses.iter().any(|status| matches!(status.standing, NodeStanding::Uninitialised)) {
        wait_acquainted(&cluster, &awake, limit).await?;
        make_cluster(&cluster, &statuses, names, args.rules.into_init(), limit).await?
    } else {
        if !args.rules.is_default() {
            out.warn("--replicas, --partitions and --bucket are for a new cluster: this one was made before");
        }
        statuses.iter().find_map(|status| status.cluster).map(|id| id.to_string())
    };
    wait_until(&mut cluster, &awake, limit, "serves", |status| status.standing == NodeStanding::Serving).await?;
    if !started.is_empty() {
        wait_acquainted(&cluster, &awake, limit).await?;
        wait_connected(&mut cluster, &awake, awake.len().saturating_sub(1), limit).await?;
    }
    let nodes = local_nodes(cluster.view()).await?;
    let started = started.iter().map(ToString::to_string).collect();
    Ok(UpReport { dir: cluster.view().dir().to_owned(), created, started, cluster: identity, nodes, elsewhere })
}

/// Starts single nodes and waits until they answer.
pub async fn start(cluster: &mut LocalCluster, which: &[NodeRef]) -> Result<DoneReport, Failure> {
    const LIMIT: Duration = Duration::from_secs(30);
    let names: Result<Vec<NodeName>, LocalError> =
        which.iter().map(|node| cluster.view().resolve(node.clone())).collect();
    let names = names?;
    let mut nodes = Vec::new();
    for name in &names {
        let pid = cluster.start(name)?;
        nodes.push(DoneNode { node: name.to_string(), pid: Some(pid), exit: None });
    }
    let (members, serving) = members(cluster).await?;
    let ready = |status: &NodeStatus| match status.standing {
        NodeStanding::Serving => true,
        // Among members it is one whose data is gone: it finds that out in a moment.
        NodeStanding::Uninitialised => !members,
        NodeStanding::Excluded(_) | NodeStanding::Failed(_) | NodeStanding::Stopping | NodeStanding::Left => false,
    };
    wait_until(cluster, &names, LIMIT, "serves", ready).await?;
    if members {
        let others = |name: &NodeName| serving.iter().filter(|other| *other != name).count();
        for name in &names {
            wait_connected(cluster, std::slice::from_ref(name), others(name), LIMIT).await?;
        }
    }
    Ok(DoneReport { done: "started", nodes })
}

fn open_or_create(args: &UpArgs, dir: &Path) -> Result<(LocalCluster, bool), Failure> {
    match LocalCluster::open(dir) {
        Ok(mut cluster) => {
            require_same_shape(args, &cluster)?;
            if !args.flags.is_empty() {
                cluster.set_launch(starling_local::Launch { args: args.flags.clone(), ..Default::default() })?;
            }
            Ok((cluster, false))
        }
        Err(LocalError::NoCluster { .. }) => Ok((LocalCluster::create(dir, shape(args))?, true)),
        Err(error) => Err(error.into()),
    }
}

fn shape(args: &UpArgs) -> Shape {
    let nodes = args.nodes.unwrap_or(DEFAULT_NODES);
    let mut shape = Shape { nodes, zones: args.zones.unwrap_or(DEFAULT_ZONES.min(nodes)), ..Shape::default() };
    if let Some(port) = args.base_port {
        shape.ports = Ports::From(port);
    }
    shape.launch.args.clone_from(&args.flags);
    shape
}

/// What was typed for another cluster than the one that is there would be ignored in silence.
fn require_same_shape(args: &UpArgs, cluster: &LocalCluster) -> Result<(), Failure> {
    let view = cluster.view();
    let addresses = view.addresses();
    let zones: std::collections::BTreeSet<_> = view.status()?.into_iter().map(|node| node.zone).collect();
    let first_port = addresses.first().map(std::net::SocketAddr::port);
    let differs = args.nodes.is_some_and(|nodes| nodes != addresses.len())
        || args.zones.is_some_and(|wanted| wanted != zones.len())
        || args.base_port.is_some_and(|port| Some(port) != first_port);
    if !differs {
        return Ok(());
    }
    let (nodes, zones, dir) = (addresses.len(), zones.len(), view.dir().display());
    let port = first_port.unwrap_or_default();
    Err(Failure::usage(format!("the cluster in {dir} has {nodes} nodes in {zones} zones from port {port}")).hint(
        "`starling local up` alone starts it; for another one, give another --dir, or `starling local wipe` first",
    ))
}

/// Whether any node that runs belongs to a cluster; and which of them serve.
async fn members(cluster: &LocalCluster) -> Result<(bool, Vec<NodeName>), Failure> {
    let (mut any, mut serving) = (false, Vec::new());
    for node in cluster.view().status()? {
        if !matches!(node.state, NodeState::Running { .. }) {
            continue;
        }
        let Ok(status) = status_of(&node.address.to_string()).await else { continue };
        any |= status.cluster.is_some();
        if status.standing == NodeStanding::Serving {
            serving.push(status.name);
        }
    }
    Ok((any, serving))
}

/// The nodes that can answer: a paused one stays paused.
fn awake(cluster: &LocalCluster, out: &Out) -> Result<Vec<NodeName>, Failure> {
    let mut awake = Vec::new();
    for name in cluster.view().names() {
        match cluster.view().state(&name)? {
            NodeState::Paused { .. } => {
                out.warn(format!("{name} is paused, and stays so: `starling local resume {name}`"));
            }
            NodeState::Running { .. } | NodeState::Stopped | NodeState::Died { .. } => awake.push(name),
        }
    }
    Ok(awake)
}

/// Runs `cluster init`, or finishes one that did not reach all: through a node that has the layout, if there is one.
async fn make_cluster(
    cluster: &LocalCluster,
    statuses: &[NodeStatus],
    members: Vec<NodeName>,
    rules: Init,
    limit: Duration,
) -> Result<Option<String>, Failure> {
    let through = statuses.iter().find(|status| status.cluster.is_some()).or(statuses.first());
    let Some(through) = through else { return Ok(None) };
    let address = address_of(cluster, &through.name)?;
    let control = ControlClient::connect(&address).await;
    let control = control.map_err(|error| Failure::new(Kind::Unreachable, error.to_string()))?;
    let made_before = through.cluster.is_some();
    let layout = init(&control, Init { members, ..rules }, limit).await.map_err(|failure| match made_before {
        true => failure.hint("`starling cluster status` shows more; a node whose data was wiped cannot come back yet"),
        false => failure,
    })?;
    Ok(Some(layout.cluster().to_string()))
}
