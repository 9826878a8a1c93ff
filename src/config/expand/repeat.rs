//! Lines that stand for many: `~SEQ`, `~SEQx` and `~LST`.

use std::rc::Rc;

use super::{
    Expander,
    define::{Definitions, Value},
    text::{Text, is_blank, trim},
};
use crate::config::{
    diagnostic::Draft,
    source::{Origin, Span},
};

/// Most values of one sequence: ten for each of 100,000 virtual servers.
const MOST_VALUES: u64 = 1_000_000;

/// What a line is repeated for: the names, and for each time their values.
struct Repeat {
    names: Vec<(Vec<u8>, Span)>,
    values: Values,
    /// The words between the parentheses.
    place: Span,
}

impl Repeat {
    /// How many times the line is read.
    fn count(&self) -> u64 {
        match &self.values {
            Values::Numbers { count, .. } => *count,
            Values::List(list) => list.len() as u64,
        }
    }

    /// The first time is the only one.
    fn cut(&mut self) {
        match &mut self.values {
            Values::Numbers { count, .. } => *count = 1,
            Values::List(list) => list.truncate(1),
        }
    }
}

enum Values {
    Numbers {
        start: i64,
        step: i64,
        count: u64,
        hex: bool,
    },
    List(Vec<Vec<Text>>),
}

/// The words that begin a repetition, the longer one of two that begin alike first.
const WORDS: [&[u8]; 3] = [b"~SEQx", b"~SEQ", b"~LST"];

/// The word that begins a repetition, if the line begins with one.
pub(super) fn begins(bytes: &[u8]) -> Option<&'static [u8]> {
    let mut words = WORDS.into_iter();
    words.find(|word| bytes.starts_with(word))
}

impl Expander<'_> {
    /// Repeats what stands behind `word` and its parentheses.
    pub(super) fn repeat(&mut self, word: &[u8], line: &Text, depth: usize) {
        let shown = String::from_utf8_lossy(word).into_owned();
        let bytes = line.bytes();
        let open = word.len()
            + bytes[word.len()..]
                .iter()
                .take_while(|b| is_blank(**b))
                .count();
        let length = bytes[open..].iter().position(|byte| *byte == b')');
        let whole = line.place(0, line.len());
        let Some(close) = length
            .map(|length| open + length)
            .filter(|_| bytes[open] == b'(')
        else {
            let message = format!("`{shown}` needs its values in parentheses; the line is dropped");
            let hint = expected(word);
            self.drafts.push(Draft::warning(whole, message).hint(hint));
            return;
        };
        let place = line.place(0, close + 1);
        let Some(values) = self.replace(&line.part(open + 1, close)) else {
            return;
        };
        let read = if word == b"~LST" {
            list(&values.line, place)
        } else {
            sequence(&values.line, place, word.ends_with(b"x"))
        };
        let mut repeat = match read {
            Ok(repeat) => repeat,
            Err(why) => {
                let message = format!("`{shown}`: {why}; the line is dropped");
                let hint = expected(word);
                self.drafts.push(Draft::warning(place, message).hint(hint));
                return;
            }
        };
        let (from, to) = trim(bytes, close + 1, line.len());
        let rest = line.part(from, to);
        if rest.is_blank() {
            return;
        }
        if repeat.count() > 1 && opens_block(rest.bytes()) {
            let message = format!("`{shown}` repeats one line, and a block begins on it");
            let hint = "its first time alone is read; the whole block on the line, or in a definition of \
                        several lines, is repeated";
            self.drafts.push(Draft::error(place, message).hint(hint));
            repeat.cut();
        }
        let names = repeat.names.iter();
        let before: Vec<_> = names
            .map(|(name, _)| self.definitions.get(name).cloned())
            .collect();
        match &repeat.values {
            Values::Numbers { count, .. } if *count > MOST_VALUES => {
                let message =
                    format!("`{shown}` gives more than {MOST_VALUES} lines; none is read");
                self.drafts.push(Draft::error(place, message));
            }
            Values::Numbers {
                start,
                step,
                count,
                hex,
            } => {
                for index in 0..*count {
                    let number = start + step * i64::try_from(index).unwrap_or(i64::MAX);
                    let text = if *hex {
                        format!("{number:x}")
                    } else {
                        number.to_string()
                    };
                    let mut value = Text::default();
                    let origin = Origin {
                        place: repeat.place,
                        exact: false,
                        definition: None,
                    };
                    value.push(text.as_bytes(), origin);
                    set(&mut self.definitions, &repeat.names, &[value]);
                    if !self.again(&rest, depth) {
                        break;
                    }
                }
            }
            Values::List(list) => {
                for values in list {
                    set(&mut self.definitions, &repeat.names, values);
                    if !self.again(&rest, depth) {
                        break;
                    }
                }
            }
        }
        for ((name, _), value) in repeat.names.into_iter().zip(before) {
            match value {
                Some(value) => self.definitions.insert(name, value),
                None => self.definitions.remove(&name),
            };
        }
    }

    /// Reads the line once more. Whether there is to be another time.
    fn again(&mut self, rest: &Text, depth: usize) -> bool {
        self.work(rest.len() + 16, rest);
        if !self.is_exhausted() {
            self.line(rest, depth + 1);
        }
        !self.is_exhausted()
    }
}

/// Whether a line leaves a block open.
fn opens_block(bytes: &[u8]) -> bool {
    let (mut depth, mut quoted, mut before) = (0_i32, false, 0);
    for byte in bytes {
        match byte {
            b'"' => quoted = !quoted,
            // Of `${NAME}`.
            b'{' if !quoted && before != b'$' => depth += 1,
            b'}' if !quoted => depth -= 1,
            _ => {}
        }
        before = *byte;
    }
    depth > 0
}

fn expected(word: &[u8]) -> &'static str {
    if word == b"~LST" {
        "~LST(NAME, VALUE, …) or ~LST({NAME, …}, {VALUE, …}, …), and a line"
    } else {
        "~SEQ(NAME, [START, [STEP,]] END), and a line"
    }
}

fn set(definitions: &mut Definitions, names: &[(Vec<u8>, Span)], values: &[Text]) {
    for (index, (name, place)) in names.iter().enumerate() {
        let value = Value {
            name: *place,
            lines: vec![values.get(index).cloned().unwrap_or_default()],
        };
        definitions.insert(name.clone(), Rc::new(value));
    }
}

/// The parts of a list between commas; what is in braces is one part.
fn parts(text: &Text) -> Vec<Text> {
    let (mut parts, mut from, mut depth) = (Vec::new(), 0, 0_u32);
    for (at, byte) in text.bytes().iter().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.push(text.part(from, at).trimmed());
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text.part(from, text.len()).trimmed());
    parts
}

/// The members of `{a, b}`, or the one that it is.
fn members(text: &Text) -> Vec<Text> {
    let bytes = text.bytes();
    if bytes.starts_with(b"{") && bytes.ends_with(b"}") && bytes.len() > 1 {
        parts(&text.part(1, bytes.len() - 1))
    } else {
        vec![text.clone()]
    }
}

fn name(text: &Text) -> Result<(Vec<u8>, Span), &'static str> {
    let bytes = text.bytes();
    let first = bytes
        .first()
        .is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_');
    let all = bytes
        .iter()
        .all(|b| b.is_ascii_alphanumeric() || *b == b'_');
    if first && all {
        Ok((bytes.to_vec(), text.place(0, bytes.len())))
    } else {
        Err("a name is letters, digits and `_`, and starts with no digit")
    }
}

fn list(text: &Text, place: Span) -> Result<Repeat, &'static str> {
    let mut parts = parts(text).into_iter();
    let names = parts
        .next()
        .map(|names| members(&names))
        .unwrap_or_default();
    let names: Vec<_> = names.iter().map(name).collect::<Result<_, _>>()?;
    let values: Vec<_> = parts.map(|values| members(&values)).collect();
    if values.is_empty() {
        return Err("it lists no value");
    }
    if values.iter().any(|values| values.len() > names.len()) {
        return Err("there are more values than names");
    }
    Ok(Repeat {
        names,
        values: Values::List(values),
        place,
    })
}

/// A whole number as C writes it: decimal, hexadecimal after `0x`, octal after `0`.
fn number(text: &Text) -> Option<i64> {
    let text = std::str::from_utf8(text.bytes()).ok()?;
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let read = match digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
    {
        Some(hex) => u32::from_str_radix(hex, 16).ok()?,
        None if digits.len() > 1 && digits.starts_with('0') => {
            u32::from_str_radix(digits, 8).ok()?
        }
        None => digits.parse().ok()?,
    };
    Some(sign * i64::from(read))
}

fn sequence(text: &Text, place: Span, hex: bool) -> Result<Repeat, &'static str> {
    let parts = parts(text);
    let (first, numbers) = parts.split_first().ok_or("it names nothing")?;
    let names = vec![name(first)?];
    let numbers: Option<Vec<i64>> = numbers.iter().map(number).collect();
    let numbers = numbers.ok_or("a value is no number of 32 bits")?;
    let (start, step, end) = match numbers[..] {
        [end] => (if end < 0 { -1 } else { 1 }, None, end),
        [start, end] => (start, None, end),
        [start, step, end] => (start, Some(step), end),
        _ => return Err("it takes one to three numbers"),
    };
    let step = step.unwrap_or(if end < start { -1 } else { 1 });
    if step == 0 || (end - start) * step < 0 {
        return Err("the steps do not lead from the start to the end");
    }
    if hex && (start < 0 || end < 0) {
        return Err("a negative number has no hexadecimal form here");
    }
    Ok(Repeat {
        names,
        values: Values::Numbers {
            start,
            step,
            count: ((end - start) / step + 1).unsigned_abs(),
            hex,
        },
        place,
    })
}
