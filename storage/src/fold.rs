//! One batch of the writer: jobs folded one after another onto the records they touch (R4), then turned into one engine
//! batch. Pure but for reading the records first.
//!
//! Hint markers follow one rule (R9, R10). Whenever the object that this node holds without being a primary of it
//! changes, every current primary owes a confirmation: markers for all of them are set, confirmations so far forgotten. A
//! primary's confirmation counts if its clock covers the present one. When all current primaries have confirmed and no
//! marker is left, the copy goes, and its own mark with it. All of that is looked at here, in the step that does it.
//!
//! Current is who is a primary by the ring of this very batch: a job that was asked for in another epoch is refused before
//! it comes here. By a new ring markers are set anew, and what was confirmed by an old one is forgotten. While the layout
//! changes, a primary of some layouts only has markers too, for its counterparts in the others, so that its copy counts
//! there ([`Primaries::owed_by`]).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use starling_core::clock::Clock;
use starling_core::coordinate::{Coordinated, Write, coordinate};
use starling_core::fault::{self, Fault};
use starling_core::ids::NodeId;
use starling_core::mark::Minter;
use starling_core::name::{BucketName, ObjectKey};
use starling_core::object::{Object, Passing};
use starling_core::preference::Primaries;
use starling_core::reaping::{RoundsOver, agrees, can_write, is_guarded, may_mark, takes_in};
use starling_core::report::{Refusal, Role};
use starling_core::ring::Ring;
use starling_core::settings::Settings;
use starling_core::tree::{Breadth, Fingerprint, Position};

use crate::engine::{Batch, Engine, Space};
use crate::error::StoreError;
use crate::keys::RecordKey;
use crate::reaping::Reapings;
use crate::record::Record;
use crate::store::StoreLimits;
use crate::trees::{Leaf, TreeChanges};
use crate::writer::Reap;

/// An index entry says only that the marker exists; the byte is its format.
pub(crate) const HINT_ENTRY: &[u8] = &[1];

/// What the writer needs to know beyond the records.
pub(crate) struct Surroundings<'a> {
    pub node: NodeId,
    pub ring: &'a Ring,
    pub minter: Minter,
    pub limits: StoreLimits,
    pub settings: &'a Settings,
    pub disk_is_full: bool,
    /// Markers held for each target before this batch.
    pub hints: &'a BTreeMap<NodeId, u64>,
    pub reapings: &'a Reapings,
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

/// Where a key lies, and with whom. Found out once for each job.
pub(crate) struct Place {
    record: RecordKey,
    primaries: Primaries,
    /// This node is one of them.
    is_primary: bool,
    /// Who has to confirm what this node takes in.
    owed: BTreeSet<NodeId>,
}

impl Place {
    pub fn of(key: &ObjectKey, around: &Surroundings) -> Place {
        let primaries = around.ring.primaries(key);
        Place {
            record: RecordKey::new(around.ring.read().partition_of(key), key),
            is_primary: primaries.contains(around.node),
            owed: primaries.owed_by(around.node),
            primaries,
        }
    }
}

/// A record in the writer's hands.
#[derive(Default)]
struct Slot {
    now: Record,
    markers_before: BTreeSet<NodeId>,
    /// What it had in the hash tree.
    leaf_before: Option<(Breadth, Fingerprint)>,
    passing_before: Option<Passing>,
    /// Nothing is held; the object is what this node is bound to behave by (R11).
    is_guard: bool,
    changed: bool,
    #[cfg(feature = "deliberate-faults")]
    before: Record,
}

impl Slot {
    /// For whom a change of this record would leave a marker that is not there yet.
    fn new_markers(&self, place: &Place) -> Vec<NodeId> {
        place.owed.difference(&self.now.markers).copied().collect()
    }

    fn of_guard(guard: &Object) -> Slot {
        let now = Record { object: guard.clone(), ..Record::default() };
        Slot {
            is_guard: true,
            #[cfg(feature = "deliberate-faults")]
            before: now.clone(),
            now,
            ..Slot::default()
        }
    }

    fn holds_something(&self) -> bool {
        !self.is_guard && !self.now.object.is_unwritten()
    }

    /// From now on it is held as it is, and no round has marked it.
    fn write(&mut self) {
        (self.is_guard, self.changed) = (false, true);
        self.now.reaped = None;
    }
}

pub(crate) struct Fold<'a> {
    around: &'a Surroundings<'a>,
    engine: &'a dyn Engine,
    /// By how much the number of markers for each target has changed so far.
    hints: BTreeMap<NodeId, i64>,
    slots: BTreeMap<RecordKey, Result<Slot, StoreError>>,
}

impl<'a> Fold<'a> {
    /// Reads all records that the batch will touch, at once.
    pub fn read<'p>(
        engine: &'a dyn Engine,
        around: &'a Surroundings<'a>,
        places: impl Iterator<Item = &'p Place>,
    ) -> Self {
        let keys: BTreeSet<&RecordKey> = places.map(|place| &place.record).collect();
        let bytes: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
        let open = |key: &RecordKey, found: Option<Bytes>| match found {
            Some(bytes) => open_slot(&bytes),
            None => Ok(guard_of(around, key).map_or_else(Slot::default, Slot::of_guard)),
        };
        let slots = match engine.get_many(Space::Objects, &bytes) {
            Ok(found) => keys.into_iter().zip(found).map(|(key, found)| (key.clone(), open(key, found))).collect(),
            Err(error) => {
                let error = StoreError::from(error);
                keys.into_iter().map(|key| (key.clone(), Err(error.clone()))).collect()
            }
        };
        Fold { around, engine, hints: BTreeMap::new(), slots }
    }

    pub fn coordinate(&mut self, place: &Place, bucket: &BucketName, write: Write) -> Result<Minted, StoreError> {
        let slot = self.slot(place)?;
        if slot.is_guard && !can_write(&slot.now.object, &write) {
            return Err(StoreError::Refused(Refusal::BeingReaped));
        }
        let is_repeated = slot.now.object.traces_of(write.request).next().is_some();
        if !is_repeated {
            self.check_intake(place, &place.primaries.all())?;
        }
        let Surroundings { minter, limits, settings, .. } = *self.around;
        let limits = settings.of(bucket).limits_or(limits.object);
        let slot = self.slot(place)?;
        #[cfg(feature = "deliberate-faults")]
        if fault::is_on(Fault::BatchFromOneBase) {
            slot.now = slot.before.clone();
        }
        let how = coordinate(&mut slot.now.object, &mut slot.now.mark, write, &minter, &limits)?;
        let (object, is_guard) = (slot.now.object.clone(), slot.is_guard);
        if how == Coordinated::Minted || is_guard || self.is_counted_only_now(place)? {
            self.owe_confirmations(place)?;
        }
        Ok(Minted { object, how })
    }

    pub fn merge(&mut self, place: &Place, over: RoundsOver, object: &Object, role: Role) -> Result<(), StoreError> {
        let (epoch, partition) = (self.around.ring.epoch(), place.record.partition());
        if !self.around.reapings.fences.admit(epoch, partition, over) {
            return Err(StoreError::Refused(Refusal::Reaped));
        }
        match role {
            // Whoever sends to a primary must agree that it is one.
            Role::Primary if !place.is_primary => return Err(StoreError::Refused(Refusal::OtherLayout)),
            Role::Primary => self.check_intake(place, &[])?,
            Role::Fallback { stands_in_for } => self.check_intake(place, &[stands_in_for])?,
        }
        if self.take_in(place, object)? || self.is_counted_only_now(place)? {
            self.owe_confirmations(place)?;
        }
        Ok(())
    }

    /// What was copied before it was sent is owed to nobody yet, and is counted in every layout from now on.
    fn is_counted_only_now(&mut self, place: &Place) -> Result<bool, StoreError> {
        let slot = self.slot(place)?;
        Ok(slot.now.owed_in.is_none() && slot.holds_something() && !place.owed.is_empty())
    }

    /// Takes in what an old primary has, as one that is about to become one. It never counts as a copy made for somebody's
    /// write, so it is owed to nobody.
    pub fn copy(&mut self, place: &Place, object: &Object) -> Result<(), StoreError> {
        if !place.is_primary {
            return Err(StoreError::Refused(Refusal::OtherLayout));
        }
        self.check_intake(place, &[])?;
        if self.take_in(place, object)? && self.slot(place)?.now.owed_in.is_some() {
            // What it holds for somebody's write is more than was confirmed.
            self.owe_confirmations(place)?;
        }
        Ok(())
    }

    /// Merges an object into what is held; false if all of it was there.
    fn take_in(&mut self, place: &Place, object: &Object) -> Result<bool, StoreError> {
        let minter = self.around.minter;
        let slot = self.slot(place)?;
        let copied = minter.check(slot.now.mark.as_ref(), object.clock());
        copied.map_err(|copied| StoreError::Write(copied.into()))?;
        if slot.is_guard {
            // What only binds is held by nobody yet, and whoever is answered relies on it.
            let taken = takes_in(&slot.now.object, object);
            slot.now.object = taken.ok_or(StoreError::Refused(Refusal::BeingReaped))?;
        } else if slot.now.object.clock().covers_all(object.clock()) {
            // Under one clock there is one object.
            return Ok(false);
        } else {
            slot.now.object.merge(object);
        }
        slot.write();
        Ok(true)
    }

    /// A step of a round of reaping: whether it is done.
    pub fn reap(&mut self, place: &Place, step: &Reap) -> Result<bool, StoreError> {
        let slot = self.slot(place)?;
        let nothing = Object::default();
        let held = if slot.is_guard { &nothing } else { &slot.now.object };
        match step {
            Reap::Weigh { standing, tombstone, expired } => Ok(agrees(*standing, held, tombstone, *expired)),
            Reap::Mark { id, tombstone, expired } => {
                let may_go = place.is_primary && slot.now.markers.is_empty() && may_mark(held, tombstone, *expired);
                if may_go && slot.now.reaped != Some(*id) {
                    (slot.now.reaped, slot.changed) = (Some(*id), true);
                }
                Ok(may_go || fault::is_on(Fault::ReapWhilePrimaryLacks))
            }
            Reap::Forget { id } => {
                let is_marked = slot.now.reaped == Some(*id) && slot.now.markers.is_empty();
                if is_marked {
                    (slot.now, slot.changed) = (Record::default(), true);
                }
                Ok(is_marked)
            }
            Reap::PutBack { id } => {
                let is_marked = slot.now.reaped.take_if(|marked| marked == id).is_some();
                slot.changed |= is_marked;
                Ok(is_marked)
            }
        }
    }

    pub fn confirm(&mut self, place: &Place, by: NodeId, clock: &Clock) -> Result<Confirmed, StoreError> {
        self.readdress(place)?;
        let slot = self.slot(place)?;
        if !slot.now.markers.contains(&by) {
            return Ok(Confirmed::NothingHeld);
        }
        if !clock.covers_all(slot.now.object.clock()) && !fault::is_on(Fault::DropMarkerUnseen) {
            return Ok(Confirmed::Outdated);
        }
        slot.changed = true;
        slot.now.markers.remove(&by);
        slot.now.confirmed.insert(by);
        let confirmed =
            |primary: &NodeId| slot.now.confirmed.contains(primary) || fault::is_on(Fault::ConfirmByOldRing);
        let all_confirmed = place.primaries.all().iter().all(confirmed);
        let outcome = if place.is_primary || !slot.now.markers.is_empty() || !all_confirmed {
            Confirmed::MarkerDropped
        } else {
            slot.now = Record::default();
            Confirmed::CopyDropped
        };
        *self.hints.entry(by).or_insert(0) -= 1;
        Ok(outcome)
    }

    /// Sets the markers of what is held by the present ring, if they were set by another, and has its leaf where the ring
    /// has it. True if any markers are left then.
    pub fn readdress(&mut self, place: &Place) -> Result<bool, StoreError> {
        let epoch = self.around.ring.epoch();
        let slot = self.slot(place)?;
        let by_any_ring = slot.now.owed_in.is_some() && fault::is_on(Fault::ConfirmByOldRing);
        let is_outdated = slot.now.owed_in != Some(epoch) && !by_any_ring;
        // What a primary has without a marker was never counted elsewhere.
        let owes = slot.holds_something() && (slot.now.owed_in.is_some() || !place.is_primary);
        if is_outdated && owes {
            self.owe_confirmations(place)?;
        }
        let breadth = Breadth::of(place.record.object().bucket(), self.around.ring.read());
        let slot = self.slot(place)?;
        slot.changed |= slot.now.breadth.is_some_and(|present| present != breadth);
        Ok(!self.slot(place)?.now.markers.is_empty())
    }

    /// The batch that makes all of it durable, and by how much the number of markers for each target changes.
    ///
    /// # Errors
    /// The hash trees cannot be read.
    pub fn finish(self) -> Result<(Batch, BTreeMap<NodeId, i64>), StoreError> {
        let (mut batch, mut trees) = (Batch::default(), TreeChanges::default());
        let layout = self.around.ring.read();
        let readable = self.slots.into_iter().filter_map(|(key, slot)| Some((key, slot.ok()?)));
        for (key, mut slot) in readable.filter(|(_, slot)| slot.changed) {
            let name = key.object();
            let after =
                Leaf::of(name.clone(), &slot.now.object, Breadth::of(name.bucket(), layout), layout.partitions());
            let after = after.filter(|_| slot.now.reaped.is_none());
            TreeChanges::note_passing(&mut batch, &key, slot.passing_before, slot.now.object.passing());
            slot.now.breadth = after.as_ref().map(|leaf| leaf.breadth);
            let position = Position::of(&name, layout.partitions());
            let before =
                slot.leaf_before.map(|(breadth, fingerprint)| Leaf { key: name, position, breadth, fingerprint });
            trees.replace(&mut batch, key.partition(), before, after);
            if slot.now == Record::default() {
                batch.delete(Space::Objects, key.as_bytes());
            } else {
                batch.put(Space::Objects, key.as_bytes(), slot.now.encode());
            }
            for added in slot.now.markers.difference(&slot.markers_before) {
                batch.put(Space::Hints, key.hint_for(*added), Bytes::from_static(HINT_ENTRY));
            }
            for dropped in slot.markers_before.difference(&slot.now.markers) {
                batch.delete(Space::Hints, key.hint_for(*dropped));
            }
        }
        trees.finish(self.engine, &mut batch)?;
        Ok((batch, self.hints))
    }

    fn owe_confirmations(&mut self, place: &Place) -> Result<(), StoreError> {
        let epoch = self.around.ring.epoch();
        let slot = self.slot(place)?;
        let added = slot.new_markers(place);
        let dropped: Vec<NodeId> = slot.now.markers.difference(&place.owed).copied().collect();
        slot.write();
        slot.now.confirmed.clear();
        slot.now.markers.clone_from(&place.owed);
        slot.now.owed_in = (!place.owed.is_empty()).then_some(epoch);
        for target in added {
            *self.hints.entry(target).or_insert(0) += 1;
        }
        for target in dropped {
            *self.hints.entry(target).or_insert(0) -= 1;
        }
        Ok(())
    }

    /// Full disks and full hint queues refuse at intake; what is held stays (R10).
    fn check_intake(&mut self, place: &Place, stands_in_for: &[NodeId]) -> Result<(), StoreError> {
        if self.around.disk_is_full {
            return Err(StoreError::Refused(Refusal::DiskFull));
        }
        let added = self.slot(place)?.new_markers(place);
        if added.iter().any(|target| stands_in_for.contains(target) && self.hints_are_full(*target)) {
            return Err(StoreError::Refused(Refusal::HintsFull));
        }
        Ok(())
    }

    fn hints_are_full(&self, target: NodeId) -> bool {
        let before = self.around.hints.get(&target).copied().unwrap_or(0);
        let changed = self.hints.get(&target).copied().unwrap_or(0);
        before.saturating_add_signed(changed) >= self.around.limits.hints_per_target
    }

    fn slot(&mut self, place: &Place) -> Result<&mut Slot, StoreError> {
        let slot = self.slots.get_mut(&place.record).expect("the batch has read every key of its jobs");
        slot.as_mut().map_err(|error| error.clone())
    }
}

/// What this node is bound to behave by where it holds nothing.
fn guard_of<'a>(around: &Surroundings<'a>, at: &RecordKey) -> Option<&'a Object> {
    let guard = around.reapings.guard(around.ring.epoch(), at.partition(), || at.object())?;
    let is_primary = || around.ring.primaries(&at.object()).contains(around.node);
    Some(guard).filter(|guard| is_guarded(guard, is_primary()))
}

fn open_slot(bytes: &[u8]) -> Result<Slot, StoreError> {
    let unreadable = |error| StoreError::Damaged(format!("a record cannot be read: {error}"));
    let now = Record::decode(bytes).map_err(unreadable)?;
    Ok(Slot {
        passing_before: now.object.passing(),
        is_guard: false,
        markers_before: now.markers.clone(),
        leaf_before: now.breadth.map(|breadth| (breadth, Fingerprint::of(now.object.clock()))),
        #[cfg(feature = "deliberate-faults")]
        before: now.clone(),
        now,
        changed: false,
    })
}
