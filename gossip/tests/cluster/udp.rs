//! Several nodes in one process that gossip over the loopback interface.

use crate::support::{all_alive, announcement, sees, settings};
use starling_core::ids::{ClusterId, NodeId};
use starling_core::layout::LayoutVersion;
use starling_gossip::{Conflict, Gossip, GossipError, InvalidSettings, Standing, View};

async fn start(node: u64, generation: u64, seed: Option<&Gossip>) -> Gossip {
    let seeds: Vec<_> = seed.iter().map(|seed| seed.local_address()).collect();
    let says = announcement(&format!("n{node}"));
    Gossip::start(settings(node, generation, &seeds), says).await.expect("a free port")
}

#[tokio::test]
async fn nodes_find_each_other_from_one_seed() {
    let seed = start(1, 1, None).await;
    let others = [start(2, 1, Some(&seed)).await, start(3, 1, Some(&seed)).await, start(4, 1, Some(&seed)).await];
    for gossip in others.iter().chain([&seed]) {
        let view = sees(gossip, "four live nodes", all_alive(1..=4)).await;
        assert_eq!(view.peers[&NodeId(3)].announcement.address.as_str(), "n3:7400");
        assert_eq!(view.conflicts, []);
    }
}

#[tokio::test]
async fn the_first_view_holds_the_node_itself() {
    let alone = start(1, 1, None).await;
    let view = alone.view();
    let view = view.borrow();
    assert!(view.is_alive(NodeId(1)));
    assert_eq!(view.by_name(&"n1".parse().unwrap()).unwrap().seen.gossip, alone.local_address());
}

#[tokio::test]
async fn an_update_reaches_the_others() {
    let n1 = start(1, 1, None).await;
    let n2 = start(2, 1, Some(&n1)).await;
    sees(&n1, "n2", all_alive([2])).await;
    n2.update(|says| {
        says.cluster = Some(ClusterId(0xc1));
        says.layout = Some(LayoutVersion(1));
        says.hints_for = [NodeId(9)].into_iter().collect();
    });
    for gossip in [&n1, &n2] {
        let holds = |view: &View| view.holders_of_hints_for(NodeId(9)) == [NodeId(2)];
        let view = sees(gossip, "hints of n2", holds).await;
        assert_eq!(view.peers[&NodeId(2)].announcement.layout, Some(LayoutVersion(1)));
    }
    n2.update(|says| says.standing = Standing::Leaving);
    sees(&n1, "n2 leaving", |view| view.peers[&NodeId(2)].announcement.standing == Standing::Leaving).await;
}

#[tokio::test]
async fn a_node_that_was_shut_down_and_one_that_was_dropped_turn_dead() {
    let n1 = start(1, 1, None).await;
    let (n2, n3) = (start(2, 1, Some(&n1)).await, start(3, 1, Some(&n1)).await);
    sees(&n1, "both", all_alive([2, 3])).await;
    let mut view = n2.view();
    n2.shutdown().await.unwrap();
    while view.changed().await.is_ok() {}
    drop(n3);
    sees(&n1, "neither", |view| !view.is_alive(NodeId(2)) && !view.is_alive(NodeId(3))).await;
    assert_eq!(n1.view().borrow().peers.len(), 3, "it remembers them");
}

#[tokio::test]
async fn a_restart_replaces_the_run_before_it() {
    let n1 = start(1, 1, None).await;
    let first = start(2, 7, Some(&n1)).await;
    sees(&n1, "the first run", all_alive([2])).await;
    first.shutdown().await.unwrap();
    let second = start(2, 8, Some(&n1)).await;
    let is_second =
        |view: &View| view.is_alive(NodeId(2)) && view.peers[&NodeId(2)].seen.gossip == second.local_address();
    let view = sees(&n1, "the second run", is_second).await;
    assert_eq!(view.peers[&NodeId(2)].seen.generation, 8);
}

#[tokio::test]
async fn what_a_former_run_of_the_same_generation_said_is_not_taken_over() {
    let n1 = start(1, 1, None).await;
    let first = start(2, 7, Some(&n1)).await;
    first.update(|says| says.layout = Some(LayoutVersion(9)));
    let is_first = |view: &View| view.peer(NodeId(2)).is_some_and(|peer| peer.announcement.layout.is_some());
    sees(&n1, "the first run", is_first).await;
    let mut again = settings(2, 7, &[n1.local_address()]);
    again.listen = first.local_address();
    first.shutdown().await.unwrap();
    let mut says = announcement("n2");
    says.layout = Some(LayoutVersion(3));
    let second = Gossip::start(again, says.clone()).await.unwrap();
    for gossip in [&n1, &second] {
        let is_second = |view: &View| view.is_alive(NodeId(2)) && *view.peers[&NodeId(2)].announcement == says;
        sees(gossip, "what the second run says", is_second).await;
    }
}

#[tokio::test]
async fn two_nodes_of_one_name_are_reported() {
    let n1 = start(1, 1, None).await;
    let (seeds, twin) = ([n1.local_address()], announcement("twin"));
    let n2 = Gossip::start(settings(2, 1, &seeds), twin.clone()).await.unwrap();
    let n3 = Gossip::start(settings(3, 1, &seeds), twin.clone()).await.unwrap();
    let expected = [Conflict::Name { name: twin.name, nodes: vec![NodeId(2), NodeId(3)] }];
    for gossip in [&n1, &n2, &n3] {
        sees(gossip, "the conflict", |view| view.conflicts == expected).await;
    }
}

#[tokio::test]
async fn two_copies_of_one_node_are_reported() {
    let n1 = start(1, 1, None).await;
    let copies = [start(2, 4, Some(&n1)).await, start(2, 4, Some(&n1)).await];
    let reported =
        |view: &View| matches!(&view.conflicts[..], [Conflict::Runs { node: NodeId(2), runs }] if runs.len() == 2);
    for gossip in [&n1, &copies[0], &copies[1]] {
        sees(gossip, "the conflict", reported).await;
    }
}

#[tokio::test]
async fn nodes_of_another_cluster_name_stay_unknown() {
    let n1 = start(1, 1, None).await;
    let mut elsewhere = settings(2, 1, &[n1.local_address()]);
    elsewhere.cluster_name = "herd".to_owned();
    let n2 = Gossip::start(elsewhere, announcement("n2")).await.unwrap();
    // When n3 has found n1, n2 has had as much time as it needed, and more.
    let _n3 = start(3, 1, Some(&n1)).await;
    sees(&n1, "n3", all_alive([3])).await;
    assert!(n1.view().borrow().peer(NodeId(2)).is_none());
    assert!(n2.view().borrow().peer(NodeId(1)).is_none());
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_with_its_number() {
    let n1 = start(1, 1, None).await;
    let mut taken = settings(2, 1, &[]);
    taken.listen = n1.local_address();
    let refused = Gossip::start(taken, announcement("n2")).await.err().unwrap();
    assert!(matches!(&refused, GossipError::Bind { listen, .. } if *listen == n1.local_address()), "{refused}");
}

#[tokio::test]
async fn settings_are_checked_before_anything_is_opened() {
    let mut nowhere = settings(1, 1, &[]);
    nowhere.seeds.push("n2".to_owned());
    let refused = Gossip::start(nowhere, announcement("n1")).await.err().unwrap();
    assert!(matches!(refused, GossipError::Settings(InvalidSettings::Seed(_))), "{refused}");
}
