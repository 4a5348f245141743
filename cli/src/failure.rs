//! What went wrong, as a person and a program are told, and which exit code says so.

use std::fmt;
use std::io;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use starling_client::ClientError;
use starling_core::ids::RequestId;
use starling_core::report::{Outcome, ReplicaReport, Role};
use starling_local::{InvalidShape, LocalError};

use crate::names::Names;
use crate::report::explain::ReplicaLine;

/// Code 1.
pub const FAILED: u8 = 1;
/// Code 2.
pub const USAGE: u8 = 2;
/// Code 3.
pub const NOT_FOUND: u8 = 3;

/// Code 4.
pub const UNDECIDED: u8 = 4;

/// What kind of failure it is. In JSON its name in snake case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The command line, the environment or the configuration file makes no sense.
    Usage,
    /// The cluster refused the request as it is; repeating it is of no use.
    Refused,
    /// Something on this machine: a file, a process, a port.
    Failed,
    /// A node reports a fault of its own.
    Internal,
    /// Fewer replicas than asked for answered a read.
    QuorumNotMet,
    /// A write may survive or not.
    OutcomeUnknown,
    /// Too few nodes are up to be sure of all.
    Incomplete,
    /// The nodes belong to no cluster yet.
    NoCluster,
    /// No node took the request, and nothing was done.
    Unreachable,
    /// Whoever read our output has gone away: nothing is wrong, and there is nobody to tell.
    ReaderGone,
}

impl Kind {
    pub fn code(self) -> u8 {
        match self {
            Kind::ReaderGone => 0,
            Kind::Refused | Kind::Failed | Kind::Internal => FAILED,
            Kind::Usage => USAGE,
            Kind::QuorumNotMet | Kind::OutcomeUnknown | Kind::Incomplete => UNDECIDED,
            Kind::NoCluster | Kind::Unreachable => 5,
        }
    }
}

/// As in JSON.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    pub kind: Kind,
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    /// What each replica did, of a request that missed its quorum.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<ReplicaLine>,
    /// Of a write whose outcome is unknown: what to repeat it with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// What a request was for: it decides what silence means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    Read,
    Write(Option<RequestId>),
}

impl Failure {
    pub fn new(kind: Kind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into(), hint: None, replicas: Vec::new(), request: None }
    }

    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Kind::Usage, message)
    }

    pub fn failed(message: impl Into<String>) -> Failure {
        Failure::new(Kind::Failed, message)
    }

    pub fn hint(self, hint: impl Into<String>) -> Failure {
        Failure { hint: Some(hint.into()), ..self }
    }

    /// "cannot {doing}: …".
    pub fn io(doing: impl fmt::Display, error: &io::Error) -> Failure {
        Failure::failed(format!("cannot {doing}: {error}"))
    }

    /// Standard output could not be written to.
    pub fn output(error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::new(Kind::ReaderGone, "nobody reads the output"),
            _ => Failure::io("write the output", error),
        }
    }

    pub fn from_clap(refusal: &clap::Error) -> Failure {
        let text = refusal.render().to_string();
        // The first line, and what is listed below it.
        let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
        let listed = rest.lines().take_while(|line| line.starts_with("  ")).map(str::trim);
        let message = std::iter::once(first.trim_start_matches("error: ")).chain(listed).collect::<Vec<_>>().join(" ");
        let tip = text.lines().find_map(|line| line.trim().strip_prefix("tip: "));
        Failure::usage(message).hint(tip.unwrap_or("see `--help`"))
    }

    pub fn from_client(error: ClientError, intent: Intent, names: &Names) -> Failure {
        let message = error.to_string();
        match error {
            ClientError::Invalid(_) => Failure::new(Kind::Refused, message),
            ClientError::Unavailable { .. } => Failure::new(Kind::Unreachable, message)
                .hint("nothing was done: `starling cluster status` shows who is up; try again"),
            ClientError::RetriesSpent { .. } => Failure::new(Kind::Unreachable, message)
                .hint("nothing was done: wait a little, or see with `starling cluster status` what is wrong"),
            ClientError::ReadQuorumNotMet { replicas, .. } => Failure {
                hint: Some(after_a_missed_read(&replicas).to_owned()),
                replicas: names.lines(&replicas),
                ..Failure::new(Kind::QuorumNotMet, message)
            },
            ClientError::WriteQuorumNotMet { replicas, .. } => {
                Failure { replicas: names.lines(&replicas), ..Failure::unknown(message, intent) }
            }
            ClientError::DeadlinePassed { .. } => match intent {
                Intent::Read => Failure::new(Kind::Unreachable, message).hint("try again, or with a longer --timeout"),
                Intent::Write(_) => Failure::unknown(message, intent),
            },
            ClientError::OutcomeUnknown { .. } => Failure::unknown(message, intent),
            ClientError::Incomplete(_) => Failure::new(Kind::Incomplete, message)
                .hint("`starling cluster status` shows who is missing; try again"),
            ClientError::Internal { .. } => {
                Failure::new(Kind::Internal, message).hint("this is a fault of that node: see its log")
            }
        }
    }

    /// Of a write: it may survive.
    fn unknown(message: String, intent: Intent) -> Failure {
        let failure = Failure::new(Kind::OutcomeUnknown, message);
        match intent {
            Intent::Write(Some(id)) => Failure { request: Some(id.to_string()), ..failure }
                .hint(format!("the write may survive or not; the same command with --request {id} repeats it safely")),
            Intent::Write(None) | Intent::Read => failure.hint("it may have been done or not; repeating it is safe"),
        }
    }

    pub fn exit(&self) -> ExitCode {
        self.kind.code().into()
    }
}

fn after_a_missed_read(replicas: &[ReplicaReport]) -> &'static str {
    let empty_handed = |replica: &ReplicaReport| replica.role != Role::Primary && replica.outcome == Outcome::NotFound;
    if replicas.iter().any(empty_handed) {
        return "a fallback that holds nothing counts for nothing, since it says nothing of what the primaries hold: \
                `starling cluster status` shows who is up; try again when a primary is";
    }
    "try again, or ask for fewer replicas with --r and --pr"
}

impl From<LocalError> for Failure {
    fn from(error: LocalError) -> Failure {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        let kind = match error {
            LocalError::Shape(InvalidShape::Nodes(_) | InvalidShape::Zones { .. } | InvalidShape::Ports { .. })
            | LocalError::UnknownNode { .. } => Kind::Usage,
            _ => Kind::Failed,
        };
        // Its messages say what to do themselves, behind the first colon.
        Failure::new(kind, format!("{error}{source}"))
    }
}

#[cfg(test)]
mod tests {
    use starling_client::Attempt;

    use super::*;

    fn silent() -> ClientError {
        let attempt = Attempt { address: "127.0.0.1:1".to_owned(), reason: "did not answer".to_owned() };
        ClientError::DeadlinePassed { tried: vec![attempt] }
    }

    #[test]
    fn silence_leaves_a_write_unknown_and_a_read_undone() {
        let names = Names::default();
        let write = Failure::from_client(silent(), Intent::Write(Some(RequestId(7))), &names);
        assert_eq!((write.kind, write.kind.code()), (Kind::OutcomeUnknown, 4));
        assert!(write.hint.unwrap().contains("--request 00000000000000000000000000000007"));
        let read = Failure::from_client(silent(), Intent::Read, &names);
        assert_eq!((read.kind, read.kind.code()), (Kind::Unreachable, 5));
    }

    #[test]
    fn giving_up_is_told_apart_by_what_it_left_behind() {
        let code = |error, intent| Failure::from_client(error, intent, &Names::default()).kind.code();
        let write = Intent::Write(Some(RequestId(7)));
        assert_eq!(code(ClientError::RetriesSpent { tried: Vec::new() }, write), 5);
        let unknown = ClientError::OutcomeUnknown { reason: "it was refused".to_owned(), tried: Vec::new() };
        assert_eq!(code(unknown, write), 4);
    }

    #[test]
    fn a_mistake_on_the_command_line_keeps_its_suggestion() {
        use clap::Parser;
        let refusal = crate::args::Cli::try_parse_from(["starling", "delet"]).unwrap_err();
        let failure = Failure::from_clap(&refusal);
        assert_eq!(failure.message, "unrecognized subcommand 'delet'");
        let refusal = crate::args::Cli::try_parse_from(["starling", "get", "tst"]).unwrap_err();
        let message = Failure::from_clap(&refusal).message;
        assert_eq!(message, "the following required arguments were not provided: <KEY>");
        assert!(failure.hint.unwrap().contains("'delete'"));
    }
}
