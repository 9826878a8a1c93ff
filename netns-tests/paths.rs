//! The way of packets as others see it: hops, refusals, neighbours that are not known or change.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Barrier,
    thread,
    time::Duration,
};

use crate::{
    Subject, Test,
    support::{
        client::{ask, connect, curl, fetch},
        config::{unchecked, virtual_server},
        echo::{Server, ask_udp, noise, udp_client},
        host::Host,
        lan::{CLIENT, Lan, REALS, VIP},
        millis, now,
        probe::Prober,
        routed::{FAR, INSIDE, LB, NEAR, Routed},
        secs,
        web::WebServer,
        xvs::{Engine, Xvs},
    },
};

pub(crate) fn tests() -> Vec<Test> {
    let both: [Subject; 6] = [
        (
            "paths::a_small_hop_before_a_client_is_told_to_the_real_server_by_dr",
            small_hop,
        ),
        ("paths::traceroute_through_nat_shows_the_box", hops),
        (
            "paths::without_a_real_server_a_connection_is_refused_at_once",
            refused,
        ),
        (
            "paths::the_first_packet_to_an_unknown_neighbour_is_not_lost",
            unknown_neighbour,
        ),
        (
            "paths::the_first_answer_to_an_unknown_client_is_not_lost",
            unknown_client,
        ),
        (
            "paths::a_real_server_with_another_mac_address_is_found_at_once",
            replaced,
        ),
    ];
    let tests = both.into_iter();
    tests
        .flat_map(|(name, run)| Test::on_both_engines(name, run))
        .collect()
}

fn http() -> SocketAddr {
    SocketAddr::from((VIP, 80))
}

/// Without checks: nobody asks for the real servers but clients.
fn nat() -> String {
    let reals = INSIDE.map(|real| unchecked(&format!("{real} 8080"), ""));
    let lines = "lb_algo rr\n    lb_kind NAT\n    protocol TCP";
    virtual_server(&format!("{VIP} 80"), lines, &reals)
}

fn start_web(net: &Routed) -> Vec<WebServer> {
    let hosts = net.reals.iter();
    hosts.map(|host| WebServer::start(net, host)).collect()
}

/// The hops that `traceroute` sees, each with the note that it adds, for example `!X`.
fn traceroute(host: &Host, arguments: &[&str], target: &str) -> Vec<String> {
    let common = ["-n", "-q", "1", "-w", "1", "-m", "5"];
    let output = host.output("traceroute", &[&common, arguments, &[target]].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "traceroute: {output:?}");
    let hop = |line: &str| Some(line.split_whitespace().nth(1)?.to_owned());
    text.lines().skip(1).filter_map(hop).collect()
}

fn hops(engine: Engine) {
    let net = Routed::new();
    let lb = Xvs::start(&net, &net.lb, &nat(), engine);
    lb.wait_until_ready();
    // Nobody listens anywhere; a reset shows who is at the end as well.
    let (router, own, vip) = ("192.0.2.1", LB.to_string(), VIP.to_string());
    let tcp = ["-T", "-p", "80"];
    // The VIP is behind the box, where the service is; the box answers by the VIP as well, as with IPVS …
    assert_eq!(traceroute(&net.far, &tcp, &vip), [router, &vip, &vip]);
    assert_eq!(
        traceroute(&net.near, &tcp, &vip),
        [vip.clone(), vip.clone()]
    );
    // … and the box itself, where it is not.
    assert_eq!(traceroute(&net.far, &["-I"], &vip), [router, &vip]);
    let real = INSIDE[0].to_string();
    assert_eq!(traceroute(&net.far, &["-I"], &real), [router, &own, &real]);
    // Answers of a real server take a hop as well: the box, then the router, then the client.
    let from = ["-T", "-p", "9", "--sport=8080"];
    let inner = traceroute(&net.reals[0], &from, &FAR.to_string());
    assert_eq!(inner, ["192.168.10.254", "10.0.0.1", &FAR.to_string()]);
    lb.stop();
}

/// How long it takes until a connection is refused.
fn refusal(host: &Host, source: Ipv4Addr) -> Duration {
    let start = now();
    let answer = host.inside(|| connect(source, http(), secs(5)).map(|_| ()));
    let kind = answer.map_err(|e| e.kind());
    assert_eq!(kind, Err(io::ErrorKind::ConnectionRefused));
    start.elapsed()
}

fn refused(engine: Engine) {
    let lan = Lan::new();
    lan.hold_vip();
    let reals = REALS.map(|real| unchecked(&format!("{real} 80"), "weight 0"));
    let lines = "lb_algo wrr\n    lb_kind DR\n    protocol TCP";
    let config = virtual_server(&format!("{VIP} 80"), lines, &reals);
    let lb = Xvs::start(&lan, &lan.lb1, &config, engine);
    lb.wait_until_ready();
    let waited = refusal(&lan.client, CLIENT);
    assert!(waited < millis(500), "refused after {waited:?}");
    // By the box: real servers without a web server refuse as well.
    assert!(lb.count("replies", "unreachable-no-real") > 0);
    lb.stop();

    let net = Routed::new();
    let config = nat()
        .replace("wrr", "rr")
        .replace("{\n    \n", "{\n weight 0\n");
    let lb = Xvs::start(&net, &net.lb, &config, engine);
    lb.wait_until_ready();
    for (host, address) in [(&net.near, NEAR), (&net.far, FAR)] {
        let waited = refusal(host, address);
        assert!(waited < millis(500), "refused after {waited:?}");
    }
    assert!(lb.count("replies", "unreachable-no-real") >= 2);
    lb.stop();
}

/// A request on a connection of its own, and how long it took.
fn timed(host: &Host, source: Ipv4Addr) -> Duration {
    host.inside(|| {
        let start = now();
        let mut stream = connect(source, http(), secs(5)).expect("the VIP accepts");
        ask(&mut stream).expect("the VIP answers");
        start.elapsed()
    })
}

/// A real server that is not there when the box starts, nor when the client asks. A datagram is sent but
/// once.
fn unknown_neighbour(engine: Engine) {
    let lan = Lan::new();
    lan.hold_vip();
    let _web = WebServer::start_all(&lan);
    let target = SocketAddr::from((VIP, 5353));
    let _echo = Server::udp_echo(&lan.reals[0], target);
    let service = |port: u16, protocol| {
        let reals = [unchecked(&format!("{} {port}", REALS[0]), "")];
        let lines = format!("lb_algo rr\n    lb_kind DR\n    protocol {protocol}");
        virtual_server(&format!("{VIP} {port}"), &lines, &reals)
    };
    let config = service(80, "TCP") + &service(5353, "UDP");
    lan.reals[0].ip("link set eth0 down");
    let lb = Xvs::start(&lan, &lan.lb1, &config, engine);
    lb.wait_for_line(0, "packet I/O: ", secs(5));
    let asking = Barrier::new(2);
    let answer = thread::scope(|scope| {
        scope.spawn(|| {
            asking.wait();
            thread::sleep(millis(400));
            lan.reals[0].ip("link set eth0 up");
        });
        lan.client.inside(|| {
            let socket = udp_client(CLIENT, target)?;
            socket.set_read_timeout(Some(secs(3)))?;
            asking.wait();
            ask_udp(&socket, b"are you up?")
        })
    });
    assert_eq!(answer.unwrap_or_else(|e| panic!("{e}")), "real1");
    lb.stop();

    // The box has just started, and the neighbour is there: no second SYN is needed.
    lan.lb1.ip("neigh flush dev eth0");
    let lb = Xvs::start(&lan, &lan.lb1, &config, engine);
    lb.wait_for_line(0, "packet I/O: ", secs(5));
    let waited = timed(&lan.client, CLIENT);
    assert!(waited < millis(500), "after {waited:?}");
    // The kernel forgets; the box does not.
    lan.lb1.ip(&format!("neigh flush to {}", REALS[0]));
    let waited = timed(&lan.client, CLIENT);
    assert!(waited < millis(500), "after {waited:?}");
    lb.stop();
}

/// NAT's answers go to clients that the box has never sent anything to.
fn unknown_client(engine: Engine) {
    let net = Routed::new();
    let _web = start_web(&net);
    let lb = Xvs::start(&net, &net.lb, &nat(), engine);
    lb.wait_until_ready();
    for _ in 0..3 {
        net.lb.ip("neigh flush dev eth0");
        net.lb.ip("neigh flush dev eth1");
        for (host, address) in [(&net.near, NEAR), (&net.far, FAR)] {
            let waited = timed(host, address);
            assert!(waited < millis(500), "after {waited:?}");
        }
    }
    lb.stop();
}

/// As at a failover of a real server: its address moves to another machine, which says so.
fn replaced(engine: Engine) {
    let net = Routed::new();
    let _web = start_web(&net);
    let real = &net.reals[0];
    let config = virtual_server(
        &format!("{VIP} 80"),
        "lb_algo rr\n    lb_kind NAT\n    protocol TCP",
        &[unchecked(&format!("{} 8080", INSIDE[0]), "")],
    );
    let lb = Xvs::start(&net, &net.lb, &config, engine);
    lb.wait_until_ready();
    // Otherwise the kernel believes no announcement within a second of the last one.
    net.lb.sysctl("ipv4/neigh/eth1/locktime", 0);
    net.lb.sysctl("ipv4/conf/eth1/arp_accept", 1);
    real.sysctl("ipv4/conf/eth0/arp_notify", 1);
    let prober = Prober::start(&net.near, &[NEAR], http());
    // The same way, by the kernel: it is no virtual server's.
    let control = Prober::start(&net.near, &[NEAR], SocketAddr::from((INSIDE[0], 80)));
    for one in [&prober, &control] {
        one.wait_for_answers(50, secs(5));
    }
    real.ip("link set eth0 address 02:00:00:00:00:77");
    for one in [&prober, &control] {
        one.wait_for_answers(100, secs(5));
    }
    let (report, control) = (prober.finish(), control.finish());
    assert!(
        report.longest_gap < control.longest_gap + millis(150),
        "{report:?}, by the kernel {control:?}"
    );
    assert_eq!(curl(&net.far, FAR, http(), 20, 2).len(), 20);
    lb.stop();
}

/// The real server answers the client by itself; what the router says about it comes to the VIP.
fn small_hop(engine: Engine) {
    let lan = Lan::new();
    lan.hold_vip();
    let [router, far] = lan.beyond_a_router();
    let web = WebServer::start_all(&lan);
    let content = noise(2_000_000);
    web[0].offer(&content);
    let lines = "lb_algo rr\n    lb_kind DR\n    protocol TCP";
    let reals = [unchecked(&format!("{} 80", REALS[0]), "")];
    let config = virtual_server(&format!("{VIP} 80"), lines, &reals);
    let lb = Xvs::start(&lan, &lan.lb1, &config, engine);
    lb.wait_until_ready();
    router.ip("link set far mtu 1280");
    let got = fetch(&far, &format!("http://{VIP}/file"));
    assert!(
        got == content,
        "{} of 2,000,000 bytes, or others",
        got.len()
    );
    let route = lan.reals[0].ip(&format!("route get {FAR}"));
    assert!(route.contains("mtu 1280"), "{route}");
    lb.stop();
}
