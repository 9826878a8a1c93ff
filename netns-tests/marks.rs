//! Virtual servers that are more than one address and port: marks, groups, all ports.

use std::{collections::BTreeSet, net::Ipv4Addr, net::SocketAddr};

use crate::{
    Subject, Test,
    support::{
        client::{curl, shares},
        config::{checked, unchecked, virtual_server},
        lan::{Lan, REALS, VIP, further_clients},
        routed::{FAR, INSIDE, NEAR, Routed},
        site::whole,
        web::WebServer,
        xvs::{Engine, Xvs},
    },
};

pub(crate) fn tests() -> Vec<Test> {
    let both: [Subject; 4] = [
        ("marks::two_ports_of_one_mark_are_one_thing", marked),
        ("marks::a_mark_goes_through_nat_as_well", marked_nat),
        ("marks::a_group_answers_on_its_whole_range", group),
        (
            "marks::all_ports_of_an_address_lead_to_one_real_server",
            all_ports,
        ),
    ];
    let tests = both.into_iter();
    tests
        .flat_map(|(name, run)| Test::on_both_engines(name, run))
        .collect()
}

/// The ports that the web servers have.
const PORTS: [u16; 2] = [80, 8080];

fn mark(lines: &str) -> String {
    let rule = |port| {
        format!(
            "    mark 1 {{\n protocol TCP\n destination {VIP}\n destination_port {port}\n {lines}\n }}\n"
        )
    };
    format!("xvs {{\n{}}}\n", PORTS.map(rule).concat())
}

/// A real server of a virtual server without a port.
fn any_port(real: Ipv4Addr) -> String {
    checked(&real.to_string(), "").replace("TCP_CHECK {", "TCP_CHECK {\nconnect_port 80\n")
}

/// Each client has one real server, whatever it asks for; together they have all three.
fn stay_with_one(lan: &Lan) {
    let mut all = BTreeSet::new();
    for client in further_clients().take(6) {
        let of = |port: u16| curl(&lan.client, client, SocketAddr::from((VIP, port)), 5, 1);
        let answers = [of(80), of(8080), of(80)].concat();
        let own = shares(&answers);
        assert_eq!(own.len(), 1, "{client}: {own:?}");
        all.extend(own.into_keys());
    }
    assert_eq!(all.len(), 3, "{all:?}");
}

fn marked(engine: Engine) {
    let lan = Lan::new();
    lan.hold_vip();
    let _web = WebServer::start_all(&lan);
    let lines = "lb_algo rr\n    lb_kind DR\n    persistence_timeout 30";
    let config = virtual_server("fwmark 1", lines, &REALS.map(any_port)) + &mark("");
    let lb = Xvs::start(&lan, &lan.lb1, &config, engine);
    lb.wait_until_ready();
    stay_with_one(&lan);
    lb.stop();
}

fn marked_nat(engine: Engine) {
    let net = Routed::new();
    let hosts = net.reals.iter();
    let _web: Vec<WebServer> = hosts.map(|host| WebServer::start(&net, host)).collect();
    let lines = "lb_algo rr\n    lb_kind NAT";
    let config = virtual_server("fwmark 1", lines, &INSIDE.map(any_port)) + &mark("interface eth0");
    let lb = Xvs::start(&net, &net.lb, &config, engine);
    lb.wait_until_ready();
    for (host, address) in [(&net.near, NEAR), (&net.far, FAR)] {
        for port in PORTS {
            let answers = curl(host, address, SocketAddr::from((VIP, port)), 90, 5);
            assert_eq!(shares(&answers).len(), 3, "{answers:?}");
        }
    }
    lb.stop();
}

fn group(engine: Engine) {
    let lan = Lan::new();
    let _web = WebServer::start_all(&lan);
    // Ten on the switch, and a network that is routed to the box.
    let vips = (200..210).map(|n| Ipv4Addr::new(10, 0, 0, n));
    let routed = [1, 77, 254].map(|n| Ipv4Addr::new(10, 20, 3, n));
    let all: Vec<Ipv4Addr> = vips.clone().chain(routed).collect();
    for vip in vips {
        lan.lb1.ip(&format!("addr add {} dev eth0", whole(vip)));
    }
    lan.client.ip("route add 10.20.0.0/16 via 10.0.0.11");
    for host in &lan.reals {
        for vip in &all {
            host.ip(&format!("addr add {} dev lo", whole(*vip)));
        }
    }
    let group = "virtual_server_group G {\n 10.0.0.200-209 80\n 10.20.0.0/16 80\n}\n";
    let lines = "lb_algo rr\n    lb_kind DR\n    protocol TCP";
    let reals = REALS.map(|real| checked(&format!("{real} 80"), ""));
    let config = group.to_owned() + &virtual_server("group G", lines, &reals);
    let lb = Xvs::start(&lan, &lan.lb1, &config, engine);
    lb.wait_until_ready();
    let mut answers = Vec::new();
    for vip in all {
        let client = further_clients().next().expect("one of many");
        answers.extend(curl(&lan.client, client, SocketAddr::from((vip, 80)), 6, 1));
    }
    // One virtual server, so one turn for all of them.
    let counts: Vec<usize> = shares(&answers).into_values().collect();
    assert_eq!(counts, [26, 26, 26]);
    lb.stop();
}

fn all_ports(engine: Engine) {
    let lan = Lan::new();
    lan.hold_vip();
    let _web = WebServer::start_all(&lan);
    let lines = "lb_algo rr\n    lb_kind DR\n    protocol TCP\n    persistence_timeout 30";
    let reals = REALS.map(|real| unchecked(&real.to_string(), ""));
    let config = virtual_server(&VIP.to_string(), lines, &reals);
    let lb = Xvs::start(&lan, &lan.lb1, &config, engine);
    lb.wait_until_ready();
    stay_with_one(&lan);
    lb.stop();
}
