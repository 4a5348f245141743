//! The order of keys on disk. A format: it never changes without a new directory format.
//!
//! A record's key is the partition (16 bits, big-endian), the bucket type and the bucket, each ended by a zero byte
//! (names hold none), then the key's own bytes. So a partition is one range, and a prefix of a bucket within it is one
//! bounded seek. A hint's key is its target's node id (64 bits, big-endian), then the record's key.

use bytes::Bytes;
use starling_core::ids::NodeId;
use starling_core::name::{BucketName, ObjectKey};
use starling_core::token::{DEFAULT_BUCKET_TYPE, Partition};

const END: u8 = 0;

/// The key under which a record is stored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RecordKey(Vec<u8>);

impl RecordKey {
    pub fn new(partition: Partition, key: &ObjectKey) -> RecordKey {
        let mut bytes = bucket_start(partition, key.bucket());
        bytes.extend_from_slice(key.key());
        RecordKey(bytes)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn partition(&self) -> Partition {
        partition_of(&self.0).expect("it begins with its partition")
    }

    /// The name of the object that this key was made of.
    pub fn object(&self) -> ObjectKey {
        object_of(&self.0).expect("it was made of a name")
    }

    /// All but the partition.
    pub fn behind_partition(&self) -> &[u8] {
        &self.0[2..]
    }

    pub fn hint_for(&self, target: NodeId) -> Vec<u8> {
        let mut bytes = hints_start(target).to_vec();
        bytes.extend_from_slice(&self.0);
        bytes
    }
}

/// The first key that a bucket can have in a partition.
pub(crate) fn bucket_start(partition: Partition, bucket: &BucketName) -> Vec<u8> {
    let mut bytes = type_start(partition);
    bytes.extend_from_slice(bucket.as_str().as_bytes());
    bytes.push(END);
    bytes
}

/// The first key of a partition's default bucket type.
pub(crate) fn type_start(partition: Partition) -> Vec<u8> {
    let mut bytes = partition.0.to_be_bytes().to_vec();
    bytes.extend_from_slice(DEFAULT_BUCKET_TYPE.as_bytes());
    bytes.push(END);
    bytes
}

pub(crate) fn hints_start(target: NodeId) -> [u8; 8] {
    target.0.to_be_bytes()
}

/// Splits a hint's key into its target and the record's key.
pub(crate) fn split_hint(bytes: &[u8]) -> Option<(NodeId, RecordKey)> {
    let (target, record) = bytes.split_first_chunk::<8>()?;
    Some((NodeId(u64::from_be_bytes(*target)), RecordKey(record.to_vec())))
}

/// The key of a record, if these bytes are one.
pub(crate) fn record_key(bytes: &[u8]) -> Option<RecordKey> {
    object_of(bytes).map(|_name| RecordKey(bytes.to_vec()))
}

/// The partition that a record's key lies in.
pub(crate) fn partition_of(bytes: &[u8]) -> Option<Partition> {
    bytes.first_chunk::<2>().map(|partition| Partition(u16::from_be_bytes(*partition)))
}

/// The name of the object that a record's key was made of.
pub(crate) fn object_of(bytes: &[u8]) -> Option<ObjectKey> {
    let (_partition, rest) = bytes.split_first_chunk::<2>()?;
    let (_bucket_type, rest) = split_at_end(rest)?;
    let (bucket, key) = split_at_end(rest)?;
    let bucket: BucketName = std::str::from_utf8(bucket).ok()?.parse().ok()?;
    ObjectKey::new(bucket, Bytes::copy_from_slice(key)).ok()
}

/// The smallest key above this one.
pub(crate) fn next_after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// The smallest key above all that start with `prefix`; none if there is no such key.
pub(crate) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut above = prefix[..=last].to_vec();
    above[last] += 1;
    Some(above)
}

fn split_at_end(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == END)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(bucket: &str, key: &'static [u8]) -> ObjectKey {
        ObjectKey::new(bucket.parse().unwrap(), key).unwrap()
    }

    /// An on-disk format: if this fails, the code is wrong, not the test.
    #[test]
    fn record_and_hint_keys_are_frozen() {
        let record = RecordKey::new(Partition(0x0102), &key("b", b"\0k"));
        assert_eq!(record.as_bytes(), b"\x01\x02default\0b\0\0k");
        assert_eq!(record.hint_for(NodeId(3)), b"\0\0\0\0\0\0\0\x03\x01\x02default\0b\0\0k");
    }

    #[test]
    fn names_come_back_out_of_keys() {
        let object = key("carts", b"a\0b\xff");
        let record = RecordKey::new(Partition(7), &object);
        assert_eq!((object_of(record.as_bytes()), partition_of(record.as_bytes())), (Some(object), Some(Partition(7))));
        assert_eq!(split_hint(&record.hint_for(NodeId(9))), Some((NodeId(9), record)));
        assert_eq!(split_hint(b"short"), None);
    }

    #[test]
    fn a_bucket_does_not_reach_into_one_with_a_longer_name() {
        let of_short = RecordKey::new(Partition(1), &key("a", b"\xff\xff"));
        assert!(of_short.as_bytes() < bucket_start(Partition(1), &"ab".parse().unwrap()).as_slice());
        assert_eq!(after_prefix(b"a\xff"), Some(b"b".to_vec()));
        assert_eq!(after_prefix(b"\xff\xff"), None);
    }
}
