//! The one step that creates versions: a replica applies a client's write to what it holds of the key.
//!
//! Pure, so that a batch is a fold: the writer applies one write after another to the record in its hands (R4), then
//! makes the outcome durable as a whole.
//!
//! A write removes exactly what its context covers. In a last-write-wins bucket it also removes all that the coordinator
//! holds, and is stamped above it (R6). A repeated request changes nothing (R7).

use crate::fault::{self, Fault};
use crate::ids::{Birth, RequestId};
use crate::mark::{DirectoryCopied, Minter, OwnMark};
use crate::object::{Object, Seen, Sibling, SiblingMode, Value};
use crate::stamp::Stamp;

/// A client's write, as its coordinator's store applies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub value: Value,
    /// What the writer had seen: its context, nothing without one.
    pub seen: Seen,
    pub request: RequestId,
    pub mode: SiblingMode,
    /// The coordinator's wall clock.
    pub wall: Stamp,
    /// A random birth, used if a new history has to begin.
    pub fresh_birth: Birth,
}

/// Most that [`ObjectLimits::bytes`] can be: seven replicas that were each written to without the others' knowledge fit a
/// frame together.
pub const MAX_OBJECT_BYTES: usize = 4 << 20;

/// What a replica may hold of one key before it refuses to add to it (R14). Applies to clients' writes only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectLimits {
    /// Siblings, hidden ones and tombstones included.
    pub siblings: usize,
    /// Bytes of user data in all siblings.
    pub bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coordinated {
    /// A new sibling stands in the object.
    Minted,
    /// The request had been carried out before; the object is as it was.
    Repeated,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteRefused {
    #[error("request {0} was used before, for a different value")]
    RequestReused(RequestId),
    #[error("the key would have {siblings} siblings, over the limit of {limit}: read it and write a resolution")]
    TooManySiblings { siblings: usize, limit: usize },
    #[error("the key would hold {bytes} bytes in its siblings, over the limit of {limit}")]
    TooLarge { bytes: usize, limit: usize },
    #[error(transparent)]
    DirectoryCopied(#[from] DirectoryCopied),
}

/// Applies `write` to the object and its own mark; both are unchanged unless the answer is [`Coordinated::Minted`].
///
/// # Errors
/// [`WriteRefused`], with nothing changed.
pub fn coordinate(
    object: &mut Object,
    mark: &mut Option<OwnMark>,
    write: Write,
    minter: &Minter,
    limits: &ObjectLimits,
) -> Result<Coordinated, WriteRefused> {
    let value_hash = write.value.hash();
    let mut traces = object.traces_of(write.request).peekable();
    if traces.peek().is_some() {
        let same = traces.any(|trace| trace.value_hash == value_hash) || fault::is_on(Fault::AcceptReusedRequest);
        return if same { Ok(Coordinated::Repeated) } else { Err(WriteRefused::RequestReused(write.request)) };
    }
    drop(traces);
    minter.check(mark.as_ref(), object.clock())?;
    minter.check(mark.as_ref(), &write.seen.clock)?;

    let (dot, next_mark) = minter.mint(*mark, write.fresh_birth);
    let seen_stamp = object.greatest_stamp().max(write.seen.requests.greatest_stamp());
    let seen_stamp = if fault::is_on(Fault::WallStampOnly) { None } else { seen_stamp };
    let stamp = Stamp::next(write.wall, seen_stamp);
    let sibling = Sibling { dot, stamp, request: write.request, value_hash, value: write.value };
    let mut after = object.clone();
    after.supersede(&superseded(object, write.seen, write.mode), sibling);
    check_limits(object, &after, limits)?;
    if fault::is_on(Fault::ExpireByWriting) {
        after.forget_expired(write.wall.wall());
    }

    *object = after;
    *mark = Some(next_mark);
    Ok(Coordinated::Minted)
}

fn superseded(object: &Object, mut seen: Seen, mode: SiblingMode) -> Seen {
    match mode {
        SiblingMode::Keep if fault::is_on(Fault::IgnoreContext) => return Seen::default(),
        SiblingMode::Keep => {}
        SiblingMode::LastWriteWins => seen.merge(&object.seen()),
    }
    seen
}

/// A write that makes things better is welcome even above the limits: a resolution must always be possible.
fn check_limits(before: &Object, after: &Object, limits: &ObjectLimits) -> Result<(), WriteRefused> {
    let siblings = after.siblings().len();
    if siblings > limits.siblings && siblings > before.siblings().len() {
        return Err(WriteRefused::TooManySiblings { siblings, limit: limits.siblings });
    }
    let bytes = after.value_bytes();
    if bytes > limits.bytes && bytes > before.value_bytes() {
        return Err(WriteRefused::TooLarge { bytes, limit: limits.bytes });
    }
    Ok(())
}
