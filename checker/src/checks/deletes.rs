//! What deletes cover, for certain and perhaps.

use crate::ancestry::Reach;
use crate::assertion::Assertion::DeleteUndone;
use crate::history::Entry;
use crate::index::{Index, Strictness, WriteAt, WriteView};
use crate::operation::Write;
use crate::report::Report;

/// A strict read does not show what a strictly acknowledged delete covers that was over before.
pub fn check_reads(index: &Index<'_>, report: &mut Report<'_>) {
    if !index.writes.iter().any(|view| view.write.change.is_delete()) {
        return;
    }
    for strictness in index.strictnesses() {
        let reach = strictly_deleted(index, strictness);
        for read in index.reads_of(strictness) {
            for &old in index.shown_by(read) {
                report.tested(DeleteUndone, 1);
                let delete = reach.from(old).map(|delete| index.writes[delete].entry);
                let Some(delete) = delete.filter(|delete| delete.is_before(read.entry)) else { continue };
                if index.may_come_back(old) {
                    report.excused(DeleteUndone);
                    continue;
                }
                let old = index.writes[old].entry;
                let what = || {
                    let (read, old, delete) = (read.entry.number, old.number, delete.number);
                    format!(
                        "strict read {read} shows what {old} wrote, after delete {delete}, which had it in its context"
                    )
                };
                report.violated(index, DeleteUndone, &[old, delete, read.entry], what);
            }
        }
    }
}

/// What is covered by deletes that a read of this strictness has to meet, each with the first of them that was over.
fn strictly_deleted(index: &Index<'_>, strictness: Strictness) -> Reach {
    let is_delete = |at: &WriteAt| index.writes[*at].write.change.is_delete();
    let mut deletes: Vec<WriteAt> = (0..index.writes.len()).filter(is_delete).collect();
    deletes.retain(|delete| index.binds_strictly(*delete, strictness));
    deletes.sort_by_key(|delete| index.writes[*delete].entry.ended);
    let mut reach = Reach::new(index);
    deletes.into_iter().for_each(|delete| reach.add_behind(index, delete));
    reach
}

/// What may have been removed: by deletes that did not fail, by what deletes without a context may have found, and by time.
pub struct PerhapsDeleted(Reach);

impl PerhapsDeleted {
    pub fn new(index: &Index<'_>) -> PerhapsDeleted {
        let mut reach = Reach::new(index);
        let mut found_by_blind = 0;
        let removing = |at: WriteAt| Some((index.writes[at].removes_from()?, at));
        let mut removing: Vec<(u64, WriteAt)> = (0..index.writes.len()).filter_map(removing).collect();
        // Each write is told with what may have removed it first.
        removing.sort_unstable();
        for (_, at) in removing {
            let view = &index.writes[at];
            if view.expiry.is_some() {
                reach.add(index, at);
            } else {
                reach.add_behind(index, at);
            }
            let Some(until) = sees_until(view.entry, view.write) else { continue };
            // What these had in their contexts is older than they are, so it is marked as well.
            while index.writes.get(found_by_blind).is_some_and(|found| found.entry.invoked <= until) {
                reach.mark_only(found_by_blind, at);
                found_by_blind += 1;
            }
        }
        PerhapsDeleted(reach)
    }

    /// What may have removed the write first.
    pub fn by(&self, write: WriteAt) -> Option<WriteAt> {
        self.0.from(write)
    }

    /// From when on the write may have been removed.
    pub fn from(&self, index: &Index<'_>, write: WriteAt) -> Option<u64> {
        index.writes[self.by(write)?].removes_from()
    }
}

/// Until when a delete without a context may have read what it removes; none of another write. One of which a try may be
/// under way yet removes whatever that will find, unless it is known when the last was over.
pub fn sees_until(entry: &Entry, write: &Write) -> Option<u64> {
    let is_over = write.is_acknowledged() && write.tries <= 1;
    let until = if is_over { entry.ended } else { write.over_by.unwrap_or(u64::MAX) };
    write.change.is_blind_delete().then_some(until)
}

/// Such a delete of which nobody knows when it was over: it excuses everything.
pub fn excuses_everything(write: &WriteView<'_>) -> bool {
    sees_until(write.entry, write.write) == Some(u64::MAX)
}
