//! The command line: what is refused, with which place and exit status, and what is shown.

use std::process::Output;

use crate::{
    Test,
    support::{
        config::{seed, service, vrrp},
        lan::{Lan, VIP},
        secs,
        xvs::{Engine, PROGRAM, Xvs, write, xvs},
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
        Test::new("cli::warnings_refuse_if_that_is_asked_for", strict),
        Test::new("cli::a_check_needs_neither_root_nor_interfaces", as_nobody),
        Test::new(
            "cli::a_check_of_this_host_names_what_it_lacks",
            on_this_host,
        ),
        Test::new("cli::what_a_reload_would_change_is_shown", differences),
        Test::new("cli::a_check_is_there_for_programs", for_programs),
        Test::new("cli::a_keyword_is_explained", explained),
    ]
}

/// Lines that are warned about: a word of keepalived 1.x.
const ODD: &str = "global_defs {\n    lvs_id A\n}\n";

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn wrong_configuration() {
    let lan = Lan::new();
    let file = lan.as_ref().join("wrong.conf");
    // The same virtual router twice, and one without an interface.
    let one = vrrp("MASTER", 150);
    let lines = one.lines().count();
    let homeless = one.replace("    interface eth0\n", "");
    let text = one.clone() + &one.replace("VI_1", "VI_2") + &homeless.replace("VI_1", "VI_3");
    write(&file, &text);
    let name = file.to_str().expect("the path is UTF-8");
    let blocks = [lines + 1..=2 * lines, 2 * lines + 1..=3 * lines];
    let socket = lan.as_ref().join("s").display().to_string();
    for (arguments, status) in [
        (vec!["check", "-f", name], 1),
        (vec!["run", "-f", name, "-t"], 1),
        (vec!["run", "-f", name, "--socket", &socket], 2),
    ] {
        let output = xvs(&lan.lb1, &arguments);
        let said = errors(&output);
        assert_eq!(
            output.status.code(),
            Some(status),
            "xvs {arguments:?}: {said}"
        );
        // FILE:LINE:COLUMN: error: ...
        let errors = said.lines().filter(|line| line.contains(": error: "));
        let places: Vec<(usize, usize)> = errors
            .map(|line| {
                let numbers = line.strip_prefix(&format!("{name}:")).unwrap_or_default();
                let mut numbers = numbers.split(':').map(|number| number.parse().unwrap_or(0));
                (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
            })
            .collect();
        for block in &blocks {
            let mut all = places.iter();
            let told = all.any(|(line, column)| block.contains(line) && *column > 0);
            assert!(told, "nothing about {block:?} in\n{said}");
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
        (&["run", "-f", missing, "--config-test"], missing),
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
    let verdict = said.lines().last().unwrap_or_default();
    assert!(verdict.ends_with("; would start"), "{said}");
    assert!(output.stdout.is_empty(), "nothing was asked for");
    let output = xvs(&lan.lb1, &["check", "-f", name, "--effective"]);
    let effective = printed(&output);
    assert!(effective.contains("10.0.0.148"), "{effective}");
    // What was printed is a configuration, and there is nothing to say about it.
    write(&file, &effective);
    let output = xvs(&lan.lb1, &["check", "-f", name, "--effective"]);
    assert_eq!(printed(&output), effective);
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn strict() {
    let lan = Lan::new();
    let file = lan.as_ref().join("odd.conf");
    let odd = service(80, "lb_algo rr", &[1]) + ODD;
    write(&file, &odd);
    let name = file.to_str().expect("the path is UTF-8");
    for (arguments, status) in [
        (&["check", "-f", name][..], 0),
        (&["check", "-f", name, "--strict"], 1),
        (&["run", "-f", name, "--strict"], 2),
        (&["run", "-f", name, "-t", "--strict"], 1),
        (&["run", "-f", name, "-t"], 0),
    ] {
        let output = xvs(&lan.lb1, arguments);
        assert_eq!(
            output.status.code(),
            Some(status),
            "{arguments:?}: {output:?}"
        );
        assert_eq!(
            status == 0,
            !errors(&output).contains("--strict"),
            "{output:?}"
        );
    }
    // Nor is it taken over by one that runs.
    let good = service(80, "lb_algo rr", &[1]);
    lan.hold_vip();
    let arguments = [Engine::AfPacket.arguments(), &["--strict"]].concat();
    let lb = Xvs::start_with(&lan, &lan.lb1, &good, &arguments);
    lb.wait_until_ready();
    lb.write(&odd);
    let output = lb.ask(&["reload"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(errors(&output).contains("--strict"), "{output:?}");
    lb.stop();
}

fn as_nobody() {
    let lan = Lan::new();
    let file = lan.as_ref().join("elsewhere.conf");
    let text = vrrp("MASTER", 150).replace("eth0", "bond7")
        + "vrrp_instance VI_2 {\n interface bond7\n virtual_router_id 9\n virtual_ipaddress {\n 10.1.0.1\n }\n}\n";
    write(&file, &text);
    let name = file.to_str().expect("the path is UTF-8");
    // The folders that lead to the program and to the file are not nobody's to enter: the capabilities are gone, the
    // user stays.
    let arguments = ["--bounding-set=-all", "--inh-caps=-all", PROGRAM];
    let output = lan.lb1.output(
        "setpriv",
        &[&arguments[..], &["check", "-f", name]].concat(),
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(errors(&output).contains("; would start"), "{output:?}");
}

fn on_this_host() {
    let lan = Lan::new();
    let file = lan.as_ref().join("host.conf");
    let name = file.to_str().expect("the path is UTF-8");
    let check = |text: &str| {
        write(&file, text);
        let output = xvs(&lan.lb1, &["check", "-f", name, "--on-this-host"]);
        (output.status.code(), errors(&output))
    };
    let (status, said) = check(&vrrp("MASTER", 150));
    assert_eq!(status, Some(0), "{said}");
    assert!(!said.contains("eth0"), "all is well: {said}");
    let (status, said) = check(&vrrp("MASTER", 150).replace("eth0", "eth7"));
    assert_eq!(status, Some(1), "{said}");
    assert!(
        said.contains("error: vrrp_instance VI_1: eth7 does not exist"),
        "{said}"
    );
    let (status, said) = check(&vrrp("MASTER", 150).replace("10.0.0.148", "192.0.2.7"));
    assert_eq!(status, Some(0), "{said}");
    assert!(
        said.contains("note: vrrp_instance VI_1: 192.0.2.7 is in no network of eth0"),
        "{said}"
    );
    lan.lb1.ip("link set eth0 down");
    let (status, said) = check(&vrrp("MASTER", 150));
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("eth0 is down"), "{said}");
}

fn differences() {
    let lan = Lan::new();
    let [old, new] = ["old", "new"].map(|name| lan.as_ref().join(name));
    write(&old, &service(80, "lb_algo rr", &[1, 1]));
    write(&new, &service(80, "lb_algo rr", &[1, 7]));
    let [old, new] = [&old, &new].map(|file| file.to_str().expect("the path is UTF-8"));
    let output = xvs(&lan.lb1, &["check", "-f", new, "--diff", old]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let changes = printed(&output);
    assert_eq!(changes.lines().count(), 1, "{changes}");
    assert!(changes.contains("weight 7 (was 1)"), "{changes}");
    let output = xvs(&lan.lb1, &["check", "-f", new, "--diff", new]);
    assert_eq!(printed(&output), "nothing is different\n");
    let output = xvs(&lan.lb1, &["check", "-f", new, "--diff", "/no/such/file"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

fn for_programs() {
    let lan = Lan::new();
    let file = lan.as_ref().join("json.conf");
    let text = vrrp("MASTER", 150).replace("1111", "S3cr3t");
    write(&file, &(text.clone() + ODD));
    let name = file.to_str().expect("the path is UTF-8");
    let check = || {
        let arguments = ["check", "-f", name, "--json", "--effective", "--diff", name];
        let output = xvs(&lan.lb1, &arguments);
        let text = printed(&output);
        assert!(
            output.stderr.is_empty() && !text.contains("S3cr3t"),
            "{output:?}"
        );
        let json: serde_json::Value =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        (output.status.code(), json)
    };
    let (status, json) = check();
    assert_eq!(status, Some(0), "{json}");
    assert_eq!(json["would_start"], true);
    assert_eq!((&json["errors"], &json["warnings"]), (&0.into(), &1.into()));
    let finding = &json["diagnostics"][0];
    assert_eq!(finding["severity"], "warning", "{json}");
    assert_eq!(finding["file"], name);
    assert_eq!(finding["line"], text.lines().count() + 2);
    assert!(
        json["effective"]
            .as_str()
            .is_some_and(|text| text.contains("vrrp_instance VI_1"))
    );
    assert_eq!(json["changes"], serde_json::json!([]));
    write(
        &file,
        &text.replace("virtual_router_id 51", "virtual_router_id 0"),
    );
    let output = xvs(&lan.lb1, &["check", "-f", name, "--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let json: serde_json::Value = serde_json::from_str(&printed(&output)).expect("it is JSON");
    assert_eq!(json["would_start"], false);
    assert_eq!(json["reason"], "the configuration has errors");
}

fn explained() {
    let lan = Lan::new();
    let output = xvs(&lan.lb1, &["check", "--explain", "advert_int"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = printed(&output);
    assert!(
        said.starts_with("advert_int in vrrp_instance: ") && said.contains("default 1 s"),
        "{said}"
    );
    let output = xvs(&lan.lb1, &["check", "--explain", "no_such_word"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
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
