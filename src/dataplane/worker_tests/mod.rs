//! Packets in, packets out: what a worker does with frames, byte by byte.

use std::{net::Ipv4Addr, num::NonZeroU32};

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;
use crate::{
    addr::{Endpoint, L4Proto, MacAddr, PortId},
    balance::{
        Environment, Limits, Match, Method, NextHop, Persistence, RealId, RealSpec, Scheduler,
        ServiceId, ServiceKey, ServiceSpec, ServiceTable,
    },
    dataplane::{memory::MemoryIo, publish::Publisher},
    stats::{DropReason, ReplyReason},
    wire::checksum,
};

const CLIENT: [u8; 4] = [10, 1, 1, 1];
const VIP: [u8; 4] = [10, 1, 0, 100];
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const EGRESS_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const INGRESS: PortId = PortId(0);
const EGRESS: PortId = PortId(1);

fn real_mac(id: u32) -> [u8; 6] {
    [2, 0, 0, 0, 1, u8::try_from(id).unwrap()]
}

fn real(id: u32) -> RealSpec {
    RealSpec {
        id: RealId(id),
        epoch: NonZeroU32::MIN,
        endpoint: Endpoint::new([10, 2, 0, u8::try_from(id).unwrap()].into(), 80),
        method: Method::DirectRouting,
        weight: 1,
        last_weight: 1,
        limits: Limits::default(),
        available: true,
        next_hop: Some(NextHop {
            port: EGRESS,
            source: MacAddr(EGRESS_MAC),
            destination: MacAddr(real_mac(id)),
            mtu: 1500,
        }),
        local: None,
    }
}

fn service(reals: Vec<RealSpec>) -> ServiceSpec {
    ServiceSpec {
        id: ServiceId(0),
        matches: vec![Match::Address(ServiceKey {
            protocol: L4Proto::Tcp,
            endpoint: Endpoint::new(VIP.into(), 80),
        })],
        one_packet: false,
        scheduler: Scheduler::Rr,
        persistence: None,
        reals,
    }
}

/// A worker on a wire in memory, with the control that it needs.
struct Lab {
    publisher: Publisher,
    worker: Worker<MemoryIo>,
    stats: Arc<WorkerStats>,
    generation: u64,
    now: Instant,
}

impl Lab {
    fn new(spec: ServiceSpec) -> Self {
        Self::with_connections(spec, 1000)
    }

    fn with_connections(spec: ServiceSpec, connections: usize) -> Self {
        let table = ServiceTable::build(1, &[spec], Environment::default()).unwrap();
        let mut publisher = Publisher::new(table);
        let stats = Arc::new(WorkerStats::new());
        let options = WorkerOptions {
            connections,
            hash_seed: 7,
        };
        let io = MemoryIo::new(2 * BURST, BURST);
        Self {
            worker: Worker::new(io, publisher.reader(), Arc::clone(&stats), options),
            publisher,
            stats,
            generation: 1,
            now: Instant::from_nanos(1_000_000_000),
        }
    }

    fn publish(&mut self, specs: &[ServiceSpec]) {
        self.generation += 1;
        let table = ServiceTable::build(self.generation, specs, Environment::default()).unwrap();
        self.publisher.publish(table);
    }

    fn advance(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }

    /// What comes out for one frame.
    fn send(&mut self, frame: &[u8]) -> Option<(PortId, Vec<u8>)> {
        assert!(self.worker.io_mut().inject(INGRESS, frame));
        assert_eq!(self.worker.turn(self.now), 1);
        let out = self.worker.io_mut().collect();
        assert!(self.worker.io_mut().collect().is_none());
        let account = self.worker.account();
        assert!(
            account.is_conserved() && account.in_hand == 0,
            "{account:?}"
        );
        out
    }

    /// The real server that a frame reaches; `None` when it is not forwarded.
    fn reaches(&mut self, frame: &[u8]) -> Option<u32> {
        let (port, out) = self.send(frame)?;
        (port == EGRESS).then(|| u32::from(out[5]))
    }

    #[track_caller]
    fn assert_dropped(&mut self, frame: &[u8], reason: DropReason) {
        let before = self.stats.drops(reason).get();
        assert_eq!(self.send(frame), None);
        assert_eq!(
            self.stats.drops(reason).get(),
            before + 1,
            "{}",
            reason.name()
        );
    }

    #[track_caller]
    fn assert_counts(&self, id: u32, active: u64, inactive: u64) {
        let real = self.stats.real(id);
        assert_eq!((real.active.get(), real.inactive.get()), (active, inactive));
    }
}

#[derive(Clone, Copy)]
enum Say {
    Syn,
    Ack,
    Fin,
    Rst,
}

/// A segment from a client, with some payload.
fn segment(client: [u8; 4], port: u16, say: Say) -> Vec<u8> {
    build(client, port, say, b"hello", 64)
}

fn build(client: [u8; 4], port: u16, say: Say, payload: &[u8], ttl: u8) -> Vec<u8> {
    let tcp = PacketBuilder::ethernet2(ROUTER_MAC, OUR_MAC)
        .ipv4(client, VIP, ttl)
        .tcp(port, 80, 1000, 512);
    let tcp = match say {
        Say::Syn => tcp.syn(),
        Say::Ack => tcp.ack(5000),
        Say::Fin => tcp.fin().ack(5000),
        Say::Rst => tcp.rst(),
    };
    let mut bytes = Vec::new();
    tcp.write(&mut bytes, payload).unwrap();
    bytes
}

/// Puts a VLAN tag into a frame.
fn tagged(frame: &[u8], kind: u16) -> Vec<u8> {
    let mut bytes = frame[..12].to_vec();
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 42]);
    bytes.extend(&frame[12..]);
    bytes
}

/// Puts four bytes of IP options into an untagged frame.
fn with_options(frame: &[u8]) -> Vec<u8> {
    let mut bytes = frame[..34].to_vec();
    bytes.extend([1, 1, 1, 0]);
    bytes.extend(&frame[34..]);
    bytes[14] = 0x46;
    let total = u16::try_from(bytes.len() - 14).unwrap();
    bytes[16..18].copy_from_slice(&total.to_be_bytes());
    fix_ip_checksum(&mut bytes, 24);
    bytes
}

fn fix_ip_checksum(frame: &mut [u8], header_len: usize) {
    frame[24..26].fill(0);
    let sum = checksum::compute(&frame[14..14 + header_len]);
    frame[24..26].copy_from_slice(&sum);
}

/// The frame as direct routing to real server `id` makes it; the IP header starts at `network`.
fn routed(frame: &[u8], network: usize, id: u32) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    bytes[..6].copy_from_slice(&real_mac(id));
    bytes[6..12].copy_from_slice(&EGRESS_MAC);
    bytes[network + 8] -= 1;
    bytes[network + 10..network + 12].fill(0);
    let header = usize::from(bytes[network] & 15) * 4;
    let sum = checksum::compute(&bytes[network..network + header]);
    bytes[network + 10..network + 12].copy_from_slice(&sum);
    bytes
}

#[test]
fn direct_routing_changes_stations_and_ttl_and_nothing_else() {
    let plain = segment(CLIENT, 4000, Say::Syn);
    let mut padded = segment(CLIENT, 4001, Say::Syn);
    padded.extend([0; 17]);
    let customer = tagged(&plain, 0x8100);
    for (name, frame, network) in [
        ("plain", plain.clone(), 14),
        ("padded", padded, 14),
        ("one tag", customer.clone(), 18),
        ("two tags", tagged(&customer, 0x88a8), 22),
        ("IP options", with_options(&plain), 14),
        ("lowest TTL", build(CLIENT, 4002, Say::Syn, b"", 2), 14),
        (
            "a full frame",
            build(CLIENT, 4003, Say::Syn, &[7; 1460], 255),
            14,
        ),
    ] {
        let mut lab = Lab::new(service(vec![real(11)]));
        assert_eq!(
            lab.send(&frame),
            Some((EGRESS, routed(&frame, network, 11))),
            "{name}"
        );
        lab.assert_counts(11, 1, 0);
        let counters = lab.stats.real(11);
        assert_eq!((counters.connections.get(), counters.packets.get()), (1, 1));
        let ip_length = u16::from_be_bytes([frame[network + 2], frame[network + 3]]);
        assert_eq!(counters.bytes.get(), u64::from(ip_length));
        assert_eq!(
            (lab.stats.frames_in.get(), lab.stats.frames_out.get()),
            (1, 1)
        );
        assert_eq!(lab.stats.bytes_in.get(), frame.len() as u64);
    }
}

#[test]
fn every_frame_that_goes_nowhere_is_counted_by_its_reason() {
    use DropReason as D;
    let good = segment(CLIENT, 4000, Say::Syn);
    let edit = |at: usize, bytes: &[u8]| {
        let mut frame = good.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        if at >= 14 {
            fix_ip_checksum(&mut frame, 20);
        }
        frame
    };
    let mut broken = good.clone();
    broken[22] = 9;
    for (frame, reason) in [
        (good[..13].to_vec(), D::FrameTooShort),
        (edit(12, &[0x86, 0xdc]), D::EtherType),
        (good[..30].to_vec(), D::Ipv4Header),
        (good[..good.len() - 1].to_vec(), D::Ipv4Length),
        (broken, D::Ipv4Checksum),
        (edit(26, &[224]), D::SourceAddress),
        (edit(26, &[255, 255, 255, 255]), D::SourceAddress),
        (edit(26, &[127]), D::SourceAddress),
        (edit(0, &[0xff; 6]), D::GroupFrame),
        (edit(22, &[1]), D::ReplyImpossible),
        (edit(22, &[0]), D::ReplyImpossible),
        (edit(23, &[50]), D::Protocol),
        (edit(46, &[0x40]), D::TcpHeader),
        (edit(36, &[0, 81]), D::NoService),
        (segment(CLIENT, 4000, Say::Rst), D::UnknownReset),
    ] {
        Lab::new(service(vec![real(11)])).assert_dropped(&frame, reason);
    }
    let down = RealSpec {
        available: false,
        ..real(11)
    };
    let quiet = RealSpec {
        weight: 0,
        ..real(12)
    };
    Lab::new(service(vec![down, quiet])).assert_dropped(&good, D::ReplyImpossible);
    let unresolved = RealSpec {
        next_hop: None,
        ..real(11)
    };
    let mut lab = Lab::new(service(vec![unresolved]));
    assert!(lab.worker.io_mut().inject(INGRESS, &good));
    assert_eq!(lab.worker.turn(lab.now), 1);
    assert_eq!(lab.worker.account().in_hand, 1, "it waits");
    lab.advance(3);
    lab.worker.turn(lab.now);
    assert!(lab.worker.account().is_settled());
    assert_eq!(lab.stats.drops(D::NoNextHop).get(), 1);
}

#[test]
fn what_the_kernel_refuses_at_the_flush_is_dropped_and_not_sent() {
    let mut lab = Lab::new(service(vec![real(11)]));
    for port in 0..5 {
        let frame = segment(CLIENT, port, Say::Syn);
        assert!(lab.worker.io_mut().inject(INGRESS, &frame));
    }
    lab.worker.io_mut().refuse(2);
    assert_eq!(lab.worker.turn(lab.now), 5);
    assert_eq!(lab.stats.frames_out.get(), 3);
    assert_eq!(lab.stats.drops(DropReason::TransmitFull).get(), 2);
    assert_eq!(lab.worker.io_mut().discard(), 3);
    assert!(lab.worker.account().is_settled());
}

#[test]
fn a_full_transmit_ring_costs_the_frame_and_no_more() {
    let mut lab = Lab::new(service(vec![real(11)]));
    for port in 0..70 {
        assert!(
            lab.worker
                .io_mut()
                .inject(INGRESS, &segment(CLIENT, port, Say::Syn))
        );
    }
    assert_eq!(
        (lab.worker.turn(lab.now), lab.worker.turn(lab.now)),
        (64, 6)
    );
    assert_eq!(lab.stats.drops(DropReason::TransmitFull).get(), 6);
    assert_eq!(lab.worker.io_mut().discard(), 64);
    assert!(lab.worker.account().is_conserved());
}

#[test]
fn a_segment_of_an_unknown_flow_is_reset() {
    let strangers = [
        (build(CLIENT, 4000, Say::Ack, b"hello", 64), 5000, 0, false),
        (build(CLIENT, 4000, Say::Fin, b"", 64), 5000, 0, false),
        (
            with_options(&build(CLIENT, 4000, Say::Ack, b"hello", 64)),
            5000,
            0,
            false,
        ),
    ];
    let mut nothing = build(CLIENT, 4000, Say::Rst, b"hello", 64);
    nothing[47] = 0x01;
    let cases = strangers.into_iter().chain([(nothing, 0, 1006, true)]);
    for (frame, sequence, acknowledgment, ack) in cases {
        let mut lab = Lab::new(service(vec![real(11)]));
        let (port, answer) = lab.send(&frame).unwrap();
        assert_eq!(port, INGRESS);
        let tcp = PacketBuilder::ethernet2(OUR_MAC, ROUTER_MAC)
            .ip(etherparse::IpHeaders::Ipv4(
                {
                    let tcp = etherparse::IpNumber::TCP;
                    let mut ip = etherparse::Ipv4Header::new(0, 64, tcp, VIP, CLIENT).unwrap();
                    ip.dont_fragment = true;
                    ip
                },
                etherparse::Ipv4Extensions::default(),
            ))
            .tcp(80, 4000, sequence, 0)
            .rst();
        let tcp = if ack { tcp.ack(acknowledgment) } else { tcp };
        let mut expected = Vec::new();
        tcp.write(&mut expected, &[]).unwrap();
        assert_eq!(answer, expected);
        assert_eq!(lab.stats.replies(ReplyReason::UnknownFlow).get(), 1);
        assert_eq!(lab.stats.dropped(), 0);
        let tagged = tagged(&frame, 0x8100);
        let (_, answer) = lab.send(&tagged).unwrap();
        assert_eq!(&answer[12..18], &tagged[12..18], "the tag stays");
        assert_eq!(answer[18..], expected[14..]);
    }
}

/// An ICMP error from a router about a packet that a real server sent to the client.
fn icmp_error(kind: u8, client_port: u16) -> Vec<u8> {
    let mut quoted = Vec::new();
    PacketBuilder::ipv4(VIP, CLIENT, 60)
        .tcp(80, client_port, 1, 1)
        .write(&mut quoted, &[])
        .unwrap();
    let mut message = vec![kind, 4, 0, 0, 0, 0, 5, 120];
    message.extend(&quoted[..28]);
    let sum = checksum::compute(&message);
    message[2..4].copy_from_slice(&sum);
    let mut ip = etherparse::Ipv4Header::new(
        u16::try_from(message.len()).unwrap(),
        64,
        etherparse::IpNumber::ICMP,
        [10, 9, 9, 9],
        VIP,
    )
    .unwrap();
    ip.header_checksum = ip.calc_header_checksum();
    let mut frame = [ROUTER_MAC, ROUTER_MAC].concat();
    frame[6..12].copy_from_slice(&OUR_MAC);
    frame.rotate_left(6);
    frame.extend([8, 0]);
    frame.extend(ip.to_bytes());
    frame.extend(message);
    frame
}

#[test]
fn an_icmp_error_follows_the_flow_that_it_is_about() {
    let mut lab = Lab::new(service(vec![real(11), real(12)]));
    assert_eq!(lab.reaches(&segment(CLIENT, 4000, Say::Syn)), Some(11));
    assert_eq!(lab.reaches(&segment(CLIENT, 4001, Say::Syn)), Some(12));
    for kind in [3, 4, 11, 12] {
        let about = icmp_error(kind, 4001);
        assert_eq!(lab.send(&about), Some((EGRESS, routed(&about, 14, 12))));
    }
    lab.assert_dropped(&icmp_error(3, 4002), DropReason::IcmpUnknownFlow);
    lab.assert_dropped(&icmp_error(8, 4001), DropReason::IcmpType);
    let mut cut = icmp_error(3, 4001);
    cut.pop();
    cut[17] -= 1;
    fix_ip_checksum(&mut cut, 20);
    lab.assert_dropped(&cut, DropReason::IcmpQuote);
    // It keeps no flow alive: SYN_RECV is over after 60 s.
    lab.advance(59);
    assert_eq!(lab.reaches(&icmp_error(3, 4001)), Some(12));
    lab.advance(1);
    lab.assert_dropped(&icmp_error(3, 4001), DropReason::IcmpUnknownFlow);
}

#[test]
fn a_connection_is_counted_through_its_life() {
    let mut lab = Lab::new(service(vec![real(11)]));
    let say = |lab: &mut Lab, what, active, inactive| {
        assert_eq!(lab.reaches(&segment(CLIENT, 4000, what)), Some(11));
        lab.assert_counts(11, active, inactive);
    };
    say(&mut lab, Say::Syn, 1, 0);
    say(&mut lab, Say::Ack, 1, 0);
    lab.advance(899);
    say(&mut lab, Say::Ack, 1, 0);
    say(&mut lab, Say::Fin, 0, 1);
    lab.advance(119);
    say(&mut lab, Say::Ack, 0, 1);
    lab.advance(120);
    // The sweep finds it without a packet, in its own time.
    for _ in 0..10 {
        lab.advance(1);
        lab.worker.turn(lab.now);
    }
    lab.assert_counts(11, 0, 0);
    assert!(lab.worker.balancer().conns().is_empty());
    assert_eq!(lab.stats.connections.get(), 0);
}

#[test]
fn a_syn_on_an_old_connection_is_scheduled_only_when_that_one_is_over() {
    let both = || service(vec![real(11), real(12)]);
    // Reset: the connection is in CLOSE, and the next SYN is scheduled.
    let mut lab = Lab::new(both());
    for say in [Say::Syn, Say::Ack, Say::Rst] {
        assert_eq!(lab.reaches(&segment(CLIENT, 4000, say)), Some(11));
    }
    lab.assert_counts(11, 0, 1);
    assert_eq!(lab.reaches(&segment(CLIENT, 4000, Say::Syn)), Some(12));
    lab.assert_counts(11, 0, 0);
    // FIN_WAIT, established and half-open ones stay where they are.
    for before in [&[Say::Ack, Say::Fin][..], &[Say::Ack], &[]] {
        let mut lab = Lab::new(both());
        lab.reaches(&segment(CLIENT, 4000, Say::Syn));
        for say in before {
            lab.reaches(&segment(CLIENT, 4000, *say));
        }
        assert_eq!(lab.reaches(&segment(CLIENT, 4000, Say::Syn)), Some(11));
        lab.assert_counts(11, 1, 0);
    }
}

#[test]
fn a_real_server_that_is_down_keeps_its_flows_and_gets_no_new_ones() {
    let mut lab = Lab::new(service(vec![real(11), real(12)]));
    assert_eq!(lab.reaches(&segment(CLIENT, 4000, Say::Syn)), Some(11));
    assert_eq!(lab.reaches(&segment(CLIENT, 4000, Say::Ack)), Some(11));
    let down = RealSpec {
        available: false,
        ..real(11)
    };
    lab.publish(&[service(vec![down, real(12)])]);
    assert_eq!(lab.reaches(&segment(CLIENT, 4000, Say::Ack)), Some(11));
    for port in 5000..5003 {
        assert_eq!(lab.reaches(&segment(CLIENT, port, Say::Syn)), Some(12));
    }
    assert_eq!(
        lab.reaches(&segment(CLIENT, 4000, Say::Syn)),
        Some(12),
        "it begins anew"
    );
    lab.assert_counts(11, 0, 0);
    assert!(lab.publisher.is_adopted());
}

#[test]
fn flows_of_a_removed_real_server_are_forgotten() {
    let mut lab = Lab::new(service(vec![real(11)]));
    lab.reaches(&segment(CLIENT, 4000, Say::Syn));
    lab.reaches(&segment(CLIENT, 4000, Say::Ack));
    let next = RealSpec {
        epoch: NonZeroU32::new(2).unwrap(),
        ..real(11)
    };
    lab.publish(&[service(vec![next])]);
    let (port, _) = lab.send(&segment(CLIENT, 4000, Say::Ack)).unwrap();
    assert_eq!(port, INGRESS, "a reset, so that the client connects anew");
    assert_eq!(lab.reaches(&segment(CLIENT, 4000, Say::Syn)), Some(11));
    lab.assert_counts(11, 1, 0);
    lab.publish(&[]);
    lab.assert_dropped(&segment(CLIENT, 4000, Say::Ack), DropReason::NoService);
}

fn persistent(reals: Vec<RealSpec>, prefix: u8) -> ServiceSpec {
    ServiceSpec {
        persistence: Some(Persistence {
            timeout: Duration::from_secs(300),
            prefix,
        }),
        ..service(reals)
    }
}

#[test]
fn a_persistent_client_comes_back_to_its_real_server() {
    let mut lab = Lab::new(persistent(vec![real(11), real(12), real(13)], 24));
    assert_eq!(
        lab.reaches(&segment([10, 1, 1, 7], 4000, Say::Syn)),
        Some(11)
    );
    assert_eq!(
        lab.reaches(&segment([10, 1, 1, 200], 4000, Say::Syn)),
        Some(11)
    );
    assert_eq!(
        lab.reaches(&segment([10, 1, 2, 7], 4000, Say::Syn)),
        Some(12)
    );
    assert_eq!(lab.stats.real(11).templates.get(), 1);
    assert_eq!(lab.stats.templates.get(), 2);
    lab.assert_counts(11, 2, 0);
    lab.advance(299);
    // The third connection is there at 599 as well, so the template lives on in steps of 60 s.
    assert_eq!(
        lab.reaches(&segment([10, 1, 1, 9], 4000, Say::Syn)),
        Some(11)
    );
    lab.reaches(&segment([10, 1, 1, 9], 4000, Say::Ack));
    lab.advance(301);
    assert_eq!(
        lab.reaches(&segment([10, 1, 1, 9], 4001, Say::Syn)),
        Some(11)
    );
    lab.advance(360);
    assert_eq!(lab.worker.turn(lab.now), 0, "the sweep passes by");
    assert_eq!(
        lab.reaches(&segment([10, 1, 2, 7], 4001, Say::Syn)),
        Some(13),
        "its was over"
    );
}

#[test]
fn a_template_is_not_bound_to_a_real_server_that_is_down_but_to_one_of_weight_0() {
    let mut lab = Lab::new(persistent(vec![real(11), real(12)], 32));
    assert_eq!(lab.reaches(&segment(CLIENT, 4000, Say::Syn)), Some(11));
    let quiet = RealSpec {
        weight: 0,
        ..real(11)
    };
    lab.publish(&[persistent(vec![quiet, real(12)], 32)]);
    assert_eq!(lab.reaches(&segment(CLIENT, 4001, Say::Syn)), Some(11));
    let down = RealSpec {
        available: false,
        ..quiet
    };
    lab.publish(&[persistent(vec![down, real(12)], 32)]);
    assert_eq!(lab.reaches(&segment(CLIENT, 4002, Say::Syn)), Some(12));
    assert_eq!(lab.stats.real(11).templates.get(), 0);
    assert_eq!(lab.stats.real(12).templates.get(), 1);
    assert_eq!(
        lab.reaches(&segment(CLIENT, 4001, Say::Ack)),
        Some(11),
        "the flow stays"
    );
    lab.publish(&[persistent(vec![real(11)], 32)]);
    assert_eq!(
        lab.reaches(&segment(CLIENT, 4003, Say::Syn)),
        Some(11),
        "12 is gone"
    );
}

#[test]
fn a_led_connection_stays_with_its_template_when_its_port_is_used_again() {
    let mut lab = Lab::new(persistent(vec![real(11), real(12)], 32));
    for say in [Say::Syn, Say::Ack, Say::Rst, Say::Syn] {
        assert_eq!(lab.reaches(&segment(CLIENT, 4000, say)), Some(11));
    }
    lab.assert_counts(11, 1, 0);
    assert_eq!(lab.stats.real(11).connections.get(), 1);
}

#[test]
fn a_syn_flood_on_a_full_table_loses_no_established_flow() {
    let mut lab = Lab::with_connections(service(vec![real(11), real(12)]), 500);
    let mut homes = Vec::new();
    for port in 0..300 {
        homes.push(lab.reaches(&segment(CLIENT, port, Say::Syn)).unwrap());
        lab.reaches(&segment(CLIENT, port, Say::Ack));
    }
    for n in 0..3000_u32 {
        let [_, a, b, c] = n.to_be_bytes();
        lab.send(&segment([172, 16 + a, b, c], 1, Say::Syn));
    }
    assert!(lab.stats.evicted.get() > 0);
    assert_eq!(lab.stats.drops(DropReason::TableFull).get(), 0);
    for (port, home) in (0..).zip(homes) {
        assert_eq!(
            lab.reaches(&segment(CLIENT, port, Say::Ack)),
            Some(home),
            "port {port}"
        );
    }
    let active = lab.stats.real(11).active.get() + lab.stats.real(12).active.get();
    assert_eq!(active, lab.worker.balancer().conns().len() as u64);
}

#[test]
fn a_worker_stops_when_it_is_told_and_has_every_frame() {
    let mut lab = Lab::new(service(vec![real(11)]));
    assert!(
        lab.worker
            .io_mut()
            .inject(INGRESS, &segment(CLIENT, 1, Say::Syn))
    );
    let (stop, calls) = (AtomicBool::new(false), std::cell::Cell::new(0_u64));
    let clock = || {
        calls.set(calls.get() + 1);
        stop.store(calls.get() == 200, Ordering::Relaxed);
        Instant::from_nanos(calls.get() * 1_000_000)
    };
    lab.worker.run(clock, &stop).unwrap();
    assert_eq!((calls.get(), lab.stats.frames_out.get()), (200, 1));
    let mut io = lab.worker.into_io();
    io.discard();
    let account = io.account();
    assert_eq!(
        (account.free, account.total),
        (account.total, 2 * BURST as u64)
    );
}

/// Whatever left a worker is a frame that its receiver accepts.
fn assert_valid(frame: &[u8]) {
    let packet = etherparse::SlicedPacket::from_ethernet(frame).expect("a whole packet");
    let Some(etherparse::NetSlice::Ipv4(ip)) = packet.net else {
        panic!("no IPv4 packet: {frame:02x?}");
    };
    let header = ip.header();
    // Of the bytes as they are: etherparse's header has no place for the reserved flag.
    let words = header.slice().chunks_exact(2);
    let sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    assert_eq!(sum % 0xffff, 0, "{:02x?}", header.slice());
    assert!(header.ttl() >= 1);
    assert!(Ipv4Addr::from(header.source()) != Ipv4Addr::UNSPECIFIED);
}

fn seeds() -> Vec<Vec<u8>> {
    let ack = segment(CLIENT, 4000, Say::Ack);
    vec![
        segment(CLIENT, 4000, Say::Syn),
        tagged(&ack, 0x8100),
        tagged(&tagged(&ack, 0x8100), 0x88a8),
        with_options(&ack),
        ack,
        segment(CLIENT, 4001, Say::Ack),
        segment(CLIENT, 4000, Say::Fin),
        icmp_error(3, 4000),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_frame_makes_a_worker_panic_or_send_an_invalid_packet(
        frames in prop::collection::vec(
            (0_usize..8, prop::collection::vec((0_usize..80, any::<u8>()), 0..4), 0_usize..120, any::<bool>()),
            0..60,
        ),
        noise in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 0..8),
    ) {
        let mut lab = Lab::new(persistent(vec![real(11), real(12)], 24));
        let seeds = seeds();
        lab.send(&seeds[0]);
        let mut frames: Vec<Vec<u8>> = frames
            .into_iter()
            .map(|(seed, edits, cut, repair)| {
                let mut bytes = seeds[seed].clone();
                for (at, byte) in edits {
                    if let Some(it) = bytes.get_mut(at) {
                        *it = byte;
                    }
                }
                if repair {
                    let header = usize::from(bytes[14] & 15) * 4;
                    if header >= 20 && bytes.len() >= 14 + header {
                        fix_ip_checksum(&mut bytes, header);
                    }
                } else {
                    bytes.truncate(cut.max(1));
                }
                bytes
            })
            .collect();
        frames.extend(noise);
        for frame in &frames {
            prop_assert!(lab.worker.io_mut().inject(INGRESS, frame));
        }
        let count = frames.len();
        while lab.worker.turn(lab.now) > 0 {
            prop_assert!(lab.worker.account().is_conserved());
        }
        // What waits gives up.
        lab.advance(5);
        lab.worker.turn(lab.now);
        let mut out = 0;
        while let Some((_, frame)) = lab.worker.io_mut().collect() {
            assert_valid(&frame);
            out += 1;
        }
        let account = lab.worker.account();
        prop_assert_eq!(account.free, account.total);
        prop_assert_eq!(out + lab.stats.dropped(), count as u64);
    }
}

mod handover_tests;
mod timing_tests;
