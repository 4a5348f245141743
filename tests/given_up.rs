//! A majority of the members is gone for good: those who are left go on without them, as another cluster, and lose nothing
//! that one of them has.

use std::collections::BTreeSet;

use starling_checker::Assertion::{AcknowledgedWriteLost, HintsLeft, ReplicasDiffer};
use starling_client::Client;
use starling_core::change::Change;
use starling_core::ids::ClusterId;
use starling_core::layout::LayoutVersion;
use starling_tests::{Bucket, Cluster, Recorder, Starling, eventually, level, list, text, texts, usually};

const LEFT: [usize; 2] = [1, 2];
const GONE: [usize; 3] = [3, 4, 5];

fn key(n: usize) -> String {
    format!("k{n:04}")
}

async fn cluster_of(cluster: &Cluster, index: usize) -> ClusterId {
    cluster.status(index).await.unwrap().cluster.unwrap()
}

async fn notice(cluster: &Cluster, seers: &[usize], seen: &[usize], alive: bool) {
    for (seer, seen) in seers.iter().flat_map(|seer| seen.iter().map(move |seen| (*seer, *seen))) {
        eventually("gossip notices", || async move {
            let is_alive = cluster.sees_alive(seer, seen).await?;
            if is_alive == alive { Ok(()) } else { Err(format!("n{seer} takes n{seen} for alive: {is_alive}")) }
        })
        .await;
    }
}

fn forcing<'a>(names: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [&["cluster", "force-remove"], names, more].concat()
}

/// Whether a primary of the key is left.
fn has_a_copy(cluster: &Cluster, client: &Client, key: &str) -> bool {
    cluster.primaries(client, "carts", key).iter().any(|index| LEFT.contains(index))
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_those_who_are_left_go_on_with_all_that_one_of_them_has() {
    let mut cluster = Cluster::start_some(5, 6).await;
    let (starling, client) = (Starling::of(&cluster), cluster.client().await);
    let carts = client.bucket("carts").unwrap();
    let keys: Vec<String> = (0..usually(300, 3000)).map(key).collect();
    for key in &keys {
        carts.put(key.clone(), "apples").w(level("all")).pw(level("all")).await.unwrap();
    }
    let read_before = carts.get(keys[0].clone()).await.unwrap();
    let kept: BTreeSet<&String> = keys.iter().filter(|key| has_a_copy(&cluster, &client, key)).collect();
    let before = cluster_of(&cluster, 1).await;
    for index in GONE {
        cluster.kill(index);
    }
    notice(&cluster, &LEFT, &GONE, false).await;

    // Nothing can be chosen, and data is served all the same.
    starling.json(0, &["cluster", "remove", "n3", "n4", "n5"]);
    let waits = starling.error(4, &["cluster", "commit"]);
    assert!(text(&waits["message"]).contains("3 of 5 members, and 2 answer; silent: n3, n4, n5"), "{waits}");
    starling.json(0, &["cluster", "unstage"]);
    carts.put("amid", "pears").await.unwrap();

    let some = starling.error(1, &forcing(&["n3", "n4"], &[]));
    assert!(text(&some["message"]).contains("all who are left have to agree, and n5 cannot be reached"), "{some}");
    let alive = starling.error(1, &forcing(&["n2", "n3", "n4", "n5"], &[]));
    assert!(text(&alive["message"]).contains("n2 may be alive"), "{alive}");
    let all = ["n3", "n4", "n5"];
    let shown = starling.run(&forcing(&all, &["-o", "json"]));
    assert_eq!(shown.code, Some(1), "{}", shown.stderr);
    assert!(shown.stderr.contains(&format!("force-remove n3 n4 n5 --cluster {before}")), "{}", shown.stderr);
    let lost = client.layout().partitions().all().filter(|partition| {
        let layout = client.layout();
        layout.primaries(*partition, layout.replicas()).all(|node| GONE.contains(&cluster.index_of(&client, node)))
    });
    let shown = shown.json();
    assert_eq!((&shown["lost_partitions"], &shown["gives_up"]), (&lost.count().into(), &all.as_slice().into()));
    let other = starling.error(1, &forcing(&all, &["--cluster", "00000000000000ff"]));
    assert!(text(&other["message"]).contains(&format!("this is cluster {before}")), "{other}");
    assert_eq!(list(&starling.json(0, &["cluster", "history"])["entries"]).len(), 1, "nothing was done so far");

    // One who has agreed is killed, whether it knows by then that all have or not.
    let done = starling.json(0, &forcing(&all, &["--cluster", &before.to_string()]));
    cluster.kill(2);
    assert_eq!((&done["version"], text(&done["cluster_before"])), (&2.into(), before.to_string().as_str()));
    let after: ClusterId = text(&done["cluster"]).parse().unwrap();
    assert_ne!(after, before);
    cluster.restart(2).await;
    for index in LEFT {
        cluster.wait_settled(index, LayoutVersion(2)).await;
        assert_eq!(cluster_of(&cluster, index).await, after);
    }
    assert_eq!(text(&starling.json(0, &["cluster", "status"])["cluster"]), after.to_string());

    // Both have everything that one of them had, and who began before goes on.
    let fresh = Client::connect(LEFT.map(|index| cluster.address(index))).await.unwrap();
    for key in &keys {
        let read = fresh.bucket("carts").unwrap().get(key.clone()).r(level("all")).await.unwrap();
        assert_eq!(read.is_found(), kept.contains(key), "{key}");
    }
    let written = carts.put(keys[0].clone(), "plums").context(read_before.context()).await.unwrap();
    assert_eq!(written.siblings(), 1, "what was read before can be replaced");
    assert_eq!(texts(&carts.get("amid").await.unwrap()), ["pears"]);
    for key in kept.iter().take(50) {
        // Some of whose connections have to be begun anew, since a node was killed.
        assert!(carts.get((*key).clone()).await.unwrap().is_found(), "{key}");
    }

    // Who comes back is refused, and says what to do.
    cluster.launch(3);
    let reason = cluster.wait_excluded(3).await;
    assert!(reason.contains("was removed") && reason.contains("empty data directory"), "{reason}");
    assert!(reason.contains(&after.to_string()), "{reason}");
    cluster.kill(3);

    // The ring changes again, by a majority of those who are left.
    starling.json(0, &["cluster", "join", "n6"]);
    assert_eq!(starling.json(0, &["cluster", "commit", "--wait"])["version"], 3);
    let history = starling.json(0, &["cluster", "history"]);
    let decrees: Vec<&str> = list(&history["entries"]).iter().map(|entry| text(&entry["decree"])).collect();
    assert_eq!(decrees, ["begin", "force", "switch", "end", "begin", "switch", "end"]);
    for index in [1, 2, 6] {
        cluster.verify(index).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_members_one_that_is_gone_for_good_can_be_given_up() {
    let mut cluster = Cluster::start(2).await;
    let (starling, client) = (Starling::of(&cluster), cluster.client().await);
    let carts = client.bucket("carts").unwrap();
    for n in 0..100 {
        carts.put(key(n), "apples").await.unwrap();
    }
    let needless = starling.error(1, &["cluster", "force-remove", "n2"]);
    assert!(text(&needless["message"]).contains("n2 may be alive"), "{needless}");
    cluster.kill(2);
    notice(&cluster, &[1], &[2], false).await;
    let id = cluster_of(&cluster, 1).await.to_string();
    let done = starling.json(0, &["cluster", "force-remove", "n2", "--cluster", &id, "--wait"]);
    assert_eq!(done["settled"], true);
    cluster.kill(1);
    cluster.restart(1).await;
    let alone = Client::connect([cluster.address(1)]).await.unwrap().bucket("carts").unwrap();
    for n in 0..100 {
        assert_eq!(texts(&alone.get(key(n)).await.unwrap()), ["apples"]);
        alone.put(key(n), "pears").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_majority_can_still_change_the_ring_by_itself_and_is_told_so() {
    let mut cluster = Cluster::start(3).await;
    let starling = Starling::of(&cluster);
    cluster.kill(3);
    notice(&cluster, &LEFT, &[3], false).await;
    let needless = starling.error(1, &["cluster", "force-remove", "n3"]);
    assert!(text(&needless["message"]).contains("`starling cluster remove`"), "{needless}");
}

async fn write(bucket: &Bucket, side: &str, count: usize) {
    for n in 0..count {
        bucket.put(format!("{side}{n}"), side.to_owned()).await.unwrap();
    }
}

async fn force(cluster: &Cluster, through: usize, names: &[&str]) -> LayoutVersion {
    let id = cluster_of(cluster, through).await.to_string();
    let node = ["--node", cluster.address(through), "--cluster", &id];
    let done = Starling::of(cluster).json(0, &forcing(names, &node));
    LayoutVersion(done["version"].as_u64().unwrap())
}

/// They were given up wrongly, and have chosen something by themselves before they heard of it.
#[tokio::test(flavor = "multi_thread")]
async fn those_given_up_who_went_on_by_themselves_are_another_cluster() {
    let mut cluster = Cluster::start_on_a_network(5).await;
    let recorder = Recorder::default();
    let before = cluster_of(&cluster, 1).await;
    let [here, there] = [cluster.client_of(&LEFT).await, cluster.client_of(&GONE).await];
    let some = usually(50, 500);
    cluster.cut(&LEFT);
    notice(&cluster, &LEFT, &GONE, false).await;
    notice(&cluster, &GONE, &LEFT, false).await;
    let (here, there) = (recorder.session(&here).bucket("carts"), there.bucket("carts").unwrap());
    write(&here, "here", some).await;
    let version = force(&cluster, 1, &["n3", "n4", "n5"]).await;
    for index in LEFT {
        cluster.wait_settled(index, version).await;
    }
    // Whose end waits for those who are cut off.
    let theirs = cluster.change(3, vec![Change::Weigh { name: Cluster::name(3), weight: 2 }]).await;
    for index in GONE {
        let cluster = &cluster;
        eventually("the layout is read", || async move {
            let read = cluster.status(index).await?.layout;
            if read >= Some(theirs) { Ok(()) } else { Err(format!("n{index} reads by {read:?}")) }
        })
        .await;
    }
    there.put("there", "theirs").await.unwrap();
    write(&here, "later", some).await;

    cluster.mend();
    notice(&cluster, &LEFT, &GONE, true).await;
    notice(&cluster, &GONE, &LEFT, true).await;
    // Each side finds the other, and does not take its word.
    eventually("somebody of the others has said that it cannot follow", || {
        let logs = GONE.map(|index| cluster.log_of(index)).concat();
        async move { logs.contains("continues another log").then_some(()).ok_or("not yet".to_owned()) }
    })
    .await;
    for (side, of) in [(&LEFT[..], &GONE[..]), (&GONE[..], &LEFT[..])] {
        for index in side {
            let status = cluster.status(*index).await.unwrap();
            assert_eq!(status.cluster == Some(before), side.len() == 3, "n{index}");
            let connected = status.connected.len();
            assert!(connected < side.len(), "n{index} is connected to {connected}, some of {of:?} among them");
        }
    }
    // A majority of what a key's primaries were there may be those who went another way.
    there.put("after", "theirs").w(level("one")).await.unwrap();
    assert!(there.get("later0").r(level("one")).await.unwrap().siblings().is_empty(), "it was never written there");
    for key in ["there", "after"] {
        assert_eq!(texts(&here.get(key).r(level("all")).await.unwrap()), Vec::<String>::new(), "{key}");
    }
    for index in GONE {
        cluster.kill(index);
        cluster.has_left(index);
    }
    recorder.judge(&mut cluster, &[AcknowledgedWriteLost, ReplicasDiffer, HintsLeft]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_given_up_who_come_back_have_to_stop() {
    let cluster = Cluster::start_on_a_network(3).await;
    cluster.cut(&[1]);
    notice(&cluster, &[1], &[2, 3], false).await;
    let version = force(&cluster, 1, &["n2", "n3"]).await;
    cluster.wait_settled(1, version).await;
    cluster.mend();
    for index in [2, 3] {
        let reason = cluster.wait_excluded(index).await;
        assert!(reason.contains("was removed"), "{reason}");
    }
    let alone = Client::connect([cluster.address(1)]).await.unwrap();
    alone.bucket("carts").unwrap().put("k", "v").await.unwrap();
}
