//! The layout log among nodes: learning what others know of it, and having the next decree chosen (R15).
//!
//! Gossip says how much of the log each node has; the entries themselves are fetched. A request of another epoch has the
//! same effect at once: a replica that is behind its asker fetches what it lacks before it answers, and whoever is refused
//! by one that is ahead fetches, and tries again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use starling_core::choice::Exclusion;
use starling_core::ids::{DirectoryId, NodeId, Run};
use starling_core::report::{Failure, Refusal};
use starling_core::ring::{Entry, Epoch};
use starling_proto::call_within;
use starling_storage::{AdoptError, Health};

use crate::node::Node;

const CALL_LIMIT: Duration = Duration::from_secs(2);
/// How often a node looks whether others know more, if gossip has no news.
const INTERVAL: Duration = Duration::from_secs(1);

impl Node {
    /// Somebody would not do something: if that is for being in another epoch, one of the two is behind.
    pub fn heed_failure(&self, peer: NodeId, failure: Failure) {
        if matches!(failure, Failure::Refused(Refusal::OtherLayout | Refusal::Reaped)) {
            self.suspect(peer);
        }
    }

    /// Looks soon whether that peer knows more of the log, or of rounds of reaping.
    pub fn suspect(&self, peer: NodeId) {
        if peer != self.id() {
            self.suspect.send_modify(|suspects| {
                suspects.insert(peer);
            });
        }
    }

    /// Adopts what others know of the log, for as long as the node runs.
    pub async fn follow_the_log(self: Arc<Self>) {
        let (mut gossip, mut suspect) = (self.gossip.clone(), self.suspect.subscribe());
        // What was said last of whom, to say it once.
        let mut told: BTreeMap<NodeId, String> = BTreeMap::new();
        loop {
            let suspected = self.suspect.send_replace(BTreeSet::new());
            suspect.mark_unchanged();
            gossip.mark_unchanged();
            for peer in &suspected {
                self.learn_rounds_over_of(*peer).await;
            }
            for peer in suspected.into_iter().chain(self.ahead()) {
                let Err(error) = self.catch_up_with(peer).await else { continue };
                let error = error.to_string();
                if told.get(&peer) != Some(&error) {
                    tracing::warn!(%peer, error, "cannot adopt what a peer knows of the layout log");
                    told.insert(peer, error);
                }
            }
            let view = self.view();
            told.retain(|peer, _| view.peer(*peer).is_some());
            tokio::select! {
                () = self.stopping.cancelled() => return,
                Ok(()) = suspect.changed() => {}
                Ok(()) = gossip.changed() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// A peer that gossip says knows more of this log. Members that go by another cluster id may have gone on without a
    /// majority; whether that continues this log, the log says.
    fn ahead(&self) -> Option<NodeId> {
        let ring = self.store.ring()?;
        let view = self.view();
        let is_member = |node: NodeId| ring.is_member(node) && !ring.is_dead(node);
        let of_ours =
            view.live().filter(|peer| peer.announcement.cluster == Some(ring.cluster()) || is_member(peer.node));
        let knows = of_ours.filter_map(|peer| Some((peer.announcement.log?.0, peer.node)));
        knows.filter(|(epoch, _)| *epoch > ring.epoch()).max().map(|(_, node)| node)
    }

    /// Adopts what a peer knows of the log and this node does not, if the peer can be asked.
    ///
    /// # Errors
    /// [`AdoptError`] as the store says it.
    pub async fn catch_up_with(self: &Arc<Self>, peer: NodeId) -> Result<(), AdoptError> {
        if *self.store.health().borrow() != Health::Serving {
            return Ok(());
        }
        let _one_at_a_time = self.catching_up.lock().await;
        let (Some(ring), Some(address)) = (self.store.ring(), self.address_of(peer)) else { return Ok(()) };
        match self.fetch_log_of(&address, ring.epoch()).await {
            Ok((run, log)) => {
                let of = (peer, run.directory);
                for entry in log {
                    self.append(entry, Some(of)).await?;
                }
            }
            Err(error) => tracing::debug!(%peer, %error, "cannot fetch the layout log"),
        }
        Ok(())
    }

    /// Adopts the next entry of the log, which was learnt of a member, if it was, in that directory of it.
    ///
    /// # Errors
    /// [`AdoptError`] as the store says it.
    pub async fn append(self: &Arc<Self>, entry: Entry, of: Option<(NodeId, DirectoryId)>) -> Result<(), AdoptError> {
        if let Some(given_up) = entry.decree.excluded() {
            // Nothing is asked by the new log over a connection to who may go by another that is as long.
            self.peers.keep_only(|node| !given_up.contains(&node));
        }
        self.adopt_by(move |store| store.append(&entry, of)).await
    }

    /// All that the node at that address knows of the log behind `after`.
    pub(crate) async fn fetch_log(&self, address: &str, after: Epoch) -> anyhow::Result<Vec<Entry>> {
        Ok(self.fetch_log_of(address, after).await?.1)
    }

    /// As [`Node::fetch_log`], and by which run that node goes.
    async fn fetch_log_of(&self, address: &str, after: Epoch) -> anyhow::Result<(Run, Vec<Entry>)> {
        let (control, welcome) = self.control_and_welcome_of(address).await?;
        let mut log: Vec<Entry> = Vec::new();
        loop {
            let known = log.last().map_or(after, |entry| entry.epoch);
            let page = control.log(call_within(CALL_LIMIT), known).await??;
            if page.is_empty() {
                return Ok((welcome.node.run, log));
            }
            log.extend(page);
        }
    }
}
