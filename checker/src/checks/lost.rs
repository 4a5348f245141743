//! Acknowledged writes are there in the end, or something that had them in its context.
//!
//! One walk, backwards: from what is held in the end, from every delete that may have been done and from what has expired by
//! then, through the contexts
//! they used. A write that is reached was seen by the next, so it was done, whatever its outcome said, and what it covers
//! may rightly be gone. Tombstones are not seen by readers, so all deletes are taken for done: one that was not makes the
//! check milder, never unjust.

use crate::ancestry::Reach;
use crate::assertion::Assertion::AcknowledgedWriteLost;
use crate::checks::deletes::{excuses_everything, sees_until};
use crate::index::{Index, WriteAt};
use crate::report::Report;

pub fn check(index: &Index<'_>, report: &mut Report<'_>) {
    let mut accounted = accounted_for(index);
    // From the youngest: a lost write is a reason for the older ones that it had covered not to be there.
    for write in (0..index.writes.len()).rev() {
        let view = &index.writes[write];
        if view.write.change.is_delete() || !view.write.is_acknowledged() {
            continue;
        }
        report.tested(AcknowledgedWriteLost, 1);
        if let Some(by) = accounted.from(write) {
            if by != write && excuses_everything(&index.writes[by]) {
                report.excused(AcknowledgedWriteLost);
            }
            continue;
        }
        accounted.add(index, write);
        if index.is_lost_with_disks(write, view.write.asked.replicas) {
            report.excused(AcknowledgedWriteLost);
            continue;
        }
        let number = view.entry.number;
        let what = || format!("write {number} is not there in the end, nor anything that had it in its context");
        report.violated(index, AcknowledgedWriteLost, &[view.entry], what);
    }
}

fn accounted_for(index: &Index<'_>) -> Reach {
    let mut reach = Reach::new(index);
    for held in index.replicas.iter().flat_map(|replica| index.held_by(replica)) {
        reach.add(index, held);
    }
    let removing = index.writes.iter().enumerate().filter(|(_, view)| view.may_have_removed(index.end));
    let mut seen_by_blind: Option<(u64, WriteAt)> = None;
    for (at, view) in removing {
        reach.add(index, at);
        seen_by_blind = seen_by_blind.max(sees_until(view.entry, view.write).map(|until| (until, at)));
    }
    if let Some((until, delete)) = seen_by_blind {
        let seen = index.writes.iter().take_while(|view| view.entry.invoked <= until).count();
        (0..seen).for_each(|write| reach.mark_only(write, delete));
    }
    reach
}
