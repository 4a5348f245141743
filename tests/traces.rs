//! Every node that has to do with a request logs it under the request's trace id.

use std::collections::BTreeMap;

use starling_core::ids::RequestId;
use starling_proto::data::Put;
use starling_tests::{Cluster, eventually, level, put_request};

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_followed_through_all_its_nodes_by_one_trace_id() {
    let flags = ["--log", "info,starling_node=debug", "--log-format", "json"];
    let cluster = Cluster::start_uninitialised_with(4, &flags).await;
    cluster.init(BTreeMap::new()).await;
    let client = cluster.client().await;
    let stranger = cluster.fallbacks(&client, "carts", "alice")[0];
    let (request, value) = (RequestId(0x0123_4567_89ab_cdef), "a value that no log may show");
    let put = Put { w: level("all"), ..put_request("carts", "alice", value, request) };
    cluster.direct(stranger).await.put(put).await.unwrap();

    let (coordinator, line) = eventually("the coordinator has logged the write", || async {
        let of_the_write = |line: &String| line.contains("coordinated a write") && line.contains(&request.to_string());
        let found = (1..=4).find_map(|index| Some((index, lines_of(&cluster, index).into_iter().find(of_the_write)?)));
        found.ok_or("no line names the request".to_owned())
    })
    .await;
    assert_ne!(coordinator, stranger, "it was sent on to a primary");
    let trace = line.split_once(r#""trace":""#).and_then(|(_, rest)| rest.split_once('"')).expect("it has a trace").0;
    assert!(trace.chars().any(|digit| digit != '0'), "a trace of nothing but zeroes tells nothing apart");

    let stored = |index: usize| {
        let lines = lines_of(&cluster, index);
        lines.iter().filter(|line| line.contains("storing a copy") && line.contains(trace)).count()
    };
    assert_eq!((1..=4).map(stored).sum::<usize>(), 2, "both other replicas log it under the trace of the request");
    assert!((1..=4).all(|index| !cluster.log_of(index).contains(value)));
}

fn lines_of(cluster: &Cluster, index: usize) -> Vec<String> {
    cluster.log_of(index).lines().map(str::to_owned).collect()
}
