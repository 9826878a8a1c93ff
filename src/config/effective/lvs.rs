//! Virtual servers and what is in them.

use super::{Out, Secs, word};
use crate::config::model::{CheckKind, Checker, Match, RealServer, VirtualServer};
use crate::lvs::Scheduler;

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
        self.scripts(&real.notify);
        for checker in &real.checkers {
            self.checker(checker);
        }
        self.close();
    }

    pub(super) fn checker(&mut self, checker: &Checker) {
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
