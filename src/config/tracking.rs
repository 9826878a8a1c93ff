//! `vrrp_script`, `track_file` and `track_process`, and the lists of those that an instance or a group watches.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use super::{
    defaults,
    diagnostic::{Draft, Drafts},
    keyword::{
        Facts, FromGiven, Given, Keyword, REFUSED, Table, Value, WITH_BLOCK, line, plain_keywords,
    },
    lexer::Word,
    model::{
        InitFile, Owner, ParamMatch, TrackFile, TrackInterface, TrackProcess, Tracked, Trackers,
        VrrpScript,
    },
    read::{self, At, interface},
    source::{Span, quoted},
    support::judge_missing,
    tree::Stmt,
    value,
    walk::walk,
};

/// A weight as it is said.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weight {
    value: Option<i32>,
    reverse: bool,
}

const WEIGHT_MEANING: &str = "what the priority changes by; 0 = FAULT";

impl Weight {
    /// The number and whether it is turned round; `default` where none is said.
    pub(super) fn or(self, default: i32) -> (i32, bool) {
        (self.value.unwrap_or(default), self.reverse)
    }
}

/// `weight N [reverse]`. Other words are reported.
fn weight(given: &Given<'_>, limits: &defaults::Limits, drafts: &mut Drafts) -> Option<Weight> {
    let first = given.first(drafts)?;
    let mut weight = Weight {
        value: read::number(first, "weight", limits, drafts),
        reverse: false,
    };
    for word in &given.args[1..] {
        turn(word, &mut weight.reverse, drafts);
    }
    Some(weight)
}

fn turn(word: &Word, reverse: &mut bool, drafts: &mut Drafts) {
    match word.text.as_str() {
        "reverse" => *reverse = true,
        "noreverse" | "no_reverse" => *reverse = false,
        other => {
            let message = format!("unknown option {} of a weight", quoted(other));
            drafts.push(Draft::warning(word.span, message).hint("reverse or noreverse"));
        }
    }
}

/// What is defined under a name: it and its place.
pub(super) type Named<T> = At<T>;

fn name(stmt: &Stmt, drafts: &mut Drafts) -> Option<String> {
    stmt.text(drafts).filter(|name| !name.is_empty())
}

/// Says that a block lacks what it cannot do without, and is dropped.
fn lacks(stmt: &Stmt, name: &str, what: &str, drafts: &mut Drafts) {
    let keyword = &stmt.keyword.text;
    let message = format!("{keyword} {} has no {what} and is ignored", quoted(name));
    drafts.push(Draft::warning(stmt.keyword.span, message));
}

// --- vrrp_script ---

/// A `vrrp_script` block while it is read.
#[derive(Debug, Default)]
pub(super) struct ScriptDraft {
    command: Option<String>,
    interval: Option<u32>,
    timeout: Option<u32>,
    weight: Weight,
    rise: Option<u32>,
    fall: Option<u32>,
    user: Option<Owner>,
    init_fail: bool,
}

pub(super) static SCRIPT: Table<ScriptDraft> = Table {
    block: "vrrp_script",
    keywords: &[SCRIPT_KEYWORDS, SCRIPT_PLAIN],
};

plain_keywords! { static SCRIPT_PLAIN: ScriptDraft [];
    "rise": WITH_BLOCK, "successes in a row that count as one", number(&defaults::RISE), default(Value::Number(1)) => rise;
    "fall": WITH_BLOCK, "failures in a row that count as one", number(&defaults::RISE), default(Value::Number(1)) => fall;
    "user": WITH_BLOCK, "the user and group that the script runs as; default script_user", words("a user, and a group if it is not the user's") => user;
    "init_fail": WITH_BLOCK, "the script counts as failed until it has succeeded", flag() => init_fail;
}

static SCRIPT_KEYWORDS: &[Keyword<ScriptDraft>] = &[
    line("script", WITH_BLOCK, "the command that is run")
        .script()
        .read(|draft, stmt, drafts| {
            let Some(script) = stmt.command(drafts) else {
                return;
            };
            draft.command = Some(script.command);
            if let Some(user) = script.user {
                let group = script.group;
                draft.user = Some(Owner { user, group });
            }
        }),
    line("interval", WITH_BLOCK, "time between two starts")
        .number(&defaults::SCRIPT_SECONDS)
        .default(Value::Number(1))
        .read(|draft, stmt, drafts| draft.interval = at_least_one(stmt, drafts)),
    line(
        "timeout",
        WITH_BLOCK,
        "how long the script may run; default its interval",
    )
    .number(&defaults::SCRIPT_SECONDS)
    .read(|draft, stmt, drafts| draft.timeout = at_least_one(stmt, drafts)),
    line("weight", WITH_BLOCK, WEIGHT_MEANING)
        .words("-253 to 253, and reverse if success and failure change places")
        .default(Value::Number(0))
        .read(|draft, stmt, drafts| {
            let Some(weight) = weight(stmt, &defaults::I32, drafts) else {
                return;
            };
            draft.weight = weight;
            let usual = &defaults::TRACK_WEIGHT;
            let Some(value) = weight.value else { return };
            if !usual.range.contains(&i64::from(value)) {
                let message = format!("weight {value} is out of range and used as it is");
                let hint = format!("{usual}; keepalived uses it, too");
                drafts.push(Draft::warning(stmt.args[0].span, message).hint(hint));
            }
        }),
];

/// A number of which 0 is taken as 1.
fn at_least_one(stmt: &Given<'_>, drafts: &mut Drafts) -> Option<u32> {
    let number: u32 = stmt.number(drafts)?;
    if number == 0 {
        let message = format!("{} 0 is taken as 1", stmt.keyword.text);
        drafts.push(Draft::warning(stmt.args[0].span, message));
    }
    Some(number.max(1))
}

/// Reads a `vrrp_script` block.
pub(super) fn script(stmt: &Stmt, drafts: &mut Drafts) -> Option<Named<VrrpScript>> {
    let name = name(stmt, drafts)?;
    let mut draft = ScriptDraft::default();
    walk(&mut draft, stmt.body(), &SCRIPT, drafts);
    let Some(command) = draft.command else {
        lacks(stmt, &name, "script", drafts);
        return None;
    };
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    let interval = draft.interval.unwrap_or(1);
    let (weight, reverse) = draft.weight.or(0);
    Some(At {
        value: VrrpScript {
            name,
            command,
            interval: seconds(interval),
            timeout: seconds(draft.timeout.unwrap_or(interval)),
            weight,
            reverse,
            rise: draft.rise.unwrap_or(1),
            fall: draft.fall.unwrap_or(1),
            user: draft.user,
            init_fail: draft.init_fail,
        },
        span: stmt.keyword.span,
    })
}

// --- track_file ---

/// A `track_file` block while it is read.
#[derive(Debug, Default)]
pub(super) struct FileDraft {
    path: Option<String>,
    weight: Weight,
    init: Option<InitFile>,
}

pub(super) static FILE: Table<FileDraft> = Table {
    block: "track_file",
    keywords: &[FILE_KEYWORDS],
};

static FILE_KEYWORDS: &[Keyword<FileDraft>] = &[
    line("file", WITH_BLOCK, "the path of the file")
        .text(defaults::PATH_BYTES)
        .read(|draft, stmt, drafts| stmt.set(&mut draft.path, drafts)),
    line(
        "weight",
        WITH_BLOCK,
        "what the file's number is multiplied by; 0 = any number but 0 means FAULT",
    )
    .words("-254 to 254, and reverse if the sign changes")
    .default(Value::Number(1))
    .read(|draft, stmt, drafts| {
        let weight = weight(stmt, &defaults::FILE_WEIGHT, drafts);
        draft.weight = weight.unwrap_or_default();
    }),
    line(
        "init_file",
        WITH_BLOCK,
        "the file is made at the start, with a number; overwrite: also where there is one",
    )
    .words("a number, overwrite, both or nothing")
    .read(|draft, stmt, drafts| {
        let mut init = InitFile {
            value: 0,
            overwrite: false,
        };
        for word in &stmt.args {
            if word.text == "overwrite" {
                init.overwrite = true;
            } else if let Some(value) =
                read::number(word, "init_file", &defaults::FILE_NUMBER, drafts)
            {
                init.value = value;
            }
        }
        draft.init = Some(init);
    }),
];

/// Reads a `track_file` block.
pub(super) fn file(stmt: &Stmt, drafts: &mut Drafts) -> Option<Named<TrackFile>> {
    let name = name(stmt, drafts)?;
    let mut draft = FileDraft::default();
    walk(&mut draft, stmt.body(), &FILE, drafts);
    let Some(path) = draft.path else {
        lacks(stmt, &name, "file", drafts);
        return None;
    };
    let (weight, reverse) = draft.weight.or(1);
    Some(At {
        value: TrackFile {
            name,
            path,
            weight,
            reverse,
            init: draft.init,
        },
        span: stmt.keyword.span,
    })
}

// --- track_process ---

/// A `track_process` block while it is read.
#[derive(Debug, Default)]
pub(super) struct ProcessDraft {
    command: Option<Vec<String>>,
    param_match: Option<ParamMatch>,
    full_command: bool,
    weight: Weight,
    quorum: Option<u16>,
    quorum_max: Option<u16>,
    fork_delay: Option<Duration>,
    terminate_delay: Option<Duration>,
}

pub(super) static PROCESS: Table<ProcessDraft> = Table {
    block: "track_process",
    keywords: &[PROCESS_KEYWORDS, PROCESS_PLAIN],
};

plain_keywords! { static PROCESS_PLAIN: ProcessDraft [];
    "full_command": WITH_BLOCK, "the whole command line is compared", flag() => full_command;
    "param_match": WITH_BLOCK, "how far the parameters must fit; default wholly, where there are any", choice(ParamMatch::WORDS) => param_match;
    "quorum": WITH_BLOCK, "how many must run", number(&defaults::PROCESS_QUORUM), default(Value::Number(1)) => quorum;
    "quorum_max": WITH_BLOCK, "how many may run; default any number", number(&defaults::PROCESS_QUORUM_MAX) => quorum_max;
    "fork_delay": WITH_BLOCK, "how long enough of them must run before that counts", time(&defaults::PROCESS_DELAY) => fork_delay;
    "terminate_delay": WITH_BLOCK, "how long too few of them must run before that counts", time(&defaults::PROCESS_DELAY) => terminate_delay;
}

static PROCESS_KEYWORDS: &[Keyword<ProcessDraft>] = &[
    line(
        "process",
        WITH_BLOCK,
        "the name of the process, then its parameters",
    )
    .words("words, each in quotes where it needs them")
    .read(|draft, stmt, drafts| {
        if stmt.first(drafts).is_some() {
            draft.command = Some(stmt.args.iter().map(|word| word.text.clone()).collect());
        }
    }),
    line("weight", WITH_BLOCK, WEIGHT_MEANING)
        .words("-254 to 254, and reverse if running and not running change places")
        .default(Value::Number(0))
        .read(|draft, stmt, drafts| {
            let weight = weight(stmt, &defaults::FILE_WEIGHT, drafts);
            draft.weight = weight.unwrap_or_default();
        }),
    line("delay", WITH_BLOCK, "both fork_delay and terminate_delay")
        .time(&defaults::PROCESS_DELAY)
        .read(|draft, stmt, drafts| {
            let delay = stmt.time(drafts);
            draft.fork_delay = delay.or(draft.fork_delay);
            draft.terminate_delay = delay.or(draft.terminate_delay);
        }),
];

impl FromGiven for ParamMatch {
    fn from_given(given: &Given<'_>, drafts: &mut Drafts) -> Option<Self> {
        given.choice(drafts).map(|at| Self::ALL[at])
    }
}

/// Reads a `track_process` block.
pub(super) fn process(stmt: &Stmt, drafts: &mut Drafts) -> Option<Named<TrackProcess>> {
    let name = name(stmt, drafts)?;
    let mut draft = ProcessDraft::default();
    walk(&mut draft, stmt.body(), &PROCESS, drafts);
    let Some(command) = draft.command else {
        lacks(stmt, &name, "process", drafts);
        return None;
    };
    let (weight, reverse) = draft.weight.or(0);
    Some(At {
        value: TrackProcess {
            name,
            command,
            param_match: draft.param_match,
            full_command: draft.full_command,
            weight,
            reverse,
            quorum: draft.quorum.unwrap_or(1),
            quorum_max: draft.quorum_max,
            fork_delay: draft.fork_delay.unwrap_or_default(),
            terminate_delay: draft.terminate_delay.unwrap_or_default(),
        },
        span: stmt.keyword.span,
    })
}

// --- what instances and groups watch ---

/// Names with the weights that are said of them, each with its place.
pub(super) type Entries = Vec<At<(String, Weight)>>;

/// What an instance or a group watches, while it is read.
#[derive(Debug, Default)]
pub(super) struct TrackersDraft {
    pub(super) interfaces: Vec<At<TrackInterface>>,
    scripts: Entries,
    files: Entries,
    processes: Entries,
    bfds: Entries,
}

/// Reads the lines of a list: `NAME [weight N [reverse]]`. `least` is where ±254 is brought to ±253.
fn entries(list: &mut Entries, stmt: &Stmt, limits: &defaults::Limits, drafts: &mut Drafts) {
    stmt.no_more(0, drafts);
    for entry in stmt.body() {
        let value = (
            entry.keyword.text.clone(),
            entry_weight(entry, limits, drafts),
        );
        let span = entry.keyword.span;
        list.push(At { value, span });
    }
}

fn entry_weight(entry: &Stmt, limits: &defaults::Limits, drafts: &mut Drafts) -> Weight {
    let mut weight = Weight::default();
    let mut words = entry.args.iter();
    while let Some(word) = words.next() {
        match word.text.as_str() {
            "weight" => match words.next() {
                Some(value) => weight.value = within(value, limits, drafts),
                None => {
                    let message = "`weight` needs a number";
                    drafts.push(Draft::warning(word.span, message).hint(limits.to_string()));
                }
            },
            "reverse" => weight.reverse = true,
            "noreverse" | "no_reverse" => weight.reverse = false,
            other => {
                let message = format!("unknown option {} of what is tracked", quoted(other));
                let hint = "weight N [reverse]; one name a line";
                drafts.push(Draft::warning(word.span, message).hint(hint));
                break;
            }
        }
    }
    weight
}

/// keepalived brings ±254 to ±253, and leaves what is further out alone: the weight that is tracked otherwise counts.
fn within(word: &Word, limits: &defaults::Limits, drafts: &mut Drafts) -> Option<i32> {
    let read = value::integer(&word.text).map(|read| read.value);
    let most = *limits.range.end();
    if let Some(value) = read.filter(|value| value.abs() == 254 && most < 254) {
        let clamped = value.signum() * most;
        let message = format!("weight {value} is taken as {clamped}");
        drafts.push(Draft::warning(word.span, message).hint(limits.to_string()));
        return i32::try_from(clamped).ok();
    }
    read::number(word, "weight", limits, drafts)
}

/// Reads `track_interface`.
pub(super) fn interfaces(list: &mut Vec<At<TrackInterface>>, stmt: &Stmt, drafts: &mut Drafts) {
    stmt.no_more(0, drafts);
    for entry in stmt.body() {
        let Some(interface) = interface(&entry.keyword, drafts) else {
            continue;
        };
        let weight = entry_weight(entry, &defaults::TRACK_WEIGHT, drafts);
        let (value, reverse) = weight.or(0);
        let value = TrackInterface {
            interface,
            weight: i16::try_from(value).unwrap_or_default(),
            reverse,
        };
        let span = entry.keyword.span;
        list.push(At { value, span });
    }
}

/// Reads one of the lists of what is watched besides interfaces.
pub(super) fn track(draft: &mut TrackersDraft, stmt: &Stmt, drafts: &mut Drafts) {
    let (list, limits) = match stmt.keyword.text.as_str() {
        "track_script" => (&mut draft.scripts, &defaults::TRACK_WEIGHT),
        "track_file" => (&mut draft.files, &defaults::FILE_WEIGHT),
        "track_process" => (&mut draft.processes, &defaults::FILE_WEIGHT),
        _ => (&mut draft.bfds, &defaults::TRACK_WEIGHT),
    };
    entries(list, stmt, limits, drafts);
}

/// What can be watched: each name with its own weight, and whether that is turned round.
#[derive(Debug, Default)]
pub(super) struct Defined(HashMap<String, (i32, bool)>);

impl Defined {
    /// Whether something of this name is defined.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn new<'a>(definitions: impl Iterator<Item = (&'a str, i32, bool)>) -> Self {
        Self(
            definitions
                .map(|(name, weight, reverse)| (name.to_owned(), (weight, reverse)))
                .collect(),
        )
    }
}

/// Everything that can be watched.
#[derive(Debug, Default)]
pub(super) struct Watchable {
    pub(super) scripts: Defined,
    pub(super) files: Defined,
    pub(super) processes: Defined,
    pub(super) bfds: Defined,
}

/// How the weights of what is watched count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weighing {
    /// As they are.
    Plain,
    /// The instance owns its addresses, and its priority never changes.
    Owner,
    /// The instance is in a group whose members must not differ: what has a weight means FAULT, as without.
    Member,
}

impl TrackersDraft {
    /// The lists with their weights; what is unknown is dropped.
    pub(super) fn finish(
        self,
        whose: &str,
        watchable: &Watchable,
        weighing: Weighing,
        drafts: &mut Drafts,
    ) -> Trackers {
        let mut list =
            |keyword, entries, known| tracked((keyword, whose), entries, known, weighing, drafts);
        Trackers {
            scripts: list("track_script", self.scripts, &watchable.scripts),
            files: list("track_file", self.files, &watchable.files),
            processes: list("track_process", self.processes, &watchable.processes),
            bfds: list("track_bfd", self.bfds, &watchable.bfds),
        }
    }
}

fn tracked(
    (keyword, whose): (&str, &str),
    entries: Entries,
    known: &Defined,
    weighing: Weighing,
    drafts: &mut Drafts,
) -> Vec<Tracked> {
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    for At {
        value: (name, weight),
        span,
    } in entries
    {
        let Some((own, turned)) = known.0.get(&name) else {
            let message = format!("{keyword} {} is not defined; it is ignored", quoted(&name));
            drafts.push(Draft::warning(span, message));
            continue;
        };
        if !seen.insert(name.clone()) {
            let message = format!(
                "{keyword} {} is given again; the first one counts",
                quoted(&name)
            );
            drafts.push(Draft::warning(span, message));
            continue;
        }
        let (value, reverse) = weight.or(*own);
        let reverse = if weight.value.is_some() {
            reverse
        } else {
            reverse || *turned
        };
        let Some(weight) = weigh(value, weighing, (keyword, &name), span, drafts) else {
            continue;
        };
        let what = format!("{} of {whose}", quoted(keyword));
        let missing = format!("{} bears on its priority or means FAULT", quoted(&name));
        judge_missing(REFUSED, &what, &missing, span, drafts);
        found.push(Tracked {
            name,
            weight,
            reverse,
        });
    }
    found
}

/// The weight that counts; `None` where the entry has no effect.
pub(super) fn weigh(
    weight: i32,
    weighing: Weighing,
    (keyword, name): (&str, &str),
    span: Span,
    drafts: &mut Drafts,
) -> Option<i32> {
    match weighing {
        Weighing::Plain => Some(weight),
        Weighing::Owner if weight != 0 => {
            let message = format!("the weight of {keyword} {} has no effect", quoted(name));
            let hint = "the priority of an address owner (255) never changes (RFC 9568 §5.2.4)";
            drafts.push(Draft::warning(span, message).hint(hint));
            None
        }
        Weighing::Member if weight != 0 => {
            let message = format!(
                "the weight of {keyword} {} counts as 0: it means FAULT",
                quoted(name)
            );
            let hint =
                "members of a vrrp_sync_group must not differ; see sync_group_tracking_weight";
            drafts.push(Draft::warning(span, message).hint(hint));
            Some(0)
        }
        Weighing::Owner | Weighing::Member => Some(0),
    }
}

/// The keywords of the blocks.
pub(super) fn facts() -> impl Iterator<Item = (&'static str, &'static Facts)> {
    SCRIPT.facts().chain(FILE.facts()).chain(PROCESS.facts())
}
