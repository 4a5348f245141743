//! Becoming and staying a member: meeting peers after a start, adopting the layout that names this node, and telling
//! gossip how things stand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use starling_core::layout::Layout;
use starling_gossip::{Gossip, HintTargets, ShortText, Standing};
use starling_proto::call_within;
use starling_proto::connection::{client_limits, client_transport};
use starling_proto::control::{ControlServiceClient, NodeStanding};
use starling_proto::hello::{Class, Hello, HelloError};
use starling_proto::network::dial;
use starling_storage::{AdoptError, StoreError};

use crate::node::Node;

/// A starting node serves after this long even if some peer has not yet said whether it knows a later run.
const INTRODUCTION_LIMIT: Duration = Duration::from_millis(1000);
/// How often what this node says of itself is brought up to date.
const ANNOUNCE_INTERVAL: Duration = Duration::from_millis(200);
/// How often a node without a layout looks for one, if gossip has no news.
const LAYOUT_INTERVAL: Duration = Duration::from_secs(2);
const CONTROL_LIMIT: Duration = Duration::from_secs(2);

impl Node {
    /// Lets every peer that can be reached look at this node's run before it serves: one that remembers a later run of
    /// this directory has it retired (R3).
    pub async fn meet_peers(self: Arc<Self>) {
        let links = self.peers.all(Class::Peer);
        let everyone = async {
            for link in links {
                // The sender lives as long as the link.
                drop(link.tried.subscribe().wait_for(|tried| *tried).await);
            }
        };
        drop(tokio::time::timeout(INTRODUCTION_LIMIT, everyone).await);
        self.introduced.send_replace(true);
        if self.standing() == NodeStanding::Serving {
            tracing::info!(cluster = ?self.store.layout().map(|layout| layout.cluster()), "serving");
        }
    }

    /// Adopts a layout, here and now. Goes on to its end when whoever asked is gone: a node that has adopted and does not
    /// dial its peers would be of no use.
    ///
    /// # Errors
    /// [`AdoptError`] as the store says it.
    pub async fn adopt(self: &Arc<Self>, layout: Layout) -> Result<(), AdoptError> {
        let node = Arc::clone(self);
        let adopted = self.spawn_for_request(async move { node.adopt_to_the_end(layout).await });
        adopted.await.unwrap_or_else(|panic| Err(AdoptError::Store(StoreError::Damaged(panic.to_string()))))
    }

    async fn adopt_to_the_end(self: Arc<Self>, layout: Layout) -> Result<(), AdoptError> {
        let store = Arc::clone(&self.store);
        let version = layout.version();
        let adopted = self.environment.block(move || store.adopt(layout)).await;
        adopted.unwrap_or_else(|panic| Err(AdoptError::Store(StoreError::Damaged(panic.to_string()))))?;
        let before = self.layout.send_replace(self.store.layout());
        if before.is_none() {
            tracing::info!(%version, cluster = ?self.store.layout().map(|layout| layout.cluster()), "adopted a layout");
        }
        self.link_members();
        Ok(())
    }

    /// While this node has no layout: looks for one among its peers that names it, which it then adopts, or that names
    /// another directory under its name, which excludes it.
    pub async fn look_for_layout(self: Arc<Self>) {
        let mut gossip = self.gossip.clone();
        while self.store.layout().is_none() && !self.stopping.is_cancelled() {
            let view = Arc::clone(&gossip.borrow_and_update());
            let known = view.live().find(|peer| peer.node != self.id() && peer.announcement.layout.is_some());
            if let Some(peer) = known {
                let address = peer.announcement.address.as_str().to_owned();
                match self.fetch_layout(&address).await {
                    Ok(Some(layout)) => self.consider(layout).await,
                    Ok(None) => {}
                    Err(error) => tracing::debug!(address, %error, "cannot fetch a layout"),
                }
            }
            tokio::select! {
                () = self.stopping.cancelled() => return,
                // Gossip that has ended ends the node.
                Ok(()) = gossip.changed() => {}
                () = tokio::time::sleep(LAYOUT_INTERVAL) => {}
            }
        }
    }

    async fn consider(self: &Arc<Self>, layout: Layout) {
        let own = self.store.identity();
        if layout.member(own.node).is_some_and(|member| member.directory == own.directory) {
            if !self.reservation.take(layout.cluster(), Instant::now()) {
                return tracing::debug!(cluster = %layout.cluster(), "kept free for another cluster, for the moment");
            }
            if let Err(error) = self.adopt(layout).await {
                tracing::warn!(%error, "cannot adopt the layout that names this node");
            }
            return;
        }
        let (cluster, name) = (layout.cluster(), &own.name);
        if let Some(member) = layout.member_named(name) {
            let reason = format!(
                "cluster {cluster} knows `{name}` with directory {}, and this is directory {}: the data directory was \
                 wiped or replaced, so what `{name}` has acknowledged is not here",
                member.directory, own.directory
            );
            let before = self.excluded.send_replace(Some(reason.clone()));
            if before.as_ref() != Some(&reason) {
                tracing::error!(reason, "this node does not serve");
            }
        }
    }

    /// Keeps what gossip says of this node true. Ends with the node.
    pub async fn announce(self: Arc<Self>, gossip: Gossip) {
        let mut view = gossip.view();
        while !self.stopping.is_cancelled() {
            let layout = self.store.layout();
            let hints: HintTargets = self.store.hints().into_keys().collect();
            let standing = announced(&self.standing());
            gossip.update(|announcement| {
                announcement.cluster = layout.as_ref().map(|layout| layout.cluster());
                announcement.layout = layout.as_ref().map(|layout| layout.version());
                announcement.hints_for = hints;
                announcement.standing = standing;
            });
            tokio::select! {
                () = self.stopping.cancelled() => break,
                Ok(()) = view.changed() => self.peers.redial(),
                () = tokio::time::sleep(ANNOUNCE_INTERVAL) => {}
            }
        }
        gossip.update(|announcement| announcement.standing = Standing::Leaving);
        if let Err(error) = gossip.shutdown().await {
            tracing::warn!(%error, "gossip did not stop cleanly");
        }
    }

    /// A control connection to another node, for a few calls.
    ///
    /// # Errors
    /// [`HelloError`] if it cannot be reached.
    pub async fn control_of(&self, address: &str) -> Result<ControlServiceClient, HelloError> {
        let hello = Hello::of_client(Class::Control, None);
        let (stream, _welcome) = dial(&*self.environment.network, address, &hello, CONTROL_LIMIT).await?;
        Ok(ControlServiceClient::new(client_limits(), client_transport(stream)).spawn())
    }

    async fn fetch_layout(&self, address: &str) -> anyhow::Result<Option<Layout>> {
        Ok(self.control_of(address).await?.layout(call_within(CONTROL_LIMIT)).await?)
    }
}

fn announced(standing: &NodeStanding) -> Standing {
    match standing {
        NodeStanding::Uninitialised | NodeStanding::Serving => Standing::Serving,
        NodeStanding::Excluded(reason) | NodeStanding::Failed(reason) => {
            Standing::Retired { reason: ShortText::new(reason) }
        }
        NodeStanding::Stopping => Standing::Leaving,
    }
}
