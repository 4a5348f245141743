//! Nodes that gossip, and how a test waits for what they see.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use starling_core::ids::{DirectoryId, NodeId, Run};
use starling_gossip::{Announcement, Gossip, HintTargets, Settings, ShortText, Standing, Timing, View};
use tokio::sync::watch;
use tokio::time::timeout;

/// Far more than anything here takes, also on a machine that is busy with something else.
const LIMIT: Duration = Duration::from_secs(60);

/// A node that listens on a free port of this machine.
pub fn settings(node: u64, generation: u64, seeds: &[SocketAddr]) -> Settings {
    let anywhere = ([127, 0, 0, 1], 0).into();
    Settings {
        cluster_name: "flock".to_owned(),
        node: NodeId(node),
        generation,
        listen: anywhere,
        advertise: anywhere,
        seeds: seeds.iter().map(ToString::to_string).collect(),
        timing: Timing::default(),
    }
}

pub fn announcement(name: &str) -> Announcement {
    Announcement {
        name: name.parse().expect("a node's name"),
        zone: "z1".parse().expect("a zone's name"),
        run: Run { directory: DirectoryId(1), counter: 1, nonce: 1 },
        address: format!("{name}:7400").parse().expect("an address"),
        protocol: 1..=1,
        features: 0,
        build: ShortText::new("test"),
        cluster: None,
        layout: None,
        log: None,
        hints_for: HintTargets::none(),
        is_filling: false,
        settings: None,
        standing: Standing::Serving,
    }
}

/// Waits until what `gossip` sees is as expected, or panics with what it sees instead.
pub async fn sees(gossip: &Gossip, what: &str, expected: impl FnMut(&View) -> bool) -> Arc<View> {
    let mut view = gossip.view();
    let seen = timeout(LIMIT, wait_for(&mut view, expected)).await;
    seen.unwrap_or_else(|_| panic!("not seen in {LIMIT:?}: {what}; instead {:#?}", gossip.view().borrow()))
}

async fn wait_for(view: &mut watch::Receiver<Arc<View>>, mut expected: impl FnMut(&View) -> bool) -> Arc<View> {
    let seen = view.wait_for(|view| expected(view)).await;
    Arc::clone(&seen.expect("gossip goes on"))
}

pub fn all_alive(nodes: impl IntoIterator<Item = u64> + Clone) -> impl FnMut(&View) -> bool {
    move |view| nodes.clone().into_iter().all(|node| view.is_alive(NodeId(node)))
}
