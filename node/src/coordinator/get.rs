//! Reads: asking replicas, merging, repairing.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use starling_core::get::{Action, Answer, Event, Get as Machine, Hinted, Plan, Standing};
use starling_core::ids::NodeId;
use starling_core::object::Object;
use starling_core::preference::PreferenceList;
use starling_core::quorum::Quorum;
use starling_core::report::{Failure, Role};
use starling_proto::data::{Get, RequestError};
use starling_proto::hello::Class;
use starling_proto::peer::{Read, Store};
use tokio::sync::oneshot;

use crate::coordinator::{Request, Task, next, own_failure};
use crate::link::Link;
use crate::node::Node;

impl Node {
    /// Reads from replicas until the request's quorum is met or cannot be met; repairs go on after that.
    pub async fn coordinate_get(self: Arc<Self>, request: Request, get: Get) -> Result<(Answer, Quorum), RequestError> {
        let copies = request.layout.replicas_of(get.key.bucket());
        let quorum =
            Quorum::of_read(get.r, get.pr, copies).map_err(|error| RequestError::Invalid(error.to_string()))?;
        let asked = get.key.clone();
        let task = Task::begin(&self, request, get.key, |link: &Link| link.reads.slow_after())?;
        let plan = task.read_plan(&self, quorum, get.wait_for_repair);
        let room = self.room_for_a_request()?;
        self.counters.reads_coordinated.add(1);
        let (reply, answer) = oneshot::channel();
        let node = Arc::clone(&self);
        self.spawn_for_request(async move {
            task.read(&node, plan, reply).await;
            // Held until the last repair has ended.
            drop(room);
        });
        let answer = answer.await.map_err(|_| RequestError::Internal("the read was not carried through".to_owned()))?;
        tracing::debug!(key = ?asked, met = answer.met, counted = ?answer.counted, "coordinated a read");
        self.counters.longest_clock.raise_to(answer.object.clock().len() as u64);
        Ok((answer, quorum))
    }

    /// Primaries that lack writes, each with those who hold hints for it.
    fn hinted(&self, list: &PreferenceList) -> Vec<Hinted> {
        let view = self.view();
        let mut hinted = Vec::new();
        for primary in list.primaries() {
            let mut holders = view.holders_of_hints_for(*primary);
            if self.store.holds_hints_for(*primary) && !holders.contains(&self.id()) {
                holders.push(self.id());
            }
            hinted.extend(holders.into_iter().map(|holder| Hinted { primary: *primary, holder }));
        }
        hinted
    }
}

impl Task {
    fn read_plan(&self, node: &Node, quorum: Quorum, wait_for_repair: bool) -> Plan {
        Plan {
            primaries: self.primaries.clone(),
            fallbacks: self.fallbacks.clone(),
            hinted: node.hinted(&self.list),
            quorum,
            wait_for_repair,
            deadline: self.time_limit(),
            give_up_after: node.config.replica_timeout,
        }
    }

    async fn read(self, node: &Arc<Node>, plan: Plan, reply: oneshot::Sender<Answer>) {
        let (mut machine, mut actions) = Machine::start(plan);
        let mut running: FuturesUnordered<BoxFuture<'_, Event>> = FuturesUnordered::new();
        let mut reply = Some(reply);
        loop {
            for action in std::mem::take(&mut actions) {
                match action {
                    Action::Ask { node: id } => running.push(self.ask(node, id)),
                    Action::Repair { node: id, role, object } => {
                        node.counters.read_repairs.add(1);
                        running.push(self.repair(node, id, role, object));
                    }
                    Action::Answer(answer) => {
                        node.note_hedges(&answer.replicas);
                        drop(reply.take().map(|reply| reply.send(answer)));
                    }
                }
            }
            if machine.is_done() {
                return;
            }
            let wake = machine.next_wake(self.begun.elapsed()).map(|at| self.begun + at);
            let event = next(&mut running, wake).await.unwrap_or(Event::Tick);
            actions = machine.step(self.begun.elapsed(), event);
        }
    }

    fn ask<'a>(&self, node: &'a Arc<Node>, id: NodeId) -> BoxFuture<'a, Event> {
        let (key, layout, trace) = (self.key.clone(), self.layout(), self.request.trace);
        async move {
            let replied = if id == node.id() {
                let own = node.read_store(move |store| store.get(&key)).await;
                own.map(|object| (Standing::Complete, object)).map_err(own_failure)
            } else {
                match node.peers.get(id, Class::Peer) {
                    Some(link) => link.read(Read { layout, key }, trace, node.config.replica_timeout).await,
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

    fn repair<'a>(&self, node: &'a Arc<Node>, id: NodeId, role: Role, object: Object) -> BoxFuture<'a, Event> {
        let (key, layout, trace) = (self.key.clone(), self.layout(), self.request.trace);
        async move {
            let repaired = if id == node.id() {
                node.store.merge(key, object, role).await.map_err(own_failure)
            } else {
                match node.peers.get(id, Class::Peer) {
                    Some(link) => {
                        let store = Store { layout, key, object, role };
                        link.store(store, trace, node.config.replica_timeout).await
                    }
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
