//! The checkers one by one: their tables, and what only they say.

use std::time::Duration;

use super::{
    super::{
        defaults,
        diagnostic::{Draft, Drafts},
        keyword::{
            APPLIED, Facts, Given, Keyword, NO_VALUE, Table, Value, WITH_BLOCK, block, line,
        },
        model::{
            Connection, DnsCheck, DnsType, FileCheck, FileWeight, MaskedByte, MiscCheck, Script,
            UdpCheck, UdpReply,
        },
        read,
        source::{Span, quoted},
        tree::Stmt,
    },
    Block, CheckRules, CheckerDraft, ConnectionDraft, Kind, TimingRules,
    http::{self, HttpDraft},
};

/// A checker that cannot run, which keepalived drops.
fn dropped(stmt: &Stmt, lacks: &str, drafts: &mut Drafts) {
    let message = format!("{} is left out: it has no {lacks}", stmt.keyword.text);
    drafts.push(Draft::warning(stmt.keyword.span, message));
}

// --- TCP_CHECK, PING_CHECK ---

static TCP_TABLE: Table<Block<()>> = Table {
    block: "TCP_CHECK",
    keywords: &[
        CheckRules::<(), true>::CONNECTION,
        TimingRules::<_, true>::CONNECT,
        TimingRules::<_, true>::CHECKS,
        TimingRules::<_, true>::ALPHA,
        CheckRules::<(), true>::LOGGING,
        TCP,
    ],
};

/// 1.x had it for pages alone, and 2.x knows it nowhere else; files that have it here mean it.
static TCP: &[Keyword<Block<()>>] = &[line("nb_get_retry", APPLIED, "an older name of retry")
    .number(&defaults::RETRIES)
    .read(|draft, stmt, drafts| {
        let message = "`nb_get_retry` is an old name; use `retry`";
        let draft_of = Draft::deprecated(stmt.keyword.span, message);
        drafts.push(draft_of.hint("keepalived 2.x takes it in HTTP_GET and SSL_GET alone"));
        stmt.set(&mut draft.timing.retry, drafts);
    })];

/// `TCP_CHECK`
pub(in super::super) fn tcp(stmt: &Stmt, drafts: &mut Drafts) -> CheckerDraft {
    Block::read(stmt, &TCP_TABLE, drafts).checker(stmt, |()| Kind::Tcp)
}

/// The keywords of a checker that is not applied and connects.
macro_rules! connecting {
    ($own:ty, $more:expr) => {
        &[
            CheckRules::<$own, false>::CONNECTION,
            TimingRules::<_, false>::CONNECT,
            TimingRules::<_, false>::CHECKS,
            TimingRules::<_, false>::ALPHA,
            CheckRules::<$own, false>::LOGGING,
            $more,
        ]
    };
}

static PING_TABLE: Table<Block<()>> = Table {
    block: "PING_CHECK",
    keywords: connecting!((), &[]),
};

/// `PING_CHECK`
pub(in super::super) fn ping(stmt: &Stmt, drafts: &mut Drafts) -> CheckerDraft {
    Block::read(stmt, &PING_TABLE, drafts).checker(stmt, |()| Kind::Ping)
}

// --- HTTP_GET, SSL_GET ---

static HTTP_TABLE: Table<Block<HttpDraft>> = Table {
    block: "HTTP_GET",
    keywords: connecting!(HttpDraft, http::KEYWORDS),
};

static SSL_TABLE: Table<Block<HttpDraft>> = Table {
    block: "SSL_GET",
    keywords: connecting!(HttpDraft, http::KEYWORDS),
};

fn pages(
    stmt: &Stmt,
    table: &'static Table<Block<HttpDraft>>,
    encrypted: bool,
    drafts: &mut Drafts,
) -> Option<CheckerDraft> {
    let mut read = Block::read(stmt, table, drafts);
    if read.own.urls.is_empty() {
        dropped(stmt, "url", drafts);
        return None;
    }
    read.own.encrypted = encrypted;
    Some(read.checker(stmt, |own| Kind::Http(Box::new(own))))
}

/// `HTTP_GET`; `None` without a page.
pub(in super::super) fn http_get(stmt: &Stmt, drafts: &mut Drafts) -> Option<CheckerDraft> {
    pages(stmt, &HTTP_TABLE, false, drafts)
}

/// `SSL_GET`; `None` without a page.
pub(in super::super) fn ssl_get(stmt: &Stmt, drafts: &mut Drafts) -> Option<CheckerDraft> {
    pages(stmt, &SSL_TABLE, true, drafts)
}

// --- SMTP_CHECK ---

/// The keywords of `SMTP_CHECK` while they are read.
#[derive(Debug, Default)]
struct SmtpDraft {
    helo_name: Option<String>,
    hosts: Vec<ConnectionDraft>,
}

static SMTP_TABLE: Table<Block<SmtpDraft>> = Table {
    block: "SMTP_CHECK",
    keywords: connecting!(SmtpDraft, SMTP),
};

static HOST_TABLE: Table<Block<SmtpDraft>> = Table {
    block: "host",
    keywords: connecting!(SmtpDraft, &[]),
};

static SMTP: &[Keyword<Block<SmtpDraft>>] = &[
    line(
        "helo_name",
        WITH_BLOCK,
        "the name that the server is greeted with",
    )
    .default(Value::Word(defaults::HELO_NAME))
    .read(|draft, stmt, drafts| {
        draft.own.helo_name = stmt.text(drafts);
    }),
    block(
        "host",
        WITH_BLOCK,
        "a server to check, of several; of keepalived 1.x",
    )
    .only_here()
    .read(|draft, stmt, drafts| {
        let message = "`host` is an old form; a SMTP_CHECK for each host says the same";
        drafts.push(Draft::deprecated(stmt.keyword.span, message));
        stmt.no_more(0, drafts);
        // It begins as the block around it is; what is not about connections is said for that.
        let outer = draft.connection.clone();
        super::walk(draft, stmt.body(), &HOST_TABLE, drafts);
        let host = std::mem::replace(&mut draft.connection, outer);
        draft.own.hosts.push(host);
    }),
];

/// `SMTP_CHECK`
pub(in super::super) fn smtp(stmt: &Stmt, drafts: &mut Drafts) -> CheckerDraft {
    Block::read(stmt, &SMTP_TABLE, drafts).checker(stmt, |own| Kind::Smtp {
        helo_name: own
            .helo_name
            .unwrap_or_else(|| defaults::HELO_NAME.to_owned()),
        hosts: own.hosts,
    })
}

// --- DNS_CHECK ---

/// The keywords of `DNS_CHECK` while they are read.
#[derive(Debug, Default)]
pub(super) struct DnsDraft {
    record: DnsType,
    name: Option<String>,
}

impl DnsDraft {
    pub(super) fn finish(self, connection: Connection) -> DnsCheck {
        DnsCheck {
            connection,
            record: self.record,
            name: self.name.unwrap_or_else(|| defaults::DNS_NAME.to_owned()),
        }
    }
}

static DNS_TABLE: Table<Block<DnsDraft>> = Table {
    block: "DNS_CHECK",
    keywords: connecting!(DnsDraft, DNS),
};

static DNS: &[Keyword<Block<DnsDraft>>] = &[
    line("type", WITH_BLOCK, "the type of the record")
        .words("A, NS, CNAME, SOA, MX, TXT, AAAA, RRSIG or DNSKEY")
        .default(Value::Word("SOA"))
        .read(|draft, stmt, drafts| {
            let Some(word) = stmt.one(drafts) else {
                return;
            };
            let mut all = DnsType::ALL.into_iter();
            match all.find(|known| known.name().eq_ignore_ascii_case(&word.text)) {
                Some(record) => draft.own.record = record,
                None => {
                    let counts = draft.own.record.name();
                    let message =
                        format!("type {} is unknown; {counts} counts", quoted(&word.text));
                    let hint = DnsType::ALL.map(DnsType::name).join(", ");
                    drafts.push(Draft::warning(word.span, message).hint(hint));
                }
            }
        }),
    line("name", WITH_BLOCK, "the name that is asked for")
        .default(Value::Word(defaults::DNS_NAME))
        .read(|draft, stmt, drafts| {
            let Some(word) = stmt.one(drafts) else {
                return;
            };
            match dns_name_fault(&word.text) {
                None => draft.own.name = Some(word.text.clone()),
                Some(fault) => {
                    let message = format!("the name {} is left out: {fault}", quoted(&word.text));
                    let hint = "without a name the root is asked for";
                    drafts.push(Draft::warning(word.span, message).hint(hint));
                }
            }
        }),
];

/// Why nobody can be asked for a name (RFC 1035 §2.3.4).
fn dns_name_fault(name: &str) -> Option<&'static str> {
    if name == "." {
        return None;
    }
    let mut labels = name.strip_suffix('.').unwrap_or(name).split('.');
    labels.find_map(|label| match label.len() {
        0 => Some("a label is empty"),
        1..=63 => None,
        _ => Some("a label has 63 bytes at most"),
    })
}

/// `DNS_CHECK`
pub(in super::super) fn dns(stmt: &Stmt, drafts: &mut Drafts) -> CheckerDraft {
    Block::read(stmt, &DNS_TABLE, drafts).checker(stmt, |own| Kind::Dns(Box::new(own)))
}

// --- MISC_CHECK ---

/// The keywords of `MISC_CHECK` while they are read.
#[derive(Debug, Default)]
pub(super) struct MiscDraft {
    script: Option<Script>,
    /// `user`, and the group behind it.
    owner: Option<(String, Option<String>)>,
    timeout: Option<Duration>,
    dynamic: bool,
}

impl MiscDraft {
    pub(super) fn finish(self) -> MiscCheck {
        let mut script = self.script.unwrap_or_else(|| Script {
            command: String::new(),
            user: None,
            group: None,
        });
        if let Some((user, group)) = self.owner {
            script.user = Some(user);
            script.group = group;
        }
        MiscCheck {
            script,
            timeout: self.timeout,
            dynamic: self.dynamic,
        }
    }
}

static MISC_TABLE: Table<Block<MiscDraft>> = Table {
    block: "MISC_CHECK",
    keywords: &[
        TimingRules::<_, false>::CHECKS,
        TimingRules::<_, false>::ALPHA,
        CheckRules::<MiscDraft, false>::LOGGING,
        MISC,
    ],
};

static MISC: &[Keyword<Block<MiscDraft>>] = &[
    line(
        "misc_path",
        WITH_BLOCK,
        "the script: \"COMMAND ARGUMENTS\" in one pair of quotes, then a user and a group",
    )
    .read(|draft, stmt, drafts| {
        draft.own.script = stmt.command(drafts);
    }),
    line(
        "misc_timeout",
        WITH_BLOCK,
        "how long the script may take; default the virtual server's delay_loop",
    )
    .number(&defaults::MISC_TIMEOUT)
    .read(|draft, stmt, drafts| {
        let seconds = stmt.number::<u32>(drafts).filter(|seconds| *seconds != 0);
        draft.own.timeout = seconds.map(|seconds| Duration::from_secs(seconds.into()));
    }),
    line(
        "misc_dynamic",
        WITH_BLOCK,
        "exit codes from 2 on are weights, less 2",
    )
    .words(NO_VALUE)
    .read(|draft, stmt, drafts| {
        draft.own.dynamic = stmt.flag(drafts);
    }),
    line(
        "user",
        WITH_BLOCK,
        "the user and group that the script runs as",
    )
    .read(|draft, stmt, drafts| {
        let Some(user) = stmt.first(drafts) else {
            return;
        };
        stmt.no_more(2, drafts);
        let group = stmt.args.get(1).map(|group| group.text.clone());
        draft.own.owner = Some((user.text.clone(), group));
    }),
];

/// `MISC_CHECK`; `None` without a script.
pub(in super::super) fn misc(stmt: &Stmt, drafts: &mut Drafts) -> Option<CheckerDraft> {
    let read = Block::read(stmt, &MISC_TABLE, drafts);
    if read.own.script.is_none() {
        dropped(stmt, "misc_path", drafts);
        return None;
    }
    Some(read.checker(stmt, |own| Kind::Misc(Box::new(own))))
}

// --- UDP_CHECK ---

/// The keywords of `UDP_CHECK` while they are read.
#[derive(Debug, Default)]
pub(super) struct UdpDraft {
    payload: Option<Vec<u8>>,
    reply: Option<Vec<MaskedByte>>,
    min_length: Option<(u16, Span)>,
    max_length: Option<(u16, Span)>,
}

impl UdpDraft {
    pub(super) fn finish(self, connection: Connection) -> UdpCheck {
        let (min, max) = (self.min_length, self.max_length);
        UdpCheck {
            connection,
            payload: self.payload,
            reply: self.reply.map(|pattern| UdpReply {
                pattern,
                min_length: min.map_or(0, |(length, _)| length),
                max_length: max.map_or(defaults::MAX_REPLY_LENGTH, |(length, _)| length),
            }),
        }
    }

    /// Says what the lengths of an answer come to.
    fn judge(&self, drafts: &mut Drafts) {
        if self.reply.is_none() {
            for (_, span) in [self.min_length, self.max_length].into_iter().flatten() {
                let message = "this says nothing: no reply is required";
                drafts.push(Draft::note(span, message).hint("`require_reply` asks for one"));
            }
            return;
        }
        let most = self
            .max_length
            .map_or(defaults::MAX_REPLY_LENGTH, |(most, _)| most);
        if let Some((least, span)) = self.min_length.filter(|(least, _)| *least > most) {
            let message = format!(
                "the check always fails: min_reply_length {least} is above max_reply_length {most}"
            );
            drafts.push(Draft::warning(span, message));
        }
    }
}

static UDP_TABLE: Table<Block<UdpDraft>> = Table {
    block: "UDP_CHECK",
    keywords: connecting!(UdpDraft, UDP),
};

static UDP: &[Keyword<Block<UdpDraft>>] = &[
    line(
        "payload",
        WITH_BLOCK,
        "the datagram in hexadecimal, with blanks as one likes; without it bytes drawn at random",
    )
    .read(|draft, stmt, drafts| {
        let bytes = hexadecimal(stmt, false, drafts);
        let plain = |bytes: Vec<MaskedByte>| bytes.iter().map(|byte| byte.value).collect();
        draft.own.payload = bytes.map(plain).or_else(|| draft.own.payload.take());
    }),
    line(
        "require_reply",
        WITH_BLOCK,
        "there must be an answer, perhaps one that begins so: hexadecimal, x is any half of a byte",
    )
    .read(|draft, stmt, drafts| {
        // A pattern that cannot be read asks for nothing, as in keepalived.
        draft.own.reply = if stmt.args.is_empty() {
            Some(Vec::new())
        } else {
            hexadecimal(stmt, true, drafts)
        };
    }),
    line(
        "min_reply_length",
        WITH_BLOCK,
        "the shortest answer, in bytes",
    )
    .number(&defaults::REPLY_LENGTH)
    .default(Value::Number(0))
    .read(|draft, stmt, drafts| {
        let length = stmt.number(drafts);
        draft.own.min_length = length.map(|length| (length, stmt.keyword.span));
    }),
    line(
        "max_reply_length",
        WITH_BLOCK,
        "the longest answer, in bytes",
    )
    .number(&defaults::REPLY_LENGTH)
    .default(Value::Number(defaults::MAX_REPLY_LENGTH as u32))
    .read(|draft, stmt, drafts| {
        let length = stmt.number(drafts);
        draft.own.max_length = length.map(|length| (length, stmt.keyword.span));
    }),
];

/// Bytes in hexadecimal: digits in pairs, of which a blank ends one early; `x` is any digit where that is allowed.
fn hexadecimal(stmt: &Given<'_>, wild: bool, drafts: &mut Drafts) -> Option<Vec<MaskedByte>> {
    let first = stmt.first(drafts)?;
    let mut bytes = Vec::new();
    for word in stmt
        .args
        .iter()
        .flat_map(|word| word.text.split_whitespace())
    {
        let mut digits = word.chars();
        while let Some(high) = digits.next() {
            // A digit alone is the lower half.
            let (high, low) = digits.next().map_or(('0', high), |low| (high, low));
            let byte = nibble(high, wild).zip(nibble(low, wild));
            let Some(((high, high_mask), (low, low_mask))) = byte else {
                let what = &stmt.keyword.text;
                let message = format!("{what} is left out: {} is not hexadecimal", quoted(word));
                let hint = if wild {
                    "0 to 9, a to f, and x for any half of a byte"
                } else {
                    "0 to 9 and a to f"
                };
                drafts.push(Draft::warning(first.span, message).hint(hint));
                return None;
            };
            bytes.push(MaskedByte {
                value: high << 4 | low,
                mask: high_mask << 4 | low_mask,
            });
        }
    }
    Some(bytes)
}

/// A hexadecimal digit and its mask.
fn nibble(digit: char, wild: bool) -> Option<(u8, u8)> {
    match digit.to_digit(16) {
        Some(value) => u8::try_from(value).ok().map(|value| (value, 0xf)),
        None => (wild && matches!(digit, 'x' | 'X')).then_some((0, 0)),
    }
}

/// `UDP_CHECK`
pub(in super::super) fn udp(stmt: &Stmt, drafts: &mut Drafts) -> CheckerDraft {
    let read = Block::read(stmt, &UDP_TABLE, drafts);
    read.own.judge(drafts);
    read.checker(stmt, |own| Kind::Udp(Box::new(own)))
}

// --- BFD_CHECK, FILE_CHECK ---

static BFD_TABLE: Table<Block<Option<String>>> = Table {
    block: "BFD_CHECK",
    keywords: &[BFD, TimingRules::<_, false>::ALPHA],
};

static BFD: &[Keyword<Block<Option<String>>>] =
    &[
        line("name", WITH_BLOCK, "the name of the bfd_instance").read(|draft, stmt, drafts| {
            draft.own = stmt.text(drafts);
        }),
    ];

/// `BFD_CHECK`; `None` without a name.
pub(in super::super) fn bfd(stmt: &Stmt, drafts: &mut Drafts) -> Option<CheckerDraft> {
    let mut read = Block::read(stmt, &BFD_TABLE, drafts);
    let Some(name) = read.own.take() else {
        dropped(stmt, "name", drafts);
        return None;
    };
    Some(read.checker(stmt, |_| Kind::Bfd(name)))
}

/// The keywords of `FILE_CHECK` while they are read.
#[derive(Debug, Default)]
struct FileDraft {
    track_file: Option<String>,
    weight: Option<FileWeight>,
}

static FILE_TABLE: Table<Block<FileDraft>> = Table {
    block: "FILE_CHECK",
    keywords: &[FILE],
};

static FILE: &[Keyword<Block<FileDraft>>] = &[
    line(
        "track_file",
        WITH_BLOCK,
        "the file, as a track_file block defines it",
    )
    .read(|draft, stmt, drafts| {
        draft.own.track_file = stmt.text(drafts);
    }),
    line(
        "weight",
        WITH_BLOCK,
        "what the number is multiplied with, perhaps `reverse`; default that of the track_file block",
    )
    .number(&defaults::FILE_CHECK_WEIGHT)
    .read(|draft, stmt, drafts| {
        let Some(word) = stmt.first(drafts) else {
            return;
        };
        stmt.no_more(2, drafts);
        let weight = read::number(word, "weight", &defaults::FILE_CHECK_WEIGHT, drafts);
        let option = stmt.args.get(1);
        let reverse = option.is_some_and(|word| word.text == "reverse");
        if let Some(word) = option.filter(|_| !reverse) {
            let message = format!("{} is ignored", quoted(&word.text));
            drafts.push(Draft::warning(word.span, message).hint("`reverse` or nothing"));
        }
        draft.own.weight = weight.map(|weight| FileWeight { weight, reverse });
    }),
];

/// `FILE_CHECK`; `None` without a file.
pub(in super::super) fn file(stmt: &Stmt, drafts: &mut Drafts) -> Option<CheckerDraft> {
    let mut read = Block::read(stmt, &FILE_TABLE, drafts);
    let Some(track_file) = read.own.track_file.take() else {
        dropped(stmt, "track_file", drafts);
        return None;
    };
    Some(read.checker(stmt, |own| {
        Kind::File(FileCheck {
            track_file,
            weight: own.weight,
        })
    }))
}

/// The keywords of every checker.
pub(in super::super) fn facts() -> impl Iterator<Item = (&'static str, &'static Facts)> {
    (TCP_TABLE.facts())
        .chain(HTTP_TABLE.facts())
        .chain(SSL_TABLE.facts())
        .chain(http::url_table().facts())
        .chain(SMTP_TABLE.facts())
        .chain(HOST_TABLE.facts())
        .chain(DNS_TABLE.facts())
        .chain(MISC_TABLE.facts())
        .chain(UDP_TABLE.facts())
        .chain(PING_TABLE.facts())
        .chain(BFD_TABLE.facts())
        .chain(FILE_TABLE.facts())
}
