//! Promise 1: an acknowledged write is not lost, whichever node dies whenever.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use futures::stream;
use starling_checker::Assertion::{AcknowledgedWriteLost, HintsLeft, ReplicasDiffer, ValueNobodyWrote};
use starling_client::{Client, ClientError};
use starling_tests::{Bucket, Cluster, Recorder, eventually, level, texts, usually};
use tokio::task::JoinSet;

/// They know nothing of each other: each has its own connections, and its own opinion of who is slow.
const CLIENTS: usize = 4;
/// Writes that each has under way at once.
const LANES: usize = 6;
const READERS: usize = 24;
/// Hints that are left for a node that is known to be down, before it may come back.
const HINTS: u64 = 100;
/// Keys that are looked at before anything but handoff could have brought them home.
const SAMPLE: usize = 300;

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_write_survives_one_node_after_another_being_killed() {
    let mut cluster = Cluster::start(5).await;
    let recorder = Recorder::default();
    let run = Arc::new(Run::new(usually(20_000, 80_000), usually(5, 20)));
    let mut writers = JoinSet::new();
    for _ in 0..CLIENTS {
        let client = cluster.client().await;
        for _ in 0..LANES {
            writers.spawn(write_until_over(Arc::clone(&run), recorder.session(&client).bucket("ledger")));
        }
    }
    kill_one_after_another(&mut cluster, &run).await;
    let written = Written::of_all(writers.join_all().await);
    let begun = run.begun.load(Ordering::Relaxed);
    println!(
        "{} of {begun} writes were acknowledged, {} with a node long down",
        written.all.len(),
        written.hinted.len()
    );
    // A write may end unknown when its coordinator dies with it; with three replicas and one node down that is rare.
    assert!(written.all.len() * 100 > begun * 99, "{} of {begun} were acknowledged", written.all.len());

    cluster.wait_hints_drained().await;
    let client = cluster.client().await;
    check_brought_home(&cluster, &client, &written.hinted).await;
    check_at_quorum(&recorder.session(&client).bucket("ledger"), &written.all).await;
    let about = [AcknowledgedWriteLost, ReplicasDiffer, HintsLeft, ValueNobodyWrote];
    let verdict = recorder.judge(&mut cluster, &about).await;
    assert!(verdict.of(AcknowledgedWriteLost).times >= written.all.len() as u64, "{verdict}");
}

/// What writers and killer tell each other. It goes on until there were enough writes and enough kills, however fast the
/// machine is.
struct Run {
    writes: usize,
    kills: usize,
    begun: AtomicUsize,
    ended: AtomicUsize,
    killed: AtomicUsize,
    /// Odd from when every node has noticed that one is down, until that one is started.
    phase: AtomicUsize,
}

impl Run {
    fn new(writes: usize, kills: usize) -> Run {
        let zero = || AtomicUsize::new(0);
        Run { writes, kills, begun: zero(), ended: zero(), killed: zero(), phase: zero() }
    }

    fn is_over(&self) -> bool {
        self.ended.load(Ordering::Relaxed) >= self.writes && self.killed.load(Ordering::Relaxed) >= self.kills
    }
}

/// Numbers of the writes that were acknowledged.
#[derive(Default)]
struct Written {
    all: BTreeSet<usize>,
    /// Begun and acknowledged while the same node was known to be down and no other was. So its coordinator asked a
    /// fallback for a hint at once, and lived on: handoff alone has to bring it home.
    hinted: BTreeSet<usize>,
}

impl Written {
    fn of_all(parts: Vec<Written>) -> Written {
        parts.into_iter().fold(Written::default(), |mut sum, part| {
            sum.all.extend(part.all);
            sum.hinted.extend(part.hinted);
            sum
        })
    }
}

/// Writes `k0`, `k1`, …, each number once among all writers.
async fn write_until_over(run: Arc<Run>, bucket: Bucket) -> Written {
    let mut written = Written::default();
    while !run.is_over() {
        let number = run.begun.fetch_add(1, Ordering::Relaxed);
        let before = run.phase.load(Ordering::SeqCst);
        let outcome = bucket.put(key(number), value(number)).w(level("quorum")).await;
        let after = run.phase.load(Ordering::SeqCst);
        run.ended.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Ok(_) => {
                written.all.insert(number);
                if before == after && before % 2 == 1 {
                    written.hinted.insert(number);
                }
            }
            // What a node takes with it when it dies.
            Err(
                ClientError::WriteQuorumNotMet { .. }
                | ClientError::DeadlinePassed { .. }
                | ClientError::OutcomeUnknown { .. }
                | ClientError::RetriesSpent { .. }
                | ClientError::Unavailable { .. },
            ) => {}
            Err(
                error @ (ClientError::Invalid(_)
                | ClientError::ReadQuorumNotMet { .. }
                | ClientError::Incomplete(_)
                | ClientError::Internal { .. }),
            ) => panic!("a write failed for a reason that no death explains: {error}"),
        }
    }
    written
}

/// Kills the nodes in turn, spread over the writes. Every other one is kept down until its peers know and hold hints
/// for it; the rest are back before anybody may have noticed.
async fn kill_one_after_another(cluster: &mut Cluster, run: &Run) {
    let client = cluster.client().await;
    for kill in 0..run.kills {
        let due = run.writes * (kill + 1) / (run.kills + 1);
        eventually("the writes go on", || async {
            let ended = run.ended.load(Ordering::Relaxed);
            if ended >= due { Ok(()) } else { Err(format!("{ended} of {due}")) }
        })
        .await;
        let victim = kill % cluster.size() + 1;
        cluster.kill(victim);
        if kill % 2 == 1 {
            wait_for_hints(cluster, run, &client, victim).await;
        }
        cluster.restart(victim).await;
        run.killed.fetch_add(1, Ordering::Relaxed);
    }
}

async fn wait_for_hints(cluster: &Cluster, run: &Run, client: &Client, victim: usize) {
    cluster.wait_noticed_dead(victim).await;
    run.phase.fetch_add(1, Ordering::SeqCst);
    let target = cluster.id_of(client, victim);
    // Those for writes that found it silent are there already.
    let enough = cluster.hints_for(target).await + HINTS;
    eventually("the others hold hints", || async {
        let held = cluster.hints_for(target).await;
        if held >= enough { Ok(()) } else { Err(format!("{held} of {enough} for n{victim}")) }
    })
    .await;
    run.phase.fetch_add(1, Ordering::SeqCst);
}

/// Asks each primary for its own copy. No read has been there before, which would have repaired it.
async fn check_brought_home(cluster: &Cluster, client: &Client, hinted: &BTreeSet<usize>) {
    assert!(!hinted.is_empty(), "nothing was written while a node was down");
    let sample = hinted.iter().copied().step_by(hinted.len().div_ceil(SAMPLE));
    let check = |number: usize| check_own_copies(cluster, client, number);
    stream::iter(sample).map(check).buffer_unordered(READERS).collect::<Vec<()>>().await;
}

async fn check_at_quorum(bucket: &Bucket, acknowledged: &BTreeSet<usize>) {
    let check = |number: usize| async move {
        let read = bucket.get(key(number)).r(level("quorum")).await.unwrap();
        assert_eq!(texts(&read), [value(number)], "key {}", key(number));
    };
    stream::iter(acknowledged.iter().copied()).map(check).buffer_unordered(READERS).collect::<Vec<()>>().await;
}

async fn check_own_copies(cluster: &Cluster, client: &Client, number: usize) {
    for primary in cluster.primaries(client, "ledger", &key(number)) {
        let own = cluster.own_copy(client, primary, "ledger", &key(number)).await.unwrap();
        assert_eq!(texts(&own), [value(number)], "key {} on n{primary}", key(number));
    }
}

fn key(number: usize) -> String {
    format!("k{number}")
}

fn value(number: usize) -> String {
    format!("value {number}")
}
