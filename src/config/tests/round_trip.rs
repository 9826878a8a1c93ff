//! The effective configuration is read back as the configuration that it was written from.

use std::{net::Ipv4Addr, time::Duration};

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::super::{
    Authentication, CheckKind, Checker, Config, Garp, Global, InitialState, LbKind, LvsTimeouts,
    Mail, NotifyEvent, NotifyScript, Password, Persistence, RealServer, Scheduler, TrackInterface,
    Transport, UnicastPeer, VirtualAddress, VirtualServer, VirtualServerKey, VrrpInstance,
    VrrpVersion,
    effective::{Secrets, written},
    parse,
};
use crate::addr::{Endpoint, IpPrefix, L4Proto};

fn secs(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_secs)
}

fn micros(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_micros)
}

/// Text with everything that needs quotes, but for the quote itself, which no word can hold.
fn text() -> impl Strategy<Value = String> {
    "[a-z0-9 #!{}@.$'é中-]{0,12}".prop_filter("a variable", |text| !text.contains('$'))
}

fn name() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9]{1,8}"
}

fn addr() -> impl Strategy<Value = Ipv4Addr> {
    (1..224_u8, any::<u8>(), any::<u8>(), any::<u8>())
        .prop_map(|(a, b, c, d)| Ipv4Addr::new(a, b, c, d))
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    (addr(), 1..=u16::MAX).prop_map(|(addr, port)| Endpoint::new(addr.into(), port))
}

fn global() -> impl Strategy<Value = Global> {
    let mail = (
        vec(text(), 0..3),
        option::of(text()),
        option::of((text(), 1..=u16::MAX)),
        option::of(text()),
        secs(1..4000),
    )
        .prop_map(
            |(recipients, from, smtp_server, helo_name, connect_timeout)| Mail {
                recipients,
                from,
                smtp_server,
                helo_name,
                connect_timeout,
            },
        );
    let timeouts = (secs(1..2_678_400), secs(1..9), secs(1..9))
        .prop_map(|(tcp, tcp_fin, udp)| LvsTimeouts { tcp, tcp_fin, udp });
    (
        option::of(text()),
        mail,
        timeouts,
        micros(1_000..9_999_999),
        micros(1..99),
    )
        .prop_map(
            |(router_id, mail, lvs_timeouts, vrrp_startup_delay, vrrp_garp_interval)| Global {
                router_id,
                mail,
                lvs_timeouts,
                vrrp_startup_delay,
                vrrp_garp_interval,
            },
        )
}

fn address() -> impl Strategy<Value = VirtualAddress> {
    (
        (addr(), 0..=32_u8, name(), any::<u8>()),
        (
            option::of("[a-z]{1,9}:[0-9]"),
            option::of(addr()),
            option::of(addr()),
        ),
        any::<[bool; 2]>(),
    )
        .prop_map(
            |((addr, len, dev, scope), (label, broadcast, peer), flags)| VirtualAddress {
                prefix: IpPrefix::new(addr.into(), len).unwrap(),
                dev,
                scope,
                label,
                broadcast,
                peer: peer.map(|peer| IpPrefix::new(peer.into(), len).unwrap()),
                noprefixroute: flags[0],
                no_track: flags[1],
            },
        )
}

/// Addresses without repeats, which reading would drop.
fn addresses() -> impl Strategy<Value = Vec<VirtualAddress>> {
    vec(address(), 0..4)
}

fn script(events: Vec<NotifyEvent>) -> impl Strategy<Value = Vec<NotifyScript>> {
    let one = (
        select(events),
        "/[ -~é\t]{1,12}",
        option::of((name(), option::of(name()))),
    )
        .prop_map(|(event, command, owner)| {
            let (user, group) = owner.map_or((None, None), |(user, group)| (Some(user), group));
            NotifyScript {
                event,
                command,
                user,
                group,
            }
        });
    vec(one, 0..2)
        .prop_filter("a variable", |scripts| {
            scripts.iter().all(|script| !script.command.contains('$'))
        })
        .prop_map(|mut scripts| {
            scripts.dedup_by_key(|script| script.event);
            scripts
        })
}

fn garp() -> impl Strategy<Value = Garp> {
    (
        [micros(0..99_999_999), micros(0..9), micros(0..9_000_000)],
        [1..100_u32, 1..100, 1..100],
    )
        .prop_map(
            |([master_delay, master_refresh, lower_prio_delay], repeats)| Garp {
                master_delay,
                master_repeat: repeats[0],
                master_refresh,
                master_refresh_repeat: repeats[1],
                lower_prio_delay,
                lower_prio_repeat: repeats[2],
            },
        )
}

fn transport() -> impl Strategy<Value = Transport> {
    let peer =
        (addr(), any::<u8>(), any::<u8>()).prop_map(|(addr, min_ttl, max_ttl)| UnicastPeer {
            addr: addr.into(),
            min_ttl,
            max_ttl,
        });
    prop_oneof![
        any::<u8>().prop_map(|n| Transport::Multicast {
            group: Ipv4Addr::new(224, 0, 0, n).into()
        }),
        (vec(peer, 1..4), any::<u8>(), any::<bool>()).prop_map(|(peers, ttl, check_source)| {
            Transport::Unicast {
                peers,
                ttl,
                check_source,
            }
        }),
    ]
}

fn authentication() -> impl Strategy<Value = Authentication> {
    ("[a-zA-Z0-9#!{}%~ -]{1,8}", any::<bool>()).prop_map(|(text, ah)| {
        let password = Password::new(text.as_bytes());
        if ah {
            Authentication::Ah(password)
        } else {
            Authentication::Pass(password)
        }
    })
}

fn instance() -> impl Strategy<Value = VrrpInstance> {
    let track = (name(), -253..=253_i16, any::<bool>()).prop_map(|(interface, weight, reverse)| {
        TrackInterface {
            interface: format!("t{interface}"),
            weight,
            reverse,
        }
    });
    let events = vec![
        NotifyEvent::Any,
        NotifyEvent::Master,
        NotifyEvent::Backup,
        NotifyEvent::Fault,
        NotifyEvent::Stop,
        NotifyEvent::Deleted,
        NotifyEvent::MasterRxLowerPri,
    ];
    let flags = any::<[bool; 7]>();
    (
        (
            text(),
            name(),
            1..=255_u8,
            1..=255_u8,
            secs(1..256),
            micros(0..1_000_000_001),
        ),
        (
            option::of(authentication()),
            option::of(addr()),
            transport(),
        ),
        (
            addresses(),
            addresses(),
            garp(),
            vec(track, 0..3),
            1..=100_u8,
            script(events),
            flags,
        ),
    )
        .prop_map(|(first, (authentication, source, transport), last)| {
            let (name, interface, virtual_router_id, priority, advert_int, delay) = first;
            let (listed, excluded, garp, track_interface, down_timer_adverts, notify, flags) = last;
            let master = flags[0] || priority == 255;
            let preempt = flags[1] || master;
            VrrpInstance {
                name,
                initial_state: if master {
                    InitialState::Master
                } else {
                    InitialState::Backup
                },
                interface: format!("i{interface}"),
                virtual_router_id,
                priority,
                version: if flags[2] && authentication.is_none() {
                    VrrpVersion::V3
                } else {
                    VrrpVersion::V2
                },
                advert_int: advert_int.min(Duration::from_secs(40)),
                preempt,
                preempt_delay: if master || !preempt {
                    Duration::ZERO
                } else {
                    delay
                },
                authentication,
                source: source.map(Into::into),
                transport,
                virtual_ipaddress: unique(listed, 'l'),
                virtual_ipaddress_excluded: unique(excluded, 'e'),
                garp,
                track_interface,
                dont_track_primary: flags[3],
                skip_check_adv_addr: flags[4],
                down_timer_adverts,
                lower_prio_no_advert: flags[5],
                higher_prio_send_advert: flags[6],
                notify,
            }
        })
}

/// Gives each address an interface of its own.
fn unique(mut list: Vec<VirtualAddress>, kind: char) -> Vec<VirtualAddress> {
    for (index, address) in list.iter_mut().enumerate() {
        address.dev = format!("{kind}{index}{}", address.dev);
    }
    list
}

fn checker() -> impl Strategy<Value = Checker> {
    let times = [
        micros(1..99_999_999),
        micros(0..99),
        micros(0..9),
        micros(1..9_000_000),
    ];
    let warm = any::<bool>();
    (
        endpoint(),
        option::of(addr()),
        any::<u16>(),
        times,
        any::<u32>(),
        (any::<bool>(), warm),
    )
        .prop_map(
            |(connect, bindto, bind_port, times, retry, (alpha, warm))| Checker {
                kind: CheckKind::Tcp,
                connect,
                bindto: bindto.map(Into::into),
                bind_port,
                connect_timeout: times[0],
                retry,
                delay_before_retry: times[1],
                warmup: warm.then_some(times[2]),
                delay_loop: times[3],
                alpha,
            },
        )
}

fn real() -> impl Strategy<Value = RealServer> {
    (
        (
            endpoint(),
            0..=2_147_483_647_u32,
            select(vec![LbKind::Nat, LbKind::Dr, LbKind::Tun]),
        ),
        any::<(bool, u32, u32)>(),
        script(vec![NotifyEvent::Up, NotifyEvent::Down]),
        vec(checker(), 0..3),
    )
        .prop_map(
            |((endpoint, weight, lb_kind), (inhibit, high, low), notify, checkers)| RealServer {
                endpoint,
                weight,
                lb_kind,
                inhibit_on_failure: inhibit,
                uthreshold: high,
                lthreshold: low,
                notify,
                checkers,
            },
        )
}

fn server() -> impl Strategy<Value = VirtualServer> {
    let persistence =
        (secs(1..2_678_401), 1..=32_u8).prop_map(|(timeout, granularity)| Persistence {
            timeout,
            granularity,
        });
    let protocols = vec![L4Proto::Tcp, L4Proto::Udp, L4Proto::Sctp];
    (
        (
            endpoint(),
            select(protocols),
            micros(1..99_999_999),
            select(&Scheduler::ALL[..]),
        ),
        (
            select(vec![LbKind::Nat, LbKind::Dr, LbKind::Tun]),
            option::of(persistence),
        ),
        (
            any::<[bool; 2]>(),
            any::<u32>(),
            any::<u32>(),
            option::of(endpoint()),
        ),
        script(vec![NotifyEvent::QuorumUp, NotifyEvent::QuorumDown]),
        vec(real(), 1..4),
    )
        .prop_map(
            |(first, (lb_kind, persistence), numbers, notify, mut real_servers)| {
                let (endpoint, protocol, delay_loop, lb_algo) = first;
                let ([alpha, omega], quorum, hysteresis, sorry_server) = numbers;
                for (index, real) in real_servers.iter_mut().enumerate() {
                    // Apart from one another, and with the port that the forwarding method allows.
                    let last = u8::try_from(index).unwrap();
                    real.endpoint.addr = Ipv4Addr::new(10, 0, 0, last).into();
                    if real.lb_kind != LbKind::Nat {
                        real.endpoint.port = endpoint.port;
                    }
                }
                let weights: u64 = real_servers.iter().map(|real| u64::from(real.weight)).sum();
                let most = u32::try_from(weights.min(2_147_483_647)).unwrap().max(1);
                let quorum = 1 + quorum % most;
                VirtualServer {
                    key: VirtualServerKey { endpoint, protocol },
                    delay_loop,
                    lb_algo,
                    lb_kind,
                    persistence,
                    alpha,
                    omega,
                    quorum,
                    hysteresis: hysteresis % quorum,
                    sorry_server: sorry_server.map(|mut sorry| {
                        if lb_kind != LbKind::Nat {
                            sorry.port = endpoint.port;
                        }
                        sorry
                    }),
                    notify,
                    real_servers,
                }
            },
        )
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        global in global(),
        vrrp_instances in vec(instance(), 0..3),
        virtual_servers in vec(server(), 0..3),
    ) {
        // What the parser must refuse (a VRID twice, a name twice) it still understands.
        let config = Config { global, vrrp_instances, virtual_servers };
        let text = written(&config, Secrets::Shown);
        let parsed = parse("effective", text.as_bytes());
        prop_assert_eq!(&parsed.config, &config, "{}\n{}", text, parsed.report());
        let changed = ["is taken as", "is read as", "is rounded", "is ignored", "unknown"];
        for diagnostic in &parsed.diagnostics {
            let message = &diagnostic.message;
            prop_assert!(!changed.iter().any(|c| message.contains(c)), "{}", message);
        }
    }
}

#[test]
fn passwords_are_written_only_for_this_test() {
    let mut config = Config::default();
    let text = super::instance("authentication {\nauth_type PASS\nauth_pass hidden\n}");
    config.vrrp_instances = super::config(&text).vrrp_instances;
    assert!(written(&config, Secrets::Shown).contains("auth_pass hidden"));
    assert!(!written(&config, Secrets::Masked).contains("hidden"));
    assert!(!format!("{config:?}").contains("hidden"));
}
