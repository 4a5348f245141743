//! The in-memory engine: a model of a disk with a log. What was synced survives a crash; of what was not, a crash keeps
//! a prefix that the test chooses, as a real disk would.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::engine::{Batch, Change, Engine, EngineError, Entry, Space};

/// The disk below an engine. Outlives it, as a disk outlives a process.
#[derive(Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    synced: BTreeMap<(Space, Vec<u8>), Bytes>,
    /// Appended to the log, not synced.
    tail: Vec<Batch>,
    failing_syncs: usize,
    free_bytes: Option<u64>,
    /// Engines opened before the last crash are dead.
    incarnation: u64,
}

impl MemoryDisk {
    /// The next `count` syncs fail; their batches stay in the log's tail.
    pub fn fail_syncs(&self, count: usize) {
        self.lock().failing_syncs = count;
    }

    pub fn set_free_bytes(&self, bytes: u64) {
        self.lock().free_bytes = Some(bytes);
    }

    /// Cuts the power: engines opened so far are dead, and of the unsynced batches the first `survivors` are kept.
    pub fn crash(&self, survivors: usize) {
        let mut state = self.lock();
        state.incarnation += 1;
        state.failing_syncs = 0;
        let tail = std::mem::take(&mut state.tail);
        for batch in tail.into_iter().take(survivors) {
            state.apply(batch);
        }
    }

    /// A copy of what is synced: an old copy of a directory, once the original has moved on.
    pub fn copy(&self) -> MemoryDisk {
        let synced = self.lock().synced.clone();
        MemoryDisk(Arc::new(Mutex::new(State { synced, ..State::default() })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn apply(&mut self, batch: Batch) {
        for Change { space, key, value } in batch.changes() {
            match value {
                Some(value) => self.synced.insert((*space, key.clone()), value.clone()),
                None => self.synced.remove(&(*space, key.clone())),
            };
        }
    }
}

pub struct MemoryEngine {
    disk: MemoryDisk,
    incarnation: u64,
}

impl MemoryEngine {
    pub fn open(disk: MemoryDisk) -> MemoryEngine {
        let incarnation = disk.lock().incarnation;
        MemoryEngine { disk, incarnation }
    }

    fn state(&self) -> Result<MutexGuard<'_, State>, EngineError> {
        let state = self.disk.lock();
        if state.incarnation == self.incarnation {
            Ok(state)
        } else {
            Err(EngineError::Io("the machine has crashed".to_owned()))
        }
    }
}

impl Engine for MemoryEngine {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.state()?.synced.get(&(space, key.to_vec())).cloned())
    }

    fn get_many(&self, space: Space, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        let state = self.state()?;
        Ok(keys.iter().map(|key| state.synced.get(&(space, key.to_vec())).cloned()).collect())
    }

    fn scan(&self, space: Space, from: &[u8], until: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>, EngineError> {
        if until.is_some_and(|until| until <= from) {
            return Ok(Vec::new());
        }
        let end = until.map_or(Bound::Unbounded, |until| Bound::Excluded((space, until.to_vec())));
        let state = self.state()?;
        let range = state.synced.range((Bound::Included((space, from.to_vec())), end));
        let in_space = range.take_while(|((found, _), _)| *found == space);
        Ok(in_space.take(limit).map(|((_, key), value)| (Bytes::copy_from_slice(key), value.clone())).collect())
    }

    fn commit(&self, batch: Batch) -> Result<(), EngineError> {
        let mut state = self.state()?;
        if !state.tail.is_empty() {
            return Err(EngineError::NotDurable("an earlier sync has failed".to_owned()));
        }
        if state.failing_syncs > 0 {
            state.failing_syncs -= 1;
            state.tail.push(batch);
            return Err(EngineError::NotDurable("the sync has failed".to_owned()));
        }
        state.apply(batch);
        Ok(())
    }

    fn free_bytes(&self) -> Option<u64> {
        self.disk.lock().free_bytes
    }

    fn used_bytes(&self) -> u64 {
        let size = |((_, key), value): (&(Space, Vec<u8>), &Bytes)| (key.len() + value.len()) as u64;
        self.disk.lock().synced.iter().map(size).sum()
    }
}
