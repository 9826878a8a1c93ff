//! `xvs list`: the text that `ipvsadm -Ln` prints, column for column, for scripts that read it.

mod table;
#[cfg(test)]
mod tests;

use std::{
    fmt::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use self::table::{Column, Numbers};
use crate::control::api::{MatchStatus, RealStatus, ServiceList, ServiceStatus};

/// The version of the IPVS interface whose output this is; the first line of `ipvsadm -Ln`.
const IPVS_VERSION: &str = "1.2.1";

/// Addresses of a range that are shown as entries of their own: as many as a line of keepalived's groups can have for
/// IPv4.
const MAX_ENTRIES: usize = 256;

/// What is shown of the virtual and real servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum View {
    /// Schedulers, weights and connections.
    #[default]
    Plain,
    /// The same, with how packets are wrapped.
    TunnelInfo,
    /// What went through since the start; `exact`: without shortening large numbers.
    Totals { exact: bool },
    /// What goes through in a second.
    Rates { exact: bool },
}

/// Formats the virtual servers as `ipvsadm -Ln` does. Real servers that are out of the pool are not
/// listed, as keepalived takes them out of IPVS; `--json` has them.
///
/// Each address of a group is an entry with all its real servers, as in IPVS. But the daemon counts what a real server
/// has for the group, not for each address: the numbers stand at the first entry, and are not known at the others.
pub(super) fn render(list: &ServiceList, view: View) -> String {
    let size = list.connection_table_size;
    let mut text = format!("IP Virtual Server version {IPVS_VERSION} (size={size})\n");
    text += match view {
        View::Plain => {
            "Prot LocalAddress:Port Scheduler Flags\n  \
             -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
        }
        View::TunnelInfo => {
            "Prot LocalAddress:Port Scheduler Flags\n  \
             -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn\n"
        }
        View::Totals { .. } => {
            "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n  \
             -> RemoteAddress:Port\n"
        }
        View::Rates { .. } => {
            "Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS\n  \
             -> RemoteAddress:Port\n"
        }
    };
    let mut apart = false;
    for service in &list.services {
        // A daemon of before there were groups does not list what it takes.
        let single = MatchStatus::Address {
            protocol: service.protocol.clone(),
            address: service.address,
            port: service.port,
        };
        let matches = match &service.matches[..] {
            [] => std::slice::from_ref(&single),
            matches => matches,
        };
        let entries = matches.iter().flat_map(entries_of);
        for (number, one) in entries.enumerate() {
            let counted = number == 0;
            apart |= !counted;
            write_service(&mut text, &one, service, view, counted);
            for real in service.reals.iter().filter(|real| real.in_pool) {
                write_real(&mut text, &one, real, view, counted);
            }
        }
    }
    if apart {
        text += "(-: counted with the first address of the group)\n";
    }
    text
}

/// The entries that IPVS would have: one for each address. What has more of them than keepalived's groups can is shown
/// as it is.
fn entries_of(one: &MatchStatus) -> Vec<MatchStatus> {
    let MatchStatus::Range {
        protocol,
        first,
        last,
        port,
    } = one
    else {
        return vec![one.clone()];
    };
    let address = |address: IpAddr| MatchStatus::Address {
        protocol: protocol.clone(),
        address,
        port: *port,
    };
    let entries: Vec<MatchStatus> = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => (first.to_bits()..=last.to_bits())
            .take(MAX_ENTRIES + 1)
            .map(|bits| address(Ipv4Addr::from_bits(bits).into()))
            .collect(),
        (IpAddr::V6(first), IpAddr::V6(last)) => (first.to_bits()..=last.to_bits())
            .take(MAX_ENTRIES + 1)
            .map(|bits| address(Ipv6Addr::from_bits(bits).into()))
            .collect(),
        _ => Vec::new(),
    };
    if (1..=MAX_ENTRIES).contains(&entries.len()) {
        entries
    } else {
        vec![one.clone()]
    }
}

/// `counted`: whether the numbers are known of this entry.
fn write_service(
    text: &mut String,
    one: &MatchStatus,
    service: &ServiceStatus,
    view: View,
    counted: bool,
) {
    let name = Name(one).to_string();
    // Writing to a String cannot fail.
    let _ = match view {
        View::Plain | View::TunnelInfo => write!(text, "{name} {}", service.scheduler),
        View::Totals { exact } => {
            let numbers = counted.then(|| Numbers::from(&service.totals));
            return table::write_line(text, &name, numbers, [Column::large(exact); 5]);
        }
        View::Rates { exact } => {
            let numbers = counted.then(|| Numbers::from(&service.rates));
            return table::write_line(text, &name, numbers, [Column::large(exact); 5]);
        }
    };
    if !service.flags.is_empty() {
        let _ = write!(text, " ({})", service.flags.join(","));
    }
    if let Some(timeout) = service.persistence_timeout {
        let _ = write!(text, " persistent {timeout}");
        let whole = if one.is_ipv6() { 128 } else { 32 };
        let length = service.persistence_granularity;
        if let Some(length) = length.filter(|length| *length < whole) {
            let _ = write!(text, " mask {}", mask(one, length));
        }
    }
    if service.one_packet {
        text.push_str(" ops");
    }
    text.push('\n');
}

/// ipvsadm prints an IPv4 mask in dotted form, an IPv6 one as a prefix length.
fn mask(one: &MatchStatus, length: u8) -> String {
    if one.is_ipv6() {
        return length.to_string();
    }
    let bits = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
    std::net::Ipv4Addr::from(bits).to_string()
}

/// What ipvsadm calls a virtual server: `TCP  10.0.0.1:80`, `FWM  3 IPv6`. It has no word for several
/// addresses, which are shown as the configuration has them.
struct Name<'a>(&'a MatchStatus);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            MatchStatus::Address {
                protocol,
                address,
                port,
            } => write!(f, "{protocol:<4} {}", SocketAddr::new(*address, *port)),
            MatchStatus::Range {
                protocol,
                first,
                last,
                port,
            } => write_several(f, protocol, *first, format_args!("-{last}"), *port),
            MatchStatus::Prefix {
                protocol,
                address,
                length,
                port,
            } => write_several(f, protocol, *address, format_args!("/{length}"), *port),
            MatchStatus::Mark { mark, ipv6: false } => write!(f, "FWM  {mark}"),
            MatchStatus::Mark { mark, ipv6: true } => write!(f, "FWM  {mark} IPv6"),
        }
    }
}

fn write_several(
    f: &mut fmt::Formatter<'_>,
    protocol: &str,
    first: IpAddr,
    rest: fmt::Arguments<'_>,
    port: u16,
) -> fmt::Result {
    match first {
        IpAddr::V4(first) => write!(f, "{protocol:<4} {first}{rest}:{port}"),
        IpAddr::V6(first) => write!(f, "{protocol:<4} [{first}{rest}]:{port}"),
    }
}

/// A real server of the entry `one`; `counted`: whether the numbers are known of this entry.
fn write_real(text: &mut String, one: &MatchStatus, real: &RealStatus, view: View, counted: bool) {
    // Where the configuration names none it is the client's, which IPVS shows as the entry's.
    let port = match real.port {
        0 => one.port(),
        port => port,
    };
    let name = format!(
        "  -> {:<28}",
        SocketAddr::new(real.address, port).to_string()
    );
    let RealStatus {
        forward, weight, ..
    } = real;
    let number = |number: u64| match counted {
        true => number.to_string(),
        false => table::UNKNOWN.to_owned(),
    };
    let (active, inactive) = (number(real.active), number(real.inactive));
    // Writing to a String cannot fail.
    let _ = match view {
        View::Plain => writeln!(
            text,
            "{name} {forward:<7} {weight:<6} {active:<10} {inactive:<10}"
        ),
        View::TunnelInfo => {
            let tunnel = real.tunnel.as_deref().unwrap_or("n/a");
            writeln!(
                text,
                "{name} {forward:<7} {tunnel:<13} {weight:<6} {active:<10} {inactive:<10}"
            )
        }
        View::Totals { exact } => {
            let numbers = counted.then(|| Numbers::from(real));
            return table::write_line(text, &name, numbers, [Column::large(exact); 5]);
        }
        View::Rates { exact } => {
            let [whole, large] = [Column::Whole, Column::large(exact)];
            let columns = [whole, whole, whole, large, large];
            let numbers = counted.then(|| Numbers::from(&real.rates));
            return table::write_line(text, &name, numbers, columns);
        }
    };
}
