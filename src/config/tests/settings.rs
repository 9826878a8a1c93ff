//! `xvs` and the idle times: what each line says, and what it refuses.

use std::time::Duration;

use super::{
    super::{Config, Settings, Timeout, effective, parse},
    config, said,
};

const NOTHING: [&str; 0] = [];

fn xvs(lines: &str) -> String {
    format!("xvs {{\n{lines}\n}}\n")
}

fn read(lines: &str) -> Settings {
    config(&xvs(lines)).settings
}

#[test]
fn nothing_said_is_what_ipvs_does() {
    let Config {
        settings, timeouts, ..
    } = config("");
    let ipvs = settings.ipvs;
    assert_eq!(ipvs.conn_reuse_mode, 1);
    assert!(ipvs.pmtu_disc);
    let off = [
        ipvs.expire_quiescent_template,
        ipvs.sloppy_tcp,
        ipvs.sloppy_sctp,
        ipvs.schedule_icmp,
        ipvs.nat_icmp_send,
        settings.reset_on_failure,
        settings.busy_poll,
    ];
    assert_eq!(off, [false; 7]);
    assert!(ipvs.expire_nodest_conn, "not IPVS's default");
    assert_eq!(settings.tunnel_source, []);
    assert!(settings.udp_move && !settings.cut_removed);
    assert_eq!(settings.maglev_table_size.slots(), 65_537);
    assert_eq!((settings.workers, settings.cpus), (None, vec![]));
    // Linux, net/netfilter/ipvs/ip_vs_proto_{tcp,udp,sctp}.c
    let secs: Vec<u64> = (Timeout::ALL.iter())
        .map(|state| timeouts.get(*state).as_secs())
        .collect();
    assert_eq!(
        secs,
        [
            2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120, 300, 2, 4, 61, 61, 61, 61, 61, 61,
            900, 61, 61, 61, 4, 61
        ]
    );
    let shown = effective(&config(""));
    assert!(!shown.contains("xvs"), "{shown}");
}

#[test]
fn each_setting_is_read_and_written() {
    for line in [
        "workers 4",
        "cpus 0,2-5",
        "busy_poll yes",
        "spin_us 0",
        "spin_us 1000000",
        "reset_on_failure yes",
        "cut_removed yes",
        "udp_move no",
        "tunnel_source 172.16.0.0/12",
        "maglev_table_size 251",
        "conn_reuse_mode 0",
        "expire_nodest_conn 0",
        "expire_quiescent_template 1",
        "sloppy_tcp 1",
        "sloppy_sctp 1",
        "pmtu_disc 0",
        "schedule_icmp 1",
        "nat_icmp_send 1",
    ] {
        assert_eq!(said(&xvs(line)), NOTHING, "{line}");
        assert_ne!(read(line), Settings::default(), "{line}");
        let shown = effective(&config(&xvs(line)));
        assert!(
            shown.contains(&format!("xvs {{\n    {line}\n}}")),
            "{shown}"
        );
    }
    assert_eq!(read("cpus 5,0-2,1").cpus, [0, 1, 2, 5]);
    assert!(read("busy_poll").busy_poll);
    assert_eq!(read("sloppy_tcp 0"), Settings::default());
    // Several blocks add up.
    let both = config(&(xvs("workers 2") + &xvs("busy_poll"))).settings;
    assert_eq!((both.workers, both.busy_poll), (Some(2), true));
}

#[test]
fn what_a_setting_cannot_be_is_said_with_the_range() {
    for (line, message) in [
        ("workers 0", "2:9: warning: workers 0 is out of range"),
        ("workers 257", "2:9: warning: workers 257 is out of range"),
        ("workers", "2:1: warning: `workers` needs a value"),
        ("cpus 3-1", "2:6: error: `3-1` is not a list of CPUs"),
        ("cpus 8192", "2:6: error: `8192` is not a list of CPUs"),
        ("busy_poll 1", "2:11: warning: `1` is not a boolean"),
        (
            "spin_us 1000001",
            "2:9: warning: spin_us 1000001 is out of range",
        ),
        (
            "conn_reuse_mode 4",
            "2:17: warning: conn_reuse_mode 4 is out of range",
        ),
        (
            "sloppy_tcp yes",
            "2:12: warning: sloppy_tcp: `yes` is not a number",
        ),
        ("pmtu_disc 2", "2:11: warning: pmtu_disc 2 is out of range"),
        (
            "maglev_table_size 65536",
            "2:19: error: maglev_table_size 65536 is not a prime",
        ),
        (
            "maglev_table_size 241",
            "2:19: warning: maglev_table_size 241 is out of range",
        ),
        (
            "maglev_table_size 1048574",
            "2:19: warning: maglev_table_size 1048574 is out of range",
        ),
        (
            "timeouts {\ntcp_close 0\n}",
            "3:11: warning: tcp_close 0 is out of range",
        ),
        (
            "timeouts {\nudp 2678401\n}",
            "3:5: warning: udp 2678401 is out of range",
        ),
        (
            "timeouts {\nudp {\n}\n}",
            "3:1: error: `udp` takes no block",
        ),
        ("timeouts 3", "2:1: warning: `timeouts` lacks its `{`"),
    ] {
        let found = said(&xvs(line));
        assert!(found.contains(&message.to_owned()), "{line}: {found:?}");
    }
    let parsed = parse("f", xvs("maglev_table_size 65536").as_bytes());
    assert_eq!(
        parsed.diagnostics[0].hint.as_deref(),
        Some("the next one is 65537")
    );
    assert_eq!(
        read("maglev_table_size 1048573").maglev_table_size.slots(),
        1_048_573
    );
    assert_eq!(
        said("xvs\nworkers 2\n}\n"),
        ["1:1: warning: `xvs` lacks its `{`"]
    );
}

#[test]
fn unknown_words_are_named_with_a_guess() {
    for (line, message, hint) in [
        (
            "worker 3",
            "unknown keyword `worker`",
            "did you mean `workers`?",
        ),
        (
            "mark 3 {\ndestnation 10.0.0.1\ndestination 10.0.0.1\n}",
            "unknown keyword `destnation`",
            "did you mean `destination`?",
        ),
        (
            "timeouts {\ntcp_synrecv 3\n}",
            "unknown state `tcp_synrecv`",
            "did you mean `tcp_syn_recv`?",
        ),
        (
            "timeouts {\nicmp 3\n}",
            "unknown state `icmp`",
            "a state of IPVS, like tcp_syn_recv or sctp_established",
        ),
    ] {
        let parsed = parse("f", xvs(line).as_bytes());
        let found = parsed.diagnostics.iter().find(|d| d.message == message);
        let found = found.unwrap_or_else(|| panic!("{}", parsed.report()));
        assert_eq!(found.hint.as_deref(), Some(hint));
    }
}

#[test]
fn idle_times_can_be_set_in_two_places() {
    let idle = |text: &str| {
        let timeouts = config(text).timeouts;
        let states = [Timeout::TcpEstablished, Timeout::TcpFinWait, Timeout::Udp];
        states.map(|state| timeouts.get(state).as_secs())
    };
    let lvs = |text: &str| format!("global_defs {{\nlvs_timeouts {text}\n}}\n");
    assert_eq!(idle(&lvs("tcp 100 udp 5")), [100, 120, 5]);
    assert_eq!(said(&lvs("tcp 100 tcpfin 9 udp 5")), NOTHING);
    assert_eq!(idle(&lvs("tcpfin 0")), [900, 120, 300]);
    assert_eq!(
        said(&lvs("tpc 3")),
        ["2:14: warning: unknown timeout `tpc`"]
    );
    let own = xvs("timeouts {\ntcp_established 50\nsctp_cookie 7\n}");
    assert_eq!(said(&own), NOTHING);
    assert_eq!(
        config(&own).timeouts.get(Timeout::SctpCookie),
        Duration::from_secs(7)
    );
    for text in [lvs("tcp 100") + &own, own.clone() + &lvs("tcp 100")] {
        assert_eq!(idle(&text), [50, 120, 300]);
        let found = said(&text);
        assert_eq!(found.len(), 1, "{found:?}");
        let message = "warning: `tcp_established` overrides lvs_timeouts: 100 s";
        assert!(found[0].ends_with(message), "{found:?}");
    }
    assert_eq!(said(&(lvs("tcp 50") + &own)), NOTHING);
    assert_eq!(
        said(&xvs("timeouts {\nudp 3\nudp 4\n}")),
        ["4:1: warning: `udp` is given again; the last one counts"]
    );
}

#[test]
fn mark_rules_are_those_of_iptables() {
    let text = xvs(
        "mark 3 {\nprotocol tcp\ndestination 10.0.0.0/24\ndestination_port 80-90\n\
         source 10.0.0.0/8\nsource_port 1024\ninterface eth0\n}\nmark 3 {\ndestination fd00::1-ff\n}",
    );
    let rules = config(&text).settings.marks;
    assert_eq!(rules.len(), 2);
    assert_eq!(rules[0].destination.to_string(), "10.0.0.0/24");
    assert_eq!(rules[0].destination_port.unwrap().to_string(), "80-90");
    assert_eq!(rules[0].source.unwrap().to_string(), "10.0.0.0/8");
    assert_eq!(rules[0].source_port.unwrap().to_string(), "1024");
    assert_eq!(rules[0].interface.as_deref(), Some("eth0"));
    assert_eq!(rules[1].destination.to_string(), "fd00::1-fd00::ff");
    assert_eq!((rules[1].protocol, rules[1].source), (None, None));
    let unused = "warning: no virtual server takes IPv4 packets with mark 3";
    for (lines, message) in [
        (
            "destination_port 80\ndestination 10.0.0.1",
            "3:18: error: a port needs a protocol",
        ),
        (
            "protocol TCP\nsource_port 9-8\ndestination 10.0.0.1",
            "4:13: error: `9-8` is neither a port nor a range",
        ),
        (
            "source fd00::/8\ndestination 10.0.0.1",
            "3:8: error: the source is IPv6 and the destination IPv4",
        ),
        (
            "source 10.0.0.1/8\ndestination 10.0.0.1",
            "3:8: error: `10.0.0.1/8`: bits are set behind the prefix; the network is 10.0.0.0/8",
        ),
        (
            "interface a/b\ndestination 10.0.0.1",
            "3:11: warning: `a/b` cannot be the name of an interface",
        ),
        (
            "protocol x\ndestination 10.0.0.1",
            "3:10: warning: `x` is not a protocol",
        ),
    ] {
        let found = said(&xvs(&format!("mark 3 {{\n{lines}\n}}")));
        assert_eq!(
            found,
            [format!("2:1: {unused}"), message.to_owned()],
            "{lines}"
        );
    }
    for (block, message) in [
        ("mark 3 {\n}", "2:1: error: mark 3 has no destination"),
        (
            "mark 3 {\ndestination x\n}",
            "3:13: error: `x`: not an IP address",
        ),
        (
            "mark {\ndestination 10.0.0.1\n}",
            "2:1: warning: `mark` needs a value",
        ),
        (
            "mark 0 {\ndestination 10.0.0.1\n}",
            "2:6: warning: mark 0 is out of range",
        ),
    ] {
        assert_eq!(said(&xvs(block)), [message], "{block}");
    }
    assert_eq!(
        said(&xvs("mark 3 {\ndestination 10.0.0.1\n}")),
        [format!("2:1: {unused}")]
    );
}
