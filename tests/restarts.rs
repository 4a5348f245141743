//! Restarts: the whole cluster dies at once and loses nothing; a directory that is not what it claims does not serve.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use starling_checker::Assertion::{
    AcknowledgedWriteLost, NotSuperseded, ReplicasDiffer, Resurrected, StaleRead, ValueNobodyWrote,
};
use starling_client::ClientError;
use starling_core::ids::RequestId;
use starling_proto::data::Put;
use starling_tests::{Bucket, Cluster, Recorder, Session, eventually, level, put_request, texts, usually};

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
async fn a_wiped_node_does_not_answer_as_a_member_and_says_why() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let recorder = Recorder::default();
    let session = recorder.session(&client);
    session.bucket("carts").put("alice", "apples").pw(level("all")).await.unwrap();
    cluster.kill(3);
    cluster.wipe(3);
    recorder.lost_disk(&cluster, &client, 3);
    cluster.launch(3);
    let reason = cluster.wait_excluded(3).await;
    assert!(reason.contains("wiped or replaced"), "{reason}");
    let refused = cluster.own_copy(&client, 3, "carts", "alice").await.unwrap_err().to_string();
    assert!(refused.contains("wiped or replaced"), "{refused}");
    // The others go on without it.
    session.bucket("carts").get("alice").pr(level("quorum")).await.unwrap();
    check_counts_for_no_quorum(&mut cluster, &session).await;
    recorder.judge(&mut cluster, &[StaleRead, AcknowledgedWriteLost, ReplicasDiffer]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_of_a_directory_does_not_answer_as_a_member_and_says_why() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let recorder = Recorder::default();
    let session = recorder.session(&client);
    let bucket = session.bucket("carts");
    bucket.put("alice", "apples").w(level("all")).await.unwrap();
    let saved = save_directory_and_go_on(&mut cluster, 3).await;
    let apples = bucket.get("alice").await.unwrap();
    bucket.put("alice", "pears").context(apples.context()).pw(level("all")).await.unwrap();

    cluster.kill(3);
    put_back(&cluster, 3, &saved);
    recorder.lost_disk(&cluster, &client, 3);
    cluster.launch(3);
    let reason = cluster.wait_excluded(3).await;
    assert!(reason.contains("old copy"), "{reason}");
    let refused = cluster.own_copy(&client, 3, "carts", "alice").await.unwrap_err().to_string();
    assert!(refused.contains("old copy"), "{refused}");
    // It stays so, and the others go on.
    cluster.kill(3);
    cluster.launch(3);
    cluster.wait_excluded(3).await;
    bucket.get("alice").pr(level("quorum")).await.unwrap();
    check_counts_for_no_quorum(&mut cluster, &session).await;
    recorder.judge(&mut cluster, &[StaleRead, AcknowledgedWriteLost, NotSuperseded, Resurrected, ReplicasDiffer]).await;
}

/// It was started once while nobody could object, so its next start has a higher number than anybody remembers.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_that_was_started_unseen_is_found_out_all_the_same() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let recorder = Recorder::default();
    let session = recorder.session(&client);
    let bucket = session.bucket("carts");
    bucket.put("alice", "apples").w(level("all")).await.unwrap();
    let saved = save_directory_and_go_on(&mut cluster, 3).await;
    let apples = bucket.get("alice").await.unwrap();
    bucket.put("alice", "pears").context(apples.context()).pw(level("all")).await.unwrap();

    cluster.kill_all();
    put_back(&cluster, 3, &saved);
    recorder.lost_disk(&cluster, &client, 3);
    cluster.launch(3);
    eventually("n3 runs", || async { cluster.status(3).await.map(|_| ()) }).await;
    cluster.kill(3);
    cluster.restart(1).await;
    cluster.restart(2).await;
    cluster.launch(3);
    let reason = cluster.wait_excluded(3).await;
    assert!(reason.contains("old copy"), "{reason}");
    bucket.get("alice").pr(level("quorum")).await.unwrap();
    recorder.judge(&mut cluster, &[StaleRead, AcknowledgedWriteLost, Resurrected, ReplicasDiffer]).await;
}

/// Copies the directory while its node is stopped, and starts the node again.
async fn save_directory_and_go_on(cluster: &mut Cluster, index: usize) -> PathBuf {
    cluster.stop(index);
    let live = cluster.data_dir(index);
    let saved = live.with_extension("saved");
    copy_directory(&live, &saved);
    cluster.restart(index).await;
    saved
}

fn put_back(cluster: &Cluster, index: usize, saved: &Path) {
    let live = cluster.data_dir(index);
    std::fs::remove_dir_all(&live).unwrap();
    std::fs::rename(saved, &live).unwrap();
}

/// Of three nodes n3 is there and excluded. With n2 dead as well, one is left that counts.
async fn check_counts_for_no_quorum(cluster: &mut Cluster, session: &Session) {
    let bucket = session.bucket("carts");
    cluster.kill(2);
    match bucket.put("alice", "plums").w(level("2")).await.unwrap_err() {
        ClientError::WriteQuorumNotMet { acknowledged, .. } => assert_eq!(acknowledged.primaries, 1),
        other => panic!("expected a missed write quorum, got {other}"),
    }
    match bucket.get("alice").r(level("2")).await.unwrap_err() {
        ClientError::ReadQuorumNotMet { counted, .. } => assert_eq!(counted.primaries, 1),
        other => panic!("expected a missed read quorum, got {other}"),
    }
    assert!(bucket.get("alice").r(level("1")).await.unwrap().is_found(), "n1 alone still answers");
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

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
