//! What stands outside of `global_defs` and concerns the process and the interfaces of the host.

use std::{collections::HashMap, time::Duration};

use super::{
    defaults,
    diagnostic::{Draft, Drafts},
    global::pause,
    keyword::{Keyword, Table, WITH_BLOCK, block, line},
    model::{GarpGroup, LinkPoll, Linkbeat, UpDownDelay, VrrpInstance},
    read::{self, At, interface},
    source::{Span, quoted},
    tree::Stmt,
    unique::Unique,
    walk::walk,
};

pub(super) static GARP_GROUP: Table<GarpGroup> = Table {
    block: "garp_group",
    keywords: &[GARP_GROUP_KEYWORDS],
};

static GARP_GROUP_KEYWORDS: &[Keyword<GarpGroup>] = &[
    line(
        "garp_interval",
        WITH_BLOCK,
        "pause between two gratuitous ARPs",
    )
    .time(&defaults::GARP_INTERVAL)
    .read(|group, stmt, drafts| group.garp_interval = Some(pause(stmt, drafts))),
    line(
        "gna_interval",
        WITH_BLOCK,
        "pause between two unsolicited neighbour advertisements",
    )
    .time(&defaults::GARP_INTERVAL)
    .read(|group, stmt, drafts| group.gna_interval = Some(pause(stmt, drafts))),
    line("interface", WITH_BLOCK, "the interface that is paced").read(|group, stmt, drafts| {
        let name = stmt.one(drafts).and_then(|word| interface(word, drafts));
        group.interfaces.extend(name);
    }),
    block(
        "interfaces",
        WITH_BLOCK,
        "the interfaces that are paced together, one a line",
    )
    .read(|group, stmt, drafts| {
        stmt.no_more(0, drafts);
        for entry in stmt.body() {
            entry.no_more(0, drafts);
            group.interfaces.extend(interface(&entry.keyword, drafts));
        }
    }),
];

/// Reads a `garp_group` block.
pub(super) fn garp_group(stmt: &Stmt, drafts: &mut Drafts) -> Option<GarpGroup> {
    stmt.no_more(0, drafts);
    let mut group = GarpGroup::default();
    walk(&mut group, stmt.body(), &GARP_GROUP, drafts);
    if group.interfaces.is_empty() {
        let message = "a garp_group without an interface is ignored";
        drafts.push(Draft::warning(stmt.keyword.span, message));
        return None;
    }
    Some(group)
}

/// Reads `interface_up_down_delays`: `INTERFACE DOWN [UP]`, one a line.
pub(super) fn up_down_delays(list: &mut Unique<At<UpDownDelay>>, stmt: &Stmt, drafts: &mut Drafts) {
    stmt.no_more(0, drafts);
    for entry in stmt.body() {
        let Some(interface) = interface(&entry.keyword, drafts) else {
            continue;
        };
        let limits = &defaults::UP_DOWN_DELAY;
        let time = |word, drafts: &mut Drafts| read::time(word, "a delay", limits, drafts);
        let Some(down) = entry.first(drafts).and_then(|word| time(word, drafts)) else {
            continue;
        };
        entry.no_more(2, drafts);
        let up = entry.args.get(1).and_then(|word| time(word, drafts));
        let value = UpDownDelay {
            interface: interface.clone(),
            down,
            up: up.unwrap_or(Duration::ZERO),
        };
        let span = entry.keyword.span;
        if !list.insert(&interface, At { value, span }) {
            let message = format!("{} has its delays already", quoted(&interface));
            drafts.push(Draft::warning(span, message));
        }
    }
}

/// Shortens delays that an instance's backups would not wait for, as keepalived does.
pub(super) fn shorten_delays(
    list: &mut [At<UpDownDelay>],
    instances: &[(Span, VrrpInstance)],
    drafts: &mut Drafts,
) {
    // Of each interface the instance whose backups wait least.
    let mut concerned: HashMap<&str, (Duration, &VrrpInstance)> = HashMap::new();
    for (_, instance) in instances {
        let adverts = u32::from(instance.down_timer_adverts).saturating_sub(1);
        let patience = (instance.advert_int * adverts).saturating_sub(defaults::SKEW_STEP);
        let tracked = instance.track_interface.iter();
        let tracked = tracked.map(|entry| &entry.interface);
        for interface in tracked.chain([&instance.interface]) {
            let least = concerned.entry(interface).or_insert((patience, instance));
            if patience < least.0 {
                *least = (patience, instance);
            }
        }
    }
    for At { value, span } in list {
        let Some((most, instance)) = concerned.get(value.interface.as_str()).copied() else {
            continue;
        };
        if value.down.max(value.up) <= most {
            continue;
        }
        let (interface, shown) = (quoted(&value.interface), most.as_secs_f64());
        let message = format!("the delay of {interface} is cut to {shown} s");
        let name = quoted(&instance.name);
        let hint = format!("a backup of vrrp_instance {name} takes over before a longer one ends");
        drafts.push(Draft::warning(*span, message).hint(hint));
        value.down = value.down.min(most);
        value.up = value.up.min(most);
    }
}

/// Reads `linkbeat_interfaces`: `INTERFACE [MII|ETHTOOL|IOCTL]`, one a line.
pub(super) fn linkbeats(list: &mut Vec<Linkbeat>, stmt: &Stmt, drafts: &mut Drafts) {
    stmt.no_more(0, drafts);
    for entry in stmt.body() {
        let Some(interface) = interface(&entry.keyword, drafts) else {
            continue;
        };
        entry.no_more(1, drafts);
        let by = entry.args.first().and_then(|word| {
            let found = LinkPoll::WORDS.iter().position(|known| *known == word.text);
            if found.is_none() {
                let message = format!("{} is no way to poll a link", quoted(&word.text));
                drafts.push(Draft::warning(word.span, message).hint("MII, ETHTOOL or IOCTL"));
            }
            found.map(|at| LinkPoll::ALL[at])
        });
        list.push(Linkbeat { interface, by });
    }
}
