//! The in-memory engine: a model of a disk with a log. What was synced survives a crash; of what was not, a crash keeps
//! a prefix that the test chooses, as a real disk would.
//!
//! A commit appends its batch to the log and syncs it. Whoever wants time to pass between the two, in which a crash can
//! fall, appends the batch first ([`MemoryDisk::append`]) and commits it later. A sync covers the whole log before it:
//! what others have appended survives a crash from then on, and is read all the same only once its own commit returns.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use starling_core::fault::{self, Fault};

use crate::engine::{Batch, Change, Engine, EngineError, Entry, Space};

/// The disk below an engine. Outlives it, as a disk outlives a process.
#[derive(Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<State>>);

/// Is told of every batch that has become durable.
pub type Observer = Arc<dyn Fn(&Batch) + Send + Sync>;

type Contents = BTreeMap<(Space, Vec<u8>), Bytes>;

#[derive(Default)]
struct State {
    /// What reads see: every batch that was committed, in the order of the log.
    contents: Contents,
    /// The end of the log, from the first batch that is not committed.
    tail: Vec<Logged>,
    /// So many batches of the tail are synced: its beginning.
    synced: usize,
    failing_syncs: usize,
    /// A sync has failed. Nothing is taken behind it.
    has_failed: bool,
    free_bytes: Option<u64>,
    /// What cannot be read any more.
    rotten: BTreeSet<(Space, Vec<u8>)>,
    /// Engines opened before the last crash are dead.
    incarnation: u64,
    observer: Option<Observer>,
}

/// A batch in the log's tail.
struct Logged {
    batch: Arc<Batch>,
    committed: bool,
}

impl MemoryDisk {
    /// Puts a batch at the end of the log, unsynced and invisible to reads. A later commit of an equal batch does not
    /// append it anew.
    pub fn append(&self, batch: Batch) {
        self.lock().append(batch);
    }

    /// Number of batches in the log that a crash may lose.
    pub fn unsynced(&self) -> usize {
        let state = self.lock();
        state.tail.len() - state.synced
    }

    /// The next `count` syncs fail; their batches stay in the log's tail, and the engine takes no more.
    pub fn fail_syncs(&self, count: usize) {
        self.lock().failing_syncs = count;
    }

    /// From now on this entry cannot be read, whatever is written to it.
    pub fn rot(&self, space: Space, key: impl Into<Vec<u8>>) {
        self.lock().rotten.insert((space, key.into()));
    }

    /// Some entry cannot be read.
    pub fn is_damaged(&self) -> bool {
        !self.lock().rotten.is_empty()
    }

    pub fn set_free_bytes(&self, bytes: u64) {
        self.lock().free_bytes = Some(bytes);
    }

    /// From now on `observer` is called with each batch that has become durable, by a sync or because it survived a
    /// crash, in the order of the log. It may look at the disk.
    pub fn observe(&self, observer: Observer) {
        self.lock().observer = Some(observer);
    }

    /// Cuts the power: engines opened so far are dead, and of the unsynced batches the first `survivors` are kept.
    pub fn crash(&self, survivors: usize) {
        let mut state = self.lock();
        state.incarnation += 1;
        state.failing_syncs = 0;
        state.has_failed = false;
        let kept = state.synced.saturating_add(survivors);
        state.tail.truncate(kept);
        let left = state.tail.len();
        let durable = state.sync(left);
        state.contents = state.durable();
        state.tail.clear();
        state.synced = 0;
        observe(state, &durable);
    }

    /// A copy of what is synced: an old copy of a directory, once the original has moved on.
    pub fn copy(&self) -> MemoryDisk {
        let contents = self.lock().durable();
        MemoryDisk(Arc::new(Mutex::new(State { contents, ..State::default() })))
    }

    /// Replaces everything by what is synced on another disk, as an operator does who plays back an old copy. Engines
    /// opened so far are dead.
    pub fn restore(&self, from: &MemoryDisk) {
        let contents = from.lock().durable();
        let mut state = self.lock();
        let State { free_bytes, incarnation, observer, .. } = std::mem::take(&mut *state);
        *state = State { contents, free_bytes, incarnation: incarnation + 1, observer, ..State::default() };
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the observer, no longer under the disk's lock.
fn observe(state: MutexGuard<'_, State>, durable: &[Arc<Batch>]) {
    let observer = state.observer.clone();
    drop(state);
    if let Some(observer) = observer {
        durable.iter().for_each(|batch| observer(batch));
    }
}

impl State {
    /// Makes a batch durable and shows it to reads. Returns what has become durable by that.
    fn commit(&mut self, batch: Batch) -> Result<Vec<Arc<Batch>>, EngineError> {
        if self.has_failed {
            return Err(EngineError::NotDurable("an earlier sync has failed".to_owned()));
        }
        let waiting = self.tail.iter().position(|logged| !logged.committed && *logged.batch == batch);
        let at = waiting.unwrap_or_else(|| self.append(batch));
        if self.failing_syncs > 0 {
            self.failing_syncs -= 1;
            self.has_failed = true;
            return Err(EngineError::NotDurable("the sync has failed".to_owned()));
        }
        let durable = self.sync(at + 1);
        self.show(at);
        Ok(durable)
    }

    /// Returns the batch's place in the tail.
    fn append(&mut self, batch: Batch) -> usize {
        self.tail.push(Logged { batch: Arc::new(batch), committed: false });
        self.tail.len() - 1
    }

    /// Syncs the first `count` batches of the tail. Returns those that were not synced before.
    fn sync(&mut self, count: usize) -> Vec<Arc<Batch>> {
        let before = self.synced;
        self.synced = count.max(before);
        self.tail[before..self.synced].iter().map(|logged| Arc::clone(&logged.batch)).collect()
    }

    /// Lets reads see a batch of the tail. What was committed before it and lies behind it in the log goes over it, as it
    /// will when the log is replayed.
    fn show(&mut self, at: usize) {
        self.tail[at].committed = true;
        let committed = self.tail[at..].iter().filter(|logged| logged.committed);
        committed.for_each(|logged| apply(&mut self.contents, &logged.batch));
        let done = self.tail.iter().take_while(|logged| logged.committed).count();
        self.tail.drain(..done);
        self.synced -= done;
    }

    /// What a read would find that did not wait for syncs.
    fn unsynced(&self, space: Space, key: &[u8]) -> Option<Bytes> {
        let changes = self.tail.iter().rev().flat_map(|logged| logged.batch.changes());
        let newest = changes.into_iter().find(|change| change.space == space && change.key == key);
        newest.map_or_else(|| self.contents.get(&(space, key.to_vec())).cloned(), |change| change.value.clone())
    }

    fn check(&self, space: Space, key: &[u8]) -> Result<(), EngineError> {
        if !self.rotten.is_empty() && self.rotten.contains(&(space, key.to_vec())) {
            return Err(EngineError::Damaged(format!("an entry of {} does not match its checksum", space.name())));
        }
        Ok(())
    }

    /// What a crash would leave at least.
    fn durable(&self) -> Contents {
        let mut contents = self.contents.clone();
        self.tail[..self.synced].iter().for_each(|logged| apply(&mut contents, &logged.batch));
        contents
    }
}

fn apply(contents: &mut Contents, batch: &Batch) {
    for Change { space, key, value } in batch.changes() {
        match value {
            Some(value) => contents.insert((*space, key.clone()), value.clone()),
            None => contents.remove(&(*space, key.clone())),
        };
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
        let state = self.state()?;
        state.check(space, key)?;
        if fault::is_on(Fault::ReadBeforeSync) {
            return Ok(state.unsynced(space, key));
        }
        Ok(state.contents.get(&(space, key.to_vec())).cloned())
    }

    fn get_many(&self, space: Space, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        let state = self.state()?;
        let get = |key: &&[u8]| {
            state.check(space, key)?;
            Ok(state.contents.get(&(space, key.to_vec())).cloned())
        };
        keys.iter().map(get).collect()
    }

    fn scan(&self, space: Space, from: &[u8], until: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>, EngineError> {
        if until.is_some_and(|until| until <= from) {
            return Ok(Vec::new());
        }
        let end = until.map_or(Bound::Unbounded, |until| Bound::Excluded((space, until.to_vec())));
        let state = self.state()?;
        let range = state.contents.range((Bound::Included((space, from.to_vec())), end));
        let in_space = range.take_while(|((found, _), _)| *found == space);
        let entry = |((_, key), value): (&(Space, Vec<u8>), &Bytes)| {
            state.check(space, key)?;
            Ok((Bytes::copy_from_slice(key), value.clone()))
        };
        in_space.take(limit).map(entry).collect()
    }

    fn commit(&self, batch: Batch) -> Result<(), EngineError> {
        let mut state = self.state()?;
        let durable = state.commit(batch)?;
        observe(state, &durable);
        Ok(())
    }

    fn free_bytes(&self) -> Option<u64> {
        self.disk.lock().free_bytes
    }

    fn used_bytes(&self) -> u64 {
        let size = |((_, key), value): (&(Space, Vec<u8>), &Bytes)| (key.len() + value.len()) as u64;
        self.disk.lock().contents.iter().map(size).sum()
    }
}
