//! A network that a test can cut: each node tells the others to reach it through a port of the test's, which passes on what
//! comes. It knows who speaks: a node introduces itself on its connections, and gossips from its own port. What may not pass
//! waits, as it does on a real network until that is whole again; datagrams are lost.
//!
//! Whoever does not introduce himself passes: clients.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use starling_proto::hello::{self, MAX_HELLO_BYTES};
use starling_proto::network::{BoxedStream, Network, Tcp};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

const BUFFER_BYTES: usize = 64 << 10;
/// Ports are tried until one is free for both TCP and UDP.
const TRIES: usize = 100;

/// The numbers of the nodes on one side; the others are on the other. Nobody is cut off if it is empty.
type Side = BTreeSet<usize>;

pub(crate) struct Relay {
    /// Where each node is reached, in their order.
    addresses: Vec<SocketAddr>,
    side: watch::Sender<Side>,
    /// Ends with the relay.
    _tasks: JoinSet<()>,
}

/// A way from one node to another.
#[derive(Clone)]
struct Way {
    /// None of somebody who is no node: a client.
    from: Option<usize>,
    to: usize,
    side: watch::Receiver<Side>,
}

impl Relay {
    /// Stands before the nodes that listen there.
    pub async fn start(nodes: Vec<SocketAddr>) -> Relay {
        let side = watch::Sender::new(Side::new());
        let (mut tasks, mut addresses, mut sockets, mut listeners) = (JoinSet::new(), vec![], vec![], vec![]);
        for _ in &nodes {
            let (listener, socket) = doors().await;
            addresses.push(listener.local_addr().unwrap());
            listeners.push(listener);
            sockets.push(socket);
        }
        let (nodes, sockets): (Arc<[SocketAddr]>, Arc<[UdpSocket]>) = (nodes.into(), sockets.into());
        for (index, listener) in listeners.into_iter().enumerate() {
            let way = Way { from: None, to: index + 1, side: side.subscribe() };
            tasks.spawn(accept(listener, nodes[index], way.clone()));
            tasks.spawn(pass_datagrams(Arc::clone(&nodes), Arc::clone(&sockets), way));
        }
        Relay { addresses, side, _tasks: tasks }
    }

    pub fn address(&self, index: usize) -> SocketAddr {
        self.addresses[index - 1]
    }

    /// All of them, for nodes to find each other.
    pub fn seeds(&self) -> String {
        self.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    /// Cuts these off from all others.
    pub fn cut(&self, side: &[usize]) {
        self.side.send_replace(side.iter().copied().collect());
    }

    pub fn mend(&self) {
        self.side.send_replace(Side::new());
    }

    /// The network of somebody who reaches these nodes and no others.
    pub fn network_of(&self, side: &[usize]) -> Arc<dyn Network> {
        Arc::new(OneSide(side.iter().map(|index| self.address(*index).to_string()).collect()))
    }
}

impl Way {
    fn is_open_in(&self, side: &Side) -> bool {
        self.from.is_none_or(|from| side.contains(&from) == side.contains(&self.to))
    }

    fn is_open(&self) -> bool {
        self.is_open_in(&self.side.borrow())
    }

    /// Returns once something may pass; never if the relay has ended.
    async fn opened(&mut self) {
        let way = self.clone();
        if self.side.wait_for(|side| way.is_open_in(side)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

struct OneSide(BTreeSet<String>);

impl Network for OneSide {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxedStream>> {
        if self.0.contains(address) {
            return Tcp.connect(address);
        }
        async { Err(io::ErrorKind::HostUnreachable.into()) }.boxed()
    }
}

/// A port of both kinds.
async fn doors() -> (TcpListener, UdpSocket) {
    for _ in 0..TRIES {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        if let Ok(socket) = UdpSocket::bind(listener.local_addr().unwrap()).await {
            return (listener, socket);
        }
    }
    panic!("no port is free for both TCP and UDP");
}

async fn accept(listener: TcpListener, node: SocketAddr, way: Way) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(pass_connection(stream, node, way.clone()).map(drop));
        while connections.try_join_next().is_some() {}
    }
}

async fn pass_connection(mut dialler: TcpStream, node: SocketAddr, mut way: Way) -> io::Result<()> {
    let mut said = Said { stream: &mut dialler, bytes: Vec::new() };
    let Ok(hello) = hello::accept(&mut said).await else { return Ok(()) };
    let bytes = said.bytes;
    way.from = hello.from.map(|from| number(from.name.as_str()));
    way.opened().await;
    let mut acceptor = TcpStream::connect(node).await?;
    dialler.set_nodelay(true)?;
    acceptor.set_nodelay(true)?;
    acceptor.write_all(&bytes).await?;
    let (from_dialler, to_dialler) = dialler.into_split();
    let (from_acceptor, to_acceptor) = acceptor.into_split();
    // What the one direction may not pass, the other may not either: a cut is between two sides.
    tokio::select! {
        ended = pump(from_dialler, to_acceptor, way.clone()) => ended,
        ended = pump(from_acceptor, to_dialler, way) => ended,
    }
}

/// Until either side ends the connection.
async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut way: Way) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        way.opened().await;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
    }
}

/// What is sent to the node of that way, from whoever sends: each node's datagrams seem to come from where it is reached.
async fn pass_datagrams(nodes: Arc<[SocketAddr]>, sockets: Arc<[UdpSocket]>, way: Way) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let Ok((count, from)) = sockets[way.to - 1].recv_from(&mut buffer).await else { continue };
        let Some(index) = nodes.iter().position(|node| *node == from) else { continue };
        if (Way { from: Some(index + 1), ..way.clone() }).is_open() {
            // A node that is down gets nothing.
            drop(sockets[index].send_to(&buffer[..count], nodes[way.to - 1]).await);
        }
    }
}

/// `n3` is the third.
fn number(name: &str) -> usize {
    name[1..].parse().unwrap()
}

/// Keeps what is read.
struct Said<'a> {
    stream: &'a mut TcpStream,
    bytes: Vec<u8>,
}

impl AsyncRead for Said<'_> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = std::pin::Pin::new(&mut *self.stream).poll_read(context, buffer);
        let bytes = buffer.filled()[before..].to_vec();
        self.bytes.extend(bytes);
        assert!(self.bytes.len() <= MAX_HELLO_BYTES * 2, "a hello is short");
        polled
    }
}
