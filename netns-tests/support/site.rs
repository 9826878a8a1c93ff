//! What every topology is made of: machines, switches and cables, under names of their own.

use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use super::{
    host::{Host, namespaces, remove},
    xvs::is_all_fast,
};

/// What every name that a test gives to something outside itself begins with.
const PREFIX: &str = "xvs-";

/// The place of one test. The folder is gone when this is dropped, also when a test fails.
pub(crate) struct Site {
    prefix: String,
    folder: PathBuf,
    v6: bool,
}

impl Site {
    /// A place without machines. `v6`: whether its machines have IPv6.
    pub(crate) fn new(v6: bool) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}{}-{number}-", process::id());
        let folder = env::temp_dir().join(prefix.trim_end_matches('-'));
        fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        Self { prefix, folder, v6 }
    }

    /// A machine without interfaces.
    pub(crate) fn host(&self, role: &str) -> Host {
        let host = Host::new(&self.prefix, role);
        if self.v6 {
            host.enable_v6();
        }
        host
    }

    /// A switch without cables. It has no addresses.
    pub(crate) fn switch(&self, role: &str) -> Host {
        let switch = Host::new(&self.prefix, role);
        switch.ip("link add br0 type bridge forward_delay 0 mcast_snooping 0");
        switch.ip("link set br0 up");
        switch
    }
}

impl AsRef<Path> for Site {
    /// A folder for logs, configurations and sockets.
    fn as_ref(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The link-layer address that a machine of the test has: its IPv4 address with a prefix.
pub(crate) fn mac_of(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// A veth pair from `switch` to `interface` of `host`, with these addresses (`ADDRESS/LENGTH`, an IPv4
/// one first).
pub(crate) fn cable(switch: &Host, host: &Host, interface: &str, addresses: &[String]) {
    let port = host.role();
    join((switch, port), (host, interface), addresses);
    switch.ip(&format!("link set {port} master br0 up"));
}

/// A veth pair between two machines. The addresses are the second one's; the first end is down yet.
/// Offloads are off: a frame between namespaces would otherwise carry a checksum that nobody has filled
/// in, or 64 kB.
pub(crate) fn join(
    (first, port): (&Host, &str),
    (host, interface): (&Host, &str),
    addresses: &[String],
) {
    let own = addresses[0].split('/').next().unwrap_or_default();
    let mac = mac_of(own.parse().expect("an IPv4 address comes first"));
    let peer = host.namespace();
    first.ip(&format!(
        "link add {port} type veth peer name {interface} address {mac} netns {peer}"
    ));
    for (machine, interface) in [(first, port), (host, interface)] {
        let offloads = ["tx", "off", "rx", "off", "tso", "off", "gso", "off"];
        let mut arguments = vec!["-K", interface];
        arguments.extend(offloads);
        // So that a box on the switch can redirect frames to it: see `Host::take_redirected`.
        let takes = is_all_fast() && interface == port;
        arguments.extend(["gro", if takes { "on" } else { "off" }]);
        let output = machine.output("ethtool", &arguments);
        assert!(output.status.success(), "ethtool on {port}: {output:?}");
    }
    set_up(host, interface, addresses);
}

/// Puts addresses on an interface, and switches it on.
pub(crate) fn set_up(host: &Host, interface: &str, addresses: &[String]) {
    let add = |address: &String| {
        let nodad = if address.contains(':') { " nodad" } else { "" };
        format!("addr add {address} dev {interface}{nodad}\n")
    };
    let lines: String = addresses.iter().map(add).collect();
    host.ip_batch(&format!("{lines}link set {interface} up\n"));
}

/// The whole of an address, as `ip` writes it.
pub(crate) fn whole(address: impl Into<IpAddr>) -> String {
    let address = address.into();
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

/// Removes what test processes left behind that ended without cleaning up.
pub(crate) fn sweep() {
    let dead = |name: &str| {
        let owner = name.strip_prefix(PREFIX)?.split('-').next()?;
        let owner: u32 = owner.parse().ok()?;
        (!Path::new("/proc").join(owner.to_string()).exists()).then_some(())
    };
    for namespace in namespaces() {
        if dead(&namespace).is_some() {
            remove(&namespace);
        }
    }
    for entry in fs::read_dir(env::temp_dir())
        .into_iter()
        .flatten()
        .flatten()
    {
        if entry.file_name().to_str().and_then(dead).is_some() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
