//! Virtual servers: what they take, how packets get to real servers, and what each rule says.

use super::{
    super::{Checker, Match, VirtualServer, parse},
    config, said, server,
};
use crate::{
    addr::{Endpoint, Family, L4Proto},
    lvs::{LbKind, Scheduler, TunnelKind},
};

const NOTHING: [&str; 0] = [];

/// A virtual server of any head with complete lines, which give no findings for an address.
fn of(head: &str, more: &str, reals: &str) -> String {
    format!("virtual_server {head} {{\nlb_algo rr\n{more}\n{reals}\n}}\n")
}

const REAL: &str = "real_server 10.0.0.1 80 {\n}";
const REAL6: &str = "real_server fd00::1 80 {\n}";
/// What gives the mark 3 to packets of both families.
const MARKS: &str =
    "xvs {\nmark 3 {\ndestination 10.0.0.9\n}\nmark 3 {\ndestination fd00::9\n}\n}\n";

fn first(text: &str) -> VirtualServer {
    config(text).virtual_servers.remove(0)
}

/// The port that a check connects to.
fn port_of(checker: &Checker) -> u16 {
    checker.kind.connection().unwrap().to.port
}

/// The line of a message without its place.
fn unplaced(text: &str) -> Vec<String> {
    let cut = |line: String| line.splitn(3, ": ").skip(1).collect::<Vec<_>>().join(": ");
    said(text).into_iter().map(cut).collect()
}

#[test]
fn every_scheduler_kind_and_protocol_is_applied() {
    for scheduler in Scheduler::ALL {
        let text = server("", "").replace("lb_algo rr", &format!("lb_algo {}", scheduler.name()));
        assert_eq!(said(&text), NOTHING);
        assert_eq!(first(&text).lb_algo, scheduler);
    }
    for (name, protocol) in [
        ("tcp", L4Proto::Tcp),
        ("udp", L4Proto::Udp),
        ("SCTP", L4Proto::Sctp),
    ] {
        let text = server("", "").replace("protocol TCP", &format!("protocol {name}"));
        assert_eq!(said(&text), NOTHING);
        assert_eq!(first(&text).protocol, protocol);
    }
    let found = said(&server("", "").replace("lb_algo rr", "lb_algo xx"));
    assert_eq!(found, ["3:9: warning: `xx` is not a scheduler: wlc counts"]);
    let found = said(&server("", "").replace("protocol TCP", "protocol dccp"));
    assert_eq!(
        found,
        ["5:10: warning: `dccp` is not a protocol: UDP counts"]
    );
}

/// `port` and `fallback` of a scheduler that has flags.
const fn flags_of(scheduler: Scheduler) -> Option<(bool, bool)> {
    match scheduler {
        Scheduler::Sh { port, fallback } | Scheduler::Mh { port, fallback, .. } => {
            Some((port, fallback))
        }
        _ => None,
    }
}

#[test]
fn flags_are_for_the_schedulers_that_look_at_them() {
    let read = |algo: &str, flags: &str| {
        let algo = format!("lb_algo {algo}\n{flags}");
        let text = server("", "").replace("lb_algo rr", &algo);
        (flags_of(first(&text).lb_algo), unplaced(&text))
    };
    for (algo, flags) in [
        ("sh", "sh-port\nsh-fallback"),
        ("mh", "mh-port\nmh-fallback"),
        ("sh", "flag-2\nflag-1"),
        ("mh", "flag-1\nflag-2"),
    ] {
        assert_eq!(
            read(algo, flags),
            (Some((true, true)), vec![]),
            "{algo} {flags}"
        );
    }
    assert_eq!(read("mh", "mh-port").0, Some((true, false)));
    assert_eq!(read("sh", "sh-fallback").0, Some((false, true)));
    for (algo, flag, why) in [
        (
            "rr",
            "sh-port",
            ": it is for `lb_algo sh`, which it must follow",
        ),
        (
            "mh",
            "sh-port",
            ": it is for `lb_algo sh`, which it must follow",
        ),
        (
            "sh",
            "mh-fallback",
            ": it is for `lb_algo mh`, which it must follow",
        ),
        ("rr", "flag-1", " with `lb_algo rr`"),
        ("sh", "flag-3", ": no scheduler looks at it"),
    ] {
        let message = format!("warning: `{flag}` has no effect{why}");
        let none = (algo != "rr").then_some((false, false));
        assert_eq!(read(algo, flag), (none, vec![message]));
    }
    assert_eq!(
        said(&server("hashed", "")),
        [
            "2:1: note: `hashed` has no effect here: the data plane is xvs's own, not the kernel's IPVS"
        ]
    );
}

#[test]
fn one_packet_scheduling_is_for_udp_and_marks() {
    let udp = server("ops", "").replace("protocol TCP", "protocol UDP");
    assert_eq!(said(&udp), NOTHING);
    assert!(first(&udp).ops);
    for protocol in ["TCP", "SCTP"] {
        let text = server("ops", "").replace("protocol TCP", &format!("protocol {protocol}"));
        assert_eq!(
            said(&text),
            ["2:1: warning: `ops` is ignored: it needs `protocol UDP` or a fwmark"]
        );
        assert!(!first(&text).ops);
    }
    let marked = MARKS.to_owned() + &of("fwmark 3", "lb_kind NAT\nops", REAL);
    assert!(first(&marked).ops);
}

#[test]
fn tunnels_have_options() {
    let read = |options: &str| {
        let text = server("", "").replace("lb_kind DR", &format!("lb_kind TUN {options}"));
        (first(&text).lb_kind, said(&text))
    };
    let gue = |port, checksum| LbKind::Tun(TunnelKind::Gue { port, checksum });
    let gre = |checksum| LbKind::Tun(TunnelKind::Gre { checksum });
    for (options, kind) in [
        ("", LbKind::Tun(TunnelKind::Ipip)),
        ("type ipip", LbKind::Tun(TunnelKind::Ipip)),
        ("type ipip nocsum", LbKind::Tun(TunnelKind::Ipip)),
        ("type gue port 6080", gue(6080, false)),
        ("type gue csum port 6080", gue(6080, true)),
        ("type gue port 6080 csum nocsum", gue(6080, false)),
        ("type gre", gre(false)),
        ("csum type gre", gre(true)),
    ] {
        assert_eq!(read(options), (kind, vec![]), "{options}");
    }
    let remote = "4:32: warning: `remcsum` is not applied yet";
    assert_eq!(
        read("type gue port 6080 remcsum"),
        (gue(6080, true), vec![remote.to_owned()])
    );
    for (options, message) in [
        ("type", "4:13: warning: `type` needs a value"),
        ("type foo", "4:18: warning: `foo` is not a tunnel"),
        ("foo", "4:13: warning: unknown option `foo` of a tunnel"),
        ("type gue", "4:9: warning: `type gue` needs a port"),
        ("type gue port", "4:22: warning: `port` needs a value"),
        ("type gue port 0", "4:27: warning: `0` is no port"),
        ("port 5", "4:18: warning: only `type gue` has a port"),
        (
            "type gre port 5",
            "4:27: warning: only `type gue` has a port",
        ),
        ("csum", "4:13: warning: `type ipip` has no checksum"),
        (
            "type gre remcsum",
            "4:22: warning: `remcsum` needs `type gue`",
        ),
    ] {
        let text = server("", "").replace("lb_kind DR", &format!("lb_kind TUN {options}"));
        let message = format!("{message}: a tunnel without options counts");
        assert_eq!(said(&text), [message], "{options}");
        assert_eq!(first(&text).lb_kind, LbKind::Tun(TunnelKind::Ipip));
    }
    let found = said(&server("", "").replace("lb_kind DR", "lb_kind DR type ipip"));
    assert_eq!(found, ["4:12: warning: `type` is ignored"]);
    let found = said(&server("", "").replace("lb_kind DR", "lb_kind tun"));
    assert_eq!(
        found,
        ["4:9: warning: `tun` is not a forwarding method: NAT counts"]
    );
}

#[test]
fn each_real_server_and_the_sorry_server_can_have_a_method() {
    let text = server(
        "sorry_server_inhibit\nsorry_server 10.0.0.5\nsorry_server_lvs_method TUN type gre",
        "lvs_method NAT",
    );
    assert_eq!(said(&text), NOTHING);
    let vs = first(&text);
    assert_eq!(
        (vs.lb_kind, vs.real_servers[0].lb_kind),
        (LbKind::Dr, LbKind::Nat)
    );
    let sorry = vs.sorry_server.unwrap();
    let gre = LbKind::Tun(TunnelKind::Gre { checksum: false });
    assert_eq!((sorry.lb_kind, sorry.inhibit), (gre, true));
    let sorry = first(&server("sorry_server 10.0.0.5", "")).sorry_server;
    assert_eq!(
        sorry.map(|s| (s.lb_kind, s.inhibit)),
        Some((LbKind::Dr, false))
    );
    let nobody = "warning: there is no sorry_server that this could be about";
    assert_eq!(
        said(&server(
            "sorry_server_inhibit\nsorry_server_lvs_method NAT",
            ""
        )),
        [format!("2:1: {nobody}"), format!("3:1: {nobody}")]
    );
}

#[test]
fn ipv6_is_forwarded_within_its_family_or_by_tunnel() {
    let text = server("persistence_granularity 64", "TCP_CHECK {\n}")
        .replace("10.0.0.9", "fd00::9")
        .replace("10.0.0.1 ", "fd00::1 ");
    assert_eq!(said(&text), NOTHING);
    let vs = first(&text);
    assert_eq!(vs.key().to_string(), "[fd00::9]:tcp:80");
    assert_eq!(vs.persistence.unwrap().granularity, 64);
    assert_eq!(
        said(&text.replace("granularity 64", "granularity 255.255.255.0")),
        ["2:25: warning: `255.255.255.0` is not a granularity; it is left out"]
    );
    assert_eq!(
        said(&text.replace("granularity 64", "granularity 129")),
        ["2:25: warning: `129` is not a granularity; it is left out"]
    );
    let mixed = server("", "").replace("10.0.0.1 ", "fd00::1 ");
    let alone = "1:1: warning: virtual_server [10.0.0.9]:tcp:80 has no real_server; it is ignored";
    let message = "6:13: warning: real_server fd00::1 is left out: it cannot take IPv4 packets";
    assert_eq!(said(&mixed), [alone, message]);
    assert_eq!(
        said(&mixed.replace("lb_kind DR", "lb_kind NAT")),
        [alone, message]
    );
    assert_eq!(said(&mixed.replace("lb_kind DR", "lb_kind TUN")), NOTHING);
    let tunnel = mixed.replace(
        "real_server fd00::1 80 {",
        "real_server fd00::1 80 {\nlvs_method TUN",
    );
    assert_eq!(said(&tunnel), NOTHING);
    assert_eq!(
        said(&server("sorry_server fd00::5 80", "")),
        ["2:14: warning: sorry_server fd00::5 is left out: it cannot take IPv4 packets"]
    );
    assert_eq!(
        said(&server(
            "sorry_server fd00::5\nsorry_server_lvs_method TUN",
            ""
        )),
        NOTHING
    );
    assert_eq!(
        said(&server("ip_family inet6", "")),
        ["2:11: warning: ip_family inet6 is left out: 10.0.0.9 is IPv4"]
    );
    assert_eq!(said(&server("ip_family inet", "")), NOTHING);
    assert_eq!(
        said(&server("", "TCP_CHECK {\nbindto fd00::1\n}")),
        ["8:8: warning: bindto fd00::1 is left out: it is of another family than 10.0.0.1"]
    );
}

#[test]
fn thresholds_are_in_order() {
    let real = |more| first(&server("", more)).real_servers.remove(0);
    let both = real("uthreshold 10\nlthreshold 10");
    assert_eq!((both.uthreshold, both.lthreshold), (10, 10));
    assert_eq!(real("uthreshold 10").lthreshold, 0);
    assert_eq!(said(&server("", "uthreshold 9\nlthreshold 8")), NOTHING);
    for (lines, high) in [("lthreshold 20\nuthreshold 10", 10), ("lthreshold 20", 0)] {
        let message = format!(
            "7:12: warning: real_server 10.0.0.1:80 is left out: lthreshold 20 is above uthreshold {high}"
        );
        assert_eq!(said(&server("", lines))[1], message);
    }
}

#[test]
fn every_port_means_persistence() {
    let text = server("", "TCP_CHECK {\n}").replace("10.0.0.9 80", "10.0.0.9");
    assert_eq!(
        said(&text),
        [
            "1:16: warning: a virtual server on every port is persistent, for 360 s",
            "6:22: note: port 80 is for checks only: DR leaves ports as they are"
        ]
    );
    let vs = first(&text);
    assert_eq!(vs.persistence.unwrap().timeout.as_secs(), 360);
    let real = &vs.real_servers[0];
    assert_eq!((real.endpoint.port, port_of(&real.checkers[0])), (0, 80));
    let text = text.replace("lb_kind DR", "lb_kind NAT\npersistence_timeout 9");
    assert_eq!(said(&text), NOTHING);
    assert_eq!(first(&text).real_servers[0].endpoint.port, 80);
    let text = text.replace("10.0.0.1 80", "10.0.0.1");
    assert_eq!(
        said(&text),
        ["8:1: warning: the check always fails: neither it nor its real server has a port"]
    );
}

#[test]
fn a_check_goes_to_the_port_that_was_said() {
    let text = server("", "TCP_CHECK {\n}").replace("10.0.0.1 80", "10.0.0.1 8080");
    let real = &first(&text).real_servers[0];
    assert_eq!((real.endpoint.port, port_of(&real.checkers[0])), (80, 8080));
}

#[test]
fn a_mark_is_a_virtual_server_of_one_family() {
    let read = |more, reals| {
        let text = MARKS.to_owned() + &of("fwmark 3", more, reals);
        first(&text).matches[0]
    };
    let mark = |family| Match::Mark { mark: 3, family };
    assert_eq!(read("lb_kind NAT", REAL), mark(Family::V4));
    assert_eq!(read("lb_kind NAT", REAL6), mark(Family::V6));
    assert_eq!(read("lb_kind TUN", REAL6), mark(Family::V4));
    assert_eq!(read("lb_kind TUN\nip_family inet6", REAL), mark(Family::V6));
    let text = MARKS.to_owned() + &of("fwmark 3", "lb_kind NAT\nip_family inet", REAL6);
    assert!(
        said(&text).contains(
            &"13:13: warning: real_server fd00::1 is left out: it cannot take IPv4 packets".into()
        ),
        "{:?}",
        said(&text)
    );
    // Both families can have the same mark.
    let both = of("fwmark 3", "lb_kind NAT", REAL) + &of("fwmark 3", "lb_kind NAT", REAL6);
    assert_eq!(said(&(MARKS.to_owned() + &both)), NOTHING);
    let vs = first(&(MARKS.to_owned() + &both));
    assert_eq!(vs.name(), "fwmark 3");
    assert!(!vs.takes_addresses());
    assert_eq!(
        vs.key().endpoint,
        Endpoint::new("0.0.0.0".parse().unwrap(), 0)
    );
    let twice = of("fwmark 3", "lb_kind NAT", REAL).repeat(2);
    assert!(
        unplaced(&(MARKS.to_owned() + &twice)).contains(
            &"warning: a second virtual_server fwmark 3: the first one counts".to_owned()
        )
    );
}

#[test]
fn a_mark_says_nothing_about_protocol_and_port() {
    let text = MARKS.to_owned() + &of("fwmark 3", "lb_kind DR\nprotocol TCP", REAL);
    let found = unplaced(&text);
    assert_eq!(
        found[1..],
        [
            "warning: the protocol is ignored: a mark says which packets are meant",
            "note: port 80 is for checks only: DR leaves ports as they are"
        ]
    );
    assert_eq!(first(&text).real_servers[0].endpoint.port, 0);
    let nat = MARKS.to_owned() + &of("fwmark 3", "lb_kind NAT", REAL);
    assert_eq!(first(&nat).real_servers[0].endpoint.port, 80);
    for (head, message) in [
        (
            "fwmark",
            "1:16: error: `virtual_server fwmark` needs a value",
        ),
        (
            "fwmark 0",
            "1:23: warning: virtual_server is left out: `0` is no mark",
        ),
        (
            "fwmark 4294967296",
            "1:23: warning: virtual_server is left out: `4294967296` is no mark",
        ),
        (
            "fwmark x",
            "1:23: warning: virtual_server is left out: `x` is no mark",
        ),
        ("group", "1:16: error: `virtual_server group` needs a value"),
        (
            "group G",
            "1:22: warning: virtual_server is left out: there is no virtual_server_group `G`",
        ),
        (
            "10.0.0.0/24 80",
            "1:16: warning: `10.0.0.0/24` is one address here: 10.0.0.0 counts",
        ),
        (
            "10.0.0.1-9 80",
            "1:16: warning: `10.0.0.1-9` is one address here: 10.0.0.1 counts",
        ),
    ] {
        let mut found = said(&of(head, "lb_kind NAT", REAL));
        found.retain(|line| !line.contains("`protocol` is missing"));
        assert_eq!(found, [message], "{head}");
    }
}

#[test]
fn marks_and_what_gives_them_belong_together() {
    let alone = of("fwmark 3", "lb_kind NAT", REAL);
    assert_eq!(
        said(&alone),
        ["1:1: warning: nothing marks IPv4 packets with 3"]
    );
    let rule = "xvs {\nmark 3 {\ndestination fd00::9\n}\n}\n";
    assert_eq!(
        said(&(rule.to_owned() + &alone)),
        [
            "2:1: warning: no virtual server takes IPv6 packets with mark 3",
            "6:1: warning: nothing marks IPv4 packets with 3"
        ]
    );
    let rule = rule.replace("fd00::9", "10.0.0.9");
    assert_eq!(said(&(alone + &rule)), NOTHING);
}

fn group(entries: &str, more: &str, reals: &str) -> String {
    format!("virtual_server_group G {{\n{entries}\n}}\n")
        + &of("group G", &format!("protocol TCP\n{more}"), reals)
}

#[test]
fn a_group_keeps_its_ranges_and_networks_whole() {
    let entries =
        "10.0.1.9 80\n10.0.0.10-20 80\n10.0.2.1-10.0.3.4 80\n10.1.0.0/16 80\n10.0.4.1/32 80";
    let text = group(entries, "lb_kind DR", REAL);
    assert_eq!(said(&text), NOTHING);
    let vs = first(&text);
    let shown: Vec<String> = vs.matches.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "10.0.1.9 80",
            "10.0.0.10-10.0.0.20 80",
            "10.0.2.1-10.0.3.4 80",
            "10.1.0.0/16 80",
            "10.0.4.1 80"
        ]
    );
    assert!(matches!(vs.matches[4], Match::Address(_)));
    let bounds = vs.matches[3].bounds().unwrap();
    assert_eq!(bounds.1.to_string(), "10.1.255.255");
    assert_eq!(
        (vs.name(), vs.group.as_deref()),
        ("group G".into(), Some("G"))
    );
    assert_eq!(vs.key().to_string(), "[10.0.1.9]:tcp:80");
    assert_eq!(vs.real_servers[0].endpoint.port, 80);
    let v6 = group("fd00::10-ff 80\nfd00:1::/64 80", "lb_kind NAT", REAL6);
    assert_eq!(said(&v6), NOTHING);
    // The group may stand behind its virtual server, and serve two.
    let (before, after) = text.split_at(text.find("virtual_server group").unwrap());
    let udp = after.replace("TCP", "UDP");
    assert_eq!(said(&format!("{after}{udp}{before}")), NOTHING);
}

#[test]
fn mistakes_in_a_group_are_named() {
    for (entry, message) in [
        ("foo 80", "`foo`: not an IP address"),
        (
            "10.0.1.1/24 80",
            "`10.0.1.1/24`: bits are set behind the prefix; the network is 10.0.1.0/24",
        ),
        (
            "0.0.0.0/0 80",
            "`0.0.0.0/0`: every address cannot be virtual",
        ),
        (
            "10.0.0.9-300 80",
            "`10.0.0.9-300`: the end of the range is no address and no last part of one",
        ),
        (
            "10.0.0.9-5 80",
            "`10.0.0.9-5`: the end of the range is not above its start",
        ),
        ("10.0.0.9 70000", "`70000` is no port"),
        ("10.0.0.9 x", "`x` is no port"),
        ("10.0.0.9 80-90", "`80-90` is no port"),
        ("fwmark 0", "`0` is no mark"),
        ("fwmark 5 foo", "`foo` is no family"),
    ] {
        let text = group(&format!("10.0.0.7 80\n{entry}"), "lb_kind NAT", REAL);
        let message = format!("warning: the entry is left out: {message}");
        assert_eq!(unplaced(&text), [message], "{entry}");
        assert_eq!(first(&text).matches.len(), 1, "{entry}");
    }
    assert_eq!(
        unplaced(&group("10.0.0.9 80 {\n}", "lb_kind NAT", REAL)),
        ["warning: a list of addresses and marks, one a line, has no blocks"]
    );
    assert_eq!(
        unplaced(&group("", "lb_kind NAT", REAL)),
        [
            "warning: virtual_server_group `G` has no entries: it is left out",
            "warning: virtual_server is left out: its group `G` has no entries"
        ]
    );
    assert_eq!(
        said(&group("10.0.0.9 80\n10.0.0.9 80", "lb_kind NAT", REAL)),
        ["3:1: warning: the entry is given again; it counts once"]
    );
    assert_eq!(
        said("virtual_server_group G {\n10.0.0.9 80\n}"),
        ["1:1: warning: no virtual_server has the group `G`"]
    );
    let twice = "virtual_server_group G {\n10.0.0.8 80\n}\n".to_owned()
        + &group("10.0.0.9 80", "lb_kind NAT", REAL);
    assert_eq!(
        said(&twice),
        ["4:1: warning: a second virtual_server_group `G`: the first one counts"]
    );
    let typo = group("10.0.0.9 80", "lb_kind NAT", REAL)
        .replace("_group G", "_group WEB1")
        .replace("group G", "group WEB2");
    let parsed = parse("f", typo.as_bytes());
    let mut found = parsed.diagnostics.iter();
    let missing = found.find(|d| d.message.contains("there is no virtual_server_group"));
    assert_eq!(
        missing.unwrap().hint.as_deref(),
        Some("did you mean `WEB1`?")
    );
}

#[test]
fn a_group_of_two_families_needs_tunnels() {
    let entries = "10.0.0.9 80\nfd00::9 80";
    assert_eq!(
        unplaced(&group(entries, "lb_kind NAT", REAL)),
        ["warning: the IPv6 entries of `G` are left out: real_server 10.0.0.1 is IPv4"]
    );
    let text = group(entries, "lb_kind TUN\npersistence_timeout 9", REAL);
    assert_eq!(said(&text), NOTHING);
    assert_eq!(first(&text).persistence.unwrap().granularity, 128);
    let bare = format!("{entries}\nfwmark 3");
    assert!(
        unplaced(&group(&bare, "lb_kind TUN", REAL))
            .iter()
            .any(|line| line.contains("a mark in a group of both families needs its own"))
    );
    assert_eq!(
        unplaced(&group("10.0.0.9 80", "lb_kind NAT\nip_family inet6", REAL)),
        ["warning: ip_family inet6 is left out: the group has IPv4"]
    );
    // Where the rest of the group says the family, it is the mark's.
    let marked =
        MARKS.to_owned() + &group("fd00::8 80\nfwmark 3\nfwmark 3 inet6", "lb_kind NAT", REAL6);
    let matches = first(&marked).matches;
    assert_eq!(matches.len(), 2);
    assert_eq!(matches[1].family(), Family::V6);
}

#[test]
fn ports_of_a_group_may_differ() {
    let entries = "10.0.0.9 80\n10.0.0.9 443";
    let text = group(entries, "lb_kind DR", REAL);
    assert_eq!(
        unplaced(&text),
        ["note: port 80 is for checks only: DR leaves ports as they are"]
    );
    assert_eq!(first(&text).real_servers[0].endpoint.port, 0);
    let nat = group(entries, "lb_kind NAT", REAL);
    assert_eq!(first(&nat).real_servers[0].endpoint.port, 80);
    let any = group("10.0.0.9", "lb_kind NAT", REAL);
    assert_eq!(
        said(&any),
        ["4:22: warning: a virtual server on every port is persistent, for 360 s"]
    );
}

#[test]
fn what_two_virtual_servers_take_is_an_error() {
    let inside = group("10.0.0.0/24 80", "lb_kind DR", REAL) + &server("", "");
    assert_eq!(
        unplaced(&inside),
        ["error: virtual_server [10.0.0.9]:tcp:80 takes what virtual_server group G takes already"]
    );
    let before = server("", "") + &group("10.0.0.0/24 80", "lb_kind DR", REAL);
    assert_eq!(
        unplaced(&before),
        ["error: virtual_server group G takes what virtual_server [10.0.0.9]:tcp:80 takes already"]
    );
    // The port, the protocol or every port make another one of it.
    for other in [
        server("", "").replace("10.0.0.9 80", "10.0.0.9 81"),
        server("", "").replace("TCP", "UDP"),
    ] {
        let text = group("10.0.0.0/24 80", "lb_kind DR", REAL) + &other;
        assert!(!parse("f", text.as_bytes()).has_errors(), "{text}");
    }
    let any = server("persistence_timeout 9", "").replace("10.0.0.9 80", "10.0.0.9");
    assert!(!parse("f", (any + &server("", "")).as_bytes()).has_errors());
}

#[test]
fn a_bare_number_as_granularity_is_a_length_and_that_is_said() {
    let text = |value: &str| server(&format!("persistence_granularity {value}"), "");
    let length = |text: &str| {
        config(text).virtual_servers[0]
            .persistence
            .unwrap()
            .granularity
    };
    assert_eq!(
        said(&text("24")),
        ["2:25: note: persistence_granularity 24 is read as a prefix length"]
    );
    assert_eq!(length(&text("24")), 24);
    let hint = parse("f", text("24").as_bytes()).diagnostics[0]
        .hint
        .clone();
    assert_eq!(
        hint.unwrap(),
        "keepalived takes it as the mask 0.0.0.24; write 255.255.255.0"
    );
    assert_eq!(said(&text("255.255.255.0")), [""; 0]);
    assert_eq!(length(&text("255.255.255.0")), 24);
}

#[test]
fn a_value_that_is_wrong_says_what_counts_instead() {
    let hints = |more: &str, real: &str| -> Vec<String> {
        let parsed = parse("f", server(more, real).as_bytes());
        let hints = parsed.diagnostics.into_iter().filter_map(|d| d.hint);
        hints.filter(|hint| hint.contains("count")).collect()
    };
    let outer = "what the blocks around it say counts";
    for (more, real, counts) in [
        ("quorum 0", "", "the default, 1, counts"),
        ("weight 0", "", "the default, 1, counts"),
        ("delay_loop 0", "", "else the default, 60 s"),
        ("", "delay_loop 0", "else the default, 60 s"),
        ("delay_loop 5", "delay_loop 0", outer),
        ("", "weight -1", outer),
        ("", "TCP_CHECK {\nconnect_timeout 0\n}", outer),
    ] {
        let found = hints(more, real);
        let right = found.len() == 1 && found[0].ends_with(counts)
            || found.iter().any(|hint| hint.contains(counts));
        assert!(right, "{more} {real}: {found:?}");
    }
}

#[test]
fn a_check_of_a_group_with_a_mark_goes_to_the_port_of_its_addresses() {
    let text = "xvs {\nmark 3 {\ndestination 10.0.0.9\n}\n}\n\
                virtual_server_group G {\n10.0.0.1 80\n10.0.0.2 80\nfwmark 3\n}\n\
                virtual_server group G {\nlb_algo rr\nlb_kind NAT\nprotocol TCP\n\
                real_server 10.0.1.1 {\nTCP_CHECK {\n}\n}\n}\n";
    assert_eq!(said(text), [""; 0]);
    let config = config(text);
    let real = &config.virtual_servers[0].real_servers[0];
    // Packets with the mark keep the port that they came for.
    assert_eq!(real.endpoint.port, 0);
    assert_eq!(real.checkers[0].kind.connection().unwrap().to.port, 80);
}
