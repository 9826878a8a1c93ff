//! Checkers, and the numbers that they inherit from real server and virtual server.

use std::{marker::PhantomData, net::IpAddr, time::Duration};

use super::{
    defaults,
    diagnostic::{Draft, Drafts},
    model::{CheckKind, Checker},
    source::Span,
    support::Block,
    tree::Stmt,
    walk::{self, At, Rule, block, line, name},
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
    pub(super) const ALL: &'static [Rule<T>] = &[
        line("delay_loop", |draft, stmt, drafts| {
            draft.timing().delay_loop = stmt.time(&defaults::CHECK_INTERVAL, drafts);
        }),
        line("alpha", |draft, stmt, drafts| {
            draft.timing().alpha = stmt.boolean(drafts);
        }),
        line("retry", |draft, stmt, drafts| {
            draft.timing().retry = stmt.number(&defaults::RETRIES, drafts);
        }),
        line("delay_before_retry", |draft, stmt, drafts| {
            draft.timing().delay_before_retry = stmt.time(&defaults::CHECK_DELAY, drafts);
        }),
        line("warmup", |draft, stmt, drafts| {
            draft.timing().warmup = stmt.time(&defaults::CHECK_DELAY, drafts);
        }),
        line("connect_timeout", |draft, stmt, drafts| {
            draft.timing().connect_timeout = stmt.time(&defaults::CHECK_INTERVAL, drafts);
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
        let rules = [RULES, TimingRules::ALL];
        walk::walk(&mut draft, stmt.body(), Block::TcpCheck, &rules, drafts);
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

static RULES: &[Rule<CheckerDraft>] = &[
    line("connect_ip", |draft, stmt, drafts| {
        draft.connect_ip = stmt.address(drafts);
    }),
    line("connect_port", |draft, stmt, drafts| {
        draft.connect_port = stmt.number(&defaults::PORT, drafts);
    }),
    line("bindto", |draft, stmt, drafts| {
        let addr = stmt.address(drafts);
        draft.bindto = addr.map(|value| At {
            value,
            span: stmt.args[0].span,
        });
    }),
    line("bind_port", |draft, stmt, drafts| {
        draft.bind_port = stmt.number(&defaults::PORT, drafts).unwrap_or_default();
    }),
    line("nb_get_retry", |draft, stmt, drafts| {
        let message = "nb_get_retry is deprecated; use `retry`";
        drafts.push(Draft::warning(stmt.keyword.span, message));
        draft.timing.retry = stmt.number(&defaults::RETRIES, drafts);
    }),
    name("bind_if"),
    name("fwmark"),
    name("log_all_failures"),
];

/// Looks for unknown keywords in a checker that is refused as a whole.
pub(super) fn known(stmt: &Stmt, own: &'static [Rule<()>], drafts: &mut Drafts) {
    walk::walk(&mut (), stmt.body(), Block::Whole, &[COMMON, own], drafts);
}

/// Keywords of every checker.
static COMMON: &[Rule<()>] = &[
    name("connect_ip"),
    name("connect_port"),
    name("bindto"),
    name("bind_port"),
    name("bind_if"),
    name("connect_timeout"),
    name("fwmark"),
    name("retry"),
    name("nb_get_retry"),
    name("delay_before_retry"),
    name("warmup"),
    name("delay_loop"),
    name("alpha"),
    name("log_all_failures"),
];

/// Keywords of `HTTP_GET` and `SSL_GET`.
pub(super) static HTTP: &[Rule<()>] = &[
    name("virtualhost"),
    name("http_protocol"),
    name("enable_sni"),
    name("sni_name"),
    name("fast_recovery"),
    name("tls_compliant"),
    block("url", |(), stmt, drafts| {
        walk::walk(&mut (), stmt.body(), Block::Whole, &[URL], drafts);
    }),
];

static URL: &[Rule<()>] = &[
    name("path"),
    name("digest"),
    name("status_code"),
    name("virtualhost"),
    name("regex"),
    name("regex_no_match"),
    name("regex_options"),
    name("regex_min_offset"),
    name("regex_max_offset"),
    name("regex_stack"),
    name("tls_compliant"),
];

/// Keywords of `SMTP_CHECK`.
pub(super) static SMTP: &[Rule<()>] = &[name("helo_name"), name("host")];

/// Keywords of `DNS_CHECK`.
pub(super) static DNS: &[Rule<()>] = &[name("type"), name("name")];

/// Keywords of `MISC_CHECK`.
pub(super) static MISC: &[Rule<()>] = &[
    name("misc_path"),
    name("misc_timeout"),
    name("misc_dynamic"),
    name("user"),
];

/// Keywords of `UDP_CHECK`.
pub(super) static UDP: &[Rule<()>] = &[
    name("payload"),
    name("require_reply"),
    name("min_reply_length"),
    name("max_reply_length"),
];

/// Keywords of `BFD_CHECK`.
pub(super) static BFD: &[Rule<()>] = &[name("name")];

/// Keywords of `FILE_CHECK`.
pub(super) static FILE: &[Rule<()>] = &[name("track_file"), name("weight")];
