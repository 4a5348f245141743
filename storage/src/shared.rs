//! What the store's handle and its writers share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use starling_core::filling::Filling;
use starling_core::ids::{DirectoryId, NodeId, Run};
use starling_core::layout::LayoutVersion;
use starling_core::mark::{Minter, TrustedMarks};
use starling_core::report::Refusal;
use starling_core::ring::{Epoch, Ring};
use tokio::sync::watch;

use crate::directory::Identity;
use crate::engine::{Batch, Engine, EngineError};
use crate::meta::{self, OwnRun};
use crate::reaping::Reapings;
use crate::settings::InEffect;
use crate::store::{Health, StoreLimits};

/// What is remembered of other directories (R3).
pub(crate) struct Met {
    /// The last start of each.
    pub runs: BTreeMap<DirectoryId, Run>,
    /// Those that were copied, and went on in two lines: a later start may be of either.
    pub forked: BTreeSet<DirectoryId>,
}

/// What the writers share with the store's handle.
pub(crate) struct Shared {
    pub engine: Arc<dyn Engine>,
    pub identity: Identity,
    pub limits: StoreLimits,
    pub run: OwnRun,
    pub trusted: Mutex<TrustedMarks>,
    pub ring: ArcSwapOption<Ring>,
    /// Held while the log, a vote, whose directory this is, what it lacks, what binds it, or a setting changes.
    pub deciding: Mutex<()>,
    /// In which epoch each writer works out a batch, or makes one durable.
    pub batches: Vec<watch::Sender<Option<Epoch>>>,
    /// The newest epoch of which it is known that no batch of an earlier one is under way.
    pub adopted: AtomicU64,
    pub copied: Mutex<Option<LayoutVersion>>,
    /// What this directory lacks, if it has come in the place of one that was lost (R8).
    pub filling: Mutex<Filling>,
    /// What binds this node, and what it does not take any more (R11). What binds is changed while `deciding` is held.
    pub reapings: ArcSwap<Reapings>,
    /// What is set of buckets. Changed while `deciding` is held.
    pub settings: ArcSwap<InEffect>,
    /// Changes whenever more rounds are known to be over.
    pub rounds_over: watch::Sender<()>,
    pub met: Mutex<Met>,
    pub hints: Mutex<BTreeMap<NodeId, u64>>,
    pub health: watch::Sender<Health>,
}

impl Shared {
    pub fn ring(&self) -> Option<Arc<Ring>> {
        self.ring.load_full()
    }

    /// The ring by which a writer works out a batch, from now until [`Shared::end_batch`].
    pub fn begin_batch(&self, shard: usize) -> Option<Arc<Ring>> {
        loop {
            let ring = self.ring()?;
            self.batches[shard].send_replace(Some(ring.epoch()));
            // Whoever adopts another ring either sees this batch, or is seen here.
            if self.ring().is_some_and(|now| now.epoch() == ring.epoch()) {
                return Some(ring);
            }
        }
    }

    pub fn end_batch(&self, shard: usize) {
        self.batches[shard].send_replace(None);
    }

    /// Returns once no batch of an epoch before this one is under way.
    pub async fn batches_before_are_over(&self, epoch: Epoch) {
        for batch in &self.batches {
            let is_later = |under_way: &Option<Epoch>| under_way.is_none_or(|of| of >= epoch);
            // The sender lives as long as this does.
            drop(batch.subscribe().wait_for(is_later).await);
        }
    }

    pub fn hints(&self) -> BTreeMap<NodeId, u64> {
        lock(&self.hints).clone()
    }

    pub fn minter(&self) -> Minter {
        let trusted = *lock(&self.trusted);
        Minter { directory: self.identity.directory, run: self.run.counter, trusted }
    }

    pub fn disk_is_full(&self) -> bool {
        self.engine.free_bytes().is_some_and(|free| free < self.limits.disk_reserve)
    }

    pub fn check_health(&self) -> Result<(), Refusal> {
        match *self.health.borrow() {
            Health::Serving => Ok(()),
            Health::Failed { .. } => Err(Refusal::StorageFailed),
            Health::Retired { .. } => Err(Refusal::NotAMember),
        }
    }

    /// Commits a batch; if that fails the store has ended.
    pub fn commit(&self, batch: Batch) -> Result<(), EngineError> {
        self.engine.commit(batch).inspect_err(|error| self.fail(&error.to_string()))
    }

    pub fn count_hints(&self, changed: &BTreeMap<NodeId, i64>) {
        let mut hints = lock(&self.hints);
        for (target, change) in changed {
            let count = hints.entry(*target).or_insert(0);
            *count = count.saturating_add_signed(*change);
        }
        hints.retain(|_, count| *count > 0);
    }

    pub fn retire(&self, reason: &str) {
        // Every peer says it, again and again.
        if matches!(*self.health.borrow(), Health::Retired { .. }) {
            return;
        }
        tracing::error!(reason, directory = %self.identity.directory, "this directory is retired; the node stops serving");
        let mut batch = Batch::default();
        meta::write_retired(&mut batch, reason);
        // Whether or not it can be recorded, this process serves no more.
        drop(self.engine.commit(batch));
        self.health.send_replace(Health::Retired { reason: reason.to_owned() });
    }

    pub fn fail(&self, reason: &str) {
        tracing::error!(reason, "the store has failed; the node stops serving until it is restarted");
        self.health.send_if_modified(|health| {
            // A retired directory stays retired: no restart will help it.
            let served = *health == Health::Serving;
            if served {
                *health = Health::Failed { reason: reason.to_owned() };
            }
            served
        });
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere cannot leave these values half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
