//! Keywords of `global_defs` with one plain value: mail and VRRP as a whole, then what keepalived's processes, files
//! and helpers need.

use std::net::{IpAddr, Ipv6Addr};

use super::GlobalDraft;
use crate::config::{
    defaults,
    diagnostic::{Draft, Drafts},
    keyword::{
        APPLIED, FromGiven, Given, Keyword, NO_IPVS, ONE_PROCESS, UNAPPLIED, Value, line,
        plain_keywords,
    },
    model::{Cpus, Owner, RxBufs, Umask},
    read::{self},
    source::quoted,
    support::Support,
};

const NO_FIREWALL: Support =
    Support::Irrelevant("the data plane decides which packets the addresses take, no firewall");
const NO_SNMP: Support =
    Support::Irrelevant("there is no SNMP agent; `xvs list` and `xvs vrrp` tell the state");
const NO_DBUS: Support =
    Support::Irrelevant("there is no D-Bus service; `xvs list` and `xvs vrrp` tell the state");
const WITH_VRRP: Support =
    Support::Irrelevant("the checks run in the thread of VRRP: what vrrp_* says holds");
const NO_BFD: Support = Support::Irrelevant("there is no process for BFD");
const OWN_BUFFERS: Support =
    Support::Irrelevant("netlink is read anew after an overrun, whatever the buffer's size");
const ALWAYS_CHECKED: Support =
    Support::Irrelevant("every reload is tried before anything changes");
const IN_MEMORY: Support =
    Support::Irrelevant("the configuration is read once, by one process, and kept in memory");

plain_keywords! { pub(super) static MAIL: GlobalDraft [global.alerts];
    "smtp_alert": UNAPPLIED, "mail about everything, unless said otherwise", boolean() => smtp_alert;
    "smtp_alert_vrrp": UNAPPLIED, "mail about instances", boolean() => vrrp;
    "smtp_alert_checker": UNAPPLIED, "mail about virtual and real servers", boolean() => checker;
    "no_email_faults": UNAPPLIED, "no mail about FAULT", boolean() => no_email_faults;
    "no_checker_emails": UNAPPLIED, "mail when a real server changes, not for each of its checks", boolean() => no_checker_emails;
    "checker_log_all_failures": UNAPPLIED, "each failed check is logged, not the change alone", boolean() => checker_log_all_failures;
}

plain_keywords! { pub(super) static VRRP: GlobalDraft [global.vrrp];
    "vrrp_mcast_group6": UNAPPLIED, "the multicast group of IPv6 adverts", words("an IPv6 multicast address"), default(Value::Word("ff02::12")) => mcast_group6;
    "vrrp_delay_after_boot": UNAPPLIED, "how long after the boot instances wait", later(), time(&defaults::STARTUP_DELAY) => delay_after_boot;
    "vrrp_rx_bufs_policy": UNAPPLIED, "how receive buffers for adverts are sized", words("MTU, ADVERT or a number of bytes") => rx_bufs_policy;
    "vrrp_rx_bufs_multiplier": UNAPPLIED, "how many adverts a receive buffer holds", number(&defaults::COUNT), default(Value::Number(3)) => rx_bufs_multiplier;
    "log_unknown_vrids": UNAPPLIED, "adverts of VRIDs that are not configured are logged", flag() => log_unknown_vrids;
    "v3_checksum_as_v2": UNAPPLIED, "checksums of version 3 as in version 2, without a pseudo header", later(), flag() => v3_checksum_as_v2;
    "default_interface": UNAPPLIED, "the interface of static addresses that name none", text(defaults::INTERFACE_NAME_BYTES), default(Value::Word("eth0")) => default_interface;
    "vmac_prefix": UNAPPLIED, "the start of names of virtual MAC interfaces", text(defaults::INTERFACE_NAME_BYTES), default(Value::Word("vrrp")) => vmac_prefix;
    "vmac_addr_prefix": UNAPPLIED, "the start of names of virtual MAC interfaces for addresses elsewhere; default vmac_prefix", text(defaults::INTERFACE_NAME_BYTES) => vmac_addr_prefix;
    "disable_local_igmp": UNAPPLIED, "no IGMP reports for link-local groups, on the whole host", flag() => disable_local_igmp;
}

plain_keywords! { pub(super) static SCRIPTS: GlobalDraft [global.scripts];
    "script_user": APPLIED, "the user and group that scripts run as: of those that run yet, startup_script and shutdown_script; default keepalived_script if there is such a user, else the daemon's", words("a user, and a group if it is not the user's") => script_user;
    "enable_script_security": APPLIED, "no script runs as root that others could change; without it, one that they could is warned about and runs. Of those that run yet, startup_script and shutdown_script", flag() => enable_script_security;
    "set_supplementary_groups": APPLIED, "scripts get the supplementary groups of their user: of those that run yet, startup_script and shutdown_script", later(), boolean() => set_supplementary_groups;
    "use_symlink_paths": APPLIED, "symbolic links in the path of a script are followed when it runs, not before it is looked at: of those that run yet, startup_script and shutdown_script", later(), boolean() => use_symlink_paths;
    "startup_script": APPLIED, "a script that is waited for before anything is opened; a failure is said, and the start goes on", script() => startup_script;
    "startup_script_timeout": APPLIED, "how long that script may take, before it is killed with all that it has started", number(&defaults::SCRIPT_TIMEOUT), default(Value::Number(10)) => startup_script_timeout;
    "shutdown_script": APPLIED, "a script that is waited for after everything is closed, also when the start has failed", script() => shutdown_script;
    "shutdown_script_timeout": APPLIED, "how long that script may take, before it is killed with all that it has started", number(&defaults::SCRIPT_TIMEOUT), default(Value::Number(10)) => shutdown_script_timeout;
    "notify_fifo": UNAPPLIED, "a pipe that all changes are written to", words("a path, a user and a group") => notify_fifo;
    "notify_fifo_script": UNAPPLIED, "the script that reads that pipe", script() => notify_fifo_script;
    "vrrp_notify_fifo": UNAPPLIED, "a pipe that changes of instances are written to", words("a path, a user and a group") => vrrp_notify_fifo;
    "vrrp_notify_fifo_script": UNAPPLIED, "the script that reads that pipe", script() => vrrp_notify_fifo_script;
    "lvs_notify_fifo": UNAPPLIED, "a pipe that changes of servers are written to", words("a path, a user and a group") => lvs_notify_fifo;
    "lvs_notify_fifo_script": UNAPPLIED, "the script that reads that pipe", script() => lvs_notify_fifo_script;
    "fifo_write_vrrp_states_on_reload": UNAPPLIED, "a reload writes all states to the pipes", flag() => fifo_write_vrrp_states_on_reload;
    "rs_init_notifies": UNAPPLIED, "notify_up of real servers runs at the start as well", flag() => rs_init_notifies;
}

plain_keywords! { pub(super) static FILES: GlobalDraft [global.files];
    "umask": APPLIED, "permissions that files which are written do not get", words("a number, octal with a 0 in front, or bits like IRGRP|IROTH"), default(Value::Word("what the caller has")) => umask;
    "random_seed": APPLIED, "the start of ${_RANDOM}; default the time", number(&defaults::U32) => random_seed;
    "reload_check_config": ALWAYS_CHECKED, "a reload tries the configuration first", names(1) => reload_check_config;
    "reload_time_file": APPLIED, "a file with the time of the next reload: HH:MM:SS, with [YY]YY-MM-DD in front if need be, and Z behind for UTC", text(defaults::PATH_BYTES) => reload_time_file;
    "reload_repeat": APPLIED, "that file is not removed at the reload; without a date it counts every day", flag() => reload_repeat;
    "reload_file": APPLIED, "a file that exists while a reload reads; default keepalived.reload in the folder of the files with process ids", names(1) => reload_file;
    "include_check": APPLIED, "which missing includes are wrong: read, match, wildcard_match, brace_match; nothing means all", names(8) => include_check;
    "config_save_dir": APPLIED, "a folder where each configuration that runs is kept, passwords masked", text(defaults::PATH_BYTES) => config_save_dir;
    "tmp_config_directory": IN_MEMORY, "where the configuration is copied to while it is read", text(defaults::PATH_BYTES) => tmp_config_directory;
    "data_use_instance": APPLIED, "the name of the file with the state carries the network namespace and the instance", boolean() => data_use_instance;
    "json_version": APPLIED, "the form of the JSON dump: 1 = a list of instances, 2 = an object with that list as `vrrp`", number(&defaults::JSON_VERSION), default(Value::Number(1)) => json_version;
    "state_dump_file": APPLIED, "where the state is written to; default keepalived.data beside the control socket", later(), text(defaults::PATH_BYTES) => state_dump_file;
    "stats_dump_file": APPLIED, "where the statistics are written to; default keepalived.stats beside the control socket", later(), text(defaults::PATH_BYTES) => stats_dump_file;
    "json_dump_file": APPLIED, "where the JSON dump is written to; default keepalived.json beside the control socket", later(), text(defaults::PATH_BYTES) => json_dump_file;
}

plain_keywords! { pub(super) static PROCESSES: GlobalDraft [global.processes];
    "min_auto_priority_delay": APPLIED, "how late a timer must be for that, in microseconds", number(&defaults::AUTO_PRIORITY_DELAY), default(Value::Number(1_000_000)) => min_auto_priority_delay;
    "vrrp_priority": APPLIED, "nice value of the thread that does VRRP and the checks", number(&defaults::NICE) => vrrp_priority;
    "vrrp_no_swap": APPLIED, "what is used of the process's memory stays there: locked once it is used, not before", flag() => vrrp_no_swap;
    "vrrp_rt_priority": APPLIED, "real-time priority of the thread that does VRRP and the checks", number(&defaults::RT_PRIORITY) => vrrp_rt_priority;
    "vrrp_cpu_affinity": APPLIED, "CPUs of the thread that does VRRP and the checks; the workers have others (cpus)", words("numbers of CPUs") => vrrp_cpu_affinity;
    "vrrp_rlimit_rttime": APPLIED, "most microseconds of real-time work of that thread without a pause; what is beyond is done as an ordinary thread", number(&defaults::RTTIME), default(Value::Number(10_000)) => vrrp_rlimit_rttime;
    "vrrp_rlimit_rtime": APPLIED, "most microseconds of real-time work of that thread without a pause", number(&defaults::RTTIME), old_name_of("vrrp_rlimit_rttime") => vrrp_rlimit_rttime;
    "checker_priority": WITH_VRRP, "nice value of the checks", number(&defaults::NICE) => checker_priority;
    "checker_no_swap": WITH_VRRP, "the checks stay in memory", flag() => checker_no_swap;
    "checker_rt_priority": WITH_VRRP, "real-time priority of the checks", number(&defaults::RT_PRIORITY) => checker_rt_priority;
    "checker_cpu_affinity": WITH_VRRP, "CPUs of the checks", words("numbers of CPUs") => checker_cpu_affinity;
    "checker_rlimit_rttime": WITH_VRRP, "most microseconds of real-time work of the checks without a pause", number(&defaults::RTTIME), default(Value::Number(10_000)) => checker_rlimit_rttime;
    "checker_rlimit_rtime": WITH_VRRP, "most microseconds of real-time work of the checks without a pause", number(&defaults::RTTIME), old_name_of("checker_rlimit_rttime") => checker_rlimit_rttime;
    "bfd_priority": NO_BFD, "nice value of the BFD process", number(&defaults::NICE) => bfd_priority;
    "bfd_no_swap": NO_BFD, "the BFD process stays in memory", flag() => bfd_no_swap;
    "bfd_rt_priority": NO_BFD, "real-time priority of the BFD process", number(&defaults::RT_PRIORITY) => bfd_rt_priority;
    "bfd_cpu_affinity": NO_BFD, "CPUs of the BFD process", words("numbers of CPUs") => bfd_cpu_affinity;
    "bfd_rlimit_rttime": NO_BFD, "most microseconds of real-time work of the BFD process", number(&defaults::RTTIME), default(Value::Number(10_000)) => bfd_rlimit_rttime;
    "bfd_rlimit_rtime": NO_BFD, "most microseconds of real-time work of the BFD process", number(&defaults::RTTIME), old_name_of("bfd_rlimit_rttime") => bfd_rlimit_rttime;
    "process_names": ONE_PROCESS, "child processes have names of their own", flag() => process_names;
    "process_name": ONE_PROCESS, "name of the parent process", text(defaults::PROCESS_NAME_BYTES) => process_name;
    "vrrp_process_name": ONE_PROCESS, "name of the VRRP process", text(defaults::PROCESS_NAME_BYTES) => vrrp_process_name;
    "checker_process_name": ONE_PROCESS, "name of the process with the checks", text(defaults::PROCESS_NAME_BYTES) => checker_process_name;
    "lvs_process_name": ONE_PROCESS, "name of the process with the checks", text(defaults::PROCESS_NAME_BYTES), old_name_of("checker_process_name") => checker_process_name;
    "bfd_process_name": ONE_PROCESS, "name of the BFD process", text(defaults::PROCESS_NAME_BYTES) => bfd_process_name;
}

plain_keywords! { pub(super) static HOST: GlobalDraft [global.host];
    "lvs_flush": NO_IPVS, "IPVS's table is emptied at the start", flag() => lvs_flush;
    "lvs_flush_on_stop": NO_IPVS, "IPVS's table is emptied at the stop; with VS server by server", names(1) => lvs_flush_on_stop;
    "lvs_flush_onstop": NO_IPVS, "IPVS's table is emptied at the stop; with VS server by server", names(1), old_name_of("lvs_flush_on_stop") => lvs_flush_on_stop;
    "vrrp_iptables": NO_FIREWALL, "iptables chains for addresses that take no packets", names(2) => vrrp_iptables;
    "vrrp_ipsets": NO_FIREWALL, "ipsets for addresses that take no packets", names(5) => vrrp_ipsets;
    "nftables": NO_FIREWALL, "the nftables table for addresses that take no packets", names(1) => nftables;
    "nftables_priority": NO_FIREWALL, "the priority of that table's chains", number(&defaults::I32) => nftables_priority;
    "nftables_counters": NO_FIREWALL, "counters in that table", flag() => nftables_counters;
    "nftables_ifindex": NO_FIREWALL, "interfaces by their index in that table", flag() => nftables_ifindex;
    "nftables_ipvs": NO_IPVS, "the nftables table that marks packets for IPVS", names(1) => nftables_ipvs;
    "nftables_ipvs_priority": NO_IPVS, "the priority of that table's chains", number(&defaults::I32) => nftables_ipvs_priority;
    "nftables_ipvs_start_fwmark": NO_IPVS, "the first of those marks", number(&defaults::MARK) => nftables_ipvs_start_fwmark;
    "enable_snmp_vrrp": NO_SNMP, "SNMP for instances, keepalived's MIB", flag() => enable_snmp_vrrp;
    "enable_snmp_keepalived": NO_SNMP, "SNMP for instances, keepalived's MIB", flag(), old_name_of("enable_snmp_vrrp") => enable_snmp_vrrp;
    "enable_snmp_checker": NO_SNMP, "SNMP for virtual servers", flag() => enable_snmp_checker;
    "enable_snmp_rfc": NO_SNMP, "SNMP as both RFCs have it", flag() => enable_snmp_rfc;
    "enable_snmp_rfcv2": NO_SNMP, "SNMP as RFC 2787 has it", flag() => enable_snmp_rfcv2;
    "enable_snmp_rfcv3": NO_SNMP, "SNMP as RFC 6527 has it", flag() => enable_snmp_rfcv3;
    "enable_traps": NO_SNMP, "SNMP traps", flag() => enable_traps;
    "snmp_socket": NO_SNMP, "the socket of the SNMP agent", text(defaults::PATH_BYTES) => snmp_socket;
    "snmp_vs_stats_update_interval": NO_SNMP, "how old statistics of virtual servers may be", later(), time(&defaults::CHECK_INTERVAL) => snmp_vs_stats_update_interval;
    "snmp_rs_stats_update_interval": NO_SNMP, "how old statistics of real servers may be", later(), time(&defaults::CHECK_INTERVAL) => snmp_rs_stats_update_interval;
    "enable_dbus": NO_DBUS, "D-Bus for instances", flag() => enable_dbus;
    "dbus_service_name": NO_DBUS, "the name on D-Bus", text(defaults::PATH_BYTES) => dbus_service_name;
    "dbus_no_interface_name": NO_DBUS, "names on D-Bus without the interface", later(), flag() => dbus_no_interface_name;
    "vrrp_netlink_cmd_rcv_bufs": OWN_BUFFERS, "bytes for netlink commands of VRRP", number(&defaults::U32) => vrrp_netlink_cmd_rcv_bufs;
    "vrrp_netlink_cmd_rcv_bufs_force": OWN_BUFFERS, "that buffer may exceed the system's limit", boolean() => vrrp_netlink_cmd_rcv_bufs_force;
    "vrrp_netlink_monitor_rcv_bufs": OWN_BUFFERS, "bytes for netlink events of VRRP", number(&defaults::U32) => vrrp_netlink_monitor_rcv_bufs;
    "vrrp_netlink_monitor_rcv_bufs_force": OWN_BUFFERS, "that buffer may exceed the system's limit", boolean() => vrrp_netlink_monitor_rcv_bufs_force;
    "lvs_netlink_cmd_rcv_bufs": OWN_BUFFERS, "bytes for netlink commands of the checks", number(&defaults::U32) => lvs_netlink_cmd_rcv_bufs;
    "lvs_netlink_cmd_rcv_bufs_force": OWN_BUFFERS, "that buffer may exceed the system's limit", boolean() => lvs_netlink_cmd_rcv_bufs_force;
    "lvs_netlink_monitor_rcv_bufs": OWN_BUFFERS, "bytes for netlink events of the checks", number(&defaults::U32) => lvs_netlink_monitor_rcv_bufs;
    "lvs_netlink_monitor_rcv_bufs_force": OWN_BUFFERS, "that buffer may exceed the system's limit", boolean() => lvs_netlink_monitor_rcv_bufs_force;
    "process_monitor_rcv_bufs": OWN_BUFFERS, "bytes for events of processes", number(&defaults::U32) => process_monitor_rcv_bufs;
    "process_monitor_rcv_bufs_force": OWN_BUFFERS, "that buffer may exceed the system's limit", boolean() => process_monitor_rcv_bufs_force;
    "iproute_usr_dir": UNAPPLIED, "where iproute2 keeps the names of tables, scopes and protocols", later(), text(defaults::PATH_BYTES) => iproute_usr_dir;
    "iproute_etc_dir": UNAPPLIED, "where this host's own names of tables, scopes and protocols are", later(), text(defaults::PATH_BYTES) => iproute_etc_dir;
}

/// Keywords whose value may be left out, and means something else then.
pub(super) static OTHER: &[Keyword<GlobalDraft>] = &[line(
    "max_auto_priority",
    APPLIED,
    "how far the thread of VRRP and the checks may raise its real-time priority, by 1 each time that a timer is late; 0 = not at all, nothing = as far as it goes",
)
.number(&defaults::AUTO_PRIORITY)
.default(Value::Number(0))
.read(|draft, stmt, drafts| {
    let place = &mut draft.global.processes.max_auto_priority;
    match stmt.args.is_empty() {
        true => *place = Some(defaults::MOST_RT_PRIORITY),
        false => stmt.set(place, drafts),
    }
})];

impl FromGiven for Ipv6Addr {
    fn from_given(given: &Given<'_>, drafts: &mut Drafts) -> Option<Self> {
        let word = given.one(drafts)?;
        match read::address(word, drafts)? {
            IpAddr::V6(addr) if addr.is_multicast() => Some(addr),
            other => {
                let message = format!("{other} is not an IPv6 multicast address");
                drafts.push(Draft::warning(word.span, message).hint("the default counts"));
                None
            }
        }
    }
}

impl FromGiven for RxBufs {
    fn from_given(given: &Given<'_>, drafts: &mut Drafts) -> Option<Self> {
        let word = given.one(drafts)?;
        match word.text.as_str() {
            "MTU" => Some(Self::Mtu),
            "ADVERT" => Some(Self::Advert),
            _ => read::number(word, &given.keyword.text, &defaults::U32, drafts).map(Self::Bytes),
        }
    }
}

impl FromGiven for Owner {
    fn from_given(given: &Given<'_>, drafts: &mut Drafts) -> Option<Self> {
        let user = given.first(drafts)?.text.clone();
        given.no_more(2, drafts);
        let group = given.args.get(1).map(|word| word.text.clone());
        Some(Self { user, group })
    }
}

impl FromGiven for Cpus {
    fn from_given(given: &Given<'_>, drafts: &mut Drafts) -> Option<Self> {
        given.first(drafts)?;
        let read = |word| read::number(word, "CPU", &defaults::CPU, drafts);
        given.args.iter().map(read).collect::<Option<_>>().map(Self)
    }
}

impl FromGiven for Umask {
    fn from_given(given: &Given<'_>, drafts: &mut Drafts) -> Option<Self> {
        let word = given.first(drafts)?;
        let text: String = given.args.iter().map(|word| word.text.as_str()).collect();
        let mask = umask(&text);
        if mask.is_none() {
            let message = format!("{} is no umask", quoted(&text));
            let hint = "a number, octal with a 0 in front, or bits like IRGRP|IROTH; up to 0777";
            drafts.push(Draft::warning(word.span, message).hint(hint));
        }
        mask.map(Self)
    }
}

/// A number as C writes it, or names of bits.
fn umask(text: &str) -> Option<u16> {
    let number = if let Some(hex) = text.strip_prefix("0x") {
        u16::from_str_radix(hex, 16).ok()
    } else if text.starts_with('0') {
        u16::from_str_radix(text, 8).ok()
    } else {
        text.parse().ok()
    };
    let bit = |name: &str| {
        let (kind, who) = name.strip_prefix('I')?.split_at_checked(1)?;
        let kind = match kind {
            "R" => 4,
            "W" => 2,
            "X" => 1,
            _ => return None,
        };
        let shift = match who {
            "USR" => 6,
            "GRP" => 3,
            "OTH" => 0,
            _ => return None,
        };
        Some(kind << shift)
    };
    let bits = || {
        text.split('|')
            .map(bit)
            .try_fold(0, |all, one| Some(all | one?))
    };
    number.or_else(bits).filter(|mask| *mask <= 0o777)
}
