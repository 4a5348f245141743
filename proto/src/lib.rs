//! Starling on the wire.
//!
//! A connection begins with [`hello`], whose bytes are frozen: it says who is there, and agrees on a protocol. After it the
//! stream speaks one tarpc service, by the class of the connection: [`data`] for clients, [`peer`] among nodes (twice,
//! so that bulk transfers never queue before a read), [`control`] for administration. [`network`] opens and accepts streams
//! of bytes; [`connection`] turns any of them into one of these, bounded in frame size and calls in flight.
//!
//! tarpc numbers a service's methods, and bincode an enum's variants, in the order of their declaration. So both are only
//! ever appended to, and golden tests pin the bytes. A struct cannot grow at all, as bincode writes no field names: what
//! needs another field becomes a new type of a new method. A new method is called, and a new variant sent, only to a peer
//! whose hello advertised its feature.
//!
//! Left out on purpose: what the calls mean (node), retries (client), TLS (a [`network`] of its own).

pub mod connection;
pub mod control;
pub mod data;
pub mod hello;
pub mod network;
pub mod peer;

pub use tarpc::client::RpcError;
pub use tarpc::context::Context as CallContext;
pub use tarpc::trace::TraceId;

use std::time::{Duration, Instant};

/// Version and git hash of this build, as `0.1.0 (0123456789ab)`.
pub const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("STARLING_GIT_HASH"), ")");

/// The context of a call that ends `within` from now and begins a trace. The deadline travels as a duration, so clocks
/// need not agree.
pub fn call_within(within: Duration) -> CallContext {
    call_for(TraceId::random(&mut rand::rng()), within)
}

/// The context of a call that ends `within` from now and is made for the sake of another one: every node that has to do
/// with a request logs it under one trace id.
pub fn call_for(trace: TraceId, within: Duration) -> CallContext {
    let mut context = tarpc::context::current();
    context.deadline = Instant::now() + within;
    context.trace_context.trace_id = trace;
    context
}
