//! The peers of this node: a link for each and for each class of connection, and the tasks that keep them dialled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::future::OptionFuture;
use starling_core::ids::{NodeId, RunVerdict};
use starling_core::wall::Apart;
use starling_proto::BUILD;
use starling_proto::connection::{client_limits, client_transport};
use starling_proto::hello::{Class, Features, Hello, HelloError, NotWelcome, PROTOCOLS, Welcome};
use starling_proto::network::{ByteStream, dial};
use starling_proto::peer::PeerServiceClient;

use crate::link::Link;
use crate::node::Node;

const DIAL_LIMIT: Duration = Duration::from_secs(1);
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const MOST_BACKOFF: Duration = Duration::from_secs(2);
/// How often clocks are compared on a standing connection.
const CLOCK_INTERVAL: Duration = Duration::from_secs(10);

/// Whether there was a connection, or nobody to connect to.
enum Stayed {
    Yes,
    No,
}

#[derive(Default)]
pub struct Peers {
    links: RwLock<BTreeMap<(NodeId, Class), Arc<Link>>>,
    /// Peers that have durably recorded this run.
    recorded_by: RwLock<BTreeSet<NodeId>>,
}

impl Peers {
    pub fn get(&self, node: NodeId, class: Class) -> Option<Arc<Link>> {
        self.links.read().unwrap_or_else(PoisonError::into_inner).get(&(node, class)).cloned()
    }

    pub fn all(&self, class: Class) -> Vec<Arc<Link>> {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        links.values().filter(|link| link.class == class).cloned().collect()
    }

    /// Nodes to which both connections stand.
    pub fn connected(&self) -> Vec<NodeId> {
        let mut connected: BTreeSet<NodeId> = BTreeSet::new();
        let mut broken: BTreeSet<NodeId> = BTreeSet::new();
        for link in self.links.read().unwrap_or_else(PoisonError::into_inner).values() {
            if link.is_connected() {
                connected.insert(link.node)
            } else {
                broken.insert(link.node)
            };
        }
        connected.difference(&broken).copied().collect()
    }

    /// Dials at once whoever is not connected: there is news of them.
    pub fn redial(&self) {
        for link in self.links.read().unwrap_or_else(PoisonError::into_inner).values() {
            if !link.is_connected() {
                link.redial.notify_one();
            }
        }
    }

    pub(crate) fn keep_only(&self, is_wanted: impl Fn(NodeId) -> bool) {
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        for (_, link) in links.extract_if(.., |(node, _), _| !is_wanted(*node)) {
            link.dropped.cancel();
        }
    }

    fn add(&self, node: NodeId, class: Class) -> Option<Arc<Link>> {
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        if links.contains_key(&(node, class)) {
            return None;
        }
        let link = Arc::new(Link::new(node, class));
        links.insert((node, class), Arc::clone(&link));
        Some(link)
    }

    /// Notes that a peer knows this run; returns how many do.
    fn note_recorded(&self, by: NodeId) -> usize {
        let mut recorded_by = self.recorded_by.write().unwrap_or_else(PoisonError::into_inner);
        recorded_by.insert(by);
        recorded_by.len()
    }
}

impl Node {
    /// Starts dialling every other member, and drops who is none any more.
    pub fn link_members(self: &Arc<Self>) {
        let Some(ring) = self.store.ring() else { return };
        let members = ring.members();
        self.peers.keep_only(|node| members.contains_key(&node) && ring.departure_of(node).is_none());
        for member in members.into_keys().filter(|member| *member != self.id() && !ring.is_dead(*member)) {
            for class in [Class::Peer, Class::Bulk] {
                if let Some(link) = self.peers.add(member, class) {
                    let node = Arc::clone(self);
                    self.spawn(async move { node.keep_dialled(&link).await });
                }
            }
        }
    }

    /// How far this node's clock is from its peers'; none as long as too few were compared.
    pub fn clocks_apart(&self) -> Option<Apart> {
        let links = self.peers.all(Class::Peer);
        Apart::of(links.iter().filter_map(|link| link.clock_offset()), links.len())
    }

    async fn keep_dialled(self: Arc<Self>, link: &Link) {
        let mut backoff = FIRST_BACKOFF;
        while !self.stopping.is_cancelled() && !link.dropped.is_cancelled() {
            match self.dial(link).await {
                Ok(Stayed::Yes) => backoff = FIRST_BACKOFF,
                Ok(Stayed::No) => {}
                Err(error) => tracing::debug!(peer = %link.node, class = ?link.class, %error, "cannot connect"),
            }
            link.tried.send_replace(true);
            let pause = backoff.mul_f64(rand::random_range(0.5..1.5));
            backoff = (backoff * 2).min(MOST_BACKOFF);
            tokio::select! {
                () = self.stopping.cancelled() => break,
                () = link.dropped.cancelled() => break,
                () = link.redial.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Dials once, and stays until the connection breaks.
    async fn dial(self: &Arc<Self>, link: &Link) -> Result<Stayed, HelloError> {
        let Some(address) = self.address_of(link.node) else { return Ok(Stayed::No) };
        let cluster = self.store.cluster();
        let hello = Hello {
            class: link.class,
            protocols: PROTOCOLS,
            cluster,
            from: Some(self.introduction()),
            features: Features::ALL,
            build: BUILD.to_owned(),
        };
        let dialled = tokio::select! {
            dialled = dial(&*self.environment.network, &address, &hello, DIAL_LIMIT) => dialled,
            () = self.stopping.cancelled() => return Ok(Stayed::No),
        };
        if let Err(HelloError::NotWelcome(refusal)) = &dialled {
            self.heed(refusal, link.node).await;
        }
        let (stream, welcome) = dialled?;
        if !self.approves(link, &welcome).await {
            return Ok(Stayed::No);
        }
        tokio::select! {
            () = self.stay(link, &welcome, stream) => {}
            Some(()) = OptionFuture::from(cluster.map(|cluster| self.goes_by_another_id_than(cluster))) => {}
        }
        link.disconnect();
        Ok(Stayed::Yes)
    }

    /// A peer refused this node: some reasons concern all of it.
    async fn heed(self: &Arc<Self>, refusal: &NotWelcome, peer: NodeId) {
        match refusal {
            NotWelcome::OldCopy { .. } => self.store.retire(&format!("peer {peer} says that {refusal}")),
            // One of the two does not know yet what the other does. This node learns it before it serves: it may have been
            // removed.
            NotWelcome::NotAMember => {
                self.suspect(peer);
                if let Err(error) = self.catch_up_with(peer).await {
                    tracing::debug!(%peer, %error, "cannot adopt what a peer goes by");
                }
            }
            NotWelcome::Protocol(_)
            | NotWelcome::OtherCluster(_)
            | NotWelcome::Retired
            | NotWelcome::Busy
            | NotWelcome::Stopping => {}
        }
    }

    /// Whether the node that answered is the one that was meant, in a run that is not behind what is remembered.
    async fn approves(&self, link: &Link, welcome: &Welcome) -> bool {
        let meant = self.store.ring().and_then(|ring| ring.directory_of(link.node));
        if welcome.node.node != link.node || meant != Some(welcome.node.run.directory) {
            tracing::warn!(peer = %link.node, found = %welcome.node.node, "somebody else answers at a peer's address");
            return false;
        }
        let run = welcome.node.run;
        match self.read_store(move |store| store.meet(&run)).await {
            Ok(RunVerdict::Newer | RunVerdict::Known) => true,
            Ok(RunVerdict::OldCopy) => {
                tracing::warn!(peer = %link.node, "a peer runs on an old copy of its directory; it is not used");
                false
            }
            Err(error) => {
                tracing::warn!(peer = %link.node, %error, "cannot record a peer's run");
                false
            }
        }
    }

    async fn stay(&self, link: &Link, welcome: &Welcome, stream: impl ByteStream) {
        self.note_recorded(link.node);
        let tarpc::client::NewClient { client, dispatch } =
            PeerServiceClient::new(client_limits(), client_transport(stream));
        link.connect(client);
        tracing::debug!(peer = %link.node, class = ?link.class, build = welcome.build, "connected");
        link.tried.send_replace(true);
        let clocks = async {
            loop {
                link.compare_clocks(|| self.wall().0, DIAL_LIMIT).await;
                tokio::time::sleep(CLOCK_INTERVAL).await;
            }
        };
        tokio::select! {
            ended = dispatch => tracing::debug!(peer = %link.node, ?ended, "disconnected"),
            () = self.restarted(link.node, welcome.node.run.nonce) => {}
            () = self.died(link.node) => {}
            () = clocks => {}
            () = link.dropped.cancelled() => {}
            () = self.stopping.cancelled() => {}
        }
    }

    /// Ends when gossip shows the peer in another run: the old connection is dead, even if nothing says so.
    async fn restarted(&self, peer: NodeId, nonce: u64) {
        let mut gossip = self.gossip.clone();
        let other_run = |view: &Arc<starling_gossip::View>| {
            view.peer(peer).is_some_and(|peer| peer.alive && peer.announcement.run.nonce != nonce)
        };
        if gossip.wait_for(other_run).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Ends when gossip, having taken the peer for alive, takes it for dead: a peer that is silent without a word would
    /// keep every call waiting for its timeout. It is dialled again all the same.
    async fn died(&self, peer: NodeId) {
        let mut gossip = self.gossip.clone();
        let alive = gossip.wait_for(|view| view.is_alive(peer)).await.is_ok();
        if !alive || gossip.wait_for(|view| !view.is_alive(peer)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The peer has recorded this run before it said welcome. Once most have, marks of earlier runs are safe to use (R3).
    fn note_recorded(&self, by: NodeId) {
        let others = self.store.layout().map_or(0, |layout| layout.members().len().saturating_sub(1));
        if self.peers.note_recorded(by) == others / 2 + 1 {
            self.store.trust_marks();
        }
    }

    /// Gossip's word if there is one, the layout's otherwise.
    pub fn address_of(&self, node: NodeId) -> Option<String> {
        let gossiped = self.view().peer(node).map(|peer| peer.announcement.address.as_str().to_owned());
        gossiped.or_else(|| self.store.ring()?.members().get(&node).map(|member| member.address.clone()))
    }
}
