//! What was seen was written, by a write that did not say that nothing was done, has not expired, and is seen once.

use crate::assertion::Assertion::{ExpiredShown, FailedWriteVisible, ShownTwice, ValueNobodyWrote};
use crate::history::{Entry, Expiry};
use crate::index::Index;
use crate::operation::ValueId;
use crate::report::Report;

pub fn check(index: &Index<'_>, report: &mut Report<'_>) {
    for read in &index.reads {
        check_values(index, &read.found.values, Some(read.entry), report);
        check_once(index, &read.found.values, Some(read.entry), report);
    }
    for replica in index.replicas {
        let values = replica.holds.iter().flat_map(|copy| copy.values.iter().copied());
        let values: Vec<ValueId> = values.collect();
        check_values(index, &values, None, report);
        check_once(index, &values, None, report);
    }
}

/// `seen_by` is none of the final state.
fn check_values(index: &Index<'_>, values: &[ValueId], seen_by: Option<&Entry>, report: &mut Report<'_>) {
    report.tested(ValueNobodyWrote, values.len());
    report.tested(FailedWriteVisible, values.len());
    for value in values {
        let writer = index.writer_of(*value).map(|writer| &index.writes[writer]);
        let Some(writer) = writer else {
            let value = report.value(*value);
            let what = || format!("{} shows {value}, which nobody wrote to this key", seer(seen_by));
            report.violated(index, ValueNobodyWrote, seen_by.as_slice(), what);
            continue;
        };
        let culprits: Vec<&Entry> = [writer.entry].into_iter().chain(seen_by).collect();
        if seen_by.is_some_and(|read| read.ended < writer.entry.invoked) {
            let value = report.value(*value);
            let what = || format!("{} shows {value} before {} began to write it", seer(seen_by), writer.entry.number);
            report.violated(index, ValueNobodyWrote, &culprits, what);
        }
        if let Some(Expiry { latest, .. }) = writer.expiry {
            report.tested(ExpiredShown, 1);
            if seen_by.map_or(index.end.at, |read| read.invoked) > latest {
                let value = report.value(*value);
                let what = || format!("{} shows {value}, which had expired for everybody by {latest}", seer(seen_by));
                report.violated(index, ExpiredShown, &culprits, what);
            }
        }
        if writer.write.is_failed() {
            let value = report.value(*value);
            let what = || format!("{} shows {value}, but write {} was not done", seer(seen_by), writer.entry.number);
            report.violated(index, FailedWriteVisible, &culprits, what);
        }
    }
}

/// Two coordinators that both carried a write out leave two siblings. A reader is shown one of them.
fn check_once(index: &Index<'_>, values: &[ValueId], seen_by: Option<&Entry>, report: &mut Report<'_>) {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    for same in sorted.chunk_by(|value, next| value == next) {
        let value = same[0];
        let writer = index.writer_of(value).map(|writer| &index.writes[writer]);
        let was_repeated = writer.is_some_and(|writer| writer.write.tries > 1);
        report.tested(ShownTwice, usize::from(was_repeated || same.len() > 1));
        if same.len() > 1 {
            let culprits: Vec<&Entry> = writer.map(|writer| writer.entry).into_iter().chain(seen_by).collect();
            let value = report.value(value);
            let what = || format!("{} shows {value} {} times", seer(seen_by), same.len());
            report.violated(index, ShownTwice, &culprits, what);
        }
    }
}

fn seer(seen_by: Option<&Entry>) -> String {
    seen_by.map_or_else(|| "the final state".to_owned(), |read| format!("read {}", read.number))
}
