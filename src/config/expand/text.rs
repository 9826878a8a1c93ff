//! Text under expansion: each byte with the place that it came from.

use crate::config::source::{Definition, Origin, Source, Span};

/// Bytes from one place.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// The first of them.
    at: usize,
    origin: Origin,
}

/// A line, or a part of one.
#[derive(Clone, Debug, Default)]
pub(super) struct Text {
    bytes: Vec<u8>,
    runs: Vec<Run>,
}

impl Text {
    /// What is written in a file.
    pub(super) fn written(place: Span, source: &Source) -> Self {
        let mut text = Self::default();
        text.push(
            source.bytes(place),
            Origin {
                place,
                exact: true,
                definition: None,
            },
        );
        text
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_blank(&self) -> bool {
        self.bytes.iter().all(|byte| is_blank(*byte))
    }

    /// Adds bytes of one place.
    pub(super) fn push(&mut self, bytes: &[u8], origin: Origin) {
        if bytes.is_empty() {
            return;
        }
        let at = self.bytes.len();
        match self.runs.last_mut().map(|run| &mut run.origin) {
            // What stood together stands together again.
            Some(last) if last.exact && origin.exact && last.place.touches(&origin.place) => {
                last.place.end = origin.place.end;
            }
            _ => self.runs.push(Run { at, origin }),
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Adds a part of another text as it is.
    pub(super) fn push_part(&mut self, other: &Self, from: usize, to: usize) {
        other.each(from, to, |bytes, origin| self.push(bytes, origin));
    }

    /// Adds a part of the value of the definition `name`, which `place` stands for.
    pub(super) fn push_value(
        &mut self,
        value: &Self,
        part: (usize, usize),
        name: Span,
        place: Span,
    ) {
        value.each(part.0, part.1, |bytes, origin| {
            let own = Definition {
                name,
                value: origin.place,
            };
            let origin = Origin {
                place,
                exact: false,
                definition: Some(origin.definition.unwrap_or(own)),
            };
            self.push(bytes, origin);
        });
    }

    fn each<'a>(&'a self, from: usize, to: usize, mut take: impl FnMut(&'a [u8], Origin)) {
        let first = self.runs.partition_point(|run| run.at <= from);
        for index in first.saturating_sub(1)..self.runs.len() {
            let run = &self.runs[index];
            let end = self.runs.get(index + 1).map_or(self.len(), |next| next.at);
            let (start, end) = (run.at.max(from), end.min(to));
            if run.at >= to {
                break;
            }
            if start < end {
                let mut origin = run.origin;
                if origin.exact {
                    origin.place = origin.place.part(start - run.at, end - run.at);
                }
                take(&self.bytes[start..end], origin);
            }
        }
    }

    /// A part of it.
    pub(super) fn part(&self, from: usize, to: usize) -> Self {
        let mut text = Self::default();
        text.push_part(self, from, to);
        text
    }

    /// Without the blanks at its ends.
    pub(super) fn trimmed(&self) -> Self {
        let (from, to) = trim(&self.bytes, 0, self.len());
        self.part(from, to)
    }

    /// Where a part of it is written.
    pub(super) fn place(&self, from: usize, to: usize) -> Span {
        let mut all: Option<Span> = None;
        self.each(from, to, |_, origin| {
            let place = all.get_or_insert(origin.place);
            if place.file == origin.place.file {
                place.end = place.end.max(origin.place.end);
            }
        });
        all.unwrap_or_else(|| {
            self.runs
                .last()
                .map_or_else(Span::default, |r| r.origin.place)
        })
    }

    /// Its runs, for [`Source::expanded`].
    pub(super) fn runs(&self) -> impl Iterator<Item = (&[u8], Origin)> {
        let mut all = Vec::with_capacity(self.runs.len());
        self.each(0, self.len(), |bytes, origin| all.push((bytes, origin)));
        all.into_iter()
    }

    /// The same without comments, carriage returns, and the backslash of `\#` and `\!`.
    pub(super) fn without_comment(&self) -> Self {
        let mut clean = Self::default();
        let (mut from, mut at, mut quoted) = (0, 0, false);
        while let Some(&byte) = self.bytes.get(at) {
            match byte {
                b'"' => quoted = !quoted,
                b'\r' => {
                    clean.push_part(self, from, at);
                    from = at + 1;
                }
                b'\\' if !quoted && matches!(self.bytes.get(at + 1), Some(b'#' | b'!')) => {
                    clean.push_part(self, from, at);
                    from = at + 1;
                    at += 1;
                }
                b'#' | b'!' if !quoted => break,
                _ => {}
            }
            at += 1;
        }
        clean.push_part(self, from, at.max(from));
        clean
    }
}

/// White space within a line, as C's isspace() has it.
pub(super) const fn is_blank(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

/// The bounds of `from..to` without the blanks at its ends.
pub(super) fn trim(bytes: &[u8], from: usize, to: usize) -> (usize, usize) {
    let part = &bytes[from..to];
    let Some(first) = part.iter().position(|byte| !is_blank(*byte)) else {
        return (to, to);
    };
    let last = part.iter().rposition(|byte| !is_blank(*byte));
    (from + first, from + last.unwrap_or(first) + 1)
}
