//! Values that are to live for a while: shown until then and not after, by whichever node, and forgotten everywhere in the end
//! (R12), whoever is killed or down meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use starling_client::core::ids::RequestId;
use starling_client::core::layout::BucketRules;
use starling_client::core::object::{SiblingMode, Value};
use starling_client::core::wall::WallTime;
use starling_client::proto::data::{Put, RequestError};
use starling_tests::{Cluster, Starling, eventually, level, list, put_request, texts, usually};

const CARTS: &str = "carts";
/// Here the last write wins.
const SESSIONS: &str = "sessions";
/// What has expired is forgotten soon.
const FLAGS: [&str; 6] = ["--expiry-margin", "2s", "--reap-after", "3s", "--anti-entropy-interval", "1s"];
const TTL: Duration = Duration::from_secs(8);

async fn start(nodes: usize) -> Cluster {
    let cluster = Cluster::start_uninitialised_with(nodes, &FLAGS).await;
    let last_wins = BucketRules { mode: SiblingMode::LastWriteWins, ..BucketRules::default() };
    cluster.init(BTreeMap::from([(SESSIONS.parse().unwrap(), last_wins)])).await;
    cluster
}

fn now() -> WallTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    WallTime(0).after(since)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expires_is_shown_until_then_and_forgotten_by_all_though_nodes_are_killed() {
    let mut cluster = start(4).await;
    let client = cluster.client().await;
    let (starling, keys) = (Starling::of(&cluster), usually(40, 500));
    let mut untils = BTreeMap::new();
    for name in [CARTS, SESSIONS] {
        let bucket = client.bucket(name).unwrap();
        bucket.put("stays", "for good").w(level("all")).await.unwrap();
        for n in 0..keys {
            let before = now();
            bucket.put(format!("k{n}"), format!("{n}")).ttl(TTL).await.unwrap();
            let got = bucket.get(format!("k{n}")).r(level("quorum")).await.unwrap();
            let until = got.expires(0).expect("it is to expire");
            assert!(until >= before.after(TTL) && until <= now().after(TTL), "{until:?}");
            assert_eq!(texts(&got), [n.to_string()]);
            untils.insert((name, n), until);
        }
    }
    // What one of the replicas does not know of yet expires for it as well.
    cluster.kill(4);
    let carts = client.bucket(CARTS).unwrap();
    carts.put("short", "gone soon").ttl(Duration::from_millis(300)).await.unwrap();
    eventually("what has expired is not shown", || async {
        let got = carts.get("short").await.unwrap();
        if got.is_found() { Err(format!("{:?}", texts(&got))) } else { Ok(()) }
    })
    .await;
    assert!(!carts.keys().await.unwrap().keys.contains(&"short".into()), "nor listed");

    for ((name, n), until) in &untils {
        let bucket = &client.bucket(name).unwrap();
        eventually("each expires in its time", || async move {
            let before = now();
            let got = bucket.get(format!("k{n}")).r(level("quorum")).await.unwrap();
            let after = now();
            match got.is_found() {
                true => assert!(before < *until, "{name}/k{n} is shown at {before:?}, and expires at {until:?}"),
                false => assert!(after >= *until, "{name}/k{n} is gone at {after:?}, and expires at {until:?}"),
            }
            if got.is_found() { Err(format!("{name}/k{n} is still shown")) } else { Ok(()) }
        })
        .await;
    }
    // All of it is due, and nothing is forgotten while a member is away.
    eventually("all of it is due", || async {
        let told = starling.json(0, &["tombstones"]);
        if told["due"] == told["pending"] { Ok(()) } else { Err(told.to_string()) }
    })
    .await;
    eventually("a round waits for who is away", || async {
        let told = starling.json(0, &["tombstones"]);
        let waits = |round: &serde_json::Value| list(&round["waits_for"]).iter().any(|who| who["node"] == "n4");
        if list(&told["rounds"]).iter().any(waits) { Ok(()) } else { Err(told.to_string()) }
    })
    .await;
    for (name, n) in untils.keys() {
        let key = format!("k{n}");
        let left = client.bucket(name).unwrap().get(key.clone()).r(level("quorum")).await.unwrap();
        assert!(!left.clock().is_empty(), "{name}/{key} is forgotten, though n4 was not asked");
    }
    cluster.restart(4).await;
    cluster.kill(2);
    cluster.restart(2).await;
    for index in 1..=4 {
        for name in [CARTS, SESSIONS] {
            for n in (0..keys).map(|n| format!("k{n}")).chain(["short".to_owned()]) {
                let (cluster, client) = (&cluster, &client);
                eventually("what has expired is forgotten everywhere", || async {
                    let own = cluster.own_copy(client, index, name, &n).await.map_err(|error| error.to_string())?;
                    if own.clock().is_empty() { Ok(()) } else { Err(format!("n{index} holds {name}/{n}")) }
                })
                .await;
            }
        }
    }
    eventually("nothing is pending", || async {
        let told = starling.json(0, &["tombstones"]);
        if told["pending"] == 0 && list(&told["silent"]).is_empty() { Ok(()) } else { Err(told.to_string()) }
    })
    .await;
    for name in [CARTS, SESSIONS] {
        assert_eq!(texts(&client.bucket(name).unwrap().get("stays").r(level("all")).await.unwrap()), ["for good"]);
    }
    for index in 1..=4 {
        cluster.verify(index).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_has_expired_is_written_again_before_and_after_it_is_forgotten() {
    let cluster = start(3).await;
    let client = cluster.client().await;
    let carts = client.bucket(CARTS).unwrap();
    carts.put("alice", "old").ttl(Duration::from_millis(200)).await.unwrap();
    eventually("it expires", || async {
        let got = carts.get("alice").await.unwrap();
        if got.is_found() { Err("it is shown".to_owned()) } else { Ok(()) }
    })
    .await;
    let gone = carts.get("alice").await.unwrap();
    assert!(gone.is_deleted() && gone.context().is_some());
    carts.put("alice", "new").context(gone.context()).await.unwrap();
    assert_eq!(texts(&carts.get("alice").await.unwrap()), ["new"]);

    let bob = carts.put("bob", "old").ttl(Duration::from_millis(200)).await.unwrap();
    assert_eq!(bob.siblings(), 1);
    eventually("it is forgotten", || async {
        let got = carts.get("bob").r(level("all")).await.unwrap();
        if got.clock().is_empty() { Ok(()) } else { Err(got.clock().to_string()) }
    })
    .await;
    // With what was known of it before: that is forgotten, and does no harm.
    carts.put("bob", "new").context(bob.context()).await.unwrap();
    assert_eq!(texts(&carts.get("bob").r(level("all")).await.unwrap()), ["new"]);
    assert_eq!(texts(&carts.get("alice").r(level("all")).await.unwrap()), ["new"], "it has replaced what had expired");
}

/// Whose clock would it go by?
#[tokio::test(flavor = "multi_thread")]
async fn a_client_cannot_say_until_when() {
    let cluster = start(1).await;
    let value = Value::Expiring { bytes: "v".into(), until: now().after(TTL) };
    let put = Put { value, ..put_request(CARTS, "alice", "v", RequestId(1)) };
    let refused = cluster.direct(1).await.put(put).await.unwrap_err();
    assert!(matches!(refused, RequestError::Invalid(_)), "{refused}");
}
