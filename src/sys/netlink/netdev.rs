//! What XDP can do on each interface, in the kernel's own word, and every change of it: the generic netlink family
//! `netdev` (Linux 6.3; Documentation/netlink/specs/netdev.yaml).
//!
//! Found on Linux 6.18 with veth: what changes the word is notified, without exception, before the call that changes it
//! returns. That the other end gets or loses a native program or GRO, also from another network namespace; that an
//! interface comes, goes, or moves to another namespace. So nothing is asked for again but after a loss. What is not
//! notified has not changed the word either, and asking would not find it out: while the other end is down, GRO and
//! programs there change nothing, nor does its coming up, until this end is set down and up.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
};

use netlink_packet_core::{Emitable, Parseable, parse_u32, parse_u64};
use netlink_packet_generic::{
    GenlFamily, GenlHeader, GenlMessage,
    constants::{GENL_HDRLEN, GENL_ID_CTRL},
    ctrl::{
        GenlCtrl, GenlCtrlCmd,
        nlas::{GenlCtrlAttrs, McastGrpAttrs},
    },
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

use super::{
    Error, Received,
    channel::Channel,
    decode::{Message, attributes, messages},
    error::Cause,
    receive,
};
use crate::sys::sockopt;

/// The group that hears of interfaces.
const GROUP: &str = "mgmt";
/// `NETDEV_CMD_*` of <linux/netdev.h>.
const GET: u8 = 1;
const ADDED: u8 = 2;
const DELETED: u8 = 3;
const CHANGED: u8 = 4;
/// `NETDEV_A_DEV_*`.
const IFINDEX: u16 = 1;
const XDP_FEATURES: u16 = 3;

/// Room for some 1,000 notifications while the control thread is busy.
const RECEIVE_BUFFER: i32 = 1 << 20;

/// What XDP can do on the interfaces of a network namespace. Never waits but for locks of the kernel's, and for those only
/// when it is opened and after notifications were lost; register its descriptor for readability and call
/// [`Self::update`].
#[derive(Debug)]
pub struct XdpFeatures {
    channel: Channel,
    news: Socket,
    /// The family's number, by which its messages are known.
    family: u16,
    known: BTreeMap<u32, u64>,
    /// Notifications were lost: everything must be asked for.
    lost: bool,
    datagram: Vec<u8>,
}

impl XdpFeatures {
    /// Subscribes in the network namespace of the calling thread, and asks for all interfaces. Needs no privilege. `None`
    /// before Linux 6.3, which does not say.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn open() -> Result<Option<Self>, Error> {
        Self::with_buffer(RECEIVE_BUFFER)
    }

    /// As [`Self::open`], with room for `bytes` of notifications. The kernel accounts about 800 for one.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn with_buffer(bytes: i32) -> Result<Option<Self>, Error> {
        let failed = |cause| Error::new("asking what XDP can do on interfaces", cause);
        let mut channel = Channel::open(NETLINK_GENERIC).map_err(|e| failed(Cause::Io(e)))?;
        let Some(family) = family(&mut channel, All::family_name()).map_err(failed)? else {
            return Ok(None);
        };
        let news = subscribe(family.group, bytes).map_err(|e| failed(Cause::Io(e)))?;
        let mut features = Self {
            channel,
            news,
            family: family.id,
            known: BTreeMap::new(),
            // After the subscription, so that nothing changes unseen.
            lost: true,
            datagram: Vec::new(),
        };
        features.update()?;
        Ok(Some(features))
    }

    /// What XDP can do on an interface beside running a program: the bits `NETDEV_XDP_ACT_*` of <linux/netdev.h>, as of
    /// the last [`Self::update`]. 0 where there is no such interface.
    pub fn of(&self, ifindex: u32) -> u64 {
        self.known.get(&ifindex).copied().unwrap_or(0)
    }

    /// Reads all that the kernel has said: there is less than a reader can take, as each change costs the kernel more.
    /// Whether anything is other than it was.
    ///
    /// # Errors
    /// What the kernel answered; then anything may be other than it was, and what was lost is asked for by the next call.
    pub fn update(&mut self) -> Result<bool, Error> {
        let mut changed = false;
        loop {
            let received = receive(&self.news, &mut self.datagram)
                .map_err(|e| Error::new("hearing what XDP can do on interfaces", Cause::Io(e)))?;
            match received {
                Received::Nothing => break,
                Received::Lost => self.lost = true,
                Received::Datagram => {
                    for message in messages(&self.datagram) {
                        match message {
                            Some(message) => {
                                changed |= hear(&message, self.family, &mut self.known);
                            }
                            None => self.lost = true,
                        }
                    }
                }
            }
        }
        // Once the queue is empty: what was in it is older than the answer.
        if self.lost {
            let known = self.list()?;
            self.lost = false;
            changed |= known != self.known;
            self.known = known;
        }
        Ok(changed)
    }

    fn list(&mut self) -> Result<BTreeMap<u32, u64>, Error> {
        let request = GenlMessage::new(
            GenlHeader {
                cmd: GET,
                version: 1,
            },
            All,
            self.family,
        );
        let found = self.channel.dump(request, self.family, device);
        let found = found.map_err(|e| Error::new("listing what XDP can do on interfaces", e))?;
        Ok(found.into_iter().collect())
    }
}

impl AsRawFd for XdpFeatures {
    fn as_raw_fd(&self) -> RawFd {
        self.news.as_raw_fd()
    }
}

/// A request for all interfaces: it has no attributes.
#[derive(Clone, Debug)]
struct All;

impl GenlFamily for All {
    fn family_name() -> &'static str {
        "netdev"
    }

    fn command(&self) -> u8 {
        GET
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for All {
    fn buffer_len(&self) -> usize {
        0
    }

    fn emit(&self, _: &mut [u8]) {}
}

/// The family, as this kernel has numbered it.
#[derive(Debug, PartialEq, Eq)]
struct Family {
    id: u16,
    group: u32,
}

/// `None` where the kernel does not have it, or it has no group to hear of changes.
fn family(channel: &mut Channel, name: &str) -> Result<Option<Family>, Cause> {
    let request = GenlMessage::from_payload(GenlCtrl {
        cmd: GenlCtrlCmd::GetFamily,
        nlas: vec![GenlCtrlAttrs::FamilyName(name.to_owned())],
    });
    match channel.get(request, GENL_ID_CTRL, described) {
        Err(cause) if cause.is(libc::ENOENT) => Ok(None),
        found => found,
    }
}

fn described(payload: &[u8]) -> Option<Family> {
    let (mut id, mut group) = (None, None);
    for attribute in attributes(payload, GENL_HDRLEN) {
        match GenlCtrlAttrs::parse(&attribute) {
            Ok(GenlCtrlAttrs::FamilyId(number)) => id = Some(number),
            Ok(GenlCtrlAttrs::McastGroups(groups)) => {
                group = groups.iter().find_map(|group| number_if_ours(group));
            }
            _ => {}
        }
    }
    Some(Family {
        id: id?,
        group: group?,
    })
}

fn number_if_ours(group: &[McastGrpAttrs]) -> Option<u32> {
    let is_ours = |it: &McastGrpAttrs| matches!(it, McastGrpAttrs::Name(name) if name == GROUP);
    group.iter().find(|it| is_ours(it))?;
    group.iter().find_map(|it| match it {
        McastGrpAttrs::Id(number) => Some(*number),
        McastGrpAttrs::Name(_) => None,
    })
}

fn subscribe(group: u32, bytes: i32) -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    sockopt::grow_receive_buffer(socket.as_fd(), bytes)?;
    socket.add_membership(group)?;
    Ok(socket)
}

/// Takes a notification over. Whether anything is other than it was.
fn hear(message: &Message<'_>, family: u16, known: &mut BTreeMap<u32, u64>) -> bool {
    if message.kind != family {
        return false;
    }
    let (Ok(header), Some((ifindex, features))) =
        (GenlHeader::parse(message.payload), device(message.payload))
    else {
        return false;
    };
    match header.cmd {
        ADDED | CHANGED => known.insert(ifindex, features) != Some(features),
        DELETED => known.remove(&ifindex).is_some(),
        _ => false,
    }
}

/// An interface's index and what XDP can do there.
fn device(payload: &[u8]) -> Option<(u32, u64)> {
    let (mut ifindex, mut features) = (None, None);
    for attribute in attributes(payload, GENL_HDRLEN) {
        match attribute.kind() {
            IFINDEX => ifindex = parse_u32(attribute.value()).ok(),
            XDP_FEATURES => features = parse_u64(attribute.value()).ok(),
            _ => {}
        }
    }
    ifindex.zip(features)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_the_family_is_no_error() {
        let mut channel = Channel::open(NETLINK_GENERIC).unwrap();
        assert_eq!(family(&mut channel, "xvs-none").unwrap(), None);
        // One that every kernel has, and whose changes are told by another group.
        let found = channel.get(
            GenlMessage::from_payload(GenlCtrl {
                cmd: GenlCtrlCmd::GetFamily,
                nlas: vec![GenlCtrlAttrs::FamilyName("nlctrl".to_owned())],
            }),
            GENL_ID_CTRL,
            |payload| Some(described(payload)),
        );
        assert_eq!(found.unwrap(), Some(None));
    }

    /// A notification, native byte order, as the kernel writes it.
    fn notification(command: u8, ifindex: u32, features: u64) -> Vec<u8> {
        let mut payload = vec![command, 1, 0, 0];
        payload.extend([8_u16, IFINDEX].map(u16::to_ne_bytes).concat());
        payload.extend(ifindex.to_ne_bytes());
        // NETDEV_A_DEV_PAD.
        payload.extend([4_u16, 2].map(u16::to_ne_bytes).concat());
        payload.extend([12_u16, XDP_FEATURES].map(u16::to_ne_bytes).concat());
        payload.extend(features.to_ne_bytes());
        payload
    }

    #[test]
    fn a_notification_is_news_once_and_of_its_family_only() {
        let mut known = BTreeMap::new();
        let mut hear = |kind, command, features| {
            let message = Message {
                kind,
                flags: 0,
                sequence: 0,
                payload: &notification(command, 7, features),
            };
            let is_news = hear(&message, 31, &mut known);
            (is_news, known.get(&7).copied())
        };
        assert_eq!(hear(31, ADDED, 0x23), (true, Some(0x23)));
        assert_eq!(hear(31, CHANGED, 0x23), (false, Some(0x23)));
        assert_eq!(hear(30, CHANGED, 0x67), (false, Some(0x23)));
        assert_eq!(hear(31, CHANGED, 0x67), (true, Some(0x67)));
        // Of a page pool, or whatever is added.
        assert_eq!(hear(31, 6, 0), (false, Some(0x67)));
        assert_eq!(hear(31, DELETED, 0x67), (true, None));
        assert_eq!(hear(31, DELETED, 0x67), (false, None));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_decoders_panic(bytes in proptest::collection::vec(0_u8.., 0..200)) {
            let message = Message { kind: 31, flags: 0, sequence: 0, payload: &bytes };
            let _ = hear(&message, 31, &mut BTreeMap::new());
            let _ = described(&bytes);
        }
    }
}
