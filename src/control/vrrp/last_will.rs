//! What the guardian does when the engine dies: the same as an orderly stop, as far as others are
//! concerned.
//!
//! keepalived's addresses and IPVS live on in the kernel when the daemon dies; ours do not. So the
//! guardian sends priority 0 for every instance that was MASTER, which makes the backup take over
//! within one skew, and removes the virtual addresses. It leaves the steering program: what it
//! would have steered is dropped, so the host resets no connection that the next master, or the next
//! start, could carry on.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    super::log::{self, Level, Log, Room},
    Vrrp,
};
use crate::{
    addr::IpPrefix,
    sys::{
        clock,
        instance_lock::{InstanceLock, LockError},
        netlink::{Netlink, Removed},
        vrrp_socket::VrrpSocket,
    },
};

#[derive(Debug, Default, Serialize, Deserialize)]
struct Will {
    /// The process that dies.
    engine: u32,
    lock: PathBuf,
    adverts: Vec<Advert>,
    addresses: Vec<(u32, String)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Advert {
    ifindex: u32,
    destination: Ipv4Addr,
    packet: Vec<u8>,
}

/// An advert of priority 0, ready to be sent by whoever outlives the engine.
pub(super) struct FinalAdvert {
    /// The interface that it leaves by. Not its name, which may change.
    pub(super) ifindex: u32,
    pub(super) destination: Ipv4Addr,
    pub(super) packet: Vec<u8>,
}

/// The state that the guardian is left: what `vrrp` holds now, and the lock of this engine.
pub(in crate::control) fn write(vrrp: &Vrrp, lock: &Path) -> Vec<u8> {
    let (adverts, addresses) = vrrp.last_will();
    let advert = |advert: FinalAdvert| {
        let FinalAdvert {
            ifindex,
            destination,
            packet,
        } = advert;
        Advert {
            ifindex,
            destination,
            packet,
        }
    };
    let will = Will {
        engine: std::process::id(),
        lock: lock.to_owned(),
        adverts: adverts.into_iter().map(advert).collect(),
        addresses: addresses
            .into_iter()
            .map(|(i, prefix)| (i, prefix.to_string()))
            .collect(),
    };
    // Plain strings and numbers always serialise; an empty will is none.
    serde_json::to_vec(&will).unwrap_or_default()
}

/// Carries out the will that the engine left, and says so as it would have. Runs in the guardian, after the
/// engine's death.
pub(in crate::control) fn execute(state: &[u8], options: &log::Options) {
    let mut log = Log::new(options);
    let mut say = |level: Level, text: String| {
        let now = (clock::now(), clock::wall());
        log.say_each(now, Room::Vrrp, level, &text);
    };
    let will: Will = match serde_json::from_slice(state) {
        Ok(will) => will,
        // The engine had nothing to leave yet.
        Err(_) if state.is_empty() => return,
        Err(error) => {
            let text = format!("guardian: the engine's last state: {error}");
            return say(Level::Error, text);
        }
    };
    let mut netlink = match Netlink::open() {
        Ok(netlink) => netlink,
        Err(error) => return say(Level::Error, format!("guardian: {error}")),
    };
    for advert in &will.adverts {
        match send(&mut netlink, advert) {
            Ok(interface) => say(
                Level::Error,
                format!("guardian: the engine died, sent 0 priority on {interface}"),
            ),
            Err(error) => say(
                Level::Error,
                format!("guardian: sending 0 priority: {error}"),
            ),
        }
    }
    let Heir::Guardian { _lock } = wait_for_heir(&will, &mut say) else {
        return;
    };
    for (ifindex, prefix) in &will.addresses {
        let Ok(prefix) = prefix.parse::<IpPrefix>() else {
            continue;
        };
        match netlink.del_address(*ifindex, prefix) {
            Ok(Removed::Removed) => say(Level::Notice, format!("guardian: removed {prefix}")),
            Ok(Removed::NotThere) => {}
            Err(error) => say(Level::Error, format!("guardian: {error}")),
        }
    }
}

/// Whose the addresses of the dead engine are.
#[derive(Debug)]
enum Heir {
    /// One that was started at once; it removes what it finds itself.
    NewEngine,
    /// The guardian, who keeps new engines out meanwhile if it can.
    Guardian {
        /// Held until the addresses are removed.
        _lock: Option<InstanceLock>,
    },
}

/// Tries the lock until the dead engine has let go of it: the kernel closes the files of a process
/// one by one, and the socket that told of the death may be among the first.
fn wait_for_heir(will: &Will, say: &mut impl FnMut(Level, String)) -> Heir {
    let deadline = clock::now() + LETTING_GO;
    loop {
        let lock = InstanceLock::acquire(&will.lock);
        if let Some(heir) = heir(lock, will.engine, clock::now() >= deadline, say) {
            return heir;
        }
        std::thread::sleep(LETTING_GO_POLL);
    }
}

/// Who the heir is; `None` while that is to be seen.
fn heir(
    lock: Result<InstanceLock, LockError>,
    engine: u32,
    late: bool,
    say: &mut impl FnMut(Level, String),
) -> Option<Heir> {
    match lock {
        Ok(lock) => Some(Heir::Guardian { _lock: Some(lock) }),
        Err(LockError::Held {
            holder: Some(holder),
            ..
        }) if holder.pid != engine => Some(Heir::NewEngine),
        Err(LockError::Held { .. }) if !late => None,
        // An engine that does not let go, or a full or read-only file system, is no new engine.
        Err(error) => {
            say(Level::Error, format!("guardian: {error}"));
            Some(Heir::Guardian { _lock: None })
        }
    }
}

/// How long the kernel may take to close a dead engine's files: 256 MiB of memory took 20 ms.
const LETTING_GO: Duration = Duration::from_secs(2);
/// How often the guardian looks meanwhile.
const LETTING_GO_POLL: Duration = Duration::from_millis(1);

/// Sends the advert, and gives the name of the interface.
fn send(netlink: &mut Netlink, advert: &Advert) -> Result<String, String> {
    let link = netlink
        .link(advert.ifindex)
        .map_err(|error| error.to_string())?;
    let link = link.ok_or_else(|| format!("interface {} is gone", advert.ifindex))?;
    let socket = VrrpSocket::open(&link, None).map_err(|error| error.to_string())?;
    socket
        .send_to(advert.destination, &advert.packet)
        .map_err(|error| error.to_string())?;
    Ok(link.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_new_engine_keeps_the_guardian_from_removing_addresses() {
        let ours = std::process::id();
        let file = std::env::temp_dir().join(format!("xvs-will-{ours}.lock"));
        let mut said = Vec::new();
        let mut heir_at = |path: &Path, engine, late| {
            heir(InstanceLock::acquire(path), engine, late, &mut |_, line| {
                said.push(line)
            })
        };

        let Some(Heir::Guardian { _lock: Some(lock) }) = heir_at(&file, ours, false) else {
            panic!("the lock was free");
        };
        // This process is now the holder: a new engine, or the one that is about to let go.
        let other = ours.wrapping_add(1);
        assert!(matches!(
            heir_at(&file, other, false),
            Some(Heir::NewEngine)
        ));
        assert!(heir_at(&file, ours, false).is_none(), "it will let go");
        let late = heir_at(&file, ours, true);
        assert!(matches!(late, Some(Heir::Guardian { _lock: None })));
        drop(lock);
        let unreachable = file.join("no folder");
        let heir = heir_at(&unreachable, ours, false);
        assert!(matches!(heir, Some(Heir::Guardian { _lock: None })));
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[1].contains("no folder"), "{said:?}");
    }
}
