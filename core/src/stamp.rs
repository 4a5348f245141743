//! Hybrid logical clock stamps (Kulkarni et al., "Logical Physical Clocks", 2014): milliseconds since the Unix epoch in
//! the high 48 bits, a logical counter in the low 16. They order siblings for readers of last-write-wins buckets and for
//! people; causality never depends on them.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::wall::WallTime;

const LOGICAL_BITS: u32 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The first stamp of a wall-clock time, given as milliseconds since the Unix epoch.
    pub fn from_millis(millis: u64) -> Stamp {
        Stamp(millis << LOGICAL_BITS)
    }

    pub fn millis(self) -> u64 {
        self.0 >> LOGICAL_BITS
    }

    /// The time of day that it was made of.
    pub fn wall(self) -> WallTime {
        WallTime(self.millis())
    }

    /// The stamp for a write made when the wall clock shows `wall`, above everything in `seen`.
    pub fn next(wall: Stamp, seen: Option<Stamp>) -> Stamp {
        match seen {
            Some(seen) if seen >= wall => Stamp(seen.0.saturating_add(1)),
            _ => wall,
        }
    }

    /// How far this stamp's wall-clock part is ahead of `other`'s.
    pub fn ahead_of(self, other: Stamp) -> Duration {
        Duration::from_millis(self.millis().saturating_sub(other.millis()))
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.millis(), self.0 & ((1 << LOGICAL_BITS) - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_above_all_that_was_seen_even_if_the_wall_clock_is_behind() {
        let seen = Stamp::from_millis(1_000);
        assert_eq!(Stamp::next(Stamp::from_millis(2_000), Some(seen)), Stamp::from_millis(2_000));
        assert!(Stamp::next(Stamp::from_millis(500), Some(seen)) > seen);
        assert!(Stamp::next(seen, Some(seen)) > seen);
    }
}
