//! Anti-entropy (Dynamo, section 4.7): primaries of the same partition compare their hash trees, again and again, and what
//! one has and the other lacks is merged on both sides. So replicas become equal whatever was lost on the way: hints that
//! could not be taken, repairs that were given up, a disk that went back in time.
//!
//! Of two nodes one asks, of each partition; which of them is decided by their ids and the partition, so that both ask
//! about equally often. Partitions that are equal cost a sum each. What differs moves within the budget of handoff, and
//! waits while many requests are under way, for a while: clients come first, and are not waited for without an end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use starling_core::fault::{self, Fault};
use starling_core::ids::NodeId;
use starling_core::name::{BucketName, ObjectKey};
use starling_core::object::Object;
use starling_core::reaping::RoundsOver;
use starling_core::report::{Failure, Role};
use starling_core::ring::{Epoch, Ring};
use starling_core::token::Partition;
use starling_core::tree::{Answer, Branch, Breadth, Comparison, Difference, Fingerprint, Pairs};
use starling_proto::hello::Class;
use starling_proto::peer::{MOST_BRANCHES, Store};
use starling_storage::StoreError;

use crate::comparing::{Comparing, KEYS_AT_ONCE};
use crate::coordinator::own_failure;
use crate::link::{Link, fits_a_frame, new_trace};
use crate::node::Node;

/// Objects that are merged at once, so that they share syncs.
const OBJECTS_AT_ONCE: usize = 16;
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// So many requests under way are let pass first.
const MANY_REQUESTS: usize = 16;
/// For this long at the most, each time.
const MOST_PATIENCE: Duration = Duration::from_secs(1);
const GLANCE: Duration = Duration::from_millis(10);

/// What is to be compared, and how far that is.
#[derive(Default)]
pub struct Errand {
    /// Only differences in this bucket are of interest.
    pub bucket: Option<BucketName>,
    pub compared: AtomicU64,
    pub differences: AtomicU64,
    /// Of those, objects that stay as they are: too large to be sent, or not readable on one side.
    pub passed_over: AtomicU64,
}

impl Errand {
    fn concerns(&self, key: &ObjectKey) -> bool {
        self.bucket.as_ref().is_none_or(|bucket| key.bucket() == bucket)
    }
}

/// When this node has last compared a partition with a peer from end to end.
#[derive(Default)]
pub struct Comparisons(Mutex<BTreeMap<(Partition, NodeId), Instant>>);

impl Comparisons {
    fn note(&self, partition: Partition, peer: NodeId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((partition, peer), Instant::now());
    }

    /// Those are to be compared from now on; others are forgotten.
    fn keep(&self, pairs: &Pairs) {
        let is_due = |partition: &Partition, peer: &NodeId| {
            pairs.get(peer).is_some_and(|partitions| partitions.iter().any(|(due, _)| due == partition))
        };
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.retain(|(partition, peer), _| is_due(partition, peer));
        for (peer, partitions) in pairs {
            for (partition, _) in partitions {
                noted.entry((*partition, *peer)).or_insert_with(Instant::now);
            }
        }
    }

    /// How long the comparison is overdue that has waited longest: since it was last done, or first had to be. None if
    /// there is nothing to compare.
    pub fn oldest(&self) -> Option<Duration> {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.values().min().map(Instant::elapsed)
    }
}

impl Node {
    /// Compares this node's partitions with their other primaries, for as long as the node runs.
    pub async fn compare_replicas(self: Arc<Self>) {
        while !self.stopping.is_cancelled() {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = tokio::time::sleep(self.config.anti_entropy_interval) => {}
            }
            let Ok(ring) = self.serving_ring() else { continue };
            if fault::is_on(Fault::NeverCompare) {
                continue;
            }
            let pairs = ring.read().compared_by(self.id());
            self.comparisons.keep(&pairs);
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = self.compare_round(&ring, pairs) => {}
            }
        }
    }

    async fn compare_round(&self, ring: &Ring, pairs: Pairs) {
        for (peer, partitions) in pairs.into_iter().filter(|(peer, _)| self.view().is_alive(*peer)) {
            if let Err(failure) = self.compare_with(peer, &partitions, ring, &Errand::default()).await {
                tracing::debug!(%peer, %failure, "comparing is put off");
                self.heed_failure(peer, failure);
            }
        }
    }

    /// Compares partitions with a peer, one after another.
    ///
    /// # Errors
    /// Why that cannot be done to the end.
    pub async fn compare_with(
        &self,
        peer: NodeId,
        partitions: &[(Partition, Breadth)],
        ring: &Ring,
        errand: &Errand,
    ) -> Result<(), Failure> {
        let link = self.peers.get(peer, Class::Bulk).ok_or(Failure::Unreachable)?;
        let mut damaged = Ok(());
        for some in partitions.chunks(MOST_BRANCHES) {
            let before = errand.compared.load(Ordering::Relaxed);
            match self.compare_some(&link, some, ring, errand).await {
                // One of them cannot be read. The others are not to suffer for it.
                Err(Failure::Refused(refusal)) if refusal.concerns_the_object() => {
                    errand.compared.store(before, Ordering::Relaxed);
                    for one in some.chunks(1) {
                        match self.compare_some(&link, one, ring, errand).await {
                            Err(failure @ Failure::Refused(refusal)) if refusal.concerns_the_object() => {
                                tracing::error!(%peer, partition = %one[0].0, %failure, "a partition cannot be compared");
                                damaged = Err(failure);
                            }
                            compared => compared?,
                        }
                    }
                }
                compared => compared?,
            }
        }
        damaged
    }

    async fn compare_some(
        &self,
        link: &Link,
        partitions: &[(Partition, Breadth)],
        ring: &Ring,
        errand: &Errand,
    ) -> Result<(), Failure> {
        self.let_requests_pass().await;
        let roots = partitions.iter().map(|(partition, least)| (Branch::root(*partition), *least)).collect();
        for (root, least, answer) in self.exchange(link, ring.epoch(), roots).await? {
            if answer != Answer::Same {
                self.counters.partitions_differing.add(1);
                self.make_equal(link, ring, (root, least), answer, errand).await?;
            }
            errand.compared.fetch_add(1, Ordering::Relaxed);
            self.counters.partitions_compared.add(1);
            self.comparisons.note(root.partition, link.node);
        }
        Ok(())
    }

    /// Follows what differs down the tree, and has both sides hold it.
    async fn make_equal(
        &self,
        link: &Link,
        ring: &Ring,
        (root, least): (Branch, Breadth),
        answer: Answer,
        errand: &Errand,
    ) -> Result<(), Failure> {
        let mut comparison = Comparison::of(root.partition);
        // The root is answered already.
        comparison.next(1);
        let mut comparing = Comparing::new(self, link, comparison, least);
        let mut differences = Some(comparing.hear(ring.epoch(), vec![(root, answer)]).await?);
        while let Some(mut found) = differences {
            found.retain(|difference| errand.concerns(&difference.key) && self.concerns_both(link, ring, difference));
            errand.differences.fetch_add(found.len() as u64, Ordering::Relaxed);
            for some in found.chunks(KEYS_AT_ONCE) {
                self.let_requests_pass().await;
                self.settle_differences(link, ring, some, errand).await?;
            }
            self.let_requests_pass().await;
            differences = comparing.step(ring.epoch()).await?;
        }
        Ok(())
    }

    /// What is held for others is none of the peer's business, and the other way round.
    fn concerns_both(&self, link: &Link, ring: &Ring, difference: &Difference) -> bool {
        let primaries = ring.primaries(&difference.key);
        primaries.read().contains(&self.id()) && primaries.read().contains(&link.node)
    }

    async fn settle_differences(
        &self,
        link: &Link,
        ring: &Ring,
        found: &[Difference],
        errand: &Errand,
    ) -> Result<(), Failure> {
        let note = |is_settled: bool| {
            errand.passed_over.fetch_add(u64::from(!is_settled), Ordering::Relaxed);
            std::future::ready(Ok(()))
        };
        let theirs = found.iter().filter(|difference| difference.theirs.is_some());
        let mut wanted: Vec<ObjectKey> = theirs.map(|difference| difference.key.clone()).collect();
        while !wanted.is_empty() {
            let over = self.rounds_over(ring.epoch(), &wanted[0]).map_err(own_failure)?;
            let (objects, looked_at) = match self.fetch(link, ring.epoch(), wanted.clone()).await {
                // The first of them cannot be given. The others are not to suffer for it.
                Err(Failure::Refused(refusal)) if refusal.concerns_the_object() => {
                    errand.passed_over.fetch_add(1, Ordering::Relaxed);
                    (Vec::new(), 1)
                }
                fetched => fetched?,
            };
            wanted.drain(..looked_at);
            let merge = |(key, object)| self.take_repaired(ring.epoch(), over, key, object);
            stream::iter(objects).map(merge).buffer_unordered(OBJECTS_AT_ONCE).try_for_each(note).await?;
        }
        let ours = found.iter().filter(|difference| difference.own.is_some());
        let send = |difference: &Difference| self.send_repaired(link, ring.epoch(), difference.clone());
        let sent = stream::iter(ours.map(send).collect::<Vec<_>>()).buffer_unordered(OBJECTS_AT_ONCE);
        sent.try_for_each(note).await
    }

    /// Merges what a peer has of a key, read when so many rounds of reaping were over; false if what is here of it cannot be
    /// read.
    pub(crate) async fn take_repaired(
        &self,
        epoch: Epoch,
        over: RoundsOver,
        key: ObjectKey,
        object: Object,
    ) -> Result<bool, Failure> {
        match self.store.merge(epoch, over, key, object, Role::Primary).await {
            Ok(()) => {
                self.counters.objects_repaired.add(1);
                Ok(true)
            }
            Err(StoreError::Damaged(reason)) => {
                tracing::error!(reason, "cannot merge what a peer has of a key");
                Ok(false)
            }
            Err(StoreError::Refused(refusal)) if refusal.concerns_the_object() => Ok(false),
            Err(error) => Err(own_failure(error)),
        }
    }

    /// Sends what this node holds of a key, unless the peer turned out to hold all of it; false if it cannot be sent, or taken.
    async fn send_repaired(&self, link: &Link, epoch: Epoch, difference: Difference) -> Result<bool, Failure> {
        let Difference { key, theirs, .. } = difference;
        let over = self.rounds_over(epoch, &key).map_err(own_failure)?;
        let asked = key.clone();
        let held = match self.read_store(move |store| store.get(&asked)).await {
            Err(StoreError::Damaged(reason)) => {
                tracing::error!(reason, "cannot read what a peer lacks of a key");
                return Ok(false);
            }
            held => held.map_err(own_failure)?,
        };
        let Some(object) = held.filter(|object| Some(Fingerprint::of(object.clock())) != theirs) else {
            return Ok(true);
        };
        if !fits_a_frame(&key, &object) {
            return Ok(false);
        }
        self.handoff.wait_for(object.value_bytes()).await;
        let store = Store { epoch, key, object, role: Role::Primary };
        match link.store(store, over, new_trace(), CALL_LIMIT).await {
            Ok(()) => {
                self.counters.objects_repaired.add(1);
                Ok(true)
            }
            // The others are not to suffer for it.
            Err(Failure::Refused(refusal)) if refusal.concerns_the_object() => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// While many requests are under way, waits for a while.
    pub(crate) async fn let_requests_pass(&self) {
        let began = Instant::now();
        let under_way = || self.config.max_requests.saturating_sub(self.requests.available_permits());
        while under_way() >= MANY_REQUESTS && began.elapsed() < MOST_PATIENCE {
            tokio::time::sleep(GLANCE).await;
        }
    }
}
