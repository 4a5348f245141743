//! Objects as they come about: every state that some replica of a key was in during a random history of writes, merges
//! and drops. Laws of merging are promised for these, not for whatever can be put together by hand.

use std::time::Duration;

use proptest::prelude::*;
use starling_core::coordinate::{Write, coordinate};
use starling_core::ids::{Birth, DirectoryId, RequestId};
use starling_core::mark::{Minter, OwnMark, TrustedMarks};
use starling_core::object::{Object, SiblingMode, Value};
use starling_core::stamp::Stamp;

use super::{NOW, UNLIMITED};

const REPLICAS: usize = 4;

#[derive(Debug, Clone)]
pub enum Deed {
    /// A client writes with what it read at `seen`, of the present or of an earlier state.
    Write {
        at: usize,
        seen: Option<usize>,
        request: u64,
        wall: u64,
    },
    Merge {
        from: usize,
        to: usize,
    },
    /// A fallback drops its copy, and its mark with it; others have it.
    Drop {
        at: usize,
    },
}

/// Histories long enough to overflow the ring of requests, with requests that are tried more than once.
pub fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let replica = || 0..REPLICAS;
    let deed = prop_oneof![
        6 => (replica(), prop::option::weighted(0.7, 0usize..64), 0u64..40, 0u64..30)
            .prop_map(|(at, seen, request, wall)| Deed::Write { at, seen, request, wall }),
        4 => (replica(), replica()).prop_map(|(from, to)| Deed::Merge { from, to }),
        1 => replica().prop_map(|at| Deed::Drop { at }),
    ];
    prop::collection::vec(deed, 1..48)
}

/// All states that any replica was in, in their order; the first is that of an unwritten key.
pub fn states(deeds: &[Deed], mode: SiblingMode) -> Vec<Object> {
    let mut replicas: Vec<(Object, Option<OwnMark>)> = vec![Default::default(); REPLICAS];
    let mut states = vec![Object::default()];
    for (number, deed) in deeds.iter().enumerate() {
        let at = match *deed {
            Deed::Write { at, seen, request, wall } => {
                let seen = seen.map(|seen| states[seen % states.len()].seen()).unwrap_or_default();
                let value = value_of(request);
                let fresh_birth = Birth(number as u64);
                let (wall, request) = (Stamp::from_millis(wall), RequestId(request.into()));
                let write = Write { value, seen, request, mode, wall, fresh_birth };
                let (object, mark) = &mut replicas[at];
                coordinate(object, mark, write, &minter(at), &UNLIMITED).expect("without limits no write is refused");
                at
            }
            Deed::Merge { from, to } => {
                let object = replicas[from].0.clone();
                replicas[to].0.merge(&object);
                to
            }
            Deed::Drop { at } => {
                replicas[at] = Default::default();
                at
            }
        };
        states.push(replicas[at].0.clone());
    }
    states
}

pub fn minter(at: usize) -> Minter {
    Minter { directory: DirectoryId(at as u64), run: 1, trusted: TrustedMarks::OfThisRun }
}

/// A request always carries the same value; some delete, and some expire, before [`NOW`] or after it.
fn value_of(request: u64) -> Value {
    let bytes = vec![b'v'; request as usize].into();
    match (request.is_multiple_of(7), request % 6) {
        (true, _) => Value::Tombstone,
        (false, 4) => Value::Expiring { bytes, until: NOW },
        (false, 5) => Value::Expiring { bytes, until: NOW.after(Duration::from_millis(1)) },
        (false, _) => Value::Live(bytes),
    }
}
