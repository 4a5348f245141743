//! Request ids: how a write that is tried twice stays one write (R7).
//!
//! A sibling carries the id of the request that made it. When the sibling is superseded, its trace moves to a bounded
//! ring in the object. A writer that finds a request's id in either place answers from what it holds instead of minting
//! again. Two replicas that both minted for one request leave two siblings with one id, of which readers show one.
//!
//! The ring keeps the [`RING_SIZE`] greatest traces. A request that is repeated after that many later writes of the key
//! were superseded is taken for a new one: one more sibling, never a lost one.
//!
//! A write may supersede siblings that its coordinator never held, through a context from elsewhere. So the context
//! brings their traces along ([`crate::object::Seen`]), and a ring is what its object's clock says and nothing else: the
//! greatest traces of all dots that the clock covers and no sibling carries. Replicas with equal clocks are equal.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::ids::RequestId;
use crate::stamp::Stamp;

/// How many superseded requests an object remembers.
pub const RING_SIZE: usize = 8;

/// Tells two different writes that claim one request id apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ValueHash(u64);

impl ValueHash {
    pub fn of_live(value: &[u8]) -> ValueHash {
        Self::tagged(1, value)
    }

    pub fn of_tombstone() -> ValueHash {
        Self::tagged(0, &[])
    }

    fn tagged(tag: u8, value: &[u8]) -> ValueHash {
        let mut hash = Xxh3::new();
        hash.update(&[tag]);
        hash.update(value);
        ValueHash(hash.digest())
    }
}

/// What an object remembers of a request after its sibling is gone. Ordered by age, so that a ring keeps the youngest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestTrace {
    pub stamp: Stamp,
    pub request: RequestId,
    pub value_hash: ValueHash,
}

/// The youngest superseded requests of an object. A merge is the k greatest of the union: commutative, associative and
/// idempotent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "BTreeSet<RequestTrace>")]
pub struct RequestRing(BTreeSet<RequestTrace>);

/// A ring of more traces than rings keep.
#[derive(Debug, thiserror::Error)]
#[error("a ring has {0} traces of requests; {RING_SIZE} are kept")]
pub struct InvalidRing(usize);

impl TryFrom<BTreeSet<RequestTrace>> for RequestRing {
    type Error = InvalidRing;

    fn try_from(traces: BTreeSet<RequestTrace>) -> Result<Self, InvalidRing> {
        if traces.len() <= RING_SIZE { Ok(RequestRing(traces)) } else { Err(InvalidRing(traces.len())) }
    }
}

impl RequestRing {
    pub fn add(&mut self, trace: RequestTrace) {
        self.0.insert(trace);
        while self.0.len() > RING_SIZE {
            self.0.pop_first();
        }
    }

    pub fn merge(&mut self, other: &RequestRing) {
        for trace in &other.0 {
            self.add(*trace);
        }
    }

    pub fn traces_of(&self, request: RequestId) -> impl Iterator<Item = &RequestTrace> {
        self.0.iter().filter(move |trace| trace.request == request)
    }

    pub fn greatest_stamp(&self) -> Option<Stamp> {
        self.0.last().map(|trace| trace.stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(stamp: u64) -> RequestTrace {
        RequestTrace {
            stamp: Stamp(stamp),
            request: RequestId(u128::from(stamp)),
            value_hash: ValueHash::of_tombstone(),
        }
    }

    #[test]
    fn the_ring_forgets_the_oldest_first() {
        let mut ring = RequestRing::default();
        for stamp in 0..20 {
            ring.add(trace(stamp));
        }
        assert!(ring.traces_of(RequestId(11)).next().is_none());
        assert!(ring.traces_of(RequestId(12)).next().is_some());
        ring.add(trace(3));
        assert!(ring.traces_of(RequestId(3)).next().is_none(), "older than all it keeps");
    }

    #[test]
    fn a_ring_of_more_than_is_kept_is_not_decoded() {
        let traces = |count| (0..count).map(trace).collect::<BTreeSet<_>>();
        assert!(RequestRing::try_from(traces(RING_SIZE as u64)).is_ok());
        assert!(RequestRing::try_from(traces(RING_SIZE as u64 + 1)).is_err());
    }

    #[test]
    fn a_tombstone_is_not_an_empty_value() {
        assert_ne!(ValueHash::of_tombstone(), ValueHash::of_live(b""));
    }
}
