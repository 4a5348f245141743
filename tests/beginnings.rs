//! `cluster init`: chosen once, whoever says it, and finished by saying it again.

use std::collections::{BTreeMap, BTreeSet};

use starling_core::ids::ClusterId;
use starling_core::layout::BucketRules;
use starling_tests::{Cluster, usually};

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
