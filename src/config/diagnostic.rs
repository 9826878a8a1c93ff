//! What is said about a configuration: where, how bad, what, and what to do about it.

use std::{collections::HashSet, fmt};

use super::source::{Definition, Places, Source, Span};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing; nothing was changed.
    Note,
    /// An old way to say it, which works.
    Deprecated,
    /// A statement that was dropped, changed or is not applied: the configuration is used with what the text says.
    Warning,
    /// The configuration must not be used: the box would forward or elect otherwise than the file says.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Note => "note",
            Self::Deprecated => "deprecated",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// What becomes of something that is not done as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// This version does not do it yet.
    Unapplied,
    /// It means nothing here.
    Meaningless,
}

/// One finding. Displayed on one line as `FILE:LINE:COLUMN: warning: MESSAGE`; never shows a
/// password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What becomes of what is named, if that is what it says.
    pub fate: Option<Fate>,
    /// The file, named as it was handed to the parser.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The first character concerned, from 1 (characters, not bytes; a tab is one).
    pub column: u32,
    /// How many characters are concerned, at least 1, none beyond the end of the line.
    pub length: u32,
    /// What is the matter.
    pub message: String,
    /// What to do about it, or why; shown after the caret.
    pub hint: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            severity,
            file,
            line,
            column,
            message,
            ..
        } = self;
        write!(f, "{file}:{line}:{column}: {severity}: {message}")
    }
}

/// A finding that still points at bytes.
#[derive(Debug)]
pub(super) struct Draft {
    severity: Severity,
    fate: Option<Fate>,
    span: Span,
    message: String,
    hint: Option<String>,
}

impl Draft {
    pub(super) fn error(span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, span, message)
    }

    pub(super) fn warning(span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, span, message)
    }

    pub(super) fn deprecated(span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Deprecated, span, message)
    }

    pub(super) fn note(span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Note, span, message)
    }

    fn new(severity: Severity, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity,
            fate: None,
            span,
            message: message.into(),
            hint: None,
        }
    }

    pub(super) fn fate(mut self, fate: Fate) -> Self {
        self.fate = Some(fate);
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Findings that are shown: what nobody would read, and what would take a file of closing braces
/// a minute to place.
const MOST: usize = 500;
/// The same on one line.
const MOST_ON_LINE: usize = 50;

/// Every finding of a run, in the order of discovery, and the places that no finding may show.
#[derive(Debug, Default)]
pub(super) struct Drafts {
    found: Vec<Draft>,
    secrets: Places,
    /// Places that look like passwords and are none.
    open: Places,
}

impl Drafts {
    pub(super) fn push(&mut self, draft: Draft) {
        self.found.push(draft);
    }

    /// Marks a place as a password: it is shown as asterisks.
    pub(super) fn hide(&mut self, span: Span) {
        self.secrets.add(span);
    }

    /// Marks a place as no password, whatever it looks like.
    pub(super) fn reveal(&mut self, span: Span) {
        self.open.add(span);
    }

    /// Whether a place was marked as a password.
    pub(super) fn is_hidden(&self, span: Span) -> bool {
        self.secrets.meets(span)
    }

    /// The findings in the order of the files; the source learns what to hide.
    pub(super) fn finish(mut self, source: &mut Source) -> Vec<Diagnostic> {
        let mut hidden = Places::default();
        for secret in self.secrets.iter() {
            source.hide(secret);
            for written in source.all_written(secret) {
                source.hide(written);
                hidden.add(written);
            }
        }
        for open in self.open.iter() {
            source.reveal(open);
            source.reveal(source.written(open).0);
        }
        self.found.sort_by_cached_key(|draft| {
            let (place, _) = source.written(draft.span);
            (source.order(place), std::cmp::Reverse(draft.severity))
        });
        // What a repeated line or a file included twice says is said once.
        let mut said = HashSet::new();
        self.found.retain(|draft| {
            let (place, _) = source.written(draft.span);
            said.insert((place, draft.message.clone()))
        });
        let mut line = None;
        let mut on_line = 0;
        self.found.retain_mut(|draft| {
            let own = source.line_of(source.written(draft.span).0);
            on_line = if line == Some(own) { on_line + 1 } else { 1 };
            line = Some(own);
            if on_line == MOST_ON_LINE {
                draft.hint = Some("the rest of the line is not reported".to_owned());
            }
            // One that refuses the file is never left out.
            on_line <= MOST_ON_LINE || draft.severity == Severity::Error
        });
        if self.found.len() > MOST {
            let rest = self.found.split_off(MOST);
            let worst = rest.iter().map(|draft| draft.severity).max();
            let message = format!("{} more findings are not shown", rest.len());
            let last = self.found[MOST - 1].span;
            self.found
                .push(Draft::new(worst.unwrap_or(Severity::Note), last, message));
        }
        let secrets = self.secrets;
        let placed = self.found.into_iter().map(|mut draft| {
            // Also what a definition that is a password elsewhere has put into another word.
            let mut parts = source.all_written(draft.span).into_iter();
            let is_part = parts.any(|part| hidden.meets(part));
            let own = (is_part || source.hides(draft.span)).then_some(draft.span);
            for secret in secrets.meeting(draft.span).chain(own) {
                draft.message = draft.message.replace(&source.quoted(secret), "`****`");
            }
            let (span, definition) = source.written(draft.span);
            let place = source.place(span);
            let from = definition.and_then(|from| defined(from, span, source));
            let hints = [draft.hint, from];
            let hints: Vec<String> = hints.into_iter().flatten().collect();
            Diagnostic {
                severity: draft.severity,
                fate: draft.fate,
                file: source.name(span.file).to_owned(),
                line: place.line,
                column: place.column,
                length: source.length(span),
                message: draft.message,
                hint: (!hints.is_empty()).then(|| hints.join("; ")),
            }
        });
        placed.collect()
    }
}

/// Where the definition stands that text at `place` comes from, if it is not there.
fn defined(from: Definition, place: Span, source: &Source) -> Option<String> {
    let line = source.place(from.value).line;
    if from.value.file == place.file && line == source.place(place).line {
        return None;
    }
    let name = String::from_utf8_lossy(source.bytes(from.name));
    let file = source.name(from.value.file);
    Some(format!("from the definition of `${name}` at {file}:{line}"))
}

/// Widest part of a source line that is shown, in characters: one screen line and a half.
const SHOWN: usize = 120;

/// The finding on one line, then the source line and carets under the characters concerned.
pub(super) fn render(diagnostic: &Diagnostic, source: &Source) -> String {
    let mut text = format!("{diagnostic}\n");
    let Some(line) = source.shown_line(&diagnostic.file, diagnostic.line) else {
        return text;
    };
    let column = usize::try_from(diagnostic.column).unwrap_or(1).max(1) - 1;
    // A window around the place, for lines that no screen holds.
    let skipped = if column < SHOWN {
        0
    } else {
        column - SHOWN / 2
    };
    let all: Vec<char> = line.chars().collect();
    let shown: Vec<char> = all.iter().skip(skipped).take(SHOWN).copied().collect();
    let before = shown.iter().take(column - skipped);
    let indent: String = before.flat_map(|c| cells(*c)).collect();
    let length = usize::try_from(diagnostic.length).unwrap_or(1);
    let marked = shown.iter().skip(column - skipped).take(length);
    let carets: usize = marked.map(|c| cells(*c).len()).sum();
    let cut = if skipped + SHOWN < all.len() {
        "…"
    } else {
        ""
    };
    let lead = if skipped > 0 { "…" } else { "" };
    let shown: String = shown.into_iter().collect();
    let shown = shown.trim_end();
    text += &format!("{:>5} | {lead}{shown}{cut}\n", diagnostic.line);
    let pad = if skipped > 0 { " " } else { "" };
    let hint = diagnostic.hint.as_deref().unwrap_or_default();
    let under = format!("      | {pad}{indent}{} {hint}", "^".repeat(carets.max(1)));
    text += under.trim_end();
    text.push('\n');
    text
}

/// Blanks that take as much of a terminal line as `c` does: a tab stays one, the wide
/// characters of East Asian scripts (Unicode UAX #11) take two cells, combining marks none.
fn cells(c: char) -> &'static [char] {
    match u32::from(c) {
        9 => &['\t'],
        0x0300..=0x036f | 0x200b..=0x200f | 0xfe00..=0xfe0f => &[],
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1faff
        | 0x20000..=0x3fffd => &[' ', ' '],
        _ => &[' '],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::source::FileId;

    #[test]
    fn every_finding_names_its_file_and_shows_its_line() {
        let mut source = Source::new("first.conf", b"one and another\n three\n\n");
        let second = source.add(
            "second.conf",
            b"four\n\n auth_pass S3cr3t\n five\n".to_vec(),
            Some(Span {
                file: FileId::FIRST,
                start: 22,
                end: 23,
            }),
        );
        let span = |file, start, end| Span { file, start, end };
        let mut drafts = Drafts::default();
        // `S3cr3t` in the second file has the place of `three` in the first one.
        drafts.hide(span(second, 17, 23));
        drafts.push(Draft::error(span(second, 25, 29), "about `five`"));
        drafts.push(Draft::warning(span(second, 17, 23), "about `S3cr3t`"));
        drafts.push(Draft::note(span(FileId::FIRST, 17, 22), "about `three`"));
        let found = drafts.finish(&mut source);
        let shown: String = found.iter().map(|d| render(d, &source)).collect();
        assert_eq!(
            shown,
            "first.conf:2:2: note: about `three`\n    2 |  three\n      |  ^^^^^\n\
             second.conf:3:12: warning: about `****`\n    3 |  auth_pass ******\n      |            ^^^^^^\n\
             second.conf:4:2: error: about `five`\n    4 |  five\n      |  ^^^^\n"
        );
    }
}
