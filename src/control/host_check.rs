//! Whether this host has what a configuration names: interfaces, networks, scripts and their users. For
//! `xvs check --on-this-host`; nothing of it needs root, and nothing is changed.

use std::fmt;

use super::scripts::{Command, Rules};
use crate::{
    config::{
        CheckKind, Config, NotifyScript, Scripts, Severity, Transport, VirtualAddress, VrrpInstance,
    },
    sys::{
        netlink::{Address, Link, Netlink},
        script::Identity,
    },
};

/// Something about this host. Displayed as `warning: MESSAGE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What is the matter.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity, self.message)
    }
}

/// What this host lacks, in the order of the configuration.
///
/// # Errors
/// The kernel does not say what there is.
pub fn check(config: &Config) -> Result<Vec<Finding>, String> {
    let mut netlink = Netlink::open().map_err(|error| error.to_string())?;
    let links = netlink.links().map_err(|error| error.to_string())?;
    let mut addresses = Vec::new();
    for link in &links {
        let found = netlink.addresses(link.index);
        addresses.extend(found.map_err(|error| error.to_string())?);
    }
    let mut host = Host {
        links,
        addresses,
        dynamic: config.global.dynamic_interfaces,
        // Whoever asks now, it is root that will run it.
        rules: Rules::new(&config.global.scripts, Identity::ROOT),
        found: Vec::new(),
    };
    host.check_process_scripts(&config.global.scripts);
    for script in &config.scripts {
        let owner = script.user.as_ref();
        let command = Command {
            text: &script.command,
            user: owner.map(|owner| owner.user.as_str()),
            group: owner.and_then(|owner| owner.group.as_deref()),
        };
        host.check_script(&format!("vrrp_script {}", script.name), command);
    }
    for address in &config.static_addresses {
        let name = format!("static_ipaddress {}", address.prefix);
        host.check_interface(&name, &address.dev);
    }
    for group in &config.sync_groups {
        host.check_scripts(&format!("vrrp_sync_group {}", group.name), &group.notify);
    }
    for instance in &config.vrrp_instances {
        host.check_instance(instance);
    }
    for server in &config.virtual_servers {
        let name = format!("virtual server {}", server.name());
        host.check_scripts(&name, &server.notify);
        for real in &server.real_servers {
            let name = format!("{name}, real server {}", real.endpoint);
            host.check_scripts(&name, &real.notify);
            for checker in &real.checkers {
                if let CheckKind::Misc(check) = &checker.kind {
                    host.check_script(&format!("{name}: MISC_CHECK"), (&check.script).into());
                }
            }
        }
    }
    Ok(host.found)
}

/// What there is, and what is not.
struct Host {
    links: Vec<Link>,
    addresses: Vec<Address>,
    /// Interfaces may come later.
    dynamic: bool,
    rules: Rules,
    found: Vec<Finding>,
}

impl Host {
    fn say(&mut self, severity: Severity, message: String) {
        self.found.push(Finding { severity, message });
    }

    fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    fn check_instance(&mut self, instance: &VrrpInstance) {
        let name = format!("vrrp_instance {}", instance.name);
        let vips = || {
            let listed = instance.virtual_ipaddress.iter();
            listed.chain(&instance.virtual_ipaddress_excluded)
        };
        if let Some(link) = self.check_interface(&name, &instance.interface) {
            let multicast = matches!(instance.transport, Transport::Multicast { .. });
            if multicast && !link.multicast {
                let interface = &instance.interface;
                let message =
                    format!("{name}: {interface} does not carry multicast: use unicast_peer");
                self.say(Severity::Warning, message);
            }
            let owns = |address| {
                let mut own = self.addresses.iter();
                own.any(|own| own.ifindex == link.index && own.prefix.addr() == address)
            };
            if let Some(source) = instance.source.filter(|source| !owns(*source)) {
                let interface = &instance.interface;
                let message = format!(
                    "{name}: {interface} does not have the address {source} to send adverts from"
                );
                self.say(Severity::Warning, message);
            }
            let mut own = self.addresses.iter();
            if !own.any(|own| own.ifindex == link.index && own.prefix.addr().is_ipv4()) {
                let interface = &instance.interface;
                let message =
                    format!("{name}: {interface} has no IPv4 address to send adverts from");
                self.say(Severity::Warning, message);
            }
        }
        let mut devices: Vec<&str> = Vec::new();
        for vip in vips() {
            if vip.dev != instance.interface && !devices.contains(&vip.dev.as_str()) {
                devices.push(&vip.dev);
                self.check_interface(&name, &vip.dev);
            }
        }
        for vip in vips() {
            self.check_network(&name, vip);
        }
        self.check_scripts(&name, &instance.notify);
    }

    /// The interface, if there is one.
    fn check_interface(&mut self, name: &str, interface: &str) -> Option<Link> {
        let Some(link) = self.link(interface).cloned() else {
            let (severity, waits) = if self.dynamic {
                (Severity::Warning, "; it is waited for (dynamic_interfaces)")
            } else {
                (Severity::Error, "")
            };
            self.say(
                severity,
                format!("{name}: {interface} does not exist{waits}"),
            );
            return None;
        };
        if !link.is_usable() {
            let message = format!("{name}: {interface} is down");
            self.say(Severity::Warning, message);
        }
        Some(link)
    }

    /// An address that brings no network along should be in one of its interface's.
    fn check_network(&mut self, name: &str, vip: &VirtualAddress) {
        let address = vip.prefix.addr();
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let Some(link) = self.link(&vip.dev) else {
            return;
        };
        let mut networks = self.addresses.iter();
        let known = networks.any(|own| own.ifindex == link.index && own.prefix.contains(address));
        if vip.prefix.len() == whole && !known {
            let message = format!(
                "{name}: {address} is in no network of {}: others need a route to it",
                vip.dev
            );
            self.say(Severity::Note, message);
        }
    }

    /// The scripts of `global_defs`.
    fn check_process_scripts(&mut self, scripts: &Scripts) {
        let Scripts {
            startup_script,
            shutdown_script,
            notify_fifo_script,
            vrrp_notify_fifo_script,
            lvs_notify_fifo_script,
            ..
        } = scripts;
        if let Some(why) = self
            .rules
            .trouble()
            .filter(|_| scripts.script_user.is_some())
        {
            let message = why.to_owned();
            self.say(Severity::Warning, message);
        }
        for (keyword, script) in [
            ("startup_script", startup_script),
            ("shutdown_script", shutdown_script),
            ("notify_fifo_script", notify_fifo_script),
            ("vrrp_notify_fifo_script", vrrp_notify_fifo_script),
            ("lvs_notify_fifo_script", lvs_notify_fifo_script),
        ] {
            if let Some(script) = script {
                self.check_script(keyword, script.into());
            }
        }
    }

    fn check_scripts(&mut self, name: &str, scripts: &[NotifyScript]) {
        for script in scripts {
            let name = format!("{name}: {}", script.event.keyword());
            self.check_script(&name, script.into());
        }
    }

    fn check_script(&mut self, name: &str, command: Command<'_>) {
        let mut odd = Vec::new();
        if let Err(why) = self.rules.find(command, &mut odd) {
            odd.push(format!("it would not run: {why}"));
        }
        for odd in odd {
            self.say(Severity::Warning, format!("{name}: {odd}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Owner, parse};

    fn link(index: u32, name: &str, up: bool) -> Link {
        Link {
            index,
            name: name.to_owned(),
            mac: None,
            mtu: 1500,
            up,
            running: up,
            loopback: false,
            multicast: true,
            kind: None,
            master: None,
        }
    }

    fn findings(text: &str, dynamic: bool) -> Vec<String> {
        let parsed = parse("f", text.as_bytes());
        assert!(!parsed.has_errors(), "{}", parsed.report());
        let address = |ifindex, prefix: &str| Address {
            ifindex,
            prefix: prefix.parse().unwrap(),
            peer: None,
            scope: Default::default(),
            secondary: false,
            label: None,
        };
        let mut host = Host {
            links: vec![link(1, "eth0", true), link(2, "eth1", false)],
            addresses: vec![address(1, "10.0.0.1/24")],
            dynamic,
            rules: Rules::new(&Scripts::default(), Identity::ROOT),
            found: Vec::new(),
        };
        for instance in &parsed.config.vrrp_instances {
            host.check_instance(instance);
        }
        host.found.iter().map(ToString::to_string).collect()
    }

    fn instance(interface: &str, vips: &str) -> String {
        format!(
            "vrrp_instance V {{\nstate BACKUP\ninterface {interface}\nvirtual_router_id 5\n\
             virtual_ipaddress {{\n{vips}\n}}\n}}\n"
        )
    }

    #[test]
    fn what_the_host_has_is_not_mentioned() {
        let text = instance("eth0", "10.0.0.9\n192.0.2.1/24");
        assert_eq!(findings(&text, false), [""; 0]);
    }

    #[test]
    fn interfaces_that_are_missing_or_down_are_named() {
        let text = instance("eth7", "10.0.0.9 dev eth7");
        assert_eq!(
            findings(&text, false),
            ["error: vrrp_instance V: eth7 does not exist"]
        );
        let waits = findings(&text, true);
        assert!(waits[0].starts_with("warning: ") && waits[0].contains("waited for"));
        assert_eq!(
            findings(&instance("eth1", "10.0.0.9 dev eth0"), false),
            [
                "warning: vrrp_instance V: eth1 is down",
                "warning: vrrp_instance V: eth1 has no IPv4 address to send adverts from",
            ]
        );
    }

    #[test]
    fn an_address_outside_of_the_networks_is_noted() {
        let text = instance("eth0", "10.0.0.9")
            .replace("interface eth0", "interface eth0\nmcast_src_ip 10.0.0.2");
        assert_eq!(
            findings(&text, false),
            [
                "warning: vrrp_instance V: eth0 does not have the address 10.0.0.2 to send adverts from"
            ]
        );
        assert_eq!(
            findings(&instance("eth0", "192.0.2.1"), false),
            [
                "note: vrrp_instance V: 192.0.2.1 is in no network of eth0: others need a route to it"
            ]
        );
    }

    #[test]
    fn scripts_that_would_not_run_are_named() {
        let scripts = Scripts {
            script_user: Some(Owner {
                user: "xvs-no-one".to_owned(),
                group: None,
            }),
            ..Scripts::default()
        };
        let mut host = Host {
            links: Vec::new(),
            addresses: Vec::new(),
            dynamic: false,
            rules: Rules::new(&scripts, Identity::ROOT),
            found: Vec::new(),
        };
        host.check_process_scripts(&scripts);
        let command = |text, user, group| Command { text, user, group };
        host.check_script("notify", command("/bin/sh x", None, None));
        host.check_script(
            "notify",
            command("/bin/sh x", Some("root"), Some("xvs-none")),
        );
        host.check_script("notify", command("/no/such/script -x", Some("root"), None));
        host.check_script("notify", command("/bin/sh x", Some("root"), None));
        let found: Vec<String> = host.found.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "warning: script_user: user xvs-no-one does not exist",
                "warning: notify: it would not run: script_user: user xvs-no-one does not exist",
                "warning: notify: it would not run: group xvs-none does not exist",
                "warning: notify: it would not run: /no/such/script cannot be run: No such file or directory (os error 2)",
            ]
        );
    }
}
