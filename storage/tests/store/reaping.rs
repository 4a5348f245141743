//! Rounds of reaping: what binds, what is marked, and what goes (R11).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use starling_core::coordinate::{Coordinated, Write};
use starling_core::ids::NodeId;
use starling_core::name::ObjectKey;
use starling_core::object::{Object, SiblingMode};
use starling_core::reaping::{Expired, Round, RoundId, RoundsOver, Standing};
use starling_core::report::{Refusal, Role};
use starling_core::ring::Decree;
use starling_core::token::Partition;
use starling_core::wall::WallTime;
use starling_storage::{Engine, Store, StoreError};

use crate::support::machine::{Machine, on_every_machine};
use crate::support::{
    EPOCH, NONE_OVER, Peer, US, assert_hints_agree, assert_trees_agree, block_on, delete_after, foreign_keys, layout,
    open, our_keys, put, put_after, put_until, raw_record, set, stored, values,
};

on_every_machine![
    a_tombstone_goes_when_its_round_is_over,
    what_was_written_since_it_was_marked_stays,
    whoever_holds_nothing_and_is_bound_takes_the_tombstone_in_the_place_of_what_is_older,
    a_repeated_request_that_binds_only_is_held_by_whoever_answers_it,
    whoever_holds_nothing_and_is_bound_takes_what_is_newer_as_if_it_had_held_the_tombstone,
    a_primary_that_is_bound_and_holds_nothing_holds_the_tombstone_once_it_comes,
    a_round_binds_and_its_end_holds_after_a_restart,
    what_was_read_before_a_round_was_over_is_not_taken_after_it,
    nobody_is_bound_by_a_round_that_is_over_or_of_another_epoch,
    a_round_that_is_called_off_stands_in_nobodys_way_and_never_binds_again,
    by_a_new_ring_what_is_marked_is_put_back,
    tombstones_are_found_in_the_order_of_their_keys,
    what_has_expired_goes_once_it_has_by_the_own_clock,
    what_expires_is_found_in_the_order_of_its_times,
    whoever_is_bound_by_what_has_expired_takes_only_what_covers_it,
    whoever_is_bound_by_what_has_expired_writes_only_over_it,
];

fn here(key: &ObjectKey) -> Partition {
    layout().partition_of(key)
}

fn round(number: u64, key: &ObjectKey, tombstone: &Object) -> Round {
    let id = RoundId { epoch: EPOCH, partition: here(key), number };
    Round { id, tombstones: BTreeMap::from([(key.clone(), tombstone.clone())]) }
}

/// What another node has written and deleted: the live object, and the tombstone.
fn deleted_elsewhere() -> (Object, Object) {
    let mut peer = Peer::with(201, 1, "old");
    let live = peer.object.clone();
    let seen = live.seen();
    peer.write(delete_after(&seen, 2));
    (live, peer.object)
}

fn take(store: &Store, over: RoundsOver, key: &ObjectKey, object: &Object) -> Result<(), StoreError> {
    let first = layout().preference_list(key).primaries()[0];
    let is_ours = layout().preference_list(key).is_primary(US);
    let role = if is_ours { Role::Primary } else { Role::Fallback { stands_in_for: first } };
    block_on(store.merge(EPOCH, over, key.clone(), object.clone(), role))
}

fn agrees(store: &Store, standing: Standing, key: &ObjectKey, tombstone: &Object) -> bool {
    agrees_by(Expired::Unknown, store, standing, key, tombstone)
}

fn agrees_by(expired: Expired, store: &Store, standing: Standing, key: &ObjectKey, tombstone: &Object) -> bool {
    block_on(store.weigh(EPOCH, key.clone(), standing, tombstone.clone(), expired)).unwrap()
}

fn mark(store: &Store, round: &Round, key: &ObjectKey) -> bool {
    mark_by(Expired::Unknown, store, round, key)
}

fn mark_by(expired: Expired, store: &Store, round: &Round, key: &ObjectKey) -> bool {
    block_on(store.mark(round.id, key.clone(), round.tombstones[key].clone(), expired)).unwrap()
}

fn end(store: &Store, round: &Round, key: &ObjectKey) -> bool {
    store.note_over(round.id).unwrap();
    let is_gone = block_on(store.forget(round.id, key.clone())).unwrap();
    store.unbind(round.id).unwrap();
    is_gone
}

/// A store that holds a tombstone as a primary.
fn with_tombstone(engine: Arc<dyn Engine>) -> (Store, ObjectKey, Object) {
    let [key] = our_keys();
    let store = open(engine);
    let (_, tombstone) = deleted_elsewhere();
    take(&store, NONE_OVER, &key, &tombstone).unwrap();
    (store, key, tombstone)
}

fn a_tombstone_goes_when_its_round_is_over(machine: &dyn Machine) {
    let engine = machine.engine();
    let (store, key, tombstone) = with_tombstone(engine.clone());
    let round = round(1, &key, &tombstone);
    store.bind(&round).unwrap();
    assert!(agrees(&store, Standing::Primary, &key, &tombstone));
    assert!(!agrees(&store, Standing::FillingPrimary, &key, &tombstone));
    assert!(!agrees(&store, Standing::Other, &key, &tombstone), "it is held");
    assert!(mark(&store, &round, &key));
    assert_eq!(raw_record(&*engine, &key).unwrap().reaped, Some(round.id));
    assert_trees_agree(&*engine, &layout());
    assert!(end(&store, &round, &key));
    assert!(raw_record(&*engine, &key).is_none());
    assert_trees_agree(&*engine, &layout());
    assert_eq!(store.tombstones(here(&key), None, 10).unwrap(), []);
}

fn what_was_written_since_it_was_marked_stays(machine: &dyn Machine) {
    let engine = machine.engine();
    let (store, key, tombstone) = with_tombstone(engine.clone());
    let round = round(1, &key, &tombstone);
    store.bind(&round).unwrap();
    assert!(mark(&store, &round, &key));
    block_on(store.coordinate(EPOCH, key.clone(), put(7, "new"), None)).unwrap();
    assert_trees_agree(&*engine, &layout());
    assert!(!mark(&store, &round, &key), "it is another object now");
    assert!(!end(&store, &round, &key));
    assert_eq!(stored(&store, &key), Some(set(["new"])));
}

/// Whoever is answered counts on its being held, and brought home.
fn whoever_holds_nothing_and_is_bound_takes_the_tombstone_in_the_place_of_what_is_older(machine: &dyn Machine) {
    let [key] = foreign_keys();
    let engine = machine.engine();
    let store = open(engine.clone());
    let (live, tombstone) = deleted_elsewhere();
    store.bind(&round(1, &key, &tombstone)).unwrap();
    assert!(agrees(&store, Standing::Other, &key, &tombstone));
    take(&store, NONE_OVER, &key, &live).unwrap();
    let held = raw_record(&*engine, &key).unwrap();
    assert_eq!((held.object, held.markers.len()), (tombstone.clone(), 3));
    assert!(!agrees(&store, Standing::Other, &key, &tombstone));
    assert_trees_agree(&*engine, &layout());
    assert_hints_agree(&store, &*engine);
}

fn a_repeated_request_that_binds_only_is_held_by_whoever_answers_it(machine: &dyn Machine) {
    let [key] = foreign_keys();
    let engine = machine.engine();
    let store = open(engine.clone());
    let (_, tombstone) = deleted_elsewhere();
    store.bind(&round(1, &key, &tombstone)).unwrap();
    let repeated = block_on(store.coordinate(EPOCH, key.clone(), delete_after(&tombstone.seen(), 2), None)).unwrap();
    assert_eq!(repeated.how, Coordinated::Repeated);
    let held = raw_record(&*engine, &key).unwrap();
    assert_eq!((held.object, held.markers.len()), (tombstone, 3));
}

fn whoever_holds_nothing_and_is_bound_takes_what_is_newer_as_if_it_had_held_the_tombstone(machine: &dyn Machine) {
    let [merged, coordinated] = foreign_keys();
    let engine = machine.engine();
    let store = open(engine.clone());
    let (live, tombstone) = deleted_elsewhere();
    let tombstones = [&merged, &coordinated].map(|key| (key.clone(), tombstone.clone())).into();
    store.bind(&Round { tombstones, ..round(1, &merged, &tombstone) }).unwrap();
    let mut other = Peer::with(202, 3, "new");
    other.object.merge(&live);
    take(&store, NONE_OVER, &merged, &other.object).unwrap();
    block_on(store.coordinate(EPOCH, coordinated.clone(), put(4, "newer"), None)).unwrap();
    for (key, value) in [(&merged, "new"), (&coordinated, "newer")] {
        assert_eq!(stored(&store, key), Some(set([value])));
        assert!(store.get(key).unwrap().unwrap().clock().covers_all(tombstone.clock()));
        assert!(!agrees(&store, Standing::Other, key, &tombstone));
    }
    assert_trees_agree(&*engine, &layout());
}

fn a_primary_that_is_bound_and_holds_nothing_holds_the_tombstone_once_it_comes(machine: &dyn Machine) {
    let [key] = our_keys();
    let store = open(machine.engine());
    let (live, tombstone) = deleted_elsewhere();
    store.bind(&round(1, &key, &tombstone)).unwrap();
    assert!(!agrees(&store, Standing::Primary, &key, &tombstone), "nothing is no answer");
    take(&store, NONE_OVER, &key, &live).unwrap();
    assert_eq!(store.get(&key).unwrap(), Some(tombstone.clone()));
    assert!(agrees(&store, Standing::Primary, &key, &tombstone));
}

fn a_round_binds_and_its_end_holds_after_a_restart(machine: &dyn Machine) {
    let [key] = foreign_keys();
    let engine = machine.engine();
    let (live, tombstone) = deleted_elsewhere();
    let round = round(1, &key, &tombstone);
    open(engine.clone()).bind(&round).unwrap();
    let store = open(engine.clone());
    assert_eq!(store.bound()[0].round, round);
    store.decide_ending(round.id, &BTreeSet::from([key.clone()])).unwrap();
    store.decide_ending(round.id, &BTreeSet::new()).unwrap();
    drop(store);
    let store = open(engine.clone());
    assert_eq!(store.bound()[0].ending, Some(BTreeSet::from([key.clone()])), "it is decided once");
    end(&store, &round, &key);
    drop(store);
    let store = open(engine.clone());
    assert!(store.bound().is_empty());
    assert_eq!(take(&store, NONE_OVER, &key, &live), Err(StoreError::Refused(Refusal::Reaped)));
    assert!(raw_record(&*engine, &key).is_none());
}

fn what_was_read_before_a_round_was_over_is_not_taken_after_it(machine: &dyn Machine) {
    let [key] = our_keys();
    let store = open(machine.engine());
    let (live, tombstone) = deleted_elsewhere();
    let round = round(1, &key, &tombstone);
    store.bind(&round).unwrap();
    store.note_over(round.id).unwrap();
    assert_eq!(take(&store, NONE_OVER, &key, &live), Err(StoreError::Refused(Refusal::Reaped)));
    take(&store, RoundsOver(1), &key, &Peer::with(203, 5, "new").object).unwrap();
    // Who says that more are over is believed.
    take(&store, RoundsOver(3), &key, &Peer::with(204, 6, "newer").object).unwrap();
    assert_eq!(store.rounds_over(EPOCH, here(&key)), RoundsOver(3));
    assert_eq!(take(&store, RoundsOver(2), &key, &live), Err(StoreError::Refused(Refusal::Reaped)));
}

fn nobody_is_bound_by_a_round_that_is_over_or_of_another_epoch(machine: &dyn Machine) {
    let [key] = our_keys();
    let store = open(machine.engine());
    let (_, tombstone) = deleted_elsewhere();
    let first = round(1, &key, &tombstone);
    store.bind(&first).unwrap();
    store.bind(&first).unwrap();
    let second = round(2, &key, &tombstone);
    assert_eq!(store.bind(&second), Err(StoreError::Refused(Refusal::Overloaded)), "one at a time");
    store.note_over(first.id).unwrap();
    store.unbind(first.id).unwrap();
    assert_eq!(store.bind(&first), Err(StoreError::Refused(Refusal::Reaped)));
    let mut other = second.clone();
    other.id.epoch.0 += 1;
    assert_eq!(store.bind(&other), Err(StoreError::Refused(Refusal::OtherLayout)));
    store.bind(&second).unwrap();
}

fn a_round_that_is_called_off_stands_in_nobodys_way_and_never_binds_again(machine: &dyn Machine) {
    let [key] = our_keys();
    let engine = machine.engine();
    let store = open(engine.clone());
    let (live, tombstone) = deleted_elsewhere();
    let first = round(1, &key, &tombstone);
    store.bind(&first).unwrap();
    store.unbind(first.id).unwrap();
    take(&store, NONE_OVER, &key, &live).unwrap();
    assert_eq!(stored(&store, &key), Some(set(["old"])));
    drop(store);
    let store = open(engine);
    assert_eq!(store.bind(&first), Err(StoreError::Refused(Refusal::Reaped)));
    assert_eq!(store.next_round(EPOCH, here(&key)).number, 2);
    let second = round(2, &key, &tombstone);
    store.unbind(second.id).unwrap();
    let too_late = store.bind(&second);
    assert_eq!(too_late, Err(StoreError::Refused(Refusal::Reaped)), "it was called off before it was heard of here");
    store.unbind(first.id).unwrap();
    assert_eq!(store.next_round(EPOCH, here(&key)).number, 3, "the last is the last");
    store.bind(&round(3, &key, &tombstone)).unwrap();
}

fn by_a_new_ring_what_is_marked_is_put_back(machine: &dyn Machine) {
    let engine = machine.engine();
    let (store, key, tombstone) = with_tombstone(engine.clone());
    let round = round(1, &key, &tombstone);
    store.bind(&round).unwrap();
    store.note_over(round.id).unwrap();
    mark(&store, &round, &key);
    let ring = store.ring().unwrap();
    let node = NodeId(4);
    let register = Decree::Register { node, directory: starling_core::ids::DirectoryId(400) };
    store.append(&ring.entry(register), None).unwrap();
    let epoch = store.ring().unwrap().epoch();
    assert_eq!(store.rounds_over(epoch, here(&key)), RoundsOver(0), "they are counted anew");
    assert!(block_on(store.put_back(epoch, round.id, key.clone())).unwrap());
    assert!(!block_on(store.put_back(epoch, round.id, key.clone())).unwrap());
    store.unbind(round.id).unwrap();
    assert_eq!(raw_record(&*engine, &key).unwrap().reaped, None);
    assert_trees_agree(&*engine, &layout());
}

fn tombstones_are_found_in_the_order_of_their_keys(machine: &dyn Machine) {
    let keys: [ObjectKey; 4] = our_keys();
    let store = open(machine.engine());
    for (n, key) in (1..).zip(&keys) {
        let written = block_on(store.coordinate(EPOCH, key.clone(), put(n, "x"), None)).unwrap();
        let delete = delete_after(&written.object.seen(), 10 + n);
        block_on(store.coordinate(EPOCH, key.clone(), delete, None)).unwrap();
    }
    let found = |after: Option<&ObjectKey>, limit| -> Vec<ObjectKey> {
        let found = store.tombstones(here(&keys[0]), after, limit).unwrap();
        found.into_iter().map(|(key, _)| key).collect()
    };
    let mut all = keys.to_vec();
    all.sort_by(|one, other| one.key().cmp(other.key()));
    assert_eq!(found(None, 10), all);
    assert_eq!(found(None, 2), all[..2]);
    assert_eq!(found(Some(&all[1]), 10), all[2..]);
    let seen = store.get(&all[0]).unwrap().unwrap().seen();
    block_on(store.coordinate(EPOCH, all[0].clone(), put_after(&seen, 30, "again"), None)).unwrap();
    assert_eq!(found(None, 10), all[1..], "what is written again is none any more");
}

/// When it expires.
const THEN: WallTime = WallTime(5_000);

/// What another node has written: first for good, then until [`THEN`] in its place.
fn expiring_elsewhere() -> (Object, Object) {
    let mut peer = Peer::with(201, 1, "old");
    let live = peer.object.clone();
    let seen = live.seen();
    peer.write(Write { seen, ..put_until(2, "new", THEN) });
    (live, peer.object)
}

fn what_has_expired_goes_once_it_has_by_the_own_clock(machine: &dyn Machine) {
    let [key] = our_keys();
    let engine = machine.engine();
    let store = open(engine.clone());
    let (_, expiring) = expiring_elsewhere();
    take(&store, NONE_OVER, &key, &expiring).unwrap();
    let round = round(1, &key, &expiring.outline());
    store.bind(&round).unwrap();
    let agrees = |expired| agrees_by(expired, &store, Standing::Primary, &key, &round.tombstones[&key]);
    assert!(!agrees(Expired::Unknown), "its clock cannot be relied on");
    assert!(!agrees(Expired::By(WallTime(THEN.0 - 1))));
    assert!(agrees(Expired::By(THEN)));
    assert!(!mark_by(Expired::By(WallTime(THEN.0 - 1)), &store, &round, &key), "its clock was set back since");
    assert!(mark_by(Expired::By(THEN), &store, &round, &key));
    assert_eq!(raw_record(&*engine, &key).unwrap().reaped, Some(round.id));
    assert_eq!(values(&store.get(&key).unwrap().unwrap()), set([]), "it has expired by now");
    assert_trees_agree(&*engine, &layout());
    assert!(end(&store, &round, &key));
    assert!(raw_record(&*engine, &key).is_none());
    assert_trees_agree(&*engine, &layout());
}

fn what_expires_is_found_in_the_order_of_its_times(machine: &dyn Machine) {
    let engine = machine.engine();
    let store = open(engine.clone());
    let keys: [ObjectKey; 4] = our_keys();
    let times = [WallTime(300), WallTime(100), WallTime(200), WallTime(u64::MAX)];
    for (key, at) in keys.iter().zip(times) {
        block_on(store.coordinate(EPOCH, key.clone(), put_until(1, "v", at), None)).unwrap();
    }
    let here = here(&keys[0]);
    let [late, first, second, never] = keys;
    let found = |by, after: Option<&(WallTime, ObjectKey)>, limit| store.expired(here, by, after, limit).unwrap();
    assert_eq!(found(WallTime(99), None, 10), []);
    let two = [(WallTime(100), first.clone()), (WallTime(200), second.clone())];
    assert_eq!(found(WallTime(299), None, 10), two);
    assert_eq!(found(WallTime(u64::MAX), Some(&two[0]), 1), [two[1].clone()]);
    assert_eq!(found(WallTime(u64::MAX), None, 10).last(), Some(&(WallTime(u64::MAX), never)));

    // What stays keeps the key, until it is gone again.
    let object = block_on(store.coordinate(EPOCH, first.clone(), put(2, "for good"), None)).unwrap().object;
    block_on(store.coordinate(EPOCH, second.clone(), put_until(3, "longer", WallTime(400)), None)).unwrap();
    let left = [(WallTime(300), late), (WallTime(400), second)];
    assert_eq!(found(WallTime(1_000), None, 10), left);
    assert_trees_agree(&*engine, &layout());
    let [_, good] = object.siblings() else { panic!("two siblings") };
    assert!(good.value.until().is_none());
    block_on(store.coordinate(EPOCH, first.clone(), delete_after(&object.seen(), 4), None)).unwrap();
    assert_eq!(found(WallTime(1_000), None, 10), left, "it is a tombstone now");
    assert_trees_agree(&*engine, &layout());
}

fn whoever_is_bound_by_what_has_expired_takes_only_what_covers_it(machine: &dyn Machine) {
    let engine = machine.engine();
    let store = open(engine.clone());
    let (live, expiring) = expiring_elsewhere();
    let ([key], [own]) = (foreign_keys(), our_keys());
    store.bind(&round(1, &key, &expiring.outline())).unwrap();
    let refused = take(&store, NONE_OVER, &key, &live);
    assert!(matches!(refused, Err(StoreError::Refused(Refusal::BeingReaped))), "{refused:?}");
    assert!(raw_record(&*engine, &key).is_none());
    take(&store, NONE_OVER, &key, &expiring).unwrap();
    assert_eq!(raw_record(&*engine, &key).unwrap().object, expiring, "with its value");

    // A primary that lacks it has not agreed, and becomes equal to the others in whatever order that comes about.
    store.bind(&round(1, &own, &expiring.outline())).unwrap();
    take(&store, NONE_OVER, &own, &live).unwrap();
    assert_eq!(raw_record(&*engine, &own).unwrap().object, live);
    take(&store, NONE_OVER, &own, &expiring).unwrap();
    assert_eq!(raw_record(&*engine, &own).unwrap().object, expiring);
    assert_trees_agree(&*engine, &layout());
    assert_hints_agree(&store, &*engine);
}

fn whoever_is_bound_by_what_has_expired_writes_only_over_it(machine: &dyn Machine) {
    let [key, other] = foreign_keys();
    let engine = machine.engine();
    let store = open(engine.clone());
    let (_, expiring) = expiring_elsewhere();
    let tombstones = [&key, &other].map(|key| (key.clone(), expiring.outline())).into();
    store.bind(&Round { tombstones, ..round(1, &key, &expiring) }).unwrap();
    let wins = Write { mode: SiblingMode::LastWriteWins, ..put(9, "the last") };
    let won = block_on(store.coordinate(EPOCH, other, wins, None)).unwrap().object;
    assert!(won.clock().covers_all(expiring.clock()));
    assert_eq!((values(&won), won.siblings().len()), (set(["the last"]), 1));

    let write = |write: Write| block_on(store.coordinate(EPOCH, key.clone(), write, None));
    for unseen in [put(7, "beside it"), put_until(2, "new", THEN)] {
        assert!(matches!(write(unseen), Err(StoreError::Refused(Refusal::BeingReaped))));
    }
    assert!(raw_record(&*engine, &key).is_none());
    let written = write(put_after(&expiring.seen(), 8, "over it")).unwrap().object;
    assert!(written.clock().covers_all(expiring.clock()));
    assert_eq!(values(&written), set(["over it"]));
    assert_eq!(written.siblings().len(), 1, "nothing is left of what has no value here");
    assert_trees_agree(&*engine, &layout());
    assert_hints_agree(&store, &*engine);
}
