//! Each keyword that is not of virtual servers has its place in the model, and is written as it is read.

use proptest::{collection::vec, prelude::*};

use super::super::{
    Config, Support,
    effective::{Secrets, written},
    grammar::keywords,
    keyword::{Facts, Range, Shape},
    parse,
};

/// A block with what must stand around a keyword of it.
const FRAMES: &[(&str, &str, &str)] = &[
    ("", "", INSTANCE),
    (
        "global_defs",
        "global_defs {\n",
        concat!(
            "\n}\n",
            "vrrp_instance V {\ninterface eth0\nvirtual_router_id 7\nvirtual_ipaddress {\n10.0.0.9\n}\n}\n"
        ),
    ),
    (
        "vrrp_instance",
        "vrrp_script S {\nscript /bin/s\n}\ntrack_file F {\nfile /f\n}\nvrrp_track_process P {\nprocess p\n}\nbfd_instance B {\nneighbor_ip 10.0.0.2\n}\nvrrp_instance V {\ninterface eth0\nvirtual_router_id 7\nvirtual_ipaddress {\n10.0.0.9\n}\n",
        "\n}\n",
    ),
    (
        "authentication",
        "vrrp_instance V {\ninterface eth0\nvirtual_router_id 7\nvirtual_ipaddress {\n10.0.0.9\n}\nauthentication {\nauth_type AH\nauth_pass 1\n",
        "\n}\n}\n",
    ),
    (
        "auth_hmac",
        "vrrp_instance V {\ninterface eth0\nvirtual_router_id 7\nvirtual_ipaddress {\n10.0.0.9\n}\nauth_hmac {\nkey 9 hex:00\n",
        "\n}\n}\n",
    ),
    (
        "virtual_ipaddress",
        "vrrp_instance V {\ninterface eth0\nvirtual_router_id 7\nvirtual_ipaddress {\n10.0.0.9/24 ",
        "\n}\n}\n",
    ),
    (
        "virtual_routes",
        "static_routes {\n10.0.0.0/8 dev eth0 nexthop ",
        "\n}\n",
    ),
    ("virtual_rules", "static_rules {\npreference 5 ", "\n}\n"),
    ("vrrp_script", "vrrp_script S {\nscript /bin/s\n", "\n}\n"),
    ("track_file", "track_file F {\nfile /f\n", "\n}\n"),
    (
        "track_process",
        "vrrp_track_process P {\nprocess p\n",
        "\n}\n",
    ),
    (
        "vrrp_sync_group",
        "vrrp_script S {\nscript /bin/s\n}\ntrack_file F {\nfile /f\n}\nvrrp_track_process P {\nprocess p\n}\nbfd_instance B {\nneighbor_ip 10.0.0.2\n}\nvrrp_instance V {\ninterface eth0\nvirtual_router_id 7\nvirtual_ipaddress {\n10.0.0.9\n}\n}\nvrrp_instance W {\ninterface eth0\nvirtual_router_id 8\nvirtual_ipaddress {\n10.0.0.8\n}\n}\nvrrp_sync_group G {\ngroup {\nW\n}\n",
        "\n}\n",
    ),
    ("track_group", "track_group T {\n", "\n}\n"),
    (
        "bfd_instance",
        "bfd_instance B {\nneighbor_ip 10.0.0.2\n",
        "\n}\n",
    ),
    ("garp_group", "garp_group {\ninterface eth0\n", "\n}\n"),
];

const INSTANCE: &str = "\nvrrp_instance V {\ninterface eth0\nvirtual_router_id 7\nvirtual_ipaddress {\n10.0.0.9\n}\n}\n";

/// What stands behind keywords whose table gives no sample.
fn special(block: &str, name: &str) -> Option<&'static str> {
    Some(match (block, name) {
        ("", "global_defs") => "{\nrouter_id R\n}",
        ("", "vrrp_instance") => {
            "W {\ninterface eth1\nvirtual_router_id 9\nno_virtual_ipaddress\n}"
        }
        ("", "vrrp_sync_group") => "G {\ngroup {\nV\n}\n}",
        ("", "vrrp_script") => "S {\nscript /bin/s\n}",
        ("", "track_file" | "vrrp_track_file") => "F {\nfile /f\n}",
        ("", "track_process" | "vrrp_track_process") => "P {\nprocess p \"a b\"\n}",
        ("", "bfd_instance") => "B {\nneighbor_ip 10.0.0.2\n}",
        ("", "static_ipaddress") => "{\n10.0.0.3/24 track_group T\n}",
        ("", "static_routes") => "{\ndefault via 10.0.0.1 dev eth0\n}",
        ("", "static_rules") => "{\nfrom 10.0.0.0/8 table 3 preference 7\n}",
        ("", "track_group") => "T {\ngroup {\nV W\n}\n}",
        ("", "garp_group") => "{\ninterface eth0\ngarp_interval 0.1\n}",
        ("", "interface_up_down_delays") => "{\neth0 1.5 0.5\neth1 1\n}",
        ("", "linkbeat_interfaces") => "{\neth0\neth1 MII\n}",
        ("global_defs", "notification_email") => "{\na@b\n}",
        ("global_defs", "smtp_server") => "mail.example 26",
        ("global_defs", "vrrp_version") => "3",
        ("global_defs", "vrrp_check_unicast_src") => {
            "\n}\nvrrp_instance U {\ninterface eth0\nvirtual_router_id 9\nno_virtual_ipaddress\nunicast_peer {\n10.0.0.2\n}"
        }
        ("global_defs", "vrrp_mcast_group4") => "224.0.0.19",
        ("global_defs", "vrrp_mcast_group6") => "ff02::13",
        ("global_defs", "vrrp_rx_bufs_policy") => "ADVERT",
        ("global_defs", "script_user") => "u g",
        ("global_defs", "notify_fifo" | "vrrp_notify_fifo" | "lvs_notify_fifo") => "/run/f u g",
        ("global_defs", "umask") => "IRGRP|IROTH",
        ("global_defs", "vrrp_cpu_affinity" | "checker_cpu_affinity" | "bfd_cpu_affinity") => {
            "3 1 2"
        }
        ("global_defs", "lvs_sync_daemon") => {
            "eth0 inst V id 3 maxlen 9 port 8849 ttl 2 group 224.0.0.82"
        }
        ("global_defs", "lvs_timeouts") => "tcp 7 udp 9",
        ("vrrp_instance", "state") => "MASTER",
        ("vrrp_instance", "version") => "3",
        ("vrrp_instance", "advert_int") => "3",
        ("vrrp_instance", "mcast_src_ip" | "unicast_src_ip") => "10.0.0.1",
        ("vrrp_instance", "mcast_dst_ip") => "224.0.0.20",
        ("vrrp_instance", "unicast_peer") => "{\n10.0.0.2 min_ttl 3\n}",
        ("vrrp_instance", "unicast_ttl") => "3\nunicast_peer {\n10.0.0.2\n}",
        ("vrrp_instance", "check_unicast_src") => "\nunicast_peer {\n10.0.0.2\n}",
        ("vrrp_instance", "authentication") => "{\nauth_type PASS\nauth_pass x\n}",
        ("vrrp_instance", "auth_hmac") => "{\nkey 3 hex:0011\n}",
        ("vrrp_instance", "virtual_ipaddress" | "virtual_ipaddress_excluded") => "{\n10.0.0.7\n}",
        ("vrrp_instance", "virtual_routes") => "{\n10.0.0.0/8 via 10.0.0.1 dev eth0\n}",
        ("vrrp_instance", "virtual_rules") => "{\nfrom 10.0.0.0/8 table 3\n}",
        ("vrrp_instance" | "vrrp_sync_group", "track_interface") => "{\neth1 weight 3 reverse\n}",
        ("vrrp_instance" | "vrrp_sync_group", "track_script") => "{\nS weight 5\n}",
        ("vrrp_instance" | "vrrp_sync_group", "track_file") => "{\nF\n}",
        ("vrrp_instance" | "vrrp_sync_group", "track_process") => "{\nP weight -254 reverse\n}",
        ("vrrp_instance" | "vrrp_sync_group", "track_bfd") => "{\nB weight 9\n}",
        ("vrrp_instance", "notify_deleted") => "",
        ("vrrp_instance", "garp_extra_if" | "vmac_garp_intvl") => "all 9",
        ("vrrp_instance", "use_vmac") => "vm0 00:11:22:33:44:55 netlink_notify_msg group g",
        ("vrrp_sync_group", "group") => "{\nV\n}",
        ("track_group", "group") => "{\nX\n}",
        ("authentication", "auth_type") => "PASS",
        ("auth_hmac", "key") => "4 ascii:abc",
        ("bfd_instance", "neighbor_ip" | "neighbour_ip" | "source_ip") => "10.0.0.5",
        ("bfd_instance" | "vrrp_script" | "track_file" | "track_process", "weight") => "-7 reverse",
        ("vrrp_script", "user") => "u g",
        ("track_file", "init_file") => "-3 overwrite",
        ("track_process", "process") => "q \"r s\"",
        ("garp_group", "interfaces") => "{\neth3\n}",
        ("virtual_ipaddress", "dev") => "eth9",
        ("virtual_ipaddress", "brd" | "broadcast") => "10.0.0.200",
        ("virtual_ipaddress", "scope") => "link",
        ("virtual_ipaddress", "label") => "eth0:1",
        ("virtual_ipaddress", "peer") => "10.0.0.3",
        ("virtual_ipaddress", "preferred_lft") => "9",
        ("virtual_ipaddress", "track_group") => "T",
        ("virtual_routes", "to") => "10.1.0.0/16",
        ("virtual_routes", "via" | "gw" | "or" | "src" | "as") => "10.0.0.1",
        ("virtual_routes" | "virtual_rules", "from") => "10.2.0.0/16",
        ("virtual_rules", "to") => "10.3.0.0/16",
        ("virtual_routes", "encap") => "ip id 3 dst 10.0.0.5",
        ("virtual_rules", "fwmark") => "0x10/255",
        ("virtual_rules", "uidrange" | "sport" | "dport") => "7-9",
        ("virtual_routes", "nexthop") => "via 10.0.0.6",
        ("virtual_routes" | "virtual_rules", _) => "5",
        _ => return None,
    })
}

/// A value that the keyword can have; `n` tells which.
fn sample(block: &str, facts: &Facts, n: u64) -> Option<String> {
    if let Some(special) = special(block, facts.name) {
        return Some(special.to_owned());
    }
    Some(match facts.range {
        Range::Free if facts.shape == Shape::Block => return None,
        Range::Free => format!("w{}", n % 9),
        Range::Flag => String::new(),
        Range::Boolean => "on".to_owned(),
        Range::Number(limits) => {
            let (least, most) = (*limits.range.start(), *limits.range.end());
            let many = u64::try_from(most - least).unwrap() + 1;
            (least + i64::try_from(n % many).unwrap()).to_string()
        }
        Range::Time(limits) => time(
            limits.least.as_micros(),
            limits.most.as_micros(),
            n,
            1_000_000,
        ),
        Range::Millis(limits) => time(limits.least.as_micros(), limits.most.as_micros(), n, 1_000),
        Range::Choice(words) => words[usize::try_from(n).unwrap_or(0) % words.len()].to_owned(),
        Range::Text(_) | Range::FileName(_) => format!("t{}", n % 99),
        Range::Names(most) => {
            let many = usize::try_from(n).unwrap_or(0) % most + 1;
            vec!["w"; many].join(" ")
        }
        Range::Script => format!("\"/bin/a {}\" u g", n % 9),
        Range::Words(_) => return None,
    })
}

/// A time between two in microseconds, in a unit of so many.
fn time(least: u128, most: u128, n: u64, unit: u128) -> String {
    let micros = least + u128::from(n) % (most - least + 1);
    let fraction = format!("{:06}", micros % unit * (1_000_000 / unit));
    format!("{}.{fraction}", micros / unit)
}

fn read(text: &str) -> (Config, String) {
    let parsed = parse("f", text.as_bytes());
    let report = parsed.report();
    (parsed.config, report)
}

fn comes_back(text: &str) -> Config {
    let (config, _) = read(text);
    let shown = written(&config, Secrets::Shown);
    let (again, report) = read(&shown);
    assert_eq!(
        again, config,
        "{text}\n-- is written as --\n{shown}\n{report}"
    );
    config
}

/// Old names and other words for what a keyword with another name says, and words for what is so anyway.
const SAME: &[(&str, &str)] = &[
    ("vrrp_instance", "preempt"),
    ("vrrp_instance", "accept"),
    ("virtual_routes", "nexthop"),
    ("global_defs", "lvs_id"),
    ("", "SSL"),
];

#[test]
fn every_keyword_has_its_place_in_the_model() {
    let mut seen = 0;
    for (block, before, after) in FRAMES {
        let (without, _) = read(&format!("{before}{after}"));
        for (_, facts) in keywords().filter(|(own, _)| own == block) {
            let name = facts.name;
            if block.is_empty() && (name.starts_with("virtual_server") || name == "xvs") {
                continue;
            }
            let same = SAME.contains(&(*block, name));
            let former = matches!(facts.fate, Support::Former(_));
            // Neither the default nor, where there is a frame, what it has.
            let value = [7, 41, 1, 0].into_iter().find_map(|n| {
                let value = sample(block, facts, n)?;
                let (with, _) = read(&format!("{before}{name} {value}{after}"));
                (with != without).then_some(value)
            });
            if same || former {
                continue;
            }
            let value = value.unwrap_or_else(|| {
                let value = sample(block, facts, 7);
                let text = format!("{before}{name} {}{after}", value.unwrap_or_default());
                panic!("{block} {name} leaves no trace:\n{text}\n{}", read(&text).1)
            });
            comes_back(&format!("{before}{name} {value}{after}"));
            seen += 1;
        }
    }
    assert!(seen > 280, "{seen}");
}

/// Lines of a block: keywords, each once, with values.
fn lines(block: &'static str, picked: &[(usize, u64)]) -> String {
    let all: Vec<&Facts> = keywords()
        .filter(|(own, facts)| *own == block && facts.name != "state")
        .map(|(_, facts)| facts)
        .collect();
    let mut used = Vec::new();
    let mut text = String::new();
    for (at, n) in picked {
        let facts = all[at % all.len()];
        let name = facts.newer.unwrap_or(facts.name);
        if used.contains(&name) {
            continue;
        }
        used.push(name);
        if let Some(value) = sample(block, facts, *n) {
            text += &format!("{} {value}\n", facts.name);
        }
    }
    text
}

fn picks() -> impl Strategy<Value = Vec<(usize, u64)>> {
    vec((any::<usize>(), any::<u64>()), 0..12)
}

proptest! {
    #[test]
    fn keywords_together_are_written_as_they_are_read(
        which in 1..FRAMES.len(),
        picked in picks(),
        others in picks(),
    ) {
        let (block, before, after) = FRAMES[which];
        let global = lines("global_defs", &others);
        let options = matches!(block, "virtual_ipaddress" | "virtual_routes" | "virtual_rules");
        let mut own = lines(block, &picked);
        if options {
            own = own.replace('\n', " ");
        }
        comes_back(&format!("{before}{own}{after}global_defs {{\n{global}}}\n"));
    }
}

/// Neither the fate nor the model calls something applied that only stands there.
#[test]
fn plain_values_that_nobody_reads_are_not_called_applied() {
    let config = Config::default();
    let global = config.global.plain().map(|(name, _)| name);
    let plain = global.chain(config.process.plain().into_iter().map(|(name, _)| name));
    // These are read at the start or while the file is, or by who writes files and who reloads.
    let mut read = vec![
        "umask",
        "net_namespace",
        "random_seed",
        "include_check",
        "instance",
        "use_pid_dir",
        "reload_time_file",
        "reload_repeat",
        "reload_file",
        "config_save_dir",
        "data_use_instance",
        "json_version",
        "state_dump_file",
        "stats_dump_file",
        "json_dump_file",
    ];
    // By `control::scripts` and `control::engine::priorities`, each with tests of its own.
    read.extend(
        "script_user enable_script_security set_supplementary_groups use_symlink_paths \
         startup_script startup_script_timeout shutdown_script shutdown_script_timeout \
         vrrp_priority vrrp_rt_priority vrrp_rlimit_rttime vrrp_cpu_affinity vrrp_no_swap \
         max_auto_priority min_auto_priority_delay"
            .split_whitespace(),
    );
    for name in plain.filter(|name| !read.contains(name)) {
        let found = keywords()
            .find(|(block, facts)| matches!(*block, "" | "global_defs") && facts.name == name);
        let (_, facts) = found.unwrap_or_else(|| panic!("{name} is not in the table"));
        let fate = facts.fate;
        assert!(
            !matches!(fate, Support::Applied | Support::ByValue),
            "{name}: {fate:?}"
        );
    }
}
