//! By a new ring what this node holds for others is owed to others (R10): markers are set anew, of copies that stand in for
//! somebody, and of those that it holds of partitions that have moved away. Handoff does the rest: a copy goes once every
//! current primary has confirmed that it has it.
//!
//! Where a bucket has another number of replicas now, the leaves of its keys are put where they belong in the hash trees.
//!
//! Nothing is remembered of how far this has come: it begins again at a start, and passes over what is right already.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use starling_core::name::{BucketName, ObjectKey};
use starling_core::report::Failure;
use starling_core::ring::{Phase, Ring};
use starling_core::token::Partition;
use starling_core::tree::Breadth;

use crate::coordinator::own_failure;
use crate::node::Node;

/// Keys that are looked at together.
const PAGE: usize = 256;
/// Changes under way at once, so that they share syncs.
const AT_ONCE: usize = 64;
/// Before what has failed is tried again.
const INTERVAL: Duration = Duration::from_secs(1);

impl Node {
    /// Sets markers anew at the start and whenever the ring has changed, for as long as the node runs.
    pub async fn readdress(self: Arc<Self>) {
        let mut rings = self.ring.subscribe();
        loop {
            let ring = rings.borrow_and_update().clone();
            let done = match ring {
                Some(ring) => self.readdress_by(&ring).await,
                None => Ok(()),
            };
            if let Err(failure) = &done {
                tracing::debug!(%failure, "setting markers anew is put off");
            }
            tokio::select! {
                () = self.stopping.cancelled() => return,
                Ok(()) = rings.changed() => {}
                () = tokio::time::sleep(INTERVAL), if done.is_err() => {}
            }
        }
    }

    async fn readdress_by(&self, ring: &Ring) -> Result<(), Failure> {
        for target in self.store.hints().into_keys() {
            let mut after: Option<ObjectKey> = None;
            loop {
                let from = after.clone();
                let page = self.read_store(move |store| store.hints_for(target, from.as_ref(), PAGE)).await;
                let keys: Vec<ObjectKey> = page.map_err(own_failure)?.into_iter().map(|hint| hint.key).collect();
                let Some(last) = keys.last() else { break };
                after = Some(last.clone());
                self.readdress_keys(ring, keys).await?;
            }
        }
        // Before that, who was a primary is still one.
        if ring.phase() == Phase::Settled {
            for partition in ring.read().partitions().all() {
                match self.readdress_partition(ring, partition).await {
                    // The others are not to suffer for it.
                    Err(Failure::Refused(refusal)) if refusal.concerns_the_object() => {
                        tracing::error!(%partition, "what is held of a partition cannot be read, and stays where it is");
                    }
                    readdressed => readdressed?,
                }
            }
            self.move_leaves(ring).await?;
        }
        Ok(())
    }

    /// Keys of buckets that have another number of replicas now have their leaves elsewhere in the hash trees, also where
    /// they stay.
    async fn move_leaves(&self, ring: &Ring) -> Result<(), Failure> {
        let layout = ring.read();
        let now: BTreeMap<BucketName, Breadth> =
            layout.buckets().keys().map(|bucket| (bucket.clone(), Breadth::of(bucket, layout))).collect();
        let noted = self.read_store(|store| store.breadths()).await.map_err(own_failure)?;
        let of =
            |breadths: &BTreeMap<BucketName, Breadth>, bucket| breadths.get(bucket).copied().unwrap_or(Breadth::ANY);
        let all: BTreeSet<&BucketName> = now.keys().chain(noted.keys()).collect();
        for bucket in all.into_iter().filter(|bucket| of(&now, bucket) != of(&noted, bucket)) {
            for partition in layout.partitions().all() {
                self.move_leaves_of(ring, partition, bucket).await?;
            }
        }
        if now != noted {
            self.change_store(move |store| store.note_breadths(&now)).await.map_err(own_failure)?;
        }
        Ok(())
    }

    async fn move_leaves_of(&self, ring: &Ring, partition: Partition, bucket: &BucketName) -> Result<(), Failure> {
        let mut after: Option<Bytes> = None;
        loop {
            let (of, from) = (bucket.clone(), after.clone());
            let listed = self.read_store(move |store| store.list(partition, &of, &[], from.as_deref(), PAGE)).await;
            let listed = listed.map_err(own_failure)?;
            let Some(last) = listed.last() else { return Ok(()) };
            after = Some(last.key.clone());
            let keys = listed.into_iter().filter_map(|listed| ObjectKey::new(bucket.clone(), listed.key).ok());
            self.readdress_keys(ring, keys.collect()).await?;
        }
    }

    async fn readdress_partition(&self, ring: &Ring, partition: Partition) -> Result<(), Failure> {
        if ring.is_primary_of_all(self.id(), partition) {
            return Ok(());
        }
        let mut after: Option<ObjectKey> = None;
        loop {
            let from = after.clone();
            let keys = self.read_store(move |store| store.keys_in(partition, from.as_ref(), PAGE)).await;
            let keys = keys.map_err(own_failure)?;
            let Some(last) = keys.last() else { return Ok(()) };
            after = Some(last.clone());
            let foreign = keys.into_iter().filter(|key| !ring.primaries(key).contains(self.id())).collect();
            self.readdress_keys(ring, foreign).await?;
        }
    }

    async fn readdress_keys(&self, ring: &Ring, keys: Vec<ObjectKey>) -> Result<(), Failure> {
        let readdress = |key| async {
            match self.store.readdress(ring.epoch(), key).await.map_err(own_failure) {
                // The others are not to suffer for it.
                Err(Failure::Refused(refusal)) if refusal.concerns_the_object() => Ok(()),
                readdressed => readdressed.map(drop),
            }
        };
        stream::iter(keys).map(readdress).buffer_unordered(AT_ONCE).try_collect().await
    }
}
