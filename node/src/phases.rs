//! Seeing a change of the layout through (R16): this node copies what it has to, and somebody proposes the next phase once
//! everybody has done what it waits for.
//!
//! What can be done by anybody is done by the first member that gossip takes for alive, so that proposals do not get in
//! each other's way. If it does not, another takes its place as soon as gossip gives it up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use starling_core::choice::Exclusion;
use starling_core::ids::NodeId;
use starling_core::report::{Failure, Refusal};
use starling_core::ring::{Phase, Ring};
use starling_core::transition::{Progress, Waiting};
use starling_proto::hello::Class;
use starling_proto::peer::PeerServiceClient;

use crate::link::{as_failure, new_trace};
use crate::node::Node;

/// Between two looks whether the ring may go on.
const INTERVAL: Duration = Duration::from_millis(500);
const CALL_LIMIT: Duration = Duration::from_secs(2);
const DECISION_LIMIT: Duration = Duration::from_secs(10);
/// What was accepted, and then not heard of for this long, is proposed again: its proposer may be gone.
const ABANDONED: Duration = Duration::from_secs(5);

impl Node {
    /// Has the next phase decreed when everybody is ready for it, for as long as the node runs.
    pub async fn see_changes_through(self: Arc<Self>) {
        let mut rings = self.ring.subscribe();
        let mut since = Instant::now();
        loop {
            let ring = rings.borrow_and_update().clone();
            if let Some(ring) = ring.filter(|_| self.serving_ring().is_ok()) {
                if ring.phase() != Phase::Settled {
                    self.try_to_go_on(&ring).await;
                } else if since.elapsed() >= ABANDONED && self.is_first_in(&ring) {
                    self.finish_what_was_accepted(&ring).await;
                }
            }
            tokio::select! {
                () = self.stopping.cancelled() => return,
                Ok(()) = rings.changed() => since = Instant::now(),
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// What every member that the ring waits for has done, as far as it says so.
    pub async fn progress_of(&self, ring: &Ring) -> BTreeMap<NodeId, Progress> {
        let asked = ring.in_transition().into_iter().map(|node| async move { (node, self.ask_progress(node).await) });
        let mut asked: FuturesUnordered<_> = asked.collect();
        let mut progress = BTreeMap::new();
        while let Some((node, said)) = asked.next().await {
            match said {
                Ok(said) => drop(progress.insert(node, said)),
                Err(failure) => tracing::debug!(%node, %failure, "cannot ask how far a member is"),
            }
        }
        progress
    }

    async fn try_to_go_on(self: &Arc<Self>, ring: &Arc<Ring>) {
        if !self.is_first_in(ring) {
            return;
        }
        let progress = self.progress_of(ring).await;
        let decree = match ring.next_decree(&progress) {
            Ok(Some(decree)) => decree,
            Ok(None) => return,
            Err(Waiting(waiting)) => {
                return tracing::debug!(phase = %ring.phase(), ?waiting, "a change of the layout waits");
            }
        };
        let version = ring.newest().version();
        if let Err(error) = self.decide(ring, decree, Instant::now() + DECISION_LIMIT).await {
            tracing::warn!(%version, phase = %ring.phase(), %error, "a change of the layout cannot go on");
        }
    }

    async fn finish_what_was_accepted(self: &Arc<Self>, ring: &Arc<Ring>) {
        let accepted = self.read_store(|store| store.accepted()).await;
        if let Ok(Some(decree)) = accepted {
            // Nobody is given up without being asked for again: whoever it was may be back by now.
            if decree.excluded().is_some() {
                return;
            }
            tracing::info!("a decree was accepted and not heard of since; proposing it again");
            if let Err(error) = self.decide(ring, decree, Instant::now() + DECISION_LIMIT).await {
                tracing::debug!(%error, "it is not chosen");
            }
        }
    }

    fn is_first_in(&self, ring: &Ring) -> bool {
        ring.acceptors().into_iter().find(|node| self.is_available(*node)) == Some(self.id())
    }

    async fn ask_progress(&self, node: NodeId) -> Result<Progress, Failure> {
        if node == self.id() {
            return self.store.progress().map_err(|_| Failure::Refused(Refusal::NotAMember));
        }
        let link = self.peers.get(node, Class::Peer).ok_or(Failure::Unreachable)?;
        let call = |client: Arc<PeerServiceClient>, context| async move { client.progress(context).await };
        link.call(new_trace(), CALL_LIMIT, call).await?.map_err(as_failure)
    }
}
