//! Files of other times and hands: what keepalived makes of them is what counts here, and is said.

use super::{
    super::{Authentication, InitialState, Severity, VrrpVersion, parse},
    config, instance, said,
};

/// The findings of a severity, without their places.
fn of(severity: Severity, text: &str) -> Vec<String> {
    let found = parse("f", text.as_bytes()).diagnostics.into_iter();
    found
        .filter(|d| d.severity == severity)
        .map(|d| d.message)
        .collect()
}

const NONE: [&str; 0] = [];

#[test]
fn values_in_lower_case_are_named_and_taken_as_keepalived_takes_them() {
    let text = "vrrp_instance V1 {\nstate master\ninterface eth0\nlvs_sync_daemon_inteface eth1\n\
                virtual_router_id 11\npriority 100\nauthentication {\nauth_type pass\nauth_pass S3cr3t\n}\n\
                virtual_ipaddress {\n192.0.2.9 dev eth0\n}\n}\n";
    assert_eq!(
        said(text),
        [
            "2:7: warning: `master` is not a state; it is taken as BACKUP",
            "4:1: warning: unknown keyword `lvs_sync_daemon_inteface`",
            "7:1: warning: authentication without auth_type is ignored",
            "8:11: warning: `pass` is not a type of authentication",
        ]
    );
    let read = config(text).vrrp_instances.remove(0);
    assert_eq!(
        (read.initial_state, read.authentication),
        (InitialState::Backup, None)
    );
    assert!(!parse("f", text.as_bytes()).report().contains("S3cr3t"));
}

#[test]
fn a_template_of_version_3_by_unicast_says_what_is_missing_and_nothing_else() {
    let text = "global_defs {\nvrrp_version 3\nvrrp_iptables CHAIN\n}\n\
                vrrp_instance vips {\nstate BACKUP\ninterface eth0\nvirtual_router_id 50\npriority 101\nnopreempt\n\
                advert_int 1\ntrack_interface {\neth0\n}\nunicast_src_ip 192.0.2.2\nunicast_peer { \n192.0.2.3\n\
                192.0.2.4\n}\nvirtual_ipaddress { \n192.0.2.90\n}\n}\n";
    assert_eq!(
        of(Severity::Error, text),
        ["VRRP version 3 is not supported by this version"]
    );
    assert_eq!(
        of(Severity::Warning, text),
        ["the instance's own interface is tracked anyway"]
    );
    assert_eq!(of(Severity::Note, text).len(), 1);
    let parsed = parse("f", text.as_bytes()).config;
    assert_eq!(parsed.vrrp_instances[0].version, VrrpVersion::V3);
    assert_eq!(
        parsed.global.host.vrrp_iptables,
        Some(vec!["CHAIN".to_owned()])
    );
}

#[test]
fn routes_and_rules_are_read_and_ah_is_named() {
    let text = "vrrp_instance vips {\nstate BACKUP\ninterface eth1\nvirtual_router_id 50\npriority 100\naccept\n\
                virtual_ipaddress {\n198.51.100.25/28\n}\n\
                virtual_routes {\ndefault via 198.51.100.30 dev eth1 table 1\nsrc 198.51.100.2 10.0.0.0/8 gw 198.51.100.3\n\
                10.1.0.0/16 via 198.51.100.4 or 198.51.100.5 dev eth1\n192.168.100./24 dev eth1\n10.9.0.0/16 foo 3\n}\n\
                virtual_rules {\nfrom 198.51.100.24/28 table 1\nto 10.0.0.0/8 table 2\nfrom 192.168.100./24 table 3\n}\n\
                authentication {\nauth_type AH\nauth_pass abcdefgh\n}\n}\n";
    let parsed = parse("f", text.as_bytes());
    let read = &parsed.config.vrrp_instances[0];
    assert_eq!(read.virtual_routes.len(), 3, "{}", parsed.report());
    assert_eq!(read.virtual_routes[2].next_hops.len(), 2);
    let places: Vec<String> = (read.virtual_rules.iter())
        .map(|rule| format!("{:?}", rule.option("preference").unwrap()))
        .collect();
    assert_eq!(places, ["Number(16384)", "Number(16383)"]);
    assert!(matches!(read.authentication, Some(Authentication::Ah(_))));
    let errors = of(Severity::Error, text);
    assert_eq!(errors.len(), 3, "{errors:?}");
    for name in ["`virtual_routes`", "`virtual_rules`", "`auth_type AH`"] {
        assert!(
            errors.iter().any(|error| error.starts_with(name)),
            "{name}: {errors:?}"
        );
    }
    assert_eq!(
        of(Severity::Deprecated, text),
        [
            "`gw` is an old name; use `via`",
            "`or` is an old name; use `nexthop`"
        ]
    );
    let warnings = of(Severity::Warning, text);
    for said in [
        "a route without `dev` is not tracked: its loss goes unseen",
        "unknown option `192.168.100./24` of a route; the entry is ignored",
        "unknown option `foo` of a route; the entry is ignored",
        "a rule without a preference gets 16384",
        "a rule without a preference gets 16383",
        "from: `192.168.100./24` is not a network; the entry is ignored",
    ] {
        assert!(
            warnings.iter().any(|warning| warning == said),
            "{said}: {warnings:?}"
        );
    }
}

#[test]
fn nopreempt_with_master_is_cleared_and_the_weight_stays_one() {
    let text = "vrrp_script chk {\nscript \"/usr/bin/bash -c 'exit 1'\"\ninterval 5\nweight -30\nfall 3\nrise 5\ntimeout 5\n}\n\
                vrrp_instance vi1 {\nstate MASTER\nvirtual_router_id 100\npriority 120\nnopreempt\ngarp_master_refresh 2\n\
                interface eth0\nvirtual_ipaddress {\n192.0.2.100\n}\ntrack_script {\nchk\n}\n}\n";
    let parsed = parse("f", text.as_bytes());
    let script = &parsed.config.scripts[0];
    assert_eq!(script.command, "/usr/bin/bash -c 'exit 1'");
    assert_eq!(
        (script.interval.as_secs(), script.timeout.as_secs()),
        (5, 5)
    );
    assert_eq!((script.rise, script.fall, script.weight), (5, 3, -30));
    let read = &parsed.config.vrrp_instances[0];
    assert!(read.preempt);
    assert_eq!(read.trackers.scripts[0].weight, -30);
    let warnings = of(Severity::Warning, text);
    assert!(
        warnings
            .iter()
            .any(|w| w == "`state MASTER` overrides nopreempt: this node will preempt"),
        "{warnings:?}"
    );
}

#[test]
fn the_first_address_says_the_family_and_others_are_dropped() {
    let text = instance("virtual_ipaddress {\n192.0.2.254/24 dev eth0\nfe80::1/64 dev br-ctl\n}");
    assert_eq!(
        said(&text),
        ["4:1: warning: fe80::1 is ignored: the instance's first address is IPv4"]
    );
    assert_eq!(config(&text).vrrp_instances[0].virtual_ipaddress.len(), 2);
    // Whatever names the first address: here the source does.
    let text = instance("mcast_src_ip fe80::1");
    let parsed = parse("f", text.as_bytes());
    assert_eq!(parsed.config.vrrp_instances[0].virtual_ipaddress, []);
    assert_eq!(parsed.config.vrrp_instances[0].version, VrrpVersion::V3);
}

#[test]
fn comments_with_exclamation_marks_and_quotes_in_names_are_read() {
    let text = "! main file\nglobal_defs {\n! who\nnotification_email {\nadmins@example.com\n! more\n}\n\
                smtp_server 127.0.0.1  ! local\nrouter_id main ! per box\n}\n\
                static_ipaddress {\n192.0.2.7/24 brd 192.0.2.255 dev eth0 scope global\n}\n\
                static_routes {\n198.51.100.0/24 via 192.0.2.254 dev eth0\n192.0.2.128/25 via 192.0.2.254\n}\n\
                vrrp_instance public { ! the outside\nstate MASTER\ninterface bond0.5\nvirtual_router_id 230\npriority 240\n\
                smtp_alert\nvirtual_ipaddress {\n192.0.2.20/26 dev bond0.5 label bond0.5:1 ! web\n}\n}\n";
    let parsed = parse("f", text.as_bytes());
    let errors = of(Severity::Error, text);
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(
        errors[0].starts_with("`static_ipaddress`") && errors[1].starts_with("`static_routes`")
    );
    assert_eq!(parsed.config.global.mail.recipients, ["admins@example.com"]);
    assert_eq!(parsed.config.global.router_id.as_deref(), Some("main"));
    assert_eq!(parsed.config.static_addresses[0].dev, "eth0");
    assert_eq!(parsed.config.static_routes.len(), 2);
    assert_eq!(
        parsed.config.vrrp_instances[0].further.smtp_alert,
        Some(true)
    );
    assert!(!parsed.report().contains("unknown"), "{}", parsed.report());
}

#[test]
fn the_file_that_keepalived_ships_starts_without_authentication() {
    let text = "global_defs {\nvrrp_skip_check_adv_addr\nvrrp_strict\nvrrp_garp_interval 0\nvrrp_gna_interval 0\n}\n\
                vrrp_instance V {\nstate MASTER\ninterface eth0\nvirtual_router_id 51\npriority 100\nadvert_int 1\n\
                authentication {\nauth_type PASS\nauth_pass 1111\n}\nvirtual_ipaddress {\n192.0.2.16\n}\n}\n";
    assert_eq!(of(Severity::Error, text), NONE);
    let warnings = of(Severity::Warning, text);
    for said in [
        "vrrp_garp_interval 0 is taken as no pacing",
        "vrrp_gna_interval 0 is taken as no pacing",
        "strict mode has no authentication; the block is ignored",
        "`state MASTER` is taken as BACKUP: strict mode has it for priority 255 alone",
    ] {
        assert!(
            warnings.iter().any(|warning| warning == said),
            "{said}: {warnings:?}"
        );
    }
    let read = config(text).vrrp_instances.remove(0);
    assert!(read.strict_mode && !read.accept && read.lower_prio_no_advert);
    assert_eq!(read.initial_state, InitialState::Backup);
    assert_eq!(
        (read.authentication, read.garp.lower_prio_repeat),
        (None, 0)
    );
}

#[test]
fn strict_mode_takes_back_what_is_not_the_rfcs() {
    let text = instance(
        "strict_mode\npreempt_delay 3\ndown_timer_adverts 5\nlower_prio_no_advert off\nhigher_prio_send_advert\naccept",
    );
    let ignored: Vec<String> = of(Severity::Warning, &text)
        .into_iter()
        .filter(|message| message.ends_with("is not of strict mode; it is ignored"))
        .collect();
    assert_eq!(ignored.len(), 5, "{ignored:?}");
    let read = config(&text).vrrp_instances.remove(0);
    assert!(read.preempt_delay.is_zero() && read.down_timer_adverts == 3);
    assert!(read.lower_prio_no_advert && !read.higher_prio_send_advert && !read.accept);
    // The owner takes packets, in strict mode as well.
    assert!(config(&instance("strict_mode\npriority 255")).vrrp_instances[0].accept);
}

/// As keepalived 2.2.7 shows them when it is told to dump its configuration.
#[test]
fn weights_out_of_range_are_those_of_keepalived() {
    let text = "vrrp_script s {\nscript /bin/true\nweight 300\ninterval 0\nrise 0\n}\n\
                track_file f {\nfile /tmp/f\nweight 300\n}\nvrrp_track_process p {\nprocess x\nweight 300\nquorum 0\n}\n";
    let tracked = "track_script {\ns weight 254\nnosuch\n}\ntrack_file {\nf weight 254\n}\ntrack_process {\np weight 300\n}";
    let parsed = parse("f", format!("{text}{}", instance(tracked)).as_bytes());
    let config = &parsed.config;
    assert_eq!(config.scripts[0].weight, 300);
    assert_eq!(
        (config.scripts[0].interval.as_secs(), config.scripts[0].rise),
        (1, 1)
    );
    assert_eq!(config.track_files[0].weight, 1);
    assert_eq!(
        (
            config.track_processes[0].weight,
            config.track_processes[0].quorum
        ),
        (0, 1)
    );
    let trackers = &config.vrrp_instances[0].trackers;
    assert_eq!(trackers.scripts.len(), 1);
    let weights =
        [&trackers.scripts, &trackers.files, &trackers.processes].map(|list| list[0].weight);
    assert_eq!(weights, [253, 254, 0]);
    let report = parsed.report();
    for said in [
        "weight 300 is out of range and used as it is",
        "weight 254 is taken as 253",
        "track_script `nosuch` is not defined; it is ignored",
        "interval 0 is taken as 1",
    ] {
        assert!(report.contains(said), "{said}\n{report}");
    }
}

#[test]
fn groups_keep_the_members_that_there_are() {
    let first = instance("");
    let second = first
        .replace("instance V", "instance W")
        .replace("0.9", "0.8")
        .replace("id 7", "id 8");
    let group = |name: &str, members: &str| {
        format!("vrrp_sync_group {name} {{\ngroup {{\n{members}\n}}\n}}\n")
    };
    let text = format!(
        "{}{}{}{}{first}{second}",
        group("G", "V nosuch"),
        group("G", "W"),
        group("E", "zz"),
        group("F", "V\nW"),
    );
    assert_eq!(of(Severity::Error, &text), NONE);
    assert_eq!(
        of(Severity::Warning, &text),
        [
            "vrrp_sync_group `G` has one member and no effect on it",
            "vrrp_sync_group `G`: there is no vrrp_instance `nosuch`; it is ignored",
            "a second vrrp_sync_group `G` is ignored",
            "vrrp_sync_group `E` has no members and is ignored",
            "vrrp_sync_group `E`: there is no vrrp_instance `zz`; it is ignored",
            "vrrp_sync_group `F` has one member and no effect on it",
            "vrrp_instance `V` is in another vrrp_sync_group; it is ignored",
        ]
    );
    let members: Vec<_> = config(&text)
        .sync_groups
        .into_iter()
        .map(|group| group.members)
        .collect();
    assert_eq!(members, [["V"], ["W"]]);
    // Two members change state together, which is not built yet.
    let text = format!("{}{first}{second}", group("G", "V W"));
    assert_eq!(
        of(Severity::Error, &text),
        ["vrrp_sync_group `G` is not supported by this version: its members change state together"]
    );
}

#[test]
fn weights_of_members_and_owners_do_not_count() {
    let first = instance("track_interface {\neth1 weight -5\n}");
    let group = "vrrp_sync_group G {\ngroup {\nV\n}\n}\n";
    let weight = |text: &str| {
        let read = parse("f", text.as_bytes()).config.vrrp_instances.remove(0);
        read.track_interface.first().map(|entry| entry.weight)
    };
    assert_eq!(weight(&first), Some(-5));
    assert_eq!(weight(&format!("{group}{first}")), Some(0));
    let kept = group.replace("group {\nV", "sync_group_tracking_weight\ngroup {\nV");
    assert_eq!(weight(&format!("{kept}{first}")), Some(-5));
    let owner = instance("priority 255\ntrack_interface {\neth1 weight -5\n}");
    assert_eq!(weight(&owner), None);
    assert_eq!(of(Severity::Error, &owner), NONE);
}

#[test]
fn what_is_defined_without_what_it_needs_is_dropped() {
    for (text, message) in [
        (
            "vrrp_script s {\ninterval 2\n}",
            "vrrp_script `s` has no script and is ignored",
        ),
        (
            "track_file f {\nweight 2\n}",
            "track_file `f` has no file and is ignored",
        ),
        (
            "vrrp_track_process p {\nquorum 2\n}",
            "vrrp_track_process `p` has no process and is ignored",
        ),
        (
            "bfd_instance b {\npassive\n}",
            "bfd_instance `b` has no neighbor_ip and is ignored",
        ),
        (
            "garp_group {\ngarp_interval 1\n}",
            "a garp_group without an interface is ignored",
        ),
    ] {
        let found = of(Severity::Warning, text);
        assert!(found.iter().any(|found| found == message), "{found:?}");
        assert_eq!(of(Severity::Error, text), NONE);
        assert_eq!(config(text), config(""), "{text}");
    }
}

#[test]
fn lists_that_are_empty_refuse_nothing() {
    for text in [
        "static_routes {\n}",
        "static_rules {\n}",
        "static_ipaddress {\n}",
    ] {
        assert_eq!(said(text), NONE, "{text}");
    }
    assert_eq!(
        said(&instance("virtual_routes {\n}\nvirtual_rules {\n}")),
        NONE
    );
    assert_eq!(
        said("global_defs {\nvrrp_strict off\nsmtp_alert off\n}"),
        NONE
    );
}

#[test]
fn what_changes_nothing_is_said() {
    let script = "vrrp_script s {\nscript /bin/true\nweight 2\n}\n";
    let found = of(Severity::Warning, script);
    assert!(
        found.contains(&"no instance tracks vrrp_script `s`: it never runs".to_owned()),
        "{found:?}"
    );
    let tracked = |more: &str| {
        format!(
            "{script}{}",
            instance(&format!("{more}\ntrack_script {{\ns\n}}"))
        )
    };
    let found = of(Severity::Warning, &tracked("nopreempt"));
    assert!(
        found.contains(&"vrrp_instance `V`: weights cannot make another node take over".to_owned()),
        "{found:?}"
    );
    let found = of(Severity::Note, &tracked("priority 150"));
    assert_eq!(
        found,
        ["vrrp_instance `V`: all weights together change the priority by 2 only"]
    );
    assert_eq!(of(Severity::Note, &tracked("priority 101")), NONE);
}

/// 2 s are two intervals, of which keepalived takes a 256th of a second.
#[test]
fn delays_of_an_interface_are_shorter_than_its_backups_wait() {
    let text = format!(
        "interface_up_down_delays {{\neth0 3\neth1 1.9 2.1\neth2 9\n}}\n{}",
        instance("track_interface {\neth1\n}")
    );
    let delays: Vec<(u128, u128)> = (parse("f", text.as_bytes()).config.up_down_delays.iter())
        .map(|delay| (delay.down.as_micros(), delay.up.as_micros()))
        .collect();
    assert_eq!(
        delays,
        [(1_996_094, 0), (1_900_000, 1_996_094), (9_000_000, 0)]
    );
    let warnings = of(Severity::Warning, &text);
    assert!(
        warnings.contains(&"the delay of `eth0` is cut to 1.996094 s".to_owned()),
        "{warnings:?}"
    );
}
