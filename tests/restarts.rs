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

/// That another directory stands for a member is a decree: without a majority there is none, and nobody takes the new one
/// for what the old one was.
#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_node_does_not_answer_as_a_member_until_a_majority_has_registered_it() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let recorder = Recorder::default();
    let session = recorder.session(&client);
    session.bucket("carts").put("alice", "apples").pw(level("all")).await.unwrap();
    cluster.kill(3);
    cluster.wipe(3);
    recorder.replaced_disk(&cluster, &client, 3);
    cluster.kill(2);
    cluster.launch(3);
    let reason = excluded_for(&cluster, 3, "it takes 2 of 3 members").await;
    assert!(reason.contains("which is new") && reason.contains("silent: "), "{reason}");
    let refused = cluster.own_copy(&client, 3, "carts", "alice").await.unwrap_err().to_string();
    assert!(refused.contains("which is new"), "{refused}");
    // The only one left goes on without it.
    check_counts_for_no_quorum(&session).await;

    cluster.restart(2).await;
    cluster.wait_filled(3).await;
    assert!(cluster.own_copy(&client, 3, "carts", "alice").await.unwrap().is_found());
    recorder.judge_unread(&mut cluster, &[AcknowledgedWriteLost, ReplicasDiffer]).await;
    cluster.verify(3).await;
}

/// What it acknowledged together with others it has again, and what only it and one other had is still there.
#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_node_comes_back_under_load_and_has_again_what_it_had() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let recorder = Recorder::default();
    let session = recorder.session(&client);
    let bucket = session.bucket("carts");
    let keys = usually(500, 20_000);
    let write = |n: usize, round: usize| {
        let bucket = bucket.clone();
        async move {
            let key = format!("k{n}");
            let context = bucket.get(key.clone()).pr(level("quorum")).await.ok().and_then(|got| got.context());
            let put = bucket.put(key, format!("v{n} of round {round}")).pw(level("quorum"));
            let put = if let Some(context) = context { put.context(context) } else { put };
            drop(put.await);
        }
    };
    let all = |round| stream::iter(0..keys).for_each_concurrent(LANES, move |n| write(n, round));
    all(1).await;
    cluster.kill(3);
    cluster.wipe(3);
    recorder.replaced_disk(&cluster, &client, 3);
    cluster.launch(3);
    // Until it has been registered, and filled up, and killed in the midst of that.
    futures::future::join(
        all(2),
        eventually("n3 stands for the member again", || async {
            let counters = cluster.status(3).await?.counters;
            if counters["objects_filled"] > 0 { Ok(()) } else { Err("nothing has come yet".to_owned()) }
        }),
    )
    .await;
    cluster.kill(3);
    cluster.launch(3);
    all(3).await;
    cluster.wait_filled(3).await;
    recorder.judge(&mut cluster, &[StaleRead, AcknowledgedWriteLost, Resurrected, ReplicasDiffer]).await;
    for index in 1..=3 {
        cluster.verify(index).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_of_a_directory_does_not_answer_as_a_member_and_is_begun_anew() {
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
    recorder.replaced_disk(&cluster, &client, 3);
    cluster.kill(2);
    cluster.launch(3);
    let reason = cluster.wait_excluded(3).await;
    assert!(reason.contains("old copy"), "{reason}");
    let refused = cluster.own_copy(&client, 3, "carts", "alice").await.unwrap_err().to_string();
    assert!(refused.contains("old copy"), "{refused}");
    // It stays so while there is no majority.
    cluster.kill(3);
    cluster.launch(3);
    cluster.wait_excluded(3).await;
    check_counts_for_no_quorum(&session).await;

    cluster.restart(2).await;
    cluster.wait_filled(3).await;
    assert!(cluster.data_dir(3).join("db.old").exists(), "what it held is kept");
    recorder.judge_unread(&mut cluster, &[AcknowledgedWriteLost, NotSuperseded, Resurrected, ReplicasDiffer]).await;
    cluster.verify(3).await;
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
    recorder.replaced_disk(&cluster, &client, 3);
    cluster.launch(3);
    eventually("n3 runs", || async { cluster.status(3).await.map(|_| ()) }).await;
    cluster.kill(3);
    cluster.restart(1).await;
    cluster.restart(2).await;
    cluster.launch(3);
    cluster.wait_filled(3).await;
    assert!(cluster.log_of(3).contains("old copy"));
    bucket.get("alice").pr(level("quorum")).await.unwrap();
    recorder.judge(&mut cluster, &[StaleRead, AcknowledgedWriteLost, Resurrected, ReplicasDiffer]).await;
}

/// Waits until a node says that it does not serve, for that reason.
async fn excluded_for(cluster: &Cluster, index: usize, why: &str) -> String {
    eventually("the node says why it does not serve", || async move {
        let reason = cluster.wait_excluded(index).await;
        if reason.contains(why) { Ok(reason) } else { Err(reason) }
    })
    .await
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

/// Of three nodes n3 is there and excluded, and n2 is dead: one is left that counts.
async fn check_counts_for_no_quorum(session: &Session) {
    let bucket = session.bucket("carts");
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
