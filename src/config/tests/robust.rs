//! No input panics, no password is shown, and one mistake is one finding.

use proptest::prelude::*;

use super::{
    super::{
        Authentication, Config, Parsed, effective,
        effective::{Secrets, written},
        parse,
    },
    SEED, instance,
    language::Desk,
    lines, said, server,
};

/// Files with the rest of the language.
const NAT: &[u8] = include_bytes!("../../../config/nat.conf");
const TUNNEL: &[u8] = include_bytes!("../../../config/tunnel.conf");
const GROUPS: &[u8] = include_bytes!("../../../config/udp-and-groups.conf");

/// Everything that a run can print.
pub(super) fn output(parsed: &Parsed) -> String {
    let one_line: String = lines(parsed).concat();
    let debug = format!("{:?}{:?}", parsed.config, parsed.diagnostics);
    one_line + &parsed.report() + &effective(&parsed.config) + &debug
}

/// A password is cut by bytes, which may be within a character: then no text says the same.
fn passwords_are_text(config: &Config) -> bool {
    let mut passwords = config.vrrp_instances.iter().filter_map(|instance| {
        match instance.authentication.as_ref()? {
            Authentication::Pass(password) | Authentication::Ah(password) => Some(password),
        }
    });
    passwords.all(|password| std::str::from_utf8(password.bytes()).is_ok())
}

/// Reads anything and looks at what must always hold.
fn exercise(text: &[u8]) {
    let parsed = parse("f", text);
    let output = output(&parsed);
    assert!(!output.is_empty());
    let ends = text.split(|byte| *byte == b'\n').count();
    for d in &parsed.diagnostics {
        assert!(d.line >= 1 && d.column >= 1 && d.length >= 1, "{d:?}");
        assert!(usize::try_from(d.line).unwrap() <= ends, "{d:?}");
    }
    let lines = parsed.diagnostics.iter().map(|d| (d.line, d.column));
    assert!(lines.is_sorted(), "{:?}", parsed.diagnostics);
    if !parsed.has_errors() && passwords_are_text(&parsed.config) {
        let again = parse(
            "effective",
            written(&parsed.config, Secrets::Shown).as_bytes(),
        );
        assert_eq!(again.config, parsed.config, "{}", again.report());
    }
}

/// Words of the language and of nobody's.
fn fragment() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "{",
        "}",
        "\n",
        " ",
        "\t",
        "#",
        "!",
        "\"",
        "\\#",
        "\\",
        "$X",
        "$X=",
        "${X}",
        "$Y=$X",
        "${_RANDOM}",
        "${_HASH}",
        "@f",
        "@^",
        "~SEQ(X,3)",
        "~LST({X,Y},{1,2})",
        "vrrp_instance",
        "V",
        "virtual_server",
        "real_server",
        "10.0.0.1",
        "80",
        "0",
        "-1",
        "4294967296",
        "::1",
        "global_defs",
        "authentication",
        "auth_type",
        "PASS",
        "auth_pass",
        "TCP_CHECK",
        "virtual_ipaddress",
        "priority",
        "interface",
        "eth0",
        "virtual_router_id",
        "state",
        "MASTER",
        "nopreempt",
        "weight",
        "quorum",
        "hysteresis",
        "notify",
        "'",
        "lb_kind",
        "HTTP_GET",
        "url",
        "unicast_peer",
        "advert_int",
        "0.5",
        "brd",
        "+",
        "lvs_timeouts",
        "tcp",
        "persistence_granularity",
        "track_interface",
        "group",
        "fwmark",
        "include",
        "virtual_server_group",
        "10.0.0.0/24",
        "10.0.0.1-9",
        "fd00::1-ff",
        "ip_family",
        "inet6",
        "TUN",
        "type",
        "gue",
        "port",
        "remcsum",
        "lb_algo",
        "sh",
        "flag-1",
        "mh-port",
        "ops",
        "sorry_server",
        "sorry_server_lvs_method",
        "lthreshold",
        "xvs",
        "mark",
        "protocol",
        "UDP",
        "destination",
        "destination_port",
        "80-90",
        "timeouts",
        "tcp_close",
        "maglev_table_size",
        "cpus",
        "0,2-5",
        "é",
        "\r",
    ]);
    prop::collection::vec(words, 0..80).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn any_bytes_are_survived(text in prop::collection::vec(any::<u8>(), 0..400)) {
        exercise(&text);
    }

    #[test]
    fn any_words_are_survived(text in fragment()) {
        exercise(text.as_bytes());
    }

    #[test]
    fn a_mutated_file_is_survived(
        file in prop::sample::select(vec![SEED, NAT, TUNNEL, GROUPS]),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..8)
    ) {
        let mut text = file.to_vec();
        for (at, byte, what) in edits {
            let at = at.index(text.len());
            match what {
                0 => text[at] = byte,
                1 => text.insert(at, b"{}\"#\n 0"[usize::from(byte) % 7]),
                _ => {
                    let end = (at + usize::from(byte)).min(text.len() - 1);
                    text.drain(at..end);
                }
            }
        }
        exercise(&text);
    }

    #[test]
    fn no_password_is_shown_however_the_block_is_broken(
        at in any::<prop::sample::Index>(),
        broken in prop::sample::select(vec!["{", "}", "\n", "\"", " x ", "#", "\\"]),
    ) {
        let block = "authentication {\n auth_type PASS\n auth_pass S3cr3tpw longS3cr3t # c\n}";
        // Only between the words: what cuts a keyword in two makes another one of it.
        let gaps: Vec<usize> = block.match_indices([' ', '\n']).map(|(at, _)| at).collect();
        let at = gaps[at.index(gaps.len())];
        let text = instance(&format!("{}{broken}{}", &block[..at], &block[at..]));
        let shown = output(&parse("f", text.as_bytes()));
        prop_assert!(!shown.contains("S3cr3t"), "{}\n{}", text, shown);
    }
}

#[test]
fn no_password_is_shown_in_known_disguises() {
    for block in [
        "auth_pass S3cr3tpw",
        "authentication { auth_pas S3cr3tpw }",
        "authentication { password S3cr3tpw }",
        "authentication { S3cr3tpw }",
        "authentication { auth_type S3cr3tpw }",
        "authentication { auth_type PASS S3cr3tpw }",
        "authentcation {\nauth_type PASS\nauth_pass S3cr3tpw {\n}\n}",
        "authentication {\nauth_pass \"S3cr3t\n}",
        "authentication {\nauth_type PASS\nauth_pass S3cr3tpassword\n}",
        "authentication {\nauth_type AH\nauth_pass S3cr3tpw\n}",
    ] {
        let text = instance(block);
        let parsed = parse("f", text.as_bytes());
        let shown = output(&parsed);
        assert!(!shown.contains("S3cr3t"), "{text}\n{shown}");
        assert!(!parsed.diagnostics.is_empty(), "{text}");
    }
}

#[test]
fn what_is_no_password_is_shown() {
    for (kind, shown) in [
        (
            "auth_type PASSS\nauth_pass S3cr3tpw",
            "`PASSS` is not a type",
        ),
        ("auth_type PASSS", "`PASSS` is not a type"),
        ("auth_type pass\nauth_pass S3cr3tpw", "`pass` is not a type"),
        (
            "auth_type kerberos\nauth_pass S3cr3tpw",
            "`kerberos` is not a type",
        ),
        (
            "auth_type kerberos\nauth_pass S3cr3tpw",
            "| auth_type kerberos\n",
        ),
        ("auth_type AH\nauth_pass S3cr3tpw", "| auth_type AH\n"),
        ("auth_typ PASS\nauth_pass S3cr3tpw", "| auth_typ PASS\n"),
        (
            "auth_typ PASS\nauth_pass S3cr3tpw",
            "unknown keyword `auth_typ`",
        ),
        ("auth_pas S3cr3tpw", "unknown keyword `auth_pas`"),
        // Here it may be the password.
        ("auth_type kerberos", "`****` is not a type"),
        (
            "auth_type S3cr3tpw\nauth_pass S3cr3tpw",
            "`****` is not a type",
        ),
        (
            "auth_type \"S3cr3tpw\"\nauth_pass S3cr3tpw",
            "`****` is not a type",
        ),
        ("auth_type PASS\nS3cr3tpw", "unknown keyword\n"),
    ] {
        let text = instance(&format!("authentication {{\n{kind}\n}}"));
        let said = output(&parse("f", text.as_bytes()));
        assert!(said.contains(shown), "{kind}: {said}");
        assert!(!said.contains("S3cr3t"), "{kind}: {said}");
    }
}

#[test]
fn long_lines_and_deep_nesting_are_survived() {
    exercise(format!("vrrp_instance {}", "x".repeat(100_000)).as_bytes());
    exercise("a ".repeat(50_000).as_bytes());
    exercise("vrrp_instance A {\n".repeat(2_000).as_bytes());
    exercise("real_server {".repeat(2_000).as_bytes());
    exercise("}".repeat(2_000).as_bytes());
    let many = parse("f", "}\n".repeat(2_000).as_bytes());
    let last = many.diagnostics.last().unwrap();
    assert_eq!((many.diagnostics.len(), last.line), (501, 500));
    assert_eq!(last.message, "1500 more findings are not shown");
}

#[test]
fn bytes_that_are_not_text_do_no_harm_in_comments() {
    let mut text = instance("priority 5").into_bytes();
    text.extend(b"# \xff\xfe \xe8\xae\n");
    assert_eq!(lines(&parse("f", &text)), [""; 0]);
    let text = b"vrrp_instance \xff {\n}";
    assert!(lines(&parse("f", text)).contains(&"1:15: error: the word is not UTF-8".to_owned()));
}

#[test]
fn an_unknown_block_is_skipped_whole_and_reported_once() {
    let text = instance("vmac {\n a {\n b c\n }\n d\n}\npriority 42");
    let parsed = parse("f", text.as_bytes());
    assert_eq!(lines(&parsed), ["2:1: warning: unknown keyword `vmac`"]);
    assert_eq!(parsed.config.vrrp_instances[0].priority, 42);
    assert_eq!(parsed.config.vrrp_instances[0].interface, "eth0");
}

#[test]
fn a_typo_is_answered_with_the_word_that_was_meant() {
    let text = server("", "TCP_CHEK {\nconnect_timeout 3\n}\nwieght 3");
    let parsed = parse("f", text.as_bytes());
    let hints: Vec<_> = parsed.diagnostics.iter().map(|d| d.hint.clone()).collect();
    let hint = |text: &str| Some(text.to_owned());
    assert_eq!(
        hints,
        [
            hint("did you mean `TCP_CHECK`?"),
            hint("did you mean `weight`?")
        ]
    );
    assert_eq!(said("zzz 1"), ["1:1: warning: unknown keyword `zzz`"]);
}

#[test]
fn a_suggestion_is_a_close_match() {
    let hint = |block: &str, word: &str| {
        let parsed = parse("f", format!("{block} {{\n{word} 1\n}}").as_bytes());
        let unknown = parsed.diagnostics.into_iter().find(|d| d.line == 2);
        unknown.unwrap().hint
    };
    for (word, meant) in [
        ("priorty", "priority"),
        ("stat", "state"),
        ("garp_mater_dealy", "garp_master_delay"),
        ("virtual_routerid", "virtual_router_id"),
        ("PRIORITY", "priority"),
    ] {
        let meant = format!("did you mean `{meant}`?");
        assert_eq!(hint("vrrp_instance V", word), Some(meant), "{word}");
    }
    for word in ["lvs_ide_x", "router", "vrf2x", "ab", "garp_repeat"] {
        assert_eq!(hint("vrrp_instance V", word), None, "{word}");
    }
    assert_eq!(hint("global_defs", "lvs_idx9"), None);
}

#[test]
fn columns_count_characters_and_carets_count_cells() {
    let text = "vrrp_instance V {\n\t\"中文é\" x\n}\n";
    let parsed = parse("f", text.as_bytes());
    let unknown = parsed.diagnostics.last().unwrap();
    assert_eq!((unknown.line, unknown.column, unknown.length), (2, 2, 5));
    let shown = parsed.render(unknown);
    let carets = shown.lines().nth(2).unwrap();
    // A tab stays a tab; each of the two wide characters takes two cells.
    assert_eq!(carets.trim_end(), "      | \t^^^^^^^");
}

#[test]
fn a_very_long_line_is_shown_in_part() {
    let text = format!("vrrp_instance V {{\n{}zzz 1\n}}\n", " ".repeat(5_000));
    let parsed = parse("f", text.as_bytes());
    let shown = parsed.render(parsed.diagnostics.last().unwrap());
    assert!(
        shown.contains("2:5001: warning: unknown keyword `zzz`"),
        "{shown}"
    );
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[1].chars().count() < 200, "{shown}");
    assert_eq!(
        lines[1].find("zzz").map(|at| at - "…".len() + 1),
        lines[2].find("^^^")
    );
}

/// What is said of a file that expansion blows up, and how much it made.
fn blown_up(text: &str) -> Vec<String> {
    let parsed =
        Desk::of(&[("/etc/self", "include self\ninclude /etc/./self")]).parse(text.as_bytes());
    assert!(parsed.has_errors(), "{text}");
    assert!(parsed.diagnostics.len() < 600, "{text}");
    lines(&parsed)
}

#[test]
fn what_expansion_makes_is_bounded_and_said() {
    let said = blown_up("~SEQ(v, 1000000000) zork$v\n");
    assert!(said[0].contains("more than 1000000 lines"), "{said:?}");
    assert_eq!(said.len(), 1);
    // Each definition twice the one before: with something in the last one, and with nothing.
    for last in ["zork ", ""] {
        let mut text = format!("$A0={last}\n");
        for n in 1..60 {
            text += &format!("$A{n}=${{A{0}}}${{A{0}}}\n", n - 1);
        }
        let said = blown_up(&(text + "x ${A59}\n"));
        assert!(
            said[0].contains("more of this line than it may be"),
            "{said:?}"
        );
        assert_eq!(said.len(), 1, "{said:?}");
    }
    // The same with lines.
    let mut text = "$A0= \\\n x\n".to_owned();
    for n in 1..60 {
        text += &format!("$A{n}= \\\n$A{0} \\\n$A{0}\n", n - 1);
    }
    let said = blown_up(&(text + "$A59\n"));
    assert!(said[0].contains("stand for one another"), "{said:?}");
    let said = blown_up("$M= \\\n x \\\n $M\n$M\n");
    assert!(
        said.iter()
            .any(|line| line.contains("stand for one another")),
        "{said:?}"
    );
    // A definition that stands for itself is plain text; nothing else suffers.
    assert_eq!(
        said_twice("$A=x ${B}\n$B=${A}\nglobal_defs {\nrouter_id $A\n}"),
        ["a definition stands for itself; it is taken as plain text"]
    );
}

fn said_twice(text: &str) -> Vec<String> {
    let parsed = parse("f", text.as_bytes());
    let found = parsed
        .diagnostics
        .iter()
        .filter(|d| d.message.contains("itself"));
    found.map(|d| d.message.clone()).collect()
}

#[test]
fn long_lines_and_deep_blocks_take_no_time() {
    for text in [
        "x".repeat(1 << 20),
        "$X=1\nrouter_id ".to_owned() + &"${X}".repeat(1 << 15),
        "a { ".repeat(1 << 15),
        "$".repeat(1 << 16),
        "${".repeat(1 << 16),
        "{ ".repeat(10_000) + &"}".repeat(10_000),
        "{ @x ".repeat(1 << 14),
        "~SEQ(a,1) ".repeat(1 << 16),
        "@one ".repeat(1 << 16),
        "include {".to_owned() + &"{a,b}".repeat(1 << 12),
        "\"".repeat(1 << 16),
    ] {
        exercise(text.as_bytes());
    }
}
