//! Between the files and the lexer: conditions, definitions, repetitions and inclusion make the lines that the lexer
//! is given (keepalived.conf(5)).
//!
//! A line that none of them concerns is handed on where it stands. Any other becomes a line of
//! [`FileId::EXPANDED`], each byte of which knows where it was written. All of it is bounded: what a few lines can
//! blow up is cut off and said.

mod define;
mod include;
mod repeat;
mod text;

use self::{
    define::{Definitions, defined, reference},
    include::{Checks, Reading, checks_of},
    text::{Text, is_blank, trim},
};
use super::{
    diagnostic::{Draft, Drafts},
    lexer::Line,
    request::Request,
    source::{FileId, Source, Span},
};

/// Most that expansion may make of a configuration: bytes, with something for each line and replacement. The
/// manual's example of 65,024 instances takes two thirds of it.
const MOST_WORK: usize = 96 << 20;
/// Deepest nesting of definitions of several lines and repetitions.
const MAX_DEPTH: usize = 32;
/// Longest line that keepalived reads whole, in bytes.
const KEEPALIVED_LINE: usize = 1022;

/// Keywords that tell the reading of files itself something.
const INCLUDE_CHECK: &str = "include_check";
const RANDOM_SEED: &str = "random_seed";
const TOLD: [&[u8]; 2] = [INCLUDE_CHECK.as_bytes(), RANDOM_SEED.as_bytes()];

/// A line for the lexer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    place: Span,
    /// Comments and escapes are gone from it.
    clean: bool,
}

impl Row {
    /// Its text.
    pub(super) fn line(self, source: &Source) -> Line<'_> {
        Line {
            bytes: source.bytes(self.place),
            place: self.place,
            clean: self.clean,
        }
    }
}

/// The lines of a configuration with all that it includes.
pub(super) fn expand(request: &Request<'_>, source: &mut Source, drafts: &mut Drafts) -> Vec<Row> {
    let mut expander = Expander {
        request,
        source,
        drafts,
        rows: Vec::new(),
        definitions: Definitions::new(),
        continuing: None,
        random: fastrand::Rng::with_seed(request.seed),
        reading: Vec::new(),
        included: 0,
        checks: Checks::default(),
        worked: 0,
    };
    expander.file(FileId::FIRST, request.folder, 0);
    expander.rows
}

struct Expander<'a> {
    request: &'a Request<'a>,
    source: &'a mut Source,
    drafts: &'a mut Drafts,
    rows: Vec<Row>,
    definitions: Definitions,
    /// The definition that the next line belongs to.
    continuing: Option<Vec<u8>>,
    random: fastrand::Rng,
    /// The files that are being read, each included by the one before.
    reading: Vec<Reading>,
    included: usize,
    /// What `include_check` asks of every include.
    checks: Checks,
    /// What expansion has made so far, as [`MOST_WORK`] counts.
    worked: usize,
}

impl Expander<'_> {
    /// The folder of the file that is being read.
    fn folder(&self) -> &str {
        self.reading.last().map_or("", |reading| &reading.folder)
    }

    fn file(&mut self, file: FileId, folder: &str, depth: usize) {
        self.reading.push(Reading {
            file,
            folder: folder.to_owned(),
        });
        // An included file does not change what is checked in the file around it.
        let checks = self.checks;
        let mut index = 0;
        while let Some(place) = self.source.line(file, index) {
            let skipped = if index == 0 {
                self.byte_order_mark(place)
            } else {
                0
            };
            self.written_line(place.part(skipped, place.len()), depth);
            index += 1;
        }
        self.checks = checks;
        self.reading.pop();
    }

    /// The length of what some editors put at the start of a file.
    fn byte_order_mark(&mut self, place: Span) -> usize {
        const MARK: &[u8] = b"\xef\xbb\xbf";
        if !self.source.bytes(place).starts_with(MARK) {
            return 0;
        }
        let message = "the file starts with a byte order mark, which is skipped";
        let place = place.part(0, MARK.len());
        self.drafts.push(Draft::note(place, message));
        MARK.len()
    }

    /// A line as it stands in a file.
    fn written_line(&mut self, place: Span, depth: usize) {
        let bytes = self.source.bytes(place);
        if bytes.len() > KEEPALIVED_LINE {
            self.long_line(place);
        }
        let bytes = self.source.bytes(place);
        if self.continuing.is_none() && is_plain(bytes) {
            self.rows.push(Row {
                place,
                clean: false,
            });
            return;
        }
        if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
            let message = "the line holds a NUL byte and is ignored";
            let place = place.part(at, at + 1);
            self.drafts.push(Draft::warning(place, message));
            return;
        }
        let text = Text::written(place, self.source).without_comment();
        match self.continuing.take() {
            Some(key) => self.continue_definition(key, &text),
            None => self.line(&text, depth),
        }
    }

    fn long_line(&mut self, place: Span) {
        let text = Text::written(place, self.source).without_comment();
        let (_, to) = trim(text.bytes(), 0, text.len());
        if to > KEEPALIVED_LINE {
            let message = "the line is longer than keepalived reads; here all of it counts";
            let hint = format!("{KEEPALIVED_LINE} bytes");
            let place = place.part(KEEPALIVED_LINE, place.len());
            self.drafts.push(Draft::note(place, message).hint(hint));
        }
    }

    /// Counts work, and says at `line` when it was too much.
    fn work(&mut self, amount: usize, line: &Text) {
        let before = self.is_exhausted();
        self.worked = self.worked.saturating_add(amount);
        if !before && self.is_exhausted() {
            let message = "definitions and repetitions make more than is read; the rest is dropped";
            let hint = format!("{} MiB", MOST_WORK >> 20);
            let place = line.place(0, line.len());
            self.drafts.push(Draft::error(place, message).hint(hint));
        }
    }

    const fn is_exhausted(&self) -> bool {
        self.worked > MOST_WORK
    }

    /// A line without its comment: what a condition, a definition or a repetition makes of it.
    fn line(&mut self, text: &Text, depth: usize) {
        if depth > MAX_DEPTH {
            let place = text.place(0, text.len());
            let message =
                format!("more than {MAX_DEPTH} definitions stand for one another; dropped");
            self.drafts.push(Draft::error(place, message));
            // As deep as that, there may be twice as many at each depth: this was one too many.
            self.worked = usize::MAX;
        }
        if self.is_exhausted() {
            return;
        }
        let bytes = text.bytes();
        let mut from = 0;
        loop {
            // Closing braces, and the `{` of a block whose keyword is on the line before.
            let is_word = |byte: &u8| !is_blank(*byte) && !matches!(byte, b'{' | b'}');
            let word = bytes[from..].iter().position(is_word);
            let at = word.map_or(bytes.len(), |length| from + length);
            self.emit(&text.part(from, at));
            let rest = &bytes[at..];
            if rest.is_empty() {
                return;
            } else if rest[0] == b'@' {
                match self.kept(rest) {
                    Some(length) => from = at + length,
                    None => return,
                }
            } else if let Some((name, value)) = defined(rest) {
                self.define(&text.part(at, bytes.len()), name, value);
                return;
            } else if let Some(word) = repeat::begins(rest) {
                self.repeat(word, &text.part(at, bytes.len()), depth);
                return;
            } else if let Some((checks, length)) = includes(rest) {
                self.include_line(checks, &text.part(at, bytes.len()), length, depth);
                return;
            } else {
                from = directive_behind_brace(rest).map_or(bytes.len(), |length| at + length);
                self.statement(&text.part(at, from), depth);
            }
        }
    }

    /// Whether `@id …` or `@^id …` keeps its line: where the line goes on.
    fn kept(&mut self, bytes: &[u8]) -> Option<usize> {
        let end = bytes.iter().position(|byte| is_blank(*byte))?;
        let word = &bytes[1..end];
        let (word, wanted) = match word.strip_prefix(b"^") {
            Some(word) => (word, false),
            None => (word, true),
        };
        if (word == self.request.id.as_bytes()) == wanted {
            return Some(end);
        }
        if bytes.trim_ascii_end().ends_with(b"\\") {
            // The further lines of a definition for another host are its own, too: of no name here.
            self.continuing = Some(Vec::new());
        }
        None
    }

    /// Anything else.
    fn statement(&mut self, text: &Text, depth: usize) {
        let Some(replaced) = self.replace(text) else {
            return;
        };
        if !replaced.more.is_empty() {
            for line in replaced.more {
                self.line(&line, depth + 1);
            }
        } else if replaced.line.bytes().starts_with(b"@") {
            // A definition may be a condition.
            self.line(&replaced.line, depth + 1);
        } else {
            self.told(&replaced.line);
            self.emit(&replaced.line);
        }
    }

    fn include_line(&mut self, checks: Checks, text: &Text, end: usize, depth: usize) {
        let Some(replaced) = self.replace(&text.part(end, text.len())) else {
            return;
        };
        let line = replaced.line;
        // The name is all of the rest, but for a brace that closes a block.
        let (mut open, mut to) = (0_u32, line.len());
        for (at, byte) in line.bytes().iter().enumerate() {
            match byte {
                b'{' => open += 1,
                b'}' if open == 0 => {
                    to = at;
                    break;
                }
                b'}' => open -= 1,
                _ => {}
            }
        }
        let pattern = line.part(0, to).trimmed();
        if pattern.len() == 0 {
            let place = text.place(0, end);
            let message = "an include needs the name of a file";
            self.drafts.push(Draft::warning(place, message));
        } else {
            self.include(checks, &pattern, depth);
        }
        if to < line.len() {
            self.line(&line.part(to, line.len()), depth + 1);
        }
    }

    /// What the reading of files itself is told by keywords.
    fn told(&mut self, line: &Text) {
        let text = String::from_utf8_lossy(line.bytes());
        let (word, rest) = text
            .split_once(|c: char| c.is_whitespace())
            .unwrap_or((&text, ""));
        match word {
            INCLUDE_CHECK => self.checks = self.checks.told(rest),
            RANDOM_SEED => {
                if let Ok(seed) = rest.trim().parse() {
                    self.random = fastrand::Rng::with_seed(seed);
                }
            }
            _ => {}
        }
    }

    fn emit(&mut self, text: &Text) {
        if text.is_blank() {
            return;
        }
        let place = self.source.expanded(text.runs());
        self.rows.push(Row { place, clean: true });
    }
}

/// What the include that a line begins with checks, and the length of its word.
fn includes(bytes: &[u8]) -> Option<(Checks, usize)> {
    /// Longer than every word that includes.
    const LONGEST: usize = 16;
    let begin = &bytes[..bytes.len().min(LONGEST)];
    let length = begin.iter().position(|byte| is_blank(*byte));
    let length = length.unwrap_or(begin.len());
    Some((checks_of(&begin[..length])?, length))
}

/// Whether a line goes to the lexer as it stands.
fn is_plain(bytes: &[u8]) -> bool {
    let mut brace = false;
    for byte in bytes {
        match byte {
            b'$' | b'@' | b'~' | 0 => return false,
            b'{' | b'}' => brace = true,
            _ => {}
        }
    }
    let first = bytes.iter().position(|byte| !is_blank(*byte));
    let rest = &bytes[first.unwrap_or(bytes.len())..];
    let told = |rest: &[u8]| rest.starts_with(b"include") || rest.starts_with(TOLD[1]);
    let inside = brace && (0..bytes.len()).any(|at| told(&bytes[at..]));
    !inside && !told(rest)
}

/// Where, behind a brace outside of quotes, stands what only expansion understands.
fn directive_behind_brace(bytes: &[u8]) -> Option<usize> {
    let (mut quoted, mut brace, mut at) = (false, false, 0);
    while let Some(&byte) = bytes.get(at) {
        let begins = brace && !quoted && {
            let rest = &bytes[at..];
            let told = |word: &&[u8]| rest.starts_with(word);
            byte == b'@'
                || repeat::begins(rest).is_some()
                || includes(rest).is_some()
                || TOLD.iter().any(told)
        };
        if begins {
            return Some(at);
        }
        match byte {
            b'"' => quoted = !quoted,
            b'$' if !quoted && bytes.get(at + 1) == Some(&b'{') => {
                at += reference(bytes, at, None).map_or(0, |found| found.end - 1 - at);
            }
            b'{' | b'}' if !quoted => {
                brace = true;
                at += 1;
                continue;
            }
            _ => {}
        }
        brace = brace && is_blank(byte);
        at += 1;
    }
    None
}
