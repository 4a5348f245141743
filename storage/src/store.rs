//! The store: what the rest of a node sees of its disk.
//!
//! Reads go straight to the engine, on the caller's thread. Changes of records go through the writer of their shard, which
//! has a thread of its own unless somebody else drives it. Changes of the node's own affairs (runs, layouts) are few, and
//! committed where they are asked for.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use starling_core::clock::Clock;
use starling_core::coordinate::{ObjectLimits, Write};
use starling_core::ids::{DirectoryId, NodeId, Run, RunVerdict};
use starling_core::layout::Layout;
use starling_core::mark::TrustedMarks;
use starling_core::name::{BucketName, ObjectKey};
use starling_core::object::Object;
use starling_core::reaping::RoundsOver;
use starling_core::report::{Refusal, Role};
use starling_core::ring::{Epoch, InvalidDecree, Ring};
use starling_core::token::Partition;
use starling_core::tree::Breadth;
use tokio::sync::{mpsc, oneshot, watch};

use crate::directory::{DataDirectory, Identity};
use crate::engine::{Batch, Engine, EngineError, Space};
use crate::error::StoreError;
use crate::fold::{Confirmed, Minted};
use crate::keys::{self, RecordKey};
use crate::meta::{self, OwnRun};
use crate::reaping::Reapings;
use crate::record::Record;
use crate::settings::InEffect;
use crate::shared::{Met, Shared, lock};
use crate::trees::{self, PartitionTree};
use crate::watchful::Watchful;
use crate::writer::{Change, Job, Writer};

/// What the store may take. Reaching a limit refuses the request at hand; it never drops what is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreLimits {
    /// Applies to clients' writes (R14), where their bucket has no setting of its own.
    pub object: ObjectLimits,
    /// Markers held for one target before copies that stand in for it are refused. A copy that has its marker can still
    /// be updated; one that stands in for another target adds to this one's markers all the same. The two writers do
    /// not see each other's present batch, so up to a batch more can be taken.
    pub hints_per_target: u64,
    /// Jobs waiting for a writer before further ones are refused as overloaded.
    pub queue: usize,
    /// Bytes that stay free on the disk; below them writes are refused.
    pub disk_reserve: u64,
}

impl Default for StoreLimits {
    fn default() -> Self {
        StoreLimits {
            object: ObjectLimits { siblings: 100, bytes: 4 << 20 },
            hints_per_target: 1_000_000,
            queue: 4096,
            disk_reserve: 256 << 20,
        }
    }
}

/// Records of a listing that are in memory at once, values and all.
const RECORDS_AT_ONCE: usize = 16;

/// Number of writers. Two let one fold while the other syncs.
const SHARDS: usize = 2;

/// Whether the store serves. Once it does not, only a restart or an operator can help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    Serving,
    /// A sync failed (R13): a restart finds out what survived.
    Failed {
        reason: String,
    },
    /// This directory turned out to be a copy, or an old state, of one that lived on (R3). For good.
    Retired {
        reason: String,
    },
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Directory(#[from] crate::directory::DirectoryError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(
        "the store says it belongs to node {}, directory {}, and its STARLING file to node {}, directory {}: parts of two directories were mixed",
        found.0, found.1, expected.0, expected.1
    )]
    MixedUp { found: (NodeId, DirectoryId), expected: (NodeId, DirectoryId) },
    #[error("cannot start a writer thread: {0}")]
    Thread(std::io::Error),
}

/// One entry of the hint index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    pub key: ObjectKey,
    pub clock: Clock,
}

/// A key of a bucket, with its object's outline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub key: Bytes,
    pub outline: Object,
}

pub struct Store {
    pub(crate) shared: Arc<Shared>,
    queues: Mutex<Vec<mpsc::Sender<Job>>>,
    /// Closed once no writer is at work any more.
    at_work: watch::Sender<()>,
    damage: watch::Receiver<Option<String>>,
    /// Of the writers that have one.
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Keeps the directory locked.
    _directory: Option<DataDirectory>,
}

impl Store {
    /// Opens the RocksDB store of a data directory, making it if it is new. Each call begins a new run.
    ///
    /// # Errors
    /// [`OpenError`]: nothing was changed, except that an interrupted first start may have been finished.
    #[cfg(feature = "rocksdb")]
    pub fn open_directory(
        path: &std::path::Path,
        name: &starling_core::name::NodeName,
        options: crate::rocks::RocksOptions,
        limits: StoreLimits,
    ) -> Result<Store, OpenError> {
        use crate::directory::{DirectoryError, ToBuild};
        use crate::rocks::{Expect, RocksEngine};
        use crate::salvage::salvage;

        let fresh = (NodeId(rand::random()), DirectoryId(rand::random()));
        let build = |ToBuild { path, identity, heir_of }: ToBuild| -> Result<(), OpenError> {
            let mut engine = RocksEngine::open(&path, Expect::Nothing, options)?;
            if let Some(old) = heir_of {
                match RocksEngine::open(&old, Expect::Store, options).and_then(|old| salvage(&old, &engine)) {
                    Ok(salvaged) => tracing::warn!(?salvaged, "taken over what could be read of a damaged store"),
                    Err(error) => {
                        tracing::error!(%error, "nothing can be taken over of a damaged store; beginning with nothing");
                        drop(engine);
                        let at = |source| DirectoryError::Io { path: path.clone(), source };
                        std::fs::remove_dir_all(&path).map_err(at)?;
                        engine = RocksEngine::open(&path, Expect::Nothing, options)?;
                    }
                }
            }
            Ok(claim(&engine, identity)?)
        };
        let mut directory = DataDirectory::open(path, name, fresh, build)?;
        let engine = RocksEngine::open(&directory.store(), Expect::Store, options)?;
        if let Some((node, _)) = meta::read_identity(&engine)?.filter(|(_, of)| *of == directory.identity().directory) {
            directory.belong_to(node)?;
        }
        let identity = directory.identity().clone();
        let (store, writers) = Store::open(Arc::new(engine), identity, limits, Some(directory))?;
        store.with_threads(writers)
    }

    /// Opens a store over any engine; one that is empty is claimed for `identity`.
    ///
    /// # Errors
    /// [`OpenError`] if the engine fails or belongs to another identity.
    pub fn open_engine(engine: Arc<dyn Engine>, identity: Identity, limits: StoreLimits) -> Result<Store, OpenError> {
        let (store, writers) = Store::open_driven(engine, identity, limits)?;
        store.with_threads(writers)
    }

    /// As [`Store::open_engine`], but starts no thread: a change is carried out only as the writers are driven. Each of
    /// them has its own keys, so all have to be.
    ///
    /// # Errors
    /// As for [`Store::open_engine`].
    pub fn open_driven(
        engine: Arc<dyn Engine>,
        identity: Identity,
        limits: StoreLimits,
    ) -> Result<(Store, Vec<Writer>), OpenError> {
        if meta::read_identity(&*engine)?.is_none() {
            claim(&*engine, &identity)?;
        }
        Store::open(engine, identity, limits, None)
    }

    fn open(
        engine: Arc<dyn Engine>,
        identity: Identity,
        limits: StoreLimits,
        directory: Option<DataDirectory>,
    ) -> Result<(Store, Vec<Writer>), OpenError> {
        let engine = Watchful::new(engine);
        let damage = engine.damage();
        let engine = Arc::new(engine);
        let expected = (identity.node, identity.directory);
        let found = meta::read_identity(&*engine)?.unwrap_or((NodeId(0), DirectoryId(0)));
        if found != expected {
            return Err(OpenError::MixedUp { found, expected });
        }
        let ring = read_ring(&*engine)?;
        let run = OwnRun::next(meta::read_run(&*engine)?, rand::random());
        let mut begin = Batch::default();
        if !meta::has_trees(&*engine)? {
            if let Some(ring) = &ring {
                trees::build(&*engine, ring.read())?;
            }
            meta::write_has_trees(&mut begin);
        }
        meta::write_run(&mut begin, &run);
        engine.commit(begin)?;

        let health = match meta::read_retired(&*engine)? {
            Some(reason) => Health::Retired { reason },
            None => Health::Serving,
        };
        let shared = Arc::new(Shared {
            reapings: ArcSwap::from_pointee(Reapings::read(&*engine, ring.as_ref().map(Ring::epoch))?),
            settings: ArcSwap::from_pointee(InEffect::new(meta::read_settings(&*engine)?)),
            rounds_over: watch::Sender::new(()),
            // Nothing is under way yet.
            adopted: AtomicU64::new(ring.as_ref().map_or(0, |ring| ring.epoch().0)),
            ring: ArcSwapOption::from_pointee(ring),
            deciding: Mutex::new(()),
            batches: (0..SHARDS).map(|_| watch::Sender::new(None)).collect(),
            copied: Mutex::new(meta::read_copied(&*engine)?),
            filling: Mutex::new(meta::read_filling(&*engine)?),
            met: Mutex::new(Met { runs: meta::read_peer_runs(&*engine)?, forked: meta::read_forked(&*engine)? }),
            hints: Mutex::new(count_hints(&*engine)?),
            health: watch::Sender::new(health),
            trusted: Mutex::new(TrustedMarks::OfThisRun),
            engine,
            identity,
            limits,
            run,
        });
        let at_work = watch::Sender::new(());
        let shards = (0..SHARDS).map(|shard| {
            let (sender, queue) = mpsc::channel(limits.queue);
            (sender, Writer::new(Arc::clone(&shared), shard, queue, at_work.subscribe()))
        });
        let (queues, writers) = shards.unzip();
        let (queues, threads) = (Mutex::new(queues), Mutex::default());
        Ok((Store { shared, queues, at_work, damage, threads, _directory: directory }, writers))
    }

    fn with_threads(self, writers: Vec<Writer>) -> Result<Store, OpenError> {
        for (shard, writer) in writers.into_iter().enumerate() {
            let thread = thread::Builder::new().name(format!("writer-{shard}")).spawn(move || writer.run());
            lock(&self.threads).push(thread.map_err(OpenError::Thread)?);
        }
        Ok(self)
    }

    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    pub fn run(&self) -> Run {
        let OwnRun { counter, nonce, .. } = self.shared.run;
        Run { directory: self.shared.identity.directory, counter, nonce }
    }

    pub fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    /// The first damage of the disk that a read has met since the store was opened. It goes on with what can be read.
    pub fn damage(&self) -> watch::Receiver<Option<String>> {
        self.damage.clone()
    }

    /// Applies a client's write to the own copy; returns once it is durable. If the future is dropped, or the deadline
    /// passes, before the writer has taken the write up, it is not done.
    ///
    /// # Errors
    /// [`StoreError`]; only [`StoreError::Unknown`] may have left something.
    pub async fn coordinate(
        &self,
        epoch: Epoch,
        key: ObjectKey,
        write: Write,
        deadline: Option<Instant>,
    ) -> Result<Minted, StoreError> {
        self.ask(epoch, key, |reply| Change::Coordinate { write, deadline, reply }).await
    }

    /// Merges an object that another replica sent, or that was read elsewhere, by somebody who knew so many rounds of its
    /// partition to be over before it was read; returns once it is durable.
    ///
    /// # Errors
    /// [`StoreError`]; only [`StoreError::Unknown`] may have left something.
    pub async fn merge(
        &self,
        epoch: Epoch,
        over: RoundsOver,
        key: ObjectKey,
        object: Object,
        role: Role,
    ) -> Result<(), StoreError> {
        let partition = self.serving_layout()?.partition_of(&key);
        self.learn_rounds_over(epoch, &BTreeMap::from([(partition, over)]));
        self.ask(epoch, key, |reply| Change::Merge { over, object, role, reply }).await
    }

    /// Takes note that the primary `by` holds everything up to `clock` durably, and drops the marker and at last the
    /// copy, if nothing newer is here (R9, R10).
    ///
    /// # Errors
    /// [`StoreError`]; nothing is dropped then, or, after [`StoreError::Unknown`], perhaps.
    pub async fn confirm(
        &self,
        epoch: Epoch,
        key: ObjectKey,
        by: NodeId,
        clock: Clock,
    ) -> Result<Confirmed, StoreError> {
        self.ask(epoch, key, |reply| Change::Confirm { by, clock, reply }).await
    }

    /// Merges an object that this node copies from an old primary of its key; returns once it is durable.
    ///
    /// # Errors
    /// [`StoreError`]; only [`StoreError::Unknown`] may have left something.
    pub async fn copy(&self, epoch: Epoch, key: ObjectKey, object: Object) -> Result<(), StoreError> {
        self.ask(epoch, key, |reply| Change::Copy { object, reply }).await
    }

    /// Sets the markers of what is held under a key by the present ring, if they were set by another. True if any are left
    /// then.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed then, or, after [`StoreError::Unknown`], perhaps.
    pub async fn readdress(&self, epoch: Epoch, key: ObjectKey) -> Result<bool, StoreError> {
        self.ask(epoch, key, |reply| Change::Readdress { reply }).await
    }

    /// What this node holds of a key. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError`] if the store does not serve, or the record is damaged.
    pub fn get(&self, key: &ObjectKey) -> Result<Option<Object>, StoreError> {
        let layout = self.serving_layout()?;
        let record_key = RecordKey::new(layout.partition_of(key), key);
        let bytes = self.shared.engine.get(Space::Objects, record_key.as_bytes())?;
        bytes.map(|bytes| object_in(&bytes)).transpose()
    }

    /// The hash trees of all partitions, over the keys of buckets of at least that breadth. Reading it blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the store does not serve.
    pub fn tree(&self, least: Breadth) -> Result<PartitionTree<'_>, StoreError> {
        self.serving_layout()?;
        Ok(PartitionTree::new(&*self.shared.engine, least))
    }

    /// Up to `limit` keys of a bucket in a partition that start with `prefix` and come after `after`, ascending, deleted
    /// ones included. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError`] if the store does not serve, or a record is damaged: a listing that passed it over would claim that
    /// there is nothing.
    pub fn list(
        &self,
        partition: Partition,
        bucket: &BucketName,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        self.serving_layout()?;
        let start = keys::bucket_start(partition, bucket);
        let first = [&start, prefix].concat();
        let end = keys::after_prefix(&first);
        let resume = after.map(|after| keys::next_after(&[start.as_slice(), after].concat()));
        let mut from = resume.filter(|resume| *resume > first).unwrap_or(first);
        let mut listed = Vec::new();
        while listed.len() < limit {
            let wanted = RECORDS_AT_ONCE.min(limit - listed.len());
            let found = self.shared.engine.scan(Space::Objects, &from, end.as_deref(), wanted)?;
            let Some((last, _)) = found.last() else { break };
            from = keys::next_after(last);
            for (key, value) in found {
                listed.push(Listed { key: key.slice(start.len()..), outline: object_in(&value)?.outline() });
            }
        }
        Ok(listed)
    }

    /// Up to `limit` buckets that have records in a partition, deleted ones included, one seek each. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError`] if the store does not serve, or is damaged.
    pub fn buckets(&self, partition: Partition, limit: usize) -> Result<Vec<BucketName>, StoreError> {
        self.serving_layout()?;
        let start = keys::type_start(partition);
        let end = keys::after_prefix(&start);
        let mut from = start;
        let mut buckets = Vec::new();
        while buckets.len() < limit {
            let found = self.shared.engine.scan(Space::Objects, &from, end.as_deref(), 1)?;
            let Some((key, _)) = found.first() else { break };
            let misplaced = || StoreError::Damaged("a record lies under a key that names no object".to_owned());
            let object = keys::object_of(key).ok_or_else(misplaced)?;
            let Some(next) = keys::after_prefix(&keys::bucket_start(partition, object.bucket())) else { break };
            buckets.push(object.bucket().clone());
            from = next;
        }
        Ok(buckets)
    }

    /// Whether any marker is held for this target.
    pub fn holds_hints_for(&self, target: NodeId) -> bool {
        lock(&self.shared.hints).contains_key(&target)
    }

    /// How many markers are held for each target.
    pub fn hints(&self) -> BTreeMap<NodeId, u64> {
        self.shared.hints()
    }

    /// Up to `limit` hints for a target, in the order of their keys, from behind `after`; fewer only if there are no
    /// more. A hint whose record cannot be read is passed over, for the others' sake. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError`] if the store does not serve.
    pub fn hints_for(&self, target: NodeId, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<Hint>, StoreError> {
        let layout = self.serving_layout()?;
        let start = keys::hints_start(target);
        let end = keys::after_prefix(&start);
        let behind = |key: &ObjectKey| RecordKey::new(layout.partition_of(key), key).hint_for(target);
        let mut from = after.map_or_else(|| start.to_vec(), |key| keys::next_after(&behind(key)));
        let mut hints = Vec::new();
        while hints.len() < limit {
            let found = self.shared.engine.scan(Space::Hints, &from, end.as_deref(), limit - hints.len())?;
            let Some((last, _)) = found.last() else { break };
            from = keys::next_after(last);
            let records: Vec<RecordKey> =
                found.iter().filter_map(|(key, _)| keys::split_hint(key)).map(|(_, record)| record).collect();
            self.read_hints(&records, &mut hints)?;
        }
        Ok(hints)
    }

    /// Judges a peer's run and records a newer one durably before it returns. A verdict is a vote, and what a failed or
    /// retired store remembers is no ground for one (R3, R13).
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if it could not be recorded, [`StoreError::Refused`] if the store does not serve.
    pub fn meet(&self, run: &Run) -> Result<RunVerdict, StoreError> {
        self.check_health()?;
        let mut met = lock(&self.shared.met);
        let known = met.runs.get(&run.directory).copied();
        if met.forked.contains(&run.directory) && known.as_ref() != Some(run) {
            return Ok(RunVerdict::OldCopy);
        }
        let verdict = run.judge(known.as_ref());
        let is_fork = verdict == RunVerdict::OldCopy && known.is_some_and(|known| run.is_of_another_line(&known));
        if verdict == RunVerdict::Newer {
            self.record(|batch| meta::write_peer_run(batch, run))?;
            met.runs.insert(run.directory, *run);
        } else if is_fork {
            self.record(|batch| meta::write_forked(batch, run.directory))?;
            met.forked.insert(run.directory);
        }
        Ok(verdict)
    }

    pub(crate) fn record(&self, write: impl FnOnce(&mut Batch)) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        write(&mut batch);
        self.shared.commit(batch).map_err(|_| StoreError::Unknown)
    }

    /// The last run of a directory that was met.
    pub fn remembered(&self, directory: DirectoryId) -> Option<Run> {
        lock(&self.shared.met).runs.get(&directory).copied()
    }

    /// From now on the marks of earlier runs are continued, as far back as every stop was clean. To be called once a
    /// majority of peers has recorded this run and none remembers an equal or higher one.
    pub fn trust_marks(&self) {
        *lock(&self.shared.trusted) = TrustedMarks::Since(self.shared.run.clean_since);
    }

    /// Stops serving for good: this directory is an old copy or was copied.
    pub fn retire(&self, reason: &str) {
        self.shared.retire(reason);
    }

    /// Approximate bytes used on disk.
    pub fn used_bytes(&self) -> u64 {
        self.shared.engine.used_bytes()
    }

    /// Bytes free on the disk, if that can be known.
    pub fn free_bytes(&self) -> Option<u64> {
        self.shared.engine.free_bytes()
    }

    /// Takes no more changes, and waits until the writers have carried out what is queued: the part of closing that needs
    /// whoever drives them.
    pub async fn drain(&self) {
        lock(&self.queues).clear();
        self.at_work.closed().await;
    }

    /// Carries out what is queued, takes nothing more, and marks the stop as clean. Blocks until then. Writers that are
    /// driven have to be drained before ([`Store::drain`]): a stop with one still at work is not a clean one.
    pub fn close(&self) {
        self.stop_threads();
        if self.at_work.is_closed() && self.shared.check_health().is_ok() {
            let mut batch = Batch::default();
            meta::write_run(&mut batch, &OwnRun { stopped_cleanly: true, ..self.shared.run });
            // If this fails, the next start finds an unclean stop, which is safe.
            drop(self.shared.commit(batch));
        }
    }

    /// One after another: together their values might not fit into memory.
    fn read_hints(&self, records: &[RecordKey], hints: &mut Vec<Hint>) -> Result<(), StoreError> {
        for record in records {
            let value = self.shared.engine.get(Space::Objects, record.as_bytes())?;
            // A marker and its record go in one batch; between the two reads both may have gone.
            let (Some(key), Some(value)) = (keys::object_of(record.as_bytes()), value) else { continue };
            match object_in(&value) {
                Ok(object) => hints.push(Hint { key, clock: object.clock().clone() }),
                Err(error) => {
                    tracing::error!(%error, "a hint cannot be handed off");
                    tracing::debug!(?key, "the key of that hint");
                }
            }
        }
        Ok(())
    }

    pub(crate) async fn ask<T>(
        &self,
        epoch: Epoch,
        key: ObjectKey,
        change: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Change,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let layout = self.serving_layout()?;
        let shard = usize::from(layout.partition_of(&key).0) % SHARDS;
        let queue = lock(&self.queues).get(shard).cloned().ok_or(StoreError::Refused(Refusal::Stopping))?;
        queue.try_send(Job { epoch, key, change: change(reply) }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::Refused(Refusal::Overloaded),
            mpsc::error::TrySendError::Closed(_) => StoreError::Refused(Refusal::Stopping),
        })?;
        drop(queue);
        answer.await.unwrap_or(Err(StoreError::Unknown))
    }

    /// Lets the writers finish what is queued and waits for the end of those that have a thread.
    fn stop_threads(&self) {
        lock(&self.queues).clear();
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            // A panic has ended the store's health already.
            drop(thread.join());
        }
    }

    pub(crate) fn check_health(&self) -> Result<(), StoreError> {
        self.shared.check_health().map_err(StoreError::Refused)
    }

    pub(crate) fn serving_layout(&self) -> Result<Arc<Layout>, StoreError> {
        self.check_health()?;
        self.layout().ok_or(StoreError::Refused(Refusal::NotAMember))
    }
}

impl Drop for Store {
    /// Not a clean stop. But no writer outlives the lock of the directory; nobody waits for what is queued any more, so
    /// this takes as long as the batch under way.
    fn drop(&mut self) {
        self.stop_threads();
    }
}

fn claim(engine: &dyn Engine, identity: &Identity) -> Result<(), EngineError> {
    let mut batch = Batch::default();
    meta::write_identity(&mut batch, identity.node, identity.directory);
    meta::write_has_trees(&mut batch);
    engine.commit(batch)
}

fn count_hints(engine: &dyn Engine) -> Result<BTreeMap<NodeId, u64>, EngineError> {
    const PAGE: usize = 10_000;
    let mut counts = BTreeMap::new();
    let mut from: Vec<u8> = Vec::new();
    loop {
        let page = engine.scan(Space::Hints, &from, None, PAGE)?;
        for (target, _) in page.iter().filter_map(|(key, _)| keys::split_hint(key)) {
            *counts.entry(target).or_insert(0) += 1;
        }
        let Some((last, _)) = page.last() else { return Ok(counts) };
        from = keys::next_after(last);
    }
}

pub(crate) fn object_in(bytes: &[u8]) -> Result<Object, StoreError> {
    let unreadable = |error| StoreError::Damaged(format!("a record cannot be read: {error}"));
    Ok(Record::decode(bytes).map_err(unreadable)?.object)
}

/// What the log comes to.
pub(crate) fn read_ring(engine: &dyn Engine) -> Result<Option<Ring>, EngineError> {
    let damaged = |error: InvalidDecree| EngineError::Damaged(format!("the layout log contradicts itself: {error}"));
    let Some(first) = meta::read_first_layout(engine)? else { return Ok(None) };
    let first = Ring::first(first).map_err(damaged)?;
    let entries = meta::read_entries(engine, first.epoch(), usize::MAX)?;
    entries.iter().try_fold(first, |ring, entry| ring.after(entry)).map(Some).map_err(damaged)
}
