//! The other end of a tunnel: takes packets out of IP in IP, GRE and GUE, as Linux's tunnel interfaces
//! do, which not every kernel has.
//!
//! Raw sockets get the outer packets, put together by the kernel; the inner ones go out at one end of a veth
//! pair, and so come in at the other as if they had come by a wire.

use std::{
    io::Read as _,
    net::{SocketAddr, UdpSocket},
    sync::{Arc, Mutex},
};

use pnet_datalink::{Channel, Config, DataLinkSender};
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    echo::{LOOK, Server},
    host::Host,
};

/// The UDP port of GUE.
pub(crate) const GUE_PORT: u16 = 6080;

/// IP protocols: IPv4, IPv6 and GRE.
const IPV4: u8 = 4;
const IPV6: u8 = 41;
const GRE: u8 = 47;
/// Where inner packets come in, and the address of that end.
const INNER: &str = "tun0";
const MAC: [u8; 6] = [2, 0, 0, 0, 0xff, 1];

/// Takes packets out of tunnels until it is dropped.
pub(crate) struct Decapsulator {
    _servers: Vec<Server>,
    seen: Arc<Mutex<Vec<&'static str>>>,
}

/// Where inner packets go.
type Way = Arc<Mutex<Box<dyn DataLinkSender>>>;

impl Decapsulator {
    /// Starts on `host`, which has IPv6 if `v6`.
    pub(crate) fn start(host: &Host, v6: bool) -> Self {
        host.ip(&format!(
            "link add {INNER} address 02:00:00:00:ff:01 type veth peer name tun1"
        ));
        host.ip_batch(&format!("link set {INNER} up\nlink set tun1 up\n"));
        let way: Way = Arc::new(Mutex::new(host.inside(open)));
        let seen = Arc::default();
        let mut servers = Vec::new();
        for (domain, name) in [(Domain::IPV4, "4in4"), (Domain::IPV6, "4in6")] {
            if domain == Domain::IPV6 && !v6 {
                continue;
            }
            for protocol in [IPV4, IPV6, GRE] {
                let name = match (protocol, name) {
                    (GRE, _) => "gre",
                    (IPV6, "4in4") => "6in4",
                    (IPV6, _) => "6in6",
                    _ => name,
                };
                servers.push(raw(host, domain, protocol, name, &way, &seen));
            }
        }
        servers.push(gue(host, v6, &way, &seen));
        Self {
            _servers: servers,
            seen,
        }
    }

    /// What has carried packets here so far: `4in4`, `6in4`, `4in6`, `6in6`, `gre`, `gue`.
    pub(crate) fn seen(&self) -> Vec<&'static str> {
        self.seen.lock().expect("nobody panics with it").clone()
    }
}

fn open() -> Box<dyn DataLinkSender> {
    let all = pnet_datalink::interfaces();
    let end = all.iter().find(|it| it.name == "tun1").expect("tun1");
    match pnet_datalink::channel(end, Config::default()) {
        Ok(Channel::Ethernet(sender, _)) => sender,
        Ok(_) => panic!("tun1 is no Ethernet"),
        Err(error) => panic!("tun1: {error}"),
    }
}

fn note(seen: &Mutex<Vec<&'static str>>, name: &'static str) {
    let mut seen = seen.lock().expect("nobody panics with it");
    if !seen.contains(&name) {
        seen.push(name);
    }
}

/// Serves one outer protocol of one family.
fn raw(
    host: &Host,
    domain: Domain,
    protocol: u8,
    name: &'static str,
    way: &Way,
    seen: &Arc<Mutex<Vec<&'static str>>>,
) -> Server {
    let kind = Some(Protocol::from(i32::from(protocol)));
    let socket = host.inside(|| Socket::new(domain, Type::RAW, kind));
    let mut socket = socket.unwrap_or_else(|e| panic!("a raw socket: {e}"));
    let waits = socket.set_read_timeout(Some(LOOK));
    waits.expect("a timeout can be set");
    let (way, seen) = (Arc::clone(way), Arc::clone(seen));
    let mut buffer = vec![0; 65_536];
    Server::start(host, move || {
        let Ok(length) = socket.read(&mut buffer) else {
            return;
        };
        let packet = &buffer[..length];
        // With IPv4 the header comes, too.
        let header = match domain {
            Domain::IPV4 => usize::from(packet[0] & 0x0f) * 4,
            _ => 0,
        };
        let payload = &packet[header..];
        let inner = if protocol == GRE {
            gre(payload)
        } else {
            Some(payload)
        };
        if let Some(inner) = inner {
            note(&seen, name);
            deliver(&way, inner);
        }
    })
}

fn gue(host: &Host, v6: bool, way: &Way, seen: &Arc<Mutex<Vec<&'static str>>>) -> Server {
    let any = if v6 { "[::]" } else { "0.0.0.0" };
    let address: SocketAddr = format!("{any}:{GUE_PORT}").parse().expect("an address");
    let socket = host.inside(|| UdpSocket::bind(address));
    let socket = socket.unwrap_or_else(|e| panic!("GUE: {e}"));
    let waits = socket.set_read_timeout(Some(LOOK));
    waits.expect("a timeout can be set");
    let (way, seen) = (Arc::clone(way), Arc::clone(seen));
    let mut buffer = vec![0; 65_536];
    Server::start(host, move || {
        let Ok(length) = socket.recv(&mut buffer) else {
            return;
        };
        // Version 0, data, so many words of options; then the protocol. Options would be a surprise.
        if let [0, IPV4 | IPV6, 0, 0, inner @ ..] = &buffer[..length] {
            note(&seen, "gue");
            deliver(&way, inner);
        }
    })
}

/// What is in a GRE packet of RFC 2784, with a checksum that is right or without.
fn gre(packet: &[u8]) -> Option<&[u8]> {
    match packet {
        [0, 0, 0x08, 0x00, inner @ ..] | [0, 0, 0x86, 0xdd, inner @ ..] => Some(inner),
        [0x80, 0, 0x08, 0x00, _, _, 0, 0, inner @ ..]
        | [0x80, 0, 0x86, 0xdd, _, _, 0, 0, inner @ ..] => is_sound(packet).then_some(inner),
        _ => None,
    }
}

/// Whether the checksum of RFC 1071 over these bytes says that they are whole.
fn is_sound(bytes: &[u8]) -> bool {
    let words = bytes.chunks(2);
    let words = words.map(|it| u64::from(it[0]) << 8 | u64::from(it.get(1).copied().unwrap_or(0)));
    let sum: u64 = words.sum();
    sum > 0 && sum.is_multiple_of(0xffff)
}

fn deliver(way: &Way, inner: &[u8]) {
    let kind: [u8; 2] = match inner.first().map(|byte| byte >> 4) {
        Some(4) => [0x08, 0x00],
        Some(6) => [0x86, 0xdd],
        _ => return,
    };
    let frame = [&MAC[..], &[2, 0, 0, 0, 0xff, 2], &kind, inner].concat();
    let mut sender = way.lock().expect("nobody panics with it");
    // What is too long for the link gets lost, as on any other.
    let _ = sender.send_to(&frame, None);
}
