//! Writes: forwarding to a coordinator, and coordinating.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use starling_core::coordinate::{Coordinated, Write, WriteRefused};
use starling_core::fault::{self, Fault};
use starling_core::ids::{Birth, NodeId, RequestId};
use starling_core::object::{Object, SiblingMode};
use starling_core::pacing::Part;
use starling_core::preference::{LayoutQuorum, slow_ones_last};
use starling_core::put::{Action, Answer, Event, Plan, Put as Machine, Verdict};
use starling_core::quorum::{Level, Quorum, Tally};
use starling_core::report::{Failure, Refusal, Role};
use starling_core::stamp::Stamp;
use starling_proto::CallContext;
use starling_proto::data::{Put, RequestError, Written};
use starling_proto::hello::Class;
use starling_proto::peer::{PeerServiceClient, Store};
use starling_storage::{Minted, StoreError};
use tokio::sync::oneshot;

use crate::api::{context_of, seen_by_writer};
use crate::coordinator::{Request, Task, next};
use crate::link::Link;
use crate::node::Node;

/// What a coordinator's task tells whoever waits for it.
type Outcome = Result<(Answer, Option<Minted>), RequestError>;

/// Something that happened to a running write.
enum Happened {
    OwnStore(Result<Minted, StoreError>),
    Replica(Event),
}

/// What became of a write that was sent on to a primary.
enum Forwarded {
    Answered(Result<Written, RequestError>),
    NotDone,
    /// It may have been done.
    Silent,
}

impl Node {
    /// Has a write coordinated: here if this node is a primary that has all it should have, else by the first such primary
    /// that can be reached, else here all the same. A forwarded write that went astray is tried again under the same request
    /// id, which is safe; so is one that meets another ring.
    pub async fn write(self: Arc<Self>, mut request: Request, put: Put) -> Result<Written, RequestError> {
        let mut unknown = None;
        loop {
            let written = Arc::clone(&self).write_by(request.clone(), put.clone()).await;
            let newer = self.newer(&request, written.as_ref().err()).await;
            let written = match unknown.take() {
                Some(before) => written.map_err(|error| as_unknown(error, before)).map(as_first),
                None => written,
            };
            let Some(newer) = newer else { return written };
            if let Err(RequestError::WriteOutcomeUnknown { quorum, .. }) = written {
                unknown = Some(quorum);
            }
            request = newer;
        }
    }

    /// Has a write coordinated by the request's ring.
    async fn write_by(self: Arc<Self>, request: Request, put: Put) -> Result<Written, RequestError> {
        let list = request.ring.read().preference_list(&put.key);
        if list.is_primary(self.id()) && !self.is_filling(&request.ring, &put.key) {
            return self.coordinate(request, put).await;
        }
        let quorum = self.quorum_of(&request, &put)?;
        let others = list.primaries().iter().filter(|primary| **primary != self.id());
        let (alive, silent): (Vec<NodeId>, Vec<NodeId>) = others.partition(|node| self.is_available(**node));
        let mut may_be_done = false;
        let pace = |node: NodeId| self.peers.get(node, Class::Peer).map_or(Duration::ZERO, |link| link.pace());
        let alive = alive.into_iter().map(|node| (node, pace(node))).collect();
        for primary in slow_ones_last(alive).into_iter().chain(silent) {
            match self.forward(primary, &request, &put).await {
                Forwarded::Answered(answer) if may_be_done => return answer.map_err(|error| as_unknown(error, quorum)),
                Forwarded::Answered(answer) => return answer,
                Forwarded::NotDone => {}
                Forwarded::Silent => may_be_done = !fault::is_on(Fault::ForgetSilentForward),
            }
        }
        let written = self.coordinate(request, put).await;
        if may_be_done { written.map_err(|error| as_unknown(error, quorum)) } else { written }
    }

    /// Coordinates a write that another node forwarded. Only a primary does, so that no write is forwarded twice, and none
    /// that is filling: it would be outdone by what it lacks (R6, R8). Whoever forwarded it cannot know that a round of
    /// reaping has ended meanwhile, so it is tried again here.
    pub async fn coordinate_forwarded(self: Arc<Self>, request: Request, put: Put) -> Result<Written, RequestError> {
        let written = Arc::clone(&self).coordinate_as_primary(request.clone(), put.clone()).await;
        let Some(newer) = self.after_reaping(&request, written.as_ref().err()).await else { return written };
        let again = self.coordinate_as_primary(newer, put).await;
        match written {
            Err(RequestError::WriteOutcomeUnknown { quorum, .. }) => {
                again.map_err(|error| as_unknown(error, quorum)).map(as_first)
            }
            Ok(_) | Err(_) => again,
        }
    }

    async fn coordinate_as_primary(self: Arc<Self>, request: Request, put: Put) -> Result<Written, RequestError> {
        if !request.ring.read().preference_list(&put.key).is_primary(self.id()) {
            return Err(RequestError::Refused(Refusal::OtherLayout));
        }
        if self.is_filling(&request.ring, &put.key) {
            return Err(RequestError::Refused(Refusal::Filling));
        }
        self.coordinate(request, put).await
    }

    async fn forward(&self, to: NodeId, request: &Request, put: &Put) -> Forwarded {
        let Some(link) = self.peers.get(to, Class::Peer) else { return Forwarded::NotDone };
        // A write takes the coordinator's sync and a replica's: twice the usual, and it is slow.
        let patience = (link.writes.slow_after() * 2).min(request.time_left());
        let (put, deadline) = (put.clone(), request.deadline);
        let call = |client: Arc<PeerServiceClient>, mut context: CallContext| {
            context.deadline = deadline;
            async move { client.forward(context, put).await }
        };
        self.counters.writes_forwarded.add(1);
        match link.call(request.trace, patience, call).await {
            Ok(Err(RequestError::Refused(_) | RequestError::NotServing(_))) => Forwarded::NotDone,
            Ok(answer) => Forwarded::Answered(answer),
            Err(failure) if failure.is_definite() => Forwarded::NotDone,
            Err(_) => Forwarded::Silent,
        }
    }

    async fn coordinate(self: Arc<Self>, request: Request, put: Put) -> Result<Written, RequestError> {
        let ring = Arc::clone(&request.ring);
        let (key, mode) = (put.key.clone(), ring.read().rules(put.key.bucket()).mode);
        let w = self.w_of(&request, &put);
        let quorum = self.quorum_of(&request, &put)?;
        self.check_clock(mode)?;
        let write = Write {
            seen: seen_by_writer(&ring, &put)?,
            value: put.value,
            request: put.request,
            mode,
            wall: Stamp::from_millis(self.wall().0),
            fresh_birth: Birth(rand::random()),
        };
        let task = Task::begin(&self, request, key.clone(), |link: &Link| link.writes.slow_after())?;
        let quorums = task.preference.write_quorums(w, put.pw);
        let plan = task.write_plan(&self, quorums.map_err(|error| RequestError::Invalid(error.to_string()))?);
        let room = self.room_for_a_request()?;
        self.counters.writes_coordinated.add(1);
        let (reply, answer) = oneshot::channel();
        let node = Arc::clone(&self);
        self.spawn_for_request(async move {
            task.write(&node, plan, write, reply).await;
            // Held until the last replica has answered.
            drop(room);
        });
        let (answer, minted) = answer.await.unwrap_or_else(|_| Err(unknown(quorum)))?;
        if let Some(minted) = &minted {
            self.counters.longest_clock.raise_to(minted.object.clock().len() as u64);
        }
        let Answer { verdict, quorum, acknowledged, replicas } = answer;
        tracing::debug!(?key, ?verdict, ?acknowledged, "coordinated a write");
        match (verdict, minted) {
            (Verdict::NothingDone(refusal), _) => Err(RequestError::Refused(refusal)),
            (Verdict::Unknown, _) | (Verdict::Acknowledged, None) => {
                self.counters.quorums_missed.add(1);
                Err(RequestError::WriteOutcomeUnknown { quorum, acknowledged, replicas })
            }
            (Verdict::Acknowledged, Some(Minted { object, how })) => Ok(Written {
                siblings: object.present(mode, self.wall()).len(),
                context: stands_alone(&object, put.request).then(|| context_of(&ring, &key, &object)),
                repeated: how == Coordinated::Repeated,
                quorum,
                acknowledged,
                replicas,
            }),
        }
    }

    /// By each ring anew, and by whoever coordinates: what is set is meant as far as the replicas can do it.
    fn w_of(&self, request: &Request, put: &Put) -> Level {
        let copies = request.ring.read().replicas_of(put.key.bucket());
        self.settings_of(&put.key).w_for(put.w, copies)
    }

    fn quorum_of(&self, request: &Request, put: &Put) -> Result<Quorum, RequestError> {
        let copies = request.ring.read().replicas_of(put.key.bucket());
        let quorum = Quorum::of_write(self.w_of(request, put), put.pw, copies);
        quorum.map_err(|error| RequestError::Invalid(error.to_string()))
    }

    /// R6: a clock that runs ahead would win over writes that come later.
    fn check_clock(&self, mode: SiblingMode) -> Result<(), RequestError> {
        match mode {
            SiblingMode::LastWriteWins
                if self.clocks_apart().unwrap_or_default().ahead > self.config.max_clock_drift =>
            {
                Err(RequestError::Refused(Refusal::ClockDrift))
            }
            SiblingMode::LastWriteWins | SiblingMode::Keep => Ok(()),
        }
    }
}

/// That this node has tried it before is nobody's concern.
fn as_first(written: Written) -> Written {
    Written { repeated: false, ..written }
}

/// Whatever stood in the way here, a primary that fell silent may have carried it out.
fn as_unknown(error: RequestError, quorum: Quorum) -> RequestError {
    match error {
        told @ RequestError::WriteOutcomeUnknown { .. } => told,
        _ => unknown(quorum),
    }
}

fn unknown(quorum: Quorum) -> RequestError {
    RequestError::WriteOutcomeUnknown { quorum, acknowledged: Tally::default(), replicas: Vec::new() }
}

/// Whether nothing is in the object but what its writer knows of.
fn stands_alone(object: &Object, request: RequestId) -> bool {
    matches!(object.siblings(), [only] if only.request == request) || fault::is_on(Fault::ContextOfTheUnseen)
}

impl Task {
    fn write_plan(&self, node: &Node, quorums: Vec<LayoutQuorum>) -> Plan {
        Plan {
            coordinator: node.id(),
            primaries: self.candidates(&self.preference.primaries().all()),
            fallbacks: self.candidates(self.preference.fallbacks()),
            quorums,
            deadline: self.time_limit(),
            give_up_after: node.config.replica_timeout,
        }
    }

    /// Runs the machine to its end; tells the outcome as soon as it is decided.
    async fn write(self, node: &Arc<Node>, plan: Plan, write: Write, reply: oneshot::Sender<Outcome>) {
        let (mut machine, mut actions) = Machine::start(plan);
        let mut running: FuturesUnordered<BoxFuture<'_, Happened>> = FuturesUnordered::new();
        let (mut write, mut reply, mut minted) = (Some(write), Some(reply), None::<Minted>);
        loop {
            for action in std::mem::take(&mut actions) {
                match action {
                    Action::Coordinate => running.extend(write.take().map(|write| self.store_here(node, write))),
                    Action::Store { to, role } => {
                        running.extend(minted.as_ref().map(|minted| self.store_there(node, to, role, &minted.object)));
                    }
                    Action::Answer(answer) => {
                        node.note_hedges(&answer.replicas);
                        tell(&mut reply, Ok((answer, minted.clone())));
                    }
                }
            }
            if machine.is_done() {
                return;
            }
            let wake = machine.next_wake(self.begun.elapsed()).map(|at| self.begun + at);
            let event = match next(&mut running, wake).await.unwrap_or(Happened::Replica(Event::Tick)) {
                Happened::Replica(event) => event,
                Happened::OwnStore(Ok(own)) => {
                    minted = Some(own);
                    Event::Coordinated
                }
                Happened::OwnStore(Err(error)) => match own_store_failed(node.id(), error) {
                    Ok(event) => event,
                    Err(at_fault) => return tell(&mut reply, Err(at_fault)),
                },
            };
            actions = machine.step(self.begun.elapsed(), event);
        }
    }

    fn store_here<'a>(&self, node: &'a Arc<Node>, write: Write) -> BoxFuture<'a, Happened> {
        let (key, epoch, deadline) = (self.key.clone(), self.epoch(), self.request.deadline);
        async move {
            let began = Instant::now();
            let minted = node.store.coordinate(epoch, key, write, Some(deadline)).await;
            // What is refused or repeated waits for no sync, and would pass for a fast disk.
            if minted.as_ref().is_ok_and(|minted| minted.how == Coordinated::Minted) {
                node.handoff.note(Part::Write, began);
            }
            Happened::OwnStore(minted)
        }
        .boxed()
    }

    fn store_there<'a>(&self, node: &'a Arc<Node>, to: NodeId, role: Role, object: &Object) -> BoxFuture<'a, Happened> {
        let link = node.peers.get(to, Class::Peer);
        let store = Store { epoch: self.epoch(), key: self.key.clone(), object: object.as_sent(), role };
        let (trace, over) = (self.request.trace, self.over());
        async move {
            let stored = match link {
                Some(link) => link.store(store, over, trace, node.config.replica_timeout).await,
                None => Err(Failure::Unreachable),
            };
            Happened::Replica(match stored {
                Ok(()) => Event::Stored { by: to },
                Err(failure) => {
                    node.heed_failure(to, failure);
                    Event::Failed { by: to, failure }
                }
            })
        }
        .boxed()
    }
}

/// What the machine is told of it.
///
/// # Errors
/// The write itself is at fault: no other coordinator would take it.
fn own_store_failed(node: NodeId, error: StoreError) -> Result<Event, RequestError> {
    match error {
        StoreError::Refused(refusal) => Ok(Event::NotCoordinated(refusal)),
        StoreError::Unknown => Ok(Event::Failed { by: node, failure: Failure::SyncFailed }),
        StoreError::Damaged(reason) => {
            tracing::error!(reason, "the own copy of a key cannot be written to");
            Ok(Event::NotCoordinated(Refusal::Damaged))
        }
        StoreError::Write(WriteRefused::DirectoryCopied(_)) => Ok(Event::NotCoordinated(Refusal::NotAMember)),
        StoreError::Write(refused) => Err(RequestError::Invalid(refused.to_string())),
    }
}

/// Tells the outcome, once. Whoever waited may have gone: its write goes on all the same.
fn tell(reply: &mut Option<oneshot::Sender<Outcome>>, outcome: Outcome) {
    if let Some(reply) = reply.take() {
        drop(reply.send(outcome));
    }
}
