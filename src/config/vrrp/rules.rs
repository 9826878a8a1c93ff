//! The keywords of `vrrp_instance`, one by one.

use std::{net::IpAddr, time::Duration};

use super::{
    super::{
        address, defaults,
        diagnostic::{Draft, Drafts},
        keyword::{APPLIED, BY_VALUE, Given, Keyword, Value, block, line, lines},
        model::{InitialState, UnicastPeer, VrrpVersion},
        read::{self, At, interface},
        source::quoted,
        support::{self, judge},
        tree::Stmt,
        value,
    },
    InstanceDraft,
};

/// `version`, `vrrp_version`.
pub(in super::super) fn version(stmt: &Stmt, drafts: &mut Drafts) -> Option<VrrpVersion> {
    let word = stmt.one(drafts)?;
    let version = match word.text.as_str() {
        "2" => VrrpVersion::V2,
        "3" => VrrpVersion::V3,
        _ => {
            let message = format!("{} is not a version of VRRP", quoted(&word.text));
            drafts
                .push(Draft::warning(word.span, message).hint("2 or 3; the statement is ignored"));
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
pub(in super::super) fn multicast_group(stmt: &Stmt, drafts: &mut Drafts) -> Option<IpAddr> {
    let group = stmt.vrrp_address(drafts)?;
    if !group.is_multicast() {
        let message = format!("{group} is not a multicast address");
        drafts.push(Draft::warning(stmt.args[0].span, message).hint("the default group counts"));
        return None;
    }
    Some(group)
}

/// `garp_*_repeat`: keepalived makes 0 a 1; more than [`defaults::GARP_MOST`] is our own limit.
pub(in super::super) fn garp_count(stmt: &Given<'_>, drafts: &mut Drafts) -> Option<u32> {
    if stmt.args.first().is_some_and(|word| word.text == "0") {
        let message = format!("{} 0 is taken as 1", stmt.keyword.text);
        drafts.push(Draft::warning(stmt.args[0].span, message));
        return Some(1);
    }
    let count = stmt.number::<u32>(drafts)?;
    let most = defaults::GARP_MOST;
    if count > most {
        let message = format!("{} {count} is taken as {most}", stmt.keyword.text);
        drafts.push(Draft::warning(stmt.args[0].span, message));
    }
    Some(count.min(most))
}

pub(super) static ROUTER: &[Keyword<InstanceDraft>] = &[
    lines("state", APPLIED, "the state at the start, MASTER or BACKUP")
        .default(Value::Word("BACKUP"))
        .read(|draft, stmt, drafts| {
            let Some(word) = stmt.one(drafts) else { return };
            let value = match word.text.as_str() {
                "MASTER" => InitialState::Master,
                "BACKUP" => InitialState::Backup,
                other => {
                    let message =
                        format!("{} is not a state; it is taken as BACKUP", quoted(other));
                    let hint = "MASTER or BACKUP, in upper case";
                    drafts.push(Draft::warning(word.span, message).hint(hint));
                    InitialState::Backup
                }
            };
            // As in keepalived, which lets nobody take MASTER back but by a word that is none.
            let is_kept = |first: At<InitialState>| {
                first.value == InitialState::Master && word.text == "BACKUP"
            };
            let kept = draft.state.is_some_and(is_kept);
            if draft.state.is_some_and(|first| first.value != value) {
                let which = if kept { "first" } else { "last" };
                let message = format!("a second state that differs: the {which} one counts");
                drafts.push(Draft::warning(word.span, message));
            }
            if !kept {
                draft.state = Some(At {
                    value,
                    span: word.span,
                });
            }
        }),
    line(
        "interface",
        APPLIED,
        "where adverts are sent and received, and addresses are put",
    )
    .read(|draft, stmt, drafts| {
        let Some(word) = stmt.one(drafts) else { return };
        if word.text == "lo" {
            let message = "VRRP cannot run on the loopback interface";
            drafts.push(Draft::error(word.span, message));
        }
        draft.interface = interface(word, drafts);
    }),
    line(
        "virtual_router_id",
        APPLIED,
        "the VRID: the same on every node, and no other router's on the network",
    )
    .number(&defaults::VRID)
    .read(|draft, stmt, drafts| {
        let Some(word) = stmt.one(drafts) else { return };
        let fits = |number: &i64| defaults::VRID.range.contains(number);
        let number = value::integer(&word.text).map(|read| read.value);
        let vrid = number
            .filter(fits)
            .and_then(|number| u8::try_from(number).ok());
        // A VRID that was said, if wrongly, is not missing as well.
        if vrid.is_none() {
            let message = format!("{} is no virtual_router_id", quoted(&word.text));
            drafts.push(Draft::error(word.span, message).hint(defaults::VRID.to_string()));
        }
        let (value, span) = (vrid.unwrap_or_default(), word.span);
        draft.virtual_router_id = Some(At { value, span });
    }),
    line(
        "priority",
        APPLIED,
        "who wins the election; 255 = owner of the addresses",
    )
    .number(&defaults::PRIORITIES)
    .default(Value::Number(defaults::PRIORITY as u32))
    .read(|draft, stmt, drafts| {
        // keepalived takes 100 in the place of a priority out of range.
        let value = stmt.number(drafts);
        draft.priority = value.or(Some(defaults::PRIORITY));
    }),
    line("version", APPLIED, "the version of VRRP, 2 or 3").read(|draft, stmt, drafts| {
        draft.version = version(stmt, drafts);
    }),
    line(
        "advert_int",
        APPLIED,
        "time between adverts; whole seconds in version 2, hundredths in version 3",
    )
    .time(&defaults::ADVERT_INTERVAL)
    .default(Value::Time(defaults::ADVERT_INT))
    .read(|draft, stmt, drafts| {
        let Some(value) = stmt.time(drafts) else {
            return;
        };
        draft.advert_int = Some(At {
            value,
            span: stmt.args[0].span,
        });
    }),
    line(
        "nopreempt",
        APPLIED,
        "a lower MASTER is left alone; needs `state BACKUP`",
    )
    .flag()
    .read(|draft, stmt, drafts| {
        let value = !stmt.flag(drafts);
        draft.preempt = Some(At {
            value,
            span: stmt.keyword.span,
        });
    }),
    line(
        "preempt",
        APPLIED,
        "a lower MASTER is replaced, the default",
    )
    .flag()
    .read(|draft, stmt, drafts| {
        let value = stmt.flag(drafts);
        draft.preempt = Some(At {
            value,
            span: stmt.keyword.span,
        });
    }),
    line(
        "preempt_delay",
        APPLIED,
        "how long a higher node waits before it replaces a lower MASTER",
    )
    .time(&defaults::PREEMPT_DELAY)
    .default(Value::Time(Duration::ZERO))
    .read(|draft, stmt, drafts| {
        let value = stmt.time(drafts);
        draft.preempt_delay = value.map(|value| At {
            value,
            span: stmt.keyword.span,
        });
    }),
    block(
        "authentication",
        APPLIED,
        "how adverts of version 2 are told from strangers'",
    )
    .read(|draft, stmt, drafts| {
        draft.auth.read(stmt, drafts);
    }),
];

pub(super) static NETWORK: &[Keyword<InstanceDraft>] = &[
    block(
        "virtual_ipaddress",
        APPLIED,
        "addresses of the MASTER, one a line, listed in adverts",
    )
    .read(|draft, stmt, drafts| {
        address::entries(&mut draft.addresses, stmt, drafts);
    }),
    block(
        "virtual_ipaddress_excluded",
        APPLIED,
        "addresses of the MASTER, one a line, not in adverts",
    )
    .read(|draft, stmt, drafts| {
        address::entries(&mut draft.excluded, stmt, drafts);
    }),
    line(
        "unicast_src_ip",
        APPLIED,
        "the source of unicast adverts; default the interface's address",
    )
    .read(|draft, stmt, drafts| {
        draft.source = source(stmt, drafts).or(draft.source);
    }),
    line(
        "mcast_src_ip",
        APPLIED,
        "the source of multicast adverts; default the interface's address",
    )
    .read(|draft, stmt, drafts| {
        draft.source = source(stmt, drafts).or(draft.source);
    }),
    line("mcast_dst_ip", APPLIED, "the multicast group of adverts").read(|draft, stmt, drafts| {
        draft.group = multicast_group(stmt, drafts);
    }),
    block(
        "unicast_peer",
        BY_VALUE,
        "the other nodes, one a line: adverts are unicast",
    )
    .read(|draft, stmt, drafts| {
        stmt.no_more(0, drafts);
        let mut peers = draft
            .peers
            .take()
            .map_or_else(Vec::new, |peers| peers.value);
        for entry in stmt.body() {
            let span = entry.keyword.span;
            peers.extend(unicast_peer(entry, drafts).map(|value| At { value, span }));
        }
        draft.peers = Some(At {
            value: peers,
            span: stmt.keyword.span,
        });
    }),
    line("unicast_ttl", APPLIED, "TTL of unicast adverts")
        .number(&defaults::TTL)
        .default(Value::Number(defaults::UNICAST_TTL as u32))
        .read(|draft, stmt, drafts| {
            stmt.set(&mut draft.unicast_ttl, drafts);
        }),
    line(
        "check_unicast_src",
        APPLIED,
        "adverts count only from peers that are configured",
    )
    .flag()
    .read(|draft, stmt, drafts| {
        draft.check_unicast_src = Some(stmt.flag(drafts));
    }),
    line(
        "dont_track_primary",
        APPLIED,
        "the loss of the own interface means no FAULT",
    )
    .flag()
    .read(|draft, stmt, drafts| {
        draft.dont_track_primary = stmt.flag(drafts);
    }),
    line(
        "skip_check_adv_addr",
        APPLIED,
        "whether the addresses in adverts of the same MASTER are looked at once only",
    )
    .boolean()
    .read(|draft, stmt, drafts| {
        stmt.set(&mut draft.skip_check_adv_addr, drafts);
    }),
    line(
        "down_timer_adverts",
        APPLIED,
        "missed adverts after which a BACKUP takes over",
    )
    .number(&defaults::DOWN_TIMER)
    .read(|draft, stmt, drafts| {
        let span = stmt.keyword.span;
        if let Some(value) = stmt.number(drafts) {
            draft.down_timer_adverts = Some(At { value, span });
        }
    }),
    line(
        "lower_prio_no_advert",
        APPLIED,
        "whether a MASTER leaves a lower advert unanswered",
    )
    .boolean()
    .read(|draft, stmt, drafts| {
        let span = stmt.keyword.span;
        if let Some(value) = stmt.boolean(drafts) {
            draft.lower_prio_no_advert = Some(At { value, span });
        }
    }),
    line(
        "higher_prio_send_advert",
        APPLIED,
        "whether a MASTER sends an advert before it gives way",
    )
    .boolean()
    .read(|draft, stmt, drafts| {
        let span = stmt.keyword.span;
        if let Some(value) = stmt.boolean(drafts) {
            draft.higher_prio_send_advert = Some(At { value, span });
        }
    }),
    line(
        "garp_master_delay",
        APPLIED,
        "when the second batch of gratuitous ARPs follows; 0 = none",
    )
    .time(&defaults::GARP_DELAY)
    .read(|draft, stmt, drafts| {
        stmt.set(&mut draft.garp.master_delay, drafts);
    }),
    line(
        "garp_master_repeat",
        APPLIED,
        "gratuitous ARPs of each address in a batch",
    )
    .number(&defaults::GARP_COUNT)
    .read(|draft, stmt, drafts| {
        draft.garp.master_repeat = garp_count(stmt, drafts);
    }),
    line(
        "garp_master_refresh",
        APPLIED,
        "time between batches while MASTER; 0 = none",
    )
    .time(&defaults::GARP_DELAY)
    .read(|draft, stmt, drafts| {
        stmt.set(&mut draft.garp.master_refresh, drafts);
    }),
    line(
        "garp_master_refresh_repeat",
        APPLIED,
        "gratuitous ARPs of each address in a refresh",
    )
    .number(&defaults::GARP_COUNT)
    .read(|draft, stmt, drafts| {
        draft.garp.master_refresh_repeat = garp_count(stmt, drafts);
    }),
    line(
        "garp_lower_prio_delay",
        APPLIED,
        "when the second batch follows after a lower advert; default that of the master",
    )
    .time(&defaults::GARP_DELAY)
    .read(|draft, stmt, drafts| {
        stmt.set(&mut draft.garp.lower_prio_delay, drafts);
    }),
    line(
        "garp_lower_prio_repeat",
        APPLIED,
        "gratuitous ARPs of each address after a lower advert; default that of the master",
    )
    .number(&defaults::GARP_COUNT)
    .read(|draft, stmt, drafts| {
        draft.garp.lower_prio_repeat = garp_count(stmt, drafts);
    }),
];

/// An address that adverts are sent from.
fn source(stmt: &Given<'_>, drafts: &mut Drafts) -> Option<At<IpAddr>> {
    let value = stmt.address(drafts)?;
    let span = stmt.args[0].span;
    Some(At { value, span })
}

fn unicast_peer(entry: &Stmt, drafts: &mut Drafts) -> Option<UnicastPeer> {
    let addr = read::address(&entry.keyword, drafts)?;
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
                drafts.push(Draft::warning(pair[0].span, message).hint(hint));
                return Some(peer);
            }
        };
        let Some(word) = pair.get(1) else {
            let message = format!("{} needs a value", quoted(&pair[0].text));
            drafts.push(Draft::warning(pair[0].span, message));
            break;
        };
        let what = quoted(&pair[0].text);
        judge(support::PEER_TTL, &what, pair[0].span, drafts);
        if let Some(ttl) = read::number(word, &pair[0].text, &defaults::TTL, drafts) {
            *field = ttl;
        }
    }
    Some(peer)
}
