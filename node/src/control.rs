//! The control service: how this node is, how it sees the cluster, and making one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use starling_core::change::Change;
use starling_core::ids::{ClusterId, NodeId};
use starling_core::layout::{Layout, LayoutChecksum, Member};
use starling_core::name::NodeName;
use starling_core::ring::{Entry, Epoch};
use starling_core::settings::{Registers, Settings};
use starling_core::token::Partition;
use starling_gossip::Standing;
use starling_proto::control::{
    ClusterView, Committed, ControlError, ControlService, FillingUp, Force, Forced, HintsFor, Init, NodeStatus,
    NotRegistered, PeerView, Plan, Registration, RepairScope, Repairing, Set, Tombstones, Transfers, Transition,
    VerifiedPage,
};
use starling_proto::{BUILD, CallContext};

use crate::node::Node;

/// Entries of the log that are sent at once: with layouts as large as can be they fit a frame.
const LOG_PAGE: usize = 6;

#[derive(Clone)]
pub struct Control {
    node: Arc<Node>,
}

impl Control {
    pub fn new(node: &Arc<Node>) -> Control {
        Control { node: Arc::clone(node) }
    }
}

impl ControlService for Control {
    async fn status(self, _: CallContext) -> NodeStatus {
        let node = &self.node;
        let layout = node.store.layout();
        let own = |layout: &Arc<Layout>| {
            let index = layout.members().iter().position(|member| member.node == node.id());
            index.and_then(|index| layout.shares().get(index).copied()).unwrap_or(0) as usize
        };
        NodeStatus {
            name: node.config.name.clone(),
            node: node.id(),
            run: node.store.run(),
            zone: node.config.zone.clone(),
            address: node.config.advertise.clone(),
            standing: node.standing(),
            cluster: node.store.cluster(),
            layout: layout.as_ref().map(|layout| layout.version()),
            build: BUILD.to_owned(),
            uptime: node.started.elapsed(),
            partitions: layout.as_ref().map_or(0, own),
            disk_used_bytes: node.store.used_bytes(),
            disk_free_bytes: node.store.free_bytes(),
            resident_bytes: resident_bytes(),
            hints: node.store.hints().into_iter().map(|(target, count)| HintsFor { target, count }).collect(),
            connected: node.peers.connected(),
            counters: counters_of(node),
        }
    }

    async fn cluster(self, _: CallContext) -> ClusterView {
        let peers = self.node.view().peers.values().map(peer_view).collect();
        let layout = self.node.store.layout().map(|layout| Layout::clone(&layout));
        ClusterView { seen_by: self.node.config.name.clone(), layout, peers }
    }

    async fn init(self, _: CallContext, request: Init) -> Result<Layout, ControlError> {
        let node = Arc::clone(&self.node);
        // Goes on when whoever asked is gone: half a cluster helps nobody.
        let made = self.node.spawn_for_request(async move { node.init_cluster(request).await });
        made.await.unwrap_or_else(|panic| Err(ControlError::Internal(panic.to_string())))
    }

    async fn candidate(self, _: CallContext, cluster: ClusterId) -> Result<Member, ControlError> {
        self.node.candidate_for(cluster)
    }

    async fn adopt(self, _: CallContext, layout: Layout) -> Result<LayoutChecksum, ControlError> {
        let names_this_node = layout
            .member(self.node.id())
            .is_some_and(|member| member.directory == self.node.store.identity().directory);
        if !names_this_node {
            return Err(ControlError::Invalid("the layout does not name this node's directory".to_owned()));
        }
        let checksum = layout.checksum();
        self.node.adopt_if_reserved(layout).await.map(|()| checksum)
    }

    async fn log(self, _: CallContext, after: Epoch) -> Result<Vec<Entry>, ControlError> {
        let entries = self.node.read_store(move |store| store.entries(after, LOG_PAGE)).await;
        entries.map_err(|error| ControlError::Internal(error.to_string()))
    }

    async fn stage(self, _: CallContext, changes: Vec<Change>) -> Result<Plan, ControlError> {
        self.node.stage(changes).await
    }

    async fn unstage(self, _: CallContext) -> Result<Vec<Change>, ControlError> {
        self.node.unstage().await
    }

    async fn plan(self, _: CallContext) -> Result<Option<Plan>, ControlError> {
        self.node.plan().await
    }

    async fn commit(self, _: CallContext, plan: LayoutChecksum) -> Result<Committed, ControlError> {
        let node = Arc::clone(&self.node);
        // Goes on when whoever asked is gone: what is half chosen is chosen by the next who proposes.
        let chosen = self.node.spawn_for_request(async move { node.commit_plan(plan).await });
        chosen.await.unwrap_or_else(|panic| Err(ControlError::Internal(panic.to_string())))
    }

    async fn transition(self, _: CallContext) -> Result<Transition, ControlError> {
        self.node.transition().await
    }

    async fn transfers(self, _: CallContext) -> Transfers {
        self.node.transfers().await
    }

    async fn repair(self, _: CallContext, scope: RepairScope) -> Result<u64, ControlError> {
        self.node.begin_repair(scope)
    }

    async fn repairing(self, _: CallContext, number: u64) -> Option<Repairing> {
        self.node.repairs.progress(number)
    }

    async fn verify(self, _: CallContext, from: Partition) -> Result<VerifiedPage, ControlError> {
        self.node.verify_from(from).await
    }

    async fn register(self, _: CallContext, request: Registration) -> Result<NodeId, NotRegistered> {
        let node = Arc::clone(&self.node);
        // Goes on when whoever asked is gone, as a commit does.
        let registered = self.node.spawn_for_request(async move { node.register(request).await });
        registered.await.unwrap_or_else(|panic| Err(NotRegistered::Unavailable(panic.to_string())))
    }

    async fn filling(self, _: CallContext) -> FillingUp {
        self.node.filling_up()
    }

    async fn tombstones(self, _: CallContext) -> Result<Tombstones, ControlError> {
        self.node.tombstones().await
    }

    async fn settings(self, _: CallContext) -> Settings {
        Settings::clone(&self.node.store.settings())
    }

    async fn set(self, _: CallContext, request: Set) -> Result<Registers, ControlError> {
        self.node.set(request).await
    }

    async fn force_plan(self, _: CallContext, dead: BTreeSet<NodeName>) -> Result<Plan, ControlError> {
        self.node.force_plan(&dead).await
    }

    async fn force(self, _: CallContext, request: Force) -> Result<Forced, ControlError> {
        let node = Arc::clone(&self.node);
        // Goes on when whoever asked is gone, as a commit does.
        let forced = self.node.spawn_for_request(async move { node.force(request).await });
        forced.await.unwrap_or_else(|panic| Err(ControlError::Internal(panic.to_string())))
    }

    async fn layout(self, _: CallContext) -> Option<Layout> {
        self.node.store.layout().map(|layout| Layout::clone(&layout))
    }
}

/// What it counts, for how long the comparison with a peer is overdue that has waited longest, and how much is filling.
fn counters_of(node: &Node) -> BTreeMap<String, u64> {
    let overdue = node.comparisons.oldest().map(|since| ("oldest_comparison_s".to_owned(), since.as_secs()));
    let filling = ("filling_partitions".to_owned(), node.store.filling_count() as u64);
    node.counters.snapshot().into_iter().chain(overdue).chain([filling]).collect()
}

fn peer_view(peer: &starling_gossip::Peer) -> PeerView {
    let said = &peer.announcement;
    let standing = match &said.standing {
        Standing::Starting => "starting".to_owned(),
        Standing::Serving if said.layout.is_none() => "uninitialised".to_owned(),
        Standing::Serving if said.is_filling => "filling".to_owned(),
        Standing::Serving => "serving".to_owned(),
        Standing::Retired { reason } => format!("excluded: {}", reason.as_str()),
        Standing::Leaving => "stopping".to_owned(),
    };
    PeerView {
        name: said.name.clone(),
        node: peer.node,
        zone: said.zone.clone(),
        address: said.address.as_str().to_owned(),
        alive: peer.alive,
        standing,
        cluster: said.cluster,
        layout: said.layout,
        build: said.build.as_str().to_owned(),
        hints_for: said.hints_for.named().map(|nodes| nodes.iter().copied().collect()).unwrap_or_default(),
    }
}

/// The process's resident memory, where the system tells (proc(5)).
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kilobytes * 1024)
}
