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
    addr::MacAddr,
    sys::{
        affinity, clock, netns,
        packet_socket::{BATCH, PacketSocket},
        steer::{Hook, Steering},
    },
    time::Instant,
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
    let steering = Steering::load(Hook::Ingress, &[]).unwrap();
    let program = steering.another().unwrap().load(&spec).unwrap();
    let mac = MacAddr(bed::mac("c0"));
    let mut socket = PacketSocket::open(&spec, mac, &program).unwrap();
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

/// What is known at one moment.
struct Moment {
    at: Instant,
    received: u64,
    sent: u64,
    busy: Option<u64>,
}

impl Moment {
    fn now(way: Way, sent: &AtomicU64) -> Self {
        Self {
            at: clock::now(),
            received: received("s0"),
            sent: sent.load(Ordering::Relaxed),
            busy: bed::processor_time(way.thread()),
        }
    }

    /// Packets a second that came out and that were sent, and nanoseconds of the passing thread's for each.
    fn since(&self, begin: &Self) -> [f64; 3] {
        let seconds = (self.at.as_nanos() - begin.at.as_nanos()) as f64 / 1e9;
        let received = (self.received - begin.received) as f64;
        let busy = self.busy.zip(begin.busy).map(|(end, begin)| end - begin);
        [
            received / seconds,
            (self.sent - begin.sent) as f64 / seconds,
            busy.map_or(f64::NAN, |busy| busy as f64 / received),
        ]
    }
}

/// Lets the flood go through something for a while.
fn measure(way: Way, folder: &Path) -> [f64; 3] {
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let standing = way.start(folder);
    let (ends, counts) = (Arc::clone(&stop), Arc::clone(&sent));
    let source = thread::spawn(move || source(&ends, &counts));
    let rates = bed::within("s", || {
        let first = received("s0");
        // Once thousands come out it is no greeting but the flood.
        wait_for(&way.name(), || received("s0") > first + 10_000);
        thread::sleep(WARM_UP);
        let begin = Moment::now(way, &sent);
        thread::sleep(WINDOW);
        Moment::now(way, &sent).since(&begin)
    });
    stop.store(true, Ordering::Relaxed);
    source.join().unwrap();
    drop(standing);
    rates
}

pub(crate) fn run(folder: &Path) {
    drop_all(folder, true);
    // Of each way and round: packets a second, as a share of the bare forwarder's, and sent; nanoseconds a packet.
    let mut results = WAYS.map(|_| [(); 4].map(|()| Vec::new()));
    for _ in 0..ROUNDS {
        let mut bare = f64::NAN;
        for (way, columns) in WAYS.into_iter().zip(&mut results) {
            let [out, sent, busy] = measure(way, folder);
            if way == Way::Bare {
                bare = out;
            }
            for (column, value) in columns.iter_mut().zip([out, out / bare, sent, busy]) {
                column.push(value);
            }
        }
    }
    drop_all(folder, false);
    say(&format!(
        "60-byte UDP, {FLOWS} flows, {ROUNDS} rounds in turns; packets a second, median (least to greatest); \
         processor time of the passing thread while it spins or works"
    ));
    for (way, columns) in WAYS.iter().zip(&mut results) {
        let [out, ratio, sent, busy] = columns.each_mut().map(|column| spread(column));
        let busy = if busy[0].is_nan() {
            String::new()
        } else {
            format!("{:5.0} ns a packet", busy[0])
        };
        say(&format!(
            "  {:24} {:9.0} ({:.0} to {:.0})   {:.2} of bare ({:.2} to {:.2})   of {:.0} sent   {busy}",
            way.name(),
            out[0],
            out[1],
            out[2],
            ratio[0],
            ratio[1],
            ratio[2],
            sent[0]
        ));
    }
}
