//! Names for everything that has only a number: the transcript is for people.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use rand::RngExt as _;
use starling_core::clock::{Clock, Dot, History};
use starling_core::ids::{DirectoryId, NodeId, RequestId};
use starling_core::name::ObjectKey;
use starling_core::object::{Object, Value};
use starling_storage::Identity;

use crate::kernel::entropy::stream;
use crate::kernel::network::HostId;
use crate::kernel::time::Moment;
use crate::plan::Plan;

/// Longer values are not told.
const LONG: usize = 64;

/// Who is who in a run: the identity that each node has, and the one it gets with an empty disk.
pub struct Names {
    first: Vec<Identity>,
    second: Vec<Identity>,
    clients: usize,
    nodes: BTreeMap<NodeId, String>,
    directories: RwLock<BTreeMap<DirectoryId, String>>,
}

impl Names {
    pub fn of(plan: &Plan) -> Names {
        let mut chance = stream(plan.seed, "identities");
        let mut identities = |_| {
            let mut identity = |index: usize| Identity {
                name: format!("n{}", index + 1).parse().expect("a valid name"),
                node: NodeId(chance.random()),
                directory: DirectoryId(chance.random()),
            };
            (0..plan.nodes).map(&mut identity).collect::<Vec<Identity>>()
        };
        let (first, second) = (identities(1), identities(2));
        let marked = |identities: &[Identity], mark: &str| -> Vec<(Identity, String)> {
            identities.iter().map(|identity| (identity.clone(), format!("{}{mark}", identity.name))).collect()
        };
        let all: Vec<(Identity, String)> = marked(&first, "").into_iter().chain(marked(&second, "'")).collect();
        Names {
            clients: plan.clients,
            nodes: all.iter().map(|(identity, name)| (identity.node, name.clone())).collect(),
            directories: RwLock::new(all.iter().map(|(identity, name)| (identity.directory, name.clone())).collect()),
            first,
            second,
        }
    }

    pub fn members(&self) -> &[Identity] {
        &self.first
    }

    /// Who a node is at first.
    pub fn identity(&self, host: HostId) -> &Identity {
        &self.first[host.0]
    }

    /// Who it is once its disk was taken away.
    pub fn after_wipe(&self, host: HostId) -> &Identity {
        &self.second[host.0]
    }

    pub fn host(&self, host: HostId) -> String {
        self::host(host, self.first.len(), self.clients)
    }

    pub fn node(&self, node: NodeId) -> String {
        self.nodes.get(&node).cloned().unwrap_or_else(|| node.to_string())
    }

    pub fn directories(&self) -> BTreeMap<DirectoryId, String> {
        self.directories.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A node has drawn another directory for itself.
    pub fn note_directory(&self, identity: &Identity) {
        let mut directories = self.directories.write().unwrap_or_else(PoisonError::into_inner);
        directories.insert(identity.directory, format!("{}''", identity.name));
    }

    pub fn history(&self, history: &History) -> String {
        let directory = history.directory;
        let directories = self.directories.read().unwrap_or_else(PoisonError::into_inner);
        let owner = directories.get(&directory).cloned().unwrap_or_else(|| directory.to_string());
        // Four digits tell the few births of a key apart.
        format!("{owner}/{:04x}", history.birth.0 >> 48)
    }

    pub fn dot(&self, dot: &Dot) -> String {
        format!("{}:{}", self.history(&dot.history), dot.counter)
    }

    pub fn clock(&self, clock: &Clock) -> String {
        let entries: Vec<String> =
            clock.entries().map(|(history, counter)| format!("{}:{counter}", self.history(history))).collect();
        format!("{{{}}}", entries.join(" "))
    }

    /// Its siblings, then its clock.
    pub fn object(&self, object: &Object) -> String {
        let siblings: Vec<String> = object
            .siblings()
            .iter()
            .map(|sibling| format!("{}@{}", value(&sibling.value), self.dot(&sibling.dot)))
            .collect();
        format!("[{}] {}", siblings.join(", "), self.clock(object.clock()))
    }
}

/// Nodes come first, then clients, then whoever administers.
pub fn host(host: HostId, nodes: usize, clients: usize) -> String {
    match host.0.checked_sub(nodes) {
        None => format!("n{}", host.0 + 1),
        Some(client) if client < clients => format!("c{}", client + 1),
        Some(_) => "op".to_owned(),
    }
}

pub fn value(value: &Value) -> String {
    match value {
        Value::Live(bytes) if bytes.len() > LONG => format!("{} bytes", bytes.len()),
        Value::Live(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Expiring { bytes, until } => {
            let until = until.0.saturating_sub(Moment::default().wall().0);
            format!("{} until {}.{:03}", self::value(&Value::Live(bytes.clone())), until / 1000, until % 1000)
        }
        Value::Tombstone => "deleted".to_owned(),
    }
}

/// As much of a request's id as tells the few of a run apart.
pub fn request(request: RequestId) -> String {
    format!("{:08x}", request.0 >> 96)
}

pub fn key(key: &ObjectKey) -> String {
    format!("{}/{}", key.bucket(), String::from_utf8_lossy(key.key()))
}
