//! The cluster as this node sees it at one moment.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use starling_core::ids::NodeId;
use starling_core::name::NodeName;
use tokio::time::Instant;

use crate::announcement::Announcement;
use crate::encoding::Unreadable;

/// The cluster as this node sees it at one moment. A hint, never a proof.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// Every node that was heard of and understood and is not yet forgotten, this one included.
    pub peers: BTreeMap<NodeId, Peer>,
    /// The nodes that are alive and not understood: their announcement is still on its way, or makes no sense here.
    pub unreadable: BTreeMap<NodeId, Unreadable>,
    /// What cannot be true of a healthy cluster.
    pub conflicts: Vec<Conflict>,
}

/// A node, in its current run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub node: NodeId,
    pub seen: RunSeen,
    pub announcement: Arc<Announcement>,
    pub alive: bool,
    /// Since when it is alive, or is not, by the clock of this process. What was dead when this node first heard of it
    /// has been so since then.
    pub since: Instant,
}

/// A run of a node as gossip knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunSeen {
    pub generation: u64,
    /// Where the run listens for gossip, which is not where it serves.
    pub gossip: SocketAddr,
}

/// Two that claim to be one. Gossip only tells; what to do is decided by those who exchange `hello`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conflict {
    /// Several live runs of one node: with one generation, or with different ones for longer than a restart takes. A
    /// data directory was copied.
    Runs { node: NodeId, runs: Vec<RunSeen> },
    /// Several live nodes with one name.
    Name { name: NodeName, nodes: Vec<NodeId> },
}

impl View {
    pub fn peer(&self, node: NodeId) -> Option<&Peer> {
        self.peers.get(&node)
    }

    /// False also for a node that nothing was heard of.
    pub fn is_alive(&self, node: NodeId) -> bool {
        self.peer(node).is_some_and(|peer| peer.alive)
    }

    pub fn live(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values().filter(|peer| peer.alive)
    }

    /// The live nodes that may hold hints for `node`, perhaps this one among them, ascending. A node whose targets are
    /// too many to name is taken to hold some for any other.
    pub fn holders_of_hints_for(&self, node: NodeId) -> Vec<NodeId> {
        let holders = self.live().filter(|peer| peer.node != node && peer.announcement.hints_for.may_include(node));
        holders.map(|peer| peer.node).collect()
    }

    /// The node of this name. Of several, a live one; of those or without one, the one that came to be so last.
    pub fn by_name(&self, name: &NodeName) -> Option<&Peer> {
        let namesakes = self.peers.values().filter(|peer| peer.announcement.name == *name);
        namesakes.max_by_key(|peer| (peer.alive, peer.since))
    }
}
