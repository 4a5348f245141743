//! What the micro benchmarks work on.
//!
//! Each benchmark stands beside its floor: the least that anything doing the same would have to do, such as copying the
//! same bytes, or one sync of them. A number means something only against the floor of the same run; machines differ, and
//! so do their neighbours. `core.rs` measures decisions, `storage.rs` what reaches a disk.
//!
//! Left out on purpose: the network and whole requests, which `starling bench` measures on a cluster.

use std::collections::BTreeMap;

use bytes::Bytes;
use starling_core::coordinate::{ObjectLimits, Write, coordinate};
use starling_core::ids::{Birth, ClusterId, DirectoryId, NodeId, RequestId};
use starling_core::layout::{FirstLayout, Layout, Member};
use starling_core::mark::{Minter, OwnMark, TrustedMarks};
use starling_core::name::ObjectKey;
use starling_core::object::{Object, Seen, SiblingMode, Value};
use starling_core::quorum::ReplicaCount;
use starling_core::stamp::Stamp;
use starling_core::token::PartitionCount;

pub const LIMITS: ObjectLimits = ObjectLimits { siblings: 100, bytes: 4 << 20 };

/// As many members in three zones, with three replicas of 256 partitions.
pub fn first_layout(members: u64) -> FirstLayout {
    let member = |node| Member {
        node: NodeId(node),
        directory: DirectoryId(1000 + node),
        name: format!("n{node}").parse().expect("a valid name"),
        zone: format!("z{}", node % 3).parse().expect("a valid name"),
        weight: 1,
        address: format!("n{node}:7400"),
    };
    FirstLayout {
        cluster: ClusterId(1),
        partitions: PartitionCount::DEFAULT,
        replicas: ReplicaCount::DEFAULT,
        members: (1..=members).map(member).collect(),
        buckets: BTreeMap::new(),
    }
}

pub fn layout(members: u64) -> Layout {
    Layout::first(first_layout(members)).expect("the members do not contradict each other")
}

pub fn key(n: u64) -> ObjectKey {
    let bucket = "benchmark".parse().expect("a valid name");
    ObjectKey::new(bucket, format!("user:{n:012}")).expect("a valid key")
}

/// Bytes that do not compress.
pub fn bytes(size: usize) -> Bytes {
    // SplitMix64 (Steele et al., "Fast Splittable Pseudorandom Number Generators", 2014).
    let mut state = size as u64;
    let word = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    std::iter::repeat_with(word).flat_map(u64::to_le_bytes).take(size).collect()
}

/// A client's write number `n`, by somebody who has read nothing.
pub fn write(n: u64, value: Bytes) -> Write {
    Write {
        value: Value::Live(value),
        seen: Seen::default(),
        request: RequestId((1 << 100) + u128::from(n)),
        mode: SiblingMode::Keep,
        wall: Stamp::from_millis(1_700_000_000_000 + n),
        fresh_birth: Birth(0x1234_5678_9abc_def0 ^ n),
    }
}

pub fn minter(directory: u64) -> Minter {
    Minter { directory: DirectoryId(0x0fed_cba9_8765_4321 ^ directory), run: 1, trusted: TrustedMarks::OfThisRun }
}

/// The object, and the mark it leaves, of one write at a directory.
pub fn written(directory: u64, value: Bytes) -> (Object, OwnMark) {
    let (mut object, mut mark) = (Object::default(), None);
    coordinate(&mut object, &mut mark, write(directory, value), &minter(directory), &LIMITS)
        .expect("within the limits");
    (object, mark.expect("a write leaves a mark"))
}

/// An object with a sibling of `size` bytes from each of these directories.
pub fn object(directories: impl IntoIterator<Item = u64>, size: usize) -> Object {
    let mut object = Object::default();
    for directory in directories {
        object.merge(&written(directory, bytes(size)).0);
    }
    object
}
