//! What holds for the whole program.

use super::{CpuList, Out, Secs, word};
use crate::config::model::{Global, Ipvs, Mail, MarkRule, Settings, SyncDaemon, Timeout, Timeouts};

impl Out {
    pub(super) fn global(&mut self, global: &Global, timeouts: &Timeouts) {
        let Global {
            router_id,
            mail,
            vrrp_startup_delay,
            vrrp_garp_interval,
            vrrp_gna_interval,
            dynamic_interfaces,
            lvs_sync_daemon,
            alerts: _,
            vrrp: _,
            scripts: _,
            files: _,
            processes: _,
            host: _,
        } = global;
        self.open("global_defs");
        if let Some(id) = router_id {
            self.line(format!("router_id {}", word(id)));
        }
        self.mail(mail);
        self.line(format!(
            "lvs_timeouts tcp {} tcpfin {} udp {}",
            Secs(timeouts.get(Timeout::TcpEstablished)),
            Secs(timeouts.get(Timeout::TcpFinWait)),
            Secs(timeouts.get(Timeout::Udp))
        ));
        if !vrrp_startup_delay.is_zero() {
            self.line(format!("vrrp_startup_delay {}", Secs(*vrrp_startup_delay)));
        }
        if *dynamic_interfaces {
            self.line("dynamic_interfaces");
        }
        if !vrrp_garp_interval.is_zero() {
            self.line(format!("vrrp_garp_interval {}", Secs(*vrrp_garp_interval)));
        }
        if !vrrp_gna_interval.is_zero() {
            self.line(format!("vrrp_gna_interval {}", Secs(*vrrp_gna_interval)));
        }
        if let Some(daemon) = lvs_sync_daemon {
            self.sync_daemon(daemon);
        }
        for (keyword, value) in global.plain() {
            self.plain(keyword, value.as_ref());
        }
        self.close();
    }

    fn sync_daemon(&mut self, daemon: &SyncDaemon) {
        let mut line = format!("lvs_sync_daemon {}", word(&daemon.interface));
        if let Some(instance) = &daemon.instance {
            line += &format!(" inst {}", word(instance));
        }
        let numbers = [
            ("id", daemon.id.map(u16::from)),
            ("maxlen", daemon.maxlen),
            ("port", daemon.port),
            ("ttl", daemon.ttl.map(u16::from)),
        ];
        for (name, number) in numbers {
            if let Some(number) = number {
                line += &format!(" {name} {number}");
            }
        }
        if let Some(group) = daemon.group {
            line += &format!(" group {group}");
        }
        self.line(line);
    }

    pub(super) fn mail(&mut self, mail: &Mail) {
        if *mail == Mail::default() {
            return;
        }
        let Mail {
            recipients,
            from,
            smtp_server,
            helo_name,
            connect_timeout,
        } = mail;
        if !recipients.is_empty() {
            self.open("notification_email");
            for recipient in recipients {
                self.line(word(recipient));
            }
            self.close();
        }
        if let Some(from) = from {
            self.line(format!("notification_email_from {}", word(from)));
        }
        if let Some((host, port)) = smtp_server {
            self.line(format!("smtp_server {} {port}", word(host)));
        }
        if let Some(name) = helo_name {
            self.line(format!("smtp_helo_name {}", word(name)));
        }
        self.line(format!("smtp_connect_timeout {}", Secs(*connect_timeout)));
    }

    /// The block `xvs`, as far as it says something else than it would by default.
    pub(super) fn settings(&mut self, settings: &Settings, timeouts: &Timeouts) {
        // These are in `lvs_timeouts`.
        let common = [Timeout::TcpEstablished, Timeout::TcpFinWait, Timeout::Udp];
        let set: Vec<Timeout> = (Timeout::ALL.iter().copied())
            .filter(|state| timeouts.get(*state) != state.default_time())
            .filter(|state| !common.contains(state))
            .collect();
        let default = Settings::default();
        if set.is_empty() && *settings == default {
            return;
        }
        let Settings {
            marks,
            ipvs,
            reset_on_failure,
            cut_removed,
            udp_move,
            tunnel_source,
            maglev_table_size,
            workers,
            cpus,
            busy_poll,
            spin,
            fast_path,
        } = settings;
        self.open("xvs");
        if let Some(workers) = workers {
            self.line(format!("workers {workers}"));
        }
        if !cpus.is_empty() {
            self.line(format!("cpus {}", CpuList(cpus)));
        }
        for (keyword, value, usual) in [
            ("busy_poll", *busy_poll, default.busy_poll),
            (
                "reset_on_failure",
                *reset_on_failure,
                default.reset_on_failure,
            ),
            ("cut_removed", *cut_removed, default.cut_removed),
            ("udp_move", *udp_move, default.udp_move),
        ] {
            if value != usual {
                let value = if value { "yes" } else { "no" };
                self.line(format!("{keyword} {value}"));
            }
        }
        if *spin != default.spin {
            self.line(format!("spin_us {}", spin.as_micros()));
        }
        if *fast_path != default.fast_path {
            self.line(format!("fast_path {}", fast_path.word()));
        }
        for network in tunnel_source {
            self.line(format!("tunnel_source {network}"));
        }
        if *maglev_table_size != default.maglev_table_size {
            self.line(format!("maglev_table_size {maglev_table_size}"));
        }
        self.ipvs(ipvs);
        if !set.is_empty() {
            self.open("timeouts");
            for state in set {
                self.line(format!("{} {}", state.name(), Secs(timeouts.get(state))));
            }
            self.close();
        }
        for rule in marks {
            self.mark(rule);
        }
        self.close();
    }

    pub(super) fn ipvs(&mut self, ipvs: &Ipvs) {
        let usual = Ipvs::default().values();
        for ((keyword, value), usual) in ipvs.values().into_iter().zip(usual) {
            if value != usual.1 {
                self.line(format!("{keyword} {value}"));
            }
        }
    }

    pub(super) fn mark(&mut self, rule: &MarkRule) {
        let MarkRule {
            mark,
            protocol,
            destination,
            destination_port,
            source,
            source_port,
            interface,
        } = rule;
        self.open(format!("mark {mark}"));
        if let Some(protocol) = protocol {
            self.line(format!("protocol {protocol}"));
        }
        self.line(format!("destination {destination}"));
        if let Some(ports) = destination_port {
            self.line(format!("destination_port {ports}"));
        }
        if let Some(source) = source {
            self.line(format!("source {source}"));
        }
        if let Some(ports) = source_port {
            self.line(format!("source_port {ports}"));
        }
        if let Some(interface) = interface {
            self.line(format!("interface {}", word(interface)));
        }
        self.close();
    }
}
