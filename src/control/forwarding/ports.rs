//! The interfaces of the data plane, by their ports.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::{
    addr::{MacAddr, PortId},
    balance::PortSpec,
};

/// An interface of the data plane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PortInfo {
    pub(super) name: String,
    pub(super) ifindex: u32,
    pub(super) mac: MacAddr,
    pub(super) mtu: u32,
    /// Addresses of its own, for packets of ours.
    pub(super) v4: Option<Ipv4Addr>,
    pub(super) v6: Option<Ipv6Addr>,
    /// Whether it takes the frames that the fast path forwards.
    pub(super) fast: bool,
}

/// The ports that are open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ports(Vec<Option<PortInfo>>);

impl Ports {
    /// Puts an interface in the place of a port; `None` when it is closed.
    pub(super) fn set(&mut self, port: PortId, info: Option<PortInfo>) {
        let at = usize::from(port.0);
        if self.0.len() <= at {
            self.0.resize(at + 1, None);
        }
        self.0[at] = info;
        while self.0.last().is_some_and(Option::is_none) {
            self.0.pop();
        }
    }

    /// Those that are open.
    pub(super) fn iter(&self) -> impl Iterator<Item = (PortId, &PortInfo)> {
        let numbered = (0..=u8::MAX).zip(&self.0);
        numbered.filter_map(|(id, port)| Some((PortId(id), port.as_ref()?)))
    }

    /// What a port is.
    pub(super) fn get(&self, port: PortId) -> Option<&PortInfo> {
        self.0.get(usize::from(port.0))?.as_ref()
    }

    /// The port of an interface, to be changed.
    pub(super) fn with_mut(&mut self, ifindex: u32) -> Option<&mut PortInfo> {
        let mut open = self.0.iter_mut().flatten();
        open.find(|port| port.ifindex == ifindex)
    }

    /// The port of an interface.
    pub(super) fn with(&self, ifindex: u32) -> Option<(PortId, &PortInfo)> {
        self.iter().find(|(_, port)| port.ifindex == ifindex)
    }

    /// The port of the interface with this name.
    pub(super) fn named(&self, name: &str) -> Option<PortId> {
        let (id, _) = self.iter().find(|(_, port)| port.name == name)?;
        Some(id)
    }

    /// What the workers' table has of them.
    pub(super) fn specs(&self) -> Vec<PortSpec> {
        let spec = |port: &Option<PortInfo>| {
            let port = port.as_ref();
            port.map_or_else(PortSpec::default, |port| PortSpec {
                v4: port.v4,
                v6: port.v6,
                fast: port.fast,
            })
        };
        self.0.iter().map(spec).collect()
    }
}

#[cfg(test)]
impl From<Vec<PortInfo>> for Ports {
    fn from(ports: Vec<PortInfo>) -> Self {
        Self(ports.into_iter().map(Some).collect())
    }
}
