//! Read repair: one read brings a stale replica up to date.
//!
//! Three nodes, three replicas: there is no fallback that could hold a hint, and nodes do not compare what they hold. So a
//! replica that was down misses a write for good, until somebody reads.

use starling_checker::Assertion::{AcknowledgedWriteLost, ReplicasDiffer, Resurrected};
use starling_client::Client;
use starling_tests::{Cluster, Recorder, level, texts, usually};

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_missed_a_write_is_repaired_by_one_read() {
    let keys = keys();
    let mut cluster = Cluster::start_without_anti_entropy(3).await;
    let client = cluster.client().await;
    let recorder = Recorder::default();
    let bucket = recorder.session(&client).bucket("carts");
    let mut contexts = Vec::new();
    for key in &keys {
        contexts.push(bucket.put(key.clone(), "apples").w(level("all")).await.unwrap().context());
    }
    cluster.kill(2);
    for (key, context) in keys.iter().zip(contexts) {
        bucket.put(key.clone(), "pears").context(context).await.unwrap();
    }
    cluster.restart(2).await;
    for key in &keys {
        assert_eq!(own_copy(&cluster, &client, 2, key).await, Ok(vec!["apples".to_owned()]), "n2 is behind");
        assert_eq!(texts(&bucket.get(key.clone()).await.unwrap()), ["pears"]);
    }
    // By those reads alone: no other follows.
    recorder.judge_unread(&mut cluster, &[AcknowledgedWriteLost, Resurrected, ReplicasDiffer]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_waits_for_its_repair_returns_after_it() {
    let keys = keys();
    let mut cluster = Cluster::start_without_anti_entropy(3).await;
    let client = cluster.client().await;
    let recorder = Recorder::default();
    let bucket = recorder.session(&client).bucket("carts");
    cluster.kill(3);
    for key in &keys {
        bucket.put(key.clone(), "beans").await.unwrap();
    }
    cluster.restart(3).await;
    for key in &keys {
        assert_eq!(own_copy(&cluster, &client, 3, key).await, Ok(Vec::new()), "n3 is behind");
        bucket.get(key.clone()).r(level("all")).wait_for_repair(true).await.unwrap();
        assert_eq!(own_copy(&cluster, &client, 3, key).await, Ok(vec!["beans".to_owned()]));
    }
    recorder.judge_unread(&mut cluster, &[AcknowledgedWriteLost, ReplicasDiffer]).await;
}

fn keys() -> Vec<String> {
    (0..usually(3, 3_000)).map(|number| format!("cart {number}")).collect()
}

async fn own_copy(cluster: &Cluster, client: &Client, index: usize, key: &str) -> Result<Vec<String>, String> {
    let own = cluster.own_copy(client, index, "carts", key).await;
    own.map(|own| texts(&own)).map_err(|error| error.to_string())
}
