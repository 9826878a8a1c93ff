//! The user's own file means what keepalived means by it.

use std::time::Duration;

use super::{
    super::{
        Authentication, CheckKind, Checker, Config, Connection, Garp, Global, InitialState,
        InstanceOptions, Mail, Match, Password, Persistence, RealServer, Settings, Timeouts,
        Trackers, Transport, VirtualAddress, VirtualServer, VrrpInstance, VrrpVersion, effective,
        parse,
    },
    SEED,
};
use crate::{
    addr::{Endpoint, L4Proto},
    lvs::{LbKind, Scheduler},
};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn endpoint(addr: &str, port: u16) -> Endpoint {
    Endpoint::new(addr.parse().unwrap(), port)
}

fn real(addr: &str) -> RealServer {
    RealServer {
        endpoint: endpoint(addr, 80),
        weight: 3,
        lb_kind: LbKind::Dr,
        inhibit_on_failure: false,
        uthreshold: 0,
        lthreshold: 0,
        smtp_alert: None,
        snmp_name: None,
        notify: vec![],
        checkers: vec![Checker {
            kind: CheckKind::Tcp(Connection {
                to: endpoint(addr, 80),
                bindto: None,
                bind_port: 0,
                bind_if: None,
                mark: 0,
                timeout: secs(10),
            }),
            retry: 3,
            delay_before_retry: secs(3),
            warmup: None,
            delay_loop: secs(6),
            alpha: false,
            log_all_failures: false,
        }],
    }
}

fn expected() -> Config {
    Config {
        global: Global {
            router_id: Some("LVS_DEVEL".to_owned()),
            mail: Mail {
                recipients: vec!["root@linux.tang.chao".into(), "mchina_tang@qq.com".into()],
                from: Some("keepalived@localhost".to_owned()),
                smtp_server: Some(("127.0.0.1".to_owned(), 25)),
                helo_name: None,
                connect_timeout: secs(30),
            },
            ..Global::default()
        },
        vrrp_instances: vec![VrrpInstance {
            name: "VI_1".to_owned(),
            initial_state: InitialState::Master,
            interface: "eth0".to_owned(),
            virtual_router_id: 51,
            priority: 100,
            version: VrrpVersion::V2,
            advert_int: secs(1),
            // `nopreempt` is cleared by `state MASTER`.
            preempt: true,
            preempt_delay: Duration::ZERO,
            authentication: Some(Authentication::Pass(Password::new(b"1111\0\0\0\0"))),
            source: None,
            transport: Transport::Multicast {
                group: "224.0.0.18".parse().unwrap(),
            },
            virtual_ipaddress: vec![VirtualAddress {
                prefix: "10.0.0.148/32".parse().unwrap(),
                dev: "eth0".to_owned(),
                scope: 0,
                label: None,
                broadcast: None,
                peer: None,
                noprefixroute: false,
                no_track: false,
                home: false,
                nodad: false,
                mngtmpaddr: false,
                autojoin: false,
                preferred_lft: None,
                use_vmac: false,
                track_group: None,
            }],
            virtual_ipaddress_excluded: vec![],
            garp: Garp {
                master_delay: secs(5),
                master_repeat: 5,
                master_refresh: Duration::ZERO,
                master_refresh_repeat: 1,
                lower_prio_delay: secs(5),
                lower_prio_repeat: 5,
            },
            track_interface: vec![],
            dont_track_primary: false,
            skip_check_adv_addr: false,
            down_timer_adverts: 3,
            lower_prio_no_advert: false,
            higher_prio_send_advert: false,
            notify: vec![],
            strict_mode: false,
            accept: true,
            no_virtual_ipaddress: false,
            auth_hmac: None,
            use_vmac: None,
            trackers: Trackers::default(),
            virtual_routes: vec![],
            virtual_rules: vec![],
            further: InstanceOptions::default(),
        }],
        virtual_servers: vec![VirtualServer {
            matches: vec![Match::Address(endpoint("10.0.0.148", 80))],
            group: None,
            protocol: L4Proto::Tcp,
            ops: false,
            delay_loop: secs(6),
            lb_algo: Scheduler::Rr,
            lb_kind: LbKind::Dr,
            persistence: Some(Persistence {
                timeout: secs(50),
                granularity: 32,
            }),
            persistence_engine: None,
            alpha: false,
            ha_suspend: false,
            smtp_alert: None,
            snmp_name: None,
            omega: false,
            quorum: 1,
            hysteresis: 0,
            sorry_server: None,
            notify: vec![],
            real_servers: vec![real("10.0.0.137"), real("10.0.0.139")],
        }],
        timeouts: Timeouts::default(),
        settings: Settings::default(),
        ..Config::default()
    }
}

#[test]
fn the_model_is_what_keepalived_makes_of_it() {
    let config = parse("seed.conf", SEED).config;
    assert_eq!(config, expected(), "{config:#?}");
    let key = config.virtual_servers[0].key();
    assert_eq!(key.to_string(), "[10.0.0.148]:tcp:80");
}

#[test]
fn the_findings_are_exactly_these() {
    let parsed = parse("seed.conf", SEED);
    let said: Vec<String> = parsed.diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "seed.conf:2:4: warning: mail (`notification_email` and what belongs to it) \
             is not applied yet",
            "seed.conf:9:4: note: `router_id` has no effect here: mails, which would show it, are not sent yet",
            "seed.conf:16:5: warning: `state MASTER` overrides nopreempt: this node will preempt",
            "seed.conf:43:13: deprecated: `nb_get_retry` is an old name; use `retry`",
            "seed.conf:52:13: deprecated: `nb_get_retry` is an old name; use `retry`",
        ]
    );
    assert!(!parsed.has_errors());
}

#[test]
fn the_report_shows_the_line_and_what_is_meant() {
    let parsed = parse("seed.conf", SEED);
    let shown = parsed.render(&parsed.diagnostics[2]);
    let mut lines = shown.lines().skip(1);
    let source = lines.next().unwrap();
    assert!(source.starts_with("   16 |     nopreempt "), "{shown}");
    assert!(source.ends_with("#设置不允许抢占"), "{shown}");
    let carets = lines.next().unwrap();
    assert!(
        carets.starts_with("      |     ^^^^^^^^^ nopreempt needs"),
        "{shown}"
    );
}

#[test]
fn the_effective_configuration_says_the_same_once_more() {
    let config = parse("seed.conf", SEED).config;
    let text = effective(&config);
    assert!(text.contains("auth_pass ****"), "{text}");
    assert!(!text.contains("1111"), "{text}");
    assert_eq!(config.to_string(), text);
    let again = parse("effective", text.as_bytes());
    assert!(!again.has_errors(), "{}", again.report());
}
