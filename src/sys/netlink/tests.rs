//! What needs no privilege: the loopback interface, and messages as bytes.

use super::*;
use crate::addr::MacAddr;

fn loopback(netlink: &mut Netlink) -> Link {
    netlink.link_by_name("lo").unwrap().unwrap()
}

#[test]
fn the_loopback_interface_is_found_by_name_index_and_list() {
    let mut netlink = Netlink::open().unwrap();
    let lo = loopback(&mut netlink);
    assert!(lo.loopback);
    assert_eq!(lo.mac, Some(MacAddr::ZERO));
    assert_eq!(netlink.link(lo.index).unwrap().unwrap(), lo);
    assert!(netlink.links().unwrap().contains(&lo));
}

#[test]
fn what_is_not_there_is_none_and_no_error() {
    let mut netlink = Netlink::open().unwrap();
    for name in ["", "xvs-none", "a-name-longer-than-the-kernel-allows"] {
        assert_eq!(netlink.link_by_name(name).unwrap(), None, "{name:?}");
    }
    let nobody = 0x7fff_fff0;
    assert_eq!(netlink.link(nobody).unwrap(), None);
    assert_eq!(netlink.addresses(nobody).unwrap(), []);
    let ip = "127.0.0.9".parse().unwrap();
    assert_eq!(netlink.neighbour(nobody, ip).unwrap(), None);
}

#[test]
fn an_own_address_is_routed_to_this_host() {
    let mut netlink = Netlink::open().unwrap();
    let lo = loopback(&mut netlink);
    if !lo.up {
        return;
    }
    let own = "127.0.0.1".parse().unwrap();
    let route = netlink.route_to(own).unwrap().unwrap();
    assert_eq!(route.kind, RouteKind::Local);
    assert_eq!(route.ifindex, lo.index);
    assert_eq!(route.gateway, None);
    let found = netlink.addresses(lo.index).unwrap();
    assert!(found.iter().any(|address| address.prefix.addr() == own));
}

#[test]
fn the_hosts_own_address_is_chosen_before_vips_and_narrow_scopes() {
    let address = |text: &str, scope, secondary| Address {
        ifindex: 1,
        prefix: text.parse().unwrap(),
        peer: None,
        scope,
        secondary,
        label: None,
    };
    let [vip, own, second]: [Ipv4Addr; 3] =
        ["10.0.0.148", "10.0.0.5", "10.0.0.6"].map(|text| text.parse().unwrap());
    let list = [
        address("fe80::1/64", Scope::Link, false),
        address("169.254.7.7/16", Scope::Link, false),
        address("10.0.0.148/32", Scope::Global, false),
        address("10.0.0.6/24", Scope::Global, true),
        address("10.0.0.5/24", Scope::Global, false),
    ];
    assert_eq!(decode::primary_v4(&list, &[vip]), Some(own));
    assert_eq!(decode::primary_v4(&list, &[vip, own]), Some(second));
    assert_eq!(decode::primary_v4(&list, &[]), Some(vip));
    assert_eq!(
        decode::primary_v4(&list, &[vip, own, second]),
        Some("169.254.7.7".parse().unwrap())
    );
    assert_eq!(decode::primary_v4(&list[..1], &[]), None);
}

#[test]
fn a_neighbour_that_failed_has_no_usable_address() {
    let mac = Some(MacAddr([2, 0, 0, 0, 0, 1]));
    let neighbour = |state| Neighbour {
        ifindex: 1,
        ip: "10.0.0.9".parse().unwrap(),
        mac,
        state,
    };
    for state in [
        NeighbourState::Failed,
        NeighbourState::Incomplete,
        NeighbourState::None,
    ] {
        assert_eq!(neighbour(state).usable_mac(), None, "{state:?}");
    }
    for state in [NeighbourState::Stale, NeighbourState::Probe] {
        assert_eq!(neighbour(state).usable_mac(), mac, "{state:?}");
    }
}

/// A message header, native byte order, as the kernel writes it.
fn header(length: u32, kind: u16) -> Vec<u8> {
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend([0; 10]);
    bytes
}

#[test]
fn a_datagram_is_split_at_the_aligned_lengths() {
    let mut datagram = header(18, 100);
    datagram.extend([7, 8, 0, 0]);
    datagram.extend(header(16, 101));
    let read: Vec<_> = decode::messages(&datagram)
        .map(|message| message.unwrap())
        .map(|message| (message.kind, message.payload.to_vec()))
        .collect();
    assert_eq!(read, [(100, vec![7, 8]), (101, vec![])]);
}

#[test]
fn a_datagram_that_is_cut_says_so_once_and_ends() {
    let mut datagram = header(16, 100);
    datagram.extend(header(40, 101));
    let read: Vec<_> = decode::messages(&datagram)
        .map(|m| m.map(|m| m.kind))
        .collect();
    assert_eq!(read, [Some(100), None]);
    assert!(decode::messages(&[0; 3]).all(|message| message.is_none()));
    // A length shorter than the header itself must not loop for ever.
    assert_eq!(decode::messages(&header(0, 100)).count(), 1);
}

#[test]
fn a_port_leaving_a_bridge_is_no_interface_that_is_gone() {
    // struct ifinfomsg with family AF_BRIDGE, index 7, and IFLA_IFNAME "br".
    let mut payload = vec![0; 16];
    payload[4] = 7;
    payload.extend([7, 0, 3, 0, b'b', b'r', 0, 0]);
    assert_eq!(decode::link(&payload).unwrap().name, "br");
    payload[0] = 7;
    assert_eq!(decode::link(&payload), None);
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_decoders_panic(bytes in proptest::collection::vec(0_u8.., 0..200)) {
        let _ = decode::messages(&bytes).count();
        let _ = decode::link(&bytes);
        let _ = decode::address(&bytes);
        let _ = decode::neighbour(&bytes);
        let _ = decode::route(&bytes);
        let _ = decode::is_forwarding_route(&bytes);
    }
}
