//! Every node that has to do with a request logs it under the request's trace id.

use std::collections::BTreeMap;

use starling_tests::{Cluster, eventually, level};

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_followed_through_all_its_nodes_by_one_trace_id() {
    let flags = ["--log", "info,starling_node=debug", "--log-format", "json"];
    let cluster = Cluster::start_uninitialised_with(3, &flags).await;
    cluster.init(BTreeMap::new()).await;
    let bucket = cluster.client().await.bucket("carts").unwrap();
    let written = bucket.put("alice", "a value that no log may show").w(level("all")).await.unwrap();

    let request = written.request().to_string();
    let line = eventually("the coordinator has logged the write", || async {
        let lines: Vec<String> = (1..=3).flat_map(|index| lines_of(&cluster, index)).collect();
        let found = lines.iter().find(|line| line.contains("coordinated a write") && line.contains(&request));
        found.cloned().ok_or("no line names the request".to_owned())
    })
    .await;
    let trace = line.split_once(r#""trace":""#).and_then(|(_, rest)| rest.split_once('"')).expect("it has a trace").0;
    assert!(trace.chars().any(|digit| digit != '0'), "a trace of nothing but zeroes tells nothing apart");

    let stored = |index: usize| {
        let lines = lines_of(&cluster, index);
        lines.iter().filter(|line| line.contains("storing a copy") && line.contains(trace)).count()
    };
    assert_eq!((1..=3).map(stored).sum::<usize>(), 2, "both other replicas log it under the trace of the request");
    assert!((1..=3).all(|index| !cluster.log_of(index).contains("a value that no log may show")));
}

fn lines_of(cluster: &Cluster, index: usize) -> Vec<String> {
    cluster.log_of(index).lines().map(str::to_owned).collect()
}
