//! A write removes what its context covers: for good, and wherever it is seen itself.

use std::collections::BTreeSet;

use crate::ancestry::{Ancestry, Reach};
use crate::assertion::Assertion::{DeleteUndone, NotSuperseded, Resurrected};
use crate::history::Entry;
use crate::index::{Index, WriteAt};
use crate::report::Report;

/// No state holds a write beside one that covers it. Returns the writes that the final state was found to hold so.
pub fn check_shown_together(index: &Index<'_>, ancestry: &mut Ancestry, report: &mut Report<'_>) -> BTreeSet<WriteAt> {
    for read in &index.reads {
        check_together(index, ancestry, index.shown_by(read), Some(read.entry), report);
    }
    let mut beside = BTreeSet::new();
    for replica in index.replicas {
        beside.extend(check_together(index, ancestry, &index.held_by(replica), None, report));
    }
    beside
}

/// In the end nothing is left that an acknowledged write covers, whether that is still there itself or not. Asked only of
/// replicas that agree: one that lags shows what is old, and that it lags is said elsewhere.
pub fn check_end(index: &Index<'_>, beside: &BTreeSet<WriteAt>, report: &mut Report<'_>) {
    if index.replicas.is_empty() {
        return;
    }
    let behind = |of_deletes: bool| {
        let mut reach = Reach::new(index);
        let causes = (0..index.writes.len()).filter(|at| index.writes[*at].write.change.is_delete() == of_deletes);
        causes.filter(|at| index.binds(*at)).for_each(|at| reach.add_behind(index, at));
        reach
    };
    let held: BTreeSet<WriteAt> = index.replicas.iter().flat_map(|replica| index.held_by(replica)).collect();
    for (assertion, reach) in [(DeleteUndone, behind(true)), (Resurrected, behind(false))] {
        report.tested(assertion, (0..index.writes.len()).filter(|at| reach.from(*at).is_some()).count());
        for write in held.iter().filter(|write| !beside.contains(write)) {
            let Some(cause) = reach.from(*write) else { continue };
            if index.may_come_back(*write) {
                report.excused(assertion);
                continue;
            }
            let (old, new) = (index.writes[*write].entry, index.writes[cause].entry);
            let what =
                || format!("the final state holds what {} wrote; {} had it in its context", old.number, new.number);
            report.violated(index, assertion, &[old, new], what);
        }
    }
}

fn check_together(
    index: &Index<'_>,
    ancestry: &mut Ancestry,
    shown: &[WriteAt],
    seen_by: Option<&Entry>,
    report: &mut Report<'_>,
) -> Vec<WriteAt> {
    let mut found = Vec::new();
    for &old in shown {
        let Some(&new) = shown.iter().find(|new| **new != old && ancestry.covers(index, **new, old)) else { continue };
        if index.may_come_back(old) {
            report.excused(NotSuperseded);
            continue;
        }
        found.push(old);
        let (old, new) = (index.writes[old].entry, index.writes[new].entry);
        let culprits: Vec<&Entry> = [old, new].into_iter().chain(seen_by).collect();
        report.violated(index, NotSuperseded, &culprits, || {
            let seer = seen_by.map_or_else(|| "the final state".to_owned(), |read| format!("read {}", read.number));
            format!("{seer} shows what {} wrote beside that of {}, which had it in its context", old.number, new.number)
        });
    }
    report.tested(NotSuperseded, if shown.len() > 1 { shown.len() } else { 0 });
    found
}
