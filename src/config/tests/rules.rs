//! Keyword by keyword: what each says, and the rules that hold between them.

use std::time::Duration;

use super::{
    super::{
        Authentication, Checker, InitialState, NotifyEvent, Password, Severity, Transport,
        VirtualServer, VrrpInstance, parse,
    },
    config, instance, said, server,
};
use crate::{
    addr::L4Proto,
    lvs::{LbKind, Scheduler},
};

fn vrrp(more: &str) -> VrrpInstance {
    config(&instance(more)).vrrp_instances.remove(0)
}

fn virtual_server(more: &str, real: &str) -> VirtualServer {
    config(&server(more, real)).virtual_servers.remove(0)
}

const NOTHING: [&str; 0] = [];

#[test]
fn the_frames_of_these_tests_are_clean() {
    assert_eq!(said(&instance("")), NOTHING);
    assert_eq!(said(&server("", "")), NOTHING);
}

#[test]
fn state_and_priority_follow_keepalived() {
    let read = |more| {
        let v = vrrp(more);
        (v.initial_state, v.priority)
    };
    assert_eq!(read(""), (InitialState::Backup, 100));
    assert_eq!(read("state BACKUP"), (InitialState::Backup, 100));
    assert_eq!(read("state MASTER"), (InitialState::Master, 255));
    assert_eq!(read("state MASTER\npriority 9"), (InitialState::Master, 9));
    assert_eq!(read("priority 255"), (InitialState::Master, 255));
    assert_eq!(
        read("state BACKUP\npriority 255"),
        (InitialState::Master, 255)
    );
    assert_eq!(
        said(&instance("state BACKUP\npriority 255")),
        ["2:7: warning: priority 255 overrides `state BACKUP`: this node starts as MASTER"]
    );
    assert_eq!(
        said(&instance("state MASTER")),
        ["2:7: warning: state MASTER without a priority makes the priority 255"]
    );
    assert_eq!(
        said(&instance("state MASTER\npriority 1\nstate BACKUP")),
        ["4:7: warning: a second state that differs: the first one counts"]
    );
    assert_eq!(
        read("state MASTER\npriority 1\nstate BACKUP"),
        (InitialState::Master, 1)
    );
    assert_eq!(
        read("state BACKUP\npriority 1\nstate MASTER"),
        (InitialState::Master, 1)
    );
    assert_eq!(
        said(&instance("state FAULT")),
        ["2:7: warning: `FAULT` is not a state; it is taken as BACKUP"]
    );
}

#[test]
fn nopreempt_needs_backup() {
    assert!(vrrp("").preempt);
    assert!(!vrrp("nopreempt").preempt);
    assert!(vrrp("nopreempt\nstate MASTER\npriority 4").preempt);
    assert!(vrrp("nopreempt\npriority 255").preempt);
    assert_eq!(
        said(&instance("nopreempt\npriority 255")),
        ["2:1: warning: priority 255 overrides nopreempt: this node will preempt"]
    );
    assert_eq!(
        vrrp("preempt_delay 5.5").preempt_delay,
        Duration::from_millis(5500)
    );
    for (more, reason) in [
        ("state MASTER", "`state MASTER`"),
        ("nopreempt", "nopreempt"),
        ("priority 255", "priority 255"),
    ] {
        let priority = if more.starts_with("priority") {
            ""
        } else {
            "priority 4"
        };
        let text = instance(&format!("preempt_delay 5\n{priority}\n{more}"));
        let message = format!("2:1: warning: preempt_delay has no effect with {reason}");
        assert_eq!(said(&text), [message]);
        assert!(config(&text).vrrp_instances[0].preempt_delay.is_zero());
    }
}

#[test]
fn advert_int_is_rounded_to_what_the_wire_carries() {
    assert_eq!(vrrp("advert_int 3").advert_int, Duration::from_secs(3));
    assert_eq!(vrrp("advert_int 0.2").advert_int, Duration::from_secs(1));
    assert_eq!(vrrp("advert_int 2.5").advert_int, Duration::from_secs(3));
    assert_eq!(
        said(&instance("advert_int 2.4")),
        ["2:12: warning: advert_int 2.4 is rounded to 2 s"]
    );
    assert_eq!(
        said(&instance("advert_int 256")),
        ["2:12: warning: advert_int 256 is out of range"]
    );
    // Version 3 is refused, but what it would mean is understood.
    let text = instance("version 3\nadvert_int 0.255");
    let parsed = parse("f", text.as_bytes());
    assert_eq!(
        parsed.config.vrrp_instances[0].advert_int,
        Duration::from_millis(260)
    );
    assert_eq!(
        said(&text),
        [
            "2:9: error: VRRP version 3 is not supported by this version",
            "3:12: warning: advert_int 0.255 is rounded to 0.26 s"
        ]
    );
}

#[test]
fn authentication_is_eight_bytes_at_most() {
    let auth = |more: &str| vrrp(&format!("authentication {{\n{more}\n}}")).authentication;
    let pass = |text: &[u8]| Some(Authentication::Pass(Password::new(text)));
    assert_eq!(auth("auth_type PASS\nauth_pass 1111"), pass(b"1111"));
    assert_eq!(auth("auth_type PASS\nauth_pass \"a#b!c\""), pass(b"a#b!c"));
    assert_eq!(
        auth("auth_type PASS\nauth_pass abcdefghij"),
        pass(b"abcdefgh")
    );
    assert_eq!(auth("auth_type PASS"), None);
    assert_eq!(auth("auth_pass x"), None);
    assert_eq!(Password::new(b"1111").bytes(), b"1111\0\0\0\0");
    let text = instance("authentication {\nauth_type PASS\nauth_pass abcdefghi\n}");
    assert_eq!(
        said(&text),
        ["4:11: warning: auth_pass is cut to its first 8 bytes"]
    );
    let text = instance("authentication {\nauth_type AH\nauth_pass abc\n}");
    assert_eq!(
        said(&text),
        ["3:11: error: `auth_type AH` is not supported by this version"]
    );
}

#[test]
fn addresses_have_the_options_of_ip() {
    let entry = |line: &str| {
        let more = format!("virtual_ipaddress_excluded {{\n{line}\n}}");
        vrrp(&more).virtual_ipaddress_excluded.remove(0)
    };
    let plain = entry("10.0.0.1");
    assert_eq!(
        (plain.prefix.to_string(), plain.dev),
        ("10.0.0.1/32".into(), "eth0".into())
    );
    let full = entry("10.0.0.1/24 dev eth1 brd + scope link label eth1:1 noprefixroute no_track");
    assert_eq!(
        (full.prefix.len(), full.dev.as_str(), full.scope),
        (24, "eth1", 253)
    );
    assert_eq!(full.broadcast.unwrap().to_string(), "10.0.0.255");
    assert_eq!(full.label.as_deref(), Some("eth1:1"));
    assert!(full.noprefixroute && full.no_track);
    let linked = entry("10.0.0.1/24 peer 10.0.0.2");
    assert_eq!(linked.prefix.len(), 24);
    assert_eq!(linked.peer.unwrap().to_string(), "10.0.0.2/24");
    // As ip(8): the length behind the peer counts.
    let linked = entry("10.0.0.1 peer 10.0.0.2/30");
    assert_eq!(linked.prefix.to_string(), "10.0.0.1/30");
    assert_eq!(linked.peer.unwrap().to_string(), "10.0.0.2/30");
    assert_eq!(
        entry("10.0.0.8/24 brd -").broadcast.unwrap().to_string(),
        "10.0.0.0"
    );
    assert_eq!(
        entry("10.0.0.8 brd 10.9.9.9")
            .broadcast
            .unwrap()
            .to_string(),
        "10.9.9.9"
    );
    for (line, message) in [
        (
            "10.0.0.2 10.0.0.3",
            "3:10: warning: unknown option `10.0.0.3` of an address",
        ),
        (
            "10.0.0.2/33",
            "3:1: warning: `10.0.0.2/33`: the prefix length is out of range",
        ),
        ("10.0.0", "3:1: warning: `10.0.0`: not an IP address"),
        ("10.0.0.2 dev", "3:10: warning: `dev` needs a value"),
        (
            "10.0.0.2 brd +",
            "3:14: warning: `+` gives no broadcast address",
        ),
        (
            "10.0.0.9",
            "3:1: warning: 10.0.0.9 is given again; it counts once",
        ),
        (
            "224.0.0.1",
            "3:1: warning: 224.0.0.1 cannot be the address of a host; it is ignored",
        ),
        (
            "::1",
            "3:1: error: the IPv6 address ::1 is not supported by this version",
        ),
        (
            "10.0.0.2 label 1234567890123456",
            "3:16: warning: `1234567890123456` cannot be a label",
        ),
        (
            "10.0.0.2 use_vmac",
            "3:10: error: `use_vmac` is not supported by this version: the virtual MAC address of VRRP",
        ),
    ] {
        let text = instance(&format!("virtual_ipaddress_excluded {{\n{line}\n}}"));
        assert_eq!(said(&text), [message], "{line}");
    }
}

#[test]
fn an_advert_lists_255_addresses() {
    let list: String = (0..=255).map(|n| format!("10.1.0.{n}\n")).collect();
    let text = instance(&format!("virtual_ipaddress {{\n{list}}}"));
    let v = config(&text).vrrp_instances.remove(0);
    assert_eq!(v.virtual_ipaddress.len(), 255);
    let excluded: Vec<String> = v
        .virtual_ipaddress_excluded
        .iter()
        .map(|a| a.prefix.to_string())
        .collect();
    assert_eq!(excluded, ["10.1.0.255/32", "10.0.0.9/32"]);
    assert_eq!(said(&text).len(), 1);
}

#[test]
fn unicast_needs_a_peer() {
    let v = vrrp("unicast_src_ip 10.0.0.2\nunicast_peer {\n10.0.0.3\n10.0.0.4 min_ttl 254\n}");
    assert_eq!(v.source, Some("10.0.0.2".parse().unwrap()));
    let Transport::Unicast {
        peers,
        ttl,
        check_source,
    } = v.transport
    else {
        panic!("{:?}", v.transport);
    };
    assert_eq!(
        (peers.len(), peers[1].min_ttl, ttl, check_source),
        (2, 254, 255, false)
    );
    let text = instance("unicast_peer {\n10.0.0.3 min_ttl 250 max_ttl 254\n}");
    let unapplied = |column, word| format!("3:{column}: warning: `{word}` is not applied yet");
    assert_eq!(
        said(&text),
        [unapplied(10, "min_ttl"), unapplied(22, "max_ttl")]
    );
    let text = instance("unicast_peer {\n}");
    assert_eq!(
        said(&text),
        ["2:1: warning: unicast_peer is empty, so adverts go to the multicast group"]
    );
    let v = vrrp("mcast_dst_ip 224.0.0.99\nmcast_src_ip 10.0.0.2");
    let group = "224.0.0.99".parse().unwrap();
    assert_eq!(v.transport, Transport::Multicast { group });
}

#[test]
fn tracked_interfaces_have_weights() {
    let text = "track_interface {\neth1\neth2 weight -20\neth3 weight 254 reverse\neth0\n}";
    let v = parse("f", instance(text).as_bytes())
        .config
        .vrrp_instances
        .remove(0);
    let read: Vec<_> = v
        .track_interface
        .iter()
        .map(|t| (t.interface.as_str(), t.weight, t.reverse))
        .collect();
    assert_eq!(
        read,
        [
            ("eth1", 0, false),
            ("eth2", -20, false),
            ("eth3", 253, true)
        ]
    );
    let text = instance("track_interface {\neth0\neth1 weight 300\n}");
    assert_eq!(
        said(&text),
        [
            "3:1: warning: the instance's own interface is tracked anyway",
            "4:1: error: `track_interface` of `eth1` is not supported by this version: its loss costs priority or means FAULT",
            "4:13: warning: weight 300 is out of range"
        ]
    );
    // Whoever tracks another interface expects another election.
    assert_eq!(
        said(&instance("track_interface {\neth1 weight -5\n}")),
        [
            "3:1: error: `track_interface` of `eth1` is not supported by this version: its loss costs priority or means FAULT"
        ]
    );
}

#[test]
fn garp_is_inherited_and_can_be_minimal() {
    let read = |global: &str, more: &str| {
        let text = format!("global_defs {{\n{global}\n}}\n{}", instance(more));
        config(&text).vrrp_instances[0].garp
    };
    let garp = read(
        "vrrp_garp_master_delay 9\nvrrp_garp_master_repeat 2",
        "garp_master_repeat 3",
    );
    assert_eq!((garp.master_delay.as_secs(), garp.master_repeat), (9, 3));
    assert_eq!(
        (garp.lower_prio_delay.as_secs(), garp.lower_prio_repeat),
        (9, 2)
    );
    let garp = read("vrrp_min_garp", "");
    assert_eq!((garp.master_delay.as_secs(), garp.master_repeat), (0, 1));
    let garp = read("vrrp_min_garp\nvrrp_garp_master_delay 4", "");
    assert_eq!((garp.master_delay.as_secs(), garp.master_repeat), (4, 1));
    let text = "global_defs {\nvrrp_garp_interval 0\n}";
    assert_eq!(
        said(text),
        ["2:1: warning: vrrp_garp_interval 0 is taken as no pacing"]
    );
    assert_eq!(
        said(&instance("garp_master_repeat 256")),
        ["2:20: warning: garp_master_repeat 256 is taken as 255"]
    );
    assert_eq!(read("", "garp_master_repeat 256").master_repeat, 255);
}

#[test]
fn global_defaults_reach_instances_wherever_they_stand() {
    let global = "global_defs {\nvrrp_down_timer_adverts 5\nvrrp_skip_check_adv_addr\n\
                  vrrp_mcast_group4 224.0.0.77\nvrrp_lower_prio_no_advert on\n}";
    for text in [
        format!("{global}\n{}", instance("")),
        format!("{}{global}", instance("")),
    ] {
        let v = config(&text).vrrp_instances.remove(0);
        assert_eq!(v.down_timer_adverts, 5);
        assert!(v.skip_check_adv_addr && v.lower_prio_no_advert && !v.higher_prio_send_advert);
        let group = "224.0.0.77".parse().unwrap();
        assert_eq!(v.transport, Transport::Multicast { group });
    }
    let text = format!(
        "{global}\n{}",
        instance("skip_check_adv_addr off\ndown_timer_adverts 2")
    );
    let v = config(&text).vrrp_instances.remove(0);
    assert_eq!((v.down_timer_adverts, v.skip_check_adv_addr), (2, false));
}

#[test]
fn what_an_instance_cannot_do_without_is_missed_by_name() {
    assert_eq!(
        said("vrrp_instance V {\n}"),
        [
            "1:1: error: vrrp_instance `V` has no interface",
            "1:1: error: vrrp_instance `V` has no virtual_router_id",
            "1:1: warning: vrrp_instance `V` has no virtual_ipaddress",
        ]
    );
    assert_eq!(
        said("router_id"),
        ["1:1: warning: unknown keyword `router_id`"]
    );
    assert_eq!(
        said("global_defs {\nrouter_id\n}"),
        [
            "2:1: warning: `router_id` needs a value",
            "2:1: note: `router_id` has no effect here: mails, which would show it, are not sent yet"
        ]
    );
    let text =
        "vrrp_instance V {\ninterface lo\nvirtual_router_id 0\nvirtual_ipaddress {\n1.1.1.1\n}\n}";
    assert_eq!(
        said(text),
        [
            "2:11: error: VRRP cannot run on the loopback interface",
            "3:19: error: `0` is no virtual_router_id"
        ]
    );
}

#[test]
fn one_vrid_on_one_interface_is_one_router() {
    let first = instance("");
    let second = first
        .replace("vrrp_instance V", "vrrp_instance W")
        .replace("10.0.0.9", "10.0.0.10");
    assert_eq!(
        said(&format!("{first}{second}")),
        ["12:19: error: `V` and `W` both use VRID 7 on `eth0`"]
    );
    assert_eq!(
        said(&format!("{first}{}", second.replace("eth0", "eth1"))),
        NOTHING
    );
    let twice = format!("{first}{}", first.replace("eth0", "eth1"));
    assert_eq!(
        said(&twice),
        ["9:1: warning: a second vrrp_instance `V` is ignored"]
    );
}

#[test]
fn one_address_on_one_interface_has_one_instance() {
    let first = instance("");
    let second = first
        .replace("vrrp_instance V", "vrrp_instance W")
        .replace("router_id 7", "router_id 8");
    let taken = "error: 10.0.0.9 on `eth0` belongs to vrrp_instance `V` already";
    assert_eq!(
        said(&format!("{first}{second}")),
        [format!("14:1: {taken}")]
    );
    // The prefix length makes no other address of it, nor does the list that it stands in.
    let other = second.replace("10.0.0.9", "10.0.0.9/24");
    let other = other.replace("virtual_ipaddress {", "virtual_ipaddress_excluded {");
    let other = other.replace("interface", "no_virtual_ipaddress\ninterface");
    assert_eq!(said(&format!("{first}{other}")), [format!("15:1: {taken}")]);
    // `dev` says where it is.
    let there = second.replace("10.0.0.9", "10.0.0.9 dev eth1");
    assert_eq!(said(&format!("{first}{there}")), NOTHING);
    let back = second
        .replace("10.0.0.9", "10.0.0.9 dev eth0")
        .replace("interface eth0", "interface eth1");
    assert_eq!(said(&format!("{first}{back}")), [format!("14:1: {taken}")]);
}

#[test]
fn out_of_range_says_the_range() {
    let text = instance("priority 300");
    let parsed = parse("lb.conf", text.as_bytes());
    assert_eq!(
        parsed.report(),
        "lb.conf:2:10: warning: priority 300 is out of range\n    2 | priority 300\n      \
         |          ^^^ 1 to 255 (255 = address owner, RFC 9568 §5.2.4); the default, 100, counts\n"
    );
    assert_eq!(
        said(&instance("priority x")),
        ["2:10: warning: priority: `x` is not a number"]
    );
    assert_eq!(
        said(&instance("priority 5x")),
        ["2:10: warning: `5x` is read as `5`"]
    );
    assert_eq!(
        said(&instance("preempt_delay 5s")),
        ["2:15: warning: `5s` is read as `5`"]
    );
    assert_eq!(
        said(&instance("priority 5 6")),
        ["2:12: warning: `6` is ignored"]
    );
    assert_eq!(
        said(&instance("priority 5\npriority 6")),
        ["3:1: warning: `priority` is given again; the last one counts"]
    );
    assert_eq!(vrrp("priority 5\npriority 6").priority, 6);
    assert_eq!(
        said(&instance("dont_track_primary {\nx\n}")),
        ["2:1: warning: `dont_track_primary` takes no block"]
    );
}

#[test]
fn numbers_of_checkers_come_from_the_innermost_that_says_them() {
    let real = "delay_before_retry 4\nTCP_CHECK {\nretry 7\n}\nTCP_CHECK {\nconnect_ip 10.0.0.2\n\
                connect_port 81\nbindto 10.0.0.3\nbind_port 9\nwarmup 0\nalpha off\n}";
    let vs = virtual_server("delay_loop 6\nretry 2\nconnect_timeout 8\nalpha", real);
    let [first, second] = &vs.real_servers[0].checkers[..] else {
        panic!("{vs:?}");
    };
    let secs = |d: Duration| d.as_secs();
    let to = |checker: &Checker| checker.kind.connection().unwrap().clone();
    assert_eq!((first.retry, second.retry), (7, 2));
    assert_eq!(
        (secs(first.delay_before_retry), secs(to(first).timeout)),
        (4, 8)
    );
    assert_eq!(
        (
            first.warmup,
            second.warmup.map(secs),
            secs(first.delay_loop)
        ),
        (None, Some(0), 6)
    );
    // What was said is said, even if it is what keepalived would do unasked.
    let same = virtual_server("delay_loop 6\nwarmup 6", "TCP_CHECK {\n}");
    assert_eq!(
        same.real_servers[0].checkers[0].warmup,
        Some(Duration::from_secs(6))
    );
    assert_eq!((first.alpha, second.alpha), (true, false));
    assert_eq!(to(first).to.to_string(), "10.0.0.1:80");
    assert_eq!(to(second).to.to_string(), "10.0.0.2:81");
    assert_eq!(
        (to(second).bindto, to(second).bind_port),
        (Some("10.0.0.3".parse().unwrap()), 9)
    );
    let plain = virtual_server("", "TCP_CHECK {\n}")
        .real_servers
        .remove(0)
        .checkers
        .remove(0);
    assert_eq!(
        (
            secs(plain.delay_loop),
            secs(to(&plain).timeout),
            plain.retry
        ),
        (60, 5, 1)
    );
    assert_eq!(
        (secs(plain.delay_before_retry), plain.warmup, plain.alpha),
        (1, None, false)
    );
}

#[test]
fn weights_and_inhibition_are_inherited() {
    let rs = |more, real| virtual_server(more, real).real_servers.remove(0);
    assert_eq!(rs("", "").weight, 1);
    assert_eq!(rs("weight 5", "").weight, 5);
    assert_eq!(rs("weight 5", "weight 0").weight, 0);
    assert!(rs("inhibit_on_failure", "").inhibit_on_failure);
    assert!(!rs("inhibit_on_failure", "inhibit_on_failure off").inhibit_on_failure);
    assert_eq!(rs("", "weight 2147483647").weight, 2_147_483_647);
    assert_eq!(
        said(&server("weight 0", "")),
        ["2:8: warning: weight 0 is out of range"]
    );
}

#[test]
fn persistence_has_a_time_and_a_width() {
    let read = |more| {
        virtual_server(more, "")
            .persistence
            .map(|p| (p.timeout.as_secs(), p.granularity))
    };
    assert_eq!(read(""), None);
    assert_eq!(read("persistence_timeout"), Some((360, 32)));
    assert_eq!(read("persistence_timeout 50"), Some((50, 32)));
    assert_eq!(
        read("persistence_granularity 255.255.255.0"),
        Some((360, 24))
    );
    assert_eq!(
        said(&server("persistence_timeout 0", "")),
        ["2:21: warning: persistence_timeout `0` is left out: nothing is persistent by it"]
    );
}

#[test]
fn quorum_and_hysteresis_can_be_reached() {
    let read = |more, real| {
        let vs = virtual_server(more, real);
        (vs.quorum, vs.hysteresis)
    };
    assert_eq!(read("", "weight 3"), (1, 0));
    assert_eq!(read("quorum 3\nhysteresis 2", "weight 3"), (3, 2));
    assert_eq!(read("quorum 9\nhysteresis 4", "weight 3"), (3, 2));
    // keepalived makes a hysteresis of 4294967295 of this.
    assert_eq!(read("quorum 2\nhysteresis 1", "weight 0"), (1, 0));
    assert_eq!(
        said(&server("quorum 9\nhysteresis 4", "weight 3")),
        [
            "2:8: warning: quorum 9 is more than all weights; it is 3",
            "3:12: warning: hysteresis 4 is not below the quorum; it is 2",
            "3:12: warning: a quorum that is lost never comes back: it takes 3 + 2, and all weights are 3"
        ]
    );
    assert_eq!(
        said(&server("quorum 0", "")),
        ["2:8: warning: quorum 0 is out of range"]
    );
}

#[test]
fn direct_routing_leaves_ports_as_they_are() {
    let text = server("", "").replace("10.0.0.1 80", "10.0.0.1 8080");
    assert_eq!(
        said(&text),
        ["6:22: warning: port 8080 is taken as 80, the virtual server's"]
    );
    assert_eq!(
        config(&text).virtual_servers[0].real_servers[0]
            .endpoint
            .port,
        80
    );
    let text = server("sorry_server 10.0.0.5 99", "").replace("10.0.0.1 80", "10.0.0.1");
    assert_eq!(
        said(&text),
        ["2:23: warning: port 99 is taken as 80, the virtual server's"]
    );
    for silent in ["sorry_server 10.0.0.5", "sorry_server 10.0.0.5 80"] {
        assert_eq!(said(&server(silent, "")), NOTHING, "{silent}");
    }
    let vs = config(&text).virtual_servers.remove(0);
    assert_eq!(vs.real_servers[0].endpoint.port, 80);
    assert_eq!(vs.sorry_server.unwrap().endpoint.to_string(), "10.0.0.5:80");
    let text = text
        .replace("lb_kind DR", "lb_kind NAT")
        .replace("10.0.0.1 ", "10.0.0.1 8080 ");
    let vs = parse("f", text.as_bytes()).config.virtual_servers.remove(0);
    assert_eq!(vs.real_servers[0].endpoint.port, 8080);
    assert_eq!(vs.sorry_server.unwrap().endpoint.port, 99);
}

#[test]
fn repeated_and_missing_servers_are_reported() {
    let text = server("real_server 10.0.0.1 80 {\n}", "weight 5");
    assert_eq!(
        said(&text),
        ["7:13: warning: real_server 10.0.0.1:80 is given again"]
    );
    assert_eq!(config(&text).virtual_servers[0].real_servers.len(), 1);
    let twice = server("", "") + &server("", "");
    assert_eq!(
        said(&twice),
        ["10:1: warning: a second virtual_server [10.0.0.9]:tcp:80: the first one counts"]
    );
    let text = "virtual_server 10.0.0.9 80 {\nlb_algo rr\nlb_kind DR\nprotocol TCP\n}";
    assert_eq!(
        said(text),
        ["1:1: warning: virtual_server [10.0.0.9]:tcp:80 has no real_server; it is ignored"]
    );
    assert!(config(text).virtual_servers.is_empty());
}

#[test]
fn dangerous_defaults_are_named() {
    let text = "virtual_server 10.0.0.9 80 {\nreal_server 10.0.0.1 80 {\n}\n}";
    assert_eq!(
        said(text),
        [
            "1:1: warning: `protocol` is missing, which means `UDP`",
            "1:1: warning: `lb_algo` is missing, which means `wlc`",
            "1:1: warning: `lb_kind` is missing, which means `NAT`",
        ]
    );
    let vs = config(text).virtual_servers.remove(0);
    assert_eq!(
        (vs.lb_algo, vs.lb_kind, vs.protocol),
        (Scheduler::Wlc, LbKind::Nat, L4Proto::Udp)
    );
}

#[test]
fn what_belongs_to_later_versions_is_understood_and_refused() {
    for (from, to, what) in [
        (
            "lb_algo rr",
            "lb_algo rr\npersistence_engine sip",
            "`persistence_engine`",
        ),
        (
            "real_server",
            "real_server 10.0.0.2 80 {\nHTTP_GET {\nurl {\npath /\n}\n}\n}\nreal_server",
            "`HTTP_GET`",
        ),
    ] {
        let text = server("", "").replace(from, to);
        let found = said(&text);
        assert_eq!(found.len(), 1, "{to}: {found:?}");
        let message = format!("error: {what} is not supported by this version: ");
        assert!(found[0].contains(&message), "{to}: {found:?}");
    }
    let (first, second) = (
        instance(""),
        instance("").replace("vrrp_instance V", "vrrp_instance W"),
    );
    let second = second
        .replace("10.0.0.9", "10.0.0.8")
        .replace("id 7", "id 8");
    for top in [
        format!("{first}{second}vrrp_sync_group G {{\ngroup {{\nV\nW\n}}\n}}"),
        "static_routes {\n10.0.0.0/8 dev eth0\n}".to_owned(),
    ] {
        let parsed = parse("f", top.as_bytes());
        assert!(parsed.has_errors(), "{top}");
    }
}

#[test]
fn keywords_without_effect_are_named_each_time() {
    let text = instance("notify_master \"/x a\"\nnotify_backup /y root\nsmtp_alert");
    let found: Vec<_> = parse("f", text.as_bytes()).diagnostics;
    let names = ["notify_master", "notify_backup", "smtp_alert"];
    assert_eq!(found.len(), names.len());
    for (found, name) in found.iter().zip(names) {
        let start = format!("`{name}` is not applied yet: ");
        assert!(found.message.starts_with(&start), "{found}");
    }
    assert!(found.iter().all(|d| d.severity == Severity::Warning));
    let notify = vrrp("notify_master \"/x a\"\nnotify_backup /y root grp").notify;
    assert_eq!(
        (notify[0].event, notify[0].command.as_str()),
        (NotifyEvent::Master, "/x a")
    );
    assert_eq!(notify[1].user.as_deref(), Some("root"));
    assert_eq!(notify[1].group.as_deref(), Some("grp"));
    let mail =
        "global_defs {\nsmtp_server h 26\nnotification_email_from a@b\nsmtp_connect_timeout 3\n}";
    assert_eq!(said(mail).len(), 1, "{:?}", said(mail));
    assert_eq!(
        said("global_defs {\nvrrp_iptables\n}"),
        [
            "2:1: note: `vrrp_iptables` has no effect here: the data plane decides which packets the addresses \
             take, no firewall"
        ]
    );
}

#[test]
fn commands_with_arguments_stand_in_quotes() {
    let text = instance("notify /x/y.sh a b c");
    assert_eq!(
        said(&text)[1],
        "2:8: warning: a command, a user and a group are all that can stand here"
    );
    let text = instance("notify '/x y.sh");
    assert_eq!(
        said(&text)[1],
        "2:8: warning: a quote of the command is not closed"
    );
}

#[test]
fn keywords_of_refused_checkers_are_still_checked() {
    let text = server(
        "",
        "HTTP_GET {\nurl {\npaht /\n}\nretry 3\n}\nDNS_CHECK {\nnmae x\n}",
    );
    assert_eq!(
        said(&text),
        [
            "7:1: error: `HTTP_GET` is not supported by this version: up while pages come with the right status or content",
            "7:1: warning: HTTP_GET is left out: it has no url",
            "8:1: warning: the url is left out: it has no path",
            "9:1: warning: unknown keyword `paht`",
            "13:1: error: `DNS_CHECK` is not supported by this version: up while a name is answered for",
            "14:1: warning: unknown keyword `nmae`",
        ]
    );
}

#[test]
fn blocks_may_stand_on_one_line() {
    let text = "vrrp_instance V{interface eth0\nvirtual_router_id 7}\n";
    let parsed = parse("f", text.as_bytes());
    assert_eq!(parsed.config.vrrp_instances[0].virtual_router_id, 7);
    let text = instance("virtual_ipaddress { 10.0.0.1/24 dev eth1 }\r\nunicast_peer{10.0.0.3}\r");
    let v = config(&text).vrrp_instances.remove(0);
    assert_eq!(v.virtual_ipaddress[0].dev, "eth1");
    assert!(matches!(v.transport, Transport::Unicast { .. }));
}
