//! What a directory that stands for a member in the place of a lost one has to be compared with.
#![allow(clippy::unwrap_used, reason = "a helper fails as its test does")]

use std::collections::{BTreeMap, BTreeSet};

use starling_core::filling::Filling;
use starling_core::ids::{ClusterId, DirectoryId, NodeId};
use starling_core::layout::{FirstLayout, Layout, Member, NextLayout};
use starling_core::quorum::ReplicaCount;
use starling_core::ring::{Decree, Ring};
use starling_core::token::{Partition, PartitionCount};

const WIPED: NodeId = NodeId(1);

fn member(number: u64) -> Member {
    Member {
        node: NodeId(number),
        directory: DirectoryId(100 + number),
        name: format!("n{number}").parse().unwrap(),
        zone: "z".parse().unwrap(),
        weight: 1,
        address: format!("127.0.0.1:{number}"),
    }
}

fn ring_of(members: u64) -> Ring {
    let first = FirstLayout {
        cluster: ClusterId(7),
        partitions: PartitionCount::try_from(8).unwrap(),
        replicas: ReplicaCount::DEFAULT,
        members: (1..=members).map(member).collect(),
        buckets: BTreeMap::new(),
    };
    Ring::first(Layout::first(first).unwrap()).unwrap()
}

fn next_of(ring: &Ring, members: impl Iterator<Item = u64>) -> Layout {
    let members = members.map(member).collect();
    let next = NextLayout { replicas: ReplicaCount::DEFAULT, members, buckets: BTreeMap::new() };
    ring.newest().successor(next).unwrap()
}

fn primaries(ring: &Ring, partition: Partition) -> BTreeSet<NodeId> {
    ring.read().primaries(partition, ring.read().replicas()).collect()
}

#[test]
fn it_is_filling_where_it_is_a_primary_until_it_was_compared_with_every_other() {
    let ring = ring_of(4);
    let mut filling = Filling::begin(&ring, WIPED);
    for partition in ring.read().partitions().all() {
        assert_eq!(filling.is_filling(partition), primaries(&ring, partition).contains(&WIPED));
    }
    let (partition, others) = filling.left(&ring, WIPED).pop_first().unwrap();
    assert_eq!(others.len(), 2);
    for other in others {
        assert_eq!(filling.take_full(&ring, WIPED), []);
        filling.note(partition, other);
    }
    assert_eq!(filling.take_full(&ring, WIPED), [partition]);
    assert!(!filling.is_filling(partition));
}

#[test]
fn whoever_is_declared_dead_is_not_waited_for() {
    let ring = ring_of(4);
    let mut filling = Filling::begin(&ring, WIPED);
    let layout = next_of(&ring, 1..=3);
    let dead = BTreeSet::from([NodeId(4)]);
    let ring = ring.after(&ring.entry(Decree::Begin { layout, dead: dead.clone() })).unwrap();
    let left = filling.left(&ring, WIPED);
    assert!(left.values().all(|others| others.is_disjoint(&dead)));
    for (partition, others) in left {
        others.into_iter().for_each(|other| filling.note(partition, other));
    }
    filling.take_full(&ring, WIPED);
    assert_eq!(filling, Filling::default());
}

#[test]
fn a_partition_that_has_moved_away_is_filled_no_more() {
    let ring = ring_of(3);
    let mut filling = Filling::begin(&ring, WIPED);
    let layout = next_of(&ring, 2..=4);
    let version = layout.version();
    let ring = ring.after(&ring.entry(Decree::Begin { layout, dead: BTreeSet::new() })).unwrap();
    assert_eq!(filling.take_full(&ring, WIPED), [], "it is still read");
    let ring = ring.after(&ring.entry(Decree::Switch(version))).unwrap();
    assert_eq!(filling.take_full(&ring, WIPED).len(), 8);
}
