//! Where a key lies on the ring.
//!
//! The token is XXH3-64 (seed 0) over bucket type, bucket and key, each preceded by its length as a 32-bit little-endian
//! number. It decides which partition a record is stored under, so it is an on-disk format: it never changes.

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::name::ObjectKey;

/// The only bucket type so far. Named in the hash so that types can come without moving a key.
pub const DEFAULT_BUCKET_TYPE: &str = "default";

/// A point of the 64-bit ring.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token(pub u64);

impl Token {
    pub fn of(key: &ObjectKey) -> Token {
        let mut hash = Xxh3::new();
        for part in [DEFAULT_BUCKET_TYPE.as_bytes(), key.bucket().as_str().as_bytes(), key.key()] {
            let length = u32::try_from(part.len()).expect("names are limited to 1 KiB");
            hash.update(&length.to_le_bytes());
            hash.update(part);
        }
        Token(hash.digest())
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({self})")
    }
}

/// One of the Q equal slices of the ring: the unit that is placed, moved and compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Partition(pub u16);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a number of partitions was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} partitions are not possible: choose a power of two from 8 to 32768")]
pub struct InvalidPartitionCount(u32);

/// Q, the number of partitions: a power of two, fixed when the cluster is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct PartitionCount(u32);

impl PartitionCount {
    pub const DEFAULT: PartitionCount = PartitionCount(256);

    pub fn get(self) -> u32 {
        self.0
    }

    /// The slice that a token falls into: its highest log2(Q) bits.
    pub fn partition_of(self, token: Token) -> Partition {
        let index = token.0 >> (64 - self.0.trailing_zeros());
        Partition(u16::try_from(index).expect("Q is at most 32768"))
    }

    pub fn all(self) -> impl Iterator<Item = Partition> + Clone {
        (0..self.0).map(|index| Partition(u16::try_from(index).expect("Q is at most 32768")))
    }
}

impl TryFrom<u32> for PartitionCount {
    type Error = InvalidPartitionCount;

    fn try_from(count: u32) -> Result<Self, InvalidPartitionCount> {
        let possible = count.is_power_of_two() && (8..=32768).contains(&count);
        if possible { Ok(PartitionCount(count)) } else { Err(InvalidPartitionCount(count)) }
    }
}

impl From<PartitionCount> for u32 {
    fn from(count: PartitionCount) -> u32 {
        count.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(bucket: &str, key: &'static str) -> ObjectKey {
        ObjectKey::new(bucket.parse().unwrap(), key).unwrap()
    }

    /// An on-disk format: if this fails, the code is wrong, not the test.
    #[test]
    fn tokens_are_frozen() {
        assert_eq!(Token::of(&key("carts", "alice")).to_string(), "78f0c2fdf9d1b2d8");
        assert_eq!(Token::of(&key("b", "k")).to_string(), "458e20e66672eb04");
    }

    #[test]
    fn bucket_and_key_do_not_run_into_each_other() {
        assert_ne!(Token::of(&key("ab", "c")), Token::of(&key("a", "bc")));
    }

    #[test]
    fn the_ring_is_cut_into_equal_slices() {
        let q = PartitionCount::try_from(256).unwrap();
        assert_eq!(q.partition_of(Token(0)), Partition(0));
        assert_eq!(q.partition_of(Token(u64::MAX)), Partition(255));
        assert_eq!(q.partition_of(Token(1 << 56)), Partition(1));
        assert_eq!(q.partition_of(Token((1 << 56) - 1)), Partition(0));
        assert!(PartitionCount::try_from(100).is_err());
    }
}
