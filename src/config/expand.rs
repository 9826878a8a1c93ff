//! Between the files and the lexer: the lines that the lexer is given.
//!
//! A line keeps, for every one of its bytes, the place that it came from, so a later stage that substitutes text or
//! splices in other files changes what this stage returns and nothing after it.

use super::{
    diagnostic::{Draft, Drafts},
    source::{FileId, Source, Span},
};

/// One line for the lexer, each byte with the place that it came from.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) bytes: &'a [u8],
    /// The file that it is from.
    pub(super) file: FileId,
    /// Place of the first byte in it.
    pub(super) start: usize,
}

/// Turns a file into the lines that the lexer reads: substitution, conditions, repetition and
/// inclusion belong here (keepalived.conf(5)). None of them is supported yet, and each is
/// refused by its name, because a line taken literally would mean something else.
pub(super) fn expand<'a>(source: &'a Source, drafts: &mut Drafts) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    let file = FileId::FIRST;
    for (start, bytes) in source.lines(file) {
        let line = Line { bytes, file, start };
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
            file: self.file,
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
