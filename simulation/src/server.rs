//! One node of the simulated cluster: a disk, a clock, and, while it is up, a process that runs the product.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::RngExt as _;
use starling_core::wall::WallTime;
use starling_gossip::Gossip;
use starling_node::config::{Config, Settings};
use starling_node::environment::{Blocking, Environment, Unfinished, WallClock, Work};
use starling_node::lifecycle::{Ended, Parts, Running as RunningNode, gossip_parts};
use starling_node::node::Node;
use starling_node::registering::Anew;
use starling_storage::{Identity, MemoryDisk, MemoryEngine, Space, Store, Writer, inspect};
use tokio_util::sync::CancellationToken;

use crate::kernel::entropy::{Stream, stream};
use crate::kernel::host::Process;
use crate::kernel::network::{Gossiping, HostId, Network, Plug};
use crate::kernel::time::{self, Moment};
use crate::plan::Plan;
use crate::transcript::Transcript;

/// In all siblings of a key together, as far as clients may write them.
pub const MAX_OBJECT_BYTES: usize = 64 << 10;
/// Free on a disk that is not full.
const ROOM: u64 = 1 << 40;

/// A disk and how fast it is. Clones are the same disk.
#[derive(Clone)]
pub struct Disk {
    pub memory: MemoryDisk,
    pace: Arc<Pace>,
}

struct Pace {
    factor: AtomicU32,
    chance: Mutex<Stream>,
}

impl Disk {
    fn new(chance: Stream) -> Disk {
        let memory = MemoryDisk::default();
        memory.set_free_bytes(ROOM);
        Disk { memory, pace: Arc::new(Pace { factor: AtomicU32::new(1), chance: Mutex::new(chance) }) }
    }

    /// Everything takes that many times as long.
    pub fn slow_down(&self, factor: u32) {
        self.pace.factor.store(factor, Ordering::Relaxed);
    }

    pub fn fill(&self, is_full: bool) {
        self.memory.set_free_bytes(if is_full { 0 } else { ROOM });
    }

    /// One of its records cannot be read from now on. False if there is none.
    pub fn rot(&self, at: f64) -> bool {
        let engine = MemoryEngine::open(self.memory.clone());
        let places: Vec<_> = inspect::records(&engine).filter_map(Result::ok).map(|record| record.place).collect();
        let struck = places.get((places.len() as f64 * at) as usize);
        if let Some(place) = struck {
            self.memory.rot(Space::Objects, inspect::key_of(place));
        }
        struck.is_some()
    }

    fn takes(&self, least: u64, most: u64) -> Duration {
        let mut chance = self.pace.chance.lock().unwrap_or_else(PoisonError::into_inner);
        Duration::from_micros(chance.random_range(least..most)) * self.pace.factor.load(Ordering::Relaxed)
    }

    fn sync(&self) -> Duration {
        self.takes(300, 4_000)
    }

    fn read(&self) -> Duration {
        self.takes(20, 400)
    }
}

/// Whatever blocks waits for the simulated disk, and then happens at once.
impl Blocking for Disk {
    fn run(&self, work: Work) -> BoxFuture<'_, Result<(), Unfinished>> {
        let takes = self.read();
        async move {
            tokio::time::sleep(takes).await;
            work();
            Ok(())
        }
        .boxed()
    }
}

/// A wall clock that may be wrong.
#[derive(Clone, Default)]
pub struct Watch(Arc<Error>);

/// In milliseconds.
#[derive(Default)]
struct Error {
    jumped: AtomicI64,
    drifted: AtomicI64,
    /// Further, every second since then.
    drift: AtomicI64,
    since: AtomicU64,
}

impl Watch {
    pub fn jump(&self, millis: i64) {
        self.0.jumped.fetch_add(millis, Ordering::Relaxed);
    }

    /// From now on it gains that much a second; if that is nothing, what it has gained is taken back.
    pub fn drift(&self, millis: i64) {
        let drifted = if millis == 0 { 0 } else { self.drifted() };
        self.0.drifted.store(drifted, Ordering::Relaxed);
        self.0.since.store(time::now().0, Ordering::Relaxed);
        self.0.drift.store(millis, Ordering::Relaxed);
    }

    fn drifted(&self) -> i64 {
        let since = Moment(self.0.since.load(Ordering::Relaxed));
        let seconds = time::now().0.saturating_sub(since.0) as f64 / 1e9;
        let more = (seconds * self.0.drift.load(Ordering::Relaxed) as f64) as i64;
        self.0.drifted.load(Ordering::Relaxed) + more
    }
}

impl WallClock for Watch {
    fn now(&self) -> WallTime {
        WallTime(time::wall().0.saturating_add_signed(self.0.jumped.load(Ordering::Relaxed) + self.drifted()))
    }
}

/// What the world sees of a process: the node once it runs, and why it has ended once it has.
#[derive(Clone, Default)]
struct Fate(Arc<Mutex<FateInner>>);

#[derive(Default)]
struct FateInner {
    node: Option<Arc<Node>>,
    ended: Option<String>,
    /// As what the node has to be started anew.
    anew: Option<Anew>,
}

impl Fate {
    fn lock(&self) -> std::sync::MutexGuard<'_, FateInner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct Server {
    pub host: HostId,
    pub identity: Identity,
    pub disk: Disk,
    pub watch: Watch,
    nodes: usize,
    max_siblings: usize,
    /// The ring will change.
    moves: bool,
    /// How many disks it has had.
    disks: usize,
    running: Option<Running>,
}

struct Running {
    process: Process,
    fate: Fate,
    stop: CancellationToken,
}

impl Server {
    pub fn new(host: HostId, identity: Identity, plan: &Plan) -> Server {
        let disk = Disk::new(stream(plan.seed, &format!("disk {}", host.0)));
        Server {
            host,
            identity,
            disk,
            watch: Watch::default(),
            nodes: plan.nodes,
            max_siblings: plan.max_siblings,
            moves: plan.moves_the_ring(),
            disks: 1,
            running: None,
        }
    }

    pub fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// The node, if it has got that far.
    pub fn node(&self) -> Option<Arc<Node>> {
        self.running.as_ref()?.fate.lock().node.clone()
    }

    /// Why the process has ended of itself, if it has.
    pub fn ended(&self) -> Option<String> {
        self.running.as_ref()?.fate.lock().ended.clone()
    }

    /// As what it is to be started anew, if it has ended for that.
    pub fn anew(&self) -> Option<Anew> {
        self.running.as_ref()?.fate.lock().anew.clone()
    }

    pub fn start(&mut self, network: &Network, transcript: &Transcript) {
        let plug = network.plug_in(self.host);
        let (process, fate, stop) =
            (Process::start(format!("n{}", self.host.0 + 1)), Fate::default(), CancellationToken::new());
        let life = Life {
            name: format!("n{}", self.host.0 + 1),
            identity: self.identity.clone(),
            disk: self.disk.clone(),
            watch: self.watch.clone(),
            nodes: self.nodes,
            max_siblings: self.max_siblings,
            moves: self.moves,
            plug,
            fate: fate.clone(),
            stop: stop.clone(),
            transcript: transcript.clone(),
        };
        process.spawn(life.live());
        self.running = Some(Running { process, fate, stop });
    }

    /// As by SIGTERM.
    pub fn ask_to_stop(&self) {
        if let Some(running) = &self.running {
            running.stop.cancel();
        }
    }

    /// Ends the process at once: kill -9 if its machine says so to others, a power cut otherwise. Of what the disk had
    /// not synced that share is left.
    pub fn kill(&mut self, network: &Network, says_so: bool, left: f64) {
        if says_so {
            network.end_process(self.host)
        } else {
            network.power_off(self.host)
        }
        let unsynced = self.disk.memory.unsynced();
        self.disk.memory.crash((unsynced as f64 * left).round() as usize);
        self.running = None;
    }

    pub fn pause(&mut self, paused: bool) {
        if let Some(running) = &mut self.running {
            if paused { running.process.pause() } else { running.process.resume() }
        }
    }

    /// An empty disk, and with it a new identity.
    pub fn wipe(&mut self, identity: Identity, seed: u64) {
        self.disks += 1;
        self.disk = Disk::new(stream(seed, &format!("disk {} of {}", self.disks, self.host.0)));
        self.identity = identity;
    }

    pub fn run_until(&mut self, begin: Moment, end: Moment) {
        if let Some(running) = &mut self.running {
            running.process.run_until(begin, end);
        }
    }
}

/// All that a process needs to run a node.
struct Life {
    name: String,
    identity: Identity,
    disk: Disk,
    watch: Watch,
    nodes: usize,
    max_siblings: usize,
    /// The ring will change.
    moves: bool,
    plug: Plug,
    fate: Fate,
    stop: CancellationToken,
    transcript: Transcript,
}

impl Life {
    async fn live(self) {
        let ended = match self.serve().await {
            Ok(Ended::Stopped) => "stopped".to_owned(),
            Ok(Ended::Superseded(anew)) => {
                self.fate.lock().anew = Some(anew);
                "has to be started anew".to_owned()
            }
            Err(error) => format!("{error:#}"),
        };
        self.transcript.note(&self.name, format!("has ended: {ended}"));
        self.fate.lock().ended = Some(ended);
    }

    async fn serve(&self) -> anyhow::Result<Ended> {
        let config = self.config();
        let environment = Environment {
            network: Arc::new(self.plug.clone()),
            wall: Arc::new(self.watch.clone()),
            blocking: Arc::new(self.disk.clone()),
        };
        let engine = Arc::new(MemoryEngine::open(self.disk.memory.clone()));
        let (store, writers) = Store::open_driven(engine, self.identity.clone(), config.store)?;
        for writer in writers {
            tokio::spawn(drive(writer, self.disk.clone()));
        }
        let store = Arc::new(store);
        let (settings, announcement) = gossip_parts(&config, &store, &self.watch).await?;
        let transport = Gossiping(self.plug.clone());
        let gossip = Gossip::start_with_transport(settings, announcement, &transport).await?;
        let listener = Box::new(self.plug.listen());
        let running = RunningNode::start(Parts { config, environment, store, gossip, listener });
        self.fate.lock().node = Some(Arc::clone(running.node()));
        running.run_until(self.stop.cancelled()).await
    }

    fn config(&self) -> Config {
        let seeds: Vec<String> = (0..self.nodes.min(3)).map(|node| HostId(node).address().to_string()).collect();
        let zones = 3;
        let flags = [
            ("name", self.name.clone()),
            ("listen", self.plug.address().to_string()),
            ("seeds", seeds.join(",")),
            ("zone", format!("z{}", self.plug.host_number() % zones + 1)),
            // A few small keys would be copied in no time.
            ("handoff_rate", if self.moves { "1KiB" } else { "32MiB" }.to_owned()),
            ("anti_entropy_interval", "2s".to_owned()),
            ("reap_after", "1s".to_owned()),
            ("expiry_margin", "2s".to_owned()),
            ("max_siblings", self.max_siblings.to_string()),
            ("max_object_size", MAX_OBJECT_BYTES.to_string()),
        ];
        let flags = flags.into_iter().map(|(key, value)| (key.to_owned(), value));
        Config::from_settings(&Settings::collect(None, std::iter::empty(), flags)).expect("the settings are right")
    }
}

/// Drives a writer over the simulated disk: a batch is in the log for as long as its sync takes.
async fn drive(mut writer: Writer, disk: Disk) {
    while let Some(jobs) = writer.next().await {
        let prepared = writer.prepare(jobs);
        if let Some(batch) = prepared.batch() {
            disk.memory.append(batch.clone());
            tokio::time::sleep(disk.sync()).await;
        }
        writer.commit(prepared);
    }
}
