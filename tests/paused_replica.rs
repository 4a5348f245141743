//! Slow is commoner than dead: a paused node, which gossip still takes for alive, holds nobody up.

use std::future::IntoFuture;
use std::time::{Duration, Instant};

use starling_checker::Assertion::{AcknowledgedWriteLost, ReplicasDiffer, Resurrected, ValueNobodyWrote};
use starling_client::ClientError;
use starling_tests::{Cluster, Recorder, level, texts, usually};

/// The bound stated in the README: a client leaves a silent coordinator after 750 ms, and the next one asks others once
/// its replicas have been silent for their usual delay, at most 750 ms. The rest is room for a busy machine.
const BOUND: Duration = Duration::from_secs(2);
/// What a request may take beyond its deadline: to give up, and to tell so.
const SLACK: Duration = Duration::from_millis(500);

/// The node that is paused. Any would do.
const PAUSED: usize = 2;

#[derive(Debug, Clone, Copy)]
enum Verb {
    Read,
    Write,
}

/// Each round pauses the node anew, for one request: two would last longer than gossip takes to notice.
#[tokio::test(flavor = "multi_thread")]
async fn requests_stay_within_their_bound_while_a_replica_is_paused_and_thought_alive() {
    let mut cluster = Cluster::start(5).await;
    let client = cluster.client().await;
    let recorder = Recorder::default();
    // The paused node is the first primary of one key, the second of another, the third of another.
    let of_place = |place: usize| {
        let mut keys = (0..).map(|number| format!("k{number}"));
        keys.find(|key| cluster.primaries(&client, "carts", key)[place] == PAUSED).unwrap()
    };
    let keys: Vec<String> = (0..3).map(of_place).collect();
    for round in 0..usually(1, 20) {
        for (place, key) in keys.iter().enumerate() {
            for verb in [Verb::Read, Verb::Write] {
                let took = time_before_gossip_notices(&mut cluster, &recorder, key, verb).await;
                println!("round {round}: a {verb:?} took {took:?} with primary {} of the key paused", place + 1);
                assert!(took < BOUND, "a {verb:?} took {took:?} with primary {} of the key paused", place + 1);
            }
        }
    }
    recorder.judge(&mut cluster, &[AcknowledgedWriteLost, Resurrected, ReplicasDiffer]).await;
}

/// On a busy machine gossip may be quicker than the request, and its checks, for once: that round shows nothing, and is
/// made again.
async fn time_before_gossip_notices(cluster: &mut Cluster, recorder: &Recorder, key: &str, verb: Verb) -> Duration {
    for _ in 0..10 {
        if let Some(took) = time_beside_a_paused_node(cluster, recorder, key, verb).await {
            return took;
        }
        cluster.wait_noticed_alive(PAUSED).await;
    }
    panic!("gossip is always quicker than a {verb:?}");
}

/// None if gossip had noticed by the end of it.
async fn time_beside_a_paused_node(
    cluster: &mut Cluster,
    recorder: &Recorder,
    key: &str,
    verb: Verb,
) -> Option<Duration> {
    // A client of its own: one that had met the paused node before would avoid it for a while.
    let bucket = recorder.session(&cluster.client().await).bucket("carts");
    let before = bucket.get(key.to_owned()).await.unwrap();
    // No two writes write the same: each says how many there were before.
    let writes_seen: u64 = before.clock().entries().map(|(_, counter)| counter).sum();
    let [old, new] = ["before", "after"].map(|word| format!("{word} pausing, after {writes_seen} writes"));
    bucket.put(key.to_owned(), old.clone()).context(before.context()).w(level("all")).await.unwrap();
    let before = bucket.get(key.to_owned()).await.unwrap();

    cluster.pause(PAUSED);
    let begun = Instant::now();
    match verb {
        Verb::Read => {
            let read = bucket.get(key.to_owned()).r(level("quorum")).await.unwrap();
            assert_eq!(texts(&read), [old.as_str()]);
        }
        Verb::Write => {
            let put = bucket.put(key.to_owned(), new.clone()).context(before.context());
            put.w(level("quorum")).await.unwrap();
        }
    }
    let took = begun.elapsed();
    let others = (1..=cluster.size()).filter(|other| *other != PAUSED);
    let views = futures::future::join_all(others.map(|other| cluster.sees_alive(other, PAUSED))).await;
    let unnoticed = views.into_iter().all(|alive| alive.unwrap());
    cluster.resume(PAUSED);
    cluster.wait_hints_drained().await;
    let expected = match verb {
        Verb::Read => old,
        Verb::Write => new,
    };
    assert_eq!(texts(&bucket.get(key.to_owned()).r(level("all")).await.unwrap()), [expected]);
    unnoticed.then_some(took)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_does_not_wait_for_a_paused_node_where_the_others_suffice() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let bucket = client.bucket("carts").unwrap();
    for key in ["alice", "bob", "carol"] {
        bucket.put(key, "something").w(level("all")).await.unwrap();
    }
    cluster.pause(PAUSED);
    let begun = Instant::now();
    assert_eq!(bucket.keys().await.unwrap().keys, ["alice", "bob", "carol"]);
    assert_eq!(client.buckets().await.unwrap(), ["carts".parse().unwrap()]);
    let took = begun.elapsed() / 2;
    assert!(took < BOUND, "a listing took {took:?}");
    cluster.resume(PAUSED);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_hangs_past_its_deadline() {
    let mut cluster = Cluster::start(3).await;
    let recorder = Recorder::default();
    let bucket = recorder.session(&cluster.client().await).bucket("carts");
    bucket.put("alice", "apples").w(level("all")).await.unwrap();
    cluster.pause(2);
    cluster.pause(3);
    let deadline = Duration::from_millis(1500);
    for round in 0..usually(3, 60) {
        let read = bucket.get("alice").r(level("all")).timeout(deadline);
        check_fails_by(deadline, "a read", read).await;
        let write = bucket.put("alice", format!("pears {round}")).w(level("all")).timeout(deadline);
        check_fails_by(deadline, "a write", write).await;
    }
    cluster.resume(2);
    cluster.resume(3);
    // What came to no end may be there or not, everywhere or nowhere.
    recorder.judge(&mut cluster, &[AcknowledgedWriteLost, ValueNobodyWrote, ReplicasDiffer]).await;
}

async fn check_fails_by<T>(deadline: Duration, what: &str, request: impl IntoFuture<Output = Result<T, ClientError>>) {
    let begun = Instant::now();
    let outcome = request.await;
    assert!(outcome.is_err(), "{what} was answered for two nodes that say nothing");
    assert!(begun.elapsed() < deadline + SLACK, "{what} took {:?}", begun.elapsed());
}
