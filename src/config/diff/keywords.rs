//! Which keywords have another value, each by its name.

use std::{fmt, time::Duration};

use super::{
    super::{
        effective::plain,
        model::{
            Authentication, Garp, Ipvs, Mail, NotifyEvent, NotifyScript, Persistence, Plain,
            RealServer, SorryServer, Ssl, Transport,
        },
    },
    Keyword,
};
use crate::lvs::Scheduler;

/// Collects the keywords with another value.
#[derive(Default)]
pub(super) struct Keywords(pub(super) Vec<Keyword>);

impl Keywords {
    pub(super) fn value<T: PartialEq>(
        &mut self,
        name: &'static str,
        (old, new): (&T, &T),
        show: impl Fn(&T) -> String,
    ) {
        if old != new {
            let values = Some((show(old), show(new)));
            self.0.push(Keyword { name, values });
        }
    }

    pub(super) fn plain<T: PartialEq + fmt::Display>(
        &mut self,
        name: &'static str,
        values: (&T, &T),
    ) {
        self.value(name, values, T::to_string);
    }

    pub(super) fn flag(&mut self, name: &'static str, (old, new): (bool, bool)) {
        self.value(name, (&old, &new), |set| {
            if *set { "yes" } else { "no" }.to_owned()
        });
    }

    pub(super) fn time(&mut self, name: &'static str, (old, new): (Duration, Duration)) {
        self.value(name, (&old, &new), |time| time.as_secs_f64().to_string());
    }

    /// Groups of plain values, which name their keywords themselves.
    pub(super) fn plain_values<'a>(
        &mut self,
        old: impl Iterator<Item = (&'static str, Option<Plain<'a>>)>,
        new: impl Iterator<Item = (&'static str, Option<Plain<'a>>)>,
    ) {
        let show = |value: &Option<Plain<'_>>| match value {
            None => "not given".to_owned(),
            Some(Plain::Flag) => "given".to_owned(),
            Some(value) => plain(value),
        };
        for ((name, was), (_, is)) in old.zip(new) {
            self.value(name, (&was, &is), show);
        }
    }

    /// A value that is too long, or not for others to see.
    pub(super) fn other<T: PartialEq>(&mut self, name: &'static str, (old, new): (&T, &T)) {
        if old != new {
            self.0.push(Keyword { name, values: None });
        }
    }
}

impl Keywords {
    /// Scripts, each by its occasion.
    pub(super) fn scripts(&mut self, old: &[NotifyScript], new: &[NotifyScript]) {
        let of = |scripts: &[NotifyScript], event: NotifyEvent| {
            scripts.iter().find(|script| script.event == event).cloned()
        };
        let mut events: Vec<NotifyEvent> = Vec::new();
        for script in old.iter().chain(new) {
            if !events.contains(&script.event) {
                events.push(script.event);
            }
        }
        for event in events {
            self.other(event.keyword(), (&of(old, event), &of(new, event)));
        }
    }

    pub(super) fn transport(&mut self, old: &Transport, new: &Transport) {
        match (old, new) {
            (
                Transport::Unicast {
                    peers,
                    ttl,
                    check_source,
                },
                Transport::Unicast {
                    peers: to_peers,
                    ttl: to_ttl,
                    check_source: to_check,
                },
            ) => {
                self.other("unicast_peer", (peers, to_peers));
                self.plain("unicast_ttl", (ttl, to_ttl));
                self.flag("check_unicast_src", (*check_source, *to_check));
            }
            (Transport::Multicast { group }, Transport::Multicast { group: to }) => {
                self.plain("mcast_dst_ip", (group, to));
            }
            _ => self.other("unicast_peer", (old, new)),
        }
    }

    pub(super) fn garp(&mut self, old: &Garp, new: &Garp) {
        let Garp {
            master_delay,
            master_repeat,
            master_refresh,
            master_refresh_repeat,
            lower_prio_delay,
            lower_prio_repeat,
        } = old;
        self.time("garp_master_delay", (*master_delay, new.master_delay));
        self.plain("garp_master_repeat", (master_repeat, &new.master_repeat));
        self.time("garp_master_refresh", (*master_refresh, new.master_refresh));
        self.plain(
            "garp_master_refresh_repeat",
            (master_refresh_repeat, &new.master_refresh_repeat),
        );
        self.time(
            "garp_lower_prio_delay",
            (*lower_prio_delay, new.lower_prio_delay),
        );
        self.plain(
            "garp_lower_prio_repeat",
            (lower_prio_repeat, &new.lower_prio_repeat),
        );
    }

    pub(super) fn mail(&mut self, old: &Mail, new: &Mail) {
        let Mail {
            recipients,
            from,
            smtp_server,
            helo_name,
            connect_timeout,
        } = old;
        self.other("notification_email", (recipients, &new.recipients));
        self.other("notification_email_from", (from, &new.from));
        self.other("smtp_server", (smtp_server, &new.smtp_server));
        self.other("smtp_helo_name", (helo_name, &new.helo_name));
        self.time(
            "smtp_connect_timeout",
            (*connect_timeout, new.connect_timeout),
        );
    }

    pub(super) fn ssl(&mut self, old: &Ssl, new: &Ssl) {
        let Ssl {
            password,
            ca,
            certificate,
            key,
        } = old;
        self.other("SSL password", (password, &new.password));
        self.other("SSL ca", (ca, &new.ca));
        self.other("SSL certificate", (certificate, &new.certificate));
        self.other("SSL key", (key, &new.key));
    }

    pub(super) fn ipvs(&mut self, old: &Ipvs, new: &Ipvs) {
        for ((name, old), (_, new)) in old.values().into_iter().zip(new.values()) {
            self.plain(name, (&old, &new));
        }
    }

    /// Checks, by the kind of those that differ.
    pub(super) fn checks(&mut self, old: &RealServer, new: &RealServer) {
        let kinds = |real: &RealServer| -> Vec<&'static str> {
            let kinds = real.checkers.iter().map(|checker| checker.kind.keyword());
            kinds.collect()
        };
        let mut all: Vec<&'static str> = Vec::new();
        for kind in kinds(old).into_iter().chain(kinds(new)) {
            if !all.contains(&kind) {
                all.push(kind);
            }
        }
        for kind in all {
            let of = |real: &RealServer| {
                let own = real.checkers.iter();
                let own = own.filter(|checker| checker.kind.keyword() == kind);
                own.cloned().collect::<Vec<_>>()
            };
            self.other(kind, (&of(old), &of(new)));
        }
    }

    pub(super) fn persistence(&mut self, old: Option<Persistence>, new: Option<Persistence>) {
        let timeout = |of: Option<Persistence>| of.map(|of| of.timeout);
        let granularity = |of: Option<Persistence>| of.map(|of| of.granularity);
        self.value(
            "persistence_timeout",
            (&timeout(old), &timeout(new)),
            |timeout| match timeout {
                None => "none".to_owned(),
                Some(timeout) => timeout.as_secs().to_string(),
            },
        );
        if old.is_some() && new.is_some() {
            self.value(
                "persistence_granularity",
                (&granularity(old), &granularity(new)),
                |length| length.map_or_else(String::new, |length| format!("/{length}")),
            );
        }
    }

    pub(super) fn scheduler(&mut self, old: &Scheduler, new: &Scheduler) {
        match (old, new) {
            (
                Scheduler::Sh { port, fallback },
                Scheduler::Sh {
                    port: to_port,
                    fallback: to_fallback,
                },
            ) => {
                self.flag("sh-port", (*port, *to_port));
                self.flag("sh-fallback", (*fallback, *to_fallback));
            }
            (
                Scheduler::Mh {
                    port,
                    fallback,
                    size,
                },
                Scheduler::Mh {
                    port: to_port,
                    fallback: to_fallback,
                    size: to_size,
                },
            ) => {
                self.flag("mh-port", (*port, *to_port));
                self.flag("mh-fallback", (*fallback, *to_fallback));
                self.plain("maglev_table_size", (&size.slots(), &to_size.slots()));
            }
            _ => self.value("lb_algo", (old, new), |algo| algo.name().to_owned()),
        }
    }

    pub(super) fn authentication(
        &mut self,
        old: Option<&Authentication>,
        new: Option<&Authentication>,
    ) {
        let type_of = |said: &Authentication| std::mem::discriminant(said);
        let name = match (old.map(type_of), new.map(type_of)) {
            (Some(old), Some(new)) if old == new => "auth_pass",
            (Some(_), Some(_)) => "auth_type",
            _ => "authentication",
        };
        self.other(name, (&old, &new));
    }

    pub(super) fn sorry_server(&mut self, old: Option<SorryServer>, new: Option<SorryServer>) {
        let shown = |sorry: &Option<SorryServer>| match sorry {
            None => "none".to_owned(),
            Some(sorry) => sorry.endpoint.to_string(),
        };
        let (Some(was), Some(is)) = (old, new) else {
            self.value("sorry_server", (&old, &new), shown);
            return;
        };
        self.plain("sorry_server", (&was.endpoint, &is.endpoint));
        self.plain("sorry_server_lvs_method", (&was.lb_kind, &is.lb_kind));
        self.flag("sorry_server_inhibit", (was.inhibit, is.inhibit));
    }
}
