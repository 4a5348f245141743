//! Hash trees, by which replicas find out where they differ (Dynamo, section 4.7).
//!
//! Each partition has a tree over the keys that a node holds in it. A key lies at the [`Position`] that its token has within
//! the partition; a [`Branch`] is all keys whose positions begin alike, sixteen branches below each. A branch is summed up in
//! a [`Sum`]: how many keys there are, and the sum of one hash for each key and its clock. Under one clock there is one
//! object, so replicas with equal sums hold the same. A sum changes by what one key contributes, whatever else there is: so
//! it can be kept exact with every write, and a branch of any depth can be summed up from the keys in it.
//!
//! One node asks and the other answers ([`Comparison`], [`answer`]): of each branch the asker sends its own sum, and learns
//! that there is no difference, or the sums one level below, or, where both have few keys, all of them. Only branches that
//! differ are followed. So two equal partitions cost one exchange, and `d` differences among `n` keys cost a number of bytes
//! that grows with `d · log n`.
//!
//! Buckets may have fewer replicas than the cluster keeps. A node that is the third primary of a partition has nothing of a
//! bucket of two replicas, so what two nodes compare is the part of their trees that is meant for both: the sums of keys of
//! at least so many replicas ([`Breadth`]).

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::clock::Clock;
use crate::codec;
use crate::ids::NodeId;
use crate::layout::Layout;
use crate::name::{BucketName, ObjectKey};
use crate::quorum::ReplicaCount;
use crate::token::{Partition, PartitionCount, Token};

/// Branches below each.
pub const CHILDREN: usize = 16;
const BITS_A_LEVEL: u32 = 4;
/// A branch with no more keys than this, on either side, is compared key by key.
const FEW_KEYS: u64 = 16;

/// Where a key lies within its partition: the bits of its token behind those that name the partition, followed by zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position(pub u64);

impl Position {
    pub fn of(key: &ObjectKey, partitions: PartitionCount) -> Position {
        Position(Token::of(key).0 << partitions.get().trailing_zeros())
    }
}

/// All keys of a partition whose positions begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Branch {
    pub partition: Partition,
    /// How many levels below the root; at most [`Branch::DEEPEST`].
    level: u8,
    first: Position,
}

/// A branch below the deepest, or one whose positions do not fit its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no such branch of a hash tree")]
pub struct NoBranch;

impl Branch {
    /// Below it positions are hardly ever shared.
    pub const DEEPEST: u8 = 12;

    /// The whole partition.
    pub fn root(partition: Partition) -> Branch {
        Branch { partition, level: 0, first: Position(0) }
    }

    /// The branch of that level that a position lies in.
    pub fn around(partition: Partition, level: u8, position: Position) -> Branch {
        let level = level.min(Branch::DEEPEST);
        Branch { partition, level, first: Position(position.0 & !behind(level)) }
    }

    pub fn level(self) -> u8 {
        self.level
    }

    pub fn positions(self) -> RangeInclusive<Position> {
        self.first..=Position(self.first.0 | behind(self.level))
    }

    /// The branches one level below, in the order of positions; none below the deepest.
    pub fn children(self) -> Vec<Branch> {
        if self.level >= Branch::DEEPEST {
            return Vec::new();
        }
        let level = self.level + 1;
        let shift = u64::BITS - u32::from(level) * BITS_A_LEVEL;
        (0..CHILDREN as u64)
            .map(|child| Branch { level, first: Position(self.first.0 | (child << shift)), ..self })
            .collect()
    }

    /// # Errors
    /// [`NoBranch`] if no tree has such a branch: it came from outside.
    pub fn check(self) -> Result<Branch, NoBranch> {
        let fits = self.level <= Branch::DEEPEST && self.first.0 & behind(self.level) == 0;
        if fits { Ok(self) } else { Err(NoBranch) }
    }
}

/// The bits of a position that a branch of that level leaves open.
fn behind(level: u8) -> u64 {
    u64::MAX.checked_shr(u32::from(level) * BITS_A_LEVEL).unwrap_or(0)
}

/// What is compared of an object: XXH3-64 of its clock's encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    pub fn of(clock: &Clock) -> Fingerprint {
        Fingerprint(xxh3_64(&codec::encode(clock)))
    }
}

/// A branch in short. An on-disk format: how it is summed up never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sum {
    pub keys: u64,
    /// The sum, modulo 2^128, of XXH3-128 of each key and its fingerprint.
    pub hash: u128,
}

impl Sum {
    /// Of one key.
    pub fn of(key: &ObjectKey, fingerprint: Fingerprint) -> Sum {
        let mut hash = Xxh3::new();
        hash.update(&fingerprint.0.to_be_bytes());
        hash.update(&Token::of(key).0.to_be_bytes());
        hash.update(key.bucket().as_str().as_bytes());
        // Names hold no zero byte.
        hash.update(&[0]);
        hash.update(key.key());
        Sum { keys: 1, hash: hash.digest128() }
    }

    pub fn plus(self, other: Sum) -> Sum {
        Sum { keys: self.keys.wrapping_add(other.keys), hash: self.hash.wrapping_add(other.hash) }
    }

    pub fn minus(self, other: Sum) -> Sum {
        Sum { keys: self.keys.wrapping_sub(other.keys), hash: self.hash.wrapping_sub(other.hash) }
    }
}

/// How many replicas a bucket asks for: what is compared with a node that is the third primary leaves out those of two.
/// Most buckets ask for as many as the cluster keeps, however many those are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Breadth(pub u8);

impl Breadth {
    /// As many as the cluster keeps.
    pub const ALL: Breadth = Breadth(u8::MAX);
    /// Less than any bucket asks for.
    pub const ANY: Breadth = Breadth(0);

    pub fn of(bucket: &BucketName, layout: &Layout) -> Breadth {
        layout.rules(bucket).replicas.map_or(Breadth::ALL, Breadth::reaching)
    }

    fn reaching(replicas: ReplicaCount) -> Breadth {
        Breadth(u8::try_from(replicas.get()).expect("there are at most 7 replicas"))
    }

    /// Of the keys that nodes at these places among a partition's primaries, counted from 0, both hold.
    pub fn shared_by(one: usize, other: usize) -> Breadth {
        Breadth(u8::try_from(one.max(other) + 1).unwrap_or(u8::MAX))
    }
}

/// By peer: the partitions that are compared with it, and of which of their keys it holds a replica too.
pub type Pairs = BTreeMap<NodeId, Vec<(Partition, Breadth)>>;

impl Layout {
    /// What this node has to compare with whom by asking: each partition with the other primaries of it. Of two nodes one
    /// asks the other, for about half of what they share.
    pub fn compared_by(&self, node: NodeId) -> Pairs {
        let mut pairs = Pairs::new();
        for partition in self.partitions().all() {
            let primaries: Vec<NodeId> = self.primaries(partition, self.replicas()).collect();
            let Some(own) = primaries.iter().position(|primary| *primary == node) else { continue };
            for (other, peer) in primaries.into_iter().enumerate().filter(|(_, peer)| asks(node, *peer, partition)) {
                pairs.entry(peer).or_default().push((partition, Breadth::shared_by(own, other)));
            }
        }
        pairs
    }
}

fn asks(node: NodeId, peer: NodeId, partition: Partition) -> bool {
    if partition.0.is_multiple_of(2) { node < peer } else { node > peer }
}

/// What a node holds of a partition, or of those of its keys that are compared.
pub trait Tree {
    type Error;

    /// # Errors
    /// It cannot be read.
    fn sum(&self, branch: Branch) -> Result<Sum, Self::Error>;

    /// Of each branch below, in order.
    ///
    /// # Errors
    /// It cannot be read.
    fn sums_below(&self, branch: Branch) -> Result<Vec<Sum>, Self::Error>;

    /// # Errors
    /// It cannot be read.
    fn keys(&self, branch: Branch) -> Result<BTreeMap<ObjectKey, Fingerprint>, Self::Error>;
}

/// What the one who is asked says of a branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Its sum is the asker's.
    Same,
    /// The sums one level below.
    Below(Vec<Sum>),
    /// Every key.
    Keys(BTreeMap<ObjectKey, Fingerprint>),
}

/// What to say of a branch whose sum at the asker is `asked`.
///
/// # Errors
/// The tree cannot be read.
pub fn answer<T: Tree>(tree: &T, branch: Branch, asked: Sum) -> Result<Answer, T::Error> {
    let own = tree.sum(branch)?;
    if own == asked {
        return Ok(Answer::Same);
    }
    let few = own.keys <= FEW_KEYS && asked.keys <= FEW_KEYS;
    if few || branch.level() >= Branch::DEEPEST {
        return Ok(Answer::Keys(tree.keys(branch)?));
    }
    Ok(Answer::Below(tree.sums_below(branch)?))
}

/// A key that two nodes do not hold alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub key: ObjectKey,
    /// None: nothing is held.
    pub own: Option<Fingerprint>,
    pub theirs: Option<Fingerprint>,
}

/// The asker's side of comparing a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// Branches that may differ; the deepest last, so that few are open at a time.
    open: Vec<Branch>,
}

impl Comparison {
    pub fn of(partition: Partition) -> Comparison {
        Comparison { open: vec![Branch::root(partition)] }
    }

    /// The next branches to ask about, at most so many; none once all is compared.
    pub fn next(&mut self, most: usize) -> Vec<Branch> {
        let from = self.open.len().saturating_sub(most);
        self.open.split_off(from)
    }

    /// Takes an answer in; returns the keys that are known to differ by it. Of an answer that has not a sum for each branch
    /// below, all those branches are asked about.
    ///
    /// # Errors
    /// The own tree cannot be read.
    pub fn hear<T: Tree>(&mut self, own: &T, branch: Branch, answer: Answer) -> Result<Vec<Difference>, T::Error> {
        match answer {
            Answer::Same => Ok(Vec::new()),
            Answer::Below(theirs) => {
                let own = own.sums_below(branch)?;
                let differs = |place: usize| theirs.get(place) != own.get(place) || theirs.len() != own.len();
                let below = branch.children().into_iter().enumerate();
                self.open.extend(below.filter(|(place, _)| differs(*place)).map(|(_, child)| child));
                Ok(Vec::new())
            }
            Answer::Keys(theirs) => Ok(differences(own.keys(branch)?, theirs)),
        }
    }
}

fn differences(own: BTreeMap<ObjectKey, Fingerprint>, mut theirs: BTreeMap<ObjectKey, Fingerprint>) -> Vec<Difference> {
    let mut found = Vec::new();
    for (key, own) in own {
        let theirs = theirs.remove(&key);
        if theirs != Some(own) {
            found.push(Difference { key, own: Some(own), theirs });
        }
    }
    let unknown = theirs.into_iter().map(|(key, theirs)| Difference { key, own: None, theirs: Some(theirs) });
    found.extend(unknown);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &'static str) -> ObjectKey {
        ObjectKey::new("carts".parse().unwrap(), text).unwrap()
    }

    /// An on-disk format: if this fails, the code is wrong, not the test.
    #[test]
    fn sums_are_frozen() {
        let sum = Sum::of(&key("alice"), Fingerprint(7));
        assert_eq!((sum.keys, format!("{:032x}", sum.hash)), (1, "7902f961ee92f23271de3e12d75d1db1".to_owned()));
        assert_eq!(Fingerprint::of(&Clock::default()), Fingerprint(14_144_645_293_874_801_883));
    }

    #[test]
    fn the_branches_below_one_are_all_of_it() {
        let partition = Partition(3);
        let mut branch = Branch::root(partition);
        for level in 0..Branch::DEEPEST {
            let below = branch.children();
            assert_eq!((below.len(), below[0].level()), (CHILDREN, level + 1));
            assert_eq!(below[0].positions().start(), branch.positions().start());
            assert_eq!(below[15].positions().end(), branch.positions().end());
            let touch = |pair: &[Branch]| pair[0].positions().end().0 + 1 == pair[1].positions().start().0;
            assert!(below.windows(2).all(touch));
            for child in &below {
                assert_eq!(Branch::around(partition, level + 1, *child.positions().end()), *child);
                assert_eq!(child.check(), Ok(*child));
            }
            branch = below[11];
        }
        assert_eq!(branch.children(), Vec::new());
    }

    #[test]
    fn a_branch_from_outside_is_checked() {
        let root = Branch::root(Partition(0));
        assert_eq!(Branch { level: Branch::DEEPEST + 1, ..root }.check(), Err(NoBranch));
        assert_eq!(Branch { level: 1, first: Position(1), ..root }.check(), Err(NoBranch));
    }

    #[test]
    fn a_position_leaves_out_what_names_the_partition() {
        let partitions = PartitionCount::try_from(256).unwrap();
        let token = Token::of(&key("alice")).0;
        assert_eq!(Position::of(&key("alice"), partitions), Position(token << 8));
    }
}
