//! Causality, seen from outside: concurrent writers make siblings, sequential ones do not.

use starling_client::Client;
use starling_core::clock::Clock;
use starling_core::ids::RequestId;
use starling_proto::data::Put;
use starling_tests::{Cluster, eventually, level, put_request, texts, usually};

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_with_one_context_make_two_siblings_and_a_merge_leaves_one() {
    let cluster = Cluster::start(5).await;
    let client = cluster.client().await;
    let bucket = client.bucket("carts").unwrap();
    bucket.put("alice", "apples").w(level("all")).await.unwrap();
    let seen = bucket.get("alice").await.unwrap().context();

    // At the same moment, through two of its primaries.
    let primaries = cluster.primaries(&client, "carts", "alice");
    let (one, other) = (cluster.direct(primaries[0]).await, cluster.direct(primaries[1]).await);
    let write = |value: &str, request: u128| Put {
        context: seen.clone().map(|context| context.as_bytes().clone()),
        w: level("all"),
        ..put_request("carts", "alice", value, RequestId(request))
    };
    let (pears, plums) = tokio::join!(one.put(write("apples, pears", 1)), other.put(write("apples, plums", 2)));
    assert!(pears.is_ok() && plums.is_ok(), "{pears:?}, {plums:?}");
    check_every_replica(&cluster, &client, &["apples, pears", "apples, plums"]).await;

    let both = bucket.get("alice").await.unwrap();
    bucket.put("alice", "apples, pears, plums").context(both.context()).w(level("all")).await.unwrap();
    check_every_replica(&cluster, &client, &["apples, pears, plums"]).await;
}

/// All replicas hold these siblings, and one clock.
async fn check_every_replica(cluster: &Cluster, client: &Client, siblings: &[&str]) {
    let mut clocks: Vec<Clock> = Vec::new();
    for primary in cluster.primaries(client, "carts", "alice") {
        let own = cluster.own_copy(client, primary, "carts", "alice").await.unwrap();
        assert_eq!(texts(&own), siblings, "on n{primary}");
        clocks.push(own.clock().clone());
    }
    assert!(clocks.windows(2).all(|pair| pair[0] == pair[1]), "{clocks:?}");
}

/// Of the test below: as many histories as the key has primaries.
const LONGEST_CLOCK: usize = 3;

/// A clock has one entry for each history that coordinated the key, however often it did and for however many clients.
/// While all three nodes stay up, each of the three primaries begins at most one: the clock has at most three entries
/// after a thousand writes, as after ten.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_sequential_rewrites_leave_one_sibling_and_a_short_clock() {
    let rewrites = usually(1_000, 20_000);
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let bucket = client.bucket("counters").unwrap();
    let mut expected = Vec::new();
    for number in 1..=rewrites {
        let before = bucket.get("visits").await.unwrap();
        assert_eq!(texts(&before), expected, "each read sees the write before it, and nothing else");
        let value = number.to_string();
        bucket.put("visits", value.clone()).context(before.context()).await.unwrap();
        expected = vec![value];
    }
    let clock = eventually("all replicas hold the last write under one clock", || async {
        let mut clocks = Vec::new();
        for index in 1..=3 {
            let own = cluster.own_copy(&client, index, "counters", "visits").await;
            let own = own.map_err(|error| error.to_string())?;
            if texts(&own) != expected {
                return Err(format!("n{index} holds {:?}", texts(&own)));
            }
            clocks.push(own.clock().clone());
        }
        if clocks.windows(2).all(|pair| pair[0] == pair[1]) { Ok(clocks.remove(0)) } else { Err(format!("{clocks:?}")) }
    })
    .await;
    assert!(clock.len() <= LONGEST_CLOCK, "{clock:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_of_another_key_is_refused() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let bucket = client.bucket("carts").unwrap();
    bucket.put("alice", "apples").await.unwrap();
    bucket.put("bob", "beans").await.unwrap();
    let of_alice = bucket.get("alice").await.unwrap().context();
    let refused = bucket.put("bob", "nothing").context(of_alice).await.unwrap_err();
    assert!(matches!(refused, starling_client::ClientError::Invalid(_)), "{refused}");
    assert_eq!(texts(&bucket.get("bob").await.unwrap()), ["beans"]);
}
