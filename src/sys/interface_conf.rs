//! Per-interface settings that the kernel keeps in `/proc/sys/net`.

use std::{fs, io, path::PathBuf};

/// Sets `promote_secondaries` of `interface` and tells what it was (keepalived
/// `promote_secondaries`).
///
/// With it off, removing the first address of a subnet makes the kernel remove all others of that
/// subnet as well: a VIP that happens to be the first would take the host's own address with it.
pub fn set_promote_secondaries(interface: &str, on: bool) -> io::Result<bool> {
    let setting = ipv4_setting(interface, "promote_secondaries")?;
    let was = fs::read_to_string(&setting)?.trim() != "0";
    if was != on {
        fs::write(&setting, if on { "1" } else { "0" })?;
    }
    Ok(was)
}

/// The file of an IPv4 setting. Dots are legal in interface names, slashes are not.
fn ipv4_setting(interface: &str, name: &str) -> io::Result<PathBuf> {
    if interface.is_empty() || interface.contains('/') || interface == "." || interface == ".." {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{interface:?} is not the name of an interface"),
        ));
    }
    Ok(PathBuf::from("/proc/sys/net/ipv4/conf")
        .join(interface)
        .join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_lead_elsewhere() {
        for name in ["", "..", "../../ipv6/conf/lo", "."] {
            assert!(set_promote_secondaries(name, true).is_err(), "{name:?}");
        }
        assert_eq!(
            ipv4_setting("eth0.100", "x").unwrap().to_str(),
            Some("/proc/sys/net/ipv4/conf/eth0.100/x")
        );
    }
}
