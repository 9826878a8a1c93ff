//! Any checker that can be read, for tests of what is written.

use std::{sync::Arc, time::Duration};

use proptest::{
    array::uniform16,
    collection::vec,
    option,
    prelude::*,
    sample::{select, subsequence},
};

use super::{
    super::{
        CheckKind, Checker, Connection, DnsCheck, DnsType, FileCheck, FileWeight, HttpCheck,
        HttpUrl, HttpVersion, MaskedByte, MiscCheck, PageRegex, Passphrase, RegexOption, Script,
        SmtpCheck, Ssl, StatusRange, Tls, UdpCheck, UdpReply, defaults,
    },
    round_trip::{addr, endpoint, micros, name, secs, text},
};

fn shared() -> impl Strategy<Value = Option<Arc<str>>> {
    option::of(text().prop_map(Arc::from))
}

fn connection() -> impl Strategy<Value = Connection> {
    (
        endpoint(),
        option::of(addr()),
        any::<u16>(),
        option::of(name()),
        any::<u32>(),
        micros(1..99_999_999),
    )
        .prop_map(
            |(to, bindto, bind_port, bind_if, mark, timeout)| Connection {
                to,
                bindto: bindto.map(Into::into),
                bind_port,
                bind_if,
                mark,
                timeout,
            },
        )
}

fn regex() -> impl Strategy<Value = PageRegex> {
    (
        "[ -#%-~]{1,12}",
        any::<bool>(),
        subsequence(RegexOption::ALL.to_vec(), 0..4),
        any::<u32>(),
        option::of(any::<u32>()),
        option::of((1..9_u64, 9..99_u64)),
    )
        .prop_map(
            |(pattern, no_match, options, min_offset, max_offset, stack)| PageRegex {
                pattern,
                no_match,
                options,
                min_offset: min_offset.into(),
                max_offset: max_offset.map(Into::into),
                stack,
            },
        )
}

fn url() -> impl Strategy<Value = HttpUrl> {
    let status = (100..=599_u16, 100..=599_u16).prop_map(|(a, b)| StatusRange {
        first: a.min(b),
        last: a.max(b),
    });
    (
        text(),
        option::of(uniform16(any::<u8>())),
        vec(status, 1..4),
        shared(),
        option::of(regex()),
        any::<bool>(),
    )
        .prop_map(
            |(path, digest, status_codes, virtualhost, regex, tls_compliant)| HttpUrl {
                path,
                digest,
                status_codes,
                virtualhost,
                regex,
                tls_compliant,
            },
        )
}

fn http() -> impl Strategy<Value = CheckKind> {
    let tls = (any::<bool>(), option::of(text())).prop_map(|(enable_sni, sni_name)| Tls {
        enable_sni,
        sni_name,
    });
    (
        connection(),
        option::of(tls),
        select(&HttpVersion::ALL[..]),
        shared(),
        any::<bool>(),
        vec(url(), 1..3),
    )
        .prop_map(
            |(connection, tls, version, virtualhost, fast_recovery, urls)| {
                CheckKind::Http(Box::new(HttpCheck {
                    connection,
                    tls,
                    version,
                    virtualhost,
                    fast_recovery,
                    urls,
                }))
            },
        )
}

fn misc() -> impl Strategy<Value = CheckKind> {
    let owner = option::of((name(), option::of(name())));
    (
        "/[ -#%-~]{1,12}",
        owner,
        option::of(secs(1..4_295)),
        any::<bool>(),
    )
        .prop_map(|(command, owner, timeout, dynamic)| {
            let (user, group) = owner.map_or((None, None), |(user, group)| (Some(user), group));
            CheckKind::Misc(Box::new(MiscCheck {
                script: Script {
                    command,
                    user,
                    group,
                },
                timeout,
                dynamic,
            }))
        })
}

fn udp() -> impl Strategy<Value = CheckKind> {
    let byte =
        (any::<u8>(), select(vec![0xff, 0xf0, 0x0f, 0])).prop_map(|(value, mask)| MaskedByte {
            value: value & mask,
            mask,
        });
    let reply =
        (vec(byte, 0..9), any::<u16>(), any::<u16>()).prop_map(|(pattern, a, b)| UdpReply {
            pattern,
            min_length: a.min(b),
            max_length: a.max(b),
        });
    let payload = option::of(vec(any::<u8>(), 1..9));
    (connection(), payload, option::of(reply)).prop_map(|(connection, payload, reply)| {
        CheckKind::Udp(Box::new(UdpCheck {
            connection,
            payload,
            reply,
        }))
    })
}

fn kind() -> impl Strategy<Value = CheckKind> {
    let weight = (-2_147_483_647..=i32::MAX, any::<bool>())
        .prop_map(|(weight, reverse)| FileWeight { weight, reverse });
    let dns = (
        connection(),
        select(&DnsType::ALL[..]),
        "[a-z]{1,9}(\\.[a-z]{1,9}){0,2}[.]?",
    );
    prop_oneof![
        connection().prop_map(CheckKind::Tcp),
        connection().prop_map(CheckKind::Ping),
        http(),
        (connection(), text()).prop_map(|(connection, helo_name)| {
            CheckKind::Smtp(Box::new(SmtpCheck {
                connection,
                helo_name,
            }))
        }),
        dns.prop_map(|(connection, record, name)| {
            CheckKind::Dns(Box::new(DnsCheck {
                connection,
                record,
                name,
            }))
        }),
        misc(),
        udp(),
        Just(CheckKind::Bfd {
            name: "B".to_owned()
        }),
        option::of(weight).prop_map(|weight| {
            let track_file = "F".to_owned();
            CheckKind::File(FileCheck { track_file, weight })
        }),
    ]
}

/// Any checker, with the times that its kind can have.
pub(super) fn checker() -> impl Strategy<Value = Checker> {
    let times = [micros(0..99), micros(0..9), micros(1..9_000_000)];
    (kind(), times, any::<u32>(), any::<[bool; 3]>()).prop_map(
        |(kind, [delay_before_retry, warmup, delay_loop], retry, [alpha, warm, log])| {
            let timed = !matches!(kind, CheckKind::Bfd { .. } | CheckKind::File(_));
            let or = |said, default: Duration| if timed { said } else { default };
            Checker {
                retry: if timed { retry } else { defaults::RETRY },
                delay_before_retry: or(delay_before_retry, defaults::DELAY_BEFORE_RETRY),
                warmup: (timed && warm).then_some(warmup),
                delay_loop: or(delay_loop, defaults::DELAY_LOOP),
                alpha: alpha && !matches!(kind, CheckKind::File(_)),
                log_all_failures: timed && log,
                kind,
            }
        },
    )
}

/// Any `SSL` block.
pub(super) fn ssl() -> impl Strategy<Value = Ssl> {
    let word = || option::of(text());
    (word(), word(), word(), word()).prop_map(|(password, ca, certificate, key)| Ssl {
        password: password.map(Passphrase::new),
        ca,
        certificate,
        key,
    })
}
