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
    /// Comes once.
    Chosen(V),
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
    own: V,
    ballot: Ballot,
    phase: Phase<V>,
}

impl<V: Clone> Proposer<V> {
    /// `nonce` is drawn at random.
    pub fn start(node: NodeId, nonce: u64, acceptors: BTreeSet<NodeId>, value: V) -> (Proposer<V>, Vec<Action<V>>) {
        let ballot = Ballot { round: 1, proposer: node, nonce };
        let phase = Phase::Preparing(BTreeMap::new());
        (Proposer { acceptors, own: value, ballot, phase }, vec![Action::Prepare { ballot }])
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
            Phase::Done => self.majority(),
        };
        (answered, self.majority())
    }

    fn majority(&self) -> usize {
        self.acceptors.len() / 2 + 1
    }

    fn promised(&mut self, by: NodeId, accepted: Option<(Ballot, V)>) -> Vec<Action<V>> {
        let majority = self.majority();
        let Phase::Preparing(promises) = &mut self.phase else { return Vec::new() };
        if self.acceptors.contains(&by) {
            promises.insert(by, accepted);
        }
        if promises.len() < majority {
            return Vec::new();
        }
        let latest = promises.values().flatten().max_by_key(|(ballot, _)| *ballot);
        let value = latest.map_or_else(|| self.own.clone(), |(_, value)| value.clone());
        self.phase = Phase::Accepting(value.clone(), BTreeSet::new());
        vec![Action::Accept { ballot: self.ballot, value }]
    }

    fn accepted(&mut self, by: NodeId) -> Vec<Action<V>> {
        let majority = self.majority();
        let Phase::Accepting(value, accepted) = &mut self.phase else { return Vec::new() };
        if self.acceptors.contains(&by) {
            accepted.insert(by);
        }
        if accepted.len() < majority {
            return Vec::new();
        }
        let chosen = Action::Chosen(value.clone());
        self.phase = Phase::Done;
        vec![chosen]
    }

    fn overtaken(&mut self, promised: Ballot) -> Vec<Action<V>> {
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
