//! What carries gossip from node to node: UDP, or anything else that implements [`Transport`].
//!
//! These are chitchat's own, so that whoever brings another network does not have to find the same version of it.

pub use chitchat::transport::{ChannelTransport, RecvOutcome, SendOutcome, Socket, Transport, UdpTransport};
pub use chitchat::{ChitchatEnvelope, ChitchatMessage, Deserializable, ProtocolVersion, Serializable};
