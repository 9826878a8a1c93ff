//! What XDP can do on interfaces, as the kernel tells it.

use std::os::fd::AsRawFd;

use xvs::sys::{
    clock,
    device::InterfaceSpec,
    netlink::netdev::XdpFeatures,
    steer::{Hook, Steering},
    xdp_link::XdpMode,
};

use crate::common::{Namespace, PATIENCE, Pair, readable, run};

/// `NETDEV_XDP_ACT_NDO_XMIT` of <linux/netdev.h>.
const TAKES_FRAMES: u64 = 1 << 2;

fn features(namespace: &Namespace) -> XdpFeatures {
    let opened = namespace.enter(XdpFeatures::open);
    opened.unwrap().expect("Linux 6.3 or later")
}

/// Waits for a notification that changes something.
fn expect_news(features: &mut XdpFeatures, what: &str) {
    let deadline = clock::now() + PATIENCE;
    while readable(features.as_raw_fd(), deadline) {
        if features.update().unwrap() {
            return;
        }
    }
    panic!("not told in time: {what}");
}

fn gro(namespace: &Namespace, device: &str, state: &str) {
    let command = ["netns", "exec", &namespace.name, "ethtool", "-K"];
    run("ip", &[&command[..], &[device, "gro", state]].concat());
}

pub(crate) fn what_xdp_can_do_changes_with_the_other_end_and_is_told() {
    let pair = Pair::new();
    let va = pair.a.link("va").index;
    gro(&pair.b, "vb", "off");
    let mut features = features(&pair.a);
    let takes = |features: &XdpFeatures| features.of(va) & TAKES_FRAMES != 0;
    assert!(features.of(va) != 0 && !takes(&features));
    assert!(!features.update().unwrap());
    for expected in [true, false] {
        gro(&pair.b, "vb", if expected { "on" } else { "off" });
        expect_news(&mut features, "the other end's GRO");
        assert_eq!(takes(&features), expected);
    }
    let spec = InterfaceSpec {
        name: "vb".to_owned(),
        ifindex: pair.b.link("vb").index,
    };
    let mut program = pair.b.enter(|| {
        let steering = Steering::load(Hook::Xdp, &[]).unwrap();
        let mut program = steering.another().unwrap().load(&spec).unwrap();
        program.attach(Some(XdpMode::Native)).unwrap();
        program
    });
    expect_news(&mut features, "the other end's program");
    assert!(takes(&features));
    pair.b.enter(|| program.detach().unwrap());
    expect_news(&mut features, "the end of the other end's program");
    assert!(!takes(&features));
}

pub(crate) fn what_xdp_can_do_is_known_of_interfaces_that_come_and_go() {
    let pair = Pair::new();
    let va = pair.a.link("va").index;
    let mut features = features(&pair.a);
    assert_ne!(features.of(va), 0);
    pair.a.ip("link set va down");
    pair.a.ip("link set va name vx");
    pair.a.ip("link set vx up");
    assert!(!features.update().unwrap() && features.of(va) != 0);

    pair.a.ip("link del vx");
    expect_news(&mut features, "that it is gone");
    assert_eq!(features.of(va), 0);

    // Another one with the same index, also to an end that takes frames from the first moment.
    let other = &pair.b.name;
    pair.a.ip(&format!(
        "link add va index {va} type veth peer name vb netns {other}"
    ));
    expect_news(&mut features, "that there is another one");
    assert!(features.of(va) != 0 && features.of(va) & TAKES_FRAMES == 0);

    pair.a.ip(&format!("link set va netns {other}"));
    expect_news(&mut features, "that it has left");
    assert_eq!(features.of(va), 0);
}

pub(crate) fn what_xdp_can_do_is_right_after_notifications_were_lost() {
    let pair = Pair::new();
    let va = pair.a.link("va").index;
    gro(&pair.b, "vb", "off");
    let opened = pair.a.enter(|| XdpFeatures::with_buffer(1));
    let mut features = opened.unwrap().expect("Linux 6.3 or later");
    // Far more than there is room for. The last that there is room for is one of the two.
    for (last, takes) in [("off", false), ("on", true)] {
        for _ in 0..15 {
            gro(&pair.b, "vb", if takes { "off" } else { "on" });
            gro(&pair.b, "vb", last);
        }
        features.update().unwrap();
        assert_eq!(features.of(va) & TAKES_FRAMES != 0, takes);
    }
    // And it goes on being told.
    gro(&pair.b, "vb", "off");
    expect_news(&mut features, "what follows a loss");
    assert_eq!(features.of(va) & TAKES_FRAMES, 0);
}
