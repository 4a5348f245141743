//! `cluster init`: chosen once, whoever says it, and finished by saying it again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use starling_core::ids::ClusterId;
use starling_core::layout::{BucketRules, FirstLayout, Layout, Member};
use starling_core::quorum::ReplicaCount;
use starling_core::token::PartitionCount;
use starling_proto::call_within;
use starling_proto::connection::{client_limits, client_transport};
use starling_proto::control::ControlServiceClient;
use starling_proto::hello::{Class, Hello};
use starling_proto::network::{Tcp, dial};
use starling_tests::{Cluster, usually};

const CALL: Duration = Duration::from_secs(5);

/// The cluster that each of the nodes belongs to.
async fn clusters(cluster: &Cluster) -> Vec<Option<ClusterId>> {
    let mut found = Vec::new();
    for index in 1..=cluster.size() {
        found.push(cluster.status(index).await.unwrap().cluster);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_inits_at_once_at_most_one_makes_a_cluster_and_no_node_is_left_between_two() {
    for _ in 0..usually(3, 30) {
        let cluster = Cluster::start_uninitialised(3).await;
        let (one, other) =
            tokio::join!(cluster.init_through(1, BTreeMap::new()), cluster.init_through(2, BTreeMap::new()));
        let made: BTreeSet<ClusterId> = [&one, &other].into_iter().flatten().map(|layout| layout.cluster()).collect();
        assert!(made.len() <= 1, "two clusters were made: {made:?}");
        let belongs: BTreeSet<ClusterId> = clusters(&cluster).await.into_iter().flatten().collect();
        assert!(belongs.len() <= 1, "the nodes belong to {belongs:?}; inits said {one:?} and {other:?}");
        assert!(belongs.is_superset(&made), "{made:?} was said to be made, and the nodes belong to {belongs:?}");
    }
}

/// The test is the node that runs init, and dies when one member has adopted.
#[tokio::test(flavor = "multi_thread")]
async fn an_init_cut_short_is_finished_by_saying_it_again() {
    let cluster = Cluster::start_uninitialised(3).await;
    let id = ClusterId(0x51);
    let mut members = Vec::new();
    for index in 1..=3 {
        members.push(control(&cluster, index).await.candidate(call_within(CALL), id).await.unwrap().unwrap());
    }
    let half_made = layout_of(id, members);
    control(&cluster, 1).await.adopt(call_within(CALL), half_made.clone()).await.unwrap().unwrap();

    assert_eq!(cluster.init_through(2, BTreeMap::new()).await.unwrap(), half_made);
    assert_eq!(clusters(&cluster).await, [Some(id); 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_adopts_no_layout_that_it_is_not_kept_free_for() {
    let cluster = Cluster::start_uninitialised(2).await;
    let (ours, theirs) = (ClusterId(1), ClusterId(2));
    let member = control(&cluster, 1).await.candidate(call_within(CALL), ours).await.unwrap().unwrap();
    let adopted = control(&cluster, 1).await.adopt(call_within(CALL), layout_of(theirs, vec![member])).await;
    let refused = adopted.unwrap().unwrap_err().to_string();
    assert!(refused.contains("not kept free for this cluster"), "{refused}");
    assert_eq!(clusters(&cluster).await, [None; 2]);
}

fn layout_of(cluster: ClusterId, members: Vec<Member>) -> Layout {
    let (partitions, replicas) = (PartitionCount::try_from(64).unwrap(), ReplicaCount::DEFAULT);
    Layout::first(FirstLayout { cluster, partitions, replicas, members, buckets: BTreeMap::new() }).unwrap()
}

async fn control(cluster: &Cluster, index: usize) -> ControlServiceClient {
    let hello = Hello::of_client(Class::Control, None);
    let (stream, _welcome) = dial(&Tcp, cluster.address(index), &hello, CALL).await.unwrap();
    ControlServiceClient::new(client_limits(), client_transport(stream)).spawn()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_init_said_again_changes_nothing_and_one_for_something_else_is_refused() {
    let cluster = Cluster::start_uninitialised(3).await;
    let made = cluster.init_through(1, BTreeMap::new()).await.unwrap();
    assert_eq!(cluster.init_through(2, BTreeMap::new()).await.unwrap(), made);
    let rules = [("sessions".parse().unwrap(), BucketRules::default())].into();
    let refused = cluster.init_through(3, rules).await.unwrap_err().to_string();
    assert!(refused.contains("other replicas, partitions, weights or buckets"), "{refused}");
    assert_eq!(clusters(&cluster).await, [Some(made.cluster()); 3]);
}
