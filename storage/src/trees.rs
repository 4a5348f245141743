//! Hash trees on disk (`starling_core::tree`): kept in the same batch as the records they tell of, so exact after any crash.
//!
//! There are four kinds of entries in [`Space::Trees`]. A *leaf* for each key that is held, in the order of positions, so that
//! any branch can be summed up from one range. And the *sums* of the branches of one level, [`STORED_LEVEL`], so that the
//! upper levels cost little to sum up. And an entry for each *tombstone*, and for each object that *expires* as a whole, in
//! the order of time, so that those to be reaped are found without looking at all there is. The node's copy for somebody
//! else has its leaf too: should it become a primary of the key, the tree has it already.
//!
//! On disk: a sum's key is 0, the partition (16 bits, big-endian), the branch's number (8 bits) and the breadth; its value is
//! the format, the number of keys (64 bits) and the hash (128 bits). A leaf's key is 1, the partition, the position (64 bits)
//! and what the record's key has behind the partition; its value is the format, the breadth and the fingerprint (64 bits).
//! A tombstone's key is 2, the partition and what the record's key has behind it; its value is the format and the greatest
//! stamp (64 bits). The key of what expires is 3, the partition, the time of day at which it does (64 bits, milliseconds
//! since the Unix epoch) and what the record's key has behind the partition; its value is the format. These formats never
//! change without a new format byte.

use std::collections::BTreeMap;

use bytes::Bytes;
use starling_core::fault::{self, Fault};
use starling_core::layout::Layout;
use starling_core::name::ObjectKey;
use starling_core::object::{Object, Passing};
use starling_core::stamp::Stamp;
use starling_core::token::{Partition, PartitionCount};
use starling_core::tree::{Branch, Breadth, CHILDREN, Fingerprint, Position, Sum, Tree};
use starling_core::wall::WallTime;

use crate::engine::{Batch, Engine, EngineError, Space};
use crate::error::StoreError;
use crate::keys::{self, RecordKey};
use crate::record::Record;

/// The level whose sums are stored: 256 branches of a partition.
const STORED_LEVEL: u8 = 2;
const FORMAT: u8 = 1;
const SUMS: u8 = 0;
const LEAVES: u8 = 1;
const TOMBSTONES: u8 = 2;
const EXPIRING: u8 = 3;
/// Entries that are read at once.
const ENTRIES_AT_ONCE: usize = 512;
/// Records that are read and written anew at once, values and all.
const RECORDS_AT_ONCE: usize = 16;

/// What a record adds to its partition's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub key: ObjectKey,
    pub position: Position,
    pub breadth: Breadth,
    pub fingerprint: Fingerprint,
}

impl Leaf {
    /// None of an object that was never written.
    pub fn of(key: ObjectKey, object: &Object, breadth: Breadth, partitions: PartitionCount) -> Option<Leaf> {
        let position = Position::of(&key, partitions);
        let fingerprint = Fingerprint::of(object.clock());
        (!object.is_unwritten()).then_some(Leaf { key, position, breadth, fingerprint })
    }

    pub fn sum(&self) -> Sum {
        Sum::of(&self.key, self.fingerprint)
    }
}

/// Changes of trees that are gathered for one batch.
#[derive(Default)]
pub(crate) struct TreeChanges {
    /// By how much each stored sum changes.
    sums: BTreeMap<Vec<u8>, Sum>,
}

impl TreeChanges {
    /// One key's leaf in the place of another.
    pub fn replace(&mut self, batch: &mut Batch, partition: Partition, before: Option<Leaf>, after: Option<Leaf>) {
        let is_forgotten = |leaf: &Leaf| fault::is_on(Fault::StaleTree) && leaf.fingerprint.0.is_multiple_of(8);
        if before == after || after.as_ref().is_some_and(is_forgotten) {
            return;
        }
        if let Some(before) = before {
            self.change(partition, &before, |sum| sum.minus(before.sum()));
            batch.delete(Space::Trees, leaf_key(partition, before.position, &before.key));
        }
        if let Some(after) = after {
            self.change(partition, &after, |sum| sum.plus(after.sum()));
            batch.put(Space::Trees, leaf_key(partition, after.position, &after.key), leaf_value(&after));
        }
    }

    /// How the last of an object goes, before and after.
    pub fn note_passing(batch: &mut Batch, at: &RecordKey, before: Option<Passing>, after: Option<Passing>) {
        if before == after {
            return;
        }
        let key = |passing: Option<Passing>| passing.map(|passing| passing_key(at, passing));
        if let Some(before) = key(before).filter(|before| Some(before) != key(after).as_ref()) {
            batch.delete(Space::Trees, before);
        }
        if let Some(after) = after {
            batch.put(Space::Trees, passing_key(at, after), passing_value(after));
        }
    }

    fn change(&mut self, partition: Partition, leaf: &Leaf, change: impl FnOnce(Sum) -> Sum) {
        let sum = self.sums.entry(sum_key(partition, leaf.position, leaf.breadth)).or_default();
        *sum = change(*sum);
    }

    /// # Errors
    /// The present sums cannot be read.
    pub fn finish(self, engine: &dyn Engine, batch: &mut Batch) -> Result<(), EngineError> {
        let keys: Vec<&[u8]> = self.sums.keys().map(Vec::as_slice).collect();
        let found = engine.get_many(Space::Trees, &keys)?;
        for ((key, change), found) in self.sums.iter().zip(found) {
            let before = found.map(|bytes| read_sum(&bytes)).transpose()?.unwrap_or_default();
            match before.plus(*change) {
                sum if sum == Sum::default() => batch.delete(Space::Trees, key.as_slice()),
                sum => batch.put(Space::Trees, key.as_slice(), sum_value(sum)),
            }
        }
        Ok(())
    }
}

/// All entries of [`Space::Trees`] that these records come to, each with its leaf if it has one.
pub(crate) fn recomputed<'a>(
    records: impl Iterator<Item = (RecordKey, &'a Object, Option<Leaf>)>,
) -> BTreeMap<Vec<u8>, Bytes> {
    let (mut batch, mut trees) = (Batch::default(), TreeChanges::default());
    for (at, object, leaf) in records {
        trees.replace(&mut batch, at.partition(), None, leaf);
        TreeChanges::note_passing(&mut batch, &at, None, object.passing());
    }
    let sums = trees.sums.into_iter().map(|(key, sum)| (key, sum_value(sum)));
    let leaves = batch.changes().iter().filter_map(|change| Some((change.key.clone(), change.value.clone()?)));
    leaves.chain(sums).collect()
}

/// What a node holds of a partition, of buckets of at least some breadth. Each call sees the disk as it is then. Blocks.
pub struct PartitionTree<'a> {
    engine: &'a dyn Engine,
    least: Breadth,
}

impl<'a> PartitionTree<'a> {
    pub(crate) fn new(engine: &'a dyn Engine, least: Breadth) -> PartitionTree<'a> {
        PartitionTree { engine, least }
    }

    pub(crate) fn each_leaf(&self, branch: Branch, mut see: impl FnMut(Leaf)) -> Result<(), StoreError> {
        let (first, last) = branch.positions().into_inner();
        let mut from = position_start(branch.partition, first);
        let until = match last.0.checked_add(1) {
            Some(next) => Some(position_start(branch.partition, Position(next))),
            None => keys::after_prefix(&partition_start(LEAVES, branch.partition)),
        };
        loop {
            let found = self.engine.scan(Space::Trees, &from, until.as_deref(), ENTRIES_AT_ONCE)?;
            let Some((last, _)) = found.last() else { return Ok(()) };
            from = keys::next_after(last);
            for (key, value) in found {
                let leaf = read_leaf(&key, &value)?;
                if leaf.breadth >= self.least {
                    see(leaf);
                }
            }
        }
    }

    /// Of branches of the stored level, those that lie in a branch above.
    fn each_sum(&self, branch: Branch, mut see: impl FnMut(Position, Sum)) -> Result<(), StoreError> {
        let (first, last) = branch.positions().into_inner();
        let from = sum_start(branch.partition, first);
        let until = keys::after_prefix(&sum_start(branch.partition, last));
        let mut from = from;
        loop {
            let found = self.engine.scan(Space::Trees, &from, until.as_deref(), ENTRIES_AT_ONCE)?;
            let Some((last, _)) = found.last() else { return Ok(()) };
            from = keys::next_after(last);
            for (key, value) in found {
                let &[_, _, _, number, breadth] = &*key else { return Err(unreadable("a sum's key")) };
                if Breadth(breadth) >= self.least {
                    see(Position(u64::from(number) << (u64::BITS - u8::BITS)), read_sum(&value)?);
                }
            }
        }
    }
}

impl Tree for PartitionTree<'_> {
    type Error = StoreError;

    fn sum(&self, branch: Branch) -> Result<Sum, StoreError> {
        let mut sum = Sum::default();
        if branch.level() <= STORED_LEVEL {
            self.each_sum(branch, |_, stored| sum = sum.plus(stored))?;
        } else {
            self.each_leaf(branch, |leaf| sum = sum.plus(leaf.sum()))?;
        }
        Ok(sum)
    }

    fn sums_below(&self, branch: Branch) -> Result<Vec<Sum>, StoreError> {
        let below = branch.children();
        let mut sums = vec![Sum::default(); below.len().min(CHILDREN)];
        let mut add = |position: Position, sum: Sum| {
            let child = below.partition_point(|child| *child.positions().end() < position);
            if let Some(below) = sums.get_mut(child) {
                *below = below.plus(sum);
            }
        };
        if branch.level() < STORED_LEVEL {
            self.each_sum(branch, add)?;
        } else {
            self.each_leaf(branch, |leaf| add(leaf.position, leaf.sum()))?;
        }
        Ok(sums)
    }

    fn keys(&self, branch: Branch) -> Result<BTreeMap<ObjectKey, Fingerprint>, StoreError> {
        let mut found = BTreeMap::new();
        self.each_leaf(branch, |leaf| {
            found.insert(leaf.key, leaf.fingerprint);
        })?;
        Ok(found)
    }
}

/// Makes the trees of a store whose records were written before there were any, or before tombstones were found by them.
/// What an earlier attempt has done is passed over, and so is a record that cannot be read: it has no leaf, as a check of the
/// store will tell.
///
/// # Errors
/// The engine fails.
pub(crate) fn build(engine: &dyn Engine, layout: &Layout) -> Result<(), EngineError> {
    let mut from = Vec::new();
    loop {
        let found = engine.scan(Space::Objects, &from, None, RECORDS_AT_ONCE)?;
        let Some((last, _)) = found.last() else { return Ok(()) };
        from = keys::next_after(last);
        let (mut batch, mut trees) = (Batch::default(), TreeChanges::default());
        for (at, value) in &found {
            let place = keys::partition_of(at).zip(keys::object_of(at));
            let (Ok(record), Some((partition, key))) = (Record::decode(value), place) else {
                tracing::error!("a record cannot be read, and gets no leaf in the hash tree");
                continue;
            };
            let breadth = Breadth::of(key.bucket(), layout);
            let place = RecordKey::new(partition, &key);
            TreeChanges::note_passing(&mut batch, &place, None, record.object.passing());
            let leaf = Leaf::of(key, &record.object, breadth, layout.partitions());
            if record.breadth.is_none() && leaf.is_some() {
                trees.replace(&mut batch, partition, None, leaf);
                batch.put(Space::Objects, at.clone(), Record { breadth: Some(breadth), ..record }.encode());
            }
        }
        trees.finish(engine, &mut batch)?;
        if !batch.is_empty() {
            engine.commit(batch)?;
        }
    }
}

fn partition_start(kind: u8, partition: Partition) -> Vec<u8> {
    let [high, low] = partition.0.to_be_bytes();
    vec![kind, high, low]
}

fn position_start(partition: Partition, position: Position) -> Vec<u8> {
    let mut bytes = partition_start(LEAVES, partition);
    bytes.extend(position.0.to_be_bytes());
    bytes
}

fn leaf_key(partition: Partition, position: Position, key: &ObjectKey) -> Vec<u8> {
    let mut bytes = position_start(partition, position);
    bytes.extend_from_slice(RecordKey::new(partition, key).behind_partition());
    bytes
}

/// The keys of the sums of the stored branch that a position lies in.
fn sum_start(partition: Partition, position: Position) -> Vec<u8> {
    let mut bytes = partition_start(SUMS, partition);
    bytes.push((position.0 >> (u64::BITS - u8::BITS)) as u8);
    bytes
}

fn sum_key(partition: Partition, position: Position, breadth: Breadth) -> Vec<u8> {
    let mut bytes = sum_start(partition, position);
    bytes.push(breadth.0);
    bytes
}

fn tombstone_key(at: &RecordKey) -> Vec<u8> {
    [&[TOMBSTONES], at.as_bytes()].concat()
}

/// What expires from a time of day on begins there.
fn expiring_from(partition: Partition, at: WallTime) -> Vec<u8> {
    let mut bytes = expiring_start(partition);
    bytes.extend(at.0.to_be_bytes());
    bytes
}

fn expiring_key(at: &RecordKey, expires: WallTime) -> Vec<u8> {
    [&expiring_from(at.partition(), expires), at.behind_partition()].concat()
}

fn passing_key(at: &RecordKey, passing: Passing) -> Vec<u8> {
    match passing {
        Passing::Deleted { .. } => tombstone_key(at),
        Passing::Expires { at: expires } => expiring_key(at, expires),
    }
}

fn passing_value(passing: Passing) -> Bytes {
    let mut bytes = vec![FORMAT];
    match passing {
        Passing::Deleted { since } => bytes.extend(since.0.to_be_bytes()),
        Passing::Expires { .. } => {}
    }
    bytes.into()
}

/// The tombstones of a partition begin there.
pub(crate) fn tombstones_start(partition: Partition) -> Vec<u8> {
    partition_start(TOMBSTONES, partition)
}

/// The object that an entry under that key of [`Space::Trees`] says to be a tombstone.
pub(crate) fn key_of_tombstone(key: &[u8]) -> Option<ObjectKey> {
    keys::object_of(key.strip_prefix(&[TOMBSTONES])?)
}

/// What expires in a partition begins there.
pub(crate) fn expiring_start(partition: Partition) -> Vec<u8> {
    partition_start(EXPIRING, partition)
}

/// The object that an entry under that key of [`Space::Trees`] says to expire, and when.
pub(crate) fn key_of_expiring(key: &[u8]) -> Option<(WallTime, ObjectKey)> {
    let (partition, rest) = key.strip_prefix(&[EXPIRING])?.split_first_chunk::<2>()?;
    let (expires, rest) = rest.split_first_chunk::<8>()?;
    Some((WallTime(u64::from_be_bytes(*expires)), keys::object_of(&[partition, rest].concat())?))
}

/// Whether it is said of the record there that it goes so.
///
/// # Errors
/// The engine fails.
pub(crate) fn is_said_to_pass(engine: &dyn Engine, at: &RecordKey, passing: Passing) -> Result<bool, StoreError> {
    let found = engine.get(Space::Trees, &passing_key(at, passing))?;
    Ok(found.is_some_and(|value| value == passing_value(passing)))
}

/// Whether the record there is said to be a tombstone.
///
/// # Errors
/// The engine fails.
pub(crate) fn is_said_to_be_deleted(engine: &dyn Engine, at: &RecordKey) -> Result<bool, StoreError> {
    Ok(engine.get(Space::Trees, &tombstone_key(at))?.is_some())
}

/// Whether the record there is said to expire then.
///
/// # Errors
/// The engine fails.
pub(crate) fn is_said_to_expire(engine: &dyn Engine, at: &RecordKey, expires: WallTime) -> Result<bool, StoreError> {
    Ok(engine.get(Space::Trees, &expiring_key(at, expires))?.is_some())
}

/// Up to `limit` objects of a partition that expire by then, in the order of that and behind `after`.
///
/// # Errors
/// They cannot be read.
pub(crate) fn expired(
    engine: &dyn Engine,
    partition: Partition,
    by: WallTime,
    after: Option<&(WallTime, ObjectKey)>,
    limit: usize,
) -> Result<Vec<(WallTime, ObjectKey)>, StoreError> {
    let behind =
        |(at, key): &(WallTime, ObjectKey)| keys::next_after(&expiring_key(&RecordKey::new(partition, key), *at));
    let from = after.map_or_else(|| expiring_start(partition), behind);
    let until = match by.0.checked_add(1) {
        Some(next) => Some(expiring_from(partition, WallTime(next))),
        None => keys::after_prefix(&expiring_start(partition)),
    };
    let found = engine.scan(Space::Trees, &from, until.as_deref(), limit)?;
    let read = |(key, _): (Bytes, Bytes)| key_of_expiring(&key).ok_or_else(|| unreadable("an entry of what expires"));
    found.into_iter().map(read).collect()
}

/// Up to `limit` tombstones of a partition behind `after`, each since when.
///
/// # Errors
/// They cannot be read.
pub(crate) fn tombstones(
    engine: &dyn Engine,
    partition: Partition,
    after: Option<&ObjectKey>,
    limit: usize,
) -> Result<Vec<(ObjectKey, Stamp)>, StoreError> {
    let start = tombstones_start(partition);
    let until = keys::after_prefix(&start);
    let behind = |key| keys::next_after(&tombstone_key(&RecordKey::new(partition, key)));
    let from = after.map_or(start, behind);
    let found = engine.scan(Space::Trees, &from, until.as_deref(), limit)?;
    let read = |(key, value): (Bytes, Bytes)| {
        let name = key_of_tombstone(&key).ok_or_else(|| unreadable("a tombstone's entry"))?;
        Ok((name, read_tombstone(&value)?))
    };
    found.into_iter().map(read).collect()
}

fn read_tombstone(value: &[u8]) -> Result<Stamp, StoreError> {
    let damaged = || unreadable("a tombstone's entry");
    let &[FORMAT, ref stamp @ ..] = value else { return Err(damaged()) };
    Ok(Stamp(u64::from_be_bytes(stamp.try_into().map_err(|_| damaged())?)))
}

fn leaf_value(leaf: &Leaf) -> Bytes {
    let mut bytes = vec![FORMAT, leaf.breadth.0];
    bytes.extend(leaf.fingerprint.0.to_be_bytes());
    bytes.into()
}

fn sum_value(sum: Sum) -> Bytes {
    let mut bytes = vec![FORMAT];
    bytes.extend(sum.keys.to_be_bytes());
    bytes.extend(sum.hash.to_be_bytes());
    bytes.into()
}

pub(crate) fn leaves_start(partition: Partition) -> Vec<u8> {
    partition_start(LEAVES, partition)
}

/// The branches whose sums are stored.
pub(crate) fn stored_branches(partition: Partition) -> Vec<Branch> {
    let above = Branch::root(partition).children();
    above.into_iter().flat_map(Branch::children).collect()
}

/// The object whose leaf lies under that key of [`Space::Trees`].
pub(crate) fn key_of_leaf(key: &[u8]) -> Option<ObjectKey> {
    let (partition, rest) = key.strip_prefix(&[LEAVES])?.split_first_chunk::<2>()?;
    let (_position, rest) = rest.split_first_chunk::<8>()?;
    keys::object_of(&[partition, rest].concat())
}

/// # Errors
/// It cannot be read.
pub(crate) fn leaf_of(
    engine: &dyn Engine,
    partition: Partition,
    position: Position,
    key: &ObjectKey,
) -> Result<Option<Leaf>, StoreError> {
    let at = leaf_key(partition, position, key);
    engine.get(Space::Trees, &at)?.map(|value| read_leaf(&at, &value)).transpose()
}

/// The partition that an entry tells of.
pub(crate) fn partition_of(key: &[u8]) -> Option<Partition> {
    keys::partition_of(key.get(1..)?)
}

/// # Errors
/// It is not one that this build writes.
fn read_leaf(key: &[u8], value: &[u8]) -> Result<Leaf, StoreError> {
    let damaged = || unreadable("a leaf");
    let name = key_of_leaf(key).ok_or_else(damaged)?;
    let position = key.get(3..11).and_then(|bytes| bytes.try_into().ok()).ok_or_else(damaged)?;
    let &[FORMAT, breadth, ref fingerprint @ ..] = value else { return Err(damaged()) };
    let fingerprint = u64::from_be_bytes(fingerprint.try_into().map_err(|_| damaged())?);
    Ok(Leaf {
        key: name,
        position: Position(u64::from_be_bytes(position)),
        breadth: Breadth(breadth),
        fingerprint: Fingerprint(fingerprint),
    })
}

fn read_sum(value: &[u8]) -> Result<Sum, EngineError> {
    let damaged = || EngineError::Damaged("a sum of a hash tree cannot be read".to_owned());
    let Some((&FORMAT, rest)) = value.split_first() else { return Err(damaged()) };
    let (keys, hash) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
    let hash = hash.try_into().map_err(|_| damaged())?;
    Ok(Sum { keys: u64::from_be_bytes(*keys), hash: u128::from_be_bytes(hash) })
}

fn unreadable(what: &str) -> StoreError {
    StoreError::Damaged(format!("{what} of a hash tree cannot be read"))
}
