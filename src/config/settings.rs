//! `xvs`: our own block. keepalived complains about it and goes on without; it is for settings
//! that keepalived has no word for.

use std::{collections::HashSet, net::IpAddr, time::Duration};

use super::{
    defaults::{self, Limits},
    diagnostic::{Draft, Drafts, quoted},
    lexer::Word,
    model::{AddressSet, MarkRule, PortRange, Settings, Timeout, Timeouts},
    server::protocol,
    source::Span,
    support::Block,
    tree::Stmt,
    value,
    vrrp::interface,
    walk::{self, At, Rule, block, line},
};
use crate::{
    addr::{Family, IpPrefix, L4Proto},
    lvs::MaglevSize,
};

/// Idle times that were said, each with its place.
#[derive(Debug, Default)]
pub(super) struct Said(Vec<(Timeout, At<Duration>)>);

impl Said {
    pub(super) fn say(&mut self, state: Timeout, value: Duration, span: Span) {
        self.0.push((state, At { value, span }));
    }
}

/// The block while it is read.
#[derive(Debug, Default)]
pub(super) struct SettingsDraft {
    settings: Settings,
    marks: Vec<(MarkRule, Span)>,
    timeouts: Said,
}

impl SettingsDraft {
    /// Reads one `xvs` block; several add up.
    pub(super) fn read(&mut self, stmt: &Stmt, drafts: &mut Drafts) {
        stmt.no_more(0, drafts);
        walk::walk(self, stmt.body(), Block::Own, &[RULES], drafts);
    }

    /// The marks that packets of a family can get.
    pub(super) fn marked(&self) -> HashSet<(u32, Family)> {
        let marks = self.marks.iter().map(|(rule, _)| rule);
        marks.map(|rule| (rule.mark, family(rule))).collect()
    }

    /// `taken` are the marks that virtual servers ask for, `lvs` is what `lvs_timeouts` says.
    pub(super) fn finish(
        self,
        taken: &HashSet<(u32, Family)>,
        lvs: &Said,
        drafts: &mut Drafts,
    ) -> (Settings, Timeouts) {
        let mut settings = self.settings;
        for (rule, span) in self.marks {
            let (mark, family) = (rule.mark, family(&rule));
            if !taken.contains(&(mark, family)) {
                let message = format!("no virtual server takes {family} packets with mark {mark}");
                drafts.push(Draft::warning(span, message));
            }
            settings.marks.push(rule);
        }
        let mut timeouts = Timeouts::default();
        for (state, time) in &lvs.0 {
            timeouts.set(*state, time.value);
        }
        for (state, At { value, span }) in self.timeouts.0 {
            let other = timeouts.get(state);
            if other != value && lvs.0.iter().any(|(said, _)| *said == state) {
                let seconds = other.as_secs();
                let message = format!("`{}` overrides lvs_timeouts: {seconds} s", state.name());
                drafts.push(Draft::warning(span, message));
            }
            timeouts.set(state, value);
        }
        (settings, timeouts)
    }
}

fn family(rule: &MarkRule) -> Family {
    Family::of(rule.destination.first())
}

/// A switch as sysctl has it.
fn switch(field: &mut bool, stmt: &Stmt, drafts: &mut Drafts) {
    if let Some(value) = stmt.number::<u8>(&defaults::SWITCH, drafts) {
        *field = value != 0;
    }
}

fn yes_or_no(field: &mut bool, stmt: &Stmt, drafts: &mut Drafts) {
    if let Some(value) = stmt.boolean(drafts) {
        *field = value;
    }
}

static RULES: &[Rule<SettingsDraft>] = &[
    block("mark", |draft, stmt, drafts| {
        draft.marks.extend(MarkDraft::read(stmt, drafts));
    }),
    block("timeouts", |draft, stmt, drafts| {
        stmt.no_more(0, drafts);
        timeouts(&mut draft.timeouts, stmt, drafts);
    }),
    line("conn_reuse_mode", |draft, stmt, drafts| {
        if let Some(mode) = stmt.number(&defaults::REUSE_MODE, drafts) {
            draft.settings.ipvs.conn_reuse_mode = mode;
        }
    }),
    line("expire_nodest_conn", |draft, stmt, drafts| {
        switch(&mut draft.settings.ipvs.expire_nodest_conn, stmt, drafts);
    }),
    line("expire_quiescent_template", |draft, stmt, drafts| {
        let field = &mut draft.settings.ipvs.expire_quiescent_template;
        switch(field, stmt, drafts);
    }),
    line("sloppy_tcp", |draft, stmt, drafts| {
        switch(&mut draft.settings.ipvs.sloppy_tcp, stmt, drafts);
    }),
    line("sloppy_sctp", |draft, stmt, drafts| {
        switch(&mut draft.settings.ipvs.sloppy_sctp, stmt, drafts);
    }),
    line("pmtu_disc", |draft, stmt, drafts| {
        switch(&mut draft.settings.ipvs.pmtu_disc, stmt, drafts);
    }),
    line("schedule_icmp", |draft, stmt, drafts| {
        switch(&mut draft.settings.ipvs.schedule_icmp, stmt, drafts);
    }),
    line("nat_icmp_send", |draft, stmt, drafts| {
        switch(&mut draft.settings.ipvs.nat_icmp_send, stmt, drafts);
    }),
    line("reset_on_failure", |draft, stmt, drafts| {
        yes_or_no(&mut draft.settings.reset_on_failure, stmt, drafts);
    }),
    line("cut_removed", |draft, stmt, drafts| {
        yes_or_no(&mut draft.settings.cut_removed, stmt, drafts);
    }),
    line("udp_move", |draft, stmt, drafts| {
        yes_or_no(&mut draft.settings.udp_move, stmt, drafts);
    }),
    line("tunnel_source", |draft, stmt, drafts| {
        let Some(word) = stmt.one(drafts) else {
            return;
        };
        let network = match value::network(&word.text) {
            Ok(network) => network,
            Err(why) => return wrong(word, &why, drafts),
        };
        let own = &mut draft.settings.tunnel_source;
        let is_v4 = |prefix: &IpPrefix| prefix.addr().is_ipv4();
        if own.iter().any(|known| is_v4(known) == is_v4(&network)) {
            let message = "a second tunnel_source of one address family".to_owned();
            let hint = "one network for IPv4 and one for IPv6";
            drafts.push(Draft::error(word.span, message).hint(hint));
        } else {
            own.push(network);
        }
    }),
    line("maglev_table_size", |draft, stmt, drafts| {
        let Some(size) = stmt.number::<u32>(&defaults::TABLE_SIZE, drafts) else {
            return;
        };
        if let Some(size) = MaglevSize::new(size) {
            draft.settings.maglev_table_size = size;
            return;
        }
        let message = format!("maglev_table_size {size} is not a prime");
        let error = Draft::error(stmt.args[0].span, message);
        // The largest size of the range is a prime.
        drafts.push(match (size..=MaglevSize::MAX).find_map(MaglevSize::new) {
            Some(next) => error.hint(format!("the next one is {}", next.slots())),
            None => error,
        });
    }),
    line("workers", |draft, stmt, drafts| {
        draft.settings.workers = stmt.number(&defaults::WORKERS, drafts);
    }),
    line("cpus", |draft, stmt, drafts| {
        let Some(word) = stmt.one(drafts) else { return };
        match value::cpus(&word.text) {
            Some(cpus) => draft.settings.cpus = cpus,
            None => {
                let message = format!("{} is not a list of CPUs", quoted(&word.text));
                let most = defaults::CPUS - 1;
                let hint = format!("like 0,2-5; the highest is {most} (Linux NR_CPUS)");
                drafts.push(Draft::error(word.span, message).hint(hint));
            }
        }
    }),
    line("spin_us", |draft, stmt, drafts| {
        if let Some(micros) = stmt.number(&defaults::SPIN_US, drafts) {
            draft.settings.spin = Duration::from_micros(micros);
        }
    }),
    line("busy_poll", |draft, stmt, drafts| {
        yes_or_no(&mut draft.settings.busy_poll, stmt, drafts);
    }),
];

fn timeouts(said: &mut Said, stmt: &Stmt, drafts: &mut Drafts) {
    for line in stmt.body() {
        let keyword = &line.keyword;
        let mut states = Timeout::ALL.iter();
        let Some(state) = states.find(|state| state.name() == keyword.text) else {
            let message = format!("unknown state {}", quoted(&keyword.text));
            let draft = Draft::error(keyword.span, message);
            let names = Timeout::ALL.iter().map(|state| state.name());
            drafts.push(match walk::similar(&keyword.text, names) {
                Some(meant) => draft.hint(format!("did you mean `{meant}`?")),
                None => draft.hint("a state of IPVS, like tcp_syn_recv or sctp_established"),
            });
            continue;
        };
        if line.block.is_some() {
            let message = format!("`{}` takes no block", keyword.text);
            drafts.push(Draft::error(keyword.span, message));
        }
        if said.0.iter().any(|(known, _)| known == state) {
            let message = format!("`{}` is given again; the last one counts", keyword.text);
            drafts.push(Draft::warning(keyword.span, message));
            said.0.retain(|(known, _)| known != state);
        }
        if let Some(seconds) = line.number::<u32>(&defaults::TIMEOUT, drafts) {
            said.say(*state, Duration::from_secs(seconds.into()), keyword.span);
        }
    }
}

/// A `mark` block while it is read.
#[derive(Debug, Default)]
struct MarkDraft {
    protocol: Option<L4Proto>,
    destination: Option<AddressSet>,
    destination_port: Option<At<PortRange>>,
    source: Option<At<IpPrefix>>,
    source_port: Option<At<PortRange>>,
    interface: Option<String>,
}

impl MarkDraft {
    fn read(stmt: &Stmt, drafts: &mut Drafts) -> Option<(MarkRule, Span)> {
        let mut draft = Self::default();
        let mark = stmt.number(&defaults::MARK, drafts);
        walk::walk(&mut draft, stmt.body(), Block::Own, &[MARK_RULES], drafts);
        let mark = mark?;
        draft.judge(drafts);
        let said = stmt.body().iter().any(|s| s.keyword.text == "destination");
        if !said {
            let message = format!("mark {mark} has no destination");
            let hint = "an address, a network or a range";
            drafts.push(Draft::error(stmt.keyword.span, message).hint(hint));
        }
        let rule = MarkRule {
            mark,
            protocol: draft.protocol,
            destination: draft.destination?,
            destination_port: draft.destination_port.map(|port| port.value),
            source: draft.source.map(|source| source.value),
            source_port: draft.source_port.map(|port| port.value),
            interface: draft.interface,
        };
        Some((rule, stmt.keyword.span))
    }

    /// The rules between the lines.
    fn judge(&self, drafts: &mut Drafts) {
        let ports = [self.destination_port, self.source_port];
        for port in ports.into_iter().flatten() {
            if self.protocol.is_none() {
                let message = "a port needs a protocol";
                let hint = "as with iptables; one `mark` block for each protocol";
                drafts.push(Draft::error(port.span, message).hint(hint));
            }
        }
        let (Some(source), Some(destination)) = (self.source, self.destination) else {
            return;
        };
        let (from, to): (IpAddr, IpAddr) = (source.value.addr(), destination.first());
        if from.is_ipv4() != to.is_ipv4() {
            let (from, to) = (Family::of(from), Family::of(to));
            let message = format!("the source is {from} and the destination {to}");
            drafts.push(Draft::error(source.span, message));
        }
    }
}

fn port(stmt: &Stmt, drafts: &mut Drafts) -> Option<At<PortRange>> {
    let word = stmt.one(drafts)?;
    let value = value::ports(&word.text);
    if value.is_none() {
        let message = format!("{} is neither a port nor a range", quoted(&word.text));
        let Limits { range, source } = &defaults::PORT;
        let hint = format!("{} to {} ({source})", range.start(), range.end());
        drafts.push(Draft::error(word.span, message).hint(hint));
    }
    value.map(|value| At {
        value,
        span: word.span,
    })
}

fn wrong(word: &Word, why: &str, drafts: &mut Drafts) {
    let message = format!("{}: {why}", quoted(&word.text));
    drafts.push(Draft::error(word.span, message));
}

static MARK_RULES: &[Rule<MarkDraft>] = &[
    line("protocol", |draft, stmt, drafts| {
        draft.protocol = protocol(stmt, drafts);
    }),
    line("destination", |draft, stmt, drafts| {
        let Some(word) = stmt.one(drafts) else { return };
        match value::addresses(&word.text) {
            Ok(addresses) => draft.destination = Some(addresses),
            Err(why) => wrong(word, &why, drafts),
        }
    }),
    line("destination_port", |draft, stmt, drafts| {
        draft.destination_port = port(stmt, drafts);
    }),
    line("source", |draft, stmt, drafts| {
        let Some(word) = stmt.one(drafts) else { return };
        match value::network(&word.text) {
            Ok(value) => {
                draft.source = Some(At {
                    value,
                    span: word.span,
                });
            }
            Err(why) => wrong(word, &why, drafts),
        }
    }),
    line("source_port", |draft, stmt, drafts| {
        draft.source_port = port(stmt, drafts);
    }),
    line("interface", |draft, stmt, drafts| {
        draft.interface = stmt.one(drafts).and_then(|word| interface(word, drafts));
    }),
];
