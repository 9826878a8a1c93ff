//! The text of a configuration: its files, places in them, and how they are shown.

use std::collections::BTreeMap;

use super::secrets::secret_after;

/// One of the files of a [`Source`], in the order in which they were added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FileId(u32);

impl FileId {
    /// The file that was handed to the parser.
    pub(super) const FIRST: Self = Self(0);
    /// No file: the lines that expansion made.
    pub(super) const EXPANDED: Self = Self(1);
}

/// A run of bytes in one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Span {
    /// The file.
    pub(super) file: FileId,
    /// First byte, counted from the start of the file.
    pub(super) start: u32,
    /// One past the last byte.
    pub(super) end: u32,
}

/// Most bytes of a file, or of what expansion makes: places in it are counted in 32 bits.
const MOST_BYTES: usize = 1 << 30;

fn narrow(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

const fn wide(offset: u32) -> usize {
    offset as usize
}

impl Span {
    /// Whether the two have a byte in common.
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.file == other.file && self.start < other.end && other.start < self.end
    }

    /// The bytes `from..to` of this run, counted from its start.
    pub(super) fn part(&self, from: usize, to: usize) -> Self {
        let at = |offset| self.start.saturating_add(narrow(offset)).min(self.end);
        Self {
            file: self.file,
            start: at(from),
            end: at(to),
        }
    }

    /// Whether the other one starts where this one ends.
    pub(super) fn touches(&self, other: &Self) -> bool {
        self.file == other.file && self.end == other.start
    }

    /// How many bytes.
    pub(super) const fn len(&self) -> usize {
        wide(self.end.saturating_sub(self.start))
    }
}

/// Places that have no byte in common: what is added to another becomes one with it.
#[derive(Debug, Default)]
pub(super) struct Places(BTreeMap<(FileId, u32), u32>);

impl Places {
    pub(super) fn add(&mut self, span: Span) {
        if span.len() == 0 {
            return;
        }
        let mut whole = span;
        let met: Vec<Span> = self.meeting(span).collect();
        for place in met {
            whole.start = whole.start.min(place.start);
            whole.end = whole.end.max(place.end);
            self.0.remove(&(place.file, place.start));
        }
        self.0.insert((whole.file, whole.start), whole.end);
    }

    /// Those that have a byte in common with `span`, from the last to the first.
    pub(super) fn meeting(&self, span: Span) -> impl Iterator<Item = Span> + '_ {
        let before = self.0.range((span.file, 0)..(span.file, span.end)).rev();
        let places = before.map(|(&(file, start), &end)| Span { file, start, end });
        places.take_while(move |place| place.meets(&span))
    }

    /// Whether one of them has a byte in common with `span`.
    pub(super) fn meets(&self, span: Span) -> bool {
        self.meeting(span).next().is_some()
    }

    fn holds(&self, file: FileId, offset: usize) -> bool {
        let start = narrow(offset);
        let end = start.saturating_add(1);
        self.meets(Span { file, start, end })
    }

    /// All of them, in the order of the files.
    pub(super) fn iter(&self) -> impl Iterator<Item = Span> + '_ {
        let places = self.0.iter();
        places.map(|(&(file, start), &end)| Span { file, start, end })
    }
}

/// Where text that expansion made comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// Where it is written, or where what stands for it is written.
    pub(super) place: Span,
    /// It is written there byte by byte, and nothing stands for it.
    pub(super) exact: bool,
    /// The definition that it comes from.
    pub(super) definition: Option<Definition>,
}

/// Where a definition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Definition {
    /// The name.
    pub(super) name: Span,
    /// The part of the value that was used.
    pub(super) value: Span,
}

/// Text from one place, up to the next piece.
#[derive(Clone, Copy, Debug)]
struct Piece {
    start: u32,
    origin: Origin,
}

/// One file as it was read.
#[derive(Debug)]
struct File {
    name: String,
    text: Vec<u8>,
    /// Offset of the first byte of every line.
    starts: Vec<usize>,
    /// What included it, the first time.
    included: Option<Span>,
}

/// The files of a configuration, and what of them must not be shown.
#[derive(Debug, Default)]
pub(super) struct Source {
    files: Vec<File>,
    /// What the text of [`FileId::EXPANDED`] is made of.
    pieces: Vec<Piece>,
    /// Places that must not be shown.
    secrets: Places,
    /// Places that may be shown, whatever their line looks like.
    open: Places,
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
        source.add(name, text.to_vec(), None);
        source.add("", Vec::new(), None);
        source
    }

    /// Adds a file, with what included it; no two have one name.
    pub(super) fn add(&mut self, name: &str, mut text: Vec<u8>, included: Option<Span>) -> FileId {
        text.truncate(MOST_BYTES);
        let ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let starts = std::iter::once(0).chain(ends.map(|(at, _)| at + 1));
        self.files.push(File {
            name: name.to_owned(),
            starts: starts.collect(),
            text,
            included,
        });
        FileId(narrow(self.files.len() - 1))
    }

    /// The file with this name.
    pub(super) fn find(&self, name: &str) -> Option<FileId> {
        let at = self.files.iter().position(|file| file.name == name)?;
        Some(FileId(narrow(at)))
    }

    /// Adds a line that expansion made, of runs of bytes with where they come from.
    pub(super) fn expanded<'a>(&mut self, runs: impl Iterator<Item = (&'a [u8], Origin)>) -> Span {
        let file = &mut self.files[wide(FileId::EXPANDED.0)];
        let start = narrow(file.text.len());
        for (bytes, origin) in runs {
            let start = narrow(file.text.len());
            self.pieces.push(Piece { start, origin });
            file.text.extend_from_slice(bytes);
        }
        let end = narrow(file.text.len());
        file.text.push(b'\n');
        file.starts.push(file.text.len());
        Span {
            file: FileId::EXPANDED,
            start,
            end,
        }
    }

    fn pieces(&self, span: Span) -> &[Piece] {
        if span.file != FileId::EXPANDED {
            return &[];
        }
        let from = self.pieces.partition_point(|p| p.start <= span.start);
        let to = self.pieces.partition_point(|p| p.start < span.end);
        let from = from.saturating_sub(1);
        &self.pieces[from..to.max(from + 1).min(self.pieces.len())]
    }

    /// Where a span is written in a file, and the definition that its start comes from.
    pub(super) fn written(&self, span: Span) -> (Span, Option<Definition>) {
        let pieces = self.pieces(span);
        let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else {
            return (span, None);
        };
        let mut place = first.origin.place;
        if first.origin.exact {
            let skipped = wide(span.start.saturating_sub(first.start));
            place = place.part(skipped, place.len());
        }
        let end = last.origin.place;
        if last.origin.exact {
            let length = wide(span.end.saturating_sub(last.start));
            place.end = end.part(0, length).end;
        } else {
            place.end = end.end;
        }
        place.end = place.end.max(place.start);
        (place, first.origin.definition)
    }

    /// Everything that a span is written in: its place, and the definitions that its text comes from.
    pub(super) fn all_written(&self, span: Span) -> Vec<Span> {
        let pieces = self.pieces(span).iter();
        let definitions = pieces.filter_map(|piece| piece.origin.definition);
        let mut all: Vec<Span> = definitions.map(|definition| definition.value).collect();
        all.push(self.written(span).0);
        all
    }

    /// What puts places in the order in which they were read.
    pub(super) fn order(&self, span: Span) -> Vec<u32> {
        let mut order = vec![span.start];
        let mut file = span.file;
        // A file that was included stands after the line that included it.
        while let Some(place) = self.file(file).included {
            order.push(place.start);
            file = place.file;
        }
        order.reverse();
        order
    }

    /// Marks a place that [`Source::shown_line`] must hide.
    pub(super) fn hide(&mut self, span: Span) {
        self.secrets.add(span);
    }

    /// Marks a place that is no password, whatever its line looks like.
    pub(super) fn reveal(&mut self, span: Span) {
        self.open.add(span);
    }

    fn file(&self, id: FileId) -> &File {
        &self.files[wide(id.0)]
    }

    /// The name of a file.
    pub(super) fn name(&self, id: FileId) -> &str {
        &self.file(id).name
    }

    /// The names of the files, each once.
    pub(super) fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for file in &self.files {
            if !file.name.is_empty() {
                names.push(file.name.as_str());
            }
        }
        names
    }

    /// The line of a file with this index, from 0, without its line feed.
    pub(super) fn line(&self, id: FileId, index: usize) -> Option<Span> {
        let (start, bytes) = self.file(id).line(index)?;
        Some(Span {
            file: id,
            start: narrow(start),
            end: narrow(start + bytes.len()),
        })
    }

    /// The bytes of a span.
    pub(super) fn bytes(&self, span: Span) -> &[u8] {
        let text = &self.file(span.file).text;
        let end = wide(span.end).min(text.len());
        &text[wide(span.start).min(end)..end]
    }

    /// The line on which a span starts, for comparing.
    pub(super) fn line_of(&self, span: Span) -> (FileId, usize) {
        (span.file, self.file(span.file).line_index(wide(span.start)))
    }

    /// Where a span starts in the file that it is written in.
    pub(super) fn place(&self, span: Span) -> Place {
        let (span, _) = self.written(span);
        self.file(span.file).place(wide(span.start))
    }

    /// Characters that `span` covers on the line where it starts; at least one.
    pub(super) fn length(&self, span: Span) -> u32 {
        let file = self.file(span.file);
        let start = wide(span.start).min(file.text.len());
        let (line, bytes) = file
            .line(file.line_index(start))
            .unwrap_or_else(|| (start, Default::default()));
        let end = wide(span.end).min(line + bytes.len()).max(start);
        count(&file.text[start..end]).max(1)
    }

    /// Whether `span` starts behind a word on its line that names a password.
    pub(super) fn hides(&self, span: Span) -> bool {
        let file = self.file(span.file);
        let line = file.line(file.line_index(wide(span.start).min(file.text.len())));
        let after = line.and_then(|(start, bytes)| Some(start + secret_after(bytes)?));
        let behind = after.is_some_and(|after| wide(span.start) >= after);
        behind && !self.open.holds(span.file, wide(span.start))
    }

    /// A word of the file as messages quote it.
    pub(super) fn quoted(&self, span: Span) -> String {
        let word = String::from_utf8_lossy(self.bytes(span));
        quoted(word.trim_matches('"'))
    }

    /// Line `number` (from 1) of the file with this name as it may be shown: passwords and control characters
    /// replaced, one character for one character, so that columns stay true.
    pub(super) fn shown_line(&self, name: &str, number: u32) -> Option<String> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        let at = self.files.iter().position(|file| file.name == name)?;
        let (start, bytes) = self.files[at].line(index)?;
        let line = Span {
            file: FileId(narrow(at)),
            start: narrow(start),
            end: narrow(start + bytes.len()),
        };
        let after = secret_after(bytes).unwrap_or(usize::MAX);
        let among = |places: &Places, at| places.holds(line.file, start + at);
        let mut shown = Vec::with_capacity(bytes.len());
        for (at, byte) in bytes.iter().enumerate() {
            let hidden = among(&self.secrets, at) || (at >= after && !among(&self.open, at));
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
