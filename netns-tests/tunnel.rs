//! TUN: packets travel to the real servers inside others, and clients learn what that leaves room for.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
};

use crate::{
    Subject, Test,
    support::{
        client::{curl, fetch, shares, upload},
        config::{checked, unchecked, virtual_server},
        decap::{Decapsulator, GUE_PORT},
        echo::{Server, ask_udp, noise, receipt_for, udp_client},
        lan::{CLIENT, Lan, REALS, VIP, v6_of},
        routed::{FAR, NEAR, Routed},
        site::whole,
        web::WebServer,
        xvs::{Engine, Xvs},
    },
};

pub(crate) fn tests() -> Vec<Test> {
    let both: [Subject; 5] = [
        ("tunnel::each_kind_carries_each_family_in_each", all_kinds),
        (
            "tunnel::uploads_learn_the_path_mtu_and_arrive_whole",
            path_mtu,
        ),
        (
            "tunnel::uploads_learn_the_path_mtu_with_ipv6_inside_or_outside",
            path_mtu_v6,
        ),
        (
            "tunnel::a_small_hop_on_the_way_is_told_to_the_client",
            small_hop,
        ),
        (
            "tunnel::datagrams_that_may_be_fragmented_arrive_whole",
            fragments,
        ),
    ];
    let tests = both.into_iter();
    tests
        .flat_map(|(name, run)| Test::on_both_engines(name, run))
        .collect()
}

/// A virtual server for each way to go through a tunnel: its port, where its real server is, and how it
/// is told.
fn ways() -> Vec<(u16, bool, bool, String)> {
    let kinds = [
        "type ipip".to_owned(),
        format!("type gue port {GUE_PORT} csum"),
        format!("type gue port {GUE_PORT} nocsum"),
        "type gre".to_owned(),
        "type gre csum".to_owned(),
    ];
    let mut ways = Vec::new();
    for (kind, text) in (0..).zip(kinds) {
        for (of, (inner6, outer6)) in
            (0..).zip([(false, false), (true, false), (false, true), (true, true)])
        {
            // Linux takes no UDP without a checksum over IPv6, unless told to (RFC 8200 section 8.1).
            if !(outer6 && text.contains("nocsum")) {
                ways.push((9000 + 10 * kind + of, inner6, outer6, text.clone()));
            }
        }
    }
    ways
}

fn vip(v6: bool) -> IpAddr {
    if v6 { v6_of(VIP).into() } else { VIP.into() }
}

fn all_kinds(engine: Engine) {
    let lan = Lan::with_v6();
    lan.hold_vip();
    lan.hold_vip6();
    let real = &lan.reals[0];
    let tunnel = Decapsulator::start(real, true);
    let mut config = String::new();
    let mut servers = Vec::new();
    for (port, inner6, outer6, kind) in ways() {
        let own: IpAddr = if outer6 {
            v6_of(REALS[0]).into()
        } else {
            REALS[0].into()
        };
        let lines = "lb_algo rr\n    lb_kind TUN\n    protocol UDP";
        let reals = [unchecked(
            &format!("{own} {port}"),
            &format!("lvs_method TUN {kind}"),
        )];
        config += &virtual_server(&format!("{} {port}", vip(inner6)), lines, &reals);
        let target = SocketAddr::new(vip(inner6), port);
        servers.push((target, kind, outer6, Server::udp_echo(real, target)));
    }
    let lb = Xvs::start(&lan, &lan.lb1, &config, engine);
    lb.wait_until_ready();
    let content = noise(1400);
    for (target, kind, outer6, _) in &servers {
        let own = if target.is_ipv6() {
            v6_of(CLIENT).into()
        } else {
            IpAddr::from(CLIENT)
        };
        let answer = lan.client.inside(|| -> io::Result<()> {
            let socket = udp_client(own, *target)?;
            for length in [1, 2, 99, 1400] {
                ask_udp(&socket, &content[..length])?;
            }
            Ok(())
        });
        answer.unwrap_or_else(|e| panic!("{target}, {kind}, over IPv6: {outer6}: {e}"));
    }
    let seen: BTreeSet<&str> = tunnel.seen().into_iter().collect();
    assert_eq!(
        seen,
        BTreeSet::from(["4in4", "4in6", "6in4", "6in6", "gre", "gue"])
    );
    lb.stop();
}

/// Web servers by each kind of tunnel, and a large upload through each: the client's first segments are
/// too large for it.
fn path_mtu(engine: Engine) {
    const SINK: u16 = 9001;
    let lan = Lan::new();
    lan.hold_vip();
    let web = WebServer::start_all(&lan);
    let content = noise(5_000_000);
    web.iter().for_each(|server| server.offer(&content));
    let hosts = lan.reals.iter();
    let tunnels: Vec<_> = hosts.map(|host| Decapsulator::start(host, false)).collect();
    let kinds = [
        "type ipip".to_owned(),
        format!("type gue port {GUE_PORT}"),
        "type gre csum".to_owned(),
    ];
    let lines = "lb_algo rr\n    lb_kind TUN\n    protocol TCP";
    let pairs = || REALS.iter().zip(&kinds);
    let all = pairs()
        .map(|(real, kind)| checked(&format!("{real} 80"), &format!("lvs_method TUN {kind}")));
    let mut config = virtual_server(&format!("{VIP} 80"), lines, &all.collect::<Vec<_>>());
    for ((real, kind), port) in pairs().zip(SINK..) {
        let one = unchecked(&format!("{real} {port}"), &format!("lvs_method TUN {kind}"));
        config += &virtual_server(&format!("{VIP} {port}"), lines, &[one]);
    }
    let lb = Xvs::start(&lan, &lan.lb1, &config, engine);
    lb.wait_until_ready();

    let answers = curl(&lan.client, CLIENT, SocketAddr::from((VIP, 80)), 300, 10);
    assert_eq!(shares(&answers).len(), 3, "{answers:?}");
    let got = fetch(&lan.client, &format!("http://{VIP}/file"));
    assert!(got == content, "{} bytes, or others", got.len());

    for ((real, room), port) in lan.reals.iter().zip([1480, 1468, 1472]).zip(SINK..) {
        lan.client.ip("route flush cache");
        let target = SocketAddr::from((VIP, port));
        let _sink = Server::tcp_sink(real, target);
        let receipt = lan.client.inside(|| upload(CLIENT, target, &content));
        let receipt = receipt.unwrap_or_else(|e| panic!("to port {port}: {e}"));
        assert_eq!(receipt, receipt_for(&content));
        let route = lan.client.ip(&format!("route get {VIP}"));
        assert!(
            route.contains(&format!(" mtu {room} ")),
            "port {port}: {route}"
        );
    }
    assert_eq!(tunnels[0].seen(), ["4in4"]);
    lb.stop();
}

fn path_mtu_v6(engine: Engine) {
    const SINK: u16 = 9001;
    let lan = Lan::with_v6();
    lan.hold_vip();
    lan.hold_vip6();
    let real = &lan.reals[0];
    let _tunnel = Decapsulator::start(real, true);
    let content = noise(2_000_000);
    // Which family is inside, which is outside, and what a packet may have inside.
    let ways = [(true, false, 1480), (true, true, 1460), (false, true, 1460)];
    let lines = "lb_algo rr\n    lb_kind TUN\n    protocol TCP";
    let one = |((inner6, outer6, _), port): (&(bool, bool, u32), u16)| {
        let own: IpAddr = if *outer6 {
            v6_of(REALS[0]).into()
        } else {
            REALS[0].into()
        };
        let real = unchecked(&format!("{own} {port}"), "");
        virtual_server(&format!("{} {port}", vip(*inner6)), lines, &[real])
    };
    let config: String = ways.iter().zip(SINK..).map(one).collect();
    let lb = Xvs::start(&lan, &lan.lb1, &config, engine);
    lb.wait_until_ready();
    for ((inner6, _, room), port) in ways.iter().zip(SINK..) {
        lan.client.ip("route flush cache");
        lan.client.ip("-6 route flush cache");
        let target = SocketAddr::new(vip(*inner6), port);
        let own: IpAddr = if *inner6 {
            v6_of(CLIENT).into()
        } else {
            CLIENT.into()
        };
        let _sink = Server::tcp_sink(real, target);
        let receipt = lan.client.inside(|| upload(own, target, &content));
        let receipt = receipt.unwrap_or_else(|e| panic!("{target}: {e}"));
        assert_eq!(receipt, receipt_for(&content));
        let route = lan.client.ip(&format!("route get {}", target.ip()));
        assert!(
            route.contains(&format!(" mtu {room} ")),
            "{target}: {route}"
        );
    }
    lb.stop();
}

/// The real server is beyond a router whose link takes less than the box's own.
fn small_hop(engine: Engine) {
    const SINK: u16 = 9001;
    let net = Routed::new();
    let content = noise(2_000_000);
    net.far.ip(&format!("addr add {} dev lo", whole(VIP)));
    let tunnel = Decapsulator::start(&net.far, true);
    net.router.ip("link set far mtu 1400");
    let kinds = [
        ("type ipip".to_owned(), 1380),
        (format!("type gue port {GUE_PORT}"), 1368),
        ("type gre".to_owned(), 1376),
    ];
    let lines = "lb_algo rr\n    lb_kind TUN\n    protocol TCP";
    let one = |((kind, _), port): (&(String, u32), u16)| {
        let real = unchecked(&format!("{FAR} {port}"), &format!("lvs_method TUN {kind}"));
        virtual_server(&format!("{VIP} {port}"), lines, &[real])
    };
    let config: String = kinds.iter().zip(SINK..).map(one).collect();
    let lb = Xvs::start(&net, &net.lb, &config, engine);
    lb.wait_until_ready();
    for ((kind, room), port) in kinds.iter().zip(SINK..) {
        net.near.ip("route flush cache");
        let target = SocketAddr::from((VIP, port));
        let _sink = Server::tcp_sink(&net.far, target);
        let receipt = net.near.inside(|| upload(NEAR, target, &content));
        let receipt = receipt.unwrap_or_else(|e| panic!("{kind}: {e}"));
        assert_eq!(receipt, receipt_for(&content));
        let route = net.near.ip(&format!("route get {VIP}"));
        assert!(route.contains(&format!(" mtu {room} ")), "{kind}: {route}");
    }
    assert_eq!(tunnel.seen(), ["4in4", "gue", "gre"]);
    lb.stop();
}

/// Without DF nobody is to be told anything: the packets must get there.
fn fragments(engine: Engine) {
    let lan = Lan::new();
    lan.hold_vip();
    let real = &lan.reals[0];
    let _tunnel = Decapsulator::start(real, false);
    let target = SocketAddr::from((VIP, 5353));
    let _echo = Server::udp_echo(real, target);
    let lines = "lb_algo rr\n    lb_kind TUN\n    protocol UDP";
    let reals = [unchecked(
        &format!("{} 5353", REALS[0]),
        "lvs_method TUN type ipip",
    )];
    let config = virtual_server(&format!("{VIP} 5353"), lines, &reals);
    let lb = Xvs::start(&lan, &lan.lb1, &config, engine);
    lb.wait_until_ready();
    let content = noise(8000);
    // Linux sets DF on what fits into a frame, unless path MTU discovery is off.
    lan.client.sysctl("ipv4/ip_no_pmtu_disc", 1);
    for length in [1400, 1472, 1600, 8000] {
        let answer = lan.client.inside(|| {
            let socket = udp_client(CLIENT, target)?;
            ask_udp(&socket, &content[..length])
        });
        answer.unwrap_or_else(|e| panic!("{length} bytes: {e}"));
    }
    lb.stop();
}
