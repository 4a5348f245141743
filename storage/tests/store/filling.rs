//! A directory that stands for a member in the place of a lost one: whose it is, what it lacks, and what takes its place.

use std::collections::BTreeSet;

use starling_core::ids::{DirectoryId, NodeId};
use starling_core::layout::{FirstLayout, Layout};
use starling_core::report::Refusal;
use starling_core::ring::{Decree, Entry, Ring};
use starling_storage::{Identity, OpenError, Store, StoreError, StoreLimits};

use crate::support::machine::{Machine, on_every_machine};
use crate::support::{OUR_DIRECTORY, US, identity, layout, open};

on_every_machine![
    a_directory_that_is_registered_lacks_everything_until_it_was_compared,
    a_directory_that_joins_lacks_nothing,
    what_is_full_stays_full,
    a_new_directory_can_be_that_of_a_member,
    a_directory_that_belongs_to_a_cluster_stays_whose_it_is,
    the_directory_that_takes_the_place_of_this_one_is_drawn_once,
];

/// In which another directory stood for this node before this one.
fn log_that_registers_us() -> Vec<Entry> {
    let first = layout_with(DirectoryId(201));
    let register = Decree::Register { node: US, directory: OUR_DIRECTORY };
    let entry = Ring::first(first.clone()).unwrap().entry(register);
    vec![Ring::first_entry(first), entry]
}

fn layout_with(directory: DirectoryId) -> Layout {
    let known = layout();
    let mut members = known.members().to_vec();
    members.iter_mut().filter(|member| member.node == US).for_each(|member| member.directory = directory);
    Layout::first(FirstLayout {
        cluster: known.cluster(),
        partitions: known.partitions(),
        replicas: known.replicas(),
        members,
        buckets: known.buckets().clone(),
    })
    .unwrap()
}

fn unadopted(machine: &dyn Machine) -> Store {
    Store::open_engine(machine.engine(), identity(), StoreLimits::default()).unwrap()
}

fn registered(machine: &dyn Machine) -> Store {
    let store = unadopted(machine);
    store.adopt_log(&log_that_registers_us()).unwrap();
    store
}

fn fill_all(store: &Store) {
    for (partition, peers) in store.left_to_fill() {
        peers.into_iter().for_each(|peer| store.note_filled(partition, peer).unwrap());
    }
}

fn a_directory_that_is_registered_lacks_everything_until_it_was_compared(machine: &dyn Machine) {
    let store = registered(machine);
    let ring = store.ring().unwrap();
    for partition in ring.read().partitions().all() {
        let primaries: BTreeSet<NodeId> = ring.read().primaries(partition, ring.read().replicas()).collect();
        assert_eq!(store.is_filling(partition), primaries.contains(&US));
    }
    let (partition, peers) = store.left_to_fill().pop_first().unwrap();
    let mut others = peers;
    let last = others.pop_last().unwrap();
    others.into_iter().for_each(|peer| store.note_filled(partition, peer).unwrap());
    assert!(store.is_filling(partition), "one has not been asked");
    drop(store);
    let store = unadopted(machine);
    assert_eq!(store.left_to_fill()[&partition], BTreeSet::from([last]), "it goes on where it was");
    store.note_filled(partition, last).unwrap();
    assert!(!store.is_filling(partition));
    assert!(store.filling_count() > 0, "the others are as they were");
}

fn a_directory_that_joins_lacks_nothing(machine: &dyn Machine) {
    let store = unadopted(machine);
    store.adopt_log(&[Ring::first_entry(layout())]).unwrap();
    assert_eq!(store.filling_count(), 0);
}

fn what_is_full_stays_full(machine: &dyn Machine) {
    let store = registered(machine);
    fill_all(&store);
    assert_eq!(store.filling_count(), 0);
    drop(store);
    assert_eq!(unadopted(machine).filling_count(), 0);
}

fn a_new_directory_can_be_that_of_a_member(machine: &dyn Machine) {
    let store = unadopted(machine);
    store.stand_for(NodeId(77)).unwrap();
    drop(store);
    let as_before = Store::open_engine(machine.engine(), identity(), StoreLimits::default());
    assert!(matches!(as_before.err(), Some(OpenError::MixedUp { .. })));
    let now = Identity { node: NodeId(77), ..identity() };
    assert_eq!(*Store::open_engine(machine.engine(), now.clone(), StoreLimits::default()).unwrap().identity(), now);
}

fn a_directory_that_belongs_to_a_cluster_stays_whose_it_is(machine: &dyn Machine) {
    let refused = open(machine.engine()).stand_for(NodeId(77));
    assert_eq!(refused, Err(StoreError::Refused(Refusal::NotAMember)));
    open(machine.engine());
}

fn the_directory_that_takes_the_place_of_this_one_is_drawn_once(machine: &dyn Machine) {
    let store = open(machine.engine());
    let drawn = store.successor().unwrap();
    assert_ne!(drawn, OUR_DIRECTORY);
    store.retire("an old copy");
    assert_eq!(store.successor(), Ok(drawn), "also of one that must not serve");
    drop(store);
    assert_eq!(unadopted(machine).successor(), Ok(drawn));
}
