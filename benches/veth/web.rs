//! nginx behind it and wrk in front: connections and requests a second, and how long a request takes.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use crate::{
    bed::{Running, SOURCE_CPU, command, path, say, spread, wait_for, within},
    ways::Way,
};

const WAYS: [Way; 7] = [
    Way::Kernel,
    Way::Xvs("NAT"),
    Way::Fast("NAT"),
    Way::Xvs("DR"),
    Way::Fast("DR"),
    Way::Nftables,
    Way::Haproxy,
];
const ROUNDS: usize = 3;
const CONNECTIONS: &str = "32";
const SECONDS: &str = "2";

/// What wrk found: requests a second, and the middle and the slowest hundredth in microseconds.
fn wrk(way: Way, close: bool) -> [f64; 3] {
    let mut wrk = command("c", &[SOURCE_CPU], "wrk");
    wrk.args([
        "--threads",
        "1",
        "--connections",
        CONNECTIONS,
        "--duration",
        SECONDS,
        "--latency",
    ]);
    if close {
        wrk.args(["--header", "Connection: close"]);
    }
    let url = format!("http://{}/", Ipv4Addr::from(way.target()));
    let output = wrk.arg(url).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let after = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {text}"))
            .trim()
            .to_owned()
    };
    let rate = after("Requests/sec:").parse().unwrap();
    [rate, micros(&after("50%")), micros(&after("99%"))]
}

/// A time as wrk writes it, in microseconds.
fn micros(text: &str) -> f64 {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6)];
    let value = units.into_iter().find_map(|(unit, factor)| {
        let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(number * factor)
    });
    value.unwrap_or_else(|| panic!("{text} is no time"))
}

fn nginx(folder: &Path) -> Running {
    let file = folder.join("nginx.conf");
    let text = "daemon off;\nmaster_process off;\npid /run/xvs-bench/nginx.pid;\nerror_log stderr;\n\
        events { worker_connections 1024; }\n\
        http { access_log off; keepalive_requests 1000000;\n\
        server { listen 80 backlog=4096; location / { return 200 \"hello\\n\"; } } }\n";
    fs::write(&file, text).unwrap();
    let mut nginx = command("s", &[SOURCE_CPU], "nginx");
    nginx.args(["-e", "stderr", "-c", path(&file)]);
    Running::start(&mut nginx, &folder.join("nginx.log"))
}

pub(crate) fn run(folder: &Path) {
    let _nginx = nginx(folder);
    // Per way: for new connections and for old ones, the three columns.
    let mut results = WAYS.map(|_| [(); 2].map(|()| [(); 3].map(|()| Vec::new())));
    for _ in 0..ROUNDS {
        for (way, results) in WAYS.iter().zip(&mut results) {
            let _standing = way.start(folder);
            let target = SocketAddr::from((way.target(), 80));
            within("c", || {
                wait_for(&way.name(), || {
                    TcpStream::connect_timeout(&target, Duration::from_millis(200)).is_ok()
                });
            });
            for (close, columns) in [true, false].into_iter().zip(results) {
                for (column, value) in columns.iter_mut().zip(wrk(*way, close)) {
                    column.push(value);
                }
            }
        }
    }
    for (at, title) in [
        "connections a second (one request each)",
        "requests a second (kept alive)",
    ]
    .into_iter()
    .enumerate()
    {
        say(&format!(
            "\nwrk with {CONNECTIONS} connections, nginx; wrk and nginx on one processor, with what forwards in the kernel, xvs's worker on the other; \
             {title}, median (least to greatest); microseconds"
        ));
        for (way, results) in WAYS.iter().zip(&mut results) {
            let [rate, p50, p99] = results[at].each_mut().map(|column| spread(column));
            say(&format!(
                "  {:24} {:8.0} ({:.0} to {:.0})   p50 {:7.0}   p99 {:7.0}",
                way.name(),
                rate[0],
                rate[1],
                rate[2],
                p50[0],
                p99[0]
            ));
        }
    }
}
