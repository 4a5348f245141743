//! Waiting for nodes that were started: each wait has a limit, and says what it has seen last.

use std::time::{Duration, Instant};

use starling_client::ControlClient;
use starling_core::name::NodeName;
use starling_local::LocalCluster;
use starling_proto::control::{NodeStanding, NodeStatus};

use crate::commands::node::status_of;
use crate::failure::Failure;
use crate::report::cluster::state;
use crate::session::STATUS_LIMIT;

/// Nodes are asked this often.
const EVERY: Duration = Duration::from_millis(50);
/// How many lines of a dead node's log are shown.
const LAST_WORDS: usize = 5;

/// Asks until every node of `names` answers and is `ready`.
pub async fn wait_until(
    cluster: &mut LocalCluster,
    names: &[NodeName],
    limit: Duration,
    what: &str,
    ready: impl Fn(&NodeStatus) -> bool,
) -> Result<Vec<NodeStatus>, Failure> {
    let deadline = Instant::now() + limit;
    let mut statuses = Vec::new();
    for name in names {
        let address = address_of(cluster, name)?;
        loop {
            if let Some(exit) = cluster.exited(name)? {
                return Err(ended(cluster, name, &exit.to_string()));
            }
            let answer = status_of(&address).await;
            if let Some(failure) = answer.as_ref().ok().and_then(|status| hopeless(cluster, status)) {
                return Err(failure);
            }
            if answer.as_ref().is_ok_and(&ready) {
                statuses.extend(answer);
                break;
            }
            if Instant::now() >= deadline {
                return Err(late(cluster, name, limit, what, &answer));
            }
            tokio::time::sleep(EVERY).await;
        }
    }
    Ok(statuses)
}

pub fn address_of(cluster: &LocalCluster, name: &NodeName) -> Result<String, Failure> {
    let status = cluster.view().status()?.into_iter().find(|status| status.name == *name);
    status.map(|status| status.address.to_string()).ok_or_else(|| Failure::failed(format!("no address of {name}")))
}

/// No patience makes these serve.
fn hopeless(cluster: &LocalCluster, status: &NodeStatus) -> Option<Failure> {
    let name = &status.name;
    match &status.standing {
        NodeStanding::Failed(reason) => {
            Some(Failure::failed(format!("{name} does not serve: {reason}")).hint(see_log(cluster, name)))
        }
        // A directory that has come in the place of a lost one is excluded until it is registered.
        NodeStanding::Excluded(_)
        | NodeStanding::Uninitialised
        | NodeStanding::Serving
        | NodeStanding::Stopping
        | NodeStanding::Left => None,
    }
}

fn late(
    cluster: &LocalCluster,
    name: &NodeName,
    limit: Duration,
    what: &str,
    answer: &Result<NodeStatus, String>,
) -> Failure {
    let last = match answer {
        Ok(status) => {
            let (state, reason) = state(status);
            format!("it is {state}{}", reason.map(|reason| format!(": {reason}")).unwrap_or_default())
        }
        Err(reason) => reason.clone(),
    };
    let message = format!("{name} is started, but not yet so far that it {what} after {} s: {last}", limit.as_secs());
    with_last_words(cluster, name, message)
}

fn ended(cluster: &LocalCluster, name: &NodeName, exit: &str) -> Failure {
    with_last_words(cluster, name, format!("{name} was started and has ended ({exit})"))
}

fn with_last_words(cluster: &LocalCluster, name: &NodeName, message: String) -> Failure {
    let words = cluster.log_tail(name, LAST_WORDS).unwrap_or_default();
    let words: String = words.iter().map(|line| format!("\n  {line}")).collect();
    Failure::failed(format!("{message}; its log ends with{words}")).hint(see_log(cluster, name))
}

fn see_log(cluster: &LocalCluster, name: &NodeName) -> String {
    let dir = dir_flag(cluster);
    format!("`starling local logs {name}{dir}` shows more; `starling local down{dir}` stops what runs")
}

/// What has to follow a command for it to find this cluster.
fn dir_flag(cluster: &LocalCluster) -> String {
    let dir = cluster.view().dir();
    match LocalCluster::default_dir() {
        Ok(default) if default == dir => String::new(),
        _ => format!(" --dir {}", dir.display()),
    }
}

/// Waits until one node takes all others for alive.
pub async fn wait_acquainted(cluster: &LocalCluster, names: &[NodeName], limit: Duration) -> Result<(), Failure> {
    let Some(first) = names.first() else { return Ok(()) };
    let address = address_of(cluster, first)?;
    let deadline = Instant::now() + limit;
    loop {
        let missing = unseen_by(&address, first, names).await;
        if missing.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let message = format!("{first} does not see {} after {} s", joined(&missing), limit.as_secs());
            return Err(Failure::failed(message).hint("gossip runs over UDP on the nodes' ports: is it filtered?"));
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Waits until each of the nodes has a connection to that many others: the first request meets a cluster that is whole.
pub async fn wait_connected(
    cluster: &mut LocalCluster,
    names: &[NodeName],
    others: usize,
    limit: Duration,
) -> Result<(), Failure> {
    wait_until(cluster, names, limit, "is connected to the others", |status| status.connected.len() >= others).await?;
    Ok(())
}

async fn unseen_by(address: &str, first: &NodeName, names: &[NodeName]) -> Vec<NodeName> {
    let asked = async { ControlClient::connect(address).await?.cluster(STATUS_LIMIT).await };
    let Ok(view) = asked.await else { return names.to_vec() };
    let sees = |name: &NodeName| view.peers.iter().any(|peer| peer.alive && peer.name == *name);
    names.iter().filter(|name| *name != first && !sees(name)).cloned().collect()
}

pub fn joined(names: &[NodeName]) -> String {
    names.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ")
}
