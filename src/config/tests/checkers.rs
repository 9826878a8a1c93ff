//! Checkers: what each says in the model, and what becomes of what is wrong in one.

use super::{
    super::{
        CheckKind, Checker, DnsType, HttpCheck, HttpVersion, Severity, UdpCheck, VirtualServer,
        parse,
    },
    said, server,
};

/// What BFD_CHECK and FILE_CHECK can look at.
const DEFINED: &str = "bfd_instance B {\nneighbor_ip 10.0.0.2\n}\ntrack_file F {\nfile /f\n}\n";

/// The virtual server with these lines in it and in its real server, whatever there is to say.
fn read(more: &str, real: &str) -> VirtualServer {
    let parsed = parse("f", (server(more, real) + DEFINED).as_bytes());
    parsed.config.virtual_servers.into_iter().next().unwrap()
}

fn checkers(text: &str) -> Vec<Checker> {
    read("", text).real_servers.remove(0).checkers
}

/// The only checker of `block`.
fn one(block: &str) -> CheckKind {
    let [checker] = &checkers(block)[..] else {
        panic!("{block}");
    };
    checker.kind.clone()
}

fn http(lines: &str) -> HttpCheck {
    match one(&format!("HTTP_GET {{\n{lines}\n}}")) {
        CheckKind::Http(check) => *check,
        other => panic!("{other:?}"),
    }
}

fn udp(lines: &str) -> UdpCheck {
    match one(&format!("UDP_CHECK {{\n{lines}\n}}")) {
        CheckKind::Udp(check) => *check,
        other => panic!("{other:?}"),
    }
}

/// What is said of the lines of a checker, without the places and how bad it is.
fn about(checker: &str, lines: &str) -> Vec<String> {
    let text = server("", &format!("{checker} {{\n{lines}\n}}")) + DEFINED;
    let refused = format!("`{checker}` is not supported");
    let found = parse("f", text.as_bytes()).diagnostics;
    let messages = found.into_iter().map(|found| found.message);
    messages
        .filter(|message| !message.contains(&refused) && !message.contains("is not applied yet"))
        .collect()
}

/// The same for a `url` with a path.
fn about_url(lines: &str) -> Vec<String> {
    about("HTTP_GET", &format!("url {{\npath /\n{lines}\n}}"))
}

#[test]
fn pages_are_read_with_everything_that_they_must_be() {
    let check = http(
        "virtualhost \"Shop (192.0.2.140) port 80\"\nhttp_protocol 1.0c\nfast_recovery\ntls_compliant\n\
         url {\npath /a\ndigest 9B3A0C85a887a256d6939da88aabd8cd\nstatus_code 200-299 301\nstatus_code 404\n\
         virtualhost v\nregex 'o k'\"!\"\nregex_no_match\nregex_options \"caseless dotall\" utf\n\
         regex_min_offset 3\nregex_max_offset 9\nregex_stack 10 20\n}\nurl {\npath /b\ntls_compliant off\n}",
    );
    assert_eq!(
        check.virtualhost.as_deref(),
        Some("Shop (192.0.2.140) port 80")
    );
    assert_eq!(check.version, HttpVersion::V1_0Close);
    assert!(check.fast_recovery && check.tls.is_none());
    let [first, second] = &check.urls[..] else {
        panic!("{check:?}");
    };
    assert_eq!(first.digest.unwrap()[..2], [0x9b, 0x3a]);
    let codes: Vec<String> = first.status_codes.iter().map(ToString::to_string).collect();
    assert_eq!(codes, ["200-299", "301", "404"]);
    assert_eq!(second.status_codes[0].to_string(), "200-299");
    assert_eq!(first.virtualhost.as_deref(), Some("v"));
    assert_eq!((first.tls_compliant, second.tls_compliant), (true, false));
    let regex = first.regex.as_ref().unwrap();
    assert_eq!(regex.pattern, "o k!");
    assert!(regex.no_match);
    let options: Vec<&str> = regex.options.iter().map(|option| option.name()).collect();
    assert_eq!(options, ["caseless", "dotall", "utf"]);
    assert_eq!((regex.min_offset, regex.max_offset), (3, Some(9)));
    assert_eq!(regex.stack, Some((10, 20)));
    let tls = one("SSL_GET {\nenable_sni\nsni_name n\nurl {\npath /\n}\n}");
    let CheckKind::Http(check) = tls else {
        panic!("{tls:?}");
    };
    let tls = check.tls.unwrap();
    assert_eq!((tls.enable_sni, tls.sni_name.as_deref()), (true, Some("n")));
}

#[test]
fn what_is_wrong_on_a_page_costs_itself() {
    for (lines, message) in [
        ("status_code 99", "status_code `99` is left out"),
        ("status_code 200-100", "status_code `200-100` is left out"),
        ("status_code 600", "status_code `600` is left out"),
        ("status_code 200-", "status_code `200-` is left out"),
        ("digest 12", "digest `12` is left out"),
        (
            "digest +b3a0c85a887a256d6939da88aabd8cd",
            "digest `+b3a0c85a887a256d6939da88aabd8cd` is left out",
        ),
        (
            "regex a\nregex_options foo",
            "regex_options: `foo` is left out",
        ),
        ("regex 'a", "regex is left out: a quote is not closed"),
        (
            "regex a\nregex_stack 9",
            "regex_stack is left out: it needs a second number",
        ),
        (
            "regex a\nregex_stack 9 4",
            "regex_stack is left out: its start 9 is above 4",
        ),
        (
            "regex a\nregex_min_offset 9\nregex_max_offset 5",
            "the check always fails: regex_max_offset 5 is below regex_min_offset 9",
        ),
        ("regex_no_match", "this says nothing: the url has no regex"),
    ] {
        assert_eq!(about_url(lines), [message], "{lines}");
        let check = http(&format!("url {{\npath /\n{lines}\n}}"));
        assert_eq!(check.urls[0].path, "/", "{lines}");
        assert_eq!(check.urls[0].digest, None, "{lines}");
    }
    assert_eq!(
        about("HTTP_GET", "http_protocol 2.0\nurl {\npath /\n}"),
        ["http_protocol 2.0 is unknown; 1.0 counts"]
    );
    assert_eq!(about_url("paht /"), ["unknown keyword `paht`"]);
}

#[test]
fn a_check_that_could_not_run_is_left_out() {
    for (checker, lines, messages) in [
        ("HTTP_GET", "", &["HTTP_GET is left out: it has no url"][..]),
        (
            "SSL_GET",
            "url {\ndigest 9b3a0c85a887a256d6939da88aabd8cd\n}",
            &[
                "SSL_GET is left out: it has no url",
                "the url is left out: it has no path",
            ],
        ),
        (
            "MISC_CHECK",
            "misc_timeout 3",
            &["MISC_CHECK is left out: it has no misc_path"],
        ),
        (
            "BFD_CHECK",
            "alpha",
            &["BFD_CHECK is left out: it has no name"],
        ),
        (
            "FILE_CHECK",
            "weight 3",
            &["FILE_CHECK is left out: it has no track_file"],
        ),
    ] {
        assert_eq!(about(checker, lines), messages, "{checker}");
        let text = format!("{checker} {{\n{lines}\n}}");
        assert!(checkers(&text).is_empty(), "{checker}");
    }
}

#[test]
fn a_mail_server_may_have_several_hosts() {
    let text = "SMTP_CHECK {\nhelo_name me\nconnect_port 26\nretry 4\nhost {\nconnect_ip 10.0.0.3\n}\n\
                host {\nconnect_port 27\nwarmup 2\n}\n}";
    let all = checkers(text);
    let shown: Vec<String> = all
        .iter()
        .map(|checker| {
            let CheckKind::Smtp(check) = &checker.kind else {
                panic!("{checker:?}");
            };
            let warmup = checker.warmup.map(|time| time.as_secs());
            let (to, helo) = (check.connection.to, &check.helo_name);
            format!("{to} {helo} {} {warmup:?}", checker.retry)
        })
        .collect();
    assert_eq!(
        shown,
        ["10.0.0.3:26 me 4 Some(2)", "10.0.0.1:27 me 4 Some(2)"]
    );
    let old = "`host` is an old form; a SMTP_CHECK for each host says the same";
    assert_eq!(about("SMTP_CHECK", "host {\n}"), [old]);
    assert_eq!(
        about("SMTP_CHECK", "host {\nurl /\n}"),
        [old, "unknown keyword `url`"]
    );
}

#[test]
fn names_are_asked_for_by_type() {
    let dns = |lines: &str| match one(&format!("DNS_CHECK {{\n{lines}\n}}")) {
        CheckKind::Dns(check) => (check.record, check.name),
        other => panic!("{other:?}"),
    };
    assert_eq!(dns(""), (DnsType::Soa, ".".to_owned()));
    assert_eq!(
        dns("type aaaa\nname a.b."),
        (DnsType::Aaaa, "a.b.".to_owned())
    );
    for name in ["a..b", &format!("{}.b", "a".repeat(64))] {
        assert_eq!(dns(&format!("name {name}")).1, ".");
        let said = about("DNS_CHECK", &format!("name {name}"));
        assert!(said[0].contains("is left out: a label"), "{said:?}");
    }
    assert_eq!(
        about("DNS_CHECK", "type MX\ntype FOO"),
        [
            "`type` is given again; the last one counts",
            "type `FOO` is unknown; MX counts"
        ]
    );
}

#[test]
fn a_script_has_an_owner_a_time_and_a_say() {
    let misc = |lines: &str| match one(&format!("MISC_CHECK {{\n{lines}\n}}")) {
        CheckKind::Misc(check) => *check,
        other => panic!("{other:?}"),
    };
    let check = misc("misc_path \"/usr/bin/test -e /run/ok\"");
    assert_eq!(check.script.command, "/usr/bin/test -e /run/ok");
    assert_eq!(
        (check.script.user, check.timeout, check.dynamic),
        (None, None, false)
    );
    // As keepalived reads it: what stands behind the command is its user.
    let check = misc("misc_path /usr/bin/test -e grp\nmisc_timeout 9\nmisc_dynamic");
    assert_eq!(check.script.command, "/usr/bin/test");
    assert_eq!(check.script.user.as_deref(), Some("-e"));
    assert_eq!(check.script.group.as_deref(), Some("grp"));
    assert_eq!(check.timeout.map(|time| time.as_secs()), Some(9));
    assert!(check.dynamic);
    let check = misc("misc_path /x a b\nuser nobody\nmisc_timeout 0");
    assert_eq!(check.script.user.as_deref(), Some("nobody"));
    assert_eq!((check.script.group, check.timeout), (None, None));
}

#[test]
fn datagrams_are_written_in_hexadecimal() {
    // The example of keepalived.conf(5).
    let check = udp("payload Ab12f 3 456 546443123");
    let bytes = [0xab, 0x12, 0x0f, 3, 0x45, 6, 0x54, 0x64, 0x43, 0x12, 3];
    assert_eq!(check.payload.as_deref(), Some(&bytes[..]));
    assert_eq!(
        udp("payload \"Ab12f 3 456 546443123\"").payload,
        check.payload
    );
    assert_eq!(check.reply, None);
    let reply = udp("require_reply 4x Xf x\nmax_reply_length 9")
        .reply
        .unwrap();
    let shown: String = reply.pattern.iter().map(ToString::to_string).collect();
    assert_eq!(shown, "4xxf0x");
    assert_eq!((reply.min_length, reply.max_length), (0, 9));
    let any = udp("require_reply").reply.unwrap();
    assert_eq!((any.pattern.len(), any.max_length), (0, 255));
    for (lines, message) in [
        ("payload zz", "payload is left out: `zz` is not hexadecimal"),
        ("payload 4x", "payload is left out: `4x` is not hexadecimal"),
        (
            "require_reply 4y",
            "require_reply is left out: `4y` is not hexadecimal",
        ),
        (
            "require_reply\nmin_reply_length 300",
            "the check always fails: min_reply_length 300 is above max_reply_length 255",
        ),
        (
            "max_reply_length 3",
            "this says nothing: no reply is required",
        ),
    ] {
        assert_eq!(about("UDP_CHECK", lines), [message], "{lines}");
    }
}

#[test]
fn sessions_files_and_pings() {
    let file = |lines: &str| match one(&format!("FILE_CHECK {{\ntrack_file F\n{lines}\n}}")) {
        CheckKind::File(check) => check,
        other => panic!("{other:?}"),
    };
    assert_eq!(file("").weight, None);
    let weight = file("weight -2147483647 reverse").weight.unwrap();
    assert_eq!((weight.weight, weight.reverse), (-2_147_483_647, true));
    assert_eq!(
        about("FILE_CHECK", "track_file F\nweight 5 foo"),
        ["`foo` is ignored"]
    );
    // Of keepalived.conf(5), though the program does not know it.
    assert_eq!(
        about("FILE_CHECK", "track_file F\ndynamic"),
        ["unknown keyword `dynamic`"]
    );
    let [bfd] = &checkers("alpha\nretry 9\nBFD_CHECK {\nname B\n}")[..] else {
        panic!();
    };
    assert_eq!(bfd.kind, CheckKind::Bfd { name: "B".into() });
    assert_eq!((bfd.alpha, bfd.retry), (true, 1));
    assert_eq!(
        about("BFD_CHECK", "name B\nretry 3"),
        ["unknown keyword `retry`"]
    );
    assert_eq!(
        about("MISC_CHECK", "misc_path /x\nconnect_ip 10.0.0.1"),
        ["unknown keyword `connect_ip`"]
    );
    let ping = one("PING_CHECK {\nfwmark 7\nbind_if eth3\n}");
    let connection = ping.connection().unwrap();
    assert_eq!(
        (connection.mark, connection.bind_if.as_deref()),
        (7, Some("eth3"))
    );
}

#[test]
fn each_kind_has_its_own_defaults() {
    let url = "url {\npath /\n}";
    for (block, retry, seconds) in [
        ("TCP_CHECK {\n}".to_owned(), 1, 1),
        (format!("HTTP_GET {{\n{url}\n}}"), 1, 3),
        (format!("SSL_GET {{\n{url}\n}}"), 1, 3),
        ("SMTP_CHECK {\n}".to_owned(), 1, 1),
        ("DNS_CHECK {\n}".to_owned(), 3, 7),
        ("MISC_CHECK {\nmisc_path /x\n}".to_owned(), 0, 1),
        ("UDP_CHECK {\n}".to_owned(), 1, 1),
        ("PING_CHECK {\n}".to_owned(), 1, 1),
    ] {
        let real = format!("delay_loop 7\n{block}");
        let checker = checkers(&real).remove(0);
        let found = (checker.retry, checker.delay_before_retry.as_secs());
        assert_eq!(found, (retry, seconds), "{block}");
        assert_eq!(checker.delay_loop.as_secs(), 7, "{block}");
        let said = checkers(&format!("retry 5\ndelay_before_retry 6\n{block}")).remove(0);
        let found = (said.retry, said.delay_before_retry.as_secs());
        assert_eq!(found, (5, 6), "{block}");
    }
}

#[test]
fn virtual_hosts_come_from_the_innermost_that_names_one() {
    let page = "HTTP_GET {\nurl {\npath /\n}\n}";
    let name = |more: &str, real: &str| {
        let vs = read(more, &format!("{real}\n{page}"));
        let CheckKind::Http(check) = &vs.real_servers[0].checkers[0].kind else {
            panic!("{vs:?}");
        };
        check.virtualhost.as_deref().map(str::to_owned)
    };
    assert_eq!(name("", ""), None);
    assert_eq!(name("virtualhost v", "").as_deref(), Some("v"));
    assert_eq!(name("virtualhost v", "virtualhost r").as_deref(), Some("r"));
}

/// A real server that nothing checks would be up whatever happens.
#[test]
fn a_checker_that_is_not_run_refuses_the_file() {
    for checker in [
        "HTTP_GET",
        "SSL_GET",
        "SMTP_CHECK",
        "DNS_CHECK",
        "MISC_CHECK",
        "UDP_CHECK",
        "PING_CHECK",
        "BFD_CHECK",
        "FILE_CHECK",
    ] {
        let text = server("", &format!("{checker} {{\n}}"));
        let found = parse("f", text.as_bytes()).diagnostics;
        let refused = |d: &&super::super::Diagnostic| d.severity == Severity::Error;
        let errors: Vec<_> = found.iter().filter(refused).collect();
        let named = format!("`{checker}` is not supported by this version");
        assert_eq!(errors.len(), 1, "{found:?}");
        assert!(errors[0].message.starts_with(&named), "{found:?}");
    }
}

#[test]
fn the_password_of_a_key_is_never_shown() {
    let text =
        "SSL {\npassword geheim1 geheim2\nca /a\ncertificate /b\nkey /c\nfoo\n}\nSSL {\nca /d\n}\n";
    let parsed = parse("f", text.as_bytes());
    assert!(!parsed.report().contains("geheim"), "{}", parsed.report());
    let found = said(text);
    assert!(found.iter().any(|f| f.ends_with("unknown keyword")));
    assert!(
        found.contains(&"8:1: warning: `SSL` is given again; the last one counts".to_owned()),
        "{found:?}"
    );
    assert_eq!(parsed.config.ssl.ca.as_deref(), Some("/d"));
    let one = parse("f", "SSL {\npassword geheim\n}\n".as_bytes()).config;
    assert_eq!(one.ssl.password.as_ref().unwrap().text(), "geheim");
    assert!(!format!("{one:?}{one}").contains("geheim"));
    assert!(one.to_string().contains("password ****"));
}

#[test]
fn a_check_of_what_is_not_defined_is_left_out() {
    let checks = "BFD_CHECK {\nname b\n}\nFILE_CHECK {\ntrack_file f\n}";
    let said: Vec<String> = said(&server("", checks))
        .into_iter()
        .filter(|line| line.contains("left out"))
        .collect();
    assert_eq!(
        said,
        [
            "7:1: warning: BFD_CHECK is left out: there is no bfd_instance `b`",
            "10:1: warning: FILE_CHECK is left out: there is no track_file `f`"
        ]
    );
    let parsed = parse("f", server("", checks).as_bytes());
    assert!(
        parsed.config.virtual_servers[0].real_servers[0]
            .checkers
            .is_empty()
    );
    // Wherever in the file they are defined.
    let text = server("", checks)
        + "bfd_instance b {\nneighbor_ip 10.0.0.3\n}\ntrack_file f {\nfile /f\n}\n";
    let parsed = parse("f", text.as_bytes());
    assert_eq!(
        parsed.config.virtual_servers[0].real_servers[0]
            .checkers
            .len(),
        2
    );
}
