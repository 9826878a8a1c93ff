//! Real servers and sorry servers on the box itself.

use std::{collections::BTreeSet, io, net::SocketAddr};

use crate::{
    Subject, Test,
    support::{
        client::{curl, fetch, server_of, shares},
        config::{checked, unchecked, virtual_server, vrrp},
        echo::{Server, ask_udp, noise, udp_client},
        host::Host,
        lan::{CLIENT, LB1, LB2, Lan, REALS, VIP},
        secs, wait_until,
        web::WebServer,
        xvs::{Engine, Xvs},
    },
};

pub(crate) fn tests() -> Vec<Test> {
    let both: [Subject; 4] = [
        ("local::the_box_itself_says_sorry", sorry),
        (
            "local::two_boxes_that_serve_as_well_share_with_a_real_server",
            both_serve,
        ),
        (
            "local::datagrams_reach_the_box_itself_whatever_the_lb_kind",
            datagrams,
        ),
        (
            "local::a_reload_brings_the_box_itself_in_and_a_crash_leaves_nothing_for_good",
            comes_with_reload,
        ),
    ];
    let tests = both.into_iter();
    tests
        .flat_map(|(name, run)| Test::on_both_engines(name, run))
        .collect()
}

const UDP: u16 = 5353;

fn http() -> SocketAddr {
    SocketAddr::from((VIP, 80))
}

/// Whether the machine has a pair of interfaces of xvs's.
fn has_pair(host: &Host) -> bool {
    host.ip("-o link show").contains("xvs0-host")
}

/// Starts a box. Programs are loaded for one interface more than elsewhere, which a busy machine takes its
/// time for.
fn start<'a>(lan: &Lan, host: &'a Host, config: &str, engine: Engine) -> Xvs<'a> {
    let lb = Xvs::start(lan, host, config, engine);
    lb.wait_for_line(0, "packet I/O: ", secs(20));
    lb
}

/// HTTP on the VIP, by DR.
fn web(lines: &str, reals: &[String]) -> String {
    let lines = format!("lb_algo rr\n    lb_kind DR\n    protocol TCP\n    {lines}");
    virtual_server(&format!("{VIP} 80"), &lines, reals)
}

fn sorry(engine: Engine) {
    let lan = Lan::new();
    let _own = WebServer::start(&lan, &lan.lb1);
    // As Debian and others have it.
    lan.lb1.sysctl("ipv4/conf/all/rp_filter", 1);
    let reals = [checked(&format!("{} 80", REALS[0]), "weight 1")];
    let config = vrrp("MASTER", 100) + &web("sorry_server 127.0.0.1 80", &reals);
    let lb = start(&lan, &lan.lb1, &config, engine);
    lb.wait_for_master();
    wait_until("the sorry server is in its place", secs(10), || {
        lb.rows(80).iter().any(|row| row.address == "127.0.0.1:80")
    });
    lb.wait_until_ready();
    let answers = curl(&lan.client, CLIENT, http(), 200, 20);
    let others: Vec<_> = answers
        .iter()
        .filter(|it| **it != format!("lb1 {CLIENT}"))
        .collect();
    assert!(others.is_empty(), "{others:?}");
    // It is the service's port that the host's stack sees.
    let port = fetch(&lan.client, &format!("http://{VIP}/port"));
    assert_eq!(String::from_utf8_lossy(&port), "lb1 80\n");

    let _real = WebServer::start(&lan, &lan.reals[0]);
    wait_until("the real server takes over", secs(10), || {
        server_of(&curl(&lan.client, CLIENT, http(), 1, 1)[0]) == "real1"
    });
    assert!(has_pair(&lan.lb1));
    lb.stop();
    assert!(!has_pair(&lan.lb1), "a stop leaves the pair");
}

fn both_serve(engine: Engine) {
    let lan = Lan::new();
    let _web: Vec<_> = [&lan.lb1, &lan.lb2, &lan.reals[0]]
        .map(|host| WebServer::start(&lan, host))
        .into();
    // As on a real server: the box that is BACKUP is one.
    lan.lb2.sysctl("ipv4/conf/all/arp_ignore", 1);
    lan.lb2.sysctl("ipv4/conf/all/arp_announce", 2);
    lan.lb2.ip(&format!("addr add {VIP}/32 dev lo"));
    let reals = [LB1, LB2, REALS[0]].map(|real| checked(&format!("{real} 80"), "weight 1"));
    let config = |state, priority| vrrp(state, priority) + &web("", &reals);
    let second = start(&lan, &lan.lb2, &config("BACKUP", 90), engine);
    let first = start(&lan, &lan.lb1, &config("MASTER", 100), engine);
    first.wait_for_master();
    first.wait_until_ready();
    second.wait_for_backup(0);
    let answers = curl(&lan.client, CLIENT, http(), 300, 10);
    let shares = shares(&answers);
    let servers: BTreeSet<&str> = answers.iter().map(|it| server_of(it)).collect();
    assert_eq!(servers, BTreeSet::from(["lb1", "lb2", "real1"]));
    println!("{shares:?}");
    let each = answers.iter().filter(|it| server_of(it) == "lb2").count();
    assert_eq!(each, 100, "{shares:?}");
    // The BACKUP has not sent one of them round.
    assert_eq!(second.list()["steering"]["steered"], 0);
}

/// The box answers half of all requests.
fn half(lan: &Lan) {
    let answers = curl(&lan.client, CLIENT, http(), 100, 10);
    let own = answers.iter().filter(|it| server_of(it) == "lb1").count();
    assert_eq!(own, 50, "{:?}", shares(&answers));
}

fn datagrams(engine: Engine) {
    for kind in ["DR", "NAT", "TUN"] {
        let lan = Lan::new();
        lan.hold_vip();
        let vip = SocketAddr::from((VIP, UDP));
        let _server = Server::udp_echo(&lan.lb1, vip);
        let lines = format!("lb_algo rr\n    lb_kind {kind}\n    protocol UDP");
        let reals = [unchecked(&format!("{LB1} {UDP}"), "weight 1")];
        let config = virtual_server(&format!("{VIP} {UDP}"), &lines, &reals);
        let lb = start(&lan, &lan.lb1, &config, engine);
        lb.wait_until_ready();
        let all: io::Result<BTreeSet<String>> = lan.client.inside(|| {
            let socket = udp_client(CLIENT, vip)?;
            // In fragments, too.
            [1, 1400, 4000]
                .into_iter()
                .map(|length| ask_udp(&socket, &noise(length)))
                .collect()
        });
        let all = all.unwrap_or_else(|e| panic!("{kind}: {e}\n{}", lb.log()));
        assert_eq!(all, BTreeSet::from(["lb1".to_owned()]), "{kind}");
        lb.stop();
        assert!(!has_pair(&lan.lb1));
    }
}

fn comes_with_reload(engine: Engine) {
    let lan = Lan::new();
    lan.hold_vip();
    let _web: Vec<_> = [&lan.lb1, &lan.reals[0]]
        .map(|host| WebServer::start(&lan, host))
        .into();
    let only = [unchecked(&format!("{} 80", REALS[0]), "weight 1")];
    let both = [only[0].clone(), unchecked(&format!("{LB1} 80"), "weight 1")];
    let lb = start(&lan, &lan.lb1, &web("", &only), engine);
    lb.wait_until_ready();
    assert!(!has_pair(&lan.lb1), "nobody needs it");
    lb.reload(&web("", &both), true);
    lb.wait_until_ready();
    half(&lan);
    // Somebody takes it away: it is made anew.
    lan.lb1.ip("link del xvs0-host");
    wait_until("there is another pair", secs(5), || has_pair(&lan.lb1));
    lb.wait_until_ready();
    half(&lan);

    let config = lb.config();
    lb.kill();
    assert!(has_pair(&lan.lb1), "a crash removes nothing");
    let output = Xvs::cleanup(&lan.lb1, &config);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("removed the pair of interfaces"), "{said}");
    assert!(!has_pair(&lan.lb1));
}
