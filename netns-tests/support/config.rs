//! Configurations of the tests, in keepalived's language.

use std::{fmt::Write as _, net::Ipv4Addr, path::PathBuf};

use super::lan::{REALS, VIP};

/// Timers of a check that notices within about two seconds, for tests that wait for it.
const QUICK_CHECK: &str = "TCP_CHECK { connect_timeout 1\nretry 1\ndelay_before_retry 1\n }";

/// The seed configuration as it was handed over.
pub(crate) fn seed() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/seed.conf");
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The seed configuration for the second box: another state and priority, and not one byte more.
pub(crate) fn seed_for_backup() -> String {
    let original = seed();
    let changed = original
        .replacen("    state MASTER", "    state BACKUP", 1)
        .replacen("    priority 100", "    priority 90", 1);
    assert_ne!(original, changed, "the seed configuration looks different");
    changed
}

/// One VRRP instance with the seed configuration's identity and password.
pub(crate) fn vrrp(state: &str, priority: u8) -> String {
    vrrp_with(state, priority, "1111", "")
}

/// A VRRP instance with a password and further lines.
pub(crate) fn vrrp_with(state: &str, priority: u8, password: &str, lines: &str) -> String {
    format!(
        "vrrp_instance VI_1 {{
    state {state}
    interface eth0
    virtual_router_id 51
    priority {priority}
    advert_int 1
    {lines}
    authentication {{
        auth_type PASS
        auth_pass {password}
    }}
    virtual_ipaddress {{
        {VIP}
    }}
}}\n"
    )
}

/// The lines that make adverts unicast between two addresses.
pub(crate) fn unicast(own: Ipv4Addr, peer: Ipv4Addr) -> String {
    format!("unicast_src_ip {own}\n    unicast_peer {{\n        {peer}\n    }}")
}

/// A virtual server on `port` of the VIP with one real server per weight, the first of
/// [`REALS`] first, and further `lines` such as `lb_algo rr`.
pub(crate) fn service(port: u16, lines: &str, weights: &[u32]) -> String {
    let mut text = format!("virtual_server {VIP} {port} {{\n    delay_loop 1\n    lb_kind DR\n");
    let _ = writeln!(text, "    protocol TCP\n    {lines}");
    for (real, weight) in REALS.iter().zip(weights) {
        let _ = writeln!(
            text,
            "    real_server {real} {port} {{ weight {weight}\n {QUICK_CHECK}\n }}"
        );
    }
    text + "}\n"
}

/// A virtual server of any kind: what stands behind `virtual_server`, lines, and real servers as
/// [`checked`] and [`unchecked`] give them.
pub(crate) fn virtual_server(head: &str, lines: &str, reals: &[String]) -> String {
    let reals = reals.concat();
    format!("virtual_server {head} {{\n    delay_loop 1\n    {lines}\n{reals}}}\n")
}

/// A real server (`ADDRESS PORT`) that is checked by a TCP connection, with further lines.
pub(crate) fn checked(endpoint: &str, lines: &str) -> String {
    format!("    real_server {endpoint} {{\n    {lines}\n    {QUICK_CHECK}\n    }}\n")
}

/// A real server that is not checked.
pub(crate) fn unchecked(endpoint: &str, lines: &str) -> String {
    format!("    real_server {endpoint} {{\n    {lines}\n    }}\n")
}
