//! `xvs`: our own block. keepalived complains about it and goes on without; it is for settings
//! that keepalived has no word for.

use std::{collections::HashSet, net::IpAddr, time::Duration};

use super::{
    defaults,
    diagnostic::{Draft, Drafts},
    keyword::{APPLIED, BOOLEAN, Facts, FromGiven, Given, Keyword, Table, Value, block, line},
    lexer::Word,
    model::{AddressSet, FastPath, MarkRule, PortRange, Settings, Timeouts},
    read::{At, interface, protocol},
    source::{Span, quoted},
    timeouts::{Said, timeouts},
    tree::Stmt,
    value,
    walk::walk,
};
use crate::{
    addr::{Family, IpPrefix, L4Proto},
    lvs::MaglevSize,
};

/// The keywords of the block, and of those in it.
pub(super) fn facts() -> impl Iterator<Item = (&'static str, &'static Facts)> {
    TABLE.facts().chain(MARK_TABLE.facts())
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
        walk(self, stmt.body(), &TABLE, drafts);
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
fn switch(field: &mut bool, stmt: &Given<'_>, drafts: &mut Drafts) {
    if let Some(value) = stmt.number::<u8>(drafts) {
        *field = value != 0;
    }
}

fn yes_or_no(field: &mut bool, stmt: &Stmt, drafts: &mut Drafts) {
    if let Some(value) = stmt.boolean(drafts) {
        *field = value;
    }
}

static TABLE: Table<SettingsDraft> = Table {
    block: "xvs",
    keywords: &[KEYWORDS],
};

static KEYWORDS: &[Keyword<SettingsDraft>] = &[
    block(
        "mark",
        APPLIED,
        "gives packets a firewall mark for `virtual_server fwmark`",
    )
    .only_here()
    .read(|draft, stmt, drafts| {
        draft.marks.extend(MarkDraft::read(stmt, drafts));
    }),
    block(
        "timeouts",
        APPLIED,
        "idle times of connections by IPVS's states, in seconds",
    )
    .only_here()
    .read(|draft, stmt, drafts| {
        stmt.no_more(0, drafts);
        timeouts(&mut draft.timeouts, stmt, drafts);
    }),
    line(
        "conn_reuse_mode",
        APPLIED,
        "when a SYN on a known connection starts a new one; bit 0: finished, bit 1: closing",
    )
    .number(&defaults::REUSE_MODE)
    .default(Value::Number(defaults::CONN_REUSE_MODE as u32))
    .read(|draft, stmt, drafts| {
        if let Some(mode) = stmt.number(drafts) {
            draft.settings.ipvs.conn_reuse_mode = mode;
        }
    }),
    line(
        "expire_nodest_conn",
        APPLIED,
        "whether a connection to a real server that is gone ends with its next packet",
    )
    .number(&defaults::SWITCH)
    .default(Value::Word("1"))
    .read(|draft, stmt, drafts| {
        switch(&mut draft.settings.ipvs.expire_nodest_conn, stmt, drafts);
    }),
    line(
        "expire_quiescent_template",
        APPLIED,
        "whether persistent clients of a real server of weight 0 get another one",
    )
    .number(&defaults::SWITCH)
    .default(Value::Word("0"))
    .read(|draft, stmt, drafts| {
        let field = &mut draft.settings.ipvs.expire_quiescent_template;
        switch(field, stmt, drafts);
    }),
    line(
        "sloppy_tcp",
        APPLIED,
        "whether any segment but a reset may start a connection",
    )
    .number(&defaults::SWITCH)
    .default(Value::Word("0"))
    .read(|draft, stmt, drafts| {
        switch(&mut draft.settings.ipvs.sloppy_tcp, stmt, drafts);
    }),
    line(
        "sloppy_sctp",
        APPLIED,
        "whether any chunk but ABORT may start a connection",
    )
    .number(&defaults::SWITCH)
    .default(Value::Word("0"))
    .read(|draft, stmt, drafts| {
        switch(&mut draft.settings.ipvs.sloppy_sctp, stmt, drafts);
    }),
    line(
        "pmtu_disc",
        APPLIED,
        "whether a tunnelled packet that may not be fragmented makes one like it",
    )
    .number(&defaults::SWITCH)
    .default(Value::Word("1"))
    .read(|draft, stmt, drafts| {
        switch(&mut draft.settings.ipvs.pmtu_disc, stmt, drafts);
    }),
    line(
        "schedule_icmp",
        APPLIED,
        "whether ICMP errors about unknown flows are scheduled",
    )
    .number(&defaults::SWITCH)
    .default(Value::Word("0"))
    .read(|draft, stmt, drafts| {
        switch(&mut draft.settings.ipvs.schedule_icmp, stmt, drafts);
    }),
    line(
        "nat_icmp_send",
        APPLIED,
        "whether a real server whose packet answers no connection is told so",
    )
    .number(&defaults::SWITCH)
    .default(Value::Word("0"))
    .read(|draft, stmt, drafts| {
        switch(&mut draft.settings.ipvs.nat_icmp_send, stmt, drafts);
    }),
    line(
        "reset_on_failure",
        APPLIED,
        "whether TCP connections of a real server that fails are reset",
    )
    .words(BOOLEAN)
    .default(Value::Word("no"))
    .read(|draft, stmt, drafts| {
        yes_or_no(&mut draft.settings.reset_on_failure, stmt, drafts);
    }),
    line(
        "cut_removed",
        APPLIED,
        "whether connections of a real server that a reload removes are cut at once",
    )
    .words(BOOLEAN)
    .default(Value::Word("no"))
    .read(|draft, stmt, drafts| {
        yes_or_no(&mut draft.settings.cut_removed, stmt, drafts);
    }),
    line(
        "udp_move",
        APPLIED,
        "whether UDP flows of a real server that fails move to another one",
    )
    .words(BOOLEAN)
    .default(Value::Word("yes"))
    .read(|draft, stmt, drafts| {
        yes_or_no(&mut draft.settings.udp_move, stmt, drafts);
    }),
    line(
        "tunnel_source",
        APPLIED,
        "a network of this host's, one a family, that tunnels draw their sources from",
    )
    .read(|draft, stmt, drafts| {
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
    line(
        "maglev_table_size",
        APPLIED,
        "slots of the tables of `lb_algo mh`",
    )
    .number(&defaults::TABLE_SIZE)
    .default(Value::Number(defaults::MAGLEV_TABLE_SIZE.slots()))
    .read(|draft, stmt, drafts| {
        let Some(size) = stmt.number::<u32>(drafts) else {
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
    line(
        "workers",
        APPLIED,
        "forwarding threads; default one a queue, as far as there are CPUs",
    )
    .number(&defaults::WORKERS)
    .read(|draft, stmt, drafts| {
        stmt.set(&mut draft.settings.workers, drafts);
    }),
    line(
        "cpus",
        APPLIED,
        "CPUs of the workers, like 0,2-5; default those that the process may use",
    )
    .read(|draft, stmt, drafts| {
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
    line(
        "spin_us",
        APPLIED,
        "how long a worker looks for frames before it sleeps",
    )
    .number(&defaults::SPIN_US)
    .default(Value::Number(defaults::SPIN.subsec_micros()))
    .read(|draft, stmt, drafts| {
        if let Some(micros) = stmt.number(drafts) {
            draft.settings.spin = Duration::from_micros(micros);
        }
    }),
    line(
        "fast_path",
        APPLIED,
        "whether the steering program forwards established connections itself",
    )
    .choice(FastPath::WORDS)
    .default(Value::Word("auto"))
    .read(|draft, stmt, drafts| {
        let mut chosen = None;
        stmt.set(&mut chosen, drafts);
        draft.settings.fast_path = chosen.unwrap_or_default();
    }),
    line(
        "busy_poll",
        APPLIED,
        "whether the kernel polls the NIC for the workers",
    )
    .words(BOOLEAN)
    .default(Value::Word("no"))
    .read(|draft, stmt, drafts| {
        yes_or_no(&mut draft.settings.busy_poll, stmt, drafts);
    }),
];

impl FromGiven for FastPath {
    fn from_given(given: &Given<'_>, drafts: &mut Drafts) -> Option<Self> {
        given.choice(drafts).map(|at| Self::ALL[at])
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
        walk(&mut draft, stmt.body(), &MARK_TABLE, drafts);
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
        drafts.push(Draft::error(word.span, message).hint(defaults::PORT.to_string()));
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

static MARK_TABLE: Table<MarkDraft> = Table {
    block: "mark",
    keywords: &[MARK_KEYWORDS],
};

static MARK_KEYWORDS: &[Keyword<MarkDraft>] = &[
    line("protocol", APPLIED, "TCP, UDP or SCTP; default all").read(|draft, stmt, drafts| {
        draft.protocol = protocol(stmt, drafts);
    }),
    line(
        "destination",
        APPLIED,
        "the address, network or range that packets go to",
    )
    .read(|draft, stmt, drafts| {
        let Some(word) = stmt.one(drafts) else { return };
        match value::addresses(&word.text) {
            Ok(addresses) => draft.destination = Some(addresses),
            Err(why) => wrong(word, &why, drafts),
        }
    }),
    line(
        "destination_port",
        APPLIED,
        "the port or range that packets go to; default any",
    )
    .read(|draft, stmt, drafts| {
        draft.destination_port = port(stmt, drafts);
    }),
    line(
        "source",
        APPLIED,
        "the network that packets come from; default any",
    )
    .read(|draft, stmt, drafts| {
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
    line(
        "source_port",
        APPLIED,
        "the port or range that packets come from; default any",
    )
    .read(|draft, stmt, drafts| {
        draft.source_port = port(stmt, drafts);
    }),
    line(
        "interface",
        APPLIED,
        "the interface that packets come in on; default any",
    )
    .read(|draft, stmt, drafts| {
        draft.interface = stmt.one(drafts).and_then(|word| interface(word, drafts));
    }),
];
