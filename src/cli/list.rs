//! `xvs list`: the text that `ipvsadm -Ln` prints, column for column, for scripts that read it.

use std::{fmt::Write as _, net::SocketAddr};

use crate::control::api::{RealStatus, ServiceList, ServiceStatus};

/// The version of the IPVS interface whose output this is; the first line of `ipvsadm -Ln`.
const IPVS_VERSION: &str = "1.2.1";

/// Formats the virtual servers as `ipvsadm -Ln` does. Real servers that are out of the pool are not
/// listed, as keepalived takes them out of IPVS; `--json` has them.
pub(super) fn render(list: &ServiceList) -> String {
    let size = list.connection_table_size;
    let mut text = format!(
        "IP Virtual Server version {IPVS_VERSION} (size={size})\n\
         Prot LocalAddress:Port Scheduler Flags\n  \
         -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
    );
    for service in &list.services {
        write_service(&mut text, service);
        for real in service.reals.iter().filter(|real| real.in_pool) {
            write_real(&mut text, real);
        }
    }
    text
}

fn write_service(text: &mut String, service: &ServiceStatus) {
    let endpoint = SocketAddr::new(service.address, service.port);
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "{:<4} {endpoint} {}",
        service.protocol, service.scheduler
    );
    if let Some(timeout) = service.persistence_timeout {
        let _ = write!(text, " persistent {timeout}");
        if let Some(len) = service.persistence_granularity {
            let _ = write!(text, " mask {}", mask(service, len));
        }
    }
    text.push('\n');
}

/// ipvsadm prints an IPv4 mask in dotted form, an IPv6 one as a prefix length.
fn mask(service: &ServiceStatus, len: u8) -> String {
    if service.address.is_ipv6() {
        return len.to_string();
    }
    let bits = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
    std::net::Ipv4Addr::from(bits).to_string()
}

fn write_real(text: &mut String, real: &RealStatus) {
    let endpoint = SocketAddr::new(real.address, real.port).to_string();
    let RealStatus {
        forward,
        weight,
        active,
        inactive,
        ..
    } = real;
    let _ = writeln!(
        text,
        "  -> {endpoint:<28} {forward:<7} {weight:<6} {active:<10} {inactive:<10}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn real(last: u8, weight: u32, active: u64, inactive: u64, in_pool: bool) -> RealStatus {
        RealStatus {
            address: std::net::IpAddr::from([10, 0, 1, last]),
            port: 443,
            forward: "Route".into(),
            weight,
            up: in_pool,
            in_pool,
            active,
            inactive,
            connections: 0,
            packets_in: 0,
            bytes_in: 0,
            next_hop: None,
            reason: None,
        }
    }

    fn list(granularity: Option<u8>) -> ServiceList {
        ServiceList {
            io: Vec::new(),
            connection_table_size: 4096,
            steering: Default::default(),
            frames: Default::default(),
            drops: Vec::new(),
            io_drops: Vec::new(),
            workers: Vec::new(),
            timing: Vec::new(),
            services: vec![ServiceStatus {
                protocol: "TCP".into(),
                address: std::net::IpAddr::from([192, 0, 2, 10]),
                port: 443,
                scheduler: "wlc".into(),
                persistence_timeout: Some(300),
                persistence_granularity: granularity,
                quorum_met: true,
                steered: true,
                reals: vec![
                    real(11, 3, 1204, 87, true),
                    real(12, 0, 310, 2, true),
                    real(13, 1, 9, 9, false),
                ],
            }],
        }
    }

    /// The sample of ipvsadm 1.31, trailing blanks included; .13 is out of the pool.
    #[test]
    fn the_layout_is_ipvsadms() {
        let expected = "IP Virtual Server version 1.2.1 (size=4096)\n\
            Prot LocalAddress:Port Scheduler Flags\n  \
            -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n\
            TCP  192.0.2.10:443 wlc persistent 300\n  \
            -> 10.0.1.11:443                Route   3      1204       87        \n  \
            -> 10.0.1.12:443                Route   0      310        2         \n";
        assert_eq!(render(&list(None)), expected);
    }

    #[test]
    fn a_granularity_is_shown_as_a_mask() {
        assert!(render(&list(Some(24))).contains("persistent 300 mask 255.255.255.0\n"));
        assert!(render(&list(Some(0))).contains("persistent 300 mask 0.0.0.0\n"));
    }
}
