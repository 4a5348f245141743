//! A cluster comes up and keeps a value.

use starling_tests::{Cluster, texts};

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_comes_up_and_keeps_a_value() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let carts = client.bucket("carts").unwrap();
    carts.put("alice", "apples").await.unwrap();
    assert_eq!(texts(&carts.get("alice").await.unwrap()), ["apples"]);
    assert_eq!(carts.keys().await.unwrap().keys, ["alice"]);
    assert_eq!(client.buckets().await.unwrap(), ["carts".parse().unwrap()]);
    carts.delete("alice").await.unwrap();
    let gone = carts.get("alice").await.unwrap();
    assert!(!gone.is_found() && gone.is_deleted());
    assert!(carts.keys().await.unwrap().keys.is_empty());
}
