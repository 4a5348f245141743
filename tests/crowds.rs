//! Many at once: whoever comes in a crowd must not keep others out.

use std::collections::BTreeMap;

use starling_client::Client;
use starling_tests::{Cluster, eventually, level, texts};

const ROOM: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_clients_keeps_neither_peers_nor_operators_out() {
    let mut cluster = Cluster::start_uninitialised_with(3, &["--max-connections", "4"]).await;
    cluster.init(BTreeMap::new()).await;
    let mut crowd = Vec::new();
    while crowd.len() < ROOM {
        // Those that the start of the cluster has made may not be gone yet.
        crowd.push(eventually("there is room", || cluster.try_direct(1)).await);
    }
    let busy = Client::connect([cluster.address(1)]).await.err().expect("there is no more room").to_string();
    assert!(busy.contains("as many connections as it takes"), "{busy}");

    // A peer that comes back is let in, and whoever asks how things are gets an answer.
    cluster.kill(2);
    for index in [1, 3] {
        wait_connections(&cluster, index, 1).await;
    }
    cluster.launch(2);
    for index in 1..=3 {
        wait_connections(&cluster, index, 2).await;
    }
    let bucket = Client::connect([cluster.address(2)]).await.unwrap().bucket("carts").unwrap();
    bucket.put("alice", "apples").w(level("all")).await.unwrap();
    assert_eq!(texts(&bucket.get("alice").r(level("all")).await.unwrap()), ["apples"]);
    drop(crowd);
}

async fn wait_connections(cluster: &Cluster, index: usize, expected: usize) {
    eventually("the node has lost, or found, its peer", || async {
        let connected = cluster.status(index).await?.connected.len();
        if connected == expected {
            Ok(())
        } else {
            Err(format!("n{index} is connected to {connected}, not {expected}"))
        }
    })
    .await;
}
