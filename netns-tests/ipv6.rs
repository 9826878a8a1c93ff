//! IPv6: the same services, by addresses that the administrator has put on the interface.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::{
    Subject, Test,
    support::{
        client::{assert_shares, curl, fetch, shares},
        config::{checked, unchecked, virtual_server},
        echo::{Server, ask_udp, noise, udp_client},
        host::Host,
        lan::{CLIENT, LB1, Lan, REALS, VIP, mac_of, v6_of},
        routed::{FAR6, INSIDE, NEAR, Routed, inside6},
        web::WebServer,
        xvs::{Engine, Xvs},
    },
};

pub(crate) fn tests() -> Vec<Test> {
    let both: [Subject; 2] = [
        ("ipv6::tcp_and_udp_go_through_dr", direct),
        ("ipv6::tcp_and_udp_go_through_nat", translated),
    ];
    let tests = both.into_iter();
    tests
        .flat_map(|(name, run)| Test::on_both_engines(name, run))
        .collect()
}

fn vip() -> Ipv6Addr {
    v6_of(VIP)
}

/// TCP on port 80 and UDP on port 5353 in front of the same machines, at these ports.
fn config(kind: &str, reals: [Ipv6Addr; 3], tcp: u16, udp: u16) -> String {
    let lines = |protocol| format!("lb_algo rr\n    lb_kind {kind}\n    protocol {protocol}");
    let web = reals.map(|real| checked(&format!("{real} {tcp}"), ""));
    let echo = reals.map(|real| unchecked(&format!("{real} {udp}"), ""));
    virtual_server(&format!("{} 80", vip()), &lines("TCP"), &web)
        + &virtual_server(&format!("{} 5353", vip()), &lines("UDP"), &echo)
}

/// What every client gets: pages by turns, a large file, datagrams with and without fragments, pings.
fn ask_all(client: &Host, own: Ipv6Addr, file: &[u8]) {
    let answers = curl(client, own, SocketAddr::from((vip(), 80)), 300, 10);
    assert_shares(&shares(&answers), 300, &[1, 1, 1]);
    let seen = answers.iter().all(|it| it.ends_with(&format!(" {own}")));
    assert!(seen, "{:?}", answers.first());
    let got = fetch(client, &format!("http://[{}]/file", vip()));
    assert!(
        got == file,
        "{} of {} bytes, or others",
        got.len(),
        file.len()
    );

    let content = noise(8000);
    let done: io::Result<()> = client.inside(|| {
        for length in [100, 1400, 1500, 8000] {
            let socket = udp_client(own, SocketAddr::from((vip(), 5353)))?;
            ask_udp(&socket, &content[..length])
                .map_err(|e| io::Error::new(e.kind(), format!("{length} bytes: {e}")))?;
        }
        Ok(())
    });
    done.unwrap_or_else(|e| panic!("UDP: {e}"));
    for size in ["56", "4000"] {
        ping(client, vip().into(), size);
    }
}

fn ping(host: &Host, address: IpAddr, size: &str) {
    let address = address.to_string();
    let arguments = [
        "-n", "-c", "3", "-i", "0.05", "-W", "2", "-s", size, &address,
    ];
    let output = host.output("ping", &arguments);
    assert!(output.status.success(), "ping {address}: {output:?}");
}

fn direct(engine: Engine) {
    let lan = Lan::with_v6();
    lan.hold_vip6();
    let web = WebServer::start_all(&lan);
    let file = noise(1_000_000);
    web.iter().for_each(|server| server.offer(&file));
    let udp = SocketAddr::from((vip(), 5353));
    let hosts = lan.reals.iter();
    let _echo: Vec<Server> = hosts.map(|host| Server::udp_echo(host, udp)).collect();
    let config = config("DR", REALS.map(v6_of), 80, 5353);
    let lb = Xvs::start(&lan, &lan.lb1, &config, engine);
    lb.wait_until_ready();
    ask_all(&lan.client, v6_of(CLIENT), &file);

    // Neighbour discovery: forgotten, asked again, and answered by this box.
    lan.client.ip("-6 neigh flush dev eth0");
    ping(&lan.client, vip().into(), "56");
    let known = lan.client.ip(&format!("-6 neigh show {} dev eth0", vip()));
    assert!(known.contains(&mac_of(LB1)), "{known}");
    lb.stop();
}

fn translated(engine: Engine) {
    let net = Routed::new();
    let hosts = net.reals.iter();
    let web: Vec<WebServer> = hosts.map(|host| WebServer::start(&net, host)).collect();
    let file = noise(1_000_000);
    web.iter().for_each(|server| server.offer(&file));
    let own = |address: Ipv4Addr| SocketAddr::from((inside6(address), 5354));
    let hosts = net.reals.iter().zip(INSIDE.map(own));
    let _echo: Vec<Server> = hosts
        .map(|(host, own)| Server::udp_echo(host, own))
        .collect();
    let config = config("NAT", INSIDE.map(inside6), 8080, 5354);
    let lb = Xvs::start(&net, &net.lb, &config, engine);
    lb.wait_until_ready();
    // Past the virtual server, and first: an answer to a client's port that it has used for a connection
    // with the VIP is taken for one of that, as with IPVS.
    let inner = SocketAddr::from((inside6(INSIDE[0]), 8080));
    let answers = curl(&net.far, FAR6, inner, 50, 5);
    assert_eq!(shares(&answers).get("real1"), Some(&50));
    ask_all(&net.far, FAR6, &file);
    ask_all(&net.near, v6_of(NEAR), &file);
    lb.stop();
}
