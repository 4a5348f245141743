//! An object: the siblings of a key and the clock of everything that was ever part of it.
//!
//! A dotted version vector set (Preguiça et al., "Dotted Version Vectors", 2010; Almeida et al., "Scalable and Accurate
//! Causality Tracking for Eventually Consistent Stores", 2014). A dot that the clock covers and no sibling carries was
//! superseded. From that the merge follows: a sibling stays if both sides have it, or if one has it and the other has
//! never heard of it.
//!
//! A value may have a time at which it expires (R12). That is a question to the clock of whoever reads, and changes nothing
//! that is stored: the sibling stays, and is not shown. So a clock that is wrong hides data, and does not delete it; and
//! replicas whose clocks differ hold the same. What has expired goes as tombstones do ([`crate::reaping`]), unless a sibling
//! is there that stays.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Dot};
use crate::fault::{self, Fault};
use crate::ids::RequestId;
use crate::request::{RequestRing, RequestTrace, ValueHash};
use crate::stamp::Stamp;
use crate::wall::WallTime;

/// What a write leaves: bytes, for good or for some time, or the mark of a deletion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    Live(Bytes),
    Tombstone,
    /// As live until then.
    Expiring {
        bytes: Bytes,
        until: WallTime,
    },
}

impl Value {
    pub fn hash(&self) -> ValueHash {
        match self {
            // A write that is repeated is one write, although each node that takes it up says anew until when.
            Value::Live(bytes) | Value::Expiring { bytes, .. } => ValueHash::of_live(bytes),
            Value::Tombstone => ValueHash::of_tombstone(),
        }
    }

    /// What was put, expired or not; nothing of a deletion.
    pub fn bytes(&self) -> Option<&Bytes> {
        match self {
            Value::Live(bytes) | Value::Expiring { bytes, .. } => Some(bytes),
            Value::Tombstone => None,
        }
    }

    /// When it expires, if it does.
    pub fn until(&self) -> Option<WallTime> {
        match self {
            Value::Expiring { until, .. } => Some(*until),
            Value::Live(_) | Value::Tombstone => None,
        }
    }

    /// Bytes of user data.
    pub fn size(&self) -> usize {
        self.bytes().map_or(0, Bytes::len)
    }
}

/// One of an object's concurrent versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sibling {
    pub dot: Dot,
    pub stamp: Stamp,
    pub request: RequestId,
    pub value_hash: ValueHash,
    pub value: Value,
}

impl Sibling {
    /// It was put, and has not expired by then.
    pub fn is_live(&self, now: WallTime) -> bool {
        match &self.value {
            Value::Live(_) => true,
            Value::Expiring { until, .. } => now < *until,
            Value::Tombstone => false,
        }
    }

    pub fn is_tombstone(&self) -> bool {
        matches!(self.value, Value::Tombstone)
    }

    fn trace(&self) -> RequestTrace {
        RequestTrace { stamp: self.stamp, request: self.request, value_hash: self.value_hash }
    }
}

/// How the siblings of a bucket's objects are presented, and what a write without a context removes (R6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum SiblingMode {
    /// Concurrent writes survive as siblings; the application resolves them.
    #[default]
    Keep,
    /// The write with the greatest (stamp, dot) wins; a concurrent one is lost, by choice. A write that was tried more than
    /// once counts with the earliest of its stamps.
    LastWriteWins,
}

/// An object of which nothing stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Passing {
    /// Nothing is left of it but that it was deleted, by the stamp of the last write.
    Deleted { since: Stamp },
    /// The last of its values expires then.
    Expires { at: WallTime },
}

/// What a reader of an object has seen of it, and a later write supersedes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    pub clock: Clock,
    /// The youngest requests behind the clock, those of the siblings included.
    pub requests: RequestRing,
}

/// A clock behind which no requests are known.
impl From<Clock> for Seen {
    fn from(clock: Clock) -> Seen {
        Seen { clock, requests: RequestRing::default() }
    }
}

impl Seen {
    pub fn merge(&mut self, other: &Seen) {
        self.clock.merge(&other.clock);
        self.requests.merge(&other.requests);
    }
}

/// The state of one key on one replica, or on its way between two.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "UncheckedObject")]
pub struct Object {
    clock: Clock,
    /// Ascending by dot.
    siblings: Vec<Sibling>,
    requests: RequestRing,
}

/// An object as it is decoded. Merging relies on the order of siblings and on their being covered: what has neither would
/// make a merge drop or revive writes.
#[derive(Deserialize)]
struct UncheckedObject {
    clock: Clock,
    siblings: Vec<Sibling>,
    requests: RequestRing,
}

/// An object that no series of writes and merges can have made.
#[derive(Debug, thiserror::Error)]
pub enum InvalidObject {
    #[error("an object's siblings are out of order")]
    Order,
    #[error("an object's clock does not cover its sibling {0}")]
    Uncovered(Dot),
}

impl TryFrom<UncheckedObject> for Object {
    type Error = InvalidObject;

    fn try_from(UncheckedObject { clock, siblings, requests }: UncheckedObject) -> Result<Self, InvalidObject> {
        if !siblings.is_sorted_by(|one, next| one.dot < next.dot) {
            return Err(InvalidObject::Order);
        }
        let uncovered = |sibling: &&Sibling| sibling.dot.counter == 0 || !clock.covers(&sibling.dot);
        match siblings.iter().find(uncovered) {
            Some(sibling) => Err(InvalidObject::Uncovered(sibling.dot)),
            None => Ok(Object { clock, siblings, requests }),
        }
    }
}

impl Object {
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// All siblings by dot, hidden ones and tombstones included.
    pub fn siblings(&self) -> &[Sibling] {
        &self.siblings
    }

    /// Nothing was ever written to it.
    pub fn is_unwritten(&self) -> bool {
        self.clock.is_empty()
    }

    /// Bytes of user data in all siblings.
    pub fn value_bytes(&self) -> usize {
        self.siblings.iter().map(|sibling| sibling.value.size()).sum()
    }

    pub fn greatest_stamp(&self) -> Option<Stamp> {
        let of_siblings = self.siblings.iter().map(|sibling| sibling.stamp).max();
        of_siblings.max(self.requests.greatest_stamp())
    }

    /// Takes in everything `other` knows. Commutative, associative, idempotent; never refuses (R14).
    pub fn merge(&mut self, other: &Object) {
        if fault::is_on(Fault::LastArrivalWins) {
            other.clone_into(self);
            return;
        }
        let ours = std::mem::take(&mut self.siblings);
        let (stay, superseded): (Vec<_>, Vec<_>) =
            ours.into_iter().partition(|s| other.has(&s.dot) || !other.clock.covers(&s.dot));
        let stays = |s: &Sibling| stay.binary_search_by_key(&s.dot, |ours| ours.dot).is_ok();
        let (arrive, gone): (Vec<_>, Vec<_>) =
            other.siblings.iter().filter(|s| !stays(s)).partition(|s| !self.clock.covers(&s.dot));

        self.requests.merge(&other.requests);
        for sibling in superseded.iter().chain(gone) {
            self.requests.add(sibling.trace());
        }
        self.siblings = stay;
        self.siblings.extend(arrive.into_iter().cloned());
        self.siblings.sort_by_key(|sibling| sibling.dot);
        self.clock.merge(&other.clock);
    }

    /// What a reader of this object has seen.
    pub fn seen(&self) -> Seen {
        let mut requests = self.requests.clone();
        for sibling in &self.siblings {
            requests.add(sibling.trace());
        }
        Seen { clock: self.clock.clone(), requests }
    }

    /// Puts a sibling in the place of all that was seen. The caller has minted its dot for this object.
    pub(crate) fn supersede(&mut self, seen: &Seen, sibling: Sibling) {
        let (removed, stay): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.siblings).into_iter().partition(|s| seen.clock.covers(&s.dot));
        for old in &removed {
            self.requests.add(old.trace());
        }
        self.requests.merge(&seen.requests);
        self.siblings = stay;
        self.clock.merge(&seen.clock);
        self.clock.advance(sibling.dot.history, sibling.dot.counter);
        self.siblings.push(sibling);
        self.siblings.sort_by_key(|sibling| sibling.dot);
    }

    /// The traces that a request left here, as far as this object remembers: several if it was tried at several replicas.
    pub fn traces_of(&self, request: RequestId) -> impl Iterator<Item = RequestTrace> {
        let live = self.siblings.iter().filter(move |sibling| sibling.request == request).map(Sibling::trace);
        let all = live.chain(self.requests.traces_of(request).copied());
        all.filter(|_| !fault::is_on(Fault::ForgetRequests))
    }

    /// The live siblings that a reader sees at that time, by dot; empty if the key is absent, deleted or expired.
    pub fn present(&self, mode: SiblingMode, now: WallTime) -> Vec<&Sibling> {
        match mode {
            SiblingMode::Keep => self.distinct_live(now).collect(),
            SiblingMode::LastWriteWins => self.live_winner(now).into_iter().collect(),
        }
    }

    /// Written once, and deleted or expired since: absent to a reader, yet with a context that a new write should bring.
    pub fn is_deleted(&self, mode: SiblingMode, now: WallTime) -> bool {
        !self.is_unwritten() && self.present(mode, now).is_empty()
    }

    /// Nothing in it was put: a write of a deletion, and perhaps others beside it.
    pub fn is_tombstone(&self) -> bool {
        matches!(self.passing(), Some(Passing::Deleted { .. }))
    }

    /// How the last of it goes; none if something in it stays until it is deleted, or if it was never written.
    pub fn passing(&self) -> Option<Passing> {
        if self.siblings.iter().any(|sibling| matches!(sibling.value, Value::Live(_))) {
            return None;
        }
        match self.siblings.iter().filter_map(|sibling| sibling.value.until()).max() {
            Some(at) => Some(Passing::Expires { at }),
            None => self.greatest_stamp().map(|since| Passing::Deleted { since }),
        }
    }

    /// The same siblings and clock without the values: enough to compare replicas and to list keys.
    pub fn outline(&self) -> Object {
        let mut outline = self.clone();
        for sibling in &mut outline.siblings {
            match &mut sibling.value {
                Value::Live(bytes) | Value::Expiring { bytes, .. } => *bytes = Bytes::new(),
                Value::Tombstone => {}
            }
        }
        outline
    }

    /// Live siblings, without those whose write already shows itself otherwise: in an earlier live sibling, or in the
    /// ring, which says that a writer has seen and superseded that very write. It takes the same value to be the same
    /// write: a client that uses a request id twice must not make another's write invisible. A write lives as long as any of
    /// its tries, and is shown by that one.
    fn distinct_live(&self, now: WallTime) -> impl Iterator<Item = &Sibling> {
        let forgets = fault::is_on(Fault::ForgetRequests);
        let mut shown = BTreeSet::new();
        self.siblings
            .iter()
            .filter(move |s| {
                s.is_live(now)
                    && (forgets || self.requests.traces_of(s.request).all(|trace| trace.value_hash != s.value_hash))
            })
            .filter(move |s| shown.insert((s.request, s.value_hash)) || forgets)
            .map(move |s| if forgets { s } else { self.longest_try(s) })
    }

    /// Another try of the write that made this sibling, if that lives longer.
    fn longest_try<'a>(&'a self, of: &'a Sibling) -> &'a Sibling {
        let is_try = |s: &&Sibling| (s.request, s.value_hash) == (of.request, of.value_hash);
        let lifetime = |s: &Sibling| (s.value.until().is_none(), s.value.until());
        let longer = self.siblings.iter().filter(is_try).filter(|s| lifetime(s) > lifetime(of));
        longer.max_by_key(|s| (lifetime(s), s.dot)).unwrap_or(of)
    }

    /// A write that was tried twice is as old as its first try, even where only the second is still a sibling: minted late,
    /// that one would win over a write which had seen the first.
    fn winner(&self) -> Option<&Sibling> {
        self.siblings.iter().max_by_key(|sibling| (self.first_stamp(sibling), sibling.dot))
    }

    fn live_winner(&self, now: WallTime) -> Option<&Sibling> {
        self.winner().map(|winner| self.longest_try(winner)).filter(|sibling| sibling.is_live(now))
    }

    /// The earliest stamp known of the write that made this sibling.
    fn first_stamp(&self, sibling: &Sibling) -> Stamp {
        let tries = self.traces_of(sibling.request).filter(|trace| trace.value_hash == sibling.value_hash);
        tries.map(|trace| trace.stamp).min().unwrap_or(sibling.stamp)
    }

    /// The object as it goes to another replica: as it is.
    pub fn as_sent(&self) -> Object {
        let mut sent = self.clone();
        if fault::is_on(Fault::ClockAheadOfSiblings) && sent.siblings.len() > 1 {
            sent.siblings.remove(0);
        }
        sent
    }

    /// What a mistaken writer does: what has expired by its clock is no more.
    pub(crate) fn forget_expired(&mut self, now: WallTime) {
        self.siblings.retain(|sibling| sibling.is_live(now) || sibling.is_tombstone());
    }

    fn has(&self, dot: &Dot) -> bool {
        self.siblings.binary_search_by_key(dot, |sibling| sibling.dot).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::History;
    use crate::codec;
    use crate::ids::{Birth, DirectoryId};

    fn sibling(counter: u64) -> Sibling {
        let history = History { directory: DirectoryId(1), birth: Birth(1) };
        let value = Value::Live("v".into());
        let dot = Dot { history, counter };
        Sibling { dot, stamp: Stamp(1), request: RequestId(counter.into()), value_hash: value.hash(), value }
    }

    fn decoded(clock: &[(History, u64)], siblings: &[Sibling]) -> Result<Object, codec::DecodeError> {
        let counters: std::collections::BTreeMap<_, _> = clock.iter().copied().collect();
        codec::decode(&codec::encode(&(counters, siblings, RequestRing::default())), 1 << 20, "an object")
    }

    #[test]
    fn an_object_that_merging_cannot_work_with_is_not_decoded() {
        let history = sibling(1).dot.history;
        let good = decoded(&[(history, 2)], &[sibling(1), sibling(2)]);
        assert_eq!(good.unwrap().siblings().len(), 2);
        assert!(decoded(&[(history, 2)], &[sibling(2), sibling(1)]).is_err(), "out of order");
        assert!(decoded(&[(history, 2)], &[sibling(1), sibling(1)]).is_err(), "twice");
        assert!(decoded(&[(history, 1)], &[sibling(2)]).is_err(), "not covered");
        assert!(decoded(&[(history, 1)], &[sibling(0)]).is_err(), "no dot");
        assert!(decoded(&[(history, 0)], &[]).is_err(), "a history without a dot");
    }
}
