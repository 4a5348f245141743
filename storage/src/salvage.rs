//! Taking over what can still be read of a damaged store.
//!
//! The new store is another directory (R3): it takes over objects, and who is owed a confirmation of them, but none of the
//! marks by which the old one minted, no vote, and no log, which it learns anew from its peers. What could not be read it
//! gets from them as well, by filling up again (R8).

use bytes::Bytes;

use crate::engine::{Batch, Engine, EngineError, Entry, Space};
use crate::fold::HINT_ENTRY;
use crate::keys::{self, RecordKey};
use crate::meta;
use crate::record::Record;
use crate::store::read_ring;
use crate::trees::{self, TreeChanges};

/// Records that are in memory at once, values and all.
const RECORDS_AT_ONCE: usize = 64;

/// With its partition a key begins.
const PARTITION_BYTES: usize = 2;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Salvaged {
    pub records: u64,
    /// Records that could be read, and made no sense.
    pub senseless: u64,
    /// Places behind which nothing could be read up to the next key that was found.
    pub gaps: u64,
}

/// Copies all that can be read into an empty store.
///
/// # Errors
/// The new store takes nothing, or the layout log of the old one cannot be read.
pub fn salvage(from: &dyn Engine, to: &dyn Engine) -> Result<Salvaged, EngineError> {
    let mut salvaged = Salvaged::default();
    let mut begin = Batch::default();
    for run in meta::read_peer_runs(from)?.values() {
        meta::write_peer_run(&mut begin, run);
    }
    for forked in meta::read_forked(from)? {
        meta::write_forked(&mut begin, forked);
    }
    to.commit(begin)?;
    // Partition 0: where records begin, and a prefix to be passed over if nothing of it can be read.
    let mut at = 0_u16.to_be_bytes().to_vec();
    while let Some(page) = next_page(from, &at, &mut salvaged.gaps) {
        let Some((last, _)) = page.last() else { break };
        at = keys::next_after(last);
        let mut batch = Batch::default();
        for (key, value) in page {
            match keys::record_key(&key).zip(Record::decode(&value).ok()) {
                Some((place, record)) => {
                    take_over(&mut batch, &place, record);
                    salvaged.records += 1;
                }
                None => salvaged.senseless += 1,
            }
        }
        to.commit(batch)?;
    }
    if let Some(ring) = read_ring(from)? {
        trees::build(to, ring.read())?;
    }
    Ok(salvaged)
}

/// With its markers, and without what only the old directory may go on with.
fn take_over(batch: &mut Batch, place: &RecordKey, record: Record) {
    for target in &record.markers {
        batch.put(Space::Hints, place.hint_for(*target), Bytes::from_static(HINT_ENTRY));
    }
    TreeChanges::note_passing(batch, place, None, record.object.passing());
    let record = Record { mark: None, breadth: None, reaped: None, ..record };
    batch.put(Space::Objects, place.as_bytes(), record.encode());
}

/// What can be read from there on, or from the next key on that can be read at all; none if nothing can be.
fn next_page(engine: &dyn Engine, from: &[u8], gaps: &mut u64) -> Option<Vec<Entry>> {
    if let Ok(page) = engine.scan(Space::Objects, from, None, RECORDS_AT_ONCE) {
        return Some(page);
    }
    // What lies before the damage, one by one.
    if let Ok(page) = engine.scan(Space::Objects, from, None, 1) {
        return Some(page);
    }
    *gaps += 1;
    // The damage spans neighbouring keys, nobody knows how many: the longer what two keys have in common, the nearer they
    // are.
    let within = (PARTITION_BYTES..=from.len()).rev().filter_map(|length| keys::after_prefix(&from[..length]));
    let first = keys::partition_of(from).map_or(0, |partition| partition.0);
    let behind = (first..=u16::MAX).skip(2).map(|partition| partition.to_be_bytes().to_vec());
    within.chain(behind).find_map(|next| engine.scan(Space::Objects, &next, None, 1).ok())
}
