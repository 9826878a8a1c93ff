//! Instances.

use super::{Out, Secs, script_word, word};
use crate::{
    addr::Family,
    config::{
        defaults,
        model::{
            AuthHmac, Authentication, Garp, InitialState, NotifyScript, TrackInterface, Trackers,
            Transport, VirtualAddress, Vmac, VrrpInstance, VrrpVersion,
        },
    },
};

impl Out {
    pub(super) fn instance(&mut self, instance: &VrrpInstance) {
        self.open(format!("vrrp_instance {}", word(&instance.name)));
        self.line(match instance.initial_state {
            InitialState::Master => "state MASTER",
            InitialState::Backup => "state BACKUP",
        });
        self.line(format!("interface {}", word(&instance.interface)));
        self.line(format!("virtual_router_id {}", instance.virtual_router_id));
        self.line(format!("priority {}", instance.priority));
        self.line(match instance.version {
            VrrpVersion::V2 => "version 2",
            VrrpVersion::V3 => "version 3",
        });
        self.line(format!("advert_int {}", Secs(instance.advert_int)));
        self.flag(!instance.preempt, "nopreempt");
        if !instance.preempt_delay.is_zero() {
            self.line(format!("preempt_delay {}", Secs(instance.preempt_delay)));
        }
        self.line(format!(
            "down_timer_adverts {}",
            instance.down_timer_adverts
        ));
        self.flag(instance.strict_mode, "strict_mode");
        // What strict mode has by itself is not said.
        let owner = instance.priority == defaults::PRIORITY_OWNER;
        if instance.accept != (!instance.strict_mode || owner) {
            self.line(if instance.accept {
                "accept"
            } else {
                "no_accept"
            });
        }
        self.flag(instance.skip_check_adv_addr, "skip_check_adv_addr");
        let unsaid = instance.lower_prio_no_advert && !instance.strict_mode;
        self.flag(unsaid, "lower_prio_no_advert");
        self.flag(instance.higher_prio_send_advert, "higher_prio_send_advert");
        self.transport(instance);
        self.authentication(instance.authentication.as_ref());
        if let Some(hmac) = &instance.auth_hmac {
            self.auth_hmac(hmac);
        }
        if let Some(vmac) = &instance.use_vmac {
            self.use_vmac(vmac);
        }
        for (keyword, value) in instance.further.plain() {
            self.plain(keyword, value.as_ref());
        }
        self.flag(instance.no_virtual_ipaddress, "no_virtual_ipaddress");
        self.addresses("virtual_ipaddress", &instance.virtual_ipaddress);
        let excluded = &instance.virtual_ipaddress_excluded;
        self.addresses("virtual_ipaddress_excluded", excluded);
        self.routes("virtual_routes", &instance.virtual_routes);
        self.rules("virtual_rules", &instance.virtual_rules);
        self.garp(&instance.garp, instance.strict_mode);
        self.flag(instance.dont_track_primary, "dont_track_primary");
        self.track_interface(&instance.track_interface);
        self.trackers(&instance.trackers);
        self.scripts(&instance.notify);
        self.close();
    }

    pub(super) fn track_interface(&mut self, entries: &[TrackInterface]) {
        if entries.is_empty() {
            return;
        }
        self.open("track_interface");
        for entry in entries {
            let reverse = if entry.reverse { " reverse" } else { "" };
            let (name, weight) = (word(&entry.interface), entry.weight);
            self.line(format!("{name} weight {weight}{reverse}"));
        }
        self.close();
    }

    pub(super) fn trackers(&mut self, trackers: &Trackers) {
        for (keyword, entries) in trackers.lists() {
            if entries.is_empty() {
                continue;
            }
            self.open(keyword);
            for entry in entries {
                let reverse = if entry.reverse {
                    "reverse"
                } else {
                    "noreverse"
                };
                let (name, weight) = (word(&entry.name), entry.weight);
                self.line(format!("{name} weight {weight} {reverse}"));
            }
            self.close();
        }
    }

    fn auth_hmac(&mut self, hmac: &AuthHmac) {
        self.open("auth_hmac");
        for (id, key) in &hmac.keys {
            self.line(format!("key {id} {}", self.secrets.key(key)));
        }
        if let Some(id) = hmac.active_key {
            self.line(format!("active_key {id}"));
        }
        if let Some(kind) = hmac.anti_replay {
            self.line(format!("anti_replay {kind}"));
        }
        if let Some(window) = hmac.time_window {
            self.line(format!("time_window {}", Secs(window)));
        }
        if let Some(mode) = hmac.mode {
            self.line(format!("mode {mode}"));
        }
        self.close();
    }

    fn use_vmac(&mut self, vmac: &Vmac) {
        let mut line = "use_vmac".to_owned();
        if let Some(name) = &vmac.name {
            line += &format!(" {}", word(name));
        }
        if !vmac.mac.is_empty() {
            let bytes: Vec<String> = vmac.mac.iter().map(|byte| format!("{byte:02x}")).collect();
            line += &format!(" {}", bytes.join(":"));
        }
        if vmac.netlink_notify_msg {
            line += " netlink_notify_msg";
        }
        if let Some(group) = &vmac.group {
            line += &format!(" group {}", word(group));
        }
        self.line(line);
    }

    pub(super) fn transport(&mut self, instance: &VrrpInstance) {
        let unicast = matches!(instance.transport, Transport::Unicast { .. });
        if let Some(source) = instance.source {
            let keyword = if unicast {
                "unicast_src_ip"
            } else {
                "mcast_src_ip"
            };
            self.line(format!("{keyword} {source}"));
        }
        match &instance.transport {
            Transport::Multicast { group } => self.line(format!("mcast_dst_ip {group}")),
            Transport::Unicast {
                peers,
                ttl,
                check_source,
            } => {
                self.line(format!("unicast_ttl {ttl}"));
                self.flag(*check_source, "check_unicast_src");
                self.open("unicast_peer");
                for peer in peers {
                    let mut line = peer.addr.to_string();
                    if peer.min_ttl != 0 {
                        line += &format!(" min_ttl {}", peer.min_ttl);
                    }
                    if peer.max_ttl != u8::MAX {
                        line += &format!(" max_ttl {}", peer.max_ttl);
                    }
                    self.line(line);
                }
                self.close();
            }
        }
    }

    pub(super) fn authentication(&mut self, authentication: Option<&Authentication>) {
        let (kind, password) = match authentication {
            None => return,
            Some(Authentication::Pass(password)) => ("PASS", password),
            Some(Authentication::Ah(password)) => ("AH", password),
        };
        self.open("authentication");
        self.line(format!("auth_type {kind}"));
        self.line(format!("auth_pass {}", self.secrets.shown(password)));
        self.close();
    }

    pub(super) fn addresses(&mut self, keyword: &str, addresses: &[VirtualAddress]) {
        if addresses.is_empty() {
            return;
        }
        self.open(keyword);
        for address in addresses {
            let mut line = format!("{} dev {}", address.prefix, word(&address.dev));
            if address.scope != 0 {
                line += &format!(" scope {}", address.scope);
            }
            if let Some(label) = &address.label {
                line += &format!(" label {}", word(label));
            }
            if let Some(broadcast) = address.broadcast {
                line += &format!(" brd {broadcast}");
            }
            if let Some(peer) = address.peer {
                line += &format!(" peer {peer}");
            }
            let short = address.prefix.len() == Family::V6.bits();
            match address.preferred_lft {
                Some(0) if short => {}
                None if !short => {}
                Some(seconds) => line += &format!(" preferred_lft {seconds}"),
                None => line += " preferred_lft forever",
            }
            for (set, name) in [
                (address.noprefixroute, "noprefixroute"),
                (address.no_track, "no_track"),
                (address.home, "home"),
                (address.nodad, "-nodad"),
                (address.mngtmpaddr, "mngtmpaddr"),
                (address.autojoin, "autojoin"),
                (address.use_vmac, "use_vmac"),
            ] {
                if set {
                    line += &format!(" {name}");
                }
            }
            if let Some(group) = &address.track_group {
                line += &format!(" track_group {}", word(group));
            }
            self.line(line);
        }
        self.close();
    }

    pub(super) fn garp(&mut self, garp: &Garp, strict: bool) {
        let Garp {
            master_delay,
            master_repeat,
            master_refresh,
            master_refresh_repeat,
            lower_prio_delay,
            lower_prio_repeat,
        } = garp;
        self.line(format!("garp_master_delay {}", Secs(*master_delay)));
        self.line(format!("garp_master_repeat {master_repeat}"));
        self.line(format!("garp_master_refresh {}", Secs(*master_refresh)));
        self.line(format!(
            "garp_master_refresh_repeat {master_refresh_repeat}"
        ));
        if strict {
            return;
        }
        self.line(format!("garp_lower_prio_delay {}", Secs(*lower_prio_delay)));
        self.line(format!("garp_lower_prio_repeat {lower_prio_repeat}"));
    }

    pub(super) fn scripts(&mut self, scripts: &[NotifyScript]) {
        for script in scripts {
            let mut line = format!(
                "{} {}",
                script.event.keyword(),
                script_word(&script.command)
            );
            for name in script.user.iter().chain(&script.group) {
                line += " ";
                line += &script_word(name);
            }
            self.line(line);
        }
    }
}
