//! NAT: packets go on with a real server's address, and its answers come back by the box.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use crate::{
    Subject, Test,
    support::{
        client::{assert_shares, curl, fetch, shares, upload, wrk},
        config::{checked, unchecked, virtual_server},
        echo::{Server, ask_udp, noise, receipt_for, udp_client},
        host::Host,
        lan::VIP,
        routed::{FAR, INSIDE, LB, NEAR, Routed},
        secs, wait_until,
        web::WebServer,
        xvs::{Engine, Xvs},
    },
};

pub(crate) fn tests() -> Vec<Test> {
    let both: [Subject; 7] = [
        (
            "nat::requests_to_another_port_are_spread_by_weight_and_none_fails",
            requests,
        ),
        ("nat::large_transfers_arrive_whole", large_transfers),
        (
            "nat::a_real_server_that_fails_takes_nothing_until_it_returns",
            failure,
        ),
        ("nat::what_is_no_service_is_routed_untouched", other_traffic),
        (
            "nat::a_real_servers_icmp_error_reaches_the_client_in_the_name_of_the_vip",
            icmp_errors,
        ),
        (
            "nat::packets_are_cut_for_a_network_with_a_smaller_mtu",
            smaller_network,
        ),
        (
            "nat::a_small_hop_behind_the_box_makes_the_real_server_send_less",
            small_hop,
        ),
    ];
    let tests = both.into_iter();
    tests
        .flat_map(|(name, run)| Test::on_both_engines(name, run))
        .collect()
}

/// The web servers' other port, behind port 80 of the VIP.
const INNER: u16 = 8080;

fn http() -> SocketAddr {
    SocketAddr::from((VIP, 80))
}

/// NAT from port 80 to [`INNER`], by these weights.
fn config(weights: [u32; 3]) -> String {
    let reals = INSIDE
        .iter()
        .zip(weights)
        .map(|(real, weight)| checked(&format!("{real} {INNER}"), &format!("weight {weight}")));
    let reals: Vec<String> = reals.collect();
    virtual_server(
        &format!("{VIP} 80"),
        "lb_algo wrr\n    lb_kind NAT\n    protocol TCP",
        &reals,
    )
}

fn start_web(net: &Routed) -> Vec<WebServer> {
    let hosts = net.reals.iter();
    hosts.map(|host| WebServer::start(net, host)).collect()
}

fn start<'a>(net: &'a Routed, config: &str, engine: Engine) -> Xvs<'a> {
    let lb = Xvs::start(net, &net.lb, config, engine);
    lb.wait_until_ready();
    lb
}

fn requests(engine: Engine) {
    let net = Routed::new();
    let web = start_web(&net);
    let lb = start(&net, &config([3, 2, 1]), engine);
    for (host, address, count) in [(&net.near, NEAR, 3000), (&net.far, FAR, 1500)] {
        let answers = curl(host, address, http(), count, 30);
        assert_shares(&shares(&answers), count, &[3, 2, 1]);
        let seen = |answer: &&String| answer.ends_with(&format!(" {address}"));
        let others: Vec<&String> = answers.iter().filter(|it| !seen(it)).collect();
        assert!(others.is_empty(), "servers saw another client: {others:?}");
    }
    let answer = fetch(&net.far, &format!("http://{VIP}/port"));
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.ends_with(&format!(" {INNER}\n")), "{answer}");

    let load = wrk(&net.far, http(), 50, 2);
    assert_eq!(load.failures, 0, "{load:?}");
    assert!(load.requests > 300, "{load:?}");
    assert!(!web.iter().any(|server| server.clients().is_empty()));
    let list = lb.tell(&["list"]);
    let row = format!("  -> {}:{INNER}           Masq    3 ", INSIDE[0]);
    assert!(list.contains(&row), "{list}");
    lb.stop();
}

fn large_transfers(engine: Engine) {
    let net = Routed::new();
    let web = start_web(&net);
    let content = noise(20_000_000);
    web[0].offer(&content);
    let sink = Server::tcp_sink(&net.reals[0], SocketAddr::from((INSIDE[0], 9001)));
    let only = |port: u16, inner: u16| {
        let lines = "lb_algo rr\n    lb_kind NAT\n    protocol TCP";
        let real = unchecked(&format!("{} {inner}", INSIDE[0]), "");
        virtual_server(&format!("{VIP} {port}"), lines, &[real])
    };
    let lb = start(&net, &(only(80, INNER) + &only(9000, 9001)), engine);
    for host in [&net.far, &net.near] {
        let got = fetch(host, &format!("http://{VIP}/file"));
        assert!(
            got == content,
            "{} of 20,000,000 bytes, or others",
            got.len()
        );
    }
    let target = SocketAddr::from((VIP, 9000));
    let receipt = net.far.inside(|| upload(FAR, target, &content));
    assert_eq!(receipt.unwrap_or_default(), receipt_for(&content));
    drop(sink);
    lb.stop();
}

fn failure(engine: Engine) {
    let net = Routed::new();
    let mut web = start_web(&net);
    let lb = start(&net, &config([1, 1, 1]), engine);
    let in_pool = || {
        let list = lb.list();
        let reals = list["services"][0]["reals"].as_array().cloned();
        let reals = reals.unwrap_or_default().into_iter();
        reals.filter(|real| real["in_pool"] == true).count()
    };
    web.remove(0).kill();
    wait_until("the dead server is out of the pool", secs(5), || {
        in_pool() == 2
    });
    let answers = curl(&net.far, FAR, http(), 300, 10);
    let spread = shares(&answers);
    assert_eq!(spread.len(), 2, "{spread:?}");
    web.push(WebServer::start(&net, &net.reals[0]));
    wait_until("it is back in the pool", secs(5), || in_pool() == 3);
    assert_shares(
        &shares(&curl(&net.far, FAR, http(), 300, 10)),
        300,
        &[1, 1, 1],
    );
    lb.stop();
}

fn other_traffic(engine: Engine) {
    let net = Routed::new();
    let web = start_web(&net);
    let content = noise(1_000_000);
    web[0].offer(&content);
    let _outside = WebServer::start(&net, &net.far);
    let lb = start(&net, &config([1, 1, 1]), engine);
    let inner = SocketAddr::from((INSIDE[0], INNER));

    // Past the virtual server, to the very port that it leads to: the answers come by here as well.
    for (host, address) in [(&net.near, NEAR), (&net.far, FAR)] {
        let answers = curl(host, address, inner, 200, 10);
        assert_eq!(shares(&answers).get("real1"), Some(&200));
        assert!(fetch(host, &format!("http://{inner}/file")) == content);
    }
    // From the box itself, as its checks do.
    let own = Ipv4Addr::new(192, 168, 10, 254);
    assert_eq!(curl(&net.lb, own, inner, 50, 5).len(), 50);
    // What real servers ask of others.
    let outside = SocketAddr::from((FAR, 80));
    let answers = curl(&net.reals[0], INSIDE[0], outside, 100, 10);
    assert_eq!(shares(&answers).get("far"), Some(&100));
    ping(&net.reals[1], FAR);
    ping(&net.far, INSIDE[2]);
    ping(&net.far, VIP);
    ping(&net.reals[0], LB);
    // And to the service all the while.
    assert_eq!(curl(&net.far, FAR, http(), 100, 10).len(), 100);
    lb.stop();
}

/// Three small pings and a fragmented one.
fn ping(host: &Host, address: Ipv4Addr) {
    let address = address.to_string();
    for size in ["56", "4000"] {
        let arguments = [
            "-n", "-c", "3", "-i", "0.05", "-W", "2", "-s", size, &address,
        ];
        let output = host.output("ping", &arguments);
        assert!(output.status.success(), "ping {address}: {output:?}");
    }
}

fn icmp_errors(engine: Engine) {
    let net = Routed::new();
    let real = unchecked(&format!("{} 5354", INSIDE[0]), "");
    let lines = "lb_algo rr\n    lb_kind NAT\n    protocol UDP";
    let config = virtual_server(&format!("{VIP} 5353"), lines, &[real]);
    let lb = start(&net, &config, engine);
    for (host, address) in [(&net.near, NEAR), (&net.far, FAR)] {
        let answer = host.inside(|| {
            let socket = udp_client(address, SocketAddr::from((VIP, 5353)))?;
            ask_udp(&socket, b"nobody is there")
        });
        let kind = answer.map_err(|e| e.kind());
        assert_eq!(kind, Err(io::ErrorKind::ConnectionRefused));
    }
    lb.stop();
}

fn small_hop(engine: Engine) {
    let net = Routed::new();
    let web = start_web(&net);
    let content = noise(2_000_000);
    web[0].offer(&content);
    let reals = [unchecked(&format!("{} {INNER}", INSIDE[0]), "")];
    let lines = "lb_algo rr\n    lb_kind NAT\n    protocol TCP";
    let config = virtual_server(&format!("{VIP} 80"), lines, &reals);
    let lb = start(&net, &config, engine);
    // Only one end: the client offers segments of 1460 bytes, so that the router must object.
    net.router.ip("link set far mtu 1280");
    let got = fetch(&net.far, &format!("http://{VIP}/file"));
    assert!(
        got == content,
        "{} of 2,000,000 bytes, or others",
        got.len()
    );
    let route = net.reals[0].ip(&format!("route get {FAR}"));
    assert!(route.contains("mtu 1280"), "{route}");
    lb.stop();
}

/// What may be fragmented is; who forbids it is told.
fn smaller_network(engine: Engine) {
    let net = Routed::new();
    let _echo = Server::udp_echo(&net.reals[0], SocketAddr::from((INSIDE[0], 5354)));
    let _sink = Server::tcp_sink(&net.reals[0], SocketAddr::from((INSIDE[0], 9001)));
    let one = |protocol, port: u16, inner: u16| {
        let lines = format!("lb_algo rr\n    lb_kind NAT\n    protocol {protocol}");
        let real = unchecked(&format!("{} {inner}", INSIDE[0]), "");
        virtual_server(&format!("{VIP} {port}"), &lines, &[real])
    };
    net.lb.ip("link set eth1 mtu 1400");
    let config = one("UDP", 5353, 5354) + &one("TCP", 9000, 9001);
    let lb = start(&net, &config, engine);

    let content = noise(1_000_000);
    let target = SocketAddr::from((VIP, 9000));
    let receipt = net.far.inside(|| upload(FAR, target, &content));
    assert_eq!(receipt.unwrap_or_default(), receipt_for(&content));
    let route = net.far.ip(&format!("route get {VIP}"));
    assert!(route.contains(" mtu 1400 "), "{route}");

    // From here on nobody sends more than the network takes, and nobody forbids to fragment.
    net.reals[0].ip("link set eth0 mtu 1400");
    net.near.sysctl("ipv4/ip_no_pmtu_disc", 1);
    for length in [1372, 1373, 1472, 1473, 8000] {
        let answer = net.near.inside(|| {
            let socket = udp_client(NEAR, SocketAddr::from((VIP, 5353)))?;
            ask_udp(&socket, &content[..length])
        });
        answer.unwrap_or_else(|e| panic!("{length} bytes: {e}"));
    }
    lb.stop();
}
