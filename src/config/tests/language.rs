//! Conditions, definitions, repetitions and includes: what they make of a file, and where findings in it point.

use std::{cell::RefCell, collections::BTreeMap};

use super::{
    super::{Host, Parsed, Request, Severity, Unreadable, parse, read},
    instance, lines, said, server,
};

/// Files and an environment that are nowhere but here.
#[derive(Default)]
pub(super) struct Desk {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// What was asked for.
    asked: RefCell<Vec<String>>,
}

impl Desk {
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter();
        Self {
            files: files
                .map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()))
                .collect(),
            asked: RefCell::default(),
        }
    }

    pub(super) fn parse(&self, text: &[u8]) -> Parsed {
        read(&Request {
            file: "/etc/f",
            folder: "/etc",
            text,
            id: "one",
            seed: 7,
            all_files: false,
            host: self,
        })
    }

    /// The findings of `text`, without the name of its file.
    fn said(&self, text: &str) -> Vec<String> {
        let all = lines(&self.parse(text.as_bytes())).into_iter();
        all.map(|line| line.trim_start_matches("/etc/f:").to_owned())
            .collect()
    }
}

impl Host for Desk {
    fn matching(&self, pattern: &str) -> Vec<String> {
        self.asked.borrow_mut().push(pattern.to_owned());
        let (start, end) = pattern.split_once('*').unwrap_or((pattern, ""));
        let names = self.files.keys();
        names
            .filter(|name| match pattern.contains('*') {
                true => name.starts_with(start) && name.ends_with(end),
                false => *name == pattern,
            })
            .cloned()
            .collect()
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, Unreadable> {
        match path.rsplit('/').next() {
            Some("folder") => Err(Unreadable::NoFile),
            Some("program") => Err(Unreadable::Executable),
            Some("locked") => Err(Unreadable::Failed("permission denied".to_owned())),
            _ => Ok(self.files[path].clone()),
        }
    }

    fn variable(&self, name: &str) -> Option<String> {
        (name == "NODE").then(|| "n1".to_owned())
    }
}

/// The addresses of the first instance, in the order in which they were given.
fn vips(parsed: &Parsed) -> Vec<String> {
    let instance = &parsed.config.vrrp_instances[0];
    let vips = instance.virtual_ipaddress.iter();
    vips.map(|vip| vip.prefix.to_string()).collect()
}

/// An instance whose addresses are the lines given, after the lines `before`.
fn listing(before: &str, addresses: &str) -> String {
    format!(
        "{before}\nvrrp_instance V {{\ninterface eth0\nvirtual_router_id 7\n\
         virtual_ipaddress {{\n{addresses}\n}}\n}}\n"
    )
}

/// The addresses that come of such a file, which is in order.
fn listed(before: &str, addresses: &str) -> Vec<String> {
    let parsed = Desk::default().parse(listing(before, addresses).as_bytes());
    let mut found = parsed.diagnostics.iter();
    let notes = found.all(|d| d.severity == Severity::Note);
    assert!(notes, "{}", parsed.report());
    vips(&parsed)
}

#[test]
fn definitions_are_resolved_where_they_are_used() {
    assert_eq!(
        listed(
            "$BASE=10.2.${SUB}\n$SUB=0",
            "${BASE}.100/32\n$SUB=10\n${BASE}.100/32"
        ),
        ["10.2.0.100/32", "10.2.10.100/32"]
    );
    // Before a blank, a slash, a closing parenthesis or the end of the line, and in quotes.
    assert_eq!(
        listed(
            "  $A=10.0.0.1 # c\n$B=24\n$C=10.0.0",
            "$A/30\n\"${C}.2/${B}\"\n${C}.3/$B\n${C}.4 # x"
        ),
        ["10.0.0.1/30", "10.0.0.2/24", "10.0.0.3/24", "10.0.0.4/32"]
    );
}

#[test]
fn what_is_predefined_is_known() {
    let parsed = Desk::default().parse(
        b"global_defs {\nrouter_id ${_PWD}:${_INSTANCE}:${_ENV NODE}:${_HASH}${_BANG}x:${_RANDOM 5 5}\n}",
    );
    let router = parsed.config.global.router_id.unwrap();
    assert_eq!(router, "/etc:one:n1:#!x:5");
    let random = |text: &str| {
        let parsed = Desk::default().parse(format!("global_defs {{\n{text}\n}}").as_bytes());
        parsed.config.global.router_id.unwrap()
    };
    assert_eq!(
        random("router_id ${_RANDOM}"),
        random("router_id ${_RANDOM}")
    );
    let seeded = random("random_seed 3\nrouter_id ${_RANDOM 0 1000000000}");
    assert_ne!(seeded, random("router_id ${_RANDOM 0 1000000000}"));
    let said = Desk::default().said("${_ENV NONE}global_defs {\n}");
    assert!(said[0].contains("no such variable"), "{said:?}");
}

#[test]
fn a_dollar_that_begins_no_definition_is_a_plain_character() {
    let text = instance("authentication {\nauth_type PASS\nauth_pass Sec$ret1\n}");
    let parsed = Desk::default().parse(text.as_bytes());
    assert!(parsed.diagnostics.is_empty(), "{}", parsed.report());
    let vs = server("", "MISC_CHECK {\nmisc_path \"/x $1 ${UNDEFINED} $y\"\n}");
    let shown = Desk::default().parse(vs.as_bytes()).report();
    assert!(
        shown.contains("note: nothing of this name is defined here"),
        "{shown}"
    );
    // What is no reference: another character follows, or the name starts with a digit.
    let text = "$X=1\nglobal_defs {\nrouter_id \"$Xy $1 $X. a$X/b\"\n}";
    let parsed = Desk::default().parse(text.as_bytes());
    assert_eq!(parsed.config.global.router_id.unwrap(), "$Xy $1 $X. a1/b");
}

#[test]
fn definitions_of_several_lines_nest_and_hold_definitions() {
    let text = "\
$RS= \\
  real_server 10.0.${N}.${M} 80 { \\
    weight ${M} \\
    @one inhibit_on_failure \\
    @two zork \\
  }
$VS=virtual_server 10.1.${N}.1 80 { \\
  lb_algo rr \\
  lb_kind NAT \\
  protocol TCP \\
  $M=1 \\
  $RS \\
  $M=2 \\
  $RS \\
}
$N=0
$VS
$N=9
$VS
";
    let parsed = Desk::default().parse(text.as_bytes());
    assert_eq!(lines(&parsed), [""; 0]);
    let servers = parsed.config.virtual_servers.iter();
    let shown: Vec<String> = servers
        .flat_map(|vs| {
            let reals = vs.real_servers.iter();
            reals.map(|rs| format!("{} {} {}", vs.key(), rs.endpoint, rs.inhibit_on_failure))
        })
        .collect();
    assert_eq!(
        shown,
        [
            "[10.1.0.1]:tcp:80 10.0.0.1:80 true",
            "[10.1.0.1]:tcp:80 10.0.0.2:80 true",
            "[10.1.9.1]:tcp:80 10.0.9.1:80 true",
            "[10.1.9.1]:tcp:80 10.0.9.2:80 true",
        ]
    );
}

#[test]
fn a_condition_keeps_a_line_by_the_configuration_id() {
    assert_eq!(
        listed(
            "$ME=@one\n@two $A=10.0.0.1\n@one $A=10.0.0.2\n@two $B=x \\\n y",
            "$A\n@one 10.0.0.3\n@^one 10.0.0.4\n@^two 10.0.0.5\n@two 10.0.0.6\n$ME 10.0.0.7\n@one"
        ),
        ["10.0.0.2/32", "10.0.0.3/32", "10.0.0.5/32", "10.0.0.7/32"]
    );
}

#[test]
fn a_line_is_repeated_for_the_numbers_of_a_sequence() {
    let last = |addresses: &str| -> Vec<String> {
        let all = listed("$N=3", addresses).into_iter();
        all.map(|a| {
            a.trim_end_matches("/32")
                .rsplit(['.', ':'])
                .next()
                .unwrap()
                .to_owned()
        })
        .collect()
    };
    assert_eq!(last("~SEQ(v, 3) 10.0.0.$v"), ["1", "2", "3"]);
    assert_eq!(last("~SEQ(v,$N)10.0.0.${v}"), ["1", "2", "3"]);
    assert_eq!(last("~SEQ(v, 7, 5) 10.0.0.$v"), ["7", "6", "5"]);
    assert_eq!(
        last("~SEQ(v, 0x10, 010, 0x20) 10.0.0.$v"),
        ["16", "24", "32"]
    );
    let text = b"global_defs {\nnotification_email {\n~SEQx(v, 8, 3, 0x10) m$v\n}\n}";
    let global = Desk::default().parse(text).config.global;
    assert_eq!(global.mail.recipients, ["m8", "mb", "me"]);
    // The last one runs fastest.
    assert_eq!(
        listed("", "~SEQ(a, 2) ~SEQ(b, 8, 9) 10.0.${a}.$b"),
        ["10.0.1.8/32", "10.0.1.9/32", "10.0.2.8/32", "10.0.2.9/32"]
    );
}

#[test]
fn a_line_is_repeated_for_the_values_of_a_list() {
    assert_eq!(
        listed("", "~LST(v, 4, 6) 10.0.0.$v"),
        ["10.0.0.4/32", "10.0.0.6/32"]
    );
    assert_eq!(
        listed("", "~LST({a, b}, {1,5},{2,6}) ~SEQ(c, 2) 10.${a}.${b}.${c}"),
        ["10.1.5.1/32", "10.1.5.2/32", "10.2.6.1/32", "10.2.6.2/32"]
    );
    // A member that is missing is empty.
    assert_eq!(
        listed("", "~LST({a,b}, {1,0},{2}) 10.0.0.${a}${b}"),
        ["10.0.0.10/32", "10.0.0.2/32"]
    );
    // A definition of several lines, for each.
    let text = "$I= \\\nvrrp_instance V${n} { \\\ninterface eth0 \\\nvirtual_router_id ${n} \\\n\
                virtual_ipaddress { \\\n10.0.0.$n \\\n} \\\n}\n~SEQ(n, 3) $I\n";
    let parsed = Desk::default().parse(text.as_bytes());
    assert_eq!(lines(&parsed), [""; 0]);
    let names: Vec<_> = parsed
        .config
        .vrrp_instances
        .iter()
        .map(|i| &i.name)
        .collect();
    assert_eq!(names, ["V1", "V2", "V3"]);
}

#[test]
fn what_no_repetition_can_be_read_from_costs_its_line() {
    for (line, why) in [
        ("~SEQ(v, 1, 0, 5) 10.0.0.$v", "the steps do not lead"),
        ("~SEQ(v, 5, 1, 1) 10.0.0.$v", "the steps do not lead"),
        ("~SEQ(v, x) 10.0.0.$v", "a value is no number"),
        ("~SEQ(v, 1, 1, 1, 1) 10.0.0.$v", "one to three numbers"),
        ("~SEQ(1v, 3) 10.0.0.$v", "a name is letters"),
        ("~SEQx(v, -3) 10.0.0.$v", "no hexadecimal form"),
        ("~SEQ v 3 10.0.0.$v", "in parentheses"),
        ("~SEQ(v, 3 10.0.0.$v", "in parentheses"),
        ("~SEQ", "in parentheses"),
        ("~LST(v) 10.0.0.$v", "no value"),
        ("~LST(v, {1,2}) 10.0.0.$v", "more values than names"),
        ("~LST({a,b}, {1,2,3}) 10.0.0.$a", "more values than names"),
    ] {
        let parsed = Desk::default().parse(listing("", &format!("{line}\n10.0.0.99")).as_bytes());
        let said = lines(&parsed);
        assert_eq!(said.len(), 1, "{line}: {said:?}");
        assert!(said[0].contains(":6:1: warning: "), "{line}: {said:?}");
        assert!(said[0].contains(why), "{line}: {said:?}");
        assert_eq!(vips(&parsed), ["10.0.0.99/32"], "{line}");
    }
}

#[test]
fn includes_stand_where_they_are_named() {
    let desk = Desk::of(&[
        (
            "/etc/role.inc",
            "state MASTER\npriority 120\ninclude sub/more.inc",
        ),
        ("/etc/sub/more.inc", "advert_int 3\ninclude last.inc\n"),
        ("/etc/sub/last.inc", "nopreempt_typo ${_PWD}"),
        (
            "/etc/vips.inc",
            "10.0.0.20/24\n10.0.0.21/24 dev eth0 label eth0:v",
        ),
        ("/etc/d/b.conf", "10.0.0.32"),
        ("/etc/d/a.conf", "10.0.0.31"),
    ]);
    let text = "vrrp_instance V1 {\ninterface eth0\ninclude role.inc # here\nvirtual_router_id 51\n\
                virtual_ipaddress { include vips.inc }\nvirtual_ipaddress_excluded {\n\
                @one include d/*.conf\n@two include d/*.conf\n}\n}\n";
    let parsed = desk.parse(text.as_bytes());
    assert_eq!(
        lines(&parsed),
        ["/etc/sub/last.inc:1:1: warning: unknown keyword `nopreempt_typo`"]
    );
    let instance = &parsed.config.vrrp_instances[0];
    assert_eq!((instance.priority, instance.advert_int.as_secs()), (120, 3));
    assert_eq!(vips(&parsed), ["10.0.0.20/24", "10.0.0.21/24"]);
    let excluded = instance.virtual_ipaddress_excluded.iter();
    let excluded: Vec<String> = excluded.map(|vip| vip.prefix.to_string()).collect();
    assert_eq!(excluded, ["10.0.0.31/32", "10.0.0.32/32"]);
    assert_eq!(
        parsed.files(),
        [
            "/etc/f",
            "/etc/role.inc",
            "/etc/sub/more.inc",
            "/etc/sub/last.inc",
            "/etc/vips.inc",
            "/etc/d/a.conf",
            "/etc/d/b.conf"
        ]
    );
}

#[test]
fn an_include_without_a_file_is_judged_by_its_checks() {
    let desk = Desk::of(&[
        ("/etc/a.inc", "# nothing"),
        ("/etc/folder", ""),
        ("/etc/program", "x"),
        ("/etc/locked", "x"),
    ]);
    for (line, said) in [
        ("include a.inc", ""),
        ("include x/*.conf", ""),
        (
            "include {a,b}.inc",
            "1:9: warning: no file matches one of the alternatives",
        ),
        ("include b.inc", "1:9: warning: there is no such file"),
        ("include \"a.inc\"", "1:9: warning: there is no such file"),
        (
            "include",
            "1:1: warning: an include needs the name of a file",
        ),
        ("includer b.inc", "1:10: warning: there is no such file"),
        ("includem b.inc", "1:10: error: there is no such file"),
        ("includem b*.inc", ""),
        ("includew b*.inc", "1:10: error: no file matches"),
        (
            "includeb {a,b}.inc",
            "1:10: error: no file matches one of the alternatives",
        ),
        ("includea b.inc", "1:10: error: there is no such file"),
        (
            "include folder",
            "1:9: warning: `/etc/folder` is not read: it is not a regular file",
        ),
        (
            "includea program",
            "1:10: warning: `/etc/program` is not read: it may be executed",
        ),
        (
            "include locked",
            "1:9: warning: `/etc/locked` is not read: permission denied",
        ),
        (
            "includer locked",
            "1:10: error: `/etc/locked` is not read: permission denied",
        ),
        ("included x", "1:1: warning: unknown keyword `included`"),
    ] {
        let found = desk.said(line);
        assert_eq!(
            found.first().map_or("", String::as_str),
            said,
            "{line}: {found:?}"
        );
        assert!(found.len() < 2, "{line}: {found:?}");
    }
    let checked = "global_defs {\ninclude_check match\n}\ninclude b.inc\n";
    let found = desk.said(checked);
    assert!(
        found.contains(&"4:9: error: there is no such file".to_owned()),
        "{found:?}"
    );
}

#[test]
fn files_that_include_one_another_end() {
    let desk = Desk::of(&[
        ("/etc/a", "include b"),
        ("/etc/b", "include a"),
        ("/etc/c", "include d\ninclude d\n"),
        ("/etc/d", "include e\ninclude e\n"),
        ("/etc/e", "zork\n"),
    ]);
    let parsed = desk.parse(b"include a");
    assert_eq!(
        lines(&parsed),
        ["/etc/b:1:9: warning: the file includes itself; it is not read again"]
    );
    assert_eq!(parsed.files(), ["/etc/f", "/etc/a", "/etc/b"]);
    // The same mistake in the same place is said once, however often it is read.
    let parsed = desk.parse(b"include c");
    assert_eq!(
        lines(&parsed),
        ["/etc/e:1:1: warning: unknown keyword `zork`"]
    );
}

#[test]
fn findings_in_expanded_text_point_to_what_is_written() {
    let text = "$PRIO=300\nvrrp_instance V {\ninterface eth0\nvirtual_router_id 7\n\
                priority $PRIO # as agreed\n~SEQ(n, 2) zork$n x\nvirtual_ipaddress {\n10.0.0.1\n}\n}\n";
    let parsed = Desk::default().parse(text.as_bytes());
    let report = parsed.report();
    assert!(
        report.contains("    5 | priority $PRIO # as agreed\n      |          ^^^^^ "),
        "{report}"
    );
    assert!(
        report.contains("from the definition of `$PRIO` at /etc/f:1\n"),
        "{report}"
    );
    assert!(
        report.contains("/etc/f:6:12: warning: unknown keyword `zork1`"),
        "{report}"
    );
    assert!(
        report.contains("    6 | ~SEQ(n, 2) zork$n x\n      |            ^^^^^^\n"),
        "{report}"
    );
    let text = "$BODY= \\\n interface eth0 \\\n zork 1 \\\n\nvrrp_instance V {\n$BODY\n}\n";
    let report = Desk::default().parse(text.as_bytes()).report();
    let expected = "/etc/f:6:1: warning: unknown keyword `zork`\n    6 | $BODY\n      | ^^^^^ \
                    from the definition of `$BODY` at /etc/f:3\n";
    assert!(report.contains(expected), "{report}");
}

#[test]
fn findings_come_in_the_order_of_reading() {
    let desk = Desk::of(&[("/etc/z.inc", "zork2\nzork3\n")]);
    assert_eq!(
        lines(&desk.parse(b"zork1\ninclude z.inc\nzork4\n")),
        [
            "/etc/f:1:1: warning: unknown keyword `zork1`",
            "/etc/z.inc:1:1: warning: unknown keyword `zork2`",
            "/etc/z.inc:2:1: warning: unknown keyword `zork3`",
            "/etc/f:3:1: warning: unknown keyword `zork4`"
        ]
    );
}

#[test]
fn no_password_is_shown_however_it_gets_into_its_place() {
    let desk = Desk::of(&[
        ("/etc/pass.inc", "auth_pass S3cr3tpassword\n"),
        ("/etc/word.inc", "S3cr3tpassword\n"),
        ("/etc/key.inc", "$KEY=S3cr3tpassword zork \"\n"),
    ]);
    let wrong = "auth_type PASS\n";
    for (before, inside) in [
        ("$KEY=S3cr3tpassword", "auth_pass $KEY"),
        ("$KEY=S3cr3tpassword", "auth_pass \"${KEY}\" more"),
        ("$KEY=S3cr3t", "auth_pas ${KEY}${KEY}"),
        ("$A=S3cr3t\n$KEY=x${A}y", "auth_pass $KEY ${A} ${B}"),
        ("$AUTH= \\\nauth_pass S3cr3tpassword \\\nzork", "$AUTH"),
        ("$AUTH=auth_pass S3cr3tpassword", "$AUTH zork"),
        ("", "~LST(k, S3cr3tpassword, S3cr3tpasswort) auth_pass $k"),
        ("", "~LST({k,l}, {S3cr3tpassword}) auth_pass x ${k}"),
        ("", "~LST(k, S3cr3t, S3cr3u) auth_pas $k"),
        ("", "include pass.inc"),
        ("", "auth_pass\ninclude word.inc"),
        ("include key.inc", "auth_pass $KEY"),
        ("", "@one auth_pass S3cr3tpassword"),
        ("", "zork { auth_pass S3cr3tpassword }"),
    ] {
        let text = format!(
            "{before}\n{}",
            instance(&format!("authentication {{\n{wrong}{inside}\n}}"))
        );
        let parsed = desk.parse(text.as_bytes());
        let shown = super::robust::output(&parsed);
        assert!(!shown.contains("S3cr3t"), "{text}\n{shown}");
        assert!(!parsed.diagnostics.is_empty(), "{text}");
    }
}

#[test]
fn a_lost_brace_is_pointed_at_once() {
    let text = "vrrp_instance V1 {\n    interface eth0\n    virtual_router_id 51\n    virtual_ipaddress {\n        \
                10.0.0.18 dev eth0\n    zork {\n        10.0.0.19\n    }\n    authentication {\n        \
                auth_type PASS\n        auth_pass abc\n    }\n}\nglobal_defs {\n}\n";
    let parsed = Desk::default().parse(text.as_bytes());
    let said = lines(&parsed);
    let braces: Vec<_> = said.iter().filter(|line| line.contains('}')).collect();
    assert_eq!(braces.len(), 1, "{said:?}");
    assert!(
        braces[0].ends_with(":9:5: error: a `}` is missing before `authentication`"),
        "{said:?}"
    );
    assert_eq!(vips(&parsed)[0], "10.0.0.18/32");
    assert!(parsed.config.vrrp_instances[0].authentication.is_some());
}

#[test]
fn oddities_of_editors_are_forgiven() {
    let text = b"\xef\xbb\xbfglobal_defs {\r\n router_id a\\#b ! c\r\n}\r\n";
    let parsed = Desk::default().parse(text);
    let found: Vec<_> = parsed
        .diagnostics
        .iter()
        .map(|d| d.message.as_str())
        .collect();
    assert_eq!(
        found[0],
        "the file starts with a byte order mark, which is skipped"
    );
    assert_eq!(parsed.config.global.router_id.as_deref(), Some("a#b"));
    let long = format!("global_defs {{\n router_id {}\n}}", "x".repeat(2_000));
    let parsed = Desk::default().parse(long.as_bytes());
    assert_eq!(
        parsed.config.global.router_id.map(|id| id.len()),
        Some(2_000)
    );
    let note =
        "/etc/f:2:1023: note: the line is longer than keepalived reads; here all of it counts";
    assert!(lines(&Desk::default().parse(long.as_bytes())).contains(&note.to_owned()));
    assert_eq!(
        Desk::default().said("a\0b\nglobal_defs {\n}"),
        ["1:2: warning: the line holds a NUL byte and is ignored"]
    );
}

#[test]
fn a_name_before_a_slash_is_replaced_and_keepalived_2_2_is_said_not_to() {
    let text = "$N=10.0.0.1\n~SEQ(X, 1, 2) static_ipaddress { 10.0.0.$X/24 }\n\
                static_routes {\n$N/32 dev eth0\n${N}/31 dev eth0\n}\n";
    let parsed = parse("f", text.as_bytes());
    let notes: Vec<String> = (parsed.diagnostics.iter())
        .filter(|d| d.message.contains("2.2"))
        .map(|d| format!("{}:{}: {}: {}", d.line, d.column, d.severity, d.message))
        .collect();
    assert_eq!(
        notes,
        [
            "2:41: note: keepalived 2.2 puts nothing in the place of a name before `/`",
            "4:1: note: keepalived 2.2 puts nothing in the place of a name before `/`"
        ]
    );
    assert_eq!(parsed.config.static_addresses.len(), 2);
    assert_eq!(parsed.config.static_routes.len(), 2);
}

#[test]
fn a_block_that_begins_on_a_repeated_line_is_one_finding() {
    let body = "protocol TCP\nlb_algo rr\nlb_kind DR\nreal_server 10.0.1.1 80 {\n}\n}\n";
    for repeat in ["~SEQ(X, 1, 3)", "~LST(X, 1, 2, 3)"] {
        let text = format!("{repeat} virtual_server 10.0.0.$X 80 {{\n{body}");
        let parsed = parse("f", text.as_bytes());
        let found: Vec<&str> = parsed
            .diagnostics
            .iter()
            .map(|d| d.message.as_str())
            .collect();
        let word = &repeat[..4];
        assert_eq!(
            found,
            [format!(
                "`{word}` repeats one line, and a block begins on it"
            )]
        );
        assert!(parsed.has_errors());
        assert_eq!(parsed.config.virtual_servers.len(), 1);
    }
    // Once is not repeated, and a block that ends on the line is repeated whole.
    let once = format!("~SEQ(X, 1, 1) virtual_server 10.0.0.$X 80 {{\n{body}");
    assert_eq!(said(&once), [""; 0]);
    let whole = "~SEQ(X, 1, 2) virtual_server_group G$X { }\n";
    assert!(
        said(whole)
            .iter()
            .all(|line| !line.contains("repeats one line"))
    );
}
