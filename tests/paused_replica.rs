//! Slow is commoner than dead: a paused node, which gossip still takes for alive, holds nobody up.

use std::time::{Duration, Instant};

use starling_tests::{Cluster, level, texts};

/// The bound stated in the README: the client leaves a silent coordinator after 750 ms, and the next answers within its
/// usual delay. The rest is room for a busy machine; what is tested is that nothing waits for a timeout of seconds.
const BOUND: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn requests_stay_within_their_bound_while_a_replica_is_paused_and_thought_alive() {
    let mut cluster = Cluster::start(5).await;
    let client = cluster.client().await;
    let bucket = client.bucket("carts").unwrap();
    for number in 0..20 {
        bucket.put(format!("k{number}"), "before").w(level("all")).await.unwrap();
    }
    cluster.pause(2);
    let paused_at = Instant::now();
    let mut slowest = Duration::ZERO;
    for number in 0..20 {
        let begun = Instant::now();
        let key = format!("k{number}");
        let read = bucket.get(key.clone()).r(level("quorum")).await.unwrap();
        assert_eq!(texts(&read), ["before"]);
        bucket.put(key, "after").context(read.context()).w(level("quorum")).await.unwrap();
        slowest = slowest.max(begun.elapsed() / 2);
        assert!(begun.elapsed() < BOUND * 2, "key {number} took {:?}", begun.elapsed());
    }
    println!("slowest request beside a paused replica: {slowest:?}; all took {:?}", paused_at.elapsed());
    cluster.resume(2);
    cluster.wait_hints_drained().await;
    for number in 0..20 {
        assert_eq!(texts(&bucket.get(format!("k{number}")).await.unwrap()), ["after"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_hangs_past_its_deadline() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let bucket = client.bucket("carts").unwrap();
    bucket.put("alice", "apples").w(level("all")).await.unwrap();
    cluster.pause(2);
    cluster.pause(3);
    let deadline = Duration::from_millis(1500);
    let slack = Duration::from_secs(2);
    for _ in 0..3 {
        let begun = Instant::now();
        assert!(bucket.get("alice").r(level("all")).timeout(deadline).await.is_err());
        assert!(begun.elapsed() < deadline + slack, "a read took {:?}", begun.elapsed());
        let begun = Instant::now();
        assert!(bucket.put("alice", "pears").w(level("all")).timeout(deadline).await.is_err());
        assert!(begun.elapsed() < deadline + slack, "a write took {:?}", begun.elapsed());
    }
    cluster.resume(2);
    cluster.resume(3);
}
