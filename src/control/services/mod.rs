//! Virtual servers: from the configuration, the health checks and the next hops to the table that
//! the workers forward by.

mod status;
mod steered;
mod translate;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
    sync::Arc,
};

pub(super) use self::steered::Change;
use self::steered::{Steered, within};
use super::{
    client_ways::port_of,
    next_hops::{NextHops, Problem},
};
use crate::{
    addr::{Endpoint, MacAddr, PortId},
    balance::{
        Environment, Limits, MaglevSize, Match, Method, NextHop, PortSpec, RealId, RealRef,
        RealSpec, Routes, Scheduler, ServiceId, ServiceSpec,
    },
    check::{self, Health},
    config::{self, Config},
    stats::Estimator,
    sys::steer,
};

/// A real server, or the sorry server, of a virtual server.
struct Real {
    id: RealId,
    epoch: NonZeroU32,
    endpoint: Endpoint,
    method: Method,
    /// As configured.
    weight: u32,
    limits: Limits,
    /// Its number in the health checks; the sorry server is not checked.
    checked: Option<RealId>,
    rates: Estimator,
}

/// A virtual server.
struct Service {
    config: config::VirtualServer,
    id: ServiceId,
    vs: ServiceId,
    matches: Vec<Match>,
    scheduler: Scheduler,
    reals: Vec<Real>,
    /// Whether any of its packets are steered to the workers.
    steered: bool,
}

/// An interface of the data plane.
#[derive(Clone, Debug, Default)]
pub(super) struct PortInfo {
    pub(super) name: String,
    pub(super) ifindex: u32,
    pub(super) mac: MacAddr,
    pub(super) mtu: u32,
    /// Addresses of its own, for packets of ours.
    pub(super) v4: Option<Ipv4Addr>,
    pub(super) v6: Option<Ipv6Addr>,
}

/// All virtual servers.
pub(super) struct Services {
    services: Vec<Service>,
    settings: config::Settings,
    told: config::Timeouts,
    steered: Steered,
}

impl Services {
    /// Numbers the virtual and real servers of `config`.
    pub(super) fn new(config: &Config) -> Self {
        let mut next_real = 0_u32;
        let mut real = |endpoint, kind, weight, limits, checked| {
            let id = RealId(next_real);
            next_real += 1;
            Real {
                id,
                epoch: NonZeroU32::MIN,
                endpoint,
                method: translate::method(kind),
                weight,
                limits,
                checked,
                rates: Estimator::default(),
            }
        };
        // The configuration lets no other size through.
        let size =
            MaglevSize::new(config.settings.maglev_table_size).unwrap_or(MaglevSize::DEFAULT);
        let mut services = Vec::with_capacity(config.virtual_servers.len());
        for (number, server) in (0_u32..).zip(&config.virtual_servers) {
            let mut reals = Vec::with_capacity(server.real_servers.len() + 1);
            for (slot, configured) in (0_u32..).zip(&server.real_servers) {
                reals.push(real(
                    configured.endpoint,
                    configured.lb_kind,
                    configured.weight,
                    translate::limits(configured),
                    Some(RealId(slot)),
                ));
            }
            reals.extend(
                server
                    .sorry_server
                    .map(|sorry| real(sorry.endpoint, sorry.lb_kind, 1, Limits::default(), None)),
            );
            services.push(Service {
                id: ServiceId(number),
                vs: ServiceId(number),
                matches: translate::matches(server),
                scheduler: translate::scheduler(server, size),
                reals,
                steered: false,
                config: server.clone(),
            });
        }
        Self {
            services,
            settings: config.settings.clone(),
            told: config.timeouts,
            steered: Steered::new(config),
        }
    }

    /// What the health checks are told.
    pub(super) fn check_settings(&self) -> Vec<check::VirtualSettings> {
        self.services.iter().map(Service::check_settings).collect()
    }

    /// The addresses of all real servers.
    pub(super) fn real_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.services
            .iter()
            .flat_map(|service| &service.reals)
            .map(|real| real.endpoint.addr)
    }

    /// Whether packets to an address are a virtual server's although no VRRP instance manages any address
    /// that this virtual server has: the administrator has put it there.
    pub(super) fn has_unmanaged(&self, addr: IpAddr) -> bool {
        self.services.iter().any(|service| {
            service.matches.iter().any(|what| {
                let bounds = translate::bounds(what, &self.settings.marks);
                bounds
                    .into_iter()
                    .any(|bounds| within(addr, bounds) && !self.steered.is_managed(bounds))
            })
        })
    }

    /// Whether anything for clients passes here: answers of real servers (NAT), or what routers say about
    /// packets in tunnels.
    pub(super) fn sends_to_clients(&self) -> bool {
        let mut reals = self.services.iter().flat_map(|service| &service.reals);
        reals.any(|real| !matches!(real.method, Method::DirectRouting))
    }

    /// What the workers' table is built from.
    pub(super) fn specs(
        &self,
        health: &Health,
        hops: &NextHops,
        ports: &[PortInfo],
    ) -> Vec<ServiceSpec> {
        let spec = |service: &Service| service.spec(health, hops, ports);
        self.services.iter().map(spec).collect()
    }

    /// The real servers whose connections decide something: a scheduler's pick, or a threshold.
    pub(super) fn counted(&self) -> impl Iterator<Item = RealRef> + '_ {
        let services = self.services.iter();
        let reals = services.flat_map(|service| {
            let counts = service.scheduler.counts_connections();
            let limited = move |real: &&Real| counts || real.limits.upper > 0;
            service.reals.iter().filter(limited)
        });
        reals.map(|real| RealRef {
            id: real.id,
            epoch: real.epoch,
        })
    }

    /// What stands beside the virtual servers in the workers' table.
    pub(super) fn environment(&self, ports: &[PortInfo], routes: Arc<Routes>) -> Environment {
        let named = |name: &str| {
            let mut numbered = (0..=u8::MAX).zip(ports);
            let found = numbered.find(|(_, port)| port.name == name);
            found.map(|(id, _)| PortId(id))
        };
        let own = |port: &PortInfo| PortSpec {
            v4: port.v4,
            v6: port.v6,
        };
        Environment {
            routes,
            ports: ports.iter().map(own).collect(),
            ..translate::environment(&self.told, &self.settings, named)
        }
    }

    /// This host has, or has not any more, the addresses `vips` of a VRRP instance. What the steering
    /// program is to be told.
    pub(super) fn hold(&mut self, on: bool, vips: impl Iterator<Item = IpAddr>) -> Change {
        self.steered.hold(on, vips);
        self.steer()
    }

    /// What the steering program is to be told for the addresses that are held now, in this order.
    pub(super) fn steer(&mut self) -> Change {
        let mut wanted = Vec::new();
        for service in &mut self.services {
            let marks = &self.settings.marks;
            let active: Vec<&Match> = service
                .matches
                .iter()
                .filter(|what| {
                    let bounds = translate::bounds(what, marks);
                    bounds
                        .into_iter()
                        .any(|bounds| self.steered.is_held(bounds))
                })
                .collect();
            service.steered = !active.is_empty();
            // Answers before what they answer.
            for real in service.reals.iter().filter(|_| service.steered) {
                real.steering(&service.config, &mut wanted);
            }
            wanted.extend(
                active
                    .into_iter()
                    .flat_map(|what| translate::steering(what, marks)),
            );
        }
        self.steered.change(wanted)
    }

    /// Addresses of real servers that packets cannot be sent to, with the reason.
    pub(super) fn unreachable<'a>(
        &'a self,
        hops: &'a NextHops,
        ports: &'a [PortInfo],
    ) -> impl Iterator<Item = (IpAddr, Problem)> + 'a {
        self.real_addresses()
            .filter_map(|address| Some((address, way(address, hops, ports).err()?)))
    }
}

impl Real {
    /// Which packets are the workers' besides those of the virtual server itself: answers, and errors about
    /// tunnels.
    fn steering(&self, server: &config::VirtualServer, wanted: &mut Vec<steer::Match>) {
        match self.method {
            Method::DirectRouting => {}
            Method::Nat => {
                let own = server.takes_addresses().then_some(server.protocol);
                let any = server.matches.iter().any(|one| one.port().is_none());
                let protocols = translate::protocols(own.filter(|_| !any));
                wanted.extend(protocols.map(|proto| {
                    steer::Match::Return(steer::Service {
                        endpoint: self.endpoint,
                        proto,
                    })
                }));
            }
            Method::Tunnel(kind) => wanted.push(steer::Match::Tunnel {
                addr: self.endpoint.addr,
                outer: translate::outer(kind),
            }),
        }
    }
}

impl Service {
    fn name(&self, endpoint: Endpoint) -> check::ServiceName {
        check::ServiceName {
            endpoint,
            protocol: self.config.key().protocol,
        }
    }

    fn check_settings(&self) -> check::VirtualSettings {
        let checked = self
            .reals
            .iter()
            .filter_map(|real| Some((real, real.checked?)));
        let reals = checked
            .zip(&self.config.real_servers)
            .map(|((real, id), configured)| check::RealSettings {
                id,
                endpoint: real.endpoint,
                weight: configured.weight,
                inhibit: configured.inhibit_on_failure,
                checkers: configured.checkers.iter().map(checker_settings).collect(),
            })
            .collect();
        let sorry = self.config.sorry_server.map(|sorry| check::SorryServer {
            name: self.name(sorry.endpoint),
            inhibit: sorry.inhibit,
        });
        check::VirtualSettings {
            id: self.vs,
            name: self.name(self.config.key().endpoint),
            quorum: self.config.quorum,
            hysteresis: self.config.hysteresis,
            sorry,
            reals,
        }
    }

    /// Whether the scheduler may see a real server, and the weight it has. Checks go the host's
    /// way, so one that packets have no way to may well pass them.
    fn standing(&self, real: &Real, health: &Health, way: Result<NextHop, Problem>) -> (bool, u32) {
        let Some(pool) = health.pool(self.vs) else {
            return (false, 0);
        };
        let (in_pool, weight) = match real.checked {
            Some(id) => (pool.in_pool(id), pool.weight(id)),
            None => (pool.sorry_in_pool(), 1),
        };
        (in_pool && !way.is_err_and(Problem::is_lasting), weight)
    }

    /// Whether a real server's checks fail, whatever becomes of it then.
    fn has_failed(&self, real: &Real, health: &Health) -> bool {
        let view = real.checked.and_then(|id| health.pool(self.vs)?.real(id));
        view.is_some_and(|view| !view.up)
    }

    fn spec(&self, health: &Health, hops: &NextHops, ports: &[PortInfo]) -> ServiceSpec {
        let real = |real: &Real| {
            let way = way(real.endpoint.addr, hops, ports);
            let (available, weight) = self.standing(real, health, way);
            RealSpec {
                id: real.id,
                epoch: real.epoch,
                endpoint: real.endpoint,
                method: real.method,
                weight,
                last_weight: if weight == 0 { real.weight } else { weight },
                limits: real.limits,
                available,
                failed: self.has_failed(real, health),
                next_hop: way.ok(),
                local: hops.hop(real.endpoint.addr).ok().and_then(|hop| hop.source),
            }
        };
        ServiceSpec {
            id: self.id,
            matches: self.matches.clone(),
            one_packet: self.config.ops,
            scheduler: self.scheduler,
            persistence: translate::persistence(&self.config),
            reals: self.reals.iter().map(real).collect(),
        }
    }
}

/// How frames reach a real server through one of `ports`, which are in the order of their ids.
fn way(address: IpAddr, hops: &NextHops, ports: &[PortInfo]) -> Result<NextHop, Problem> {
    let hop = hops.hop(address)?;
    let (port, info) = port_of(hop.ifindex, ports).ok_or(Problem::NotOpened)?;
    let mtu = hop.mtu.map_or(info.mtu, |own| own.min(info.mtu));
    Ok(NextHop {
        port,
        source: info.mac,
        destination: hop.destination.ok_or(Problem::Unresolved)?,
        mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
    })
}

fn checker_settings(checker: &config::Checker) -> check::CheckerSettings {
    let target = std::net::SocketAddr::new(checker.connect.addr, checker.connect.port);
    let bind = match (checker.bindto, checker.bind_port) {
        (Some(addr), port) => Some(std::net::SocketAddr::new(addr, port)),
        (None, 0) => None,
        (None, port) => Some(std::net::SocketAddr::new(unspecified(target.ip()), port)),
    };
    let config::CheckKind::Tcp = checker.kind;
    check::CheckerSettings {
        probe: check::Probe::Tcp(check::TcpProbe {
            target,
            bind,
            timeout: checker.connect_timeout,
            mark: None,
        }),
        retry: checker.retry,
        delay_before_retry: checker.delay_before_retry,
        delay_loop: checker.delay_loop,
        warmup: checker.warmup,
        alpha: checker.alpha,
        log_all_failures: false,
    }
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control::next_hops::tests::{FakeKernel, route},
        stats::AllStats,
        sys::netlink::RouteKind,
        time::Instant,
    };

    fn ports() -> Vec<PortInfo> {
        [7, 1]
            .map(|n: u8| PortInfo {
                name: format!("eth{n}"),
                ifindex: n.into(),
                mac: MacAddr([2, 0, 0, 0, 0, n]),
                mtu: 1500,
                ..PortInfo::default()
            })
            .into()
    }

    /// Virtual servers as they are at start: checks have not begun, next hops are looked up.
    fn set_up(text: &str, kernel: &mut FakeKernel) -> (Services, Health, NextHops) {
        let parsed = config::parse("f", text.as_bytes());
        assert!(!parsed.has_errors(), "{}", parsed.report());
        let now = Instant::ZERO;
        let services = Services::new(&parsed.config);
        let mut hops = NextHops::new();
        services
            .real_addresses()
            .for_each(|address| hops.track(now, address));
        while hops.poll_timeout().is_some_and(|due| due <= now) {
            hops.handle_timeout(now, kernel);
        }
        let mut health = Health::new(1);
        for settings in services.check_settings() {
            health.set(now, &settings);
        }
        (services, health, hops)
    }

    /// One real server of each kind: fine, silent, this host, without a route, behind an interface
    /// that was not opened, silent behind such a one.
    fn one_of_each() -> (Services, Health, NextHops) {
        let addr = |n: u8| IpAddr::from([10, 0, 0, n]);
        let mut kernel = FakeKernel::default();
        kernel.silent.extend([addr(12), addr(16)]);
        kernel.routes.extend([
            (addr(13), Some(route(RouteKind::Local, 9))),
            (addr(14), None),
            (addr(15), Some(route(RouteKind::Unicast, 2))),
            (addr(16), Some(route(RouteKind::Unicast, 2))),
        ]);
        let reals: String = (11..17)
            .map(|n| format!("real_server 10.0.0.{n} 80 {{\nweight 3\n}}\n"))
            .collect();
        let text = format!(
            "virtual_server 10.0.0.9 80 {{\nlb_algo wrr\nlb_kind DR\nprotocol TCP\n{reals}}}\n"
        );
        set_up(&text, &mut kernel)
    }

    #[test]
    fn only_real_servers_that_packets_can_reach_soon_are_scheduled() {
        let (services, health, hops) = one_of_each();
        let specs = services.specs(&health, &hops, &ports());
        let reals = &specs[0].reals;
        let available: Vec<bool> = reals.iter().map(|real| real.available).collect();
        assert_eq!(available, [true, true, false, false, false, false]);
        let next_hops: Vec<_> = reals.iter().map(|real| real.next_hop).collect();
        let way = NextHop {
            port: PortId(1),
            source: MacAddr([2, 0, 0, 0, 0, 1]),
            destination: MacAddr([2, 0, 10, 0, 0, 11]),
            mtu: 1500,
        };
        assert_eq!(next_hops, [Some(way), None, None, None, None, None]);
        assert!(reals.iter().all(|real| real.weight == 3), "that is config");
    }

    #[test]
    fn the_status_says_why_a_real_server_takes_no_connections() {
        let (services, health, hops) = one_of_each();
        let status = services.status(&health, &hops, &ports(), AllStats(&[]));
        let shown: Vec<_> = status[0]
            .reals
            .iter()
            .map(|real| (real.in_pool, real.reason.as_deref().unwrap_or_default()))
            .collect();
        let not_opened = "is behind an interface that was not opened at start: it takes no \
                          connections until xvs is restarted";
        assert_eq!(
            shown,
            [
                (true, ""),
                (true, "has no known MAC address: packets to it are dropped"),
                (
                    false,
                    "is this host itself, which cannot be reached from here: it takes no connections"
                ),
                (false, "has no route to it: it takes no connections"),
                (false, not_opened),
                (false, not_opened),
            ]
        );
        assert!(status[0].reals.iter().all(|real| real.up));
    }

    #[test]
    fn the_status_has_all_that_a_virtual_server_takes_and_how() {
        let text = "virtual_server_group G {\n10.0.0.9 80\n10.0.0.10-20 443\n10.1.0.0/16 8080\nfwmark 3\n}\n\
            virtual_server group G {\nlb_algo mh\nmh-port\nmh-fallback\nlb_kind TUN type gue port 6080\n\
            protocol UDP\nops\npersistence_timeout 60\npersistence_granularity 255.255.255.0\n\
            real_server 10.0.0.11 80 {\nlvs_method NAT\n}\nreal_server 10.0.0.12 80 {\n}\n}\n";
        let (services, health, hops) = set_up(text, &mut FakeKernel::default());
        let status = services.status(&health, &hops, &ports(), AllStats(&[]));
        let json = serde_json::to_value(&status[0]).unwrap();
        assert_eq!(
            json["matches"],
            serde_json::json!([
                {"kind": "address", "protocol": "UDP", "address": "10.0.0.9", "port": 80},
                {"kind": "range", "protocol": "UDP", "first": "10.0.0.10", "last": "10.0.0.20", "port": 443},
                {"kind": "prefix", "protocol": "UDP", "address": "10.1.0.0", "length": 16, "port": 8080},
                {"kind": "mark", "mark": 3, "ipv6": false},
            ])
        );
        let first = (&status[0].protocol[..], status[0].address, status[0].port);
        assert_eq!(first, ("UDP", IpAddr::from([10, 0, 0, 9]), 80));
        assert_eq!(json["group"], "G");
        assert_eq!(json["flags"], serde_json::json!(["mh-fallback", "mh-port"]));
        assert_eq!(json["one_packet"], true);
        assert_eq!(json["persistence_granularity"], 24);
        let reals = status[0].reals.iter();
        let methods: Vec<_> = reals
            .map(|real| (&real.forward[..], real.tunnel.as_deref()))
            .collect();
        assert_eq!(methods, [("Masq", None), ("Tunnel", Some("gue:6080:-c"))]);
    }

    #[test]
    fn a_virtual_server_counts_what_its_real_servers_do() {
        let (mut services, health, hops) = one_of_each();
        let workers = [(), ()].map(|()| Arc::new(crate::stats::WorkerStats::new()));
        for (worker, n) in workers.iter().zip(1..) {
            for slot in 0..6 {
                let real = worker.real(slot);
                real.claim(1);
                real.connections.add(n);
                real.packets.add(100 * n);
                real.bytes_out.add(10_000 * u64::from(slot));
            }
        }
        assert_eq!(services.real_count(), 6);
        services.estimate(0..4, AllStats(&workers));
        services.estimate(4..6, AllStats(&workers));
        let status = services.status(&health, &hops, &ports(), AllStats(&workers));
        let real = &status[0].reals[3];
        assert_eq!(
            (real.connections, real.packets_in, real.bytes_out),
            (3, 300, 60_000)
        );
        // A quarter of what came in two seconds, by a second.
        assert_eq!((real.rates.packets_in, real.rates.bytes_out), (37, 7500));
        let all = (status[0].totals, status[0].rates);
        assert_eq!(
            (all.0.connections, all.0.packets_in, all.0.bytes_out),
            (18, 1800, 300_000)
        );
        assert_eq!(
            (all.1.connections, all.1.packets_in, all.1.bytes_out),
            (2, 225, 37_500)
        );
    }

    #[test]
    fn the_log_hears_of_the_same_problems() {
        let (services, _, hops) = one_of_each();
        let problems: Vec<_> = services.unreachable(&hops, &ports()).collect();
        let addr = |n: u8| IpAddr::from([10, 0, 0, n]);
        assert_eq!(
            problems,
            [
                (addr(12), Problem::Unresolved),
                (addr(13), Problem::Local),
                (addr(14), Problem::NoRoute),
                (addr(15), Problem::NotOpened),
                (addr(16), Problem::NotOpened),
            ]
        );
    }
}
