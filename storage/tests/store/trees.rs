//! Hash trees say at every moment what the records say.

use std::sync::Arc;

use proptest::prelude::*;
use starling_core::coordinate::Write;
use starling_core::name::ObjectKey;
use starling_core::report::Role;
use starling_core::ring::Decree;
use starling_core::tree::{Branch, Breadth, Fingerprint, Sum, Tree};
use starling_storage::{Batch, Engine, Flaw, MemoryDisk, MemoryEngine, Space, Store};

use crate::support::{
    EPOCH, NONE_OVER, Peer, assert_trees_agree, block_on, cases, delete_after, key, layout, open, our_keys, primaries,
    put, put_after, raw_records, record_key, trees_of,
};

/// What happens to a key.
#[derive(Debug, Clone)]
enum Step {
    Put,
    Delete,
    /// A write of another replica arrives, for this node as a primary or in place of one.
    Receive(u64),
    /// A primary confirms what this node holds for it.
    Confirm(usize),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Put),
        1 => Just(Step::Delete),
        4 => (1_u64..4).prop_map(Step::Receive),
        3 => (0_usize..3).prop_map(Step::Confirm),
        1 => Just(Step::Restart),
    ]
}

/// The store's own histories go on, so each write is one of its own.
fn write(store: &Store, key: &ObjectKey, write: Write) {
    block_on(store.coordinate(EPOCH, key.clone(), write, None)).unwrap();
}

fn take(store: &Store, key: &ObjectKey, step: &Step, n: u64) {
    let held = store.get(key).unwrap().unwrap_or_default();
    let primaries = primaries(key);
    match step {
        Step::Put if n.is_multiple_of(2) => write(store, key, put(n, "a")),
        Step::Put => write(store, key, put_after(&held.seen(), n, "b")),
        Step::Delete => write(store, key, delete_after(&held.seen(), n)),
        Step::Receive(from) => {
            let object = Peer::with(200 + from, n, "c").object;
            let role = if primaries.contains(&store.identity().node) {
                Role::Primary
            } else {
                Role::Fallback { stands_in_for: primaries[0] }
            };
            block_on(store.merge(EPOCH, NONE_OVER, key.clone(), object, role)).unwrap();
        }
        Step::Confirm(primary) => {
            block_on(store.confirm(EPOCH, key.clone(), primaries[*primary], held.clock().clone())).unwrap();
        }
        Step::Restart => {}
    }
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn trees_tell_exactly_what_is_held(steps in prop::collection::vec((0_u32..24, step()), 1..80)) {
        let disk = MemoryDisk::default();
        let mut engine = Arc::new(MemoryEngine::open(disk.clone()));
        let mut store = open(engine.clone());
        for (n, (number, step)) in (1..).zip(&steps) {
            if matches!(step, Step::Restart) {
                // As after a crash: what was not synced is gone.
                drop(store);
                disk.crash(0);
                engine = Arc::new(MemoryEngine::open(disk.clone()));
                store = open(engine.clone());
            } else {
                take(&store, &key("carts", number.to_string()), step, n);
            }
            assert_trees_agree(&*engine, &layout());
        }
        // And what is read of them is what lies there.
        let tree = store.tree(Breadth::ANY).unwrap();
        for partition in layout().partitions().all() {
            prop_assert_eq!(store.verify(partition).unwrap().flaws, []);
            let root = Branch::root(partition);
            let keys = tree.keys(root).unwrap();
            let sums = keys.iter().map(|(key, fingerprint)| Sum::of(key, *fingerprint));
            prop_assert_eq!(tree.sum(root).unwrap(), sums.fold(Sum::default(), Sum::plus));
            for branch in root.children().into_iter().flat_map(|child| [vec![child], child.children()].concat()) {
                let below: Vec<Sum> = branch.children().into_iter().map(|child| tree.sum(child).unwrap()).collect();
                prop_assert_eq!(&below, &tree.sums_below(branch).unwrap());
                prop_assert_eq!(tree.sum(branch).unwrap(), below.into_iter().fold(Sum::default(), Sum::plus));
            }
        }
    }
}

#[test]
fn what_is_held_of_fewer_replicas_is_left_out_of_what_all_compare() {
    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::open(MemoryDisk::default()));
    let store = open(engine.clone());
    let [key] = our_keys();
    write(&store, &key, put(1, "a"));
    let root = Branch::root(layout().partition_of(&key));
    let fingerprint = Fingerprint::of(store.get(&key).unwrap().unwrap().clock());
    let seen = |least| store.tree(least).unwrap().sum(root).unwrap();
    assert_eq!(seen(Breadth::ALL), Sum::of(&key, fingerprint));

    // The bucket is to have two replicas: its keys are compared by the first two primaries only, from then on.
    let ring = store.ring().unwrap();
    let rules = starling_core::layout::BucketRules { replicas: Some(2.try_into().unwrap()), ..Default::default() };
    let change = starling_core::change::Change::Bucket { bucket: key.bucket().clone(), rules };
    let decree = ring.decree_of(&[change], &Default::default()).unwrap();
    let version = successor_of(&decree);
    for decree in [decree, Decree::Switch(version)] {
        store.append(&store.ring().unwrap().entry(decree), None).unwrap();
    }
    block_on(store.readdress(store.ring().unwrap().epoch(), key.clone())).unwrap();
    assert_eq!((seen(Breadth(3)), seen(Breadth(2))), (Sum::default(), Sum::of(&key, fingerprint)));
    assert_trees_agree(&*engine, store.ring().unwrap().read());
}

fn successor_of(decree: &Decree) -> starling_core::layout::LayoutVersion {
    let Decree::Begin { layout, .. } = decree else { panic!("changes come to a layout") };
    layout.version()
}

#[test]
fn a_store_from_before_there_were_trees_gets_them_at_its_next_start() {
    let disk = MemoryDisk::default();
    let engine = Arc::new(MemoryEngine::open(disk.clone()));
    let store = open(engine.clone());
    for n in 0..40 {
        write(&store, &key("carts", n.to_string()), put(n, "a"));
    }
    store.close();
    // As such a build has left it.
    let mut old = Batch::default();
    for (at, _) in engine.scan(Space::Trees, b"", None, usize::MAX).unwrap() {
        old.delete(Space::Trees, at);
    }
    for (at, value) in engine.scan(Space::Objects, b"", None, usize::MAX).unwrap() {
        // Behind the format, the breadth and the epoch, if there is one.
        let (format, body) = if value[2] == 0 { (vec![1], &value[3..]) } else { (vec![2, value[3]], &value[4..]) };
        old.put(Space::Objects, at, [&format[..], body].concat());
    }
    old.delete(Space::Meta, b"trees".as_slice());
    engine.commit(old).unwrap();
    let records = raw_records(&*engine).len();
    assert_eq!(records, 40);
    drop(store);

    let store = open(engine.clone());
    assert_trees_agree(&*engine, &layout());
    assert_eq!(trees_of(&raw_records(&*engine), &layout()).keys().filter(|at| at[0] == 1).count(), records);
    write(&store, &key("carts", "1"), put(99, "b"));
    assert_trees_agree(&*engine, &layout());
    assert_eq!(engine.get(Space::Objects, &record_key(&key("carts", "1"))).unwrap().unwrap()[0], 3);
}

/// Each flaw is put there behind the store's back.
#[test]
fn what_is_not_as_it_should_be_is_told() {
    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::open(MemoryDisk::default()));
    let store = open(engine.clone());
    let [first, second, third] = our_keys();
    for (n, key) in (1..).zip([&first, &second, &third]) {
        write(&store, key, put(n, "a"));
    }
    let partition = layout().partition_of(&first);
    let verified = store.verify(partition).unwrap();
    assert_eq!((verified.records, verified.flaws.as_slice()), (3, [].as_slice()));
    assert!(verified.bytes > 0);

    let leaves = engine.scan(Space::Trees, b"\x01", None, 9).unwrap();
    let leaf_of = |key: &ObjectKey| {
        let name = record_key(key)[2..].to_vec();
        leaves.iter().find(|(at, _)| at.ends_with(&name)).map(|(at, _)| at.to_vec()).unwrap()
    };
    let mut flaws = Batch::default();
    flaws.delete(Space::Trees, leaf_of(&first));
    flaws.put(Space::Objects, record_key(&second), vec![9]);
    flaws.delete(Space::Objects, record_key(&third));
    engine.commit(flaws).unwrap();
    let found = store.verify(partition).unwrap().flaws;
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found.contains(&Flaw::WrongLeaf(first)) && found.contains(&Flaw::LeafWithoutRecord(third)), "{found:?}");
    let unreadable = |flaw: &Flaw| matches!(flaw, Flaw::Unreadable { key, .. } if *key == second);
    assert!(found.iter().any(unreadable), "{found:?}");
    assert!(found.iter().any(|flaw| matches!(flaw, Flaw::WrongSum(_))), "{found:?}");
}
