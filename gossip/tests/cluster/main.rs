//! Clusters of nodes that gossip, within one process.

mod failure;
mod liveness;
mod support;
mod udp;
