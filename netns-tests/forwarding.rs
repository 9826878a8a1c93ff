//! Requests of real clients reach real web servers, through DR.

use std::{net::SocketAddr, thread};

use crate::{
    Test,
    support::{
        client::{ask, assert_shares, connect, curl, shares, wrk},
        config::{seed, seed_for_backup, service, vrrp},
        lan::{CLIENT, FURTHER_CLIENTS, Lan, REALS, VIP, further_clients},
        millis, secs, wait_until,
        web::WebServer,
        xvs::{Engine, Row, Xvs},
    },
};

pub(crate) fn tests() -> Vec<Test> {
    let mut tests: Vec<Test> = Vec::new();
    tests.extend(Test::on_each_engine(
        "forwarding::ten_thousand_requests_are_spread_by_weight_and_none_fails",
        ten_thousand_requests_are_spread_by_weight_and_none_fails,
    ));
    tests.extend(Test::on_each_engine(
        "forwarding::the_seed_configuration_runs_on_two_boxes",
        the_seed_configuration_runs_on_two_boxes,
    ));
    tests.push(Test::new(
        "forwarding::load_from_many_connections_is_carried_without_an_error",
        load_from_many_connections_is_carried_without_an_error,
    ));
    tests.push(Test::new(
        "forwarding::the_table_shows_active_and_inactive_connections_as_ipvsadm_does",
        the_table_shows_active_and_inactive_connections_as_ipvsadm_does,
    ));
    tests
}

fn http() -> SocketAddr {
    SocketAddr::from((VIP, 80))
}

fn ten_thousand_requests_are_spread_by_weight_and_none_fails(engine: Engine) {
    const REQUESTS: usize = 10_000;
    let lan = Lan::new();
    let web = WebServer::start_all(&lan);
    let config = vrrp("MASTER", 254)
        + &service(80, "lb_algo wrr", &[3, 2, 1])
        + &service(8080, "lb_algo rr", &[1, 1, 1]);
    let lb = Xvs::start(&lan, &lan.lb1, &config, engine);
    lb.wait_for_master();

    let answers = curl(&lan.client, CLIENT, http(), REQUESTS, 50);
    assert_shares(&shares(&answers), REQUESTS, &[3, 2, 1]);
    for answer in &answers {
        assert!(
            answer.ends_with(&format!(" {CLIENT}")),
            "the server saw {answer:?}"
        );
    }
    wait_until("nginx has logged every request", secs(2), || {
        web.iter()
            .map(|server| server.clients().len())
            .sum::<usize>()
            == REQUESTS
    });
    for server in &web {
        let others = server.clients();
        assert!(others.iter().all(|client| *client == CLIENT.to_string()));
    }

    let equal = SocketAddr::from((VIP, 8080));
    let answers = curl(&lan.client, CLIENT, equal, 300, 10);
    assert_shares(&shares(&answers), 300, &[1, 1, 1]);
    lb.stop();
}

fn load_from_many_connections_is_carried_without_an_error() {
    let lan = Lan::new();
    let _web = WebServer::start_all(&lan);
    let config = vrrp("MASTER", 254) + &service(80, "lb_algo rr", &[1, 1, 1]);
    let lb = Xvs::start(&lan, &lan.lb1, &config, Engine::AfXdp);
    lb.wait_for_master();
    let load = wrk(&lan.client, http(), 200, 5);
    assert_eq!(load.failures, 0, "{load:?}");
    assert!(load.requests >= 2_000, "{load:?}");
    lb.stop();
}

fn the_table_shows_active_and_inactive_connections_as_ipvsadm_does() {
    let lan = Lan::new();
    let _web = WebServer::start_all(&lan);
    let config = vrrp("MASTER", 254)
        + &service(80, "lb_algo wrr\n    persistence_timeout 300", &[3, 2, 1])
        + &service(8080, "lb_algo rr", &[1, 1, 1]);
    let lb = Xvs::start(&lan, &lan.lb1, &config, Engine::AfXdp);
    lb.wait_for_master();

    let text = lb.tell(&["list"]);
    let (first, rest) = text.split_once('\n').expect("more than one line");
    assert!(
        first.starts_with("IP Virtual Server version 1.2.1 (size="),
        "{first}"
    );
    let expected = "\
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  10.0.0.148:80 wrr persistent 300
  -> 10.0.0.137:80                Route   3      0          0         \n\
\u{20} -> 10.0.0.139:80                Route   2      0          0         \n\
\u{20} -> 10.0.0.141:80                Route   1      0          0         \n\
TCP  10.0.0.148:8080 rr
  -> 10.0.0.137:8080              Route   1      0          0         \n\
\u{20} -> 10.0.0.139:8080              Route   1      0          0         \n\
\u{20} -> 10.0.0.141:8080              Route   1      0          0         \n";
    assert_eq!(rest, expected);

    let open: Vec<_> = lan.client.inside(|| {
        let target = SocketAddr::from((VIP, 8080));
        let streams = (0..6).map(|_| {
            let mut stream = connect(CLIENT, target, secs(2)).expect("the VIP accepts");
            ask(&mut stream).expect("the VIP answers");
            stream
        });
        streams.collect()
    });
    assert_rows(&lb, 2, 0);
    drop(open);
    assert_rows(&lb, 0, 2);

    let json: serde_json::Value = serde_json::from_str(&lb.tell(&["list", "--json"]))
        .unwrap_or_else(|e| panic!("xvs list --json: {e}"));
    let json = json.to_string();
    for real in REALS {
        assert!(json.contains(&real.to_string()), "{json}");
    }
    lb.stop();
}

/// Every real server on port 8080 has these connections, as soon as the counts are published.
fn assert_rows(lb: &Xvs<'_>, active: usize, inactive: usize) {
    let expected = REALS.map(|address| Row {
        address: format!("{address}:8080"),
        forward: "Route".to_owned(),
        weight: 1,
        active,
        inactive,
    });
    let what = format!("{active} active and {inactive} inactive connections each");
    wait_until(&what, secs(3), || lb.rows(8080) == expected);
}

fn the_seed_configuration_runs_on_two_boxes(engine: Engine) {
    let lan = Lan::new();
    let _web = WebServer::start_all(&lan);
    let first = Xvs::start(&lan, &lan.lb1, &seed(), engine);
    let second = Xvs::start(&lan, &lan.lb2, &seed_for_backup(), engine);
    first.wait_for_master();
    assert!(!lan.lb2.has_address(VIP), "both boxes hold the VIP");
    assert!(
        first
            .tell(&["list"])
            .contains("TCP  10.0.0.148:80 rr persistent 50\n")
    );

    let answers = curl(&lan.client, CLIENT, http(), 20, 5);
    assert_eq!(
        shares(&answers).len(),
        1,
        "a client changed its server: {answers:?}"
    );
    let spread: Vec<String> = further_clients()
        .flat_map(|client| curl(&lan.client, client, http(), 1, 1))
        .collect();
    let spread = shares(&spread);
    assert!(
        spread.len() == 2
            && spread
                .values()
                .all(|n| *n >= usize::from(FURTHER_CLIENTS) / 2),
        "clients are spread over two servers of equal weight: {spread:?}"
    );

    first.kill();
    second.wait_for_master();
    thread::sleep(millis(100)); // For the gratuitous ARP to be through; a slower one is a failure.
    let answers = curl(&lan.client, CLIENT, http(), 100, 10);
    assert_eq!(shares(&answers).len(), 1, "{answers:?}");
    second.stop();
}
