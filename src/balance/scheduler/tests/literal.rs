//! Every scheduler whose picks are not by chance against a slow, literal reading of IPVS's rules,
//! through changes of the list, of weights and of connections.

use std::collections::HashMap;

use proptest::{prelude::*, test_runner::TestRunner};

use super::*;

/// A real server as IPVS has it.
#[derive(Clone, Debug)]
struct Dest {
    id: u32,
    weight: i64,
    limits: Limits,
    active: i64,
    inactive: i64,
    /// The flag `OVERLOAD`.
    over: bool,
}

impl Dest {
    fn open(&self) -> bool {
        self.weight > 0 && !self.over
    }

    /// After each change of its connections.
    fn look_at_thresholds(&mut self) {
        let (total, upper) = (self.active + self.inactive, i64::from(self.limits.upper));
        let below = match self.limits.lower {
            0 => total * 4 < upper * 3,
            lower => total < i64::from(lower),
        };
        if upper == 0 || below {
            self.over = false;
        }
        if upper != 0 && total >= upper {
            self.over = true;
        }
    }

    fn overhead(&self) -> i64 {
        self.active * 256 + self.inactive
    }

    /// A number for its weight, exact for weights of 1 to 8.
    fn per_weight(&self, number: i64) -> i64 {
        number * 840 / self.weight
    }
}

/// A destination of `lblc` or `lblcr`.
struct Locality {
    asked: u32,
    changed: u32,
    /// Newest first.
    set: Vec<u32>,
}

/// A virtual server in IPVS.
struct Literal {
    list: Vec<Dest>,
    /// Those that were removed.
    trash: Vec<Dest>,
    /// `rr`: the last pick; `None` is the list head.
    last: Option<usize>,
    /// `wrr`: its `cl`, `cw`, `mw` and `di`.
    current: Option<usize>,
    cw: i64,
    mw: i64,
    di: i64,
    localities: HashMap<IpAddr, Locality>,
}

const DAY: u32 = 24 * 60 * 60 * Tick::PER_SECOND;

impl Literal {
    fn new() -> Self {
        Self {
            list: Vec::new(),
            trash: Vec::new(),
            last: None,
            current: None,
            cw: 0,
            mw: 0,
            di: 1,
            localities: HashMap::new(),
        }
    }

    fn add(&mut self, dest: Dest) {
        self.list.insert(0, dest);
        self.last = self.last.map(|last| last + 1);
        self.changed();
    }

    fn remove(&mut self, at: usize) {
        self.trash.push(self.list.remove(at));
        self.last = match self.last {
            Some(last) if last >= at => last.checked_sub(1),
            last => last,
        };
        self.changed();
    }

    fn changed(&mut self) {
        self.current = None;
        let weights = || self.list.iter().map(|d| d.weight).filter(|w| *w > 0);
        let most = weights().max().unwrap_or(0);
        self.di = (1..=most)
            .rev()
            .find(|d| weights().all(|w| w % d == 0))
            .unwrap_or(1);
        self.mw = most - (self.di - 1);
        if self.cw > self.mw || self.cw == 0 {
            self.cw = self.mw;
        } else if self.di > 1 {
            self.cw = (self.cw / self.di) * self.di + 1;
        }
    }

    fn rr(&mut self) -> Option<usize> {
        let behind = self.last.map_or(0, |last| last + 1);
        let found = (behind..self.list.len())
            .chain(0..behind)
            .find(|at| self.list[*at].open())?;
        self.last = Some(found);
        Some(found)
    }

    fn wrr(&mut self) -> Option<usize> {
        if self.mw <= 0 {
            return None;
        }
        let last = self.current;
        let (mut at, mut stop) = (last, None);
        let (mut last_pass, mut restarted) = (false, false);
        loop {
            for next in at.map_or(0, |i| i + 1)..self.list.len() {
                if !self.list[next].over && self.list[next].weight >= self.cw {
                    self.current = Some(next);
                    return Some(next);
                }
                if stop == Some(next) {
                    self.current = stop;
                    return None;
                }
            }
            at = None;
            self.cw -= self.di;
            if self.cw <= 0 {
                self.cw = self.mw;
                if last_pass || last.is_none() {
                    self.current = None;
                    return None;
                }
                restarted = true;
            }
            last_pass = self.cw <= self.di;
            if last_pass && restarted && last.is_some() {
                stop = last;
            }
        }
    }

    /// The first of those with the least of something.
    fn least(&self, of: impl Fn(&Dest) -> i64) -> Option<usize> {
        let open = (0..self.list.len()).filter(|at| self.list[*at].open());
        open.min_by_key(|at| of(&self.list[*at]))
    }

    fn wlc(&self) -> Option<usize> {
        self.least(|d| d.per_weight(d.overhead()))
    }

    fn sed(&self) -> Option<usize> {
        self.least(|d| d.per_weight(d.active + 1))
    }

    fn nq(&self) -> Option<usize> {
        let idle = self.list.iter().position(|d| d.open() && d.active == 0);
        idle.or_else(|| self.sed())
    }

    fn ovf(&self) -> Option<usize> {
        let fits =
            |at: &usize| self.list[*at].open() && self.list[*at].active <= self.list[*at].weight;
        let fitting = (0..self.list.len()).filter(fits);
        fitting.min_by_key(|at| -self.list[*at].weight)
    }

    /// The table of `sh` or, with turns of one bucket, of `dh`.
    fn buckets(&self, turns: impl Fn(&Dest) -> i64) -> Vec<usize> {
        let mut buckets = Vec::new();
        let (mut at, mut had) = (0, 0);
        while buckets.len() < 256 && !self.list.is_empty() {
            at %= self.list.len();
            buckets.push(at);
            had += 1;
            if had >= turns(&self.list[at]) {
                (at, had) = (at + 1, 0);
            }
        }
        buckets
    }

    fn sh(&self, client: IpAddr, port: Option<u16>, fallback: bool) -> Option<usize> {
        let buckets = self.buckets(|d| d.weight);
        let hash = hash_32(words(client) + u64::from(port.unwrap_or(0)));
        let first = *buckets.get(hash)?;
        if self.list[first].open() {
            return Some(first);
        }
        (0..256)
            .map(|offset| buckets[((hash + offset) % 256 + hash) & 255])
            .find(|at| fallback && self.list[*at].open())
    }

    fn dh(&self, vip: IpAddr) -> Option<usize> {
        let at = *self.buckets(|_| 1).get(hash_32(words(vip)))?;
        self.list[at].open().then_some(at)
    }

    fn crowded(&self, at: usize) -> bool {
        self.list[at].active > self.list[at].weight
            && self.list.iter().any(|d| d.active * 2 < d.weight)
    }

    fn at(&self, id: u32) -> Option<usize> {
        self.list.iter().position(|d| d.id == id)
    }

    fn lblc(&mut self, vip: IpAddr, now: u32) -> Option<usize> {
        if let Some(known) = self.localities.get_mut(&vip)
            && now - known.asked < DAY
        {
            known.asked = now;
            let at = known.set[0];
            if let Some(at) = self.at(at)
                && self.list[at].weight > 0
                && !self.crowded(at)
            {
                return Some(at);
            }
        }
        let at = self.wlc()?;
        let fresh = Locality {
            asked: now,
            changed: now,
            set: vec![self.list[at].id],
        };
        self.localities.insert(vip, fresh);
        Some(at)
    }

    fn lblcr(&mut self, vip: IpAddr, now: u32) -> Option<usize> {
        let known = self.localities.remove(&vip);
        let mut known = known
            .filter(|known| now - known.asked < DAY)
            .unwrap_or_else(|| Locality {
                asked: now,
                changed: now,
                set: Vec::new(),
            });
        known.asked = now;
        let members: Vec<usize> = known.set.iter().filter_map(|id| self.at(*id)).collect();
        let load = |at: &usize| self.list[*at].per_weight(self.list[*at].overhead());
        let least = members
            .iter()
            .copied()
            .filter(|at| self.list[*at].open())
            .min_by_key(load);
        if known.set.len() > 1 && now - known.changed > DAY {
            let weighty = members
                .iter()
                .copied()
                .filter(|at| self.list[*at].weight > 0);
            // The first of the most loaded: the last of them, backwards.
            if let Some(most) = weighty.rev().max_by_key(load) {
                known.set.retain(|id| *id != self.list[most].id);
                known.changed = now;
            }
        }
        let found = match least.filter(|at| !self.crowded(*at)) {
            Some(at) => Some(at),
            None => self.wlc().inspect(|at| {
                let id = self.list[*at].id;
                if !known.set.contains(&id) {
                    known.set.insert(0, id);
                    known.changed = now;
                }
            }),
        };
        if !known.set.is_empty() {
            self.localities.insert(vip, known);
        }
        found
    }

    fn pick(&mut self, scheduler: Scheduler, rig: &Rig) -> Option<u32> {
        let now = rig.now.raw();
        let at = match scheduler {
            Scheduler::Rr => self.rr(),
            Scheduler::Wrr => self.wrr(),
            Scheduler::Lc => self.least(Dest::overhead),
            Scheduler::Wlc => self.wlc(),
            Scheduler::Sed => self.sed(),
            Scheduler::Nq => self.nq(),
            Scheduler::Fo => self.least(|d| -d.weight),
            Scheduler::Ovf => self.ovf(),
            Scheduler::Sh { port, fallback } => {
                self.sh(rig.client, port.then_some(rig.client_port), fallback)
            }
            Scheduler::Dh => self.dh(rig.vip),
            Scheduler::Lblc => self.lblc(rig.vip, now),
            Scheduler::Lblcr => self.lblcr(rig.vip, now),
            Scheduler::Mh { .. } | Scheduler::Twos => unreachable!("held to properties"),
        };
        at.map(|at| self.list[at].id)
    }
}

/// The sum by exclusive or of an address's words.
fn words(addr: IpAddr) -> u64 {
    match addr {
        IpAddr::V4(addr) => u64::from(u32::from_be_bytes(addr.octets())),
        IpAddr::V6(addr) => {
            let words = addr.octets();
            let words = words
                .chunks(4)
                .map(|w| u32::from_be_bytes(w.try_into().unwrap()));
            u64::from(words.fold(0, |sum, word| sum ^ word))
        }
    }
}

/// The top 8 of the low 32 bits of a product.
fn hash_32(value: u64) -> usize {
    let product = u128::from(value % (1 << 32)) * 0x61c8_8647;
    usize::try_from((product >> 24) & 0xff).unwrap()
}

/// What happens; indexes count round.
#[derive(Clone, Debug)]
enum Step {
    /// A connection from a client to a destination.
    Open(u8, u8),
    /// Active connections of one become inactive.
    Close(usize, i64),
    /// All inactive connections of one are gone.
    Expire(usize),
    /// Another weight.
    Weight(usize, u32),
    /// One more real server: weight, thresholds.
    Add(u32, u32, u32),
    /// One that was removed is added again.
    AddAgain(usize),
    /// One less.
    Remove(usize),
    /// Hours pass.
    Wait(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    use Step::{Add, AddAgain, Close, Expire, Open, Remove, Wait, Weight};
    let place = 0_usize..7;
    let limits = prop_oneof![1 => Just((0, 0)), 2 => (1_u32..6, 0_u32..6)];
    let add = (0_u32..9, limits);
    let add = add.prop_map(|(weight, (upper, lower))| Add(weight, upper, lower));
    let step = prop_oneof![
        12 => (any::<u8>(), 0_u8..4).prop_map(|(client, vip)| Open(client, vip)),
        3 => (place.clone(), 1_i64..4).prop_map(|(at, n)| Close(at, n)),
        2 => place.clone().prop_map(Expire),
        2 => (place.clone(), 0_u32..9).prop_map(|(at, weight)| Weight(at, weight)),
        1 => add,
        1 => place.clone().prop_map(AddAgain),
        2 => place.prop_map(Remove),
        1 => (1_u32..20).prop_map(Wait),
    ];
    prop::collection::vec(step, 1..80)
}

/// Both, side by side.
struct Pair {
    scheduler: Scheduler,
    literal: Literal,
    picker: Picker,
}

impl Pair {
    fn new(scheduler: Scheduler) -> Self {
        Self {
            scheduler,
            literal: Literal::new(),
            picker: picker(1, scheduler, &[]),
        }
    }

    fn publish(&mut self, rig: &mut Rig) {
        let entry = |dest: &Dest| Entry {
            limits: dest.limits,
            ..entry(dest.id, u32::try_from(dest.weight).unwrap())
        };
        let entries: Vec<Entry> = self.literal.list.iter().map(entry).collect();
        self.picker = picker(1, self.scheduler, &entries);
        rig.state.follow(ServiceId(0), &self.picker);
    }

    fn step(&mut self, n: u32, step: &Step, rig: &mut Rig) -> Result<(), TestCaseError> {
        let count = self.literal.list.len();
        let index = |at: usize| at.checked_rem(count);
        match *step {
            Step::Open(client, vip) => {
                rig.client = Ipv4Addr::new(10, client % 3, client, 7).into();
                rig.vip = Ipv4Addr::new(10, 1, vip, 0).into();
                rig.client_port = u16::from(client) * 77;
                if client % 5 == 0 {
                    let bits = u128::from(client) << 100 | u128::from(vip) << 40 | 0x99;
                    (rig.client, rig.vip) =
                        (IpAddr::V6((bits << 3).into()), IpAddr::V6(bits.into()));
                }
                let expected = self.literal.pick(self.scheduler, rig);
                prop_assert_eq!(rig.open(&self.picker), expected, "step {}", n);
                if let Some(id) = expected {
                    let at = self.literal.at(id).unwrap();
                    self.literal.list[at].active += 1;
                    self.literal.list[at].look_at_thresholds();
                }
            }
            Step::Close(at, most) => {
                if let Some(at) = index(at) {
                    let dest = &mut self.literal.list[at];
                    let closed = most.min(dest.active);
                    dest.active -= closed;
                    dest.inactive += closed;
                }
            }
            Step::Expire(at) => {
                if let Some(at) = index(at) {
                    self.literal.list[at].inactive = 0;
                    self.literal.list[at].look_at_thresholds();
                }
            }
            Step::Weight(at, weight) => {
                // keepalived tells IPVS nothing when nothing changes.
                if let Some(at) = index(at)
                    && self.literal.list[at].weight != i64::from(weight)
                {
                    self.literal.list[at].weight = weight.into();
                    self.literal.changed();
                    self.publish(rig);
                }
            }
            Step::Add(weight, upper, lower) => {
                let dest = Dest {
                    id: 100 + n,
                    weight: weight.into(),
                    limits: Limits { upper, lower },
                    active: 0,
                    inactive: 0,
                    over: false,
                };
                self.literal.add(dest);
                self.publish(rig);
            }
            Step::AddAgain(at) => {
                if let Some(at) = at.checked_rem(self.literal.trash.len()) {
                    let dest = self.literal.trash.remove(at);
                    self.literal.add(dest);
                    self.publish(rig);
                }
            }
            Step::Remove(at) => {
                if let Some(at) = index(at) {
                    self.literal.remove(at);
                    self.publish(rig);
                }
            }
            Step::Wait(hours) => rig.now = rig.now.plus_secs(hours * 3600),
        }
        for dest in &self.literal.list {
            let count = |n: i64| u64::try_from(n).unwrap();
            rig.set_load(dest.id, count(dest.active), count(dest.inactive));
        }
        Ok(())
    }
}

#[test]
fn every_scheduler_reads_the_rules_literally() {
    let hashes = [(true, false), (false, true), (true, true)];
    let more = hashes.map(|(port, fallback)| Scheduler::Sh { port, fallback });
    let by_rule = |s: &Scheduler| !matches!(s, Scheduler::Mh { .. } | Scheduler::Twos);
    let schedulers = ALL.into_iter().filter(by_rule).chain(more);
    // One allocation of the counters for all.
    let spare = std::cell::RefCell::new(Some(Rig::new()));
    for scheduler in schedulers {
        let outcome = TestRunner::default().run(&steps(), |steps| {
            let mut rig = spare.take().unwrap_or_else(Rig::new);
            (rig.state, rig.now) = (SchedulerState::new(7), Tick::from_raw(1));
            (100..200).for_each(|id| rig.set_load(id, 0, 0));
            let mut pair = Pair::new(scheduler);
            let start = [Step::Add(1, 3, 2), Step::Add(3, 4, 0), Step::Add(6, 5, 4)];
            let mut run = || {
                for (n, step) in (0..).zip(start.iter().chain(&steps)) {
                    pair.step(n, step, &mut rig)?;
                }
                Ok(())
            };
            let done = run();
            spare.replace(Some(rig));
            done
        });
        if let Err(error) = outcome {
            panic!("{scheduler:?}: {error}");
        }
    }
}

#[test]
fn wrr_passes_by_nobody_in_a_long_list() {
    let weight = prop_oneof![6 => 0_u32..3, 1 => 0_u32..40];
    let weights = prop::collection::vec(weight, 0..150);
    let rig = std::cell::RefCell::new(Rig::new());
    let outcome = TestRunner::default().run(&weights, |weights| {
        let mut rig = rig.borrow_mut();
        rig.state = SchedulerState::new(7);
        let picker = picker(1, Scheduler::Wrr, &entries(&weights));
        let mut literal = Literal::new();
        for (id, weight) in (0..).zip(&weights).collect::<Vec<_>>().into_iter().rev() {
            literal.add(Dest {
                id,
                weight: i64::from(*weight),
                limits: Limits::default(),
                active: 0,
                inactive: 0,
                over: false,
            });
        }
        for n in 0..400 {
            let expected = literal.pick(Scheduler::Wrr, &rig);
            prop_assert_eq!(rig.pick(&picker), expected, "pick {}", n);
        }
        Ok(())
    });
    outcome.unwrap();
}
