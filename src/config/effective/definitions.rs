//! Blocks that instances refer to or share: what they watch, what belongs together, and what is always there.

use std::time::Duration;

use super::{Out, Secs, script_word, word};
use crate::config::model::{
    BfdInstance, Config, OptionValue, Owner, Route, RouteKind, RouteOption, Rule, SyncGroup,
    TrackFile, TrackProcess, VrrpScript,
};

/// Milliseconds with as many decimals as they need.
fn millis(time: Duration) -> String {
    Secs(time * 1_000).to_string()
}

fn reverse(set: bool) -> &'static str {
    if set { " reverse" } else { "" }
}

/// Options in the words of ip(8).
fn options(list: &[RouteOption]) -> String {
    let mut text = String::new();
    for RouteOption { name, value } in list {
        let value = match value {
            OptionValue::Flag => String::new(),
            OptionValue::Number(number) => number.to_string(),
            OptionValue::Locked(number) => format!("lock {number}"),
            OptionValue::Address(address) => address.to_string(),
            OptionValue::Network(network) => network.to_string(),
            OptionValue::Numbers(first, last) => format!("{first}-{last}"),
            OptionValue::Pair(first, mask) => format!("{first}/{mask}"),
            // Several words are those of `encap` or begin with `lock`.
            OptionValue::Name(name) if name.contains(' ') => name.clone(),
            OptionValue::Name(name) => word(name),
        };
        text += format!(" {name} {value}").trim_end();
    }
    text
}

impl Out {
    pub(super) fn definitions(&mut self, config: &Config) {
        self.addresses("static_ipaddress", &config.static_addresses);
        self.routes("static_routes", &config.static_routes);
        self.rules("static_rules", &config.static_rules);
        for group in &config.track_groups {
            self.open(format!("track_group {}", word(&group.name)));
            self.names("group", &group.members);
            self.close();
        }
        if !config.linkbeats.is_empty() {
            self.open("linkbeat_interfaces");
            for entry in &config.linkbeats {
                let by = entry.by.map(|by| format!(" {by}")).unwrap_or_default();
                self.line(format!("{}{by}", word(&entry.interface)));
            }
            self.close();
        }
        if !config.up_down_delays.is_empty() {
            self.open("interface_up_down_delays");
            for entry in &config.up_down_delays {
                let (name, down, up) = (word(&entry.interface), Secs(entry.down), Secs(entry.up));
                self.line(format!("{name} {down} {up}"));
            }
            self.close();
        }
        for group in &config.garp_groups {
            self.open("garp_group");
            let intervals = [
                ("garp_interval", group.garp_interval),
                ("gna_interval", group.gna_interval),
            ];
            for (keyword, interval) in intervals {
                if let Some(interval) = interval {
                    self.line(format!("{keyword} {}", Secs(interval)));
                }
            }
            self.names("interfaces", &group.interfaces);
            self.close();
        }
        config.scripts.iter().for_each(|script| self.script(script));
        config
            .track_files
            .iter()
            .for_each(|file| self.track_file(file));
        let processes = config.track_processes.iter();
        processes.for_each(|process| self.track_process(process));
        config.bfd_instances.iter().for_each(|bfd| self.bfd(bfd));
        config
            .sync_groups
            .iter()
            .for_each(|group| self.sync_group(group));
    }

    fn names(&mut self, keyword: &str, names: &[String]) {
        self.open(keyword);
        for name in names {
            self.line(word(name));
        }
        self.close();
    }

    pub(super) fn routes(&mut self, keyword: &str, routes: &[Route]) {
        if routes.is_empty() {
            return;
        }
        self.open(keyword);
        for route in routes {
            let kind = match route.kind {
                RouteKind::Unicast => String::new(),
                kind => format!("{kind} "),
            };
            let to = route
                .to
                .map_or_else(|| "default".to_owned(), |to| to.to_string());
            let mut line = format!("{kind}{to}{}", options(&route.options));
            for hop in &route.next_hops {
                line += &format!(" nexthop{}", options(hop));
            }
            self.line(line);
        }
        self.close();
    }

    pub(super) fn rules(&mut self, keyword: &str, rules: &[Rule]) {
        if rules.is_empty() {
            return;
        }
        self.open(keyword);
        for rule in rules {
            self.line(options(&rule.options).trim_start());
        }
        self.close();
    }

    fn script(&mut self, script: &VrrpScript) {
        self.open(format!("vrrp_script {}", word(&script.name)));
        // Of `user` no word could hold a quote.
        let owner = script.user.iter();
        let owner = owner.flat_map(|Owner { user, group }| std::iter::once(user).chain(group));
        let words = std::iter::once(&script.command).chain(owner);
        let words: Vec<String> = words.map(|text| script_word(text)).collect();
        self.line(format!("script {}", words.join(" ")));
        self.line(format!("interval {}", script.interval.as_secs()));
        self.line(format!("timeout {}", script.timeout.as_secs()));
        self.line(format!(
            "weight {}{}",
            script.weight,
            reverse(script.reverse)
        ));
        self.line(format!("rise {}", script.rise));
        self.line(format!("fall {}", script.fall));
        self.flag(script.init_fail, "init_fail");
        self.close();
    }

    fn track_file(&mut self, file: &TrackFile) {
        self.open(format!("track_file {}", word(&file.name)));
        self.line(format!("file {}", word(&file.path)));
        self.line(format!("weight {}{}", file.weight, reverse(file.reverse)));
        if let Some(init) = file.init {
            let overwrite = if init.overwrite { " overwrite" } else { "" };
            self.line(format!("init_file {}{overwrite}", init.value));
        }
        self.close();
    }

    fn track_process(&mut self, process: &TrackProcess) {
        self.open(format!("vrrp_track_process {}", word(&process.name)));
        let words: Vec<String> = process.command.iter().map(|text| word(text)).collect();
        self.line(format!("process {}", words.join(" ")));
        if let Some(how) = process.param_match {
            self.line(format!("param_match {how}"));
        }
        self.flag(process.full_command, "full_command");
        self.line(format!(
            "weight {}{}",
            process.weight,
            reverse(process.reverse)
        ));
        self.line(format!("quorum {}", process.quorum));
        if let Some(most) = process.quorum_max {
            self.line(format!("quorum_max {most}"));
        }
        for (keyword, delay) in [
            ("fork_delay", process.fork_delay),
            ("terminate_delay", process.terminate_delay),
        ] {
            if !delay.is_zero() {
                self.line(format!("{keyword} {}", Secs(delay)));
            }
        }
        self.close();
    }

    fn bfd(&mut self, bfd: &BfdInstance) {
        self.open(format!("bfd_instance {}", word(&bfd.name)));
        self.line(format!("neighbor_ip {}", bfd.neighbor));
        if let Some(source) = bfd.source {
            self.line(format!("source_ip {source}"));
        }
        self.line(format!("min_rx {}", millis(bfd.min_rx)));
        self.line(format!("min_tx {}", millis(bfd.min_tx)));
        self.line(format!("idle_tx {}", millis(bfd.idle_tx)));
        self.line(format!("multiplier {}", bfd.multiplier));
        self.flag(bfd.passive, "passive");
        self.line(format!("ttl {}", bfd.ttl));
        self.line(format!("max_hops {}", bfd.max_hops));
        self.flag(bfd.multihop, "multihop");
        self.line(format!("weight {}{}", bfd.weight, reverse(bfd.reverse)));
        // Neither means both.
        if bfd.vrrp != bfd.checker {
            self.line(if bfd.vrrp { "vrrp" } else { "checker" });
        }
        self.close();
    }

    fn sync_group(&mut self, group: &SyncGroup) {
        self.open(format!("vrrp_sync_group {}", word(&group.name)));
        self.names("group", &group.members);
        self.track_interface(&group.track_interface);
        self.trackers(&group.trackers);
        self.flag(group.tracking_weight, "sync_group_tracking_weight");
        self.flag(group.global_tracking, "global_tracking");
        for (keyword, value) in [
            ("smtp_alert", group.smtp_alert),
            ("notify_priority_changes", group.notify_priority_changes),
        ] {
            if let Some(value) = value {
                self.line(format!("{keyword} {}", if value { "yes" } else { "no" }));
            }
        }
        self.scripts(&group.notify);
        self.close();
    }
}
