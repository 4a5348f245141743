//! What is durable on one disk, followed batch by batch.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use starling_core::clock::Clock;
use starling_core::ids::{DirectoryId, NodeId};
use starling_core::name::ObjectKey;
use starling_core::token::{Partition, PartitionCount};
use starling_storage::inspect::{self, HeldRecord};
use starling_storage::{Batch, Space};

use crate::kernel::time::Moment;

/// What a node's disks held when they were lost, the last of them at that time.
pub struct Lost {
    pub at: Moment,
    pub held: BTreeMap<ObjectKey, Clock>,
}

pub struct Mirror {
    pub directory: DirectoryId,
    /// What the disk held that was there before.
    lost: Option<Lost>,
    records: BTreeMap<ObjectKey, HeldRecord>,
    hints: BTreeMap<ObjectKey, BTreeSet<NodeId>>,
    trees: BTreeMap<Vec<u8>, Bytes>,
    /// What the last batch replaced.
    before: BTreeMap<ObjectKey, Option<HeldRecord>>,
}

impl Mirror {
    pub fn new(directory: DirectoryId) -> Mirror {
        let (records, hints, trees, before) = Default::default();
        Mirror { directory, lost: None, records, hints, trees, before }
    }

    /// Of a disk that has come in the place of one that was lost.
    pub fn after_loss(directory: DirectoryId, lost: Lost) -> Mirror {
        Mirror { lost: Some(lost), ..Mirror::new(directory) }
    }

    pub fn has_lost_a_disk(&self) -> bool {
        self.lost.is_some()
    }

    /// What disks held that were lost before this one came.
    pub fn lost_before(&self) -> BTreeMap<ObjectKey, Clock> {
        self.lost.as_ref().map(|lost| lost.held.clone()).unwrap_or_default()
    }

    pub fn record(&self, key: &ObjectKey) -> Option<&HeldRecord> {
        self.records.get(key)
    }

    pub fn records(&self) -> impl Iterator<Item = &HeldRecord> {
        self.records.values()
    }

    /// What is held of each key.
    pub fn clocks(&self) -> BTreeMap<ObjectKey, Clock> {
        self.records().map(|record| (record.place.key.clone(), record.object.clock().clone())).collect()
    }

    pub fn hints_of(&self, key: &ObjectKey) -> BTreeSet<NodeId> {
        self.hints.get(key).cloned().unwrap_or_default()
    }

    /// All that are held, by target.
    pub fn hints(&self) -> impl Iterator<Item = (&ObjectKey, NodeId)> {
        self.hints.iter().flat_map(|(key, targets)| targets.iter().map(move |target| (key, *target)))
    }

    pub fn covers(&self, key: &ObjectKey, clock: &Clock) -> bool {
        self.record(key).is_some_and(|held| held.object.clock().covers_all(clock))
    }

    /// It does, or did before it was lost: what was confirmed was confirmed.
    pub fn has_covered(&self, key: &ObjectKey, clock: &Clock) -> bool {
        self.has_covered_since(Moment::default(), key, clock)
    }

    /// It does, or did before it was lost, if that was not before then.
    pub fn has_covered_since(&self, then: Moment, key: &ObjectKey, clock: &Clock) -> bool {
        let lost = self.lost.as_ref().filter(|lost| lost.at >= then).and_then(|lost| lost.held.get(key));
        self.covers(key, clock) || lost.is_some_and(|held| held.covers_all(clock))
    }

    /// The disk holds these records again, and what goes with them.
    pub fn restore(&mut self, records: impl IntoIterator<Item = HeldRecord>, partitions: PartitionCount) {
        for record in records {
            let key = record.place.key.clone();
            self.hints.insert(key.clone(), record.markers.clone());
            self.records.insert(key, record);
        }
        self.trees = inspect::trees_of(self.records.values(), partitions);
    }

    /// Whether the hash tree of a partition says what the records say.
    pub fn has_right_tree(&self, partition: Partition, partitions: PartitionCount) -> bool {
        let records = self.records.values().filter(|record| record.place.partition == partition);
        let expected = inspect::trees_of(records, partitions);
        let is_of_it = |key: &[u8]| inspect::tree_partition(key).is_ok_and(|of| of == partition);
        self.trees.iter().filter(|(key, _)| is_of_it(key)).eq(&expected)
    }

    /// Applies a batch; returns the keys whose records or markers it touches.
    pub fn apply(&mut self, batch: &Batch) -> BTreeSet<ObjectKey> {
        self.before.clear();
        let mut touched = BTreeSet::new();
        for change in batch.changes() {
            match change.space {
                Space::Meta => {}
                Space::Objects => {
                    let place = inspect::record_place(&change.key).expect("records lie where they should");
                    let record = change
                        .value
                        .as_ref()
                        .map(|value| inspect::record(&change.key, value).expect("the product reads what it writes"));
                    let before = match record {
                        Some(record) => self.records.insert(place.key.clone(), record),
                        None => self.records.remove(&place.key),
                    };
                    self.before.entry(place.key.clone()).or_insert(before);
                    touched.insert(place.key);
                }
                Space::Trees => match &change.value {
                    Some(value) => drop(self.trees.insert(change.key.clone(), value.clone())),
                    None => drop(self.trees.remove(&change.key)),
                },
                Space::Hints => {
                    let hint = inspect::hint_place(&change.key).expect("hints lie where they should");
                    let targets = self.hints.entry(hint.place.key.clone()).or_default();
                    if change.value.is_some() {
                        targets.insert(hint.target)
                    } else {
                        targets.remove(&hint.target)
                    };
                    touched.insert(hint.place.key);
                }
            }
        }
        touched
    }

    /// What the last batch made of a record.
    pub fn change_of(&self, key: &ObjectKey) -> (Option<HeldRecord>, Option<HeldRecord>) {
        let after = self.records.get(key).cloned();
        let before = self.before.get(key).cloned().unwrap_or_else(|| after.clone());
        (before, after)
    }
}
