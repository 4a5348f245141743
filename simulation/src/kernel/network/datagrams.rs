//! Datagrams, as chitchat sends them: envelopes that move as they are, since only chitchat can turn them into bytes.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use async_trait::async_trait;
use chitchat::ChitchatEnvelope;
use chitchat::transport::{RecvOutcome, SendOutcome, Socket, Transport};

use super::{HostId, Plug};

/// How many bytes an envelope has, only chitchat can tell; it counts them, and does nothing with the count.
const UNKNOWN: usize = 0;

/// The transport of a process's gossip.
pub struct Gossiping(pub Plug);

#[async_trait]
impl Transport for Gossiping {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let mut state = self.0.network.lock();
        anyhow::ensure!(state.is_alive(self.0.host, self.0.life), "the process has ended");
        state.machine(self.0.host).bound = true;
        Ok(Box::new(Bound(self.0.clone())))
    }
}

struct Bound(Plug);

impl Bound {
    fn poll_received(&self, context: &Context<'_>) -> Poll<(SocketAddr, ChitchatEnvelope)> {
        let mut state = self.0.network.lock();
        if !state.is_alive(self.0.host, self.0.life) {
            return Poll::Pending;
        }
        let machine = state.machine(self.0.host);
        match machine.datagrams.pop_front() {
            Some(datagram) => Poll::Ready(datagram),
            None => {
                machine.receiver = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[async_trait]
impl Socket for Bound {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.0.address())
    }

    async fn send(&mut self, to: SocketAddr, envelope: ChitchatEnvelope) -> anyhow::Result<SendOutcome> {
        let mut state = self.0.network.lock();
        let to = HostId::at(&to.to_string()).filter(|to| to.0 < state.machines.len());
        if let (Some(to), true) = (to, state.is_alive(self.0.host, self.0.life)) {
            state.send_datagram(self.0.host, to, envelope);
        }
        Ok(SendOutcome { num_bytes_sent: UNKNOWN })
    }

    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        let (from_addr, envelope) = poll_fn(|context| self.poll_received(context)).await;
        Ok(RecvOutcome { from_addr, envelope, num_bytes_received: UNKNOWN })
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let mut state = self.0.network.lock();
        if state.is_alive(self.0.host, self.0.life) {
            state.machine(self.0.host).bound = false;
        }
    }
}
