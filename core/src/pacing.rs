//! How fast background work may move bytes, so that requests do not have to wait for it.
//!
//! After LEDBAT (RFC 6817), a transport for what is in no hurry. Every window, the mean delay of this node's part in requests
//! is held against its base, the least mean that windows of the last minutes have had. Delay beyond the base is what somebody
//! has added; where it is more than is allowed the rate falls at once, and where it is less the rate rises, slowly. So
//! background work takes what is left over, also of a disk or a processor that nobody has measured. It always gets the
//! [`LEAST_SHARE`], whoever adds the delay: what is moved has to arrive one day.
//!
//! As in LEDBAT, a base that was measured while background work was under way is too high at first, and is corrected as soon
//! as that pauses. Reads and writes have bases of their own: a node that is asked for more writes is not slower for that.

use std::collections::VecDeque;
use std::time::Duration;

/// Of the most that it may use, what background work always may.
pub const LEAST_SHARE: f64 = 1.0 / 8.0;
/// Delays are averaged for so long.
pub const WINDOW: Duration = Duration::from_millis(200);
/// Fewer delays than that say nothing; those of the next window are added.
const LEAST_DELAYS: u32 = 5;
/// Requests may take twice as long as they do without background work, or this much longer.
const LEAST_ALLOWED: Duration = Duration::from_millis(2);
/// After a pause it takes so many windows at the least until the rate is the most again.
const WINDOWS_TO_RISE: f64 = 25.0;
/// The base is the least of so many periods. What was long ago says nothing: the node may have been another.
const PERIOD: Duration = Duration::from_secs(60);
const PERIODS: usize = 10;

/// What a node does for a request on its own disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Read,
    Write,
}

/// The rate of one node's background work.
#[derive(Debug, Clone)]
pub struct Pacing {
    /// In bytes a second.
    most: f64,
    rate: f64,
    window_began: Duration,
    reads: Delays,
    writes: Delays,
}

/// The delays of one kind.
#[derive(Debug, Clone, Default)]
struct Delays {
    /// Of the window.
    sum: Duration,
    count: u32,
    /// The number of each period, and the least mean of its windows.
    bases: VecDeque<(u64, Duration)>,
}

impl Pacing {
    /// Nothing is known of requests yet: none is in a hurry.
    pub fn new(most_bytes_a_second: f64) -> Pacing {
        let (reads, writes) = (Delays::default(), Delays::default());
        Pacing { most: most_bytes_a_second, rate: most_bytes_a_second, window_began: Duration::ZERO, reads, writes }
    }

    /// Notes how long this node's part in a request took.
    pub fn note(&mut self, part: Part, took: Duration) {
        let delays = match part {
            Part::Read => &mut self.reads,
            Part::Write => &mut self.writes,
        };
        delays.sum = delays.sum.saturating_add(took);
        delays.count = delays.count.saturating_add(1);
    }

    /// In bytes a second, from now until it is asked for again. `now` is counted from any fixed moment.
    pub fn rate(&mut self, now: Duration) -> f64 {
        if now.saturating_sub(self.window_began) >= WINDOW {
            self.window_began = now;
            let spare = [self.reads.close(now), self.writes.close(now)].into_iter().flatten().fold(1.0, f64::min);
            let rate = if spare >= 0.0 {
                self.rate + spare * self.most / WINDOWS_TO_RISE
            } else {
                self.rate * (1.0 + spare).max(0.5)
            };
            self.rate = rate.clamp(self.most * LEAST_SHARE, self.most);
        }
        self.rate
    }

    /// Whether requests have to be given way to.
    pub fn gives_way(&self) -> bool {
        self.rate < self.most
    }
}

impl Delays {
    /// Ends the window; says how much of the delay that is allowed is left, as a share of it: less than nothing if there is
    /// more. None if too few were noted.
    fn close(&mut self, now: Duration) -> Option<f64> {
        if self.count < LEAST_DELAYS {
            return None;
        }
        let mean = self.sum / self.count;
        (self.sum, self.count) = (Duration::ZERO, 0);
        let base = self.base_with(now, mean);
        let allowed = base.max(LEAST_ALLOWED);
        let added = mean.saturating_sub(base);
        Some(1.0 - added.as_secs_f64() / allowed.as_secs_f64())
    }

    fn base_with(&mut self, now: Duration, mean: Duration) -> Duration {
        let period = now.as_secs() / PERIOD.as_secs();
        match self.bases.back_mut() {
            Some((of, least)) if *of == period => *least = mean.min(*least),
            Some(_) | None => self.bases.push_back((period, mean)),
        }
        self.bases.retain(|(of, _)| of.saturating_add(PERIODS as u64) > period);
        self.bases.iter().map(|(_, least)| *least).min().unwrap_or(mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: f64 = 1000.0;

    /// A node, and what time it is there.
    struct World {
        pacing: Pacing,
        now: Duration,
    }

    impl World {
        fn new() -> World {
            World { pacing: Pacing::new(MOST), now: Duration::from_secs(1000) }
        }

        /// Goes on for as many windows, in each of which ten requests took so long.
        fn windows(&mut self, count: u32, part: Part, took: Duration) -> f64 {
            for _ in 0..count {
                (0..10).for_each(|_| self.pacing.note(part, took));
                self.now += WINDOW;
                self.pacing.rate(self.now);
            }
            self.pacing.rate(self.now)
        }

        fn idle(&mut self, count: u32) -> f64 {
            (0..count).for_each(|_| {
                self.now += WINDOW;
                self.pacing.rate(self.now);
            });
            self.pacing.rate(self.now)
        }
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn without_requests_nothing_is_given_way_to() {
        let mut world = World::new();
        assert_eq!(world.idle(10), MOST);
        assert!(!world.pacing.gives_way());
    }

    #[test]
    fn requests_that_take_much_longer_are_given_way_to_at_once_and_the_rate_comes_back_slowly() {
        let mut world = World::new();
        assert_eq!(world.windows(10, Part::Write, ms(5)), MOST);
        assert_eq!(world.windows(1, Part::Write, ms(20)), MOST / 2.0);
        assert!(world.pacing.gives_way());
        assert_eq!(world.windows(10, Part::Write, ms(20)), MOST * LEAST_SHARE, "and no slower");
        let soon = world.windows(2, Part::Write, ms(5));
        assert!(soon > MOST * LEAST_SHARE && soon < MOST / 2.0, "{soon}");
        assert_eq!(world.windows(30, Part::Write, ms(5)), MOST);
    }

    #[test]
    fn a_little_more_is_allowed() {
        let mut world = World::new();
        world.windows(10, Part::Write, ms(10));
        assert_eq!(world.windows(10, Part::Write, ms(19)), MOST);
        world.windows(10, Part::Read, Duration::from_micros(100));
        assert_eq!(world.windows(10, Part::Read, ms(2)), MOST, "what is fast may take a little longer");
        assert!(world.windows(10, Part::Read, ms(4)) < MOST);
    }

    #[test]
    fn other_requests_are_not_slower_ones() {
        let mut world = World::new();
        world.windows(10, Part::Read, ms(1));
        assert_eq!(world.windows(10, Part::Write, ms(10)), MOST);
        assert_eq!(world.windows(10, Part::Read, ms(1)), MOST);
    }

    #[test]
    fn few_requests_are_added_up_until_they_say_something() {
        let mut world = World::new();
        world.windows(10, Part::Write, ms(5));
        let mut one = |took| {
            world.pacing.note(Part::Write, took);
            world.idle(1)
        };
        assert_eq!([one(ms(50)), one(ms(50)), one(ms(50)), one(ms(50))], [MOST; 4]);
        assert_eq!(one(ms(50)), MOST / 2.0);
    }

    #[test]
    fn what_was_long_ago_is_no_base() {
        let mut world = World::new();
        world.windows(10, Part::Write, ms(1));
        assert!(world.windows(10, Part::Write, ms(8)) < MOST);
        world.now += PERIOD * PERIODS as u32;
        assert!(world.windows(40, Part::Write, ms(8)) == MOST, "it is usual by now");
    }
}
