//! What a request needs, by arithmetic that is not the product's: a judge does not take the accused's word for it.

use starling_core::quorum::Level;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needed {
    /// Distinct nodes, fallbacks counted.
    pub replicas: usize,
    /// Of them primaries.
    pub primaries: usize,
}

impl Needed {
    /// Of a request at these levels for a key of so many copies, as far as there are that many.
    pub fn of(all: Level, primaries: Level, copies: usize) -> Needed {
        let number = |level: Level, default: usize| match level {
            Level::Count(count) => usize::from(count).min(copies),
            Level::One => 1,
            Level::Quorum => copies / 2 + 1,
            Level::All => copies,
            Level::Default => default,
        };
        Needed { replicas: number(all, copies / 2 + 1), primaries: number(primaries, 0) }
    }

    pub fn is_met(self, replicas: usize, primaries: usize) -> bool {
        replicas >= self.replicas && primaries >= self.primaries
    }
}
