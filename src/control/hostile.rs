//! Hostile configurations: a megabyte of whatever takes longest.

use std::time::Duration;

use crate::{config::parse, sys::clock};

/// The time that reading takes.
fn time_to_read(text: &str) -> Duration {
    let start = clock::now();
    let parsed = parse("f", text.as_bytes());
    assert!(parsed.report().len() < 1 << 20);
    clock::now() - start
}

/// A text of a megabyte: what `part` makes of numbers, between `before` and `after`.
fn megabyte(before: &str, part: impl Fn(usize) -> String, after: &str) -> String {
    let mut text = before.to_owned();
    for n in 0.. {
        text += &part(n);
        if text.len() > 1 << 20 {
            break;
        }
    }
    text + after
}

#[test]
fn a_megabyte_of_one_kind_takes_as_long_as_one_of_another() {
    let usual = megabyte("", |n| format!("virtual_server 10.0.0.1 {n} {{\n}}\n"), "");
    let usual = time_to_read(&usual);
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
        for n in 0..12_000 {
            text += &definition(n);
            names += &format!("a{n}\n");
        }
        format!("{text}{instance}{list} {{\n{names}}}\n}}\n")
    };
    let cases = [
        ("vrrp_script", many("vrrp_script")),
        ("track_file", many("track_file")),
        ("vrrp_track_process", many("vrrp_track_process")),
        ("bfd_instance", many("bfd_instance")),
        (
            "vrrp_sync_group",
            megabyte("", |n| format!("vrrp_sync_group {n} {{}}\n"), ""),
        ),
        (
            "members",
            megabyte(
                "vrrp_sync_group G {\n",
                |n| format!("group {{ {n} }}\n"),
                "}\n",
            ),
        ),
        (
            "delays",
            megabyte(
                "",
                |n| format!("interface_up_down_delays {{ e{n} 1 }}\n"),
                "",
            ),
        ),
        (
            "authentication",
            megabyte(
                instance,
                |n| format!("authentication {{\nx{n}\n}}\n"),
                "}\n",
            ),
        ),
        (
            "auth_type",
            megabyte(
                &format!("{instance}authentication {{\n"),
                |n| format!("auth_pass p{n}\nauth_type t{n}\n"),
                "}\n}\n",
            ),
        ),
        (
            "passwords on a line",
            megabyte(
                &format!("{instance}authentication {{\nauth_pass "),
                |n| format!("{n} "),
                "\n}\n}\n",
            ),
        ),
        (
            "definitions of definitions",
            megabyte("", |n| format!("$A{n}=$A{}\n", n + 1), "router_id $A0\n"),
        ),
        (
            "groups that are not there",
            megabyte(
                "",
                |n| format!("virtual_server_group g{n} {{\n}}\nvirtual_server group h{n} {{\n}}\n"),
                "",
            ),
        ),
        (
            "one group for all",
            megabyte(
                &(0..30_000).fold("virtual_server_group g {\n".to_owned(), |text, n| {
                    text + &format!("10.{}.{}.1\n", n / 250, n % 250)
                }),
                |n| format!("}}\nvirtual_server group g {{\nreal_server 10.1.1.1 {n} {{\n}}\n"),
                "}\n",
            ),
        ),
    ];
    for (name, text) in cases {
        let time = time_to_read(&text);
        assert!(
            time < 8 * usual + Duration::from_secs(2),
            "{name}: {time:?}, others {usual:?}"
        );
    }
}
