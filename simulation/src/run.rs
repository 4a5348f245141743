//! One run: the cluster is made, clients work while things break, everything is healed, and the end is looked at.

mod exam;
mod moves;
mod troubles;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use starling_client::{Client, ClientOptions, ControlClient};
use starling_core::change::Change;
use starling_core::ids::NodeId;
use starling_core::layout::{BucketRules, Layout};
use starling_core::name::{BucketName, ObjectKey};
use starling_core::object::SiblingMode;
use starling_core::quorum::{Level, ReplicaCount};
use starling_core::settings::Registers;
use starling_core::token::PartitionCount;
use starling_node::registering::Anew;
use starling_proto::control::{Init, NodeStanding, Set};
use starling_storage::{Identity, MemoryDisk, MemoryEngine, inspect};

use crate::kernel::entropy::{self, stream};
use crate::kernel::host::Process;
use crate::kernel::network::{HostId, Network, Plug};
use crate::kernel::time::{self, Moment, TICK};
use crate::names::Names;
use crate::observer::Observer;
use crate::panics;
use crate::plan::Plan;
use crate::server::Server;
use crate::transcript::Transcript;
use crate::verdict::{Ending, Verdict};
use crate::witness::{Invariant, ToldBy, Witness};
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
    made: bool,
    /// Changes of the ring that the operator is to ask for, one after another.
    moves: VecDeque<Vec<Change>>,
    /// Settings that are to be changed, one after another.
    sets: VecDeque<(HostId, Set)>,
    /// What was said to be set, as it was said.
    set: Vec<(BucketName, Registers)>,
    /// Sessions that have come to their end.
    finished: usize,
    problem: Option<String>,
    /// Every key was read, and from all of its replicas where none is away.
    complete_round: bool,
    /// What became of the last questions.
    exam: Option<Result<(), String>>,
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
    copies: BTreeMap<usize, (Moment, MemoryDisk)>,
    /// Of which node disks were lost.
    lost: BTreeMap<usize, Vec<Loss>>,
    /// What is planned and has not come yet, the next last.
    agenda: Vec<Turn>,
    /// Troubles that are there now, by number.
    present: BTreeSet<usize>,
    /// All that were, as often as they came.
    happened: Vec<&'static str>,
    examined: bool,
}

/// A trouble begins or ends.
struct Turn {
    at: Moment,
    begins: bool,
    trouble: usize,
}

/// A disk that does not hold any more what it held.
#[derive(Debug, Clone, Copy)]
pub struct Loss {
    pub at: Moment,
    /// What it holds now it held then: nothing, if it is a new one.
    pub to: Moment,
    pub is_new: bool,
    pub told_by: ToldBy,
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
        let witness = Arc::new(Mutex::new(Witness::new(Arc::clone(&names), plan.clocks(), transcript.clone())));
        let observer = Observer::new(Arc::clone(&names), Arc::clone(&witness), transcript.clone());
        let network = Network::new(plan.hosts(), stream(plan.seed, "network"), Box::new(observer));
        network.set_weather(plan.weather);
        let server = |index| Server::new(HostId(index), names.identity(HostId(index)).clone(), &plan);
        let mut world = World {
            now: Moment::default(),
            servers: (0..plan.nodes).map(server).collect(),
            clients: Vec::new(),
            operator: None,
            state: vec![Keeping::default(); plan.nodes],
            copies: BTreeMap::new(),
            lost: BTreeMap::new(),
            agenda: agenda(&plan),
            present: BTreeSet::new(),
            happened: Vec::new(),
            examined: false,
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
        self.run_until(self.plan.load_ends());
        self.heal();
        let problem = self
            .await_sessions()
            .or_else(|| self.await_settled())
            .or_else(|| self.await_convergence())
            .or_else(|| self.await_peace())
            .or_else(|| self.hold_exam())
            .or_else(|| self.await_handoff());
        self.conclude(problem)
    }

    fn make_cluster(&mut self) -> Result<(), String> {
        let operator = self.plan.operator();
        self.transcript.note("op", "makes the cluster, as soon as its nodes have found each other");
        let plug = self.network.plug_in(operator);
        let (desk, members, until) = (Arc::clone(&self.desk), self.plan.members, self.plan.load_begins());
        let process = Process::start("op");
        process.spawn(async move {
            match make(plug, members, until).await {
                Ok(_layout) => lock(&desk).made = true,
                Err(problem) => lock(&desk).problem = Some(problem),
            }
        });
        self.operator = Some(process);
        while self.now < self.plan.load_begins() {
            self.tick();
            if std::mem::take(&mut lock(&self.desk).made) {
                for key in &self.plan.keys {
                    let place = lock(&self.witness).place(key);
                    self.transcript.note("op", format!("{} lies on {place}", crate::names::key(key)));
                }
            }
        }
        let serving = |server: &Server| server.node().is_some_and(|node| node.standing() == NodeStanding::Serving);
        match lock(&self.desk).problem.take() {
            Some(problem) => Err(format!("the cluster could not be made: {problem}")),
            None if !self.servers[..self.plan.members].iter().all(serving) => {
                Err("the cluster was not made in time".to_owned())
            }
            None => self.other_ring().map_or(Ok(()), Err),
        }
    }

    fn begin_load(&mut self) {
        self.begin_moves();
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

    fn run_until(&mut self, end: Moment) {
        while self.now < end {
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
        self.go_by_the_store(index);
        self.transcript.note(&self.names.host(HostId(index)), "starts");
        self.servers[index].start(&self.network, &self.transcript);
        let paused = self.state[index].paused > 0;
        self.servers[index].pause(paused);
    }

    /// A directory goes by the node that its store belongs to, as a real one does: it may have stopped before it was told.
    fn go_by_the_store(&mut self, index: usize) {
        let server = &mut self.servers[index];
        let owner = inspect::owner(&MemoryEngine::open(server.disk.memory.clone())).ok().flatten();
        if let Some((node, directory)) = owner.filter(|(node, _)| *node != server.identity.node) {
            server.identity = Identity { node, directory, ..server.identity.clone() };
            lock(&self.witness).is_now(HostId(index), &server.identity);
        }
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
        while let Some(Turn { begins, trouble, .. }) = self.agenda.pop_if(|turn| turn.at <= self.now) {
            if begins { self.begin(trouble) } else { self.end(trouble) }
        }
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
            let (left, anew) = (self.state[index].left_after_failure, self.servers[index].anew());
            self.servers[index].kill(&self.network, true, left);
            match anew {
                Some(Anew::SameDirectory(identity)) => {
                    lock(&self.witness).is_now(HostId(index), &identity);
                    self.servers[index].identity = identity;
                }
                Some(Anew::EmptyDirectory(identity)) => {
                    self.names.note_directory(&identity);
                    self.lose_disk(index, identity);
                }
                Some(Anew::SalvagedDirectory(identity)) => {
                    self.names.note_directory(&identity);
                    self.salvage(index, identity);
                }
                None => {}
            }
            if std::mem::take(&mut self.state[index].copy_when_stopped) {
                self.copies.insert(index, (self.now, self.servers[index].disk.memory.copy()));
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
        while let Some(Turn { trouble, .. }) = self.agenda.pop() {
            self.end(trouble);
        }
        self.transcript.note("trouble", "everything is healed");
        for index in 0..self.servers.len() {
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

    /// Copies that are held for others come home by themselves, and replicas become equal, before anybody reads.
    fn await_convergence(&mut self) -> Option<String> {
        let limit = self.now + PEACE;
        while self.now < limit {
            self.run_until(self.now + ROUND);
            // No disagreement: that is all there is to wait for.
            self.disagreement()?;
        }
        self.disagreement().map(|disagreement| format!("{disagreement}, although nothing is in the way"))
    }

    /// What the last reads have changed comes home as well.
    fn await_handoff(&mut self) -> Option<String> {
        let limit = self.now + PEACE;
        while self.now < limit {
            self.run_until(self.now + ROUND);
            // None left: that is all there is to wait for.
            self.hint_left()?;
        }
        self.hint_left().map(|hint| format!("{hint}, although nothing is in the way"))
    }

    /// Reads everything until all replicas agree.
    fn await_peace(&mut self) -> Option<String> {
        let limit = self.now + PEACE;
        for round in 1.. {
            if self.now >= limit {
                break;
            }
            let next = self.now + ROUND;
            lock(&self.desk).complete_round = false;
            self.transcript.note("op", format!("reads everything, round {round}"));
            // What has not come right by then is told in the end.
            self.transcript.hush(round > 2);
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
        let plug = self.new_operator();
        let (desk, plan) = (Arc::clone(&self.desk), Arc::clone(&self.plan));
        let whole: BTreeSet<usize> = (0..plan.keys.len()).filter(|number| self.is_whole(&plan.keys[*number])).collect();
        let process = Process::start("op");
        process.spawn(async move {
            let complete = read_all(plug, &plan, &whole).await;
            lock(&desk).complete_round = complete;
        });
        self.operator = Some(process);
    }

    /// Asks for listings, and for what has to be refused.
    fn hold_exam(&mut self) -> Option<String> {
        let given = self.given();
        self.transcript.note("op", "asks for listings, and for what has to be refused");
        let plug = self.new_operator();
        let (desk, plan) = (Arc::clone(&self.desk), Arc::clone(&self.plan));
        let process = Process::start("op");
        process.spawn(async move {
            let result = exam::sit(plug, &plan, &given).await;
            lock(&desk).exam = Some(result);
        });
        self.operator = Some(process);
        let limit = self.now + LAST_OPERATIONS;
        while lock(&self.desk).exam.is_none() {
            if self.now >= limit {
                return Some("the last questions are not answered".to_owned());
            }
            self.tick();
        }
        let result = lock(&self.desk).exam.take();
        self.examined = matches!(result, Some(Ok(())));
        result.and_then(Result::err)
    }

    fn given(&self) -> exam::Given {
        let away: BTreeSet<usize> = (0..self.servers.len()).filter(|index| self.is_away(*index)).collect();
        let witness = lock(&self.witness);
        let mut listed: BTreeMap<&'static str, Vec<Bytes>> = BTreeMap::new();
        for key in &self.plan.keys {
            let keys = listed.entry(workload::bucket(key)).or_default();
            if witness.has_a_value(key, &away) {
                keys.push(key.key().clone());
            }
        }
        listed.values_mut().for_each(|keys| keys.sort());
        exam::Given { listed, whole: away.is_empty() }
    }

    /// Whoever administers begins anew.
    fn new_operator(&mut self) -> Plug {
        self.network.end_process(self.plan.operator());
        self.operator = None;
        self.network.plug_in(self.plan.operator())
    }

    /// None of the key's primaries is away.
    fn is_whole(&self, key: &ObjectKey) -> bool {
        lock(&self.witness).primaries(key).iter().all(|primary| !self.is_away(*primary))
    }

    /// The node is not what the layout names any more, and serves nothing: also if it has left, and cannot read all that it
    /// should bring home.
    fn is_away(&self, index: usize) -> bool {
        let has_lost = self.lost.contains_key(&index) || self.servers[index].disk.memory.is_damaged();
        has_lost && !self.serves(index)
    }

    fn serves(&self, index: usize) -> bool {
        self.servers[index].node().is_some_and(|node| node.standing() == NodeStanding::Serving)
    }

    /// In the end nobody serves from a disk that was lost, where enough others could tell.
    fn wrongly_here(&self) -> Option<String> {
        self.lost.iter().find_map(|(index, losses)| {
            let was_told = losses.iter().any(|loss| loss.told_by == ToldBy::Enough);
            let is_as_before = self.servers[*index].identity == *self.names.identity(HostId(*index));
            let name = self.names.host(HostId(*index));
            (was_told && is_as_before && self.serves(*index)).then(|| {
                format!("{name} serves as if nothing had happened, although its disk was lost and others know")
            })
        })
    }

    /// Why the replicas do not agree yet, if they do not.
    fn disagreement(&self) -> Option<String> {
        for index in 0..self.servers.len() {
            let standing = self.servers[index].node().map(|node| node.standing());
            let expected = lock(&self.witness).standing_of(HostId(index));
            // Nobody registers another directory for an old copy that has left.
            let may_be_excluded = expected == NodeStanding::Left && self.lost.contains_key(&index);
            let is_excluded = may_be_excluded && matches!(standing, Some(NodeStanding::Excluded(_)));
            if standing.as_ref() != Some(&expected) && !is_excluded {
                return Some(format!("n{} should be {expected:?} and is {standing:?}", index + 1));
            }
        }
        if let Some(other) = self.other_ring().or_else(|| self.other_settings()) {
            return Some(other);
        }
        let witness = lock(&self.witness);
        for index in (0..self.servers.len()).filter(|index| !self.is_away(*index)) {
            let foreign = witness.mirror(HostId(index)).records().map(|record| &record.place.key);
            // Whoever holds a copy for one that is away has to keep it.
            let owed = |key: &ObjectKey| !witness.mirror(HostId(index)).hints_of(key).is_empty();
            let is_kept = |key: &&ObjectKey| !witness.primaries(key).contains(&index) && !owed(key);
            if let Some(key) = foreign.into_iter().find(is_kept) {
                return Some(format!("n{} still holds {}, which is not its own", index + 1, crate::names::key(key)));
            }
        }
        for key in &self.plan.keys {
            let primaries: Vec<usize> =
                witness.primaries(key).into_iter().filter(|primary| !self.is_away(*primary)).collect();
            let held = |index: &usize| witness.mirror(HostId(*index)).record(key).map(|record| &record.object);
            if primaries.windows(2).any(|pair| held(&pair[0]) != held(&pair[1])) {
                return Some(format!("the replicas of {} differ", crate::names::key(key)));
            }
        }
        drop(witness);
        self.still_filling().or_else(|| self.hint_left()).or_else(|| self.tombstone_left())
    }

    /// What is deleted or has expired is forgotten everywhere, unless that waits for somebody who is away.
    fn tombstone_left(&self) -> Option<String> {
        let all = 0..self.servers.len();
        let witness = lock(&self.witness);
        if all.clone().any(|index| self.is_away(index)) {
            return None;
        }
        // Whoever has left and has an old disk again is excluded, and stays as it is.
        let is_lost = |node: &NodeId| self.lost.keys().any(|index| self.names.identity(HostId(*index)).node == *node);
        let ring = witness.ring()?;
        match ring.bringing_home().keys().find(|node| !is_lost(node)) {
            Some(node) => {
                return Some(format!("{} has left, and is not known to hold nothing", self.names.node(*node)));
            }
            None if !ring.may_reap() => return None,
            None => {}
        }
        all.into_iter().find_map(|index| {
            let mut records = witness.mirror(HostId(index)).records();
            let left = records.find(|record| record.object.passing().is_some())?;
            let key = crate::names::key(&left.place.key);
            Some(format!("n{} still holds that {key} was deleted, or what has expired of it", index + 1))
        })
    }

    /// Whoever has lost a disk has again what it had.
    fn still_filling(&self) -> Option<String> {
        let is_filling = |index: &usize| self.servers[*index].node().is_some_and(|node| node.store.filling_count() > 0);
        let index = (0..self.servers.len()).filter(|index| self.serves(*index)).find(is_filling)?;
        Some(format!("n{} is still filling up", index + 1))
    }

    /// There is one ring, on every node that serves.
    fn other_ring(&self) -> Option<String> {
        let made = lock(&self.witness).ring().cloned();
        let other = (0..self.servers.len()).filter(|index| self.serves(*index)).find(|index| {
            let ring = self.servers[*index].node().and_then(|node| node.store.ring());
            ring.as_deref() != made.as_deref()
        });
        other.map(|index| format!("n{} has another ring than was made", index + 1))
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

    fn conclude(mut self, problem: Option<String>) -> Verdict {
        if let Some(problem) = problem {
            lock(&self.witness).breach(Invariant::Progress, problem);
        }
        if let Some(wrongly) = self.wrongly_here() {
            lock(&self.witness).breach(Invariant::Progress, wrongly);
        }
        let away: BTreeSet<usize> = (0..self.servers.len()).filter(|index| self.is_away(*index)).collect();
        // What panics when its process ends has panicked too.
        (self.servers, self.clients, self.operator) = (Vec::new(), Vec::new(), None);
        for panic in panics::seen() {
            lock(&self.witness).breach(Invariant::Progress, panic);
        }
        let lost = std::mem::take(&mut self.lost);
        let ending = Ending {
            lost,
            away,
            happened: std::mem::take(&mut self.happened),
            examined: self.examined,
            ended: self.now,
        };
        let witness = lock(&self.witness);
        Verdict::of(&self.plan, &self.names, &witness, &self.diary.all(), &ending, &self.transcript)
    }
}

/// All turns of a plan, the first last.
fn agenda(plan: &Plan) -> Vec<Turn> {
    let turns = plan.episodes.iter().enumerate().flat_map(|(trouble, episode)| {
        episode.spells().into_iter().flat_map(move |(begins, ends)| {
            let turn = |after, begins| Turn { at: episode.from + after, begins, trouble };
            [turn(begins, true), turn(ends, false)]
        })
    });
    let mut agenda: Vec<Turn> = turns.collect();
    agenda.sort_by_key(|turn| Reverse((turn.at, !turn.begins, turn.trouble)));
    agenda
}

/// Tries until gossip has brought the nodes together.
async fn make(plug: Plug, nodes: usize, until: Moment) -> Result<Layout, String> {
    let address = HostId(0).address().to_string();
    let mut last = String::new();
    while time::now() < until {
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
    let options = ClientOptions { timeout: Duration::from_secs(2) };
    let Ok(client) = Client::connect_over(Arc::new(plug), plan.seeds(), options).await else { return false };
    let mut complete = true;
    for (number, key) in plan.keys.iter().enumerate() {
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
