//! `virtual_ipaddress`: one address a line, with the options of ip(8).

use std::net::{IpAddr, Ipv4Addr};

use super::{
    defaults,
    diagnostic::{Draft, Drafts, quoted},
    lexer::Word,
    model::VirtualAddress,
    source::Span,
    support::{self, Block},
    tree::Stmt,
    value,
    vrrp::{host_bits, interface},
    walk::{self, judge, judge_vrrp_address},
};
use crate::addr::IpPrefix;

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
            drafts.push(Draft::error(line.keyword.span, message));
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
            let hint = "ADDRESS or ADDRESS/LENGTH";
            drafts.push(Draft::error(word.span, message).hint(hint));
            return None;
        }
    };
    let addr = prefix.addr();
    judge_vrrp_address(addr, word.span, drafts);
    if addr.is_multicast() || addr.is_unspecified() {
        let message = format!("{addr} cannot be the address of a host");
        drafts.push(Draft::error(word.span, message));
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
    };
    let mut words = line.args.iter();
    while let Some(option) = words.next() {
        let name = option.text.as_str();
        let known = match name {
            "noprefixroute" => {
                address.noprefixroute = true;
                true
            }
            "no_track" => {
                address.no_track = true;
                true
            }
            "home" | "-nodad" | "mngtmpaddr" | "autojoin" | "use_vmac" => true,
            "dev" | "brd" | "broadcast" | "scope" | "label" | "peer" | "preferred_lft"
            | "track_group" => match words.next() {
                Some(value) => {
                    with_value(&mut address, name, value, drafts);
                    true
                }
                None => {
                    let message = format!("`{name}` needs a value");
                    drafts.push(Draft::error(option.span, message));
                    true
                }
            },
            _ => false,
        };
        if !known {
            unknown_option(option, drafts);
            break;
        }
        let verdict = support::keyword(Block::VirtualAddress, name);
        judge(verdict, &quoted(name), option.span, drafts);
    }
    Some(Entry {
        address,
        span: word.span,
    })
}

fn unknown_option(option: &Word, drafts: &mut Drafts) {
    /// What may follow an address.
    const OPTIONS: [&str; 14] = [
        "dev",
        "brd",
        "broadcast",
        "scope",
        "label",
        "peer",
        "home",
        "-nodad",
        "mngtmpaddr",
        "noprefixroute",
        "autojoin",
        "no_track",
        "preferred_lft",
        "use_vmac",
    ];
    let message = format!("unknown option {} of an address", quoted(&option.text));
    let draft = Draft::error(option.span, message);
    drafts.push(if value::prefix(&option.text).is_ok() {
        draft.hint("one address a line")
    } else if let Some(meant) = walk::similar(&option.text, OPTIONS.into_iter()) {
        draft.hint(format!("did you mean `{meant}`?"))
    } else {
        draft
    });
}

fn with_value(address: &mut VirtualAddress, option: &str, word: &Word, drafts: &mut Drafts) {
    match option {
        "dev" => address.dev = interface(word, drafts).unwrap_or_default(),
        "brd" | "broadcast" => address.broadcast = broadcast(address.prefix, word, drafts),
        "scope" => address.scope = scope(word, drafts).unwrap_or_default(),
        "label" => {
            if word.text.is_empty() || word.text.len() > defaults::INTERFACE_NAME_BYTES {
                let message = format!("{} cannot be a label", quoted(&word.text));
                let hint = format!("1 to {} bytes", defaults::INTERFACE_NAME_BYTES);
                drafts.push(Draft::error(word.span, message).hint(hint));
            } else {
                address.label = Some(word.text.clone());
            }
        }
        "peer" => match value::prefix(&word.text) {
            Ok(peer) => {
                // As ip(8): a length behind the peer is that of the address.
                let len = if word.text.contains('/') {
                    peer.len()
                } else {
                    address.prefix.len()
                };
                let resized = |addr| IpPrefix::new(addr, len);
                if let (Some(own), Some(peer)) =
                    (resized(address.prefix.addr()), resized(peer.addr()))
                {
                    address.prefix = own;
                    address.peer = Some(peer);
                }
            }
            Err(why) => {
                let message = format!("{}: {why}", quoted(&word.text));
                drafts.push(Draft::error(word.span, message));
            }
        },
        // Lifetimes and track groups are reported by name; their values have no place.
        _ => {}
    }
}

fn broadcast(prefix: IpPrefix, word: &Word, drafts: &mut Drafts) -> Option<Ipv4Addr> {
    let IpAddr::V4(addr) = prefix.addr() else {
        let message = "an IPv6 address has no broadcast address";
        drafts.push(Draft::error(word.span, message));
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
        drafts.push(Draft::error(word.span, message).hint(hint));
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
        _ => walk::number(word, "scope", &defaults::SCOPE, drafts),
    }
}
