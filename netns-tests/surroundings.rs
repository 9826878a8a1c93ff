//! What is not xvs's own and changes under it: files that somebody removes, a log that nobody reads, the time of day,
//! notifications that the kernel loses, descriptors. Each is said once, survived, and over by itself.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::SocketAddr,
    os::unix::{fs::OpenOptionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use crate::{
    Test,
    support::{
        client::get,
        config::{service, vrrp},
        host::{run, tool},
        lan::{CLIENT, Lan, REALS, VIP},
        probe::Prober,
        secs, wait_until,
        web::WebServer,
        xvs::{Engine, Xvs, xvs},
    },
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new("surroundings::removed_files_are_made_anew", removed_files),
        Test::new(
            "surroundings::a_reader_of_the_log_that_stops_or_goes_costs_lines_only",
            unread_log,
        ),
        Test::new(
            "surroundings::a_full_disk_under_the_log_costs_lines_only",
            full_disk,
        ),
        Test::new(
            "surroundings::a_clock_that_is_set_changes_nothing_but_what_is_shown",
            clock_set,
        ),
        Test::new(
            "surroundings::lost_notifications_are_looked_up_and_said_once",
            lost_notifications,
        ),
        Test::new(
            "surroundings::without_descriptors_forwarding_and_adverts_go_on",
            no_descriptors,
        ),
    ]
}

/// How long a box may take to become master: how fast it starts is not the point here.
const START: Duration = secs(20);

fn http() -> SocketAddr {
    SocketAddr::from((VIP, 80))
}

fn config() -> String {
    vrrp("MASTER", 150) + &service(80, "lb_algo rr", &[1, 1, 1])
}

/// How often `text` is in the log behind `mark`.
fn said(lb: &Xvs<'_>, mark: usize, text: &str) -> usize {
    lb.log()[mark..].matches(text).count()
}

fn assert_serves(lan: &Lan) {
    let answer = lan.client.inside(|| get(CLIENT, http(), secs(2)));
    assert!(answer.is_ok(), "{answer:?}");
}

fn removed_files() {
    let lan = Lan::new();
    lan.hold_vip();
    let _web = WebServer::start_all(&lan);
    let config = service(80, "lb_algo rr", &[1, 1, 1]);
    let mut lb = Xvs::start(&lan, &lan.lb1, &config, Engine::AfXdp);
    lb.wait_until_ready();
    let mark = lb.mark();
    let socket = lb.socket().to_owned();
    let lock = PathBuf::from(format!("{}.lock", socket.display()));
    let (socket_name, file) = (socket.display().to_string(), lb.config());
    let arguments = [
        &[
            "run",
            "-f",
            file.to_str().expect("UTF-8"),
            "--socket",
            &socket_name,
        ],
        Engine::AfXdp.arguments(),
    ]
    .concat();
    // The first one does not notice before the second one has begun.
    let second = lb.while_paused(|| {
        for path in [&socket, &lock] {
            fs::remove_file(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
        xvs(&lan.lb1, &arguments)
    });
    let errors = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains("interface eth0 is in use by process"),
        "{errors}"
    );

    wait_until("xvs list works again", secs(5), || {
        lb.ask(&["list"]).status.success()
    });
    assert_eq!(lb.socket_mode(), 0o600);
    wait_until("the lock file is back", secs(5), || lock.exists());
    for file in ["control socket", "lock file"] {
        lb.wait_for_line(mark, &format!("the {file} {socket_name}"), secs(2));
    }
    assert_eq!(said(&lb, mark, "was removed: made anew"), 2);
    let second = xvs(&lan.lb1, &arguments);
    let errors = String::from_utf8_lossy(&second.stderr);
    assert!(errors.contains("another xvs is running"), "{errors}");
    assert!(lb.is_running());
    assert_serves(&lan);
    lb.stop();
    assert!(!socket.exists() && !lock.exists());
}

/// A reader of a named pipe, which never waits. It is a writer as well if `both`, so that the pipe can be opened.
fn open_pipe(path: &Path, both: bool) -> fs::File {
    let mut options = fs::File::options();
    options
        .read(true)
        .write(both)
        .custom_flags(libc::O_NONBLOCK);
    options
        .open(path)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Waits until the pipe has said `text`.
fn wait_to_read(pipe: &mut fs::File, text: &str, limit: Duration) {
    let mut heard = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    wait_until(text, limit, || {
        if let Ok(count) = pipe.read(&mut buffer) {
            heard.extend_from_slice(&buffer[..count]);
        }
        String::from_utf8_lossy(&heard).contains(text)
    });
}

/// Ends a real server, which xvs must notice and act upon, whatever becomes of what it says.
fn lose(lb: &Xvs<'_>, web: &mut Vec<WebServer>, number: usize) {
    web.pop().expect("one is left").kill();
    wait_until("the real server has left", secs(8), || {
        lb.rows(80).len() == number
    });
}

fn unread_log() {
    let lan = Lan::new();
    let mut web = WebServer::start_all(&lan);
    let path = lan.as_ref().join("pipe");
    run(tool("mkfifo").arg(&path));
    let mut pipe = open_pipe(&path, true);
    let script = "exec \"$@\" 2>\"$PIPE\"";
    let variables = [("PIPE", &*path)];
    let engine = Engine::AfXdp.arguments();
    let lb = Xvs::start_in(&lan, &lan.lb1, &config(), engine, script, &variables);
    wait_to_read(&mut pipe, "Entering MASTER STATE", START);
    lb.wait_for_vip(secs(1));

    // The reader stops, with the pipe full to the last byte.
    for size in [4096, 1] {
        while pipe.write(&vec![b'x'; size]).is_ok() {}
    }
    lose(&lb, &mut web, 2);
    wait_to_read(
        &mut pipe,
        "lines of this log are lost: its reader was behind\n",
        secs(5),
    );

    // It goes.
    drop(pipe);
    lose(&lb, &mut web, 1);
    assert_serves(&lan);
    let mut pipe = open_pipe(&path, false);
    wait_to_read(
        &mut pipe,
        "lines of this log are lost: Broken pipe (os error 32)\n",
        secs(5),
    );
    lb.stop_unheard();
}

fn full_disk() {
    let lan = Lan::new();
    let mut web = WebServer::start_all(&lan);
    // A disk that only this program sees: `ip netns exec` has given it its own mounts.
    let disk = lan.as_ref().join("disk");
    fs::create_dir(&disk).expect("a folder");
    let script = "mount -t tmpfs -o size=64k tmpfs \"$DISK\" && exec \"$@\" 2>>\"$DISK/log\"";
    let variables = [("DISK", &*disk)];
    let engine = Engine::AfXdp.arguments();
    let lb = Xvs::start_in(&lan, &lan.lb1, &config(), engine, script, &variables);
    lb.wait_for_vip(START);
    let seen = PathBuf::from(format!("/proc/{}/root{}", lb.process_id(), disk.display()));
    let log = || fs::read_to_string(seen.join("log")).expect("the log");
    assert!(log().contains("Entering MASTER STATE"), "{}", log());

    let filler = seen.join("filler");
    let mut file = fs::File::create(&filler).expect("room for a file");
    while file.write(&[b'x'; 4096]).is_ok() {}
    // What is left of the log's last page.
    let mut more = fs::File::options()
        .append(true)
        .open(seen.join("log"))
        .expect("the log");
    while more.write(b"\n").is_ok() {}
    let mark = log().len();
    lose(&lb, &mut web, 2);
    assert_eq!(log().len(), mark, "the disk was not full");
    fs::remove_file(filler).expect("the filler");
    drop(file);
    let told = "lines of this log are lost: No space left on device (os error 28)\n";
    wait_until("the loss is told", secs(5), || log()[mark..].contains(told));
    lose(&lb, &mut web, 1);
    let gone = format!("Removing service [{}]", REALS[1]);
    wait_until("the log goes on", secs(2), || log()[mark..].contains(&gone));
    assert_serves(&lan);
    lb.stop_unheard();
}

fn clock_set() {
    let lan = Lan::new();
    let mut web = WebServer::start_all(&lan);
    let [library, offset] = ["wrong_clock.so", "offset"].map(|name| lan.as_ref().join(name));
    let source = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/netns-tests/support/wrong_clock.c"
    );
    let mut compiler = tool("clang");
    run(compiler
        .args(["-shared", "-fPIC", "-O1", source, "-o"])
        .arg(&library));
    let set = |hours: i64| {
        let next = lan.as_ref().join("next-offset");
        fs::write(&next, (hours * 3_600).to_string()).expect("an offset");
        fs::rename(&next, &offset).expect("an offset");
    };
    set(0);
    let script = "LD_PRELOAD=\"$LIBRARY\" exec \"$@\"";
    let variables = [("LIBRARY", &*library), ("WRONG_CLOCK", &*offset)];
    let engine = Engine::AfXdp.arguments();
    let peer_config = vrrp("BACKUP", 100) + &service(80, "lb_algo rr", &[1, 1, 1]);
    let peer = Xvs::start(&lan, &lan.lb2, &peer_config, Engine::AfXdp);
    let lb = Xvs::start_in(&lan, &lan.lb1, &config(), engine, script, &variables);
    lb.wait_for_vip(START);
    wait_until("the other box is backup", secs(5), || {
        !lan.lb2.has_address(VIP)
    });
    let since = || {
        let text = lb.tell(&["vrrp", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&text).expect("xvs prints JSON");
        let since = status["instances"][0]["since"].as_str().expect("a time");
        humantime::parse_rfc3339(since).expect("a time")
    };
    let entered = since();
    let (mark, peer_mark) = (lb.mark(), peer.mark());
    let prober = Prober::start(&lan.client, &[CLIENT], http());
    for hours in [5, -5] {
        set(hours);
        // It is shown in the new time: the program has taken it.
        let moved = since() - Duration::from_secs(5 * 3_600);
        let earlier = since() + Duration::from_secs(5 * 3_600);
        let shown = if hours > 0 { moved } else { earlier };
        let difference = shown
            .duration_since(entered)
            .unwrap_or_else(|e| e.duration());
        assert!(difference < secs(3), "{difference:?}");
        // Longer than it takes until a master is missed.
        thread::sleep(secs(4));
    }
    let report = prober.finish();
    assert!(report.longest_gap < secs(1), "{report:?}");
    assert_eq!(report.resets, 0, "{report:?}");
    assert_eq!(said(&lb, mark, "Entering"), 0, "{}", lb.log());
    assert_eq!(said(&peer, peer_mark, "Entering"), 0, "{}", peer.log());
    lose(&lb, &mut web, 2);
    lb.stop();
    peer.stop();
}

fn lost_notifications() {
    let lan = Lan::new();
    let _web = WebServer::start_all(&lan);
    let lb = Xvs::start(&lan, &lan.lb1, &config(), Engine::AfXdp);
    lb.wait_for_vip(START);
    let mark = lb.mark();
    // More than the daemon's socket holds, and then something that matters.
    let mut changes = String::new();
    for _ in 0..20_000 {
        changes += "route add 192.0.2.0/24 dev eth0\nroute del 192.0.2.0/24 dev eth0\n";
    }
    changes += &format!("addr del {VIP}/32 dev eth0\n");
    lb.while_paused(|| lan.lb1.ip_batch(&changes));
    let lost = "netlink notifications were lost: looking everything up again";
    lb.wait_for_line(mark, lost, secs(5));
    lb.wait_for_vip(secs(3));
    lb.wait_for_line(mark, "somebody removed", secs(1));
    lb.while_paused(|| lan.lb1.ip_batch(&changes));
    lb.wait_for_vip(secs(5));
    assert_serves(&lan);
    assert_eq!(said(&lb, mark, lost), 1, "{}", lb.log());
    lb.stop();
}

/// Processor time that a program's first thread has used, in hundredths of a second.
fn processor_time(process: u32) -> u64 {
    let path = format!("/proc/{process}/task/{process}/stat");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let (_, fields) = text.rsplit_once(") ").expect("a name in brackets");
    let fields = fields.split(' ').skip(11).take(2);
    fields.filter_map(|field| field.parse::<u64>().ok()).sum()
}

fn no_descriptors() {
    const WATCH: Duration = secs(3);
    let lan = Lan::new();
    let mut web = WebServer::start_all(&lan);
    let peer_config = vrrp("BACKUP", 100) + &service(80, "lb_algo rr", &[1, 1, 1]);
    let peer = Xvs::start(&lan, &lan.lb2, &peer_config, Engine::AfXdp);
    let lb = Xvs::start(&lan, &lan.lb1, &config(), Engine::AfXdp);
    lb.wait_for_vip(START);
    wait_until("the other box is backup", secs(5), || {
        !lan.lb2.has_address(VIP)
    });
    let (mark, peer_mark) = (lb.mark(), peer.mark());
    let process = lb.process_id();
    let limit = |soft: u32| {
        let mut command = tool("prlimit");
        run(command.args([format!("--pid={process}"), format!("--nofile={soft}:")]));
    };
    let used = || {
        let before = processor_time(process);
        thread::sleep(WATCH);
        processor_time(process) - before
    };
    let usual = used();
    let prober = Prober::start(&lan.client, &[CLIENT], http());

    limit(3);
    lb.wait_for_line(mark, "Checks are delayed: no free descriptors", secs(5));
    let mut client = UnixStream::connect(lb.socket()).expect("the kernel takes clients");
    client
        .write_all(b"{\"command\":\"vrrp\"}\n")
        .expect("room for a line");
    let refused = "accepting a client of the control socket: Too many open files";
    lb.wait_for_line(mark, refused, secs(3));
    let without = used();
    assert!(
        without <= 3 * usual + 30,
        "{without} hundredths of a second, usually {usual}"
    );
    assert_eq!(said(&lb, mark, "Too many open files"), 1, "{}", lb.log());
    assert_eq!(said(&lb, mark, "Removing service"), 0, "{}", lb.log());

    limit(1024);
    client.set_read_timeout(Some(secs(5))).expect("a timeout");
    let answer = BufReader::new(client).lines().next();
    assert!(answer.is_some_and(|line| line.is_ok_and(|line| line.contains("MASTER"))));
    lb.wait_for_line(
        mark,
        "accepting a client of the control socket works again",
        secs(1),
    );
    // Until here: who connects to a real server that was killed is reset by its host.
    let report = prober.finish();
    assert!(report.longest_gap < secs(1), "{report:?}");
    assert_eq!(report.resets, 0, "{report:?}");
    lose(&lb, &mut web, 2);
    // Said when none has been delayed for ten seconds.
    lb.wait_for_line(mark, "Checks run again", secs(15));
    assert_eq!(said(&peer, peer_mark, "Entering"), 0, "{}", peer.log());
    lb.stop();
    peer.stop();
}
