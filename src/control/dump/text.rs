//! For people, with the labels that programs look for in keepalived's files.

use std::fmt::Write as _;

use super::Snapshot;
use crate::{
    config::{self, VirtualAddress, VrrpInstance},
    control::api::{InstanceStatus, RealStatus, ServiceStatus},
};

/// Lines of text.
#[derive(Default)]
struct Text(String);

impl Text {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{line}");
    }

    fn heading(&mut self, what: &str) {
        self.line(format_args!("------< {what} >------"));
    }
}

/// Everything: what runs, how it is, and the configuration that counts, passwords masked.
pub(super) fn data(snapshot: &Snapshot) -> String {
    let mut text = Text::default();
    text.heading(concat!("xvs ", env!("CARGO_PKG_VERSION")));
    text.heading("VRRP Topology");
    for status in &snapshot.instances {
        let mut all = snapshot.config.vrrp_instances.iter();
        instance(&mut text, status, all.find(|one| one.name == status.name));
    }
    text.heading("LVS Topology");
    for service in &snapshot.services {
        virtual_server(&mut text, service);
    }
    text.heading("Configuration");
    text.0 += &config::effective(&snapshot.config);
    text.0
}

fn instance(text: &mut Text, status: &InstanceStatus, config: Option<&VrrpInstance>) {
    text.line(format_args!(" VRRP Instance = {}", status.name));
    text.line(format_args!("   State = {}", status.state));
    for problem in status.reason.iter().chain(&status.problems) {
        text.line(format_args!("   Problem = {problem}"));
    }
    let seconds = status.for_seconds;
    let since = &status.since;
    text.line(format_args!(
        "   Last transition = {since} ({seconds} s ago)"
    ));
    if let Some(master) = status.master {
        text.line(format_args!("   Master router = {master}"));
    }
    text.line(format_args!("   Interface = {}", status.interface));
    text.line(format_args!("   Virtual Router ID = {}", status.vrid));
    text.line(format_args!("   Effective priority = {}", status.priority));
    let Some(config) = config else { return };
    text.line(format_args!("   Priority = {}", config.priority));
    let interval = config.advert_int.as_secs_f64();
    text.line(format_args!("   Advert interval = {interval} sec"));
    let delay = config.garp.master_delay.as_secs();
    text.line(format_args!("   Gratuitous ARP delay = {delay}"));
    let preempt = if config.preempt {
        "enabled"
    } else {
        "disabled"
    };
    text.line(format_args!("   Preempt = {preempt}"));
    for (label, vips) in [
        ("Virtual IP", &config.virtual_ipaddress),
        ("Virtual IP Excluded", &config.virtual_ipaddress_excluded),
    ] {
        if !vips.is_empty() {
            text.line(format_args!("   {label} ({}):", vips.len()));
            for vip in vips {
                text.line(format_args!("     {}", address(vip, status)));
            }
        }
    }
}

/// An address as keepalived writes it: `10.0.0.9 dev eth0 scope global set`. A length is that of a network, and the
/// last word is there while the address is on its interface.
pub(super) fn address(vip: &VirtualAddress, status: &InstanceStatus) -> String {
    let scope = match vip.scope {
        0 => "global".to_owned(),
        200 => "site".to_owned(),
        253 => "link".to_owned(),
        254 => "host".to_owned(),
        number => number.to_string(),
    };
    let (prefix, dev) = (vip.prefix, &vip.dev);
    let is_host = prefix.len() == if prefix.addr().is_ipv4() { 32 } else { 128 };
    let shown = if is_host {
        prefix.addr().to_string()
    } else {
        prefix.to_string()
    };
    let place = format!("{prefix} dev {dev}");
    let set = if status.held.contains(&place) {
        " set"
    } else {
        ""
    };
    format!("{shown} dev {dev} scope {scope}{set}")
}

fn virtual_server(text: &mut Text, service: &ServiceStatus) {
    let ServiceStatus {
        protocol,
        address,
        port,
        ..
    } = service;
    match &service.group {
        Some(group) => text.line(format_args!(" VS GROUP = {group}, {protocol}")),
        None => text.line(format_args!(" VS = [{address}]:{protocol}:{port}")),
    }
    text.line(format_args!("   lb_algo = {}", service.scheduler));
    let quorum = if service.quorum_met { "up" } else { "lost" };
    text.line(format_args!("   Quorum = {quorum}"));
    let steered = if service.steered { "yes" } else { "no" };
    text.line(format_args!("   Forwarded here = {steered}"));
    let totals = &service.totals;
    text.line(format_args!(
        "   Connections = {}, packets in = {}, out = {}, bytes in = {}, out = {}",
        totals.connections,
        totals.packets_in,
        totals.packets_out,
        totals.bytes_in,
        totals.bytes_out
    ));
    for real in &service.reals {
        real_server(text, real);
    }
}

fn real_server(text: &mut Text, real: &RealStatus) {
    let state = match (real.up, real.in_pool) {
        (true, true) => "alive",
        (true, false) => "alive, not in the pool",
        (false, _) => "down",
    };
    text.line(format_args!(
        "   RS = [{}]:{}, {}, weight = {}, {state}, active = {}, inactive = {}",
        real.address, real.port, real.forward, real.weight, real.active, real.inactive
    ));
    if let Some(reason) = &real.reason {
        text.line(format_args!("     Problem = {reason}"));
    }
}

/// What VRRP has counted.
pub(super) fn statistics(instances: &[InstanceStatus]) -> String {
    let mut text = Text::default();
    for instance in instances {
        let count = |name: &str| count(instance, name);
        text.line(format_args!("VRRP Instance: {}", instance.name));
        for (label, value) in [
            ("  Advertisements:", None),
            ("    Received", Some(count("adverts-received"))),
            ("    Sent", Some(count("adverts-sent"))),
            ("  Became master", Some(count("became-master"))),
            ("  Released master", Some(count("released-master"))),
            ("  Packet Errors:", None),
            ("    Length", Some(count("rejected-length"))),
            ("    TTL", Some(count("rejected-ttl"))),
            ("    Invalid Type", Some(count("rejected-type"))),
            (
                "    Advertisement Interval",
                Some(count("rejected-interval")),
            ),
            ("    Address List", Some(count("address-list-mismatches"))),
            ("  Authentication Errors:", None),
            (
                "    Invalid Type",
                Some(count("rejected-auth-type-unknown")),
            ),
            (
                "    Type Mismatch",
                Some(count("rejected-auth-type-mismatch")),
            ),
            ("    Failure", Some(count("rejected-password"))),
            ("  Priority Zero:", None),
            ("    Received", Some(count("priority-zero-received"))),
            ("    Sent", Some(count("priority-zero-sent"))),
        ] {
            match value {
                Some(value) => text.line(format_args!("{label}: {value}")),
                None => text.line(format_args!("{label}")),
            }
        }
    }
    text.0
}

/// A counter of an instance. What never occurred may be left out of them.
pub(super) fn count(instance: &InstanceStatus, name: &str) -> u64 {
    let mut all = instance.counters.iter();
    all.find(|counter| counter.name == name)
        .map_or(0, |counter| counter.count)
}
