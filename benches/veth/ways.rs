//! What can stand between client and server.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use xvs::{
    addr::{Endpoint, L4Proto, PortId},
    dataplane::{
        af_xdp::{XdpBackend, XdpWish},
        io::{BURST, PacketIo as _},
        ports::{PortControl as _, Ports, orders::Order},
    },
    sys::{
        affinity, netns,
        steer::{Hook, Steered, Steering, Target},
        waker::Waker,
    },
};

use crate::bed::{self, BALANCER_CPU, Running, SOURCE_CPU, UDP_PORT, VIP, command, path, run_in};

/// What stands between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The kernel forwards, and translates nothing.
    Kernel,
    /// A forwarder over AF_XDP that receives, sets the MAC addresses and transmits, nothing else.
    Bare,
    /// xvs with this lb_kind.
    Xvs(&'static str),
    /// The same, with a worker that never sleeps.
    Awake(&'static str),
    /// The kernel with nftables' DNAT.
    Nftables,
    /// HAProxy in TCP mode, one thread.
    Haproxy,
}

impl Way {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Kernel => "kernel forwarding".into(),
            Self::Bare => "bare AF_XDP forwarder".into(),
            Self::Xvs(kind) => format!("xvs {kind}"),
            Self::Awake(kind) => format!("xvs {kind}, spin_us 1000000"),
            Self::Nftables => "nftables DNAT".into(),
            Self::Haproxy => "HAProxy".into(),
        }
    }

    /// The name of the thread that passes packets, where there is one.
    pub(crate) const fn thread(self) -> &'static str {
        match self {
            Self::Bare => BARE,
            Self::Xvs(_) | Self::Awake(_) => "xvs-worker-0",
            _ => "",
        }
    }

    /// The address that clients use.
    pub(crate) const fn target(self) -> [u8; 4] {
        match self {
            Self::Kernel => bed::SERVER,
            Self::Haproxy => [10, 9, 0, 2],
            _ => VIP,
        }
    }

    /// Puts it there.
    pub(crate) fn start(self, folder: &Path) -> Standing {
        match self {
            Self::Kernel => Standing::Kernel,
            Self::Bare => Standing::Bare(Bare::start()),
            Self::Xvs(kind) | Self::Awake(kind) => {
                let file = folder.join("xvs.conf");
                let mut text = configuration(kind);
                if let Self::Awake(_) = self {
                    text += "xvs {\n spin_us 1000000\n}\n";
                }
                fs::write(&file, text).expect("the folder is ours");
                let mut xvs = command("lb", &[SOURCE_CPU, BALANCER_CPU], env!("CARGO_BIN_EXE_xvs"));
                xvs.args(["run", "--file", path(&file)]);
                xvs.args(["--socket", path(&folder.join("xvs.sock"))]);
                // The worker has its processor to itself; what else there is stays with the source.
                let cpus = format!("{BALANCER_CPU}");
                xvs.args(["--io", "af-xdp", "--workers", "1", "--cpus", &cpus]);
                Standing::Process {
                    _process: Running::start(&mut xvs, &folder.join("xvs.log")),
                }
            }
            Self::Nftables => {
                let rules = format!(
                    "table ip t {{ chain p {{ type nat hook prerouting priority dstnat;
                     ip daddr 10.9.0.100 udp dport {UDP_PORT} dnat to 10.9.1.2;
                     ip daddr 10.9.0.100 tcp dport 80 dnat to 10.9.1.2; }}; }}"
                );
                run_in("lb", "nft", &[&rules]);
                Standing::Nftables
            }
            Self::Haproxy => {
                let file = folder.join("haproxy.cfg");
                let text = "global\n maxconn 4000\n nbthread 1\n\
                    defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
                    listen web\n bind 10.9.0.2:80\n server one 10.9.1.2:80\n";
                fs::write(&file, text).expect("the folder is ours");
                let mut haproxy = command("lb", &[BALANCER_CPU], "haproxy");
                haproxy.args(["-db", "-f", path(&file)]);
                let log = folder.join("haproxy.log");
                Standing::Process {
                    _process: Running::start(&mut haproxy, &log),
                }
            }
        }
    }
}

/// xvs's configuration: the VIP on `l0`, one real server behind `l1`.
fn configuration(kind: &str) -> String {
    let server = |port: u16, protocol: &str| {
        format!(
            "virtual_server 10.9.0.100 {port} {{\n lb_algo rr\n lb_kind {kind}\n protocol {protocol}\n \
             real_server 10.9.1.2 {port} {{\n  weight 1\n }}\n}}\n"
        )
    };
    format!(
        "vrrp_instance V {{\n state MASTER\n interface l0\n \
         virtual_router_id 51\n priority 255\n virtual_ipaddress {{\n  10.9.0.100/32\n }}\n}}\n{}{}",
        server(80, "TCP"),
        server(UDP_PORT, "UDP")
    )
}

/// What stands there, until this is dropped.
pub(crate) enum Standing {
    Kernel,
    Bare(Bare),
    Nftables,
    Process { _process: Running },
}

impl Drop for Standing {
    fn drop(&mut self) {
        match self {
            Self::Nftables => run_in("lb", "nft", &["delete table ip t"]),
            Self::Bare(bare) => bare.stop(),
            Self::Kernel | Self::Process { .. } => {}
        }
    }
}

/// The name of its thread.
pub(crate) const BARE: &str = "bare-forwarder";

/// The bare forwarder.
pub(crate) struct Bare {
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Bare {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&stop);
        let body = move || forward(&ends);
        let thread = thread::Builder::new().name(BARE.into()).spawn(body);
        Self {
            thread: Some(thread.expect("a thread")),
            stop,
        }
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok(), "the bare forwarder failed");
        }
    }
}

/// Receives on `l0`, sets the addresses, transmits on `l1`. It wakes and sleeps as a worker does.
fn forward(stop: &AtomicBool) {
    netns::enter("lb").expect("the namespace is there");
    affinity::pin_current_thread(BALANCER_CPU).expect("the processor is there");
    let interfaces = [bed::interface("l0"), bed::interface("l1")];
    let service = |port, proto| {
        let endpoint = Endpoint::new(VIP.into(), port);
        Steered::Service(Target { endpoint, proto })
    };
    let matches = [service(UDP_PORT, L4Proto::Udp)];
    let steering = Steering::load(Hook::Xdp, &matches).expect("the program loads");
    let wakers = [Waker::new().expect("a descriptor")];
    let made = XdpBackend::new(XdpWish::Auto, false, 2, &wakers);
    let (backend, mut ios) = made.unwrap_or_else(|e| panic!("AF_XDP: {e}"));
    let (mut ports, mut inboxes) = Ports::new(backend, steering, &wakers, None, Arc::new(|| ()));
    let opened = ports.open_now(&interfaces);
    opened.unwrap_or_else(|e| panic!("AF_XDP: {e}"));
    let mut io = ios.remove(0);
    while let Some(order) = inboxes[0].next() {
        if let Order::Open(part) = order {
            io.open(part);
        }
    }
    let (source, destination) = (bed::mac("l1"), bed::mac("s0"));
    let mut burst = Vec::with_capacity(BURST);
    let mut idle = 0;
    while !stop.load(Ordering::Relaxed) {
        io.reclaim();
        io.receive(&mut burst);
        if burst.is_empty() {
            idle += 1;
            if idle > 64 {
                io.wait(Duration::from_millis(50)).expect("poll works");
            }
            continue;
        }
        idle = 0;
        for mut frame in burst.drain(..) {
            if let Some(stations) = frame.bytes_mut().first_chunk_mut::<12>() {
                stations[..6].copy_from_slice(&destination);
                stations[6..].copy_from_slice(&source);
            }
            if let Err(frame) = io.transmit(PortId(1), frame) {
                io.release(frame);
            }
        }
        io.flush();
    }
    ports.detach().expect("the program goes");
}
