//! Reads: asking replicas, merging, repairing.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use starling_core::get::{Action, Answer, Event, Get as Machine, Hinted, Plan};
use starling_core::ids::NodeId;
use starling_core::object::Object;
use starling_core::preference::{LayoutQuorum, PreferenceList};
use starling_core::quorum::{InvalidQuorum, Quorum};
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
        let invalid = |error: InvalidQuorum| RequestError::Invalid(error.to_string());
        let copies = request.ring.read().replicas_of(get.key.bucket());
        // By each ring anew: what is set is meant as far as the replicas can do it.
        let r = self.settings_of(&get.key).r_for(get.r, copies);
        let quorum = Quorum::of_read(r, get.pr, copies).map_err(invalid)?;
        let asked = get.key.clone();
        let task = Task::begin(&self, request, get.key, |link: &Link| link.reads.slow_after())?;
        let elsewhere = task.preference.repair_quorums(r, get.pr).map_err(invalid)?;
        let plan = task.read_plan(&self, quorum, get.wait_for_repair.then_some(elsewhere));
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
    /// `repaired`: what a read that waits for its repair waits for in other layouts.
    fn read_plan(&self, node: &Node, quorum: Quorum, repaired: Option<Vec<LayoutQuorum>>) -> Plan {
        let (reads, primaries) = (self.preference.reads(), self.preference.primaries());
        let fallbacks: Vec<NodeId> =
            reads.fallbacks().iter().copied().filter(|fallback| !primaries.contains(*fallback)).collect();
        Plan {
            primaries: self.candidates(&primaries.all()),
            fallbacks: self.candidates(&fallbacks),
            hinted: node.hinted(reads),
            quorum,
            wait_for_repair: repaired.is_some(),
            repair_quorums: repaired.unwrap_or_default(),
            deadline: self.time_limit(),
            wall: node.wall(),
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
        let (key, epoch, trace) = (self.key.clone(), self.epoch(), self.request.trace);
        async move {
            let replied = if id == node.id() {
                node.read_own(epoch, key).await.map_err(own_failure)
            } else {
                match node.peers.get(id, Class::Peer) {
                    Some(link) => link.read(Read { epoch, key }, trace, node.config.replica_timeout).await,
                    None => Err(Failure::Unreachable),
                }
            };
            match replied {
                Ok((standing, object)) => Event::Reply { from: id, standing, object },
                Err(failure) => {
                    node.heed_failure(id, failure);
                    Event::Failed { by: id, failure }
                }
            }
        }
        .boxed()
    }

    fn repair<'a>(&self, node: &'a Arc<Node>, id: NodeId, role: Role, object: Object) -> BoxFuture<'a, Event> {
        let (key, epoch, over, trace) = (self.key.clone(), self.epoch(), self.over(), self.request.trace);
        async move {
            let repaired = if id == node.id() {
                node.store.merge(epoch, over, key, object, role).await.map_err(own_failure)
            } else {
                match node.peers.get(id, Class::Peer) {
                    Some(link) => {
                        let store = Store { epoch, key, object, role };
                        link.store(store, over, trace, node.config.replica_timeout).await
                    }
                    None => Err(Failure::Unreachable),
                }
            };
            match repaired {
                Ok(()) => Event::Repaired { node: id },
                Err(failure) => {
                    node.heed_failure(id, failure);
                    Event::RepairFailed { node: id, failure }
                }
            }
        }
        .boxed()
    }
}
