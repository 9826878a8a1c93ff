//! What the box adds to the time of a packet and its answer at low load: one every millisecond.

use std::{
    net::{Ipv4Addr, UdpSocket},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use hdrhistogram::Histogram;
use xvs::sys::{affinity, clock, netns};

use crate::{
    bed::{CLIENT, SERVER, SOURCE_CPU, UDP_PORT, VIP, say, wait_for, within},
    ways::Way,
};

const WAYS: [Way; 6] = [
    Way::Kernel,
    Way::Nftables,
    Way::Xvs("NAT"),
    Way::Xvs("DR"),
    Way::Awake("NAT"),
    Way::Awake("DR"),
];
const ROUNDS: usize = 3;
const PINGS: usize = 1500;
const PAUSE: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_millis(100);

/// Answers at one of the server's addresses until `stop` is set.
fn echo(addr: [u8; 4], stop: &AtomicBool) {
    netns::enter("s").unwrap();
    affinity::pin_current_thread(SOURCE_CPU).unwrap();
    let socket = UdpSocket::bind((Ipv4Addr::from(addr), UDP_PORT)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((len, from)) = socket.recv_from(&mut bytes) {
            let _ = socket.send_to(&bytes[..len], from);
        }
    }
}

/// Adds round trips in nanoseconds; how many had no answer.
fn ping(way: Way, times: &mut Histogram<u64>) -> usize {
    affinity::pin_current_thread(SOURCE_CPU).unwrap();
    let socket = UdpSocket::bind((Ipv4Addr::from(CLIENT), 0)).unwrap();
    socket
        .connect((Ipv4Addr::from(way.target()), UDP_PORT))
        .unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = [0; 64];
    wait_for(&way.name(), || {
        socket.send(&[0; 18]).is_ok() && socket.recv(&mut bytes).is_ok()
    });
    let mut lost = 0;
    for number in 0..PINGS as u64 {
        thread::sleep(PAUSE);
        let (begin, number) = (clock::now(), number.to_be_bytes());
        let sent = socket.send(&number);
        // Earlier ones that came late are not this one's answer.
        let answered = sent.is_ok()
            && loop {
                match socket.recv(&mut bytes) {
                    Ok(8) if bytes[..8] == number => break true,
                    Ok(_) => {}
                    Err(_) => break false,
                }
            };
        if answered {
            let nanos = u64::try_from((clock::now() - begin).as_nanos()).unwrap_or(u64::MAX);
            times.saturating_record(nanos);
        } else {
            lost += 1;
        }
    }
    lost
}

pub(crate) fn run(folder: &Path) {
    let stop = Arc::new(AtomicBool::new(false));
    let echoes = [SERVER, VIP].map(|addr| {
        let stop = Arc::clone(&stop);
        thread::spawn(move || echo(addr, &stop))
    });
    let mut results = WAYS.map(|_| (Histogram::new_with_bounds(1, 1_000_000_000, 3).unwrap(), 0));
    for _ in 0..ROUNDS {
        for (way, (times, lost)) in WAYS.iter().zip(&mut results) {
            let _standing = way.start(folder);
            *lost += within("c", || ping(*way, times));
        }
    }
    stop.store(true, Ordering::Relaxed);
    echoes.into_iter().for_each(|echo| echo.join().unwrap());
    say(&format!(
        "\nUDP there and back, one every ms, {ROUNDS} rounds of {PINGS}; microseconds (more than kernel forwarding)"
    ));
    let at = |times: &Histogram<u64>, quantile| times.value_at_quantile(quantile) as f64 / 1e3;
    let base: Vec<_> = [0.5, 0.99, 0.999].map(|q| at(&results[0].0, q)).to_vec();
    for (way, (times, lost)) in WAYS.iter().zip(&results) {
        let columns = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)]
            .into_iter()
            .zip(&base);
        let columns = columns.map(|((name, q), base)| {
            let value = at(times, q);
            format!("{name} {value:7.1} ({:+.1})", value - base)
        });
        let columns = columns.collect::<Vec<_>>().join("   ");
        say(&format!("  {:26} {columns}   lost {lost}", way.name()));
    }
}
