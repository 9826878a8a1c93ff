//! Packets that are too large for their way: cut in two, or their sender is told, here and by routers on
//! the way.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
    sync::Arc,
};

use etherparse::{
    Icmpv4Type, IpFragOffset, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, NetSlice,
    PacketBuilder, SlicedPacket, TransportSlice, icmpv4::DestUnreachableHeader,
};

use super::{
    memory::MemoryIo,
    publish::Publisher,
    worker::{Worker, WorkerOptions},
};
use crate::{
    addr::{Endpoint, L4Proto, MacAddr, PortId},
    balance::{
        Environment, Limits, Match, Method, NextHop, PortSpec, RealId, RealSpec, Route, Routes,
        Scheduler, ServiceId, ServiceKey, ServiceSpec, ServiceTable, rewrite::TunnelKind,
    },
    stats::{DropReason, ReplyReason, WorkerStats},
    time::Instant,
};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
const OWN: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 2, 0, 1)];
const OWN6: Ipv6Addr = Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, 1);
const REAL: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 11);
const REAL6: Ipv6Addr = Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, 0x11);
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const REAL_MAC: [u8; 6] = [2, 0, 0, 0, 1, 11];
const INGRESS: PortId = PortId(0);
const EGRESS: PortId = PortId(1);

/// A worker with one virtual server for UDP on port 53 and one real server.
struct Lab {
    worker: Worker<MemoryIo>,
    stats: Arc<WorkerStats>,
    _publisher: Publisher,
}

impl Lab {
    fn new(method: Method, real: IpAddr, mtu: u16, io: MemoryIo) -> Self {
        let real = RealSpec {
            id: RealId(0),
            epoch: NonZeroU32::MIN,
            endpoint: Endpoint::new(real, 5353),
            method,
            weight: 1,
            last_weight: 1,
            limits: Limits::default(),
            available: true,
            next_hop: Some(NextHop {
                port: EGRESS,
                source: MacAddr(OUR_MAC),
                destination: MacAddr(REAL_MAC),
                mtu,
            }),
            local: Some(if real.is_ipv4() {
                OWN[1].into()
            } else {
                OWN6.into()
            }),
        };
        let service = ServiceSpec {
            id: ServiceId(0),
            matches: vec![Match::Address(ServiceKey {
                protocol: L4Proto::Udp,
                endpoint: Endpoint::new(VIP.into(), 53),
            })],
            one_packet: false,
            scheduler: Scheduler::Rr,
            persistence: None,
            reals: vec![real],
        };
        let to_client = Route {
            to: "10.1.0.0/16".parse().unwrap(),
            port: Some(INGRESS),
            source: MacAddr(OUR_MAC),
            gateway: None,
            mtu: 1500,
        };
        let client = (INGRESS, CLIENT.into(), MacAddr(CLIENT_MAC));
        let environment = Environment {
            routes: Arc::new(Routes::new([to_client], [client])),
            ports: OWN
                .map(|own| PortSpec {
                    v4: Some(own),
                    v6: None,
                })
                .into(),
            ..Environment::default()
        };
        let table = ServiceTable::build(1, &[service], environment).unwrap();
        let mut publisher = Publisher::new(table);
        let stats = Arc::new(WorkerStats::new());
        let options = WorkerOptions {
            connections: 100,
            hash_seed: 7,
        };
        Self {
            worker: Worker::new(io, publisher.reader(), Arc::clone(&stats), options),
            stats,
            _publisher: publisher,
        }
    }

    /// All that comes out for one frame. Every frame is where it should be.
    fn send(&mut self, frame: &[u8]) -> Vec<(PortId, Vec<u8>)> {
        let io = self.worker.io_mut();
        assert!(io.inject(INGRESS, frame));
        self.worker.turn(Instant::from_nanos(1_000_000_000));
        let io = self.worker.io_mut();
        let out: Vec<_> = std::iter::from_fn(|| io.collect()).collect();
        let account = self.worker.account();
        assert!(account.is_settled(), "{account:?}");
        let stats = &self.stats;
        assert_eq!(
            stats.frames_in.get() + stats.frames_made.get(),
            stats.frames_out.get() + stats.dropped()
        );
        out
    }
}

fn io() -> MemoryIo {
    MemoryIo::new(8, 8)
}

fn payload(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

/// A datagram of the client, `length` bytes with its IP header, at this place of a larger one.
fn datagram(length: usize, dont_fragment: bool, offset: u16, more: bool) -> Vec<u8> {
    let udp = IpNumber::UDP;
    let mut ip = Ipv4Header::new(0, 64, udp, CLIENT.octets(), VIP.octets()).unwrap();
    ip.dont_fragment = dont_fragment;
    ip.more_fragments = more;
    ip.fragment_offset = IpFragOffset::try_new(offset).unwrap();
    ip.identification = 77;
    let headers = IpHeaders::Ipv4(ip, Ipv4Extensions::default());
    let builder = PacketBuilder::ethernet2(CLIENT_MAC, OUR_MAC).ip(headers);
    let mut bytes = Vec::new();
    let udp = builder.udp(4000, 53);
    udp.write(&mut bytes, &payload(length - 28)).unwrap();
    bytes
}

/// The payload of the packet that IPv4 fragments make together, each of `mtu` bytes at most.
fn reassembled(frames: &[Vec<u8>], mtu: u16) -> Vec<u8> {
    let mut whole = Vec::new();
    for (number, frame) in frames.iter().enumerate() {
        assert_eq!(frame[..6], REAL_MAC);
        let sliced = SlicedPacket::from_ethernet(frame).unwrap();
        let Some(NetSlice::Ipv4(ip)) = &sliced.net else {
            panic!("{sliced:?}");
        };
        let header = ip.header();
        assert!(header.total_len() <= mtu, "{}", header.total_len());
        assert_eq!(frame.len(), 14 + usize::from(header.total_len()));
        assert_eq!(
            header.header_checksum(),
            header.to_header().calc_header_checksum()
        );
        assert!(!header.dont_fragment());
        assert_eq!(header.more_fragments(), number + 1 < frames.len());
        assert_eq!(
            usize::from(header.fragments_offset().value()) * 8,
            whole.len()
        );
        whole.extend_from_slice(ip.payload().payload);
    }
    whole
}

fn frames(out: Vec<(PortId, Vec<u8>)>) -> Vec<Vec<u8>> {
    assert!(out.iter().all(|(port, _)| *port == EGRESS), "{out:?}");
    out.into_iter().map(|(_, frame)| frame).collect()
}

#[test]
fn what_may_be_fragmented_is_cut_in_two() {
    for method in [Method::DirectRouting, Method::Nat] {
        let mut lab = Lab::new(method, REAL.into(), 1000, io());
        let fits = lab.send(&datagram(1000, false, 0, false));
        assert_eq!(fits.len(), 1);
        let parts = frames(lab.send(&datagram(1400, false, 0, false)));
        assert_eq!(parts.len(), 2);
        let whole = reassembled(&parts, 1000);
        assert_eq!(whole[8..], payload(1400 - 28));
        let port = if method == Method::Nat { 5353 } else { 53 };
        assert_eq!(whole[2..4], u16::to_be_bytes(port));
        assert_eq!(lab.stats.frames_made.get(), 1);
        assert_eq!(lab.stats.dropped(), 0);
    }
}

#[test]
fn a_tunnel_packet_is_cut_around_or_inside() {
    let tunnel = Method::Tunnel(TunnelKind::Ipip);
    let sent = datagram(1490, false, 0, false);
    let mut lab = Lab::new(tunnel, REAL.into(), 1500, io());
    let parts = frames(lab.send(&sent));
    assert_eq!(parts.len(), 2);
    let inner = reassembled(&parts, 1500);
    assert_eq!(inner[20..], sent[34..], "the datagram is whole inside");

    // No IPv6 packet is cut on the way: its content is.
    let mut lab = Lab::new(tunnel, REAL6.into(), 1500, io());
    let parts = frames(lab.send(&sent));
    assert_eq!(parts.len(), 2);
    let inside = parts.iter().map(|frame| {
        assert!(frame.len() <= 14 + 1500);
        assert_eq!(frame[12..14], [0x86, 0xdd]);
        [&frame[..12], &[8, 0], &frame[54..]].concat()
    });
    let whole = reassembled(&inside.collect::<Vec<_>>(), 1460);
    assert_eq!(whole, sent[34..]);
    assert_eq!(lab.stats.frames_made.get(), 1);
}

#[test]
fn who_forbids_fragments_is_told_instead() {
    let mut lab = Lab::new(Method::DirectRouting, REAL.into(), 1000, io());
    let out = lab.send(&datagram(1400, true, 0, false));
    assert!(matches!(out[..], [(INGRESS, _)]), "{out:?}");
    assert_eq!(lab.stats.replies(ReplyReason::TooBig).get(), 1);
    assert_eq!(lab.stats.frames_made.get(), 0);
}

#[test]
fn without_frames_or_room_nothing_is_lost_track_of() {
    // Nothing free for a second part.
    let mut lab = Lab::new(Method::Nat, REAL.into(), 1000, MemoryIo::new(1, 1));
    assert_eq!(lab.send(&datagram(1400, false, 0, false)), []);
    assert_eq!(lab.stats.drops(DropReason::TooBig).get(), 1);
    // The ring takes one of two.
    let mut lab = Lab::new(Method::Nat, REAL.into(), 1000, MemoryIo::new(8, 1));
    assert_eq!(lab.send(&datagram(1400, false, 0, false)).len(), 1);
    assert_eq!(lab.stats.drops(DropReason::TransmitFull).get(), 1);
    // Two parts are not enough.
    let mut lab = Lab::new(Method::Nat, REAL.into(), 500, io());
    assert_eq!(lab.send(&datagram(1400, false, 0, false)), []);
    assert_eq!(lab.stats.frames_made.get(), 1);
    assert_eq!(lab.stats.drops(DropReason::TooBig).get(), 2);
}

/// A router's word about a tunnel packet: it may be of so many bytes.
fn too_big(outer: &[u8], mtu: u16) -> Vec<u8> {
    let needed = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu };
    let message = Icmpv4Type::DestinationUnreachable(needed);
    let router = [10, 2, 0, 254];
    let builder = PacketBuilder::ethernet2(REAL_MAC, OUR_MAC).ipv4(router, OWN[1].octets(), 64);
    let mut bytes = Vec::new();
    let quote = &outer[14..outer.len().min(14 + 548)];
    builder.icmpv4(message).write(&mut bytes, quote).unwrap();
    bytes
}

#[test]
fn what_a_router_says_of_a_tunnel_packet_is_told_to_the_client() {
    let tunnel = Method::Tunnel(TunnelKind::Ipip);
    let mut lab = Lab::new(tunnel, REAL.into(), 1500, io());
    let sent = datagram(1480, true, 0, false);
    let outer = frames(lab.send(&sent)).remove(0);

    let out = lab.send(&too_big(&outer, 1400));
    let [(INGRESS, told)] = &out[..] else {
        panic!("{out:?}");
    };
    assert_eq!(told[..6], CLIENT_MAC);
    let sliced = SlicedPacket::from_ethernet(told).unwrap();
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Icmpv4(icmp))) =
        (&sliced.net, &sliced.transport)
    else {
        panic!("{sliced:?}");
    };
    assert_eq!(ip.header().source_addr(), OWN[0]);
    assert_eq!(ip.header().destination_addr(), CLIENT);
    let next_hop_mtu = 1380;
    let needed = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu };
    assert_eq!(icmp.icmp_type(), Icmpv4Type::DestinationUnreachable(needed));
    assert_eq!(icmp.payload()[12..], sent[26..14 + icmp.payload().len()]);
    assert_eq!(lab.stats.real(0).packets.get(), 1, "only the client's");

    // Nobody's flow, nobody's real server, nonsense: nothing is sent on.
    let mut other = outer.clone();
    other[14 + 20 + 20..][..2].copy_from_slice(&[1, 2]);
    let mut elsewhere = outer.clone();
    elsewhere[14 + 19] ^= 1;
    for (quote, mtu, reason) in [
        (&other, 1400, DropReason::IcmpUnknownFlow),
        (&elsewhere, 1400, DropReason::IcmpTunnel),
        (&outer, 80, DropReason::IcmpTunnel),
        (&outer, 0, DropReason::IcmpTunnel),
    ] {
        assert_eq!(lab.send(&too_big(quote, mtu)), []);
        assert!(lab.stats.drops(reason).get() > 0, "{}", reason.name());
    }
    let mut broken = too_big(&outer, 1400);
    broken[36] ^= 1;
    assert_eq!(lab.send(&broken), []);
    assert_eq!(lab.stats.drops(DropReason::IcmpTunnel).get(), 4);
}
