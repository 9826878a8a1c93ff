//! What a reload changes: the differences between two configurations, each by its name.
//!
//! What stands in another order, under another name of a group or in other words is the same: a virtual
//! server is known by what it takes, a real server by its endpoint within it, a VRRP instance by its
//! interface and VRID.

mod keywords;

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use self::keywords::Keywords;
use super::model::{
    Config, Global, Match, Plain, RealServer, Settings, Timeout, Transport, VirtualServer,
    VrrpInstance,
};
use crate::addr::{Endpoint, Family, L4Proto};

/// One difference. Displayed as a line for the log: `virtual server [10.0.0.148]:tcp:80 is new`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A `vrrp_instance` that was not there.
    InstanceAdded {
        /// Its name.
        name: String,
    },
    /// A `vrrp_instance` that is there no more.
    InstanceRemoved {
        /// Its name.
        name: String,
    },
    /// A `vrrp_instance` with other keywords.
    InstanceChanged {
        /// Its name.
        name: String,
        /// What is another value, at least one.
        what: Vec<Keyword>,
    },
    /// A `virtual_server` that was not there.
    ServerAdded {
        /// Its place in the new configuration.
        new: usize,
        /// Its name.
        name: String,
    },
    /// A `virtual_server` that is there no more.
    ServerRemoved {
        /// Its place in the old configuration.
        old: usize,
        /// Its name.
        name: String,
    },
    /// A `virtual_server` with other keywords or real servers.
    ServerChanged {
        /// Its place in the old configuration.
        old: usize,
        /// Its place in the new configuration.
        new: usize,
        /// Its name.
        name: String,
        /// What is different, at least one.
        what: Vec<ServerChange>,
    },
    /// Another value in `global_defs` or `xvs`.
    Setting {
        /// What is another value.
        what: Keyword,
        /// Whether a running daemon takes it over; otherwise it needs a restart.
        live: bool,
    },
}

/// What is different about a virtual server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerChange {
    /// Another value.
    Keyword(Keyword),
    /// It takes these packets, too.
    MatchAdded(Match),
    /// It takes these packets no more.
    MatchRemoved(Match),
    /// A real server that was not there.
    RealAdded(Endpoint),
    /// A real server that is there no more.
    RealRemoved(Endpoint),
    /// A real server with other keywords.
    RealChanged(Endpoint, Vec<Keyword>),
}

/// A keyword with another value. Displayed as `weight 3 (was 1)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyword {
    /// The keyword.
    pub name: &'static str,
    /// The value as it was and as it is, where it can be said in a few words.
    pub values: Option<(String, String)>,
}

impl fmt::Display for Keyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.values {
            Some((from, to)) => write!(f, "{} {to} (was {from})", self.name),
            None => write!(f, "{} changed", self.name),
        }
    }
}

impl fmt::Display for ServerChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keyword(keyword) => keyword.fmt(f),
            Self::MatchAdded(what) => write!(f, "{what} is new"),
            Self::MatchRemoved(what) => write!(f, "{what} is removed"),
            Self::RealAdded(endpoint) => write!(f, "real server {endpoint} is new"),
            Self::RealRemoved(endpoint) => write!(f, "real server {endpoint} is removed"),
            Self::RealChanged(endpoint, what) => {
                write!(f, "real server {endpoint}: {}", List(what))
            }
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InstanceAdded { name } => write!(f, "vrrp_instance {name} is new"),
            Self::InstanceRemoved { name } => write!(f, "vrrp_instance {name} is removed"),
            Self::InstanceChanged { name, what } => {
                write!(f, "vrrp_instance {name}: {}", List(what))
            }
            Self::ServerAdded { name, .. } => write!(f, "virtual server {name} is new"),
            Self::ServerRemoved { name, .. } => write!(f, "virtual server {name} is removed"),
            Self::ServerChanged { name, what, .. } => {
                write!(f, "virtual server {name}: {}", List(what))
            }
            Self::Setting { what, live: true } => what.fmt(f),
            Self::Setting { what, live: false } => write!(f, "{what}: from the next start on"),
        }
    }
}

/// Several, after one another.
struct List<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, one) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            one.fmt(f)?;
        }
        Ok(())
    }
}

/// The differences between two configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// In this order: settings, VRRP instances, virtual servers, of each what is removed, then what is changed
    /// or new in the order of the file.
    pub changes: Vec<Change>,
    /// For each virtual server of the new configuration its place in the old one: that of the one with which
    /// it has most in common of what both take. None is the successor of two, or has two.
    pub former: Vec<Option<usize>>,
}

/// What is different in `new`.
pub fn diff(old: &Config, new: &Config) -> Diff {
    let mut changes = settings(old, new);
    instances(old, new, &mut changes);
    let former = successors(old, new);
    servers((old, new), &former, &mut changes);
    Diff { changes, former }
}

/// Keywords of `global_defs` that only a start looks at.
const AT_START: [&str; 3] = ["umask", "startup_script", "startup_script_timeout"];

fn settings(old: &Config, new: &Config) -> Vec<Change> {
    let (mut live, mut start) = (Keywords::default(), Keywords::default());
    let Config {
        global,
        process,
        static_addresses,
        static_routes,
        static_rules,
        track_groups,
        scripts,
        track_files,
        track_processes,
        bfd_instances,
        garp_groups,
        up_down_delays,
        linkbeats,
        sync_groups,
        vrrp_instances: _,
        virtual_servers: _,
        ssl,
        timeouts,
        settings,
    } = old;
    start.plain_values(process.plain().into_iter(), new.process.plain().into_iter());
    live.ssl(ssl, &new.ssl);
    for state in Timeout::ALL {
        live.time(
            state.name(),
            (timeouts.get(*state), new.timeouts.get(*state)),
        );
    }
    live.other(
        "static_ipaddress",
        (static_addresses, &new.static_addresses),
    );
    live.other("static_routes", (static_routes, &new.static_routes));
    live.other("static_rules", (static_rules, &new.static_rules));
    live.other("track_group", (track_groups, &new.track_groups));
    live.other("vrrp_script", (scripts, &new.scripts));
    live.other("track_file", (track_files, &new.track_files));
    live.other(
        "vrrp_track_process",
        (track_processes, &new.track_processes),
    );
    live.other("bfd_instance", (bfd_instances, &new.bfd_instances));
    live.other("garp_group", (garp_groups, &new.garp_groups));
    live.other(
        "interface_up_down_delays",
        (up_down_delays, &new.up_down_delays),
    );
    live.other("linkbeat_interfaces", (linkbeats, &new.linkbeats));
    live.other("vrrp_sync_group", (sync_groups, &new.sync_groups));
    let Global {
        router_id,
        mail,
        vrrp_startup_delay,
        vrrp_garp_interval,
        vrrp_gna_interval,
        dynamic_interfaces,
        lvs_sync_daemon,
        alerts: _,
        vrrp: _,
        scripts: _,
        files: _,
        processes: _,
        host: _,
    } = global;
    let to = &new.global;
    let at_start = |value: &(&str, Option<Plain<'_>>)| AT_START.contains(&value.0);
    start.plain_values(global.plain().filter(at_start), to.plain().filter(at_start));
    let at_once = |value: &(&str, Option<Plain<'_>>)| !at_start(value);
    live.plain_values(global.plain().filter(at_once), to.plain().filter(at_once));
    live.time(
        "vrrp_gna_interval",
        (*vrrp_gna_interval, to.vrrp_gna_interval),
    );
    live.other("lvs_sync_daemon", (lvs_sync_daemon, &to.lvs_sync_daemon));
    live.other("router_id", (router_id, &to.router_id));
    live.mail(mail, &to.mail);
    live.time(
        "vrrp_garp_interval",
        (*vrrp_garp_interval, to.vrrp_garp_interval),
    );
    live.flag(
        "dynamic_interfaces",
        (*dynamic_interfaces, to.dynamic_interfaces),
    );
    start.time(
        "vrrp_startup_delay",
        (*vrrp_startup_delay, to.vrrp_startup_delay),
    );
    let Settings {
        marks,
        ipvs,
        reset_on_failure,
        cut_removed,
        udp_move,
        tunnel_source,
        maglev_table_size,
        workers,
        cpus,
        busy_poll,
        spin,
        fast_path,
    } = settings;
    let to = &new.settings;
    live.other("mark", (marks, &to.marks));
    live.ipvs(ipvs, &to.ipvs);
    live.flag("reset_on_failure", (*reset_on_failure, to.reset_on_failure));
    live.flag("cut_removed", (*cut_removed, to.cut_removed));
    live.flag("udp_move", (*udp_move, to.udp_move));
    live.other("tunnel_source", (tunnel_source, &to.tunnel_source));
    live.plain(
        "maglev_table_size",
        (maglev_table_size, &to.maglev_table_size),
    );
    start.other("workers", (workers, &to.workers));
    start.other("cpus", (cpus, &to.cpus));
    start.flag("busy_poll", (*busy_poll, to.busy_poll));
    start.other("spin_us", (spin, &to.spin));
    start.other("fast_path", (fast_path, &to.fast_path));
    let setting = |live| move |what| Change::Setting { what, live };
    let live = live.0.into_iter().map(setting(true));
    live.chain(start.0.into_iter().map(setting(false)))
        .collect()
}

fn instances(old: &Config, new: &Config, changes: &mut Vec<Change>) {
    let identity = |instance: &VrrpInstance| {
        let first = instance.virtual_ipaddress.first();
        let family = first.map_or(Family::V4, |address| Family::of(address.prefix.addr()));
        (
            instance.interface.clone(),
            instance.virtual_router_id,
            family,
        )
    };
    let mut known: HashMap<_, _> = old
        .vrrp_instances
        .iter()
        .map(|instance| (identity(instance), instance))
        .collect();
    let mut later = Vec::new();
    for instance in &new.vrrp_instances {
        let name = instance.name.clone();
        match known.remove(&identity(instance)) {
            None => later.push(Change::InstanceAdded { name }),
            Some(former) => {
                let what = instance_keywords(former, instance);
                if !what.is_empty() {
                    later.push(Change::InstanceChanged { name, what });
                }
            }
        }
    }
    let gone = old.vrrp_instances.iter();
    let gone = gone.filter(|instance| known.contains_key(&identity(instance)));
    changes.extend(gone.map(|instance| Change::InstanceRemoved {
        name: instance.name.clone(),
    }));
    changes.append(&mut later);
}

fn instance_keywords(old: &VrrpInstance, new: &VrrpInstance) -> Vec<Keyword> {
    let VrrpInstance {
        name,
        initial_state,
        interface: _,
        virtual_router_id: _,
        priority,
        version,
        advert_int,
        preempt,
        preempt_delay,
        authentication,
        source,
        transport,
        virtual_ipaddress,
        virtual_ipaddress_excluded,
        garp,
        track_interface,
        dont_track_primary,
        skip_check_adv_addr,
        down_timer_adverts,
        lower_prio_no_advert,
        higher_prio_send_advert,
        notify,
        strict_mode,
        accept,
        no_virtual_ipaddress,
        auth_hmac,
        use_vmac,
        trackers,
        virtual_routes,
        virtual_rules,
        further,
    } = old;
    let mut what = Keywords::default();
    what.plain("vrrp_instance", (name, &new.name));
    what.other("state", (initial_state, &new.initial_state));
    what.plain("priority", (priority, &new.priority));
    what.other("version", (version, &new.version));
    what.time("advert_int", (*advert_int, new.advert_int));
    what.flag("preempt", (*preempt, new.preempt));
    what.time("preempt_delay", (*preempt_delay, new.preempt_delay));
    what.authentication(authentication.as_ref(), new.authentication.as_ref());
    let source_of = match new.transport {
        Transport::Unicast { .. } => "unicast_src_ip",
        Transport::Multicast { .. } => "mcast_src_ip",
    };
    what.other(source_of, (source, &new.source));
    what.transport(transport, &new.transport);
    what.other(
        "virtual_ipaddress",
        (virtual_ipaddress, &new.virtual_ipaddress),
    );
    what.other(
        "virtual_ipaddress_excluded",
        (virtual_ipaddress_excluded, &new.virtual_ipaddress_excluded),
    );
    what.garp(garp, &new.garp);
    what.other("track_interface", (track_interface, &new.track_interface));
    what.flag(
        "dont_track_primary",
        (*dont_track_primary, new.dont_track_primary),
    );
    what.flag(
        "skip_check_adv_addr",
        (*skip_check_adv_addr, new.skip_check_adv_addr),
    );
    what.plain(
        "down_timer_adverts",
        (down_timer_adverts, &new.down_timer_adverts),
    );
    what.flag(
        "lower_prio_no_advert",
        (*lower_prio_no_advert, new.lower_prio_no_advert),
    );
    what.flag(
        "higher_prio_send_advert",
        (*higher_prio_send_advert, new.higher_prio_send_advert),
    );
    what.scripts(notify, &new.notify);
    what.flag("strict_mode", (*strict_mode, new.strict_mode));
    what.flag("accept", (*accept, new.accept));
    what.flag(
        "no_virtual_ipaddress",
        (*no_virtual_ipaddress, new.no_virtual_ipaddress),
    );
    what.other("auth_hmac", (auth_hmac, &new.auth_hmac));
    what.other("use_vmac", (use_vmac, &new.use_vmac));
    for ((keyword, was), (_, is)) in trackers.lists().into_iter().zip(new.trackers.lists()) {
        what.other(keyword, (&was, &is));
    }
    what.other("virtual_routes", (virtual_routes, &new.virtual_routes));
    what.other("virtual_rules", (virtual_rules, &new.virtual_rules));
    what.plain_values(further.plain().into_iter(), new.further.plain().into_iter());
    what.0
}

/// What a virtual server takes, as its identity.
type Taken = (Option<L4Proto>, Match);

fn taken(server: &VirtualServer) -> impl Iterator<Item = Taken> + '_ {
    server.matches.iter().map(|one| {
        // A mark is of any protocol.
        let protocol = one.port().map(|_| server.protocol);
        (protocol, *one)
    })
}

/// [`Diff::former`].
fn successors(old: &Config, new: &Config) -> Vec<Option<usize>> {
    let numbered = old.virtual_servers.iter().enumerate();
    let owners: HashMap<Taken, usize> = numbered
        .flat_map(|(at, server)| taken(server).map(move |what| (what, at)))
        .collect();
    let mut pairs = Vec::new();
    for (at, server) in new.virtual_servers.iter().enumerate() {
        let mut shared: HashMap<usize, usize> = HashMap::new();
        for owner in taken(server).filter_map(|what| owners.get(&what)) {
            *shared.entry(*owner).or_default() += 1;
        }
        pairs.extend(shared.into_iter().map(|(owner, count)| (count, owner, at)));
    }
    pairs.sort_unstable_by_key(|(count, owner, at)| (usize::MAX - count, *owner, *at));
    let mut found = vec![None; new.virtual_servers.len()];
    let mut succeeded = vec![false; old.virtual_servers.len()];
    for (_, owner, at) in pairs {
        if found[at].is_none() && !succeeded[owner] {
            found[at] = Some(owner);
            succeeded[owner] = true;
        }
    }
    found
}

fn servers((old, new): (&Config, &Config), former: &[Option<usize>], changes: &mut Vec<Change>) {
    let mut succeeded = vec![false; old.virtual_servers.len()];
    former.iter().flatten().for_each(|at| succeeded[*at] = true);
    let gone = old.virtual_servers.iter().enumerate();
    let gone = gone.filter(|(at, _)| !succeeded[*at]);
    changes.extend(gone.map(|(at, server)| Change::ServerRemoved {
        old: at,
        name: server.name(),
    }));
    for (at, (server, former)) in new.virtual_servers.iter().zip(former).enumerate() {
        let Some(former) = *former else {
            let name = server.name();
            changes.push(Change::ServerAdded { new: at, name });
            continue;
        };
        let what = server_changes(&old.virtual_servers[former], server);
        if !what.is_empty() {
            changes.push(Change::ServerChanged {
                old: former,
                new: at,
                name: server.name(),
                what,
            });
        }
    }
}

fn server_changes(old: &VirtualServer, new: &VirtualServer) -> Vec<ServerChange> {
    // Most are the same in the same order, and there may be thousands.
    if old == new {
        return Vec::new();
    }
    let keywords = server_keywords(old, new).into_iter();
    let mut changes: Vec<_> = keywords.map(ServerChange::Keyword).collect();
    let missing = |from: &VirtualServer, to: &VirtualServer| -> Vec<Match> {
        let kept: HashSet<&Match> = to.matches.iter().collect();
        let all = from.matches.iter().copied();
        all.filter(|one| !kept.contains(one)).collect()
    };
    let (removed, added) = (missing(old, new), missing(new, old));
    changes.extend(removed.into_iter().map(ServerChange::MatchRemoved));
    changes.extend(added.into_iter().map(ServerChange::MatchAdded));
    let reals = old.real_servers.iter();
    let mut known: HashMap<Endpoint, &RealServer> =
        reals.map(|real| (real.endpoint, real)).collect();
    let mut later = Vec::new();
    for real in &new.real_servers {
        match known.remove(&real.endpoint) {
            None => later.push(ServerChange::RealAdded(real.endpoint)),
            Some(former) => {
                let what = real_keywords(former, real);
                if !what.is_empty() {
                    later.push(ServerChange::RealChanged(real.endpoint, what));
                }
            }
        }
    }
    let gone = old.real_servers.iter().map(|real| real.endpoint);
    let gone = gone.filter(|endpoint| known.contains_key(endpoint));
    changes.extend(gone.map(ServerChange::RealRemoved));
    changes.append(&mut later);
    changes
}

fn server_keywords(old: &VirtualServer, new: &VirtualServer) -> Vec<Keyword> {
    let VirtualServer {
        matches: _,
        group,
        protocol,
        ops,
        delay_loop: _,
        lb_algo,
        lb_kind: _,
        persistence,
        persistence_engine,
        alpha: _,
        ha_suspend,
        smtp_alert,
        snmp_name,
        omega,
        quorum,
        hysteresis,
        sorry_server,
        notify,
        real_servers: _,
    } = old;
    let mut what = Keywords::default();
    what.other("virtual_server_group", (group, &new.group));
    what.scheduler(lb_algo, &new.lb_algo);
    what.plain("protocol", (protocol, &new.protocol));
    what.flag("ops", (*ops, new.ops));
    what.persistence(*persistence, new.persistence);
    what.other(
        "persistence_engine",
        (persistence_engine, &new.persistence_engine),
    );
    what.plain("quorum", (quorum, &new.quorum));
    what.plain("hysteresis", (hysteresis, &new.hysteresis));
    what.sorry_server(*sorry_server, new.sorry_server);
    what.flag("omega", (*omega, new.omega));
    what.flag("ha_suspend", (*ha_suspend, new.ha_suspend));
    what.other("smtp_alert", (smtp_alert, &new.smtp_alert));
    what.other("snmp_name", (snmp_name, &new.snmp_name));
    what.scripts(notify, &new.notify);
    what.0
}

fn real_keywords(old: &RealServer, new: &RealServer) -> Vec<Keyword> {
    let RealServer {
        endpoint: _,
        weight,
        lb_kind,
        inhibit_on_failure,
        uthreshold,
        lthreshold,
        smtp_alert,
        snmp_name,
        notify,
        checkers: _,
    } = old;
    let mut what = Keywords::default();
    what.plain("weight", (weight, &new.weight));
    what.plain("lvs_method", (lb_kind, &new.lb_kind));
    what.flag(
        "inhibit_on_failure",
        (*inhibit_on_failure, new.inhibit_on_failure),
    );
    what.plain("uthreshold", (uthreshold, &new.uthreshold));
    what.plain("lthreshold", (lthreshold, &new.lthreshold));
    what.other("smtp_alert", (smtp_alert, &new.smtp_alert));
    what.other("snmp_name", (snmp_name, &new.snmp_name));
    what.scripts(notify, &new.notify);
    what.checks(old, new);
    what.0
}
