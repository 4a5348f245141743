//! Restarts: the whole cluster dies at once and loses nothing; a directory that is not what it claims does not serve.

use std::collections::BTreeSet;
use std::path::Path;

use futures::StreamExt;
use futures::stream;
use starling_client::{Client, ClientError};
use starling_core::ids::RequestId;
use starling_proto::data::Put;
use starling_tests::{Cluster, level, put_request, texts, usually};

#[tokio::test(flavor = "multi_thread")]
async fn killing_all_nodes_at_once_under_load_loses_nothing_acknowledged() {
    let rounds = usually(2, 40);
    let mut cluster = Cluster::start(3).await;
    let mut acknowledged = BTreeSet::new();
    for round in 0..rounds {
        let client = cluster.client().await;
        let bucket = client.bucket("ledger").unwrap();
        let write = |number: usize| {
            let bucket = bucket.clone();
            async move {
                let key = format!("{round}/{number}");
                let timeout = std::time::Duration::from_secs(2);
                bucket.put(key.clone(), key.clone()).timeout(timeout).await.ok().map(|_| key)
            }
        };
        let mut load = stream::iter(0..100_000).map(write).buffer_unordered(32);
        let mut now: Vec<String> = Vec::new();
        while now.len() < 1500 {
            now.extend(load.next().await.unwrap());
        }
        cluster.kill_all();
        // What was under way ends without an acknowledgement, or with one that had been sent before.
        now.extend(load.by_ref().take(32).filter_map(|key| async { key }).collect::<Vec<_>>().await);
        drop(load);
        acknowledged.extend(now);
        cluster.restart_all().await;
    }
    let client = cluster.client().await;
    let bucket = client.bucket("ledger").unwrap();
    let bucket = &bucket;
    let check = |key: String| async move {
        let read = bucket.get(key.clone()).r(level("quorum")).await.unwrap();
        assert_eq!(texts(&read), [key]);
    };
    stream::iter(acknowledged).map(check).buffer_unordered(32).collect::<Vec<()>>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_node_does_not_answer_as_a_member_and_says_why() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    client.bucket("carts").unwrap().put("alice", "apples").w(level("all")).await.unwrap();
    cluster.kill(3);
    cluster.wipe(3);
    cluster.launch(3);
    let reason = cluster.wait_excluded(3).await;
    assert!(reason.contains("wiped or replaced"), "{reason}");
    let refused = cluster.own_copy(&client, 3, "carts", "alice").await.unwrap_err().to_string();
    assert!(refused.contains("wiped or replaced"), "{refused}");
    // The others go on without it.
    assert_eq!(texts(&client.bucket("carts").unwrap().get("alice").await.unwrap()), ["apples"]);
    check_counts_for_no_quorum(&mut cluster, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_of_a_directory_does_not_answer_as_a_member_and_says_why() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let bucket = client.bucket("carts").unwrap();
    bucket.put("alice", "apples").w(level("all")).await.unwrap();
    cluster.stop(3);
    let live = cluster.data_dir(3);
    let saved = live.with_extension("saved");
    copy_directory(&live, &saved);
    cluster.restart(3).await;
    let pears = bucket.get("alice").await.unwrap();
    bucket.put("alice", "pears").context(pears.context()).w(level("all")).await.unwrap();

    cluster.kill(3);
    std::fs::remove_dir_all(&live).unwrap();
    std::fs::rename(&saved, &live).unwrap();
    cluster.launch(3);
    let reason = cluster.wait_excluded(3).await;
    assert!(reason.contains("old copy"), "{reason}");
    let refused = cluster.own_copy(&client, 3, "carts", "alice").await.unwrap_err().to_string();
    assert!(refused.contains("old copy"), "{refused}");
    // It stays so, and the others go on.
    cluster.kill(3);
    cluster.launch(3);
    cluster.wait_excluded(3).await;
    assert_eq!(texts(&bucket.get("alice").await.unwrap()), ["pears"]);
    check_counts_for_no_quorum(&mut cluster, &client).await;
}

/// Of three nodes n3 is there and excluded. With n2 dead as well, one is left that counts.
async fn check_counts_for_no_quorum(cluster: &mut Cluster, client: &Client) {
    let bucket = client.bucket("carts").unwrap();
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
    let (rounds, writes) = (usually(4, 100), 5);
    let mut context = None;
    for round in 0..rounds {
        // Straight to one primary, so that only that one coordinates.
        let direct = cluster.direct(first).await;
        for number in 1..=writes {
            let visit: u64 = round * writes + number;
            let put = put_request("counters", "visits", &visit.to_string(), RequestId(visit.into()));
            context = direct.put(Put { context, w: level("all"), ..put }).await.unwrap().context;
        }
        cluster.stop(first);
        cluster.restart(first).await;
    }
    let visits = rounds * writes;
    let read = cluster.client().await.bucket("counters").unwrap().get("visits").await.unwrap();
    assert_eq!(texts(&read), [visits.to_string()]);
    let counters: Vec<u64> = read.clock().entries().map(|(_, counter)| counter).collect();
    assert_eq!(counters, [visits], "one history has minted them all");
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
