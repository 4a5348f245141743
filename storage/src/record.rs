//! What is stored under a key: the object, and what this replica alone knows of it.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use starling_core::codec;
use starling_core::ids::NodeId;
use starling_core::mark::OwnMark;
use starling_core::object::Object;

/// Longest record that is decoded. Far above what an object can grow to; guards against a damaged length only.
const MAX_RECORD_BYTES: usize = 1 << 30;
const FORMAT: u8 = 1;

/// A record that this build cannot read.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableRecord {
    #[error("it has format {0}, newer than this build")]
    NewerFormat(u8),
    #[error("it is empty")]
    Empty,
    #[error(transparent)]
    Damaged(#[from] codec::DecodeError),
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    pub object: Object,
    /// R2: local, and gone with the record.
    pub mark: Option<OwnMark>,
    /// Hint markers: primaries that have not confirmed the object's present clock. Only on copies that this node holds
    /// without being a primary.
    pub markers: BTreeSet<NodeId>,
    /// Primaries that have confirmed the present clock since it last changed.
    pub confirmed: BTreeSet<NodeId>,
}

impl Record {
    pub fn encode(&self) -> Bytes {
        let mut bytes = vec![FORMAT];
        bytes.extend(codec::encode(self));
        bytes.into()
    }

    pub fn decode(bytes: &[u8]) -> Result<Record, UnreadableRecord> {
        match bytes.split_first() {
            Some((&FORMAT, body)) => Ok(codec::decode(body, MAX_RECORD_BYTES, "a record")?),
            Some((&newer, _)) => Err(UnreadableRecord::NewerFormat(newer)),
            None => Err(UnreadableRecord::Empty),
        }
    }
}
