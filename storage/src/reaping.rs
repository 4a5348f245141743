//! The store's part in reaping (R11): the rounds that this node is bound by, and those that are over.
//!
//! A round binds once it is durable and every writer sees it: [`Store::bind`] makes both so, and only then are keys looked at
//! ([`Store::weigh`]), by the writers, so that nothing comes in between. The end is the other way round: first it is durable
//! that the round is over, so that nothing older is taken any more, then tombstones are deleted ([`Store::forget`]), and at
//! last what binds goes ([`Store::unbind`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use starling_core::name::ObjectKey;
use starling_core::object::Object;
use starling_core::reaping::{Bound, Expired, Fences, Round, RoundId, RoundsOver, Standing};
use starling_core::report::Refusal;
use starling_core::ring::Epoch;
use starling_core::stamp::Stamp;
use starling_core::token::Partition;
use starling_core::wall::WallTime;
use tokio::sync::watch;

use crate::engine::{Engine, EngineError};
use crate::error::StoreError;
use crate::meta;
use crate::shared::lock;
use crate::store::Store;
use crate::trees;
use crate::writer::{Change, Reap};

/// Rounds that a node is bound by at once. Each has a partition of its own.
const MOST_BOUND: usize = 256;

/// What the writers go by. Both in one, so that none sees that nothing binds any more before that the round is over.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reapings {
    pub bound: BTreeMap<Partition, Arc<Bound>>,
    pub fences: Arc<Fences>,
    /// Of each partition the last round that has bound this node and does not any more.
    pub last: BTreeMap<Partition, RoundId>,
}

impl Reapings {
    pub fn read(engine: &dyn Engine, epoch: Option<Epoch>) -> Result<Reapings, EngineError> {
        let bound = meta::read_bound(engine)?;
        let last = meta::read_last_rounds(engine)?.into_iter().map(|id| (id.partition, id)).collect();
        let mut fences = Fences::default();
        for (of, partition, over) in meta::read_rounds_over(engine)? {
            if Some(of) == epoch {
                fences.learn(of, partition, over);
            }
        }
        let bound = bound.into_iter().map(|bound| (bound.round.id.partition, Arc::new(bound))).collect();
        Ok(Reapings { bound, fences: Arc::new(fences), last })
    }

    /// The number of the last round of an epoch that has bound this node and does not any more; 0 without one.
    fn last(&self, epoch: Epoch, partition: Partition) -> u64 {
        self.last.get(&partition).filter(|id| id.epoch == epoch).map_or(0, |id| id.number)
    }

    /// What to behave as if it were held, where nothing is.
    pub fn guard(&self, epoch: Epoch, partition: Partition, key: impl FnOnce() -> ObjectKey) -> Option<&Object> {
        self.bound.get(&partition)?.guard(epoch, &key())
    }
}

impl Store {
    /// How many rounds of a partition this node knows to be over in an epoch. To be asked before anything is read that is
    /// to be sent.
    pub fn rounds_over(&self, epoch: Epoch, partition: Partition) -> RoundsOver {
        self.shared.reapings.load().fences.over(epoch, partition)
    }

    /// The round of a partition that comes next, if this node leads it.
    pub fn next_round(&self, epoch: Epoch, partition: Partition) -> RoundId {
        let reapings = self.shared.reapings.load();
        RoundId::next(epoch, partition, reapings.fences.over(epoch, partition), reapings.last(epoch, partition))
    }

    /// The same of all partitions.
    pub fn fences(&self) -> Arc<Fences> {
        Arc::clone(&self.shared.reapings.load().fences)
    }

    /// Wakes whenever more rounds are known to be over.
    pub fn rounds_over_news(&self) -> watch::Receiver<()> {
        self.shared.rounds_over.subscribe()
    }

    /// Somebody knows so many rounds to be over. Nothing older is taken any more from now on; true if it was news.
    pub fn learn_rounds_over(&self, epoch: Epoch, over: &BTreeMap<Partition, RoundsOver>) -> bool {
        let present = self.shared.reapings.load();
        if over.iter().all(|(partition, over)| *over <= present.fences.over(epoch, *partition)) {
            return false;
        }
        if self.ring().is_none_or(|ring| ring.epoch() != epoch) {
            return false;
        }
        self.change_reapings(|reapings| {
            let fences = Arc::make_mut(&mut reapings.fences);
            for (partition, over) in over {
                fences.learn(epoch, *partition, *over);
            }
        });
        self.shared.rounds_over.send_replace(());
        true
    }

    /// The rounds that this node is bound by, some of them of earlier epochs, which bind no more.
    pub fn bound(&self) -> Vec<Arc<Bound>> {
        self.shared.reapings.load().bound.values().cloned().collect()
    }

    /// Is bound by a round, durably. Blocks on the disk.
    ///
    /// # Errors
    /// [`Refusal::OtherLayout`] in another epoch, [`Refusal::Reaped`] if the round is over or called off,
    /// [`Refusal::Overloaded`] if too many bind already, another one of the partition among them; [`StoreError::Unknown`] if
    /// it could not be made durable.
    pub fn bind(&self, round: &Round) -> Result<(), StoreError> {
        let _one_at_a_time = lock(&self.shared.deciding);
        self.check_health()?;
        let id = round.id;
        if self.ring().is_none_or(|ring| ring.epoch() != id.epoch) {
            return Err(StoreError::Refused(Refusal::OtherLayout));
        }
        let reapings = self.shared.reapings.load();
        let of_partition = reapings.bound.get(&id.partition).map(|bound| bound.round.id);
        if of_partition == Some(id) {
            return Ok(());
        }
        let over = reapings.fences.over(id.epoch, id.partition);
        if over.0.max(reapings.last(id.epoch, id.partition)) >= id.number {
            return Err(StoreError::Refused(Refusal::Reaped));
        }
        // Also by one of an earlier epoch: it has marked keys that have to be put back before it is forgotten.
        if of_partition.is_some() || reapings.bound.len() >= MOST_BOUND {
            return Err(StoreError::Refused(Refusal::Overloaded));
        }
        drop(reapings);
        self.put_bound(Bound::by(round.clone()))
    }

    /// Decides what a round that this node leads ends with. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError`] if that could not be made durable; [`Refusal::Reaped`] if the round does not bind any more.
    pub fn decide_ending(&self, id: RoundId, keys: &BTreeSet<ObjectKey>) -> Result<(), StoreError> {
        let _one_at_a_time = lock(&self.shared.deciding);
        self.check_health()?;
        let bound = self.shared.reapings.load().bound.get(&id.partition).cloned();
        let bound = bound.filter(|bound| bound.round.id == id).ok_or(StoreError::Refused(Refusal::Reaped))?;
        if bound.ending.is_some() {
            return Ok(());
        }
        self.put_bound(Bound { ending: Some(keys.clone()), round: bound.round.clone() })
    }

    /// Takes note that a round is over: nothing older is taken from now on, nor after a restart. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError`] if that could not be made durable, or if this node is in another epoch.
    pub fn note_over(&self, id: RoundId) -> Result<(), StoreError> {
        let _one_at_a_time = lock(&self.shared.deciding);
        self.check_health()?;
        if self.ring().is_none_or(|ring| ring.epoch() != id.epoch) {
            return Err(StoreError::Refused(Refusal::OtherLayout));
        }
        let over = self.rounds_over(id.epoch, id.partition).max(id.over());
        self.record(|batch| meta::write_rounds_over(batch, id.epoch, id.partition, over))?;
        self.change_reapings(|reapings| {
            Arc::make_mut(&mut reapings.fences).learn(id.epoch, id.partition, id.over());
        });
        self.shared.rounds_over.send_replace(());
        Ok(())
    }

    /// Is not bound by that round any more, and never again, also if it never was: a round can be called off before everybody
    /// has heard of it. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError`] if that could not be made durable.
    pub fn unbind(&self, id: RoundId) -> Result<(), StoreError> {
        let _one_at_a_time = lock(&self.shared.deciding);
        self.check_health()?;
        let reapings = self.shared.reapings.load();
        let binds = reapings.bound.get(&id.partition).is_some_and(|bound| bound.round.id == id);
        let is_last = reapings.last.get(&id.partition).is_none_or(|last| *last < id);
        if binds || is_last {
            self.record(|batch| {
                if binds {
                    meta::delete_bound(batch, id.partition);
                }
                if is_last {
                    meta::write_last_round(batch, id);
                }
            })?;
            self.change_reapings(|reapings| {
                reapings.bound.retain(|_, bound| bound.round.id != id);
                let last = reapings.last.entry(id.partition).or_insert(id);
                *last = id.max(*last);
            });
        }
        Ok(())
    }

    /// Whether this node agrees that a tombstone may go, or what has expired by then, by a round that binds it.
    ///
    /// # Errors
    /// [`StoreError`] if what is held cannot be told.
    pub async fn weigh(
        &self,
        epoch: Epoch,
        key: ObjectKey,
        standing: Standing,
        tombstone: Object,
        expired: Expired,
    ) -> Result<bool, StoreError> {
        let step = Reap::Weigh { standing, tombstone, expired };
        self.ask(epoch, key, |reply| Change::Reap { step, reply }).await
    }

    /// Marks a tombstone as reaped, or what has expired by then, if it is all that is held of the key; false if it is not.
    ///
    /// # Errors
    /// [`StoreError`]; it may be marked all the same then, which does no harm.
    pub async fn mark(
        &self,
        id: RoundId,
        key: ObjectKey,
        tombstone: Object,
        expired: Expired,
    ) -> Result<bool, StoreError> {
        self.ask(id.epoch, key, |reply| Change::Reap { step: Reap::Mark { id, tombstone, expired }, reply }).await
    }

    /// Deletes what that round has marked, if nothing was written since; true if it has.
    ///
    /// # Errors
    /// [`StoreError`]; it may be deleted all the same then.
    pub async fn forget(&self, id: RoundId, key: ObjectKey) -> Result<bool, StoreError> {
        self.ask(id.epoch, key, |reply| Change::Reap { step: Reap::Forget { id }, reply }).await
    }

    /// Puts back what that round, which may be of an earlier epoch, has marked; true if it has.
    ///
    /// # Errors
    /// [`StoreError`]; it may be put back all the same then.
    pub async fn put_back(&self, epoch: Epoch, id: RoundId, key: ObjectKey) -> Result<bool, StoreError> {
        self.ask(epoch, key, |reply| Change::Reap { step: Reap::PutBack { id }, reply }).await
    }

    /// Up to `limit` tombstones of a partition behind `after`, each with the stamp of the last write of it. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError`] if the store does not serve, or is damaged.
    pub fn tombstones(
        &self,
        partition: Partition,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<Vec<(ObjectKey, Stamp)>, StoreError> {
        self.check_health()?;
        trees::tombstones(&*self.shared.engine, partition, after, limit)
    }

    /// Up to `limit` objects of a partition of which nothing stays, whose last value has expired by then, in the order of
    /// that and behind `after`. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError`] if the store does not serve, or is damaged.
    pub fn expired(
        &self,
        partition: Partition,
        by: WallTime,
        after: Option<&(WallTime, ObjectKey)>,
        limit: usize,
    ) -> Result<Vec<(WallTime, ObjectKey)>, StoreError> {
        self.check_health()?;
        trees::expired(&*self.shared.engine, partition, by, after, limit)
    }

    /// Whether nothing of any key is held. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError`] if the store does not serve, or is damaged.
    pub fn is_empty(&self) -> Result<bool, StoreError> {
        self.check_health()?;
        Ok(self.shared.engine.scan(crate::engine::Space::Objects, &[], None, 1)?.is_empty())
    }

    fn put_bound(&self, bound: Bound) -> Result<(), StoreError> {
        self.record(|batch| meta::write_bound(batch, &bound))?;
        let bound = Arc::new(bound);
        self.change_reapings(|reapings| {
            reapings.bound.insert(bound.round.id.partition, Arc::clone(&bound));
        });
        Ok(())
    }

    /// Never waits: what others have learnt meanwhile is kept.
    fn change_reapings(&self, change: impl Fn(&mut Reapings)) {
        self.shared.reapings.rcu(|present| {
            let mut next = Reapings::clone(present);
            change(&mut next);
            next
        });
    }
}
