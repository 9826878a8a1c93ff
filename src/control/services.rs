//! Virtual servers: from the configuration, the health checks and the next hops to the table that
//! the workers forward by.

use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use super::{
    api::{RealStatus, ServiceStatus},
    next_hops::{NextHops, Problem},
};
use crate::{
    addr::{Endpoint, MacAddr, PortId},
    balance::{
        Method, NextHop, Persistence, RealId, RealSpec, Scheduler, ServiceId, ServiceKey,
        ServiceSpec, State, Timeouts,
    },
    check::{self, Health},
    config::{self, Config},
    stats::{AllStats, Counter, RealCounters},
    sys::steer,
};

/// A real server, or the sorry server, of a virtual server.
struct Real {
    id: RealId,
    epoch: NonZeroU32,
    endpoint: Endpoint,
    method: Method,
    /// Its number in the health checks; the sorry server is not checked.
    checked: Option<check::RealId>,
}

/// A virtual server.
struct Service {
    config: config::VirtualServer,
    id: ServiceId,
    vs: check::VsId,
    reals: Vec<Real>,
    /// Whether a VRRP instance decides when this host has the address.
    managed: bool,
    steered: bool,
}

/// An interface of the data plane.
#[derive(Clone, Copy, Debug)]
pub(super) struct PortInfo {
    pub(super) ifindex: u32,
    pub(super) mac: MacAddr,
}

/// All virtual servers.
pub(super) struct Services {
    services: Vec<Service>,
    timeouts: Timeouts,
}

impl Services {
    /// Numbers the virtual and real servers of `config`. `managed` says which addresses VRRP
    /// instances of this host manage.
    pub(super) fn new(config: &Config, managed: impl Fn(IpAddr) -> bool) -> Self {
        let mut next_real = 0_u32;
        let mut real = |endpoint, kind, checked| {
            let id = RealId(next_real);
            next_real += 1;
            Real {
                id,
                epoch: NonZeroU32::MIN,
                endpoint,
                method: method(kind),
                checked,
            }
        };
        let mut services = Vec::with_capacity(config.virtual_servers.len());
        for (number, server) in (0_u32..).zip(&config.virtual_servers) {
            let mut reals = Vec::with_capacity(server.real_servers.len() + 1);
            for (slot, configured) in (0_u32..).zip(&server.real_servers) {
                let checked = Some(check::RealId(slot));
                reals.push(real(configured.endpoint, configured.lb_kind, checked));
            }
            reals.extend(
                server
                    .sorry_server
                    .map(|sorry| real(sorry, server.lb_kind, None)),
            );
            services.push(Service {
                id: ServiceId(number),
                vs: check::VsId(number),
                reals,
                managed: managed(server.key.endpoint.addr),
                steered: false,
                config: server.clone(),
            });
        }
        let lvs = &config.global.lvs_timeouts;
        let timeouts = Timeouts::default()
            .with(State::Established, lvs.tcp)
            .with(State::FinWait, lvs.tcp_fin);
        Self { services, timeouts }
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

    /// The virtual addresses that no VRRP instance manages: the administrator has put them there.
    pub(super) fn unmanaged_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let unmanaged = self.services.iter().filter(|service| !service.managed);
        unmanaged.map(|service| service.config.key.endpoint.addr)
    }

    /// How long connections of each state may idle.
    pub(super) const fn timeouts(&self) -> &Timeouts {
        &self.timeouts
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

    /// Starts or stops steering the virtual servers whose address `concerns`. Gives those that
    /// changed; the caller tells the steering program.
    pub(super) fn steer(
        &mut self,
        on: bool,
        concerns: impl Fn(IpAddr, bool) -> bool,
    ) -> Vec<steer::Service> {
        let mut changed = Vec::new();
        for service in &mut self.services {
            let key = service.config.key;
            if service.steered != on && concerns(key.endpoint.addr, service.managed) {
                service.steered = on;
                changed.push(steer::Service {
                    endpoint: key.endpoint,
                    proto: key.protocol,
                });
            }
        }
        changed
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

    /// The virtual servers, for `xvs list`.
    pub(super) fn status(
        &self,
        health: &Health,
        hops: &NextHops,
        ports: &[PortInfo],
        stats: AllStats<'_>,
    ) -> Vec<ServiceStatus> {
        let status = |service: &Service| {
            let real = |real: &Real| {
                let way = way(real.endpoint.addr, hops, ports);
                service.real_status(real, health, way, stats)
            };
            service.status(health, service.reals.iter().map(real).collect())
        };
        self.services.iter().map(status).collect()
    }
}

impl Service {
    fn name(&self, endpoint: Endpoint) -> check::ServiceName {
        check::ServiceName {
            endpoint,
            protocol: self.config.key.protocol,
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
        let sorry = self.config.sorry_server.map(|endpoint| check::SorryServer {
            name: self.name(endpoint),
            inhibit: false,
        });
        check::VirtualSettings {
            id: self.vs,
            name: self.name(self.config.key.endpoint),
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
                available,
                next_hop: way.ok(),
            }
        };
        let persistence = self.config.persistence;
        ServiceSpec {
            id: self.id,
            key: ServiceKey {
                protocol: self.config.key.protocol,
                endpoint: self.config.key.endpoint,
            },
            scheduler: match self.config.lb_algo {
                config::Scheduler::Wrr => Scheduler::WeightedRoundRobin,
                // The configuration lets no other one through.
                _ => Scheduler::RoundRobin,
            },
            persistence: persistence.map(|p| Persistence {
                timeout: p.timeout,
                prefix: p.granularity,
            }),
            reals: self.reals.iter().map(real).collect(),
        }
    }

    fn status(&self, health: &Health, reals: Vec<RealStatus>) -> ServiceStatus {
        let endpoint = self.config.key.endpoint;
        let pool = health.pool(self.vs);
        let whole = if endpoint.addr.is_ipv4() { 32 } else { 128 };
        let persistence = self.config.persistence;
        let seconds = |timeout: Duration| u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX);
        ServiceStatus {
            protocol: self.config.key.protocol.to_string(),
            address: endpoint.addr,
            port: endpoint.port,
            scheduler: self.config.lb_algo.name().to_owned(),
            persistence_timeout: persistence.map(|p| seconds(p.timeout)),
            persistence_granularity: persistence
                .map(|p| p.granularity)
                .filter(|len| *len != whole),
            quorum_met: pool.is_some_and(|pool| pool.quorum_up()),
            steered: self.steered,
            reals,
        }
    }

    fn real_status(
        &self,
        real: &Real,
        health: &Health,
        way: Result<NextHop, Problem>,
        stats: AllStats<'_>,
    ) -> RealStatus {
        let (in_pool, weight) = self.standing(real, health, way);
        let view = real.checked.and_then(|id| health.pool(self.vs)?.real(id));
        let count = |counter: fn(&RealCounters) -> &Counter| {
            stats.real(real.id.0, real.epoch.get(), counter)
        };
        let failure = view.and_then(|view| Some(view.error.as_ref()?.to_string()));
        RealStatus {
            address: real.endpoint.addr,
            port: real.endpoint.port,
            forward: "Route".to_owned(),
            weight,
            up: view.is_none_or(|view| view.up),
            in_pool,
            active: count(|real| &real.active),
            inactive: count(|real| &real.inactive),
            connections: count(|real| &real.connections),
            packets_in: count(|real| &real.packets),
            bytes_in: count(|real| &real.bytes),
            next_hop: way.ok().map(|hop| hop.destination.to_string()),
            reason: failure.or_else(|| way.err().map(|problem| problem.to_string())),
        }
    }
}

/// How packets are rewritten for a real server.
const fn method(kind: config::LbKind) -> Method {
    match kind {
        // The configuration lets no other one through.
        config::LbKind::Dr | config::LbKind::Nat | config::LbKind::Tun => Method::DirectRouting,
    }
}

/// How frames reach a real server through one of `ports`, which are in the order of their ids.
fn way(address: IpAddr, hops: &NextHops, ports: &[PortInfo]) -> Result<NextHop, Problem> {
    let hop = hops.hop(address)?;
    let mut numbered = (0..=u8::MAX).zip(ports);
    let (port, info) = numbered
        .find(|(_, info)| info.ifindex == hop.ifindex)
        .ok_or(Problem::NotOpened)?;
    Ok(NextHop {
        port: PortId(port),
        source: info.mac,
        destination: hop.destination.ok_or(Problem::Unresolved)?,
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
        sys::netlink::RouteKind,
        time::Instant,
    };

    const PORTS: &[PortInfo] = &[
        PortInfo {
            ifindex: 7,
            mac: MacAddr([2, 0, 0, 0, 0, 7]),
        },
        PortInfo {
            ifindex: 1,
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
        },
    ];

    /// Virtual servers as they are at start: checks have not begun, next hops are looked up.
    fn set_up(text: &str, kernel: &mut FakeKernel) -> (Services, Health, NextHops) {
        let parsed = config::parse("f", text.as_bytes());
        assert!(!parsed.has_errors(), "{}", parsed.report());
        let now = Instant::ZERO;
        let services = Services::new(&parsed.config, |_| false);
        let mut hops = NextHops::new();
        services
            .real_addresses()
            .for_each(|address| hops.track(now, address));
        while hops.poll_timeout().is_some_and(|due| due <= now) {
            hops.handle_timeout(now, kernel);
        }
        let mut health = Health::new(1);
        health.apply(now, &services.check_settings());
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
        let specs = services.specs(&health, &hops, PORTS);
        let reals = &specs[0].reals;
        let available: Vec<bool> = reals.iter().map(|real| real.available).collect();
        assert_eq!(available, [true, true, false, false, false, false]);
        let next_hops: Vec<_> = reals.iter().map(|real| real.next_hop).collect();
        let way = NextHop {
            port: PortId(1),
            source: MacAddr([2, 0, 0, 0, 0, 1]),
            destination: MacAddr([2, 0, 10, 0, 0, 11]),
        };
        assert_eq!(next_hops, [Some(way), None, None, None, None, None]);
        assert!(reals.iter().all(|real| real.weight == 3), "that is config");
    }

    #[test]
    fn the_status_says_why_a_real_server_takes_no_connections() {
        let (services, health, hops) = one_of_each();
        let status = services.status(&health, &hops, PORTS, AllStats(&[]));
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
                    "is this host itself, which DR cannot reach here: it takes no connections"
                ),
                (false, "has no route to it: it takes no connections"),
                (false, not_opened),
                (false, not_opened),
            ]
        );
        assert!(status[0].reals.iter().all(|real| real.up));
    }

    #[test]
    fn the_log_hears_of_the_same_problems() {
        let (services, _, hops) = one_of_each();
        let problems: Vec<_> = services.unreachable(&hops, PORTS).collect();
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
