//! What is not for a virtual server is none of xvs's business: the host gets it untouched.

use std::{
    io,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    thread,
};

use crate::{
    Test,
    support::{
        client::{connect, get},
        config::{service, vrrp},
        host::Host,
        lan::{CLIENT, LB1, Lan, VIP, mac_of},
        secs,
        web::WebServer,
        xvs::{Engine, Xvs},
    },
};

pub(crate) fn tests() -> Vec<Test> {
    Test::on_each_engine("foreign_traffic::it_reaches_the_host_untouched", untouched).collect()
}

fn untouched(engine: Engine) {
    let lan = Lan::new();
    let _web = WebServer::start_all(&lan);
    let config = vrrp("MASTER", 254) + &service(80, "lb_algo rr", &[1, 1, 1]);
    let lb = Xvs::start(&lan, &lan.lb1, &config, engine);
    lb.wait_for_master();
    assert_eq!(
        lan.lb1.has_xdp(),
        engine != Engine::AfPacket,
        "the engine that was asked for"
    );

    for size in ["56", "1400", "4000"] {
        for address in [VIP, LB1] {
            ping(&lan.client, address, size);
        }
    }
    // A service of the box itself, at its own address and at the VIP.
    // Not on one port: a process that another test is just starting may hold a copy of the first
    // listener until it runs its program.
    for target in [(LB1, 2222), (VIP, 2223)] {
        echo_one(&lan, SocketAddr::from(target));
    }
    // Nobody listens: the host says so.
    let refused = [(VIP, 9999), (LB1, 80)];
    for target in refused.map(SocketAddr::from) {
        let error = lan
            .client
            .inside(|| connect(CLIENT, target, secs(2)).map(|_| ()));
        assert_eq!(
            error.map_err(|e| e.kind()),
            Err(io::ErrorKind::ConnectionRefused),
            "{target}"
        );
    }
    // The service's address and port, but another protocol.
    let answer = lan.client.inside(|| -> io::Result<usize> {
        let socket = UdpSocket::bind((CLIENT, 0))?;
        socket.set_read_timeout(Some(secs(2)))?;
        socket.connect((VIP, 80))?;
        socket.send(b"hello")?;
        socket.recv(&mut [0; 16])
    });
    assert_eq!(
        answer.map_err(|e| e.kind()),
        Err(io::ErrorKind::ConnectionRefused),
        "UDP"
    );

    // ARP: forgotten, asked again, and answered by this box.
    lan.client.ip("neigh flush dev eth0");
    ping(&lan.client, VIP, "56");
    let neighbour = lan.client.ip(&format!("neigh show {VIP} dev eth0"));
    assert!(neighbour.contains(&mac_of(LB1)), "{neighbour}");

    // And the virtual server was there all the time.
    let answer = lan
        .client
        .inside(|| get(CLIENT, SocketAddr::from((VIP, 80)), secs(2)));
    assert!(answer.is_ok(), "{answer:?}");
    lb.stop();
}

fn ping(host: &Host, address: Ipv4Addr, size: &str) {
    let address = address.to_string();
    let arguments = [
        "-n", "-c", "3", "-i", "0.05", "-W", "2", "-s", size, &address,
    ];
    let output = host.output("ping", &arguments);
    assert!(
        output.status.success(),
        "ping {address} with {size} bytes: {output:?}"
    );
}

/// Sends something longer than a frame to a listener on `lb1`, and gets it back.
fn echo_one(lan: &Lan, target: SocketAddr) {
    let text = [b'x'; 20_000];
    let listener = lan
        .lb1
        .inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, target.port())));
    let listener = listener.unwrap_or_else(|e| panic!("listen for {target}: {e}"));
    let echo = thread::spawn(move || -> io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        let mut received = [0; 20_000];
        stream.read_exact(&mut received)?;
        stream.write_all(&received)
    });
    let answer = lan.client.inside(|| -> io::Result<Vec<u8>> {
        let mut stream = connect(CLIENT, target, secs(3))?;
        stream.write_all(&text)?;
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    });
    assert_eq!(
        answer.unwrap_or_else(|e| panic!("{target}: {e}")),
        text,
        "{target}"
    );
    echo.join()
        .expect("the echo does not panic")
        .expect("the echo is sent");
}
