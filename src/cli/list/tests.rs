//! Against what ipvsadm 1.31 printed on Linux 6.1 for the same virtual servers.

use super::*;
use crate::control::api::{TrafficRates, TrafficTotals};

const MASQ: &str = "Masq";
const ROUTE: &str = "Route";
const TUNNEL: &str = "Tunnel";

/// Connections, packets in and out, bytes in and out.
type Five = [u64; 5];

const fn totals(
    [connections, packets_in, packets_out, bytes_in, bytes_out]: Five,
) -> TrafficTotals {
    TrafficTotals {
        connections,
        packets_in,
        packets_out,
        bytes_in,
        bytes_out,
    }
}

const fn rates([connections, packets_in, packets_out, bytes_in, bytes_out]: Five) -> TrafficRates {
    TrafficRates {
        connections,
        packets_in,
        packets_out,
        bytes_in,
        bytes_out,
    }
}

fn real(endpoint: &str, forward: &str, weight: u32, active: u64, inactive: u64) -> RealStatus {
    let endpoint: SocketAddr = endpoint.parse().unwrap();
    RealStatus {
        address: endpoint.ip(),
        port: endpoint.port(),
        forward: forward.into(),
        tunnel: None,
        weight,
        up: true,
        in_pool: true,
        active,
        inactive,
        connections: 0,
        packets_in: 0,
        bytes_in: 0,
        packets_out: 0,
        bytes_out: 0,
        rates: TrafficRates::default(),
        next_hop: None,
        reason: None,
    }
}

/// A real server behind the tunnel that ipvsadm calls so.
fn tunnel(last: u8, tunnel: &str) -> RealStatus {
    RealStatus {
        tunnel: Some(tunnel.into()),
        ..real(&format!("10.2.0.{last}:8081"), TUNNEL, 2, 0, 0)
    }
}

impl RealStatus {
    fn with(self, total: Five, rate: Five) -> Self {
        Self {
            connections: total[0],
            packets_in: total[1],
            packets_out: total[2],
            bytes_in: total[3],
            bytes_out: total[4],
            rates: rates(rate),
            ..self
        }
    }
}

fn address(protocol: &str, endpoint: &str) -> MatchStatus {
    let endpoint: SocketAddr = endpoint.parse().unwrap();
    MatchStatus::Address {
        protocol: protocol.into(),
        address: endpoint.ip(),
        port: endpoint.port(),
    }
}

fn service(
    one: MatchStatus,
    scheduler: &str,
    flags: &[&str],
    reals: Vec<RealStatus>,
) -> ServiceStatus {
    let sum = |of: fn(&RealStatus) -> u64| reals.iter().map(of).sum();
    let rate = |of: fn(&TrafficRates) -> u64| reals.iter().map(|real| of(&real.rates)).sum();
    ServiceStatus {
        protocol: String::new(),
        address: IpAddr::from([0; 4]),
        port: 0,
        matches: vec![one],
        group: None,
        scheduler: scheduler.into(),
        flags: flags.iter().map(ToString::to_string).collect(),
        one_packet: false,
        persistence_timeout: None,
        persistence_granularity: None,
        totals: totals([
            sum(|real| real.connections),
            sum(|real| real.packets_in),
            sum(|real| real.packets_out),
            sum(|real| real.bytes_in),
            sum(|real| real.bytes_out),
        ]),
        rates: rates([
            rate(|rates| rates.connections),
            rate(|rates| rates.packets_in),
            rate(|rates| rates.packets_out),
            rate(|rates| rates.bytes_in),
            rate(|rates| rates.bytes_out),
        ]),
        quorum_met: true,
        steered: true,
        reals,
    }
}

impl ServiceStatus {
    fn persistent(self, timeout: u32, granularity: Option<u8>) -> Self {
        Self {
            persistence_timeout: Some(timeout),
            persistence_granularity: granularity,
            ..self
        }
    }
}

fn list(services: Vec<ServiceStatus>) -> ServiceList {
    ServiceList {
        connection_table_size: 4096,
        services,
        ..ServiceList::default()
    }
}

/// What was recorded, `busy` being the totals of the connection that carried a load meanwhile.
fn recorded(busy: Five) -> ServiceList {
    const NONE: Five = [0; 5];
    let syn = |real: RealStatus| real.with([1, 5, 0, 300, 0], [0, 0, 0, 4, 0]);
    list(vec![
        service(
            address("TCP", "10.1.0.100:8080"),
            "wrr",
            &[],
            vec![
                real("10.2.0.11:8080", MASQ, 3, 0, 0),
                real("10.2.0.12:8080", MASQ, 1, 2, 0).with(busy, [0, 872, 139, 53_740_457, 7209]),
            ],
        )
        .persistent(300, Some(24)),
        service(
            address("TCP", "10.1.0.100:8081"),
            "sh",
            &["sh-fallback", "sh-port"],
            vec![
                tunnel(11, "ipip"),
                tunnel(12, "gue:6080:-c"),
                tunnel(13, "gue:6080:+c"),
                tunnel(14, "gre:-c"),
                tunnel(15, "gre:+c"),
            ],
        ),
        service(
            address("TCP", "10.1.0.100:8082"),
            "mh",
            &["mh-port"],
            vec![syn(real("10.2.0.11:8082", ROUTE, 2, 1, 0))],
        ),
        service(
            address("TCP", "10.1.0.100:8083"),
            "mh",
            &["mh-fallback", "mh-port"],
            vec![
                real("10.2.0.12:8083", ROUTE, 2, 0, 0),
                RealStatus {
                    in_pool: false,
                    ..real("10.2.0.13:8083", ROUTE, 2, 9, 9)
                },
            ],
        )
        .persistent(50, None),
        ServiceStatus {
            one_packet: true,
            ..service(
                address("UDP", "10.1.0.100:5353"),
                "rr",
                &[],
                vec![real("10.2.0.11:5353", MASQ, 1, 0, 0).with([1, 1, 0, 29, 0], NONE)],
            )
        },
        service(
            address("UDP", "10.1.0.100:5354"),
            "rr",
            &[],
            vec![real("10.2.0.11:5354", MASQ, 1, 0, 1).with([1, 1, 1, 29, 29], NONE)],
        ),
        service(
            address("SCTP", "10.1.0.100:9899"),
            "rr",
            &[],
            vec![real("10.2.0.11:9899", MASQ, 1, 0, 1).with([1, 1, 1, 68, 36], NONE)],
        ),
        service(
            address("TCP", "[fd01::100]:8080"),
            "rr",
            &[],
            vec![real("[fd02::11]:8080", MASQ, 1, 1, 0).with([1, 3, 2, 224, 158], [0, 0, 0, 1, 1])],
        )
        .persistent(60, Some(64)),
        service(
            address("TCP", "[fd01::100]:8081"),
            "sh",
            &["sh-port"],
            vec![real("[fd02::11]:8081", ROUTE, 1, 0, 0)],
        ),
        service(
            MatchStatus::Mark {
                mark: 7,
                ipv6: false,
            },
            "rr",
            &[],
            vec![real("10.2.0.12:0", MASQ, 1, 1, 0).with([1, 3, 2, 164, 118], [0, 0, 0, 1, 0])],
        )
        .persistent(100, Some(16)),
        service(
            MatchStatus::Mark {
                mark: 7,
                ipv6: true,
            },
            "rr",
            &[],
            vec![real("[fd02::12]:0", MASQ, 1, 1, 0).with([1, 3, 2, 224, 158], [0, 0, 0, 1, 1])],
        )
        .persistent(50, Some(64)),
    ])
}

/// Also that real servers out of the pool are left out.
#[track_caller]
fn assert_shown(list: &ServiceList, view: View, expected: &str) {
    for (shown, expected) in render(list, view).lines().zip(expected.lines()) {
        assert_eq!(shown, expected);
    }
    assert_eq!(render(list, view), expected);
}

#[test]
fn the_plain_list_is_ipvsadms() {
    let expected = include_str!("../testdata/ipvsadm-list.txt");
    assert_shown(&recorded([0; 5]), View::Plain, expected);
}

#[test]
fn tunnels_are_told_as_ipvsadm_does() {
    let expected = include_str!("../testdata/ipvsadm-tun-info.txt");
    assert_shown(&recorded([0; 5]), View::TunnelInfo, expected);
}

#[test]
fn totals_are_shown_as_ipvsadm_does() {
    let busy = [2, 15_994, 3_035, 984_395_123, 157_848];
    let expected = include_str!("../testdata/ipvsadm-stats.txt");
    assert_shown(&recorded(busy), View::Totals { exact: false }, expected);
    let busy = [2, 17_683, 3_287, 1_088_358_004, 170_952];
    let expected = include_str!("../testdata/ipvsadm-stats-exact.txt");
    assert_shown(&recorded(busy), View::Totals { exact: true }, expected);
}

#[test]
fn rates_are_shown_as_ipvsadm_does() {
    let expected = include_str!("../testdata/ipvsadm-rate.txt");
    assert_shown(&recorded([0; 5]), View::Rates { exact: false }, expected);
}

#[test]
fn only_the_large_numbers_of_a_real_servers_rates_are_shortened() {
    const LARGE: Five = [100_000_000; 5];
    let reals = vec![real("10.0.0.1:80", MASQ, 1, 0, 0).with(LARGE, LARGE)];
    let list = list(vec![service(
        address("TCP", "10.0.0.9:80"),
        "rr",
        &[],
        reals,
    )]);
    let shown = render(&list, View::Rates { exact: false });
    let numbers = |start: &str| {
        let line = shown.lines().find(|line| line.starts_with(start)).unwrap();
        line[33..].to_owned()
    };
    assert_eq!(numbers("TCP "), "  100000K".repeat(5));
    let [whole, short] = [" 100000000", "  100000K"];
    assert_eq!(numbers("  -> 10."), whole.repeat(3) + &short.repeat(2));
    assert!(!render(&list, View::Rates { exact: true }).contains('K'));
}

fn range(first: &str, last: &str, port: u16) -> MatchStatus {
    MatchStatus::Range {
        protocol: "TCP".into(),
        first: first.parse().unwrap(),
        last: last.parse().unwrap(),
        port,
    }
}

#[test]
fn each_address_of_a_group_is_an_entry_with_all_real_servers_at_the_port_in_use() {
    let matches = vec![
        address("TCP", "203.0.113.100:80"),
        address("TCP", "203.0.113.100:443"),
        range("203.0.113.101", "203.0.113.102", 80),
    ];
    let reals = vec![
        real("198.51.100.31:0", MASQ, 3, 2, 1).with([3, 30, 20, 3000, 2000], [1, 2, 3, 4, 5]),
        real("198.51.100.32:8080", MASQ, 3, 0, 0),
    ];
    let group = ServiceStatus {
        matches,
        ..service(address("TCP", "203.0.113.100:80"), "rr", &[], reals).persistent(50, None)
    };
    let list = list(vec![group]);
    let entries = |view| {
        let shown = render(&list, view);
        shown.lines().skip(3).map(str::to_owned).collect::<Vec<_>>()
    };
    let expected = [
        "TCP  203.0.113.100:80 rr persistent 50",
        "  -> 198.51.100.31:80             Masq    3      2          1         ",
        "  -> 198.51.100.32:8080           Masq    3      0          0         ",
        "TCP  203.0.113.100:443 rr persistent 50",
        "  -> 198.51.100.31:443            Masq    3      -          -         ",
        "  -> 198.51.100.32:8080           Masq    3      -          -         ",
        "TCP  203.0.113.101:80 rr persistent 50",
        "  -> 198.51.100.31:80             Masq    3      -          -         ",
        "  -> 198.51.100.32:8080           Masq    3      -          -         ",
        "TCP  203.0.113.102:80 rr persistent 50",
        "  -> 198.51.100.31:80             Masq    3      -          -         ",
        "  -> 198.51.100.32:8080           Masq    3      -          -         ",
        "(-: counted with the first address of the group)",
    ];
    assert_eq!(entries(View::Plain), expected);
    for (view, numbers) in [
        (View::Totals { exact: true }, [3, 30, 20, 3000, 2000]),
        (View::Rates { exact: true }, [1, 2, 3, 4, 5]),
    ] {
        let shown = entries(view);
        let line = |name: &str, numbers: [&str; 5]| {
            let numbers: String = numbers.iter().map(|it| format!(" {it:>8}")).collect();
            format!("{name:<33}{numbers}")
        };
        let numbers = numbers.map(|number| number.to_string());
        let numbers: [&str; 5] = std::array::from_fn(|n| &numbers[n][..]);
        assert_eq!(shown[0], line("TCP  203.0.113.100:80", numbers));
        assert_eq!(shown[1], line("  -> 198.51.100.31:80", numbers));
        assert_eq!(shown[9], line("TCP  203.0.113.102:80", ["-"; 5]));
        assert_eq!(shown[10], line("  -> 198.51.100.31:80", ["-"; 5]));
    }
}

#[test]
fn a_network_and_a_range_of_thousands_are_one_entry() {
    let matches = vec![
        range("10.0.0.0", "10.0.0.255", 443),
        range("fd00::", "fd00::100", 443),
        MatchStatus::Prefix {
            protocol: "TCP".into(),
            address: "fd00:1::".parse().unwrap(),
            length: 64,
            port: 0,
        },
        MatchStatus::Mark {
            mark: 4_000_000_000,
            ipv6: true,
        },
    ];
    let group = ServiceStatus {
        matches,
        ..service(
            address("TCP", "10.0.0.1:80"),
            "rr",
            &[],
            vec![real("10.0.1.1:0", ROUTE, 1, 0, 0)],
        )
        .persistent(300, Some(48))
    };
    let shown = render(&list(vec![group]), View::Plain);
    let lines: Vec<&str> = shown.lines().skip(3).collect();
    let (single, rest) = lines.split_at(2 * 256);
    assert_eq!(single[0], "TCP  10.0.0.0:443 rr persistent 300");
    assert_eq!(single[510], "TCP  10.0.0.255:443 rr persistent 300");
    let entries: Vec<&str> = rest
        .iter()
        .copied()
        .filter(|it| !it.starts_with("  ->"))
        .collect();
    assert_eq!(
        entries,
        [
            "TCP  [fd00::-fd00::100]:443 rr persistent 300 mask 48",
            "TCP  [fd00:1::/64]:0 rr persistent 300 mask 48",
            "FWM  4000000000 IPv6 rr persistent 300 mask 48",
            "(-: counted with the first address of the group)",
        ]
    );
    assert!(rest[1].starts_with("  -> 10.0.1.1:443 ") && rest[5].starts_with("  -> 10.0.1.1:0 "));
}

#[test]
fn a_granularity_is_shown_as_a_mask() {
    let with = |length| {
        let one = service(address("TCP", "10.0.0.1:80"), "rr", &[], Vec::new());
        render(&list(vec![one.persistent(300, Some(length))]), View::Plain)
    };
    assert!(with(24).contains("persistent 300 mask 255.255.255.0\n"));
    assert!(with(0).contains("persistent 300 mask 0.0.0.0\n"));
}

#[test]
fn what_an_older_daemon_tells_is_shown_too() {
    let json = r#"{"io":[],"connection_table_size":4096,"steering":{"steered":0,"passed":0,"dropped":0},
        "frames":{"received":0,"forwarded":0,"replied":0,"dropped":0},"drops":[],"services":[{
        "protocol":"TCP","address":"10.0.0.1","port":80,"scheduler":"rr","persistence_timeout":null,
        "persistence_granularity":null,"quorum_met":true,"steered":true,"reals":[{"address":"10.0.1.1",
        "port":80,"forward":"Route","weight":1,"up":true,"in_pool":true,"active":0,"inactive":0,
        "connections":0,"packets_in":0,"bytes_in":0,"next_hop":null,"reason":null}]}]}"#;
    let list: ServiceList = serde_json::from_str(json).unwrap();
    let shown = render(&list, View::Plain);
    assert!(
        shown.contains("\nTCP  10.0.0.1:80 rr\n  -> 10.0.1.1:80 "),
        "{shown}"
    );
}
