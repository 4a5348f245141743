//! The preference list of a key (Dynamo, section 4.3): its primaries, then everybody who may stand in for them. While the
//! layout changes there are several layouts in effect, and primaries in each.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::attempt::Candidate;
use crate::fault::{self, Fault};
use crate::ids::NodeId;
use crate::quorum::Tally;
use crate::token::Partition;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreferenceList {
    partition: Partition,
    primaries: Vec<NodeId>,
    fallbacks: Vec<NodeId>,
}

impl PreferenceList {
    pub(crate) fn new(partition: Partition, primaries: Vec<NodeId>, fallbacks: Vec<NodeId>) -> PreferenceList {
        PreferenceList { partition, primaries, fallbacks }
    }

    pub fn partition(&self) -> Partition {
        self.partition
    }

    pub fn primaries(&self) -> &[NodeId] {
        &self.primaries
    }

    pub fn fallbacks(&self) -> &[NodeId] {
        &self.fallbacks
    }

    /// Primaries and fallbacks, each with what `describe` knows of the node.
    pub fn candidates(&self, describe: impl Fn(NodeId) -> Candidate) -> (Vec<Candidate>, Vec<Candidate>) {
        let of = |nodes: &[NodeId]| nodes.iter().map(|node| describe(*node)).collect();
        (of(&self.primaries), of(&self.fallbacks))
    }

    pub fn is_primary(&self, node: NodeId) -> bool {
        self.primaries.contains(&node)
    }
}

/// Where a key lives in all layouts in effect.
///
/// A node counts towards a write's quorum in a layout if it is a primary there, or if it may not drop its copy before one
/// of that layout's primaries has confirmed it. So that every copy counts in every layout, a node owes confirmations to
/// primaries of each layout in which it is none: [`Preference::owed_by`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preference {
    /// The primaries in each layout that is written, oldest layout first.
    written: Vec<Vec<NodeId>>,
    /// Which of them is read.
    read: usize,
    reads: PreferenceList,
    /// Of writes: who is no primary anywhere, and stays.
    fallbacks: Vec<NodeId>,
}

impl Preference {
    /// `reads` by the layout that is read, `newest` by the newest one.
    pub(crate) fn new(
        written: Vec<Vec<NodeId>>,
        read: usize,
        reads: PreferenceList,
        newest: PreferenceList,
    ) -> Preference {
        let in_order = newest.primaries.into_iter().chain(newest.fallbacks);
        let fallbacks = in_order.filter(|node| !written.iter().any(|primaries| primaries.contains(node))).collect();
        Preference { written, read, reads, fallbacks }
    }

    pub fn partition(&self) -> Partition {
        self.reads.partition
    }

    /// By the layout that is read.
    pub fn reads(&self) -> &PreferenceList {
        &self.reads
    }

    /// The primaries in each layout that is written, oldest layout first.
    pub fn written(&self) -> &[Vec<NodeId>] {
        &self.written
    }

    /// Everybody who is a primary somewhere: first those that are read.
    pub fn primaries(&self) -> Vec<NodeId> {
        let mut met = BTreeSet::new();
        let all = self.written[self.read].iter().chain(self.written.iter().flatten());
        all.copied().filter(|node| met.insert(*node)).collect()
    }

    /// Who may stand in for a primary in a write: members of the newest layout that are no primaries of the key.
    pub fn fallbacks(&self) -> &[NodeId] {
        &self.fallbacks
    }

    /// A primary in some layout that is written.
    pub fn is_primary(&self, node: NodeId) -> bool {
        self.written.iter().any(|primaries| primaries.contains(&node))
    }

    /// How far holders of the key go towards a quorum in each layout that is written.
    pub fn tallies(&self, holders: impl Iterator<Item = NodeId> + Clone) -> impl Iterator<Item = Tally> {
        let layouts = if fault::is_on(Fault::WriteToOneLayout) { self.written.len() - 1 } else { 0 };
        self.written[layouts..].iter().map(move |primaries| {
            let (all, of_primaries) =
                (holders.clone().count(), holders.clone().filter(|node| primaries.contains(node)).count());
            Tally { primaries: of_primaries, fallbacks: all - of_primaries }
        })
    }

    /// Who has to confirm what a node takes in, before that node may drop it: all primaries, if it is none; and where it is
    /// one in some layouts only, in each of the others the one whose place it has taken, or who takes its place.
    pub fn owed_by(&self, node: NodeId) -> BTreeSet<NodeId> {
        if !self.is_primary(node) {
            return self.written.iter().flatten().copied().collect();
        }
        let others = self.written.iter().filter(|primaries| !primaries.contains(&node));
        others.filter_map(|primaries| self.counterpart(node, primaries)).collect()
    }

    /// Those who are in one of two layouts only are paired in order; where there are more on the node's side, the first
    /// primary is taken.
    fn counterpart(&self, node: NodeId, primaries: &[NodeId]) -> Option<NodeId> {
        let own = self.written.iter().find(|own| own.contains(&node))?;
        let place = own.iter().filter(|own| !primaries.contains(own)).position(|own| *own == node)?;
        let theirs = primaries.iter().filter(|primary| !own.contains(primary));
        theirs.copied().nth(place).or_else(|| primaries.first().copied())
    }
}
