//! The effective configuration is read back as the configuration that it was written from.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use proptest::{
    collection::{btree_set, vec},
    option,
    prelude::*,
    sample::select,
};

use super::super::{
    AddressSet, Authentication, Config, FastPath, Garp, Global, InitialState, InstanceOptions,
    Ipvs, Mail, MarkRule, Match, NotifyEvent, NotifyScript, Password, Persistence, PortRange,
    RealServer, Settings, SorryServer, Timeout, Timeouts, TrackInterface, Trackers, Transport,
    UnicastPeer, VirtualAddress, VirtualServer, VrrpInstance, VrrpVersion,
    effective::{Secrets, written},
    parse,
};
use super::any_checker::{checker, ssl};
use crate::{
    addr::{Endpoint, Family, IpPrefix, L4Proto},
    lvs::{LbKind, MaglevSize, Scheduler, TunnelKind},
};

pub(super) fn secs(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_secs)
}

pub(super) fn micros(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_micros)
}

/// Text with everything that needs quotes, but for the quote itself, which no word can hold.
pub(super) fn text() -> impl Strategy<Value = String> {
    "[a-z0-9 #!{}@.$'é中-]{0,12}".prop_filter("a variable", |text| !text.contains('$'))
}

pub(super) fn name() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9]{1,8}"
}

pub(super) fn addr() -> impl Strategy<Value = Ipv4Addr> {
    (1..224_u8, any::<u8>(), any::<u8>(), any::<u8>())
        .prop_map(|(a, b, c, d)| Ipv4Addr::new(a, b, c, d))
}

pub(super) fn endpoint() -> impl Strategy<Value = Endpoint> {
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
    (
        option::of(text()),
        mail,
        micros(1_000..9_999_999),
        micros(1..99),
        any::<bool>(),
    )
        .prop_map(
            |(router_id, mail, vrrp_startup_delay, vrrp_garp_interval, dynamic_interfaces)| {
                Global {
                    router_id,
                    mail,
                    vrrp_startup_delay,
                    vrrp_garp_interval,
                    dynamic_interfaces,
                    ..Global::default()
                }
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
        any::<[bool; 7]>(),
        (option::of(any::<u32>()), option::of(name())),
    )
        .prop_map(
            |((addr, len, dev, scope), (label, broadcast, peer), flags, (lft, group))| {
                VirtualAddress {
                    prefix: IpPrefix::new(addr.into(), len).unwrap(),
                    dev,
                    scope,
                    label,
                    broadcast,
                    peer: peer.map(|peer| IpPrefix::new(peer.into(), len).unwrap()),
                    noprefixroute: flags[0],
                    no_track: flags[1],
                    home: flags[2],
                    nodad: flags[3],
                    mngtmpaddr: flags[4],
                    autojoin: flags[5],
                    preferred_lft: lft,
                    use_vmac: flags[6],
                    track_group: group,
                }
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
    let flags = any::<[bool; 9]>();
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
            // Who authenticates by AH does not start as MASTER.
            let ah = matches!(authentication, Some(Authentication::Ah(_)));
            let master = flags[0] && !ah || priority == 255;
            // The weights of an owner have no effect and are dropped.
            let track_interface = track_interface
                .into_iter()
                .map(|entry| TrackInterface {
                    weight: if priority == 255 { 0 } else { entry.weight },
                    ..entry
                })
                .collect();
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
                strict_mode: false,
                accept: flags[7],
                no_virtual_ipaddress: flags[8],
                auth_hmac: None,
                use_vmac: None,
                trackers: Trackers::default(),
                virtual_routes: vec![],
                virtual_rules: vec![],
                further: InstanceOptions::default(),
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

fn addr6() -> impl Strategy<Value = IpAddr> {
    // Few networks, so that neither a mapped address nor a multicast one is among them.
    (1..9_u16, any::<u64>()).prop_map(|(net, host)| {
        let bits = (0xfd00_u128 << 112) | (u128::from(net) << 64) | u128::from(host);
        Ipv6Addr::from(bits).into()
    })
}

fn any_addr() -> impl Strategy<Value = IpAddr> {
    prop_oneof![addr().prop_map(IpAddr::from), addr6()]
}

fn lb_kind() -> impl Strategy<Value = LbKind> {
    prop_oneof![
        Just(LbKind::Nat),
        Just(LbKind::Dr),
        Just(LbKind::Tun(TunnelKind::Ipip)),
        (1..=u16::MAX, any::<bool>())
            .prop_map(|(port, checksum)| LbKind::Tun(TunnelKind::Gue { port, checksum })),
        any::<bool>().prop_map(|checksum| LbKind::Tun(TunnelKind::Gre { checksum })),
    ]
}

/// A network without bits behind its length.
fn network(addr: IpAddr, len: u8) -> IpPrefix {
    let addr = match addr {
        IpAddr::V4(addr) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            Ipv4Addr::from(u32::from(addr) & mask).into()
        }
        IpAddr::V6(addr) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
            Ipv6Addr::from(u128::from(addr) & mask).into()
        }
    };
    IpPrefix::new(addr, len).unwrap()
}

fn ordered(a: IpAddr, b: IpAddr) -> Option<(IpAddr, IpAddr)> {
    (a != b && a.is_ipv4() == b.is_ipv4()).then(|| (a.min(b), a.max(b)))
}

/// Matches of a group, in one family.
fn matches() -> impl Strategy<Value = Vec<Match>> {
    let any_match = |family: Family| {
        let addr = move || match family {
            Family::V4 => addr().prop_map(IpAddr::from).boxed(),
            Family::V6 => addr6().boxed(),
        };
        let port = || prop_oneof![Just(80), any::<u16>()];
        prop_oneof![
            (addr(), port()).prop_map(|(addr, port)| Match::Address(Endpoint::new(addr, port))),
            (addr(), addr(), port()).prop_filter_map("a range", |(a, b, port)| {
                let (first, last) = ordered(a, b)?;
                Some(Match::Range { first, last, port })
            }),
            (addr(), 1..family.bits(), port()).prop_map(|(addr, len, port)| Match::Prefix {
                prefix: network(addr, len),
                port
            }),
            (1..=u32::MAX).prop_map(move |mark| Match::Mark { mark, family }),
        ]
    };
    select(vec![Family::V4, Family::V6])
        .prop_flat_map(move |family| vec(any_match(family), 1..5))
        .prop_map(|mut all| {
            let mut seen = std::collections::HashSet::new();
            all.retain(|one| seen.insert(*one));
            all
        })
}

fn real() -> impl Strategy<Value = RealServer> {
    (
        (endpoint(), 0..=2_147_483_647_u32, lb_kind()),
        (
            any::<(bool, u32, u32)>(),
            option::of(any::<bool>()),
            option::of(text()),
        ),
        script(vec![NotifyEvent::Up, NotifyEvent::Down]),
        vec(checker(), 0..3),
    )
        .prop_map(|((endpoint, weight, lb_kind), numbers, notify, checkers)| {
            let ((inhibit, a, b), smtp_alert, snmp_name) = numbers;
            RealServer {
                endpoint,
                weight,
                lb_kind,
                inhibit_on_failure: inhibit,
                uthreshold: a.max(b),
                lthreshold: a.min(b),
                smtp_alert,
                snmp_name,
                notify,
                checkers,
            }
        })
}

/// Makes an address one that a real server of the virtual server can have.
fn fit(endpoint: &mut Endpoint, lb_kind: LbKind, family: Family, port: u16, number: u8) {
    if family == Family::V6 && !matches!(lb_kind, LbKind::Tun(_)) {
        endpoint.addr = Ipv6Addr::from((0xfd01_u128 << 112) | u128::from(number)).into();
    } else {
        endpoint.addr = Ipv4Addr::new(10, 0, 0, number).into();
    }
    // With the port that the forwarding method allows.
    if lb_kind != LbKind::Nat {
        endpoint.port = port;
    }
}

fn server() -> impl Strategy<Value = VirtualServer> {
    let persistence =
        (secs(1..2_678_401), 1..=32_u8).prop_map(|(timeout, granularity)| Persistence {
            timeout,
            granularity,
        });
    let protocols = vec![L4Proto::Tcp, L4Proto::Udp, L4Proto::Sctp];
    let head = (matches(), option::of(text()), select(protocols));
    let sorry = (endpoint(), lb_kind(), any::<bool>());
    (
        (head, micros(1..99_999_999), select(&Scheduler::ALL[..])),
        (lb_kind(), option::of(persistence)),
        (
            any::<[bool; 6]>(),
            any::<u32>(),
            any::<u32>(),
            option::of(sorry),
        ),
        (
            option::of(name()),
            option::of(any::<bool>()),
            option::of(text()),
        ),
        script(vec![NotifyEvent::QuorumUp, NotifyEvent::QuorumDown]),
        vec(real(), 1..4),
    )
        .prop_map(
            |(first, (lb_kind, persistence), numbers, words, notify, mut real_servers)| {
                let (persistence_engine, smtp_alert, snmp_name) = words;
                let ((mut matches, group, protocol), delay_loop, lb_algo) = first;
                let ([alpha, omega, ops, port, fallback, suspend], quorum, hysteresis, sorry) =
                    numbers;
                if group.is_none() {
                    // Ranges and networks stand in groups.
                    let family = matches[0].family();
                    matches.truncate(1);
                    if matches!(matches[0], Match::Range { .. } | Match::Prefix { .. }) {
                        matches[0] = Match::Mark { mark: 7, family };
                    }
                }
                let addresses: Vec<u16> = matches.iter().filter_map(Match::port).collect();
                let marked = addresses.len() < matches.len();
                let one_port = !marked && addresses.iter().all(|port| *port == addresses[0]);
                let common = if one_port { addresses[0] } else { 0 };
                let protocol = if addresses.is_empty() {
                    L4Proto::Udp
                } else {
                    protocol
                };
                let lb_algo = match lb_algo {
                    Scheduler::Sh { .. } => Scheduler::Sh { port, fallback },
                    Scheduler::Mh { size, .. } => Scheduler::Mh {
                        port,
                        fallback,
                        size,
                    },
                    plain => plain,
                };
                let family = matches[0].family();
                for (number, real) in (1..).zip(&mut real_servers) {
                    fit(&mut real.endpoint, real.lb_kind, family, common, number);
                }
                let weights: u64 = real_servers.iter().map(|real| u64::from(real.weight)).sum();
                let most = u32::try_from(weights.min(2_147_483_647)).unwrap().max(1);
                let quorum = 1 + quorum % most;
                let forced = Persistence {
                    timeout: Duration::from_secs(360),
                    granularity: family.bits(),
                };
                let any_port = addresses.contains(&0);
                VirtualServer {
                    matches,
                    group,
                    protocol,
                    ops: ops && protocol == L4Proto::Udp,
                    delay_loop,
                    lb_algo,
                    lb_kind,
                    persistence: persistence.or_else(|| any_port.then_some(forced)),
                    persistence_engine,
                    alpha,
                    ha_suspend: suspend && !addresses.is_empty(),
                    smtp_alert,
                    snmp_name,
                    omega,
                    quorum,
                    hysteresis: hysteresis % quorum,
                    sorry_server: sorry.map(|(mut endpoint, lb_kind, inhibit)| {
                        fit(&mut endpoint, lb_kind, family, common, 99);
                        SorryServer {
                            endpoint,
                            lb_kind,
                            inhibit,
                        }
                    }),
                    notify,
                    real_servers,
                }
            },
        )
}

fn timeouts() -> impl Strategy<Value = Timeouts> {
    vec((select(Timeout::ALL), secs(1..2_678_401)), 0..9).prop_map(|said| {
        let mut timeouts = Timeouts::default();
        for (state, time) in said {
            timeouts.set(state, time);
        }
        timeouts
    })
}

fn port_range() -> impl Strategy<Value = PortRange> {
    (1..=u16::MAX, 1..=u16::MAX).prop_map(|(a, b)| PortRange {
        first: a.min(b),
        last: a.max(b),
    })
}

fn mark_rule() -> impl Strategy<Value = MarkRule> {
    (
        (1..=u32::MAX, any_addr(), any_addr(), any::<[u8; 2]>()),
        option::of(select(vec![L4Proto::Tcp, L4Proto::Udp, L4Proto::Sctp])),
        option::of(port_range()),
        option::of(port_range()),
        (any::<bool>(), option::of(name())),
    )
        .prop_map(
            |((mark, a, b, [len, from_len]), protocol, to_port, from_port, (from, interface))| {
                let bits = Family::of(a).bits();
                let length = |len: u8| len % (bits + 1);
                MarkRule {
                    mark,
                    protocol,
                    destination: match ordered(a, b) {
                        Some((first, last)) => AddressSet::Range { first, last },
                        None => AddressSet::Prefix(network(a, length(len))),
                    },
                    destination_port: to_port.filter(|_| protocol.is_some()),
                    source: from.then(|| network(a, length(from_len))),
                    source_port: from_port.filter(|_| protocol.is_some()),
                    interface,
                }
            },
        )
}

fn settings() -> impl Strategy<Value = Settings> {
    let ipvs = (0..=3_u8, any::<[bool; 7]>()).prop_map(|(conn_reuse_mode, flags)| Ipvs {
        conn_reuse_mode,
        expire_nodest_conn: flags[0],
        expire_quiescent_template: flags[1],
        sloppy_tcp: flags[2],
        sloppy_sctp: flags[3],
        pmtu_disc: flags[4],
        schedule_icmp: flags[5],
        nat_icmp_send: flags[6],
    });
    (
        vec(mark_rule(), 0..4),
        ipvs,
        any::<[bool; 5]>(),
        select(vec![251, 65_521, 65_537, 1_048_573])
            .prop_map(|slots| MaglevSize::new(slots).unwrap()),
        option::of(1..=256_u16),
        btree_set(0..64_u16, 0..20),
        0..=1_000_000_u64,
        0..3_usize,
    )
        .prop_map(
            |(marks, ipvs, flags, maglev_table_size, workers, cpus, spin, fast)| Settings {
                marks,
                ipvs,
                reset_on_failure: flags[0],
                udp_move: flags[1],
                cut_removed: flags[4],
                tunnel_source: tunnel_source(flags[2]),
                maglev_table_size,
                workers,
                cpus: cpus.into_iter().collect(),
                busy_poll: flags[3],
                spin: Duration::from_micros(spin),
                fast_path: FastPath::ALL[fast],
            },
        )
}

fn tunnel_source(some: bool) -> Vec<IpPrefix> {
    let both = ["172.16.0.0/12", "2001:db8:7::/64"];
    let networks = both.iter().filter(|_| some);
    networks.map(|network| network.parse().unwrap()).collect()
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        global in global(),
        vrrp_instances in vec(instance(), 0..3),
        mut virtual_servers in vec(server(), 0..3),
        ssl in ssl(),
        timeouts in timeouts(),
        settings in settings(),
    ) {
        // A group of one name has one content.
        for (number, server) in virtual_servers.iter_mut().enumerate() {
            server.group = server.group.as_ref().map(|name| format!("{number}{name}"));
            if let Scheduler::Mh { size, .. } = &mut server.lb_algo {
                *size = settings.maglev_table_size;
            }
        }
        // What the parser must refuse (a VRID twice, a name twice) it still understands.
        // What checks look at.
        let defined = super::config("bfd_instance B {\nneighbor_ip 10.0.0.2\n}\ntrack_file F {\nfile /f\n}\n");
        let config = Config { global, vrrp_instances, virtual_servers, ssl, timeouts, settings, ..defined };
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

#[test]
fn users_of_scripts_may_have_any_name() {
    for block in [
        "vrrp_script S {\nscript \"/bin/s a\" \"u\\x22x\\x20\" 'g\"'\n}\n".to_owned(),
        super::server(
            "",
            "MISC_CHECK {\nmisc_path \"/bin/s a\" \"u\\x22x\" 'g\"'\n}",
        ),
    ] {
        let first = parse("f", block.as_bytes());
        let written = written(&first.config, Secrets::Shown);
        let again = parse("f", written.as_bytes());
        assert_eq!(again.config, first.config, "{written}\n{}", again.report());
        assert!(written.contains("u\\x22x"), "{written}");
    }
}
