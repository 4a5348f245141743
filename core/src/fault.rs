//! Deliberate faults: ways to break the product on purpose, so that whoever tests it can be tested.
//!
//! Each is a mistake that a build could have, at the very place where it would be made. They exist only with the feature
//! `deliberate-faults`, which no shipped build has: without it [`is_on`] is false, for the compiler as well.

use std::fmt;
use std::str::FromStr;

macro_rules! faults {
    ($(#[doc = $mistake:literal] $variant:ident = $name:literal),* $(,)?) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $(#[doc = $mistake] $variant,)*
        }

        impl Fault {
            pub const ALL: [Fault; [$($name),*].len()] = [$(Fault::$variant),*];

            pub fn name(self) -> &'static str {
                match self {
                    $(Fault::$variant => $name,)*
                }
            }

            /// What is done wrong, in a sentence.
            pub fn mistake(self) -> &'static str {
                match self {
                    $(Fault::$variant => $mistake.trim_ascii(),)*
                }
            }
        }
    };
}

faults! {
    /// A write is acknowledged before its batch is synced.
    AcknowledgeBeforeSync = "acknowledge-before-sync",
    /// A read sees a batch before it is synced.
    ReadBeforeSync = "read-before-sync",
    /// R2: a key without an own mark begins the same history again, instead of a new one.
    NoOwnMark = "no-own-mark",
    /// R3: a directory that was restored from an old copy goes on as if nothing had happened.
    MintAfterRestore = "mint-after-restore",
    /// R3: marks of an earlier run are continued after a crash.
    TrustMarksAfterCrash = "trust-marks-after-crash",
    /// R4: two writes of one batch start from what the record was before it.
    BatchFromOneBase = "batch-from-one-base",
    /// R9: any confirmation drops a marker, whatever clock it confirms.
    DropMarkerUnseen = "drop-marker-unseen",
    /// R10: a copy held for a target that seems to have left is dropped.
    DropCopyForDeparted = "drop-copy-for-departed",
    /// A write removes nothing that its context covers.
    IgnoreContext = "ignore-context",
    /// A merge takes what arrived last.
    LastArrivalWins = "last-arrival-wins",
    /// A fallback's acknowledgement counts towards `pw`.
    FallbackCountsAsPrimary = "fallback-counts-as-primary",
    /// R7: a request that is repeated is a new write.
    ForgetRequests = "forget-requests",
    /// An object is sent without one of its siblings, under its whole clock.
    ClockAheadOfSiblings = "clock-ahead-of-siblings",
    /// A write is acknowledged by one replica, whatever was asked.
    AcknowledgeByOne = "acknowledge-by-one",
    /// A majority is half, rounded down.
    SmallMajority = "small-majority",
    /// A write returns a context that covers siblings its writer has not seen.
    ContextOfTheUnseen = "context-of-the-unseen",
    /// A write that was forwarded to a primary which fell silent is taken for not done.
    ForgetSilentForward = "forget-silent-forward",
    /// R5: a context is accepted for any key.
    AcceptForeignContext = "accept-foreign-context",
    /// R7: a request id that is used again for another value is answered as if it had been the same.
    AcceptReusedRequest = "accept-reused-request",
    /// A listing leaves out one of a node's partitions.
    ListTooLittle = "list-too-little",
    /// A client tries nothing again.
    NeverRetry = "never-retry",
    /// R6: a last-write-wins write is stamped by the wall clock alone.
    WallStampOnly = "wall-stamp-only",
    /// A copy is held for its primary and never brought home.
    NeverDeliver = "never-deliver",
    /// A read that should wait for its repair is answered before.
    NeverWaitForRepair = "never-wait-for-repair",
    /// A fallback that holds nothing of the key counts towards `r`.
    CountFallbackNotFound = "count-fallback-notfound",
    /// R8: a replica that is filling counts towards `r`.
    CountFilling = "count-filling",
    /// R8: a directory that is filling up again takes itself for full once it was compared with one other primary.
    FillFromOne = "fill-from-one",
    /// R15: an acceptor forgets what it has promised.
    ForgetfulAcceptor = "forgetful-acceptor",
    /// R16: a new layout is read before its primaries have confirmed their copies.
    SwitchBeforeCopied = "switch-before-copied",
    /// R16: a write takes its quorum in the newest layout only.
    WriteToOneLayout = "write-to-one-layout",
    /// R16: a copy counts although its source still took writes of the old layout alone.
    PullTooEarly = "pull-too-early",
    /// R16: a page of a copy is taken for durable and is not.
    LosePage = "lose-page",
    /// Replicas are never compared.
    NeverCompare = "never-compare",
    /// A record changes now and then without its hash tree.
    StaleTree = "stale-tree",
    /// R10: what the primaries of an old ring have confirmed counts by a new one.
    ConfirmByOldRing = "confirm-by-old-ring",
    /// R11: tombstones are reaped by their age, and nobody is asked.
    ReapByAge = "reap-by-age",
    /// R11: a primary agrees that a tombstone may go which it does not hold.
    ReapWhilePrimaryLacks = "reap-while-primary-lacks",
    /// R11: a member forgets that its answer binds it.
    ForgetBindingAnswer = "forget-binding-answer",
    /// R11: what was read before a round was over is taken after it.
    ForgetRoundsOver = "forget-rounds-over",
    /// R11: tombstones are reaped while somebody who has left may still hold copies.
    ReviveDeparted = "revive-departed",
    /// R12: a write removes what has expired by its coordinator's clock.
    ExpireByWriting = "expire-by-writing",
    /// R12: a primary believes another that a value has expired long ago, and does not look at its own clock.
    ExpireByOneClock = "expire-by-one-clock",
    /// R12: what has expired binds those who hold nothing of it as a tombstone does, and is merged without its values.
    MergeWithoutValues = "merge-without-values",
    /// Of a setting that two nodes know differently, each takes what the other has.
    SettingsByArrival = "settings-by-arrival",
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Not the name of a fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no fault; there are {list}", list = Fault::ALL.map(Fault::name).join(", "))]
pub struct UnknownFault(String);

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Fault, UnknownFault> {
        Fault::ALL.into_iter().find(|fault| fault.name() == text).ok_or_else(|| UnknownFault(text.to_owned()))
    }
}

#[cfg(feature = "deliberate-faults")]
static SWITCHED_ON: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(u8::MAX);

/// From now on this process makes that mistake, and no other.
#[cfg(feature = "deliberate-faults")]
pub fn switch_on(fault: Fault) {
    SWITCHED_ON.store(fault as u8, std::sync::atomic::Ordering::SeqCst);
}

/// Whether this build could be told to make mistakes.
pub const ARE_POSSIBLE: bool = cfg!(feature = "deliberate-faults");

/// Whether this process makes that mistake.
#[cfg(feature = "deliberate-faults")]
pub fn is_on(fault: Fault) -> bool {
    SWITCHED_ON.load(std::sync::atomic::Ordering::Relaxed) == fault as u8
}

/// Never, in a build without deliberate faults.
#[cfg(not(feature = "deliberate-faults"))]
pub const fn is_on(_: Fault) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_known_by_their_names() {
        for fault in Fault::ALL {
            assert_eq!(fault.name().parse(), Ok(fault));
        }
        assert!("carelessness".parse::<Fault>().is_err());
    }
}
