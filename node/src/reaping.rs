//! Reaping (R11): this node leads the rounds of those partitions of which it is the first primary, and does its part in the
//! rounds of others. How a round goes is in [`starling_core::reaping`], what makes it durable in `storage/src/reaping.rs`.
//!
//! A round waits for whoever does not answer, for as long as that takes, and goes on after a restart. It holds up nothing
//! but the reaping of its partition. Age says only when it is worth a try: clients that repeat a request, and handoff,
//! have had their time by then. What has expired goes in the same rounds, once it has by the clock of each primary, and by a
//! good margin (R12); a node whose clock was set of late, or is ahead of its peers', does not agree.
//!
//! A node that has left says so to the log once it holds nothing any more: until then there are no rounds.

mod due;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt, stream};
use starling_core::ids::NodeId;
use starling_core::name::ObjectKey;
use starling_core::object::Object;
use starling_core::reaping::{Bound, Expired, Reaping, Round, RoundId, Stage, Standing};
use starling_core::report::{Failure, Refusal};
use starling_core::ring::{Decree, Epoch, Phase, Ring};
use starling_core::token::Partition;
use starling_core::wall::WallTime;
use starling_proto::control::{ControlError, HeldUp, ReapingRound, Tombstones};
use starling_proto::hello::Class;
use starling_proto::peer::{PeerServiceClient, Reap};
use starling_storage::{Store, StoreError};

use self::due::{Cursor, Due, Search, count, gather};
use crate::coordinator::own_failure;
use crate::link::{as_failure, new_trace};
use crate::node::Node;

/// Rounds that a node leads at once.
const MOST_ROUNDS: usize = 8;
/// Keys that are looked at, marked or deleted at once, so that they share syncs.
const KEYS_AT_ONCE: usize = 64;
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks for what can be reaped, and at those who have not answered.
const LEAST_INTERVAL: Duration = Duration::from_millis(200);
const MOST_INTERVAL: Duration = Duration::from_secs(30);
/// Until a node that has left looks again whether it holds anything.
const EMPTY_INTERVAL: Duration = Duration::from_secs(1);
const DECISION_LIMIT: Duration = Duration::from_secs(10);

/// The rounds that this node leads.
#[derive(Default)]
pub struct Rounds(Mutex<BTreeMap<Partition, Led>>);

/// A round under way.
struct Led {
    reaping: Reaping,
    since: Instant,
    failures: BTreeMap<NodeId, Failure>,
}

impl Rounds {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Partition, Led>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ids(&self) -> Vec<RoundId> {
        self.lock().values().map(|led| led.reaping.id()).collect()
    }

    /// What is to be asked next in a round, and of whom; none once it is over.
    fn next(&self, id: RoundId) -> Option<(Stage, BTreeSet<ObjectKey>, BTreeSet<NodeId>)> {
        let rounds = self.lock();
        let led = rounds.get(&id.partition).filter(|led| led.reaping.id() == id)?;
        Some((led.reaping.stage(), led.reaping.keys().clone(), led.reaping.waits_for()))
    }

    fn heard(&self, id: RoundId, stage: Stage, by: NodeId, answer: Result<BTreeSet<ObjectKey>, Failure>) {
        let mut rounds = self.lock();
        let Some(led) = rounds.get_mut(&id.partition).filter(|led| led.reaping.id() == id) else { return };
        match answer {
            Ok(with) => {
                led.failures.remove(&by);
                led.reaping.heard(stage, by, &with);
            }
            Err(Failure::Refused(refusal)) if led.reaping.refused(stage, by, refusal) => {}
            Err(failure) => drop(led.failures.insert(by, failure)),
        }
        if led.reaping.stage() == Stage::Over {
            rounds.remove(&id.partition);
        }
    }
}

/// In which epoch a request of a round is meant.
pub fn epoch_of(request: &Reap) -> Epoch {
    match request {
        Reap::Ask(round) => round.id.epoch,
        Reap::Mark { id, .. } | Reap::End { id, .. } => id.epoch,
    }
}

impl Node {
    /// Leads rounds, and puts back what an earlier ring has marked, for as long as the node runs.
    pub async fn reap(self: Arc<Self>) {
        let interval = (self.config.reap_after / 4).clamp(LEAST_INTERVAL, MOST_INTERVAL);
        let mut search = Search::default();
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = tokio::time::sleep(interval) => {}
            }
            self.look_at_clock();
            let Ok(ring) = self.serving_ring() else { continue };
            let turn = async {
                self.put_back_outdated(&ring).await;
                self.rounds.lock().retain(|_, led| led.reaping.id().epoch == ring.epoch());
                // Each partition once, or nearly: what comes to nothing is not to be tried over and over.
                let times = if ring.may_reap() { self.led_by(&ring).len().div_ceil(MOST_ROUNDS) } else { 0 };
                for _ in 0..times {
                    let is_full = self.begin_rounds(&ring, &mut search).await;
                    let led = self.rounds.ids().into_iter().map(|id| self.lead(&ring, id));
                    stream::iter(led.collect::<Vec<_>>()).buffer_unordered(MOST_ROUNDS).collect::<()>().await;
                    // There may be more, and room for it.
                    if !is_full || self.rounds.lock().len() >= MOST_ROUNDS {
                        break;
                    }
                }
            };
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = turn => {}
            }
        }
    }

    /// Does what the leader of a round asks for; returns with which keys.
    ///
    /// # Errors
    /// Those of the store. Asking again is safe.
    pub async fn take_part_in_reaping(&self, ring: &Ring, request: Reap) -> Result<BTreeSet<ObjectKey>, StoreError> {
        match request {
            Reap::Ask(round) => self.agree_to(ring, round).await,
            Reap::Mark { id, keys } => self.mark(ring, id, keys).await,
            Reap::End { id, keys } => self.end(ring, id, keys).await,
        }
    }

    /// What is deleted or has expired in the partitions whose rounds this node leads, and what that waits for.
    ///
    /// # Errors
    /// [`ControlError`] if it does not serve, or cannot read its disk.
    pub async fn tombstones(&self) -> Result<Tombstones, ControlError> {
        let ring = self
            .serving_ring()
            .map_err(|not| ControlError::Invalid(format!("this node does not serve: {}", not.reason)))?;
        let (led, due) = (self.led_by(&ring), self.due());
        let counted = self.read_store(move |store| count(store, &led, due)).await;
        let counted = counted.map_err(|error| ControlError::Internal(error.to_string()))?;
        let is_filling = self.store.filling_count();
        let held_up = match ring.phase() {
            Phase::Settled if !ring.bringing_home().is_empty() => {
                Some(HeldUp::Leavers(ring.bringing_home().values().cloned().collect()))
            }
            Phase::Settled if is_filling > 0 => Some(HeldUp::Filling(is_filling)),
            Phase::Settled => None,
            Phase::Dual | Phase::Switch => Some(HeldUp::RingChanges),
        };
        let rounds = self.rounds.lock();
        let rounds = rounds.iter().map(|(partition, led)| ReapingRound {
            partition: *partition,
            number: led.reaping.id().number,
            stage: led.reaping.stage(),
            keys: led.reaping.keys().len(),
            since: led.since.elapsed(),
            waits_for: waits_for(led),
        });
        let reaped = self.counters.tombstones_reaped.get();
        Ok(Tombstones { held_up: held_up.or(counted.held_up.clone()), rounds: rounds.collect(), reaped, ..counted })
    }

    /// Learns which rounds a peer knows to be over.
    pub async fn learn_rounds_over_of(&self, peer: NodeId) {
        let (Ok(ring), Some(link)) = (self.serving_ring(), self.peers.get(peer, Class::Peer)) else { return };
        let epoch = ring.epoch();
        let call = |client: Arc<PeerServiceClient>, context| async move { client.rounds_over(context, epoch).await };
        match link.call(new_trace(), CALL_LIMIT, call).await.and_then(|reply| reply.map_err(as_failure)) {
            Ok(over) => drop(self.store.learn_rounds_over(epoch, &over)),
            Err(failure) => tracing::debug!(%peer, %failure, "cannot learn which rounds of reaping are over"),
        }
    }

    /// Has the log say that this node holds nothing any more, once it has left, for as long as the node runs.
    pub async fn say_when_empty(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = tokio::time::sleep(EMPTY_INTERVAL) => {}
            }
            let Ok(ring) = self.ring_to_hand_off_by() else { continue };
            if !ring.bringing_home().contains_key(&self.id()) || !self.is_empty_for_good(&ring).await {
                continue;
            }
            let deadline = Instant::now() + DECISION_LIMIT;
            match self.decide(&ring, Decree::Emptied(self.id()), deadline).await {
                Ok(choice) if choice.is_ours => tracing::info!("has brought home all that it held"),
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "that nothing is held any more is not in the log yet"),
            }
        }
    }

    /// Nothing is held, and nothing is taken any more that was meant for an earlier ring.
    async fn is_empty_for_good(&self, ring: &Ring) -> bool {
        let has_adopted = self.store.progress().is_ok_and(|progress| progress.adopted >= ring.epoch());
        has_adopted && self.read_store(Store::is_empty).await.unwrap_or(false)
    }

    /// The partitions whose rounds this node leads.
    fn led_by(&self, ring: &Ring) -> Vec<Partition> {
        let layout = ring.read();
        let first = |partition| layout.primaries(partition, layout.replicas()).next();
        layout.partitions().all().filter(|partition| first(*partition) == Some(self.id())).collect()
    }

    /// What was marked by a round of an earlier epoch is as before, and it binds no more.
    async fn put_back_outdated(&self, ring: &Ring) {
        for bound in self.store.bound().into_iter().filter(|bound| bound.round.id.epoch != ring.epoch()) {
            let id = bound.round.id;
            let keys = bound.round.tombstones.keys().cloned().collect();
            let put_back = async {
                self.put_back(ring, id, keys).await?;
                self.change_store(move |store| store.unbind(id)).await
            };
            if let Err(error) = put_back.await {
                tracing::debug!(%error, partition = %id.partition, "what an earlier round has marked stays so for now");
            }
        }
    }

    async fn put_back(&self, ring: &Ring, id: RoundId, keys: BTreeSet<ObjectKey>) -> Result<(), StoreError> {
        let put_back = |key: ObjectKey| async move {
            let is_back = self.store.put_back(ring.epoch(), id, key.clone()).await;
            agreed(key, is_back)
        };
        done_with(keys.into_iter().map(put_back)).await.map(drop)
    }

    /// Begins what there is room for, and goes on with what a restart has interrupted; true if there is room for no more.
    async fn begin_rounds(&self, ring: &Ring, search: &mut Search) -> bool {
        let bound = self.store.bound();
        for partition in search.order(self.led_by(ring)) {
            if self.rounds.lock().len() >= MOST_ROUNDS {
                return true;
            }
            let is_led = self.rounds.lock().contains_key(&partition);
            if is_led || self.store.is_filling(partition) {
                continue;
            }
            search.last = Some(partition);
            let is_here =
                |bound: &&Arc<Bound>| bound.round.id.partition == partition && bound.round.id.epoch == ring.epoch();
            let bound = match bound.iter().find(is_here) {
                Some(bound) => Bound::clone(bound),
                None => match self.next_round(ring, partition, &mut search.cursors).await {
                    Ok(Some(round)) => Bound::by(round),
                    Ok(None) => continue,
                    Err(failure) => {
                        tracing::debug!(%failure, %partition, "reaping is put off");
                        continue;
                    }
                },
            };
            let members = ring.members().into_keys().collect();
            let primaries = |key: &ObjectKey| ring.primaries(key).all().into_iter().collect();
            let reaping = Reaping::new(&bound, self.id(), members, primaries);
            let led = Led { reaping, since: Instant::now(), failures: BTreeMap::new() };
            self.rounds.lock().insert(partition, led);
        }
        false
    }

    /// A round over the next tombstones of a partition that are old enough, by which this node is bound already; none if
    /// there are none.
    async fn next_round(
        &self,
        ring: &Ring,
        partition: Partition,
        cursors: &mut BTreeMap<Partition, Cursor>,
    ) -> Result<Option<Round>, Failure> {
        let (from, due) = (cursors.remove(&partition), self.due());
        let gathered = self.read_store(move |store| gather(store, partition, from, due)).await;
        let (tombstones, looked_up_to) = gathered.map_err(own_failure)?;
        cursors.extend(looked_up_to.map(|cursor| (partition, cursor)));
        if tombstones.is_empty() {
            return Ok(None);
        }
        let id = self.store.next_round(ring.epoch(), partition);
        let round = Round { id, tombstones };
        let binds = round.clone();
        self.change_store(move |store| store.bind(&binds)).await.map_err(own_failure)?;
        Ok(Some(round))
    }

    /// Leads a round as far as those who answer let it come.
    async fn lead(&self, ring: &Ring, id: RoundId) {
        while let Some((stage, keys, waits_for)) = self.rounds.next(id) {
            let Some(bound) = self.store.bound().into_iter().find(|bound| bound.round.id == id) else { return };
            let request = match stage {
                Stage::Asking => Reap::Ask(bound.round.clone()),
                Stage::Marking => Reap::Mark { id, keys },
                Stage::Ending | Stage::Over => {
                    let decided = keys.clone();
                    let decided = self.change_store(move |store| store.decide_ending(id, &decided)).await;
                    if let Err(error) = decided {
                        return tracing::debug!(%error, "a round of reaping cannot be ended yet");
                    }
                    Reap::End { id, keys }
                }
            };
            let ask = |member| {
                let asked = self.ask_to_reap(ring, member, request.clone());
                async move { (member, asked.await) }
            };
            let mut asked: FuturesUnordered<_> = waits_for.into_iter().map(ask).collect();
            let mut all_answered = true;
            while let Some((member, answer)) = asked.next().await {
                all_answered &= answer.is_ok();
                if let Err(failure) = &answer {
                    self.heed_failure(member, *failure);
                }
                self.rounds.heard(id, stage, member, answer);
            }
            if !all_answered {
                return;
            }
        }
    }

    async fn ask_to_reap(&self, ring: &Ring, member: NodeId, request: Reap) -> Result<BTreeSet<ObjectKey>, Failure> {
        if member == self.id() {
            return self.take_part_in_reaping(ring, request).await.map_err(own_failure);
        }
        let link = self.peers.get(member, Class::Bulk).ok_or(Failure::Unreachable)?;
        let call = |client: Arc<PeerServiceClient>, context| async move { client.reap(context, request).await };
        link.call(new_trace(), CALL_LIMIT, call).await?.map_err(as_failure)
    }

    async fn agree_to(&self, ring: &Ring, round: Round) -> Result<BTreeSet<ObjectKey>, StoreError> {
        let (epoch, binds, expired) = (round.id.epoch, round.clone(), self.expired());
        self.change_store(move |store| store.bind(&binds)).await?;
        let weigh = |(key, tombstone): (ObjectKey, Object)| async move {
            let standing = match ring.primaries(&key).contains(self.id()) {
                true if self.is_filling(ring, &key) => Standing::FillingPrimary,
                true => Standing::Primary,
                false => Standing::Other,
            };
            let agrees = self.store.weigh(epoch, key.clone(), standing, tombstone, expired).await;
            agreed(key, agrees)
        };
        done_with(round.tombstones.into_iter().map(weigh)).await
    }

    async fn mark(
        &self,
        ring: &Ring,
        id: RoundId,
        keys: BTreeSet<ObjectKey>,
    ) -> Result<BTreeSet<ObjectKey>, StoreError> {
        let bound = self.store.bound().into_iter().find(|bound| bound.round.id == id);
        let bound = bound.ok_or(StoreError::Refused(Refusal::Reaped))?;
        let (own, expired) = (self.own_of(ring, keys), self.expired());
        let known = own.into_iter().filter_map(|key| Some((key.clone(), bound.round.tombstones.get(&key)?.clone())));
        let mark = |(key, tombstone): (ObjectKey, Object)| async move {
            let is_marked = self.store.mark(id, key.clone(), tombstone, expired).await;
            agreed(key, is_marked)
        };
        done_with(known.map(mark)).await
    }

    async fn end(
        &self,
        ring: &Ring,
        id: RoundId,
        keys: BTreeSet<ObjectKey>,
    ) -> Result<BTreeSet<ObjectKey>, StoreError> {
        // Without a key it is called off, and nothing has to be kept from coming back.
        if !keys.is_empty() {
            self.change_store(move |store| store.note_over(id)).await?;
        }
        let forget = |key: ObjectKey| async move {
            let is_gone = self.store.forget(id, key.clone()).await;
            agreed(key, is_gone)
        };
        let gone = done_with(self.own_of(ring, keys.clone()).into_iter().map(forget)).await?;
        self.counters.tombstones_reaped.add(gone.len() as u64);
        // What somebody has objected to after it was marked here is as before.
        let bound = self.store.bound().into_iter().find(|bound| bound.round.id == id);
        let all = bound.iter().flat_map(|bound| bound.round.tombstones.keys()).cloned().collect();
        let stays = self.own_of(ring, &all - &keys).into_iter().collect();
        self.put_back(ring, id, stays).await?;
        self.change_store(move |store| store.unbind(id)).await?;
        Ok(keys)
    }

    fn due(&self) -> Due {
        Due { now: self.wall(), reap_after: self.config.reap_after, expired: self.expired() }
    }

    /// Which values are gone for good by this node's clock (R12), if that can be relied on.
    fn expired(&self) -> Expired {
        let wall = self.look_at_clock();
        wall.map_or(Expired::Unknown, |wall| Expired::By(wall.before(self.config.expiry_margin)))
    }

    /// What the clock shows, if it can be relied on.
    fn look_at_clock(&self) -> Option<WallTime> {
        let mut watch = self.wall_watch.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.started.elapsed();
        let wall = self.wall();
        let passed = self.started.elapsed();
        // A process that was stopped in between would take that for a step.
        let is_sure = passed.saturating_sub(before) < watch.tolerance() / 2;
        if is_sure {
            watch.look(passed, wall);
        }
        let is_steady = watch.is_steady(passed, self.clocks_apart(), self.config.max_clock_drift);
        Some(wall).filter(|_| is_sure && is_steady)
    }

    /// Those of the keys that this node is a primary of.
    fn own_of(&self, ring: &Ring, keys: BTreeSet<ObjectKey>) -> Vec<ObjectKey> {
        keys.into_iter().filter(|key| ring.primaries(key).contains(self.id())).collect()
    }
}

/// Of the keys that it was tried with, those with which it is done. What cannot be read is not.
async fn done_with(
    tried: impl Iterator<Item = impl Future<Output = Result<Option<ObjectKey>, StoreError>>>,
) -> Result<BTreeSet<ObjectKey>, StoreError> {
    let done = stream::iter(tried).buffer_unordered(KEYS_AT_ONCE);
    done.try_filter_map(|key| std::future::ready(Ok(key))).try_collect().await
}

fn agreed(key: ObjectKey, done: Result<bool, StoreError>) -> Result<Option<ObjectKey>, StoreError> {
    match done {
        Ok(is_done) => Ok(is_done.then_some(key)),
        Err(StoreError::Damaged(reason)) => {
            tracing::error!(reason, "a tombstone that is to be reaped cannot be read");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn waits_for(led: &Led) -> BTreeMap<NodeId, Option<String>> {
    let left = led.reaping.waits_for().into_iter();
    left.map(|member| (member, led.failures.get(&member).map(ToString::to_string))).collect()
}
