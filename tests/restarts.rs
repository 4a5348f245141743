//! Restarts: the whole cluster dies at once and loses nothing; a directory that is not what it claims does not serve.

use std::collections::BTreeSet;
use std::path::Path;

use futures::StreamExt;
use futures::stream;
use starling_tests::{Cluster, eventually, level, soaking, texts};

#[tokio::test(flavor = "multi_thread")]
async fn killing_all_nodes_at_once_under_load_loses_nothing_acknowledged() {
    let rounds = if soaking() { 10 } else { 2 };
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
    assert!(cluster.own_copy(&client, 3, "carts", "alice").await.is_err());
    // It stays so, and the others go on.
    cluster.kill(3);
    cluster.launch(3);
    cluster.wait_excluded(3).await;
    eventually("the others answer", || async {
        let read = bucket.get("alice").await.map_err(|error| error.to_string())?;
        if texts(&read) == ["pears"] { Ok(()) } else { Err(format!("{:?}", texts(&read))) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleanly_stopped_node_continues_its_histories() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let bucket = client.bucket("counters").unwrap();
    let mut context = None;
    for round in 0..4 {
        for number in 0..5 {
            let written = bucket.put("visits", format!("{round}.{number}")).context(context).w(level("all")).await;
            context = written.unwrap().context();
        }
        let first = cluster.primaries(&client, "counters", "visits")[0];
        cluster.stop(first);
        cluster.restart(first).await;
    }
    // Only its primaries coordinate; after clean stops none of them began a second history.
    let read = bucket.get("visits").await.unwrap();
    assert_eq!(texts(&read), ["3.4"]);
    assert!(read.clock().len() <= 3, "the clock has {} entries", read.clock().len());
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
