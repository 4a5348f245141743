//! Filling up again (R8): a directory that stands for a member in the place of a lost one is compared with every other
//! primary of its partitions, one after another, and takes what they have (`comparing.rs`).
//!
//! What was done is durable, so it goes on after a restart where it was. Of a peer that fails nothing more is asked in a
//! round; what others have is not held up by it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use starling_core::ids::NodeId;
use starling_core::name::ObjectKey;
use starling_core::report::{Failure, Refusal};
use starling_core::ring::Ring;
use starling_core::token::Partition;
use starling_core::tree::{Breadth, Comparison};
use starling_proto::control::FillingUp;
use starling_proto::hello::Class;

use crate::comparing::{Comparing, KEYS_AT_ONCE, Stopped};
use crate::coordinator::own_failure;
use crate::copying::{AT_ONCE, OBJECTS_AT_ONCE, Round};
use crate::node::Node;

/// Before what has failed is tried again.
const INTERVAL: Duration = Duration::from_millis(500);

/// Peers that did not give what they have in the last round, and why.
#[derive(Default)]
pub struct FillingLog(Mutex<BTreeMap<NodeId, Failure>>);

impl FillingLog {
    fn note(&self, stalled: BTreeMap<NodeId, Failure>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stalled;
    }

    fn stalled(&self) -> BTreeMap<NodeId, String> {
        let stalled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stalled.iter().map(|(peer, failure)| (*peer, failure.to_string())).collect()
    }
}

impl Node {
    /// Fills up what is to be filled, for as long as the node runs.
    pub async fn fill_up(self: Arc<Self>) {
        let mut rings = self.ring.subscribe();
        let mut was_filling = false;
        loop {
            rings.mark_unchanged();
            let is_filling = self.store.filling_count() > 0;
            if is_filling {
                let round = async {
                    if let Err(failure) = self.fill_round().await {
                        tracing::debug!(%failure, "filling up is put off");
                    }
                };
                tokio::select! {
                    () = round => {}
                    () = self.stopping.cancelled() => return,
                }
            }
            let is_left = self.store.filling_count() > 0;
            match (was_filling || is_filling, is_left) {
                (true, false) => tracing::info!("has all that other primaries have, and counts in reads again"),
                (_, true) if !was_filling => tracing::info!(partitions = self.store.filling_count(), "is filling up"),
                _ => {}
            }
            was_filling = is_left;
            tokio::select! {
                () = self.stopping.cancelled() => return,
                Ok(()) = rings.changed() => {}
                () = tokio::time::sleep(INTERVAL), if is_left => {}
            }
        }
    }

    /// What is left to fill, and what stands in the way.
    pub fn filling_up(&self) -> FillingUp {
        let left = self.store.left_to_fill();
        let mut of_peers: BTreeMap<NodeId, usize> = BTreeMap::new();
        left.values().flatten().for_each(|peer| *of_peers.entry(*peer).or_default() += 1);
        let stalled = if left.is_empty() { BTreeMap::new() } else { self.filling.stalled() };
        FillingUp { partitions: left.len(), left: of_peers, stalled }
    }

    async fn fill_round(&self) -> Result<(), Failure> {
        self.change_store(|store| store.settle_filling()).await.map_err(own_failure)?;
        let round = Round::default();
        let fill = |(partition, peers)| self.fill_partition(partition, peers, &round);
        let left = self.store.left_to_fill();
        let filled = stream::iter(left).map(fill).buffer_unordered(AT_ONCE).try_collect::<()>().await;
        self.filling.note(round.failures().clone());
        filled
    }

    /// # Errors
    /// Only this node's own; what a peer fails in is noted for the round.
    async fn fill_partition(
        &self,
        partition: Partition,
        peers: BTreeSet<NodeId>,
        round: &Round,
    ) -> Result<(), Failure> {
        for peer in peers {
            if round.has_failed(peer) {
                continue;
            }
            match self.fill_from(partition, peer).await {
                Ok(()) => {
                    let noted = self.change_store(move |store| store.note_filled(partition, peer)).await;
                    noted.map_err(own_failure)?;
                }
                Err(Stopped::Here(failure)) => return Err(failure),
                // What it cannot give may be the only copy that is left: the partition waits for it, and no other does.
                Err(Stopped::There(failure @ Failure::Refused(refusal))) if refusal.concerns_the_object() => {
                    tracing::warn!(%partition, %peer, %failure, "a peer cannot give all that it has");
                }
                Err(Stopped::There(failure)) => {
                    self.heed_failure(peer, failure);
                    round.fail(peer, failure);
                }
            }
        }
        Ok(())
    }

    /// Takes all that a peer has of a partition and this node lacks.
    async fn fill_from(&self, partition: Partition, peer: NodeId) -> Result<(), Stopped> {
        let link = self.peers.get(peer, Class::Bulk).ok_or(Stopped::There(Failure::Unreachable))?;
        let mut comparing = Comparing::new(self, &link, Comparison::of(partition), Breadth::ANY);
        loop {
            let ring = self.ring_to_fill_in().map_err(Stopped::Here)?;
            let Some(found) = comparing.step(ring.epoch()).await? else { return Ok(()) };
            let theirs = found.into_iter().filter(|difference| difference.theirs.is_some());
            // What the peer holds for others is none of this node's business.
            let is_own = |key: &ObjectKey| ring.primaries(key).read().contains(&self.id());
            let mut wanted: Vec<ObjectKey> = theirs.map(|difference| difference.key).filter(is_own).collect();
            while !wanted.is_empty() {
                let epoch = self.ring_to_fill_in().map_err(Stopped::Here)?.epoch();
                let over = self.store.rounds_over(epoch, partition);
                let some = wanted.iter().take(KEYS_AT_ONCE).cloned().collect();
                let (objects, looked_at) = self.fetch(&link, epoch, some).await.map_err(Stopped::There)?;
                wanted.drain(..looked_at);
                self.counters.objects_filled.add(objects.len() as u64);
                let take = |(key, object)| self.take_repaired(epoch, over, key, object);
                let taken = stream::iter(objects).map(take).buffer_unordered(OBJECTS_AT_ONCE);
                let unreadable = Failure::Refused(Refusal::Damaged);
                let all = taken.try_all(std::future::ready).await.map_err(Stopped::Here)?;
                // Whoever cannot read it has it replaced; it is not full before.
                if !all {
                    return Err(Stopped::Here(unreadable));
                }
            }
        }
    }

    /// Any ring will do that knows of this directory, once nothing of an earlier one changes what is compared.
    fn ring_to_fill_in(&self) -> Result<Arc<Ring>, Failure> {
        let ring = self.serving_ring().map_err(|not| Failure::Refused(not.refusal))?;
        let adopted = self.store.progress().map_err(own_failure)?.adopted;
        if adopted >= ring.epoch() { Ok(ring) } else { Err(Failure::Refused(Refusal::OtherLayout)) }
    }
}
