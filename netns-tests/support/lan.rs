//! The network of the seed configuration: client, two load balancers and three real servers
//! on one switch.
//!
//! ```text
//!   client 10.0.0.50 (.51 to .99 too)      lb1 10.0.0.11    lb2 10.0.0.12
//!        |                                      |                |
//!   =====+======================== switch ======+================+=========
//!        |                     |                     |
//!   real1 10.0.0.137      real2 10.0.0.139      real3 10.0.0.141     each with the VIP on lo
//! ```

use std::{
    env, fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use super::host::{Host, namespaces, remove};

/// The address that clients use.
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 148);
/// The first load balancer.
pub(crate) const LB1: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
/// The second load balancer.
pub(crate) const LB2: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 12);
/// The client's own address.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);
/// The real servers. The first two are those of the seed configuration.
pub(crate) const REALS: [Ipv4Addr; 3] = [
    Ipv4Addr::new(10, 0, 0, 137),
    Ipv4Addr::new(10, 0, 0, 139),
    Ipv4Addr::new(10, 0, 0, 141),
];
/// How many further clients live on the client machine, at the addresses behind [`CLIENT`].
pub(crate) const FURTHER_CLIENTS: u8 = 49;

/// What every name that a test gives to something outside itself begins with.
const PREFIX: &str = "xvs-";

/// The machines, cabled. Everything is gone when this is dropped, also when a test fails.
pub(crate) struct Lan {
    pub(crate) client: Host,
    pub(crate) lb1: Host,
    pub(crate) lb2: Host,
    pub(crate) reals: [Host; 3],
    switch: Host,
    folder: PathBuf,
}

impl Lan {
    /// Sets the network up. Takes about half a second.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}{}-{number}-", process::id());
        let folder = env::temp_dir().join(prefix.trim_end_matches('-'));
        fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));

        let switch = Host::new(&prefix, "switch");
        switch.ip("link add br0 type bridge forward_delay 0 mcast_snooping 0");
        switch.ip("link set br0 up");
        let machine = |role: &str, address: Ipv4Addr| {
            let host = Host::new(&prefix, role);
            cable(&switch, &host, address);
            host
        };
        let lan = Self {
            client: machine("client", CLIENT),
            lb1: machine("lb1", LB1),
            lb2: machine("lb2", LB2),
            reals: [1, 2, 3].map(|n: usize| machine(&format!("real{n}"), REALS[n - 1])),
            switch,
            folder,
        };
        let further: String = further_clients()
            .map(|address| format!("addr add {address}/24 dev eth0\n"))
            .collect();
        lan.client.ip_batch(&further);
        for real in &lan.reals {
            real.sysctl("ipv4/conf/all/arp_ignore", 1);
            real.sysctl("ipv4/conf/all/arp_announce", 2);
            real.ip(&format!("addr add {VIP}/32 dev lo"));
        }
        lan
    }

    /// A folder for logs, configurations and sockets.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Pulls the cable of `host`, at the switch.
    pub(crate) fn unplug(&self, host: &Host) {
        self.switch.ip(&format!("link set {} down", host.role()));
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The addresses on the client machine besides its own.
pub(crate) fn further_clients() -> impl Iterator<Item = Ipv4Addr> {
    let [a, b, c, d] = CLIENT.octets();
    (1..=FURTHER_CLIENTS).map(move |n| Ipv4Addr::new(a, b, c, d + n))
}

/// The link-layer address that a machine of the test has: its IPv4 address with a prefix.
pub(crate) fn mac_of(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// A veth pair from `switch` to `eth0` of `host`. Offloads are off: a frame between namespaces
/// would otherwise carry a checksum that nobody has filled in, or 64 kB.
fn cable(switch: &Host, host: &Host, address: Ipv4Addr) {
    let port = host.role();
    let mac = mac_of(address);
    let peer = host.namespace();
    switch.ip(&format!(
        "link add {port} type veth peer name eth0 address {mac} netns {peer}"
    ));
    for (machine, interface) in [(switch, port), (host, "eth0")] {
        let offloads = ["tx", "off", "rx", "off", "tso", "off", "gso", "off"];
        let mut arguments = vec!["-K", interface];
        arguments.extend(offloads);
        arguments.extend(["gro", "off"]);
        let output = machine.output("ethtool", &arguments);
        assert!(output.status.success(), "ethtool on {port}: {output:?}");
    }
    switch.ip(&format!("link set {port} master br0 up"));
    host.ip(&format!("addr add {address}/24 dev eth0"));
    host.ip("link set eth0 up");
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
