//! `starling local up` and `start`: processes first, then whether they work.
//!
//! A node answers, then gossip finds the others, then, once, `cluster init` makes them a cluster, and at last all serve.
//! Each step is waited for with a limit, and a node that ends meanwhile is told with its last words.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use starling_client::{ClientError, ControlClient};
use starling_core::change::Change;
use starling_core::name::NodeName;
use starling_local::{LocalCluster, LocalError, NodeRef, NodeState, Ports, Shape};
use starling_proto::control::{ClusterView, Committed, Init, NodeStanding, NodeStatus};

use crate::commands::cluster::{Rules, commit, init, stage, wait_settled};
use crate::commands::local::local_nodes;
use crate::commands::local::wait::{address_of, joined, wait_acquainted, wait_connected, wait_until};
use crate::commands::node::status_of;
use crate::failure::{Failure, Intent, Kind};
use crate::names::Names;
use crate::output::Out;
use crate::report::local::{DoneNode, DoneReport, UpReport};
use crate::session::{STATUS_LIMIT, roster};

const EXAMPLES: &str = "\
Examples:
  starling local up                        five nodes in three zones
  starling local up --nodes 3 --zones 1
  starling local up --base-port 9001 --bucket sessions:lww
  starling local up -- --log debug         flags for the nodes themselves
  starling local up --nodes 7              of five that are there: two more join

After `down`, `up` starts the same nodes with their data.";

const DEFAULT_NODES: usize = 5;
const DEFAULT_ZONES: usize = 3;

/// Start the nodes, make them a cluster if they are none yet, and let those join that are new
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct UpArgs {
    /// How many nodes there shall be [default: those that are there, 5 in a new cluster]
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
    let (awake, statuses) = without_those_that_left(awake, statuses, out);
    let is_made = statuses.iter().any(|status| status.cluster.is_some());
    if is_made && !args.rules.is_default() {
        out.warn("--replicas, --partitions and --bucket are for a new cluster: this one was made before");
    }
    let mut identity = statuses.iter().find_map(|status| status.cluster).map(|id| id.to_string());
    let mut joined = Vec::new();
    if statuses.iter().any(|status| status.standing == NodeStanding::Uninitialised) {
        wait_acquainted(&cluster, &awake, limit).await?;
        joined = strangers(&cluster, &statuses).await?;
        if joined.is_empty() {
            identity = make_cluster(&cluster, &statuses, names, args.rules.into_init(), limit).await?;
        } else {
            join(&cluster, &statuses, &joined, limit, out).await?;
        }
    }
    wait_until(&mut cluster, &awake, limit, "serves", |status| status.standing == NodeStanding::Serving).await?;
    if !started.is_empty() {
        wait_acquainted(&cluster, &awake, limit).await?;
        wait_connected(&mut cluster, &awake, awake.len().saturating_sub(1), limit).await?;
    }
    let nodes = local_nodes(cluster.view()).await?;
    let told = |names: Vec<NodeName>| names.iter().map(ToString::to_string).collect();
    let (started, joined) = (told(started), told(joined));
    let dir = cluster.view().dir().to_owned();
    Ok(UpReport { dir, created, started, joined, cluster: identity, nodes, elsewhere })
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
        // It brings home what it holds.
        NodeStanding::Left => true,
        NodeStanding::Excluded(_) | NodeStanding::Failed(_) | NodeStanding::Stopping => false,
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
            cluster.grow(args.nodes.unwrap_or(0))?;
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
    let zones: BTreeSet<_> = view.status()?.into_iter().map(|node| node.zone).collect();
    let first_port = addresses.first().map(std::net::SocketAddr::port);
    let differs = args.nodes.is_some_and(|nodes| nodes < addresses.len())
        || args.zones.is_some_and(|wanted| wanted != zones.len())
        || args.base_port.is_some_and(|port| Some(port) != first_port);
    if !differs {
        return Ok(());
    }
    let (nodes, zones, dir) = (addresses.len(), zones.len(), view.dir().display());
    let port = first_port.unwrap_or_default();
    Err(Failure::usage(format!("the cluster in {dir} has {nodes} nodes in {zones} zones from port {port}")).hint(
        "`starling local up` alone starts it, a greater --nodes adds to it, and `starling cluster leave` takes nodes out; \
         for another one, give another --dir, or `starling local wipe` first",
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

/// A node that has left the cluster runs until it holds nothing, and is not waited for.
fn without_those_that_left(
    awake: Vec<NodeName>,
    mut statuses: Vec<NodeStatus>,
    out: &Out,
) -> (Vec<NodeName>, Vec<NodeStatus>) {
    for status in statuses.iter().filter(|status| status.standing == NodeStanding::Left) {
        out.warn(format!(
            "{0} has left the cluster: `starling local stop {0}` and `starling local wipe {0}` let it join anew",
            status.name
        ));
    }
    statuses.retain(|status| status.standing != NodeStanding::Left);
    let stays = |name: &NodeName| statuses.iter().any(|status| status.name == *name);
    (awake.into_iter().filter(stays).collect(), statuses)
}

/// The nodes that belong to no cluster while others do, and that the others' layout does not name: those that can join.
async fn strangers(cluster: &LocalCluster, statuses: &[NodeStatus]) -> Result<Vec<NodeName>, Failure> {
    let Some(member) = statuses.iter().find(|status| status.cluster.is_some()) else { return Ok(Vec::new()) };
    let (_, view) = control_of(cluster, &member.name).await?;
    let is_named = |name: &NodeName| view.layout.as_ref().is_some_and(|layout| layout.member_named(name).is_some());
    let unnamed = statuses.iter().filter(|status| status.cluster.is_none() && !is_named(&status.name));
    Ok(unnamed.map(|status| status.name.clone()).collect())
}

/// Has nodes join through one that is a member, and waits until they have their share of the data.
async fn join(
    cluster: &LocalCluster,
    statuses: &[NodeStatus],
    joining: &[NodeName],
    limit: Duration,
    out: &Out,
) -> Result<(), Failure> {
    let serves = |status: &&NodeStatus| status.cluster.is_some() && status.standing == NodeStanding::Serving;
    let member = statuses.iter().find(serves);
    let member = member.ok_or_else(|| Failure::failed("no member serves, so nobody can join"))?;
    let (control, view) = control_of(cluster, &member.name).await?;
    let told = |error: ClientError| Failure::from_client(error, Intent::Write(None), &Names::of_view(&view));
    if control.plan(limit).await.map_err(told)?.is_some() {
        let message = format!("{} cannot join: something else is staged on {}", joined(joining), member.name);
        return Err(Failure::failed(message).hint("`starling cluster commit` or `starling cluster unstage` it first"));
    }
    out.note(format!("{} joining …", joined(joining)));
    let changes = joining.iter().map(|name| Change::Join { name: name.clone(), weight: 1 }).collect();
    let plan = stage(&control, changes).await.map_err(told)?;
    let version = match commit(&control, &plan).await {
        Ok(Committed::Chosen(version)) => version,
        not_chosen => {
            // So that the same command can be run again.
            control.unstage(limit).await.map_err(told)?;
            not_chosen.map_err(told)?;
            return Err(Failure::failed("another change of the ring came first").hint("run the same command again"));
        }
    };
    wait_settled(&roster(&control, &view).await, &BTreeSet::new(), version, limit, out).await
}

async fn control_of(cluster: &LocalCluster, name: &NodeName) -> Result<(ControlClient, ClusterView), Failure> {
    let address = address_of(cluster, name)?;
    let answer = ControlClient::connect_any([address], STATUS_LIMIT).await;
    answer.map_err(|error| Failure::new(Kind::Unreachable, error.to_string()))
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
    let (control, _) = control_of(cluster, &through.name).await?;
    let made_before = through.cluster.is_some();
    let layout = init(&control, Init { members, ..rules }, limit).await.map_err(|failure| match made_before {
        true => failure.hint(
            "`starling cluster status` shows more; a node whose data was wiped comes back by itself, under its name",
        ),
        false => failure,
    })?;
    Ok(Some(layout.cluster().to_string()))
}
