//! What stands outside of every block, and the rules that hold between blocks.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use super::{
    address::{self, Entry},
    bfd, defaults,
    diagnostic::{Draft, Drafts},
    global::GlobalDraft,
    group::{Group, Groups},
    host,
    keyword::{
        APPLIED, BY_VALUE, Given, Keyword, NO_IPVS, ONE_PROCESS, REFUSED, Table, UNAPPLIED, Value,
        block, line, plain_keywords,
    },
    lint,
    model::{
        BfdInstance, Config, GarpGroup, Linkbeat, Match, Process, Route, Ssl, TrackFile,
        TrackGroup, TrackProcess, UpDownDelay, VrrpScript,
    },
    overlap,
    read::At,
    routes::{self, RuleDraft},
    server::{ServerDraft, Surroundings},
    settings::SettingsDraft,
    source::quoted,
    ssl,
    support::{Support, judge_missing},
    sync_group::{self, SyncGroupDraft},
    tracking::{self, Defined, Named, Watchable},
    tree::Stmt,
    unique::Unique,
    vrrp::{InstanceDraft, Neighbours},
};
use crate::{addr::Family, lvs::Scheduler};

/// A whole file while it is read.
#[derive(Debug, Default)]
pub(super) struct FileDraft {
    global: GlobalDraft,
    instances: Vec<InstanceDraft>,
    groups: Groups,
    servers: Vec<ServerDraft>,
    ssl: Option<Ssl>,
    settings: SettingsDraft,
    process: Process,
    static_addresses: Vec<Entry>,
    static_routes: Vec<Route>,
    static_rules: Vec<RuleDraft>,
    track_groups: Unique<At<TrackGroup>>,
    sync_groups: Unique<SyncGroupDraft>,
    scripts: Unique<Named<VrrpScript>>,
    track_files: Unique<Named<TrackFile>>,
    track_processes: Unique<Named<TrackProcess>>,
    bfd_instances: Unique<Named<BfdInstance>>,
    garp_groups: Vec<GarpGroup>,
    up_down_delays: Unique<At<UpDownDelay>>,
    linkbeats: Vec<Linkbeat>,
}

pub(super) static TABLE: Table<FileDraft> = Table {
    block: "",
    keywords: &[KEYWORDS, SHARED, PROCESS],
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

const LINKS_ARE_TOLD: Support =
    Support::Irrelevant("the kernel tells of every change of a link at once");

fn add_file(draft: &mut FileDraft, stmt: &Given<'_>, drafts: &mut Drafts) {
    let new = tracking::file(stmt, drafts);
    let list = &mut draft.track_files;
    add(list, new, |file| &file.value.name, stmt, drafts);
}

fn add_process(draft: &mut FileDraft, stmt: &Given<'_>, drafts: &mut Drafts) {
    let new = tracking::process(stmt, drafts);
    let list = &mut draft.track_processes;
    add(list, new, |process| &process.value.name, stmt, drafts);
}

/// Adds the block of `stmt`, unless there is one of its name.
fn add<T>(
    list: &mut Unique<T>,
    new: Option<T>,
    name: fn(&T) -> &str,
    stmt: &Stmt,
    drafts: &mut Drafts,
) {
    let Some(new) = new else { return };
    let name = name(&new).to_owned();
    if !list.insert(&name, new) {
        let message = format!(
            "a second {} {} is ignored",
            stmt.keyword.text,
            quoted(&name)
        );
        drafts.push(Draft::warning(stmt.keyword.span, message));
    }
}

fn values<T>(list: Unique<At<T>>) -> Vec<T> {
    list.list.into_iter().map(At::into_value).collect()
}

/// Says that a list is not applied, where it has an entry.
fn refuse(filled: bool, missing: &str, stmt: &Stmt, drafts: &mut Drafts) {
    if filled {
        let what = quoted(&stmt.keyword.text);
        judge_missing(REFUSED, &what, missing, stmt.keyword.span, drafts);
    }
}

/// What instances watch, what belongs together, and what is always there.
static SHARED: &[Keyword<FileDraft>] = &[
    block(
        "vrrp_sync_group",
        BY_VALUE,
        "instances that change state together",
    )
    .top_only()
    .read(|draft, stmt, drafts| {
        let new = SyncGroupDraft::read(stmt, drafts);
        let list = &mut draft.sync_groups;
        add(list, new, |group| &group.name, stmt, drafts);
    }),
    block(
        "vrrp_script",
        UNAPPLIED,
        "a script whose result bears on instances",
    )
    .top_only()
    .read(|draft, stmt, drafts| {
        let new = tracking::script(stmt, drafts);
        let list = &mut draft.scripts;
        add(list, new, |script| &script.value.name, stmt, drafts);
    }),
    block(
        "track_file",
        UNAPPLIED,
        "a file whose number bears on instances and real servers",
    )
    .only_here()
    .read(add_file),
    block(
        "vrrp_track_file",
        UNAPPLIED,
        "a file whose number bears on instances",
    )
    .top_only()
    .old_name_of("track_file")
    .read(add_file),
    block(
        "vrrp_track_process",
        UNAPPLIED,
        "processes whose absence bears on instances",
    )
    .top_only()
    .read(add_process),
    block(
        "track_process",
        UNAPPLIED,
        "processes whose absence bears on instances, as vrrp_track_process",
    )
    .only_here()
    .read(add_process),
    block(
        "bfd_instance",
        UNAPPLIED,
        "a BFD session to watch a neighbour with",
    )
    .top_only()
    .read(|draft, stmt, drafts| {
        let new = bfd::read(stmt, drafts);
        let list = &mut draft.bfd_instances;
        add(list, new, |bfd| &bfd.value.name, stmt, drafts);
    }),
    block(
        "static_ipaddress",
        BY_VALUE,
        "addresses that are always there, one a line",
    )
    .top_only()
    .read(|draft, stmt, drafts| {
        address::entries(&mut draft.static_addresses, stmt, drafts);
        let filled = !draft.static_addresses.is_empty();
        refuse(
            filled,
            "the addresses are not put on their interfaces",
            stmt,
            drafts,
        );
    }),
    block(
        "static_routes",
        BY_VALUE,
        "routes that are always there, one a line",
    )
    .top_only()
    .read(|draft, stmt, drafts| {
        routes::routes(&mut draft.static_routes, stmt, drafts);
        refuse(
            !draft.static_routes.is_empty(),
            "the routes are not made",
            stmt,
            drafts,
        );
    }),
    block(
        "static_rules",
        BY_VALUE,
        "routing rules that are always there, one a line",
    )
    .top_only()
    .read(|draft, stmt, drafts| {
        routes::rules(&mut draft.static_rules, stmt, drafts);
        refuse(
            !draft.static_rules.is_empty(),
            "the rules are not made",
            stmt,
            drafts,
        );
    }),
    block(
        "track_group",
        UNAPPLIED,
        "instances that the loss of static addresses, routes and rules bears on",
    )
    .only_here()
    .read(|draft, stmt, drafts| {
        let new = sync_group::track_group(stmt, drafts);
        let list = &mut draft.track_groups;
        add(list, new, |group| &group.value.name, stmt, drafts);
    }),
    block(
        "garp_group",
        UNAPPLIED,
        "interfaces that share the pacing of gratuitous ARP",
    )
    .top_only()
    .read(|draft, stmt, drafts| draft.garp_groups.extend(host::garp_group(stmt, drafts))),
    block(
        "interface_up_down_delays",
        UNAPPLIED,
        "how long interfaces must be down or up before it counts: INTERFACE DOWN [UP], one a line",
    )
    .top_only()
    .read(|draft, stmt, drafts| host::up_down_delays(&mut draft.up_down_delays, stmt, drafts)),
    block(
        "linkbeat_interfaces",
        LINKS_ARE_TOLD,
        "interfaces whose links are polled: INTERFACE [MII|ETHTOOL|IOCTL], one a line",
    )
    .top_only()
    .read(|draft, stmt, drafts| host::linkbeats(&mut draft.linkbeats, stmt, drafts)),
];

plain_keywords! { static PROCESS: FileDraft [process];
    "net_namespace": APPLIED, "the network namespace to run in", file_name(defaults::NAME_BYTES) => net_namespace;
    "net_namespace_ipvs": NO_IPVS, "the network namespace of IPVS's table", names(1) => net_namespace_ipvs;
    "namespace_with_ipsets": NO_IPVS, "ipsets are used within a network namespace, too", flag() => namespace_with_ipsets;
    "child_wait_time": ONE_PROCESS, "seconds that a stop waits for child processes", number(&defaults::U32), default(Value::Number(5)) => child_wait_time;
    "instance": APPLIED, "a name for this process among several, in the log and in the names of its files", file_name(defaults::NAME_BYTES) => instance;
    "use_pid_dir": APPLIED, "files with process ids are in /run/keepalived", flag() => use_pid_dir;
    "linkbeat_use_polling": LINKS_ARE_TOLD, "links are polled instead of watched", flag() => linkbeat_use_polling;
}

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

    /// Drops instances whose name is taken.
    fn drop_namesakes(&mut self, drafts: &mut Drafts) {
        let mut names = HashSet::new();
        self.instances.retain(|instance| {
            let new = instance.name.is_empty() || names.insert(instance.name.clone());
            if !new {
                let message = format!(
                    "a second vrrp_instance {} is ignored",
                    quoted(&instance.name)
                );
                drafts.push(Draft::warning(instance.span(), message));
            }
            new
        });
    }

    /// Two instances that are one router on the network.
    fn conflicting_routers(&self, drafts: &mut Drafts) {
        let mut routers: HashMap<(String, u8, Family), &str> = HashMap::new();
        for instance in &self.instances {
            let Some((interface, vrid, span)) = instance.identity() else {
                continue;
            };
            let family = instance.family().unwrap_or(Family::V4);
            let router = (interface.to_owned(), vrid, family);
            if let Some(first) = routers.insert(router, &instance.name) {
                let (first, second) = (quoted(first), quoted(&instance.name));
                let interface = quoted(interface);
                let message = format!("{first} and {second} both use VRID {vrid} on {interface}");
                drafts.push(Draft::error(span, message));
            }
        }
    }

    /// What instances and groups can watch.
    fn watchable(&self) -> Watchable {
        let scripts = self.scripts.list.iter().map(|one| &one.value);
        let files = self.track_files.list.iter().map(|one| &one.value);
        let processes = self.track_processes.list.iter().map(|one| &one.value);
        let bfds = self.bfd_instances.list.iter().map(|one| &one.value);
        Watchable {
            scripts: Defined::new(scripts.map(|one| (one.name.as_str(), one.weight, one.reverse))),
            files: Defined::new(files.map(|one| (one.name.as_str(), one.weight, one.reverse))),
            processes: Defined::new(
                processes.map(|one| (one.name.as_str(), one.weight, one.reverse)),
            ),
            bfds: Defined::new(bfds.map(|one| (one.name.as_str(), one.weight, one.reverse))),
        }
    }

    /// The rules between blocks, then those within them.
    pub(super) fn finish(mut self, drafts: &mut Drafts) -> Config {
        self.drop_namesakes(drafts);
        self.conflicting_addresses(drafts);
        self.conflicting_routers(drafts);
        let rules = self
            .instances
            .iter_mut()
            .flat_map(|instance| &mut instance.rules);
        routes::give_places(rules.chain(&mut self.static_rules), drafts);
        let watchable = self.watchable();
        let global = &self.global.global;
        let smtp_alert = global.alerts.vrrp.or(global.alerts.smtp_alert);
        let names: HashSet<&str> = self
            .instances
            .iter()
            .map(|instance| instance.name.as_str())
            .collect();
        // Of each member of a group, whether weights count.
        let mut members = HashMap::new();
        for group in &mut self.sync_groups.list {
            group.claim(&names, &mut members, drafts);
        }
        let groups = self.sync_groups.list.into_iter();
        let sync_groups: Vec<_> = groups
            .filter_map(|group| group.finish(&watchable, smtp_alert, drafts))
            .collect();
        let finish = |instance: InstanceDraft| {
            let around = Neighbours {
                inherited: &self.global.inherited,
                smtp_alert,
                watchable: &watchable,
                weightless: members.get(&instance.name).is_some_and(|weights| !weights),
            };
            let span = instance.span();
            (span, instance.finish(around, drafts))
        };
        let instances: Vec<_> = self.instances.into_iter().map(finish).collect();
        lint::unused(&self.scripts.list, &instances, &sync_groups, drafts);
        lint::weights(&instances, drafts);
        host::shorten_delays(&mut self.up_down_delays.list, &instances, drafts);
        let vrrp_instances = instances
            .into_iter()
            .map(|(_, instance)| instance)
            .collect();
        let mut around = Surroundings {
            groups: &mut self.groups,
            marked: &self.settings.marked(),
            watchable: &watchable,
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
        let default_interface = self.global.global.vrrp.default_interface.clone();
        let default_interface = default_interface.as_deref().unwrap_or("eth0");
        Config {
            global: self.global.global,
            process: self.process,
            static_addresses: (self.static_addresses.into_iter())
                .map(|entry| entry.resolve(default_interface))
                .collect(),
            static_routes: self.static_routes,
            static_rules: self
                .static_rules
                .into_iter()
                .map(RuleDraft::finish)
                .collect(),
            track_groups: values(self.track_groups),
            scripts: values(self.scripts),
            track_files: values(self.track_files),
            track_processes: values(self.track_processes),
            bfd_instances: values(self.bfd_instances),
            garp_groups: self.garp_groups,
            up_down_delays: values(self.up_down_delays),
            linkbeats: self.linkbeats,
            sync_groups,
            vrrp_instances,
            virtual_servers,
            ssl: self.ssl.unwrap_or_default(),
            timeouts,
            settings,
        }
    }
}
