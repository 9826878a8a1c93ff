//! The keywords of `virtual_server` and `real_server`, one by one.

use std::{sync::Arc, time::Duration};

use super::{
    super::{
        checker, defaults,
        diagnostic::{Draft, Drafts},
        keyword::{
            APPLIED, BOOLEAN, Given, IRRELEVANT, Keyword, NO_VALUE, REFUSED, UNAPPLIED, Value,
            block, line, lines, name_only,
        },
        lexer::Word,
        model::NotifyEvent,
        read::{At, add_script, family},
        source::{Span, quoted},
        support::{self, Support, judge},
        tree::Stmt,
        value,
    },
    RealDraft, ServerDraft, endpoint,
};
use crate::{
    addr::L4Proto,
    lvs::{LbKind, Scheduler, TunnelKind},
};

/// `lb_kind`, `lvs_method`; a tunnel may have options behind it. `counts` is what counts where it is no method, in
/// words.
fn lb_kind(stmt: &Stmt, counts: &str, drafts: &mut Drafts) -> Option<LbKind> {
    let word = stmt.first(drafts)?;
    let kind = match word.text.as_str() {
        "NAT" => LbKind::Nat,
        "DR" => LbKind::Dr,
        "TUN" => {
            let tunnel = TunnelDraft::read(&stmt.args[1..], drafts);
            let tunnel = tunnel.and_then(|draft| draft.finish(word.span, drafts));
            return Some(LbKind::Tun(tunnel.unwrap_or_default()));
        }
        _ => {
            let method = quoted(&word.text);
            let message = format!("{method} is not a forwarding method: {counts} counts");
            let hint = "NAT, DR or TUN, in capitals";
            drafts.push(Draft::warning(word.span, message).hint(hint));
            return None;
        }
    };
    stmt.no_more(1, drafts);
    Some(kind)
}

/// What counts where the options of a tunnel are wrong.
const PLAIN: &str = ": a tunnel without options counts";

/// `type` of a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum TunnelType {
    #[default]
    Ipip,
    Gue,
    Gre,
}

/// How a tunnel's outer header is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checksum {
    Full,
    Remote,
}

/// The options of `TUN` while they are read.
#[derive(Debug, Default)]
struct TunnelDraft {
    kind: TunnelType,
    port: Option<At<u16>>,
    checksum: Option<At<Checksum>>,
}

impl TunnelDraft {
    /// `None` when something is wrong with one of the options.
    fn read(words: &[Word], drafts: &mut Drafts) -> Option<Self> {
        let mut draft = Self::default();
        let mut words = words.iter();
        while let Some(Word { text, span, .. }) = words.next() {
            let mut value = || {
                let value = words.next();
                if value.is_none() {
                    let message = format!("{} needs a value{PLAIN}", quoted(text));
                    drafts.push(Draft::warning(*span, message));
                }
                value
            };
            let checksum = match text.as_str() {
                "type" => {
                    let word = value()?;
                    draft.kind = match word.text.as_str() {
                        "ipip" => TunnelType::Ipip,
                        "gue" => TunnelType::Gue,
                        "gre" => TunnelType::Gre,
                        other => {
                            let message = format!("{} is not a tunnel{PLAIN}", quoted(other));
                            let draft = Draft::warning(word.span, message);
                            drafts.push(draft.hint("ipip, gue or gre"));
                            return None;
                        }
                    };
                    continue;
                }
                "port" => {
                    let word = value()?;
                    let value = word.text.parse().ok().filter(|port| *port != 0);
                    let Some(value) = value else {
                        let message = format!("{} is no port{PLAIN}", quoted(&word.text));
                        let hint = defaults::PORT.to_string();
                        drafts.push(Draft::warning(word.span, message).hint(hint));
                        return None;
                    };
                    draft.port = Some(At {
                        value,
                        span: word.span,
                    });
                    continue;
                }
                "nocsum" => None,
                "csum" => Some(Checksum::Full),
                "remcsum" => Some(Checksum::Remote),
                _ => {
                    let message = format!("unknown option {} of a tunnel{PLAIN}", quoted(text));
                    let hint = "type, port, nocsum, csum or remcsum";
                    drafts.push(Draft::warning(*span, message).hint(hint));
                    return None;
                }
            };
            draft.checksum = checksum.map(|value| At { value, span: *span });
        }
        Some(draft)
    }

    /// The rules between the options: as keepalived has them.
    fn finish(self, span: Span, drafts: &mut Drafts) -> Option<TunnelKind> {
        let checksum = self.checksum.is_some();
        let refused = match (self.kind, self.port, self.checksum) {
            (TunnelType::Gue, None, _) => {
                let draft = Draft::warning(span, format!("`type gue` needs a port{PLAIN}"));
                Some(draft.hint("`port N`: where the real server listens"))
            }
            (TunnelType::Gue, Some(port), _) => {
                if let Some(At { span, .. }) =
                    self.checksum.filter(|sum| sum.value == Checksum::Remote)
                {
                    judge(support::REMOTE_CHECKSUM, "`remcsum`", span, drafts);
                }
                return Some(TunnelKind::Gue {
                    port: port.value,
                    checksum,
                });
            }
            (_, Some(port), _) => {
                let message = format!("only `type gue` has a port{PLAIN}");
                Some(Draft::warning(port.span, message))
            }
            (TunnelType::Ipip, None, Some(At { span, .. })) => {
                let message = format!("`type ipip` has no checksum{PLAIN}");
                Some(Draft::warning(span, message))
            }
            (TunnelType::Gre, None, Some(sum)) if sum.value == Checksum::Remote => {
                let message = format!("`remcsum` needs `type gue`{PLAIN}");
                Some(Draft::warning(sum.span, message))
            }
            (TunnelType::Ipip, None, None) => return Some(TunnelKind::Ipip),
            (TunnelType::Gre, None, _) => return Some(TunnelKind::Gre { checksum }),
        };
        refused.into_iter().for_each(|draft| drafts.push(draft));
        None
    }
}

/// The place of the first value, else of the keyword.
fn place(stmt: &Stmt) -> Span {
    stmt.args
        .first()
        .map_or(stmt.keyword.span, |word| word.span)
}

fn set_algo(draft: &mut ServerDraft, stmt: &Given<'_>, drafts: &mut Drafts) {
    let Some(word) = stmt.one(drafts) else {
        return;
    };
    let found = Scheduler::ALL.into_iter().find(|s| s.name() == word.text);
    // A value that was said, if wrongly, is not missing as well: no second complaint.
    let counts = draft.lb_algo.unwrap_or(defaults::LB_ALGO);
    if found.is_none() {
        let algo = quoted(&word.text);
        let message = format!("{algo} is not a scheduler: {} counts", counts.name());
        let hint = Scheduler::ALL.map(Scheduler::name).join(", ");
        drafts.push(Draft::warning(word.span, message).hint(hint));
    }
    draft.lb_algo = Some(found.unwrap_or(counts));
}

fn set_kind(draft: &mut ServerDraft, stmt: &Given<'_>, drafts: &mut Drafts) {
    let counts = draft.lb_kind.unwrap_or(defaults::LB_KIND);
    draft.lb_kind = Some(lb_kind(stmt, counts.name(), drafts).unwrap_or(counts));
}

fn set_protocol(draft: &mut ServerDraft, stmt: &Given<'_>, drafts: &mut Drafts) {
    let Some(word) = stmt.one(drafts) else {
        return;
    };
    let mut all = [L4Proto::Tcp, L4Proto::Udp, L4Proto::Sctp].into_iter();
    let found = all.find(|protocol| word.text.eq_ignore_ascii_case(protocol.name()));
    let counts = draft.protocol.map_or(defaults::PROTOCOL, |said| said.value);
    if found.is_none() {
        let message = format!("{} is not a protocol: {counts} counts", quoted(&word.text));
        drafts.push(Draft::warning(word.span, message).hint("TCP, UDP or SCTP"));
    }
    draft.protocol = Some(At {
        value: found.unwrap_or(counts),
        span: word.span,
    });
}

fn set_persistence(draft: &mut ServerDraft, stmt: &Given<'_>, drafts: &mut Drafts) {
    let Some(word) = stmt.args.first() else {
        draft.persistence_timeout = Some(defaults::PERSISTENCE_TIMEOUT);
        return;
    };
    stmt.no_more(1, drafts);
    let limits = &defaults::PERSISTENCE;
    let seconds = value::integer(&word.text).filter(|read| limits.range.contains(&read.value));
    let Some(seconds) = seconds.and_then(|read| u64::try_from(read.value).ok()) else {
        let time = quoted(&word.text);
        let message =
            format!("persistence_timeout {time} is left out: nothing is persistent by it");
        drafts.push(Draft::warning(word.span, message).hint(limits.to_string()));
        return;
    };
    draft.persistence_timeout = Some(Duration::from_secs(seconds));
}

/// A flag that is of the scheduler before it, or of whatever scheduler there is.
fn set_flag(draft: &mut ServerDraft, stmt: &Given<'_>, drafts: &mut Drafts) {
    stmt.no_more(0, drafts);
    let (name, span) = (stmt.keyword.text.as_str(), stmt.keyword.span);
    let algo = draft.lb_algo.map_or("", Scheduler::name);
    match name.split_once('-') {
        Some(("flag", "3")) => {
            let message = "`flag-3` has no effect: no scheduler looks at it";
            drafts.push(Draft::warning(span, message));
        }
        Some(("flag", number)) => {
            let value = if number == "1" { "flag-1" } else { "flag-2" };
            draft.flags.numbered = Some(At { value, span });
            draft.flags.fallback |= number == "1";
            draft.flags.port |= number == "2";
        }
        Some((family, what)) if family == algo => {
            draft.flags.fallback |= what == "fallback";
            draft.flags.port |= what == "port";
        }
        _ => {
            let family = name.split('-').next().unwrap_or_default();
            let message = format!(
                "`{name}` has no effect: it is for `lb_algo {family}`, which it must follow"
            );
            drafts.push(Draft::warning(span, message));
        }
    }
}

pub(super) static SERVER: &[Keyword<ServerDraft>] = &[
    line(
        "lb_algo",
        APPLIED,
        "how a real server is picked for a new connection",
    )
    .default(Value::Word(defaults::LB_ALGO.name()))
    .read(set_algo),
    line("lvs_sched", APPLIED, "an older name of lb_algo").read(set_algo),
    line("sh-port", APPLIED, "`sh` hashes the client's port as well").read(set_flag),
    line(
        "sh-fallback",
        APPLIED,
        "`sh` replaces a real server that cannot take a connection",
    )
    .read(set_flag),
    line("mh-port", APPLIED, "`mh` hashes the client's port as well").read(set_flag),
    line(
        "mh-fallback",
        APPLIED,
        "`mh` replaces a real server that cannot take a connection",
    )
    .read(set_flag),
    line(
        "flag-1",
        APPLIED,
        "the first flag of the scheduler: fallback",
    )
    .read(set_flag),
    line("flag-2", APPLIED, "the second flag of the scheduler: port").read(set_flag),
    line("flag-3", APPLIED, "the third flag of the scheduler").read(set_flag),
    line(
        "ops",
        APPLIED,
        "each packet is scheduled for itself; UDP and marks only",
    )
    .words(NO_VALUE)
    .read(|draft, stmt, drafts| {
        stmt.no_more(0, drafts);
        draft.ops = Some(stmt.keyword.span);
    }),
    line(
        "lb_kind",
        APPLIED,
        "how packets reach real servers: NAT, DR or TUN",
    )
    .default(Value::Word(defaults::LB_KIND.name()))
    .read(set_kind),
    line("lvs_method", APPLIED, "another name of lb_kind").read(set_kind),
    line("protocol", APPLIED, "TCP, UDP or SCTP, in any case")
        .default(Value::Word(defaults::PROTOCOL.name()))
        .read(set_protocol),
    line(
        "ip_family",
        APPLIED,
        "the family of packets with a mark: inet or inet6",
    )
    .read(|draft, stmt, drafts| {
        let read = stmt.one(drafts).and_then(|word| family(word, drafts));
        let read = read.map(|value| At {
            value,
            span: place(stmt),
        });
        draft.family = read.or(draft.family);
    }),
    line(
        "persistence_timeout",
        APPLIED,
        "how long a client keeps its real server; without a number 360",
    )
    .number(&defaults::PERSISTENCE)
    .read(set_persistence),
    line(
        "persistence_granularity",
        APPLIED,
        "clients within one network of this length are one client",
    )
    .read(|draft, stmt, drafts| {
        // The family may not be known yet.
        draft.granularity = stmt.one(drafts).map(|word| At {
            value: word.text.clone(),
            span: word.span,
        });
    }),
    line(
        "omega",
        UNAPPLIED,
        "notify_down and quorum_down run at the stop",
    )
    .words(NO_VALUE)
    .read(|draft, stmt, drafts| {
        draft.omega = stmt.flag(drafts);
    }),
    line(
        "quorum",
        APPLIED,
        "weight of real servers that are up below which the sorry server takes over",
    )
    .number(&defaults::QUORUMS)
    .default(Value::Number(defaults::QUORUM))
    .read(|draft, stmt, drafts| {
        let value = stmt.number(drafts);
        draft.quorum = value.map(|value| At {
            value,
            span: place(stmt),
        });
    }),
    line(
        "hysteresis",
        APPLIED,
        "how far the weight must pass the quorum before that changes back",
    )
    .number(&defaults::HYSTERESES)
    .default(Value::Number(defaults::HYSTERESIS))
    .read(|draft, stmt, drafts| {
        let value = stmt.number(drafts);
        draft.hysteresis = value.map(|value| At {
            value,
            span: place(stmt),
        });
    }),
    line(
        "weight",
        APPLIED,
        "the weight of real servers that do not say theirs",
    )
    .number(&defaults::VS_WEIGHT)
    .default(Value::Number(defaults::WEIGHT))
    .read(|draft, stmt, drafts| {
        stmt.set(&mut draft.weight, drafts);
    }),
    line(
        "inhibit_on_failure",
        APPLIED,
        "failed real servers keep their place at weight 0",
    )
    .words(NO_VALUE)
    .read(|draft, stmt, drafts| {
        draft.inhibit_on_failure = stmt.flag(drafts);
    }),
    line(
        "alpha",
        APPLIED,
        "real servers are down until their checks pass",
    )
    .words(NO_VALUE)
    .read(|draft, stmt, drafts| {
        draft.timing.alpha = Some(stmt.flag(drafts));
    }),
    line(
        "persistence_engine",
        REFUSED,
        "persistence by what packets say, like SIP's Call-ID",
    )
    .read(|draft, stmt, drafts| {
        draft.persistence_engine = stmt.text(drafts);
    }),
    line(
        "ha_suspend",
        UNAPPLIED,
        "checks rest while the address is not on this box; not with a mark",
    )
    .words(NO_VALUE)
    .read(|draft, stmt, drafts| {
        stmt.no_more(0, drafts);
        draft.ha_suspend = Some(stmt.keyword.span);
    }),
    line(
        "virtualhost",
        UNAPPLIED,
        "the name that HTTP checks ask for",
    )
    .read(|draft, stmt, drafts| {
        draft.virtualhost = stmt.text(drafts).map(Arc::from);
    }),
    line(
        "smtp_alert",
        UNAPPLIED,
        "whether mail about its quorum is sent; default as global_defs says, else no",
    )
    .words(BOOLEAN)
    .read(|draft, stmt, drafts| {
        draft.smtp_alert = stmt.boolean(drafts).or(draft.smtp_alert);
    }),
    line("snmp_name", IRRELEVANT, "its name in SNMP").read(|draft, stmt, drafts| {
        draft.snmp_name = stmt.text(drafts);
    }),
    line(
        "sorry_server",
        APPLIED,
        "where connections go while there is no quorum",
    )
    .read(|draft, stmt, drafts| {
        draft.sorry_server = endpoint(stmt, drafts);
    }),
    line(
        "sorry_server_inhibit",
        APPLIED,
        "the sorry server keeps its place at weight 0",
    )
    .words(NO_VALUE)
    .read(|draft, stmt, drafts| {
        stmt.no_more(0, drafts);
        draft.sorry_inhibit = Some(stmt.keyword.span);
    }),
    line(
        "sorry_server_lvs_method",
        APPLIED,
        "how packets reach the sorry server",
    )
    .read(|draft, stmt, drafts| {
        let read = lb_kind(stmt, "that of the virtual server", drafts);
        draft.sorry_kind = read.map(|value| At {
            value,
            span: stmt.keyword.span,
        });
    }),
    lines(
        "quorum_up",
        UNAPPLIED,
        "a script for a quorum that is reached",
    )
    .read(|d, s, x| add_script(&mut d.notify, NotifyEvent::QuorumUp, s, x)),
    lines(
        "quorum_down",
        UNAPPLIED,
        "a script for a quorum that is lost",
    )
    .read(|d, s, x| add_script(&mut d.notify, NotifyEvent::QuorumDown, s, x)),
    block(
        "real_server",
        APPLIED,
        "an address and a port that connections go to",
    )
    .read(|draft, stmt, drafts| {
        draft.real_servers.extend(RealDraft::read(stmt, drafts));
    }),
];

pub(super) static SERVER_KNOWN: &[Keyword<ServerDraft>] = &[
    name_only(
        "nat_mask",
        Support::Former("it needs no successor"),
        "the mask of networks behind NAT",
    ),
    name_only(
        "hashed",
        IRRELEVANT,
        "the virtual server is in IPVS's table",
    ),
];

pub(super) static REAL: &[Keyword<RealDraft>] = &[
    line("weight", APPLIED, "its share of new connections; 0 = none")
        .number(&defaults::RS_WEIGHT)
        .inherited()
        .read(|draft, stmt, drafts| {
            stmt.set(&mut draft.weight, drafts);
        }),
    line(
        "lvs_method",
        APPLIED,
        "how packets reach it: NAT, DR or TUN",
    )
    .read(|draft, stmt, drafts| {
        draft.lb_kind = lb_kind(stmt, "that of the virtual server", drafts).or(draft.lb_kind);
    }),
    line(
        "inhibit_on_failure",
        APPLIED,
        "whether it keeps its place at weight 0 when it fails",
    )
    .words(BOOLEAN)
    .read(|draft, stmt, drafts| {
        draft.inhibit_on_failure = stmt.boolean(drafts).or(draft.inhibit_on_failure);
    }),
    line(
        "uthreshold",
        APPLIED,
        "connections from which on it gets no new ones; 0 = no limit",
    )
    .number(&defaults::THRESHOLD)
    .default(Value::Number(0))
    .read(|draft, stmt, drafts| {
        stmt.set(&mut draft.uthreshold, drafts);
    }),
    line(
        "lthreshold",
        APPLIED,
        "connections below which it gets new ones again; 0 = three quarters of uthreshold",
    )
    .number(&defaults::THRESHOLD)
    .default(Value::Number(0))
    .read(|draft, stmt, drafts| {
        let value = stmt.number(drafts);
        draft.lthreshold = value.map(|value| At {
            value,
            span: place(stmt),
        });
    }),
    lines(
        "notify_up",
        UNAPPLIED,
        "a script for a real server that comes up",
    )
    .read(|d, s, x| add_script(&mut d.notify, NotifyEvent::Up, s, x)),
    lines(
        "notify_down",
        UNAPPLIED,
        "a script for a real server that goes down",
    )
    .read(|d, s, x| add_script(&mut d.notify, NotifyEvent::Down, s, x)),
    block(
        "TCP_CHECK",
        APPLIED,
        "up while a TCP connection can be made",
    )
    .read(|draft, stmt, drafts| draft.checkers.push(checker::tcp(stmt, drafts))),
    name_only(
        "lb_kind",
        Support::Former("use `lvs_method`"),
        "how packets reach it",
    ),
    name_only(
        "nat_mask",
        Support::Former("it needs no successor"),
        "the mask of networks behind NAT",
    ),
    line(
        "virtualhost",
        UNAPPLIED,
        "the name that HTTP checks ask for",
    )
    .read(|draft, stmt, drafts| {
        draft.virtualhost = stmt.text(drafts).map(Arc::from);
    }),
    line(
        "smtp_alert",
        UNAPPLIED,
        "whether mail about it is sent; default as global_defs says, else yes",
    )
    .words(BOOLEAN)
    .read(|draft, stmt, drafts| {
        draft.smtp_alert = stmt.boolean(drafts).or(draft.smtp_alert);
    }),
    line("snmp_name", IRRELEVANT, "its name in SNMP").read(|draft, stmt, drafts| {
        draft.snmp_name = stmt.text(drafts);
    }),
];

/// Checkers that this version does not run. Their real servers would be up whatever happens, so that they are refused.
pub(super) static REFUSED_CHECKERS: &[Keyword<RealDraft>] = &[
    block(
        "HTTP_GET",
        REFUSED,
        "up while pages come with the right status or content",
    )
    .read(|draft, stmt, drafts| draft.checkers.extend(checker::http_get(stmt, drafts))),
    block("SSL_GET", REFUSED, "as HTTP_GET, over TLS")
        .read(|draft, stmt, drafts| draft.checkers.extend(checker::ssl_get(stmt, drafts))),
    block("SMTP_CHECK", REFUSED, "up while the mail server greets")
        .read(|draft, stmt, drafts| draft.checkers.push(checker::smtp(stmt, drafts))),
    block("DNS_CHECK", REFUSED, "up while a name is answered for")
        .read(|draft, stmt, drafts| draft.checkers.push(checker::dns(stmt, drafts))),
    block("MISC_CHECK", REFUSED, "up while a script says so")
        .read(|draft, stmt, drafts| draft.checkers.extend(checker::misc(stmt, drafts))),
    block(
        "UDP_CHECK",
        REFUSED,
        "up while no ICMP error answers a datagram, or while one is answered",
    )
    .read(|draft, stmt, drafts| draft.checkers.push(checker::udp(stmt, drafts))),
    block("PING_CHECK", REFUSED, "up while echo requests are answered")
        .read(|draft, stmt, drafts| draft.checkers.push(checker::ping(stmt, drafts))),
    block("BFD_CHECK", REFUSED, "up while a BFD session is")
        .only_here()
        .read(|draft, stmt, drafts| draft.checkers.extend(checker::bfd(stmt, drafts))),
    block(
        "FILE_CHECK",
        REFUSED,
        "up while the number in a file says so",
    )
    .only_here()
    .read(|draft, stmt, drafts| draft.checkers.extend(checker::file(stmt, drafts))),
];
