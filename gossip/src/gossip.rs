//! The handle, and the task behind it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use chitchat::transport::{Transport, UdpTransport};
use chitchat::{Chitchat, ChitchatHandle, NodeState, spawn_chitchat};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::announcement::Announcement;
use crate::encoding;
use crate::error::GossipError;
use crate::settings::Settings;
use crate::socket::Opened;
use crate::translator::{Sighting, Translator};
use crate::view::View;

/// How long the names of all seeds may take to resolve.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(60);
/// How long chitchat may take to stop; it does at once, unless it is amid sending a datagram.
pub(crate) const STOP_LIMIT: Duration = Duration::from_secs(5);

/// This node's part in the gossip. Ends when it is shut down or dropped.
pub struct Gossip {
    address: SocketAddr,
    announcement: watch::Sender<Announcement>,
    view: watch::Receiver<Arc<View>>,
    task: JoinHandle<Result<(), GossipError>>,
}

impl Gossip {
    /// Gossips over UDP.
    ///
    /// # Errors
    /// [`GossipError::Settings`], [`GossipError::Bind`], or [`GossipError::SlowStart`] after 60 s.
    pub async fn start(settings: Settings, announcement: Announcement) -> Result<Gossip, GossipError> {
        Self::start_with_transport(settings, announcement, &UdpTransport).await
    }

    /// Gossips over any transport. Seeds that are names, not IP addresses, are looked up in the real network whatever
    /// the transport.
    ///
    /// # Errors
    /// As for [`Gossip::start`].
    pub async fn start_with_transport(
        settings: Settings,
        announcement: Announcement,
        transport: &dyn Transport,
    ) -> Result<Gossip, GossipError> {
        settings.check()?;
        let socket = Opened::open(transport, settings.listen).await?;
        let config = settings.chitchat(socket.local().port());
        let own = config.chitchat_id.clone();
        let handle = spawn(spawn_chitchat(config, written(&announcement), &socket)).await?;
        let translator = Translator::new(own, settings.timing.patience, Instant::now());
        let (announcement, announcements) = watch::channel(announcement);
        let (views, view) = watch::channel(Arc::default());
        let mut observer = Observer { handle, announcements, views, translator };
        observer.look().await;
        let task = tokio::spawn(observer.run(settings.timing.interval));
        Ok(Gossip { address: socket.local(), announcement, view, task })
    }

    /// The address that is listened on, with the port that was bound.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// The cluster as it is seen now and from now on. The first view holds this node at least. The channel closes when
    /// gossip has ended: after [`Gossip::shutdown`], or by a failure, which `shutdown` then returns. A node that cannot
    /// gossip should stop.
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// Replaces what this node says of itself. Returns at once; the others hear of what changed with the next rounds of
    /// gossip. Of announcements in quick succession they may hear the last only.
    pub fn announce(&self, announcement: Announcement) {
        self.update(|current| *current = announcement);
    }

    /// Changes some of what this node says of itself, as [`Gossip::announce`] does. `change` must not block, nor call
    /// this handle.
    pub fn update(&self, change: impl FnOnce(&mut Announcement)) {
        self.announcement.send_if_modified(|current| {
            let before = current.clone();
            change(current);
            *current != before
        });
    }

    /// Stops and waits until the socket is closed. The others notice by the silence: say [`Standing::Leaving`] a few
    /// rounds before, if it should not come as a surprise.
    ///
    /// [`Standing::Leaving`]: crate::Standing::Leaving
    ///
    /// # Errors
    /// [`GossipError::Ended`] if gossip had failed before, [`GossipError::SlowStop`] after 5 s.
    pub async fn shutdown(self) -> Result<(), GossipError> {
        let Gossip { announcement, task, .. } = self;
        drop(announcement);
        task.await.unwrap_or_else(|panic| Err(GossipError::Ended { reason: panic.to_string() }))
    }
}

async fn spawn(starting: impl Future<Output = anyhow::Result<ChitchatHandle>>) -> Result<ChitchatHandle, GossipError> {
    let started = timeout(START_LIMIT, starting).await.map_err(|_| GossipError::SlowStart)?;
    started.map_err(|source| GossipError::Start { source: source.into() })
}

fn written(announcement: &Announcement) -> Vec<(String, String)> {
    encoding::encode(announcement).into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The task that writes announcements down and publishes views. It runs until the handle is gone.
struct Observer {
    handle: ChitchatHandle,
    announcements: watch::Receiver<Announcement>,
    views: watch::Sender<Arc<View>>,
    translator: Translator,
}

impl Observer {
    async fn run(mut self, every: Duration) -> Result<(), GossipError> {
        let mut looks = interval(every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        // Chitchat tells at once of live nodes that changed, and of no others: hence the regular looks.
        let mut live = self.handle.chitchat().lock().await.live_nodes_watcher();
        let mut ended = pin!(self.handle.termination_watcher());
        loop {
            tokio::select! {
                changed = self.announcements.changed() => if changed.is_err() { return self.stop().await },
                outcome = &mut ended => return Err(failure(outcome)),
                Ok(()) = live.changed() => {}
                _ = looks.tick() => {}
            }
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let chitchat = self.handle.chitchat();
        let mut chitchat = chitchat.lock().await;
        write_down(&self.announcements.borrow_and_update(), chitchat.self_node_state());
        let view = self.translator.look(Instant::now(), sightings(&chitchat));
        drop(chitchat);
        self.publish(view);
    }

    fn publish(&self, view: View) {
        self.views.send_if_modified(|current| {
            if view.conflicts != current.conflicts {
                tracing::warn!(conflicts = ?view.conflicts, "conflicts between nodes changed");
            }
            let changed = **current != view;
            if changed {
                *current = Arc::new(view);
            }
            changed
        });
    }

    async fn stop(self) -> Result<(), GossipError> {
        let ended = self.handle.termination_watcher();
        // An error says that it has ended already.
        let _ = self.handle.initiate_shutdown();
        match timeout(STOP_LIMIT, ended).await {
            Ok(Ok(())) => Ok(()),
            Ok(failed) => Err(failure(failed)),
            Err(_) => {
                self.handle.abort();
                Err(GossipError::SlowStop)
            }
        }
    }
}

/// Sets what differs. Done at each look, and not only when the announcement changes: a node that starts again with a
/// generation that was used before is told its former announcement by its peers, and chitchat takes it for its own.
fn write_down(announcement: &Announcement, state: &mut NodeState) {
    for (key, value) in encoding::encode(announcement) {
        state.set(key, value);
    }
}

fn sightings(chitchat: &Chitchat) -> impl Iterator<Item = Sighting<'_>> {
    let live: BTreeSet<_> = chitchat.live_nodes().collect();
    let sighting = move |(id, state)| Sighting { id, state, alive: live.contains(id) };
    chitchat.node_states().iter().map(sighting)
}

fn failure(outcome: anyhow::Result<()>) -> GossipError {
    let reason = outcome.err().map_or_else(|| "it was stopped".to_owned(), |error| error.to_string());
    tracing::error!(reason, "gossip ended");
    GossipError::Ended { reason }
}
