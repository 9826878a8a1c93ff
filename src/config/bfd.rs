//! `bfd_instance`.

use std::{net::IpAddr, time::Duration};

use super::{
    defaults::{self, Limits},
    diagnostic::{Draft, Drafts},
    keyword::{FromGiven, Given, Keyword, Table, Value, WITH_BLOCK, line, plain_keywords},
    model::BfdInstance,
    read::{self, At},
    source::quoted,
    tree::Stmt,
    walk::walk,
};

/// A `bfd_instance` block while it is read.
#[derive(Debug, Default)]
pub(super) struct BfdDraft {
    neighbor: Option<IpAddr>,
    source: Option<IpAddr>,
    min_rx: Option<Duration>,
    min_tx: Option<Duration>,
    idle_tx: Option<Duration>,
    multiplier: Option<u8>,
    passive: bool,
    ttl: Option<u8>,
    max_hops: Option<i16>,
    multihop: bool,
    weight: i32,
    reverse: bool,
    vrrp: bool,
    checker: bool,
}

pub(super) static TABLE: Table<BfdDraft> = Table {
    block: "bfd_instance",
    keywords: &[PLAIN, KEYWORDS],
};

plain_keywords! { static PLAIN: BfdDraft [];
    "neighbor_ip": WITH_BLOCK, "the neighbour", words("an IP address") => neighbor;
    "neighbour_ip": WITH_BLOCK, "the neighbour, in other spelling", words("an IP address") => neighbor;
    "source_ip": WITH_BLOCK, "the own address; default that on the way to the neighbour", words("an IP address") => source;
    "min_rx": WITH_BLOCK, "the shortest interval that is received, in milliseconds", millis(&defaults::BFD_INTERVALS), default(Value::Time(defaults::BFD_INTERVAL)) => min_rx;
    "min_tx": WITH_BLOCK, "the interval that is wanted for sending, in milliseconds", millis(&defaults::BFD_INTERVALS), default(Value::Time(defaults::BFD_INTERVAL)) => min_tx;
    "idle_tx": WITH_BLOCK, "the interval while the session is down, in milliseconds", millis(&defaults::BFD_IDLE), default(Value::Time(defaults::BFD_IDLE_INTERVAL)) => idle_tx;
    "multiplier": WITH_BLOCK, "intervals without a packet that end the session", number(&defaults::BFD_MULTIPLIERS), default(Value::Number(defaults::BFD_MULTIPLIER as u32)) => multiplier;
    "passive": WITH_BLOCK, "the neighbour must begin", flag() => passive;
    "ttl": WITH_BLOCK, "TTL of packets; default 255", number(&defaults::BFD_TTLS) => ttl;
    "hoplimit": WITH_BLOCK, "hop limit of packets over IPv6; default 64", number(&defaults::BFD_TTLS) => ttl;
    "max_hops": WITH_BLOCK, "by how much the TTL may have fallen on the way", number(&defaults::BFD_HOPS), default(Value::Number(0)) => max_hops;
    "multihop": WITH_BLOCK, "the neighbour is further than one hop", later(), flag() => multihop;
    "vrrp": WITH_BLOCK, "only instances hear of the session, not the checks", flag() => vrrp;
    "checker": WITH_BLOCK, "only the checks hear of the session, not instances", flag() => checker;
}

static KEYWORDS: &[Keyword<BfdDraft>] = &[line(
    "weight",
    WITH_BLOCK,
    "what the priority changes by while the session is up or down; 0 = FAULT",
)
.words("-253 to 253, and reverse if up and down change places")
.default(Value::Number(0))
.read(|draft, stmt, drafts| {
    const WEIGHT: &Limits = &defaults::TRACK_WEIGHT;
    let Some(word) = stmt.first(drafts) else {
        return;
    };
    draft.weight = read::number(word, "weight", WEIGHT, drafts).unwrap_or_default();
    draft.reverse = stmt.args.get(1).is_some_and(|word| word.text == "reverse");
    stmt.no_more(if draft.reverse { 2 } else { 1 }, drafts);
})];

impl FromGiven for IpAddr {
    fn from_given(given: &Given<'_>, drafts: &mut Drafts) -> Option<Self> {
        given.address(drafts)
    }
}

/// Reads a `bfd_instance` block.
pub(super) fn read(stmt: &Stmt, drafts: &mut Drafts) -> Option<At<BfdInstance>> {
    let word = stmt.one(drafts)?;
    let name = word.text.clone();
    let mut draft = BfdDraft::default();
    walk(&mut draft, stmt.body(), &TABLE, drafts);
    let ignored = |why: &str, drafts: &mut Drafts| {
        let message = format!("bfd_instance {} {why} and is ignored", quoted(&name));
        drafts.push(Draft::warning(stmt.keyword.span, message));
    };
    if name.is_empty() || name.len() > defaults::BFD_NAME_BYTES {
        let most = defaults::BFD_NAME_BYTES;
        ignored(
            &format!("has a name that is not 1 to {most} bytes long"),
            drafts,
        );
        return None;
    }
    let Some(neighbor) = draft.neighbor else {
        ignored("has no neighbor_ip", drafts);
        return None;
    };
    if draft
        .source
        .is_some_and(|source| source.is_ipv4() != neighbor.is_ipv4())
    {
        ignored("has a source and a neighbour of two families", drafts);
        return None;
    }
    let both = draft.vrrp == draft.checker;
    Some(At {
        value: BfdInstance {
            name,
            neighbor,
            source: draft.source,
            min_rx: draft.min_rx.unwrap_or(defaults::BFD_INTERVAL),
            min_tx: draft.min_tx.unwrap_or(defaults::BFD_INTERVAL),
            idle_tx: draft.idle_tx.unwrap_or(defaults::BFD_IDLE_INTERVAL),
            multiplier: draft.multiplier.unwrap_or(defaults::BFD_MULTIPLIER),
            passive: draft.passive,
            ttl: (draft.ttl).unwrap_or_else(|| BfdInstance::default_ttl(neighbor)),
            max_hops: draft.max_hops.unwrap_or_default(),
            multihop: draft.multihop,
            weight: draft.weight,
            reverse: draft.reverse,
            vrrp: both || draft.vrrp,
            checker: both || draft.checker,
        },
        span: stmt.keyword.span,
    })
}
