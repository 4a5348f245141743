//! What the cluster looks like from here.
//!
//! Each node says a few things of itself, an [`Announcement`]; [`chitchat`] spreads them over UDP and guesses
//! who still runs. This crate turns that into one immutable [`View`], which a node watches: it is replaced only when
//! something changed, and holds this node as well.
//!
//! A view is a hint about the world, never a proof. It may be seconds old, two nodes may hold different ones, and
//! nothing in it is authenticated. It decides whom to ask first, and whom to pass over. Whatever removes a copy or ends
//! a phase asks by RPC.
//!
//! Where to read next: [`announcement`] for what a node says, `encoding.rs` for how it is written, `translator.rs` for
//! how chitchat's state becomes a [`view`], [`settings`] for how soon a silent node is given up, and `gossip.rs` for the
//! task that keeps it going. [`transport`] is what another network than UDP has to bring.
//!
//! Left out on purpose: layouts, which move by RPC, by version and checksum (a value here stays below
//! [`MAX_VALUE_BYTES`]); who is right when two runs claim one node, which `hello` decides; encryption; goodbyes: a node
//! that stops is noticed by its silence, as one that was killed. Chitchat sends the list of all nodes in one datagram,
//! so a cluster has hundreds of nodes, not thousands.

pub mod announcement;
mod encoding;
mod error;
mod gossip;
pub mod settings;
mod socket;
mod translator;
pub mod transport;
pub mod view;

pub use announcement::{Address, Announcement, HintTargets, ShortText, Standing};
pub use encoding::{MAX_VALUE_BYTES, Unreadable};
pub use error::GossipError;
pub use gossip::Gossip;
pub use settings::{InvalidSettings, Settings, Timing};
pub use view::{Conflict, Peer, RunSeen, View};
