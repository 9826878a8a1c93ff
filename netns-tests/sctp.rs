//! SCTP: associations between programs that speak it themselves, packet by packet, since kernels seldom
//! do.

use std::{
    io,
    io::Read as _,
    net::{Ipv4Addr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    Subject, Test,
    support::{
        config::{unchecked, virtual_server},
        echo::{LOOK, Server},
        host::Host,
        lan::{CLIENT, Lan, REALS, VIP},
        routed::{FAR, INSIDE, NEAR, Routed},
        secs, wait_until,
        xvs::{Engine, Xvs},
    },
};

pub(crate) fn tests() -> Vec<Test> {
    let both: [Subject; 2] = [
        ("sctp::associations_go_through_dr", direct),
        (
            "sctp::associations_go_through_nat_with_right_checksums",
            translated,
        ),
    ];
    let tests = both.into_iter();
    tests
        .flat_map(|(name, run)| Test::on_both_engines(name, run))
        .collect()
}

/// The virtual server's port, and that of NAT's real servers.
const PORT: u16 = 3868;
const INNER: u16 = 3869;

/// IANA's number.
const SCTP: i32 = 132;

/// The chunks that set an association up, use it and end it, with who sends them; RFC 9260 section 3.3.
/// The content of most is of no matter here.
const TALK: [(bool, u8); 11] = [
    (true, 1),   // INIT
    (false, 2),  // INIT ACK
    (true, 10),  // COOKIE ECHO
    (false, 11), // COOKIE ACK
    (true, 0),   // DATA
    (false, 3),  // SACK
    (true, 4),   // HEARTBEAT
    (false, 5),  // HEARTBEAT ACK
    (true, 7),   // SHUTDOWN
    (false, 8),  // SHUTDOWN ACK
    (true, 14),  // SHUTDOWN COMPLETE
];
/// Where in it the association is established.
const ESTABLISHED: usize = 8;

/// A packet with one chunk.
fn packet(from: u16, to: u16, tag: u32, kind: u8, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + data.len()).expect("a short chunk");
    let mut packet = [
        &from.to_be_bytes()[..],
        &to.to_be_bytes(),
        &tag.to_be_bytes(),
    ]
    .concat();
    packet.extend([0; 4]);
    packet.extend([kind, 0]);
    packet.extend(length.to_be_bytes());
    packet.extend(data);
    packet.resize(packet.len().next_multiple_of(4), 0);
    // RFC 9260 appendix A: least significant byte first.
    let sum = crc32c::crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&sum);
    packet
}

/// Source port, destination port, and what comes behind the checksum, which is right.
fn read(packet: &[u8]) -> Option<(u16, u16, Vec<u8>)> {
    let port = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let mut zeroed = packet.to_vec();
    zeroed.get_mut(8..12)?.fill(0);
    if crc32c::crc32c(&zeroed).to_le_bytes() != packet[8..12] {
        return None;
    }
    Some((port(0)?, port(2)?, packet[12..].to_vec()))
}

/// A raw socket for SCTP at an address on the machine of the calling thread.
fn raw(address: Ipv4Addr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(SCTP)))?;
    socket.bind(&SocketAddr::from((address, 0)).into())?;
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket)
}

/// The next packet: where it comes from, and what it says.
fn next(socket: &mut Socket) -> io::Result<(Ipv4Addr, Vec<u8>)> {
    let mut buffer = [0; 2048];
    let length = socket.read(&mut buffer)?;
    let header = usize::from(buffer[0] & 0x0f) * 4;
    let source = Ipv4Addr::new(buffer[12], buffer[13], buffer[14], buffer[15]);
    Ok((source, buffer[header..length].to_vec()))
}

/// Data of a chunk: for INIT and INIT ACK its tag and more, for all something to recognise it by.
fn data(kind: u8) -> Vec<u8> {
    let mut data = vec![0, 0, 0x12, kind, 0, 1, 0, 0, 0, 5, 0, 5, 0, 0, 0, 1];
    data.extend(b"of kind ");
    data.push(kind);
    data
}

/// Answers what comes to `port` at `address` with what follows in [`TALK`].
fn serve(host: &Host, address: Ipv4Addr, port: u16) -> Server {
    let mut socket = host.inside(|| raw(address)).expect("a raw socket");
    Server::start(host, move || {
        let Ok((client, bytes)) = next(&mut socket) else {
            return;
        };
        let Some((from, to, chunk)) = read(&bytes) else {
            return;
        };
        let asked = TALK.iter().position(|step| *step == (true, chunk[0]));
        let answer = asked.and_then(|at| TALK.get(at + 1));
        if to == port
            && let Some((_, kind)) = answer
        {
            let answer = packet(
                port,
                from,
                0x1200 + u32::from(chunk[0]),
                *kind,
                &data(*kind),
            );
            let client = SocketAddr::from((client, 0)).into();
            socket.send_to(&answer, &client).expect("an answer is sent");
        }
    })
}

/// Steps of the talk with the VIP; every answer must be what the server sent, from the VIP and its port.
fn talk(client: &Host, own: Ipv4Addr, port: u16, steps: &[(bool, u8)]) {
    let outcome = client.inside(|| -> io::Result<()> {
        let mut socket = raw(own)?;
        socket.set_read_timeout(Some(secs(2)))?;
        let vip = SocketAddr::from((VIP, 0)).into();
        for (mine, kind) in steps {
            if *mine {
                let bytes = packet(port, PORT, 0x3400, *kind, &data(*kind));
                socket.send_to(&bytes, &vip)?;
                continue;
            }
            let (source, bytes) = next(&mut socket)
                .map_err(|e| io::Error::new(e.kind(), format!("waiting for {kind}: {e}")))?;
            let (from, to, chunk) = read(&bytes).expect("the checksum is right");
            assert_eq!((source, from, to), (VIP, PORT, port));
            let sent = packet(PORT, port, 0, *kind, &data(*kind));
            assert_eq!(chunk, sent[12..], "chunk {kind}");
        }
        Ok(())
    });
    outcome.unwrap_or_else(|e| panic!("{own}: {e}"));
}

/// Active and inactive associations.
fn counts(lb: &Xvs<'_>) -> (u64, u64) {
    let list = lb.list();
    let reals = list["services"][0]["reals"].as_array().cloned();
    let reals = reals.unwrap_or_default();
    let sum = |key: &str| reals.iter().filter_map(|real| real[key].as_u64()).sum();
    (sum("active"), sum("inactive"))
}

fn associate(lb: &Xvs<'_>, clients: &[(&Host, Ipv4Addr)]) {
    let ports = [40_001, 40_002, 40_003];
    let all = || clients.iter().flat_map(|one| ports.map(|port| (one, port)));
    for ((host, own), port) in all() {
        talk(host, *own, port, &TALK[..ESTABLISHED]);
    }
    let many = u64::try_from(all().count()).expect("some");
    wait_until("all associations are established", secs(3), || {
        counts(lb) == (many, 0)
    });
    for ((host, own), port) in all() {
        talk(host, *own, port, &TALK[ESTABLISHED..]);
    }
    wait_until("all associations are shut down", secs(3), || {
        counts(lb).0 == 0
    });
}

fn direct(engine: Engine) {
    let lan = Lan::new();
    lan.hold_vip();
    let hosts = lan.reals.iter();
    let _servers: Vec<Server> = hosts.map(|host| serve(host, VIP, PORT)).collect();
    let reals = REALS.map(|real| unchecked(&format!("{real} {PORT}"), ""));
    let lines = "lb_algo rr\n    lb_kind DR\n    protocol SCTP";
    let config = virtual_server(&format!("{VIP} {PORT}"), lines, &reals);
    let lb = Xvs::start(&lan, &lan.lb1, &config, engine);
    lb.wait_until_ready();
    associate(&lb, &[(&lan.client, CLIENT)]);
    lb.stop();
}

fn translated(engine: Engine) {
    let net = Routed::new();
    let hosts = net.reals.iter().zip(INSIDE);
    let _servers: Vec<Server> = hosts.map(|(host, own)| serve(host, own, INNER)).collect();
    let reals = INSIDE.map(|real| unchecked(&format!("{real} {INNER}"), ""));
    let lines = "lb_algo rr\n    lb_kind NAT\n    protocol SCTP";
    let config = virtual_server(&format!("{VIP} {PORT}"), lines, &reals);
    let lb = Xvs::start(&net, &net.lb, &config, engine);
    lb.wait_until_ready();
    associate(&lb, &[(&net.near, NEAR), (&net.far, FAR)]);
    lb.stop();
}
