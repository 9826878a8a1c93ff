//! A host without a kernel, and a room on it.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    net::{IpAddr, Ipv4Addr},
    rc::Rc,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, SystemTime},
};

use mio::{Poll, Registry, Token};

use super::super::{
    Env, Vrrp,
    addresses::Place,
    host::{Host, Sockets},
};
use crate::{
    addr::{IpPrefix, MacAddr},
    config::{self, Config},
    control::{api::InstanceStatus, log::Log},
    sys::netlink::{Added, Address, AddressOptions, Link, Removed, Scope},
    time::Instant,
    vrrp::State,
    wire::vrrp::{AdvertView, Datagram},
};

/// Indices that no other test has at the same time: the locks of virtual routers are the kernel's.
fn fresh_index() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let process = std::process::id() & 0xffff;
    0x4000_0000 + (process << 12) + NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A `vrrp_instance` of priority 150 with further lines and virtual addresses.
pub(super) fn instance(name: &str, dev: &str, vrid: u8, lines: &str, vips: &[&str]) -> String {
    let vips = vips.join("\n ");
    format!(
        "vrrp_instance {name} {{\n interface {dev}\n virtual_router_id {vrid}\n priority 150\n \
         advert_int 1\n {lines}\n virtual_ipaddress {{\n {vips}\n }}\n}}\n"
    )
}

pub(super) fn parse(text: &str) -> Config {
    let parsed = config::parse("test.conf", text.as_bytes());
    assert!(!parsed.has_errors(), "{}", parsed.report());
    parsed.config
}

/// What went over the wire: by which interface, and an advert's VRID and priority or the address of a
/// gratuitous ARP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Advert(u32, u8, u8),
    Arp(u32, Ipv4Addr),
}

type Wire = Rc<RefCell<Vec<Sent>>>;
type Arrived = Rc<RefCell<BTreeMap<u32, VecDeque<Vec<u8>>>>>;

#[derive(Default)]
pub(super) struct FakeHost {
    pub(super) links: BTreeMap<String, Link>,
    /// The host's own address on an interface.
    own: BTreeMap<u32, Ipv4Addr>,
    pub(super) present: BTreeMap<Place, AddressOptions>,
    /// Addresses that cannot be added or removed.
    pub(super) refuses: BTreeSet<IpAddr>,
    /// Interfaces that cannot be opened.
    pub(super) closed: BTreeSet<String>,
    /// What was changed, in order: `+ ADDRESS` and `- ADDRESS`.
    pub(super) changes: Vec<String>,
    pub(super) wire: Wire,
    pub(super) arrived: Arrived,
    /// How many sockets are open.
    pub(super) open: Rc<RefCell<BTreeMap<u32, usize>>>,
}

impl FakeHost {
    pub(super) fn index(&self, name: &str) -> u32 {
        self.links[name].index
    }

    /// Makes an interface, with an own address that ends in `own`.
    pub(super) fn plug(&mut self, name: &str, own: Option<u8>) -> Link {
        let link = Link {
            index: fresh_index(),
            name: name.to_owned(),
            mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
            mtu: 1500,
            up: true,
            running: true,
            loopback: false,
            multicast: true,
            kind: None,
            master: None,
        };
        if let Some(own) = own {
            let own = Ipv4Addr::new(192, 0, 2, own);
            self.own.insert(link.index, own);
            let prefix = format!("{own}/24").parse().unwrap();
            self.present
                .insert((link.index, prefix), AddressOptions::default());
        }
        self.links.insert(name.to_owned(), link.clone());
        link
    }

    /// Deletes an interface with its addresses.
    pub(super) fn unplug(&mut self, name: &str) -> Link {
        let link = self.links.remove(name).unwrap();
        self.present
            .retain(|(ifindex, _), _| *ifindex != link.index);
        link
    }

    pub(super) fn put(&mut self, name: &str, prefix: &str) -> Place {
        let place = (self.index(name), prefix.parse().unwrap());
        self.present.insert(place, AddressOptions::default());
        place
    }

    /// The addresses that are not the host's own, with the names of their interfaces.
    pub(super) fn vips(&self) -> BTreeSet<(String, String)> {
        let on = |ifindex: u32| {
            let mut links = self.links.values();
            let link = links.find(|link| link.index == ifindex);
            link.map_or_else(|| "nowhere".to_owned(), |link| link.name.clone())
        };
        let all = self.present.keys();
        let vips = all.filter(|(ifindex, prefix)| {
            let own = self.own.get(ifindex).copied().map(IpAddr::V4);
            own != Some(prefix.addr())
        });
        vips.map(|(ifindex, prefix)| (on(*ifindex), prefix.to_string()))
            .collect()
    }
}

impl Host for FakeHost {
    fn link(&mut self, name: &str) -> Result<Option<Link>, String> {
        Ok(self.links.get(name).cloned())
    }

    fn addresses(&mut self, ifindex: u32) -> Result<Vec<Address>, String> {
        let on = self.present.keys().filter(|(on, _)| *on == ifindex);
        let address = |(ifindex, prefix): &Place| Address {
            ifindex: *ifindex,
            prefix: *prefix,
            peer: None,
            scope: Scope::Global,
            secondary: false,
            label: None,
        };
        Ok(on.map(address).collect())
    }

    fn primary_v4(&mut self, ifindex: u32, vips: &[Ipv4Addr]) -> Result<Option<Ipv4Addr>, String> {
        let own = self.own.get(&ifindex).copied();
        Ok(own.filter(|own| !vips.contains(own)))
    }

    fn add_address(
        &mut self,
        ifindex: u32,
        prefix: IpPrefix,
        options: &AddressOptions,
    ) -> Result<Added, String> {
        if self.refuses.contains(&prefix.addr()) {
            return Err(format!("adding {prefix}: Permission denied"));
        }
        if self.present.contains_key(&(ifindex, prefix)) {
            return Ok(Added::AlreadyThere);
        }
        assert!(
            self.links.values().any(|link| link.index == ifindex),
            "there is no such interface"
        );
        self.changes.push(format!("+ {prefix}"));
        self.present.insert((ifindex, prefix), options.clone());
        Ok(Added::Added)
    }

    fn remove_address(&mut self, ifindex: u32, prefix: IpPrefix) -> Result<Removed, String> {
        if self.refuses.contains(&prefix.addr()) {
            return Err(format!("removing {prefix}: Permission denied"));
        }
        match self.present.remove(&(ifindex, prefix)) {
            Some(_) => {
                self.changes.push(format!("- {prefix}"));
                Ok(Removed::Removed)
            }
            None => Ok(Removed::NotThere),
        }
    }

    fn open(&mut self, link: &Link) -> io::Result<Box<dyn Sockets>> {
        if self.closed.contains(&link.name) {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        *self.open.borrow_mut().entry(link.index).or_default() += 1;
        Ok(Box::new(FakeSockets {
            ifindex: link.index,
            wire: Rc::clone(&self.wire),
            arrived: Rc::clone(&self.arrived),
            open: Rc::clone(&self.open),
            listens: false,
        }))
    }
}

struct FakeSockets {
    ifindex: u32,
    wire: Wire,
    arrived: Arrived,
    open: Rc<RefCell<BTreeMap<u32, usize>>>,
    listens: bool,
}

impl Drop for FakeSockets {
    fn drop(&mut self) {
        *self.open.borrow_mut().get_mut(&self.ifindex).unwrap() -= 1;
    }
}

impl Sockets for FakeSockets {
    fn listen(
        &mut self,
        link: &Link,
        _: &BTreeSet<Ipv4Addr>,
        _: (&Registry, Token),
    ) -> io::Result<()> {
        assert_eq!(link.index, self.ifindex, "sockets of another interface");
        self.listens = true;
        Ok(())
    }

    fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        let mut arrived = self.arrived.borrow_mut();
        let packet = arrived.entry(self.ifindex).or_default().pop_front();
        Ok(packet.map(|packet| {
            buffer[..packet.len()].copy_from_slice(&packet);
            &buffer[..packet.len()]
        }))
    }

    fn send_advert(&self, _: Ipv4Addr, packet: &[u8]) -> io::Result<()> {
        assert!(self.listens, "adverts by a socket that is not open");
        let datagram = Datagram::parse(packet).unwrap();
        let advert = AdvertView::parse(datagram.payload).unwrap();
        let sent = Sent::Advert(self.ifindex, advert.vrid, advert.priority);
        self.wire.borrow_mut().push(sent);
        Ok(())
    }

    fn send_frame(&mut self, frame: &[u8]) -> io::Result<()> {
        // The sender's address of an ARP packet.
        let address = <[u8; 4]>::try_from(&frame[28..32]).unwrap();
        let sent = Sent::Arp(self.ifindex, Ipv4Addr::from(address));
        self.wire.borrow_mut().push(sent);
        Ok(())
    }
}

/// A room on a fake host, in virtual time.
pub(super) struct Bench {
    pub(super) host: FakeHost,
    pub(super) now: Instant,
    pub(super) vrrp: Vrrp,
    /// What the data plane was told: `+ ADDRESS` and `- ADDRESS`.
    pub(super) taken: Vec<String>,
    log: Log,
    _poll: Poll,
}

impl Bench {
    /// With these interfaces.
    pub(super) fn with(links: &[(&str, Option<u8>)]) -> Self {
        let poll = Poll::new().unwrap();
        let registry = poll.registry().try_clone().unwrap();
        let mut host = FakeHost::default();
        for (name, own) in links {
            host.plug(name, *own);
        }
        Self {
            host,
            now: Instant::ZERO + Duration::from_secs(1000),
            vrrp: Vrrp::new(registry, 0),
            taken: Vec::new(),
            log: Log::unread(),
            _poll: poll,
        }
    }

    pub(super) fn with_env<T>(
        &mut self,
        act: impl FnOnce(&mut Vrrp, &mut Env<'_, FakeHost>) -> T,
    ) -> T {
        let mut env = Env {
            now: self.now,
            wall: SystemTime::UNIX_EPOCH,
            host: &mut self.host,
            log: &mut self.log,
        };
        act(&mut self.vrrp, &mut env)
    }

    /// As the engine does it at the start.
    pub(super) fn start(&mut self, text: &str) {
        let config = parse(text);
        self.with_env(|vrrp, env| {
            vrrp.check(&config, env).unwrap();
            vrrp.apply(&config, env);
            vrrp.start(env.now);
        });
        self.carry_out();
    }

    /// Started, and MASTER of everything: nobody else speaks.
    pub(super) fn master(links: &[(&str, Option<u8>)], text: &str) -> Self {
        let mut bench = Self::with(links);
        bench.start(text);
        bench.run(Duration::from_secs(20));
        for status in bench.status() {
            assert_eq!(status.state, "MASTER", "{status:?}");
        }
        bench.forget();
        bench
    }

    /// A reload, as the engine does it.
    pub(super) fn reload(&mut self, text: &str) -> Result<(), String> {
        let config = parse(text);
        self.with_env(|vrrp, env| {
            vrrp.check(&config, env)?;
            vrrp.apply(&config, env);
            Ok(())
        })
        .inspect(|()| self.carry_out())
    }

    /// Lets time pass, with everything that becomes due in it.
    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(next) = self.vrrp.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(next);
            self.with_env(|vrrp, env| {
                vrrp.receive(env);
                vrrp.handle_timeout(env);
            });
            self.carry_out();
        }
        self.now = end;
    }

    pub(super) fn carry_out(&mut self) {
        let mut taken = std::mem::take(&mut self.taken);
        self.with_env(|vrrp, env| {
            vrrp.carry_out(env, &mut |env, addresses, on| {
                for address in addresses {
                    let mut present = env.host.present.keys();
                    let there = present.any(|(_, on)| on.addr() == *address);
                    let refused = env.host.refuses.contains(address);
                    let last = "told first when new, last when gone";
                    assert!(!there || refused, "{address}: {last}");
                    taken.push(format!("{} {address}", if on { '+' } else { '-' }));
                }
            })
        });
        self.taken = taken;
    }

    /// What happens to interfaces, told and carried out as the engine does it.
    pub(super) fn tell(&mut self, act: impl FnOnce(&mut Vrrp, &mut Env<'_, FakeHost>)) {
        self.with_env(act);
        self.carry_out();
    }

    /// An interface changes.
    pub(super) fn changes(&mut self, name: &str, change: impl FnOnce(&mut Link)) {
        let link = self.host.links.get_mut(name).unwrap();
        change(link);
        let link = link.clone();
        self.tell(|vrrp, env| {
            vrrp.handle_link(env, &link);
            vrrp.handle_addresses(env, link.index);
        });
    }

    pub(super) fn is_up(&mut self, name: &str, up: bool) {
        self.changes(name, |link| (link.up, link.running) = (up, up));
    }

    /// An interface is deleted.
    pub(super) fn unplug(&mut self, name: &str) {
        let link = self.host.unplug(name);
        self.tell(|vrrp, env| vrrp.handle_link_removed(env, &link));
    }

    /// An interface is made.
    pub(super) fn plug(&mut self, name: &str, own: Option<u8>) {
        let link = self.host.plug(name, own);
        self.tell(|vrrp, env| {
            vrrp.handle_link(env, &link);
            vrrp.handle_addresses(env, link.index);
        });
    }

    /// Forgets what happened so far.
    pub(super) fn forget(&mut self) {
        self.host.changes.clear();
        self.host.wire.borrow_mut().clear();
        self.taken.clear();
    }

    pub(super) fn wire(&self) -> Vec<Sent> {
        self.host.wire.take()
    }

    pub(super) fn status(&self) -> Vec<InstanceStatus> {
        self.vrrp.status(self.now, SystemTime::UNIX_EPOCH)
    }

    /// Name, state and reason of each instance.
    pub(super) fn states(&self) -> Vec<(String, String, Option<String>)> {
        let all = self.status().into_iter();
        all.map(|one| (one.name, one.state, one.reason)).collect()
    }

    pub(super) fn is_master(&self, name: &str) -> bool {
        let mut all = self.status().into_iter();
        all.any(|one| one.name == name && one.state == State::Master.name())
    }

    /// What the guardian is left: the interfaces of adverts, and the number of addresses.
    pub(super) fn will(&self) -> (Vec<u32>, usize) {
        let (adverts, addresses) = self.vrrp.last_will();
        let interfaces = adverts.iter().map(|advert| advert.ifindex);
        (interfaces.collect(), addresses.len())
    }
}
