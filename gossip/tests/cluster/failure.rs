//! What a node learns when its own gossip fails.

use std::net::SocketAddr;

use crate::support::{announcement, settings};
use async_trait::async_trait;
use chitchat::ChitchatEnvelope;
use chitchat::transport::{RecvOutcome, SendOutcome, Socket, Transport};
use starling_gossip::{Gossip, GossipError};
use tokio::sync::Notify;

/// A socket that works until the cable is cut.
struct Cable(&'static Notify);

#[async_trait]
impl Transport for Cable {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        Ok(Box::new(Cable(self.0)))
    }
}

#[async_trait]
impl Socket for Cable {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        Ok(([127, 0, 0, 1], 7401).into())
    }

    async fn send(&mut self, _: SocketAddr, _: ChitchatEnvelope) -> anyhow::Result<SendOutcome> {
        Ok(SendOutcome { num_bytes_sent: 0 })
    }

    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        self.0.notified().await;
        anyhow::bail!("the cable was cut")
    }
}

#[tokio::test]
async fn a_broken_socket_closes_the_view_and_shutdown_tells_why() {
    static CUT: Notify = Notify::const_new();
    let gossip = Gossip::start_with_transport(settings(1, 1, &[]), announcement("n1"), &Cable(&CUT)).await.unwrap();
    let mut view = gossip.view();
    CUT.notify_one();
    while view.changed().await.is_ok() {}
    let failure = gossip.shutdown().await.unwrap_err();
    assert!(matches!(&failure, GossipError::Ended { reason } if reason == "the cable was cut"), "{failure}");
}
