//! Files that keepalived starts with start here, with what counts there; each was tried with keepalived 2.2.7.

use super::{
    super::{Config, Severity, parse},
    said, server,
};
use crate::{
    addr::L4Proto,
    lvs::{LbKind, Scheduler, TunnelKind},
};

/// The model of `text`, which must not be refused, and its findings.
fn started(text: &str) -> (Config, Vec<String>) {
    let parsed = parse("f", text.as_bytes());
    assert!(!parsed.has_errors(), "{}", parsed.report());
    (parsed.config, said(text))
}

/// A virtual server with these four lines and one real server.
fn with(head: &str, algo: &str, kind: &str, protocol: &str) -> String {
    format!(
        "virtual_server {head} {{\n{algo}\n{kind}\n{protocol}\nreal_server 10.0.0.1 80 {{\n}}\n}}\n"
    )
}

#[test]
fn values_in_the_wrong_case_are_named_and_keepalived_s_defaults_count() {
    let text = with("192.0.2.99 22", "lb_algo sh", "lb_kind dr", "protocol tcp");
    let (config, said) = started(&text);
    assert_eq!(
        said,
        ["3:9: warning: `dr` is not a forwarding method: NAT counts"]
    );
    let vs = &config.virtual_servers[0];
    assert_eq!((vs.lb_kind, vs.protocol), (LbKind::Nat, L4Proto::Tcp));
    let text = with("192.0.2.99 80", "lb_algo RR", "lb_kind DR", "protocol Tcp");
    let (config, said) = started(&text);
    assert_eq!(said, ["2:9: warning: `RR` is not a scheduler: wlc counts"]);
    assert_eq!(config.virtual_servers[0].lb_algo, Scheduler::Wlc);
    // What was said before a wrong value goes on counting.
    let text = with(
        "192.0.2.99 80",
        "lb_algo rr\nlb_algo RR",
        "lb_kind DR",
        "protocol TCP",
    );
    let (config, said) = started(&text);
    assert_eq!(
        said.last().unwrap(),
        "3:9: warning: `RR` is not a scheduler: rr counts"
    );
    assert_eq!(config.virtual_servers[0].lb_algo, Scheduler::Rr);
}

#[test]
fn a_group_without_persistence_and_ports_of_its_own() {
    let text = "virtual_server_group WEB {\n198.51.100.34 80\n198.51.100.34 443\n}\n\
                virtual_server group WEB {\ndelay_loop 6\nlb_algo rr\nlb_kind DR\nprotocol TCP\n\
                persistence_timeout 0\nsorry_server 127.0.0.1\nreal_server 198.51.100.111 {\nweight 3\n}\n\
                real_server 198.51.100.112 {\nweight 3\n}\n}\n";
    let (config, said) = started(text);
    assert_eq!(
        said[0],
        "10:21: warning: persistence_timeout `0` is left out: nothing is persistent by it"
    );
    let vs = &config.virtual_servers[0];
    assert_eq!(vs.persistence, None);
    assert_eq!((vs.matches.len(), vs.real_servers.len()), (2, 2));
    assert_eq!(vs.sorry_server.unwrap().endpoint.to_string(), "127.0.0.1:0");
    let parsed = parse("f", text.as_bytes());
    let hint = parsed.diagnostics[0].hint.as_deref().unwrap();
    assert!(hint.starts_with("1 to 2678400 (IPVS"), "{hint}");
}

#[test]
fn old_names_and_quoted_words_are_read() {
    let text = "virtual_server 198.51.100.140 80 {\nlvs_sched rr\nlvs_method TUN\nprotocol TCP\nha_suspend\n\
                virtualhost \"Shop (198.51.100.140) port 80\"\nreal_server 198.51.100.101 80 {\nweight 1\n\
                TCP_CHECK {\n}\n}\n}\n";
    let (config, said) = started(text);
    let vs = &config.virtual_servers[0];
    assert_eq!(vs.lb_algo, Scheduler::Rr);
    assert_eq!(vs.lb_kind, LbKind::Tun(TunnelKind::Ipip));
    assert!(vs.ha_suspend);
    // Both are named as what is not applied yet, and nothing else is said.
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("`ha_suspend`") && said[1].contains("`virtualhost`"));
}

#[test]
fn a_udp_service_that_is_checked_by_tcp() {
    let real = |last: u8| {
        format!(
            "real_server 198.51.100.{last} 515 {{\nweight 1\ninhibit_on_failure\nTCP_CHECK {{\n\
             connect_port 9000\nconnect_timeout 1\nretry 1\ndelay_before_retry 1\n}}\n}}\n"
        )
    };
    let text = format!(
        "virtual_server 203.0.113.100 515 {{\ndelay_loop 1\nlb_algo rr\nlb_kind NAT\nprotocol UDP\n{}{}}}\n",
        real(31),
        real(32)
    );
    let (config, said) = started(&text);
    assert!(said.is_empty(), "{said:?}");
    let vs = &config.virtual_servers[0];
    assert!(vs.real_servers.iter().all(|real| real.inhibit_on_failure));
    let checker = &vs.real_servers[1].checkers[0];
    let to = checker.kind.connection().unwrap().to;
    assert_eq!(to.to_string(), "198.51.100.32:9000");
}

#[test]
fn what_cannot_be_is_left_out_alone() {
    let other = server("", "").replace("10.0.0.9 80", "10.0.0.8 80");
    for (text, message) in [
        (
            with("foo 80", "lb_algo rr", "lb_kind NAT", "protocol TCP"),
            "1:16: warning: virtual_server is left out: `foo` is not an IP address",
        ),
        (
            with(
                "10.0.0.9 99999",
                "lb_algo rr",
                "lb_kind NAT",
                "protocol TCP",
            ),
            "1:25: warning: virtual_server is left out: `99999` is no port",
        ),
        (
            with("fwmark 0", "lb_algo rr", "lb_kind NAT", ""),
            "1:23: warning: virtual_server is left out: `0` is no mark",
        ),
        (
            with("group G", "lb_algo rr", "lb_kind NAT", "protocol TCP"),
            "1:22: warning: virtual_server is left out: there is no virtual_server_group `G`",
        ),
        (
            server("", "").replace("10.0.0.1 ", "fd00::1 "),
            "6:13: warning: real_server fd00::1 is left out: it cannot take IPv4 packets",
        ),
        (
            server("", "").replace("10.0.0.1 80", "foo 80"),
            "6:13: warning: real_server is left out: `foo` is not an IP address",
        ),
        (
            server("", "lthreshold 20\nuthreshold 10"),
            "7:12: warning: real_server 10.0.0.1:80 is left out: lthreshold 20 is above uthreshold 10",
        ),
    ] {
        let (config, said) = started(&format!("{text}{other}"));
        assert!(said.contains(&message.to_owned()), "{said:?}");
        assert_eq!(config.virtual_servers.len(), 1, "{text}");
        let key = config.virtual_servers[0].key().to_string();
        assert_eq!(key, "[10.0.0.8]:tcp:80");
    }
    let text = server("sorry_server fd00::5 80\nip_family inet6", "");
    let (config, said) = started(&text);
    assert_eq!(
        said,
        [
            "2:14: warning: sorry_server fd00::5 is left out: it cannot take IPv4 packets",
            "3:11: warning: ip_family inet6 is left out: 10.0.0.9 is IPv4"
        ]
    );
    assert_eq!(config.virtual_servers[0].sorry_server, None);
}

#[test]
fn a_range_is_its_first_address_where_one_is_meant() {
    for range in ["10.0.0.9-12", "10.0.0.9/24", "10.0.0.9-10.0.0.12"] {
        let text = server("", "").replace("10.0.0.9 80", &format!("{range} 80"));
        let (config, said) = started(&text);
        let message = format!("1:16: warning: `{range}` is one address here: 10.0.0.9 counts");
        assert_eq!(said, [message]);
        assert_eq!(
            config.virtual_servers[0].key().to_string(),
            "[10.0.0.9]:tcp:80"
        );
    }
}

#[test]
fn a_group_of_both_families_serves_the_one_of_its_real_servers() {
    let text = |kind: &str| {
        format!(
            "virtual_server_group G {{\n10.0.0.9 80\nfd00::9 80\n}}\n{}",
            with("group G", "lb_algo rr", kind, "protocol TCP")
        )
    };
    let (config, said) = started(&text("lb_kind NAT"));
    assert_eq!(
        said,
        ["5:22: warning: the IPv6 entries of `G` are left out: real_server 10.0.0.1 is IPv4"]
    );
    assert_eq!(config.virtual_servers[0].matches.len(), 1);
    let (config, said) = started(&text("lb_kind TUN"));
    assert!(said.is_empty(), "{said:?}");
    assert_eq!(config.virtual_servers[0].matches.len(), 2);
}

#[test]
fn entries_of_a_group_that_cannot_be_are_left_out() {
    let text = format!(
        "virtual_server_group G {{\n10.0.1.1/24 80\n10.0.0.9 80\n10.0.0.8 99999\nfwmark 7 foo\n}}\n\
         virtual_server_group EMPTY {{\n}}\n{}{}",
        with("group G", "lb_algo rr", "lb_kind DR", "protocol TCP"),
        with("group EMPTY", "lb_algo rr", "lb_kind DR", "protocol TCP"),
    );
    let (config, said) = started(&text);
    assert_eq!(
        said,
        [
            "2:1: warning: the entry is left out: `10.0.1.1/24`: bits are set behind the prefix; the network is 10.0.1.0/24",
            "4:10: warning: the entry is left out: `99999` is no port",
            "5:10: warning: the entry is left out: `foo` is no family",
            "7:1: warning: virtual_server_group `EMPTY` has no entries: it is left out",
            "16:22: warning: virtual_server is left out: its group `EMPTY` has no entries",
        ]
    );
    assert_eq!(config.virtual_servers.len(), 1);
    assert_eq!(config.virtual_servers[0].matches.len(), 1);
}

#[test]
fn a_virtual_server_that_is_said_again_counts_once() {
    let tuned = server("", "weight 2\nTCP_CHECK {\nretry 7\n}");
    let (config, said) = started(&tuned.repeat(3));
    let again = |line| {
        format!(
            "{line}:1: warning: a second virtual_server [10.0.0.9]:tcp:80: the first one counts"
        )
    };
    assert_eq!(said, [again(13), again(25)]);
    assert_eq!(config.virtual_servers.len(), 1);
    // With other real servers IPVS would have those of both.
    for other in [
        server("", ""),
        server("", "weight 2"),
        server("sorry_server 10.0.0.7", "weight 2\nTCP_CHECK {\nretry 7\n}"),
    ] {
        let parsed = parse("f", format!("{tuned}{other}").as_bytes());
        let errors = parsed
            .diagnostics
            .iter()
            .filter(|d| d.severity == Severity::Error);
        let errors: Vec<_> = errors.map(|d| d.message.as_str()).collect();
        assert_eq!(
            errors,
            ["a second virtual_server [10.0.0.9]:tcp:80, with other real servers"]
        );
    }
}

#[test]
fn flags_follow_their_scheduler() {
    let text = with(
        "10.0.0.9 80",
        "sh-port\nlb_algo sh\nsh-fallback",
        "lb_kind DR",
        "protocol TCP",
    );
    let (config, said) = started(&text);
    assert_eq!(
        said,
        ["2:1: warning: `sh-port` has no effect: it is for `lb_algo sh`, which it must follow"]
    );
    let sh = Scheduler::Sh {
        port: false,
        fallback: true,
    };
    assert_eq!(config.virtual_servers[0].lb_algo, sh);
}

#[test]
fn what_is_a_flag_in_a_virtual_server_is_set_whatever_follows() {
    let (config, said) = started(&server(
        "alpha no\ninhibit_on_failure off",
        "TCP_CHECK {\n}",
    ));
    assert_eq!(
        said,
        [
            "2:7: warning: `no` is ignored",
            "3:20: warning: `off` is ignored"
        ]
    );
    let vs = &config.virtual_servers[0];
    assert!(vs.alpha && vs.real_servers[0].inhibit_on_failure);
}

#[test]
fn a_pool_that_cannot_work_is_named() {
    let (_, said) = started(&server("", "weight 0"));
    assert_eq!(
        said,
        [
            "1:1: warning: virtual_server [10.0.0.9]:tcp:80 gives no connection away: every weight is 0"
        ]
    );
    let (_, said) = started(&server("quorum 3\nhysteresis 2", "weight 4"));
    assert_eq!(
        said,
        [
            "3:12: warning: a quorum that is lost never comes back: it takes 3 + 2, and all weights are 4"
        ]
    );
    let (_, said) = started(&server("quorum 3\nhysteresis 1", "weight 4"));
    assert!(said.is_empty(), "{said:?}");
    // Quorum 4294967295 is in keepalived's range.
    let (config, _) = started(&server("quorum 4294967295", ""));
    assert_eq!(config.virtual_servers[0].quorum, 1);
}

#[test]
fn a_mask_with_holes_is_not_guessed_at() {
    let parsed = parse(
        "f",
        server("persistence_granularity 255.0.255.0", "").as_bytes(),
    );
    assert!(parsed.has_errors());
    let (config, said) = started(&server("persistence_granularity x", ""));
    assert_eq!(
        said,
        ["2:25: warning: `x` is not a granularity; it is left out"]
    );
    assert_eq!(config.virtual_servers[0].persistence, None);
}

#[test]
fn marks_have_no_address_to_suspend_checks_by() {
    let text = with("fwmark 5", "lb_algo rr\nha_suspend", "lb_kind NAT", "");
    let (config, said) = started(&text);
    let message =
        "3:1: warning: `ha_suspend` is ignored: a mark has no address that could be on this box";
    assert!(said.contains(&message.to_owned()), "{said:?}");
    assert!(!config.virtual_servers[0].ha_suspend);
}
