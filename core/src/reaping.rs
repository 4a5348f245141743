//! Reaping: how a tombstone goes for good (R11), and what has expired (R12).
//!
//! A tombstone that one replica forgets while an older state of the key is left anywhere is a deleted write that comes back.
//! So nothing is reaped by its age. Tombstones go in *rounds*, each over many keys of one partition, led by the partition's
//! first primary ([`Reaping`]):
//!
//! 1. **Asking.** Every member is asked about each key. A primary agrees that holds the tombstone and nothing else ("nothing"
//!    is no answer for a primary, and none that is filling is heard); everybody else agrees that holds nothing of the key
//!    ([`agrees`]). Members answer when they are up, not all at once, so an answer is durable and **binds**: until the end
//!    of the round, whoever holds nothing behaves as if it held the tombstone ([`Bound::guard`]), and takes in no older state
//!    but with it.
//! 2. **Marking.** When all members agree about a key, its primaries mark the tombstone as reaped, if it is still as it was.
//!    What is marked has no leaf in the hash tree: replicas that are not equally far do not quarrel about it.
//! 3. **Ending.** What all primaries have marked is deleted, and every member takes note that the round is over. Where
//!    nothing is left to be deleted it is only called off.
//!
//! By then nobody holds an older state. But one may still be under way, read before its sender had agreed, and a process may
//! stand still for as long as it likes in between. So whatever is sent says up to which round of its partition its sender
//! knew them to be over before it read ([`RoundsOver`]), and who knows of a later one does not take it. A round is over only
//! once all members were bound by it: what is read by somebody who knows that cannot be older. A round that is called off
//! stands in nobody's way: otherwise rounds that come to nothing would keep replicas from becoming equal, and that is what
//! they wait for.
//!
//! A round belongs to an epoch of the ring, and ends with it: no request of another epoch is served, so the rounds are
//! counted anew. What is marked and not deleted by then is put back, which is only a tombstone; what was deleted somewhere
//! had been agreed upon by all. A node that has left may hold copies until it has brought them home, and nobody can bind it:
//! there are no rounds until it is said to be empty, or declared dead ([`crate::ring::Ring::may_reap`]).
//!
//! What has expired for good goes in the same rounds (R12): an object of which nothing is left but values that have expired,
//! a good while ago ([`is_gone`]). That is a question to a clock, and a clock can be wrong; so each primary asks its own, and
//! one that was set of late does not agree; and it is asked again before it marks, when all others have answered. A round
//! carries such objects without their values, which would be too much for members that hold nothing of them. So those cannot
//! merge what comes with what binds them, and take in only what covers it ([`takes_in`]). Primaries need no such guard: the
//! round has no more to do with what one of them lacks.
//!
//! What is missing: reaping of histories in clocks.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::coordinate::Write;
use crate::fault::{self, Fault};
use crate::ids::NodeId;
use crate::name::ObjectKey;
use crate::object::{Object, Passing, SiblingMode};
use crate::report::Refusal;
use crate::ring::Epoch;
use crate::token::Partition;
use crate::wall::WallTime;

/// Up to which of its numbers the rounds of a partition are over, of those of one epoch: the last that has deleted anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct RoundsOver(pub u64);

/// What a node knows of the rounds of an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fences {
    of: Option<Epoch>,
    over: BTreeMap<Partition, RoundsOver>,
}

impl Fences {
    pub fn over(&self, epoch: Epoch, partition: Partition) -> RoundsOver {
        let known = if self.of == Some(epoch) { self.over.get(&partition) } else { None };
        known.copied().unwrap_or_default()
    }

    /// All partitions of which a round is over in that epoch.
    pub fn all(&self, epoch: Epoch) -> BTreeMap<Partition, RoundsOver> {
        if self.of == Some(epoch) { self.over.clone() } else { BTreeMap::new() }
    }

    /// Whether what was read by somebody who knew so many to be over may be taken in: it is not older than what is reaped.
    pub fn admit(&self, epoch: Epoch, partition: Partition, over: RoundsOver) -> bool {
        over >= self.over(epoch, partition) || fault::is_on(Fault::ForgetRoundsOver)
    }

    /// Somebody knows that so many are over. What is known of an earlier epoch is forgotten; true if this is news.
    pub fn learn(&mut self, epoch: Epoch, partition: Partition, over: RoundsOver) -> bool {
        if self.of < Some(epoch) {
            *self = Fences { of: Some(epoch), over: BTreeMap::new() };
        }
        let is_news = self.of == Some(epoch) && over > self.over(epoch, partition);
        if is_news {
            self.over.insert(partition, over);
        }
        is_news
    }
}

/// Which round it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RoundId {
    pub epoch: Epoch,
    pub partition: Partition,
    /// Of this epoch and partition, from 1. Never used again.
    pub number: u64,
}

impl RoundId {
    /// The next, of a leader who knows those to be over and has itself ended, or called off, the one of number `last`.
    pub fn next(epoch: Epoch, partition: Partition, over: RoundsOver, last: u64) -> RoundId {
        RoundId { epoch, partition, number: over.0.max(last) + 1 }
    }

    /// What is over when this one is.
    pub fn over(self) -> RoundsOver {
        RoundsOver(self.number)
    }
}

/// What a round is about: the tombstones, and what has expired, as they were when it began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    pub id: RoundId,
    /// Without values ([`Object::outline`]).
    pub tombstones: BTreeMap<ObjectKey, Object>,
}

/// A round that this node is bound by, as it is made durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    pub round: Round,
    /// Of the one who leads it: what it has begun to have deleted. Decided once.
    pub ending: Option<BTreeSet<ObjectKey>>,
}

impl Bound {
    pub fn by(round: Round) -> Bound {
        Bound { round, ending: None }
    }

    /// What to behave as if one held it, in that epoch, if one holds nothing of the key.
    pub fn guard(&self, epoch: Epoch, key: &ObjectKey) -> Option<&Object> {
        let binds = self.round.id.epoch == epoch && !fault::is_on(Fault::ForgetBindingAnswer);
        self.round.tombstones.get(key).filter(|_| binds)
    }
}

/// What a member is to a key, when it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Primary,
    /// It may lack what it should have (R8).
    FillingPrimary,
    Other,
}

/// Whether a primary may mark what it holds, as it agreed to: it is as it was, and gone by its clock still.
pub fn may_mark(held: &Object, tombstone: &Object, expired: Expired) -> bool {
    is_all_of(held, tombstone) && believes_gone(held, expired)
}

/// Whether a member agrees that a tombstone may go: its primaries hold that and nothing else, and everybody else nothing.
/// What has expired by then is as good as a tombstone to a primary.
pub fn agrees(standing: Standing, held: &Object, tombstone: &Object, expired: Expired) -> bool {
    match standing {
        Standing::Primary => {
            let holds_it = is_all_of(held, tombstone) || fault::is_on(Fault::ReapWhilePrimaryLacks);
            holds_it && believes_gone(tombstone, expired)
        }
        Standing::FillingPrimary => false,
        Standing::Other => held.is_unwritten(),
    }
}

/// What a node can say of values that expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    /// Those are gone for good that had expired by then: its own clock, less a margin for the errors of clocks.
    By(WallTime),
    /// Its clock cannot be relied on: it takes none for gone.
    Unknown,
}

impl Expired {
    pub fn by(self) -> Option<WallTime> {
        match self {
            Expired::By(then) => Some(then),
            Expired::Unknown => None,
        }
    }
}

/// Whether nothing of an object is left for any reader.
pub fn is_gone(object: &Object, expired: Expired) -> bool {
    match object.passing() {
        Some(Passing::Deleted { .. }) => true,
        Some(Passing::Expires { at }) => expired.by().is_some_and(|expired| at <= expired),
        None => false,
    }
}

fn believes_gone(object: &Object, expired: Expired) -> bool {
    is_gone(object, expired) || fault::is_on(Fault::ExpireByOneClock)
}

/// Whether a node goes by a guard where it holds nothing. One without its values is for those who are no primaries.
pub fn is_guarded(guard: &Object, is_primary: bool) -> bool {
    guard.is_tombstone() || !is_primary
}

/// What a node that holds nothing, and is bound by `guard`, makes of what comes; none if it cannot take that in.
pub fn takes_in(guard: &Object, coming: &Object) -> Option<Object> {
    if guard.is_tombstone() || fault::is_on(Fault::MergeWithoutValues) {
        let mut merged = guard.clone();
        merged.merge(coming);
        return Some(merged);
    }
    coming.clock().covers_all(guard.clock()).then(|| coming.clone())
}

/// Whether a node that holds nothing, and is bound by `guard`, can coordinate a write: none of the values that it does not
/// have may be left beside it.
pub fn can_write(guard: &Object, write: &Write) -> bool {
    let covers = match write.mode {
        SiblingMode::Keep => write.seen.clock.covers_all(guard.clock()),
        SiblingMode::LastWriteWins => true,
    };
    let is_repeated = guard.traces_of(write.request).next().is_some();
    guard.is_tombstone() || (covers && !is_repeated) || fault::is_on(Fault::MergeWithoutValues)
}

/// Whether what is held is the tombstone and nothing else: under one clock there is one object.
pub fn is_all_of(held: &Object, tombstone: &Object) -> bool {
    held.clock() == tombstone.clock()
}

/// How far a round has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// Whether it may go.
    Asking,
    /// To mark it.
    Marking,
    /// That the round is over, and to delete it.
    Ending,
    Over,
}

/// A round, as its leader sees it. It goes on after a crash: asking and marking again changes nothing, and what is to be
/// deleted was made durable before anybody was told ([`Bound::ending`]).
#[derive(Debug, Clone)]
pub struct Reaping {
    id: RoundId,
    leader: NodeId,
    members: BTreeSet<NodeId>,
    /// Who has to mark each key.
    primaries: BTreeMap<ObjectKey, BTreeSet<NodeId>>,
    stage: Stage,
    /// Keys that nobody has objected to.
    left: BTreeSet<ObjectKey>,
    heard: BTreeSet<NodeId>,
}

impl Reaping {
    /// Begins, or goes on with, a round that its leader is bound by.
    pub fn new(
        bound: &Bound,
        leader: NodeId,
        members: BTreeSet<NodeId>,
        primaries: impl Fn(&ObjectKey) -> BTreeSet<NodeId>,
    ) -> Reaping {
        let keys: BTreeSet<ObjectKey> = bound.round.tombstones.keys().cloned().collect();
        let asks_nobody = fault::is_on(Fault::ReapByAge);
        let members = if asks_nobody { BTreeSet::from([leader]) } else { members };
        let primaries = |key: &ObjectKey| if asks_nobody { BTreeSet::from([leader]) } else { primaries(key) };
        let primaries = keys.iter().map(|key| (key.clone(), primaries(key))).collect();
        let (stage, left) = match &bound.ending {
            Some(ending) => (Stage::Ending, ending.clone()),
            None => (Stage::Asking, keys),
        };
        Reaping { id: bound.round.id, leader, members, primaries, stage, left, heard: BTreeSet::new() }
    }

    pub fn id(&self) -> RoundId {
        self.id
    }

    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// What the present stage is about.
    pub fn keys(&self) -> &BTreeSet<ObjectKey> {
        &self.left
    }

    /// Who is still to be heard in the present stage. The leader ends its round last: what it forgets it cannot go on with.
    pub fn waits_for(&self) -> BTreeSet<NodeId> {
        let asked = match self.stage {
            Stage::Asking | Stage::Ending => self.members.clone(),
            Stage::Marking => self.left.iter().flat_map(|key| &self.primaries[key]).copied().collect(),
            Stage::Over => BTreeSet::new(),
        };
        let mut left: BTreeSet<NodeId> = asked.difference(&self.heard).copied().collect();
        if self.stage == Stage::Ending && left.len() > 1 {
            left.remove(&self.leader);
        }
        left
    }

    /// A member has done what the present stage asks for, with these keys.
    pub fn heard(&mut self, stage: Stage, by: NodeId, with: &BTreeSet<ObjectKey>) {
        if stage != self.stage || !self.waits_for().contains(&by) {
            return;
        }
        self.heard.insert(by);
        let objects = |key: &ObjectKey| match stage {
            Stage::Asking => !with.contains(key),
            Stage::Marking => self.primaries[key].contains(&by) && !with.contains(key),
            Stage::Ending | Stage::Over => false,
        };
        self.left.retain(|key| !objects(key));
        if self.waits_for().is_empty() {
            self.go_on();
        }
    }

    /// A member will not do what a stage asks for. False if it is to be asked again.
    pub fn refused(&mut self, stage: Stage, by: NodeId, refusal: Refusal) -> bool {
        match (stage, refusal) {
            // It is bound by as many as it may be: others might wait for this round in turn.
            (Stage::Asking, Refusal::Overloaded) => self.call_off(),
            // This leader has forgotten that there was such a round, being an old copy that nobody can tell: another number.
            (Stage::Asking, Refusal::Reaped) => self.call_off(),
            // It has forgotten that it is bound, being such a copy: nothing may go by its word.
            (Stage::Marking, Refusal::Reaped) => self.heard(stage, by, &BTreeSet::new()),
            _ => return false,
        }
        true
    }

    /// Gives up what nobody was asked to mark yet: somebody cannot be bound.
    pub fn call_off(&mut self) {
        if self.stage == Stage::Asking {
            self.left.clear();
            self.go_on();
        }
    }

    fn go_on(&mut self) {
        self.heard.clear();
        self.stage = match self.stage {
            Stage::Asking if !self.left.is_empty() => Stage::Marking,
            Stage::Asking | Stage::Marking => Stage::Ending,
            Stage::Ending | Stage::Over => Stage::Over,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEADER: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);

    fn begun() -> (Reaping, BTreeSet<ObjectKey>) {
        let key = ObjectKey::new("b".parse().unwrap(), "k").unwrap();
        let id = RoundId { epoch: Epoch(1), partition: Partition(0), number: 1 };
        let bound = Bound::by(Round { id, tombstones: [(key.clone(), Object::default())].into() });
        let both = || BTreeSet::from([LEADER, OTHER]);
        (Reaping::new(&bound, LEADER, both(), |_| both()), [key].into())
    }

    #[test]
    fn a_round_that_cannot_bind_everybody_is_called_off() {
        for refusal in [Refusal::Overloaded, Refusal::Reaped] {
            let (mut round, _) = begun();
            assert!(round.refused(Stage::Asking, OTHER, refusal));
            assert_eq!((round.stage(), round.keys().len()), (Stage::Ending, 0), "{refusal:?}");
        }
    }

    #[test]
    fn what_a_member_has_forgotten_to_be_bound_by_stays() {
        let (mut round, keys) = begun();
        [LEADER, OTHER].into_iter().for_each(|member| round.heard(Stage::Asking, member, &keys));
        assert!(round.refused(Stage::Marking, OTHER, Refusal::Reaped));
        assert!(round.keys().is_empty());
    }

    #[test]
    fn a_member_that_refuses_for_now_is_asked_again() {
        let (mut round, keys) = begun();
        assert!(!round.refused(Stage::Asking, OTHER, Refusal::DiskFull));
        [LEADER, OTHER].into_iter().for_each(|member| round.heard(Stage::Asking, member, &keys));
        assert!(!round.refused(Stage::Marking, OTHER, Refusal::Overloaded));
        assert_eq!((round.stage(), round.keys()), (Stage::Marking, &keys));
        assert!(round.waits_for().contains(&OTHER));
    }
}
