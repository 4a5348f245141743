//! Errors, sorted by what their reader can do.

use starling_core::quorum::{Quorum, Tally};
use starling_core::report::ReplicaReport;

/// A node that was tried, and why that did not help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// `host:port`.
    pub address: String,
    pub reason: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Fix the request: repeating it fails again. Nothing was done.
    #[error("{0}")]
    Invalid(String),
    /// No node took the request: all are unreachable, overloaded, or not serving. Nothing was done; try later.
    #[error("no node could serve the request: {}", list(.tried))]
    Unavailable { tried: Vec<Attempt> },
    /// A read met fewer replicas than were asked for. Try again, or ask for fewer.
    #[error("{}", quorum_text("read quorum not met", "answered", .quorum, .counted))]
    ReadQuorumNotMet { quorum: Quorum, counted: Tally, replicas: Vec<ReplicaReport> },
    /// A write reached fewer replicas than were asked for. It may survive or not. Repeating it with the same request id
    /// is safe.
    #[error("{}", quorum_text("write quorum not met, outcome unknown", "acknowledged", .quorum, .acknowledged))]
    WriteQuorumNotMet { quorum: Quorum, acknowledged: Tally, replicas: Vec<ReplicaReport> },
    /// The deadline passed with a request under way. A read may be repeated; a write may survive or not, and repeating it
    /// with the same request id is safe.
    #[error("no answer before the deadline: {}", list(.tried))]
    DeadlinePassed { tried: Vec<Attempt> },
    /// A listing would have been incomplete. Try again when more nodes are up.
    #[error("the listing would be incomplete: {0}")]
    Incomplete(String),
    /// Something is wrong with a node: report it.
    #[error("{address}: {reason}")]
    Internal { address: String, reason: String },
}

fn list(tried: &[Attempt]) -> String {
    if tried.is_empty() {
        return "no addresses are known".to_owned();
    }
    let texts: Vec<String> = tried.iter().map(|attempt| format!("{} {}", attempt.address, attempt.reason)).collect();
    texts.join("; ")
}

fn quorum_text(what: &str, did: &str, quorum: &Quorum, tally: &Tally) -> String {
    let all = tally.primaries + tally.fallbacks;
    let primaries = match quorum.primaries() {
        0 => String::new(),
        wanted => format!(", {} of {wanted} primaries", tally.primaries),
    };
    format!("{what}: {all} of {} {did}{primaries}", quorum.replicas())
}
