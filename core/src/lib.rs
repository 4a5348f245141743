//! Starling's decisions, and nothing else.
//!
//! Everything here is a function of its arguments: no threads, no async, no clock, no random numbers, no I/O. Time,
//! randomness and liveness come in as arguments, events come in, actions go out. That is what lets property tests and a
//! simulation drive the very code that runs in production.
//!
//! Where to read next:
//!
//! - where a key lives: [`token`] → [`layout`] → [`preference`] (placement: `placement.rs`);
//! - how that changes: [`change`] → [`ring`] → [`transition`], and how it is agreed upon: [`choice`];
//! - how replicas become equal: [`tree`]; and how one that lost its disk comes back: [`filling`];
//! - how a tombstone, or what has expired, goes for good: [`reaping`], with [`wall`] beside it;
//! - what a key is: [`clock`] → [`object`] → [`coordinate`], with [`mark`], [`request`] and [`context`] beside them;
//! - what a request means that does not say it: [`settings`]; how requests are given way to: [`pacing`];
//! - how a request succeeds: [`quorum`] → [`put`] and [`get`].
//!
//! Left out on purpose: storage, the wire, gossip.

mod attempt;
pub mod change;
pub mod choice;
pub mod clock;
pub mod codec;
pub mod context;
pub mod coordinate;
pub mod fault;
pub mod filling;
pub mod get;
pub mod ids;
pub mod layout;
pub mod mark;
pub mod name;
pub mod object;
pub mod pacing;
mod placement;
pub mod preference;
pub mod put;
pub mod quorum;
pub mod reaping;
pub mod report;
pub mod request;
pub mod ring;
pub mod settings;
pub mod stamp;
pub mod token;
pub mod transition;
pub mod tree;
pub mod wall;
