//! What a reload changes is named, and nothing else is.

use super::{config, instance, server};
use crate::config::{Change, Config, diff};

fn said(old: &str, new: &str) -> Vec<String> {
    let diff = diff(&config(old), &config(new));
    diff.changes.iter().map(ToString::to_string).collect()
}

/// A virtual server with these real servers, `(last byte, lines)`.
fn virtual_server(head: &str, more: &str, reals: &[(u8, &str)]) -> String {
    let mut text = format!("virtual_server {head} {{\nlb_kind DR\nprotocol TCP\n{more}\n");
    for (last, lines) in reals {
        text += &format!("real_server 10.0.0.{last} 80 {{\n{lines}\n}}\n");
    }
    text + "}\n"
}

#[test]
fn what_is_the_same_in_another_order_is_the_same() {
    let first = virtual_server("10.0.0.100 80", "", &[(1, ""), (2, "weight 3")]);
    let turned = virtual_server("10.0.0.100 80", "", &[(2, "weight 3"), (1, "weight 1")]);
    let second = server("", "");
    let one = format!("{first}{second}{}", instance("priority 90"));
    let other = format!("{}{second}{turned}", instance("priority 90"));
    assert!(said(&one, &one).is_empty());
    assert!(said(&one, &other).is_empty());
    assert!(said(&other, &one).is_empty());
}

#[test]
fn every_difference_has_its_name() {
    let old = virtual_server("10.0.0.100 80", "", &[(1, ""), (2, "")]);
    let new = virtual_server(
        "10.0.0.100 80",
        "lb_algo wrr\npersistence_timeout 50",
        &[(1, "weight 3\nTCP_CHECK {\n}"), (3, "")],
    );
    assert_eq!(
        said(&old, &new),
        [
            "virtual server [10.0.0.100]:tcp:80: lb_algo wrr (was wlc), \
          persistence_timeout 50 (was none), real server 10.0.0.2:80 is removed, \
          real server 10.0.0.1:80: weight 3 (was 1), TCP_CHECK changed, \
          real server 10.0.0.3:80 is new"
        ]
    );
    let gone = server("", "");
    assert_eq!(
        said(&format!("{old}{gone}"), &old),
        ["virtual server [10.0.0.9]:tcp:80 is removed"]
    );
    assert_eq!(
        said(&old, &format!("{old}{gone}")),
        ["virtual server [10.0.0.9]:tcp:80 is new"]
    );
    assert_eq!(
        said(
            &instance("priority 90"),
            &instance("priority 110\nadvert_int 2")
        ),
        ["vrrp_instance V: priority 110 (was 90), advert_int 2 (was 1)"]
    );
    let xvs = |line: &str| format!("{old}xvs {{\n{line}\n}}\n");
    assert_eq!(said(&old, &xvs("udp_move no")), ["udp_move no (was yes)"]);
    assert_eq!(
        said(&old, &xvs("workers 2")),
        ["workers changed: from the next start on"]
    );
}

#[test]
fn passwords_are_not_told() {
    let with = |password: &str| {
        instance(&format!(
            "authentication {{\nauth_type PASS\nauth_pass {password}\n}}"
        ))
    };
    assert_eq!(
        said(&with("secret1"), &with("secret2")),
        ["vrrp_instance V: auth_pass changed"]
    );
}

#[test]
fn a_group_is_the_one_that_takes_most_of_what_it_took() {
    let group = |name: &str, lines: &str| {
        format!(
            "virtual_server_group {name} {{\n{lines}\n}}\n{}",
            virtual_server(&format!("group {name}"), "", &[(1, "")])
        )
    };
    let old = group("A", "10.0.0.100 80\n10.0.0.101 80\n10.0.0.102 80");
    // Under another name, with one address more and one less.
    let new = group("B", "10.0.0.101 80\n10.0.0.102 80\n10.0.0.103 80");
    assert_eq!(
        said(&old, &new),
        [
            "virtual server group B: virtual_server_group changed, 10.0.0.100 80 is removed, 10.0.0.103 80 is new"
        ]
    );
    // Taken apart: the larger part is what it was.
    let apart = format!(
        "{}{}",
        group("C", "10.0.0.100 80"),
        group("D", "10.0.0.101 80\n10.0.0.102 80")
    );
    assert_eq!(
        said(&old, &apart),
        [
            "virtual server group C is new",
            "virtual server group D: virtual_server_group changed, 10.0.0.100 80 is removed"
        ]
    );
}

#[test]
fn from_nothing_everything_is_new() {
    let new = config(&format!("{}{}", instance(""), server("", "")));
    let diff = diff(&Config::default(), &new);
    assert!(
        matches!(
            &diff.changes[..],
            [
                Change::InstanceAdded { .. },
                Change::ServerAdded { new: 0, .. }
            ]
        ),
        "{diff:?}"
    );
}

#[test]
fn what_is_not_applied_yet_is_compared_as_well() {
    let global = |lines: &str| format!("global_defs {{\n{lines}\n}}\n");
    assert_eq!(
        said(
            &global("vrrp_priority -5"),
            &global("vrrp_priority -6\nlog_unknown_vrids")
        ),
        [
            "log_unknown_vrids given (was not given)",
            "vrrp_priority -6 (was -5)"
        ]
    );
    assert_eq!(
        said("child_wait_time 3", "child_wait_time 4"),
        ["child_wait_time 4 (was 3): from the next start on"]
    );
    assert_eq!(
        said(
            &global("startup_script /a\nshutdown_script /a"),
            &global("startup_script /b\nshutdown_script /b")
        ),
        [
            "shutdown_script \"/b\" (was \"/a\")",
            "startup_script \"/b\" (was \"/a\"): from the next start on"
        ]
    );
    let script = |weight: u8| format!("vrrp_script s {{\nscript /x\nweight {weight}\n}}\n");
    assert_eq!(said(&script(3), &script(4)), ["vrrp_script changed"]);
    assert_eq!(
        said(
            &instance("debug 1\nsmtp_alert"),
            &instance("debug 2\nno_accept")
        ),
        ["vrrp_instance V: accept no (was yes), debug 2 (was 1), smtp_alert not given (was yes)"]
    );
}

#[test]
fn the_keyword_that_changed_is_the_one_that_is_named() {
    let peers = |more: &str| instance(&format!("unicast_peer {{\n10.0.0.2\n}}\n{more}"));
    let xvs = |line: &str| format!("{}xvs {{\n{line}\n}}\n", instance(""));
    let global = |line: &str| format!("{}global_defs {{\n{line}\n}}\n", instance(""));
    let auth = |lines: &str| instance(&format!("authentication {{\n{lines}\n}}"));
    let v = "vrrp_instance V: ";
    let s = "virtual server [10.0.0.9]:tcp:80: ";
    let r = "virtual server [10.0.0.9]:tcp:80: real server 10.0.0.1:80: ";
    for (old, new, expected) in [
        (
            peers(""),
            peers("unicast_ttl 9"),
            format!("{v}unicast_ttl 9 (was 255)"),
        ),
        (
            peers(""),
            peers("check_unicast_src"),
            format!("{v}check_unicast_src yes (was no)"),
        ),
        (
            peers(""),
            peers("unicast_src_ip 10.0.0.1"),
            format!("{v}unicast_src_ip changed"),
        ),
        (peers(""), instance(""), format!("{v}unicast_peer changed")),
        (
            instance(""),
            instance("mcast_dst_ip 224.0.0.19"),
            format!("{v}mcast_dst_ip 224.0.0.19 (was 224.0.0.18)"),
        ),
        (
            instance(""),
            instance("mcast_src_ip 10.0.0.1"),
            format!("{v}mcast_src_ip changed"),
        ),
        (
            instance(""),
            instance("garp_master_refresh 9"),
            format!("{v}garp_master_refresh 9 (was 0)"),
        ),
        (
            instance(""),
            instance("notify_fault /x"),
            format!("{v}notify_fault changed"),
        ),
        (
            auth("auth_type PASS\nauth_pass a"),
            auth("auth_type PASS\nauth_pass b"),
            format!("{v}auth_pass changed"),
        ),
        (
            instance(""),
            auth("auth_type PASS\nauth_pass b"),
            format!("{v}authentication changed"),
        ),
        (
            server("", ""),
            server("quorum_up /x", ""),
            format!("{s}quorum_up changed"),
        ),
        (
            server("", ""),
            server("", "notify_down /x"),
            format!("{r}notify_down changed"),
        ),
        (
            server("", "TCP_CHECK {\n}"),
            server("", "TCP_CHECK {\nretry 4\n}"),
            format!("{r}TCP_CHECK changed"),
        ),
        (
            server("persistence_timeout 5", ""),
            server(
                "persistence_timeout 5\npersistence_granularity 255.0.0.0",
                "",
            ),
            format!("{s}persistence_granularity /8 (was /32)"),
        ),
        (
            server("sorry_server 10.0.0.3", ""),
            server("sorry_server 10.0.0.3\nsorry_server_inhibit", ""),
            format!("{s}sorry_server_inhibit yes (was no)"),
        ),
        (
            instance(""),
            xvs("sloppy_tcp 1"),
            "sloppy_tcp 1 (was 0)".to_owned(),
        ),
        (
            instance(""),
            xvs("timeouts {\ntcp_close 20\n}"),
            "tcp_close 20 (was 10)".to_owned(),
        ),
        (
            instance(""),
            global("smtp_helo_name x"),
            "smtp_helo_name changed".to_owned(),
        ),
        (
            instance(""),
            format!("{}SSL {{\nca /x\n}}\n", instance("")),
            "SSL ca changed".to_owned(),
        ),
    ] {
        assert_eq!(said(&old, &new), [expected], "{new}");
    }
    let flags = |flag: &str| server("", "").replace("lb_algo rr", &format!("lb_algo sh\n{flag}"));
    assert_eq!(
        said(&flags(""), &flags("sh-port")),
        [format!("{s}sh-port yes (was no)")]
    );
}
