//! Numbers as people read them.

use std::time::{Duration, SystemTime};

use bytesize::ByteSize;
use starling_core::wall::WallTime;

/// `850 µs`, `1.2 ms`, `3.40 s`.
pub fn latency(took: Duration) -> String {
    let micros = took.as_micros();
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..100_000 => format!("{:.1} ms", took.as_secs_f64() * 1e3),
        100_000..1_000_000 => format!("{} ms", took.as_millis()),
        _ => format!("{:.2} s", took.as_secs_f64()),
    }
}

/// How long something has lasted: `45s`, `3m 12s`, `2h 5m`, `3d 4h`.
pub fn age(lasted: Duration) -> String {
    let seconds = lasted.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m {}s", seconds % 60),
        3600..86_400 => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// `63440` as `63,440`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1.2 MiB`.
pub fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// `1 sibling`, `2 siblings`.
pub fn plural(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

/// RFC 3339 in UTC, to the millisecond.
pub fn moment(at: WallTime) -> String {
    // The last that the format can say: the end of the year 9999.
    const LAST: u64 = 253_402_300_799_999;
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(at.0.min(LAST));
    humantime::format_rfc3339_millis(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(latency(Duration::from_micros(850)), "850 µs");
        assert_eq!(latency(Duration::from_micros(1_230)), "1.2 ms");
        assert_eq!(latency(Duration::from_millis(512)), "512 ms");
        assert_eq!(latency(Duration::from_millis(3_400)), "3.40 s");
        assert_eq!(age(Duration::from_secs(192)), "3m 12s");
        assert_eq!(age(Duration::from_secs(90_000)), "1d 1h");
        assert_eq!([count(1), count(999), count(1_000), count(1_234_567)], ["1", "999", "1,000", "1,234,567"]);
        assert_eq!(size(1_258_291), "1.2 MiB");
        assert_eq!(plural(1, "key"), "1 key");
        assert_eq!(moment(WallTime(0)), "1970-01-01T00:00:00.000Z");
    }
}
