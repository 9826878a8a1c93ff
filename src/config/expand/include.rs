//! `include` and its variants: which files are read, and what is said of those that are not.

use super::{Expander, text::Text};
use crate::config::{
    diagnostic::Draft,
    request::Unreadable,
    source::{FileId, Span},
};

/// Deepest nesting of files. A file that includes itself is found before.
const MAX_DEPTH: usize = 32;
/// Most files that are read, each counted as often as it is included.
const MOST_FILES: usize = 10_000;
/// Most patterns that the braces of one may stand for.
const MOST_PATTERNS: usize = 256;
/// Longest path (Linux `PATH_MAX`).
const LONGEST_PATH: usize = 4096;

/// What must be so for an include to be in order, else the configuration is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Checks {
    /// What matches can be read.
    readable: bool,
    /// A file without wildcards in its name exists.
    found: bool,
    /// Something matches, with wildcards too.
    wildcard: bool,
    /// Something matches for each alternative in braces.
    brace: bool,
}

const ALL: Checks = Checks {
    readable: true,
    found: true,
    wildcard: true,
    brace: true,
};

/// The words that include, each with what it checks beside what `include_check` asks for.
const WORDS: [(&str, Checks); 6] = {
    const NONE: Checks = Checks {
        readable: false,
        found: false,
        wildcard: false,
        brace: false,
    };
    const READABLE: Checks = Checks {
        readable: true,
        ..NONE
    };
    [
        ("include", NONE),
        ("includer", READABLE),
        (
            "includem",
            Checks {
                found: true,
                ..READABLE
            },
        ),
        (
            "includew",
            Checks {
                wildcard: true,
                ..READABLE
            },
        ),
        (
            "includeb",
            Checks {
                brace: true,
                ..READABLE
            },
        ),
        ("includea", ALL),
    ]
};

/// What an include checks, if the word is one.
pub(super) fn checks_of(word: &[u8]) -> Option<Checks> {
    let mut words = WORDS.iter();
    let found = words.find(|(name, _)| name.as_bytes() == word)?;
    Some(found.1)
}

impl Checks {
    const fn and(self, other: Self) -> Self {
        Self {
            readable: self.readable || other.readable,
            found: self.found || other.found,
            wildcard: self.wildcard || other.wildcard,
            brace: self.brace || other.brace,
        }
    }

    /// What `include_check` with these words makes of it. Words that it does not know are the business of whoever
    /// reads `global_defs`.
    pub(super) fn told(self, words: &str) -> Self {
        let mut words = words.split_ascii_whitespace().peekable();
        if words.peek().is_none() {
            return ALL;
        }
        let mut checks = self;
        let mut mode = None;
        for word in words {
            let (sign, word) = match word.as_bytes().first() {
                Some(sign @ (b'+' | b'-')) => (Some(*sign), &word[1..]),
                _ => (mode, word),
            };
            if sign.is_none() {
                // Words without a sign say all that there is to check.
                checks = Self::default();
            }
            mode = Some(sign.unwrap_or(b'+'));
            let on = mode != Some(b'-');
            match word {
                "read" | "readable" => checks.readable = on,
                "match" => checks.found = on,
                "wildcard_match" => checks.wildcard = on,
                "brace_match" => checks.brace = on,
                _ => continue,
            }
            checks.readable |= on;
        }
        checks
    }
}

impl Expander<'_> {
    /// Reads what the pattern names.
    pub(super) fn include(&mut self, checks: Checks, pattern: &Text, depth: usize) {
        let all_files = self.request.all_files;
        let checks = if all_files {
            ALL
        } else {
            self.checks.and(checks)
        };
        let place = pattern.place(0, pattern.len());
        let shown = String::from_utf8_lossy(pattern.bytes()).into_owned();
        if shown.len() > LONGEST_PATH {
            let message = format!("no file has a name of more than {LONGEST_PATH} bytes");
            self.drafts.push(Draft::warning(place, message));
            return;
        }
        let Some(patterns) = braces(&shown) else {
            let message = format!("the braces stand for more than {MOST_PATTERNS} names");
            self.drafts.push(Draft::error(place, message));
            return;
        };
        let mut missing = 0;
        let mut found = 0;
        for pattern in &patterns {
            let path = if pattern.starts_with('/') || self.folder().is_empty() {
                pattern.clone()
            } else {
                format!("{}/{pattern}", self.folder())
            };
            let paths = self.request.host.matching(&path);
            missing += usize::from(paths.is_empty());
            for path in paths {
                found += 1;
                self.include_file(&path, checks, place, depth);
            }
        }
        if missing == 0 {
            return;
        }
        let wild = shown.contains(['*', '?', '[']);
        let refused = if found == 0 && wild {
            checks.wildcard
        } else if found == 0 {
            checks.found
        } else {
            checks.brace
        };
        let message = if patterns.len() > 1 {
            "no file matches one of the alternatives"
        } else if wild {
            "no file matches"
        } else {
            "there is no such file"
        };
        if refused {
            let hint = if all_files {
                "every file that is included has to be there"
            } else {
                "its include is told to check this"
            };
            self.drafts.push(Draft::error(place, message).hint(hint));
        } else if !wild {
            let mut draft = Draft::warning(place, message);
            if shown.contains(['"', '\'']) {
                draft = draft.hint("quotes are a part of the name");
            }
            self.drafts.push(draft);
        }
    }

    fn include_file(&mut self, path: &str, checks: Checks, place: Span, depth: usize) {
        let known = self.source.find(path);
        if known.is_some_and(|file| self.reading.iter().any(|open| open.file == file)) {
            let message = "the file includes itself; it is not read again";
            self.drafts.push(Draft::warning(place, message));
            return;
        }
        self.included += 1;
        if self.reading.len() >= MAX_DEPTH || self.included > MOST_FILES {
            let message = if self.included > MOST_FILES {
                format!("more than {MOST_FILES} files are included; this one is not read")
            } else {
                format!("more than {MAX_DEPTH} files include one another; this one is not read")
            };
            self.drafts.push(Draft::error(place, message));
            return;
        }
        if let Some(file) = known {
            self.file(file, folder_of(path), depth);
            return;
        }
        match self.request.host.read(path) {
            Ok(text) => {
                let (place, _) = self.source.written(place);
                let file = self.source.add(path, text, Some(place));
                self.file(file, folder_of(path), depth);
            }
            Err(why) => {
                let message = format!("`{}` is not read: {why}", printable(path));
                let refused = checks.readable && matches!(why, Unreadable::Failed(_));
                self.drafts.push(if refused {
                    Draft::error(place, message)
                } else {
                    Draft::warning(place, message)
                });
            }
        }
    }
}

/// A file that is being read.
pub(super) struct Reading {
    pub(super) file: FileId,
    /// Its folder: relative includes count from it.
    pub(super) folder: String,
}

/// The folder of a path.
fn folder_of(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) => "/",
        Some((folder, _)) => folder,
        None => "",
    }
}

fn printable(path: &str) -> String {
    path.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// The patterns that one with alternatives in braces stands for, as csh has it. `None` when there are too many.
fn braces(pattern: &str) -> Option<Vec<String>> {
    let mut done = Vec::new();
    let mut left = vec![pattern.to_owned()];
    while let Some(pattern) = left.pop() {
        if done.len() + left.len() > MOST_PATTERNS {
            return None;
        }
        match first_braces(&pattern) {
            None => done.push(pattern),
            Some((open, commas, close)) => {
                // The first alternative is taken up first.
                let ends = commas.iter().copied().chain([close]);
                let starts = [open].into_iter().chain(commas.iter().copied());
                let alternatives: Vec<_> = starts
                    .zip(ends)
                    .map(|(from, to)| {
                        let (before, after) = (&pattern[..open], &pattern[close + 1..]);
                        format!("{before}{}{after}", &pattern[from + 1..to])
                    })
                    .collect();
                left.extend(alternatives.into_iter().rev());
            }
        }
    }
    Some(done)
}

/// The first `{…}` that is not empty: where it opens, its commas, and where it closes.
fn first_braces(pattern: &str) -> Option<(usize, Vec<usize>, usize)> {
    let mut open: Vec<(usize, Vec<usize>)> = Vec::new();
    let mut first: Option<(usize, Vec<usize>, usize)> = None;
    for (at, byte) in pattern.bytes().enumerate() {
        match byte {
            b'{' => open.push((at, Vec::new())),
            b',' => {
                if let Some((_, commas)) = open.last_mut() {
                    commas.push(at);
                }
            }
            b'}' => {
                let closed = open.pop().filter(|(from, _)| from + 1 < at);
                if let Some((from, commas)) = closed
                    && first.as_ref().is_none_or(|(other, ..)| from < *other)
                {
                    first = Some((from, commas, at));
                }
            }
            _ => {}
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_stand_for_alternatives_in_order() {
        let all = |pattern| braces(pattern).map(|all| all.join(" "));
        assert_eq!(all("a/b").as_deref(), Some("a/b"));
        assert_eq!(all("a{b,c}d").as_deref(), Some("abd acd"));
        assert_eq!(
            all("{foo/{,cat,dog},bar}").as_deref(),
            Some("foo/ foo/cat foo/dog bar")
        );
        assert_eq!(all("{a,b}{c,d}").as_deref(), Some("ac ad bc bd"));
        assert_eq!(all("a{}b{").as_deref(), Some("a{}b{"));
        assert_eq!(all(&"{a,b}".repeat(30)), None);
    }

    #[test]
    fn checks_are_set_added_and_removed() {
        let none = Checks::default();
        assert_eq!(none.told(""), ALL);
        let some = none.told("match");
        assert!(some.readable && some.found && !some.wildcard && !some.brace);
        let more = some.told("+wildcard_match brace_match -match");
        assert!(more.wildcard && more.brace && !more.found);
        assert_eq!(ALL.told("read"), checks_of(b"includer").unwrap());
        assert_eq!(checks_of(b"included"), None);
    }
}
