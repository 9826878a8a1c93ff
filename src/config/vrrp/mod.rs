//! `vrrp_instance`: its keywords, and the rules that hold between them.

mod rules;

use std::{net::IpAddr, time::Duration};

pub(super) use self::rules::{garp_count, multicast_group, version};
use super::{
    address::{self, Entry},
    auth::AuthDraft,
    defaults,
    diagnostic::{Draft, Drafts},
    keyword::Table,
    model::{
        Garp, InitialState, NotifyScript, TrackInterface, Transport, UnicastPeer, VrrpInstance,
        VrrpVersion,
    },
    read::At,
    source::{Span, quoted},
    support::{self, judge},
    tree::Stmt,
    walk::walk,
};

/// `garp_*` as said, in an instance or in `global_defs`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GarpDraft {
    pub(super) master_delay: Option<Duration>,
    pub(super) master_repeat: Option<u32>,
    pub(super) master_refresh: Option<Duration>,
    pub(super) master_refresh_repeat: Option<u32>,
    pub(super) lower_prio_delay: Option<Duration>,
    pub(super) lower_prio_repeat: Option<u32>,
}

/// Defaults of `vrrp_instance` that `global_defs` changes.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    pub(super) version: Option<VrrpVersion>,
    pub(super) group: Option<IpAddr>,
    pub(super) garp: GarpDraft,
    pub(super) min_garp: bool,
    pub(super) down_timer_adverts: Option<u8>,
    pub(super) lower_prio_no_advert: bool,
    pub(super) higher_prio_send_advert: bool,
    pub(super) check_unicast_src: bool,
    pub(super) skip_check_adv_addr: bool,
}

impl GarpDraft {
    /// What counts: the instance's word, then that of `global_defs`, then the default, which
    /// `vrrp_min_garp` changes.
    fn resolve(self, global: &Self, min_garp: bool) -> Garp {
        let pick = |plain, min| if min_garp { min } else { plain };
        let master_delay = self.master_delay.or(global.master_delay);
        let master_delay =
            master_delay.unwrap_or_else(|| pick(defaults::GARP_MASTER_DELAY, Duration::ZERO));
        let master_repeat = self.master_repeat.or(global.master_repeat);
        let master_repeat = master_repeat.unwrap_or(if min_garp {
            1
        } else {
            defaults::GARP_MASTER_REPEAT
        });
        let refresh = self.master_refresh.or(global.master_refresh);
        let refresh_repeat = self.master_refresh_repeat.or(global.master_refresh_repeat);
        let lower_prio_delay = self.lower_prio_delay.or(global.lower_prio_delay);
        let lower_prio_repeat = self.lower_prio_repeat.or(global.lower_prio_repeat);
        Garp {
            master_delay,
            master_repeat,
            master_refresh: refresh.unwrap_or(defaults::GARP_MASTER_REFRESH),
            master_refresh_repeat: refresh_repeat.unwrap_or(defaults::GARP_MASTER_REFRESH_REPEAT),
            lower_prio_delay: lower_prio_delay.unwrap_or(master_delay),
            lower_prio_repeat: lower_prio_repeat.unwrap_or(master_repeat),
        }
    }
}

/// An instance while it is read.
#[derive(Debug)]
pub(super) struct InstanceDraft {
    pub(super) name: String,
    /// The keyword `vrrp_instance`, for what is missing.
    span: Span,
    state: Option<At<InitialState>>,
    interface: Option<String>,
    virtual_router_id: Option<At<u8>>,
    priority: Option<u8>,
    version: Option<VrrpVersion>,
    advert_int: Option<At<Duration>>,
    preempt: Option<At<bool>>,
    preempt_delay: Option<At<Duration>>,
    auth: AuthDraft,
    source: Option<IpAddr>,
    group: Option<IpAddr>,
    peers: Option<At<Vec<UnicastPeer>>>,
    unicast_ttl: Option<u8>,
    check_unicast_src: Option<bool>,
    /// `no_virtual_ipaddress`: an empty list is meant.
    no_addresses: bool,
    addresses: Vec<Entry>,
    excluded: Vec<Entry>,
    garp: GarpDraft,
    track_interface: Vec<At<TrackInterface>>,
    dont_track_primary: bool,
    skip_check_adv_addr: Option<bool>,
    down_timer_adverts: Option<u8>,
    lower_prio_no_advert: Option<bool>,
    higher_prio_send_advert: Option<bool>,
    notify: Vec<NotifyScript>,
}

pub(super) static TABLE: Table<InstanceDraft> = Table {
    block: "vrrp_instance",
    keywords: &[rules::ROUTER, rules::NETWORK, rules::OTHER],
};

impl InstanceDraft {
    /// Reads a `vrrp_instance` block.
    pub(super) fn read(stmt: &Stmt, drafts: &mut Drafts) -> Self {
        let name = stmt.text(drafts).unwrap_or_default();
        let mut draft = Self {
            name,
            span: stmt.keyword.span,
            state: None,
            interface: None,
            virtual_router_id: None,
            priority: None,
            version: None,
            advert_int: None,
            preempt: None,
            preempt_delay: None,
            auth: AuthDraft::default(),
            source: None,
            group: None,
            peers: None,
            unicast_ttl: None,
            check_unicast_src: None,
            no_addresses: false,
            addresses: Vec::new(),
            excluded: Vec::new(),
            garp: GarpDraft::default(),
            track_interface: Vec::new(),
            dont_track_primary: false,
            skip_check_adv_addr: None,
            down_timer_adverts: None,
            lower_prio_no_advert: None,
            higher_prio_send_advert: None,
            notify: Vec::new(),
        };
        walk(&mut draft, stmt.body(), &TABLE, drafts);
        draft
    }

    /// The interface and VRID with the place of the latter, for the search for conflicts.
    pub(super) fn identity(&self) -> Option<(&str, u8, Span)> {
        let vrid = self.virtual_router_id.filter(|vrid| vrid.value != 0)?;
        Some((self.interface.as_deref()?, vrid.value, vrid.span))
    }

    /// Every virtual address with its interface and its place in the file.
    pub(super) fn places(&self) -> impl Iterator<Item = ((IpAddr, String), Span)> + '_ {
        let interface = self.interface.as_deref().unwrap_or_default();
        let entries = self.addresses.iter().chain(&self.excluded);
        entries.map(move |entry| (entry.place(interface), entry.span()))
    }

    /// Where the instance starts in the file.
    pub(super) const fn span(&self) -> Span {
        self.span
    }

    /// Applies what keepalived applies after parsing, and resolves every default.
    pub(super) fn finish(mut self, global: &Inherited, drafts: &mut Drafts) -> VrrpInstance {
        let interface = self.required_interface(drafts);
        let virtual_router_id = self.required_vrid(drafts);
        let version = self.version.or(global.version).unwrap_or_default();
        let advert_int = self.resolved_advert_int(version, drafts);
        let (initial_state, priority) = self.state_and_priority(drafts);
        let (preempt, preempt_delay) = self.preemption(initial_state, priority, drafts);
        let authentication = self.auth.finish(version, drafts);
        let transport = self.transport(global, drafts);
        let (virtual_ipaddress, virtual_ipaddress_excluded) = self.addresses(&interface, drafts);
        let track_interface = self.tracked(&interface, drafts);
        VrrpInstance {
            name: self.name,
            initial_state,
            virtual_router_id,
            priority,
            version,
            advert_int,
            preempt,
            preempt_delay,
            authentication,
            source: self.source,
            transport,
            virtual_ipaddress,
            virtual_ipaddress_excluded,
            garp: self.garp.resolve(&global.garp, global.min_garp),
            track_interface,
            interface,
            dont_track_primary: self.dont_track_primary,
            skip_check_adv_addr: (self.skip_check_adv_addr).unwrap_or(global.skip_check_adv_addr),
            down_timer_adverts: (self.down_timer_adverts)
                .or(global.down_timer_adverts)
                .unwrap_or(defaults::DOWN_TIMER_ADVERTS),
            lower_prio_no_advert: (self.lower_prio_no_advert)
                .unwrap_or(global.lower_prio_no_advert),
            higher_prio_send_advert: (self.higher_prio_send_advert)
                .unwrap_or(global.higher_prio_send_advert),
            notify: self.notify,
        }
    }

    fn required_interface(&self, drafts: &mut Drafts) -> String {
        match &self.interface {
            Some(name) => name.clone(),
            None => {
                let message = format!("vrrp_instance {} has no interface", self.shown());
                drafts.push(Draft::error(self.span, message));
                String::new()
            }
        }
    }

    fn required_vrid(&self, drafts: &mut Drafts) -> u8 {
        match self.virtual_router_id {
            Some(vrid) => vrid.value,
            None => {
                let message = format!("vrrp_instance {} has no virtual_router_id", self.shown());
                let hint = "1 to 255, the same on every node and no other's";
                drafts.push(Draft::error(self.span, message).hint(hint));
                0
            }
        }
    }

    fn shown(&self) -> String {
        quoted(&self.name)
    }

    fn resolved_advert_int(&self, version: VrrpVersion, drafts: &mut Drafts) -> Duration {
        let Some(At { value, span }) = self.advert_int else {
            return defaults::ADVERT_INT;
        };
        // Version 2 has a byte of seconds on the wire, version 3 twelve bits of centiseconds.
        let (unit, most) = match version {
            VrrpVersion::V2 => (1_000_000, 255),
            VrrpVersion::V3 => (10_000, 4_095),
        };
        let units = ((value.as_micros() + unit / 2) / unit).clamp(1, most);
        let micros = u64::try_from(units * unit).unwrap_or(u64::MAX);
        let rounded = Duration::from_micros(micros);
        if rounded != value {
            let (was, is) = (value.as_secs_f64(), rounded.as_secs_f64());
            let message = format!("advert_int {was} is rounded to {is} s");
            let hint = match version {
                VrrpVersion::V2 => "VRRP version 2 counts whole seconds (RFC 3768 §5.3.7)",
                VrrpVersion::V3 => "VRRP version 3 counts to 40.95 s by 0.01 (RFC 9568 §5.2.7)",
            };
            drafts.push(Draft::warning(span, message).hint(hint));
        }
        rounded
    }

    fn state_and_priority(&self, drafts: &mut Drafts) -> (InitialState, u8) {
        match (self.state, self.priority) {
            (
                Some(At {
                    value: InitialState::Backup,
                    span,
                }),
                Some(defaults::PRIORITY_OWNER),
            ) => {
                let message = "priority 255 overrides `state BACKUP`: this node starts as MASTER";
                let hint = "255 = address owner (RFC 9568 §6.4.1)";
                drafts.push(Draft::warning(span, message).hint(hint));
                (InitialState::Master, defaults::PRIORITY_OWNER)
            }
            (Some(state), Some(priority)) => (state.value, priority),
            (
                Some(At {
                    value: InitialState::Master,
                    span,
                }),
                None,
            ) => {
                let message = "state MASTER without a priority makes the priority 255";
                let hint = "255 = address owner: this node takes over at once, always";
                drafts.push(Draft::warning(span, message).hint(hint));
                (InitialState::Master, defaults::PRIORITY_OWNER)
            }
            (Some(state), None) => (state.value, defaults::PRIORITY),
            (None, Some(defaults::PRIORITY_OWNER)) => {
                (InitialState::Master, defaults::PRIORITY_OWNER)
            }
            (None, priority) => (InitialState::Backup, priority.unwrap_or(defaults::PRIORITY)),
        }
    }

    fn preemption(
        &self,
        initial: InitialState,
        priority: u8,
        drafts: &mut Drafts,
    ) -> (bool, Duration) {
        let master = initial == InitialState::Master;
        let owner = priority == defaults::PRIORITY_OWNER;
        let mut preempt = self.preempt.is_none_or(|preempt| preempt.value);
        if let (true, false, Some(At { span, .. })) = (master, preempt, self.preempt) {
            let reason = if owner {
                "priority 255"
            } else {
                "`state MASTER`"
            };
            let message = format!("{reason} overrides nopreempt: this node will preempt");
            let hint = "nopreempt needs `state BACKUP` (on every node) and a priority below 255";
            drafts.push(Draft::warning(span, message).hint(hint));
            preempt = true;
        }
        let mut delay = self
            .preempt_delay
            .map_or(Duration::ZERO, |delay| delay.value);
        if let Some(At { span, .. }) = self.preempt_delay.filter(|delay| !delay.value.is_zero()) {
            let reason = match (owner, master) {
                (true, _) => "priority 255",
                (false, true) => "`state MASTER`",
                (false, false) => "nopreempt",
            };
            if master || !preempt {
                let message = format!("preempt_delay has no effect with {reason}");
                drafts.push(Draft::warning(span, message));
                delay = Duration::ZERO;
            }
        }
        (preempt, delay)
    }

    fn transport(&mut self, global: &Inherited, drafts: &mut Drafts) -> Transport {
        if let Some(At { value: peers, span }) = self.peers.take() {
            if !peers.is_empty() {
                return Transport::Unicast {
                    peers,
                    ttl: self.unicast_ttl.unwrap_or(defaults::UNICAST_TTL),
                    check_source: self.check_unicast_src.unwrap_or(global.check_unicast_src),
                };
            }
            let message = "unicast_peer is empty, so adverts go to the multicast group";
            drafts.push(Draft::warning(span, message));
        }
        let group = self.group.or(global.group);
        Transport::Multicast {
            group: group.unwrap_or(IpAddr::V4(defaults::VRRP_GROUP)),
        }
    }

    fn addresses(
        &mut self,
        interface: &str,
        drafts: &mut Drafts,
    ) -> (
        Vec<super::model::VirtualAddress>,
        Vec<super::model::VirtualAddress>,
    ) {
        let mut listed = std::mem::take(&mut self.addresses);
        if listed.is_empty() && !self.no_addresses {
            let message = format!("vrrp_instance {} has no virtual_ipaddress", self.shown());
            drafts.push(Draft::warning(self.span, message));
        }
        address::drop_repeats(&mut listed, &[], drafts);
        let mut excluded = Vec::new();
        if listed.len() > defaults::ADVERT_ADDRESSES {
            excluded = listed.split_off(defaults::ADVERT_ADDRESSES);
            let message = format!(
                "an advert lists {} addresses; this one and those after it are excluded",
                defaults::ADVERT_ADDRESSES
            );
            drafts.push(Draft::warning(excluded[0].span(), message));
        }
        excluded.append(&mut self.excluded);
        address::drop_repeats(&mut excluded, &listed, drafts);
        let resolve = |list: Vec<Entry>| list.into_iter().map(|e| e.resolve(interface)).collect();
        (resolve(listed), resolve(excluded))
    }

    fn tracked(&mut self, interface: &str, drafts: &mut Drafts) -> Vec<TrackInterface> {
        let mut tracked = std::mem::take(&mut self.track_interface);
        tracked.retain(|entry| {
            let own = entry.value.interface == interface;
            if own {
                let message = "the instance's own interface is tracked anyway";
                let hint = "the entry is ignored; dont_track_primary stops the tracking";
                drafts.push(Draft::warning(entry.span, message).hint(hint));
            } else {
                let what = format!("`track_interface` of {}", quoted(&entry.value.interface));
                judge(support::TRACK_INTERFACE, &what, entry.span, drafts);
            }
            !own
        });
        tracked.into_iter().map(|entry| entry.value).collect()
    }
}
