//! Which packets are the balancer's: the control side of the steering program.
//!
//! The program stays on its interface when the process dies, and then drops what it would have
//! steered. So nothing is detached by dropping a [`Steering`]: that is [`Steering::detach`] on a clean
//! stop, or [`cleanup`] after a crash.

mod abi;
mod entries;
mod fast;
mod matching;
mod tables;

use std::{
    ffi::CStr,
    io, ops,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::Arc,
    time::Duration,
};

use abi::{COUNT_DROPPED, COUNT_FORWARDED, COUNT_PASSED, COUNT_STEERED};
pub use fast::left::{Left, LeftFlow};
pub use fast::{
    ASSURED_PACKETS, FastFlow, FastHop, FastMethod, FastPath, FastSizes, FastTarget, FastTraffic,
    FastTunnel, FlowHandle, RealIdentity,
};
pub use matching::{MatchRule, Outer, PortRange, RULE_ENTRIES, Steered, Target, covering};
use tables::Tables;
pub use tables::{Reconciled, Refusal};

use super::{
    bpf::{self, Map, Object, Plain, Program},
    device::{self, InterfaceSpec, Merging},
    ingress_filter,
    open_error::OpenError,
    xdp_link::{self, Attached, XdpMode},
};
use crate::addr::{MacAddr, PortId};

/// Where the kernel asks for the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// XDP, for AF_XDP sockets.
    Xdp,
    /// A socket filter and tc ingress, for AF_PACKET sockets.
    Ingress,
}

/// What the program decides about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The balancer gets it.
    Steer,
    /// The host gets it.
    Pass,
}

/// Packets that the program decided about on one interface since it was attached.
///
/// They say what the program decided, not what came of it. With [`Hook::Ingress`] in particular the
/// filter that drops the host's copy counts as steered also what no socket took: when the socket's
/// queue was full, or when the engine is dead and there is no socket at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SteerCounters {
    /// Given to the balancer.
    pub steered: u64,
    /// Left to the host.
    pub passed: u64,
    /// The balancer's, but its queue had no socket: dropped.
    pub dropped: u64,
    /// Forwarded on the fast path; none of the others counts them.
    pub forwarded: u64,
}

impl ops::AddAssign for SteerCounters {
    fn add_assign(&mut self, other: Self) {
        self.steered += other.steered;
        self.passed += other.passed;
        self.dropped += other.dropped;
        self.forwarded += other.forwarded;
    }
}

/// Whether an instance is on its interface.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Loaded,
    Attached,
    /// Attached, in the place of one that a previous run left.
    TookOver,
}

/// The program as it was loaded for one interface, with its own sockets and counters.
struct Instance {
    program: Program,
    tap: Option<Program>,
    xsks: Map,
    counters: Map,
    own: Map,
    /// Last: closing the object frees what nothing above or on the interface holds.
    object: Object,
}

impl Instance {
    /// Loads `object`, which was opened for `hook`.
    fn load(hook: Hook, mut object: Object) -> Result<Self, OpenError> {
        let programs = hook.programs();
        object.load()?;
        if hook == Hook::Ingress {
            object.set_judge()?;
        }
        Ok(Self {
            program: object.program(programs[0])?,
            tap: programs
                .get(1)
                .map(|name| object.program(name))
                .transpose()?,
            xsks: object.map(c"xsks")?,
            counters: object.map(c"counters")?,
            own: object.map(c"own")?,
            object,
        })
    }
}

/// A port's instance of the program before it is loaded, which takes milliseconds and needs nothing else.
pub struct Unloaded {
    hook: Hook,
    object: Object,
}

impl Unloaded {
    /// Loads it for `spec`'s interface, without attaching it.
    ///
    /// # Errors
    /// Missing capabilities, or a kernel that does not take the program.
    pub fn load(self, spec: &InterfaceSpec) -> Result<PortProgram, OpenError> {
        Ok(PortProgram {
            hook: self.hook,
            spec: spec.clone(),
            instance: Instance::load(self.hook, self.object)?,
            state: State::Loaded,
            sockets: Vec::new(),
            merging: None,
        })
    }
}

/// One interface's instance of the program. It stays attached when this is dropped.
pub struct PortProgram {
    hook: Hook,
    spec: InterfaceSpec,
    instance: Instance,
    state: State,
    /// Keeps the descriptors of the sockets that packets go to, to ask them for their statistics.
    sockets: Vec<OwnedFd>,
    /// What was switched off on the interface, to be switched on again.
    merging: Option<Merging>,
}

/// The steering program's tables, and its instances on the ports of the data plane. Owned by the control thread.
pub struct Steering {
    hook: Hook,
    /// An instance that is on no interface: the proof that the kernel takes the program, and what decisions are
    /// asked of. The tables are its.
    own: Instance,
    /// By the number of the port.
    ports: Vec<Option<PortProgram>>,
    tables: Tables,
    /// The tables of the fast path, where there is one.
    fast: Option<Arc<FastPath>>,
}

impl Hook {
    const fn programs(self) -> &'static [&'static CStr] {
        match self {
            Self::Xdp => &[c"xvs_steer"],
            Self::Ingress => &[c"xvs_ingress", c"xvs_tap", c"xvs_judge"],
        }
    }
}

impl Steering {
    /// Loads the program, with `matches` in its tables, for no interface yet.
    ///
    /// # Errors
    /// Missing capabilities, or a kernel that does not take the program.
    pub fn load(hook: Hook, matches: &[Steered]) -> Result<Self, OpenError> {
        Self::load_with(hook, matches, None)
    }

    /// The same with a fast path that has room for so many flows; `seed` is drawn at start.
    ///
    /// # Errors
    /// Those of [`Self::load`], and memory that the kernel has not.
    pub fn load_with(
        hook: Hook,
        matches: &[Steered],
        fast: Option<(FastSizes, [u64; 2])>,
    ) -> Result<Self, OpenError> {
        let mut object = Object::open(hook.programs())?;
        let processors = bpf::processors().map_err(|source| OpenError::Refused {
            action: "count the processors".to_owned(),
            source,
        })?;
        if let Some((sizes, _)) = fast {
            fast::size(&mut object, sizes, processors)?;
        }
        let own = Instance::load(hook, object)?;
        let fast = fast.map(|(_, seed)| FastPath::of(&own.object, seed, processors));
        let mut steering = Self {
            hook,
            tables: Tables::of(&own.object)?,
            fast: fast.transpose()?.map(Arc::new),
            own,
            ports: (0..PortId::COUNT).map(|_| None).collect(),
        };
        let done = steering.set(matches).complete();
        done.map_err(|Refusal { action, source }| OpenError::Refused { action, source })?;
        Ok(steering)
    }

    /// Opens an instance of the program for one more port. It is on the same tables.
    ///
    /// # Errors
    /// What libbpf said.
    pub fn another(&self) -> Result<Unloaded, OpenError> {
        let mut object = Object::open(self.hook.programs())?;
        self.tables.share_with(&mut object)?;
        if self.fast.is_some() {
            for name in fast::NAMES {
                object.share(name, &self.own.object.map(name)?)?;
            }
        }
        Ok(Unloaded {
            hook: self.hook,
            object,
        })
    }

    /// Makes `program` that of `port`; the former one is given back.
    pub fn set_port(&mut self, port: PortId, program: Option<PortProgram>) -> Option<PortProgram> {
        let place = self.ports.get_mut(usize::from(port.0))?;
        std::mem::replace(place, program)
    }

    /// The program of `port`.
    pub fn port(&self, port: PortId) -> Option<&PortProgram> {
        self.ports.get(usize::from(port.0))?.as_ref()
    }

    /// The same, to be changed.
    pub fn port_mut(&mut self, port: PortId) -> Option<&mut PortProgram> {
        self.ports.get_mut(usize::from(port.0))?.as_mut()
    }

    /// From now on `wanted` is steered to the balancer, or, with [`Steered::Local`], left to the host, and
    /// nothing else is. What comes first of a [`Steered::Service`] and its [`Steered::Return`]s is of no
    /// matter: answers are steered no later than what they answer, fragments of an address no later
    /// than its first port, and what is new before what it replaces goes. The workers must know it
    /// before, and may forget what is not in it when nothing is pending.
    ///
    /// At least 65,536 each of virtual servers, prefixes, tunnel entries and local addresses fit, 262,144
    /// NAT real servers, and 64 rules that need walking ([`MatchRule`]). What the kernel refuses stays to
    /// be done: see [`Self::reconcile`].
    pub fn set(&mut self, wanted: &[Steered]) -> Reconciled {
        self.tables.set(wanted)
    }

    /// As [`Self::set`] for what differs: from now on `added` is steered too, and `removed` is not. It takes
    /// no longer the more there is besides.
    pub fn change(&mut self, added: &[Steered], removed: &[Steered]) -> Reconciled {
        self.tables.change(added, removed)
    }

    /// From now on packets addressed to `macs` are accepted on interface `ifindex`, and no others: its own
    /// address, and VRRP virtual MACs while MASTER. Up to 1,024 fit, of all interfaces. An interface that is
    /// gone has none. What the kernel refuses stays to be done: see [`Self::reconcile`].
    pub fn set_stations(&mut self, ifindex: u32, macs: &[MacAddr]) -> Reconciled {
        self.tables.set_stations(ifindex, macs)
    }

    /// Tries again what is pending: what the kernel refused to add or to remove.
    pub fn reconcile(&mut self) -> Reconciled {
        self.tables.reconcile()
    }

    /// What should be steered, and is not: what of [`Reconciled::pending`] is to be added.
    pub fn missing(&self) -> impl Iterator<Item = &Steered> {
        self.tables.missing()
    }

    /// Detaches the program everywhere, unless something else has taken its place: the host sees all
    /// packets again. Every interface is tried; one that is gone is no error.
    ///
    /// # Errors
    /// The first that an interface reported.
    pub fn detach(&mut self) -> Result<(), OpenError> {
        let mut result = Ok(());
        for port in self.ports.iter_mut().flatten() {
            let detached = port.detach();
            result = result.and(detached);
        }
        result
    }

    /// The tables of the fast path, where there is one.
    pub const fn fast_path(&self) -> Option<&Arc<FastPath>> {
        self.fast.as_ref()
    }

    /// What the fast path makes of `packet`, an Ethernet frame to the station `own`, when it comes in on interface 1;
    /// `None` when it leaves it to others. Nothing is sent; what it counts is counted.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn forward(&self, packet: &[u8], own: MacAddr) -> io::Result<Option<Vec<u8>>> {
        set_own(&self.own.own, 1, own)?;
        let run = self.own.program.run(packet, 1)?;
        let is_sent = [libbpf_sys::XDP_TX, libbpf_sys::XDP_REDIRECT].contains(&run.verdict);
        // A packet of the workers' is redirected, too, where there is a socket, which there is not here.
        Ok(is_sent.then_some(run.packet))
    }

    /// What the program says of `packet`, an Ethernet frame, when it comes in on interface 1 (the
    /// kernel's test run takes loopback). Nothing is sent or attached; the counters move.
    ///
    /// # Errors
    /// What the kernel answered; it refuses frames shorter than an Ethernet header.
    pub fn judge(&self, packet: &[u8]) -> io::Result<Decision> {
        let verdict = self.own.program.run(packet, 1)?.verdict;
        let pass = match self.hook {
            Hook::Xdp => libbpf_sys::XDP_PASS,
            Hook::Ingress => u32::MAX,
        };
        Ok(if verdict == pass {
            Decision::Pass
        } else {
            Decision::Steer
        })
    }

    /// What a decision about `packet` takes the kernel, on average of `times`. The rest as
    /// [`Self::judge`].
    ///
    /// # Errors
    /// Those of [`Self::judge`].
    pub fn cost(&self, packet: &[u8], times: u32) -> io::Result<Duration> {
        self.own.program.run(packet, times).map(|run| run.each)
    }
}

impl PortProgram {
    /// The interface that it is for.
    pub const fn spec(&self) -> &InterfaceSpec {
        &self.spec
    }

    /// Notes that the interface has another name now.
    pub fn rename(&mut self, name: &str) {
        name.clone_into(&mut self.spec.name);
    }

    /// Gives the packets of receive queue `queue` to `socket`: an AF_XDP socket bound to it, or an AF_PACKET
    /// socket (whose queue number is of no matter). A descriptor of it is kept for its statistics, which
    /// keeps the queue bound until [`Self::take_sockets`].
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn set_socket(&mut self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        if self.hook == Hook::Xdp {
            let value = u32::try_from(socket.as_raw_fd()).unwrap_or(u32::MAX);
            let xsks = &self.instance.xsks;
            xsks.set(&queue.to_ne_bytes(), &value.to_ne_bytes())?;
        }
        self.sockets.push(socket.try_clone_to_owned()?);
        Ok(())
    }

    /// From now on flows that were handed down are forwarded below when they come in here, addressed to `own`; `None`: they go up.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn set_fast(&mut self, own: Option<MacAddr>) -> io::Result<()> {
        // No frame is addressed to nobody.
        let own = own.unwrap_or(MacAddr::ZERO);
        set_own(&self.instance.own, self.spec.ifindex, own)
    }

    /// The descriptors that were kept of the sockets. They close when they are dropped, which takes the kernel
    /// some ten milliseconds each where they are the last.
    pub fn take_sockets(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.sockets)
    }

    /// The sockets of [`Self::set_socket`], to ask for their statistics.
    pub fn sockets(&self) -> &[OwnedFd] {
        &self.sockets
    }

    /// The socket filter for the AF_PACKET socket; none with [`Hook::Xdp`].
    pub(super) fn tap(&self) -> Option<RawFd> {
        self.instance.tap.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Attaches the program, in the place of one that a previous run left; if it is attached already, it stays.
    /// `wish` picks an XDP mode; without one it is the best that the interface takes.
    ///
    /// # Errors
    /// [`OpenError::Foreign`] when somebody else's program is there, or what the kernel refused.
    pub fn attach(&mut self, wish: Option<XdpMode>) -> Result<Attached, OpenError> {
        if let Some(mode) = self.mode_if_attached()? {
            return Ok(Attached {
                mode,
                took_over: false,
                notes: Vec::new(),
            });
        }
        let spec = &self.spec;
        let program = &self.instance.program;
        let mut attached = match self.hook {
            Hook::Xdp => xdp_link::attach(spec, program, wish)?,
            Hook::Ingress => ingress_filter::attach(spec, program)?,
        };
        self.state = if attached.took_over {
            State::TookOver
        } else {
            State::Attached
        };
        // A previous run may have used the other hook, and would keep packets from us or the host.
        let other = match self.hook {
            Hook::Xdp => remove_ingress(spec),
            Hook::Ingress => remove_xdp(spec),
        };
        attached.notes.extend(other?);
        Ok(attached)
    }

    /// Whether this instance is on the interface.
    ///
    /// # Errors
    /// [`OpenError::Foreign`] when somebody else's is there; what the kernel refused.
    pub fn is_attached(&self) -> Result<bool, OpenError> {
        Ok(self.mode_if_attached()?.is_some())
    }

    /// The mode that this instance is attached in, if it is; an ingress filter has none.
    fn mode_if_attached(&self) -> Result<Option<Option<XdpMode>>, OpenError> {
        let id = (self.instance.program.id())
            .map_err(|e| OpenError::from_errno(&self.spec.name, "ask for its program", e))?;
        Ok(match self.hook {
            Hook::Xdp => xdp_link::leftover(&self.spec)?
                .filter(|found| found.id == id)
                .map(|found| Some(found.mode)),
            Hook::Ingress => ingress_filter::leftover(&self.spec)?
                .filter(|found| *found == id)
                .map(|_| None),
        })
    }

    /// Switches off what merges received packets (GRO, LRO) on the interface, until the program is
    /// detached. What was done, to be told. After a crash it stays off.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn stop_merging(&mut self) -> io::Result<String> {
        let merging = device::stop_merging(&self.spec)?;
        let text = merging.to_string();
        // What was switched off before is still to be switched on.
        self.merging.get_or_insert(merging);
        Ok(text)
    }

    /// Detaches the program, unless something else has taken its place: the host sees all packets again. That
    /// the interface is gone is no error.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn detach(&mut self) -> Result<(), OpenError> {
        if let Some(merging) = self.merging.take() {
            merging.restore();
        }
        if self.state == State::Loaded {
            return Ok(());
        }
        match self.take_off() {
            Ok(()) | Err(OpenError::NoInterface { .. } | OpenError::Foreign { .. }) => {
                self.state = State::Loaded;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Takes back what a failed start attached. Where it took over from a previous run it stays, and
    /// drops what that one dropped: the host is not to see those packets because of our failure.
    pub fn undo(&mut self) {
        if self.state == State::Attached {
            // The failure of the start is the one to tell.
            let _ = self.detach();
        } else if let Some(merging) = self.merging.take() {
            merging.restore();
        }
    }

    /// Has the program stay where it is attached when a later try to open the interface fails: it drops what is
    /// the balancer's until one succeeds, as a reset by the host would end connections that go on then.
    pub fn keep_attached(&mut self) {
        if self.state == State::Attached {
            self.state = State::TookOver;
        }
    }

    /// The counters of the port.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn counters(&self) -> io::Result<SteerCounters> {
        let counters = &self.instance.counters;
        Ok(SteerCounters {
            steered: counters.sum(COUNT_STEERED)?,
            passed: counters.sum(COUNT_PASSED)?,
            dropped: counters.sum(COUNT_DROPPED)?,
            forwarded: counters.sum(COUNT_FORWARDED)?,
        })
    }

    /// Detaches this instance, unless another has taken its place.
    fn take_off(&self) -> Result<(), OpenError> {
        let refused = |e| OpenError::from_errno(&self.spec.name, "detach the steering program", e);
        let id = self.instance.program.id().map_err(refused)?;
        match self.hook {
            Hook::Xdp => match xdp_link::leftover(&self.spec)? {
                Some(found) if found.id == id => xdp_link::detach(&self.spec, &found),
                _ => Ok(()),
            },
            Hook::Ingress => match ingress_filter::leftover(&self.spec)? {
                Some(found) if found == id => ingress_filter::detach(&self.spec),
                _ => Ok(()),
            },
        }
        .map_err(refused)
    }
}

fn set_own(map: &Map, ifindex: u32, mac: MacAddr) -> io::Result<()> {
    let station = abi::Station {
        ifindex,
        mac: mac.0,
        zero: [0; 2],
    };
    map.set(&0_u32.to_ne_bytes(), station.bytes())
}

/// Removes what a crashed run left on an interface: its steering program, its ingress filter. Says
/// what it removed, a line each. What is somebody else's stays, and is no error.
///
/// # Errors
/// [`OpenError::NoInterface`], or what the kernel refused.
pub fn cleanup(spec: &InterfaceSpec) -> Result<Vec<String>, OpenError> {
    let removed = [remove_xdp(spec)?, remove_ingress(spec)?];
    let line = |what| format!("{spec}: {what}");
    Ok(removed.into_iter().flatten().map(line).collect())
}

/// Removes a steering program of ours; says so.
fn remove_xdp(spec: &InterfaceSpec) -> Result<Option<String>, OpenError> {
    match xdp_link::leftover(spec) {
        Ok(Some(found)) => {
            xdp_link::detach(spec, &found)
                .map_err(|e| OpenError::from_errno(&spec.name, "remove the steering program", e))?;
            Ok(Some(format!(
                "removed the {} steering program of a previous run",
                found.mode
            )))
        }
        Ok(None) | Err(OpenError::Foreign { .. }) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Removes an ingress filter of ours; says so.
fn remove_ingress(spec: &InterfaceSpec) -> Result<Option<String>, OpenError> {
    match ingress_filter::leftover(spec) {
        Ok(Some(_)) => {
            ingress_filter::detach(spec)
                .map_err(|e| OpenError::from_errno(&spec.name, "remove the ingress filter", e))?;
            Ok(Some(
                "removed the ingress filter of a previous run".to_owned(),
            ))
        }
        Ok(None) | Err(OpenError::Foreign { .. }) => Ok(None),
        Err(e) => Err(e),
    }
}
