//! Per-interface settings that the kernel keeps in `/proc/sys/net`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

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

/// Lets `interface` take packets whose answers leave by another interface, and go no further than this host:
/// no strict check of sources (`rp_filter`), and no routing (`forwarding`). Settings that are right stay
/// unwritten, as a container may have `/proc/sys` read-only.
///
/// # Errors
/// The setting that could not be read or written.
pub fn receive_from_anywhere(interface: &str) -> io::Result<()> {
    let read = |interface: &str, name: &str| -> io::Result<_> {
        let setting = ipv4_setting(interface, name)?;
        let text = fs::read_to_string(&setting).map_err(|e| about(&setting, &e))?;
        Ok((setting, text.trim().to_owned()))
    };
    let write = |(setting, was): (PathBuf, String), value: &str| {
        if was == value {
            return Ok(());
        }
        fs::write(&setting, value).map_err(|e| about(&setting, &e))
    };
    // The larger of the two holds: 1 is strict, 2 asks just for any way back.
    let (_, of_all) = read("all", "rp_filter")?;
    let (setting, own) = read(interface, "rp_filter")?;
    if own.as_str().max(&of_all) == "1" {
        write((setting, own), if of_all == "0" { "0" } else { "2" })?;
    }
    write(read(interface, "forwarding")?, "0")
}

fn about(setting: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", setting.display()))
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
