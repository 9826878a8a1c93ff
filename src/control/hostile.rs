//! Hostile configurations: as much as fits in a file of whatever takes longest.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::config::parse;

/// How much longer the long text of a kind is than the short one.
const LONGER: usize = 4;
const SHORT: usize = 1 << 16;

/// The time of the processor that reading takes, whatever else the machine does.
fn time_to_read(text: &str) -> Duration {
    let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let start = now();
    let parsed = parse("f", text.as_bytes());
    assert!(parsed.report().len() < 1 << 20);
    now() - start
}

/// A text of so many bytes: what `part` makes of numbers, between `before` and `after`.
fn filled(bytes: usize, before: &str, part: impl Fn(usize) -> String, after: &str) -> String {
    let mut text = before.to_owned();
    for n in 0.. {
        text += &part(n);
        if text.len() > bytes {
            break;
        }
    }
    text + after
}

/// Texts of so many bytes, by what there is of them.
fn texts(bytes: usize) -> Vec<(&'static str, String)> {
    let megabyte = |before: &str, part: &dyn Fn(usize) -> String, after: &str| {
        filled(bytes, before, part, after)
    };
    let of = |keyword: &'static str| {
        move |n| format!("{keyword} a{n} {{\nscript x\nfile x\nprocess x\nneighbor_ip ::1\n}}\n")
    };
    let instance = "vrrp_instance V {\ninterface eth0\nvirtual_router_id 1\n";
    let many = |keyword: &'static str| {
        let definition = of(keyword);
        let list = keyword
            .trim_start_matches("vrrp_")
            .trim_end_matches("_instance");
        let list = if keyword == "vrrp_script" {
            "track_script"
        } else if list == "bfd" {
            "track_bfd"
        } else {
            list
        };
        let (mut text, mut names) = (String::new(), String::new());
        for n in 0..bytes / 90 {
            text += &definition(n);
            names += &format!("a{n}\n");
        }
        format!("{text}{instance}{list} {{\n{names}}}\n}}\n")
    };
    vec![
        ("vrrp_script", many("vrrp_script")),
        ("track_file", many("track_file")),
        ("vrrp_track_process", many("vrrp_track_process")),
        ("bfd_instance", many("bfd_instance")),
        (
            "vrrp_sync_group",
            megabyte("", &|n| format!("vrrp_sync_group {n} {{}}\n"), ""),
        ),
        (
            "members",
            megabyte(
                "vrrp_sync_group G {\n",
                &|n| format!("group {{ {n} }}\n"),
                "}\n",
            ),
        ),
        (
            "delays",
            megabyte(
                "",
                &|n| format!("interface_up_down_delays {{ e{n} 1 }}\n"),
                "",
            ),
        ),
        (
            "authentication",
            megabyte(
                instance,
                &|n| format!("authentication {{\nx{n}\n}}\n"),
                "}\n",
            ),
        ),
        (
            "auth_type",
            megabyte(
                &format!("{instance}authentication {{\n"),
                &|n| format!("auth_pass p{n}\nauth_type t{n}\n"),
                "}\n}\n",
            ),
        ),
        (
            "passwords on a line",
            megabyte(
                &format!("{instance}authentication {{\nauth_pass "),
                &|n| format!("{n} "),
                "\n}\n}\n",
            ),
        ),
        (
            "definitions of definitions",
            megabyte("", &|n| format!("$A{n}=$A{}\n", n + 1), "router_id $A0\n"),
        ),
        (
            "groups that are not there",
            megabyte(
                "",
                &|n| {
                    format!("virtual_server_group g{n} {{\n}}\nvirtual_server group h{n} {{\n}}\n")
                },
                "",
            ),
        ),
        (
            "one group for all",
            megabyte(
                &(0..bytes / 35).fold("virtual_server_group g {\n".to_owned(), |text, n| {
                    text + &format!("10.{}.{}.1\n", n / 250, n % 250)
                }),
                &|n| format!("}}\nvirtual_server group g {{\nreal_server 10.1.1.1 {n} {{\n}}\n"),
                "}\n",
            ),
        ),
    ]
}

/// Four times the text takes four times as long, not sixteen times.
#[test]
fn the_time_that_reading_takes_grows_as_the_text_does() {
    let long = texts(LONGER * SHORT);
    for ((name, short), (_, long)) in texts(SHORT).into_iter().zip(long) {
        let short = (0..2).map(|_| time_to_read(&short)).min().unwrap();
        let most = 2 * u32::try_from(LONGER).unwrap() * short + Duration::from_millis(50);
        let long = time_to_read(&long);
        assert!(long < most, "{name}: {long:?} after {short:?}");
    }
}
