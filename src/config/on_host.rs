//! Whether a configuration fits the host that it shall run on: what no parser can know.

use std::{collections::HashSet, net::IpAddr};

use super::{
    model::{Config, VirtualAddress, VrrpInstance},
    source::quoted,
};
use crate::addr::IpPrefix;

/// What is known of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Its interfaces.
    pub interfaces: Vec<HostInterface>,
    /// The names of its users.
    pub users: HashSet<String>,
    /// The names of its groups.
    pub groups: HashSet<String>,
}

/// An interface of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInterface {
    /// Its name.
    pub name: String,
    /// Its addresses, each with the length of its network.
    pub addresses: Vec<IpPrefix>,
}

impl HostFacts {
    fn interface(&self, name: &str) -> Option<&HostInterface> {
        self.interfaces.iter().find(|known| known.name == name)
    }
}

/// What does not fit, in the order of the configuration: interfaces, users and groups that are not there, virtual
/// addresses outside of the networks of their interfaces, source addresses that the interface does not have.
pub fn lint_on_host(config: &Config, host: &HostFacts) -> Vec<String> {
    let mut found = Vec::new();
    for instance in &config.vrrp_instances {
        let name = quoted(&instance.name);
        let own = instance_lints(instance, config, host);
        found.extend(
            own.into_iter()
                .map(|what| format!("vrrp_instance {name}: {what}")),
        );
    }
    for address in &config.static_addresses {
        if host.interface(&address.dev).is_none() {
            let (address, dev) = (address.prefix.addr(), quoted(&address.dev));
            found.push(format!(
                "static_ipaddress {address}: there is no interface {dev}"
            ));
        }
    }
    let scripts = config
        .scripts
        .iter()
        .filter_map(|script| script.user.as_ref());
    let owners = scripts.chain(&config.global.scripts.script_user);
    let owners = owners.map(|owner| (Some(&owner.user), owner.group.as_ref()));
    let notify = (config
        .vrrp_instances
        .iter()
        .flat_map(|instance| &instance.notify))
    .chain(config.sync_groups.iter().flat_map(|group| &group.notify))
    .chain(
        config
            .virtual_servers
            .iter()
            .flat_map(|server| &server.notify),
    );
    let notify = notify.map(|script| (script.user.as_ref(), script.group.as_ref()));
    let mut named = HashSet::new();
    for (user, group) in owners.chain(notify) {
        if let Some(user) = user.filter(|user| !host.users.contains(*user))
            && named.insert(("user", user))
        {
            found.push(format!("there is no user {}", quoted(user)));
        }
        if let Some(group) = group.filter(|group| !host.groups.contains(*group))
            && named.insert(("group", group))
        {
            found.push(format!("there is no group {}", quoted(group)));
        }
    }
    found
}

fn instance_lints(instance: &VrrpInstance, config: &Config, host: &HostFacts) -> Vec<String> {
    let mut found = Vec::new();
    let Some(interface) = host.interface(&instance.interface) else {
        let waits = if config.global.dynamic_interfaces {
            "; it is waited for"
        } else {
            ""
        };
        found.push(format!(
            "there is no interface {}{waits}",
            quoted(&instance.interface)
        ));
        return found;
    };
    let has = |addr: IpAddr| interface.addresses.iter().any(|own| own.addr() == addr);
    if let Some(source) = instance.source.filter(|source| !has(*source)) {
        let name = quoted(&interface.name);
        found.push(format!("{name} does not have the source address {source}"));
    }
    let addresses = instance.virtual_ipaddress.iter();
    for address in addresses.chain(&instance.virtual_ipaddress_excluded) {
        found.extend(outside(address, host));
    }
    found
}

/// An address that no neighbour of its interface takes for one.
fn outside(address: &VirtualAddress, host: &HostFacts) -> Option<String> {
    let (addr, dev) = (address.prefix.addr(), quoted(&address.dev));
    let Some(interface) = host.interface(&address.dev) else {
        return Some(format!("{addr} shall be on {dev}, which is not there"));
    };
    let of_family = |own: &&IpPrefix| own.addr().is_ipv4() == addr.is_ipv4();
    let mut networks = interface.addresses.iter().filter(of_family).peekable();
    networks.peek()?;
    let networks: Vec<_> = networks.collect();
    if networks.iter().any(|network| network.contains(addr)) {
        return None;
    }
    let networks: Vec<String> = networks.iter().map(|network| network.to_string()).collect();
    Some(format!(
        "{addr} is in no network of {dev} ({})",
        networks.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn host() -> HostFacts {
        let interface = |name: &str, addresses: &[&str]| HostInterface {
            name: name.to_owned(),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        };
        HostFacts {
            interfaces: vec![
                interface("eth0", &["10.0.0.1/24", "fe80::1/64"]),
                interface("eth1", &[]),
            ],
            users: HashSet::from(["root".to_owned()]),
            groups: HashSet::from(["root".to_owned()]),
        }
    }

    fn said(text: &str) -> Vec<String> {
        lint_on_host(&parse("f", text.as_bytes()).config, &host())
    }

    #[test]
    fn what_fits_is_not_mentioned() {
        let text = "vrrp_instance V {\ninterface eth0\nvirtual_router_id 7\nmcast_src_ip 10.0.0.1\n\
                    virtual_ipaddress {\n10.0.0.9\n10.0.0.10/24\n192.0.2.1 dev eth1\n}\nnotify /x root root\n}\n";
        assert_eq!(said(text), [""; 0]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let text = "global_defs {\nscript_user nobody\n}\nstatic_ipaddress {\n10.0.0.7 dev eth7\n}\n\
                    vrrp_instance V {\ninterface eth0\nvirtual_router_id 7\nmcast_src_ip 10.0.0.2\n\
                    virtual_ipaddress {\n10.0.1.9\n10.0.0.9 dev eth8\n}\nnotify /x nobody adm\n}\n\
                    vrrp_instance W {\ninterface eth9\nvirtual_router_id 7\nvirtual_ipaddress {\n10.0.0.8\n}\n}\n";
        assert_eq!(
            said(text),
            [
                "vrrp_instance `V`: `eth0` does not have the source address 10.0.0.2",
                "vrrp_instance `V`: 10.0.1.9 is in no network of `eth0` (10.0.0.1/24)",
                "vrrp_instance `V`: 10.0.0.9 shall be on `eth8`, which is not there",
                "vrrp_instance `W`: there is no interface `eth9`",
                "static_ipaddress 10.0.0.7: there is no interface `eth7`",
                "there is no user `nobody`",
                "there is no group `adm`",
            ]
        );
    }
}
