//! The peer service: what nodes ask of each other, on connections of class peer and bulk.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use starling_core::clock::Clock;
use starling_core::get::Standing;
use starling_core::layout::LayoutVersion;
use starling_core::name::{BucketName, ObjectKey};
use starling_core::object::Object;
use starling_core::report::{Refusal, Role};
use starling_core::token::Partition;

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
    async fn buckets(layout: LayoutVersion) -> Result<Vec<BucketName>, PeerError>;
    /// Milliseconds since the Unix epoch by the node's clock.
    async fn clock() -> u64;
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    pub layout: LayoutVersion,
    pub key: ObjectKey,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadReply {
    pub standing: Standing,
    pub object: Option<Object>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store {
    pub layout: LayoutVersion,
    pub key: ObjectKey,
    pub object: Object,
    /// As what the receiver is meant to hold it.
    pub role: Role,
}

/// A batch of keys that the sender holds without being their primary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    pub layout: LayoutVersion,
    pub hints: Vec<(ObjectKey, Clock)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferReply {
    /// For each hint whether the object is wanted. If not, everything up to its clock is durable here.
    pub wanted: Vec<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    pub layout: LayoutVersion,
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
