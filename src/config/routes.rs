//! `static_routes`, `virtual_routes`, `static_rules` and `virtual_rules`: one entry a line, in the words of ip(8).

use super::{
    defaults,
    diagnostic::{Draft, Drafts},
    keyword::{Facts, Shape, WITH_BLOCK},
    lexer::Word,
    model::{OptionValue, Route, RouteKind, RouteOption, Rule},
    read::{self},
    similar::similar,
    source::{Span, quoted},
    tree::Stmt,
    value,
};
use crate::addr::IpPrefix;

/// What follows the name of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    Nothing,
    Number,
    /// A number, with `lock` before it where the kernel shall leave it alone.
    Lockable,
    Address,
    Network,
    /// `FIRST-LAST` or one number.
    Numbers,
    /// `NUMBER[/MASK]`
    Pair,
    Name,
    /// A name, with `lock` before it.
    LockableName,
    /// The way into a tunnel: a kind, then words of its own.
    Encap,
}

/// A word of a route or a rule.
struct Known {
    facts: Facts,
    takes: Takes,
    /// The name that ip(8) has for it.
    is: &'static str,
    /// Whether keepalived calls it old.
    old: bool,
}

const fn known(name: &'static str, takes: Takes, meaning: &'static str) -> Known {
    Known {
        facts: Facts::new(name, WITH_BLOCK, meaning, Shape::Line),
        takes,
        is: name,
        old: false,
    }
}

const fn alias(name: &'static str, is: &'static str, takes: Takes, meaning: &'static str) -> Known {
    let mut known = known(name, takes, meaning);
    known.is = is;
    known
}

/// An old name.
const fn old(name: &'static str, is: &'static str, takes: Takes, meaning: &'static str) -> Known {
    let mut known = alias(name, is, takes, meaning);
    known.facts = known.facts.old_name_of(is);
    known.old = true;
    known
}

const ROUTE_BLOCK: &str = "virtual_routes";
const RULE_BLOCK: &str = "virtual_rules";

/// What may stand in a route, `nexthop` among it.
static ROUTE: &[Known] = &[
    known("to", Takes::Network, "where the route leads"),
    known("via", Takes::Address, "the next hop"),
    old("gw", "via", Takes::Address, "the next hop"),
    old("or", "nexthop", Takes::Address, "a second next hop"),
    known("dev", Takes::Name, "the interface"),
    alias("oif", "dev", Takes::Name, "the interface, in another word"),
    known(
        "src",
        Takes::Address,
        "the source address that is preferred",
    ),
    known("from", Takes::Network, "the sources that it is for (IPv6)"),
    known(
        "table",
        Takes::Name,
        "the routing table, a number or a name",
    ),
    known("tos", Takes::Name, "the type of service that it is for"),
    alias(
        "dsfield",
        "tos",
        Takes::Name,
        "the type of service that it is for, in another word",
    ),
    known("protocol", Takes::Name, "who made it"),
    known("scope", Takes::Name, "how far it reaches"),
    known(
        "metric",
        Takes::Number,
        "which of several routes is taken: the lowest",
    ),
    alias(
        "priority",
        "metric",
        Takes::Number,
        "the metric, in another word",
    ),
    alias(
        "preference",
        "metric",
        Takes::Number,
        "the metric, in another word",
    ),
    known(
        "onlink",
        Takes::Nothing,
        "the next hop is on the link, whatever the addresses say",
    ),
    known(
        "encap",
        Takes::Encap,
        "the tunnel that packets are put into",
    ),
    known(
        "expires",
        Takes::Number,
        "seconds after which it goes (IPv6)",
    ),
    known("mtu", Takes::Lockable, "the MTU of the way"),
    known("hoplimit", Takes::Lockable, "the hop limit of packets"),
    known("advmss", Takes::Lockable, "the MSS that is told to others"),
    known(
        "rtt",
        Takes::LockableName,
        "the first guess of the round-trip time",
    ),
    known(
        "rttvar",
        Takes::LockableName,
        "the first guess of its variance",
    ),
    known(
        "reordering",
        Takes::Lockable,
        "how far packets may come out of order",
    ),
    known(
        "window",
        Takes::Lockable,
        "the most that others may send at once",
    ),
    known("cwnd", Takes::Lockable, "the most that is sent at once"),
    known("ssthresh", Takes::Lockable, "where slow start ends"),
    known("realms", Takes::Name, "realms for counting"),
    known(
        "rto_min",
        Takes::LockableName,
        "the shortest time until TCP sends anew",
    ),
    known("initcwnd", Takes::Lockable, "what TCP sends first"),
    known(
        "initrwnd",
        Takes::Lockable,
        "what TCP offers to receive first",
    ),
    known("features", Takes::Name, "features that are on"),
    known(
        "quickack",
        Takes::Lockable,
        "whether TCP acknowledges at once, 0 or 1",
    ),
    known("congctl", Takes::LockableName, "how TCP avoids congestion"),
    known(
        "pref",
        Takes::Name,
        "how it is preferred by hosts: low, medium or high (RFC 4191)",
    ),
    known(
        "ttl-propagate",
        Takes::Name,
        "whether MPLS takes over the TTL: enabled or disabled",
    ),
    known(
        "fastopen_no_cookie",
        Takes::Lockable,
        "whether TCP Fast Open goes without a cookie, 0 or 1",
    ),
    known(
        "add",
        Takes::Nothing,
        "it is added where no other is like it",
    ),
    known(
        "prepend",
        Takes::Nothing,
        "it stands before those like it, the default",
    ),
    known("append", Takes::Nothing, "it stands behind those like it"),
    known(
        "as",
        Takes::Address,
        "the address for which another is put in",
    ),
    known("weight", Takes::Number, "the share of a next hop"),
    known(
        "nexthop",
        Takes::Nothing,
        "one of several next hops, with options of its own",
    ),
    known("vrf", Takes::Name, "the VRF whose table it is in"),
    known("no_track", Takes::Nothing, "its loss means nothing"),
    known(
        "track_group",
        Takes::Name,
        "the group of instances that its loss moves (static_routes)",
    ),
    known("inet", Takes::Nothing, "it is IPv4's"),
    known("inet6", Takes::Nothing, "it is IPv6's"),
];

/// What may stand in a rule.
static RULE: &[Known] = &[
    known("not", Takes::Nothing, "it is for what does not fit"),
    known("from", Takes::Network, "the sources that it is for"),
    known("to", Takes::Network, "the destinations that it is for"),
    known(
        "table",
        Takes::Name,
        "the routing table that is asked, a number or a name",
    ),
    alias(
        "lookup",
        "table",
        Takes::Name,
        "the routing table, in another word",
    ),
    known("preference", Takes::Number, "its place among the rules"),
    alias(
        "order",
        "preference",
        Takes::Number,
        "its place, in another word",
    ),
    alias(
        "priority",
        "preference",
        Takes::Number,
        "its place, in another word",
    ),
    known("tos", Takes::Name, "the type of service that it is for"),
    alias(
        "dsfield",
        "tos",
        Takes::Name,
        "the type of service, in another word",
    ),
    known("fwmark", Takes::Pair, "the mark that it is for, and a mask"),
    known("realms", Takes::Name, "realms for counting"),
    known(
        "suppress_prefixlength",
        Takes::Number,
        "routes with so short a prefix do not count",
    ),
    alias(
        "sup_pl",
        "suppress_prefixlength",
        Takes::Number,
        "suppress_prefixlength, for short",
    ),
    alias(
        "sup_group",
        "suppress_ifgroup",
        Takes::Name,
        "suppress_ifgroup, for short",
    ),
    known(
        "suppress_ifgroup",
        Takes::Name,
        "routes over this group of interfaces do not count",
    ),
    known("iif", Takes::Name, "the interface that packets come in on"),
    alias(
        "dev",
        "iif",
        Takes::Name,
        "the interface that packets come in on, in another word",
    ),
    known(
        "oif",
        Takes::Name,
        "the interface that a socket is bound to",
    ),
    known("tunnel-id", Takes::Number, "the tunnel's id"),
    known("uidrange", Takes::Numbers, "users that it is for"),
    known("l3mdev", Takes::Nothing, "the table is that of the VRF"),
    known("protocol", Takes::Name, "who made it"),
    known("ipproto", Takes::Name, "the protocol that it is for"),
    alias(
        "ip_proto",
        "ipproto",
        Takes::Name,
        "the protocol, in another word",
    ),
    known("sport", Takes::Numbers, "source ports that it is for"),
    known("dport", Takes::Numbers, "destination ports that it is for"),
    known(
        "type",
        Takes::Name,
        "what becomes of packets: a kind of route",
    ),
    known("goto", Takes::Number, "the rule that is asked next"),
    known("nop", Takes::Nothing, "nothing becomes of packets"),
    known(
        "blackhole",
        Takes::Nothing,
        "packets are dropped without a word",
    ),
    known(
        "unreachable",
        Takes::Nothing,
        "packets are dropped: host unreachable",
    ),
    known(
        "prohibit",
        Takes::Nothing,
        "packets are dropped: administratively prohibited",
    ),
    known("no_track", Takes::Nothing, "its loss means nothing"),
    known(
        "track_group",
        Takes::Name,
        "the group of instances that its loss moves (static_rules)",
    ),
    known("inet", Takes::Nothing, "it is IPv4's"),
    known("inet6", Takes::Nothing, "it is IPv6's"),
];

/// The words of routes and rules.
pub(super) fn facts() -> impl Iterator<Item = (&'static str, &'static Facts)> {
    let routes = ROUTE.iter().map(|known| (ROUTE_BLOCK, &known.facts));
    routes.chain(RULE.iter().map(|known| (RULE_BLOCK, &known.facts)))
}

/// The words of a line that are still to be read.
struct Words<'a> {
    all: Vec<&'a Word>,
    next: usize,
}

impl<'a> Words<'a> {
    fn new(line: &'a Stmt) -> Self {
        let all = std::iter::once(&line.keyword).chain(&line.args).collect();
        Self { all, next: 0 }
    }

    fn peek(&self) -> Option<&'a Word> {
        self.all.get(self.next).copied()
    }

    fn take(&mut self) -> Option<&'a Word> {
        let word = self.peek()?;
        self.next += 1;
        Some(word)
    }

    fn take_if(&mut self, text: &str) -> bool {
        let found = self.peek().is_some_and(|word| word.text == text);
        self.next += usize::from(found);
        found
    }
}

/// Says why an entry is dropped.
fn dropped(span: Span, message: String, hint: &str, drafts: &mut Drafts) {
    drafts.push(Draft::warning(span, format!("{message}; the entry is ignored")).hint(hint));
}

/// Reads an option whose name was taken. `None`: it is wrong, which was said.
fn option(
    known: &Known,
    name: &Word,
    words: &mut Words<'_>,
    drafts: &mut Drafts,
) -> Option<RouteOption> {
    let option = |value| RouteOption {
        name: known.is,
        value,
    };
    if known.takes == Takes::Nothing {
        return Some(option(OptionValue::Flag));
    }
    let locked =
        matches!(known.takes, Takes::Lockable | Takes::LockableName) && words.take_if("lock");
    if known.takes == Takes::Address {
        // `via inet6 ADDRESS`
        let _ = words.take_if("inet") || words.take_if("inet6");
    }
    let Some(word) = words.take() else {
        dropped(
            name.span,
            format!("{} needs a value", quoted(&name.text)),
            "",
            drafts,
        );
        return None;
    };
    let wrong = |what: &str, drafts: &mut Drafts| {
        let message = format!("{}: {} is not {what}", name.text, quoted(&word.text));
        dropped(word.span, message, "", drafts);
    };
    let value = match known.takes {
        Takes::Nothing => OptionValue::Flag,
        Takes::Number | Takes::Lockable => {
            let number = read::number(word, &name.text, &defaults::U32, drafts)?;
            if locked {
                OptionValue::Locked(number)
            } else {
                OptionValue::Number(number)
            }
        }
        Takes::Address => match value::address(&word.text) {
            Ok(address) => OptionValue::Address(address),
            Err(_) => {
                wrong("an address", drafts);
                return None;
            }
        },
        Takes::Network => match network(&word.text) {
            Some(Some(network)) => OptionValue::Network(network),
            Some(None) => OptionValue::Name(word.text.clone()),
            None => {
                wrong("a network", drafts);
                return None;
            }
        },
        Takes::Numbers => {
            let (first, last) = word
                .text
                .split_once('-')
                .unwrap_or((&word.text, &word.text));
            match (first.parse(), last.parse()) {
                (Ok(first), Ok(last)) if first <= last => OptionValue::Numbers(first, last),
                _ => {
                    wrong("a range of numbers", drafts);
                    return None;
                }
            }
        }
        Takes::Pair => {
            let (first, mask) = word
                .text
                .split_once('/')
                .unwrap_or((&word.text, "0xffffffff"));
            match (number(first), number(mask)) {
                (Some(first), Some(mask)) => OptionValue::Pair(first, mask),
                _ => {
                    wrong("a number with a mask", drafts);
                    return None;
                }
            }
        }
        Takes::Name => OptionValue::Name(word.text.clone()),
        Takes::LockableName if locked => OptionValue::Name(format!("lock {}", word.text)),
        Takes::LockableName => OptionValue::Name(word.text.clone()),
        Takes::Encap => OptionValue::Name(encap(word, words)),
    };
    Some(option(value))
}

/// The words of `encap`: its kind, then what ip-route(8) lists for it.
fn encap(kind: &Word, words: &mut Words<'_>) -> String {
    let mut all = vec![kind.text.as_str()];
    // MPLS has its labels, and ILA its locator, right behind the kind.
    if matches!(kind.text.as_str(), "mpls" | "ila") {
        all.extend(words.take().map(|word| word.text.as_str()));
    }
    let own: &[&str] = match kind.text.as_str() {
        "ip" => &["id", "dst", "src", "tos", "ttl", "flags"],
        "ip6" => &["id", "dst", "src", "tc", "hoplimit", "flags"],
        "mpls" => &["ttl"],
        _ => &[],
    };
    while words
        .peek()
        .is_some_and(|word| own.contains(&word.text.as_str()))
    {
        let pair = [words.take(), words.take()];
        all.extend(pair.into_iter().flatten().map(|word| word.text.as_str()));
    }
    all.join(" ")
}

/// A number as C writes it.
fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// A network, or the word for all of them.
fn network(text: &str) -> Option<Option<IpPrefix>> {
    if matches!(text, "default" | "any" | "all" | "default6") {
        return Some(None);
    }
    value::prefix(text).ok().map(Some)
}

fn unknown(word: &Word, what: &str, table: &'static [Known], drafts: &mut Drafts) {
    let meant = similar(&word.text, table.iter().map(|known| known.facts.name));
    let hint = meant.map(|meant| format!("did you mean `{meant}`?"));
    let message = format!("unknown option {} of {what}", quoted(&word.text));
    dropped(word.span, message, &hint.unwrap_or_default(), drafts);
}

fn say_old(known: &Known, word: &Word, drafts: &mut Drafts) {
    if known.old {
        let message = format!("{} is an old name; use `{}`", quoted(&word.text), known.is);
        drafts.push(Draft::deprecated(word.span, message));
    }
}

fn find(table: &'static [Known], word: &Word) -> Option<&'static Known> {
    table.iter().find(|known| known.facts.name == word.text)
}

/// Reads a line of routes.
pub(super) fn route(line: &Stmt, drafts: &mut Drafts) -> Option<Route> {
    let mut words = Words::new(line);
    let mut route = Route {
        kind: RouteKind::Unicast,
        to: None,
        options: Vec::new(),
        next_hops: Vec::new(),
    };
    let mut destination = false;
    while let Some(word) = words.take() {
        if let Some(at) = RouteKind::WORDS.iter().position(|kind| *kind == word.text) {
            route.kind = RouteKind::ALL[at];
            continue;
        }
        let Some(known) = find(ROUTE, word) else {
            // The destination needs no word before it.
            match network(&word.text) {
                Some(to) if !destination => {
                    (route.to, destination) = (to, true);
                    continue;
                }
                _ => {
                    unknown(word, "a route", ROUTE, drafts);
                    return None;
                }
            }
        };
        say_old(known, word, drafts);
        if word.text == "nexthop" {
            route.next_hops.push(Vec::new());
            continue;
        }
        let read = option(known, word, &mut words, drafts)?;
        if word.text == "or" {
            // The first next hop and the second one, as two.
            let first = route.options.iter().position(|option| option.name == "via");
            let first = first.map(|at| route.options.remove(at));
            let second = RouteOption {
                name: "via",
                ..read
            };
            route.next_hops.extend(first.map(|hop| vec![hop]));
            route.next_hops.push(vec![second]);
            continue;
        }
        if read.name == "to" {
            destination = true;
            if let OptionValue::Network(to) = read.value {
                route.to = Some(to);
            }
            continue;
        }
        let hop = matches!(
            read.name,
            "via" | "dev" | "weight" | "onlink" | "encap" | "realms" | "as"
        );
        match route.next_hops.last_mut() {
            Some(last) if hop => last.push(read),
            _ => route.options.push(read),
        }
    }
    if !destination {
        let message = "a route has no destination".to_owned();
        dropped(line.keyword.span, message, "a network, or default", drafts);
        return None;
    }
    let has = |name: &str| {
        let hops = route.next_hops.iter().flatten();
        let mut all = route.options.iter().chain(hops);
        all.any(|option| option.name == name)
    };
    let leads = matches!(route.kind, RouteKind::Unicast);
    if leads && !has("via") && !has("dev") {
        let message = "a route has neither a next hop nor an interface".to_owned();
        dropped(
            line.keyword.span,
            message,
            "via ADDRESS or dev INTERFACE",
            drafts,
        );
        return None;
    }
    if leads && !has("dev") && !has("no_track") {
        let message = "a route without `dev` is not tracked: its loss goes unseen";
        drafts.push(Draft::warning(line.keyword.span, message));
        let (name, value) = ("no_track", OptionValue::Flag);
        route.options.push(RouteOption { name, value });
    }
    Some(route)
}

/// Reads the lines of `static_routes` or `virtual_routes`.
pub(super) fn routes(list: &mut Vec<Route>, stmt: &Stmt, drafts: &mut Drafts) {
    stmt.no_more(0, drafts);
    for line in stmt.body() {
        list.extend(route(line, drafts));
    }
}

/// A rule while it is read, and where it stands.
#[derive(Debug)]
pub(super) struct RuleDraft {
    rule: Rule,
    span: Span,
}

/// Reads the lines of `static_rules` or `virtual_rules`.
pub(super) fn rules(list: &mut Vec<RuleDraft>, stmt: &Stmt, drafts: &mut Drafts) {
    stmt.no_more(0, drafts);
    for line in stmt.body() {
        list.extend(rule(line, drafts));
    }
}

fn rule(line: &Stmt, drafts: &mut Drafts) -> Option<RuleDraft> {
    let mut words = Words::new(line);
    let mut options = Vec::new();
    while let Some(word) = words.take() {
        let Some(known) = find(RULE, word) else {
            unknown(word, "a rule", RULE, drafts);
            return None;
        };
        options.push(option(known, word, &mut words, drafts)?);
    }
    let span = line.keyword.span;
    let rule = Rule { options };
    Some(RuleDraft { rule, span })
}

impl RuleDraft {
    /// The rule as it counts.
    pub(super) fn finish(self) -> Rule {
        self.rule
    }
}

/// Gives rules without a place one, as keepalived does: from 16,384 downwards, in the order of the file.
pub(super) fn give_places<'a>(rules: impl Iterator<Item = &'a mut RuleDraft>, drafts: &mut Drafts) {
    let mut without: Vec<_> = rules
        .filter(|draft| draft.rule.option("preference").is_none())
        .collect();
    without.sort_by_key(|draft| (draft.span.file, draft.span.start));
    for (draft, place) in without.into_iter().zip((1..=16_384).rev()) {
        let message = format!("a rule without a preference gets {place}");
        let hint = "say which: rules without one are counted down in the order of the file";
        drafts.push(Draft::warning(draft.span, message).hint(hint));
        let (name, value) = ("preference", OptionValue::Number(place));
        draft.rule.options.push(RouteOption { name, value });
    }
}
