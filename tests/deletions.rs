//! What is deleted stays deleted, and is forgotten everywhere in the end (R11): whoever was down, joins, leaves, or is
//! replaced meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use starling_checker::Assertion::{AcknowledgedWriteLost, DeleteUndone, ReplicasDiffer, StaleRead};
use starling_core::change::Change;
use starling_tests::{Bucket, Cluster, Recorder, Starling, eventually, level, list, text, usually};
use tokio::task::JoinSet;

const BUCKET: &str = "carts";
/// No hints are taken for whoever is down, replicas are compared often, and what is deleted is forgotten soon, but not as long
/// as clients may repeat a request.
const FLAGS: [&str; 6] = ["--max-hints-per-node", "1", "--reap-after", "6s", "--anti-entropy-interval", "1s"];

fn key(n: usize) -> String {
    format!("k{n}")
}

async fn put(bucket: &Bucket, what: &str, keys: usize) {
    for n in 0..keys {
        bucket.put(key(n), format!("{n} {what}")).w(level("all")).await.unwrap();
    }
}

async fn delete(bucket: &Bucket, keys: usize) {
    for n in 0..keys {
        let got = bucket.get(key(n)).pr(level("quorum")).await.unwrap();
        bucket.delete(key(n)).context(got.context()).pw(level("quorum")).await.unwrap();
    }
}

/// Puts, reads and deletes keys of its own for as long as a test goes on, each answer looked at by the checker.
struct Users {
    are_done: Arc<AtomicBool>,
    all: JoinSet<()>,
}

impl Users {
    fn begin(bucket: &Bucket) -> Users {
        let are_done = Arc::new(AtomicBool::new(false));
        let mut all = JoinSet::new();
        for number in 0..usually(4, 16) {
            let (bucket, are_done) = (bucket.clone(), Arc::clone(&are_done));
            all.spawn(async move {
                let mut round = 0;
                while !are_done.load(Ordering::Relaxed) {
                    round += 1;
                    let key = format!("u{number}.{}", round % 10);
                    let put = bucket.put(key.clone(), format!("round {round} of {number}"));
                    drop(put.pw(level("quorum")).await);
                    if let Ok(got) = bucket.get(key.clone()).pr(level("quorum")).await {
                        drop(bucket.delete(key.clone()).context(got.context()).pw(level("quorum")).await);
                    }
                    drop(bucket.get(key).pr(level("quorum")).await);
                }
            });
        }
        Users { are_done, all }
    }

    async fn end(self) {
        self.are_done.store(true, Ordering::Relaxed);
        self.all.join_all().await;
    }
}

/// Nobody holds anything of these keys.
async fn wait_forgotten(cluster: &Cluster, nodes: &[usize], keys: usize) {
    let client = &cluster.client().await;
    for index in nodes.iter().copied() {
        for n in 0..keys {
            eventually("a deletion is forgotten everywhere", || async move {
                let own = cluster.own_copy(client, index, BUCKET, &key(n)).await.map_err(|error| error.to_string())?;
                let is_left = own.is_found() || !own.clock().is_empty();
                if is_left { Err(format!("n{index} holds {} at {}", key(n), own.clock())) } else { Ok(()) }
            })
            .await;
        }
    }
}

async fn verify(cluster: &Cluster, nodes: &[usize]) {
    for index in nodes {
        cluster.verify(*index).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_while_a_replica_is_down_stays_deleted_and_is_forgotten_once_it_is_back() {
    let mut cluster = Cluster::start_uninitialised_with(4, &FLAGS).await;
    cluster.init([].into()).await;
    let (starling, client) = (Starling::of(&cluster), cluster.client().await);
    let recorder = Recorder::default();
    recorder.may_forget_deletes();
    let bucket = recorder.session(&client).bucket(BUCKET);
    let keys = usually(60, 1000);
    put(&bucket, "apples", keys).await;
    cluster.kill(4);
    let users = Users::begin(&bucket);
    delete(&bucket, keys).await;

    eventually("it is said who is waited for", || async {
        let told = starling.json(0, &["tombstones"]);
        let waits = |round: &serde_json::Value| list(&round["waits_for"]).iter().any(|who| who["node"] == "n4");
        if list(&told["rounds"]).iter().any(waits) { Ok(()) } else { Err(told.to_string()) }
    })
    .await;
    cluster.kill(1);
    cluster.restart(1).await;
    cluster.restart(4).await;
    users.end().await;
    wait_forgotten(&cluster, &[1, 2, 3, 4], keys).await;
    eventually("nothing is pending", || async {
        let told = starling.json(0, &["tombstones"]);
        if told["pending"] == 0 && list(&told["silent"]).is_empty() { Ok(()) } else { Err(told.to_string()) }
    })
    .await;
    recorder.judge(&mut cluster, &[StaleRead, DeleteUndone, ReplicasDiffer]).await;
    verify(&cluster, &[1, 2, 3, 4]).await;
}

/// The replica that was down knows the values still, and is a source of the copies that the joiner makes.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_stays_deleted_while_nodes_join_are_replaced_and_leave() {
    let mut cluster = Cluster::start_some_with(3, 5, &FLAGS).await;
    let (starling, client) = (Starling::of(&cluster), cluster.client().await);
    let recorder = Recorder::default();
    recorder.may_forget_deletes();
    let bucket = recorder.session(&client).bucket(BUCKET);
    let keys = usually(40, 500);
    put(&bucket, "apples", keys).await;
    cluster.kill(3);
    let users = Users::begin(&bucket);
    delete(&bucket, keys).await;
    let join = |index| Change::Join { name: Cluster::name(index), weight: 1 };
    let version = cluster.change(1, vec![join(4)]).await;
    cluster.restart(3).await;
    cluster.kill(4);
    cluster.launch(4);
    cluster.has_joined(4);
    cluster.wait_settled(1, version).await;
    wait_forgotten(&cluster, &[1, 2, 3, 4], keys).await;

    put(&bucket, "pears", keys).await;
    recorder.lost_disk(&cluster, &client, 3);
    cluster.kill(3);
    cluster.wipe(3);
    delete(&bucket, keys).await;
    cluster.has_left(3);
    cluster.wait_noticed_dead(3).await;
    let version = cluster.change(2, vec![Change::Remove(Cluster::name(3)), join(5)]).await;
    cluster.has_joined(5);
    cluster.wait_settled(2, version).await;
    wait_forgotten(&cluster, &[1, 2, 4, 5], keys).await;

    put(&bucket, "plums", keys).await;
    let version = cluster.change(5, vec![Change::Leave(Cluster::name(1))]).await;
    delete(&bucket, keys).await;
    cluster.wait_settled(5, version).await;
    cluster.has_left(1);
    wait_forgotten(&cluster, &[2, 4, 5], keys).await;
    users.end().await;
    let history = starling.json(0, &["cluster", "history"]);
    let last = list(&history["entries"]).last().cloned().unwrap_or_default();
    assert_eq!(text(&last["decree"]), "emptied", "{history}");
    recorder.judge(&mut cluster, &[AcknowledgedWriteLost, ReplicasDiffer]).await;
    verify(&cluster, &[2, 4, 5]).await;
}
