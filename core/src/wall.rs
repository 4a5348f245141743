//! Wall clocks: the times of day that they show, and whether what one shows can be relied on.
//!
//! Values expire by the time of day (R12), and a clock that was set forward makes all of them look long expired. So nobody
//! agrees that such a value may go for good whose clock was set of late ([`WallWatch`]).

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A time of day by somebody's clock: milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct WallTime(pub u64);

impl WallTime {
    /// So much later; the last time that there is, if that would be beyond it.
    pub fn after(self, duration: Duration) -> WallTime {
        WallTime(self.0.saturating_add(millis(duration)))
    }

    /// So much earlier; the first time that there is, if that would be before it.
    pub fn before(self, duration: Duration) -> WallTime {
        WallTime(self.0.saturating_sub(millis(duration)))
    }

    /// How long it is from now until then; nothing if then is over.
    pub fn until(self, then: WallTime) -> Duration {
        Duration::from_millis(then.0.saturating_sub(self.0))
    }
}

/// How long a value is to live: a millisecond at least, a hundred years of 365 days at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lifetime(Duration);

/// A lifetime that is too short or too long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a value lives for a millisecond at least, and for a hundred years at the most")]
pub struct InvalidLifetime;

impl Lifetime {
    /// The grain of what clocks are asked for.
    pub const LEAST: Duration = Duration::from_millis(1);
    pub const MOST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

    pub fn get(self) -> Duration {
        self.0
    }
}

impl TryFrom<Duration> for Lifetime {
    type Error = InvalidLifetime;

    fn try_from(duration: Duration) -> Result<Self, InvalidLifetime> {
        if (Lifetime::LEAST..=Lifetime::MOST).contains(&duration) {
            Ok(Lifetime(duration))
        } else {
            Err(InvalidLifetime)
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How far a clock is from others: one of the two, or neither, is more than nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Apart {
    pub ahead: Duration,
    pub behind: Duration,
}

impl Apart {
    /// From the median of all clocks that are known, the own one among them. `offsets` says by how many milliseconds others
    /// are ahead of it, of so many `peers`; none unless that is half of them, so that with the own one they are a majority.
    /// Of two clocks the one that is behind is taken for right.
    pub fn of(offsets: impl IntoIterator<Item = i64>, peers: usize) -> Option<Apart> {
        const OWN: i64 = 0;
        let mut offsets: Vec<i64> = offsets.into_iter().collect();
        if offsets.is_empty() || offsets.len() * 2 < peers {
            return None;
        }
        offsets.push(OWN);
        offsets.sort_unstable();
        let median = offsets[(offsets.len() - 1) / 2];
        let millis = |millis: i64| Duration::from_millis(millis.max(0).unsigned_abs());
        Some(Apart { ahead: millis(median.saturating_neg()), behind: millis(median) })
    }
}

/// Tells when a wall clock was set, by comparing it now and then with time that nobody can set.
#[derive(Debug, Clone)]
pub struct WallWatch {
    /// Whoever relies on the clock allows for an error of that much.
    margin: Duration,
    /// What the clock shows beyond the time that has passed, in milliseconds, as it was when it was last found to be set.
    offset: Option<i128>,
    /// When it was first looked at, or last found to be set.
    watched_since: Option<Duration>,
    was_set: bool,
}

impl WallWatch {
    pub fn new(margin: Duration) -> WallWatch {
        WallWatch { margin, offset: None, watched_since: None, was_set: false }
    }

    /// Looks at the clock. `passed` is counted from any fixed moment by a clock that cannot be set.
    pub fn look(&mut self, passed: Duration, wall: WallTime) {
        let offset = i128::from(wall.0) - i128::try_from(passed.as_millis()).unwrap_or(i128::MAX);
        let known = *self.offset.get_or_insert(offset);
        self.watched_since.get_or_insert(passed);
        if (offset - known).unsigned_abs() > self.tolerance().as_millis() {
            (self.offset, self.watched_since, self.was_set) = (Some(offset), Some(passed), true);
        }
    }

    /// Whether the clock can be relied on: never while it is ahead of others by more than `most`. It was not found to be set
    /// for as long as the margin is: whoever has set it had as long to notice a mistake. Where it was not set since the watch
    /// began, it is enough that others' clocks show the same.
    pub fn is_steady(&self, passed: Duration, others: Option<Apart>, most: Duration) -> bool {
        let Some(since) = self.watched_since else { return false };
        let is_watched = passed.saturating_sub(since) >= self.margin;
        match others {
            Some(others) => others.ahead <= most && (is_watched || !self.was_set),
            None => is_watched,
        }
    }

    /// A clock that runs fast or slow, or is corrected by a little, is not set: of a day that is an hour.
    pub fn tolerance(&self) -> Duration {
        self.margin / 24
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const HOUR: Duration = Duration::from_secs(60 * 60);
    const MOST: Duration = Duration::from_secs(10);

    /// Others' clocks show the same.
    const TOGETHER: Option<Apart> = Some(Apart { ahead: Duration::ZERO, behind: Duration::ZERO });

    #[test]
    fn a_clock_that_was_set_is_not_relied_on_for_a_day() {
        let (mut watch, noon) = (WallWatch::new(DAY), WallTime(43_200_000));
        watch.look(Duration::ZERO, noon);
        watch.look(HOUR, noon.after(HOUR));
        assert!(watch.is_steady(HOUR, TOGETHER, MOST));
        assert!(!watch.is_steady(HOUR, None, MOST), "a machine may have been started with a wrong clock");
        assert!(watch.is_steady(DAY, None, MOST));
        let ahead = Some(Apart { ahead: HOUR, behind: Duration::ZERO });
        assert!(!watch.is_steady(DAY, ahead, MOST), "however long it was watched");

        watch.look(HOUR * 2, noon.after(HOUR * 2 + DAY * 365));
        assert!(!watch.is_steady(HOUR * 2, TOGETHER, MOST));
        // Set back at last: it was wrong until then.
        watch.look(HOUR * 20, noon.after(HOUR * 20));
        assert!(!watch.is_steady(HOUR * 26, TOGETHER, MOST));
        watch.look(HOUR * 44, noon.after(HOUR * 44));
        assert!(watch.is_steady(HOUR * 44, TOGETHER, MOST));
    }

    #[test]
    fn a_clock_that_is_corrected_by_little_is_relied_on() {
        let (mut watch, noon) = (WallWatch::new(DAY), WallTime(43_200_000));
        for hour in 0..1000 {
            let passed = HOUR * hour;
            watch.look(passed, noon.after(passed + Duration::from_secs(u64::from(hour % 60))));
            assert!(watch.is_steady(passed, TOGETHER, MOST));
        }
    }

    #[test]
    fn a_lifetime_has_its_limits() {
        assert!(Lifetime::try_from(Lifetime::LEAST).is_ok() && Lifetime::try_from(Lifetime::MOST).is_ok());
        assert!(Lifetime::try_from(Duration::from_micros(999)).is_err());
        assert!(Lifetime::try_from(Lifetime::MOST + Duration::from_nanos(1)).is_err());
    }

    #[test]
    fn times_of_day_have_a_beginning_and_an_end() {
        assert_eq!(WallTime(5).before(DAY), WallTime(0));
        assert_eq!(WallTime(u64::MAX).after(DAY), WallTime(u64::MAX));
        assert_eq!(WallTime(5).until(WallTime(12)), Duration::from_millis(7));
        assert_eq!(WallTime(12).until(WallTime(5)), Duration::ZERO);
    }

    #[test]
    fn the_clock_that_differs_from_most_is_the_one_that_is_apart() {
        let second = Duration::from_secs(1);
        let of = |offsets: &[i64], peers| Apart::of(offsets.iter().copied(), peers);
        let (ahead, behind) =
            (Apart { ahead: second, ..Apart::default() }, Apart { behind: second, ..Apart::default() });
        assert_eq!(of(&[0, 1_000], 2), Some(Apart::default()), "another is ahead");
        assert_eq!(of(&[0, -1_000], 2), Some(Apart::default()), "another is behind");
        assert_eq!(of(&[-1_000, -1_000], 2), Some(ahead));
        assert_eq!(of(&[1_000, 1_000, 1_000], 3), Some(behind));
        assert_eq!(
            (of(&[1_000], 1), of(&[-1_000], 1)),
            (Some(Apart::default()), Some(ahead)),
            "of two the one behind is right"
        );
        assert_eq!((of(&[], 0), of(&[0], 3)), (None, None), "too few to tell");
    }
}
