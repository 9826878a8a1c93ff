//! What xvs does, shown to a newcomer. Every figure is measured here and now, and one that is not
//! what it should be ends the demonstration with an error.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use crate::support::{
    client::{Shares, curl, shares},
    config::{seed, seed_for_backup, service},
    lan::{CLIENT, Lan, REALS, VIP, further_clients},
    millis, now,
    probe::{Prober, Report},
    secs, wait_until,
    web::WebServer,
    xvs::Xvs,
};

/// What a user appends to the seed configuration: one more virtual server.
const WEIGHTS: [u32; 3] = [3, 2, 1];

/// The longest gap that the death of a box may cost: three intervals, the skew of priority 90
/// (166/256 s), and 0.3 s.
const TAKEOVER_BOUND: Duration = millis(3_000 + 649 + 300);

/// The longest gap when somebody can still say that the box has gone: the skew, and 0.3 s.
const HANDOVER_BOUND: Duration = millis(649 + 300);

pub(crate) fn show() -> ExitCode {
    println!("A client, two xvs boxes and three nginx servers, each in a network namespace:");
    println!("  client 10.0.0.50   lb1 10.0.0.11   lb2 10.0.0.12   VIP {VIP}");
    println!(
        "  real1 {}   real2 {}   real3 {}",
        REALS[0], REALS[1], REALS[2]
    );
    let lan = Lan::new();
    let mut web = WebServer::start_all(&lan);

    let (first, second) = boxes_start(&lan);
    requests_are_spread(&lan, &first);
    clients_stay(&lan);
    a_server_is_killed_and_restored(&lan, &first, &mut web);
    let first = a_box_is_killed(&lan, first, &second);

    heading("Both boxes are stopped");
    for (name, lb) in [("lb1", first), ("lb2", second)] {
        let start = now();
        lb.stop();
        println!(
            "  {name} stopped in {}; VIP and XDP program are gone",
            show_time(start.elapsed())
        );
    }
    println!("\nAll of it is as it should be.");
    ExitCode::SUCCESS
}

fn heading(text: &str) {
    println!("\n== {text}");
}

fn show_time(time: Duration) -> String {
    if time < secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}

fn port(port: u16) -> SocketAddr {
    SocketAddr::from((VIP, port))
}

fn prober(lan: &Lan) -> Prober {
    let prober = Prober::start(&lan.client, &[CLIENT], port(8080));
    prober.wait_for_answers(50, secs(5));
    prober
}

fn show_report(report: &Report) {
    println!(
        "  the client saw: {} requests, {} failures, longest gap {}",
        report.requests,
        report.failures,
        show_time(report.longest_gap)
    );
}

fn boxes_start(lan: &Lan) -> (Xvs<'_>, Xvs<'_>) {
    heading("Two boxes start with config/seed.conf, and one more virtual server appended");
    let appended = service(8080, "lb_algo wrr", &WEIGHTS);
    let start = now();
    let first = Xvs::start_with(lan, &lan.lb1, &(seed() + &appended), &[]);
    let second = Xvs::start_with(lan, &lan.lb2, &(seed_for_backup() + &appended), &[]);
    first.wait_for_master();
    println!(
        "  lb1 (priority 100) is MASTER after {}",
        show_time(start.elapsed())
    );
    assert!(!lan.lb2.has_address(VIP), "both boxes hold the VIP");
    println!("  lb2 (priority 90, state BACKUP: all that was changed) waits");
    print!("{}", indented(&first.tell(&["vrrp"])));
    (first, second)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

fn requests_are_spread(lan: &Lan, lb: &Xvs<'_>) {
    const REQUESTS: usize = 6_000;
    heading("Requests are spread by weight (port 8080: lb_algo wrr, weights 3, 2, 1)");
    let shares = shares(&curl(&lan.client, CLIENT, port(8080), REQUESTS, 20));
    let total: u32 = WEIGHTS.iter().sum();
    for (name, weight) in ["real1", "real2", "real3"].into_iter().zip(WEIGHTS) {
        let got = shares.get(name).copied().unwrap_or(0);
        let bar = "#".repeat(got / 100);
        println!("  {name}  weight {weight}  {got:5} answers  {bar}");
        let due = REQUESTS * weight as usize / total as usize;
        assert!(
            got.abs_diff(due) <= REQUESTS * 3 / 100,
            "{name} should have answered {due}"
        );
    }
    println!("  the client saw: {REQUESTS} requests, 0 failures");
    println!("  xvs list says on lb1:");
    print!("{}", indented(&lb.tell(&["list"])));
}

fn clients_stay(lan: &Lan) {
    heading("A client stays with its server (port 80: lb_algo rr, persistence_timeout 50)");
    let own = shares(&curl(&lan.client, CLIENT, port(80), 50, 5));
    assert_eq!(own.len(), 1, "the client changed its server: {own:?}");
    println!("  50 requests of one client:      {}", counts(&own));
    let others = further_clients().take(20);
    let answers: Vec<String> = others
        .flat_map(|client| curl(&lan.client, client, port(80), 1, 1))
        .collect();
    let spread = shares(&answers);
    println!("  one request each of 20 others:  {}", counts(&spread));
    assert_eq!(spread.len(), 2, "clients are not spread");
}

fn counts(shares: &Shares) -> String {
    let words: Vec<String> = shares
        .iter()
        .map(|(name, n)| format!("{name} {n}"))
        .collect();
    words.join(", ")
}

fn a_server_is_killed_and_restored(lan: &Lan, lb: &Xvs<'_>, web: &mut Vec<WebServer>) {
    heading("nginx on real2 is killed");
    let prober = self::prober(lan);
    let mark = lb.mark();
    web.remove(1).kill();
    let removed = "Removing service [10.0.0.139]:tcp:8080 from VS [10.0.0.148]:tcp:8080";
    let noticed = lb.wait_for_line(mark, removed, secs(6));
    println!(
        "  noticed after {} (TCP_CHECK: delay_loop 1, one retry)",
        show_time(noticed)
    );
    show_report(&prober.finish());
    let prober = self::prober(lan);
    prober.wait_for_answers(200, secs(10));
    let report = prober.finish();
    println!("  from then on: {}", counts(&report.shares));
    show_report(&report);
    assert_eq!(
        report.failures, 0,
        "requests failed although the dead server has left"
    );
    assert!(
        !report.shares.contains_key("real2"),
        "the dead server answers"
    );

    heading("nginx on real2 is started again");
    let prober = self::prober(lan);
    let mark = lb.mark();
    web.push(WebServer::start(lan, &lan.reals[1]));
    let added = "Adding service [10.0.0.139]:tcp:8080 to VS [10.0.0.148]:tcp:8080";
    let noticed = lb.wait_for_line(mark, added, secs(6));
    println!("  noticed after {}", show_time(noticed));
    prober.wait_for_answers(100, secs(10));
    let report = prober.finish();
    show_report(&report);
    assert_eq!(
        report.failures, 0,
        "requests failed when the server returned"
    );
    assert!(
        report.shares.contains_key("real2"),
        "the server has not returned"
    );
}

fn a_box_is_killed<'a>(lan: &'a Lan, first: Xvs<'a>, second: &Xvs<'_>) -> Xvs<'a> {
    heading("lb1 dies (kill -9 to all of xvs), and lb2 takes over");
    takes_over(lan, second, TAKEOVER_BOUND, || first.kill());
    let first = returns(lan);

    heading("The engine on lb1 dies (kill -9), its guardian says so, and lb2 takes over");
    takes_over(lan, second, HANDOVER_BOUND, || first.kill_engine());
    returns(lan)
}

fn takes_over(lan: &Lan, second: &Xvs<'_>, bound: Duration, event: impl FnOnce()) {
    let prober = self::prober(lan);
    let start = now();
    event();
    second.wait_for_vip(secs(8));
    println!("  lb2 holds the VIP after {}", show_time(start.elapsed()));
    prober.wait_for_answers(100, secs(8));
    let report = prober.finish();
    show_report(&report);
    println!("  allowed: a gap of {}", show_time(bound));
    assert!(report.longest_gap <= bound, "the gap is too long");
}

/// `lb1` starts again, and preempts.
fn returns(lan: &Lan) -> Xvs<'_> {
    heading("lb1 is started again, and takes its place");
    let appended = service(8080, "lb_algo wrr", &WEIGHTS);
    let prober = self::prober(lan);
    let first = Xvs::start_with(lan, &lan.lb1, &(seed() + &appended), &[]);
    wait_until("lb2 lets the VIP go", secs(10), || {
        lan.lb1.has_address(VIP) && !lan.lb2.has_address(VIP)
    });
    prober.wait_for_answers(100, secs(8));
    let report = prober.finish();
    show_report(&report);
    assert!(report.longest_gap <= millis(500), "the gap is too long");
    first
}
