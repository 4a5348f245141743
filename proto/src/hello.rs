//! The hello: the first exchange on every connection, frozen for good.
//!
//! Both sides send one frame: the 8 bytes `STARLING`, a version byte (1), the body's length as a 16-bit big-endian number,
//! and the body in the encoding of [`starling_core::codec`]. The dialer sends a [`Hello`], the acceptor a [`Reply`]. What
//! may change between versions of Starling is what comes after, under the protocol number agreed here.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use starling_core::codec;
use starling_core::ids::{ClusterId, NodeId, Run};
use starling_core::name::NodeName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::BUILD;

const MAGIC: &[u8; 8] = b"STARLING";
const VERSION: u8 = 1;

/// Longest hello. Also the most an acceptor reads from a stranger.
pub const MAX_HELLO_BYTES: usize = 4096;

/// The protocols this build speaks.
pub const PROTOCOLS: ProtocolRange = ProtocolRange { oldest: 1, newest: 1 };

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtocolRange {
    pub oldest: u16,
    pub newest: u16,
}

impl ProtocolRange {
    /// The newest protocol that both speak.
    pub fn common(self, other: ProtocolRange) -> Option<u16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

/// Which service a connection speaks after the hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Class {
    /// Clients' reads and writes.
    Data,
    /// Reads and writes among replicas.
    Peer,
    /// Handoff and listings among nodes: the peer service on a connection of its own.
    Bulk,
    /// Administration.
    Control,
}

/// Abilities that were added since the protocol began, a bit each; a peer's unknown bits are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Features(pub u64);

impl Features {
    /// Takes part in rounds of reaping.
    pub const REAPING: Features = Features(1);
    /// Knows of values that expire.
    pub const EXPIRY: Features = Features(1 << 1);
    /// Knows of plain settings of buckets.
    pub const SETTINGS: Features = Features(1 << 2);
    /// Can go on without a majority that is gone for good.
    pub const FORCE: Features = Features(1 << 3);
    /// Of this build.
    pub const ALL: Features =
        Features(Features::REAPING.0 | Features::EXPIRY.0 | Features::SETTINGS.0 | Features::FORCE.0);

    pub fn include(self, others: Features) -> bool {
        self.0 & others.0 == others.0
    }
}

/// The node that speaks. A client has none to give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    pub node: NodeId,
    pub name: NodeName,
    pub run: Run,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub class: Class,
    pub protocols: ProtocolRange,
    /// The cluster the dialer belongs to, if it knows of one.
    pub cluster: Option<ClusterId>,
    pub from: Option<Introduction>,
    pub features: Features,
    /// Version and git hash, for people.
    pub build: String,
}

impl Hello {
    /// Of somebody who is no node: a client, or whoever administers.
    pub fn of_client(class: Class, cluster: Option<ClusterId>) -> Hello {
        let build = BUILD.to_owned();
        Hello { class, protocols: PROTOCOLS, cluster, from: None, features: Features::default(), build }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    pub protocol: u16,
    pub cluster: Option<ClusterId>,
    pub node: Introduction,
    pub features: Features,
    pub build: String,
}

/// Why a connection is not wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotWelcome {
    /// No protocol in common.
    Protocol(ProtocolRange),
    /// The acceptor belongs to this other cluster, or to none.
    OtherCluster(Option<ClusterId>),
    /// The dialer's node or directory is not in the layout.
    NotAMember,
    /// The dialer's directory was seen in this run, which its own does not follow, or which is not trusted any more since
    /// the directory was copied (R3).
    OldCopy { remembered: Run },
    /// The acceptor itself may not serve.
    Retired,
    /// Too many connections.
    Busy,
    /// The acceptor is shutting down.
    Stopping,
}

impl std::fmt::Display for NotWelcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NotWelcome::Protocol(range) => {
                write!(f, "it speaks protocols {} to {}; this build does not", range.oldest, range.newest)
            }
            NotWelcome::OtherCluster(Some(cluster)) => write!(f, "it belongs to another cluster, {cluster}"),
            NotWelcome::OtherCluster(None) => f.write_str("it does not belong to a cluster yet"),
            NotWelcome::NotAMember => f.write_str("this node's directory is not part of the cluster's layout"),
            NotWelcome::OldCopy { remembered } => write!(
                f,
                "it has met start {} of directory {} before: this directory is an old copy, or there is one of it",
                remembered.counter, remembered.directory
            ),
            NotWelcome::Retired => f.write_str("it is retired: its directory was found to be an old copy"),
            NotWelcome::Busy => f.write_str("it has as many connections as it takes"),
            NotWelcome::Stopping => f.write_str("it is shutting down"),
        }
    }
}

pub type Reply = Result<Welcome, NotWelcome>;

/// What can go wrong before a connection stands.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    #[error("cannot be reached: {0}")]
    Unreachable(#[source] io::Error),
    #[error("the connection broke during the hello: {0}")]
    Io(#[from] io::Error),
    #[error("the other side does not speak Starling")]
    NotStarling,
    #[error("the other side's hello has version {0}, which this build does not know")]
    UnknownVersion(u8),
    #[error("the other side's hello is malformed")]
    Malformed(#[from] codec::DecodeError),
    #[error("the connection was refused: {0}")]
    NotWelcome(NotWelcome),
    #[error("the hello was not answered in time")]
    TimedOut,
}

/// The dialer's side.
///
/// # Errors
/// [`HelloError`]; the stream is of no use after it.
pub async fn dial<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, hello: &Hello) -> Result<Welcome, HelloError> {
    send(stream, hello).await?;
    receive::<Reply, S>(stream).await?.map_err(HelloError::NotWelcome)
}

/// The acceptor's first half; [`answer`] is the second.
///
/// # Errors
/// [`HelloError`]; the stream is of no use after it.
pub async fn accept<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Hello, HelloError> {
    receive(stream).await
}

/// # Errors
/// [`HelloError`]; the stream is of no use after it.
pub async fn answer<S: AsyncWrite + Unpin>(stream: &mut S, reply: &Reply) -> Result<(), HelloError> {
    send(stream, reply).await
}

async fn send<T: Serialize, S: AsyncWrite + Unpin>(stream: &mut S, message: &T) -> Result<(), HelloError> {
    stream.write_all(&frame(message)).await?;
    stream.flush().await?;
    Ok(())
}

fn frame<T: Serialize>(message: &T) -> Vec<u8> {
    let body = codec::encode(message);
    let length = u16::try_from(body.len()).expect("names and builds are short");
    [MAGIC.as_slice(), &[VERSION], &length.to_be_bytes(), &body].concat()
}

async fn receive<T: DeserializeOwned, S: AsyncRead + Unpin>(stream: &mut S) -> Result<T, HelloError> {
    let mut magic = [0; MAGIC.len()];
    stream.read_exact(&mut magic).await?;
    if magic != *MAGIC {
        return Err(HelloError::NotStarling);
    }
    let version = stream.read_u8().await?;
    if version != VERSION {
        return Err(HelloError::UnknownVersion(version));
    }
    let length = usize::from(stream.read_u16().await?);
    let mut body = vec![0; length.min(MAX_HELLO_BYTES + 1)];
    stream.read_exact(&mut body).await?;
    Ok(codec::decode(&body, MAX_HELLO_BYTES, "a hello")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_core::ids::DirectoryId;

    fn introduction() -> Introduction {
        let run = Run { directory: DirectoryId(2), counter: 3, nonce: 4 };
        Introduction { node: NodeId(1), name: "n1".parse().unwrap(), run }
    }

    fn hello() -> Hello {
        Hello {
            class: Class::Bulk,
            protocols: ProtocolRange { oldest: 1, newest: 2 },
            cluster: Some(ClusterId(9)),
            from: Some(introduction()),
            features: Features(5),
            build: "b".to_owned(),
        }
    }

    /// Frozen for good: if this fails, the code is wrong, not the test.
    #[test]
    fn the_bytes_of_a_hello_are_frozen() {
        assert_eq!(hex(&frame(&hello())), "535441524c494e4701001002010201090101026e31020304050162");
        let welcome =
            Welcome { protocol: 1, cluster: None, node: introduction(), features: Features(0), build: "b".to_owned() };
        assert_eq!(hex(&frame(&Reply::Ok(welcome))), "535441524c494e4701000d00010001026e31020304000162");
        assert_eq!(hex(&frame(&Reply::Err(NotWelcome::Stopping))), "535441524c494e470100020106");
    }

    #[tokio::test]
    async fn two_sides_meet() {
        let (mut dialer, mut acceptor) = tokio::io::duplex(1024);
        let accepting = tokio::spawn(async move {
            let met = accept(&mut acceptor).await.unwrap();
            answer(&mut acceptor, &Err(NotWelcome::OtherCluster(None))).await.unwrap();
            met
        });
        let refused = dial(&mut dialer, &hello()).await.unwrap_err();
        assert!(matches!(refused, HelloError::NotWelcome(NotWelcome::OtherCluster(None))));
        assert_eq!(accepting.await.unwrap(), hello());
    }

    #[tokio::test]
    async fn strangers_are_recognised() {
        let mut http: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        assert!(matches!(accept(&mut http).await, Err(HelloError::NotStarling)));
        let mut newer: &[u8] = b"STARLING\x02\x00\x00";
        assert!(matches!(accept(&mut newer).await, Err(HelloError::UnknownVersion(2))));
    }

    #[test]
    fn the_newest_common_protocol_is_chosen() {
        let range = |oldest, newest| ProtocolRange { oldest, newest };
        assert_eq!(range(1, 3).common(range(2, 5)), Some(3));
        assert_eq!(range(1, 1).common(range(2, 5)), None);
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
