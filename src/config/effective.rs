//! The configuration that counts, written so that it can be read again: every default resolved,
//! nothing inherited, the password masked.

use std::{
    collections::HashSet,
    fmt::{self, Display, Formatter, Write},
    time::Duration,
};

use super::model::{
    Authentication, CheckKind, Checker, Config, Garp, Global, InitialState, Ipvs, Mail, MarkRule,
    Match, NotifyScript, Password, RealServer, Settings, Timeout, Timeouts, Transport,
    VirtualAddress, VirtualServer, VrrpInstance, VrrpVersion,
};
use crate::lvs::Scheduler;

/// Whether the writer shows passwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secrets {
    Masked,
    #[cfg(test)]
    Shown,
}

impl Secrets {
    /// A password as it is written; masked, all look alike whatever their length.
    fn shown(self, password: &Password) -> String {
        match (self, password) {
            (Self::Masked, _) => "****".to_owned(),
            #[cfg(test)]
            (Self::Shown, password) => {
                let text = String::from_utf8_lossy(password.bytes());
                word(text.trim_end_matches('\0'))
            }
        }
    }
}

/// The effective configuration in keepalived's syntax. Reading it gives the same [`Config`],
/// but for the password, which is masked.
pub fn effective(config: &Config) -> String {
    written(config, Secrets::Masked)
}

impl Display for Config {
    /// As [`effective()`].
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&effective(self))
    }
}

/// The configuration with or without its passwords.
pub(super) fn written(config: &Config, secrets: Secrets) -> String {
    let mut out = Out {
        text: String::new(),
        depth: 0,
        secrets,
    };
    out.global(&config.global, &config.timeouts);
    out.settings(&config.settings, &config.timeouts);
    for instance in &config.vrrp_instances {
        out.instance(instance);
    }
    let mut groups = HashSet::new();
    for server in &config.virtual_servers {
        if let Some(group) = server.group.as_ref().filter(|name| groups.insert(*name)) {
            out.group(group, &server.matches);
        }
        out.server(server);
    }
    out.text
}

struct Out {
    text: String,
    depth: usize,
    secrets: Secrets,
}

/// A word as the lexer reads it back: quoted where it would not survive bare.
fn word(text: &str) -> String {
    let bare = |c: char| !c.is_whitespace() && !matches!(c, '#' | '!' | '{' | '}' | '\\' | '$');
    let directive = text.starts_with(['@', '~']) || text.starts_with("include");
    if !text.is_empty() && !directive && text.chars().all(bare) {
        text.to_owned()
    } else {
        format!("\"{text}\"")
    }
}

/// A word as the script rule reads it back. The quote itself is written as an escape, because
/// the search for comments knows no backslash within quotes.
fn script_word(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\x22"),
            '\\' => quoted.push_str("\\\\"),
            c if c.is_ascii_control() => {
                // Writing to a String cannot fail.
                let _ = write!(quoted, "\\x{:02x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Seconds with as many decimals as they need.
struct Secs(Duration);

impl Display for Secs {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (whole, micros) = (self.0.as_secs(), self.0.subsec_micros());
        if micros == 0 {
            return write!(f, "{whole}");
        }
        let fraction = format!("{micros:06}");
        write!(f, "{whole}.{}", fraction.trim_end_matches('0'))
    }
}

/// CPUs in rising order as the kernel lists them: `0,2-5`.
struct CpuList<'a>(&'a [u16]);

impl Display for CpuList<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let next_to = |a: &u16, b: &u16| a.checked_add(1) == Some(*b);
        for (number, run) in self.0.chunk_by(next_to).enumerate() {
            let comma = if number == 0 { "" } else { "," };
            match run {
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                run => write!(f, "{comma}{}", run[0])?,
            }
        }
        Ok(())
    }
}

impl Out {
    fn line(&mut self, line: impl Display) {
        let indent = " ".repeat(4 * self.depth);
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{indent}{line}");
    }

    fn flag(&mut self, set: bool, keyword: &str) {
        if set {
            self.line(keyword);
        }
    }

    fn open(&mut self, head: impl Display) {
        if self.depth == 0 && !self.text.is_empty() {
            self.text.push('\n');
        }
        self.line(format!("{head} {{"));
        self.depth += 1;
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.line("}");
    }

    fn global(&mut self, global: &Global, timeouts: &Timeouts) {
        let Global {
            router_id,
            mail,
            vrrp_startup_delay,
            vrrp_garp_interval,
            dynamic_interfaces,
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
        self.close();
    }

    fn mail(&mut self, mail: &Mail) {
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

    fn instance(&mut self, instance: &VrrpInstance) {
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
        self.flag(instance.skip_check_adv_addr, "skip_check_adv_addr");
        self.flag(instance.lower_prio_no_advert, "lower_prio_no_advert");
        self.flag(instance.higher_prio_send_advert, "higher_prio_send_advert");
        self.transport(instance);
        self.authentication(instance.authentication.as_ref());
        self.addresses("virtual_ipaddress", &instance.virtual_ipaddress);
        let excluded = &instance.virtual_ipaddress_excluded;
        self.addresses("virtual_ipaddress_excluded", excluded);
        self.garp(&instance.garp);
        self.flag(instance.dont_track_primary, "dont_track_primary");
        if !instance.track_interface.is_empty() {
            self.open("track_interface");
            for entry in &instance.track_interface {
                let reverse = if entry.reverse { " reverse" } else { "" };
                let (name, weight) = (word(&entry.interface), entry.weight);
                self.line(format!("{name} weight {weight}{reverse}"));
            }
            self.close();
        }
        self.scripts(&instance.notify);
        self.close();
    }

    fn transport(&mut self, instance: &VrrpInstance) {
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

    fn authentication(&mut self, authentication: Option<&Authentication>) {
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

    fn addresses(&mut self, keyword: &str, addresses: &[VirtualAddress]) {
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
            line += if address.noprefixroute {
                " noprefixroute"
            } else {
                ""
            };
            line += if address.no_track { " no_track" } else { "" };
            self.line(line);
        }
        self.close();
    }

    fn garp(&mut self, garp: &Garp) {
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
        self.line(format!("garp_lower_prio_delay {}", Secs(*lower_prio_delay)));
        self.line(format!("garp_lower_prio_repeat {lower_prio_repeat}"));
    }

    fn scripts(&mut self, scripts: &[NotifyScript]) {
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

    /// The block `xvs`, as far as it says something else than it would by default.
    fn settings(&mut self, settings: &Settings, timeouts: &Timeouts) {
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

    fn ipvs(&mut self, ipvs: &Ipvs) {
        let numbers = |ipvs: &Ipvs| {
            let Ipvs {
                conn_reuse_mode,
                expire_nodest_conn,
                expire_quiescent_template,
                sloppy_tcp,
                sloppy_sctp,
                pmtu_disc,
                schedule_icmp,
                nat_icmp_send,
            } = *ipvs;
            [
                ("conn_reuse_mode", conn_reuse_mode),
                ("expire_nodest_conn", expire_nodest_conn.into()),
                (
                    "expire_quiescent_template",
                    expire_quiescent_template.into(),
                ),
                ("sloppy_tcp", sloppy_tcp.into()),
                ("sloppy_sctp", sloppy_sctp.into()),
                ("pmtu_disc", pmtu_disc.into()),
                ("schedule_icmp", schedule_icmp.into()),
                ("nat_icmp_send", nat_icmp_send.into()),
            ]
        };
        let usual = numbers(&Ipvs::default());
        for ((keyword, value), usual) in numbers(ipvs).into_iter().zip(usual) {
            if value != usual.1 {
                self.line(format!("{keyword} {value}"));
            }
        }
    }

    fn mark(&mut self, rule: &MarkRule) {
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

    fn group(&mut self, name: &str, matches: &[Match]) {
        self.open(format!("virtual_server_group {}", word(name)));
        for entry in matches {
            self.line(entry);
        }
        self.close();
    }

    fn server(&mut self, server: &VirtualServer) {
        match (&server.group, &server.matches[..]) {
            (Some(group), _) => self.open(format!("virtual_server group {}", word(group))),
            (None, [Match::Mark { mark, family }, ..]) => {
                self.open(format!("virtual_server fwmark {mark}"));
                self.line(format!("ip_family {}", family.name()));
            }
            (None, _) => {
                let endpoint = server.key().endpoint;
                let (addr, port) = (endpoint.addr, endpoint.port);
                self.open(format!("virtual_server {addr} {port}"));
            }
        }
        if server.takes_addresses() {
            self.line(format!("protocol {}", server.protocol));
        }
        self.line(format!("delay_loop {}", Secs(server.delay_loop)));
        self.line(format!("lb_algo {}", server.lb_algo.name()));
        if let Scheduler::Sh { port, fallback } | Scheduler::Mh { port, fallback, .. } =
            server.lb_algo
        {
            let name = server.lb_algo.name();
            self.flag(port, &format!("{name}-port"));
            self.flag(fallback, &format!("{name}-fallback"));
        }
        self.flag(server.ops, "ops");
        self.line(format!("lb_kind {}", server.lb_kind));
        if let Some(persistence) = server.persistence {
            self.line(format!("persistence_timeout {}", Secs(persistence.timeout)));
            self.line(format!(
                "persistence_granularity {}",
                persistence.granularity
            ));
        }
        self.flag(server.alpha, "alpha");
        self.flag(server.omega, "omega");
        self.line(format!("quorum {}", server.quorum));
        self.line(format!("hysteresis {}", server.hysteresis));
        if let Some(sorry) = server.sorry_server {
            let endpoint = sorry.endpoint;
            self.line(format!("sorry_server {} {}", endpoint.addr, endpoint.port));
            self.line(format!("sorry_server_lvs_method {}", sorry.lb_kind));
            self.flag(sorry.inhibit, "sorry_server_inhibit");
        }
        self.scripts(&server.notify);
        for real in &server.real_servers {
            self.real(real);
        }
        self.close();
    }

    fn real(&mut self, real: &RealServer) {
        let endpoint = real.endpoint;
        self.open(format!("real_server {} {}", endpoint.addr, endpoint.port));
        self.line(format!("weight {}", real.weight));
        self.line(format!("lvs_method {}", real.lb_kind));
        self.flag(real.inhibit_on_failure, "inhibit_on_failure");
        if real.uthreshold != 0 {
            self.line(format!("uthreshold {}", real.uthreshold));
        }
        if real.lthreshold != 0 {
            self.line(format!("lthreshold {}", real.lthreshold));
        }
        self.scripts(&real.notify);
        for checker in &real.checkers {
            self.checker(checker);
        }
        self.close();
    }

    fn checker(&mut self, checker: &Checker) {
        self.open(match checker.kind {
            CheckKind::Tcp => "TCP_CHECK",
        });
        self.line(format!("connect_ip {}", checker.connect.addr));
        self.line(format!("connect_port {}", checker.connect.port));
        if let Some(addr) = checker.bindto {
            self.line(format!("bindto {addr}"));
        }
        if checker.bind_port != 0 {
            self.line(format!("bind_port {}", checker.bind_port));
        }
        self.line(format!("connect_timeout {}", Secs(checker.connect_timeout)));
        self.line(format!("retry {}", checker.retry));
        self.line(format!(
            "delay_before_retry {}",
            Secs(checker.delay_before_retry)
        ));
        if let Some(warmup) = checker.warmup {
            self.line(format!("warmup {}", Secs(warmup)));
        }
        self.line(format!("delay_loop {}", Secs(checker.delay_loop)));
        self.line(if checker.alpha {
            "alpha on"
        } else {
            "alpha off"
        });
        self.close();
    }
}
