//! How nodes come to run.

use std::fs;
use std::net::SocketAddr;
use std::process::Child;
use std::time::{SystemTime, UNIX_EPOCH};

use starling_core::name::NodeName;

use crate::binary::find_binary;
use crate::cluster::LocalCluster;
use crate::error::{LocalError, failed, failed_to};
use crate::launch::{Launch, Start};
use crate::log;
use crate::node_ref::NodeRef;
use crate::ports;
use crate::process::ProcessId;
use crate::state::{StartedProcess, State};
use crate::view::NodeState;

impl LocalCluster {
    /// What is added to the start of nodes from now on. The ones that run are left as they are.
    ///
    /// # Errors
    /// Only if the cluster's file cannot be written.
    pub fn set_launch(&mut self, launch: Launch) -> Result<(), LocalError> {
        self.view.state.launch = launch.anchored();
        self.save()
    }

    /// Starts a node's process and returns its pid. Does not wait until it serves, nor notice that it exits at once:
    /// for that see [`LocalCluster::exited`].
    ///
    /// # Errors
    /// [`LocalError::AlreadyRunning`] or [`LocalError::AlreadyPaused`]; [`LocalError::PortBusy`];
    /// [`LocalError::NoBinary`]; or that the process cannot be started, or could not be noted (then it was killed
    /// again).
    pub fn start(&mut self, which: impl Into<NodeRef>) -> Result<u32, LocalError> {
        let name = self.view.resolve(which)?;
        match self.view.state(&name)? {
            NodeState::Running { pid } => return Err(LocalError::AlreadyRunning { name, pid }),
            NodeState::Paused { pid } => return Err(LocalError::AlreadyPaused { name, pid }),
            NodeState::Stopped | NodeState::Died { .. } => {}
        }
        ports::require_free(vec![self.view.node(&name).address])?;
        self.forget_exit(&name)?;
        let child = self.spawn(&name)?;
        self.adopt(name, child)
    }

    /// Starts every node that is not running, in order, and returns their names. A paused node stays paused. If a port is
    /// taken none is started; after another error the ones before it are running.
    ///
    /// # Errors
    /// As [`LocalCluster::start`].
    pub fn start_all(&mut self) -> Result<Vec<NodeName>, LocalError> {
        let mut down = Vec::new();
        for name in self.view.names() {
            if !self.view.state(&name)?.is_alive() {
                down.push(name);
            }
        }
        // All or none: half of a cluster would be left behind a port that is taken.
        ports::require_free(down.iter().map(|name| self.view.node(name).address).collect())?;
        for name in &down {
            self.start(name)?;
        }
        Ok(down)
    }

    fn spawn(&self, name: &NodeName) -> Result<Child, LocalError> {
        let State { launch, nodes, .. } = &self.view.state;
        let binary = find_binary(launch.binary.as_deref())?;
        let (folder, data_dir) = (self.view.folder(name), self.view.data_dir(name)?);
        fs::create_dir_all(&data_dir).map_err(failed_to("make", &data_dir))?;
        let log_path = self.view.log_path(name)?;
        let log = log::open(&log_path).map_err(failed_to("open", &log_path))?;
        let seeds = joined(nodes.iter().map(|node| node.address));
        let start = Start { binary: &binary, node: self.view.node(name), seeds, folder: &folder, data_dir: &data_dir };
        start.spawn(launch, self.lifetime, log).map_err(failed_to("start", &binary))
    }

    /// Notes a new process. One that cannot be noted is killed: nobody would find it again.
    fn adopt(&mut self, name: NodeName, mut child: Child) -> Result<u32, LocalError> {
        let pid = child.id();
        if let Err(error) = self.note_start(&name, pid) {
            self.view.node_mut(&name).process = None;
            let _ = child.kill();
            let _ = child.wait();
            return Err(error);
        }
        self.children.insert(name, child);
        Ok(pid)
    }

    fn note_start(&mut self, name: &NodeName, pid: u32) -> Result<(), LocalError> {
        let id = ProcessId::of(pid).map_err(failed(format_args!("look at {name} (pid {pid})")))?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.view.node_mut(name).process = Some(StartedProcess { id, since });
        self.save()
    }
}

fn joined(addresses: impl Iterator<Item = SocketAddr>) -> String {
    addresses.map(|address| address.to_string()).collect::<Vec<_>>().join(",")
}
