//! Real sockets on loopback, one poll, no thread.

use std::{
    collections::BTreeMap,
    env,
    fs::File,
    net::{Ipv4Addr, TcpListener},
    process::Command,
};

use mio::{Events, Poll};

use super::*;
use crate::{
    addr::{Endpoint, L4Proto},
    check::{Action, CheckerSettings, Health, Probe, RealSettings, ServiceName, VirtualSettings},
    lvs::{RealId, ServiceId},
};

const FIRST_TOKEN: usize = 16;
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The control loop in small.
struct Loop {
    poll: Poll,
    events: Events,
    probes: TcpProbes,
    start: std::time::Instant,
}

#[expect(clippy::disallowed_methods, reason = "stands in for the real clock")]
fn clock() -> std::time::Instant {
    std::time::Instant::now()
}

impl Loop {
    fn new(capacity: usize) -> Self {
        let poll = Poll::new().unwrap();
        let registry = poll.registry().try_clone().unwrap();
        Self {
            poll,
            events: Events::with_capacity(256),
            probes: TcpProbes::new(registry, FIRST_TOKEN, capacity),
            start: clock(),
        }
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.start.elapsed()
    }

    fn start(&mut self, id: u32, probe: &TcpProbe) -> Result<(), StartError> {
        self.probes.start(self.now(), CheckerId(id), probe)
    }

    /// One turn, at most until `until`.
    fn turn(&mut self, until: Instant) {
        let next = self
            .probes
            .poll_timeout()
            .map_or(until, |next| next.min(until));
        let wait = next - self.now();
        self.poll.poll(&mut self.events, Some(wait)).unwrap();
        for event in &self.events {
            self.probes.handle_event(event.token());
        }
        self.probes.handle_timeout(self.now());
    }

    /// Turns until `count` results are there.
    fn results(&mut self, count: usize) -> Vec<(CheckerId, ProbeResult)> {
        let deadline = self.now() + Duration::from_secs(30);
        let mut results = Vec::new();
        loop {
            results.extend(std::iter::from_fn(|| self.probes.poll_result()));
            if results.len() >= count {
                return results;
            }
            let now = self.now();
            assert!(now < deadline, "{} of {count} results", results.len());
            self.turn(deadline);
        }
    }
}

fn probe(target: SocketAddr, timeout: Duration) -> TcpProbe {
    TcpProbe {
        target,
        bind: None,
        timeout,
        mark: None,
    }
}

/// A listener with room for `backlog` + 1 connections that nobody accepts.
fn listener(backlog: i32) -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&LOOPBACK.into()).unwrap();
    socket.listen(backlog).unwrap();
    socket.into()
}

/// An address that answers nothing: its only place in the queue is taken by the second value.
fn silent() -> (TcpListener, std::net::TcpStream) {
    let listener = listener(0);
    let occupant = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener, occupant)
}

/// An address that refuses: bound, so that nobody else gets it, but not listening.
fn refusing() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&LOOPBACK.into()).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, addr)
}

#[test]
fn an_accepting_address_passes() {
    let listener = listener(8);
    let mut control = Loop::new(4);
    let probe = probe(listener.local_addr().unwrap(), Duration::from_secs(5));
    control.start(3, &probe).unwrap();
    assert_eq!(control.results(1), [(CheckerId(3), Ok(()))]);
    assert_eq!(control.probes.running(), 0);
    assert_eq!(control.probes.poll_timeout(), None);
}

#[test]
fn a_refusing_address_fails_with_the_reason() {
    let (_socket, addr) = refusing();
    let mut control = Loop::new(4);
    let probe = probe(addr, Duration::from_secs(5));
    control.start(3, &probe).unwrap();
    let (_, result) = control.results(1).pop().unwrap();
    assert_eq!(result.unwrap_err().to_string(), "connection refused");
}

#[test]
fn an_unreachable_address_fails_with_the_reason() {
    let mut control = Loop::new(4);
    // No TCP to a broadcast address: the kernel refuses it before any packet leaves.
    let probe = probe(
        "127.255.255.255:80".parse().unwrap(),
        Duration::from_secs(5),
    );
    control.start(3, &probe).unwrap();
    let (_, result) = control.results(1).pop().unwrap();
    assert_eq!(result.unwrap_err().to_string(), "network unreachable");
}

#[test]
fn a_silent_address_fails_at_its_timeout_and_not_before() {
    let (listener, _occupant) = silent();
    let timeout = Duration::from_millis(120);
    let mut control = Loop::new(4);
    let started = control.now();
    let probe = probe(listener.local_addr().unwrap(), timeout);
    control.start(3, &probe).unwrap();
    assert_eq!(control.probes.running(), 1);
    control.probes.handle_timeout(started + timeout / 2);
    assert!(control.probes.poll_result().is_none());
    assert_eq!(
        control.results(1),
        [(CheckerId(3), Err(ProbeError::Timeout))]
    );
    assert!(control.now() - started >= timeout);
}

#[test]
fn a_connection_that_stands_when_a_late_loop_looks_has_passed() {
    // The queue is full when the probe starts and drained when the kernel sends its SYN again.
    let (listener, _occupant) = silent();
    let mut control = Loop::new(4);
    let probe = probe(listener.local_addr().unwrap(), Duration::from_millis(1));
    control.start(3, &probe).unwrap();
    drop(listener.accept().unwrap());
    // Nobody looks at events or timeouts until the other side has seen the connection.
    listener.accept().unwrap();
    let late = control.now() + Duration::from_secs(1);
    control.probes.handle_timeout(late);
    assert_eq!(control.probes.poll_result(), Some((CheckerId(3), Ok(()))));
}

#[test]
fn a_thousand_probes_at_once_on_one_loop() {
    let good = listener(4096);
    let (_socket, bad) = refusing();
    let (quiet, _occupant) = silent();
    let targets = [good.local_addr().unwrap(), bad, quiet.local_addr().unwrap()];
    let mut control = Loop::new(1000);
    let mut results = Vec::new();
    let mut most = 0;
    for id in 0..1000_u32 {
        let probe = probe(targets[id as usize % 3], Duration::from_secs(2));
        // Where the limit of descriptors is low some have to wait, as in control.
        while let Err(error) = control.start(id, &probe) {
            assert!(matches!(error, StartError::Descriptors(_)), "{error}");
            results.extend(control.results(1));
        }
        most = most.max(control.probes.running());
    }
    results.extend(control.results(1000 - results.len()));
    assert!(most >= 300, "only {most} at once");
    let by_id: BTreeMap<_, _> = results.into_iter().collect();
    assert_eq!(by_id.len(), 1000, "some answered twice");
    for (id, result) in by_id {
        match id.0 % 3 {
            0 => assert_eq!(result, Ok(())),
            1 => assert!(matches!(result, Err(ProbeError::Connect(_))), "{result:?}"),
            _ => assert_eq!(result, Err(ProbeError::Timeout)),
        }
    }
}

#[test]
fn a_stale_token_does_not_touch_the_probe_that_uses_the_slot_now() {
    let (quiet, _occupant) = silent();
    let good = listener(8);
    let mut control = Loop::new(1);
    let first = control.probes.token(0);
    let quick = probe(quiet.local_addr().unwrap(), Duration::from_millis(1));
    control.start(1, &quick).unwrap();
    let late = control.now() + Duration::from_secs(1);
    control.probes.handle_timeout(late);
    assert_eq!(
        control.probes.poll_result(),
        Some((CheckerId(1), Err(ProbeError::Timeout)))
    );
    // The slot is used again, for a connection that is not established yet.
    let slow = probe(quiet.local_addr().unwrap(), Duration::from_secs(20));
    control.start(2, &slow).unwrap();
    let second = control.probes.token(0);
    assert_ne!(first, second);
    // Now it is established; only its own token may say so.
    drop(quiet.accept().unwrap());
    quiet.accept().unwrap();
    control.probes.handle_event(first);
    control.probes.handle_event(Token(FIRST_TOKEN - 1));
    control.probes.handle_event(Token(usize::MAX));
    assert!(control.probes.poll_result().is_none());
    control.probes.handle_event(second);
    assert_eq!(control.probes.poll_result(), Some((CheckerId(2), Ok(()))));
    control.probes.handle_event(second);
    assert!(control.probes.poll_result().is_none(), "one result a probe");
    drop(good);
}

#[test]
fn generations_wrap_within_the_range_of_tokens() {
    let mut control = Loop::new(4);
    control.probes.slots[3].generation = GENERATIONS - 1;
    let last = control.probes.token(3);
    assert_eq!(last.0, FIRST_TOKEN + 4 * GENERATIONS - 1);
    assert_eq!(control.probes.slot_of(last), Some(3));
    control.probes.slots[3].generation += 1;
    assert_eq!(control.probes.token(3), Token(FIRST_TOKEN + 3));
    assert_eq!(control.probes.slot_of(last), None);
}

#[test]
fn a_full_house_is_not_a_failed_real_server() {
    let (quiet, _occupant) = silent();
    let mut control = Loop::new(1);
    let probe = probe(quiet.local_addr().unwrap(), Duration::from_secs(5));
    control.start(1, &probe).unwrap();
    let error = control.start(2, &probe).unwrap_err();
    assert_eq!(error.deferral(), Deferral::Descriptors);
}

#[test]
fn the_source_address_is_used_and_must_be_ours() {
    let listener = listener(8);
    let mut control = Loop::new(4);
    let from = |source: &str| TcpProbe {
        bind: Some(source.parse().unwrap()),
        ..probe(listener.local_addr().unwrap(), Duration::from_secs(5))
    };
    control.start(1, &from("127.0.0.9:0")).unwrap();
    assert_eq!(control.results(1), [(CheckerId(1), Ok(()))]);
    let (_, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip().to_string(), "127.0.0.9");
    // TEST-NET-1 is nobody's.
    let error = control.start(2, &from("192.0.2.77:0")).unwrap_err();
    assert_eq!(error.deferral(), Deferral::Address, "{error}");
    assert!(control.probes.poll_result().is_none());
}

/// The reason for `SO_LINGER` 0. After an orderly close the real server's own close would turn
/// each of these into TIME_WAIT.
#[test]
fn probes_leave_no_connection_behind() {
    let listener = listener(256);
    let target = listener.local_addr().unwrap();
    let mut control = Loop::new(200);
    for id in 0..200 {
        control
            .start(id, &probe(target, Duration::from_secs(5)))
            .unwrap();
    }
    assert_eq!(control.results(200).len(), 200);
    for _ in 0..200 {
        drop(listener.accept().unwrap());
    }
    // Column 3 is the remote address, column 4 the state; 06 is TIME_WAIT.
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    assert!(table.contains(" local_address rem_address   st "));
    let port = format!(":{:04X}", target.port());
    let ours = |line: &&str| {
        let remote = line.split_whitespace().nth(2);
        remote.is_some_and(|remote| remote.ends_with(&port))
    };
    let left: Vec<_> = table.lines().filter(ours).collect();
    assert!(left.is_empty(), "{} are left, as {}", left.len(), left[0]);
}

#[test]
fn local_shortages_are_told_from_the_answers_of_a_real_server() {
    let of = |errno| StartError::local(io::Error::from_raw_os_error(errno));
    for errno in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM] {
        assert_eq!(of(errno).unwrap().deferral(), Deferral::Descriptors);
    }
    assert_eq!(
        of(libc::EADDRNOTAVAIL).unwrap().deferral(),
        Deferral::Address
    );
    for errno in [libc::ECONNREFUSED, libc::EHOSTUNREACH, libc::ENETUNREACH] {
        assert!(of(errno).is_err(), "{errno} is the real server's answer");
    }
    let error = io::Error::from_raw_os_error(libc::EPERM);
    assert_eq!(StartError::of_setup(error).deferral(), Deferral::Setup);
}

/// Reliability: with no descriptor left no real server fails, and all is well by itself after.
/// The limit is the process's, so the test runs itself once more under a small one.
#[test]
fn descriptors_run_out_and_come_back() {
    const INNER: &str = "XVS_TEST_FEW_DESCRIPTORS";
    if env::var_os(INNER).is_some() {
        return few_descriptors();
    }
    let test = "control::checks::probes::tests::descriptors_run_out_and_come_back";
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""])
        .arg(env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INNER, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("the inner part ran"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn few_descriptors() {
    let listener = listener(256);
    let target = listener.local_addr().unwrap();
    let mut control = Loop::new(100);
    let mut health = Health::new(1);
    health.set(control.now(), &hundred_reals(target));
    let mut hoard: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(!hoard.is_empty());
    let mut said: Vec<String> = Vec::new();
    let mut deferred = 0;
    let deadline = control.now() + Duration::from_secs(30);
    let all_ran = |health: &Health| {
        (0..100).all(|n| {
            let real = crate::check::Member {
                vs: ServiceId(0),
                real: RealId(n),
            };
            health.checkers(real).all(|(_, checker)| checker.has_run())
        })
    };
    loop {
        let now = control.now();
        assert!(now < deadline, "not checked in time");
        while let Some((id, result)) = control.probes.poll_result() {
            health.handle_result(now, id, result);
        }
        if all_ran(&health) {
            break;
        }
        health.handle_timeout(now);
        while let Some(Action::Probe { checker, probe, .. }) = health.poll_action() {
            let Probe::Tcp(probe) = probe;
            if let Err(error) = control.probes.start(now, checker, &probe) {
                assert!(matches!(error, StartError::Descriptors(_)), "{error}");
                deferred += 1;
                assert!(deferred < 1_000, "attempts without a pause");
                health.handle_deferral(now, checker, error.deferral());
            }
        }
        if deferred == 3 {
            hoard.clear();
        }
        said.extend(std::iter::from_fn(|| health.poll_event()).map(|event| event.to_string()));
        let next = health.poll_timeout().unwrap_or(deadline);
        if control.probes.results.is_empty() {
            control.turn(next);
        }
    }
    said.extend(std::iter::from_fn(|| health.poll_event()).map(|event| event.to_string()));
    assert!(deferred >= 3);
    assert!(said.iter().any(|text| text.contains("no free descriptors")));
    let failures = said.iter().filter(|text| text.contains("failed")).count();
    assert_eq!(failures, 0, "{said:?}");
    assert!(
        health
            .pool(ServiceId(0))
            .unwrap()
            .reals()
            .all(|(_, real)| real.up)
    );
    println!("the inner part ran");
}

fn hundred_reals(target: SocketAddr) -> VirtualSettings {
    let endpoint = Endpoint::new(target.ip(), target.port());
    let checker = CheckerSettings {
        probe: Probe::Tcp(probe(target, Duration::from_secs(5))),
        retry: 0,
        delay_before_retry: Duration::from_millis(10),
        delay_loop: Duration::from_secs(60),
        warmup: Some(Duration::ZERO),
        alpha: false,
        log_all_failures: false,
    };
    let reals = (0..100).map(|n| RealSettings {
        id: RealId(n),
        endpoint,
        weight: 1,
        inhibit: false,
        checkers: vec![checker.clone()],
    });
    VirtualSettings {
        id: ServiceId(0),
        name: ServiceName {
            endpoint,
            protocol: L4Proto::Tcp,
        },
        quorum: 1,
        hysteresis: 0,
        sorry: None,
        reals: reals.collect(),
    }
}
