//! The preference list of a key (Dynamo, section 4.3): its primaries, then everybody who may stand in for them. While the
//! layout changes there are several layouts in effect, and primaries in each.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::attempt::Candidate;
use crate::fault::{self, Fault};
use crate::ids::NodeId;
use crate::quorum::{InvalidQuorum, Level, Quorum, ReplicaCount, Tally};
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

/// What a request waits for in one of the layouts in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutQuorum {
    pub primaries: Vec<NodeId>,
    pub quorum: Quorum,
}

impl LayoutQuorum {
    /// How far these nodes, each of them once, go towards it.
    pub fn tally(&self, nodes: impl Iterator<Item = NodeId>) -> Tally {
        nodes.fold(Tally::default(), |mut tally, node| {
            if self.primaries.contains(&node) {
                tally.primaries += 1;
            } else {
                tally.fallbacks += 1;
            }
            tally
        })
    }

    pub fn is_met(&self, nodes: impl Iterator<Item = NodeId>) -> bool {
        self.quorum.is_met(self.tally(nodes))
    }
}

/// A key's primaries in all layouts in effect.
///
/// A node counts towards a write's quorum in a layout if it is a primary there, or if it may not drop its copy before one
/// of that layout's primaries has confirmed it. So that every copy counts in every layout, a node owes confirmations to
/// primaries of each layout in which it is none: [`Primaries::owed_by`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Primaries {
    /// In each layout that is written, oldest layout first.
    written: Vec<Vec<NodeId>>,
    /// Which of them is read.
    read: usize,
}

impl Primaries {
    pub(crate) fn new(written: Vec<Vec<NodeId>>, read: usize) -> Primaries {
        Primaries { written, read }
    }

    /// In each layout that is written, oldest layout first.
    pub fn written(&self) -> &[Vec<NodeId>] {
        &self.written
    }

    /// In the layout that is read.
    pub fn read(&self) -> &[NodeId] {
        &self.written[self.read]
    }

    /// Everybody who is one somewhere: first those that are read.
    pub fn all(&self) -> Vec<NodeId> {
        let mut met = BTreeSet::new();
        let all = self.read().iter().chain(self.written.iter().flatten());
        all.copied().filter(|node| met.insert(*node)).collect()
    }

    /// In some layout that is written.
    pub fn contains(&self, node: NodeId) -> bool {
        self.written.iter().any(|primaries| primaries.contains(&node))
    }

    /// What the node has of the key is all there is to have: a fallback's answer is judged otherwise.
    pub fn is_read_from(&self, node: NodeId) -> bool {
        self.read().contains(&node) || !self.contains(node)
    }

    /// Who has to confirm what a node takes in, before that node may drop it: all primaries, if it is none; and where it is
    /// one in some layouts only, in each of the others the one whose place it has taken, or who takes its place.
    pub fn owed_by(&self, node: NodeId) -> BTreeSet<NodeId> {
        if !self.contains(node) {
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

/// Where a key lives in all layouts in effect, and who stands in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preference {
    primaries: Primaries,
    reads: PreferenceList,
    /// Of writes: who is no primary anywhere, and stays.
    fallbacks: Vec<NodeId>,
}

impl Preference {
    /// `reads` by the layout that is read, `newest` by the newest one.
    pub(crate) fn new(primaries: Primaries, reads: PreferenceList, newest: PreferenceList) -> Preference {
        let in_order = newest.primaries.into_iter().chain(newest.fallbacks);
        let fallbacks = in_order.filter(|node| !primaries.contains(*node)).collect();
        Preference { primaries, reads, fallbacks }
    }

    pub fn primaries(&self) -> &Primaries {
        &self.primaries
    }

    /// By the layout that is read.
    pub fn reads(&self) -> &PreferenceList {
        &self.reads
    }

    /// Who may stand in for a primary in a write: members of the newest layout that are no primaries of the key.
    pub fn fallbacks(&self) -> &[NodeId] {
        &self.fallbacks
    }

    /// What a write waits for: its quorum in each layout, as far as there are replicas.
    ///
    /// # Errors
    /// [`InvalidQuorum`] if the layout that is read can never satisfy it.
    pub fn write_quorums(&self, w: Level, pw: Level) -> Result<Vec<LayoutQuorum>, InvalidQuorum> {
        Quorum::of_write(w, pw, copies_in(self.reads.primaries()))?;
        let of = |primaries: &Vec<NodeId>| {
            let copies = copies_in(primaries);
            let quorum = Quorum::of_write(w.within(copies), pw.within(copies), copies)?;
            Ok(LayoutQuorum { primaries: primaries.clone(), quorum })
        };
        let written = self.primaries.written();
        let skipped = if fault::is_on(Fault::WriteToOneLayout) { written.len() - 1 } else { 0 };
        written.iter().skip(skipped).map(of).collect()
    }

    /// What a read that waits for its repair waits for in the layouts that are written and not read.
    ///
    /// # Errors
    /// [`InvalidQuorum`] if the layout that is read can never satisfy it.
    pub fn repair_quorums(&self, r: Level, pr: Level) -> Result<Vec<LayoutQuorum>, InvalidQuorum> {
        let mut all = self.write_quorums(r, pr)?;
        all.retain(|layout| layout.primaries != self.reads.primaries);
        Ok(all)
    }
}

fn copies_in(primaries: &[NodeId]) -> ReplicaCount {
    ReplicaCount::MOST.at_most(primaries.len())
}

/// By that factor a node may be slower than another before it is asked behind it.
const FAR_SLOWER: u32 = 4;

/// Nodes with how long each usually takes, in their order but for those that take far longer than another: several who ask
/// one after another would all wait for the same one in vain.
pub fn slow_ones_last(nodes: Vec<(NodeId, Duration)>) -> Vec<NodeId> {
    let far_longer = nodes.iter().map(|(_, usual)| *usual).min().unwrap_or_default() * FAR_SLOWER;
    let (prompt, slow): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|(_, usual)| *usual <= far_longer);
    prompt.into_iter().chain(slow).map(|(node, _)| node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_far_slower_than_another_is_asked_behind_it() {
        let order = |usual: [u64; 3]| {
            let nodes = (1..).map(NodeId).zip(usual.map(Duration::from_millis)).collect();
            slow_ones_last(nodes).into_iter().map(|node| node.0).collect::<Vec<_>>()
        };
        assert_eq!(order([200, 50, 60]), [1, 2, 3], "first choice comes first, since clocks grow with coordinators");
        assert_eq!(order([700, 50, 60]), [2, 3, 1]);
        assert_eq!(order([700, 700, 700]), [1, 2, 3]);
    }
}
