//! What every engine promises, and beyond that what each of the two is for.
#![allow(clippy::unwrap_used, reason = "a helper fails as its test does")]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use proptest::prelude::*;
use starling_storage::{Batch, Engine, EngineError, MemoryDisk, MemoryEngine, Space};
use support::cases;
use support::machine::{Machine, on_every_machine};

on_every_machine![
    what_was_put_is_got_and_what_was_not_is_absent,
    many_values_come_in_the_order_of_their_keys_gaps_included,
    a_scan_is_ascending_and_keeps_to_its_bounds_and_its_limit,
    spaces_do_not_mix,
    a_batch_spans_spaces,
    a_deleted_key_is_gone_and_deleting_nothing_is_fine,
    within_a_batch_the_last_change_of_a_key_wins,
    an_empty_batch_and_an_empty_value_are_possible,
    a_commit_survives_reopening,
    threads_may_commit_and_read_at_once,
    any_series_of_batches_ends_as_in_a_map,
];

/// None deletes.
type Change<'a> = (Space, &'a [u8], Option<&'a [u8]>);

fn batch<const N: usize>(changes: [Change; N]) -> Batch {
    let mut batch = Batch::default();
    for (space, key, value) in changes {
        match value {
            Some(value) => batch.put(space, key, value.to_vec()),
            None => batch.delete(space, key),
        }
    }
    batch
}

fn put(engine: &dyn Engine, space: Space, key: &[u8], value: &[u8]) {
    engine.commit(batch([(space, key, Some(value))])).unwrap();
}

fn get(engine: &dyn Engine, space: Space, key: &[u8]) -> Option<Vec<u8>> {
    engine.get(space, key).unwrap().map(|value| value.to_vec())
}

fn keys(engine: &dyn Engine, space: Space, from: &[u8], until: Option<&[u8]>, limit: usize) -> Vec<Vec<u8>> {
    engine.scan(space, from, until, limit).unwrap().into_iter().map(|(key, _)| key.to_vec()).collect()
}

fn what_was_put_is_got_and_what_was_not_is_absent(machine: &dyn Machine) {
    let engine = machine.engine();
    put(&*engine, Space::Objects, b"a", b"1");
    assert_eq!(get(&*engine, Space::Objects, b"a"), Some(b"1".to_vec()));
    assert_eq!(get(&*engine, Space::Objects, b"b"), None);
    assert_eq!(get(&*engine, Space::Objects, b""), None);
}

fn many_values_come_in_the_order_of_their_keys_gaps_included(machine: &dyn Machine) {
    let engine = machine.engine();
    for key in ["a", "b", "c"] {
        put(&*engine, Space::Objects, key.as_bytes(), key.as_bytes());
    }
    let asked: [&[u8]; 5] = [b"c", b"nothing", b"a", b"c", b"\xff"];
    let found = engine.get_many(Space::Objects, &asked).unwrap();
    let c = Some(Bytes::from_static(b"c"));
    assert_eq!(found, [c.clone(), None, Some(Bytes::from_static(b"a")), c, None]);
    assert_eq!(engine.get_many(Space::Objects, &[]).unwrap(), []);
    assert_eq!(engine.get_many(Space::Hints, &asked).unwrap(), vec![None; 5]);
}

fn a_scan_is_ascending_and_keeps_to_its_bounds_and_its_limit(machine: &dyn Machine) {
    let engine = machine.engine();
    let all: [&[u8]; 6] = [b"\0", b"a", b"a\0", b"aa", b"b", b"\xff\xff"];
    for key in all.iter().rev() {
        put(&*engine, Space::Objects, key, b"v");
    }
    let scan = |from: &[u8], until: Option<&[u8]>, limit| keys(&*engine, Space::Objects, from, until, limit);
    assert_eq!(scan(b"", None, usize::MAX), all);
    assert_eq!(scan(b"a", None, usize::MAX), all[1..], "from on: the first bound is inside");
    assert_eq!(scan(b"a", Some(b"b"), usize::MAX), all[1..4], "the second one is outside");
    assert_eq!(scan(b"a\0\0", Some(b"\xff"), usize::MAX), all[3..5], "neither bound need exist");
    assert_eq!(scan(b"a", None, 2), all[1..3]);
    assert!(scan(b"a", None, 0).is_empty());
    assert!(scan(b"b", Some(b"b"), 9).is_empty());
    assert!(scan(b"b", Some(b"a"), 9).is_empty(), "bounds that have crossed enclose nothing");
    assert!(scan(b"\xff\xff\0", None, 9).is_empty());
}

fn spaces_do_not_mix(machine: &dyn Machine) {
    let engine = machine.engine();
    for space in Space::ALL {
        put(&*engine, space, b"k", space.name().as_bytes());
    }
    for space in Space::ALL {
        assert_eq!(get(&*engine, space, b"k"), Some(space.name().as_bytes().to_vec()));
        assert_eq!(keys(&*engine, space, b"", None, 9), [b"k"], "a scan stays within {space:?}");
        assert!(keys(&*engine, space, b"l", None, 9).is_empty(), "a scan does not run on from {space:?} to the next");
    }
    engine.commit(batch([(Space::Objects, b"k", None)])).unwrap();
    assert!(get(&*engine, Space::Meta, b"k").is_some() && get(&*engine, Space::Hints, b"k").is_some());
}

fn a_batch_spans_spaces(machine: &dyn Machine) {
    let engine = machine.engine();
    put(&*engine, Space::Meta, b"old", b"0");
    let together = [
        (Space::Meta, b"old".as_slice(), None),
        (Space::Objects, b"o", Some(b"1".as_slice())),
        (Space::Hints, b"h", Some(b"2")),
    ];
    engine.commit(batch(together)).unwrap();
    assert_eq!(get(&*engine, Space::Meta, b"old"), None);
    assert_eq!(get(&*engine, Space::Objects, b"o"), Some(b"1".to_vec()));
    assert_eq!(get(&*engine, Space::Hints, b"h"), Some(b"2".to_vec()));
}

fn a_deleted_key_is_gone_and_deleting_nothing_is_fine(machine: &dyn Machine) {
    let engine = machine.engine();
    put(&*engine, Space::Objects, b"a", b"1");
    engine.commit(batch([(Space::Objects, b"a", None), (Space::Objects, b"never was", None)])).unwrap();
    assert_eq!(get(&*engine, Space::Objects, b"a"), None);
    assert!(keys(&*engine, Space::Objects, b"", None, 9).is_empty());
}

fn within_a_batch_the_last_change_of_a_key_wins(machine: &dyn Machine) {
    let engine = machine.engine();
    put(&*engine, Space::Objects, b"d", b"old");
    let changes = [
        (Space::Objects, b"a".as_slice(), Some(b"1".as_slice())),
        (Space::Objects, b"a", Some(b"2")),
        (Space::Objects, b"b", Some(b"1")),
        (Space::Objects, b"b", None),
        (Space::Objects, b"d", None),
        (Space::Objects, b"d", Some(b"new")),
    ];
    engine.commit(batch(changes)).unwrap();
    assert_eq!(get(&*engine, Space::Objects, b"a"), Some(b"2".to_vec()));
    assert_eq!(get(&*engine, Space::Objects, b"b"), None);
    assert_eq!(get(&*engine, Space::Objects, b"d"), Some(b"new".to_vec()));
}

fn an_empty_batch_and_an_empty_value_are_possible(machine: &dyn Machine) {
    let engine = machine.engine();
    engine.commit(Batch::default()).unwrap();
    put(&*engine, Space::Objects, b"a", b"");
    assert_eq!(get(&*engine, Space::Objects, b"a"), Some(Vec::new()), "an empty value is not an absent one");
}

fn a_commit_survives_reopening(machine: &dyn Machine) {
    for round in 0..3u8 {
        let engine = machine.engine();
        assert_eq!(keys(&*engine, Space::Objects, b"", None, 9).len(), usize::from(round));
        put(&*engine, Space::Objects, &[round], b"v");
        put(&*engine, Space::Meta, b"round", &[round]);
    }
    let engine = machine.engine();
    assert_eq!(keys(&*engine, Space::Objects, b"", None, 9), [[0], [1], [2]]);
    assert_eq!(get(&*engine, Space::Meta, b"round"), Some(vec![2]));
}

fn threads_may_commit_and_read_at_once(machine: &dyn Machine) {
    let engine = machine.engine();
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let engine = &engine;
            scope.spawn(move || {
                for n in 0..10u8 {
                    let (name, value) = ([thread, n], [n]);
                    let both = [(Space::Objects, &name[..], Some(&value[..])), (Space::Meta, &name[..1], Some(&value))];
                    engine.commit(batch(both)).unwrap();
                    assert_eq!(get(&**engine, Space::Meta, &[thread]), Some(vec![n]), "a commit is visible at once");
                }
            });
        }
    });
    assert_eq!(keys(&*engine, Space::Objects, b"", None, 100).len(), 40);
}

/// One step of a random story.
#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<(Space, Vec<u8>, Option<Vec<u8>>)>),
    Reopen,
}

fn any_key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0u8, 1, b'a', 0xff]), 0..3)
}

fn any_step() -> impl Strategy<Value = Step> {
    let change = (prop::sample::select(Space::ALL.to_vec()), any_key(), prop::option::weighted(0.7, any_key()));
    prop_oneof![
        8 => prop::collection::vec(change, 0..6).prop_map(Step::Commit),
        1 => Just(Step::Reopen),
    ]
}

type Model = BTreeMap<(Space, Vec<u8>), Vec<u8>>;

fn any_series_of_batches_ends_as_in_a_map(machine: &dyn Machine) {
    let story = (prop::collection::vec(any_step(), 1..25), any_key(), prop::option::of(any_key()), 0usize..6);
    // One machine lives through all stories: each finds what the one before has left.
    let model = std::cell::RefCell::new(Model::new());
    let tried = proptest::test_runner::TestRunner::new(cases(24)).run(&story, |(steps, from, until, limit)| {
        let mut model = model.borrow_mut();
        live_through(machine, &mut model, steps);
        compare(&*machine.engine(), &model, &from, until.as_deref(), limit)
    });
    tried.unwrap();
}

fn live_through(machine: &dyn Machine, model: &mut Model, steps: Vec<Step>) {
    // An option, so that one engine is closed before the next is opened.
    let mut engine = Some(machine.engine());
    for step in steps {
        match step {
            Step::Reopen => {
                drop(engine.take());
                engine = Some(machine.engine());
            }
            Step::Commit(changes) => {
                let mut batch = Batch::default();
                for (space, key, value) in changes {
                    match value {
                        Some(value) => {
                            batch.put(space, key.clone(), value.clone());
                            model.insert((space, key), value);
                        }
                        None => {
                            batch.delete(space, key.clone());
                            model.remove(&(space, key));
                        }
                    }
                }
                engine.as_ref().unwrap().commit(batch).unwrap();
            }
        }
    }
}

fn compare(
    engine: &dyn Engine,
    model: &Model,
    from: &[u8],
    until: Option<&[u8]>,
    limit: usize,
) -> Result<(), TestCaseError> {
    for wanted in Space::ALL {
        let all: Vec<(Vec<u8>, Vec<u8>)> =
            model.iter().filter(|((space, _), _)| *space == wanted).map(|((_, k), v)| (k.clone(), v.clone())).collect();
        let scan = |from: &[u8], until, limit| {
            let found = engine.scan(wanted, from, until, limit).unwrap();
            found.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect::<Vec<_>>()
        };
        prop_assert_eq!(&scan(b"", None, usize::MAX), &all);
        let within = |key: &[u8]| key >= from && until.is_none_or(|until| key < until);
        let part: Vec<_> = all.iter().filter(|(key, _)| within(key)).take(limit).cloned().collect();
        prop_assert_eq!(scan(from, until, limit), part);

        let asked: Vec<&[u8]> = all.iter().rev().map(|(key, _)| key.as_slice()).chain([from]).collect();
        let found = engine.get_many(wanted, &asked).unwrap();
        for (key, value) in asked.iter().zip(found) {
            let expected = model.get(&(wanted, key.to_vec())).cloned();
            prop_assert_eq!(&value.map(|value| value.to_vec()), &expected);
            prop_assert_eq!(get(engine, wanted, key), expected);
        }
    }
    Ok(())
}

fn memory_with(key: &[u8]) -> (MemoryDisk, MemoryEngine) {
    let disk = MemoryDisk::default();
    let engine = MemoryEngine::open(disk.clone());
    put(&engine, Space::Objects, key, b"synced");
    (disk, engine)
}

#[test]
fn a_memory_engine_is_dead_after_a_crash_and_its_disk_is_not() {
    let (disk, engine) = memory_with(b"a");
    disk.crash(0);
    assert!(matches!(engine.get(Space::Objects, b"a"), Err(EngineError::Io(_))));
    assert!(engine.get_many(Space::Objects, &[b"a"]).is_err());
    assert!(engine.scan(Space::Objects, b"", None, 1).is_err());
    assert!(engine.commit(Batch::default()).is_err());
    assert_eq!(get(&MemoryEngine::open(disk), Space::Objects, b"a"), Some(b"synced".to_vec()));
}

#[test]
fn what_a_failed_sync_has_written_may_or_may_not_survive_the_crash() {
    for survivors in [0, 1] {
        let (disk, engine) = memory_with(b"a");
        disk.fail_syncs(1);
        let unsynced = batch([(Space::Objects, b"a", Some(b"unsynced")), (Space::Hints, b"h", Some(b"unsynced"))]);
        assert!(matches!(engine.commit(unsynced), Err(EngineError::NotDurable(_))));
        assert_eq!(get(&engine, Space::Objects, b"a"), Some(b"synced".to_vec()), "nothing of it is visible");

        let later = engine.commit(batch([(Space::Objects, b"b", Some(b"later"))]));
        assert!(matches!(later, Err(EngineError::NotDurable(_))), "nothing is taken behind a hole in the log");

        disk.crash(survivors);
        let engine = MemoryEngine::open(disk);
        let expected: &[u8] = if survivors == 1 { b"unsynced" } else { b"synced" };
        assert_eq!(get(&engine, Space::Objects, b"a"), Some(expected.to_vec()));
        assert_eq!(get(&engine, Space::Hints, b"h").is_some(), survivors == 1, "all of a batch or nothing");
        assert_eq!(get(&engine, Space::Objects, b"b"), None);
        put(&engine, Space::Objects, b"b", b"the disk is well again");
    }
}

#[test]
fn a_sync_covers_the_log_before_it_and_shows_its_own_batch_only() {
    let write = |value: &'static [u8]| batch([(Space::Objects, b"a", Some(value))]);
    for survivors in [0, 1] {
        let (disk, engine) = memory_with(b"a");
        for value in [b"first".as_slice(), b"second", b"third"] {
            disk.append(write(value));
        }
        assert_eq!((get(&engine, Space::Objects, b"a"), disk.unsynced()), (Some(b"synced".to_vec()), 3));
        engine.commit(write(b"second")).unwrap();
        assert_eq!((get(&engine, Space::Objects, b"a"), disk.unsynced()), (Some(b"second".to_vec()), 1));
        engine.commit(write(b"first")).unwrap();
        assert_eq!(get(&engine, Space::Objects, b"a"), Some(b"second".to_vec()), "the order is the log's");
        disk.append(write(b"fourth"));
        engine.commit(write(b"fifth")).unwrap();
        disk.append(write(b"sixth"));
        disk.crash(survivors);
        let expected: &[u8] = if survivors == 1 { b"sixth" } else { b"fifth" };
        assert_eq!(get(&MemoryEngine::open(disk), Space::Objects, b"a"), Some(expected.to_vec()));
    }
}

#[test]
fn a_batch_that_anothers_sync_has_covered_survives_a_crash_unseen() {
    let (disk, engine) = memory_with(b"a");
    let durable: Arc<Mutex<usize>> = Arc::default();
    let count = Arc::clone(&durable);
    disk.observe(Arc::new(move |_batch| *count.lock().unwrap() += 1));
    disk.append(batch([(Space::Objects, b"b", Some(b"covered"))]));
    put(&engine, Space::Objects, b"c", b"synced");
    assert_eq!((get(&engine, Space::Objects, b"b"), *durable.lock().unwrap()), (None, 2));
    let copy = MemoryEngine::open(disk.copy());
    disk.crash(0);
    for engine in [copy, MemoryEngine::open(disk.clone())] {
        assert_eq!(get(&engine, Space::Objects, b"b"), Some(b"covered".to_vec()));
    }
    disk.append(batch([(Space::Objects, b"b", Some(b"survives"))]));
    disk.crash(usize::MAX);
    assert_eq!(get(&MemoryEngine::open(disk), Space::Objects, b"b"), Some(b"survives".to_vec()));
    assert_eq!(*durable.lock().unwrap(), 3, "each is told of once");
}

#[test]
fn a_restored_disk_is_as_the_copy_was() {
    let (disk, engine) = memory_with(b"a");
    let old = disk.copy();
    put(&engine, Space::Objects, b"a", b"moved on");
    disk.append(batch([(Space::Objects, b"b", Some(b"on its way"))]));
    disk.restore(&old);
    assert!(engine.get(Space::Objects, b"a").is_err(), "its disk was replaced");
    let engine = MemoryEngine::open(disk);
    assert_eq!(get(&engine, Space::Objects, b"a"), Some(b"synced".to_vec()));
    assert_eq!(get(&engine, Space::Objects, b"b"), None);
}

#[test]
fn a_copy_of_a_memory_disk_goes_its_own_way() {
    let (disk, engine) = memory_with(b"a");
    let copy = MemoryEngine::open(disk.copy());
    put(&engine, Space::Objects, b"a", b"moved on");
    put(&copy, Space::Objects, b"b", b"elsewhere");
    assert_eq!(get(&copy, Space::Objects, b"a"), Some(b"synced".to_vec()));
    assert_eq!(get(&engine, Space::Objects, b"b"), None);
    disk.crash(0);
    assert!(copy.get(Space::Objects, b"a").is_ok(), "another machine's crash is no concern of the copy's");
}

#[test]
fn a_memory_disk_has_as_much_room_as_the_test_says() {
    let (disk, engine) = memory_with(b"a");
    assert_eq!(engine.free_bytes(), None);
    disk.set_free_bytes(7);
    assert_eq!(engine.free_bytes(), Some(7));
    assert_eq!(engine.used_bytes(), 7, "`a` and `synced`");
}
