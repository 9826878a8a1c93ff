//! Small files after what users of keepalived reported or wrote, `testdata/users`, with what is right about each.
//!
//! All that is said about them stands in `testdata/users/findings.txt`; `XVS_BLESS=1 cargo test --lib users` writes it
//! there.

use std::{collections::HashMap, fs};

use super::{
    super::{
        Authentication, CheckKind, Config, InitialState, Parsed, Password, Request, Severity, read,
    },
    site::{Files, compare, testdata},
};
use crate::lvs::{LbKind, TunnelKind};

fn parsed(file: &str) -> Parsed {
    let folder = testdata("users");
    let text = fs::read(folder.join(file)).unwrap();
    read(&Request {
        file,
        text: &text,
        folder: "",
        id: "",
        seed: 0,
        all_files: false,
        host: &Files(folder),
    })
}

/// Each file by the first part of its name.
fn all() -> HashMap<String, Parsed> {
    let files = fs::read_dir(testdata("users")).unwrap();
    let names = files.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let files = names.filter(|name| name.ends_with(".conf"));
    files
        .map(|name| (name[..3].to_owned(), parsed(&name)))
        .collect()
}

fn said(parsed: &Parsed) -> Vec<String> {
    parsed.diagnostics.iter().map(ToString::to_string).collect()
}

#[test]
fn exactly_this_is_said_about_the_files_of_users() {
    let mut files: Vec<_> = all().into_iter().collect();
    files.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(files.len(), 22);
    let mut text = String::new();
    for (_, parsed) in &files {
        for line in said(parsed) {
            text += &line;
            text.push('\n');
        }
    }
    compare(&text, &testdata("users").join("findings.txt"));
}

#[test]
fn a_file_is_refused_only_where_this_version_would_elect_or_forward_otherwise() {
    for (name, parsed) in all() {
        let found = parsed.diagnostics.iter();
        let errors = found.filter(|found| found.severity == Severity::Error);
        for error in errors {
            let text = error.to_string();
            // The brace that h07 has lost may have been meant anywhere.
            let brace = name == "h07" && text.contains("a `}` is missing");
            assert!(
                text.contains("not supported by this version") || brace,
                "{text}"
            );
        }
    }
}

#[test]
fn the_files_of_users_mean_what_is_right() {
    let all = all();
    let of = |name: &str| -> &Config { &all[name].config };
    let instance = |name: &str| &of(name).vrrp_instances[0];
    let server = |name: &str| &of(name).virtual_servers[0];
    let words = |name: &str| said(&all[name]).join("\n");

    // A dollar that begins no definition is one, and nobody is told the password.
    let password = Authentication::Pass(Password::new(b"Sec$ret1"));
    assert_eq!(instance("r03").authentication, Some(password));
    assert!(!words("r03").contains("Sec"));
    // Includes in a block and in a list.
    assert_eq!(instance("r04").initial_state, InitialState::Master);
    let addresses = instance("r04").virtual_ipaddress.len();
    assert_eq!((instance("r04").priority, addresses), (120, 2));
    // Old names; a value of several words with brackets, and a command with its arguments.
    assert_eq!(server("r05").lb_kind, LbKind::Tun(TunnelKind::Ipip));
    assert!(!words("r05").contains("is ignored"), "{}", words("r05"));
    let CheckKind::Misc(check) = &server("r05").real_servers[0].checkers[0].kind else {
        panic!("no MISC_CHECK");
    };
    assert_eq!(check.script.command, "/usr/bin/test -e /run/ok");
    // A pattern that matches nothing is not wrong.
    assert!(!words("r08").contains("no such file"), "{}", words("r08"));
    assert_eq!(of("r08").scripts[0].weight, -60);
    assert!(words("r11").contains("note: the file starts with a byte order mark"));
    // No persistence by a time of 0, and it is named.
    assert!(words("h05").contains("persistence_timeout `0` is left out"));
    assert_eq!(server("h05").persistence, None);
    assert!(server("h05").sorry_server.is_some());
    assert_eq!(words("h07").matches("a `}` is missing").count(), 1);
    assert!(words("h10").contains("`state MASTER` overrides nopreempt"));
    assert!(instance("h10").preempt);
    assert!(words("h12").contains("is ignored: the instance's first address is IPv4"));
    // In lower case these are none, as for keepalived.
    for word in ["`master`", "`pass`", "`dr`"] {
        assert!(words("h14").contains(word), "{word}");
    }
    assert_eq!(server("h14").lb_kind, LbKind::Nat);
    assert_eq!(instance("h14").initial_state, InitialState::Backup);
    assert!(words("h03").contains("`auth_type AH`"));
    let mail = &of("h18").global.mail;
    assert_eq!(mail.recipients, ["admins@example.com", "pager@example.com"]);
    assert_eq!(server("h31").matches.len(), 3, "a range is one");
    assert_eq!(server("h31").real_servers.len(), 2);
}
