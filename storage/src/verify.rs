//! Checking what lies on the disk against itself: records can be read, and the hash trees say what they say.
//!
//! Writers go on meanwhile. A record and its leaf change in one batch, and clocks only grow: so what two reads of one of them
//! agree upon, with the other read between them, was so at that moment, and a difference that is seen so is one.

use std::sync::Arc;

use starling_core::layout::Layout;
use starling_core::name::ObjectKey;
use starling_core::object::Passing;
use starling_core::token::Partition;
use starling_core::tree::{Branch, Breadth, Position, Sum, Tree};
use starling_core::wall::WallTime;

use crate::engine::{Engine, Space};
use crate::error::StoreError;
use crate::keys::{self, RecordKey};
use crate::record::Record;
use crate::store::Store;
use crate::trees::{self, Leaf, PartitionTree};

/// Entries that are read at once, values and all.
const ENTRIES_AT_ONCE: usize = 64;
/// A thing that changes between two looks is looked at so often.
const MOST_LOOKS: usize = 100;
/// Differences of one partition that are told.
const MOST_DIFFERENCES: usize = 1000;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flaw {
    /// A record cannot be read.
    Unreadable { key: ObjectKey, reason: String },
    /// A record's leaf in the hash tree, or its entry among the tombstones or what expires, is another, or is not there.
    WrongLeaf(ObjectKey),
    /// A leaf of the hash tree, or an entry among the tombstones or what expires, belongs to no record.
    LeafWithoutRecord(ObjectKey),
    /// The stored sum of a branch of the hash tree is not that of its leaves.
    WrongSum(Branch),
    /// An entry whose own key makes no sense.
    Misplaced,
}

/// What a look at a partition came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    pub records: u64,
    /// Of all records.
    pub bytes: u64,
    pub flaws: Vec<Flaw>,
}

impl Store {
    /// Reads all that is held of a partition, and compares it with the partition's hash tree. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError`] if the store does not serve, or the engine cannot be read at all.
    pub fn verify(&self, partition: Partition) -> Result<Verified, StoreError> {
        let layout = self.serving_layout()?;
        let check = Check { engine: &*self.shared.engine, layout, partition };
        let mut verified = Verified::default();
        check.records(&mut verified)?;
        check.leaves(&mut verified)?;
        check.sums(&mut verified)?;
        verified.flaws.truncate(MOST_DIFFERENCES);
        Ok(verified)
    }
}

struct Check<'a> {
    engine: &'a dyn Engine,
    layout: Arc<Layout>,
    partition: Partition,
}

impl Check<'_> {
    fn records(&self, verified: &mut Verified) -> Result<(), StoreError> {
        let start = self.partition.0.to_be_bytes().to_vec();
        self.each(Space::Objects, start, |at, value| {
            verified.records += 1;
            verified.bytes += value.len() as u64;
            verified.flaws.extend(match keys::object_of(at) {
                Some(key) => self.flaw_of(key)?,
                None => Some(Flaw::Misplaced),
            });
            Ok(())
        })
    }

    fn leaves(&self, verified: &mut Verified) -> Result<(), StoreError> {
        self.each(Space::Trees, trees::leaves_start(self.partition), |at, _| {
            verified.flaws.extend(match trees::key_of_leaf(at) {
                // The record itself was looked at already, if there is one.
                Some(key) => self.stray_leaf(key)?,
                None => Some(Flaw::Misplaced),
            });
            Ok(())
        })?;
        self.each(Space::Trees, trees::tombstones_start(self.partition), |at, _| {
            verified.flaws.extend(match trees::key_of_tombstone(at) {
                Some(key) => self.stray_tombstone(key)?,
                None => Some(Flaw::Misplaced),
            });
            Ok(())
        })?;
        self.each(Space::Trees, trees::expiring_start(self.partition), |at, _| {
            verified.flaws.extend(match trees::key_of_expiring(at) {
                Some((expires, key)) => self.stray_expiry(key, expires)?,
                None => Some(Flaw::Misplaced),
            });
            Ok(())
        })
    }

    fn sums(&self, verified: &mut Verified) -> Result<(), StoreError> {
        let tree = PartitionTree::new(self.engine, Breadth::ANY);
        for branch in trees::stored_branches(self.partition) {
            let is_right =
                self.look_until_still(|| tree.sum(branch), |stored| Ok(tree.sum_of_leaves(branch)? == *stored))?;
            verified.flaws.extend((!is_right).then_some(Flaw::WrongSum(branch)));
        }
        Ok(())
    }

    /// What is wrong with a record.
    fn flaw_of(&self, key: ObjectKey) -> Result<Option<Flaw>, StoreError> {
        let at = RecordKey::new(self.partition, &key);
        let mut unreadable = None;
        let is_right = self.look_until_still(
            || Ok(self.engine.get(Space::Objects, at.as_bytes())?),
            |value| {
                unreadable = None;
                let Some(value) = value else { return Ok(true) };
                match Record::decode(value) {
                    Ok(record) => {
                        let is_noted = match record.object.passing() {
                            Some(passing) => trees::is_said_to_pass(self.engine, &at, passing)?,
                            None => true,
                        };
                        Ok(is_noted && self.leaf(&key)? == self.leaf_due(&key, &record))
                    }
                    Err(error) => {
                        unreadable = Some(error.to_string());
                        Ok(true)
                    }
                }
            },
        )?;
        Ok(match unreadable {
            Some(reason) => Some(Flaw::Unreadable { key, reason }),
            None => (!is_right).then_some(Flaw::WrongLeaf(key)),
        })
    }

    fn stray_leaf(&self, key: ObjectKey) -> Result<Option<Flaw>, StoreError> {
        let at = RecordKey::new(self.partition, &key);
        let is_right = self.look_until_still(
            || self.leaf(&key),
            |leaf| Ok(leaf.is_none() || self.engine.get(Space::Objects, at.as_bytes())?.is_some()),
        )?;
        Ok((!is_right).then_some(Flaw::LeafWithoutRecord(key)))
    }

    fn stray_tombstone(&self, key: ObjectKey) -> Result<Option<Flaw>, StoreError> {
        let at = RecordKey::new(self.partition, &key);
        let is_right = self.look_until_still(
            || trees::is_said_to_be_deleted(self.engine, &at),
            |is_said| Ok(!is_said || self.passes(&at, |passing| matches!(passing, Passing::Deleted { .. }))?),
        )?;
        Ok((!is_right).then_some(Flaw::LeafWithoutRecord(key)))
    }

    fn stray_expiry(&self, key: ObjectKey, expires: WallTime) -> Result<Option<Flaw>, StoreError> {
        let at = RecordKey::new(self.partition, &key);
        let is_right = self.look_until_still(
            || trees::is_said_to_expire(self.engine, &at, expires),
            |is_said| Ok(!is_said || self.passes(&at, |passing| passing == Passing::Expires { at: expires })?),
        )?;
        Ok((!is_right).then_some(Flaw::LeafWithoutRecord(key)))
    }

    /// Whether the record there goes so. What cannot be read is told of elsewhere.
    fn passes(&self, at: &RecordKey, so: impl Fn(Passing) -> bool) -> Result<bool, StoreError> {
        let Some(value) = self.engine.get(Space::Objects, at.as_bytes())? else { return Ok(false) };
        Ok(Record::decode(&value).map_or(true, |record| record.object.passing().is_some_and(so)))
    }

    fn leaf_due(&self, key: &ObjectKey, record: &Record) -> Option<Leaf> {
        Leaf::of(key.clone(), &record.object, record.breadth?, self.layout.partitions())
    }

    fn leaf(&self, key: &ObjectKey) -> Result<Option<Leaf>, StoreError> {
        let position = Position::of(key, self.layout.partitions());
        trees::leaf_of(self.engine, self.partition, position, key)
    }

    /// Whether `is_right` holds of what `read` returns before and after it alike.
    fn look_until_still<T: PartialEq>(
        &self,
        read: impl Fn() -> Result<T, StoreError>,
        mut is_right: impl FnMut(&T) -> Result<bool, StoreError>,
    ) -> Result<bool, StoreError> {
        let mut before = read()?;
        for _ in 0..MOST_LOOKS {
            let right = is_right(&before)?;
            let after = read()?;
            if after == before {
                return Ok(right);
            }
            before = after;
        }
        // What never stands still is alive, and is looked at the next time.
        Ok(true)
    }

    fn each(
        &self,
        space: Space,
        start: Vec<u8>,
        mut see: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let until = keys::after_prefix(&start);
        let mut from = start;
        loop {
            let found = self.engine.scan(space, &from, until.as_deref(), ENTRIES_AT_ONCE)?;
            let Some((last, _)) = found.last() else { return Ok(()) };
            from = keys::next_after(last);
            for (at, value) in &found {
                see(at, value)?;
            }
        }
    }
}

impl PartitionTree<'_> {
    /// As [`Tree::sum`], without what is stored of it.
    pub(crate) fn sum_of_leaves(&self, branch: Branch) -> Result<Sum, StoreError> {
        let mut sum = Sum::default();
        self.each_leaf(branch, |leaf| sum = sum.plus(leaf.sum()))?;
        Ok(sum)
    }
}
