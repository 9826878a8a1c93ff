//! Hears of every change of links, addresses, routes and neighbours, as the kernel makes it.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::sys::{
    netlink::{
        Address, Link, Neighbour, Received,
        decode::{self, Message, messages},
        receive,
    },
    sockopt,
};

/// The groups that are subscribed to. Neighbours come in one group for IPv4 and IPv6; addresses
/// and routes of IPv6 have their own.
const GROUPS: [libc::c_uint; 6] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_NEIGH,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV6_ROUTE,
];

/// Room for some 10,000 notifications while the control thread is busy.
const RECEIVE_BUFFER: i32 = 8 << 20;

/// How many lost-track datagrams are thrown away in one call, so that a storm cannot hold the
/// control thread.
const DISCARD_LIMIT: usize = 4096;

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An interface is new, or something about it changed: state, address, name, MTU.
    Link(Link),
    /// An interface is gone; the data are its last.
    LinkRemoved(Link),
    /// An interface has a new address, or one of its addresses changed.
    Address(Address),
    /// An interface lost an address.
    AddressRemoved(Address),
    /// A neighbour is new, has another link-layer address or another state.
    Neighbour(Neighbour),
    /// The kernel forgot a neighbour.
    NeighbourRemoved(Neighbour),
    /// Routes to the network changed: look up again what was looked up.
    RouteChanged,
    /// Events were lost. What was known must be asked for again; the events that follow are
    /// newer than this one.
    Overflow,
}

/// A subscription to the kernel's notifications. Never blocks; register its descriptor for
/// readability and read until there is nothing.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    /// The datagram that is being read.
    datagram: Vec<u8>,
    /// Where in it the next message begins, counted in messages.
    read: usize,
    /// Events were lost and the queue still holds some that are older than the loss.
    discarding: bool,
}

impl Monitor {
    /// Subscribes in the network namespace of the calling thread. Ask for the state of things
    /// *after* this, and nothing can change unseen.
    pub fn open() -> io::Result<Self> {
        Self::with_buffer(RECEIVE_BUFFER)
    }

    /// As [`open`](Self::open), with room for `bytes` of notifications. The kernel accounts
    /// about 800 for one.
    pub fn with_buffer(bytes: i32) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        sockopt::grow_receive_buffer(socket.as_fd(), bytes)?;
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        Ok(Self {
            socket,
            datagram: Vec::new(),
            read: 0,
            discarding: false,
        })
    }

    /// The next event, or `None` when there is none yet.
    pub fn poll_event(&mut self) -> io::Result<Option<Event>> {
        loop {
            if self.discarding {
                return self.discard().map(Some);
            }
            if let Some(message) = messages(&self.datagram).nth(self.read) {
                self.read += 1;
                match message {
                    // Neither of which the kernel is known to do; both would be a loss.
                    None => self.discarding = true,
                    Some(message) => {
                        if let Some(event) = event(&message) {
                            return Ok(Some(event));
                        }
                    }
                }
                continue;
            }
            self.read = 0;
            match receive(&self.socket, &mut self.datagram)? {
                Received::Datagram => {}
                Received::Lost => self.discarding = true,
                Received::Nothing => return Ok(None),
            }
        }
    }

    /// Throws away what was queued before the loss.
    ///
    /// Those events are true but end early: an address that is reported as added may have been
    /// removed by an event that was lost. Read after the caller has asked for the state again, they
    /// would spoil it. The kernel queues nothing new until the queue was empty once.
    fn discard(&mut self) -> io::Result<Event> {
        self.read = 0;
        self.discarding = false;
        for _ in 0..DISCARD_LIMIT {
            if receive(&self.socket, &mut self.datagram)? == Received::Nothing {
                self.datagram.clear();
                return Ok(Event::Overflow);
            }
        }
        self.datagram.clear();
        self.discarding = true;
        Ok(Event::Overflow)
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Reads a notification; `None` for what nobody here cares about.
fn event(message: &Message<'_>) -> Option<Event> {
    let payload = message.payload;
    match message.kind {
        libc::RTM_NEWLINK => decode::link(payload).map(Event::Link),
        libc::RTM_DELLINK => decode::link(payload).map(Event::LinkRemoved),
        libc::RTM_NEWADDR => decode::address(payload).map(Event::Address),
        libc::RTM_DELADDR => decode::address(payload).map(Event::AddressRemoved),
        libc::RTM_NEWNEIGH => decode::neighbour(payload).map(Event::Neighbour),
        libc::RTM_DELNEIGH => decode::neighbour(payload).map(Event::NeighbourRemoved),
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
            decode::is_forwarding_route(payload).then_some(Event::RouteChanged)
        }
        _ => None,
    }
}
