//! The ring as it is now: which layouts are written, which one is read, and how that changes (R15, R16).
//!
//! All that changes the ring is a log of [`Decree`]s. Each is chosen once ([`crate::choice`]), by the members of the oldest
//! layout that is still written, and every node that folds the same log has the same [`Ring`]. The number of decrees so far
//! is the [`Epoch`]; every request among nodes carries it, and is served only by a node of the same epoch.
//!
//! A new layout does not replace the one before at once:
//!
//! 1. [`Decree::Begin`]: it is *coming*. Writes take their quorum in both, the old one is read (**dual**). Whoever becomes a
//!    primary copies what it lacks from the old primaries, each of which serves that only from this epoch on, when it has
//!    stopped to take writes that only go to the old layout.
//! 2. [`Decree::Switch`]: all copies are there. Writes still take both, the new one is read (**switch**).
//! 3. [`Decree::End`]: no old primary serves reads of the old layout any more. It is gone.
//!
//! What a decree has to wait for is in [`crate::transition`]. The phases are decrees of the same log, and not left to each
//! node, because of a further commit that drops a member which died on the way: whether it comes before the old layout is
//! gone or after decides whether the old layout may still be read, so there must be one answer. While a new layout is
//! coming such a commit takes its place; when it is read already, that one comes next, and the old one is written until
//! the end of both.
//!
//! The members that choose are those of the oldest layout still written, without those declared dead: a joiner that dies
//! on the way can never hold up the choice of what to do about it.
//!
//! Where a majority of them is gone for good nothing can be chosen any more, and the others can only go on by
//! [`Decree::Force`]: a [`Decree::Begin`] that all who are left have agreed upon, without a majority. The dead may be alive
//! after all, and choose something else in that place; so those who are left are another cluster from then on, and the two
//! never take each other's word for anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::choice::{Ballot, Exclusion};
use crate::codec;
use crate::fault::{self, Fault};
use crate::ids::{ClusterId, DirectoryId, NodeId};
use crate::layout::{Layout, LayoutVersion, Member};
use crate::name::{NodeName, ObjectKey};
use crate::preference::{Preference, Primaries};
use crate::token::Partition;

/// How many decrees are in effect, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// XXH3-64 of an entry's encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryChecksum(pub u64);

impl fmt::Display for EntryChecksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What changes the ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decree {
    /// A layout is coming. Those who are `dead` are gone for good, with their disks: nobody waits for them.
    Begin { layout: Layout, dead: BTreeSet<NodeId> },
    /// The layout that is coming has all its copies, and is read.
    Switch(LayoutVersion),
    /// The layouts before the one that is read are gone.
    End(LayoutVersion),
    /// The member's disk was lost: another directory stands for it now, and fills up again (R8).
    Register { node: NodeId, directory: DirectoryId },
    /// A node that has left holds nothing any more (R11).
    Emptied(NodeId),
    /// As [`Decree::Begin`], where those who are `dead` are so many that nothing can be chosen without them: agreed upon by
    /// all others, under another cluster id, so that none of the dead who should come back is taken for one of them.
    Force { layout: Layout, dead: BTreeSet<NodeId> },
}

impl Exclusion for Decree {
    fn excluded(&self) -> Option<&BTreeSet<NodeId>> {
        match self {
            Decree::Force { dead, .. } => Some(dead),
            Decree::Begin { .. }
            | Decree::Switch(_)
            | Decree::End(_)
            | Decree::Register { .. }
            | Decree::Emptied(_) => None,
        }
    }
}

/// A decree in its place in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// From when on it is in effect.
    pub epoch: Epoch,
    /// The checksum of the entry before; none for the first.
    pub parent: Option<EntryChecksum>,
    pub decree: Decree,
}

impl Entry {
    pub fn checksum(&self) -> EntryChecksum {
        EntryChecksum(xxh3_64(&codec::encode(self)))
    }
}

/// Where a change of the layout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// There is one layout.
    Settled,
    /// One is coming: writes go to both, and the old one is read.
    Dual,
    /// Writes go to both, and the new one is read.
    Switch,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Phase::Settled => "settled",
            Phase::Dual => "dual",
            Phase::Switch => "switch",
        })
    }
}

/// How a node that is no member any more stopped being one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// By its leave. It may still hold copies, and brings them home.
    Left,
    /// Declared dead.
    Removed,
}

/// What a node with its directory is to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    Member,
    /// It was one until it left.
    Left,
    /// It was declared dead.
    Removed,
    /// The node is a member, by another directory.
    OtherDirectory(DirectoryId),
    /// Nobody has ever named it.
    Stranger,
}

/// Why a decree cannot follow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDecree {
    #[error("the log is at epoch {at}, and the entry is of epoch {found}")]
    OutOfOrder { at: Epoch, found: Epoch },
    #[error("the entry of epoch {0} continues another log")]
    OtherLog(Epoch),
    #[error("a log begins with layout version 1")]
    NotTheFirst,
    #[error("the layout is of cluster {found}; this is {ours}")]
    OtherCluster { ours: ClusterId, found: ClusterId },
    #[error("a cluster that goes on without a majority takes an id that it never had")]
    KnownCluster(ClusterId),
    #[error("nobody is named who is gone for good")]
    NobodyDead,
    #[error("layout version {found} does not continue version {newest}, the newest")]
    NotASuccessor { newest: LayoutVersion, found: LayoutVersion },
    #[error("version {0} is still coming; until it is settled a commit can only take members out that died")]
    UnderWay(LayoutVersion),
    #[error("{0} is no member")]
    NoMember(NodeId),
    #[error("{0} is declared dead, with all that it held")]
    DeclaredDead(NodeId),
    #[error("`{0}` is declared dead and named as a member")]
    DeadMember(NodeName),
    #[error("`{0}` was a member before and has left, or was removed: it can come back with a new data directory only")]
    Departed(NodeName),
    #[error("`{0}` is named with another directory than the one that is registered for it")]
    OtherDirectory(NodeName),
    #[error("directory {0} belongs, or has belonged, to a member")]
    DirectoryTaken(DirectoryId),
    #[error("version {0} is not the one that is coming")]
    NotComing(LayoutVersion),
    #[error("version {0} is not the one that is read, or nothing comes before it")]
    NothingToEnd(LayoutVersion),
    #[error("{0} has not left, or is known to hold nothing")]
    NothingToBringHome(NodeId),
}

/// What is in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    epoch: Epoch,
    /// Of the last entry.
    tip: EntryChecksum,
    /// Ids that the cluster went by before it had to go on without a majority, oldest first.
    former: Vec<ClusterId>,
    /// Written, and not read any more: somebody may not know yet. Oldest first.
    left: Vec<Arc<Layout>>,
    read: Arc<Layout>,
    read_since: Epoch,
    coming: Option<Arc<Layout>>,
    /// Members of the layouts in effect that were declared dead.
    dead: BTreeSet<NodeId>,
    /// Of all members of the layouts in effect.
    directories: BTreeMap<NodeId, DirectoryId>,
    departed: BTreeMap<NodeId, Departure>,
    /// Of those who have left, who may still hold copies, as it was named.
    bringing_home: BTreeMap<NodeId, NodeName>,
    /// All that ever belonged to a member and do not now.
    retired: BTreeSet<DirectoryId>,
}

impl Ring {
    /// The ring of a cluster that has just been made.
    ///
    /// # Errors
    /// [`InvalidDecree::NotTheFirst`] unless it is version 1.
    pub fn first(layout: Layout) -> Result<Ring, InvalidDecree> {
        if layout.version() != LayoutVersion(1) || layout.parent().is_some() {
            return Err(InvalidDecree::NotTheFirst);
        }
        let entry = Ring::first_entry(layout.clone());
        let layout = Arc::new(layout);
        Ok(Ring {
            epoch: entry.epoch,
            tip: entry.checksum(),
            former: Vec::new(),
            left: Vec::new(),
            directories: directories_of(&layout),
            read: layout,
            read_since: entry.epoch,
            coming: None,
            dead: BTreeSet::new(),
            departed: BTreeMap::new(),
            bringing_home: BTreeMap::new(),
            retired: BTreeSet::new(),
        })
    }

    /// How the log of a cluster begins that was made with this layout.
    pub fn first_entry(layout: Layout) -> Entry {
        Entry { epoch: Epoch(1), parent: None, decree: Decree::Begin { layout, dead: BTreeSet::new() } }
    }

    /// The decree as the next entry of the log.
    pub fn entry(&self, decree: Decree) -> Entry {
        Entry { epoch: Epoch(self.epoch.0 + 1), parent: Some(self.tip), decree }
    }

    /// The ring with one more decree in effect.
    ///
    /// # Errors
    /// [`InvalidDecree`] if it cannot follow.
    pub fn after(&self, entry: &Entry) -> Result<Ring, InvalidDecree> {
        if entry.epoch.0 != self.epoch.0 + 1 {
            return Err(InvalidDecree::OutOfOrder { at: self.epoch, found: entry.epoch });
        }
        if entry.parent != Some(self.tip) {
            return Err(InvalidDecree::OtherLog(entry.epoch));
        }
        let mut next = Ring { epoch: entry.epoch, tip: entry.checksum(), ..self.clone() };
        match &entry.decree {
            Decree::Begin { layout, dead } => {
                next.check_cluster(layout)?;
                next.begin(layout, dead)?;
            }
            Decree::Force { layout, dead } => next.force(layout, dead)?,
            Decree::Switch(version) => next.switch(*version)?,
            Decree::End(version) => next.end(*version)?,
            Decree::Register { node, directory } => next.register(*node, *directory)?,
            Decree::Emptied(node) => next.emptied(*node)?,
        }
        Ok(next)
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub fn tip(&self) -> EntryChecksum {
        self.tip
    }

    pub fn cluster(&self) -> ClusterId {
        self.newest().cluster()
    }

    /// The id that the cluster was made with. Contexts carry it: who reads here and writes there has read the same objects,
    /// whatever the cluster has come to go by meanwhile.
    pub fn origin(&self) -> ClusterId {
        self.former.first().copied().unwrap_or_else(|| self.cluster())
    }

    /// Whether the cluster goes by this id, or did before it had to go on without a majority.
    pub fn goes_or_went_by(&self, cluster: ClusterId) -> bool {
        cluster == self.cluster() || self.former.contains(&cluster)
    }

    pub fn phase(&self) -> Phase {
        match (&self.coming, self.left.is_empty()) {
            (Some(_), _) => Phase::Dual,
            (None, false) => Phase::Switch,
            (None, true) => Phase::Settled,
        }
    }

    /// The layout that is read.
    pub fn read(&self) -> &Arc<Layout> {
        &self.read
    }

    /// From this epoch on [`Ring::read`] was read.
    pub fn read_since(&self) -> Epoch {
        self.read_since
    }

    /// The layout that is being copied, if one is.
    pub fn coming(&self) -> Option<&Arc<Layout>> {
        self.coming.as_ref()
    }

    /// Layouts that are written and not read any more, oldest first.
    pub fn left(&self) -> &[Arc<Layout>] {
        &self.left
    }

    /// Where all this leads: what is coming, or else what is read.
    pub fn newest(&self) -> &Arc<Layout> {
        self.coming.as_ref().unwrap_or(&self.read)
    }

    /// All layouts in which a write takes its quorum, oldest first.
    pub fn written(&self) -> impl Iterator<Item = &Arc<Layout>> {
        self.left.iter().chain([&self.read]).chain(&self.coming)
    }

    /// All members of the layouts in effect, as the newest of them knows them.
    pub fn members(&self) -> BTreeMap<NodeId, &Member> {
        self.written().flat_map(|layout| layout.members()).map(|member| (member.node, member)).collect()
    }

    pub fn is_member(&self, node: NodeId) -> bool {
        self.directories.contains_key(&node)
    }

    pub fn is_dead(&self, node: NodeId) -> bool {
        self.dead.contains(&node)
    }

    /// The directory that stands for a member.
    pub fn directory_of(&self, node: NodeId) -> Option<DirectoryId> {
        self.directories.get(&node).copied()
    }

    pub fn membership_of(&self, node: NodeId, directory: DirectoryId) -> Membership {
        match (self.departed.get(&node), self.directories.get(&node)) {
            (Some(Departure::Removed), _) => Membership::Removed,
            (Some(Departure::Left), _) => Membership::Left,
            (None, Some(registered)) if *registered == directory => Membership::Member,
            (None, Some(registered)) => Membership::OtherDirectory(*registered),
            (None, None) => Membership::Stranger,
        }
    }

    /// How a node stopped being a member, if it was one.
    pub fn departure_of(&self, node: NodeId) -> Option<Departure> {
        self.departed.get(&node).copied()
    }

    /// Those who have left and may still hold copies, which nobody can be sure of but they.
    pub fn bringing_home(&self) -> &BTreeMap<NodeId, NodeName> {
        &self.bringing_home
    }

    /// Whether tombstones may be reaped: everybody who can hold a copy of anything is a member, and asked.
    pub fn may_reap(&self) -> bool {
        let is_settled = self.phase() == Phase::Settled;
        is_settled && (self.bringing_home.is_empty() || fault::is_on(Fault::ReviveDeparted))
    }

    /// A directory that stood for a member, and does not any more.
    pub fn is_retired(&self, directory: DirectoryId) -> bool {
        self.retired.contains(&directory)
    }

    /// Who chooses the next decree.
    pub fn acceptors(&self) -> BTreeSet<NodeId> {
        let oldest = self.left.first().unwrap_or(&self.read);
        oldest.members().iter().map(|member| member.node).filter(|node| !self.is_dead(*node)).collect()
    }

    /// Who has to agree if these are given up by force: every other member, those included that have no vote otherwise.
    pub fn survivors(&self, dead: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let is_left = |node: &NodeId| !dead.contains(node) && !self.is_dead(*node);
        self.directories.keys().copied().filter(is_left).collect()
    }

    /// Whether a node takes part in a choice, of whatever kind the ballot is.
    pub fn has_vote(&self, node: NodeId, ballot: Ballot) -> bool {
        if ballot.is_forced() {
            self.survivors(&BTreeSet::new()).contains(&node)
        } else {
            self.acceptors().contains(&node)
        }
    }

    /// Whether most of those who choose are among these nodes.
    pub fn has_majority_in(&self, nodes: &BTreeSet<NodeId>) -> bool {
        let acceptors = self.acceptors();
        acceptors.intersection(nodes).count() > acceptors.len() / 2
    }

    /// Whether a node is a primary of whatever lies in a partition, in each layout in effect.
    pub fn is_primary_of_all(&self, node: NodeId, partition: Partition) -> bool {
        self.written().all(|layout| layout.fewest_primaries(partition).any(|primary| primary == node))
    }

    /// A key's primaries in each layout in effect.
    pub fn primaries(&self, key: &ObjectKey) -> Primaries {
        Primaries::new(self.written().map(|layout| layout.primaries_of(key)).collect(), self.left.len())
    }

    /// Where a key lives in each layout in effect, and who stands in.
    pub fn preference(&self, key: &ObjectKey) -> Preference {
        Preference::new(self.primaries(key), self.read.preference_list(key), self.newest().preference_list(key))
    }

    fn begin(&mut self, layout: &Layout, dead: &BTreeSet<NodeId>) -> Result<(), InvalidDecree> {
        self.check_successor(layout)?;
        for node in dead.iter().filter(|node| !self.bringing_home.contains_key(node)) {
            self.check_member(*node)?;
        }
        if self.phase() != Phase::Settled && dead.iter().all(|node| self.is_dead(*node)) {
            return Err(InvalidDecree::UnderWay(self.newest().version()));
        }
        for member in layout.members() {
            self.check_may_be_member(member, dead)?;
        }
        let mut known = self.names();
        known.extend(self.bringing_home.clone());
        self.dead.extend(dead);
        let given_up = self.coming.replace(Arc::new(layout.clone()));
        let was_coming: BTreeSet<NodeId> =
            given_up.iter().flat_map(|layout| layout.members()).map(|m| m.node).collect();
        self.directories.extend(directories_of(layout));
        known.retain(|node, _| was_coming.contains(node) || dead.contains(node));
        self.forget_those_outside(known);
        Ok(())
    }

    fn force(&mut self, layout: &Layout, dead: &BTreeSet<NodeId>) -> Result<(), InvalidDecree> {
        if self.goes_or_went_by(layout.cluster()) {
            return Err(InvalidDecree::KnownCluster(layout.cluster()));
        }
        if dead.is_empty() {
            return Err(InvalidDecree::NobodyDead);
        }
        self.former.push(self.cluster());
        self.begin(layout, dead)
    }

    fn names(&self) -> BTreeMap<NodeId, NodeName> {
        self.members().into_values().map(|member| (member.node, member.name.clone())).collect()
    }

    fn switch(&mut self, version: LayoutVersion) -> Result<(), InvalidDecree> {
        let coming = self.coming.take_if(|coming| coming.version() == version);
        let coming = coming.ok_or(InvalidDecree::NotComing(version))?;
        self.left.push(std::mem::replace(&mut self.read, coming));
        self.read_since = self.epoch;
        Ok(())
    }

    fn end(&mut self, version: LayoutVersion) -> Result<(), InvalidDecree> {
        if self.phase() != Phase::Switch || self.read.version() != version {
            return Err(InvalidDecree::NothingToEnd(version));
        }
        let known = self.names();
        self.left.clear();
        self.forget_those_outside(known);
        self.dead.clear();
        Ok(())
    }

    fn register(&mut self, node: NodeId, directory: DirectoryId) -> Result<(), InvalidDecree> {
        self.check_member(node)?;
        if self.is_dead(node) {
            return Err(InvalidDecree::DeclaredDead(node));
        }
        self.check_new(directory)?;
        self.retired.extend(self.directories.insert(node, directory));
        Ok(())
    }

    fn emptied(&mut self, node: NodeId) -> Result<(), InvalidDecree> {
        self.bringing_home.remove(&node).map(drop).ok_or(InvalidDecree::NothingToBringHome(node))
    }

    /// Those of the `known` who are in no layout any more have departed.
    fn forget_those_outside(&mut self, known: BTreeMap<NodeId, NodeName>) {
        let members: BTreeSet<NodeId> = self.members().into_keys().collect();
        for (node, name) in known {
            if self.dead.contains(&node) {
                self.departed.insert(node, Departure::Removed);
                self.bringing_home.remove(&node);
            } else if !members.contains(&node) {
                self.departed.insert(node, Departure::Left);
                self.bringing_home.insert(node, name);
            }
            if !members.contains(&node) {
                self.retired.extend(self.directories.remove(&node));
            }
        }
    }

    fn check_cluster(&self, layout: &Layout) -> Result<(), InvalidDecree> {
        let (ours, found) = (self.cluster(), layout.cluster());
        if found == ours { Ok(()) } else { Err(InvalidDecree::OtherCluster { ours, found }) }
    }

    fn check_successor(&self, layout: &Layout) -> Result<(), InvalidDecree> {
        let newest = self.newest();
        let follows = layout.version().0 == newest.version().0 + 1
            && layout.parent() == Some(newest.checksum())
            && layout.partitions() == newest.partitions();
        if !follows {
            return Err(InvalidDecree::NotASuccessor { newest: newest.version(), found: layout.version() });
        }
        Ok(())
    }

    fn check_member(&self, node: NodeId) -> Result<(), InvalidDecree> {
        if self.is_member(node) { Ok(()) } else { Err(InvalidDecree::NoMember(node)) }
    }

    fn check_may_be_member(&self, member: &Member, dead: &BTreeSet<NodeId>) -> Result<(), InvalidDecree> {
        let name = || member.name.clone();
        if dead.contains(&member.node) || self.is_dead(member.node) {
            return Err(InvalidDecree::DeadMember(name()));
        }
        if self.departed.contains_key(&member.node) {
            return Err(InvalidDecree::Departed(name()));
        }
        match self.directory_of(member.node) {
            Some(known) if known == member.directory => Ok(()),
            Some(_) => Err(InvalidDecree::OtherDirectory(name())),
            None => self.check_new(member.directory),
        }
    }

    fn check_new(&self, directory: DirectoryId) -> Result<(), InvalidDecree> {
        let is_known = self.is_retired(directory) || self.directories.values().any(|known| *known == directory);
        if is_known { Err(InvalidDecree::DirectoryTaken(directory)) } else { Ok(()) }
    }
}

fn directories_of(layout: &Layout) -> BTreeMap<NodeId, DirectoryId> {
    layout.members().iter().map(|member| (member.node, member.directory)).collect()
}
