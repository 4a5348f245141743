//! A node: everything its services and background tasks share.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use starling_core::get::Standing as Completeness;
use starling_core::ids::NodeId;
use starling_core::name::ObjectKey;
use starling_core::object::Object;
use starling_core::pacing::Part;
use starling_core::reaping::RoundsOver;
use starling_core::report::Refusal;
use starling_core::ring::{Epoch, Membership, Ring};
use starling_core::settings::BucketSettings;
use starling_core::wall::{WallTime, WallWatch};
use starling_gossip::{Standing, View};
use starling_proto::CallContext;
use starling_proto::control::NodeStanding;
use starling_proto::data::RequestError;
use starling_proto::hello::Introduction;
use starling_storage::{Health, Identity, Store, StoreError};
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::anti_entropy::Comparisons;
use crate::budget::Budget;
use crate::config::Config;
use crate::copying::CopyingLog;
use crate::counters::Counters;
use crate::environment::Environment;
use crate::filling::FillingLog;
use crate::handoff::Handoff;
use crate::init::Reservation;
use crate::peers::Peers;
use crate::reaping::Rounds;
use crate::registering::Anew;
use crate::repairing::Repairs;

/// Reads of the disk that run at once; in production each occupies a thread.
const DISK_READS: usize = 32;

pub struct Node {
    pub config: Config,
    pub environment: Environment,
    pub store: Arc<Store>,
    pub peers: Peers,
    pub counters: Counters,
    pub hedges: Budget,
    pub handoff: Handoff,
    pub copying: CopyingLog,
    pub filling: FillingLog,
    /// Rounds of reaping that this node leads.
    pub rounds: Rounds,
    /// Whether this node's clock was set of late.
    pub wall_watch: Mutex<WallWatch>,
    pub comparisons: Comparisons,
    pub repairs: Repairs,
    pub started: Instant,
    pub reservation: Reservation,
    /// Requests being coordinated; further ones are refused.
    pub requests: Arc<Semaphore>,
    /// The ring in effect, for those who wait for another.
    pub ring: watch::Sender<Option<Arc<Ring>>>,
    /// The peer that was last found to be in another epoch.
    pub suspect: watch::Sender<BTreeSet<NodeId>>,
    /// Held while what is staged changes.
    pub staging: AsyncMutex<()>,
    /// One at a time learns what others know of the log.
    pub catching_up: AsyncMutex<()>,
    /// Why this node may not serve although its store would.
    pub excluded: watch::Sender<Option<String>>,
    /// True once peers have had the chance to object to this run.
    pub introduced: watch::Sender<bool>,
    /// Set once this node has to be started anew, as another than it is.
    pub anew: watch::Sender<Option<Anew>>,
    pub gossip: watch::Receiver<Arc<View>>,
    /// Cancelled when the node takes no new requests.
    pub draining: CancellationToken,
    /// Cancelled when everything ends.
    pub stopping: CancellationToken,
    pub tasks: TaskTracker,
    span: tracing::Span,
    disk: Arc<Semaphore>,
}

impl Node {
    pub fn new(
        config: Config,
        environment: Environment,
        store: Arc<Store>,
        gossip: watch::Receiver<Arc<View>>,
    ) -> Arc<Node> {
        let span = tracing::info_span!("node", name = %config.name);
        Arc::new(Node {
            peers: Peers::default(),
            counters: Counters::default(),
            hedges: Budget::default(),
            handoff: Handoff::new(config.handoff_rate),
            copying: CopyingLog::default(),
            filling: FillingLog::default(),
            rounds: Rounds::default(),
            wall_watch: Mutex::new(WallWatch::new(config.expiry_margin)),
            comparisons: Comparisons::default(),
            repairs: Repairs::default(),
            started: Instant::now(),
            reservation: Reservation::default(),
            requests: Arc::new(Semaphore::new(config.max_requests)),
            ring: watch::Sender::new(store.ring()),
            suspect: watch::Sender::new(BTreeSet::new()),
            staging: AsyncMutex::new(()),
            catching_up: AsyncMutex::new(()),
            excluded: watch::Sender::new(None),
            introduced: watch::Sender::new(false),
            anew: watch::Sender::new(None),
            gossip,
            draining: CancellationToken::new(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            span,
            disk: Arc::new(Semaphore::new(DISK_READS)),
            config,
            environment,
            store,
        })
    }

    pub fn id(&self) -> NodeId {
        self.store.identity().node
    }

    /// How this node introduces itself in a hello.
    pub fn introduction(&self) -> Introduction {
        Introduction { node: self.id(), name: self.config.name.clone(), run: self.store.run() }
    }

    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.gossip.borrow())
    }

    /// Whether gossip takes a node for alive and willing.
    pub fn is_available(&self, node: NodeId) -> bool {
        node == self.id()
            || self.view().peer(node).is_some_and(|peer| {
                peer.alive && matches!(peer.announcement.standing, Standing::Starting | Standing::Serving)
            })
    }

    /// Runs a task that the node waits for when it stops, with the node's name in its logs.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task.instrument(self.span.clone()));
    }

    /// Runs a task that the node waits for when it stops, under the span of the request it is for. It goes on when whoever
    /// waits for it is dropped.
    pub fn spawn_for_request<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.tasks.spawn(task.in_current_span())
    }

    /// # Errors
    /// [`Refusal::Overloaded`] if as many requests as may be are being coordinated.
    pub fn room_for_a_request(&self) -> Result<OwnedSemaphorePermit, RequestError> {
        Arc::clone(&self.requests).try_acquire_owned().map_err(|_full| {
            self.counters.requests_refused.add(1);
            RequestError::Refused(Refusal::Overloaded)
        })
    }

    /// A span for what this node does for somebody's request.
    pub fn span_of(&self, what: &'static str, context: &CallContext) -> tracing::Span {
        tracing::info_span!(parent: &self.span, "call", what, trace = %context.trace_id())
    }

    pub fn span(&self) -> &tracing::Span {
        &self.span
    }

    pub fn standing(&self) -> NodeStanding {
        if self.draining.is_cancelled() {
            return NodeStanding::Stopping;
        }
        match &*self.store.health().borrow() {
            Health::Failed { reason } => return NodeStanding::Failed(reason.clone()),
            Health::Retired { reason } => return NodeStanding::Excluded(reason.clone()),
            Health::Serving => {}
        }
        match (&*self.excluded.borrow(), self.store.ring()) {
            (Some(reason), _) => NodeStanding::Excluded(reason.clone()),
            (None, None) => NodeStanding::Uninitialised,
            (None, Some(ring)) => self.standing_in(&ring),
        }
    }

    fn standing_in(&self, ring: &Ring) -> NodeStanding {
        let Identity { node, directory, name } = self.store.identity();
        let cluster = ring.cluster();
        match ring.membership_of(*node, *directory) {
            Membership::Member => NodeStanding::Serving,
            Membership::Left => NodeStanding::Left,
            Membership::Removed => NodeStanding::Excluded(format!(
                "`{name}` was removed from cluster {cluster}; to join again it needs an empty data directory"
            )),
            Membership::OtherDirectory(registered) => NodeStanding::Excluded(format!(
                "cluster {cluster} knows `{name}` with directory {registered} by now, and this is directory {directory}: \
                 on an empty data directory it comes back"
            )),
            Membership::Stranger => NodeStanding::Excluded(format!("cluster {cluster} knows no `{name}`")),
        }
    }

    /// The ring by which this node serves, if it serves.
    ///
    /// # Errors
    /// Why it does not.
    pub fn serving_ring(&self) -> Result<Arc<Ring>, NotServing> {
        match self.standing() {
            NodeStanding::Serving if !*self.introduced.borrow() => {
                Err(NotServing { refusal: Refusal::NotAMember, reason: "it is still meeting its peers".to_owned() })
            }
            NodeStanding::Serving => self.store.ring().ok_or_else(NotServing::uninitialised),
            NodeStanding::Uninitialised => Err(NotServing::uninitialised()),
            NodeStanding::Left => {
                Err(NotServing { refusal: Refusal::NotAMember, reason: "it has left the cluster".to_owned() })
            }
            NodeStanding::Excluded(reason) => Err(NotServing { refusal: Refusal::NotAMember, reason }),
            NodeStanding::Failed(reason) => Err(NotServing { refusal: Refusal::StorageFailed, reason }),
            NodeStanding::Stopping => {
                Err(NotServing { refusal: Refusal::Stopping, reason: "it is shutting down".to_owned() })
            }
        }
    }

    /// The ring by which this node brings home what it holds: also when it has left.
    ///
    /// # Errors
    /// Why it does not.
    pub fn ring_to_hand_off_by(&self) -> Result<Arc<Ring>, NotServing> {
        match self.standing() {
            NodeStanding::Left => self.store.ring().ok_or_else(NotServing::uninitialised),
            NodeStanding::Uninitialised
            | NodeStanding::Serving
            | NodeStanding::Excluded(_)
            | NodeStanding::Failed(_)
            | NodeStanding::Stopping => self.serving_ring(),
        }
    }

    /// What is set of a key's bucket.
    pub fn settings_of(&self, key: &ObjectKey) -> BucketSettings {
        self.store.settings().of(key.bucket())
    }

    /// By this node's clock.
    pub fn wall(&self) -> WallTime {
        self.environment.wall.now()
    }

    /// Reads this node's copy of a key, and says how far it is to be relied on. What comes of it was so while this node was
    /// in that epoch.
    ///
    /// # Errors
    /// Those of the read; [`Refusal::OtherLayout`] if this node is in another epoch by the end of it.
    pub async fn read_own(&self, epoch: Epoch, key: ObjectKey) -> Result<(Completeness, Option<Object>), StoreError> {
        let completeness = match self.store.ring() {
            Some(ring) if ring.primaries(&key).is_read_from(self.id()) && !self.is_filling(&ring, &key) => {
                Completeness::Complete
            }
            Some(_) | None => Completeness::Filling,
        };
        let began = Instant::now();
        let object = self.read_in(epoch, move |store| store.get(&key)).await?;
        self.handoff.note(Part::Read, began);
        Ok((completeness, object))
    }

    /// Whether this node may lack writes of a key of which it is a primary (R8).
    pub fn is_filling(&self, ring: &Ring, key: &ObjectKey) -> bool {
        self.store.is_filling(ring.read().partition_of(key))
    }

    /// How many rounds of reaping this node knows to be over of a key's partition. To be asked before anything is read that
    /// is to be sent.
    ///
    /// # Errors
    /// [`Refusal::NotAMember`] without a ring.
    pub fn rounds_over(&self, epoch: Epoch, key: &ObjectKey) -> Result<RoundsOver, StoreError> {
        let layout = self.store.layout().ok_or(StoreError::Refused(Refusal::NotAMember))?;
        Ok(self.store.rounds_over(epoch, layout.partition_of(key)))
    }

    /// As [`Node::read_store`], in that epoch and no other: an old ring's reads must not go on when a new one has come.
    ///
    /// # Errors
    /// Those of the read; [`Refusal::OtherLayout`] if this node is in another epoch by the end of it.
    pub async fn read_in<T: Send + 'static>(
        &self,
        epoch: Epoch,
        read: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let found = self.read_store(read).await?;
        let is_same = self.store.ring().is_some_and(|ring| ring.epoch() == epoch);
        if is_same { Ok(found) } else { Err(StoreError::Refused(Refusal::OtherLayout)) }
    }

    /// Changes the node's own affairs in the store, where that may block.
    ///
    /// # Errors
    /// Those of the change.
    pub async fn change_store<T: Send + 'static, E: From<StoreError> + Send + 'static>(
        &self,
        change: impl FnOnce(&Store) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let store = Arc::clone(&self.store);
        let changed = self.environment.block(move || change(&store)).await;
        changed.unwrap_or_else(|panic| Err(StoreError::Damaged(panic.to_string()).into()))
    }

    /// Reads the store where that may block.
    ///
    /// # Errors
    /// Those of the read.
    pub async fn read_store<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        // The semaphore is never closed; waiting for it is bounded by the number of requests, and ends with their
        // deadlines.
        let room = Arc::clone(&self.disk).acquire_owned().await.map_err(|_| StoreError::Refused(Refusal::Stopping))?;
        let store = Arc::clone(&self.store);
        let read = move || {
            let result = read(&store);
            // Not before: whoever waits may have gone while the disk was busy with this.
            drop(room);
            result
        };
        self.environment.block(read).await.unwrap_or_else(|panic| Err(StoreError::Damaged(panic.to_string())))
    }
}

/// Why a node serves no data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotServing {
    pub refusal: Refusal,
    pub reason: String,
}

impl NotServing {
    fn uninitialised() -> NotServing {
        let reason = "it does not belong to a cluster yet; make one with `starling cluster init`".to_owned();
        NotServing { refusal: Refusal::NotAMember, reason }
    }
}
