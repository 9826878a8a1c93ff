//! xvs in the place of keepalived: its name, its options, its signals and files, and what a service manager is told.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        net::UnixDatagram,
    },
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use crate::{
    Test,
    support::{
        config::{service, vrrp},
        host::Host,
        lan::{Lan, VIP},
        process::{Process, has_ended, signal},
        secs, wait_for, wait_until,
        xvs::{Engine, PROGRAM, Xvs, write, xvs},
    },
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new(
            "cli::a_daemon_has_started_when_the_call_returns",
            daemonises,
        ),
        Test::new("cli::a_daemon_that_cannot_start_says_why", fails_to_start),
        Test::new(
            "cli::keepalived_has_its_files_where_others_look",
            usual_files,
        ),
        Test::new("cli::one_half_leaves_the_other_out", halves),
        Test::new("cli::a_network_namespace_is_entered_first", namespace),
        Test::new("cli::signals_write_files_without_passwords", signal_files),
        Test::new("cli::a_full_disk_costs_a_line_and_nothing_else", full_disk),
        Test::new(
            "cli::a_service_manager_hears_when_it_forwards",
            service_manager,
        ),
        Test::new("cli::small_questions_are_answered_at_once", small_questions),
    ]
}

/// What no box may start with: a virtual router without a number.
const BROKEN: &str = "vrrp_instance V {\n    interface eth0\n}\n";

/// The program under keepalived's name.
pub(crate) fn keepalived(lan: &Lan) -> PathBuf {
    let name = lan.as_ref().join("keepalived");
    symlink(PROGRAM, &name).unwrap_or_else(|e| panic!("{}: {e}", name.display()));
    name
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is UTF-8")
}

fn call(host: &Host, program: &Path, arguments: &[&str]) -> Output {
    host.output(text(program), arguments)
}

/// A configuration of both halves.
fn both() -> String {
    vrrp("MASTER", 254) + &service(80, "lb_algo rr", &[1, 1])
}

fn pid_in(file: &Path) -> u32 {
    let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    text.trim()
        .parse()
        .unwrap_or_else(|e| panic!("{text:?}: {e}"))
}

fn daemonises() {
    let lan = Lan::new();
    let place = |name: &str| lan.as_ref().join(name);
    write(&place("conf"), &both());
    let files = ["p", "r", "c"].map(place);
    // What a dead process has left.
    write(&files[0], "1\n");
    let [p, r, c] = files.each_ref().map(|file| text(file));
    let (conf, socket) = (place("conf"), place("sock"));
    let (conf, socket) = (text(&conf), text(&socket));
    let output = call(
        &lan.lb1,
        &keepalived(&lan),
        &[
            "-D", "-S", "0", "-f", conf, "--socket", socket, "-p", p, "-r", r, "-c", c,
        ],
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let pid = pid_in(&files[0]);
    for file in &files {
        assert_eq!(pid_in(file), pid);
        let mode = fs::metadata(file).map(|data| data.permissions().mode() & 0o777);
        assert_eq!(mode.ok(), Some(0o644), "{}", file.display());
    }
    // It forwards by now.
    assert!(lan.lb1.has_xdp(), "the call has returned too early");
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let link = |name: &str| fs::read_link(proc.join(name)).expect("the daemon runs");
    assert_eq!(link("cwd"), Path::new("/"));
    for standard in ["fd/0", "fd/1", "fd/2"] {
        assert_eq!(link(standard), Path::new("/dev/null"), "{standard}");
    }
    let status = fs::read_to_string(proc.join("stat")).expect("the daemon runs");
    // Behind the name: state, parent, group, session.
    let session = status
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.split(' ').nth(3));
    assert_eq!(session, Some(pid.to_string().as_str()), "{status}");
    wait_until("it is MASTER", secs(8), || lan.lb1.has_address(VIP));
    // A second one is told.
    let second = place("second.sock");
    let output = call(
        &lan.lb1,
        &place("keepalived"),
        &[
            "-f",
            conf,
            "--socket",
            text(&second),
            "-p",
            p,
            "-r",
            r,
            "-c",
            c,
        ],
    );
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&format!("names process {pid}")), "{said}");
    signal(pid, 15);
    wait_until("it has stopped", secs(6), || has_ended(pid));
    for file in &files {
        assert!(!file.exists(), "{} is left", file.display());
    }
    assert!(!lan.lb1.has_xdp() && !lan.lb1.has_address(VIP));
}

fn fails_to_start() {
    let lan = Lan::new();
    let place = |name: &str| lan.as_ref().join(name);
    let program = keepalived(&lan);
    let (conf, socket, pid) = (place("conf"), place("sock"), place("pid"));
    let arguments = [
        "-f",
        text(&conf),
        "--socket",
        text(&socket),
        "-p",
        text(&pid),
    ];
    let others = ["-r", text(&pid), "-c", text(&pid)];
    let arguments = [&arguments[..], &others].concat();
    for (config, status, why) in [
        (both().replace("eth0", "eth7"), 1, "eth7"),
        ("global_defs {\n}\n".to_owned(), 2, "neither"),
        (BROKEN.to_owned(), 2, "errors"),
    ] {
        write(&conf, &config);
        let output = call(&lan.lb1, &program, &arguments);
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(why), "{said}");
        assert!(!pid.exists());
    }
    wait_until("nothing of them is left", secs(2), || {
        lan.lb1.processes().is_empty()
    });
}

fn usual_files() {
    let lan = Lan::new();
    let conf = lan.as_ref().join("conf");
    write(&conf, &both());
    // A /run of its own: `ip netns exec` gives a mount namespace.
    let script = "mount -t tmpfs none /run && exec \"$@\"";
    let mut command = lan.lb1.command("sh");
    command.args(["-c", script, "sh"]).arg(keepalived(&lan));
    command.args(["-n", "-l", "-G", "-f", text(&conf)]);
    let mut process = Process::spawn("keepalived", &mut command, &lan.as_ref().join("log"));
    let id = process.id();
    let run = PathBuf::from(format!("/proc/{id}/root/run"));
    wait_until("it forwards", secs(8), || lan.lb1.has_xdp());
    for name in ["keepalived.pid", "vrrp.pid", "checkers.pid"] {
        assert_eq!(pid_in(&run.join(name)), id, "{name}");
    }
    wait_until("it listens", secs(5), || {
        run.join("xvs/control.sock").exists()
    });
    process.terminate();
    assert_eq!(process.wait(secs(6)).code(), Some(0));
}

fn halves() {
    let lan = Lan::new();
    let engine = Engine::AfPacket.arguments();
    let elects = Xvs::start_with(&lan, &lan.lb1, &both(), &[engine, &["-P"]].concat());
    elects.wait_for_master();
    assert_eq!(elects.list()["services"].as_array().map(Vec::len), Some(0));
    // A reload leaves it out as the start did.
    elects.reload(&both().replace("priority 254", "priority 253"), false);
    assert_eq!(elects.list()["services"].as_array().map(Vec::len), Some(0));
    elects.stop_unheard();
    lan.lb1.ip(&format!("addr add {VIP}/32 dev eth0"));
    let forwards = Xvs::start_with(&lan, &lan.lb1, &both(), &[engine, &["--check"]].concat());
    forwards.wait_until_ready();
    let shown: serde_json::Value =
        serde_json::from_str(&forwards.tell(&["vrrp", "--json"])).expect("it is JSON");
    assert_eq!(shown["instances"], serde_json::json!([]));
    assert_eq!(forwards.list()["services"][0]["steered"], true);
    forwards.terminate();
    wait_until("it has stopped", secs(6), || {
        has_ended(forwards.process_id())
    });
}

fn namespace() {
    let lan = Lan::new();
    // Started on another machine, of which it touches nothing.
    let engine = Engine::AfPacket.arguments();
    let name = lan.lb1.namespace();
    let named = format!("net_namespace {name}\n{}", both());
    for (config, arguments) in [
        (both(), [engine, &["-s", name]].concat()),
        (named, engine.to_vec()),
    ] {
        let lb = Xvs::start_with(&lan, &lan.client, &config, &arguments);
        wait_until("the VIP is where it belongs", secs(8), || {
            lan.lb1.has_address(VIP)
        });
        assert!(!lan.client.has_address(VIP));
        lb.stop_unheard();
        assert!(!lan.lb1.has_address(VIP));
    }
    let output = xvs(
        &lan.lb1,
        &["run", "-f", text(&lb_config(&lan)), "-s", "xvs-no-such"],
    );
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("xvs-no-such"));
}

fn lb_config(lan: &Lan) -> PathBuf {
    let file = lan.as_ref().join("other.conf");
    write(&file, &both());
    file
}

fn signal_files() {
    let lan = Lan::new();
    let config = both().replace("1111", "S3cr3t");
    let lb = Xvs::start(&lan, &lan.lb1, &config, Engine::AfPacket);
    lb.wait_for_master();
    let pid = lb.process_id();
    let get = |number, name: &str| {
        let path = lan.as_ref().join(name);
        let _ = fs::remove_file(&path);
        signal(pid, number);
        let what = format!("signal {number} has {name} written");
        let (found, _) = wait_for(&what, secs(5), || fs::read_to_string(&path).ok());
        let mode = fs::metadata(&path).map(|data| data.permissions().mode() & 0o777);
        assert_eq!(mode.ok(), Some(0o600));
        assert!(!found.contains("S3cr3t"), "{found}");
        found
    };
    let data = get(10, "keepalived.data");
    for line in [
        " VRRP Instance = VI_1",
        "   State = MASTER",
        "   Virtual Router ID = 51",
        " VS = [10.0.0.148]:TCP:80",
        "vrrp_instance VI_1 {",
    ] {
        assert!(
            data.lines().any(|found| found == line),
            "no {line:?} in\n{data}"
        );
    }
    let statistics = get(12, "keepalived.stats");
    assert!(statistics.contains("  Became master: 1\n"), "{statistics}");
    let json: serde_json::Value =
        serde_json::from_str(&get(36, "keepalived.json")).expect("it is JSON");
    let one = &json[0];
    for (name, value) in [("vrid", 51), ("state", 2), ("base_priority", 254)] {
        assert_eq!(one["data"][name], value, "{name}: {json}");
    }
    assert_eq!(
        one["data"]["vips"][0],
        "10.0.0.148 dev eth0 scope global set"
    );
    assert_eq!(one["stats"]["become_master"], 1);
    let mark = lb.mark();
    signal(pid, 63);
    lb.wait_for_line(mark, "set to zero", secs(5));
    let statistics = get(12, "keepalived.stats");
    assert!(statistics.contains("  Became master: 0\n"), "{statistics}");
    // Signals to the whole service are no business of the guardian's.
    let all = lan.lb1.processes();
    assert!(all.len() >= 2, "the guardian has gone");
    for process in all {
        for number in [10, 12, 36, 63] {
            signal(process, number);
        }
    }
    assert_eq!(
        get(12, "keepalived.stats").lines().next(),
        Some("VRRP Instance: VI_1")
    );
    assert!(lan.lb1.processes().len() >= 2, "the guardian has gone");
    lb.stop();
}

fn full_disk() {
    let lan = Lan::new();
    let conf = lan.as_ref().join("conf");
    write(&conf, &both());
    let small = lan.as_ref().join("small");
    fs::create_dir(&small).expect("a folder of the test can be made");
    // Four pages, one of which the lock file takes.
    let script = "mount -t tmpfs -o size=16k none \"$0\" && head -c 12288 /dev/zero > \"$0/full\" && exec \"$@\"";
    let mut command = lan.lb1.command("sh");
    command
        .arg("-c")
        .arg(script)
        .arg(&small)
        .args([PROGRAM, "run", "-f", text(&conf)]);
    command
        .arg("--socket")
        .arg(small.join("sock"))
        .args(Engine::AfPacket.arguments());
    let mut process = Process::spawn("xvs", &mut command, &lan.as_ref().join("log"));
    process.wait_for_line(0, "Entering MASTER STATE", secs(8));
    let mark = process.mark();
    signal(process.id(), 10);
    process.wait_for_line(mark, "keepalived.data: No space left on device", secs(5));
    let folder = PathBuf::from(format!("/proc/{}/root", process.id()));
    let inside = folder.join(small.strip_prefix("/").expect("the path is absolute"));
    let left: Vec<_> = fs::read_dir(&inside)
        .expect("the folder is there")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("keepalived"))
        .collect();
    assert!(left.is_empty(), "half a file is left: {left:?}");
    process.terminate();
    assert_eq!(process.wait(secs(6)).code(), Some(0));
}

/// What a service manager has heard so far.
fn heard(manager: &UnixDatagram, all: &mut Vec<String>) {
    let mut room = [0; 1024];
    while let Ok(count) = manager.recv(&mut room) {
        let text = String::from_utf8_lossy(&room[..count]);
        all.extend(text.lines().map(str::to_owned));
    }
}

fn service_manager() {
    let lan = Lan::new();
    let path = lan.as_ref().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket of the test can be made");
    manager
        .set_nonblocking(true)
        .expect("a socket can be asked");
    let environment = [
        ("NOTIFY_SOCKET", path.as_path()),
        ("WATCHDOG_USEC", Path::new("400000")),
    ];
    let arguments = Engine::AfXdp.arguments();
    let lb = Xvs::start_in(
        &lan,
        &lan.lb1,
        &both(),
        arguments,
        "exec \"$@\"",
        &environment,
    );
    let mut all = Vec::new();
    let mut wait_for_word = |word: &str, from: usize, limit: Duration| {
        let what = format!("the manager hears {word}");
        wait_for(&what, limit, || {
            heard(&manager, &mut all);
            let found = all
                .iter()
                .skip(from)
                .position(|line| line.starts_with(word));
            found.map(|at| (from + at, all[from + at].clone()))
        })
        .0
    };
    let (ready, _) = wait_for_word("READY=1", 0, secs(8));
    assert!(lan.lb1.has_xdp(), "it does not forward yet");
    lb.wait_for_master();
    wait_for_word(
        "STATUS=MASTER of 1 of 1 VRRP instances, 1 virtual servers",
        0,
        secs(3),
    );
    for _ in 0..2 {
        let (at, _) = wait_for_word("WATCHDOG=1", ready, secs(3));
        wait_for_word("WATCHDOG=1", at + 1, secs(3));
    }
    lb.reload(&both().replace("weight 1", "weight 2"), true);
    let (reloading, _) = wait_for_word("RELOADING=1", ready, secs(3));
    let (stamp, line) = wait_for_word("MONOTONIC_USEC=", reloading, secs(3));
    assert_eq!(stamp, reloading + 1, "one datagram has both");
    let stamp: u64 = line["MONOTONIC_USEC=".len()..].parse().expect("a number");
    assert!(stamp > 0);
    wait_for_word("READY=1", reloading, secs(3));
    // One that is refused is over, too.
    lb.write(BROKEN);
    assert!(!lb.ask(&["reload"]).status.success());
    let (again, _) = wait_for_word("RELOADING=1", reloading + 1, secs(3));
    wait_for_word("READY=1", again, secs(3));
    lb.stop();
    wait_for_word("STOPPING=1", again, secs(3));
}

fn small_questions() {
    let lan = Lan::new();
    let program = keepalived(&lan);
    for (arguments, status, out, err) in [
        (&["--signum=STATS_CLEAR"][..], 0, "63\n", ""),
        (&["--signum=JSON"], 0, "36\n", ""),
        (&["--signum=NONE"], 2, "", "NONE"),
        (&["-v"], 0, "", "xvs "),
        (&["--version"], 0, "", "xvs "),
        (&["--no-such-option"], 2, "", "--no-such-option"),
        (&["-t", "-f", "/no/such/file"], 2, "", "/no/such/file"),
    ] {
        let output = call(&lan.lb1, &program, arguments);
        assert_eq!(
            output.status.code(),
            Some(status),
            "{arguments:?}: {output:?}"
        );
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            out,
            "{arguments:?}"
        );
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(err), "{arguments:?}: {said}");
    }
    let file = lan.as_ref().join("wrong.conf");
    write(&file, BROKEN);
    let report = lan.as_ref().join("report");
    let option = format!("-t={}", text(&report));
    let output = call(&lan.lb1, &program, &[&option, "-f", text(&file), "-R"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let written = fs::read_to_string(&report).expect("the report was written");
    assert!(
        written.contains("wrong.conf:1:") && written.contains("would not start"),
        "{written}"
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        said.matches("--dont-respawn has no effect here").count(),
        1,
        "{said}"
    );
}
