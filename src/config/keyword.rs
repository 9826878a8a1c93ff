//! Keywords, each of which stands once, in the table of its block: its name, what becomes of it, what it means, and how
//! it is read.

use std::{fmt, ops::Deref, time::Duration};

use super::{
    defaults::{Limits, TimeLimits},
    diagnostic::Drafts,
    support::Support,
    tree::Stmt,
};

/// The program does what it says.
pub(super) const APPLIED: Support = Support::Applied;
/// Its value decides.
pub(super) const BY_VALUE: Support = Support::ByValue;
/// The box can do without.
pub(super) const UNAPPLIED: Support = Support::Unapplied;
/// Without it the box would forward or elect otherwise than its owner expects.
pub(super) const REFUSED: Support = Support::Refused;
/// It says nothing to a box whose data plane is its own.
pub(super) const IRRELEVANT: Support = Support::Irrelevant;
/// It stands in a block that has the verdict.
pub(super) const WITH_BLOCK: Support = Support::WithBlock;

/// How a boolean is written.
pub(super) const BOOLEAN: &str = "on, true, yes or nothing; off, false or no";
/// A keyword whose presence is its value.
pub(super) const NO_VALUE: &str = "no value: its presence is the value";

/// What a keyword may have behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Values on its line. Given twice, the last counts.
    Line,
    /// Values on its line; each occurrence counts.
    Lines,
    /// A block; each occurrence counts.
    Block,
    /// Anything: only its name matters.
    Name,
}

/// Where a keyword without its `{` is known to lack it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Brace {
    /// Nowhere: it has no block, or not always, or its name is one that people give.
    Unknown,
    /// Where it belongs, of which only the outside of every block is known.
    Here,
    /// Wherever it stands.
    Anywhere,
}

/// What a value may be.
#[derive(Clone, Copy)]
enum Range {
    /// Whatever its meaning asks for.
    Free,
    Number(&'static Limits),
    Time(&'static TimeLimits),
    Words(&'static str),
}

/// A default, for people.
#[derive(Clone, Copy)]
pub(super) enum Value {
    Number(u32),
    Time(Duration),
    Word(&'static str),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Time(time) => write!(f, "{} s", time.as_secs_f64()),
            Self::Word(word) => f.write_str(word),
        }
    }
}

/// Everything about a keyword but how it is read.
#[derive(Clone, Copy)]
pub(super) struct Facts {
    pub(super) name: &'static str,
    pub(super) fate: Support,
    pub(super) shape: Shape,
    brace: Brace,
    top_only: bool,
    range: Range,
    default: Option<Value>,
    meaning: &'static str,
}

impl Facts {
    pub(super) const fn new(
        name: &'static str,
        fate: Support,
        meaning: &'static str,
        shape: Shape,
    ) -> Self {
        Self {
            name,
            fate,
            shape,
            brace: match shape {
                Shape::Block => Brace::Anywhere,
                Shape::Line | Shape::Lines | Shape::Name => Brace::Unknown,
            },
            top_only: false,
            range: Range::Free,
            default: None,
            meaning,
        }
    }

    /// Whether it lacks its `{` where it stands without.
    pub(super) fn needs_brace(&self, outside: bool) -> bool {
        match self.brace {
            Brace::Unknown => false,
            Brace::Here => outside,
            Brace::Anywhere => true,
        }
    }

    /// Whether it only ever stands outside of every block, so that one inside means that a `}` is missing.
    pub(super) const fn is_top_only(&self) -> bool {
        self.top_only
    }
}

/// For people who ask what a keyword is.
impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.meaning)?;
        match self.range {
            Range::Free => {}
            Range::Number(limits) => write!(f, "; {limits}")?,
            Range::Time(limits) => write!(f, "; {limits}")?,
            Range::Words(words) => write!(f, "; {words}")?,
        }
        if let Some(default) = self.default {
            write!(f, "; default {default}")?;
        }
        match self.shape {
            Shape::Lines => f.write_str("; may stand several times")?,
            Shape::Line | Shape::Block | Shape::Name => {}
        }
        match self.fate {
            Support::Applied | Support::ByValue | Support::WithBlock => Ok(()),
            Support::Unapplied => f.write_str("; not applied by this version"),
            Support::Refused => f.write_str("; not supported by this version"),
            Support::Irrelevant => f.write_str("; has no effect here"),
            Support::Former(instead) => write!(f, "; of keepalived 1.x: {instead}"),
        }
    }
}

/// A keyword of a block, and how it changes what is being read.
pub(super) struct Keyword<T> {
    pub(super) facts: Facts,
    pub(super) apply: fn(&mut T, &Given<'_>, &mut Drafts),
}

/// A keyword with values.
pub(super) const fn line(name: &'static str, fate: Support, meaning: &'static str) -> Facts {
    Facts::new(name, fate, meaning, Shape::Line)
}

/// A keyword with values that may stand several times.
pub(super) const fn lines(name: &'static str, fate: Support, meaning: &'static str) -> Facts {
    Facts::new(name, fate, meaning, Shape::Lines)
}

/// A keyword with a block.
pub(super) const fn block(name: &'static str, fate: Support, meaning: &'static str) -> Facts {
    Facts::new(name, fate, meaning, Shape::Block)
}

/// A keyword of which only the name matters.
pub(super) const fn word(name: &'static str, fate: Support, meaning: &'static str) -> Facts {
    Facts::new(name, fate, meaning, Shape::Name)
}

/// The same, with a block.
pub(super) const fn word_with_block(
    name: &'static str,
    fate: Support,
    meaning: &'static str,
) -> Facts {
    let mut facts = word(name, fate, meaning);
    facts.brace = Brace::Anywhere;
    facts
}

/// A keyword that is known and has no place in the model.
pub(super) const fn known<T>(
    name: &'static str,
    fate: Support,
    meaning: &'static str,
) -> Keyword<T> {
    word(name, fate, meaning).unread()
}

impl Facts {
    /// Its value is a whole number.
    pub(super) const fn number(mut self, limits: &'static Limits) -> Self {
        self.range = Range::Number(limits);
        self
    }

    /// Its value is a time in decimal seconds.
    pub(super) const fn time(mut self, limits: &'static TimeLimits) -> Self {
        self.range = Range::Time(limits);
        self
    }

    /// What its value may be, in words.
    pub(super) const fn words(mut self, words: &'static str) -> Self {
        self.range = Range::Words(words);
        self
    }

    /// What counts where it is not given.
    pub(super) const fn default(mut self, value: Value) -> Self {
        self.default = Some(value);
        self
    }

    /// It only ever stands outside of every block.
    pub(super) const fn top_only(mut self) -> Self {
        self.top_only = true;
        self
    }

    /// Elsewhere its name may be one that somebody gave.
    pub(super) const fn only_here(mut self) -> Self {
        self.brace = Brace::Here;
        self
    }

    /// How it is read.
    pub(super) const fn read<T>(self, apply: fn(&mut T, &Given<'_>, &mut Drafts)) -> Keyword<T> {
        Keyword { facts: self, apply }
    }

    /// Nothing is read.
    pub(super) const fn unread<T>(self) -> Keyword<T> {
        self.read(|_, _, _| ())
    }
}

/// The keywords of a block.
pub(super) struct Table<T: 'static> {
    /// The keyword whose block it is; empty outside of every block.
    pub(super) block: &'static str,
    pub(super) keywords: &'static [&'static [Keyword<T>]],
}

impl<T> Table<T> {
    pub(super) fn iter(&self) -> impl Iterator<Item = &'static Keyword<T>> {
        self.keywords.iter().copied().flatten()
    }

    /// What its keywords are.
    pub(super) fn facts(&self) -> impl Iterator<Item = (&'static str, &'static Facts)> {
        let block = self.block;
        self.iter().map(move |keyword| (block, &keyword.facts))
    }

    /// The names of its keywords, but for those that are no more.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        let facts = self.iter().map(|keyword| &keyword.facts);
        let current = facts.filter(|facts| !matches!(facts.fate, Support::Former(_)));
        current.map(|facts| facts.name)
    }
}

/// A keyword as it is given: its statement, and what its table says of its value.
pub(super) struct Given<'a> {
    stmt: &'a Stmt,
    range: Range,
}

impl<'a> Given<'a> {
    pub(super) const fn new(stmt: &'a Stmt, facts: &Facts) -> Self {
        let range = facts.range;
        Self { stmt, range }
    }

    /// One whole number, within the limits of the keyword.
    pub(super) fn number<T: TryFrom<i64>>(&self, drafts: &mut Drafts) -> Option<T> {
        let Range::Number(limits) = self.range else {
            unreachable!("the table says that the value is a number");
        };
        self.stmt.number(limits, drafts)
    }

    /// One time in decimal seconds, within the limits of the keyword.
    pub(super) fn time(&self, drafts: &mut Drafts) -> Option<Duration> {
        let Range::Time(limits) = self.range else {
            unreachable!("the table says that the value is a time");
        };
        self.stmt.time(limits, drafts)
    }
}

impl Deref for Given<'_> {
    type Target = Stmt;

    fn deref(&self) -> &Stmt {
        self.stmt
    }
}
