//! A store that cannot keep its promise stops (R13), and a restart finds either outcome, whole.

use starling_core::coordinate::{Write, WriteRefused};
use starling_core::ids::{Birth, DirectoryId, Run, RunVerdict};
use starling_core::name::ObjectKey;
use starling_core::report::{Refusal, Role};
use starling_storage::{AdoptError, Batch, Confirmed, Engine, Health, Space, Store, StoreError, StoreLimits};

use crate::support::gate::{Fate, Gate, Point};
use crate::support::machine::{Machine, MemoryMachine, on_every_machine};
use crate::support::{
    EPOCH, NONE_OVER, Peer, Queued, assert_hints_agree, block_on, foreign_keys, identity, key, layout, open, our_keys,
    own_clock, own_histories, primaries, put, put_after, queue, record_key, set, stored, within_seconds,
};

on_every_machine![
    a_failed_sync_makes_its_whole_batch_unknown_and_ends_the_store,
    after_a_failed_sync_a_restart_finds_the_batch_whole_or_not_at_all,
    what_was_refused_for_itself_is_not_called_unknown,
    a_failed_drop_of_a_copy_is_whole_or_not_at_all,
    after_a_failed_sync_nothing_is_recorded_or_voted_on,
    a_dot_above_the_own_mark_retires_the_directory_for_good,
    a_dot_above_the_own_mark_in_a_clients_context_does_the_same,
    nothing_of_the_batch_that_betrayed_the_copy_is_kept,
    a_retired_store_keeps_quiet,
    a_failure_does_not_make_a_retired_store_look_restartable,
    an_unreadable_record_harms_nobody_else,
    a_panicking_writer_ends_the_store,
];

fn health(store: &Store) -> Health {
    store.health().borrow().clone()
}

fn assert_refuses_everything(store: &Store, refusal: Refusal) {
    let refused = StoreError::Refused(refusal);
    let [ours] = our_keys();
    let layout = layout();
    let partition = layout.partition_of(&ours);
    assert_eq!(store.get(&ours), Err(refused.clone()));
    assert_eq!(store.list(partition, ours.bucket(), b"", None, 9), Err(refused.clone()));
    assert_eq!(store.buckets(partition, 9), Err(refused.clone()));
    assert_eq!(store.hints_for(primaries(&ours)[0], None, 9), Err(refused.clone()));
    assert_eq!(block_on(store.coordinate(EPOCH, ours.clone(), put(900, "late"), None)), Err(refused.clone()));
    assert_eq!(
        block_on(store.merge(EPOCH, NONE_OVER, ours.clone(), Peer::with(201, 1, "x").object, Role::Primary)),
        Err(refused.clone())
    );
    assert_eq!(
        block_on(store.confirm(EPOCH, ours, primaries(&foreign_keys::<1>()[0])[0], own_clock(1, 1))),
        Err(refused)
    );
}

fn a_failed_sync_makes_its_whole_batch_unknown_and_ends_the_store(machine: &dyn Machine) {
    let ([one, two], [elsewhere]) = (our_keys(), foreign_keys());
    let gate = Gate::before(machine.engine());
    let store = open(gate.clone());
    let mut changes = store.health();
    changes.mark_unchanged();
    let synced = block_on(store.coordinate(EPOCH, one.clone(), put(1, "a"), None)).unwrap().object;
    gate.fail_the_next_sync(Fate::Lost);
    let held = gate.hold_writer_of(&store, &one);
    let written = queue(store.coordinate(EPOCH, one.clone(), put_after(&synced.seen(), 2, "b"), None));
    let merged = queue(store.merge(EPOCH, NONE_OVER, two.clone(), Peer::with(201, 3, "x").object, Role::Primary));
    let repeated = queue(store.coordinate(EPOCH, one.clone(), put(1, "a"), None));
    held.let_go();
    assert_eq!(written.wait(), Err(StoreError::Unknown));
    assert_eq!(merged.wait(), Err(StoreError::Unknown));
    assert_eq!(repeated.wait(), Err(StoreError::Unknown), "its answer would have shown the unsynced write");
    assert!(matches!(health(&store), Health::Failed { .. }));
    assert!(changes.has_changed().unwrap(), "whoever watches learns of it");
    assert_refuses_everything(&store, Refusal::StorageFailed);
    assert_eq!(
        block_on(store.coordinate(EPOCH, elsewhere, put(4, "c"), None)),
        Err(StoreError::Refused(Refusal::StorageFailed)),
        "the other writer stops too"
    );
}

fn after_a_failed_sync_a_restart_finds_the_batch_whole_or_not_at_all(machine: &dyn Machine) {
    let mut key = our_keys::<2>().into_iter();
    for fate in [Fate::Lost, Fate::Kept] {
        let key = key.next().unwrap();
        let gate = Gate::before(machine.engine());
        let store = open(gate.clone());
        let synced = block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap().object;
        gate.fail_the_next_sync(fate);
        let unknown = block_on(store.coordinate(EPOCH, key.clone(), put_after(&synced.seen(), 2, "b"), None));
        assert_eq!(unknown, Err(StoreError::Unknown));
        store.close();
        drop((store, gate));

        let store = open(machine.engine());
        store.trust_marks();
        assert_eq!(health(&store), Health::Serving);
        let survived = if fate == Fate::Kept { "b" } else { "a" };
        assert_eq!(stored(&store, &key), Some(set([survived])));
        // The client tries again, as it was told that it may.
        let again = Write { fresh_birth: Birth(3), ..put_after(&synced.seen(), 2, "b") };
        let again = block_on(store.coordinate(EPOCH, key.clone(), again, None)).unwrap().object;
        assert_eq!(stored(&store, &key), Some(set(["b"])));
        let expected: &[_] = if fate == Fate::Kept { &[(Birth(1), 2)] } else { &[(Birth(1), 1), (Birth(3), 1)] };
        assert_eq!(own_histories(again.clock()), expected, "a run that failed did not end cleanly: new birth (R3)");
        drop(store);
    }
}

fn what_was_refused_for_itself_is_not_called_unknown(machine: &dyn Machine) {
    let [ours] = our_keys();
    let gate = Gate::before(machine.engine());
    let store = open(gate.clone());
    block_on(store.coordinate(EPOCH, ours.clone(), put(1, "a"), None)).unwrap();
    gate.fail_the_next_sync(Fate::Kept);
    let held = gate.hold_writer_of(&store, &ours);
    let written = queue(store.coordinate(EPOCH, ours.clone(), put(2, "b"), None));
    let reused = queue(store.coordinate(EPOCH, ours.clone(), put(1, "another value"), None));
    held.let_go();
    assert_eq!(written.wait(), Err(StoreError::Unknown));
    assert!(matches!(reused.wait(), Err(StoreError::Write(WriteRefused::RequestReused(_)))));
}

fn a_failed_drop_of_a_copy_is_whole_or_not_at_all(machine: &dyn Machine) {
    let mut keys = foreign_keys::<2>().into_iter();
    for fate in [Fate::Lost, Fate::Kept] {
        let key = keys.next().unwrap();
        let gate = Gate::before(machine.engine());
        let store = open(gate.clone());
        let held = block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap().object;
        let [a, b, c] = primaries(&key).try_into().unwrap();
        for by in [a, b] {
            block_on(store.confirm(EPOCH, key.clone(), by, held.clock().clone())).unwrap();
        }
        gate.fail_the_next_sync(fate);
        assert_eq!(block_on(store.confirm(EPOCH, key.clone(), c, held.clock().clone())), Err(StoreError::Unknown));
        drop((store, gate));

        let engine = machine.engine();
        let store = open(engine.clone());
        assert_hints_agree(&store, &*engine);
        let again = block_on(store.confirm(EPOCH, key.clone(), c, held.clock().clone())).unwrap();
        let expected = if fate == Fate::Kept { Confirmed::NothingHeld } else { Confirmed::CopyDropped };
        assert_eq!(again, expected);
        assert_eq!(store.get(&key), Ok(None));
        drop(store);
    }
}

/// A vote on a run, or on a layout, is a promise as well, and rests on a memory that a failed store may have lost.
fn after_a_failed_sync_nothing_is_recorded_or_voted_on(machine: &dyn Machine) {
    let [key] = our_keys();
    let gate = Gate::before(machine.engine());
    let store = open(gate.clone());
    let known = Run { directory: DirectoryId(102), counter: 1, nonce: 1 };
    assert_eq!(store.meet(&known), Ok(RunVerdict::Newer));
    gate.fail_the_next_sync(Fate::Lost);
    assert_eq!(block_on(store.coordinate(EPOCH, key, put(1, "a"), None)), Err(StoreError::Unknown));
    let refused = StoreError::Refused(Refusal::StorageFailed);
    assert_eq!(store.meet(&known), Err(refused.clone()));
    assert_eq!(store.meet(&Run { counter: 2, ..known }), Err(refused.clone()));
    assert!(matches!(store.adopt(layout()), Err(AdoptError::Store(error)) if error == refused));
}

/// A peer's object shows our dot 2 of a birth of which we minted one.
fn betray(store: &Store, key: &ObjectKey) -> StoreError {
    let mut copy_of_us = Peer::new(101);
    let seen = copy_of_us.write(put(1, "a")).seen();
    copy_of_us.write(put_after(&seen, 50, "minted by a copy of us"));
    block_on(store.merge(EPOCH, NONE_OVER, key.clone(), copy_of_us.object, Role::Primary)).unwrap_err()
}

fn a_dot_above_the_own_mark_retires_the_directory_for_good(machine: &dyn Machine) {
    let [key] = our_keys();
    let store = open(machine.engine());
    block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap();
    assert!(matches!(betray(&store, &key), StoreError::Write(WriteRefused::DirectoryCopied(_))));
    assert!(matches!(health(&store), Health::Retired { .. }));
    assert_refuses_everything(&store, Refusal::NotAMember);
    store.close();
    drop(store);

    let store = Store::open_engine(machine.engine(), identity(), StoreLimits::default()).unwrap();
    assert!(matches!(health(&store), Health::Retired { reason } if reason.contains("copy")));
    assert_refuses_everything(&store, Refusal::NotAMember);
}

fn a_dot_above_the_own_mark_in_a_clients_context_does_the_same(machine: &dyn Machine) {
    let [key] = our_keys();
    let store = open(machine.engine());
    block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap();
    let refused = block_on(store.coordinate(EPOCH, key.clone(), put_after(&own_clock(1, 2).into(), 2, "b"), None));
    assert!(matches!(refused, Err(StoreError::Write(WriteRefused::DirectoryCopied(_)))));
    assert!(matches!(health(&store), Health::Retired { .. }));
}

fn nothing_of_the_batch_that_betrayed_the_copy_is_kept(machine: &dyn Machine) {
    let [key, other] = our_keys();
    let gate = Gate::before(machine.engine());
    let store = open(gate.clone());
    block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap();
    let records = |engine: &dyn Engine| engine.scan(Space::Objects, b"", None, 9).unwrap();
    let before = records(&*gate);
    let held = gate.hold_writer_of(&store, &key);
    let earlier = queue(store.coordinate(EPOCH, other.clone(), put(2, "b"), None));
    let betrayal = queue(store.coordinate(EPOCH, key.clone(), put_after(&own_clock(1, 9).into(), 3, "c"), None));
    let later = queue(store.coordinate(EPOCH, other.clone(), put(4, "d"), None));
    held.let_go();
    let answers: Vec<_> = [earlier, betrayal, later].into_iter().map(Queued::wait).collect();
    assert!(matches!(answers[1], Err(StoreError::Write(WriteRefused::DirectoryCopied(_)))));
    assert!(answers[0].is_err() && answers[2].is_err());
    assert_eq!(records(&*gate), before);
}

fn a_retired_store_keeps_quiet(machine: &dyn Machine) {
    let store = open(machine.engine());
    let known = Run { directory: DirectoryId(102), counter: 1, nonce: 1 };
    store.meet(&known).unwrap();
    store.retire("an operator said so");
    assert_eq!(health(&store), Health::Retired { reason: "an operator said so".to_owned() });
    // What an old copy remembers of runs and layouts is old too: it has no voice.
    let refused = StoreError::Refused(Refusal::NotAMember);
    assert_eq!(store.meet(&known), Err(refused.clone()));
    assert_eq!(store.meet(&Run { counter: 7, ..known }), Err(refused.clone()));
    assert!(matches!(store.adopt(layout()), Err(AdoptError::Store(error)) if error == refused));
}

fn a_failure_does_not_make_a_retired_store_look_restartable(machine: &dyn Machine) {
    let gate = Gate::before(machine.engine());
    let [ours] = our_keys();
    let store = open(gate.clone());
    gate.close(Point::Commit);
    let written = queue(store.coordinate(EPOCH, ours, put(1, "a"), None));
    gate.wait_for_a_writer();
    gate.let_others_pass();
    store.retire("a copy");
    gate.fail_the_next_sync(Fate::Lost);
    gate.open();
    assert_eq!(written.wait(), Err(StoreError::Unknown));
    assert!(matches!(health(&store), Health::Retired { .. }), "{:?}", health(&store));
}

/// Written by a newer build, say.
fn an_unreadable_record_harms_nobody_else(machine: &dyn Machine) {
    let [good, newer] = foreign_keys();
    let engine = machine.engine();
    let gate = Gate::before(engine.clone());
    let store = open(gate.clone());
    for key in [&good, &newer] {
        block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap();
    }
    let record_key = record_key(&newer);
    let mut record = engine.get(Space::Objects, &record_key).unwrap().unwrap().to_vec();
    record[0] = 9;
    let mut batch = Batch::default();
    batch.put(Space::Objects, record_key.clone(), record.clone());
    engine.commit(batch).unwrap();

    let unreadable = |error: &StoreError| matches!(error, StoreError::Damaged(reason) if reason.contains("format 9"));
    assert!(unreadable(&store.get(&newer).unwrap_err()));
    let peer = Peer::with(201, 1, "x").object;
    let role = Role::Fallback { stands_in_for: primaries(&good)[0] };
    let held = gate.hold_writer_of(&store, &good);
    let refused = queue(store.coordinate(EPOCH, newer.clone(), put(2, "b"), None));
    let kept = queue(store.merge(EPOCH, NONE_OVER, good.clone(), peer.clone(), role));
    held.let_go();
    assert!(unreadable(&refused.wait().unwrap_err()));
    kept.wait().unwrap();
    assert!(unreadable(&block_on(store.merge(EPOCH, NONE_OVER, newer.clone(), peer, role)).unwrap_err()));
    assert!(unreadable(
        &block_on(store.confirm(EPOCH, newer.clone(), primaries(&newer)[0], own_clock(1, 1))).unwrap_err()
    ));
    assert_eq!(stored(&store, &good), Some(set(["a", "x"])));
    assert_eq!(health(&store), Health::Serving);
    assert_eq!(
        engine.get(Space::Objects, &record_key).unwrap().unwrap(),
        record,
        "left as it is, for those who can read it"
    );

    for target in primaries(&good) {
        let hints = store.hints_for(target, None, 1).unwrap();
        assert!(matches!(&hints[..], [hint] if hint.key == good), "handoff goes on");
    }
    assert_eq!(store.get(&key("b", "neither")), Ok(None));
}

fn a_panicking_writer_ends_the_store(machine: &dyn Machine) {
    let [ours] = our_keys();
    let gate = Gate::before(machine.engine());
    let store = open(gate.clone());
    let mut watcher = store.health();
    block_on(store.coordinate(EPOCH, ours.clone(), put(1, "a"), None)).unwrap();
    gate.panic_at_the_next_read();
    assert_eq!(block_on(store.coordinate(EPOCH, ours.clone(), put(2, "b"), None)), Err(StoreError::Unknown));
    block_on(within_seconds(watcher.wait_for(|health| *health != Health::Serving))).unwrap();
    assert!(matches!(health(&store), Health::Failed { reason } if reason.contains("panic")));
    assert_refuses_everything(&store, Refusal::StorageFailed);
    store.close();
    drop((store, gate));
    let store = open(machine.engine());
    store.trust_marks();
    assert_eq!(stored(&store, &ours), Some(set(["a"])));
    let next = block_on(store.coordinate(EPOCH, ours.clone(), put(3, "c"), None)).unwrap().object;
    assert_eq!(own_histories(next.clock()), [(Birth(1), 1), (Birth(3), 1)], "that was no clean stop");
}

#[test]
fn a_power_cut_after_a_failed_sync_leaves_either_outcome() {
    for survivors in [0, 1] {
        let machine = MemoryMachine::default();
        let [key] = foreign_keys();
        let store = open(machine.engine());
        machine.disk.fail_syncs(1);
        assert_eq!(block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)), Err(StoreError::Unknown));
        assert!(store.hints().is_empty());
        machine.disk.crash(survivors);
        drop(store);
        let engine = machine.engine();
        let store = open(engine.clone());
        assert_eq!(stored(&store, &key), (survivors == 1).then(|| set(["a"])));
        assert_eq!(store.hints().len(), if survivors == 1 { 3 } else { 0 });
        assert_hints_agree(&store, &*engine);
    }
}

#[test]
fn a_crashed_machine_answers_nothing() {
    let machine = MemoryMachine::default();
    let [key] = our_keys();
    let store = open(machine.engine());
    block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap();
    machine.disk.crash(0);
    assert!(matches!(store.get(&key), Err(StoreError::Damaged(_))));
    assert!(block_on(store.coordinate(EPOCH, key, put(2, "b"), None)).is_err());
}
