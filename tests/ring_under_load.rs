//! The ring moves while the cluster is used: nodes join, weigh more, leave and are replaced, and in each of it one is killed
//! that nobody has chosen. Every answer is checked, and in the end every node is looked at.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use starling_checker::Assertion::{
    AcknowledgedWriteLost, DeleteUndone, HintsLeft, ReplicasDiffer, Resurrected, StaleRead,
};
use starling_core::change::Change;
use starling_core::layout::LayoutVersion;
use starling_core::name::NodeName;
use starling_tests::{Bucket, Cluster, Recorder, eventually, level, usually};
use tokio::task::JoinSet;

/// Clients, each with its own connections, and what each has under way at once.
const CLIENTS: usize = 3;
const LANES: usize = 3;
const KEYS: usize = 500;
/// What a client gives a request; so long at the most nobody at all gets an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What users and operator tell each other.
struct Load {
    begun: AtomicUsize,
    acknowledged: AtomicUsize,
    failed: AtomicUsize,
    is_over: AtomicBool,
    /// When the last write was acknowledged, and how long it ever took until the next was.
    pause: Mutex<(Instant, Duration)>,
    /// The longest that one user had to go on trying, whatever the keys.
    longest_of_one: Mutex<Duration>,
}

impl Load {
    fn new() -> Arc<Load> {
        Arc::new(Load {
            begun: AtomicUsize::new(0),
            acknowledged: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            pause: Mutex::new((Instant::now(), Duration::ZERO)),
            longest_of_one: Mutex::default(),
        })
    }

    /// Reads and writes with strict quorums: the checker says whether that may be what was read. One write in ten deletes.
    async fn go_on(self: Arc<Self>, bucket: Bucket) {
        let mut since = Instant::now();
        while !self.is_over.load(Ordering::Relaxed) {
            let number = self.begun.fetch_add(1, Ordering::Relaxed);
            let key = format!("k{}", number % KEYS);
            let read = bucket.get(key.clone()).pr(level("quorum")).timeout(PATIENCE).await;
            let context = read.ok().and_then(|got| got.context());
            let write = if number % 10 == 9 { bucket.delete(key) } else { bucket.put(key, format!("v{number}")) };
            match write.context(context).pw(level("quorum")).timeout(PATIENCE).await {
                Ok(_) => {
                    self.note_pause_of_one(std::mem::replace(&mut since, Instant::now()));
                    self.note_acknowledged();
                }
                Err(_) => drop(self.failed.fetch_add(1, Ordering::Relaxed)),
            }
        }
        self.note_pause_of_one(since);
    }

    fn note_pause_of_one(&self, since: Instant) {
        let mut longest = self.longest_of_one.lock().unwrap();
        *longest = longest.max(since.elapsed());
    }

    fn note_acknowledged(&self) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        let mut pause = self.pause.lock().unwrap();
        *pause = (Instant::now(), pause.1.max(pause.0.elapsed()));
    }

    async fn wait_for(&self, more: usize) {
        let due = self.acknowledged.load(Ordering::Relaxed) + more;
        eventually("the writes go on", || async {
            let acknowledged = self.acknowledged.load(Ordering::Relaxed);
            if acknowledged >= due { Ok(()) } else { Err(format!("{acknowledged} of {due}")) }
        })
        .await;
    }
}

/// A number below `below` that nobody has chosen.
fn any(below: usize) -> usize {
    usize::try_from(RandomState::new().hash_one(below) % below as u64).unwrap()
}

/// The ring becomes another, and one of these is killed in the midst of that, and comes back.
async fn change_amid_a_kill(cluster: &mut Cluster, load: &Load, through: usize, changes: Vec<Change>, of: &[usize]) {
    let some = usually(200, 3000);
    load.wait_for(some).await;
    let victim = of[any(of.len())];
    println!("{changes:?}, and n{victim} is killed");
    let version = cluster.change(through, changes.clone()).await;
    load.wait_for(any(some)).await;
    cluster.kill(victim);
    load.wait_for(some).await;
    for change in changes {
        match change {
            Change::Join { name, .. } => cluster.has_joined(number(&name)),
            Change::Leave(name) | Change::Remove(name) => cluster.has_left(number(&name)),
            _ => {}
        }
    }
    cluster.restart(victim).await;
    settled(cluster, of, version).await;
    load.wait_for(some).await;
}

async fn settled(cluster: &Cluster, nodes: &[usize], version: LayoutVersion) {
    for index in nodes {
        cluster.wait_settled(*index, version).await;
    }
}

fn number(name: &NodeName) -> usize {
    name.as_str()[1..].parse().unwrap()
}

fn join(index: usize) -> Change {
    Change::Join { name: Cluster::name(index), weight: 1 }
}

fn leave(index: usize) -> Change {
    Change::Leave(Cluster::name(index))
}

fn weigh(index: usize, weight: u32) -> Change {
    Change::Weigh { name: Cluster::name(index), weight }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_that_moves_under_load_loses_nothing_though_nodes_are_killed() {
    let mut cluster = Cluster::start_some(3, 7).await;
    let (recorder, load) = (Recorder::default(), Load::new());
    let mut users = JoinSet::new();
    for _ in 0..CLIENTS {
        let client = cluster.client().await;
        for _ in 0..LANES {
            users.spawn(Arc::clone(&load).go_on(recorder.session(&client).bucket("carts")));
        }
    }

    // Three become six in one commit, weigh more and less, and become four.
    let six = [1, 2, 3, 4, 5, 6];
    change_amid_a_kill(&mut cluster, &load, 1, [4, 5, 6].map(join).into(), &six).await;
    change_amid_a_kill(&mut cluster, &load, 2, vec![weigh(4, 3), weigh(5, 2)], &six).await;
    let four = [3, 4, 5, 6];
    change_amid_a_kill(&mut cluster, &load, 6, vec![leave(1), leave(2)], &four).await;

    // Of one the disk is gone for good, and another takes its place.
    let client = cluster.client().await;
    cluster.kill(3);
    cluster.wipe(3);
    recorder.lost_disk(&cluster, &client, 3);
    cluster.wait_noticed_dead(3).await;
    let replaced = vec![join(7), Change::Remove(Cluster::name(3))];
    change_amid_a_kill(&mut cluster, &load, 4, replaced, &[4, 5, 6, 7]).await;

    load.is_over.store(true, Ordering::Relaxed);
    users.join_all().await;
    let [acknowledged, failed] = [&load.acknowledged, &load.failed].map(|count| count.load(Ordering::Relaxed));
    let (_, longest) = *load.pause.lock().unwrap();
    let of_one = *load.longest_of_one.lock().unwrap();
    println!(
        "{acknowledged} writes acknowledged, {failed} not; the longest pause was {longest:?} for all, {of_one:?} for one"
    );
    assert!(longest < PATIENCE, "for {longest:?} nobody's write was acknowledged");
    // A read and a write that were given up, and another read and write.
    assert!(of_one < PATIENCE * 4, "somebody's writes were not acknowledged for {of_one:?}");
    // Some keys had two of their three primaries down for a while.
    assert!(failed < acknowledged / 5, "{failed} writes were not acknowledged");

    let about = [AcknowledgedWriteLost, DeleteUndone, HintsLeft, ReplicasDiffer, Resurrected, StaleRead];
    recorder.judge(&mut cluster, &about).await;
    for index in [4, 5, 6, 7] {
        cluster.verify(index).await;
    }
    for index in [1, 2] {
        assert_eq!(cluster.verify(index).await, 0, "n{index} has left, and holds something");
    }
}
