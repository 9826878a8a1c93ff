//! Keywords, each of which stands once, in the table of its block: its name, what becomes of it, what it means, and how
//! it is read.

use std::{fmt, ops::Deref, time::Duration};

use super::{
    defaults::{Limits, TimeLimits},
    diagnostic::{Draft, Drafts},
    model::Script,
    read::{self},
    source::quoted,
    support::{Support, judge_missing},
    tree::Stmt,
    value,
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
pub(super) const IRRELEVANT: Support =
    Support::Irrelevant("the data plane is xvs's own, not the kernel's IPVS");
/// The kernel's IPVS is what it is about.
pub(super) const NO_IPVS: Support =
    Support::Irrelevant("connections are balanced by xvs, and the kernel's IPVS stays as it is");
/// keepalived's processes are what it is about.
pub(super) const ONE_PROCESS: Support = Support::Irrelevant("xvs is one process");
/// It stands in a block that has the verdict.
pub(super) const WITH_BLOCK: Support = Support::WithBlock;

/// How a boolean is written.
pub(super) const BOOLEAN: &str = "on, true, yes or nothing; off, false or no";
/// A keyword whose presence is its value.
pub(super) const NO_VALUE: &str = "no value: its presence is the value";

/// What a keyword may have behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
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
pub(super) enum Range {
    /// Whatever its meaning asks for.
    Free,
    /// Nothing: its presence is its value.
    Flag,
    Boolean,
    Number(&'static Limits),
    Time(&'static TimeLimits),
    /// A time in decimal milliseconds.
    Millis(&'static TimeLimits),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A word of at most so many bytes.
    Text(usize),
    /// A word of at most so many bytes that a file or a folder can be called.
    FileName(usize),
    /// So many words, or fewer, or none.
    Names(usize),
    /// A command, a user and a group.
    Script,
    Words(&'static str),
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Free => Ok(()),
            Self::Flag => f.write_str(NO_VALUE),
            Self::Boolean => f.write_str(BOOLEAN),
            Self::Number(limits) => limits.fmt(f),
            Self::Time(limits) | Self::Millis(limits) => limits.fmt(f),
            Self::Choice(words) => f.write_str(&any_of(words)),
            Self::Text(most) => write!(f, "at most {most} bytes"),
            Self::FileName(most) => write!(f, "at most {most} bytes, without a slash"),
            Self::Names(1) => f.write_str("one word or none"),
            Self::Names(most) => write!(f, "up to {most} words"),
            Self::Script => {
                f.write_str("a command (in quotes with its arguments), a user and a group")
            }
            Self::Words(words) => f.write_str(words),
        }
    }
}

/// Words of which one may stand: `a, b or c`.
pub(super) fn any_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
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
    pub(super) range: Range,
    default: Option<Value>,
    /// What the blocks around it say counts before the default.
    inherited: bool,
    /// keepalived 2.2 does not know it.
    later: bool,
    /// The name that took its place.
    pub(super) newer: Option<&'static str>,
    meaning: &'static str,
}

/// A keyword as people ask for it: what it means, what it may say, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeywordDoc {
    /// The block that it stands in; empty outside of every block.
    pub block: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it means; ends without a full stop.
    pub meaning: &'static str,
    /// What stands behind it.
    pub shape: Shape,
    /// What its value may be, with the unit and the source of the limits. Empty where the meaning says it.
    pub range: String,
    /// What counts where it is not given.
    pub default: Option<String>,
    /// The name that took its place, for an old name.
    pub newer: Option<&'static str>,
    /// Whether keepalived 2.2 does not know it, but a later version does.
    pub later: bool,
    /// What this version does with it.
    pub fate: Support,
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
            inherited: false,
            later: false,
            newer: None,
            meaning,
        }
    }

    /// What becomes of it, and what is missing where nothing does.
    pub(super) const fn verdict(&self) -> (Support, &'static str) {
        (self.fate, self.meaning)
    }

    /// What there is to tell about it.
    pub(super) fn doc(&self, block: &'static str) -> KeywordDoc {
        KeywordDoc {
            block,
            name: self.name,
            meaning: self.meaning,
            shape: self.shape,
            range: self.range.to_string(),
            default: self.default.map(|value| value.to_string()),
            newer: self.newer,
            later: self.later,
            fate: self.fate,
        }
    }

    /// Says what becomes of it, where it stands. What asks for what happens anyway is passed over.
    pub(super) fn judge(&self, stmt: &Stmt, drafts: &mut Drafts) {
        let span = stmt.keyword.span;
        if let Some(newer) = self.newer {
            let message = format!("`{}` is an old name; use `{newer}`", self.name);
            drafts.push(Draft::deprecated(span, message));
        }
        let said = stmt.args.first().map(|word| word.text.as_str());
        let off =
            matches!(self.range, Range::Boolean) && said.and_then(value::boolean) == Some(false);
        if !off {
            judge_missing(self.fate, &quoted(self.name), self.meaning, span, drafts);
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
        if !matches!(self.range, Range::Free) {
            write!(f, "; {}", self.range)?;
        }
        if let Some(default) = self.default {
            write!(f, "; default {default}")?;
        }
        match self.shape {
            Shape::Lines => f.write_str("; may stand several times")?,
            Shape::Line | Shape::Block | Shape::Name => {}
        }
        if let Some(newer) = self.newer {
            write!(f, "; an old name of {newer}")?;
        }
        if self.later {
            f.write_str("; not in keepalived 2.2")?;
        }
        match self.fate {
            Support::Applied | Support::WithBlock => Ok(()),
            Support::ByValue => f.write_str("; `xvs check` says what of it is applied"),
            Support::Unapplied => f.write_str("; not applied yet"),
            Support::Refused => f.write_str("; not supported by this version"),
            Support::Irrelevant(why) => write!(f, "; has no effect here: {why}"),
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

/// A keyword that is known and has no place in the model.
pub(super) const fn name_only<T>(
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

    /// Its value is a time in decimal milliseconds.
    pub(super) const fn millis(mut self, limits: &'static TimeLimits) -> Self {
        self.range = Range::Millis(limits);
        self
    }

    /// Its presence is its value.
    pub(super) const fn flag(mut self) -> Self {
        self.range = Range::Flag;
        self
    }

    /// Its value is a boolean, and nothing means yes.
    pub(super) const fn boolean(mut self) -> Self {
        self.range = Range::Boolean;
        self
    }

    /// Its value is one of these words.
    pub(super) const fn choice(mut self, words: &'static [&'static str]) -> Self {
        self.range = Range::Choice(words);
        self
    }

    /// Its value is a word of at most so many bytes.
    pub(super) const fn text(mut self, most: usize) -> Self {
        self.range = Range::Text(most);
        self
    }

    /// Its value is a word of at most so many bytes that a file or a folder can be called.
    pub(super) const fn file_name(mut self, most: usize) -> Self {
        self.range = Range::FileName(most);
        self
    }

    /// Its value is so many words, or fewer, or none.
    pub(super) const fn names(mut self, most: usize) -> Self {
        self.range = Range::Names(most);
        self
    }

    /// Its value is a command, a user and a group.
    pub(super) const fn script(mut self) -> Self {
        self.range = Range::Script;
        self
    }

    /// It is an old name, which works.
    pub(super) const fn old_name_of(mut self, newer: &'static str) -> Self {
        self.newer = Some(newer);
        self
    }

    /// What its value may be, in words.
    pub(super) const fn words(mut self, words: &'static str) -> Self {
        self.range = Range::Words(words);
        self
    }

    /// Where it is not given, what the blocks around it say counts before the default.
    pub(super) const fn inherited(mut self) -> Self {
        self.inherited = true;
        self
    }

    /// keepalived 2.2 does not know it: it came later.
    pub(super) const fn later(mut self) -> Self {
        self.later = true;
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

/// Makes a table of keywords with one plain value each, which stands in a field of the same kind:
/// `"name": FATE, "meaning", builder(argument) => field;`.
macro_rules! plain_keywords {
    ($visible:vis static $table:ident: $draft:ident $at:tt;
     $($name:literal: $fate:expr, $meaning:literal $(, $how:ident($($argument:expr),*))* => $field:ident;)*
    ) => {
        $visible static $table: &[Keyword<$draft>] = &[$(
            line($name, $fate, $meaning)
                $(.$how($($argument),*))*
                .read(|draft, stmt, drafts| {
                    stmt.set(&mut plain_keywords!(@place draft $at $field), drafts);
                }),
        )*];
    };
    (@place $draft:ident [$($at:ident).*] $field:ident) => { $draft$(.$at)*.$field };
}
pub(super) use plain_keywords;

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
    default: Option<Value>,
    inherited: bool,
}

impl<'a> Given<'a> {
    pub(super) const fn new(stmt: &'a Stmt, facts: &Facts) -> Self {
        Self {
            stmt,
            range: facts.range,
            default: facts.default,
            inherited: facts.inherited,
        }
    }

    /// What counts where the value is wrong, for people.
    fn otherwise(&self) -> String {
        match (self.default, self.inherited) {
            (Some(default), false) => format!("the default, {default}, counts"),
            (Some(default), true) => {
                format!("what the blocks around it say counts, else the default, {default}")
            }
            (None, true) => "what the blocks around it say counts".to_owned(),
            (None, false) => "the statement is ignored".to_owned(),
        }
    }

    /// One whole number, within the limits of the keyword.
    pub(super) fn number<T: TryFrom<i64>>(&self, drafts: &mut Drafts) -> Option<T> {
        let Range::Number(limits) = self.range else {
            unreachable!("the table says that the value is a number");
        };
        let word = self.stmt.one(drafts)?;
        read::number_or(word, &self.keyword.text, limits, &self.otherwise(), drafts)
    }

    /// One time in decimal seconds, within the limits of the keyword.
    pub(super) fn time(&self, drafts: &mut Drafts) -> Option<Duration> {
        let Range::Time(limits) = self.range else {
            unreachable!("the table says that the value is a time");
        };
        let word = self.stmt.one(drafts)?;
        read::time_or(word, &self.keyword.text, limits, &self.otherwise(), drafts)
    }

    /// One of the words of the keyword, as its place among them.
    pub(super) fn choice(&self, drafts: &mut Drafts) -> Option<usize> {
        let Range::Choice(words) = self.range else {
            unreachable!("the table says that the value is one of some words");
        };
        let word = self.stmt.one(drafts)?;
        let found = words.iter().position(|known| *known == word.text);
        if found.is_none() {
            let message = format!("{}: {} is unknown", self.keyword.text, quoted(&word.text));
            drafts.push(Draft::warning(word.span, message).hint(any_of(words)));
        }
        found
    }

    /// Reads the value into its place, which a wrong value leaves as it is.
    pub(super) fn set<T: FromGiven>(&self, place: &mut T, drafts: &mut Drafts) {
        if let Some(value) = T::from_given(self, drafts) {
            *place = value;
        }
    }
}

/// What the one value of a keyword can be read as.
pub(super) trait FromGiven: Sized {
    /// The value, unless it is missing or wrong, which is reported.
    fn from_given(given: &Given<'_>, drafts: &mut Drafts) -> Option<Self>;
}

impl<T: FromGiven> FromGiven for Option<T> {
    fn from_given(given: &Given<'_>, drafts: &mut Drafts) -> Option<Self> {
        T::from_given(given, drafts).map(Some)
    }
}

impl FromGiven for bool {
    fn from_given(given: &Given<'_>, drafts: &mut Drafts) -> Option<Self> {
        match given.range {
            Range::Flag => Some(given.stmt.flag(drafts)),
            _ => given.stmt.boolean(drafts),
        }
    }
}

impl FromGiven for Duration {
    fn from_given(given: &Given<'_>, drafts: &mut Drafts) -> Option<Self> {
        match given.range {
            Range::Number(_) => given.number(drafts).map(Self::from_secs),
            Range::Millis(limits) => {
                let word = given.one(drafts)?;
                let name = &given.keyword.text;
                read::milliseconds(word, name, limits, drafts)
            }
            _ => given.time(drafts),
        }
    }
}

impl FromGiven for String {
    fn from_given(given: &Given<'_>, drafts: &mut Drafts) -> Option<Self> {
        let word = given.stmt.one(drafts)?;
        let most = match given.range {
            Range::Text(most) | Range::FileName(most) => most,
            _ => usize::MAX,
        };
        let elsewhere = word.text.contains('/') || matches!(word.text.as_str(), "." | "..");
        if elsewhere && matches!(given.range, Range::FileName(_)) {
            let message = format!("{} cannot be the name of a file", quoted(&word.text));
            drafts.push(Draft::warning(word.span, message).hint("the statement is ignored"));
            return None;
        }
        if word.text.len() > most {
            let message = format!("{} is longer than {most} bytes", quoted(&word.text));
            drafts.push(Draft::warning(word.span, message).hint("the statement is ignored"));
            return None;
        }
        Some(word.text.clone())
    }
}

impl FromGiven for Vec<String> {
    fn from_given(given: &Given<'_>, drafts: &mut Drafts) -> Option<Self> {
        let most = match given.range {
            Range::Names(most) => most,
            _ => usize::MAX,
        };
        given.stmt.no_more(most, drafts);
        let words = given.args.iter().take(most);
        Some(words.map(|word| word.text.clone()).collect())
    }
}

impl FromGiven for Script {
    fn from_given(given: &Given<'_>, drafts: &mut Drafts) -> Option<Self> {
        given.stmt.command(drafts)
    }
}

/// Whole numbers, within the limits of their keywords.
macro_rules! whole_numbers {
    ($($number:ty),*) => {
        $(impl FromGiven for $number {
            fn from_given(given: &Given<'_>, drafts: &mut Drafts) -> Option<Self> {
                given.number(drafts)
            }
        })*
    };
}

whole_numbers!(i8, i16, i32, u8, u16, u32, u64);

impl Deref for Given<'_> {
    type Target = Stmt;

    fn deref(&self) -> &Stmt {
        self.stmt
    }
}
