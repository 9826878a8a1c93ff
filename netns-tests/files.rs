//! Files that the configuration names, and what tells daemons of one machine apart.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use crate::{
    Test,
    support::{
        config::{service, vrrp},
        host::{run, tool},
        lan::{Lan, VIP},
        process::{Process, signal},
        secs, wait_for, wait_until,
        xvs::{Engine, PROGRAM, Xvs, write, xvs},
    },
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new(
            "cli::daemons_of_one_machine_have_files_of_their_own",
            several_daemons,
        ),
        Test::new("cli::dumps_go_where_the_configuration_says", dumps),
        Test::new("cli::a_reload_waits_for_its_time", timed_reload),
        Test::new("cli::virtual_addresses_stay_if_asked_to", kept_addresses),
        Test::new("cli::changes_of_addresses_are_logged_if_asked_to", changes),
        Test::new("cli::all_files_have_to_be_there_if_asked_to", all_files),
    ]
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is UTF-8")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn mode(path: &Path) -> u32 {
    let data = fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    data.permissions().mode() & 0o777
}

/// What is in the folder, by name.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn several_daemons() {
    let lan = Lan::new();
    let place = |name: &str| lan.as_ref().join(name);
    let program = place("keepalived");
    symlink(PROGRAM, &program).unwrap_or_else(|e| panic!("{}: {e}", program.display()));
    let second = vrrp("BACKUP", 100)
        .replace("VI_1", "VI_2")
        .replace("51", "52")
        .replace(&VIP.to_string(), "10.0.0.149");
    write(
        &place("foo.conf"),
        &format!("instance foo\n{}", vrrp("BACKUP", 100)),
    );
    write(&place("named.conf"), &second);
    fs::create_dir(place("netns")).expect("a folder of the test can be made");
    // A /run of their own, but for the names of network namespaces; then one behind the other.
    let script = "mount --rbind /run/netns \"$0/netns\" && mount -t tmpfs none /run && mkdir /run/netns && \
                  mount --rbind \"$0/netns\" /run/netns || exit 1; \
                  \"$1\" -nlGP -f \"$0/foo.conf\" & \
                  while ! [ -e /run/xvs/instance/foo/control.sock ]; do sleep 0.05; done; \
                  exec \"$1\" -nlGP -f \"$0/named.conf\" -s \"$2\"";
    let mut command = lan.lb1.command("sh");
    let name = lan.lb1.namespace();
    command.args(["-c", script, text(lan.as_ref()), text(&program), name]);
    let mut named = Process::spawn("keepalived", &mut command, &place("log"));
    let run = PathBuf::from(format!("/proc/{}/root/run", named.id()));
    let socket = run.join("xvs/netns").join(name).join("control.sock");
    wait_until("both listen", secs(10), || socket.exists());
    wait_until("both have their files", secs(5), || {
        run.join("keepalived").join(name).exists()
    });
    let pid = |path: PathBuf| read(&path).trim().parse::<u32>().expect("a process id");
    let folder = run.join("keepalived");
    assert_eq!(
        names(&folder),
        [
            "checkers_foo.pid",
            "keepalived_foo.pid",
            "vrrp_foo.pid",
            name
        ]
        .map(str::to_owned)
        .to_vec()
    );
    let first = pid(folder.join("keepalived_foo.pid"));
    for part in ["keepalived", "vrrp", "checkers"] {
        let own = folder.join(name).join(format!("{part}.pid"));
        assert_eq!(pid(own), named.id());
        assert_eq!(pid(folder.join(format!("{part}_foo.pid"))), first);
    }
    assert_ne!(first, named.id());
    named.wait_for_line(0, "Starting Keepalived (xvs ", secs(5));
    signal(first, 15);
    wait_until("the files of the one are gone", secs(6), || {
        names(&folder) == [name]
    });
    assert!(socket.exists());
    let mark = named.mark();
    named.terminate();
    assert_eq!(named.wait(secs(6)).code(), Some(0));
    named.wait_for_line(mark, "Stopped Keepalived (xvs ", secs(1));
    wait_until("nothing of them is left", secs(3), || {
        lan.lb1.processes().is_empty()
    });
}

/// A configuration of both halves with these lines in `global_defs`.
fn with(lines: &str) -> String {
    let both = vrrp("MASTER", 254) + &service(80, "lb_algo rr", &[1]);
    format!("global_defs {{\n{lines}\n}}\n{both}").replace("1111", "S3cr3t")
}

fn dumps() {
    let lan = Lan::new();
    let place = |name: &str| lan.as_ref().join(name);
    let [state, statistics, json, saved] = ["state", "statistics", "json", "saved"].map(place);
    let precious = place("precious");
    write(&precious, "precious");
    symlink(&precious, &state).expect("a link of the test can be made");
    let lines = format!(
        "state_dump_file {}\nstats_dump_file {}\njson_dump_file {}\njson_version 2\nconfig_save_dir {}",
        text(&state),
        text(&statistics),
        text(&json),
        text(&saved)
    );
    let lb = Xvs::start(&lan, &lan.lb1, &with(&lines), Engine::AfPacket);
    lb.wait_for_master();
    let pid = lb.process_id();
    let ask = |number, path: &Path| {
        let mark = lb.mark();
        signal(pid, number);
        lb.wait_for_line(mark, &format!("wrote {}", path.display()), secs(5));
        let found = read(path);
        assert_eq!(mode(path), 0o600, "{}", path.display());
        assert!(!found.contains("S3cr3t"), "{found}");
        found
    };
    assert!(ask(10, &state).contains(" VRRP Instance = VI_1\n"));
    assert_eq!(read(&precious), "precious", "a link was followed");
    assert!(ask(12, &statistics).contains("  Became master: 1\n"));
    let found: serde_json::Value = serde_json::from_str(&ask(36, &json)).expect("it is JSON");
    let data = &found["vrrp"][0]["data"];
    assert_eq!(data["master_priority"], 0, "{found}");
    assert_eq!(data["auth_data"], "****");
    assert_eq!(data["vips"][0], format!("{VIP} dev eth0 scope global set"));

    // What runs is kept, and what is refused is not.
    let kept = |number| saved.join(format!("keepalived.conf.{pid}.{number}"));
    lb.reload(&with(&lines).replace("priority 254", "priority 253"), false);
    let (second, _) = wait_for("the second configuration is kept", secs(5), || {
        fs::read_to_string(kept(1)).ok()
    });
    assert!(second.contains("priority 253"), "{second}");
    let first = read(&kept(0));
    assert!(
        first.contains("priority 254") && !first.contains("S3cr3t"),
        "{first}"
    );
    assert_eq!((mode(&saved), mode(&kept(0))), (0o700, 0o600));
    lb.write("vrrp_instance V {\n}\n");
    assert!(!lb.ask(&["reload"]).status.success());
    assert_eq!(names(&saved).len(), 2);

    // What is not to be replaced, and what cannot be made, costs a line.
    let lines =
        "state_dump_file /dev/null\nstats_dump_file /no/such/file\nconfig_save_dir /no/such/folder";
    let mark = lb.mark();
    lb.reload(&with(lines), false);
    signal(pid, 10);
    lb.wait_for_line(mark, "writing /dev/null: is no file", secs(5));
    signal(pid, 12);
    lb.wait_for_line(mark, "writing /no/such/file: No such file", secs(5));
    lb.wait_for_line(mark, "writing /no/such/folder/keepalived.conf.", secs(5));
    assert_eq!(
        lan.lb1.output("test", &["-c", "/dev/null"]).status.code(),
        Some(0)
    );
    lb.stop();
}

/// The time in so many seconds, as `date` writes it.
fn time_in(seconds: i64, format: &str) -> String {
    let then = format!("{seconds:+} seconds");
    let mut command = tool("date");
    run(command.args(["-u", "-d", &then, format]))
}

fn timed_reload() {
    let lan = Lan::new();
    let [time, reading] = ["time", "reading"].map(|name| lan.as_ref().join(name));
    let lines = format!(
        "reload_time_file {}\nreload_file {}",
        text(&time),
        text(&reading)
    );
    let lb = Xvs::start(&lan, &lan.lb1, &with(&lines), Engine::AfPacket);
    lb.wait_for_master();
    let mark = lb.mark();
    write(&time, &time_in(3600, "+%Y-%m-%d %H:%M:%SZ"));
    lb.wait_for_line(mark, "Scheduling reload for ", secs(5));
    fs::remove_file(&time).expect("the file is there");
    lb.wait_for_line(mark, "Cancelling reload scheduled for ", secs(5));
    lb.write(&with(&lines).replace("priority 254", "priority 253"));
    write(&reading, "somebody writes the configuration");
    let mark = lb.mark();
    write(&time, &time_in(2, "+%H:%M:%SZ"));
    lb.wait_for_line(mark, "priority 253 (was 254)", secs(8));
    lb.wait_for_line(mark, "reload: done", secs(5));
    assert!(!time.exists(), "it would count again tomorrow");
    assert!(!reading.exists(), "all is read");
    write(&time, "soon\n");
    lb.wait_for_line(mark, "\"soon\" is no time for a reload", secs(5));
    lb.stop();
}

fn kept_addresses() {
    let lan = Lan::new();
    let config = with("");
    let arguments = [Engine::AfXdp.arguments(), &["-V"]].concat();
    let lb = Xvs::start_with(&lan, &lan.lb1, &config, &arguments);
    lb.wait_for_master();
    let mark = lb.mark();
    lb.terminate();
    wait_until("it and its guardian have ended", secs(6), || {
        lan.lb1.processes().is_empty()
    });
    assert!(lan.lb1.has_address(VIP), "the address has gone");
    let log = lb.log();
    let said = &log[mark..];
    assert!(
        !said.contains("sent 0 priority") && !said.contains("removing VIPs."),
        "{said}"
    );
    assert!(!lan.lb1.has_xdp(), "the steering program is left");
    // The next one is BACKUP at first, and has it no more.
    let lb = Xvs::start(&lan, &lan.lb1, &config, Engine::AfXdp);
    lb.wait_for_line(0, "from eth0: an earlier run left it", secs(8));
    lb.wait_for_line(0, "(VI_1) Entering MASTER STATE", secs(8));
    lb.stop();
}

fn changes() {
    let lan = Lan::new();
    let arguments = [Engine::AfPacket.arguments(), &["-a"]].concat();
    let lb = Xvs::start_with(&lan, &lan.lb1, &with(""), &arguments);
    let reports = "Netlink reflector reports IP";
    lb.wait_for_line(0, &format!("{reports} {VIP} added to eth0"), secs(8));
    let mark = lb.mark();
    lan.lb1.ip("addr add 10.0.0.77/32 dev eth0");
    lb.wait_for_line(mark, &format!("{reports} 10.0.0.77 added to eth0"), secs(5));
    lan.lb1.ip("addr del 10.0.0.77/32 dev eth0");
    lb.wait_for_line(
        mark,
        &format!("{reports} 10.0.0.77 removed from eth0"),
        secs(5),
    );
    lb.stop();
}

fn all_files() {
    let lan = Lan::new();
    let config = lan.as_ref().join("conf");
    write(&config, &format!("include none/*.conf\n{}", with("")));
    let test = |flags: &[&str]| {
        let arguments = [&["run", "-f", text(&config)], flags].concat();
        let output = xvs(&lan.lb1, &arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    assert_eq!(test(&["-t"]).0, Some(0));
    for (flags, refused) in [(&["-t", "-e"][..], 1), (&["-e"], 2), (&["--all-config"], 2)] {
        let (status, said) = test(flags);
        assert_eq!(status, Some(refused), "{flags:?}: {said}");
        assert!(said.contains("error: no file matches"), "{said}");
    }
}
