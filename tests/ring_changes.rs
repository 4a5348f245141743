//! The ring moves: nodes join and leave while the cluster is used.

use std::collections::hash_map::RandomState;
use std::future::IntoFuture;
use std::hash::BuildHasher;

use futures::{StreamExt, stream};
use starling_client::Client;
use starling_core::change::Change;
use starling_core::layout::LayoutVersion;
use starling_core::name::ObjectKey;
use starling_tests::{Cluster, eventually, usually};

const BUCKET: &str = "carts";

fn join(index: usize) -> Change {
    Change::Join { name: Cluster::name(index), weight: 1 }
}

async fn write(client: &Client, keys: std::ops::Range<usize>) {
    let bucket = client.bucket(BUCKET).unwrap();
    for n in keys {
        bucket.put(format!("k{n}"), format!("v{n}")).await.unwrap();
    }
}

/// Every primary has every key, by the layout that is read; and nobody else has.
async fn check_copies(cluster: &Cluster, nodes: &[usize], keys: usize) {
    let client = cluster.client().await;
    for n in 0..keys {
        let key = ObjectKey::new(BUCKET.parse().unwrap(), format!("k{n}")).unwrap();
        let primaries = client.layout().primaries_of(&key);
        for index in nodes.iter().copied() {
            let is_primary = primaries.iter().any(|node| cluster.index_of(&client, *node) == index);
            let (client, key) = (&client, format!("k{n}"));
            eventually("each key is where it belongs", || {
                let key = key.clone();
                async move {
                    let own = cluster.own_copy(client, index, BUCKET, &key).await.map_err(|error| error.to_string())?;
                    let holds = own.values().next().is_some();
                    if holds == is_primary { Ok(()) } else { Err(format!("n{index} holds {key}: {holds}")) }
                }
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_join_and_leave_and_every_key_is_where_it_belongs() {
    let mut cluster = Cluster::start_some(3, 5).await;
    let client = cluster.client().await;
    write(&client, 0..200).await;
    let version = cluster.change(1, vec![join(4), join(5)]).await;
    assert_eq!(version, LayoutVersion(2));
    for index in 1..=5 {
        cluster.has_joined(index);
        cluster.wait_settled(index, version).await;
    }
    write(&client, 200..220).await;
    check_copies(&cluster, &[1, 2, 3, 4, 5], 220).await;

    let version = cluster.change(4, vec![Change::Leave(Cluster::name(1))]).await;
    for index in 2..=5 {
        cluster.wait_settled(index, version).await;
    }
    cluster.has_left(1);
    check_copies(&cluster, &[2, 3, 4, 5], 220).await;
    for index in 2..=5 {
        cluster.verify(index).await;
    }
}

/// Who copies is killed at points that nobody has chosen, and in turn with it one of those it copies from.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_killed_again_and_again_goes_on_where_it_was() {
    const BYTES: usize = 2048;
    // While a node that was killed starts again, about half a mebibyte is copied from the others.
    let (keys, kills) = usually((1500, 3), (20_000, 20));
    let mut cluster = Cluster::start_some_with(3, 4, &["--handoff-rate", "512KiB"]).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).unwrap();
    let puts = (0..keys).map(|n| bucket.put(format!("k{n}"), vec![7; BYTES]).into_future());
    let stored: Vec<_> = stream::iter(puts).buffer_unordered(64).collect().await;
    assert!(stored.iter().all(Result::is_ok));

    let version = cluster.change(1, vec![join(4)]).await;
    cluster.has_joined(4);
    let mut moved = 0;
    for kill in 0..kills {
        // Anywhere in it, and never behind its end: so much is copied more than twice over.
        let more = RandomState::new().hash_one(kill) % (keys * BYTES / 5 / kills) as u64;
        let due = copied(&cluster).await + more;
        eventually("the copy goes on", || async {
            let copied = copied(&cluster).await;
            if copied >= due { Ok(()) } else { Err(format!("{copied} of {due} bytes")) }
        })
        .await;
        let victim = if kill % 2 == 0 { 4 } else { 1 + kill % 3 };
        if victim == 4 {
            // What a process has counted is forgotten with it.
            moved += copied(&cluster).await;
        }
        cluster.kill(victim);
        cluster.restart(victim).await;
    }
    cluster.wait_settled(2, version).await;
    moved += copied(&cluster).await;
    for index in 1..=4 {
        cluster.wait_settled(index, version).await;
        cluster.verify(index).await;
    }
    let held = cluster.verify(4).await;
    println!("{kills} kills: {moved} bytes moved for {held}");
    assert!(moved <= held + held / 5, "{moved} bytes moved for {held}");
}

/// Bytes that n4 has copied since its start.
async fn copied(cluster: &Cluster) -> u64 {
    cluster.status(4).await.unwrap().counters["bytes_copied"]
}
