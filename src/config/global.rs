//! `global_defs`, and the keywords that stand outside every block.

use std::{net::IpAddr, time::Duration};

use super::{
    defaults,
    diagnostic::{Draft, Drafts, quoted},
    model::{Global, Timeout, VrrpVersion},
    settings::Said,
    support::{self, Block},
    tree::Stmt,
    value,
    vrrp::GarpDraft,
    walk::{self, Rule, judge, line, lines, name},
};

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

/// Defaults of `vrrp_instance` that `global_defs` changes.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    pub(super) version: Option<VrrpVersion>,
    pub(super) group: Option<IpAddr>,
    pub(super) garp: GarpDraft,
    pub(super) min_garp: bool,
    pub(super) down_timer_adverts: Option<u8>,
    pub(super) lower_prio_no_advert: bool,
    pub(super) higher_prio_send_advert: bool,
    pub(super) check_unicast_src: bool,
    pub(super) skip_check_adv_addr: bool,
}

impl GlobalDraft {
    /// Reads one `global_defs` block; several add up.
    pub(super) fn read(&mut self, stmt: &Stmt, drafts: &mut Drafts) {
        stmt.no_more(0, drafts);
        walk::walk(
            self,
            stmt.body(),
            Block::GlobalDefs,
            &[RULES, VRRP_RULES, KNOWN],
            drafts,
        );
    }

    fn judge_mail(&mut self, stmt: &Stmt, drafts: &mut Drafts) {
        if !self.mail_judged {
            let what = format!("mail (`{}` and what belongs to it)", stmt.keyword.text);
            judge(support::MAIL, &what, stmt.keyword.span, drafts);
            self.mail_judged = true;
        }
    }
}

static RULES: &[Rule<GlobalDraft>] = &[
    walk::block("notification_email", |draft, stmt, drafts| {
        draft.judge_mail(stmt, drafts);
        for entry in stmt.body() {
            if entry.block.is_some() {
                let message = "a list of addresses, one a line, has no blocks";
                drafts.push(Draft::error(entry.keyword.span, message));
            }
            entry.no_more(0, drafts);
            draft
                .global
                .mail
                .recipients
                .push(entry.keyword.text.clone());
        }
    }),
    line("notification_email_from", |draft, stmt, drafts| {
        draft.judge_mail(stmt, drafts);
        draft.global.mail.from = stmt.text(drafts);
    }),
    line("smtp_server", |draft, stmt, drafts| {
        draft.judge_mail(stmt, drafts);
        let Some(host) = stmt.first(drafts) else {
            return;
        };
        stmt.no_more(2, drafts);
        let port = match stmt.args.get(1) {
            Some(word) => walk::number(word, "port", &defaults::PORT, drafts),
            None => Some(defaults::SMTP_PORT),
        };
        draft.global.mail.smtp_server = port.map(|port| (host.text.clone(), port));
    }),
    line("smtp_helo_name", |draft, stmt, drafts| {
        draft.judge_mail(stmt, drafts);
        draft.global.mail.helo_name = stmt.text(drafts);
    }),
    line("smtp_connect_timeout", |draft, stmt, drafts| {
        draft.judge_mail(stmt, drafts);
        let Some(mut timeout) = stmt.time(&defaults::SMTP_TIMEOUT, drafts) else {
            return;
        };
        if timeout.is_zero() {
            timeout = Duration::from_secs(1);
            let message = "smtp_connect_timeout 0 is taken as 1";
            drafts.push(Draft::warning(stmt.keyword.span, message));
        }
        draft.global.mail.connect_timeout = timeout;
    }),
    line("dynamic_interfaces", |draft, stmt, drafts| {
        draft.global.dynamic_interfaces = true;
        stmt.no_more(1, drafts);
        // `allow_if_changes` lets an instance move between interfaces of one name, as they always may.
        if let Some(word) = stmt
            .args
            .first()
            .filter(|word| word.text != "allow_if_changes")
        {
            let message = format!("unknown option {}", quoted(&word.text));
            drafts.push(Draft::error(word.span, message).hint("allow_if_changes or nothing"));
        }
    }),
    line("router_id", |draft, stmt, drafts| {
        draft.global.router_id = stmt.text(drafts);
    }),
    lines("lvs_timeouts", lvs_timeouts),
];

fn lvs_timeouts(draft: &mut GlobalDraft, stmt: &Stmt, drafts: &mut Drafts) {
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
                drafts.push(Draft::error(pair[0].span, message).hint("tcp, tcpfin or udp"));
                continue;
            }
        };
        let Some(word) = pair.get(1) else {
            let message = format!("{} needs a number of seconds", quoted(&pair[0].text));
            drafts.push(Draft::error(pair[0].span, message));
            continue;
        };
        let seconds = walk::number::<u32>(word, &pair[0].text, &defaults::LVS_TIMEOUT, drafts);
        // 0 leaves the timeout as it is, as `ipvsadm --set` does.
        if let Some(seconds) = seconds.filter(|seconds| *seconds != 0) {
            let time = Duration::from_secs(seconds.into());
            draft.timeouts.say(state, time, pair[0].span);
        }
    }
}

static VRRP_RULES: &[Rule<GlobalDraft>] = &[
    line("vrrp_version", |draft, stmt, drafts| {
        draft.inherited.version = super::vrrp::version(stmt, drafts);
    }),
    line("vrrp_mcast_group4", |draft, stmt, drafts| {
        draft.inherited.group = super::vrrp::multicast_group(stmt, drafts);
    }),
    line("vrrp_startup_delay", |draft, stmt, drafts| {
        let delay = stmt.time(&defaults::STARTUP_DELAY, drafts);
        draft.global.vrrp_startup_delay = delay.unwrap_or_default();
    }),
    line("vrrp_garp_interval", |draft, stmt, drafts| {
        let zero = |word: &super::lexer::Word| {
            value::seconds(&word.text).is_some_and(|read| read.value.time.is_zero())
        };
        // keepalived's own sample file says 0, and keepalived complains and goes on.
        if stmt.args.first().is_some_and(zero) {
            let message = "vrrp_garp_interval 0 is taken as no pacing";
            drafts.push(Draft::warning(stmt.keyword.span, message));
        } else {
            let interval = stmt.time(&defaults::GARP_INTERVAL, drafts);
            draft.global.vrrp_garp_interval = interval.unwrap_or_default();
        }
    }),
    line("vrrp_garp_master_delay", |draft, stmt, drafts| {
        draft.inherited.garp.master_delay = stmt.time(&defaults::GARP_DELAY, drafts);
    }),
    line("vrrp_garp_master_repeat", |draft, stmt, drafts| {
        draft.inherited.garp.master_repeat = super::vrrp::garp_count(stmt, drafts);
    }),
    line("vrrp_garp_master_refresh", |draft, stmt, drafts| {
        draft.inherited.garp.master_refresh = stmt.time(&defaults::GARP_DELAY, drafts);
    }),
    line("vrrp_garp_master_refresh_repeat", |draft, stmt, drafts| {
        draft.inherited.garp.master_refresh_repeat = super::vrrp::garp_count(stmt, drafts);
    }),
    line("vrrp_garp_lower_prio_delay", |draft, stmt, drafts| {
        draft.inherited.garp.lower_prio_delay = stmt.time(&defaults::GARP_DELAY, drafts);
    }),
    line("vrrp_garp_lower_prio_repeat", |draft, stmt, drafts| {
        draft.inherited.garp.lower_prio_repeat = super::vrrp::garp_count(stmt, drafts);
    }),
    line("vrrp_min_garp", |draft, stmt, drafts| {
        draft.inherited.min_garp = stmt.boolean(drafts).unwrap_or_default();
    }),
    line("vrrp_down_timer_adverts", |draft, stmt, drafts| {
        draft.inherited.down_timer_adverts = stmt.number(&defaults::DOWN_TIMER, drafts);
    }),
    line("vrrp_lower_prio_no_advert", |draft, stmt, drafts| {
        draft.inherited.lower_prio_no_advert = stmt.boolean(drafts).unwrap_or_default();
    }),
    line("vrrp_higher_prio_send_advert", |draft, stmt, drafts| {
        draft.inherited.higher_prio_send_advert = stmt.boolean(drafts).unwrap_or_default();
    }),
    line("vrrp_check_unicast_src", |draft, stmt, drafts| {
        draft.inherited.check_unicast_src = stmt.flag(drafts);
    }),
    line("vrrp_skip_check_adv_addr", |draft, stmt, drafts| {
        draft.inherited.skip_check_adv_addr = stmt.boolean(drafts).unwrap_or_default();
    }),
];

/// Known keywords that the model has no place for; `support` says what becomes of each.
static KNOWN: &[Rule<GlobalDraft>] = &[
    name("lvs_id"),
    name("vrrp_strict"),
    name("smtp_alert"),
    name("smtp_alert_vrrp"),
    name("smtp_alert_checker"),
    name("no_email_faults"),
    name("no_checker_emails"),
    name("checker_log_all_failures"),
    name("default_interface"),
    name("lvs_sync_daemon"),
    name("vrrp_garp_extra_if"),
    name("vrrp_vmac_garp_intvl"),
    name("vrrp_owner_ignore_adverts"),
    name("vrrp_delay_after_boot"),
    name("vrrp_rx_bufs_policy"),
    name("vrrp_rx_bufs_multiplier"),
    name("log_unknown_vrids"),
    name("script_user"),
    name("enable_script_security"),
    name("set_supplementary_groups"),
    name("use_symlink_paths"),
    name("startup_script"),
    name("startup_script_timeout"),
    name("shutdown_script"),
    name("shutdown_script_timeout"),
    name("notify_fifo"),
    name("notify_fifo_script"),
    name("vrrp_notify_fifo"),
    name("vrrp_notify_fifo_script"),
    name("lvs_notify_fifo"),
    name("lvs_notify_fifo_script"),
    name("vrrp_notify_priority_changes"),
    name("fifo_write_vrrp_states_on_reload"),
    name("rs_init_notifies"),
    name("max_auto_priority"),
    name("min_auto_priority_delay"),
    name("vrrp_priority"),
    name("vrrp_no_swap"),
    name("vrrp_rt_priority"),
    name("vrrp_cpu_affinity"),
    name("vrrp_rlimit_rttime"),
    name("vrrp_rlimit_rtime"),
    name("checker_priority"),
    name("checker_no_swap"),
    name("checker_rt_priority"),
    name("checker_cpu_affinity"),
    name("checker_rlimit_rttime"),
    name("checker_rlimit_rtime"),
    name("umask"),
    name("random_seed"),
    name("reload_check_config"),
    name("reload_time_file"),
    name("reload_repeat"),
    name("reload_file"),
    name("include_check"),
    name("config_save_dir"),
    name("data_use_instance"),
    name("json_version"),
    name("state_dump_file"),
    name("stats_dump_file"),
    name("json_dump_file"),
    name("lvs_flush_on_stop"),
    name("lvs_flush_onstop"),
    name("disable_local_igmp"),
    name("lvs_flush"),
    name("vrrp_mcast_group6"),
    name("vrrp_gna_interval"),
    name("v3_checksum_as_v2"),
    name("vmac_prefix"),
    name("vmac_addr_prefix"),
    name("bfd_priority"),
    name("bfd_no_swap"),
    name("bfd_rt_priority"),
    name("bfd_cpu_affinity"),
    name("bfd_rlimit_rttime"),
    name("bfd_rlimit_rtime"),
    name("vrrp_process_name"),
    name("checker_process_name"),
    name("lvs_process_name"),
    name("bfd_process_name"),
    name("process_names"),
    name("process_name"),
    name("tmp_config_directory"),
    name("vrrp_iptables"),
    name("vrrp_ipsets"),
    name("nftables"),
    name("nftables_priority"),
    name("nftables_counters"),
    name("nftables_ifindex"),
    name("nftables_ipvs"),
    name("nftables_ipvs_start_fwmark"),
    name("ipvs_start_fwmark"),
    name("enable_snmp_vrrp"),
    name("enable_snmp_keepalived"),
    name("enable_snmp_checker"),
    name("enable_snmp_rfc"),
    name("enable_snmp_rfcv2"),
    name("enable_snmp_rfcv3"),
    name("enable_traps"),
    name("snmp_socket"),
    name("snmp_vs_stats_update_interval"),
    name("snmp_rs_stats_update_interval"),
    name("enable_dbus"),
    name("dbus_service_name"),
    name("dbus_no_interface_name"),
    name("vrrp_netlink_cmd_rcv_bufs"),
    name("vrrp_netlink_cmd_rcv_bufs_force"),
    name("vrrp_netlink_monitor_rcv_bufs"),
    name("vrrp_netlink_monitor_rcv_bufs_force"),
    name("lvs_netlink_cmd_rcv_bufs"),
    name("lvs_netlink_cmd_rcv_bufs_force"),
    name("lvs_netlink_monitor_rcv_bufs"),
    name("lvs_netlink_monitor_rcv_bufs_force"),
    name("process_monitor_rcv_bufs"),
    name("process_monitor_rcv_bufs_force"),
    name("iproute_usr_dir"),
    name("iproute_etc_dir"),
];
