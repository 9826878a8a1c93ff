//! The interfaces that sockets and programs of this daemon belong to. One that is deleted takes them
//! with it, and they do not come back with its name.

use std::collections::BTreeMap;

use crate::sys::netlink::Link;

/// The interfaces in use, by index.
#[derive(Debug, Default)]
pub(super) struct Interfaces {
    used: BTreeMap<u32, Interface>,
}

#[derive(Debug)]
struct Interface {
    /// As it was last seen.
    link: Link,
    gone: bool,
}

impl Interfaces {
    /// Something belongs to this interface now.
    pub(super) fn watch(&mut self, link: &Link) {
        let link = link.clone();
        self.used
            .insert(link.index, Interface { link, gone: false });
    }

    /// An interface exists. Whether it stands in the place of one that is in use, which then is
    /// out of reach for good.
    pub(super) fn is_replacement(&mut self, link: &Link) -> bool {
        if let Some(interface) = self.used.get_mut(&link.index) {
            // A moved network namespace and back: the index may stay, the bindings do not.
            if interface.gone {
                return true;
            }
            interface.link = link.clone();
            return false;
        }
        let mut used = self.used.values();
        used.any(|interface| interface.link.name == link.name)
    }

    /// An interface was deleted. Whether that is news about one in use.
    pub(super) fn is_lost(&mut self, link: &Link) -> bool {
        match self.used.get_mut(&link.index) {
            Some(interface) => !std::mem::replace(&mut interface.gone, true),
            None => false,
        }
    }

    /// Those in use that are not among `links`, which are all that exist.
    pub(super) fn absent(&self, links: &[Link]) -> Vec<Link> {
        let used = self.used.values().map(|interface| &interface.link);
        let absent = used.filter(|used| links.iter().all(|link| link.index != used.index));
        absent.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.to_owned(),
            mac: None,
            mtu: 1500,
            up: true,
            running: true,
            loopback: false,
            multicast: true,
            kind: None,
            master: None,
        }
    }

    fn using_eth0() -> Interfaces {
        let mut interfaces = Interfaces::default();
        interfaces.watch(&link(2, "eth0"));
        interfaces
    }

    #[test]
    fn an_interface_made_anew_is_another_one() {
        let mut interfaces = using_eth0();
        assert!(!interfaces.is_replacement(&link(2, "eth0")), "it changed");
        assert!(!interfaces.is_replacement(&link(9, "eth1")), "not in use");
        assert!(interfaces.is_lost(&link(2, "eth0")));
        assert!(!interfaces.is_lost(&link(2, "eth0")), "said already");
        assert!(!interfaces.is_lost(&link(9, "eth1")));
        assert!(interfaces.is_replacement(&link(10, "eth0")));
        assert!(
            interfaces.is_replacement(&link(2, "eth0")),
            "the same index"
        );
    }

    #[test]
    fn a_deletion_among_lost_notifications_is_found() {
        let others = [link(1, "lo"), link(10, "eth0")];
        assert_eq!(using_eth0().absent(&others), [link(2, "eth0")]);
        assert_eq!(using_eth0().absent(&[link(2, "eth0")]), []);
        assert!(using_eth0().is_replacement(&link(10, "eth0")));
    }

    #[test]
    fn a_name_that_was_given_up_is_free() {
        let mut interfaces = using_eth0();
        assert!(!interfaces.is_replacement(&link(2, "uplink")));
        assert!(!interfaces.is_replacement(&link(10, "eth0")));
        assert!(interfaces.is_replacement(&link(11, "uplink")));
    }
}
