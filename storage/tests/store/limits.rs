//! Limits refuse what comes in and never drop what is held (R10, R13, R14).

use starling_core::coordinate::{Coordinated, WriteRefused};
use starling_core::name::ObjectKey;
use starling_core::report::{Refusal, Role};
use starling_storage::{Confirmed, StoreError, StoreLimits};

use crate::support::gate::Gate;
use crate::support::machine::{Machine, MemoryMachine, on_every_machine};
use crate::support::{
    EPOCH, NONE_OVER, Peer, assert_hints_agree, block_on, foreign_keys, open_with, our_keys, primaries, put, put_after,
    queue, set, stored,
};

on_every_machine![
    at_its_cap_of_hints_a_store_refuses_new_ones_and_keeps_the_old,
    a_batch_does_not_carry_hints_over_their_cap,
    a_full_target_does_not_keep_others_from_being_stood_in_for,
    a_copy_that_is_held_can_be_updated_at_the_cap,
    limits_of_an_object_are_for_clients_only,
];

fn capped(hints_per_target: u64) -> StoreLimits {
    StoreLimits { hints_per_target, ..StoreLimits::default() }
}

fn stand_in_for_the_first(key: &ObjectKey) -> Role {
    Role::Fallback { stands_in_for: primaries(key)[0] }
}

fn at_its_cap_of_hints_a_store_refuses_new_ones_and_keeps_the_old(machine: &dyn Machine) {
    let [one, two, three, four] = foreign_keys();
    let engine = machine.engine();
    let store = open_with(engine.clone(), capped(2));
    let peer = Peer::with(201, 1, "x");
    let first = block_on(store.coordinate(EPOCH, one.clone(), put(1, "a"), None)).unwrap().object;
    block_on(store.merge(EPOCH, NONE_OVER, two.clone(), peer.object.clone(), stand_in_for_the_first(&two))).unwrap();
    let full = Err(StoreError::Refused(Refusal::HintsFull));
    assert_eq!(
        block_on(store.merge(EPOCH, NONE_OVER, three.clone(), peer.object.clone(), stand_in_for_the_first(&three))),
        full
    );
    assert_eq!(block_on(store.coordinate(EPOCH, four.clone(), put(2, "b"), None)).map(drop), full);
    assert_eq!((store.get(&three), store.get(&four)), (Ok(None), Ok(None)));
    assert_eq!(store.hints(), primaries(&one).into_iter().map(|target| (target, 2)).collect());

    let [ours] = our_keys();
    block_on(store.coordinate(EPOCH, ours, put(3, "what we are a primary of is no hint"), None)).unwrap();
    for by in primaries(&one) {
        block_on(store.confirm(EPOCH, one.clone(), by, first.clock().clone())).unwrap();
    }
    block_on(store.coordinate(EPOCH, four.clone(), put(4, "b"), None)).unwrap();
    assert_eq!(stored(&store, &four), Some(set(["b"])), "there is room again");
    assert_hints_agree(&store, &*engine);
}

fn a_batch_does_not_carry_hints_over_their_cap(machine: &dyn Machine) {
    let keys: [ObjectKey; 10] = foreign_keys();
    let gate = Gate::before(machine.engine());
    let store = open_with(gate.clone(), capped(3));
    let held = gate.hold_writer_of(&store, &keys[0]);
    let peer = Peer::with(201, 1, "x");
    let merged: Vec<_> = keys[..5]
        .iter()
        .map(|key| queue(store.merge(EPOCH, NONE_OVER, key.clone(), peer.object.clone(), stand_in_for_the_first(key))))
        .collect();
    let written: Vec<_> =
        keys[5..].iter().map(|key| queue(store.coordinate(EPOCH, key.clone(), put(1, "a"), None))).collect();
    held.let_go();
    let taken = merged.into_iter().map(|answer| answer.wait().is_ok()).filter(|taken| *taken).count();
    let written = written.into_iter().map(|answer| answer.wait().is_ok()).filter(|taken| *taken).count();
    assert_eq!((taken, written), (3, 0));
    assert!(store.hints().values().all(|count| *count == 3), "{:?}", store.hints());
    assert_hints_agree(&store, &*gate);
}

fn a_full_target_does_not_keep_others_from_being_stood_in_for(machine: &dyn Machine) {
    let [one, two, three] = foreign_keys();
    let engine = machine.engine();
    let store = open_with(engine.clone(), capped(1));
    let peer = Peer::with(201, 1, "x");
    block_on(store.merge(EPOCH, NONE_OVER, one.clone(), peer.object.clone(), stand_in_for_the_first(&one))).unwrap();
    let [back, dead, _] = primaries(&one).try_into().unwrap();
    block_on(store.confirm(EPOCH, one.clone(), back, peer.object.clock().clone())).unwrap();
    block_on(store.merge(EPOCH, NONE_OVER, two.clone(), peer.object.clone(), Role::Fallback { stands_in_for: back }))
        .unwrap();
    assert_eq!((store.hints()[&back], store.hints()[&dead]), (1, 2), "every primary is owed a copy (R10)");
    let for_the_dead = Role::Fallback { stands_in_for: dead };
    let refused = block_on(store.merge(EPOCH, NONE_OVER, three.clone(), peer.object.clone(), for_the_dead));
    assert_eq!(refused, Err(StoreError::Refused(Refusal::HintsFull)));
    let refused = block_on(store.coordinate(EPOCH, three.clone(), put(1, "for all of them"), None)).map(drop);
    assert_eq!(refused, Err(StoreError::Refused(Refusal::HintsFull)));
    assert_hints_agree(&store, &*engine);
}

fn a_copy_that_is_held_can_be_updated_at_the_cap(machine: &dyn Machine) {
    let [key] = foreign_keys();
    let store = open_with(machine.engine(), capped(1));
    let mut peer = Peer::with(201, 1, "x");
    block_on(store.merge(EPOCH, NONE_OVER, key.clone(), peer.object.clone(), stand_in_for_the_first(&key))).unwrap();
    let seen = peer.object.seen();
    peer.write(put_after(&seen, 2, "y"));
    block_on(store.merge(EPOCH, NONE_OVER, key.clone(), peer.object.clone(), stand_in_for_the_first(&key))).unwrap();
    block_on(store.coordinate(EPOCH, key.clone(), put(3, "z"), None)).unwrap();
    assert_eq!(stored(&store, &key), Some(set(["y", "z"])));
    assert!(store.hints().values().all(|count| *count == 1));
}

fn limits_of_an_object_are_for_clients_only(machine: &dyn Machine) {
    let [key] = our_keys();
    let mut limits = StoreLimits::default();
    limits.object.bytes = 8;
    let store = open_with(machine.engine(), limits);
    let refused = block_on(store.coordinate(EPOCH, key.clone(), put(1, "nine byte"), None));
    assert_eq!(refused, Err(StoreError::Write(WriteRefused::TooLarge { bytes: 9, limit: 8 })));
    assert_eq!(store.get(&key), Ok(None));
    block_on(store.merge(EPOCH, NONE_OVER, key.clone(), Peer::with(201, 1, "nine byte").object, Role::Primary))
        .unwrap();
    assert_eq!(stored(&store, &key), Some(set(["nine byte"])));
}

const RESERVE: u64 = 1 << 20;

fn nearly_full() -> (MemoryMachine, StoreLimits) {
    let machine = MemoryMachine::default();
    machine.disk.set_free_bytes(RESERVE);
    (machine, StoreLimits { disk_reserve: RESERVE, ..StoreLimits::default() })
}

#[test]
fn at_the_disks_reserve_writes_and_merges_are_refused_and_confirmations_are_not() {
    let (machine, limits) = nearly_full();
    let engine = machine.engine();
    let store = open_with(engine.clone(), limits);
    let ([ours], [theirs, other]) = (our_keys(), foreign_keys());
    let held = block_on(store.coordinate(EPOCH, theirs.clone(), put(1, "a"), None)).unwrap().object;
    block_on(store.coordinate(EPOCH, ours.clone(), put(2, "b"), None)).unwrap();

    machine.disk.set_free_bytes(RESERVE - 1);
    let full = Err(StoreError::Refused(Refusal::DiskFull));
    let peer = Peer::with(201, 1, "x").object;
    assert_eq!(block_on(store.coordinate(EPOCH, ours.clone(), put(3, "c"), None)).map(drop), full);
    assert_eq!(block_on(store.merge(EPOCH, NONE_OVER, ours.clone(), peer.clone(), Role::Primary)), full);
    assert_eq!(block_on(store.merge(EPOCH, NONE_OVER, other.clone(), peer, stand_in_for_the_first(&other))), full);
    assert_eq!(stored(&store, &ours), Some(set(["b"])), "reads go on");

    let last = primaries(&theirs)
        .into_iter()
        .map(|by| block_on(store.confirm(EPOCH, theirs.clone(), by, held.clock().clone())));
    assert_eq!(last.last(), Some(Ok(Confirmed::CopyDropped)), "handing off makes room");
    assert_hints_agree(&store, &*engine);

    machine.disk.set_free_bytes(RESERVE);
    block_on(store.coordinate(EPOCH, ours.clone(), put(4, "d"), None)).unwrap();
    assert_eq!(stored(&store, &ours), Some(set(["b", "d"])));
}

#[test]
fn a_repeated_request_is_answered_even_by_a_full_disk() {
    let (machine, limits) = nearly_full();
    let store = open_with(machine.engine(), limits);
    let [key] = our_keys();
    let written = block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap().object;
    machine.disk.set_free_bytes(0);
    let repeated = block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap();
    assert_eq!((repeated.how, repeated.object), (Coordinated::Repeated, written));
}
