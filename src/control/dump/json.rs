//! For programs: what keepalived writes, by its names. A password is masked.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::{Snapshot, text};
use crate::{
    config::{
        Authentication, InitialState, NotifyEvent, VirtualAddress, VrrpInstance, VrrpVersion,
    },
    control::api::InstanceStatus,
};

/// The instances: `[{"data": {…}, "stats": {…}}, …]`, or in version 2 (`json_version`) an object that has this list as
/// `vrrp`.
pub(super) fn vrrp(snapshot: &Snapshot) -> String {
    let instances = snapshot.instances.iter().map(|status| {
        let mut all = snapshot.config.vrrp_instances.iter();
        let config = all.find(|one| one.name == status.name);
        json!({ "data": data(status, config), "stats": statistics(status) })
    });
    let list = Value::Array(instances.collect());
    let all = match snapshot.config.global.files.json_version {
        Some(2) => json!({ "vrrp": list }),
        _ => list,
    };
    let mut text = all.to_string();
    text.push('\n');
    text
}

fn data(status: &InstanceStatus, config: Option<&VrrpInstance>) -> Value {
    let since = humantime::parse_rfc3339(&status.since).unwrap_or(SystemTime::UNIX_EPOCH);
    let since = since.duration_since(SystemTime::UNIX_EPOCH);
    let mut data = json!({
        "iname": status.name,
        "ifp_ifname": status.interface,
        "vrid": status.vrid,
        "state": number(&status.state),
        "effective_priority": status.priority,
        "master_priority": status.master_priority,
        "vipset": status.state == "MASTER",
        "last_transition": since.unwrap_or_default().as_secs_f64(),
    });
    if let (Value::Object(data), Some(config)) = (&mut data, config) {
        data.extend(settings(config, status));
    }
    data
}

/// What the configuration says of an instance. keepalived writes some of what is on or off as a number.
fn settings(config: &VrrpInstance, status: &InstanceStatus) -> Map<String, Value> {
    let garp = &config.garp;
    let interval = config.advert_int.as_secs_f64();
    let vmac = config.use_vmac.as_ref().map(|vmac| {
        let usual = || format!("vrrp.{}", config.virtual_router_id);
        vmac.name.clone().unwrap_or_else(usual)
    });
    let settings = json!({
        "base_priority": config.priority,
        "wantstate": match config.initial_state {
            InitialState::Master => 2,
            InitialState::Backup => 1,
        },
        "version": match config.version {
            VrrpVersion::V2 => 2,
            VrrpVersion::V3 => 3,
        },
        "strict_mode": u8::from(config.strict_mode),
        "vmac_ifname": vmac.unwrap_or_default(),
        "adver_int": interval,
        "master_adver_int": interval,
        "accept": u8::from(config.accept),
        "nopreempt": !config.preempt,
        "preempt_delay": config.preempt_delay.as_secs_f64(),
        "promote_secondaries": config.further.promote_secondaries,
        "dont_track_primary": u8::from(config.dont_track_primary),
        "skip_check_adv_addr": u8::from(config.skip_check_adv_addr),
        "lower_prio_no_advert": u8::from(config.lower_prio_no_advert),
        "higher_prio_send_advert": u8::from(config.higher_prio_send_advert),
        "smtp_alert": config.further.smtp_alert == Some(true),
        "notify_deleted": config.further.notify_deleted,
        "garp_delay": garp.master_delay.as_secs(),
        "garp_rep": garp.master_repeat,
        "garp_refresh": garp.master_refresh.as_secs(),
        "garp_refresh_rep": garp.master_refresh_repeat,
        "garp_lower_prio_delay": garp.lower_prio_delay.as_secs(),
        "garp_lower_prio_rep": garp.lower_prio_repeat,
        "auth_type": match config.authentication {
            None => 0,
            Some(Authentication::Pass(_)) => 1,
            Some(Authentication::Ah(_)) => 2,
        },
    });
    let mut settings = match settings {
        Value::Object(settings) => settings,
        _ => Map::new(),
    };
    if config.authentication.is_some() {
        settings.insert("auth_data".to_owned(), json!("****"));
    }
    for script in &config.notify {
        if let Some(name) = script_name(script.event) {
            settings.insert(name.to_owned(), json!(script.command));
        }
    }
    // Of these keepalived leaves out what is empty.
    let addresses = |vips: &[VirtualAddress]| {
        let shown = vips.iter().map(|vip| text::address(vip, status));
        shown.collect::<Vec<String>>()
    };
    let tracked = config.track_interface.iter();
    let tracked = tracked.map(|one| one.interface.clone());
    for (name, list) in [
        ("vips", addresses(&config.virtual_ipaddress)),
        ("evips", addresses(&config.virtual_ipaddress_excluded)),
        ("track_ifp", tracked.collect()),
    ] {
        if !list.is_empty() {
            settings.insert(name.to_owned(), json!(list));
        }
    }
    settings
}

/// keepalived's name of a script.
const fn script_name(event: NotifyEvent) -> Option<&'static str> {
    match event {
        NotifyEvent::Any => Some("script"),
        NotifyEvent::Master => Some("script_master"),
        NotifyEvent::Backup => Some("script_backup"),
        NotifyEvent::Fault => Some("script_fault"),
        NotifyEvent::Stop => Some("script_stop"),
        NotifyEvent::Deleted => Some("script_deleted"),
        NotifyEvent::MasterRxLowerPri => Some("script_master_rx_lower_pri"),
        NotifyEvent::Up | NotifyEvent::Down | NotifyEvent::QuorumUp | NotifyEvent::QuorumDown => {
            None
        }
    }
}

/// keepalived's number of a state.
fn number(state: &str) -> u8 {
    match state {
        "BACKUP" => 1,
        "MASTER" => 2,
        "FAULT" => 3,
        _ => 0,
    }
}

fn statistics(status: &InstanceStatus) -> Value {
    let count = |name| text::count(status, name);
    json!({
        "advert_rcvd": count("adverts-received"),
        "advert_sent": count("adverts-sent"),
        "become_master": count("became-master"),
        "release_master": count("released-master"),
        "packet_len_err": count("rejected-length"),
        "ip_ttl_err": count("rejected-ttl"),
        "invalid_type_rcvd": count("rejected-type"),
        "advert_interval_err": count("rejected-interval"),
        "addr_list_err": count("address-list-mismatches"),
        "invalid_authtype": count("rejected-auth-type-unknown"),
        "authtype_mismatch": count("rejected-auth-type-mismatch"),
        "auth_failure": count("rejected-password"),
        "pri_zero_rcvd": count("priority-zero-received"),
        "pri_zero_sent": count("priority-zero-sent"),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        config::parse,
        control::{
            api::NamedCount,
            dump::text::{data, statistics},
        },
    };

    fn snapshot() -> Snapshot {
        let text = "vrrp_instance VI_1 {\nstate MASTER\ninterface eth0\nvirtual_router_id 51\npriority 150\n\
                    advert_int 1\nnotify_master \"/bin/true now\"\nauthentication {\nauth_type PASS\nauth_pass S3cr3t\n}\n\
                    virtual_ipaddress {\n10.0.0.9\n10.0.0.10/24 dev eth1 scope link\n}\n}\n";
        let parsed = parse("f", text.as_bytes());
        assert!(!parsed.has_errors(), "{}", parsed.report());
        let count = |name: &str, count| NamedCount {
            name: name.to_owned(),
            count,
        };
        let status = InstanceStatus {
            name: "VI_1".into(),
            interface: "eth0".into(),
            vrid: 51,
            state: "MASTER".into(),
            reason: None,
            problems: Vec::new(),
            priority: 140,
            for_seconds: 3,
            since: "2026-11-23T17:00:00Z".into(),
            master: None,
            master_priority: 0,
            addresses: Vec::new(),
            held: vec!["10.0.0.9/32 dev eth0".into()],
            counters: vec![
                count("adverts-sent", 61),
                count("became-master", 1),
                count("rejected-password", 7),
            ],
        };
        Snapshot {
            config: Arc::new(parsed.config),
            instances: vec![status],
            services: Vec::new(),
        }
    }

    #[test]
    fn an_instance_has_keepalived_s_names_and_no_password() {
        let text = vrrp(&snapshot());
        assert!(!text.contains("S3cr3t"));
        let all: Value = serde_json::from_str(&text).unwrap();
        let one = &all[0];
        for (name, value) in [
            ("iname", json!("VI_1")),
            ("vrid", json!(51)),
            ("base_priority", json!(150)),
            ("effective_priority", json!(140)),
            ("state", json!(2)),
            ("wantstate", json!(2)),
            ("version", json!(2)),
            ("adver_int", json!(1.0)),
            ("nopreempt", json!(false)),
            ("ifp_ifname", json!("eth0")),
            ("last_transition", json!(1_795_453_200.0)),
            ("master_priority", json!(0)),
            ("dont_track_primary", json!(0)),
            ("accept", json!(1)),
            ("smtp_alert", json!(false)),
            ("auth_data", json!("****")),
            ("script_master", json!("/bin/true now")),
            ("garp_delay", json!(5)),
            ("auth_type", json!(1)),
            (
                "vips",
                json!([
                    "10.0.0.9 dev eth0 scope global set",
                    "10.0.0.10/24 dev eth1 scope link"
                ]),
            ),
        ] {
            assert_eq!(one["data"][name], value, "{name}");
        }
        // All that keepalived 2.2.7 writes of such an instance.
        for name in [
            "strict_mode",
            "vmac_ifname",
            "garp_refresh",
            "garp_rep",
            "garp_refresh_rep",
            "garp_lower_prio_delay",
            "garp_lower_prio_rep",
            "lower_prio_no_advert",
            "higher_prio_send_advert",
            "vipset",
            "promote_secondaries",
            "master_adver_int",
            "preempt_delay",
            "notify_deleted",
            "skip_check_adv_addr",
        ] {
            assert!(!one["data"][name].is_null(), "{name}");
        }
        assert!(one["data"]["evips"].is_null(), "it has none");
        assert_eq!(one["stats"]["advert_sent"], 61);
        assert_eq!(one["stats"]["auth_failure"], 7);
        assert_eq!(one["stats"]["advert_rcvd"], 0);
    }

    #[test]
    fn version_2_has_the_list_in_an_object() {
        let mut second = snapshot();
        Arc::make_mut(&mut second.config).global.files.json_version = Some(2);
        let [first, second] =
            [snapshot(), second].map(|one| serde_json::from_str::<Value>(&vrrp(&one)).unwrap());
        assert_eq!(second, json!({ "vrrp": first }));
    }

    #[test]
    fn the_texts_have_keepalived_s_labels_and_no_password() {
        let snapshot = snapshot();
        let text = data(&snapshot);
        assert!(!text.contains("S3cr3t"));
        for line in [
            " VRRP Instance = VI_1",
            "   State = MASTER",
            "   Interface = eth0",
            "   Virtual Router ID = 51",
            "   Priority = 150",
            "   Gratuitous ARP delay = 5",
            "   Virtual IP (2):",
            "     10.0.0.9 dev eth0 scope global set",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert_eq!(
            statistics(&snapshot.instances),
            "VRRP Instance: VI_1\n  Advertisements:\n    Received: 0\n    Sent: 61\n  Became master: 1\n  \
             Released master: 0\n  Packet Errors:\n    Length: 0\n    TTL: 0\n    Invalid Type: 0\n    \
             Advertisement Interval: 0\n    Address List: 0\n  Authentication Errors:\n    Invalid Type: 0\n    \
             Type Mismatch: 0\n    Failure: 7\n  Priority Zero:\n    Received: 0\n    Sent: 0\n"
        );
    }
}
