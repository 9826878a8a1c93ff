//! What stands outside of every block, and the rules that hold between blocks.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use super::{
    diagnostic::{Draft, Drafts},
    global::GlobalDraft,
    group::{Group, Groups},
    keyword::{
        APPLIED, IRRELEVANT, Keyword, REFUSED, Table, UNAPPLIED, block, known, word,
        word_with_block,
    },
    model::{Config, Match, Ssl},
    overlap,
    server::{ServerDraft, Surroundings},
    settings::SettingsDraft,
    source::quoted,
    ssl,
    vrrp::InstanceDraft,
};
use crate::lvs::Scheduler;

/// A whole file while it is read.
#[derive(Debug, Default)]
pub(super) struct FileDraft {
    global: GlobalDraft,
    instances: Vec<InstanceDraft>,
    groups: Groups,
    servers: Vec<ServerDraft>,
    ssl: Option<Ssl>,
    settings: SettingsDraft,
}

pub(super) static TABLE: Table<FileDraft> = Table {
    block: "",
    keywords: &[KEYWORDS, KNOWN],
};

static KEYWORDS: &[Keyword<FileDraft>] = &[
    block(
        "global_defs",
        APPLIED,
        "what holds for the whole program, and what instances inherit",
    )
    .top_only()
    .read(|draft, stmt, drafts| {
        draft.global.read(stmt, drafts);
    }),
    block(
        "vrrp_instance",
        APPLIED,
        "a virtual router: its interface, VRID, priority and addresses",
    )
    .top_only()
    .read(|draft, stmt, drafts| {
        draft.instances.push(InstanceDraft::read(stmt, drafts));
    }),
    block(
        "virtual_server",
        APPLIED,
        "an address, mark or group whose connections are balanced over real servers",
    )
    .top_only()
    .read(|draft, stmt, drafts| {
        draft.servers.extend(ServerDraft::read(stmt, drafts));
    }),
    block(
        "virtual_server_group",
        APPLIED,
        "addresses, ranges, networks and marks that are one virtual server",
    )
    .top_only()
    .read(|draft, stmt, drafts| {
        if let Some(group) = Group::read(stmt, drafts) {
            draft.groups.add(group, drafts);
        }
    }),
    block(
        "SSL",
        UNAPPLIED,
        "keys and certificates for checks over TLS",
    )
    .only_here()
    .read(|draft, stmt, drafts| {
        if draft.ssl.is_some() {
            let message = "`SSL` is given again; the last one counts";
            drafts.push(Draft::warning(stmt.keyword.span, message));
        }
        draft.ssl = Some(ssl::read(stmt, drafts));
    }),
    block("xvs", APPLIED, "settings that keepalived has no word for")
        .only_here()
        .read(|draft, stmt, drafts| {
            draft.settings.read(stmt, drafts);
        }),
];

/// Keywords that the model has no place for.
static KNOWN: &[Keyword<FileDraft>] = &[
    word_with_block(
        "vrrp_sync_group",
        REFUSED,
        "instances that change state together",
    )
    .top_only()
    .unread(),
    word_with_block(
        "vrrp_script",
        UNAPPLIED,
        "a script whose result changes the priority of instances",
    )
    .top_only()
    .unread(),
    known(
        "track_file",
        UNAPPLIED,
        "a file whose number changes priorities or weights",
    ),
    known("vrrp_track_file", UNAPPLIED, "an older name of track_file"),
    known(
        "track_process",
        UNAPPLIED,
        "processes whose absence changes the priority of instances",
    ),
    known(
        "vrrp_track_process",
        UNAPPLIED,
        "an older name of track_process",
    ),
    known(
        "bfd_instance",
        UNAPPLIED,
        "a BFD session to watch a neighbour with",
    ),
    word(
        "static_ipaddress",
        REFUSED,
        "addresses that are always there",
    )
    .top_only()
    .unread(),
    word("static_routes", REFUSED, "routes that are always there")
        .top_only()
        .unread(),
    word(
        "static_rules",
        REFUSED,
        "routing rules that are always there",
    )
    .top_only()
    .unread(),
    known(
        "track_group",
        UNAPPLIED,
        "instances that share what they track",
    ),
    known(
        "garp_group",
        UNAPPLIED,
        "interfaces that share the pacing of gratuitous ARP",
    ),
    known("net_namespace", REFUSED, "the network namespace to run in"),
    known(
        "net_namespace_ipvs",
        IRRELEVANT,
        "the network namespace of IPVS's table",
    ),
    known(
        "namespace_with_ipsets",
        IRRELEVANT,
        "whether ipsets are used within a network namespace",
    ),
    known(
        "child_wait_time",
        UNAPPLIED,
        "how long a stop waits for child processes",
    ),
    known(
        "instance",
        UNAPPLIED,
        "a name for this process among several",
    ),
    known(
        "use_pid_dir",
        UNAPPLIED,
        "whether files with process ids are in a folder of their own",
    ),
    known(
        "linkbeat_use_polling",
        IRRELEVANT,
        "whether links are polled instead of watched",
    ),
    known(
        "linkbeat_interfaces",
        IRRELEVANT,
        "interfaces whose links are polled",
    ),
    known(
        "interface_up_down_delays",
        UNAPPLIED,
        "how long an interface must be up or down before it counts",
    ),
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
    pub(super) fn finish(mut self, drafts: &mut Drafts) -> Config {
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
        overlap::conflicts(&mut servers, drafts);
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
            ssl: self.ssl.unwrap_or_default(),
            timeouts,
            settings,
        }
    }
}
