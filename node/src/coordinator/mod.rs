//! The coordinator: drives the core's request machines against real replicas and real time.
//!
//! It only carries out: what is asked of whom, when a hint is left, when the client is answered is decided in
//! [`starling_core::put`] and [`starling_core::get`]. Each request runs in a task of its own, which outlives the client's
//! patience, and ends once every replica has answered or was given up.

mod get;
mod put;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use starling_core::get::Candidate;
use starling_core::ids::NodeId;
use starling_core::name::ObjectKey;
use starling_core::preference::Preference;
use starling_core::reaping::{Fences, RoundsOver};
use starling_core::report::{Failure, Outcome, Refusal, ReplicaReport};
use starling_core::ring::{Epoch, Ring};
use starling_proto::TraceId;
use starling_proto::data::RequestError;
use starling_storage::StoreError;

use crate::link::Link;
use crate::node::Node;

/// How long a request that met another ring waits for this node to learn of it.
const NEWS_LIMIT: Duration = Duration::from_secs(1);

/// A request that its client still waits for.
#[derive(Clone)]
pub struct Request {
    pub ring: Arc<Ring>,
    /// The rounds of reaping that were over before anything was read for it.
    pub fences: Arc<Fences>,
    pub deadline: Instant,
    /// Under which every node logs what it does for this request.
    pub trace: TraceId,
}

impl Request {
    pub fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// What a task that coordinates has at hand: the key, its replicas as they look at the start, and the time since.
struct Task {
    request: Request,
    key: ObjectKey,
    preference: Preference,
    known: BTreeMap<NodeId, Candidate>,
    begun: Instant,
}

impl Task {
    /// # Errors
    /// [`Refusal::DeadlinePassed`]; nothing is begun then.
    fn begin(
        node: &Node,
        request: Request,
        key: ObjectKey,
        slow_after: impl Fn(&Link) -> Duration,
    ) -> Result<Task, RequestError> {
        let begun = Instant::now();
        if begun >= request.deadline {
            return Err(RequestError::Refused(Refusal::DeadlinePassed));
        }
        let preference = request.ring.preference(&key);
        let may_hedge = node.hedges.pay_in();
        let known = preference.primaries().all().into_iter().chain(preference.fallbacks().iter().copied());
        let known: BTreeSet<NodeId> = known.chain(preference.reads().fallbacks().iter().copied()).collect();
        let known = known.into_iter().map(|id| (id, node.candidate(id, may_hedge, &slow_after))).collect();
        Ok(Task { request, key, preference, known, begun })
    }

    fn candidates(&self, nodes: &[NodeId]) -> Vec<Candidate> {
        nodes.iter().filter_map(|node| self.known.get(node)).copied().collect()
    }

    /// From the beginning to the deadline.
    fn time_limit(&self) -> Duration {
        self.request.deadline.saturating_duration_since(self.begun)
    }

    fn epoch(&self) -> Epoch {
        self.request.ring.epoch()
    }

    /// The rounds of reaping of the key's partition that were over at the start.
    fn over(&self) -> RoundsOver {
        let partition = self.request.ring.read().partition_of(&self.key);
        self.request.fences.over(self.epoch(), partition)
    }
}

/// Whether a replica, or this node itself, would not do its part for that reason.
fn was_refused(error: &RequestError, reason: Refusal) -> bool {
    let refused = Outcome::Failed(Failure::Refused(reason));
    let other = |replica: &ReplicaReport| replica.outcome == refused;
    match error {
        RequestError::Refused(refusal) => *refusal == reason,
        RequestError::ReadQuorumNotMet { replicas, .. } | RequestError::WriteOutcomeUnknown { replicas, .. } => {
            replicas.iter().any(other)
        }
        RequestError::Invalid(_)
        | RequestError::NotServing(_)
        | RequestError::Incomplete(_)
        | RequestError::Internal(_) => false,
    }
}

/// Why the own store did not do its part.
pub fn own_failure(error: StoreError) -> Failure {
    match error {
        StoreError::Refused(refusal) => Failure::Refused(refusal),
        StoreError::Unknown => Failure::SyncFailed,
        StoreError::Write(_) | StoreError::Damaged(_) => {
            tracing::warn!(%error, "the own store could not do its part");
            Failure::Refused(Refusal::Damaged)
        }
    }
}

/// The next thing that happens; nothing if that takes until `wake`.
async fn next<T>(running: &mut FuturesUnordered<BoxFuture<'_, T>>, wake: Option<Instant>) -> Option<T> {
    let wake = wake.unwrap_or_else(|| Instant::now() + Duration::from_secs(1));
    tokio::select! {
        Some(happened) = running.next() => Some(happened),
        () = tokio::time::sleep_until(wake.into()) => None,
    }
}

impl Node {
    fn candidate(&self, node: NodeId, may_hedge: bool, slow_after: impl Fn(&Link) -> Duration) -> Candidate {
        let believed_down = !self.is_available(node);
        let usual = self.peers.get(node, starling_proto::hello::Class::Peer).map(|link| slow_after(&link));
        let slow_after = usual.filter(|_| may_hedge).unwrap_or(self.config.replica_timeout);
        Candidate { node, believed_down, slow_after }
    }

    /// The request by the ring that has come since, if it failed because its own is not everybody's, or after the round of
    /// reaping that has ended since: it is to be tried again. News that is on its way is waited for.
    pub async fn newer(&self, request: &Request, error: Option<&RequestError>) -> Option<Request> {
        if !error.is_some_and(|error| was_refused(error, Refusal::OtherLayout)) {
            return self.after_reaping(request, error).await;
        }
        let (epoch, mut rings) = (request.ring.epoch(), self.ring.subscribe());
        let newer = rings.wait_for(|ring| ring.as_ref().is_some_and(|ring| ring.epoch() > epoch));
        let ring = tokio::time::timeout(request.time_left().min(NEWS_LIMIT), newer).await.ok()?.ok()?.clone()?;
        Some(Request { ring, fences: self.store.fences(), ..request.clone() })
    }

    /// As [`Node::newer`], for rounds of reaping only.
    async fn after_reaping(&self, request: &Request, error: Option<&RequestError>) -> Option<Request> {
        if !error.is_some_and(|error| was_refused(error, Refusal::Reaped)) {
            return None;
        }
        let mut news = self.store.rounds_over_news();
        let newer = news.wait_for(|()| self.store.fences() != request.fences);
        drop(tokio::time::timeout(request.time_left().min(NEWS_LIMIT), newer).await.ok()?.ok()?);
        Some(Request { fences: self.store.fences(), ..request.clone() })
    }

    fn note_hedges(&self, replicas: &[ReplicaReport]) {
        let hedges = replicas.iter().filter(|replica| replica.hedge).count();
        self.hedges.pay_out(hedges);
        self.counters.hedges.add(hedges as u64);
    }
}
