//! Copies held for others: markers, confirmations, and when a copy may go (R2, R9, R10).

use starling_core::clock::Clock;
use starling_core::ids::{Birth, NodeId};
use starling_core::name::ObjectKey;
use starling_core::report::Role;
use starling_storage::{Confirmed, Hint, Space, Store};

use crate::support::machine::{Machine, on_every_machine};
use crate::support::{
    EPOCH, NONE_OVER, Peer, US, assert_hints_agree, block_on, delete_after, foreign_keys, key, open, our_keys,
    own_histories, primaries, put, put_after, raw_record, replace_record, set, stored,
};

on_every_machine![
    a_fallback_owes_every_primary_whatever_it_took,
    a_primary_owes_nobody,
    only_a_clock_that_covers_the_copy_confirms_it,
    a_copy_goes_when_the_last_primary_has_confirmed_and_its_mark_goes_with_it,
    a_changed_copy_is_owed_to_all_again,
    what_changes_nothing_is_not_owed_again,
    a_confirmation_by_somebody_who_is_owed_nothing_changes_nothing,
    a_copy_is_kept_while_a_primary_has_not_confirmed_even_if_it_has_no_marker,
    a_primary_never_drops_its_copy,
    a_primary_that_holds_markers_hands_off_and_keeps_its_copy,
    confirmations_so_far_survive_a_restart,
    counters_are_recounted_at_a_start,
    hints_are_paged_in_the_order_of_their_keys,
    a_deletion_is_handed_off_like_any_write,
];

fn confirm(store: &Store, key: &ObjectKey, by: NodeId, clock: &Clock) -> Confirmed {
    block_on(store.confirm(EPOCH, key.clone(), by, clock.clone())).unwrap()
}

fn stand_in(store: &Store, key: &ObjectKey, peer: &Peer) {
    let role = Role::Fallback { stands_in_for: primaries(key)[0] };
    block_on(store.merge(EPOCH, NONE_OVER, key.clone(), peer.object.clone(), role)).unwrap();
}

fn clock(store: &Store, key: &ObjectKey) -> Clock {
    store.get(key).unwrap().expect("it is held").clock().clone()
}

fn hints_of(store: &Store, target: NodeId) -> Vec<ObjectKey> {
    store.hints_for(target, None, 100).unwrap().into_iter().map(|hint| hint.key).collect()
}

fn a_fallback_owes_every_primary_whatever_it_took(machine: &dyn Machine) {
    let [merged, coordinated] = foreign_keys();
    let engine = machine.engine();
    let store = open(engine.clone());
    stand_in(&store, &merged, &Peer::with(201, 1, "x"));
    block_on(store.coordinate(EPOCH, coordinated.clone(), put(2, "y"), None)).unwrap();
    for key in [&merged, &coordinated] {
        assert_eq!(raw_record(&*engine, key).unwrap().markers, primaries(key).into_iter().collect());
    }
    for target in primaries(&merged) {
        assert_eq!(store.hints()[&target], 2);
        let mut keys = [&merged, &coordinated];
        keys.sort();
        let hint = |key: &ObjectKey| Hint { key: key.clone(), clock: clock(&store, key) };
        assert_eq!(store.hints_for(target, None, 9).unwrap(), keys.map(hint));
    }
    assert_hints_agree(&store, &*engine);
    assert_eq!(stored(&store, &merged), Some(set(["x"])), "a copy is read like any other");
}

fn a_primary_owes_nobody(machine: &dyn Machine) {
    let [key] = our_keys();
    let engine = machine.engine();
    let store = open(engine.clone());
    block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap();
    block_on(store.merge(EPOCH, NONE_OVER, key.clone(), Peer::with(201, 2, "x").object, Role::Primary)).unwrap();
    stand_in(&store, &key, &Peer::with(202, 3, "by one who thinks that we are a fallback"));
    assert!(raw_record(&*engine, &key).unwrap().markers.is_empty());
    assert!(store.hints().is_empty());
    assert_hints_agree(&store, &*engine);
}

fn only_a_clock_that_covers_the_copy_confirms_it(machine: &dyn Machine) {
    let [key] = foreign_keys();
    let engine = machine.engine();
    let store = open(engine.clone());
    let first = block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap().object;
    stand_in(&store, &key, &Peer::with(201, 2, "x"));
    let by = primaries(&key)[1];
    assert_eq!(confirm(&store, &key, by, &Clock::default()), Confirmed::Outdated);
    assert_eq!(confirm(&store, &key, by, first.clock()), Confirmed::Outdated);
    assert_eq!(confirm(&store, &key, by, Peer::with(201, 2, "x").object.clock()), Confirmed::Outdated);
    assert_eq!(store.hints().len(), 3, "nothing was crossed off");

    let mut more = clock(&store, &key);
    more.merge(Peer::with(299, 3, "not here yet").object.clock());
    assert_eq!(confirm(&store, &key, by, &more), Confirmed::MarkerDropped);
    assert_eq!(confirm(&store, &key, by, &more), Confirmed::NothingHeld, "it is crossed off once");
    assert!(!store.hints().contains_key(&by) && hints_of(&store, by).is_empty());
    assert_hints_agree(&store, &*engine);
}

fn a_copy_goes_when_the_last_primary_has_confirmed_and_its_mark_goes_with_it(machine: &dyn Machine) {
    let [key] = foreign_keys();
    let engine = machine.engine();
    let store = open(engine.clone());
    let first = block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap().object;
    assert!(raw_record(&*engine, &key).unwrap().mark.is_some());
    let [a, b, c] = primaries(&key).try_into().unwrap();
    assert_eq!(confirm(&store, &key, b, first.clock()), Confirmed::MarkerDropped);
    assert_eq!(confirm(&store, &key, c, first.clock()), Confirmed::MarkerDropped);
    assert_eq!(stored(&store, &key), Some(set(["a"])), "one primary has not confirmed");
    assert_eq!(confirm(&store, &key, a, first.clock()), Confirmed::CopyDropped);
    assert_eq!(store.get(&key), Ok(None));
    assert!(store.hints().is_empty());
    for space in [Space::Objects, Space::Hints] {
        assert_eq!(engine.scan(space, b"", None, 9).unwrap(), [], "nothing is left in {space:?}");
    }

    let again = block_on(store.coordinate(EPOCH, key.clone(), put(2, "b"), None)).unwrap().object;
    assert_eq!(own_histories(again.clock()).len(), 1);
    assert!(!first.clock().covers_all(again.clock()), "dot 1 of the first life is not minted again (R2)");
    assert_eq!(own_histories(again.clock()), [(Birth(2), 1)]);
}

fn a_changed_copy_is_owed_to_all_again(machine: &dyn Machine) {
    let [key] = foreign_keys();
    let engine = machine.engine();
    let store = open(engine.clone());
    let first = block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap().object;
    let [a, b, c] = primaries(&key).try_into().unwrap();
    confirm(&store, &key, a, first.clock());
    confirm(&store, &key, b, first.clock());
    stand_in(&store, &key, &Peer::with(201, 2, "x"));
    let record = raw_record(&*engine, &key).unwrap();
    assert_eq!(record.markers, [a, b, c].into());
    assert!(record.confirmed.is_empty(), "they confirmed another state");
    assert_hints_agree(&store, &*engine);

    assert_eq!(confirm(&store, &key, c, first.clock()), Confirmed::Outdated);
    let now = clock(&store, &key);
    assert_eq!(confirm(&store, &key, c, &now), Confirmed::MarkerDropped);
    assert_eq!(confirm(&store, &key, a, &now), Confirmed::MarkerDropped);
    assert_eq!(confirm(&store, &key, b, &now), Confirmed::CopyDropped);
}

fn what_changes_nothing_is_not_owed_again(machine: &dyn Machine) {
    let [key] = foreign_keys();
    let engine = machine.engine();
    let store = open(engine.clone());
    let mut peer = Peer::with(201, 1, "x");
    let old = peer.object.clone();
    peer.write(put_after(&old.seen(), 2, "y"));
    stand_in(&store, &key, &peer);
    let a = primaries(&key)[0];
    confirm(&store, &key, a, peer.object.clock());
    stand_in(&store, &key, &peer);
    block_on(store.merge(EPOCH, NONE_OVER, key.clone(), old, Role::Fallback { stands_in_for: a })).unwrap();
    let record = raw_record(&*engine, &key).unwrap();
    assert!(!record.markers.contains(&a) && record.confirmed.contains(&a));
    assert_hints_agree(&store, &*engine);
}

fn a_confirmation_by_somebody_who_is_owed_nothing_changes_nothing(machine: &dyn Machine) {
    let [key] = foreign_keys();
    let engine = machine.engine();
    let store = open(engine.clone());
    let first = block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap().object;
    let outsider = (1..=5).map(NodeId).find(|node| *node != US && !primaries(&key).contains(node)).unwrap();
    for by in [outsider, US, NodeId(77)] {
        assert_eq!(confirm(&store, &key, by, first.clock()), Confirmed::NothingHeld);
    }
    let never_written = foreign_keys::<2>()[1].clone();
    assert_eq!(confirm(&store, &never_written, primaries(&key)[0], first.clock()), Confirmed::NothingHeld);
    assert_eq!(store.hints().len(), 3);
    assert_eq!(raw_record(&*engine, &key).unwrap().markers.len(), 3);
}

/// Another layout may have left such a record.
fn a_copy_is_kept_while_a_primary_has_not_confirmed_even_if_it_has_no_marker(machine: &dyn Machine) {
    let [key] = foreign_keys();
    let store = open(machine.engine());
    let first = block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap().object;
    drop(store);
    let engine = machine.engine();
    let [a, b, c] = primaries(&key).try_into().unwrap();
    let mut record = raw_record(&*engine, &key).unwrap();
    record.markers = [a, b].into();
    replace_record(&*engine, &key, &record);
    let store = open(engine.clone());
    assert_eq!(confirm(&store, &key, a, first.clock()), Confirmed::MarkerDropped);
    assert_eq!(confirm(&store, &key, b, first.clock()), Confirmed::MarkerDropped);
    assert_eq!(stored(&store, &key), Some(set(["a"])), "nothing is known of {c}");
    assert_hints_agree(&store, &*engine);
}

/// Another layout may have made it one, with its markers still there.
fn a_primary_that_holds_markers_hands_off_and_keeps_its_copy(machine: &dyn Machine) {
    let [key] = our_keys();
    let store = open(machine.engine());
    let first = block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap().object;
    drop(store);
    let engine = machine.engine();
    let mut record = raw_record(&*engine, &key).unwrap();
    record.markers = primaries(&key).into_iter().filter(|primary| *primary != US).collect();
    replace_record(&*engine, &key, &record);
    let store = open(engine.clone());
    for by in record.markers {
        assert_eq!(hints_of(&store, by), std::slice::from_ref(&key));
        assert_eq!(confirm(&store, &key, by, first.clock()), Confirmed::MarkerDropped);
    }
    assert_eq!(stored(&store, &key), Some(set(["a"])));
    assert_hints_agree(&store, &*engine);
}

fn a_primary_never_drops_its_copy(machine: &dyn Machine) {
    let [key] = our_keys();
    let store = open(machine.engine());
    let written = block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap().object;
    for by in primaries(&key) {
        assert_eq!(confirm(&store, &key, by, written.clock()), Confirmed::NothingHeld);
    }
    assert_eq!(stored(&store, &key), Some(set(["a"])));
}

fn confirmations_so_far_survive_a_restart(machine: &dyn Machine) {
    let [key] = foreign_keys();
    let store = open(machine.engine());
    let first = block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap().object;
    let [a, b, c] = primaries(&key).try_into().unwrap();
    confirm(&store, &key, a, first.clock());
    drop(store);
    let store = open(machine.engine());
    assert_eq!(confirm(&store, &key, b, first.clock()), Confirmed::MarkerDropped);
    assert_eq!(confirm(&store, &key, c, first.clock()), Confirmed::CopyDropped, "a need not repeat itself");
}

fn counters_are_recounted_at_a_start(machine: &dyn Machine) {
    let keys: [ObjectKey; 7] = foreign_keys();
    let store = open(machine.engine());
    for (n, key) in keys.iter().enumerate() {
        block_on(store.coordinate(EPOCH, key.clone(), put(n as u64, "v"), None)).unwrap();
    }
    let a = primaries(&keys[0])[0];
    confirm(&store, &keys[3], a, &clock(&store, &keys[3]));
    let counted = store.hints();
    assert_eq!((counted.len(), counted[&a]), (3, 6));
    drop(store);
    let engine = machine.engine();
    let store = open(engine.clone());
    assert_eq!(store.hints(), counted);
    assert_hints_agree(&store, &*engine);
}

fn hints_are_paged_in_the_order_of_their_keys(machine: &dyn Machine) {
    let store = open(machine.engine());
    let mut keys: Vec<ObjectKey> = foreign_keys::<9>().into();
    // Bytes that could be taken for a separator or an end.
    keys.extend((0..40u8).map(|n| key("b", [b'x', n, 0xff, 0])).filter(|key| !primaries(key).contains(&US)));
    for (n, key) in keys.iter().enumerate() {
        stand_in(&store, key, &Peer::with(201, n as u64, "v"));
    }
    for target in (2..=5).map(NodeId) {
        let partition = |key: &ObjectKey| store.layout().unwrap().partition_of(key);
        let mut expected: Vec<_> = keys.iter().filter(|key| primaries(key).contains(&target)).cloned().collect();
        expected.sort_by_key(|key| (partition(key), key.clone()));
        assert_eq!(hints_of(&store, target), expected);

        let mut paged = Vec::new();
        while let page @ [_, ..] = &store.hints_for(target, paged.last(), 4).unwrap()[..] {
            assert!(page.len() <= 4);
            paged.extend(page.iter().map(|hint| hint.key.clone()));
        }
        assert_eq!(paged, expected);
        assert_eq!(store.hints_for(target, None, 0), Ok(vec![]));
    }
    assert_eq!(store.hints_for(US, None, 9), Ok(vec![]));
    let first_gone = foreign_keys::<1>();
    let a = primaries(&first_gone[0])[0];
    let after = store.hints_for(a, Some(&first_gone[0]), 100).unwrap();
    confirm(&store, &first_gone[0], a, &clock(&store, &first_gone[0]));
    assert_eq!(store.hints_for(a, Some(&first_gone[0]), 100), Ok(after), "a page may start behind one that has gone");
}

fn a_deletion_is_handed_off_like_any_write(machine: &dyn Machine) {
    let [key] = foreign_keys();
    let store = open(machine.engine());
    let first = block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap().object;
    let deletion = delete_after(&first.seen(), 2);
    let gone = block_on(store.coordinate(EPOCH, key.clone(), deletion, None)).unwrap().object;
    for by in primaries(&key) {
        assert_eq!(confirm(&store, &key, by, first.clock()), Confirmed::Outdated);
        assert_eq!(hints_of(&store, by), std::slice::from_ref(&key));
    }
    let last = primaries(&key).into_iter().map(|by| confirm(&store, &key, by, gone.clock())).last();
    assert_eq!(last, Some(Confirmed::CopyDropped));
}
