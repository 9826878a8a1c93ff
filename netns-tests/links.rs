//! VRRP on interfaces that come and go: what waits, what goes on, and who is master meanwhile.

use std::net::Ipv4Addr;

use crate::{
    Test,
    support::{
        config::vrrp,
        host::Host,
        lan::{LB1, Lan, VIP},
        millis, secs, wait_until,
        xvs::{Engine, Xvs, xvs},
    },
};

/// Priority of the box that is to be master.
const HIGH: u8 = 150;
/// Priority of the other one.
const LOW: u8 = 100;

/// An address on the second interface.
const BACK_VIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 100);

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new(
            "links::an_interface_made_anew_is_elected_on_again",
            made_anew,
        ),
        Test::new("links::the_link_of_a_second_vip_decides_too", second_link).alone(),
        Test::new(
            "links::an_interface_that_is_not_there_yet_is_waited_for",
            not_there_yet,
        ),
        Test::new(
            "links::whatever_becomes_of_one_interface_another_one_does_not_notice",
            renamed_and_moved,
        ),
    ]
}

/// What `xvs vrrp --json` says of an instance: its state, the reason of a FAULT, and how often it became
/// master.
fn status(xvs: &Xvs<'_>, name: &str) -> (String, String, u64) {
    let text = xvs.tell(&["vrrp", "--json"]);
    let all: serde_json::Value =
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("xvs vrrp --json: {e}\n{text}"));
    let all = all["instances"].as_array().expect("instances");
    let one = all.iter().find(|one| one["name"] == name);
    let one = one.unwrap_or_else(|| panic!("no {name} in {text}"));
    let word = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
    let counters = one["counters"].as_array().expect("counters");
    let became = counters
        .iter()
        .find(|count| count["name"] == "became-master");
    let became = became.and_then(|count| count["count"].as_u64());
    (word("state"), word("reason"), became.expect("a count"))
}

fn has(host: &Host, interface: &str, address: Ipv4Addr) -> bool {
    host.ip(&format!("-4 -oneline addr show dev {interface}"))
        .contains(&format!("inet {address}/"))
}

/// A second link of a machine, that leads nowhere else. An interface that two machines know by one name.
fn add_link(host: &Host, name: &str, address: &str) {
    host.ip_batch(&format!(
        "link add {name} type veth peer name {name}-end\n\
         addr add {address} dev {name}\nlink set {name} up\nlink set {name}-end up\n"
    ));
}

/// The instance of [`vrrp`] with a second address, on `bk0`.
fn with_back(state: &str, priority: u8) -> String {
    let vips = format!("        {VIP}\n        {BACK_VIP}/24 dev bk0\n");
    vrrp(state, priority).replace(&format!("        {VIP}\n"), &vips)
}

/// A second instance, on `interface`.
fn second_instance(interface: &str) -> String {
    vrrp("BACKUP", LOW)
        .replace("VI_1", "VI_2")
        .replace("virtual_router_id 51", "virtual_router_id 52")
        .replace("interface eth0", &format!("interface {interface}"))
        .replace(&VIP.to_string(), &BACK_VIP.to_string())
}

fn made_anew() {
    let lan = Lan::new();
    let second = Xvs::start(&lan, &lan.lb2, &vrrp("BACKUP", LOW), Engine::AfPacket);
    let first = Xvs::start(&lan, &lan.lb1, &vrrp("MASTER", HIGH), Engine::AfPacket);
    first.wait_for_master();
    wait_until("the other box is backup", secs(3), || {
        !lan.lb2.has_address(VIP)
    });
    let mark = first.mark();
    lan.delete(&lan.lb1);
    // The kernel switches it off first.
    first.wait_for_line(mark, "(VI_1) Entering FAULT STATE (eth0 ", secs(2));
    first.wait_for_line(mark, "eth0 is gone", secs(2));
    let (state, reason, _) = status(&first, "VI_1");
    assert_eq!(
        (state.as_str(), reason.as_str()),
        ("FAULT", "eth0 does not exist")
    );
    assert!(first.tell(&["vrrp"]).contains("VI_1: eth0 does not exist"));
    second.wait_for_vip(secs(8));

    let mark = first.mark();
    lan.make_anew(&lan.lb1, LB1);
    first.wait_for_line(mark, "eth0 is there", secs(2));
    first.wait_for_line(mark, "(VI_1) Entering MASTER STATE", secs(8));
    first.wait_for_vip(secs(2));
    wait_until("the other box has given way", secs(3), || {
        !lan.lb2.has_address(VIP)
    });
    assert_eq!(status(&first, "VI_1").2, 2);
    // The guardian's orders are about the interface that there is now.
    first.kill_engine();
    assert!(!lan.lb1.has_address(VIP), "the guardian left the VIP");
    // Within the skew, so it heard priority 0: three intervals are longer.
    second.wait_for_vip(secs(2));
    drop(second);
}

fn second_link() {
    let lan = Lan::new();
    for (host, own) in [
        (&lan.lb1, "198.51.100.11/24"),
        (&lan.lb2, "198.51.100.12/24"),
    ] {
        add_link(host, "bk0", own);
    }
    let second = Xvs::start(&lan, &lan.lb2, &with_back("BACKUP", LOW), Engine::AfPacket);
    let first = Xvs::start(&lan, &lan.lb1, &with_back("MASTER", HIGH), Engine::AfPacket);
    first.wait_for_master();
    wait_until("both addresses are there", secs(2), || {
        has(&lan.lb1, "bk0", BACK_VIP)
    });
    wait_until("the other box is backup", secs(3), || {
        !lan.lb2.has_address(VIP)
    });

    let mark = first.mark();
    lan.lb1.ip("link set bk0 down");
    first.wait_for_line(mark, "(VI_1) sent 0 priority", secs(1));
    first.wait_for_line(mark, "(VI_1) Entering FAULT STATE (bk0 is down)", secs(1));
    // Skew time of LOW, 0.61 s, and some for the machine; without the goodbye it would be 3.6 s.
    second.wait_for_vip(millis(1500));
    assert!(!lan.lb1.has_address(VIP) && !has(&lan.lb1, "bk0", BACK_VIP));
    assert_eq!(status(&first, "VI_1").1, "bk0 is down");

    lan.lb1.ip("link set bk0 up");
    first.wait_for_vip(secs(8));
    wait_until("the second address is there again", secs(2), || {
        has(&lan.lb1, "bk0", BACK_VIP)
    });
    wait_until("the other box has given way", secs(3), || {
        !lan.lb2.has_address(VIP)
    });
}

fn not_there_yet() {
    let lan = Lan::new();
    let fixed = vrrp("MASTER", HIGH) + &second_instance("eth5");
    let file = lan.as_ref().join("fixed.conf");
    crate::support::xvs::write(&file, &fixed);
    let (file, socket) = (file.to_str(), lan.as_ref().join("fixed.sock"));
    let (file, socket) = (file.expect("UTF-8"), socket.to_str().expect("UTF-8"));
    let refused = xvs(&lan.lb1, &["run", "-f", file, "--socket", socket]);
    assert!(!refused.status.success(), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        said.contains("(VI_2) interface eth5 does not exist"),
        "{said}"
    );

    let dynamic = format!("global_defs {{\n    dynamic_interfaces\n}}\n{fixed}");
    let xvs = Xvs::start(&lan, &lan.lb1, &dynamic, Engine::AfPacket);
    xvs.wait_for_master();
    let (state, reason, _) = status(&xvs, "VI_2");
    assert_eq!(
        (state.as_str(), reason.as_str()),
        ("FAULT", "eth5 does not exist")
    );
    add_link(&lan.lb1, "eth5", "198.51.100.11/24");
    wait_until("the second instance is master", secs(8), || {
        has(&lan.lb1, "eth5", BACK_VIP)
    });
    assert_eq!(status(&xvs, "VI_1"), ("MASTER".into(), String::new(), 1));
}

fn renamed_and_moved() {
    let lan = Lan::new();
    add_link(&lan.lb1, "bk0", "198.51.100.11/24");
    let config = vrrp("MASTER", HIGH) + &second_instance("bk0");
    let xvs = Xvs::start(&lan, &lan.lb1, &config, Engine::AfPacket);
    xvs.wait_for_master();
    let master_again = |times: u64| {
        wait_until("the second instance is master", secs(8), || {
            has(&lan.lb1, "bk0", BACK_VIP)
        });
        let (state, _, became) = status(&xvs, "VI_2");
        assert_eq!((state.as_str(), became), ("MASTER", times));
        xvs.mark()
    };
    let is_missing = |mark| {
        xvs.wait_for_line(mark, "(VI_2) Entering FAULT STATE (bk0 ", secs(2));
        wait_until("the reason is that there is none", secs(2), || {
            status(&xvs, "VI_2").1 == "bk0 does not exist"
        });
    };

    let mark = master_again(1);
    lan.lb1
        .ip_batch("link set bk0 down\nlink set bk0 name uplink\nlink set uplink up\n");
    is_missing(mark);
    assert!(!has(&lan.lb1, "uplink", BACK_VIP));
    lan.lb1
        .ip_batch("link set uplink down\nlink set uplink name bk0\nlink set bk0 up\n");

    let mark = master_again(2);
    lan.lb1
        .ip(&format!("link set bk0 netns {}", lan.lb2.namespace()));
    is_missing(mark);
    lan.lb2
        .ip(&format!("link set bk0 netns {}", lan.lb1.namespace()));
    lan.lb1
        .ip_batch("addr add 198.51.100.11/24 dev bk0\nlink set bk0 up\n");

    let mark = master_again(3);
    lan.lb1.ip("link set bk0 mtu 1400");
    lan.lb1.ip("link set bk0 address 02:00:00:00:00:77");
    lan.lb1.ip("link del bk0");
    is_missing(mark);
    add_link(&lan.lb1, "bk0", "198.51.100.11/24");
    master_again(4);
    assert_eq!(status(&xvs, "VI_1"), ("MASTER".into(), String::new(), 1));
}
