use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::thread;

use starling_core::name::{NodeName, Zone};

use crate::error::{LocalError, failed_to};
use crate::launch::Lifetime;
use crate::lock::DirLock;
use crate::node_ref::NodeRef;
use crate::ports::{self, Reservation};
use crate::shape::{DEFAULT_BASE_PORT, Ports, Shape, consecutive};
use crate::state::State;
use crate::view::{ClusterView, NodeStatus, absolute};

/// A cluster on this machine, and the right to change it: no other command can as long as this value lives.
///
/// Its nodes go on when it is dropped, and when this process ends; [`LocalCluster::open`] finds them again.
#[derive(Debug)]
pub struct LocalCluster {
    pub(crate) view: ClusterView,
    /// The processes that this value started and has not waited for.
    pub(crate) children: BTreeMap<NodeName, Child>,
    /// How processes ended that this value started.
    pub(crate) exits: BTreeMap<NodeName, ExitStatus>,
    pub(crate) lifetime: Lifetime,
    _reserved: Vec<Reservation>,
    _lock: DirLock,
}

impl LocalCluster {
    /// Where the command line keeps its cluster: `$STARLING_LOCAL_DIR`, else `starling/local` in `$XDG_DATA_HOME`, else
    /// `~/.local/share/starling/local`.
    ///
    /// # Errors
    /// [`LocalError::NoHome`] if none of them is set.
    pub fn default_dir() -> Result<PathBuf, LocalError> {
        default_dir_from(|variable| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from))
    }

    /// Writes down a new cluster in `dir`, which is made if it is missing. Starts nothing.
    ///
    /// # Errors
    /// [`LocalError::Shape`]; [`LocalError::PortBusy`] if any node's port is taken; [`LocalError::Exists`];
    /// [`LocalError::Locked`].
    pub fn create(dir: impl AsRef<Path>, shape: Shape) -> Result<LocalCluster, LocalError> {
        LocalCluster::create_with(dir.as_ref(), shape, Lifetime::Independent)
    }

    pub(crate) fn create_with(dir: &Path, shape: Shape, lifetime: Lifetime) -> Result<LocalCluster, LocalError> {
        shape.check()?;
        let dir = absolute(dir)?;
        fs::create_dir_all(&dir).map_err(failed_to("make", &dir))?;
        let lock = DirLock::take(&dir)?;
        require_none(&dir)?;
        let (ports, reserved) = take_ports(&shape)?;
        let nodes = shape.nodes_on(&ports);
        let state = State::new(shape.launch.anchored(), nodes);
        state.save(&dir)?;
        Ok(LocalCluster::over(ClusterView { dir, state }, lifetime, reserved, lock))
    }

    /// # Errors
    /// [`LocalError::NoCluster`], [`LocalError::Locked`], [`LocalError::NewerFormat`] or [`LocalError::Malformed`].
    pub fn open(dir: impl AsRef<Path>) -> Result<LocalCluster, LocalError> {
        // Before the lock, whose file would be made in a folder that holds no cluster.
        ClusterView::read(&dir)?;
        let lock = DirLock::take(&absolute(dir.as_ref())?)?;
        let view = ClusterView::read(&dir)?;
        Ok(LocalCluster::over(view, Lifetime::Independent, Vec::new(), lock))
    }

    fn over(view: ClusterView, lifetime: Lifetime, reserved: Vec<Reservation>, lock: DirLock) -> LocalCluster {
        LocalCluster {
            view,
            children: BTreeMap::new(),
            exits: BTreeMap::new(),
            lifetime,
            _reserved: reserved,
            _lock: lock,
        }
    }

    /// Everything that can be asked without changing anything.
    pub fn view(&self) -> &ClusterView {
        &self.view
    }

    /// See [`ClusterView::status`].
    pub fn status(&self) -> Result<Vec<NodeStatus>, LocalError> {
        self.view.status()
    }

    /// See [`ClusterView::log_tail`].
    pub fn log_tail(&self, which: impl Into<NodeRef>, lines: usize) -> Result<Vec<String>, LocalError> {
        self.view.log_tail(which, lines)
    }

    /// Removes the cluster: all data and logs, and the cluster's file. Other files in the directory are left alone.
    ///
    /// # Errors
    /// [`LocalError::WipeWhileRunning`], with nothing removed; or that something cannot be removed, after which a
    /// further call goes on where this one ended.
    pub fn wipe(self) -> Result<(), LocalError> {
        let running = self.alive()?;
        if !running.is_empty() {
            return Err(LocalError::WipeWhileRunning { running });
        }
        // The cluster's file last: while data is left, it says whose it is.
        for name in self.view.names() {
            remove_folder(&self.view.folder(&name))?;
        }
        let _ = fs::remove_dir(self.view.dir.join("nodes"));
        State::remove(&self.view.dir)
    }

    /// Removes one node's data, as a lost disk does. The node stays a member of the cluster, and its log stays.
    ///
    /// # Errors
    /// [`LocalError::WipeWhileRunning`], with nothing removed; or that something cannot be removed.
    pub fn wipe_node(&mut self, which: impl Into<NodeRef>) -> Result<(), LocalError> {
        let name = self.view.resolve(which)?;
        if self.view.state(&name)?.is_alive() {
            return Err(LocalError::WipeWhileRunning { running: vec![name] });
        }
        remove_folder(&self.view.data_dir(&name)?)
    }

    /// Adds nodes until there are `nodes`, named, dealt to the zones and numbered like those that are there, on the ports
    /// behind theirs. Starts nothing; returns their names.
    ///
    /// # Errors
    /// [`LocalError::Shape`] if so many cannot be; [`LocalError::PortBusy`] if any port is taken; or that the cluster's file
    /// cannot be written.
    pub fn grow(&mut self, nodes: usize) -> Result<Vec<NodeName>, LocalError> {
        let there = &self.view.state.nodes;
        let missing = nodes.saturating_sub(there.len());
        if missing == 0 {
            return Ok(Vec::new());
        }
        let zones: BTreeSet<&Zone> = there.iter().map(|node| &node.zone).collect();
        let shape = Shape { nodes, zones: zones.len(), ports: Ports::Free, ..Shape::default() };
        shape.check()?;
        let last = there.iter().map(|node| node.address.port()).max().unwrap_or(DEFAULT_BASE_PORT - 1);
        let base = last.checked_add(1).unwrap_or(0);
        // The nodes that are there come first in a shape, whatever their ports.
        let ports: Vec<u16> = there.iter().map(|node| node.address.port()).chain(consecutive(base, missing)?).collect();
        let added = shape.nodes_on(&ports).split_off(there.len());
        ports::require_free(added.iter().map(|node| node.address).collect())?;
        let names = added.iter().map(|node| node.name.clone()).collect();
        self.view.state.nodes.extend(added);
        self.save()?;
        Ok(names)
    }

    /// The nodes that run or are paused.
    pub(crate) fn alive(&self) -> Result<Vec<NodeName>, LocalError> {
        let mut alive = Vec::new();
        for name in self.view.names() {
            if self.view.state(&name)?.is_alive() {
                alive.push(name);
            }
        }
        Ok(alive)
    }

    pub(crate) fn save(&self) -> Result<(), LocalError> {
        self.view.state.save(&self.view.dir)
    }
}

impl Drop for LocalCluster {
    /// Leaves the nodes running. They are still this process's children, and somebody has to wait for them lest they
    /// remain as zombies: a thread each, which ends with its node.
    fn drop(&mut self) {
        for (_, mut child) in std::mem::take(&mut self.children) {
            let _ = thread::Builder::new().name("reaper".to_owned()).spawn(move || child.wait());
        }
    }
}

fn default_dir_from(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf, LocalError> {
    if let Some(dir) = variable("STARLING_LOCAL_DIR") {
        return Ok(dir);
    }
    // The XDG base directory specification has relative paths ignored.
    let data = variable("XDG_DATA_HOME").filter(|path| path.is_absolute());
    let data = data.or_else(|| Some(variable("HOME")?.join(".local/share")));
    data.map(|data| data.join("starling/local")).ok_or(LocalError::NoHome)
}

fn require_none(dir: &Path) -> Result<(), LocalError> {
    match State::load(dir) {
        Err(LocalError::NoCluster { .. }) => Ok(()),
        Err(error) => Err(error),
        Ok(state) => Err(LocalError::Exists { dir: dir.to_owned(), nodes: state.nodes.len() }),
    }
}

fn take_ports(shape: &Shape) -> Result<(Vec<u16>, Vec<Reservation>), LocalError> {
    match shape.ports {
        Ports::From(base) => {
            let ports = consecutive(base, shape.nodes)?;
            ports::require_free(shape.nodes_on(&ports).iter().map(|node| node.address).collect())?;
            Ok((ports, Vec::new()))
        }
        Ports::Free => {
            let reserved = ports::reserve(shape.nodes)?;
            Ok((reserved.iter().map(|reservation| reservation.port).collect(), reserved))
        }
    }
}

fn remove_folder(path: &Path) -> Result<(), LocalError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(failed_to("remove", path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_directory_is_the_nearest_that_is_named() {
        let dir = |set: &[(&str, &str)]| {
            let value = |variable: &str| set.iter().find(|(name, _)| *name == variable).map(|(_, value)| value.into());
            default_dir_from(value).map(|dir| dir.display().to_string()).map_err(|error| error.to_string())
        };
        assert_eq!(dir(&[("STARLING_LOCAL_DIR", "here"), ("HOME", "/h")]).unwrap(), "here");
        assert_eq!(dir(&[("XDG_DATA_HOME", "/x"), ("HOME", "/h")]).unwrap(), "/x/starling/local");
        assert_eq!(dir(&[("XDG_DATA_HOME", "x"), ("HOME", "/h")]).unwrap(), "/h/.local/share/starling/local");
        assert!(dir(&[]).is_err());
    }
}
