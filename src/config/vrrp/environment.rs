//! Keywords of `vrrp_instance` about what is watched, who is told, and what the host has to do.

use std::time::Duration;

use super::{
    super::{
        defaults::{self, TimeLimits},
        diagnostic::{Draft, Drafts},
        keyword::{
            APPLIED, BY_VALUE, FromGiven, Given, Keyword, REFUSED, UNAPPLIED, block, line, lines,
            plain_keywords,
        },
        model::{ExtraGarp, NotifyEvent, Vmac},
        read::{self, At, add_script, interface},
        routes,
        source::quoted,
        support::{Support, judge_missing},
        tracking,
        tree::Stmt,
    },
    InstanceDraft, hmac,
};

const ADDRESSES_SAY: Support =
    Support::Irrelevant("the addresses themselves say which family they are of");
const READ_ONLY: Support =
    Support::Irrelevant("keepalived reads it, too, and does nothing with it");
const LINKS_ARE_TOLD: Support =
    Support::Irrelevant("the kernel tells of every change of a link at once");

fn track(draft: &mut InstanceDraft, stmt: &Given<'_>, drafts: &mut Drafts) {
    tracking::track(&mut draft.trackers, stmt, drafts);
}

pub(super) static TRACK: &[Keyword<InstanceDraft>] = &[
    block(
        "track_interface",
        BY_VALUE,
        "interfaces whose loss costs priority or means FAULT",
    )
    .read(|draft, stmt, drafts| {
        tracking::interfaces(&mut draft.trackers.interfaces, stmt, drafts);
    }),
    block(
        "track_script",
        BY_VALUE,
        "scripts whose results change the priority or mean FAULT",
    )
    .read(track),
    block(
        "track_file",
        BY_VALUE,
        "files whose numbers change the priority or mean FAULT",
    )
    .only_here()
    .read(track),
    block(
        "track_process",
        BY_VALUE,
        "processes whose absence changes the priority or means FAULT",
    )
    .only_here()
    .read(track),
    block(
        "track_bfd",
        BY_VALUE,
        "BFD sessions whose loss changes the priority or means FAULT",
    )
    .read(track),
    block(
        "virtual_routes",
        BY_VALUE,
        "routes of the MASTER, one a line",
    )
    .read(|draft, stmt, drafts| {
        routes::routes(&mut draft.routes, stmt, drafts);
        if !draft.routes.is_empty() {
            let missing = "routes of the MASTER are not made";
            judge_missing(
                REFUSED,
                "`virtual_routes`",
                missing,
                stmt.keyword.span,
                drafts,
            );
        }
    }),
    block(
        "virtual_rules",
        BY_VALUE,
        "routing rules of the MASTER, one a line",
    )
    .read(|draft, stmt, drafts| {
        routes::rules(&mut draft.rules, stmt, drafts);
        if !draft.rules.is_empty() {
            let missing = "routing rules of the MASTER are not made";
            judge_missing(
                REFUSED,
                "`virtual_rules`",
                missing,
                stmt.keyword.span,
                drafts,
            );
        }
    }),
    block("auth_hmac", REFUSED, "adverts are signed with HMAC-SHA-256")
        .later()
        .read(|draft, stmt, drafts| draft.auth_hmac = hmac::read(stmt, drafts)),
];

pub(super) static NOTIFY: &[Keyword<InstanceDraft>] = &[
    lines(
        "notify_deleted",
        UNAPPLIED,
        "DELETED instead of FAULT for an instance that a reload removes, and a script for it",
    )
    .words("nothing, or a command (in quotes with its arguments), a user and a group")
    .read(|draft, stmt, drafts| {
        draft.further.notify_deleted = stmt.args.is_empty();
        if !stmt.args.is_empty() {
            add_script(&mut draft.notify, NotifyEvent::Deleted, stmt, drafts);
        }
    }),
    lines(
        "notify_master_rx_lower_pri",
        UNAPPLIED,
        "a script for a lower advert that a MASTER receives",
    )
    .script()
    .read(|d, s, x| {
        add_script(&mut d.notify, NotifyEvent::MasterRxLowerPri, s, x);
    }),
];

plain_keywords! { pub(super) static PLAIN: InstanceDraft [further];
    "promote_secondaries": UNAPPLIED, "the interface keeps its other addresses when the first one goes", flag() => promote_secondaries;
    "unicast_fault_no_peer": UNAPPLIED, "FAULT when no peer is given", flag() => unicast_fault_no_peer;
    "old_unicast_checksum": UNAPPLIED, "checksums of unicast in version 3 as keepalived 1.3.6 had them; never: nor are they looked for", names(1) => old_unicast_checksum;
    "track_src_ip": UNAPPLIED, "FAULT when the source address leaves the interface", flag() => track_src_ip;
    "vrf": REFUSED, "the VRF of an instance without an interface", text(defaults::INTERFACE_NAME_BYTES) => vrf;
    "use_vmac_addr": REFUSED, "virtual MAC addresses for addresses on other interfaces", flag() => use_vmac_addr;
    "vmac_xmit_base": UNAPPLIED, "adverts leave from the interface below the virtual MAC's", flag() => vmac_xmit_base;
    "use_ipvlan": REFUSED, "an ipvlan interface for the addresses: its name, its address and its mode", names(3) => use_ipvlan;
    "timer_expired_backup": UNAPPLIED, "a MASTER whose timer was so late becomes BACKUP", later(), number(&defaults::U32) => timer_expired_backup;
    "thread_timer_expired": UNAPPLIED, "adverts are dropped after so long a delay of the process", later(), number(&defaults::U32) => thread_timer_expired;
    "garp_extra_if": UNAPPLIED, "time between gratuitous ARPs on other interfaces, with a virtual MAC or all", words("seconds up to 86400, with all before them or not; 0 = none") => garp_extra_if;
    "vmac_garp_intvl": UNAPPLIED, "time between gratuitous ARPs on other interfaces, with a virtual MAC or all", words("seconds up to 86400, with all before them or not; 0 = none"), old_name_of("garp_extra_if") => garp_extra_if;
    "owner_ignore_adverts": UNAPPLIED, "whether the owner of the addresses ignores adverts", later(), boolean() => owner_ignore_adverts;
    "kernel_rx_buf_size": UNAPPLIED, "bytes that the kernel keeps of adverts which are not read yet", number(&defaults::U32) => kernel_rx_buf_size;
    "debug": READ_ONLY, "how much is logged", number(&defaults::DEBUG) => debug;
    "notify_priority_changes": UNAPPLIED, "whether changes of priority are written to the pipes, too", boolean() => notify_priority_changes;
    "smtp_alert": UNAPPLIED, "mail about this instance; default smtp_alert_vrrp or smtp_alert of global_defs", boolean() => smtp_alert;
    "native_ipv6": ADDRESSES_SAY, "the addresses are IPv6's", flag() => native_ipv6;
    "linkbeat_use_polling": LINKS_ARE_TOLD, "the link is polled instead of watched", flag() => linkbeat_use_polling;
}

pub(super) static OTHER: &[Keyword<InstanceDraft>] = &[
    line(
        "strict_mode",
        BY_VALUE,
        "whether the instance keeps to the RFC; default vrrp_strict of global_defs",
    )
    .boolean()
    .read(|draft, stmt, drafts| {
        stmt.set(&mut draft.strict, drafts);
        if draft.strict == Some(true) {
            judge_strict(stmt, drafts);
        }
    }),
    line(
        "accept",
        APPLIED,
        "a MASTER takes packets to its addresses, the default but for strict mode",
    )
    .flag()
    .read(|draft, stmt, drafts| {
        let (value, span) = (stmt.flag(drafts), stmt.keyword.span);
        draft.accept = Some(At { value, span });
    }),
    line(
        "no_accept",
        UNAPPLIED,
        "a MASTER that does not own its addresses takes no packets to them",
    )
    .flag()
    .read(|draft, stmt, drafts| {
        let (value, span) = (!stmt.flag(drafts), stmt.keyword.span);
        draft.accept = Some(At { value, span });
    }),
    line(
        "no_virtual_ipaddress",
        APPLIED,
        "an instance without addresses is meant",
    )
    .later()
    .flag()
    .read(|draft, stmt, drafts| {
        draft.no_addresses = stmt.flag(drafts);
    }),
    line("use_vmac", REFUSED, "the virtual MAC address of VRRP")
        .words("[NAME] [MAC] [netlink_notify_msg] [group G]")
        .read(|draft, stmt, drafts| draft.use_vmac = Some(vmac(stmt, drafts))),
    line(
        "lvs_sync_daemon_interface",
        UNAPPLIED,
        "the interface over which connections are copied",
    )
    .old_name_of("lvs_sync_daemon")
    .read(|draft, stmt, drafts| {
        let name = stmt.one(drafts).and_then(|word| interface(word, drafts));
        draft.further.lvs_sync_daemon_interface = name;
    }),
];

/// What strict mode does besides changing what is configured.
pub(in super::super) fn judge_strict(stmt: &Stmt, drafts: &mut Drafts) {
    let what = format!(
        "{} beyond the rules of configuring",
        quoted(&stmt.keyword.text)
    );
    let missing = "adverts that are not the RFC's, and packets to addresses that the MASTER does not own, are dropped";
    judge_missing(UNAPPLIED, &what, missing, stmt.keyword.span, drafts);
}

impl FromGiven for ExtraGarp {
    fn from_given(given: &Given<'_>, drafts: &mut Drafts) -> Option<Self> {
        extra_garp(given, &defaults::GARP_EXTRA_OR_NONE, drafts)
    }
}

/// `[all] SECONDS`
pub(in super::super) fn extra_garp(
    stmt: &Stmt,
    limits: &TimeLimits,
    drafts: &mut Drafts,
) -> Option<ExtraGarp> {
    let all = stmt.args.first().is_some_and(|word| word.text == "all");
    let at = usize::from(all);
    stmt.no_more(at + 1, drafts);
    let Some(word) = stmt.args.get(at) else {
        let message = format!("{} needs a time", quoted(&stmt.keyword.text));
        drafts.push(Draft::warning(stmt.keyword.span, message).hint(limits.to_string()));
        return None;
    };
    let interval: Duration = read::time(word, &stmt.keyword.text, limits, drafts)?;
    Some(ExtraGarp { all, interval })
}

/// The options of `use_vmac`, in any order.
fn vmac(stmt: &Stmt, drafts: &mut Drafts) -> Vmac {
    let mut vmac = Vmac::default();
    let mut words = stmt.args.iter();
    while let Some(word) = words.next() {
        match word.text.as_str() {
            "netlink_notify_msg" => vmac.netlink_notify_msg = true,
            "group" => vmac.group = words.next().map(|word| word.text.clone()),
            text => match mac(text) {
                Some(mac) => vmac.mac = mac,
                None if vmac.name.is_none() => vmac.name = interface(word, drafts),
                None => {
                    let message = format!("{} is ignored", quoted(text));
                    drafts.push(Draft::warning(word.span, message));
                }
            },
        }
    }
    vmac
}

/// Five or six bytes of a MAC address.
fn mac(text: &str) -> Option<Vec<u8>> {
    let byte = |part: &str| {
        let short = (1..=2).contains(&part.len());
        short.then(|| u8::from_str_radix(part, 16).ok()).flatten()
    };
    let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
    bytes.filter(|bytes| matches!(bytes.len(), 5 | 6))
}
