//! Whole nodes made of parts in memory: no thread, no socket, no file.
#![allow(clippy::unwrap_used, reason = "a helper fails as its test does")]

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use starling_client::{Client, ClientOptions, ControlClient};
use starling_core::ids::{DirectoryId, NodeId};
use starling_core::quorum::ReplicaCount;
use starling_core::token::PartitionCount;
use starling_core::wall::WallTime;
use starling_gossip::Gossip;
use starling_gossip::transport::ChannelTransport;
use starling_node::config::{Config, Settings};
use starling_node::environment::{Blocking, Environment, Unfinished, WallClock, Work};
use starling_node::lifecycle::{Ended, Parts, Running, gossip_parts};
use starling_node::node::Node;
use starling_proto::control::Init;
use starling_proto::network::{BoxedStream, Listener, Network};
use starling_storage::{Identity, MemoryDisk, MemoryEngine, Space, Store, StoreLimits, Writer, inspect};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Far more than anything here takes.
const LIMIT: Duration = Duration::from_secs(30);
/// All our clocks stand still.
const NOON: WallTime = WallTime(1_000_000);

/// Who listens at which address.
#[derive(Clone, Default)]
struct Switchboard(Arc<Mutex<BTreeMap<String, mpsc::UnboundedSender<BoxedStream>>>>);

struct Port(mpsc::UnboundedReceiver<BoxedStream>);

impl Switchboard {
    fn listen(&self, address: &str) -> Box<dyn Listener> {
        let (calls, port) = mpsc::unbounded_channel();
        self.0.lock().unwrap().insert(address.to_owned(), calls);
        Box::new(Port(port))
    }
}

impl Network for Switchboard {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxedStream>> {
        let calls = self.0.lock().unwrap().get(address).cloned();
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let answered = calls.is_some_and(|calls| calls.send(Box::new(theirs)).is_ok());
        async move {
            if answered { Ok(Box::new(ours) as BoxedStream) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
        }
        .boxed()
    }
}

impl Listener for Port {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<BoxedStream>> {
        async { self.0.recv().await.ok_or_else(|| io::ErrorKind::NotConnected.into()) }.boxed()
    }
}

struct Stopped;

impl WallClock for Stopped {
    fn now(&self) -> WallTime {
        NOON
    }
}

/// Does what blocks there and then, and counts it.
#[derive(Default)]
struct InPlace(AtomicUsize);

impl Blocking for InPlace {
    fn run(&self, work: Work) -> BoxFuture<'_, Result<(), Unfinished>> {
        async {
            self.0.fetch_add(1, Ordering::Relaxed);
            work();
            Ok(())
        }
        .boxed()
    }
}

/// What nodes have in common.
#[derive(Default)]
struct World {
    switchboard: Switchboard,
    gossip: ChannelTransport,
    blocking: Arc<InPlace>,
}

struct Started {
    node: Arc<Node>,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<anyhow::Result<Ended>>,
}

fn address(number: u16) -> String {
    format!("127.0.0.1:{number}")
}

impl World {
    async fn start(&self, number: u16, disk: &MemoryDisk) -> Started {
        let own = address(number);
        let flags = [("name", format!("n{number}")), ("listen", own.clone()), ("seeds", address(1))];
        let flags = flags.into_iter().map(|(key, value)| (key.to_owned(), value));
        let config = Config::from_settings(&Settings::collect(None, std::iter::empty(), flags)).unwrap();
        let environment = Environment {
            network: Arc::new(self.switchboard.clone()),
            wall: Arc::new(Stopped),
            blocking: Arc::clone(&self.blocking) as Arc<dyn Blocking>,
        };
        let id = u64::from(number);
        let identity = Identity { name: config.name.clone(), node: NodeId(id), directory: DirectoryId(100 + id) };
        let engine = Arc::new(MemoryEngine::open(disk.clone()));
        let (store, writers) = Store::open_driven(engine, identity, StoreLimits::default()).unwrap();
        writers.into_iter().for_each(|writer| drop(tokio::spawn(drive(writer, disk.clone()))));
        let (settings, announcement) = gossip_parts(&config, &store, &*environment.wall).await.unwrap();
        assert_eq!(settings.generation, NOON.0);
        let gossip = Gossip::start_with_transport(settings, announcement, &self.gossip).await.unwrap();
        let listener = self.switchboard.listen(&own);
        let running = Running::start(Parts { config, environment, store: Arc::new(store), gossip, listener });
        let (stop, stopped) = oneshot::channel();
        let node = Arc::clone(running.node());
        let ended = tokio::spawn(running.run_until(async { stopped.await.unwrap() }));
        Started { node, stop, ended }
    }

    /// Makes a cluster of the first `count` nodes, as soon as they know each other.
    async fn init(&self, count: u16, members: &[Started]) {
        for member in members {
            let mut view = member.node.gossip.clone();
            view.wait_for(|view| view.live().count() == members.len()).await.unwrap();
        }
        let control = ControlClient::connect_over(&self.switchboard, &address(1)).await.unwrap();
        let init = Init {
            members: (1..=count).map(|number| format!("n{number}").parse().unwrap()).collect(),
            weights: BTreeMap::new(),
            partitions: PartitionCount::try_from(8).unwrap(),
            replicas: ReplicaCount::DEFAULT.at_most(usize::from(count)),
            buckets: BTreeMap::new(),
        };
        control.init(init, LIMIT).await.unwrap();
    }

    async fn client(&self) -> Client {
        Client::connect_over(Arc::new(self.switchboard.clone()), [address(1)], ClientOptions::default()).await.unwrap()
    }
}

/// Each batch lies in the log before it is synced, and others may run meanwhile.
async fn drive(mut writer: Writer, disk: MemoryDisk) {
    while let Some(jobs) = writer.next().await {
        let prepared = writer.prepare(jobs);
        if let Some(batch) = prepared.batch() {
            disk.append(batch.clone());
        }
        tokio::task::yield_now().await;
        writer.commit(prepared);
    }
}

#[tokio::test]
async fn a_cluster_of_nodes_in_memory_serves_and_stops_cleanly() {
    let (world, disks) = (World::default(), [(); 3].map(|()| MemoryDisk::default()));
    let mut members = Vec::new();
    for (number, disk) in (1..).zip(&disks) {
        members.push(world.start(number, disk).await);
    }
    tokio::time::timeout(LIMIT, world.init(3, &members)).await.unwrap();
    let carts = world.client().await.bucket("carts").unwrap();
    carts.put("alice", "3 apples").await.unwrap();
    let cart = carts.get("alice").await.unwrap();
    assert_eq!(cart.values().map(|value| value.to_vec()).collect::<Vec<_>>(), [b"3 apples"]);
    carts.put("alice", "4 apples").context(cart.context()).await.unwrap();
    assert!(world.blocking.0.load(Ordering::Relaxed) > 0);
    let written: u64 = members.iter().map(|member| member.node.counters.snapshot()["writes_coordinated"]).sum();
    assert_eq!(written, 2);

    for (Started { stop, ended, node }, disk) in members.into_iter().zip(&disks) {
        let last: Arc<Mutex<Vec<u8>>> = Arc::default();
        let seen = Arc::clone(&last);
        disk.observe(Arc::new(move |batch| {
            let change = batch.changes().last().unwrap();
            *seen.lock().unwrap() = if change.space == Space::Meta { change.key.clone() } else { Vec::new() };
        }));
        stop.send(()).unwrap();
        assert_eq!(ended.await.unwrap().unwrap(), Ended::Stopped);
        drop(node);
        assert_eq!(*last.lock().unwrap(), b"run", "the clean stop is recorded behind all else");
        let engine = MemoryEngine::open(disk.clone());
        assert_eq!(inspect::records(&engine).map(Result::unwrap).count(), 1);
    }
}

#[tokio::test]
async fn a_node_whose_disk_fails_ends_and_says_why() {
    let (world, disk) = (World::default(), MemoryDisk::default());
    let members = [world.start(1, &disk).await];
    tokio::time::timeout(LIMIT, world.init(1, &members)).await.unwrap();
    let carts = world.client().await.bucket("carts").unwrap();
    disk.fail_syncs(1);
    tokio::spawn(async move { carts.put("alice", "3 apples").await });
    let [Started { ended, stop: _stop, .. }] = members;
    let reason = ended.await.unwrap().unwrap_err().to_string();
    assert!(reason.starts_with("the store has failed"), "{reason}");
}
