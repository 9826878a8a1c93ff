//! What is lost before the worker sees it is told by name.

use etherparse::PacketBuilder;
use pnet_datalink::Channel;

use crate::{
    Test,
    support::{
        config::{service, vrrp},
        lan::{CLIENT, LB1, Lan, VIP, mac_of},
        web::WebServer,
        xvs::{Engine, Xvs},
    },
};

pub(crate) fn tests() -> Vec<Test> {
    Test::on_each_engine(
        "losses::packets_that_found_a_queue_full_are_told_by_name",
        packets_that_found_a_queue_full_are_told_by_name,
    )
    .collect()
}

fn packets_that_found_a_queue_full_are_told_by_name(engine: Engine) {
    /// More than the queue of an AF_PACKET socket holds, which is larger than a ring.
    const FLOOD: usize = 40_000;
    let lan = Lan::new();
    let _web = WebServer::start_all(&lan);
    let config = vrrp("MASTER", 254) + &service(80, "lb_algo rr", &[1, 1, 1]);
    let lb = Xvs::start(&lan, &lan.lb1, &config, engine);
    lb.wait_for_master();
    assert_eq!(losses(&lb), []);

    let frame = syn();
    lb.while_paused(|| lan.client.inside(|| flood(&frame, FLOOD)));
    // The fill ring and the receive ring have the same size. Which of them stops a packet depends on whether
    // the kernel keeps a frame of an earlier refusal, and on where the worker was when it was paused.
    let names: &[_] = match engine {
        Engine::AfPacket => &["packet-socket-full"],
        _ => &["xsk-rx-dropped", "xsk-rx-ring-full"],
    };
    let told = losses(&lb);
    assert!(
        told.iter().all(|(name, _)| names.contains(&&name[..])),
        "{told:?}"
    );
    let count: u64 = told.iter().map(|(_, count)| count).sum();
    assert!((1..FLOOD as u64).contains(&count), "{told:?}");
    // The kernel forgets some counts as they are read; xvs does not.
    assert_eq!(losses(&lb), told);
    lb.stop();
}

/// `io_drops` of `xvs list --json`.
fn losses(lb: &Xvs<'_>) -> Vec<(String, u64)> {
    let list: serde_json::Value =
        serde_json::from_str(&lb.tell(&["list", "--json"])).expect("xvs prints JSON");
    let drops = list["io_drops"].as_array().expect("io_drops is a list");
    let one = |drop: &serde_json::Value| {
        let name = drop["name"].as_str().expect("a name");
        (name.to_owned(), drop["count"].as_u64().expect("a count"))
    };
    drops.iter().map(one).collect()
}

/// A SYN of the client to the virtual server.
fn syn() -> Vec<u8> {
    let station = |text: String| {
        let mut bytes = [0; 6];
        for (byte, part) in bytes.iter_mut().zip(text.split(':')) {
            *byte = u8::from_str_radix(part, 16).expect("a MAC address");
        }
        bytes
    };
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(station(mac_of(CLIENT)), station(mac_of(LB1)))
        .ipv4(CLIENT.octets(), VIP.octets(), 64)
        .tcp(40_000, 80, 1, 1000)
        .syn()
        .write(&mut frame, &[])
        .expect("the frame fits");
    frame
}

/// Sends `frame` so often from the interface of this namespace.
fn flood(frame: &[u8], times: usize) {
    let interface = pnet_datalink::interfaces()
        .into_iter()
        .find(|interface| interface.name == "eth0")
        .expect("the client has eth0");
    let Ok(Channel::Ethernet(mut sender, _)) =
        pnet_datalink::channel(&interface, pnet_datalink::Config::default())
    else {
        panic!("no raw socket");
    };
    for _ in 0..times {
        // A full queue on the way is no matter: others get through.
        let _ = sender.send_to(frame, None);
    }
}
