//! The only clocks of the program. Everything else is handed a time.

use std::time::SystemTime;

use crate::time::Instant;

/// The monotonic time now: `CLOCK_MONOTONIC`, the same time line for every process on the host.
///
/// Answered without entering the kernel where there is a vDSO. It stands still while the host is
/// suspended, which is right for timers that wait for packets.
pub fn now() -> Instant {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a live, writable timespec for the duration of the call.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    assert_eq!(status, 0, "Linux always has CLOCK_MONOTONIC");
    // Neither is ever negative for this clock.
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Instant::from_nanos(seconds * 1_000_000_000 + nanos)
}

/// The time of day, for people: log lines and "since" columns. It may jump; never compute with it.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the time of day"
)]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_is_the_kernels_and_never_goes_back() {
        // /proc/uptime counts from boot as CLOCK_BOOTTIME does: never behind CLOCK_MONOTONIC.
        let text = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = text.split(' ').next().unwrap().parse().unwrap();
        let first = now();
        let second = now();
        assert!(second >= first);
        let seconds = std::time::Duration::from_nanos(first.as_nanos()).as_secs_f64();
        assert!(
            seconds > 0.0 && seconds < uptime + 1.0,
            "{seconds} {uptime}"
        );
    }

    #[test]
    fn the_wall_clock_is_later_than_this_program() {
        let year_2024 = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_704_067_200);
        assert!(wall() > year_2024);
    }
}
