//! The line that a person watches during an import.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::units::{age, count};

/// Redraws a second.
const REDRAWS: u8 = 10;

/// Hidden unless somebody watches.
pub struct Progress {
    bar: ProgressBar,
    size: u64,
    furthest: Position,
}

/// A place in the file, by the record that ends there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    pub record: u64,
    /// In bytes.
    pub end: u64,
}

impl Progress {
    pub fn new(bytes: u64, watched: bool) -> Progress {
        let target = if watched { ProgressDrawTarget::stderr_with_hz(REDRAWS) } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(bytes), target);
        let style = ProgressStyle::with_template("{bar:24} {percent:>3}%  {msg}");
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("█▌ "));
        }
        Progress { bar, size: bytes, furthest: Position::default() }
    }

    /// Records settle out of order: the bar only goes forward.
    pub fn show(&mut self, at: Position, records: u64, failed: u64, elapsed: Duration) {
        if self.bar.is_hidden() {
            return;
        }
        if at.end > self.furthest.end {
            self.furthest = at;
        }
        self.bar.set_position(self.furthest.end);
        let rate = records as f64 / elapsed.as_secs_f64().max(0.1);
        let failed = if failed > 0 { format!(", {} failed", count(failed)) } else { String::new() };
        let left = age(self.furthest.time_left(self.size, rate));
        self.bar.set_message(format!("{} records, {}/s{failed}  {left} left", count(records), count(rate as u64)));
    }

    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Position {
    /// Until the end of a file of this size, at so many records a second. What an earlier run did says how long records are,
    /// and not how fast this one is.
    fn time_left(self, size: u64, rate: f64) -> Duration {
        let records = size.saturating_sub(self.end) as f64 * self.record as f64 / self.end.max(1) as f64;
        Duration::try_from_secs_f64(records / rate).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_reckoned_by_the_pace_of_this_run_wherever_it_began() {
        let half = Position { record: 500, end: 5_000 };
        assert_eq!(half.time_left(10_000, 50.0), Duration::from_secs(10));
        assert_eq!(half.time_left(5_000, 50.0), Duration::ZERO);
        assert_eq!(half.time_left(10_000, 0.0), Duration::MAX);
    }
}
