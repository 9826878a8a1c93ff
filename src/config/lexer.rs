//! From lines to tokens: comments, quotes, escapes and braces (keepalived.conf(5)).
//!
//! Two passes over each line, as keepalived does it. The first removes comments, carriage
//! returns and the backslash of `\#` and `\!`, and keeps where each remaining byte stood. The
//! second finds words and braces in what is left.

use super::{
    diagnostic::{Draft, Drafts},
    expand::Line,
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

/// The text behind the first word of a run, comments gone, quotes and escapes untouched: scripts
/// are read from it again by their own rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tail(pub(super) Vec<u8>);

/// A line without comments, and where each byte stood in the line.
struct Clean {
    bytes: Vec<u8>,
    origins: Vec<usize>,
}

impl Clean {
    fn of(line: &Line<'_>, drafts: &mut Drafts) -> Self {
        let mut clean = Self {
            bytes: Vec::with_capacity(line.bytes.len()),
            origins: Vec::with_capacity(line.bytes.len()),
        };
        let mut quote = None;
        let mut at = 0;
        while let Some(&byte) = line.bytes.get(at) {
            let next = line.bytes.get(at + 1);
            match byte {
                b'\r' => {}
                b'"' => {
                    quote = if quote.is_none() { Some(at) } else { None };
                    clean.push(byte, at);
                }
                b'\\' if quote.is_none() && matches!(next, Some(b'#' | b'!')) => {
                    at += 1;
                    clean.push(line.bytes[at], at);
                }
                b'#' | b'!' if quote.is_none() => break,
                _ => clean.push(byte, at),
            }
            at += 1;
        }
        if let Some(open) = quote {
            let span = line.span(open, open + 1);
            drafts.push(Draft::error(span, "the quote is not closed on this line"));
        }
        clean
    }

    fn push(&mut self, byte: u8, origin: usize) {
        self.bytes.push(byte);
        self.origins.push(origin);
    }

    /// The place of the clean bytes `from..to`, which must not be empty.
    fn span(&self, line: &Line<'_>, from: usize, to: usize) -> Span {
        line.span(self.origins[from], self.origins[to - 1] + 1)
    }
}

fn is_blank(byte: u8) -> bool {
    // Vertical tab as well as what Rust calls white space, as C's isspace().
    byte.is_ascii_whitespace() || byte == 0x0b
}

/// The tokens of one line.
pub(super) fn lex(line: &Line<'_>, drafts: &mut Drafts) -> Vec<Token> {
    let clean = Clean::of(line, drafts);
    let bytes = &clean.bytes;
    let mut tokens = Vec::new();
    let mut words: Vec<Word> = Vec::new();
    let mut tail_from = 0;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if is_blank(byte) {
            at += 1;
        } else if matches!(byte, b'{' | b'}') {
            end_run(&mut tokens, &mut words, &bytes[tail_from..at]);
            let span = clean.span(line, at, at + 1);
            tokens.push(if byte == b'{' {
                Token::Open(span)
            } else {
                Token::Close(span)
            });
            at += 1;
            tail_from = at;
        } else {
            let (text, end) = word(bytes, at);
            let span = clean.span(line, at, end);
            words.push(utf8(text, span, drafts));
            at = end;
            if words.len() == 1 {
                tail_from = at;
            }
        }
    }
    end_run(&mut tokens, &mut words, &bytes[tail_from..]);
    tokens
}

fn end_run(tokens: &mut Vec<Token>, words: &mut Vec<Word>, tail: &[u8]) {
    if !words.is_empty() {
        let tail = Tail(tail.trim_ascii().to_vec());
        tokens.push(Token::Words(std::mem::take(words), tail));
    }
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
    let ends = |byte: &u8| is_blank(*byte) || matches!(byte, b'"' | b'{' | b'}');
    let length = bytes[at..]
        .iter()
        .position(ends)
        .unwrap_or(bytes.len() - at);
    (&bytes[at..at + length], at + length)
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

    /// Words joined by `,`, runs and braces apart by blanks.
    fn shape(text: &str) -> String {
        let mut drafts = Drafts::default();
        let line = Line {
            bytes: text.as_bytes(),
            file: FileId::FIRST,
            start: 0,
        };
        let show = |token: &Token| match token {
            Token::Words(words, _) => {
                let texts: Vec<&str> = words.iter().map(|w| w.text.as_str()).collect();
                texts.join(",")
            }
            Token::Open(_) => "{".to_owned(),
            Token::Close(_) => "}".to_owned(),
        };
        let tokens = lex(&line, &mut drafts);
        tokens.iter().map(show).collect::<Vec<_>>().join(" ")
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
        let mut drafts = Drafts::default();
        let text = r#"ab \#c "d e" f"#;
        let line = Line {
            bytes: text.as_bytes(),
            file: FileId::FIRST,
            start: 100,
        };
        let tokens = lex(&line, &mut drafts);
        let Token::Words(words, tail) = &tokens[0] else {
            panic!("{tokens:?}");
        };
        let spans: Vec<_> = words.iter().map(|w| (w.span.start, w.span.end)).collect();
        assert_eq!(spans, [(100, 102), (104, 106), (107, 112), (113, 114)]);
        assert_eq!(tail.0, br##"#c "d e" f"##);
    }
}
