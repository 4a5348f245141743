//! Writing and reading one key: R2 and R4 seen from outside, and R7.

use starling_core::coordinate::{Coordinated, WriteRefused};
use starling_core::ids::{Birth, RequestId};
use starling_core::object::SiblingMode;
use starling_core::report::{Refusal, Role};
use starling_core::stamp::Stamp;
use starling_storage::{StoreError, StoreLimits};

use crate::support::gate::{Gate, Point};
use crate::support::machine::{Machine, on_every_machine};
use crate::support::{
    EPOCH, NONE_OVER, NOW, Peer, block_on, delete_after, foreign_keys, key, open, open_with, our_keys, own_clock,
    own_histories, primaries, put, put_after, queue, raw_record, set, stored, values,
};

on_every_machine![
    what_was_coordinated_is_read_and_survives,
    a_write_with_a_context_replaces_what_it_saw_and_one_without_adds_a_sibling,
    a_deleted_key_keeps_its_clock,
    nothing_of_a_write_is_visible_before_its_sync,
    a_repeated_request_is_answered_from_the_own_object,
    a_request_id_used_for_another_value_is_refused,
    merges_converge_in_any_order_and_repeating_them_changes_nothing,
    a_merge_brings_no_mark,
    a_merge_never_refuses_for_size,
    a_last_write_wins_write_covers_what_the_store_holds,
    who_sends_to_a_primary_must_agree_that_it_is_one,
    keys_of_different_buckets_are_different,
];

fn what_was_coordinated_is_read_and_survives(machine: &dyn Machine) {
    let [key, other] = our_keys();
    let store = open(machine.engine());
    assert_eq!(store.get(&key), Ok(None));
    let minted = block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap();
    assert_eq!(minted.how, Coordinated::Minted);
    assert_eq!(*minted.object.clock(), own_clock(1, 1));
    assert_eq!(store.get(&key), Ok(Some(minted.object.clone())), "what is sent on is what is stored");
    assert_eq!(store.get(&other), Ok(None));
    drop(store);
    assert_eq!(open(machine.engine()).get(&key), Ok(Some(minted.object)));
}

fn a_write_with_a_context_replaces_what_it_saw_and_one_without_adds_a_sibling(machine: &dyn Machine) {
    let [key] = our_keys();
    let store = open(machine.engine());
    let first = block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap().object;
    let second = block_on(store.coordinate(EPOCH, key.clone(), put_after(&first.seen(), 2, "b"), None)).unwrap().object;
    assert_eq!(stored(&store, &key), Some(set(["b"])));
    block_on(store.coordinate(EPOCH, key.clone(), put_after(&first.seen(), 3, "c"), None)).unwrap();
    assert_eq!(stored(&store, &key), Some(set(["b", "c"])), "the writer of c had not seen b");
    block_on(store.coordinate(EPOCH, key.clone(), put(4, "d"), None)).unwrap();
    assert_eq!(stored(&store, &key), Some(set(["b", "c", "d"])));
    assert_eq!(own_histories(store.get(&key).unwrap().unwrap().clock()), [(Birth(1), 4)], "one history, no gaps");
    assert_eq!(values(&second), set(["b"]));
}

fn a_deleted_key_keeps_its_clock(machine: &dyn Machine) {
    let [key] = our_keys();
    let store = open(machine.engine());
    let written = block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap().object;
    block_on(store.coordinate(EPOCH, key.clone(), delete_after(&written.seen(), 2), None)).unwrap();
    let object = store.get(&key).unwrap().expect("a tombstone is held");
    assert!(object.is_deleted(SiblingMode::Keep, NOW));
    block_on(store.merge(EPOCH, NONE_OVER, key.clone(), written, Role::Primary)).unwrap();
    assert_eq!(stored(&store, &key), Some(set([])), "an old copy does not bring it back");
}

fn nothing_of_a_write_is_visible_before_its_sync(machine: &dyn Machine) {
    let [key] = foreign_keys();
    let gate = Gate::before(machine.engine());
    let store = open(gate.clone());
    gate.close(Point::Commit);
    let mut written = queue(store.coordinate(EPOCH, key.clone(), put(1, "a"), None));
    gate.wait_for_a_writer();
    assert_eq!(store.get(&key), Ok(None));
    assert!(store.hints().is_empty());
    assert_eq!(store.hints_for(primaries(&key)[0], None, 9), Ok(vec![]));
    let partition = store.layout().unwrap().partition_of(&key);
    assert_eq!(store.buckets(partition, 9), Ok(vec![]));
    assert!(!written.is_answered());
    gate.open();
    written.wait().unwrap();
    assert_eq!(stored(&store, &key), Some(set(["a"])));
}

fn a_repeated_request_is_answered_from_the_own_object(machine: &dyn Machine) {
    let [key] = our_keys();
    let engine = Gate::before(machine.engine());
    let store = open(engine.clone());
    let first = block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap();
    let commits = engine.commits();
    let mut again = put(1, "a");
    again.fresh_birth = Birth(99);
    let repeated = block_on(store.coordinate(EPOCH, key.clone(), again.clone(), None)).unwrap();
    assert_eq!((repeated.how, repeated.object), (Coordinated::Repeated, first.object.clone()));
    assert_eq!(engine.commits(), commits, "nothing had to be written for that");

    let second = block_on(store.coordinate(EPOCH, key.clone(), put_after(&first.object.seen(), 2, "b"), None)).unwrap();
    let late = block_on(store.coordinate(EPOCH, key.clone(), again, None)).unwrap();
    assert_eq!((late.how, late.object), (Coordinated::Repeated, second.object), "remembered after it was superseded");
}

fn a_request_id_used_for_another_value_is_refused(machine: &dyn Machine) {
    let [key] = our_keys();
    let store = open(machine.engine());
    block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap();
    let refused = block_on(store.coordinate(EPOCH, key.clone(), put(1, "b"), None));
    assert_eq!(refused, Err(StoreError::Write(WriteRefused::RequestReused(RequestId(1)))));
    assert_eq!(stored(&store, &key), Some(set(["a"])));
}

fn merges_converge_in_any_order_and_repeating_them_changes_nothing(machine: &dyn Machine) {
    let [one, other] = our_keys();
    let store = open(machine.engine());
    let mut x = Peer::with(201, 1, "x");
    let y = Peer::with(202, 2, "y").object;
    let old = x.object.clone();
    let new = x.write(put_after(&old.seen(), 3, "x2")).clone();
    for object in [&old, &y, &new, &old] {
        block_on(store.merge(EPOCH, NONE_OVER, one.clone(), object.clone(), Role::Primary)).unwrap();
    }
    for object in [&new, &new, &old, &y] {
        block_on(store.merge(EPOCH, NONE_OVER, other.clone(), object.clone(), Role::Primary)).unwrap();
    }
    assert_eq!(stored(&store, &one), Some(set(["x2", "y"])));
    let clock = |key| store.get(key).unwrap().unwrap().clock().clone();
    assert_eq!(stored(&store, &one), stored(&store, &other));
    assert_eq!(clock(&one), clock(&other));
}

fn a_merge_brings_no_mark(machine: &dyn Machine) {
    let [key] = our_keys();
    let engine = machine.engine();
    let store = open(engine.clone());
    // Our own dots of a copy that we dropped come back.
    let ours = Peer::with(101, 1, "from an earlier life").object;
    block_on(store.merge(EPOCH, NONE_OVER, key.clone(), ours, Role::Primary)).unwrap();
    assert_eq!(raw_record(&*engine, &key).unwrap().mark, None);
    let next = block_on(store.coordinate(EPOCH, key.clone(), put(2, "a"), None)).unwrap().object;
    assert_eq!(
        own_histories(next.clock()),
        [(Birth(1), 1), (Birth(2), 1)],
        "a new history, not the old one's second dot"
    );
}

fn a_merge_never_refuses_for_size(machine: &dyn Machine) {
    let [key] = our_keys();
    let mut limits = StoreLimits::default();
    limits.object.siblings = 2;
    limits.object.bytes = 10;
    let store = open_with(machine.engine(), limits);
    for n in 1..=3 {
        let far_too_long = "x".repeat(20);
        block_on(store.merge(
            EPOCH,
            NONE_OVER,
            key.clone(),
            Peer::with(200 + n, n, &far_too_long).object,
            Role::Primary,
        ))
        .unwrap();
    }
    let before = store.get(&key).unwrap().unwrap();
    let refused = block_on(store.coordinate(EPOCH, key.clone(), put(9, ""), None));
    assert_eq!(refused, Err(StoreError::Write(WriteRefused::TooManySiblings { siblings: 4, limit: 2 })));
    assert_eq!(store.get(&key), Ok(Some(before.clone())), "a refused write leaves nothing");
    block_on(store.coordinate(EPOCH, key.clone(), put_after(&before.seen(), 10, "resolved"), None)).unwrap();
    assert_eq!(stored(&store, &key), Some(set(["resolved"])));
}

fn a_last_write_wins_write_covers_what_the_store_holds(machine: &dyn Machine) {
    let [key] = our_keys();
    let store = open(machine.engine());
    let mut late = put(1, "late clock");
    late.mode = SiblingMode::LastWriteWins;
    let mut early = put(2, "early clock");
    early.mode = SiblingMode::LastWriteWins;
    early.wall = Stamp::from_millis(1);
    block_on(store.coordinate(EPOCH, key.clone(), late, None)).unwrap();
    block_on(store.coordinate(EPOCH, key.clone(), early, None)).unwrap();
    let object = store.get(&key).unwrap().unwrap();
    assert_eq!(object.siblings().len(), 1);
    assert_eq!(values(&object), set(["early clock"]), "stamped above what it covers");
}

fn who_sends_to_a_primary_must_agree_that_it_is_one(machine: &dyn Machine) {
    let [key] = foreign_keys();
    let engine = machine.engine();
    let store = open(engine.clone());
    let sent = block_on(store.merge(EPOCH, NONE_OVER, key.clone(), Peer::with(201, 1, "x").object, Role::Primary));
    assert_eq!(sent, Err(StoreError::Refused(Refusal::OtherLayout)));
    assert_eq!(store.get(&key), Ok(None));
    assert!(raw_record(&*engine, &key).is_none());
}

fn keys_of_different_buckets_are_different(machine: &dyn Machine) {
    let store = open(machine.engine());
    for (n, bucket) in ["a", "ab", "b"].into_iter().enumerate() {
        block_on(store.coordinate(EPOCH, key(bucket, "bc"), put(n as u64, bucket), None)).unwrap();
    }
    for bucket in ["a", "ab", "b"] {
        assert_eq!(stored(&store, &key(bucket, "bc")), Some(set([bucket])));
    }
    assert_eq!(store.get(&key("a", "b")), Ok(None));
}
