//! What is stored under a key: the object, and what this replica alone knows of it.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use starling_core::codec;
use starling_core::ids::NodeId;
use starling_core::mark::OwnMark;
use starling_core::object::Object;
use starling_core::reaping::RoundId;
use starling_core::ring::Epoch;
use starling_core::tree::Breadth;

/// Longest record that is decoded. Far above what an object can grow to; guards against a damaged length only.
const MAX_RECORD_BYTES: usize = 1 << 30;
/// Of a record that owes nothing to anybody, and has no leaf in a hash tree.
const PLAIN: u8 = 1;
/// As before, behind the epoch in which its markers were set.
const OWING: u8 = 2;
/// Behind the breadth of its leaf, and that epoch if there is one.
const TREED: u8 = 3;
/// Of a tombstone that is marked as reaped: behind the round, and the epoch of its markers.
const REAPED: u8 = 4;
/// Of an object with a value that expires, whatever else is to be said of it.
const EXPIRING: u8 = 5;

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
    /// without being a primary in each layout in effect.
    pub markers: BTreeSet<NodeId>,
    /// Primaries that have confirmed the present clock since it last changed.
    pub confirmed: BTreeSet<NodeId>,
    /// By which ring the two sets above are meant; none while both are empty.
    #[serde(skip)]
    pub owed_in: Option<Epoch>,
    /// Under which breadth it has its leaf in the partition's hash tree; none if it has no leaf.
    #[serde(skip)]
    pub breadth: Option<Breadth>,
    /// The round that has marked it as reaped (R11): it has no leaf meanwhile.
    #[serde(skip)]
    pub reaped: Option<RoundId>,
}

impl Record {
    pub fn encode(&self) -> Bytes {
        if self.object.siblings().iter().any(|sibling| sibling.value.until().is_some()) {
            let Record { breadth, reaped, owed_in, .. } = self;
            return [vec![EXPIRING], codec::encode(&(breadth, reaped, owed_in, self))].concat().into();
        }
        if let Some(round) = self.reaped {
            return [vec![REAPED], codec::encode(&(round, self.owed_in, self))].concat().into();
        }
        let bytes = match (self.breadth, self.owed_in) {
            (Some(breadth), owed_in) => [vec![TREED], codec::encode(&(breadth, owed_in, self))],
            (None, Some(epoch)) => [vec![OWING], codec::encode(&(epoch, self))],
            (None, None) => [vec![PLAIN], codec::encode(self)],
        };
        bytes.concat().into()
    }

    pub fn decode(bytes: &[u8]) -> Result<Record, UnreadableRecord> {
        match bytes.split_first() {
            Some((&PLAIN, body)) => {
                let record: Record = codec::decode(body, MAX_RECORD_BYTES, "a record")?;
                let owes = !(record.markers.is_empty() && record.confirmed.is_empty());
                Ok(Record { owed_in: owes.then_some(Epoch(1)), ..record })
            }
            Some((&OWING, body)) => {
                let (epoch, record): (Epoch, Record) = codec::decode(body, MAX_RECORD_BYTES, "a record")?;
                Ok(Record { owed_in: Some(epoch), ..record })
            }
            Some((&TREED, body)) => {
                let (breadth, owed_in, record): (Breadth, Option<Epoch>, Record) =
                    codec::decode(body, MAX_RECORD_BYTES, "a record")?;
                Ok(Record { breadth: Some(breadth), owed_in, ..record })
            }
            Some((&REAPED, body)) => {
                let (round, owed_in, record): (RoundId, Option<Epoch>, Record) =
                    codec::decode(body, MAX_RECORD_BYTES, "a record")?;
                Ok(Record { reaped: Some(round), owed_in, ..record })
            }
            Some((&EXPIRING, body)) => {
                let (breadth, reaped, owed_in, record): (_, _, _, Record) =
                    codec::decode(body, MAX_RECORD_BYTES, "a record")?;
                Ok(Record { breadth, reaped, owed_in, ..record })
            }
            Some((&newer, _)) => Err(UnreadableRecord::NewerFormat(newer)),
            None => Err(UnreadableRecord::Empty),
        }
    }
}
