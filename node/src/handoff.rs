//! Hinted handoff: bringing copies that this node holds for others home (Dynamo, section 4.6).
//!
//! For each target with markers, page by page in the order of keys: offer the keys with their clocks, send the objects
//! that the target lacks, and tell the own store what the target has durably confirmed. The store drops a marker, and at
//! last the copy, only if the confirmed clock covers what it holds then (R9, R10). Stopping anywhere is safe: markers are
//! durable, and a confirmation that is lost is asked for again.
//!
//! Each target is served by itself, so that a slow one holds up nobody else. A target that cannot be talked to is left
//! for later; an object that it will not take is passed over, for those behind it. Objects move a few at a time, so that
//! they share syncs on both sides, within a budget of bytes a second for all targets together, on the bulk connection. The
//! budget is smaller while requests have to wait for this node (`core/src/pacing.rs`); copying, filling up and comparing share
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt, stream};
use starling_core::clock::Clock;
use starling_core::fault::{self, Fault};
use starling_core::ids::NodeId;
use starling_core::name::ObjectKey;
use starling_core::pacing::{Pacing, Part};
use starling_core::report::{Failure, Refusal, Role};
use starling_core::ring::Epoch;
use starling_proto::hello::Class;
use starling_proto::peer::{Offer, PeerServiceClient, Store};
use starling_storage::Hint;
use tokio::sync::Mutex as AsyncMutex;

use crate::coordinator::own_failure;
use crate::link::{Link, as_failure, fits_a_frame, new_trace};
use crate::node::Node;

/// Hints offered at once.
const PAGE: usize = 128;
/// Objects of a page under way at once.
const AT_ONCE: usize = 16;
/// Between two looks for hints to deliver; doubled each time that a target fails, up to the second.
const INTERVAL: Duration = Duration::from_millis(250);
const MOST_INTERVAL: Duration = Duration::from_secs(4);
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// What its target would not take is offered again after this long.
const REFUSED_INTERVAL: Duration = Duration::from_secs(60);
/// So many such copies are remembered.
const MOST_REFUSED: usize = 10_000;

/// Whoever asks for a page waits no longer for it than this because requests are given way to.
const MOST_COURTESY: Duration = Duration::from_secs(1);

/// What all handing off has in common, and whatever else moves objects in the background.
pub struct Handoff {
    pace: Pace,
    refused: Mutex<Refused>,
}

impl Handoff {
    pub fn new(bytes_a_second: u64) -> Handoff {
        Handoff { pace: Pace::new(bytes_a_second), refused: Mutex::default() }
    }

    /// Waits for the turn of that many bytes.
    pub async fn wait_for(&self, bytes: usize) {
        self.pace.wait(bytes).await;
    }

    /// Before that many bytes are read for a peer that keeps a pace of its own: waits for a while if requests have to wait
    /// here.
    pub async fn give_way(&self, bytes: usize) {
        if let Some(rate) = self.pace.lowered_rate() {
            tokio::time::sleep(Duration::from_secs_f64(bytes as f64 / rate).min(MOST_COURTESY)).await;
        }
    }

    /// Notes how long this node's part in a request took, which began then.
    pub fn note(&self, part: Part, began: Instant) {
        self.pace.pacing().note(part, began.elapsed());
    }
}

/// Copies that their target would not take, and when: they are not sent again at every turn.
#[derive(Default)]
struct Refused(BTreeMap<(NodeId, ObjectKey), Instant>);

impl Refused {
    fn note(&mut self, target: NodeId, key: ObjectKey, now: Instant) {
        if self.0.len() >= MOST_REFUSED {
            // What is forgotten is tried again sooner: a waste, and no harm.
            self.0.pop_first();
        }
        self.0.insert((target, key), now);
    }

    fn is_recent(&mut self, target: NodeId, key: &ObjectKey, now: Instant) -> bool {
        let place = (target, key.clone());
        let recent = self.0.get(&place).is_some_and(|at| now.saturating_duration_since(*at) < REFUSED_INTERVAL);
        if !recent {
            self.0.remove(&place);
        }
        recent
    }
}

/// Shares a number of bytes a second out among all that is handed off: fewer while requests have to wait for it.
struct Pace {
    pacing: Mutex<Pacing>,
    began: Instant,
    /// When the next object may go.
    next: AsyncMutex<Instant>,
}

impl Pace {
    fn new(bytes_a_second: u64) -> Pace {
        let (pacing, now) = (Pacing::new(bytes_a_second as f64), Instant::now());
        Pace { pacing: Mutex::new(pacing), began: now, next: AsyncMutex::new(now) }
    }

    /// Waits until it is the turn of an object of that many bytes.
    async fn wait(&self, bytes: usize) {
        let mut next = self.next.lock().await;
        tokio::time::sleep_until((*next).into()).await;
        let rate = self.pacing().rate(self.began.elapsed());
        *next = Instant::now().max(*next) + Duration::from_secs_f64(bytes as f64 / rate);
    }

    /// The rate, if it is lower than it may be.
    fn lowered_rate(&self) -> Option<f64> {
        let mut pacing = self.pacing();
        let rate = pacing.rate(self.began.elapsed());
        pacing.gives_way().then_some(rate)
    }

    fn pacing(&self) -> MutexGuard<'_, Pacing> {
        // A panic elsewhere cannot leave it half-changed.
        self.pacing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Node {
    /// Delivers hints for as long as the node runs.
    pub async fn hand_off(self: Arc<Self>) {
        let (mut served, mut running) = (BTreeSet::new(), FuturesUnordered::new());
        let mut intervals: BTreeMap<NodeId, Duration> = BTreeMap::new();
        loop {
            for target in self.store.hints().into_keys().filter(|target| served.insert(*target)) {
                let interval = intervals.remove(&target).unwrap_or(INTERVAL);
                running.push(Arc::clone(&self).serve(target, interval));
            }
            tokio::select! {
                () = self.stopping.cancelled() => return,
                Some((target, interval)) = running.next() => {
                    served.remove(&target);
                    intervals.insert(target, interval);
                }
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// Hands off to a target once, and waits; returns how long to wait the next time.
    async fn serve(self: Arc<Self>, target: NodeId, interval: Duration) -> (NodeId, Duration) {
        let handed_off = self.hand_off_to(target).await;
        if let Err(failure) = &handed_off {
            tracing::debug!(%target, %failure, "handoff is put off");
        }
        tokio::time::sleep(interval).await;
        (target, if handed_off.is_ok() { INTERVAL } else { (interval * 2).min(MOST_INTERVAL) })
    }

    async fn hand_off_to(&self, target: NodeId) -> Result<(), Failure> {
        if fault::is_on(Fault::DropCopyForDeparted) && !self.view().is_alive(target) {
            return self.take_for_confirmed(target).await;
        }
        if !self.view().is_alive(target) || self.ring_to_hand_off_by().is_err() {
            return Ok(());
        }
        let link = self.peers.get(target, Class::Bulk).ok_or(Failure::Unreachable)?;
        let mut after: Option<ObjectKey> = None;
        loop {
            let from = after.clone();
            let page = self.read_store(move |store| store.hints_for(target, from.as_ref(), PAGE)).await;
            let page = page.map_err(own_failure)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.key.clone());
            let delivered = self.deliver(&link, page).await;
            delivered.inspect_err(|failure| self.heed_failure(target, *failure))?;
        }
    }

    fn epoch(&self) -> Result<Epoch, Failure> {
        let ring = self.ring_to_hand_off_by().map_err(|not| Failure::Refused(not.refusal))?;
        Ok(ring.epoch())
    }

    /// The fault in person: a target that is silent is taken for one that has left, and owes nothing any more.
    async fn take_for_confirmed(&self, target: NodeId) -> Result<(), Failure> {
        let page = self.read_store(move |store| store.hints_for(target, None, PAGE)).await.map_err(own_failure)?;
        for hint in page {
            self.store.confirm(self.epoch()?, hint.key, target, hint.clock).await.map_err(own_failure)?;
        }
        Ok(())
    }

    async fn deliver(&self, link: &Link, page: Vec<Hint>) -> Result<(), Failure> {
        let epoch = self.epoch()?;
        let hints = page.iter().map(|hint| (hint.key.clone(), hint.clock.clone())).collect();
        let offer = Offer { epoch, hints };
        let call = |client: Arc<PeerServiceClient>, context| async move { client.offer(context, offer).await };
        let reply = link.call(new_trace(), CALL_LIMIT, call).await?.map_err(as_failure)?;
        let settle = |(hint, wanted)| self.settle(link, epoch, hint, wanted);
        let offered = page.into_iter().zip(reply.wanted);
        stream::iter(offered).map(settle).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Sees to it that the target has the object, and drops the marker.
    async fn settle(&self, link: &Link, epoch: Epoch, hint: Hint, wanted: bool) -> Result<(), Failure> {
        let refused = || self.handoff.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted && refused().is_recent(link.node, &hint.key, Instant::now()) {
            return Ok(());
        }
        let confirmed = match wanted {
            false => Ok(Some(hint.clock)),
            true => self.send_home(link, epoch, &hint.key).await,
        };
        match confirmed {
            Ok(None) => Ok(()),
            Ok(Some(clock)) => {
                self.store.confirm(epoch, hint.key, link.node, clock).await.map(|_outcome| ()).map_err(own_failure)
            }
            Err(Failure::Refused(refusal)) if refusal.concerns_the_object() => {
                self.counters.hints_not_taken.add(1);
                tracing::debug!(target = %link.node, %refusal, key = ?hint.key, "a copy stays where it is");
                refused().note(link.node, hint.key, Instant::now());
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    /// Sends the present copy; returns the clock that the target has durably taken in, or none if there is no copy.
    async fn send_home(&self, link: &Link, epoch: Epoch, key: &ObjectKey) -> Result<Option<Clock>, Failure> {
        if fault::is_on(Fault::NeverDeliver) {
            return Ok(None);
        }
        let over = self.rounds_over(epoch, key).map_err(own_failure)?;
        let asked = key.clone();
        let held = self.read_store(move |store| store.get(&asked)).await.map_err(own_failure)?;
        let Some(object) = held else { return Ok(None) };
        if !fits_a_frame(key, &object) {
            return Err(Failure::Refused(Refusal::TooLarge));
        }
        let clock = object.clock().clone();
        self.handoff.pace.wait(object.value_bytes()).await;
        let store = Store { epoch, key: key.clone(), object, role: Role::Primary };
        link.store(store, over, new_trace(), CALL_LIMIT).await?;
        self.counters.hints_delivered.add(1);
        Ok(Some(clock))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_left_alone_for_a_while() {
        let key = |text: &'static str| ObjectKey::new("b".parse().unwrap(), text).unwrap();
        let (mut refused, now) = (Refused::default(), Instant::now());
        refused.note(NodeId(1), key("a"), now);
        assert!(refused.is_recent(NodeId(1), &key("a"), now));
        assert!(!refused.is_recent(NodeId(2), &key("a"), now) && !refused.is_recent(NodeId(1), &key("b"), now));
        assert!(!refused.is_recent(NodeId(1), &key("a"), now + REFUSED_INTERVAL));
        assert!(refused.0.is_empty(), "what is over is forgotten");
    }
}
