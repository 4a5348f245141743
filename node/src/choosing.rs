//! Having a decree chosen: drives a proposer of [`starling_core::choice`] against the acceptors (R15).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use starling_core::choice::{Action, Ballot, Event, Proposer};
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
    #[error(transparent)]
    Adopt(#[from] AdoptError),
}

/// What an acceptor has to do with a proposal.
enum Heard {
    Of(Event<Decree>),
    /// It has adopted what was chosen already.
    Ahead(NodeId),
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
        let chosen = tokio::time::timeout_at(deadline.into(), self.choose(ring, decree)).await;
        let entry = match chosen {
            Ok(Some(decree)) => ring.entry(decree),
            // Whoever is ahead has told by now.
            Ok(None) | Err(_) => match self.adopted_as(wanted.epoch).await {
                Some(entry) => entry,
                None => return Err(self.no_majority(ring)),
            },
        };
        self.append(entry.clone()).await?;
        Ok(Choice { is_ours: entry == wanted, entry })
    }

    /// The decree that is chosen; none if others have adopted it before, and this node has learnt that.
    async fn choose(self: &Arc<Self>, ring: &Arc<Ring>, decree: Decree) -> Option<Decree> {
        let epoch = Epoch(ring.epoch().0 + 1);
        let acceptors = ring.acceptors();
        let (mut proposer, mut actions) = Proposer::start(self.id(), rand::random(), acceptors.clone(), decree);
        let mut running: FuturesUnordered<BoxFuture<'static, Heard>> = FuturesUnordered::new();
        let (mut backoff, mut wait) = (FIRST_BACKOFF, ROUND_LIMIT);
        loop {
            for action in std::mem::take(&mut actions) {
                match action {
                    Action::Prepare { ballot } => {
                        running.extend(acceptors.iter().map(|to| self.ask_to_promise(*to, epoch, ballot)));
                        wait = ROUND_LIMIT;
                    }
                    Action::Accept { ballot, value } => {
                        running.extend(acceptors.iter().map(|to| self.ask_to_accept(*to, epoch, ballot, &value)));
                        wait = ROUND_LIMIT;
                    }
                    Action::BackOff => {
                        wait = backoff.mul_f64(rand::random_range(0.5..1.5));
                        backoff = (backoff * 2).min(MOST_BACKOFF);
                    }
                    Action::Chosen(decree) => return Some(decree),
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
                Heard::Ahead(peer) => {
                    self.catch_up_with(peer).await;
                    if self.store.ring().is_some_and(|ring| ring.epoch() >= epoch) {
                        return None;
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

    /// Which members do not answer, as far as gossip knows.
    pub(crate) fn no_majority(&self, ring: &Ring) -> ChoiceError {
        let acceptors = ring.acceptors();
        let (heard, silent): (BTreeSet<NodeId>, BTreeSet<NodeId>) =
            acceptors.iter().partition(|node| self.is_available(**node));
        let members = ring.members();
        let name = |node: &NodeId| members.get(node).map_or_else(|| node.to_string(), |member| member.name.to_string());
        ChoiceError::NoMajority {
            heard: heard.len(),
            needed: acceptors.len() / 2 + 1,
            all: acceptors.len(),
            silent: silent.iter().map(name).collect(),
        }
    }

    fn ask_to_promise(self: &Arc<Self>, to: NodeId, epoch: Epoch, ballot: Ballot) -> BoxFuture<'static, Heard> {
        let node = Arc::clone(self);
        Box::pin(async move {
            let answer = if to == node.id() {
                node.vote(move |store| store.promise(epoch, ballot)).await
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
        epoch: Epoch,
        ballot: Ballot,
        decree: &Decree,
    ) -> BoxFuture<'static, Heard> {
        let (node, decree) = (Arc::clone(self), decree.clone());
        Box::pin(async move {
            let answer = if to == node.id() {
                node.vote(move |store| store.accept(epoch, ballot, decree)).await
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

fn heard<T>(
    by: NodeId,
    ballot: Ballot,
    epoch: Epoch,
    answer: Result<T, VoteRefused>,
    granted: impl FnOnce(T) -> Event<Decree>,
) -> Heard {
    match answer {
        Ok(answer) => Heard::Of(granted(answer)),
        Err(VoteRefused::Overtaken(promised)) => Heard::Of(Event::Overtaken { ballot, promised }),
        Err(VoteRefused::OtherEpoch(theirs)) if theirs >= epoch => Heard::Ahead(by),
        Err(refused) => {
            tracing::debug!(%by, %refused, "an acceptor does not vote");
            Heard::Nothing
        }
    }
}
