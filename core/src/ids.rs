//! Identifiers. All are random numbers drawn outside of the core, shown as 16 (or 32) hexadecimal digits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

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
    /// Drawn at each start: tells two starts with the same counter apart, which only copies of a directory can produce.
    pub nonce: u64,
}

/// What a peer's memory says about a run that introduces itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunVerdict {
    /// Never seen, or later than what was seen: to be recorded.
    Newer,
    /// The very run that was recorded: a redial.
    Known,
    /// At or below what was recorded: this directory is an old copy.
    OldCopy,
}

impl Run {
    /// Compares this run with the one `remembered` for the same directory.
    pub fn judge(&self, remembered: Option<&Run>) -> RunVerdict {
        match remembered {
            None => RunVerdict::Newer,
            Some(known) if known == self => RunVerdict::Known,
            Some(known) if known.counter < self.counter => RunVerdict::Newer,
            Some(_) if fault::is_on(Fault::MintAfterRestore) => RunVerdict::Known,
            Some(_) => RunVerdict::OldCopy,
        }
    }
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

    #[test]
    fn a_run_at_or_below_the_remembered_one_is_an_old_copy() {
        let run = |counter, nonce| Run { directory: DirectoryId(1), counter, nonce };
        assert_eq!(run(3, 7).judge(None), RunVerdict::Newer);
        assert_eq!(run(3, 7).judge(Some(&run(2, 1))), RunVerdict::Newer);
        assert_eq!(run(3, 7).judge(Some(&run(3, 7))), RunVerdict::Known);
        assert_eq!(run(3, 7).judge(Some(&run(3, 8))), RunVerdict::OldCopy);
        assert_eq!(run(3, 7).judge(Some(&run(4, 7))), RunVerdict::OldCopy);
    }
}
