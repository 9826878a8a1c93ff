//! The keywords of `vrrp_instance`, one by one.

use std::{net::IpAddr, time::Duration};

use super::super::{
    address, defaults,
    diagnostic::{Draft, Drafts},
    keyword::{
        APPLIED, BOOLEAN, BY_VALUE, Given, IRRELEVANT, Keyword, NO_VALUE, REFUSED, UNAPPLIED,
        Value, block, known, line, lines, word_with_block,
    },
    lexer::Word,
    model::{InitialState, NotifyEvent, TrackInterface, UnicastPeer, VrrpVersion},
    read::{self, At, add_script, interface},
    source::quoted,
    support::{self, judge},
    tree::Stmt,
};
use super::InstanceDraft;

/// `version`, `vrrp_version`.
pub(in super::super) fn version(stmt: &Stmt, drafts: &mut Drafts) -> Option<VrrpVersion> {
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
pub(in super::super) fn multicast_group(stmt: &Stmt, drafts: &mut Drafts) -> Option<IpAddr> {
    let group = stmt.vrrp_address(drafts)?;
    if !group.is_multicast() {
        let message = format!("{group} is not a multicast address");
        drafts.push(Draft::error(stmt.args[0].span, message));
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
        let value = stmt.number(drafts);
        // A VRID that was said, if wrongly, is not missing as well.
        let span = stmt
            .args
            .first()
            .map_or(stmt.keyword.span, |word| word.span);
        let value = value.unwrap_or_default();
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
    .words(NO_VALUE)
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
    .words(NO_VALUE)
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
        draft.source = stmt.vrrp_address(drafts);
    }),
    line(
        "mcast_src_ip",
        APPLIED,
        "the source of multicast adverts; default the interface's address",
    )
    .read(|draft, stmt, drafts| {
        draft.source = stmt.vrrp_address(drafts);
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
    line("unicast_ttl", APPLIED, "TTL of unicast adverts")
        .number(&defaults::TTL)
        .default(Value::Number(defaults::UNICAST_TTL as u32))
        .read(|draft, stmt, drafts| {
            draft.unicast_ttl = stmt.number(drafts);
        }),
    line(
        "check_unicast_src",
        APPLIED,
        "adverts count only from peers that are configured",
    )
    .words(NO_VALUE)
    .read(|draft, stmt, drafts| {
        draft.check_unicast_src = Some(stmt.flag(drafts));
    }),
    block(
        "track_interface",
        BY_VALUE,
        "interfaces whose loss costs priority or means FAULT",
    )
    .read(|draft, stmt, drafts| {
        for entry in stmt.body() {
            draft.track_interface.extend(track_entry(entry, drafts));
        }
    }),
    line(
        "dont_track_primary",
        APPLIED,
        "the loss of the own interface means no FAULT",
    )
    .words(NO_VALUE)
    .read(|draft, stmt, drafts| {
        draft.dont_track_primary = stmt.flag(drafts);
    }),
    line(
        "skip_check_adv_addr",
        APPLIED,
        "whether the addresses in adverts of the same MASTER are looked at once only",
    )
    .words(BOOLEAN)
    .read(|draft, stmt, drafts| {
        draft.skip_check_adv_addr = stmt.boolean(drafts);
    }),
    line(
        "down_timer_adverts",
        APPLIED,
        "missed adverts after which a BACKUP takes over",
    )
    .number(&defaults::DOWN_TIMER)
    .read(|draft, stmt, drafts| {
        draft.down_timer_adverts = stmt.number(drafts);
    }),
    line(
        "lower_prio_no_advert",
        APPLIED,
        "whether a MASTER leaves a lower advert unanswered",
    )
    .words(BOOLEAN)
    .read(|draft, stmt, drafts| {
        draft.lower_prio_no_advert = stmt.boolean(drafts);
    }),
    line(
        "higher_prio_send_advert",
        APPLIED,
        "whether a MASTER sends an advert before it gives way",
    )
    .words(BOOLEAN)
    .read(|draft, stmt, drafts| {
        draft.higher_prio_send_advert = stmt.boolean(drafts);
    }),
    line(
        "garp_master_delay",
        APPLIED,
        "when the second batch of gratuitous ARPs follows; 0 = none",
    )
    .time(&defaults::GARP_DELAY)
    .read(|draft, stmt, drafts| {
        draft.garp.master_delay = stmt.time(drafts);
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
        draft.garp.master_refresh = stmt.time(drafts);
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
        draft.garp.lower_prio_delay = stmt.time(drafts);
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

fn unicast_peer(entry: &Stmt, drafts: &mut Drafts) -> Option<UnicastPeer> {
    let addr = read::vrrp_address(&entry.keyword, drafts)?;
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
        if let Some(ttl) = read::number(word, &pair[0].text, &defaults::TTL, drafts) {
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
        _ => return read::number(word, "weight", &defaults::TRACK_WEIGHT, drafts),
    };
    let message = format!("weight {} is taken as {clamped}", word.text);
    drafts.push(Draft::warning(word.span, message));
    Some(clamped)
}

pub(super) static OTHER: &[Keyword<InstanceDraft>] = &[
    lines("notify", UNAPPLIED, "a script for every change of state")
        .read(|d, s, x| add_script(&mut d.notify, NotifyEvent::Any, s, x)),
    lines(
        "notify_master",
        UNAPPLIED,
        "a script for the change to MASTER",
    )
    .read(|d, s, x| add_script(&mut d.notify, NotifyEvent::Master, s, x)),
    lines(
        "notify_backup",
        UNAPPLIED,
        "a script for the change to BACKUP",
    )
    .read(|d, s, x| add_script(&mut d.notify, NotifyEvent::Backup, s, x)),
    lines(
        "notify_fault",
        UNAPPLIED,
        "a script for the change to FAULT",
    )
    .read(|d, s, x| add_script(&mut d.notify, NotifyEvent::Fault, s, x)),
    lines("notify_stop", UNAPPLIED, "a script for the stop")
        .read(|d, s, x| add_script(&mut d.notify, NotifyEvent::Stop, s, x)),
    lines(
        "notify_deleted",
        UNAPPLIED,
        "a script for an instance that a reload removes",
    )
    .read(|d, s, x| add_script(&mut d.notify, NotifyEvent::Deleted, s, x)),
    lines(
        "notify_master_rx_lower_pri",
        UNAPPLIED,
        "a script for a lower advert that a MASTER receives",
    )
    .read(|d, s, x| {
        add_script(&mut d.notify, NotifyEvent::MasterRxLowerPri, s, x);
    }),
    known(
        "accept",
        APPLIED,
        "a MASTER takes packets to its addresses, the default",
    ),
    known(
        "no_accept",
        UNAPPLIED,
        "a MASTER that does not own its addresses takes no packets to them",
    ),
    line(
        "no_virtual_ipaddress",
        APPLIED,
        "an instance without addresses is meant",
    )
    .words(NO_VALUE)
    .read(|draft, stmt, drafts| {
        draft.no_addresses = stmt.flag(drafts);
    }),
    known(
        "promote_secondaries",
        UNAPPLIED,
        "the interface keeps its other addresses when the first one goes",
    ),
    known("virtual_routes", REFUSED, "routes of the MASTER"),
    known("virtual_rules", REFUSED, "routing rules of the MASTER"),
    known("auth_hmac", REFUSED, "adverts are signed"),
    known(
        "unicast_fault_no_peer",
        UNAPPLIED,
        "FAULT when no peer can be reached",
    ),
    known(
        "old_unicast_checksum",
        IRRELEVANT,
        "checksums as keepalived 1.3.6 sent them",
    ),
    known(
        "track_src_ip",
        UNAPPLIED,
        "FAULT when the source address leaves the interface",
    ),
    known("vrf", REFUSED, "the VRF of the instance"),
    known("use_vmac", REFUSED, "the virtual MAC address of VRRP"),
    known(
        "use_vmac_addr",
        REFUSED,
        "virtual MAC addresses for addresses on other interfaces",
    ),
    known(
        "vmac_xmit_base",
        REFUSED,
        "adverts leave from the interface below the virtual MAC's",
    ),
    known(
        "use_ipvlan",
        REFUSED,
        "an ipvlan interface for the addresses",
    ),
    word_with_block(
        "track_script",
        REFUSED,
        "scripts whose results change the priority",
    )
    .unread(),
    known(
        "track_file",
        REFUSED,
        "files whose numbers change the priority",
    ),
    known(
        "track_process",
        REFUSED,
        "processes whose absence changes the priority",
    ),
    known(
        "track_bfd",
        REFUSED,
        "BFD sessions whose loss changes the priority",
    ),
    known(
        "strict_mode",
        REFUSED,
        "adverts and configurations against the RFC are refused",
    ),
    known(
        "timer_expired_backup",
        UNAPPLIED,
        "a MASTER that was late by so many adverts becomes BACKUP",
    ),
    known(
        "thread_timer_expired",
        UNAPPLIED,
        "adverts are dropped after so long a delay of the process",
    ),
    known(
        "garp_extra_if",
        UNAPPLIED,
        "time between gratuitous ARPs on other interfaces",
    ),
    known(
        "vmac_garp_intvl",
        UNAPPLIED,
        "an older name of garp_extra_if",
    ),
    known(
        "owner_ignore_adverts",
        UNAPPLIED,
        "the owner of the addresses ignores adverts",
    ),
    known(
        "kernel_rx_buf_size",
        UNAPPLIED,
        "receive buffer for adverts",
    ),
    known("debug", UNAPPLIED, "more is logged"),
    known(
        "notify_priority_changes",
        UNAPPLIED,
        "changes of priority are written to the pipes, too",
    ),
    known("smtp_alert", UNAPPLIED, "mail about this instance"),
    known(
        "lvs_sync_daemon_interface",
        UNAPPLIED,
        "the interface of IPVS's synchronisation",
    ),
    known("native_ipv6", IRRELEVANT, "addresses are IPv6's"),
    known(
        "linkbeat_use_polling",
        UNAPPLIED,
        "the link is polled instead of watched",
    ),
];
