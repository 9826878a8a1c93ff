//! The steering program's decisions, packet by packet, by the kernel's own test run.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    Ethernet2Header, Icmpv4Type, Icmpv6Type, IpNumber, Ipv6Header, Ipv6RawExtHeader, PacketBuilder,
    PacketBuilderStep, icmpv4,
};
use xvs::{
    addr::{Endpoint, IpPrefix, L4Proto, MacAddr},
    sys::steer::{Decision, Hook, MatchRule, PortRange, Steered, Steering, Target},
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

fn service(addr: [u8; 4], port: u16, proto: L4Proto) -> Target {
    Target {
        endpoint: Endpoint::new(IpAddr::from(addr), port),
        proto,
    }
}

fn loaded(hook: Hook) -> Steering {
    let services = [
        service(VIP, 80, L4Proto::Tcp),
        service(VIP, 53, L4Proto::Udp),
        service(VIP, 132, L4Proto::Sctp),
        service(ANY_PORT, 0, L4Proto::Tcp),
    ];
    let mut steering = Steering::load(hook, &services.map(Steered::Service)).unwrap();
    steering
        .set_stations(IFINDEX, &[MacAddr(MAC)])
        .complete()
        .unwrap();
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
        .change(&[Steered::Service(service(VIP, 443, L4Proto::Tcp))], &[])
        .complete()
        .unwrap();
    let fragment = raw_ip(VIP, 6, 0x2005, &[7; 64]);
    let judge = |steering: &Steering, packet: &[u8]| steering.judge(packet).unwrap();
    // Twice is once.
    steering
        .change(&[Steered::Service(service(VIP, 80, L4Proto::Tcp))], &[])
        .complete()
        .unwrap();
    steering
        .change(&[], &[Steered::Service(service(VIP, 80, L4Proto::Tcp))])
        .complete()
        .unwrap();
    assert_eq!(judge(&steering, &tcp(VIP, 80)), Decision::Pass);
    assert_eq!(judge(&steering, &tcp(VIP, 443)), Decision::Steer);
    assert_eq!(judge(&steering, &fragment), Decision::Steer);
    steering
        .change(&[], &[Steered::Service(service(VIP, 443, L4Proto::Tcp))])
        .complete()
        .unwrap();
    assert_eq!(judge(&steering, &fragment), Decision::Pass);
    assert_eq!(judge(&steering, &udp(VIP, 53)), Decision::Steer);
    steering.set_stations(IFINDEX, &[]).complete().unwrap();
    assert_eq!(judge(&steering, &udp(VIP, 53)), Decision::Pass);
}

/// An IPv6 frame with any next header and payload.
fn raw_ip6(source: Ipv6Addr, target: Ipv6Addr, next: IpNumber, payload: &[u8]) -> Vec<u8> {
    let ip = Ipv6Header {
        next_header: next,
        payload_length: u16::try_from(payload.len()).unwrap(),
        source: source.octets(),
        destination: target.octets(),
        hop_limit: 255,
        ..Ipv6Header::default()
    };
    [&MAC[..], &PEER, &[0x86, 0xdd], &ip.to_bytes(), payload].concat()
}

/// A source port and destination port 80, and room for the rest of a header.
const PORT_80: [u8; 20] = [
    0x9c, 0x40, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

#[test]
fn what_ipv6_needs_for_itself_is_the_hosts() {
    let client: Ipv6Addr = "2001:db8::7".parse().unwrap();
    let vip: Ipv6Addr = "2001:db8::1".parse().unwrap();
    for hook in [Hook::Xdp, Hook::Ingress] {
        let mut steering = loaded(hook);
        for port in [0, 80] {
            let service = Target {
                endpoint: Endpoint::new(vip.into(), port),
                proto: L4Proto::Tcp,
            };
            steering
                .change(&[Steered::Service(service)], &[])
                .complete()
                .unwrap();
        }
        let judge = |packet: &[u8]| steering.judge(packet).unwrap();
        let to_vip = |next, payload: &[u8]| raw_ip6(client, vip, next, payload);
        assert_eq!(judge(&to_vip(IpNumber::TCP, &PORT_80)), Decision::Steer);
        // Echo, queries and reports of multicast listeners, discovery of routers and neighbours.
        for kind in [128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 143] {
            let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &vip.octets(), &[1; 32]].concat();
            let packet = to_vip(IpNumber::IPV6_ICMP, &message);
            assert_eq!(judge(&packet), Decision::Pass, "ICMPv6 type {kind}");
        }
        // What is encrypted, and what ends, has no ports.
        for next in [
            IpNumber::ENCAPSULATING_SECURITY_PAYLOAD,
            IpNumber::IPV6_NO_NEXT_HEADER,
        ] {
            assert_eq!(judge(&to_vip(next, &PORT_80)), Decision::Pass, "{next:?}");
        }
        // An IPv4 virtual server is not to be had by an IPv6 packet to its mapped address.
        let mapped = Ipv4Addr::from(VIP).to_ipv6_mapped();
        let packet = raw_ip6(client, mapped, IpNumber::TCP, &PORT_80);
        assert_eq!(judge(&packet), Decision::Pass);
        assert_eq!(judge(&tcp(VIP, 80)), Decision::Steer);
    }
}

#[test]
fn headers_are_followed_up_to_a_bound_that_all_hooks_share() {
    let client: Ipv6Addr = "2001:db8::7".parse().unwrap();
    let vip: Ipv6Addr = "2001:db8::1".parse().unwrap();
    // The last header may begin at byte 511 of the frame: 54 + 456 = 510.
    for (len, expected) in [(456, Decision::Steer), (464, Decision::Pass)] {
        let body = vec![0; len - 2];
        let options = Ipv6RawExtHeader::new_raw(IpNumber::TCP, &body).unwrap();
        let payload = [&options.to_bytes()[..], &PORT_80].concat();
        let packet = raw_ip6(client, vip, IpNumber::IPV6_DESTINATION_OPTIONS, &payload);
        for hook in [Hook::Xdp, Hook::Ingress] {
            let mut steering = loaded(hook);
            let service = Target {
                endpoint: Endpoint::new(vip.into(), 80),
                proto: L4Proto::Tcp,
            };
            steering
                .change(&[Steered::Service(service)], &[])
                .complete()
                .unwrap();
            assert_eq!(
                steering.judge(&packet).unwrap(),
                expected,
                "{hook:?}: {len}"
            );
        }
    }
}

#[test]
fn a_packet_too_big_about_a_virtual_servers_packet_is_the_balancers() {
    let mut steering = loaded(Hook::Xdp);
    let service = Target {
        endpoint: Endpoint::new(Ipv6Addr::from([2; 16]).into(), 80),
        proto: L4Proto::Tcp,
    };
    let mut quoted = Vec::new();
    PacketBuilder::ethernet2(MAC, PEER)
        .ipv6([2; 16], [1; 16], 60)
        .tcp(80, 40_000, 1, 1000)
        .write(&mut quoted, b"")
        .unwrap();
    let mut error = Vec::new();
    to_us()
        .ipv6([9; 16], [2; 16], 64)
        .icmpv6(Icmpv6Type::PacketTooBig { mtu: 1280 })
        .write(&mut error, &quoted[14..])
        .unwrap();
    assert_eq!(steering.judge(&error).unwrap(), Decision::Pass);
    steering
        .change(&[Steered::Service(service)], &[])
        .complete()
        .unwrap();
    assert_eq!(steering.judge(&error).unwrap(), Decision::Steer);
}

/// TCP to a range of ports that is too wide for entries, from one client.
fn rule(client: u8, dst_ports: PortRange) -> Steered {
    Steered::Rule(MatchRule {
        proto: L4Proto::Tcp,
        dst: "203.0.113.0/24".parse().unwrap(),
        dst_ports,
        src: Some(format!("192.0.2.{client}").parse().unwrap()),
        src_ports: PortRange::ANY,
    })
}

#[test]
fn sixty_four_rules_are_walked_and_one_more_is_refused() {
    let ports = PortRange::new(1000, 2000).unwrap();
    let mut steering = loaded(Hook::Xdp);
    let packet = tcp([203, 0, 113, 9], 1500);
    // All but that of the client 192.0.2.7, in the last place.
    for client in (100..163).chain([CLIENT[3]]) {
        assert_eq!(steering.judge(&packet).unwrap(), Decision::Pass);
        steering
            .change(&[rule(client, ports)], &[])
            .complete()
            .unwrap();
    }
    assert_eq!(steering.judge(&packet).unwrap(), Decision::Steer);
    assert_eq!(
        steering.judge(&tcp([203, 0, 113, 9], 2001)).unwrap(),
        Decision::Pass
    );
    let refused = steering.change(&[rule(200, ports)], &[]);
    assert_eq!(refused.pending, 1);
    let refused = refused.complete().unwrap_err().to_string();
    assert!(refused.contains("there are 64 rules"), "{refused}");
    assert_eq!(steering.missing().collect::<Vec<_>>(), [&rule(200, ports)]);
    // What is known is no more.
    assert_eq!(steering.change(&[rule(100, ports)], &[]).pending, 1);
    // There is a place now, and it is not forgotten who waits for one.
    let done = steering.change(&[], &[rule(CLIENT[3], ports)]);
    assert_eq!((done.pending, done.refused.len()), (0, 0));
    assert_eq!(steering.missing().count(), 0);
    assert_eq!(steering.judge(&packet).unwrap(), Decision::Pass);
}

#[test]
fn a_station_that_finds_no_place_comes_when_there_is_one() {
    let mut steering = loaded(Hook::Xdp);
    let packet = udp(VIP, 53);
    let others: Vec<_> = (0..1024_u32)
        .map(|n| {
            let [_, _, high, low] = n.to_be_bytes();
            MacAddr([6, 0, 0, 0, high, low])
        })
        .collect();
    let macs = |station: &[MacAddr]| [&others[..1023], station, &others[1023..]].concat();
    let ours = macs(&[MacAddr(MAC)]);
    let done = steering.set_stations(IFINDEX, &ours);
    assert_eq!((done.pending, done.refused.len()), (1, 1));
    let refusal = done.complete().unwrap_err();
    assert!(refusal.to_string().contains("table is full"), "{refusal}");
    assert_eq!(steering.judge(&packet).unwrap(), Decision::Steer);
    // The last of the others had to wait; ours goes, and has to wait when it comes back.
    assert_eq!(steering.set_stations(IFINDEX, &macs(&[])).pending, 0);
    assert_eq!(steering.judge(&packet).unwrap(), Decision::Pass);
    assert_eq!(steering.set_stations(IFINDEX, &ours).pending, 1);
    assert_eq!(steering.reconcile().pending, 1);
    assert_eq!(steering.judge(&packet).unwrap(), Decision::Pass);
    let done = steering.set_stations(IFINDEX, &ours[1..]);
    assert_eq!((done.pending, done.refused.len()), (0, 0));
    assert_eq!(steering.judge(&packet).unwrap(), Decision::Steer);
}

/// How often the time of the plainest decision the dearest may take: 64 rules looked at in vain are
/// some 16 times. A loop that grew would show.
const DEAREST: u32 = 60;

#[test]
fn what_is_not_configured_costs_next_to_nothing() {
    for hook in [Hook::Xdp, Hook::Ingress] {
        let mut steering = loaded(hook);
        let cost = |steering: &Steering, packet: &[u8]| {
            (0..5)
                .map(|_| steering.cost(packet, 20_000).unwrap())
                .min()
                .unwrap()
        };
        let hit = cost(&steering, &tcp(VIP, 80));
        let other = tcp([203, 0, 113, 9], 1);
        let miss = cost(&steering, &other);
        for client in 0..64 {
            steering
                .change(&[rule(client, PortRange::new(1000, 2000).unwrap())], &[])
                .complete()
                .unwrap();
        }
        let walk = cost(&steering, &other);
        println!("{hook:?}: hit {hit:?}, miss {miss:?}, miss after 64 rules {walk:?}");
        assert!(!hit.is_zero() && !miss.is_zero(), "nothing was measured");
        assert!(walk > miss && walk < miss * DEAREST, "{miss:?}, {walk:?}");
    }
}

#[test]
fn all_of_ipv6_holds_nothing_of_ipv4() {
    let mut steering = loaded(Hook::Xdp);
    let packet = tcp([203, 0, 113, 9], 1500);
    for dst in ["::/0", "0.0.0.0/0"] {
        let dst: IpPrefix = dst.parse().unwrap();
        let proto = L4Proto::Tcp;
        let walked = Steered::Rule(MatchRule {
            proto,
            dst,
            dst_ports: PortRange::new(1000, 2000).unwrap(),
            src: None,
            src_ports: PortRange::ANY,
        });
        for wanted in [
            Steered::Prefix {
                dst,
                port: 0,
                proto,
            },
            walked,
        ] {
            steering.change(&[wanted], &[]).complete().unwrap();
            let expected = if dst.addr().is_ipv4() {
                Decision::Steer
            } else {
                Decision::Pass
            };
            assert_eq!(steering.judge(&packet).unwrap(), expected, "{wanted:?}");
            steering.change(&[], &[wanted]).complete().unwrap();
            assert_eq!(
                steering.judge(&packet).unwrap(),
                Decision::Pass,
                "{wanted:?}"
            );
        }
    }
}
