//! Read repair: one read brings a stale replica up to date.

use starling_tests::{Cluster, eventually, level, texts};

/// A replica that is killed together with every node that could hold a hint for it misses the write for good, until
/// somebody reads: three nodes, three replicas, so there is no fallback.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_missed_a_write_is_repaired_by_one_read() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let bucket = client.bucket("carts").unwrap();
    let before = bucket.put("alice", "apples").w(level("all")).await.unwrap();
    cluster.kill(2);
    bucket.put("alice", "pears").context(before.context()).await.unwrap();
    cluster.restart(2).await;
    assert_eq!(texts(&cluster.own_copy(&client, 2, "carts", "alice").await.unwrap()), ["apples"], "n2 is behind");

    assert_eq!(texts(&bucket.get("alice").await.unwrap()), ["pears"]);
    eventually("the read has repaired n2", || async {
        let own = cluster.own_copy(&client, 2, "carts", "alice").await.map_err(|error| error.to_string())?;
        if texts(&own) == ["pears"] { Ok(()) } else { Err(format!("n2 holds {:?}", texts(&own))) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_waits_for_its_repair_returns_after_it() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let bucket = client.bucket("carts").unwrap();
    cluster.kill(3);
    bucket.put("bob", "beans").await.unwrap();
    cluster.restart(3).await;

    bucket.get("bob").r(level("all")).wait_for_repair(true).await.unwrap();
    assert_eq!(texts(&cluster.own_copy(&client, 3, "carts", "bob").await.unwrap()), ["beans"]);
}
