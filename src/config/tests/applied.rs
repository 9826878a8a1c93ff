//! Nothing is printed as effective that the program neither does nor reports.

use std::{collections::HashSet, fs, path::Path};

use super::{
    super::{
        effective::{Secrets, written},
        grammar::keywords,
        parse,
        support::Support,
    },
    config, said, server,
};
use crate::lvs::LbKind;

/// A file that sets everything that the model holds to something else than its default.
const EVERYTHING: &str = "
global_defs {
    router_id R
    notification_email {
        a@example.org
    }
    notification_email_from b@example.org
    smtp_server mail.example.org 26
    smtp_helo_name h
    smtp_connect_timeout 9
    lvs_timeouts tcp 9 tcpfin 8 udp 7
    vrrp_startup_delay 1
    vrrp_garp_interval 0.5
}
vrrp_instance MULTICAST {
    state MASTER
    interface eth0
    virtual_router_id 7
    priority 9
    version 2
    advert_int 2
    dont_track_primary
    skip_check_adv_addr
    down_timer_adverts 4
    lower_prio_no_advert
    higher_prio_send_advert
    mcast_src_ip 10.0.0.1
    mcast_dst_ip 224.0.0.19
    authentication {
        auth_type PASS
        auth_pass 1111
    }
    virtual_ipaddress {
        10.0.0.9/24 dev eth1 scope link label eth1:1 brd + peer 10.0.0.8 noprefixroute no_track
    }
    virtual_ipaddress_excluded {
        10.0.1.9/24 brd 10.0.1.255
    }
    garp_master_delay 1
    garp_master_repeat 2
    garp_master_refresh 3
    garp_master_refresh_repeat 4
    garp_lower_prio_delay 5
    garp_lower_prio_repeat 6
    track_interface {
        eth2 weight -3 reverse
    }
    notify /bin/a
    notify_master /bin/a
    notify_backup /bin/a
    notify_fault /bin/a
    notify_stop /bin/a
    notify_deleted /bin/a
    notify_master_rx_lower_pri /bin/a
}
vrrp_instance UNICAST {
    interface eth0
    virtual_router_id 8
    nopreempt
    unicast_src_ip 10.0.0.1
    unicast_ttl 64
    check_unicast_src
    unicast_peer {
        10.0.0.2 min_ttl 250 max_ttl 254
    }
    virtual_ipaddress {
        10.0.2.9
    }
}
vrrp_instance LATE {
    interface eth0
    virtual_router_id 9
    version 3
    preempt_delay 3
    virtual_ipaddress {
        10.0.3.9
    }
}
xvs {
    workers 3
    cpus 0,2-4
    busy_poll yes
    spin_us 200
    fast_path on
    reset_on_failure yes
    udp_move no
    tunnel_source 172.16.0.0/12
    maglev_table_size 251
    conn_reuse_mode 3
    expire_nodest_conn 0
    expire_quiescent_template 1
    sloppy_tcp 1
    sloppy_sctp 1
    pmtu_disc 0
    schedule_icmp 1
    nat_icmp_send 1
    timeouts {
        tcp_syn_recv 5
        sctp_init 6
    }
    mark 3 {
        protocol TCP
        destination 10.0.4.0/24
        destination_port 8000-8009
        source 10.0.0.0/8
        source_port 1024-65535
        interface eth3
    }
}
virtual_server_group G {
    10.0.0.20 80
    10.0.0.21-30 80
    10.1.0.0/16 80
    fwmark 3
}
virtual_server group G {
    protocol UDP
    ops
    lb_algo mh
    mh-port
    mh-fallback
    lb_kind TUN type gue port 6080 csum
    real_server fd00::1 80 {
        lvs_method TUN type gre
    }
}
virtual_server fwmark 3 {
    ip_family inet6
    lb_algo sh
    sh-port
    sh-fallback
    lb_kind NAT
    real_server fd00::1 80 {
    }
}
virtual_server 10.0.0.9 80 {
    protocol TCP
    delay_loop 6
    lb_algo wrr
    lb_kind DR
    persistence_timeout 50
    persistence_granularity 24
    alpha
    omega
    quorum 3
    hysteresis 2
    sorry_server 10.0.0.10 80
    sorry_server_lvs_method TUN
    sorry_server_inhibit
    quorum_up /bin/a
    quorum_down /bin/a
    real_server 10.0.0.11 80 {
        weight 3
        lvs_method DR
        inhibit_on_failure
        uthreshold 9
        lthreshold 8
        notify_up /bin/a
        notify_down /bin/a
        TCP_CHECK {
            connect_ip 10.0.0.12
            connect_port 81
            bindto 10.0.0.13
            bind_port 82
            connect_timeout 4
            retry 2
            delay_before_retry 3
            warmup 6
            delay_loop 5
            alpha
            log_all_failures
            bind_if eth0
            fwmark 9
        }
        HTTP_GET {
            virtualhost a.example
            http_protocol 1.1
            fast_recovery
            url {
                path /
                digest 00112233445566778899aabbccddeeff
                status_code 200-299 301
                virtualhost b.example
                regex \"o[kK]\"
                regex_no_match
                regex_options caseless dotall
                regex_min_offset 1
                regex_max_offset 9
                regex_stack 1 2
                tls_compliant
            }
        }
        SSL_GET {
            enable_sni
            sni_name c.example
            url {
                path /
            }
        }
        SMTP_CHECK {
            helo_name d.example
        }
        DNS_CHECK {
            type A
            name e.example
        }
        MISC_CHECK {
            misc_path /bin/a
            user nobody nogroup
            misc_timeout 3
            misc_dynamic
        }
        UDP_CHECK {
            payload 00
            require_reply 0x
            min_reply_length 1
            max_reply_length 2
        }
        PING_CHECK {
        }
        BFD_CHECK {
            name B
        }
        FILE_CHECK {
            track_file F
            weight 3 reverse
        }
        smtp_alert
        snmp_name rs
    }
    persistence_engine sip
    ha_suspend
    smtp_alert
    snmp_name vs
}
SSL {
    password hidden
    ca /a
    certificate /b
    key /c
}
bfd_instance B {
    neighbor_ip 10.0.0.2
}
track_file F {
    file /f
}
";

/// Words that stand for themselves in a list, each with the options that are applied.
fn options(block: &str) -> Option<&'static [&'static str]> {
    match block {
        "virtual_ipaddress" | "virtual_ipaddress_excluded" => Some(&[
            "dev",
            "scope",
            "label",
            "brd",
            "peer",
            "noprefixroute",
            "no_track",
        ]),
        "unicast_peer" | "track_interface" | "notification_email" => Some(&[]),
        "virtual_server_group" => Some(&["inet"]),
        _ => None,
    }
}

fn applied(block: &str, keyword: &str) -> bool {
    // States of IPVS, of which every one is applied.
    if block == "timeouts" {
        return true;
    }
    let mut named = keywords().filter(|(own, facts)| *own == block && facts.name == keyword);
    named.any(|(_, facts)| {
        matches!(
            facts.fate,
            Support::Applied | Support::ByValue | Support::WithBlock
        )
    })
}

/// Every finding of `text`, in one string.
fn report(text: &str) -> String {
    parse("f", text.as_bytes()).report()
}

#[test]
fn what_is_printed_as_effective_is_applied_or_reported() {
    let parsed = parse("f", EVERYTHING.as_bytes());
    let text = written(&parsed.config, Secrets::Shown);
    let again = parse("f", text.as_bytes());
    assert_eq!(again.config, parsed.config, "{}", again.report());
    // Mail is one subject, reported once.
    let mail = again.report().contains("mail (`notification_email`");
    let reported: HashSet<usize> = (again.diagnostics.iter())
        .map(|d| usize::try_from(d.line).unwrap())
        .collect();
    let mut blocks = vec![""];
    let mut printed = HashSet::new();
    for (number, line) in (1..).zip(text.lines()) {
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        if first == "}" {
            blocks.pop();
            continue;
        }
        let block = *blocks.last().unwrap();
        let accounted = match options(block) {
            None => {
                printed.insert(first);
                applied(block, first)
            }
            // The address is what the list is for; its options are looked at one by one.
            Some(applied) => words
                .filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase()))
                .filter(|word| !matches!(*word, "eth0" | "eth1" | "eth1:1"))
                .all(|word| applied.contains(&word)),
        };
        let tracked = block == "track_interface";
        let mailed = mail && first.starts_with("smtp_");
        assert!(
            (accounted && !tracked) || mailed || reported.contains(&number),
            "neither applied nor reported: {line}\n{}",
            again.report()
        );
        if line.ends_with('{') {
            blocks.push(first);
        }
    }
    // The file has not fallen behind the model: all that it says is printed.
    for word in EVERYTHING
        .lines()
        .filter_map(|l| l.split_whitespace().next())
    {
        let keyword = word.starts_with(|c: char| c.is_ascii_alphabetic());
        // The user of a script stands behind its command.
        let entry = word.contains('@') || matches!(word, "eth2" | "fwmark" | "user");
        assert!(!keyword || entry || printed.contains(word), "{word}");
    }
}

/// Keywords whose values decide are no way around the verdicts.
#[test]
fn each_word_that_is_not_applied_is_reported_when_it_stands_alone() {
    for (line, name) in [
        ("router_id R", "`router_id`"),
        ("notification_email {\na@b\n}", "`notification_email`"),
        ("notification_email_from a@b", "`notification_email_from`"),
        ("smtp_server h", "`smtp_server`"),
        ("smtp_helo_name h", "`smtp_helo_name`"),
        ("smtp_connect_timeout 9", "`smtp_connect_timeout`"),
    ] {
        let said = report(&format!("global_defs {{\n{line}\n}}"));
        assert!(said.contains(name), "{line}: {said}");
    }
    let said = report(EVERYTHING);
    for name in ["`track_interface`", "`min_ttl`", "`max_ttl`", "`omega`"] {
        assert!(said.contains(name), "{name}: {said}");
    }
}

/// keepalived.conf(5) has none of these words any more, and keepalived 2.x goes on without them.
#[test]
fn words_of_keepalived_1_are_ignored_by_name() {
    let ignored = |line, name| {
        format!("{line}:1: warning: `{name}` is ignored, as keepalived 2.x ignores it")
    };
    let found = parse("f", b"global_defs {\nlvs_id LVS_1\n}").diagnostics;
    assert_eq!(found[0].hint.as_deref(), Some("use `router_id`"));
    assert_eq!(
        said("global_defs {\nlvs_id LVS_1\n}"),
        [ignored(2, "lvs_id")]
    );
    let text = server(
        "nat_mask 255.255.255.0",
        "lb_kind NAT\nnat_mask 255.255.255.0",
    );
    assert_eq!(
        said(&text),
        [
            ignored(2, "nat_mask"),
            ignored(7, "lb_kind"),
            ignored(8, "nat_mask")
        ]
    );
    let real = config(&text).virtual_servers[0].real_servers[0].clone();
    assert_eq!(real.lb_kind, LbKind::Dr);
    assert_eq!(said(&server("persistence_timeout 50", "")), [""; 0]);
}

/// The other end of the promise: what the lists call applied is read by somebody.
#[test]
fn every_field_of_the_model_is_read_by_control_or_known_not_to_be() {
    /// With the reason that nobody reads it.
    const UNREAD: &[(&str, &str)] = &[
        ("vrrp_gna_interval", "reported"),
        ("instance", "reported: lvs_sync_daemon"),
        ("maxlen", "reported: lvs_sync_daemon"),
        ("ttl", "of a daemon: reported"),
        ("process", "reported, noted or refused"),
        ("static_addresses", "refused"),
        ("static_routes", "refused"),
        ("static_rules", "refused"),
        ("track_groups", "reported"),
        ("scripts", "reported"),
        ("track_files", "reported"),
        ("track_processes", "reported"),
        ("bfd_instances", "reported"),
        ("garp_groups", "reported"),
        ("up_down_delays", "reported"),
        ("linkbeats", "noted"),
        ("sync_groups", "refused"),
        ("alerts", "reported: mail"),
        ("lvs_sync_daemon", "reported"),
        ("files", "reported or noted"),
        ("processes", "reported or noted"),
        (
            "strict_mode",
            "decides other fields here; the rest is reported",
        ),
        ("accept", "reported: no_accept"),
        ("no_virtual_ipaddress", "keeps an error back"),
        ("auth_hmac", "refused"),
        ("use_vmac", "refused"),
        ("trackers", "refused"),
        ("virtual_routes", "refused"),
        ("virtual_rules", "refused"),
        ("further", "reported, noted or refused"),
        ("home", "reported"),
        ("nodad", "reported"),
        ("mngtmpaddr", "reported"),
        ("autojoin", "reported"),
        ("preferred_lft", "reported"),
        ("track_group", "reported"),
        ("anti_replay", "refused: auth_hmac"),
        ("active_key", "refused: auth_hmac"),
        ("time_window", "refused: auth_hmac"),
        ("netlink_notify_msg", "refused: use_vmac"),
        ("router_id", "reported"),
        ("maglev_table_size", "in `lb_algo mh`"),
        ("mail", "reported"),
        ("recipients", "reported: mail"),
        ("from", "reported: mail"),
        ("smtp_server", "reported: mail"),
        ("helo_name", "reported: mail"),
        ("connect_timeout", "reported: mail"),
        ("min_ttl", "reported"),
        ("max_ttl", "reported"),
        ("track_interface", "refused"),
        ("no_track", "asked where addresses are watched"),
        ("weight", "of track_interface: refused"),
        ("reverse", "of track_interface: refused"),
        ("initial_state", "decides priority and preempt here"),
        ("version", "only one is not refused"),
        ("omega", "reported"),
    ];
    /// Of scripts, which are reported.
    const SCRIPT: [&str; 5] = ["notify", "event", "command", "user", "group"];
    /// Of virtual and real servers: reported.
    const LVS: [&str; 5] = [
        "bind_if",
        "persistence_engine",
        "ha_suspend",
        "smtp_alert",
        "snmp_name",
    ];
    /// Of checkers that are refused, and of `SSL`, which is reported.
    const CHECKERS: [&str; 37] = [
        "connection",
        "tls",
        "virtualhost",
        "fast_recovery",
        "urls",
        "enable_sni",
        "sni_name",
        "path",
        "digest",
        "status_codes",
        "regex",
        "tls_compliant",
        "first",
        "last",
        "pattern",
        "no_match",
        "options",
        "min_offset",
        "max_offset",
        "stack",
        "helo_name",
        "record",
        "script",
        "dynamic",
        "payload",
        "reply",
        "min_length",
        "max_length",
        "value",
        "mask",
        "track_file",
        "password",
        "ca",
        "certificate",
        "key",
        "ssl",
        "name",
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut control = String::new();
    let mut folders = vec![root.join("control"), root.join("cli")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                control += &fs::read_to_string(path).unwrap();
            }
        }
    }
    let words: HashSet<&str> = control
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .collect();
    let mut model = String::new();
    // Of these, the keyword of the block has the verdict.
    const REPORTED: [&str; 4] = ["bfd.rs", "host.rs", "routes.rs", "tracking.rs"];
    for entry in fs::read_dir(root.join("config/model")).unwrap() {
        let entry = entry.unwrap();
        if !REPORTED.contains(&entry.file_name().to_str().unwrap()) {
            model += &fs::read_to_string(entry.path()).unwrap();
        }
    }
    let fields = model
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub "));
    let fields = fields.filter_map(|line| line.split_once(": "));
    let mut seen = 0;
    for (field, _) in fields.filter(|(field, _)| !field.contains(['(', ' '])) {
        let unread = UNREAD.iter().any(|(name, _)| *name == field)
            || [&SCRIPT[..], &LVS, &CHECKERS].concat().contains(&field);
        assert!(unread || words.contains(field), "nobody reads `{field}`");
        seen += 1;
    }
    assert!(seen > 60, "{seen}");
}
