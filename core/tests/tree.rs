//! Comparing hash trees finds every difference and nothing else, for few bytes.
#![allow(clippy::unwrap_used, reason = "a helper fails as its test does")]

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use proptest::collection::btree_map;
use proptest::prelude::*;
use starling_core::codec;
use starling_core::name::ObjectKey;
use starling_core::token::{Partition, PartitionCount};
use starling_core::tree::{Branch, Comparison, Difference, Fingerprint, Position, Sum, Tree, answer};

/// A tree that is nothing but its keys.
#[derive(Default)]
struct Held(BTreeMap<ObjectKey, Fingerprint>);

impl Held {
    fn of(keys: &BTreeMap<u32, u64>) -> Held {
        Held(keys.iter().map(|(key, clock)| (object(*key), Fingerprint(*clock))).collect())
    }
}

/// All in one partition: here it is the whole ring.
fn position(key: &ObjectKey) -> Position {
    Position::of(key, PartitionCount::try_from(8).unwrap())
}

impl Tree for Held {
    type Error = Infallible;

    fn sum(&self, branch: Branch) -> Result<Sum, Infallible> {
        let sums = self.keys(branch)?.into_iter().map(|(key, fingerprint)| Sum::of(&key, fingerprint));
        Ok(sums.fold(Sum::default(), Sum::plus))
    }

    fn sums_below(&self, branch: Branch) -> Result<Vec<Sum>, Infallible> {
        branch.children().into_iter().map(|child| self.sum(child)).collect()
    }

    fn keys(&self, branch: Branch) -> Result<BTreeMap<ObjectKey, Fingerprint>, Infallible> {
        let inside = |key: &ObjectKey| branch.positions().contains(&position(key));
        Ok(self.0.iter().filter(|(key, _)| inside(key)).map(|(key, clock)| (key.clone(), *clock)).collect())
    }
}

fn object(number: u32) -> ObjectKey {
    ObjectKey::new("carts".parse().unwrap(), number.to_string()).unwrap()
}

/// What a comparison came to.
struct Outcome {
    found: Vec<Difference>,
    exchanges: usize,
    /// On the wire, both ways.
    bytes: usize,
}

fn compare(asker: &Held, asked: &Held) -> Outcome {
    let mut comparison = Comparison::of(Partition(0));
    let mut outcome = Outcome { found: Vec::new(), exchanges: 0, bytes: 0 };
    loop {
        let branches = comparison.next(8);
        if branches.is_empty() {
            return outcome;
        }
        outcome.exchanges += 1;
        for branch in branches {
            let Ok(own) = asker.sum(branch);
            let Ok(said) = answer(asked, branch, own);
            outcome.bytes += codec::encode(&(branch, own)).len() + codec::encode(&said).len();
            let Ok(found) = comparison.hear(asker, branch, said);
            outcome.found.extend(found);
        }
    }
}

proptest! {
    #[test]
    fn every_difference_is_found_once_and_nothing_else(
        both in btree_map(0_u32..400, 0_u64..4, 0..300),
        only_one in btree_map(0_u32..400, 0_u64..4, 0..40),
        only_other in btree_map(0_u32..400, 0_u64..4, 0..40),
    ) {
        let with = |own: &BTreeMap<u32, u64>| -> BTreeMap<u32, u64> {
            both.iter().chain(own).map(|(key, clock)| (*key, *clock)).collect()
        };
        let (one, other) = (with(&only_one), with(&only_other));
        let found = compare(&Held::of(&one), &Held::of(&other)).found;
        let met: BTreeSet<ObjectKey> = found.iter().map(|difference| difference.key.clone()).collect();
        prop_assert_eq!(met.len(), found.len());
        let all: BTreeSet<u32> = one.keys().chain(other.keys()).copied().collect();
        let differ = all.into_iter().filter(|key| one.get(key) != other.get(key)).map(object);
        prop_assert_eq!(met, differ.collect::<BTreeSet<_>>());
        for Difference { key, own, theirs } in found {
            let number: u32 = std::str::from_utf8(key.key()).unwrap().parse().unwrap();
            prop_assert_eq!(own, one.get(&number).copied().map(Fingerprint));
            prop_assert_eq!(theirs, other.get(&number).copied().map(Fingerprint));
        }
    }

    /// A sum is the same whatever way it came about.
    #[test]
    fn a_sum_is_kept_by_adding_and_taking_away(
        before in btree_map(0_u32..50, 0_u64..4, 0..50),
        after in btree_map(0_u32..50, 0_u64..4, 0..50),
    ) {
        let root = Branch::root(Partition(0));
        let Ok(mut sum) = Held::of(&before).sum(root);
        for (key, clock) in &before {
            sum = sum.minus(Sum::of(&object(*key), Fingerprint(*clock)));
        }
        prop_assert_eq!(sum, Sum::default());
        for (key, clock) in &after {
            sum = sum.plus(Sum::of(&object(*key), Fingerprint(*clock)));
        }
        let Ok(recomputed) = Held::of(&after).sum(root);
        prop_assert_eq!(sum, recomputed);
    }
}

#[test]
fn equal_partitions_cost_one_small_exchange() {
    let keys: BTreeMap<u32, u64> = (0..3000).map(|key| (key, 1)).collect();
    let outcome = compare(&Held::of(&keys), &Held::of(&keys));
    assert_eq!((outcome.exchanges, outcome.found.len()), (1, 0));
    assert!(outcome.bytes < 64, "{}", outcome.bytes);
}

/// One level of sums for each factor of sixteen, and a few keys at the end of each path.
#[test]
fn differences_cost_bytes_by_their_number_and_the_depth_of_the_tree() {
    let bytes_for = |keys: u32, differences: u32| {
        let one: BTreeMap<u32, u64> = (0..keys).map(|key| (key, 1)).collect();
        let step = (keys / differences) as usize;
        let other: BTreeMap<u32, u64> =
            one.iter().map(|(key, clock)| (*key, clock + u64::from((*key as usize).is_multiple_of(step)))).collect();
        let outcome = compare(&Held::of(&one), &Held::of(&other));
        assert_eq!(outcome.found.len(), one.len().div_ceil(step));
        outcome.bytes
    };
    const A_LEVEL: usize = 16 * 18 + 32;
    const A_LEAF: usize = 16 * 32 + 32;
    for (keys, differences, levels) in [(256, 1, 2), (256, 8, 2), (4096, 1, 3), (4096, 16, 3), (4096, 64, 3)] {
        let bytes = bytes_for(keys, differences);
        let allowed = differences as usize * (levels * A_LEVEL + A_LEAF) + 64;
        assert!(bytes <= allowed, "{differences} of {keys}: {bytes} bytes, more than {allowed}");
    }
}
