//! A node's life: open, gossip, listen, serve, stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use starling_gossip::{Address, Announcement, Gossip, HintTargets, Settings, ShortText, Standing, Timing};
use starling_proto::BUILD;
use starling_proto::hello::PROTOCOLS;
use starling_storage::{Health, Store};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::Instrument;

use crate::config::Config;
use crate::node::{Node, wall_clock};
use crate::server::accept_connections;

/// Requests under way have this long to end when the node stops.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// For this long a stopping node tells peers and clients that it leaves, before it waits for what is under way.
const LEAVE_NOTICE: Duration = Duration::from_millis(500);

/// Runs a node until it is told to stop, or its store fails.
///
/// # Errors
/// Why it could not start, or had to stop.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let mut stop = Stop::listen()?;
    // A port that is taken is found before the store is opened: each opening begins a run.
    let listener =
        TcpListener::bind(config.listen).await.with_context(|| format!("cannot listen on {} (TCP)", config.listen))?;
    let store = open_store(&config).await?;
    let gossip = start_gossip(&config, &store).await?;
    let node = Node::new(config, store, gossip.view());
    warn_if_exposed(node.config.listen);
    let span = node.span().clone();
    async {
        let run = node.store.run();
        tracing::info!(listen = %node.config.listen, id = %node.id(), directory = %run.directory, start = run.counter,
            build = BUILD, "started");
        node.spawn(accept_connections(Arc::clone(&node), listener));
        node.spawn(Arc::clone(&node).announce(gossip));
        node.link_members();
        node.spawn(Arc::clone(&node).meet_peers());
        node.spawn(Arc::clone(&node).look_for_layout());
        node.spawn(Arc::clone(&node).hand_off());
        let ended = wait_for_the_end(&node, &mut stop).await;
        shut_down(&node).await;
        ended
    }
    .instrument(span)
    .await
}

async fn open_store(config: &Config) -> anyhow::Result<Arc<Store>> {
    let (path, name) = (config.data_dir.clone(), config.name.clone());
    let (rocks, limits) = (config.rocks, config.store);
    let store = tokio::task::spawn_blocking(move || Store::open_directory(&path, &name, rocks, limits)).await??;
    Ok(Arc::new(store))
}

async fn start_gossip(config: &Config, store: &Store) -> anyhow::Result<Gossip> {
    let advertise = resolve(&config.advertise).await?;
    let announcement = Announcement {
        name: config.name.clone(),
        zone: config.zone.clone(),
        run: store.run(),
        address: config.advertise.parse::<Address>()?,
        protocol: PROTOCOLS.oldest..=PROTOCOLS.newest,
        features: 0,
        build: ShortText::new(BUILD),
        cluster: store.layout().map(|layout| layout.cluster()),
        layout: store.layout().map(|layout| layout.version()),
        hints_for: store.hints().into_keys().collect::<HintTargets>(),
        standing: Standing::Starting,
    };
    let settings = Settings {
        cluster_name: config.cluster_name.clone(),
        node: store.identity().node,
        // Has to rise even when an old copy of the directory is started, whose run counter falls.
        generation: wall_clock(),
        listen: config.listen,
        advertise,
        seeds: config.seeds.clone(),
        timing: Timing::default(),
    };
    Gossip::start(settings, announcement).await.with_context(|| format!("cannot gossip on {} (UDP)", config.listen))
}

async fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    let found =
        tokio::net::lookup_host(address).await.with_context(|| format!("cannot resolve advertise={address}"))?;
    found.into_iter().next().with_context(|| format!("advertise={address} has no address"))
}

fn warn_if_exposed(listen: SocketAddr) {
    if !listen.ip().is_loopback() {
        tracing::warn!(%listen, "connections are neither encrypted nor authenticated: use trusted networks only");
    }
}

/// The signals that ask a node to stop.
struct Stop {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Stop {
    fn listen() -> anyhow::Result<Stop> {
        Ok(Stop { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }
}

/// A failed store ends the process, since only a restart can tell what survived (R13), and so does gossip that has ended:
/// who is alive would stay as it was for ever. A retired directory does not: the node stays up to say why it does not
/// serve.
async fn wait_for_the_end(node: &Node, stop: &mut Stop) -> anyhow::Result<()> {
    let mut gossip = node.gossip.clone();
    let gossip_ended = async { while gossip.changed().await.is_ok() {} };
    let mut health = node.store.health();
    let failed = health.wait_for(|health| matches!(health, Health::Failed { .. }));
    tokio::select! {
        _ = stop.terminate.recv() => tracing::info!("asked to stop"),
        _ = stop.interrupt.recv() => tracing::info!("interrupted; stopping"),
        () = gossip_ended => anyhow::bail!("gossip has ended, on {} (UDP)", node.config.listen),
        Ok(health) = failed => if let Health::Failed { reason } = &*health {
            anyhow::bail!("the store has failed: {reason}");
        },
    }
    Ok(())
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
    let store = Arc::clone(&node.store);
    drop(tokio::task::spawn_blocking(move || store.close()).await);
    tracing::info!("stopped");
}
