//! From a stream of bytes to a service, and back.

use bincode::Options as _;
use bincode::config::{Bounded, DefaultOptions, WithOtherLimit};
use futures::{Stream, StreamExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use starling_core::codec;
use tarpc::server::limits::requests_per_channel::MaxRequests;
use tarpc::server::{BaseChannel, Channel as _};
use tarpc::{ClientMessage, Response, Transport};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_serde::formats::Bincode;
use tokio_util::codec::Framed;
use tokio_util::codec::length_delimited::LengthDelimitedCodec;

use crate::network::ByteStream;

/// Longest frame. A message that would be longer is not sent; one that is announced as longer breaks the connection.
pub const MAX_FRAME_BYTES: usize = 32 << 20;
/// Room in a frame for everything that is not user data.
pub const FRAME_MARGIN_BYTES: usize = 1 << 20;
/// Calls that a connection's server works on at once; further ones are refused as overloaded.
pub const MAX_CALLS_PER_CONNECTION: usize = 256;

/// How many calls a client keeps in flight on one connection, and how many more wait.
pub fn client_limits() -> tarpc::client::Config {
    let mut config = tarpc::client::Config::default();
    config.max_in_flight_requests = MAX_CALLS_PER_CONNECTION;
    config.pending_request_buffer = MAX_CALLS_PER_CONNECTION;
    config
}

/// The calling end of a service over `stream`.
pub fn client_transport<Req, Resp>(
    stream: impl ByteStream,
) -> impl Transport<ClientMessage<Req>, Response<Resp>, Error: Send> + Send
where
    Req: Serialize + Send + 'static,
    Resp: DeserializeOwned + Send + 'static,
{
    tarpc::serde_transport::new(framed(stream), bincode())
}

/// The transport of a connection's serving end.
type Served<S, Req, Resp> = tarpc::serde_transport::Transport<
    S,
    ClientMessage<Req>,
    Response<Resp>,
    Bincode<ClientMessage<Req>, Response<Resp>, FrameOptions>,
>;

/// The serving end of a service over `stream`: `drive(channel(stream).execute(service.serve()))`.
pub fn channel<S, Req, Resp>(stream: S) -> MaxRequests<BaseChannel<Req, Resp, Served<S, Req, Resp>>>
where
    S: ByteStream,
    Req: DeserializeOwned + Send + 'static,
    Resp: Serialize + Send + 'static,
{
    let transport = tarpc::serde_transport::new(framed(stream), bincode());
    BaseChannel::with_defaults(transport).max_concurrent_requests(MAX_CALLS_PER_CONNECTION)
}

/// Runs a connection's handlers until it closes, or until this future is dropped. A handler is dropped with its caller or
/// its deadline: whatever must not stop half-way has to be done elsewhere.
pub async fn drive<F>(handlers: impl Stream<Item = F>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut handlers = std::pin::pin!(handlers);
    // Dropping the set aborts what is still running.
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            handler = handlers.next() => match handler {
                Some(handler) => drop(running.spawn(handler)),
                None => break,
            },
            Some(_ended) = running.join_next() => {}
        }
    }
}

fn framed<S: AsyncRead + AsyncWrite>(stream: S) -> Framed<S, LengthDelimitedCodec> {
    let mut codec = LengthDelimitedCodec::new();
    codec.set_max_frame_length(MAX_FRAME_BYTES);
    Framed::new(stream, codec)
}

type FrameOptions = WithOtherLimit<DefaultOptions, Bounded>;

fn bincode<Item, SinkItem>() -> Bincode<Item, SinkItem, FrameOptions> {
    Bincode::from(codec::options().with_limit(MAX_FRAME_BYTES as u64))
}
