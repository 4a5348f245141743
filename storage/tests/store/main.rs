//! What a node may rely on of its store: one suite, on every engine.

#[path = "../support/mod.rs"]
mod support;

mod batches;
mod failures;
mod hints;
mod layouts;
mod limits;
mod listing;
mod runs;
mod writes;
