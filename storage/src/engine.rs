//! The engine: a small, synchronous, ordered key-value store with atomic durable batches.
//!
//! Two implementations: [`crate::RocksEngine`], and [`crate::MemoryEngine`], which models the log, the sync, and what a
//! crash loses. One conformance suite runs on both.

use std::path::PathBuf;

use bytes::Bytes;

/// A key space of its own order. Batches span them atomically.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// The node's own affairs: runs, peers' runs, layouts.
    Meta,
    /// Records, by partition, bucket, key.
    Objects,
    /// An index of hint markers, by target.
    Hints,
    /// Hash trees over the records, by partition and position.
    Trees,
}

impl Space {
    pub const ALL: [Space; 4] = [Space::Meta, Space::Objects, Space::Hints, Space::Trees];

    pub fn name(self) -> &'static str {
        match self {
            Space::Meta => "meta",
            Space::Objects => "objects",
            Space::Hints => "hints",
            Space::Trees => "trees",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("reading or writing the store failed: {0}")]
    Io(String),
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// A commit failed: whether its batch survives is known only after a restart. The engine takes no more.
    #[error("a commit could not be made durable: {0}")]
    NotDurable(String),
    #[error("cannot open the store in {path}: {reason}")]
    Open { path: PathBuf, reason: String },
}

/// Changes that happen together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    changes: Vec<Change>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub space: Space,
    pub key: Vec<u8>,
    /// The new value; none deletes.
    pub value: Option<Bytes>,
}

impl Batch {
    pub fn put(&mut self, space: Space, key: impl Into<Vec<u8>>, value: impl Into<Bytes>) {
        self.changes.push(Change { space, key: key.into(), value: Some(value.into()) });
    }

    pub fn delete(&mut self, space: Space, key: impl Into<Vec<u8>>) {
        self.changes.push(Change { space, key: key.into(), value: None });
    }

    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// A key and its value.
pub type Entry = (Bytes, Bytes);

pub trait Engine: Send + Sync + 'static {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// The values of `keys`, in their order.
    fn get_many(&self, space: Space, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError>;

    /// At most `limit` entries from `from` on, below `until` (to the end of the space without it), ascending.
    fn scan(&self, space: Space, from: &[u8], until: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>, EngineError>;

    /// Returns when the batch is synced. Nothing of it is visible to a read before that (R4).
    ///
    /// # Errors
    /// [`EngineError::NotDurable`]: the batch may or may not be there after a restart, and no commit succeeds until then.
    fn commit(&self, batch: Batch) -> Result<(), EngineError>;

    /// Bytes free on the disk below, if that can be known.
    fn free_bytes(&self) -> Option<u64>;

    /// Approximate bytes used on disk.
    fn used_bytes(&self) -> u64;
}
