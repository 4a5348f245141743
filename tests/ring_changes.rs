//! The ring moves: nodes join and leave while the cluster is used.

use starling_client::Client;
use starling_core::change::Change;
use starling_core::layout::LayoutVersion;
use starling_core::name::ObjectKey;
use starling_tests::{Cluster, eventually};

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
        cluster.expect_serving(index, true);
        cluster.wait_settled(index, version).await;
    }
    write(&client, 200..220).await;
    check_copies(&cluster, &[1, 2, 3, 4, 5], 220).await;

    let version = cluster.change(4, vec![Change::Leave(Cluster::name(1))]).await;
    for index in 2..=5 {
        cluster.wait_settled(index, version).await;
    }
    cluster.expect_serving(1, false);
    check_copies(&cluster, &[2, 3, 4, 5], 220).await;
}
