//! A strict read has seen all that a strict quorum is known to have held before it began.
//!
//! Two operations tell what a quorum held: a read that waited for its repair, which was answered only once its quorum held
//! what it returned; and an acknowledged write, whose replicas have in their clock what its context covers, so the clock of
//! the read that the context came from. A read that waits for nothing tells of no quorum: it may have met the only replica
//! that has a write, and the next read, just as strict, need not meet that one again.
//!
//! A key that was deleted, or has expired, may have been forgotten, with its clock, from when on that may first have been so.

use std::collections::BTreeMap;

use crate::assertion::Assertion::ContextWentBackwards;
use crate::checks::moments::Moments;
use crate::clocks::SmallClock;
use crate::history::Entry;
use crate::index::{Index, ReadView, Source, Strictness, WriteAt, WriteView};
use crate::report::Report;

pub fn check(index: &Index<'_>, forgets_deletes: bool, report: &mut Report<'_>) {
    let forgotten_from = first_removal(index).filter(|_| forgets_deletes);
    let clocks = clocks_of_contexts(index);
    for strictness in index.strictnesses() {
        let mut moments = Moments::new(known_to_be_held(index, &clocks, strictness));
        let mut held = Held::default();
        for read in index.reads_of(strictness) {
            moments.over_before(read.entry).for_each(|(entry, clock)| held.take(entry, clock));
            check_read(index, read, &held, forgotten_from, report);
            for (entry, clock) in moments.just_before(read.entry) {
                let mut just_before = Held::default();
                just_before.take(entry, clock);
                check_read(index, read, &just_before, forgotten_from, report);
            }
        }
    }
}

/// The highest counters that a quorum held, each with who told.
#[derive(Default)]
struct Held<'a>(BTreeMap<u32, (u64, Option<&'a Entry>)>);

impl<'a> Held<'a> {
    fn take(&mut self, told_by: &'a Entry, clock: &SmallClock) {
        for (history, counter) in clock.entries() {
            let known = self.0.entry(history).or_default();
            if known.0 < counter {
                *known = (counter, Some(told_by));
            }
        }
    }
}

/// From when on something may have been deleted, or have expired.
fn first_removal(index: &Index<'_>) -> Option<u64> {
    index.writes.iter().filter_map(WriteView::removes_from).min()
}

fn check_read(
    index: &Index<'_>,
    read: &ReadView<'_>,
    held: &Held<'_>,
    forgotten_from: Option<u64>,
    report: &mut Report<'_>,
) {
    report.tested(ContextWentBackwards, usize::from(!held.0.is_empty()));
    let clock = &read.found.clock;
    let missing = held.0.iter().find(|(history, (counter, _))| clock.counter(**history) < *counter);
    if let Some((history, (counter, Some(told_by)))) = missing {
        if forgotten_from.is_some_and(|from| from < read.entry.ended) {
            return report.excused(ContextWentBackwards);
        }
        let (number, told) = (read.entry.number, told_by.number);
        let what =
            || format!("read {number} has not seen h{history}:{counter}, which a quorum held when {told} had ended");
        report.violated(index, ContextWentBackwards, &[told_by, read.entry], what);
    }
}

/// What quorums that this strictness meets are known to have held, and by which operation.
fn known_to_be_held<'a>(
    index: &Index<'a>,
    clocks: &[Option<&'a SmallClock>],
    strictness: Strictness,
) -> Vec<(&'a Entry, &'a SmallClock)> {
    let waited = index.reads.iter().filter(|view| index.held_strictly(view, strictness));
    let strict = |(at, clock): (WriteAt, &Option<&'a SmallClock>)| {
        let clock = (*clock)?;
        index.binds_strictly(at, strictness).then(|| (index.writes[at].entry, clock))
    };
    let by_writes = clocks.iter().enumerate().filter_map(strict);
    waited.map(|view| (view.entry, &view.found.clock)).chain(by_writes).collect()
}

/// Of each write a clock that its context is known to cover: that of the read it came from, through the contexts that
/// writes returned.
fn clocks_of_contexts<'a>(index: &Index<'a>) -> Vec<Option<&'a SmallClock>> {
    let mut clocks: Vec<Option<&SmallClock>> = Vec::with_capacity(index.writes.len());
    for at in 0..index.writes.len() {
        let sources = index.context_of(at).map_or(&[][..], |context| index.sources(context));
        // A write that returned a context was invoked before it was used, so it is known already.
        let clock = sources.iter().find_map(|source| match source {
            Source::Read(read) => Some(&index.reads[*read].found.clock),
            Source::Write(write) => clocks.get(*write).copied().flatten(),
        });
        clocks.push(clock);
    }
    clocks
}
