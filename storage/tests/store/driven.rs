//! Writers that nobody has given a thread: each step is taken by the test.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use starling_core::ids::NodeId;
use starling_core::object::Object;
use starling_core::report::Refusal;
use starling_storage::inspect::{self, HeldHint};
use starling_storage::{Batch, Health, Prepared, Space, Store, StoreError, StoreLimits, Writer};

use crate::support::machine::{Machine, MemoryMachine};
use crate::support::{
    EPOCH, Queued, block_on, foreign_keys, identity, layout, our_keys, poll, primaries, put, queue, set, stored, values,
};

fn open(machine: &MemoryMachine) -> (Store, Vec<Writer>) {
    let (store, writers) = Store::open_driven(machine.engine(), identity(), StoreLimits::default()).unwrap();
    store.adopt(layout()).unwrap();
    (store, writers)
}

/// Takes what is queued and works out its batches.
fn prepare(writers: &mut [Writer]) -> Vec<(&Writer, Prepared)> {
    let prepared = writers.iter_mut().filter_map(|writer| {
        let Poll::Ready(jobs) = poll(pin!(writer.next())) else { return None };
        let prepared = writer.prepare(jobs?);
        Some((&*writer, prepared))
    });
    prepared.collect()
}

fn drive(writers: &mut [Writer]) {
    prepare(writers).into_iter().for_each(|(writer, prepared)| writer.commit(prepared));
}

#[test]
fn a_change_is_carried_out_only_as_its_writer_is_driven() {
    let machine = MemoryMachine::default();
    let (store, mut writers) = open(&machine);
    let [key] = our_keys();
    let mut written = queue(store.coordinate(EPOCH, key.clone(), put(1, "a"), None));
    assert!(!written.is_answered());
    drive(&mut writers);
    assert_eq!(values(&written.wait().unwrap().object), set(["a"]));
    assert_eq!(stored(&store, &key), Some(set(["a"])));
}

#[test]
fn a_batch_that_was_appended_before_its_commit_is_applied_once() {
    let machine = MemoryMachine::default();
    let (store, mut writers) = open(&machine);
    let durable: Arc<Mutex<Vec<Batch>>> = Arc::default();
    let seen = Arc::clone(&durable);
    machine.disk.observe(Arc::new(move |batch| seen.lock().unwrap().push(batch.clone())));
    let [key] = our_keys();
    let mut written = queue(store.coordinate(EPOCH, key.clone(), put(1, "a"), None));
    for (writer, prepared) in prepare(&mut writers) {
        let batch = prepared.batch().cloned().expect("something changes");
        machine.disk.append(batch.clone());
        assert!(!written.is_answered() && stored(&store, &key).is_none(), "it is not synced yet");
        assert_eq!((durable.lock().unwrap().len(), machine.disk.unsynced()), (0, 1));
        writer.commit(prepared);
        assert_eq!(*durable.lock().unwrap(), [batch]);
        assert_eq!(machine.disk.unsynced(), 0);
    }
    assert!(written.wait().is_ok());
    assert_eq!(stored(&store, &key), Some(set(["a"])));
}

#[test]
fn a_store_is_closed_cleanly_once_its_writers_are_drained() {
    let machine = MemoryMachine::default();
    let [key] = our_keys();
    let minted_after = |number, clean: bool| {
        let (store, mut writers) = open(&machine);
        store.trust_marks();
        let written = queue(store.coordinate(EPOCH, key.clone(), put(number, "a"), None));
        let mut drained = queue(store.drain());
        assert!(!drained.is_answered());
        if clean {
            drive(&mut writers);
            assert!(block_on(writers[0].next()).is_none() && block_on(writers[1].next()).is_none());
            drop(writers);
            drained.wait();
        } else {
            drive(&mut writers);
        }
        store.close();
        written.wait().unwrap().object
    };
    let histories = |object: &Object| object.clock().entries().count();
    assert_eq!(histories(&minted_after(1, true)), 1);
    assert_eq!(histories(&minted_after(2, false)), 1, "the stop before was clean");
    assert_eq!(histories(&minted_after(3, true)), 2, "a writer was still at work at the stop before");
}

#[test]
fn changes_are_refused_while_the_writers_are_drained_and_those_queued_are_not() {
    let machine = MemoryMachine::default();
    let (store, mut writers) = open(&machine);
    let [key] = our_keys();
    let queued = queue(store.coordinate(EPOCH, key.clone(), put(1, "a"), None));
    let _drained: Queued<()> = queue(store.drain());
    let stopping = StoreError::Refused(Refusal::Stopping);
    assert_eq!(block_on(store.coordinate(EPOCH, key, put(2, "b"), None)), Err(stopping));
    drive(&mut writers);
    assert!(queued.wait().is_ok());
}

#[test]
fn a_failed_sync_ends_a_driven_store_too() {
    let machine = MemoryMachine::default();
    let (store, mut writers) = open(&machine);
    let [key] = our_keys();
    machine.disk.fail_syncs(1);
    let written = queue(store.coordinate(EPOCH, key, put(1, "a"), None));
    drive(&mut writers);
    assert_eq!(written.wait(), Err(StoreError::Unknown));
    assert!(matches!(&*store.health().borrow(), Health::Failed { .. }));
    assert_eq!(machine.disk.unsynced(), 1);
}

#[test]
fn what_lies_in_an_engine_can_be_inspected() {
    let machine = MemoryMachine::default();
    let (store, mut writers) = open(&machine);
    let keys: [_; 40] = foreign_keys();
    let written: Vec<_> =
        keys.iter().map(|key| queue(store.coordinate(EPOCH, key.clone(), put(1, "a"), None))).collect();
    drive(&mut writers);
    written.into_iter().for_each(|written| drop(written.wait().unwrap()));
    let owed = primaries(&keys[0]);
    let held = store.get(&keys[0]).unwrap().unwrap();
    let confirmed = queue(store.confirm(EPOCH, keys[0].clone(), owed[0], held.clock().clone()));
    drive(&mut writers);
    confirmed.wait().unwrap();

    let engine = machine.engine();
    let records: Vec<_> = inspect::records(&*engine).map(Result::unwrap).collect();
    assert_eq!(records.len(), keys.len());
    for record in &records {
        assert!(keys.contains(&record.place.key));
        assert_eq!(record.place.partition, layout().partition_of(&record.place.key));
        assert_eq!(Some(&record.object), store.get(&record.place.key).unwrap().as_ref());
        assert!(record.mark.is_some());
    }
    let confirmed: Vec<_> = records.iter().filter(|record| !record.confirmed.is_empty()).collect();
    assert_eq!(confirmed.len(), 1);
    assert_eq!(confirmed[0].place.key, keys[0]);
    assert_eq!((confirmed[0].confirmed.len(), confirmed[0].markers.len()), (1, 2));
    let markers = records.iter().flat_map(|record| {
        let hint = |target: &NodeId| HeldHint { target: *target, place: record.place.clone() };
        record.markers.iter().map(hint)
    });
    let mut markers: Vec<HeldHint> = markers.collect();
    markers.sort();
    assert_eq!(inspect::hints(&*engine).map(Result::unwrap).collect::<Vec<_>>(), markers);
}

#[test]
fn an_entry_that_cannot_be_read_is_told_and_passed_over() {
    let machine = MemoryMachine::default();
    let (store, mut writers) = open(&machine);
    let [key] = our_keys();
    let written = queue(store.coordinate(EPOCH, key, put(1, "a"), None));
    drive(&mut writers);
    drop(written.wait().unwrap());
    let engine = machine.engine();
    let mut batch = Batch::default();
    batch.put(Space::Objects, b"\x00".as_slice(), vec![1]);
    batch.put(Space::Hints, b"short".as_slice(), vec![1]);
    engine.commit(batch).unwrap();
    let records: Vec<_> = inspect::records(&*engine).collect();
    assert!(records[0].is_err() && records[1].is_ok() && records.len() == 2);
    assert!(inspect::hints(&*engine).all(|hint| hint.is_err()));
}
