//! `xvs cleanup`: removes what a crash left behind.

use std::{fs, path::Path};

use super::{engine::lock_path, forwarding::takeover};
use crate::{
    config::{Config, VrrpInstance},
    sys::{
        device::InterfaceSpec,
        instance_lock::{InstanceLock, InterfaceLock, VridFamily, VridLock},
        local_link,
        netlink::{Link, Netlink, Removed},
        steer,
    },
};

/// What a clean-up did.
#[derive(Debug, Default)]
pub struct Cleaned {
    /// A line for each thing removed.
    pub removed: Vec<String>,
    /// A line for each thing that is in use, or that could not be removed.
    pub left: Vec<String>,
}

/// Removes the virtual addresses of `config`'s VRRP instances, and the steering program or ingress
/// filter of a dead engine from every interface, its control socket, and the connections that it left. Without a configuration no
/// addresses are looked for. What a running engine has stays, whatever socket it listens on.
///
/// # Errors
/// The kernel does not say what there is.
pub fn cleanup(config: Option<&Config>, socket: &Path) -> Result<Cleaned, String> {
    let mut cleaned = Cleaned::default();
    let mut netlink = Netlink::open().map_err(|error| error.to_string())?;
    let links = netlink.links().map_err(|error| error.to_string())?;
    // Addresses first: while the program is there, the host resets nobody's connection.
    for instance in config.into_iter().flat_map(|config| &config.vrrp_instances) {
        remove_addresses(&mut netlink, &links, instance, &mut cleaned);
    }
    // It is no interface of the host's to look for anything on.
    match local_link::cleanup(&mut netlink) {
        Ok(removed) => cleaned.removed.extend(removed),
        Err(error) => cleaned.left.push(error.to_string()),
    }
    let links = netlink.links().map_err(|error| error.to_string())?;
    for link in links
        .iter()
        .filter(|link| !link.loopback && link.mac.is_some())
    {
        match InterfaceLock::acquire(link.index, &link.name) {
            Ok(_lock) => {
                let spec = InterfaceSpec {
                    name: link.name.clone(),
                    ifindex: link.index,
                };
                match steer::cleanup(&spec) {
                    Ok(removed) => cleaned.removed.extend(removed),
                    Err(error) => cleaned.left.push(error.to_string()),
                }
            }
            Err(held) => cleaned.left.push(held.to_string()),
        }
    }
    remove_socket(socket, &mut cleaned);
    let flows = takeover::folder(socket);
    match takeover::remove(&flows) {
        Ok(true) => (cleaned.removed).push(format!("removed {}", flows.display())),
        Ok(false) => {}
        Err(error) => (cleaned.left).push(format!("{}: {error}", flows.display())),
    }
    Ok(cleaned)
}

/// Removes the socket and the lock file of an engine that is gone.
fn remove_socket(socket: &Path, cleaned: &mut Cleaned) {
    if !socket.exists() {
        return;
    }
    match InstanceLock::acquire(&lock_path(socket)) {
        // Dropping the lock removes its file.
        Ok(_lock) => match fs::remove_file(socket) {
            Ok(()) => cleaned
                .removed
                .push(format!("removed {}", socket.display())),
            Err(error) => cleaned.left.push(format!("{}: {error}", socket.display())),
        },
        Err(held) => cleaned.left.push(held.to_string()),
    }
}

fn remove_addresses(
    netlink: &mut Netlink,
    links: &[Link],
    instance: &VrrpInstance,
    cleaned: &mut Cleaned,
) {
    let by_name = |name: &str| links.iter().find(|link| link.name == name);
    // An interface that is gone took its addresses along.
    let Some(link) = by_name(&instance.interface) else {
        return;
    };
    let vrid = instance.virtual_router_id;
    let _lock = match VridLock::acquire(link, VridFamily::V4, vrid) {
        Ok(lock) => lock,
        Err(held) => return cleaned.left.push(held.to_string()),
    };
    for vip in instance
        .virtual_ipaddress
        .iter()
        .chain(&instance.virtual_ipaddress_excluded)
    {
        let Some(device) = by_name(&vip.dev) else {
            continue;
        };
        match netlink.del_address(device.index, vip.prefix) {
            Ok(Removed::Removed) => {
                cleaned
                    .removed
                    .push(format!("{}: removed {}", vip.dev, vip.prefix));
            }
            Ok(Removed::NotThere) => {}
            Err(error) => cleaned.left.push(error.to_string()),
        }
    }
}
