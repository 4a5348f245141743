//! The product's side of the network: dialling, listening, reading, writing.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use starling_proto::network::{BoxedStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::{Dialling, End, Piece, WINDOW};
use super::{HostId, Network};

/// A process's connection to the network. What a process that has ended does with it comes to nothing.
#[derive(Clone)]
pub struct Plug {
    pub(super) network: Network,
    pub(super) host: HostId,
    pub(super) life: u64,
}

impl Plug {
    pub fn address(&self) -> SocketAddr {
        self.host.address()
    }

    pub fn host_number(&self) -> usize {
        self.host.0
    }

    pub fn listen(&self) -> Listening {
        let mut state = self.network.lock();
        if state.is_alive(self.host, self.life) {
            state.machine(self.host).listening = true;
        }
        Listening(self.clone())
    }

    fn dead<T>() -> Poll<io::Result<T>> {
        Poll::Ready(Err(io::ErrorKind::NetworkDown.into()))
    }

    fn poll_dialled(&self, id: u64, context: &Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.network.lock();
        if !state.is_alive(self.host, self.life) {
            return Plug::dead();
        }
        let Some(connection) = state.connections.get_mut(&id) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()));
        };
        let broken = connection.side(End::Dialler).reset;
        match connection.dialling {
            Dialling::Stands => Poll::Ready(Ok(())),
            Dialling::Refused => Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into())),
            Dialling::Waiting if broken => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Dialling::Waiting => {
                connection.dialler = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl starling_proto::network::Network for Plug {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxedStream>> {
        async move {
            let to = HostId::at(address).ok_or(io::ErrorKind::AddrNotAvailable)?;
            let id = {
                let mut state = self.network.lock();
                if to.0 >= state.machines.len() || !state.is_alive(self.host, self.life) {
                    return Err(io::ErrorKind::NetworkUnreachable.into());
                }
                state.open(self.host, to)
            };
            // Made before it stands: whoever gives up dialling hangs up.
            let stream = Stream { plug: self.clone(), id, end: End::Dialler };
            poll_fn(|context| self.poll_dialled(id, context)).await?;
            Ok(Box::new(stream) as BoxedStream)
        }
        .boxed()
    }
}

/// A process that listens on its machine's port.
pub struct Listening(Plug);

impl Listening {
    fn poll_accept(&self, context: &Context<'_>) -> Poll<u64> {
        let mut state = self.0.network.lock();
        if !state.is_alive(self.0.host, self.0.life) {
            return Poll::Pending;
        }
        let machine = state.machine(self.0.host);
        match machine.waiting.pop_front() {
            Some(id) => Poll::Ready(id),
            None => {
                machine.acceptor = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Listener for Listening {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<BoxedStream>> {
        async move {
            let id = poll_fn(|context| self.poll_accept(context)).await;
            Ok(Box::new(Stream { plug: self.0.clone(), id, end: End::Acceptor }) as BoxedStream)
        }
        .boxed()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut state = self.0.network.lock();
        if state.is_alive(self.0.host, self.0.life) {
            state.machine(self.0.host).listening = false;
        }
    }
}

/// One end of a connection.
struct Stream {
    plug: Plug,
    id: u64,
    end: End,
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.plug.network.lock();
        if !state.is_alive(self.plug.host, self.plug.life) {
            return Plug::dead();
        }
        let Some(connection) = state.connections.get_mut(&self.id) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let side = connection.side(self.end);
        if side.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if let Some(front) = side.inbox.front_mut() {
            let taken = front.len().min(into.remaining());
            into.put_slice(&front[..taken]);
            front.advance(taken);
            if front.is_empty() {
                side.inbox.pop_front();
            }
            side.ahead -= taken;
            // The other end is told at once that there is room: what a window update takes is left out.
            let writer = connection.side(self.end.other()).writer.take();
            drop(state);
            if let Some(writer) = writer {
                writer.wake();
            }
            return Poll::Ready(Ok(()));
        }
        if side.finished {
            return Poll::Ready(Ok(()));
        }
        side.reader = Some(context.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.plug.network.lock();
        if !state.is_alive(self.plug.host, self.plug.life) {
            return Plug::dead();
        }
        let Some(connection) = state.connections.get_mut(&self.id) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        if connection.side(self.end).reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let room = WINDOW.saturating_sub(connection.side(self.end.other()).ahead);
        if room == 0 {
            connection.side(self.end).writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let taken = bytes.len().min(room);
        state.send_piece(self.id, self.end, Piece::Bytes(Bytes::copy_from_slice(&bytes[..taken])));
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.plug.network.lock();
        if state.is_alive(self.plug.host, self.plug.life) {
            state.send_piece(self.id, self.end, Piece::End);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut state = self.plug.network.lock();
        // Of a process that was killed its machine has taken care.
        if state.is_alive(self.plug.host, self.plug.life) {
            state.hang_up(self.id, self.end);
        }
    }
}
