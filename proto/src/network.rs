//! How connections are opened and accepted.
//!
//! Whatever dials takes a [`Network`], and whatever accepts takes a [`Listener`]; above them is nothing but a stream of
//! bytes. In production both are TCP. TLS belongs here, and so does the network of a simulation.

use std::io;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use crate::hello::{self, Hello, HelloError, Welcome};

/// Any byte stream that a connection can run over.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for S {}

/// Any byte stream, whatever the network.
pub type BoxedStream = Box<dyn ByteStream>;

/// Opens connections.
pub trait Network: Send + Sync + 'static {
    /// Connects to an address (`host:port`). How long that may take is up to whoever asks.
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxedStream>>;
}

/// Accepts connections.
pub trait Listener: Send + 'static {
    /// The next connection. Nothing is lost if the future is dropped before it is ready.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<BoxedStream>>;
}

/// The network of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp;

impl Network for Tcp {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxedStream>> {
        async move { prompt(TcpStream::connect(address).await?) }.boxed()
    }
}

impl Listener for TcpListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<BoxedStream>> {
        async move {
            loop {
                let (stream, _from) = TcpListener::accept(self).await?;
                // What has broken already is nobody's connection.
                if let Ok(stream) = prompt(stream) {
                    return Ok(stream);
                }
            }
        }
        .boxed()
    }
}

/// Small messages go out at once: a call waits for its answer anyway.
fn prompt(stream: TcpStream) -> io::Result<BoxedStream> {
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

/// Opens a connection and says hello on it.
///
/// # Errors
/// [`HelloError`] if nobody listens, or no connection stands after `within`.
pub async fn dial(
    network: &dyn Network,
    address: &str,
    hello: &Hello,
    within: Duration,
) -> Result<(BoxedStream, Welcome), HelloError> {
    let connect = async {
        let mut stream = network.connect(address).await.map_err(HelloError::Unreachable)?;
        let welcome = hello::dial(&mut stream, hello).await?;
        Ok((stream, welcome))
    };
    tokio::time::timeout(within, connect).await.unwrap_or(Err(HelloError::TimedOut))
}
