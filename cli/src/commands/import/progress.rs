//! The line that a person watches during an import.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::units::count;

/// Redraws a second.
const REDRAWS: u8 = 10;

/// Hidden unless somebody watches.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub fn new(bytes: u64, watched: bool) -> Progress {
        let target = if watched { ProgressDrawTarget::stderr_with_hz(REDRAWS) } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(bytes), target);
        let style = ProgressStyle::with_template("{bar:24} {percent:>3}%  {msg}  {eta} left");
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("█▌ "));
        }
        Progress { bar }
    }

    /// Records settle out of order: the bar only goes forward.
    pub fn show(&self, end: u64, records: u64, failed: u64, elapsed: Duration) {
        if self.bar.is_hidden() {
            return;
        }
        self.bar.set_position(self.bar.position().max(end));
        let rate = records as f64 / elapsed.as_secs_f64().max(0.1);
        let failed = if failed > 0 { format!(", {} failed", count(failed)) } else { String::new() };
        self.bar.set_message(format!("{} records, {}/s{failed}", count(records), count(rate as u64)));
    }

    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
