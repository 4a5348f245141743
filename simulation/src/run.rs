//! One run: the cluster is made, clients work while things break, everything is healed, and the end is looked at.

mod troubles;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use starling_client::{Client, ClientOptions, ControlClient};
use starling_core::ids::NodeId;
use starling_core::layout::{BucketRules, Layout};
use starling_core::name::{BucketName, ObjectKey};
use starling_core::object::SiblingMode;
use starling_core::quorum::{Level, ReplicaCount};
use starling_core::token::PartitionCount;
use starling_proto::control::{Init, NodeStanding};
use starling_storage::MemoryDisk;

use crate::kernel::entropy::{self, stream};
use crate::kernel::host::Process;
use crate::kernel::network::{HostId, Network, Plug};
use crate::kernel::time::{self, Moment, TICK};
use crate::names::Names;
use crate::observer::Observer;
use crate::panics;
use crate::plan::{Episode, Plan};
use crate::server::Server;
use crate::transcript::Transcript;
use crate::verdict::{Ending, Verdict};
use crate::witness::{Invariant, Witness};
use crate::workload::{self, Diary, Session};

/// A node that has ended of itself is started again after this long.
const SUPERVISOR: Duration = Duration::from_secs(1);
/// Clients that have not come to an end by then hang.
const LAST_OPERATIONS: Duration = Duration::from_secs(30);
/// Replicas that differ after this much peace will differ for ever.
const PEACE: Duration = Duration::from_secs(120);
/// Between two rounds of reading everything.
const ROUND: Duration = Duration::from_secs(2);

/// What becomes of a run's clients and operator.
#[derive(Default)]
struct Desk {
    layout: Option<Arc<Layout>>,
    /// Sessions that have come to their end.
    finished: usize,
    problem: Option<String>,
    /// Every key was read, and from all of its replicas where none is away.
    complete_round: bool,
}

pub struct World {
    plan: Arc<Plan>,
    names: Arc<Names>,
    now: Moment,
    network: Network,
    servers: Vec<Server>,
    clients: Vec<Process>,
    operator: Option<Process>,
    witness: Arc<Mutex<Witness>>,
    transcript: Transcript,
    diary: Diary,
    desk: Arc<Mutex<Desk>>,
    state: Vec<Keeping>,
    copies: BTreeMap<usize, MemoryDisk>,
    /// Moments at which disks were lost.
    lost: BTreeMap<usize, Moment>,
}

/// What the world wants of a server.
#[derive(Clone)]
struct Keeping {
    /// So many episodes want it down.
    down: usize,
    /// So many want it paused.
    paused: usize,
    start_at: Option<Moment>,
    /// Its disk is copied as soon as it has stopped.
    copy_when_stopped: bool,
    /// Of what a failed sync has left unsynced that share is there after the restart.
    left_after_failure: f64,
}

impl Default for Keeping {
    fn default() -> Self {
        Keeping { down: 0, paused: 0, start_at: None, copy_when_stopped: false, left_after_failure: 1.0 }
    }
}

impl World {
    pub fn new(plan: Plan, transcript: Transcript) -> World {
        panics::watch();
        entropy::begin(plan.seed);
        time::begin();
        let names = Arc::new(Names::of(&plan));
        let witness = Arc::new(Mutex::new(Witness::new(Arc::clone(&names), transcript.clone())));
        let observer = Observer::new(Arc::clone(&names), Arc::clone(&witness), transcript.clone());
        let network = Network::new(plan.hosts(), stream(plan.seed, "network"), Box::new(observer));
        network.set_weather(plan.weather);
        let server = |index| Server::new(HostId(index), names.identity(HostId(index)).clone(), plan.nodes, plan.seed);
        let mut world = World {
            now: Moment::default(),
            servers: (0..plan.nodes).map(server).collect(),
            clients: Vec::new(),
            operator: None,
            state: vec![Keeping::default(); plan.nodes],
            copies: BTreeMap::new(),
            lost: BTreeMap::new(),
            diary: Diary::default(),
            desk: Arc::default(),
            plan: Arc::new(plan),
            names,
            network,
            witness,
            transcript,
        };
        for index in 0..world.servers.len() {
            world.watch_disk(index);
            world.start(index);
        }
        world
    }

    /// Runs to the end.
    pub fn run(mut self) -> Verdict {
        if let Err(problem) = self.make_cluster() {
            return self.conclude(Some(problem));
        }
        self.begin_load();
        self.live_through_troubles();
        self.heal();
        let problem = self.await_sessions().or_else(|| self.await_handoff()).or_else(|| self.await_peace());
        self.conclude(problem)
    }

    fn make_cluster(&mut self) -> Result<(), String> {
        let operator = self.plan.operator();
        let plug = self.network.plug_in(operator);
        let (desk, nodes) = (Arc::clone(&self.desk), self.plan.nodes);
        let process = Process::start("op");
        process.spawn(async move {
            match make(plug, nodes).await {
                Ok(layout) => lock(&desk).layout = Some(Arc::new(layout)),
                Err(problem) => lock(&desk).problem = Some(problem),
            }
        });
        self.operator = Some(process);
        while self.now < self.plan.load_begins() {
            self.tick();
            if let Some(layout) = lock(&self.desk).layout.take() {
                lock(&self.witness).layout_made(layout);
            }
        }
        let serving = |server: &Server| server.node().is_some_and(|node| node.standing() == NodeStanding::Serving);
        match lock(&self.desk).problem.take() {
            Some(problem) => Err(format!("the cluster could not be made: {problem}")),
            None if !self.servers.iter().all(serving) => Err("the cluster was not made in time".to_owned()),
            None => Ok(()),
        }
    }

    fn begin_load(&mut self) {
        for client in 0..self.plan.active_clients {
            let plug = self.network.plug_in(self.plan.host_of_client(client));
            let (plan, diary, transcript) = (Arc::clone(&self.plan), self.diary.clone(), self.transcript.clone());
            let desk = Arc::clone(&self.desk);
            let process = Process::start(format!("c{}", client + 1));
            process.spawn(async move {
                if let Some(session) = Session::begin(client, plan, plug, diary, transcript).await {
                    session.work().await;
                }
                lock(&desk).finished += 1;
            });
            self.clients.push(process);
        }
    }

    /// Everything that is planned, in its time.
    fn live_through_troubles(&mut self) {
        let mut agenda: Vec<(Moment, bool, Episode)> = Vec::new();
        for episode in &self.plan.episodes {
            let from = self.plan.load_begins() + episode.from;
            for (begins, ends) in episode.spells() {
                agenda.push((from + begins, true, episode.clone()));
                agenda.push((from + ends, false, episode.clone()));
            }
        }
        agenda.sort_by_key(|(at, begins, _)| (*at, !*begins));
        for (at, begins, episode) in agenda {
            while self.now < at {
                self.tick();
            }
            if begins { self.begin(&episode) } else { self.end(&episode) }
        }
        while self.now < self.plan.load_ends() {
            self.tick();
        }
    }

    fn start_if_wanted(&mut self, index: usize) {
        if self.state[index].down == 0 && !self.servers[index].is_up() {
            self.start(index);
        }
    }

    fn start(&mut self, index: usize) {
        self.state[index].start_at = None;
        self.transcript.note(&self.names.host(HostId(index)), "starts");
        self.servers[index].start(&self.network, &self.transcript);
        let paused = self.state[index].paused > 0;
        self.servers[index].pause(paused);
    }

    fn watch_disk(&mut self, index: usize) {
        let (witness, transcript) = (Arc::clone(&self.witness), self.transcript.clone());
        let names = Arc::clone(&self.names);
        let host = HostId(index);
        self.servers[index].disk.memory.observe(Arc::new(move |batch| {
            for change in batch.changes() {
                transcript.mark(&change.key);
                transcript.mark(change.value.as_deref().unwrap_or_default());
            }
            for change in batch.changes().iter().filter(|change| change.space == starling_storage::Space::Objects) {
                transcript.tell(|| names.host(host), || crate::describe::synced(&names, change));
            }
            lock(&witness).durable(host, batch);
        }));
    }

    /// One grain of time, for everybody.
    fn tick(&mut self) {
        let (begin, end) = (self.now, self.now + TICK);
        self.network.deliver(begin);
        for server in &mut self.servers {
            server.run_until(begin, end);
        }
        for process in self.clients.iter_mut().chain(&mut self.operator) {
            process.run_until(begin, end);
        }
        self.now = end;
        time::set(end);
        for index in 0..self.servers.len() {
            self.supervise(index);
        }
    }

    /// Cleans up after a process that has ended of itself, and starts it again in time.
    fn supervise(&mut self, index: usize) {
        if self.servers[index].ended().is_some() {
            let left = self.state[index].left_after_failure;
            self.servers[index].kill(&self.network, true, left);
            if std::mem::take(&mut self.state[index].copy_when_stopped) {
                self.copies.insert(index, self.servers[index].disk.memory.copy());
                self.state[index].down = self.state[index].down.saturating_sub(1);
            }
            self.state[index].start_at = Some(self.now + SUPERVISOR);
        }
        if self.state[index].start_at.is_some_and(|at| at <= self.now) {
            self.state[index].start_at = None;
            self.start_if_wanted(index);
        }
    }

    /// Whatever is still wrong is put right.
    fn heal(&mut self) {
        self.transcript.note("trouble", "everything is healed");
        for index in 0..self.servers.len() {
            self.servers[index].disk.fill(false);
            self.servers[index].disk.slow_down(1);
            self.servers[index].disk.memory.fail_syncs(0);
            self.servers[index].watch.set_right();
            self.state[index].paused = 0;
            self.servers[index].pause(false);
            self.state[index].down = 0;
            self.start_if_wanted(index);
        }
    }

    fn await_sessions(&mut self) -> Option<String> {
        let limit = self.now + LAST_OPERATIONS;
        while lock(&self.desk).finished < self.plan.active_clients {
            if self.now >= limit {
                return Some("a client's operation does not end".to_owned());
            }
            self.tick();
        }
        lock(&self.desk).problem.take()
    }

    /// Copies that are held for others come home by themselves, before anybody reads.
    fn await_handoff(&mut self) -> Option<String> {
        let limit = self.now + PEACE;
        while self.now < limit {
            let next = self.now + ROUND;
            while self.now < next {
                self.tick();
            }
            // None left: that is all there is to wait for.
            self.hint_left()?;
        }
        self.hint_left().map(|hint| format!("{hint}, although nothing is in the way"))
    }

    /// Reads everything until all replicas agree.
    fn await_peace(&mut self) -> Option<String> {
        let limit = self.now + PEACE;
        while self.now < limit {
            let next = self.now + ROUND;
            lock(&self.desk).complete_round = false;
            self.read_everything();
            while self.now < next || !lock(&self.desk).complete_round && self.now < next + ROUND * 4 {
                self.tick();
            }
            if self.disagreement().is_none() && lock(&self.desk).complete_round {
                return None;
            }
        }
        Some(self.disagreement().unwrap_or_else(|| "not every key can be read from all of its replicas".to_owned()))
    }

    /// A round of reads, by the operator.
    fn read_everything(&mut self) {
        self.network.end_process(self.plan.operator());
        self.operator = None;
        let plug = self.network.plug_in(self.plan.operator());
        let (desk, plan) = (Arc::clone(&self.desk), Arc::clone(&self.plan));
        let whole: BTreeSet<usize> = (0..plan.keys).filter(|key| self.is_whole(&workload::key(*key))).collect();
        let process = Process::start("op");
        process.spawn(async move {
            let complete = read_all(plug, &plan, &whole).await;
            lock(&desk).complete_round = complete;
        });
        self.operator = Some(process);
    }

    /// None of the key's primaries is away.
    fn is_whole(&self, key: &ObjectKey) -> bool {
        lock(&self.witness).primaries(key).iter().all(|primary| !self.is_away(*primary))
    }

    /// The node is not what the layout names any more, and serves nothing.
    fn is_away(&self, index: usize) -> bool {
        self.lost.contains_key(&index)
            && self.servers[index].node().is_none_or(|node| node.standing() != NodeStanding::Serving)
    }

    /// Why the replicas do not agree yet, if they do not.
    fn disagreement(&self) -> Option<String> {
        let not_serving = (0..self.servers.len()).find(|index| {
            let standing = self.servers[*index].node().map(|node| node.standing());
            standing != Some(NodeStanding::Serving) && !self.lost.contains_key(index)
        });
        if let Some(index) = not_serving {
            let standing = self.servers[index].node().map(|node| node.standing());
            return Some(format!("n{} does not serve: {standing:?}", index + 1));
        }
        let witness = lock(&self.witness);
        for number in 0..self.plan.keys {
            let key = workload::key(number);
            let primaries: Vec<usize> =
                witness.primaries(&key).into_iter().filter(|primary| !self.is_away(*primary)).collect();
            let held = |index: &usize| witness.mirror(HostId(*index)).record(&key).map(|record| &record.object);
            if primaries.windows(2).any(|pair| held(&pair[0]) != held(&pair[1])) {
                return Some(format!("the replicas of {} differ", crate::names::key(&key)));
            }
        }
        drop(witness);
        self.hint_left()
    }

    /// A copy that somebody still holds for a node that could take it.
    fn hint_left(&self) -> Option<String> {
        let is_away = |index: &usize| self.is_away(*index);
        let away: BTreeSet<NodeId> =
            (0..self.servers.len()).filter(is_away).map(|index| self.names.identity(HostId(index)).node).collect();
        let witness = lock(&self.witness);
        let held = (0..self.servers.len()).filter(|index| !is_away(index)).find_map(|index| {
            let hint = witness.mirror(HostId(index)).hints().find(|(_, target)| !away.contains(target));
            hint.map(|(key, target)| (index + 1, crate::names::key(key), self.names.node(target)))
        });
        held.map(|(holder, key, target)| format!("n{holder} still holds {key} for {target}"))
    }

    fn conclude(self, problem: Option<String>) -> Verdict {
        if let Some(problem) = problem {
            lock(&self.witness).breach(Invariant::Progress, problem);
        }
        for panic in panics::seen() {
            lock(&self.witness).breach(Invariant::Progress, panic);
        }
        let away: BTreeSet<usize> = (0..self.servers.len()).filter(|index| self.is_away(*index)).collect();
        let ending = Ending { lost: self.lost.clone(), away, ended: self.now };
        let witness = lock(&self.witness);
        Verdict::of(&self.plan, &self.names, &witness, &self.diary.all(), &ending, &self.transcript)
    }
}

async fn make(plug: Plug, nodes: usize) -> Result<Layout, String> {
    let address = HostId(0).address().to_string();
    let mut last = String::new();
    // Until gossip has brought them together.
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let attempt = async {
            let control = ControlClient::connect_over(&plug, &address).await.map_err(|error| error.to_string())?;
            let members = (1..=nodes).map(|number| format!("n{number}").parse().expect("a valid name")).collect();
            let init = Init {
                members,
                weights: BTreeMap::new(),
                partitions: PartitionCount::try_from(16).expect("a power of two"),
                replicas: ReplicaCount::DEFAULT,
                buckets: buckets(),
            };
            control.init(init, Duration::from_secs(5)).await.map_err(|error| error.to_string())
        };
        match attempt.await {
            Ok(layout) => return Ok(layout),
            Err(error) => last = error,
        }
    }
    Err(last)
}

pub fn buckets() -> BTreeMap<BucketName, BucketRules> {
    let name = |text: &str| text.parse::<BucketName>().expect("a valid name");
    let sessions = BucketRules { mode: SiblingMode::LastWriteWins, ..BucketRules::default() };
    let two = ReplicaCount::try_from(2).expect("from 1 to 7");
    let pairs = BucketRules { replicas: Some(two), ..BucketRules::default() };
    [(name(workload::SESSIONS), sessions), (name(workload::PAIRS), pairs)].into_iter().collect()
}

/// Reads every key; from all of its replicas if they are all there. True if every read succeeded.
async fn read_all(plug: Plug, plan: &Plan, whole: &BTreeSet<usize>) -> bool {
    let seeds = (0..plan.nodes).map(|node| HostId(node).address().to_string());
    let options = ClientOptions { timeout: Duration::from_secs(2) };
    let Ok(client) = Client::connect_over(Arc::new(plug), seeds, options).await else { return false };
    let mut complete = true;
    for number in 0..plan.keys {
        let key = workload::key(number);
        let bucket = client.bucket(key.bucket().as_str()).expect("a valid name");
        let r = if whole.contains(&number) { Level::All } else { Level::One };
        let read = bucket.get(key.key().clone()).r(r).await;
        complete &= read.is_ok();
    }
    complete
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
