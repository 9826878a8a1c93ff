//! A network that NAT is made for: the real servers are behind the load balancer, clients are beside it
//! and beyond a router.
//!
//! ```text
//!   far 192.0.2.50 ── router 10.0.0.1   near 10.0.0.50    lb 10.0.0.11, VIP 10.0.0.148
//!                           |                |                    |
//!                     ======+=== outside ====+====================+=====
//!                                                                 |
//!                     ======+=== inside =====+===========+========+ 192.168.10.254
//!                           |                |           |
//!              real1 192.168.10.11        ….12        ….13     default route by the load balancer
//! ```
//!
//! All of it has IPv6 as well: outside is 2001:db8::/64, inside 2001:db8:10::/64, beyond the router
//! 2001:db8:f::/64, each with the last number of the IPv4 address.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
};

use super::{
    host::Host,
    lan::{VIP, v6_of},
    site::{Site, cable, join, set_up, whole},
};

/// The client beyond the router.
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 50);
/// The same one's IPv6 address.
pub(crate) const FAR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 0x50);
/// The client on the load balancer's network.
pub(crate) const NEAR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);
/// The load balancer's own address outside.
pub(crate) const LB: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
/// The real servers.
pub(crate) const INSIDE: [Ipv4Addr; 3] = [
    Ipv4Addr::new(192, 168, 10, 11),
    Ipv4Addr::new(192, 168, 10, 12),
    Ipv4Addr::new(192, 168, 10, 13),
];

/// The machines, cabled. The VIP is on the load balancer, put there by hand, in both families.
pub(crate) struct Routed {
    pub(crate) far: Host,
    pub(crate) router: Host,
    pub(crate) near: Host,
    pub(crate) lb: Host,
    pub(crate) reals: [Host; 3],
    /// The cables end here.
    switches: [Host; 2],
    site: Site,
}

impl Routed {
    /// Sets the network up. Takes about a second.
    pub(crate) fn new() -> Self {
        let site = Site::new(true);
        let (outside, inside) = (site.switch("outside"), site.switch("inside"));
        let both = |v4: Ipv4Addr, v6: Ipv6Addr| [format!("{v4}/24"), format!("{v6}/64")];
        let out = |address: Ipv4Addr| both(address, v6_of(address));

        let router = site.host("router");
        router.forward();
        cable(&outside, &router, "eth0", &out(Ipv4Addr::new(10, 0, 0, 1)));
        let far = site.host("far");
        join((&router, "far"), (&far, "eth0"), &both(FAR, FAR6));
        let gateway = ["192.0.2.1/24", "2001:db8:f::1/64"].map(str::to_owned);
        set_up(&router, "far", &gateway);
        far.ip("route add default via 192.0.2.1");
        far.ip("-6 route add default via 2001:db8:f::1");

        let near = site.host("near");
        cable(&outside, &near, "eth0", &out(NEAR));

        let lb = site.host("lb");
        lb.forward();
        cable(&outside, &lb, "eth0", &out(LB));
        let own = Ipv4Addr::new(192, 168, 10, 254);
        cable(&inside, &lb, "eth1", &both(own, inside6(own)));
        lb.ip("route add default via 10.0.0.1");
        lb.ip("-6 route add default via 2001:db8::1");
        lb.ip(&format!("addr add {} dev eth0", whole(VIP)));
        lb.ip(&format!("addr add {} dev eth0 nodad", whole(v6_of(VIP))));
        // Who asks for a real server by its own address comes through the load balancer as well.
        for host in [&router, &near] {
            host.ip("route add 192.168.10.0/24 via 10.0.0.11");
            host.ip("-6 route add 2001:db8:10::/64 via 2001:db8::11");
        }

        let reals = [1, 2, 3].map(|n: usize| {
            let real = site.host(&format!("real{n}"));
            let address = INSIDE[n - 1];
            cable(&inside, &real, "eth0", &both(address, inside6(address)));
            real.ip("route add default via 192.168.10.254");
            real.ip("-6 route add default via 2001:db8:10::254");
            real
        });
        Self {
            far,
            router,
            near,
            lb,
            reals,
            switches: [outside, inside],
            site,
        }
    }
}

impl Routed {
    /// As [`Self::new`], where the load balancer's cables take redirected frames.
    pub(crate) fn that_takes_redirected() -> Self {
        let net = Self::new();
        net.switches
            .iter()
            .for_each(|switch| switch.take_redirected(true));
        net
    }

    /// As [`Self::new`], with the offloads that veth has by default.
    pub(crate) fn with_offloads() -> Self {
        let net = Self::new();
        let ends = [&net.far, &net.router, &net.near, &net.lb];
        let all = ends.into_iter().chain(&net.reals).chain(&net.switches);
        all.for_each(Host::restore_offloads);
        net
    }
}

impl AsRef<Path> for Routed {
    fn as_ref(&self) -> &Path {
        self.site.as_ref()
    }
}

/// The IPv6 address of what has this IPv4 address inside.
pub(crate) fn inside6(address: Ipv4Addr) -> Ipv6Addr {
    let text = format!("2001:db8:10::{}", address.octets()[3]);
    text.parse()
        .expect("up to three decimal digits are hexadecimal ones")
}
