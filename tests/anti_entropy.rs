//! Replicas become equal by themselves, though nobody kept for them what they missed, and nobody reads it.

use std::time::Instant;

use starling_client::Client;
use starling_tests::{Cluster, Starling, eventually, text, usually};

const BUCKET: &str = "carts";
/// A node that is down is missed by so many writes.
const MISSED: usize = 50_000;

/// Of hints each node takes one, so all but a few copies for the dead node are refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_for_which_no_hints_were_taken_is_made_equal() {
    let mut cluster = Cluster::start_uninitialised_with(4, &["--max-hints-per-node", "1"]).await;
    cluster.init([].into()).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).unwrap();
    for n in 0..20 {
        bucket.put(format!("k{n}"), "before").await.unwrap();
    }
    cluster.kill(4);
    let keys = usually(2_000, MISSED);
    let puts = (0..keys).map(|n| {
        let bucket = bucket.clone();
        async move { bucket.put(format!("k{n}"), format!("v{n}")).await }
    });
    let mut puts = futures::StreamExt::buffer_unordered(futures::stream::iter(puts), 64);
    while let Some(put) = futures::StreamExt::next(&mut puts).await {
        put.unwrap();
    }
    drop(puts);
    let taken = cluster.hints_for(cluster.id_of(&client, 4)).await;
    assert!(taken < keys as u64 / 10, "hints were taken: {taken}");

    cluster.restart(4).await;
    let began = Instant::now();
    let mine: Vec<String> =
        (0..keys).map(|n| format!("k{n}")).filter(|key| cluster.primaries(&client, BUCKET, key).contains(&4)).collect();
    assert!(mine.len() > keys / 4, "{} of {keys} keys", mine.len());
    eventually("the node has all that it is a primary of", || async {
        for key in &mine {
            let own = cluster.own_copy(&client, 4, BUCKET, key).await.map_err(|error| error.to_string())?;
            let is_new = own.values().any(|value| value.starts_with(b"v"));
            if !is_new {
                return Err(format!("n4 lacks {key}"));
            }
        }
        Ok(())
    })
    .await;
    let mut repaired = 0;
    for index in 1..=4 {
        repaired += cluster.status(index).await.unwrap().counters["objects_repaired"];
    }
    println!("{} keys made equal in {:?}, {repaired} objects moved", mine.len(), began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_does_at_once_what_goes_on_by_itself() {
    let mut cluster = Cluster::start_without_anti_entropy(3).await;
    let starling = Starling::of(&cluster);
    let client = cluster.client().await;
    let (carts, drafts) = (client.bucket(BUCKET).unwrap(), client.bucket("drafts").unwrap());
    cluster.kill(3);
    for n in 0..30 {
        carts.put(format!("k{n}"), "apples").await.unwrap();
        drafts.put(format!("k{n}"), "a draft").await.unwrap();
    }
    let alone = starling.json(1, &["repair", "--wait"]);
    assert_eq!((&alone["over"], &alone["complete"], &alone["differences"]), (&true.into(), &false.into(), &0.into()));
    cluster.restart(3).await;

    let report = starling.json(0, &["repair", BUCKET, "--wait"]);
    assert_eq!(report["complete"], true);
    assert_found(&report);
    assert_eq!((held_by(&cluster, &client, 3, BUCKET).await, held_by(&cluster, &client, 3, "drafts").await), (30, 0));
    let report = starling.json(0, &["repair", "--wait"]);
    assert_eq!(report["complete"], true);
    assert_found(&report);
    assert_eq!(held_by(&cluster, &client, 3, "drafts").await, 30);
    let report = starling.json(0, &["repair", "--wait"]);
    assert_eq!((&report["complete"], &report["differences"]), (&true.into(), &0.into()), "there is nothing left to do");

    let refused = starling.error(2, &["repair", "--partition", "64"]);
    assert!(text(&refused["message"]).contains("numbered from 0 to 63"), "{refused}");
    let one = starling.json(0, &["repair", "--partition", "63", "--wait"]);
    assert_eq!(one["comparisons"], 3, "of three nodes each with each other: {one}");
}

/// Two nodes have what the third lacks; it may have got a key from the one before it is compared with the other.
fn assert_found(report: &serde_json::Value) {
    let differences = report["differences"].as_u64().unwrap();
    assert!((30..=60).contains(&differences), "{report}");
}

async fn held_by(cluster: &Cluster, client: &Client, index: usize, bucket: &str) -> usize {
    let mut held = 0;
    for n in 0..30 {
        let own = cluster.own_copy(client, index, bucket, &format!("k{n}")).await.unwrap();
        held += usize::from(own.is_found());
    }
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nodes_hold_is_verified() {
    let cluster = Cluster::start(3).await;
    let starling = Starling::of(&cluster);
    for n in 0..20 {
        starling.json(0, &["put", BUCKET, &format!("k{n}"), "apples", "--w", "all"]);
    }
    let report = starling.json(0, &["node", "verify"]);
    assert_eq!((&report["flawless"], report["nodes"].as_array().map(Vec::len)), (&true.into(), Some(3)));
    for node in report["nodes"].as_array().unwrap() {
        assert_eq!((&node["partitions"], &node["records"]), (&64.into(), &20.into()), "{node}");
        assert!(node["bytes"].as_u64().unwrap() > 0, "{node}");
    }
    let one = starling.json(0, &["node", "verify", "n2"]);
    assert_eq!((&one["nodes"][0]["node"], one["nodes"].as_array().map(Vec::len)), (&"n2".into(), Some(1)));
}
