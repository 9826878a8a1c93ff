//! The life of one checker: from the outcomes of its probes to "up" or "failed", and when to
//! look again.

use std::time::Duration;

use super::settings::{CheckerSettings, ProbeResult};

/// The longest random wait before the first probe when no `warmup` is configured.
///
/// Real servers are in the pool before their first check, so it is short; it is not zero, so
/// that a start with thousands of checkers does not open all its connections in one instant.
const FIRST_PROBE_WITHIN: Duration = Duration::from_secs(1);

/// One checker of one real server.
///
/// keepalived's rules: the first result ever decides at once; after it, `retry` + 1 failures in
/// a row, `delay_before_retry` apart, bring the checker down; while it is down a single success
/// brings it up; a success forgets earlier failures.
#[derive(Clone, Debug)]
pub struct Checker {
    settings: CheckerSettings,
    up: bool,
    has_run: bool,
    failures: u32,
}

/// What one result did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the result decided.
    pub judgement: Judgement,
    /// Whether [`Checker::is_up`] is different from before.
    pub flipped: bool,
    /// From now to the next probe.
    pub next: Duration,
}

/// What a result decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// As before.
    Unchanged,
    /// It failed, and is tried again before that counts.
    Retry,
    /// It passed: the first time ever, or after having failed.
    Up,
    /// It failed for good.
    Down {
        /// Retries that were spent before; 0 when the first result ever decided.
        retries: u32,
    },
}

impl Checker {
    /// A checker that has not run: failed with `alpha`, and where its real server is down (`down`), as nothing
    /// goes up before its check where it was down; else up.
    pub fn new(settings: CheckerSettings, down: bool) -> Self {
        Self {
            up: !settings.alpha && !down,
            settings,
            has_run: false,
            failures: 0,
        }
    }

    /// The wait before the first probe: `random(0..warmup)`, see the module's documentation.
    pub fn first_delay(&self, rng: &mut fastrand::Rng) -> Duration {
        let default = FIRST_PROBE_WITHIN.min(self.settings.delay_loop);
        random_up_to(self.settings.warmup.unwrap_or(default), rng)
    }

    /// Takes the result of a probe.
    pub fn handle_result(&mut self, result: &ProbeResult, rng: &mut fastrand::Rng) -> Outcome {
        let (was_up, first) = (self.up, !self.has_run);
        self.has_run = true;
        let judgement = match result {
            Ok(()) => self.pass(first),
            Err(_) => self.fail(first),
        };
        let next = if judgement == Judgement::Retry {
            self.settings.delay_before_retry
        } else if first && self.settings.warmup.is_none() {
            random_up_to(self.settings.delay_loop, rng)
        } else {
            self.settings.delay_loop
        };
        Outcome {
            judgement,
            flipped: self.up != was_up,
            next,
        }
    }

    /// Takes new settings that probe the same thing, keeping what is known.
    pub fn reconfigure(&mut self, settings: CheckerSettings) {
        self.failures = self.failures.min(settings.retry);
        if !self.has_run && settings.alpha {
            self.up = false;
        }
        self.settings = settings;
    }

    /// Whether it counts as working.
    pub const fn is_up(&self) -> bool {
        self.up
    }

    /// Whether a probe has ever given a result.
    pub const fn has_run(&self) -> bool {
        self.has_run
    }

    /// What it was told.
    pub const fn settings(&self) -> &CheckerSettings {
        &self.settings
    }

    const fn pass(&mut self, first: bool) -> Judgement {
        let changed = first || !self.up;
        self.up = true;
        self.failures = 0;
        if changed {
            Judgement::Up
        } else {
            Judgement::Unchanged
        }
    }

    const fn fail(&mut self, first: bool) -> Judgement {
        if !first && !self.up {
            return Judgement::Unchanged;
        }
        if !first && self.failures < self.settings.retry {
            self.failures += 1;
            return Judgement::Retry;
        }
        let retries = self.failures;
        self.up = false;
        self.failures = 0;
        Judgement::Down { retries }
    }
}

/// A random duration from zero to `limit`, both possible.
fn random_up_to(limit: Duration, rng: &mut fastrand::Rng) -> Duration {
    Duration::from_nanos(rng.u64(0..=u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::settings::{Probe, ProbeError, TcpProbe};

    const LOOP: Duration = Duration::from_secs(6);
    const RETRY: Duration = Duration::from_secs(2);

    fn settings(retry: u32, alpha: bool) -> CheckerSettings {
        CheckerSettings {
            probe: Probe::Tcp(TcpProbe {
                target: "192.0.2.1:80".parse().unwrap(),
                bind: None,
                timeout: Duration::from_secs(5),
                mark: None,
            }),
            retry,
            delay_before_retry: RETRY,
            delay_loop: LOOP,
            warmup: Some(LOOP),
            alpha,
            log_all_failures: false,
        }
    }

    fn feed(checker: &mut Checker, passed: bool) -> Outcome {
        let result = if passed {
            Ok(())
        } else {
            Err(ProbeError::Timeout)
        };
        checker.handle_result(&result, &mut fastrand::Rng::with_seed(1))
    }

    /// Runs `script` ('+' passes, '-' fails) and writes what each result did: letter of the judgement
    /// (`U`p, `D`own, `r`etry, `.` nothing), `!` when it flipped, then the wait in seconds.
    fn trace(retry: u32, alpha: bool, script: &str) -> String {
        let mut checker = Checker::new(settings(retry, alpha), false);
        let mut lines = Vec::new();
        for c in script.chars() {
            let outcome = feed(&mut checker, c == '+');
            let letter = match outcome.judgement {
                Judgement::Unchanged => ".".to_owned(),
                Judgement::Retry => "r".to_owned(),
                Judgement::Up => "U".to_owned(),
                Judgement::Down { retries } => format!("D{retries}"),
            };
            let flip = if outcome.flipped { "!" } else { "" };
            lines.push(format!("{letter}{flip}/{}", outcome.next.as_secs()));
        }
        lines.join(" ")
    }

    #[test]
    fn results_decide_as_keepalived_documents() {
        for (retry, alpha, script, expected) in [
            // The first result ever decides at once, whatever `retry` says.
            (3, false, "-", "D0!/6"),
            (3, false, "+", "U/6"),
            (3, true, "-", "D0/6"),
            (3, true, "+", "U!/6"),
            // After it, retry + 1 failures in a row, delay_before_retry apart.
            (1, false, "+--", "U/6 r/2 D1!/6"),
            (3, false, "+----", "U/6 r/2 r/2 r/2 D3!/6"),
            (0, false, "+-", "U/6 D0!/6"),
            // A success in between starts the count again.
            (2, false, "+--+--+", "U/6 r/2 r/2 ./6 r/2 r/2 ./6"),
            (1, false, "+-+-+--", "U/6 r/2 ./6 r/2 ./6 r/2 D1!/6"),
            // While down: no retries, one success is enough, and the count starts at zero.
            (1, false, "---+", "D0!/6 ./6 ./6 U!/6"),
            (1, false, "-+--", "D0!/6 U!/6 r/2 D1!/6"),
            (2, true, "--+---", "D0/6 ./6 U!/6 r/2 r/2 D2!/6"),
        ] {
            assert_eq!(
                trace(retry, alpha, script),
                expected,
                "retry {retry}, alpha {alpha}, {script}"
            );
        }
    }

    #[test]
    fn the_first_probe_leaves_within_a_second_or_the_warmup_that_was_asked_for() {
        let mut rng = fastrand::Rng::with_seed(7);
        let ms = Duration::from_millis;
        for (warmup, delay_loop, limit) in [
            (None, LOOP, ms(1000)),
            (None, ms(200), ms(200)),
            (Some(ms(4000)), LOOP, ms(4000)),
            (Some(Duration::ZERO), LOOP, Duration::ZERO),
        ] {
            let checker = Checker::new(
                CheckerSettings {
                    warmup,
                    delay_loop,
                    ..settings(1, false)
                },
                false,
            );
            let waits: Vec<_> = (0..1000).map(|_| checker.first_delay(&mut rng)).collect();
            let longest = *waits.iter().max().unwrap();
            let shortest = *waits.iter().min().unwrap();
            assert!(longest <= limit, "{longest:?} > {limit:?}");
            assert!(longest >= limit * 9 / 10, "{longest:?} is not spread");
            assert!(shortest <= limit / 10, "{shortest:?} is not spread");
        }
    }

    #[test]
    fn without_a_warmup_only_the_second_probe_is_drawn_to_spread_the_checks() {
        let mut rng = fastrand::Rng::with_seed(7);
        let second: Vec<_> = (0..1000)
            .map(|_| {
                let mut checker = Checker::new(
                    CheckerSettings {
                        warmup: None,
                        ..settings(1, false)
                    },
                    false,
                );
                let second = checker.handle_result(&Ok(()), &mut rng).next;
                assert_eq!(checker.handle_result(&Ok(()), &mut rng).next, LOOP);
                second
            })
            .collect();
        assert!(second.iter().all(|wait| *wait <= LOOP));
        assert!(second.iter().any(|wait| *wait < LOOP / 10));
        assert!(second.iter().any(|wait| *wait > LOOP * 9 / 10));
    }

    #[test]
    fn new_settings_keep_the_state_but_not_more_failures_than_they_allow() {
        let mut checker = Checker::new(settings(5, false), false);
        for passed in [true, false, false, false] {
            feed(&mut checker, passed);
        }
        checker.reconfigure(settings(1, true));
        assert!(checker.is_up(), "alpha is for checkers that have not run");
        let outcome = feed(&mut checker, false);
        assert_eq!(outcome.judgement, Judgement::Down { retries: 1 });
        checker.reconfigure(settings(1, false));
        assert!(!checker.is_up(), "a failed checker stays failed");
    }
}
