//! From the kernel's monotonic time to Unix time.
//!
//! One offset is taken at the start and kept, over restarts of the daemon too: a step of the wall clock must not reorder events nor
//! make a window run out. How far the wall clock has gone off since is measured, for a metric.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Times that one measurement is repeated; the one that took least counts.
const ATTEMPTS: usize = 16;

/// Why time cannot be told.
#[derive(Debug)]
pub struct ClockError;

impl fmt::Display for ClockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the system clock stands before 1970\n  remedy: set it")
    }
}

impl std::error::Error for ClockError {}

/// Kernel time to Unix time, by a fixed offset.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    offset_ns: u64,
}

impl Clock {
    /// A clock whose offset is measured now.
    ///
    /// # Errors
    /// The system clock stands before 1970.
    pub fn start() -> Result<Self, ClockError> {
        Ok(Self { offset_ns: measure_offset_ns()? })
    }

    /// A clock with the offset of an earlier run in the same boot, in nanoseconds: events from before
    /// and after are then on one scale.
    pub const fn with_offset(offset_ns: u64) -> Self {
        Self { offset_ns }
    }

    /// Unix time less kernel time, in nanoseconds.
    pub const fn offset_ns(&self) -> u64 {
        self.offset_ns
    }

    /// Unix time of a kernel time, in nanoseconds.
    pub const fn unix_ns(&self, monotonic_ns: u64) -> u64 {
        self.offset_ns.saturating_add(monotonic_ns)
    }

    /// Unix time now, in nanoseconds, by this clock.
    pub fn now_ns(&self) -> u64 {
        self.unix_ns(monotonic_ns())
    }

    /// How far the system clock has been stepped since the start, in nanoseconds.
    pub fn step_ns(&self) -> i64 {
        measure_offset_ns().map_or(0, |now| now.cast_signed().wrapping_sub(self.offset_ns.cast_signed()))
    }
}

/// The kernel's monotonic time in nanoseconds, the one that records carry.
pub fn monotonic_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let duration = Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0));
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Unix time less monotonic time, in nanoseconds, off by at most half the time of one measurement.
fn measure_offset_ns() -> Result<u64, ClockError> {
    let mut best: Option<(u64, u64)> = None;
    for _ in 0..ATTEMPTS {
        let before = monotonic_ns();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| ClockError)?;
        let took = monotonic_ns().saturating_sub(before);
        let unix = u64::try_from(unix.as_nanos()).map_err(|_| ClockError)?;
        let offset = unix.checked_sub(before.saturating_add(took / 2)).ok_or(ClockError)?;
        if best.is_none_or(|(least, _)| took < least) {
            best = Some((took, offset));
        }
    }
    best.map(|(_, offset)| offset).ok_or(ClockError)
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::Clock;

    #[test]
    fn it_says_what_the_system_clock_says() {
        let clock = Clock::start().expect("after 1970");
        let before = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
        let told = u128::from(clock.now_ns());
        let after = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
        let tolerance = 5_000_000;
        assert!(before < told + tolerance && told < after + tolerance, "{before} {told} {after}");
    }
}
