//! One batch of the writer: jobs folded one after another onto the records they touch (R4), then turned into one engine
//! batch. Pure but for reading the records first.
//!
//! Hint markers follow one rule (R9, R10). Whenever the object that this node holds without being a primary of it
//! changes, every current primary owes a confirmation: markers for all of them are set, confirmations so far forgotten. A
//! primary's confirmation counts if its clock covers the present one. When all current primaries have confirmed and no
//! marker is left, the copy goes, and its own mark with it. All of that is looked at here, in the step that does it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use starling_core::clock::Clock;
use starling_core::coordinate::{Coordinated, Write, coordinate};
use starling_core::ids::NodeId;
use starling_core::layout::Layout;
use starling_core::mark::Minter;
use starling_core::name::ObjectKey;
use starling_core::object::Object;
use starling_core::report::{Refusal, Role};

use crate::engine::{Batch, Engine, Space};
use crate::error::StoreError;
use crate::keys::RecordKey;
use crate::record::Record;
use crate::store::StoreLimits;

/// An index entry says only that the marker exists; the byte is its format.
const HINT_ENTRY: &[u8] = &[1];

/// What the writer needs to know beyond the records.
pub(crate) struct Surroundings<'a> {
    pub node: NodeId,
    pub layout: &'a Layout,
    pub minter: Minter,
    pub limits: StoreLimits,
    pub disk_is_full: bool,
    /// Markers held for each target before this batch.
    pub hints: &'a BTreeMap<NodeId, u64>,
}

/// What a coordinator gets back: the merged object to send on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minted {
    pub object: Object,
    pub how: Coordinated,
}

/// What became of the copy whose clock a primary has confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmed {
    /// The copy has changed since: the confirmation does not cover it.
    Outdated,
    /// The marker is gone; other primaries still owe theirs.
    MarkerDropped,
    /// All have confirmed: the copy is gone.
    CopyDropped,
    /// No copy, or no marker, was there.
    NothingHeld,
}

/// A record in the writer's hands.
struct Slot {
    before: Option<Record>,
    now: Record,
}

pub(crate) struct Fold<'a> {
    around: &'a Surroundings<'a>,
    /// Markers held for each target, those of this batch included.
    hints: BTreeMap<NodeId, u64>,
    slots: BTreeMap<RecordKey, Result<Slot, StoreError>>,
}

impl<'a> Fold<'a> {
    /// Reads all records that the batch will touch, at once.
    pub fn read(engine: &dyn Engine, around: &'a Surroundings<'a>, keys: &BTreeSet<RecordKey>) -> Self {
        let bytes: Vec<&[u8]> = keys.iter().map(RecordKey::as_bytes).collect();
        let slots = match engine.get_many(Space::Objects, &bytes) {
            Ok(found) => keys.iter().cloned().zip(found.into_iter().map(open_slot)).collect(),
            Err(error) => {
                let error = StoreError::from(error);
                keys.iter().map(|key| (key.clone(), Err(error.clone()))).collect()
            }
        };
        Fold { around, hints: around.hints.clone(), slots }
    }

    pub fn coordinate(&mut self, key: &ObjectKey, write: Write) -> Result<Minted, StoreError> {
        let is_repeated = self.slot(key)?.now.object.traces_of(write.request).next().is_some();
        if !is_repeated {
            self.check_intake(key, &self.primaries(key))?;
        }
        let Surroundings { minter, limits, .. } = *self.around;
        let slot = self.slot(key)?;
        let how = coordinate(&mut slot.now.object, &mut slot.now.mark, write, &minter, &limits.object)?;
        let object = slot.now.object.clone();
        if how == Coordinated::Minted {
            self.owe_confirmations(key)?;
        }
        Ok(Minted { object, how })
    }

    pub fn merge(&mut self, key: &ObjectKey, object: &Object, role: Role) -> Result<(), StoreError> {
        self.check_role(key, role)?;
        match role {
            Role::Primary => self.check_intake(key, &[])?,
            Role::Fallback { stands_in_for } => self.check_intake(key, &[stands_in_for])?,
        }
        let minter = self.around.minter;
        let slot = self.slot(key)?;
        let copied = minter.check(slot.now.mark.as_ref(), object.clock());
        copied.map_err(|copied| StoreError::Write(copied.into()))?;
        let known = slot.now.object.clock().clone();
        slot.now.object.merge(object);
        if *slot.now.object.clock() != known {
            self.owe_confirmations(key)?;
        }
        Ok(())
    }

    pub fn confirm(&mut self, key: &ObjectKey, by: NodeId, clock: &Clock) -> Result<Confirmed, StoreError> {
        let primaries = self.primaries(key);
        let is_primary = primaries.contains(&self.around.node);
        let slot = self.slot(key)?;
        if !slot.now.markers.contains(&by) {
            return Ok(Confirmed::NothingHeld);
        }
        if !clock.covers_all(slot.now.object.clock()) {
            return Ok(Confirmed::Outdated);
        }
        slot.now.markers.remove(&by);
        slot.now.confirmed.insert(by);
        let all_confirmed = primaries.iter().all(|primary| slot.now.confirmed.contains(primary));
        let outcome = if is_primary || !slot.now.markers.is_empty() || !all_confirmed {
            Confirmed::MarkerDropped
        } else {
            slot.now = Record::default();
            Confirmed::CopyDropped
        };
        self.hints.entry(by).and_modify(|held| *held = held.saturating_sub(1));
        Ok(outcome)
    }

    /// The batch that makes all of it durable, and by how much the number of markers for each target changes.
    pub fn finish(self) -> (Batch, BTreeMap<NodeId, i64>) {
        let mut batch = Batch::default();
        let mut hints = BTreeMap::new();
        for (key, slot) in self.slots.into_iter().filter_map(|(key, slot)| Some((key, slot.ok()?))) {
            let before = slot.before.unwrap_or_default();
            if before == slot.now {
                continue;
            }
            if slot.now == Record::default() {
                batch.delete(Space::Objects, key.as_bytes());
            } else {
                batch.put(Space::Objects, key.as_bytes(), slot.now.encode());
            }
            for added in slot.now.markers.difference(&before.markers) {
                batch.put(Space::Hints, key.hint_for(*added), Bytes::from_static(HINT_ENTRY));
                *hints.entry(*added).or_insert(0) += 1;
            }
            for dropped in before.markers.difference(&slot.now.markers) {
                batch.delete(Space::Hints, key.hint_for(*dropped));
                *hints.entry(*dropped).or_insert(0) -= 1;
            }
        }
        (batch, hints)
    }

    fn owe_confirmations(&mut self, key: &ObjectKey) -> Result<(), StoreError> {
        let added = self.new_markers(key)?;
        for target in &added {
            *self.hints.entry(*target).or_insert(0) += 1;
        }
        let slot = self.slot(key)?;
        slot.now.confirmed.clear();
        slot.now.markers.extend(added);
        Ok(())
    }

    /// Whoever sends to a primary must agree that it is one.
    fn check_role(&self, key: &ObjectKey, role: Role) -> Result<(), StoreError> {
        match role {
            Role::Primary if !self.primaries(key).contains(&self.around.node) => {
                Err(StoreError::Refused(Refusal::OtherLayout))
            }
            Role::Primary | Role::Fallback { .. } => Ok(()),
        }
    }

    /// Full disks and full hint queues refuse at intake; what is held stays (R10).
    fn check_intake(&mut self, key: &ObjectKey, stands_in_for: &[NodeId]) -> Result<(), StoreError> {
        if self.around.disk_is_full {
            return Err(StoreError::Refused(Refusal::DiskFull));
        }
        let added = self.new_markers(key)?;
        let held = |target: &NodeId| self.hints.get(target).copied().unwrap_or(0);
        let is_full = |target: &NodeId| held(target) >= self.around.limits.hints_per_target;
        if added.iter().any(|target| stands_in_for.contains(target) && is_full(target)) {
            return Err(StoreError::Refused(Refusal::HintsFull));
        }
        Ok(())
    }

    /// For whom a change of this key would leave a marker that is not here yet.
    fn new_markers(&mut self, key: &ObjectKey) -> Result<Vec<NodeId>, StoreError> {
        let primaries = self.primaries(key);
        if primaries.contains(&self.around.node) {
            return Ok(Vec::new());
        }
        let slot = self.slot(key)?;
        Ok(primaries.into_iter().filter(|primary| !slot.now.markers.contains(primary)).collect())
    }

    fn primaries(&self, key: &ObjectKey) -> Vec<NodeId> {
        let layout = self.around.layout;
        layout.primaries(layout.partition_of(key), layout.replicas_of(key.bucket())).collect()
    }

    fn slot(&mut self, key: &ObjectKey) -> Result<&mut Slot, StoreError> {
        let record_key = RecordKey::new(self.around.layout.partition_of(key), key);
        let slot = self.slots.get_mut(&record_key).expect("the batch has read every key of its jobs");
        slot.as_mut().map_err(|error| error.clone())
    }
}

fn open_slot(bytes: Option<Bytes>) -> Result<Slot, StoreError> {
    let before = bytes.map(|bytes| Record::decode(&bytes)).transpose();
    let before = before.map_err(|error| StoreError::Engine(format!("a record cannot be read: {error}")))?;
    Ok(Slot { now: before.clone().unwrap_or_default(), before })
}
