//! keepalived as oracle: each file of `testdata/oracle` has one feature or one mistake, and is given to both.
//!
//! Compared are the verdicts (refused, used with complaints, used in silence) and, where both use the file, the values:
//! the effective configuration that xvs prints must mean to keepalived what the file itself means to it. Every
//! difference stands in a table with its reason; one that is not there fails the test, and so does one that is no more.

use std::{collections::BTreeMap, fmt, fs, path::PathBuf, sync::Mutex, thread};

use xvs::config::{self, Parsed, Request, Severity};

use crate::{
    Test,
    support::{
        oracle::{Half, Oracle, Reading},
        site::Site,
        snapshot::{is_blessing, testdata},
        xvs::write,
    },
};

/// The table of differences, beside the files.
const TABLE: &str = "differences.txt";

/// What it begins with.
const HEAD: &str = "# Where xvs and keepalived differ, and why: a file, the reason, the verdicts if they differ, then the
# values: `-` what keepalived makes of the file, `+` what it makes of the effective configuration of xvs.
";

/// How many keepalived run at the same time: they wait more than they work.
const AT_ONCE: usize = 6;

pub(crate) fn tests() -> Vec<Test> {
    vec![Test::new(
        "oracle::xvs_understands_a_file_as_keepalived_does",
        compare,
    )]
}

/// What a program makes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Silent,
    Complains,
    Refuses,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Silent => "says nothing",
            Self::Complains => "complains",
            Self::Refuses => "refuses",
        })
    }
}

impl Verdict {
    fn of_keepalived(reading: &Reading) -> Self {
        match reading {
            Reading { starts: false, .. } => Self::Refuses,
            Reading { said, .. } if said.is_empty() => Self::Silent,
            Reading { .. } => Self::Complains,
        }
    }

    /// What xvs says about the language: that something is not built yet says nothing about how it is read.
    fn of_xvs(parsed: &Parsed) -> Self {
        let own = ["by this version", "not applied yet"];
        let of_language = parsed
            .diagnostics
            .iter()
            .filter(|finding| !own.iter().any(|own| finding.message.contains(own)));
        match of_language.map(|finding| finding.severity).max() {
            None | Some(Severity::Note) => Self::Silent,
            Some(Severity::Deprecated | Severity::Warning) => Self::Complains,
            Some(Severity::Error) => Self::Refuses,
        }
    }
}

fn folder() -> PathBuf {
    testdata("oracle")
}

/// What is different between the two, a line each.
fn differences_of(oracle: &Oracle<'_>, name: &str) -> Vec<String> {
    let path = folder().join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let half = Half::of(&text);
    let theirs = oracle.read(name, &text, half);
    // The id that the oracle is started with.
    let id = "left";
    let ours = config::read(&Request {
        id,
        ..Request::alone(name, text.as_bytes())
    });
    let verdicts = (Verdict::of_keepalived(&theirs), Verdict::of_xvs(&ours));
    let mut found = Vec::new();
    if verdicts.0 != verdicts.1 {
        found.push(format!("keepalived {}, xvs {}", verdicts.0, verdicts.1));
    }
    if theirs.starts && verdicts.1 != Verdict::Refuses {
        let effective = config::effective(&ours.config);
        let again = oracle.read(&format!("effective-{name}"), &effective, half);
        if again.starts {
            found.extend(changed_lines(&theirs.dump, &again.dump));
        } else {
            found.push("keepalived refuses the effective configuration".to_owned());
        }
    }
    found
}

/// Lines of a dump that differ for every file.
const ALWAYS_OTHER: [&str; 4] = [
    // The command line, which names the file.
    "'--dump-conf'",
    // The effective configuration says the kernel's own times, which are IPVS's defaults.
    "LVS TCP timeout = 900",
    "LVS TCP FIN timeout = 120",
    "LVS TCP timeout = 300",
];

/// The lines that are in one dump only, `-` for those of the file, `+` for those of the effective configuration.
fn changed_lines(file: &[String], effective: &[String]) -> Vec<String> {
    let mut counts: BTreeMap<&str, i32> = BTreeMap::new();
    for (lines, step) in [(file, 1), (effective, -1)] {
        for line in lines {
            if !ALWAYS_OTHER.iter().any(|other| line.contains(other)) {
                *counts.entry(line).or_default() += step;
            }
        }
    }
    let changed = counts.into_iter().filter(|(_, count)| *count != 0);
    changed
        .map(|(line, count)| format!("{}{line}", if count > 0 { '-' } else { '+' }))
        .collect()
}

/// The differences of a file, and why they are right or what is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    reason: String,
    lines: Vec<String>,
}

/// Differences by file, as they stand in the table: `FILE: REASON`, then the differences, indented.
type Table = BTreeMap<String, Known>;

fn table() -> Table {
    let path = folder().join(TABLE);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut table = Table::new();
    let mut last = None;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(difference) = line.strip_prefix("    ") {
            let known: &mut Known = last.as_mut().map_or_else(
                || panic!("{line:?} belongs to no file"),
                |file| table.get_mut(file).expect("it was inserted"),
            );
            known.lines.push(difference.to_owned());
        } else if let Some((file, reason)) = line.split_once(": ") {
            let (reason, lines) = (reason.to_owned(), Vec::new());
            table.insert(file.to_owned(), Known { reason, lines });
            last = Some(file.to_owned());
        }
    }
    table
}

/// Writes `found` as the table, with the reasons that are known.
fn bless(found: &BTreeMap<String, Vec<String>>, known: &Table) {
    let mut text = HEAD.to_owned();
    for (file, lines) in found.iter().filter(|(_, lines)| !lines.is_empty()) {
        let reason = known.get(file).map_or("", |known| &known.reason);
        text += &format!("\n{file}: {reason}\n");
        for line in lines {
            text += &format!("    {line}\n");
        }
    }
    write(&folder().join(TABLE), &text);
}

fn compare() {
    let site = Site::new(false);
    let oracle = Oracle::new(site.as_ref());
    let mut names: Vec<String> = fs::read_dir(folder())
        .expect("the folder of the files can be listed")
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.into_string().expect("the name is UTF-8"))
        .filter(|name| name.ends_with(".conf"))
        .collect();
    names.sort();
    assert!(names.len() > 100, "{names:?}");
    let todo = Mutex::new(names.iter());
    let found = Mutex::new(BTreeMap::new());
    let work = || {
        while let Some(name) = { todo.lock().expect("no thread panicked").next() } {
            let differences = differences_of(&oracle, name);
            let mut found = found.lock().expect("no thread panicked");
            found.insert(name.clone(), differences);
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    let found = found.into_inner().expect("no thread panicked");
    let known = table();
    if is_blessing() {
        return bless(&found, &known);
    }
    for (file, known) in &known {
        assert!(!known.reason.is_empty(), "{file} needs a reason");
        assert!(found.contains_key(file), "there is no file {file}");
    }
    let expected = |file| known.get(file).map_or(&[][..], |known| &known.lines);
    let others = found
        .iter()
        .filter(|(file, lines)| *lines != expected(*file));
    let others: BTreeMap<_, _> = others.collect();
    assert!(
        others.is_empty(),
        "differences other than those in {TABLE} (XVS_BLESS=1 writes them there): {others:#?}"
    );
}
