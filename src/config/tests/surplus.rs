//! No word of a statement is dropped in silence.

use super::super::{
    Support,
    grammar::keywords,
    keyword::{Facts, Shape},
    parse,
};

/// What stands before a statement of a block, for every block of statements.
const OPENINGS: &[(&str, &str)] = &[
    ("", ""),
    ("global_defs", "global_defs {"),
    ("vrrp_instance", INSTANCE),
    ("authentication", "vrrp_instance V { authentication {"),
    ("auth_hmac", "vrrp_instance V { auth_hmac {"),
    ("vrrp_script", "vrrp_script S {"),
    ("track_file", "track_file F {"),
    ("track_process", "track_process P {"),
    ("vrrp_sync_group", "vrrp_sync_group G {"),
    ("track_group", "track_group G {"),
    ("bfd_instance", "bfd_instance B {"),
    ("garp_group", "garp_group {"),
    ("virtual_server", "virtual_server 10.0.0.1 80 {"),
    ("real_server", REAL),
    ("TCP_CHECK", "TCP_CHECK {"),
    ("HTTP_GET", "HTTP_GET {"),
    ("SSL_GET", "SSL_GET {"),
    ("url", "HTTP_GET { url {"),
    ("SMTP_CHECK", "SMTP_CHECK {"),
    ("host", "SMTP_CHECK { host {"),
    ("DNS_CHECK", "DNS_CHECK {"),
    ("MISC_CHECK", "MISC_CHECK {"),
    ("UDP_CHECK", "UDP_CHECK {"),
    ("PING_CHECK", "PING_CHECK {"),
    ("BFD_CHECK", "BFD_CHECK {"),
    ("FILE_CHECK", "FILE_CHECK {"),
    ("SSL", "SSL {"),
    ("xvs", "xvs {"),
    ("mark", "xvs { mark 1 {"),
];
const INSTANCE: &str = "vrrp_instance V {";
const REAL: &str = "virtual_server 10.0.0.1 80 { real_server 10.0.0.2 80 {";

/// Options of addresses, routes and rules: words of a line, not statements.
const OPTIONS: [&str; 3] = ["virtual_ipaddress", "virtual_routes", "virtual_rules"];

/// Values, of which one is right for nearly every keyword.
const VALUES: &[&str] = &[
    "",
    "1",
    "2",
    "10",
    "300",
    "yes",
    "PASS",
    "MASTER",
    "eth0",
    "10.0.0.7",
    "224.0.0.18",
    "ff02::12",
    "10.0.0.0/24",
    "rr",
    "NAT",
    "TCP",
    "inet",
    "255.255.255.0",
    "/bin/true",
    "200",
    "1.1",
    "SOA",
    "1 hex:00",
    "time",
    "enforce",
    "exact",
    "initial",
    "MTU",
    "tcp 7",
    "0123456789abcdef0123456789abcdef",
    "group G",
    "caseless",
    "10 20",
    "1009",
    "10.0.0.1 80",
    "fwmark 3",
    "N",
    "read",
];

/// Keywords that take as many words as there are, or whose last ones are for others to read.
const OPEN: &[(&str, &str)] = &[
    ("track_process", "process"),
    ("global_defs", "vrrp_cpu_affinity"),
    ("global_defs", "checker_cpu_affinity"),
    ("global_defs", "bfd_cpu_affinity"),
    ("global_defs", "umask"),
];

/// What is said of a statement of a block beside what becomes of its keyword.
fn said(opening: &str, statement: &str) -> Vec<String> {
    let checker = opening.contains("_CHECK {") || opening.contains("_GET {");
    let opening = if checker {
        format!("{REAL} {opening}")
    } else {
        opening.to_owned()
    };
    let closing = "}\n".repeat(opening.matches('{').count());
    let before = opening.replace('{', "{\n");
    let line = 1 + before.matches('\n').count();
    let text = format!("{before}{statement}\n{closing}");
    let parsed = parse("f", text.as_bytes());
    let here = parsed.diagnostics.iter();
    let here = here.filter(|d| usize::try_from(d.line).unwrap() == line && d.fate.is_none());
    here.map(|d| d.message.clone()).collect()
}

/// A statement of which nothing is wrong, as far as its words go.
fn right(opening: &str, facts: &Facts) -> Option<(String, Vec<String>)> {
    let block = match facts.shape {
        Shape::Block => " {\n}",
        Shape::Line | Shape::Lines | Shape::Name => "",
    };
    let of = |value: &str| {
        let statement = format!("{} {value}{block}", facts.name);
        let found = said(opening, &statement);
        (found.len(), (format!("{} {value}", facts.name), found))
    };
    let best = VALUES
        .iter()
        .map(|value| of(value))
        .min_by_key(|(count, _)| *count);
    best.map(|(_, found)| found)
}

#[test]
fn a_word_too_many_is_said() {
    let mut silent = Vec::new();
    let mut seen = 0;
    for (block, facts) in keywords() {
        let former = matches!(facts.fate, Support::Former(_)) || facts.shape == Shape::Name;
        if OPTIONS.contains(&block) || OPEN.contains(&(block, facts.name)) || former {
            continue;
        }
        let opening = OPENINGS.iter().find(|(own, _)| *own == block);
        let (_, opening) = opening.unwrap_or_else(|| panic!("where is {block}?"));
        let (statement, before) = right(opening, facts).expect("a value");
        let braces = if facts.shape == Shape::Block {
            " {\n}"
        } else {
            ""
        };
        let after = said(opening, &format!("{statement} a b c d e f g h i{braces}"));
        if after.len() <= before.len() && after == before {
            silent.push(format!("{block}: {statement}"));
        }
        seen += 1;
    }
    assert!(seen > 400, "{seen}");
    assert!(silent.is_empty(), "{silent:#?}");
}

#[test]
fn what_follows_the_type_of_authentication_is_said_and_not_shown() {
    let found = said("vrrp_instance V { authentication {", "auth_type PASS junk");
    assert_eq!(found, ["auth_type takes one word; the rest is ignored"]);
}
