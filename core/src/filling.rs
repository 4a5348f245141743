//! Filling up again (R8): what a directory lacks that stands for a member in the place of one that was lost.
//!
//! It takes writes at once, and they count. What was acknowledged before it came, by the lost one and others, it has only
//! once it has compared itself with every other primary: with all of them, since any may be the only other one that has a
//! write. So of each partition it remembers with whom that is done, and until it is done with all it counts neither for
//! reads nor for listings, and leaves coordinating to whoever is complete.
//!
//! A comparison counts only if its peer has adopted the epoch in which the directory was registered: from then on the peer
//! takes no write that counted the lost one. That is the same fence as for a copy (R16). Those with whom it has to be
//! compared are the primaries by the layout that is read; who becomes one later has copied what the earlier ones had. Who is
//! declared dead is not waited for, and those that are filling too are asked like all others: they may have taken writes.

use std::collections::{BTreeMap, BTreeSet};

use crate::fault::{self, Fault};
use crate::ids::NodeId;
use crate::ring::Ring;
use crate::token::Partition;

/// The partitions that are not full yet, each with those with whom it has been compared.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filling(BTreeMap<Partition, BTreeSet<NodeId>>);

impl Filling {
    /// Of a directory that begins to stand for a member. What that member is about to become a primary of is copied, as by
    /// everybody (R16).
    pub fn begin(ring: &Ring, node: NodeId) -> Filling {
        let own = ring.read().partitions().all().filter(|partition| others(ring, node, *partition).is_some());
        Filling(own.map(|partition| (partition, BTreeSet::new())).collect())
    }

    /// As it was made durable.
    pub fn from_parts(compared: BTreeMap<Partition, BTreeSet<NodeId>>) -> Filling {
        Filling(compared)
    }

    pub fn is_filling(&self, partition: Partition) -> bool {
        self.0.contains_key(&partition)
    }

    /// Ascending.
    pub fn partitions(&self) -> impl Iterator<Item = Partition> {
        self.0.keys().copied()
    }

    /// With whom a partition that is filling has been compared.
    pub fn compared(&self, partition: Partition) -> Option<&BTreeSet<NodeId>> {
        self.0.get(&partition)
    }

    /// With whom each partition is still to be compared.
    pub fn left(&self, ring: &Ring, node: NodeId) -> BTreeMap<Partition, BTreeSet<NodeId>> {
        let left = self.0.iter().map(|(partition, compared)| {
            let others = others(ring, node, *partition).unwrap_or_default();
            (*partition, others.difference(compared).copied().collect())
        });
        left.collect()
    }

    /// A partition has been compared with a peer, and whatever that had is durable here.
    pub fn note(&mut self, partition: Partition, peer: NodeId) {
        if let Some(compared) = self.0.get_mut(&partition) {
            compared.insert(peer);
        }
    }

    /// Takes out the partitions that are full, or none of the node's any more.
    pub fn take_full(&mut self, ring: &Ring, node: NodeId) -> Vec<Partition> {
        let is_full = |partition: &Partition, compared: &BTreeSet<NodeId>| {
            let others = others(ring, node, *partition).unwrap_or_default();
            others.is_subset(compared) || (!compared.is_empty() && fault::is_on(Fault::FillFromOne))
        };
        let full = self.0.iter().filter(|(partition, compared)| is_full(partition, compared));
        let full: Vec<Partition> = full.map(|(partition, _)| *partition).collect();
        full.iter().for_each(|partition| drop(self.0.remove(partition)));
        full
    }
}

/// The other primaries of a partition by the layout that is read, without those declared dead; none if the node is no
/// primary of it.
fn others(ring: &Ring, node: NodeId, partition: Partition) -> Option<BTreeSet<NodeId>> {
    let layout = ring.read();
    let primaries: BTreeSet<NodeId> = layout.primaries(partition, layout.replicas()).collect();
    let others = primaries.iter().copied().filter(|other| *other != node && !ring.is_dead(*other));
    primaries.contains(&node).then(|| others.collect())
}
