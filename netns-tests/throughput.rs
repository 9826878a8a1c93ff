//! Streams at full speed, in both directions: whether they hold, not how fast they are.

use std::net::Ipv4Addr;

use crate::{
    Subject, Test,
    support::{
        config::{unchecked, virtual_server},
        decap::Decapsulator,
        host::Host,
        lan::{Lan, REALS, VIP},
        process::Process,
        routed::{INSIDE, Routed},
        secs, wait_until,
        xvs::{Engine, Xvs},
    },
};

pub(crate) fn tests() -> Vec<Test> {
    let both: [Subject; 3] = [
        ("throughput::iperf3_streams_hold_through_dr", direct),
        ("throughput::iperf3_streams_hold_through_nat", translated),
        ("throughput::iperf3_streams_hold_through_tun", tunnelled),
    ];
    let tests = both.into_iter();
    tests
        .flat_map(|(name, run)| Test::on_both_engines(name, run))
        // Two cores carry a stream and little else.
        .map(Test::alone)
        .collect()
}

/// The port of iperf3.
const PORT: u16 = 5201;

/// Serves TCP and UDP from the same real server: iperf3 announces its UDP streams over TCP.
fn config(kind: &str, real: Ipv4Addr) -> String {
    let server = |protocol| {
        let lines = format!("lb_algo rr\n    lb_kind {kind}\n    protocol {protocol}");
        let real = unchecked(&format!("{real} {PORT}"), "");
        virtual_server(&format!("{VIP} {PORT}"), &lines, &[real])
    };
    server("TCP") + &server("UDP")
}

fn serve(place: &impl AsRef<std::path::Path>, host: &Host, own: Ipv4Addr) -> Process {
    let mut command = host.command("iperf3");
    command.args(["--server", "--forceflush", "--bind", &own.to_string()]);
    let log = place.as_ref().join("iperf3.log");
    Process::spawn("iperf3", &mut command, &log)
}

/// Streams to the server and back by TCP, and one by UDP, from `client` by `lb` to `real`.
fn measure(server: &Process, client: &Host, lb: &Host, real: &Host) {
    let tcp = |arguments: &[&str], number| {
        let end = stream(server, client, arguments, number);
        let bytes = end["sum_received"]["bytes"].as_f64();
        assert!(
            bytes.is_some_and(|bytes| bytes > 1e6),
            "{arguments:?}: {end}"
        );
    };
    tcp(&["--parallel", "4"], 1);
    tcp(&["--parallel", "4", "--reverse"], 2);

    // What iperf3 misses is no measure: on a busy machine its own socket overflows. So it is counted what comes to
    // the box, and what comes to the real server's interface.
    let counts = || [lb, real].map(received);
    let before = counts();
    let arguments = ["--udp", "--bitrate", "50M", "--length", "1400"];
    let end = stream(server, client, &arguments, 3);
    let after = counts();
    let [came, arrived] = [0, 1].map(|n| after[n] - before[n]);
    let sent = end["sum"]["packets"].as_u64().unwrap_or(0);
    assert!(
        sent > 1_000 && came > sent / 2,
        "{came} of {sent} came to the box: {end}"
    );
    // None is lost on a machine that has time; one that is busy with ten other things keeps the worker waiting.
    assert!(
        arrived >= came - came / 10,
        "{arrived} of {came} were passed on: {end}"
    );
}

/// The `number`-th stream from `client` to `server`, of a second: what iperf3 says at its end.
fn stream(server: &Process, client: &Host, arguments: &[&str], number: usize) -> serde_json::Value {
    // It takes one client at a time, and is done with one a little later than that one.
    wait_until("iperf3 listens (again)", secs(5), || {
        server.log().matches("Server listening").count() == number
    });
    let vip = VIP.to_string();
    let common = ["--client", &vip, "--time", "1", "--json"];
    let output = client.output("iperf3", &[&common, arguments].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "iperf3 {arguments:?}: {output:?}");
    let mut report: serde_json::Value =
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let end = report["end"].take();
    assert!(end["sum_received"].is_object(), "{arguments:?}: {text}");
    end
}

/// Packets that `eth0` of a machine has received.
fn received(host: &Host) -> u64 {
    let text = host.ip("-json -stats link show dev eth0");
    let links: serde_json::Value = serde_json::from_str(&text).expect("ip prints JSON");
    let packets = links[0]["stats64"]["rx"]["packets"].as_u64();
    packets.unwrap_or_else(|| panic!("no count in {text}"))
}

fn direct(engine: Engine) {
    let lan = Lan::new();
    lan.hold_vip();
    let server = serve(&lan, &lan.reals[0], VIP);
    let lb = Xvs::start(&lan, &lan.lb1, &config("DR", REALS[0]), engine);
    lb.wait_until_ready();
    measure(&server, &lan.client, &lan.lb1, &lan.reals[0]);
    lb.stop();
}

fn translated(engine: Engine) {
    let net = Routed::new();
    let server = serve(&net, &net.reals[0], INSIDE[0]);
    let lb = Xvs::start(&net, &net.lb, &config("NAT", INSIDE[0]), engine);
    lb.wait_until_ready();
    measure(&server, &net.far, &net.lb, &net.reals[0]);
    lb.stop();
}

fn tunnelled(engine: Engine) {
    let lan = Lan::new();
    lan.hold_vip();
    let _tunnel = Decapsulator::start(&lan.reals[0], false);
    let server = serve(&lan, &lan.reals[0], VIP);
    let lb = Xvs::start(&lan, &lan.lb1, &config("TUN", REALS[0]), engine);
    lb.wait_until_ready();
    measure(&server, &lan.client, &lan.lb1, &lan.reals[0]);
    lb.stop();
}
