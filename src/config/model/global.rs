//! `global_defs`: what holds for the whole program.

use std::{fmt, net::Ipv6Addr, time::Duration};

use super::{
    super::defaults,
    plain::{Script, displayed, plain},
};

/// What `global_defs` sets and no instance overrides.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Global {
    /// `router_id`: this machine's name in mails. `None`: the host name.
    pub router_id: Option<String>,
    /// The keywords about mail.
    pub mail: Mail,
    /// `vrrp_startup_delay`: time after start in which adverts are ignored and timers held.
    /// Microseconds; default 0.
    pub vrrp_startup_delay: Duration,
    /// `vrrp_garp_interval`: pause between two gratuitous ARPs on one interface. Microseconds;
    /// default 0, no pause.
    pub vrrp_garp_interval: Duration,
    /// `vrrp_gna_interval`: pause between two unsolicited neighbour advertisements on one interface. Microseconds;
    /// default 0, no pause.
    pub vrrp_gna_interval: Duration,
    /// `dynamic_interfaces`: whether an interface of an instance need not exist at the start, and is
    /// waited for. Default false.
    pub dynamic_interfaces: bool,
    /// What mail is about.
    pub alerts: Alerts,
    /// What VRRP does as a whole.
    pub vrrp: VrrpWide,
    /// IPVS's daemon that copies connections to the other box. `None`: there is none.
    pub lvs_sync_daemon: Option<SyncDaemon>,
    /// Who runs scripts, and what runs them.
    pub scripts: Scripts,
    /// Files that are written and read, and reloading.
    pub files: Files,
    /// keepalived's processes.
    pub processes: Processes,
    /// What keepalived's use of the kernel and of other programs needs.
    pub host: HostServices,
}

/// Who is mailed about changes of state, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Mail {
    /// `notification_email`: the recipients. None: no mail.
    pub recipients: Vec<String>,
    /// `notification_email_from`. `None`: the user at the host's name.
    pub from: Option<String>,
    /// `smtp_server`: host and port. `None`: no mail. Port default [`defaults::SMTP_PORT`].
    pub smtp_server: Option<(String, u16)>,
    /// `smtp_helo_name`. `None`: the host name.
    pub helo_name: Option<String>,
    /// `smtp_connect_timeout`, at least 1 s. Default [`defaults::SMTP_CONNECT_TIMEOUT`].
    pub connect_timeout: Duration,
}

impl Default for Mail {
    fn default() -> Self {
        Self {
            recipients: Vec::new(),
            from: None,
            smtp_server: None,
            helo_name: None,
            connect_timeout: defaults::SMTP_CONNECT_TIMEOUT,
        }
    }
}

plain! {
    /// What mail is about.
    Alerts {
        /// Mail about everything, unless said otherwise. `None`: each has its default.
        smtp_alert: Option<bool> = "smtp_alert",
        /// Mail about instances and groups of them. `None`: `smtp_alert`.
        vrrp: Option<bool> = "smtp_alert_vrrp",
        /// Mail about virtual and real servers. `None`: `smtp_alert`.
        checker: Option<bool> = "smtp_alert_checker",
        /// No mail about FAULT.
        no_email_faults: bool = "no_email_faults",
        /// Mail about a real server when it changes, not for each of its checks.
        no_checker_emails: bool = "no_checker_emails",
        /// Each failed check is logged, not the change alone.
        checker_log_all_failures: bool = "checker_log_all_failures",
    }
}

plain! {
    /// What VRRP does as a whole.
    VrrpWide {
        /// The multicast group of IPv6 adverts. `None`: ff02::12 (RFC 9568 §5.1.2.2).
        mcast_group6: Option<Ipv6Addr> = "vrrp_mcast_group6",
        /// How long after the boot instances wait. `None`: not at all.
        delay_after_boot: Option<Duration> = "vrrp_delay_after_boot",
        /// How receive buffers for adverts are sized. `None`: as the system has it.
        rx_bufs_policy: Option<RxBufs> = "vrrp_rx_bufs_policy",
        /// How many adverts or MTUs a receive buffer holds. `None`: 3.
        rx_bufs_multiplier: Option<u32> = "vrrp_rx_bufs_multiplier",
        /// Adverts of VRIDs that are not configured are logged.
        log_unknown_vrids: bool = "log_unknown_vrids",
        /// Checksums of version 3 as in version 2, without a pseudo header.
        v3_checksum_as_v2: bool = "v3_checksum_as_v2",
        /// The interface of static addresses that name none. `None`: eth0.
        default_interface: Option<String> = "default_interface",
        /// The start of names of virtual MAC interfaces. `None`: vrrp.
        vmac_prefix: Option<String> = "vmac_prefix",
        /// The same for addresses on other interfaces. `None`: `vmac_prefix`.
        vmac_addr_prefix: Option<String> = "vmac_addr_prefix",
        /// The kernel sends no IGMP for link-local groups.
        disable_local_igmp: bool = "disable_local_igmp",
    }
}

/// `vrrp_rx_bufs_policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RxBufs {
    /// `MTU`: the interface's MTU times the multiplier.
    Mtu,
    /// `ADVERT`: an advert's size times the multiplier.
    Advert,
    /// A number of bytes.
    Bytes(u32),
}

impl fmt::Display for RxBufs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mtu => f.write_str("MTU"),
            Self::Advert => f.write_str("ADVERT"),
            Self::Bytes(bytes) => bytes.fmt(f),
        }
    }
}

displayed!(RxBufs, Ipv6Addr);

/// `lvs_sync_daemon`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncDaemon {
    /// Where connections are copied over.
    pub interface: String,
    /// The instance whose state decides which of the two daemons runs. `None`: both run.
    pub instance: Option<String>,
    /// `id`: 0 to 255. `None`: the instance's VRID, or 0.
    pub id: Option<u8>,
    /// `maxlen`: most bytes of a message, 1 to 65,507. `None`: what the MTU allows.
    pub maxlen: Option<u16>,
    /// `port`. `None`: 8848.
    pub port: Option<u16>,
    /// `ttl`: 1 to 255. `None`: 1.
    pub ttl: Option<u8>,
    /// `group`: the multicast group. `None`: 224.0.0.81.
    pub group: Option<std::net::IpAddr>,
}

/// `script_user`, and the `user` of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub user: String,
    /// The group. `None`: the user's.
    pub group: Option<String>,
}

impl super::plain::AsPlain for Option<Owner> {
    fn as_plain(&self) -> Option<super::plain::Plain<'_>> {
        let Owner { user, group } = self.as_ref()?;
        let names = std::iter::once(user).chain(group).map(String::as_str);
        Some(super::plain::Plain::Texts(names.collect()))
    }
}

plain! {
    /// Who runs scripts, and what runs them.
    Scripts {
        /// The user and group that scripts run as. `None`: keepalived_script if there is such a user.
        script_user: Option<Owner> = "script_user",
        /// No script runs as root that others could change.
        enable_script_security: bool = "enable_script_security",
        /// Scripts get the supplementary groups of their user.
        set_supplementary_groups: bool = "set_supplementary_groups",
        /// Paths of scripts are shown with their symbolic links.
        use_symlink_paths: bool = "use_symlink_paths",
        /// A script before the start.
        startup_script: Option<Script> = "startup_script",
        /// How long it may take, 1 to 1,000 s. `None`: 10 s.
        startup_script_timeout: Option<Duration> = "startup_script_timeout",
        /// A script after the stop.
        shutdown_script: Option<Script> = "shutdown_script",
        /// How long it may take, 1 to 1,000 s. `None`: 10 s.
        shutdown_script_timeout: Option<Duration> = "shutdown_script_timeout",
        /// A pipe that all changes are written to, with its owner.
        notify_fifo: Option<Script> = "notify_fifo",
        /// The script that reads it.
        notify_fifo_script: Option<Script> = "notify_fifo_script",
        /// A pipe that changes of instances are written to, with its owner.
        vrrp_notify_fifo: Option<Script> = "vrrp_notify_fifo",
        /// The script that reads it.
        vrrp_notify_fifo_script: Option<Script> = "vrrp_notify_fifo_script",
        /// A pipe that changes of servers are written to, with its owner.
        lvs_notify_fifo: Option<Script> = "lvs_notify_fifo",
        /// The script that reads it.
        lvs_notify_fifo_script: Option<Script> = "lvs_notify_fifo_script",
        /// A reload writes all states to the pipes.
        fifo_write_vrrp_states_on_reload: bool = "fifo_write_vrrp_states_on_reload",
        /// `notify_up` of real servers runs at the start as well.
        rs_init_notifies: bool = "rs_init_notifies",
    }
}

plain! {
    /// Files that are written and read, and reloading.
    Files {
        /// Permissions that files which are written do not get. `None`: what the caller has.
        umask: Option<Umask> = "umask",
        /// The start of `${_RANDOM}`. `None`: the time.
        random_seed: Option<u32> = "random_seed",
        /// A reload tries the configuration first; at most a file for what is found.
        reload_check_config: Option<Vec<String>> = "reload_check_config",
        /// A file with the time of the next reload.
        reload_time_file: Option<String> = "reload_time_file",
        /// It counts more than once.
        reload_repeat: bool = "reload_repeat",
        /// A file that exists while a reload reads; at most its path.
        reload_file: Option<Vec<String>> = "reload_file",
        /// Which missing includes are wrong: `read`, `match`, `wildcard_match`, `brace_match`, also with + or -.
        include_check: Option<Vec<String>> = "include_check",
        /// Where each configuration is kept.
        config_save_dir: Option<String> = "config_save_dir",
        /// Where the configuration is copied to while it is read.
        tmp_config_directory: Option<String> = "tmp_config_directory",
        /// Names of dumps carry the name of this process.
        data_use_instance: bool = "data_use_instance",
        /// The form of the JSON dump, 1 or 2. `None`: 1.
        json_version: Option<u8> = "json_version",
        /// Where the state is written to. `None`: where xvs writes it.
        state_dump_file: Option<String> = "state_dump_file",
        /// Where the statistics are written to. `None`: where xvs writes them.
        stats_dump_file: Option<String> = "stats_dump_file",
        /// Where the JSON dump is written to. `None`: where xvs writes it.
        json_dump_file: Option<String> = "json_dump_file",
    }
}

/// `umask`. Displayed in octal, as it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Umask(pub u16);

impl fmt::Display for Umask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0{:o}", self.0)
    }
}

/// CPUs of a process, in the order of the file. Displayed as the configuration has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpus(pub Vec<u16>);

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(u16::to_string).collect();
        f.write_str(&numbers.join(" "))
    }
}

displayed!(Umask, Cpus);

plain! {
    /// keepalived's processes: one does the VRRP, one the checks, one BFD.
    Processes {
        /// How far a process that is late may raise its priority, -1 to 99. `None`: not at all.
        max_auto_priority: Option<i8> = "max_auto_priority",
        /// How late a timer must be for that, 1 to 10,000,000 microseconds. `None`: a second.
        min_auto_priority_delay: Option<u32> = "min_auto_priority_delay",
        /// Nice value, -20 to 19.
        vrrp_priority: Option<i8> = "vrrp_priority",
        /// The process stays in memory.
        vrrp_no_swap: bool = "vrrp_no_swap",
        /// Real-time priority, 1 to 99.
        vrrp_rt_priority: Option<u8> = "vrrp_rt_priority",
        /// CPUs of the process.
        vrrp_cpu_affinity: Option<Cpus> = "vrrp_cpu_affinity",
        /// Most microseconds of real-time work without a pause. `None`: 10,000.
        vrrp_rlimit_rttime: Option<u32> = "vrrp_rlimit_rttime",
        /// Nice value, -20 to 19.
        checker_priority: Option<i8> = "checker_priority",
        /// The process stays in memory.
        checker_no_swap: bool = "checker_no_swap",
        /// Real-time priority, 1 to 99.
        checker_rt_priority: Option<u8> = "checker_rt_priority",
        /// CPUs of the process.
        checker_cpu_affinity: Option<Cpus> = "checker_cpu_affinity",
        /// Most microseconds of real-time work without a pause. `None`: 10,000.
        checker_rlimit_rttime: Option<u32> = "checker_rlimit_rttime",
        /// Nice value, -20 to 19.
        bfd_priority: Option<i8> = "bfd_priority",
        /// The process stays in memory.
        bfd_no_swap: bool = "bfd_no_swap",
        /// Real-time priority, 1 to 99.
        bfd_rt_priority: Option<u8> = "bfd_rt_priority",
        /// CPUs of the process.
        bfd_cpu_affinity: Option<Cpus> = "bfd_cpu_affinity",
        /// Most microseconds of real-time work without a pause. `None`: 10,000.
        bfd_rlimit_rttime: Option<u32> = "bfd_rlimit_rttime",
        /// Child processes have names of their own.
        process_names: bool = "process_names",
        /// Name of the parent, at most 15 bytes.
        process_name: Option<String> = "process_name",
        /// Name of the process that does VRRP.
        vrrp_process_name: Option<String> = "vrrp_process_name",
        /// Name of the process that does the checks.
        checker_process_name: Option<String> = "checker_process_name",
        /// Name of the process that does BFD.
        bfd_process_name: Option<String> = "bfd_process_name",
    }
}

plain! {
    /// What keepalived's use of the kernel and of other programs needs. Nothing here has a meaning for xvs.
    HostServices {
        /// IPVS's table is emptied at the start.
        lvs_flush: bool = "lvs_flush",
        /// IPVS's table is emptied at the stop; with `VS` virtual server by virtual server.
        lvs_flush_on_stop: Option<Vec<String>> = "lvs_flush_on_stop",
        /// iptables chains for addresses that take no packets: of input and of output.
        vrrp_iptables: Option<Vec<String>> = "vrrp_iptables",
        /// ipsets for addresses that take no packets.
        vrrp_ipsets: Option<Vec<String>> = "vrrp_ipsets",
        /// The nftables table for addresses that take no packets.
        nftables: Option<Vec<String>> = "nftables",
        /// The priority of its chains.
        nftables_priority: Option<i32> = "nftables_priority",
        /// Counters in it.
        nftables_counters: bool = "nftables_counters",
        /// Interfaces by their index in it.
        nftables_ifindex: bool = "nftables_ifindex",
        /// The nftables table that marks packets for IPVS.
        nftables_ipvs: Option<Vec<String>> = "nftables_ipvs",
        /// The priority of its chains.
        nftables_ipvs_priority: Option<i32> = "nftables_ipvs_priority",
        /// The first of those marks.
        nftables_ipvs_start_fwmark: Option<u32> = "nftables_ipvs_start_fwmark",
        /// SNMP for instances, keepalived's MIB.
        enable_snmp_vrrp: bool = "enable_snmp_vrrp",
        /// SNMP for virtual servers.
        enable_snmp_checker: bool = "enable_snmp_checker",
        /// SNMP as both RFCs have it.
        enable_snmp_rfc: bool = "enable_snmp_rfc",
        /// SNMP as RFC 2787 has it.
        enable_snmp_rfcv2: bool = "enable_snmp_rfcv2",
        /// SNMP as RFC 6527 has it.
        enable_snmp_rfcv3: bool = "enable_snmp_rfcv3",
        /// SNMP traps.
        enable_traps: bool = "enable_traps",
        /// The socket of the SNMP agent.
        snmp_socket: Option<String> = "snmp_socket",
        /// How old statistics of virtual servers may be.
        snmp_vs_stats_update_interval: Option<Duration> = "snmp_vs_stats_update_interval",
        /// How old statistics of real servers may be.
        snmp_rs_stats_update_interval: Option<Duration> = "snmp_rs_stats_update_interval",
        /// D-Bus for instances.
        enable_dbus: bool = "enable_dbus",
        /// The name on D-Bus.
        dbus_service_name: Option<String> = "dbus_service_name",
        /// Names on D-Bus without the interface.
        dbus_no_interface_name: bool = "dbus_no_interface_name",
        /// Receive buffer of netlink commands in the VRRP process, in bytes.
        vrrp_netlink_cmd_rcv_bufs: Option<u32> = "vrrp_netlink_cmd_rcv_bufs",
        /// It may exceed the system's limit.
        vrrp_netlink_cmd_rcv_bufs_force: bool = "vrrp_netlink_cmd_rcv_bufs_force",
        /// Receive buffer of netlink events in the VRRP process, in bytes.
        vrrp_netlink_monitor_rcv_bufs: Option<u32> = "vrrp_netlink_monitor_rcv_bufs",
        /// It may exceed the system's limit.
        vrrp_netlink_monitor_rcv_bufs_force: bool = "vrrp_netlink_monitor_rcv_bufs_force",
        /// Receive buffer of netlink commands in the process with the checks, in bytes.
        lvs_netlink_cmd_rcv_bufs: Option<u32> = "lvs_netlink_cmd_rcv_bufs",
        /// It may exceed the system's limit.
        lvs_netlink_cmd_rcv_bufs_force: bool = "lvs_netlink_cmd_rcv_bufs_force",
        /// Receive buffer of netlink events in the process with the checks, in bytes.
        lvs_netlink_monitor_rcv_bufs: Option<u32> = "lvs_netlink_monitor_rcv_bufs",
        /// It may exceed the system's limit.
        lvs_netlink_monitor_rcv_bufs_force: bool = "lvs_netlink_monitor_rcv_bufs_force",
        /// Receive buffer of process events, in bytes.
        process_monitor_rcv_bufs: Option<u32> = "process_monitor_rcv_bufs",
        /// It may exceed the system's limit.
        process_monitor_rcv_bufs_force: bool = "process_monitor_rcv_bufs_force",
        /// Where iproute2 keeps its names.
        iproute_usr_dir: Option<String> = "iproute_usr_dir",
        /// Where this host's names for iproute2 are.
        iproute_etc_dir: Option<String> = "iproute_etc_dir",
    }
}

impl Global {
    /// Its groups of plain values.
    pub(in crate::config) fn plain(
        &self,
    ) -> impl Iterator<Item = (&'static str, Option<super::plain::Plain<'_>>)> {
        (self.alerts.plain().into_iter())
            .chain(self.vrrp.plain())
            .chain(self.scripts.plain())
            .chain(self.files.plain())
            .chain(self.processes.plain())
            .chain(self.host.plain())
    }
}
