//! Request ids: a write that is sent again stays one write, wherever it is sent.

use starling_core::ids::RequestId;
use starling_tests::{Cluster, level, texts};

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_makes_no_sibling_through_whichever_node() {
    let cluster = Cluster::start(5).await;
    let client = cluster.client().await;
    let bucket = client.bucket("carts").unwrap();
    let request = RequestId(0x51);
    bucket.put("alice", "apples").request(request).w(level("all")).await.unwrap();
    for index in 1..=5 {
        let through = cluster.client_of(index).await;
        let again = through.bucket("carts").unwrap().put("alice", "apples").request(request).await.unwrap();
        assert!(again.was_repeated(), "through n{index}");
    }
    assert_eq!(texts(&bucket.get("alice").await.unwrap()), ["apples"]);
    assert_eq!(bucket.get("alice").await.unwrap().clock().entries().map(|(_, counter)| counter).sum::<u64>(), 1);
}

/// The reply is lost because the coordinator dies; the client sends the write to another, which mints it anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_repeated_at_another_coordinator_is_seen_once() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let bucket = client.bucket("carts").unwrap();
    let primaries = cluster.primaries(&client, "carts", "bob");
    let request = RequestId(0x52);
    // The first coordinator takes the write alone, and dies before the others have it.
    cluster.kill(primaries[1]);
    cluster.kill(primaries[2]);
    bucket.put("bob", "beans").request(request).w(level("1")).await.unwrap();
    cluster.kill(primaries[0]);
    cluster.restart(primaries[1]).await;
    cluster.restart(primaries[2]).await;
    bucket.put("bob", "beans").request(request).w(level("2")).await.unwrap();
    cluster.restart(primaries[0]).await;

    let read = bucket.get("bob").r(level("all")).wait_for_repair(true).await.unwrap();
    assert_eq!(texts(&read), ["beans"], "two dots, one request: one value");
    bucket.put("bob", "broad beans").context(read.context()).w(level("all")).await.unwrap();
    assert_eq!(texts(&bucket.get("bob").await.unwrap()), ["broad beans"], "the context covered both");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_used_for_another_value_is_refused() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let bucket = client.bucket("carts").unwrap();
    let request = RequestId(0x53);
    bucket.put("carol", "corn").request(request).await.unwrap();
    let refused = bucket.put("carol", "cabbage").request(request).await.unwrap_err();
    assert!(matches!(refused, starling_client::ClientError::Invalid(_)), "{refused}");
}
