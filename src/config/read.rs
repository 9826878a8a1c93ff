//! Values behind keywords: read, judged, and reported where they are not what they should be.

use std::{net::IpAddr, time::Duration};

use super::{
    defaults::{self, Limits, TimeLimits},
    diagnostic::{Draft, Drafts},
    lexer::Word,
    model::{NotifyEvent, NotifyScript, Script},
    source::{Span, quoted},
    support::{self, judge},
    tree::Stmt,
    value,
};
use crate::addr::{Family, L4Proto};

/// A value and the place that it was read from.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

impl<T> At<T> {
    /// The value alone.
    pub(super) fn into_value(self) -> T {
        self.value
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
            drafts.push(Draft::warning(self.keyword.span, message));
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
            drafts.push(Draft::warning(word.span, message).hint(hint));
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

    /// A script with its occasion, for the model.
    pub(super) fn script(&self, event: NotifyEvent, drafts: &mut Drafts) -> Option<NotifyScript> {
        let Script {
            command,
            user,
            group,
        } = self.command(drafts)?;
        Some(NotifyScript {
            event,
            command,
            user,
            group,
        })
    }

    /// A command with its user and group.
    pub(super) fn command(&self, drafts: &mut Drafts) -> Option<Script> {
        let first = self.first(drafts)?;
        let text = self.tail();
        let Some(words) = value::script_words(&text) else {
            let message = "a quote of the command is not closed";
            drafts.push(Draft::warning(first.span, message));
            return None;
        };
        let mut words = words.into_iter();
        let command = words.next().filter(|command| !command.trim().is_empty());
        let (user, group) = (words.next(), words.next());
        if words.next().is_some() {
            let message = "a command, a user and a group are all that can stand here";
            let hint = "put the command and its arguments in one pair of quotes";
            drafts.push(Draft::warning(first.span, message).hint(hint));
            return None;
        }
        let Some(command) = command else {
            drafts.push(Draft::warning(first.span, "the command is empty"));
            return None;
        };
        Some(Script {
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

/// What counts in the place of a value that is wrong.
const IGNORED: &str = "the statement is ignored";

/// A whole number within limits.
pub(super) fn number<T: TryFrom<i64>>(
    word: &Word,
    keyword: &str,
    limits: &Limits,
    drafts: &mut Drafts,
) -> Option<T> {
    number_or(word, keyword, limits, IGNORED, drafts)
}

/// A whole number within limits; `otherwise` says what counts where it is none.
pub(super) fn number_or<T: TryFrom<i64>>(
    word: &Word,
    keyword: &str,
    limits: &Limits,
    otherwise: &str,
    drafts: &mut Drafts,
) -> Option<T> {
    let hint = format!("{limits}; {otherwise}");
    let Some(read) = value::integer(&word.text) else {
        let message = format!("{keyword}: {} is not a number", quoted(&word.text));
        drafts.push(Draft::warning(word.span, message).hint(hint));
        return None;
    };
    let fits = limits.range.contains(&read.value);
    let Some(value) = T::try_from(read.value).ok().filter(|_| fits) else {
        let message = format!("{keyword} {} is out of range", cut(&word.text));
        drafts.push(Draft::warning(word.span, message).hint(hint));
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
    time_or(word, keyword, limits, IGNORED, drafts)
}

/// A time within limits; `otherwise` says what counts where it is none.
pub(super) fn time_or(
    word: &Word,
    keyword: &str,
    limits: &TimeLimits,
    otherwise: &str,
    drafts: &mut Drafts,
) -> Option<Duration> {
    let hint = format!("{limits}; {otherwise}");
    let Some(read) = value::seconds(&word.text) else {
        let message = format!("{keyword}: {} is not a time", quoted(&word.text));
        drafts.push(Draft::warning(word.span, message).hint(hint));
        return None;
    };
    let time = read.value.time;
    if time < limits.least || time > limits.most {
        let message = format!("{keyword} {} is out of range", cut(&word.text));
        drafts.push(Draft::warning(word.span, message).hint(hint));
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

/// A time in decimal milliseconds within limits.
pub(super) fn milliseconds(
    word: &Word,
    keyword: &str,
    limits: &TimeLimits,
    drafts: &mut Drafts,
) -> Option<Duration> {
    let wrong = |drafts: &mut Drafts| {
        let message = format!("{keyword} {} is no time in range", cut(&word.text));
        let hint = format!("{limits}, in milliseconds");
        drafts.push(Draft::warning(word.span, message).hint(hint));
    };
    let Some(read) = value::seconds(&word.text) else {
        wrong(drafts);
        return None;
    };
    // To the microsecond.
    let micros = u64::try_from(read.value.time.as_micros() / 1_000).unwrap_or(u64::MAX);
    let time = Duration::from_micros(micros);
    if time < limits.least || time > limits.most {
        wrong(drafts);
        return None;
    }
    leftover(word, read.junk, drafts);
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
            drafts.push(Draft::warning(word.span, message));
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

/// The name of an interface that the kernel could have.
pub(super) fn interface(word: &Word, drafts: &mut Drafts) -> Option<String> {
    let name = &word.text;
    let fits = (1..=defaults::INTERFACE_NAME_BYTES).contains(&name.len());
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if !fits || name.contains(bad) || name == "." || name == ".." {
        let message = format!("{} cannot be the name of an interface", quoted(name));
        let hint = format!("1 to {} bytes", defaults::INTERFACE_NAME_BYTES);
        drafts.push(Draft::warning(word.span, message).hint(hint));
        return None;
    }
    Some(name.clone())
}

/// `protocol`, in any case.
pub(super) fn protocol(stmt: &Stmt, drafts: &mut Drafts) -> Option<L4Proto> {
    let word = stmt.one(drafts)?;
    let found = [L4Proto::Tcp, L4Proto::Udp, L4Proto::Sctp]
        .into_iter()
        .find(|protocol| word.text.eq_ignore_ascii_case(protocol.name()));
    if found.is_none() {
        let message = format!("{} is not a protocol", quoted(&word.text));
        drafts.push(Draft::warning(word.span, message).hint("TCP, UDP or SCTP"));
    }
    found
}

/// `inet` or `inet6`.
pub(super) fn family(word: &Word, drafts: &mut Drafts) -> Option<Family> {
    let mut families = [Family::V4, Family::V6].into_iter();
    let found = families.find(|family| family.name() == word.text);
    if found.is_none() {
        let message = format!("{} is not a family", quoted(&word.text));
        drafts.push(Draft::warning(word.span, message).hint("inet or inet6"));
    }
    found
}
