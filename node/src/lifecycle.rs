//! A node's life, once its parts are there: start, serve, stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use starling_gossip::{Address, Announcement, Gossip, HintTargets, Settings, ShortText, Standing, Timing};
use starling_proto::BUILD;
use starling_proto::hello::{Features, PROTOCOLS};
use starling_proto::network::Listener;
use starling_storage::{Health, Store};
use tracing::Instrument;

use crate::config::Config;
use crate::environment::{Environment, WallClock};
use crate::node::Node;
use crate::registering::Anew;
use crate::server::accept_connections;

/// Requests under way have this long to end when the node stops.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// For this long a stopping node tells peers and clients that it leaves, before it waits for what is under way.
const LEAVE_NOTICE: Duration = Duration::from_millis(500);

/// What a node is made of.
pub struct Parts {
    pub config: Config,
    pub environment: Environment,
    pub store: Arc<Store>,
    /// Started with what [`gossip_parts`] says.
    pub gossip: Gossip,
    /// At which others reach the configuration's `advertise`.
    pub listener: Box<dyn Listener>,
}

/// How a node has come to its end that nothing was wrong with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to stop.
    Stopped,
    /// It has to be started anew, as somebody else.
    Superseded(Anew),
}

/// A node at work. Dropping it stops nothing: see [`Running::run_until`].
pub struct Running {
    node: Arc<Node>,
}

impl Running {
    /// Starts all that a node does, on the present runtime.
    pub fn start(parts: Parts) -> Running {
        let Parts { config, environment, store, gossip, listener } = parts;
        let node = Node::new(config, environment, store, gossip.view());
        node.span().in_scope(|| tell_of_the_start(&node));
        node.spawn(accept_connections(Arc::clone(&node), listener));
        node.spawn(Arc::clone(&node).announce(gossip));
        node.link_members();
        node.spawn(Arc::clone(&node).meet_peers());
        node.spawn(Arc::clone(&node).look_for_layout());
        node.spawn(Arc::clone(&node).follow_the_log());
        node.spawn(Arc::clone(&node).follow_settings());
        node.spawn(Arc::clone(&node).see_changes_through());
        node.spawn(Arc::clone(&node).copy_what_is_gained());
        node.spawn(Arc::clone(&node).readdress());
        node.spawn(Arc::clone(&node).hand_off());
        node.spawn(Arc::clone(&node).compare_replicas());
        node.spawn(Arc::clone(&node).fill_up());
        node.spawn(Arc::clone(&node).reap());
        node.spawn(Arc::clone(&node).say_when_empty());
        node.spawn(Arc::clone(&node).scrub());
        node.spawn(Arc::clone(&node).begin_anew_once_retired());
        node.spawn(Arc::clone(&node).begin_anew_once_damaged());
        Running { node }
    }

    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Runs until `stop`, or until the node cannot go on, or not as who it is; then stops in order.
    ///
    /// # Errors
    /// Why it could not go on.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> anyhow::Result<Ended> {
        let node = &self.node;
        async {
            let ended = tokio::select! {
                () = stop => Ok(Ended::Stopped),
                anew = superseded(node) => Ok(Ended::Superseded(anew)),
                failure = broken(node) => Err(failure),
            };
            shut_down(node).await;
            ended
        }
        .instrument(node.span().clone())
        .await
    }
}

/// What a node gossips with at its start, and what it says of itself then.
///
/// # Errors
/// If `advertise` cannot be resolved. An IP address is not looked up.
pub async fn gossip_parts(
    config: &Config,
    store: &Store,
    wall: &dyn WallClock,
) -> anyhow::Result<(Settings, Announcement)> {
    let announcement = Announcement {
        name: config.name.clone(),
        zone: config.zone.clone(),
        run: store.run(),
        address: config.advertise.parse::<Address>()?,
        protocol: PROTOCOLS.oldest..=PROTOCOLS.newest,
        features: Features::ALL.0,
        build: ShortText::new(BUILD),
        cluster: store.cluster(),
        layout: store.layout().map(|layout| layout.version()),
        log: store.ring().map(|ring| (ring.epoch(), ring.tip())),
        hints_for: store.hints().into_keys().collect::<HintTargets>(),
        is_filling: store.filling_count() > 0,
        settings: Some(store.settings_checksum()),
        standing: Standing::Starting,
    };
    let settings = Settings {
        cluster_name: config.cluster_name.clone(),
        node: store.identity().node,
        // Has to rise even when an old copy of the directory is started, whose run counter falls.
        generation: wall.now().0,
        listen: config.listen,
        advertise: resolve(&config.advertise).await?,
        seeds: config.seeds.clone(),
        timing: Timing::default(),
    };
    Ok((settings, announcement))
}

async fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    if let Ok(address) = address.parse() {
        return Ok(address);
    }
    let found =
        tokio::net::lookup_host(address).await.with_context(|| format!("cannot resolve advertise={address}"))?;
    found.into_iter().next().with_context(|| format!("advertise={address} has no address"))
}

fn tell_of_the_start(node: &Node) {
    let (listen, run) = (node.config.listen, node.store.run());
    if !listen.ip().is_loopback() {
        tracing::warn!(%listen, "connections are neither encrypted nor authenticated: use trusted networks only");
    }
    tracing::info!(%listen, id = %node.id(), directory = %run.directory, start = run.counter, build = BUILD, "started");
}

/// Returns once the node has to be started anew.
async fn superseded(node: &Node) -> Anew {
    let mut anew = node.anew.subscribe();
    loop {
        if let Some(anew) = &*anew.borrow_and_update() {
            return anew.clone();
        }
        if anew.changed().await.is_err() {
            // The node, which is borrowed here, has the sender.
            std::future::pending::<()>().await;
        }
    }
}

/// Returns once the node cannot go on, and why. A failed store ends it, since only a restart can tell what survived (R13),
/// and so does gossip that has ended: who is alive would stay as it was for ever. A retired directory does not: the node
/// stays up to say why it does not serve.
async fn broken(node: &Node) -> anyhow::Error {
    let mut gossip = node.gossip.clone();
    let gossip_ended = async { while gossip.changed().await.is_ok() {} };
    tokio::select! {
        () = gossip_ended => anyhow::anyhow!("gossip has ended, on {} (UDP)", node.config.listen),
        reason = store_failed(node) => anyhow::anyhow!("the store has failed: {reason}"),
    }
}

async fn store_failed(node: &Node) -> String {
    let mut health = node.store.health();
    loop {
        if let Health::Failed { reason } = &*health.borrow_and_update() {
            return reason.clone();
        }
        if health.changed().await.is_err() {
            // The store, which the node holds, has the sender.
            std::future::pending::<()>().await;
        }
    }
}

/// No new requests, then an end to those under way, then of everything else, then of the store.
async fn shut_down(node: &Arc<Node>) {
    node.draining.cancel();
    tokio::time::sleep(LEAVE_NOTICE).await;
    let all = u32::try_from(node.config.max_requests).unwrap_or(u32::MAX);
    if tokio::time::timeout(STOP_LIMIT, node.requests.acquire_many(all)).await.is_err() {
        tracing::warn!(limit = ?STOP_LIMIT, "requests were still under way; stopping all the same");
    }
    node.stopping.cancel();
    node.tasks.close();
    if tokio::time::timeout(STOP_LIMIT, node.tasks.wait()).await.is_err() {
        tracing::warn!(limit = ?STOP_LIMIT, "tasks were still running; stopping all the same");
    }
    node.store.drain().await;
    let store = Arc::clone(&node.store);
    drop(node.environment.block(move || store.close()).await);
    tracing::info!("stopped");
}
