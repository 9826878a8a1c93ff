//! Packet I/O on real interfaces: steering, AF_XDP, AF_PACKET, and what is left when the engine dies.
//!
//! Each test makes two namespaces joined by a veth pair and runs itself again inside the client's;
//! the engine is a second process in the balancer's, so that it can be killed. Needs root.
//! `cargo test --test io`

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "io/bed.rs"]
mod bed;
#[path = "io/fast_path.rs"]
mod fast_path;
#[path = "io/fast_path_model.rs"]
mod fast_path_model;
#[path = "io/interfaces.rs"]
mod interfaces;
#[path = "io/steering.rs"]
mod steering;
#[path = "io/steering_model.rs"]
mod steering_model;
#[path = "io/workers.rs"]
mod workers;

use std::io::ErrorKind;

use bed::{Engine, LB, Raw, VIP, engine_process, in_client, run, tcp_syn, vlan};

const BACKENDS: [&str; 3] = ["native", "generic", "af-packet"];

/// What the engine must say of each backend on veth, which has no zero-copy.
fn expected_level(backend: &str) -> &'static str {
    match backend {
        "native" => "l0: AF_XDP native copy on 1 queue",
        "generic" => "l0: AF_XDP generic on 1 queue",
        _ => "l0: AF_PACKET on 1 queue",
    }
}

/// The engine's process; no test of its own.
#[test]
fn engine() {
    engine_process();
}

#[test]
fn a_service_packet_comes_up_unchanged_and_can_be_sent_back() {
    in_client(
        "a_service_packet_comes_up_unchanged_and_can_be_sent_back",
        |bed| {
            for backend in BACKENDS {
                let mut engine = Engine::start(bed, backend);
                assert!(
                    engine.report.starts_with(expected_level(backend)),
                    "{}",
                    engine.report
                );
                let mut raw = Raw::open("c0");
                for payload in [0, 1, 700, 1446] {
                    let frame = tcp_syn(VIP, 80, payload);
                    raw.send(&frame);
                    assert_eq!(engine.frame(), frame, "{backend}, payload {payload}");
                    raw.expect(&bed::swapped(&frame));
                }
                let stats = engine.stats();
                assert_eq!(stats["steered"], 4, "{backend}: {stats:?}");
                assert_eq!(stats["received"], 4, "{backend}: {stats:?}");
                engine.stop();
            }
        },
    );
}

#[test]
fn what_is_no_service_stays_with_the_host() {
    in_client("what_is_no_service_stays_with_the_host", |bed| {
        for backend in BACKENDS {
            let mut engine = Engine::start(bed, backend);
            for target in [LB, VIP] {
                bed::connect(target, 9000).unwrap_or_else(|e| panic!("{backend}: {target}: {e}"));
            }
            run("ping", &["-c", "1", "-W", "2", VIP]);
            assert_eq!(engine.stats()["received"], 0, "{backend}");
            engine.stop();
        }
    });
}

#[test]
fn the_host_does_not_see_service_packets() {
    in_client("the_host_does_not_see_service_packets", |bed| {
        // Without an engine the host answers: the test would see a reset.
        assert_eq!(bed::connect(VIP, 80), Err(ErrorKind::ConnectionRefused));
        for backend in BACKENDS {
            let engine = Engine::start(bed, backend);
            assert_eq!(bed::connect(VIP, 80), Err(ErrorKind::TimedOut), "{backend}");
            engine.stop();
            // A clean stop gives the packets back to the host.
            assert_eq!(
                bed::connect(VIP, 80),
                Err(ErrorKind::ConnectionRefused),
                "{backend}"
            );
        }
    });
}

#[test]
fn a_killed_engine_leaves_no_reset_and_the_next_one_takes_over() {
    in_client(
        "a_killed_engine_leaves_no_reset_and_the_next_one_takes_over",
        |bed| {
            for (backend, note) in [
                ("native", "took over from a previous run in native mode"),
                ("generic", "took over from a previous run in generic mode"),
                (
                    "af-packet",
                    "took over the ingress filter of a previous run",
                ),
            ] {
                let mut engine = Engine::start(bed, backend);
                engine.kill();
                assert_eq!(bed::connect(VIP, 80), Err(ErrorKind::TimedOut), "{backend}");
                run("ping", &["-c", "1", "-W", "2", VIP]);

                // The second time by the level that is chosen without a wish.
                let mut next =
                    Engine::start(bed, if backend == "native" { "auto" } else { backend });
                assert!(next.report.contains(note), "{}", next.report);
                let mut raw = Raw::open("c0");
                let frame = tcp_syn(VIP, 80, 10);
                raw.send(&frame);
                assert_eq!(next.frame(), frame);
                next.kill();

                let removed = bed.cleanup();
                assert!(removed.starts_with("l0: removed the "), "{removed}");
                assert_eq!(removed.lines().count(), 1, "{removed}");
                assert_eq!(
                    bed::connect(VIP, 80),
                    Err(ErrorKind::ConnectionRefused),
                    "{backend}"
                );
                assert_eq!(bed.cleanup(), "");
            }
        },
    );
}

#[test]
fn a_killed_engine_of_the_other_kind_is_taken_over_too() {
    in_client(
        "a_killed_engine_of_the_other_kind_is_taken_over_too",
        |bed| {
            for (first, second) in [("native", "af-packet"), ("af-packet", "auto")] {
                Engine::start(bed, first).kill();
                let mut next = Engine::start(bed, second);
                assert!(next.report.contains("of a previous run"), "{}", next.report);
                let mut raw = Raw::open("c0");
                let frame = tcp_syn(VIP, 80, 10);
                raw.send(&frame);
                assert_eq!(next.frame(), frame);
                next.stop();
                assert_eq!(bed::connect(VIP, 80), Err(ErrorKind::ConnectionRefused));
            }
        },
    );
}

#[test]
fn without_a_wish_the_best_level_is_taken_and_the_reason_told() {
    in_client(
        "without_a_wish_the_best_level_is_taken_and_the_reason_told",
        |bed| {
            let engine = Engine::start(bed, "auto");
            assert_eq!(
                engine.report,
                "l0: AF_XDP native copy on 1 queue (zero-copy: l0: bind an AF_XDP socket: \
                 Operation not supported (os error 95))"
            );
            engine.stop();
            let error = Engine::refused(bed, "zero-copy");
            assert!(error.contains("Operation not supported"), "{error}");

            // Over a peer with jumbo frames veth refuses native XDP.
            for end in [&bed.client, &bed.lb] {
                let device = if *end == bed.client { "c0" } else { "l0" };
                bed::ip_in(end, &["link", "set", device, "mtu", "9000"]);
            }
            let engine = Engine::start(bed, "auto");
            assert!(
                engine.report.starts_with("l0: AF_XDP generic on 1 queue"),
                "{}",
                engine.report
            );
            assert!(engine.report.contains("native: "), "{}", engine.report);
            assert!(
                engine.report.contains("the MTU is 9000"),
                "{}",
                engine.report
            );
            engine.stop();
        },
    );
}

#[test]
fn somebody_elses_program_is_left_alone() {
    in_client("somebody_elses_program_is_left_alone", |bed| {
        let object = bed.foreign_program();
        bed::ip_in(
            &bed.lb,
            &[
                "link",
                "set",
                "l0",
                "xdpgeneric",
                "obj",
                &object,
                "sec",
                "xdp",
            ],
        );
        for backend in ["auto", "generic"] {
            let error = Engine::refused(bed, backend);
            assert!(error.contains("the XDP program foreign"), "{error}");
            assert!(
                error.contains("ip link set dev l0 xdpgeneric off"),
                "{error}"
            );
        }
        assert_eq!(bed.cleanup(), "");
        let link = bed::ip_in(&bed.lb, &["-d", "link", "show", "l0"]);
        assert!(link.contains("xdpgeneric"), "{link}");
    });
}

#[test]
fn a_second_engine_is_refused_and_does_not_disturb_the_first() {
    in_client(
        "a_second_engine_is_refused_and_does_not_disturb_the_first",
        |bed| {
            let mut first = Engine::start(bed, "native");
            let error = Engine::refused(bed, "native");
            assert!(
                error.contains("another AF_XDP socket holds queue 0"),
                "{error}"
            );
            let mut raw = Raw::open("c0");
            let frame = tcp_syn(VIP, 80, 3);
            raw.send(&frame);
            assert_eq!(first.frame(), frame);
            first.stop();
        },
    );
}

#[test]
fn frames_are_conserved_over_a_hundred_thousand() {
    in_client("frames_are_conserved_over_a_hundred_thousand", |bed| {
        const COUNT: u64 = 100_000;
        for backend in BACKENDS {
            let mut engine = Engine::start(bed, backend);
            let mut raw = Raw::open("c0");
            let frame = tcp_syn(VIP, 80, 6);
            for sent in 0..COUNT {
                raw.send(&frame);
                // Now and then the other end may catch up; what it cannot take is dropped and counted.
                if sent % 256 == 0 {
                    engine.stats();
                }
            }
            let stats = engine.settled();
            // An empty fill ring is counted in rx_dropped, too.
            let lost: u64 = ["rx_dropped", "ring_full", "socket_full"]
                .iter()
                .map(|name| stats[*name])
                .sum();
            let coming = if backend == "af-packet" {
                // The tap is before the filter that counts, and both see every packet.
                stats["steered"]
            } else {
                stats["steered"] + stats["dropped"]
            };
            assert_eq!(stats["received"] + lost, coming, "{backend}: {stats:?}");
            assert!(stats["received"] > COUNT / 2, "{backend}: {stats:?}");
            assert_eq!(stats["bad_accounts"], 0, "{backend}: {stats:?}");
            assert_eq!(stats["hand"], 0, "{backend}: {stats:?}");
            assert_eq!(
                stats["free"] + stats["kernel"],
                stats["total"],
                "{backend}: {stats:?}"
            );
            assert_eq!(stats["invalid"], 0, "{backend}: {stats:?}");
            // The kernel keeps at most the one buffer that it took for a packet and found no room for.
            let hidden = stats["kernel"] - stats["rings"];
            assert!(hidden <= 1, "{backend}: {stats:?}");
            engine.stop();
        }
    });
}

#[test]
fn vlan_tags_survive_both_ways() {
    in_client("vlan_tags_survive_both_ways", |bed| {
        for backend in BACKENDS {
            let mut engine = Engine::start(bed, backend);
            let mut raw = Raw::open("c0");
            let plain = tcp_syn(VIP, 80, 33);
            let frame = vlan(&plain, 0x8100, 5);
            raw.send(&frame);
            assert_eq!(engine.frame(), frame, "{backend}");
            // The client's kernel takes one tag off each frame before it shows it: what comes back of two
            // tags has one, and would have none had one been lost.
            raw.expect(&bed::swapped(&plain));
            let double = vlan(&frame, 0x88a8, 9);
            raw.send(&double);
            assert_eq!(engine.frame(), double, "{backend}");
            raw.expect(&bed::swapped(&frame));
            engine.stop();
        }
    });
}

#[test]
fn a_frame_that_fits_no_buffer_is_dropped_and_counted() {
    in_client(
        "a_frame_that_fits_no_buffer_is_dropped_and_counted",
        |bed| {
            for (backend, counter) in [("generic", "rx_dropped"), ("af-packet", "packet-oversized")]
            {
                let mut engine = Engine::start(bed, backend);
                bed::ip_in(&bed.client, &["link", "set", "c0", "mtu", "4000"]);
                bed::ip_in(&bed.lb, &["link", "set", "l0", "mtu", "4000"]);
                let mut raw = Raw::open("c0");
                raw.send(&tcp_syn(VIP, 80, 3000));
                let after = tcp_syn(VIP, 80, 5);
                raw.send(&after);
                assert_eq!(engine.frame(), after, "{backend}");
                let stats = engine.stats();
                assert_eq!(stats[counter], 1, "{backend}: {stats:?}");
                engine.stop();
                bed::ip_in(&bed.client, &["link", "set", "c0", "mtu", "1500"]);
                bed::ip_in(&bed.lb, &["link", "set", "l0", "mtu", "1500"]);
            }
        },
    );
}

#[test]
fn frames_to_another_station_are_the_hosts() {
    in_client("frames_to_another_station_are_the_hosts", |bed| {
        for backend in BACKENDS {
            let mut engine = Engine::start(bed, backend);
            let mut raw = Raw::open("c0");
            let ours = tcp_syn(VIP, 80, 1);
            let mut flooded = ours.clone();
            flooded[..6].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
            raw.send(&flooded);
            raw.send(&ours);
            assert_eq!(engine.frame(), ours, "{backend}");
            assert_eq!(engine.stats()["steered"], 1, "{backend}");
            engine.stop();
        }
    });
}

#[test]
fn services_come_and_go_while_the_engine_runs() {
    in_client("services_come_and_go_while_the_engine_runs", |bed| {
        for backend in BACKENDS {
            let mut engine = Engine::start(bed, backend);
            assert_eq!(bed::connect(VIP, 81), Err(ErrorKind::ConnectionRefused));
            engine.command("add 81");
            assert_eq!(bed::connect(VIP, 81), Err(ErrorKind::TimedOut), "{backend}");
            engine.command("remove 81");
            assert_eq!(bed::connect(VIP, 81), Err(ErrorKind::ConnectionRefused));
            // Port 80 is still there: the two share an address.
            assert_eq!(bed::connect(VIP, 80), Err(ErrorKind::TimedOut), "{backend}");
            engine.stop();
        }
    });
}

#[test]
fn an_interface_that_goes_away_is_an_error_and_no_panic() {
    in_client(
        "an_interface_that_goes_away_is_an_error_and_no_panic",
        |bed| {
            for backend in BACKENDS {
                let mut engine = Engine::start(bed, backend);
                bed::ip_in(&bed.lb, &["link", "del", "l0"]);
                let before = engine.stats();
                engine.command("send");
                engine.command("sleep");
                let stats = engine.stats();
                // A worker that cannot sleep any more would turn thousands of times.
                assert!(
                    stats["turns"] - before["turns"] < 100,
                    "{backend}: {before:?} {stats:?}"
                );
                assert_eq!(stats["bad_accounts"], 0, "{backend}: {stats:?}");
                if backend == "af-packet" {
                    assert_eq!(stats["socket-errors"], 1, "{stats:?}");
                }
                engine.stop();
                let error = Engine::refused(bed, backend);
                assert!(error.contains("l0: no such interface"), "{error}");
                bed.join();
            }
        },
    );
}

#[test]
fn frames_that_find_the_ring_full_come_back_and_none_is_lost() {
    in_client(
        "frames_that_find_the_ring_full_come_back_and_none_is_lost",
        |bed| {
            for backend in ["native", "generic"] {
                let mut engine = Engine::start(bed, backend);
                let mut raw = Raw::open("c0");
                engine.command("clog");
                let frame = tcp_syn(VIP, 80, 2);
                for sent in 0..3000 {
                    raw.send(&frame);
                    if sent % 256 == 0 {
                        engine.stats();
                    }
                }
                let stats = engine.settled();
                // A ring of 2,048 took what it holds; nothing was sent.
                assert_eq!(stats["transmitted"], 2048, "{backend}: {stats:?}");
                assert_eq!(stats["returned"], stats["received"] - 2048, "{backend}");
                assert!(stats["returned"] > 500, "{backend}: {stats:?}");
                let before = bed::received_on("c0");
                engine.command("unclog");
                // One flush sends all, and nothing wakes the engine for a second one. The kernel's count,
                // as the raw socket does not hold so many at once.
                bed::wait_until("all are sent", || bed::received_on("c0") >= before + 2048);
                let stats = engine.settled();
                assert_eq!(stats["kernel"], 2048, "{backend}: {stats:?}");
                assert_eq!(stats["free"], stats["total"] - 2048, "{backend}: {stats:?}");
                assert_eq!(stats["bad_accounts"], 0, "{backend}: {stats:?}");
                engine.stop();
            }
        },
    );
}

#[test]
fn frames_come_in_on_any_queue_and_leave_by_another_interface() {
    in_client(
        "frames_come_in_on_any_queue_and_leave_by_another_interface",
        |bed| {
            bed.pair("c1", "l1", 4);
            for backend in ["auto", "generic", "af-packet"] {
                let mut engine = Engine::start(bed, &format!("{backend} l0 l1"));
                if backend != "af-packet" {
                    assert!(engine.report.contains("l1: AF_XDP"), "{}", engine.report);
                    assert!(engine.report.contains("on 4 queues"), "{}", engine.report);
                }
                let (mut raw0, mut raw1) = (Raw::open("c0"), Raw::open("c1"));
                for payload in 0..64 {
                    let frame = tcp_syn(VIP, 80, payload);
                    raw0.send(&frame);
                    raw1.expect(&bed::swapped(&frame));
                    raw1.send(&frame);
                    raw0.expect(&bed::swapped(&frame));
                }
                let stats = engine.stats();
                assert_eq!(stats["received"], 128, "{backend}: {stats:?}");
                assert_eq!(stats["bad_accounts"], 0, "{backend}: {stats:?}");
                engine.stop();
            }
        },
    );
}

#[test]
fn missing_rights_are_named() {
    in_client("missing_rights_are_named", |bed| {
        let memory = [
            "prlimit",
            "--memlock=1048576:1048576",
            "setpriv",
            "--bounding-set=-ipc_lock,-sys_resource",
        ];
        let error = Engine::refused_under(bed, "native", &memory);
        assert!(error.contains("may not lock 16 MiB"), "{error}");
        assert!(error.contains("grant CAP_IPC_LOCK"), "{error}");
        let without = |backend, capability| {
            Engine::refused_under(bed, backend, &["setpriv", "--bounding-set", capability])
        };
        for backend in ["native", "af-packet"] {
            let error = without(backend, "-net_raw");
            assert!(error.contains("no permission to open an AF_"), "{error}");
            assert!(error.contains("grant CAP_NET_RAW"), "{error}");
        }
        let error = without("native", "-bpf,-sys_admin");
        assert!(error.contains("load the steering program"), "{error}");
        assert!(error.contains("CAP_BPF"), "{error}");
        // Nothing was left behind by any of them.
        assert_eq!(bed.cleanup(), "");
    });
}

#[test]
fn what_the_kernel_refuses_to_send_is_not_counted_as_sent() {
    in_client(
        "what_the_kernel_refuses_to_send_is_not_counted_as_sent",
        |bed| {
            bed.pair("c1", "l1", 1);
            for (namespace, device) in [(&bed.client, "c0"), (&bed.lb, "l0")] {
                bed::ip_in(namespace, &["link", "set", device, "mtu", "4000"]);
            }
            let mut engine = Engine::start(bed, "af-packet l0 l1");
            let (mut raw0, mut raw1) = (Raw::open("c0"), Raw::open("c1"));
            // Too large for l1, and between two that fit.
            let small = tcp_syn(VIP, 80, 7);
            for frame in [&small, &tcp_syn(VIP, 80, 3000), &small] {
                raw0.send(frame);
            }
            for _ in 0..2 {
                raw1.expect(&bed::swapped(&small));
            }
            let stats = engine.settled();
            assert_eq!(stats["packet-send-refused"], 1, "{stats:?}");
            assert_eq!(
                (stats["received"], stats["transmitted"], stats["returned"]),
                (3, 2, 1),
                "{stats:?}"
            );
            assert_eq!((stats["hand"], stats["bad_accounts"]), (0, 0), "{stats:?}");
            bed::ip_in(&bed.lb, &["link", "set", "l1", "down"]);
            raw0.send(&small);
            raw0.send(&small);
            let stats = engine.settled();
            assert_eq!(stats["received"], 5, "{stats:?}");
            assert_eq!(stats["packet-send-refused"], 3, "{stats:?}");
            assert_eq!((stats["transmitted"], stats["hand"]), (2, 0), "{stats:?}");
            // The socket's error ended one sleep, not each.
            assert_eq!(stats["socket-errors"], 1, "{stats:?}");
            engine.stop();
        },
    );
}

#[test]
fn merging_is_off_while_the_engine_runs_where_it_would_hurt() {
    in_client(
        "merging_is_off_while_the_engine_runs_where_it_would_hurt",
        |bed| {
            let gro =
                || bed::ethtool_in(&bed.lb, &["-k", "l0"]).contains("generic-receive-offload: on");
            for (backend, hurts) in [("generic", true), ("af-packet", true), ("native", false)] {
                bed::ethtool_in(&bed.lb, &["-K", "l0", "gro", "on"]);
                let engine = Engine::start(bed, backend);
                let told = engine.report.contains("gro switched off");
                assert_eq!((told, gro()), (hurts, !hurts), "{}", engine.report);
                engine.stop();
                assert!(gro(), "{backend}");
                // What the administrator switched off stays off.
                bed::ethtool_in(&bed.lb, &["-K", "l0", "gro", "off"]);
                let engine = Engine::start(bed, backend);
                assert!(!engine.report.contains("gro"), "{}", engine.report);
                engine.stop();
                if hurts {
                    assert!(!gro(), "{backend}");
                }
            }
        },
    );
}

#[test]
fn an_interface_that_is_gone_is_counted_and_keeps_no_frames_from_the_others() {
    in_client(
        "an_interface_that_is_gone_is_counted_and_keeps_no_frames_from_the_others",
        |bed| {
            for backend in BACKENDS {
                bed.pair("c1", "l1", 1);
                let mut engine = Engine::start(bed, &format!("{backend} l0 l1"));
                bed::ip_in(&bed.lb, &["link", "del", "l1"]);
                let before = engine.stats();
                let mut raw = Raw::open("c0");
                for payload in 0..8 {
                    let frame = tcp_syn(VIP, 80, payload);
                    raw.send(&frame);
                    assert_eq!(engine.frame(), frame, "{backend}");
                }
                engine.command("sleep");
                engine.command("sleep");
                let stats = engine.stats();
                let counter = if backend == "af-packet" {
                    "packet-send-refused"
                } else {
                    "xsk-wake-errors"
                };
                assert!(stats[counter] > 0, "{backend}: {stats:?}");
                assert!(
                    stats["turns"] - before["turns"] < 100,
                    "{backend}: {stats:?}"
                );
                assert_eq!(stats["bad_accounts"], 0, "{backend}: {stats:?}");
                engine.stop();
            }
        },
    );
}

#[test]
fn an_interface_that_is_down_at_start_works_when_it_comes_up() {
    in_client(
        "an_interface_that_is_down_at_start_works_when_it_comes_up",
        |bed| {
            for backend in ["auto", "native", "generic", "af-packet"] {
                bed::ip_in(&bed.lb, &["link", "set", "l0", "down"]);
                let mut engine = Engine::start(bed, backend);
                let level = expected_level(if backend == "auto" { "native" } else { backend });
                assert!(engine.report.starts_with(level), "{}", engine.report);
                assert!(
                    engine.report.contains("the interface is down"),
                    "{}",
                    engine.report
                );
                bed::ip_in(&bed.lb, &["link", "set", "l0", "up"]);
                bed::wait_until("the link is up", || {
                    bed::ip_in(&bed.client, &["link", "show", "c0"]).contains("LOWER_UP")
                });
                let mut raw = Raw::open("c0");
                let frame = tcp_syn(VIP, 80, 12);
                raw.send(&frame);
                assert_eq!(engine.frame(), frame, "{backend}");
                raw.expect(&bed::swapped(&frame));
                engine.stop();
            }
        },
    );
}

#[test]
fn busy_polling_holds_interrupts_back_until_a_clean_stop() {
    in_client(
        "busy_polling_holds_interrupts_back_until_a_clean_stop",
        |bed| {
            let setting = |name: &str| {
                let path = format!("/sys/class/net/l0/{name}");
                run("ip", &["netns", "exec", &bed.lb, "cat", &path])
                    .trim()
                    .to_owned()
            };
            let settings = || {
                [
                    setting("napi_defer_hard_irqs"),
                    setting("gro_flush_timeout"),
                ]
            };
            let before = settings();
            let mut engine = Engine::start(bed, "busy-poll");
            assert!(engine.report.contains("busy polling"), "{}", engine.report);
            assert!(
                !engine.report.contains("no busy polling"),
                "{}",
                engine.report
            );
            assert_eq!(settings(), ["2", "200000"]);
            let mut raw = Raw::open("c0");
            for payload in 0..200 {
                let frame = tcp_syn(VIP, 80, payload);
                raw.send(&frame);
                raw.expect(&bed::swapped(&frame));
            }
            let stats = engine.stats();
            assert_eq!(stats["received"], 200, "{stats:?}");
            engine.stop();
            assert_eq!(settings(), before);
        },
    );
}
