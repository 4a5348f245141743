//! The data service: what clients ask of any node.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use starling_core::clock::{Clock, Dot};
use starling_core::ids::RequestId;
use starling_core::layout::Layout;
use starling_core::name::{BucketName, ObjectKey};
use starling_core::object::{SiblingMode, Value};
use starling_core::preference::PreferenceList;
use starling_core::quorum::{Level, Quorum, Tally};
use starling_core::report::{Refusal, ReplicaReport};
use starling_core::stamp::Stamp;
use starling_core::token::Token;
use starling_core::wall::WallTime;

/// Most keys or buckets on a page of a listing.
pub const MAX_PAGE: usize = 1000;

#[tarpc::service]
pub trait DataService {
    async fn get(request: Get) -> Result<Got, RequestError>;
    /// A put or a delete.
    async fn put(request: Put) -> Result<Written, RequestError>;
    /// This node's own copy, and nobody else's word.
    async fn get_own(key: ObjectKey) -> Result<Got, RequestError>;
    async fn keys(request: Keys) -> Result<KeysPage, RequestError>;
    async fn buckets() -> Result<Vec<BucketName>, RequestError>;
    async fn locate(key: ObjectKey) -> Result<Location, RequestError>;
    /// The layout this node uses.
    async fn layout() -> Result<Layout, RequestError>;
    /// As [`DataService::put`], of a value that is to live for so long. Called only where
    /// [`Features::EXPIRY`](crate::hello::Features::EXPIRY) is advertised, as the two that follow.
    async fn put_for(request: PutFor) -> Result<Written, RequestError>;
    /// As [`DataService::get`], with when each sibling expires.
    async fn get_lasting(request: Get) -> Result<GotLasting, RequestError>;
    /// As [`DataService::get_own`], with when each sibling expires.
    async fn get_own_lasting(key: ObjectKey) -> Result<GotLasting, RequestError>;
    /// As [`DataService::put`], of a value that stays, also where values of its bucket are set to expire. A request that had
    /// been carried out before is not told a new time. Called only where
    /// [`Features::SETTINGS`](crate::hello::Features::SETTINGS) is advertised.
    async fn put_for_good(request: Put) -> Result<Written, RequestError>;
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Get {
    pub key: ObjectKey,
    pub r: Level,
    pub pr: Level,
    /// Answer only once the quorum holds what is returned.
    pub wait_for_repair: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Got {
    /// The live siblings; none if the key is absent or deleted.
    pub siblings: Vec<LiveSibling>,
    /// Covers everything that was read; none if the key was never written.
    pub context: Option<Bytes>,
    /// Absent because it was deleted, or has expired.
    pub deleted: bool,
    /// The clock behind the context, for people and tests.
    pub clock: Clock,
    pub quorum: Option<Quorum>,
    pub replicas: Vec<ReplicaReport>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveSibling {
    pub value: Bytes,
    pub dot: Dot,
    /// When its coordinator wrote it.
    pub stamp: Stamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    pub key: ObjectKey,
    pub value: Value,
    /// The context of the read that this write answers. A write without one adds a sibling; a delete without one reads
    /// first and uses what it read.
    pub context: Option<Bytes>,
    pub request: RequestId,
    pub w: Level,
    pub pw: Level,
    /// For the read of a delete without context.
    pub r: Level,
}

/// A put of something that expires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutFor {
    pub put: Put,
    /// From when the node that is asked takes it up, by that node's clock. Has to be a
    /// [`Lifetime`](starling_core::wall::Lifetime). A request that had been carried out before is not told a new time.
    pub lifetime: Duration,
}

/// What a read found, and how long it is to last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GotLasting {
    pub got: Got,
    /// Of each sibling, in their order, when it expires; none if it stays.
    pub until: Vec<Option<WallTime>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Live siblings at the coordinator after the write, this one included.
    pub siblings: usize,
    /// If this write stands alone, a context that covers it: the next write of the same writer needs no read.
    pub context: Option<Bytes>,
    /// The request had been carried out before.
    pub repeated: bool,
    pub quorum: Quorum,
    pub acknowledged: Tally,
    pub replicas: Vec<ReplicaReport>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    pub bucket: BucketName,
    pub prefix: Bytes,
    /// Only keys behind this one.
    pub after: Option<Bytes>,
    /// At most [`MAX_PAGE`].
    pub limit: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysPage {
    /// Ascending; what is deleted or has expired is not listed.
    pub keys: Vec<Bytes>,
    /// Where the next page begins, if there is one. A page can be short, even empty, and have a next.
    pub next: Option<Bytes>,
}

/// Where a key lives, and what each of its replicas says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    pub token: Token,
    pub preference: PreferenceList,
    pub mode: SiblingMode,
    pub replicas: Vec<ReplicaView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaView {
    pub node: starling_core::ids::NodeId,
    /// Gossip takes it for alive.
    pub alive: bool,
    pub holds: Holding,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holding {
    Nothing,
    Copy { clock: Clock, siblings: usize },
    Unknown(String),
}

/// Why a request failed, by what its sender can do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum RequestError {
    /// Fix the request. Nothing was done.
    #[error("{0}")]
    Invalid(String),
    /// Try elsewhere or later. Nothing was done.
    #[error("this node {0}")]
    Refused(Refusal),
    /// Try elsewhere: this node does not serve, for this reason. Nothing was done.
    #[error("this node does not serve: {0}")]
    NotServing(String),
    /// Nothing was read for good; nothing was changed.
    #[error("read quorum not met: {} of {} answered", counted.primaries + counted.fallbacks, quorum.replicas())]
    ReadQuorumNotMet { quorum: Quorum, counted: Tally, replicas: Vec<ReplicaReport> },
    /// The write may survive. Repeating the same request is safe.
    #[error("write quorum not met: {} of {} acknowledged", acknowledged.primaries + acknowledged.fallbacks, quorum.replicas())]
    WriteOutcomeUnknown { quorum: Quorum, acknowledged: Tally, replicas: Vec<ReplicaReport> },
    /// A listing would have been incomplete. Nothing was changed.
    #[error("the listing would be incomplete: {0}")]
    Incomplete(String),
    /// Something is wrong with this node.
    #[error("{0}")]
    Internal(String),
}
