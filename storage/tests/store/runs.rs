//! Runs, marks and stops (R3): which marks may be continued, who is an old copy, what a clean stop is.

use std::pin::pin;
use std::task::Poll;

use starling_core::ids::{Birth, DirectoryId, NodeId, Run, RunVerdict};
use starling_core::name::ObjectKey;
use starling_core::report::Refusal;
use starling_storage::{Health, Identity, OpenError, Store, StoreError, StoreLimits};

use crate::support::gate::Gate;
use crate::support::machine::{Machine, MemoryMachine, on_every_machine};
use crate::support::{
    EPOCH, OUR_DIRECTORY, block_on, identity, layout, open, our_keys, own_histories, poll, put, queue, set, stored,
};

on_every_machine![
    runs_are_counted_and_never_the_same_twice,
    after_a_clean_stop_trusted_marks_are_continued,
    without_trust_every_run_draws_new_births,
    after_a_crash_marks_are_not_continued_even_if_trusted,
    trust_reaches_back_to_the_last_crash_and_no_further,
    a_crash_after_a_clean_stop_ends_the_trust_in_all_before_it,
    trust_may_come_in_the_middle_of_a_run,
    closing_carries_out_what_is_queued_and_takes_nothing_more,
    verdicts_on_runs_are_remembered,
    a_directory_that_went_on_in_two_lines_is_trusted_in_none,
    a_store_belongs_to_one_directory,
    a_dropped_store_leaves_nothing_running,
];

/// Writes a sibling, and says which of our births it belongs to, and its counter.
fn mint(store: &Store, key: &ObjectKey, n: u64) -> (Birth, u64) {
    let object = block_on(store.coordinate(EPOCH, key.clone(), put(n, &format!("v{n}")), None)).unwrap().object;
    let dot = object.siblings().iter().find(|sibling| sibling.request.0 == u128::from(n)).unwrap().dot;
    assert_eq!(dot.history.directory, OUR_DIRECTORY);
    (dot.history.birth, dot.counter)
}

/// Starts the next run on the machine's disk; the one before has ended.
fn start(machine: &dyn Machine, trust: bool) -> Store {
    let store = open(machine.engine());
    if trust {
        store.trust_marks();
    }
    store
}

fn stop(store: Store) {
    store.close();
}

fn crash(store: Store) {
    drop(store);
}

fn runs_are_counted_and_never_the_same_twice(machine: &dyn Machine) {
    let mut nonces = Vec::new();
    for counter in 1..=4 {
        let store = open(machine.engine());
        let run = store.run();
        assert_eq!((run.directory, run.counter), (OUR_DIRECTORY, counter));
        assert!(!nonces.contains(&run.nonce));
        nonces.push(run.nonce);
        if counter % 2 == 0 { stop(store) } else { crash(store) }
    }
}

fn after_a_clean_stop_trusted_marks_are_continued(machine: &dyn Machine) {
    let [key] = our_keys();
    let store = start(machine, true);
    assert_eq!(mint(&store, &key, 1), (Birth(1), 1));
    assert_eq!(mint(&store, &key, 2), (Birth(1), 2));
    stop(store);
    let store = start(machine, true);
    assert_eq!(mint(&store, &key, 3), (Birth(1), 3));
    stop(store);
    // Nothing was written to the key in this run; its mark is two runs old then.
    stop(start(machine, false));
    let store = start(machine, true);
    assert_eq!(mint(&store, &key, 4), (Birth(1), 4));
}

fn without_trust_every_run_draws_new_births(machine: &dyn Machine) {
    let [key] = our_keys();
    let store = start(machine, false);
    mint(&store, &key, 1);
    assert_eq!(mint(&store, &key, 2), (Birth(1), 2), "the present run's marks need no majority");
    stop(store);
    let store = start(machine, false);
    assert_eq!(mint(&store, &key, 3), (Birth(3), 1));
    assert_eq!(own_histories(store.get(&key).unwrap().unwrap().clock()), [(Birth(1), 2), (Birth(3), 1)]);
}

fn after_a_crash_marks_are_not_continued_even_if_trusted(machine: &dyn Machine) {
    let [key] = our_keys();
    let store = start(machine, true);
    mint(&store, &key, 1);
    crash(store);
    let store = start(machine, true);
    assert_eq!(mint(&store, &key, 2), (Birth(2), 1));
    assert_eq!(mint(&store, &key, 3), (Birth(2), 2));
}

fn trust_reaches_back_to_the_last_crash_and_no_further(machine: &dyn Machine) {
    let [old, new] = our_keys();
    let store = start(machine, true);
    mint(&store, &old, 1);
    crash(store);
    let store = start(machine, true);
    mint(&store, &new, 2);
    stop(store);
    stop(start(machine, true));
    let store = start(machine, true);
    assert_eq!(mint(&store, &new, 3), (Birth(2), 2));
    assert_eq!(mint(&store, &old, 4), (Birth(4), 1), "a clean stop later does not clean the crash before");
}

fn a_crash_after_a_clean_stop_ends_the_trust_in_all_before_it(machine: &dyn Machine) {
    let [rested, used] = our_keys();
    let store = start(machine, true);
    mint(&store, &rested, 1);
    mint(&store, &used, 2);
    stop(store);
    let store = start(machine, true);
    assert_eq!(mint(&store, &used, 3), (Birth(2), 2));
    crash(store);
    let store = start(machine, true);
    assert_eq!(mint(&store, &used, 4), (Birth(4), 1));
    assert_eq!(mint(&store, &rested, 5), (Birth(5), 1));
}

fn trust_may_come_in_the_middle_of_a_run(machine: &dyn Machine) {
    let [early, late] = our_keys();
    let store = start(machine, true);
    mint(&store, &early, 1);
    mint(&store, &late, 2);
    stop(store);
    let store = start(machine, false);
    assert_eq!(mint(&store, &early, 3), (Birth(3), 1));
    store.trust_marks();
    assert_eq!(mint(&store, &late, 4), (Birth(2), 2));
    assert_eq!(mint(&store, &early, 5), (Birth(3), 2), "what was begun in doubt goes on");
}

fn closing_carries_out_what_is_queued_and_takes_nothing_more(machine: &dyn Machine) {
    let [key, other] = our_keys();
    let gate = Gate::before(machine.engine());
    let store = open(gate.clone());
    let held = gate.hold_writer_of(&store, &key);
    let queued = queue(store.coordinate(EPOCH, key.clone(), put(1, "a"), None));
    std::thread::scope(|scope| {
        let closing = scope.spawn(|| store.close());
        // Until the closing thread has shut the queues, further requests are queued and dropped, or find them full.
        let stopping = Poll::Ready(Err(StoreError::Refused(Refusal::Stopping)));
        while poll(pin!(store.coordinate(EPOCH, other.clone(), put(2, "too late"), None))) != stopping {
            std::thread::yield_now();
        }
        held.let_go();
        closing.join().unwrap();
    });
    assert!(queued.wait().is_ok());
    let stopping = Err(StoreError::Refused(Refusal::Stopping));
    assert_eq!(block_on(store.coordinate(EPOCH, other.clone(), put(3, "later"), None)), stopping);
    assert_eq!(stored(&store, &key), Some(set(["a"])), "reads are still answered");
    assert_eq!(store.get(&other), Ok(None));
    store.close();
    drop((store, gate));
    let store = start(machine, true);
    assert_eq!(mint(&store, &key, 4), (Birth(1), 2), "it was a clean stop");
}

fn verdicts_on_runs_are_remembered(machine: &dyn Machine) {
    let run = |counter, nonce| Run { directory: DirectoryId(102), counter, nonce };
    let store = open(machine.engine());
    assert_eq!(store.meet(&run(3, 1)), Ok(RunVerdict::Newer));
    crash(store);
    let store = open(machine.engine());
    assert_eq!(store.meet(&run(3, 1)), Ok(RunVerdict::Known), "a redial, over our restart");
    assert_eq!(store.meet(&run(2, 1)), Ok(RunVerdict::OldCopy));
    assert_eq!(store.meet(&run(5, 1)), Ok(RunVerdict::Newer));
    assert_eq!(store.meet(&Run { directory: DirectoryId(103), ..run(1, 1) }), Ok(RunVerdict::Newer));
    crash(store);
    let store = open(machine.engine());
    assert_eq!(store.remembered(DirectoryId(102)), Some(run(5, 1)));
    assert_eq!(store.remembered(DirectoryId(104)), None);
    assert_eq!(store.meet(&run(4, 9)), Ok(RunVerdict::OldCopy));
    assert_eq!(store.meet(&run(5, 1)), Ok(RunVerdict::Known));
    assert_eq!(store.meet(&Run { directory: DirectoryId(103), ..run(1, 1) }), Ok(RunVerdict::Known));
}

fn a_directory_that_went_on_in_two_lines_is_trusted_in_none(machine: &dyn Machine) {
    let run = |counter, nonce| Run { directory: DirectoryId(102), counter, nonce };
    let store = open(machine.engine());
    assert_eq!(store.meet(&run(3, 1)), Ok(RunVerdict::Newer));
    assert_eq!(store.meet(&run(3, 2)), Ok(RunVerdict::OldCopy), "the same count and another nonce: a copy");
    crash(store);
    let store = open(machine.engine());
    assert_eq!(store.meet(&run(3, 1)), Ok(RunVerdict::Known), "which goes on for as long as it runs");
    let next = Run::nonce_after(Some(1), 7);
    assert_eq!(store.meet(&run(4, next)), Ok(RunVerdict::OldCopy), "either may have started again");
    assert_eq!(store.meet(&run(9, 1)), Ok(RunVerdict::OldCopy));
    assert_eq!(store.remembered(DirectoryId(102)), Some(run(3, 1)));
}

fn a_store_belongs_to_one_directory(machine: &dyn Machine) {
    stop(open(machine.engine()));
    let other_directory = Identity { directory: DirectoryId(7), ..identity() };
    let other_node = Identity { node: NodeId(7), ..identity() };
    for other in [other_directory, other_node] {
        let mixed = Store::open_engine(machine.engine(), other, StoreLimits::default());
        assert!(matches!(mixed, Err(OpenError::MixedUp { .. })));
    }
    let store = open(machine.engine());
    assert_eq!(store.run().counter, 2, "a refused start is not a run");
    assert_eq!(*store.identity(), identity());
}

fn a_dropped_store_leaves_nothing_running(machine: &dyn Machine) {
    let [key] = our_keys();
    for n in 0..20 {
        let engine = machine.engine();
        let store = open(engine.clone());
        let abandoned = queue(store.coordinate(EPOCH, key.clone(), put(n, "v"), None));
        drop(abandoned);
        drop(store);
        assert_eq!(std::sync::Arc::strong_count(&engine), 1, "no writer holds on to the engine");
    }
}

#[test]
fn an_old_copy_of_a_disk_is_found_out_by_whoever_met_the_original() {
    let machine = MemoryMachine::default();
    let [key] = our_keys();
    let store = open(machine.engine());
    mint(&store, &key, 1);
    stop(store);
    let copy = MemoryMachine { disk: machine.disk.copy() };

    let peer = open(MemoryMachine::default().engine());
    let original = start(&machine, true);
    assert_eq!(peer.meet(&original.run()), Ok(RunVerdict::Newer));
    mint(&original, &key, 2);
    let copy = open(copy.engine());
    assert_eq!(copy.run().counter, original.run().counter);
    assert_eq!(peer.meet(&copy.run()), Ok(RunVerdict::OldCopy));
    assert_eq!(mint(&copy, &key, 3), (Birth(3), 1), "not trusted, it cannot mint what the original has minted");
    assert_eq!(peer.meet(&original.run()), Ok(RunVerdict::Known), "the original is not harmed");
}

#[test]
fn a_store_without_a_layout_serves_nobody_and_remembers_runs() {
    let store = Store::open_engine(MemoryMachine::default().engine(), identity(), StoreLimits::default()).unwrap();
    let [key] = our_keys();
    let stranger = StoreError::Refused(Refusal::NotAMember);
    assert_eq!(store.get(&key), Err(stranger.clone()));
    assert_eq!(block_on(store.coordinate(EPOCH, key, put(1, "a"), None)), Err(stranger));
    assert_eq!(*store.health().borrow(), Health::Serving);
    assert!(store.layout().is_none());
    let run = Run { directory: DirectoryId(102), counter: 1, nonce: 1 };
    assert_eq!(store.meet(&run), Ok(RunVerdict::Newer), "hello comes before membership");
    store.adopt(layout()).unwrap();
    assert!(store.get(&our_keys::<1>()[0]).is_ok());
}
