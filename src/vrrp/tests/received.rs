//! What a received packet may and may not do.

use proptest::prelude::*;

use super::*;
use crate::wire::checksum;

const PASSWORD: [u8; 8] = *b"s3cr3t78";

fn protected(priority: u8) -> Settings {
    Settings {
        password: Some(PASSWORD),
        ..settings(0, priority)
    }
}

/// A packet to be spoilt: an advert of 192.0.2.9 with the right password.
#[derive(Clone)]
struct Forged {
    message: Vec<u8>,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    ttl: u8,
    protocol: u8,
    fix_checksum: bool,
}

impl Forged {
    fn with_priority(priority: u8) -> Self {
        let template = protected(priority);
        let repr = AdvertRepr {
            vrid: VRID,
            priority,
            interval: 1,
            password: Some(PASSWORD),
            addresses: &template.addresses,
        };
        let source = Ipv4Addr::new(192, 0, 2, 9);
        let packet = repr.emit(&Envelope {
            source,
            destination: GROUP,
            ttl: 255,
            id: 7,
        });
        Self {
            message: packet[20..].to_vec(),
            source,
            destination: GROUP,
            ttl: 255,
            protocol: 112,
            fix_checksum: true,
        }
    }

    fn byte(mut self, at: usize, value: u8) -> Self {
        self.message[at] = value;
        self
    }

    fn packet(mut self) -> Vec<u8> {
        if self.fix_checksum && self.message.len() >= 8 {
            self.message[6..8].fill(0);
            let sum = checksum::compute(&self.message);
            self.message[6..8].copy_from_slice(&sum);
        }
        let header = etherparse::Ipv4Header::new(
            u16::try_from(self.message.len()).unwrap(),
            self.ttl,
            etherparse::IpNumber(self.protocol),
            self.source.octets(),
            self.destination.octets(),
        )
        .unwrap();
        let mut packet = header.to_bytes().to_vec();
        packet.extend(self.message);
        packet
    }
}

fn forged(change: impl FnOnce(&mut Forged)) -> Vec<u8> {
    let mut forged = Forged::with_priority(200);
    change(&mut forged);
    forged.packet()
}

/// The forged adverts that a keepalived 2.2.7 MASTER of priority 150 was tried with, each with
/// what a MASTER here does. `Ok(true)`: gives way.
fn forgeries() -> Vec<(&'static str, Vec<u8>, Result<bool, RejectReason>)> {
    use RejectReason as Why;
    let high = || Forged::with_priority(200);
    let address_list = |list: &[Ipv4Addr]| {
        let repr = AdvertRepr {
            vrid: VRID,
            priority: 200,
            interval: 1,
            password: Some(PASSWORD),
            addresses: list,
        };
        let source = Ipv4Addr::new(192, 0, 2, 9);
        repr.emit(&Envelope {
            source,
            destination: GROUP,
            ttl: 255,
            id: 7,
        })
    };
    let foreign = Ipv4Addr::new(203, 0, 113, 5);
    let ours = Ipv4Addr::new(198, 51, 100, 10);
    vec![
        (
            "lower priority",
            Forged::with_priority(100).packet(),
            Ok(false),
        ),
        ("TTL 254", forged(|f| f.ttl = 254), Err(Why::Ttl)),
        (
            "checksum",
            forged(|f| {
                f.fix_checksum = false;
                f.message[6] ^= 0x55;
            }),
            Err(Why::Checksum),
        ),
        (
            "password",
            high().byte(16, b'x').packet(),
            Err(Why::Password),
        ),
        (
            "last byte of the password",
            high().byte(23, b'x').packet(),
            Err(Why::Password),
        ),
        (
            "auth 0",
            high().byte(4, 0).packet(),
            Err(Why::AuthTypeMismatch),
        ),
        (
            "auth 2",
            high().byte(4, 2).packet(),
            Err(Why::AuthTypeMismatch),
        ),
        (
            "auth 7",
            high().byte(4, 7).packet(),
            Err(Why::AuthTypeUnknown),
        ),
        (
            "version 3",
            high().byte(0, 0x31).packet(),
            Err(Why::Version),
        ),
        (
            "version 4",
            high().byte(0, 0x41).packet(),
            Err(Why::Version),
        ),
        ("type 2", high().byte(0, 0x22).packet(), Err(Why::Kind)),
        (
            "interval 3 s",
            high().byte(5, 3).packet(),
            Err(Why::Interval),
        ),
        (
            "VRID 52",
            high().byte(1, 52).packet(),
            Err(Why::UnknownVrid),
        ),
        ("VRID 0", high().byte(1, 0).packet(), Err(Why::UnknownVrid)),
        (
            "7 bytes",
            forged(|f| f.message.truncate(7)),
            Err(Why::Length),
        ),
        (
            "12 bytes",
            forged(|f| f.message.truncate(12)),
            Err(Why::Length),
        ),
        (
            "1 byte",
            forged(|f| f.message.truncate(1)),
            Err(Why::Malformed),
        ),
        ("count 3 of 2", high().byte(3, 3).packet(), Err(Why::Length)),
        ("count 255", high().byte(3, 255).packet(), Err(Why::Length)),
        (
            "100 bytes more",
            forged(|f| f.message.extend([0; 100])),
            Err(Why::Length),
        ),
        // keepalived 2.2.7 refuses these two, newer releases log and go on.
        ("1 VIP of 2", address_list(&[ours]), Ok(true)),
        ("other VIPs", address_list(&[foreign, ours]), Ok(true)),
        (
            "unicast",
            forged(|f| f.destination = address(0)),
            Err(Why::Destination),
        ),
        (
            "own source",
            forged(|f| f.source = address(0)),
            Err(Why::SourceOwn),
        ),
        ("priority 0", Forged::with_priority(0).packet(), Ok(false)),
        (
            "protocol AH",
            forged(|f| f.protocol = 51),
            Err(Why::Protocol),
        ),
        (
            "equal priority, lower address",
            {
                let mut equal = Forged::with_priority(150);
                equal.source = Ipv4Addr::new(10, 0, 0, 1);
                equal.packet()
            },
            Ok(false),
        ),
        (
            "equal priority, higher address",
            Forged::with_priority(150).packet(),
            Ok(true),
        ),
        // keepalived obeys this one.
        (
            "source 0.0.0.0",
            forged(|f| f.source = Ipv4Addr::UNSPECIFIED),
            Err(Why::SourceInvalid),
        ),
        (
            "source a group",
            forged(|f| f.source = GROUP),
            Err(Why::SourceInvalid),
        ),
        (
            "priority 255",
            Forged::with_priority(255).packet(),
            Ok(true),
        ),
        (
            "higher priority",
            Forged::with_priority(200).packet(),
            Ok(true),
        ),
    ]
}

#[test]
fn forged_adverts_get_their_verdicts_from_a_master() {
    for (name, packet, expected) in forgeries() {
        let mut bench = Bench::master(protected(150));
        let deadline = bench.router.poll_timeout();
        let verdict = bench.router.handle_packet(bench.now, ETH, &packet);
        match expected {
            Ok(gives_way) => {
                assert_eq!(verdict, Reception::Accepted(bench.id), "{name}");
                assert_eq!(bench.state() == State::Backup, gives_way, "{name}");
            }
            Err(reason) => {
                assert_eq!(verdict, Reception::Rejected(reason), "{name}");
                assert_eq!(bench.state(), State::Master, "{name}");
                assert_eq!(bench.router.poll_timeout(), deadline, "{name}");
                let counted =
                    bench.status().counters.rejected(reason) + bench.router.strays(reason);
                assert_eq!(counted, 1, "{name}");
            }
        }
    }
}

#[test]
fn a_refused_advert_leaves_a_backup_as_it_was() {
    let mut bench = Bench::new(protected(150));
    let good = Forged::with_priority(200);
    bench.router.handle_packet(bench.now, ETH, &good.packet());
    let master = bench.status().master;
    let deadline = bench.router.poll_timeout();
    bench.wait(millis(900));
    for (name, packet, expected) in forgeries() {
        if expected.is_err() {
            bench.router.handle_packet(bench.now, ETH, &packet);
            assert_eq!(bench.router.poll_timeout(), deadline, "{name}");
            assert_eq!(bench.status().master, master, "{name}");
        }
    }
    assert_eq!(bench.status().counters.adverts_received, 1);
}

#[test]
fn refusals_are_told_in_keepaliveds_words() {
    let mut bench = Bench::master(protected(150));
    let mut said = |packet: Vec<u8>| {
        bench.router.handle_packet(bench.now, ETH, &packet);
        // Another instance for each, so that the number of lines is no limit.
        let lines = bench.lines();
        bench = Bench::master(protected(150));
        lines
    };
    let high = || Forged::with_priority(200);
    for (packet, text) in [
        (
            forged(|f| f.ttl = 64),
            "invalid TTL/HL. Received 64 and expect 255",
        ),
        (
            high().byte(0, 0x31).packet(),
            "wrong version. Received 3 and expect 2",
        ),
        (
            high().byte(4, 0).packet(),
            "received a 0 auth, expecting 1!",
        ),
        (high().byte(16, 0).packet(), "received an invalid passwd!"),
        (
            high().byte(5, 3).packet(),
            "advertisement interval mismatch mine=1 sec rcv'd=3 sec",
        ),
        (
            high().byte(0, 0x22).packet(),
            "Invalid packet type. 2 and expect 1",
        ),
        (
            forged(|f| {
                f.fix_checksum = false;
                f.message[7] ^= 1;
            }),
            "Invalid VRRPv2 checksum",
        ),
        (
            forged(|f| f.message.truncate(10)),
            "vrrp packet too short, length 30 and expect 44",
        ),
        (
            high().byte(3, 0).packet(),
            "vrrp packet too long, length 44 and expect 36",
        ),
    ] {
        assert_eq!(said(packet), [format!("(VI_1) {text}")]);
    }
    assert!(
        said(high().byte(1, 52).packet()).is_empty(),
        "other groups are not our business"
    );
}

#[test]
fn each_sender_is_told_once_for_each_reason_and_counted_always() {
    let mut bench = Bench::master(protected(150));
    let wrong = Forged::with_priority(200).byte(16, 0);
    for _ in 0..1000 {
        bench
            .router
            .handle_packet(bench.now, ETH, &wrong.clone().packet());
    }
    assert_eq!(bench.lines().len(), 1);
    let mut elsewhere = wrong.clone();
    elsewhere.source = Ipv4Addr::new(192, 0, 2, 10);
    bench
        .router
        .handle_packet(bench.now, ETH, &elsewhere.packet());
    assert_eq!(bench.lines().len(), 1);
    bench
        .router
        .handle_packet(bench.now, ETH, &wrong.clone().byte(5, 9).packet());
    assert_eq!(
        bench.lines().len(),
        0,
        "the password is judged before the interval"
    );
    assert_eq!(
        bench.status().counters.rejected(RejectReason::Password),
        1002
    );
    bench.wait(secs(3601));
    bench.router.handle_packet(bench.now, ETH, &wrong.packet());
    assert_eq!(bench.lines().len(), 1, "once more an hour later");
}

#[test]
fn other_addresses_are_told_and_counted_but_accepted() {
    let mut bench = Bench::with_priority(100);
    bench.actions();
    let mut other = settings(1, 200);
    other.addresses.swap(0, 1);
    let mut send = |addresses: &[Ipv4Addr]| {
        let repr = AdvertRepr {
            vrid: VRID,
            priority: 200,
            interval: 1,
            password: None,
            addresses,
        };
        let source = address(1);
        let packet = repr.emit(&Envelope {
            source,
            destination: GROUP,
            ttl: 255,
            id: 1,
        });
        let verdict = bench.router.handle_packet(bench.now, ETH, &packet);
        assert_eq!(verdict, Reception::Accepted(bench.id));
        (
            bench.lines(),
            bench.status().counters.address_list_mismatches,
        )
    };
    assert_eq!(
        send(&other.addresses),
        (vec![], 0),
        "the order does not matter"
    );
    let (lines, count) = send(&other.addresses[..1]);
    assert_eq!(lines, ["(VI_1) expected 2 VIPs but received 1"]);
    assert_eq!(count, 1);
    other.addresses[0] = Ipv4Addr::new(198, 51, 100, 99);
    assert_eq!(send(&other.addresses), (vec![], 2), "told once");
}

#[test]
fn a_missing_address_is_named() {
    let mut bench = Bench::with_priority(100);
    bench.actions();
    let addresses = [
        Ipv4Addr::new(198, 51, 100, 10),
        Ipv4Addr::new(198, 51, 100, 99),
    ];
    let repr = AdvertRepr {
        vrid: VRID,
        priority: 200,
        interval: 1,
        password: None,
        addresses: &addresses,
    };
    let envelope = Envelope {
        source: address(1),
        destination: GROUP,
        ttl: 255,
        id: 1,
    };
    bench
        .router
        .handle_packet(bench.now, ETH, &repr.emit(&envelope));
    assert_eq!(
        bench.lines(),
        [
            "(VI_1) ip address 198.51.100.11 associated with VRID 51 not present in MASTER advert: \
          192.0.2.2"
        ]
    );
}

#[test]
fn skip_check_adv_addr_exempts_the_current_master_only() {
    let mut lenient = settings(0, 100);
    lenient.skip_check_addresses = true;
    lenient.addresses.pop();
    let mut bench = Bench::new(lenient);
    bench.actions();
    for expected in [1, 1, 1] {
        bench.hear(1, 200);
        assert_eq!(bench.status().counters.address_list_mismatches, expected);
    }
    bench.hear(2, 200);
    assert_eq!(bench.status().counters.address_list_mismatches, 2);
}

#[test]
fn an_open_instance_refuses_a_password() {
    let mut bench = Bench::master(settings(0, 150));
    let packet = Forged::with_priority(200).packet();
    let verdict = bench.router.handle_packet(bench.now, ETH, &packet);
    assert_eq!(verdict, Reception::Rejected(RejectReason::AuthTypeMismatch));
    assert_eq!(bench.lines(), ["(VI_1) received a 1 auth, expecting 0!"]);
}

#[test]
fn unicast_hears_its_peers_at_its_own_address_whatever_the_ttl() {
    let transport = |check_source| Transport::Unicast {
        peers: vec![Ipv4Addr::new(192, 0, 2, 9)],
        ttl: 64,
        check_source,
    };
    let unicast = |check_source| Settings {
        transport: transport(check_source),
        ..protected(150)
    };
    let packet = |source: [u8; 4], destination| {
        let mut forged = Forged::with_priority(200);
        (forged.source, forged.destination, forged.ttl) = (source.into(), destination, 3);
        forged.packet()
    };
    let verdict = |settings: Settings, packet: Vec<u8>| {
        let mut bench = Bench::master(settings);
        bench.router.handle_packet(bench.now, ETH, &packet)
    };
    let (peer, stranger) = ([192, 0, 2, 9], [192, 0, 2, 8]);
    let accepted = |verdict| matches!(verdict, Reception::Accepted(_));
    assert!(accepted(verdict(unicast(true), packet(peer, address(0)))));
    assert!(accepted(verdict(
        unicast(false),
        packet(stranger, address(0))
    )));
    assert_eq!(
        verdict(unicast(true), packet(stranger, address(0))),
        Reception::Rejected(RejectReason::SourceNotPeer)
    );
    assert_eq!(
        verdict(unicast(true), packet(peer, GROUP)),
        Reception::Rejected(RejectReason::Destination)
    );
}

#[test]
fn unicast_sends_a_copy_to_each_peer() {
    let peers = vec![address(1), address(2)];
    let transport = Transport::Unicast {
        peers: peers.clone(),
        ttl: 64,
        check_source: true,
    };
    let mut bench = Bench::new(Settings {
        transport,
        ..settings(0, 150)
    });
    bench.fire();
    let mut sent = Vec::new();
    for action in bench.actions() {
        if let Action::Send {
            destination,
            packet,
        } = action
        {
            let datagram = Datagram::parse(&packet).unwrap();
            assert_eq!(datagram.destination, destination);
            sent.push((destination, datagram.ttl, datagram.id));
        }
    }
    assert_eq!(sent, [(peers[0], 64, 1), (peers[1], 64, 2)]);
    assert_eq!(bench.status().counters.adverts_sent, 1);
}

#[test]
fn another_interface_is_another_link() {
    let mut bench = Bench::with_priority(100);
    let verdict = bench
        .router
        .handle_packet(bench.now, ETH + 1, &advert(1, 200));
    assert_eq!(verdict, Reception::Rejected(RejectReason::UnknownVrid));
    assert_eq!(bench.router.strays(RejectReason::UnknownVrid), 1);
}

#[test]
fn reasons_have_distinct_names_and_places() {
    for (place, reason) in RejectReason::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, place);
        let same = RejectReason::ALL
            .iter()
            .filter(|other| other.name() == reason.name());
        assert_eq!(same.count(), 1, "{reason}");
    }
}

proptest! {
    /// Whatever is done to a good advert, it is either as good as before or changes nothing.
    #[test]
    fn a_mutated_advert_is_refused_or_harmless(
        priority: u8,
        flips in proptest::collection::vec((0..44_usize, 1..=255_u8), 1..4),
        cut in 0..44_usize,
        extend in 0..60_usize,
        master: bool,
    ) {
        let mut packet = Forged::with_priority(priority).packet();
        for (at, flip) in flips {
            packet[at] ^= flip;
        }
        packet.truncate(44 - cut.saturating_sub(20));
        packet.resize(packet.len() + extend, 0xee);
        let mut bench = if master {
            Bench::master(protected(150))
        } else {
            Bench::new(protected(150))
        };
        bench.actions();
        let before = (bench.state(), bench.router.poll_timeout(), bench.status().master);
        if let Reception::Rejected(_) = bench.router.handle_packet(bench.now, ETH, &packet) {
            let after = (bench.state(), bench.router.poll_timeout(), bench.status().master);
            prop_assert_eq!(before, after);
            prop_assert!(bench.actions().iter().all(|action| matches!(action, Action::Log(_))));
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let mut bench = Bench::master(settings(0, 150));
        bench.router.handle_packet(bench.now, ETH, &bytes);
        prop_assert_eq!(bench.state(), State::Master);
    }
}
