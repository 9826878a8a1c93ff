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
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
};

pub(crate) use super::site::{mac_of, sweep};
use super::{
    host::Host,
    routed::FAR,
    site::{Site, cable, join, set_up, whole},
};

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

/// The machines, cabled. Everything is gone when this is dropped, also when a test fails.
pub(crate) struct Lan {
    pub(crate) client: Host,
    pub(crate) lb1: Host,
    pub(crate) lb2: Host,
    pub(crate) reals: [Host; 3],
    switch: Host,
    site: Site,
}

impl Lan {
    /// Sets the network up. Takes about half a second.
    pub(crate) fn new() -> Self {
        Self::build(false)
    }

    /// As [`Self::new`], and each machine has an IPv6 address too, see [`v6_of`].
    pub(crate) fn with_v6() -> Self {
        Self::build(true)
    }

    fn build(v6: bool) -> Self {
        let site = Site::new(v6);
        let switch = site.switch("switch");
        let machine = |role: &str, address: Ipv4Addr| {
            let host = site.host(role);
            let mut addresses = vec![format!("{address}/24")];
            addresses.extend(v6.then(|| format!("{}/64", v6_of(address))));
            cable(&switch, &host, "eth0", &addresses);
            host
        };
        let lan = Self {
            client: machine("client", CLIENT),
            lb1: machine("lb1", LB1),
            lb2: machine("lb2", LB2),
            reals: [1, 2, 3].map(|n: usize| machine(&format!("real{n}"), REALS[n - 1])),
            switch,
            site,
        };
        let further: String = further_clients()
            .map(|address| format!("addr add {address}/24 dev eth0\n"))
            .collect();
        lan.client.ip_batch(&further);
        for real in &lan.reals {
            real.sysctl("ipv4/conf/all/arp_ignore", 1);
            real.sysctl("ipv4/conf/all/arp_announce", 2);
            real.ip(&format!("addr add {} dev lo", whole(VIP)));
            if v6 {
                real.ip(&format!("addr add {} dev lo", whole(v6_of(VIP))));
            }
        }
        lan
    }

    /// As [`Self::with_v6`], with the offloads that veth has by default.
    pub(crate) fn with_offloads() -> Self {
        let lan = Self::with_v6();
        let ends = [&lan.client, &lan.lb1, &lan.lb2, &lan.switch];
        ends.into_iter()
            .chain(&lan.reals)
            .for_each(Host::restore_offloads);
        lan
    }

    /// As [`Self::new`], where the load balancers' cables take redirected frames.
    pub(crate) fn that_takes_redirected() -> Self {
        let lan = Self::with_v6();
        lan.take_redirected(true);
        lan
    }

    /// Whether the machines' cables take redirected frames from now on.
    pub(crate) fn take_redirected(&self, takes: bool) {
        self.switch.take_redirected(takes);
    }

    /// Puts the VIP on the first load balancer by hand, as boxes without VRRP have it.
    pub(crate) fn hold_vip(&self) {
        self.lb1.ip(&format!("addr add {} dev eth0", whole(VIP)));
    }

    /// As [`Self::hold_vip`], the IPv6 one.
    pub(crate) fn hold_vip6(&self) {
        let vip = whole(v6_of(VIP));
        self.lb1.ip(&format!("addr add {vip} dev eth0 nodad"));
    }

    /// A router on the switch, at 10.0.0.1, and a client beyond it, at [`FAR`], to which the real servers
    /// have a route.
    pub(crate) fn beyond_a_router(&self) -> [Host; 2] {
        let [router, far] = ["router", "far"].map(|role| self.site.host(role));
        router.forward();
        cable(&self.switch, &router, "eth0", &["10.0.0.1/24".to_owned()]);
        join((&router, "far"), (&far, "eth0"), &[format!("{FAR}/24")]);
        set_up(&router, "far", &["192.0.2.1/24".to_owned()]);
        far.ip("route add default via 192.0.2.1");
        for host in self.reals.iter().chain([&self.lb1, &self.lb2]) {
            host.ip("route add 192.0.2.0/24 via 10.0.0.1");
        }
        [router, far]
    }

    /// Deletes the interface of `host`, with the other end of its cable.
    pub(crate) fn delete(&self, host: &Host) {
        host.ip("link del eth0");
    }

    /// Makes the interface of `host` anew, with the address that it has to have.
    pub(crate) fn make_anew(&self, host: &Host, address: Ipv4Addr) {
        cable(&self.switch, host, "eth0", &[format!("{address}/24")]);
    }

    /// Pulls the cable of `host`, at the switch.
    pub(crate) fn unplug(&self, host: &Host) {
        self.switch.ip(&format!("link set {} down", host.role()));
    }
}

impl AsRef<Path> for Lan {
    fn as_ref(&self) -> &Path {
        self.site.as_ref()
    }
}

/// The IPv6 address of what has this IPv4 address: 10.0.0.148 is 2001:db8::148.
pub(crate) fn v6_of(address: Ipv4Addr) -> Ipv6Addr {
    let text = format!("2001:db8::{}", address.octets()[3]);
    text.parse()
        .expect("up to three decimal digits are hexadecimal ones")
}

/// The addresses on the client machine besides its own.
pub(crate) fn further_clients() -> impl Iterator<Item = Ipv4Addr> {
    let [a, b, c, d] = CLIENT.octets();
    (1..=FURTHER_CLIENTS).map(move |n| Ipv4Addr::new(a, b, c, d + n))
}
