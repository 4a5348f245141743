//! The world below the nodes: time, entropy, a network, hosts. It knows nothing of Starling.
//!
//! One thread runs everything. Time goes on in ticks of a millisecond: what the network has to deliver by then is
//! delivered, then every host runs in turn until it has nothing left to do before the tick's end. No host can see another
//! within a tick, since every message takes a tick at least; so the order of hosts within it changes nothing but the
//! order of draws from one stream of entropy, and that order is fixed.

pub mod entropy;
pub mod host;
pub mod network;
mod overrides;
pub mod time;
