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

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
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

    /// Whether the clock can be relied on. It was not found to be set for as long as the margin is: whoever has set it had as
    /// long to notice a mistake. Where it was not set since the watch began, it is enough that others' clocks show the same.
    pub fn is_steady(&self, passed: Duration, others_agree: bool) -> bool {
        let watched = self.watched_since.map_or(Duration::ZERO, |since| passed.saturating_sub(since));
        watched >= self.margin || (others_agree && !self.was_set && self.watched_since.is_some())
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

    #[test]
    fn a_clock_that_was_set_is_not_relied_on_for_a_day() {
        let (mut watch, noon) = (WallWatch::new(DAY), WallTime(43_200_000));
        watch.look(Duration::ZERO, noon);
        watch.look(HOUR, noon.after(HOUR));
        assert!(watch.is_steady(HOUR, true));
        assert!(!watch.is_steady(HOUR, false), "a machine may have been started with a wrong clock");
        assert!(watch.is_steady(DAY, false));

        watch.look(HOUR * 2, noon.after(HOUR * 2 + DAY * 365));
        assert!(!watch.is_steady(HOUR * 2, true));
        // Set back at last: it was wrong until then.
        watch.look(HOUR * 20, noon.after(HOUR * 20));
        assert!(!watch.is_steady(HOUR * 26, true));
        watch.look(HOUR * 44, noon.after(HOUR * 44));
        assert!(watch.is_steady(HOUR * 44, true));
    }

    #[test]
    fn a_clock_that_is_corrected_by_little_is_relied_on() {
        let (mut watch, noon) = (WallWatch::new(DAY), WallTime(43_200_000));
        for hour in 0..1000 {
            let passed = HOUR * hour;
            watch.look(passed, noon.after(passed + Duration::from_secs(u64::from(hour % 60))));
            assert!(watch.is_steady(passed, true));
        }
    }

    #[test]
    fn times_of_day_have_a_beginning_and_an_end() {
        assert_eq!(WallTime(5).before(DAY), WallTime(0));
        assert_eq!(WallTime(u64::MAX).after(DAY), WallTime(u64::MAX));
        assert_eq!(WallTime(5).until(WallTime(12)), Duration::from_millis(7));
        assert_eq!(WallTime(12).until(WallTime(5)), Duration::ZERO);
    }
}
