//! What carries gossip from node to node: UDP, or anything else that implements [`Transport`].
//!
//! These are chitchat's own, so that whoever brings a network of its own does not have to find the same version of it.

pub use chitchat::ChitchatMessage;
pub use chitchat::transport::{Socket, Transport, UdpTransport};
