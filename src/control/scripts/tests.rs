//! Scripts of the test's own, in a folder of its own.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    occasion::{Ending, Stops, run},
    *,
};
use crate::{
    config::{Owner, Scripts},
    sys::{clock, script::End},
};

/// A folder that is gone when the test is over.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("xvs-scripts-{}-{name}", std::process::id());
        let path = env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        mode(&path, 0o755);
        Self(path)
    }

    fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        mode(&path, 0o755);
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn rules(change: impl FnOnce(&mut Scripts)) -> Rules {
    let mut scripts = Scripts::default();
    change(&mut scripts);
    Rules::new(&scripts, Identity::ROOT)
}

fn secure() -> Rules {
    rules(|scripts| {
        scripts.enable_script_security = true;
        scripts.script_user = Some(Owner {
            user: "root".to_owned(),
            group: None,
        });
    })
}

fn command(text: &str) -> Command<'_> {
    Command {
        text,
        user: None,
        group: None,
    }
}

fn found(rules: &Rules, text: &str) -> (Result<Script, String>, Vec<String>) {
    let mut odd = Vec::new();
    let found = rules.find(command(text), &mut odd);
    (found, odd)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Whether the tests run as root, to whom files of a test belong then.
fn is_root() -> bool {
    Identity::own().uid == 0
}

#[test]
fn a_command_is_a_program_and_its_words() {
    let folder = Folder::new("words");
    let path = folder.script("my script", "#!/bin/sh\n");
    let (script, _) = found(
        &rules(|_| ()),
        &format!("'{}' a \"b c\" \\x64", path.display()),
    );
    let script = script.unwrap();
    assert_eq!(script.program, path);
    assert_eq!(script.arguments, ["a", "b c", "d"]);
    assert_eq!(script.identity, None);
    let (script, odd) = found(&rules(|_| ()), "sh -c 'exit 0'");
    assert!(script.unwrap().program.is_absolute());
    assert!(odd[0].starts_with("sh is looked for, and /"), "{odd:?}");
    mode(&path, 0o644);
    let unclosed = format!("{} 'a", path.display());
    for (wrong, why) in [
        (
            text(&path).replace(' ', "\\ ").as_str(),
            "is not executable for user 0",
        ),
        (text(&folder.0), "is no file"),
        (
            "/no/such/script a",
            "/no/such/script cannot be run: No such file",
        ),
        ("xvs-no-such-program", "is not found in PATH"),
        (unclosed.as_str(), "a quote is not closed"),
        (" ", "there is no program"),
    ] {
        let why_not = found(&rules(|_| ()), wrong).0.unwrap_err();
        assert!(why_not.contains(why), "{wrong}: {why_not}");
    }
}

#[test]
fn a_loop_of_links_is_no_file() {
    let folder = Folder::new("loop");
    let [a, b] = ["a", "b"].map(|name| folder.0.join(name));
    symlink(&a, &b).unwrap();
    symlink(&b, &a).unwrap();
    let why = found(&rules(|_| ()), text(&a)).0.unwrap_err();
    assert!(why.contains("Too many levels of symbolic links"), "{why}");
}

#[test]
fn who_runs_a_script_is_who_is_named_nearest() {
    let named = |user, group| {
        let command = Command {
            text: "/bin/sh",
            user,
            group,
        };
        let rules = rules(|scripts| {
            scripts.script_user = Some(Owner {
                user: "nobody".to_owned(),
                group: Some("root".to_owned()),
            });
        });
        rules.find(command, &mut Vec::new())
    };
    let nobody = users::user("nobody").unwrap().unwrap();
    let of = |uid, gid| {
        Some(Identity {
            uid,
            gid,
            groups: Vec::new(),
        })
    };
    assert_eq!(named(None, None).unwrap().identity, of(nobody.uid, 0));
    assert_eq!(
        named(Some("nobody"), None).unwrap().identity,
        of(nobody.uid, nobody.gid)
    );
    assert_eq!(named(Some("root"), None).unwrap().identity, of(0, 0));
    let why = named(Some("xvs-no-one"), None).unwrap_err();
    assert_eq!(why, "user xvs-no-one does not exist");
    let why = named(Some("root"), Some("xvs-none")).unwrap_err();
    assert_eq!(why, "group xvs-none does not exist");
    let groups = rules(|scripts| {
        scripts.set_supplementary_groups = true;
        scripts.script_user = Some(Owner {
            user: "nobody".to_owned(),
            group: None,
        });
    });
    let script = found(&groups, "/bin/sh").0.unwrap();
    assert!(script.identity.unwrap().groups.contains(&nobody.gid));
    // Unless there is the user that keepalived looks for.
    if users::user(USUAL_USER).unwrap().is_none() {
        let nobody_named = rules(|scripts| scripts.enable_script_security = true);
        let why = found(&nobody_named, "/bin/sh").0.unwrap_err();
        assert!(why.contains("asks for a script_user"), "{why}");
        assert_eq!(nobody_named.trouble(), Some(why.as_str()));
    }
}

/// What keepalived 2.2.7 says to each of them was asked of it.
#[test]
fn what_others_could_change_does_not_run_as_root() {
    if !is_root() {
        // Then nothing of the test's is root's: that alone is weak.
        let folder = Folder::new("weak");
        let script = folder.script("s", "#!/bin/sh\n");
        let why = found(&secure(), text(&script)).0.unwrap_err();
        assert!(why.contains("others than root can change"), "{why}");
        return;
    }
    let nobody = users::user("nobody").unwrap().unwrap();
    let folder = Folder::new("weak");
    let inside = folder.0.join("inside");
    fs::create_dir(&inside).unwrap();
    let script = inside.join("s");
    fs::write(&script, "#!/bin/sh\n").unwrap();
    for (folder_mode, script_mode, group, owner, safe) in [
        (0o755, 0o755, 0, 0, true),
        (0o775, 0o775, 0, 0, true),
        (0o775, 0o755, nobody.gid, 0, false),
        (0o757, 0o755, 0, 0, false),
        (0o1777, 0o755, 0, 0, true),
        (0o755, 0o757, 0, 0, false),
        (0o1777, 0o757, 0, 0, false),
        (0o755, 0o755, 0, nobody.uid, false),
    ] {
        let case = format!("{folder_mode:o} {script_mode:o} {group} {owner}");
        chown(&inside, Some(0), Some(group)).unwrap();
        chown(&script, Some(owner), Some(0)).unwrap();
        mode(&inside, folder_mode);
        mode(&script, script_mode);
        let (script_found, _) = found(&secure(), text(&script));
        assert_eq!(script_found.is_ok(), safe, "{case}: {script_found:?}");
        // Without that word it runs, and is warned about.
        let (script_found, odd) = found(&rules(|_| ()), text(&script));
        script_found.unwrap();
        assert_eq!(odd.is_empty(), safe, "{case}: {odd:?}");
        // Who is not root changes nothing by it.
        let other = Command {
            user: Some("nobody"),
            ..command(text(&script))
        };
        secure().find(other, &mut Vec::new()).unwrap();
    }
}

#[test]
fn links_are_resolved_first_unless_they_are_kept() {
    if !is_root() {
        return;
    }
    let folder = Folder::new("links");
    let script = folder.script("s", "#!/bin/sh\n");
    let open = folder.0.join("open");
    fs::create_dir(&open).unwrap();
    mode(&open, 0o757);
    let link = open.join("link");
    symlink(&script, &link).unwrap();
    let resolved = found(&secure(), text(&link)).0.unwrap();
    assert_eq!(resolved.program, script);
    let mut kept = secure();
    kept.keep_links = true;
    let why = found(&kept, text(&link)).0.unwrap_err();
    assert!(why.contains(text(&open)), "{why}");
    mode(&open, 0o755);
    assert_eq!(found(&kept, text(&link)).0.unwrap().program, link);
    // The other way round, what it leads to counts in any case.
    let inside = open.join("s");
    fs::copy(&script, &inside).unwrap();
    let outside = folder.0.join("link");
    symlink("open/s", &outside).unwrap();
    mode(&open, 0o757);
    found(&secure(), text(&outside)).0.unwrap_err();
}

#[test]
fn a_user_reaches_what_is_open_to_it() {
    if !is_root() {
        return;
    }
    let folder = Folder::new("closed");
    let script = folder.script("s", "#!/bin/sh\n");
    let run_by_nobody = || {
        let command = Command {
            user: Some("nobody"),
            ..command(text(&script))
        };
        rules(|_| ()).find(command, &mut Vec::new())
    };
    run_by_nobody().unwrap();
    mode(&folder.0, 0o700);
    let why = run_by_nobody().unwrap_err();
    assert!(why.contains("closed to user"), "{why}");
    mode(&folder.0, 0o755);
    mode(&script, 0o744);
    let why = run_by_nobody().unwrap_err();
    assert!(why.contains("is not executable for user"), "{why}");
}

fn script(path: &Path, arguments: &[&str]) -> Script {
    Script {
        program: path.to_owned(),
        arguments: arguments.iter().map(Into::into).collect(),
        identity: None,
    }
}

fn stops() -> Stops {
    Stops::notice(false).unwrap()
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_script_is_waited_for_and_tells_how_it_ended() {
    let folder = Folder::new("ends");
    let out = folder.0.join("out");
    let plain = folder.script(
        "plain",
        &format!(
            "echo \"$@\" > {0}; readlink /proc/$$/fd/0 /proc/$$/fd/2 >> {0}\n",
            out.display()
        ),
    );
    let ending = run(&script(&plain, &["a", "b c"]), LONG, stops()).unwrap();
    assert_eq!(ending, Ending::Ended(End::Exited(0)));
    assert_eq!(
        fs::read_to_string(&out).unwrap(),
        "a b c\n/dev/null\n/dev/null\n"
    );
    let fails = folder.script("fails", "#!/bin/sh\nexit 7\n");
    let ending = run(&script(&fails, &[]), LONG, stops()).unwrap();
    assert_eq!(ending, Ending::Ended(End::Exited(7)));
    let dies = folder.script("dies", "#!/bin/sh\nkill -9 $$\n");
    let ending = run(&script(&dies, &[]), LONG, stops()).unwrap();
    assert_eq!(ending, Ending::Ended(End::Killed(9)));
    let no_interpreter = folder.script("none", "#!/no/such/interpreter\n");
    run(&script(&no_interpreter, &[]), LONG, stops()).unwrap_err();
}

#[test]
fn a_script_that_takes_too_long_is_killed_with_what_it_started() {
    let folder = Folder::new("hangs");
    let pids = folder.0.join("pids");
    let hangs = folder.script(
        "hangs",
        &format!(
            "#!/bin/sh\nsleep 600 &\necho $! $$ > {0}.new; mv {0}.new {0}\nwait\n",
            pids.display()
        ),
    );
    let begin = clock::now();
    let limit = Duration::from_secs(2);
    assert_eq!(
        run(&script(&hangs, &[]), limit, stops()).unwrap(),
        Ending::TimedOut
    );
    assert!(clock::now() - begin >= limit);
    for pid in fs::read_to_string(&pids).unwrap().split_whitespace() {
        let deadline = clock::now() + LONG;
        // A child that nobody waits for any more is init's, which takes a moment, or stays a zombie without one.
        while fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.contains(") Z "))
        {
            assert!(clock::now() < deadline, "process {pid} is still there");
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_script_gets_the_rights_of_its_user() {
    if !is_root() {
        return;
    }
    let folder = Folder::new("rights");
    mode(&folder.0, 0o777);
    let out = folder.0.join("out");
    let tells = folder.script(
        "tells",
        &format!(
            "#!/bin/sh\ngrep -E '^(Uid|Gid|Groups)' /proc/$$/status > {}\n",
            out.display()
        ),
    );
    let mut tells = script(&tells, &[]);
    tells.identity = Some(Identity {
        uid: 12_345,
        gid: 23_456,
        groups: vec![34_567],
    });
    assert_eq!(
        run(&tells, LONG, stops()).unwrap(),
        Ending::Ended(End::Exited(0))
    );
    let said = fs::read_to_string(&out).unwrap();
    let words: Vec<&str> = said.split_whitespace().collect();
    let expected = "Uid: 12345 12345 12345 12345 Gid: 23456 23456 23456 23456 Groups: 34567";
    assert_eq!(words.join(" "), expected);
}
