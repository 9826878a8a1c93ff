//! `virtual_ipaddress`: one address a line, with the options of ip(8).

use std::net::{IpAddr, Ipv4Addr};

use super::{
    defaults,
    diagnostic::{Draft, Drafts},
    keyword::{APPLIED, Facts, REFUSED, Shape, UNAPPLIED},
    lexer::Word,
    model::VirtualAddress,
    read::{self, interface, judge_vrrp_address},
    similar::similar,
    source::{Span, quoted},
    support::{Support, judge_missing},
    tree::Stmt,
    value,
};
use crate::addr::{Family, IpPrefix};

/// An address of a list while it is read; the interface may still be the instance's.
#[derive(Debug)]
pub(super) struct Entry {
    address: VirtualAddress,
    span: Span,
}

impl Entry {
    pub(super) const fn span(&self) -> Span {
        self.span
    }

    /// The address.
    pub(super) const fn addr(&self) -> IpAddr {
        self.address.prefix.addr()
    }

    /// Says so when VRRP does nothing with the family of the address.
    pub(super) fn judge_family(&self, drafts: &mut Drafts) {
        judge_vrrp_address(self.addr(), self.span, drafts);
    }

    /// What makes it one address of the host: itself and its interface; without a `dev` that is
    /// `interface`.
    pub(super) fn place(&self, interface: &str) -> (IpAddr, String) {
        let dev = match self.address.dev.as_str() {
            "" => interface,
            dev => dev,
        };
        (self.address.prefix.addr(), dev.to_owned())
    }

    /// The finished address; without a `dev` it is on `interface`.
    pub(super) fn resolve(mut self, interface: &str) -> VirtualAddress {
        if self.address.dev.is_empty() {
            interface.clone_into(&mut self.address.dev);
        }
        self.address
    }
}

/// Reads the lines of a block.
pub(super) fn entries(list: &mut Vec<Entry>, stmt: &Stmt, drafts: &mut Drafts) {
    stmt.no_more(0, drafts);
    for line in stmt.body() {
        if line.block.is_some() {
            let message = "a list of addresses, one a line, has no blocks";
            drafts.push(Draft::warning(line.keyword.span, message));
        }
        list.extend(entry(line, drafts));
    }
}

/// Drops addresses that stand twice, in the list itself or in `others` as well.
pub(super) fn drop_repeats(list: &mut Vec<Entry>, others: &[Entry], drafts: &mut Drafts) {
    let key = |entry: &Entry| (entry.address.prefix.addr(), entry.address.dev.clone());
    let mut seen: std::collections::HashSet<_> = others.iter().map(key).collect();
    list.retain(|entry| {
        let new = seen.insert(key(entry));
        if !new {
            let message = format!(
                "{} is given again; it counts once",
                entry.address.prefix.addr()
            );
            drafts.push(Draft::warning(entry.span, message));
        }
        new
    });
}

fn entry(line: &Stmt, drafts: &mut Drafts) -> Option<Entry> {
    let word = &line.keyword;
    let prefix = match value::prefix(&word.text) {
        Ok(prefix) => prefix,
        Err(why) => {
            let message = format!("{}: {why}", quoted(&word.text));
            let alone = word.text.split_once('/').map(|(address, _)| address);
            let Some(address) = alone.and_then(|text| text.parse().ok()) else {
                let hint = "ADDRESS or ADDRESS/LENGTH; the address is ignored";
                drafts.push(Draft::warning(word.span, message).hint(hint));
                return None;
            };
            let prefix = IpPrefix::host(address);
            let hint = format!("{prefix} counts");
            drafts.push(Draft::warning(word.span, message).hint(hint));
            prefix
        }
    };
    let addr = prefix.addr();
    if addr.is_multicast() || addr.is_unspecified() {
        let message = format!("{addr} cannot be the address of a host; it is ignored");
        drafts.push(Draft::warning(word.span, message));
        return None;
    }
    let mut address = VirtualAddress {
        prefix,
        dev: String::new(),
        scope: 0,
        label: None,
        broadcast: None,
        peer: None,
        noprefixroute: false,
        no_track: false,
        home: false,
        nodad: false,
        mngtmpaddr: false,
        autojoin: false,
        // Without a network of its own an IPv6 address is no source for others (RFC 6724 §5).
        preferred_lft: (prefix.len() == Family::V6.bits()).then_some(0),
        use_vmac: false,
        track_group: None,
    };
    let mut words = line.args.iter();
    while let Some(option) = words.next() {
        let name = option.text.as_str();
        let Some(known) = OPTIONS.iter().find(|known| known.facts.name == name) else {
            unknown_option(option, drafts);
            break;
        };
        match known.read {
            Reading::Flag(set) => set(&mut address),
            Reading::Value(read) => match words.next() {
                Some(value) => read(&mut address, value, drafts),
                None => {
                    let message = format!("`{name}` needs a value");
                    drafts.push(Draft::warning(option.span, message));
                }
            },
        }
        let (fate, meaning) = known.facts.verdict();
        judge_missing(fate, &quoted(name), meaning, option.span, drafts);
    }
    Some(Entry {
        address,
        span: word.span,
    })
}

fn unknown_option(option: &Word, drafts: &mut Drafts) {
    let message = format!("unknown option {} of an address", quoted(&option.text));
    let draft = Draft::warning(option.span, message);
    drafts.push(if value::prefix(&option.text).is_ok() {
        draft.hint("one address a line")
    } else if let Some(meant) = similar(&option.text, OPTIONS.iter().map(|o| o.facts.name)) {
        draft.hint(format!("did you mean `{meant}`?"))
    } else {
        draft
    });
}

/// How an option of an address is read.
enum Reading {
    /// It stands alone.
    Flag(fn(&mut VirtualAddress)),
    /// A word follows.
    Value(fn(&mut VirtualAddress, &Word, &mut Drafts)),
}

/// A word that may follow an address.
struct AddressOption {
    facts: Facts,
    read: Reading,
}

const fn alone(
    name: &'static str,
    fate: Support,
    meaning: &'static str,
    set: fn(&mut VirtualAddress),
) -> AddressOption {
    AddressOption {
        facts: Facts::new(name, fate, meaning, Shape::Line),
        read: Reading::Flag(set),
    }
}

const fn followed(
    name: &'static str,
    fate: Support,
    meaning: &'static str,
    read: fn(&mut VirtualAddress, &Word, &mut Drafts),
) -> AddressOption {
    AddressOption {
        facts: Facts::new(name, fate, meaning, Shape::Line),
        read: Reading::Value(read),
    }
}

/// What may follow an address.
static OPTIONS: &[AddressOption] = &[
    followed(
        "dev",
        APPLIED,
        "the interface; default the instance's",
        |address, word, drafts| {
            address.dev = interface(word, drafts).unwrap_or_default();
        },
    ),
    followed(
        "brd",
        APPLIED,
        "the broadcast address, or + or - to make one",
        set_broadcast,
    ),
    followed("broadcast", APPLIED, "another name of brd", set_broadcast),
    followed(
        "scope",
        APPLIED,
        "the scope of the address",
        |address, word, drafts| {
            address.scope = scope(word, drafts).unwrap_or_default();
        },
    ),
    followed("label", APPLIED, "the address's label", label),
    followed(
        "peer",
        APPLIED,
        "the other end of a point-to-point link",
        peer,
    ),
    alone(
        "noprefixroute",
        APPLIED,
        "no route to the address's network",
        |address| {
            address.noprefixroute = true;
        },
    ),
    alone(
        "no_track",
        APPLIED,
        "the loss of the address means nothing to the instance",
        |address| {
            address.no_track = true;
        },
    ),
    alone(
        "use_vmac",
        REFUSED,
        "the virtual MAC address of VRRP",
        |address| address.use_vmac = true,
    ),
    followed(
        "preferred_lft",
        UNAPPLIED,
        "seconds that the address is preferred, or forever; default 0 for an IPv6 address of 128 bits",
        |address, word, drafts| {
            address.preferred_lft = match word.text.as_str() {
                "forever" => None,
                _ => read::number(word, "preferred_lft", &defaults::U32, drafts),
            };
        },
    ),
    followed(
        "track_group",
        UNAPPLIED,
        "the group of instances that the loss of a static address moves",
        |address, word, _| address.track_group = Some(word.text.clone()),
    ),
    alone(
        "home",
        UNAPPLIED,
        "the address is a mobile node's home address",
        |address| address.home = true,
    ),
    alone(
        "-nodad",
        UNAPPLIED,
        "the address is not looked for before it is used",
        |address| address.nodad = true,
    ),
    alone(
        "mngtmpaddr",
        UNAPPLIED,
        "temporary addresses are made from it",
        |address| address.mngtmpaddr = true,
    ),
    alone(
        "autojoin",
        UNAPPLIED,
        "its multicast group is joined",
        |address| address.autojoin = true,
    ),
];

/// The words that may follow an address.
pub(super) fn facts() -> impl Iterator<Item = (&'static str, &'static Facts)> {
    let facts = OPTIONS.iter().map(|option| &option.facts);
    facts.map(|facts| ("virtual_ipaddress", facts))
}

fn label(address: &mut VirtualAddress, word: &Word, drafts: &mut Drafts) {
    if word.text.is_empty() || word.text.len() > defaults::INTERFACE_NAME_BYTES {
        let message = format!("{} cannot be a label", quoted(&word.text));
        let hint = format!("1 to {} bytes", defaults::INTERFACE_NAME_BYTES);
        drafts.push(Draft::warning(word.span, message).hint(hint));
    } else {
        address.label = Some(word.text.clone());
    }
}

fn peer(address: &mut VirtualAddress, word: &Word, drafts: &mut Drafts) {
    let peer = match value::prefix(&word.text) {
        Ok(peer) => peer,
        Err(why) => {
            let message = format!("{}: {why}", quoted(&word.text));
            drafts.push(Draft::warning(word.span, message));
            return;
        }
    };
    // As ip(8): a length behind the peer is that of the address.
    let len = if word.text.contains('/') {
        peer.len()
    } else {
        address.prefix.len()
    };
    let resized = |addr| IpPrefix::new(addr, len);
    if let (Some(own), Some(peer)) = (resized(address.prefix.addr()), resized(peer.addr())) {
        address.prefix = own;
        address.peer = Some(peer);
    }
}

fn set_broadcast(address: &mut VirtualAddress, word: &Word, drafts: &mut Drafts) {
    address.broadcast = broadcast(address.prefix, word, drafts);
}

fn broadcast(prefix: IpPrefix, word: &Word, drafts: &mut Drafts) -> Option<Ipv4Addr> {
    let IpAddr::V4(addr) = prefix.addr() else {
        let message = "an IPv6 address has no broadcast address";
        drafts.push(Draft::warning(word.span, message));
        return None;
    };
    let broadcast = match word.text.as_str() {
        "+" => host_bits(addr, prefix.len(), true),
        "-" => host_bits(addr, prefix.len(), false),
        text => text.parse().ok(),
    };
    if broadcast.is_none() {
        let message = format!("{} gives no broadcast address", quoted(&word.text));
        let hint = "an IPv4 address, or + or - with a prefix of at most 30 bits";
        drafts.push(Draft::warning(word.span, message).hint(hint));
    }
    broadcast
}

/// The scopes that ip(8) names (`/etc/iproute2/rt_scopes`), or a number.
fn scope(word: &Word, drafts: &mut Drafts) -> Option<u8> {
    match word.text.as_str() {
        "global" | "universe" => Some(0),
        "site" => Some(200),
        "link" => Some(253),
        "host" => Some(254),
        "nowhere" => Some(255),
        _ => read::number(word, "scope", &defaults::SCOPE, drafts),
    }
}

/// The broadcast address of a network, or its network address, as ip(8) has `brd +` and `brd -`.
fn host_bits(addr: Ipv4Addr, len: u8, set: bool) -> Option<Ipv4Addr> {
    let mask = u32::MAX
        .checked_shr(u32::from(len))
        .filter(|mask| *mask > 1)?;
    let bits = u32::from(addr);
    Some(Ipv4Addr::from(if set { bits | mask } else { bits & !mask }))
}
