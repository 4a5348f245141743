//! The one time line. Counted in nanoseconds from the beginning of the simulation.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use starling_core::wall::WallTime;

/// What `CLOCK_MONOTONIC` shows at the beginning: a machine that has been up for a while.
pub const MONOTONIC_AT_START: Duration = Duration::from_secs(1_000_000);
/// What `CLOCK_REALTIME` shows at the beginning: 2026-01-01.
pub const REALTIME_AT_START: Duration = Duration::from_secs(1_767_225_600);
/// The grain of time.
pub const TICK: Duration = Duration::from_millis(1);

static RUNNING: AtomicBool = AtomicBool::new(false);
/// The end of the last tick.
static WORLD: AtomicU64 = AtomicU64::new(0);
static ORIGIN: OnceLock<Instant> = OnceLock::new();

thread_local! {
    /// A host runs: its own clock, which may be ahead of the last tick, is the time.
    static IN_HOST: Cell<bool> = const { Cell::new(false) };
    static ASKING: Cell<bool> = const { Cell::new(false) };
}

/// A moment of the simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub u64);

impl Moment {
    pub const fn after(start: Duration) -> Moment {
        Moment(start.as_nanos() as u64)
    }

    pub fn since_start(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// What a wall clock shows then that is right.
    pub fn wall(self) -> WallTime {
        WallTime(0).after(REALTIME_AT_START + self.since_start())
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, later: Duration) -> Moment {
        Moment(self.0 + later.as_nanos() as u64)
    }
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3}", self.since_start().as_secs_f64())
    }
}

/// From now on this process lives in simulated time. There is no way back.
pub fn begin() {
    RUNNING.store(true, Ordering::SeqCst);
    ORIGIN.get_or_init(Instant::now);
}

pub(super) fn is_simulated() -> bool {
    RUNNING.load(Ordering::SeqCst)
}

/// The present moment: of the host that runs, or of the world between two ticks.
pub fn now() -> Moment {
    // The runtime's clock may ask for the time itself while it is being made or dropped.
    if !IN_HOST.get() || ASKING.replace(true) {
        return Moment(WORLD.load(Ordering::SeqCst));
    }
    let host = tokio::time::Instant::now().into_std();
    ASKING.set(false);
    let origin = ORIGIN.get().expect("hosts run after the beginning");
    Moment(host.saturating_duration_since(*origin).as_nanos() as u64)
}

/// What a wall clock shows that is right.
pub fn wall() -> WallTime {
    now().wall()
}

/// The world's time between two ticks.
pub fn set(now: Moment) {
    WORLD.store(now.0, Ordering::SeqCst);
}

/// The runtime's instant that stands for a moment.
pub(super) fn instant(at: Moment) -> tokio::time::Instant {
    let origin = ORIGIN.get().expect("hosts run after the beginning");
    (*origin + Duration::from_nanos(at.0)).into()
}

/// Runs `act` in a host's own time.
pub(super) fn in_host<T>(act: impl FnOnce() -> T) -> T {
    IN_HOST.set(true);
    let done = act();
    IN_HOST.set(false);
    done
}
