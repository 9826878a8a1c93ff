//! The text of a configuration: files, places in them, and the lines that the lexer is given.
//!
//! [`expand`] is the stage between the files and the lexer. A line keeps, for every one of its
//! bytes, the place that it came from, so a later stage that substitutes text or splices in other
//! files changes what this stage returns and nothing after it.

use super::diagnostic::{Draft, Drafts, quoted};

/// A run of bytes in one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    /// First byte, counted from the start of the file.
    pub(super) start: usize,
    /// One past the last byte.
    pub(super) end: usize,
}

/// One configuration file as it was read.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: String,
    text: Vec<u8>,
    /// Offset of the first byte of every line.
    starts: Vec<usize>,
    /// Places that must not be shown.
    secrets: Vec<Span>,
}

/// A place as people count: the line and the character in it, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u32,
    pub(super) column: u32,
}

impl Source {
    pub(super) fn new(name: &str, text: &[u8]) -> Self {
        let ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let starts = std::iter::once(0).chain(ends.map(|(at, _)| at + 1));
        Self {
            name: name.to_owned(),
            text: text.to_vec(),
            starts: starts.collect(),
            secrets: Vec::new(),
        }
    }

    /// The bytes of line `index` (from 0) without its line feed, and where it starts.
    fn line(&self, index: usize) -> Option<(usize, &[u8])> {
        let start = *self.starts.get(index)?;
        let end = self
            .starts
            .get(index + 1)
            .map_or(self.text.len(), |next| next - 1);
        Some((start, &self.text[start..end]))
    }

    fn line_index(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset) - 1
    }

    pub(super) fn place(&self, offset: usize) -> Place {
        let offset = offset.min(self.text.len());
        let index = self.line_index(offset);
        let before = &self.text[self.starts[index]..offset];
        Place {
            line: u32::try_from(index + 1).unwrap_or(u32::MAX),
            column: count(before).saturating_add(1),
        }
    }

    /// Characters that `span` covers on the line where it starts; at least one.
    pub(super) fn length(&self, span: Span) -> u32 {
        let start = span.start.min(self.text.len());
        let (line, bytes) = self
            .line(self.line_index(start))
            .unwrap_or_else(|| (start, Default::default()));
        let end = span.end.min(line + bytes.len()).max(start);
        count(&self.text[start..end]).max(1)
    }

    /// Whether `offset` lies behind a word on its line that names a password.
    pub(super) fn hides(&self, offset: usize) -> bool {
        let line = self.line(self.line_index(offset.min(self.text.len())));
        let after = line.and_then(|(start, bytes)| Some(start + secret_after(bytes)?));
        after.is_some_and(|after| offset >= after)
    }

    /// A word of the file as messages quote it.
    pub(super) fn quoted(&self, span: Span) -> String {
        let end = span.end.min(self.text.len());
        let word = String::from_utf8_lossy(&self.text[span.start.min(end)..end]);
        quoted(word.trim_matches('"'))
    }

    /// Marks a place that [`Source::shown_line`] must hide.
    pub(super) fn hide(&mut self, span: Span) {
        self.secrets.push(span);
    }

    /// Line `number` (from 1) as it may be shown: passwords and control characters replaced,
    /// one character for one character, so that columns stay true.
    pub(super) fn shown_line(&self, number: u32) -> Option<String> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        let (start, bytes) = self.line(index)?;
        let after = secret_after(bytes).unwrap_or(usize::MAX);
        let end = start + bytes.len();
        let here = self
            .secrets
            .iter()
            .filter(|s| s.start < end && s.end > start);
        let here: Vec<Span> = here.copied().collect();
        let hidden = |at: usize| {
            let inside = |s: &Span| (s.start..s.end).contains(&(start + at));
            at >= after || here.iter().any(inside)
        };
        let mut shown = Vec::with_capacity(bytes.len());
        for (at, byte) in bytes.iter().enumerate() {
            if !hidden(at) || byte.is_ascii_whitespace() {
                shown.push(*byte);
            } else if byte & 0xc0 != 0x80 {
                shown.push(b'*');
            }
        }
        let text = String::from_utf8_lossy(&shown);
        let visible = |c: char| match c {
            '\t' => '\t',
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        };
        Some(text.trim_end_matches('\r').chars().map(visible).collect())
    }
}

fn count(bytes: &[u8]) -> u32 {
    u32::try_from(String::from_utf8_lossy(bytes).chars().count()).unwrap_or(u32::MAX)
}

/// Where a line that names something like a password stops being fit to show, however the line
/// was meant: misspelt, in a block that was skipped, or cut by a brace.
fn secret_after(line: &[u8]) -> Option<usize> {
    let mut from = 0;
    for word in line.split(|byte| !byte.is_ascii_graphic() || matches!(byte, b'{' | b'}')) {
        let text = String::from_utf8_lossy(word).to_ascii_lowercase();
        if text.contains("pass") || strsim::jaro_winkler(&text, "auth_pass") > 0.85 {
            let name = word.iter().position(|byte| *byte == b'=');
            return Some(from + name.unwrap_or(word.len()));
        }
        from += word.len() + 1;
    }
    None
}

/// One line for the lexer, each byte with the place that it came from.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) bytes: &'a [u8],
    /// Place of the first byte.
    pub(super) start: usize,
}

/// Turns a file into the lines that the lexer reads: substitution, conditions, repetition and
/// inclusion belong here (keepalived.conf(5)). None of them is supported yet, and each is
/// refused by its name, because a line taken literally would mean something else.
pub(super) fn expand<'a>(source: &'a Source, drafts: &mut Drafts) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    for index in 0..source.starts.len() {
        let Some((start, bytes)) = source.line(index) else {
            continue;
        };
        let line = Line { bytes, start };
        if bytes.contains(&0) {
            let span = line.span(0, bytes.len());
            drafts.push(Draft::error(span, "the line holds a NUL byte"));
        } else if let Some((feature, from, to)) = directive(bytes) {
            let message = format!("{feature} is not supported yet");
            drafts.push(Draft::error(line.span(from, to), message));
        } else {
            lines.push(line);
        }
    }
    lines
}

impl Line<'_> {
    /// The place of the bytes `from..to` of this line.
    pub(super) fn span(&self, from: usize, to: usize) -> Span {
        Span {
            start: self.start + from,
            end: self.start + to,
        }
    }
}

/// The first thing on the line that only source expansion could give a meaning, if there is one:
/// its name for the message and the bytes that it takes.
fn directive(bytes: &[u8]) -> Option<(String, usize, usize)> {
    let from = bytes
        .iter()
        .position(|byte| !byte.is_ascii_whitespace() && *byte != b'}')?;
    let rest = &bytes[from..];
    let length = rest
        .iter()
        .position(|byte| byte.is_ascii_whitespace() || matches!(byte, b'(' | b'#' | b'!'))
        .unwrap_or(rest.len());
    let word = String::from_utf8_lossy(&rest[..length]);
    let named = match word.as_ref() {
        "include" | "includer" | "includem" | "includew" | "includeb" | "includea" => {
            format!("`{word}`")
        }
        "~LST" => "`~LST`".to_owned(),
        word if word.starts_with("~SEQ") => "`~SEQ`".to_owned(),
        word if word.starts_with('@') => "a line kept by `@` and a configuration id".to_owned(),
        _ => return variable(bytes),
    };
    Some((named, from, from + length))
}

/// A `$NAME` or `${NAME}` outside comments and quotes' control: keepalived substitutes inside
/// quotes too, so only a comment ends the search.
fn variable(bytes: &[u8]) -> Option<(String, usize, usize)> {
    let mut quoted = false;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b'#' | b'!' if !quoted && at.checked_sub(1).map(|i| bytes[i]) != Some(b'\\') => {
                return None;
            }
            b'$' => {
                let rest = &bytes[at + 1..];
                let brace = usize::from(rest.first() == Some(&b'{'));
                let name = &rest[brace..];
                let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
                let length = name.iter().take_while(|byte| is_name(byte)).count();
                let after = name.get(length);
                let ends = match after {
                    Some(b'}') => brace == 1,
                    Some(b'=') => bytes[..at].iter().all(u8::is_ascii_whitespace),
                    Some(b' ' | b'\t' | b'\r' | b'/' | b')') | None => brace == 0,
                    _ => false,
                };
                if length > 0 && !name[0].is_ascii_digit() && ends {
                    let shown = String::from_utf8_lossy(&name[..length]);
                    let end = at + 1 + brace + length + brace;
                    return Some((format!("the variable `${shown}`"), at, end));
                }
            }
            _ => {}
        }
    }
    None
}
