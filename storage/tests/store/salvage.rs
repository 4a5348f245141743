//! What becomes of a store that is damaged: it is noticed, and what can be read goes on in another directory.

use std::sync::Arc;

use starling_core::ids::DirectoryId;
use starling_core::name::ObjectKey;
use starling_core::report::Role;
use starling_storage::{
    DataDirectory, Identity, Inheritance, MemoryDisk, MemoryEngine, Salvaged, Space, Store, StoreError, StoreLimits,
    salvage,
};

use crate::support::machine::{MemoryMachine, SMALL};
use crate::support::{
    EPOCH, NONE_OVER, Peer, assert_hints_agree, assert_trees_agree, block_on, foreign_keys, identity, key, layout,
    open, our_keys, put, raw_record, record_key, set, stored,
};

fn heir() -> Identity {
    Identity { directory: DirectoryId(201), ..identity() }
}

#[test]
fn all_but_what_cannot_be_read_is_taken_over_without_what_only_the_old_directory_may_use() {
    let machine = MemoryMachine::default();
    let (ours, [foreign]) = (our_keys::<40>(), foreign_keys());
    let store = open(crate::support::machine::Machine::engine(&machine));
    for (n, key) in (1..).zip(&ours) {
        block_on(store.coordinate(EPOCH, key.clone(), put(n, "a value"), None)).unwrap();
    }
    let role = Role::Fallback { stands_in_for: crate::support::primaries(&foreign)[0] };
    block_on(store.merge(EPOCH, NONE_OVER, foreign.clone(), Peer::with(7, 99, "for others").object, role)).unwrap();
    assert_eq!(*store.damage().borrow(), None);
    machine.disk.rot(Space::Objects, record_key(&ours[20]));
    assert!(matches!(store.get(&ours[20]), Err(StoreError::Damaged(_))));
    assert!(store.damage().borrow().is_some(), "it is noticed");
    assert_eq!(stored(&store, &ours[19]), Some(set(["a value"])), "the others can be read");
    drop(store);

    let new = MemoryDisk::default();
    let (from, to) = (MemoryEngine::open(machine.disk.clone()), Arc::new(MemoryEngine::open(new.clone())));
    let salvaged = salvage(&from, &*to).unwrap();
    assert_eq!(salvaged, Salvaged { records: 40, senseless: 0, gaps: 1 });
    let store = Store::open_engine(Arc::clone(&to) as Arc<_>, heir(), StoreLimits::default()).unwrap();
    assert_eq!(store.ring(), None, "the log is learnt anew");
    store.adopt(layout()).unwrap();
    assert_eq!(stored(&store, &ours[20]), None);
    assert_eq!(ours.iter().filter(|key| stored(&store, key).is_some()).count(), 39);
    assert!(ours.iter().filter_map(|key| raw_record(&*to, key)).all(|record| record.mark.is_none()));
    assert_eq!(raw_record(&*to, &foreign).unwrap().markers, crate::support::primaries(&foreign).into_iter().collect());
    assert_hints_agree(&store, &*to);
    assert_trees_agree(&*to, &layout());
}

/// A block of a table may hold keys of several partitions.
#[test]
fn what_lies_behind_several_damaged_partitions_is_taken_over() {
    let (old, new) = (MemoryDisk::default(), MemoryDisk::default());
    let store = open(Arc::new(MemoryEngine::open(old.clone())));
    let keys: Vec<ObjectKey> = (0..400).map(|n| key("b", format!("k{n}"))).collect();
    for (n, key) in (1..).zip(&keys) {
        block_on(store.coordinate(EPOCH, key.clone(), put(n, "a value"), None)).unwrap();
    }
    drop(store);
    let in_partition = |key: &&ObjectKey| (2..5).contains(&layout().partition_of(key).0);
    keys.iter().filter(in_partition).for_each(|key| old.rot(Space::Objects, record_key(key)));
    let to = MemoryEngine::open(new);
    let salvaged = salvage(&MemoryEngine::open(old), &to).unwrap();
    assert_eq!(salvaged.records, keys.iter().filter(|key| !in_partition(key)).count() as u64);
}

/// As a disk does it: a byte in a table of RocksDB is another.
#[test]
fn a_flipped_byte_in_a_table_is_noticed_and_costs_what_lies_around_it() {
    let dir = tempfile::tempdir().unwrap();
    let name = identity().name;
    let open = || Store::open_directory(dir.path(), &name, SMALL, StoreLimits::default()).unwrap();
    let keys: Vec<ObjectKey> = (0..2_000).map(|n| key("b", format!("key number {n}"))).collect();
    let store = open();
    let member = |store: &Store| {
        let Identity { node, directory, name } = store.identity().clone();
        let mut members = layout().members().to_vec();
        (members[0].node, members[0].directory, members[0].name) = (node, directory, name);
        members
    };
    let first = starling_core::layout::FirstLayout {
        cluster: layout().cluster(),
        partitions: layout().partitions(),
        replicas: layout().replicas(),
        members: member(&store),
        buckets: layout().buckets().clone(),
    };
    store.adopt(starling_core::layout::Layout::first(first).unwrap()).unwrap();
    for (n, key) in (1..).zip(&keys) {
        block_on(store.coordinate(EPOCH, key.clone(), put(n, &incompressible(n)), None)).unwrap();
    }
    drop(store);
    // What recovery replays is in a table by then.
    drop(open());
    flip_a_byte_in_the_largest_table(&dir.path().join("db"));

    let store = open();
    let unreadable = keys.iter().filter(|key| store.get(key).is_err()).count();
    assert!((1..200).contains(&unreadable), "{unreadable} of {} cannot be read", keys.len());
    assert!(store.damage().borrow().is_some());
    let heir = Identity { directory: DirectoryId(201), ..store.identity().clone() };
    drop(store);
    DataDirectory::begin_anew(dir.path(), &heir, Inheritance::Objects).unwrap();
    let store = open();
    assert_eq!(*store.identity(), heir);
    assert_eq!(*store.damage().borrow(), None);
    store.adopt(layout()).unwrap();
    let kept = keys.iter().filter(|key| store.get(key).unwrap().is_some()).count();
    assert!(kept < keys.len() && kept > keys.len() / 2, "{kept} of {}", keys.len());
    assert_eq!(*store.damage().borrow(), None);
    println!("{unreadable} of {} could not be read; {kept} were taken over", keys.len());
}

/// So that it is the table of the objects which is the largest.
fn incompressible(seed: u64) -> String {
    let word = |n: u64| format!("{:016x}", (seed * 100 + n).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (0..30).map(word).collect()
}

fn flip_a_byte_in_the_largest_table(db: &std::path::Path) {
    let tables = std::fs::read_dir(db).unwrap().map(|entry| entry.unwrap().path());
    let tables = tables.filter(|path| path.extension().is_some_and(|extension| extension == "sst"));
    let largest = tables.max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&largest, bytes).unwrap();
}

#[test]
fn an_empty_store_and_one_that_is_whole_are_taken_over_as_they_are() {
    let (from, to) = (MemoryDisk::default(), MemoryDisk::default());
    let engine = |disk: &MemoryDisk| MemoryEngine::open(disk.clone());
    assert_eq!(salvage(&engine(&from), &engine(&to)).unwrap(), Salvaged::default());
    let store = open(Arc::new(engine(&from)));
    let keys = our_keys::<200>();
    for (n, key) in (1..).zip(&keys) {
        block_on(store.coordinate(EPOCH, key.clone(), put(n, "a value"), None)).unwrap();
    }
    let salvaged = salvage(&engine(&from), &engine(&to)).unwrap();
    assert_eq!(salvaged, Salvaged { records: 200, senseless: 0, gaps: 0 });
}
