//! Two boxes: what a client notices when one of them goes.

use std::{net::SocketAddr, time::Duration};

use crate::{
    Test,
    support::{
        config::{service, vrrp},
        lan::{CLIENT, LB1, Lan, VIP, mac_of},
        millis,
        probe::{Prober, Report},
        secs, wait_until,
        web::WebServer,
        xvs::{Engine, Xvs},
    },
};

/// Priority of the box that is to be master.
const HIGH: u8 = 150;
/// Priority of the other one.
const LOW: u8 = 100;
/// Interval of the adverts.
const INTERVAL: Duration = secs(1);

/// Skew time of [`LOW`]: (256 - 100) / 256 s. RFC 3768 section 6.1.
const SKEW: Duration = millis(609);

pub(crate) fn tests() -> Vec<Test> {
    let mut tests: Vec<Test> = Vec::new();
    tests.extend(Test::on_each_engine(
        "failover::a_killed_box_is_replaced_after_three_intervals_and_skew",
        killed,
    ));
    tests.extend(Test::on_each_engine(
        "failover::a_killed_engine_is_replaced_after_the_skew",
        engine_killed,
    ));
    tests.extend(Test::on_each_engine(
        "failover::a_stopped_box_is_replaced_after_the_skew",
        stopped,
    ));
    tests.extend(Test::on_each_engine(
        "failover::a_box_that_returns_takes_over_again",
        returns,
    ));
    tests.push(Test::new(
        "failover::an_unplugged_box_is_replaced",
        unplugged,
    ));
    tests.push(Test::new("failover::a_master_defends_its_address", defends));
    // A busy machine would be measured, not a failover.
    tests.into_iter().map(Test::alone).collect()
}

fn config(state: &str, priority: u8) -> String {
    vrrp(state, priority) + &service(80, "lb_algo rr", &[1, 1, 1])
}

fn prober(lan: &Lan) -> Prober {
    Prober::start(&lan.client, &[CLIENT], SocketAddr::from((VIP, 80)))
}

/// Two boxes, of which the first is master and serves; `event` happens to it while a client keeps
/// asking, until the second one serves. What did the client see?
fn during(engine: Engine, event: impl FnOnce(&Lan, Xvs<'_>)) -> Report {
    let lan = Lan::new();
    let _web = WebServer::start_all(&lan);
    let arguments = [engine.arguments(), &["--log-level", "debug"]].concat();
    let second = Xvs::start_with(&lan, &lan.lb2, &config("BACKUP", LOW), &arguments);
    let first = Xvs::start(&lan, &lan.lb1, &config("MASTER", HIGH), engine);
    first.wait_for_master();
    wait_until("the other box is backup", secs(2), || {
        !lan.lb2.has_address(VIP)
    });

    let prober = prober(&lan);
    prober.wait_for_answers(100, secs(5));
    event(&lan, first);
    second.wait_for_vip(secs(8));
    prober.wait_for_answers(100, secs(5));
    let report = prober.finish();
    let log = second.log();
    assert!(
        log.contains("Sending gratuitous ARP on eth0 for 10.0.0.148"),
        "{log}"
    );
    second.stop();
    report
}

fn killed(engine: Engine) {
    let report = during(engine, |_, first| first.kill());
    let bound = 3 * INTERVAL + SKEW + millis(300);
    assert!(
        report.longest_gap <= bound,
        "more than {bound:?}: {report:?}"
    );
    // Less would mean that the box was not dead, or that nobody looked.
    assert!(report.longest_gap >= secs(1), "{report:?}");
    assert_eq!(
        report.resets, 0,
        "the dead box's kernel has answered: {report:?}"
    );
}

/// The guardian sends priority 0 and takes the VIP off: a crash is as short as a stop.
fn engine_killed(engine: Engine) {
    let report = during(engine, |lan, first| {
        first.kill_engine();
        assert!(!lan.lb1.has_address(VIP), "the dead box still has the VIP");
    });
    let bound = SKEW + millis(150);
    assert!(
        report.longest_gap <= bound,
        "more than {bound:?}: {report:?}"
    );
    assert_eq!(
        report.resets, 0,
        "the dead box's kernel has answered: {report:?}"
    );
}

fn stopped(engine: Engine) {
    let report = during(engine, |_, first| first.stop());
    let bound = SKEW + millis(100);
    assert!(
        report.longest_gap <= bound,
        "more than {bound:?}: {report:?}"
    );
}

fn unplugged() {
    let report = during(Engine::AfXdp, |lan, first| {
        lan.unplug(&lan.lb1);
        drop(first);
    });
    let bound = 3 * INTERVAL + SKEW + millis(300);
    assert!(
        report.longest_gap <= bound,
        "more than {bound:?}: {report:?}"
    );
    // Less would mean that it was not unplugged: its guardian says that it goes, if anybody hears it.
    assert!(report.longest_gap >= 2 * INTERVAL, "{report:?}");
}

fn returns(engine: Engine) {
    let lan = Lan::new();
    let _web = WebServer::start_all(&lan);
    let second = Xvs::start(&lan, &lan.lb2, &config("BACKUP", LOW), engine);
    second.wait_for_master();
    let prober = prober(&lan);
    prober.wait_for_answers(100, secs(5));
    let mark = second.mark();
    let first = Xvs::start(&lan, &lan.lb1, &config("MASTER", HIGH), engine);
    first.wait_for_master();
    let heard = "(VI_1) Master received advert from 10.0.0.11 with higher priority 150, ours 100";
    second.wait_for_line(mark, heard, secs(2));
    second.wait_for_backup(mark);
    prober.wait_for_answers(100, secs(5));
    assert!(
        lan.lb1.has_address(VIP) && !lan.lb2.has_address(VIP),
        "one box holds the VIP"
    );
    let report = prober.finish();
    assert!(report.longest_gap <= millis(300), "{report:?}");
    first.stop();
    second.stop();
}

/// What others do to the interface of a master: they take the VIP off, and change the link-layer
/// address.
fn defends() {
    let lan = Lan::new();
    let xvs = Xvs::start(&lan, &lan.lb1, &vrrp("MASTER", HIGH), Engine::AfPacket);
    xvs.wait_for_master();
    let take_off = || lan.lb1.ip(&format!("addr del {VIP}/32 dev eth0"));
    let mark = xvs.mark();
    take_off();
    xvs.wait_for_vip(millis(500));
    take_off();
    let waited = xvs.wait_for_vip(secs(2));
    assert!(waited >= millis(400), "put back again after {waited:?}");
    let log = xvs.log();
    assert_eq!(log[mark..].matches("somebody removed").count(), 1, "{log}");

    let neighbour = || lan.client.ip(&format!("neigh show {VIP} dev eth0"));
    let former = mac_of(LB1);
    lan.client.ip(&format!(
        "neigh replace {VIP} lladdr {former} dev eth0 nud reachable"
    ));
    lan.lb1.ip("link set eth0 address 02:00:00:00:00:99");
    wait_until("the client knows the new address", secs(2), || {
        neighbour().contains("02:00:00:00:00:99")
    });
}
