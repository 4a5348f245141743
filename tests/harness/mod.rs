//! A cluster of real `starling-node` processes for tests: started on free ports in a temporary directory, killed with the
//! test. A test waits for events, never for time; [`eventually`] is how.
//!
//! [`Recorder`] writes down what a test's clients do, and has it judged in the end; [`Direct`] asks one node where a client
//! would turn to another; [`Starling`] is the command line.

mod attempts;
mod direct;
mod judge;
mod patience;
mod recorded;
mod recorder;
mod relay;
mod stale;
mod starling;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use starling_client::{Client, ClientError, ClientOptions, ControlClient, Fetched};
use starling_core::change::Change;
use starling_core::ids::NodeId;
use starling_core::layout::{BucketRules, Layout, LayoutVersion};
use starling_core::name::{BucketName, NodeName};
use starling_core::quorum::{Level, ReplicaCount};
use starling_core::ring::Phase;
use starling_core::token::{Partition, PartitionCount};
use starling_local::{EphemeralCluster, Launch, Ports, Shape};
use starling_proto::BUILD;
use starling_proto::control::{ClusterView, Committed, Init, NodeStanding, NodeStatus, Transfers};

pub use direct::{Direct, put_request};
pub use patience::{eventually, usually};
pub use recorded::{Bucket, Get, Write};
pub use recorder::{Recorder, Session};
use relay::Relay;
pub use starling::{Ran, Starling, list, text};

const BUILD_FIRST: &str = "run `cargo build --workspace --bins` first";
/// Of a change of the ring, until it is chosen.
const CHANGE: Duration = Duration::from_secs(20);
/// Of one call on one node.
const CALL: Duration = Duration::from_secs(5);

pub struct Cluster {
    processes: EphemeralCluster,
    addresses: Vec<String>,
    /// Numbers of the nodes that are meant to be up and serving.
    up: BTreeSet<usize>,
    /// And of those that have left.
    left: BTreeSet<usize>,
    /// Between the nodes, if the test may cut them from each other.
    relay: Option<Relay>,
}

impl Cluster {
    /// A cluster of `nodes` serving nodes in three zones, three replicas of each key.
    pub async fn start(nodes: usize) -> Cluster {
        Cluster::start_with(nodes, BTreeMap::new()).await
    }

    /// As [`Cluster::start`], with rules of their own for some buckets.
    pub async fn start_with(nodes: usize, buckets: BTreeMap<BucketName, BucketRules>) -> Cluster {
        let cluster = Cluster::start_uninitialised(nodes).await;
        cluster.init(buckets).await;
        cluster
    }

    /// As [`Cluster::start`], with nodes that do not compare what they hold: a replica stays behind until something else
    /// helps it.
    pub async fn start_without_anti_entropy(nodes: usize) -> Cluster {
        let cluster = Cluster::start_uninitialised_with(nodes, &["--anti-entropy-interval", "1day"]).await;
        cluster.init(BTreeMap::new()).await;
        cluster
    }

    /// Nodes that see each other, and belong to no cluster yet.
    pub async fn start_uninitialised(nodes: usize) -> Cluster {
        Cluster::start_uninitialised_with(nodes, &[]).await
    }

    /// Nodes that belong to no cluster yet, each with these flags.
    pub async fn start_uninitialised_with(nodes: usize, flags: &[&str]) -> Cluster {
        let mut cluster = Cluster::create(nodes, flags);
        blocking(|| cluster.processes.start_all().unwrap());
        cluster.find_each_other().await
    }

    /// As [`Cluster::start`], with a network that can be cut.
    pub async fn start_on_a_network(nodes: usize) -> Cluster {
        let mut cluster = Cluster::create(nodes, &[]);
        let relay = Relay::start(cluster.processes.view().addresses()).await;
        cluster.addresses = (1..=nodes).map(|index| relay.address(index).to_string()).collect();
        cluster.relay = Some(relay);
        for index in 1..=nodes {
            cluster.launch(index);
        }
        let cluster = cluster.find_each_other().await;
        cluster.init(BTreeMap::new()).await;
        cluster
    }

    /// Starts nothing yet.
    fn create(nodes: usize, flags: &[&str]) -> Cluster {
        let launch = Launch { args: flags.iter().map(|flag| (*flag).to_owned()).collect(), ..Launch::default() };
        let shape = Shape { nodes, zones: nodes.min(3), ports: Ports::Free, launch };
        let processes = blocking(|| {
            stale::remove_old_clusters();
            EphemeralCluster::create(shape).unwrap()
        });
        let addresses = processes.view().addresses().iter().map(ToString::to_string).collect();
        Cluster { processes, addresses, up: (1..=nodes).collect(), left: BTreeSet::new(), relay: None }
    }

    async fn find_each_other(self) -> Cluster {
        self.wait_for_gossip(self.size()).await;
        self.check_build().await;
        self
    }

    /// Cuts these nodes off from all others, until [`Cluster::mend`].
    pub fn cut(&self, side: &[usize]) {
        self.relay().cut(side);
    }

    pub fn mend(&self) {
        self.relay().mend();
    }

    /// A client that reaches these nodes and no others.
    pub async fn client_of(&self, side: &[usize]) -> Client {
        let seeds = side.iter().map(|index| self.relay().address(*index).to_string());
        Client::connect_over(self.relay().network_of(side), seeds, ClientOptions::default()).await.unwrap()
    }

    fn relay(&self) -> &Relay {
        self.relay.as_ref().expect("the cluster was started on a network")
    }

    /// A program that was built before the test is another program: whatever the test then shows, it shows of that one.
    async fn check_build(&self) {
        for index in 1..=self.size() {
            let build = self.status(index).await.unwrap().build;
            assert_eq!(build, BUILD, "n{index} is not of this test's build: {BUILD_FIRST}");
        }
    }

    async fn wait_for_gossip(&self, nodes: usize) {
        for index in 1..=nodes {
            eventually("every node sees every other", || async move {
                let alive = self.view(index).await?.peers.iter().filter(|peer| peer.alive).count();
                if alive == nodes { Ok(()) } else { Err(format!("n{index} sees {alive} of {nodes}")) }
            })
            .await;
        }
    }

    pub async fn init(&self, buckets: BTreeMap<BucketName, BucketRules>) {
        self.init_through(1, buckets).await.unwrap();
        self.wait_whole().await;
    }

    /// Nodes of which the first few are a cluster, and the others could join it.
    pub async fn start_some(members: usize, nodes: usize) -> Cluster {
        Cluster::start_some_with(members, nodes, &[]).await
    }

    /// As [`Cluster::start_some`], each node with these flags.
    pub async fn start_some_with(members: usize, nodes: usize, flags: &[&str]) -> Cluster {
        let mut cluster = Cluster::start_uninitialised_with(nodes, flags).await;
        cluster.up = (1..=members).collect();
        cluster.init(BTreeMap::new()).await;
        cluster
    }

    /// Has changes of the ring chosen, through one node; returns the version of the layout that they come to.
    pub async fn change(&self, through: usize, changes: Vec<Change>) -> LayoutVersion {
        let control = ControlClient::connect(self.address(through)).await.unwrap();
        let plan = control.stage(changes, CALL).await.unwrap();
        match control.commit(plan.after.checksum(), CHANGE).await.unwrap() {
            Committed::Chosen(version) => version,
            Committed::Other { epoch } => panic!("another decree has come first, in epoch {epoch}"),
        }
    }

    /// Has a node read all that it holds, and compare it with its hash trees; returns the bytes of its records.
    ///
    /// # Panics
    /// If anything is not as it should be.
    pub async fn verify(&self, index: usize) -> u64 {
        let control = ControlClient::connect(self.address(index)).await.unwrap();
        let (mut bytes, mut from) = (0, Some(Partition(0)));
        while let Some(next) = from {
            let page = control.verify(next, CHANGE).await.unwrap();
            assert!(page.flaws.is_empty(), "n{index}: {:?}", page.flaws);
            bytes += page.bytes;
            from = page.next;
        }
        bytes
    }

    /// What a node has to move because the ring changes.
    pub async fn transfers(&self, index: usize) -> Result<Transfers, ClientError> {
        ControlClient::connect(self.address(index)).await?.transfers(CALL).await
    }

    /// Waits until a node says that the ring is settled on that version.
    pub async fn wait_settled(&self, index: usize, version: LayoutVersion) {
        eventually("the ring is settled", || async move {
            let control = ControlClient::connect(self.address(index)).await.map_err(|error| error.to_string())?;
            let now = control.transition(CALL).await.map_err(|error| error.to_string())?;
            let settled = now.phase == Phase::Settled && now.read >= version;
            if settled { Ok(()) } else { Err(format!("n{index} says {now:?}")) }
        })
        .await;
    }

    /// The node is a member from now on, and meant to be up and serving.
    pub fn has_joined(&mut self, index: usize) {
        self.up.insert(index);
    }

    /// The node is none any more, and nothing is expected of it.
    pub fn has_left(&mut self, index: usize) {
        self.up.remove(&index);
        self.left.insert(index);
    }

    pub fn name(index: usize) -> NodeName {
        format!("n{index}").parse().unwrap()
    }

    /// Makes all of them that are meant to be up a cluster, through one of them.
    pub async fn init_through(
        &self,
        index: usize,
        buckets: BTreeMap<BucketName, BucketRules>,
    ) -> Result<Layout, ClientError> {
        let init = Init {
            members: self.up.iter().copied().map(Cluster::name).collect(),
            weights: BTreeMap::new(),
            partitions: PartitionCount::try_from(64).unwrap(),
            replicas: ReplicaCount::DEFAULT,
            buckets,
        };
        let control = ControlClient::connect(self.address(index)).await?;
        control.init(init, Duration::from_secs(30)).await
    }

    /// What a node has logged so far.
    pub fn log_of(&self, index: usize) -> String {
        std::fs::read_to_string(self.data_dir(index).with_file_name("log")).unwrap()
    }

    /// Waits until every node that is up serves, and is connected to every other.
    async fn wait_whole(&self) {
        for index in self.up.iter().copied() {
            self.wait_serving(index).await;
            eventually("the nodes are connected", || async move {
                let connected = self.status(index).await?.connected.len();
                let others = self.up.len() - 1;
                if connected >= others {
                    Ok(())
                } else {
                    Err(format!("n{index} is connected to {connected} of {others}"))
                }
            })
            .await;
        }
    }

    /// `host:port` of the node numbered from 1.
    pub fn address(&self, index: usize) -> &str {
        &self.addresses[index - 1]
    }

    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    pub fn size(&self) -> usize {
        self.addresses.len()
    }

    /// Numbers of the nodes that are meant to be up and serving.
    pub(crate) fn running(&self) -> Vec<usize> {
        self.up.iter().copied().collect()
    }

    pub(crate) fn down(&self) -> Vec<usize> {
        (1..=self.size()).filter(|index| !self.up.contains(index) && !self.left.contains(index)).collect()
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.addresses.iter().cloned()).await.unwrap()
    }

    /// A connection to one node, for requests that no other may serve.
    pub async fn direct(&self, index: usize) -> Direct {
        Direct::dial(self.address(index)).await
    }

    /// As [`Cluster::direct`], where the node may not want the connection.
    pub async fn try_direct(&self, index: usize) -> Result<Direct, String> {
        Direct::try_dial(self.address(index)).await.map_err(|error| error.to_string())
    }

    pub fn kill(&mut self, index: usize) {
        self.up.remove(&index);
        blocking(|| self.processes.kill(index).unwrap());
    }

    pub fn kill_all(&mut self) {
        self.up.clear();
        blocking(|| self.processes.kill_all().unwrap());
    }

    pub fn stop(&mut self, index: usize) {
        self.up.remove(&index);
        blocking(|| self.processes.stop(index, patience::patience()).unwrap());
    }

    pub fn launch(&mut self, index: usize) {
        let reached_at = self.relay.as_ref().map(|relay| (relay.address(index).to_string(), relay.seeds()));
        blocking(|| {
            if let Some((address, seeds)) = reached_at {
                let args = ["--advertise", &address, "--seeds", &seeds].map(str::to_owned).into();
                self.processes.set_launch(Launch { args, ..Launch::default() }).unwrap();
            }
            self.processes.start(index).unwrap();
        });
    }

    /// Starts a node and waits until it serves and all others that are up have noticed.
    pub async fn restart(&mut self, index: usize) {
        self.launch(index);
        self.up.insert(index);
        self.wait_whole().await;
        for other in self.up.iter().copied().filter(|other| *other != index) {
            self.wait_alive(other, index, true).await;
        }
    }

    /// Starts all nodes and waits until they are one cluster again.
    pub async fn restart_all(&mut self) {
        for index in 1..=self.size() {
            self.launch(index);
            self.up.insert(index);
        }
        self.wait_whole().await;
        self.wait_for_gossip(self.size()).await;
    }

    pub fn pause(&mut self, index: usize) {
        blocking(|| self.processes.pause(index).unwrap());
    }

    pub fn resume(&mut self, index: usize) {
        blocking(|| self.processes.resume(index).unwrap());
    }

    /// Takes a node's disk away. It has to be down.
    pub fn wipe(&mut self, index: usize) {
        blocking(|| self.processes.wipe_node(index).unwrap());
    }

    pub fn data_dir(&self, index: usize) -> PathBuf {
        self.processes.view().data_dir(index).unwrap()
    }

    /// The folder of all that belongs to the cluster.
    pub(crate) fn dir(&self) -> &Path {
        self.processes.view().dir()
    }

    pub async fn status(&self, index: usize) -> Result<NodeStatus, String> {
        let control = ControlClient::connect(self.address(index)).await.map_err(|error| error.to_string())?;
        control.status(CALL).await.map_err(|error| error.to_string())
    }

    async fn view(&self, index: usize) -> Result<ClusterView, String> {
        let control = ControlClient::connect(self.address(index)).await.map_err(|error| error.to_string())?;
        control.cluster(CALL).await.map_err(|error| error.to_string())
    }

    async fn wait_serving(&self, index: usize) {
        eventually("the node serves data", || async move {
            match self.status(index).await?.standing {
                NodeStanding::Serving => {}
                other => return Err(format!("{other:?}")),
            }
            Client::connect([self.address(index)]).await.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }

    /// Waits until the node says in its standing that it does not serve; returns why.
    pub async fn wait_excluded(&self, index: usize) -> String {
        eventually("the node excludes itself", || async move {
            match self.status(index).await?.standing {
                NodeStanding::Excluded(reason) => Ok(reason),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// Waits until a node serves that has lost its disk, and lacks nothing any more.
    pub async fn wait_filled(&mut self, index: usize) {
        self.up.insert(index);
        self.wait_whole().await;
        let cluster = &*self;
        eventually("the node has filled up again", || async move {
            let filling = cluster.status(index).await?.counters["filling_partitions"];
            if filling == 0 { Ok(()) } else { Err(format!("n{index} is filling {filling} partitions")) }
        })
        .await;
    }

    /// Whether `seen_by` takes `index` for alive now.
    pub async fn sees_alive(&self, seen_by: usize, index: usize) -> Result<bool, String> {
        let view = self.view(seen_by).await?;
        let peer = view.peers.into_iter().find(|peer| peer.address == self.address(index));
        Ok(peer.is_some_and(|peer| peer.alive))
    }

    /// Waits until `seen_by` takes `index` for alive, or for dead.
    async fn wait_alive(&self, seen_by: usize, index: usize, alive: bool) {
        eventually("gossip notices", || async move {
            let seen = self.sees_alive(seen_by, index).await?;
            if seen == alive { Ok(()) } else { Err(format!("n{seen_by} sees n{index} alive: {seen}")) }
        })
        .await;
    }

    /// Waits until no node that is up sees `index` alive any more.
    pub async fn wait_noticed_dead(&self, index: usize) {
        for other in self.up.iter().copied() {
            self.wait_alive(other, index, false).await;
        }
    }

    /// Waits until all others take it for alive.
    pub async fn wait_noticed_alive(&self, index: usize) {
        for other in (1..=self.size()).filter(|other| *other != index) {
            self.wait_alive(other, index, true).await;
        }
    }

    /// Waits until no node that is up holds a hint any more.
    pub async fn wait_hints_drained(&self) {
        for index in self.up.iter().copied() {
            eventually("hints drain", || async move {
                let hints: u64 = self.status(index).await?.hints.iter().map(|hints| hints.count).sum();
                if hints == 0 { Ok(()) } else { Err(format!("n{index} holds {hints}")) }
            })
            .await;
        }
    }

    /// Hints that a node holds for another now.
    pub async fn hints_at(&self, index: usize, target: NodeId) -> u64 {
        let hints = self.status(index).await.unwrap().hints;
        hints.iter().filter(|hints| hints.target == target).map(|hints| hints.count).sum()
    }

    /// Hints that all nodes that are up hold for another now.
    pub async fn hints_for(&self, target: NodeId) -> u64 {
        let mut sum = 0;
        for index in self.up.iter().copied() {
            sum += self.hints_at(index, target).await;
        }
        sum
    }

    /// The number of the node with this id.
    pub fn index_of(&self, client: &Client, node: NodeId) -> usize {
        let layout = client.layout();
        let address = &layout.member(node).unwrap().address;
        self.addresses.iter().position(|known| known == address).unwrap() + 1
    }

    /// The id of the node with this number.
    pub fn id_of(&self, client: &Client, index: usize) -> NodeId {
        let layout = client.layout();
        layout.members().iter().find(|member| member.address == self.address(index)).unwrap().node
    }

    /// The numbers of a key's primaries, first choice first.
    pub fn primaries(&self, client: &Client, bucket: &str, key: &str) -> Vec<usize> {
        let list = client.layout().preference_list(&object_key(bucket, key));
        list.primaries().iter().map(|node| self.index_of(client, *node)).collect()
    }

    /// The numbers of a key's fallbacks, first choice first.
    pub fn fallbacks(&self, client: &Client, bucket: &str, key: &str) -> Vec<usize> {
        let list = client.layout().preference_list(&object_key(bucket, key));
        list.fallbacks().iter().map(|node| self.index_of(client, *node)).collect()
    }

    /// What a node itself holds of a key.
    pub async fn own_copy(
        &self,
        client: &Client,
        index: usize,
        bucket: &str,
        key: &str,
    ) -> Result<Fetched, ClientError> {
        client.get_replica(self.address(index), bucket, key.to_owned()).await
    }
}

fn object_key(bucket: &str, key: &str) -> starling_core::name::ObjectKey {
    starling_core::name::ObjectKey::new(bucket.parse().unwrap(), key.to_owned()).unwrap()
}

/// A quorum as it is typed.
pub fn level(text: &str) -> Level {
    text.parse().unwrap()
}

/// The values of a read as text, sorted.
pub fn texts(fetched: &Fetched) -> Vec<String> {
    let mut texts: Vec<String> = fetched.values().map(|value| String::from_utf8_lossy(value).into_owned()).collect();
    texts.sort();
    texts
}

/// What has to do with processes and files, done from within an async test.
pub fn blocking<T>(act: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(act)
}
