//! `keepalived.conf`: from bytes to a typed [`Config`], and everything there is to say on the way.
//!
//! ```text
//! bytes -> source -> expand -> lexer -> tree -> file: global, vrrp, group, server, -> Config
//!          files     lines     tokens   blocks  checker, settings: drafts, then rules
//! ```
//!
//! The language is keepalived's, with its words, defaults and corrections; where keepalived
//! stumbles (a typo's closing brace ends the wrong block, a missing value ends the process), one
//! mistake is reported once, at its place, and reading goes on. All findings of a run are
//! collected, in the order of the file. Errors mean that the configuration must not be used;
//! warnings say what is deprecated, changed or not applied.
//!
//! One block is ours: `xvs`, for what keepalived has no word for ([`Settings`]).
//!
//! Each keyword stands once, in the table of its block (`keyword`): its name, what this version does with it, its
//! meaning, range and default, and how it is read. No file is read here; text comes in, and what it includes comes from
//! whoever asks ([`Host`]).

#![forbid(unsafe_code)]

mod address;
mod auth;
mod bfd;
mod checker;
pub mod defaults;
mod diagnostic;
mod diff;
mod effective;
mod expand;
mod file;
mod global;
mod grammar;
mod group;
mod host;
mod keyword;
mod lexer;
mod lint;
mod model;
mod notify;
mod overlap;
mod read;
mod request;
mod routes;
mod secrets;
mod server;
mod settings;
mod similar;
mod source;
mod ssl;
mod support;
mod sync_group;
#[cfg(test)]
mod tests;
mod timeouts;
mod tracking;
mod tree;
mod unique;
mod value;
mod vrrp;
mod walk;

pub use self::value::script_words as command_words;
use self::{diagnostic::Drafts, file::FileDraft, source::Source};
pub use self::{
    diagnostic::{Diagnostic, Fate, Severity},
    diff::{Change, Diff, Keyword, ServerChange, diff},
    effective::effective,
    grammar::{explain, reference},
    keyword::{KeywordDoc, Shape},
    model::{
        AddressSet, Alerts, AntiReplay, AuthHmac, Authentication, BfdInstance, CheckKind, Checker,
        Config, Connection, Cpus, DnsCheck, DnsType, ExtraGarp, FastPath, FileCheck, FileWeight,
        Files, Garp, GarpGroup, Global, HmacKey, HmacMode, HostServices, HttpCheck, HttpUrl,
        HttpVersion, InitFile, InitialState, InstanceOptions, Ipvs, LinkPoll, Linkbeat, Mail,
        MarkRule, MaskedByte, Match, MiscCheck, NotifyEvent, NotifyScript, OptionValue, Owner,
        PageRegex, ParamMatch, Passphrase, Password, Persistence, PortRange, Process, Processes,
        RealServer, RegexOption, Route, RouteKind, RouteOption, Rule, RxBufs, Script, Scripts,
        Settings, SmtpCheck, SorryServer, Ssl, StatusRange, SyncDaemon, SyncGroup, Timeout,
        Timeouts, Tls, TrackFile, TrackGroup, TrackInterface, TrackProcess, Tracked, Trackers,
        Transport, UdpCheck, UdpReply, Umask, UnicastPeer, UpDownDelay, VirtualAddress,
        VirtualServer, VirtualServerKey, Vmac, VrrpInstance, VrrpScript, VrrpVersion, VrrpWide,
    },
    request::{Host, Request, Unreadable},
    support::Support,
};

/// What came of reading a configuration.
#[derive(Debug)]
pub struct Parsed {
    /// What was understood. To be used only when there are no errors.
    pub config: Config,
    /// Every finding, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
    source: Source,
}

impl Parsed {
    /// Whether the configuration must not be used.
    pub fn has_errors(&self) -> bool {
        let mut all = self.diagnostics.iter();
        all.any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// The files that were read, each once, in the order in which reading them began.
    pub fn files(&self) -> Vec<&str> {
        self.source.names()
    }

    /// A finding with its source line and carets below what is meant. Ends with a line feed.
    pub fn render(&self, diagnostic: &Diagnostic) -> String {
        diagnostic::render(diagnostic, &self.source)
    }

    /// Every finding as [`Parsed::render`] shows it: what `xvs check` writes to stderr. What it
    /// writes to stdout is [`effective()`].
    pub fn report(&self) -> String {
        self.diagnostics.iter().map(|d| self.render(d)).collect()
    }
}

/// Reads a text that stands alone: [`read`] of [`Request::alone`]. `file_name` serves to name places.
pub fn parse(file_name: &str, text: &[u8]) -> Parsed {
    read(&Request::alone(file_name, text))
}

/// Reads a configuration with what it includes.
pub fn read(request: &Request<'_>) -> Parsed {
    let mut source = Source::new(request.file, request.text);
    let mut drafts = Drafts::default();
    let rows = expand::expand(request, &mut source, &mut drafts);
    let stmts = tree::build(&rows, &source, &grammar::BRACES, &mut drafts);
    drop(rows);
    let mut draft = FileDraft::default();
    walk::walk(&mut draft, &stmts, &file::TABLE, &mut drafts);
    let config = draft.finish(&mut drafts);
    Parsed {
        config,
        diagnostics: drafts.finish(&mut source),
        source,
    }
}
