//! Flows that are forwarded before a worker sees their packets: the fast path, as the tables of a worker know it.

use std::{fmt::Debug, net::IpAddr, num::NonZeroU32};

use crate::{lvs::RealId, time::Tick};

/// A flow on the fast path, by the place that it has there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowId(NonZeroU32);

impl FlowId {
    /// Places are numbered in so many bits: those that a connection's entry has room for.
    pub const BITS: u32 = 30;

    /// The flow with this number; `None` when it is none of 1 to 2^[`Self::BITS`] - 1.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        if raw >> Self::BITS != 0 {
            return None;
        }
        match NonZeroU32::new(raw) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// Its number.
    pub const fn raw(self) -> u32 {
        self.0.get()
    }
}

/// The fast path.
pub trait Offload: Debug + Send + Sync {
    /// When the last packet of a flow came there, and how many did, as far as that is counted.
    fn heard(&self, flow: FlowId) -> (Tick, u8);

    /// Whether flows move to other places there: those that are not [at home](Self::is_at_home) are to be taken back.
    fn is_moving(&self) -> bool;

    /// Whether a flow, of this client by this protocol, is where it would be handed down to now.
    fn is_at_home(&self, flow: FlowId, client: (IpAddr, u16), protocol: u8) -> bool;

    /// What the path of a real server's tunnel takes, in bytes, outer header included; 0: as much as its next hop does.
    fn set_path_mtu(&self, real: RealId, mtu: u16);

    /// Takes a flow back: from now on its packets come up.
    fn end(&self, flow: FlowId, now: Tick);
}
