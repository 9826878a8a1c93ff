//! What the tests stand on: a LAN of network namespaces, the programs that run in it, and
//! ways to look at what they do.

pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod decap;
pub(crate) mod echo;
pub(crate) mod host;
pub(crate) mod keepalived;
pub(crate) mod lan;
pub(crate) mod oracle;
pub(crate) mod probe;
pub(crate) mod process;
pub(crate) mod routed;
pub(crate) mod site;
pub(crate) mod snapshot;
pub(crate) mod web;
pub(crate) mod xvs;

use std::{
    thread,
    time::{Duration, Instant},
};

/// How often a condition is looked at: short against every interval that is measured by it.
const POLL: Duration = Duration::from_millis(15);

/// The time of day of these tests. They watch real programs, so time cannot be an argument.
#[allow(
    clippy::disallowed_methods,
    reason = "the programs under test live in real time"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Shorthand for the deadlines of the tests.
pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Shorthand for the bounds of the tests.
pub(crate) const fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Waits until `condition` gives a value and says how long that took; panics when it has not
/// within `limit`.
pub(crate) fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> (T, Duration) {
    let start = now();
    loop {
        if let Some(value) = condition() {
            return (value, start.elapsed());
        }
        let waited = start.elapsed();
        assert!(waited < limit, "not within {limit:?}: {what}");
        thread::sleep(POLL);
    }
}

/// As [`wait_for`], for a condition that is only true or false.
pub(crate) fn wait_until(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> bool,
) -> Duration {
    wait_for(what, limit, || condition().then_some(())).1
}
