//! Restarts: the whole cluster dies at once and loses nothing, and a node that stops in order goes on where it was.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use starling_checker::Assertion::{AcknowledgedWriteLost, ReplicasDiffer, Resurrected, StaleRead, ValueNobodyWrote};
use starling_core::ids::RequestId;
use starling_proto::data::Put;
use starling_tests::{Bucket, Cluster, Recorder, level, put_request, texts, usually};

/// Requests under way at once.
const LANES: usize = 32;

#[tokio::test(flavor = "multi_thread")]
async fn killing_all_nodes_at_once_under_load_loses_nothing_acknowledged() {
    let mut cluster = Cluster::start(3).await;
    let recorder = Recorder::default();
    let mut acknowledged = BTreeSet::new();
    for round in 0..usually(2, 40) {
        let bucket = recorder.session(&cluster.client().await).bucket("ledger");
        acknowledged.extend(write_until_all_are_killed(&mut cluster, &bucket, round).await);
        cluster.restart_all().await;
    }
    // Strict reads, before anything has repaired what they meet.
    let bucket = &recorder.session(&cluster.client().await).bucket("ledger");
    let read = |key: String| async move { bucket.get(key).r(level("quorum")).pr(level("quorum")).await.unwrap() };
    let reads = stream::iter(acknowledged).map(read).buffer_unordered(LANES).count().await;
    let about = [AcknowledgedWriteLost, StaleRead, ValueNobodyWrote, ReplicasDiffer];
    let verdict = recorder.judge(&mut cluster, &about).await;
    assert_eq!(verdict.of(StaleRead).times, reads as u64, "{verdict}");
}

/// Returns the keys whose writes were acknowledged.
async fn write_until_all_are_killed(cluster: &mut Cluster, bucket: &Bucket, round: usize) -> Vec<String> {
    let write = |number: usize| {
        let bucket = bucket.clone();
        async move {
            let key = format!("{round}/{number}");
            // There is nobody who could stand in for a primary: a quorum is one of primaries.
            let put = bucket.put(key.clone(), key.clone()).pw(level("quorum")).timeout(Duration::from_secs(2));
            put.await.ok().map(|_| key)
        }
    };
    let mut load = stream::iter(0..100_000).map(write).buffer_unordered(LANES);
    let mut acknowledged: Vec<String> = Vec::new();
    while acknowledged.len() < 1500 {
        acknowledged.extend(load.next().await.unwrap());
    }
    cluster.kill_all();
    // What was under way ends without an acknowledgement, or with one that had been sent before.
    acknowledged.extend(load.by_ref().take(LANES).filter_map(|key| async { key }).collect::<Vec<_>>().await);
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleanly_stopped_node_continues_its_history() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let first = cluster.primaries(&client, "counters", "visits")[0];
    let recorder = Recorder::default();
    let session = recorder.session(&client);
    let (rounds, writes) = (usually(4, 100), 5);
    let mut context = None;
    for round in 0..rounds {
        // Straight to one primary, so that only that one coordinates.
        for number in 1..=writes {
            let visit: u64 = round * writes + number;
            let put = put_request("counters", "visits", &visit.to_string(), RequestId(visit.into()));
            let put = Put { context, w: level("all"), ..put };
            context = session.put_at(&cluster, first, put).await.unwrap().context;
        }
        cluster.stop(first);
        cluster.restart(first).await;
    }
    let visits = rounds * writes;
    let read = recorder.session(&cluster.client().await).bucket("counters").get("visits").await.unwrap();
    assert_eq!(texts(&read), [visits.to_string()]);
    let counters: Vec<u64> = read.clock().entries().map(|(_, counter)| counter).collect();
    assert_eq!(counters, [visits], "one history has minted them all");
    recorder.judge_unread(&mut cluster, &[AcknowledgedWriteLost, Resurrected, ReplicasDiffer]).await;
}
