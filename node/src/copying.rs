//! Copying what this node is about to become a primary of (R16).
//!
//! Each partition is copied from each of its old primaries, page by page, in the order of keys. What has come is durable
//! before it is noted how far a pull is, so a copy that is cut short on either side goes on where it was. A page counts
//! only if its source was in this node's epoch when it read it; another epoch of the same change is as good.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use starling_core::codec;
use starling_core::fault::{self, Fault};
use starling_core::ids::NodeId;
use starling_core::layout::LayoutVersion;
use starling_core::name::ObjectKey;
use starling_core::object::Object;
use starling_core::report::{Failure, Refusal};
use starling_core::ring::{Epoch, Phase};
use starling_core::token::Partition;
use starling_core::transition::Pull;
use starling_proto::connection::MAX_FRAME_BYTES;
use starling_proto::hello::Class;
use starling_proto::peer::{PeerError, PeerServiceClient, PullPage, PulledPage};
use starling_storage::{Pulled, StoreError};
use xxhash_rust::xxh3::xxh3_64;

use crate::coordinator::own_failure;
use crate::link::{as_failure, new_trace};
use crate::node::Node;

/// Partitions that are copied at once.
const AT_ONCE: usize = 4;
/// Objects of a page that are taken in at once, so that they share syncs.
const OBJECTS_AT_ONCE: usize = 64;
const PAGE_BYTES: usize = 1 << 20;
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Before what has failed is tried again.
const INTERVAL: Duration = Duration::from_millis(500);

/// Of one partition: each with the key up to which it has come.
type Pulls = Vec<(Pull, Option<ObjectKey>)>;

impl Node {
    /// Copies what has to be copied, for as long as the node runs.
    pub async fn copy_what_is_gained(self: Arc<Self>) {
        let mut rings = self.ring.subscribe();
        loop {
            rings.mark_unchanged();
            let copied = self.copy_for_the_coming_layout().await;
            if let Err(failure) = &copied {
                tracing::debug!(%failure, "copying is put off");
            }
            tokio::select! {
                () = self.stopping.cancelled() => return,
                Ok(()) = rings.changed() => {}
                () = tokio::time::sleep(INTERVAL), if copied.is_err() => {}
            }
        }
    }

    /// Pulls that are done, and how many there are to do.
    pub async fn pulls_done(&self) -> (usize, usize) {
        let Some(ring) = self.store.ring() else { return (0, 0) };
        let (wanted, version) = (ring.pulls_of(self.id()), ring.newest().version());
        if self.store.progress().is_ok_and(|progress| progress.copied == Some(version)) {
            return (wanted.len(), wanted.len());
        }
        let begun = self.read_store(move |store| store.pulls(version)).await.unwrap_or_default();
        (begun.values().filter(|pulled| **pulled == Pulled::All).count(), wanted.len())
    }

    async fn copy_for_the_coming_layout(&self) -> Result<(), Failure> {
        let ring = self.serving_ring().map_err(|not| Failure::Refused(not.refusal))?;
        let version = ring.newest().version();
        let copied = self.store.progress().map_err(own_failure)?.copied;
        if ring.phase() != Phase::Dual || copied == Some(version) {
            return Ok(());
        }
        let wanted = ring.pulls_of(self.id());
        let begun = self.read_store(move |store| store.pulls(version)).await.map_err(own_failure)?;
        let by_partition = by_partition(&wanted, &begun);
        if !by_partition.is_empty() {
            tracing::info!(%version, partitions = by_partition.len(), "copying what this node becomes a primary of");
        }
        let copy = |pulls| self.copy_partition(version, pulls);
        let partitions: Vec<Pulls> = by_partition.into_values().collect();
        stream::iter(partitions).map(copy).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        self.change_store(move |store| store.note_copied(version)).await.map_err(own_failure)?;
        tracing::info!(%version, "has copied all that it becomes a primary of");
        Ok(())
    }

    async fn copy_partition(&self, version: LayoutVersion, pulls: Pulls) -> Result<(), Failure> {
        for (pull, mut after) in pulls {
            loop {
                after = self.copy_page(version, pull, after).await?;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Returns where the next page begins; none behind the last.
    async fn copy_page(
        &self,
        version: LayoutVersion,
        pull: Pull,
        after: Option<ObjectKey>,
    ) -> Result<Option<ObjectKey>, Failure> {
        // Any epoch in which that layout is coming will do.
        let ring = self.serving_ring().map_err(|not| Failure::Refused(not.refusal))?;
        if ring.phase() != Phase::Dual || ring.newest().version() != version {
            return Err(Failure::Refused(Refusal::OtherLayout));
        }
        let page = self.fetch_page(ring.epoch(), &pull, after).await;
        let page = page.inspect_err(|failure| self.heed_failure(pull.source, *failure))?;
        let next = page.next.clone();
        self.take_in(ring.epoch(), page).await?;
        // Only now that it is durable.
        let pulled = next.clone().map_or(Pulled::All, Pulled::UpTo);
        let noted = self.change_store(move |store| store.note_pulled(version, &pull, &pulled)).await;
        noted.map_err(own_failure)?;
        Ok(next)
    }

    async fn fetch_page(&self, epoch: Epoch, pull: &Pull, after: Option<ObjectKey>) -> Result<PulledPage, Failure> {
        let link = self.peers.get(pull.source, Class::Bulk).ok_or(Failure::Unreachable)?;
        let request = PullPage { epoch, partition: pull.partition, after, bytes: PAGE_BYTES };
        let call = |client: Arc<PeerServiceClient>, context| async move { client.pull(context, request).await };
        let page = link.call(new_trace(), CALL_LIMIT, call).await?.map_err(as_failure)?;
        self.handoff.wait_for(page.objects.len()).await;
        Ok(page)
    }

    async fn take_in(&self, epoch: Epoch, page: PulledPage) -> Result<(), Failure> {
        let damaged = Failure::Refused(Refusal::Damaged);
        if xxh3_64(&page.objects) != page.checksum {
            tracing::error!("a page of a copy does not match its checksum");
            return Err(damaged);
        }
        let objects: Vec<(ObjectKey, Object)> =
            codec::decode(&page.objects, MAX_FRAME_BYTES, "a page of a copy").map_err(|_| damaged)?;
        self.counters.objects_copied.add(objects.len() as u64);
        if fault::is_on(Fault::LosePage) && objects.first().is_some_and(|(key, _)| key.key().len() % 2 == 0) {
            return Ok(());
        }
        let copy = |(key, object)| self.store.copy(epoch, key, object);
        let taken = stream::iter(objects).map(copy).buffer_unordered(OBJECTS_AT_ONCE);
        taken.try_collect::<()>().await.map_err(own_failure)
    }

    /// A page of what another node has to copy from this one.
    ///
    /// # Errors
    /// [`PeerError`]; also if this node may still take writes that the asker is not sent.
    pub async fn page_for(&self, to: NodeId, request: PullPage) -> Result<PulledPage, PeerError> {
        let PullPage { epoch, partition, after, bytes } = request;
        let ring = self.serving_ring().map_err(|not| PeerError::Refused(not.refusal))?;
        let adopted = self.store.progress().map_err(|_| PeerError::Refused(Refusal::NotAMember))?.adopted;
        if !ring.may_be_copied_in(epoch) || adopted < epoch {
            return Err(PeerError::Refused(Refusal::OtherLayout));
        }
        let bytes = bytes.min(PAGE_BYTES);
        let read = move |store: &starling_storage::Store| {
            store.page(partition, after.as_ref(), bytes, |key| ring.is_pulled(key, to))
        };
        let page = self.read_in(epoch, read).await.map_err(|error| match error {
            StoreError::Refused(refusal) => PeerError::Refused(refusal),
            StoreError::Unknown => PeerError::Unknown,
            StoreError::Write(_) | StoreError::Damaged(_) => {
                tracing::error!(%error, partition = %partition, "cannot read what another node has to copy");
                PeerError::Refused(Refusal::Damaged)
            }
        })?;
        let objects = codec::encode(&page.objects);
        Ok(PulledPage { checksum: xxh3_64(&objects), objects: objects.into(), next: page.next })
    }
}

/// What is left to do, each partition by itself, from where it was left.
fn by_partition(wanted: &BTreeSet<Pull>, begun: &BTreeMap<Pull, Pulled>) -> BTreeMap<Partition, Pulls> {
    let mut left: BTreeMap<Partition, Pulls> = BTreeMap::new();
    for pull in wanted {
        let after = match begun.get(pull) {
            Some(Pulled::All) => continue,
            Some(Pulled::UpTo(key)) => Some(key.clone()),
            None => None,
        };
        left.entry(pull.partition).or_default().push((*pull, after));
    }
    left
}
