//! Which packets are the balancer's: the control side of the steering program.
//!
//! The program stays on its interface when the process dies, and then drops what it would have
//! steered. So nothing is detached by dropping a [`Steering`]: that is [`Steering::detach`] on a clean
//! stop, or [`cleanup`] after a crash.

mod abi;
mod entries;
mod matching;
mod tables;

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
    time::Duration,
};

use abi::{COUNT_DROPPED, COUNT_PASSED, COUNT_STEERED};
pub use matching::{MatchRule, Outer, PortRange, RULE_ENTRIES, Steered, Target, covering};
use tables::Tables;
pub use tables::{Reconciled, Refusal};

use super::{
    bpf::{Map, Object, Program},
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
}

/// Whether an instance is on its interface.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Loaded,
    Attached,
    /// Attached, in the place of one that a previous run left.
    TookOver,
}

/// One interface's instance of the program.
struct PortProgram {
    spec: InterfaceSpec,
    program: Program,
    tap: Option<Program>,
    xsks: Map,
    counters: Map,
    state: State,
    /// Keeps the descriptors of the sockets that packets go to, to ask them for their statistics.
    sockets: Vec<OwnedFd>,
    /// What was switched off on the interface, to be switched on again.
    merging: Option<Merging>,
    /// Last: closing the object frees what nothing above or on the interface holds.
    _object: Object,
}

/// The steering program on every port of the data plane, and its tables. Owned by the control thread.
pub struct Steering {
    hook: Hook,
    ports: Vec<PortProgram>,
    tables: Tables,
}

impl Steering {
    /// Loads the program once for every interface, with `matches` in its tables, and attaches
    /// nothing yet: sockets come first, or a takeover would lose packets.
    ///
    /// # Errors
    /// Missing capabilities, or a kernel that does not take the program.
    pub fn load(
        hook: Hook,
        interfaces: &[InterfaceSpec],
        matches: &[Steered],
    ) -> Result<Self, OpenError> {
        let programs: &[&CStr] = match hook {
            Hook::Xdp => &[c"xvs_steer"],
            Hook::Ingress => &[c"xvs_ingress", c"xvs_tap", c"xvs_judge"],
        };
        let mut tables: Option<Tables> = None;
        let mut ports = Vec::with_capacity(interfaces.len());
        for spec in interfaces {
            let mut object = Object::open(programs)?;
            if let Some(tables) = &tables {
                tables.share_with(&mut object)?;
            }
            object.load()?;
            if tables.is_none() {
                tables = Some(Tables::of(&object)?);
            }
            if hook == Hook::Ingress {
                object.set_judge()?;
            }
            ports.push(PortProgram {
                spec: spec.clone(),
                program: object.program(programs[0])?,
                tap: programs
                    .get(1)
                    .map(|name| object.program(name))
                    .transpose()?,
                xsks: object.map(c"xsks")?,
                counters: object.map(c"counters")?,
                state: State::Loaded,
                sockets: Vec::new(),
                merging: None,
                _object: object,
            });
        }
        let Some(tables) = tables else {
            return Err(OpenError::NoInterface {
                interface: "(none named)".to_owned(),
            });
        };
        let mut steering = Self {
            hook,
            ports,
            tables,
        };
        let done = steering.set(matches).complete();
        done.map_err(|Refusal { action, source }| OpenError::Refused { action, source })?;
        Ok(steering)
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

    /// Gives the packets of receive queue `queue` of `port` to `socket`: an AF_XDP socket bound to
    /// it, or an AF_PACKET socket (whose queue number is of no matter). A descriptor of it is kept for
    /// its statistics, which keeps the queue bound until [`Self::forget_sockets`].
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn set_socket(
        &mut self,
        port: PortId,
        queue: u32,
        socket: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let hook = self.hook;
        let program = self.port_mut(port)?;
        if hook == Hook::Xdp {
            let value = u32::try_from(socket.as_raw_fd()).unwrap_or(u32::MAX);
            program
                .xsks
                .set(&queue.to_ne_bytes(), &value.to_ne_bytes())?;
        }
        program.sockets.push(socket.try_clone_to_owned()?);
        Ok(())
    }

    /// Forgets the sockets of [`Self::set_socket`], so that they close with their other owner.
    pub fn forget_sockets(&mut self) {
        for port in &mut self.ports {
            port.sockets.clear();
        }
    }

    /// The sockets of [`Self::set_socket`], to ask for their statistics.
    pub fn sockets(&self, port: PortId) -> &[OwnedFd] {
        self.ports
            .get(usize::from(port.0))
            .map_or(&[], |port| &port.sockets)
    }

    /// Attaches the program to `port`, in the place of one that a previous run left. `wish` picks an
    /// XDP mode; without one it is the best that the interface takes.
    ///
    /// # Errors
    /// [`OpenError::Foreign`] when somebody else's program is there, or what the kernel refused.
    pub fn attach(&mut self, port: PortId, wish: Option<XdpMode>) -> Result<Attached, OpenError> {
        let hook = self.hook;
        let program = self.port_mut(port).map_err(|source| OpenError::Refused {
            action: format!("attach to port {}", port.0),
            source,
        })?;
        let spec = &program.spec;
        let mut attached = match hook {
            Hook::Xdp => xdp_link::attach(spec, &program.program, wish)?,
            Hook::Ingress => ingress_filter::attach(spec, &program.program)?,
        };
        program.state = if attached.took_over {
            State::TookOver
        } else {
            State::Attached
        };
        // A previous run may have used the other hook, and would keep packets from us or the host.
        let other = match hook {
            Hook::Xdp => remove_ingress(spec),
            Hook::Ingress => remove_xdp(spec),
        };
        attached.notes.extend(other?);
        Ok(attached)
    }

    /// Switches off what merges received packets (GRO, LRO) on the interface of `port`, until the
    /// program is detached. What was done, to be told. After a crash it stays off.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn stop_merging(&mut self, port: PortId) -> io::Result<String> {
        let program = self.port_mut(port)?;
        let merging = device::stop_merging(&program.spec)?;
        let text = merging.to_string();
        program.merging = Some(merging);
        Ok(text)
    }

    /// Detaches the program everywhere, unless something else has taken its place: the host sees all
    /// packets again. Every interface is tried; one that is gone is no error.
    ///
    /// # Errors
    /// The first that an interface reported.
    pub fn detach(&mut self) -> Result<(), OpenError> {
        let hook = self.hook;
        let mut result = Ok(());
        self.restore_merging();
        for port in self.ports.iter_mut().filter(|p| p.state != State::Loaded) {
            match port.detach(hook) {
                Ok(()) | Err(OpenError::NoInterface { .. }) => port.state = State::Loaded,
                Err(e) => result = result.and(Err(e)),
            }
        }
        result
    }

    /// Takes back what a failed start attached. Where it took over from a previous run it stays, and
    /// drops what that one dropped: the host is not to see those packets because of our failure.
    pub fn undo(&mut self) {
        let hook = self.hook;
        self.restore_merging();
        for port in self.ports.iter_mut().filter(|p| p.state == State::Attached) {
            // The failure of the start is the one to tell.
            let _ = port.detach(hook);
            port.state = State::Loaded;
        }
    }

    /// The counters of `port`.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn counters(&self, port: PortId) -> io::Result<SteerCounters> {
        let port = self
            .ports
            .get(usize::from(port.0))
            .ok_or(io::ErrorKind::NotFound)?;
        Ok(SteerCounters {
            steered: port.counters.sum(COUNT_STEERED)?,
            passed: port.counters.sum(COUNT_PASSED)?,
            dropped: port.counters.sum(COUNT_DROPPED)?,
        })
    }

    /// What the program says of `packet`, an Ethernet frame, when it comes in on interface 1 (the
    /// kernel's test run takes loopback). Nothing is sent or attached; the counters move.
    ///
    /// # Errors
    /// What the kernel answered; it refuses frames shorter than an Ethernet header.
    pub fn judge(&self, packet: &[u8]) -> io::Result<Decision> {
        let port = self.ports.first().ok_or(io::ErrorKind::NotFound)?;
        let verdict = port.program.run(packet, 1)?.verdict;
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
        let port = self.ports.first().ok_or(io::ErrorKind::NotFound)?;
        port.program.run(packet, times).map(|run| run.each)
    }

    /// The socket filter for `port`'s AF_PACKET socket; none with [`Hook::Xdp`].
    pub(super) fn tap(&self, port: PortId) -> Option<RawFd> {
        let port = self.ports.get(usize::from(port.0))?;
        port.tap.as_ref().map(AsRawFd::as_raw_fd)
    }

    fn restore_merging(&mut self) {
        for merging in self.ports.iter_mut().filter_map(|port| port.merging.take()) {
            merging.restore();
        }
    }

    fn port_mut(&mut self, port: PortId) -> io::Result<&mut PortProgram> {
        self.ports
            .get_mut(usize::from(port.0))
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl PortProgram {
    /// Detaches this instance, unless another has taken its place.
    fn detach(&self, hook: Hook) -> Result<(), OpenError> {
        let refused = |e| OpenError::from_errno(&self.spec.name, "detach the steering program", e);
        let id = self.program.id().map_err(refused)?;
        match hook {
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
