//! Virtual Ethernet pairs, made, found and removed.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, ParseableParametrized};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute,
        LinkFlags, LinkHeader, LinkInfo, LinkMessage,
    },
};

use super::{Cause, Error, Netlink, decode::attributes, link_request};

impl Netlink {
    /// Makes a veth pair whose ends have these names, both down. False when one of the names is taken.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn add_veth(&mut self, names: [&str; 2], mtu: u32) -> Result<bool, Error> {
        let [mut near, far] = names.map(|name| {
            let mut end = LinkMessage::default();
            end.attributes = vec![
                LinkAttribute::IfName(name.to_owned()),
                LinkAttribute::Mtu(mtu),
            ];
            end
        });
        near.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far))),
        ]));
        let request = RouteNetlinkMessage::NewLink(near);
        match self.channel.change(request, NLM_F_CREATE | NLM_F_EXCL) {
            Ok(()) => Ok(true),
            Err(cause) if cause.is(libc::EEXIST) => Ok(false),
            Err(cause) => {
                let [near, far] = names;
                Err(Error::new(
                    format!("making the pair {near} and {far}"),
                    cause,
                ))
            }
        }
    }

    /// Gives an interface an alias (`ip link set … alias`).
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn set_alias(&mut self, ifindex: u32, alias: &str) -> Result<(), Error> {
        self.set_link(ifindex, "naming", |link| {
            link.attributes = vec![LinkAttribute::IfAlias(alias.to_owned())];
        })
    }

    /// Keeps the kernel from giving an interface an IPv6 address of its own making (`ip link set …
    /// addrgenmode none`).
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn make_no_addresses(&mut self, ifindex: u32) -> Result<(), Error> {
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let done = self.set_link(ifindex, "keeping addresses from", |link| {
            link.attributes = vec![LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(
                vec![mode],
            )])];
        });
        match done {
            // There is no IPv6.
            Err(error) if error.errno() == Some(libc::EAFNOSUPPORT) => Ok(()),
            done => done,
        }
    }

    /// Switches an interface on, without ARP and neighbour discovery (`ip link set … up arp off`).
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn set_up_without_arp(&mut self, ifindex: u32) -> Result<(), Error> {
        self.set_link(ifindex, "switching on", |link| {
            link.header.flags = LinkFlags::Up | LinkFlags::Noarp;
            link.header.change_mask = link.header.flags;
        })
    }

    /// Sets the largest IP packet of an interface, in bytes (`ip link set … mtu`).
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn set_mtu(&mut self, ifindex: u32, mtu: u32) -> Result<(), Error> {
        self.set_link(ifindex, "setting the MTU of", |link| {
            link.attributes = vec![LinkAttribute::Mtu(mtu)];
        })
    }

    /// Removes an interface, and the other end of a pair with it. One that is not there is no error.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn del_link(&mut self, ifindex: u32) -> Result<(), Error> {
        let mut link = LinkMessage::default();
        link.header.index = ifindex;
        match self.channel.change(RouteNetlinkMessage::DelLink(link), 0) {
            Err(cause) if !cause.is(libc::ENODEV) => {
                let name = self.name_of(ifindex);
                Err(Error::new(format!("removing {name}"), cause))
            }
            _ => Ok(()),
        }
    }

    /// The interfaces that have this alias: index and name.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn links_with_alias(&mut self, alias: &str) -> Result<Vec<(u32, String)>, Error> {
        let request = RouteNetlinkMessage::GetLink(link_request());
        let all = self.channel.dump(request, libc::RTM_NEWLINK, |payload| {
            let header = LinkHeader::parse(payload).ok()?;
            let (mut name, mut is_it) = (None, false);
            for attribute in attributes(payload, 16) {
                match LinkAttribute::parse_with_param(&attribute, header.interface_family) {
                    Ok(LinkAttribute::IfName(text)) => name = Some(text),
                    Ok(LinkAttribute::IfAlias(text)) => is_it = text == alias,
                    _ => {}
                }
            }
            name.filter(|_| is_it).map(|name| (header.index, name))
        });
        all.map_err(|cause| Error::new("listing the interfaces", cause))
    }

    fn set_link(
        &mut self,
        ifindex: u32,
        doing: &str,
        fill: impl FnOnce(&mut LinkMessage),
    ) -> Result<(), Error> {
        let mut link = LinkMessage::default();
        fill(&mut link);
        link.header.index = ifindex;
        let done = self.channel.change(RouteNetlinkMessage::SetLink(link), 0);
        done.map_err(|cause: Cause| {
            let name = self.name_of(ifindex);
            Error::new(format!("{doing} {name}"), cause)
        })
    }
}
