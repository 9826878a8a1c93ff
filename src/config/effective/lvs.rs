//! Virtual servers and what is in them.

use super::{Out, Secs, word};
use crate::{
    addr::Family,
    config::{
        model::{Match, RealServer, VirtualServer},
        value::netmask,
    },
    lvs::Scheduler,
};

impl Out {
    pub(super) fn group(&mut self, name: &str, matches: &[Match]) {
        self.open(format!("virtual_server_group {}", word(name)));
        for entry in matches {
            self.line(entry);
        }
        self.close();
    }

    pub(super) fn server(&mut self, server: &VirtualServer) {
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
            let len = persistence.granularity;
            // keepalived takes a bare number for an IPv4 address.
            let granularity = match server.matches.first().map(Match::family) {
                Some(Family::V4) => netmask(len).to_string(),
                _ => len.to_string(),
            };
            self.line(format!("persistence_granularity {granularity}"));
        }
        self.said("persistence_engine", server.persistence_engine.as_deref());
        self.flag(server.alpha, "alpha");
        self.flag(server.omega, "omega");
        self.flag(server.ha_suspend, "ha_suspend");
        self.boolean("smtp_alert", server.smtp_alert);
        self.said("snmp_name", server.snmp_name.as_deref());
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

    pub(super) fn real(&mut self, real: &RealServer) {
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
        self.boolean("smtp_alert", real.smtp_alert);
        self.said("snmp_name", real.snmp_name.as_deref());
        self.scripts(&real.notify);
        for checker in &real.checkers {
            self.checker(checker);
        }
        self.close();
    }

    fn boolean(&mut self, keyword: &str, said: Option<bool>) {
        if let Some(said) = said {
            self.line(format!("{keyword} {}", if said { "on" } else { "off" }));
        }
    }
}
