//! A client that never stops asking: what does it notice of an event?

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{
    client::{Shares, get, server_of},
    host::Host,
    millis, now, wait_until,
};

/// Time between two requests. It bounds how exactly a gap is known.
const INTERVAL: Duration = millis(10);

/// Askers that take turns, so that one that waits for an answer does not hold up the others.
const ASKERS: u32 = 25;

/// How long a request may take: a little less than until its asker's next turn.
const PATIENCE: Duration = millis(240);

/// How a request ended, and when.
struct Answer {
    at: Instant,
    outcome: io::Result<String>,
}

/// What the client saw.
#[derive(Debug)]
pub(crate) struct Report {
    /// Requests made.
    pub(crate) requests: usize,
    /// Requests without a complete answer in time.
    pub(crate) failures: usize,
    /// Those of the failures that were answered by a reset or a refusal.
    pub(crate) resets: usize,
    /// The longest time without an answer.
    pub(crate) longest_gap: Duration,
    /// Who answered how often.
    pub(crate) shares: Shares,
}

/// A request every ten milliseconds, each on a connection of its own, until told to stop.
pub(crate) struct Prober {
    start: Instant,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    askers: Vec<JoinHandle<Vec<Answer>>>,
}

impl Prober {
    /// Starts to ask `target` from the addresses `sources` of `host`, in turn.
    pub(crate) fn start(host: &Host, sources: &[Ipv4Addr], target: SocketAddr) -> Self {
        let start = now();
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let ask_in_turn = |number| {
            let (network, stop) = (host.network(), Arc::clone(&stop));
            let answered = Arc::clone(&answered);
            let sources = sources.to_vec();
            thread::spawn(move || {
                network.move_this_thread();
                let mut answers = Vec::new();
                let mut turn = number;
                loop {
                    let due = start + INTERVAL * turn;
                    thread::sleep(due.saturating_duration_since(now()));
                    if stop.load(Ordering::Relaxed) {
                        return answers;
                    }
                    let source = sources[turn as usize % sources.len()];
                    let outcome = get(source, target, PATIENCE);
                    let at = now();
                    answered.fetch_add(usize::from(outcome.is_ok()), Ordering::Relaxed);
                    answers.push(Answer { at, outcome });
                    // A turn that was missed while waiting is not made up for.
                    while start + INTERVAL * turn <= at {
                        turn += ASKERS;
                    }
                }
            })
        };
        let askers = (0..ASKERS).map(ask_in_turn).collect();
        Self {
            start,
            stop,
            answered,
            askers,
        }
    }

    /// Waits until `count` more requests have been answered: the service is there (again).
    pub(crate) fn wait_for_answers(&self, count: usize, limit: Duration) {
        let target = self.answered.load(Ordering::Relaxed) + count;
        let what = format!("{count} more requests are answered");
        wait_until(&what, limit, || {
            self.answered.load(Ordering::Relaxed) >= target
        });
    }

    /// Ends the questions.
    pub(crate) fn finish(mut self) -> Report {
        let answers = self.collect();
        let mut good: Vec<Instant> = Vec::new();
        let mut report = Report {
            requests: answers.len(),
            failures: 0,
            resets: 0,
            longest_gap: Duration::ZERO,
            shares: Shares::new(),
        };
        for answer in &answers {
            match &answer.outcome {
                Ok(text) => {
                    good.push(answer.at);
                    *report.shares.entry(server_of(text).to_owned()).or_default() += 1;
                }
                Err(error) => {
                    report.failures += 1;
                    let reset = [
                        io::ErrorKind::ConnectionReset,
                        io::ErrorKind::ConnectionRefused,
                    ];
                    report.resets += usize::from(reset.contains(&error.kind()));
                }
            }
        }
        good.push(self.start);
        good.push(answers.iter().map(|a| a.at).max().unwrap_or(self.start));
        good.sort();
        let gaps = good.windows(2).map(|pair| pair[1] - pair[0]);
        report.longest_gap = gaps.max().unwrap_or_default();
        report
    }

    fn collect(&mut self) -> Vec<Answer> {
        self.stop.store(true, Ordering::Relaxed);
        let mut answers = Vec::new();
        for asker in self.askers.drain(..) {
            answers.extend(asker.join().expect("an asker does not panic"));
        }
        answers
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
