//! xvs dies without a word: its kernel must not speak for it, and the next start finds its way.

use std::{io, net::SocketAddr};

use crate::{
    Test,
    support::{
        client::{ask, connect, get},
        config::{service, vrrp},
        lan::{CLIENT, Lan, VIP},
        millis, secs,
        web::WebServer,
        xvs::{Engine, Xvs},
    },
};

pub(crate) fn tests() -> Vec<Test> {
    let mut tests: Vec<Test> = Vec::new();
    tests.extend(Test::on_each_engine(
        "crash::a_dead_box_is_silent_and_the_next_start_takes_over",
        a_dead_box_is_silent_and_the_next_start_takes_over,
    ));
    tests.extend(Test::on_each_engine(
        "crash::cleanup_removes_what_is_left",
        cleanup_removes_what_is_left,
    ));
    tests
}

fn http() -> SocketAddr {
    SocketAddr::from((VIP, 80))
}

fn config() -> String {
    vrrp("MASTER", 254) + &service(80, "lb_algo rr", &[1, 1, 1])
}

fn is_silence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Neither a connection of old nor a new one gets an answer: a reset would cut what another box,
/// or the next start, can still keep. With the fast path the program `goes_on` with those of old.
fn assert_silent(lan: &Lan, open: &mut std::net::TcpStream, goes_on: bool) {
    if goes_on {
        ask(open).expect("an answer by the program");
    } else {
        let error = ask(open).expect_err("an answer from the dead");
        assert!(is_silence(&error), "an open connection got {error}");
    }
    let error = lan.client.inside(|| connect(CLIENT, http(), millis(500)));
    let error = error.expect_err("a connection to the dead");
    assert!(is_silence(&error), "a new connection got {error}");
}

fn a_dead_box_is_silent_and_the_next_start_takes_over(engine: Engine) {
    let lan = Lan::new();
    let _web = WebServer::start_all(&lan);
    let lb = Xvs::start(&lan, &lan.lb1, &config(), engine);
    lb.wait_for_master();
    let mut open = lan.client.inside(|| {
        let mut stream = connect(CLIENT, http(), secs(1)).expect("the VIP accepts");
        ask(&mut stream).expect("the VIP answers");
        stream
    });
    let io = lb.list()["io"].to_string();
    let goes_on = io.contains("fast path: eth0 yes");
    lb.kill();
    assert!(
        lan.lb1.has_address(VIP),
        "the kernel has forgotten the VIP by itself"
    );
    assert_silent(&lan, &mut open, goes_on);

    let lb = Xvs::start(&lan, &lan.lb1, &config(), engine);
    lb.wait_for_line(0, "(VI_1) Entering MASTER STATE", secs(8));
    let answer = lan.client.inside(|| get(CLIENT, http(), secs(1)));
    assert!(answer.is_ok(), "{answer:?}");
    lb.stop();
}

fn cleanup_removes_what_is_left(engine: Engine) {
    let lan = Lan::new();
    let _web = WebServer::start_all(&lan);
    let lb = Xvs::start(&lan, &lan.lb1, &config(), engine);
    lb.wait_for_master();
    let file = lb.config();
    lb.kill();
    assert!(lan.lb1.has_address(VIP));
    assert_eq!(lan.lb1.has_xdp(), engine != Engine::AfPacket);

    // The second time there is nothing left to do, and that is no error.
    for _ in 0..2 {
        let output = Xvs::cleanup(&lan.lb1, &file);
        assert!(output.status.success(), "xvs cleanup: {output:?}");
        assert!(!lan.lb1.has_address(VIP), "the VIP is still there");
        assert!(!lan.lb1.has_xdp(), "the steering program is still attached");
    }
    // What is sent to the service's address and port is the host's again: it refuses.
    lan.lb1.ip(&format!("addr add {VIP}/32 dev eth0"));
    let error = lan
        .client
        .inside(|| connect(CLIENT, http(), secs(2)).map(|_| ()));
    assert_eq!(
        error.map_err(|e| e.kind()),
        Err(io::ErrorKind::ConnectionRefused)
    );
}
