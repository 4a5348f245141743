//! An engine between the store and the real one, at which a test can hold the writer up, make a sync fail, or panic.
//! Holding is how a test knows what shares a batch, without sleeping.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use starling_core::clock::Clock;
use starling_core::name::ObjectKey;
use starling_storage::engine::Entry;
use starling_storage::{Batch, Confirmed, Engine, EngineError, Space, Store, StoreError};

use super::{EPOCH, Queued, US, queue};

/// Where a writer is held up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// It has taken its jobs and is about to read the records.
    Read,
    /// It has folded the jobs and is about to make them durable.
    Commit,
}

/// What a failed sync leaves on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Lost,
    Kept,
}

pub struct Gate {
    inner: Arc<dyn Engine>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    held: Option<Point>,
    waiting: usize,
    /// Counts the openings: whoever waits, waits for the next one.
    openings: usize,
    commits: usize,
    next_fails: Option<Fate>,
    has_failed: bool,
    next_read_panics: bool,
}

impl Gate {
    pub fn before(inner: Arc<dyn Engine>) -> Arc<Gate> {
        Arc::new(Gate { inner, state: Mutex::default(), changed: Condvar::new() })
    }

    pub fn close(&self, at: Point) {
        self.state().held = Some(at);
    }

    pub fn open(&self) {
        let mut state = self.state();
        state.held = None;
        state.openings += 1;
        self.changed.notify_all();
    }

    /// Lets everybody through but those who wait already.
    pub fn let_others_pass(&self) {
        self.state().held = None;
    }

    /// Returns once a writer stands before the gate.
    pub fn wait_for_a_writer(&self) {
        let state = self.state();
        drop(self.changed.wait_while(state, |state| state.waiting == 0).unwrap());
    }

    /// Number of batches committed so far.
    pub fn commits(&self) -> usize {
        self.state().commits
    }

    /// The next commit fails, and as the trait demands all later ones do.
    pub fn fail_the_next_sync(&self, fate: Fate) {
        self.state().next_fails = Some(fate);
    }

    pub fn panic_at_the_next_read(&self) {
        self.state().next_read_panics = true;
    }

    /// Holds up the writer of this key's partition, empty-handed. Whatever is queued for that partition before the
    /// answer shares one batch.
    pub fn hold_writer_of<'a>(&'a self, store: &'a Store, key: &ObjectKey) -> HeldWriter<'a> {
        self.close(Point::Read);
        // We never owe ourselves a confirmation, so this changes nothing.
        let errand = queue(store.confirm(EPOCH, key.clone(), US, Clock::default()));
        self.wait_for_a_writer();
        HeldWriter { gate: self, errand }
    }

    fn pass(&self, point: Point) -> MutexGuard<'_, State> {
        let mut state = self.state();
        if state.held == Some(point) {
            state.waiting += 1;
            self.changed.notify_all();
            let before = state.openings;
            state = self.changed.wait_while(state, |state| state.openings == before).unwrap();
            state.waiting -= 1;
        }
        state
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A writer that stands before the gate.
pub struct HeldWriter<'a> {
    gate: &'a Gate,
    errand: Queued<'a, Result<Confirmed, StoreError>>,
}

impl HeldWriter<'_> {
    pub fn let_go(self) {
        self.gate.open();
        assert_eq!(self.errand.wait(), Ok(Confirmed::NothingHeld));
    }
}

impl Engine for Gate {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.inner.get(space, key)
    }

    fn get_many(&self, space: Space, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        let mut state = self.pass(Point::Read);
        if std::mem::take(&mut state.next_read_panics) {
            drop(state);
            panic!("a test asked for this panic");
        }
        drop(state);
        self.inner.get_many(space, keys)
    }

    fn scan(&self, space: Space, from: &[u8], until: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>, EngineError> {
        self.inner.scan(space, from, until, limit)
    }

    fn commit(&self, batch: Batch) -> Result<(), EngineError> {
        let mut state = self.pass(Point::Commit);
        if let Some(fate) = state.next_fails.take() {
            state.has_failed = true;
            if fate == Fate::Kept {
                self.inner.commit(batch)?;
            }
            return Err(EngineError::NotDurable("the sync has failed".to_owned()));
        }
        if state.has_failed {
            return Err(EngineError::NotDurable("an earlier sync has failed".to_owned()));
        }
        state.commits += 1;
        drop(state);
        self.inner.commit(batch)
    }

    fn free_bytes(&self) -> Option<u64> {
        self.inner.free_bytes()
    }

    fn used_bytes(&self) -> u64 {
        self.inner.used_bytes()
    }
}
