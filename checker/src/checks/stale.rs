//! A strict read shows every strictly acknowledged write that was over before it began, or what replaced it.
//!
//! Strict means that the primaries which acknowledged and those which answered have one in common. The read then merges a
//! state that has the write in its clock: the write is live there, or something has superseded it, which is live itself or
//! superseded in turn. So at the end of the chain there is something that the read shows, or a tombstone that it hides.

use crate::ancestry::Ancestry;
use crate::assertion::Assertion::StaleRead;
use crate::checks::deletes::{PerhapsDeleted, excuses_everything};
use crate::checks::moments::Moments;
use crate::index::{Index, ReadView, Strictness, WriteAt};
use crate::report::Report;

pub fn check(index: &Index<'_>, ancestry: &mut Ancestry, report: &mut Report<'_>) {
    let strictnesses = index.strictnesses();
    if strictnesses.is_empty() {
        return;
    }
    let deleted = PerhapsDeleted::new(index);
    for strictness in strictnesses {
        Pass { index, ancestry, deleted: &deleted, frontier: Vec::new() }.run(strictness, report);
    }
}

/// The reads of one strictness, in the order in which they were invoked.
struct Pass<'a> {
    index: &'a Index<'a>,
    ancestry: &'a mut Ancestry,
    deleted: &'a PerhapsDeleted,
    /// What reads have to show: writes that are strictly acknowledged, and of which none covers another. A read that shows
    /// what covers the one shows what covers the other too.
    frontier: Vec<WriteAt>,
}

impl Pass<'_> {
    fn run(&mut self, strictness: Strictness, report: &mut Report<'_>) {
        let index = self.index;
        let puts: Vec<WriteAt> =
            (0..index.writes.len()).filter(|at| !index.writes[*at].write.change.is_delete()).collect();
        let forgotten = puts.iter().filter(|put| index.bound_strictly(**put, strictness));
        forgotten.for_each(|_| report.excused(StaleRead));
        let strict = puts.into_iter().filter(|put| index.binds_strictly(*put, strictness));
        let writes = strict.map(|at| (index.writes[at].entry, at));
        let mut moments = Moments::new(writes.collect());
        for read in index.reads_of(strictness) {
            moments.over_before(read.entry).for_each(|(_, write)| self.advance(write));
            self.forget_deleted(read, report);
            let just_before = moments.just_before(read.entry).map(|(_, write)| write);
            let due: Vec<WriteAt> = self.frontier.iter().copied().chain(just_before).collect();
            for write in due {
                report.tested(StaleRead, 1);
                if !self.is_satisfied(read, write) {
                    self.complain(read, write, report);
                }
            }
        }
    }

    fn advance(&mut self, write: WriteAt) {
        let Pass { index, ancestry, frontier, .. } = self;
        if frontier.iter().any(|known| ancestry.covers(index, *known, write)) {
            return;
        }
        frontier.retain(|known| !ancestry.covers(index, write, *known));
        frontier.push(write);
    }

    /// What may have been removed by now may be gone for all reads to come.
    fn forget_deleted(&mut self, read: &ReadView<'_>, report: &mut Report<'_>) {
        let Pass { index, deleted, frontier, .. } = self;
        frontier.retain(|write| {
            let Some((delete, from)) = deleted.by(*write).zip(deleted.from(index, *write)) else { return true };
            let may_be_gone = from <= read.entry.invoked;
            if may_be_gone && excuses_everything(&index.writes[delete]) {
                report.excused(StaleRead);
            }
            !may_be_gone
        });
    }

    fn is_satisfied(&mut self, read: &ReadView<'_>, write: WriteAt) -> bool {
        let Pass { index, ancestry, deleted, .. } = self;
        let shown = index.shown_by(read);
        shown.contains(&write)
            || deleted.from(index, write).is_some_and(|from| from <= read.entry.ended)
            || shown.iter().any(|shown| ancestry.covers(index, *shown, write))
    }

    /// Once is enough for a write: if it is lost, every later read would say so.
    fn complain(&mut self, read: &ReadView<'_>, write: WriteAt, report: &mut Report<'_>) {
        self.frontier.retain(|known| *known != write);
        let view = &self.index.writes[write];
        report.violated(self.index, StaleRead, &[view.entry, read.entry], || {
            let (wrote, asked) = (view.entry.number, view.write.asked);
            let (number, pr) = (read.entry.number, read.asked().primaries);
            let quorums = format!("pw={} and pr={pr} of {}", asked.primaries, asked.copies);
            format!("read {number} shows neither write {wrote}, acknowledged before, nor what replaced it ({quorums})")
        });
    }
}
