//! What is said about real servers that packets cannot be sent to: once when that lasts, and once
//! when it is over.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use super::{super::log::Level, next_hops::Problem};

/// A line for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Report {
    address: IpAddr,
    /// `None`: there is none any more.
    problem: Option<Problem>,
}

impl Report {
    /// How much it matters.
    pub(super) const fn level(&self) -> Level {
        match self.problem {
            Some(_) => Level::Warning,
            None => Level::Notice,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problem {
            Some(problem) => write!(f, "real server {} {problem}", self.address),
            None => write!(f, "real server {} is reachable again", self.address),
        }
    }
}

/// A problem as it was seen at the last tick.
#[derive(Clone, Copy, Debug)]
struct Outage {
    problem: Problem,
    /// What was said last.
    told: Option<Problem>,
}

/// The problems of real addresses from one tick to the next. One that is there at a single tick,
/// as every address is before its neighbour has answered, is not worth a line.
#[derive(Debug, Default)]
pub(super) struct Outages {
    seen: BTreeMap<IpAddr, Outage>,
}

impl Outages {
    /// Takes the problems that there are now, and gives what is to be said.
    pub(super) fn handle_tick(
        &mut self,
        problems: impl Iterator<Item = (IpAddr, Problem)>,
    ) -> Vec<Report> {
        let mut reports = Vec::new();
        let mut before = std::mem::take(&mut self.seen);
        for (address, problem) in problems {
            // Real servers that share an address have the same problem.
            if self.seen.contains_key(&address) {
                continue;
            }
            let known = before.remove(&address);
            let mut told = known.and_then(|known| known.told);
            let lasts = known.is_some_and(|known| known.problem == problem);
            if lasts && told != Some(problem) {
                told = Some(problem);
                reports.push(Report {
                    address,
                    problem: told,
                });
            }
            self.seen.insert(address, Outage { problem, told });
        }
        let over = before.iter().filter(|(_, known)| known.told.is_some());
        reports.extend(over.map(|(address, _)| Report {
            address: *address,
            problem: None,
        }));
        reports
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(outages: &mut Outages, problems: &[(&str, Problem)]) -> Vec<String> {
        let problems = problems
            .iter()
            .map(|(address, problem)| (address.parse().unwrap(), *problem));
        let reports = outages.handle_tick(problems);
        reports.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_problem_is_told_at_its_second_tick_once_and_so_is_its_end() {
        let mut outages = Outages::default();
        let silent = [("10.0.0.11", Problem::Unresolved)];
        assert!(tick(&mut outages, &silent).is_empty(), "the first moment");
        assert_eq!(
            tick(&mut outages, &silent),
            ["real server 10.0.0.11 has no known MAC address: packets to it are dropped"]
        );
        assert!(tick(&mut outages, &silent).is_empty(), "it was said");
        assert_eq!(
            tick(&mut outages, &[]),
            ["real server 10.0.0.11 is reachable again"]
        );
        assert!(tick(&mut outages, &[]).is_empty(), "that too");
    }

    #[test]
    fn what_was_there_for_a_moment_is_never_mentioned() {
        let mut outages = Outages::default();
        for _ in 0..3 {
            assert!(tick(&mut outages, &[("10.0.0.11", Problem::NoRoute)]).is_empty());
            assert!(tick(&mut outages, &[]).is_empty());
        }
    }

    #[test]
    fn a_problem_that_becomes_another_is_told_when_the_other_lasts() {
        let mut outages = Outages::default();
        let (no_route, silent) = (
            [("10.0.0.11", Problem::NoRoute)],
            [("10.0.0.11", Problem::Unresolved)],
        );
        tick(&mut outages, &no_route);
        assert_eq!(tick(&mut outages, &no_route).len(), 1);
        assert!(tick(&mut outages, &silent).is_empty());
        assert_eq!(tick(&mut outages, &silent).len(), 1);
        // Over without having been told for the second time is over all the same.
        assert!(tick(&mut outages, &no_route).is_empty());
        assert_eq!(
            tick(&mut outages, &[]),
            ["real server 10.0.0.11 is reachable again"]
        );
    }

    #[test]
    fn real_servers_that_share_an_address_are_one_line() {
        let mut outages = Outages::default();
        let local = [("10.0.0.11", Problem::Local), ("10.0.0.11", Problem::Local)];
        tick(&mut outages, &local);
        assert_eq!(
            tick(&mut outages, &local),
            [
                "real server 10.0.0.11 is this host itself, to which there is no way: it takes no \
                 connections"
            ]
        );
    }
}
