//! Connections to the cluster, and why there is none.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use starling_client::{Bucket, Client, ClientError, ClientOptions, ControlClient};
use starling_core::layout::{Layout, Member};
use starling_core::name::{BucketName, NodeName};
use starling_core::quorum::{InvalidQuorum, Level, Quorum};
use starling_proto::control::{ClusterView, NodeStanding, NodeStatus, PeerView};

use crate::args::Global;
use crate::failure::{Failure, Intent, Kind};
use crate::names::Names;
use crate::report::ring::natural;
use crate::settings::{Seeds, Source};

/// How long a node is given to say how it is.
pub const STATUS_LIMIT: Duration = Duration::from_secs(2);

/// A client, the names that its layout gives, and when the command has to be done.
pub struct Session {
    client: Client,
    pub names: Names,
    deadline: Instant,
}

impl Session {
    /// Connects. Whatever the session is asked for from now on ends `timeout` from now.
    pub async fn open(global: &Global, timeout: Duration) -> Result<Session, Failure> {
        let deadline = Instant::now() + timeout;
        let seeds = Seeds::find(&global.nodes, global.config.as_deref())?;
        match Client::connect_with(seeds.addresses.clone(), ClientOptions { timeout }).await {
            Ok(client) => {
                let names = Names::of_layout(&client.layout());
                Ok(Session { client, names, deadline })
            }
            Err(error) => Err(explain_absence(error, &seeds, deadline).await),
        }
    }

    /// The client, for a request that begins now: it has what is left of the command's time.
    pub fn client(&self) -> Client {
        self.client.with_timeout(self.deadline.saturating_duration_since(Instant::now()))
    }

    pub fn layout(&self) -> Arc<Layout> {
        self.client.layout()
    }

    /// As [`Session::client`]: for a request that begins now.
    pub fn bucket(&self, name: &BucketName) -> Result<Bucket, Failure> {
        self.client().bucket(name.as_str()).map_err(|error| self.failure(error, Intent::Read))
    }

    /// Refuses a name that no member has. An address is taken as it is.
    pub fn check_member(&self, node: &str) -> Result<(), Failure> {
        let layout = self.layout();
        let mut names: Vec<&str> = layout.members().iter().map(|member| member.name.as_str()).collect();
        names.sort_by_key(|name| natural(name));
        if node.contains(':') || names.contains(&node) {
            return Ok(());
        }
        Err(Failure::usage(format!("no member is named `{node}`; there are {}", names.join(", "))))
    }

    /// Refuses a read quorum that no replica set of this bucket can meet, before anything is sent.
    pub fn check_read(&self, bucket: &BucketName, r: Level, pr: Level) -> Result<(), Failure> {
        Quorum::of_read(r, pr, self.layout().replicas_of(bucket)).map(drop).map_err(impossible)
    }

    /// As [`Session::check_read`], for a write.
    pub fn check_write(&self, bucket: &BucketName, w: Level, pw: Level) -> Result<(), Failure> {
        Quorum::of_write(w, pw, self.layout().replicas_of(bucket)).map(drop).map_err(impossible)
    }

    /// The failure behind a client's error, in this cluster's names.
    pub fn failure(&self, error: ClientError, intent: Intent) -> Failure {
        Failure::from_client(error, intent, &self.names)
    }
}

fn impossible(refusal: InvalidQuorum) -> Failure {
    Failure::usage(refusal.to_string()).hint("use one, quorum or all, which fit any bucket")
}

/// The first node that answers, for administration, and the cluster as it sees it.
pub async fn any_control(global: &Global, within: Duration) -> Result<(ControlClient, ClusterView), Failure> {
    let seeds = Seeds::find(&global.nodes, global.config.as_deref())?;
    let answer = ControlClient::connect_any(seeds.addresses.clone(), within).await;
    answer.map_err(|error| nobody(&error, &seeds))
}

/// Everybody that there is to ask: who the node sees, the node itself, and the members that it does not see.
pub async fn roster(control: &ControlClient, view: &ClusterView) -> Vec<PeerView> {
    let mut peers = view.peers.clone();
    let sees = |peers: &[PeerView], name: &NodeName| peers.iter().any(|peer| peer.name == *name);
    if !sees(&peers, &view.seen_by) {
        peers.extend(control.status(STATUS_LIMIT).await.ok().map(seen_by_itself));
    }
    for member in view.layout.iter().flat_map(|layout| layout.members()) {
        // A wiped directory is another node, under the member's name and address: one row is enough for both.
        peers.retain(|peer| peer.node == member.node || peer.name != member.name || peer.address != member.address);
        if !sees(&peers, &member.name) {
            peers.push(unseen(member));
        }
    }
    peers
}

fn seen_by_itself(status: NodeStatus) -> PeerView {
    PeerView {
        name: status.name,
        node: status.node,
        zone: status.zone,
        address: status.address,
        alive: true,
        standing: String::new(),
        cluster: status.cluster,
        layout: status.layout,
        build: status.build,
        hints_for: Vec::new(),
    }
}

fn unseen(member: &Member) -> PeerView {
    PeerView {
        name: member.name.clone(),
        node: member.node,
        zone: member.zone.clone(),
        address: member.address.clone(),
        alive: false,
        standing: String::new(),
        cluster: None,
        layout: None,
        build: String::new(),
        hints_for: Vec::new(),
    }
}

/// Why no seed has a layout to give: nobody is there, or whoever is there belongs to no cluster, or may not serve.
async fn explain_absence(error: ClientError, seeds: &Seeds, deadline: Instant) -> Failure {
    let asked = tokio::time::timeout_at(deadline.into(), first_status(seeds)).await;
    let Ok(Some((address, status))) = asked else { return nobody(&error, seeds) };
    let name = status.name;
    match status.standing {
        NodeStanding::Uninitialised => {
            Failure::new(Kind::NoCluster, format!("{name} ({address}) is up, but belongs to no cluster yet"))
                .hint("run `starling cluster init` once all nodes are up")
        }
        NodeStanding::Excluded(reason) => {
            Failure::new(Kind::Unreachable, format!("{name} ({address}) may not serve: {reason}"))
                .hint("name another node with --node")
        }
        NodeStanding::Failed(reason) => {
            Failure::new(Kind::Unreachable, format!("{name} ({address}) has stopped serving: {reason}"))
                .hint("repair its disk and restart it, or name another node with --node")
        }
        NodeStanding::Left => Failure::new(Kind::Unreachable, format!("{name} ({address}) has left its cluster"))
            .hint("name another node with --node"),
        NodeStanding::Serving | NodeStanding::Stopping => Failure::from_client(error, Intent::Read, &Names::default()),
    }
}

async fn first_status(seeds: &Seeds) -> Option<(&str, NodeStatus)> {
    for address in &seeds.addresses {
        let Ok(control) = ControlClient::connect(address).await else { continue };
        let Ok(status) = control.status(STATUS_LIMIT).await else { continue };
        return Some((address, status));
    }
    None
}

fn any_paused(dir: &Path) -> bool {
    let nodes = starling_local::ClusterView::read(dir).and_then(|view| view.status()).unwrap_or_default();
    nodes.iter().any(|node| matches!(node.state, starling_local::NodeState::Paused { .. }))
}

fn nobody(error: &ClientError, seeds: &Seeds) -> Failure {
    let hint = match &seeds.source {
        Source::Flags | Source::Environment | Source::File(_) => {
            format!("check that the nodes run, and the addresses, which come from {}", seeds.source)
        }
        Source::LocalCluster(dir) if any_paused(dir) => {
            "`starling local status` shows which nodes are paused, and `starling local resume NODE` lets one go on"
                .to_owned()
        }
        Source::LocalCluster(_) => {
            "`starling local status` shows which nodes run, and `starling local up` starts them".to_owned()
        }
        Source::Nowhere => {
            "`starling local up` starts a cluster on this machine; name another one's nodes with --node".to_owned()
        }
    };
    Failure::new(Kind::Unreachable, error.to_string()).hint(hint)
}
