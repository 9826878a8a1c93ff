//! Checkers, and the values that they inherit from real server and virtual server.

mod http;
mod kinds;

use std::{marker::PhantomData, net::IpAddr, sync::Arc, time::Duration};

use super::{
    defaults,
    diagnostic::{Draft, Drafts},
    keyword::{APPLIED, BOOLEAN, Keyword, Table, UNAPPLIED, Value, WITH_BLOCK, line},
    model::{
        CheckKind, Checker, Connection, DnsCheck, FileCheck, HttpCheck, MiscCheck, SmtpCheck,
        UdpCheck,
    },
    read::{self, At},
    source::{Span, quoted},
    support::Support,
    tracking::Watchable,
    tree::Stmt,
    walk::walk,
};
use crate::addr::Endpoint;

pub(super) use self::kinds::{
    bfd, dns, facts, file, http_get, misc, ping, smtp, ssl_get, tcp, udp,
};

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

/// What a keyword is called that stands in several blocks, of which not all are applied.
const fn fate(applies: bool, own: Support) -> Support {
    if applies { own } else { WITH_BLOCK }
}

/// The rules of [`Timing`] for a block, and whether they are applied there.
pub(super) struct TimingRules<T, const APPLIES: bool>(PhantomData<T>);

impl<T: HasTiming, const APPLIES: bool> TimingRules<T, APPLIES> {
    /// `alpha`, but for a virtual server.
    pub(super) const ALPHA: &'static [Keyword<T>] = &[line(
        "alpha",
        fate(APPLIES, APPLIED),
        "whether a real server is down until its check passes",
    )
    .words(BOOLEAN)
    .read(|draft, stmt, drafts| {
        if let Some(alpha) = stmt.boolean(drafts) {
            draft.timing().alpha = Some(alpha);
        }
    })];

    /// The rest, but for what is about connections.
    pub(super) const CHECKS: &'static [Keyword<T>] = &[
        line(
            "delay_loop",
            fate(APPLIES, APPLIED),
            "time between two checks",
        )
        .time(&defaults::CHECK_INTERVAL)
        .default(Value::Time(defaults::DELAY_LOOP))
        .inherited()
        .read(|draft, stmt, drafts| {
            stmt.set(&mut draft.timing().delay_loop, drafts);
        }),
        line(
            "retry",
            fate(APPLIES, APPLIED),
            "failures in a row after which it is down, less one; default of DNS_CHECK 3, of MISC_CHECK 0",
        )
        .number(&defaults::RETRIES)
        .default(Value::Number(defaults::RETRY))
        .inherited()
        .read(|draft, stmt, drafts| {
            stmt.set(&mut draft.timing().retry, drafts);
        }),
        line(
            "delay_before_retry",
            fate(APPLIES, APPLIED),
            "time between a failure and the next try; default of HTTP_GET and SSL_GET 3 s, of DNS_CHECK delay_loop",
        )
        .time(&defaults::CHECK_DELAY)
        .default(Value::Time(defaults::DELAY_BEFORE_RETRY))
        .inherited()
        .read(|draft, stmt, drafts| {
            stmt.set(&mut draft.timing().delay_before_retry, drafts);
        }),
        line(
            "warmup",
            fate(APPLIES, APPLIED),
            "the longest wait, drawn at random, before the first check",
        )
        .time(&defaults::CHECK_DELAY)
        .inherited()
        .read(|draft, stmt, drafts| {
            stmt.set(&mut draft.timing().warmup, drafts);
        }),
    ];

    /// What is about connections.
    pub(super) const CONNECT: &'static [Keyword<T>] = &[line(
        "connect_timeout",
        fate(APPLIES, APPLIED),
        "how long a connection may take",
    )
    .time(&defaults::CHECK_TIMEOUT)
    .default(Value::Time(defaults::CONNECT_TIMEOUT))
    .inherited()
    .read(|draft, stmt, drafts| {
        stmt.set(&mut draft.timing().connect_timeout, drafts);
    })];
}

/// Where a check connects to, while it is read.
#[derive(Clone, Debug, Default)]
struct ConnectionDraft {
    ip: Option<IpAddr>,
    port: Option<u16>,
    bindto: Option<At<IpAddr>>,
    bind_port: u16,
    bind_if: Option<String>,
    mark: u32,
}

impl ConnectionDraft {
    /// `real` is the real server with the port that it was written with.
    fn finish(self, real: Endpoint, timing: &Timing, drafts: &mut Drafts) -> Connection {
        let to = Endpoint::new(self.ip.unwrap_or(real.addr), self.port.unwrap_or(real.port));
        let bindto = self.bindto.filter(|At { value, span }| {
            let fits = value.is_ipv4() == to.addr.is_ipv4();
            if !fits {
                let message = format!(
                    "bindto {value} is left out: it is of another family than {}",
                    to.addr
                );
                drafts.push(Draft::warning(*span, message));
            }
            fits
        });
        Connection {
            to,
            bindto: bindto.map(|bindto| bindto.value),
            bind_port: self.bind_port,
            bind_if: self.bind_if,
            mark: self.mark,
            timeout: timing.connect_timeout.unwrap_or(defaults::CONNECT_TIMEOUT),
        }
    }
}

/// A block of a checker while it is read: what most of them have, and what only it has.
#[derive(Debug, Default)]
struct Block<K> {
    connection: ConnectionDraft,
    timing: Timing,
    log_all_failures: bool,
    own: K,
}

impl<K: Default + 'static> Block<K> {
    fn read(stmt: &Stmt, table: &'static Table<Self>, drafts: &mut Drafts) -> Self {
        stmt.no_more(0, drafts);
        let mut block = Self::default();
        walk(&mut block, stmt.body(), table, drafts);
        block
    }

    /// The checker, with what its kind made of its own keywords.
    fn checker(self, stmt: &Stmt, kind: impl FnOnce(K) -> Kind) -> CheckerDraft {
        CheckerDraft {
            span: stmt.keyword.span,
            connection: self.connection,
            timing: self.timing,
            log_all_failures: self.log_all_failures,
            kind: kind(self.own),
        }
    }
}

impl<K: 'static> HasTiming for Block<K> {
    fn timing(&mut self) -> &mut Timing {
        &mut self.timing
    }
}

/// Rules of every checker that connects or runs, and whether they are applied there.
struct CheckRules<K, const APPLIES: bool>(PhantomData<K>);

impl<K: 'static, const APPLIES: bool> CheckRules<K, APPLIES> {
    const LOGGING: &'static [Keyword<Block<K>>] = &[line(
        "log_all_failures",
        fate(APPLIES, APPLIED),
        "each failure is logged, not the change alone",
    )
    .words(BOOLEAN)
    .read(|block, stmt, drafts| {
        block.log_all_failures = stmt.boolean(drafts).unwrap_or(block.log_all_failures);
    })];

    const CONNECTION: &'static [Keyword<Block<K>>] = &[
        line(
            "connect_ip",
            fate(APPLIES, APPLIED),
            "the address to connect to; default the real server's",
        )
        .read(|block, stmt, drafts| {
            block.connection.ip = stmt.address(drafts);
        }),
        line(
            "connect_port",
            fate(APPLIES, APPLIED),
            "the port to connect to; default the real server's",
        )
        .number(&defaults::PORT)
        .read(|block, stmt, drafts| {
            block.connection.port = stmt.number(drafts);
        }),
        line(
            "bindto",
            fate(APPLIES, APPLIED),
            "the address to connect from",
        )
        .read(|block, stmt, drafts| {
            let addr = stmt.address(drafts);
            block.connection.bindto = addr.map(|value| At {
                value,
                span: stmt.args[0].span,
            });
        }),
        line(
            "bind_port",
            fate(APPLIES, APPLIED),
            "the port to connect from; default any",
        )
        .number(&defaults::PORT)
        .read(|block, stmt, drafts| {
            block.connection.bind_port = stmt.number(drafts).unwrap_or_default();
        }),
        line(
            "bind_if",
            fate(APPLIES, UNAPPLIED),
            "the interface to connect from",
        )
        .read(|block, stmt, drafts| {
            let word = stmt.one(drafts);
            block.connection.bind_if = word.and_then(|word| read::interface(word, drafts));
        }),
        line(
            "fwmark",
            fate(APPLIES, APPLIED),
            "the mark of the check's packets",
        )
        .number(&defaults::CHECK_MARK)
        .read(|block, stmt, drafts| {
            block.connection.mark = stmt.number(drafts).unwrap_or_default();
        }),
    ];
}

/// What a checker is while it is read.
#[derive(Debug)]
enum Kind {
    Tcp,
    Http(Box<http::HttpDraft>),
    Smtp {
        helo_name: String,
        hosts: Vec<ConnectionDraft>,
    },
    Dns(Box<kinds::DnsDraft>),
    Misc(Box<kinds::MiscDraft>),
    Udp(Box<kinds::UdpDraft>),
    Ping,
    Bfd(String),
    File(FileCheck),
}

/// A checker while it is read.
#[derive(Debug)]
pub(super) struct CheckerDraft {
    span: Span,
    connection: ConnectionDraft,
    timing: Timing,
    log_all_failures: bool,
    kind: Kind,
}

/// What a checker needs to know of its real server.
#[derive(Clone, Copy)]
pub(super) struct Outer<'a> {
    /// The real server with the port that it was written with.
    pub(super) real: Endpoint,
    /// What it inherits.
    pub(super) timing: Timing,
    /// `virtualhost` of the real server, else of the virtual server.
    pub(super) virtualhost: Option<&'a Arc<str>>,
    /// What is defined to be looked at.
    pub(super) watchable: &'a Watchable,
}

impl CheckerDraft {
    /// Resolves what the checker inherits. A mail server with several hosts is a checker for each.
    pub(super) fn finish(self, outer: Outer<'_>, checkers: &mut Vec<Checker>, drafts: &mut Drafts) {
        let unknown = match &self.kind {
            Kind::Bfd(name) if !outer.watchable.bfds.contains(name) => {
                Some(("BFD_CHECK", "bfd_instance", name))
            }
            Kind::File(check) if !outer.watchable.files.contains(&check.track_file) => {
                Some(("FILE_CHECK", "track_file", &check.track_file))
            }
            _ => None,
        };
        if let Some((keyword, block, name)) = unknown {
            let message = format!(
                "{keyword} is left out: there is no {block} {}",
                quoted(name)
            );
            drafts.push(Draft::warning(self.span, message));
            return;
        }
        let mut timing = self.timing.or(outer.timing);
        match self.kind {
            Kind::Bfd(_) => {
                timing = Timing {
                    alpha: timing.alpha,
                    ..Timing::default()
                };
            }
            Kind::File(_) => timing = Timing::default(),
            _ => {}
        }
        let delay_loop = timing.delay_loop.unwrap_or(defaults::DELAY_LOOP);
        let (retry, delay_before_retry) = match self.kind {
            Kind::Dns(_) => (defaults::DNS_RETRY, delay_loop),
            Kind::Http(_) => (defaults::RETRY, defaults::HTTP_DELAY_BEFORE_RETRY),
            Kind::Misc(_) => (defaults::MISC_RETRY, defaults::DELAY_BEFORE_RETRY),
            _ => (defaults::RETRY, defaults::DELAY_BEFORE_RETRY),
        };
        let (span, log_all_failures) = (self.span, self.log_all_failures);
        let portless = matches!(self.kind, Kind::Ping);
        let mut connect = |draft: ConnectionDraft| {
            let connection = draft.finish(outer.real, &timing, drafts);
            if connection.to.port == 0 && !portless {
                let message = "the check always fails: neither it nor its real server has a port";
                let hint = "connect_port says which";
                drafts.push(Draft::warning(span, message).hint(hint));
            }
            connection
        };
        let mut add = |kind| {
            checkers.push(Checker {
                kind,
                retry: timing.retry.unwrap_or(retry),
                delay_before_retry: timing.delay_before_retry.unwrap_or(delay_before_retry),
                warmup: timing.warmup,
                delay_loop,
                alpha: timing.alpha.unwrap_or_default(),
                log_all_failures,
            });
        };
        match self.kind {
            Kind::Tcp => add(CheckKind::Tcp(connect(self.connection))),
            Kind::Ping => add(CheckKind::Ping(connect(self.connection))),
            Kind::Http(draft) => {
                let connection = connect(self.connection);
                let check: HttpCheck = draft.finish(connection, outer.virtualhost);
                add(CheckKind::Http(Box::new(check)));
            }
            Kind::Smtp { helo_name, hosts } => {
                let hosts = if hosts.is_empty() {
                    vec![self.connection]
                } else {
                    hosts
                };
                for host in hosts {
                    add(CheckKind::Smtp(Box::new(SmtpCheck {
                        connection: connect(host),
                        helo_name: helo_name.clone(),
                    })));
                }
            }
            Kind::Dns(draft) => {
                let connection = connect(self.connection);
                let check: DnsCheck = draft.finish(connection);
                add(CheckKind::Dns(Box::new(check)));
            }
            Kind::Udp(draft) => {
                let connection = connect(self.connection);
                let check: UdpCheck = draft.finish(connection);
                add(CheckKind::Udp(Box::new(check)));
            }
            Kind::Misc(draft) => {
                let check: MiscCheck = draft.finish();
                add(CheckKind::Misc(Box::new(check)));
            }
            Kind::Bfd(name) => add(CheckKind::Bfd { name }),
            Kind::File(check) => add(CheckKind::File(check)),
        }
    }
}
