//! Having a decree chosen: drives a proposer of [`starling_core::choice`] against the acceptors (R15).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use starling_core::choice::{Action, Ballot, Event, Exclusion, Proposer};
use starling_core::ids::NodeId;
use starling_core::report::Failure;
use starling_core::ring::{Decree, Entry, Epoch, Ring};
use starling_proto::hello::Class;
use starling_proto::peer::{Accept, PeerServiceClient, Prepare, VoteRefused};
use starling_storage::{AdoptError, NoVote, Store};

use crate::link::new_trace;
use crate::node::Node;

const CALL_LIMIT: Duration = Duration::from_secs(2);
/// A round that has not come to an end is begun again after this long.
const ROUND_LIMIT: Duration = Duration::from_secs(1);
/// Whoever is overtaken waits up to this long, twice as long each time.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MOST_BACKOFF: Duration = Duration::from_secs(2);

/// What was chosen as the next entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub entry: Entry,
    /// It is what was proposed.
    pub is_ours: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ChoiceError {
    #[error("it takes {needed} of {all} members, and {heard} answer; silent: {}", silent.join(", "))]
    NoMajority { heard: usize, needed: usize, all: usize, silent: Vec<String> },
    #[error(
        "{} agreed, or were asked, to go on without others, and take part in no other change: finish that with `starling \
         cluster force-remove`",
        bound.join(", ")
    )]
    GoingOnWithoutOthers { bound: Vec<String> },
    /// Some may have agreed to go on without these before, who are more than are given up now.
    #[error("going on without {} may have been agreed upon before, and has to be finished first", without.join(", "))]
    Bound { without: Vec<String> },
    #[error(transparent)]
    Adopt(#[from] AdoptError),
}

/// How a proposal ends.
enum Ending {
    Chosen(Decree),
    /// Others have adopted what was chosen before, and this node has learnt that.
    Learnt,
    Bound(Decree),
}

/// What an acceptor has to do with a proposal.
enum Heard {
    Of(Event<Decree>),
    /// It has adopted what was chosen already.
    Ahead(NodeId),
    /// It has promised to go on without others.
    Bound(NodeId),
    Nothing,
}

impl Node {
    /// Has a decree chosen as the entry of the log that follows this ring, by which it was found to be right; or learns which
    /// one was, and adopts that.
    ///
    /// # Errors
    /// [`ChoiceError`]. Where no majority has answered in time the decree may still be chosen later on.
    pub async fn decide(
        self: &Arc<Self>,
        ring: &Arc<Ring>,
        decree: Decree,
        deadline: Instant,
    ) -> Result<Choice, ChoiceError> {
        let wanted = ring.entry(decree.clone());
        let bound = Mutex::default();
        let ended = tokio::time::timeout_at(deadline.into(), self.choose(ring, &decree, &bound)).await;
        let entry = match ended {
            Ok(Ending::Chosen(decree)) => ring.entry(decree),
            Ok(Ending::Bound(other)) => {
                let without = self.names_in(ring, other.excluded().into_iter().flatten());
                return Err(ChoiceError::Bound { without });
            }
            // Whoever is ahead has told by now.
            Ok(Ending::Learnt) | Err(_) => match self.adopted_as(wanted.epoch).await {
                Some(entry) => entry,
                None => {
                    let bound = bound.into_inner().unwrap_or_else(PoisonError::into_inner);
                    return Err(match self.names_in(ring, &bound) {
                        bound if bound.is_empty() => self.too_few(ring, decree.excluded()),
                        bound => ChoiceError::GoingOnWithoutOthers { bound },
                    });
                }
            },
        };
        self.append(entry.clone(), None).await?;
        Ok(Choice { is_ours: entry == wanted, entry })
    }

    /// `bound` tells who takes part in nothing but a choice by force.
    async fn choose(self: &Arc<Self>, ring: &Arc<Ring>, decree: &Decree, bound: &Mutex<BTreeSet<NodeId>>) -> Ending {
        let epoch = Epoch(ring.epoch().0 + 1);
        let acceptors = who_chooses(ring, decree.excluded());
        let (mut proposer, mut actions) = Proposer::start(self.id(), rand::random(), acceptors.clone(), decree.clone());
        let mut running: FuturesUnordered<BoxFuture<'static, Heard>> = FuturesUnordered::new();
        let (mut backoff, mut wait) = (FIRST_BACKOFF, ROUND_LIMIT);
        loop {
            for action in std::mem::take(&mut actions) {
                match action {
                    Action::Prepare { ballot } => {
                        running.extend(acceptors.iter().map(|to| self.ask_to_promise(*to, ring, ballot)));
                        wait = ROUND_LIMIT;
                    }
                    Action::Accept { ballot, value } => {
                        running.extend(acceptors.iter().map(|to| self.ask_to_accept(*to, ring, ballot, &value)));
                        wait = ROUND_LIMIT;
                    }
                    Action::BackOff => {
                        wait = backoff.mul_f64(rand::random_range(0.5..1.5));
                        backoff = (backoff * 2).min(MOST_BACKOFF);
                    }
                    Action::Chosen(decree) => return Ending::Chosen(decree),
                    Action::Bound(decree) => return Ending::Bound(decree),
                }
            }
            let heard = tokio::select! {
                Some(heard) = running.next() => heard,
                () = tokio::time::sleep(wait) => {
                    actions = proposer.step(Event::Tick);
                    continue;
                }
            };
            match heard {
                Heard::Of(event) => actions = proposer.step(event),
                Heard::Bound(node) => {
                    bound.lock().unwrap_or_else(PoisonError::into_inner).insert(node);
                }
                Heard::Ahead(peer) => {
                    if let Err(error) = self.catch_up_with(peer).await {
                        tracing::debug!(%peer, %error, "cannot adopt what an acceptor goes by");
                    }
                    if self.store.ring().is_some_and(|ring| ring.epoch() >= epoch) {
                        return Ending::Learnt;
                    }
                }
                Heard::Nothing => {}
            }
        }
    }

    async fn adopted_as(&self, epoch: Epoch) -> Option<Entry> {
        let before = Epoch(epoch.0.saturating_sub(1));
        let entries = self.read_store(move |store| store.entries(before, 1)).await;
        entries.ok()?.into_iter().next()
    }

    /// Which members do not answer, as far as gossip knows, of those who choose what leaves these out.
    pub(crate) fn too_few(&self, ring: &Ring, excluded: Option<&BTreeSet<NodeId>>) -> ChoiceError {
        let acceptors = who_chooses(ring, excluded);
        let (heard, silent): (BTreeSet<NodeId>, BTreeSet<NodeId>) =
            acceptors.iter().partition(|node| self.is_available(**node));
        let needed = if excluded.is_some() { acceptors.len() } else { acceptors.len() / 2 + 1 };
        let silent = self.names_in(ring, &silent);
        ChoiceError::NoMajority { heard: heard.len(), needed, all: acceptors.len(), silent }
    }

    pub(crate) fn names_in<'a>(&self, ring: &Ring, nodes: impl IntoIterator<Item = &'a NodeId>) -> Vec<String> {
        let (members, leavers) = (ring.members(), ring.bringing_home());
        let known = |node: &NodeId| members.get(node).map(|member| &member.name).or_else(|| leavers.get(node));
        let name = |node| known(node).map_or_else(|| node.to_string(), ToString::to_string);
        let mut names: Vec<String> = nodes.into_iter().map(name).collect();
        names.sort();
        names
    }

    fn ask_to_promise(self: &Arc<Self>, to: NodeId, ring: &Ring, ballot: Ballot) -> BoxFuture<'static, Heard> {
        let (node, cluster, epoch) = (Arc::clone(self), ring.cluster(), Epoch(ring.epoch().0 + 1));
        Box::pin(async move {
            let answer = if to == node.id() {
                node.vote(move |store| store.promise(cluster, epoch, ballot)).await
            } else {
                let request = Prepare { epoch, ballot };
                let call =
                    |client: Arc<PeerServiceClient>, context| async move { client.prepare(context, request).await };
                node.call_acceptor(to, call).await
            };
            heard(to, ballot, epoch, answer, |accepted| Event::Promised { by: to, ballot, accepted })
        })
    }

    fn ask_to_accept(
        self: &Arc<Self>,
        to: NodeId,
        ring: &Ring,
        ballot: Ballot,
        decree: &Decree,
    ) -> BoxFuture<'static, Heard> {
        let (node, cluster, epoch) = (Arc::clone(self), ring.cluster(), Epoch(ring.epoch().0 + 1));
        let decree = decree.clone();
        Box::pin(async move {
            let answer = if to == node.id() {
                node.vote(move |store| store.accept(cluster, epoch, ballot, decree)).await
            } else {
                let request = Accept { epoch, ballot, decree };
                let call =
                    |client: Arc<PeerServiceClient>, context| async move { client.accept(context, request).await };
                node.call_acceptor(to, call).await
            };
            heard(to, ballot, epoch, answer, |()| Event::Accepted { by: to, ballot })
        })
    }

    async fn call_acceptor<T, F>(
        &self,
        to: NodeId,
        call: impl FnOnce(Arc<PeerServiceClient>, starling_proto::CallContext) -> F,
    ) -> Result<T, VoteRefused>
    where
        F: Future<Output = Result<Result<T, VoteRefused>, starling_proto::RpcError>>,
    {
        let unavailable = |failure: Failure| VoteRefused::Unavailable(format!("the node {failure}"));
        let link = self.peers.get(to, Class::Peer).ok_or_else(|| unavailable(Failure::Unreachable))?;
        link.call(new_trace(), CALL_LIMIT, call).await.map_err(unavailable)?
    }

    /// This node's own vote, or a word on why there is none.
    pub async fn vote<T: Send + 'static>(
        &self,
        vote: impl FnOnce(&Store) -> Result<T, NoVote> + Send + 'static,
    ) -> Result<T, VoteRefused> {
        self.change_store(vote).await.map_err(|refused| match refused {
            NoVote::Overtaken(overtaken) => VoteRefused::Overtaken(overtaken.promised),
            NoVote::OtherEpoch(epoch) => VoteRefused::OtherEpoch(epoch),
            NoVote::NoAcceptor => VoteRefused::NoAcceptor,
            NoVote::Invalid(invalid) => VoteRefused::Invalid(invalid.to_string()),
            NoVote::Store(error) => VoteRefused::Unavailable(error.to_string()),
        })
    }
}

fn who_chooses(ring: &Ring, excluded: Option<&BTreeSet<NodeId>>) -> BTreeSet<NodeId> {
    excluded.map_or_else(|| ring.acceptors(), |excluded| ring.survivors(excluded))
}

fn heard<T>(
    by: NodeId,
    ballot: Ballot,
    epoch: Epoch,
    answer: Result<T, VoteRefused>,
    granted: impl FnOnce(T) -> Event<Decree>,
) -> Heard {
    match answer {
        Ok(answer) => Heard::Of(granted(answer)),
        Err(VoteRefused::Overtaken(promised)) if promised.is_forced() && !ballot.is_forced() => Heard::Bound(by),
        Err(VoteRefused::Overtaken(promised)) => Heard::Of(Event::Overtaken { ballot, promised }),
        Err(VoteRefused::OtherEpoch(theirs)) if theirs >= epoch => Heard::Ahead(by),
        Err(refused) => {
            tracing::debug!(%by, %refused, "an acceptor does not vote");
            Heard::Nothing
        }
    }
}
