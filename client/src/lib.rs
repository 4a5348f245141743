//! The Rust client of Starling.
//!
//! ```no_run
//! # async fn example() -> Result<(), starling_client::ClientError> {
//! let client = starling_client::Client::connect(["127.0.0.1:7401"]).await?;
//! let carts = client.bucket("carts")?;
//!
//! // Read, modify, write: the context says what the write has seen, so that it replaces just that.
//! let cart = carts.get("alice").await?;
//! let merged: Vec<u8> = cart.values().flat_map(|value| value.iter().copied()).collect();
//! carts.put("alice", merged).context(cart.context()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The client learns the cluster's layout from any seed, talks straight to a primary of the key, falls over to the next
//! node when one is unreachable, refuses or is silent, and does all that under one deadline, with a budget for retries.
//! Every write carries a request id, so a repeated write stays one write. Errors are sorted by what to do about them: see
//! [`ClientError`].
//!
//! Where to read next: [`Client`], then `route.rs` for how a node is chosen, and `retry.rs` for when another is tried.
//!
//! Left out on purpose: caching, and resolving siblings, which only the application can.

mod atlas;
mod bucket;
mod client;
mod connection;
mod context;
mod control;
mod error;
mod requests;
mod retry;
mod route;
mod seeds;

pub use bucket::Bucket;
pub use client::{Client, ClientOptions};
pub use context::{Context, InvalidContextText};
pub use control::ControlClient;
pub use error::{Attempt, ClientError};
pub use requests::{Delete, Fetched, Get, Keys, MAX_PAYLOAD_BYTES, Put, Stored};

pub use starling_core as core;
pub use starling_proto as proto;
