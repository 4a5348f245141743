//! Promise 2 and hinted handoff: writes go on without a primary, and come home to it.

use starling_checker::Assertion::{AcknowledgedWriteLost, HintsLeft, NotSuperseded, ReplicasDiffer, Resurrected};
use starling_client::{Client, ClientError};
use starling_core::report::{Outcome, Role};
use starling_tests::{Cluster, Recorder, level, texts, usually};

#[tokio::test(flavor = "multi_thread")]
async fn a_write_without_its_primary_leaves_a_hint_that_comes_home() {
    let mut cluster = Cluster::start(5).await;
    let client = cluster.client().await;
    let recorder = Recorder::default();
    let bucket = recorder.session(&client).bucket("carts");
    let primaries = cluster.primaries(&client, "carts", "alice");
    let victim = primaries[1];
    let victim_id = cluster.status(victim).await.unwrap().node;
    cluster.kill(victim);

    // All three copies are made durable, one of them on a fallback that stands in for the dead primary.
    let written = bucket.put("alice", "apples").w(level("all")).await.unwrap();
    let stood_in = |role| matches!(role, Role::Fallback { stands_in_for } if stands_in_for == victim_id);
    let fallback = written
        .replicas()
        .iter()
        .find(|replica| stood_in(replica.role) && replica.outcome == Outcome::Stored)
        .expect("a fallback has stood in");
    let fallback = cluster.index_of(&client, fallback.node);
    assert!(cluster.hints_at(fallback, victim_id).await > 0);
    assert_eq!(texts(&cluster.own_copy(&client, fallback, "carts", "alice").await.unwrap()), ["apples"]);

    // Who insists on all primaries is told who was missing.
    let refused = bucket.put("alice", "pears").context(written.context()).pw(level("all")).await.unwrap_err();
    let ClientError::WriteQuorumNotMet { replicas, acknowledged, .. } = refused else {
        panic!("expected a missed quorum, got {refused}");
    };
    let missing = replicas.iter().find(|replica| replica.node == victim_id).expect("the dead primary is reported");
    assert!(matches!(missing.outcome, Outcome::Failed(_)), "{missing:?}");
    assert_eq!(acknowledged.primaries, 2, "both that are there have it: {replicas:?}");

    cluster.restart(victim).await;
    // The fallback has handed its copy off, and holds nothing any more.
    recorder.judge_unread(&mut cluster, &[AcknowledgedWriteLost, ReplicasDiffer, HintsLeft]).await;
    assert_eq!(texts(&cluster.own_copy(&client, victim, "carts", "alice").await.unwrap()), ["pears"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fallback_that_coordinates_hands_off_and_coordinates_again_harms_nothing() {
    let mut cluster = Cluster::start(5).await;
    let client = cluster.client().await;
    let primaries = cluster.primaries(&client, "carts", "bob");
    let fallback = cluster.fallbacks(&client, "carts", "bob")[0];
    let recorder = Recorder::default();

    for round in 1..=usually(3, 60) {
        primaries.iter().for_each(|primary| cluster.kill(*primary));
        // No primary is left: the fallback itself coordinates, each time from nothing.
        let through_fallback = Client::connect([cluster.address(fallback)]).await.unwrap();
        let value = format!("round {round:02}");
        let bucket = recorder.session(&through_fallback).bucket("carts");
        let written = bucket.put("bob", value.clone()).w(level("1")).await.unwrap();
        assert_eq!(written.via(), cluster.address(fallback));
        assert_eq!(written.replicas()[0].node, cluster.id_of(&client, fallback), "the coordinator reports first");
        let copy = cluster.own_copy(&client, fallback, "carts", "bob").await.unwrap();
        assert_eq!(texts(&copy), [value], "it knows of no earlier round");
        for primary in &primaries {
            assert_eq!(cluster.hints_at(fallback, cluster.id_of(&client, *primary)).await, 1, "a hint for n{primary}");
        }
        for primary in &primaries {
            cluster.restart(*primary).await;
        }
        cluster.wait_hints_drained().await;
        let copy = cluster.own_copy(&client, fallback, "carts", "bob").await.unwrap();
        assert!(copy.clock().is_empty(), "the fallback's copy is gone after round {round}");
    }

    // Writes that knew nothing of each other: as many siblings, none of which took another's dot.
    let verdict = recorder.judge_unread(&mut cluster, &[AcknowledgedWriteLost, ReplicasDiffer, HintsLeft]).await;
    assert_eq!(verdict.counts.acknowledged, usually(3, 60), "all rounds were looked for");
    let bucket = recorder.session(&client).bucket("carts");
    let merged = bucket.get("bob").await.unwrap();
    bucket.put("bob", "resolved").context(merged.context()).w(level("all")).await.unwrap();
    recorder.judge_unread(&mut cluster, &[AcknowledgedWriteLost, NotSuperseded, Resurrected, ReplicasDiffer]).await;
}
