//! The peer service: what nodes ask of each other, on connections of class peer and bulk. What concerns data carries the
//! asker's epoch, and is refused by a node of another ([`Refusal::OtherLayout`]).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use starling_core::choice::Ballot;
use starling_core::clock::Clock;
use starling_core::get::Standing;
use starling_core::name::{BucketName, ObjectKey};
use starling_core::object::Object;
use starling_core::reaping::{Round, RoundId, RoundsOver};
use starling_core::report::{Refusal, Role};
use starling_core::ring::{Decree, Epoch};
use starling_core::token::Partition;
use starling_core::transition::Progress;
use starling_core::tree::{Answer, Branch, Breadth, Sum};

use crate::data::{Put, RequestError, Written};

#[tarpc::service]
pub trait PeerService {
    /// The node's own copy.
    async fn read(request: Read) -> Result<ReadReply, PeerError>;
    /// Merges the object into the node's own copy. The answer means: durable.
    async fn store(request: Store) -> Result<(), PeerError>;
    /// Coordinates a client's write in place of the node that received it.
    async fn forward(request: Put) -> Result<Written, RequestError>;
    /// Handoff: which of these does the node not hold durably yet?
    async fn offer(request: Offer) -> Result<OfferReply, PeerError>;
    async fn list(request: List) -> Result<ListReply, PeerError>;
    async fn buckets(epoch: Epoch) -> Result<Vec<BucketName>, PeerError>;
    /// Milliseconds since the Unix epoch by the node's clock.
    async fn clock() -> u64;
    /// Promises to take part in no earlier ballot about an entry of the layout log; tells what was accepted before.
    async fn prepare(request: Prepare) -> Result<Option<(Ballot, Decree)>, VoteRefused>;
    /// Accepts an entry of the layout log. The answer means: durable.
    async fn accept(request: Accept) -> Result<(), VoteRefused>;
    /// What the node has durably done of the present change of the layout.
    async fn progress() -> Result<Progress, PeerError>;
    /// A page of what the asker has to copy from the node.
    async fn pull(request: PullPage) -> Result<PulledPage, PeerError>;
    /// Compares hash trees: what to say of each branch, in their order; of the first [`MOST_BRANCHES`].
    async fn compare(request: Compare) -> Result<Vec<Answer>, PeerError>;
    /// The node's copies of some keys: as many of the first of them as fit, without those that it does not hold.
    async fn fetch(request: Fetch) -> Result<Fetched, PeerError>;
    /// As [`PeerService::store`], of what was read when so many rounds of reaping were over; called where any are.
    async fn store_read(request: StoreRead) -> Result<(), PeerError>;
    /// How many rounds of reaping the node knows to be over in an epoch, of which partitions.
    async fn rounds_over(epoch: Epoch) -> Result<BTreeMap<Partition, RoundsOver>, PeerError>;
    /// Takes part in a round of reaping; tells with which of the keys it has done what it was asked for, durably.
    async fn reap(request: Reap) -> Result<BTreeSet<ObjectKey>, PeerError>;
}

/// Branches that are compared in one request.
pub const MOST_BRANCHES: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    pub epoch: Epoch,
    pub key: ObjectKey,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadReply {
    pub standing: Standing,
    pub object: Option<Object>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store {
    pub epoch: Epoch,
    pub key: ObjectKey,
    pub object: Object,
    /// As what the receiver is meant to hold it.
    pub role: Role,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreRead {
    pub store: Store,
    /// Of the key's partition, as the sender knew before it read anything of the object.
    pub over: RoundsOver,
}

/// What a member is asked for in a round of reaping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reap {
    /// Whether these tombstones may go. The answer binds.
    Ask(Round),
    /// To mark them.
    Mark { id: RoundId, keys: BTreeSet<ObjectKey> },
    /// To take note that the round is over, and to delete them; without any, that it is called off.
    End { id: RoundId, keys: BTreeSet<ObjectKey> },
}

/// A batch of keys that the sender holds without being their primary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    pub epoch: Epoch,
    pub hints: Vec<(ObjectKey, Clock)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferReply {
    /// For each hint whether the object is wanted. If not, everything up to its clock is durable here.
    pub wanted: Vec<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    pub epoch: Epoch,
    pub bucket: BucketName,
    pub partitions: Vec<Partition>,
    pub prefix: Bytes,
    pub after: Option<Bytes>,
    pub limit: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListReply {
    /// The first keys of all these partitions together, ascending, with their objects' outlines.
    pub keys: Vec<(Bytes, Object)>,
    /// There are more behind the last one.
    pub more: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepare {
    /// Of the entry that is to be chosen.
    pub epoch: Epoch,
    pub ballot: Ballot,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accept {
    /// Of the entry that is to be chosen.
    pub epoch: Epoch,
    pub ballot: Ballot,
    pub decree: Decree,
}

/// Why a node does not vote. Nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum VoteRefused {
    #[error("another proposal has come first")]
    Overtaken(Ballot),
    /// Its log ends there: before the entry in question, or after it.
    #[error("the node is in epoch {0}")]
    OtherEpoch(Epoch),
    #[error("the node has no vote")]
    NoAcceptor,
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Unavailable(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    pub epoch: Epoch,
    pub branches: Vec<Compared>,
}

/// A branch, and what the asker has of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    pub branch: Branch,
    /// Only keys of buckets of at least that breadth are compared.
    pub least: Breadth,
    pub sum: Sum,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    pub epoch: Epoch,
    pub keys: Vec<ObjectKey>,
    /// About as many bytes at the most, and one object at least.
    pub bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// Keys and objects, encoded as `Vec<(ObjectKey, Object)>`.
    pub objects: Bytes,
    /// XXH3-64 of `objects`.
    pub checksum: u64,
    /// How many of the keys were looked at.
    pub looked_at: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullPage {
    pub epoch: Epoch,
    pub partition: Partition,
    /// Behind this key of the partition, in the order in which the node holds them.
    pub after: Option<ObjectKey>,
    /// About as many bytes.
    pub bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PulledPage {
    /// Keys and objects, encoded as `Vec<(ObjectKey, Object)>`.
    pub objects: Bytes,
    /// XXH3-64 of `objects`.
    pub checksum: u64,
    /// Where the next page begins; none behind the last.
    pub next: Option<ObjectKey>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum PeerError {
    /// Nothing was done.
    #[error("the node {0}")]
    Refused(Refusal),
    /// It may or may not have been made durable.
    #[error("the node's sync has failed")]
    Unknown,
    #[error("{0}")]
    Internal(String),
}
