//! Tests of the whole way from bytes to the model.

mod any_checker;
mod applied;
mod checkers;
mod differences;
mod documentation;
mod every_keyword;
mod language;
mod legacy_lvs;
mod lvs;
mod mistakes;
mod robust;
mod round_trip;
mod rules;
mod seed;
mod settings;
mod site;
mod snippets;
mod surplus;
mod users;

use std::{fs, path::Path};

use super::{Config, Parsed, parse};

/// The file that a user runs, byte for byte.
const SEED: &[u8] = include_bytes!("../../../config/seed.conf");

/// The findings of `text`, one line each, without the file name.
fn said(text: &str) -> Vec<String> {
    lines(&parse("f", text.as_bytes()))
}

fn lines(parsed: &Parsed) -> Vec<String> {
    let show = |d: &super::Diagnostic| {
        let shown = d.to_string();
        shown.strip_prefix("f:").unwrap_or(&shown).to_owned()
    };
    parsed.diagnostics.iter().map(show).collect()
}

/// The model of `text`, which must give no errors.
fn config(text: &str) -> Config {
    let parsed = parse("f", text.as_bytes());
    assert!(!parsed.has_errors(), "{}", parsed.report());
    parsed.config
}

/// An instance that is complete and gives no findings, with more lines in it.
fn instance(more: &str) -> String {
    format!(
        "vrrp_instance V {{\n{more}\ninterface eth0\nvirtual_router_id 7\n\
         virtual_ipaddress {{\n10.0.0.9\n}}\n}}\n"
    )
}

/// A virtual server that is complete and gives no findings, with more lines in it and in its
/// first real server.
fn server(more: &str, real: &str) -> String {
    format!(
        "virtual_server 10.0.0.9 80 {{\n{more}\nlb_algo rr\nlb_kind DR\nprotocol TCP\n\
         real_server 10.0.0.1 80 {{\n{real}\n}}\n}}\n"
    )
}

#[test]
fn the_examples_are_read_without_errors() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut read = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ext| ext == "conf") {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let parsed = parse(&name, &fs::read(&path).unwrap());
            assert!(!parsed.has_errors(), "{}", parsed.report());
            // The file of 1.x times has its warnings; what we write ourselves has none.
            let clean = parsed.diagnostics.is_empty() || name == "seed.conf";
            assert!(clean, "{}", parsed.report());
            read.push(name);
        }
    }
    read.sort();
    assert_eq!(
        read,
        [
            "direct-routing.conf",
            "nat.conf",
            "seed.conf",
            "tunnel.conf",
            "udp-and-groups.conf",
            "unicast-backup.conf"
        ]
    );
}
