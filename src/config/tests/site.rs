//! A realistic configuration of 2,500 lines in a dozen files, `testdata/site`: definitions, sequences, conditions, includes,
//! groups of instances, trackers, every checker, marks, both families.
//!
//! What is said about it stands in `testdata/site/findings.txt`; `XVS_BLESS=1 cargo test --lib site` writes it there.

use std::{
    collections::HashSet,
    env, fs,
    path::{Path, PathBuf},
};

use super::super::{Fate, Host, Parsed, Request, Unreadable, effective, parse, read};

/// The files of a folder. `*` is the only wildcard in their includes.
pub(super) struct Files(pub(super) PathBuf);

fn folder() -> PathBuf {
    testdata("site")
}

/// A folder of files for tests.
pub(super) fn testdata(name: &str) -> PathBuf {
    let crate_folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    crate_folder.join("src/config/testdata").join(name)
}

/// `XVS_BLESS=1` writes what is said about files; otherwise it must be what is written.
pub(super) fn compare(said: &str, path: &Path) {
    if env::var_os("XVS_BLESS").is_some() {
        fs::write(path, said).unwrap();
    }
    let written = fs::read_to_string(path).unwrap();
    let new = said
        .lines()
        .filter(|line| !written.lines().any(|it| it == *line));
    let new: Vec<&str> = new.collect();
    assert!(
        said == written,
        "{} is old (XVS_BLESS=1 writes it); not in it: {new:#?}",
        path.display()
    );
}

impl Host for Files {
    fn matching(&self, pattern: &str) -> Vec<String> {
        let (before, behind) = pattern.rsplit_once('*').unwrap_or((pattern, ""));
        let files = fs::read_dir(&self.0).unwrap();
        let files = files.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut found: Vec<String> = files
            .filter(|name| match pattern.contains('*') {
                true => name.starts_with(before) && name.ends_with(behind),
                false => name == pattern,
            })
            .collect();
        found.sort();
        found
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, Unreadable> {
        fs::read(self.0.join(path)).map_err(|error| Unreadable::Failed(error.to_string()))
    }

    fn variable(&self, _: &str) -> Option<String> {
        None
    }
}

fn site(id: &str) -> Parsed {
    let text = fs::read(folder().join("keepalived.conf")).unwrap();
    read(&Request {
        file: "keepalived.conf",
        text: &text,
        folder: "",
        id,
        seed: 0,
        all_files: false,
        host: &Files(folder()),
    })
}

#[test]
fn exactly_this_is_said_about_a_realistic_configuration() {
    let parsed = site("left");
    assert_eq!(parsed.files().len(), 14, "{:?}", parsed.files());
    let said = parsed.diagnostics.iter().map(|found| format!("{found}\n"));
    let said: String = said.collect();
    assert!(!said.contains("unknown"), "{said}");
    compare(&said, &folder().join("findings.txt"));
}

#[test]
fn all_of_it_is_in_the_model() {
    let config = site("left").config;
    assert_eq!(config.vrrp_instances.len(), 20);
    assert_eq!(config.virtual_servers.len(), 51);
    let public = &config.vrrp_instances[0];
    assert_eq!(public.priority, 150);
    assert_eq!(public.virtual_ipaddress.len(), 50);
    assert_eq!(public.virtual_ipaddress_excluded.len(), 5);
    let reals = config
        .virtual_servers
        .iter()
        .map(|server| server.real_servers.len());
    assert_eq!(reals.sum::<usize>(), 162);
    let right = site("right").config;
    assert_eq!(right.vrrp_instances[0].priority, 100);
}

#[test]
fn its_effective_configuration_says_the_same_once_more() {
    let parsed = site("left");
    let text = effective(&parsed.config);
    let again = parse("effective", text.as_bytes());
    let known: HashSet<&str> = parsed.diagnostics.iter().map(|it| &*it.message).collect();
    let new = again
        .diagnostics
        .iter()
        // What is inherited is said where it stands, and where it counts.
        .filter(|it| !known.contains(&*it.message) && it.fate != Some(Fate::Unapplied));
    let new: Vec<String> = new.map(ToString::to_string).collect();
    assert!(new.is_empty(), "{new:#?}");
    assert_eq!(effective(&again.config), text);
}
