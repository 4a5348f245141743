//! The ring moves by the commands that operators type.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use starling_client::Client;
use starling_tests::{Cluster, Ran, Starling, blocking, eventually, level, list, text};
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_staged_is_shown_and_forgotten_or_chosen() {
    let cluster = Cluster::start_some(3, 4).await;
    let starling = Starling::of(&cluster);
    let nothing = starling.error(1, &["cluster", "plan"]);
    assert!(text(&nothing["message"]).contains("nothing is staged on n1"), "{nothing}");
    let unknown = starling.error(1, &["cluster", "join", "n9"]);
    assert!(text(&unknown["message"]).contains("`n9`"), "{unknown}");

    let plan = starling.json(0, &["cluster", "join", "n4", "--weight", "2"]);
    assert_eq!((&plan["changes"][0], &plan["version"]), (&"n4 joins with weight 2".into(), &2.into()));
    let n4 = member(&plan, "n4");
    assert_eq!((&n4["change"], &n4["weight"], &n4["gives"]), (&"joins".into(), &2.into(), &0.into()));
    assert_eq!(plan["moves"], n4["gains"], "only what the joiner gains moves: {plan}");
    assert!(plan["bytes"].as_u64().unwrap() > 0, "{plan}");
    assert_eq!(starling.json(0, &["cluster", "plan"])["plan"], plan["plan"]);

    let elsewhere = starling.error(1, &["cluster", "plan", "--node", cluster.address(2)]);
    assert!(text(&elsewhere["message"]).contains("nothing is staged on n2"), "{elsewhere}");
    assert!(text(&elsewhere["hint"]).contains(cluster.address(1)), "it says where something is: {elsewhere}");
    let other = starling.error(1, &["cluster", "commit", "--plan", "0000000000000000"]);
    assert!(text(&other["message"]).contains("another plan"), "{other}");

    let forgotten = starling.json(0, &["cluster", "unstage"]);
    assert_eq!(forgotten["unstaged"][0], "n4 joins with weight 2");
    assert_eq!(starling.error(1, &["cluster", "commit"])["kind"], "refused");
    assert_eq!(starling.json(0, &["cluster", "history"])["entries"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_lets_nodes_join_be_replaced_weigh_more_and_leave() {
    let mut cluster = Cluster::start_some(3, 5).await;
    let starling = Starling::of(&cluster);
    for n in 0..50 {
        starling.json(0, &["put", "carts", &format!("k{n}"), "apples"]);
    }

    starling.json(0, &["cluster", "join", "n4"]);
    let committed = starling.json(0, &["cluster", "commit", "--wait"]);
    assert_eq!((&committed["version"], &committed["settled"]), (&2.into(), &true.into()));
    cluster.has_joined(4);
    let decrees: Vec<String> = history(&starling);
    assert_eq!(decrees, ["begin 1", "begin 2", "switch 2", "end 2"]);

    let alive = starling.error(1, &["cluster", "remove", "n2"]);
    assert!(text(&alive["message"]).contains("is alive"), "{alive}");
    cluster.kill(2);
    eventually("n2 is taken for dead", || async {
        let status = starling.json(0, &["cluster", "status"]);
        let n2 = list(&status["nodes"]).iter().find(|node| node["node"] == "n2").cloned().unwrap_or_default();
        if n2["alive"] == false { Ok(()) } else { Err(n2.to_string()) }
    })
    .await;
    let plan = starling.json(0, &["cluster", "replace", "n2", "n5"]);
    assert_eq!((&member(&plan, "n2")["change"], &member(&plan, "n5")["change"]), (&"removed".into(), &"joins".into()));
    assert!(list(&plan["warnings"]).iter().any(|warning| text(warning).contains("n2 is declared dead")), "{plan}");
    let committed = starling.json(0, &["cluster", "commit", "--wait", "--plan", text(&plan["plan"])]);
    assert_eq!(committed["version"], 3);
    cluster.has_joined(5);
    let moves = starling.json(0, &["cluster", "transfers"]);
    assert_eq!((&moves["phase"], &moves["read"]), (&"settled".into(), &3.into()));

    let plan = starling.json(0, &["cluster", "weight", "n1=3"]);
    assert!(member(&plan, "n1")["share"].as_f64() > member(&plan, "n1")["share_before"].as_f64(), "{plan}");
    starling.json(0, &["cluster", "commit", "--wait"]);

    starling.json(0, &["cluster", "leave", "n4"]);
    starling.json(0, &["cluster", "commit", "--wait"]);
    cluster.has_left(4);
    let status = starling.json(0, &["node", "info", cluster.address(4)]);
    assert_eq!((&status["nodes"][0]["state"], &status["nodes"][0]["hints"]), (&"left".into(), &0.into()));
    for n in 0..50 {
        assert_eq!(starling.run(&["get", "carts", &format!("k{n}"), "--raw"]).text(), "apples");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_commits_at_once_one_is_chosen_and_the_other_stays_staged() {
    let cluster = Cluster::start_some(3, 5).await;
    let starling = Starling::of(&cluster);
    let nodes = [cluster.address(1), cluster.address(2)];
    for (node, joiner) in nodes.iter().zip(["n4", "n5"]) {
        starling.json(0, &["cluster", "join", joiner, "--node", node]);
    }
    let commit = |node: &str| starling.run(&["cluster", "commit", "--node", node, "-o", "json"]);
    let ended: Vec<Ran> = blocking(|| {
        std::thread::scope(|scope| {
            let commits: Vec<_> = nodes.iter().map(|node| scope.spawn(move || commit(node))).collect();
            commits.into_iter().map(|commit| commit.join().unwrap()).collect()
        })
    });
    let refused: Vec<usize> = (0..2).filter(|index| ended[*index].code == Some(1)).collect();
    let told: Vec<&str> = ended.iter().map(|ran| ran.stderr.as_str()).collect();
    assert_eq!((refused.len(), ended[1 - refused[0]].code), (1, Some(0)), "{told:?}");
    let (loser, joiner) = (refused[0], ["n4", "n5"][refused[0]]);
    assert!(ended[loser].stderr.contains(&format!("still staged on n{}", loser + 1)), "{}", ended[loser].stderr);

    // Once the first is over, the second is possible again, as it stands.
    eventually("the first change is over, and every node knows", || async {
        let moves = starling.json(0, &["cluster", "transfers"]);
        let is_over = moves["phase"] == "settled" && list(&moves["nodes"]).is_empty();
        if is_over { Ok(()) } else { Err(moves.to_string()) }
    })
    .await;
    let plan = starling.json(0, &["cluster", "plan", "--node", nodes[loser]]);
    assert_eq!((&plan["changes"][0], &plan["version"]), (&format!("{joiner} joins").into(), &3.into()));
    let committed = starling.json(0, &["cluster", "commit", "--wait", "--node", nodes[loser]]);
    assert_eq!(committed["settled"], true);
    assert_eq!(history(&starling), ["begin 1", "begin 2", "switch 2", "end 2", "begin 3", "switch 3", "end 3"]);
}

fn history(starling: &Starling) -> Vec<String> {
    let history = starling.json(0, &["cluster", "history"]);
    list(&history["entries"]).iter().map(|entry| format!("{} {}", text(&entry["decree"]), entry["version"])).collect()
}

fn member(plan: &Value, name: &str) -> Value {
    let found = list(&plan["members"]).iter().find(|member| member["node"] == name);
    found.unwrap_or_else(|| panic!("{name} is in neither layout: {plan}")).clone()
}

/// Whoever stays a primary keeps its copies; the hash trees say the same on all of them afterwards.
/// Asked of nodes without a client, which would try again elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn listings_are_whole_while_the_ring_changes() {
    let mut cluster = Cluster::start_some(3, 5).await;
    let (starling, client) = (Starling::of(&cluster), cluster.client().await);
    let bucket = client.bucket("carts").unwrap();
    let keys: Vec<String> = (0..200).map(|n| format!("k{n:03}")).collect();
    for key in &keys {
        bucket.put(key.clone(), "apples").w(level("all")).await.unwrap();
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let mut listings = JoinSet::new();
    for index in 1..=3 {
        let (is_over, keys, node) = (Arc::clone(&is_over), keys.clone(), cluster.direct(index).await);
        listings.spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(node.keys("carts").await.unwrap(), keys);
                assert_eq!(node.buckets().await.unwrap(), ["carts".parse().unwrap()]);
            }
        });
    }
    for change in [&["join", "n4", "n5"][..], &["weight", "n1=3"], &["leave", "n5"]] {
        starling.json(0, &[&["cluster"], change].concat());
        starling.json(0, &["cluster", "commit", "--wait"]);
    }
    is_over.store(true, Ordering::Relaxed);
    listings.join_all().await;
    cluster.has_joined(4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_has_fewer_replicas_and_then_more_again() {
    let cluster = Cluster::start(4).await;
    let starling = Starling::of(&cluster);
    let client = cluster.client().await;
    let keys: Vec<String> = (0..60).map(|n| format!("k{n}")).collect();
    for key in &keys {
        starling.json(0, &["put", "carts", key, "apples", "--w", "all"]);
        starling.json(0, &["put", "drafts", key, "a draft", "--w", "all"]);
    }
    let shown = starling.json(0, &["bucket", "show", "carts"]);
    assert_eq!((&shown["replicas"], &shown["own_rules"]), (&3.into(), &false.into()));

    let plan = starling.json(0, &["bucket", "set", "carts", "--replicas", "1"]);
    assert_eq!(plan["changes"][0], "bucket carts has 1 replica and keeps siblings");
    starling.json(0, &["cluster", "commit", "--wait"]);
    let listed = starling.json(0, &["bucket", "list"]);
    assert_eq!((&listed["buckets"][0]["bucket"], &listed["buckets"][0]["replicas"]), (&"carts".into(), &1.into()));
    copies_become(&cluster, &client, "carts", &keys, 1).await;
    copies_become(&cluster, &client, "drafts", &keys, 3).await;
    trees_agree(&cluster, &starling).await;

    starling.json(0, &["bucket", "set", "carts", "--replicas", "cluster", "--siblings", "last-write-wins"]);
    starling.json(0, &["cluster", "commit", "--wait"]);
    let shown = starling.json(0, &["bucket", "show", "carts"]);
    assert_eq!((&shown["replicas"], &shown["siblings"]), (&3.into(), &"last-write-wins".into()));
    copies_become(&cluster, &client, "carts", &keys, 3).await;
    trees_agree(&cluster, &starling).await;
    let refused = starling.error(1, &["bucket", "set", "carts", "--replicas", "5"]);
    assert!(text(&refused["message"]).contains("carts"), "{refused}");
}

async fn copies_become(cluster: &Cluster, client: &Client, bucket: &str, keys: &[String], copies: usize) {
    for key in keys {
        eventually("a key has as many copies as its bucket asks for", || async {
            let mut held = 0;
            for index in 1..=cluster.size() {
                let own = cluster.own_copy(client, index, bucket, key).await.map_err(|error| error.to_string())?;
                held += usize::from(own.is_found());
            }
            if held == copies { Ok(()) } else { Err(format!("{bucket}/{key} has {held} copies")) }
        })
        .await;
    }
}

/// Each node's hash trees say what it holds, and no comparison has to look below the root of a partition.
async fn trees_agree(cluster: &Cluster, starling: &Starling) {
    for index in 1..=cluster.size() {
        cluster.verify(index).await;
    }
    let differing = || async {
        let mut differing = 0;
        for index in 1..=cluster.size() {
            differing += cluster.status(index).await?.counters["partitions_differing"];
        }
        Ok::<u64, String>(differing)
    };
    eventually("the hash trees say the same everywhere", || async {
        let before = differing().await?;
        let report = starling.json(0, &["repair", "--wait"]);
        assert_eq!((&report["complete"], &report["differences"]), (&true.into(), &0.into()), "{report}");
        let more = differing().await? - before;
        if more == 0 { Ok(()) } else { Err(format!("{more} partitions differ, in no key")) }
    })
    .await;
}
