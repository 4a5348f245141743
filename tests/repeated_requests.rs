//! Request ids: a write that is sent again stays one write, wherever it is sent.

use std::future::IntoFuture as _;

use starling_checker::Assertion::{AcknowledgedWriteLost, FailedWriteVisible, ReplicasDiffer, Resurrected, ShownTwice};
use starling_core::ids::RequestId;
use starling_tests::{Cluster, Recorder, eventually, level, put_request, texts, usually};

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_makes_no_sibling_through_whichever_node() {
    let mut cluster = Cluster::start(5).await;
    let client = cluster.client().await;
    let recorder = Recorder::default();
    let session = recorder.session(&client);
    let bucket = session.bucket("carts");
    let primaries = cluster.primaries(&client, "carts", "alice");
    let request = RequestId(0x51);
    bucket.put("alice", "apples").request(request).w(level("all")).await.unwrap();
    for index in 1..=5 {
        let forwarded = forwarded_by(&cluster, index).await;
        let again = put_request("carts", "alice", "apples", request);
        let again = session.put_at(&cluster, index, again).await.unwrap();
        assert!(again.repeated, "through n{index}");
        let coordinator = cluster.index_of(&client, again.replicas[0].node);
        if primaries.contains(&index) {
            assert_eq!(coordinator, index, "a primary serves it itself");
        } else {
            assert!(primaries.contains(&coordinator), "n{index} had it served by n{coordinator}");
            assert!(forwarded_by(&cluster, index).await > forwarded, "n{index} sent it on");
        }
    }
    let read = bucket.get("alice").r(level("all")).await.unwrap();
    assert_eq!(texts(&read), ["apples"]);
    assert_eq!(read.clock().entries().map(|(_, counter)| counter).sum::<u64>(), 1, "one dot was minted");
    recorder.judge_unread(&mut cluster, &[ShownTwice, AcknowledgedWriteLost, ReplicasDiffer]).await;
}

async fn forwarded_by(cluster: &Cluster, index: usize) -> u64 {
    cluster.status(index).await.unwrap().counters["writes_forwarded"]
}

/// The coordinator has the write durable and is stopped before it can answer. The client goes to another node, which has
/// it carried out; then the first one wakes up with what it was about to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_reply_was_lost_is_carried_out_elsewhere_and_shows_no_sibling() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let recorder = Recorder::default();
    for round in 0..usually(3, 60) {
        let key = format!("dora {round}");
        let primaries = cluster.primaries(&client, "carts", &key);
        let coordinator = primaries[0];
        let writer = recorder.session(&cluster.client().await).bucket("carts");
        // While the others say nothing, the coordinator cannot answer either.
        cluster.pause(primaries[1]);
        cluster.pause(primaries[2]);
        let writing = tokio::spawn(writer.put(key.clone(), "dates").w(level("2")).into_future());
        eventually("the coordinator has the write", || async {
            let own = cluster.own_copy(&client, coordinator, "carts", &key).await.map_err(|error| error.to_string())?;
            if own.is_found() { Ok(()) } else { Err("it holds nothing".to_owned()) }
        })
        .await;
        cluster.pause(coordinator);
        cluster.resume(primaries[1]);
        cluster.resume(primaries[2]);
        let stored = writing.await.unwrap().unwrap();
        assert_ne!(stored.via(), cluster.address(coordinator), "the reply came from another");
        cluster.resume(coordinator);

        let bucket = recorder.session(&client).bucket("carts");
        let read = bucket.get(key.clone()).r(level("all")).wait_for_repair(true).await.unwrap();
        assert_eq!(texts(&read), ["dates"]);
    }
    recorder.judge_unread(&mut cluster, &[ShownTwice, AcknowledgedWriteLost, ReplicasDiffer]).await;
}

/// The reply is lost because the coordinator dies; the client sends the write to another, which mints it anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_repeated_at_another_coordinator_is_seen_once() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let recorder = Recorder::default();
    let bucket = recorder.session(&client).bucket("carts");
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
    let counters: Vec<u64> = read.clock().entries().map(|(_, counter)| counter).collect();
    assert_eq!(counters, [1, 1], "each coordinator has minted a dot");
    assert_eq!(texts(&read), ["beans"], "two dots, one request: one value");
    bucket.put("bob", "broad beans").context(read.context()).w(level("all")).await.unwrap();
    // The context covered both.
    recorder.judge_unread(&mut cluster, &[ShownTwice, AcknowledgedWriteLost, Resurrected, ReplicasDiffer]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_used_for_another_value_is_refused() {
    let mut cluster = Cluster::start(3).await;
    let recorder = Recorder::default();
    let bucket = recorder.session(&cluster.client().await).bucket("carts");
    let request = RequestId(0x53);
    bucket.put("carol", "corn").request(request).await.unwrap();
    let refused = bucket.put("carol", "cabbage").request(request).await.unwrap_err();
    assert!(matches!(refused, starling_client::ClientError::Invalid(_)), "{refused}");
    recorder.judge(&mut cluster, &[AcknowledgedWriteLost, FailedWriteVisible]).await;
}
