//! Reads: asking replicas, merging, repairing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use starling_core::get::{Action, Answer, Event, Get as Machine, Hinted, Plan, Standing};
use starling_core::ids::NodeId;
use starling_core::layout::Layout;
use starling_core::name::ObjectKey;
use starling_core::object::Object;
use starling_core::preference::PreferenceList;
use starling_core::put;
use starling_core::quorum::Quorum;
use starling_core::report::{Failure, Refusal, Role};
use starling_proto::data::{Get, RequestError};
use starling_proto::hello::Class;
use starling_proto::peer::{Read, Store};
use starling_storage::StoreError;
use tokio::sync::oneshot;

use crate::link::Link;
use crate::node::Node;

impl Node {
    /// Reads from replicas until the request's quorum is met or cannot be met; repairs go on after that.
    pub async fn coordinate_get(
        self: Arc<Self>,
        layout: &Arc<Layout>,
        request: Get,
        deadline: Instant,
    ) -> Result<(Answer, Quorum), RequestError> {
        let copies = layout.replicas_of(request.key.bucket());
        let quorum =
            Quorum::of_read(request.r, request.pr, copies).map_err(|error| RequestError::Invalid(error.to_string()))?;
        let task = Task::new(&self, layout, request, quorum, deadline)?;
        self.counters.reads_coordinated.add(1);
        let (reply, answer) = oneshot::channel();
        let (node, slot) = (Arc::clone(&self), Arc::clone(&self));
        self.spawn(async move {
            // Held until the last repair has ended.
            match slot.requests.try_acquire() {
                Ok(_room) => task.run(node, reply).await,
                Err(_) => node.counters.requests_refused.add(1),
            }
        });
        let answer = answer.await.map_err(|_| RequestError::Refused(Refusal::Overloaded))?;
        Ok((answer, quorum))
    }

    /// Primaries that lack writes, each with those who hold hints for it.
    fn hinted(&self, list: &PreferenceList) -> Vec<Hinted> {
        let view = self.view();
        let own = self.store.hints();
        let mut hinted = Vec::new();
        for primary in list.primaries() {
            let mut holders = view.holders_of_hints_for(*primary);
            if own.contains_key(primary) && !holders.contains(&self.id()) {
                holders.push(self.id());
            }
            hinted.extend(holders.into_iter().map(|holder| Hinted { primary: *primary, holder }));
        }
        hinted
    }
}

/// One read being coordinated.
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
        request: Get,
        quorum: Quorum,
        deadline: Instant,
    ) -> Result<Task, RequestError> {
        let begun = Instant::now();
        let deadline = deadline.saturating_duration_since(begun);
        if deadline.is_zero() {
            return Err(RequestError::Refused(Refusal::DeadlinePassed));
        }
        let list = layout.preference_list(&request.key);
        let may_hedge = node.hedges.pay_in();
        let describe = |id| node.candidate(id, may_hedge, |link: &Link| link.reads.slow_after());
        let (primaries, fallbacks) = put::Plan::candidates(&list, describe);
        let plan = Plan {
            primaries,
            fallbacks,
            hinted: node.hinted(&list),
            quorum,
            wait_for_repair: request.wait_for_repair,
            deadline,
            give_up_after: node.config.replica_timeout,
        };
        Ok(Task { layout: Arc::clone(layout), key: request.key, begun, plan })
    }

    async fn run(self, node: Arc<Node>, reply: oneshot::Sender<Answer>) {
        let (mut machine, mut actions) = Machine::start(self.plan.clone());
        let mut running: FuturesUnordered<BoxFuture<'_, Event>> = FuturesUnordered::new();
        let mut reply = Some(reply);
        loop {
            for action in std::mem::take(&mut actions) {
                match action {
                    Action::Ask { node: id } => running.push(self.ask(&node, id)),
                    Action::Repair { node: id, role, object } => {
                        node.counters.read_repairs.add(1);
                        running.push(self.repair(&node, id, role, object));
                    }
                    Action::Answer(answer) => {
                        let hedges = answer.replicas.iter().filter(|replica| replica.hedge).count();
                        node.hedges.pay_out(hedges);
                        node.counters.hedges.add(hedges as u64);
                        drop(reply.take().map(|reply| reply.send(answer)));
                    }
                }
            }
            if machine.is_done() {
                return;
            }
            let wake = machine.next_wake(self.begun.elapsed()).map(|at| self.begun + at);
            let event = next(&mut running, wake).await;
            actions = machine.step(self.begun.elapsed(), event);
        }
    }

    fn ask<'a>(&self, node: &Arc<Node>, id: NodeId) -> BoxFuture<'a, Event> {
        let (node, key, layout) = (Arc::clone(node), self.key.clone(), self.layout.version());
        async move {
            let replied = if id == node.id() {
                let own = node.read_store(move |store| store.get(&key)).await;
                own.map(|object| (Standing::Complete, object)).map_err(own_failure)
            } else {
                match node.peers.get(id, Class::Peer) {
                    Some(link) => link.read(Read { layout, key }, node.config.replica_timeout).await,
                    None => Err(Failure::Unreachable),
                }
            };
            match replied {
                Ok((standing, object)) => Event::Reply { from: id, standing, object },
                Err(failure) => Event::Failed { by: id, failure },
            }
        }
        .boxed()
    }

    fn repair<'a>(&self, node: &Arc<Node>, id: NodeId, role: Role, object: Object) -> BoxFuture<'a, Event> {
        let (node, key, layout) = (Arc::clone(node), self.key.clone(), self.layout.version());
        async move {
            let repaired = if id == node.id() {
                node.store.merge(key, object, role).await.map_err(own_failure)
            } else {
                match node.peers.get(id, Class::Peer) {
                    Some(link) => link.store(Store { layout, key, object, role }, node.config.replica_timeout).await,
                    None => Err(Failure::Unreachable),
                }
            };
            match repaired {
                Ok(()) => Event::Repaired { node: id },
                Err(failure) => Event::RepairFailed { node: id, failure },
            }
        }
        .boxed()
    }
}

fn own_failure(error: StoreError) -> Failure {
    match error {
        StoreError::Refused(refusal) => Failure::Refused(refusal),
        StoreError::Write(_) | StoreError::Unknown | StoreError::Engine(_) => {
            tracing::warn!(%error, "the own store could not answer");
            Failure::Refused(Refusal::StorageFailed)
        }
    }
}

/// The next thing that happens, a tick at `wake` at the latest.
async fn next(running: &mut FuturesUnordered<BoxFuture<'_, Event>>, wake: Option<Instant>) -> Event {
    let wake = wake.unwrap_or_else(|| Instant::now() + Duration::from_secs(1));
    tokio::select! {
        Some(event) = running.next() => event,
        () = tokio::time::sleep_until(wake.into()) => Event::Tick,
    }
}
