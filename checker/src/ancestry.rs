//! Who had whom in its context.
//!
//! A context covers what the operation that returned it showed, and whatever those writes' own contexts cover: a state that
//! holds a write has a clock which covers all that the write had seen. Two questions are asked of that graph. What lies
//! behind a set of writes is one walk over the history ([`Reach`]). Whether one write lies behind another is searched
//! ([`Ancestry`]), among the writes that were invoked after it: what covers a write has read it first.
//!
//! Neither calls itself: a chain may be as long as the history.

use std::collections::BTreeMap;

use crate::index::{Index, Source, WriteAt};

/// How many writes' answers are remembered. Most writes are asked for a short while and never again.
const REMEMBERED: usize = 512;

/// What lies behind some writes, each remembered with the first of them that it was found behind.
pub(crate) struct Reach {
    from: Vec<Option<u32>>,
    contexts: Vec<bool>,
    pending: Vec<WriteAt>,
}

impl Reach {
    pub fn new(index: &Index<'_>) -> Reach {
        let (writes, contexts) = (index.writes.len(), index.contexts());
        Reach { from: vec![None; writes], contexts: vec![false; contexts], pending: Vec::new() }
    }

    /// The first of the origins that the write was found behind.
    pub fn from(&self, write: WriteAt) -> Option<WriteAt> {
        self.from[write].map(|origin| origin as usize)
    }

    /// Marks the write, and all that lies behind it.
    pub fn add(&mut self, index: &Index<'_>, write: WriteAt) {
        self.mark(write, write);
        self.drain(index, write);
    }

    /// Marks all that lies behind the write.
    pub fn add_behind(&mut self, index: &Index<'_>, write: WriteAt) {
        self.open_context(index, write, write);
        self.drain(index, write);
    }

    /// Marks one write and not what lies behind it.
    pub fn mark_only(&mut self, write: WriteAt, origin: WriteAt) {
        if self.from[write].is_none() {
            self.from[write] = u32::try_from(origin).ok();
        }
    }

    fn mark(&mut self, write: WriteAt, origin: WriteAt) {
        if self.from[write].is_none() {
            self.mark_only(write, origin);
            self.pending.push(write);
        }
    }

    fn drain(&mut self, index: &Index<'_>, origin: WriteAt) {
        while let Some(write) = self.pending.pop() {
            self.open_context(index, write, origin);
        }
    }

    fn open_context(&mut self, index: &Index<'_>, write: WriteAt, origin: WriteAt) {
        let Some(context) = index.context_of(write) else { return };
        if std::mem::replace(&mut self.contexts[context], true) {
            return;
        }
        for_each_covered(index, context, |covered| self.mark(covered, origin));
    }
}

/// Remembers of some writes which others cover them, and which do not.
#[derive(Default)]
pub(crate) struct Ancestry {
    asked: BTreeMap<WriteAt, Answers>,
    questions: u64,
}

/// What is known of one write, the ancestor.
#[derive(Default)]
struct Answers {
    last_asked: u64,
    /// By the other write, counted from the first that can cover this one.
    known: Vec<Answer>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Answer {
    #[default]
    Unknown,
    Covers,
    DoesNot,
}

impl Ancestry {
    /// Whether `later` had `earlier` in its context, itself or through others.
    pub fn covers(&mut self, index: &Index<'_>, later: WriteAt, earlier: WriteAt) -> bool {
        let first = first_that_can_cover(index, earlier);
        if later < first || index.context_of(later).is_none() {
            return false;
        }
        self.questions += 1;
        let questions = self.questions;
        let answers = self.asked.entry(earlier).or_default();
        answers.last_asked = questions;
        let covers = answers.search(index, later, earlier, first);
        if self.asked.len() > REMEMBERED {
            self.forget_the_oldest();
        }
        covers
    }

    fn forget_the_oldest(&mut self) {
        let mut ages: Vec<u64> = self.asked.values().map(|answers| answers.last_asked).collect();
        let middle = ages.len() / 2;
        let (_, &mut median, _) = ages.select_nth_unstable(middle);
        self.asked.retain(|_, answers| answers.last_asked >= median);
    }
}

impl Answers {
    fn search(&mut self, index: &Index<'_>, later: WriteAt, earlier: WriteAt, first: usize) -> bool {
        match self.get(later - first) {
            Answer::Covers => return true,
            Answer::DoesNot => return false,
            Answer::Unknown => self.set(later - first, Answer::DoesNot),
        }
        // What the search comes by does not cover the write either, unless the search succeeds: then of those nothing is known.
        let mut came_by = vec![later];
        let mut next = 0;
        let mut found = false;
        while let Some(&write) = came_by.get(next).filter(|_| !found) {
            next += 1;
            let Some(context) = index.context_of(write) else { continue };
            for_each_covered(index, context, |covered| {
                if covered == earlier {
                    found = true;
                } else if covered >= first {
                    match self.get(covered - first) {
                        Answer::Covers => found = true,
                        Answer::DoesNot => {}
                        Answer::Unknown => {
                            self.set(covered - first, Answer::DoesNot);
                            came_by.push(covered);
                        }
                    }
                }
            });
        }
        if found {
            came_by.iter().for_each(|write| self.set(write - first, Answer::Unknown));
            self.set(later - first, Answer::Covers);
        }
        found
    }

    fn get(&self, at: usize) -> Answer {
        self.known.get(at).copied().unwrap_or_default()
    }

    fn set(&mut self, at: usize, answer: Answer) {
        if self.known.len() <= at {
            self.known.resize(at + 1, Answer::Unknown);
        }
        self.known[at] = answer;
    }
}

/// What covers a write read it before, so it was invoked after it, or at the same moment.
fn first_that_can_cover(index: &Index<'_>, write: WriteAt) -> WriteAt {
    let invoked = index.writes[write].entry.invoked;
    let mut first = write;
    while first > 0 && index.writes[first - 1].entry.invoked == invoked {
        first -= 1;
    }
    first
}

/// The writes that a context covers directly.
fn for_each_covered(index: &Index<'_>, context: usize, mut visit: impl FnMut(WriteAt)) {
    for source in index.sources(context) {
        match source {
            Source::Read(read) => index.shown_by(&index.reads[*read]).iter().for_each(|write| visit(*write)),
            Source::Write(write) => visit(*write),
        }
    }
}
