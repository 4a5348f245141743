//! The node's own affairs on disk: its runs, its peers' runs, the layout log, its votes, how far it has copied or filled up
//! again. The log begins with the layout that `init` made; decrees follow, by their epoch. Each value starts with a format byte.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use starling_core::change::Change;
use starling_core::choice::Vote;
use starling_core::codec;
use starling_core::filling::Filling;
use starling_core::ids::{DirectoryId, NodeId, Run};
use starling_core::layout::{Layout, LayoutVersion, MAX_LAYOUT_BYTES};
use starling_core::name::BucketName;
use starling_core::reaping::{Bound, RoundId, RoundsOver};
use starling_core::ring::{Decree, Entry, Epoch, Ring};
use starling_core::settings::{Registers, Settings};
use starling_core::token::Partition;
use starling_core::transition::Pull;
use starling_core::tree::Breadth;

use crate::decrees::Pulled;
use crate::engine::{Batch, Engine, EngineError, Space};

const FORMAT: u8 = 1;
const IDENTITY: &[u8] = b"identity";
const RUN: &[u8] = b"run";
const RETIRED: &[u8] = b"retired";
const PEER_RUN: &[u8] = b"peer-run/";
const FORKED: &[u8] = b"forked/";
const LAYOUT: &[u8] = b"layout/";
const DECREE: &[u8] = b"decree/";
const VOTE: &[u8] = b"vote/";
const COPIED: &[u8] = b"copied";
const PULL: &[u8] = b"pull/";
const PULL_END: &[u8] = b"pull0";
const STAGED: &[u8] = b"staged";
const TREES: &[u8] = b"trees";
const FILLING: &[u8] = b"filling/";
const SUCCESSOR: &[u8] = b"successor";
const BREADTHS: &[u8] = b"breadths";
const TOMBSTONES: &[u8] = b"tombstones";
const BOUND: &[u8] = b"bound/";
const ROUNDS_OVER: &[u8] = b"rounds-over/";
const LAST_ROUND: &[u8] = b"last-round/";
const SETTINGS: &[u8] = b"settings/";
/// The ends of the prefixes above: `/` + 1.
const PEER_RUN_END: &[u8] = b"peer-run0";
const FORKED_END: &[u8] = b"forked0";
const DECREE_END: &[u8] = b"decree0";
const FILLING_END: &[u8] = b"filling0";
const BOUND_END: &[u8] = b"bound0";
const ROUNDS_OVER_END: &[u8] = b"rounds-over0";
const LAST_ROUND_END: &[u8] = b"last-round0";
const SETTINGS_END: &[u8] = b"settings0";
const MAX_PEER_RUNS: usize = 100_000;
/// A vote may hold a layout, and little else.
const MAX_VALUE_BYTES: usize = MAX_LAYOUT_BYTES + (1 << 16);

/// This directory's present start, and how the last one ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OwnRun {
    pub counter: u64,
    pub nonce: u64,
    /// Set by a clean stop, cleared by the next start.
    pub stopped_cleanly: bool,
    /// Every run from this one to the last ended cleanly: the marks made since may be continued.
    pub clean_since: u64,
}

impl OwnRun {
    /// The run that begins now, with bits that are drawn for it.
    pub fn next(previous: Option<OwnRun>, drawn: u32) -> OwnRun {
        let nonce = Run::nonce_after(previous.map(|previous| previous.nonce), drawn);
        let counter = previous.map_or(1, |previous| previous.counter + 1);
        let clean_since = match previous {
            Some(previous) if previous.stopped_cleanly => previous.clean_since,
            _ => counter,
        };
        OwnRun { counter, nonce, stopped_cleanly: false, clean_since }
    }
}

/// The identity inside of the store: a store that was moved under another directory's identity is noticed.
pub(crate) fn read_identity(engine: &dyn Engine) -> Result<Option<(NodeId, DirectoryId)>, EngineError> {
    read(engine, IDENTITY)
}

pub(crate) fn write_identity(batch: &mut Batch, node: NodeId, directory: DirectoryId) {
    write(batch, IDENTITY, &(node, directory));
}

pub(crate) fn read_run(engine: &dyn Engine) -> Result<Option<OwnRun>, EngineError> {
    read(engine, RUN)
}

pub(crate) fn write_run(batch: &mut Batch, run: &OwnRun) {
    write(batch, RUN, run);
}

/// Why this directory may never serve again, if it may not.
pub(crate) fn read_retired(engine: &dyn Engine) -> Result<Option<String>, EngineError> {
    read(engine, RETIRED)
}

pub(crate) fn write_retired(batch: &mut Batch, reason: &str) {
    write(batch, RETIRED, &reason);
}

pub(crate) fn read_peer_runs(engine: &dyn Engine) -> Result<BTreeMap<DirectoryId, Run>, EngineError> {
    let found = engine.scan(Space::Meta, PEER_RUN, Some(PEER_RUN_END), MAX_PEER_RUNS)?;
    found.iter().map(|(_, bytes)| decode(bytes).map(|run: Run| (run.directory, run))).collect()
}

pub(crate) fn write_peer_run(batch: &mut Batch, run: &Run) {
    write(batch, &[PEER_RUN, &run.directory.0.to_be_bytes()].concat(), run);
}

/// Directories that are known to have been copied: two lines of starts were met.
pub(crate) fn read_forked(engine: &dyn Engine) -> Result<BTreeSet<DirectoryId>, EngineError> {
    let found = engine.scan(Space::Meta, FORKED, Some(FORKED_END), MAX_PEER_RUNS)?;
    found.iter().map(|(_, bytes)| decode(bytes)).collect()
}

pub(crate) fn write_forked(batch: &mut Batch, directory: DirectoryId) {
    write(batch, &[FORKED, &directory.0.to_be_bytes()].concat(), &directory);
}

/// The layout that the log begins with.
pub(crate) fn read_first_layout(engine: &dyn Engine) -> Result<Option<Layout>, EngineError> {
    read(engine, &in_order(LAYOUT, 1))
}

pub(crate) fn write_first_layout(batch: &mut Batch, layout: &Layout) {
    write(batch, &in_order(LAYOUT, 1), layout);
}

/// Up to `limit` entries of the log behind `after`, without the first.
pub(crate) fn read_entries(engine: &dyn Engine, after: Epoch, limit: usize) -> Result<Vec<Entry>, EngineError> {
    let found = engine.scan(Space::Meta, &in_order(DECREE, after.0 + 1), Some(DECREE_END), limit)?;
    found.iter().map(|(_, bytes)| decode(bytes)).collect()
}

pub(crate) fn write_entry(batch: &mut Batch, entry: &Entry) {
    write(batch, &in_order(DECREE, entry.epoch.0), entry);
}

/// What lies under that key, if it is an entry of the log.
pub(crate) fn as_log_entry(key: &[u8], value: &[u8]) -> Result<Option<Entry>, EngineError> {
    if key.starts_with(LAYOUT) {
        return decode(value).map(Ring::first_entry).map(Some);
    }
    if key.starts_with(DECREE) { decode(value).map(Some) } else { Ok(None) }
}

/// What this node has promised and accepted for the entry of that epoch.
pub(crate) fn read_vote(engine: &dyn Engine, epoch: Epoch) -> Result<Vote<Decree>, EngineError> {
    Ok(read(engine, &in_order(VOTE, epoch.0))?.unwrap_or_default())
}

pub(crate) fn write_vote(batch: &mut Batch, epoch: Epoch, vote: &Vote<Decree>) {
    write(batch, &in_order(VOTE, epoch.0), vote);
}

pub(crate) fn delete_vote(batch: &mut Batch, epoch: Epoch) {
    batch.delete(Space::Meta, in_order(VOTE, epoch.0));
}

/// The newest layout of which this node has all that it has to copy.
pub(crate) fn read_copied(engine: &dyn Engine) -> Result<Option<LayoutVersion>, EngineError> {
    read(engine, COPIED)
}

pub(crate) fn write_copied(batch: &mut Batch, version: LayoutVersion) {
    write(batch, COPIED, &version);
}

/// How far each pull for a layout has come; those for other layouts are not told.
pub(crate) fn read_pulls(engine: &dyn Engine, version: LayoutVersion) -> Result<BTreeMap<Pull, Pulled>, EngineError> {
    let found = engine.scan(Space::Meta, PULL, Some(PULL_END), usize::MAX)?;
    let all = found.iter().map(|(_, bytes)| decode::<(LayoutVersion, Pull, Pulled)>(bytes));
    all.filter(|pull| pull.as_ref().map_or(true, |(of, ..)| *of == version))
        .map(|pull| pull.map(|(_, pull, pulled)| (pull, pulled)))
        .collect()
}

pub(crate) fn write_pull(batch: &mut Batch, version: LayoutVersion, pull: &Pull, pulled: &Pulled) {
    let at = [PULL, &pull.partition.0.to_be_bytes(), &pull.source.0.to_be_bytes()].concat();
    write(batch, &at, &(version, pull, pulled));
}

/// Once all has been copied nobody asks how far each pull has come.
pub(crate) fn delete_pulls(engine: &dyn Engine, batch: &mut Batch) -> Result<(), EngineError> {
    let found = engine.scan(Space::Meta, PULL, Some(PULL_END), usize::MAX)?;
    found.into_iter().for_each(|(key, _)| batch.delete(Space::Meta, key));
    Ok(())
}

/// Changes of the ring that were staged here, in their order.
pub(crate) fn read_staged(engine: &dyn Engine) -> Result<Vec<Change>, EngineError> {
    Ok(read(engine, STAGED)?.unwrap_or_default())
}

pub(crate) fn write_staged(batch: &mut Batch, changes: &[Change]) {
    write(batch, STAGED, &changes);
}

/// Whether every record has its leaf in a hash tree, and every tombstone its entry.
pub(crate) fn has_trees(engine: &dyn Engine) -> Result<bool, EngineError> {
    Ok(read::<()>(engine, TREES)?.is_some() && read::<()>(engine, TOMBSTONES)?.is_some())
}

pub(crate) fn write_has_trees(batch: &mut Batch) {
    write(batch, TREES, &());
    write(batch, TOMBSTONES, &());
}

/// The rounds of reaping that this node is bound by.
pub(crate) fn read_bound(engine: &dyn Engine) -> Result<Vec<Bound>, EngineError> {
    let found = engine.scan(Space::Meta, BOUND, Some(BOUND_END), usize::MAX)?;
    found.iter().map(|(_, bytes)| decode(bytes)).collect()
}

pub(crate) fn write_bound(batch: &mut Batch, bound: &Bound) {
    write(batch, &[BOUND, &bound.round.id.partition.0.to_be_bytes()].concat(), bound);
}

pub(crate) fn delete_bound(batch: &mut Batch, partition: Partition) {
    batch.delete(Space::Meta, [BOUND, &partition.0.to_be_bytes()].concat());
}

/// The last round of each partition that has bound this node and does not any more.
pub(crate) fn read_last_rounds(engine: &dyn Engine) -> Result<Vec<RoundId>, EngineError> {
    let found = engine.scan(Space::Meta, LAST_ROUND, Some(LAST_ROUND_END), usize::MAX)?;
    found.iter().map(|(_, bytes)| decode(bytes)).collect()
}

pub(crate) fn write_last_round(batch: &mut Batch, id: RoundId) {
    write(batch, &[LAST_ROUND, &id.partition.0.to_be_bytes()].concat(), &id);
}

/// Which rounds are over, of each partition, and of which epoch.
pub(crate) fn read_rounds_over(engine: &dyn Engine) -> Result<Vec<(Epoch, Partition, RoundsOver)>, EngineError> {
    let found = engine.scan(Space::Meta, ROUNDS_OVER, Some(ROUNDS_OVER_END), usize::MAX)?;
    found.iter().map(|(_, bytes)| decode(bytes)).collect()
}

pub(crate) fn write_rounds_over(batch: &mut Batch, epoch: Epoch, partition: Partition, over: RoundsOver) {
    write(batch, &[ROUNDS_OVER, &partition.0.to_be_bytes()].concat(), &(epoch, partition, over));
}

/// The partitions that are filling, each with whom it has been compared.
pub(crate) fn read_filling(engine: &dyn Engine) -> Result<Filling, EngineError> {
    let found = engine.scan(Space::Meta, FILLING, Some(FILLING_END), usize::MAX)?;
    let compared: Result<_, _> =
        found.iter().map(|(_, bytes)| decode::<(Partition, BTreeSet<NodeId>)>(bytes)).collect();
    compared.map(Filling::from_parts)
}

/// How far a partition is that is filling; nothing is kept of one that is full.
pub(crate) fn write_filling(batch: &mut Batch, partition: Partition, compared: Option<&BTreeSet<NodeId>>) {
    let at = [FILLING, &partition.0.to_be_bytes()].concat();
    match compared {
        Some(compared) => write(batch, &at, &(partition, compared)),
        None => batch.delete(Space::Meta, at),
    }
}

/// The partition of which a key tells how far it is filled, if it is such a key.
pub(crate) fn partition_filling(key: &[u8]) -> Option<Partition> {
    let number = key.strip_prefix(FILLING)?.try_into().ok()?;
    Some(Partition(u16::from_be_bytes(number)))
}

/// The directory that is to come in the place of this one.
pub(crate) fn read_successor(engine: &dyn Engine) -> Result<Option<DirectoryId>, EngineError> {
    read(engine, SUCCESSOR)
}

pub(crate) fn write_successor(batch: &mut Batch, directory: DirectoryId) {
    write(batch, SUCCESSOR, &directory);
}

/// In which part of the hash trees the keys of which buckets have their leaves; of others they have them where all have them.
pub(crate) fn read_breadths(engine: &dyn Engine) -> Result<BTreeMap<BucketName, Breadth>, EngineError> {
    Ok(read(engine, BREADTHS)?.unwrap_or_default())
}

pub(crate) fn write_breadths(batch: &mut Batch, breadths: &BTreeMap<BucketName, Breadth>) {
    write(batch, BREADTHS, breadths);
}

/// The settings of all buckets that have, or had, some.
pub(crate) fn read_settings(engine: &dyn Engine) -> Result<Settings, EngineError> {
    let found = engine.scan(Space::Meta, SETTINGS, Some(SETTINGS_END), usize::MAX)?;
    let buckets: Result<Vec<(BucketName, Registers)>, _> = found.iter().map(|(_, bytes)| decode(bytes)).collect();
    buckets.map(Settings::from_parts)
}

pub(crate) fn write_settings(batch: &mut Batch, bucket: &BucketName, registers: &Registers) {
    write(batch, &[SETTINGS, bucket.as_str().as_bytes()].concat(), &(bucket, registers));
}

fn in_order(prefix: &[u8], number: u64) -> Vec<u8> {
    [prefix, &number.to_be_bytes()].concat()
}

fn read<T: DeserializeOwned>(engine: &dyn Engine, key: &[u8]) -> Result<Option<T>, EngineError> {
    engine.get(Space::Meta, key)?.map(|bytes| decode(&bytes)).transpose()
}

fn write<T: Serialize>(batch: &mut Batch, key: &[u8], value: &T) {
    let mut bytes = vec![FORMAT];
    bytes.extend(codec::encode(value));
    batch.put(Space::Meta, key, bytes);
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, EngineError> {
    let damaged = |reason: String| EngineError::Damaged(reason);
    match bytes.split_first() {
        Some((&FORMAT, body)) => {
            codec::decode(body, MAX_VALUE_BYTES, "a meta value").map_err(|error| damaged(error.to_string()))
        }
        Some((newer, _)) => Err(damaged(format!("a meta value has format {newer}, newer than this build"))),
        None => Err(damaged("a meta value is empty".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_trusted_back_to_the_last_unclean_stop() {
        let first = OwnRun::next(None, 7);
        assert_eq!((first.counter, first.clean_since), (1, 1));
        let after_clean = OwnRun::next(Some(OwnRun { stopped_cleanly: true, ..first }), 8);
        assert_eq!((after_clean.counter, after_clean.clean_since), (2, 1));
        let after_crash = OwnRun::next(Some(after_clean), 9);
        assert_eq!((after_crash.counter, after_crash.clean_since), (3, 3));
    }
}
