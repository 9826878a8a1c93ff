//! The tables over maps that fail when they are told to, have few places, and keep what was asked.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    rc::Rc,
};

use proptest::prelude::*;

use super::*;
use crate::{
    addr::{Endpoint, IpPrefix, L4Proto},
    sys::steer::{
        abi::KIND_FRAGMENT,
        matching::{Outer, PortRange, Target},
    },
};

type Bytes = Vec<u8>;

/// What the kernel has, and how it behaves.
#[derive(Default)]
struct Kernel {
    maps: [BTreeMap<Bytes, Bytes>; NAMES.len()],
    /// Entries that a map takes; 0 is any number.
    places: usize,
    /// Calls to come of which each true one fails.
    faults: Vec<bool>,
    /// What was done: whether it was put there, in which map, by its key.
    log: Vec<(bool, usize, Bytes)>,
}

struct FakeMap {
    index: usize,
    kernel: Rc<RefCell<Kernel>>,
}

impl Kernel {
    fn fault(&mut self) -> io::Result<()> {
        if self.faults.pop() == Some(true) {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        Ok(())
    }

    fn features(&self) -> Bytes {
        let written = self.maps[FEATURES].get(0_u32.bytes()).cloned();
        written.unwrap_or_else(|| vec![0; 16])
    }

    fn is_in_force(&self, rule: u32) -> bool {
        let rules = u64::from_ne_bytes(self.features()[8..].try_into().unwrap());
        rules >> rule & 1 == 1
    }

    /// What packets see: rules in whatever place they are, and just those in force.
    fn effect(&self) -> (Vec<BTreeSet<Bytes>>, Bytes, BTreeSet<Bytes>) {
        let rules = (0..64)
            .filter(|index| self.is_in_force(*index))
            .map(|index| self.maps[RULES][index.bytes()].clone());
        let entries = self.maps[..RULES].iter();
        (
            entries.map(|map| map.keys().cloned().collect()).collect(),
            self.features()[..8].to_vec(),
            rules.collect(),
        )
    }

    /// Each entry for ports has its entry for fragments.
    fn assert_fragments(&self) {
        for (name, at) in [(c"returns", 0), (c"services", 0), (c"prefixes", 4)] {
            let map = &self.maps[NAMES.iter().position(|other| *other == name).unwrap()];
            for key in map.keys() {
                let mut fragments = key.clone();
                fragments[at + 1] |= KIND_FRAGMENT;
                fragments[at + 2..at + 4].fill(0);
                assert!(map.contains_key(&fragments), "{name:?}: {key:?}");
            }
        }
    }
}

impl Table for FakeMap {
    fn set(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let mut kernel = self.kernel.borrow_mut();
        kernel.fault()?;
        if self.index == RULES {
            let index = u32::from_ne_bytes(key.try_into().unwrap());
            assert!(!kernel.is_in_force(index), "written while it is read");
        }
        let places = kernel.places;
        let map = &mut kernel.maps[self.index];
        if places > 0 && map.len() >= places && self.index < RULES && !map.contains_key(key) {
            return Err(io::Error::from_raw_os_error(libc::E2BIG));
        }
        map.insert(key.to_vec(), value.to_vec());
        kernel.log.push((true, self.index, key.to_vec()));
        Ok(())
    }

    fn remove(&self, key: &[u8]) -> io::Result<()> {
        let mut kernel = self.kernel.borrow_mut();
        kernel.fault()?;
        kernel.maps[self.index].remove(key);
        kernel.log.push((false, self.index, key.to_vec()));
        Ok(())
    }
}

fn tables() -> (Tables<FakeMap>, Rc<RefCell<Kernel>>) {
    let kernel = Rc::new(RefCell::new(Kernel::default()));
    let map = |index| FakeMap {
        index,
        kernel: Rc::clone(&kernel),
    };
    (Tables::new(std::array::from_fn(map)), kernel)
}

fn addr(host: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, host).into()
}

fn target(host: u8, port: u16) -> Target {
    Target {
        endpoint: Endpoint::new(addr(host), port),
        proto: L4Proto::Tcp,
    }
}

fn service(host: u8, port: u16) -> Steered {
    Steered::Service(target(host, port))
}

fn rule(host: u8) -> Steered {
    Steered::Rule(MatchRule {
        proto: L4Proto::Udp,
        dst: "203.0.113.0/24".parse().unwrap(),
        dst_ports: PortRange::ANY,
        src: Some(IpPrefix::new(addr(host), 32).unwrap()),
        src_ports: PortRange::ANY,
    })
}

/// Few of each kind, so that they meet.
fn steered() -> impl Strategy<Value = Steered> {
    let prefix = |(bits, port)| Steered::Prefix {
        dst: IpPrefix::new(addr(0), bits).unwrap(),
        port,
        proto: L4Proto::Tcp,
    };
    prop_oneof![
        (0..3_u8, 0..4_u16).prop_map(|(host, port)| service(host, port)),
        (0..3_u8, 0..4_u16).prop_map(|(host, port)| Steered::Return(target(host, port))),
        (24..26_u8, 0..3_u16).prop_map(prefix),
        (0..4_u8).prop_map(|host| Steered::Local(addr(host))),
        (0..2_u8).prop_map(|host| Steered::Tunnel {
            addr: addr(host),
            outer: Outer::Ipip
        }),
        (0..4_u8).prop_map(rule),
    ]
}

/// What a kernel has in which nothing ever failed.
fn expected(wanted: &[Steered]) -> (Vec<BTreeSet<Bytes>>, Bytes, BTreeSet<Bytes>) {
    let (mut tables, kernel) = tables();
    assert_eq!(tables.set(wanted).pending, 0);
    kernel.borrow().effect()
}

proptest! {
    #[test]
    fn whatever_fails_on_the_way_in_the_end_the_kernel_has_what_is_wanted(
        steps in prop::collection::vec(
            (prop::collection::vec(steered(), 0..12), any::<bool>()),
            1..8,
        ),
        faults in prop::collection::vec(prop::bool::weighted(0.3), 0..120),
        places in 0..8_usize,
    ) {
        let (mut tables, kernel) = tables();
        kernel.borrow_mut().faults = faults;
        kernel.borrow_mut().places = places;
        let mut wanted = BTreeMap::new();
        for (step, is_change) in &steps {
            let done = if *is_change {
                let removed: Vec<_> = wanted.values().copied().take(2).collect();
                let removed: Vec<_> =
                    removed.into_iter().filter(|known| !step.contains(known)).collect();
                wanted.retain(|_, known| !removed.contains(known));
                tables.change(step, &removed)
            } else {
                wanted.clear();
                tables.set(step)
            };
            wanted.extend(step.iter().map(|steered| (format!("{steered:?}"), *steered)));
            kernel.borrow().assert_fragments();
            let all: Vec<_> = wanted.values().copied().collect();
            let is_right = kernel.borrow().effect() == expected(&all);
            prop_assert!(is_right || done.pending > 0, "{:?}", done);
            prop_assert_eq!(done.pending == 0, done.refused.is_empty());
        }
        let all: Vec<_> = wanted.values().copied().collect();
        kernel.borrow_mut().faults.clear();
        kernel.borrow_mut().places = 0;
        prop_assert_eq!(tables.reconcile().pending, 0);
        prop_assert_eq!(tables.missing().count(), 0);
        prop_assert_eq!(kernel.borrow().effect(), expected(&all));
        // Nothing is left of what was there, in the kernel or here.
        prop_assert_eq!(tables.set(&[]).pending, 0);
        prop_assert_eq!(kernel.borrow().effect(), expected(&[]));
        prop_assert!(tables.items.is_empty() && tables.entries.is_empty());
    }
}

#[test]
fn what_is_new_comes_before_what_it_replaces_goes() {
    let (mut tables, kernel) = tables();
    let real = |host| Steered::Return(target(host, 80));
    let _ = tables.set(&[service(1, 80), real(1), Steered::Local(addr(9)), rule(1)]);
    kernel.borrow_mut().log.clear();
    let _ = tables.set(&[service(2, 80), real(2), Steered::Local(addr(8)), rule(2)]);
    let log: Vec<_> = kernel
        .borrow()
        .log
        .iter()
        .map(|(on, map, _)| (*on, NAMES[*map]))
        .collect();
    assert_eq!(
        log,
        [
            // The fragments of an address, then its port.
            (true, c"locals"),
            (true, c"returns"),
            (true, c"returns"),
            (true, c"services"),
            (true, c"services"),
            (true, c"rules"),
            (true, c"features"),
            (false, c"services"),
            (false, c"services"),
            (false, c"returns"),
            (false, c"returns"),
            (false, c"locals"),
            (true, c"features"),
        ]
    );
}

#[test]
fn what_stays_is_not_written_again() {
    let (mut tables, kernel) = tables();
    let all: Vec<_> = (1..100).map(|port| service(1, port)).collect();
    let _ = tables.set(&all);
    kernel.borrow_mut().log.clear();
    assert_eq!(tables.set(&all).pending, 0);
    assert!(kernel.borrow().log.is_empty());
    let _ = tables.set(&all[1..]);
    assert_eq!(kernel.borrow().log.len(), 1);
}

#[test]
fn a_full_table_is_told_once_and_filled_when_there_is_a_place() {
    let (mut tables, kernel) = tables();
    kernel.borrow_mut().places = 3;
    let all: Vec<_> = (1..6).map(|port| service(1, port)).collect();
    let done = tables.set(&all);
    assert_eq!((done.pending, done.refused.len()), (3, 1));
    assert_eq!(
        done.complete().unwrap_err().to_string(),
        "start steering TCP 192.0.2.1:3: the kernel's table is full: Argument list too long (os error 7)"
    );
    assert_eq!(tables.missing().copied().collect::<Vec<_>>(), all[2..]);
    // Two of them fit where two go, in one call.
    let done = tables.set(&all[2..4]);
    assert_eq!((done.pending, done.refused.len()), (0, 0));
    assert_eq!(kernel.borrow().effect(), expected(&all[2..4]));
}

#[test]
fn stations_are_of_their_interface() {
    let (mut tables, kernel) = tables();
    let stations = |kernel: &RefCell<Kernel>| kernel.borrow().maps[0].len();
    let mac = |last| MacAddr([2, 0, 0, 0, 0, last]);
    let _ = tables.set_stations(1, &[mac(1), mac(2)]);
    let _ = tables.set_stations(2, &[mac(1)]);
    assert_eq!(stations(&kernel), 3);
    // What is steered is another matter.
    let _ = tables.set(&[]);
    kernel.borrow_mut().faults = vec![true];
    let done = tables.set_stations(1, &[mac(2)]);
    assert_eq!((done.pending, stations(&kernel)), (1, 3));
    assert_eq!(
        done.complete().unwrap_err().to_string(),
        "stop steering packets to 02:00:00:00:00:01 on interface 1: Resource temporarily unavailable (os error 11)"
    );
    assert_eq!(tables.reconcile().pending, 0);
    assert_eq!(stations(&kernel), 2);
    let _ = tables.set_stations(2, &[]);
    assert_eq!(stations(&kernel), 1);
}
