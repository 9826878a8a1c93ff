//! From tokens to statements and blocks, without knowing what keywords mean.
//!
//! A line's words are one statement; a `{` on the same line or the next opens its block. What the grammar
//! says about braces ([`Braces`]) serves only to find the one that somebody forgot.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use super::{
    diagnostic::{Draft, Drafts},
    expand::Row,
    lexer::{Tail, Token, Word, lex},
    source::{Source, Span, quoted},
};

/// One statement: a keyword or a list entry, the words behind it, and its block.
#[derive(Debug)]
pub(super) struct Stmt {
    pub(super) keyword: Word,
    pub(super) args: Vec<Word>,
    tail: Tail,
    pub(super) block: Option<Vec<Self>>,
}

impl Stmt {
    /// The line behind the keyword, for scripts.
    pub(super) fn tail(&self) -> Cow<'_, str> {
        if self.tail.0.is_empty() {
            let words: Vec<&str> = self.args.iter().map(|word| word.text.as_str()).collect();
            words.join(" ").into()
        } else {
            String::from_utf8_lossy(&self.tail.0)
        }
    }
}

/// Deepest nesting of blocks. keepalived's own grammar needs four.
const MAX_DEPTH: usize = 16;

/// What the grammar knows about braces.
#[derive(Debug, Default)]
pub(super) struct Braces {
    /// Keywords that always have a block, wherever they stand.
    pub(super) anywhere: HashSet<&'static str>,
    /// The same outside of every block; inside of one some of them are somebody's names.
    pub(super) outside: HashSet<&'static str>,
    /// Keywords that only ever stand outside every block: one inside means that a `}` is missing.
    pub(super) top_only: HashSet<&'static str>,
    /// The blocks that each keyword stands in.
    pub(super) homes: HashMap<&'static str, Vec<&'static str>>,
}

struct Frame {
    /// Statements of the block so far; `None` in a block whose content is thrown away.
    stmts: Option<Vec<Stmt>>,
    /// The `{`, or the keyword whose `{` is missing.
    opened: Span,
}

struct Builder<'a> {
    /// From the file itself to the innermost open block.
    frames: Vec<Frame>,
    /// Whether a `{` now would belong to the last statement of the innermost block.
    attachable: bool,
    /// Blocks open beyond [`MAX_DEPTH`].
    too_deep: usize,
    /// Whether the words to come are the password of an `auth_pass` that stood alone.
    secret: bool,
    braces: &'a Braces,
    source: &'a Source,
}

/// Reads the lines of a configuration.
pub(super) fn build(
    rows: &[Row],
    source: &Source,
    braces: &Braces,
    drafts: &mut Drafts,
) -> Vec<Stmt> {
    let mut builder = Builder {
        frames: vec![Frame {
            stmts: Some(Vec::new()),
            opened: Span::default(),
        }],
        attachable: false,
        too_deep: 0,
        secret: false,
        braces,
        source,
    };
    for row in rows {
        let mut first = true;
        lex(&row.line(source), drafts, |token, drafts| {
            match token {
                Token::Words(words, tail) => builder.words(words, tail, first, drafts),
                Token::Open(span) => builder.open(span, drafts),
                Token::Close(span) => builder.close(span, drafts),
            }
            first = false;
        });
    }
    builder.finish(drafts)
}

impl Builder<'_> {
    fn stmts(&mut self) -> Option<&mut Vec<Stmt>> {
        self.frames.last_mut().and_then(|f| f.stmts.as_mut())
    }

    /// The statement that a `{` would open, if it is one.
    fn last(&mut self) -> Option<&mut Stmt> {
        if !self.attachable {
            return None;
        }
        self.stmts().and_then(|stmts| stmts.last_mut())
    }

    /// Reports a keyword whose `{` has not come, and says whether there is one.
    fn lacks_brace(&mut self, drafts: &mut Drafts) -> Option<Span> {
        let outside = self.frames.len() == 1;
        let stmt = self.last()?;
        let (name, span) = (stmt.keyword.text.clone(), stmt.keyword.span);
        let known = if outside {
            &self.braces.outside
        } else {
            &self.braces.anywhere
        };
        if !known.contains(name.as_str()) {
            return None;
        }
        let message = format!("`{name}` lacks its `{{`");
        drafts.push(Draft::warning(span, message));
        Some(span)
    }

    fn push_frame(&mut self, opened: Span) {
        let dropped = self.frames.last().is_some_and(|f| f.stmts.is_none());
        self.frames.push(Frame {
            stmts: (!dropped).then(Vec::new),
            opened,
        });
        self.attachable = false;
    }

    fn words(&mut self, words: Vec<Word>, tail: Tail, first: bool, drafts: &mut Drafts) {
        if self.secret {
            for word in &words {
                drafts.hide(word.span);
            }
        }
        self.secret = words.last().is_some_and(|word| word.text == "auth_pass");
        if self.too_deep > 0 {
            return;
        }
        let mut words = words.into_iter();
        let Some(keyword) = words.next() else {
            return;
        };
        let is_outside = first && self.braces.top_only.contains(keyword.text.as_str());
        if is_outside && self.frames.len() > 1 {
            self.close_all_before(&keyword, drafts);
        } else if let Some(span) = self.lacks_brace(drafts) {
            match self.last() {
                // What only stands outside is not in its block, which is empty.
                Some(stmt) if is_outside => stmt.block = Some(Vec::new()),
                _ => self.push_frame(span),
            }
        }
        if let Some(stmts) = self.stmts() {
            stmts.push(Stmt {
                keyword,
                args: words.collect(),
                tail,
                block: None,
            });
        }
        self.attachable = true;
    }

    /// A keyword that cannot stand in a block: every open block should have ended before it.
    fn close_all_before(&mut self, keyword: &Word, drafts: &mut Drafts) {
        self.lacks_brace(drafts);
        self.close_before(keyword, 1, drafts);
    }

    /// Ends all blocks but the outermost `kept`, for a keyword that cannot stand in them.
    fn close_before(&mut self, keyword: &Word, kept: usize, drafts: &mut Drafts) {
        let innermost = self.frames.last().map_or_else(Span::default, |f| f.opened);
        let line = self.source.place(innermost).line;
        let missing = self.frames.len() - kept;
        let what = if missing == 1 { "a `}` is" } else { "`}`s are" };
        let message = format!("{what} missing before {}", quoted(&keyword.text));
        let hint = format!("the block opened on line {line} is not closed");
        drafts.push(Draft::error(keyword.span, message).hint(hint));
        while self.frames.len() > kept {
            self.pop();
        }
    }

    /// How many of the outermost blocks stay open where the last statement opens its block: those around it that it
    /// may stand in, where the innermost is one that it cannot stand in.
    fn misplaced(&mut self) -> Option<usize> {
        let braces = self.braces;
        let homes = braces.homes.get(self.last()?.keyword.text.as_str())?;
        let openers: Vec<Option<&str>> = self.openers().collect();
        let innermost = (*openers.last()?)?;
        if homes.contains(&innermost) || !braces.homes.contains_key(innermost) {
            return None;
        }
        let fits = |opener: &Option<&str>| opener.is_some_and(|name| homes.contains(&name));
        openers.iter().rposition(fits).map(|at| at + 2)
    }

    /// The keywords of the open blocks, outermost first; `None` for one whose content is thrown away.
    fn openers(&self) -> impl Iterator<Item = Option<&str>> {
        let owners = self.frames.iter().take(self.frames.len() - 1);
        owners.map(|frame| {
            let owner = frame.stmts.as_ref()?.last()?;
            Some(owner.keyword.text.as_str())
        })
    }

    fn open(&mut self, span: Span, drafts: &mut Drafts) {
        if self.too_deep > 0 {
            self.too_deep += 1;
        } else if self.frames.len() > MAX_DEPTH {
            let message = format!("more than {MAX_DEPTH} blocks in one another");
            drafts.push(Draft::error(span, message));
            self.too_deep = 1;
        } else if self.last().is_some() {
            if let Some(kept) = self.misplaced()
                && let Some(stmt) = self.stmts().and_then(Vec::pop)
            {
                self.close_before(&stmt.keyword, kept, drafts);
                if let Some(stmts) = self.stmts() {
                    stmts.push(stmt);
                }
            }
            self.push_frame(span);
        } else {
            let inside_dropped = self.stmts().is_none();
            if !inside_dropped {
                let hint = "what it encloses is skipped";
                drafts.push(Draft::warning(span, "a `{` without a keyword").hint(hint));
            }
            self.frames.push(Frame {
                stmts: None,
                opened: span,
            });
            self.attachable = false;
        }
    }

    fn close(&mut self, span: Span, drafts: &mut Drafts) {
        if self.too_deep > 0 {
            self.too_deep -= 1;
            return;
        }
        if self.lacks_brace(drafts).is_some()
            && let Some(stmt) = self.last()
        {
            stmt.block = Some(Vec::new());
        }
        if self.frames.len() > 1 {
            self.pop();
        } else {
            drafts.push(Draft::warning(span, "a `}` that closes nothing"));
        }
        self.attachable = false;
    }

    /// Ends the innermost block: its statements go to the statement that opened it.
    fn pop(&mut self) {
        let Some(frame) = self.frames.pop() else {
            return;
        };
        let owner = self.stmts().and_then(|stmts| stmts.last_mut());
        if let (Some(stmts), Some(owner)) = (frame.stmts, owner) {
            owner.block = Some(stmts);
        }
        self.attachable = false;
    }

    fn finish(mut self, drafts: &mut Drafts) -> Vec<Stmt> {
        if self.lacks_brace(drafts).is_some()
            && let Some(stmt) = self.last()
        {
            stmt.block = Some(Vec::new());
        }
        if let Some(innermost) = self.frames.iter().skip(1).last() {
            let message = "the block opened here is never closed";
            let mut draft = Draft::warning(innermost.opened, message);
            let around = self.frames.len() - 2;
            if around > 0 {
                let or = if around == 1 {
                    "is the one"
                } else {
                    "are the ones"
                };
                draft = draft.hint(format!(
                    "nor {or} around it: `}}` is missing {} times",
                    around + 1
                ));
            }
            drafts.push(draft);
        }
        while self.frames.len() > 1 {
            self.pop();
        }
        self.frames
            .pop()
            .and_then(|frame| frame.stmts)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{expand::expand, request::Request};

    fn shape(stmts: &[Stmt]) -> String {
        let show = |stmt: &Stmt| {
            let words = std::iter::once(&stmt.keyword).chain(&stmt.args);
            let mut text = words.map(|w| w.text.as_str()).collect::<Vec<_>>().join(" ");
            if let Some(block) = &stmt.block {
                text += &format!("{{{}}}", shape(block));
            }
            text
        };
        stmts.iter().map(show).collect::<Vec<_>>().join(";")
    }

    fn run(text: &str) -> (String, Vec<String>) {
        let mut source = Source::new("f", text.as_bytes());
        let mut drafts = Drafts::default();
        let request = Request::alone("f", text.as_bytes());
        let rows = expand(&request, &mut source, &mut drafts);
        let tree = shape(&build(
            &rows,
            &source,
            &crate::config::grammar::BRACES,
            &mut drafts,
        ));
        let said = drafts.finish(&mut source);
        (tree, said.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn braces_may_stand_anywhere() {
        for text in [
            "a b {\n c d\n}",
            "a b\n{\nc d}",
            "a b\n\n # x\n {c d\n}",
            "a b{c d}",
        ] {
            assert_eq!(run(text), ("a b{c d}".to_owned(), vec![]), "{text:?}");
        }
        assert_eq!(run("a{b{c}d}e").0, "a{b{c};d};e");
        assert_eq!(run("a{}").0, "a{}");
    }

    #[test]
    fn surplus_and_missing_closing_braces_are_reported_where_they_are() {
        assert_eq!(
            run("a {\n}\n }\nb").1,
            ["f:3:2: warning: a `}` that closes nothing"]
        );
        assert_eq!(run("a {\n}\n }\nb").0, "a{};b");
        let (tree, said) = run("a {\n b {\n");
        assert_eq!(tree, "a{b{}}");
        assert_eq!(
            said,
            ["f:2:4: warning: the block opened here is never closed"]
        );
    }

    #[test]
    fn a_missing_closing_brace_is_found_at_the_next_definition() {
        let (tree, said) = run("vrrp_instance A {\n state MASTER\nvirtual_server B {\n}");
        assert_eq!(tree, "vrrp_instance A{state MASTER};virtual_server B{}");
        assert_eq!(
            said,
            ["f:3:1: error: a `}` is missing before `virtual_server`"]
        );
    }

    #[test]
    fn a_missing_opening_brace_is_reported_and_supplied() {
        let (tree, said) = run("vrrp_instance A\n state MASTER\n}\nx");
        assert_eq!(tree, "vrrp_instance A{state MASTER};x");
        assert_eq!(said, ["f:1:1: warning: `vrrp_instance` lacks its `{`"]);
        let (tree, said) = run("real_server {\n TCP_CHECK\n}\nx");
        assert_eq!(tree, "real_server{TCP_CHECK{}};x");
        assert_eq!(said, ["f:2:2: warning: `TCP_CHECK` lacks its `{`"]);
    }

    #[test]
    fn an_opening_brace_without_a_keyword_skips_what_it_encloses() {
        let (tree, said) = run("a\n{ b }\n{ c {d} }\ne");
        assert_eq!(tree, "a{b};e");
        assert_eq!(said, ["f:3:1: warning: a `{` without a keyword"]);
    }

    #[test]
    fn nesting_is_bounded_and_reported_once() {
        let text = "a{\n".repeat(100_000) + &"}\n".repeat(100_000) + "z";
        let (tree, said) = run(&text);
        assert!(tree.ends_with(";z"), "{tree}");
        assert_eq!(said.len(), 1, "{said:?}");
    }
}
