//! What has to happen before the ring may go on (R16).
//!
//! From *dual* to *switch*: every node that becomes a primary has copied what the old primaries had. A copy counts only if
//! each page of it was read at its source in the new epoch: from then on the source takes no write that the new primary is
//! not sent as well, so what the page lacks comes by itself. All old primaries are read, except those declared dead: a
//! write may have been acknowledged by any of them.
//!
//! From *switch* to the *end*: every old primary, except those declared dead, has adopted the switch, so none serves a read
//! of the old layout any more, and writes may stop going there.
//!
//! Both are found out by asking each member what it has durably done ([`Progress`]), never from gossip, and hold in an epoch
//! once they hold in it: so whoever proposes the decree that follows may have found out long ago. What a member says counts
//! only with the directory that stands for it: one that has come in the place of a lost one has done nothing, and is another
//! epoch's.
//!
//! Why a strict quorum still reads what was acknowledged. Of the primaries of a new layout some were primaries before and
//! have what they had; the others have copied all that any old primary had, dead disks apart. A read quorum with one of
//! those sees the write, and one without lies within the old layout, where it meets every write quorum as long as the key
//! has no fewer replicas than before. Where it has fewer, those who stay copy from each other too.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::fault::{self, Fault};
use crate::ids::{DirectoryId, NodeId};
use crate::layout::{Layout, LayoutVersion};
use crate::name::{BucketName, ObjectKey};
use crate::quorum::ReplicaCount;
use crate::ring::{Decree, Epoch, Phase, Ring};
use crate::token::Partition;

/// What a node that becomes a primary has to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pull {
    pub partition: Partition,
    pub source: NodeId,
}

/// What a member has durably done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub directory: DirectoryId,
    /// It serves nothing of an earlier epoch.
    pub adopted: Epoch,
    /// The newest layout of which it has all that it has to copy.
    pub copied: Option<LayoutVersion>,
}

/// What a member still has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lack {
    /// It has not said how far it is.
    NoAnswer,
    /// The directory that answers is not the one that is registered.
    OtherDirectory,
    /// It has not adopted the newest decree.
    NotAdopted,
    /// It is copying.
    NotCopied,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lack::NoAnswer => "does not answer",
            Lack::OtherDirectory => "answers with another data directory",
            Lack::NotAdopted => "has not taken up the change",
            Lack::NotCopied => "is copying",
        })
    }
}

/// For whom the ring has to wait.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Waiting(pub BTreeMap<NodeId, Lack>);

impl Ring {
    /// What a node has to copy before the layout that is coming may be read; nothing if none is.
    pub fn pulls_of(&self, node: NodeId) -> BTreeSet<Pull> {
        let Some(coming) = self.coming() else { return BTreeSet::new() };
        let kinds = kinds(self.read(), coming);
        let gained = coming.partitions().all().flat_map(|partition| {
            let gained = kinds.iter().filter(move |(old, new)| is_gained(node, old, new, partition));
            gained.flat_map(move |(old, _)| self.sources(node, old, partition))
        });
        gained.collect()
    }

    /// Whether this node, which has this ring, may serve as the source of a copy that is asked for in `epoch`.
    pub fn may_be_copied_in(&self, epoch: Epoch) -> bool {
        self.epoch() == epoch || fault::is_on(Fault::PullTooEarly)
    }

    /// Whether a node that copies a key's partition has to copy that key.
    pub fn is_pulled(&self, key: &ObjectKey, node: NodeId) -> bool {
        self.coming().is_some_and(|coming| {
            let (old, new) = Kind::pair_of(key.bucket(), self.read(), coming);
            is_gained(node, &old, &new, coming.partition_of(key))
        })
    }

    /// Whom to ask for their progress.
    pub fn in_transition(&self) -> BTreeSet<NodeId> {
        match self.phase() {
            Phase::Settled => BTreeSet::new(),
            Phase::Dual => self.who_has_to_copy(),
            Phase::Switch => {
                let old = self.left().iter().flat_map(|layout| layout.members()).map(|member| member.node);
                old.filter(|node| !self.is_dead(*node)).collect()
            }
        }
    }

    /// The decree that takes the change of the layout further; none if none is under way.
    ///
    /// # Errors
    /// For whom that has to wait.
    pub fn next_decree(&self, progress: &BTreeMap<NodeId, Progress>) -> Result<Option<Decree>, Waiting> {
        let version = self.newest().version();
        match self.phase() {
            Phase::Settled => Ok(None),
            Phase::Dual => self.may_switch(progress).map(|()| Some(Decree::Switch(version))),
            Phase::Switch => self.may_end(progress).map(|()| Some(Decree::End(version))),
        }
    }

    /// Whether the layout that is coming may be read.
    ///
    /// # Errors
    /// For whom that has to wait.
    fn may_switch(&self, progress: &BTreeMap<NodeId, Progress>) -> Result<(), Waiting> {
        let version = self.newest().version();
        self.wait_for(progress, |done| {
            let copied = done.copied == Some(version) || fault::is_on(Fault::SwitchBeforeCopied);
            (!copied).then_some(Lack::NotCopied)
        })
    }

    /// Whether the old layouts may go.
    ///
    /// # Errors
    /// For whom that has to wait.
    fn may_end(&self, progress: &BTreeMap<NodeId, Progress>) -> Result<(), Waiting> {
        let since = self.read_since();
        self.wait_for(progress, |done| (done.adopted < since).then_some(Lack::NotAdopted))
    }

    fn wait_for(
        &self,
        progress: &BTreeMap<NodeId, Progress>,
        lacks: impl Fn(&Progress) -> Option<Lack>,
    ) -> Result<(), Waiting> {
        let lack_of = |node: &NodeId| match progress.get(node) {
            None => Some(Lack::NoAnswer),
            Some(done) if Some(done.directory) != self.directory_of(*node) => Some(Lack::OtherDirectory),
            Some(done) => lacks(done),
        };
        let waiting: BTreeMap<NodeId, Lack> =
            self.in_transition().into_iter().filter_map(|node| Some((node, lack_of(&node)?))).collect();
        if waiting.is_empty() { Ok(()) } else { Err(Waiting(waiting)) }
    }

    /// In one pass: of a thousand members most gain nothing.
    fn who_has_to_copy(&self) -> BTreeSet<NodeId> {
        let coming = self.newest();
        let kinds = kinds(self.read(), coming);
        let mut nodes = BTreeSet::new();
        for partition in coming.partitions().all() {
            for (old, new) in &kinds {
                let gained = new.primaries(partition).filter(|node| is_gained(*node, old, new, partition));
                nodes.extend(gained.filter(|node| self.sources(*node, old, partition).next().is_some()));
            }
        }
        nodes
    }

    /// From whom a node copies what such buckets have in a partition.
    fn sources<'a>(
        &'a self,
        node: NodeId,
        old: &Kind<'a>,
        partition: Partition,
    ) -> impl Iterator<Item = Pull> + use<'a> {
        let living = old.primaries(partition).filter(move |source| *source != node && !self.is_dead(*source));
        living.map(move |source| Pull { partition, source })
    }
}

/// How many replicas the objects of some buckets have, by one layout.
#[derive(Clone, Copy)]
struct Kind<'a> {
    layout: &'a Layout,
    replicas: ReplicaCount,
}

impl<'a> Kind<'a> {
    fn pair_of(bucket: &BucketName, old: &'a Layout, new: &'a Layout) -> (Kind<'a>, Kind<'a>) {
        let of = |layout: &'a Layout| Kind { layout, replicas: layout.replicas_of(bucket) };
        (of(old), of(new))
    }

    fn primaries(&self, partition: Partition) -> impl Iterator<Item = NodeId> + use<'a> {
        self.layout.primaries(partition, self.replicas)
    }
}

/// All pairs of them that buckets have, by the one layout and by the other.
fn kinds<'a>(old: &'a Layout, new: &'a Layout) -> Vec<(Kind<'a>, Kind<'a>)> {
    let all = |layout: &'a Layout| Kind { layout, replicas: layout.replicas().at_most(layout.members().len()) };
    let named: BTreeSet<&BucketName> = old.buckets().keys().chain(new.buckets().keys()).collect();
    let mut kinds: BTreeMap<_, _> = named
        .into_iter()
        .map(|bucket| Kind::pair_of(bucket, old, new))
        .map(|pair| (replicas_of(&pair), pair))
        .collect();
    let rest = (all(old), all(new));
    kinds.insert(replicas_of(&rest), rest);
    kinds.into_values().collect()
}

fn replicas_of((old, new): &(Kind, Kind)) -> (usize, usize) {
    (old.replicas.get(), new.replicas.get())
}

/// Whether a node has to copy what such buckets have in a partition.
fn is_gained(node: NodeId, old: &Kind, new: &Kind, partition: Partition) -> bool {
    let is_primary = new.primaries(partition).any(|primary| primary == node);
    let was_primary = old.primaries(partition).any(|primary| primary == node);
    is_primary && (!was_primary || new.replicas < old.replicas)
}
