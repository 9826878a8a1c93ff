//! Without privilege: an interface that does not exist, of which the kernel says so.

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use super::*;

/// No namespace has that many interfaces.
const NOWHERE: u32 = 1_999_999_999;

fn link() -> Link {
    Link {
        index: NOWHERE,
        name: "eth0".to_owned(),
        mac: None,
        mtu: 1500,
        up: true,
        running: true,
        loopback: false,
        multicast: true,
        kind: None,
        master: None,
    }
}

fn config(lines: &str) -> config::Config {
    let text = format!(
        "vrrp_instance VI_1 {{\n interface eth0\n virtual_router_id 51\n priority 150\n \
         advert_int 1\n {lines}\n virtual_ipaddress {{\n 198.51.100.1\n \
         198.51.100.2 no_track\n }}\n}}\n"
    );
    let parsed = config::parse("test.conf", text.as_bytes());
    assert!(!parsed.has_errors(), "{}", parsed.report());
    parsed.config
}

/// The instance of `config`, as [`VrrpIo::add`] makes it, but without sockets.
fn without_sockets(config: &config::Config, vrid: u8) -> VrrpIo {
    let instance = &config.vrrp_instances[0];
    let source = Some(Ipv4Addr::new(192, 0, 2, 1));
    let settings = settings(config, instance, NOWHERE, source);
    let addresses = instance.virtual_ipaddress.iter();
    let vips = addresses.map(|address| vip(address, &link())).collect();
    let mut this = VrrpIo {
        router: Router::new(),
        instances: BTreeMap::new(),
        ports: BTreeMap::new(),
        announcements: Announcements::new(config.global.vrrp_garp_interval),
        put_backs: PutBacks::default(),
        advert_reports: SendReports::new(),
        arp_reports: SendReports::new(),
    };
    let id = this.router.add(settings, Instant::ZERO).unwrap();
    this.instances.insert(
        id,
        Instance {
            interface: "eth0".to_owned(),
            vips,
            shown: Vec::new(),
            holds: false,
            // Of the test's own, because tests run at the same time.
            _lock: VridLock::acquire(&link(), VridFamily::V4, vrid).unwrap(),
        },
    );
    this
}

struct Bench {
    netlink: Netlink,
    log: Log,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self {
            netlink: Netlink::open().unwrap(),
            log: Log::new(),
            now: Instant::ZERO,
        }
    }

    fn env(&mut self) -> Env<'_> {
        Env {
            now: self.now,
            wall: SystemTime::UNIX_EPOCH,
            netlink: &mut self.netlink,
            log: &mut self.log,
        }
    }

    fn carry_out(&mut self, vrrp: &mut VrrpIo) {
        vrrp.carry_out(&mut self.env(), &mut |_, _, _| {});
    }
}

/// What the guardian is left: adverts with their interface, and the number of addresses.
fn will(vrrp: &VrrpIo) -> (Vec<u32>, usize) {
    let (adverts, addresses) = vrrp.last_will();
    let interfaces = adverts.iter().map(|advert| advert.ifindex);
    (interfaces.collect(), addresses.len())
}

#[test]
fn the_will_names_addresses_from_before_they_are_added_until_after_they_are_removed() {
    let mut bench = Bench::new();
    let mut vrrp = without_sockets(&config(""), 201);
    vrrp.start(bench.now);
    bench.carry_out(&mut vrrp);
    assert_eq!(will(&vrrp), (vec![], 0));
    bench.now = vrrp.poll_timeout().unwrap();
    vrrp.router.handle_timeout(bench.now);
    assert!(vrrp.is_about_to_add());
    assert_eq!(will(&vrrp), (vec![NOWHERE], 2), "nothing is added yet");
    bench.carry_out(&mut vrrp);
    assert!(!vrrp.is_about_to_add());
    assert_eq!(will(&vrrp), (vec![NOWHERE], 2));

    vrrp.stop(bench.now);
    assert_eq!(will(&vrrp), (vec![], 2), "nothing is removed yet");
    bench.carry_out(&mut vrrp);
    assert_eq!(will(&vrrp), (vec![], 0));
}

#[test]
fn the_configuration_decides_what_is_tracked() {
    let tracked = |lines, vrid| {
        let config = config(lines);
        let vrrp = without_sockets(&config, vrid);
        let settings = settings(&config, &config.vrrp_instances[0], NOWHERE, None);
        let vips = vrrp.instances.values().flat_map(|instance| &instance.vips);
        let no_track: Vec<bool> = vips.map(|vip| vip.no_track).collect();
        (settings.track_link, no_track)
    };
    assert_eq!(tracked("", 202), (true, vec![false, true]));
    assert!(!tracked("dont_track_primary", 203).0);
}

#[test]
fn status_says_why_an_instance_is_in_fault() {
    let mut bench = Bench::new();
    let mut vrrp = without_sockets(&config(""), 204);
    vrrp.start(bench.now);
    vrrp.router.handle_link(bench.now, NOWHERE, false);
    bench.carry_out(&mut vrrp);
    let reason = |vrrp: &VrrpIo| {
        vrrp.status(Instant::ZERO, SystemTime::UNIX_EPOCH)[0]
            .reason
            .clone()
    };
    assert_eq!(reason(&vrrp).as_deref(), Some("eth0 is down"));
    vrrp.router.handle_link(bench.now, NOWHERE, true);
    assert_eq!(reason(&vrrp), None);
}

/// Queues of this many packets each; returns what was taken from which, and whether more may be.
fn taken(queues: &[usize]) -> (Vec<usize>, bool) {
    let order = Rc::new(RefCell::new(Vec::new()));
    let sources = queues.iter().enumerate();
    let sources: Vec<_> = sources
        .map(|(number, length)| {
            let packets: VecDeque<usize> = std::iter::repeat_n(number, *length).collect();
            RefCell::new(packets)
        })
        .collect();
    let more = take_in_turn(sources, |source| {
        let packet = source.borrow_mut().pop_front();
        order.borrow_mut().extend(packet);
        packet.is_some()
    });
    (order.take(), more)
}

#[test]
fn after_a_stall_everything_is_read_before_a_timer_fires() {
    let (order, more) = taken(&[1000, 0, 100]);
    assert_eq!((order.len(), more), (1100, false));
    let second = order.iter().position(|number| *number == 2);
    assert_eq!(second, Some(BURST), "nobody waits for another's backlog");
    assert_eq!(taken(&[]), (Vec::new(), false));
}

#[test]
fn a_flood_stops_no_timer() {
    let (order, more) = taken(&[1_000_000, 10]);
    assert_eq!((order.len(), more), (PACKETS_PER_TURN, true));
    assert_eq!(order.iter().filter(|number| **number == 1).count(), 10);
}
