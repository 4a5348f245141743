//! A look at what lies in an engine, past the store: for checking a disk, and for tests that want to see all of it.
//!
//! It reads and never writes. The format itself stays this crate's own; what is shown here is what it means.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use starling_core::ids::{DirectoryId, NodeId};
use starling_core::mark::OwnMark;
use starling_core::name::ObjectKey;
use starling_core::object::Object;
use starling_core::reaping::RoundId;
use starling_core::ring::{Entry as LogEntry, Epoch as LogEpoch};
use starling_core::token::{Partition, PartitionCount};
use starling_core::tree::Breadth;

use crate::engine::{Engine, EngineError, Entry, Space};
use crate::fold::HINT_ENTRY;
use crate::keys;
use crate::meta;
use crate::record::{Record, UnreadableRecord};
use crate::trees::{self, Leaf};

/// Entries that are in memory at once, values and all.
const ENTRIES_AT_ONCE: usize = 16;

/// Where a record lies, as its key in [`Space::Objects`] tells.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordPlace {
    pub partition: Partition,
    pub key: ObjectKey,
}

/// An entry of [`Space::Objects`]: what a replica holds of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldRecord {
    pub place: RecordPlace,
    pub object: Object,
    /// What this replica has minted (R2).
    pub mark: Option<OwnMark>,
    /// Primaries that owe a confirmation of the object's present clock.
    pub markers: BTreeSet<NodeId>,
    /// Primaries that have confirmed it since it last changed.
    pub confirmed: BTreeSet<NodeId>,
    /// By which ring these two are meant; none while both are empty.
    pub owed_in: Option<LogEpoch>,
    /// Under which breadth its leaf stands in the hash tree; none if it has none.
    pub breadth: Option<Breadth>,
    /// The round that has marked it as reaped.
    pub reaped: Option<RoundId>,
}

/// An entry of [`Space::Hints`]: the record at `place` has a marker for `target`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldHint {
    pub target: NodeId,
    pub place: RecordPlace,
}

/// An entry that says nothing to this build.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error("the key {0:02x?} names no object")]
    Misplaced(Bytes),
    #[error("the record of {:?} in partition {} cannot be read: {reason}", place.key, place.partition.0)]
    Record { place: RecordPlace, reason: UnreadableRecord },
    #[error("the hint for {} of {:?} has the format {format:02x?}, unknown to this build", hint.target, hint.place.key)]
    Hint { hint: HeldHint, format: Bytes },
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Where the record of a key of [`Space::Objects`] lies.
///
/// # Errors
/// [`InspectError::Misplaced`] if no record has such a key.
pub fn record_place(key: &[u8]) -> Result<RecordPlace, InspectError> {
    let place = keys::partition_of(key).zip(keys::object_of(key));
    let (partition, key) = place.ok_or_else(|| InspectError::Misplaced(Bytes::copy_from_slice(key)))?;
    Ok(RecordPlace { partition, key })
}

/// The key of [`Space::Objects`] under which a record lies.
pub fn key_of(place: &RecordPlace) -> Vec<u8> {
    keys::RecordKey::new(place.partition, &place.key).as_bytes().to_vec()
}

/// The target and the record of a key of [`Space::Hints`].
///
/// # Errors
/// [`InspectError::Misplaced`] if no hint has such a key.
pub fn hint_place(key: &[u8]) -> Result<HeldHint, InspectError> {
    let misplaced = || InspectError::Misplaced(Bytes::copy_from_slice(key));
    let (target, record) = keys::split_hint(key).ok_or_else(misplaced)?;
    Ok(HeldHint { target, place: record_place(record.as_bytes())? })
}

/// Reads an entry of [`Space::Objects`].
///
/// # Errors
/// [`InspectError`] if it is not one that this build writes.
pub fn record(key: &[u8], value: &[u8]) -> Result<HeldRecord, InspectError> {
    let place = record_place(key)?;
    match Record::decode(value) {
        Ok(Record { object, mark, markers, confirmed, owed_in, breadth, reaped }) => {
            Ok(HeldRecord { place, object, mark, markers, confirmed, owed_in, breadth, reaped })
        }
        Err(reason) => Err(InspectError::Record { place, reason }),
    }
}

/// Reads an entry of [`Space::Hints`].
///
/// # Errors
/// [`InspectError`] if it is not one that this build writes.
pub fn hint(key: &[u8], value: &[u8]) -> Result<HeldHint, InspectError> {
    let hint = hint_place(key)?;
    if value == HINT_ENTRY {
        return Ok(hint);
    }
    Err(InspectError::Hint { hint, format: Bytes::copy_from_slice(value) })
}

/// The partition whose hash tree an entry of [`Space::Trees`] belongs to.
///
/// # Errors
/// [`InspectError::Misplaced`] if it is none that this build writes.
pub fn tree_partition(key: &[u8]) -> Result<Partition, InspectError> {
    trees::partition_of(key).ok_or_else(|| InspectError::Misplaced(Bytes::copy_from_slice(key)))
}

/// What has to lie in [`Space::Trees`] for these records.
pub fn trees_of<'a>(
    records: impl Iterator<Item = &'a HeldRecord>,
    partitions: PartitionCount,
) -> BTreeMap<Vec<u8>, Bytes> {
    trees::recomputed(records.map(|record| {
        let RecordPlace { partition, key } = &record.place;
        let leaf = record.breadth.and_then(|breadth| Leaf::of(key.clone(), &record.object, breadth, partitions));
        (keys::RecordKey::new(*partition, key), &record.object, leaf)
    }))
}

/// All records of an engine, by partition, bucket and key. Ends at an error of the engine; an entry that cannot be read is
/// one of the items. Blocks on the disk.
pub fn records(engine: &dyn Engine) -> impl Iterator<Item = Result<HeldRecord, InspectError>> {
    entries(engine, Space::Objects).map(|entry| entry.and_then(|(key, value)| record(&key, &value)))
}

/// All hints of an engine, by target, partition, bucket and key. As [`records`] otherwise.
pub fn hints(engine: &dyn Engine) -> impl Iterator<Item = Result<HeldHint, InspectError>> {
    entries(engine, Space::Hints).map(|entry| entry.and_then(|(key, value)| hint(&key, &value)))
}

/// Whose the store is; none if it is nobody's yet.
///
/// # Errors
/// [`InspectError::Engine`], also if what is there cannot be read.
pub fn owner(engine: &dyn Engine) -> Result<Option<(NodeId, DirectoryId)>, InspectError> {
    Ok(meta::read_identity(engine)?)
}

/// How often the directory was started (R3).
///
/// # Errors
/// [`InspectError::Engine`], also if what is there cannot be read.
pub fn starts(engine: &dyn Engine) -> Result<u64, InspectError> {
    Ok(meta::read_run(engine)?.map_or(0, |run| run.counter))
}

/// How much of the layout log there is: the epoch of its last entry.
///
/// # Errors
/// [`InspectError::Engine`], also if what is there cannot be read.
pub fn epoch(engine: &dyn Engine) -> Result<LogEpoch, InspectError> {
    let last = meta::read_entries(engine, LogEpoch(1), usize::MAX)?.last().map(|entry| entry.epoch);
    let first = meta::read_first_layout(engine)?.map_or(LogEpoch(0), |_| LogEpoch(1));
    Ok(last.unwrap_or(first))
}

/// An entry of the layout log, if that is what lies under a key of [`Space::Meta`].
///
/// # Errors
/// [`InspectError::Engine`] if it cannot be read.
pub fn log_entry(key: &[u8], value: &[u8]) -> Result<Option<LogEntry>, InspectError> {
    Ok(meta::as_log_entry(key, value)?)
}

/// The partition that is full from then on, if that is what a change of [`Space::Meta`] says.
pub fn filled(key: &[u8], value: Option<&[u8]>) -> Option<Partition> {
    meta::partition_filling(key).filter(|_| value.is_none())
}

fn entries(engine: &dyn Engine, space: Space) -> impl Iterator<Item = Result<Entry, InspectError>> {
    let mut from = Some(Vec::new());
    let pages = std::iter::from_fn(move || {
        let page = engine.scan(space, from.as_deref()?, None, ENTRIES_AT_ONCE);
        let last = page.as_ref().ok().and_then(|page| page.last());
        from = last.map(|(key, _)| keys::next_after(key));
        Some(page)
    });
    pages.flat_map(|page| match page {
        Ok(entries) => entries.into_iter().map(Ok).collect::<Vec<_>>(),
        Err(error) => vec![Err(error.into())],
    })
}
