//! Debian's keepalived and xvs as one pair, both ways round.

use crate::{
    Test,
    support::{
        config::{service, unicast, vrrp_with},
        keepalived::Keepalived,
        lan::{LB1, LB2, Lan, VIP},
        millis, secs, wait_until,
        xvs::{Engine, Xvs},
    },
};

/// Priority of the box that is to be master, and of the other one.
const HIGH: u8 = 150;
const LOW: u8 = 100;
/// Skew of [`LOW`].
const SKEW_MS: u64 = 609;
/// What a busy machine may add to a time that is not the point of the test.
const SLACK_MS: u64 = 700;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new("keepalived_peer::xvs_is_master", || xvs_is_master(false)),
        Test::new("keepalived_peer::xvs_is_master_by_unicast", || {
            xvs_is_master(true)
        }),
        Test::new("keepalived_peer::xvs_is_backup", || xvs_is_backup(false)),
        Test::new("keepalived_peer::xvs_is_backup_by_unicast", || {
            xvs_is_backup(true)
        }),
        Test::new(
            "keepalived_peer::adverts_with_another_password_are_not_believed",
            adverts_with_another_password_are_not_believed,
        ),
    ]
}

/// What the box at [`LB1`] runs.
fn first(state: &str, priority: u8, by_unicast: bool) -> String {
    let lines = if by_unicast {
        unicast(LB1, LB2)
    } else {
        String::new()
    };
    vrrp_with(state, priority, "1111", &lines) + &service(80, "lb_algo rr", &[1, 1, 1])
}

/// What keepalived at [`LB2`] runs.
fn second(state: &str, priority: u8, by_unicast: bool) -> String {
    let lines = if by_unicast {
        unicast(LB2, LB1)
    } else {
        String::new()
    };
    vrrp_with(state, priority, "1111", &lines)
}

/// Waits until the VIP is on one of the two boxes, the other one has let go of it, and says how
/// long that took.
fn wait_for_vip(lan: &Lan, on_first: bool, limit_ms: u64) {
    let what = format!(
        "the VIP moves to {}",
        if on_first { "xvs" } else { "keepalived" }
    );
    wait_until(&what, millis(limit_ms), || {
        lan.lb1.has_address(VIP) == on_first && lan.lb2.has_address(VIP) != on_first
    });
}

fn xvs_is_master(by_unicast: bool) {
    let lan = Lan::new();
    let peer = Keepalived::start(&lan, &lan.lb2, &second("BACKUP", LOW, by_unicast));
    let config = first("MASTER", HIGH, by_unicast);
    let lb = Xvs::start(&lan, &lan.lb1, &config, Engine::AfXdp);
    wait_for_vip(&lan, true, 8_000);

    // An orderly stop: priority 0 lets keepalived wait for no more than its skew.
    lb.stop();
    wait_for_vip(&lan, false, SKEW_MS + SLACK_MS);

    // Preemption: the higher priority returns.
    let mut lb = Xvs::start(&lan, &lan.lb1, &config, Engine::AfXdp);
    wait_for_vip(&lan, true, 8_000);
    assert!(lb.is_running());

    // Death: three intervals and the skew, at most. The dead box's address is nobody's to remove.
    lb.kill();
    wait_until(
        "keepalived takes over from the dead",
        millis(3_000 + SKEW_MS + SLACK_MS),
        || lan.lb2.has_address(VIP),
    );
    peer.stop();
}

fn xvs_is_backup(by_unicast: bool) {
    let lan = Lan::new();
    let lb = Xvs::start(
        &lan,
        &lan.lb1,
        &first("BACKUP", LOW, by_unicast),
        Engine::AfXdp,
    );
    let config = second("MASTER", HIGH, by_unicast);
    let peer = Keepalived::start(&lan, &lan.lb2, &config);
    wait_for_vip(&lan, false, 8_000);

    let mark = lb.mark();
    peer.stop();
    wait_for_vip(&lan, true, SKEW_MS + SLACK_MS);
    lb.wait_for_line(mark, "(VI_1) Entering MASTER STATE", secs(1));

    let mark = lb.mark();
    let peer = Keepalived::start(&lan, &lan.lb2, &config);
    wait_for_vip(&lan, false, 8_000);
    let heard = "(VI_1) Master received advert from 10.0.0.12 with higher priority 150, ours 100";
    lb.wait_for_line(mark, heard, secs(1));
    lb.wait_for_backup(mark);

    let mark = lb.mark();
    peer.kill();
    lb.wait_for_vip(millis(3_000 + SKEW_MS + SLACK_MS));
    lb.wait_for_line(mark, "(VI_1) Receive advertisement timeout", secs(1));
    lb.stop();
}

fn adverts_with_another_password_are_not_believed() {
    let lan = Lan::new();
    let strange = vrrp_with("MASTER", HIGH, "2222", "");
    let peer = Keepalived::start(&lan, &lan.lb2, &strange);
    wait_until("keepalived is master", secs(8), || lan.lb2.has_address(VIP));
    let lb = Xvs::start(&lan, &lan.lb1, &first("BACKUP", LOW, false), Engine::AfXdp);
    lb.wait_for_master();
    // Three intervals at least have passed, with an advert in each.
    assert!(counter(&lb, "rejected-password") >= 3);
    assert_eq!(counter(&lb, "adverts-received"), 0);
    // The other way round, and neither gives way to the other.
    wait_until("keepalived has heard and refused xvs", secs(3), || {
        peer.refused_passwords() >= 2
    });
    assert!(lan.lb1.has_address(VIP) && lan.lb2.has_address(VIP));
    lb.stop();
    peer.stop();
}

/// A counter of the only instance; 0 where it is not shown.
fn counter(lb: &Xvs<'_>, name: &str) -> u64 {
    let text = lb.tell(&["vrrp", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&text).expect("xvs prints JSON");
    let instances = status["instances"].as_array().expect("a list of instances");
    let [instance] = &instances[..] else {
        panic!("not one instance: {text}");
    };
    let counters = instance["counters"].as_array().expect("a list of counters");
    let found = counters.iter().find(|one| one["name"] == name);
    found.and_then(|one| one["count"].as_u64()).unwrap_or(0)
}
