//! How the control thread is scheduled: `vrrp_priority` and its neighbours of `global_defs`.
//!
//! It is the thread that elects and checks, so it stands for both of keepalived's processes. What it starts, the
//! workers above all, is scheduled as usual (`sys::scheduling`).

use std::time::Duration;

use super::super::log::{Level, Line};
use crate::{
    config::{Cpus, Processes, defaults},
    sys::{
        affinity,
        scheduling::{self, Usual, WorkLimit},
    },
};

/// What is asked for, and what was done about it.
#[derive(Debug, Default)]
pub(super) struct Priorities {
    nice: Option<i8>,
    cpus: Option<Cpus>,
    no_swap: bool,
    /// How long it may work in real time without a pause, in microseconds. `None`: no limit of ours.
    work: Option<u32>,
    ladder: Ladder,
    /// Its real-time priority. `None`: as others.
    real_time: Option<u8>,
    /// Made when it is first needed: it catches a signal.
    limit: Option<WorkLimit>,
}

/// The real-time priority that there should be, which rises with each timer that is far too late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ladder {
    /// `vrrp_rt_priority`.
    base: Option<u8>,
    /// `max_auto_priority`. `None`: it does not rise.
    most: Option<u8>,
    /// `min_auto_priority_delay`.
    late: Duration,
    now: Option<u8>,
}

impl Ladder {
    fn new(wanted: &Processes) -> Self {
        let micros = |micros: u32| Duration::from_micros(micros.into());
        let delay = wanted.min_auto_priority_delay;
        Self {
            base: wanted.vrrp_rt_priority,
            // 0 is never, and -1 is never without being told of it.
            most: (wanted.max_auto_priority)
                .and_then(|most| u8::try_from(most).ok())
                .filter(|most| *most > 0),
            late: delay.map_or(defaults::AUTO_PRIORITY_AFTER, micros),
            now: wanted.vrrp_rt_priority,
        }
    }

    /// A timer was served so late. The priority that should be from now on, if that is another.
    fn step(&mut self, late: Duration) -> Option<u8> {
        let next = self.now.unwrap_or(0) + 1;
        let rises = late > self.late && self.most.is_some_and(|most| next <= most);
        rises.then(|| *self.now.insert(next))
    }
}

impl Priorities {
    /// Has the calling thread scheduled as `wanted` says; what was asked for before and is no more is taken back.
    /// A line for each thing that the kernel refuses.
    pub(super) fn set(&mut self, wanted: &Processes) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut note = |keyword: &str, outcome: std::io::Result<()>| {
            if let Err(error) = outcome {
                lines.push(warning(format!("{keyword} is not applied: {error}")));
            }
        };
        if self.nice != wanted.vrrp_priority {
            let usual = Usual::note();
            let nice = usual.and_then(|usual| {
                scheduling::set_nice(wanted.vrrp_priority.unwrap_or_else(|| usual.nice()))
            });
            note("vrrp_priority", nice);
            self.nice = wanted.vrrp_priority;
        }
        if self.cpus != wanted.vrrp_cpu_affinity {
            let usual = Usual::note();
            let cpus = usual.and_then(|usual| match &wanted.vrrp_cpu_affinity {
                Some(Cpus(cpus)) => {
                    let cpus: Vec<usize> = cpus.iter().copied().map(usize::from).collect();
                    affinity::run_on(&cpus)
                }
                None => usual.run_anywhere(),
            });
            note("vrrp_cpu_affinity", cpus);
            self.cpus.clone_from(&wanted.vrrp_cpu_affinity);
        }
        if self.no_swap != wanted.vrrp_no_swap {
            note(
                "vrrp_no_swap",
                scheduling::keep_in_memory(wanted.vrrp_no_swap),
            );
            self.no_swap = wanted.vrrp_no_swap;
        }
        let ladder = Ladder::new(wanted);
        let base = Ladder {
            now: ladder.now,
            ..self.ladder
        };
        // What has risen stays so for as long as the same is asked for.
        if base != ladder {
            self.ladder = ladder;
        }
        let work = wanted
            .vrrp_rlimit_rttime
            .unwrap_or(defaults::RT_WORK_MICROS);
        let real_time = self.ladder.now;
        if self.real_time != real_time || (real_time.is_some() && self.work != Some(work)) {
            self.work = Some(work);
            note("vrrp_rt_priority", self.run_in_real_time(real_time));
        }
        lines
    }

    /// A timer was served so late. What was done about it.
    pub(super) fn note_lateness(&mut self, late: Duration) -> Option<Line> {
        let priority = self.ladder.step(late)?;
        let millis = late.as_millis();
        Some(match self.run_in_real_time(Some(priority)) {
            Ok(()) => warning(format!(
                "a timer was {millis} ms late: real-time priority {priority} from now on (max_auto_priority)"
            )),
            Err(error) => {
                // It would not be otherwise the next time.
                self.ladder.most = None;
                warning(format!(
                    "a timer was {millis} ms late, and max_auto_priority is not applied: {error}"
                ))
            }
        })
    }

    /// Goes on in real time when it was taken from it for too much work.
    pub(super) fn go_on(&mut self) -> Option<Line> {
        let exceeded = self.limit.as_ref().is_some_and(WorkLimit::was_exceeded);
        if !exceeded || self.real_time.is_none() {
            return None;
        }
        let micros = self.work.unwrap_or_default();
        let text = format!(
            "worked for more than {micros} microseconds in real time without a pause (vrrp_rlimit_rttime): did the rest as others do"
        );
        Some(match self.run_in_real_time(self.real_time) {
            Ok(()) => warning(text),
            Err(error) => warning(format!("{text}, and goes on so: {error}")),
        })
    }

    fn run_in_real_time(&mut self, priority: Option<u8>) -> std::io::Result<()> {
        // Whatever becomes of it: what is refused now is not asked for again until something changes.
        self.real_time = priority;
        if priority.is_some() || self.limit.is_some() {
            let limit = match self.limit.take() {
                Some(limit) => limit,
                None => WorkLimit::new()?,
            };
            let limit = self.limit.insert(limit);
            limit.set(priority.and(self.work))?;
        }
        scheduling::set_real_time(priority)
    }
}

const fn warning(text: String) -> Line {
    Line {
        level: Level::Warning,
        text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ladder(base: Option<u8>, most: Option<i8>) -> Ladder {
        Ladder::new(&Processes {
            vrrp_rt_priority: base,
            max_auto_priority: most,
            ..Processes::default()
        })
    }

    #[test]
    fn the_priority_rises_by_one_each_time_it_is_too_late() {
        let late = Duration::from_millis(1_001);
        let mut steps = ladder(None, Some(3));
        assert_eq!(steps.step(Duration::from_secs(1)), None, "not late enough");
        let rises: Vec<_> = (0..4).map(|_| steps.step(late)).collect();
        assert_eq!(rises, [Some(1), Some(2), Some(3), None]);
        let mut steps = ladder(Some(50), Some(51));
        assert_eq!([steps.step(late), steps.step(late)], [Some(51), None]);
        assert_eq!(
            ladder(Some(50), Some(40)).step(late),
            None,
            "above it already"
        );
        for never in [None, Some(0), Some(-1)] {
            assert_eq!(ladder(None, never).step(late), None);
        }
        let mut soon = Ladder::new(&Processes {
            max_auto_priority: Some(99),
            min_auto_priority_delay: Some(500),
            ..Processes::default()
        });
        assert_eq!(soon.step(Duration::from_micros(501)), Some(1));
    }

    #[test]
    fn what_was_asked_for_is_taken_back() {
        // In a thread of its own: the test runner's threads stay as they are.
        std::thread::spawn(|| {
            let usual = Usual::note().unwrap();
            let cpus = affinity::allowed_cpus().unwrap();
            let last = u16::try_from(*cpus.last().unwrap()).unwrap();
            let wanted = Processes {
                vrrp_priority: Some((usual.nice() + 2).min(19)),
                vrrp_cpu_affinity: Some(Cpus(vec![last])),
                ..Processes::default()
            };
            let mut priorities = Priorities::default();
            assert_eq!(priorities.set(&wanted), []);
            assert_eq!(Some(scheduling::nice().unwrap()), wanted.vrrp_priority);
            assert_eq!(affinity::allowed_cpus().unwrap(), [usize::from(last)]);
            let refused = Processes {
                vrrp_cpu_affinity: Some(Cpus(vec![1023])),
                ..wanted
            };
            let said = priorities.set(&refused);
            assert_eq!(said.len(), 1, "{said:?}");
            assert!(
                said[0]
                    .text
                    .starts_with("vrrp_cpu_affinity is not applied: ")
            );
            // Only root may lower a nice value.
            for line in priorities.set(&Processes::default()) {
                assert!(line.text.starts_with("vrrp_priority is not applied: "));
            }
            assert_eq!(affinity::allowed_cpus().unwrap(), cpus);
        })
        .join()
        .unwrap();
    }
}
