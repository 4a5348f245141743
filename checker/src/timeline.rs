//! What happened on a key around a violation, for somebody who was not there.

use std::fmt;

use crate::history::{Entry, History, Kept, KeptFound, KeptRead};
use crate::index::{Index, Source};
use crate::operation::{Asked, Change, ContextId, OperationNumber, Session, ValueId, Write, WriteOutcome};

/// Operations shown before and after each culprit.
const AROUND: usize = 3;
/// Operations shown at the most; culprits come first.
const MAX_SHOWN: usize = 40;
/// Values shown of one answer.
const MAX_VALUES: usize = 10;

/// Operations by the time of being invoked, then the replicas as they were left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Timeline {
    pub lines: Vec<Line>,
    pub replicas: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    Operation {
        number: OperationNumber,
        session: Session,
        /// Nanoseconds by the history's clock.
        invoked: u64,
        ended: u64,
        is_culprit: bool,
        what: String,
    },
    /// So many were left out here.
    Omitted(usize),
}

impl Timeline {
    pub(crate) fn new(history: &History, index: &Index<'_>, culprits: &[OperationNumber]) -> Timeline {
        let teller = Teller { history, index };
        let mut lines = Vec::new();
        let mut next = 0;
        for at in chosen(index, culprits) {
            lines.extend((at > next).then(|| Line::Omitted(at - next)));
            next = at + 1;
            let entry = index.entries[at];
            lines.push(Line::Operation {
                number: entry.number,
                session: entry.session,
                invoked: entry.invoked,
                ended: entry.ended,
                is_culprit: culprits.contains(&entry.number),
                what: teller.tell(entry),
            });
        }
        let left = index.entries.len() - next;
        lines.extend((left > 0).then_some(Line::Omitted(left)));
        Timeline { lines, replicas: teller.replicas() }
    }
}

/// The places of the culprits and of what was invoked just before and after each; without culprits, how it ended.
fn chosen(index: &Index<'_>, culprits: &[OperationNumber]) -> Vec<usize> {
    let last = index.entries.len();
    let is_culprit = |at: &usize| culprits.contains(&index.entries[*at].number);
    let mut chosen: Vec<usize> = (0..last).filter(is_culprit).take(MAX_SHOWN).collect();
    if chosen.is_empty() {
        return (last.saturating_sub(2 * AROUND)..last).collect();
    }
    let around = |at: &usize| at.saturating_sub(AROUND)..(at + AROUND + 1).min(last);
    let neighbours: Vec<usize> = chosen.iter().flat_map(around).collect();
    for at in neighbours {
        if chosen.len() < MAX_SHOWN && !chosen.contains(&at) {
            chosen.push(at);
        }
    }
    chosen.sort_unstable();
    chosen
}

/// Puts operations into words.
struct Teller<'a> {
    history: &'a History,
    index: &'a Index<'a>,
}

impl Teller<'_> {
    fn tell(&self, entry: &Entry) -> String {
        match &entry.deed {
            Kept::Write(write) => self.tell_write(write),
            Kept::Read(read) => self.tell_read(read),
        }
    }

    fn tell_write(&self, write: &Write) -> String {
        let Asked { replicas, primaries, copies } = write.asked;
        let what = match write.change {
            Change::Put { value, context } => format!("put {}, {}", self.history.value(value), self.context(context)),
            Change::Delete { context: None } => "delete what a read finds".to_owned(),
            Change::Delete { context } => format!("delete, {}", self.context(context)),
        };
        let outcome = match &write.outcome {
            WriteOutcome::Unknown => "unknown".to_owned(),
            WriteOutcome::Failed => "failed, nothing done".to_owned(),
            WriteOutcome::Acknowledged(acknowledgement) => {
                let nodes: Vec<_> = acknowledgement.stored_by.iter().map(|node| self.history.node(*node)).collect();
                let by = if nodes.is_empty() { String::new() } else { format!(", stored by {}", nodes.join(" ")) };
                let context = if acknowledgement.context.is_some() { ", with a context" } else { "" };
                format!("acknowledged{by}, siblings: {}{context}", acknowledgement.siblings)
            }
        };
        format!("{what}, w={replicas} pw={primaries} of {copies}: {outcome}")
    }

    fn tell_read(&self, read: &KeptRead) -> String {
        let Asked { replicas, primaries, copies } = read.asked;
        let waits = if read.waits_for_repair { " waiting for repair" } else { "" };
        let found = read.found.as_ref().map_or_else(|| "failed".to_owned(), |found| self.tell_found(found));
        format!("read, r={replicas} pr={primaries} of {copies}{waits}: {found}")
    }

    fn tell_found(&self, found: &KeptFound) -> String {
        let what = match (&*found.values, found.deleted) {
            ([], true) => "deleted".to_owned(),
            ([], false) => "nothing".to_owned(),
            (values, _) => self.values(values),
        };
        format!("{what}, clock {}", self.history.tell_small_clock(&found.clock))
    }

    /// `v1 of #0, v2 of #3`
    fn values(&self, values: &[ValueId]) -> String {
        let named = |value: &ValueId| match self.index.writer_of(*value) {
            Some(write) => format!("{} of {}", self.history.value(*value), self.index.writes[write].entry.number),
            None => format!("{} of nobody", self.history.value(*value)),
        };
        let mut told: Vec<String> = values.iter().take(MAX_VALUES).map(named).collect();
        let left = values.len().saturating_sub(MAX_VALUES);
        told.extend((left > 0).then(|| format!("and {left} more")));
        told.join(", ")
    }

    /// Contexts are named by the operation that returned them first.
    fn context(&self, context: Option<ContextId>) -> String {
        let Some(context) = context else { return "no context".to_owned() };
        let Some(source) = self.index.source_of(context) else { return "a context of nobody".to_owned() };
        let number = self.index.entry_of(source).number;
        match source {
            Source::Read(_) => format!("context of read {number}"),
            Source::Write(_) => format!("context of write {number}"),
        }
    }

    fn replicas(&self) -> Vec<String> {
        let told = self.index.replicas.iter().map(|replica| {
            let role = if replica.is_primary { "primary" } else { "no primary" };
            let lost = if self.index.end.is_away(replica.node) { ", its disk was lost" } else { "" };
            let holds = match &replica.holds {
                None => "nothing".to_owned(),
                Some(copy) => {
                    let values = if copy.values.is_empty() { "no value".to_owned() } else { self.values(&copy.values) };
                    format!("{values}, clock {}", self.history.tell_clock(&copy.clock))
                }
            };
            format!("{} ({role}{lost}) holds {holds}", self.history.node(replica.node))
        });
        told.collect()
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        self.replicas.iter().try_for_each(|replica| writeln!(f, "     in the end: {replica}"))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Omitted(1) => f.write_str("     ... 1 more operation"),
            Line::Omitted(count) => write!(f, "     ... {count} more operations"),
            Line::Operation { number, session, invoked, ended, is_culprit, what } => {
                let mark = if *is_culprit { ">>>" } else { "   " };
                let (from, to) = (millis(*invoked), millis(*ended));
                let (number, session) = (number.to_string(), session.0);
                write!(f, " {mark} {from:>10} to {to:>10} ms  session {session:<3} {number:>5} {what}")
            }
        }
    }
}

fn millis(nanos: u64) -> String {
    format!("{}.{:03}", nanos / 1_000_000, nanos / 1_000 % 1_000)
}
