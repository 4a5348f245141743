//! A socket that is opened before chitchat starts: what it announces must hold the port that was bound, and failing to
//! bind is an error of its own.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use chitchat::transport::{Socket, Transport};

use crate::error::GossipError;

/// A transport that hands out the one socket it was made of.
pub(crate) struct Opened {
    socket: Mutex<Option<Box<dyn Socket>>>,
    local: SocketAddr,
}

impl Opened {
    pub(crate) async fn open(transport: &dyn Transport, listen: SocketAddr) -> Result<Opened, GossipError> {
        let bind = |source: anyhow::Error| GossipError::Bind { listen, source: source.into() };
        let socket = transport.open(listen).await.map_err(bind)?;
        let local = socket.local_addr().map_err(bind)?;
        Ok(Opened { socket: Mutex::new(Some(socket)), local })
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }
}

#[async_trait::async_trait]
impl Transport for Opened {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let taken = self.socket.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.ok_or_else(|| anyhow::anyhow!("the gossip socket was opened before"))
    }
}
