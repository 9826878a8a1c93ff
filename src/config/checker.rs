//! Checkers, and the numbers that they inherit from real server and virtual server.

use std::{marker::PhantomData, net::IpAddr, time::Duration};

use super::{
    defaults,
    diagnostic::{Draft, Drafts},
    keyword::{
        APPLIED, BOOLEAN, Facts, Keyword, Table, UNAPPLIED, Value, WITH_BLOCK, block, known, line,
    },
    model::{CheckKind, Checker},
    read::At,
    source::Span,
    tree::Stmt,
    walk::walk,
};
use crate::addr::Endpoint;

/// What checkers inherit: checker, then real server, then virtual server, then the default.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timing {
    pub(super) delay_loop: Option<Duration>,
    pub(super) alpha: Option<bool>,
    retry: Option<u32>,
    delay_before_retry: Option<Duration>,
    warmup: Option<Duration>,
    connect_timeout: Option<Duration>,
}

impl Timing {
    /// What is said here, else what is said further out.
    pub(super) fn or(self, outer: Self) -> Self {
        Self {
            delay_loop: self.delay_loop.or(outer.delay_loop),
            alpha: self.alpha.or(outer.alpha),
            retry: self.retry.or(outer.retry),
            delay_before_retry: self.delay_before_retry.or(outer.delay_before_retry),
            warmup: self.warmup.or(outer.warmup),
            connect_timeout: self.connect_timeout.or(outer.connect_timeout),
        }
    }
}

/// A block that takes the keywords of [`Timing`].
pub(super) trait HasTiming: 'static {
    fn timing(&mut self) -> &mut Timing;
}

/// The rules of [`Timing`] for a block.
pub(super) struct TimingRules<T>(PhantomData<T>);

impl<T: HasTiming> TimingRules<T> {
    pub(super) const ALL: &'static [Keyword<T>] = &[
        line("delay_loop", APPLIED, "time between two checks")
            .time(&defaults::CHECK_INTERVAL)
            .default(Value::Time(defaults::DELAY_LOOP))
            .read(|draft, stmt, drafts| {
                draft.timing().delay_loop = stmt.time(drafts);
            }),
        line(
            "alpha",
            APPLIED,
            "whether a real server is down until its check passes",
        )
        .words(BOOLEAN)
        .read(|draft, stmt, drafts| {
            draft.timing().alpha = stmt.boolean(drafts);
        }),
        line(
            "retry",
            APPLIED,
            "failures in a row after which it is down, less one",
        )
        .number(&defaults::RETRIES)
        .default(Value::Number(defaults::RETRY))
        .read(|draft, stmt, drafts| {
            draft.timing().retry = stmt.number(drafts);
        }),
        line(
            "delay_before_retry",
            APPLIED,
            "time between a failure and the next try",
        )
        .time(&defaults::CHECK_DELAY)
        .default(Value::Time(defaults::DELAY_BEFORE_RETRY))
        .read(|draft, stmt, drafts| {
            draft.timing().delay_before_retry = stmt.time(drafts);
        }),
        line(
            "warmup",
            APPLIED,
            "the longest wait, drawn at random, before the first check",
        )
        .time(&defaults::CHECK_DELAY)
        .read(|draft, stmt, drafts| {
            draft.timing().warmup = stmt.time(drafts);
        }),
        line("connect_timeout", APPLIED, "how long a connection may take")
            .time(&defaults::CHECK_INTERVAL)
            .default(Value::Time(defaults::CONNECT_TIMEOUT))
            .read(|draft, stmt, drafts| {
                draft.timing().connect_timeout = stmt.time(drafts);
            }),
    ];
}

/// A `TCP_CHECK` while it is read.
#[derive(Debug)]
pub(super) struct CheckerDraft {
    span: Span,
    connect_ip: Option<IpAddr>,
    connect_port: Option<u16>,
    bindto: Option<At<IpAddr>>,
    bind_port: u16,
    timing: Timing,
}

impl HasTiming for CheckerDraft {
    fn timing(&mut self) -> &mut Timing {
        &mut self.timing
    }
}

impl CheckerDraft {
    pub(super) fn read(stmt: &Stmt, drafts: &mut Drafts) -> Self {
        stmt.no_more(0, drafts);
        let mut draft = Self {
            span: stmt.keyword.span,
            connect_ip: None,
            connect_port: None,
            bindto: None,
            bind_port: 0,
            timing: Timing::default(),
        };
        walk(&mut draft, stmt.body(), &TABLE, drafts);
        draft
    }

    /// Resolves what the checker inherits; `outer` is what its real server has, in turn. `real` is
    /// the real server with the port that it was written with.
    pub(super) fn finish(self, real: Endpoint, outer: Timing, drafts: &mut Drafts) -> Checker {
        let timing = self.timing.or(outer);
        let addr = self.connect_ip.unwrap_or(real.addr);
        let port = self.connect_port.unwrap_or(real.port);
        if port == 0 {
            let message = "the check needs a connect_port: its real server is on every port";
            drafts.push(Draft::error(self.span, message));
        }
        if let Some(At { value, span }) = self.bindto
            && value.is_ipv4() != addr.is_ipv4()
        {
            let message = format!("bindto {value} is of another family than {addr}");
            drafts.push(Draft::error(span, message));
        }
        Checker {
            kind: CheckKind::Tcp,
            connect: Endpoint::new(addr, port),
            bindto: self.bindto.map(|bindto| bindto.value),
            bind_port: self.bind_port,
            connect_timeout: timing.connect_timeout.unwrap_or(defaults::CONNECT_TIMEOUT),
            retry: timing.retry.unwrap_or(defaults::RETRY),
            delay_before_retry: (timing.delay_before_retry).unwrap_or(defaults::DELAY_BEFORE_RETRY),
            warmup: timing.warmup,
            delay_loop: timing.delay_loop.unwrap_or(defaults::DELAY_LOOP),
            alpha: timing.alpha.unwrap_or_default(),
        }
    }
}

static TABLE: Table<CheckerDraft> = Table {
    block: "TCP_CHECK",
    keywords: &[KEYWORDS, TimingRules::ALL],
};

static KEYWORDS: &[Keyword<CheckerDraft>] = &[
    line(
        "connect_ip",
        APPLIED,
        "the address to connect to; default the real server's",
    )
    .read(|draft, stmt, drafts| {
        draft.connect_ip = stmt.address(drafts);
    }),
    line(
        "connect_port",
        APPLIED,
        "the port to connect to; default the real server's",
    )
    .number(&defaults::PORT)
    .read(|draft, stmt, drafts| {
        draft.connect_port = stmt.number(drafts);
    }),
    line("bindto", APPLIED, "the address to connect from").read(|draft, stmt, drafts| {
        let addr = stmt.address(drafts);
        draft.bindto = addr.map(|value| At {
            value,
            span: stmt.args[0].span,
        });
    }),
    line(
        "bind_port",
        APPLIED,
        "the port to connect from; default any",
    )
    .number(&defaults::PORT)
    .read(|draft, stmt, drafts| {
        draft.bind_port = stmt.number(drafts).unwrap_or_default();
    }),
    line("nb_get_retry", APPLIED, "an older name of retry")
        .number(&defaults::RETRIES)
        .read(|draft, stmt, drafts| {
            let message = "`nb_get_retry` is an old name; use `retry`";
            drafts.push(Draft::deprecated(stmt.keyword.span, message));
            draft.timing.retry = stmt.number(drafts);
        }),
    known("bind_if", UNAPPLIED, "the interface to connect from"),
    known("fwmark", UNAPPLIED, "the mark of the check's packets"),
    known(
        "log_all_failures",
        UNAPPLIED,
        "each failure is logged, not the change alone",
    ),
];

/// Looks for unknown keywords in a checker that is refused as a whole.
pub(super) fn unread(stmt: &Stmt, table: &'static Table<()>, drafts: &mut Drafts) {
    walk(&mut (), stmt.body(), table, drafts);
}

/// Keywords of every checker.
static COMMON: &[Keyword<()>] = &[
    known(
        "connect_ip",
        WITH_BLOCK,
        "the address to connect to; default the real server's",
    ),
    known(
        "connect_port",
        WITH_BLOCK,
        "the port to connect to; default the real server's",
    ),
    known("bindto", WITH_BLOCK, "the address to connect from"),
    known(
        "bind_port",
        WITH_BLOCK,
        "the port to connect from; default any",
    ),
    known("bind_if", WITH_BLOCK, "the interface to connect from"),
    known(
        "connect_timeout",
        WITH_BLOCK,
        "how long a connection may take",
    ),
    known("fwmark", WITH_BLOCK, "the mark of the check's packets"),
    known(
        "retry",
        WITH_BLOCK,
        "failures in a row after which it is down, less one",
    ),
    known("nb_get_retry", WITH_BLOCK, "an older name of retry"),
    known(
        "delay_before_retry",
        WITH_BLOCK,
        "time between a failure and the next try",
    ),
    known(
        "warmup",
        WITH_BLOCK,
        "the longest wait, drawn at random, before the first check",
    ),
    known("delay_loop", WITH_BLOCK, "time between two checks"),
    known(
        "alpha",
        WITH_BLOCK,
        "whether a real server is down until its check passes",
    ),
    known(
        "log_all_failures",
        WITH_BLOCK,
        "each failure is logged, not the change alone",
    ),
];

/// Keywords of `HTTP_GET` and `SSL_GET`.
static HTTP: &[Keyword<()>] = &[
    known("virtualhost", WITH_BLOCK, "the name that is asked for"),
    known(
        "http_protocol",
        WITH_BLOCK,
        "the version of HTTP: 1.0, 1.0C or 1.1",
    ),
    known("enable_sni", WITH_BLOCK, "TLS names the virtual host"),
    known("sni_name", WITH_BLOCK, "the name that TLS says"),
    known(
        "fast_recovery",
        WITH_BLOCK,
        "one success is enough to be up again",
    ),
    known(
        "tls_compliant",
        WITH_BLOCK,
        "a connection that ends without notice is an error",
    ),
    block("url", WITH_BLOCK, "a page, and what it must be")
        .only_here()
        .read(|(), stmt, drafts| {
            unread(stmt, &URL_TABLE, drafts);
        }),
];

static URL: &[Keyword<()>] = &[
    known("path", WITH_BLOCK, "the page's path"),
    known("digest", WITH_BLOCK, "the MD5 digest of the page"),
    known("status_code", WITH_BLOCK, "the status codes that are right"),
    known("virtualhost", WITH_BLOCK, "the name that is asked for"),
    known("regex", WITH_BLOCK, "what the page must match"),
    known("regex_no_match", WITH_BLOCK, "what the page must not match"),
    known("regex_options", WITH_BLOCK, "options of the expression"),
    known(
        "regex_min_offset",
        WITH_BLOCK,
        "the first byte that is searched",
    ),
    known(
        "regex_max_offset",
        WITH_BLOCK,
        "the last byte that is searched",
    ),
    known("regex_stack", WITH_BLOCK, "memory for the expression"),
    known(
        "tls_compliant",
        WITH_BLOCK,
        "a connection that ends without notice is an error",
    ),
];

/// Keywords of `SMTP_CHECK`.
static SMTP: &[Keyword<()>] = &[
    known(
        "helo_name",
        WITH_BLOCK,
        "the name that the server is greeted with",
    ),
    known("host", WITH_BLOCK, "another server to check"),
];

/// Keywords of `DNS_CHECK`.
static DNS: &[Keyword<()>] = &[
    known("type", WITH_BLOCK, "the type of the record"),
    known(
        "name",
        WITH_BLOCK,
        "the name that is asked for, or the session's",
    ),
];

/// Keywords of `MISC_CHECK`.
static MISC: &[Keyword<()>] = &[
    known("misc_path", WITH_BLOCK, "the script with its arguments"),
    known("misc_timeout", WITH_BLOCK, "how long the script may take"),
    known(
        "misc_dynamic",
        WITH_BLOCK,
        "the script's exit code sets the weight",
    ),
    known(
        "user",
        WITH_BLOCK,
        "the user and group that the script runs as",
    ),
];

/// Keywords of `UDP_CHECK`.
static UDP: &[Keyword<()>] = &[
    known("payload", WITH_BLOCK, "the datagram in hexadecimal"),
    known(
        "require_reply",
        WITH_BLOCK,
        "there must be an answer, perhaps this one",
    ),
    known("min_reply_length", WITH_BLOCK, "the shortest answer"),
    known("max_reply_length", WITH_BLOCK, "the longest answer"),
];

/// Keywords of `BFD_CHECK`.
static BFD: &[Keyword<()>] = &[known(
    "name",
    WITH_BLOCK,
    "the name that is asked for, or the session's",
)];

/// Keywords of `FILE_CHECK`.
static FILE: &[Keyword<()>] = &[
    known(
        "track_file",
        WITH_BLOCK,
        "the file, as a track_file block defines it",
    ),
    known("weight", WITH_BLOCK, "what the number is multiplied with"),
];

pub(super) static HTTP_TABLE: Table<()> = Table {
    block: "HTTP_GET",
    keywords: &[COMMON, HTTP],
};
pub(super) static SSL_TABLE: Table<()> = Table {
    block: "SSL_GET",
    keywords: &[COMMON, HTTP],
};
pub(super) static SMTP_TABLE: Table<()> = Table {
    block: "SMTP_CHECK",
    keywords: &[COMMON, SMTP],
};
pub(super) static DNS_TABLE: Table<()> = Table {
    block: "DNS_CHECK",
    keywords: &[COMMON, DNS],
};
pub(super) static MISC_TABLE: Table<()> = Table {
    block: "MISC_CHECK",
    keywords: &[COMMON, MISC],
};
pub(super) static UDP_TABLE: Table<()> = Table {
    block: "UDP_CHECK",
    keywords: &[COMMON, UDP],
};
pub(super) static PING_TABLE: Table<()> = Table {
    block: "PING_CHECK",
    keywords: &[COMMON],
};
pub(super) static BFD_TABLE: Table<()> = Table {
    block: "BFD_CHECK",
    keywords: &[COMMON, BFD],
};
pub(super) static FILE_TABLE: Table<()> = Table {
    block: "FILE_CHECK",
    keywords: &[COMMON, FILE],
};
static URL_TABLE: Table<()> = Table {
    block: "url",
    keywords: &[URL],
};

/// The keywords of every checker.
pub(super) fn facts() -> impl Iterator<Item = (&'static str, &'static Facts)> {
    let refused = [
        &HTTP_TABLE,
        &SSL_TABLE,
        &SMTP_TABLE,
        &DNS_TABLE,
        &MISC_TABLE,
        &UDP_TABLE,
        &PING_TABLE,
        &BFD_TABLE,
        &FILE_TABLE,
        &URL_TABLE,
    ];
    let refused = refused.into_iter().flat_map(Table::facts);
    TABLE.facts().chain(refused)
}
