//! Causality, seen from outside: concurrent writers make siblings, sequential ones do not.

use starling_checker::Assertion::{
    AcknowledgedWriteLost, FailedWriteVisible, NotSuperseded, ReplicasDiffer, Resurrected,
};
use starling_core::ids::RequestId;
use starling_proto::data::Put;
use starling_tests::{Cluster, Recorder, level, put_request, texts, usually};

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_with_one_context_make_two_siblings_and_a_merge_leaves_one() {
    let mut cluster = Cluster::start(5).await;
    let client = cluster.client().await;
    let recorder = Recorder::default();
    let session = recorder.session(&client);
    let bucket = session.bucket("carts");
    bucket.put("alice", "apples").w(level("all")).await.unwrap();
    let seen = bucket.get("alice").await.unwrap().context();

    // At the same moment, through two of its primaries.
    let primaries = cluster.primaries(&client, "carts", "alice");
    let other_session = recorder.session(&client);
    let write = |value: &str, request: u128| Put {
        context: seen.clone().map(|context| context.as_bytes().clone()),
        w: level("all"),
        ..put_request("carts", "alice", value, RequestId(request))
    };
    let (pears, plums) = tokio::join!(
        session.put_at(&cluster, primaries[0], write("apples, pears", 1)),
        other_session.put_at(&cluster, primaries[1], write("apples, plums", 2))
    );
    assert!(pears.is_ok() && plums.is_ok(), "{pears:?}, {plums:?}");
    // Neither had seen the other, so neither may be gone; both had seen the apples.
    let about = [AcknowledgedWriteLost, NotSuperseded, Resurrected, ReplicasDiffer];
    recorder.judge_unread(&mut cluster, &about).await;

    let both = bucket.get("alice").await.unwrap();
    assert_eq!(texts(&both), ["apples, pears", "apples, plums"]);
    bucket.put("alice", "apples, pears, plums").context(both.context()).w(level("all")).await.unwrap();
    recorder.judge_unread(&mut cluster, &about).await;
    assert_eq!(texts(&bucket.get("alice").await.unwrap()), ["apples, pears, plums"]);
}

/// Of the test below: as many histories as the key has primaries.
const LONGEST_CLOCK: usize = 3;

/// A clock has one entry for each history that coordinated the key, however often it did and for however many clients.
/// While all three nodes stay up, each of the three primaries begins at most one: the clock has at most three entries
/// after a thousand writes, as after ten.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_sequential_rewrites_leave_one_sibling_and_a_short_clock() {
    let rewrites = usually(1_000, 20_000);
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let recorder = Recorder::default();
    let bucket = recorder.session(&client).bucket("counters");
    let mut expected = Vec::new();
    for number in 1..=rewrites {
        let before = bucket.get("visits").await.unwrap();
        assert_eq!(texts(&before), expected, "each read sees the write before it, and nothing else");
        let value = number.to_string();
        bucket.put("visits", value.clone()).context(before.context()).await.unwrap();
        expected = vec![value];
    }
    // No read has to help the last write to its third replica.
    recorder.judge_unread(&mut cluster, &[AcknowledgedWriteLost, Resurrected, ReplicasDiffer]).await;
    let own = cluster.own_copy(&client, 1, "counters", "visits").await.unwrap();
    assert_eq!(texts(&own), expected);
    assert!(own.clock().len() <= LONGEST_CLOCK, "{:?}", own.clock());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_of_another_key_is_refused() {
    let mut cluster = Cluster::start(3).await;
    let recorder = Recorder::default();
    let bucket = recorder.session(&cluster.client().await).bucket("carts");
    bucket.put("alice", "apples").await.unwrap();
    bucket.put("bob", "beans").await.unwrap();
    let of_alice = bucket.get("alice").await.unwrap().context();
    let refused = bucket.put("bob", "nothing").context(of_alice).await.unwrap_err();
    assert!(matches!(refused, starling_client::ClientError::Invalid(_)), "{refused}");
    recorder.judge(&mut cluster, &[AcknowledgedWriteLost, FailedWriteVisible]).await;
}
