//! Listing keys and buckets of a partition.

use bytes::Bytes;
use proptest::prelude::*;
use starling_core::name::ObjectKey;
use starling_core::object::Value;
use starling_core::token::Partition;
use starling_storage::Store;

use crate::support::machine::{Machine, MemoryMachine, on_every_machine};
use crate::support::{EPOCH, US, block_on, cases, delete_after, key, layout, open, primaries, put};

on_every_machine![
    keys_are_listed_in_their_order_with_prefix_place_and_limit,
    a_listing_stays_in_its_bucket_and_partition,
    a_listing_shows_outlines_and_deletions,
    buckets_are_those_with_records_in_order,
];

fn any_role_write(store: &Store, key: &ObjectKey, n: u64) {
    block_on(store.coordinate(EPOCH, key.clone(), put(n, "some value"), None)).unwrap();
}

/// The first of these keys of bucket `b` that share a partition with the very first.
fn sharing_a_partition(names: impl Iterator<Item = Vec<u8>>, bucket: &str) -> (Partition, Vec<Vec<u8>>) {
    let layout = layout();
    let mut names = names.peekable();
    let partition = layout.partition_of(&key(bucket, names.peek().unwrap()));
    (partition, names.filter(|name| layout.partition_of(&key(bucket, name)) == partition).collect())
}

fn listed(store: &Store, at: Partition, bucket: &str, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<Bytes> {
    let found = store.list(at, &bucket.parse().unwrap(), prefix, after, limit).unwrap();
    found.into_iter().map(|listed| listed.key).collect()
}

/// Keys of one to three bytes out of those that could confuse an order: separators, ends, and letters.
fn awkward_names() -> impl Iterator<Item = Vec<u8>> {
    let bytes = [0u8, 1, b'a', b'b', 0xfe, 0xff];
    (0..6 * 7 * 7).map(move |n: usize| {
        let digits = [Some(n % 6), (n / 6 % 7).checked_sub(1), (n / 42).checked_sub(1)];
        digits.into_iter().flatten().map(|digit| bytes[digit]).collect()
    })
}

fn keys_are_listed_in_their_order_with_prefix_place_and_limit(machine: &dyn Machine) {
    let store = open(machine.engine());
    let (at, mut names) = sharing_a_partition(awkward_names(), "b");
    names.sort();
    names.dedup();
    for (n, name) in names.iter().rev().enumerate() {
        any_role_write(&store, &key("b", name), n as u64);
    }
    assert!(names.len() > 20, "{}", names.len());
    let mut prefixes: Vec<&[u8]> = vec![b"", b"a", b"\xff", b"\xff\xff", b"\0", b"\xfe", b"nothing like it"];
    prefixes.extend(names.iter().map(Vec::as_slice).take(5));
    let mut places: Vec<Option<&[u8]>> = vec![None, Some(b""), Some(b"\0"), Some(b"a"), Some(b"\xff\xff\xff\xff")];
    places.extend(names.iter().map(|name| Some(name.as_slice())).step_by(3));
    for prefix in &prefixes {
        for after in &places {
            let wanted =
                |name: &&Vec<u8>| name.starts_with(prefix) && after.is_none_or(|after| name.as_slice() > after);
            let expected: Vec<_> = names.iter().filter(wanted).cloned().collect();
            assert_eq!(listed(&store, at, "b", prefix, *after, 1000), expected, "{prefix:?} after {after:?}");
            assert_eq!(listed(&store, at, "b", prefix, *after, 2), expected[..expected.len().min(2)]);
        }
    }
    assert!(listed(&store, at, "b", b"", None, 0).is_empty());
}

fn a_listing_stays_in_its_bucket_and_partition(machine: &dyn Machine) {
    let store = open(machine.engine());
    let buckets = ["a", "aa", "b", "bucket of Zürich", "b\u{10ffff}"];
    let mut all = Vec::new();
    for bucket in buckets {
        for n in 0..12u64 {
            let name = format!("k{n}");
            any_role_write(&store, &key(bucket, &name), n);
            all.push((layout().partition_of(&key(bucket, &name)), bucket, name));
        }
    }
    all.sort();
    for at in layout().partitions().all() {
        for bucket in buckets {
            let expected: Vec<_> =
                all.iter().filter(|(p, b, _)| (*p, *b) == (at, bucket)).map(|(_, _, name)| name.clone()).collect();
            assert_eq!(listed(&store, at, bucket, b"", None, 100), expected);
        }
        assert!(listed(&store, at, "none", b"", None, 100).is_empty());
    }
}

fn a_listing_shows_outlines_and_deletions(machine: &dyn Machine) {
    let store = open(machine.engine());
    let (at, names) = sharing_a_partition((0..100).map(|n| format!("k{n}").into_bytes()), "b");
    let [live, deleted] = [key("b", &names[0]), key("b", &names[1])];
    any_role_write(&store, &live, 1);
    let written = block_on(store.coordinate(EPOCH, deleted.clone(), put(2, "gone"), None)).unwrap().object;
    block_on(store.coordinate(EPOCH, deleted.clone(), delete_after(&written.seen(), 3), None)).unwrap();
    let listed = store.list(at, &"b".parse().unwrap(), b"", None, 9).unwrap();
    let of = |key: &ObjectKey| listed.iter().find(|listed| listed.key == key.key()).unwrap();
    assert_eq!(of(&live).outline.siblings()[0].value, Value::Live(Bytes::new()), "no values are carried around");
    assert_eq!(of(&deleted).outline.siblings()[0].value, Value::Tombstone);
    for key in [&live, &deleted] {
        assert_eq!(of(key).outline.clock(), store.get(key).unwrap().unwrap().clock());
    }
}

fn buckets_are_those_with_records_in_order(machine: &dyn Machine) {
    let store = open(machine.engine());
    let at = Partition(0);
    assert_eq!(store.buckets(at, 9), Ok(vec![]));
    let mut expected = Vec::new();
    for bucket in ["z", "a", "ab", "Ä", "b b"] {
        let in_partition = (0..).map(|n| key(bucket, format!("k{n}"))).filter(|key| layout().partition_of(key) == at);
        for (n, key) in in_partition.take(3).enumerate() {
            any_role_write(&store, &key, n as u64);
        }
        expected.push(bucket.to_owned());
    }
    expected.sort();
    let buckets = |limit| {
        let found = store.buckets(at, limit).unwrap();
        found.into_iter().map(|bucket| bucket.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(buckets(100), expected);
    assert_eq!(buckets(2), expected[..2]);
    assert!(buckets(0).is_empty());
}

proptest! {
    #![proptest_config(cases(20))]

    #[test]
    fn paging_by_the_last_key_lists_every_key_once(
        names in prop::collection::btree_set(prop::collection::vec(any::<u8>(), 1..4), 1..60),
        limit in 1usize..5,
    ) {
        let store = open(MemoryMachine::default().engine());
        for (n, name) in names.iter().enumerate() {
            any_role_write(&store, &key("b", name), n as u64);
        }
        let mut found = Vec::new();
        for at in layout().partitions().all() {
            let mut after: Option<Bytes> = None;
            loop {
                let page = listed(&store, at, "b", b"", after.as_deref(), limit);
                let Some(last) = page.last() else { break };
                after = Some(last.clone());
                found.extend(page);
            }
        }
        found.sort();
        prop_assert_eq!(found, names.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn the_tests_of_listing_use_keys_of_both_roles() {
    let roles: Vec<bool> = (0..50).map(|n| primaries(&key("b", format!("k{n}"))).contains(&US)).collect();
    assert!(roles.contains(&true) && roles.contains(&false));
}
