//! Virtual servers as `xvs list` shows them, and the rates of what goes through their real servers.

use std::{ops::Range, time::Duration};

use super::{Ports, Real, Role, Service, Services, way};
use crate::{
    addr::Family,
    balance::NextHop,
    balance::RealRef,
    check::Health,
    config,
    control::{
        api::{MatchStatus, RealStatus, ServiceStatus, TrafficRates, TrafficTotals},
        forwarding::next_hops::{NextHops, Problem},
    },
    lvs::{LbKind, Scheduler, TunnelKind},
    stats::{AllStats, Averages, Counter, Rates, RealCounters, Totals},
};

impl Services {
    /// Real servers of all virtual servers, sorry servers included.
    pub(in crate::control::forwarding) fn real_count(&self) -> usize {
        self.services
            .values()
            .map(|service| service.reals.len())
            .sum()
    }

    /// What went through the real servers by now did so before this run.
    pub(in crate::control::forwarding) fn resume(&mut self, stats: AllStats<'_>) {
        for real in self.services.values_mut().flat_map(|it| &mut it.reals) {
            real.rates
                .begin_at(stats.totals(real.id.0, real.epoch.get()));
        }
    }

    /// Takes a sample of what went through the real servers with these numbers; which those are.
    pub(in crate::control::forwarding) fn estimate(
        &mut self,
        numbers: Range<usize>,
        stats: AllStats<'_>,
    ) -> Vec<RealRef> {
        let mut sampled = Vec::with_capacity(numbers.len());
        let mut first = 0;
        for service in self.services.values_mut() {
            let end = first + service.reals.len();
            let (from, to) = (numbers.start.max(first), numbers.end.min(end));
            // Most virtual servers are passed over whole.
            if from < to {
                for real in &mut service.reals[from - first..to - first] {
                    real.rates.sample(stats.totals(real.id.0, real.epoch.get()));
                    sampled.push(real.reference());
                }
            } else if first >= numbers.end {
                break;
            }
            first = end;
        }
        sampled
    }

    /// The virtual servers, for `xvs list`.
    pub(in crate::control::forwarding) fn status(
        &self,
        health: &Health,
        hops: &NextHops,
        ports: &Ports,
        stats: AllStats<'_>,
    ) -> Vec<ServiceStatus> {
        let status = |service: &Service| {
            let (mut totals, mut averages) = (Totals::default(), Averages::default());
            let mut reals = Vec::with_capacity(service.reals.len());
            for real in &service.reals {
                let own = stats.totals(real.id.0, real.epoch.get());
                totals = totals + own;
                averages += real.rates.averages();
                let way = way(real.endpoint.addr, hops, ports);
                reals.push(service.real_status(real, health, way, (own, stats)));
            }
            ServiceStatus {
                totals: totals_of(totals),
                rates: rates_of(averages.rates()),
                ..service.status(health, reals)
            }
        };
        let listed = self.order.iter().filter_map(|id| self.services.get(id));
        listed.map(status).collect()
    }
}

impl Service {
    fn status(&self, health: &Health, reals: Vec<RealStatus>) -> ServiceStatus {
        let endpoint = self.config.key().endpoint;
        let pool = health.pool(self.id);
        let mut families = self.config.matches.iter().map(config::Match::family);
        let mut whole = |len: &u8| families.all(|family| *len >= family.bits());
        let persistence = self.config.persistence;
        let seconds = |timeout: Duration| u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX);
        ServiceStatus {
            protocol: self.config.key().protocol.to_string(),
            address: endpoint.addr,
            port: endpoint.port,
            matches: self
                .config
                .matches
                .iter()
                .map(|one| self.match_status(one))
                .collect(),
            group: self.config.group.clone(),
            scheduler: self.config.lb_algo.name().to_owned(),
            flags: flags(&self.config),
            one_packet: self.config.ops,
            persistence_timeout: persistence.map(|p| seconds(p.timeout)),
            persistence_granularity: persistence.map(|p| p.granularity).filter(|len| !whole(len)),
            totals: TrafficTotals::default(),
            rates: TrafficRates::default(),
            quorum_met: pool.is_some_and(|pool| pool.quorum_up()),
            steered: self.steered,
            reals,
        }
    }

    fn match_status(&self, one: &config::Match) -> MatchStatus {
        let protocol = self.config.protocol.to_string();
        match *one {
            config::Match::Address(endpoint) => MatchStatus::Address {
                protocol,
                address: endpoint.addr,
                port: endpoint.port,
            },
            config::Match::Range { first, last, port } => MatchStatus::Range {
                protocol,
                first,
                last,
                port,
            },
            config::Match::Prefix { prefix, port } => MatchStatus::Prefix {
                protocol,
                address: prefix.addr(),
                length: prefix.len(),
                port,
            },
            config::Match::Mark { mark, family } => MatchStatus::Mark {
                mark,
                ipv6: family == Family::V6,
            },
        }
    }

    fn real_status(
        &self,
        real: &Real,
        health: &Health,
        way: Result<NextHop, Problem>,
        (totals, stats): (Totals, AllStats<'_>),
    ) -> RealStatus {
        let (in_pool, weight) = self.standing(real, health, way);
        let pool = health.pool(self.id).filter(|_| real.is_checked());
        let view = pool.and_then(|pool| pool.real(real.id));
        let count = |counter: fn(&RealCounters) -> &Counter| {
            stats.real(real.id.0, real.epoch.get(), counter)
        };
        let failure = view.and_then(|view| Some(view.error.as_ref()?.to_string()));
        let draining = (real.role == Role::Draining)
            .then(|| "was removed, and keeps the connections that it has".to_owned());
        RealStatus {
            address: real.endpoint.addr,
            port: real.endpoint.port,
            forward: forward(real.method).to_owned(),
            tunnel: tunnel(real.method),
            weight,
            up: view.is_none_or(|view| view.up),
            in_pool,
            active: count(|real| &real.active),
            inactive: count(|real| &real.inactive),
            connections: totals.connections,
            packets_in: totals.packets_in,
            bytes_in: totals.bytes_in,
            packets_out: totals.packets_out,
            bytes_out: totals.bytes_out,
            rates: rates_of(real.rates.averages().rates()),
            next_hop: way.ok().map(|hop| hop.destination.to_string()),
            reason: draining
                .or(failure)
                .or_else(|| way.err().map(|problem| problem.to_string())),
        }
    }
}

/// The word that ipvsadm has for a method.
const fn forward(method: LbKind) -> &'static str {
    match method {
        LbKind::Dr => "Route",
        LbKind::Nat => "Masq",
        LbKind::Tun(_) => "Tunnel",
    }
}

/// What `ipvsadm --tun-info` shows for a method.
fn tunnel(method: LbKind) -> Option<String> {
    let sum = |checksum| if checksum { "+c" } else { "-c" };
    match method {
        LbKind::Dr | LbKind::Nat => None,
        LbKind::Tun(TunnelKind::Ipip) => Some("ipip".to_owned()),
        LbKind::Tun(TunnelKind::Gue { port, checksum }) => {
            Some(format!("gue:{port}:{}", sum(checksum)))
        }
        LbKind::Tun(TunnelKind::Gre { checksum }) => Some(format!("gre:{}", sum(checksum))),
    }
}

/// The flags of a scheduler that has any, in ipvsadm's words and order.
fn flags(server: &config::VirtualServer) -> Vec<String> {
    let (Scheduler::Sh { port, fallback } | Scheduler::Mh { port, fallback, .. }) = server.lb_algo
    else {
        return Vec::new();
    };
    let name = server.lb_algo.name();
    let all = [(fallback, "fallback"), (port, "port")];
    let set = all.into_iter().filter(|(set, _)| *set);
    set.map(|(_, flag)| format!("{name}-{flag}")).collect()
}

const fn totals_of(totals: Totals) -> TrafficTotals {
    TrafficTotals {
        connections: totals.connections,
        packets_in: totals.packets_in,
        packets_out: totals.packets_out,
        bytes_in: totals.bytes_in,
        bytes_out: totals.bytes_out,
    }
}

const fn rates_of(rates: Rates) -> TrafficRates {
    TrafficRates {
        connections: rates.connections,
        packets_in: rates.packets_in,
        packets_out: rates.packets_out,
        bytes_in: rates.bytes_in,
        bytes_out: rates.bytes_out,
    }
}
