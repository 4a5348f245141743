//! The node's own affairs on disk: its runs, its peers' runs, its layouts. Each value starts with a format byte.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use starling_core::codec;
use starling_core::ids::{DirectoryId, NodeId, Run};
use starling_core::layout::{Layout, MAX_LAYOUT_BYTES};

use crate::engine::{Batch, Engine, EngineError, Space};

const FORMAT: u8 = 1;
const IDENTITY: &[u8] = b"identity";
const RUN: &[u8] = b"run";
const RETIRED: &[u8] = b"retired";
const PEER_RUN: &[u8] = b"peer-run/";
const FORKED: &[u8] = b"forked/";
const LAYOUT: &[u8] = b"layout/";
/// The ends of the prefixes above: `/` + 1.
const PEER_RUN_END: &[u8] = b"peer-run0";
const FORKED_END: &[u8] = b"forked0";
const LAYOUT_END: &[u8] = b"layout0";
const MAX_PEER_RUNS: usize = 100_000;

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

pub(crate) fn read_newest_layout(engine: &dyn Engine) -> Result<Option<Layout>, EngineError> {
    let chain = engine.scan(Space::Meta, LAYOUT, Some(LAYOUT_END), usize::MAX)?;
    chain.last().map(|(_, bytes)| decode(bytes)).transpose()
}

pub(crate) fn write_layout(batch: &mut Batch, layout: &Layout) {
    write(batch, &[LAYOUT, &layout.version().0.to_be_bytes()].concat(), layout);
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
            codec::decode(body, MAX_LAYOUT_BYTES, "a meta value").map_err(|error| damaged(error.to_string()))
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
