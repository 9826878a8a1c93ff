//! `vrrp_instance`: its keywords, and the rules that hold between them.

mod environment;
mod hmac;
mod rules;

use std::{net::IpAddr, time::Duration};

pub(super) use self::{
    environment::{extra_garp, judge_strict},
    hmac::TABLE as HMAC,
    rules::{garp_count, multicast_group, version},
};
use super::{
    address::{self, Entry},
    auth::AuthDraft,
    defaults,
    diagnostic::{Draft, Drafts},
    keyword::Table,
    model::{
        AuthHmac, Authentication, ExtraGarp, Garp, InitialState, InstanceOptions, NotifyScript,
        Route, TrackInterface, Transport, UnicastPeer, VirtualAddress, Vmac, VrrpInstance,
        VrrpVersion,
    },
    notify::{Notifies, NotifyRules},
    read::{At, judge_vrrp_address},
    routes::RuleDraft,
    source::{Span, quoted},
    support::{self, judge_missing},
    tracking::{self, TrackersDraft, Watchable, Weighing},
    tree::Stmt,
    walk::walk,
};
use crate::addr::Family;

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
    /// `vrrp_strict`
    pub(super) strict: bool,
    pub(super) owner_ignore_adverts: Option<bool>,
    pub(super) notify_priority_changes: Option<bool>,
    pub(super) garp_extra_if: Option<ExtraGarp>,
}

/// What an instance's rules need to know of other blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neighbours<'a> {
    pub(super) inherited: &'a Inherited,
    /// What `global_defs` says about mail for instances.
    pub(super) smtp_alert: Option<bool>,
    pub(super) watchable: &'a Watchable,
    /// Whether it is in a `vrrp_sync_group` in which weights do not count.
    pub(super) weightless: bool,
}

impl Notifies for InstanceDraft {
    fn notify(&mut self) -> &mut Vec<NotifyScript> {
        &mut self.notify
    }
}

impl GarpDraft {
    /// What counts: the instance's word, then that of `global_defs`, then the default, which
    /// `vrrp_min_garp` changes.
    fn resolve(self, global: &Self, min_garp: bool) -> Garp {
        let (delay, repeat) = if min_garp {
            (Duration::ZERO, 1)
        } else {
            (defaults::GARP_MASTER_DELAY, defaults::GARP_MASTER_REPEAT)
        };
        // What `global_defs` says and does not say goes before what the instance says of its other batches.
        let delay = global.master_delay.unwrap_or(delay);
        let repeat = global.master_repeat.unwrap_or(repeat);
        let refresh = self.master_refresh.or(global.master_refresh);
        let refresh_repeat = self.master_refresh_repeat.or(global.master_refresh_repeat);
        let lower_prio_delay = self.lower_prio_delay.or(global.lower_prio_delay);
        let lower_prio_repeat = self.lower_prio_repeat.or(global.lower_prio_repeat);
        Garp {
            master_delay: self.master_delay.unwrap_or(delay),
            master_repeat: self.master_repeat.unwrap_or(repeat),
            master_refresh: refresh.unwrap_or(defaults::GARP_MASTER_REFRESH),
            master_refresh_repeat: refresh_repeat.unwrap_or(defaults::GARP_MASTER_REFRESH_REPEAT),
            lower_prio_delay: lower_prio_delay.unwrap_or(delay),
            lower_prio_repeat: lower_prio_repeat.unwrap_or(repeat),
        }
    }
}

/// An instance while it is read.
#[derive(Debug, Default)]
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
    auth_hmac: Option<AuthHmac>,
    source: Option<At<IpAddr>>,
    group: Option<IpAddr>,
    peers: Option<At<Vec<At<UnicastPeer>>>>,
    unicast_ttl: Option<u8>,
    check_unicast_src: Option<bool>,
    /// `no_virtual_ipaddress`: an empty list is meant.
    no_addresses: bool,
    addresses: Vec<Entry>,
    excluded: Vec<Entry>,
    garp: GarpDraft,
    trackers: TrackersDraft,
    dont_track_primary: bool,
    skip_check_adv_addr: Option<bool>,
    down_timer_adverts: Option<At<u8>>,
    lower_prio_no_advert: Option<At<bool>>,
    higher_prio_send_advert: Option<At<bool>>,
    strict: Option<bool>,
    accept: Option<At<bool>>,
    use_vmac: Option<Vmac>,
    routes: Vec<Route>,
    pub(super) rules: Vec<RuleDraft>,
    further: InstanceOptions,
    notify: Vec<NotifyScript>,
}

pub(super) static TABLE: Table<InstanceDraft> = Table {
    block: "vrrp_instance",
    keywords: &[
        rules::ROUTER,
        rules::NETWORK,
        environment::TRACK,
        NotifyRules::<InstanceDraft>::STATES,
        environment::NOTIFY,
        environment::OTHER,
        environment::PLAIN,
    ],
};

impl InstanceDraft {
    /// Reads a `vrrp_instance` block.
    pub(super) fn read(stmt: &Stmt, drafts: &mut Drafts) -> Self {
        let mut draft = Self {
            name: stmt.text(drafts).unwrap_or_default(),
            span: stmt.keyword.span,
            ..Self::default()
        };
        walk(&mut draft, stmt.body(), &TABLE, drafts);
        draft
    }

    /// The interface and VRID with the place of the latter, for the search for conflicts.
    pub(super) fn identity(&self) -> Option<(&str, u8, Span)> {
        let vrid = self.virtual_router_id.filter(|vrid| vrid.value != 0)?;
        Some((self.interface.as_deref()?, vrid.value, vrid.span))
    }

    /// The family of the first of its addresses in the file.
    pub(super) fn family(&self) -> Option<Family> {
        let addresses = self.addresses.iter();
        let peers = self.peers.iter().flat_map(|peers| &peers.value);
        let named = addresses
            .map(|entry| (entry.span(), entry.addr()))
            .chain(self.source.iter().map(|source| (source.span, source.value)))
            .chain(peers.map(|peer| (peer.span, peer.value.addr)));
        let (_, first) = named.min_by_key(|(span, _)| (span.file, span.start))?;
        Some(Family::of(first))
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
    pub(super) fn finish(mut self, around: Neighbours<'_>, drafts: &mut Drafts) -> VrrpInstance {
        let global = around.inherited;
        let interface = self.required_interface(drafts);
        let virtual_router_id = self.required_vrid(drafts);
        let family = self.keep_one_family(drafts);
        let strict = self.strict.unwrap_or(global.strict);
        let version = match family {
            Some(Family::V6) => VrrpVersion::V3,
            Some(Family::V4) | None => self.version.or(global.version).unwrap_or_default(),
        };
        let advert_int = self.resolved_advert_int(version, drafts);
        let (mut initial_state, priority) = self.state_and_priority(drafts);
        let owner = priority == defaults::PRIORITY_OWNER;
        let authentication = self.auth.finish(version, strict, drafts);
        if let Some(why) = self.not_master_at_start(strict, owner, authentication.as_ref()) {
            let span = self.state.map_or(self.span, |state| state.span);
            let message = format!("`state MASTER` is taken as BACKUP: {why}");
            drafts.push(Draft::warning(span, message));
            initial_state = InitialState::Backup;
        }
        let mut garp = self.garp.resolve(&global.garp, global.min_garp);
        if strict {
            self.be_strict(&mut garp, drafts);
        }
        let (preempt, preempt_delay) = self.preemption(initial_state, priority, drafts);
        let transport = self.transport(global, drafts);
        let (virtual_ipaddress, virtual_ipaddress_excluded) = self.addresses(&interface, drafts);
        if virtual_ipaddress.is_empty() && !self.no_addresses {
            self.lacks_addresses(strict || version == VrrpVersion::V3, drafts);
        }
        let weighing = match (owner, around.weightless) {
            (true, _) => Weighing::Owner,
            (false, true) => Weighing::Member,
            (false, false) => Weighing::Plain,
        };
        let track_interface = self.tracked(&interface, weighing, drafts);
        let whose = format!("vrrp_instance {}", self.shown());
        let trackers = std::mem::take(&mut self.trackers);
        let trackers = trackers.finish(&whose, around.watchable, weighing, drafts);
        let later_or = |own: Option<At<bool>>, other| own.map_or(other, |own| own.value);
        VrrpInstance {
            initial_state,
            virtual_router_id,
            priority,
            version,
            advert_int,
            preempt,
            preempt_delay,
            authentication,
            source: self.source.map(|source| source.value),
            transport,
            virtual_ipaddress,
            virtual_ipaddress_excluded,
            garp,
            track_interface,
            interface,
            dont_track_primary: self.dont_track_primary,
            skip_check_adv_addr: (self.skip_check_adv_addr).unwrap_or(global.skip_check_adv_addr),
            down_timer_adverts: (self.down_timer_adverts.map(|adverts| adverts.value))
                .or_else(|| global.down_timer_adverts.filter(|_| !strict))
                .unwrap_or(defaults::DOWN_TIMER_ADVERTS),
            lower_prio_no_advert: later_or(
                self.lower_prio_no_advert,
                strict || global.lower_prio_no_advert,
            ),
            higher_prio_send_advert: later_or(
                self.higher_prio_send_advert,
                !strict && global.higher_prio_send_advert,
            ),
            notify: self.notify,
            strict_mode: strict,
            accept: later_or(self.accept, !strict || owner),
            no_virtual_ipaddress: self.no_addresses,
            auth_hmac: self.auth_hmac,
            use_vmac: self.use_vmac,
            trackers,
            virtual_routes: self.routes,
            virtual_rules: self.rules.into_iter().map(RuleDraft::finish).collect(),
            further: InstanceOptions {
                garp_extra_if: self.further.garp_extra_if.or(global.garp_extra_if),
                owner_ignore_adverts: (self.further.owner_ignore_adverts)
                    .or(global.owner_ignore_adverts),
                notify_priority_changes: (self.further.notify_priority_changes)
                    .or(global.notify_priority_changes),
                smtp_alert: self.further.smtp_alert.or(around.smtp_alert),
                ..self.further
            },
            name: self.name,
        }
    }

    /// Why `state MASTER` cannot be, if so.
    fn not_master_at_start(
        &self,
        strict: bool,
        owner: bool,
        authentication: Option<&Authentication>,
    ) -> Option<&'static str> {
        let said = self
            .state
            .is_some_and(|state| state.value == InitialState::Master);
        match authentication {
            _ if !said || owner => None,
            _ if strict => Some("strict mode has it for priority 255 alone"),
            Some(Authentication::Ah(_)) => {
                Some("auth_type AH must hear the others' counters first")
            }
            Some(Authentication::Pass(_)) | None => None,
        }
    }

    /// The rules of strict mode that change what is configured; without them the node would not keep to the RFC.
    fn be_strict(&mut self, garp: &mut Garp, drafts: &mut Drafts) {
        let mut drop = |what: &str, span: Span| {
            let message = format!("{what} is not of strict mode; it is ignored");
            drafts.push(Draft::warning(span, message));
        };
        if let Some(At { span, .. }) = self.preempt_delay.take_if(|delay| !delay.value.is_zero()) {
            drop("preempt_delay", span);
        }
        let usual = |adverts: &mut At<u8>| adverts.value != defaults::DOWN_TIMER_ADVERTS;
        if let Some(At { span, .. }) = self.down_timer_adverts.take_if(usual) {
            drop("down_timer_adverts other than 3", span);
        }
        if let Some(At { span, .. }) = self.lower_prio_no_advert.take_if(|set| !set.value) {
            drop("lower_prio_no_advert off", span);
        }
        if let Some(At { span, .. }) = self.higher_prio_send_advert.take_if(|set| set.value) {
            drop("higher_prio_send_advert", span);
        }
        if let Some(At { span, .. }) = self.accept.take_if(|accept| accept.value) {
            drop("accept", span);
        }
        (garp.lower_prio_delay, garp.lower_prio_repeat) = (Duration::ZERO, 0);
    }

    /// Family of the first address that the block names; what is of the other family is dropped.
    fn keep_one_family(&mut self, drafts: &mut Drafts) -> Option<Family> {
        let family = self.family()?;
        let mut fits = |addr: IpAddr, span: Span| {
            let fits = Family::of(addr) == family;
            if !fits {
                let message =
                    format!("{addr} is ignored: the instance's first address is {family}");
                let hint = "one family an instance; virtual_ipaddress_excluded takes both";
                drafts.push(Draft::warning(span, message).hint(hint));
            }
            fits
        };
        self.addresses
            .retain(|entry| fits(entry.addr(), entry.span()));
        self.source
            .take_if(|source| !fits(source.value, source.span));
        if let Some(peers) = &mut self.peers {
            peers.value.retain(|peer| fits(peer.value.addr, peer.span));
        }
        for entry in self.addresses.iter().chain(&self.excluded) {
            entry.judge_family(drafts);
        }
        if let Some(source) = self.source {
            judge_vrrp_address(source.value, source.span, drafts);
        }
        for peer in self.peers.iter().flat_map(|peers| &peers.value) {
            judge_vrrp_address(peer.value.addr, peer.span, drafts);
        }
        Some(family)
    }

    /// keepalived ends where version 3 or strict mode has no addresses.
    fn lacks_addresses(&self, fatal: bool, drafts: &mut Drafts) {
        let message = format!("vrrp_instance {} has no virtual_ipaddress", self.shown());
        drafts.push(if fatal {
            let hint = "version 3 and strict mode need one; no_virtual_ipaddress means none";
            Draft::error(self.span, message).hint(hint)
        } else {
            Draft::warning(self.span, message)
        });
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
                    peers: peers.into_iter().map(|peer| peer.value).collect(),
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
    ) -> (Vec<VirtualAddress>, Vec<VirtualAddress>) {
        let mut listed = std::mem::take(&mut self.addresses);
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

    fn tracked(
        &mut self,
        interface: &str,
        weighing: Weighing,
        drafts: &mut Drafts,
    ) -> Vec<TrackInterface> {
        let mut found = Vec::new();
        for At { mut value, span } in std::mem::take(&mut self.trackers.interfaces) {
            if value.interface == interface {
                let message = "the instance's own interface is tracked anyway";
                let hint = "the entry is ignored; dont_track_primary stops the tracking";
                drafts.push(Draft::warning(span, message).hint(hint));
                continue;
            }
            let what = ("track_interface", value.interface.as_str());
            let Some(weight) = tracking::weigh(value.weight.into(), weighing, what, span, drafts)
            else {
                continue;
            };
            value.weight = i16::try_from(weight).unwrap_or_default();
            let what = format!("`track_interface` of {}", quoted(&value.interface));
            let missing = "its loss costs priority or means FAULT";
            judge_missing(support::TRACK_INTERFACE, &what, missing, span, drafts);
            found.push(value);
        }
        found
    }
}
