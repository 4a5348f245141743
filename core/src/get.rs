//! The get machine: from replicas' answers to one merged object, and to replicas that agree (Dynamo, section 4.5).
//!
//! 1. All primaries are asked at once, and with them those of the nearest fallbacks that hold hints for one of them: such
//!    a primary is known to lack writes (R8), so its answer counts only once the others have answered or are overdue.
//! 2. A primary that is believed down, fails, or is slow is stood in for by the next fallback. A primary's "not found"
//!    counts; a fallback's answer counts only if it holds the key. A filling replica's answer is merged and not counted;
//!    it is stood in for if the others cannot make up the quorum.
//! 3. The read is answered when its quorum is met, when that has become impossible and those within their usual delay have
//!    told what they have (so that its report says who is there), or at the deadline.
//! 4. When every attempt has ended, one way or another, each replica that answered with less than the merged object is
//!    sent it: primaries in any case, fallbacks if they hold the key.
//! 5. A read that waits for its repair is answered only once its quorum holds what it returns, by itself or by repair: a
//!    later read of the same quorum cannot go back behind it; while the layout changes, a quorum of each layout that is
//!    written. It begins its repairs when its quorum has answered and the
//!    others have had as long again. Who answers after that, or is repaired, can still make up the quorum.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::attempt::{Attempt, Attempts, tally};
use crate::clock::Clock;
use crate::fault::{self, Fault};
use crate::ids::NodeId;
use crate::object::{Object, SiblingMode};
use crate::preference::LayoutQuorum;
use crate::quorum::{Quorum, Tally};
use crate::report::{Failure, Outcome, Repair, ReplicaReport, Role};
use crate::wall::WallTime;

pub use crate::attempt::Candidate;

/// How many fallbacks a read looks through. A sloppy write goes to the first that are up, so looking further finds
/// nothing but delay: where a node has been down for a while, nearly all hold hints for it, of other keys.
const FALLBACKS_PER_PRIMARY: usize = 2;

/// What the coordinator knows when a read begins. Times are counted from then.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Of all layouts that are written. Those who are none in the layout that is read answer as [`Standing::Filling`].
    pub primaries: Vec<Candidate>,
    pub fallbacks: Vec<Candidate>,
    /// Primaries for which somebody holds hints, each with one that does.
    pub hinted: Vec<Hinted>,
    /// In the layout that is read.
    pub quorum: Quorum,
    pub wait_for_repair: bool,
    /// Of a read that waits for its repair, in the layouts that are written and not read: none, unless the layout is about
    /// to change (R16).
    pub repair_quorums: Vec<LayoutQuorum>,
    pub deadline: Duration,
    /// The time of day when it begins.
    pub wall: WallTime,
    /// A node that has been silent for this long is not waited for any more.
    pub give_up_after: Duration,
}

/// A primary that is known to lack writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hinted {
    pub primary: NodeId,
    pub holder: NodeId,
}

/// Whether a replica has all it should have (R8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    Complete,
    /// Its directory is new, part of its data was quarantined, or it is about to become a primary of the key: it may lack
    /// writes that were acknowledged.
    Filling,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Reply {
        from: NodeId,
        standing: Standing,
        object: Option<Object>,
    },
    Failed {
        by: NodeId,
        failure: Failure,
    },
    Repaired {
        node: NodeId,
    },
    RepairFailed {
        node: NodeId,
        failure: Failure,
    },
    /// Time has passed.
    Tick,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Ask {
        node: NodeId,
    },
    /// Send the merged object, to be held as what the node was asked as.
    Repair {
        node: NodeId,
        role: Role,
        object: Object,
    },
    /// Tell the client. Comes exactly once.
    Answer(Answer),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whether the quorum was met; the object is what was learnt in any case.
    pub met: bool,
    pub object: Object,
    /// Who counts towards the quorum; of a read that waits for its repair, only those who hold what it returns.
    pub counted: Tally,
    pub replicas: Vec<ReplicaReport>,
}

/// What a replica said, kept until the repairs are decided.
#[derive(Debug, Clone)]
struct Reply {
    from: NodeId,
    standing: Standing,
    clock: Clock,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Reading,
    /// What is returned is settled.
    Repairing,
    Done,
}

#[derive(Debug, Clone)]
pub struct Get {
    plan: Plan,
    attempts: Attempts,
    replies: Vec<Reply>,
    merged: Object,
    phase: Phase,
    answered: bool,
    /// The time of the last step.
    looked_at: Duration,
}

impl Get {
    pub fn start(mut plan: Plan) -> (Get, Vec<Action>) {
        plan.wait_for_repair &= !fault::is_on(Fault::NeverWaitForRepair);
        let attempts = Attempts::new(&plan.fallbacks);
        let mut get = Get {
            plan,
            attempts,
            replies: Vec::new(),
            merged: Object::default(),
            phase: Phase::Reading,
            answered: false,
            looked_at: Duration::ZERO,
        };
        let mut actions = Vec::new();
        get.ask_everyone_concerned(&mut actions);
        (get, actions)
    }

    /// Takes in what happened at `now` and returns what is to be done.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.looked_at = now;
        match event {
            Event::Reply { from, standing, object } => self.take_reply(now, from, standing, object, &mut actions),
            Event::Failed { by, failure } => self.fail(now, by, failure, &mut actions),
            Event::Repaired { node } => self.attempts.set_repair(node, Repair::Done),
            Event::RepairFailed { node, failure } => self.attempts.set_repair(node, Repair::Failed(failure)),
            Event::Tick => {}
        }
        self.advance(now, &mut actions);
        // At every step: an event may overtake the tick that was due.
        self.look_for_slowness(now, &mut actions);
        self.advance(now, &mut actions);
        actions
    }

    /// When the machine wants its next [`Event::Tick`], if nothing else happens before. That may be overdue already, if
    /// time has passed since the last step.
    pub fn next_wake(&self, now: Duration) -> Option<Duration> {
        let looked_at = now.min(self.looked_at);
        let attempts = self.attempts.next_wake(looked_at, self.plan.give_up_after);
        let deadline = (!self.answered).then_some(self.plan.deadline);
        let patience = self.out_of_patience().filter(|at| self.hurries(looked_at) && *at > looked_at);
        attempts.into_iter().chain(deadline).chain(patience).min()
    }

    pub fn is_done(&self) -> bool {
        self.answered && self.phase == Phase::Done
    }

    fn ask_everyone_concerned(&mut self, actions: &mut Vec<Action>) {
        for primary in self.plan.primaries.clone() {
            self.attempts.ask(Duration::ZERO, primary, Role::Primary, false);
            actions.push(Action::Ask { node: primary.node });
        }
        self.attempts.keep_spares(FALLBACKS_PER_PRIMARY * self.plan.primaries.len());
        for Hinted { primary, holder } in self.plan.hinted.clone() {
            if self.attempts.ask_spare(Duration::ZERO, holder, primary) {
                actions.push(Action::Ask { node: holder });
            }
        }
        for primary in self.plan.primaries.clone().iter().filter(|primary| primary.believed_down) {
            self.stand_in(Duration::ZERO, primary.node, false, actions);
        }
    }

    fn take_reply(
        &mut self,
        now: Duration,
        from: NodeId,
        standing: Standing,
        object: Option<Object>,
        actions: &mut Vec<Action>,
    ) {
        let outcome = match &object {
            Some(object) => Outcome::Found { siblings: object.present(SiblingMode::Keep, self.plan.wall).len() },
            None => Outcome::NotFound,
        };
        if !self.attempts.end(now, from, outcome) {
            return;
        }
        let object = object.unwrap_or_default();
        let reply = Reply { from, standing, clock: object.clock().clone() };
        if self.phase == Phase::Reading {
            self.merged.merge(&object);
        } else {
            // Too late to be part of what is returned, never too late to be repaired.
            self.repair_if_stale(&reply, actions);
        }
        self.replies.push(reply);
        let is_fallback = self.plan.fallbacks.iter().any(|fallback| fallback.node == from);
        if is_fallback && outcome == Outcome::NotFound && !self.answered {
            self.stand_in(now, from, false, actions);
        }
    }

    fn fail(&mut self, now: Duration, node: NodeId, failure: Failure, actions: &mut Vec<Action>) {
        let ended = self.attempts.end(now, node, Outcome::Failed(failure));
        if ended && !self.answered {
            self.stand_in(now, node, false, actions);
        }
    }

    fn look_for_slowness(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for node in self.attempts.pending_longer_than(now, self.plan.give_up_after) {
            self.fail(now, node, Failure::NoAnswer, actions);
        }
        if !self.answered && !self.plan.quorum.is_met(self.secured()) {
            for node in self.attempts.slow(now) {
                self.stand_in(now, node, true, actions);
            }
        }
    }

    fn stand_in(&mut self, now: Duration, node: NodeId, hedge: bool, actions: &mut Vec<Action>) {
        if let Some((node, _)) = self.attempts.replace(now, node, hedge) {
            actions.push(Action::Ask { node });
        }
    }

    fn advance(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.phase == Phase::Reading && self.may_answer(now) && self.needs_no_repair() {
            self.answer(now, true, actions);
        }
        if self.phase == Phase::Reading && self.nobody_to_wait_for(now) {
            self.begin_repairs(actions);
        }
        if self.phase == Phase::Repairing && self.needs_no_repair() {
            self.answer(now, true, actions);
        }
        if !self.answered && now < self.plan.deadline {
            self.make_up_for_the_lost(now, actions);
        }
        if !self.answered && (now >= self.plan.deadline || !self.is_worth_waiting(now)) {
            self.answer(now, false, actions);
        }
        if self.phase == Phase::Repairing && self.answered && !self.repairs_pending() && !self.attempts.any_pending() {
            self.phase = Phase::Done;
        }
    }

    fn is_worth_waiting(&self, now: Duration) -> bool {
        let is_met = self.plan.quorum.is_met(self.secured() + self.attempts.pending() + self.attempts.spares());
        let is_possible = is_met && self.can_be_held_elsewhere();
        is_possible || self.attempts.iter().any(|attempt| self.is_awaited(attempt, now))
    }

    /// Asks fallbacks in the place of those who answered without being of use (the filling, and those whose repair failed),
    /// if the quorum can be met only so.
    fn make_up_for_the_lost(&mut self, now: Duration, actions: &mut Vec<Action>) {
        while self.needs_more_fallbacks() {
            let of_use: BTreeSet<NodeId> = self.of_use().map(|attempt| attempt.node).collect();
            let lost = self.attempts.iter().find(|a| a.wants_stand_in() && !of_use.contains(&a.node));
            let Some(node) = lost.map(|attempt| attempt.node) else { return };
            self.stand_in(now, node, false, actions);
        }
    }

    fn needs_more_fallbacks(&self) -> bool {
        let without = self.secured() + self.attempts.pending();
        !self.plan.quorum.is_met(without) && self.plan.quorum.is_met(without + self.attempts.spares())
    }

    /// The quorum is met, and met by replicas that are not known to lack writes, unless there is no better to be had.
    fn may_answer(&self, now: Duration) -> bool {
        let doubtful: BTreeSet<NodeId> = self.plan.hinted.iter().map(|hinted| hinted.primary).collect();
        let others_ended = self.attempts.iter().all(|a| doubtful.contains(&a.node) || !self.is_awaited(a, now));
        let undoubted = tally(self.counting().filter(|attempt| !doubtful.contains(&attempt.node)));
        let enough = self.plan.quorum.is_met(undoubted) && (doubtful.is_empty() || !self.merged.is_unwritten());
        enough || (others_ended && self.plan.quorum.is_met(self.counted()))
    }

    /// Nothing is promised of those who hold less, or the quorum holds what is returned by now.
    fn needs_no_repair(&self) -> bool {
        let is_met = |layout: &LayoutQuorum| layout.is_met(self.holders().map(|attempt| attempt.node));
        !self.plan.wait_for_repair
            || (self.plan.quorum.is_met(self.up_to_date()) && self.plan.repair_quorums.iter().all(is_met))
    }

    /// Everyone has answered or failed. A read that waits for its repair does not wait for others for long.
    fn nobody_to_wait_for(&self, now: Duration) -> bool {
        let hurries = self.hurries(now);
        let late = self.out_of_patience().is_some_and(|at| now >= at);
        let settled = self.attempts.iter().all(|a| !a.is_pending() || (hurries && (late || !self.is_awaited(a, now))));
        // Without anything to repair whoever is waited for may as well have something to say.
        let is_of_use = self.answered || !self.plan.wait_for_repair || self.has_to_repair();
        settled && is_of_use && (self.answered || self.may_answer(now))
    }

    /// All that is left is to wait for a repair, and perhaps for what others have to say before.
    fn hurries(&self, now: Duration) -> bool {
        self.plan.wait_for_repair && !self.answered && self.phase == Phase::Reading && self.may_answer(now)
    }

    /// Others have as long again as the quorum took, however slow they usually are.
    fn out_of_patience(&self) -> Option<Duration> {
        self.counting().filter_map(|attempt| attempt.ended_at()).max().map(|met| met * 2)
    }

    /// Pending, and neither slow nor past the deadline.
    fn is_awaited(&self, attempt: &Attempt, now: Duration) -> bool {
        attempt.is_pending() && !attempt.is_slow(now) && now < self.plan.deadline
    }

    fn begin_repairs(&mut self, actions: &mut Vec<Action>) {
        self.phase = Phase::Repairing;
        for reply in std::mem::take(&mut self.replies) {
            self.repair_if_stale(&reply, actions);
            self.replies.push(reply);
        }
    }

    fn repair_if_stale(&mut self, reply: &Reply, actions: &mut Vec<Action>) {
        if let Some(role) = self.to_be_repaired_as(reply) {
            self.attempts.set_repair(reply.from, Repair::Sent);
            actions.push(Action::Repair { node: reply.from, role, object: self.merged.clone() });
        }
    }

    /// None if there is nothing to repair. A fallback without a copy owes nobody anything, and should not begin to.
    fn to_be_repaired_as(&self, reply: &Reply) -> Option<Role> {
        let role = self.attempts.iter().find(|attempt| attempt.node == reply.from).map(|attempt| attempt.role);
        role.filter(|role| self.is_stale(reply) && (*role == Role::Primary || !reply.clock.is_empty()))
    }

    fn has_to_repair(&self) -> bool {
        self.replies.iter().any(|reply| self.to_be_repaired_as(reply).is_some())
    }

    fn is_stale(&self, reply: &Reply) -> bool {
        !reply.clock.covers_all(self.merged.clock())
    }

    fn repairs_pending(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.repair == Repair::Sent)
    }

    fn answer(&mut self, now: Duration, met: bool, actions: &mut Vec<Action>) {
        if self.answered {
            return;
        }
        self.answered = true;
        if !met && self.phase == Phase::Reading {
            // What little was learnt is not worth a repair: the next read that meets its quorum does it.
            self.phase = Phase::Done;
        }
        let counted = if self.plan.wait_for_repair { self.up_to_date() } else { self.counted() };
        let replicas = self.attempts.reports(now);
        actions.push(Action::Answer(Answer { met, object: self.merged.clone(), counted, replicas }));
    }

    /// The attempts whose answers count towards the quorum.
    fn counting(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter(|attempt| {
            let counts = |standing| standing == Standing::Complete || fault::is_on(Fault::CountFilling);
            let complete = self.replies.iter().any(|r| r.from == attempt.node && counts(r.standing));
            let counts_without = attempt.is_primary() || fault::is_on(Fault::CountFallbackNotFound);
            match attempt.outcome {
                Outcome::Found { .. } => complete,
                Outcome::NotFound => complete && counts_without,
                Outcome::Pending | Outcome::Stored | Outcome::Failed(_) => false,
            }
        })
    }

    fn counted(&self) -> Tally {
        tally(self.counting())
    }

    /// Of those who count, all that need no repair, and those whose repair has not failed. What is returned has to be
    /// settled before a repair can fail.
    fn of_use(&self) -> impl Iterator<Item = &Attempt> {
        self.counting().filter(|attempt| !self.plan.wait_for_repair || !matches!(attempt.repair, Repair::Failed(_)))
    }

    fn secured(&self) -> Tally {
        tally(self.of_use())
    }

    /// Those of the counting replicas that hold what is about to be returned. A fallback may lack it unrepaired.
    fn up_to_date(&self) -> Tally {
        tally(self.counting().filter(|attempt| self.is_holder(attempt)))
    }

    /// Of a read that waits for its repair: the other layouts can have their quorum.
    fn can_be_held_elsewhere(&self) -> bool {
        let may_hold = |attempt: &&Attempt| {
            let replied = self.replies.iter().find(|r| r.from == attempt.node);
            let keeps_the_key = replied.is_some_and(|r| attempt.is_primary() || !r.clock.is_empty());
            let is_repairable = keeps_the_key && !matches!(attempt.repair, Repair::Failed(_));
            attempt.is_pending() || is_repairable || self.is_holder(attempt)
        };
        let nodes = self.attempts.iter().filter(may_hold).map(|attempt| attempt.node);
        let nodes: BTreeSet<NodeId> = nodes.chain(self.attempts.spare_nodes()).collect();
        let is_met = |layout: &LayoutQuorum| layout.is_met(nodes.iter().copied());
        !self.plan.wait_for_repair || self.plan.repair_quorums.iter().all(is_met)
    }

    fn holders(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter(|attempt| self.is_holder(attempt))
    }

    fn is_holder(&self, attempt: &Attempt) -> bool {
        let answered_with_all = |r: &Reply| r.from == attempt.node && !self.is_stale(r);
        attempt.repair == Repair::Done || self.replies.iter().any(answered_with_all)
    }
}
