//! The fast path's tables, in memory that the steering program and this process share: flows that workers hand
//! down, and what control says of real servers and next hops. `fast.bpf.h` says what the program makes of them.
//!
//! Nothing here is a system call. What is read and written by several at a time has one rule each: a flow is written
//! by the worker that has claimed its place, and counts from when its state is there; a real server and a next hop are
//! control's, and count while their epoch or interface is there.

use std::{
    ffi::CStr,
    fs,
    io::{self, Write as _},
    mem::offset_of,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
    path::Path,
    sync::atomic::{
        AtomicU8, AtomicU16, AtomicU32, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use super::abi::{
    ASSURED, FLOW_CLAIMED, FLOW_NONE, FLOW_PLACES, FLOW_V4, FLOW_V6, Filter, Flow, FlowGroup, Hop,
    LAYOUT, METHOD_DR, METHOD_GRE, METHOD_GUE, METHOD_IPIP, METHOD_NAT, OUTER_V4, OUTER_V6,
    PMTU_DISC, Settings, Target, Traffic,
};
use crate::{
    addr::MacAddr,
    sys::{
        bpf::{Atomic, Mapped, Object},
        open_error::OpenError,
    },
    time::Tick,
};

pub(super) mod left;

/// How many of each there is to be room for.
#[derive(Clone, Copy, Debug)]
pub struct FastSizes {
    /// Flows, of both families together. One takes 128 bytes of the kernel's memory, whether it is there or not.
    pub flows: u32,
    /// Real servers: the slots below this. One takes 64 bytes, and 32 for each processor.
    pub reals: u32,
    /// Next hops. One takes 24 bytes.
    pub hops: u32,
}

/// Groups that are in use at least: 64 KiB of flows, as much as a processor has at hand.
const LEAST_GROUPS: u32 = 256;
/// How long the place of a flow that has ended stays empty: no run of the program takes as long, where the turn of the
/// place were not enough to tell two flows apart.
const REST: u32 = 2;

/// A flow that a worker hands down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FastFlow {
    /// TCP's or UDP's number.
    pub protocol: u8,
    /// The client's address and port.
    pub client: (IpAddr, u16),
    /// The virtual server's, of the same family.
    pub vip: (IpAddr, u16),
    /// The slot of its real server, and which holder of it.
    pub real: (u32, u32),
    /// The next hop of its answers and the number of the routes by which it was found; see
    /// [`FastPath::set_ways`]. `None`: answers go up.
    pub way: Option<(u32, u16)>,
    /// What spreads tunnelled flows over queues and paths.
    pub spread: u32,
    /// The worker that has its connection.
    pub worker: u8,
}

/// Where a flow is: good until it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowHandle(NonZeroU32);

impl FlowHandle {
    /// The handle with this number, if it is one.
    pub fn from_raw(raw: u32) -> Option<Self> {
        NonZeroU32::new(raw).map(Self)
    }

    /// Its number, not 0.
    pub const fn raw(self) -> u32 {
        self.0.get()
    }

    const fn place(self) -> u32 {
        self.0.get() - 1
    }
}

/// How the packets of a real server's flows are rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FastMethod {
    /// Stations only.
    Dr,
    /// The real server's address, and its port unless that is 0.
    Nat {
        /// Its port.
        port: u16,
    },
    /// A tunnel.
    Tunnel {
        /// Of what kind.
        kind: FastTunnel,
        /// This host's address, where it begins.
        local: IpAddr,
        /// How many of the last bits of that address are the flow's own, of 32; 0: none.
        spread_bits: u8,
        /// What its path takes, outer header included, if that is known to be less than the next hop does.
        mtu: Option<u16>,
    },
}

/// A kind of tunnel whose outer header covers no payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FastTunnel {
    /// IP in IP.
    Ipip,
    /// GRE without a checksum.
    Gre,
    /// GUE without a checksum, to this port.
    Gue(u16),
}

/// A real server as the program sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FastTarget {
    /// Which holder of its slot it is.
    pub epoch: NonZeroU32,
    /// Its next hop.
    pub hop: u32,
    /// Its address.
    pub addr: IpAddr,
    /// What becomes of packets to it.
    pub method: FastMethod,
    /// A number for its virtual server, by which another run finds it.
    pub service: u64,
}

/// A real server as another run knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RealIdentity {
    service: u64,
    addr: IpAddr,
    method: u8,
    ports: [u16; 2],
}

impl FastTarget {
    /// What another run knows it by: its virtual server, its address, and what becomes of its packets.
    pub const fn identity(&self) -> RealIdentity {
        let (method, ports) = match self.method {
            FastMethod::Dr => (METHOD_DR, [0; 2]),
            FastMethod::Nat { port } => (METHOD_NAT, [port, 0]),
            FastMethod::Tunnel { kind, .. } => match kind {
                FastTunnel::Ipip => (METHOD_IPIP, [0; 2]),
                FastTunnel::Gre => (METHOD_GRE, [0; 2]),
                FastTunnel::Gue(port) => (METHOD_GUE, [0, port]),
            },
        };
        RealIdentity {
            service: self.service,
            addr: self.addr,
            method,
            ports,
        }
    }
}

/// A next hop as the program sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FastHop {
    /// The interface that frames leave on.
    pub ifindex: u32,
    /// Its largest packet in bytes, IP header included.
    pub mtu: u16,
    /// The neighbour's address.
    pub destination: MacAddr,
    /// Our own.
    pub source: MacAddr,
}

/// What went through on the fast path, for one real server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FastTraffic {
    /// Connections: no flow begins there, so these are as userspace [says](FastPath::keep).
    pub connections: u64,
    /// Packets from clients.
    pub packets: u64,
    /// Their bytes, counted from the IP header.
    pub bytes: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
}

/// The tables.
pub struct FastPath {
    flows: Mapped,
    targets: Mapped,
    hops: Mapped,
    traffic: Mapped,
    settings: Mapped,
    filter: Mapped,
    seed: [u64; 2],
    reals: u32,
    processors: u32,
}

/// The maps that all instances share, by their name in the object.
pub(super) const NAMES: [&CStr; 6] = [
    c"flows",
    c"targets",
    c"hops",
    c"traffic",
    c"settings",
    c"filter",
];

/// Makes room in an object that is not loaded yet.
pub(super) fn size(
    object: &mut Object,
    sizes: FastSizes,
    processors: u32,
) -> Result<(), OpenError> {
    object.set_entries(c"flows", groups(sizes))?;
    object.set_entries(c"targets", sizes.reals.max(1))?;
    object.set_entries(c"hops", sizes.hops.max(1))?;
    let traffic = sizes.reals.saturating_mul(processors + KEPT_ROWS);
    object.set_entries(c"traffic", traffic.max(1))
}

/// Rows of `traffic` behind those of the processors: of what went through elsewhere, and of connections.
const KEPT_ROWS: u32 = 2;

/// Twice as many places as flows: of these all but 3 in 100 find one then, and all but 18 if there were as many.
fn groups(sizes: FastSizes) -> u32 {
    let groups = sizes.flows.div_ceil(FLOW_PLACES / 2).max(LEAST_GROUPS);
    groups.checked_next_power_of_two().unwrap_or(1 << 29)
}

impl FastPath {
    /// The tables of a loaded object, empty. `seed` is drawn at start.
    pub(super) fn of(object: &Object, seed: [u64; 2], processors: u32) -> Result<Self, OpenError> {
        let mapped = |name| {
            let map = object.map(name)?;
            map.mapped().map_err(|source| OpenError::Refused {
                action: "map the fast path's tables".to_owned(),
                source,
            })
        };
        let targets = mapped(c"targets")?;
        let fast = Self {
            reals: u32::try_from(targets.entries()).unwrap_or(u32::MAX),
            flows: mapped(c"flows")?,
            targets,
            hops: mapped(c"hops")?,
            traffic: mapped(c"traffic")?,
            settings: mapped(c"settings")?,
            filter: mapped(c"filter")?,
            seed: [seed[0], seed[1] | 1],
            processors,
        };
        for (at, word) in fast.seed.iter().enumerate() {
            let offset = offset_of!(Settings, seed) + 8 * at;
            fast.settings
                .at::<AtomicU64>(0, offset)
                .store(*word, Relaxed);
        }
        fast.setting(offset_of!(Settings, reals))
            .store(fast.reals, Relaxed);
        fast.setting(offset_of!(Settings, layout))
            .store(LAYOUT, Relaxed);
        let mask = LEAST_GROUPS - 1;
        fast.setting(offset_of!(Settings, mask))
            .store(mask, Relaxed);
        fast.setting(offset_of!(Settings, former_mask))
            .store(mask, Relaxed);
        Ok(fast)
    }

    fn setting(&self, offset: usize) -> &AtomicU32 {
        self.settings.at(0, offset)
    }

    /// Hands a flow down: from now on its packets are forwarded below. `None` when its places are all taken, and it stays
    /// where it is. Any worker may do so; the flow is not there yet.
    pub fn begin(&self, flow: &FastFlow, now: Tick) -> Option<FlowHandle> {
        self.begin_as(flow, now, 0)
    }

    /// The same for a flow of which so many packets were forwarded before, the last one at `now`.
    pub fn begin_as(&self, flow: &FastFlow, now: Tick, packets: u8) -> Option<FlowHandle> {
        let hash = self.hash(flow.client, flow.protocol);
        let group = self.place(hash) * FLOW_PLACES;
        // Its own place first, where the program looks first.
        let own = u32::try_from(hash >> 54 & u64::from(u32::MAX)).unwrap_or(0);
        let mut places = (0..FLOW_PLACES).map(|at| group + own.wrapping_add(at) % FLOW_PLACES);
        let (place, head) = places.find_map(|place| {
            let head: &AtomicU32 = self.flow(place, offset_of!(Flow, head));
            let old = head.load(Relaxed);
            let ended = Tick::from_raw(
                self.flow::<AtomicU32>(place, offset_of!(Flow, seen))
                    .load(Relaxed),
            );
            let is_fresh = turn_of(old) == 0;
            if state_of(old) != FLOW_NONE || !is_fresh && now.since(ended) < REST {
                return None;
            }
            let claimed = old & !(0xff << 8) | FLOW_CLAIMED << 8;
            let taken = head.compare_exchange(old, claimed, Acquire, Relaxed);
            taken.ok().map(|old| (place, (head, old)))
        })?;
        let word = |offset| self.flow::<AtomicU32>(place, offset);
        let half = |offset| self.flow::<AtomicU16>(place, offset);
        half(offset_of!(Flow, cport)).store(flow.client.1.to_be(), Relaxed);
        half(offset_of!(Flow, vport)).store(flow.vip.1.to_be(), Relaxed);
        self.put_flow_addr(place, offset_of!(Flow, client), flow.client.0);
        self.put_flow_addr(place, offset_of!(Flow, vip), flow.vip.0);
        word(offset_of!(Flow, seen)).store(now.raw(), Relaxed);
        word(offset_of!(Flow, real)).store(flow.real.0, Relaxed);
        word(offset_of!(Flow, epoch)).store(flow.real.1, Relaxed);
        self.put_way(place, flow.way);
        let byte = |offset| self.flow::<AtomicU8>(place, offset);
        byte(offset_of!(Flow, packets)).store(packets, Relaxed);
        byte(offset_of!(Flow, worker)).store(flow.worker, Relaxed);
        word(offset_of!(Flow, spread)).store(flow.spread, Relaxed);
        let state = if flow.client.0.is_ipv4() {
            FLOW_V4
        } else {
            FLOW_V6
        };
        // Not 0 again, which says that there was none.
        let turn = turn_of(head.1) % 255 + 1;
        let tag = (hash >> 56) as u32;
        let new = u32::from(flow.protocol) | state << 8 | tag << 16 | turn << 24;
        head.0.store(new, Release);
        FlowHandle::from_raw(place + 1)
    }

    /// Takes a flow back: from now on its packets go up.
    pub fn end(&self, flow: FlowHandle, now: Tick) {
        let place = flow.place();
        let head: &AtomicU32 = self.flow(place, offset_of!(Flow, head));
        // When it ended, before its place can be seen to be free.
        let seen: &AtomicU32 = self.flow(place, offset_of!(Flow, seen));
        seen.store(now.raw(), Relaxed);
        head.store(head.load(Relaxed) & !(0xff << 8), Release);
    }

    /// When the last packet of a flow was forwarded below, or the flow began; and how many were, up to [`ASSURED_PACKETS`].
    pub fn seen(&self, flow: FlowHandle) -> (Tick, u8) {
        let place = flow.place();
        let seen: &AtomicU32 = self.flow(place, offset_of!(Flow, seen));
        let packets: &AtomicU8 = self.flow(place, offset_of!(Flow, packets));
        (Tick::from_raw(seen.load(Relaxed)), packets.load(Relaxed))
    }

    /// Whether the way of a flow's answers was found by these routes.
    pub fn has_way(&self, flow: FlowHandle, ways: u16) -> bool {
        let place = flow.place();
        let word: &AtomicU16 = self.flow(place, offset_of!(Flow, ways));
        let hop: &AtomicU32 = self.flow(place, offset_of!(Flow, hop));
        word.load(Relaxed) == ways && hop.load(Relaxed) != NO_HOP
    }

    /// Gives a flow's answers another way.
    pub fn set_way(&self, flow: FlowHandle, way: Option<(u32, u16)>) {
        self.put_way(flow.place(), way);
    }

    /// Whether the flow is where it would be handed down to now; otherwise it should begin again, so that the former
    /// places need not be looked at any more. See [`Self::resize`].
    pub fn is_at_home(&self, flow: FlowHandle, client: (IpAddr, u16), protocol: u8) -> bool {
        flow.place() / FLOW_PLACES == self.place(self.hash(client, protocol))
    }

    /// Has packets to a virtual address, and from a real one if it is that of a NAT real server, looked for among
    /// the flows. Addresses are not forgotten: one too many costs its packets a look.
    pub fn mark(&self, vip: IpAddr, real: Option<IpAddr>) {
        let set = |offset: usize, addr: IpAddr| {
            let bit = folded(addr).wrapping_mul(0x9e37_79b1) >> 16;
            let byte: &AtomicU8 = self.filter.at(0, offset + bit as usize / 8);
            let mark = 1 << (bit % 8);
            // A line that does not change is not taken from others.
            if byte.load(Relaxed) & mark == 0 {
                byte.fetch_or(mark, Relaxed);
            }
        };
        set(offset_of!(Filter, vips), vip);
        if let Some(real) = real {
            set(offset_of!(Filter, reals), real);
        }
    }

    /// Says what becomes of packets to a real server, by its slot; `None`: its flows go up. Whether there is room for
    /// it. Control's alone.
    pub fn set_target(&self, slot: u32, target: Option<&FastTarget>) -> bool {
        let index = slot as usize;
        if index >= self.targets.entries() {
            return target.is_none();
        }
        let word = |offset| self.targets.at::<AtomicU32>(index, offset);
        let epoch = word(offset_of!(Target, epoch));
        epoch.store(0, Release);
        let Some(target) = target else {
            return true;
        };
        let byte = |offset| self.targets.at::<AtomicU8>(index, offset);
        let half = |offset| self.targets.at::<AtomicU16>(index, offset);
        // A former holder's flows are nobody's while it is another's in part.
        let holder = word(offset_of!(Target, holder));
        if holder.load(Relaxed) != target.epoch.get() {
            holder.store(0, Release);
        }
        word(offset_of!(Target, hop)).store(target.hop, Relaxed);
        let service = offset_of!(Target, service);
        for (offset, shift) in [(service, 32), (service + 4, 0)] {
            let half = target.service >> shift & u64::from(u32::MAX);
            word(offset).store(u32::try_from(half).unwrap_or(0), Relaxed);
        }
        put_addr(&self.targets, index, offset_of!(Target, addr), target.addr);
        let mut port = 0;
        let mut tunnel_port = 0;
        let mut path = 0;
        let method = match target.method {
            FastMethod::Dr => METHOD_DR,
            FastMethod::Nat { port: to } => {
                port = to;
                METHOD_NAT
            }
            FastMethod::Tunnel {
                kind,
                local,
                spread_bits,
                mtu,
            } => {
                let own = u32::MAX
                    .checked_shr(32 - u32::from(spread_bits.min(32)))
                    .unwrap_or(0);
                let begin = without_bits(local, own);
                put_addr(&self.targets, index, offset_of!(Target, local), begin);
                word(offset_of!(Target, spread_mask)).store(own.to_be(), Relaxed);
                let outer = if local.is_ipv4() { OUTER_V4 } else { OUTER_V6 };
                byte(offset_of!(Target, outer)).store(outer, Relaxed);
                path = mtu.unwrap_or(0);
                match kind {
                    FastTunnel::Ipip => METHOD_IPIP,
                    FastTunnel::Gre => METHOD_GRE,
                    FastTunnel::Gue(to) => {
                        tunnel_port = to;
                        METHOD_GUE
                    }
                }
            }
        };
        byte(offset_of!(Target, method)).store(method, Relaxed);
        half(offset_of!(Target, port)).store(port.to_be(), Relaxed);
        half(offset_of!(Target, tunnel_port)).store(tunnel_port.to_be(), Relaxed);
        half(offset_of!(Target, mtu)).store(path, Relaxed);
        holder.store(target.epoch.get(), Release);
        epoch.store(target.epoch.get(), Release);
        true
    }

    /// Says what a real server's tunnel takes, as a worker has learned; 0: as much as its next hop does.
    pub fn set_path_mtu(&self, slot: u32, mtu: u16) {
        if (slot as usize) < self.targets.entries() {
            let word: &AtomicU16 = self.targets.at(slot as usize, offset_of!(Target, mtu));
            word.store(mtu, Relaxed);
        }
    }

    /// Says how frames get to a next hop; `None`: flows that lead there go up. Whether there is room for it. Control's
    /// alone.
    pub fn set_hop(&self, index: u32, hop: Option<&FastHop>) -> bool {
        let at = index as usize;
        if at >= self.hops.entries() {
            return hop.is_none();
        }
        let word = |offset| self.hops.at::<AtomicU32>(at, offset);
        let ifindex = word(offset_of!(Hop, ifindex));
        ifindex.store(0, Release);
        if let Some(hop) = hop {
            word(offset_of!(Hop, mtu)).store(hop.mtu.into(), Relaxed);
            for (offset, mac) in [
                (offset_of!(Hop, dst), hop.destination),
                (offset_of!(Hop, src), hop.source),
            ] {
                for (byte, at) in mac.0.iter().zip(offset..) {
                    self.hops
                        .at::<AtomicU8>(index as usize, at)
                        .store(*byte, Relaxed);
                }
            }
            ifindex.store(hop.ifindex, Release);
        }
        true
    }

    /// Numbers the routes to clients: ways that were found by others are not used any more.
    pub fn set_ways(&self, ways: u16) {
        self.setting(offset_of!(Settings, ways))
            .store(ways.into(), Release);
    }

    /// Whether tunnels hand "don't fragment" on to the outer header.
    pub fn set_pmtu_disc(&self, on: bool) {
        let flags = if on { PMTU_DISC } else { 0 };
        self.setting(offset_of!(Settings, flags))
            .store(flags, Relaxed);
    }

    /// Makes room for about so many flows at a time, as far as there is memory: dense memory is fast. Those that there
    /// are stay, and are found where they are until [`Self::settle`]. Whether anything changes; nothing does before it is
    /// settled.
    pub fn resize(&self, flows: u64) -> bool {
        let (now, former) = self.masks();
        // A group has room for four; three quarters as many groups leave one flow in a thousand without a place.
        let wanted = (flows * 3 / 4).clamp(LEAST_GROUPS.into(), self.flows.entries() as u64);
        let groups = u32::try_from(wanted)
            .unwrap_or(u32::MAX)
            .next_power_of_two();
        let mask = (groups.min(u32::try_from(self.flows.entries()).unwrap_or(u32::MAX))) - 1;
        // Not smaller for every ebb.
        if now != former || mask == now || mask < now && mask > now >> 3 {
            return false;
        }
        self.setting(offset_of!(Settings, mask))
            .store(mask, Release);
        true
    }

    /// Whether flows are to move, between [`Self::resize`] and [`Self::settle`].
    pub fn is_moving(&self) -> bool {
        let (now, former) = self.masks();
        now != former
    }

    /// Every flow is where it should be by now: former places are not looked at any more.
    pub fn settle(&self) {
        let (now, _) = self.masks();
        self.setting(offset_of!(Settings, former_mask))
            .store(now, Release);
    }

    /// What went through for the real server in a slot; no connections.
    pub fn traffic(&self, slot: u32) -> FastTraffic {
        sum_of(&self.traffic, (self.reals, self.processors), slot)
    }

    /// Keeps for who takes over what went through a real server elsewhere, so that its counters go on.
    pub fn keep(&self, slot: u32, elsewhere: &FastTraffic) {
        if slot >= self.reals {
            return;
        }
        let [row, connections] = [0, 1].map(|row| {
            let at = ((self.processors + row) * self.reals + slot) as usize;
            move |offset| self.traffic.at::<AtomicU64>(at, offset)
        });
        row(offset_of!(Traffic, packets)).store(elsewhere.packets, Relaxed);
        row(offset_of!(Traffic, bytes)).store(elsewhere.bytes, Relaxed);
        row(offset_of!(Traffic, packets_out)).store(elsewhere.packets_out, Relaxed);
        row(offset_of!(Traffic, bytes_out)).store(elsewhere.bytes_out, Relaxed);
        connections(offset_of!(Traffic, packets)).store(elsewhere.connections, Relaxed);
    }

    /// Counts from zero for the real server in a slot, before another one gets it.
    pub fn clear_traffic(&self, slot: u32) {
        if slot < self.reals {
            for row in 0..self.processors + KEPT_ROWS {
                let at = (row * self.reals + slot) as usize;
                for offset in (0..size_of::<Traffic>()).step_by(8) {
                    self.traffic.at::<AtomicU64>(at, offset).store(0, Relaxed);
                }
            }
        }
    }

    /// Writes what another run needs to take the flows over into an open folder's files: see [`left::Left::in_folder`].
    ///
    /// # Errors
    /// What the file system answered.
    pub fn save(&self, folder: &Path) -> io::Result<()> {
        let (now, former) = self.masks();
        let groups = now.max(former) as usize + 1;
        let create = |name: &CStr| {
            let file = fs::File::create(folder.join(name.to_string_lossy().as_ref()));
            file.map(io::BufWriter::new)
        };
        for (name, table, entries) in [
            (left::FLOWS, &self.flows, groups),
            (left::TARGETS, &self.targets, usize::MAX),
            (left::SETTINGS, &self.settings, usize::MAX),
        ] {
            let mut file = create(name)?;
            table.write_to(&mut file, 0..entries)?;
            file.into_inner()?;
        }
        // As if there were one processor: there may be hundreds.
        let mut file = create(left::TRAFFIC)?;
        for slot in 0..self.reals {
            let sum = self.traffic(slot);
            for word in [sum.packets, sum.bytes, sum.packets_out, sum.bytes_out] {
                file.write_all(&word.to_ne_bytes())?;
            }
        }
        let kept = (self.processors * self.reals) as usize;
        self.traffic.write_to(&mut file, kept..usize::MAX)?;
        file.into_inner()?;
        Ok(())
    }

    fn masks(&self) -> (u32, u32) {
        let get = |offset| self.setting(offset).load(Relaxed);
        (
            get(offset_of!(Settings, mask)),
            get(offset_of!(Settings, former_mask)),
        )
    }

    /// The integer at an offset of the flow in a place.
    fn flow<A: Atomic>(&self, place: u32, offset: usize) -> &A {
        let (group, place) = (place / FLOW_PLACES, (place % FLOW_PLACES) as usize);
        let start = offset_of!(FlowGroup, flow) + place * size_of::<Flow>();
        self.flows.at(group as usize, start + offset)
    }

    fn put_flow_addr(&self, place: u32, offset: usize, addr: IpAddr) {
        let (group, place) = (place / FLOW_PLACES, (place % FLOW_PLACES) as usize);
        let start = offset_of!(FlowGroup, flow) + place * size_of::<Flow>();
        put_addr(&self.flows, group as usize, start + offset, addr);
    }

    fn put_way(&self, place: u32, way: Option<(u32, u16)>) {
        let (hop, ways) = way.unwrap_or((NO_HOP, 0));
        // Not with another's number for a moment.
        let word: &AtomicU32 = self.flow(place, offset_of!(Flow, hop));
        word.store(NO_HOP, Release);
        self.flow::<AtomicU16>(place, offset_of!(Flow, ways))
            .store(ways, Release);
        word.store(hop, Release);
    }

    fn place(&self, hash: u64) -> u32 {
        // The lower half is what the group is told by.
        u32::try_from(hash >> 24 & u64::from(self.masks().0)).unwrap_or(0)
    }

    /// The hash of a client's address and port: the program's `hash4` and `hash6`.
    fn hash(&self, (addr, port): (IpAddr, u16), protocol: u8) -> u64 {
        let rest = u64::from(u32::from(port.to_be()) << 8 | u32::from(protocol));
        let mix = |hash: u64| {
            let hash = hash.wrapping_mul(self.seed[1]);
            hash ^ hash >> 32
        };
        let hash = match addr {
            IpAddr::V4(addr) => {
                let word = u32::from_ne_bytes(addr.octets());
                mix((u64::from(word) << 32 | rest) ^ self.seed[0])
            }
            IpAddr::V6(addr) => {
                let [a, b, c, d] = words(addr).map(u64::from);
                let hash = mix((a << 32 | b) ^ self.seed[0]);
                let hash = mix(hash ^ (c << 32 | d));
                mix(hash ^ rest)
            }
        };
        hash.wrapping_mul(0xd6e8_feb8_6659_fd93)
    }
}

/// What the first `rows` rows of `traffic` say of the real server in a slot.
fn sum_of(traffic: &Mapped, (reals, rows): (u32, u32), slot: u32) -> FastTraffic {
    let mut sum = FastTraffic::default();
    if slot < reals {
        for row in 0..rows {
            let at = (row * reals + slot) as usize;
            let get = |offset| traffic.at::<AtomicU64>(at, offset).load(Relaxed);
            sum.packets += get(offset_of!(Traffic, packets));
            sum.bytes += get(offset_of!(Traffic, bytes));
            sum.packets_out += get(offset_of!(Traffic, packets_out));
            sum.bytes_out += get(offset_of!(Traffic, bytes_out));
        }
    }
    sum
}

/// Packets of [`FastPath::seen`] that are counted at most.
pub const ASSURED_PACKETS: u8 = ASSURED;
/// The next hop that there is never.
const NO_HOP: u32 = u32::MAX;

const fn state_of(head: u32) -> u32 {
    head >> 8 & 0xff
}

const fn turn_of(head: u32) -> u32 {
    head >> 24
}

/// An address as it lies in the program's structures, mapped if it is IPv4.
fn mapped(addr: IpAddr) -> Ipv6Addr {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped(),
        IpAddr::V6(addr) => addr,
    }
}

/// The words of an address as they lie in memory.
fn words(addr: Ipv6Addr) -> [u32; 4] {
    let bytes = addr.octets();
    let (words, _) = bytes.as_chunks();
    [0, 1, 2, 3].map(|at| u32::from_ne_bytes(words[at]))
}

/// What an address is in the filters: the program's `folded`, of IPv4 the address alone.
fn folded(addr: IpAddr) -> u32 {
    match addr {
        IpAddr::V4(addr) => u32::from_ne_bytes(addr.octets()),
        IpAddr::V6(addr) => words(addr).iter().fold(0, |folded, word| folded ^ word),
    }
}

/// An address without these of its last bits.
fn without_bits(addr: IpAddr, bits: u32) -> IpAddr {
    match addr {
        IpAddr::V4(addr) => Ipv4Addr::from_bits(addr.to_bits() & !bits).into(),
        IpAddr::V6(addr) => Ipv6Addr::from_bits(addr.to_bits() & !u128::from(bits)).into(),
    }
}

/// Writes an address into a value of a map.
fn put_addr(map: &Mapped, index: usize, offset: usize, addr: IpAddr) {
    for (at, word) in words(mapped(addr)).into_iter().enumerate() {
        map.at::<AtomicU32>(index, offset + 4 * at)
            .store(word, Relaxed);
    }
}
