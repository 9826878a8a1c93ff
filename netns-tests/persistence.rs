//! A client stays with its real server for `persistence_timeout`, and not for ever.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    thread,
};

use crate::{
    Test,
    support::{
        client::{get_and_reset, server_of},
        config::{service, vrrp},
        host::Host,
        lan::{Lan, VIP, further_clients},
        now, secs,
        web::WebServer,
        xvs::{Engine, Xvs},
    },
};

/// `persistence_timeout` of this test, in seconds. Longer than a reset connection is remembered
/// (`CLOSE`, 10 s): a template lives on, 60 s at a time, for as long as one of its connections does.
const TIMEOUT: u64 = 12;

pub(crate) fn tests() -> Vec<Test> {
    vec![Test::new(
        "persistence::it_holds_is_refreshed_by_new_connections_and_ends",
        it_holds_is_refreshed_by_new_connections_and_ends,
    )]
}

fn it_holds_is_refreshed_by_new_connections_and_ends() {
    let lan = Lan::new();
    let _web = WebServer::start_all(&lan);
    let lines = format!("lb_algo rr\n    persistence_timeout {TIMEOUT}");
    let config = vrrp("MASTER", 254) + &service(80, &lines, &[1, 1, 1]);
    let lb = Xvs::start(&lan, &lan.lb1, &config, Engine::AfXdp);
    lb.wait_for_master();

    // One client more than two rounds of round robin: whoever is scheduled anew, with all the
    // others and in the same order, gets another server than before.
    let clients: Vec<Ipv4Addr> = further_clients().take(7).collect();
    let first = servers_of(&lan.client, &clients);
    let spread: BTreeSet<&String> = first.values().collect();
    assert_eq!(spread.len(), 3, "clients are spread: {first:?}");

    let start = now();
    for second in [1, 4, 8, 14, 20] {
        // Beyond the first timeout: only the refresh by new connections holds it.
        thread::sleep((start + secs(second)).saturating_duration_since(now()));
        assert_eq!(servers_of(&lan.client, &clients), first, "after {second} s");
    }

    // The connections have ended after ten of these seconds, and the sweep that notices it passes
    // by every five; a template is not over before that.
    thread::sleep(secs(TIMEOUT + 6));
    let table = lb.tell(&["list"]);
    let second = servers_of(&lan.client, &clients);
    let held = |client: &&Ipv4Addr| second[*client] == first[*client];
    let held: Vec<&Ipv4Addr> = clients.iter().filter(held).collect();
    assert!(
        held.is_empty(),
        "{held:?} are still held: {first:?}, then {second:?}\n{table}"
    );
    lb.stop();
}

/// Which real server answers each client. Each leaves by a reset.
fn servers_of(host: &Host, clients: &[Ipv4Addr]) -> BTreeMap<Ipv4Addr, String> {
    let target = SocketAddr::from((VIP, 80));
    host.inside(|| {
        let ask = |client: &Ipv4Addr| {
            let answer = get_and_reset(*client, target)
                .unwrap_or_else(|e| panic!("{client} has no answer: {e}"));
            (*client, server_of(&answer).to_owned())
        };
        clients.iter().map(ask).collect()
    })
}
