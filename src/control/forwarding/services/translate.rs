//! From the configuration's words to the workers'.

use std::net::IpAddr;

use crate::{
    addr::{Family, L4Proto, PortId},
    balance::{
        Environment, Limits, MarkRule, Match, Persistence, Policy, ServiceKey, State, Timeouts,
        TunnelSources,
    },
    config::{self, Timeout},
    lvs::TunnelKind,
    sys::steer::{self, Outer, PortRange, covering},
};

/// A number for a virtual server that is the same in every run and on every host.
pub(super) fn identity(server: &config::VirtualServer) -> u64 {
    let first = server.matches.first().map(ToString::to_string);
    let name = format!("{} {:?}", first.unwrap_or_default(), server.protocol);
    rapidhash::v3::rapidhash_v3(name.as_bytes())
}

/// What makes packets those of a virtual server.
pub(super) fn matches(server: &config::VirtualServer) -> Vec<Match> {
    let protocol = server.protocol;
    let one = |one: &config::Match| match (*one, one.bounds()) {
        (config::Match::Address(endpoint), _) => Match::Address(ServiceKey { protocol, endpoint }),
        (config::Match::Mark { mark, family }, _) => Match::Mark {
            mark,
            ipv6: family == Family::V6,
        },
        (other, bounds) => {
            let nowhere = other.family().unspecified();
            let (first, last) = bounds.unwrap_or((nowhere, nowhere));
            Match::Range {
                protocol,
                first,
                last,
                port: other.port().unwrap_or_default(),
            }
        }
    };
    server.matches.iter().map(one).collect()
}

/// Which packets the steering program gives to the workers for one match of a virtual server.
pub(super) fn steering(what: &Match, marks: &[config::MarkRule]) -> Vec<steer::Steered> {
    match *what {
        Match::Address(key) => vec![steer::Steered::Service(steer::Target {
            endpoint: key.endpoint,
            proto: key.protocol,
        })],
        Match::Range {
            protocol,
            first,
            last,
            port,
        } => {
            let networks = covering(first, last).into_iter();
            let prefix = |dst| steer::Steered::Prefix {
                dst,
                port,
                proto: protocol,
            };
            networks.map(prefix).collect()
        }
        Match::Mark { mark, ipv6 } => {
            let own = marks
                .iter()
                .filter(|rule| rule.mark == mark && rule.destination.first().is_ipv6() == ipv6);
            own.flat_map(rules).collect()
        }
    }
}

fn rules(rule: &config::MarkRule) -> Vec<steer::Steered> {
    let ports = |range: Option<config::PortRange>| {
        range
            .and_then(|range| PortRange::new(range.first, range.last))
            .unwrap_or(PortRange::ANY)
    };
    let (first, last) = rule.destination.bounds();
    let mut all = Vec::new();
    for proto in protocols(rule.protocol) {
        for dst in covering(first, last) {
            all.push(steer::Steered::Rule(steer::MatchRule {
                proto,
                dst,
                dst_ports: ports(rule.destination_port),
                src: rule.source,
                src_ports: ports(rule.source_port),
            }));
        }
    }
    all
}

/// One protocol, or all that are balanced.
pub(super) fn protocols(one: Option<L4Proto>) -> impl Iterator<Item = L4Proto> {
    let all = [L4Proto::Tcp, L4Proto::Udp, L4Proto::Sctp];
    all.into_iter()
        .filter(move |protocol| one.is_none_or(|one| one == *protocol))
}

/// How ICMP errors about tunnelled packets are known.
pub(super) const fn outer(kind: TunnelKind) -> Outer {
    match kind {
        TunnelKind::Ipip => Outer::Ipip,
        TunnelKind::Gue { port, .. } => Outer::Gue(port),
        TunnelKind::Gre { .. } => Outer::Gre,
    }
}

/// `persistence_timeout` and `persistence_granularity`.
pub(super) fn persistence(server: &config::VirtualServer) -> Option<Persistence> {
    server.persistence.map(|p| Persistence {
        timeout: p.timeout,
        prefix: p.granularity,
    })
}

/// `uthreshold` and `lthreshold`.
pub(super) const fn limits(real: &config::RealServer) -> Limits {
    Limits {
        upper: real.uthreshold,
        lower: real.lthreshold,
    }
}

/// What stands beside the virtual servers in the configuration; ports and routes are added later.
pub(super) fn environment(
    told: &config::Timeouts,
    settings: &config::Settings,
    port_named: impl Fn(&str) -> Option<PortId>,
) -> Environment {
    Environment {
        timeouts: timeouts(told),
        policy: policy(settings),
        // In the configuration the last rule that fits counts.
        marks: settings
            .marks
            .iter()
            .rev()
            .filter_map(|rule| mark_rule(rule, &port_named))
            .collect(),
        ..Environment::default()
    }
}

/// A rule for packets that come in on an interface which is no port fits none.
fn mark_rule(
    rule: &config::MarkRule,
    port_named: impl Fn(&str) -> Option<PortId>,
) -> Option<MarkRule> {
    let ports = |range: Option<config::PortRange>| {
        range.map_or((0, u16::MAX), |range| (range.first, range.last))
    };
    Some(MarkRule {
        mark: rule.mark,
        protocol: rule.protocol,
        destination: rule.destination.bounds(),
        destination_ports: ports(rule.destination_port),
        source: rule.source,
        source_ports: ports(rule.source_port),
        ingress: match &rule.interface {
            Some(name) => Some(port_named(name)?),
            None => None,
        },
    })
}

fn policy(settings: &config::Settings) -> Policy {
    let ipvs = &settings.ipvs;
    Policy {
        reuse_finished: ipvs.conn_reuse_mode != 0,
        reuse_closing: ipvs.conn_reuse_mode & 2 != 0,
        expire_quiescent_template: ipvs.expire_quiescent_template,
        expire_nodest_conn: ipvs.expire_nodest_conn,
        sloppy_tcp: ipvs.sloppy_tcp,
        sloppy_sctp: ipvs.sloppy_sctp,
        schedule_icmp: ipvs.schedule_icmp,
        nat_icmp_send: ipvs.nat_icmp_send,
        pmtu_disc: ipvs.pmtu_disc,
        reset_on_failure: settings.reset_on_failure,
        udp_move: settings.udp_move,
        tunnel_sources: tunnel_sources(settings),
    }
}

fn tunnel_sources(settings: &config::Settings) -> TunnelSources {
    let own = &settings.tunnel_source;
    TunnelSources {
        v4: own.iter().find_map(|prefix| match prefix.addr() {
            IpAddr::V4(addr) => Some((addr, prefix.len())),
            IpAddr::V6(_) => None,
        }),
        v6: own.iter().find_map(|prefix| match prefix.addr() {
            IpAddr::V6(addr) => Some((addr, prefix.len())),
            IpAddr::V4(_) => None,
        }),
    }
}

fn timeouts(told: &config::Timeouts) -> Timeouts {
    let all = Timeout::ALL.iter();
    all.fold(Timeouts::default(), |timeouts, state| {
        timeouts.with(state_of(*state), told.get(*state))
    })
}

const fn state_of(timeout: Timeout) -> State {
    match timeout {
        Timeout::TcpNone => State::None,
        Timeout::TcpEstablished => State::Established,
        Timeout::TcpSynSent => State::SynSent,
        Timeout::TcpSynRecv => State::SynRecv,
        Timeout::TcpFinWait => State::FinWait,
        Timeout::TcpTimeWait => State::TimeWait,
        Timeout::TcpClose => State::Close,
        Timeout::TcpCloseWait => State::CloseWait,
        Timeout::TcpLastAck => State::LastAck,
        Timeout::TcpListen => State::Listen,
        Timeout::TcpSynAck => State::SynAck,
        Timeout::Udp => State::Udp,
        Timeout::SctpNone => State::SctpNone,
        Timeout::SctpInit1 => State::SctpInit1,
        Timeout::SctpInit => State::SctpInit,
        Timeout::SctpCookieSent => State::SctpCookieSent,
        Timeout::SctpCookieReplied => State::SctpCookieReplied,
        Timeout::SctpCookieWait => State::SctpCookieWait,
        Timeout::SctpCookie => State::SctpCookie,
        Timeout::SctpCookieEchoed => State::SctpCookieEchoed,
        Timeout::SctpEstablished => State::SctpEstablished,
        Timeout::SctpShutdownSent => State::SctpShutdownSent,
        Timeout::SctpShutdownReceived => State::SctpShutdownReceived,
        Timeout::SctpShutdownAckSent => State::SctpShutdownAckSent,
        Timeout::SctpRejected => State::SctpRejected,
        Timeout::SctpClosed => State::SctpClosed,
    }
}

/// The addresses that a match of a virtual server covers; of a mark those of its rules.
pub(super) fn bounds(what: &Match, marks: &[config::MarkRule]) -> Vec<(IpAddr, IpAddr)> {
    match *what {
        Match::Address(key) => vec![(key.endpoint.addr, key.endpoint.addr)],
        Match::Range { first, last, .. } => vec![(first, last)],
        Match::Mark { mark, ipv6 } => marks
            .iter()
            .filter(|rule| rule.mark == mark)
            .map(|rule| rule.destination.bounds())
            .filter(|(first, _)| first.is_ipv6() == ipv6)
            .collect(),
    }
}
