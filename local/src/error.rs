use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use starling_core::name::NodeName;

use crate::ports::PortBusy;
use crate::shape::InvalidShape;
use crate::state::FORMAT;

/// Why a command on a local cluster was refused or failed, and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error("there is no cluster in {}: create one with `starling local up`", dir.display())]
    NoCluster { dir: PathBuf },
    #[error("{} already holds a cluster of {nodes} nodes: use it, or remove it and its data with `starling local wipe`", dir.display())]
    Exists { dir: PathBuf, nodes: usize },
    #[error("another command{} is changing the cluster in {}: try again when it has ended", by_pid(*holder), dir.display())]
    Locked { dir: PathBuf, holder: Option<u32> },
    #[error("{} has format {found}, and this program reads formats up to {FORMAT}: use the newer `starling` that wrote it", path.display())]
    NewerFormat { path: PathBuf, found: u32 },
    #[error("{} cannot be understood: repair it, or stop the nodes by hand and delete it and the folder `nodes` beside it", path.display())]
    Malformed { path: PathBuf, source: Box<toml::de::Error> },
    #[error(
        "no place for a local cluster: neither STARLING_LOCAL_DIR, XDG_DATA_HOME nor HOME is set; set one, or name a directory"
    )]
    NoHome,
    #[error(transparent)]
    Shape(#[from] InvalidShape),
    #[error(transparent)]
    PortBusy(#[from] PortBusy),
    #[error("found only {found} of {wanted} free ports in {from}..{to}: stop other test clusters")]
    NoFreePorts { found: usize, wanted: usize, from: u16, to: u16 },
    #[error("there is no node `{asked}`: this cluster has {}", listed(known))]
    UnknownNode { asked: String, known: Vec<NodeName> },
    #[error("{name} is already running (pid {pid}): nothing to start")]
    AlreadyRunning { name: NodeName, pid: u32 },
    #[error("{name} is already there, but paused (pid {pid}): `starling local resume {name}` lets it go on")]
    AlreadyPaused { name: NodeName, pid: u32 },
    #[error("{name} is running (pid {pid}), not paused: nothing to resume")]
    NotPaused { name: NodeName, pid: u32 },
    #[error("{name} is not running{}: `starling local start {name}` starts it", own_end(name, *died))]
    NotRunning {
        name: NodeName,
        /// The process that was last started, if it ended without having been told to by this crate.
        died: Option<u32>,
    },
    #[error("{} still running after {} ms: wait longer, or use `starling local kill`", with_verb(running), waited.as_millis())]
    StillRunning { running: Vec<NodeName>, waited: Duration },
    #[error("{name} (pid {pid}) has not {} after {} ms: it may be stuck in the kernel, see `ps -o pid,stat,wchan {pid}`", if *paused { "paused" } else { "resumed" }, waited.as_millis())]
    Unsettled { name: NodeName, pid: u32, paused: bool, waited: Duration },
    #[error("{} still running: first run `starling local stop`, or `starling local down` for all", with_verb(running))]
    WipeWhileRunning { running: Vec<NodeName> },
    #[error(
        "no starling-node to run; looked at {looked_at}. Build it with `cargo build -p starling-node`, or set STARLING_NODE_BIN"
    )]
    NoBinary { looked_at: String },
    #[error("cannot {doing}")]
    Io { doing: String, source: io::Error },
}

/// For `map_err`: "cannot {verb} {path}".
pub(crate) fn failed_to(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> LocalError {
    move |source| LocalError::Io { doing: format!("{verb} {}", path.display()), source }
}

/// For `map_err`: "cannot {doing}".
pub(crate) fn failed(doing: impl fmt::Display) -> impl FnOnce(io::Error) -> LocalError {
    move |source| LocalError::Io { doing: doing.to_string(), source }
}

fn by_pid(holder: Option<u32>) -> String {
    holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

fn own_end(name: &NodeName, pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid} ended on its own, see `starling local logs {name}`)")).unwrap_or_default()
}

fn listed(names: &[NodeName]) -> String {
    let names: Vec<&str> = names.iter().map(NodeName::as_str).collect();
    names.join(", ")
}

fn with_verb(names: &[NodeName]) -> String {
    format!("{} {}", listed(names), if names.len() == 1 { "is" } else { "are" })
}
