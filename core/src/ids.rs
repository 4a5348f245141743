//! Identifiers. All are random numbers drawn outside of the core, shown as 16 (or 32) hexadecimal digits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::fault::{self, Fault};

/// A string that is not the hexadecimal form of an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an identifier: expected hexadecimal digits")]
pub struct InvalidId(String);

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $int:ty, $width:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{:0", $width, "x}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                <$int>::from_str_radix(text, 16).map($name).map_err(|_| InvalidId(text.to_owned()))
            }
        }
    };
}

hex_id! {
    /// One member of a cluster. Stays the same across restarts.
    NodeId, u64, "16"
}
hex_id! {
    /// One unbroken run of storage: a wiped or repaired data directory takes a new one.
    DirectoryId, u64, "16"
}
hex_id! {
    /// One cluster, drawn at `cluster init`. Nodes of different clusters never exchange data.
    ClusterId, u64, "16"
}
hex_id! {
    /// Distinguishes the periods in which one directory coordinated one key. A replica that lost its record of a key
    /// draws a new birth, so that it never mints a dot twice.
    Birth, u64, "16"
}
hex_id! {
    /// Drawn by the client for each write, and repeated when it tries the same write again.
    RequestId, u128, "32"
}

/// One start of a node over one directory. Peers remember the highest they saw, and so notice an old copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Run {
    pub directory: DirectoryId,
    /// Counts the starts of this directory, from 1.
    pub counter: u64,
    /// Tells two starts with the same counter apart, which only copies of a directory can produce. Its upper half is a hash
    /// of the nonce before, its lower half is drawn at each start: so whoever knows a start knows the next.
    pub nonce: u64,
}

/// What a peer's memory says about a run that introduces itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunVerdict {
    /// Never seen, or later than what was seen: to be recorded.
    Newer,
    /// The very run that was recorded: a redial.
    Known,
    /// At or below what was recorded, or the next and not of the same line: this directory is an old copy.
    OldCopy,
}

impl Run {
    /// The nonce of the start that follows, with these bits drawn for it.
    pub fn nonce_after(before: Option<u64>, drawn: u32) -> u64 {
        u64::from(before.map_or(0, hash)) << 32 | u64::from(drawn)
    }

    /// Compares this run with the one `remembered` for the same directory.
    pub fn judge(&self, remembered: Option<&Run>) -> RunVerdict {
        match remembered {
            None => RunVerdict::Newer,
            Some(known) if known == self => RunVerdict::Known,
            Some(known) if known.counter < self.counter && !self.is_of_another_line(known) => RunVerdict::Newer,
            Some(_) if fault::is_on(Fault::MintAfterRestore) => RunVerdict::Known,
            Some(_) => RunVerdict::OldCopy,
        }
    }

    /// The two cannot both be starts of one directory: it was copied, and both went on. A later run of this directory may
    /// be of either, so none is to be trusted. Of a run that is merely lower nothing like that is known: its hello may have
    /// been on the way for long.
    pub fn is_of_another_line(&self, known: &Run) -> bool {
        let is_same_start = self.counter == known.counter && self.nonce != known.nonce;
        let is_next = self.counter == known.counter + 1;
        is_same_start || (is_next && self.nonce >> 32 != u64::from(hash(known.nonce)))
    }
}

fn hash(nonce: u64) -> u32 {
    (xxh3_64(&nonce.to_le_bytes()) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_read_back_what_they_print() {
        let id = NodeId(0x00ff_1234);
        assert_eq!(id.to_string(), "0000000000ff1234");
        assert_eq!(id.to_string().parse::<NodeId>(), Ok(id));
        assert!("n1".parse::<NodeId>().is_err());
    }

    fn run(counter: u64, nonce: u64) -> Run {
        Run { directory: DirectoryId(1), counter, nonce }
    }

    fn next(before: Run, drawn: u32) -> Run {
        run(before.counter + 1, Run::nonce_after(Some(before.nonce), drawn))
    }

    #[test]
    fn a_run_at_or_below_the_remembered_one_is_an_old_copy() {
        assert_eq!(run(3, 7).judge(None), RunVerdict::Newer);
        assert_eq!(run(5, 7).judge(Some(&run(3, 1))), RunVerdict::Newer, "a start between them was not met");
        assert_eq!(run(3, 7).judge(Some(&run(3, 7))), RunVerdict::Known);
        assert_eq!(run(3, 7).judge(Some(&run(3, 8))), RunVerdict::OldCopy);
        assert_eq!(run(3, 7).judge(Some(&run(4, 7))), RunVerdict::OldCopy);
    }

    /// Nodes of different builds judge each other's starts: if this fails, every restart would look like a copy's.
    #[test]
    fn how_a_start_tells_which_came_before_is_frozen() {
        assert_eq!(Run::nonce_after(None, 7), 7);
        assert_eq!(format!("{:016x}", Run::nonce_after(Some(7), 0x0102_0304)), "81671e5801020304");
    }

    #[test]
    fn a_start_is_followed_by_those_of_its_own_line_only() {
        let (first, drawn) = (run(1, Run::nonce_after(None, 7)), [11, 12]);
        let [second, of_the_copy] = drawn.map(|drawn| next(first, drawn));
        assert_eq!(second.judge(Some(&first)), RunVerdict::Newer);
        assert_eq!(of_the_copy.judge(Some(&first)), RunVerdict::Newer, "nobody can tell yet");
        assert_eq!(next(of_the_copy, 13).judge(Some(&second)), RunVerdict::OldCopy);
        assert!(of_the_copy.is_of_another_line(&second) && next(of_the_copy, 13).is_of_another_line(&second));
        assert!(!next(second, 14).is_of_another_line(&second) && !first.is_of_another_line(&second));
        assert!(!next(next(of_the_copy, 13), 15).is_of_another_line(&second), "that cannot be told");
    }
}
