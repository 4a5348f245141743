//! How many replicas a request needs. A quorum that exists is possible: what cannot be met is refused when it is made.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::fault::{self, Fault};

/// Most replicas of an object.
pub const MAX_REPLICAS: u8 = 7;

/// Why a number of replicas, or a quorum, was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuorum {
    #[error("{0} replicas are not possible: choose 1 to {MAX_REPLICAS}")]
    Replicas(u8),
    #[error("`{0}` is not a quorum: use a number, `one`, `quorum`, `all` or `default`")]
    Level(String),
    #[error("{field}={asked} cannot be met: this key has {replicas} replica{}", if replicas.get() == 1 { "" } else { "s" })]
    Impossible { field: &'static str, asked: u8, replicas: ReplicaCount },
    #[error("{field}=0 is not a quorum: a request needs at least one replica")]
    Zero { field: &'static str },
}

/// How many copies of an object are kept, 1 to 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct ReplicaCount(u8);

impl ReplicaCount {
    pub const DEFAULT: ReplicaCount = ReplicaCount(3);
    pub const MOST: ReplicaCount = ReplicaCount(MAX_REPLICAS);

    pub fn get(self) -> usize {
        usize::from(self.0)
    }

    /// This many, or as many as there are members (at least one).
    pub fn at_most(self, members: usize) -> ReplicaCount {
        let members = u8::try_from(members.max(1)).unwrap_or(u8::MAX);
        ReplicaCount(self.0.min(members))
    }

    /// More than half.
    pub fn majority(self) -> u8 {
        if fault::is_on(Fault::SmallMajority) {
            return (self.0 / 2).max(1);
        }
        self.0 / 2 + 1
    }
}

impl TryFrom<u8> for ReplicaCount {
    type Error = InvalidQuorum;

    fn try_from(count: u8) -> Result<Self, InvalidQuorum> {
        if (1..=MAX_REPLICAS).contains(&count) { Ok(ReplicaCount(count)) } else { Err(InvalidQuorum::Replicas(count)) }
    }
}

impl From<ReplicaCount> for u8 {
    fn from(count: ReplicaCount) -> u8 {
        count.0
    }
}

impl fmt::Display for ReplicaCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A quorum as a person or a client asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Level {
    Count(u8),
    One,
    Quorum,
    All,
    /// The bucket's or the node's setting.
    #[default]
    Default,
}

impl Level {
    /// As far as that many replicas can do it.
    pub fn within(self, replicas: ReplicaCount) -> Level {
        match self {
            Level::Count(count) => Level::Count(count.min(replicas.0)),
            Level::One | Level::Quorum | Level::All | Level::Default => self,
        }
    }

    /// The number of replicas this means for an object of `replicas` copies; `default` is used for [`Level::Default`].
    fn resolve(self, field: &'static str, replicas: ReplicaCount, default: u8) -> Result<u8, InvalidQuorum> {
        let asked = match self {
            Level::Count(count) => count,
            Level::One => 1,
            Level::Quorum => replicas.majority(),
            Level::All => replicas.0,
            Level::Default => default,
        };
        if asked > replicas.0 {
            return Err(InvalidQuorum::Impossible { field, asked, replicas });
        }
        Ok(asked)
    }
}

impl FromStr for Level {
    type Err = InvalidQuorum;

    fn from_str(text: &str) -> Result<Self, InvalidQuorum> {
        match text {
            "one" => Ok(Level::One),
            "quorum" => Ok(Level::Quorum),
            "all" => Ok(Level::All),
            "default" => Ok(Level::Default),
            number => number.parse().map(Level::Count).map_err(|_| InvalidQuorum::Level(text.to_owned())),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Level::Count(count) => count.fmt(f),
            Level::One => f.write_str("one"),
            Level::Quorum => f.write_str("quorum"),
            Level::All => f.write_str("all"),
            Level::Default => f.write_str("default"),
        }
    }
}

/// What a read or a write waits for: `replicas` distinct nodes, fallbacks counted, of which `primaries` are primaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(u8, u8)")]
pub struct Quorum {
    replicas: u8,
    primaries: u8,
}

impl TryFrom<(u8, u8)> for Quorum {
    type Error = InvalidQuorum;

    fn try_from((replicas, primaries): (u8, u8)) -> Result<Self, InvalidQuorum> {
        let most = ReplicaCount(MAX_REPLICAS);
        Quorum::of(("replicas", Level::Count(replicas)), ("primaries", Level::Count(primaries)), most)
    }
}

impl Quorum {
    /// From `r` and `pr`. `r` defaults to a majority, `pr` to none.
    ///
    /// # Errors
    /// [`InvalidQuorum`] if an object of `copies` copies can never satisfy it.
    pub fn of_read(r: Level, pr: Level, copies: ReplicaCount) -> Result<Quorum, InvalidQuorum> {
        Quorum::of(("r", r), ("pr", pr), copies)
    }

    /// From `w` and `pw`. `w` defaults to a majority, `pw` to none.
    ///
    /// # Errors
    /// [`InvalidQuorum`] if an object of `copies` copies can never satisfy it.
    pub fn of_write(w: Level, pw: Level, copies: ReplicaCount) -> Result<Quorum, InvalidQuorum> {
        Quorum::of(("w", w), ("pw", pw), copies)
    }

    fn of(
        all: (&'static str, Level),
        primary: (&'static str, Level),
        copies: ReplicaCount,
    ) -> Result<Self, InvalidQuorum> {
        let replicas = all.1.resolve(all.0, copies, copies.majority())?;
        let primaries = primary.1.resolve(primary.0, copies, 0)?;
        if replicas == 0 {
            return Err(InvalidQuorum::Zero { field: all.0 });
        }
        Ok(Quorum { replicas, primaries })
    }

    /// How many distinct nodes have to answer, fallbacks counted.
    pub fn replicas(&self) -> usize {
        usize::from(self.replicas)
    }

    /// How many of them have to be primaries.
    pub fn primaries(&self) -> usize {
        usize::from(self.primaries)
    }

    pub fn is_met(&self, tally: Tally) -> bool {
        tally.primaries + tally.fallbacks >= self.replicas() && tally.primaries >= self.primaries()
    }
}

/// How many replicas did, or still could do, their part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    pub primaries: usize,
    pub fallbacks: usize,
}

impl std::ops::Add for Tally {
    type Output = Tally;

    fn add(self, other: Tally) -> Tally {
        Tally { primaries: self.primaries + other.primaries, fallbacks: self.fallbacks + other.fallbacks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copies(count: u8) -> ReplicaCount {
        ReplicaCount::try_from(count).unwrap()
    }

    #[test]
    fn words_mean_numbers_of_the_keys_replicas() {
        let write = |w: &str, pw: &str| Quorum::of_write(w.parse().unwrap(), pw.parse().unwrap(), copies(3)).unwrap();
        assert_eq!(write("default", "default"), Quorum { replicas: 2, primaries: 0 });
        assert_eq!(write("quorum", "one"), Quorum { replicas: 2, primaries: 1 });
        assert_eq!(write("all", "all"), Quorum { replicas: 3, primaries: 3 });
        assert_eq!(write("1", "quorum"), Quorum { replicas: 1, primaries: 2 });
        let alone = Quorum::of_write(Level::Quorum, Level::All, copies(1)).unwrap();
        assert_eq!(alone, Quorum { replicas: 1, primaries: 1 });
    }

    #[test]
    fn the_impossible_is_refused_with_the_reason() {
        let refused = Quorum::of_read(Level::Count(4), Level::Default, copies(3)).unwrap_err();
        assert_eq!(refused.to_string(), "r=4 cannot be met: this key has 3 replicas");
        assert!(Quorum::of_read(Level::Count(0), Level::Default, copies(3)).is_err());
        assert!("some".parse::<Level>().is_err());
        assert!(ReplicaCount::try_from(8).is_err());
    }

    #[test]
    fn fallbacks_count_towards_w_and_never_towards_pw() {
        let quorum = Quorum::of_write(Level::Count(2), Level::Count(1), copies(3)).unwrap();
        assert!(quorum.is_met(Tally { primaries: 1, fallbacks: 1 }));
        assert!(!quorum.is_met(Tally { primaries: 0, fallbacks: 3 }));
        assert!(!quorum.is_met(Tally { primaries: 1, fallbacks: 0 }));
    }
}
