//! The control service: administration of one node, and of the cluster through it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use starling_core::change::Change;
use starling_core::ids::{ClusterId, DirectoryId, NodeId, Run};
use starling_core::layout::{BucketRules, Layout, LayoutChecksum, LayoutVersion, Member};
use starling_core::name::{BucketName, NodeName, ObjectKey, Zone};
use starling_core::quorum::ReplicaCount;
use starling_core::reaping::Stage;
use starling_core::ring::{Entry, Epoch, Phase};
use starling_core::settings::{Changes, Registers, Settings};
use starling_core::token::{Partition, PartitionCount};
use starling_core::transition::Lack;

#[tarpc::service]
pub trait ControlService {
    async fn status() -> NodeStatus;
    /// The cluster as this node sees it.
    async fn cluster() -> ClusterView;
    /// Makes layout version 1 for the members it names, once, and has every one of them adopt it.
    async fn init(request: Init) -> Result<Layout, ControlError>;
    /// What this node would be as a member of a new cluster. It keeps itself free for that one for 10 s.
    async fn candidate(cluster: ClusterId) -> Result<Member, ControlError>;
    /// Adopts a layout that names this node.
    async fn adopt(layout: Layout) -> Result<LayoutChecksum, ControlError>;
    async fn layout() -> Option<Layout>;
    /// The layout log behind an epoch, some entries at a time; all is told once none come.
    async fn log(after: Epoch) -> Result<Vec<Entry>, ControlError>;
    /// Stages changes of the ring on this node, behind those that are; tells what all of them come to.
    async fn stage(changes: Vec<Change>) -> Result<Plan, ControlError>;
    /// Forgets what is staged on this node; tells what it was.
    async fn unstage() -> Result<Vec<Change>, ControlError>;
    /// What the changes staged on this node come to; none if nothing is staged.
    async fn plan() -> Result<Option<Plan>, ControlError>;
    /// Has the plan of that checksum chosen as the next layout.
    async fn commit(plan: LayoutChecksum) -> Result<Committed, ControlError>;
    /// Where the change of the layout stands that is under way.
    async fn transition() -> Result<Transition, ControlError>;
    /// What this node has to move because the ring changed, and how it goes.
    async fn transfers() -> Transfers;
    /// Compares what this node holds with its peers now, without waiting for the next round; returns the number by which
    /// to ask how far that is.
    async fn repair(scope: RepairScope) -> Result<u64, ControlError>;
    /// How far a repair is that was begun on this node since its start; none if it is long over, or never was.
    async fn repairing(number: u64) -> Option<Repairing>;
    /// Checks what this node holds against itself, some partitions at a time, from this one on.
    async fn verify(from: Partition) -> Result<VerifiedPage, ControlError>;
    /// Has a directory stand for a member from now on, in the place of one that was lost; tells the member's id. To be asked
    /// again by whoever is not sure of the answer.
    async fn register(request: Registration) -> Result<NodeId, NotRegistered>;
    /// What this node has yet to be compared with, since its directory is new; nothing if it is full.
    async fn filling() -> FillingUp;
    /// The tombstones of the partitions whose reaping this node leads, and what they wait for.
    async fn tombstones() -> Result<Tombstones, ControlError>;
    /// The plain settings of all buckets, as this node goes by them. Called only where
    /// [`Features::SETTINGS`](crate::hello::Features::SETTINGS) is advertised, as the one that follows.
    async fn settings() -> Settings;
    /// Changes settings of a bucket, here and, within seconds, everywhere; tells what is set of that bucket then.
    async fn set(request: Set) -> Result<Registers, ControlError>;
    /// What it would come to if members of these names were given up by force; nothing is done. Called only where
    /// [`Features::FORCE`](crate::hello::Features::FORCE) is advertised, as the one that follows.
    async fn force_plan(dead: BTreeSet<NodeName>) -> Result<Plan, ControlError>;
    /// Gives members up that are gone for good, with all that they hold, although nothing can be chosen without them: those
    /// who are left agree, all of them, and are another cluster from then on.
    async fn force(request: Force) -> Result<Forced, ControlError>;
}

/// Members that are given up by force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Force {
    pub dead: BTreeSet<NodeName>,
    /// What the cluster goes by now: whoever does not know that is asked about another one.
    pub cluster: ClusterId,
}

/// What those who are left have agreed upon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forced {
    pub version: LayoutVersion,
    /// What the cluster goes by from now on.
    pub cluster: ClusterId,
}

/// A change of plain settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    pub bucket: BucketName,
    pub changes: Changes,
}

/// What is deleted and not forgotten yet, in the partitions whose reaping a node leads.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tombstones {
    /// All, up to about 100,000.
    pub pending: u64,
    /// There may be more.
    pub more: bool,
    /// Of those, how many are old enough for a round.
    pub due: u64,
    /// How old the oldest is.
    pub oldest: Option<Duration>,
    /// Why there are no rounds at present, or not of all partitions, if so.
    pub held_up: Option<HeldUp>,
    /// Rounds under way, by partition.
    pub rounds: Vec<ReapingRound>,
    /// How many this node has deleted since its start, in all partitions.
    pub reaped: u64,
}

/// Why nothing, or not everything, is reaped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeldUp {
    /// The ring is changing.
    RingChanges,
    /// These have left, and may still hold copies.
    Leavers(Vec<NodeName>),
    /// The node lacks what it has to have first, in this many partitions: of those nothing is.
    Filling(usize),
    /// The node's clock cannot be relied on yet, being set or started of late and not compared with enough others, or it is
    /// ahead of them: what has expired stays.
    Clock,
}

/// A round of reaping that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReapingRound {
    pub partition: Partition,
    pub number: u64,
    pub stage: Stage,
    /// Tombstones that nobody has objected to so far.
    pub keys: usize,
    /// Since the node leads it, or was started.
    pub since: Duration,
    /// Who has not answered, and why if that is known.
    pub waits_for: BTreeMap<NodeId, Option<String>>,
}

/// A directory that is to stand for the member of a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    pub name: NodeName,
    pub directory: DirectoryId,
    /// The member's own, if it is the member itself that asks: its directory must not serve any more.
    pub in_place_of: Option<DirectoryId>,
}

/// Why it does not, for now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum NotRegistered {
    #[error("no member is named `{0}`")]
    NoMember(NodeName),
    /// Two at once would each take the other's writes for its own.
    #[error("another node named `{0}` is alive: stop one of the two")]
    Alive(NodeName),
    /// It has stood for a member, until another took its place.
    #[error("directory {0} has belonged to a member before")]
    Retired(DirectoryId),
    #[error("{0}")]
    Unavailable(String),
}

/// How far a node is with filling up again (R8).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FillingUp {
    /// Partitions for which it counts in no read yet.
    pub partitions: usize,
    /// In how many of them it has yet to be compared with whom.
    pub left: BTreeMap<NodeId, usize>,
    /// Peers that do not give what they have, and why.
    pub stalled: BTreeMap<NodeId, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Init {
    /// By name; all that gossip knows if empty.
    pub members: Vec<NodeName>,
    /// Relative weights of members; 1 where none is given.
    pub weights: BTreeMap<NodeName, u32>,
    pub partitions: PartitionCount,
    pub replicas: ReplicaCount,
    pub buckets: BTreeMap<BucketName, BucketRules>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ControlError {
    #[error("{0}")]
    Invalid(String),
    #[error("this node belongs to cluster {0} already")]
    AlreadyMember(ClusterId),
    #[error("not every member has adopted the layout yet: {0}; run the same command again")]
    Incomplete(String),
    #[error("{0}")]
    Internal(String),
    /// It may still be done.
    #[error("not chosen yet: {0}; once enough of them are back, run the same command again")]
    Waiting(String),
}

/// What staged changes come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub changes: Vec<Change>,
    pub before: Layout,
    pub after: Layout,
    /// Members that are declared dead.
    pub dead: BTreeSet<NodeId>,
}

/// What was chosen, when a plan was put forward.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Committed {
    /// The plan. It is no longer staged.
    Chosen(LayoutVersion),
    /// Another decree came first, in this epoch. The plan is still staged.
    Other { epoch: Epoch },
}

/// Where a change of the layout stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    pub epoch: Epoch,
    pub phase: Phase,
    /// The layout that is read.
    pub read: LayoutVersion,
    /// Where it leads.
    pub newest: LayoutVersion,
    /// For whom it waits.
    pub waiting: BTreeMap<NodeId, Lack>,
    /// Pulls that this node has done, and how many it has to do.
    pub pulled: (usize, usize),
    /// Keys that this node still holds for others, at least: the most that it holds for one of them.
    pub held: u64,
}

/// What a node has to move because the ring changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfers {
    /// By which ring; none if the node belongs to no cluster.
    pub epoch: Option<Epoch>,
    /// For the layout that is coming; none if it has to copy nothing.
    pub copying: Option<Copying>,
    /// Keys that it holds for others, at least: the most that it holds for one of them.
    pub held: u64,
    /// What it lets moving take of its bandwidth, in bytes a second.
    pub most_bytes_a_second: u64,
}

/// How a node's copying goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copying {
    /// Pulls, each of one partition from one source: those that are done, and all.
    pub done: usize,
    pub all: usize,
    /// For how long this process has been at it.
    pub lasting: Duration,
    /// What it has done in that time: pulls that it has finished, keys that have come, and their bytes on the wire.
    pub finished: usize,
    pub keys: u64,
    pub bytes: u64,
    /// Sources that do not give what they have, and why.
    pub stalled: BTreeMap<NodeId, String>,
}

/// What a repair is about: everything, unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RepairScope {
    pub bucket: Option<BucketName>,
    pub partition: Option<Partition>,
}

/// How far a node is with comparing. Of each partition one of two nodes compares with the other.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Repairing {
    /// Comparisons, each of one partition with one peer: those that are done, and all.
    pub compared: u64,
    pub all: u64,
    /// Keys in which a difference was found, all of which were sent or fetched.
    pub differences: u64,
    /// Peers with whom it could not be done to the end, and why.
    pub failed: BTreeMap<NodeId, String>,
    pub is_over: bool,
}

/// What a check of some partitions came to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VerifiedPage {
    /// Where the next page begins; none behind the last.
    pub next: Option<Partition>,
    pub partitions: usize,
    pub records: u64,
    pub bytes: u64,
    pub flaws: Vec<Flaw>,
}

/// Something on a disk that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flaw {
    pub partition: Partition,
    /// Of which object; none if that cannot be said.
    pub key: Option<ObjectKey>,
    pub kind: FlawKind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlawKind {
    Unreadable(String),
    /// The hash tree says something else of the record, or nothing.
    WrongLeaf,
    LeafWithoutRecord,
    /// A stored sum of the hash tree is not that of its leaves.
    WrongSum,
    /// An entry lies under a key that makes no sense.
    Misplaced,
}

/// How a node stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeStanding {
    /// It belongs to no cluster yet.
    Uninitialised,
    Serving,
    /// It is not the member that the layout knows under its name, or runs on an old copy; it serves nothing.
    Excluded(String),
    /// A sync failed; it serves nothing until it is restarted.
    Failed(String),
    Stopping,
    /// It is no member any more, and brings home what it holds.
    Left,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub name: NodeName,
    pub node: NodeId,
    pub run: Run,
    pub zone: Zone,
    pub address: String,
    pub standing: NodeStanding,
    pub cluster: Option<ClusterId>,
    pub layout: Option<LayoutVersion>,
    pub build: String,
    pub uptime: Duration,
    /// Partitions of which this node is a primary.
    pub partitions: usize,
    pub disk_used_bytes: u64,
    pub disk_free_bytes: Option<u64>,
    pub resident_bytes: Option<u64>,
    pub hints: Vec<HintsFor>,
    /// Members to which it has a standing connection.
    pub connected: Vec<NodeId>,
    /// Counters since the start, by name.
    pub counters: BTreeMap<String, u64>,
}

/// Markers that a node holds for another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HintsFor {
    pub target: NodeId,
    pub count: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterView {
    /// Who is answering.
    pub seen_by: NodeName,
    pub layout: Option<Layout>,
    pub peers: Vec<PeerView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerView {
    pub name: NodeName,
    pub node: NodeId,
    pub zone: Zone,
    pub address: String,
    pub alive: bool,
    pub standing: String,
    pub cluster: Option<ClusterId>,
    pub layout: Option<LayoutVersion>,
    pub build: String,
    /// Nodes for which it holds hints.
    pub hints_for: Vec<NodeId>,
}
