//! The Starling server.
//!
//! The write path, in reading order: [`api`] checks what a client sent → [`coordinator`] finds out who has to have it
//! (`core/preference`) and drives the machine that decides (`core/put`) → [`link`] carries it to the peers → [`replica`]
//! takes it in there → the store makes it durable. The read path is the same with `core/get`.
//!
//! Around it: [`membership`] (meeting peers, adopting a layout, gossip), [`init`] (making a cluster), [`handoff`] (bringing
//! held copies home), [`anti_entropy`] (replicas compare, by [`comparing`]; [`repairing`] at once), [`scrubbing`],
//! [`reaping`] (how tombstones go), [`registering`] and [`filling`] (coming back after a disk was lost), [`listing`],
//! changes of the ring ([`changing`] → [`choosing`] → [`decrees`] → [`copying`], [`phases`] and [`readdressing`]),
//! [`control`] (administration), [`config`], [`environment`] (what a node needs of the world), [`lifecycle`] which starts
//! and ends it all, and `run` which makes a process of it.
//!
//! Left out on purpose: decisions (core), durability (storage), failure detection (gossip). Missing still:
//! HTTP, TLS.

pub mod anti_entropy;
pub mod api;
mod budget;
pub mod changing;
pub mod choosing;
pub mod comparing;
pub mod config;
pub mod control;
pub mod coordinator;
pub mod copying;
mod counters;
pub mod decrees;
pub mod environment;
pub mod filling;
mod forcing;
pub mod handoff;
pub mod init;
mod latency;
pub mod lifecycle;
pub mod link;
pub mod listing;
pub mod logging;
pub mod membership;
pub mod node;
mod peers;
pub mod phases;
pub mod readdressing;
pub mod reaping;
pub mod registering;
pub mod repairing;
pub mod replica;
#[cfg(feature = "rocksdb")]
mod run;
pub mod scrubbing;
mod server;
pub mod settings;

#[cfg(feature = "rocksdb")]
pub use run::run;
