//! `global_defs`.

mod host;
mod sync_daemon;

use std::{net::Ipv6Addr, time::Duration};

use super::{
    defaults,
    diagnostic::{Draft, Drafts},
    keyword::{
        APPLIED, BY_VALUE, Given, Keyword, Table, UNAPPLIED, Value, block, line, lines, name_only,
    },
    lexer::Word,
    model::{Global, Timeout},
    read::{self},
    source::quoted,
    support::{self, Support, judge},
    timeouts::Said,
    tree::Stmt,
    value,
    vrrp::{Inherited, extra_garp, garp_count, judge_strict, multicast_group, version},
    walk::walk,
};

/// What becomes of what only mails would show.
const NO_MAIL_YET: Support = Support::Irrelevant("mails, which would show it, are not sent yet");

/// `global_defs` while it is read: what it says itself, and what instances inherit from it.
#[derive(Debug, Default)]
pub(super) struct GlobalDraft {
    pub(super) global: Global,
    pub(super) inherited: Inherited,
    /// `lvs_timeouts`.
    pub(super) timeouts: Said,
    /// Mail is one subject with one verdict, whatever the number of its keywords.
    mail_judged: bool,
}

impl GlobalDraft {
    /// Reads one `global_defs` block; several add up.
    pub(super) fn read(&mut self, stmt: &Stmt, drafts: &mut Drafts) {
        stmt.no_more(0, drafts);
        walk(self, stmt.body(), &TABLE, drafts);
    }

    fn judge_mail(&mut self, stmt: &Stmt, drafts: &mut Drafts) {
        if !self.mail_judged {
            let what = format!("mail (`{}` and what belongs to it)", stmt.keyword.text);
            judge(support::MAIL, &what, stmt.keyword.span, drafts);
            self.mail_judged = true;
        }
    }
}

pub(super) static TABLE: Table<GlobalDraft> = Table {
    block: "global_defs",
    keywords: &[
        KEYWORDS,
        VRRP,
        host::MAIL,
        host::VRRP,
        host::SCRIPTS,
        host::FILES,
        host::PROCESSES,
        host::HOST,
        host::OTHER,
    ],
};

static KEYWORDS: &[Keyword<GlobalDraft>] = &[
    block(
        "notification_email",
        BY_VALUE,
        "recipients of mail about changes of state, one a line",
    )
    .read(|draft, stmt, drafts| {
        draft.judge_mail(stmt, drafts);
        stmt.no_more(0, drafts);
        for entry in stmt.body() {
            if entry.block.is_some() {
                let message = "a list of addresses, one a line, has no blocks";
                // It is no address, but a keyword that belongs elsewhere.
                drafts.push(Draft::warning(entry.keyword.span, message).hint("it is left out"));
                continue;
            }
            entry.no_more(0, drafts);
            draft
                .global
                .mail
                .recipients
                .push(entry.keyword.text.clone());
        }
    }),
    line("notification_email_from", BY_VALUE, "the sender of mail").read(|draft, stmt, drafts| {
        draft.judge_mail(stmt, drafts);
        draft.global.mail.from = stmt.text(drafts);
    }),
    line("smtp_server", BY_VALUE, "the mail server and its port").read(|draft, stmt, drafts| {
        draft.judge_mail(stmt, drafts);
        let Some(host) = stmt.first(drafts) else {
            return;
        };
        stmt.no_more(2, drafts);
        let port = match stmt.args.get(1) {
            Some(word) => read::number(word, "port", &defaults::PORT, drafts),
            None => Some(defaults::SMTP_PORT),
        };
        draft.global.mail.smtp_server = port.map(|port| (host.text.clone(), port));
    }),
    line(
        "smtp_helo_name",
        BY_VALUE,
        "the name that the mail server is greeted with",
    )
    .read(|draft, stmt, drafts| {
        draft.judge_mail(stmt, drafts);
        draft.global.mail.helo_name = stmt.text(drafts);
    }),
    line(
        "smtp_connect_timeout",
        BY_VALUE,
        "how long a connection to the mail server may take",
    )
    .time(&defaults::SMTP_TIMEOUT)
    .default(Value::Time(defaults::SMTP_CONNECT_TIMEOUT))
    .read(|draft, stmt, drafts| {
        draft.judge_mail(stmt, drafts);
        let Some(mut timeout) = stmt.time(drafts) else {
            return;
        };
        if timeout.is_zero() {
            timeout = Duration::from_secs(1);
            let message = "smtp_connect_timeout 0 is taken as 1";
            drafts.push(Draft::warning(stmt.keyword.span, message));
        }
        draft.global.mail.connect_timeout = timeout;
    }),
    line(
        "dynamic_interfaces",
        APPLIED,
        "interfaces of instances need not exist at the start",
    )
    .read(|draft, stmt, drafts| {
        draft.global.dynamic_interfaces = true;
        stmt.no_more(1, drafts);
        // `allow_if_changes` lets an instance move between interfaces of one name, as they always may.
        if let Some(word) = stmt
            .args
            .first()
            .filter(|word| word.text != "allow_if_changes")
        {
            let message = format!("unknown option {}", quoted(&word.text));
            drafts.push(Draft::warning(word.span, message).hint("allow_if_changes or nothing"));
        }
    }),
    line("router_id", NO_MAIL_YET, "this machine's name in mails")
        .default(Value::Word("the host name"))
        .read(|draft, stmt, drafts| {
            draft.global.router_id = stmt.text(drafts);
        }),
    lines(
        "lvs_timeouts",
        APPLIED,
        "idle times of connections: tcp, tcpfin and udp, each with seconds",
    )
    .read(lvs_timeouts),
    line(
        "lvs_sync_daemon",
        UNAPPLIED,
        "copies connections to the other box, as IPVS's daemon does",
    )
    .words(sync_daemon::RANGE)
    .read(|draft, stmt, drafts| {
        if draft.global.lvs_sync_daemon.is_some() {
            let message = "a second lvs_sync_daemon is ignored";
            drafts.push(Draft::warning(stmt.keyword.span, message));
        } else {
            draft.global.lvs_sync_daemon = sync_daemon::read(stmt, drafts);
        }
    }),
    name_only(
        "lvs_id",
        Support::Former("use `router_id`"),
        "this machine's name",
    ),
];

fn lvs_timeouts(draft: &mut GlobalDraft, stmt: &Given<'_>, drafts: &mut Drafts) {
    if stmt.first(drafts).is_none() {
        return;
    }
    for pair in stmt.args.chunks(2) {
        let state = match pair[0].text.as_str() {
            "tcp" => Timeout::TcpEstablished,
            "tcpfin" => Timeout::TcpFinWait,
            "udp" => Timeout::Udp,
            other => {
                let message = format!("unknown timeout {}", quoted(other));
                drafts.push(Draft::warning(pair[0].span, message).hint("tcp, tcpfin or udp"));
                continue;
            }
        };
        let Some(word) = pair.get(1) else {
            let message = format!("{} needs a number of seconds", quoted(&pair[0].text));
            drafts.push(Draft::warning(pair[0].span, message));
            continue;
        };
        let seconds = read::number::<u32>(word, &pair[0].text, &defaults::LVS_TIMEOUT, drafts);
        // 0 leaves the timeout as it is, as `ipvsadm --set` does.
        if let Some(seconds) = seconds.filter(|seconds| *seconds != 0) {
            let time = Duration::from_secs(seconds.into());
            draft.timeouts.say(state, time, pair[0].span);
        }
    }
}

fn is_zero(word: &Word) -> bool {
    value::seconds(&word.text).is_some_and(|read| read.value.time.is_zero())
}

/// A pause between announcements. keepalived's own sample file says 0, and keepalived complains and goes on.
pub(super) fn pause(stmt: &Given<'_>, drafts: &mut Drafts) -> Duration {
    if stmt.args.first().is_some_and(is_zero) {
        let message = format!("{} 0 is taken as no pacing", stmt.keyword.text);
        drafts.push(Draft::warning(stmt.keyword.span, message));
        return Duration::ZERO;
    }
    stmt.time(drafts).unwrap_or_default()
}

static VRRP: &[Keyword<GlobalDraft>] = &[
    line(
        "vrrp_version",
        APPLIED,
        "the version of VRRP of instances that do not say theirs: 2 or 3",
    )
    .default(Value::Word("2"))
    .read(|draft, stmt, drafts| {
        draft.inherited.version = version(stmt, drafts);
    }),
    line(
        "vrrp_mcast_group4",
        APPLIED,
        "the multicast group of IPv4 adverts",
    )
    .default(Value::Word("224.0.0.18"))
    .read(|draft, stmt, drafts| {
        let is_ipv6 = |word: &&Word| word.text.parse::<Ipv6Addr>().is_ok();
        if let Some(word) = stmt.args.first().filter(is_ipv6) {
            let message = format!("{} is no IPv4 group", quoted(&word.text));
            let hint = format!("{} counts", defaults::VRRP_GROUP);
            drafts.push(Draft::warning(word.span, message).hint(hint));
            return;
        }
        draft.inherited.group = multicast_group(stmt, drafts);
    }),
    line(
        "vrrp_startup_delay",
        APPLIED,
        "how long after the start adverts are ignored and timers held",
    )
    .time(&defaults::STARTUP_DELAY)
    .default(Value::Time(Duration::ZERO))
    .read(|draft, stmt, drafts| {
        let delay = stmt.time(drafts);
        draft.global.vrrp_startup_delay = delay.unwrap_or_default();
    }),
    line(
        "vrrp_garp_interval",
        APPLIED,
        "pause between two gratuitous ARPs on one interface",
    )
    .time(&defaults::GARP_INTERVAL)
    .default(Value::Time(Duration::ZERO))
    .read(|draft, stmt, drafts| {
        draft.global.vrrp_garp_interval = pause(stmt, drafts);
    }),
    line(
        "vrrp_gna_interval",
        UNAPPLIED,
        "pause between two unsolicited neighbour advertisements on one interface",
    )
    .time(&defaults::GARP_INTERVAL)
    .default(Value::Time(Duration::ZERO))
    .read(|draft, stmt, drafts| {
        // 0, which is no pacing, is no more than what was said already.
        if stmt.args.first().is_none_or(|word| !is_zero(word)) {
            stmt.set(&mut draft.global.vrrp_gna_interval, drafts);
        }
    }),
    line(
        "vrrp_garp_master_delay",
        APPLIED,
        "when the second batch of gratuitous ARPs follows; 0 = none",
    )
    .time(&defaults::GARP_DELAY)
    .default(Value::Time(defaults::GARP_MASTER_DELAY))
    .read(|draft, stmt, drafts| {
        stmt.set(&mut draft.inherited.garp.master_delay, drafts);
    }),
    line(
        "vrrp_garp_master_repeat",
        APPLIED,
        "gratuitous ARPs of each address in a batch",
    )
    .number(&defaults::GARP_COUNT)
    .default(Value::Number(defaults::GARP_MASTER_REPEAT))
    .read(|draft, stmt, drafts| {
        draft.inherited.garp.master_repeat = garp_count(stmt, drafts);
    }),
    line(
        "vrrp_garp_master_refresh",
        APPLIED,
        "time between batches while MASTER; 0 = none",
    )
    .time(&defaults::GARP_DELAY)
    .default(Value::Time(defaults::GARP_MASTER_REFRESH))
    .read(|draft, stmt, drafts| {
        stmt.set(&mut draft.inherited.garp.master_refresh, drafts);
    }),
    line(
        "vrrp_garp_master_refresh_repeat",
        APPLIED,
        "gratuitous ARPs of each address in a refresh",
    )
    .number(&defaults::GARP_COUNT)
    .default(Value::Number(defaults::GARP_MASTER_REFRESH_REPEAT))
    .read(|draft, stmt, drafts| {
        draft.inherited.garp.master_refresh_repeat = garp_count(stmt, drafts);
    }),
    line(
        "vrrp_garp_lower_prio_delay",
        APPLIED,
        "when the second batch follows after a lower advert; default that of the master",
    )
    .time(&defaults::GARP_DELAY)
    .read(|draft, stmt, drafts| {
        stmt.set(&mut draft.inherited.garp.lower_prio_delay, drafts);
    }),
    line(
        "vrrp_garp_lower_prio_repeat",
        APPLIED,
        "gratuitous ARPs of each address after a lower advert; default that of the master",
    )
    .number(&defaults::GARP_COUNT)
    .read(|draft, stmt, drafts| {
        draft.inherited.garp.lower_prio_repeat = garp_count(stmt, drafts);
    }),
    line(
        "vrrp_min_garp",
        APPLIED,
        "whether one gratuitous ARP of each address is enough by default",
    )
    .boolean()
    .read(|draft, stmt, drafts| {
        stmt.set(&mut draft.inherited.min_garp, drafts);
    }),
    line(
        "vrrp_down_timer_adverts",
        APPLIED,
        "missed adverts after which a BACKUP takes over; other than 3 is not the RFC's",
    )
    .number(&defaults::DOWN_TIMER)
    .default(Value::Number(defaults::DOWN_TIMER_ADVERTS as u32))
    .read(|draft, stmt, drafts| {
        stmt.set(&mut draft.inherited.down_timer_adverts, drafts);
    }),
    line(
        "vrrp_lower_prio_no_advert",
        APPLIED,
        "whether a MASTER leaves a lower advert unanswered",
    )
    .boolean()
    .read(|draft, stmt, drafts| {
        stmt.set(&mut draft.inherited.lower_prio_no_advert, drafts);
    }),
    line(
        "vrrp_higher_prio_send_advert",
        APPLIED,
        "whether a MASTER sends an advert before it gives way",
    )
    .boolean()
    .read(|draft, stmt, drafts| {
        stmt.set(&mut draft.inherited.higher_prio_send_advert, drafts);
    }),
    line(
        "vrrp_check_unicast_src",
        APPLIED,
        "adverts count only from peers that are configured",
    )
    .flag()
    .read(|draft, stmt, drafts| {
        draft.inherited.check_unicast_src = stmt.flag(drafts);
    }),
    line(
        "vrrp_skip_check_adv_addr",
        APPLIED,
        "whether the addresses in adverts of the same MASTER are looked at once only",
    )
    .boolean()
    .read(|draft, stmt, drafts| {
        stmt.set(&mut draft.inherited.skip_check_adv_addr, drafts);
    }),
    line(
        "vrrp_strict",
        BY_VALUE,
        "whether instances keep to the RFC, unless they say otherwise",
    )
    .boolean()
    .read(|draft, stmt, drafts| {
        stmt.set(&mut draft.inherited.strict, drafts);
        if draft.inherited.strict {
            judge_strict(stmt, drafts);
        }
    }),
    line(
        "vrrp_owner_ignore_adverts",
        UNAPPLIED,
        "whether the owner of the addresses ignores adverts",
    )
    .later()
    .boolean()
    .read(|draft, stmt, drafts| {
        stmt.set(&mut draft.inherited.owner_ignore_adverts, drafts);
    }),
    line(
        "vrrp_notify_priority_changes",
        UNAPPLIED,
        "whether changes of priority are written to the pipes, too",
    )
    .boolean()
    .read(|draft, stmt, drafts| {
        stmt.set(&mut draft.inherited.notify_priority_changes, drafts);
    }),
    line(
        "vrrp_garp_extra_if",
        UNAPPLIED,
        "time between gratuitous ARPs on other interfaces than the instance's",
    )
    .time(&defaults::GARP_EXTRA)
    .read(|draft, stmt, drafts| {
        draft.inherited.garp_extra_if = extra_garp(stmt, &defaults::GARP_EXTRA, drafts);
    }),
    line(
        "vrrp_vmac_garp_intvl",
        UNAPPLIED,
        "time between gratuitous ARPs on other interfaces than the instance's",
    )
    .time(&defaults::GARP_EXTRA)
    .old_name_of("vrrp_garp_extra_if")
    .read(|draft, stmt, drafts| {
        draft.inherited.garp_extra_if = extra_garp(stmt, &defaults::GARP_EXTRA, drafts);
    }),
];
