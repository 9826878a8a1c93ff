//! `virtual_server_group`: several addresses and marks that are one virtual server.

use std::collections::{BTreeMap, HashSet};

use super::{
    defaults,
    diagnostic::{Draft, Drafts},
    model::{AddressSet, Match},
    read::At,
    similar::similar,
    source::{Span, quoted},
    tree::Stmt,
    value,
};
use crate::addr::{Endpoint, Family};

/// An entry; a mark may leave its family to the rest of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Entry {
    Whole(Match),
    Mark(u32),
}

/// A group.
#[derive(Debug)]
pub(super) struct Group {
    name: String,
    span: Span,
    entries: Vec<Entry>,
    /// The families that its entries name.
    families: Vec<Family>,
    used: bool,
}

impl Group {
    /// Reads a `virtual_server_group` block. `None` when it has no name.
    pub(super) fn read(stmt: &Stmt, drafts: &mut Drafts) -> Option<Self> {
        let name = stmt.text(drafts)?;
        let mut group = Self {
            name,
            span: stmt.keyword.span,
            entries: Vec::new(),
            families: Vec::new(),
            used: false,
        };
        let mut seen = HashSet::new();
        let mut bare_mark = None;
        for line in stmt.body() {
            let span = line.keyword.span;
            if line.block.is_some() {
                let message = "a list of addresses and marks, one a line, has no blocks";
                drafts.push(Draft::warning(span, message).hint("the block is skipped"));
            }
            let read = if line.keyword.text == "fwmark" {
                mark(line, drafts)
            } else {
                addresses(line, drafts)
            };
            let Some(entry) = read else {
                continue;
            };
            if !seen.insert(entry) {
                let message = "the entry is given again; it counts once";
                drafts.push(Draft::warning(span, message));
                continue;
            }
            match entry {
                Entry::Mark(_) => bare_mark = Some(span),
                Entry::Whole(entry) if !group.families.contains(&entry.family()) => {
                    group.families.push(entry.family());
                }
                Entry::Whole(_) => {}
            }
            group.entries.push(entry);
        }
        if let Some(span) = bare_mark.filter(|_| group.families.len() > 1) {
            let message = "a mark in a group of both families needs its own: that of ip_family or of \
                           the real servers counts, else inet";
            drafts.push(Draft::warning(span, message).hint("`fwmark N inet` or `fwmark N inet6`"));
        }
        if group.entries.is_empty() {
            let name = quoted(&group.name);
            let message = format!("virtual_server_group {name} has no entries: it is left out");
            drafts.push(Draft::warning(group.span, message));
        }
        Some(group)
    }

    /// The one family that its entries name, if it is one.
    const fn family(&self) -> Option<Family> {
        match self.families.as_slice() {
            [family] => Some(*family),
            _ => None,
        }
    }
}

/// Most entries that virtual servers may have of groups, all together: each has its own copy.
const MOST_MATCHES: usize = 1 << 20;
/// Most groups among which a misspelt one is looked for.
const MOST_COMPARED: usize = 100;

/// Every group of a file.
#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: BTreeMap<String, Group>,
    /// Entries that virtual servers have of them.
    given: usize,
}

impl Groups {
    /// Adds a group, unless there is one of its name.
    pub(super) fn add(&mut self, group: Group, drafts: &mut Drafts) {
        if self.groups.contains_key(&group.name) {
            let name = quoted(&group.name);
            let message = format!("a second virtual_server_group {name}: the first one counts");
            drafts.push(Draft::warning(group.span, message));
        } else {
            self.groups.insert(group.name.clone(), group);
        }
    }

    /// What a virtual server with this group takes. `said` is its `ip_family`, `guessed` what a
    /// mark of no family is for. `None` when nothing can be said, which is reported.
    pub(super) fn matches(
        &mut self,
        name: &At<String>,
        said: Option<At<Family>>,
        guessed: Family,
        drafts: &mut Drafts,
    ) -> Option<Vec<Match>> {
        let Some(group) = self.groups.get_mut(&name.value) else {
            let group = quoted(&name.value);
            let message =
                format!("virtual_server is left out: there is no virtual_server_group {group}");
            let draft = Draft::warning(name.span, message);
            let names = self.groups.keys().map(String::as_str);
            let names = names.take(MOST_COMPARED);
            drafts.push(match similar(&name.value, names) {
                Some(meant) => draft.hint(format!("did you mean `{meant}`?")),
                None => draft,
            });
            return None;
        };
        group.used = true;
        self.given += group.entries.len();
        if self.given > MOST_MATCHES {
            // Said once.
            if self.given - group.entries.len() <= MOST_MATCHES {
                let message =
                    "virtual servers have too many entries of groups; the rest is left out";
                let hint = format!("{MOST_MATCHES} at most, each counted for every virtual server");
                drafts.push(Draft::error(name.span, message).hint(hint));
            }
            return None;
        }
        if let Some(said) = said
            && let Some(other) = group.families.iter().find(|f| **f != said.value)
        {
            let name = said.value.name();
            let message = format!("ip_family {name} is left out: the group has {other}");
            drafts.push(Draft::warning(said.span, message));
        }
        let family = group.family().unwrap_or(guessed);
        let mut matches: Vec<Match> = Vec::with_capacity(group.entries.len());
        // A mark stands twice when it is there with its family and without.
        let mut seen = HashSet::new();
        for entry in &group.entries {
            let one = match *entry {
                Entry::Whole(whole) => whole,
                Entry::Mark(mark) => Match::Mark { mark, family },
            };
            if seen.insert(one) {
                matches.push(one);
            }
        }
        if matches.is_empty() {
            let group = quoted(&name.value);
            let message = format!("virtual_server is left out: its group {group} has no entries");
            drafts.push(Draft::warning(name.span, message));
            return None;
        }
        Some(matches)
    }

    /// Names the groups that no virtual server has.
    pub(super) fn unused(&self, drafts: &mut Drafts) {
        for group in self.groups.values().filter(|group| !group.used) {
            let message = format!("no virtual_server has the group {}", quoted(&group.name));
            drafts.push(Draft::warning(group.span, message));
        }
    }
}

/// `fwmark N [inet|inet6]`
fn mark(line: &Stmt, drafts: &mut Drafts) -> Option<Entry> {
    let word = line.first(drafts)?;
    line.no_more(2, drafts);
    let Some(mark) = word.text.parse().ok().filter(|mark| *mark != 0) else {
        let message = format!("the entry is left out: {} is no mark", quoted(&word.text));
        drafts.push(Draft::warning(word.span, message).hint(defaults::MARK.to_string()));
        return None;
    };
    let Some(word) = line.args.get(1) else {
        return Some(Entry::Mark(mark));
    };
    let mut families = [Family::V4, Family::V6].into_iter();
    let family = families.find(|family| family.name() == word.text);
    if family.is_none() {
        let message = format!("the entry is left out: {} is no family", quoted(&word.text));
        drafts.push(Draft::warning(word.span, message).hint("inet or inet6"));
    }
    family.map(|family| Entry::Whole(Match::Mark { mark, family }))
}

/// `ADDR [PORT]`, `ADDR-N [PORT]`, `ADDR-ADDR [PORT]` or `ADDR/LEN [PORT]`
fn addresses(line: &Stmt, drafts: &mut Drafts) -> Option<Entry> {
    let word = &line.keyword;
    line.no_more(1, drafts);
    let set = match value::addresses(&word.text) {
        Ok(AddressSet::Prefix(all)) if all.len() == 0 => {
            Err("every address cannot be virtual".to_owned())
        }
        other => other,
    };
    let set = match set {
        Ok(set) => set,
        Err(why) => {
            let message = format!("the entry is left out: {}: {why}", quoted(&word.text));
            let hint = "ADDRESS, ADDRESS/LENGTH, FIRST-LAST or `fwmark N`, one a line";
            drafts.push(Draft::warning(word.span, message).hint(hint));
            return None;
        }
    };
    let port = match line.args.first() {
        None => 0,
        Some(word) => {
            let port = word.text.parse().ok();
            if port.is_none() {
                let port = quoted(&word.text);
                let message = format!("the entry is left out: {port} is no port");
                let hint = format!("one port a line; {}", defaults::PORT_OR_ANY);
                drafts.push(Draft::warning(word.span, message).hint(hint));
            }
            port?
        }
    };
    Some(Entry::Whole(match set {
        AddressSet::Range { first, last } => Match::Range { first, last, port },
        AddressSet::Prefix(prefix) if prefix.len() == Family::of(prefix.addr()).bits() => {
            Match::Address(Endpoint::new(prefix.addr(), port))
        }
        AddressSet::Prefix(prefix) => Match::Prefix { prefix, port },
    }))
}
