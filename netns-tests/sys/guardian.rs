//! The guardian and the lock file, with engines that are killed.

use std::{
    fs,
    io::{Read, Write},
    os::fd::AsFd,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use xvs::{
    sys::{
        clock,
        guardian::Guardian,
        instance_lock::{InstanceLock, LockError},
    },
    time::Instant,
};

use crate::common::{Player, Scratch, run, wait_until};

/// How soon after a kill the guardian must be at work: the machine may be busy.
const SOON: Duration = Duration::from_millis(100);

/// Long enough for a guardian that should be silent to show that it is not.
const MOMENT: Duration = Duration::from_millis(100);

/// Memory of an engine with a large connection table and umem, in bytes.
const LARGE: usize = 256 << 20;

/// What a guardian wrote into its marker.
struct Marker {
    /// The time at which it began.
    at: Instant,
    /// The state that it found.
    state: String,
    /// The descriptors that it had open, by where they lead.
    open: String,
}

fn read_marker(path: &Path) -> Option<Marker> {
    let text = fs::read_to_string(path).ok()?;
    let mut lines = text.lines();
    let at = lines.next()?.parse().ok()?;
    let state = lines.next()?.to_owned();
    let open = lines.next()?.strip_suffix(" .")?.to_owned();
    Some(Marker {
        at: Instant::from_nanos(at),
        state,
        open,
    })
}

fn wait_for_marker(path: &Path) -> Marker {
    wait_until("the guardian's marker", || read_marker(path).is_some());
    read_marker(path).unwrap()
}

/// What a guardian does when its engine has died.
fn leave_marker(path: &str, state: &[u8]) {
    let at = clock::now().as_nanos();
    let state = String::from_utf8_lossy(state);
    let open: Vec<String> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .map(|target| target.display().to_string().replace(' ', "-"))
        .collect();
    let text = format!("{at}\n{state}\n{} .\n", open.join(" "));
    fs::write(path, text).unwrap();
}

/// The engine's side of a test. `word` is the path of the marker or lock.
pub(crate) fn play(role: &str, word: &str) {
    match role {
        "lock" => {
            let _lock = InstanceLock::acquire(Path::new(word)).unwrap();
            println!("ready");
            wait_for_end_of_input();
        }
        "threads" => {
            let other = thread::spawn(wait_for_end_of_input);
            let refused = Guardian::spawn(|_| leave_marker(word, b"")).unwrap_err();
            println!("{refused}");
            other.join().unwrap();
        }
        _ => play_engine(role, word),
    }
}

fn play_engine(role: &str, word: &str) {
    // Something for the guardian to inherit, and to close.
    let _file = fs::File::open("/proc/self/status").unwrap();
    let mut guardian = Guardian::spawn(|state| leave_marker(word, state)).unwrap();
    guardian.update(b"first").unwrap();
    guardian.update(b"the last state").unwrap();
    assert!(guardian.is_alive());
    let mut memory = Vec::new();
    if role == "large" {
        memory = vec![1_u8; LARGE];
    }
    let mut heir = (role == "heir").then(|| {
        let ours = guardian.as_fd().try_clone_to_owned().unwrap();
        let mut sleep = Command::new("sleep");
        sleep.arg("600").stdin(Stdio::from(ours));
        sleep.stdout(Stdio::null()).spawn().unwrap()
    });
    let heirs_pid = heir.as_ref().map_or(0, std::process::Child::id);
    println!("{} {heirs_pid}", guardian.pid());
    std::io::stdout().flush().unwrap();
    wait_for_end_of_input();
    assert!(memory.iter().all(|byte| *byte == 1));
    if let Some(heir) = &mut heir {
        heir.kill().unwrap();
    }
    if role != "forgetful" {
        guardian.goodbye().unwrap();
    }
}

fn wait_for_end_of_input() {
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// Starts an engine; answers it with its guardian's process id and its heir's.
fn engine(role: &str, marker: &Scratch) -> (Player, u32, u32) {
    let mut player = Player::start(role, marker.word());
    let line = player.line();
    let (guardian, heir) = line.split_once(' ').unwrap();
    let guardian: u32 = guardian.parse().unwrap();
    let heir: u32 = heir.parse().unwrap();
    wait_until("the guardian has its name", || {
        comm(guardian).is_some_and(|name| name == "xvs-guardian")
    });
    (player, guardian, heir)
}

fn comm(pid: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

fn is_gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

pub(crate) fn a_killed_engine_is_undone_within_milliseconds() {
    let marker = Scratch::new("killed");
    let (mut engine, guardian, _) = engine("plain", &marker);
    let killed = engine.kill();
    let found = wait_for_marker(&marker.0);
    assert_eq!(found.state, "the last state");
    let took = found.at - killed;
    println!("  {took:?} after the kill");
    assert!(took < SOON, "{took:?}");
    wait_until("the guardian is gone", || is_gone(guardian));
}

pub(crate) fn a_large_engine_is_undone_as_well() {
    let marker = Scratch::new("large");
    let (mut engine, ..) = engine("large", &marker);
    let killed = engine.kill();
    let took = wait_for_marker(&marker.0).at - killed;
    println!("  {took:?} after the kill of {} MiB", LARGE >> 20);
    assert!(took < SOON * 5, "{took:?}");
}

pub(crate) fn an_engine_that_says_goodbye_is_left_in_peace() {
    let marker = Scratch::new("goodbye");
    let (mut engine, guardian, _) = engine("plain", &marker);
    assert!(engine.ends_well());
    // The engine itself has waited for it.
    assert!(is_gone(guardian));
    assert!(!marker.0.exists());
}

pub(crate) fn an_engine_that_forgets_goodbye_is_undone() {
    let marker = Scratch::new("forgetful");
    let (mut engine, ..) = engine("forgetful", &marker);
    assert!(engine.ends_well());
    assert_eq!(wait_for_marker(&marker.0).state, "the last state");
}

pub(crate) fn a_socket_that_somebody_inherited_does_not_hide_the_death() {
    let marker = Scratch::new("heir");
    let (mut engine, _, heir) = engine("heir", &marker);
    let killed = engine.kill();
    let deadline = clock::now() + Duration::from_secs(5);
    while read_marker(&marker.0).is_none() && clock::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    run("kill", &["-9", &heir.to_string()]);
    let took = read_marker(&marker.0).expect("the guardian noticed").at - killed;
    assert!(took < SOON, "{took:?}");
}

pub(crate) fn signals_to_the_group_do_not_reach_it() {
    let marker = Scratch::new("signals");
    let (mut engine, guardian, _) = engine("plain", &marker);
    for signal in ["-TERM", "-INT", "-HUP", "-QUIT", "-USR1", "-USR2", "-PIPE"] {
        run("kill", &[signal, &guardian.to_string()]);
    }
    let stat = fs::read_to_string(format!("/proc/{guardian}/stat")).unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let [_state, parent, group, session, ..] = fields[..] else {
        panic!("{stat}");
    };
    assert_eq!(parent, engine.pid().to_string());
    assert_eq!(
        (group, session),
        (&*guardian.to_string(), &*guardian.to_string())
    );
    thread::sleep(MOMENT);
    assert!(!marker.0.exists());
    let killed = engine.kill();
    assert!(wait_for_marker(&marker.0).at - killed < SOON);
}

pub(crate) fn it_keeps_nothing_of_the_engine_open() {
    let marker = Scratch::new("open");
    let (mut engine, ..) = engine("plain", &marker);
    engine.kill();
    let open = wait_for_marker(&marker.0).open;
    let kinds: Vec<&str> = open
        .split(' ')
        // The directory that is being listed.
        .filter(|target| !target.ends_with("/fd"))
        .map(|target| target.split(':').next().unwrap())
        .collect();
    let count = |kind: &str| kinds.iter().filter(|k| **k == kind).count();
    assert_eq!(count("/dev/null"), 2, "stdin, stdout: {open}");
    assert_eq!(count("socket"), 1, "{open}");
    assert_eq!(count("/memfd"), 2, "{open}");
    assert!(!open.contains("status"), "{open}");
    // Those, the pidfd and standard error.
    assert_eq!(kinds.len(), 7, "{open}");
}

pub(crate) fn it_is_not_started_beside_threads() {
    let marker = Scratch::new("threads");
    let mut player = Player::start("threads", marker.word());
    assert_eq!(
        player.line(),
        "the guardian must be started before any other thread"
    );
    assert!(player.ends_well());
    assert!(!marker.0.exists());
}

pub(crate) fn a_lock_file_is_free_when_its_owner_is_killed() {
    let path = Scratch::new("lock");
    let mut owner = Player::start("lock", path.word());
    assert_eq!(owner.line(), "ready");
    match InstanceLock::acquire(&path.0) {
        Err(LockError::Held {
            holder: Some(holder),
            ..
        }) => assert_eq!(holder.pid, owner.pid()),
        other => panic!("{other:?}"),
    }
    owner.kill();
    // The file is still there; the lock is not.
    wait_until("the lock is free", || {
        InstanceLock::acquire(&path.0).is_ok()
    });
}
