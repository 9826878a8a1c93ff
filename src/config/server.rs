//! `virtual_server` and its real servers: their keywords, and the rules that hold between them.

use std::{collections::HashSet, net::IpAddr, time::Duration};

use super::{
    checker::{self, CheckerDraft, HasTiming, Timing, TimingRules},
    defaults,
    diagnostic::{Draft, Drafts, quoted},
    lexer::Word,
    model::{
        LbKind, NotifyEvent, NotifyScript, Persistence, RealServer, Scheduler, VirtualServer,
        VirtualServerKey,
    },
    source::Span,
    support::{self, Block},
    tree::Stmt,
    value,
    walk::{self, At, Rule, add_script, block, judge, line, lines, name},
};
use crate::addr::{Endpoint, L4Proto};

/// A virtual server while it is read.
#[derive(Debug)]
pub(super) struct ServerDraft {
    /// The keyword, for what is missing.
    span: Span,
    addr: IpAddr,
    port: At<u16>,
    protocol: Option<L4Proto>,
    lb_algo: Option<Scheduler>,
    lb_kind: Option<LbKind>,
    persistence_timeout: Option<Duration>,
    granularity: Option<u8>,
    omega: bool,
    quorum: Option<At<u32>>,
    hysteresis: Option<At<u32>>,
    weight: Option<u32>,
    inhibit_on_failure: bool,
    sorry_server: Option<(IpAddr, Option<At<u16>>)>,
    timing: Timing,
    notify: Vec<NotifyScript>,
    real_servers: Vec<RealDraft>,
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
    lthreshold: u32,
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

/// `ADDR [PORT]`, the words behind `virtual_server` and `real_server`.
fn endpoint(stmt: &Stmt, drafts: &mut Drafts) -> Option<(At<IpAddr>, Option<At<u16>>)> {
    let word = stmt.first(drafts)?;
    stmt.no_more(2, drafts);
    let value = walk::address(word, drafts)?;
    let addr = At {
        value,
        span: word.span,
    };
    let Some(word) = stmt.args.get(1) else {
        return Some((addr, None));
    };
    let value = walk::number(word, "port", &defaults::PORT_OR_ANY, drafts)?;
    Some((
        addr,
        Some(At {
            value,
            span: word.span,
        }),
    ))
}

impl ServerDraft {
    /// Reads a `virtual_server` block. `None` when it cannot be told which one it is.
    pub(super) fn read(stmt: &Stmt, drafts: &mut Drafts) -> Option<Self> {
        let first = stmt.first(drafts)?;
        if matches!(first.text.as_str(), "fwmark" | "group") {
            let what = format!("`virtual_server {}`", first.text);
            judge(support::MARKS_AND_GROUPS, &what, first.span, drafts);
            return None;
        }
        let (addr, port) = endpoint(stmt, drafts)?;
        let port = port.unwrap_or(At {
            value: 0,
            span: addr.span,
        });
        if port.value == 0 {
            let what = "a virtual server on every port";
            judge(support::ANY_PORT, what, port.span, drafts);
        }
        let mut draft = Self {
            span: stmt.keyword.span,
            addr: addr.value,
            port,
            protocol: None,
            lb_algo: None,
            lb_kind: None,
            persistence_timeout: None,
            granularity: None,
            omega: false,
            quorum: None,
            hysteresis: None,
            weight: None,
            inhibit_on_failure: false,
            sorry_server: None,
            timing: Timing::default(),
            notify: Vec::new(),
            real_servers: Vec::new(),
        };
        let rules = [SERVER_RULES, TimingRules::ALL, SERVER_KNOWN];
        walk::walk(
            &mut draft,
            stmt.body(),
            Block::VirtualServer,
            &rules,
            drafts,
        );
        Some(draft)
    }

    /// The keyword's place in the file.
    pub(super) const fn span(&self) -> Span {
        self.span
    }

    /// Applies what keepalived applies after parsing, and resolves every default. `None` for a
    /// virtual server that has no real server.
    pub(super) fn finish(mut self, drafts: &mut Drafts) -> Option<VirtualServer> {
        let protocol = self.stated("protocol", self.protocol, defaults::PROTOCOL, drafts);
        let lb_algo = self.stated("lb_algo", self.lb_algo, defaults::LB_ALGO, drafts);
        let lb_kind = self.stated("lb_kind", self.lb_kind, defaults::LB_KIND, drafts);
        let endpoint = Endpoint::new(self.addr, self.port.value);
        let key = VirtualServerKey { endpoint, protocol };
        let persistence = self.persistence(drafts);
        let mut seen = HashSet::new();
        let mut real_servers = Vec::new();
        for draft in std::mem::take(&mut self.real_servers) {
            let span = draft.addr.span;
            let real = draft.finish(&self, lb_kind, drafts);
            if seen.insert(real.endpoint) {
                real_servers.push(real);
            } else {
                let message = format!("real_server {} is given again", real.endpoint);
                let hint = "the first one counts";
                drafts.push(Draft::warning(span, message).hint(hint));
            }
        }
        if real_servers.is_empty() {
            let message = format!("virtual_server {key} has no real_server; it is ignored");
            drafts.push(Draft::warning(self.span, message));
            return None;
        }
        let sorry_server = self.sorry_server.map(|(addr, port)| {
            // Port 0 is the service's, said or not.
            let port = port.filter(|port| port.value != 0);
            Endpoint::new(addr, self.allowed_port(port, lb_kind, drafts))
        });
        let weights = real_servers.iter().map(|real| u64::from(real.weight)).sum();
        let (quorum, hysteresis) = self.quorum(weights, drafts);
        Some(VirtualServer {
            key,
            delay_loop: self.timing.delay_loop.unwrap_or(defaults::DELAY_LOOP),
            lb_algo,
            lb_kind,
            persistence,
            alpha: self.timing.alpha.unwrap_or_default(),
            omega: self.omega,
            quorum,
            hysteresis,
            sorry_server,
            notify: self.notify,
            real_servers,
        })
    }

    /// A value, or its default; a default that this version does not apply has no place of its
    /// own, so the virtual server is blamed.
    fn stated<T: Named>(
        &self,
        keyword: &str,
        value: Option<T>,
        default: T,
        drafts: &mut Drafts,
    ) -> T {
        value.unwrap_or_else(|| {
            let what = format!(
                "`{keyword}` is missing, which means {}; that",
                default.named()
            );
            judge(default.support(), &what, self.span, drafts);
            default
        })
    }

    /// The port of a real or sorry server: as said, if the forwarding method can change ports.
    fn allowed_port(&self, said: Option<At<u16>>, lb_kind: LbKind, drafts: &mut Drafts) -> u16 {
        let wanted = self.port.value;
        let Some(At { value, span }) = said else {
            return wanted;
        };
        if value == wanted || lb_kind == LbKind::Nat {
            return value;
        }
        let message = format!("port {value} is taken as {wanted}, the virtual server's");
        let hint = format!("{} leaves ports as they are", lb_kind.name());
        drafts.push(Draft::warning(span, message).hint(hint));
        wanted
    }

    fn persistence(&self, drafts: &mut Drafts) -> Option<Persistence> {
        let forced = self.port.value == 0;
        let said = self.persistence_timeout.is_some() || self.granularity.is_some();
        if forced && !said {
            let seconds = defaults::PERSISTENCE_TIMEOUT.as_secs();
            let message = format!("a virtual server on every port is persistent, for {seconds} s");
            drafts.push(Draft::warning(self.port.span, message));
        }
        let whole = if self.addr.is_ipv4() { 32 } else { 128 };
        (forced || said).then(|| Persistence {
            timeout: self
                .persistence_timeout
                .unwrap_or(defaults::PERSISTENCE_TIMEOUT),
            granularity: self.granularity.unwrap_or(whole),
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
        (quorum, hysteresis)
    }
}

/// A value with a default that this version may not apply.
trait Named: Copy {
    fn named(self) -> String;
    fn support(self) -> support::Support;
}

impl Named for Scheduler {
    fn named(self) -> String {
        format!("`{}`", self.name())
    }
    fn support(self) -> support::Support {
        support::scheduler(self)
    }
}

impl Named for LbKind {
    fn named(self) -> String {
        format!("`{}`", self.name())
    }
    fn support(self) -> support::Support {
        support::lb_kind(self)
    }
}

impl Named for L4Proto {
    fn named(self) -> String {
        format!("`{self}`")
    }
    fn support(self) -> support::Support {
        support::protocol(self)
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
            lthreshold: 0,
            timing: Timing::default(),
            notify: Vec::new(),
            checkers: Vec::new(),
        };
        let rules = [REAL_RULES, TimingRules::ALL, REFUSED_CHECKERS];
        walk::walk(&mut draft, stmt.body(), Block::RealServer, &rules, drafts);
        Some(draft)
    }

    fn finish(self, server: &ServerDraft, lb_kind: LbKind, drafts: &mut Drafts) -> RealServer {
        let lb_kind = self.lb_kind.unwrap_or(lb_kind);
        let port = server.allowed_port(self.port, lb_kind, drafts);
        let endpoint = Endpoint::new(self.addr.value, port);
        let timing = self.timing.or(server.timing);
        let checkers = self.checkers.into_iter();
        RealServer {
            endpoint,
            weight: self.weight.or(server.weight).unwrap_or(defaults::WEIGHT),
            lb_kind,
            inhibit_on_failure: self.inhibit_on_failure.unwrap_or(server.inhibit_on_failure),
            uthreshold: self.uthreshold,
            lthreshold: self.lthreshold,
            notify: self.notify,
            checkers: checkers
                .map(|checker| checker.finish(endpoint, timing, drafts))
                .collect(),
        }
    }
}

fn scheduler(word: &Word, drafts: &mut Drafts) -> Option<Scheduler> {
    let found = Scheduler::ALL.into_iter().find(|s| s.name() == word.text);
    match found {
        Some(found) => {
            let what = format!("`lb_algo {}`", found.name());
            judge(support::scheduler(found), &what, word.span, drafts);
        }
        None => {
            let message = format!("{} is not a scheduler", quoted(&word.text));
            let hint = Scheduler::ALL.map(Scheduler::name).join(", ");
            drafts.push(Draft::error(word.span, message).hint(hint));
        }
    }
    found
}

/// `lb_kind`, `lvs_method`; a tunnel may have options behind it.
fn lb_kind(stmt: &Stmt, drafts: &mut Drafts) -> Option<LbKind> {
    let word = stmt.first(drafts)?;
    let kind = [LbKind::Nat, LbKind::Dr, LbKind::Tun]
        .into_iter()
        .find(|kind| kind.name() == word.text);
    let Some(kind) = kind else {
        let message = format!("{} is not a forwarding method", quoted(&word.text));
        drafts.push(Draft::error(word.span, message).hint("NAT, DR or TUN"));
        return None;
    };
    if kind != LbKind::Tun {
        stmt.no_more(1, drafts);
    }
    let what = format!("`{} {}`", stmt.keyword.text, kind.name());
    judge(support::lb_kind(kind), &what, word.span, drafts);
    Some(kind)
}

fn protocol(stmt: &Stmt, drafts: &mut Drafts) -> Option<L4Proto> {
    let word = stmt.one(drafts)?;
    let found = [L4Proto::Tcp, L4Proto::Udp, L4Proto::Sctp]
        .into_iter()
        .find(|protocol| word.text.eq_ignore_ascii_case(protocol.name()));
    match found {
        Some(found) => {
            let what = format!("`protocol {found}`");
            judge(support::protocol(found), &what, word.span, drafts);
        }
        None => {
            let message = format!("{} is not a protocol", quoted(&word.text));
            drafts.push(Draft::error(word.span, message).hint("TCP, UDP or SCTP"));
        }
    }
    found
}

fn set_algo(draft: &mut ServerDraft, stmt: &Stmt, drafts: &mut Drafts) {
    // A value that was said, if wrongly, is not missing as well: no second complaint.
    let said = stmt.one(drafts).and_then(|word| scheduler(word, drafts));
    draft.lb_algo = Some(said.unwrap_or(defaults::LB_ALGO));
}

fn set_kind(draft: &mut ServerDraft, stmt: &Stmt, drafts: &mut Drafts) {
    draft.lb_kind = Some(lb_kind(stmt, drafts).unwrap_or(defaults::LB_KIND));
}

static SERVER_RULES: &[Rule<ServerDraft>] = &[
    line("lb_algo", set_algo),
    line("lvs_sched", set_algo),
    line("lb_kind", set_kind),
    line("lvs_method", set_kind),
    line("protocol", |draft, stmt, drafts| {
        draft.protocol = Some(protocol(stmt, drafts).unwrap_or(defaults::PROTOCOL));
    }),
    line("persistence_timeout", |draft, stmt, drafts| {
        if stmt.args.is_empty() {
            draft.persistence_timeout = Some(defaults::PERSISTENCE_TIMEOUT);
        } else if let Some(seconds) = stmt.number::<u32>(&defaults::PERSISTENCE, drafts) {
            draft.persistence_timeout = Some(Duration::from_secs(seconds.into()));
        }
    }),
    line("persistence_granularity", |draft, stmt, drafts| {
        let Some(word) = stmt.one(drafts) else { return };
        let longest = if draft.addr.is_ipv4() { 32 } else { 128 };
        match value::mask_length(&word.text, longest) {
            Ok(length) => draft.granularity = Some(length),
            Err(why) => {
                let message = format!("{} is not a granularity", quoted(&word.text));
                drafts.push(Draft::error(word.span, message).hint(why));
            }
        }
    }),
    line("omega", |draft, stmt, drafts| {
        draft.omega = stmt.flag(drafts);
    }),
    line("quorum", |draft, stmt, drafts| {
        let value = stmt.number(&defaults::QUORUMS, drafts);
        draft.quorum = value.map(|value| At {
            value,
            span: stmt.args[0].span,
        });
    }),
    line("hysteresis", |draft, stmt, drafts| {
        let value = stmt.number(&defaults::HYSTERESES, drafts);
        draft.hysteresis = value.map(|value| At {
            value,
            span: stmt.args[0].span,
        });
    }),
    line("weight", |draft, stmt, drafts| {
        draft.weight = stmt.number(&defaults::VS_WEIGHT, drafts);
    }),
    line("inhibit_on_failure", |draft, stmt, drafts| {
        draft.inhibit_on_failure = stmt.boolean(drafts).unwrap_or_default();
    }),
    line("sorry_server", |draft, stmt, drafts| {
        let read = endpoint(stmt, drafts);
        draft.sorry_server = read.map(|(addr, port)| (addr.value, port));
    }),
    lines("quorum_up", |d, s, x| {
        add_script(&mut d.notify, NotifyEvent::QuorumUp, s, x)
    }),
    lines("quorum_down", |d, s, x| {
        add_script(&mut d.notify, NotifyEvent::QuorumDown, s, x)
    }),
    block("real_server", |draft, stmt, drafts| {
        draft.real_servers.extend(RealDraft::read(stmt, drafts));
    }),
];

static SERVER_KNOWN: &[Rule<ServerDraft>] = &[
    name("nat_mask"),
    name("ip_family"),
    name("hashed"),
    name("ops"),
    name("flag-1"),
    name("flag-2"),
    name("flag-3"),
    name("sh-port"),
    name("sh-fallback"),
    name("mh-port"),
    name("mh-fallback"),
    name("persistence_engine"),
    name("ha_suspend"),
    name("sorry_server_inhibit"),
    name("sorry_server_lvs_method"),
    name("virtualhost"),
    name("smtp_alert"),
    name("snmp_name"),
];

static REAL_RULES: &[Rule<RealDraft>] = &[
    line("weight", |draft, stmt, drafts| {
        draft.weight = stmt.number(&defaults::RS_WEIGHT, drafts);
    }),
    line("lvs_method", |draft, stmt, drafts| {
        draft.lb_kind = lb_kind(stmt, drafts);
    }),
    line("inhibit_on_failure", |draft, stmt, drafts| {
        draft.inhibit_on_failure = stmt.boolean(drafts);
    }),
    line("uthreshold", |draft, stmt, drafts| {
        draft.uthreshold = stmt
            .number(&defaults::THRESHOLD, drafts)
            .unwrap_or_default();
    }),
    line("lthreshold", |draft, stmt, drafts| {
        draft.lthreshold = stmt
            .number(&defaults::THRESHOLD, drafts)
            .unwrap_or_default();
    }),
    lines("notify_up", |d, s, x| {
        add_script(&mut d.notify, NotifyEvent::Up, s, x)
    }),
    lines("notify_down", |d, s, x| {
        add_script(&mut d.notify, NotifyEvent::Down, s, x)
    }),
    block("TCP_CHECK", |draft, stmt, drafts| {
        draft.checkers.push(CheckerDraft::read(stmt, drafts));
    }),
    name("lb_kind"),
    name("nat_mask"),
    name("virtualhost"),
    name("smtp_alert"),
    name("snmp_name"),
];

/// Checkers that are refused by name; their keywords are looked at all the same.
static REFUSED_CHECKERS: &[Rule<RealDraft>] = &[
    block("HTTP_GET", |_, stmt, drafts| {
        checker::known(stmt, checker::HTTP, drafts)
    }),
    block("SSL_GET", |_, stmt, drafts| {
        checker::known(stmt, checker::HTTP, drafts)
    }),
    block("SMTP_CHECK", |_, stmt, drafts| {
        checker::known(stmt, checker::SMTP, drafts)
    }),
    block("DNS_CHECK", |_, stmt, drafts| {
        checker::known(stmt, checker::DNS, drafts)
    }),
    block("MISC_CHECK", |_, stmt, drafts| {
        checker::known(stmt, checker::MISC, drafts)
    }),
    block("UDP_CHECK", |_, stmt, drafts| {
        checker::known(stmt, checker::UDP, drafts)
    }),
    block("PING_CHECK", |_, stmt, drafts| {
        checker::known(stmt, &[], drafts)
    }),
    block("BFD_CHECK", |_, stmt, drafts| {
        checker::known(stmt, checker::BFD, drafts)
    }),
    block("FILE_CHECK", |_, stmt, drafts| {
        checker::known(stmt, checker::FILE, drafts)
    }),
];
