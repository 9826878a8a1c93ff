//! Every default and limit of the configuration, each with its source.
//!
//! Where keepalived's manual and its program disagree, the program is followed. "man" is
//! keepalived.conf(5).

use std::{fmt, net::Ipv4Addr, ops::RangeInclusive, time::Duration};

use crate::{
    addr::L4Proto,
    lvs::{LbKind, MaglevSize, Scheduler},
};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

// --- global_defs ---

/// `vrrp_mcast_group4`: the group that IANA gave VRRP (RFC 9568 §5.1.1.2).
pub const VRRP_GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// `smtp_connect_timeout`: 30 s (man).
pub const SMTP_CONNECT_TIMEOUT: Duration = secs(30);
/// Port of `smtp_server`: 25 (RFC 5321 §4.5.4.2).
pub const SMTP_PORT: u16 = 25;
/// `vrrp_down_timer_adverts`: 3, which makes the RFC's Active_Down_Interval (RFC 9568 §6.1).
pub const DOWN_TIMER_ADVERTS: u8 = 3;
/// `vrrp_garp_master_delay`: a second batch 5 s after becoming MASTER (man).
pub const GARP_MASTER_DELAY: Duration = secs(5);
/// `vrrp_garp_master_repeat`: 5 a batch (man).
pub const GARP_MASTER_REPEAT: u32 = 5;
/// Most announcements in a batch: what one byte counts. keepalived takes more, a network does not.
pub const GARP_MOST: u32 = 255;
/// `vrrp_garp_master_refresh`: 0, no periodic announcements (man).
pub const GARP_MASTER_REFRESH: Duration = Duration::ZERO;
/// `vrrp_garp_master_refresh_repeat`: 1 (man).
pub const GARP_MASTER_REFRESH_REPEAT: u32 = 1;

// --- vrrp_instance ---

/// `priority` when nothing is said (RFC 9568 §5.2.4).
pub const PRIORITY: u8 = 100;
/// `priority` of an instance with `state MASTER` and no priority: the owner's (keepalived 2.x).
pub const PRIORITY_OWNER: u8 = 255;
/// `advert_int`: 1 s (RFC 9568 §6.1).
pub const ADVERT_INT: Duration = secs(1);
/// What a step of priority is worth of Skew_Time: a 256th of a second (RFC 3768 §6.1).
pub const SKEW_STEP: Duration = Duration::from_micros(3_906);
/// `unicast_ttl`: 255 (man; RFC 9568 §5.1.1.3).
pub const UNICAST_TTL: u8 = 255;
/// Bytes of `auth_pass` that an advertisement carries (RFC 2338 §5.3.10).
pub const AUTH_PASS_BYTES: usize = 8;
/// Addresses that fit the count field of an advertisement (RFC 9568 §5.2.5).
pub const ADVERT_ADDRESSES: usize = 255;
/// Longest name of an interface: `IFNAMSIZ` less the NUL (Linux `if.h`).
pub const INTERFACE_NAME_BYTES: usize = 15;

// --- bfd_instance ---

/// `min_rx`, `min_tx`: 10 ms (man).
pub const BFD_INTERVAL: Duration = Duration::from_millis(10);
/// `idle_tx`: 1 s (man; RFC 5880 §6.8.3).
pub const BFD_IDLE_INTERVAL: Duration = secs(1);
/// `multiplier`: 5 (man).
pub const BFD_MULTIPLIER: u8 = 5;
/// `ttl`: 255 (RFC 5881 §5).
pub const BFD_TTL: u8 = 255;
/// `hoplimit`: 64 (man).
pub const BFD_HOPLIMIT: u8 = 64;
/// Longest name of a bfd_instance (keepalived).
pub const BFD_NAME_BYTES: usize = 32;

// --- virtual_server, real_server, checkers ---

/// `lb_algo`: wlc (keepalived and ipvsadm).
pub const LB_ALGO: Scheduler = Scheduler::Wlc;
/// `lb_kind`: NAT (keepalived, with a message).
pub const LB_KIND: LbKind = LbKind::Nat;
/// `protocol`: UDP (keepalived, with a message).
pub const PROTOCOL: L4Proto = L4Proto::Udp;
/// `delay_loop`: 60 s (man).
pub const DELAY_LOOP: Duration = secs(60);
/// `persistence_timeout` without a number, and where persistence is forced: 360 s (man).
pub const PERSISTENCE_TIMEOUT: Duration = secs(360);
/// `quorum`: 1 (man).
pub const QUORUM: u32 = 1;
/// `hysteresis`: 0 (man).
pub const HYSTERESIS: u32 = 0;
/// `weight`: 1 (man).
pub const WEIGHT: u32 = 1;
/// `connect_timeout`: 5 s (man).
pub const CONNECT_TIMEOUT: Duration = secs(5);
/// `retry`: 1; a checker that has run before fails after two failures in a row (man).
pub const RETRY: u32 = 1;
/// `delay_before_retry`: 1 s (man).
pub const DELAY_BEFORE_RETRY: Duration = secs(1);
/// `delay_before_retry` of `HTTP_GET` and `SSL_GET`: 3 s (man).
pub const HTTP_DELAY_BEFORE_RETRY: Duration = secs(3);
/// `retry` of `DNS_CHECK`: 3 (man).
pub const DNS_RETRY: u32 = 3;
/// `retry` of `MISC_CHECK`: 0 (man).
pub const MISC_RETRY: u32 = 0;
/// `status_code`: what HTTP calls successful (man; RFC 9110 §15.3).
pub const STATUS_CODES: RangeInclusive<u16> = 200..=299;
/// `helo_name` of `SMTP_CHECK` (keepalived).
pub const HELO_NAME: &str = "smtpchecker.keepalived.org";
/// `name` of `DNS_CHECK`: the root (man).
pub const DNS_NAME: &str = ".";
/// `max_reply_length` of `UDP_CHECK`: 255 bytes (man).
pub const MAX_REPLY_LENGTH: u16 = 255;

// --- scripts and priorities of the process ---

/// `startup_script_timeout`, `shutdown_script_timeout`: 10 s (keepalived).
pub const SCRIPT_TIME: Duration = secs(10);
/// `vrrp_rlimit_rttime`: 10,000 microseconds (man).
pub const RT_WORK_MICROS: u32 = 10_000;
/// `min_auto_priority_delay`: 1 s (man).
pub const AUTO_PRIORITY_AFTER: Duration = secs(1);

// --- xvs ---
// The idle times of connections stand with their names: `model::Timeout`.

/// `maglev_table_size`: 65,537 entries, at most 1 % of imbalance for 650 real servers (Maglev,
/// NSDI 2016, §3.4 and §5.3).
pub const MAGLEV_TABLE_SIZE: MaglevSize = MaglevSize::DEFAULT;
/// `conn_reuse_mode`: 1 (Linux, `Documentation/networking/ipvs-sysctl.rst`).
pub const CONN_REUSE_MODE: u8 = 1;
/// Most `workers`: one a queue, and no NIC gives one function more queues than this.
pub const MOST_WORKERS: u16 = 256;
/// `spin_us`: about as long as a real server on the same net takes to answer, so that a conversation in which nobody
/// hesitates does not pay for a wake-up each time. A packet a millisecond costs 5 % of a core.
pub const SPIN: Duration = Duration::from_micros(50);
/// CPUs that can be named: the most that Linux is built for (`NR_CPUS`).
pub const CPUS: usize = 8_192;

/// Highest real-time priority (sched(7)).
pub const MOST_RT_PRIORITY: i8 = 99;
/// Longest name of a process: `TASK_COMM_LEN` less the NUL (prctl(2), `PR_SET_NAME`).
pub const PROCESS_NAME_BYTES: usize = 15;
/// Longest name of an instance or a network namespace: with what stands around it, it is the name of a file
/// (`NAME_MAX`, 255 bytes).
pub const NAME_BYTES: usize = 128;
/// Longest path: `PATH_MAX` less the NUL (Linux `limits.h`).
pub const PATH_BYTES: usize = 4_095;

// --- ranges ---

/// What a number may be: the limits, and whose they are.
#[derive(Debug)]
pub(super) struct Limits {
    pub(super) range: RangeInclusive<i64>,
    pub(super) source: &'static str,
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = (self.range.start(), self.range.end());
        write!(f, "{least} to {most} ({})", self.source)
    }
}

const fn limits(range: RangeInclusive<i64>, source: &'static str) -> Limits {
    Limits { range, source }
}

pub(super) const VRID: Limits = limits(1..=255, "RFC 9568 §5.2.3");
pub(super) const PRIORITIES: Limits = limits(1..=255, "255 = address owner, RFC 9568 §5.2.4");
pub(super) const TTL: Limits = limits(0..=255, "RFC 791 §3.1");
pub(super) const PORT: Limits = limits(1..=65_535, "RFC 9293 §3.1");
pub(super) const PORT_OR_ANY: Limits = limits(0..=65_535, "0 = any port");
pub(super) const DOWN_TIMER: Limits = limits(1..=100, "keepalived");
pub(super) const GARP_COUNT: Limits = limits(1..=4_294_967, "keepalived");
pub(super) const TRACK_WEIGHT: Limits = limits(-253..=253, "keepalived");
pub(super) const U32: Limits = limits(0..=4_294_967_295, "keepalived");
pub(super) const I32: Limits = limits(-2_147_483_648..=2_147_483_647, "keepalived");
pub(super) const COUNT: Limits = limits(1..=4_294_967_295, "keepalived");
pub(super) const NICE: Limits = limits(-20..=19, "setpriority(2)");
pub(super) const RT_PRIORITY: Limits = limits(1..=MOST_RT_PRIORITY as i64, "sched(7)");
pub(super) const AUTO_PRIORITY: Limits = limits(-1..=MOST_RT_PRIORITY as i64, "keepalived");
pub(super) const AUTO_PRIORITY_DELAY: Limits = limits(1..=10_000_000, "microseconds, keepalived");
pub(super) const RTTIME: Limits = limits(2..=4_294_967_295, "microseconds, getrlimit(2)");
pub(super) const SCRIPT_TIMEOUT: Limits = limits(1..=1_000, "seconds, keepalived");
pub(super) const JSON_VERSION: Limits = limits(1..=2, "keepalived");
pub(super) const CPU: Limits = limits(0..=CPUS as i64 - 1, "Linux NR_CPUS");
pub(super) const FILE_WEIGHT: Limits = limits(-254..=254, "keepalived");
pub(super) const FILE_NUMBER: Limits = limits(-2_147_483_648..=2_147_483_647, "keepalived");
pub(super) const RISE: Limits = limits(1..=2_147_483_647, "keepalived");
/// keepalived makes 0 a 1.
pub(super) const SCRIPT_SECONDS: Limits = limits(0..=4_294, "seconds, keepalived; 0 = 1");
pub(super) const PROCESS_QUORUM: Limits = limits(1..=65_535, "keepalived");
pub(super) const PROCESS_QUORUM_MAX: Limits = limits(0..=65_535, "keepalived");
pub(super) const SYNC_ID: Limits = limits(0..=255, "IPVS");
pub(super) const SYNC_MAXLEN: Limits = limits(1..=65_507, "IPVS");
pub(super) const SYNC_TTL: Limits = limits(1..=255, "IPVS");
pub(super) const BFD_MULTIPLIERS: Limits = limits(1..=255, "RFC 5880 §4.1");
pub(super) const BFD_TTLS: Limits = limits(1..=255, "RFC 5881 §5");
pub(super) const BFD_HOPS: Limits = limits(-1..=255, "keepalived; -1 = any");
pub(super) const HMAC_KEY_ID: Limits = limits(1..=255, "keepalived");
pub(super) const HMAC_WINDOW: Limits = limits(1..=300, "seconds, keepalived");
pub(super) const DEBUG: Limits = limits(0..=4, "keepalived");
/// keepalived's `IPVS_WEIGHT_LIMIT` is INT32_MAX.
pub(super) const RS_WEIGHT: Limits = limits(0..=2_147_483_647, "IPVS");
pub(super) const VS_WEIGHT: Limits = limits(1..=2_147_483_647, "IPVS");
pub(super) const THRESHOLD: Limits = limits(0..=4_294_967_295, "IPVS");
pub(super) const QUORUMS: Limits = limits(1..=4_294_967_295, "keepalived");
pub(super) const HYSTERESES: Limits = limits(0..=4_294_967_295, "keepalived");
pub(super) const RETRIES: Limits = limits(0..=4_294_967_295, "keepalived");
/// Of the packets of a check, which may have none.
pub(super) const CHECK_MARK: Limits = limits(0..=4_294_967_295, "SO_MARK; 0 = none");
pub(super) const FILE_CHECK_WEIGHT: Limits = limits(-2_147_483_647..=2_147_483_647, "keepalived");
pub(super) const MISC_TIMEOUT: Limits = limits(0..=4_294, "whole seconds; 0 = delay_loop");
pub(super) const STATUS_CODE: Limits = limits(100..=599, "RFC 9110 §15");
pub(super) const REPLY_LENGTH: Limits = limits(0..=65_535, "RFC 768");
pub(super) const PAGE_OFFSET: Limits = limits(0..=i64::MAX, "bytes");
pub(super) const REGEX_STACK: Limits = limits(1..=i64::MAX, "bytes");
pub(super) const SCOPE: Limits = limits(0..=255, "rtnetlink(7)");
/// A packet without a mark has mark 0.
pub(super) const MARK: Limits = limits(1..=4_294_967_295, "0 = no mark");
pub(super) const SWITCH: Limits = limits(0..=1, "IPVS");
pub(super) const REUSE_MODE: Limits = limits(0..=3, "IPVS");
pub(super) const WORKERS: Limits = limits(1..=MOST_WORKERS as i64, "one a queue");
pub(super) const SPIN_US: Limits = limits(0..=1_000_000, "microseconds; 0 = sleep at once");
/// From IPVS's smallest table to its largest (`CONFIG_IP_VS_MH_TAB_INDEX` 8 and 17), and beyond
/// to the prime below 2^20.
pub(super) const TABLE_SIZE: Limits =
    limits(MaglevSize::MIN as i64..=MaglevSize::MAX as i64, "a prime");
pub(super) const TIMEOUT: Limits = limits(1..=2_678_400, "IPVS");
/// 31 days, as IPVS (`MAX_TIMEOUT`).
pub(super) const LVS_TIMEOUT: Limits = limits(0..=2_678_400, "IPVS");
pub(super) const PERSISTENCE: Limits = limits(1..=2_678_400, "IPVS; leave it out for none");

/// What a time may be, both ends included, in microseconds.
#[derive(Debug)]
pub(super) struct TimeLimits {
    pub(super) least: Duration,
    pub(super) most: Duration,
    pub(super) source: &'static str,
}

impl fmt::Display for TimeLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = (self.least.as_secs_f64(), self.most.as_secs_f64());
        write!(f, "{least} to {most} seconds ({})", self.source)
    }
}

const fn times(least: u64, most: u64, source: &'static str) -> TimeLimits {
    TimeLimits {
        least: Duration::from_micros(least),
        most: Duration::from_micros(most),
        source,
    }
}

const SECOND: u64 = 1_000_000;
/// Longest time of most keywords: `UINT_MAX` microseconds in whole seconds.
const LONGEST: u64 = 4_294 * SECOND;

pub(super) const ADVERT_INTERVAL: TimeLimits = times(10_000, 255 * SECOND, "RFC 3768 §5.3.7");
pub(super) const PREEMPT_DELAY: TimeLimits = times(0, 1_000 * SECOND, "keepalived");
pub(super) const STARTUP_DELAY: TimeLimits = times(1_000, LONGEST, "keepalived");
pub(super) const GARP_INTERVAL: TimeLimits =
    times(1, LONGEST, "keepalived; leave it out for no pacing");
pub(super) const GARP_DELAY: TimeLimits = times(0, LONGEST, "keepalived");
pub(super) const GARP_EXTRA: TimeLimits = times(SECOND, 86_400 * SECOND, "keepalived");
pub(super) const GARP_EXTRA_OR_NONE: TimeLimits = times(0, 86_400 * SECOND, "keepalived; 0 = none");
pub(super) const UP_DOWN_DELAY: TimeLimits = times(0, 255 * SECOND, "keepalived");
pub(super) const PROCESS_DELAY: TimeLimits = times(1, 3_600 * SECOND, "keepalived");
/// `UINT_MAX` microseconds in whole milliseconds.
pub(super) const BFD_INTERVALS: TimeLimits = times(1_000, 4_294_967_000, "RFC 5880 §4.1");
pub(super) const BFD_IDLE: TimeLimits = times(SECOND, 4_294_967_000, "RFC 5880 §6.8.3");
pub(super) const SMTP_TIMEOUT: TimeLimits = times(0, LONGEST, "keepalived");
pub(super) const CHECK_TIMEOUT: TimeLimits = times(1, LONGEST, "keepalived");
/// Ten years; keepalived counts on until 584,942 of them are over.
const TEN_YEARS: u64 = 315_360_000 * SECOND;
pub(super) const CHECK_INTERVAL: TimeLimits = times(1, TEN_YEARS, "ten years");
pub(super) const CHECK_DELAY: TimeLimits = times(0, TEN_YEARS, "ten years");
