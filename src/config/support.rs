//! What this version does with what the parser understands: the one place that says so.
//!
//! The parser and the model know keepalived's language; the program does part of it. A keyword
//! is applied only when it stands in an `applied` list below; one that stands in no list is
//! refused. *Refused* is what would make the box forward or elect otherwise than its owner
//! expects; *unapplied* is what it can do without.

use std::net::IpAddr;

use super::model::VrrpVersion;

/// What becomes of something that was understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Support {
    /// It works.
    Applied,
    /// It is reported, and the configuration is used without it.
    Unapplied,
    /// The configuration is refused.
    Refused,
    /// It says nothing to a box whose data plane is its own; noted.
    Irrelevant,
    /// A word of keepalived 1.x that 2.x ignores, and so do we; with what took its place.
    Former(&'static str),
}

/// Where a keyword stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    Top,
    GlobalDefs,
    VrrpInstance,
    Authentication,
    VirtualAddress,
    VirtualServer,
    RealServer,
    TcpCheck,
    /// `xvs` and the blocks in it: our own words, all of which are applied.
    Own,
    /// A block whose keywords are known but which as a whole is not applied or refused.
    Whole,
}

/// Whether this version applies `keyword`, standing in `block`.
pub(super) fn keyword(block: Block, keyword: &str) -> Support {
    let Some(lists) = lists(block) else {
        return Support::Applied;
    };
    let mut former = lists.former.iter();
    if let Some((_, instead)) = former.find(|(name, _)| *name == keyword) {
        Support::Former(instead)
    } else if lists.applied.contains(&keyword) || lists.by_value.contains(&keyword) {
        Support::Applied
    } else if lists.unapplied.contains(&keyword) {
        Support::Unapplied
    } else if lists.irrelevant.contains(&keyword) {
        Support::Irrelevant
    } else {
        debug_assert!(lists.refused.contains(&keyword), "no verdict on {keyword}");
        Support::Refused
    }
}

type Names = &'static [&'static str];

/// The verdicts on the keywords of a block.
struct Lists {
    /// The program does what they say.
    applied: Names,
    /// Their values decide, and the rule that reads them says so.
    by_value: Names,
    refused: Names,
    unapplied: Names,
    irrelevant: Names,
    /// Each with what took its place.
    former: &'static [(&'static str, &'static str)],
}

const NONE: Lists = Lists {
    applied: &[],
    by_value: &[],
    refused: &[],
    unapplied: &[],
    irrelevant: &[],
    former: &[],
};

/// The verdicts on the keywords of a block; `None`: they have the verdict of the block.
const fn lists(block: Block) -> Option<&'static Lists> {
    Some(match block {
        Block::Top => &TOP,
        Block::GlobalDefs => &GLOBAL_DEFS,
        Block::VrrpInstance => &VRRP_INSTANCE,
        Block::Authentication => &AUTHENTICATION,
        Block::VirtualAddress => &VIRTUAL_ADDRESS,
        Block::VirtualServer => &VIRTUAL_SERVER,
        Block::RealServer => &REAL_SERVER,
        Block::TcpCheck => &TCP_CHECK,
        Block::Own | Block::Whole => return None,
    })
}

const TOP: Lists = Lists {
    applied: &[
        "global_defs",
        "vrrp_instance",
        "virtual_server_group",
        "virtual_server",
        "xvs",
    ],
    refused: &[
        "vrrp_sync_group",
        "static_ipaddress",
        "static_routes",
        "static_rules",
        "net_namespace",
    ],
    unapplied: &[
        "child_wait_time",
        "instance",
        "use_pid_dir",
        "interface_up_down_delays",
        "garp_group",
        "track_group",
        "vrrp_script",
        "track_file",
        "vrrp_track_file",
        "track_process",
        "vrrp_track_process",
        "bfd_instance",
        "SSL",
    ],
    irrelevant: &[
        "linkbeat_use_polling",
        "linkbeat_interfaces",
        "net_namespace_ipvs",
        "namespace_with_ipsets",
    ],
    ..NONE
};

const GLOBAL_DEFS: Lists = Lists {
    applied: &[
        "lvs_timeouts",
        "vrrp_version",
        "vrrp_mcast_group4",
        "vrrp_startup_delay",
        "vrrp_garp_interval",
        "vrrp_garp_master_delay",
        "vrrp_garp_master_repeat",
        "vrrp_garp_master_refresh",
        "vrrp_garp_master_refresh_repeat",
        "vrrp_garp_lower_prio_delay",
        "vrrp_garp_lower_prio_repeat",
        "vrrp_min_garp",
        "vrrp_down_timer_adverts",
        "vrrp_lower_prio_no_advert",
        "vrrp_higher_prio_send_advert",
        "vrrp_check_unicast_src",
        "vrrp_skip_check_adv_addr",
        "dynamic_interfaces",
    ],
    by_value: &[
        "notification_email",
        "notification_email_from",
        "smtp_server",
        "smtp_helo_name",
        "smtp_connect_timeout",
    ],
    refused: &["vrrp_strict"],
    unapplied: &[
        "router_id",
        "smtp_alert",
        "smtp_alert_vrrp",
        "smtp_alert_checker",
        "no_email_faults",
        "no_checker_emails",
        "checker_log_all_failures",
        "default_interface",
        "lvs_sync_daemon",
        "vrrp_garp_extra_if",
        "vrrp_vmac_garp_intvl",
        "vrrp_owner_ignore_adverts",
        "vrrp_delay_after_boot",
        "vrrp_rx_bufs_policy",
        "vrrp_rx_bufs_multiplier",
        "log_unknown_vrids",
        "script_user",
        "enable_script_security",
        "set_supplementary_groups",
        "use_symlink_paths",
        "startup_script",
        "startup_script_timeout",
        "shutdown_script",
        "shutdown_script_timeout",
        "notify_fifo",
        "notify_fifo_script",
        "vrrp_notify_fifo",
        "vrrp_notify_fifo_script",
        "lvs_notify_fifo",
        "lvs_notify_fifo_script",
        "vrrp_notify_priority_changes",
        "fifo_write_vrrp_states_on_reload",
        "rs_init_notifies",
        "max_auto_priority",
        "min_auto_priority_delay",
        "vrrp_priority",
        "vrrp_no_swap",
        "vrrp_rt_priority",
        "vrrp_cpu_affinity",
        "vrrp_rlimit_rttime",
        "vrrp_rlimit_rtime",
        "checker_priority",
        "checker_no_swap",
        "checker_rt_priority",
        "checker_cpu_affinity",
        "checker_rlimit_rttime",
        "checker_rlimit_rtime",
        "umask",
        "random_seed",
        "reload_check_config",
        "reload_time_file",
        "reload_repeat",
        "reload_file",
        "include_check",
        "config_save_dir",
        "data_use_instance",
        "json_version",
        "state_dump_file",
        "stats_dump_file",
        "json_dump_file",
        "lvs_flush_on_stop",
        "lvs_flush_onstop",
    ],
    irrelevant: &[
        "disable_local_igmp",
        "lvs_flush",
        "vrrp_mcast_group6",
        "vrrp_gna_interval",
        "v3_checksum_as_v2",
        "vmac_prefix",
        "vmac_addr_prefix",
        "bfd_priority",
        "bfd_no_swap",
        "bfd_rt_priority",
        "bfd_cpu_affinity",
        "bfd_rlimit_rttime",
        "bfd_rlimit_rtime",
        "vrrp_process_name",
        "checker_process_name",
        "lvs_process_name",
        "bfd_process_name",
        "process_names",
        "process_name",
        "tmp_config_directory",
        "vrrp_iptables",
        "vrrp_ipsets",
        "nftables",
        "nftables_priority",
        "nftables_counters",
        "nftables_ifindex",
        "nftables_ipvs",
        "nftables_ipvs_start_fwmark",
        "ipvs_start_fwmark",
        "enable_snmp_vrrp",
        "enable_snmp_keepalived",
        "enable_snmp_checker",
        "enable_snmp_rfc",
        "enable_snmp_rfcv2",
        "enable_snmp_rfcv3",
        "enable_traps",
        "snmp_socket",
        "snmp_vs_stats_update_interval",
        "snmp_rs_stats_update_interval",
        "enable_dbus",
        "dbus_service_name",
        "dbus_no_interface_name",
        "vrrp_netlink_cmd_rcv_bufs",
        "vrrp_netlink_cmd_rcv_bufs_force",
        "vrrp_netlink_monitor_rcv_bufs",
        "vrrp_netlink_monitor_rcv_bufs_force",
        "lvs_netlink_cmd_rcv_bufs",
        "lvs_netlink_cmd_rcv_bufs_force",
        "lvs_netlink_monitor_rcv_bufs",
        "lvs_netlink_monitor_rcv_bufs_force",
        "process_monitor_rcv_bufs",
        "process_monitor_rcv_bufs_force",
        "iproute_usr_dir",
        "iproute_etc_dir",
    ],
    former: &[("lvs_id", "use `router_id`")],
};

const VRRP_INSTANCE: Lists = Lists {
    applied: &[
        "state",
        "interface",
        "virtual_router_id",
        "priority",
        "version",
        "advert_int",
        "nopreempt",
        "preempt",
        "preempt_delay",
        "authentication",
        "virtual_ipaddress",
        "virtual_ipaddress_excluded",
        "no_virtual_ipaddress",
        "unicast_src_ip",
        "mcast_src_ip",
        "mcast_dst_ip",
        "unicast_ttl",
        "check_unicast_src",
        "dont_track_primary",
        "skip_check_adv_addr",
        "down_timer_adverts",
        "lower_prio_no_advert",
        "higher_prio_send_advert",
        "garp_master_delay",
        "garp_master_repeat",
        "garp_master_refresh",
        "garp_master_refresh_repeat",
        "garp_lower_prio_delay",
        "garp_lower_prio_repeat",
        "accept",
    ],
    by_value: &["unicast_peer", "track_interface"],
    refused: &[
        "use_vmac",
        "use_vmac_addr",
        "vmac_xmit_base",
        "use_ipvlan",
        "vrf",
        "virtual_routes",
        "virtual_rules",
        "auth_hmac",
        "track_script",
        "track_file",
        "track_process",
        "track_bfd",
        "strict_mode",
    ],
    unapplied: &[
        "promote_secondaries",
        "unicast_fault_no_peer",
        "track_src_ip",
        "no_accept",
        "timer_expired_backup",
        "thread_timer_expired",
        "garp_extra_if",
        "vmac_garp_intvl",
        "owner_ignore_adverts",
        "kernel_rx_buf_size",
        "debug",
        "notify",
        "notify_master",
        "notify_backup",
        "notify_fault",
        "notify_stop",
        "notify_deleted",
        "notify_master_rx_lower_pri",
        "notify_priority_changes",
        "smtp_alert",
        "lvs_sync_daemon_interface",
        "linkbeat_use_polling",
    ],
    irrelevant: &["old_unicast_checksum", "native_ipv6"],
    ..NONE
};

const AUTHENTICATION: Lists = Lists {
    applied: &["auth_type", "auth_pass"],
    ..NONE
};

const VIRTUAL_ADDRESS: Lists = Lists {
    applied: &[
        "dev",
        "brd",
        "broadcast",
        "scope",
        "label",
        "peer",
        "noprefixroute",
        "no_track",
    ],
    refused: &["use_vmac"],
    unapplied: &["preferred_lft", "track_group"],
    irrelevant: &["home", "-nodad", "mngtmpaddr", "autojoin"],
    ..NONE
};

const VIRTUAL_SERVER: Lists = Lists {
    applied: &[
        "lb_algo",
        "lvs_sched",
        "sh-port",
        "sh-fallback",
        "mh-port",
        "mh-fallback",
        "flag-1",
        "flag-2",
        "flag-3",
        "ops",
        "lb_kind",
        "lvs_method",
        "protocol",
        "ip_family",
        "persistence_timeout",
        "persistence_granularity",
        "quorum",
        "hysteresis",
        "weight",
        "inhibit_on_failure",
        "sorry_server",
        "sorry_server_inhibit",
        "sorry_server_lvs_method",
        "real_server",
        "delay_loop",
        "alpha",
        "retry",
        "delay_before_retry",
        "warmup",
        "connect_timeout",
    ],
    refused: &["persistence_engine"],
    unapplied: &[
        "ha_suspend",
        "omega",
        "quorum_up",
        "quorum_down",
        "virtualhost",
        "smtp_alert",
    ],
    // `hashed` is IPVS's own note that a service is in its table.
    irrelevant: &["snmp_name", "hashed"],
    former: &[("nat_mask", "it needs no successor")],
    ..NONE
};

const REAL_SERVER: Lists = Lists {
    applied: &[
        "weight",
        "lvs_method",
        "uthreshold",
        "lthreshold",
        "inhibit_on_failure",
        "TCP_CHECK",
        "delay_loop",
        "alpha",
        "retry",
        "delay_before_retry",
        "warmup",
        "connect_timeout",
    ],
    refused: &[
        "HTTP_GET",
        "SSL_GET",
        "SMTP_CHECK",
        "DNS_CHECK",
        "MISC_CHECK",
        "UDP_CHECK",
        "PING_CHECK",
        "BFD_CHECK",
        "FILE_CHECK",
    ],
    unapplied: &["notify_up", "notify_down", "virtualhost", "smtp_alert"],
    irrelevant: &["snmp_name"],
    former: &[
        ("lb_kind", "use `lvs_method`"),
        ("nat_mask", "it needs no successor"),
    ],
    ..NONE
};

const TCP_CHECK: Lists = Lists {
    applied: &[
        "connect_ip",
        "connect_port",
        "bindto",
        "bind_port",
        "nb_get_retry",
        "delay_loop",
        "alpha",
        "retry",
        "delay_before_retry",
        "warmup",
        "connect_timeout",
    ],
    unapplied: &["bind_if", "fwmark", "log_all_failures"],
    ..NONE
};

/// Whether mail is sent.
pub(super) const MAIL: Support = Support::Unapplied;
/// Whether `auth_type AH` works.
pub(super) const AUTH_AH: Support = Support::Refused;
/// What becomes of `remcsum`: the option of a tunnel that leaves the checksum to the receiver.
pub(super) const REMOTE_CHECKSUM: Support = Support::Unapplied;
/// Whether other interfaces than its own bear on an instance.
pub(super) const TRACK_INTERFACE: Support = Support::Refused;
/// Whether `min_ttl` and `max_ttl` of a unicast peer are looked at.
pub(super) const PEER_TTL: Support = Support::Unapplied;

/// Whether VRRP works with addresses of this family.
pub(super) const fn vrrp_family(addr: IpAddr) -> Support {
    match addr {
        IpAddr::V4(_) => Support::Applied,
        IpAddr::V6(_) => Support::Refused,
    }
}

/// Whether this version of VRRP works.
pub(super) const fn vrrp_version(version: VrrpVersion) -> Support {
    match version {
        VrrpVersion::V2 => Support::Applied,
        VrrpVersion::V3 => Support::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    /// A name that the parser does not know would be a verdict about nothing.
    #[test]
    fn every_name_in_the_lists_is_known_to_the_parser() {
        let frames = [
            (Block::Top, "", ""),
            (Block::GlobalDefs, "global_defs {\n", "\n}"),
            (Block::VrrpInstance, "vrrp_instance V {\n", "\n}"),
            (
                Block::VirtualAddress,
                "vrrp_instance V {\nvirtual_ipaddress {\n10.0.0.1 ",
                " 1\n}\n}",
            ),
            (
                Block::VirtualServer,
                "virtual_server 10.0.0.1 80 {\n",
                "\n}",
            ),
            (
                Block::RealServer,
                "virtual_server 10.0.0.1 80 {\nreal_server 10.0.0.2 80 {\n",
                " {\n}\n}\n}",
            ),
            (
                Block::TcpCheck,
                "virtual_server 10.0.0.1 80 {\nreal_server 10.0.0.2 80 {\nTCP_CHECK {\n",
                "\n}\n}\n}",
            ),
        ];
        for (block, before, after) in frames {
            let lists = lists(block).unwrap();
            let former = lists.former.iter().map(|(name, _)| name);
            let said = lists.refused.iter().chain(lists.unapplied);
            for name in said.chain(lists.irrelevant).chain(former) {
                let parsed = parse("f", format!("{before}{name}{after}").as_bytes());
                let said = parsed.report();
                let unknown = [format!("keyword `{name}`"), format!("option `{name}`")];
                assert!(
                    !unknown.iter().any(|u| said.contains(u)),
                    "{block:?}: {said}"
                );
                assert!(
                    said.contains(&format!("`{name}` ")),
                    "{block:?} {name}: {said}"
                );
            }
            // The search for a word that was meant asks for the verdict on every keyword of the
            // block; one that stands in no list ends it.
            let said = parse("f", format!("{before}zzzz{after}").as_bytes()).report();
            assert!(said.contains("unknown"), "{block:?}: {said}");
        }
    }
}
