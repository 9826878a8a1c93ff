//! One mistake costs one statement, and shows no secret.

use super::{
    super::{Transport, parse},
    config, instance, said, server,
};

#[test]
fn a_wrong_value_leaves_the_one_before_it() {
    let again = "garp_master_delay 9\ngarp_master_delay x\nunicast_ttl 5\nunicast_ttl 300\n\
                 down_timer_adverts 7\ndown_timer_adverts 0\nskip_check_adv_addr on\nskip_check_adv_addr maybe";
    let all = config(&instance(&format!(
        "unicast_peer {{\n10.0.0.7\n}}\n{again}"
    )));
    let instance = &all.vrrp_instances[0];
    assert_eq!(instance.garp.master_delay.as_secs(), 9);
    assert_eq!(instance.down_timer_adverts, 7);
    assert!(instance.skip_check_adv_addr);
    assert!(matches!(
        instance.transport,
        Transport::Unicast { ttl: 5, .. }
    ));
    let text = server("delay_loop 9\ndelay_loop x", "weight 4\nweight x");
    let server = &config(&text).virtual_servers[0];
    assert_eq!(server.delay_loop.as_secs(), 9);
    assert_eq!(server.real_servers[0].weight, 4);
}

#[test]
fn a_name_for_files_leads_to_no_other_folder() {
    for keyword in ["instance", "net_namespace"] {
        for name in ["../x", "a/b", "..", "."] {
            let text = format!("{keyword} {name}\n{}", instance(""));
            let parsed = parse("f", text.as_bytes());
            let process = &parsed.config.process;
            assert_eq!((&process.instance, &process.net_namespace), (&None, &None));
            let found = said(&text);
            let why = format!("`{name}` cannot be the name of a file");
            assert!(found[0].contains(&why), "{found:?}");
        }
        let process = config(&format!("{keyword} a.b\n{}", instance(""))).process;
        let given = process.instance.or(process.net_namespace);
        assert_eq!(given.as_deref(), Some("a.b"));
    }
}

#[test]
fn a_router_without_addresses_is_one_of_ipv4() {
    let text = instance("") + "vrrp_instance W {\ninterface eth0\nvirtual_router_id 7\n}\n";
    let found = said(&text);
    assert!(
        found
            .iter()
            .any(|f| f.contains("both use VRID 7 on `eth0`")),
        "{found:?}"
    );
}

#[test]
fn a_keyword_without_its_brace_costs_itself_alone() {
    for word in ["vrrp_sync_group G", "SSL", "global_defs", "track_group T"] {
        let text = format!("{word}\n{}", server("", ""));
        let parsed = parse("f", text.as_bytes());
        assert_eq!(
            parsed.config.virtual_servers.len(),
            1,
            "{}",
            parsed.report()
        );
    }
}

#[test]
fn keys_of_adverts_are_never_shown() {
    for lines in [
        "auth_hmac {\nkey hex:5ecre7\n}",
        "auth_hmac {\nkey 1 hex:5ecre7\nactive_key ascii:5ecre7\nmode 5ecre7\nkey 1 { 5ecre7 }\n}",
        "key hex:5ecre7",
    ] {
        let report = parse("f", instance(lines).as_bytes()).report();
        assert!(!report.is_empty() && !report.contains("5ecre7"), "{report}");
    }
}

#[test]
fn a_password_from_a_definition_is_not_shown_where_it_is_used_for_something_else() {
    let text = format!(
        "$P=5ecre7\n{}",
        instance("authentication {\nauth_type PASS\nauth_pass $P\n}")
            .replace("10.0.0.9", "10.0.0.$P")
    );
    let report = parse("f", text.as_bytes()).report();
    assert!(!report.is_empty() && !report.contains("5ecre7"), "{report}");
}

#[test]
fn a_file_is_refused_for_an_error_behind_any_number_of_warnings() {
    let text = "foo{} ".repeat(60) + "vrrp_instance V{interface eth0}";
    let parsed = parse("f", text.as_bytes());
    assert!(parsed.has_errors(), "{}", parsed.report());
    let text = "foo\n".repeat(600) + "vrrp_instance V{interface eth0}";
    let parsed = parse("f", text.as_bytes());
    assert!(parsed.has_errors(), "{}", parsed.report());
}
