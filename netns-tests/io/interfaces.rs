//! Interfaces that go away, come back, are others than before, or are taken by somebody else, while frames go
//! from one to another.
//!
//! In each test the engine forwards what comes in at `c1` to `c2`. When it stops, it says where all frames are:
//! one that an interface took with it would be missing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    bed::{Bed, Engine, Raw, ethtool_in, in_client, ip_in, run},
    workers::{forwarded, segment},
};

/// What the engine is started with, each before the names of interfaces, and what it calls their level.
const BACKENDS: [(&str, &str); 2] = [
    ("workers-2", "AF_XDP native copy"),
    ("forward-af-packet", "AF_PACKET"),
];

/// The way from `c1` to `c2`.
struct Way {
    raw_in: Raw,
    raw_out: Raw,
    sent: u16,
}

impl Way {
    fn open() -> Self {
        Self {
            raw_in: Raw::open("c1"),
            raw_out: Raw::open("c2"),
            sent: 0,
        }
    }

    fn next(&mut self) -> Vec<u8> {
        self.sent += 1;
        segment([10, 78, 0, 1], self.sent, 80, true)
    }

    /// Sends a frame of a new flow; it must come out, whole.
    fn pass(&mut self) {
        let frame = self.next();
        self.raw_in.send(&frame);
        let out = forwarded(&frame);
        while self.raw_out.next()[6..] != out[6..] {}
    }

    /// Sends frames until one comes out: those that come before the first worker has an interface's sockets are
    /// lost.
    fn pass_again(&mut self, engine: &mut Engine) {
        for _ in 0..200 {
            let before = engine.stats()["out"];
            let frame = self.next();
            self.raw_in.send(&frame);
            thread::sleep(Duration::from_millis(20));
            if engine.stats()["out"] > before {
                return;
            }
        }
        panic!("nothing comes out: {:?}", engine.stats());
    }
}

/// Pairs `c1` with `l1` and `c2` with `l2`.
fn pairs(bed: &Bed, queues: u32) {
    bed.pair("c1", "l1", queues);
    bed.pair("c2", "l2", queues);
}

/// Waits until no port is being left.
fn wait_until_left(engine: &mut Engine) {
    for _ in 0..500 {
        if engine.stats()["leaving"] == 0 {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("a port is still being left: {:?}", engine.stats());
}

#[test]
fn an_interface_that_is_deleted_and_made_anew_costs_the_others_nothing() {
    in_client(
        "interfaces::an_interface_that_is_deleted_and_made_anew_costs_the_others_nothing",
        |bed| {
            for (backend, level) in BACKENDS {
                pairs(bed, 2);
                let mut engine = Engine::start(bed, &format!("{backend} l0 l1 l2"));
                let stop = Arc::new(AtomicBool::new(false));
                let ends = Arc::clone(&stop);
                let traffic = thread::spawn(move || {
                    let mut way = Way::open();
                    while !ends.load(Ordering::Relaxed) {
                        way.pass();
                    }
                    u64::from(way.sent)
                });
                let mut through_l0 = 0;
                for queues in [1, 3, 2] {
                    ip_in(&bed.lb, &["link", "del", "l0"]);
                    engine.command("look");
                    wait_until_left(&mut engine);
                    // With another index, and other queues.
                    bed.pair("c0", "l0", queues);
                    engine.command("look");
                    let news = engine.news("l0: ");
                    assert!(news.starts_with(&format!("l0: {level}")), "{news}");
                    let served = if level == "AF_PACKET" { 1 } else { queues };
                    assert!(news.contains(&format!("on {served} queue")), "{news}");
                    // Packets of this one, too, are forwarded: from the first on that it has sockets for.
                    let steered = engine.stats()["steered"];
                    Raw::open("c0").send(&segment(
                        [10, 79, 0, 1],
                        1000 + queues_as_port(queues),
                        80,
                        true,
                    ));
                    assert!(engine.stats()["steered"] >= steered);
                    through_l0 += 1;
                }
                stop.store(true, Ordering::Relaxed);
                let sent = traffic.join().unwrap();
                let stats = engine.settled();
                assert!(sent > 100, "{sent}");
                assert!(
                    stats["in"] >= sent && stats["in"] <= sent + through_l0,
                    "{sent}: {stats:?}"
                );
                assert_eq!(
                    (stats["out"], stats["dropped"]),
                    (stats["in"], 0),
                    "{stats:?}"
                );
                // The control thread goes on meanwhile.
                println!(
                    "{backend}: longest turn of control {} us",
                    stats["slowest-us"]
                );
                engine.stop();
                ip_in(&bed.lb, &["link", "del", "l1"]);
                ip_in(&bed.lb, &["link", "del", "l2"]);
            }
        },
    );
}

fn queues_as_port(queues: u32) -> u16 {
    u16::try_from(queues).unwrap()
}

#[test]
fn the_interface_that_packets_leave_by_comes_back_as_another() {
    in_client(
        "interfaces::the_interface_that_packets_leave_by_comes_back_as_another",
        |bed| {
            for (backend, level) in BACKENDS {
                pairs(bed, 2);
                let mut engine = Engine::start(bed, &format!("{backend} l1 l2"));
                let mut way = Way::open();
                way.pass();
                ip_in(&bed.lb, &["link", "del", "l2"]);
                // Control has not heard of it: what is sent there is lost, and counted.
                let lost = way.next();
                way.raw_in.send(&lost);
                engine.command("look");
                wait_until_left(&mut engine);
                bed.pair("c2", "l2", 4);
                engine.command("look");
                engine.news(&format!("l2: {level}"));
                way.raw_out = Raw::open("c2");
                way.pass_again(&mut engine);
                way.pass();
                let stats = engine.settled();
                // The worker was there all the time: each flow once.
                assert_eq!(stats["connections"], u64::from(way.sent), "{stats:?}");
                assert_eq!(stats["in"], stats["out"] + stats["dropped"], "{stats:?}");
                engine.stop();
                ip_in(&bed.lb, &["link", "del", "l1"]);
                ip_in(&bed.lb, &["link", "del", "l2"]);
            }
        },
    );
}

#[test]
fn down_and_up_again_goes_on_where_it_was() {
    in_client(
        "interfaces::down_and_up_again_goes_on_where_it_was",
        |bed| {
            for (backend, _) in BACKENDS {
                pairs(bed, 1);
                let mut engine = Engine::start(bed, &format!("{backend} l1 l2"));
                let mut way = Way::open();
                way.pass();
                for device in ["l1", "l2"] {
                    ip_in(&bed.lb, &["link", "set", device, "down"]);
                    engine.command("look");
                    ip_in(&bed.lb, &["link", "set", device, "up"]);
                    engine.command("look");
                    way.pass_again(&mut engine);
                    way.pass();
                }
                let stats = engine.settled();
                assert_eq!(stats["leaving"], 0, "nothing was opened anew: {stats:?}");
                engine.stop();
                ip_in(&bed.lb, &["link", "del", "l1"]);
                ip_in(&bed.lb, &["link", "del", "l2"]);
            }
        },
    );
}

#[test]
fn somebody_elses_program_over_ours_is_told_and_waited_for() {
    in_client(
        "interfaces::somebody_elses_program_over_ours_is_told_and_waited_for",
        |bed| {
            pairs(bed, 1);
            let object = bed.foreign_program();
            let mut engine = Engine::start(bed, "workers-2 l1 l2");
            let mut way = Way::open();
            way.pass();
            let xdp = ["-force", "link", "set", "dev", "l1", "xdpdrv"];
            let put = [&xdp[..], &["obj", &object, "sec", "xdp"]].concat();
            let mut over = vec!["-n", &bed.lb];
            over.extend(&put);
            run("ip", &over);
            // Nobody tells control: it looks by itself.
            let news = engine.news("l1: waiting");
            assert!(news.contains("the XDP program foreign"), "{news}");
            assert!(news.contains("ip link set dev l1 xdp off"), "{news}");
            wait_until_left(&mut engine);
            let link = ip_in(&bed.lb, &["-d", "link", "show", "l1"]);
            assert!(link.contains("name foreign"), "it stays: {link}");
            ip_in(&bed.lb, &["link", "set", "dev", "l1", "xdpdrv", "off"]);
            engine.news("l1: AF_XDP native copy on 1 queue");
            way.pass_again(&mut engine);
            way.pass();
            // Ours taken off is put back.
            ip_in(&bed.lb, &["link", "set", "dev", "l1", "xdpdrv", "off"]);
            engine.news("took the steering program off");
            engine.news("l1: AF_XDP native copy on 1 queue");
            way.pass_again(&mut engine);
            way.pass();
            engine.stop();
        },
    );
}

#[test]
fn a_filter_that_somebody_took_off_is_put_back() {
    in_client(
        "interfaces::a_filter_that_somebody_took_off_is_put_back",
        |bed| {
            pairs(bed, 1);
            let mut engine = Engine::start(bed, "forward-af-packet l1 l2");
            let mut way = Way::open();
            way.pass();
            let tc = ["netns", "exec", &bed.lb, "tc", "filter", "del", "dev", "l1"];
            run("ip", &[&tc[..], &["ingress", "pref", "1"]].concat());
            engine.news("took the steering program off");
            engine.news("l1: AF_PACKET");
            way.pass_again(&mut engine);
            way.pass();
            engine.stop();
        },
    );
}

#[test]
fn moved_to_another_namespace_and_back_it_is_opened_anew() {
    in_client(
        "interfaces::moved_to_another_namespace_and_back_it_is_opened_anew",
        |bed| {
            for (backend, level) in BACKENDS {
                pairs(bed, 2);
                let mut engine = Engine::start(bed, &format!("{backend} l1 l2"));
                let mut way = Way::open();
                way.pass();
                // A new namespace, where its index is free: nothing but the bindings is another one.
                let other = format!("{}-x", bed.lb);
                run("ip", &["netns", "add", &other]);
                ip_in(&bed.lb, &["link", "set", "l1", "netns", &other]);
                engine.news("l1: waiting, as it was deleted or moved");
                ip_in(&other, &["link", "set", "l1", "netns", &bed.lb]);
                run("ip", &["netns", "del", &other]);
                ip_in(&bed.lb, &["link", "set", "l1", "up"]);
                engine.news(&format!("l1: {level}"));
                way.pass_again(&mut engine);
                way.pass();
                wait_until_left(&mut engine);
                engine.stop();
                ip_in(&bed.lb, &["link", "del", "l1"]);
                ip_in(&bed.lb, &["link", "del", "l2"]);
            }
        },
    );
}

#[test]
fn other_queues_are_served_after_a_moment() {
    in_client(
        "interfaces::other_queues_are_served_after_a_moment",
        |bed| {
            // More and more: the kernel takes no queue away that a socket is bound to.
            pairs(bed, 4);
            // Natively only if the other end sends on no more queues.
            ethtool_in(&bed.client, &["-L", "c1", "rx", "1", "tx", "1"]);
            ethtool_in(&bed.lb, &["-L", "l1", "rx", "1", "tx", "1"]);
            let mut engine = Engine::start(bed, "workers-2 l1 l2");
            let one = engine.report.contains("l1: AF_XDP native copy on 1 queue ");
            assert!(one, "{}", engine.report);
            let mut way = Way::open();
            way.pass();
            for queues in ["3", "4"] {
                ethtool_in(&bed.lb, &["-L", "l1", "rx", queues, "tx", queues]);
                let news = engine.news("queues now instead of");
                assert!(
                    news.contains(&format!("it has {queues} queues now")),
                    "{news}"
                );
                let news = engine.news("l1: AF_XDP native copy");
                assert!(news.contains(&format!("on {queues} queue")), "{news}");
                assert!(!news.contains("previous run"), "{news}");
                way.pass_again(&mut engine);
                way.pass();
            }
            engine.stop();
        },
    );
}

#[test]
fn another_name_is_no_other_interface() {
    in_client("interfaces::another_name_is_no_other_interface", |bed| {
        for (backend, _) in BACKENDS {
            pairs(bed, 1);
            let mut engine = Engine::start(bed, &format!("{backend} l1 l2"));
            let mut way = Way::open();
            way.pass();
            ip_in(&bed.lb, &["link", "set", "l1", "down"]);
            ip_in(&bed.lb, &["link", "set", "l1", "name", "renamed"]);
            ip_in(&bed.lb, &["link", "set", "renamed", "up"]);
            engine.news("l1 is called renamed now");
            way.pass_again(&mut engine);
            way.pass();
            assert_eq!(engine.stats()["leaving"], 0);
            engine.stop();
            ip_in(&bed.lb, &["link", "del", "renamed"]);
            ip_in(&bed.lb, &["link", "del", "l2"]);
        }
    });
}

#[test]
fn none_need_be_there_at_the_start_and_any_may_go() {
    in_client(
        "interfaces::none_need_be_there_at_the_start_and_any_may_go",
        |bed| {
            for (backend, level) in BACKENDS {
                let mut engine = Engine::start(bed, &format!("{backend} l1 l2"));
                assert!(
                    engine.report.contains("l1: waiting, as no such interface"),
                    "{}",
                    engine.report
                );
                pairs(bed, 2);
                engine.command("want l1 l2");
                engine.news(&format!("l2: {level}"));
                let mut way = Way::open();
                way.pass_again(&mut engine);
                way.pass();
                // Not wanted any more: the host sees its packets again.
                engine.command("want l2");
                wait_until_left(&mut engine);
                let link = ip_in(&bed.lb, &["-d", "link", "show", "l1"]);
                assert!(!link.contains("xdp"), "{link}");
                engine.command("want l1 l2");
                engine.news(&format!("l1: {level}"));
                way.pass_again(&mut engine);
                way.pass();
                engine.stop();
                ip_in(&bed.lb, &["link", "del", "l1"]);
                ip_in(&bed.lb, &["link", "del", "l2"]);
            }
        },
    );
}
