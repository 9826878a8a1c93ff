//! Packets a second from client to server: 60 bytes of UDP, many flows, as fast as one processor sends them.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use etherparse::PacketBuilder;
use xvs::{
    addr::{MacAddr, PortId},
    sys::{
        affinity, clock, netns,
        packet_socket::{BATCH, PacketSocket},
        steer::{Hook, Steering},
    },
};

use crate::{
    bed::{self, SOURCE_CPU, UDP_PORT, VIP, drop_all, received, say, spread, wait_for},
    ways::Way,
};

const WAYS: [Way; 5] = [
    Way::Bare,
    Way::Xvs("DR"),
    Way::Xvs("NAT"),
    Way::Xvs("TUN"),
    Way::Nftables,
];
const FLOWS: u16 = 1024;
const ROUNDS: usize = 5;
/// Of one measurement; before it, the time for everything to be warm.
const WINDOW: Duration = Duration::from_secs(1);
const WARM_UP: Duration = Duration::from_millis(300);

/// Sends until `stop` is set, and counts what it sent.
fn source(stop: &AtomicBool, sent: &AtomicU64) {
    netns::enter("c").unwrap();
    affinity::pin_current_thread(SOURCE_CPU).unwrap();
    let spec = bed::interface("c0");
    // Without a match: the socket is for sending only.
    let steering = Steering::load(Hook::Ingress, std::slice::from_ref(&spec), &[]).unwrap();
    let mac = MacAddr(bed::mac("c0"));
    let mut socket = PacketSocket::open(&spec, mac, &steering, PortId(0)).unwrap();
    let packets: Vec<_> = (0..FLOWS).map(packet).collect();
    for batch in packets.chunks(BATCH).cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        // What does not fit is not sent.
        let count = socket.send(batch).unwrap_or(0);
        sent.fetch_add(count as u64, Ordering::Relaxed);
    }
}

fn packet(flow: u16) -> Vec<u8> {
    let [high, low] = flow.to_be_bytes();
    let packet = PacketBuilder::ethernet2(bed::mac("c0"), bed::mac("l0"))
        .ipv4([10, 8, high, low], VIP, 64)
        .udp(1024 + flow, UDP_PORT);
    let mut bytes = Vec::new();
    packet.write(&mut bytes, &[0; 18]).unwrap();
    bytes
}

/// Packets a second that came out, and that were sent.
fn measure(way: Way, folder: &Path) -> [f64; 2] {
    let (stop, sent) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let standing = way.start(folder);
    let (ends, counts) = (Arc::clone(&stop), Arc::clone(&sent));
    let source = thread::spawn(move || source(&ends, &counts));
    let rates = bed::within("s", || {
        let first = received("s0");
        // Once hundreds come out it is no greeting but the flood.
        wait_for(&way.name(), || received("s0") > first + 10_000);
        thread::sleep(WARM_UP);
        let begin = (clock::now(), received("s0"), sent.load(Ordering::Relaxed));
        thread::sleep(WINDOW);
        let end = (clock::now(), received("s0"), sent.load(Ordering::Relaxed));
        let seconds = (end.0 - begin.0).as_secs_f64();
        [end.1 - begin.1, end.2 - begin.2].map(|packets| packets as f64 / seconds)
    });
    stop.store(true, Ordering::Relaxed);
    source.join().unwrap();
    drop(standing);
    rates
}

pub(crate) fn run(folder: &Path) {
    drop_all(folder, true);
    let mut rates = WAYS.map(|_| Vec::new());
    let mut ratios = WAYS.map(|_| Vec::new());
    let mut offered = Vec::new();
    for _ in 0..ROUNDS {
        let mut bare = f64::NAN;
        for (at, way) in WAYS.into_iter().enumerate() {
            let [out, sent] = measure(way, folder);
            if way == Way::Bare {
                bare = out;
            }
            rates[at].push(out);
            ratios[at].push(out / bare);
            offered.push(sent);
        }
    }
    drop_all(folder, false);
    let [middle, least, most] = spread(&mut offered);
    say(&format!(
        "60-byte UDP, {FLOWS} flows, {ROUNDS} rounds in turns; packets a second, median (least to greatest); \
         offered {middle:.0} ({least:.0} to {most:.0})"
    ));
    for ((way, rates), ratios) in WAYS.iter().zip(&mut rates).zip(&mut ratios) {
        let [middle, least, most] = spread(rates);
        let [ratio, lowest, highest] = spread(ratios);
        say(&format!(
            "  {:24} {middle:9.0} ({least:.0} to {most:.0})   {ratio:.2} of bare ({lowest:.2} to {highest:.2})",
            way.name()
        ));
    }
}
