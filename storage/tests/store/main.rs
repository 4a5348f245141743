//! What a node may rely on of its store: one suite, on every engine.
#![allow(clippy::unwrap_used, reason = "a helper fails as its test does")]

#[path = "../support/mod.rs"]
mod support;

mod batches;
mod decrees;
#[cfg(feature = "rocksdb")]
mod directories;
mod driven;
mod failures;
mod filling;
mod hints;
mod layouts;
mod limits;
mod listing;
mod reaping;
mod runs;
#[cfg(feature = "rocksdb")]
mod salvage;
mod settings;
mod trees;
mod writes;
