//! What is done to the nodes' processes.

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Args;
use starling_core::name::NodeName;
use starling_local::{Exit, LocalCluster, LocalError, NodeRef, NodeState};

use crate::commands::local::wait::joined;
use crate::failure::Failure;
use crate::output::Out;
use crate::report::local::{DoneNode, DoneReport};

/// Said if the question is not answered with yes.
const KEPT: &str = "nothing was removed";

#[derive(Debug, Args)]
pub struct WipeArgs {
    /// Only the data of these nodes, which stay members
    #[arg(value_name = "NODE")]
    nodes: Vec<NodeRef>,
    /// Do not ask, even on a terminal
    #[arg(long, short)]
    yes: bool,
}

pub fn down(cluster: &mut LocalCluster, within: Duration) -> Result<DoneReport, Failure> {
    let alive: Vec<DoneNode> = present(cluster)?;
    cluster.stop_all(within)?;
    let exit = |node: DoneNode| DoneNode { exit: None, ..node };
    Ok(DoneReport { done: "stopped", nodes: alive.into_iter().map(exit).collect() })
}

pub fn kill(cluster: &mut LocalCluster, which: &[NodeRef]) -> Result<DoneReport, Failure> {
    each(cluster, "killed", which, |cluster, name| cluster.kill(name).map(Some))
}

pub fn pause(cluster: &mut LocalCluster, which: &[NodeRef]) -> Result<DoneReport, Failure> {
    each(cluster, "paused", which, |cluster, name| cluster.pause(name).map(|()| None))
}

pub fn resume(cluster: &mut LocalCluster, which: &[NodeRef]) -> Result<DoneReport, Failure> {
    each(cluster, "resumed", which, |cluster, name| cluster.resume(name).map(|()| None))
}

pub fn stop(cluster: &mut LocalCluster, which: &[NodeRef], within: Duration) -> Result<DoneReport, Failure> {
    each(cluster, "stopped", which, |cluster, name| cluster.stop(name, within).map(Some))
}

pub fn wipe(args: WipeArgs, mut cluster: LocalCluster, out: &Out) -> Result<DoneReport, Failure> {
    let ask = !args.yes && io::stdin().is_terminal() && io::stderr().is_terminal();
    if !args.nodes.is_empty() {
        let names = resolve(&cluster, &args.nodes)?;
        if ask {
            out.confirm(
                &format!("Remove all data of {}, which cannot come back into the cluster yet?", joined(&names)),
                KEPT,
            )?;
        }
        return each(&mut cluster, "wiped", &args.nodes, |cluster, name| cluster.wipe_node(name).map(|()| None));
    }
    let nodes = cluster.view().names().iter().map(|name| done(name, None, None)).collect();
    // With nodes that run it will be refused anyway.
    let possible = present(&cluster)?.is_empty();
    if possible && ask {
        let (dir, count) = (cluster.view().dir().display(), cluster.view().names().len());
        out.confirm(&format!("Remove {count} nodes and all their data in {dir}?"), KEPT)?;
    }
    cluster.wipe()?;
    Ok(DoneReport { done: "wiped", nodes })
}

/// Each node once, whatever it was called.
fn resolve(cluster: &LocalCluster, which: &[NodeRef]) -> Result<Vec<NodeName>, LocalError> {
    let mut names = Vec::new();
    for node in which {
        let name = cluster.view().resolve(node.clone())?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Does something to one node after another, after all of them were found. One that refuses ends it, with word of those
/// that it was done to.
fn each(
    cluster: &mut LocalCluster,
    what: &'static str,
    which: &[NodeRef],
    act: impl Fn(&mut LocalCluster, &NodeName) -> Result<Option<Exit>, LocalError>,
) -> Result<DoneReport, Failure> {
    let mut nodes: Vec<DoneNode> = Vec::new();
    for name in resolve(cluster, which)? {
        let pid = pid_of(cluster.view().state(&name)?);
        match act(cluster, &name) {
            Ok(exit) => nodes.push(done(&name, pid, exit)),
            Err(error) if nodes.is_empty() => return Err(error.into()),
            Err(error) => {
                let before: Vec<&str> = nodes.iter().map(|node| node.node.as_str()).collect();
                let failure = Failure::from(error);
                let message = format!("{}; {what} before that: {}", failure.message, before.join(", "));
                return Err(Failure { message, ..failure });
            }
        }
    }
    Ok(DoneReport { done: what, nodes })
}

fn present(cluster: &LocalCluster) -> Result<Vec<DoneNode>, Failure> {
    let mut nodes = Vec::new();
    for name in cluster.view().names() {
        let state = cluster.view().state(&name)?;
        if state.is_alive() {
            nodes.push(done(&name, pid_of(state), None));
        }
    }
    Ok(nodes)
}

/// An exit that is not known, because another command started the process, says nothing worth printing.
fn done(name: &NodeName, pid: Option<u32>, exit: Option<Exit>) -> DoneNode {
    let exit = exit.and_then(|exit| match exit {
        Exit::Status(status) => Some(status.to_string()),
        Exit::Unknown => None,
    });
    DoneNode { node: name.to_string(), pid, exit }
}

fn pid_of(state: NodeState) -> Option<u32> {
    match state {
        NodeState::Running { pid } | NodeState::Paused { pid } => Some(pid),
        NodeState::Stopped | NodeState::Died { .. } => None,
    }
}
