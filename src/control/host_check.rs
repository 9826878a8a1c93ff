//! Whether this host has what a configuration names: interfaces, networks, scripts and their users. For
//! `xvs check --on-this-host`; nothing of it needs root, and nothing is changed.

use std::{
    env, fmt, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{
    config::{
        CheckKind, Config, NotifyScript, Script, Severity, Transport, VirtualAddress, VrrpInstance,
    },
    sys::{
        netlink::{Address, Link, Netlink},
        users,
    },
};

/// Where programs are looked for when the environment does not say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

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
        found: Vec::new(),
    };
    if let Some(owner) = &config.global.scripts.script_user {
        host.check_owner("script_user", Some(&owner.user), owner.group.as_deref());
    }
    for script in &config.scripts {
        let name = format!("vrrp_script {}", script.name);
        let owner = script.user.as_ref();
        host.check_program(&name, &script.command);
        host.check_owner(
            &name,
            owner.map(|owner| owner.user.as_str()),
            owner.and_then(|owner| owner.group.as_deref()),
        );
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
                    let Script {
                        command,
                        user,
                        group,
                    } = &check.script;
                    let name = format!("{name}: MISC_CHECK");
                    host.check_program(&name, command);
                    host.check_owner(&name, user.as_deref(), group.as_deref());
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

    fn check_scripts(&mut self, name: &str, scripts: &[NotifyScript]) {
        for script in scripts {
            let name = format!("{name}: {}", script.event.keyword());
            self.check_program(&name, &script.command);
            self.check_owner(&name, script.user.as_deref(), script.group.as_deref());
        }
    }

    fn check_program(&mut self, name: &str, command: &str) {
        let program = program(command);
        if let Err(why) = runs(program, env::var("PATH").as_deref().unwrap_or(PATH)) {
            self.say(Severity::Warning, format!("{name}: {program} {why}"));
        }
    }

    fn check_owner(&mut self, name: &str, user: Option<&str>, group: Option<&str>) {
        let user = user.map(|user| ("user", user, users::user_exists(user)));
        let group = group.map(|group| ("group", group, users::group_exists(group)));
        for (kind, wanted, exists) in user.into_iter().chain(group) {
            let why = match exists {
                Ok(true) => continue,
                Ok(false) => "does not exist".to_owned(),
                Err(error) => error.to_string(),
            };
            self.say(Severity::Warning, format!("{name}: {kind} {wanted} {why}"));
        }
    }
}

/// The program of a command: its first word, which may be in quotes.
fn program(command: &str) -> &str {
    let command = command.trim_start();
    let quoted = ['"', '\''].into_iter().find_map(|quote| {
        let rest = command.strip_prefix(quote)?;
        Some(rest.split(quote).next().unwrap_or(rest))
    });
    quoted.unwrap_or_else(|| command.split_whitespace().next().unwrap_or_default())
}

/// Whether a program can be run.
fn runs(program: &str, path: &str) -> Result<(), String> {
    let places: Vec<PathBuf> = if program.contains('/') {
        vec![PathBuf::from(program)]
    } else {
        env::split_paths(path)
            .map(|folder| folder.join(program))
            .collect()
    };
    let mut why = "is not found in PATH".to_owned();
    for place in &places {
        match check_file(place) {
            Ok(()) => return Ok(()),
            Err(error) if places.len() == 1 => why = error,
            Err(_) => {}
        }
    }
    Err(why)
}

fn check_file(file: &Path) -> Result<(), String> {
    let data = fs::metadata(file).map_err(|error| format!("cannot be run: {error}"))?;
    if !data.is_file() {
        return Err("is no file".to_owned());
    }
    match data.permissions().mode() & 0o111 {
        0 => Err("is not executable".to_owned()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

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
    fn owners_that_do_not_exist_are_named() {
        let mut host = Host {
            links: Vec::new(),
            addresses: Vec::new(),
            dynamic: false,
            found: Vec::new(),
        };
        host.check_owner("script_user", Some("root"), Some("root"));
        host.check_owner("vrrp_script a", Some("xvs-no-one"), Some("xvs-none"));
        host.check_program("vrrp_script a", "/no/such/script -x");
        let found: Vec<String> = host.found.iter().map(ToString::to_string).collect();
        assert_eq!(
            found[0],
            "warning: vrrp_script a: user xvs-no-one does not exist"
        );
        assert_eq!(
            found[1],
            "warning: vrrp_script a: group xvs-none does not exist"
        );
        assert!(
            found[2].contains("vrrp_script a: /no/such/script cannot be run"),
            "{found:?}"
        );
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn programs_are_found_as_the_script_runner_would() {
        for (command, word) in [
            ("/bin/sh -c 'x y'", "/bin/sh"),
            ("\"/opt/my script\" a", "/opt/my script"),
            ("  'sh' a", "sh"),
            ("", ""),
        ] {
            assert_eq!(program(command), word);
        }
        runs("/bin/sh", "").unwrap();
        runs("sh", "/nowhere:/bin").unwrap();
        for (wrong, why) in [
            ("/no/such/script", "No such file"),
            ("/etc", "is no file"),
            ("/etc/passwd", "is not executable"),
            ("xvs-no-such-program", "PATH"),
        ] {
            let error = runs(wrong, "/usr/bin:/bin").unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }
}
