//! Connections that outlive the engine: it dies or is started anew, and they go on.

use std::{
    net::{SocketAddr, TcpStream},
    path::Path,
};

use serde_json::Value;

use crate::{
    Subject, Test,
    support::{
        client::{ask, connect, read_wrk, server_of},
        config::{unchecked, virtual_server, vrrp},
        echo::{Server, ask_udp, udp_client},
        host::Host,
        lan::{CLIENT, LB1, Lan, REALS, VIP, mac_of},
        process::Process,
        routed::{INSIDE, NEAR, Routed},
        secs, wait_until,
        web::WebServer,
        xvs::{Engine, Xvs, forwarded, number, sum},
    },
};

/// What the steering program can be on.
const ENGINES: [Engine; 2] = [Engine::AfXdp, Engine::GenericXdp];
const FAST: &str = "\nxvs {\n    fast_path on\n}\n";
/// How many connections there are.
const STREAMS: u64 = 6;

pub(crate) fn tests() -> Vec<Test> {
    let subjects: [Subject; 6] = [
        (
            "takeover::connections_go_on_while_the_engine_is_dead_and_are_the_next_ones",
            killed,
        ),
        ("takeover::a_restart_in_order_keeps_connections", restarted),
        (
            "takeover::connections_go_on_without_a_daemon_if_asked_to",
            left,
        ),
        (
            "takeover::a_master_that_dies_and_comes_back_has_its_connections",
            master,
        ),
        (
            "takeover::who_comes_back_as_backup_forwards_nothing",
            backup,
        ),
        (
            "takeover::translated_flows_are_taken_over_by_address",
            translated,
        ),
    ];
    let each = subjects.into_iter().flat_map(|(name, run)| {
        ENGINES.map(|engine| Test::new(&format!("{name}::{}", engine.name()), move || run(engine)))
    });
    let load = Test::new("takeover::nobody_under_load_loses_a_connection", under_load);
    let unused = Test::new(
        "takeover::an_interface_that_is_not_used_any_more_loses_the_program",
        unused,
    );
    each.chain([load, unused]).collect()
}

fn http() -> SocketAddr {
    SocketAddr::from((VIP, 80))
}

fn web(lines: &str) -> String {
    let reals = REALS.map(|real| unchecked(&format!("{real} 80"), ""));
    let lines = format!("lb_algo rr\n    lb_kind DR\n    protocol TCP\n    {lines}");
    virtual_server(&format!("{VIP} 80"), &lines, &reals) + FAST
}

fn start<'a>(place: &impl AsRef<Path>, host: &'a Host, config: &str, engine: Engine) -> Xvs<'a> {
    let lb = Xvs::start(place, host, config, engine);
    lb.wait_until_ready();
    lb
}

/// Open connections with the real servers that they went to.
struct Streams(Vec<(TcpStream, String)>);

impl Streams {
    /// Opens them, and asks until the program has them all.
    fn open(lan: &Lan, lb: &Xvs<'_>) -> Self {
        let mut streams = lan.client.inside(|| {
            let open = |_| {
                let mut stream = connect(CLIENT, http(), secs(8)).expect("a connection");
                let answer = ask(&mut stream).expect("an answer");
                (stream, server_of(&answer).to_owned())
            };
            Self((0..STREAMS).map(open).collect())
        });
        for _ in 0..20 {
            streams.ask();
        }
        assert!(forwarded(lb) > 60);
        assert_eq!(sum(lb, "active"), STREAMS);
        // What was counted is kept for the next run from time to time.
        wait_until("a sample was taken", secs(5), || {
            streams.ask();
            number(&lb.list()["services"][0]["rates"]["connections"]) > 0
        });
        streams
    }

    /// Each gets an answer, of the same real server as before.
    fn ask(&mut self) {
        for (stream, server) in &mut self.0 {
            let answer = ask(stream).expect("the connection goes on");
            assert_eq!(server_of(&answer), server);
        }
    }
}

/// The next engine has them all, with their counters, forwards them below, and sees them end.
fn assert_taken_over(lb: &Xvs<'_>, mut streams: Streams, packets: u64) {
    let said = format!("took over {STREAMS} connections of the previous run");
    assert!(lb.log().contains(&said), "{}", lb.log());
    assert_eq!(sum(lb, "active"), STREAMS);
    assert_eq!(sum(lb, "connections"), STREAMS, "connections so far");
    let before = (sum(lb, "packets_in"), forwarded(lb));
    assert!(before.0 >= packets, "{before:?}, {packets} before");
    for _ in 0..20 {
        streams.ask();
    }
    let after = (sum(lb, "packets_in"), forwarded(lb));
    assert!(after.1 > before.1 + 60, "{before:?} {after:?}");
    assert!(after.0 > before.0 + 60, "{before:?} {after:?}");
    drop(streams);
    wait_until("all have ended", secs(5), || {
        (sum(lb, "active"), sum(lb, "inactive")) == (0, STREAMS)
    });
}

fn killed(engine: Engine) {
    let lan = Lan::that_takes_redirected();
    let _web = WebServer::start_all(&lan);
    lan.hold_vip();
    let lb = start(&lan, &lan.lb1, &web(""), engine);
    let mut streams = Streams::open(&lan, &lb);
    let packets = sum(&lb, "packets_in");
    lb.kill();
    for _ in 0..20 {
        streams.ask();
    }
    let lb = start(&lan, &lan.lb1, &web(""), engine);
    // What came while nobody ran is counted, too.
    assert_taken_over(&lb, streams, packets + 60);
    lb.stop();
}

fn restarted(engine: Engine) {
    let lan = Lan::that_takes_redirected();
    let _web = WebServer::start_all(&lan);
    // Without an address the host resets nothing of what comes late between stop and start.
    let config = vrrp("MASTER", 100) + &web("persistence_timeout 60");
    let lb = start(&lan, &lan.lb1, &config, engine);
    lb.wait_for_master();
    let mut streams = Streams::open(&lan, &lb);
    let packets = sum(&lb, "packets_in");
    lb.stop();
    let lb = start(&lan, &lan.lb1, &config, engine);
    lb.wait_for_master();
    // The client stays where it is also with what is new.
    let (_, server) = &streams.0[0];
    let own = server.clone();
    lan.client.inside(|| {
        for _ in 0..4 {
            let mut stream = connect(CLIENT, http(), secs(2)).expect("a connection");
            let answer = ask(&mut stream).expect("an answer");
            assert_eq!(server_of(&answer), own);
            streams.0.push((stream, own.clone()));
        }
    });
    streams.0.drain(streams.0.len() - 4..);
    wait_until("the others have ended", secs(5), || {
        sum(&lb, "inactive") == 4
    });
    streams.ask();
    assert!(sum(&lb, "packets_in") > packets);
    assert_eq!(
        (sum(&lb, "active"), sum(&lb, "connections")),
        (STREAMS, STREAMS + 4)
    );
    lb.stop();
}

fn left(engine: Engine) {
    let lan = Lan::that_takes_redirected();
    let _web = WebServer::start_all(&lan);
    lan.hold_vip();
    let arguments = [engine.arguments(), &["--dont-release-ipvs"]].concat();
    let lb = Xvs::start_with(&lan, &lan.lb1, &web(""), &arguments);
    lb.wait_until_ready();
    let mut streams = Streams::open(&lan, &lb);
    let packets = sum(&lb, "packets_in");
    lb.stop_and_leave("established connections go on without a daemon");
    for _ in 0..20 {
        streams.ask();
    }
    let lb = start(&lan, &lan.lb1, &web(""), engine);
    assert_taken_over(&lb, streams, packets + 60);
    lb.stop();
}

fn master(engine: Engine) {
    let lan = Lan::that_takes_redirected();
    let _web = WebServer::start_all(&lan);
    let config = vrrp("MASTER", 100) + &web("");
    let lb = start(&lan, &lan.lb1, &config, engine);
    lb.wait_for_master();
    let mut streams = Streams::open(&lan, &lb);
    let packets = sum(&lb, "packets_in");
    // Its guardian takes the address off.
    lb.kill_engine();
    assert!(!lan.lb1.has_address(VIP));
    let lb = start(&lan, &lan.lb1, &config, engine);
    lb.wait_for_master();
    streams.ask();
    assert_taken_over(&lb, streams, packets);
    lb.stop();
}

fn backup(engine: Engine) {
    let lan = Lan::that_takes_redirected();
    let _web = WebServer::start_all(&lan);
    let config = vrrp("MASTER", 100) + &web("");
    let lb = start(&lan, &lan.lb1, &config, engine);
    lb.wait_for_master();
    let mut streams = Streams::open(&lan, &lb);
    // The client does not hear of the next master.
    let mac = mac_of(LB1);
    lan.client.ip(&format!(
        "neigh replace {VIP} lladdr {mac} dev eth0 nud permanent"
    ));
    lb.kill_engine();
    let other = Xvs::start(
        &lan,
        &lan.lb2,
        &config.replace("priority 100", "priority 254"),
        engine,
    );
    other.wait_for_master();
    let lb = start(&lan, &lan.lb1, &config, engine);
    lb.wait_for_backup(0);
    let (stream, _) = &mut streams.0[0];
    stream.set_read_timeout(Some(secs(1))).expect("a timeout");
    let asked = ask(stream);
    assert!(asked.is_err(), "{asked:?}");
    assert_eq!((forwarded(&lb), sum(&lb, "active")), (0, STREAMS));
    other.stop();
    lb.wait_for_master();
    let (stream, _) = &mut streams.0[1];
    ask(stream).expect("it has them still");
    lb.stop();
}

fn translated(engine: Engine) {
    const PORT: u16 = 5353;
    const INNER: u16 = 5354;
    let net = Routed::that_takes_redirected();
    let inner = |real| SocketAddr::from((INSIDE[real], INNER));
    let _echoes = [0, 1].map(|real| Server::udp_echo(&net.reals[real], inner(real)));
    let config = |reals: &[usize]| {
        let reals: Vec<String> = (reals.iter())
            .map(|real| unchecked(&format!("{} {INNER}", INSIDE[*real]), ""))
            .collect();
        let lines = "lb_algo rr\n    lb_kind NAT\n    protocol UDP";
        virtual_server(&format!("{VIP} {PORT}"), lines, &reals) + FAST
    };
    let lb = start(&net, &net.lb, &config(&[0, 1]), engine);
    let clients: Vec<_> = net.near.inside(|| {
        let open = |_| udp_client(NEAR, SocketAddr::from((VIP, PORT))).expect("a socket");
        (0..4).map(open).collect()
    });
    let ask_all = || -> Vec<Option<String>> {
        let asked = clients.iter().map(|client| ask_udp(client, b"hello").ok());
        asked.collect()
    };
    let first = ask_all();
    for _ in 0..20 {
        assert_eq!(ask_all(), first);
    }
    lb.kill();
    assert_eq!(ask_all(), first, "while nobody runs");
    // In another order, beside one that is new: which slots they have is of no matter.
    let lb = start(&net, &net.lb, &config(&[2, 1, 0]), engine);
    for _ in 0..20 {
        assert_eq!(ask_all(), first);
    }
    assert!(forwarded(&lb) > 100);
    lb.kill();
    // A real server that is not there any more.
    let lb = start(&net, &net.lb, &config(&[1]), engine);
    let said = "took over 2 connections of the previous run; 2 connections of it have no real server any more";
    assert!(lb.log().contains(said), "{}", lb.log());
    let then = ask_all();
    let second = "real2".to_owned();
    assert_eq!(then, vec![Some(second); 4]);
    lb.stop();
}

/// `wrk` on connections that last, and a stream of `iperf3`, while the engine is killed and started three times.
fn under_load() {
    let lan = Lan::that_takes_redirected();
    let _web = WebServer::start_all(&lan);
    lan.hold_vip();
    let mut server = lan.reals[0].command("iperf3");
    server.args(["--server", "--forceflush", "--bind", &VIP.to_string()]);
    let server = Process::spawn("iperf3", &mut server, &lan.as_ref().join("iperf3.log"));
    wait_until("iperf3 listens", secs(5), || {
        server.log().contains("Server listening")
    });
    let lines = "lb_algo rr\n    lb_kind DR\n    protocol TCP";
    let iperf = unchecked(&format!("{} 5201", REALS[0]), "");
    let config = virtual_server(&format!("{VIP} 5201"), lines, &[iperf]) + &web("");
    let mut lb = start(&lan, &lan.lb1, &config, Engine::AfXdp);

    let run = |program: &str, arguments: &[&str]| {
        let mut command = lan.client.command(program);
        command.args(arguments);
        let log = lan.as_ref().join(format!("{program}-client.log"));
        Process::spawn(&format!("{program} on the client"), &mut command, &log)
    };
    let url = format!("http://{VIP}/");
    let vip = VIP.to_string();
    let wrk = [
        "--threads=1",
        "--connections=50",
        "--duration=12s",
        "--timeout=2s",
        &url,
    ];
    let mut wrk = run("wrk", &wrk);
    // Not as fast as it can, or nothing else has the processors.
    let iperf = [
        "--client",
        &vip,
        "--time",
        "12",
        "--bitrate",
        "50M",
        "--json",
    ];
    let mut iperf = run("iperf3", &iperf);
    wait_until("all have connected", secs(5), || sum(&lb, "active") >= 52);
    for _ in 0..3 {
        wait_until("the program has them", secs(5), || forwarded(&lb) > 1000);
        lb.kill();
        lb = start(&lan, &lan.lb1, &config, Engine::AfXdp);
        assert!(lb.log().contains("took over 5"), "{}", lb.log());
    }
    assert!(wrk.wait(secs(20)).success());
    let load = read_wrk(&wrk.log());
    assert_eq!(load.failures, 0, "{load:?}");
    assert!(iperf.wait(secs(20)).success(), "{}", iperf.log());
    let report: Value = serde_json::from_str(&iperf.log()).expect("iperf3 prints JSON");
    let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
    assert!(bits.is_some_and(|bits| bits > 40e6), "{bits:?}");
    lb.stop();
}

/// What it goes on with would never hear of any change again.
fn unused() {
    let lan = Lan::that_takes_redirected();
    let _web = WebServer::start_all(&lan);
    lan.hold_vip();
    for words in [
        "link add eth5 type veth peer name eth5-peer",
        "link set eth5-peer up",
        "link set eth5 up",
        "addr add 198.51.100.11/24 dev eth5",
        "neigh replace 198.51.100.12 lladdr 02:00:00:00:00:77 dev eth5 nud permanent",
    ] {
        lan.lb1.ip(words);
    }
    let has_program = || lan.lb1.ip("link show dev eth5").contains("xdp");
    let other = unchecked("198.51.100.12 80", "");
    let lines = "lb_algo rr\n    lb_kind DR\n    protocol TCP";
    let both = web("") + &virtual_server(&format!("{VIP} 81"), lines, &[other]);
    let lb = start(&lan, &lan.lb1, &both, Engine::AfXdp);
    let mut streams = Streams::open(&lan, &lb);
    assert!(has_program());
    lb.kill();
    assert!(has_program());
    let lb = start(&lan, &lan.lb1, &web(""), Engine::AfXdp);
    assert!(!has_program(), "{}", lb.log());
    let said = "eth5: removed the native steering program of a previous run";
    assert!(lb.log().contains(said), "{}", lb.log());
    streams.ask();
    lb.stop();
}
