//! Plain settings of buckets, as an operator changes them: on any node, heeded by all within seconds, and by those that were
//! down when they are back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use starling_client::ClientError;
use starling_tests::{Cluster, Starling, eventually, level, list, text, texts};
use tokio::task::JoinSet;

/// What each setting of a bucket is on a node, by its name.
fn shown(starling: &Starling, cluster: &Cluster, index: usize, bucket: &str) -> Value {
    let told = starling.json(0, &["bucket", "show", bucket, "--node", cluster.address(index)]);
    list(&told["settings"]).iter().map(|one| (text(&one["setting"]).to_owned(), one["value"].clone())).collect()
}

async fn everywhere(starling: &Starling, cluster: &Cluster, nodes: &[usize], expected: &Value) {
    for index in nodes {
        eventually("every node goes by it", || async {
            let told = shown(starling, cluster, *index, "carts");
            if told == *expected { Ok(()) } else { Err(format!("n{index}: {told}")) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_set_on_one_node_is_heeded_by_all_though_one_was_killed_meanwhile() {
    let mut cluster = Cluster::start(3).await;
    let (starling, client) = (Starling::of(&cluster), cluster.client().await);
    let carts = client.bucket("carts").unwrap();
    cluster.kill(3);
    let set = ["bucket", "set", "carts", "--r", "one", "--w", "one", "--ttl", "1s", "--max-siblings", "2"];
    let answer = starling.json(0, &[&set[..], &["--node", cluster.address(1)]].concat());
    assert!(list(&answer["settings"]).iter().all(|setting| setting["set_on"] == "n1"), "{answer}");
    let expected = json!({"r": "one", "w": "one", "ttl": "1000", "max_siblings": "2"});
    everywhere(&starling, &cluster, &[1, 2], &expected).await;
    // The node that took the change is gone, and the one that was down learns of it all the same.
    cluster.kill(1);
    cluster.restart(3).await;
    everywhere(&starling, &cluster, &[3], &expected).await;

    let put = |key: &'static str| carts.put(key, "apples");
    assert_eq!(put("alice").await.unwrap().quorum().replicas(), 1);
    assert_eq!(carts.get("alice").await.unwrap().quorum().map(|quorum| quorum.replicas()), Some(1));
    for _ in 0..2 {
        assert_eq!(put("crowd").w(level("2")).await.unwrap().quorum().replicas(), 2, "what is asked for counts");
    }
    match put("crowd").await {
        Err(ClientError::Invalid(reason)) => assert!(reason.contains("over the limit of 2"), "{reason}"),
        other => panic!("{other:?}"),
    }
    put("stays").for_good().await.unwrap();
    assert_eq!(carts.get("stays").r(level("quorum")).await.unwrap().expires(0), None);
    put("stays longer").ttl(Duration::from_secs(600)).await.unwrap();
    eventually("what is put without a time to live expires", || async {
        let got = carts.get("alice").r(level("quorum")).await.unwrap();
        if got.is_found() { Err(format!("{:?}", texts(&got))) } else { Ok(()) }
    })
    .await;
    let quorum = || level("quorum");
    assert_eq!(texts(&carts.get("stays").r(quorum()).await.unwrap()), ["apples"]);
    assert!(carts.get("stays longer").r(quorum()).await.unwrap().expires(0).is_some());

    starling.json(0, &["bucket", "set", "carts", "--ttl", "never", "--r", "default", "--node", cluster.address(3)]);
    cluster.restart(1).await;
    let expected = json!({"r": null, "w": "one", "ttl": null, "max_siblings": "2"});
    everywhere(&starling, &cluster, &[1, 2, 3], &expected).await;
    assert_eq!(carts.get("stays").await.unwrap().quorum().map(|quorum| quorum.replicas()), Some(2));
    put("bob").w(level("quorum")).await.unwrap();
    let bob = carts.get("bob").await.unwrap();
    assert_eq!((texts(&bob), bob.expires(0)), (vec!["apples".to_owned()], None));
}

/// A level is a number of copies, and the copies become fewer while requests are under way that did not say one.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_refused_for_a_level_that_is_set_though_copies_become_fewer_and_more() {
    let cluster = Cluster::start(4).await;
    let (starling, client) = (Starling::of(&cluster), cluster.client().await);
    starling.json(0, &["bucket", "set", "carts", "--r", "3", "--w", "3"]);
    for index in 1..=4 {
        everywhere(&starling, &cluster, &[index], &json!({"r": "3", "w": "3"})).await;
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let mut users = JoinSet::new();
    for user in 0..6 {
        let (carts, is_over) = (client.bucket("carts").unwrap(), Arc::clone(&is_over));
        users.spawn(async move {
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                let key = format!("k{user}/{}", count % 50);
                let read = carts.get(key.clone()).await.unwrap();
                carts.put(key, format!("{count}")).context(read.context()).await.unwrap();
                count += 1;
            }
            count
        });
    }
    for copies in ["2", "cluster", "1", "cluster"] {
        starling.json(0, &["bucket", "set", "carts", "--replicas", copies]);
        starling.json(0, &["cluster", "commit", "--wait"]);
    }
    is_over.store(true, Ordering::Relaxed);
    assert!(users.join_all().await.into_iter().all(|count| count > 0));
    let carts = client.bucket("carts").unwrap();
    assert_eq!(carts.put("alice", "apples").await.unwrap().quorum().replicas(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_changes_on_two_nodes_at_once_the_same_one_wins_everywhere() {
    let cluster = Cluster::start(3).await;
    let starling = Starling::of(&cluster);
    let on = |index: usize, r: &'static str| ["bucket", "set", "carts", "--r", r, "--node", cluster.address(index)];
    let (first, second) = (on(1, "one"), on(2, "all"));
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| starling.json(0, &first));
        let second = scope.spawn(|| starling.json(0, &second));
        (first.join().unwrap(), second.join().unwrap())
    });
    let version = |answer: &Value| text(&answer["settings"][0]["set_at"]).to_owned();
    assert_ne!(version(&first), "");
    let told = |index: usize| starling.json(0, &["bucket", "show", "carts", "--node", cluster.address(index)]);
    eventually("all say the same", || async {
        let all = [told(1), told(2), told(3)];
        if list(&all[0]["settings"]).len() == 1 && all.iter().all(|one| *one == all[0]) {
            return Ok(());
        }
        Err(format!("{all:?}"))
    })
    .await;
    let winner = told(3)["settings"][0].clone();
    let later = if version(&first) > version(&second) { &first } else { &second };
    if version(&first) != version(&second) {
        assert_eq!(winner, later["settings"][0], "the later one");
    }
    // Whoever has seen it is heeded.
    starling.json(0, &on(3, "2"));
    eventually("the one that had seen both wins", || async {
        let all = [told(1), told(2)].map(|told| told["settings"][0]["value"].clone());
        if all == ["2", "2"] { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_with_what_does() {
    let cluster = Cluster::start(3).await;
    let starling = Starling::of(&cluster);
    let refused = |args: &[&str]| {
        let error = starling.error(1, &[&["bucket", "set", "carts"][..], args].concat());
        text(&error["message"]).to_owned()
    };
    assert!(refused(&["--r", "9"]).contains("r=9 is no quorum"), "{}", refused(&["--r", "9"]));
    assert!(refused(&["--max-siblings", "0"]).contains("use 1 to 10000"));
    assert!(refused(&["--max-object-size", "1GiB"]).contains("use 1 to 4194304"));
    assert_eq!(shown(&starling, &cluster, 1, "carts"), json!({}));
}
