//! The command line: what is refused, with which place and exit status, and what is shown.

use std::process::Output;

use crate::{
    Test,
    support::{
        config::{seed, service, vrrp},
        lan::{Lan, VIP},
        secs,
        xvs::{Engine, Xvs, write, xvs},
    },
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new(
            "cli::a_wrong_configuration_is_refused_with_its_place",
            wrong_configuration,
        ),
        Test::new(
            "cli::a_file_that_cannot_be_read_is_another_error",
            unreadable,
        ),
        Test::new(
            "cli::the_seed_configuration_is_checked_with_remarks",
            seed_is_checked,
        ),
        Test::new(
            "cli::the_engine_is_chosen_and_said_in_one_line",
            engine_is_said,
        ),
        Test::new(
            "cli::instances_are_shown_and_the_socket_is_private",
            instances_are_shown,
        ),
        Test::new("cli::a_second_run_on_the_same_box_is_refused", second_run),
    ]
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn wrong_configuration() {
    let lan = Lan::new();
    let file = lan.as_ref().join("wrong.conf");
    let text = vrrp("MASTER", 150).replace("priority 150", "priority 300")
        + &service(80, "lb_algo rr", &[1]).replace("10.0.0.137", "10.0.0.1337");
    write(&file, &text);
    let name = file.to_str().expect("the path is UTF-8");
    let places = ["priority 300", "10.0.0.1337"].map(|wrong| {
        let before = &text[..text.find(wrong).expect("the mistake is in the file")];
        format!("{name}:{}:", before.matches('\n').count() + 1)
    });
    let socket = lan.as_ref().join("s").display().to_string();
    for arguments in [
        vec!["check", "-f", name],
        vec!["run", "-f", name, "--socket", &socket],
    ] {
        let output = xvs(&lan.lb1, &arguments);
        let said = errors(&output);
        assert_eq!(output.status.code(), Some(1), "xvs {arguments:?}: {said}");
        for place in &places {
            let line = said.lines().find(|line| line.starts_with(place));
            let line = line.unwrap_or_else(|| panic!("nothing about {place} in\n{said}"));
            let column = line[place.len()..].split(':').next().map(str::parse::<u32>);
            assert!(matches!(column, Some(Ok(1..))), "no column in {line:?}");
            assert!(line.contains(": error: "), "{line}");
        }
    }
    assert!(!lan.lb1.has_xdp() && !lan.lb1.has_address(VIP));
}

fn unreadable() {
    let lan = Lan::new();
    let missing = lan.as_ref().join("missing.conf");
    let missing = missing.to_str().expect("the path is UTF-8");
    for (arguments, word) in [
        (&["check", "-f", missing][..], missing),
        (&["run", "-f", missing], missing),
        (&["no-such-word"], "no-such-word"),
    ] {
        let output = xvs(&lan.lb1, arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "xvs {arguments:?}: {}",
            errors(&output)
        );
        assert!(
            errors(&output).contains(word),
            "xvs {arguments:?}: {output:?}"
        );
    }
}

fn seed_is_checked() {
    let lan = Lan::new();
    let file = lan.as_ref().join("seed.conf");
    write(&file, &seed());
    let name = file.to_str().expect("the path is UTF-8");
    let output = xvs(&lan.lb1, &["check", "-f", name]);
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for remark in ["nb_get_retry", "nopreempt"] {
        let place = format!("{name}:");
        let told = said
            .lines()
            .any(|line| line.starts_with(&place) && line.contains(remark));
        assert!(told, "nothing about {remark} in\n{said}");
    }
    let effective = String::from_utf8_lossy(&output.stdout);
    assert!(effective.contains("10.0.0.148"), "{effective}");
}

fn engine_is_said() {
    let lan = Lan::new();
    let config = vrrp("MASTER", 254) + &service(80, "lb_algo rr", &[1, 1, 1]);
    let lb = Xvs::start_with(&lan, &lan.lb1, &config, &[]);
    lb.wait_for_master();
    let log = lb.log();
    // The best that veth has, with the reason why not better.
    let said = |line: &str| line.contains("native") && line.contains("zero-copy");
    assert!(log.lines().any(said), "no line about the engine:\n{log}");
    lb.stop();
}

fn instances_are_shown() {
    let lan = Lan::new();
    let config = vrrp("MASTER", 254) + &service(80, "lb_algo rr", &[1, 1, 1]);
    let lb = Xvs::start(&lan, &lan.lb1, &config, Engine::AfXdp);
    lb.wait_for_master();
    assert_eq!(lb.socket_mode(), 0o600);
    let shown = lb.tell(&["vrrp"]);
    let line = shown.lines().find(|line| line.contains("VI_1"));
    let line = line.unwrap_or_else(|| panic!("no VI_1 in {shown:?}"));
    for word in ["eth0", "51", "MASTER", "254", "10.0.0.148"] {
        assert!(line.contains(word), "no {word} in {line:?}");
    }
    let json: Result<serde_json::Value, _> = serde_json::from_str(&lb.tell(&["vrrp", "--json"]));
    assert!(json.is_ok_and(|json| json.to_string().contains("VI_1")));
    let socket = lb.socket().to_owned();
    lb.stop();
    let socket = socket.to_str().expect("the path is UTF-8");
    let output = xvs(&lan.lb1, &["list", "--socket", socket]);
    assert!(!output.status.success(), "nobody is there to ask");
    assert!(errors(&output).contains(socket), "{output:?}");
}

fn second_run() {
    let lan = Lan::new();
    let config = vrrp("MASTER", 254) + &service(80, "lb_algo rr", &[1, 1, 1]);
    let mut lb = Xvs::start(&lan, &lan.lb1, &config, Engine::AfXdp);
    lb.wait_for_master();
    let file = lb.config();
    let file = file.to_str().expect("the path is UTF-8");
    let socket = lb.socket().to_owned();
    let socket = socket.to_str().expect("the path is UTF-8");
    let output = xvs(&lan.lb1, &["run", "-f", file, "--socket", socket]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = errors(&output);
    assert!(said.contains("another xvs is running"), "{said}");
    assert!(lb.is_running(), "the first one has suffered");
    assert!(
        lan.lb1.has_address(VIP) && lan.lb1.has_xdp(),
        "the first one has lost something"
    );
    lb.wait_for_line(0, "Entering MASTER STATE", secs(1));
    lb.stop();
}
