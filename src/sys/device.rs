//! What the packet I/O must know of an interface: its address, MTU, queues and receive offloads, of
//! which it can switch off those that get in its way.
//! Asked by ioctl: it answers for the network namespace of the caller, where sysfs answers for the
//! one it was mounted in.

use std::{
    ffi::CStr,
    fmt, fs, io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use super::open_error::OpenError;
use crate::addr::MacAddr;

/// Commands of SIOCETHTOOL, and two of its flags: <linux/ethtool.h>.
const ETHTOOL_GGRO: u32 = 0x2b;
const ETHTOOL_SGRO: u32 = 0x2c;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETH_FLAG_LRO: u32 = 1 << 15;
const ETH_FLAG_RXVLAN: u32 = 1 << 8;
/// The VLAN devices of the reader's network namespace; absent where the kernel has none.
const VLAN_DEVICES: &str = "/proc/net/vlan/config";

/// An interface that packets are to be taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceSpec {
    /// Its name.
    pub name: String,
    /// Its index in this network namespace; never 0.
    pub ifindex: u32,
}

impl fmt::Display for InterfaceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// What an interface says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Properties {
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Whether somebody switched it on.
    pub up: bool,
    /// Receive queues, at least 1.
    pub queues: u32,
    /// Whether it hands on received packets merged (GRO or LRO), larger than the MTU.
    pub merges: bool,
    /// Whether VLAN devices sit on it and it takes the tags off before XDP sees a packet.
    pub strips_vlan: bool,
}

/// The merging of received packets that [`stop_merging`] switched off on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merging {
    spec: InterfaceSpec,
    gro: bool,
    lro: bool,
}

/// struct ethtool_value.
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

/// struct ethtool_channels: the eight counts are of rx, tx, other and combined channels, first
/// possible, then in use.
#[repr(C)]
struct EthtoolChannels {
    cmd: u32,
    max: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// Asks `spec`'s interface what it is.
///
/// # Errors
/// [`OpenError::NoInterface`], [`OpenError::NotEthernet`], or what the kernel refused.
pub fn properties(spec: &InterfaceSpec) -> Result<Properties, OpenError> {
    let socket = Query::new()
        .map_err(|e| OpenError::from_errno(&spec.name, "ask about the interface", e))?;
    let ask = |request| {
        let mut ifr = request_for(&spec.name)?;
        socket
            .ioctl(request, &mut ifr)
            .map_err(|e| OpenError::from_errno(&spec.name, "ask about the interface", e))?;
        Ok(ifr)
    };
    let index = ask(libc::SIOCGIFINDEX)?;
    // SAFETY: SIOCGIFINDEX filled `ifru_ifindex`, and every bit pattern is an integer.
    if u32::try_from(unsafe { index.ifr_ifru.ifru_ifindex }) != Ok(spec.ifindex) {
        return Err(no_interface(&spec.name));
    }
    // SAFETY: SIOCGIFHWADDR filled `ifru_hwaddr`, a plain sockaddr.
    let address = unsafe { ask(libc::SIOCGIFHWADDR)?.ifr_ifru.ifru_hwaddr };
    if address.sa_family != libc::ARPHRD_ETHER {
        return Err(OpenError::NotEthernet {
            interface: spec.name.clone(),
        });
    }
    // SAFETY: SIOCGIFMTU filled `ifru_mtu`, and every bit pattern is an integer.
    let mtu = unsafe { ask(libc::SIOCGIFMTU)?.ifr_ifru.ifru_mtu };
    // SAFETY: SIOCGIFFLAGS filled `ifru_flags`, and every bit pattern is an integer.
    let state = unsafe { ask(libc::SIOCGIFFLAGS)?.ifr_ifru.ifru_flags };
    let flags = socket.ethtool_value(&spec.name, ETHTOOL_GFLAGS);
    let gro = socket.ethtool_value(&spec.name, ETHTOOL_GGRO) != 0;
    let vlans = fs::read_to_string(VLAN_DEVICES).unwrap_or_default();
    Ok(Properties {
        mac: mac_of(&address),
        mtu: u32::try_from(mtu).unwrap_or(0),
        up: i32::from(state) & libc::IFF_UP != 0,
        queues: socket.queues(&spec.name),
        merges: gro || flags & ETH_FLAG_LRO != 0,
        strips_vlan: flags & ETH_FLAG_RXVLAN != 0 && carries_vlans(&vlans, &spec.name),
    })
}

/// The name that the interface of this index has now; `None` when there is none.
pub fn name(ifindex: u32) -> Option<String> {
    let socket = Query::new().ok()?;
    // SAFETY: ifreq is plain integers, and a union of them, for which zero is a value.
    let mut ifr: libc::ifreq = unsafe { mem::zeroed() };
    ifr.ifr_ifru.ifru_ifindex = i32::try_from(ifindex).ok()?;
    socket.ioctl(libc::SIOCGIFNAME, &mut ifr).ok()?;
    let bytes = ifr.ifr_name.map(|byte| byte.to_ne_bytes()[0]);
    let name = CStr::from_bytes_until_nul(&bytes).ok()?;
    name.to_str().ok().map(str::to_owned)
}

/// The Ethernet address that `spec`'s interface has now.
///
/// # Errors
/// What the kernel refused.
pub fn address(spec: &InterfaceSpec) -> io::Result<MacAddr> {
    let mut ifr = request_for(&spec.name).map_err(|_| io::ErrorKind::NotFound)?;
    Query::new()?.ioctl(libc::SIOCGIFHWADDR, &mut ifr)?;
    // SAFETY: SIOCGIFHWADDR filled `ifru_hwaddr`, a plain sockaddr.
    Ok(mac_of(&unsafe { ifr.ifr_ifru.ifru_hwaddr }))
}

/// Receive queues that `spec`'s interface has now, at least 1.
///
/// # Errors
/// What socket(2) reported.
pub fn queues(spec: &InterfaceSpec) -> io::Result<u32> {
    Ok(Query::new()?.queues(&spec.name))
}

/// Waits until a change of an interface that is under way is done: an ethtool command takes the lock that the
/// kernel changes interfaces under (rtnl).
pub(super) fn wait_for_changes() {
    if let Ok(socket) = Query::new() {
        socket.ethtool_value("lo", ETHTOOL_GFLAGS);
    }
}

/// Switches off GRO and LRO on `spec`'s interface: merged packets are larger than the buffers, and
/// their checksums are not those of the wire.
///
/// # Errors
/// What the kernel refused; then all is as it was.
pub fn stop_merging(spec: &InterfaceSpec) -> io::Result<Merging> {
    let socket = Query::new()?;
    let name = &spec.name;
    let mut stopped = Merging {
        spec: spec.clone(),
        gro: false,
        lro: false,
    };
    let mut off = || {
        if socket.ethtool_value(name, ETHTOOL_GGRO) != 0 {
            socket.set_ethtool_value(name, ETHTOOL_SGRO, 0)?;
            stopped.gro = true;
        }
        let flags = socket.ethtool_value(name, ETHTOOL_GFLAGS);
        if flags & ETH_FLAG_LRO != 0 {
            socket.set_ethtool_value(name, ETHTOOL_SFLAGS, flags & !ETH_FLAG_LRO)?;
            stopped.lro = true;
        }
        Ok(())
    };
    match off() {
        Ok(()) => Ok(stopped),
        Err(error) => {
            stopped.restore();
            Err(error)
        }
    }
}

impl Merging {
    /// Switches on again what was switched off, unless another interface has the name now. What the
    /// kernel refuses stays off, which costs the host speed and nothing else.
    pub fn restore(&self) {
        let Ok(socket) = Query::new() else { return };
        let name = &self.spec.name;
        if socket.index(name) != Some(self.spec.ifindex) {
            return;
        }
        if self.gro {
            let _ = socket.set_ethtool_value(name, ETHTOOL_SGRO, 1);
        }
        if self.lro {
            let flags = socket.ethtool_value(name, ETHTOOL_GFLAGS);
            let _ = socket.set_ethtool_value(name, ETHTOOL_SFLAGS, flags | ETH_FLAG_LRO);
        }
    }
}

impl fmt::Display for Merging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.gro, self.lro) {
            (true, true) => "gro and lro switched off",
            (false, true) => "lro switched off",
            (true, false) => "gro switched off",
            (false, false) => "nothing to switch off",
        })
    }
}

/// Whether `config` (the text of [`VLAN_DEVICES`]: name, VLAN, parent) has a device on `parent`.
fn carries_vlans(config: &str, parent: &str) -> bool {
    config
        .lines()
        .filter_map(|line| line.rsplit_once('|'))
        .any(|(_, name)| name.trim() == parent)
}

fn mac_of(address: &libc::sockaddr) -> MacAddr {
    let mut mac = [0; 6];
    for (to, from) in mac.iter_mut().zip(address.sa_data) {
        *to = from.to_ne_bytes()[0];
    }
    MacAddr(mac)
}

fn no_interface(name: &str) -> OpenError {
    OpenError::NoInterface {
        interface: name.to_owned(),
    }
}

/// An ifreq that names `name`, all else zero.
fn request_for(name: &str) -> Result<libc::ifreq, OpenError> {
    // SAFETY: ifreq is plain integers, and a union of them, for which zero is a value.
    let mut ifr: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte stays zero: the name is a C string.
    if name.len() >= ifr.ifr_name.len() {
        return Err(no_interface(name));
    }
    for (to, from) in ifr.ifr_name.iter_mut().zip(name.as_bytes()) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    Ok(ifr)
}

/// A socket to send ioctls through; which kind does not matter.
struct Query(OwnedFd);

impl Query {
    fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just created, so it is open and nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn ioctl(&self, request: libc::Ioctl, ifr: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: every request used here takes an ifreq, which is writable and alive for the call; a
        // pointer in it (SIOCETHTOOL) is the caller's, see `ethtool`.
        if unsafe { libc::ioctl(self.0.as_raw_fd(), request, ifr) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// The index of the interface that has this name now.
    fn index(&self, name: &str) -> Option<u32> {
        let mut ifr = request_for(name).ok()?;
        self.ioctl(libc::SIOCGIFINDEX, &mut ifr).ok()?;
        // SAFETY: SIOCGIFINDEX filled `ifru_ifindex`, and every bit pattern is an integer.
        u32::try_from(unsafe { ifr.ifr_ifru.ifru_ifindex }).ok()
    }

    /// One ethtool command. `T` must be the structure that the command in its first word takes.
    fn ethtool<T>(&self, name: &str, argument: &mut T) -> io::Result<()> {
        let mut ifr = request_for(name).map_err(|_| io::ErrorKind::InvalidInput)?;
        ifr.ifr_ifru.ifru_data = (&raw mut *argument).cast();
        self.ioctl(libc::SIOCETHTOOL, &mut ifr)
    }

    fn set_ethtool_value(&self, name: &str, cmd: u32, data: u32) -> io::Result<()> {
        self.ethtool(name, &mut EthtoolValue { cmd, data })
    }

    /// 0 where the driver does not know the command.
    fn ethtool_value(&self, name: &str, cmd: u32) -> u32 {
        let mut value = EthtoolValue { cmd, data: 0 };
        if self.ethtool(name, &mut value).is_ok() {
            value.data
        } else {
            0
        }
    }

    /// Receive queues in use. A driver without channels has one.
    fn queues(&self, name: &str) -> u32 {
        let mut channels = EthtoolChannels {
            cmd: ETHTOOL_GCHANNELS,
            max: [0; 4],
            rx: 0,
            tx: 0,
            other: 0,
            combined: 0,
        };
        if self.ethtool(name, &mut channels).is_ok() {
            channels.rx.saturating_add(channels.combined).max(1)
        } else {
            1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlan_devices_are_found_by_their_parent() {
        let config = "VLAN Dev name\t | VLAN ID\n\
                      Name-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\n\
                      eth0.5         | 5  | eth0\n\
                      eth10.7        | 7  | eth10\n";
        assert!(carries_vlans(config, "eth0") && carries_vlans(config, "eth10"));
        assert!(!carries_vlans(config, "eth1") && !carries_vlans(config, "eth0.5"));
        assert!(!carries_vlans("", "eth0"));
    }

    #[test]
    fn loopback_and_strangers_are_refused_by_name() {
        let lo = InterfaceSpec {
            name: "lo".to_owned(),
            ifindex: 1,
        };
        assert!(matches!(
            properties(&lo),
            Err(OpenError::NotEthernet { .. })
        ));
        for (name, ifindex) in [("lo", 77), ("xvs-none", 1), ("a-name-far-too-long", 1)] {
            let spec = InterfaceSpec {
                name: name.to_owned(),
                ifindex,
            };
            let error = properties(&spec).unwrap_err();
            assert!(matches!(error, OpenError::NoInterface { .. }), "{error}");
        }
    }
}
