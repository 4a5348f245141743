//! How the ring changes under a store: the log, the votes, the fence between two epochs, and what becomes of held copies.

use std::collections::BTreeSet;

use starling_core::choice::Ballot;
use starling_core::ids::{ClusterId, DirectoryId, NodeId};
use starling_core::layout::LayoutVersion;
use starling_core::name::ObjectKey;
use starling_core::report::{Refusal, Role};
use starling_core::ring::{Decree, Epoch, Phase};
use starling_core::transition::Progress;
use starling_storage::{AdoptError, Confirmed, NoVote, Store, StoreError, StoreLimits};

use crate::support::gate::{Gate, Point};
use crate::support::machine::{Machine, on_every_machine};
use crate::support::{
    CLUSTER, EPOCH, NONE_OVER, OUR_DIRECTORY, Peer, US, assert_hints_agree, block_on, foreign_keys, identity, key,
    open, our_keys, put, queue, raw_record, stored, successor,
};

on_every_machine![
    the_log_survives,
    an_entry_is_adopted_once_and_in_its_turn,
    what_was_asked_for_in_another_epoch_is_refused,
    an_epoch_is_adopted_only_once_the_batches_before_it_are_over,
    a_vote_survives,
    only_acceptors_vote_and_on_the_next_entry_only,
    who_has_agreed_by_force_goes_by_nothing_else,
    who_has_agreed_by_force_is_free_once_another_goes_by_something_else,
    how_far_it_has_copied_survives,
    markers_are_set_anew_by_a_new_ring,
    what_was_confirmed_by_an_old_ring_does_not_count_by_a_new_one,
    while_the_layout_changes_a_primary_of_one_owes_its_counterpart,
    what_is_copied_is_owed_to_nobody,
    what_is_copied_onto_what_was_confirmed_is_owed_again,
    what_was_copied_and_is_then_sent_is_owed,
];

fn reopened(machine: &dyn Machine) -> Store {
    Store::open_engine(machine.engine(), identity(), StoreLimits::default()).unwrap()
}

fn decree(store: &Store, decree: Decree) -> Result<(), AdoptError> {
    let entry = store.ring().unwrap().entry(decree);
    store.append(&entry, None)
}

fn begin(store: &Store, nodes: impl IntoIterator<Item = u64>) {
    let layout = successor(&store.ring().unwrap(), nodes);
    decree(store, Decree::Begin { layout, dead: BTreeSet::new() }).unwrap();
}

/// The layout that is coming is read, and the one before is gone.
fn settle(store: &Store) {
    let version = store.ring().unwrap().newest().version();
    decree(store, Decree::Switch(version)).unwrap();
    decree(store, Decree::End(version)).unwrap();
}

fn epoch(store: &Store) -> Epoch {
    store.ring().unwrap().epoch()
}

fn ballot(round: u64) -> Ballot {
    Ballot { round, proposer: NodeId(3), nonce: 0 }
}

fn the_log_survives(machine: &dyn Machine) {
    let store = open(machine.engine());
    begin(&store, 1..=6);
    let ring = store.ring();
    assert_eq!(ring.as_ref().unwrap().phase(), Phase::Dual);
    drop(store);
    let store = reopened(machine);
    assert_eq!(store.ring(), ring);
    settle(&store);
    let entries = store.entries(Epoch(0), 9).unwrap();
    assert_eq!(entries.iter().map(|entry| entry.epoch.0).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(store.entries(Epoch(0), 2).unwrap(), entries[..2]);
    assert_eq!(store.entries(Epoch(2), 9).unwrap(), entries[2..]);
    drop(store);
    assert_eq!(reopened(machine).layout().unwrap().version(), LayoutVersion(2));
}

fn an_entry_is_adopted_once_and_in_its_turn(machine: &dyn Machine) {
    let store = open(machine.engine());
    let ring = store.ring().unwrap();
    let entry = ring.entry(Decree::Begin { layout: successor(&ring, 1..=6), dead: BTreeSet::new() });
    let other = ring.entry(Decree::Begin { layout: successor(&ring, 1..=7), dead: BTreeSet::new() });
    store.append(&entry, None).unwrap();
    store.append(&entry, None).unwrap();
    assert_eq!(epoch(&store), Epoch(2));
    assert!(matches!(store.append(&other, None), Err(AdoptError::ForkedLog(Epoch(2)))));
    assert!(matches!(decree(&store, Decree::End(LayoutVersion(2))), Err(AdoptError::Invalid(_))));
    assert_eq!(epoch(&store), Epoch(2));
}

fn what_was_asked_for_in_another_epoch_is_refused(machine: &dyn Machine) {
    let store = open(machine.engine());
    let [key] = our_keys();
    begin(&store, 1..=6);
    let refused = Err(StoreError::Refused(Refusal::OtherLayout));
    assert_eq!(block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).map(|_| ()), refused);
    assert_eq!(
        block_on(store.merge(EPOCH, NONE_OVER, key.clone(), Peer::with(201, 1, "x").object, Role::Primary)),
        refused
    );
    assert_eq!(stored(&store, &key), None);
    block_on(store.coordinate(epoch(&store), key.clone(), put(1, "a"), None)).unwrap();
}

fn an_epoch_is_adopted_only_once_the_batches_before_it_are_over(machine: &dyn Machine) {
    let gate = Gate::before(machine.engine());
    let store = open(gate.clone());
    let [key] = our_keys();
    gate.close(Point::Commit);
    let written = queue(store.coordinate(EPOCH, key.clone(), put(1, "a"), None));
    gate.wait_for_a_writer();
    gate.let_others_pass();
    begin(&store, 1..=6);
    let mut adopted = queue(store.adopted());
    assert!(!adopted.is_answered(), "a batch of the epoch before is under way");
    let progress = |adopted| Progress { directory: OUR_DIRECTORY, adopted: Epoch(adopted), copied: None };
    assert_eq!(store.progress(), Ok(progress(1)));
    gate.open();
    assert_eq!(adopted.wait(), Some(Epoch(2)));
    assert!(written.wait().is_ok(), "it was begun in time");
    assert_eq!(store.progress(), Ok(progress(2)));
    drop(store);
    drop(gate);
    assert_eq!(reopened(machine).progress(), Ok(progress(2)), "nothing is under way at a start");
}

fn a_vote_survives(machine: &dyn Machine) {
    let store = open(machine.engine());
    let layout = successor(&store.ring().unwrap(), 1..=6);
    let begin = Decree::Begin { layout, dead: BTreeSet::new() };
    assert_eq!(store.promise(CLUSTER, Epoch(2), ballot(1)), Ok(None));
    store.accept(CLUSTER, Epoch(2), ballot(2), begin.clone()).unwrap();
    drop(store);
    let store = reopened(machine);
    assert!(matches!(store.promise(CLUSTER, Epoch(2), ballot(1)), Err(NoVote::Overtaken(_))));
    assert_eq!(store.accepted().unwrap(), Some(begin.clone()));
    assert_eq!(store.promise(CLUSTER, Epoch(2), ballot(3)), Ok(Some((ballot(2), begin))));
}

fn only_acceptors_vote_and_on_the_next_entry_only(machine: &dyn Machine) {
    let store = open(machine.engine());
    assert_eq!(store.promise(CLUSTER, Epoch(3), ballot(1)), Err(NoVote::OtherEpoch(Epoch(1))));
    assert_eq!(store.promise(CLUSTER, Epoch(1), ballot(1)), Err(NoVote::OtherEpoch(Epoch(1))));
    let invalid = store.accept(CLUSTER, Epoch(2), ballot(1), Decree::Switch(LayoutVersion(2)));
    assert!(matches!(invalid, Err(NoVote::Invalid(_))));
    begin(&store, 2..=6);
    settle(&store);
    assert_eq!(store.promise(CLUSTER, Epoch(5), ballot(1)), Err(NoVote::NoAcceptor), "this node has left");
}

fn who_has_agreed_by_force_goes_by_nothing_else(machine: &dyn Machine) {
    let store = open(machine.engine());
    let ring = store.ring().unwrap();
    let gone: BTreeSet<NodeId> = ring.members().into_keys().filter(|node| *node != US).take(3).collect();
    let left: Vec<u64> = ring.members().into_keys().filter(|node| !gone.contains(node)).map(|node| node.0).collect();
    let force = |left: &[u64], dead: &BTreeSet<NodeId>, cluster| Decree::Force {
        layout: successor(&ring, left.iter().copied()).in_cluster(ClusterId(cluster)),
        dead: dead.clone(),
    };
    let agreed = force(&left, &gone, 4242);
    let by_force = Ballot { round: 1 << 63, ..ballot(1) };
    let begin = Decree::Begin { layout: successor(&ring, 1..=6), dead: BTreeSet::new() };
    assert_eq!(
        store.accept(CLUSTER, Epoch(2), ballot(1), agreed.clone()),
        Err(NoVote::NoAcceptor),
        "not in a regular ballot"
    );
    assert_eq!(
        store.accept(CLUSTER, Epoch(2), by_force, begin.clone()),
        Err(NoVote::NoAcceptor),
        "nor the other way round"
    );
    let against_us = force(&[gone.first().unwrap().0], &[US].into(), 4242);
    assert_eq!(
        store.accept(CLUSTER, Epoch(2), by_force, against_us),
        Err(NoVote::NoAcceptor),
        "nor that it is given up itself"
    );
    assert_eq!(store.promise(CLUSTER, Epoch(2), by_force), Ok(None));
    store.accept(CLUSTER, Epoch(2), by_force, agreed.clone()).unwrap();
    drop(store);
    let store = reopened(machine);
    assert!(matches!(store.promise(CLUSTER, Epoch(2), ballot(u64::MAX >> 1)), Err(NoVote::Overtaken(_))));
    assert_eq!(store.is_bound_by_force(), Ok(true));
    assert!(matches!(decree(&store, begin.clone()), Err(AdoptError::BoundByForce(Epoch(2)))));
    let begun = ring.entry(begin);
    let other = *left.iter().find(|node| **node != US.0).unwrap();
    let lost_its_disk = Some((NodeId(other), DirectoryId(9999)));
    let refused = store.append(&begun, lost_its_disk);
    assert!(
        matches!(refused, Err(AdoptError::BoundByForce(_))),
        "it may have agreed by the directory that is registered"
    );
    assert_eq!(epoch(&store), Epoch(1));
    decree(&store, agreed).unwrap();
    assert_eq!(store.is_bound_by_force(), Ok(false));
    assert_eq!(store.cluster(), Some(ClusterId(4242)));
    let later = Epoch(3);
    assert_eq!(store.promise(CLUSTER, later, ballot(1)), Err(NoVote::NoAcceptor), "the others may be as far");
    assert_eq!(store.promise(ClusterId(4242), later, ballot(1)), Ok(None));
    drop(store);
    assert_eq!(reopened(machine).cluster(), Some(ClusterId(4242)));
}

fn who_has_agreed_by_force_is_free_once_another_goes_by_something_else(machine: &dyn Machine) {
    let store = open(machine.engine());
    let ring = store.ring().unwrap();
    let others: Vec<NodeId> = ring.members().into_keys().filter(|node| *node != US).collect();
    let layout = successor(&ring, [US.0, others[0].0]).in_cluster(ClusterId(4242));
    let force = Decree::Force { layout, dead: others[1..].iter().copied().collect() };
    let by_force = Ballot { round: 1 << 63, ..ballot(1) };
    store.accept(CLUSTER, Epoch(2), by_force, force).unwrap();
    let begun = ring.entry(Decree::Begin { layout: successor(&ring, 1..=6), dead: BTreeSet::new() });
    let told_by = |node: NodeId| store.append(&begun, Some((node, ring.directory_of(node).unwrap())));
    assert!(matches!(told_by(others[1]), Err(AdoptError::BoundByForce(_))), "it was to be given up");
    told_by(others[0]).unwrap();
    assert_eq!((epoch(&store), store.cluster()), (Epoch(2), Some(CLUSTER)));
}

fn how_far_it_has_copied_survives(machine: &dyn Machine) {
    let store = open(machine.engine());
    store.note_copied(LayoutVersion(3)).unwrap();
    store.note_copied(LayoutVersion(2)).unwrap();
    drop(store);
    assert_eq!(reopened(machine).progress().unwrap().copied, Some(LayoutVersion(3)));
}

/// One of our keys that another layout of these nodes takes from us.
fn lost_key(store: &Store, nodes: std::ops::RangeInclusive<u64>) -> ObjectKey {
    let next = successor(&store.ring().unwrap(), nodes);
    let is_lost = |key: &ObjectKey| {
        store.layout().unwrap().primaries_of(key).contains(&US) && !next.primaries_of(key).contains(&US)
    };
    (0..).map(|n| key("b", format!("k{n}"))).find(is_lost).expect("some partition moves")
}

fn markers_are_set_anew_by_a_new_ring(machine: &dyn Machine) {
    let engine = machine.engine();
    let store = open(engine.clone());
    let key = lost_key(&store, 1..=7);
    block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap();
    begin(&store, 1..=7);
    assert_eq!(block_on(store.readdress(epoch(&store), key.clone())), Ok(false), "it is a primary still");
    settle(&store);
    assert_eq!(block_on(store.readdress(epoch(&store), key.clone())), Ok(true));
    let owed: BTreeSet<NodeId> = store.layout().unwrap().primaries_of(&key).into_iter().collect();
    assert_eq!(raw_record(&*engine, &key).unwrap().markers, owed);
    assert_hints_agree(&store, &*engine);
    let clock = store.get(&key).unwrap().unwrap().clock().clone();
    let confirmed = |by| block_on(store.confirm(epoch(&store), key.clone(), by, clock.clone())).unwrap();
    let outcomes: Vec<Confirmed> = owed.into_iter().map(confirmed).collect();
    assert_eq!(outcomes, [Confirmed::MarkerDropped, Confirmed::MarkerDropped, Confirmed::CopyDropped]);
    assert_eq!(stored(&store, &key), None);
}

fn what_was_confirmed_by_an_old_ring_does_not_count_by_a_new_one(machine: &dyn Machine) {
    let engine = machine.engine();
    let store = open(engine.clone());
    let [key] = foreign_keys();
    let held = block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap().object;
    let primaries = store.layout().unwrap().primaries_of(&key);
    for by in &primaries[..2] {
        block_on(store.confirm(EPOCH, key.clone(), *by, held.clock().clone())).unwrap();
    }
    begin(&store, 1..=7);
    // The last of the old ring's confirmations comes late, and then once more by the new ring.
    let last = primaries[2];
    let late = block_on(store.confirm(EPOCH, key.clone(), last, held.clock().clone()));
    assert_eq!(late, Err(StoreError::Refused(Refusal::OtherLayout)));
    let now = block_on(store.confirm(epoch(&store), key.clone(), last, held.clock().clone())).unwrap();
    assert_eq!(now, Confirmed::MarkerDropped, "the others have to confirm again");
    let record = raw_record(&*engine, &key).unwrap();
    let mut owed: BTreeSet<NodeId> = store.ring().unwrap().primaries(&key).all().into_iter().collect();
    owed.remove(&last);
    assert_eq!((record.markers, record.confirmed, record.owed_in), (owed, [last].into(), Some(Epoch(2))));
    assert_hints_agree(&store, &*engine);
}

fn while_the_layout_changes_a_primary_of_one_owes_its_counterpart(machine: &dyn Machine) {
    let engine = machine.engine();
    let store = open(engine.clone());
    let key = lost_key(&store, 1..=7);
    begin(&store, 1..=7);
    let primaries = store.ring().unwrap().primaries(&key);
    let object = block_on(store.coordinate(epoch(&store), key.clone(), put(1, "a"), None)).unwrap().object;
    let owed = primaries.owed_by(US);
    assert_eq!((owed.len(), raw_record(&*engine, &key).unwrap().markers), (1, owed.clone()));
    let by = *owed.first().unwrap();
    let confirmed = block_on(store.confirm(epoch(&store), key.clone(), by, object.clock().clone())).unwrap();
    assert_eq!(confirmed, Confirmed::MarkerDropped, "it is still a primary of the old layout");
    assert!(stored(&store, &key).is_some());
    assert_hints_agree(&store, &*engine);
}

/// A key that we become a primary of once node 5 has left.
fn gained_key(store: &Store) -> ObjectKey {
    let next = successor(&store.ring().unwrap(), 1..=4);
    let is_gained = |key: &ObjectKey| {
        !store.layout().unwrap().primaries_of(key).contains(&US) && next.primaries_of(key).contains(&US)
    };
    (0..).map(|n| key("b", format!("k{n}"))).find(is_gained).expect("some partition comes to us")
}

fn what_is_copied_is_owed_to_nobody(machine: &dyn Machine) {
    let engine = machine.engine();
    let store = open(engine.clone());
    let key = gained_key(&store);
    let object = Peer::with(201, 1, "x").object;
    let refused = Err(StoreError::Refused(Refusal::OtherLayout));
    assert_eq!(block_on(store.copy(EPOCH, key.clone(), object.clone())), refused, "it is no primary yet");
    begin(&store, 1..=4);
    block_on(store.copy(epoch(&store), key.clone(), object)).unwrap();
    let record = raw_record(&*engine, &key).unwrap();
    assert_eq!((record.markers, record.owed_in), (BTreeSet::new(), None));
    assert_hints_agree(&store, &*engine);
}

fn what_is_copied_onto_what_was_confirmed_is_owed_again(machine: &dyn Machine) {
    let engine = machine.engine();
    let store = open(engine.clone());
    let key = gained_key(&store);
    begin(&store, 1..=4);
    let written = Peer::with(201, 1, "x").object;
    block_on(store.merge(epoch(&store), NONE_OVER, key.clone(), written.clone(), Role::Primary)).unwrap();
    let owed = store.ring().unwrap().primaries(&key).owed_by(US);
    for by in &owed {
        block_on(store.confirm(epoch(&store), key.clone(), *by, written.clock().clone())).unwrap();
    }
    assert_eq!(raw_record(&*engine, &key).unwrap().confirmed, owed);
    block_on(store.copy(epoch(&store), key.clone(), Peer::with(202, 1, "y").object)).unwrap();
    let record = raw_record(&*engine, &key).unwrap();
    assert_eq!((record.markers, record.confirmed), (owed, BTreeSet::new()));
    assert_hints_agree(&store, &*engine);
}

/// The coordinator counts it in every layout, whichever way it came first.
fn what_was_copied_and_is_then_sent_is_owed(machine: &dyn Machine) {
    let engine = machine.engine();
    let store = open(engine.clone());
    let key = gained_key(&store);
    begin(&store, 1..=4);
    let object = Peer::with(201, 1, "x").object;
    block_on(store.copy(epoch(&store), key.clone(), object.clone())).unwrap();
    block_on(store.merge(epoch(&store), NONE_OVER, key.clone(), object, Role::Primary)).unwrap();
    let owed = store.ring().unwrap().primaries(&key).owed_by(US);
    assert!(!owed.is_empty());
    assert_eq!(raw_record(&*engine, &key).unwrap().markers, owed);
    assert_hints_agree(&store, &*engine);
}
