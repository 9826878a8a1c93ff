//! `virtual_server` and its real servers: the rules that hold between their keywords.

mod rules;

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use super::{
    checker::{CheckerDraft, HasTiming, Outer, Timing, TimingRules},
    defaults,
    diagnostic::{Draft, Drafts},
    group::Groups,
    keyword::{Facts, Table},
    lexer::Word,
    model::{Match, NotifyScript, Persistence, RealServer, SorryServer, VirtualServer},
    read::At,
    source::{Span, quoted},
    tracking::Watchable,
    tree::Stmt,
    value::{self, netmask},
    walk::walk,
};
use crate::{
    addr::{Endpoint, Family, L4Proto},
    lvs::{LbKind, Scheduler},
};

static TABLE: Table<ServerDraft> = Table {
    block: "virtual_server",
    keywords: &[
        rules::SERVER,
        TimingRules::<_, true>::CHECKS,
        TimingRules::<_, true>::CONNECT,
        rules::SERVER_KNOWN,
    ],
};

static REAL_TABLE: Table<RealDraft> = Table {
    block: "real_server",
    keywords: &[
        rules::REAL,
        TimingRules::<_, true>::CHECKS,
        TimingRules::<_, true>::CONNECT,
        TimingRules::<_, true>::ALPHA,
        rules::REFUSED_CHECKERS,
    ],
};

/// The keywords of both blocks.
pub(super) fn facts() -> impl Iterator<Item = (&'static str, &'static Facts)> {
    TABLE.facts().chain(REAL_TABLE.facts())
}

/// What stands behind `virtual_server`.
#[derive(Debug)]
enum Head {
    /// `ADDR [PORT]`
    Address(IpAddr, At<u16>),
    /// `fwmark N`
    Mark(u32),
    /// `group NAME`
    Group(At<String>),
}

/// A virtual server while it is read.
#[derive(Debug)]
pub(super) struct ServerDraft {
    /// The keyword, for what is missing.
    span: Span,
    head: Head,
    family: Option<At<Family>>,
    protocol: Option<At<L4Proto>>,
    lb_algo: Option<Scheduler>,
    /// Flags of the scheduler.
    flags: Flags,
    ops: Option<Span>,
    lb_kind: Option<LbKind>,
    persistence_timeout: Option<Duration>,
    granularity: Option<At<String>>,
    persistence_engine: Option<String>,
    ha_suspend: Option<Span>,
    virtualhost: Option<Arc<str>>,
    smtp_alert: Option<bool>,
    snmp_name: Option<String>,
    omega: bool,
    quorum: Option<At<u32>>,
    hysteresis: Option<At<u32>>,
    weight: Option<u32>,
    inhibit_on_failure: bool,
    sorry_server: Option<(At<IpAddr>, Option<At<u16>>)>,
    sorry_kind: Option<At<LbKind>>,
    sorry_inhibit: Option<Span>,
    timing: Timing,
    notify: Vec<NotifyScript>,
    real_servers: Vec<RealDraft>,
}

/// What the flags of a scheduler ask for.
#[derive(Debug, Default)]
struct Flags {
    port: bool,
    fallback: bool,
    /// The last of `flag-1` and `flag-2`, which stand for whatever the scheduler makes of them.
    numbered: Option<At<&'static str>>,
}

/// A real server while it is read.
#[derive(Debug)]
struct RealDraft {
    addr: At<IpAddr>,
    port: Option<At<u16>>,
    weight: Option<u32>,
    lb_kind: Option<LbKind>,
    inhibit_on_failure: Option<bool>,
    uthreshold: u32,
    lthreshold: Option<At<u32>>,
    virtualhost: Option<Arc<str>>,
    smtp_alert: Option<bool>,
    snmp_name: Option<String>,
    timing: Timing,
    notify: Vec<NotifyScript>,
    checkers: Vec<CheckerDraft>,
}

impl HasTiming for ServerDraft {
    fn timing(&mut self) -> &mut Timing {
        &mut self.timing
    }
}

impl HasTiming for RealDraft {
    fn timing(&mut self) -> &mut Timing {
        &mut self.timing
    }
}

/// The rest of the file, as far as it bears on a virtual server.
pub(super) struct Surroundings<'a> {
    pub(super) groups: &'a mut Groups,
    /// The marks that packets get.
    pub(super) marked: &'a HashSet<(u32, Family)>,
    /// What checks can look at.
    pub(super) watchable: &'a Watchable,
}

/// What real servers and the sorry server need to know of their virtual server.
struct Frame {
    lb_kind: LbKind,
    families: Vec<Family>,
    /// The port of every match; 0 where they differ, or where any port is taken.
    port: u16,
    /// The same without marks, which have none: where checks of a real server without a port go.
    check_port: u16,
}

/// `ADDR [PORT]`, the words behind `virtual_server`, `real_server` and `sorry_server`. `None` for what cannot be read:
/// the whole of it is left out, as keepalived does.
fn endpoint(stmt: &Stmt, drafts: &mut Drafts) -> Option<(At<IpAddr>, Option<At<u16>>)> {
    let word = stmt.first(drafts)?;
    stmt.no_more(2, drafts);
    let keyword = &stmt.keyword.text;
    // keepalived reads a range or a network as its first address.
    let first = word.text.split(['-', '/']).next().unwrap_or_default();
    let addr = match value::address(first) {
        Ok(value) => {
            if first.len() < word.text.len() {
                let message = format!("{} is one address here: {value} counts", quoted(&word.text));
                let hint = "ranges and networks stand in a virtual_server_group";
                drafts.push(Draft::warning(word.span, message).hint(hint));
            }
            At {
                value,
                span: word.span,
            }
        }
        Err(why) => {
            let message = format!("{keyword} is left out: {} is {why}", quoted(&word.text));
            drafts.push(Draft::warning(word.span, message).hint("ADDRESS [PORT]"));
            return None;
        }
    };
    let Some(word) = stmt.args.get(1) else {
        return Some((addr, None));
    };
    Some((addr, Some(port(word, keyword, drafts)?)))
}

/// A port, 0 for any; `None` leaves out what it belongs to.
fn port(word: &Word, what: &str, drafts: &mut Drafts) -> Option<At<u16>> {
    let span = word.span;
    let read = value::integer(&word.text);
    let port = read.and_then(|read| Some((u16::try_from(read.value).ok()?, read.junk)));
    let Some((value, junk)) = port else {
        let message = format!("{what} is left out: {} is no port", quoted(&word.text));
        let hint = defaults::PORT_OR_ANY.to_string();
        drafts.push(Draft::warning(span, message).hint(hint));
        return None;
    };
    if !junk.is_empty() {
        let message = format!("the port {} is read as {value}", quoted(&word.text));
        drafts.push(Draft::warning(span, message));
    }
    Some(At { value, span })
}

impl Head {
    fn read(stmt: &Stmt, drafts: &mut Drafts) -> Option<Self> {
        let first = stmt.first(drafts)?;
        let named = matches!(first.text.as_str(), "fwmark" | "group");
        if !named {
            let (addr, port) = endpoint(stmt, drafts)?;
            let port = port.unwrap_or(At {
                value: 0,
                span: addr.span,
            });
            return Some(Self::Address(addr.value, port));
        }
        stmt.no_more(2, drafts);
        let Some(word) = stmt.args.get(1) else {
            let message = format!("`virtual_server {}` needs a value", first.text);
            drafts.push(Draft::error(first.span, message));
            return None;
        };
        if first.text == "group" {
            return Some(Self::Group(At {
                value: word.text.clone(),
                span: word.span,
            }));
        }
        let mark = word.text.parse().ok().filter(|mark| *mark != 0);
        if mark.is_none() {
            let mark = quoted(&word.text);
            let message = format!("virtual_server is left out: {mark} is no mark");
            let hint = defaults::MARK.to_string();
            drafts.push(Draft::warning(word.span, message).hint(hint));
        }
        mark.map(Self::Mark)
    }
}

impl ServerDraft {
    /// Reads a `virtual_server` block. `None` when it cannot be told which one it is.
    pub(super) fn read(stmt: &Stmt, drafts: &mut Drafts) -> Option<Self> {
        let mut draft = Self {
            span: stmt.keyword.span,
            head: Head::read(stmt, drafts)?,
            family: None,
            protocol: None,
            lb_algo: None,
            flags: Flags::default(),
            ops: None,
            lb_kind: None,
            persistence_timeout: None,
            granularity: None,
            persistence_engine: None,
            ha_suspend: None,
            virtualhost: None,
            smtp_alert: None,
            snmp_name: None,
            omega: false,
            quorum: None,
            hysteresis: None,
            weight: None,
            inhibit_on_failure: false,
            sorry_server: None,
            sorry_kind: None,
            sorry_inhibit: None,
            timing: Timing::default(),
            notify: Vec::new(),
            real_servers: Vec::new(),
        };
        walk(&mut draft, stmt.body(), &TABLE, drafts);
        Some(draft)
    }

    /// The keyword's place in the file.
    pub(super) const fn span(&self) -> Span {
        self.span
    }

    /// Applies what keepalived applies after parsing, and resolves every default. `None` for a
    /// virtual server that has no real server, or whose group is not known.
    pub(super) fn finish(
        mut self,
        around: &mut Surroundings<'_>,
        drafts: &mut Drafts,
    ) -> Option<VirtualServer> {
        let matches = self.matches(around, drafts)?;
        let mut server = VirtualServer {
            group: match &self.head {
                Head::Group(name) => Some(name.value.clone()),
                Head::Address(..) | Head::Mark(_) => None,
            },
            matches,
            protocol: defaults::PROTOCOL,
            ops: false,
            delay_loop: self.timing.delay_loop.unwrap_or(defaults::DELAY_LOOP),
            lb_algo: defaults::LB_ALGO,
            lb_kind: defaults::LB_KIND,
            persistence: None,
            persistence_engine: self.persistence_engine.take(),
            ha_suspend: false,
            smtp_alert: self.smtp_alert,
            snmp_name: self.snmp_name.take(),
            alpha: self.timing.alpha.unwrap_or_default(),
            omega: self.omega,
            quorum: defaults::QUORUM,
            hysteresis: defaults::HYSTERESIS,
            sorry_server: None,
            notify: std::mem::take(&mut self.notify),
            real_servers: Vec::new(),
        };
        server.protocol = self.protocol(&server, drafts);
        let name = server.name();
        server.lb_algo = self
            .stated("lb_algo", self.lb_algo, defaults::LB_ALGO.name(), drafts)
            .unwrap_or(defaults::LB_ALGO);
        server.lb_kind = self
            .stated("lb_kind", self.lb_kind, defaults::LB_KIND.name(), drafts)
            .unwrap_or(defaults::LB_KIND);
        self.flag(&mut server.lb_algo, drafts);
        server.ops = self.ops(&server, drafts);
        server.ha_suspend = self.ha_suspend(&server, drafts);
        server.persistence = self.persistence(&server, drafts);
        let frame = Frame::new(&server);
        let mut seen = HashSet::new();
        for draft in std::mem::take(&mut self.real_servers) {
            let span = draft.addr.span;
            let Some(real) = draft.finish(&self, &frame, around.watchable, drafts) else {
                continue;
            };
            if seen.insert(real.endpoint) {
                server.real_servers.push(real);
            } else {
                let message = format!("real_server {} is given again", real.endpoint);
                let hint = "the first one counts";
                drafts.push(Draft::warning(span, message).hint(hint));
            }
        }
        if server.real_servers.is_empty() {
            let message = format!("virtual_server {name} has no real_server; it is ignored");
            drafts.push(Draft::warning(self.span, message));
            return None;
        }
        server.sorry_server = self.sorry_server(&frame, drafts);
        let reals = server.real_servers.iter();
        let weights = reals.map(|real| u64::from(real.weight)).sum();
        if weights == 0 {
            let message =
                format!("virtual_server {name} gives no connection away: every weight is 0");
            drafts.push(Draft::warning(self.span, message));
        }
        (server.quorum, server.hysteresis) = self.quorum(weights, drafts);
        Some(server)
    }

    /// What it takes. `None` when its group says nothing.
    fn matches(&self, around: &mut Surroundings<'_>, drafts: &mut Drafts) -> Option<Vec<Match>> {
        let guessed = self.guessed_family();
        let matches = match &self.head {
            Head::Address(addr, port) => {
                let own = Family::of(*addr);
                if let Some(said) = self.family.filter(|said| said.value != own) {
                    let said_name = said.value.name();
                    let message = format!("ip_family {said_name} is left out: {addr} is {own}");
                    drafts.push(Draft::warning(said.span, message));
                }
                vec![Match::Address(Endpoint::new(*addr, port.value))]
            }
            Head::Mark(mark) => vec![Match::Mark {
                mark: *mark,
                family: guessed,
            }],
            Head::Group(name) => {
                let matches = around.groups.matches(name, self.family, guessed, drafts)?;
                self.within_one_family(name, matches, drafts)
            }
        };
        for one in &matches {
            if let Match::Mark { mark, family } = *one
                && !around.marked.contains(&(mark, family))
            {
                let message = format!("nothing marks {family} packets with {mark}");
                let hint = format!("`xvs {{ mark {mark} {{ destination ADDRESS }} }}` does");
                drafts.push(Draft::warning(self.span, message).hint(hint));
            }
        }
        Some(matches)
    }

    /// The first real server that can take one family only.
    fn bound(&self) -> Option<&RealDraft> {
        let kind = self.lb_kind.unwrap_or(defaults::LB_KIND);
        let tunnel = |kind| matches!(kind, LbKind::Tun(_));
        let mut reals = self.real_servers.iter();
        reals.find(|real| !tunnel(real.lb_kind.unwrap_or(kind)))
    }

    /// What a mark of no family is for: what is said, else what the first real server is that
    /// cannot be of another family, as keepalived guesses it.
    fn guessed_family(&self) -> Family {
        let said = self.family.map(|said| said.value);
        said.or_else(|| self.bound().map(|real| Family::of(real.addr.value)))
            .unwrap_or(Family::V4)
    }

    /// Leaves out the entries of a group that its real servers cannot take, which IPVS has without any.
    fn within_one_family(
        &self,
        group: &At<String>,
        mut matches: Vec<Match>,
        drafts: &mut Drafts,
    ) -> Vec<Match> {
        let Some(real) = self.bound() else {
            return matches;
        };
        let family = Family::of(real.addr.value);
        let own = |one: &Match| one.family() == family;
        let Some(other) = matches.iter().find(|one| !own(one)).map(Match::family) else {
            return matches;
        };
        if matches.iter().any(own) {
            let name = quoted(&group.value);
            let addr = real.addr.value;
            let message = format!(
                "the {other} entries of {name} are left out: real_server {addr} is {family}"
            );
            let hint = "a group of both families needs TUN";
            drafts.push(Draft::warning(group.span, message).hint(hint));
            matches.retain(own);
        }
        matches
    }

    /// The protocol of its addresses.
    fn protocol(&self, server: &VirtualServer, drafts: &mut Drafts) -> L4Proto {
        if server.takes_addresses() {
            let named = defaults::PROTOCOL.to_string();
            let said = self.protocol.map(|protocol| protocol.value);
            let said = self.stated("protocol", said, &named, drafts);
            return said.unwrap_or(defaults::PROTOCOL);
        }
        if let Some(protocol) = self.protocol {
            let message = "the protocol is ignored: a mark says which packets are meant";
            drafts.push(Draft::warning(protocol.span, message));
        }
        defaults::PROTOCOL
    }

    /// A value as it was said; says what it means that it was not.
    fn stated<T>(
        &self,
        keyword: &str,
        value: Option<T>,
        default: &str,
        drafts: &mut Drafts,
    ) -> Option<T> {
        if value.is_none() {
            let message = format!("`{keyword}` is missing, which means `{default}`");
            drafts.push(Draft::warning(self.span, message));
        }
        value
    }

    /// Sets the flags that the scheduler looks at.
    fn flag(&self, lb_algo: &mut Scheduler, drafts: &mut Drafts) {
        let name = lb_algo.name();
        match lb_algo {
            Scheduler::Sh { port, fallback } | Scheduler::Mh { port, fallback, .. } => {
                (*port, *fallback) = (self.flags.port, self.flags.fallback);
            }
            _ => {
                if let Some(At { value, span }) = self.flags.numbered {
                    let message = format!("`{value}` has no effect with `lb_algo {name}`");
                    drafts.push(Draft::warning(span, message));
                }
            }
        }
    }

    /// Whether packets are scheduled one by one.
    fn ops(&self, server: &VirtualServer, drafts: &mut Drafts) -> bool {
        let fits = !server.takes_addresses() || server.protocol == L4Proto::Udp;
        if let Some(span) = self.ops.filter(|_| !fits) {
            let message = "`ops` is ignored: it needs `protocol UDP` or a fwmark";
            drafts.push(Draft::warning(span, message));
        }
        fits && self.ops.is_some()
    }

    /// Whether checks rest while its addresses are elsewhere.
    fn ha_suspend(&self, server: &VirtualServer, drafts: &mut Drafts) -> bool {
        let fits = server.takes_addresses();
        if let Some(span) = self.ha_suspend.filter(|_| !fits) {
            let message =
                "`ha_suspend` is ignored: a mark has no address that could be on this box";
            drafts.push(Draft::warning(span, message));
        }
        fits && self.ha_suspend.is_some()
    }

    fn persistence(&self, server: &VirtualServer, drafts: &mut Drafts) -> Option<Persistence> {
        // With both families the longer address; what is longer than an address is all of it.
        let families = server.matches.iter().map(Match::family);
        let whole = families.max().unwrap_or(Family::V4).bits();
        let granularity = self.granularity.as_ref().and_then(|said| {
            let read = value::mask_length(&said.value, whole);
            if let Err(why) = &read {
                let message = format!("{} is not a granularity", quoted(&said.value));
                // IPVS takes any mask, and takes clients together by it.
                let mask = whole == Family::V4.bits() && said.value.contains('.');
                drafts.push(if mask {
                    Draft::error(said.span, message).hint(why)
                } else {
                    Draft::warning(said.span, format!("{message}; it is left out")).hint(why)
                });
            }
            if let Ok(length) = read
                && whole == Family::V4.bits()
                && !said.value.contains('.')
            {
                let mask = Ipv4Addr::from(u32::from(length));
                let meant = netmask(length);
                let message =
                    format!("persistence_granularity {length} is read as a prefix length");
                let hint = format!("keepalived takes it as the mask {mask}; write {meant}");
                drafts.push(Draft::note(said.span, message).hint(hint));
            }
            read.ok()
        });
        let forced = server.matches.iter().any(|one| one.port() == Some(0));
        let said = self.persistence_timeout.is_some() || granularity.is_some();
        if forced && !said {
            let seconds = defaults::PERSISTENCE_TIMEOUT.as_secs();
            let message = format!("a virtual server on every port is persistent, for {seconds} s");
            let span = match &self.head {
                Head::Address(_, port) => port.span,
                Head::Group(name) => name.span,
                Head::Mark(_) => self.span,
            };
            drafts.push(Draft::warning(span, message));
        }
        (forced || said).then(|| Persistence {
            timeout: self
                .persistence_timeout
                .unwrap_or(defaults::PERSISTENCE_TIMEOUT),
            granularity: granularity.unwrap_or(whole),
        })
    }

    fn sorry_server(&self, frame: &Frame, drafts: &mut Drafts) -> Option<SorryServer> {
        let Some((addr, port)) = self.sorry_server else {
            let spans = [self.sorry_inhibit, self.sorry_kind.map(|kind| kind.span)];
            for span in spans.into_iter().flatten() {
                let message = "there is no sorry_server that this could be about";
                drafts.push(Draft::warning(span, message));
            }
            return None;
        };
        let lb_kind = self.sorry_kind.map_or(frame.lb_kind, |kind| kind.value);
        if !frame.takes("sorry_server", addr, lb_kind, drafts) {
            return None;
        }
        let port = frame.allowed_port(port, lb_kind, drafts);
        Some(SorryServer {
            endpoint: Endpoint::new(addr.value, port),
            lb_kind,
            inhibit: self.sorry_inhibit.is_some(),
        })
    }

    /// Quorum and hysteresis such that the quorum can be met and lost.
    fn quorum(&self, weights: u64, drafts: &mut Drafts) -> (u32, u32) {
        let mut quorum = self.quorum.map_or(defaults::QUORUM, |quorum| quorum.value);
        if u64::from(quorum) > weights {
            // Never 0: that would make keepalived's subtraction below wrap around.
            let most = u32::try_from(weights).unwrap_or(u32::MAX).max(1);
            if let Some(At { span, .. }) = self.quorum.filter(|_| quorum > most) {
                let message = format!("quorum {quorum} is more than all weights; it is {most}");
                drafts.push(Draft::warning(span, message));
            }
            quorum = most;
        }
        let mut hysteresis = self.hysteresis.map_or(defaults::HYSTERESIS, |h| h.value);
        if let Some(At { span, .. }) = self.hysteresis.filter(|h| h.value >= quorum) {
            let message = format!("hysteresis {hysteresis} is not below the quorum; it is");
            hysteresis = quorum - 1;
            let message = format!("{message} {hysteresis}");
            drafts.push(Draft::warning(span, message));
        }
        let needed = u64::from(quorum) + u64::from(hysteresis);
        if let Some(At { span, .. }) = self.hysteresis.filter(|_| weights > 0 && needed > weights) {
            let message = format!(
                "a quorum that is lost never comes back: it takes {quorum} + {hysteresis}, and all weights are {weights}"
            );
            drafts.push(Draft::warning(span, message));
        }
        (quorum, hysteresis)
    }
}

impl Frame {
    fn new(server: &VirtualServer) -> Self {
        let mut families: Vec<Family> = server.matches.iter().map(Match::family).collect();
        families.sort_unstable();
        families.dedup();
        let mut ports = server.matches.iter().filter_map(Match::port);
        let first = ports.next().unwrap_or(0);
        let check_port = if ports.all(|port| port == first) {
            first
        } else {
            0
        };
        let marked = server.matches.iter().any(|one| one.port().is_none());
        Self {
            lb_kind: server.lb_kind,
            families,
            port: if marked { 0 } else { check_port },
            check_port,
        }
    }

    /// The port of a real or sorry server: as said, if the forwarding method can change ports.
    fn allowed_port(&self, said: Option<At<u16>>, lb_kind: LbKind, drafts: &mut Drafts) -> u16 {
        let wanted = self.port;
        // Port 0 is the virtual server's, said or not.
        let Some(At { value, span }) = said.filter(|port| port.value != 0) else {
            return wanted;
        };
        if value == wanted || lb_kind == LbKind::Nat {
            return value;
        }
        let kind = lb_kind.name();
        drafts.push(if wanted == 0 {
            let message =
                format!("port {value} is for checks only: {kind} leaves ports as they are");
            Draft::note(span, message)
        } else {
            let message = format!("port {value} is taken as {wanted}, the virtual server's");
            let hint = format!("{kind} leaves ports as they are; checks go to {value}");
            Draft::warning(span, message).hint(hint)
        });
        wanted
    }

    /// Whether it can have packets, of which only a tunnel carries one family in the other.
    fn takes(&self, what: &str, at: At<IpAddr>, lb_kind: LbKind, drafts: &mut Drafts) -> bool {
        let own = Family::of(at.value);
        let tunnel = matches!(lb_kind, LbKind::Tun(_));
        let mut others = self.families.iter();
        let other = others.find(|other| !tunnel && **other != own);
        if let Some(other) = other {
            let message = format!(
                "{what} {} is left out: it cannot take {other} packets",
                at.value
            );
            let hint = format!("{} needs one family; TUN does not", lb_kind.name());
            drafts.push(Draft::warning(at.span, message).hint(hint));
        }
        other.is_none()
    }
}

impl RealDraft {
    fn read(stmt: &Stmt, drafts: &mut Drafts) -> Option<Self> {
        let (addr, port) = endpoint(stmt, drafts)?;
        let mut draft = Self {
            addr,
            port,
            weight: None,
            lb_kind: None,
            inhibit_on_failure: None,
            uthreshold: 0,
            lthreshold: None,
            virtualhost: None,
            smtp_alert: None,
            snmp_name: None,
            timing: Timing::default(),
            notify: Vec::new(),
            checkers: Vec::new(),
        };
        walk(&mut draft, stmt.body(), &REAL_TABLE, drafts);
        Some(draft)
    }

    /// `None` for one that gets no packets, as keepalived leaves it out or IPVS refuses it.
    fn finish(
        self,
        server: &ServerDraft,
        frame: &Frame,
        watchable: &Watchable,
        drafts: &mut Drafts,
    ) -> Option<RealServer> {
        let lb_kind = self.lb_kind.unwrap_or(frame.lb_kind);
        if !frame.takes("real_server", self.addr, lb_kind, drafts) {
            return None;
        }
        let port = frame.allowed_port(self.port, lb_kind, drafts);
        let endpoint = Endpoint::new(self.addr.value, port);
        // As keepalived: a check goes to the port that was said, whatever packets go to.
        let said = self.port.filter(|port| port.value != 0);
        let high = self.uthreshold;
        if let Some(At { value: low, span }) = self.lthreshold.filter(|low| low.value > high) {
            let message = format!(
                "real_server {endpoint} is left out: lthreshold {low} is above uthreshold {high}"
            );
            drafts.push(Draft::warning(span, message).hint("IPVS takes no such real server"));
            return None;
        }
        let outer = Outer {
            real: Endpoint::new(
                self.addr.value,
                said.map_or(frame.check_port, |said| said.value),
            ),
            timing: self.timing.or(server.timing),
            virtualhost: self.virtualhost.as_ref().or(server.virtualhost.as_ref()),
            watchable,
        };
        let mut checkers = Vec::with_capacity(self.checkers.len());
        for checker in self.checkers {
            checker.finish(outer, &mut checkers, drafts);
        }
        Some(RealServer {
            endpoint,
            weight: self.weight.or(server.weight).unwrap_or(defaults::WEIGHT),
            lb_kind,
            inhibit_on_failure: self.inhibit_on_failure.unwrap_or(server.inhibit_on_failure),
            uthreshold: self.uthreshold,
            lthreshold: self.lthreshold.map_or(0, |low| low.value),
            smtp_alert: self.smtp_alert,
            snmp_name: self.snmp_name,
            notify: self.notify,
            checkers,
        })
    }
}
