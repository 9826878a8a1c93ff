//! Messages about what goes on failing: said at once, then counted.

use std::{collections::BTreeMap, fmt::Display, time::Duration};

use super::log::{Level, Line};
use crate::time::Instant;

/// How often a message is said again while its cause lasts.
const EVERY: Duration = Duration::from_secs(60);

/// Decides when a message is said that would otherwise repeat itself without end.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    said: Option<Instant>,
    unsaid: u64,
}

impl Repeats {
    /// It happened again. When it is to be said: how often it was left out since the last time.
    pub(super) fn tell(&mut self, now: Instant) -> Option<u64> {
        if self.said.is_some_and(|said| now - said < EVERY) {
            self.unsaid += 1;
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

/// What there is to say about doing the same again and again, to each of several places.
#[derive(Debug)]
pub(super) struct Reports<K> {
    failing: BTreeMap<K, Failing>,
}

#[derive(Debug)]
struct Failing {
    error: String,
    failures: u64,
    repeats: Repeats,
}

impl<K: Ord> Reports<K> {
    /// Everything works.
    pub(super) const fn new() -> Self {
        Self {
            failing: BTreeMap::new(),
        }
    }

    /// Takes note of how `what` to `place` went. A line when it fails for the first time or for
    /// another reason, one a minute while it does, and one when it works again.
    pub(super) fn note(
        &mut self,
        now: Instant,
        place: K,
        outcome: Result<(), &impl Display>,
        what: impl Display,
    ) -> Option<Line> {
        let error = match outcome {
            Ok(()) => {
                let failures = self.failing.remove(&place)?.failures;
                return Some(Line {
                    level: Level::Notice,
                    text: format!("{what} works again after {failures} failures"),
                });
            }
            Err(error) => error.to_string(),
        };
        let failing = self.failing.entry(place).or_insert_with(|| Failing {
            error: error.clone(),
            failures: 0,
            repeats: Repeats::default(),
        });
        failing.failures += 1;
        if failing.error != error {
            failing.error.clone_from(&error);
            failing.repeats = Repeats::default();
        }
        let text = match failing.repeats.tell(now)? {
            0 => format!("{what}: {error}"),
            unsaid => format!("{what}: {error} ({unsaid} more since this was last said)"),
        };
        Some(Line {
            level: Level::Error,
            text,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn error(errno: i32) -> io::Error {
        io::Error::from_raw_os_error(errno)
    }

    const OK: Result<(), &io::Error> = Ok(());

    #[test]
    fn a_send_that_goes_on_failing_is_said_once_a_minute() {
        let mut reports = Reports::new();
        let down = error(libc::ENETDOWN);
        let lines: Vec<(u64, String)> = (0..125)
            .filter_map(|second| {
                let line = reports.note(at(second), 'a', Err(&down), "sending")?;
                assert_eq!(line.level, Level::Error);
                Some((second, line.text))
            })
            .collect();
        let down = "sending: Network is down (os error 100)";
        let again = format!("{down} (59 more since this was last said)");
        assert_eq!(
            lines,
            [(0, down.to_owned()), (60, again.clone()), (120, again)]
        );
        let well = reports.note(at(125), 'a', OK, "sending");
        let works = "sending works again after 125 failures";
        let works = Line {
            level: Level::Notice,
            text: works.to_owned(),
        };
        assert_eq!(well, Some(works));
        assert_eq!(reports.note(at(126), 'a', OK, "sending"), None);
    }

    #[test]
    fn another_reason_and_another_place_are_news() {
        let mut reports = Reports::new();
        let mut note = |place, errno| {
            reports
                .note(at(1), place, Err(&error(errno)), "x")
                .is_some()
        };
        assert!(note('a', libc::ENETDOWN));
        assert!(note('b', libc::ENETDOWN));
        assert!(!note('a', libc::ENETDOWN));
        assert!(note('a', libc::EPERM));
        assert!(!note('a', libc::EPERM));
        assert!(!note('b', libc::ENETDOWN));
    }
}
