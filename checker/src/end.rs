//! What is left when faults have healed and writers have stopped.

use std::collections::{BTreeMap, BTreeSet};

use starling_core::clock::Clock;
use starling_core::ids::NodeId;
use starling_core::name::ObjectKey;

use crate::operation::{Acknowledgement, ValueId};

/// Every replica read by itself, every hint, every disk that was lost on the way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FinalState {
    /// All members that may hold the key, not only its primaries.
    pub replicas: BTreeMap<ObjectKey, Vec<Replica>>,
    pub hints: Vec<HeldHints>,
    pub lost_disks: Vec<LostDisk>,
    /// When the replicas were looked at, by the clock of the history. Only values that expire make it matter.
    pub at: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    pub node: NodeId,
    pub is_primary: bool,
    /// None if the node holds nothing of the key, not even a tombstone.
    pub holds: Option<OwnCopy>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnCopy {
    pub clock: Clock,
    /// The live siblings as a reader of this replica alone would see them.
    pub values: Vec<ValueId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldHints {
    pub holder: NodeId,
    pub target: NodeId,
    pub count: u64,
}

/// A disk that forgot what it had acknowledged: wiped, rolled back, or excluded for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostDisk {
    pub node: NodeId,
    /// A write that was invoked later is on the disk that came after it.
    pub at: u64,
    pub since: Since,
}

/// What became of the node whose disk was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// It is not part of the cluster, or has not been filled again: nothing is expected of it.
    Away,
    /// It was filled again, and has to hold what the others do.
    Filled,
    /// It went on with what the disk had held at this time, and nobody could tell: a hot copy of a running directory.
    RolledBack(u64),
}

/// When an operation was invoked, and when it ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub invoked: u64,
    pub ended: u64,
}

impl LostDisk {
    /// Something done in that time may have been on it, and is not any more.
    fn took(&self, span: Span) -> bool {
        let is_still_there = matches!(self.since, Since::RolledBack(to) if span.ended <= to);
        span.invoked < self.at && !is_still_there
    }
}

impl FinalState {
    pub(crate) fn replicas_of(&self, key: &ObjectKey) -> &[Replica] {
        self.replicas.get(key).map_or(&[], Vec::as_slice)
    }

    /// Nobody expects anything of this node.
    pub(crate) fn is_away(&self, node: NodeId) -> bool {
        self.lost_disks.iter().any(|lost| lost.node == node && lost.since == Since::Away)
    }

    /// The nodes that lost a disk with what may have been done on it in that time.
    fn lost_after(&self, span: Span) -> BTreeSet<NodeId> {
        self.lost_disks.iter().filter(|lost| lost.took(span)).map(|lost| lost.node).collect()
    }

    /// How many of a key's primaries took an operation, went back behind it, and answer all the same. `stored_by` is empty
    /// if it is not known who took it.
    pub(crate) fn rolled_back(&self, span: Span, stored_by: &[NodeId], replicas: &[Replica]) -> u8 {
        let answers = |lost: &&LostDisk| matches!(lost.since, Since::RolledBack(_)) && lost.took(span);
        let had_it = |node: &NodeId| stored_by.is_empty() || stored_by.contains(node);
        let is_primary = |node: &NodeId| replicas.iter().any(|replica| replica.node == *node && replica.is_primary);
        let nodes: BTreeSet<NodeId> = self.lost_disks.iter().filter(answers).map(|lost| lost.node).collect();
        let count = nodes.iter().filter(|node| had_it(node) && is_primary(node)).count();
        u8::try_from(count).unwrap_or(u8::MAX)
    }

    /// Whether so many of the disks that took this write are lost that no promise is left of it: `enough` of those that
    /// had it when it was acknowledged, or all of the key's primaries, to which it has gone since.
    pub(crate) fn lost_with_disks(
        &self,
        acknowledgement: &Acknowledgement,
        span: Span,
        enough: u8,
        replicas: &[Replica],
    ) -> bool {
        let lost = self.lost_after(span);
        if lost.is_empty() {
            return false;
        }
        let of_those_that_took_it = match acknowledgement.stored_by.as_slice() {
            [] => lost.len(),
            stored_by => {
                stored_by.iter().collect::<BTreeSet<_>>().into_iter().filter(|node| lost.contains(node)).count()
            }
        };
        let mut primaries = replicas.iter().filter(|replica| replica.is_primary).peekable();
        let all_primaries = primaries.peek().is_some() && primaries.all(|replica| lost.contains(&replica.node));
        of_those_that_took_it >= usize::from(enough) || all_primaries
    }

    /// Whether `enough` disks are lost of any nodes, with what was done in that time.
    pub(crate) fn lost_anywhere(&self, span: Span, enough: u8) -> bool {
        let lost = self.lost_after(span);
        !lost.is_empty() && lost.len() >= usize::from(enough)
    }
}
