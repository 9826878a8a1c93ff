//! Packets a second from client to server, and back: 60 bytes of UDP from a source that does not limit.
//!
//! The source fills live frames on one processor, and whatever forwards in the kernel (a redirect, the kernel's own
//! forwarding, the fast path) does it there, too, before the next are made: so the figures have the source's own time
//! in them, the redirect's as all others. xvs's worker has the other processor.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::Ipv4Addr,
    path::Path,
    thread,
    time::Duration,
};

use crate::{
    bed::{self, Bed, Links, SERVER, UDP_PORT, VIP, mac, say, spread, wait_for, wait_for_quiet},
    frames::{Count, Frames},
    ways::{self, Way},
};

const ROUNDS: u32 = 3;
/// Of one measurement.
const WINDOW: Duration = Duration::from_secs(1);
/// Longest time for all flows to be known and the fast path to have taken over; how often it is asked.
const PATIENCE: Duration = Duration::from_secs(40);
const LOOK: Duration = Duration::from_millis(250);
/// The share of the packets of known flows that the fast path must forward, and the one that is waited for, but no
/// longer than this once it forwards what it must.
const MOST: f64 = 0.8;
const NEARLY_ALL: f64 = 0.99;
const GRACE: Duration = Duration::from_secs(2);
/// New flows that no measurement reaches.
const FRESH: u64 = 1 << 23;

const MANY: u32 = 1024;
const WAYS: [Way; 9] = [
    Way::Redirect,
    Way::Kernel,
    Way::Nftables,
    Way::Xvs("DR"),
    Way::Fast("DR"),
    Way::Xvs("NAT"),
    Way::Fast("NAT"),
    Way::Xvs("TUN"),
    Way::Fast("TUN"),
];

/// What packets the source sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Mix {
    flows: u32,
    /// So many packets in a hundred begin a new flow.
    new: u32,
    /// From the server to clients that have asked before.
    answers: bool,
}

impl Mix {
    const fn of(flows: u32) -> Self {
        Self {
            flows,
            new: 0,
            answers: false,
        }
    }

    const fn with_new(self, new: u32) -> Self {
        Self { new, ..self }
    }

    const fn answered(self) -> Self {
        Self {
            answers: true,
            ..self
        }
    }

    fn name(self) -> String {
        let flows = grouped(self.flows);
        let new = match self.new {
            0 => String::new(),
            new => format!(", {new} % new"),
        };
        let answers = if self.answers { ", answers" } else { "" };
        format!("{flows}{new}{answers}")
    }
}

/// A number with its thousands set apart.
fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().collect();
    String::from_utf8_lossy(&groups.join(&b',')).into_owned()
}

/// What goes through a way, in order: each list from when it is put there to when it is taken away.
fn courses(way: Way) -> Vec<Vec<Mix>> {
    let few = [1, MANY, 65_536].map(Mix::of);
    let million = Mix::of(1_000_000);
    let new = [1, 10].map(|percent| Mix::of(MANY).with_new(percent));
    let answered = |mixes: &[Mix]| -> Vec<Mix> {
        let both = mixes.iter().flat_map(|mix| [*mix, mix.answered()]);
        both.collect()
    };
    match way {
        Way::Redirect | Way::Kernel => vec![[&few[..], &[million]].concat()],
        // Of a million it holds what nf_conntrack_max leaves: the answers of the others would not be translated.
        Way::Nftables => vec![[answered(&few), new.to_vec()].concat(), vec![million]],
        Way::Fast("NAT") => vec![
            [answered(&few), new.to_vec()].concat(),
            answered(&[million]),
        ],
        Way::Fast(_) => vec![[&few[..], &new].concat(), vec![million]],
        Way::Xvs("NAT") => vec![answered(&few[1..2])],
        Way::Xvs("DR") => vec![[&few[1..2], &new].concat()],
        _ => vec![vec![few[1]]],
    }
}

/// Packets a second, the share of those sent, of those forwarded by the fast path, and the nanoseconds that all
/// processors together were busy for each.
const COLUMNS: usize = 4;
type Figures = [f64; COLUMNS];

/// What is known at one moment.
struct Moment {
    arrived: Count,
    sent: Count,
    busy: Duration,
}

/// Machines with something between them, and where packets end.
struct Place<'a> {
    way: Way,
    folder: &'a Path,
    sinks: [Frames; 2],
}

impl<'a> Place<'a> {
    fn new(way: Way, folder: &'a Path) -> Self {
        let (end, protocol) = match way {
            Way::Xvs("TUN") | Way::Fast("TUN") => (SERVER, 4),
            Way::Redirect | Way::Xvs("DR") | Way::Fast("DR") => (VIP, 17),
            _ => (SERVER, 17),
        };
        let sink = |namespace, link, other: [u8; 4], protocol: u8, answers| {
            let other = format!("other={}", Ipv4Addr::from(other));
            let protocol = format!("protocol={protocol}");
            let plan = [&*other, &protocol, answers];
            Frames::start(folder, namespace, "sink", link, &plan)
        };
        let sinks = [
            sink("s", "s0", end, protocol, "answers=0"),
            sink("c", "c0", VIP, 17, "answers=1"),
        ];
        Self { way, folder, sinks }
    }

    /// Packets that arrived at the end of `mix`.
    fn arrived(&mut self, mix: Mix) -> Count {
        self.sinks[usize::from(mix.answers)].count()
    }

    /// Packets that the fast path has forwarded.
    fn fast(&self) -> u64 {
        let list = ways::list(self.folder).expect("xvs runs");
        let count = list["steering"]["forwarded"].as_u64();
        count.expect("xvs says what its program forwarded")
    }

    /// Which share of what arrives the fast path has forwarded, while something is done.
    fn fast_share(&mut self, mix: Mix, meanwhile: impl FnOnce(&mut Self)) -> f64 {
        if !matches!(self.way, Way::Fast(_)) {
            meanwhile(self);
            return f64::NAN;
        }
        let before = (self.arrived(mix), self.fast());
        meanwhile(self);
        let fast = (self.fast() - before.1) as f64;
        fast / self.arrived(mix).packets_since(before.0)
    }

    fn source(&self, mix: Mix, fresh_from: u64) -> Frames {
        let (namespace, link, next, other) = if mix.answers {
            ("s", "s0", "l1", SERVER)
        } else {
            ("c", "c0", "l0", self.way.target())
        };
        let plan = [
            format!("from_mac={}", mac(link)),
            format!("to_mac={}", mac(next)),
            format!("other={}", Ipv4Addr::from(other)),
            format!("other_port={UDP_PORT}"),
            format!("answers={}", u8::from(mix.answers)),
            format!("flows={}", mix.flows),
            format!("fresh_every={}", 100_u32.checked_div(mix.new).unwrap_or(0)),
            format!("fresh_from={fresh_from}"),
        ];
        let plan: Vec<_> = plan.iter().map(String::as_str).collect();
        Frames::start(self.folder, namespace, "source", link, &plan)
    }

    fn now(&mut self, mix: Mix, source: &mut Frames) -> Moment {
        Moment {
            arrived: self.arrived(mix),
            sent: source.count(),
            busy: bed::busy_time(),
        }
    }

    /// Lets packets go through for a while. New flows are numbered from `fresh_from` on.
    fn measure(&mut self, mix: Mix, fresh_from: u64) -> Figures {
        let first = self.arrived(mix);
        let mut source = self.source(mix, fresh_from);
        wait_for(&self.way.name(), || {
            self.arrived(mix).packets_since(first) > 10_000.0
        });
        // Every flow has to have been seen, and the tables need time to fit it.
        let mut left = PATIENCE;
        while left > Duration::ZERO {
            let share = self.fast_share(mix, |_| thread::sleep(LOOK));
            let slow = mix.new == 0 && share < NEARLY_ALL;
            if source.count().packets >= u64::from(mix.flows) && !slow {
                break;
            }
            if share > MOST {
                left = left.min(GRACE);
            }
            left = left.saturating_sub(LOOK);
        }
        let mut moments = Vec::new();
        let fast = self.fast_share(mix, |this| {
            moments.push(this.now(mix, &mut source));
            thread::sleep(WINDOW);
            moments.push(this.now(mix, &mut source));
        });
        let [begin, end] = &moments[..] else {
            unreachable!("two were noted")
        };
        let rate = end.arrived.rate_since(begin.arrived);
        let busy = (end.busy - begin.busy).as_nanos() as f64;
        [
            rate,
            rate / end.sent.rate_since(begin.sent),
            fast,
            busy / end.arrived.packets_since(begin.arrived),
        ]
    }
}

type Results = BTreeMap<(usize, Mix), [Vec<f64>; COLUMNS]>;

/// Puts a way there and has a course of packets go through it.
fn run_course(folder: &Path, way: Way, course: &[Mix], mut enter: impl FnMut(Mix, Figures)) {
    wait_for_quiet();
    let _bed = Bed::build(Links::Redirected);
    let _standing = way.start(folder);
    if let Way::Xvs(_) | Way::Fast(_) = way {
        wait_for("xvs with its ways to real servers", || {
            ways::list(folder).is_some_and(|list| ways::is_ready(&list))
        });
    }
    let mut place = Place::new(way, folder);
    for (number, mix) in (0..).zip(course) {
        enter(*mix, place.measure(*mix, number * FRESH));
    }
}

/// Measures; whether the fast path forwarded what it should.
pub(crate) fn run(folder: &Path) -> bool {
    crate::frames::compile(folder);
    let mut results = Results::new();
    let mut slow = Vec::new();
    for round in 1..=ROUNDS {
        for (at, way) in WAYS.into_iter().enumerate() {
            for course in courses(way) {
                run_course(folder, way, &course, |mix, figures| {
                    let (name, flows) = (way.name(), mix.name());
                    let [rate, _, fast, _] = figures;
                    eprintln!(
                        "round {round} of {ROUNDS}: {name}, {flows}: {:.3} Mpps",
                        rate / 1e6
                    );
                    if mix.new == 0 && fast < MOST {
                        slow.push(format!("round {round}: {name}, {flows}: {fast:.2}"));
                    }
                    let columns = results.entry((at, mix)).or_default();
                    for (column, value) in columns.iter_mut().zip(figures) {
                        column.push(value);
                    }
                });
            }
        }
    }
    explain();
    let table = Table::of(results);
    table.list();
    table.show_readme();
    for one in &slow {
        say(&format!(
            "FAILED: less than {MOST} of the packets took the fast path: {one}"
        ));
    }
    slow.is_empty()
}

fn explain() {
    let limit = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").unwrap_or_default();
    say(&format!(
        "60-byte UDP, {ROUNDS} rounds in turns; packets a second that arrived, median (least to greatest). Source and \
         what forwards in the kernel on one processor, xvs's worker on the other. New flows are mixed into {}. \
         CPU: what all processors were busy for a packet that arrived, with source and sink, and with those that did \
         not.\n\
         nftables tracks {} connections (net.netfilter.nf_conntrack_max, which is the machine's to set, not a \
         namespace's); each that is new takes the place of another then.",
        grouped(MANY),
        limit.trim()
    ));
}

/// Of each way and mix: median, least and greatest of the columns.
struct Table(BTreeMap<(usize, Mix), [[f64; 3]; COLUMNS]>);

impl Table {
    fn of(results: Results) -> Self {
        let all = results.into_iter();
        let medians =
            all.map(|(key, columns)| (key, columns.map(|mut column| spread(&mut column))));
        Self(medians.collect())
    }

    fn get(&self, way: Way, mix: Mix) -> Option<&[[f64; 3]; COLUMNS]> {
        let at = WAYS.iter().position(|one| *one == way)?;
        self.0.get(&(at, mix))
    }

    /// How much faster a way is than the redirect, which knows no flows, new or old, and no direction; and than DNAT.
    fn ratios(&self, way: Way, mix: Mix) -> [Option<f64>; 2] {
        [(Way::Redirect, Mix::of(mix.flows)), (Way::Nftables, mix)]
            .map(|(base, same)| Some(self.get(way, mix)?[0][0] / self.get(base, same)?[0][0]))
    }

    fn list(&self) {
        let mixes: BTreeSet<_> = self.0.keys().map(|(_, mix)| *mix).collect();
        for mix in mixes {
            say(&format!("\nflows: {}", mix.name()));
            for way in WAYS {
                let Some([pps, arrived, fast, busy]) = self.get(way, mix) else {
                    continue;
                };
                let ratios = self.ratios(way, mix);
                let ratios = ratios.map(|ratio| {
                    ratio.map_or_else(|| "   -".into(), |ratio| format!("{ratio:4.2}"))
                });
                let fast = if fast[0].is_nan() {
                    String::new()
                } else {
                    format!(", {:.1} % on the fast path", fast[0] * 100.0)
                };
                say(&format!(
                    "  {:24} {:9.0} ({:.0} to {:.0})   {} of redirect   {} of DNAT   CPU {:5.0} ns   \
                     {:5.1} % arrived{fast}",
                    way.name(),
                    pps[0],
                    pps[1],
                    pps[2],
                    ratios[0],
                    ratios[1],
                    busy[0],
                    arrived[0] * 100.0,
                ));
            }
        }
    }

    /// The README's table: millions of packets a second by flows, the rest at one number of them.
    fn show_readme(&self) {
        let many = Mix::of(MANY);
        let columns = [
            Mix::of(1),
            many,
            Mix::of(65_536),
            Mix::of(1_000_000),
            many.with_new(1),
            many.with_new(10),
        ];
        let heads = columns.map(|mix| mix.name()).join(" | ");
        say(&format!(
            "\n| | {heads} | of redirect | of DNAT | CPU, ns a packet |\n|---|{}",
            "---|".repeat(columns.len() + 3)
        ));
        for way in WAYS {
            for answers in [false, true] {
                let mix = Mix { answers, ..many };
                let Some([_, _, _, busy]) = self.get(way, mix) else {
                    continue;
                };
                let rates = columns.map(|mix| {
                    let found = self.get(way, Mix { answers, ..mix });
                    found.map(|found| found[0][0] / 1e6)
                });
                let cells = rates.into_iter().chain(self.ratios(way, mix));
                let cells = cells.map(|cell| cell.map_or_else(String::new, |n| format!("{n:.2}")));
                let answers = if answers { ", answers" } else { "" };
                say(&format!(
                    "| {}{answers} | {} | {:.0} |",
                    way.name(),
                    cells.collect::<Vec<_>>().join(" | "),
                    busy[0]
                ));
            }
        }
    }
}
