//! What the witness hears: every state and clock that is sent, and whether what clients are told of their requests is so.

use std::collections::BTreeSet;
use std::sync::Arc;

use starling_core::clock::Clock;
use starling_core::context::Context;
use starling_core::ids::{NodeId, RequestId};
use starling_core::name::ObjectKey;
use starling_core::object::{SiblingMode, Value};
use starling_core::report::{Outcome, ReplicaReport};
use starling_core::ring::{Epoch, Ring};
use starling_core::token::Token;
use starling_proto::data::{DataServiceRequest, DataServiceResponse, Got, GotLasting, Put, Written};
use starling_proto::peer::{PeerServiceRequest, PeerServiceResponse};

use super::account::Seen;
use super::{Invariant, Needed, Witness};
use crate::kernel::time::{self, Moment};
use crate::names;
use crate::wiretap::{Heard, Words};
use crate::workload::Levels;

/// In which layouts of a ring a quorum has to be met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Read,
    Written,
}

pub enum Asked {
    Put { key: ObjectKey, request: RequestId, asked: Levels, since: Epoch },
    Get { key: ObjectKey, asked: Levels, waits_for_repair: bool, at: Moment, since: Epoch },
    Read(ObjectKey),
}

impl Witness {
    /// Something was said on the network.
    pub fn heard(&mut self, heard: &Heard) {
        match &heard.words {
            Words::Hello(hello) => self.starts.hello(heard.connection, hello),
            Words::Welcome(Ok(welcome)) => self.starts.welcome(heard.connection, heard.from, welcome),
            _ => {}
        }
        let call = heard.call.map(|call| (heard.connection, call));
        let way = format!("the way from {} to {}", self.names.host(heard.from), self.names.host(heard.to));
        match (&heard.words, call) {
            (
                Words::ClientAsks(DataServiceRequest::Put { request } | DataServiceRequest::PutForGood { request }),
                Some(call),
            ) => self.asked_to_write(request, call),
            (Words::ClientAsks(DataServiceRequest::PutFor { request }), Some(call)) => {
                self.asked_to_write(&request.put, call);
            }
            (Words::PeerAsks(PeerServiceRequest::Forward { request }), Some(call)) => {
                self.asked_to_write(request, call)
            }
            (
                Words::ClientAsks(DataServiceRequest::Get { request } | DataServiceRequest::GetLasting { request }),
                Some(call),
            ) => {
                let key = request.key.clone();
                let asked = Levels { all: request.r, primaries: request.pr };
                let (waits_for_repair, at, since) = (request.wait_for_repair, time::now(), self.rings.oldest());
                self.asked.insert(call, Asked::Get { key, asked, waits_for_repair, at, since });
            }
            (Words::PeerAsks(PeerServiceRequest::Read { request }), Some(call)) => {
                self.asked.insert(call, Asked::Read(request.key.clone()));
            }
            (Words::PeerAsks(PeerServiceRequest::Store { request }), _) => {
                self.check_state(&request.key, &request.object, &way);
            }
            (Words::PeerAsks(PeerServiceRequest::StoreRead { request }), _) => {
                self.check_state(&request.store.key, &request.store.object, &way);
            }
            (Words::PeerAsks(PeerServiceRequest::Offer { request }), _) => {
                request.hints.iter().for_each(|(key, clock)| self.check_clock(key, clock, &way));
            }
            (Words::PeerAnswers(PeerServiceResponse::Forward(answer)), Some(call)) => {
                let Some(Asked::Put { key, request, .. }) = self.asked.remove(&call) else { return };
                if let Ok(written) = answer {
                    self.check_context(&key, request, written, &way);
                }
            }
            (Words::Cancelled | Words::Refused(_), Some(call)) => {
                self.asked.remove(&call);
            }
            (Words::PeerAnswers(PeerServiceResponse::Read(Ok(reply))), Some(call)) => {
                if let (Some(Asked::Read(key)), Some(object)) = (self.asked.remove(&call), &reply.object) {
                    self.check_state(&key, object, &way);
                }
            }
            (
                Words::NodeAnswers(
                    DataServiceResponse::Put(answer)
                    | DataServiceResponse::PutFor(answer)
                    | DataServiceResponse::PutForGood(answer),
                ),
                Some(call),
            ) => {
                if let (Some(Asked::Put { key, request, asked, since }), Ok(written)) =
                    (self.asked.remove(&call), answer)
                {
                    self.acknowledged(&key, request, asked, written, since);
                    self.check_context(&key, request, written, &way);
                }
            }
            (Words::NodeAnswers(DataServiceResponse::Get(Ok(got))), Some(call)) => self.told(call, got),
            (Words::NodeAnswers(DataServiceResponse::GetLasting(Ok(GotLasting { got, .. }))), Some(call)) => {
                self.told(call, got);
            }
            (
                Words::NodeAnswers(DataServiceResponse::Get(Err(_)) | DataServiceResponse::GetLasting(Err(_))),
                Some(call),
            ) => {
                self.asked.remove(&call);
            }
            _ => {}
        }
    }

    /// A client is answered.
    fn told(&mut self, call: (u64, u64), got: &Got) {
        let Some(Asked::Get { key, asked, waits_for_repair, at, since }) = self.asked.remove(&call) else { return };
        self.answered(&key, asked, got, since);
        if waits_for_repair {
            self.check_repaired(&key, asked, got, at, since);
        }
    }

    fn asked_to_write(&mut self, put: &Put, call: (u64, u64)) {
        let seen = put.context.as_ref().and_then(|context| self.clock_of(&put.key, context));
        let blind_delete = put.context.is_none() && put.value == Value::Tombstone;
        let seen = match seen {
            Some(clock) if self.mode(&put.key) == SiblingMode::Keep => Seen::Just(clock),
            None if self.mode(&put.key) == SiblingMode::Keep && !blind_delete => Seen::Just(Default::default()),
            _ => Seen::WhatItsCoordinatorHolds,
        };
        if blind_delete {
            self.accounts.note_blind_delete(&put.key);
        }
        self.accounts.asked(put.request, seen, &put.value);
        let asked = Levels { all: put.w, primaries: put.pw };
        let since = self.rings.oldest();
        self.asked.insert(call, Asked::Put { key: put.key.clone(), request: put.request, asked, since });
    }

    fn acknowledged(&mut self, key: &ObjectKey, request: RequestId, asked: Levels, written: &Written, since: Epoch) {
        self.check(Invariant::QuorumMet);
        let stored = |report: &&ReplicaReport| report.outcome == Outcome::Stored;
        let stored: BTreeSet<NodeId> = written.replicas.iter().filter(stored).map(|report| report.node).collect();
        self.check_quorum(key, asked, &stored, "write", since, Reach::Written);
        if let Some(holders) = self.holders(key, request)
            && !self.is_met(key, asked, &self.nodes(&holders), since, Reach::Written)
        {
            let what = format!(
                "{key}: {} was acknowledged, and is durable on {} nodes, where {all} was asked for, of primaries {of_primaries}",
                self.accounts.label(request),
                holders.len(),
                key = names::key(key),
                all = asked.all,
                of_primaries = asked.primaries,
            );
            self.breach(Invariant::QuorumMet, what);
        }
        let copies = |ring: &Arc<Ring>| ring.primaries(key).written().iter().map(Vec::len).min();
        let fewest = self.rings.since(since).filter_map(copies).min().unwrap_or_default();
        self.accounts.acknowledge(key, request, Needed::of(asked.all, asked.primaries, fewest).replicas);
    }

    /// A clock that is told without its siblings.
    fn check_clock(&mut self, key: &ObjectKey, clock: &Clock, at: &str) {
        self.check(Invariant::NothingInvented);
        if let Some(what) = self.accounts.ahead(clock) {
            self.breach(Invariant::NothingInvented, format!("{key} on {at}: {what}", key = names::key(key)));
        }
    }

    /// The context that a write returns covers that write and what it superseded: whoever writes with it has seen no more.
    fn check_context(&mut self, key: &ObjectKey, request: RequestId, written: &Written, at: &str) {
        let Some(clock) = written.context.as_ref().and_then(|context| self.clock_of(key, context)) else { return };
        self.check_clock(key, &clock, at);
        if self.mode(key) == SiblingMode::Keep
            && let Some(what) = self.accounts.covers_too_much(key, request, &clock)
        {
            self.breach(Invariant::NothingVanishes, format!("{key} on {at}: {what}", key = names::key(key)));
        }
    }

    /// What a context covers; none if it is none for this key.
    fn clock_of(&self, key: &ObjectKey, context: &[u8]) -> Option<Clock> {
        let cluster = self.ring()?.origin();
        let seen = Context::decode(context).ok()?.seen_of(cluster, Token::of(key)).ok()?;
        Some(seen.clock)
    }

    fn answered(&mut self, key: &ObjectKey, asked: Levels, got: &Got, since: Epoch) {
        self.check(Invariant::QuorumMet);
        let is_primary = |node: NodeId| self.rings.since(since).any(|ring| ring.primaries(key).read().contains(&node));
        let counts = |report: &&ReplicaReport| match report.outcome {
            Outcome::Found { .. } => true,
            Outcome::NotFound => is_primary(report.node),
            Outcome::Pending | Outcome::Stored | Outcome::Failed(_) => false,
        };
        let counted: BTreeSet<NodeId> = got.replicas.iter().filter(counts).map(|report| report.node).collect();
        self.check_quorum(key, asked, &counted, "read", since, Reach::Read);
        self.check_clock(key, &got.clock, "the way to a client");
        if self.mode(key) == SiblingMode::Keep
            && let Some(what) = self.accounts.hidden_by(key, got, time::wall().after(self.clocks.apart))
        {
            let what = format!("{key}, an answer to a client: {what}", key = names::key(key));
            self.breach(Invariant::NothingVanishes, what);
        }
    }

    /// A read that waited for its repair: its quorum holds what it returned, or held it until its disks were lost meanwhile.
    fn check_repaired(&mut self, key: &ObjectKey, asked: Levels, got: &Got, at: Moment, since: Epoch) {
        // What was deleted may be forgotten by now.
        if got.clock.is_empty() || self.accounts.reaped(key).covers_all(&got.clock) {
            return;
        }
        let holds = |index: &usize| self.mirrors[*index].has_covered_since(at, key, &got.clock);
        let holders: Vec<usize> = (0..self.mirrors.len()).filter(holds).collect();
        // A fallback may have handed its copy off meanwhile: to every primary, then.
        let handed_off = self.primaries(key).iter().all(|primary| holders.contains(primary));
        if !self.is_met(key, asked, &self.nodes(&holders), since, Reach::Written) && !handed_off {
            let what = format!(
                "{key}: a read that waited for its repair returned {}, which is held by {} nodes, where {all} was asked for, of primaries {of_primaries}",
                self.names.clock(&got.clock),
                holders.len(),
                key = names::key(key),
                all = asked.all,
                of_primaries = asked.primaries,
            );
            self.breach(Invariant::QuorumMet, what);
        }
    }

    /// Recounts, by what a ring says of each node that was in effect somewhere meanwhile.
    fn check_quorum(
        &mut self,
        key: &ObjectKey,
        asked: Levels,
        counted: &BTreeSet<NodeId>,
        what: &str,
        since: Epoch,
        reach: Reach,
    ) {
        if !self.is_met(key, asked, counted, since, reach) {
            let nodes: Vec<String> = counted.iter().map(|node| self.names.node(*node)).collect();
            let what = format!(
                "{key}: a {what} was answered as if its quorum was met, by {}, where {all} was asked for, of primaries {of_primaries}",
                nodes.join(" and "),
                key = names::key(key),
                all = asked.all,
                of_primaries = asked.primaries,
            );
            self.breach(Invariant::QuorumMet, what);
        }
    }

    /// By some ring that was in effect somewhere since then, in each layout that has to be reached.
    fn is_met(&self, key: &ObjectKey, asked: Levels, nodes: &BTreeSet<NodeId>, since: Epoch, reach: Reach) -> bool {
        let in_layout = |primaries: &[NodeId]| {
            let needed = Needed::of(asked.all, asked.primaries, primaries.len());
            needed.is_met(nodes.len(), nodes.iter().filter(|node| primaries.contains(node)).count())
        };
        self.rings.since(since).any(|ring| {
            let primaries = ring.primaries(key);
            match reach {
                Reach::Read => in_layout(primaries.read()),
                Reach::Written => primaries.written().iter().all(|layout| in_layout(layout)),
            }
        })
    }
}
