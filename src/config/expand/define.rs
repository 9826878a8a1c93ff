//! Definitions (`$NAME=value`) and what stands for them.

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
};

use super::{
    Expander,
    text::{Text, is_blank, trim},
};
use crate::config::{
    diagnostic::Draft,
    source::{Origin, Span},
};

/// Most that a line may become.
const LONGEST_LINE: usize = 1 << 20;
/// Most replacements in a line: a definition may be empty, and so may what it stands for.
const MOST_REPLACED: usize = 100_000;

/// Longest name in braces that is looked for.
const LONGEST_NAME: usize = 256;

/// A definition: the lines of its value.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) name: Span,
    pub(super) lines: Vec<Text>,
}

/// The definitions in force.
pub(super) type Definitions = HashMap<Vec<u8>, Rc<Value>>;

/// A line whose `$NAME` are replaced.
#[derive(Default)]
pub(super) struct Replaced {
    /// The line, if it is still one.
    pub(super) line: Text,
    /// What it is instead with a definition of several lines: these, the first with what stood before, the last with
    /// what stood behind.
    pub(super) more: Vec<Text>,
}

/// Where a replacement reads: a part of the line or of a value.
struct Frame {
    text: Text,
    at: usize,
    /// The byte that follows it in what is around it.
    next: Option<u8>,
    /// The definition whose value it is, and what stands for it; `None` in the line itself.
    of: Option<(Vec<u8>, Span, Span)>,
}

/// A `$NAME` or `${NAME}`.
pub(super) struct Reference {
    /// Its name, with what follows it in the braces.
    name: Vec<u8>,
    /// Where it ends.
    pub(super) end: usize,
    braced: bool,
    /// It ends at a `/`, where keepalived 2.2 sees no end.
    slash: bool,
}

const fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn name_length(bytes: &[u8]) -> usize {
    if bytes.first().is_some_and(u8::is_ascii_digit) {
        return 0;
    }
    bytes.iter().take_while(|byte| is_name(**byte)).count()
}

/// The name that a line defines, and where the value starts.
pub(super) fn defined(bytes: &[u8]) -> Option<((usize, usize), usize)> {
    let rest = bytes.strip_prefix(b"$")?;
    let length = name_length(rest);
    (length > 0 && rest.get(length) == Some(&b'=')).then_some(((1, 1 + length), length + 2))
}

/// What `$` at `at` refers to. `next` is the byte behind the end of `bytes`.
pub(super) fn reference(bytes: &[u8], at: usize, next: Option<u8>) -> Option<Reference> {
    let rest = &bytes[at + 1..];
    if let Some(inner) = rest.strip_prefix(b"{") {
        let mut begin = inner.iter().take(LONGEST_NAME);
        let length = begin.position(|byte| *byte == b'}')?;
        let name = &inner[..length];
        let plain = name_length(name);
        // Only what is predefined takes more than its name.
        let fits = plain == length || (name.starts_with(b"_") && name.get(plain) == Some(&b' '));
        return (plain > 0 && fits).then(|| Reference {
            name: name.to_vec(),
            end: at + length + 3,
            braced: true,
            slash: false,
        });
    }
    let length = name_length(rest);
    let follows = rest.get(length).copied().or(next);
    let ends = follows.is_none_or(|byte| is_blank(byte) || matches!(byte, b'/' | b')'));
    (length > 0 && ends).then(|| Reference {
        name: rest[..length].to_vec(),
        end: at + 1 + length,
        braced: false,
        slash: follows == Some(b'/'),
    })
}

impl Expander<'_> {
    /// Takes a definition.
    pub(super) fn define(&mut self, text: &Text, name: (usize, usize), value: usize) {
        let key = text.bytes()[name.0..name.1].to_vec();
        let place = text.place(name.0, name.1);
        let rest = text.part(value, text.len());
        let (line, continues) = continued(&rest);
        let value = Value {
            name: place,
            lines: vec![line],
        };
        self.definitions.insert(key.clone(), Rc::new(value));
        self.continuing = continues.then_some(key);
    }

    /// Takes a further line of a definition of several lines.
    pub(super) fn continue_definition(&mut self, key: Vec<u8>, line: &Text) {
        let (line, continues) = continued(line);
        if let Some(value) = self.definitions.get_mut(&key) {
            Rc::make_mut(value).lines.push(line);
        }
        self.continuing = continues.then_some(key);
    }

    /// Replaces what refers to a definition, within quotes too, also in what was put in its place.
    pub(super) fn replace(&mut self, line: &Text) -> Option<Replaced> {
        let mut done = Replaced::default();
        let mut replaced = 0;
        // The names of the definitions whose values are being read.
        let mut within = HashSet::new();
        let mut frames = vec![Frame {
            text: line.clone(),
            at: 0,
            next: None,
            of: None,
        }];
        while let Some(frame) = frames.last() {
            let bytes = frame.text.bytes();
            let from = frame.at;
            let found = bytes[from..].iter().position(|byte| *byte == b'$');
            let at = found.map_or(bytes.len(), |offset| from + offset);
            let to = found.and_then(|_| reference(bytes, at, frame.next));
            let behind = (at + 1).min(bytes.len());
            let end = to.as_ref().map_or(behind, |to| to.end);
            let next = bytes.get(end).copied().or(frame.next);
            let place = match &frame.of {
                Some((_, _, place)) => *place,
                None => frame.text.place(at, end),
            };
            let found_value = to.and_then(|to| {
                let value = self.value_of(&to, place, &within);
                value.map(|value| (to.name, value))
            });
            let plain = if found_value.is_some() { at } else { end };
            done.take(frame, from, plain);
            let is_over = found.is_none();
            if let Some(frame) = frames.last_mut() {
                frame.at = end;
            }
            if is_over {
                let name = frames.pop().and_then(|frame| frame.of);
                name.inspect(|(name, ..)| {
                    within.remove(name);
                });
            } else if let Some((name, value)) = found_value {
                replaced += 1;
                if value.lines.len() > 1 {
                    done.take_lines(&value, place, &mut frames);
                    break;
                }
                frames.extend(value.lines.first().map(|text| Frame {
                    text: text.clone(),
                    at: 0,
                    next,
                    of: Some((name.clone(), value.name, place)),
                }));
                within.insert(name);
            }
            if done.line.len() > LONGEST_LINE || replaced > MOST_REPLACED {
                let message = "the definitions make more of this line than it may be";
                let hint = format!("{LONGEST_LINE} bytes, {MOST_REPLACED} replacements");
                let place = line.place(0, line.len());
                self.drafts.push(Draft::error(place, message).hint(hint));
                return None;
            }
        }
        self.work(done.line.len() + 16 * replaced, line);
        Some(done)
    }

    fn value_of(
        &mut self,
        to: &Reference,
        place: Span,
        within: &HashSet<Vec<u8>>,
    ) -> Option<Rc<Value>> {
        if within.contains(&to.name) {
            let message = "a definition stands for itself; it is taken as plain text";
            self.drafts.push(Draft::warning(place, message));
            return None;
        }
        if let Some(value) = self.definitions.get(&to.name) {
            if to.slash {
                let message = "keepalived 2.2 puts nothing in the place of a name before `/`";
                let hint = "`${NAME}/` means the same to every version";
                self.drafts.push(Draft::note(place, message).hint(hint));
            }
            return Some(Rc::clone(value));
        }
        if let Some(text) = to
            .braced
            .then(|| self.predefined(&to.name, place))
            .flatten()
        {
            let mut line = Text::default();
            let origin = Origin {
                place,
                exact: false,
                definition: None,
            };
            line.push(text.as_bytes(), origin);
            return Some(Rc::new(Value {
                name: place,
                lines: vec![line],
            }));
        }
        if to.braced {
            // The name is not said: it may be a part of a password.
            let message = "nothing of this name is defined here; it is taken as plain text";
            self.drafts.push(Draft::note(place, message));
        }
        None
    }

    /// What keepalived defines itself.
    fn predefined(&mut self, name: &[u8], place: Span) -> Option<String> {
        let name = String::from_utf8_lossy(name);
        let mut words = name.split_ascii_whitespace();
        let found = match words.next()? {
            "_PWD" => Some(self.folder().to_owned()),
            "_INSTANCE" => Some(self.request.id.to_owned()),
            "_HASH" => Some("#".to_owned()),
            "_BANG" => Some("!".to_owned()),
            "_ENV" => return self.environment(words.next()?, place),
            "_RANDOM" => {
                /// The range that counts where none is given (keepalived.conf(5)).
                const DEFAULT: (u32, u32) = (0, 32_767);
                let mut bound = |default| words.next().map_or(Some(default), |w| w.parse().ok());
                let (least, most) = (bound(DEFAULT.0)?, bound(DEFAULT.1)?);
                if least > most {
                    let message = "the range of `_RANDOM` ends before it starts";
                    self.drafts.push(Draft::warning(place, message));
                    return None;
                }
                Some(self.random.u32(least..=most).to_string())
            }
            _ => None,
        };
        found.filter(|_| words.next().is_none())
    }

    fn environment(&mut self, name: &str, place: Span) -> Option<String> {
        let value = self.request.host.variable(name);
        if value.is_none() {
            let message = "the environment has no such variable; nothing takes its place";
            self.drafts.push(Draft::warning(place, message));
        }
        // A line is a line, whatever the variable holds.
        let value = value.unwrap_or_default();
        Some(value.replace(['\n', '\0'], " "))
    }
}

impl Replaced {
    fn take(&mut self, frame: &Frame, from: usize, to: usize) {
        match &frame.of {
            None => self.line.push_part(&frame.text, from, to),
            Some((_, name, place)) => {
                self.line.push_value(&frame.text, (from, to), *name, *place);
            }
        }
    }

    /// The lines of a definition, of which the last goes on with the rest of everything around it.
    fn take_lines(&mut self, value: &Value, place: Span, frames: &mut Vec<Frame>) {
        for line in &value.lines {
            let mut own = std::mem::take(&mut self.line);
            own.push_value(line, (0, line.len()), value.name, place);
            self.more.push(own);
        }
        if let Some(last) = self.more.last_mut() {
            for frame in frames.drain(..).rev() {
                match frame.of {
                    None => last.push_part(&frame.text, frame.at, frame.text.len()),
                    Some((_, name, place)) => {
                        let rest = (frame.at, frame.text.len());
                        last.push_value(&frame.text, rest, name, place);
                    }
                }
            }
        }
    }
}

/// A line of a definition without the backslash at its end, and whether it had one.
fn continued(line: &Text) -> (Text, bool) {
    let (from, to) = trim(line.bytes(), 0, line.len());
    let continues = line.bytes()[from..to].ends_with(b"\\");
    let to = if continues { to - 1 } else { to };
    let (from, to) = trim(line.bytes(), from, to);
    (line.part(from, to), continues)
}
