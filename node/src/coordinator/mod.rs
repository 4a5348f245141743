//! The coordinator: drives the core's request machines against real replicas and real time.
//!
//! It only carries out: what is asked of whom, when a hint is left, when the client is answered is decided in
//! [`starling_core::put`] and [`starling_core::get`]. Each request runs in a task of its own, which outlives the client's
//! patience, and ends once every replica has answered or was given up.

mod get;
mod put;
