//! The log where people have it: in files of their syslog daemon, by its rules, and in a file of its own.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    Test,
    support::{
        client::get,
        config::{checked, service, virtual_server, vrrp},
        host::tool,
        lan::{CLIENT, Lan, REALS, VIP},
        process::Process,
        secs, wait_until,
        web::WebServer,
        xvs::{Engine, Xvs},
    },
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new(
            "logs::rules_for_keepalived_s_lines_in_rsyslog_take_ours",
            by_rsyslog,
        ),
        Test::new(
            "logs::a_full_file_a_moved_one_and_a_closed_standard_error_are_survived",
            in_a_file,
        ),
        Test::new(
            "logs::hundreds_of_real_servers_that_fail_at_once_are_counted",
            storm,
        ),
    ]
}

/// How long a box may take to become master: how fast it starts is not the point here.
const START: Duration = secs(20);

/// A syslog daemon with rules as users have them.
struct Rsyslog {
    process: Process,
    folder: PathBuf,
}

impl Rsyslog {
    /// Where it listens.
    fn socket(folder: &Path) -> PathBuf {
        folder.join("dev-log")
    }

    fn start(folder: &Path) -> Self {
        let (place, socket) = (folder.display(), Self::socket(folder));
        let rules = format!(
            "global(workDirectory=\"{place}\")
module(load=\"imuxsock\" SysSock.Use=\"off\")
input(type=\"imuxsock\" Socket=\"{}\" RateLimit.Interval=\"0\")
:programname, isequal, \"Keepalived_vrrp\" {place}/vrrp.log
local0.warning {place}/warnings.log
local0.* {place}/keepalived.log
& stop
*.* {place}/others.log\n",
            socket.display()
        );
        let file = folder.join("rsyslog.conf");
        fs::write(&file, rules).expect("a file");
        let mut command = tool("rsyslogd");
        command.args(["-n", "-f"]).arg(&file);
        command.arg("-i").arg(folder.join("rsyslog.pid"));
        let process = Process::spawn("rsyslogd", &mut command, &folder.join("rsyslog.out"));
        wait_until("rsyslogd listens", secs(10), || socket.exists());
        Self {
            process,
            folder: folder.to_owned(),
        }
    }

    /// Ends it, with its socket.
    fn stop(mut self) {
        self.process.terminate();
        self.process.wait(secs(10));
        let _ = fs::remove_file(Self::socket(&self.folder));
    }
}

/// Ends a real server, which xvs must notice and act upon.
fn lose(lb: &Xvs<'_>, web: &mut Vec<WebServer>, number: usize) {
    web.pop().expect("one is left").kill();
    wait_until("the real server has left", secs(8), || {
        lb.rows(80).len() == number
    });
}

fn assert_serves(lan: &Lan) {
    let answer = lan.client.inside(|| get(CLIENT, (VIP, 80).into(), secs(2)));
    assert!(answer.is_ok(), "{answer:?}");
}

fn by_rsyslog() {
    let lan = Lan::new();
    let mut web = WebServer::start_all(&lan);
    let folder = lan.as_ref().join("syslog");
    fs::create_dir(&folder).expect("a folder");
    let socket = Rsyslog::socket(&folder).display().to_string();
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    let wait_for = |name: &str, text: &str| {
        let what = format!("{text:?} is in {name}");
        wait_until(&what, secs(10), || read(name).contains(text));
    };
    let rsyslog = Rsyslog::start(&folder);
    let config = vrrp("MASTER", 150) + &service(80, "lb_algo rr", &[1, 1, 1]);
    let flags = ["-S", "0", "--log-to", "syslog", "--syslog-socket", &socket];
    let arguments = [Engine::AfXdp.arguments(), &flags[..]].concat();
    let lb = Xvs::start_with(&lan, &lan.lb1, &config, &arguments);
    lb.wait_for_vip(START);

    let pid = lb.process_id();
    for text in [
        "Receive advertisement timeout",
        "Entering MASTER STATE",
        "setting VIPs.",
    ] {
        let line = format!(" Keepalived_vrrp[{pid}]: (VI_1) {text}\n");
        wait_for("keepalived.log", &line);
        assert!(read("vrrp.log").contains(&line), "{}", read("vrrp.log"));
    }
    let [first, _, last] = REALS.map(|real| format!("[{real}]:tcp:80"));
    let checks = format!(" Keepalived_healthcheckers[{pid}]: ");
    wait_for(
        "keepalived.log",
        &format!("{checks}TCP connection to {first} success.\n"),
    );
    wait_for(
        "keepalived.log",
        &format!(
            " Keepalived[{pid}]: Starting Keepalived (xvs {})\n",
            env!("CARGO_PKG_VERSION")
        ),
    );
    let activating =
        format!("Activating healthchecker for service {first} for VS [{VIP}]:tcp:80\n");
    assert!(read("keepalived.log").contains(&(checks.clone() + &activating)));
    assert!(!read("vrrp.log").contains("Keepalived_healthcheckers"));
    assert_eq!(lb.log(), "", "all of it is in syslog");

    lose(&lb, &mut web, 2);
    let removing = format!("{checks}Removing service {last} from VS [{VIP}]:tcp:80\n");
    wait_for("warnings.log", &removing);
    wait_for(
        "warnings.log",
        &format!("{checks}TCP connection to {last} failed.\n"),
    );
    assert!(!read("warnings.log").contains("MASTER STATE"));

    // The daemon goes, with its socket, and comes back.
    rsyslog.stop();
    let mark = read("keepalived.log").len();
    lose(&lb, &mut web, 1);
    assert_eq!(read("keepalived.log").len(), mark);
    assert_serves(&lan);
    let rsyslog = Rsyslog::start(&folder);
    wait_for("keepalived.log", "of this log are lost: ");
    lose(&lb, &mut web, 0);
    wait_for(
        "keepalived.log",
        &format!("{checks}Removing service {first} from VS [{VIP}]:tcp:80\n"),
    );
    let log = read("keepalived.log");
    let told: Vec<&str> = log[mark..]
        .lines()
        .filter(|line| line.contains(" lost: "))
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains(&socket), "{told:?}");
    lb.stop_unheard();
    wait_for(
        "keepalived.log",
        &format!(" Keepalived[{pid}]: Stopped Keepalived (xvs "),
    );
    wait_for("vrrp.log", "(VI_1) sent 0 priority\n");
    assert_eq!(read("others.log"), "");
    rsyslog.stop();
}

fn in_a_file() {
    let lan = Lan::new();
    let mut web = WebServer::start_all(&lan);
    // A disk that only this program sees: `ip netns exec` has given it its own mounts.
    let disk = lan.as_ref().join("disk");
    fs::create_dir(&disk).expect("a folder");
    let script = "mount -t tmpfs -o size=64k tmpfs \"$DISK\" && exec \"$@\" 2>&-";
    let variables = [("DISK", &*disk)];
    let file = disk.join("log").display().to_string();
    let flags = ["--log-json", "--log-to", "stderr", "--log-file", &file];
    let arguments = [Engine::AfXdp.arguments(), &flags[..]].concat();
    let config = vrrp("MASTER", 150) + &service(80, "lb_algo rr", &[1, 1, 1]);
    let lb = Xvs::start_in(&lan, &lan.lb1, &config, &arguments, script, &variables);
    lb.wait_for_vip(START);
    let seen = PathBuf::from(format!("/proc/{}/root{}", lb.process_id(), disk.display()));
    let read = |name: &str| {
        let mut text = String::new();
        let file = fs::File::open(seen.join(name));
        let read = file.and_then(|mut file| file.read_to_string(&mut text));
        read.map(|_| text).unwrap_or_default()
    };
    let entered = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).expect("each line is JSON");
        let field = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let wanted = [
            "notice",
            "vrrp",
            "VI_1",
            "MASTER",
            "(VI_1) Entering MASTER STATE",
        ];
        ["level", "room", "instance", "state", "message"].map(field) == wanted
    };
    wait_until("the change of state is in the file", secs(5), || {
        let text = read("log");
        text.ends_with('\n') && text.lines().any(entered)
    });

    let filler = seen.join("filler");
    let mut more = fs::File::create(&filler).expect("room for a file");
    while more.write(&[b'x'; 4096]).is_ok() {}
    // What is left of the log's last page.
    let mut log = fs::File::options()
        .append(true)
        .open(seen.join("log"))
        .expect("the log");
    while log.write(b"\n").is_ok() {}
    let mark = read("log").len();
    lose(&lb, &mut web, 2);
    assert_eq!(read("log").len(), mark, "the disk was not full");
    fs::remove_file(filler).expect("the filler");
    drop(more);
    let told = "of this log are lost: No space left on device (os error 28)\"";
    wait_until("the loss is told", secs(5), || {
        read("log")[mark..].contains(told)
    });

    fs::rename(seen.join("log"), seen.join("log.1")).expect("the log");
    lose(&lb, &mut web, 1);
    wait_until("the log goes on", secs(5), || {
        lb.tell(&["reload"]);
        read("log").contains("reload: done")
    });
    assert_serves(&lan);
    lb.stop_unheard();
}

fn storm() {
    const FAILING: u16 = 300;
    let lan = Lan::new();
    let reals: Vec<String> = (0..FAILING)
        .map(|number| checked(&format!("{} {}", REALS[0], 10_000 + number), ""))
        .collect();
    let config = vrrp("MASTER", 150)
        + &virtual_server(&format!("{VIP} 80"), "lb_algo rr\n    lb_kind NAT", &reals);
    let lb = Xvs::start(&lan, &lan.lb1, &config, Engine::AfXdp);
    let (removing, more) = ("Removing service [", "(199 more like this in 1");
    lb.wait_for_line(0, "(VI_1) Entering MASTER STATE", START);
    let counted = || {
        let log = lb.log();
        let mut lines = log.lines().filter(|line| line.contains(removing));
        lines.any(|line| line.contains(more))
    };
    wait_until("the rest is counted", secs(20), counted);
    let log = lb.log();
    assert_eq!(log.matches(removing).count(), 101, "{log}");
    let list = lb.list();
    let reals = list["services"][0]["reals"].as_array().expect("reals");
    assert_eq!(reals.len(), usize::from(FAILING));
    lb.stop();
}
