//! From lines to tokens: comments, quotes, escapes and braces (keepalived.conf(5)).
//!
//! Two passes over each line, as keepalived does it. The first removes comments, carriage
//! returns and the backslash of `\#` and `\!`, and keeps where each remaining byte stood; expansion may have
//! done that already. The second finds words and braces in what is left.

use std::borrow::Cow;

use super::{
    diagnostic::{Draft, Drafts},
    source::Span,
};

/// A word of the configuration, without its quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    /// Where it stands, quotes included.
    pub(super) span: Span,
}

/// What a line is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A run of words between braces or line ends; never empty.
    Words(Vec<Word>, Tail),
    /// `{`
    Open(Span),
    /// `}`
    Close(Span),
}

/// The text behind the first word of a run, comments gone, quotes and escapes untouched, if there are any: scripts are
/// read from it again by their own rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tail(pub(super) Vec<u8>);

/// A line for the lexer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    pub(super) bytes: &'a [u8],
    /// Where it stands.
    pub(super) place: Span,
    /// Comments and escapes are gone from it.
    pub(super) clean: bool,
}

/// A line without comments.
struct Clean<'a> {
    bytes: Cow<'a, [u8]>,
    /// Where each byte stood in the line, if not where it stands now.
    origins: Vec<usize>,
    place: Span,
}

impl<'a> Clean<'a> {
    fn of(line: &Line<'a>) -> Self {
        let mut clean = Self {
            bytes: Cow::Borrowed(line.bytes),
            origins: Vec::new(),
            place: line.place,
        };
        if line.clean {
            return clean;
        }
        // Where the first byte vanishes; up to a comment, all of the line mostly stays.
        let mut quoted = false;
        for (at, byte) in line.bytes.iter().enumerate() {
            match byte {
                b'"' => quoted = !quoted,
                b'#' | b'!' if !quoted => {
                    clean.bytes = Cow::Borrowed(&line.bytes[..at]);
                    return clean;
                }
                b'\r' | b'\\' => {
                    clean.rewrite(line.bytes);
                    return clean;
                }
                _ => {}
            }
        }
        clean
    }

    fn rewrite(&mut self, line: &[u8]) {
        let mut bytes = Vec::with_capacity(line.len());
        let (mut quoted, mut at) = (false, 0);
        while let Some(&byte) = line.get(at) {
            match byte {
                b'\r' => {
                    at += 1;
                    continue;
                }
                b'"' => quoted = !quoted,
                b'\\' if !quoted && matches!(line.get(at + 1), Some(b'#' | b'!')) => at += 1,
                b'#' | b'!' if !quoted => break,
                _ => {}
            }
            bytes.push(line[at]);
            self.origins.push(at);
            at += 1;
        }
        self.bytes = Cow::Owned(bytes);
    }

    /// The place of the clean bytes `from..to`, which must not be empty.
    fn span(&self, from: usize, to: usize) -> Span {
        if self.origins.is_empty() {
            self.place.part(from, to)
        } else {
            self.place
                .part(self.origins[from], self.origins[to - 1] + 1)
        }
    }
}

const fn is_blank(byte: u8) -> bool {
    // Vertical tab as well as what Rust calls white space, as C's isspace().
    byte.is_ascii_whitespace() || byte == 0x0b
}

/// The tokens of one line, one after the other.
pub(super) fn lex(line: &Line<'_>, drafts: &mut Drafts, mut take: impl FnMut(Token, &mut Drafts)) {
    let clean = Clean::of(line);
    let bytes = clean.bytes.as_ref();
    let mut words: Vec<Word> = Vec::new();
    let mut tail_from = 0;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if is_blank(byte) {
            at += 1;
        } else if matches!(byte, b'{' | b'}') {
            if let Some(run) = end_run(&mut words, &bytes[tail_from..at]) {
                take(run, drafts);
            }
            let span = clean.span(at, at + 1);
            let brace = if byte == b'{' {
                Token::Open(span)
            } else {
                Token::Close(span)
            };
            take(brace, drafts);
            at += 1;
            tail_from = at;
        } else {
            let (text, end) = word(bytes, at);
            let span = clean.span(at, end);
            if byte == b'"' && text.len() + 1 == end - at {
                let message = "the quote is not closed on this line, with which it ends";
                let quote = clean.span(at, at + 1);
                drafts.push(Draft::warning(quote, message));
            }
            words.push(utf8(text, span, drafts));
            at = end;
            if words.len() == 1 {
                tail_from = at;
            }
        }
    }
    if let Some(run) = end_run(&mut words, &bytes[tail_from..]) {
        take(run, drafts);
    }
}

fn end_run(words: &mut Vec<Word>, tail: &[u8]) -> Option<Token> {
    if words.is_empty() {
        return None;
    }
    let special = |byte: &u8| matches!(byte, b'"' | b'\'' | b'\\');
    let tail = if tail.iter().any(special) {
        Tail(tail.trim_ascii().to_vec())
    } else {
        Tail::default()
    };
    Some(Token::Words(std::mem::take(words), tail))
}

/// The word that starts at `at`, without its quotes, and where it ends, with them.
fn word(bytes: &[u8], at: usize) -> (&[u8], usize) {
    if bytes[at] == b'"' {
        let inner = &bytes[at + 1..];
        let length = inner.iter().position(|byte| *byte == b'"');
        return match length {
            Some(length) => (&inner[..length], at + length + 2),
            None => (inner, bytes.len()),
        };
    }
    let mut end = at;
    while let Some(&byte) = bytes.get(end) {
        if is_blank(byte) || matches!(byte, b'"' | b'}') {
            break;
        }
        if byte == b'{' {
            // `${NAME}` that nothing defines is a part of the word.
            let behind_dollar = end > at && bytes[end - 1] == b'$';
            match behind_dollar.then(|| name_in_braces(bytes, end)).flatten() {
                Some(close) => end = close,
                None => break,
            }
        }
        end += 1;
    }
    (&bytes[at..end], end)
}

/// Where the braces that open at `open` close, if they hold a name.
fn name_in_braces(bytes: &[u8], open: usize) -> Option<usize> {
    let inner = &bytes[open + 1..];
    let is_name = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_';
    let length = inner.iter().take_while(is_name).count();
    let closed = inner.get(length) == Some(&b'}');
    (length > 0 && closed).then_some(open + 1 + length)
}

fn utf8(text: &[u8], span: Span, drafts: &mut Drafts) -> Word {
    let text = match std::str::from_utf8(text) {
        Ok(text) => text.to_owned(),
        Err(_) => {
            drafts.push(Draft::error(span, "the word is not UTF-8"));
            String::from_utf8_lossy(text).into_owned()
        }
    };
    Word { text, span }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::source::FileId;

    fn tokens(text: &str, start: u32) -> Vec<Token> {
        let place = Span {
            file: FileId::FIRST,
            start,
            end: start + u32::try_from(text.len()).unwrap(),
        };
        let line = Line {
            bytes: text.as_bytes(),
            place,
            clean: false,
        };
        let mut tokens = Vec::new();
        lex(&line, &mut Drafts::default(), |token, _| tokens.push(token));
        tokens
    }

    /// Words joined by `,`, runs and braces apart by blanks.
    fn shape(text: &str) -> String {
        let show = |token: &Token| match token {
            Token::Words(words, _) => {
                let texts: Vec<&str> = words.iter().map(|w| w.text.as_str()).collect();
                texts.join(",")
            }
            Token::Open(_) => "{".to_owned(),
            Token::Close(_) => "}".to_owned(),
        };
        tokens(text, 0)
            .iter()
            .map(show)
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn comments_start_anywhere_outside_quotes() {
        assert_eq!(shape("weight 3 # three"), "weight,3");
        assert_eq!(shape("weight 3!three"), "weight,3");
        assert_eq!(shape("wei#ght 3"), "wei");
        assert_eq!(shape("! all of it"), "");
        assert_eq!(shape(r#"auth_pass "a#b!c" # d"#), "auth_pass,a#b!c");
        assert_eq!(shape(r"auth_pass a\#b\!c#d"), "auth_pass,a#b!c");
        assert_eq!(shape(r#"x "\#y""#), r"x,\#y");
    }

    #[test]
    fn a_quoted_word_is_a_token_of_its_own() {
        assert_eq!(shape(r#"a "b c" d"#), "a,b c,d");
        assert_eq!(shape(r#"ab"c d""#), "ab,c d");
        assert_eq!(shape(r#"a "{" }"#), "a,{ }");
        assert_eq!(shape(r#"a """#), "a,");
    }

    #[test]
    fn braces_are_found_anywhere_outside_quotes() {
        assert_eq!(shape("foo{bar}"), "foo { bar }");
        assert_eq!(shape("group { A B }"), "group { A,B }");
        assert_eq!(shape("}{"), "} {");
    }

    #[test]
    fn carriage_returns_vanish() {
        assert_eq!(shape("weight 3\r"), "weight,3");
        assert_eq!(shape("wei\rght"), "weight");
    }

    #[test]
    fn spans_point_into_the_line_as_it_was_written() {
        let tokens = tokens(r#"ab \#c "d e" f"#, 100);
        let Token::Words(words, tail) = &tokens[0] else {
            panic!("{tokens:?}");
        };
        let spans: Vec<_> = words.iter().map(|w| (w.span.start, w.span.end)).collect();
        assert_eq!(spans, [(100, 102), (104, 106), (107, 112), (113, 114)]);
        assert_eq!(tail.0, br##"#c "d e" f"##);
    }
}
