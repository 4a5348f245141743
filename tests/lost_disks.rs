//! Disks that are lost: wiped, put back to an earlier state, damaged. Whatever it is, it is found and said, the node comes
//! back by itself with what the others have, and nothing that was acknowledged is lost.

use std::path::{Path, PathBuf};

use futures::{StreamExt, stream};
use starling_checker::Assertion::{AcknowledgedWriteLost, NotSuperseded, ReplicasDiffer, Resurrected, StaleRead};
use starling_client::ClientError;
use starling_core::change::Change;
use starling_proto::control::NodeStanding;
use starling_tests::{Bucket, Cluster, Recorder, Session, eventually, level, usually};

/// Requests under way at once.
const LANES: usize = 32;

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
    // So slow that it is still filling when it is killed.
    let mut cluster = Cluster::start_uninitialised_with(3, &["--handoff-rate", "6KiB"]).await;
    cluster.init([].into()).await;
    let client = cluster.client().await;
    let recorder = Recorder::default();
    let session = recorder.session(&client);
    let bucket = session.bucket("carts");
    let keys = 500;
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
    assert!(cluster.status(3).await.unwrap().counters["filling_partitions"] > 0, "it is full already");
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
    let saved = save_a_directory_that_is_behind(&mut cluster, &bucket, 3).await;

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
    let saved = save_a_directory_that_is_behind(&mut cluster, &bucket, 3).await;

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

/// Saves a node's directory between two writes, the second of which has seen the first.
async fn save_a_directory_that_is_behind(cluster: &mut Cluster, bucket: &Bucket, index: usize) -> PathBuf {
    bucket.put("alice", "apples").w(level("all")).await.unwrap();
    let saved = save_directory_and_go_on(cluster, index).await;
    let apples = bucket.get("alice").await.unwrap();
    bucket.put("alice", "pears").context(apples.context()).pw(level("all")).await.unwrap();
    saved
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

/// As a disk does it: one byte of a table is another. Most of it can still be read.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_disk_is_noticed_and_what_is_lost_comes_back_from_the_peers() {
    let mut cluster = Cluster::start_uninitialised_with(3, &["--scrub-interval", "5s"]).await;
    cluster.init([].into()).await;
    let client = cluster.client().await;
    let recorder = Recorder::default();
    let bucket = recorder.session(&client).bucket("carts");
    let keys = usually(2_000, 50_000);
    write_all(&bucket, keys).await;
    // What a start replays is in tables then.
    cluster.kill(3);
    cluster.restart(3).await;
    cluster.kill(3);
    flip_a_byte(&largest(&cluster.data_dir(3).join("db"), "sst"));
    recorder.replaced_disk(&cluster, &client, 3);
    cluster.launch(3);
    // Nobody asks for anything: it reads by itself what it holds.
    eventually("n3 has begun anew", || async {
        let has_begun = cluster.data_dir(3).join("db.old").exists();
        if has_begun { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    cluster.wait_filled(3).await;
    let log = cluster.log_of(3);
    assert!(log.contains("the disk is damaged") && log.contains("taken over what could be read"), "{log}");
    let filled = cluster.status(3).await.unwrap().counters["objects_filled"];
    assert!(filled < keys as u64 / 2, "{filled} of {keys} had to come again");
    recorder.judge_unread(&mut cluster, &[AcknowledgedWriteLost, ReplicasDiffer]).await;
    for index in 1..=3 {
        cluster.verify(index).await;
    }
}

/// Of RocksDB's log the end is missing, where a crash may have left it so: what it held is acknowledged all the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_truncated_log_has_lost_comes_back_from_the_peers() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let recorder = Recorder::default();
    let bucket = recorder.session(&client).bucket("carts");
    let keys = usually(1_000, 20_000);
    write_all(&bucket, keys).await;
    cluster.kill(3);
    let log = largest(&cluster.data_dir(3).join("db"), "log");
    let bytes = std::fs::read(&log).unwrap();
    std::fs::write(&log, &bytes[..bytes.len() / 2]).unwrap();
    recorder.replaced_disk(&cluster, &client, 3);
    cluster.launch(3);
    cluster.wait_filled(3).await;
    recorder.judge_unread(&mut cluster, &[AcknowledgedWriteLost, ReplicasDiffer]).await;
    let mut came = 0;
    for index in 1..=3 {
        let counters = cluster.status(index).await.unwrap().counters;
        came += counters["objects_filled"] + counters["objects_repaired"];
    }
    assert!(came > 0, "nothing was missing");
    cluster.verify(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_removed_is_refused_and_told_what_to_do() {
    let mut cluster = Cluster::start_some(4, 5).await;
    cluster.kill(4);
    cluster.wait_noticed_dead(4).await;
    let join = Change::Join { name: Cluster::name(5), weight: 1 };
    let version = cluster.change(1, vec![Change::Remove(Cluster::name(4)), join]).await;
    cluster.has_joined(5);
    for index in [1, 2, 3, 5] {
        cluster.wait_settled(index, version).await;
    }
    cluster.launch(4);
    let reason = excluded_for(&cluster, 4, "was removed").await;
    assert!(reason.contains("needs an empty data directory"), "{reason}");
    // With one it is a node like any other, which could join.
    cluster.kill(4);
    cluster.wipe(4);
    cluster.launch(4);
    eventually("n4 belongs to no cluster", || async {
        match cluster.status(4).await?.standing {
            NodeStanding::Uninitialised => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

async fn write_all(bucket: &Bucket, keys: usize) {
    let put = |n: usize| async move {
        bucket.put(format!("k{n}"), incompressible(n)).w(level("all")).await.unwrap();
    };
    stream::iter(0..keys).for_each_concurrent(LANES, put).await;
}

fn incompressible(seed: usize) -> String {
    let word = |n: u64| format!("{:016x}", (seed as u64 * 100 + n).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (1..30).map(word).collect()
}

fn largest(folder: &Path, extension: &str) -> PathBuf {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|of| of == extension));
    files.max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap()
}

fn flip_a_byte(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
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
