//! The clients: what they do, and what they write down.
//!
//! Each client is one session. What it does as its n-th operation is drawn from a stream of its own, so a run with fewer
//! clients, faults or operations still has the others as they were. Clients read, read and write back, write in chains
//! without reading, write blindly, write what expires, delete with and without a context, repeat what came to an unknown
//! end, and now and then ask a node that has nothing to do with the key.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt as _;
use rand::seq::IndexedRandom as _;
use starling_client::{Client, ClientError, ClientOptions, Context, Fetched};
use starling_core::ids::{NodeId, RequestId};
use starling_core::name::ObjectKey;
use starling_core::object::Value;
use starling_core::quorum::Level;
use starling_core::report::{Outcome, ReplicaReport};
use starling_proto::call_within;
use starling_proto::connection::{client_limits, client_transport};
use starling_proto::data::{self, DataServiceClient, RequestError};
use starling_proto::hello::{Class, Hello};
use starling_proto::network::dial;

use crate::kernel::entropy::{Stream, stream};
use crate::kernel::network::{HostId, Plug};
use crate::kernel::time;
use crate::plan::Plan;
use crate::transcript::Transcript;

/// Concurrent writes survive here.
pub const CARTS: &str = "carts";
/// Here the last write wins.
pub const SESSIONS: &str = "sessions";
/// Here a key has two replicas.
pub const PAIRS: &str = "pairs";
pub const BUCKETS: [&str; 3] = [CARTS, SESSIONS, PAIRS];

/// A node that is asked directly has time to look for a coordinator among silent ones.
const DIRECTLY: Duration = Duration::from_secs(4);
const DIALLING: Duration = Duration::from_millis(500);

/// An operation that has ended, as its client saw it.
#[derive(Debug, Clone)]
pub struct Done {
    pub session: usize,
    pub key: ObjectKey,
    pub invoked: u64,
    pub ended: u64,
    /// Of each try.
    pub timeout: Duration,
    /// It had to end by then.
    pub due: u64,
    pub asked: Levels,
    pub way: Way,
    /// How long what it put is to live, if not for good.
    pub ttl: Option<Duration>,
    pub deed: Deed,
}

/// How it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As clients do, to whoever can serve it.
    ByRoute,
    /// At first to a node that was drawn, and to no other.
    ToOne(HostId),
    /// With the context of another key: it has to be refused (R5).
    WithForeignContext,
}

impl Done {
    /// What it put, if it put anything.
    pub fn value(&self) -> Option<&Bytes> {
        match &self.deed {
            Deed::Write { value, .. } => value.as_ref(),
            Deed::Read { .. } => None,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Levels {
    pub all: Level,
    pub primaries: Level,
}

#[derive(Debug, Clone)]
pub enum Deed {
    Read { waits_for_repair: bool, found: Option<Found> },
    Write { request: RequestId, value: Option<Bytes>, context: Option<Bytes>, outcome: Written },
}

#[derive(Debug, Clone)]
pub struct Found {
    pub values: Vec<Bytes>,
    pub context: Option<Bytes>,
    pub clock: starling_core::clock::Clock,
    pub deleted: bool,
}

#[derive(Debug, Clone)]
pub enum Written {
    Acknowledged { context: Option<Bytes>, siblings: usize, stored_by: Vec<NodeId> },
    Unknown,
    NotDone,
}

/// Everything that clients have done so far. Clones are the same diary.
#[derive(Clone, Default)]
pub struct Diary(Arc<Mutex<Vec<Done>>>);

impl Diary {
    fn add(&self, done: Done) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(done);
    }

    pub fn all(&self) -> Vec<Done> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The key with this number, in one of the buckets.
pub fn key(number: usize, chance: &mut Stream) -> ObjectKey {
    let bucket = match chance.random_range(0..10) {
        0..5 => CARTS,
        5..7 => SESSIONS,
        _ => PAIRS,
    };
    ObjectKey::new(bucket.parse().expect("a valid name"), format!("k{number}")).expect("a valid key")
}

/// In which of them it is.
pub fn bucket(key: &ObjectKey) -> &'static str {
    let name = key.bucket().as_str();
    BUCKETS.into_iter().find(|bucket| *bucket == name).expect("there are no others")
}

/// How many copies a bucket has of each object at first, where there are enough nodes.
pub fn copies(bucket: &str) -> usize {
    if bucket == PAIRS { 2 } else { 3 }
}

/// A client at work.
pub struct Session {
    number: usize,
    plan: Arc<Plan>,
    client: Client,
    plug: Plug,
    diary: Diary,
    transcript: Transcript,
    /// For each key the context of what this session last read or wrote there.
    contexts: BTreeMap<ObjectKey, Bytes>,
}

impl Session {
    /// Connects, as soon as some node can be reached; none if that is not before the load ends.
    pub async fn begin(
        number: usize,
        plan: Arc<Plan>,
        plug: Plug,
        diary: Diary,
        transcript: Transcript,
    ) -> Option<Session> {
        let options = ClientOptions { timeout: Duration::from_secs(3) };
        while time::now() < plan.load_ends() {
            if let Ok(client) = Client::connect_over(Arc::new(plug.clone()), plan.seeds(), options).await {
                return Some(Session { number, plan, client, plug, diary, transcript, contexts: BTreeMap::new() });
            }
        }
        None
    }

    /// Does one thing after another for as long as there is load.
    pub async fn work(mut self) {
        for number in 0..self.plan.active_operations {
            let mut chance = stream(self.plan.seed, &format!("client {} operation {number}", self.number));
            let pause = self.plan.load.as_millis() as u64 / self.plan.operations as u64 * 2;
            tokio::time::sleep(Duration::from_millis(chance.random_range(0..=pause))).await;
            if time::now() >= self.plan.load_ends() {
                return;
            }
            self.act(number, &mut chance).await;
        }
    }

    async fn act(&mut self, number: usize, chance: &mut Stream) {
        let key = self.plan.keys.choose(chance).expect("not empty").clone();
        let timeout = Duration::from_secs(chance.random_range(1..=3));
        // A stream of its own: the rest of the run is as it would be otherwise.
        let mut fate = stream(self.plan.seed, &format!("how long what client {} puts as {number} lives", self.number));
        let ttl = fate.random_bool(0.2).then(|| Duration::from_millis(fate.random_range(1..=8_000)));
        let label = format!("c{}.{number}", self.number + 1);
        let task = Task { key, levels: levels(chance), timeout, ttl, label };
        match chance.random_range(0..100) {
            0..15 => drop(self.read(&task, chance.random_bool(0.5)).await),
            15..45 => {
                let reading = Task { levels: levels(chance), ..task.clone() };
                if self.read(&reading, chance.random_bool(0.2)).await {
                    self.write(&task, Some(task.label.clone().into()), self.known(&task.key), chance).await;
                }
            }
            // In a chain: the context is what the last read or write gave.
            45..62 => self.write(&task, Some(task.label.clone().into()), self.known(&task.key), chance).await,
            62..85 => self.write(&task, Some(task.label.clone().into()), None, chance).await,
            85..94 => self.write(&task, None, self.known(&task.key), chance).await,
            94..96 => self.misuse(&task, chance).await,
            _ => self.write(&task, None, None, chance).await,
        }
    }

    fn known(&self, key: &ObjectKey) -> Option<Bytes> {
        self.contexts.get(key).cloned()
    }

    async fn read(&mut self, task: &Task, waits_for_repair: bool) -> bool {
        let invoked = time::now().0;
        let bucket = self.client.bucket(task.key.bucket().as_str()).expect("a valid name");
        let get = bucket.get(task.key.key().clone()).r(task.levels.all).pr(task.levels.primaries);
        let fetched = get.wait_for_repair(waits_for_repair).timeout(task.timeout).await;
        let found = fetched.as_ref().ok().map(found);
        let waits = if waits_for_repair { ", waiting for its repair" } else { "" };
        let what = match &fetched {
            Ok(fetched) => format!("read {}{waits} → {}", task.asked("r"), shown(fetched)),
            Err(error) => format!("read {}{waits} → {error}", task.asked("r")),
        };
        self.transcript.note(&format!("c{}", self.number + 1), what);
        if let Some(context) = found.as_ref().and_then(|found| found.context.clone()) {
            self.contexts.insert(task.key.clone(), context);
        }
        let success = found.is_some();
        self.write_down(task, invoked, task.timeout, Way::ByRoute, Deed::Read { waits_for_repair, found });
        success
    }

    /// Writes, and now and then writes again what came to an unknown end, or even what was acknowledged.
    async fn write(&mut self, task: &Task, value: Option<Bytes>, context: Option<Bytes>, chance: &mut Stream) {
        let invoked = time::now().0;
        let request = RequestId(chance.random());
        let elsewhere = chance.random_bool(0.25).then(|| HostId(chance.random_range(0..self.plan.members)));
        let most = if elsewhere.is_some() { 2 } else { 3 };
        let (tries, again) = (chance.random_range(1..=most), chance.random_bool(0.05));
        let mut outcome = Written::NotDone;
        let (mut made, mut waited) = (0, Duration::ZERO);
        while made < tries {
            if made > 0 {
                // Others may have gone on meanwhile.
                let pause = Duration::from_millis(chance.random_range(0..2_000));
                tokio::time::sleep(pause).await;
                waited += pause;
            }
            made += 1;
            let put = Sending { request, value: value.clone(), ttl: task.ttl, context: context.clone() };
            let last = match elsewhere.filter(|_| made == 1) {
                Some(node) => self.send_to(node, task, put).await,
                None => self.send(task, put).await,
            };
            let asked = task.asked("w");
            let what = if value.is_some() {
                format!("put {asked} = {}{}", task.label, task.lives())
            } else {
                format!("delete {asked}")
            };
            let with = if context.is_some() { " with a context" } else { "" };
            self.transcript.note(&format!("c{}", self.number + 1), format!("{what}{with} → {}", told(&last)));
            outcome = worst(outcome, last);
            match &outcome {
                Written::Acknowledged { .. } if !(again && made == 1) => break,
                Written::Acknowledged { .. } | Written::Unknown | Written::NotDone => {}
            }
        }
        if let Written::Acknowledged { context: Some(context), .. } = &outcome {
            self.contexts.insert(task.key.clone(), context.clone());
        }
        let deed = Deed::Write { request, value, context, outcome };
        let way = elsewhere.map_or(Way::ByRoute, Way::ToOne);
        self.write_down(task, invoked, task.timeout.max(DIRECTLY) * made + waited, way, deed);
    }

    /// Writes with the context of another key, if it has one. Whatever it is told of that, nothing may have been done.
    async fn misuse(&self, task: &Task, chance: &mut Stream) {
        let foreign = self.contexts.iter().find(|(key, _)| **key != task.key).map(|(_, context)| context.clone());
        let Some(context) = foreign else { return };
        let (invoked, request) = (time::now().0, RequestId(chance.random()));
        let value: Bytes = task.label.clone().into();
        let sending = Sending { request, value: Some(value.clone()), ttl: None, context: Some(context) };
        let last = self.send(task, sending).await;
        let who = format!("c{}", self.number + 1);
        self.transcript.note(
            &who,
            format!("put {} = {} with the context of another key → {}", task.asked("w"), task.label, told(&last)),
        );
        let outcome = if matches!(last, Written::Acknowledged { .. }) { last } else { Written::NotDone };
        let deed = Deed::Write { request, value: Some(value), context: None, outcome };
        self.write_down(task, invoked, task.timeout, Way::WithForeignContext, deed);
    }

    async fn send(&self, task: &Task, put: Sending) -> Written {
        let bucket = self.client.bucket(task.key.bucket().as_str()).expect("a valid name");
        let key = task.key.key().clone();
        let context = put.context.map(Context::from_bytes);
        let Levels { all, primaries } = task.levels;
        let stored = match put.value {
            Some(value) => {
                let ttl = put.ttl;
                let put = bucket.put(key, value).context(context).request(put.request).w(all).pw(primaries);
                let put = if let Some(ttl) = ttl { put.ttl(ttl) } else { put };
                put.timeout(task.timeout).await
            }
            None => {
                let delete = bucket.delete(key).context(context).request(put.request).w(all).pw(primaries);
                delete.timeout(task.timeout).await
            }
        };
        match stored {
            Ok(stored) => Written::Acknowledged {
                context: stored.context().map(|context| context.as_bytes().clone()),
                siblings: stored.siblings(),
                stored_by: stored_by(stored.replicas()),
            },
            Err(error) => meaning(&error),
        }
    }

    /// Sends it to one node, whatever that has to do with the key.
    async fn send_to(&self, node: HostId, task: &Task, put: Sending) -> Written {
        let address = node.address().to_string();
        let hello = Hello::of_client(Class::Data, None);
        let Ok((stream, _)) = dial(&self.plug, &address, &hello, DIALLING).await else { return Written::NotDone };
        let service = DataServiceClient::new(client_limits(), client_transport(stream)).spawn();
        let ttl = put.ttl.filter(|_| put.value.is_some());
        let put = data::Put {
            key: task.key.clone(),
            value: put.value.map_or(Value::Tombstone, Value::Live),
            context: put.context,
            request: put.request,
            w: task.levels.all,
            pw: task.levels.primaries,
            r: Level::Default,
        };
        let within = DIRECTLY - DIALLING;
        let written = async {
            match ttl {
                Some(lifetime) => service.put_for(call_within(within), data::PutFor { put, lifetime }).await,
                None => service.put(call_within(within), put).await,
            }
        };
        match tokio::time::timeout(within, written).await {
            Ok(Ok(Ok(written))) => Written::Acknowledged {
                context: written.context,
                siblings: written.siblings,
                stored_by: stored_by(&written.replicas),
            },
            Ok(Ok(Err(RequestError::Invalid(_) | RequestError::Refused(_) | RequestError::NotServing(_)))) => {
                Written::NotDone
            }
            Ok(Ok(Err(_)) | Err(_)) | Err(_) => Written::Unknown,
        }
    }

    fn write_down(&self, task: &Task, invoked: u64, within: Duration, way: Way, deed: Deed) {
        let due = invoked + within.as_nanos() as u64;
        let ended = time::now().0;
        let Task { key, levels: asked, timeout, ttl, .. } = task.clone();
        let session = self.number;
        self.diary.add(Done { session, key, invoked, ended, timeout, due, asked, way, ttl, deed });
    }
}

#[derive(Clone)]
struct Task {
    key: ObjectKey,
    levels: Levels,
    timeout: Duration,
    ttl: Option<Duration>,
    label: String,
}

impl Task {
    fn lives(&self) -> String {
        self.ttl.map(|ttl| format!(" for {ttl:?}")).unwrap_or_default()
    }

    /// `carts/k0 w=quorum pw=one`
    fn asked(&self, letter: &str) -> String {
        let (key, Levels { all, primaries }) = (crate::names::key(&self.key), self.levels);
        format!("{key} {letter}={all} p{letter}={primaries}")
    }
}

struct Sending {
    request: RequestId,
    value: Option<Bytes>,
    ttl: Option<Duration>,
    context: Option<Bytes>,
}

/// Half of the requests are strict: what they promise can be checked to the letter.
fn levels(chance: &mut Stream) -> Levels {
    let quorum = Level::Quorum;
    match chance.random_range(0..10) {
        0..5 => Levels { all: quorum, primaries: quorum },
        5..7 => Levels { all: quorum, primaries: Level::Default },
        7 => Levels { all: Level::One, primaries: Level::Default },
        8 => Levels { all: quorum, primaries: Level::One },
        _ => Levels { all: Level::All, primaries: Level::Default },
    }
}

/// What a client may believe about a write that it was not told is acknowledged.
fn meaning(error: &ClientError) -> Written {
    match error {
        ClientError::Invalid(_) | ClientError::Unavailable { .. } | ClientError::RetriesSpent { .. } => {
            Written::NotDone
        }
        ClientError::ReadQuorumNotMet { .. } => Written::NotDone,
        ClientError::WriteQuorumNotMet { .. }
        | ClientError::DeadlinePassed { .. }
        | ClientError::OutcomeUnknown { .. }
        | ClientError::Incomplete(_)
        | ClientError::Internal { .. } => Written::Unknown,
    }
}

/// Of two tries of one write. One acknowledgement is enough; a try that may have been done leaves it open.
fn worst(before: Written, last: Written) -> Written {
    match (before, last) {
        (Written::Acknowledged { .. }, last @ Written::Acknowledged { .. }) => last,
        (done @ Written::Acknowledged { .. }, _) | (_, done @ Written::Acknowledged { .. }) => done,
        (Written::Unknown, _) | (_, Written::Unknown) => Written::Unknown,
        (Written::NotDone, Written::NotDone) => Written::NotDone,
    }
}

fn stored_by(replicas: &[ReplicaReport]) -> Vec<NodeId> {
    replicas.iter().filter(|report| report.outcome == Outcome::Stored).map(|report| report.node).collect()
}

fn found(fetched: &Fetched) -> Found {
    Found {
        values: fetched.values().cloned().collect(),
        context: fetched.context().map(|context| context.as_bytes().clone()),
        clock: fetched.clock().clone(),
        deleted: fetched.is_deleted(),
    }
}

fn shown(fetched: &Fetched) -> String {
    let values: Vec<_> = fetched.values().map(|value| String::from_utf8_lossy(value)).collect();
    format!("[{}]", values.join(", "))
}

fn told(written: &Written) -> String {
    match written {
        Written::Acknowledged { siblings, .. } => format!("acknowledged, {siblings} live"),
        Written::Unknown => "unknown".to_owned(),
        Written::NotDone => "not done".to_owned(),
    }
}
