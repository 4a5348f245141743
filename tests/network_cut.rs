//! A network that is cut in two: data can be written and read back on both sides, the ring changes on one of them at the most,
//! and once the network is whole so is the cluster.

use std::time::Duration;

use starling_checker::Assertion::{AcknowledgedWriteLost, HintsLeft, ReplicasDiffer};
use starling_client::{ClientError, ControlClient};
use starling_core::change::Change;
use starling_proto::control::{Committed, Plan};
use starling_tests::{Bucket, Cluster, Recorder, eventually, level, texts, usually};

const MINORITY: [usize; 2] = [1, 2];
const MAJORITY: [usize; 3] = [3, 4, 5];
/// For one call.
const CALL: Duration = Duration::from_secs(5);
/// For a commit, which asks for 10 s.
const COMMIT: Duration = Duration::from_secs(20);

fn weigh(index: usize) -> Vec<Change> {
    vec![Change::Weigh { name: Cluster::name(index), weight: 2 }]
}

async fn control(cluster: &Cluster, index: usize) -> ControlClient {
    ControlClient::connect(cluster.address(index)).await.unwrap()
}

async fn staged(cluster: &Cluster, index: usize) -> Option<Plan> {
    control(cluster, index).await.plan(CALL).await.unwrap()
}

/// Writes as many keys, and reads each back: from any node of that side that holds it. While the ring changes there may be no
/// quorum of those whose word counts.
async fn write_and_read(bucket: &Bucket, side: &str, count: usize) {
    for n in 0..count {
        let (key, value) = (format!("{side}{n}"), format!("of {side}, {n}"));
        bucket.put(key.clone(), value.clone()).await.unwrap();
        eventually("what was written can be read", || async {
            let read = bucket.get(key.clone()).r(level("one")).await.map_err(|error| error.to_string())?;
            if texts(&read) == [value.clone()] { Ok(()) } else { Err(format!("{:?}", texts(&read))) }
        })
        .await;
    }
}

async fn sees(cluster: &Cluster, side: &[usize], others: &[usize], alive: bool) {
    for (seer, seen) in side.iter().flat_map(|seer| others.iter().map(move |seen| (*seer, *seen))) {
        eventually("gossip notices", || async move {
            let is_alive = cluster.sees_alive(seer, seen).await?;
            if is_alive == alive { Ok(()) } else { Err(format!("n{seer} takes n{seen} for alive: {is_alive}")) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_stays_available_on_both_sides_of_a_cut_and_the_ring_changes_on_one() {
    let mut cluster = Cluster::start_on_a_network(5).await;
    let recorder = Recorder::default();
    let [here, there] = [cluster.client_of(&MINORITY).await, cluster.client_of(&MAJORITY).await];
    let [here, there] = [&here, &there].map(|client| recorder.session(client).bucket("carts"));
    let some = usually(100, 1000);
    write_and_read(&here, "before", some).await;
    cluster.cut(&MINORITY);
    // Not even the first writes after it fail.
    tokio::join!(write_and_read(&here, "here", some), write_and_read(&there, "there", some));
    sees(&cluster, &MINORITY, &MAJORITY, false).await;
    sees(&cluster, &MAJORITY, &MINORITY, false).await;

    // The minority's change waits, and says for whom; the majority's is chosen.
    let few = control(&cluster, 1).await;
    let plan = few.stage(weigh(1), CALL).await.unwrap();
    match few.commit(plan.after.checksum(), COMMIT).await {
        Err(ClientError::Incomplete(reason)) => {
            assert!(reason.contains("not chosen yet") && reason.contains("3 of 5"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let many = control(&cluster, 4).await;
    let chosen = many.stage(weigh(4), CALL).await.unwrap();
    let committed = many.commit(chosen.after.checksum(), COMMIT).await.unwrap();
    assert_eq!(committed, Committed::Chosen(chosen.after.version()));
    let (amid, among) = (write_and_read(&here, "amid", some), write_and_read(&there, "among", some));
    tokio::join!(amid, among);
    cluster.kill(5);
    write_and_read(&there, "while two are left", some).await;
    cluster.launch(5);
    cluster.has_joined(5);

    cluster.mend();
    for index in MINORITY.into_iter().chain(MAJORITY) {
        cluster.wait_settled(index, chosen.after.version()).await;
    }
    // What was staged is still there, and comes to another plan by now.
    let again = staged(&cluster, 1).await.expect("it is still staged");
    assert_eq!((again.changes, again.after.version().0), (weigh(1), chosen.after.version().0 + 1));
    let stale = few.commit(plan.after.checksum(), COMMIT).await;
    assert!(matches!(&stale, Err(ClientError::Invalid(reason)) if reason.contains("another plan")), "{stale:?}");
    let committed = few.commit(again.after.checksum(), COMMIT).await.unwrap();
    assert_eq!(committed, Committed::Chosen(again.after.version()));
    for index in MINORITY.into_iter().chain(MAJORITY) {
        cluster.wait_settled(index, again.after.version()).await;
    }
    recorder.judge(&mut cluster, &[AcknowledgedWriteLost, ReplicasDiffer, HintsLeft]).await;
    for index in MINORITY.into_iter().chain(MAJORITY) {
        cluster.verify(index).await;
    }
}
