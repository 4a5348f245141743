//! An engine whose damage is noticed, whoever meets it: a read for a client, for a peer, for the writer, or for a check.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::engine::{Batch, Engine, EngineError, Entry, Space};

/// Passes everything on, and remembers the first damage that a read has met.
pub(crate) struct Watchful {
    engine: Arc<dyn Engine>,
    damage: watch::Sender<Option<String>>,
}

impl Watchful {
    pub fn new(engine: Arc<dyn Engine>) -> Watchful {
        Watchful { engine, damage: watch::Sender::new(None) }
    }

    pub fn damage(&self) -> watch::Receiver<Option<String>> {
        self.damage.subscribe()
    }

    fn look_at<T>(&self, read: Result<T, EngineError>) -> Result<T, EngineError> {
        if let Err(EngineError::Damaged(reason)) = &read {
            self.damage.send_if_modified(|known| {
                let is_first = known.is_none();
                known.get_or_insert_with(|| reason.clone());
                is_first
            });
        }
        read
    }
}

impl Engine for Watchful {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.look_at(self.engine.get(space, key))
    }

    fn get_many(&self, space: Space, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        self.look_at(self.engine.get_many(space, keys))
    }

    fn scan(&self, space: Space, from: &[u8], until: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>, EngineError> {
        self.look_at(self.engine.scan(space, from, until, limit))
    }

    fn commit(&self, batch: Batch) -> Result<(), EngineError> {
        self.engine.commit(batch)
    }

    fn free_bytes(&self) -> Option<u64> {
        self.engine.free_bytes()
    }

    fn used_bytes(&self) -> u64 {
        self.engine.used_bytes()
    }
}
