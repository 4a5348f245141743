//! Adopting a layout: once, durably, and never a contradiction.

use starling_core::ids::ClusterId;
use starling_core::layout::LayoutVersion;
use starling_storage::{AdoptError, Health, Store, StoreError, StoreLimits};

use crate::support::gate::{Fate, Gate};
use crate::support::machine::{Machine, on_every_machine};
use crate::support::{identity, layout, layout_of, open};

on_every_machine![
    an_adopted_layout_survives,
    adopting_the_same_layout_again_changes_nothing,
    a_layout_of_another_cluster_is_refused,
    another_layout_of_the_same_version_is_a_fork,
    a_layout_that_could_not_be_recorded_is_not_used,
];

fn unadopted(machine: &dyn Machine) -> Store {
    Store::open_engine(machine.engine(), identity(), StoreLimits::default()).unwrap()
}

fn an_adopted_layout_survives(machine: &dyn Machine) {
    let store = unadopted(machine);
    assert!(store.layout().is_none());
    store.adopt(layout()).unwrap();
    assert_eq!(store.layout().as_deref(), Some(&layout()));
    drop(store);
    assert_eq!(unadopted(machine).layout().as_deref(), Some(&layout()));
}

fn adopting_the_same_layout_again_changes_nothing(machine: &dyn Machine) {
    let gate = Gate::before(machine.engine());
    let store = open(gate.clone());
    let commits = gate.commits();
    store.adopt(layout()).unwrap();
    assert_eq!(gate.commits(), commits);
}

fn a_layout_of_another_cluster_is_refused(machine: &dyn Machine) {
    let store = open(machine.engine());
    let refused = store.adopt(layout_of(2, 5));
    assert!(matches!(refused, Err(AdoptError::OtherCluster { ours: ClusterId(1), theirs: ClusterId(2) })));
    assert_eq!(store.layout().as_deref(), Some(&layout()));
}

fn another_layout_of_the_same_version_is_a_fork(machine: &dyn Machine) {
    let store = open(machine.engine());
    assert!(matches!(store.adopt(layout_of(1, 4)), Err(AdoptError::Forked(LayoutVersion(1)))));
    drop(store);
    assert_eq!(unadopted(machine).layout().as_deref(), Some(&layout()));
}

fn a_layout_that_could_not_be_recorded_is_not_used(machine: &dyn Machine) {
    let gate = Gate::before(machine.engine());
    let store = Store::open_engine(gate.clone(), identity(), StoreLimits::default()).unwrap();
    gate.fail_the_next_sync(Fate::Kept);
    assert!(matches!(store.adopt(layout()), Err(AdoptError::Store(StoreError::Unknown))));
    assert!(store.layout().is_none());
    assert!(matches!(*store.health().borrow(), Health::Failed { .. }));
    drop((store, gate));
    let store = unadopted(machine);
    assert_eq!(store.layout().as_deref(), Some(&layout()), "this time it had survived");
    store.adopt(layout()).unwrap();
}
