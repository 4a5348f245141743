//! How soon a dead node is noticed, and what is not taken for a death: in virtual time, over channels.

use std::time::Duration;

use crate::support::{all_alive, announcement, sees, settings};
use chitchat::transport::{ChannelTransport, Transport, TransportExt};
use starling_core::ids::NodeId;
use starling_gossip::Gossip;
use tokio::time::{Instant, timeout_at};

/// Nodes 1 to `size`, all of which see each other. The first is everybody's seed.
async fn cluster(size: u64, transport: &dyn Transport) -> Vec<Gossip> {
    let mut nodes: Vec<Gossip> = Vec::new();
    for node in 1..=size {
        // The rounds of real nodes do not coincide.
        tokio::time::advance(Duration::from_millis(node * 67 % 200)).await;
        let seeds: Vec<_> = nodes.first().iter().map(|seed| seed.local_address()).collect();
        let says = announcement(&format!("n{node}"));
        let started = Gossip::start_with_transport(settings(node, 1, &seeds), says, transport).await;
        nodes.push(started.expect("a free port"));
    }
    for gossip in &nodes {
        sees(gossip, "everybody", all_alive(1..=size)).await;
    }
    nodes
}

/// Passes this much time, in which every node sees every other alive.
async fn nobody_is_called_dead(nodes: &[Gossip], duration: Duration) {
    let end = Instant::now() + duration;
    let watches = nodes.iter().map(|gossip| {
        let mut view = gossip.view();
        tokio::spawn(async move {
            let death = view.wait_for(|view| view.peers.values().any(|peer| !peer.alive));
            timeout_at(end, death).await.map(|view| format!("{:#?}", view.as_deref()))
        })
    });
    for watch in watches.collect::<Vec<_>>() {
        assert_eq!(watch.await.expect("it does not panic").ok(), None);
    }
}

fn channels() -> ChannelTransport {
    ChannelTransport::with_mtu(65_507)
}

#[tokio::test(start_paused = true)]
async fn a_killed_node_is_noticed_by_all_within_three_seconds() {
    for size in [2, 3, 5] {
        let mut nodes = cluster(size, &channels()).await;
        nobody_is_called_dead(&nodes, Duration::from_secs(30)).await;
        drop(nodes.pop());
        let killed = Instant::now();
        for gossip in &nodes {
            sees(gossip, "the death", |view| !view.is_alive(NodeId(size))).await;
        }
        let noticed = killed.elapsed();
        assert!(noticed < Duration::from_secs(3), "{size} nodes: {noticed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn half_of_all_datagrams_lost_is_no_death() {
    let lossy = channels().drop_message(0.5);
    let nodes = cluster(5, &*lossy).await;
    nobody_is_called_dead(&nodes, Duration::from_secs(180)).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_nobody_hears_for_a_second_is_not_dead() {
    let channels = channels();
    let nodes = cluster(5, &channels).await;
    nobody_is_called_dead(&nodes, Duration::from_secs(10)).await;
    let (deaf, others) = nodes.split_last().unwrap();
    for other in others {
        channels.remove_link(deaf.local_address(), other.local_address()).await;
    }
    nobody_is_called_dead(&nodes, Duration::from_secs(1)).await;
    for other in others {
        channels.add_link(deaf.local_address(), other.local_address()).await;
    }
    nobody_is_called_dead(&nodes, Duration::from_secs(30)).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_cut_off_comes_back() {
    let channels = channels();
    let nodes = cluster(3, &channels).await;
    let (cut, other) = (&nodes[2], &nodes[1]);
    for rest in &nodes[..2] {
        channels.remove_link(cut.local_address(), rest.local_address()).await;
    }
    sees(other, "the cut", |view| !view.is_alive(NodeId(3))).await;
    sees(cut, "the cut", |view| !view.is_alive(NodeId(1)) && !view.is_alive(NodeId(2))).await;
    for rest in &nodes[..2] {
        channels.add_link(cut.local_address(), rest.local_address()).await;
    }
    for gossip in &nodes {
        sees(gossip, "everybody", all_alive(1..=3)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_node_is_forgotten_in_the_end() {
    let mut nodes = cluster(3, &channels()).await;
    drop(nodes.pop());
    for gossip in &nodes {
        sees(gossip, "the death", |view| !view.is_alive(NodeId(3))).await;
    }
    tokio::time::advance(Duration::from_secs(15 * 60)).await;
    for gossip in &nodes {
        sees(gossip, "two nodes", |view| view.peers.len() == 2).await;
    }
}
