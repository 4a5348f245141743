//! Bookkeeping that put and get share: whom was asked, as what, since when, and who may still be asked.

use std::collections::VecDeque;
use std::time::Duration;

use crate::ids::NodeId;
use crate::quorum::Tally;
use crate::report::{Failure, Outcome, Repair, ReplicaReport, Role};

/// A node as its asker sees it at the start of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub node: NodeId,
    /// Gossip takes it for dead. Only a reason to look for a stand-in at once, never to leave it out.
    pub believed_down: bool,
    /// It is slow if it has not answered after this long: somewhat above its usual delay.
    pub slow_after: Duration,
}

/// One node asked once.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub node: NodeId,
    pub role: Role,
    hedge: bool,
    /// None for the coordinator's own store, which is neither hedged nor given up.
    slow_after: Option<Duration>,
    asked_at: Duration,
    ended_at: Option<Duration>,
    pub outcome: Outcome,
    pub repair: Repair,
    /// Somebody was asked in its place already.
    replaced: bool,
}

impl Attempt {
    pub fn is_pending(&self) -> bool {
        self.outcome == Outcome::Pending
    }

    /// It has ended, and nobody was asked in its place.
    pub fn wants_stand_in(&self) -> bool {
        !self.is_pending() && !self.replaced
    }

    /// If it fails, somebody will be asked in its place.
    pub fn would_be_replaced(&self) -> bool {
        self.is_pending() && !self.replaced
    }

    pub fn is_primary(&self) -> bool {
        self.role == Role::Primary
    }

    /// None while it is pending.
    pub fn ended_at(&self) -> Option<Duration> {
        self.ended_at
    }

    pub fn is_slow(&self, now: Duration) -> bool {
        self.is_pending() && self.slow_at().is_some_and(|at| now >= at)
    }

    fn is_silent(&self, now: Duration, limit: Duration) -> bool {
        self.is_pending() && self.silent_at(limit).is_some_and(|at| now >= at)
    }

    fn slow_at(&self) -> Option<Duration> {
        self.asked_at.checked_add(self.slow_after?)
    }

    /// When it has been silent for `limit`.
    fn silent_at(&self, limit: Duration) -> Option<Duration> {
        self.slow_after.and_then(|_| self.asked_at.checked_add(limit))
    }

    /// The primary for which this attempt counts: itself, or whom it stands in for.
    pub fn on_behalf_of(&self) -> NodeId {
        match self.role {
            Role::Primary => self.node,
            Role::Fallback { stands_in_for } => stands_in_for,
        }
    }

    fn report(&self, now: Duration) -> ReplicaReport {
        ReplicaReport {
            node: self.node,
            role: self.role,
            hedge: self.hedge,
            outcome: self.outcome,
            took: self.ended_at.unwrap_or(now).saturating_sub(self.asked_at),
            repair: self.repair,
        }
    }
}

/// Everyone asked for one request, and the fallbacks left to ask.
#[derive(Debug, Clone)]
pub(crate) struct Attempts {
    asked: Vec<Attempt>,
    /// Those believed up come first.
    spare: VecDeque<Candidate>,
}

impl Attempts {
    pub fn new(fallbacks: &[Candidate]) -> Attempts {
        let (down, up): (Vec<_>, Vec<_>) = fallbacks.iter().partition(|candidate| candidate.believed_down);
        Attempts { asked: Vec::new(), spare: up.into_iter().chain(down).collect() }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Attempt> + Clone {
        self.asked.iter()
    }

    /// Asks the coordinator's own store: it always answers in the end, and nobody can stand in for it.
    pub fn ask_own_store(&mut self, node: NodeId, role: Role) {
        self.push(Duration::ZERO, node, role, false, None);
    }

    pub fn ask(&mut self, now: Duration, candidate: Candidate, role: Role, hedge: bool) {
        self.push(now, candidate.node, role, hedge, Some(candidate.slow_after));
    }

    fn push(&mut self, now: Duration, node: NodeId, role: Role, hedge: bool, slow_after: Option<Duration>) {
        self.asked.push(Attempt {
            node,
            role,
            hedge,
            slow_after,
            asked_at: now,
            ended_at: None,
            outcome: Outcome::Pending,
            repair: Repair::NotNeeded,
            replaced: false,
        });
    }

    /// Asks the next spare node in place of `node`, once for each node. Returns it and the primary it stands in for.
    pub fn replace(&mut self, now: Duration, node: NodeId, hedge: bool) -> Option<(NodeId, NodeId)> {
        let attempt = self.asked.iter_mut().find(|attempt| attempt.node == node && !attempt.replaced)?;
        let spare = self.spare.pop_front()?;
        attempt.replaced = true;
        let stands_in_for = attempt.on_behalf_of();
        self.ask(now, spare, Role::Fallback { stands_in_for }, hedge);
        Some((spare.node, stands_in_for))
    }

    /// Asks a particular spare node on behalf of a primary.
    pub fn ask_spare(&mut self, now: Duration, node: NodeId, stands_in_for: NodeId) -> bool {
        let Some(index) = self.spare.iter().position(|candidate| candidate.node == node) else { return false };
        let Some(candidate) = self.spare.remove(index) else { return false };
        self.ask(now, candidate, Role::Fallback { stands_in_for }, false);
        true
    }

    pub fn slow(&self, now: Duration) -> Vec<NodeId> {
        self.asked.iter().filter(|a| a.is_slow(now) && !a.replaced).map(|a| a.node).collect()
    }

    pub fn pending_longer_than(&self, now: Duration, limit: Duration) -> Vec<NodeId> {
        self.asked.iter().filter(|a| a.is_silent(now, limit)).map(|a| a.node).collect()
    }

    /// Records how an attempt ended. False if the node was not asked, or has ended before (a late answer after
    /// [`Failure::NoAnswer`] replaces that).
    pub fn end(&mut self, now: Duration, node: NodeId, outcome: Outcome) -> bool {
        let Some(attempt) = self.find_mut(node) else { return false };
        let open = attempt.is_pending() || attempt.outcome == Outcome::Failed(Failure::NoAnswer);
        if open {
            attempt.outcome = outcome;
            attempt.ended_at = Some(now);
        }
        open
    }

    pub fn set_repair(&mut self, node: NodeId, repair: Repair) {
        if let Some(attempt) = self.find_mut(node) {
            attempt.repair = repair;
        }
    }

    pub fn any_pending(&self) -> bool {
        self.asked.iter().any(Attempt::is_pending)
    }

    pub fn pending(&self) -> Tally {
        tally(self.asked.iter().filter(|attempt| attempt.is_pending()))
    }

    pub fn keep_spares(&mut self, limit: usize) {
        self.spare.truncate(limit);
    }

    /// Those who have not been asked.
    pub fn spares(&self) -> Tally {
        Tally { primaries: 0, fallbacks: self.spare.len() }
    }

    pub fn spare_nodes(&self) -> impl Iterator<Item = NodeId> + Clone {
        self.spare.iter().map(|candidate| candidate.node)
    }

    /// Those who may still answer, and those who may still be asked.
    pub fn within_reach(&self) -> impl Iterator<Item = NodeId> + Clone {
        let pending = self.asked.iter().filter(|attempt| attempt.is_pending()).map(|attempt| attempt.node);
        pending.chain(self.spare_nodes())
    }

    /// When the next attempt turns slow or exceeds `limit`. What was due at `looked_at` has been dealt with; what has
    /// become due since has not, whatever the time is now.
    pub fn next_wake(&self, looked_at: Duration, limit: Duration) -> Option<Duration> {
        let pending = self.asked.iter().filter(|a| a.is_pending());
        pending.flat_map(|a| [a.slow_at(), a.silent_at(limit)]).flatten().filter(|at| *at > looked_at).min()
    }

    pub fn reports(&self, now: Duration) -> Vec<ReplicaReport> {
        self.asked.iter().map(|attempt| attempt.report(now)).collect()
    }

    fn find_mut(&mut self, node: NodeId) -> Option<&mut Attempt> {
        self.asked.iter_mut().find(|attempt| attempt.node == node)
    }
}

/// Counts attempts by role.
pub(crate) fn tally<'a>(attempts: impl Iterator<Item = &'a Attempt>) -> Tally {
    attempts.fold(Tally::default(), |mut tally, attempt| {
        if attempt.is_primary() {
            tally.primaries += 1
        } else {
            tally.fallbacks += 1
        }
        tally
    })
}
