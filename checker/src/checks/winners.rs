//! Last-write-wins buckets: a write covers whatever its coordinator held, so contexts say little, and any concurrent write
//! may rightly be gone. Left is that a key has one value, and that a key which was written, and neither deleted nor left to
//! expire, has a value.
//!
//! That a write which began after another had been acknowledged wins over it is not asserted: it is not promised. Stamps
//! come from wall clocks, and a coordinator that does not hold the earlier write may be behind.

use crate::assertion::Assertion::{AcknowledgedWriteLost, SeveralWinners, StaleRead};
use crate::checks::Ending;
use crate::checks::moments::Moments;
use crate::history::Entry;
use crate::index::{Index, WriteAt, WriteView};
use crate::report::Report;

pub fn check(index: &Index<'_>, ending: Ending, report: &mut Report<'_>) {
    check_single(index, report);
    check_reads(index, report);
    if ending == Ending::Known {
        check_end(index, report);
    }
}

fn check_single(index: &Index<'_>, report: &mut Report<'_>) {
    let replicas = index.replicas.iter().filter_map(|replica| replica.holds.as_ref());
    let by_replicas = replicas.map(|copy| (copy.values.len(), None));
    let by_reads = index.reads.iter().map(|read| (read.found.values.len(), Some(read.entry)));
    for (values, seen_by) in by_reads.chain(by_replicas) {
        report.tested(SeveralWinners, 1);
        if values > 1 {
            report.violated(index, SeveralWinners, seen_by.as_slice(), || format!("{values} values are shown at once"));
        }
    }
}

/// A strict read that meets a put, and nothing that may have deleted it, shows something.
fn check_reads(index: &Index<'_>, report: &mut Report<'_>) {
    let first_removal = index.writes.iter().filter_map(WriteView::removes_from).min();
    for strictness in index.strictnesses() {
        let strict = |at: &WriteAt| is_put(&index.writes[*at]) && index.binds_strictly(*at, strictness);
        let puts = (0..index.writes.len()).filter(strict).map(|at| (index.writes[at].entry, ()));
        let mut moments = Moments::new(puts.collect());
        let mut last: Option<&Entry> = None;
        for read in index.reads_of(strictness) {
            last = moments.over_before(read.entry).last().map(|(entry, ())| entry).or(last);
            let before = moments.just_before(read.entry).last().map(|(entry, ())| entry).or(last);
            let Some(put) = before.filter(|_| first_removal.is_none_or(|from| read.entry.ended < from)) else {
                continue;
            };
            report.tested(StaleRead, 1);
            if read.found.values.is_empty() {
                let (number, put_number) = (read.entry.number, put.number);
                let what =
                    || format!("read {number} shows nothing, though {put_number} was written and nothing deleted");
                report.violated(index, StaleRead, &[put, read.entry], what);
            }
        }
    }
}

fn check_end(index: &Index<'_>, report: &mut Report<'_>) {
    let acknowledged = |at: &WriteAt| is_put(&index.writes[*at]) && index.writes[*at].write.is_acknowledged();
    let Some(last) = (0..index.writes.len()).rfind(acknowledged) else { return };
    report.tested(AcknowledgedWriteLost, 1);
    let holds_any = index.replicas.iter().any(|replica| !index.held_by(replica).is_empty());
    if holds_any || index.writes.iter().any(|view| view.may_have_removed(index.end)) {
        return;
    }
    // What won over a write that is lost with its disks may have been lost with them too.
    let any_lost = |at: WriteAt| index.is_lost_with_disks(at, index.writes[at].write.asked.replicas);
    if (0..index.writes.len()).any(any_lost) {
        return report.excused(AcknowledgedWriteLost);
    }
    let culprit = index.writes[last].entry;
    report.violated(index, AcknowledgedWriteLost, &[culprit], || {
        format!("nothing is left, though {} was acknowledged", culprit.number)
    });
}

fn is_put(view: &WriteView<'_>) -> bool {
    !view.write.change.is_delete()
}
