//! What the storage tests share. Each of them is a program of its own and uses its part.
#![allow(dead_code, unused_macros, unused_imports, reason = "none uses all of it")]
#![allow(clippy::unwrap_used, reason = "a helper fails as its test does")]

pub mod gate;
pub mod machine;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use proptest::test_runner::{Config, RngSeed};
use starling_core::clock::{Clock, History};
use starling_core::codec;
use starling_core::coordinate::{ObjectLimits, Write, coordinate};
use starling_core::ids::{Birth, ClusterId, DirectoryId, NodeId, RequestId};
use starling_core::layout::{FirstLayout, Layout, Member, NextLayout};
use starling_core::mark::{Minter, OwnMark, TrustedMarks};
use starling_core::name::ObjectKey;
use starling_core::object::{Object, Seen, Sibling, SiblingMode, Value};
use starling_core::quorum::ReplicaCount;
use starling_core::reaping::{RoundId, RoundsOver};
use starling_core::ring::{Epoch, Ring};
use starling_core::stamp::Stamp;
use starling_core::token::PartitionCount;
use starling_core::tree::{Breadth, Fingerprint, Position, Sum};
use starling_core::wall::WallTime;
use starling_storage::{Batch, Engine, Identity, Space, Store, StoreLimits};

/// The node whose store is under test.
pub const US: NodeId = NodeId(1);
pub const CLUSTER: ClusterId = ClusterId(1);
pub const OUR_DIRECTORY: DirectoryId = DirectoryId(101);
/// Of a cluster whose ring has never changed.
pub const EPOCH: Epoch = Epoch(1);
/// In which nothing was ever reaped.
pub const NONE_OVER: RoundsOver = RoundsOver(0);
/// A small ring, so that many keys share a partition, and with it a writer.
const PARTITIONS: u32 = 8;

/// As many cases as a test can afford, the same at each run. `PROPTEST_CASES` and `PROPTEST_RNG_SEED` override, for a
/// longer hunt.
pub fn cases(count: u32) -> Config {
    const UNSET: u32 = 256;
    let environment = Config::default();
    Config {
        cases: if environment.cases == UNSET { count } else { environment.cases },
        rng_seed: match environment.rng_seed {
            RngSeed::Random => RngSeed::Fixed(0x57a2_11e6),
            fixed @ RngSeed::Fixed(_) => fixed,
        },
        failure_persistence: None,
        ..environment
    }
}

pub fn identity() -> Identity {
    Identity { name: "n1".parse().unwrap(), node: US, directory: OUR_DIRECTORY }
}

/// Five nodes in five zones, three replicas.
pub fn layout() -> Layout {
    layout_of(CLUSTER.0, 5)
}

pub fn layout_of(cluster: u64, nodes: u64) -> Layout {
    Layout::first(FirstLayout {
        cluster: ClusterId(cluster),
        partitions: PartitionCount::try_from(PARTITIONS).unwrap(),
        replicas: ReplicaCount::DEFAULT,
        members: (1..=nodes).map(member).collect(),
        buckets: BTreeMap::new(),
    })
    .unwrap()
}

/// The layout after the newest one, with these members.
pub fn successor(ring: &Ring, nodes: impl IntoIterator<Item = u64>) -> Layout {
    let members = nodes.into_iter().map(member).collect();
    let next = NextLayout { replicas: ReplicaCount::DEFAULT, members, buckets: BTreeMap::new() };
    ring.newest().successor(next).unwrap()
}

fn member(node: u64) -> Member {
    Member {
        node: NodeId(node),
        directory: DirectoryId(100 + node),
        name: format!("n{node}").parse().unwrap(),
        zone: format!("z{node}").parse().unwrap(),
        weight: 1,
        address: format!("n{node}:7400"),
    }
}

pub fn key(bucket: &str, key: impl AsRef<[u8]>) -> ObjectKey {
    ObjectKey::new(bucket.parse().unwrap(), key.as_ref().to_vec()).unwrap()
}

pub fn primaries(key: &ObjectKey) -> Vec<NodeId> {
    layout().preference_list(key).primaries().to_vec()
}

/// Keys of one partition that we are a primary of.
pub fn our_keys<const N: usize>() -> [ObjectKey; N] {
    keys_of_one_partition(|primaries| primaries.contains(&US))
}

/// Keys of one partition that we can only stand in for.
pub fn foreign_keys<const N: usize>() -> [ObjectKey; N] {
    keys_of_one_partition(|primaries| !primaries.contains(&US))
}

/// Keys that share a partition, which is to say a writer, so that their jobs can share a batch.
fn keys_of_one_partition<const N: usize>(wanted: impl Fn(&[NodeId]) -> bool) -> [ObjectKey; N] {
    let layout = layout();
    let chosen = layout
        .partitions()
        .all()
        .find(|partition| wanted(&layout.primaries(*partition, ReplicaCount::DEFAULT).collect::<Vec<_>>()))
        .expect("some partition is like that");
    let mut names = (0..).map(|n| key("b", format!("k{n}"))).filter(|key| layout.partition_of(key) == chosen);
    std::array::from_fn(|_| names.next().expect("there is no end of names"))
}

/// Opens a store on an engine and makes it a member of [`layout`].
pub fn open(engine: Arc<dyn Engine>) -> Store {
    open_with(engine, StoreLimits::default())
}

pub fn open_with(engine: Arc<dyn Engine>, limits: StoreLimits) -> Store {
    let store = Store::open_engine(engine, identity(), limits).unwrap();
    store.adopt(layout()).unwrap();
    store
}

/// When readers look.
pub const NOW: WallTime = WallTime(10_000);

/// Write number `n` of a story: request, birth and wall clock follow from the number.
pub fn put(n: u64, value: &str) -> Write {
    Write {
        value: Value::Live(value.to_owned().into()),
        seen: Seen::default(),
        request: RequestId(u128::from(n)),
        mode: SiblingMode::Keep,
        wall: Stamp::from_millis(1_000 + n),
        fresh_birth: Birth(n),
    }
}

pub fn put_after(seen: &Seen, n: u64, value: &str) -> Write {
    Write { seen: seen.clone(), ..put(n, value) }
}

pub fn delete_after(seen: &Seen, n: u64) -> Write {
    Write { value: Value::Tombstone, ..put_after(seen, n, "") }
}

pub fn put_until(n: u64, value: &str, until: WallTime) -> Write {
    Write { value: Value::Expiring { bytes: value.to_owned().into(), until }, ..put(n, value) }
}

/// What a reader sees.
pub fn values(object: &Object) -> BTreeSet<String> {
    let text = |value: &Value| match value {
        Value::Live(bytes) | Value::Expiring { bytes, .. } => String::from_utf8(bytes.to_vec()).unwrap(),
        Value::Tombstone => unreachable!("a reader sees live siblings only"),
    };
    object.present(SiblingMode::Keep, NOW).into_iter().map(|sibling| text(&sibling.value)).collect()
}

/// The values of a key on our disk, none if it holds nothing of the key.
pub fn stored(store: &Store, key: &ObjectKey) -> Option<BTreeSet<String>> {
    store.get(key).unwrap().map(|object| values(&object))
}

pub fn set<const N: usize>(values: [&str; N]) -> BTreeSet<String> {
    values.into_iter().map(str::to_owned).collect()
}

/// The births of our own histories in a clock, with their counters.
pub fn own_histories(clock: &Clock) -> Vec<(Birth, u64)> {
    let ours = clock.entries().filter(|(history, _)| history.directory == OUR_DIRECTORY);
    ours.map(|(history, counter)| (history.birth, counter)).collect()
}

/// Our dots of a birth up to a counter.
pub fn own_clock(birth: u64, counter: u64) -> Clock {
    [(History { directory: OUR_DIRECTORY, birth: Birth(birth) }, counter)].into_iter().collect()
}

/// Another node's replica of one key, as far as a message to us shows it.
pub struct Peer {
    minter: Minter,
    mark: Option<OwnMark>,
    pub object: Object,
}

impl Peer {
    pub fn new(directory: u64) -> Peer {
        let minter = Minter { directory: DirectoryId(directory), run: 1, trusted: TrustedMarks::OfThisRun };
        Peer { minter, mark: None, object: Object::default() }
    }

    /// A peer that has written this value, and nothing else.
    pub fn with(directory: u64, n: u64, value: &str) -> Peer {
        let mut peer = Peer::new(directory);
        peer.write(put(n, value));
        peer
    }

    pub fn write(&mut self, write: Write) -> &Object {
        let limits = ObjectLimits { siblings: usize::MAX, bytes: usize::MAX };
        coordinate(&mut self.object, &mut self.mark, write, &self.minter, &limits).unwrap();
        &self.object
    }
}

/// A record as it lies on disk: a second reading of the format, next to the one in the crate.
pub struct RawRecord {
    pub object: Object,
    pub mark: Option<OwnMark>,
    pub markers: BTreeSet<NodeId>,
    pub confirmed: BTreeSet<NodeId>,
    pub owed_in: Option<Epoch>,
    pub reaped: Option<RoundId>,
}

pub fn raw_records(engine: &dyn Engine) -> BTreeMap<Vec<u8>, RawRecord> {
    let entries = engine.scan(Space::Objects, b"", None, usize::MAX).unwrap();
    let record = |bytes: &[u8]| {
        let body = &bytes[1..];
        let mut reaped = None;
        let (owed_in, (object, mark, markers, confirmed)) = match bytes[0] {
            1 => (None, codec::decode(body, usize::MAX >> 1, "a record").unwrap()),
            2 => codec::decode(body, usize::MAX >> 1, "a record").map(|(epoch, record)| (Some(epoch), record)).unwrap(),
            3 => {
                let decoded = codec::decode::<(Breadth, _, _)>(body, usize::MAX >> 1, "a record");
                decoded.map(|(_, owed_in, record)| (owed_in, record)).unwrap()
            }
            4 => {
                let decoded = codec::decode::<(RoundId, _, _)>(body, usize::MAX >> 1, "a record").unwrap();
                reaped = Some(decoded.0);
                (decoded.1, decoded.2)
            }
            5 => {
                let decoded = codec::decode::<(Option<Breadth>, _, _, _)>(body, usize::MAX >> 1, "a record");
                let (_, round, owed_in, record) = decoded.unwrap();
                reaped = round;
                (owed_in, record)
            }
            format => panic!("format {format}"),
        };
        RawRecord { object, mark, markers, confirmed, owed_in, reaped }
    };
    entries.iter().map(|(key, value)| (key.to_vec(), record(value))).collect()
}

/// All that has to lie in the trees of a store with these records: a second reading of that format too.
pub fn trees_of(records: &BTreeMap<Vec<u8>, RawRecord>, layout: &Layout) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut trees = BTreeMap::new();
    let mut sums: BTreeMap<Vec<u8>, Sum> = BTreeMap::new();
    for (at, record) in records.iter().filter(|(_, record)| !record.object.is_unwritten()) {
        let name: Vec<&[u8]> = at[2..].splitn(3, |byte| *byte == 0).collect();
        let key = key(std::str::from_utf8(name[1]).unwrap(), name[2]);
        let stays = |sibling: &Sibling| matches!(sibling.value, Value::Live(_));
        let expires = record.object.siblings().iter().filter_map(|sibling| sibling.value.until()).max();
        if let Some(expires) = expires.filter(|_| !record.object.siblings().iter().any(stays)) {
            trees.insert([&[3], &at[..2], &expires.0.to_be_bytes(), &at[2..]].concat(), vec![1]);
        } else if record.object.siblings().iter().all(Sibling::is_tombstone) {
            let since = record.object.greatest_stamp().unwrap().0.to_be_bytes();
            trees.insert([&[2], &at[..]].concat(), [&[1][..], &since].concat());
        }
        if record.reaped.is_some() {
            continue;
        }
        let position = Position::of(&key, layout.partitions()).0.to_be_bytes();
        let breadth = layout.rules(key.bucket()).replicas.map_or(255, |replicas| u8::try_from(replicas.get()).unwrap());
        let fingerprint = Fingerprint::of(record.object.clock());
        let leaf = [&[1], &at[..2], &position, &at[2..]].concat();
        trees.insert(leaf, [&[1, breadth][..], &fingerprint.0.to_be_bytes()].concat());
        let sum = sums.entry([&[0], &at[..2], &position[..1], &[breadth]].concat()).or_default();
        *sum = sum.plus(Sum::of(&key, fingerprint));
    }
    trees.extend(
        sums.into_iter()
            .map(|(at, Sum { keys, hash })| (at, [&[1][..], &keys.to_be_bytes(), &hash.to_be_bytes()].concat())),
    );
    trees
}

/// The trees say exactly what the records say.
pub fn assert_trees_agree(engine: &dyn Engine, layout: &Layout) {
    let found = engine.scan(Space::Trees, b"", None, usize::MAX).unwrap();
    let found: BTreeMap<Vec<u8>, Vec<u8>> = found.into_iter().map(|(at, is)| (at.to_vec(), is.to_vec())).collect();
    assert_eq!(found, trees_of(&raw_records(engine), layout));
}

/// The record of a key, if there is one.
pub fn raw_record(engine: &dyn Engine, wanted: &ObjectKey) -> Option<RawRecord> {
    raw_records(engine).remove(&record_key(wanted))
}

/// Where the record of a key lies.
pub fn record_key(key: &ObjectKey) -> Vec<u8> {
    let partition = layout().partition_of(key).0.to_be_bytes();
    [&partition[..], format!("default\0{}\0", key.bucket()).as_bytes(), key.key()].concat()
}

/// Puts a record and its hints into the place of what is there, behind the store's back, as a build would have written it
/// that knew of no epochs.
pub fn replace_record(engine: &dyn Engine, key: &ObjectKey, record: &RawRecord) {
    let at = record_key(key);
    let mut batch = Batch::default();
    for target in primaries(key) {
        let hint = [&target.0.to_be_bytes()[..], &at].concat();
        if record.markers.contains(&target) {
            batch.put(Space::Hints, hint, vec![1]);
        } else {
            batch.delete(Space::Hints, hint);
        }
    }
    let body = codec::encode(&(&record.object, &record.mark, &record.markers, &record.confirmed));
    batch.put(Space::Objects, at, [&[1], &body[..]].concat());
    engine.commit(batch).unwrap();
}

/// The index and the counters of hints say exactly what the markers in the records say.
pub fn assert_hints_agree(store: &Store, engine: &dyn Engine) {
    let mut index = BTreeSet::new();
    let mut counters: BTreeMap<NodeId, u64> = BTreeMap::new();
    for (key, record) in raw_records(engine) {
        for target in record.markers {
            index.insert([target.0.to_be_bytes().as_slice(), &key].concat());
            *counters.entry(target).or_default() += 1;
        }
    }
    let found = engine.scan(Space::Hints, b"", None, usize::MAX).unwrap();
    assert_eq!(found.into_iter().map(|(key, _)| key.to_vec()).collect::<BTreeSet<_>>(), index);
    assert_eq!(store.hints(), counters);
}

/// A request that has been sent off; its answer can be awaited later.
pub enum Queued<'a, T> {
    Waiting(Pin<Box<dyn Future<Output = T> + 'a>>),
    Answered(T),
}

/// Sends a request off: once polled, it lies in the writer's queue.
pub fn queue<'a, T>(request: impl Future<Output = T> + 'a) -> Queued<'a, T> {
    let mut request = Box::pin(request);
    match poll(request.as_mut()) {
        Poll::Ready(answer) => Queued::Answered(answer),
        Poll::Pending => Queued::Waiting(request),
    }
}

impl<T> Queued<'_, T> {
    pub fn wait(self) -> T {
        match self {
            Queued::Waiting(request) => block_on(request),
            Queued::Answered(answer) => answer,
        }
    }

    pub fn is_answered(&mut self) -> bool {
        if let Queued::Waiting(request) = self
            && let Poll::Ready(answer) = poll(request.as_mut())
        {
            *self = Queued::Answered(answer);
        }
        matches!(self, Queued::Answered(_))
    }
}

pub fn poll<T>(future: Pin<&mut (impl Future<Output = T> + ?Sized)>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// For an event that would otherwise be waited for in vain if it does not come.
pub async fn within_seconds<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(std::time::Duration::from_secs(20), event).await.expect("the event does not come")
}
