//! What an instance is told: the values of a `vrrp_instance` block, with units.

use std::{fmt, net::Ipv4Addr, time::Duration};

use crate::wire::vrrp;

/// One `vrrp_instance`. [`Settings::new`] gives keepalived's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Name of the instance, for messages.
    pub name: String,
    /// The interface, as the caller numbers the names in its configuration: the number stays while
    /// the interface of that name goes, comes and is another. With the VRID it is the key by which
    /// received adverts find their instance.
    pub interface: u32,
    /// Name of the interface, for messages. [`Settings::new`] makes one of its number.
    pub interface_name: String,
    /// Whether the instance is in FAULT while its interface is down. Default true;
    /// `dont_track_primary` makes it false.
    pub track_link: bool,
    /// InstanceOptions interfaces without which the instance is in FAULT: those that virtual addresses are
    /// on. Numbers and names as of [`interface`](Self::interface). Default none.
    pub further_interfaces: Vec<(u32, String)>,
    /// `virtual_router_id`, 1 to 255.
    pub vrid: u8,
    /// `priority`, 1 to 255, default 100; 255 is the address owner. RFC 3768 §5.3.4.
    pub priority: u8,
    /// `advert_int`: whole seconds, 1 to 255, default 1. RFC 3768 §5.3.7.
    pub advert_interval: Duration,
    /// `preempt` (default) or `nopreempt`: whether a BACKUP lets a MASTER of lower priority be.
    pub preempt: bool,
    /// `preempt_delay`, 0 to 1000 s, default 0: how long a MASTER of lower priority is let be.
    pub preempt_delay: Duration,
    /// `auth_type PASS`: `auth_pass` padded with zeroes to eight bytes. `None` by default.
    pub password: Option<[u8; 8]>,
    /// The addresses in adverts (`virtual_ipaddress`), in the order of the configuration.
    pub addresses: Vec<Ipv4Addr>,
    /// The source address of adverts, which also breaks ties of priority. `None` while the
    /// interface has no address: the instance is in FAULT until there is one.
    pub primary: Option<Ipv4Addr>,
    /// Whether `primary` was configured (`mcast_src_ip`, `unicast_src_ip`) and so does not follow
    /// the interface, see [`Router::handle_primary`](super::Router::handle_primary).
    pub primary_fixed: bool,
    /// Whom adverts go to. Default: the group 224.0.0.18.
    pub transport: Transport,
    /// The `garp_*` keywords.
    pub garp: GarpSettings,
    /// `down_timer_adverts`, 1 to 100, default 3: intervals of silence until a MASTER is dead.
    /// Other than 3 is not RFC 3768 §6.1.
    pub down_timer_adverts: u8,
    /// `skip_check_adv_addr`, default off: do not compare the addresses in adverts of the router
    /// that is MASTER already.
    pub skip_check_addresses: bool,
    /// `vrrp_startup_delay`, default 0: time in INIT before the instance takes part.
    pub startup_delay: Duration,
    /// `lower_prio_no_advert`, default off: a MASTER does not answer a lower priority by an
    /// advert.
    pub lower_prio_no_advert: bool,
    /// `higher_prio_send_advert`, default off: a MASTER that gives way sends one last advert.
    pub higher_prio_send_advert: bool,
}

impl Settings {
    /// An instance with keepalived's defaults: priority 100, 1 s, preempt, multicast.
    pub fn new(name: &str, interface: u32, vrid: u8, primary: Option<Ipv4Addr>) -> Self {
        Self {
            name: name.to_owned(),
            interface,
            interface_name: format!("interface {interface}"),
            track_link: true,
            further_interfaces: Vec::new(),
            vrid,
            priority: 100,
            advert_interval: Duration::from_secs(1),
            preempt: true,
            preempt_delay: Duration::ZERO,
            password: None,
            addresses: Vec::new(),
            primary,
            primary_fixed: false,
            transport: Transport::Multicast { group: vrrp::GROUP },
            garp: GarpSettings::default(),
            down_timer_adverts: 3,
            skip_check_addresses: false,
            startup_delay: Duration::ZERO,
            lower_prio_no_advert: false,
            higher_prio_send_advert: false,
        }
    }

    /// What the machine relies on. The configuration says the same with line and column.
    ///
    /// # Errors
    /// The first value that cannot be.
    pub fn check(&self) -> Result<(), SettingsError> {
        let seconds = self.advert_interval.as_secs();
        if self.vrid == 0 {
            Err(SettingsError::Vrid)
        } else if self.priority == 0 {
            Err(SettingsError::Priority)
        } else if self.advert_interval.subsec_nanos() != 0 || !(1..=255).contains(&seconds) {
            Err(SettingsError::AdvertInterval)
        } else if self.down_timer_adverts == 0 {
            Err(SettingsError::DownTimerAdverts)
        } else {
            Ok(())
        }
    }

    /// The interval as version 2 carries it.
    pub(super) fn interval_secs(&self) -> u8 {
        u8::try_from(self.advert_interval.as_secs()).unwrap_or(u8::MAX)
    }

    /// Skew_Time of version 2: (256 - priority) / 256 seconds, whatever the interval. RFC 3768 §6.1.
    pub(super) fn skew(priority: u8) -> Duration {
        Duration::from_secs(1) * (256 - u32::from(priority)) / 256
    }

    /// Master_Down_Interval: `down_timer_adverts` intervals and the skew. RFC 3768 §6.1.
    pub(super) fn master_down(&self, priority: u8) -> Duration {
        self.advert_interval * u32::from(self.down_timer_adverts) + Self::skew(priority)
    }
}

/// Whom adverts go to and whose are heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// All routers of the link.
    Multicast {
        /// `vrrp_mcast_group4`, default 224.0.0.18.
        group: Ipv4Addr,
    },
    /// `unicast_peer`: each peer gets its own copy.
    Unicast {
        /// The peers.
        peers: Vec<Ipv4Addr>,
        /// `unicast_ttl`, default 255.
        ttl: u8,
        /// `check_unicast_src`: refuse adverts whose source is not a peer.
        check_source: bool,
    },
}

/// When a MASTER announces its addresses by gratuitous ARP, and how often at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GarpSettings {
    /// `garp_master_delay`, default 5 s: time from becoming MASTER to the second set; 0: none.
    pub master_delay: Duration,
    /// `garp_master_repeat`, default 5: rounds in each set on becoming MASTER.
    pub master_repeat: u8,
    /// `garp_master_refresh`, default 0 (off): time between sets while MASTER.
    pub master_refresh: Duration,
    /// `garp_master_refresh_repeat`, default 1: rounds in such a set.
    pub master_refresh_repeat: u8,
    /// `garp_lower_prio_delay`, default 5 s: time from another router's advert to the second set
    /// that answers it; 0: none.
    pub lower_prio_delay: Duration,
    /// `garp_lower_prio_repeat`, default 5: rounds in a set that answers another router's
    /// advert; 0: such adverts are not answered by gratuitous ARP.
    pub lower_prio_repeat: u8,
}

impl Default for GarpSettings {
    fn default() -> Self {
        Self {
            master_delay: Duration::from_secs(5),
            master_repeat: 5,
            master_refresh: Duration::ZERO,
            master_refresh_repeat: 1,
            lower_prio_delay: Duration::from_secs(5),
            lower_prio_repeat: 5,
        }
    }
}

/// Why an instance cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingsError {
    /// VRID 0.
    Vrid,
    /// Priority 0, which says "no longer MASTER" on the wire.
    Priority,
    /// Not a whole number of seconds from 1 to 255, all that version 2 can say.
    AdvertInterval,
    /// No interval of silence at all.
    DownTimerAdverts,
    /// This instance has the interface and VRID already.
    Duplicate(String),
    /// A running instance cannot change its interface or VRID.
    Moved,
    /// There is no such instance.
    Unknown,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vrid => f.write_str("virtual_router_id must be 1 to 255"),
            Self::Priority => f.write_str("priority must be 1 to 255"),
            Self::AdvertInterval => {
                f.write_str("advert_int must be 1 to 255 whole seconds in version 2")
            }
            Self::DownTimerAdverts => f.write_str("down_timer_adverts must be 1 to 100"),
            Self::Duplicate(other) => write!(f, "{other} uses this VRID on this interface"),
            Self::Moved => f.write_str("interface and VRID of an instance are fixed"),
            Self::Unknown => f.write_str("no such instance"),
        }
    }
}

impl std::error::Error for SettingsError {}
