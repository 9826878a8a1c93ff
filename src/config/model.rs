//! The configuration as the rest of the program sees it: typed, in units, with every default and
//! every inheritance resolved.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use super::defaults;
use crate::addr::{Endpoint, IpPrefix, L4Proto};

/// Everything that a configuration file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `global_defs`.
    pub global: Global,
    /// `vrrp_instance` blocks, in the order of the file.
    pub vrrp_instances: Vec<VrrpInstance>,
    /// `virtual_server` blocks, in the order of the file.
    pub virtual_servers: Vec<VirtualServer>,
}

/// What `global_defs` sets and no instance overrides.
#[derive(Clone, Debug, PartialEq)]
pub struct Global {
    /// `router_id`: this machine's name in mails. `None`: the host name.
    pub router_id: Option<String>,
    /// The keywords about mail.
    pub mail: Mail,
    /// `lvs_timeouts`.
    pub lvs_timeouts: LvsTimeouts,
    /// `vrrp_startup_delay`: time after start in which adverts are ignored and timers held.
    /// Microseconds; default 0.
    pub vrrp_startup_delay: Duration,
    /// `vrrp_garp_interval`: pause between two gratuitous ARPs on one interface. Microseconds;
    /// default 0, no pause.
    pub vrrp_garp_interval: Duration,
}

impl Default for Global {
    fn default() -> Self {
        Self {
            router_id: None,
            mail: Mail::default(),
            lvs_timeouts: LvsTimeouts::default(),
            vrrp_startup_delay: Duration::ZERO,
            vrrp_garp_interval: Duration::ZERO,
        }
    }
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

/// `lvs_timeouts`: how long an idle connection is remembered. Whole seconds, 1 s to 31 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LvsTimeouts {
    /// Established TCP. Default [`defaults::LVS_TIMEOUT_TCP`].
    pub tcp: Duration,
    /// TCP after a FIN. Default [`defaults::LVS_TIMEOUT_TCP_FIN`].
    pub tcp_fin: Duration,
    /// UDP. Default [`defaults::LVS_TIMEOUT_UDP`].
    pub udp: Duration,
}

impl Default for LvsTimeouts {
    fn default() -> Self {
        Self {
            tcp: defaults::LVS_TIMEOUT_TCP,
            tcp_fin: defaults::LVS_TIMEOUT_TCP_FIN,
            udp: defaults::LVS_TIMEOUT_UDP,
        }
    }
}

/// The version of VRRP that an instance speaks (`version`, `vrrp_version`; default 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum VrrpVersion {
    /// RFC 3768, with the authentication of RFC 2338.
    #[default]
    V2,
    /// RFC 9568.
    V3,
}

/// The state that an instance starts in (`state`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum InitialState {
    /// `state MASTER`: only an address owner (priority 255) acts on it at start.
    Master,
    /// `state BACKUP`.
    #[default]
    Backup,
}

/// A virtual router (`vrrp_instance`).
#[derive(Clone, Debug, PartialEq)]
pub struct VrrpInstance {
    /// The name behind `vrrp_instance`.
    pub name: String,
    /// `state`. MASTER if the priority is 255, whatever was said.
    pub initial_state: InitialState,
    /// `interface`: where adverts are sent and heard.
    pub interface: String,
    /// `virtual_router_id`, 1 to 255 (RFC 9568 §5.2.3).
    pub virtual_router_id: u8,
    /// `priority`, 1 to 255. Default [`defaults::PRIORITY`]; 255 when `state MASTER` stands
    /// without one.
    pub priority: u8,
    /// `version`.
    pub version: VrrpVersion,
    /// `advert_int`: whole seconds, 1 to 255, in version 2. Default [`defaults::ADVERT_INT`].
    pub advert_int: Duration,
    /// `preempt`/`nopreempt`: whether a lower priority MASTER is replaced. Default true. Always
    /// true where the state is MASTER or the priority 255.
    pub preempt: bool,
    /// `preempt_delay`: how long a lower MASTER is heard before it is replaced. Microseconds,
    /// 0 to 1000 s; default 0.
    pub preempt_delay: Duration,
    /// `authentication`. Default none.
    pub authentication: Option<Authentication>,
    /// `mcast_src_ip`, `unicast_src_ip`: source address of adverts. `None`: the interface's.
    pub source: Option<IpAddr>,
    /// Whom adverts go to.
    pub transport: Transport,
    /// `virtual_ipaddress`: addresses that adverts list, at most [`defaults::ADVERT_ADDRESSES`].
    pub virtual_ipaddress: Vec<VirtualAddress>,
    /// `virtual_ipaddress_excluded`: further addresses of the MASTER, which adverts do not list.
    pub virtual_ipaddress_excluded: Vec<VirtualAddress>,
    /// `garp_*`: gratuitous ARP.
    pub garp: Garp,
    /// `track_interface`: other interfaces that bear on this instance; its own is not listed.
    pub track_interface: Vec<TrackInterface>,
    /// `dont_track_primary`: whether the instance lives on when its own interface is down.
    /// Default false.
    pub dont_track_primary: bool,
    /// `skip_check_adv_addr`: whether the address list of an advert from the MASTER known
    /// already goes unchecked. Default false.
    pub skip_check_adv_addr: bool,
    /// `down_timer_adverts`: intervals without an advert that make a MASTER dead. 1 to 100;
    /// default [`defaults::DOWN_TIMER_ADVERTS`].
    pub down_timer_adverts: u8,
    /// `lower_prio_no_advert`: whether a MASTER leaves an advert of lower priority unanswered.
    /// Default false.
    pub lower_prio_no_advert: bool,
    /// `higher_prio_send_advert`: whether a MASTER that yields sends one more advert.
    /// Default false.
    pub higher_prio_send_advert: bool,
    /// `notify_*` and `notify`: scripts.
    pub notify: Vec<NotifyScript>,
}

/// How adverts are authenticated (`auth_type`); version 2 only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// `PASS`: a password in clear (RFC 2338 §5.3.10).
    Pass(Password),
    /// `AH`: an IPsec authentication header (RFC 2338 §5.3.6).
    Ah(Password),
}

/// `auth_pass`: 1 to 8 bytes, filled up with NUL. Never shown, not by `Debug` either.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Password([u8; defaults::AUTH_PASS_BYTES]);

impl Password {
    /// The first eight bytes of `text`, filled up with NUL.
    pub fn new(text: &[u8]) -> Self {
        let mut bytes = [0; defaults::AUTH_PASS_BYTES];
        let used = text.len().min(bytes.len());
        bytes[..used].copy_from_slice(&text[..used]);
        Self(bytes)
    }

    /// The bytes as an advertisement carries them.
    pub const fn bytes(&self) -> &[u8; defaults::AUTH_PASS_BYTES] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(****)")
    }
}

/// How adverts travel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// To a multicast group.
    Multicast {
        /// `mcast_dst_ip`, `vrrp_mcast_group4`. Default [`defaults::VRRP_GROUP`].
        group: IpAddr,
    },
    /// To each peer (`unicast_peer`).
    Unicast {
        /// The peers; at least one.
        peers: Vec<UnicastPeer>,
        /// `unicast_ttl`. Default [`defaults::UNICAST_TTL`].
        ttl: u8,
        /// `check_unicast_src`: whether adverts of strangers are dropped. Default false.
        check_source: bool,
    },
}

/// A peer of `unicast_peer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnicastPeer {
    /// Its address.
    pub addr: IpAddr,
    /// `min_ttl`: adverts from it with a smaller TTL are dropped. Default 0.
    pub min_ttl: u8,
    /// `max_ttl`: adverts from it with a larger TTL are dropped. Default 255.
    pub max_ttl: u8,
}

/// An address that the MASTER has (`virtual_ipaddress`), with ip(8) semantics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualAddress {
    /// The address and its prefix length. Default length 32 or 128.
    pub prefix: IpPrefix,
    /// `dev`. Default the instance's interface.
    pub dev: String,
    /// `scope`, as rtnetlink numbers it. Default 0, global.
    pub scope: u8,
    /// `label` of the address, at most 15 bytes. Default none.
    pub label: Option<String>,
    /// `brd`: the broadcast address; `+` and `-` are resolved. Default none.
    pub broadcast: Option<Ipv4Addr>,
    /// `peer`: the other end of a point-to-point address, with the length of `prefix`. Default
    /// none.
    pub peer: Option<IpPrefix>,
    /// `noprefixroute`: whether the kernel adds no route for the prefix. Default false.
    pub noprefixroute: bool,
    /// `no_track`: whether the address is not put back when somebody removes it. Default false.
    pub no_track: bool,
}

/// When a MASTER announces its addresses by gratuitous ARP, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Garp {
    /// `garp_master_delay`: second batch this long after becoming MASTER; 0 = none. Default
    /// [`defaults::GARP_MASTER_DELAY`].
    pub master_delay: Duration,
    /// `garp_master_repeat`: announcements an address in a batch, 1 to 255. Default
    /// [`defaults::GARP_MASTER_REPEAT`].
    pub master_repeat: u32,
    /// `garp_master_refresh`: period of further batches while MASTER; 0 = none. Default 0.
    pub master_refresh: Duration,
    /// `garp_master_refresh_repeat`: announcements an address in such a batch. Default
    /// [`defaults::GARP_MASTER_REFRESH_REPEAT`].
    pub master_refresh_repeat: u32,
    /// `garp_lower_prio_delay`: as `master_delay`, after an advert of a lower MASTER. Default
    /// as `master_delay`.
    pub lower_prio_delay: Duration,
    /// `garp_lower_prio_repeat`: as `master_repeat`, after an advert of a lower MASTER. Default
    /// as `master_repeat`.
    pub lower_prio_repeat: u32,
}

/// An entry of `track_interface`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackInterface {
    /// The interface.
    pub interface: String,
    /// `weight`: 0 = FAULT while it is down; above, added while it is up; below, added (so the
    /// priority falls) while it is down. -253 to 253; default 0.
    pub weight: i16,
    /// `reverse`: whether up and down change places. Default false.
    pub reverse: bool,
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

/// What a virtual server is found by. Displayed as keepalived logs it: `[10.0.0.148]:tcp:80`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtualServerKey {
    /// Address and port; port 0 = every port.
    pub endpoint: Endpoint,
    /// `protocol`.
    pub protocol: L4Proto,
}

impl fmt::Display for VirtualServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, protocol } = self;
        write!(
            f,
            "[{}]:{}:{}",
            endpoint.addr,
            protocol.name(),
            endpoint.port
        )
    }
}

/// How a virtual server picks a real server (`lb_algo`); the names are IPVS's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheduler {
    /// `rr`: in turn.
    Rr,
    /// `wrr`: in turn, by weight.
    Wrr,
    /// `lc`: fewest connections.
    Lc,
    /// `wlc`: fewest connections for its weight.
    Wlc,
    /// `lblc`: locality-based least connection.
    Lblc,
    /// `lblcr`: locality-based least connection with replication.
    Lblcr,
    /// `dh`: by a hash of the destination.
    Dh,
    /// `sh`: by a hash of the source.
    Sh,
    /// `mh`: Maglev.
    Mh,
    /// `sed`: shortest expected delay.
    Sed,
    /// `nq`: an idle one, else shortest expected delay.
    Nq,
    /// `fo`: the highest weight.
    Fo,
    /// `ovf`: the highest weight until it is full.
    Ovf,
    /// `twos`: the better of two drawn at random.
    Twos,
}

impl Scheduler {
    /// Every scheduler.
    pub const ALL: [Self; 14] = [
        Self::Rr,
        Self::Wrr,
        Self::Lc,
        Self::Wlc,
        Self::Lblc,
        Self::Lblcr,
        Self::Dh,
        Self::Sh,
        Self::Mh,
        Self::Sed,
        Self::Nq,
        Self::Fo,
        Self::Ovf,
        Self::Twos,
    ];

    /// The name in the configuration and in ipvsadm's tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Wrr => "wrr",
            Self::Lc => "lc",
            Self::Wlc => "wlc",
            Self::Lblc => "lblc",
            Self::Lblcr => "lblcr",
            Self::Dh => "dh",
            Self::Sh => "sh",
            Self::Mh => "mh",
            Self::Sed => "sed",
            Self::Nq => "nq",
            Self::Fo => "fo",
            Self::Ovf => "ovf",
            Self::Twos => "twos",
        }
    }
}

/// How a packet reaches a real server (`lb_kind`, `lvs_method`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LbKind {
    /// `NAT`: addresses are rewritten, both ways.
    Nat,
    /// `DR`: the frame is sent to the real server's MAC address.
    Dr,
    /// `TUN`: the packet is sent in a tunnel.
    Tun,
}

impl LbKind {
    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nat => "NAT",
            Self::Dr => "DR",
            Self::Tun => "TUN",
        }
    }
}

/// `persistence_timeout` and `persistence_granularity`: a client keeps its real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// How long after its last connection. Whole seconds, 1 s to 31 days; default
    /// [`defaults::PERSISTENCE_TIMEOUT`].
    pub timeout: Duration,
    /// Prefix length by which clients are taken together. Default 32 or 128: each alone.
    pub granularity: u8,
}

/// A virtual server (`virtual_server`).
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualServer {
    /// Address, port and protocol.
    pub key: VirtualServerKey,
    /// `delay_loop`: time between two checks of a real server. Default
    /// [`defaults::DELAY_LOOP`].
    pub delay_loop: Duration,
    /// `lb_algo`. Default [`defaults::LB_ALGO`].
    pub lb_algo: Scheduler,
    /// `lb_kind`. Default [`defaults::LB_KIND`].
    pub lb_kind: LbKind,
    /// Persistence; default none.
    pub persistence: Option<Persistence>,
    /// `alpha`: whether real servers are down until a check passes. Default false.
    pub alpha: bool,
    /// `omega`: whether `notify_down` and `quorum_down` run at shutdown. Default false.
    pub omega: bool,
    /// `quorum`: weight alive that makes the virtual server up. At least 1, at most the sum of
    /// the weights; default [`defaults::QUORUM`].
    pub quorum: u32,
    /// `hysteresis`: how far beyond the quorum it must go to change. Less than the quorum;
    /// default [`defaults::HYSTERESIS`].
    pub hysteresis: u32,
    /// `sorry_server`: where connections go while the quorum is lost. Default none.
    pub sorry_server: Option<Endpoint>,
    /// `quorum_up`, `quorum_down`: scripts.
    pub notify: Vec<NotifyScript>,
    /// `real_server` blocks, at least one.
    pub real_servers: Vec<RealServer>,
}

/// A real server (`real_server`).
#[derive(Clone, Debug, PartialEq)]
pub struct RealServer {
    /// Address and port.
    pub endpoint: Endpoint,
    /// `weight`, 0 to 2,147,483,647; 0 = known but given no new connections. Default the
    /// virtual server's, then [`defaults::WEIGHT`].
    pub weight: u32,
    /// `lvs_method`. Default the virtual server's.
    pub lb_kind: LbKind,
    /// `inhibit_on_failure`: whether a failed one gets weight 0 instead of being removed.
    /// Default the virtual server's, then false.
    pub inhibit_on_failure: bool,
    /// `uthreshold`: connections from which on it gets no new ones; 0 = no limit, the default.
    pub uthreshold: u32,
    /// `lthreshold`: connections below which it gets new ones again. Default 0.
    pub lthreshold: u32,
    /// `notify_up`, `notify_down`: scripts.
    pub notify: Vec<NotifyScript>,
    /// The checkers; it is up when none of them has failed. None: always up.
    pub checkers: Vec<Checker>,
}

/// What a checker does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// `TCP_CHECK`: a connection is established.
    Tcp,
}

/// A health check of one real server.
#[derive(Clone, Debug, PartialEq)]
pub struct Checker {
    /// What it does.
    pub kind: CheckKind,
    /// `connect_ip` and `connect_port`. Default the real server's.
    pub connect: Endpoint,
    /// `bindto`: its source address. Default the kernel's choice.
    pub bindto: Option<IpAddr>,
    /// `bind_port`: its source port; 0, the default, is the kernel's choice.
    pub bind_port: u16,
    /// `connect_timeout`. Default [`defaults::CONNECT_TIMEOUT`].
    pub connect_timeout: Duration,
    /// `retry`: failures that are forgiven before the one that counts. Default
    /// [`defaults::RETRY`].
    pub retry: u32,
    /// `delay_before_retry`. Default [`defaults::DELAY_BEFORE_RETRY`].
    pub delay_before_retry: Duration,
    /// `warmup`: the first run comes after a random part of it. `None`, not said: the checker's
    /// own default, at most 1 s (keepalived: `delay_loop`).
    pub warmup: Option<Duration>,
    /// `delay_loop`: from the end of one run to the next. Default the virtual server's.
    pub delay_loop: Duration,
    /// `alpha`: whether it counts as failed until it has passed. Default false.
    pub alpha: bool,
}
