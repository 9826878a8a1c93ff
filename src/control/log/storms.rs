//! Many lines of one kind at once: the first ones are said, the rest is counted.

use std::{collections::BTreeMap, panic::Location, time::Duration, time::SystemTime};

use super::record::Record;
use crate::time::Instant;

/// How long lines of a kind are counted together.
const PERIOD: Duration = Duration::from_secs(10);
/// Lines of a kind that are said in that time.
const SHOWN: u32 = 100;

/// What makes lines be of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::control) enum Kind {
    /// The place in the program that says them.
    Place(&'static Location<'static>),
    /// The name of an event.
    Event(&'static str),
    /// None is like another: each is said.
    Single,
}

/// Counts the lines of each kind.
#[derive(Debug, Default)]
pub(super) struct Storms {
    kinds: BTreeMap<Kind, Storm>,
}

#[derive(Debug)]
struct Storm {
    since: Instant,
    said: u32,
    left_out: u64,
    /// The first one that was left out.
    first: Option<Record>,
}

impl Storms {
    /// A line of this kind is to be said, made by `make`: the line, unless it is only counted. Those of
    /// [`Self::take_due`] are to be said before.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        kind: Kind,
        make: impl FnOnce() -> Record,
    ) -> Option<Record> {
        if kind == Kind::Single {
            return Some(make());
        }
        let storm = self.kinds.entry(kind).or_insert(Storm {
            since: now,
            said: 0,
            left_out: 0,
            first: None,
        });
        if storm.said < SHOWN {
            storm.said += 1;
            return Some(make());
        }
        storm.left_out += 1;
        storm.first.get_or_insert_with(make);
        None
    }

    /// What stands for lines that were left out, a period after each kind began. To be called now and
    /// then.
    pub(super) fn take_due(&mut self, now: Instant, wall: SystemTime) -> Vec<Record> {
        self.take(now, wall, PERIOD)
    }

    /// The same without waiting for the periods' ends.
    pub(super) fn take_all(&mut self, now: Instant, wall: SystemTime) -> Vec<Record> {
        self.take(now, wall, Duration::ZERO)
    }

    fn take(&mut self, now: Instant, wall: SystemTime, age: Duration) -> Vec<Record> {
        let mut due = Vec::new();
        self.kinds.retain(|_, storm| {
            let lasted = now - storm.since;
            if lasted < age {
                return true;
            }
            if let Some(mut record) = storm.first.take() {
                let seconds = lasted.as_secs().max(1);
                record.and_more(wall, storm.left_out - 1, seconds);
                due.push(record);
            }
            false
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{options::Level, record::Room},
        *,
    };

    const WALL: SystemTime = SystemTime::UNIX_EPOCH;
    const DOWN: Kind = Kind::Event("real_server_down");

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    /// Says line `number` and gives what is written.
    fn say(storms: &mut Storms, now: Instant, kind: Kind, number: u32) -> Vec<String> {
        let mut said = storms.take_due(now, WALL);
        said.extend(storms.admit(now, kind, || {
            let text = format!("number {number} failed.");
            Record::new(WALL, (Level::Warning, Room::Checks), &text, &[])
        }));
        said.iter().map(|record| record.plain(false)).collect()
    }

    #[test]
    fn ten_thousand_at_once_are_a_hundred_lines_and_their_number() {
        let mut storms = Storms::default();
        let said: Vec<String> = (0..10_000)
            .flat_map(|number| say(&mut storms, at(u64::from(number) / 4), DOWN, number))
            .collect();
        assert_eq!(said.len(), 100);
        assert_eq!(said[99], "number 99 failed.");
        assert!(storms.take_due(at(9_999), WALL).is_empty(), "not yet");
        let due = storms.take_due(at(10_000), WALL);
        let text: Vec<String> = due.iter().map(|record| record.plain(false)).collect();
        assert_eq!(
            text,
            ["number 100 failed. (9,899 more like this in 10 s)"],
            "100 lines, this one and 9,899 are 10,000"
        );
        assert!(storms.take_due(at(20_000), WALL).is_empty(), "once");
        assert!(storms.kinds.is_empty());
    }

    #[test]
    fn every_line_is_in_a_count_however_long_it_goes_on() {
        let mut storms = Storms::default();
        let mut lines = Vec::new();
        for number in 0..50_000 {
            let now = at(u64::from(number));
            lines.extend(say(&mut storms, now, DOWN, number));
        }
        let rest = storms.take_all(at(50_000), WALL);
        lines.extend(rest.iter().map(|record| record.plain(false)));
        let counted: usize = lines
            .iter()
            .map(|line| match line.split_once('(') {
                Some((_, more)) => {
                    let digits = more.split(' ').next().unwrap().replace(',', "");
                    1 + digits.parse::<usize>().unwrap()
                }
                None => 1,
            })
            .sum();
        assert_eq!(counted, 50_000);
        assert_eq!(lines.len(), 5 * 101);
    }

    #[test]
    fn kinds_are_counted_apart_and_what_is_single_is_never_left_out() {
        let mut storms = Storms::default();
        for number in 0..200 {
            say(&mut storms, at(0), DOWN, number);
            assert_eq!(say(&mut storms, at(0), Kind::Single, number).len(), 1);
        }
        let other = Kind::Place(Location::caller());
        assert_eq!(say(&mut storms, at(1), other, 0).len(), 1);
    }

    #[test]
    fn a_hundred_and_one_are_all_said() {
        let mut storms = Storms::default();
        for number in 0..101 {
            say(&mut storms, at(0), DOWN, number);
        }
        let due = storms.take_all(at(3_000), WALL);
        assert_eq!(due[0].plain(false), "number 100 failed.");
    }
}
