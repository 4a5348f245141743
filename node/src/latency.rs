//! How long a peer usually takes, so that slowness is told from business as usual.
//!
//! A smoothed mean and mean deviation, as TCP keeps them for its retransmission timer (RFC 6298): a call is slow when it
//! takes longer than the mean and four deviations.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

/// Used until there is a measurement.
const FIRST_GUESS: Duration = Duration::from_millis(250);
/// Always called slow above this, however slow it usually is.
const MOST: Duration = Duration::from_millis(750);

#[derive(Debug, Default)]
pub struct Latency(Mutex<Option<Smoothed>>);

#[derive(Debug, Clone, Copy)]
struct Smoothed {
    mean: f64,
    deviation: f64,
}

impl Latency {
    /// Never called slow below this: a sync on a busy disk, or a busy scheduler, is not a failure.
    pub const LEAST: Duration = Duration::from_millis(50);

    pub fn note(&self, took: Duration) {
        let took = took.as_secs_f64();
        let mut smoothed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *smoothed = Some(match *smoothed {
            None => Smoothed { mean: took, deviation: took / 2.0 },
            Some(Smoothed { mean, deviation }) => Smoothed {
                mean: mean + (took - mean) / 8.0,
                deviation: deviation + ((took - mean).abs() - deviation) / 4.0,
            },
        });
    }

    /// After this long without an answer the peer is slow.
    pub fn slow_after(&self) -> Duration {
        self.measured().unwrap_or(FIRST_GUESS)
    }

    /// The same, if anything was measured yet.
    pub fn measured(&self) -> Option<Duration> {
        let Smoothed { mean, deviation } = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        Some(Duration::from_secs_f64(mean + 4.0 * deviation).clamp(Latency::LEAST, MOST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slowness_is_relative_to_what_is_usual() {
        let latency = Latency::default();
        assert_eq!(latency.slow_after(), FIRST_GUESS);
        for _ in 0..100 {
            latency.note(Duration::from_millis(1));
        }
        assert_eq!(latency.slow_after(), Latency::LEAST);
        for _ in 0..100 {
            latency.note(Duration::from_millis(100));
        }
        assert!(latency.slow_after() > Duration::from_millis(100));
        assert!(latency.slow_after() <= MOST);
    }
}
