//! What the other tests rely on: a broken promise is noticed, and so is a verdict that had nothing to look at.
//!
//! No node is broken here. What is done without being recorded looks like a broken promise to those who are.

use std::future::IntoFuture as _;

use starling_checker::Assertion::{AcknowledgedWriteLost, DeleteUndone, ReplicasDiffer, ShownTwice, StaleRead};
use starling_client::Client;
use starling_core::ids::RequestId;
use starling_tests::{Bucket, Cluster, Recorder, eventually, level, put_request};

struct Scene {
    cluster: Cluster,
    client: Client,
    recorder: Recorder,
    carts: Bucket,
}

/// A cluster whose cart of alice is recorded to have apples in it.
async fn a_recorded_cart() -> Scene {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let recorder = Recorder::default();
    let carts = recorder.session(&client).bucket("carts");
    carts.put("alice", "apples").w(level("all")).await.unwrap();
    Scene { cluster, client, recorder, carts }
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "acknowledged write lost: write #0 is not there in the end")]
async fn a_write_that_somebody_else_has_removed_is_lost() {
    let mut scene = a_recorded_cart().await;
    let carts = scene.client.bucket("carts").unwrap();
    carts.delete("alice").w(level("all")).await.unwrap();
    scene.recorder.judge(&mut scene.cluster, &[AcknowledgedWriteLost]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_a_session_has_removed_is_not_lost() {
    let mut scene = a_recorded_cart().await;
    let seen = scene.carts.get("alice").await.unwrap().context();
    scene.carts.delete("alice").context(seen).w(level("all")).await.unwrap();
    scene.recorder.judge(&mut scene.cluster, &[AcknowledgedWriteLost, DeleteUndone]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "which nobody wrote to this key")]
async fn a_value_that_no_session_wrote_is_noticed() {
    let mut scene = a_recorded_cart().await;
    let carts = scene.client.bucket("carts").unwrap();
    carts.put("alice", "pears").w(level("all")).await.unwrap();
    scene.recorder.judge_unread(&mut scene.cluster, &[AcknowledgedWriteLost]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "nothing was shown of [\"stale read\"]")]
async fn a_verdict_that_never_tested_what_the_test_is_about_is_a_failure() {
    let mut scene = a_recorded_cart().await;
    // A read that asks for no primaries is promised nothing.
    scene.carts.get("alice").await.unwrap();
    scene.recorder.judge_unread(&mut scene.cluster, &[AcknowledgedWriteLost, StaleRead]).await;
}

/// One operation of two attempts: as two, they would be an invalid history, for they write the same value.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_sent_again_is_one_operation_whoever_sends_it() {
    let mut scene = a_recorded_cart().await;
    let request = RequestId(7);
    scene.carts.put("bob", "beans").request(request).await.unwrap();
    let other = scene.recorder.session(&scene.client);
    other.put_at(&scene.cluster, 2, put_request("carts", "bob", "beans", request)).await.unwrap();
    let verdict = scene.recorder.judge(&mut scene.cluster, &[ShownTwice, ReplicasDiffer]).await;
    assert_eq!(verdict.counts.acknowledged, 2, "alice's and bob's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_given_up_is_recorded_as_unknown() {
    let mut scene = a_recorded_cart().await;
    [2, 3].into_iter().for_each(|index| scene.cluster.pause(index));
    let writing = tokio::spawn(scene.carts.put("alice", "pears").w(level("all")).into_future());
    let coordinator = 1;
    eventually("the only node that is awake has it", || async {
        let own = scene.cluster.own_copy(&scene.client, coordinator, "carts", "alice").await;
        let siblings = own.map_err(|error| error.to_string())?.siblings().len();
        if siblings == 2 { Ok(()) } else { Err(format!("{siblings} siblings")) }
    })
    .await;
    writing.abort();
    assert!(writing.await.unwrap_err().is_cancelled());
    [2, 3].into_iter().for_each(|index| scene.cluster.resume(index));
    let verdict = scene.recorder.judge(&mut scene.cluster, &[AcknowledgedWriteLost, ReplicasDiffer]).await;
    assert_eq!((verdict.counts.acknowledged, verdict.counts.unknown), (1, 1));
}
