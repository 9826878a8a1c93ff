//! The text of a configuration: its files, places in them, and how they are shown.

use super::secrets::secret_after;

/// One of the files of a [`Source`], in the order in which they were added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileId(usize);

impl FileId {
    /// The file that was handed to the parser.
    pub(super) const FIRST: Self = Self(0);
}

/// A run of bytes in one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    /// The file.
    pub(super) file: FileId,
    /// First byte, counted from the start of the file.
    pub(super) start: usize,
    /// One past the last byte.
    pub(super) end: usize,
}

impl Span {
    /// Whether the two have a byte in common.
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.file == other.file && self.start < other.end && other.start < self.end
    }

    fn holds(&self, file: FileId, offset: usize) -> bool {
        self.file == file && (self.start..self.end).contains(&offset)
    }
}

/// One file as it was read.
#[derive(Debug)]
struct File {
    name: String,
    text: Vec<u8>,
    /// Offset of the first byte of every line.
    starts: Vec<usize>,
}

/// The files of a configuration, and what of them must not be shown.
#[derive(Debug, Default)]
pub(super) struct Source {
    files: Vec<File>,
    /// Places that must not be shown.
    secrets: Vec<Span>,
    /// Places that may be shown, whatever their line looks like.
    open: Vec<Span>,
}

/// A place as people count: the line and the character in it, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u32,
    pub(super) column: u32,
}

impl File {
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

    fn place(&self, offset: usize) -> Place {
        let offset = offset.min(self.text.len());
        let index = self.line_index(offset);
        let before = &self.text[self.starts[index]..offset];
        Place {
            line: u32::try_from(index + 1).unwrap_or(u32::MAX),
            column: count(before).saturating_add(1),
        }
    }
}

impl Source {
    /// A source of one file, [`FileId::FIRST`].
    pub(super) fn new(name: &str, text: &[u8]) -> Self {
        let mut source = Self::default();
        source.add(name, text);
        source
    }

    /// Adds a file; no two have one name.
    pub(super) fn add(&mut self, name: &str, text: &[u8]) -> FileId {
        let ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let starts = std::iter::once(0).chain(ends.map(|(at, _)| at + 1));
        self.files.push(File {
            name: name.to_owned(),
            starts: starts.collect(),
            text: text.to_vec(),
        });
        FileId(self.files.len() - 1)
    }

    /// Marks a place that [`Source::shown_line`] must hide.
    pub(super) fn hide(&mut self, span: Span) {
        self.secrets.push(span);
    }

    /// Marks a place that is no password, whatever its line looks like.
    pub(super) fn reveal(&mut self, span: Span) {
        self.open.push(span);
    }

    fn file(&self, id: FileId) -> &File {
        &self.files[id.0]
    }

    /// The name of a file.
    pub(super) fn name(&self, id: FileId) -> &str {
        &self.file(id).name
    }

    /// The names of the files, each once.
    pub(super) fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for file in &self.files {
            if !names.contains(&file.name.as_str()) {
                names.push(&file.name);
            }
        }
        names
    }

    /// The lines of a file without their line feeds, each with where it starts.
    pub(super) fn lines(&self, id: FileId) -> impl Iterator<Item = (usize, &[u8])> {
        let file = self.file(id);
        (0..file.starts.len()).filter_map(|index| file.line(index))
    }

    /// Where a span starts.
    pub(super) fn place(&self, span: Span) -> Place {
        self.file(span.file).place(span.start)
    }

    /// Characters that `span` covers on the line where it starts; at least one.
    pub(super) fn length(&self, span: Span) -> u32 {
        let file = self.file(span.file);
        let start = span.start.min(file.text.len());
        let (line, bytes) = file
            .line(file.line_index(start))
            .unwrap_or_else(|| (start, Default::default()));
        let end = span.end.min(line + bytes.len()).max(start);
        count(&file.text[start..end]).max(1)
    }

    /// Whether `span` starts behind a word on its line that names a password.
    pub(super) fn hides(&self, span: Span) -> bool {
        let file = self.file(span.file);
        let line = file.line(file.line_index(span.start.min(file.text.len())));
        let after = line.and_then(|(start, bytes)| Some(start + secret_after(bytes)?));
        let behind = after.is_some_and(|after| span.start >= after);
        behind && !self.open.iter().any(|s| s.holds(span.file, span.start))
    }

    /// A word of the file as messages quote it.
    pub(super) fn quoted(&self, span: Span) -> String {
        let text = &self.file(span.file).text;
        let end = span.end.min(text.len());
        let word = String::from_utf8_lossy(&text[span.start.min(end)..end]);
        quoted(word.trim_matches('"'))
    }

    /// Line `number` (from 1) of the file with this name as it may be shown: passwords and control characters
    /// replaced, one character for one character, so that columns stay true.
    pub(super) fn shown_line(&self, name: &str, number: u32) -> Option<String> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        let at = self.files.iter().position(|file| file.name == name)?;
        let (start, bytes) = self.files[at].line(index)?;
        let line = Span {
            file: FileId(at),
            start,
            end: start + bytes.len(),
        };
        let after = secret_after(bytes).unwrap_or(usize::MAX);
        let here = |spans: &[Span]| -> Vec<Span> {
            let met = spans.iter().filter(|span| span.meets(&line));
            met.copied().collect()
        };
        let (secrets, open) = (here(&self.secrets), here(&self.open));
        let among = |spans: &[Span], at| spans.iter().any(|s| s.holds(line.file, start + at));
        let mut shown = Vec::with_capacity(bytes.len());
        for (at, byte) in bytes.iter().enumerate() {
            let hidden = among(&secrets, at) || (at >= after && !among(&open, at));
            if !hidden || byte.is_ascii_whitespace() {
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

/// A word of the configuration as a message shows it: in backticks, cut when it is very long,
/// without characters that would move a terminal's cursor.
pub(super) fn quoted(word: &str) -> String {
    /// Long enough for every name that keepalived accepts.
    const LONGEST: usize = 64;
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut text: String = word.chars().take(LONGEST).map(visible).collect();
    if word.chars().nth(LONGEST).is_some() {
        text.push('…');
    }
    format!("`{text}`")
}
