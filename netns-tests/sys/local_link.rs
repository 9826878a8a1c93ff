//! Packets into the host's own stack.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr, UdpSocket},
    thread,
};

use etherparse::PacketBuilder;
use xvs::sys::{
    link_socket::LinkSocket,
    local_link::{self, LocalLink},
    netlink::{AddressOptions, Netlink, Scope},
};

use crate::common::{Namespace, PATIENCE, Pair, prefix};

/// Of the pair: larger than the wire's, as any packet must fit.
const MTU: u32 = 4000;
const SERVICE: u16 = 5300;
const CLIENT: u16 = 4000;
/// The wire's ends are `va` and `vb`; a VIP is on `va`.
const VIPS: [&str; 2] = ["10.9.0.148", "2001:db8:9::148"];
const CLIENTS: [&str; 2] = ["10.9.0.2", "2001:db8:9::2"];

fn box_with_vips() -> Pair {
    let pair = Pair::new();
    for (namespace, link, addr) in [
        (&pair.a, "va", "2001:db8:9::1/64"),
        (&pair.b, "vb", "2001:db8:9::2/64"),
    ] {
        namespace.ip(&format!("address add {addr} dev {link} nodad"));
    }
    let mut netlink = pair.a.netlink();
    let va = pair.a.link("va").index;
    for vip in ["10.9.0.148/32", "2001:db8:9::148/128"] {
        let options = AddressOptions::default();
        netlink.add_address(va, prefix(vip), &options).unwrap();
    }
    pair
}

fn setting(namespace: &Namespace, name: &str, value: &str) {
    let path = format!("/proc/sys/net/{name}");
    namespace.enter(|| fs::write(&path, value).unwrap_or_else(|e| panic!("{path}: {e}")));
}

fn create(namespace: &Namespace) -> LocalLink {
    // Settings and locks are the calling thread's namespace's.
    namespace.enter(|| LocalLink::create(&mut Netlink::open().unwrap(), MTU).unwrap())
}

fn socket(namespace: &Namespace, addr: &str, port: u16) -> UdpSocket {
    let addr: IpAddr = addr.parse().unwrap();
    let socket = namespace.enter(|| UdpSocket::bind((addr, port)).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sends a datagram into the host as a worker would.
fn send(namespace: &Namespace, local: &LocalLink, from: &str, to: &str, payload: &[u8]) {
    let port = namespace.link(&local.port().name);
    let builder = PacketBuilder::ethernet2(port.mac.unwrap().0, local.mac().0);
    let builder = match (from.parse().unwrap(), to.parse().unwrap()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => builder.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => builder.ipv6(from.octets(), to.octets(), 64),
        _ => panic!("two families"),
    };
    let mut frame = Vec::new();
    let builder = builder.udp(CLIENT, SERVICE);
    builder.write(&mut frame, payload).unwrap();
    let mut sender = namespace.enter(|| LinkSocket::open(&port).unwrap());
    sender.send(&frame).unwrap();
}

/// Says back the next datagram.
fn answer_one(server: &UdpSocket) -> SocketAddr {
    let mut buffer = [0; 4096];
    let (len, from) = server.recv_from(&mut buffer).unwrap();
    server.send_to(&buffer[..len], from).unwrap();
    from
}

pub(crate) fn what_is_sent_to_it_reaches_the_host_and_is_answered_by_the_hosts_own_routes() {
    let pair = box_with_vips();
    // The way back to a client is not the way that its packets come in: strict is what many hosts are.
    // All that there are: of all interfaces, and of new ones.
    for (all, default) in [("1", "1"), ("1", "0"), ("0", "1"), ("2", "0"), ("0", "0")] {
        setting(&pair.a, "ipv4/conf/all/rp_filter", all);
        setting(&pair.a, "ipv4/conf/default/rp_filter", default);
        let local = create(&pair.a);
        for (vip, client) in VIPS.iter().zip(CLIENTS) {
            let server = socket(&pair.a, vip, SERVICE);
            let answers = socket(&pair.b, client, CLIENT);
            // As long as no other interface here takes.
            let payload = [7; 2500];
            send(&pair.a, &local, client, vip, &payload);
            let from = answer_one(&server);
            assert_eq!(from, SocketAddr::new(client.parse().unwrap(), CLIENT));
            let mut buffer = [0; 4096];
            let (len, from) = answers.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..len], from.port()), (&payload[..], SERVICE));
            assert_eq!(from.ip(), vip.parse::<IpAddr>().unwrap());
        }
        local.remove(&mut pair.a.netlink()).unwrap();
    }
}

pub(crate) fn what_is_not_for_this_host_goes_no_further() {
    let pair = box_with_vips();
    // A host that routes, as the box before NAT real servers is.
    setting(&pair.a, "ipv4/ip_forward", "1");
    let local = create(&pair.a);
    let server = socket(&pair.a, VIPS[0], SERVICE);
    let answers = socket(&pair.b, CLIENTS[0], CLIENT);
    let stranger = socket(&pair.b, CLIENTS[0], SERVICE);
    // It would come back to where it came from, and go round.
    send(&pair.a, &local, "10.9.0.77", CLIENTS[0], b"round");
    send(&pair.a, &local, CLIENTS[0], VIPS[0], b"here");
    answer_one(&server);
    let mut buffer = [0; 16];
    assert_eq!(answers.recv(&mut buffer).unwrap(), 4);
    stranger.set_nonblocking(true).unwrap();
    let error = stranger.recv(&mut buffer).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
}

pub(crate) fn neither_end_has_an_address_or_says_anything() {
    let namespace = Namespace::new();
    setting(&namespace, "ipv6/conf/default/accept_ra", "2");
    let local = create(&namespace);
    let mut netlink = namespace.netlink();
    let ends = ["xvs0", "xvs0-host"].map(|name| namespace.link(name));
    assert_eq!(
        (ends[0].index, &ends[0].name),
        (local.port().ifindex, &local.port().name)
    );
    assert_eq!(ends[1].mac, Some(local.mac()));
    // Longer than an IPv6 router solicitation, or a report of multicast groups, would be put off.
    thread::sleep(std::time::Duration::from_secs(2));
    for end in ends {
        assert!(end.is_usable(), "{end:?}");
        assert_eq!(end.mtu, MTU);
        let mut addresses = netlink.addresses(end.index).unwrap();
        addresses.retain(|address| address.scope != Scope::Host);
        assert_eq!(addresses, []);
        let sent = namespace.enter(|| fs::read_to_string("/proc/thread-self/net/dev").unwrap());
        let line = sent
            .lines()
            .find(|line| line.trim().starts_with(&format!("{}:", end.name)));
        let packets = line.unwrap().split_whitespace().nth(10).unwrap().to_owned();
        assert_eq!(packets, "0", "sent by {}", end.name);
    }
    local.set_mtu(&mut netlink, 9000).unwrap();
    assert_eq!(namespace.link("xvs0-host").mtu, 9000);
}

pub(crate) fn a_pair_is_removed_when_nobody_owns_it() {
    let namespace = Namespace::new();
    let mut netlink = namespace.netlink();
    let mut there = {
        let mut netlink = namespace.netlink();
        move |name: &str| netlink.link_by_name(name).unwrap().is_some()
    };
    let cleanup = |netlink: &mut Netlink| namespace.enter(|| local_link::cleanup(netlink).unwrap());
    // Somebody else's name, and no alias of ours.
    namespace.ip("link add xvs0 type veth peer name other");
    let (first, second) = (create(&namespace), create(&namespace));
    assert_eq!(first.port().name, "xvs1");
    assert_eq!(second.port().name, "xvs2");
    assert!(cleanup(&mut netlink).is_empty(), "both have an owner");
    // As when the process dies.
    drop(first);
    assert_eq!(
        cleanup(&mut netlink),
        ["xvs1: removed the pair of interfaces of a previous run"]
    );
    assert!(!there("xvs1") && !there("xvs1-host") && there("xvs2-host") && there("xvs0"));
    second.remove(&mut netlink).unwrap();
    assert!(!there("xvs2") && !there("xvs2-host"));
    assert!(cleanup(&mut netlink).is_empty());
}
