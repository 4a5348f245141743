use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use starling_core::name::{NodeName, Zone};

use crate::error::{LocalError, failed, failed_to};
use crate::log;
use crate::node_ref::NodeRef;
use crate::process::Process;
use crate::state::{Node, State};

/// A cluster as its directory tells it. Takes no lock and changes nothing: `status` and `logs` work while another
/// command runs, and see the state from when they began.
#[derive(Debug)]
pub struct ClusterView {
    pub(crate) dir: PathBuf,
    pub(crate) state: State,
}

/// One node, as `status` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    pub name: NodeName,
    pub zone: Zone,
    pub address: SocketAddr,
    pub state: NodeState,
    /// The lengths of all files in its data directory.
    pub data_bytes: u64,
    /// When its process was started, if it is there.
    pub since: Option<SystemTime>,
}

/// What is known of a node's process. That it runs does not say that it works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    Running {
        pid: u32,
    },
    /// By SIGSTOP, from us or from others.
    Paused {
        pid: u32,
    },
    /// Never started, or stopped or killed by us.
    Stopped,
    /// Was started with this pid and ended without our doing: it exited, crashed, was killed by somebody else, or the
    /// machine was rebooted. The pid may be another process by now.
    Died {
        pid: u32,
    },
}

impl NodeState {
    /// Running or paused.
    pub fn is_alive(self) -> bool {
        match self {
            NodeState::Running { .. } | NodeState::Paused { .. } => true,
            NodeState::Stopped | NodeState::Died { .. } => false,
        }
    }
}

impl ClusterView {
    /// # Errors
    /// [`LocalError::NoCluster`], [`LocalError::NewerFormat`] or [`LocalError::Malformed`].
    pub fn read(dir: impl AsRef<Path>) -> Result<ClusterView, LocalError> {
        let dir = absolute(dir.as_ref())?;
        let state = State::load(&dir)?;
        Ok(ClusterView { dir, state })
    }

    /// Absolute.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// All nodes in order, started or not.
    pub fn names(&self) -> Vec<NodeName> {
        self.state.nodes.iter().map(|node| node.name.clone()).collect()
    }

    /// All nodes' addresses in order, for a client to begin with.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.state.nodes.iter().map(|node| node.address).collect()
    }

    /// # Errors
    /// [`LocalError::UnknownNode`].
    pub fn resolve(&self, which: impl Into<NodeRef>) -> Result<NodeName, LocalError> {
        let which = which.into();
        let found = self.state.nodes.iter().enumerate().find(|(index, node)| match &which {
            NodeRef::Number(number) => *number == index + 1,
            NodeRef::Name(name) => *name == node.name,
        });
        found.map(|(_, node)| node.name.clone()).ok_or_else(|| self.unknown(&which))
    }

    /// Each node's state, in order.
    ///
    /// # Errors
    /// Only if `/proc` or a data directory cannot be read.
    pub fn status(&self) -> Result<Vec<NodeStatus>, LocalError> {
        self.state.nodes.iter().map(|node| self.status_of(node)).collect()
    }

    /// # Errors
    /// [`LocalError::UnknownNode`], or that `/proc` cannot be read.
    pub fn state(&self, which: impl Into<NodeRef>) -> Result<NodeState, LocalError> {
        let name = self.resolve(which)?;
        state_of(self.node(&name))
    }

    /// # Errors
    /// [`LocalError::UnknownNode`].
    pub fn data_dir(&self, which: impl Into<NodeRef>) -> Result<PathBuf, LocalError> {
        Ok(self.folder(&self.resolve(which)?).join("data"))
    }

    /// Where the node's output goes. Does not exist before its first start.
    ///
    /// # Errors
    /// [`LocalError::UnknownNode`].
    pub fn log_path(&self, which: impl Into<NodeRef>) -> Result<PathBuf, LocalError> {
        Ok(self.folder(&self.resolve(which)?).join("log"))
    }

    /// The last `lines` lines of the node's log, or fewer: the last MiB is all that is looked at. Each start begins
    /// with a line of ours that shows the command.
    ///
    /// # Errors
    /// [`LocalError::UnknownNode`], or that the log cannot be read.
    pub fn log_tail(&self, which: impl Into<NodeRef>, lines: usize) -> Result<Vec<String>, LocalError> {
        let path = self.log_path(which)?;
        log::tail(&path, lines).map_err(failed_to("read", &path))
    }

    pub(crate) fn folder(&self, name: &NodeName) -> PathBuf {
        self.dir.join("nodes").join(name.as_str())
    }

    /// `name` comes from [`ClusterView::resolve`].
    pub(crate) fn node(&self, name: &NodeName) -> &Node {
        self.state.nodes.iter().find(|node| node.name == *name).expect("resolved names are in the file")
    }

    pub(crate) fn node_mut(&mut self, name: &NodeName) -> &mut Node {
        self.state.nodes.iter_mut().find(|node| node.name == *name).expect("resolved names are in the file")
    }

    fn status_of(&self, node: &Node) -> Result<NodeStatus, LocalError> {
        let state = state_of(node)?;
        let data_dir = self.folder(&node.name).join("data");
        let started = node.process.as_ref().filter(|_| state.is_alive());
        Ok(NodeStatus {
            name: node.name.clone(),
            zone: node.zone.clone(),
            address: node.address,
            state,
            data_bytes: bytes_below(&data_dir).map_err(failed_to("read", &data_dir))?,
            since: started.map(|process| SystemTime::UNIX_EPOCH + Duration::from_secs(process.since)),
        })
    }

    fn unknown(&self, which: &NodeRef) -> LocalError {
        LocalError::UnknownNode { asked: which.to_string(), known: self.names() }
    }
}

/// The node's process, if it has one that has not ended.
pub(crate) fn open_process(node: &Node) -> Result<Option<Process>, LocalError> {
    let Some(started) = &node.process else { return Ok(None) };
    started.id.open().map_err(failed(format_args!("look for {} (pid {})", node.name, started.id.pid)))
}

fn state_of(node: &Node) -> Result<NodeState, LocalError> {
    let Some(started) = &node.process else { return Ok(NodeState::Stopped) };
    let pid = started.id.pid;
    let Some(process) = open_process(node)? else { return Ok(NodeState::Died { pid }) };
    let paused = process.is_paused().map_err(failed(format_args!("look at {} (pid {pid})", node.name)))?;
    Ok(if paused { NodeState::Paused { pid } } else { NodeState::Running { pid } })
}

pub(crate) fn absolute(dir: &Path) -> Result<PathBuf, LocalError> {
    std::path::absolute(dir).map_err(failed_to("find", dir))
}

/// A storage engine deletes files while we walk: what is gone has no bytes.
fn bytes_below(path: &Path) -> io::Result<u64> {
    let gone_is_empty = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Ok(0),
        _ => Err(error),
    };
    fs::symlink_metadata(path)
        .and_then(|metadata| if metadata.is_dir() { bytes_of_entries(path) } else { Ok(metadata.len()) })
        .or_else(gone_is_empty)
}

fn bytes_of_entries(dir: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        sum += bytes_below(&entry?.path())?;
    }
    Ok(sum)
}
