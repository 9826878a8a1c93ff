//! What `global_defs` says about the process itself: how it is scheduled, and the scripts around its life.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use crate::{
    Test,
    as_keepalived::keepalived,
    support::{
        config::{service, vrrp},
        host::Host,
        lan::{Lan, VIP},
        process::{Process, has_ended, signal},
        secs, wait_until,
        xvs::{Engine, PROGRAM, Xvs, write, xvs},
    },
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new(
            "process::scripts_run_before_the_start_and_after_the_stop",
            scripts,
        ),
        Test::new(
            "process::a_script_that_fails_or_hangs_costs_a_line",
            failing_scripts,
        ),
        Test::new(
            "process::a_stop_does_not_wait_for_a_startup_script",
            stopped_early,
        ),
        Test::new(
            "process::a_start_that_fails_is_followed_by_the_shutdown_script",
            failed_start,
        ),
        Test::new("process::a_daemon_has_its_scripts_as_well", daemon_scripts),
        Test::new(
            "process::a_script_that_others_can_change_is_warned_about",
            insecure,
        ),
        Test::new(
            "process::the_control_thread_is_scheduled_as_it_is_told",
            scheduled,
        ),
        Test::new(
            "process::what_the_kernel_refuses_is_said_and_it_goes_on",
            refused,
        ),
        Test::new("process::a_late_timer_raises_the_priority", late).alone(),
        Test::new(
            "process::too_much_work_in_real_time_is_done_as_others_do_it",
            too_much_work,
        ),
    ]
}

/// A configuration with lines of `global_defs`.
fn config(lines: &str) -> String {
    let both = vrrp("MASTER", 254) + &service(80, "lb_algo rr", &[1]);
    format!("global_defs {{\n{lines}\n}}\n{both}")
}

/// An executable file of the test.
fn script(lan: &Lan, name: &str, text: &str) -> PathBuf {
    let path = lan.as_ref().join(name);
    write(&path, text);
    mode(&path, 0o755);
    path
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn start<'a>(lan: &'a Lan, config: &str) -> Xvs<'a> {
    Xvs::start(lan, &lan.lb1, config, Engine::AfPacket)
}

/// What a script sees, written to the file that its first argument names.
const TELLS: &str = "#!/bin/sh
{
    echo \"arguments $#: $2\"
    echo \"group $(ps -o pgid= -p $$ | tr -d ' ') process $$\"
    echo \"nice $(nice)\"
    grep Cpus_allowed_list /proc/self/status
    env | grep -c -E '^(LD_PRELOAD|LD_LIBRARY_PATH|IFS)='
    ip -o addr show dev eth0 | grep -c 10.0.0.148
    test -S \"$3\" && echo listens
} > \"$1\" 2>&1
exit 0
";

fn scripts() {
    let lan = Lan::new();
    let tells = script(&lan, "tells", TELLS);
    let (first, last) = (lan.as_ref().join("first"), lan.as_ref().join("last"));
    let socket = lan.as_ref().join("lb1.sock");
    let call = |out: &Path| {
        format!(
            "\"{} {} 'b c' {}\"",
            tells.display(),
            out.display(),
            socket.display()
        )
    };
    let lines = format!(
        "startup_script {}\nshutdown_script {}\nscript_user root\nenable_script_security\n\
         vrrp_priority -3\nvrrp_cpu_affinity 0",
        call(&first),
        call(&last),
    );
    let nowhere = Path::new("/no/such/folder");
    let lb = Xvs::start_in(
        &lan,
        &lan.lb1,
        &config(&lines),
        Engine::AfPacket.arguments(),
        "exec \"$@\"",
        &[("LD_LIBRARY_PATH", nowhere)],
    );
    lb.wait_for_line(0, "startup_script has succeeded", secs(8));
    lb.wait_for_master();
    assert_eq!(lb.socket(), socket);
    let own = fs::read_to_string("/proc/self/status").expect("this process has a status");
    let cpus = own
        .lines()
        .find(|line| line.starts_with("Cpus_allowed_list"))
        .expect("a status names processors")
        .to_owned();
    let check = |out: &Path| {
        let said = read(out);
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[0], "arguments 3: b c", "{said}");
        let [_, group, _, process] = lines[1].split(' ').collect::<Vec<_>>()[..] else {
            panic!("{said}");
        };
        assert_eq!(group, process, "{said}");
        // However the control thread is scheduled.
        assert_eq!(lines[2..4], ["nice 0", &cpus], "{said}");
        // No variable, no address, no socket: before everything, and after.
        assert_eq!(lines[4..], ["0", "0"], "{said}");
    };
    check(&first);
    assert!(!last.exists());
    let log = lb.log();
    let at = |text: &str| {
        log.find(text)
            .unwrap_or_else(|| panic!("no {text:?} in\n{log}"))
    };
    assert!(at("startup_script has succeeded") < at("packet I/O"));
    lb.stop_unheard();
    check(&last);
}

fn failing_scripts() {
    let lan = Lan::new();
    let fails = script(&lan, "fails", "#!/bin/sh\nexit 3\n");
    let hangs = script(&lan, "hangs", "#!/bin/sh\nsleep 600 &\nwait\n");
    let (fails, hangs) = (fails.display(), hangs.display());
    let lines = format!(
        "script_user root\nstartup_script {hangs}\nstartup_script_timeout 1\nshutdown_script {fails}"
    );
    let lb = start(&lan, &config(&lines));
    lb.wait_for_line(
        0,
        "startup_script has not ended within 1 s and was killed",
        secs(8),
    );
    lb.wait_for_master();
    // It is the file of now that counts at the stop.
    let lines = format!("script_user root\nshutdown_script {hangs}\nshutdown_script_timeout 1");
    lb.reload(&config(&lines), true);
    let pid = lb.process_id();
    lb.terminate();
    lb.wait_for_line(
        0,
        "shutdown_script has not ended within 1 s and was killed",
        secs(8),
    );
    wait_until("it has stopped", secs(3), || has_ended(pid));
    drop(lb);
    let lines = format!("startup_script {fails}\nshutdown_script /no/such/script");
    let lb = start(&lan, &config(&lines));
    lb.wait_for_line(0, "startup_script has failed", secs(8));
    let log = lb.log();
    assert!(log.contains("exit status 3"), "{log}");
    let why = "shutdown_script is not run: /no/such/script cannot be run: No such file";
    assert!(log.contains(why), "{log}");
    lb.wait_for_master();
    lb.stop_unheard();
    wait_until("nothing of them is left", secs(2), || {
        lan.lb1.processes().is_empty()
    });
}

/// Runs the program in the foreground until somebody ends it.
fn spawn(lan: &Lan, config: &str) -> Process {
    let conf = lan.as_ref().join("conf");
    write(&conf, config);
    let mut command = lan.lb1.command(PROGRAM);
    command.arg("run").arg("-f").arg(&conf);
    command.arg("--socket").arg(lan.as_ref().join("sock"));
    command.args(Engine::AfPacket.arguments());
    Process::spawn("xvs", &mut command, &lan.as_ref().join("log"))
}

fn stopped_early() {
    let lan = Lan::new();
    let begun = lan.as_ref().join("begun");
    let text = format!("#!/bin/sh\nsleep 600 &\ntouch {}\nwait\n", begun.display());
    let hangs = script(&lan, "hangs", &text);
    let undone = lan.as_ref().join("undone");
    let undoes = script(
        &lan,
        "undoes",
        &format!("#!/bin/sh\ntouch {}\n", undone.display()),
    );
    let lines = format!(
        "script_user root\nstartup_script {}\nstartup_script_timeout 300\nshutdown_script {}",
        hangs.display(),
        undoes.display()
    );
    let mut process = spawn(&lan, &config(&lines));
    wait_until("the script runs", secs(8), || begun.exists());
    process.terminate();
    assert_eq!(process.wait(secs(5)).code(), Some(1));
    assert!(process.log().contains("told to stop before it had started"));
    assert!(undone.exists(), "what it began was not undone");
    wait_until("nothing of them is left", secs(2), || {
        lan.lb1.processes().is_empty()
    });
}

fn failed_start() {
    let lan = Lan::new();
    let undone = lan.as_ref().join("undone");
    let undoes = script(
        &lan,
        "undoes",
        &format!("#!/bin/sh\ntouch {}\n", undone.display()),
    );
    let lines = format!("script_user root\nshutdown_script {}", undoes.display());
    let mut process = spawn(&lan, &config(&lines).replace("eth0", "eth7"));
    assert_eq!(process.wait(secs(8)).code(), Some(1));
    assert!(undone.exists());
    // A second one that must not start at all touches nothing.
    let first = start(&lan, &config(""));
    first.wait_for_master();
    fs::remove_file(&undone).unwrap_or_else(|e| panic!("{}: {e}", undone.display()));
    let conf = lan.as_ref().join("second");
    write(&conf, &config(&lines));
    let socket = first.socket().to_str().expect("the path is UTF-8");
    let conf = conf.to_str().expect("the path is UTF-8");
    let output = xvs(&lan.lb1, &["run", "-f", conf, "--socket", socket]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(!undone.exists(), "its script ran");
    first.stop_unheard();
}

fn daemon_scripts() {
    let lan = Lan::new();
    let [first, last] = ["first", "last"].map(|name| lan.as_ref().join(name));
    let touches = |name: &str, out: &Path| {
        let text = format!("#!/bin/sh\ntouch {}\n", out.display());
        script(&lan, name, &text).display().to_string()
    };
    let lines = format!(
        "script_user root\nstartup_script {}\nshutdown_script {}",
        touches("begins", &first),
        touches("ends", &last)
    );
    let place = |name: &str| lan.as_ref().join(name).display().to_string();
    write(Path::new(&place("conf")), &config(&lines));
    let (conf, socket, pid) = (place("conf"), place("sock"), place("pid"));
    let others = place("others");
    let program = keepalived(&lan).display().to_string();
    let arguments = ["-f", &conf, "--socket", &socket, "-p", &pid];
    let arguments = [&arguments[..], &["-r", &others, "-c", &others, "-G"]].concat();
    let output = lan.lb1.output(&program, &arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(first.exists() && !last.exists());
    let text = read(Path::new(&pid));
    let number = text.trim().parse().expect("a process id is a number");
    signal(number, 15);
    wait_until("it has stopped", secs(6), || has_ended(number));
    assert!(last.exists());
}

fn insecure() {
    let lan = Lan::new();
    let ran = lan.as_ref().join("ran");
    let open = script(
        &lan,
        "open",
        &format!("#!/bin/sh\ntouch {}\n", ran.display()),
    );
    mode(&open, 0o757);
    let weak = format!("others than root can change {}", open.display());
    let without = format!("startup_script {}", open.display());
    for (lines, runs, said) in [
        (
            without.clone(),
            true,
            format!("startup_script: {weak}, and it runs as root"),
        ),
        (
            format!("script_user root\nenable_script_security\n{without}"),
            false,
            format!("startup_script is not run: {weak}"),
        ),
    ] {
        let _ = fs::remove_file(&ran);
        let lb = start(&lan, &config(&lines));
        lb.wait_for_master();
        assert_eq!(ran.exists(), runs, "{}", lb.log());
        assert!(lb.log().contains(&said), "{}", lb.log());
        let conf = lb.config();
        let conf = conf.to_str().expect("the path is UTF-8");
        let output = xvs(&lan.lb1, &["check", "-f", conf, "--on-this-host"]);
        // A box that starts is not refused by a check.
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let checked = String::from_utf8_lossy(&output.stderr);
        assert!(checked.contains(&weak), "{checked}");
        lb.stop_unheard();
    }
}

/// A field of `/proc/PID/task/TID/stat`, as proc(5) numbers them.
fn stat(pid: u32, thread: u32, field: usize) -> i64 {
    let text = read(&PathBuf::from(format!("/proc/{pid}/task/{thread}/stat")));
    let (_, behind) = text.rsplit_once(") ").expect("a stat has a name");
    let word = behind
        .split(' ')
        .nth(field - 3)
        .expect("a stat has that field");
    word.parse()
        .unwrap_or_else(|_| panic!("{word:?} in {text}"))
}

/// Nice value, real-time priority, and policy of a thread.
fn scheduling(pid: u32, thread: u32) -> (i64, i64, i64) {
    (
        stat(pid, thread, 19),
        stat(pid, thread, 40),
        stat(pid, thread, 41),
    )
}

fn status(pid: u32, thread: u32, name: &str) -> String {
    let text = read(&PathBuf::from(format!("/proc/{pid}/task/{thread}/status")));
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {text}"))
        .trim()
        .to_owned()
}

/// The threads of a process beside its main thread.
fn others(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let ids = threads.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter(|id| *id != pid).collect()
}

fn work_limit(pid: u32) -> String {
    let text = read(&PathBuf::from(format!("/proc/{pid}/limits")));
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max realtime timeout"));
    let line = line.expect("the kernel knows the limit");
    line.split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned()
}

const OTHER: i64 = 0;
const ROUND_ROBIN: i64 = 2;

fn scheduled() {
    let lan = Lan::new();
    let all = "vrrp_priority -5\nvrrp_rt_priority 10\nvrrp_rlimit_rttime 900000\n\
               vrrp_cpu_affinity 0\nvrrp_no_swap";
    // Virtual servers come with the reload: the workers are started by a thread that runs unlike them.
    let instance = vrrp("MASTER", 254);
    let lb = start(&lan, &format!("global_defs {{\n{all}\n}}\n{instance}"));
    lb.wait_for_master();
    let pid = lb.process_id();
    let cpus = status(std::process::id(), std::process::id(), "Cpus_allowed_list");
    assert_eq!(scheduling(pid, pid), (-5, 10, ROUND_ROBIN));
    assert_eq!(status(pid, pid, "Cpus_allowed_list"), "0");
    assert_ne!(status(pid, pid, "VmLck"), "0 kB");
    assert_eq!(work_limit(pid), "900000");
    lb.reload(&config(all), false);
    lb.wait_until_ready();
    let workers = others(pid);
    assert!(!workers.is_empty(), "no worker");
    for worker in workers {
        assert_eq!(scheduling(pid, worker), (0, 0, OTHER));
        assert_eq!(status(pid, worker, "Cpus_allowed_list"), cpus);
    }
    lb.reload(&config(""), true);
    assert_eq!(scheduling(pid, pid), (0, 0, OTHER));
    assert_eq!(status(pid, pid, "Cpus_allowed_list"), cpus);
    assert_eq!(status(pid, pid, "VmLck"), "0 kB");
    assert_eq!(work_limit(pid), "unlimited");
    lb.reload(&config("vrrp_priority 5\nvrrp_rt_priority 3"), true);
    assert_eq!(scheduling(pid, pid), (5, 3, ROUND_ROBIN));
    assert_eq!(work_limit(pid), "10000");
    lb.stop_unheard();
}

fn refused() {
    let lan = Lan::new();
    let lines = "vrrp_priority -5\nvrrp_rt_priority 10\nvrrp_cpu_affinity 1023";
    let lb = Xvs::start_in(
        &lan,
        &lan.lb1,
        &config(lines),
        Engine::AfPacket.arguments(),
        "exec setpriv --bounding-set=-sys_nice --inh-caps=-sys_nice \"$@\"",
        &[],
    );
    lb.wait_for_master();
    let log = lb.log();
    for line in [
        "vrrp_priority is not applied: Permission denied",
        "vrrp_rt_priority is not applied: Operation not permitted",
        "vrrp_cpu_affinity is not applied: Invalid argument",
    ] {
        assert!(log.contains(line), "no {line:?} in\n{log}");
    }
    assert_eq!(scheduling(lb.process_id(), lb.process_id()), (0, 0, OTHER));
    lb.stop_unheard();
}

fn late() {
    let lan = Lan::new();
    let lines = "max_auto_priority 2\nmin_auto_priority_delay 100000";
    let lb = start(&lan, &config(lines));
    lb.wait_for_master();
    let pid = lb.process_id();
    assert_eq!(scheduling(pid, pid), (0, 0, OTHER));
    for (priority, raised) in [(1, true), (2, true), (2, false)] {
        let mark = lb.mark();
        // Longer than an interval between two adverts, and what may be late.
        lb.while_paused(|| thread::sleep(Duration::from_millis(1_500)));
        if raised {
            let line = format!("real-time priority {priority} from now on");
            lb.wait_for_line(mark, &line, secs(3));
        } else {
            // It answers, so it has turned since.
            lb.list();
            assert!(!lb.log()[mark..].contains("real-time priority"));
        }
        assert_eq!(scheduling(pid, pid), (0, priority, ROUND_ROBIN));
    }
    // What has risen stays for as long as the same is asked for.
    lb.reload(&config(&format!("{lines}\nvrrp_priority -1")), true);
    assert_eq!(scheduling(pid, pid), (-1, 2, ROUND_ROBIN));
    lb.reload(&config("vrrp_priority -1"), true);
    assert_eq!(scheduling(pid, pid), (-1, 0, OTHER));
    lb.stop_unheard();
}

fn too_much_work() {
    let lan = Lan::new();
    let lines = "vrrp_rt_priority 10\nvrrp_rlimit_rttime 2";
    let lb = start(&lan, &config(lines));
    lb.wait_for_master();
    let mut many = config(lines);
    for port in 1_000..4_000 {
        many += &service(port, "lb_algo rr", &[1]);
    }
    lb.reload(&many, true);
    lb.wait_for_line(
        0,
        "worked for more than 2 microseconds in real time",
        secs(10),
    );
    let pid = lb.process_id();
    // It did not end, and runs in real time again.
    wait_until("it runs in real time", secs(5), || {
        scheduling(pid, pid) == (0, 10, ROUND_ROBIN)
    });
    assert!(lan.lb1.has_address(VIP));
    assert_running(&lan.lb1, pid);
    lb.terminate();
    wait_until("it has stopped", secs(10), || has_ended(pid));
}

fn assert_running(host: &Host, pid: u32) {
    assert!(host.processes().contains(&pid), "process {pid} has ended");
}
