//! What a node costs, and how soon it notices: `make figures` prints it.
//!
//! The aims are for an optimised build on a quiet machine; a test fails only at ten times as much, which is another kind of
//! program.

use std::time::{Duration, Instant};

use starling_tests::{Cluster, eventually};

const MEMORY_AIM_BYTES: u64 = 60 << 20;
const READY_AIM: Duration = Duration::from_secs(1);
const NOTICE_AIM: Duration = Duration::from_secs(3);
const ROOM: u32 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_node_takes_little_memory() {
    let cluster = Cluster::start(3).await;
    for index in 1..=3 {
        let resident = cluster.status(index).await.unwrap().resident_bytes.expect("Linux tells it");
        println!("n{index}, idle, in a cluster of three: {} MiB (aim: {} MiB)", resident >> 20, MEMORY_AIM_BYTES >> 20);
        assert!(resident < MEMORY_AIM_BYTES * u64::from(ROOM));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_node_is_soon_ready() {
    let mut cluster = Cluster::start_uninitialised(3).await;
    for index in 1..=3 {
        cluster.kill(index);
        cluster.wipe(index);
        let begun = Instant::now();
        cluster.launch(index);
        eventually("the node answers", || cluster.status(index)).await;
        report("an empty node, from its start to its first answer", begun.elapsed(), READY_AIM);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_soon_noticed_by_all() {
    let mut cluster = Cluster::start(5).await;
    for index in 1..=3 {
        let begun = Instant::now();
        cluster.kill(index);
        cluster.wait_noticed_dead(index).await;
        report("a dead node, until the last of its peers has noticed", begun.elapsed(), NOTICE_AIM);
        cluster.restart(index).await;
    }
}

fn report(what: &str, took: Duration, aim: Duration) {
    println!("{what}: {} ms (aim: {} ms)", took.as_millis(), aim.as_millis());
    assert!(took < aim * ROOM);
}
