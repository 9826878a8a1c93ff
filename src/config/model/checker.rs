//! Health checks of real servers (`TCP_CHECK` and its kin), and the `SSL` block.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use super::Script;
use crate::addr::Endpoint;

/// A health check of one real server. `BFD_CHECK` and `FILE_CHECK` have no times of their own: theirs are the defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Checker {
    /// What it does.
    pub kind: CheckKind,
    /// `retry`: failures that are forgiven before the one that counts. Default
    /// [`defaults::RETRY`](crate::config::defaults::RETRY); 3 for `DNS_CHECK`, 0 for `MISC_CHECK`.
    pub retry: u32,
    /// `delay_before_retry`. Default [`defaults::DELAY_BEFORE_RETRY`](crate::config::defaults::DELAY_BEFORE_RETRY); 3 s for
    /// `HTTP_GET` and `SSL_GET`, `delay_loop` for `DNS_CHECK`.
    pub delay_before_retry: Duration,
    /// `warmup`: the first run comes after a random part of it. `None`, not said: the checker's
    /// own default, at most 1 s (keepalived: `delay_loop`).
    pub warmup: Option<Duration>,
    /// `delay_loop`: from the end of one run to the next. Default the virtual server's.
    pub delay_loop: Duration,
    /// `alpha`: whether it counts as failed until it has passed. Default false.
    pub alpha: bool,
    /// `log_all_failures`: whether each failure is logged, not the change alone. Default false.
    pub log_all_failures: bool,
}

/// What a checker does.
#[derive(Clone, Debug, PartialEq)]
pub enum CheckKind {
    /// `TCP_CHECK`: a connection is established.
    Tcp(Connection),
    /// `HTTP_GET` and `SSL_GET`: pages come as they should.
    Http(Box<HttpCheck>),
    /// `SMTP_CHECK`: a mail server greets.
    Smtp(Box<SmtpCheck>),
    /// `DNS_CHECK`: a name is answered for.
    Dns(Box<DnsCheck>),
    /// `MISC_CHECK`: a script ends with 0.
    Misc(Box<MiscCheck>),
    /// `UDP_CHECK`: no ICMP error answers a datagram, or the right answer comes.
    Udp(Box<UdpCheck>),
    /// `PING_CHECK`: an echo request is answered. Its port says nothing.
    Ping(Connection),
    /// `BFD_CHECK`: the session of a `bfd_instance` is up.
    Bfd {
        /// `name` of the `bfd_instance`.
        name: String,
    },
    /// `FILE_CHECK`: the number in a file.
    File(FileCheck),
}

impl CheckKind {
    /// keepalived's word for it.
    pub const fn keyword(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "TCP_CHECK",
            Self::Http(check) if check.tls.is_some() => "SSL_GET",
            Self::Http(_) => "HTTP_GET",
            Self::Smtp(_) => "SMTP_CHECK",
            Self::Dns(_) => "DNS_CHECK",
            Self::Misc(_) => "MISC_CHECK",
            Self::Udp(_) => "UDP_CHECK",
            Self::Ping(_) => "PING_CHECK",
            Self::Bfd { .. } => "BFD_CHECK",
            Self::File(_) => "FILE_CHECK",
        }
    }

    /// How it reaches what it checks. `None` for what goes over no connection.
    pub fn connection(&self) -> Option<&Connection> {
        match self {
            Self::Tcp(connection) | Self::Ping(connection) => Some(connection),
            Self::Http(check) => Some(&check.connection),
            Self::Smtp(check) => Some(&check.connection),
            Self::Dns(check) => Some(&check.connection),
            Self::Udp(check) => Some(&check.connection),
            Self::Misc(_) | Self::Bfd { .. } | Self::File(_) => None,
        }
    }
}

/// Where a check goes, and how it gets there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// `connect_ip` and `connect_port`. Default the real server's.
    pub to: Endpoint,
    /// `bindto`: its source address, of the same family. Default the kernel's choice.
    pub bindto: Option<IpAddr>,
    /// `bind_port`: its source port; 0, the default, is the kernel's choice.
    pub bind_port: u16,
    /// `bind_if`: the interface that it leaves by. Default the routes' choice.
    pub bind_if: Option<String>,
    /// `fwmark` of its packets (`SO_MARK`); 0, the default: none.
    pub mark: u32,
    /// `connect_timeout`. Default [`defaults::CONNECT_TIMEOUT`](crate::config::defaults::CONNECT_TIMEOUT).
    pub timeout: Duration,
}

/// `HTTP_GET` and `SSL_GET`.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpCheck {
    /// Where it connects to.
    pub connection: Connection,
    /// TLS: `SSL_GET`. `None`: `HTTP_GET`.
    pub tls: Option<Tls>,
    /// `http_protocol`. Default 1.0.
    pub version: HttpVersion,
    /// `virtualhost`: the name that is asked for. Default the real server's, then the virtual server's, then the
    /// address and port that it connects to.
    pub virtualhost: Option<Arc<str>>,
    /// `fast_recovery`: whether the pages of a failed real server are fetched without `delay_loop` between them.
    /// Default false.
    pub fast_recovery: bool,
    /// `url`: the pages, at least one.
    pub urls: Vec<HttpUrl>,
}

/// What `SSL_GET` says about TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// `enable_sni`: whether the name that is asked for is said in the handshake. Default false.
    pub enable_sni: bool,
    /// `sni_name` (keepalived 2.4): the name in the handshake. Default the virtual host.
    pub sni_name: Option<String>,
}

/// `http_protocol`: what a request says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpVersion {
    /// `1.0`
    #[default]
    V1_0,
    /// `1.0C`: 1.0 with `Connection: close`.
    V1_0Close,
    /// `1.1`, with `Connection: close`.
    V1_1,
}

impl HttpVersion {
    /// Every version.
    pub const ALL: [Self; 3] = [Self::V1_0, Self::V1_0Close, Self::V1_1];

    /// The word in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V1_0 => "1.0",
            Self::V1_0Close => "1.0C",
            Self::V1_1 => "1.1",
        }
    }
}

/// `url`: a page, and what it must be.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpUrl {
    /// `path`
    pub path: String,
    /// `digest`: MD5 of the body, as genhash prints it.
    pub digest: Option<[u8; 16]>,
    /// `status_code`: those that pass, at least one range. Default
    /// [`defaults::STATUS_CODES`](crate::config::defaults::STATUS_CODES).
    pub status_codes: Vec<StatusRange>,
    /// `virtualhost` of this page. Default the checker's.
    pub virtualhost: Option<Arc<str>>,
    /// `regex`: what the page is searched for.
    pub regex: Option<PageRegex>,
    /// `tls_compliant` (keepalived 2.4): whether a connection that ends without TLS's notice is a failure. Default the
    /// checker's, then false.
    pub tls_compliant: bool,
}

/// Status codes from `first` to `last`, 100 to 599, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    /// The lowest.
    pub first: u16,
    /// The highest, not below the lowest.
    pub last: u16,
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.last) {
            (first, last) if first == last => first.fmt(f),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

/// `regex` and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRegex {
    /// The expression, in PCRE2's language.
    pub pattern: String,
    /// `regex_no_match`: whether a match is the failure. Default false.
    pub no_match: bool,
    /// `regex_options`, none of them twice.
    pub options: Vec<RegexOption>,
    /// `regex_min_offset`: the first byte of the page that is searched. Default 0.
    pub min_offset: u64,
    /// `regex_max_offset`: the last byte at which a match may begin. `None`: the page's last.
    pub max_offset: Option<u64>,
    /// `regex_stack`: bytes of the machine stack at the start, and at most. `None`: the library's.
    pub stack: Option<(u64, u64)>,
}

/// An option of PCRE2 as pcre2api(3) names it, without the prefix and in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegexOption(&'static str);

impl RegexOption {
    /// Every option that keepalived knows.
    pub const ALL: [Self; 24] = [
        Self("allow_empty_class"),
        Self("alt_bsux"),
        Self("auto_callout"),
        Self("caseless"),
        Self("dollar_endonly"),
        Self("dotall"),
        Self("dupnames"),
        Self("extended"),
        Self("firstline"),
        Self("match_unset_backref"),
        Self("multiline"),
        Self("never_ucp"),
        Self("never_utf"),
        Self("no_auto_capture"),
        Self("no_auto_possess"),
        Self("no_dotstar_anchor"),
        Self("no_start_optimize"),
        Self("ucp"),
        Self("ungreedy"),
        Self("utf"),
        Self("never_backslash_c"),
        Self("alt_circumflex"),
        Self("alt_verbnames"),
        Self("use_offset_limit"),
    ];

    /// The name.
    pub const fn name(self) -> &'static str {
        self.0
    }
}

/// `SMTP_CHECK`. Each `host` of one is a checker of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmtpCheck {
    /// Where it connects to.
    pub connection: Connection,
    /// `helo_name`: the name that the mail server is greeted with. Default
    /// [`defaults::HELO_NAME`](crate::config::defaults::HELO_NAME).
    pub helo_name: String,
}

/// `DNS_CHECK`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsCheck {
    /// Where the question goes.
    pub connection: Connection,
    /// `type`. Default SOA.
    pub record: DnsType,
    /// `name`. Default `.`, the root.
    pub name: String,
}

/// `type` of a `DNS_CHECK`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DnsType {
    /// An IPv4 address.
    A,
    /// A name server.
    Ns,
    /// Another name.
    Cname,
    /// The start of a zone.
    #[default]
    Soa,
    /// A mail server.
    Mx,
    /// Text.
    Txt,
    /// An IPv6 address.
    Aaaa,
    /// A signature (RFC 4034).
    Rrsig,
    /// A key (RFC 4034).
    Dnskey,
}

impl DnsType {
    /// Every type.
    pub const ALL: [Self; 9] = [
        Self::A,
        Self::Ns,
        Self::Cname,
        Self::Soa,
        Self::Mx,
        Self::Txt,
        Self::Aaaa,
        Self::Rrsig,
        Self::Dnskey,
    ];

    /// The word in the configuration, which may be in any case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Ns => "NS",
            Self::Cname => "CNAME",
            Self::Soa => "SOA",
            Self::Mx => "MX",
            Self::Txt => "TXT",
            Self::Aaaa => "AAAA",
            Self::Rrsig => "RRSIG",
            Self::Dnskey => "DNSKEY",
        }
    }
}

/// `MISC_CHECK`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MiscCheck {
    /// `misc_path`, with the user and group that stand behind it or behind `user`.
    pub script: Script,
    /// `misc_timeout`: whole seconds after which the script has failed. `None`: the virtual server's `delay_loop`.
    pub timeout: Option<Duration>,
    /// `misc_dynamic`: whether exit codes from 2 on are weights. Default false.
    pub dynamic: bool,
}

/// `UDP_CHECK`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpCheck {
    /// Where the datagram goes.
    pub connection: Connection,
    /// `payload`: what it holds. `None`: bytes drawn at random.
    pub payload: Option<Vec<u8>>,
    /// `require_reply`. `None`: no answer is needed.
    pub reply: Option<UdpReply>,
}

/// What an answer to a `UDP_CHECK` must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpReply {
    /// The bytes that it begins with, as far as it goes; none: whatever they are.
    pub pattern: Vec<MaskedByte>,
    /// `min_reply_length`: bytes that it has at least. Default 0.
    pub min_length: u16,
    /// `max_reply_length`: bytes that it has at most. Default
    /// [`defaults::MAX_REPLY_LENGTH`](crate::config::defaults::MAX_REPLY_LENGTH).
    pub max_length: u16,
}

/// A byte of which either half may be left open: `4x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaskedByte {
    /// The value; 0 where it is left open.
    pub value: u8,
    /// The bits that count: 0xff, 0xf0, 0x0f or 0.
    pub mask: u8,
}

impl fmt::Display for MaskedByte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for shift in [4, 0] {
            if (self.mask >> shift) & 0xf == 0 {
                f.write_str("x")?;
            } else {
                write!(f, "{:x}", (self.value >> shift) & 0xf)?;
            }
        }
        Ok(())
    }
}

/// `FILE_CHECK`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileCheck {
    /// `track_file`: the name of the block that says which file.
    pub track_file: String,
    /// `weight`: what the number is multiplied with, -2,147,483,647 to 2,147,483,647; 0: any other number than 0 is a
    /// failure. `None`: as the `track_file` block says.
    pub weight: Option<FileWeight>,
}

/// `weight N [reverse]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileWeight {
    /// The factor.
    pub weight: i32,
    /// Whether the sign is turned. Default false.
    pub reverse: bool,
}

/// `SSL`: what `SSL_GET` shows of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ssl {
    /// `password` of the key.
    pub password: Option<Passphrase>,
    /// `ca`: the file with the authorities.
    pub ca: Option<String>,
    /// `certificate`: the file with the certificate.
    pub certificate: Option<String>,
    /// `key`: the file with the key.
    pub key: Option<String>,
}

/// The password of a key, which is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(String);

impl Passphrase {
    /// A password as it was written.
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The password.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(****)")
    }
}
