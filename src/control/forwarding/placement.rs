//! How many workers there are, and which processor each runs on.

use std::{fmt, str::FromStr};

/// Processors by their numbers, in the order of the workers: `0-3,8` (`--cpus`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuList(Vec<usize>);

impl CpuList {
    /// Those of the configuration's `cpus`; `None` when it names none.
    pub fn new(cpus: &[u16]) -> Option<Self> {
        let all: Vec<usize> = cpus.iter().map(|cpu| usize::from(*cpu)).collect();
        (!all.is_empty()).then_some(Self(all))
    }
}

impl FromStr for CpuList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        /// More than any machine has; a range must not fill the memory.
        const MOST: usize = 4096;
        let number = |text: &str| match text.trim().parse::<usize>() {
            Ok(cpu) if cpu < MOST => Ok(cpu),
            _ => Err(format!("`{text}` is no processor: a number from 0 on")),
        };
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(format!("`{part}` goes downwards"));
            }
            for cpu in first..=last {
                if cpus.contains(&cpu) {
                    return Err(format!("processor {cpu} is named twice"));
                }
                cpus.push(cpu);
            }
        }
        Ok(Self(cpus))
    }
}

/// The processor of each worker; `None` where the scheduler decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placement(pub(super) Vec<Option<usize>>);

impl Placement {
    /// Workers for interfaces of which one has so many `queues` and no one has more. A worker for each of
    /// them, unless `wanted` (`--workers`) says otherwise, and none without a queue; unasked, no more than
    /// there are processors. Worker n runs on the n-th of `cpus` (`--cpus`), or else on the n-th of those
    /// that the process may run on (`allowed`), if it can do without moving: when there are several workers,
    /// or when a lone one leaves the control thread, which is not tied, more than one other to run on.
    ///
    /// # Errors
    /// What is wrong with the options.
    pub(super) fn new(
        queues: u32,
        wanted: Option<u32>,
        cpus: Option<&CpuList>,
        allowed: &[usize],
    ) -> Result<Self, String> {
        let most = queues.max(1) as usize;
        let choice = cpus.map_or(allowed, |cpus| &cpus.0);
        let workers = wanted.map_or(choice.len(), |wanted| wanted as usize);
        let workers = workers.clamp(1, most);
        if let Some(CpuList(cpus)) = cpus {
            if let Some(cpu) = cpus.iter().find(|cpu| !allowed.contains(cpu)) {
                return Err(format!(
                    "--cpus: this process may not run on processor {cpu}"
                ));
            }
            if cpus.len() < workers {
                return Err(format!(
                    "--cpus names {} of the {workers} processors that --workers asks for",
                    cpus.len()
                ));
            }
        }
        let tied = cpus.is_some()
            || (workers > 1 && allowed.len() >= workers)
            || allowed.len() > workers + 1;
        let cpu = |n: usize| choice.get(n).copied().filter(|_| tied);
        Ok(Self((0..workers).map(cpu).collect()))
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0.len() == 1 { "" } else { "s" };
        write!(f, "{} worker{plural}", self.0.len())?;
        let mut separator = " on processor ";
        for cpu in self.0.iter().flatten() {
            write!(f, "{separator}{cpu}")?;
            separator = ", ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(queues: u32, wanted: Option<u32>, cpus: Option<&str>, allowed: &[usize]) -> String {
        let cpus = cpus.map(|text| text.parse().unwrap());
        match Placement::new(queues, wanted, cpus.as_ref(), allowed) {
            Ok(placement) => placement.to_string(),
            Err(error) => error,
        }
    }

    #[test]
    fn there_is_a_worker_for_each_queue_and_processor() {
        let four = &[0, 1, 2, 5];
        assert_eq!(place(1, None, None, four), "1 worker on processor 0");
        assert_eq!(place(2, None, None, four), "2 workers on processor 0, 1");
        assert_eq!(
            place(8, None, None, four),
            "4 workers on processor 0, 1, 2, 5"
        );
        assert_eq!(
            place(8, Some(3), None, four),
            "3 workers on processor 0, 1, 2"
        );
        assert_eq!(
            place(2, Some(64), None, four),
            "2 workers on processor 0, 1"
        );
        // Asked for, but there are not as many processors: they share them as the kernel sees fit.
        assert_eq!(place(8, Some(6), None, four), "6 workers");
        assert_eq!(place(0, None, None, &[]), "1 worker");
    }

    #[test]
    fn a_lone_worker_leaves_the_control_thread_a_choice() {
        assert_eq!(place(1, None, None, &[3]), "1 worker");
        assert_eq!(place(1, None, None, &[3, 4]), "1 worker");
        assert_eq!(place(1, None, None, &[3, 4, 5]), "1 worker on processor 3");
        assert_eq!(
            place(1, None, Some("4"), &[3, 4]),
            "1 worker on processor 4"
        );
    }

    #[test]
    fn a_list_says_which_processors_in_which_order() {
        let all: Vec<usize> = (0..16).collect();
        assert_eq!(
            place(4, None, Some("8,2-3"), &all),
            "3 workers on processor 8, 2, 3"
        );
        assert_eq!(
            place(2, None, Some("8,2-3"), &all),
            "2 workers on processor 8, 2"
        );
        assert_eq!(
            place(8, Some(4), Some("8,2-3"), &all),
            "--cpus names 3 of the 4 processors that --workers asks for"
        );
        assert_eq!(
            place(8, None, Some("1,16"), &all),
            "--cpus: this process may not run on processor 16"
        );
        for (text, error) in [
            ("", "`` is no processor: a number from 0 on"),
            ("1,x", "`x` is no processor: a number from 0 on"),
            ("3-1", "`3-1` goes downwards"),
            ("1-3,2", "processor 2 is named twice"),
            ("99999", "`99999` is no processor: a number from 0 on"),
        ] {
            assert_eq!(text.parse::<CpuList>().unwrap_err(), error);
        }
    }
}
