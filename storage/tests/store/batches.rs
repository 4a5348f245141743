//! The group commit: what shares a batch folds one after another (R4), and sharing one changes nothing.

use std::collections::BTreeMap;

use proptest::prelude::*;
use starling_core::clock::Clock;
use starling_core::coordinate::{Coordinated, Write};
use starling_core::ids::{Birth, NodeId};
use starling_core::name::ObjectKey;
use starling_core::report::{Refusal, Role};
use starling_storage::{Confirmed, Engine, Minted, Space, Store, StoreError, StoreLimits};

use crate::support::gate::{Gate, HeldWriter, Point};
use crate::support::machine::{Machine, MemoryMachine, on_every_machine};
use crate::support::{
    EPOCH, NONE_OVER, Peer, Queued, assert_hints_agree, block_on, cases, foreign_keys, open, open_with, our_keys,
    own_clock, own_histories, primaries, put, put_after, queue, set, stored, values,
};

on_every_machine![
    a_batch_pays_one_sync,
    concurrent_writes_of_a_batch_stay_siblings,
    writes_of_a_batch_that_follow_one_another_leave_one_sibling,
    writes_of_a_batch_with_one_context_replace_it_once,
    a_request_twice_in_a_batch_is_one_write,
    a_refusal_in_a_batch_harms_nobody_else,
    a_confirmation_behind_a_write_of_its_batch_is_outdated,
    a_write_behind_the_drop_of_its_copy_in_one_batch_draws_a_new_birth,
    a_dropped_request_is_not_done_and_its_neighbours_are,
    a_request_dropped_after_the_writer_took_it_is_done,
    a_full_queue_refuses_and_refuses_nothing_else,
];

fn a_batch_pays_one_sync(machine: &dyn Machine) {
    let keys: [ObjectKey; 20] = our_keys();
    let gate = Gate::before(machine.engine());
    let store = open(gate.clone());
    let before = gate.commits();
    let held = gate.hold_writer_of(&store, &keys[0]);
    let written: Vec<_> =
        (0..20).map(|n| queue(store.coordinate(EPOCH, keys[n].clone(), put(n as u64, "v"), None))).collect();
    held.let_go();
    for answer in written {
        answer.wait().unwrap();
    }
    assert_eq!(gate.commits() - before, 1);
    assert!(keys.iter().all(|key| stored(&store, key) == Some(set(["v"]))));
}

fn concurrent_writes_of_a_batch_stay_siblings(machine: &dyn Machine) {
    let [key] = our_keys();
    let gate = Gate::before(machine.engine());
    let store = open(gate.clone());
    let held = gate.hold_writer_of(&store, &key);
    let written: Vec<_> =
        (1..=50).map(|n| queue(store.coordinate(EPOCH, key.clone(), put(n, &format!("v{n}")), None))).collect();
    held.let_go();
    for (n, answer) in written.into_iter().enumerate() {
        let minted = answer.wait().unwrap();
        assert_eq!(minted.object.siblings().len(), n + 1, "each was folded onto the one before");
        assert_eq!(own_histories(minted.object.clock()), [(Birth(1), n as u64 + 1)]);
    }
    assert_eq!(stored(&store, &key).unwrap().len(), 50);
}

fn writes_of_a_batch_that_follow_one_another_leave_one_sibling(machine: &dyn Machine) {
    let [key] = our_keys();
    let gate = Gate::before(machine.engine());
    let store = open(gate.clone());
    let held = gate.hold_writer_of(&store, &key);
    // Each writer has seen the dot that the one before him will get.
    let write = |n| put_after(&own_clock(1, n - 1).into(), n, &format!("v{n}"));
    let first = queue(store.coordinate(EPOCH, key.clone(), put(1, "v1"), None));
    let rest: Vec<_> = (2..=50).map(|n| queue(store.coordinate(EPOCH, key.clone(), write(n), None))).collect();
    held.let_go();
    first.wait().unwrap();
    let last = rest.into_iter().map(|answer| answer.wait().unwrap()).last().unwrap();
    assert_eq!(values(&last.object), set(["v50"]));
    assert_eq!(store.get(&key), Ok(Some(last.object)));
}

fn writes_of_a_batch_with_one_context_replace_it_once(machine: &dyn Machine) {
    let [key] = our_keys();
    let gate = Gate::before(machine.engine());
    let store = open(gate.clone());
    let seen = block_on(store.coordinate(EPOCH, key.clone(), put(1, "old"), None)).unwrap().object.seen();
    let held = gate.hold_writer_of(&store, &key);
    let b = queue(store.coordinate(EPOCH, key.clone(), put_after(&seen, 2, "b"), None));
    let c = queue(store.coordinate(EPOCH, key.clone(), put_after(&seen, 3, "c"), None));
    held.let_go();
    assert_eq!(values(&b.wait().unwrap().object), set(["b"]));
    assert_eq!(values(&c.wait().unwrap().object), set(["b", "c"]), "b was concurrent, not overwritten");
}

fn a_request_twice_in_a_batch_is_one_write(machine: &dyn Machine) {
    let [key] = our_keys();
    let gate = Gate::before(machine.engine());
    let store = open(gate.clone());
    let held = gate.hold_writer_of(&store, &key);
    let first = queue(store.coordinate(EPOCH, key.clone(), put(1, "a"), None));
    let again = queue(store.coordinate(EPOCH, key.clone(), put(1, "a"), None));
    held.let_go();
    let (first, again) = (first.wait().unwrap(), again.wait().unwrap());
    assert_eq!((first.how, again.how), (Coordinated::Minted, Coordinated::Repeated));
    assert_eq!(first.object, again.object);
}

fn a_refusal_in_a_batch_harms_nobody_else(machine: &dyn Machine) {
    let [ours, other] = our_keys();
    let gate = Gate::before(machine.engine());
    let store = open(gate.clone());
    block_on(store.coordinate(EPOCH, ours.clone(), put(1, "a"), None)).unwrap();
    let held = gate.hold_writer_of(&store, &ours);
    let reused = queue(store.coordinate(EPOCH, ours.clone(), put(1, "another value"), None));
    let good = queue(store.coordinate(EPOCH, ours.clone(), put(2, "b"), None));
    let elsewhere = queue(store.coordinate(EPOCH, other.clone(), put(3, "c"), None));
    held.let_go();
    assert!(matches!(reused.wait(), Err(StoreError::Write(_))));
    good.wait().unwrap();
    elsewhere.wait().unwrap();
    assert_eq!(stored(&store, &ours), Some(set(["a", "b"])));
    assert_eq!(stored(&store, &other), Some(set(["c"])));
}

fn a_confirmation_behind_a_write_of_its_batch_is_outdated(machine: &dyn Machine) {
    let [key] = foreign_keys();
    let gate = Gate::before(machine.engine());
    let store = open(gate.clone());
    let first = block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap().object;
    let held = gate.hold_writer_of(&store, &key);
    let written = queue(store.coordinate(EPOCH, key.clone(), put(2, "b"), None));
    let confirmed = queue(store.confirm(EPOCH, key.clone(), primaries(&key)[0], first.clock().clone()));
    held.let_go();
    written.wait().unwrap();
    assert_eq!(confirmed.wait(), Ok(Confirmed::Outdated));
    assert_hints_agree(&store, &*gate);
}

fn a_write_behind_the_drop_of_its_copy_in_one_batch_draws_a_new_birth(machine: &dyn Machine) {
    let [key] = foreign_keys();
    let gate = Gate::before(machine.engine());
    let store = open(gate.clone());
    let first = block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap().object;
    let held = gate.hold_writer_of(&store, &key);
    let confirmed: Vec<_> = primaries(&key)
        .into_iter()
        .map(|by| queue(store.confirm(EPOCH, key.clone(), by, first.clock().clone())))
        .collect();
    let written = queue(store.coordinate(EPOCH, key.clone(), put(2, "b"), None));
    held.let_go();
    assert_eq!(confirmed.into_iter().map(Queued::wait).next_back(), Some(Ok(Confirmed::CopyDropped)));
    assert_eq!(own_histories(written.wait().unwrap().object.clock()), [(Birth(2), 1)], "not dot 2 of birth 1 (R2)");
    assert_hints_agree(&store, &*gate);
    assert_eq!(store.hints().len(), 3, "and all primaries are owed again");
}

fn a_dropped_request_is_not_done_and_its_neighbours_are(machine: &dyn Machine) {
    let [key, other, third] = our_keys();
    let gate = Gate::before(machine.engine());
    let store = open(gate.clone());
    let never_polled = store.coordinate(EPOCH, third.clone(), put(9, "never"), None);
    drop(never_polled);
    let held = gate.hold_writer_of(&store, &key);
    let dropped = queue(store.coordinate(EPOCH, key.clone(), put(1, "dropped"), None));
    let merged =
        queue(store.merge(EPOCH, NONE_OVER, third.clone(), Peer::with(201, 7, "dropped").object, Role::Primary));
    let kept = queue(store.coordinate(EPOCH, other.clone(), put(2, "kept"), None));
    drop(dropped);
    drop(merged);
    held.let_go();
    kept.wait().unwrap();
    assert_eq!(store.get(&key), Ok(None));
    assert_eq!(store.get(&third), Ok(None));
    assert_eq!(stored(&store, &other), Some(set(["kept"])));
}

fn a_request_dropped_after_the_writer_took_it_is_done(machine: &dyn Machine) {
    let [key] = our_keys();
    let gate = Gate::before(machine.engine());
    let store = open(gate.clone());
    gate.close(Point::Commit);
    let dropped = queue(store.coordinate(EPOCH, key.clone(), put(1, "a"), None));
    gate.wait_for_a_writer();
    drop(dropped);
    gate.open();
    // The same writer has finished the one before it answers the next.
    block_on(store.coordinate(EPOCH, key.clone(), put(2, "b"), None)).unwrap();
    assert_eq!(stored(&store, &key), Some(set(["a", "b"])));
}

fn a_full_queue_refuses_and_refuses_nothing_else(machine: &dyn Machine) {
    let [key] = our_keys();
    let gate = Gate::before(machine.engine());
    let store = open_with(gate.clone(), StoreLimits { queue: 3, ..StoreLimits::default() });
    let held = gate.hold_writer_of(&store, &key);
    let waiting: Vec<_> =
        (1..=3).map(|n| queue(store.coordinate(EPOCH, key.clone(), put(n, &format!("v{n}")), None))).collect();
    for n in 4..10 {
        let refused = block_on(store.coordinate(EPOCH, key.clone(), put(n, "one too many"), None));
        assert_eq!(refused, Err(StoreError::Refused(Refusal::Overloaded)), "at once, without waiting for the writer");
    }
    held.let_go();
    for answer in waiting {
        answer.wait().unwrap();
    }
    assert_eq!(stored(&store, &key), Some(set(["v1", "v2", "v3"])));
    block_on(store.coordinate(EPOCH, key.clone(), put(11, "v4"), None)).unwrap();
}

/// One job of a random batch, on one of four keys.
#[derive(Debug, Clone)]
enum Job {
    Write { key: usize, n: u64, sees: Option<usize> },
    Merge { key: usize, peer: u64, writes: u64 },
    Confirm { key: usize, by: usize, sees: usize },
}

fn any_job() -> impl Strategy<Value = Job> {
    prop_oneof![
        // Few numbers, so that requests repeat.
        3 => (0..4usize, 1..20u64, prop::option::of(0..12usize)).prop_map(|(key, n, sees)| Job::Write { key, n, sees }),
        2 => (0..4usize, 0..2u64, 1..4u64).prop_map(|(key, peer, writes)| Job::Merge { key, peer, writes }),
        4 => (2..4usize, 0..3usize, 0..12usize).prop_map(|(key, by, sees)| Job::Confirm { key, by, sees }),
    ]
}

#[derive(Debug, PartialEq)]
enum Answer {
    Minted(Result<Minted, StoreError>),
    Merged(Result<(), StoreError>),
    Confirmed(Result<Confirmed, StoreError>),
}

enum Waiting<'a> {
    Minted(Queued<'a, Result<Minted, StoreError>>),
    Merged(Queued<'a, Result<(), StoreError>>),
    Confirmed(Queued<'a, Result<Confirmed, StoreError>>),
}

impl Waiting<'_> {
    fn wait(self) -> Answer {
        match self {
            Waiting::Minted(answer) => Answer::Minted(answer.wait()),
            Waiting::Merged(answer) => Answer::Merged(answer.wait()),
            Waiting::Confirmed(answer) => Answer::Confirmed(answer.wait()),
        }
    }
}

struct World {
    gate: std::sync::Arc<Gate>,
    store: Store,
    keys: Vec<ObjectKey>,
}

impl World {
    fn new() -> World {
        let gate = Gate::before(MemoryMachine::default().engine());
        let keys = [our_keys::<2>().to_vec(), foreign_keys::<2>().to_vec()].concat();
        World { store: open(gate.clone()), gate, keys }
    }

    /// `clocks` holds what each key's clock has been; `birth` is one that was never drawn before.
    fn send<'a>(&'a self, job: &Job, birth: u64, clocks: &[Vec<Clock>]) -> Waiting<'a> {
        let clock = |key: usize, index: usize| clocks[key][index % clocks[key].len()].clone();
        let store = &self.store;
        match *job {
            Job::Write { key, n, sees } => {
                let seen = sees.map_or_else(Clock::default, |index| clock(key, index)).into();
                let write = Write { fresh_birth: Birth(birth), ..put_after(&seen, n, &format!("v{n}")) };
                Waiting::Minted(queue(store.coordinate(EPOCH, self.keys[key].clone(), write, None)))
            }
            Job::Merge { key, peer, writes } => {
                let mut peer = Peer::new(200 + peer);
                (0..writes).for_each(|n| drop(peer.write(put(100 + n, "x")).clone()));
                let role = if key < 2 { Role::Primary } else { Role::Fallback { stands_in_for: self.target(key, 0) } };
                Waiting::Merged(queue(store.merge(EPOCH, NONE_OVER, self.keys[key].clone(), peer.object, role)))
            }
            Job::Confirm { key, by, sees } => Waiting::Confirmed(queue(store.confirm(
                EPOCH,
                self.keys[key].clone(),
                self.target(key, by),
                clock(key, sees),
            ))),
        }
    }

    fn target(&self, key: usize, index: usize) -> NodeId {
        primaries(&self.keys[key])[index]
    }

    fn disk(&self) -> BTreeMap<(Space, Vec<u8>), Vec<u8>> {
        let mut all = BTreeMap::new();
        for space in [Space::Objects, Space::Hints] {
            for (key, value) in self.gate.scan(space, b"", None, usize::MAX).unwrap() {
                all.insert((space, key.to_vec()), value.to_vec());
            }
        }
        all
    }
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn a_batch_ends_as_its_jobs_one_by_one_would(
        batches in prop::collection::vec(prop::collection::vec(any_job(), 1..12), 1..8)
    ) {
        let (together, alone) = (World::new(), World::new());
        let mut clocks = vec![vec![Clock::default()]; 4];
        let mut births = 1_000u64..;
        for jobs in batches {
            let jobs: Vec<(Job, u64)> = jobs.into_iter().zip(births.by_ref()).collect();
            let held: Vec<_> =
                [0, 2].map(|key| together.gate.hold_writer_of(&together.store, &together.keys[key])).into();
            let sent: Vec<_> = jobs.iter().map(|(job, birth)| together.send(job, *birth, &clocks)).collect();
            held.into_iter().for_each(HeldWriter::let_go);
            let answers: Vec<_> = sent.into_iter().map(Waiting::wait).collect();
            for ((job, birth), answer) in jobs.iter().zip(&answers) {
                prop_assert_eq!(answer, &alone.send(job, *birth, &clocks).wait(), "{:?}", job);
            }
            prop_assert_eq!(together.disk(), alone.disk());
            assert_hints_agree(&together.store, &*together.gate);
            assert_hints_agree(&alone.store, &*alone.gate);
            for (key, seen) in together.keys.iter().zip(&mut clocks) {
                seen.extend(together.store.get(key).unwrap().map(|object| object.clock().clone()));
            }
        }
    }
}
