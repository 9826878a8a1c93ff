//! VRRP and Ethernet sockets, and the lock of a virtual router.

use std::{net::Ipv4Addr, os::fd::AsRawFd, time::Duration};

use xvs::{
    addr::MacAddr,
    sys::{
        clock,
        instance_lock::{LockError, VridFamily, VridLock},
        link_socket::LinkSocket,
        monitor::Event,
        netlink::NeighbourState,
        vrrp_socket::VrrpSocket,
    },
};

use crate::common::{Namespace, PATIENCE, Pair, expect_event, mac, readable, wait_until};

const A: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

/// Long enough for a packet that is on its way to arrive.
const MOMENT: Duration = Duration::from_millis(50);

/// A VRRPv2 advert in its IPv4 packet; length, identification and checksum are the kernel's.
fn advert(source: Ipv4Addr, destination: Ipv4Addr, vrid: u8) -> Vec<u8> {
    let mut packet = vec![0x45, 0xc0, 0, 0, 0, 0, 0, 0, 255, 112, 0, 0];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend([0x21, vrid, 100, 1, 0, 1, 0, 0]);
    packet.extend([10, 9, 0, 148]);
    packet.extend([0; 8]);
    packet
}

fn open(namespace: &Namespace, link: &str, group: Option<Ipv4Addr>) -> VrrpSocket {
    let link = namespace.link(link);
    namespace.enter(|| VrrpSocket::open(&link, group).unwrap())
}

/// The next packet, or `None` when there is none in time.
fn receive(socket: &VrrpSocket, patience: Duration) -> Option<Vec<u8>> {
    let mut buffer = [0; 1500];
    if !readable(socket.as_raw_fd(), clock::now() + patience) {
        return None;
    }
    socket.recv(&mut buffer).unwrap().map(<[u8]>::to_vec)
}

/// What arrived must be what was sent, with the header completed.
fn assert_same(received: &[u8], sent: &[u8]) {
    let header = etherparse::Ipv4HeaderSlice::from_slice(received).unwrap();
    assert_eq!(usize::from(header.total_len()), sent.len());
    assert_eq!(
        header.header_checksum(),
        header.to_header().calc_header_checksum()
    );
    assert_eq!((header.ttl(), received[1]), (255, 0xc0));
    assert_eq!(&received[12..], &sent[12..]);
}

pub(crate) fn adverts_reach_the_group_and_not_the_sender() {
    let pair = Pair::new();
    let a = open(&pair.a, "va", Some(VrrpSocket::GROUP));
    let b = open(&pair.b, "vb", Some(VrrpSocket::GROUP));
    let other_group = open(&pair.b, "vb", Some(Ipv4Addr::new(224, 0, 0, 50)));
    let unicast_only = open(&pair.b, "vb", None);
    assert_eq!(b.recv(&mut [0; 64]).unwrap(), None);
    let sent = advert(A, VrrpSocket::GROUP, 51);
    a.send_to(VrrpSocket::GROUP, &sent).unwrap();
    let received = receive(&b, PATIENCE).expect("the advert arrives");
    assert_same(&received, &sent);
    // It has arrived, so nobody else is still waiting for it.
    for (who, socket) in [
        ("its sender", &a),
        ("another group", &other_group),
        ("no group", &unicast_only),
    ] {
        assert_eq!(receive(socket, MOMENT), None, "{who} heard it");
    }
}

pub(crate) fn adverts_reach_a_unicast_peer() {
    let pair = Pair::new();
    let a = open(&pair.a, "va", None);
    let b = open(&pair.b, "vb", None);
    // The first has to wait for the neighbour, in the kernel.
    for vrid in 1..=3 {
        let sent = advert(A, B, vrid);
        a.send_to(B, &sent).unwrap();
        assert_same(&receive(&b, PATIENCE).expect("the advert arrives"), &sent);
    }
    let back = advert(B, A, 9);
    b.send_to(A, &back).unwrap();
    assert_same(&receive(&a, PATIENCE).expect("the answer arrives"), &back);
}

pub(crate) fn a_vrrp_socket_survives_its_interface_going_down() {
    let pair = Pair::new();
    let a = open(&pair.a, "va", Some(VrrpSocket::GROUP));
    let b = open(&pair.b, "vb", Some(VrrpSocket::GROUP));
    let sent = advert(A, VrrpSocket::GROUP, 51);
    pair.a.ip("link set va down");
    assert!(a.send_to(VrrpSocket::GROUP, &sent).is_err());
    assert_eq!(a.recv(&mut [0; 64]).unwrap(), None);
    pair.a.ip("link set va up");
    wait_until("the wire has carrier", || pair.a.link("va").is_usable());
    a.send_to(VrrpSocket::GROUP, &sent).unwrap();
    assert_same(&receive(&b, PATIENCE).expect("the advert arrives"), &sent);
    // And the membership outlived it as well.
    pair.b.ip("link set vb down");
    pair.b.ip("link set vb up");
    wait_until("the wire has carrier", || pair.b.link("vb").is_usable());
    a.send_to(VrrpSocket::GROUP, &sent).unwrap();
    assert_same(&receive(&b, PATIENCE).expect("the advert arrives"), &sent);
}

/// An ARP request of `ip` for itself, as keepalived sends it.
fn gratuitous_arp(sender: MacAddr, ip: Ipv4Addr) -> Vec<u8> {
    let mut frame = [0xff; 6].to_vec();
    frame.extend(sender.0);
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(sender.0);
    frame.extend(ip.octets());
    frame.extend([0xff; 6]);
    frame.extend(ip.octets());
    frame
}

pub(crate) fn a_gratuitous_arp_moves_the_vip() {
    let pair = Pair::new();
    let vip = Ipv4Addr::new(10, 9, 0, 148);
    let mut monitor = pair.a.monitor();
    let mut netlink = pair.a.netlink();
    let va = pair.a.link("va").index;
    pair.a.ip(&format!(
        "neigh replace {vip} dev va lladdr {} nud reachable",
        mac(0x11)
    ));
    let vb = pair.b.link("vb");
    let mut socket = pair.b.enter(|| LinkSocket::open(&vb).unwrap());
    socket.send(&gratuitous_arp(mac(0x22), vip)).unwrap();
    expect_event(
        &mut monitor,
        "the VIP at its new place",
        |event| match event {
            Event::Neighbour(neighbour) if neighbour.mac == Some(mac(0x22)) => {
                assert_eq!(neighbour.ip, vip);
                Some(())
            }
            _ => None,
        },
    );
    let known = netlink.neighbour(va, vip.into()).unwrap().unwrap();
    assert_eq!(known.mac, Some(mac(0x22)));
    assert_ne!(known.state, NeighbourState::Failed);

    pair.b.ip("link set vb down");
    let error = socket.send(&gratuitous_arp(mac(0x22), vip)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENETDOWN));
}

pub(crate) fn a_link_socket_receives_nothing() {
    let pair = Pair::new();
    let vb = pair.b.link("vb");
    let _socket = pair.b.enter(|| LinkSocket::open(&vb).unwrap());
    // The kernel lists the packet sockets that are bound to a device with the protocol that they
    // are handed: none at all.
    let listed = pair
        .b
        .enter(|| std::fs::read_to_string("/proc/thread-self/net/packet").unwrap());
    let socket: Vec<&str> = listed.lines().nth(1).unwrap().split_whitespace().collect();
    let [
        _address,
        _references,
        kind,
        protocol,
        device,
        running,
        memory,
        ..,
    ] = socket[..]
    else {
        panic!("{listed}");
    };
    assert_eq!((kind, protocol), ("3", "0000"), "{listed}");
    assert_eq!(device, vb.index.to_string(), "{listed}");
    assert_eq!((running, memory), ("0", "0"), "{listed}");
}

pub(crate) fn a_virtual_router_is_locked_within_its_namespace() {
    let pair = Pair::new();
    let va = pair.a.link("va");
    let take =
        |namespace: &Namespace| namespace.enter(|| VridLock::acquire(&va, VridFamily::V4, 51));
    let _held = take(&pair.a).unwrap();
    match take(&pair.a) {
        Err(LockError::Held {
            holder: Some(holder),
            ..
        }) => assert_eq!(holder.pid, std::process::id()),
        other => panic!("{other:?}"),
    }
    // The same interface number and VRID elsewhere is another virtual router.
    take(&pair.b).unwrap();
}
