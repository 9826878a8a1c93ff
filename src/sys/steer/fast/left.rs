//! The fast path's tables as a run that has ended left them, for the next one to take its flows over.
//!
//! A program that stays on its interface holds its tables, so a run that died has lost none of its flows, and the
//! program goes on with them. A run that stopped in order has taken its program off; what the tables held is in a folder then.

use std::{
    ffi::CStr,
    fs::File,
    io,
    mem::offset_of,
    net::{IpAddr, Ipv6Addr},
    path::Path,
    sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Acquire},
};

use super::{
    super::abi::{
        FLOW_PLACES, FLOW_V4, FLOW_V6, Flow, FlowGroup, LAYOUT, METHOD_GUE, METHOD_NAT, Settings,
        Target, Traffic,
    },
    FastFlow, FastTraffic, KEPT_ROWS, RealIdentity, state_of, sum_of,
};
use crate::{
    sys::{
        bpf::{self, Mapped},
        device::InterfaceSpec,
        open_error::OpenError,
        xdp_link,
    },
    time::Tick,
};

pub(super) const FLOWS: &CStr = c"flows";
pub(super) const TARGETS: &CStr = c"targets";
pub(super) const TRAFFIC: &CStr = c"traffic";
pub(super) const SETTINGS: &CStr = c"settings";

/// In this order; and what one value of each has in bytes.
const TABLES: [(&CStr, usize); 4] = [
    (FLOWS, size_of::<FlowGroup>()),
    (TARGETS, size_of::<Target>()),
    (TRAFFIC, size_of::<Traffic>()),
    (SETTINGS, size_of::<Settings>()),
];

/// A flow as it was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftFlow {
    /// What it was handed down as; the way of its answers is not among it.
    pub flow: FastFlow,
    /// When its last packet came, or it began.
    pub seen: Tick,
    /// Packets that were forwarded, as far as they are counted.
    pub packets: u8,
}

/// The tables.
pub struct Left {
    flows: Mapped,
    targets: Mapped,
    traffic: Mapped,
    settings: Mapped,
    /// The kernel's number of the first.
    id: Option<u32>,
}

fn another_version() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "they are another version's")
}

impl Left {
    /// Those of the program that is on an interface. `None`: there is none of ours, or it has no such tables.
    ///
    /// # Errors
    /// [`OpenError::Foreign`] when the program there is somebody else's; tables of another version; what the kernel
    /// answered.
    pub fn on(spec: &InterfaceSpec) -> Result<Option<Self>, OpenError> {
        let Some(found) = xdp_link::leftover(spec)? else {
            return Ok(None);
        };
        let refused = |e| OpenError::from_errno(&spec.name, "read the flows of a previous run", e);
        let maps = bpf::maps_of_program(found.id, TABLES.map(|(name, _)| name)).map_err(refused)?;
        let [Some(flows), Some(targets), Some(traffic), Some(settings)] = maps else {
            return Ok(None);
        };
        let maps = [flows, targets, traffic, settings];
        let sizes = maps.each_ref().map(|map| map.size().0);
        if sizes != TABLES.map(|(_, size)| size) {
            return Err(refused(another_version()));
        }
        let id = maps[0].id().map_err(refused)?;
        let mut mapped = Vec::with_capacity(maps.len());
        for map in &maps {
            mapped.push(map.mapped().map_err(refused)?);
        }
        Self::of(mapped, Some(id)).map(Some).map_err(refused)
    }

    /// Those that [`super::FastPath::save`] wrote.
    ///
    /// # Errors
    /// What the file system answered, [`io::ErrorKind::NotFound`] when there are none; tables of another version.
    pub fn in_folder(folder: &Path) -> io::Result<Self> {
        let mut read = Vec::with_capacity(TABLES.len());
        for (name, size) in TABLES {
            let mut file = File::open(folder.join(name.to_string_lossy().as_ref()))?;
            read.push(Mapped::read_from(&mut file, size)?);
        }
        Self::of(read, None)
    }

    /// Of the four in their order, the first of which has this number in the kernel.
    fn of(tables: Vec<Mapped>, id: Option<u32>) -> io::Result<Self> {
        let Ok([flows, targets, traffic, settings]) = <[Mapped; 4]>::try_from(tables) else {
            return Err(another_version());
        };
        let left = Self {
            flows,
            targets,
            traffic,
            settings,
            id,
        };
        if left.setting(offset_of!(Settings, layout)) != LAYOUT {
            return Err(another_version());
        }
        Ok(left)
    }

    /// Whether these are the same tables in the kernel: of one run, on several interfaces.
    pub fn is_same(&self, other: &Self) -> bool {
        self.id.is_some() && self.id == other.id
    }

    /// The slots that real servers had, with which holder it was and what it is known by. One that was not used last is
    /// that of nobody.
    pub fn reals(&self) -> impl Iterator<Item = (u32, u32, RealIdentity)> + '_ {
        let count = u32::try_from(self.targets.entries()).unwrap_or(u32::MAX);
        (0..count).filter_map(|slot| {
            let index = slot as usize;
            let word = |offset| load(&self.targets, index, offset);
            let byte = |offset| self.targets.at::<AtomicU8>(index, offset).load(Acquire);
            let half = |offset| self.targets.at::<AtomicU16>(index, offset).load(Acquire);
            let holder = word(offset_of!(Target, holder));
            if holder == 0 {
                return None;
            }
            let service = offset_of!(Target, service);
            let method = byte(offset_of!(Target, method));
            let port_of = |of, offset| {
                if method == of {
                    u16::from_be(half(offset))
                } else {
                    0
                }
            };
            let identity = RealIdentity {
                service: u64::from(word(service)) << 32 | u64::from(word(service + 4)),
                addr: get_addr(&self.targets, index, offset_of!(Target, addr)).to_canonical(),
                method,
                ports: [
                    port_of(METHOD_NAT, offset_of!(Target, port)),
                    port_of(METHOD_GUE, offset_of!(Target, tunnel_port)),
                ],
            };
            Some((slot, holder, identity))
        })
    }

    /// The flows, in no order. Of a real server that is not the holder of its slot any more there may be some, too.
    pub fn flows(&self) -> impl Iterator<Item = LeftFlow> + '_ {
        let mask = self.setting(offset_of!(Settings, mask));
        let groups = mask.max(self.setting(offset_of!(Settings, former_mask)));
        let groups = (groups as usize)
            .saturating_add(1)
            .min(self.flows.entries());
        (0..groups).flat_map(move |group| {
            (0..FLOW_PLACES as usize).filter_map(move |place| self.flow(group, place))
        })
    }

    fn flow(&self, group: usize, place: usize) -> Option<LeftFlow> {
        let start = offset_of!(FlowGroup, flow) + place * size_of::<Flow>();
        let word = |offset| load(&self.flows, group, start + offset);
        let half = |offset| {
            let half = self.flows.at::<AtomicU16>(group, start + offset);
            u16::from_be(half.load(Acquire))
        };
        let byte = |offset| {
            let byte = self.flows.at::<AtomicU8>(group, start + offset);
            byte.load(Acquire)
        };
        let head = word(offset_of!(Flow, head));
        let addr = |offset| {
            let addr = get_addr(&self.flows, group, start + offset);
            match state_of(head) {
                FLOW_V4 => addr.to_ipv4_mapped().map(IpAddr::V4),
                FLOW_V6 => Some(IpAddr::V6(addr)),
                _ => None,
            }
        };
        let client = addr(offset_of!(Flow, client))?;
        let vip = addr(offset_of!(Flow, vip))?;
        Some(LeftFlow {
            flow: FastFlow {
                protocol: (head & 0xff) as u8,
                client: (client, half(offset_of!(Flow, cport))),
                vip: (vip, half(offset_of!(Flow, vport))),
                real: (word(offset_of!(Flow, real)), word(offset_of!(Flow, epoch))),
                way: None,
                spread: word(offset_of!(Flow, spread)),
                worker: byte(offset_of!(Flow, worker)),
            },
            seen: Tick::from_raw(word(offset_of!(Flow, seen))),
            packets: byte(offset_of!(Flow, packets)),
        })
    }

    /// All that went through the real server in a slot.
    pub fn totals(&self, slot: u32) -> FastTraffic {
        let reals = self.setting(offset_of!(Settings, reals)).max(1);
        let rows = u32::try_from(self.traffic.entries()).unwrap_or(u32::MAX) / reals;
        let Some(processors) = rows.checked_sub(KEPT_ROWS).filter(|_| slot < reals) else {
            return FastTraffic::default();
        };
        let at = ((processors + 1) * reals + slot) as usize;
        FastTraffic {
            connections: (self.traffic)
                .at::<AtomicU64>(at, offset_of!(Traffic, packets))
                .load(Acquire),
            ..sum_of(&self.traffic, (reals, processors + 1), slot)
        }
    }

    fn setting(&self, offset: usize) -> u32 {
        load(&self.settings, 0, offset)
    }
}

fn load(map: &Mapped, index: usize, offset: usize) -> u32 {
    map.at::<AtomicU32>(index, offset).load(Acquire)
}

/// An address as it lies in the program's structures, mapped if it is IPv4.
fn get_addr(map: &Mapped, index: usize, offset: usize) -> Ipv6Addr {
    let mut bytes = [0; 16];
    let (words, _) = bytes.as_chunks_mut::<4>();
    for (at, word) in words.iter_mut().enumerate() {
        *word = load(map, index, offset + 4 * at).to_ne_bytes();
    }
    bytes.into()
}
