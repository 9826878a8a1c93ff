//! The configuration as the rest of the program sees it: typed, in units, with every default and
//! every inheritance resolved.

mod bfd;
mod checker;
mod global;
mod host;
mod plain;
mod routes;
mod server;
mod settings;
mod tracking;
mod vrrp;

pub use self::{
    bfd::BfdInstance,
    checker::{
        CheckKind, Checker, Connection, DnsCheck, DnsType, FileCheck, FileWeight, HttpCheck,
        HttpUrl, HttpVersion, MaskedByte, MiscCheck, PageRegex, Passphrase, RegexOption, SmtpCheck,
        Ssl, StatusRange, Tls, UdpCheck, UdpReply,
    },
    global::{
        Alerts, Cpus, Files, Global, HostServices, Mail, Owner, Processes, RxBufs, Scripts,
        SyncDaemon, Umask, VrrpWide,
    },
    host::{GarpGroup, LinkPoll, Linkbeat, Process, UpDownDelay},
    plain::Script,
    routes::{OptionValue, Route, RouteKind, RouteOption, Rule},
    server::{Match, Persistence, RealServer, SorryServer, VirtualServer, VirtualServerKey},
    settings::{AddressSet, FastPath, Ipvs, MarkRule, PortRange, Settings, Timeout, Timeouts},
    tracking::{
        InitFile, ParamMatch, SyncGroup, TrackFile, TrackGroup, TrackProcess, Tracked, Trackers,
        VrrpScript,
    },
    vrrp::{
        AntiReplay, AuthHmac, Authentication, ExtraGarp, Garp, HmacKey, HmacMode, InitialState,
        InstanceOptions, Password, TrackInterface, Transport, UnicastPeer, VirtualAddress, Vmac,
        VrrpInstance, VrrpVersion,
    },
};
pub(super) use self::{plain::Plain, vrrp::Secs};

/// Everything that a configuration file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `global_defs`.
    pub global: Global,
    /// The keywords about the process that stand outside of every block.
    pub process: Process,
    /// `static_ipaddress`: addresses that are always there. Without `dev` they are on `default_interface`.
    pub static_addresses: Vec<VirtualAddress>,
    /// `static_routes`: routes that are always there.
    pub static_routes: Vec<Route>,
    /// `static_rules`: routing rules that are always there.
    pub static_rules: Vec<Rule>,
    /// `track_group` blocks: instances that these bear on.
    pub track_groups: Vec<TrackGroup>,
    /// `vrrp_script` blocks.
    pub scripts: Vec<VrrpScript>,
    /// `track_file` blocks.
    pub track_files: Vec<TrackFile>,
    /// `vrrp_track_process` blocks.
    pub track_processes: Vec<TrackProcess>,
    /// `bfd_instance` blocks.
    pub bfd_instances: Vec<BfdInstance>,
    /// `garp_group` blocks.
    pub garp_groups: Vec<GarpGroup>,
    /// `interface_up_down_delays`
    pub up_down_delays: Vec<UpDownDelay>,
    /// `linkbeat_interfaces`
    pub linkbeats: Vec<Linkbeat>,
    /// `vrrp_sync_group` blocks: instances that change state together.
    pub sync_groups: Vec<SyncGroup>,
    /// `vrrp_instance` blocks, in the order of the file.
    pub vrrp_instances: Vec<VrrpInstance>,
    /// `virtual_server` blocks, in the order of the file.
    pub virtual_servers: Vec<VirtualServer>,
    /// `SSL`: what checks over TLS show of themselves.
    pub ssl: Ssl,
    /// How long connections may idle: `lvs_timeouts` and `xvs { timeouts { ... } }`.
    pub timeouts: Timeouts,
    /// `xvs`: what keepalived has no keyword for.
    pub settings: Settings,
}

impl Config {
    /// Why there is nothing to do by it, if so.
    pub fn is_useless(&self) -> Option<&'static str> {
        let useless = self.vrrp_instances.is_empty() && self.virtual_servers.is_empty();
        useless.then_some("the configuration has neither a vrrp_instance nor a virtual_server")
    }
}

/// A script and its occasion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifyScript {
    /// When it runs.
    pub event: NotifyEvent,
    /// The command with its arguments, blanks and quotes as written.
    pub command: String,
    /// The user that it runs as. `None`: `script_user`.
    pub user: Option<String>,
    /// The group that it runs as. `None`: the user's.
    pub group: Option<String>,
}

/// Occasions on which a script runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotifyEvent {
    /// `notify`: every change of state.
    Any,
    /// `notify_master`
    Master,
    /// `notify_backup`
    Backup,
    /// `notify_fault`
    Fault,
    /// `notify_stop`
    Stop,
    /// `notify_deleted`
    Deleted,
    /// `notify_master_rx_lower_pri`
    MasterRxLowerPri,
    /// `notify_up` of a real server.
    Up,
    /// `notify_down` of a real server.
    Down,
    /// `quorum_up` of a virtual server.
    QuorumUp,
    /// `quorum_down` of a virtual server.
    QuorumDown,
}

impl NotifyEvent {
    /// The keyword in the configuration.
    pub const fn keyword(self) -> &'static str {
        match self {
            Self::Any => "notify",
            Self::Master => "notify_master",
            Self::Backup => "notify_backup",
            Self::Fault => "notify_fault",
            Self::Stop => "notify_stop",
            Self::Deleted => "notify_deleted",
            Self::MasterRxLowerPri => "notify_master_rx_lower_pri",
            Self::Up => "notify_up",
            Self::Down => "notify_down",
            Self::QuorumUp => "quorum_up",
            Self::QuorumDown => "quorum_down",
        }
    }
}
