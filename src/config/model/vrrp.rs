//! `vrrp_instance`: virtual routers.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use super::{
    super::defaults,
    NotifyScript,
    plain::{displayed, plain},
    routes::{Route, Rule},
    tracking::Trackers,
};
use crate::addr::IpPrefix;

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
    /// `strict_mode`, `vrrp_strict`: whether it keeps to the RFC. Default false.
    pub strict_mode: bool,
    /// `accept`: whether a MASTER that does not own its addresses takes packets to them. Default true, but false in
    /// strict mode, where only the owner does.
    pub accept: bool,
    /// `no_virtual_ipaddress`: whether an empty list of addresses is meant. Default false.
    pub no_virtual_ipaddress: bool,
    /// `auth_hmac`: adverts are signed. Default none.
    pub auth_hmac: Option<AuthHmac>,
    /// `use_vmac`: the virtual MAC address of VRRP (RFC 9568 §7.3). Default none.
    pub use_vmac: Option<Vmac>,
    /// `track_script`, `track_file`, `track_process` and `track_bfd`.
    pub trackers: Trackers,
    /// `virtual_routes`: routes of the MASTER.
    pub virtual_routes: Vec<Route>,
    /// `virtual_rules`: routing rules of the MASTER.
    pub virtual_rules: Vec<Rule>,
    /// Its other keywords.
    pub further: InstanceOptions,
}

plain! {
    /// Keywords of an instance with one plain value.
    InstanceOptions {
        /// The interface keeps its other addresses when the first one goes.
        promote_secondaries: bool = "promote_secondaries",
        /// FAULT when no peer can be reached.
        unicast_fault_no_peer: bool = "unicast_fault_no_peer",
        /// Checksums of unicast in version 3 as keepalived 1.3.6 had them; `never`: they are not looked for either.
        old_unicast_checksum: Option<Vec<String>> = "old_unicast_checksum",
        /// FAULT when the source address leaves the interface.
        track_src_ip: bool = "track_src_ip",
        /// The VRF of the instance.
        vrf: Option<String> = "vrf",
        /// Virtual MAC addresses for addresses on other interfaces.
        use_vmac_addr: bool = "use_vmac_addr",
        /// Adverts leave from the interface below the virtual MAC's.
        vmac_xmit_base: bool = "vmac_xmit_base",
        /// An ipvlan interface for the addresses: its name, address and mode, as far as they are given.
        use_ipvlan: Option<Vec<String>> = "use_ipvlan",
        /// A MASTER whose timer was so many milliseconds late becomes BACKUP.
        timer_expired_backup: Option<u32> = "timer_expired_backup",
        /// Adverts are dropped after so many milliseconds of delay.
        thread_timer_expired: Option<u32> = "thread_timer_expired",
        /// Time between gratuitous ARPs on other interfaces. `None`: there are none.
        garp_extra_if: Option<ExtraGarp> = "garp_extra_if",
        /// The owner of the addresses ignores adverts. `None`: no.
        owner_ignore_adverts: Option<bool> = "owner_ignore_adverts",
        /// Receive buffer for adverts, in bytes.
        kernel_rx_buf_size: Option<u32> = "kernel_rx_buf_size",
        /// How much is logged, 0 to 4. keepalived does nothing with it.
        debug: Option<u8> = "debug",
        /// Changes of priority are written to the pipes, too. `None`: no.
        notify_priority_changes: Option<bool> = "notify_priority_changes",
        /// Mail about this instance, as `smtp_alert_vrrp` and `smtp_alert` of `global_defs` have it where it does not
        /// say so itself. `None`: no.
        smtp_alert: Option<bool> = "smtp_alert",
        /// The scripts are told DELETED, not FAULT, when a reload removes the instance.
        notify_deleted: bool = "notify_deleted",
        /// The interface of IPVS's synchronisation, an old form of `lvs_sync_daemon`.
        lvs_sync_daemon_interface: Option<String> = "lvs_sync_daemon_interface",
        /// The addresses are IPv6's, as they say themselves.
        native_ipv6: bool = "native_ipv6",
        /// The link is polled, an old form of `linkbeat_interfaces`.
        linkbeat_use_polling: bool = "linkbeat_use_polling",
    }
}

/// `garp_extra_if`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtraGarp {
    /// Whether all interfaces with addresses are meant, not only those with a virtual MAC.
    pub all: bool,
    /// Time between two announcements, up to a day; 0 = none.
    pub interval: Duration,
}

impl fmt::Display for ExtraGarp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = if self.all { "all " } else { "" };
        write!(f, "{all}{}", Secs(self.interval))
    }
}

displayed!(ExtraGarp);

/// Seconds with as many decimals as they need.
pub(in crate::config) struct Secs(pub(in crate::config) Duration);

impl fmt::Display for Secs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, micros) = (self.0.as_secs(), self.0.subsec_micros());
        if micros == 0 {
            return write!(f, "{whole}");
        }
        let fraction = format!("{micros:06}");
        write!(f, "{whole}.{}", fraction.trim_end_matches('0'))
    }
}

/// `use_vmac`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vmac {
    /// The interface that is made. `None`: vrrp. and the VRID.
    pub name: Option<String>,
    /// Its MAC address. Five bytes: the VRID is the sixth. None: RFC 9568's.
    pub mac: Vec<u8>,
    /// `netlink_notify_msg`: the kernel tells of the change of its link-local address.
    pub netlink_notify_msg: bool,
    /// `group`: the group of the interface.
    pub group: Option<String>,
}

/// `auth_hmac`: adverts are signed with HMAC-SHA-256 (keepalived 2.4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthHmac {
    /// `key`: each with its id, 1 to 255.
    pub keys: Vec<(u8, HmacKey)>,
    /// `active_key`: the id of the key that signs. `None`: the first.
    pub active_key: Option<u8>,
    /// `anti_replay`. `None`: the time of day.
    pub anti_replay: Option<AntiReplay>,
    /// `time_window`: 1 to 300 s. `None`: three intervals, at least 5 s.
    pub time_window: Option<Duration>,
    /// `mode`. `None`: enforce.
    pub mode: Option<HmacMode>,
}

/// A key of `auth_hmac`, as the file writes it (`hex:`, `ascii:`, `file:`). Never shown, not by `Debug` either.
#[derive(Clone, PartialEq, Eq)]
pub struct HmacKey(pub String);

impl fmt::Debug for HmacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HmacKey(****)")
    }
}

super::plain::words! {
    /// `anti_replay`: what tells an old advert from a new one.
    AntiReplay {
        /// The time of day.
        Time = "time",
        /// A counter that only grows.
        Monotonic = "monotonic",
    }
}

super::plain::words! {
    /// `mode`: what becomes of adverts that are not signed well.
    HmacMode {
        /// They are dropped.
        Enforce = "enforce",
        /// They are taken and counted.
        Permissive = "permissive",
        /// The same, and own adverts are not signed.
        ReceiveOnly = "receive-only",
    }
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
    /// `home`: whether it is a mobile node's home address (RFC 6275). IPv6. Default false.
    pub home: bool,
    /// `-nodad`: whether it is used without duplicate address detection (RFC 4862 §5.4). IPv6. Default false.
    pub nodad: bool,
    /// `mngtmpaddr`: whether temporary addresses are made from it (RFC 8981). IPv6. Default false.
    pub mngtmpaddr: bool,
    /// `autojoin`: whether the kernel joins it where it is a multicast address. Default false.
    pub autojoin: bool,
    /// `preferred_lft`: seconds that it is preferred; `None`: for ever. Default 0 for an IPv6 address of 128 bits, else
    /// `None`.
    pub preferred_lft: Option<u32>,
    /// `use_vmac`: whether it is on an interface with the virtual MAC address. Default false.
    pub use_vmac: bool,
    /// `track_group`: the group of instances that its loss moves; static addresses only. Default none.
    pub track_group: Option<String>,
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
