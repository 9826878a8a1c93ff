//! Are the instruments true? They are held against events of known length, without xvs.

use std::{net::SocketAddr, thread};

use crate::{
    Test,
    support::{
        client::{curl, read_wrk, shares, wrk},
        config::vrrp,
        keepalived::Keepalived,
        lan::{CLIENT, FURTHER_CLIENTS, Lan, REALS, VIP, further_clients},
        millis,
        probe::Prober,
        secs, wait_until,
        web::WebServer,
    },
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new(
            "harness::clients_are_who_they_say",
            clients_are_who_they_say,
        ),
        Test::new(
            "harness::the_report_of_wrk_is_read",
            the_report_of_wrk_is_read,
        ),
        Test::new("harness::an_outage_is_seen_as_long_as_it_is", outage).alone(),
        Test::new(
            "harness::keepalived_takes_the_time_it_is_known_for",
            keepalived_pair,
        )
        .alone(),
    ]
}

fn clients_are_who_they_say() {
    let lan = Lan::new();
    let web = WebServer::start_all(&lan);
    let target = SocketAddr::from((REALS[0], 80));
    let clients = further_clients().flat_map(|client| {
        let answers = curl(&lan.client, client, target, 1, 1);
        assert_eq!(answers, [format!("real1 {client}")]);
        answers
    });
    assert_eq!(clients.count(), usize::from(FURTHER_CLIENTS));
    let answers = curl(&lan.client, CLIENT, target, 500, 20);
    assert_eq!(shares(&answers).get("real1"), Some(&500));
    wait_until("nginx has logged every request", secs(2), || {
        web[0].clients().len() == usize::from(FURTHER_CLIENTS) + 500
    });
    let load = wrk(&lan.client, target, 20, 1);
    assert_eq!(load.failures, 0, "{load:?}");
}

fn the_report_of_wrk_is_read() {
    let report = "Running 2s test @ http://10.0.0.148:80/
  1 threads and 10 connections
  5123 requests in 2.00s, 1.01MB read
  Socket errors: connect 1, read 2, write 0, timeout 4
  Non-2xx or 3xx responses: 3
Requests/sec:   2561.50\n";
    let load = read_wrk(report);
    assert_eq!((load.requests, load.failures), (5123, 10));
}

fn outage() {
    let lan = Lan::new();
    let web = WebServer::start(&lan, &lan.reals[0]);
    let prober = Prober::start(&lan.client, &[CLIENT], SocketAddr::from((REALS[0], 80)));
    prober.wait_for_answers(100, secs(5));
    web.kill();
    thread::sleep(millis(500));
    let _web = WebServer::start(&lan, &lan.reals[0]);
    prober.wait_for_answers(50, secs(5));
    let report = prober.finish();
    assert!(report.longest_gap >= millis(500), "{report:?}");
    assert!(report.longest_gap < millis(900), "{report:?}");
    assert!(
        report.resets > 30 && report.resets == report.failures,
        "{report:?}"
    );
}

/// Two boxes that serve the VIP themselves: an orderly stop costs the skew of priority 100, 609 ms.
fn keepalived_pair() {
    let lan = Lan::new();
    let _web = [&lan.lb1, &lan.lb2].map(|host| WebServer::start(&lan, host));
    let first = Keepalived::start(&lan, &lan.lb1, &vrrp("MASTER", 150));
    let _second = Keepalived::start(&lan, &lan.lb2, &vrrp("BACKUP", 100));
    wait_until("lb1 is master", secs(8), || lan.lb1.has_address(VIP));
    let prober = Prober::start(&lan.client, &[CLIENT], SocketAddr::from((VIP, 80)));
    prober.wait_for_answers(100, secs(5));
    first.stop();
    wait_until("lb2 is master", secs(2), || lan.lb2.has_address(VIP));
    prober.wait_for_answers(100, secs(5));
    let report = prober.finish();
    assert!(report.longest_gap >= millis(550), "{report:?}");
    assert!(report.longest_gap <= millis(709), "{report:?}");
    assert_eq!(report.shares.len(), 2, "{report:?}");
}
