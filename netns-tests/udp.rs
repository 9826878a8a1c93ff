//! UDP services: flows, one-packet scheduling, fragments.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use crate::{
    Subject, Test,
    support::{
        config::{checked, unchecked, virtual_server},
        echo::{Server, ask_udp, noise, udp_client},
        host::Host,
        lan::{CLIENT, Lan, REALS, VIP},
        millis,
        routed::{FAR, INSIDE, NEAR, Routed},
        secs, wait_until,
        web::WebServer,
        xvs::{Engine, Xvs},
    },
};

pub(crate) fn tests() -> Vec<Test> {
    let both: [Subject; 5] = [
        ("udp::flows_keep_their_real_server_through_dr", direct),
        ("udp::flows_keep_their_real_server_through_nat", translated),
        ("udp::datagrams_in_fragments_arrive_whole", fragments),
        ("udp::a_flow_moves_when_its_real_server_fails", failure),
        (
            "udp::a_flow_moves_when_its_real_server_fails_and_is_inhibited",
            inhibited_failure,
        ),
    ];
    let tests = both.into_iter();
    tests
        .flat_map(|(name, run)| Test::on_both_engines(name, run))
        .collect()
}

/// The service's port, and the one that NAT's real servers have.
const PORT: u16 = 5353;
const INNER: u16 = 5354;

fn vip() -> SocketAddr {
    SocketAddr::from((VIP, PORT))
}

/// A virtual server for UDP on [`PORT`] in front of these real servers.
fn config(kind: &str, lines: &str, reals: &[String]) -> String {
    let lines = format!("lb_algo rr\n    lb_kind {kind}\n    protocol UDP\n    {lines}");
    virtual_server(&format!("{VIP} {PORT}"), &lines, reals)
}

fn direct_config(lines: &str) -> String {
    let reals = REALS.map(|real| unchecked(&format!("{real} {PORT}"), ""));
    config("DR", lines, &reals)
}

fn translated_config(lines: &str) -> String {
    let reals = INSIDE.map(|real| unchecked(&format!("{real} {INNER}"), ""));
    config("NAT", lines, &reals)
}

fn serve_lan(lan: &Lan) -> Vec<Server> {
    let hosts = lan.reals.iter();
    hosts.map(|host| Server::udp_echo(host, vip())).collect()
}

fn serve_inside(net: &Routed) -> Vec<Server> {
    let hosts = net.reals.iter().zip(INSIDE);
    hosts
        .map(|(host, own)| Server::udp_echo(host, SocketAddr::from((own, INNER))))
        .collect()
}

/// Nine flows of three questions: each flow has one real server, all together have three.
fn ask_flows(host: &Host, address: impl Into<IpAddr>) -> Vec<UdpSocket> {
    let address = address.into();
    host.inside(|| {
        let sockets = (0..9).map(|_| udp_client(address, vip()).expect("a socket"));
        let sockets: Vec<UdpSocket> = sockets.collect();
        let mut all = BTreeSet::new();
        for socket in &sockets {
            let answers = (0..3).map(|_| ask_udp(socket, b"who is there?"));
            let answers: io::Result<BTreeSet<String>> = answers.collect();
            let answers = answers.unwrap_or_else(|e| panic!("no answer: {e}"));
            assert_eq!(answers.len(), 1, "one flow, several servers: {answers:?}");
            all.extend(answers);
        }
        assert_eq!(all.len(), 3, "{all:?}");
        sockets
    })
}

/// Nine questions of one flow, each to the next real server in turn.
fn ask_one_by_one(host: &Host, address: impl Into<IpAddr>) {
    let address = address.into();
    let answers: io::Result<Vec<String>> = host.inside(|| {
        let socket = udp_client(address, vip())?;
        (0..9).map(|_| ask_udp(&socket, b"who is next?")).collect()
    });
    let answers = answers.unwrap_or_else(|e| panic!("no answer: {e}"));
    for three in answers.windows(3) {
        let different: BTreeSet<&String> = three.iter().collect();
        assert_eq!(different.len(), 3, "{answers:?}");
    }
}

fn inactive(lb: &Xvs<'_>) -> u64 {
    let list = lb.list();
    let reals = list["services"][0]["reals"].as_array();
    let counts = reals.into_iter().flatten();
    counts.filter_map(|real| real["inactive"].as_u64()).sum()
}

fn direct(engine: Engine) {
    let lan = Lan::new();
    lan.hold_vip();
    let _servers = serve_lan(&lan);
    // Forgotten after two seconds.
    let config = direct_config("") + "global_defs {\n lvs_timeouts udp 2\n}\n";
    let lb = Xvs::start(&lan, &lan.lb1, &config, engine);
    lb.wait_until_ready();
    ask_flows(&lan.client, CLIENT);
    wait_until("nine flows are known", secs(2), || inactive(&lb) == 9);
    wait_until("and forgotten", secs(8), || inactive(&lb) == 0);
    lb.stop();

    let lb = Xvs::start(&lan, &lan.lb1, &direct_config("ops"), engine);
    lb.wait_until_ready();
    ask_one_by_one(&lan.client, CLIENT);
    assert_eq!(inactive(&lb), 0, "nothing is remembered");
    lb.stop();
}

fn translated(engine: Engine) {
    let net = Routed::new();
    let _servers = serve_inside(&net);
    let lb = Xvs::start(&net, &net.lb, &translated_config(""), engine);
    lb.wait_until_ready();
    ask_flows(&net.near, NEAR);
    ask_flows(&net.far, FAR);
    lb.stop();
}

/// Datagrams of one frame, of two, of six and of as many as there can be.
fn ask_in_fragments(host: &Host, address: impl Into<IpAddr>) {
    let address = address.into();
    let content = noise(65_000);
    let done: io::Result<()> = host.inside(|| {
        for length in [1400, 1600, 8000, 65_000] {
            let socket = udp_client(address, vip())?;
            for _ in 0..3 {
                ask_udp(&socket, &content[..length])
                    .map_err(|e| io::Error::new(e.kind(), format!("{length} bytes: {e}")))?;
            }
        }
        Ok(())
    });
    done.unwrap_or_else(|e| panic!("{e}"));
}

fn fragments(engine: Engine) {
    let lan = Lan::new();
    lan.hold_vip();
    let _servers = serve_lan(&lan);
    let lb = Xvs::start(&lan, &lan.lb1, &direct_config(""), engine);
    lb.wait_until_ready();
    ask_in_fragments(&lan.client, CLIENT);
    lb.stop();

    let net = Routed::new();
    let _servers = serve_inside(&net);
    let lb = Xvs::start(&net, &net.lb, &translated_config(""), engine);
    lb.wait_until_ready();
    ask_in_fragments(&net.far, FAR);
    lb.stop();
}

/// Health is seen by a web server beside the UDP service.
fn failure(engine: Engine) {
    fail(engine, "", "Removing service");
}

/// The real server stays in the pool then, with weight 0.
fn inhibited_failure(engine: Engine) {
    fail(engine, "inhibit_on_failure", "Disabling service");
}

fn fail(engine: Engine, line: &str, said: &str) {
    let lan = Lan::new();
    lan.hold_vip();
    let mut servers = serve_lan(&lan);
    let mut web = WebServer::start_all(&lan);
    let check = REALS.map(|real| {
        let own = format!("{real} {PORT}");
        let with_port = checked(&own, line);
        with_port.replace("TCP_CHECK {", "TCP_CHECK {\nconnect_port 80\n")
    });
    let lb = Xvs::start(&lan, &lan.lb1, &config("DR", "", &check), engine);
    lb.wait_until_ready();
    let sockets = ask_flows(&lan.client, CLIENT);
    let name = |socket: &UdpSocket| lan.client.inside(|| ask_udp(socket, b"still?"));
    let moving: Vec<&UdpSocket> = sockets
        .iter()
        .filter(|socket| name(socket).is_ok_and(|name| name == "real1"))
        .collect();
    assert_eq!(moving.len(), 3);
    let mark = lb.mark();
    servers.remove(0);
    web.remove(0).kill();
    let gone = format!("{said} [{}]", REALS[0]);
    lb.wait_for_line(mark, &gone, secs(5));
    for socket in moving {
        socket
            .set_read_timeout(Some(millis(200)))
            .expect("a timeout");
        wait_until("the flow has another real server", secs(1), || {
            name(socket).is_ok_and(|name| name != "real1")
        });
    }
    lb.stop();
}
