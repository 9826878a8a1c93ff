//! The steering program's decisions, packet by packet, by the kernel's own test run.

use std::net::IpAddr;

use etherparse::{Ethernet2Header, Icmpv4Type, PacketBuilder, PacketBuilderStep, icmpv4};
use xvs::{
    addr::{Endpoint, L4Proto, MacAddr},
    sys::{
        device::InterfaceSpec,
        steer::{Decision, Hook, Service, Steering},
    },
};

use crate::bed::vlan;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 1];
const CLIENT: [u8; 4] = [192, 0, 2, 7];
const VIP: [u8; 4] = [198, 51, 100, 1];
/// Another address of the balancer, which has a service on every port.
const ANY_PORT: [u8; 4] = [198, 51, 100, 2];
/// Loopback: the kernel's test run comes in there.
const IFINDEX: u32 = 1;

fn service(addr: [u8; 4], port: u16, proto: L4Proto) -> Service {
    Service {
        endpoint: Endpoint::new(IpAddr::from(addr), port),
        proto,
    }
}

fn loaded(hook: Hook) -> Steering {
    let lo = InterfaceSpec {
        name: "lo".to_owned(),
        ifindex: IFINDEX,
    };
    let services = [
        service(VIP, 80, L4Proto::Tcp),
        service(VIP, 53, L4Proto::Udp),
        service(VIP, 132, L4Proto::Sctp),
        service(ANY_PORT, 0, L4Proto::Tcp),
    ];
    let mut steering = Steering::load(hook, &[lo], &services).unwrap();
    steering.add_station(IFINDEX, MacAddr(MAC)).unwrap();
    steering
}

fn to_us() -> PacketBuilderStep<Ethernet2Header> {
    PacketBuilder::ethernet2(PEER, MAC)
}

fn tcp(target: [u8; 4], port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    to_us()
        .ipv4(CLIENT, target, 64)
        .tcp(40_000, port, 1, 1000)
        .write(&mut frame, b"payload")
        .unwrap();
    frame
}

fn udp(target: [u8; 4], port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    to_us()
        .ipv4(CLIENT, target, 64)
        .udp(40_000, port)
        .write(&mut frame, b"payload")
        .unwrap();
    frame
}

/// An IPv4 frame with any protocol, fragment word and payload.
fn raw_ip(target: [u8; 4], proto: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = udp(target, 1);
    frame.truncate(34);
    frame[16..18].copy_from_slice(&u16::try_from(20 + payload.len()).unwrap().to_be_bytes());
    frame[20..22].copy_from_slice(&fragment.to_be_bytes());
    frame[23] = proto;
    frame.extend(payload);
    frame
}

/// `frame` with so many words of IP options (no-operations).
fn with_options(frame: &[u8], words: u8) -> Vec<u8> {
    let mut longer = frame[..34].to_vec();
    longer[14] += words;
    longer.extend(vec![1; usize::from(words) * 4]);
    longer.extend(&frame[34..]);
    longer
}

/// The IP packet that a real server sent to the client in the VIP's name.
fn from_vip(source: [u8; 4], port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(MAC, PEER)
        .ipv4(source, CLIENT, 60)
        .tcp(port, 40_000, 1, 1000)
        .write(&mut frame, b"")
        .unwrap();
    frame.split_off(14)
}

fn icmp(kind: u8, target: [u8; 4], quoted: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    to_us()
        .ipv4([203, 0, 113, 9], target, 64)
        .icmpv4(Icmpv4Type::Unknown {
            type_u8: kind,
            code_u8: 1,
            bytes5to8: [0; 4],
        })
        .write(&mut frame, quoted)
        .unwrap();
    frame
}

fn table() -> Vec<(&'static str, Vec<u8>, Decision)> {
    use Decision::{Pass, Steer};
    let quoted = from_vip(VIP, 80);
    let mut quoted_options = quoted[..20].to_vec();
    quoted_options[0] += 2;
    quoted_options.extend([1; 8]);
    quoted_options.extend(&quoted[20..28]);
    let mut quoted_fragment = quoted.clone();
    quoted_fragment[7] = 1;
    let mut other_mac = tcp(VIP, 80);
    other_mac[5] = 9;
    let mut ipv6 = Vec::new();
    to_us()
        .ipv6([1; 16], [2; 16], 64)
        .tcp(40_000, 80, 1, 1000)
        .write(&mut ipv6, b"")
        .unwrap();
    let mut echo = Vec::new();
    to_us()
        .ipv4(CLIENT, VIP, 64)
        .icmpv4(Icmpv4Type::EchoRequest(etherparse::IcmpEchoHeader {
            id: 1,
            seq: 1,
        }))
        .write(&mut echo, b"ping")
        .unwrap();
    let mut version = tcp(VIP, 80);
    version[14] = 0x55;
    let mut short_header = tcp(VIP, 80);
    short_header[14] = 0x44;
    let ports = [0x9c, 0x40, 0, 80, 0, 0, 0, 0];
    let sctp = raw_ip(VIP, 132, 0, &[0x9c, 0x40, 0, 132, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut table = vec![
        ("TCP to a service", tcp(VIP, 80), Steer),
        ("TCP to another port", tcp(VIP, 81), Pass),
        ("UDP to the TCP port", udp(VIP, 80), Pass),
        ("UDP to a service", udp(VIP, 53), Steer),
        ("SCTP to a service", sctp, Steer),
        ("TCP to another host", tcp(CLIENT, 80), Pass),
        ("TCP to a service on every port", tcp(ANY_PORT, 4711), Steer),
        (
            "UDP to the TCP service on every port",
            udp(ANY_PORT, 4711),
            Pass,
        ),
        ("ping to the VIP", echo, Pass),
        ("VRRP", raw_ip([224, 0, 0, 18], 112, 0, &[0; 20]), Pass),
        ("a flooded frame to another station", other_mac, Pass),
        ("IPv6", ipv6, Pass),
        ("one tag", vlan(&tcp(VIP, 80), 0x8100, 5), Steer),
        ("one tag, no service", vlan(&tcp(VIP, 81), 0x8100, 5), Pass),
        (
            "two tags",
            vlan(&vlan(&tcp(VIP, 80), 0x8100, 5), 0x88a8, 9),
            Steer,
        ),
        ("options", with_options(&tcp(VIP, 80), 1), Steer),
        (
            "as many options as there can be",
            with_options(&tcp(VIP, 80), 10),
            Steer,
        ),
        ("options, no service", with_options(&tcp(VIP, 81), 10), Pass),
        ("first fragment", raw_ip(VIP, 6, 0x2000, &ports), Steer),
        ("later fragment", raw_ip(VIP, 6, 0x2005, &[7; 64]), Steer),
        ("last fragment", raw_ip(VIP, 17, 0x0005, &[7; 64]), Steer),
        (
            "fragment to another host",
            raw_ip(CLIENT, 6, 0x2005, &[7; 64]),
            Pass,
        ),
        (
            "fragment of an unbalanced protocol",
            raw_ip(VIP, 47, 0x2005, &[7; 64]),
            Pass,
        ),
        (
            "fragment, UDP where only TCP is",
            raw_ip(ANY_PORT, 17, 0x2000, &ports),
            Pass,
        ),
        (
            "don't fragment is no fragment",
            raw_ip(VIP, 6, 0x4000, &ports),
            Steer,
        ),
        (
            "fragment of an ICMP error",
            raw_ip(VIP, 1, 0x2000, &[3; 64]),
            Pass,
        ),
        ("too short for ports", raw_ip(VIP, 6, 0, &[0, 80, 0]), Pass),
        (
            "an ICMP error cut in the quoted header",
            icmp(3, VIP, &quoted[..19]),
            Pass,
        ),
        (
            "an ICMP error cut in the quoted ports",
            icmp(3, VIP, &quoted[..23]),
            Pass,
        ),
        (
            "an ICMP error with just the ports",
            icmp(3, VIP, &quoted[..24]),
            Steer,
        ),
        (
            "an ICMP error that quotes options",
            icmp(3, VIP, &quoted_options),
            Steer,
        ),
        (
            "an ICMP error that quotes a later fragment",
            icmp(3, VIP, &quoted_fragment),
            Pass,
        ),
        (
            "an ICMP error about another port",
            icmp(3, VIP, &from_vip(VIP, 81)),
            Pass,
        ),
        (
            "an ICMP error about somebody else's packet",
            icmp(3, VIP, &from_vip(CLIENT, 80)),
            Pass,
        ),
        (
            "an ICMP error about a packet *to* the service",
            icmp(3, VIP, &tcp(VIP, 80)[14..]),
            Pass,
        ),
        (
            "an ICMP error in a tag, after options",
            vlan(&with_options(&icmp(11, VIP, &quoted), 10), 0x8100, 5),
            Steer,
        ),
        (
            "an ICMP error to another host",
            icmp(3, CLIENT, &quoted),
            Pass,
        ),
        ("not IPv4 by its version", version, Pass),
        ("an IP header shorter than there is", short_header, Pass),
    ];
    for kind in 0..=255_u8 {
        let error = matches!(
            kind,
            icmpv4::TYPE_DEST_UNREACH
                | icmpv4::TYPE_SOURCE_QUENCH
                | icmpv4::TYPE_TIME_EXCEEDED
                | icmpv4::TYPE_PARAMETER_PROBLEM
        );
        table.push((
            "an ICMP message that quotes the service",
            icmp(kind, VIP, &quoted),
            if error { Steer } else { Pass },
        ));
    }
    table
}

#[test]
fn each_packet_goes_where_it_belongs() {
    for hook in [Hook::Xdp, Hook::Ingress] {
        let steering = loaded(hook);
        for (what, packet, expected) in table() {
            let decision = steering.judge(&packet).unwrap();
            assert_eq!(decision, expected, "{hook:?}: {what}: {packet:02x?}");
        }
    }
}

#[test]
fn no_cut_or_garbled_packet_is_steered_by_mistake() {
    let steering = loaded(Hook::Xdp);
    for (what, packet, _) in table().into_iter().take(40) {
        for len in 14..packet.len() {
            // Whatever it decides, it decides; the ports are the last it needs.
            let decision = steering.judge(&packet[..len]).unwrap();
            if len < 34 {
                assert_eq!(decision, Decision::Pass, "{what}, {len} bytes");
            }
        }
    }
    let mut random = fastrand::Rng::with_seed(0x78_76_73);
    for _ in 0..2000 {
        let mut packet: Vec<u8> = (0..random.usize(14..200)).map(|_| random.u8(..)).collect();
        packet[..6].copy_from_slice(&MAC);
        packet[12..14].copy_from_slice(&[8, 0]);
        assert_eq!(steering.judge(&packet).unwrap(), Decision::Pass);
    }
}

#[test]
fn removing_a_service_leaves_the_others_of_its_address() {
    let mut steering = loaded(Hook::Xdp);
    steering
        .add_service(service(VIP, 443, L4Proto::Tcp))
        .unwrap();
    let fragment = raw_ip(VIP, 6, 0x2005, &[7; 64]);
    let judge = |steering: &Steering, packet: &[u8]| steering.judge(packet).unwrap();
    // Twice is once.
    steering
        .add_service(service(VIP, 80, L4Proto::Tcp))
        .unwrap();
    steering
        .remove_service(service(VIP, 80, L4Proto::Tcp))
        .unwrap();
    assert_eq!(judge(&steering, &tcp(VIP, 80)), Decision::Pass);
    assert_eq!(judge(&steering, &tcp(VIP, 443)), Decision::Steer);
    assert_eq!(judge(&steering, &fragment), Decision::Steer);
    steering
        .remove_service(service(VIP, 443, L4Proto::Tcp))
        .unwrap();
    assert_eq!(judge(&steering, &fragment), Decision::Pass);
    assert_eq!(judge(&steering, &udp(VIP, 53)), Decision::Steer);
    steering.remove_station(IFINDEX, MacAddr(MAC)).unwrap();
    assert_eq!(judge(&steering, &udp(VIP, 53)), Decision::Pass);
}
