//! `vrrp_instance`: its keywords, and the rules that hold between them.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use super::{
    address::{self, Entry},
    auth::AuthDraft,
    defaults,
    diagnostic::{Draft, Drafts, quoted},
    global::Inherited,
    lexer::Word,
    model::{
        Garp, InitialState, NotifyEvent, NotifyScript, TrackInterface, Transport, UnicastPeer,
        VrrpInstance, VrrpVersion,
    },
    source::Span,
    support::{self, Block},
    tree::Stmt,
    walk::{self, At, Rule, add_script, block, judge, line, lines, name},
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

/// `version`, `vrrp_version`.
pub(super) fn version(stmt: &Stmt, drafts: &mut Drafts) -> Option<VrrpVersion> {
    let word = stmt.one(drafts)?;
    let version = match word.text.as_str() {
        "2" => VrrpVersion::V2,
        "3" => VrrpVersion::V3,
        _ => {
            let message = format!("{} is not a version of VRRP", quoted(&word.text));
            drafts.push(Draft::error(word.span, message).hint("2 or 3"));
            return None;
        }
    };
    let verdict = support::vrrp_version(version);
    judge(
        verdict,
        &format!("VRRP version {}", word.text),
        word.span,
        drafts,
    );
    Some(version)
}

/// `vrrp_mcast_group4`, `mcast_dst_ip`.
pub(super) fn multicast_group(stmt: &Stmt, drafts: &mut Drafts) -> Option<IpAddr> {
    let group = stmt.vrrp_address(drafts)?;
    if !group.is_multicast() {
        let message = format!("{group} is not a multicast address");
        drafts.push(Draft::error(stmt.args[0].span, message));
        return None;
    }
    Some(group)
}

/// `garp_*_repeat`: keepalived makes 0 a 1; more than [`defaults::GARP_MOST`] is our own limit.
pub(super) fn garp_count(stmt: &Stmt, drafts: &mut Drafts) -> Option<u32> {
    if stmt.args.first().is_some_and(|word| word.text == "0") {
        let message = format!("{} 0 is taken as 1", stmt.keyword.text);
        drafts.push(Draft::warning(stmt.args[0].span, message));
        return Some(1);
    }
    let count = stmt.number::<u32>(&defaults::GARP_COUNT, drafts)?;
    let most = defaults::GARP_MOST;
    if count > most {
        let message = format!("{} {count} is taken as {most}", stmt.keyword.text);
        drafts.push(Draft::warning(stmt.args[0].span, message));
    }
    Some(count.min(most))
}

/// The name of an interface that the kernel could have.
pub(super) fn interface(word: &Word, drafts: &mut Drafts) -> Option<String> {
    let name = &word.text;
    let fits = (1..=defaults::INTERFACE_NAME_BYTES).contains(&name.len());
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if !fits || name.contains(bad) || name == "." || name == ".." {
        let message = format!("{} cannot be the name of an interface", quoted(name));
        let hint = format!("1 to {} bytes", defaults::INTERFACE_NAME_BYTES);
        drafts.push(Draft::error(word.span, message).hint(hint));
        return None;
    }
    Some(name.clone())
}

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
        let rules = [RULES, NETWORK_RULES, OTHER_RULES];
        walk::walk(&mut draft, stmt.body(), Block::VrrpInstance, &rules, drafts);
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

static RULES: &[Rule<InstanceDraft>] = &[
    lines("state", |draft, stmt, drafts| {
        let Some(word) = stmt.one(drafts) else { return };
        let value = match word.text.as_str() {
            "MASTER" => InitialState::Master,
            "BACKUP" => InitialState::Backup,
            other => {
                let message = format!("{} is not a state", quoted(other));
                drafts.push(Draft::error(word.span, message).hint("MASTER or BACKUP"));
                return;
            }
        };
        if draft.state.is_some_and(|state| state.value != value) {
            let message = "a second state that differs from the first";
            drafts.push(Draft::error(word.span, message));
            return;
        }
        draft.state = Some(At {
            value,
            span: word.span,
        });
    }),
    line("interface", |draft, stmt, drafts| {
        let Some(word) = stmt.one(drafts) else { return };
        if word.text == "lo" {
            let message = "VRRP cannot run on the loopback interface";
            drafts.push(Draft::error(word.span, message));
        }
        draft.interface = interface(word, drafts);
    }),
    line("virtual_router_id", |draft, stmt, drafts| {
        let value = stmt.number(&defaults::VRID, drafts);
        // A VRID that was said, if wrongly, is not missing as well.
        let span = stmt
            .args
            .first()
            .map_or(stmt.keyword.span, |word| word.span);
        let value = value.unwrap_or_default();
        draft.virtual_router_id = Some(At { value, span });
    }),
    line("priority", |draft, stmt, drafts| {
        // keepalived takes 100 in the place of a priority out of range.
        let value = stmt.number(&defaults::PRIORITIES, drafts);
        draft.priority = value.or(Some(defaults::PRIORITY));
    }),
    line("version", |draft, stmt, drafts| {
        draft.version = version(stmt, drafts);
    }),
    line("advert_int", |draft, stmt, drafts| {
        let Some(value) = stmt.time(&defaults::ADVERT_INTERVAL, drafts) else {
            return;
        };
        draft.advert_int = Some(At {
            value,
            span: stmt.args[0].span,
        });
    }),
    line("nopreempt", |draft, stmt, drafts| {
        let value = !stmt.flag(drafts);
        draft.preempt = Some(At {
            value,
            span: stmt.keyword.span,
        });
    }),
    line("preempt", |draft, stmt, drafts| {
        let value = stmt.flag(drafts);
        draft.preempt = Some(At {
            value,
            span: stmt.keyword.span,
        });
    }),
    line("preempt_delay", |draft, stmt, drafts| {
        let value = stmt.time(&defaults::PREEMPT_DELAY, drafts);
        draft.preempt_delay = value.map(|value| At {
            value,
            span: stmt.keyword.span,
        });
    }),
    block("authentication", |draft, stmt, drafts| {
        draft.auth.read(stmt, drafts);
    }),
];

static NETWORK_RULES: &[Rule<InstanceDraft>] = &[
    block("virtual_ipaddress", |draft, stmt, drafts| {
        address::entries(&mut draft.addresses, stmt, drafts);
    }),
    block("virtual_ipaddress_excluded", |draft, stmt, drafts| {
        address::entries(&mut draft.excluded, stmt, drafts);
    }),
    line("unicast_src_ip", |draft, stmt, drafts| {
        draft.source = stmt.vrrp_address(drafts);
    }),
    line("mcast_src_ip", |draft, stmt, drafts| {
        draft.source = stmt.vrrp_address(drafts);
    }),
    line("mcast_dst_ip", |draft, stmt, drafts| {
        draft.group = multicast_group(stmt, drafts);
    }),
    block("unicast_peer", |draft, stmt, drafts| {
        let mut peers = draft
            .peers
            .take()
            .map_or_else(Vec::new, |peers| peers.value);
        for entry in stmt.body() {
            peers.extend(unicast_peer(entry, drafts));
        }
        draft.peers = Some(At {
            value: peers,
            span: stmt.keyword.span,
        });
    }),
    line("unicast_ttl", |draft, stmt, drafts| {
        draft.unicast_ttl = stmt.number(&defaults::TTL, drafts);
    }),
    line("check_unicast_src", |draft, stmt, drafts| {
        draft.check_unicast_src = Some(stmt.flag(drafts));
    }),
    block("track_interface", |draft, stmt, drafts| {
        for entry in stmt.body() {
            draft.track_interface.extend(track_entry(entry, drafts));
        }
    }),
    line("dont_track_primary", |draft, stmt, drafts| {
        draft.dont_track_primary = stmt.flag(drafts);
    }),
    line("skip_check_adv_addr", |draft, stmt, drafts| {
        draft.skip_check_adv_addr = stmt.boolean(drafts);
    }),
    line("down_timer_adverts", |draft, stmt, drafts| {
        draft.down_timer_adverts = stmt.number(&defaults::DOWN_TIMER, drafts);
    }),
    line("lower_prio_no_advert", |draft, stmt, drafts| {
        draft.lower_prio_no_advert = stmt.boolean(drafts);
    }),
    line("higher_prio_send_advert", |draft, stmt, drafts| {
        draft.higher_prio_send_advert = stmt.boolean(drafts);
    }),
    line("garp_master_delay", |draft, stmt, drafts| {
        draft.garp.master_delay = stmt.time(&defaults::GARP_DELAY, drafts);
    }),
    line("garp_master_repeat", |draft, stmt, drafts| {
        draft.garp.master_repeat = garp_count(stmt, drafts);
    }),
    line("garp_master_refresh", |draft, stmt, drafts| {
        draft.garp.master_refresh = stmt.time(&defaults::GARP_DELAY, drafts);
    }),
    line("garp_master_refresh_repeat", |draft, stmt, drafts| {
        draft.garp.master_refresh_repeat = garp_count(stmt, drafts);
    }),
    line("garp_lower_prio_delay", |draft, stmt, drafts| {
        draft.garp.lower_prio_delay = stmt.time(&defaults::GARP_DELAY, drafts);
    }),
    line("garp_lower_prio_repeat", |draft, stmt, drafts| {
        draft.garp.lower_prio_repeat = garp_count(stmt, drafts);
    }),
];

fn unicast_peer(entry: &Stmt, drafts: &mut Drafts) -> Option<UnicastPeer> {
    let addr = walk::vrrp_address(&entry.keyword, drafts)?;
    let mut peer = UnicastPeer {
        addr,
        min_ttl: 0,
        max_ttl: u8::MAX,
    };
    for pair in entry.args.chunks(2) {
        let field = match pair[0].text.as_str() {
            "min_ttl" => &mut peer.min_ttl,
            "max_ttl" => &mut peer.max_ttl,
            other => {
                let message = format!("unknown option {} of a peer", quoted(other));
                let hint = "min_ttl N or max_ttl N; one peer a line";
                drafts.push(Draft::error(pair[0].span, message).hint(hint));
                return Some(peer);
            }
        };
        let Some(word) = pair.get(1) else {
            let message = format!("{} needs a value", quoted(&pair[0].text));
            drafts.push(Draft::error(pair[0].span, message));
            break;
        };
        let what = quoted(&pair[0].text);
        judge(support::PEER_TTL, &what, pair[0].span, drafts);
        if let Some(ttl) = walk::number(word, &pair[0].text, &defaults::TTL, drafts) {
            *field = ttl;
        }
    }
    Some(peer)
}

fn track_entry(entry: &Stmt, drafts: &mut Drafts) -> Option<At<TrackInterface>> {
    let interface = interface(&entry.keyword, drafts)?;
    let mut weight = 0;
    let mut reverse = false;
    let mut words = entry.args.iter();
    while let Some(word) = words.next() {
        match word.text.as_str() {
            "weight" => match words.next() {
                Some(value) => weight = track_weight(value, drafts)?,
                None => {
                    let message = "`weight` needs a value";
                    drafts.push(Draft::error(word.span, message));
                }
            },
            "reverse" => reverse = true,
            other => {
                let message = format!("unknown option {} of a tracked interface", quoted(other));
                let hint = "weight N [reverse]; one interface a line";
                drafts.push(Draft::error(word.span, message).hint(hint));
                break;
            }
        }
    }
    let value = TrackInterface {
        interface,
        weight,
        reverse,
    };
    Some(At {
        value,
        span: entry.keyword.span,
    })
}

/// keepalived brings ±254 to ±253.
fn track_weight(word: &Word, drafts: &mut Drafts) -> Option<i16> {
    let clamped = match word.text.as_str() {
        "254" => 253,
        "-254" => -253,
        _ => return walk::number(word, "weight", &defaults::TRACK_WEIGHT, drafts),
    };
    let message = format!("weight {} is taken as {clamped}", word.text);
    drafts.push(Draft::warning(word.span, message));
    Some(clamped)
}

static OTHER_RULES: &[Rule<InstanceDraft>] = &[
    lines("notify", |d, s, x| {
        add_script(&mut d.notify, NotifyEvent::Any, s, x)
    }),
    lines("notify_master", |d, s, x| {
        add_script(&mut d.notify, NotifyEvent::Master, s, x)
    }),
    lines("notify_backup", |d, s, x| {
        add_script(&mut d.notify, NotifyEvent::Backup, s, x)
    }),
    lines("notify_fault", |d, s, x| {
        add_script(&mut d.notify, NotifyEvent::Fault, s, x)
    }),
    lines("notify_stop", |d, s, x| {
        add_script(&mut d.notify, NotifyEvent::Stop, s, x)
    }),
    lines("notify_deleted", |d, s, x| {
        add_script(&mut d.notify, NotifyEvent::Deleted, s, x)
    }),
    lines("notify_master_rx_lower_pri", |d, s, x| {
        add_script(&mut d.notify, NotifyEvent::MasterRxLowerPri, s, x);
    }),
    name("accept"),
    name("no_accept"),
    line("no_virtual_ipaddress", |draft, stmt, drafts| {
        draft.no_addresses = stmt.flag(drafts);
    }),
    name("promote_secondaries"),
    name("virtual_routes"),
    name("virtual_rules"),
    name("auth_hmac"),
    name("unicast_fault_no_peer"),
    name("old_unicast_checksum"),
    name("track_src_ip"),
    name("vrf"),
    name("use_vmac"),
    name("use_vmac_addr"),
    name("vmac_xmit_base"),
    name("use_ipvlan"),
    name("track_script"),
    name("track_file"),
    name("track_process"),
    name("track_bfd"),
    name("strict_mode"),
    name("timer_expired_backup"),
    name("thread_timer_expired"),
    name("garp_extra_if"),
    name("vmac_garp_intvl"),
    name("owner_ignore_adverts"),
    name("kernel_rx_buf_size"),
    name("debug"),
    name("notify_priority_changes"),
    name("smtp_alert"),
    name("lvs_sync_daemon_interface"),
    name("native_ipv6"),
    name("linkbeat_use_polling"),
];

/// The broadcast address of a network, or its network address, as ip(8) has `brd +` and `brd -`.
pub(super) fn host_bits(addr: Ipv4Addr, len: u8, set: bool) -> Option<Ipv4Addr> {
    let mask = u32::MAX
        .checked_shr(u32::from(len))
        .filter(|mask| *mask > 1)?;
    let bits = u32::from(addr);
    Some(Ipv4Addr::from(if set { bits | mask } else { bits & !mask }))
}
