//! The configuration as the rest of the program sees it: typed, in units, with every default and
//! every inheritance resolved.

mod checker;
mod server;
mod settings;
mod vrrp;

use std::time::Duration;

pub use self::{
    checker::{
        CheckKind, Checker, Connection, DnsCheck, DnsType, FileCheck, FileWeight, HttpCheck,
        HttpUrl, HttpVersion, MaskedByte, MiscCheck, PageRegex, Passphrase, RegexOption, Script,
        SmtpCheck, Ssl, StatusRange, Tls, UdpCheck, UdpReply,
    },
    server::{Match, Persistence, RealServer, SorryServer, VirtualServer, VirtualServerKey},
    settings::{AddressSet, Ipvs, MarkRule, PortRange, Settings, Timeout, Timeouts},
    vrrp::{
        Authentication, Garp, InitialState, Password, TrackInterface, Transport, UnicastPeer,
        VirtualAddress, VrrpInstance, VrrpVersion,
    },
};
use super::defaults;

/// Everything that a configuration file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `global_defs`.
    pub global: Global,
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
    /// `dynamic_interfaces`: whether an interface of an instance need not exist at the start, and is
    /// waited for. Default false.
    pub dynamic_interfaces: bool,
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
