//! The put machine: from a coordinator's durable write to an acknowledged one (Dynamo, sections 4.5 and 4.6).
//!
//! 1. The coordinator applies the write to its own copy and makes it durable ([`Action::Coordinate`]).
//! 2. Every other primary is sent the merged object at once, those that gossip takes for dead included: its word is a
//!    hint, and a dead node's connection fails at once.
//! 3. A primary that is believed down, fails, or is slow is stood in for by the next fallback, which keeps a hint for it.
//!    Each node is asked once.
//! 4. The write is answered when its quorum is met (while the layout changes: in each layout that is written), when that has become impossible, or at the deadline. What is short
//!    of its quorum is *unknown*: the copies that were made may survive. Whoever is told so wants to know how many there
//!    are, so an impossible write still waits for those that are within their usual delay.
//! 5. After the answer the machine goes on until every attempt has ended, so that a primary which fails late still gets
//!    its hint. Slowness alone leaves no more hints then: only a primary that has been silent for `give_up_after` does, and
//!    one that nobody stands in for. Past the deadline one stand-in for each primary has to do: on a ring of many dead
//!    nodes it would go on for long.

use std::time::Duration;

use crate::attempt::{Attempt, Attempts};
use crate::fault::{self, Fault};
use crate::ids::NodeId;
use crate::preference::LayoutQuorum;
use crate::quorum::{Quorum, Tally};
use crate::report::{Failure, Outcome, Refusal, ReplicaReport, Role};

pub use crate::attempt::Candidate;

/// What the coordinator knows when a write begins. Times are counted from then.
#[derive(Debug, Clone)]
pub struct Plan {
    pub coordinator: NodeId,
    /// Of all layouts that are written, in order of preference; includes the coordinator if it is one.
    pub primaries: Vec<Candidate>,
    /// In order of preference; includes the coordinator if it is one.
    pub fallbacks: Vec<Candidate>,
    /// In each layout that is written: one, unless the layout is about to change (R16).
    pub quorums: Vec<LayoutQuorum>,
    pub deadline: Duration,
    /// A node that has been silent for this long is not waited for any more.
    pub give_up_after: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The coordinator's own copy is durable.
    Coordinated,
    /// The coordinator's store took nothing.
    NotCoordinated(Refusal),
    /// The object is durable on this node.
    Stored { by: NodeId },
    /// Of the coordinator itself: its store cannot tell whether it took the write, as after a failed sync (R13).
    Failed { by: NodeId, failure: Failure },
    /// Time has passed.
    Tick,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Apply the write to the own copy.
    Coordinate,
    /// Send the merged object; a fallback keeps a hint for whom it stands in.
    Store { to: NodeId, role: Role },
    /// Tell the client. Comes exactly once.
    Answer(Answer),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The quorum has the write.
    Acknowledged,
    /// Some replicas may have it, fewer than were asked for.
    Unknown,
    /// No replica has it.
    NothingDone(Refusal),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub verdict: Verdict,
    /// Of the quorums that were asked for, the first that is not met, or else the first.
    pub quorum: Quorum,
    /// Who has made it durable so far, counted for that quorum.
    pub acknowledged: Tally,
    pub replicas: Vec<ReplicaReport>,
}

#[derive(Debug, Clone)]
pub struct Put {
    plan: Plan,
    attempts: Attempts,
    answered: bool,
    /// The time of the last step.
    looked_at: Duration,
}

impl Put {
    pub fn start(plan: Plan) -> (Put, Vec<Action>) {
        let others = |candidates: &[Candidate]| -> Vec<Candidate> {
            candidates.iter().copied().filter(|candidate| candidate.node != plan.coordinator).collect()
        };
        let mut attempts = Attempts::new(&others(&plan.fallbacks));
        attempts.ask_own_store(plan.coordinator, own_role(&plan));
        (Put { plan, attempts, answered: false, looked_at: Duration::ZERO }, vec![Action::Coordinate])
    }

    /// Takes in what happened at `now` and returns what is to be done.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.looked_at = now;
        match event {
            Event::Coordinated => {
                if self.attempts.end(now, self.plan.coordinator, Outcome::Stored) {
                    self.send_to_primaries(now, &mut actions);
                }
            }
            Event::NotCoordinated(refusal) => {
                if self.attempts.end(now, self.plan.coordinator, Outcome::Failed(Failure::Refused(refusal))) {
                    self.answer(now, Verdict::NothingDone(refusal), &mut actions);
                }
            }
            Event::Stored { by } => {
                self.attempts.end(now, by, Outcome::Stored);
            }
            Event::Failed { by, failure } if by == self.plan.coordinator => {
                // Its batch is unknown (R13), and there is no merged object to send on.
                if self.attempts.end(now, by, Outcome::Failed(failure)) {
                    self.answer(now, Verdict::Unknown, &mut actions);
                }
            }
            Event::Failed { by, failure } => self.fail(now, by, failure, &mut actions),
            Event::Tick => {}
        }
        self.answer_if_decided(now, &mut actions);
        // At every step: an event may overtake the tick that was due.
        self.look_for_slowness(now, &mut actions);
        self.answer_if_decided(now, &mut actions);
        actions
    }

    /// When the machine wants its next [`Event::Tick`], if nothing else happens before. That may be overdue already, if
    /// time has passed since the last step.
    pub fn next_wake(&self, now: Duration) -> Option<Duration> {
        let attempts = self.attempts.next_wake(now.min(self.looked_at), self.plan.give_up_after);
        let deadline = (!self.answered).then_some(self.plan.deadline);
        attempts.into_iter().chain(deadline).min()
    }

    /// Answered, and nobody is waited for.
    pub fn is_done(&self) -> bool {
        self.answered && !self.attempts.any_pending()
    }

    fn send_to_primaries(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for primary in self.plan.primaries.clone() {
            if primary.node == self.plan.coordinator {
                continue;
            }
            self.attempts.ask(now, primary, Role::Primary, false);
            actions.push(Action::Store { to: primary.node, role: Role::Primary });
            if primary.believed_down {
                self.stand_in(now, primary.node, false, actions);
            }
        }
    }

    fn fail(&mut self, now: Duration, node: NodeId, failure: Failure, actions: &mut Vec<Action>) {
        if self.attempts.end(now, node, Outcome::Failed(failure)) {
            self.stand_in(now, node, false, actions);
        }
    }

    fn look_for_slowness(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for node in self.attempts.pending_longer_than(now, self.plan.give_up_after) {
            self.fail(now, node, Failure::NoAnswer, actions);
        }
        if !self.answered {
            for node in self.attempts.slow(now) {
                self.stand_in(now, node, true, actions);
            }
        }
    }

    fn stand_in(&mut self, now: Duration, node: NodeId, hedge: bool, actions: &mut Vec<Action>) {
        let superfluous = self.answered && self.is_provided_for(node);
        let too_late = now >= self.plan.deadline && self.has_stand_in(node);
        if superfluous || too_late || self.stood_in_by_coordinator(node) {
            return;
        }
        if let Some((to, stands_in_for)) = self.attempts.replace(now, node, hedge) {
            actions.push(Action::Store { to, role: Role::Fallback { stands_in_for } });
        }
    }

    /// Another than `node` has stored it, or may still, for the primary that `node` was asked for.
    fn is_provided_for(&self, node: NodeId) -> bool {
        let provides = |a: &Attempt| a.node != node && (a.outcome == Outcome::Stored || a.would_be_replaced());
        self.on_behalf_of_the_same(node).any(provides)
    }

    /// A fallback was asked already for the primary that `node` was asked for.
    fn has_stand_in(&self, node: NodeId) -> bool {
        self.on_behalf_of_the_same(node).any(|attempt| !attempt.is_primary())
    }

    fn on_behalf_of_the_same(&self, node: NodeId) -> impl Iterator<Item = &Attempt> {
        let primary = self.attempts.iter().find(|attempt| attempt.node == node).map(Attempt::on_behalf_of);
        self.attempts.iter().filter(move |attempt| Some(attempt.on_behalf_of()) == primary)
    }

    /// A coordinator that is a fallback holds a hint for the first primary itself.
    fn stood_in_by_coordinator(&self, primary: NodeId) -> bool {
        own_role(&self.plan) == Role::Fallback { stands_in_for: primary }
    }

    fn answer_if_decided(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let possible = self.own_pending() || self.is_met_by(self.stored().chain(self.attempts.within_reach()));
        let worth_waiting = possible || self.attempts.iter().any(|a| a.is_pending() && !a.is_slow(now));
        let one = fault::is_on(Fault::AcknowledgeByOne) && self.stored().next().is_some();
        if one || self.is_met_by(self.stored()) {
            self.answer(now, Verdict::Acknowledged, actions);
        } else if now >= self.plan.deadline || !worth_waiting {
            self.answer(now, Verdict::Unknown, actions);
        }
    }

    fn is_met_by(&self, nodes: impl Iterator<Item = NodeId> + Clone) -> bool {
        self.first_unmet_by(nodes).is_none()
    }

    fn first_unmet_by(&self, nodes: impl Iterator<Item = NodeId> + Clone) -> Option<&LayoutQuorum> {
        self.plan.quorums.iter().find(|layout| !layout.quorum.is_met(self.tally(layout, nodes.clone())))
    }

    fn tally(&self, layout: &LayoutQuorum, nodes: impl Iterator<Item = NodeId>) -> Tally {
        let tally = layout.tally(nodes);
        if fault::is_on(Fault::FallbackCountsAsPrimary) {
            return Tally { primaries: tally.primaries + tally.fallbacks, fallbacks: 0 };
        }
        tally
    }

    fn own_pending(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.node == self.plan.coordinator && attempt.is_pending())
    }

    fn answer(&mut self, now: Duration, verdict: Verdict, actions: &mut Vec<Action>) {
        if self.answered {
            return;
        }
        self.answered = true;
        let replicas = self.attempts.reports(now);
        let told = self.first_unmet_by(self.stored()).or(self.plan.quorums.first());
        let layout = told.expect("at least one layout is written");
        let (quorum, acknowledged) = (layout.quorum, self.tally(layout, self.stored()));
        actions.push(Action::Answer(Answer { verdict, quorum, acknowledged, replicas }));
    }

    fn stored(&self) -> impl Iterator<Item = NodeId> + Clone {
        self.attempts.iter().filter(|attempt| attempt.outcome == Outcome::Stored).map(|attempt| attempt.node)
    }
}

fn own_role(plan: &Plan) -> Role {
    let is_primary = plan.primaries.iter().any(|primary| primary.node == plan.coordinator);
    match plan.primaries.first() {
        Some(first) if !is_primary => Role::Fallback { stands_in_for: first.node },
        _ => Role::Primary,
    }
}
