//! Walking blocks: each block has a table of rules, one a keyword, and what is common to all
//! keywords (unknown ones, repeats, braces, values out of range) is done here once.

use std::{net::IpAddr, time::Duration};

use super::{
    defaults::{Limits, TimeLimits},
    diagnostic::{Draft, Drafts, quoted},
    lexer::Word,
    model::{NotifyEvent, NotifyScript},
    source::Span,
    support::{self, Block, Support},
    tree::Stmt,
    value,
};

/// A value and the place that it was read from.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// What a keyword may have behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Values on its line. Given twice, the last counts.
    Line,
    /// Values on its line; each occurrence counts.
    Lines,
    /// A block; each occurrence counts.
    Block,
    /// Anything: only its name matters.
    Name,
}

/// A keyword of a block, and how it changes what is being read.
pub(super) struct Rule<T> {
    name: &'static str,
    shape: Shape,
    apply: fn(&mut T, &Stmt, &mut Drafts),
}

/// A keyword with values.
pub(super) const fn line<T>(name: &'static str, apply: fn(&mut T, &Stmt, &mut Drafts)) -> Rule<T> {
    Rule {
        name,
        shape: Shape::Line,
        apply,
    }
}

/// A keyword with values that may stand several times.
pub(super) const fn lines<T>(name: &'static str, apply: fn(&mut T, &Stmt, &mut Drafts)) -> Rule<T> {
    Rule {
        name,
        shape: Shape::Lines,
        apply,
    }
}

/// A keyword with a block.
pub(super) const fn block<T>(name: &'static str, apply: fn(&mut T, &Stmt, &mut Drafts)) -> Rule<T> {
    Rule {
        name,
        shape: Shape::Block,
        apply,
    }
}

/// A keyword that is known and has no place in the model.
pub(super) const fn name<T>(name: &'static str) -> Rule<T> {
    Rule {
        name,
        shape: Shape::Name,
        apply: |_, _, _| (),
    }
}

/// Applies the rules to the statements of a block.
pub(super) fn walk<T>(
    target: &mut T,
    stmts: &[Stmt],
    kind: Block,
    rules: &[&[Rule<T>]],
    drafts: &mut Drafts,
) {
    let mut seen: Vec<&str> = Vec::new();
    for stmt in stmts {
        let keyword = stmt.keyword.text.as_str();
        let mut all = rules.iter().flat_map(|table| table.iter());
        let Some(rule) = all.find(|rule| rule.name == keyword) else {
            let names = rules.iter().flat_map(|table| table.iter().map(|r| r.name));
            unknown(stmt, kind, names, drafts);
            continue;
        };
        let verdict = support::keyword(kind, keyword);
        judge(verdict, &quoted(keyword), stmt.keyword.span, drafts);
        if !shape_fits(rule.shape, stmt, drafts) {
            continue;
        }
        if rule.shape == Shape::Line && seen.contains(&rule.name) {
            let message = format!("`{keyword}` is given again; the last one counts");
            drafts.push(Draft::warning(stmt.keyword.span, message));
        }
        seen.push(rule.name);
        (rule.apply)(target, stmt, drafts);
    }
}

fn unknown<'a>(
    stmt: &Stmt,
    kind: Block,
    names: impl Iterator<Item = &'a str>,
    drafts: &mut Drafts,
) {
    let keyword = &stmt.keyword;
    // In an authentication block the word may be a password whose keyword was lost.
    let message = if kind == Block::Authentication {
        "unknown keyword".to_owned()
    } else {
        format!("unknown keyword {}", quoted(&keyword.text))
    };
    let mut draft = Draft::error(keyword.span, message);
    let former = |name: &&str| matches!(support::keyword(kind, name), Support::Former(_));
    if let Some(meant) = similar(&keyword.text, names.filter(|name| !former(name))) {
        draft = draft.hint(format!("did you mean `{meant}`?"));
    } else if stmt.block.is_some() {
        draft = draft.hint("its block is skipped");
    }
    drafts.push(draft);
}

/// The name that `word` was probably meant to be.
pub(super) fn similar<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// No keyword is longer than half of this; comparing costs the product of the lengths.
    const LONGEST: usize = 80;
    if word.len() > LONGEST {
        return None;
    }
    let word = word.to_ascii_lowercase();
    // Letters that may differ: one in a word of up to five, two in one of up to fourteen, one in
    // five of longer ones. Beyond that a guess misleads more than it helps.
    let most = match word.len() {
        0..=2 => return None,
        3..=5 => 1,
        length => (length / 5).max(2),
    };
    let close = names.filter(|name| name.len().abs_diff(word.len()) <= most);
    let scored = close.map(|name| {
        (
            strsim::osa_distance(&word, &name.to_ascii_lowercase()),
            name,
        )
    });
    let best = scored.min_by_key(|(distance, _)| *distance)?;
    (best.0 <= most).then_some(best.1)
}

/// Says what this version does with something that was understood.
pub(super) fn judge(verdict: Support, what: &str, span: Span, drafts: &mut Drafts) {
    match verdict {
        Support::Applied => {}
        Support::Unapplied => drafts.push(Draft::warning(
            span,
            format!("{what} is understood but not applied by this version"),
        )),
        Support::Refused => drafts.push(Draft::error(
            span,
            format!("{what} is not supported by this version"),
        )),
        Support::Irrelevant => drafts.push(Draft::note(span, format!("{what} has no effect here"))),
        Support::Former(instead) => {
            let message = format!("{what} is ignored, as keepalived 2.x ignores it");
            drafts.push(Draft::warning(span, message).hint(instead));
        }
    }
}

fn shape_fits(shape: Shape, stmt: &Stmt, drafts: &mut Drafts) -> bool {
    let keyword = &stmt.keyword;
    match (shape, stmt.block.is_some()) {
        (Shape::Block, false) => {
            let message = format!("`{}` lacks its `{{`", keyword.text);
            drafts.push(Draft::error(keyword.span, message));
            false
        }
        (Shape::Line | Shape::Lines, true) => {
            let message = format!("`{}` takes no block", keyword.text);
            let hint = "the block is skipped";
            drafts.push(Draft::error(keyword.span, message).hint(hint));
            true
        }
        _ => true,
    }
}

impl Stmt {
    /// The one word behind the keyword. Reports a missing one, and further ones.
    pub(super) fn one<'a>(&'a self, drafts: &mut Drafts) -> Option<&'a Word> {
        let word = self.first(drafts)?;
        self.no_more(1, drafts);
        Some(word)
    }

    /// The first word behind the keyword; others are the caller's business.
    pub(super) fn first<'a>(&'a self, drafts: &mut Drafts) -> Option<&'a Word> {
        let word = self.args.first();
        if word.is_none() {
            let message = format!("{} needs a value", quoted(&self.keyword.text));
            drafts.push(Draft::error(self.keyword.span, message));
        }
        word
    }

    /// Reports words behind the first `count`.
    pub(super) fn no_more(&self, count: usize, drafts: &mut Drafts) {
        if let Some(extra) = self.args.get(count) {
            let message = format!("{} is ignored", quoted(&extra.text));
            let hint = format!("after {}", quoted(&self.keyword.text));
            drafts.push(Draft::warning(extra.span, message).hint(hint));
        }
    }

    /// A keyword without a value: its presence is the value.
    pub(super) fn flag(&self, drafts: &mut Drafts) -> bool {
        self.no_more(0, drafts);
        true
    }

    /// A boolean; without a value it is true.
    pub(super) fn boolean(&self, drafts: &mut Drafts) -> Option<bool> {
        let Some(word) = self.args.first() else {
            return Some(true);
        };
        self.no_more(1, drafts);
        let read = value::boolean(&word.text);
        if read.is_none() {
            let message = format!("{} is not a boolean", quoted(&word.text));
            let hint = "on, off, true, false, yes or no";
            drafts.push(Draft::error(word.span, message).hint(hint));
        }
        read
    }

    /// One whole number within limits.
    pub(super) fn number<T: TryFrom<i64>>(
        &self,
        limits: &Limits,
        drafts: &mut Drafts,
    ) -> Option<T> {
        let word = self.one(drafts)?;
        number(word, &self.keyword.text, limits, drafts)
    }

    /// One time in decimal seconds within limits.
    pub(super) fn time(&self, limits: &TimeLimits, drafts: &mut Drafts) -> Option<Duration> {
        let word = self.one(drafts)?;
        time(word, &self.keyword.text, limits, drafts)
    }

    /// One address.
    pub(super) fn address(&self, drafts: &mut Drafts) -> Option<IpAddr> {
        let word = self.one(drafts)?;
        address(word, drafts)
    }

    /// One address of a family that VRRP works with.
    pub(super) fn vrrp_address(&self, drafts: &mut Drafts) -> Option<IpAddr> {
        let word = self.one(drafts)?;
        vrrp_address(word, drafts)
    }

    /// One word of text.
    pub(super) fn text(&self, drafts: &mut Drafts) -> Option<String> {
        self.one(drafts).map(|word| word.text.clone())
    }

    /// The statements of the block; none when there is no block.
    pub(super) fn body(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }

    /// A script with its user and group, for the model.
    pub(super) fn script(&self, event: NotifyEvent, drafts: &mut Drafts) -> Option<NotifyScript> {
        let first = self.first(drafts)?;
        let text = String::from_utf8_lossy(&self.tail.0);
        let Some(words) = value::script_words(&text) else {
            let message = "a quote of the command is not closed";
            drafts.push(Draft::error(first.span, message));
            return None;
        };
        let mut words = words.into_iter();
        let command = words.next().filter(|command| !command.trim().is_empty());
        let (user, group) = (words.next(), words.next());
        if words.next().is_some() {
            let message = "a command, a user and a group are all that can stand here";
            let hint = "put the command and its arguments in one pair of quotes";
            drafts.push(Draft::error(first.span, message).hint(hint));
            return None;
        }
        let Some(command) = command else {
            drafts.push(Draft::error(first.span, "the command is empty"));
            return None;
        };
        Some(NotifyScript {
            event,
            command,
            user,
            group,
        })
    }
}

/// Adds a script unless its occasion has one already: the first counts.
pub(super) fn add_script(
    scripts: &mut Vec<NotifyScript>,
    event: NotifyEvent,
    stmt: &Stmt,
    drafts: &mut Drafts,
) {
    if scripts.iter().any(|script| script.event == event) {
        let message = format!("`{}` is given again; the first one counts", event.keyword());
        drafts.push(Draft::warning(stmt.keyword.span, message));
    } else if let Some(script) = stmt.script(event, drafts) {
        scripts.push(script);
    }
}

fn leftover(word: &Word, junk: &str, drafts: &mut Drafts) {
    if !junk.is_empty() {
        let used = &word.text[..word.text.len() - junk.len()];
        let message = format!("{} is read as {}", quoted(&word.text), quoted(used));
        drafts.push(Draft::warning(word.span, message));
    }
}

/// A whole number within limits.
pub(super) fn number<T: TryFrom<i64>>(
    word: &Word,
    keyword: &str,
    limits: &Limits,
    drafts: &mut Drafts,
) -> Option<T> {
    let (least, most) = (limits.range.start(), limits.range.end());
    let hint = format!("{least} to {most} ({})", limits.source);
    let Some(read) = value::integer(&word.text) else {
        let message = format!("{keyword}: {} is not a number", quoted(&word.text));
        drafts.push(Draft::error(word.span, message).hint(hint));
        return None;
    };
    let fits = limits.range.contains(&read.value);
    let Some(value) = T::try_from(read.value).ok().filter(|_| fits) else {
        let message = format!("{keyword} {} is out of range", cut(&word.text));
        drafts.push(Draft::error(word.span, message).hint(hint));
        return None;
    };
    leftover(word, read.junk, drafts);
    Some(value)
}

/// A time within limits.
pub(super) fn time(
    word: &Word,
    keyword: &str,
    limits: &TimeLimits,
    drafts: &mut Drafts,
) -> Option<Duration> {
    let (least, most) = (limits.least.as_secs_f64(), limits.most.as_secs_f64());
    let hint = format!("{least} to {most} seconds ({})", limits.source);
    let Some(read) = value::seconds(&word.text) else {
        let message = format!("{keyword}: {} is not a time", quoted(&word.text));
        drafts.push(Draft::error(word.span, message).hint(hint));
        return None;
    };
    let time = read.value.time;
    if time < limits.least || time > limits.most {
        let message = format!("{keyword} {} is out of range", cut(&word.text));
        drafts.push(Draft::error(word.span, message).hint(hint));
        return None;
    }
    leftover(word, read.junk, drafts);
    if read.value.rounded {
        let message = format!("{keyword} is rounded to {} s", time.as_secs_f64());
        let hint = "six decimals at most";
        drafts.push(Draft::warning(word.span, message).hint(hint));
    }
    Some(time)
}

fn cut(word: &str) -> String {
    quoted(word).trim_matches('`').to_owned()
}

/// An address.
pub(super) fn address(word: &Word, drafts: &mut Drafts) -> Option<IpAddr> {
    match value::address(&word.text) {
        Ok(addr) => Some(addr),
        Err(why) => {
            let message = format!("{} is {why}", quoted(&word.text));
            drafts.push(Draft::error(word.span, message));
            None
        }
    }
}

/// An address, of a family that VRRP works with.
pub(super) fn vrrp_address(word: &Word, drafts: &mut Drafts) -> Option<IpAddr> {
    let addr = address(word, drafts)?;
    judge_vrrp_address(addr, word.span, drafts);
    Some(addr)
}

/// Says so when VRRP does nothing with the family of an address.
pub(super) fn judge_vrrp_address(addr: IpAddr, span: Span, drafts: &mut Drafts) {
    let what = format!("the IPv6 address {addr}");
    judge(support::vrrp_family(addr), &what, span, drafts);
}
