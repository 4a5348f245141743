//! Copying what this node is about to become a primary of (R16).
//!
//! Each partition is copied from each of its old primaries: from the first page by page, in the order of keys, from the
//! others only what differs by their hash trees (`comparing.rs`), so that little moves twice. What has come is durable before
//! it is noted how far a pull is, so a copy that is cut short on either side goes on where it was. What a source says counts
//! only if it was in this node's epoch when it read it; another epoch of the same change is as good.
//!
//! It goes in rounds. A source that fails is left alone for the rest of a round, and holds up nothing that others have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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
use starling_core::tree::{Breadth, Comparison};
use starling_proto::connection::MAX_FRAME_BYTES;
use starling_proto::control::{Copying, Transfers};
use starling_proto::hello::Class;
use starling_proto::peer::{PeerError, PeerServiceClient, PullPage, PulledPage};
use starling_storage::Pulled;
use xxhash_rust::xxh3::xxh3_64;

use crate::comparing::{Comparing, KEYS_AT_ONCE, Stopped, unreadable};
use crate::coordinator::own_failure;
use crate::link::{as_failure, new_trace};
use crate::node::Node;

/// Partitions that are copied at once.
pub const AT_ONCE: usize = 4;
/// Objects of a page that are taken in at once, so that they share syncs.
pub const OBJECTS_AT_ONCE: usize = 64;
pub const PAGE_BYTES: usize = 1 << 20;
pub const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Before what has failed is tried again.
const INTERVAL: Duration = Duration::from_millis(500);

/// What is left to copy of one partition.
#[derive(Default)]
struct Pulls {
    /// Each with the key up to which it has come.
    left: Vec<(Pull, Option<ObjectKey>)>,
    /// From some source all has come.
    has_one: bool,
}

/// How copying has gone since this process began with it.
#[derive(Default)]
pub struct CopyingLog(Mutex<Option<Copied>>);

struct Copied {
    version: LayoutVersion,
    since: Instant,
    finished: usize,
    keys: u64,
    bytes: u64,
    /// Sources that failed in the last round, or in this one.
    stalled: BTreeMap<NodeId, Failure>,
}

impl CopyingLog {
    fn begin(&self, version: LayoutVersion) {
        let mut copied = self.lock();
        if copied.as_ref().is_none_or(|copied| copied.version != version) {
            let (since, stalled) = (Instant::now(), BTreeMap::new());
            *copied = Some(Copied { version, since, finished: 0, keys: 0, bytes: 0, stalled });
        }
    }

    fn note(&self, change: impl FnOnce(&mut Copied)) {
        if let Some(copied) = self.lock().as_mut() {
            change(copied);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Copied>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sources that have failed in a round.
#[derive(Default)]
pub struct Round(Mutex<BTreeMap<NodeId, Failure>>);

impl Round {
    pub fn has_failed(&self, source: NodeId) -> bool {
        self.failures().contains_key(&source)
    }

    pub fn fail(&self, source: NodeId, failure: Failure) {
        self.failures().insert(source, failure);
    }

    pub fn failures(&self) -> MutexGuard<'_, BTreeMap<NodeId, Failure>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Node {
    /// Copies what has to be copied, for as long as the node runs.
    pub async fn copy_what_is_gained(self: Arc<Self>) {
        let mut rings = self.ring.subscribe();
        loop {
            rings.mark_unchanged();
            let copied = tokio::select! {
                copied = self.copy_for_the_coming_layout() => copied,
                () = self.stopping.cancelled() => return,
            };
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

    /// What this node has to move because the ring changed, and how it goes.
    pub async fn transfers(&self) -> Transfers {
        let (done, all) = self.pulls_done().await;
        let ring = self.store.ring();
        let version = ring.as_ref().map(|ring| ring.newest().version());
        let log = self.copying.lock();
        let log = log.as_ref().filter(|copied| Some(copied.version) == version);
        let copying = (all > 0).then(|| Copying {
            done,
            all,
            lasting: log.map_or(Duration::ZERO, |copied| copied.since.elapsed()),
            finished: log.map_or(0, |copied| copied.finished),
            keys: log.map_or(0, |copied| copied.keys),
            bytes: log.map_or(0, |copied| copied.bytes),
            stalled: log.map(|copied| copied.stalled.iter().map(stall).collect()).unwrap_or_default(),
        });
        let held = self.store.hints().into_values().max().unwrap_or(0);
        // One that has left is needed until the log says that it holds nothing.
        let is_needed = ring.as_ref().is_some_and(|ring| ring.bringing_home().contains_key(&self.id()));
        let held = held.max(u64::from(is_needed));
        Transfers { epoch: ring.map(|ring| ring.epoch()), copying, held, most_bytes_a_second: self.config.handoff_rate }
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
        self.copying.begin(version);
        self.copy_round(version, by_partition.into_values().collect()).await?;
        self.change_store(move |store| store.note_copied(version)).await.map_err(own_failure)?;
        tracing::info!(%version, "has copied all that it becomes a primary of");
        Ok(())
    }

    /// # Errors
    /// One of the failures, if there was any: then something is left to copy.
    async fn copy_round(&self, version: LayoutVersion, partitions: Vec<Pulls>) -> Result<(), Failure> {
        if !partitions.is_empty() {
            tracing::info!(%version, partitions = partitions.len(), "copying what this node becomes a primary of");
        }
        let round = Round::default();
        let copy = |pulls| self.copy_partition(version, pulls, &round);
        let copied = stream::iter(partitions).map(copy).buffer_unordered(AT_ONCE).try_collect::<()>().await;
        let failures = round.failures().clone();
        let first = failures.first_key_value().map(|(_, failure)| *failure);
        self.copying.note(|copied| copied.stalled = failures);
        copied.and(first.map_or(Ok(()), Err))
    }

    /// # Errors
    /// Only this node's own; what a source fails in is noted for the round.
    async fn copy_partition(&self, version: LayoutVersion, pulls: Pulls, round: &Round) -> Result<(), Failure> {
        let Pulls { left, mut has_one } = pulls;
        for (pull, after) in left {
            if round.has_failed(pull.source) {
                continue;
            }
            let copied = match after {
                None if has_one => self.copy_what_differs(version, pull).await,
                after => self.copy_pages(version, pull, after).await,
            };
            match copied {
                Ok(()) => has_one = true,
                Err(Stopped::Here(failure)) => return Err(failure),
                Err(Stopped::There(failure)) => {
                    self.heed_failure(pull.source, failure);
                    round.fail(pull.source, failure);
                    self.copying.note(|copied| {
                        copied.stalled.insert(pull.source, failure);
                    });
                }
            }
        }
        Ok(())
    }

    async fn copy_pages(
        &self,
        version: LayoutVersion,
        pull: Pull,
        mut after: Option<ObjectKey>,
    ) -> Result<(), Stopped> {
        loop {
            let epoch = self.epoch_to_copy_in(version).map_err(Stopped::Here)?;
            let page = self.fetch_page(epoch, &pull, after).await.map_err(Stopped::There)?;
            self.take_in(epoch, page.objects).await.map_err(Stopped::Here)?;
            let pulled = page.next.clone().map_or(Pulled::All, Pulled::UpTo);
            self.note_pulled(version, pull, pulled).await.map_err(Stopped::Here)?;
            match page.next {
                None => return Ok(()),
                next => after = next,
            }
        }
    }

    /// From a source of which most is here already.
    async fn copy_what_differs(&self, version: LayoutVersion, pull: Pull) -> Result<(), Stopped> {
        let link = self.peers.get(pull.source, Class::Bulk).ok_or(Stopped::There(Failure::Unreachable))?;
        let mut comparing = Comparing::new(self, &link, Comparison::of(pull.partition), Breadth::ANY);
        loop {
            let epoch = self.epoch_to_copy_in(version).map_err(Stopped::Here)?;
            let Some(found) = comparing.step(epoch).await? else { break };
            let ring = self.serving_ring().map_err(|not| Stopped::Here(Failure::Refused(not.refusal)))?;
            let theirs = found.into_iter().filter(|difference| difference.theirs.is_some());
            let theirs = theirs.map(|difference| difference.key).filter(|key| ring.is_pulled(key, self.id()));
            let mut wanted: Vec<ObjectKey> = theirs.collect();
            while !wanted.is_empty() {
                let epoch = self.epoch_to_copy_in(version).map_err(Stopped::Here)?;
                let some = wanted.iter().take(KEYS_AT_ONCE).cloned().collect();
                let (objects, looked_at) = self.fetch(&link, epoch, some).await.map_err(Stopped::There)?;
                wanted.drain(..looked_at);
                let bytes: usize = objects.iter().map(|(key, object)| key.key().len() + object.value_bytes()).sum();
                self.note_copied(objects.len(), bytes);
                self.take_in(epoch, objects).await.map_err(Stopped::Here)?;
            }
        }
        self.note_pulled(version, pull, Pulled::All).await.map_err(Stopped::Here)
    }

    /// Any epoch in which that layout is coming will do.
    fn epoch_to_copy_in(&self, version: LayoutVersion) -> Result<Epoch, Failure> {
        let ring = self.serving_ring().map_err(|not| Failure::Refused(not.refusal))?;
        let is_coming = ring.phase() == Phase::Dual && ring.newest().version() == version;
        // What this node holds is compared: nothing of an earlier epoch may change it any more.
        let adopted = self.store.progress().map_err(own_failure)?.adopted;
        if is_coming && adopted >= ring.epoch() {
            Ok(ring.epoch())
        } else {
            Err(Failure::Refused(Refusal::OtherLayout))
        }
    }

    /// Takes note of how far a pull is, now that it is durable.
    async fn note_pulled(&self, version: LayoutVersion, pull: Pull, pulled: Pulled) -> Result<(), Failure> {
        let is_over = pulled == Pulled::All;
        let noted = self.change_store(move |store| store.note_pulled(version, &pull, &pulled)).await;
        noted.map_err(own_failure)?;
        self.copying.note(|copied| {
            copied.stalled.remove(&pull.source);
            copied.finished += usize::from(is_over);
        });
        Ok(())
    }

    fn note_copied(&self, keys: usize, bytes: usize) {
        self.counters.objects_copied.add(keys as u64);
        self.counters.bytes_copied.add(bytes as u64);
        self.copying.note(|copied| {
            copied.keys += keys as u64;
            copied.bytes += bytes as u64;
        });
    }

    /// # Errors
    /// Of the source; also if what it sent does not match its checksum.
    async fn fetch_page(&self, epoch: Epoch, pull: &Pull, after: Option<ObjectKey>) -> Result<Fetched, Failure> {
        let link = self.peers.get(pull.source, Class::Bulk).ok_or(Failure::Unreachable)?;
        let request = PullPage { epoch, partition: pull.partition, after, bytes: PAGE_BYTES };
        let call = |client: Arc<PeerServiceClient>, context| async move { client.pull(context, request).await };
        let page = link.call(new_trace(), CALL_LIMIT, call).await?.map_err(as_failure)?;
        self.handoff.wait_for(page.objects.len()).await;
        let fetched = opened(&page).ok_or(Failure::Refused(Refusal::Damaged))?;
        self.note_copied(fetched.objects.len(), page.objects.len());
        Ok(fetched)
    }

    async fn take_in(&self, epoch: Epoch, objects: Vec<(ObjectKey, Object)>) -> Result<(), Failure> {
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
        let bytes = bytes.min(PAGE_BYTES);
        self.handoff.give_way(bytes).await;
        self.check_adopted(epoch)?;
        let ring = self.serving_ring().map_err(|not| PeerError::Refused(not.refusal))?;
        let read = move |store: &starling_storage::Store| {
            store.page(partition, after.as_ref(), bytes, |key| ring.is_pulled(key, to))
        };
        let page = self.read_in(epoch, read).await.map_err(unreadable)?;
        let objects = codec::encode(&page.objects);
        Ok(PulledPage { checksum: xxh3_64(&objects), objects: objects.into(), next: page.next })
    }
}

/// A page as it was at its source.
struct Fetched {
    objects: Vec<(ObjectKey, Object)>,
    next: Option<ObjectKey>,
}

/// None if it is not what was sent.
fn opened(page: &PulledPage) -> Option<Fetched> {
    if xxh3_64(&page.objects) != page.checksum {
        tracing::error!("a page of a copy does not match its checksum");
        return None;
    }
    let objects = codec::decode(&page.objects, MAX_FRAME_BYTES, "a page of a copy").ok()?;
    Some(Fetched { objects, next: page.next.clone() })
}

fn stall((source, failure): (&NodeId, &Failure)) -> (NodeId, String) {
    (*source, failure.to_string())
}

/// What is left to do, each partition by itself, from where it was left.
fn by_partition(wanted: &BTreeSet<Pull>, begun: &BTreeMap<Pull, Pulled>) -> BTreeMap<Partition, Pulls> {
    let mut all: BTreeMap<Partition, Pulls> = BTreeMap::new();
    for pull in wanted {
        let of_partition = all.entry(pull.partition).or_default();
        match begun.get(pull) {
            Some(Pulled::All) => of_partition.has_one = true,
            Some(Pulled::UpTo(key)) => of_partition.left.push((*pull, Some(key.clone()))),
            None => of_partition.left.push((*pull, None)),
        }
    }
    all.retain(|_, pulls| !pulls.left.is_empty());
    all
}
