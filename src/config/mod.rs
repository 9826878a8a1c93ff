//! `keepalived.conf`: from bytes to a typed [`Config`], and everything there is to say on the way.
//!
//! ```text
//! bytes -> source::expand -> lexer -> tree -> global, vrrp, group, server, checker, -> Config
//!          lines              tokens   blocks  settings: drafts, then rules between keywords
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
//! The parser knows more than the program does: `support` alone decides what this version
//! applies. No file is read here; text comes in, values go out.

#![forbid(unsafe_code)]

mod address;
mod auth;
mod checker;
pub mod defaults;
mod diagnostic;
mod diff;
mod effective;
mod global;
mod group;
mod lexer;
mod model;
mod overlap;
mod server;
mod settings;
mod source;
mod support;
#[cfg(test)]
mod tests;
mod tree;
mod value;
mod vrrp;
mod walk;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

pub use self::{
    diagnostic::{Diagnostic, Severity},
    diff::{Change, Diff, Keyword, ServerChange, diff},
    effective::effective,
    model::{
        AddressSet, Authentication, CheckKind, Checker, Config, Garp, Global, InitialState, Ipvs,
        Mail, MarkRule, Match, NotifyEvent, NotifyScript, Password, Persistence, PortRange,
        RealServer, Settings, SorryServer, Timeout, Timeouts, TrackInterface, Transport,
        UnicastPeer, VirtualAddress, VirtualServer, VirtualServerKey, VrrpInstance, VrrpVersion,
    },
};
use self::{
    diagnostic::{Draft, Drafts, quoted},
    global::GlobalDraft,
    group::{Group, Groups},
    server::{ServerDraft, Surroundings},
    settings::SettingsDraft,
    source::Source,
    support::Block,
    vrrp::InstanceDraft,
    walk::{Rule, block, name},
};
use crate::lvs::Scheduler;

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

/// Reads a configuration. `file_name` serves to name places.
pub fn parse(file_name: &str, text: &[u8]) -> Parsed {
    let mut source = Source::new(file_name, text);
    let mut drafts = Drafts::default();
    let stmts = tree::build(&source, &mut drafts);
    let mut draft = FileDraft::default();
    walk::walk(&mut draft, &stmts, Block::Top, &[RULES, KNOWN], &mut drafts);
    let config = draft.finish(&mut drafts);
    Parsed {
        config,
        diagnostics: drafts.finish(&mut source),
        source,
    }
}

/// A whole file while it is read.
#[derive(Debug, Default)]
struct FileDraft {
    global: GlobalDraft,
    instances: Vec<InstanceDraft>,
    groups: Groups,
    servers: Vec<ServerDraft>,
    settings: SettingsDraft,
}

static RULES: &[Rule<FileDraft>] = &[
    block("global_defs", |draft, stmt, drafts| {
        draft.global.read(stmt, drafts);
    }),
    block("vrrp_instance", |draft, stmt, drafts| {
        draft.instances.push(InstanceDraft::read(stmt, drafts));
    }),
    block("virtual_server", |draft, stmt, drafts| {
        draft.servers.extend(ServerDraft::read(stmt, drafts));
    }),
    block("virtual_server_group", |draft, stmt, drafts| {
        if let Some(group) = Group::read(stmt, drafts) {
            draft.groups.add(group, drafts);
        }
    }),
    block("xvs", |draft, stmt, drafts| {
        draft.settings.read(stmt, drafts);
    }),
];

/// Known keywords that the model has no place for; `support` says what becomes of each.
static KNOWN: &[Rule<FileDraft>] = &[
    name("vrrp_sync_group"),
    name("vrrp_script"),
    name("track_file"),
    name("vrrp_track_file"),
    name("track_process"),
    name("vrrp_track_process"),
    name("bfd_instance"),
    name("static_ipaddress"),
    name("static_routes"),
    name("static_rules"),
    name("track_group"),
    name("garp_group"),
    name("SSL"),
    name("net_namespace"),
    name("net_namespace_ipvs"),
    name("namespace_with_ipsets"),
    name("child_wait_time"),
    name("instance"),
    name("use_pid_dir"),
    name("linkbeat_use_polling"),
    name("linkbeat_interfaces"),
    name("interface_up_down_delays"),
];

impl FileDraft {
    /// Two instances with the same address on the same interface would take it from each other.
    fn conflicting_addresses(&self, drafts: &mut Drafts) {
        let mut owners: HashMap<(IpAddr, String), usize> = HashMap::new();
        for (index, instance) in self.instances.iter().enumerate() {
            for (place, span) in instance.places() {
                let owner = *owners.entry(place.clone()).or_insert(index);
                if owner == index {
                    continue;
                }
                let (addr, dev) = (place.0, quoted(&place.1));
                let first = quoted(&self.instances[owner].name);
                let message = format!("{addr} on {dev} belongs to vrrp_instance {first} already");
                drafts.push(Draft::error(span, message));
            }
        }
    }

    /// The rules between blocks, then those within them.
    fn finish(mut self, drafts: &mut Drafts) -> Config {
        self.conflicting_addresses(drafts);
        let mut names = HashSet::new();
        let mut routers: HashMap<(String, u8), &str> = HashMap::new();
        for instance in &self.instances {
            if !instance.name.is_empty() && !names.insert(&instance.name) {
                let message = format!("a second vrrp_instance {}", quoted(&instance.name));
                drafts.push(Draft::error(instance.span(), message));
            }
            let Some((interface, vrid, span)) = instance.identity() else {
                continue;
            };
            let router = (interface.to_owned(), vrid);
            if let Some(first) = routers.insert(router, &instance.name) {
                let (first, second) = (quoted(first), quoted(&instance.name));
                let interface = quoted(interface);
                let message = format!("{first} and {second} both use VRID {vrid} on {interface}");
                drafts.push(Draft::error(span, message));
            }
        }
        let inherited = &self.global.inherited;
        let finish = |instance: InstanceDraft| instance.finish(inherited, drafts);
        let vrrp_instances = self.instances.into_iter().map(finish).collect();
        let mut around = Surroundings {
            groups: &mut self.groups,
            marked: &self.settings.marked(),
        };
        let mut servers = Vec::new();
        for server in self.servers {
            let span = server.span();
            let server = server.finish(&mut around, drafts);
            servers.extend(server.map(|server| (span, server)));
        }
        self.groups.unused(drafts);
        overlap::conflicts(&servers, drafts);
        let mut virtual_servers: Vec<_> = servers.into_iter().map(|(_, server)| server).collect();
        let matches = virtual_servers.iter().flat_map(|server| &server.matches);
        let taken = matches.filter_map(|one| match *one {
            Match::Mark { mark, family } => Some((mark, family)),
            Match::Address(_) | Match::Range { .. } | Match::Prefix { .. } => None,
        });
        let taken = taken.collect();
        let lvs_timeouts = &self.global.timeouts;
        let (settings, timeouts) = self.settings.finish(&taken, lvs_timeouts, drafts);
        for server in &mut virtual_servers {
            if let Scheduler::Mh { size, .. } = &mut server.lb_algo {
                *size = settings.maglev_table_size;
            }
        }
        Config {
            global: self.global.global,
            vrrp_instances,
            virtual_servers,
            timeouts,
            settings,
        }
    }
}
