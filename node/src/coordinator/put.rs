//! Writes: forwarding to a coordinator, and coordinating.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use starling_core::coordinate::{Coordinated, Write};
use starling_core::ids::{Birth, NodeId, RequestId};
use starling_core::layout::Layout;
use starling_core::name::ObjectKey;
use starling_core::object::{Object, SiblingMode};
use starling_core::put::{Action, Answer, Event, Plan, Put as Machine, Verdict};
use starling_core::quorum::{Quorum, Tally};
use starling_core::report::{Failure, Refusal, Role};
use starling_core::stamp::Stamp;
use starling_proto::CallContext;
use starling_proto::data::{Put, RequestError, Written};
use starling_proto::hello::Class;
use starling_proto::peer::{PeerServiceClient, Store};
use starling_storage::{Minted, StoreError};
use tokio::sync::oneshot;

use crate::api::{clock_of_context, context_of};
use crate::link::Link;
use crate::node::{Node, wall_clock};

/// What a coordinator's task tells whoever waits for it.
type Outcome = Result<(Answer, Minted), RequestError>;

/// Something that happened to a running write.
enum Happened {
    OwnStore(Result<Minted, StoreError>),
    Replica(Event),
}

impl Node {
    /// Has a write coordinated: here if this node is a primary, else by the first primary that can be reached, else here
    /// as a fallback. A forwarded write that went astray is tried again under the same request id, which is safe.
    pub async fn write(
        self: Arc<Self>,
        layout: &Arc<Layout>,
        request: Put,
        deadline: Instant,
    ) -> Result<Written, RequestError> {
        let list = layout.preference_list(&request.key);
        if list.is_primary(self.id()) {
            return self.coordinate(layout, request, deadline).await;
        }
        let (alive, silent): (Vec<NodeId>, Vec<NodeId>) =
            list.primaries().iter().partition(|node| self.is_available(**node));
        for primary in alive.into_iter().chain(silent) {
            if let Some(answer) = self.forward(primary, &request, deadline).await {
                return answer;
            }
        }
        self.coordinate(layout, request, deadline).await
    }

    /// Coordinates a write that another node forwarded. Only a primary does, so that no write is forwarded twice.
    pub async fn coordinate_forwarded(
        self: Arc<Self>,
        request: Put,
        deadline: Instant,
    ) -> Result<Written, RequestError> {
        let layout = self.serving_layout().map_err(|not| RequestError::Refused(not.refusal))?;
        if !layout.preference_list(&request.key).is_primary(self.id()) {
            return Err(RequestError::Refused(Refusal::OtherLayout));
        }
        let deadline = deadline.min(Instant::now() + self.config.request_timeout);
        self.coordinate(&layout, request, deadline).await
    }

    /// None if another primary should be tried.
    async fn forward(&self, to: NodeId, request: &Put, deadline: Instant) -> Option<Result<Written, RequestError>> {
        let link = self.peers.get(to, Class::Peer)?;
        let left = deadline.saturating_duration_since(Instant::now());
        // A write takes the coordinator's sync and a replica's: twice the usual, and it is slow.
        let patience = (link.writes.slow_after() * 2).min(left);
        let request = request.clone();
        let call = |client: Arc<PeerServiceClient>, mut context: CallContext| {
            context.deadline = deadline;
            async move { client.forward(context, request).await }
        };
        self.counters.writes_forwarded.add(1);
        match link.call(patience, call).await {
            Ok(Err(RequestError::Refused(_) | RequestError::NotServing(_))) | Err(_) => None,
            Ok(answer) => Some(answer),
        }
    }

    async fn coordinate(
        self: Arc<Self>,
        layout: &Arc<Layout>,
        request: Put,
        deadline: Instant,
    ) -> Result<Written, RequestError> {
        let (key, mode) = (request.key.clone(), layout.rules(request.key.bucket()).mode);
        let copies = layout.replicas_of(key.bucket());
        let quorum = Quorum::of_write(request.w, request.pw, copies)
            .map_err(|error| RequestError::Invalid(error.to_string()))?;
        self.check_clock(mode)?;
        let write = Write {
            seen: clock_of_context(layout, &request)?,
            value: request.value,
            request: request.request,
            mode,
            wall: Stamp::from_millis(wall_clock()),
            fresh_birth: Birth(rand::random()),
        };
        let task = Task::new(&self, layout, key.clone(), quorum, deadline)?;
        self.counters.writes_coordinated.add(1);
        let (reply, answer) = oneshot::channel();
        let node = Arc::clone(&self);
        let slot = Arc::clone(&self);
        self.spawn(async move {
            // Held until the last replica has answered.
            match slot.requests.try_acquire() {
                Ok(_room) => task.run(node, write, reply).await,
                Err(_) => {
                    node.counters.requests_refused.add(1);
                    drop(reply.send(Err(RequestError::Refused(Refusal::Overloaded))));
                }
            }
        });
        let (answer, minted) = answer.await.unwrap_or(Err(RequestError::Refused(Refusal::Stopping)))?;
        self.conclude(layout, &key, request.request, quorum, answer, &minted)
    }

    /// R6: a clock that runs ahead would win over writes that come later.
    fn check_clock(&self, mode: SiblingMode) -> Result<(), RequestError> {
        match mode {
            SiblingMode::LastWriteWins if self.clock_ahead() > self.config.max_clock_drift => {
                Err(RequestError::Refused(Refusal::ClockDrift))
            }
            SiblingMode::LastWriteWins | SiblingMode::Keep => Ok(()),
        }
    }

    fn conclude(
        &self,
        layout: &Layout,
        key: &ObjectKey,
        request: RequestId,
        quorum: Quorum,
        answer: Answer,
        minted: &Minted,
    ) -> Result<Written, RequestError> {
        let Answer { verdict, acknowledged, replicas } = answer;
        match verdict {
            Verdict::NothingDone(refusal) => Err(RequestError::Refused(refusal)),
            Verdict::Unknown => {
                self.counters.quorums_missed.add(1);
                Err(RequestError::WriteOutcomeUnknown { quorum, acknowledged, replicas })
            }
            Verdict::Acknowledged => Ok(Written {
                siblings: minted.object.present(layout.rules(key.bucket()).mode).len(),
                context: stands_alone(&minted.object, request).then(|| context_of(layout, key, &minted.object)),
                repeated: minted.how == Coordinated::Repeated,
                quorum,
                acknowledged,
                replicas,
            }),
        }
    }
}

/// Whether nothing is in the object but what its writer knows of.
fn stands_alone(object: &Object, request: RequestId) -> bool {
    matches!(object.siblings(), [only] if only.request == request)
}

/// One write being coordinated.
struct Task {
    layout: Arc<Layout>,
    key: ObjectKey,
    begun: Instant,
    plan: Plan,
}

impl Task {
    fn new(
        node: &Arc<Node>,
        layout: &Arc<Layout>,
        key: ObjectKey,
        quorum: Quorum,
        deadline: Instant,
    ) -> Result<Task, RequestError> {
        let begun = Instant::now();
        let deadline = deadline.saturating_duration_since(begun);
        if deadline.is_zero() {
            return Err(RequestError::Refused(Refusal::DeadlinePassed));
        }
        let may_hedge = node.hedges.pay_in();
        let describe = |id| node.candidate(id, may_hedge, |link: &Link| link.writes.slow_after());
        let (primaries, fallbacks) = Plan::candidates(&layout.preference_list(&key), describe);
        let plan = Plan {
            coordinator: node.id(),
            primaries,
            fallbacks,
            quorum,
            deadline,
            give_up_after: node.config.replica_timeout,
        };
        Ok(Task { layout: Arc::clone(layout), key, begun, plan })
    }

    /// Runs the machine to its end; tells the outcome as soon as it is decided.
    async fn run(self, node: Arc<Node>, write: Write, reply: oneshot::Sender<Outcome>) {
        let (mut machine, mut actions) = Machine::start(self.plan.clone());
        let mut running: FuturesUnordered<BoxFuture<'_, Happened>> = FuturesUnordered::new();
        let (mut write, mut reply, mut minted) = (Some(write), Some(reply), None::<Minted>);
        loop {
            for action in std::mem::take(&mut actions) {
                match action {
                    Action::Coordinate => running.extend(write.take().map(|write| self.store_here(&node, write))),
                    Action::Store { to, role } => {
                        running.extend(minted.as_ref().map(|minted| self.store_there(&node, to, role, &minted.object)));
                    }
                    Action::Answer(answer) => {
                        self.note_hedges(&node, &answer);
                        let minted = minted.clone().unwrap_or_else(nothing_minted);
                        tell(&mut reply, Ok((answer, minted)));
                    }
                }
            }
            if machine.is_done() {
                return;
            }
            let wake = machine.next_wake(self.begun.elapsed()).map(|at| self.begun + at);
            let event = match next(&mut running, wake).await {
                Happened::Replica(event) => event,
                Happened::OwnStore(Ok(own)) => {
                    minted = Some(own);
                    Event::Coordinated
                }
                Happened::OwnStore(Err(StoreError::Refused(refusal))) => Event::NotCoordinated(refusal),
                Happened::OwnStore(Err(error)) => {
                    tell(&mut reply, Err(self.own_failure(error)));
                    return;
                }
            };
            actions = machine.step(self.begun.elapsed(), event);
        }
    }

    fn store_here<'a>(&self, node: &Arc<Node>, write: Write) -> BoxFuture<'a, Happened> {
        let (node, key) = (Arc::clone(node), self.key.clone());
        async move { Happened::OwnStore(node.store.coordinate(key, write).await) }.boxed()
    }

    fn store_there<'a>(&self, node: &Arc<Node>, to: NodeId, role: Role, object: &Object) -> BoxFuture<'a, Happened> {
        let link = node.peers.get(to, Class::Peer);
        let request = Store { layout: self.layout.version(), key: self.key.clone(), object: object.clone(), role };
        let within = node.config.replica_timeout;
        async move {
            let stored = match link {
                Some(link) => link.store(request, within).await,
                None => Err(Failure::Unreachable),
            };
            Happened::Replica(match stored {
                Ok(()) => Event::Stored { by: to },
                Err(failure) => Event::Failed { by: to, failure },
            })
        }
        .boxed()
    }

    /// The own store took the write and failed, or the write itself is at fault.
    fn own_failure(&self, error: StoreError) -> RequestError {
        match error {
            StoreError::Unknown => RequestError::WriteOutcomeUnknown {
                quorum: self.plan.quorum,
                acknowledged: Tally::default(),
                replicas: Vec::new(),
            },
            other => crate::api::request_error(other),
        }
    }

    fn note_hedges(&self, node: &Node, answer: &Answer) {
        let hedges = answer.replicas.iter().filter(|replica| replica.hedge).count();
        node.hedges.pay_out(hedges);
        node.counters.hedges.add(hedges as u64);
    }
}

/// Tells the outcome, once. Whoever waited may have gone: its write goes on all the same.
fn tell(reply: &mut Option<oneshot::Sender<Outcome>>, outcome: Outcome) {
    if let Some(reply) = reply.take() {
        drop(reply.send(outcome));
    }
}

fn nothing_minted() -> Minted {
    Minted { object: Object::default(), how: Coordinated::Minted }
}

/// The next thing that happens, a tick at `wake` at the latest.
async fn next(running: &mut FuturesUnordered<BoxFuture<'_, Happened>>, wake: Option<Instant>) -> Happened {
    let wake = wake.unwrap_or_else(|| Instant::now() + Duration::from_secs(1));
    tokio::select! {
        Some(happened) = running.next() => happened,
        () = tokio::time::sleep_until(wake.into()) => Happened::Replica(Event::Tick),
    }
}
