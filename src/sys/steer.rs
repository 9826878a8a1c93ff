//! Which packets are the balancer's: the control side of the steering program.
//!
//! The program stays on its interface when the process dies, and then drops what it would have
//! steered. So nothing is detached by dropping a [`Steering`]: that is [`Steering::detach`] on a clean
//! stop, or [`cleanup`] after a crash.

use std::{
    collections::{HashMap, HashSet},
    ffi::CStr,
    io,
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use super::{
    bpf::{Map, Object, Program},
    device::{self, InterfaceSpec, Merging},
    ingress_filter,
    open_error::OpenError,
    xdp_link::{self, Attached, XdpMode},
};
use crate::addr::{Endpoint, L4Proto, MacAddr, PortId};

/// A virtual server as the steering program knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    /// Its address and port; port 0 takes every port of the address.
    pub endpoint: Endpoint,
    /// Its protocol.
    pub proto: L4Proto,
}

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
    services: Map,
    vips: Map,
    stations: Map,
    /// What is in `services`, and how many of them each entry of `vips` stands for.
    known: HashSet<Service>,
    per_vip: HashMap<(IpAddr, L4Proto), u32>,
}

impl Steering {
    /// Loads the program once for every interface, with `services` in its tables, and attaches
    /// nothing yet: sockets come first, or a takeover would lose packets.
    ///
    /// # Errors
    /// Missing capabilities, or a kernel that does not take the program.
    pub fn load(
        hook: Hook,
        interfaces: &[InterfaceSpec],
        services: &[Service],
    ) -> Result<Self, OpenError> {
        let programs: &[&CStr] = match hook {
            Hook::Xdp => &[c"xvs_steer"],
            Hook::Ingress => &[c"xvs_ingress", c"xvs_tap"],
        };
        let mut tables: Option<[Map; 3]> = None;
        let mut ports = Vec::with_capacity(interfaces.len());
        for spec in interfaces {
            let mut object = Object::open(programs)?;
            if let Some(tables) = &tables {
                for (name, map) in TABLES.iter().zip(tables) {
                    object.share(name, map)?;
                }
            }
            object.load()?;
            if tables.is_none() {
                let [services, vips, stations] = TABLES;
                tables = Some([
                    object.map(services)?,
                    object.map(vips)?,
                    object.map(stations)?,
                ]);
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
        let Some([table, vips, stations]) = tables else {
            return Err(OpenError::NoInterface {
                interface: "(none named)".to_owned(),
            });
        };
        let mut steering = Self {
            hook,
            ports,
            services: table,
            vips,
            stations,
            known: HashSet::new(),
            per_vip: HashMap::new(),
        };
        for service in services {
            steering
                .add_service(*service)
                .map_err(|source| OpenError::Refused {
                    action: format!("steer {} {}", service.proto, service.endpoint),
                    source,
                })?;
        }
        Ok(steering)
    }

    /// Steers `service` to the balancer from now on; known ones stay as they are. The workers must
    /// know it before.
    ///
    /// # Errors
    /// What the kernel answered; a full table is 65,536 services.
    pub fn add_service(&mut self, service: Service) -> io::Result<()> {
        if self.known.contains(&service) {
            return Ok(());
        }
        let vip = (service.endpoint.addr, service.proto);
        // The address first: a fragment is not to reach the host when its siblings do not.
        self.vips.set(&vip_key(vip.0, vip.1), &PRESENT)?;
        self.services.set(&service_key(&service), &PRESENT)?;
        *self.per_vip.entry(vip).or_insert(0) += 1;
        self.known.insert(service);
        Ok(())
    }

    /// Leaves `service` to the host from now on. The workers may forget it after.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn remove_service(&mut self, service: Service) -> io::Result<()> {
        if !self.known.contains(&service) {
            return Ok(());
        }
        self.services.remove(&service_key(&service))?;
        self.known.remove(&service);
        let vip = (service.endpoint.addr, service.proto);
        let left = self.per_vip.get(&vip).map_or(0, |n| n.saturating_sub(1));
        if left == 0 {
            self.per_vip.remove(&vip);
            self.vips.remove(&vip_key(vip.0, vip.1))?;
        } else {
            self.per_vip.insert(vip, left);
        }
        Ok(())
    }

    /// Accepts packets addressed to `mac` on interface `ifindex`: its own address, or a VRRP virtual
    /// MAC while MASTER.
    ///
    /// # Errors
    /// What the kernel answered; a full table is 1,024 stations.
    pub fn add_station(&mut self, ifindex: u32, mac: MacAddr) -> io::Result<()> {
        self.stations.set(&station_key(ifindex, mac), &PRESENT)
    }

    /// Leaves packets addressed to `mac` to the host from now on.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn remove_station(&mut self, ifindex: u32, mac: MacAddr) -> io::Result<()> {
        self.stations.remove(&station_key(ifindex, mac))
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
            steered: port.counters.sum(0)?,
            passed: port.counters.sum(1)?,
            dropped: port.counters.sum(2)?,
        })
    }

    /// What the program says of `packet`, an Ethernet frame, when it comes in on interface 1 (the
    /// kernel's test run takes loopback). Nothing is sent or attached; the counters move.
    ///
    /// # Errors
    /// What the kernel answered; it refuses frames shorter than an Ethernet header.
    pub fn judge(&self, packet: &[u8]) -> io::Result<Decision> {
        let port = self.ports.first().ok_or(io::ErrorKind::NotFound)?;
        let verdict = port.program.run(packet)?;
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

/// Maps that all interfaces' instances share.
const TABLES: [&CStr; 3] = [c"services", c"vips", c"stations"];

/// The value of every entry: that it is there is all there is to say.
const PRESENT: [u8; 4] = 1_u32.to_ne_bytes();

/// struct service of `steer.bpf.c`.
fn service_key(service: &Service) -> [u8; 20] {
    let mut key = [0; 20];
    key[..16].copy_from_slice(&mapped(service.endpoint.addr));
    key[16..18].copy_from_slice(&service.endpoint.port.to_be_bytes());
    key[18] = service.proto.number();
    key
}

/// struct vip of `steer.bpf.c`.
fn vip_key(addr: IpAddr, proto: L4Proto) -> [u8; 20] {
    let mut key = [0; 20];
    key[..16].copy_from_slice(&mapped(addr));
    key[16] = proto.number();
    key
}

/// struct station of `steer.bpf.c`.
fn station_key(ifindex: u32, mac: MacAddr) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&ifindex.to_ne_bytes());
    key[4..10].copy_from_slice(&mac.0);
    key
}

/// The address as 16 bytes, IPv4 mapped. RFC 4291 §2.5.5.2.
fn mapped(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lie_as_the_program_reads_them() {
        let service = Service {
            endpoint: Endpoint::new("192.0.2.1".parse().unwrap(), 0x1f90),
            proto: L4Proto::Udp,
        };
        let mut expected = [0; 20];
        expected[10..16].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 1]);
        let mut vip = expected;
        expected[16..19].copy_from_slice(&[0x1f, 0x90, 17]);
        vip[16] = 17;
        assert_eq!(service_key(&service), expected);
        assert_eq!(vip_key(service.endpoint.addr, service.proto), vip);
        let station = station_key(7, MacAddr([1, 2, 3, 4, 5, 6]));
        assert_eq!(station[..4], 7_u32.to_ne_bytes());
        assert_eq!(station[4..], [1, 2, 3, 4, 5, 6, 0, 0]);
    }
}
