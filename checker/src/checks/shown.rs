//! What was seen was written, and by a write that did not say that nothing was done.

use crate::assertion::Assertion::{FailedWriteVisible, ValueNobodyWrote};
use crate::history::Entry;
use crate::index::Index;
use crate::operation::ValueId;
use crate::report::Report;

pub fn check(index: &Index<'_>, report: &mut Report<'_>) {
    for read in &index.reads {
        check_values(index, &read.found.values, Some(read.entry), report);
    }
    for replica in index.replicas {
        let values = replica.holds.iter().flat_map(|copy| copy.values.iter().copied());
        check_values(index, &values.collect::<Vec<_>>(), None, report);
    }
}

/// `seen_by` is none of the final state.
fn check_values(index: &Index<'_>, values: &[ValueId], seen_by: Option<&Entry>, report: &mut Report<'_>) {
    report.tested(ValueNobodyWrote, values.len());
    report.tested(FailedWriteVisible, values.len());
    let seer = || seen_by.map_or_else(|| "the final state".to_owned(), |read| format!("read {}", read.number));
    for value in values {
        let writer = index.writer_of(*value).map(|writer| &index.writes[writer]);
        let Some(writer) = writer else {
            let what = || format!("{} shows {value}, which nobody wrote to this key", seer());
            report.violated(index, ValueNobodyWrote, seen_by.as_slice(), what);
            continue;
        };
        let culprits: Vec<&Entry> = [writer.entry].into_iter().chain(seen_by).collect();
        if seen_by.is_some_and(|read| read.ended < writer.entry.invoked) {
            let what = || format!("{} shows {value} before {} began to write it", seer(), writer.entry.number);
            report.violated(index, ValueNobodyWrote, &culprits, what);
        }
        if writer.write.is_failed() {
            let what = || format!("{} shows {value}, but write {} was not done", seer(), writer.entry.number);
            report.violated(index, FailedWriteVisible, &culprits, what);
        }
    }
}
