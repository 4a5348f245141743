//! Whether a database kept its promises, judged from outside: a history of operations goes in, a [`Verdict`] comes out.
//!
//! A [`History`] takes in [`Operation`]s as they end, in any order, each with the times of its invocation and its end by
//! one common clock, what was asked and what came back. Once faults have healed and writers have stopped, every replica is
//! read by itself and the [`FinalState`] is added. [`History::check`] then says which promises were put to the test how
//! often, and shows each that was broken with those who took part and what happened around them. Nothing here knows how
//! operations came about: a simulation, a test with real nodes and a drill in production are judged alike. The same history
//! gets the same verdict: no clock, no random numbers, no threads, no I/O.
//!
//! # The graph
//!
//! Contexts are opaque to clients, and so they are here. What a context covers is known from the operation that returned
//! it: a read's covers what the read showed, a write's covers that write and what its own context covered. A state holds
//! with a write all that the write had seen, so covering goes through chains: writes point at contexts, contexts at the
//! operations that returned them, those at writes. Nearly every question is one of that graph: *is this write behind that
//! one?* A context also covers tombstones, which readers are not shown. Wherever it would be unjust to overlook one, every
//! delete that did not fail is taken for done.
//!
//! # What is asserted
//!
//! Of all buckets:
//!
//! - [`ValueNobodyWrote`](Assertion::ValueNobodyWrote): what is seen was written to that key, by a write that had begun.
//! - [`FailedWriteVisible`](Assertion::FailedWriteVisible): what said that nothing was done is never seen. A write without
//!   an answer is unknown, and anything may have become of it.
//! - [`ShownTwice`](Assertion::ShownTwice): a write that was tried several times is one sibling, at whichever coordinators it
//!   was carried out.
//! - [`ReplicasDiffer`](Assertion::ReplicasDiffer), [`HintsLeft`](Assertion::HintsLeft): in the end all primaries hold the
//!   same clock and values, nobody else holds anything, nobody has hints.
//! - [`ExpiredShown`](Assertion::ExpiredShown): what has expired by everybody's clock is not seen any more.
//! - [`ContextWentBackwards`](Assertion::ContextWentBackwards): a clock that a quorum held is covered by that of every later
//!   read, whosesoever, that has to meet the quorum: by primaries, `pr + pr > n` or `pw + pr > n`. A quorum is known to hold
//!   what a read returned that waited for its repair, and what an acknowledged write had in its context. Nothing is asserted
//!   after a read that did not wait: it may have met the only replica that has a write.
//!
//! Of buckets that keep siblings:
//!
//! - [`AcknowledgedWriteLost`](Assertion::AcknowledgedWriteLost): in the end an acknowledged write is there, or behind
//!   something that is there, or behind a delete that may have been done. An acknowledged write that is lost itself answers
//!   for what it covers.
//! - [`NotSuperseded`](Assertion::NotSuperseded): no read, and no replica in the end, shows a write beside one that it is
//!   behind. So a writer that goes on with the contexts of its own writes makes no siblings.
//! - [`Resurrected`](Assertion::Resurrected), [`DeleteUndone`](Assertion::DeleteUndone): in the end nothing is there that is
//!   behind an acknowledged put, or delete. Strict reads show nothing either that is behind a strict delete.
//! - [`StaleRead`](Assertion::StaleRead): a read after an acknowledged write with `pw + pr > n` shows it, or something that it
//!   is behind; a delete that had begun may excuse it. `r` and `w` count fallbacks, so they promise no such thing under
//!   faults.
//!
//! Of last-write-wins buckets: a write covers whatever its coordinator held, so no context says what may be gone. A key has
//! one value at most ([`SeveralWinners`](Assertion::SeveralWinners)), and some value if it was written and not deleted (in the
//! end, and in strict reads). Which of two writes wins is not asserted, not even of two that followed each other: where wall
//! clocks are apart and coordinators differ, that is not promised.
//!
//! # What excuses
//!
//! - **Lost disks** ([`LostDisk`]). The promise holds while fewer than `w` of the disks that took a write are lost; for
//!   strict reads, fewer than `pw`. Lost are those of the nodes that stored it, if what it was written to was lost after it
//!   was invoked. Losing all primaries of the key excuses too: what fallbacks stored has gone to them. A disk that went back
//!   to an earlier state while nobody could tell ([`Since::RolledBack`]) still answers: a strict quorum that it was one of is
//!   worth one primary less.
//! - **Late tries** ([`Write::tries`]). A database recognises a repeated request for a while only. A write of several tries on
//!   a key that others may have written [`RING_SIZE`](starling_core::request::RING_SIZE) times may come back after it was
//!   superseded.
//! - **Deletes without a context** remove what a read of the node finds. They may have removed whatever was invoked before
//!   they ended; one that is unknown, or of several tries, anything, unless it is known when its last try was over
//!   ([`Write::over_by`]). That they remove something is not asserted.
//!
//! - **Deletes that are forgotten** ([`History::may_forget_deletes`]): a key whose tombstone was reaped begins a new clock, so
//!   after a delete that may have been done contexts may go backwards.
//!
//! - **Values that expire** ([`History::expires`]): from when one may be gone, it is as if a delete had been invoked that has
//!   it in its context.
//!
//! Excused cases are counted in the verdict ([`Tested::excused`]).
//!
//! # What this cannot show
//!
//! That nothing is wrong: only what happened is judged, and a fault that nobody provoked was not tested. A pass is worth what
//! its [`Tested::times`] are, and the assertions are worth what they find in a database that was broken on purpose.
//! Availability (which requests should have succeeded), hash trees and stored bytes are for whoever sees the inside. A session
//! that reads its own sloppy writes is not judged, for it is promised nothing.
//!
//! # Cost
//!
//! A history is kept until it is judged, keys are judged one after another: some 300 bytes an operation with clocks of three
//! histories. All walks are linear in a key's history, and keep their own stacks. Whether one write is behind another is
//! searched among those between them, and remembered. `examples/million.rs` measures it: a second for a million operations,
//! on one key or on ten thousand.
//!
//! Where to read next: [`Operation`] and [`FinalState`] (what to record), `index.rs` (one key's graph), `ancestry.rs` (its two
//! questions), `checks/` (a file for each family of assertions), `tests/` (each as a story; `tests/model.rs` against a store
//! that is right, and one that lies).

mod ancestry;
mod assertion;
mod checks;
mod clocks;
mod end;
mod history;
mod index;
mod operation;
mod report;
mod timeline;
mod verdict;

pub use assertion::Assertion;
pub use end::{FinalState, HeldHints, LostDisk, OwnCopy, Replica, Since};
pub use history::{Expiry, History, InvalidHistory};
pub use operation::{
    Acknowledgement, Asked, Change, ContextId, Deed, Found, Operation, OperationNumber, Read, ReadOutcome, Session,
    ValueId, Write, WriteOutcome,
};
pub use timeline::{Line, Timeline};
pub use verdict::{Counts, MAX_KEPT_OF_A_KIND, Tested, Verdict, Violation};
