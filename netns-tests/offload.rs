//! Hosts on veth as it comes, the default of every container: their checksums, and TCP's segmentation, are left to a
//! card that there never is.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::{
    Test,
    support::{
        client::{curl, fetch, upload},
        config::{unchecked, virtual_server},
        echo::{Server, ask_udp, noise, receipt_for, udp_client},
        host::Host,
        lan::{CLIENT, Lan, REALS, VIP, v6_of},
        routed::{INSIDE, NEAR, Routed},
        secs,
        web::WebServer,
        xvs::{Engine, Xvs},
    },
};

pub(crate) fn tests() -> Vec<Test> {
    [
        (
            "offload::a_nat_gateway_serves_hosts_that_leave_work_to_a_card",
            gateway as fn(Engine),
        ),
        (
            "offload::direct_routing_serves_hosts_that_leave_work_to_a_card",
            direct,
        ),
    ]
    .into_iter()
    .flat_map(|(name, run)| Test::on_each_engine(name, run))
    .collect()
}

/// What an engine that finds unfinished checksums itself says. AF_PACKET sockets are told of each.
const FINISHES: &str = "packets with unfinished checksums";
/// What an engine says whose frames are too small for what a sender leaves to be cut.
const OVERSIZED: &str = "packets that are larger than a frame are dropped";

/// The configuration of a user: real servers behind NAT have the box as default gateway, and reach the outside
/// themselves by masquerading on it.
const GATEWAY: &str = "vrrp_instance VI_1 {
    state MASTER
    interface eth0
    virtual_router_id 51
    priority 100
    virtual_ipaddress {
        10.0.0.148/24
        192.168.10.100/24 dev eth1
    }
}
virtual_server 10.0.0.148 80 {
    lb_algo wlc
    lb_kind NAT
    protocol TCP
    real_server 192.168.10.11 80 {
        weight 1
    }
}
virtual_server 10.0.0.148 9000 {
    lb_algo wlc
    lb_kind NAT
    protocol TCP
    real_server 192.168.10.11 9001 {
        weight 1
    }
}
virtual_server 10.0.0.148 514 {
    lb_algo rr
    ops
    lb_kind NAT
    protocol UDP
    real_server 192.168.10.11 514 {
        weight 1
    }
    real_server 192.168.10.12 514 {
        weight 1
    }
}
";

/// Twenty megabytes each way.
fn transfer(client: (&Host, Ipv4Addr), vip: Ipv4Addr, content: &[u8]) {
    let got = fetch(client.0, &format!("http://{vip}/file"));
    assert!(got == content, "{} of {} bytes", got.len(), content.len());
    let target = SocketAddr::from((vip, 9000));
    let receipt = client.0.inside(|| upload(client.1, target, content));
    assert_eq!(receipt.unwrap_or_default(), receipt_for(content));
}

fn gateway(engine: Engine) {
    let net = Routed::with_offloads();
    net.lb.ip("addr del 10.0.0.148/32 dev eth0");
    for real in &net.reals {
        real.ip("route replace default via 192.168.10.100");
    }
    let rules = [
        "add table ip nat",
        "add chain ip nat out { type nat hook postrouting priority 100; }",
        "add rule ip nat out ip saddr 192.168.10.0/24 oifname eth0 masquerade",
    ];
    let output = net.lb.output("nft", &[rules.join("\n").as_str()]);
    assert!(output.status.success(), "nft: {output:?}");
    let web = WebServer::start(&net, &net.reals[0]);
    let outside = WebServer::start(&net, &net.near);
    let content = noise(20_000_000);
    web.offer(&content);
    outside.offer(&content);
    let _sink = Server::tcp_sink(&net.reals[0], SocketAddr::from((INSIDE[0], 9001)));
    let _logs =
        [0, 1].map(|n: usize| Server::udp_echo(&net.reals[n], SocketAddr::from((INSIDE[n], 514))));
    let lb = Xvs::start(&net, &net.lb, GATEWAY, engine);
    lb.wait_for_vip(secs(20));
    lb.wait_until_ready();

    let http = SocketAddr::from((VIP, 80));
    assert_eq!(curl(&net.near, NEAR, http, 100, 10).len(), 100);
    let answers: Vec<String> = net.near.inside(|| {
        let socket = udp_client(NEAR, SocketAddr::from((VIP, 514))).expect("a socket");
        let ask = |n: usize| ask_udp(&socket, &content[..n]);
        let answers = [1, 1000, 1400, 8, 77, 900].map(ask);
        answers
            .map(|it| it.unwrap_or_else(|e| panic!("{e}")))
            .into()
    });
    let turns = ["real1", "real2"].map(|name| answers.iter().filter(|it| **it == name).count());
    assert_eq!(turns, [3, 3]);
    let out = lb.list()["services"][2]["totals"]["packets_out"].as_u64();
    assert_eq!(out, Some(6), "answers without a connection are counted");
    // Not by xvs, but past its program: what real servers ask of others.
    let file = format!("http://{NEAR}/file");
    assert!(fetch(&net.reals[1], &file) == content);

    if engine == Engine::GenericXdp {
        say_that_frames_are_too_small(&net.near, &lb);
        leave_no_segments([&net.reals[0], &net.near]);
    }
    transfer((&net.near, NEAR), VIP, &content);
    assert_said(&lb, engine);
    lb.stop();
}

/// A kernel's generic hook has 64 KiB at a time where a sender leaves segmentation to its card, which no frame of AF_XDP
/// holds. So it cannot work; then xvs says why, and what to do.
fn say_that_frames_are_too_small(client: &Host, lb: &Xvs<'_>) {
    let url = format!("http://{VIP}/file");
    let arguments = ["--silent", "--max-time", "2", "--output", "/dev/null", &url];
    assert!(!client.output("curl", &arguments).status.success());
    lb.wait_for_line(0, OVERSIZED, secs(5));
}

/// Has these hosts cut TCP's segments themselves.
fn leave_no_segments(hosts: [&Host; 2]) {
    for host in hosts {
        let output = host.output("ethtool", &["-K", "eth0", "tso", "off", "gso", "off"]);
        assert!(output.status.success(), "ethtool: {output:?}");
    }
}

/// What xvs found out about its interfaces is in the log and in `xvs list`.
fn assert_said(lb: &Xvs<'_>, engine: Engine) {
    let told = lb.list()["io"].to_string();
    for (line, expected) in [
        (FINISHES, engine != Engine::AfPacket),
        (OVERSIZED, engine == Engine::GenericXdp),
    ] {
        if expected {
            lb.wait_for_line(0, line, secs(3));
        }
        assert_eq!(lb.log().contains(line), expected, "{line}: {}", lb.log());
        assert_eq!(told.contains(line), expected, "{line}: {told}");
    }
}

/// Answers do not pass here, so only what clients send is to be finished. Both families.
fn direct(engine: Engine) {
    let lan = Lan::with_offloads();
    lan.hold_vip();
    lan.hold_vip6();
    let _web = WebServer::start(&lan, &lan.reals[0]);
    let vips = [
        SocketAddr::from((VIP, 9000)),
        SocketAddr::from((v6_of(VIP), 9000)),
    ];
    let _servers = vips.map(|vip| {
        let udp = SocketAddr::new(vip.ip(), 514);
        [
            Server::tcp_sink(&lan.reals[0], vip),
            Server::udp_echo(&lan.reals[0], udp),
        ]
    });
    let config: String = [REALS[0].to_string(), v6_of(REALS[0]).to_string()]
        .iter()
        .zip([VIP.to_string(), v6_of(VIP).to_string()])
        .flat_map(|(real, vip)| {
            [("TCP", 80), ("TCP", 9000), ("UDP", 514)].map(|(protocol, port)| {
                virtual_server(
                    &format!("{vip} {port}"),
                    &format!("lb_algo rr\n    lb_kind DR\n    protocol {protocol}"),
                    &[unchecked(&format!("{real} {port}"), "")],
                )
            })
        })
        .collect();
    let lb = Xvs::start(&lan, &lan.lb1, &config, engine);
    lb.wait_until_ready();
    let http = SocketAddr::from((VIP, 80));
    assert_eq!(curl(&lan.client, CLIENT, http, 100, 10).len(), 100);
    if engine == Engine::GenericXdp {
        leave_no_segments([&lan.reals[0], &lan.client]);
    }
    let content = noise(20_000_000);
    for (vip, source) in vips
        .into_iter()
        .zip([IpAddr::V4(CLIENT), v6_of(CLIENT).into()])
    {
        let asked = lan.client.inside(|| {
            let socket = udp_client(source, SocketAddr::new(vip.ip(), 514))?;
            ask_udp(&socket, b"to a veth")
        });
        assert_eq!(asked.unwrap_or_else(|e| panic!("{vip}: {e}")), "real1");
        let receipt = lan.client.inside(|| upload(source, vip, &content));
        assert_eq!(receipt.unwrap_or_default(), receipt_for(&content), "{vip}");
    }
    if engine != Engine::AfPacket {
        // It is looked for once a second.
        lb.wait_for_line(0, FINISHES, secs(3));
    }
    lb.stop();
}
