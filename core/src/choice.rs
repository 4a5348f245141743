//! How the next entry of the layout log is chosen, once (R15): single-decree Paxos (Lamport, "Paxos Made Simple", 2001), an
//! instance of it for each entry.
//!
//! Who the acceptors are follows from the log so far ([`crate::ring::Ring::acceptors`]). Whoever wants to change the cluster
//! proposes; there is no leader.
//! A [`Vote`] is what one acceptor has promised and accepted; it has to be durable before what it answers is sent. A
//! [`Proposer`] makes one proposal: it collects promises from a majority, takes up the latest value that one of those has
//! accepted already, if any, and has that accepted by a majority. Then the value is chosen, for good: every later proposer
//! meets an acceptor that knows it. So a commit may be answered with another's plan, and says so.
//!
//! Two proposers can keep overtaking each other. Each backs off for a while that its driver draws, longer each time.
//!
//! An acceptor whose vote was lost, with its disk or by an old copy of it, must not answer again: it would forget what a
//! majority relies on. That is for the driver to see to: only the directory that is registered votes, and a copied one is
//! retired (R3).
//!
//! **By force.** Where a majority is gone for good nothing is chosen any more. Then those who are left can agree on a value
//! that leaves the others out ([`Exclusion`]), all of them, in ballots above all regular ones. Whoever has promised one takes
//! part in no regular ballot any more, and who has accepted one goes by nothing else ([`Vote::may_adopt`]): so where it was
//! chosen, none of those who agreed ever goes by what the others choose among themselves. Of two such values that can both be
//! gone by, the later leaves somebody out who agreed on the earlier: whoever proposes one and meets an earlier that leaves
//! out more, and may be chosen, is told so ([`Action::Bound`]), and has to finish that.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::fault::{self, Fault};
use crate::ids::NodeId;

/// A proposal's number. No two proposers have the same: a node that proposes again draws another nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ballot {
    pub round: u64,
    pub proposer: NodeId,
    pub nonce: u64,
}

impl Ballot {
    /// From this round on a ballot is above all regular ones.
    const FORCED: u64 = 1 << 63;

    /// Whether it takes all who are not left out, and not a majority.
    pub fn is_forced(&self) -> bool {
        self.round >= Ballot::FORCED
    }
}

/// A value that may leave nodes out.
pub trait Exclusion {
    /// Whom it leaves out, with all that they hold; none if it takes a majority.
    fn excluded(&self) -> Option<&BTreeSet<NodeId>>;
}

/// What one acceptor has promised and accepted for one entry. The default is of one that has not been asked yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote<V> {
    promised: Option<Ballot>,
    accepted: Option<(Ballot, V)>,
}

/// The acceptor has promised a later ballot to take part in no earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("another proposal, of round {}, has come first", promised.round)]
pub struct Overtaken {
    pub promised: Ballot,
}

impl<V> Default for Vote<V> {
    fn default() -> Vote<V> {
        Vote { promised: None, accepted: None }
    }
}

impl<V: Clone> Vote<V> {
    /// Promises to take part in no earlier ballot; tells what was accepted before. To be made durable before it is told.
    ///
    /// # Errors
    /// [`Overtaken`]: nothing has changed.
    pub fn promise(&mut self, ballot: Ballot) -> Result<Option<(Ballot, V)>, Overtaken> {
        self.check_not_overtaken(ballot)?;
        if !fault::is_on(Fault::ForgetfulAcceptor) {
            self.promised = Some(ballot);
        }
        Ok(self.accepted.clone())
    }

    /// Accepts the value. To be made durable before it is told.
    ///
    /// # Errors
    /// [`Overtaken`]: nothing has changed.
    pub fn accept(&mut self, ballot: Ballot, value: V) -> Result<(), Overtaken> {
        self.check_not_overtaken(ballot)?;
        self.promised = Some(ballot);
        self.accepted = Some((ballot, value));
        Ok(())
    }

    fn check_not_overtaken(&self, ballot: Ballot) -> Result<(), Overtaken> {
        match self.promised.filter(|promised| *promised > ballot) {
            Some(promised) => Err(Overtaken { promised }),
            None => Ok(()),
        }
    }

    /// What was accepted last. It may have been chosen.
    pub fn accepted(&self) -> Option<&V> {
        self.accepted.as_ref().map(|(_, value)| value)
    }

    /// Whether this acceptor may go by a value that is said to be chosen, by somebody with a vote who goes by it already, if
    /// that is known. What was accepted by force and would have needed that one is not chosen, and never will be.
    pub fn may_adopt(&self, value: &V, gone_by: Option<NodeId>) -> bool
    where
        V: PartialEq + Exclusion,
    {
        let Some((_, bound_to)) = self.accepted.as_ref().filter(|(ballot, _)| ballot.is_forced()) else { return true };
        let needs = |node: NodeId| bound_to.excluded().is_some_and(|out| !out.contains(&node));
        bound_to == value || gone_by.is_some_and(needs)
    }

    /// Whether this acceptor has promised, or accepted, to go on without others.
    pub fn is_bound_by_force(&self) -> bool {
        self.promised.is_some_and(|promised| promised.is_forced())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<V> {
    Promised {
        by: NodeId,
        ballot: Ballot,
        accepted: Option<(Ballot, V)>,
    },
    Accepted {
        by: NodeId,
        ballot: Ballot,
    },
    Overtaken {
        ballot: Ballot,
        promised: Ballot,
    },
    /// It was waited long enough, for answers or after [`Action::BackOff`].
    Tick,
}

/// Messages go to all acceptors; to send one twice, or not to some, does no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action<V> {
    Prepare {
        ballot: Ballot,
    },
    Accept {
        ballot: Ballot,
        value: V,
    },
    /// Somebody else is at it. Wait a while, then tick.
    BackOff,
    /// Comes once, unless what follows does.
    Chosen(V),
    /// This may have been chosen by force, and leaves out more than the own proposal, which is given up.
    Bound(V),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase<V> {
    Preparing(BTreeMap<NodeId, Option<(Ballot, V)>>),
    Accepting(V, BTreeSet<NodeId>),
    BackedOff,
    Done,
}

/// One proposal, until it or another is chosen.
#[derive(Debug, Clone)]
pub struct Proposer<V> {
    acceptors: BTreeSet<NodeId>,
    /// So many of them have to agree.
    needed: usize,
    own: V,
    ballot: Ballot,
    phase: Phase<V>,
}

impl<V: Clone + Exclusion> Proposer<V> {
    /// A majority of the acceptors has to agree, or all of them if the value leaves others out. `nonce` is drawn at random.
    pub fn start(node: NodeId, nonce: u64, acceptors: BTreeSet<NodeId>, value: V) -> (Proposer<V>, Vec<Action<V>>) {
        let (needed, round) = match value.excluded() {
            None => (acceptors.len() / 2 + 1, 1),
            Some(_) => (acceptors.len(), Ballot::FORCED),
        };
        let ballot = Ballot { round, proposer: node, nonce };
        let phase = Phase::Preparing(BTreeMap::new());
        (Proposer { acceptors, needed, own: value, ballot, phase }, vec![Action::Prepare { ballot }])
    }

    pub fn step(&mut self, event: Event<V>) -> Vec<Action<V>> {
        match event {
            Event::Promised { by, ballot, accepted } if ballot == self.ballot => self.promised(by, accepted),
            Event::Accepted { by, ballot } if ballot == self.ballot => self.accepted(by),
            Event::Overtaken { ballot, promised } if ballot == self.ballot => self.overtaken(promised),
            Event::Tick => self.try_again(),
            // Of an earlier round.
            Event::Promised { .. } | Event::Accepted { .. } | Event::Overtaken { .. } => Vec::new(),
        }
    }

    pub fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// How many acceptors have answered in this round, and how many it takes.
    pub fn progress(&self) -> (usize, usize) {
        let answered = match &self.phase {
            Phase::Preparing(promises) => promises.len(),
            Phase::Accepting(_, accepted) => accepted.len(),
            Phase::BackedOff => 0,
            Phase::Done => self.needed,
        };
        (answered, self.needed)
    }

    fn promised(&mut self, by: NodeId, accepted: Option<(Ballot, V)>) -> Vec<Action<V>> {
        let Phase::Preparing(promises) = &mut self.phase else { return Vec::new() };
        if self.acceptors.contains(&by) {
            promises.insert(by, accepted);
        }
        if promises.len() < self.needed {
            return Vec::new();
        }
        let value = match self.own.excluded() {
            None => promises.values().flatten().max_by_key(|(ballot, _)| *ballot).map(|(_, value)| value.clone()),
            Some(excluded) => match latest_without(excluded, promises) {
                Some(found) if found.excluded() != Some(excluded) => {
                    let bound = Action::Bound(found.clone());
                    self.phase = Phase::Done;
                    return vec![bound];
                }
                found => found.cloned(),
            },
        };
        let value = value.unwrap_or_else(|| self.own.clone());
        self.phase = Phase::Accepting(value.clone(), BTreeSet::new());
        vec![Action::Accept { ballot: self.ballot, value }]
    }

    fn accepted(&mut self, by: NodeId) -> Vec<Action<V>> {
        let Phase::Accepting(value, accepted) = &mut self.phase else { return Vec::new() };
        if self.acceptors.contains(&by) {
            accepted.insert(by);
        }
        if accepted.len() < self.needed {
            return Vec::new();
        }
        let chosen = Action::Chosen(value.clone());
        self.phase = Phase::Done;
        vec![chosen]
    }

    fn overtaken(&mut self, promised: Ballot) -> Vec<Action<V>> {
        if promised.is_forced() && !self.ballot.is_forced() {
            // That one does not take part any more: if a majority is left, it is without it.
            return Vec::new();
        }
        match self.phase {
            Phase::Preparing(_) | Phase::Accepting(..) => {
                // The next round has to be above what has come first.
                self.ballot.round = promised.round.max(self.ballot.round);
                self.phase = Phase::BackedOff;
                vec![Action::BackOff]
            }
            Phase::BackedOff | Phase::Done => Vec::new(),
        }
    }

    fn try_again(&mut self) -> Vec<Action<V>> {
        if self.is_done() {
            return Vec::new();
        }
        self.ballot.round += 1;
        self.phase = Phase::Preparing(BTreeMap::new());
        vec![Action::Prepare { ballot: self.ballot }]
    }
}

/// Of what was accepted by force, the latest that leaves out all of these and may be chosen: whoever would have had to agree
/// on it was asked, and has accepted it, or something later. Of any other somebody is given up who agreed, or would have to.
fn latest_without<'a, V: Exclusion>(
    excluded: &BTreeSet<NodeId>,
    promises: &'a BTreeMap<NodeId, Option<(Ballot, V)>>,
) -> Option<&'a V> {
    let may_be_chosen = |ballot: &Ballot, out: &BTreeSet<NodeId>| {
        let mut needed = promises.iter().filter(|(node, _)| !out.contains(node));
        needed.all(|(_, accepted)| accepted.as_ref().is_some_and(|(later, _)| later >= ballot))
    };
    let accepted = promises.values().flatten().filter(|(ballot, _)| ballot.is_forced());
    let found = accepted.filter(|(ballot, value)| {
        value.excluded().is_some_and(|out| out.is_superset(excluded) && may_be_chosen(ballot, out))
    });
    found.max_by_key(|(ballot, _)| *ballot).map(|(_, value)| value)
}
