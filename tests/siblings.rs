//! Causality, seen from outside: concurrent writers make siblings, sequential ones do not.

use starling_tests::{Cluster, eventually, level, texts};

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_with_one_context_make_two_siblings_and_a_merge_leaves_one() {
    let cluster = Cluster::start(5).await;
    let client = cluster.client().await;
    let bucket = client.bucket("carts").unwrap();
    bucket.put("alice", "apples").w(level("all")).await.unwrap();
    let seen = bucket.get("alice").await.unwrap().context();

    bucket.put("alice", "apples, pears").context(seen.clone()).w(level("all")).await.unwrap();
    bucket.put("alice", "apples, plums").context(seen).w(level("all")).await.unwrap();
    let primaries = cluster.primaries(&client, "carts", "alice");
    let mut clocks = Vec::new();
    for primary in &primaries {
        let own = cluster.own_copy(&client, *primary, "carts", "alice").await.unwrap();
        assert_eq!(texts(&own), ["apples, pears", "apples, plums"], "on n{primary}");
        clocks.push(own.clock().clone());
    }
    assert!(clocks.windows(2).all(|pair| pair[0] == pair[1]), "all replicas have one clock");

    let both = bucket.get("alice").await.unwrap();
    bucket.put("alice", "apples, pears, plums").context(both.context()).w(level("all")).await.unwrap();
    for primary in &primaries {
        let own = cluster.own_copy(&client, *primary, "carts", "alice").await.unwrap();
        assert_eq!(texts(&own), ["apples, pears, plums"], "on n{primary}");
    }
}

/// A clock has one entry for each history that coordinated the key. Undisturbed, a client goes to the key's first
/// primary; at most each of the three primaries has begun one history.
const LONGEST_CLOCK: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_sequential_rewrites_leave_one_sibling_and_a_short_clock() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let bucket = client.bucket("counters").unwrap();
    for number in 1..=1000_u32 {
        let before = bucket.get("visits").await.unwrap();
        let count: u32 = texts(&before).first().map_or(0, |text| text.parse().unwrap());
        assert_eq!(count, number - 1, "each read sees the write before it");
        bucket.put("visits", number.to_string()).context(before.context()).await.unwrap();
    }
    eventually("all replicas hold the last write", || async {
        for index in 1..=3 {
            let own =
                cluster.own_copy(&client, index, "counters", "visits").await.map_err(|error| error.to_string())?;
            if texts(&own) != ["1000"] {
                return Err(format!("n{index} holds {:?}", texts(&own)));
            }
            assert!(own.clock().len() <= LONGEST_CLOCK, "the clock has {} entries", own.clock().len());
        }
        Ok(())
    })
    .await;
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
