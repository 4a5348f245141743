//! One key's operations, put in order and joined: which write a value is, which operations returned a context.

use std::ops::Range;

use starling_core::ids::NodeId;
use starling_core::name::ObjectKey;
use starling_core::request::RING_SIZE;

use crate::end::{FinalState, Replica};
use crate::history::{Entry, Expiry, InvalidHistory, Kept, KeptFound, KeptRead};
use crate::operation::{Asked, ContextId, ValueId, Write};

/// A write, by its place among the key's writes in the order in which they were invoked.
pub(crate) type WriteAt = usize;

/// An operation that returned a context, and so says what it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// What this read showed.
    Read(usize),
    /// This write, and what its own context covers.
    Write(WriteAt),
}

pub(crate) struct WriteView<'a> {
    pub entry: &'a Entry,
    pub write: &'a Write,
    /// Of a put of what expires.
    pub expiry: Option<Expiry>,
    /// None without a context.
    context: Option<u32>,
}

pub(crate) struct ReadView<'a> {
    pub entry: &'a Entry,
    pub read: &'a KeptRead,
    pub found: &'a KeptFound,
    shown: Range<usize>,
}

pub(crate) struct Index<'a> {
    pub key: &'a ObjectKey,
    /// By the time of being invoked.
    pub entries: Vec<&'a Entry>,
    pub writes: Vec<WriteView<'a>>,
    /// Those that did not fail.
    pub reads: Vec<ReadView<'a>>,
    pub end: &'a FinalState,
    pub replicas: &'a [Replica],
    shown: Vec<WriteAt>,
    by_value: Vec<(ValueId, WriteAt)>,
    /// Ascending; a context is its place here.
    contexts: Vec<ContextId>,
    /// By context, the first of each the first that ended.
    sources: Vec<Source>,
    /// Where each context's sources begin.
    first_source: Vec<usize>,
    /// How often the key may have been written, every try counted.
    tries: u64,
}

impl WriteView<'_> {
    /// From when on it may have removed what it covers; of what expires, itself too. None of a write that stays.
    pub fn removes_from(&self) -> Option<u64> {
        let may_be_done = !self.write.is_failed();
        let by_deletion = self.write.change.is_delete().then_some(self.entry.invoked);
        by_deletion.or(self.expiry.map(|expiry| expiry.earliest)).filter(|_| may_be_done)
    }

    /// Whether it may have done so by the time of the final state.
    pub fn may_have_removed(&self, end: &FinalState) -> bool {
        let from = self.removes_from().filter(|from| self.expiry.is_none() || *from <= end.at);
        from.is_some()
    }
}

impl ReadView<'_> {
    pub fn asked(&self) -> Asked {
        self.read.asked
    }
}

impl<'a> Index<'a> {
    /// `expiry`: of each value, when it expires, if it does.
    pub fn new(
        key: &'a ObjectKey,
        entries: &'a [Entry],
        expiry: impl Fn(ValueId) -> Option<Expiry>,
        end: &'a FinalState,
    ) -> Result<Index<'a>, InvalidHistory> {
        let mut entries: Vec<&Entry> = entries.iter().collect();
        entries.sort_by_key(|entry| (entry.invoked, entry.number));
        let mut index = Index {
            key,
            entries,
            writes: Vec::new(),
            reads: Vec::new(),
            end,
            replicas: end.replicas_of(key),
            shown: Vec::new(),
            by_value: Vec::new(),
            contexts: Vec::new(),
            sources: Vec::new(),
            first_source: Vec::new(),
            tries: 0,
        };
        index.split(expiry);
        index.join_values()?;
        index.join_contexts()?;
        Ok(index)
    }

    /// The write that wrote the value to this key.
    pub fn writer_of(&self, value: ValueId) -> Option<WriteAt> {
        self.by_value.binary_search_by_key(&value, |(known, _)| *known).ok().map(|at| self.by_value[at].1)
    }

    /// The writes whose values the read showed. Values that nobody had written yet are not among them.
    pub fn shown_by(&self, read: &ReadView<'_>) -> &[WriteAt] {
        &self.shown[read.shown.clone()]
    }

    /// The writes whose values a replica holds in the end.
    pub fn held_by(&self, replica: &Replica) -> Vec<WriteAt> {
        let values = replica.holds.iter().flat_map(|copy| &copy.values);
        values.filter_map(|value| self.writer_of(*value)).collect()
    }

    /// The place of the context that the write used, if any operation returned it.
    pub fn context_of(&self, write: WriteAt) -> Option<usize> {
        self.writes[write].context.map(|context| context as usize)
    }

    pub fn contexts(&self) -> usize {
        self.contexts.len()
    }

    /// The operations that returned a context.
    pub fn sources(&self, context: usize) -> &[Source] {
        let end = self.first_source.get(context + 1).copied().unwrap_or(self.sources.len());
        &self.sources[self.first_source[context]..end]
    }

    pub fn source_of(&self, context: ContextId) -> Option<Source> {
        let at = self.contexts.binary_search(&context).ok()?;
        self.sources(at).first().copied()
    }

    pub fn entry_of(&self, source: Source) -> &'a Entry {
        match source {
            Source::Read(read) => self.reads[read].entry,
            Source::Write(write) => self.writes[write].entry,
        }
    }

    /// The write may come back although it was superseded: a late try is recognised only until [`RING_SIZE`] tries of others
    /// are superseded. Which were, and in which order their stamps are, nobody outside can tell: so there have to be fewer.
    pub fn may_come_back(&self, write: WriteAt) -> bool {
        let tries = u64::from(self.writes[write].write.tries);
        tries > 1 && self.tries - tries >= RING_SIZE as u64
    }

    /// So many disks are lost that the write may have gone with them.
    pub fn is_lost_with_disks(&self, write: WriteAt, enough: u8) -> bool {
        let WriteView { entry, write, .. } = &self.writes[write];
        let lost = |acknowledgement| self.end.lost_with_disks(acknowledgement, entry.span(), enough, self.replicas);
        write.acknowledgement().is_some_and(lost)
    }

    /// Acknowledged, and not lost with the disks that it was acknowledged for.
    pub fn binds(&self, write: WriteAt) -> bool {
        let written = self.writes[write].write;
        written.is_acknowledged() && !self.is_lost_with_disks(write, written.asked.replicas)
    }

    /// Acknowledged by so many primaries that a read which asks for `primaries` of them meets one, and not lost with them.
    pub fn binds_strictly(&self, write: WriteAt, strictness: Strictness) -> bool {
        let WriteView { entry, write: written, .. } = &self.writes[write];
        let Some(acknowledgement) = written.acknowledgement() else { return false };
        let left = self.left_of(written.asked, entry, &acknowledgement.stored_by);
        strictness.is_met_by(left) && !self.is_lost_with_disks(write, written.asked.primaries)
    }

    /// Such a write, but that disks it was on are lost.
    pub fn bound_strictly(&self, write: WriteAt, strictness: Strictness) -> bool {
        let written = self.writes[write].write;
        let was = written.is_acknowledged() && strictness.is_met_by(written.asked);
        was && !self.binds_strictly(write, strictness)
    }

    /// A read that waited for its repair, and so a quorum of this strictness held what it returned, and holds it yet.
    pub fn held_strictly(&self, read: &ReadView<'_>, strictness: Strictness) -> bool {
        let left = self.left_of(read.asked(), read.entry, &[]);
        let lost = || self.end.lost_anywhere(read.entry.span(), read.asked().primaries);
        read.read.waits_for_repair && strictness.is_met_by(left) && !lost()
    }

    /// What a quorum is worth, where some of its primaries have forgotten and answer all the same.
    fn left_of(&self, asked: Asked, entry: &Entry, stored_by: &[NodeId]) -> Asked {
        let forgot = self.end.rolled_back(entry.span(), stored_by, self.replicas);
        Asked { primaries: asked.primaries.saturating_sub(forgot), ..asked }
    }

    /// Reads that are strict in one way, in the order in which they were invoked.
    pub fn reads_of(&self, strictness: Strictness) -> impl Iterator<Item = &ReadView<'a>> {
        self.reads.iter().filter(move |read| Strictness::of_read(read.asked()) == Some(strictness))
    }

    /// All kinds of strict reads that there are.
    pub fn strictnesses(&self) -> Vec<Strictness> {
        let mut all: Vec<_> = self.reads.iter().filter_map(|read| Strictness::of_read(read.asked())).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn split(&mut self, expiry: impl Fn(ValueId) -> Option<Expiry>) {
        for entry in self.entries.clone() {
            match &entry.deed {
                Kept::Write(write) => {
                    let expiry = write.change.value().and_then(&expiry);
                    self.writes.push(WriteView { entry, write, expiry, context: None });
                }
                Kept::Read(KeptRead { found: None, .. }) => {}
                Kept::Read(read @ KeptRead { found: Some(found), .. }) => {
                    self.reads.push(ReadView { entry, read, found, shown: 0..0 });
                }
            }
        }
        self.tries =
            self.writes.iter().filter(|view| !view.write.is_failed()).map(|view| u64::from(view.write.tries)).sum();
    }

    fn join_values(&mut self) -> Result<(), InvalidHistory> {
        let put = |(at, view): (WriteAt, &WriteView<'_>)| view.write.change.value().map(|value| (value, at));
        self.by_value = self.writes.iter().enumerate().filter_map(put).collect();
        self.by_value.sort_unstable();
        let number = |at: WriteAt| self.writes[at].entry.number;
        if let Some(twice) = self.by_value.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let (first, second) = (number(twice[0].1), number(twice[1].1));
            return Err(InvalidHistory::ValueWrittenTwice { value: twice[0].0, first, second });
        }
        for at in 0..self.reads.len() {
            let ReadView { entry, found, .. } = &self.reads[at];
            let begins = self.shown.len();
            let writers = found.values.iter().filter_map(|value| self.writer_of(*value));
            let earlier: Vec<_> = writers.filter(|writer| self.writes[*writer].entry.invoked <= entry.ended).collect();
            self.shown.extend(earlier);
            self.reads[at].shown = begins..self.shown.len();
        }
        Ok(())
    }

    fn join_contexts(&mut self) -> Result<(), InvalidHistory> {
        let mut returned = self.returned_contexts();
        returned.sort_by_key(|(context, source)| (*context, self.entry_of(*source).ended));
        for (context, source) in returned {
            if self.contexts.last() != Some(&context) {
                self.contexts.push(context);
                self.first_source.push(self.sources.len());
            }
            self.sources.push(source);
        }
        for at in 0..self.writes.len() {
            let WriteView { entry, write, .. } = &self.writes[at];
            let Some(used) = write.change.context().filter(|_| !write.is_failed()) else { continue };
            let earliest = self.source_of(used).map(|source| self.entry_of(source).ended);
            if earliest.is_none_or(|ended| ended > entry.invoked) {
                return Err(InvalidHistory::UnknownContext { operation: entry.number });
            }
            let place = self.contexts.binary_search(&used).ok();
            self.writes[at].context = place.and_then(|place| u32::try_from(place).ok());
        }
        Ok(())
    }

    fn returned_contexts(&self) -> Vec<(ContextId, Source)> {
        let by_reads =
            self.reads.iter().enumerate().filter_map(|(at, view)| Some((view.found.context?, Source::Read(at))));
        let returned =
            |(at, view): (WriteAt, &WriteView<'_>)| Some((view.write.acknowledgement()?.context?, Source::Write(at)));
        by_reads.chain(self.writes.iter().enumerate().filter_map(returned)).collect()
    }
}

/// How many primaries have to have a write, so that a read that asks for some of them meets one which has it. Between
/// operations that count different numbers of copies nothing is asserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Strictness {
    copies: u8,
    needed: u8,
}

impl Strictness {
    /// None if the read asks for no primaries: then no write is strict enough for it.
    pub fn of_read(asked: Asked) -> Option<Strictness> {
        let Asked { primaries, copies, .. } = asked;
        (primaries > 0).then(|| Strictness { copies, needed: copies.saturating_sub(primaries) + 1 })
    }

    pub fn is_met_by(self, asked: Asked) -> bool {
        asked.copies == self.copies && asked.primaries >= self.needed
    }
}
