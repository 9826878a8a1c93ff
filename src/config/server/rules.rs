//! The keywords of `virtual_server` and `real_server`, one by one.

use std::time::Duration;

use super::{
    super::{
        checker::{self, CheckerDraft},
        defaults,
        diagnostic::{Draft, Drafts, quoted},
        lexer::Word,
        model::NotifyEvent,
        source::Span,
        support,
        tree::Stmt,
        walk::{self, At, Rule, add_script, block, judge, line, lines, name},
    },
    RealDraft, ServerDraft, endpoint,
};
use crate::{
    addr::{Family, L4Proto},
    lvs::{LbKind, Scheduler, TunnelKind},
};

fn scheduler(word: &Word, drafts: &mut Drafts) -> Option<Scheduler> {
    let found = Scheduler::ALL.into_iter().find(|s| s.name() == word.text);
    if found.is_none() {
        let message = format!("{} is not a scheduler", quoted(&word.text));
        let hint = Scheduler::ALL.map(Scheduler::name).join(", ");
        drafts.push(Draft::error(word.span, message).hint(hint));
    }
    found
}

/// `lb_kind`, `lvs_method`; a tunnel may have options behind it. `None` for what is no method.
fn lb_kind(stmt: &Stmt, drafts: &mut Drafts) -> Option<LbKind> {
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
            let message = format!("{} is not a forwarding method", quoted(&word.text));
            drafts.push(Draft::error(word.span, message).hint("NAT, DR or TUN"));
            return None;
        }
    };
    stmt.no_more(1, drafts);
    Some(kind)
}

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
                    let message = format!("{} needs a value", quoted(text));
                    drafts.push(Draft::error(*span, message));
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
                            let message = format!("{} is not a tunnel", quoted(other));
                            let draft = Draft::error(word.span, message);
                            drafts.push(draft.hint("ipip, gue or gre"));
                            return None;
                        }
                    };
                    continue;
                }
                "port" => {
                    let word = value()?;
                    draft.port = Some(At {
                        value: walk::number(word, "port", &defaults::PORT, drafts)?,
                        span: word.span,
                    });
                    continue;
                }
                "nocsum" => None,
                "csum" => Some(Checksum::Full),
                "remcsum" => Some(Checksum::Remote),
                _ => {
                    let message = format!("unknown option {} of a tunnel", quoted(text));
                    let hint = "type, port, nocsum, csum or remcsum";
                    drafts.push(Draft::error(*span, message).hint(hint));
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
                let draft = Draft::error(span, "`type gue` needs a port");
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
            (_, Some(port), _) => Some(Draft::error(port.span, "only `type gue` has a port")),
            (TunnelType::Ipip, None, Some(At { span, .. })) => {
                Some(Draft::error(span, "`type ipip` has no checksum"))
            }
            (TunnelType::Gre, None, Some(sum)) if sum.value == Checksum::Remote => {
                Some(Draft::error(sum.span, "`remcsum` needs `type gue`"))
            }
            (TunnelType::Ipip, None, None) => return Some(TunnelKind::Ipip),
            (TunnelType::Gre, None, _) => return Some(TunnelKind::Gre { checksum }),
        };
        refused.into_iter().for_each(|draft| drafts.push(draft));
        None
    }
}

/// `protocol`, in any case.
pub(in super::super) fn protocol(stmt: &Stmt, drafts: &mut Drafts) -> Option<L4Proto> {
    let word = stmt.one(drafts)?;
    let found = [L4Proto::Tcp, L4Proto::Udp, L4Proto::Sctp]
        .into_iter()
        .find(|protocol| word.text.eq_ignore_ascii_case(protocol.name()));
    if found.is_none() {
        let message = format!("{} is not a protocol", quoted(&word.text));
        drafts.push(Draft::error(word.span, message).hint("TCP, UDP or SCTP"));
    }
    found
}

/// `inet` or `inet6`.
pub(in super::super) fn family(word: &Word, drafts: &mut Drafts) -> Option<Family> {
    let mut families = [Family::V4, Family::V6].into_iter();
    let found = families.find(|family| family.name() == word.text);
    if found.is_none() {
        let message = format!("{} is not a family", quoted(&word.text));
        drafts.push(Draft::error(word.span, message).hint("inet or inet6"));
    }
    found
}

/// The place of the first value, else of the keyword.
fn place(stmt: &Stmt) -> Span {
    stmt.args
        .first()
        .map_or(stmt.keyword.span, |word| word.span)
}

fn set_algo(draft: &mut ServerDraft, stmt: &Stmt, drafts: &mut Drafts) {
    // A value that was said, if wrongly, is not missing as well: no second complaint.
    let said = stmt.one(drafts).and_then(|word| scheduler(word, drafts));
    draft.lb_algo = Some(said.unwrap_or(defaults::LB_ALGO));
}

fn set_kind(draft: &mut ServerDraft, stmt: &Stmt, drafts: &mut Drafts) {
    draft.lb_kind = Some(lb_kind(stmt, drafts).unwrap_or(defaults::LB_KIND));
}

fn set_flag(draft: &mut ServerDraft, stmt: &Stmt, drafts: &mut Drafts) {
    stmt.no_more(0, drafts);
    draft.flags.push(At {
        value: stmt.keyword.text.clone(),
        span: stmt.keyword.span,
    });
}

pub(super) static SERVER: &[Rule<ServerDraft>] = &[
    line("lb_algo", set_algo),
    line("lvs_sched", set_algo),
    line("sh-port", set_flag),
    line("sh-fallback", set_flag),
    line("mh-port", set_flag),
    line("mh-fallback", set_flag),
    line("flag-1", set_flag),
    line("flag-2", set_flag),
    line("flag-3", set_flag),
    line("ops", |draft, stmt, drafts| {
        stmt.no_more(0, drafts);
        draft.ops = Some(stmt.keyword.span);
    }),
    line("lb_kind", set_kind),
    line("lvs_method", set_kind),
    line("protocol", |draft, stmt, drafts| {
        draft.protocol = Some(At {
            value: protocol(stmt, drafts).unwrap_or(defaults::PROTOCOL),
            span: place(stmt),
        });
    }),
    line("ip_family", |draft, stmt, drafts| {
        let read = stmt.one(drafts).and_then(|word| family(word, drafts));
        draft.family = read.map(|value| At {
            value,
            span: place(stmt),
        });
    }),
    line("persistence_timeout", |draft, stmt, drafts| {
        if stmt.args.is_empty() {
            draft.persistence_timeout = Some(defaults::PERSISTENCE_TIMEOUT);
        } else if let Some(seconds) = stmt.number::<u32>(&defaults::PERSISTENCE, drafts) {
            draft.persistence_timeout = Some(Duration::from_secs(seconds.into()));
        }
    }),
    line("persistence_granularity", |draft, stmt, drafts| {
        // The family may not be known yet.
        draft.granularity = stmt.one(drafts).map(|word| At {
            value: word.text.clone(),
            span: word.span,
        });
    }),
    line("omega", |draft, stmt, drafts| {
        draft.omega = stmt.flag(drafts);
    }),
    line("quorum", |draft, stmt, drafts| {
        let value = stmt.number(&defaults::QUORUMS, drafts);
        draft.quorum = value.map(|value| At {
            value,
            span: place(stmt),
        });
    }),
    line("hysteresis", |draft, stmt, drafts| {
        let value = stmt.number(&defaults::HYSTERESES, drafts);
        draft.hysteresis = value.map(|value| At {
            value,
            span: place(stmt),
        });
    }),
    line("weight", |draft, stmt, drafts| {
        draft.weight = stmt.number(&defaults::VS_WEIGHT, drafts);
    }),
    line("inhibit_on_failure", |draft, stmt, drafts| {
        draft.inhibit_on_failure = stmt.boolean(drafts).unwrap_or_default();
    }),
    line("sorry_server", |draft, stmt, drafts| {
        draft.sorry_server = endpoint(stmt, drafts);
    }),
    line("sorry_server_inhibit", |draft, stmt, drafts| {
        stmt.no_more(0, drafts);
        draft.sorry_inhibit = Some(stmt.keyword.span);
    }),
    line("sorry_server_lvs_method", |draft, stmt, drafts| {
        let read = lb_kind(stmt, drafts);
        draft.sorry_kind = read.map(|value| At {
            value,
            span: stmt.keyword.span,
        });
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

pub(super) static SERVER_KNOWN: &[Rule<ServerDraft>] = &[
    name("nat_mask"),
    name("hashed"),
    name("persistence_engine"),
    name("ha_suspend"),
    name("virtualhost"),
    name("smtp_alert"),
    name("snmp_name"),
];

pub(super) static REAL: &[Rule<RealDraft>] = &[
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
        let value = stmt.number(&defaults::THRESHOLD, drafts);
        draft.lthreshold = value.map(|value| At {
            value,
            span: place(stmt),
        });
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
pub(super) static REFUSED_CHECKERS: &[Rule<RealDraft>] = &[
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
