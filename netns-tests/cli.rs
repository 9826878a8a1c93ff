//! The command line: what is refused, with which place and exit status, and what is shown.

use std::{net::SocketAddr, process::Output};

use crate::{
    Test,
    support::{
        client::{ask, connect, curl},
        config::{seed, service, vrrp},
        lan::{CLIENT, LB1, Lan, REALS, VIP, further_clients},
        secs, wait_until,
        web::WebServer,
        xvs::{Engine, Xvs, write, xvs},
    },
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new(
            "cli::a_wrong_configuration_is_refused_with_its_place",
            wrong_configuration,
        ),
        Test::new(
            "cli::a_file_that_cannot_be_read_is_another_error",
            unreadable,
        ),
        Test::new(
            "cli::the_seed_configuration_is_checked_with_remarks",
            seed_is_checked,
        ),
        Test::new(
            "cli::the_engine_is_chosen_and_said_in_one_line",
            engine_is_said,
        ),
        Test::new(
            "cli::instances_are_shown_and_the_socket_is_private",
            instances_are_shown,
        ),
        Test::new(
            "cli::what_ran_is_shown_in_totals_rates_and_connections",
            what_ran_is_shown,
        ),
        Test::new("cli::a_second_run_on_the_same_box_is_refused", second_run),
    ]
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn wrong_configuration() {
    let lan = Lan::new();
    let file = lan.as_ref().join("wrong.conf");
    let text = vrrp("MASTER", 150).replace("priority 150", "priority 300")
        + &service(80, "lb_algo rr", &[1]).replace("10.0.0.137", "10.0.0.1337");
    write(&file, &text);
    let name = file.to_str().expect("the path is UTF-8");
    let places = ["priority 300", "10.0.0.1337"].map(|wrong| {
        let before = &text[..text.find(wrong).expect("the mistake is in the file")];
        format!("{name}:{}:", before.matches('\n').count() + 1)
    });
    let socket = lan.as_ref().join("s").display().to_string();
    for arguments in [
        vec!["check", "-f", name],
        vec!["run", "-f", name, "--socket", &socket],
    ] {
        let output = xvs(&lan.lb1, &arguments);
        let said = errors(&output);
        assert_eq!(output.status.code(), Some(1), "xvs {arguments:?}: {said}");
        for place in &places {
            let line = said.lines().find(|line| line.starts_with(place));
            let line = line.unwrap_or_else(|| panic!("nothing about {place} in\n{said}"));
            let column = line[place.len()..].split(':').next().map(str::parse::<u32>);
            assert!(matches!(column, Some(Ok(1..))), "no column in {line:?}");
            assert!(line.contains(": error: "), "{line}");
        }
    }
    assert!(!lan.lb1.has_xdp() && !lan.lb1.has_address(VIP));
}

fn unreadable() {
    let lan = Lan::new();
    let missing = lan.as_ref().join("missing.conf");
    let missing = missing.to_str().expect("the path is UTF-8");
    for arguments in [
        &["check", "-f", missing][..],
        &["run", "-f", missing],
        &["no-such-word"],
    ] {
        let output = xvs(&lan.lb1, arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "xvs {arguments:?}: {}",
            errors(&output)
        );
        assert!(!output.stderr.is_empty(), "xvs {arguments:?} says nothing");
    }
}

fn seed_is_checked() {
    let lan = Lan::new();
    let file = lan.as_ref().join("seed.conf");
    write(&file, &seed());
    let name = file.to_str().expect("the path is UTF-8");
    let output = xvs(&lan.lb1, &["check", "-f", name]);
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for remark in ["nb_get_retry", "nopreempt"] {
        let place = format!("{name}:");
        let told = said
            .lines()
            .any(|line| line.starts_with(&place) && line.contains(remark));
        assert!(told, "nothing about {remark} in\n{said}");
    }
    let effective = String::from_utf8_lossy(&output.stdout);
    assert!(effective.contains("10.0.0.148"), "{effective}");
}

fn engine_is_said() {
    let lan = Lan::new();
    let config = vrrp("MASTER", 254) + &service(80, "lb_algo rr", &[1, 1, 1]);
    let lb = Xvs::start_with(&lan, &lan.lb1, &config, &[]);
    lb.wait_for_master();
    let log = lb.log();
    // The best that veth has, with the reason why not better.
    let said = |line: &str| line.contains("native") && line.contains("zero-copy");
    assert!(log.lines().any(said), "no line about the engine:\n{log}");
    lb.stop();
}

fn instances_are_shown() {
    let lan = Lan::new();
    let config = vrrp("MASTER", 254) + &service(80, "lb_algo rr", &[1, 1, 1]);
    let lb = Xvs::start(&lan, &lan.lb1, &config, Engine::AfXdp);
    lb.wait_for_master();
    assert_eq!(lb.socket_mode(), 0o600);
    let shown = lb.tell(&["vrrp"]);
    let line = shown.lines().find(|line| line.contains("VI_1"));
    let line = line.unwrap_or_else(|| panic!("no VI_1 in {shown:?}"));
    for word in ["eth0", "51", "MASTER", "254", "10.0.0.148"] {
        assert!(line.contains(word), "no {word} in {line:?}");
    }
    let json: Result<serde_json::Value, _> = serde_json::from_str(&lb.tell(&["vrrp", "--json"]));
    assert!(json.is_ok_and(|json| json.to_string().contains("VI_1")));
    let socket = lb.socket().to_owned();
    lb.stop();
    let socket = socket.to_str().expect("the path is UTF-8");
    let output = xvs(&lan.lb1, &["list", "--socket", socket]);
    assert!(!output.status.success(), "nobody is there to ask");
    assert!(errors(&output).contains(socket), "{output:?}");
}

/// The five numbers of a virtual server and of its real servers, as `ipvsadm --stats` and `--rate` lay
/// them out.
fn numbers(table: &str, service: &str) -> (Vec<u64>, Vec<Vec<u64>>) {
    let five = |line: &str| {
        let words = line[33..].split_whitespace();
        let numbers: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
        assert_eq!(numbers.len(), 5, "{line:?}");
        numbers
    };
    let mut lines = table
        .lines()
        .skip_while(|line| !line.starts_with(service))
        .map(|line| (line.starts_with("  -> "), line));
    let (_, first) = lines
        .next()
        .unwrap_or_else(|| panic!("no {service} in {table}"));
    let reals = lines.take_while(|(real, _)| *real);
    (five(first), reals.map(|(_, line)| five(line)).collect())
}

fn what_ran_is_shown() {
    let lan = Lan::new();
    let _web = WebServer::start_all(&lan);
    // One client's answers from behind NAT come back by way of the balancer.
    let Some(other) = further_clients().next() else {
        panic!("there are more clients");
    };
    for real in &lan.reals {
        real.ip(&format!("route replace {other}/32 via {LB1}"));
    }
    let nat = service(8080, "lb_algo rr", &[1, 1, 1]).replace("lb_kind DR", "lb_kind NAT");
    let config = vrrp("MASTER", 254)
        + &service(80, "lb_algo rr\n    persistence_timeout 300", &[1, 1, 1])
        + &nat;
    let lb = Xvs::start(&lan, &lan.lb1, &config, Engine::AfXdp);
    lb.wait_for_master();
    let port = |port| SocketAddr::from((VIP, port));
    curl(&lan.client, CLIENT, port(80), 20, 5);
    curl(&lan.client, other, port(8080), 30, 5);
    let _open: Vec<_> = lan.client.inside(|| {
        let streams = (0..3).map(|_| {
            let mut stream = connect(CLIENT, port(80), secs(2)).expect("the VIP accepts");
            ask(&mut stream).expect("the VIP answers");
            stream
        });
        streams.collect()
    });

    let nat = format!("TCP  {VIP}:8080 ");
    wait_until("the rates show what ran", secs(5), || {
        let (all, _) = numbers(&lb.tell(&["list", "--rate"]), &nat);
        all.iter().skip(1).all(|rate| *rate > 0)
    });
    let totals = lb.tell(&["list", "--stats"]);
    let (all, reals) = numbers(&totals, &nat);
    assert_eq!(all[0], 30, "{totals}");
    assert_eq!(
        reals.iter().map(|real| real[0]).collect::<Vec<_>>(),
        [10; 3]
    );
    for (column, sum) in all.iter().enumerate() {
        assert_eq!(
            *sum,
            reals.iter().map(|real| real[column]).sum::<u64>(),
            "{totals}"
        );
    }
    // A handshake, a request, its answer, an end, each way.
    assert!(all[1] >= 30 * 4 && all[2] >= 30 * 3, "{totals}");
    let (all, reals) = numbers(&totals, &format!("TCP  {VIP}:80 "));
    assert_eq!(
        (all[0], all[2], all[4]),
        (23, 0, 0),
        "answers do not pass here: {totals}"
    );
    assert_eq!(
        reals.iter().filter(|real| real[0] > 0).count(),
        1,
        "one client: {totals}"
    );
    let json: serde_json::Value = serde_json::from_str(&lb.tell(&["list", "--json"]))
        .unwrap_or_else(|e| panic!("xvs list --json: {e}"));
    assert_eq!(json["services"][0]["totals"]["packets_in"], all[1]);
    assert_eq!(json["services"][0]["matches"][0]["port"], 80);

    let client = CLIENT.to_string();
    let from = ["list", "--conns", "--client", &client];
    let shown = lb.tell(&[&from[..], &["--state", "established"]].concat());
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 2 + 3, "{shown}");
    assert_eq!(lines[0], "IPVS connection entries");
    for line in &lines[2..] {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[0], "TCP", "{line}");
        assert!(
            words[1].starts_with("14:5") || words[1] == "15:00",
            "{line}"
        );
        assert!(words[3].starts_with(&format!("{CLIENT}:")), "{line}");
        assert_eq!(words[4], format!("{VIP}:80"), "{line}");
        assert!(
            REALS.iter().any(|real| words[5] == format!("{real}:80")),
            "{line}"
        );
    }
    let shown = lb.tell(&from);
    let template = shown
        .lines()
        .filter(|line| line.contains(&format!(" {CLIENT}:0 ")));
    assert_eq!(template.count(), 1, "{shown}");
    assert!(!shown.contains(&format!("{VIP}:8080")), "{shown}");
    let vip = format!("{VIP}:8080");
    let shown = lb.tell(&["list", "--conns", "--vip", &vip]);
    assert_eq!(shown.lines().count(), 2 + 30, "{shown}");

    let output = lb.ask(&["list", "--conns", "--vip", &vip, "--limit", "7"]);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(shown.lines().count(), 2 + 7, "{shown}");
    assert!(
        errors(&output).contains("7 of 30 connections"),
        "{output:?}"
    );
    let output = lb.ask(&["list", "--conns", "--state", "OPEN"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("no state OPEN"), "{output:?}");
    lb.stop();
}

fn second_run() {
    let lan = Lan::new();
    let config = vrrp("MASTER", 254) + &service(80, "lb_algo rr", &[1, 1, 1]);
    let mut lb = Xvs::start(&lan, &lan.lb1, &config, Engine::AfXdp);
    lb.wait_for_master();
    let file = lb.config();
    let file = file.to_str().expect("the path is UTF-8");
    let socket = lb.socket().to_owned();
    let socket = socket.to_str().expect("the path is UTF-8");
    let output = xvs(&lan.lb1, &["run", "-f", file, "--socket", socket]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(!output.stderr.is_empty());
    assert!(lb.is_running(), "the first one has suffered");
    assert!(
        lan.lb1.has_address(VIP) && lan.lb1.has_xdp(),
        "the first one has lost something"
    );
    lb.wait_for_line(0, "Entering MASTER STATE", secs(1));
    lb.stop();
}
