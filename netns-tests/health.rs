//! Real servers that die leave the virtual server, and come back.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    thread::JoinHandle,
};

use crate::{
    Test,
    support::{
        client::{curl, get, shares},
        config::{service, vrrp},
        host::Host,
        lan::{CLIENT, Lan, REALS, VIP},
        millis,
        probe::Prober,
        secs, wait_until,
        web::WebServer,
        xvs::{Engine, Xvs},
    },
};

pub(crate) fn tests() -> Vec<Test> {
    let mut tests: Vec<Test> = Vec::new();
    tests.extend(Test::on_each_engine(
        "health::a_killed_server_gets_no_more_clients_until_it_is_back",
        a_killed_server_gets_no_more_clients_until_it_is_back,
    ));
    tests.push(Test::new(
        "health::quorum_is_lost_with_the_last_server_and_gained_with_the_first",
        quorum_is_lost_with_the_last_server_and_gained_with_the_first,
    ));
    tests.push(Test::new(
        "health::a_thousand_servers_are_checked_by_a_handful_of_threads",
        a_thousand_servers_are_checked_by_a_handful_of_threads,
    ));
    tests
}

fn http() -> SocketAddr {
    SocketAddr::from((VIP, 80))
}

fn a_killed_server_gets_no_more_clients_until_it_is_back(engine: Engine) {
    let lan = Lan::new();
    let mut web = WebServer::start_all(&lan);
    let config = vrrp("MASTER", 254) + &service(80, "lb_algo rr", &[1, 1, 1]);
    let lb = Xvs::start(&lan, &lan.lb1, &config, engine);
    lb.wait_for_master();
    let before = shares(&curl(&lan.client, CLIENT, http(), 60, 5));
    assert_eq!(before.len(), 3, "{before:?}");

    let mark = lb.mark();
    web.remove(1).kill();
    let removed = "Removing service [10.0.0.139]:tcp:80 from VS [10.0.0.148]:tcp:80";
    lb.wait_for_line(mark, removed, secs(5));
    let rows = lb.rows(80);
    assert!(
        rows.iter()
            .all(|row| !row.address.starts_with(&REALS[1].to_string())),
        "{rows:?}"
    );

    let prober = Prober::start(&lan.client, &[CLIENT], http());
    prober.wait_for_answers(200, secs(5));
    let report = prober.finish();
    assert_eq!(report.failures, 0, "{report:?}");
    assert!(!report.shares.contains_key("real2"), "{report:?}");
    assert_eq!(report.shares.len(), 2, "{report:?}");

    let mark = lb.mark();
    web.push(WebServer::start(&lan, &lan.reals[1]));
    let added = "Adding service [10.0.0.139]:tcp:80 to VS [10.0.0.148]:tcp:80";
    lb.wait_for_line(mark, added, secs(5));
    let after = shares(&curl(&lan.client, CLIENT, http(), 60, 5));
    assert_eq!(after.len(), 3, "{after:?}");
    lb.stop();
}

fn quorum_is_lost_with_the_last_server_and_gained_with_the_first() {
    let lan = Lan::new();
    let web = WebServer::start_all(&lan);
    let config = vrrp("MASTER", 254) + &service(80, "lb_algo rr\n    quorum 1", &[1, 1, 1]);
    let lb = Xvs::start(&lan, &lan.lb1, &config, Engine::AfXdp);
    lb.wait_for_master();
    let mark = lb.mark();
    let mut web = web.into_iter();
    for server in web.by_ref().take(2) {
        server.kill();
    }
    for address in [REALS[0], REALS[1]] {
        lb.wait_for_line(
            mark,
            &format!("Removing service [{address}]:tcp:80"),
            secs(5),
        );
    }
    assert!(
        !lb.log()[mark..].contains("Lost quorum"),
        "one server is enough"
    );
    let answer = lan.client.inside(|| get(CLIENT, http(), secs(1)));
    assert!(answer.is_ok_and(|answer| answer.starts_with("real3 ")));

    web.next().expect("a third server").kill();
    lb.wait_for_line(mark, "Lost quorum", secs(5));
    // By the box, as soon as its workers know: a machine whose server is dead refuses as well.
    wait_until("the box refuses", secs(1), || {
        let answer = lan.client.inside(|| get(CLIENT, http(), millis(500)));
        assert_eq!(
            answer.map_err(|error| error.kind()),
            Err(io::ErrorKind::ConnectionRefused),
            "without a server"
        );
        lb.count("replies", "unreachable-no-real") > 0
    });

    let mark = lb.mark();
    let _web = WebServer::start(&lan, &lan.reals[1]);
    lb.wait_for_line(mark, "Gained quorum", secs(5));
    wait_until("clients are served again", secs(1), || {
        let answer = lan.client.inside(|| get(CLIENT, http(), millis(300)));
        answer.is_ok_and(|answer| answer.starts_with("real2 "))
    });
    lb.stop();
}

/// Accepts connections on one port of a machine, and remembers to which addresses they came.
struct Listener {
    stop: Arc<AtomicBool>,
    asked: Arc<Mutex<BTreeSet<IpAddr>>>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    fn start(host: &Host, port: u16) -> Self {
        let listener = host
            .inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
            .unwrap_or_else(|e| panic!("port {port} of {}: {e}", host.role()));
        listener
            .set_nonblocking(true)
            .expect("a socket can be made non-blocking");
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(Mutex::new(BTreeSet::new()));
        let (end, addresses) = (Arc::clone(&stop), Arc::clone(&asked));
        let thread = thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        if let Ok(local) = stream.local_addr() {
                            let mut addresses =
                                addresses.lock().unwrap_or_else(PoisonError::into_inner);
                            addresses.insert(local.ip());
                        }
                    }
                    Err(_) => thread::sleep(millis(2)),
                }
            }
        });
        Self {
            stop,
            asked,
            thread: Some(thread),
        }
    }

    fn addresses(&self) -> usize {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn a_thousand_servers_are_checked_by_a_handful_of_threads() {
    const SERVERS: u32 = 1_000;
    let lan = Lan::new();
    let _web = WebServer::start_all(&lan);
    // All of 10.1.0.0/16 lives on the third real server.
    lan.reals[2].ip("route add local 10.1.0.0/16 dev lo");
    lan.lb1
        .ip(&format!("route add 10.1.0.0/16 via {}", REALS[2]));
    let listener = Listener::start(&lan.reals[2], 7000);

    let mut config = vrrp("MASTER", 254);
    for number in 0..SERVERS {
        let [_, _, high, low] = number.to_be_bytes();
        let port = 7000 + number / 100;
        if number % 100 == 0 {
            let close = if number == 0 { "" } else { "}\n" };
            let _ = write!(
                config,
                "{close}virtual_server {VIP} {port} {{\n delay_loop 2\n lb_algo rr\n lb_kind DR\n protocol TCP\n"
            );
        }
        let _ = writeln!(
            config,
            " real_server 10.1.{high}.{low} {port} {{ weight 1\n TCP_CHECK {{ connect_port 7000\n connect_timeout 1\n retry 0 }} }}"
        );
    }
    config.push_str("}\n");
    let lb = Xvs::start(&lan, &lan.lb1, &config, Engine::AfXdp);
    wait_until("every server has been checked", secs(15), || {
        u32::try_from(listener.addresses()) == Ok(SERVERS)
    });
    lb.wait_for_master();
    let threads: usize = lan
        .lb1
        .processes()
        .iter()
        .map(|process| tasks(*process))
        .sum();
    assert!(
        (1..=16).contains(&threads),
        "{threads} threads for {SERVERS} servers"
    );

    assert_eq!(
        u32::try_from(lb.tell(&["list"]).matches("-> 10.1.").count()),
        Ok(SERVERS)
    );
    let mark = lb.mark();
    drop(listener);
    wait_until("every server has left", secs(15), || {
        !lb.tell(&["list"]).contains("-> 10.1.")
    });
    // They are told of as one storm.
    let lines = lb.log()[mark..].matches("Removing service [10.1.").count();
    assert!((100..300).contains(&lines), "{lines} lines");
    assert!(
        lan.lb1.has_address(VIP),
        "the checks have cost the box its mastership"
    );
    lb.stop();
}

/// Threads of a process.
fn tasks(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/task")).map_or(0, Iterator::count)
}
