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

/// Lets `interface`, which has an address, take packets whose answers leave by another interface, and go no
/// further than this host: it asks for any way back to the source at most (`rp_filter`), and routes nothing
/// (`forwarding`). What is right already may stay unwritten: a container may have `/proc/sys` read-only.
///
/// # Errors
/// The setting that could not be read or written.
pub fn receive_from_anywhere(interface: &str) -> io::Result<()> {
    // The larger of an interface's own and that of all holds: 1 is strict.
    let of_all = setting("all", "rp_filter")?.1;
    let (path, own) = setting(interface, "rp_filter")?;
    let is_right = own.max(of_all) != "1";
    set(&path, "2").or_else(|error| is_right.then_some(()).ok_or(error))?;
    let (path, own) = setting(interface, "forwarding")?;
    if own == "0" {
        return Ok(());
    }
    set(&path, "0")
}

/// The file of an IPv4 setting, and what is in it.
fn setting(interface: &str, name: &str) -> io::Result<(PathBuf, String)> {
    let path = ipv4_setting(interface, name)?;
    let text = fs::read_to_string(&path).map_err(|error| about(&path, &error))?;
    Ok((path, text.trim().to_owned()))
}

fn set(path: &Path, value: &str) -> io::Result<()> {
    fs::write(path, value).map_err(|error| about(path, &error))
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
