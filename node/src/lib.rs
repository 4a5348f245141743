//! The Starling server.
//!
//! The write path, in reading order: [`api`] checks what a client sent → [`coordinator`] finds out who has to have it
//! (`core/preference`) and drives the machine that decides (`core/put`) → [`link`] carries it to the peers → [`replica`]
//! takes it in there → the store makes it durable. The read path is the same with `core/get`.
//!
//! Around it: [`membership`] (meeting peers, adopting a layout, gossip), [`init`] (making a cluster), [`handoff`] (bringing
//! held copies home), [`listing`], [`control`] (administration), [`config`], and [`run`] which starts and ends it all.
//!
//! Left out on purpose: decisions (core), durability (storage), failure detection (gossip). Missing still: changes of the
//! layout, anti-entropy, reaping, HTTP, TLS.

pub mod api;
mod budget;
pub mod config;
pub mod control;
pub mod coordinator;
mod counters;
pub mod handoff;
pub mod init;
mod latency;
pub mod link;
pub mod listing;
pub mod logging;
pub mod membership;
pub mod node;
mod peers;
pub mod replica;
mod run;
mod server;

pub use run::run;
