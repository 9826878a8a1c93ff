//! The way to real servers on this very host, made when there is one.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    addr::MacAddr,
    sys::{
        device::InterfaceSpec,
        local_link::{self, LocalLink},
        netlink::{Link, Netlink},
    },
    time::Instant,
};

/// How often it is tried again when the kernel refuses it.
const AGAIN: Duration = Duration::from_secs(1);
/// Bytes of an IP packet that it takes at least.
const SMALLEST_MTU: u32 = 1500;

/// A pair of interfaces of our own, whose one end is a port of the data plane; see [`LocalLink`].
#[derive(Default)]
pub(super) struct LocalWay {
    link: Option<LocalLink>,
    /// When it is tried again, and what the kernel said last.
    again: Option<Instant>,
    refused: String,
}

impl LocalWay {
    /// Removes what a run that ended without a stop has left. What there is to say.
    pub(super) fn sweep(netlink: &mut Netlink) -> Vec<String> {
        local_link::cleanup(netlink).unwrap_or_else(|error| vec![error.to_string()])
    }

    /// Makes the pair if it is `needed` and not there, which is noted in `links`. What there is to say.
    pub(super) fn drive(
        &mut self,
        now: Instant,
        needed: bool,
        links: &mut BTreeMap<u32, Link>,
        netlink: &mut Netlink,
    ) -> Option<String> {
        // Somebody else has removed it.
        self.link
            .take_if(|link| !links.contains_key(&link.port().ifindex));
        let largest = links.values().filter(|link| !link.loopback);
        let mtu = largest.map(|link| link.mtu).max().unwrap_or(0);
        let mtu = mtu.max(SMALLEST_MTU);
        let small = self.link.as_ref().map(|link| {
            let port = links.get(&link.port().ifindex);
            port.is_some_and(|port| port.mtu < mtu)
        });
        if !small.unwrap_or(needed) {
            self.again = None;
            return None;
        }
        if self.again.is_some_and(|at| now < at) {
            return None;
        }
        let done = match &self.link {
            Some(link) => link.set_mtu(netlink, mtu),
            None => LocalLink::create(netlink, mtu).and_then(|link| {
                let index = self.link.insert(link).port().ifindex;
                let port = netlink.link(index)?;
                links.extend(port.map(|port| (port.index, port)));
                Ok(())
            }),
        };
        let said = done.err().map_or_else(String::new, |error| {
            format!("the way to real servers on this host: {error}")
        });
        self.again = (!said.is_empty()).then(|| now + AGAIN);
        let is_news = said != self.refused && !said.is_empty();
        self.refused.clone_from(&said);
        is_news.then_some(said)
    }

    /// When [`Self::drive`] has something to do next.
    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.again
    }

    /// The interface to send from, and whom to send to.
    pub(super) fn hop(&self) -> Option<(u32, MacAddr)> {
        let link = self.link.as_ref()?;
        Some((link.port().ifindex, link.mac()))
    }

    /// The interface that the data plane is to have for it, by the name that it has in `links`.
    pub(super) fn interface(&self, links: &BTreeMap<u32, Link>) -> Option<InterfaceSpec> {
        let (ifindex, _) = self.hop()?;
        links.get(&ifindex).map(|link| InterfaceSpec {
            name: link.name.clone(),
            ifindex,
        })
    }

    /// Removes the pair. Why that failed.
    pub(super) fn stop(&mut self, netlink: &mut Netlink) -> Option<String> {
        let removed = self.link.take()?.remove(netlink);
        removed.err().map(|error| error.to_string())
    }
}
