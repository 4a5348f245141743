//! The bytes on disk. If one of these tests fails, old stores cannot be read any more: raise the format and keep reading
//! the old one, do not change the test. Each line is one field, so that a difference shows where it is.
#![allow(clippy::unwrap_used, reason = "a helper fails as its test does")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use starling_core::choice::Ballot;
use starling_core::codec;
use starling_core::ids::{DirectoryId, NodeId, Run};
use starling_core::layout::LayoutVersion;
use starling_core::reaping::{Expired, Round, RoundId};
use starling_core::report::Role;
use starling_core::ring::{Decree, Epoch};
use starling_core::wall::WallTime;
use starling_storage::inspect::{self, RecordPlace};
use starling_storage::{Batch, Engine, MemoryDisk, MemoryEngine, Space, Store, StoreLimits};
use support::{
    CLUSTER, EPOCH, NONE_OVER, Peer, block_on, delete_after, foreign_keys, identity, key, layout, layout_of, open,
    our_keys, primaries, put, put_after, put_until, successor,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn engine() -> Arc<dyn Engine> {
    Arc::new(MemoryEngine::open(MemoryDisk::default()))
}

fn meta(engine: &dyn Engine, key: &[u8]) -> String {
    hex(&engine.get(Space::Meta, key).unwrap().unwrap_or_else(|| panic!("nothing under {key:?}")))
}

/// The only entry of a space: its key and its value.
fn only(engine: &dyn Engine, space: Space) -> (String, String) {
    let entries = engine.scan(space, b"", None, 9).unwrap();
    assert_eq!(entries.len(), 1);
    (hex(&entries[0].0), hex(&entries[0].1))
}

#[test]
fn a_primarys_record() {
    let engine = engine();
    let store = open(engine.clone());
    let [key] = our_keys();
    let first = block_on(store.coordinate(EPOCH, key.clone(), put(1, "old"), None)).unwrap().object;
    block_on(store.coordinate(EPOCH, key.clone(), put_after(&first.seen(), 2, "new"), None)).unwrap();
    block_on(store.merge(EPOCH, NONE_OVER, key.clone(), Peer::with(201, 3, "").object, Role::Primary)).unwrap();
    let expected = [
        "03", // the format
        "ff", // its leaf in the hash tree is among those of buckets with all replicas
        "00", // no epoch, since there are no markers
        "02",
        "650102",
        "c90301", // the clock: (directory, birth) and counter, by history
        "02",     // siblings, by dot: dot, stamp, request, value hash, value
        "650102",
        "fc0000ea03",
        "02",
        "fdea3115bd22e381f7",
        "0003",
        "6e6577",
        "c90301",
        "fc0000eb03",
        "03",
        "fdebce86ebd2f92ee1",
        "0000",
        "01", // the requests remembered: stamp, request, value hash
        "fc0000e903",
        "01",
        "fd4ac31a3a209ac3fe",
        "01",
        "010201", // the own mark: birth, counter, run
        "00",
        "00", // no markers, no confirmations
    ];
    assert_eq!(only(&*engine, Space::Objects).1, expected.concat());
}

#[test]
fn a_record_that_expires() {
    let engine = engine();
    let store = open(engine.clone());
    let [key] = foreign_keys();
    block_on(store.coordinate(EPOCH, key.clone(), put_until(1, "a", WallTime(0x1234)), None)).unwrap();
    let expected = [
        "05",   // the format
        "01ff", // the breadth of its leaf
        "00",   // no round has marked it
        "0101", // the epoch in which its markers were set
        "01",
        "650101", // the clock
        "01",
        "650101",
        "fc0000e903",
        "01",
        "fd449a04434532c821",
        "02",
        "0161",
        "fb3412", // a value that expires: the value, and when
        "00",     // no requests remembered
        "01010101",
        "03",
        "030405",
        "00", // the own mark, markers for nodes 3, 4 and 5, no confirmations
    ];
    assert_eq!(only(&*engine, Space::Objects).1, expected.concat());
    // 3, the partition, when it expires, the record's key; the format.
    let entries = engine.scan(Space::Trees, &[3], None, 9).unwrap();
    let entries: Vec<_> = entries.iter().map(|(key, value)| (hex(key), hex(value))).collect();
    assert_eq!(entries, [(["03", "0000", "0000000000001234", &hex(b"default\0b\0k7")].concat(), "01".to_owned())]);
}

#[test]
fn a_fallbacks_record_and_its_hints() {
    let engine = engine();
    let store = open(engine.clone());
    let [key] = foreign_keys();
    let first = block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap().object;
    let deleted = block_on(store.coordinate(EPOCH, key.clone(), delete_after(&first.seen(), 2), None)).unwrap().object;
    let [confirmed, ..] = primaries(&key)[..] else { panic!("three primaries") };
    block_on(store.confirm(EPOCH, key.clone(), confirmed, deleted.clock().clone())).unwrap();
    let (at, record) = only(&*engine, Space::Objects);
    assert_eq!(at, ["0000", &hex(b"default\0"), &hex(b"b\0"), &hex(b"k7")].concat());
    let expected = [
        "03",   // the format
        "ff",   // the breadth of its leaf
        "0101", // the epoch in which its markers were set
        "01",
        "650102",
        "01",
        "650102",
        "fc0000ea03",
        "02",
        "fddbec4e07f4df4bc4",
        "01", // a tombstone
        "01",
        "fc0000e903",
        "01",
        "fd449a04434532c821",
        "01",
        "010201",
        "02",
        "03",
        "05", // markers: nodes 3 and 5 have not confirmed
        "01",
        "04", // node 4 has
    ];
    assert_eq!(record, expected.concat());
    let hints = engine.scan(Space::Hints, b"", None, 9).unwrap();
    let hints: Vec<_> = hints.iter().map(|(key, value)| (hex(key), hex(value))).collect();
    let of = |target: &str| ([target, &at].concat(), "01".to_owned());
    assert_eq!(hints, [of("0000000000000003"), of("0000000000000005")]);
}

#[test]
fn a_hash_tree() {
    let engine = engine();
    let store = open(engine.clone());
    block_on(store.merge(EPOCH, NONE_OVER, key("b", "k"), Peer::with(201, 3, "").object, Role::Primary)).unwrap();
    let entries = engine.scan(Space::Trees, b"", None, 9).unwrap();
    let entries: Vec<_> = entries.iter().map(|(key, value)| (hex(key), hex(value))).collect();
    let expected: [(&[&str], &[&str]); 2] = [
        // A sum: 0, partition, branch, breadth; the format, how many keys, their hash.
        (&["00", "0002", "2c", "ff"], &["01", "0000000000000001", "37b07a09c306ddc2334a830b1b1ba1fa"]),
        // A leaf: 1, partition, position, the record's key; the format, breadth, fingerprint.
        (&["01", "0002", "2c71073333975820", &hex(b"default\0b\0k")], &["01", "ff", "bfafd48a0c5388e2"]),
    ];
    assert_eq!(entries, expected.map(|(key, value)| (key.concat(), value.concat())));
}

#[test]
fn a_tombstone_and_the_round_that_reaps_it() {
    let engine = engine();
    let store = open(engine.clone());
    let [key] = our_keys();
    let first = block_on(store.coordinate(EPOCH, key.clone(), put(1, "a"), None)).unwrap().object;
    let deleted = block_on(store.coordinate(EPOCH, key.clone(), delete_after(&first.seen(), 2), None)).unwrap().object;
    let at = RecordPlace { partition: layout().partition_of(&key), key: key.clone() };
    let at = inspect::key_of(&at);
    let entry = engine.get(Space::Trees, &[&[2], &at[..]].concat()).unwrap().unwrap();
    assert_eq!(hex(&entry), ["01", "0000000003ea0000"].concat(), "the format, and the greatest stamp");

    let id = RoundId { epoch: EPOCH, partition: layout().partition_of(&key), number: 4 };
    let round = Round { id, tombstones: [(key.clone(), deleted.clone())].into() };
    store.bind(&round).unwrap();
    block_on(store.mark(id, key.clone(), deleted.clone(), Expired::Unknown)).unwrap();
    let record = engine.get(Space::Objects, &at).unwrap().unwrap();
    let number = format!("{:02x}", id.partition.0);
    // The format; the round: epoch, partition, number; owed to nobody.
    let head = ["04", "01", &number, "04", "00"].concat();
    assert!(hex(&record).starts_with(&head), "{}", hex(&record));
    let rest = codec::encode(&(&deleted, Some((1_u64, 2_u64, 1_u64)), 0_u64, 0_u64));
    assert!(hex(&record).ends_with(&hex(&rest)), "{}", hex(&record));

    let partition = id.partition.0.to_be_bytes();
    let bound = [["01", "01", &number, "04"].concat(), hex(&codec::encode(&round.tombstones)), "00".to_owned()];
    assert_eq!(meta(&*engine, &[&b"bound/"[..], &partition].concat()), bound.concat(), "no ending was decided");
    store.decide_ending(id, &[key.clone()].into()).unwrap();
    let ended = [bound[0].clone(), bound[1].clone(), "0101".to_owned(), hex(&codec::encode(&key))];
    assert_eq!(meta(&*engine, &[&b"bound/"[..], &partition].concat()), ended.concat());
    store.note_over(id).unwrap();
    let over = ["01", "01", &number, "04"].concat();
    assert_eq!(meta(&*engine, &[&b"rounds-over/"[..], &partition].concat()), over);
    store.unbind(id).unwrap();
    assert_eq!(meta(&*engine, &[&b"last-round/"[..], &partition].concat()), over, "the same, as a round");
}

#[test]
fn the_nodes_own_affairs() {
    let engine = engine();
    let store = Store::open_engine(engine.clone(), identity(), StoreLimits::default()).unwrap();
    store.adopt(layout_of(1, 1)).unwrap();
    store.meet(&Run { directory: DirectoryId(0x102), counter: 3, nonce: 4 }).unwrap();
    assert_eq!(meta(&*engine, b"identity"), "010165");
    assert_eq!(meta(&*engine, b"peer-run/\0\0\0\0\0\0\x01\x02"), "01fb02010304");
    store.meet(&Run { directory: DirectoryId(0x102), counter: 3, nonce: 5 }).unwrap();
    assert_eq!(meta(&*engine, b"forked/\0\0\0\0\0\0\x01\x02"), "01fb0201");
    let layout = [
        "01", // the format
        "01",
        "01",
        "00",
        "08",
        "03", // version, cluster, no parent, partitions, replicas
        "01", // members: node, directory, name, zone, weight, address
        "01",
        "65",
        "026e31",
        "027a31",
        "01",
        "076e313a37343030",
        "08",
        "01000100010001000100010001000100", // each partition's primaries, by place among the members
        "00",                               // no buckets with rules of their own
    ];
    assert_eq!(meta(&*engine, b"layout/\0\0\0\0\0\0\0\x01"), layout.concat());

    // Half of its nonce is drawn: counter, nonce, stopped cleanly, clean since.
    let run = |engine: &dyn Engine| {
        let bytes = engine.get(Space::Meta, b"run").unwrap().unwrap();
        assert_eq!(bytes[0], 1, "the format");
        codec::decode::<(u64, u64, bool, u64)>(&bytes[1..], 64, "a run").unwrap()
    };
    let nonce = store.run().nonce;
    assert_eq!(run(&*engine), (1, nonce, false, 1));
    store.close();
    assert_eq!(run(&*engine), (1, nonce, true, 1));
    store.retire("a copy");
    assert_eq!(meta(&*engine, b"retired"), "01066120636f7079");
    let keys = engine.scan(Space::Meta, b"", None, 99).unwrap();
    assert_eq!(meta(&*engine, b"trees"), "01");
    assert_eq!(meta(&*engine, b"tombstones"), "01");
    assert_eq!(keys.len(), 8, "and nothing else is there");
}

#[test]
fn the_log_and_the_votes() {
    let engine = engine();
    let store = open(engine.clone());
    let layout = successor(&store.ring().unwrap(), 1..=6);
    let ballot = Ballot { round: 3, proposer: NodeId(4), nonce: 5 };
    let begin = Decree::Begin { layout, dead: BTreeSet::new() };
    store.accept(CLUSTER, Epoch(2), ballot, begin.clone()).unwrap();
    let decree = hex(&codec::encode(&begin));
    assert_eq!(meta(&*engine, b"vote/\0\0\0\0\0\0\0\x02"), ["01", "01030405", "01030405", &decree].concat());
    let entry = store.ring().unwrap().entry(begin);
    store.append(&entry, None).unwrap();
    let parent = hex(&codec::encode(&entry.parent));
    assert_eq!(meta(&*engine, b"decree/\0\0\0\0\0\0\0\x02"), ["01", "02", &parent, &decree].concat());
    assert_eq!(engine.get(Space::Meta, b"vote/\0\0\0\0\0\0\0\x02").unwrap(), None, "what is chosen needs no vote");
    store.note_copied(LayoutVersion(2)).unwrap();
    assert_eq!(meta(&*engine, b"copied"), "0102");
    assert_eq!(hex(&codec::encode(&Decree::Emptied(NodeId(7)))), "0407");
}

#[test]
fn plain_settings() {
    let engine = engine();
    let store = open(engine.clone());
    let set = |name: &str, text: Option<&str>, at| {
        let changes = [(name.to_owned(), text.map(str::to_owned))].into();
        store.set(&"carts".parse().unwrap(), &changes, WallTime(at)).unwrap();
    };
    set("r", Some("one"), 5);
    set("ttl", Some("1000"), 5);
    set("ttl", None, 7);
    let registers = [
        "01",           // the format
        "056361727473", // the bucket
        "02",           // registers: name, when, by which directory, text
        "0172",
        "05",
        "65",
        "01036f6e65",
        "0374746c",
        "07",
        "65",
        "00", // cleared
    ];
    assert_eq!(meta(&*engine, b"settings/carts"), registers.concat());
}

#[test]
fn a_newer_meta_value_keeps_an_older_build_from_starting() {
    let disk = MemoryDisk::default();
    let start = || {
        let engine = Arc::new(MemoryEngine::open(disk.clone()));
        Store::open_engine(engine.clone(), identity(), StoreLimits::default()).map(|_| engine)
    };
    let engine = start().unwrap();
    let names: [&[u8]; 8] = [
        b"settings/carts",
        b"copied",
        b"layout/\0\0\0\0\0\0\0\x01",
        b"peer-run/\0\0\0\0\0\0\x01\x02",
        b"forked/\0\0\0\0\0\0\x01\x02",
        b"retired",
        b"run",
        b"identity",
    ];
    for name in names {
        let before = engine.get(Space::Meta, name).unwrap();
        let mut newer = Batch::default();
        newer.put(Space::Meta, name, vec![2, 0]);
        engine.commit(newer).unwrap();
        let refused = start().err().unwrap().to_string();
        assert!(refused.contains("format 2, newer than this build"), "{refused}");

        let mut restored = Batch::default();
        match before {
            Some(value) => restored.put(Space::Meta, name, value),
            None => restored.delete(Space::Meta, name),
        }
        engine.commit(restored).unwrap();
        assert!(start().is_ok(), "the refusal has changed nothing");
    }
}

/// Where a record lies depends on it.
#[test]
fn the_layout_of_the_tests() {
    assert_eq!(layout().checksum().to_string(), "133fe87777e14f1e");
    assert_eq!(layout().partition_of(&key("b", "k")).0, 2);
}
