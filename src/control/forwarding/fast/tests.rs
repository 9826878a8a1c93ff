//! What the fast path is told, in which order, and which interfaces have a part in it.

use std::{cell::RefCell, num::NonZeroU32};

use super::*;
use crate::{
    addr::{Endpoint, L4Proto, MacAddr},
    balance::{
        Environment, Hop, HopId, Limits, Match, Policy, RealSpec, Scheduler, ServiceKey,
        ServiceSpec, TableBuilder,
    },
    control::forwarding::ports::PortInfo,
};

const PORT: PortId = PortId(0);

/// What was written, in order.
#[derive(Default)]
struct Written(RefCell<Vec<String>>);

impl Written {
    fn take(&self) -> Vec<String> {
        self.0.take()
    }

    fn note(&self, what: String) {
        self.0.borrow_mut().push(what);
    }
}

impl Tables for Written {
    fn set_target(&self, slot: u32, target: Option<&FastTarget>) -> bool {
        self.note(match target {
            Some(target) => format!("target {slot} epoch {}", target.epoch),
            None => format!("no target {slot}"),
        });
        true
    }

    fn set_hop(&self, index: u32, hop: Option<&FastHop>) -> bool {
        let index = index.wrapping_sub(NEIGHBOURS);
        self.note(match hop {
            Some(hop) => format!("hop {index} to {}", hop.destination.0[5]),
            None => format!("no hop {index}"),
        });
        true
    }

    fn set_ways(&self, ways: u16) {
        self.note(format!("ways {ways}"));
    }

    fn set_pmtu_disc(&self, _: bool) {}

    fn clear_traffic(&self, slot: u32) {
        self.note(format!("clear {slot}"));
    }
}

/// Virtual servers that are all steered, or none.
struct All(bool);

impl Known for All {
    fn is_steered(&self, _: ServiceId) -> bool {
        self.0
    }

    fn identity(&self, id: ServiceId) -> u64 {
        u64::from(id.0) + 100
    }
}

fn ports(fast: bool) -> Ports {
    vec![PortInfo {
        ifindex: 7,
        mtu: 1500,
        fast,
        ..PortInfo::default()
    }]
    .into()
}

/// A real server in each slot, by how it is told to be.
fn table(method: LbKind, policy: Policy, change: impl Fn(&mut RealSpec)) -> TableBuilder {
    let mut builder = TableBuilder::new();
    let reals = (0..2_u8).map(|slot| {
        let mut spec = RealSpec {
            id: RealId(slot.into()),
            epoch: NonZeroU32::MIN,
            endpoint: Endpoint {
                addr: [10, 0, 0, slot + 1].into(),
                port: 80,
            },
            method,
            weight: 1,
            last_weight: 1,
            limits: Limits::default(),
            available: true,
            failed: false,
            hop: HopId(slot.into()),
        };
        if slot == 1 {
            change(&mut spec);
        }
        spec
    });
    let key = ServiceKey {
        protocol: L4Proto::Tcp,
        endpoint: Endpoint {
            addr: [192, 0, 2, 1].into(),
            port: 80,
        },
    };
    let service = ServiceSpec {
        id: ServiceId(0),
        epoch: NonZeroU32::MIN,
        matches: vec![Match::Address(key)],
        scheduler: Scheduler::Rr,
        persistence: None,
        one_packet: false,
        reals: reals.collect(),
        draining: Vec::new(),
    };
    builder.set(&service).unwrap();
    builder.set_environment(Environment {
        policy,
        ..Environment::default()
    });
    for slot in 0..2_u8 {
        builder.set_hop(HopId(slot.into()), hop(slot + 1));
    }
    builder
}

fn hop(last: u8) -> Hop {
    Hop {
        next: Some(NextHop {
            port: PORT,
            source: MacAddr([2, 0, 0, 0, 0, 7]),
            destination: MacAddr([2, 0, 0, 0, 0, last]),
            mtu: 1500,
        }),
        local: Some([10, 0, 0, 7].into()),
    }
}

fn told(builder: &mut TableBuilder) -> Told {
    Told::new(&builder.build(1), &All(true), &ports(true), Vec::new())
}

fn targets(method: LbKind, policy: Policy, change: impl Fn(&mut RealSpec)) -> [bool; 2] {
    let told = told(&mut table(method, policy, change));
    [0, 1].map(|slot| told.targets[slot].is_some())
}

#[test]
fn a_real_server_that_flows_leave_or_that_the_program_cannot_do_has_none() {
    let failed = |spec: &mut RealSpec| spec.failed = true;
    let gone = |spec: &mut RealSpec| spec.available = false;
    let policy = |udp_move, reset_on_failure| Policy {
        udp_move,
        reset_on_failure,
        ..Policy::default()
    };
    let of = |policy, change: &dyn Fn(&mut RealSpec)| targets(LbKind::Dr, policy, change)[1];
    assert!(of(policy(true, true), &|_| {}));
    assert!(!of(policy(true, false), &failed), "UDP flows move");
    assert!(of(policy(false, false), &failed));
    assert!(of(policy(false, true), &failed), "inhibited");
    assert!(of(policy(false, false), &gone));
    assert!(!of(policy(false, true), &gone), "TCP is reset");
    let gre = |checksum| LbKind::Tun(TunnelKind::Gre { checksum });
    assert_eq!(targets(gre(false), policy(true, false), |_| {}), [true; 2]);
    assert_eq!(targets(gre(true), policy(true, false), |_| {}), [false; 2]);
    let mut builder = table(LbKind::Dr, policy(true, false), |_| {});
    let told = Told::new(&builder.build(1), &All(false), &ports(true), Vec::new());
    assert_eq!(told.targets, [None; 2], "not steered");
}

#[test]
fn a_tunnel_begins_at_this_host_or_in_the_network_of_its_flows() {
    let mut policy = Policy::default();
    let method = |policy: &Policy| {
        let told = told(&mut table(
            LbKind::Tun(TunnelKind::Gue {
                port: 6080,
                checksum: false,
            }),
            policy.clone(),
            |_| {},
        ));
        told.targets[0].unwrap().method
    };
    let tunnel = |local: [u8; 4], spread_bits| FastMethod::Tunnel {
        kind: FastTunnel::Gue(6080),
        local: local.into(),
        spread_bits,
        mtu: None,
    };
    assert_eq!(method(&policy), tunnel([10, 0, 0, 7], 0));
    policy.tunnel_sources.v4 = Some(([172, 16, 0, 0].into(), 12));
    assert_eq!(method(&policy), tunnel([172, 16, 0, 0], 20));
}

#[test]
fn only_what_differs_is_written_and_what_narrows_before_what_widens() {
    let (mut mirror, written) = (Mirror::default(), Written::default());
    let mut builder = table(LbKind::Dr, Policy::default(), |_| {});
    let first = told(&mut builder);
    mirror.narrow(&first, &written);
    assert_eq!(written.take(), ["ways 0"]);
    mirror.widen(&first, &written);
    let all = [
        "hop 0 to 1",
        "hop 1 to 2",
        "clear 0",
        "target 0 epoch 1",
        "clear 1",
        "target 1 epoch 1",
    ];
    assert_eq!(written.take(), all);
    mirror.narrow(&first, &written);
    mirror.widen(&first, &written);
    assert!(written.take().is_empty());
    // Another address of a neighbour; another holder of a slot.
    builder.set_hop(HopId(0), hop(9));
    let moved = told(&mut builder);
    mirror.narrow(&moved, &written);
    assert_eq!(written.take(), ["no hop 0"]);
    mirror.widen(&moved, &written);
    assert_eq!(written.take(), ["hop 0 to 9"]);
    let other = told(&mut table(LbKind::Dr, Policy::default(), |spec| {
        spec.epoch = NonZeroU32::new(2).unwrap();
    }));
    mirror.narrow(&other, &written);
    assert_eq!(written.take(), ["no target 1", "no hop 0"]);
    mirror.widen(&other, &written);
    assert_eq!(
        written.take(),
        ["hop 0 to 1", "clear 1", "target 1 epoch 2"]
    );
    // One that comes back as it was goes on counting.
    let failed = told(&mut table(LbKind::Dr, Policy::default(), |spec| {
        spec.epoch = NonZeroU32::new(2).unwrap();
        spec.failed = true;
    }));
    for told in [&failed, &other] {
        mirror.narrow(told, &written);
        mirror.widen(told, &written);
    }
    assert_eq!(written.take(), ["no target 1", "target 1 epoch 2"]);
}

#[test]
fn no_frame_leaves_by_a_port_that_takes_none() {
    let mut builder = table(LbKind::Dr, Policy::default(), |_| {});
    let told = Told::new(&builder.build(1), &All(true), &ports(false), Vec::new());
    assert!(told.hops[1].iter().all(Option::is_none));
}

#[test]
fn who_takes_part_is_the_kernels_word_and_the_settings() {
    use config::FastPath::{Auto, Off, On};
    const ALL: Option<u64> = Some(u64::MAX);
    const NONE: Option<u64> = Some(!TAKES_FRAMES);
    let choose = |wish, all: &[(Level, Option<u64>)]| -> Vec<(bool, Result<(), Why>)> {
        let all = (0..).zip(all).map(|(port, (level, features))| Candidate {
            port: PortId(port),
            level: *level,
            features: *features,
        });
        let parts = parts(wish, &all.collect::<Vec<_>>());
        parts.iter().map(|part| (part.looks, part.takes)).collect()
    };
    let yes = (true, Ok(()));
    let native = Level::NativeCopy;
    assert_eq!(choose(Auto, &[(native, ALL)]), [yes]);
    assert_eq!(choose(On, &[(native, NONE)]), [(true, Err(Why::TakesNone))]);
    assert_eq!(choose(Auto, &[(native, None)]), [(true, Err(Why::Unsaid))]);
    assert_eq!(choose(On, &[(native, None)]), [yes]);
    assert_eq!(choose(Off, &[(native, ALL)]), [(false, Err(Why::Off))]);
    // The generic hook alone needs nothing of the way out; beside a native one it does.
    assert_eq!(choose(Auto, &[(Level::Generic, NONE); 2]), [yes, yes]);
    let mixed = [(Level::Generic, NONE), (native, ALL)];
    assert_eq!(choose(Auto, &mixed), [(true, Err(Why::TakesNone)), yes]);
    let zero = [(Level::ZeroCopy, ALL), (Level::Generic, NONE)];
    assert_eq!(choose(Auto, &zero), [(false, Err(Why::ZeroCopy)), yes]);
    assert_eq!(choose(On, &zero), [yes, (true, Err(Why::TakesNone))]);
    let packet = [(Level::AfPacket, ALL)];
    assert_eq!(choose(On, &packet), [(false, Err(Why::NoXdp))]);
}

#[test]
fn there_is_room_for_as_many_real_servers_again() {
    let sizes = sizes(1 << 20, 3000);
    assert_eq!((sizes.flows, sizes.reals), (1 << 20, 8192));
    assert_eq!(sizes.hops, NEIGHBOURS + 8192);
    assert_eq!(super::sizes(1000, 2).reals, 1024);
    assert_eq!(super::sizes(1000, usize::MAX / 4).reals as usize, MAX_REALS);
}

#[test]
fn an_heir_is_known_by_what_it_is() {
    let mut builder = table(LbKind::Nat, Policy::default(), |spec| spec.failed = true);
    let heirs = heirs(&builder.build(1), &All(false));
    assert_eq!(heirs.len(), 2, "also who gets nothing now");
    let target = |addr: [u8; 4], service, port| FastTarget {
        epoch: NonZeroU32::new(77).unwrap(),
        hop: 3,
        addr: addr.into(),
        method: FastMethod::Nat { port },
        service,
    };
    let slot = |target: FastTarget| heirs.get(&target.identity()).map(|(slot, _)| *slot);
    assert_eq!(slot(target([10, 0, 0, 2], 100, 80)), Some(1));
    assert_eq!(slot(target([10, 0, 0, 2], 100, 81)), None, "another port");
    assert_eq!(slot(target([10, 0, 0, 2], 101, 80)), None, "another's");
    assert_eq!(slot(target([10, 0, 0, 3], 100, 80)), None);
    let direct = FastTarget {
        method: FastMethod::Dr,
        ..target([10, 0, 0, 2], 100, 80)
    };
    assert_eq!(slot(direct), None, "by another way");
}
