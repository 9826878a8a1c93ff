//! A running box gets another configuration, by `xvs reload` and by SIGHUP, and clients do not notice.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    thread,
};

use crate::{
    Test,
    support::{
        client::{ask, connect, curl, get_and_reset, server_of, shares, wrk},
        config::{service, vrrp, vrrp_with},
        lan::{CLIENT, Lan, REALS, VIP, further_clients},
        millis, now, secs, wait_until,
        web::WebServer,
        xvs::{Engine, Xvs},
    },
};

pub(crate) fn tests() -> Vec<Test> {
    let mut tests: Vec<Test> = Vec::new();
    tests.extend(Test::on_both_engines(
        "reload::a_hundred_reloads_under_load_fail_no_request",
        a_hundred_reloads_under_load_fail_no_request,
    ));
    tests.extend(Test::on_both_engines(
        "reload::a_removed_real_server_keeps_its_connections_and_gets_no_new_ones",
        a_removed_real_server_keeps_its_connections_and_gets_no_new_ones,
    ));
    tests.push(Test::new(
        "reload::connections_to_a_removed_real_server_are_cut_if_the_file_says_so",
        connections_to_a_removed_real_server_are_cut_if_the_file_says_so,
    ));
    tests.push(Test::new(
        "reload::persistent_clients_of_a_removed_real_server_get_another",
        persistent_clients_of_a_removed_real_server_get_another,
    ));
    tests.push(Test::new(
        "reload::what_is_down_stays_down_until_its_check_passes",
        what_is_down_stays_down_until_its_check_passes,
    ));
    tests.push(Test::new(
        "reload::a_file_with_errors_changes_nothing_and_says_why",
        a_file_with_errors_changes_nothing_and_says_why,
    ));
    tests.push(Test::new(
        "reload::virtual_servers_come_and_go",
        virtual_servers_come_and_go,
    ));
    tests.push(Test::new(
        "reload::two_boxes_that_boot_have_one_master_whatever_is_reloaded",
        two_boxes_that_boot_have_one_master_whatever_is_reloaded,
    ));
    tests
}

fn http() -> SocketAddr {
    SocketAddr::from((VIP, 80))
}

fn a_hundred_reloads_under_load_fail_no_request(engine: Engine) {
    let lan = Lan::new();
    let _web = WebServer::start_all(&lan);
    let lines = "lb_algo wrr";
    let files: Vec<String> = [
        service(80, lines, &[1, 1, 1]),
        service(80, lines, &[5, 1, 2]),
        service(80, "lb_algo wlc", &[1, 1]),
        service(8080, "lb_algo rr", &[1, 1]) + &service(80, "lb_algo sh", &[1, 1, 1]),
        service(80, "lb_algo rr\n    persistence_timeout 30", &[1, 1, 1]),
        service(80, "lb_algo mh\n    quorum 2", &[3, 1, 1]),
    ]
    .map(|service| vrrp("MASTER", 254) + &service)
    .into();
    let lb = Xvs::start(&lan, &lan.lb1, &files[0], engine);
    lb.wait_for_master();
    let load = thread::scope(|scope| {
        let load = scope.spawn(|| wrk(&lan.client, http(), 20, 12));
        for n in 0..100 {
            let file = &files[n % files.len()];
            // Half of them by a signal: both ways are there.
            lb.reload(file, n % 2 == 0);
        }
        load.join().expect("wrk has run")
    });
    assert_eq!(load.failures, 0, "{load:?}");
    assert!(load.requests > 500, "{load:?}");
    let log = lb.log();
    assert!(!log.contains("BACKUP STATE\n"), "{log}");
    lb.stop();
}

/// A connection to each of the three real servers, by its name.
fn one_to_each(lan: &Lan) -> Vec<(String, TcpStream)> {
    lan.client.inside(|| {
        let mut found: Vec<(String, TcpStream)> = Vec::new();
        for _ in 0..12 {
            let mut stream = connect(CLIENT, http(), secs(2)).expect("the VIP accepts");
            let answer = ask(&mut stream).expect("the VIP answers");
            let name = server_of(&answer).to_owned();
            if found.iter().all(|(known, _)| *known != name) {
                found.push((name, stream));
            }
        }
        assert_eq!(found.len(), 3, "one to each real server");
        found
    })
}

fn a_removed_real_server_keeps_its_connections_and_gets_no_new_ones(engine: Engine) {
    let lan = Lan::new();
    let _web = WebServer::start_all(&lan);
    let config = |weights: &[u32]| vrrp("MASTER", 254) + &service(80, "lb_algo rr", weights);
    let lb = Xvs::start(&lan, &lan.lb1, &config(&[1, 1, 1]), engine);
    lb.wait_for_master();
    let mut open = one_to_each(&lan);

    lb.reload(&config(&[1, 1]), false);
    let answers = curl(&lan.client, CLIENT, http(), 60, 6);
    let shares = shares(&answers);
    assert_eq!(shares.len(), 2, "{shares:?}");
    assert!(!shares.contains_key("real3"), "{shares:?}");
    lan.client.inside(|| {
        for (name, stream) in &mut open {
            let answer = ask(stream).unwrap_or_else(|e| panic!("{name} has left: {e}"));
            assert_eq!(server_of(&answer), name);
        }
    });
    let drained = |lb: &Xvs<'_>| {
        let list = lb.list();
        let reals = list["services"][0]["reals"]
            .as_array()
            .expect("reals")
            .len();
        reals == 2
    };
    assert!(!drained(&lb), "it has a connection");

    // There again, before it has drained: with its connections, and counted on.
    lb.reload(&config(&[1, 1, 1]), false);
    let rows = lb.rows(80);
    let third = rows
        .iter()
        .find(|row| row.address == format!("{}:80", REALS[2]));
    assert_eq!(third.map(|row| row.active), Some(1), "{rows:?}");
    lb.stop();
}

fn connections_to_a_removed_real_server_are_cut_if_the_file_says_so() {
    let lan = Lan::new();
    let _web = WebServer::start_all(&lan);
    let config = |weights: &[u32]| {
        let cut = "xvs {\n    cut_removed yes\n}\n";
        vrrp("MASTER", 254) + &service(80, "lb_algo rr", weights) + cut
    };
    let lb = Xvs::start(&lan, &lan.lb1, &config(&[1, 1, 1]), Engine::AfXdp);
    lb.wait_for_master();
    let mut open = one_to_each(&lan);
    lb.reload(&config(&[1, 1]), false);
    lan.client.inside(|| {
        for (name, stream) in &mut open {
            let answer = ask(stream);
            if name == "real3" {
                let error = answer.expect_err("it was cut");
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
            } else {
                answer.unwrap_or_else(|e| panic!("{name} was cut, too: {e}"));
            }
        }
    });
    lb.stop();
}

fn persistent_clients_of_a_removed_real_server_get_another() {
    let lan = Lan::new();
    let _web = WebServer::start_all(&lan);
    let lines = "lb_algo rr\n    persistence_timeout 300";
    let config = |weights: &[u32]| vrrp("MASTER", 254) + &service(80, lines, weights);
    let lb = Xvs::start(&lan, &lan.lb1, &config(&[1, 1, 1]), Engine::AfXdp);
    lb.wait_for_master();
    let clients: Vec<Ipv4Addr> = further_clients().take(9).collect();
    let servers = || -> Vec<String> {
        lan.client.inside(|| {
            let ask = |client: &Ipv4Addr| {
                let answer = get_and_reset(*client, http())
                    .unwrap_or_else(|e| panic!("{client} has no answer: {e}"));
                server_of(&answer).to_owned()
            };
            clients.iter().map(ask).collect()
        })
    };
    let before = servers();
    assert!(before.iter().any(|name| name == "real3"), "{before:?}");
    lb.reload(&config(&[1, 1]), true);
    let after = servers();
    for (client, (old, new)) in clients.iter().zip(before.iter().zip(&after)) {
        if old == "real3" {
            assert_ne!(new, "real3", "{client}");
        } else {
            assert_eq!(new, old, "{client} has no reason to leave");
        }
    }
    // It is a new bond: back in the file, the real server gets none of them again.
    lb.reload(&config(&[1, 1, 1]), false);
    assert_eq!(servers(), after);
    lb.stop();
}

fn what_is_down_stays_down_until_its_check_passes() {
    let lan = Lan::new();
    let web = WebServer::start_all(&lan);
    let config = |more: &str| {
        let text = service(80, "lb_algo rr", &[1, 1]);
        let text = text.replace("connect_timeout 1", &format!("connect_timeout 1\n{more}"));
        vrrp("MASTER", 254) + &text
    };
    let lb = Xvs::start(&lan, &lan.lb1, &config(""), Engine::AfXdp);
    lb.wait_for_master();
    let mut web = web.into_iter();
    web.next().expect("real1").kill();
    let mark = lb.mark();
    let down = format!("Removing service [{}]:tcp:80", REALS[0]);
    lb.wait_for_line(0, &down, secs(10));
    // Another question is asked (from a port of its own), in a while.
    lb.reload(&config("bind_port 4711\nwarmup 60"), false);
    let end = now() + millis(700);
    while now() < end {
        let rows = lb.rows(80);
        assert_eq!(rows.len(), 1, "{rows:?}");
    }
    let log = lb.log();
    assert!(!log[mark..].contains("Adding service"), "{log}");
    // And with the check that passes it is there.
    let _web = WebServer::start(&lan, &lan.reals[0]);
    lb.reload(&config(""), false);
    wait_until("the real server is back", secs(5), || {
        lb.rows(80).len() == 2
    });
    lb.stop();
}

fn a_file_with_errors_changes_nothing_and_says_why() {
    let lan = Lan::new();
    let _web = WebServer::start_all(&lan);
    let good = vrrp("MASTER", 254) + &service(80, "lb_algo rr", &[1, 1, 1]);
    let lb = Xvs::start(&lan, &lan.lb1, &good, Engine::AfXdp);
    lb.wait_for_master();
    let before = lb.rows(80);
    let mark = lb.mark();
    let wrong = good.replacen(
        "lb_algo rr",
        "lb_algo rr\n    persistence_granularity 255.0.255.0",
        1,
    );
    lb.write(&wrong);
    let output = lb.ask(&["reload"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr);
    let line = 1 + wrong[..wrong.find("255.0.255.0").expect("it is there")]
        .matches('\n')
        .count();
    assert!(told.contains("what runs stays as it is"), "{told}");
    assert!(told.contains(&format!("lb1.conf:{line}:")), "{told}");
    assert!(
        told.contains("granularity 255.0.255.0"),
        "the line is shown: {told}"
    );
    lb.wait_for_line(mark, "reload: refused, what runs stays as it is", secs(2));
    assert_eq!(lb.rows(80), before);
    let answers = curl(&lan.client, CLIENT, http(), 30, 6);
    assert_eq!(shares(&answers).len(), 3);
    // Gone altogether.
    std::fs::remove_file(lb.config()).expect("the file was there");
    let output = lb.ask(&["reload"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    // The same as it was: nothing is different.
    lb.write(&good);
    assert_eq!(lb.tell(&["reload"]), "nothing is different\n");
    // And it says what is.
    lb.write(&good.replacen("weight 1", "weight 4", 1));
    let told = lb.tell(&["reload"]);
    let expected = format!(
        "virtual server [{VIP}]:tcp:80: real server {}:80: weight 4 (was 1)\n",
        REALS[0]
    );
    assert_eq!(told, expected);
    lb.stop();
}

fn virtual_servers_come_and_go() {
    let lan = Lan::new();
    let _web = WebServer::start_all(&lan);
    let first = vrrp("MASTER", 254) + &service(80, "lb_algo rr", &[1, 1, 1]);
    let second = service(8080, "lb_algo rr", &[1, 1]);
    let lb = Xvs::start(&lan, &lan.lb1, &first, Engine::AfXdp);
    lb.wait_for_master();
    let target = SocketAddr::from((VIP, 8080));
    let refused = || {
        let kind = lan
            .client
            .inside(|| connect(CLIENT, target, secs(2)).map_err(|e| e.kind()));
        kind.err() == Some(std::io::ErrorKind::ConnectionRefused)
    };
    assert!(refused(), "nobody is there");
    lb.reload(&(first.clone() + &second), false);
    let answers = curl(&lan.client, CLIENT, target, 40, 4);
    assert_eq!(shares(&answers).len(), 2);
    lb.reload(&first, false);
    wait_until("the host answers for the port again", secs(2), refused);
    // In the place of the one that was: with counters of its own, from zero.
    lb.reload(&(second + &first), false);
    let list = lb.list();
    let services = list["services"].as_array().expect("services");
    let ports: Vec<_> = services.iter().map(|one| one["port"].as_u64()).collect();
    assert_eq!(ports, [Some(8080), Some(80)], "the order of the file");
    let counted: BTreeSet<_> = services[0]["reals"]
        .as_array()
        .expect("reals")
        .iter()
        .map(|real| real["connections"].as_u64())
        .collect();
    assert_eq!(counted, BTreeSet::from([Some(0)]));
    let answers = curl(&lan.client, CLIENT, target, 40, 4);
    assert_eq!(shares(&answers).len(), 2);
    lb.stop();
}

fn two_boxes_that_boot_have_one_master_whatever_is_reloaded() {
    let lan = Lan::new();
    let _web = WebServer::start_all(&lan);
    let config = |state, priority, lines: &str| {
        vrrp_with(state, priority, "1111", lines) + &service(80, "lb_algo rr", &[1, 1, 1])
    };
    let first = Xvs::start(&lan, &lan.lb1, &config("MASTER", 150, ""), Engine::AfXdp);
    let second = Xvs::start(&lan, &lan.lb2, &config("BACKUP", 100, ""), Engine::AfXdp);
    // Before that nobody listens to signals.
    for lb in [&first, &second] {
        lb.wait_for_line(0, "Starting xvs", secs(10));
    }
    // All the while they boot and elect, and beyond.
    let end = now() + secs(7);
    let mut both = 0;
    let mut n = 0;
    while now() < end {
        n += 1;
        let lines = if n % 2 == 0 {
            "garp_master_repeat 3"
        } else {
            ""
        };
        first.reload(&config("MASTER", 150, lines), true);
        second.reload(&config("BACKUP", 100, lines), true);
        let held = [&lan.lb1, &lan.lb2].map(|host| host.has_address(VIP));
        both += usize::from(held == [true, true]);
        thread::sleep(millis(50));
    }
    assert_eq!(both, 0, "both had the VIP");
    wait_until("the first is master", secs(4), || lan.lb1.has_address(VIP));
    assert!(!lan.lb2.has_address(VIP));
    let masters = first.log().matches("Entering MASTER STATE").count();
    assert_eq!(masters, 1, "{}", first.log());
    second.stop();
    first.stop();
}
