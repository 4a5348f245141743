//! Becoming and staying a member: meeting peers after a start, adopting the layout that names this node, and telling
//! gossip how things stand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use starling_core::ids::ClusterId;
use starling_core::layout::Layout;
use starling_core::ring::{Decree, Entry, Epoch, Membership, Ring};
use starling_gossip::{Gossip, HintTargets, Peer, ShortText, Standing};
use starling_proto::connection::{client_limits, client_transport};
use starling_proto::control::{ControlServiceClient, NodeStanding};
use starling_proto::hello::{Class, Hello, HelloError, Welcome};
use starling_proto::network::dial;
use starling_storage::{AdoptError, Store, StoreError};

use crate::node::Node;
use crate::registering::member_named;

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
            tracing::info!(cluster = ?self.store.cluster(), "serving");
        }
    }

    /// Adopts the layout that a cluster begins with, here and now. Goes on to its end when whoever asked is gone: a node
    /// that has adopted and does not dial its peers would be of no use.
    ///
    /// # Errors
    /// [`AdoptError`] as the store says it.
    pub async fn adopt(self: &Arc<Self>, layout: Layout) -> Result<(), AdoptError> {
        self.adopt_by(move |store| store.adopt(layout)).await
    }

    /// Has the store adopt something, and goes by it.
    ///
    /// # Errors
    /// [`AdoptError`] as the store says it.
    pub async fn adopt_by(
        self: &Arc<Self>,
        adopt: impl FnOnce(&Store) -> Result<(), AdoptError> + Send + 'static,
    ) -> Result<(), AdoptError> {
        let node = Arc::clone(self);
        let adopted = self.spawn_for_request(async move { node.adopt_to_the_end(adopt).await });
        adopted.await.unwrap_or_else(|panic| Err(AdoptError::Store(StoreError::Damaged(panic.to_string()))))
    }

    async fn adopt_to_the_end(
        self: Arc<Self>,
        adopt: impl FnOnce(&Store) -> Result<(), AdoptError> + Send + 'static,
    ) -> Result<(), AdoptError> {
        self.change_store(adopt).await?;
        self.store.adopted().await;
        let ring = self.store.ring();
        let before = self.ring.send_replace(ring.clone());
        if let Some(ring) = ring.filter(|ring| before.is_none_or(|before| before.epoch() < ring.epoch())) {
            let (epoch, phase, version) = (ring.epoch(), ring.phase(), ring.newest().version());
            tracing::info!(%epoch, %phase, %version, cluster = %ring.cluster(), "adopted a layout");
        }
        self.link_members();
        Ok(())
    }

    /// Ends once the cluster goes on by another id: what was agreed upon with a peer before has to be said anew.
    pub async fn goes_by_another_id_than(&self, cluster: ClusterId) {
        let mut rings = self.ring.subscribe();
        let is_another = |ring: &Option<Arc<Ring>>| ring.as_ref().is_some_and(|ring| ring.cluster() != cluster);
        if rings.wait_for(is_another).await.is_err() {
            // The node, which is borrowed here, has the sender.
            std::future::pending::<()>().await;
        }
    }

    /// While this node has no layout: looks among its peers for a log that names it, which it then adopts, or that names
    /// another directory under its name, in whose place it asks to be registered.
    pub async fn look_for_layout(self: Arc<Self>) {
        let (mut gossip, mut asked) = (self.gossip.clone(), 0);
        while self.store.layout().is_none() && self.anew.borrow().is_none() && !self.stopping.is_cancelled() {
            let view = Arc::clone(&gossip.borrow_and_update());
            let knows = |peer: &&Peer| peer.node != self.id() && peer.announcement.layout.is_some();
            let serves = |peer: &&Peer| !matches!(peer.announcement.standing, Standing::Retired { .. });
            let known: Vec<&Peer> = view.live().filter(knows).filter(serves).collect();
            // One after another: what one refuses another may grant.
            if let Some(peer) = known.get(asked % known.len().max(1)) {
                asked += 1;
                let address = peer.announcement.address.as_str().to_owned();
                tokio::select! {
                    () = self.stopping.cancelled() => return,
                    () = self.look_at_log_of(&address) => {}
                }
            }
            tokio::select! {
                () = self.stopping.cancelled() => return,
                // Gossip that has ended ends the node; there may be news of it all the time.
                Ok(()) = gossip.changed() => tokio::time::sleep(ANNOUNCE_INTERVAL).await,
                () = tokio::time::sleep(LAYOUT_INTERVAL) => {}
            }
        }
    }

    async fn look_at_log_of(self: &Arc<Self>, address: &str) {
        match self.fetch_log(address, Epoch(0)).await.map(|log| read(&log).map(|ring| (ring, log))) {
            Ok(Some((ring, log))) => self.consider(&ring, log, address).await,
            Ok(None) => {}
            Err(error) => tracing::debug!(address, %error, "cannot fetch the layout log"),
        }
    }

    async fn consider(self: &Arc<Self>, ring: &Ring, log: Vec<Entry>, address: &str) {
        let own = self.store.identity();
        if ring.membership_of(own.node, own.directory) == Membership::Member {
            if !self.reservation.take(ring.cluster(), Instant::now()) {
                return tracing::debug!(cluster = %ring.cluster(), "kept free for another cluster, for the moment");
            }
            // Once it has the log it serves, and a put must not miss that its bucket's values expire.
            if let Err(error) = self.merge_settings_of_a_member(address, ring.cluster()).await {
                return tracing::warn!(address, %error, "cannot take in the settings of the cluster");
            }
            match self.adopt_by(move |store| store.adopt_log(&log)).await {
                // Whoever did not know yet that this directory is registered may have refused it.
                Ok(()) => drop(self.excluded.send_replace(None)),
                Err(error) => tracing::warn!(%error, "cannot adopt the log that names this node"),
            }
            return;
        }
        match member_named(ring, &own.name) {
            Some(member) => self.ask_to_stand_for(ring, member, address).await,
            None => drop(self.excluded.send_replace(None)),
        }
    }

    /// Keeps what gossip says of this node true. Ends with the node.
    pub async fn announce(self: Arc<Self>, gossip: Gossip) {
        let mut view = gossip.view();
        while !self.stopping.is_cancelled() {
            let ring = self.store.ring();
            let hints: HintTargets = self.store.hints().into_keys().collect();
            let is_filling = self.store.filling_count() > 0;
            let settings = self.store.settings_checksum();
            let standing = announced(&self.standing());
            gossip.update(|announcement| {
                announcement.cluster = ring.as_ref().map(|ring| ring.cluster());
                announcement.layout = ring.as_ref().map(|ring| ring.read().version());
                announcement.log = ring.as_ref().map(|ring| (ring.epoch(), ring.tip()));
                announcement.hints_for = hints;
                announcement.is_filling = is_filling;
                announcement.settings = Some(settings);
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
        Ok(self.control_and_welcome_of(address).await?.0)
    }

    /// As [`Node::control_of`], with what that node says of itself.
    ///
    /// # Errors
    /// As for [`Node::control_of`].
    pub async fn control_and_welcome_of(&self, address: &str) -> Result<(ControlServiceClient, Welcome), HelloError> {
        let hello = Hello { from: Some(self.introduction()), ..Hello::of_client(Class::Control, None) };
        let (stream, welcome) = dial(&*self.environment.network, address, &hello, CONTROL_LIMIT).await?;
        Ok((ControlServiceClient::new(client_limits(), client_transport(stream)).spawn(), welcome))
    }
}

/// What a log comes to, from its beginning; none if it is none.
fn read(log: &[Entry]) -> Option<Ring> {
    let (first, rest) = log.split_first()?;
    let Decree::Begin { layout, .. } = &first.decree else { return None };
    let ring = Ring::first(layout.clone()).ok()?;
    rest.iter().try_fold(ring, |ring, entry| ring.after(entry)).ok()
}

fn announced(standing: &NodeStanding) -> Standing {
    match standing {
        NodeStanding::Uninitialised | NodeStanding::Serving => Standing::Serving,
        NodeStanding::Left => Standing::Retired { reason: ShortText::new("it has left the cluster") },
        NodeStanding::Excluded(reason) | NodeStanding::Failed(reason) => {
            Standing::Retired { reason: ShortText::new(reason) }
        }
        NodeStanding::Stopping => Standing::Leaving,
    }
}
