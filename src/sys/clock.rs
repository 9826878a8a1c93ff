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

/// A time of day in this host's time zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalTime {
    /// 0 to 11.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 60.
    pub second: u8,
}

/// The time `wall` as clocks on the wall show it. The C library reads the time zone's file at the first call.
pub fn local(wall: SystemTime) -> LocalTime {
    let since = wall.duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since.map_or(0, |since| since.as_secs());
    let seconds = libc::time_t::try_from(seconds).unwrap_or(0);
    // SAFETY: a `tm` of zeros is valid: integers and a null pointer that is not read.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both point to live values for the duration of the call, which writes `parts` alone.
    let done = unsafe { libc::localtime_r(&raw const seconds, &raw mut parts) };
    if done.is_null() {
        return LocalTime::default();
    }
    let small = |part: libc::c_int| u8::try_from(part).unwrap_or(0);
    LocalTime {
        month: small(parts.tm_mon),
        day: small(parts.tm_mday),
        hour: small(parts.tm_hour),
        minute: small(parts.tm_min),
        second: small(parts.tm_sec),
    }
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
    fn local_time_is_what_date_says() {
        let wall = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_795_827_845);
        let mut date = std::process::Command::new("date");
        let output = date
            .args(["--date=@1795827845", "+%m %d %H %M %S"])
            .output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        let parts: Vec<u8> = text
            .split_whitespace()
            .map(|part| part.parse().unwrap())
            .collect();
        let time = local(wall);
        let month = time.month + 1;
        assert_eq!(
            parts,
            [month, time.day, time.hour, time.minute, time.second]
        );
    }

    #[test]
    fn the_wall_clock_is_later_than_this_program() {
        let year_2024 = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_704_067_200);
        assert!(wall() > year_2024);
    }
}
