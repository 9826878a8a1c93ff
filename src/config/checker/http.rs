//! `HTTP_GET` and `SSL_GET`: pages, and what they must be.

use std::sync::Arc;

use super::{
    super::{
        defaults,
        diagnostic::{Draft, Drafts},
        keyword::{BOOLEAN, Given, Keyword, NO_VALUE, Table, WITH_BLOCK, block, line, lines},
        lexer::Word,
        model::{
            Connection, HttpCheck, HttpUrl, HttpVersion, PageRegex, RegexOption, StatusRange, Tls,
        },
        read,
        source::{Span, quoted},
        tree::Stmt,
        value,
        walk::walk,
    },
    Block,
};

/// The keywords of `HTTP_GET` and `SSL_GET` while they are read.
#[derive(Debug, Default)]
pub(super) struct HttpDraft {
    pub(super) encrypted: bool,
    version: HttpVersion,
    virtualhost: Option<Arc<str>>,
    enable_sni: bool,
    sni_name: Option<String>,
    fast_recovery: bool,
    tls_compliant: bool,
    pub(super) urls: Vec<UrlDraft>,
}

impl HttpDraft {
    pub(super) fn finish(self, connection: Connection, outer: Option<&Arc<str>>) -> HttpCheck {
        let tls_compliant = self.tls_compliant;
        let urls = self.urls.into_iter();
        HttpCheck {
            connection,
            tls: self.encrypted.then_some(Tls {
                enable_sni: self.enable_sni,
                sni_name: self.sni_name,
            }),
            version: self.version,
            virtualhost: self.virtualhost.or_else(|| outer.cloned()),
            fast_recovery: self.fast_recovery,
            urls: urls.map(|url| url.finish(tls_compliant)).collect(),
        }
    }
}

pub(super) static KEYWORDS: &[Keyword<Block<HttpDraft>>] = &[
    line("nb_get_retry", WITH_BLOCK, "an older name of retry")
        .number(&defaults::RETRIES)
        .read(|draft, stmt, drafts| {
            let message = "`nb_get_retry` is an old name; use `retry`";
            drafts.push(Draft::deprecated(stmt.keyword.span, message));
            stmt.set(&mut draft.timing.retry, drafts);
        }),
    line("virtualhost", WITH_BLOCK, "the name that is asked for").read(|draft, stmt, drafts| {
        draft.own.virtualhost = stmt.text(drafts).map(Arc::from);
    }),
    line(
        "http_protocol",
        WITH_BLOCK,
        "the version of HTTP: 1.0, 1.0C (with `Connection: close`) or 1.1",
    )
    .read(|draft, stmt, drafts| {
        let Some(word) = stmt.one(drafts) else {
            return;
        };
        let mut all = HttpVersion::ALL.into_iter();
        match all.find(|version| version.name().eq_ignore_ascii_case(&word.text)) {
            Some(version) => draft.own.version = version,
            None => {
                let counts = draft.own.version.name();
                let message = format!("http_protocol {} is unknown; {counts} counts", word.text);
                drafts.push(Draft::warning(word.span, message).hint("1.0, 1.0C or 1.1"));
            }
        }
    }),
    line("enable_sni", WITH_BLOCK, "TLS names the virtual host")
        .words(BOOLEAN)
        .read(|draft, stmt, drafts| {
            let said = stmt.boolean(drafts);
            draft.own.enable_sni = said.unwrap_or(draft.own.enable_sni);
        }),
    line("sni_name", WITH_BLOCK, "the name that TLS says")
        .later()
        .read(|draft, stmt, drafts| {
            draft.own.sni_name = stmt.text(drafts);
        }),
    line(
        "fast_recovery",
        WITH_BLOCK,
        "pages are fetched without a pause while it is down",
    )
    .words(BOOLEAN)
    .read(|draft, stmt, drafts| {
        let said = stmt.boolean(drafts);
        draft.own.fast_recovery = said.unwrap_or(draft.own.fast_recovery);
    }),
    line(
        "tls_compliant",
        WITH_BLOCK,
        "a connection that ends without TLS's notice is an error",
    )
    .later()
    .words(BOOLEAN)
    .read(|draft, stmt, drafts| {
        let said = stmt.boolean(drafts);
        draft.own.tls_compliant = said.unwrap_or(draft.own.tls_compliant);
    }),
    block("url", WITH_BLOCK, "a page, and what it must be")
        .only_here()
        .read(|draft, stmt, drafts| {
            draft.own.urls.extend(UrlDraft::read(stmt, drafts));
        }),
];

/// A `url` block while it is read.
#[derive(Debug, Default)]
pub(super) struct UrlDraft {
    path: Option<String>,
    digest: Option<[u8; 16]>,
    status_codes: Vec<StatusRange>,
    virtualhost: Option<Arc<str>>,
    pattern: Option<String>,
    /// What says something about the expression, with its place.
    about_regex: Option<Span>,
    no_match: bool,
    options: Vec<RegexOption>,
    min_offset: u64,
    max_offset: Option<u64>,
    stack: Option<(u64, u64)>,
    tls_compliant: Option<bool>,
}

impl UrlDraft {
    /// `None` for one without a path, which keepalived drops.
    fn read(stmt: &Stmt, drafts: &mut Drafts) -> Option<Self> {
        stmt.no_more(0, drafts);
        let mut draft = Self::default();
        walk(&mut draft, stmt.body(), &URL_TABLE, drafts);
        if draft.path.is_none() {
            let message = "the url is left out: it has no path";
            drafts.push(Draft::warning(stmt.keyword.span, message).hint("`path /` is the least"));
            return None;
        }
        match (&draft.pattern, draft.about_regex, draft.max_offset) {
            (None, Some(span), _) => {
                let message = "this says nothing: the url has no regex";
                drafts.push(Draft::note(span, message));
            }
            (Some(_), Some(span), Some(most)) if most < draft.min_offset => {
                let message = format!(
                    "the check always fails: regex_max_offset {most} is below regex_min_offset {}",
                    draft.min_offset
                );
                drafts.push(Draft::warning(span, message));
            }
            _ => {}
        }
        Some(draft)
    }

    fn finish(self, tls_compliant: bool) -> HttpUrl {
        let mut status_codes = self.status_codes;
        if status_codes.is_empty() {
            let (first, last) = defaults::STATUS_CODES.into_inner();
            status_codes.push(StatusRange { first, last });
        }
        let (no_match, options) = (self.no_match, self.options);
        let (min_offset, max_offset, stack) = (self.min_offset, self.max_offset, self.stack);
        HttpUrl {
            path: self.path.unwrap_or_default(),
            digest: self.digest,
            status_codes,
            virtualhost: self.virtualhost,
            regex: self.pattern.map(|pattern| PageRegex {
                pattern,
                no_match,
                options,
                min_offset,
                max_offset,
                stack,
            }),
            tls_compliant: self.tls_compliant.unwrap_or(tls_compliant),
        }
    }
}

/// `200` or `200-299`
fn status_range(word: &Word, drafts: &mut Drafts) -> Option<StatusRange> {
    let (first, last) = word
        .text
        .split_once('-')
        .unwrap_or((&word.text, &word.text));
    let code = |text: &str| {
        let code = text.parse().ok();
        code.filter(|code| defaults::STATUS_CODE.range.contains(&i64::from(*code)))
    };
    let range = code(first).zip(code(last));
    let range = range.filter(|(first, last)| first <= last);
    if range.is_none() {
        let message = format!("status_code {} is left out", quoted(&word.text));
        let hint = format!("N or N-N, {}", defaults::STATUS_CODE);
        drafts.push(Draft::warning(word.span, message).hint(hint));
    }
    range.map(|(first, last)| StatusRange { first, last })
}

/// 32 hexadecimal digits.
fn digest(text: &str) -> Option<[u8; 16]> {
    let number = u128::from_str_radix(text, 16).ok();
    let fits = text.len() == 32 && !text.starts_with('+');
    number.filter(|_| fits).map(u128::to_be_bytes)
}

fn set_options(draft: &mut UrlDraft, stmt: &Given<'_>, drafts: &mut Drafts) {
    draft.about_regex.get_or_insert(stmt.keyword.span);
    if stmt.first(drafts).is_none() {
        return;
    }
    // One word in quotes may hold several.
    for word in &stmt.args {
        for name in word.text.split_whitespace() {
            let mut all = RegexOption::ALL.into_iter();
            match all.find(|option| option.name() == name) {
                Some(option) if draft.options.contains(&option) => {}
                Some(option) => draft.options.push(option),
                None => {
                    let message = format!("regex_options: {} is left out", quoted(name));
                    let hint = RegexOption::ALL.map(RegexOption::name).join(", ");
                    drafts.push(Draft::warning(word.span, message).hint(hint));
                }
            }
        }
    }
}

fn set_stack(draft: &mut UrlDraft, stmt: &Given<'_>, drafts: &mut Drafts) {
    draft.about_regex.get_or_insert(stmt.keyword.span);
    let Some(first) = stmt.first(drafts) else {
        return;
    };
    stmt.no_more(2, drafts);
    let Some(second) = stmt.args.get(1) else {
        let message = "regex_stack is left out: it needs a second number";
        let hint = "bytes at the start, bytes at most";
        drafts.push(Draft::warning(first.span, message).hint(hint));
        return;
    };
    let mut bytes = |word| read::number(word, "regex_stack", &defaults::REGEX_STACK, drafts);
    draft.stack = bytes(first).zip(bytes(second));
    if let Some((start, most)) = draft.stack.filter(|(start, most)| start > most) {
        draft.stack = None;
        let message = format!("regex_stack is left out: its start {start} is above {most}");
        drafts.push(Draft::warning(first.span, message));
    }
}

fn set_regex(draft: &mut UrlDraft, stmt: &Given<'_>, drafts: &mut Drafts) {
    let Some(first) = stmt.first(drafts) else {
        return;
    };
    let text = stmt.tail();
    let Some(words) = value::script_words(&text) else {
        let message = "regex is left out: a quote is not closed";
        drafts.push(Draft::warning(first.span, message));
        return;
    };
    if let Some(extra) = words.get(1) {
        let message = format!("regex: {} is ignored", quoted(extra));
        let hint = "a pattern with blanks stands in quotes";
        drafts.push(Draft::warning(first.span, message).hint(hint));
    }
    draft.pattern = words.into_iter().next();
}

static URL_TABLE: Table<UrlDraft> = Table {
    block: "url",
    keywords: &[URL],
};

static URL: &[Keyword<UrlDraft>] = &[
    line("path", WITH_BLOCK, "the page's path").read(|draft, stmt, drafts| {
        draft.path = stmt.text(drafts).or_else(|| draft.path.take());
    }),
    line(
        "digest",
        WITH_BLOCK,
        "the MD5 digest of the page, as genhash prints it; 32 hexadecimal digits",
    )
    .read(|draft, stmt, drafts| {
        let Some(word) = stmt.one(drafts) else {
            return;
        };
        draft.digest = digest(&word.text);
        if draft.digest.is_none() {
            let message = format!("digest {} is left out", quoted(&word.text));
            let hint = "MD5: 32 hexadecimal digits (RFC 1321)";
            drafts.push(Draft::warning(word.span, message).hint(hint));
        }
    }),
    lines(
        "status_code",
        WITH_BLOCK,
        "the status codes that pass: N or N-N, several of them",
    )
    .number(&defaults::STATUS_CODE)
    .read(|draft, stmt, drafts| {
        if stmt.first(drafts).is_some() {
            let ranges = stmt.args.iter();
            draft
                .status_codes
                .extend(ranges.filter_map(|word| status_range(word, drafts)));
        }
    }),
    line("virtualhost", WITH_BLOCK, "the name that is asked for").read(|draft, stmt, drafts| {
        draft.virtualhost = stmt.text(drafts).map(Arc::from);
    }),
    line(
        "regex",
        WITH_BLOCK,
        "what the page must match, in PCRE2's language",
    )
    .read(set_regex),
    line("regex_no_match", WITH_BLOCK, "a match is the failure")
        .words(NO_VALUE)
        .read(|draft, stmt, drafts| {
            draft.about_regex.get_or_insert(stmt.keyword.span);
            draft.no_match = stmt.flag(drafts);
        }),
    line(
        "regex_options",
        WITH_BLOCK,
        "options of the expression, as pcre2api(3) names them",
    )
    .read(set_options),
    line(
        "regex_min_offset",
        WITH_BLOCK,
        "the first byte that is searched",
    )
    .number(&defaults::PAGE_OFFSET)
    .read(|draft, stmt, drafts| {
        draft.about_regex.get_or_insert(stmt.keyword.span);
        stmt.set(&mut draft.min_offset, drafts);
    }),
    line(
        "regex_max_offset",
        WITH_BLOCK,
        "the last byte at which a match may begin",
    )
    .number(&defaults::PAGE_OFFSET)
    .read(|draft, stmt, drafts| {
        draft.about_regex.get_or_insert(stmt.keyword.span);
        stmt.set(&mut draft.max_offset, drafts);
    }),
    line(
        "regex_stack",
        WITH_BLOCK,
        "bytes of stack for the expression: at the start, and at most",
    )
    .read(set_stack),
    line(
        "tls_compliant",
        WITH_BLOCK,
        "a connection that ends without TLS's notice is an error",
    )
    .later()
    .words(BOOLEAN)
    .read(|draft, stmt, drafts| {
        draft.tls_compliant = stmt.boolean(drafts).or(draft.tls_compliant);
    }),
];

/// The keywords of `url`.
pub(super) fn url_table() -> &'static Table<UrlDraft> {
    &URL_TABLE
}
