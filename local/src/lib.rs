//! Runs a cluster of real `starling-node` processes on this machine: `starling local` for people, and the fixture of
//! the process tests, which kill, pause and restart nodes.
//!
//! A cluster lives in one directory:
//!
//! ```text
//! cluster.toml     the nodes, their addresses, and which processes were started (state.rs)
//! lock             held by the one command that may change something (lock.rs)
//! nodes/n1/data/   the node's own
//! nodes/n1/log     its output; log.1 is what came before (log.rs)
//! ```
//!
//! Where to read next:
//!
//! - what one can do: [`LocalCluster`] (`cluster.rs` creates, `starting.rs` starts, `control.rs` ends),
//!   [`ClusterView`] for reading without the lock, [`EphemeralCluster`] for tests;
//! - why a recycled pid is never signalled: `process.rs`;
//! - how a node is started, and by which thread: `launch.rs` → `forker.rs`.
//!
//! Everything blocks; async callers wrap it (`spawn_blocking`). Each wait has a limit that the caller gives or that
//! stands beside it.
//!
//! Left out on purpose: whether a node *works* (ask it, or poll `status`), supervision (a node that dies stays dead
//! until it is started again), other machines. Linux 5.3 or later only: processes are watched through `/proc` and
//! pidfds.

#[cfg(not(target_os = "linux"))]
compile_error!("starling-local watches processes through /proc and pidfds: it builds on Linux only");

mod binary;
mod cluster;
mod control;
mod ephemeral;
mod error;
mod forker;
mod launch;
mod lock;
mod log;
mod node_ref;
mod port_holder;
mod ports;
mod process;
mod shape;
mod starting;
mod state;
mod view;

pub use binary::find_binary;
pub use cluster::LocalCluster;
pub use control::Exit;
pub use ephemeral::EphemeralCluster;
pub use error::LocalError;
pub use launch::Launch;
pub use node_ref::NodeRef;
pub use port_holder::Holder;
pub use ports::{PortBusy, Protocol};
pub use shape::{DEFAULT_BASE_PORT, InvalidShape, MAX_NODES, Ports, Shape};
pub use view::{ClusterView, NodeState, NodeStatus};
