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
    /// No node took the request, and so many requests of this client failed lately that no further node was tried: retries
    /// must not keep an overloaded cluster down. Nothing was done; try later.
    #[error("no node could serve the request, and too many requests failed lately to try more: {}", list(.tried))]
    RetriesSpent { tried: Vec<Attempt> },
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
    /// A write was given up before its deadline, and an earlier attempt of it may have been carried out. It may survive or
    /// not. Repeating it with the same request id is safe.
    #[error("outcome unknown: {reason}: {}", list(.tried))]
    OutcomeUnknown { reason: String, tried: Vec<Attempt> },
    /// Not all whom it takes are there: a listing would have been incomplete, or not every member has adopted a layout. Try
    /// again when more nodes are up.
    #[error("{0}")]
    Incomplete(String),
    /// Something is wrong with a node: report it.
    #[error("{address}: {reason}")]
    Internal { address: String, reason: String },
}

/// Each reason once, with all that gave it: `127.0.0.1:1, 127.0.0.1:2: cannot be reached; 127.0.0.1:3: …`.
fn list(tried: &[Attempt]) -> String {
    if tried.is_empty() {
        return "none was asked in time".to_owned();
    }
    let mut by_reason: Vec<(&str, Vec<&str>)> = Vec::new();
    for Attempt { address, reason } in tried {
        match by_reason.iter_mut().find(|(known, _)| known == reason) {
            Some((_, addresses)) if addresses.contains(&address.as_str()) => {}
            Some((_, addresses)) => addresses.push(address),
            None => by_reason.push((reason, vec![address])),
        }
    }
    let texts: Vec<String> =
        by_reason.iter().map(|(reason, addresses)| format!("{}: {reason}", addresses.join(", "))).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_given_once_for_all_who_gave_it() {
        let attempt = |address: &str, reason: &str| Attempt { address: address.to_owned(), reason: reason.to_owned() };
        let tried = vec![
            attempt("a:1", "is down"),
            attempt("b:1", "is full"),
            attempt("c:1", "is down"),
            attempt("a:1", "is down"),
        ];
        let error = ClientError::Unavailable { tried };
        assert_eq!(error.to_string(), "no node could serve the request: a:1, c:1: is down; b:1: is full");
    }
}
