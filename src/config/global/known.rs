//! Keywords of `global_defs` that the model has no place for.

use super::GlobalDraft;
use crate::config::{
    keyword::{IRRELEVANT, Keyword, REFUSED, UNAPPLIED, known},
    support::Support,
};

/// Without them the box does something else than keepalived, and says so.
pub(super) static REPORTED: &[Keyword<GlobalDraft>] = &[
    known(
        "lvs_id",
        Support::Former("use `router_id`"),
        "this machine's name",
    ),
    known(
        "vrrp_strict",
        REFUSED,
        "adverts and configurations against the RFC are refused",
    ),
    known(
        "smtp_alert",
        UNAPPLIED,
        "mail about everything, unless said otherwise",
    ),
    known("smtp_alert_vrrp", UNAPPLIED, "mail about instances"),
    known("smtp_alert_checker", UNAPPLIED, "mail about real servers"),
    known("no_email_faults", UNAPPLIED, "no mail about FAULT"),
    known(
        "no_checker_emails",
        UNAPPLIED,
        "mail when a real server changes, not for each of its checks",
    ),
    known(
        "checker_log_all_failures",
        UNAPPLIED,
        "each failed check is logged, not the change alone",
    ),
    known(
        "default_interface",
        UNAPPLIED,
        "the interface of static addresses that name none",
    ),
    known(
        "lvs_sync_daemon",
        UNAPPLIED,
        "IPVS's daemon that copies connections to the other box",
    ),
    known(
        "vrrp_garp_extra_if",
        UNAPPLIED,
        "time between gratuitous ARPs on other interfaces",
    ),
    known(
        "vrrp_vmac_garp_intvl",
        UNAPPLIED,
        "an older name of vrrp_garp_extra_if",
    ),
    known(
        "vrrp_owner_ignore_adverts",
        UNAPPLIED,
        "the owner of the addresses ignores adverts",
    ),
    known(
        "vrrp_delay_after_boot",
        UNAPPLIED,
        "how long after the boot instances wait",
    ),
    known(
        "vrrp_rx_bufs_policy",
        UNAPPLIED,
        "how receive buffers for adverts are sized",
    ),
    known(
        "vrrp_rx_bufs_multiplier",
        UNAPPLIED,
        "how many adverts a receive buffer holds",
    ),
    known(
        "log_unknown_vrids",
        UNAPPLIED,
        "adverts of VRIDs that are not configured are logged",
    ),
    known(
        "script_user",
        UNAPPLIED,
        "the user and group that scripts run as",
    ),
    known(
        "enable_script_security",
        UNAPPLIED,
        "no script runs as root that others could change",
    ),
    known(
        "set_supplementary_groups",
        UNAPPLIED,
        "scripts get the supplementary groups of their user",
    ),
    known(
        "use_symlink_paths",
        UNAPPLIED,
        "paths of scripts are shown with their symbolic links",
    ),
    known("startup_script", UNAPPLIED, "a script at the start"),
    known(
        "startup_script_timeout",
        UNAPPLIED,
        "how long that script may take",
    ),
    known("shutdown_script", UNAPPLIED, "a script at the stop"),
    known(
        "shutdown_script_timeout",
        UNAPPLIED,
        "how long that script may take",
    ),
    known(
        "notify_fifo",
        UNAPPLIED,
        "a pipe that all changes are written to",
    ),
    known(
        "notify_fifo_script",
        UNAPPLIED,
        "the script that reads that pipe",
    ),
    known(
        "vrrp_notify_fifo",
        UNAPPLIED,
        "a pipe that changes of instances are written to",
    ),
    known(
        "vrrp_notify_fifo_script",
        UNAPPLIED,
        "the script that reads that pipe",
    ),
    known(
        "lvs_notify_fifo",
        UNAPPLIED,
        "a pipe that changes of real servers are written to",
    ),
    known(
        "lvs_notify_fifo_script",
        UNAPPLIED,
        "the script that reads that pipe",
    ),
    known(
        "vrrp_notify_priority_changes",
        UNAPPLIED,
        "changes of priority are written to the pipes, too",
    ),
    known(
        "fifo_write_vrrp_states_on_reload",
        UNAPPLIED,
        "a reload writes all states to the pipes",
    ),
    known(
        "rs_init_notifies",
        UNAPPLIED,
        "notify_up runs at the start as well",
    ),
    known(
        "max_auto_priority",
        UNAPPLIED,
        "how far a process that is late may raise its priority",
    ),
    known(
        "min_auto_priority_delay",
        UNAPPLIED,
        "how late a timer must be for that",
    ),
    known("vrrp_priority", UNAPPLIED, "nice value of the VRRP process"),
    known(
        "vrrp_no_swap",
        UNAPPLIED,
        "the VRRP process stays in memory",
    ),
    known(
        "vrrp_rt_priority",
        UNAPPLIED,
        "real-time priority of the VRRP process",
    ),
    known("vrrp_cpu_affinity", UNAPPLIED, "CPUs of the VRRP process"),
    known(
        "vrrp_rlimit_rttime",
        UNAPPLIED,
        "limit of real-time work of the VRRP process",
    ),
    known(
        "vrrp_rlimit_rtime",
        UNAPPLIED,
        "an older name of vrrp_rlimit_rttime",
    ),
    known(
        "checker_priority",
        UNAPPLIED,
        "nice value of the process with the checks",
    ),
    known(
        "checker_no_swap",
        UNAPPLIED,
        "the process with the checks stays in memory",
    ),
    known(
        "checker_rt_priority",
        UNAPPLIED,
        "real-time priority of the process with the checks",
    ),
    known(
        "checker_cpu_affinity",
        UNAPPLIED,
        "CPUs of the process with the checks",
    ),
    known(
        "checker_rlimit_rttime",
        UNAPPLIED,
        "limit of real-time work of the process with the checks",
    ),
    known(
        "checker_rlimit_rtime",
        UNAPPLIED,
        "an older name of checker_rlimit_rttime",
    ),
    known("umask", UNAPPLIED, "permissions of files that are written"),
    known(
        "random_seed",
        UNAPPLIED,
        "the start of pseudo-random numbers",
    ),
    known(
        "reload_check_config",
        UNAPPLIED,
        "a reload tries the configuration first",
    ),
    known(
        "reload_time_file",
        UNAPPLIED,
        "a file with the time of the next reload",
    ),
    known(
        "reload_repeat",
        UNAPPLIED,
        "that file counts more than once",
    ),
    known(
        "reload_file",
        UNAPPLIED,
        "a file that exists during a reload",
    ),
    known(
        "include_check",
        UNAPPLIED,
        "what is wrong when an included file is missing",
    ),
    known(
        "config_save_dir",
        UNAPPLIED,
        "where each configuration is kept",
    ),
    known(
        "data_use_instance",
        UNAPPLIED,
        "names of dumps carry the name of this process",
    ),
    known("json_version", UNAPPLIED, "the form of the JSON dump"),
    known(
        "state_dump_file",
        UNAPPLIED,
        "where the state is written to",
    ),
    known(
        "stats_dump_file",
        UNAPPLIED,
        "where the statistics are written to",
    ),
    known(
        "json_dump_file",
        UNAPPLIED,
        "where the JSON dump is written to",
    ),
    known(
        "lvs_flush_on_stop",
        UNAPPLIED,
        "IPVS's table is emptied at the stop",
    ),
    known(
        "lvs_flush_onstop",
        UNAPPLIED,
        "an older name of lvs_flush_on_stop",
    ),
];

/// They say nothing to a box whose data plane is its own.
pub(super) static WITHOUT_EFFECT: &[Keyword<GlobalDraft>] = &[
    known(
        "disable_local_igmp",
        IRRELEVANT,
        "no IGMP for multicast groups of this host's own",
    ),
    known(
        "lvs_flush",
        IRRELEVANT,
        "IPVS's table is emptied at the start",
    ),
    known(
        "vrrp_mcast_group6",
        IRRELEVANT,
        "the multicast group of IPv6 adverts",
    ),
    known(
        "vrrp_gna_interval",
        IRRELEVANT,
        "pause between two unsolicited neighbour advertisements",
    ),
    known(
        "v3_checksum_as_v2",
        IRRELEVANT,
        "checksums of version 3 as in version 2",
    ),
    known(
        "vmac_prefix",
        IRRELEVANT,
        "the start of names of virtual MAC interfaces",
    ),
    known(
        "vmac_addr_prefix",
        IRRELEVANT,
        "the start of names of virtual MAC interfaces for addresses",
    ),
    known("bfd_priority", IRRELEVANT, "nice value of the BFD process"),
    known("bfd_no_swap", IRRELEVANT, "the BFD process stays in memory"),
    known(
        "bfd_rt_priority",
        IRRELEVANT,
        "real-time priority of the BFD process",
    ),
    known("bfd_cpu_affinity", IRRELEVANT, "CPUs of the BFD process"),
    known(
        "bfd_rlimit_rttime",
        IRRELEVANT,
        "limit of real-time work of the BFD process",
    ),
    known(
        "bfd_rlimit_rtime",
        IRRELEVANT,
        "an older name of bfd_rlimit_rttime",
    ),
    known("vrrp_process_name", IRRELEVANT, "name of the VRRP process"),
    known(
        "checker_process_name",
        IRRELEVANT,
        "name of the process with the checks",
    ),
    known(
        "lvs_process_name",
        IRRELEVANT,
        "an older name of checker_process_name",
    ),
    known("bfd_process_name", IRRELEVANT, "name of the BFD process"),
    known(
        "process_names",
        IRRELEVANT,
        "child processes have names of their own",
    ),
    known("process_name", IRRELEVANT, "name of the parent process"),
    known(
        "tmp_config_directory",
        IRRELEVANT,
        "where the configuration is copied to while it is read",
    ),
    known(
        "vrrp_iptables",
        IRRELEVANT,
        "iptables chains for addresses that take no packets",
    ),
    known(
        "vrrp_ipsets",
        IRRELEVANT,
        "ipsets for addresses that take no packets",
    ),
    known(
        "nftables",
        IRRELEVANT,
        "the nftables table for addresses that take no packets",
    ),
    known(
        "nftables_priority",
        IRRELEVANT,
        "the priority of that table's chains",
    ),
    known("nftables_counters", IRRELEVANT, "counters in that table"),
    known(
        "nftables_ifindex",
        IRRELEVANT,
        "interfaces by their index in that table",
    ),
    known(
        "nftables_ipvs",
        IRRELEVANT,
        "the nftables table that marks packets for IPVS",
    ),
    known(
        "nftables_ipvs_start_fwmark",
        IRRELEVANT,
        "the first of those marks",
    ),
    known("ipvs_start_fwmark", IRRELEVANT, "the first of those marks"),
    known("enable_snmp_vrrp", IRRELEVANT, "SNMP for instances"),
    known(
        "enable_snmp_keepalived",
        IRRELEVANT,
        "SNMP for instances, as keepalived's MIB has it",
    ),
    known(
        "enable_snmp_checker",
        IRRELEVANT,
        "SNMP for virtual servers",
    ),
    known("enable_snmp_rfc", IRRELEVANT, "SNMP as both RFCs have it"),
    known("enable_snmp_rfcv2", IRRELEVANT, "SNMP as RFC 2787 has it"),
    known("enable_snmp_rfcv3", IRRELEVANT, "SNMP as RFC 6527 has it"),
    known("enable_traps", IRRELEVANT, "SNMP traps"),
    known("snmp_socket", IRRELEVANT, "the socket of the SNMP agent"),
    known(
        "snmp_vs_stats_update_interval",
        IRRELEVANT,
        "how old statistics of virtual servers may be",
    ),
    known(
        "snmp_rs_stats_update_interval",
        IRRELEVANT,
        "how old statistics of real servers may be",
    ),
    known("enable_dbus", IRRELEVANT, "D-Bus for instances"),
    known("dbus_service_name", IRRELEVANT, "the name on D-Bus"),
    known(
        "dbus_no_interface_name",
        IRRELEVANT,
        "names on D-Bus without the interface",
    ),
    known(
        "vrrp_netlink_cmd_rcv_bufs",
        IRRELEVANT,
        "receive buffer of netlink commands in the VRRP process",
    ),
    known(
        "vrrp_netlink_cmd_rcv_bufs_force",
        IRRELEVANT,
        "that buffer may exceed the system's limit",
    ),
    known(
        "vrrp_netlink_monitor_rcv_bufs",
        IRRELEVANT,
        "receive buffer of netlink events in the VRRP process",
    ),
    known(
        "vrrp_netlink_monitor_rcv_bufs_force",
        IRRELEVANT,
        "that buffer may exceed the system's limit",
    ),
    known(
        "lvs_netlink_cmd_rcv_bufs",
        IRRELEVANT,
        "receive buffer of netlink commands in the process with the checks",
    ),
    known(
        "lvs_netlink_cmd_rcv_bufs_force",
        IRRELEVANT,
        "that buffer may exceed the system's limit",
    ),
    known(
        "lvs_netlink_monitor_rcv_bufs",
        IRRELEVANT,
        "receive buffer of netlink events in the process with the checks",
    ),
    known(
        "lvs_netlink_monitor_rcv_bufs_force",
        IRRELEVANT,
        "that buffer may exceed the system's limit",
    ),
    known(
        "process_monitor_rcv_bufs",
        IRRELEVANT,
        "receive buffer of process events",
    ),
    known(
        "process_monitor_rcv_bufs_force",
        IRRELEVANT,
        "that buffer may exceed the system's limit",
    ),
    known(
        "iproute_usr_dir",
        IRRELEVANT,
        "where iproute2 keeps its names",
    ),
    known(
        "iproute_etc_dir",
        IRRELEVANT,
        "where this host's names for iproute2 are",
    ),
];
