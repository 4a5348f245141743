//! The README's table "What is promised", row by row: in a healthy cluster, with a primary down, and cut off from all
//! primaries of a key. Where the table promises nothing there is nothing to show.

use std::collections::BTreeMap;

use starling_checker::Assertion::{
    AcknowledgedWriteLost, ContextWentBackwards, ReplicasDiffer, Resurrected, SeveralWinners, StaleRead,
};
use starling_client::{Client, ClientError};
use starling_core::layout::BucketRules;
use starling_core::object::SiblingMode;
use starling_core::quorum::ReplicaCount;
use starling_tests::{Bucket, Cluster, Recorder, eventually, level, texts, usually};

const KEY: &str = "alice";

/// The columns of the table.
#[derive(Debug, Clone, Copy)]
enum Column {
    Healthy,
    NodeDown,
    CutOff,
}

const COLUMNS: [Column; 3] = [Column::Healthy, Column::NodeDown, Column::CutOff];

/// A cell of a write's row.
#[derive(Debug, Clone, Copy)]
enum Promise {
    /// On so many disks, so many of them primaries'.
    Durable {
        disks: usize,
        primaries: usize,
    },
    Refused,
}

const fn on_disks(disks: usize) -> Promise {
    Promise::Durable { disks, primaries: 0 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_cannot_be_met_says_who_is_there() {
    let mut cluster = Cluster::start(3).await;
    let bucket = cluster.client().await.bucket("carts").unwrap();
    bucket.put(KEY, "apples").w(level("all")).await.unwrap();
    cluster.kill(2);
    cluster.kill(3);
    match bucket.get(KEY).r(level("2")).await.unwrap_err() {
        ClientError::ReadQuorumNotMet { counted, .. } => assert_eq!(counted.primaries, 1),
        other => panic!("expected a missed read quorum, got {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn w_quorum_is_durable_on_two_disks_whoever_can_be_reached() {
    check_writes("quorum", "default", [on_disks(2), on_disks(2), on_disks(2)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w_1_is_durable_on_one_disk_whoever_can_be_reached() {
    check_writes("1", "default", [on_disks(1), on_disks(1), on_disks(1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w_all_is_durable_on_three_disks_fallbacks_counted() {
    check_writes("all", "default", [on_disks(3), on_disks(3), on_disks(3)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pw_quorum_is_durable_on_two_primaries_or_refused() {
    let on_primaries = Promise::Durable { disks: 2, primaries: 2 };
    check_writes("default", "quorum", [on_primaries, on_primaries, Promise::Refused]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w_all_is_refused_where_no_third_node_can_be_reached() {
    let mut cluster = Cluster::start(3).await;
    let bucket = cluster.client().await.bucket("carts").unwrap();
    cluster.kill(2);
    match bucket.put(KEY, "apples").w(level("all")).await.unwrap_err() {
        ClientError::WriteQuorumNotMet { acknowledged, .. } => assert_eq!(acknowledged.primaries, 2),
        other => panic!("expected a missed quorum, got {other}"),
    }
}

/// A key whose cluster gets worse from column to column. Six nodes: three are left when its three primaries are gone.
struct Scene {
    cluster: Cluster,
    client: Client,
    recorder: Recorder,
    primaries: Vec<usize>,
    down: Vec<usize>,
}

impl Scene {
    async fn set() -> Scene {
        let cluster = Cluster::start(6).await;
        let client = cluster.client().await;
        let primaries = cluster.primaries(&client, "carts", KEY);
        Scene { cluster, client, recorder: Recorder::default(), primaries, down: Vec::new() }
    }

    fn bucket(&self) -> Bucket {
        self.recorder.session(&self.client).bucket("carts")
    }

    fn enter(&mut self, column: Column) {
        let down = match column {
            Column::Healthy => 0,
            Column::NodeDown => 1,
            Column::CutOff => 3,
        };
        for primary in &self.primaries[self.down.len()..down] {
            self.cluster.kill(*primary);
            self.down.push(*primary);
        }
    }

    /// The nodes that hold a value on their own disk.
    async fn holders(&self, value: &str) -> Vec<usize> {
        let mut holders = Vec::new();
        for index in (1..=self.cluster.size()).filter(|index| !self.down.contains(index)) {
            let own = self.cluster.own_copy(&self.client, index, "carts", KEY).await.unwrap();
            if texts(&own).iter().any(|held| held == value) {
                holders.push(index);
            }
        }
        holders
    }
}

/// Holds one row of the table to its word.
async fn check_writes(w: &str, pw: &str, row: [Promise; 3]) {
    let mut scene = Scene::set().await;
    for (column, promise) in COLUMNS.into_iter().zip(row) {
        scene.enter(column);
        let value = format!("{column:?}");
        let written = scene.bucket().put(KEY, value.clone()).w(level(w)).pw(level(pw)).await;
        match (promise, written) {
            (Promise::Durable { disks, primaries }, Ok(_)) => {
                let holders = scene.holders(&value).await;
                let on_primaries = holders.iter().filter(|holder| scene.primaries.contains(holder)).count();
                assert!(holders.len() >= disks && on_primaries >= primaries, "{column:?}: only on {holders:?}");
                wait_for_every_copy(&scene, &value).await;
            }
            (Promise::Refused, Err(ClientError::WriteQuorumNotMet { .. })) => {}
            (promise, written) => panic!("{column:?}: {promise:?} was promised, and there was {written:?}"),
        }
    }
    // Fallbacks hand over to those they stood in for.
    let verdict = scene.recorder.judge_unread(&mut scene.cluster, &[AcknowledgedWriteLost, ReplicasDiffer]).await;
    let durable = row.iter().filter(|promise| matches!(promise, Promise::Durable { .. })).count();
    assert_eq!(verdict.counts.acknowledged, durable as u64);
}

/// Past the acknowledgement, the third copy or its hint is still on its way.
async fn wait_for_every_copy(scene: &Scene, value: &str) {
    eventually("three nodes hold the write", || async {
        let holders = scene.holders(value).await;
        if holders.len() >= 3 { Ok(()) } else { Err(format!("only {holders:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r_quorum_sees_the_latest_write_of_w_quorum_in_a_healthy_cluster() {
    let mut cluster = Cluster::start(5).await;
    let recorder = Recorder::default();
    let [writer, reader] =
        [cluster.client().await, cluster.client().await].map(|client| recorder.session(&client).bucket("carts"));
    let mut context = None;
    for number in 0..usually(200, 10_000) {
        let value = number.to_string();
        context = writer.put(KEY, value.clone()).context(context).w(level("quorum")).await.unwrap().context();
        assert_eq!(texts(&reader.get(KEY).r(level("quorum")).await.unwrap()), [value]);
    }
    recorder.judge(&mut cluster, &[AcknowledgedWriteLost, Resurrected, ReplicasDiffer]).await;
}

/// The node that was down for the write is up for the read, and one that has the write is down then: the quorums of
/// primaries still overlap.
#[tokio::test(flavor = "multi_thread")]
async fn r_and_pr_quorum_see_the_latest_write_of_pw_quorum_or_are_refused() {
    let mut scene = Scene::set().await;
    let quorum = || level("quorum");
    let [first, second, third] = scene.primaries[..] else { panic!("a key has three primaries") };
    let bucket = scene.bucket();
    let mut context = bucket.put(KEY, "healthy").pw(quorum()).await.unwrap().context();
    bucket.get(KEY).r(quorum()).pr(quorum()).await.unwrap();

    for (absent_writing, absent_reading) in [(first, second), (second, third), (third, first)] {
        let value = format!("without n{absent_writing}");
        scene.cluster.kill(absent_writing);
        context = bucket.put(KEY, value).context(context).pw(quorum()).await.unwrap().context();
        scene.cluster.restart(absent_writing).await;
        scene.cluster.kill(absent_reading);
        bucket.get(KEY).r(quorum()).pr(quorum()).await.unwrap();
        scene.cluster.restart(absent_reading).await;
    }

    scene.enter(Column::CutOff);
    let refused = bucket.get(KEY).r(quorum()).pr(quorum()).await.unwrap_err();
    assert!(matches!(refused, ClientError::ReadQuorumNotMet { .. }), "{refused}");
    // Each read showed the write before it, and nothing that it replaced.
    let about = [StaleRead, AcknowledgedWriteLost, Resurrected];
    let verdict = scene.recorder.judge(&mut scene.cluster, &about).await;
    assert_eq!(verdict.of(StaleRead).times, 4, "{verdict}");
}

/// Three nodes, so that nobody hands anything over, and they do not compare what they hold: one that missed a write stays behind, and alone may say so.
#[tokio::test(flavor = "multi_thread")]
async fn r_1_is_answered_by_one_replica_which_may_be_behind() {
    let mut cluster = Cluster::start_without_anti_entropy(3).await;
    let recorder = Recorder::default();
    let bucket = recorder.session(&cluster.client().await).bucket("carts");
    let context = bucket.put(KEY, "old").w(level("all")).await.unwrap().context();
    cluster.kill(3);
    bucket.put(KEY, "new").context(context).w(level("2")).await.unwrap();
    assert!(bucket.get(KEY).r(level("1")).await.unwrap().is_found(), "with a node down");
    cluster.kill(1);
    cluster.kill(2);
    cluster.restart(3).await;
    assert_eq!(texts(&bucket.get(KEY).r(level("1")).await.unwrap()), ["old"]);
    let refused = bucket.get(KEY).r(level("quorum")).await.unwrap_err();
    assert!(matches!(refused, ClientError::ReadQuorumNotMet { .. }), "{refused}");
    recorder.judge(&mut cluster, &[AcknowledgedWriteLost, Resurrected, ReplicasDiffer]).await;
}

/// The write is on one disk only. Once a read has shown it, it is shown without that disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_waited_for_its_repair_is_not_gone_back_behind_with_another_node_down() {
    let mut cluster = Cluster::start_without_anti_entropy(3).await;
    let recorder = Recorder::default();
    let bucket = recorder.session(&cluster.client().await).bucket("carts");
    let context = bucket.put(KEY, "old").w(level("all")).await.unwrap().context();
    cluster.kill(2);
    cluster.kill(3);
    bucket.put(KEY, "new").context(context).w(level("1")).await.unwrap();
    cluster.restart(2).await;
    // Nobody could stand in for a primary here: a quorum is one of primaries.
    let quorum = || bucket.get(KEY).r(level("quorum")).pr(level("quorum"));
    let shown = quorum().wait_for_repair(true).await.unwrap();
    assert_eq!(texts(&shown), ["new"]);
    cluster.kill(1);
    cluster.restart(3).await;
    assert_eq!(texts(&quorum().await.unwrap()), ["new"]);
    recorder.judge(&mut cluster, &[ContextWentBackwards, AcknowledgedWriteLost, Resurrected]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_waited_for_its_repair_is_not_gone_back_behind_when_cut_off() {
    let mut scene = Scene::set().await;
    scene.enter(Column::CutOff);
    let bucket = scene.bucket();
    bucket.put(KEY, "new").w(level("1")).await.unwrap();
    wait_for_every_copy(&scene, "new").await;
    let shown = bucket.get(KEY).r(level("quorum")).wait_for_repair(true).await.unwrap();
    assert_eq!(texts(&shown), ["new"]);
    let fallback = scene.cluster.fallbacks(&scene.client, "carts", KEY)[0];
    scene.cluster.kill(fallback);
    assert_eq!(texts(&bucket.get(KEY).r(level("quorum")).await.unwrap()), ["new"]);
    scene.recorder.judge_unread(&mut scene.cluster, &[AcknowledgedWriteLost, ReplicasDiffer]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_may_keep_the_last_write_only_or_fewer_replicas() {
    let rules = |replicas: Option<u8>, mode| BucketRules {
        replicas: replicas.map(|replicas| ReplicaCount::try_from(replicas).unwrap()),
        mode,
    };
    let sessions = ("sessions".parse().unwrap(), rules(None, SiblingMode::LastWriteWins));
    let drafts = ("drafts".parse().unwrap(), rules(Some(2), SiblingMode::Keep));
    let mut cluster = Cluster::start_with(3, BTreeMap::from([sessions, drafts])).await;
    check_last_write_wins(&mut cluster).await;
    check_two_replicas(&mut cluster).await;
}

/// Two nodes take a write each while the other is down: concurrent, and the later one is shown by all.
async fn check_last_write_wins(cluster: &mut Cluster) {
    let client = cluster.client().await;
    let recorder = Recorder::default();
    let sessions = recorder.session(&client).bucket("sessions");
    let [first, second, third] = cluster.primaries(&client, "sessions", KEY)[..] else { panic!("three primaries") };
    cluster.kill(second);
    cluster.kill(third);
    sessions.put(KEY, "earlier").w(level("1")).await.unwrap();
    cluster.kill(first);
    cluster.restart(second).await;
    sessions.put(KEY, "later").w(level("1")).await.unwrap();
    cluster.restart(first).await;
    cluster.restart(third).await;

    let read = sessions.get(KEY).r(level("all")).wait_for_repair(true).await.unwrap();
    assert_eq!(read.clock().len(), 2, "neither had seen the other");
    assert_eq!(texts(&read), ["later"]);
    recorder.judge_unread(cluster, &[SeveralWinners, ReplicasDiffer, AcknowledgedWriteLost]).await;
}

async fn check_two_replicas(cluster: &mut Cluster) {
    let client = cluster.client().await;
    let recorder = Recorder::default();
    let drafts = recorder.session(&client).bucket("drafts");
    let written = drafts.put(KEY, "a draft").w(level("all")).await.unwrap();
    assert_eq!(written.acknowledged().primaries, 2, "all are two");
    assert_eq!(cluster.primaries(&client, "drafts", KEY).len(), 2);
    let refused = drafts.put(KEY, "another").w(level("3")).await.unwrap_err();
    assert!(matches!(refused, ClientError::Invalid(_)), "{refused}");
    // Both hold it, and the third node nothing.
    recorder.judge_unread(cluster, &[AcknowledgedWriteLost, ReplicasDiffer]).await;
}
