//! The fast path: established connections forwarded by the steering program itself, with real clients and servers.
//!
//! All other tests of forwarding can be run with it, too: `XVS_TEST_FAST_PATH=1 cargo test --test netns`.

use std::{
    collections::BTreeSet,
    io::Read as _,
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    Subject, Test,
    support::{
        client::{ask, connect, fetch, upload, wrk},
        config::{checked, unchecked, virtual_server, vrrp},
        echo::{LOOK, Server, ask_udp, noise, receipt_for, udp_client},
        host::Host,
        lan::{CLIENT, LB1, Lan, REALS, VIP, mac_of},
        now,
        routed::{FAR, INSIDE, NEAR, Routed},
        secs, wait_until,
        web::WebServer,
        xvs::{Engine, Xvs, forwarded, number, sum},
    },
};

/// What the steering program can be on.
const ENGINES: [Engine; 2] = [Engine::AfXdp, Engine::GenericXdp];

pub(crate) fn tests() -> Vec<Test> {
    let subjects: [Subject; 7] = [
        (
            "fast_path::requests_on_lasting_connections_go_the_fast_way_through_dr",
            direct,
        ),
        (
            "fast_path::requests_and_answers_go_the_fast_way_through_nat",
            translated,
        ),
        (
            "fast_path::every_datagram_is_counted_once_whichever_way_it_goes",
            datagrams,
        ),
        (
            "fast_path::a_connection_is_inactive_once_its_end_was_seen",
            states,
        ),
        (
            "fast_path::a_real_server_that_fails_loses_its_flows",
            failure,
        ),
        (
            "fast_path::a_flow_that_only_the_program_sees_does_not_expire",
            lasting,
        ),
        (
            "fast_path::who_does_not_hold_the_vip_any_more_forwards_nothing",
            withdrawn,
        ),
    ];
    let each = subjects.into_iter().flat_map(|(name, run)| {
        ENGINES.map(|engine| Test::new(&format!("{name}::{}", engine.name()), move || run(engine)))
    });
    let lossy = Test::new(
        "fast_path::a_cable_whose_other_end_loses_redirected_frames_stays_with_the_workers_until_it_does_not",
        lossy_cable,
    );
    let downgrade = Test::new(
        "fast_path::a_way_out_that_begins_to_lose_redirected_frames_costs_what_is_in_flight_and_no_connection",
        downgrade,
    );
    each.chain([lossy, downgrade]).collect()
}

const FAST: &str = "\nxvs {\n    fast_path on\n}\n";
/// The service's port, and the one that NAT's real servers have.
const PORT: u16 = 5353;
const INNER: u16 = 5354;

fn http() -> SocketAddr {
    SocketAddr::from((VIP, 80))
}

/// A virtual server in front of these real servers.
fn service(port: u16, kind: &str, protocol: &str, reals: &[String]) -> String {
    let lines = format!("lb_algo rr\n    lb_kind {kind}\n    protocol {protocol}");
    virtual_server(&format!("{VIP} {port}"), &lines, reals)
}

fn start<'a>(
    place: &impl AsRef<std::path::Path>,
    host: &'a Host,
    config: &str,
    engine: Engine,
) -> Xvs<'a> {
    let lb = Xvs::start(place, host, &format!("{config}{FAST}"), engine);
    lb.wait_until_ready();
    lb
}

fn direct(engine: Engine) {
    let lan = Lan::that_takes_redirected();
    let _web = WebServer::start_all(&lan);
    lan.hold_vip();
    let reals = REALS.map(|real| unchecked(&format!("{real} 80"), ""));
    let lb = start(&lan, &lan.lb1, &service(80, "DR", "TCP", &reals), engine);
    let load = wrk(&lan.client, http(), 20, 2);
    assert_eq!(load.failures, 0, "{load:?}");
    let (fast, all) = (forwarded(&lb), sum(&lb, "packets_in"));
    // A request is a packet, and its answer is acknowledged by the next one.
    assert!(fast > load.requests as u64 / 2, "{fast} of {all}, {load:?}");
    assert!(all >= fast, "{fast} of {all}");
    lb.stop();
}

fn translated(engine: Engine) {
    let net = Routed::that_takes_redirected();
    let web = WebServer::start(&net, &net.reals[0]);
    let content = noise(20_000_000);
    web.offer(&content);
    let sink = Server::tcp_sink(&net.reals[0], SocketAddr::from((INSIDE[0], 9001)));
    let one = |port: u16, inner: u16| {
        let real = unchecked(&format!("{} {inner}", INSIDE[0]), "");
        service(port, "NAT", "TCP", &[real])
    };
    let config = one(80, 8080) + &one(9000, 9001);
    let lb = start(&net, &net.lb, &config, engine);
    for host in [&net.far, &net.near] {
        let before = (forwarded(&lb), sum(&lb, "bytes_out"));
        let got = fetch(host, &format!("http://{VIP}/file"));
        assert!(got == content, "{} of 20,000,000 bytes", got.len());
        let after = (forwarded(&lb), sum(&lb, "bytes_out"));
        // Each way at least as many packets as hold the content, by far the most of them below.
        assert!(after.0 - before.0 > 12_000, "{before:?} {after:?}");
        assert!(after.1 - before.1 > 20_000_000, "{before:?} {after:?}");
    }
    let target = SocketAddr::from((VIP, 9000));
    let receipt = net.far.inside(|| upload(FAR, target, &content));
    assert_eq!(receipt.unwrap_or_default(), receipt_for(&content));
    drop(sink);
    lb.stop();
}

fn datagrams(engine: Engine) {
    const COUNT: u64 = 200;
    let net = Routed::that_takes_redirected();
    let inner = SocketAddr::from((INSIDE[0], INNER));
    let _echo = Server::udp_echo(&net.reals[0], inner);
    let real = unchecked(&inner.to_string().replace(':', " "), "");
    let lb = start(&net, &net.lb, &service(PORT, "NAT", "UDP", &[real]), engine);
    let content = noise(500);
    net.near.inside(|| {
        let socket = udp_client(NEAR, SocketAddr::from((VIP, PORT))).expect("a socket");
        for _ in 0..COUNT {
            ask_udp(&socket, &content).expect("an answer");
        }
    });
    let counts = ["packets_in", "packets_out", "bytes_in", "bytes_out"].map(|what| sum(&lb, what));
    assert_eq!(counts[..2], [COUNT, COUNT], "{counts:?}");
    // IP and UDP headers; the answer begins with the real server's name.
    assert_eq!(counts[2], COUNT * (500 + 28), "{counts:?}");
    assert_eq!(counts[3], COUNT * (500 + 28 + "real1 ".len() as u64));
    let list = lb.list();
    let (fast, steered) = (forwarded(&lb), number(&list["frames"]["received"]));
    assert!(fast > COUNT, "{fast} below, {steered} by the workers");
    lb.stop();
}

fn states(engine: Engine) {
    let lan = Lan::that_takes_redirected();
    let _web = WebServer::start_all(&lan);
    lan.hold_vip();
    let reals = REALS.map(|real| unchecked(&format!("{real} 80"), ""));
    let lb = start(&lan, &lan.lb1, &service(80, "DR", "TCP", &reals), engine);
    let counts = || (sum(&lb, "active"), sum(&lb, "inactive"));
    let mut streams: Vec<TcpStream> = lan.client.inside(|| {
        let open = |_| connect(CLIENT, http(), secs(2)).expect("a connection");
        (0..6).map(open).collect()
    });
    for _ in 0..20 {
        for stream in &mut streams {
            ask(stream).expect("an answer");
        }
    }
    assert!(forwarded(&lb) > 60);
    assert_eq!(counts(), (6, 0));
    drop(streams);
    wait_until("all have ended", secs(2), || counts() == (0, 6));
    assert_eq!(sum(&lb, "connections"), 6);
    lb.stop();
}

fn failure(engine: Engine) {
    let lan = Lan::that_takes_redirected();
    let mut web = WebServer::start_all(&lan);
    lan.hold_vip();
    let reals = REALS.map(|real| checked(&format!("{real} 80"), ""));
    let config = service(80, "DR", "TCP", &reals);
    let resets = FAST.replace("on\n", "on\n    reset_on_failure yes\n");
    let lb = Xvs::start(&lan, &lan.lb1, &format!("{config}{resets}"), engine);
    lb.wait_until_ready();
    let mut streams: Vec<TcpStream> = lan.client.inside(|| {
        let open = |_| connect(CLIENT, http(), secs(2)).expect("a connection");
        (0..3).map(open).collect()
    });
    let mut answers = || -> Vec<bool> {
        let asked = streams.iter_mut().map(|stream| ask(stream).is_ok());
        asked.collect()
    };
    for _ in 0..20 {
        assert_eq!(answers(), [true; 3]);
    }
    let before = forwarded(&lb);
    assert!(before > 30, "{before}");
    web.remove(0).kill();
    wait_until("it has left the pool", secs(10), || {
        let rows = lb.rows(80);
        rows.len() == 2
    });
    let left = answers();
    assert_eq!(left.iter().filter(|ok| **ok).count(), 2, "{left:?}");
    lb.stop();
}

fn lasting(engine: Engine) {
    let net = Routed::that_takes_redirected();
    let inner = SocketAddr::from((INSIDE[0], INNER));
    let _echo = Server::udp_echo(&net.reals[0], inner);
    let real = unchecked(&inner.to_string().replace(':', " "), "");
    let short = FAST.replace("on\n", "on\n    timeouts { udp 2\n }\n");
    let config = service(PORT, "NAT", "UDP", &[real]) + &short;
    let lb = Xvs::start(&net, &net.lb, &config, engine);
    lb.wait_until_ready();
    let start = now();
    let seen = net.near.inside(|| {
        let socket = udp_client(NEAR, SocketAddr::from((VIP, PORT))).expect("a socket");
        while start.elapsed() < secs(6) {
            ask_udp(&socket, b"still here").expect("an answer");
            std::thread::sleep(crate::support::millis(20));
        }
        sum(&lb, "connections")
    });
    assert_eq!(seen, 1, "it expired and began again");
    assert!(forwarded(&lb) > 300);
    wait_until("it expires once nothing comes", secs(10), || {
        sum(&lb, "inactive") + sum(&lb, "active") == 0
    });
    lb.stop();
}

fn withdrawn(engine: Engine) {
    let lan = Lan::that_takes_redirected();
    let _web = WebServer::start_all(&lan);
    let reals = REALS.map(|real| unchecked(&format!("{real} 80"), ""));
    let config = vrrp("MASTER", 100) + &service(80, "DR", "TCP", &reals);
    let lb = start(&lan, &lan.lb1, &config, engine);
    lb.wait_for_master();
    let mut stream = lan
        .client
        .inside(|| connect(CLIENT, http(), secs(2)).expect("a connection"));
    for _ in 0..20 {
        ask(&mut stream).expect("an answer");
    }
    assert!(forwarded(&lb) > 10);
    // Another one has it from now on, but the client does not hear of it.
    let mac = mac_of(LB1);
    lan.client.ip(&format!(
        "neigh replace {VIP} lladdr {mac} dev eth0 nud permanent"
    ));
    let mark = lb.mark();
    let other = Xvs::start(
        &lan,
        &lan.lb2,
        &config.replace("priority 100", "priority 254"),
        engine,
    );
    lb.wait_for_backup(mark);
    let before = forwarded(&lb);
    stream.set_read_timeout(Some(secs(1))).expect("a timeout");
    let mut byte = [0];
    let asked = ask(&mut stream);
    assert!(asked.is_err(), "{asked:?}");
    assert!(stream.read(&mut byte).map_or(true, |read| read == 0));
    assert_eq!(forwarded(&lb), before);
    other.stop();
    lb.stop();
}

fn lossy_cable() {
    let lan = Lan::new();
    let _web = WebServer::start_all(&lan);
    lan.hold_vip();
    lan.take_redirected(false);
    let reals = REALS.map(|real| unchecked(&format!("{real} 80"), ""));
    let config = service(80, "DR", "TCP", &reals);
    let lb = start(&lan, &lan.lb1, &config, Engine::AfXdp);
    let said = "fast path: eth0 no, the kernel says that it takes no redirected frames";
    lb.wait_for_line(0, said, secs(2));
    let load = wrk(&lan.client, http(), 5, 1);
    assert_eq!((load.failures, forwarded(&lb)), (0, 0));
    let mark = lb.mark();
    lan.take_redirected(true);
    lb.wait_for_line(mark, "fast path: eth0 yes", secs(3));
    let load = wrk(&lan.client, http(), 5, 1);
    assert!(load.failures == 0 && forwarded(&lb) > 0, "{load:?}");
    let io = lb.list()["io"].to_string();
    assert!(io.contains("fast path: eth0 yes"), "{io}");
    lb.stop();
}

/// Datagrams that arrived, by their numbers.
type Arrived = Arc<Mutex<BTreeSet<u64>>>;

/// A UDP service at the VIP that notes the numbers in the datagrams that it gets.
fn tally(host: &Host) -> (Server, Arrived) {
    let socket = host.inside(|| UdpSocket::bind((VIP, PORT)));
    let socket = socket.expect("a UDP socket");
    socket
        .set_read_timeout(Some(LOOK))
        .expect("a timeout can be set");
    let arrived = Arrived::default();
    let noted = Arc::clone(&arrived);
    let server = Server::start(host, move || {
        let mut number = [0; 8];
        while let Ok(8) = socket.recv(&mut number) {
            let is_new = noted
                .lock()
                .expect("nobody panicked")
                .insert(u64::from_be_bytes(number));
            assert!(is_new, "{number:?} came twice");
        }
    });
    (server, arrived)
}

fn downgrade() {
    let lan = Lan::that_takes_redirected();
    let _web = WebServer::start_all(&lan);
    lan.hold_vip();
    let (tally, arrived) = tally(&lan.reals[0]);
    let real = |port: u16| [unchecked(&format!("{} {port}", REALS[0]), "")];
    let config = service(80, "DR", "TCP", &real(80)) + &service(PORT, "DR", "UDP", &real(PORT));
    let lb = start(&lan, &lan.lb1, &config, Engine::AfXdp);
    let mut stream = lan
        .client
        .inside(|| connect(CLIENT, http(), secs(2)).expect("a connection"));
    let mut requests = || {
        for _ in 0..20 {
            ask(&mut stream).expect("an answer");
        }
    };
    let count = || arrived.lock().expect("nobody panicked").len();
    let grow = |what: &str, number: &dyn Fn() -> u64, by: u64| {
        let before = number();
        wait_until(what, secs(5), || number() >= before + by);
    };
    let done = AtomicBool::new(false);
    let begin = now();
    let (sent, time) = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            lan.client.inside(|| {
                let target = SocketAddr::from((VIP, PORT));
                let socket = udp_client(CLIENT, target).expect("a socket");
                let mut sent = 0_u64;
                while !done.load(Ordering::Relaxed) {
                    socket.send(&sent.to_be_bytes()).expect("it is sent");
                    sent += 1;
                    thread::sleep(Duration::from_micros(100));
                }
                (sent, begin.elapsed())
            })
        });
        let by_program = || forwarded(&lb);
        grow("the program forwards", &by_program, 500);
        requests();

        let mark = lb.mark();
        lan.take_redirected(false);
        let said = "fast path: eth0 no, the kernel says that it takes no redirected frames";
        lb.wait_for_line(mark, said, secs(2));
        let below = forwarded(&lb);
        grow("the workers forward", &|| count() as u64, 500);
        requests();
        assert_eq!(forwarded(&lb), below);

        let mark = lb.mark();
        lan.take_redirected(true);
        lb.wait_for_line(mark, "fast path: eth0 yes", secs(2));
        grow("the program forwards again", &by_program, 500);
        requests();
        done.store(true, Ordering::Relaxed);
        sender.join().expect("the sender")
    });
    let rate = sent as f64 / time.as_secs_f64();
    let lost = || sent - count() as u64;
    wait_until("the last datagram arrives", secs(2), || {
        arrived
            .lock()
            .expect("nobody panicked")
            .contains(&(sent - 1))
    });
    println!("{} of {sent} datagrams lost, at {rate:.0} a second", lost());
    // What a busy machine needs to hear of it and to write it down: far less than it takes to find out by asking.
    assert!((lost() as f64) < rate / 10.0, "{} of {sent}", lost());
    assert_eq!(sum(&lb, "connections"), 2);
    drop(tally);
    lb.stop();
}
