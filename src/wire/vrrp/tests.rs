use proptest::prelude::*;

use super::*;
use crate::wire::pcap;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(u8::is_ascii_hexdigit)
        .map(|c| (c as char).to_digit(16).unwrap().try_into().unwrap())
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

struct Golden {
    name: &'static str,
    source: &'static str,
    destination: &'static str,
    id: u16,
    vrid: u8,
    priority: u8,
    password: Option<&'static [u8; 8]>,
    addresses: &'static [&'static str],
    /// Header where it is known, then the message; the last part alone is compared otherwise.
    bytes: &'static str,
}

/// Adverts of a real keepalived 2.2.7.
const GOLDEN: &[Golden] = &[
    Golden {
        name: "no authentication",
        source: "192.0.2.1",
        destination: "224.0.0.18",
        id: 1,
        vrid: 51,
        priority: 150,
        password: None,
        addresses: &["198.51.100.10", "198.51.100.11"],
        bytes: "45c0002c 00010000 ff70188d c0000201 e0000012
                21339602 0001f44b c633640a c633640b 00000000 00000000",
    },
    Golden {
        name: "password",
        source: "192.0.2.1",
        destination: "224.0.0.18",
        id: 1,
        vrid: 51,
        priority: 150,
        password: Some(b"s3cr3t78"),
        addresses: &["198.51.100.10", "198.51.100.11"],
        bytes: "45c0002c 00010000 ff70188d c0000201 e0000012
                21339602 0101b1f9 c633640a c633640b 73336372 33743738",
    },
    Golden {
        name: "password, unicast",
        source: "192.0.2.1",
        destination: "192.0.2.2",
        id: 1,
        vrid: 51,
        priority: 150,
        password: Some(b"s3cr3t78"),
        addresses: &["198.51.100.10", "198.51.100.11"],
        bytes: "45c0002c 00010000 ff70369d c0000201 c0000202
                21339602 0101b1f9 c633640a c633640b 73336372 33743738",
    },
    Golden {
        name: "priority 0",
        source: "192.0.2.1",
        destination: "224.0.0.18",
        id: 6,
        vrid: 51,
        priority: 0,
        password: None,
        addresses: &["198.51.100.10", "198.51.100.11"],
        bytes: "45c0002c 00060000 ff701888 c0000201 e0000012
                21330002 00018a4c c633640a c633640b 00000000 00000000",
    },
    Golden {
        name: "one address",
        source: "10.9.0.1",
        destination: "224.0.0.18",
        id: 1,
        vrid: 64,
        priority: 200,
        password: None,
        addresses: &["10.9.0.112"],
        bytes: "2140c80100010c44 0a090070 0000000000000000",
    },
    Golden {
        name: "password, two addresses",
        source: "10.9.0.1",
        destination: "224.0.0.18",
        id: 1,
        vrid: 51,
        priority: 150,
        password: Some(b"1111abcd"),
        addresses: &["10.9.0.100", "10.9.0.101"],
        bytes: "2133960201010bc5 0a090064 0a090065 3131313161626364",
    },
    Golden {
        name: "password, one address",
        source: "10.9.0.2",
        destination: "224.0.0.18",
        id: 1,
        vrid: 61,
        priority: 100,
        password: Some(b"secret12"),
        addresses: &["10.9.0.100"],
        bytes: "213d6401010101d5 0a090064 7365637265743132",
    },
    Golden {
        name: "unicast",
        source: "10.9.0.1",
        destination: "10.9.0.2",
        id: 1,
        vrid: 62,
        priority: 200,
        password: None,
        addresses: &["10.9.0.110"],
        bytes: "213ec80100010c48 0a09006e 0000000000000000",
    },
    Golden {
        name: "priority 0, one address",
        source: "10.9.0.1",
        destination: "224.0.0.18",
        id: 1,
        vrid: 64,
        priority: 0,
        password: None,
        addresses: &["10.9.0.112"],
        bytes: "214000010001d444 0a090070 0000000000000000",
    },
];

#[test]
fn adverts_are_those_of_keepalived_byte_for_byte() {
    for golden in GOLDEN {
        let addresses: Vec<Ipv4Addr> = golden.addresses.iter().map(|text| ip(text)).collect();
        let repr = AdvertRepr {
            vrid: golden.vrid,
            priority: golden.priority,
            interval: 1,
            password: golden.password.copied(),
            addresses: &addresses,
        };
        let packet = repr.emit(&Envelope {
            source: ip(golden.source),
            destination: ip(golden.destination),
            ttl: TTL,
            id: golden.id,
        });
        let expected = hex(golden.bytes);
        let tail = &packet[packet.len() - expected.len()..];
        assert_eq!(tail, expected, "{}", golden.name);
        assert!(checksum::is_valid(&packet[..20]), "{}", golden.name);
    }
}

/// Emits again what was read.
fn reemit(datagram: &Datagram<'_>, advert: &AdvertView<'_>) -> Vec<u8> {
    let addresses: Vec<Ipv4Addr> = advert.addresses().collect();
    let repr = AdvertRepr {
        vrid: advert.vrid,
        priority: advert.priority,
        interval: advert.interval,
        password: (advert.auth_type == AUTH_PASS).then_some(advert.auth_data),
        addresses: &addresses,
    };
    repr.emit(&Envelope {
        source: datagram.source,
        destination: datagram.destination,
        ttl: datagram.ttl,
        id: datagram.id,
    })
}

#[test]
fn every_captured_advert_is_read_and_emitted_again() {
    for (name, count, capture) in pcap::CAPTURES {
        let adverts: Vec<Vec<u8>> = pcap::ipv4_packets(capture, PROTOCOL);
        assert_eq!(adverts.len(), *count, "{name}");
        for packet in adverts {
            let datagram = Datagram::parse(&packet).unwrap();
            let advert = AdvertView::parse(datagram.payload).unwrap();
            assert_eq!(reemit(&datagram, &advert), packet, "{name}");
        }
    }
}

#[test]
fn padding_and_options_are_not_part_of_the_message() {
    let plain = hex(GOLDEN[0].bytes);
    let mut padded = plain.clone();
    padded.extend([0xaa; 6]);
    assert_eq!(Datagram::parse(&padded).unwrap().payload, &plain[20..]);

    let mut optioned = plain[..20].to_vec();
    optioned[0] = 0x46;
    optioned[3] += 4;
    optioned.extend([0x94, 0x04, 0, 0]);
    optioned.extend(&plain[20..]);
    let datagram = Datagram::parse(&optioned).unwrap();
    assert_eq!(datagram.header_len, 24);
    assert!(AdvertView::parse(datagram.payload).is_ok());
}

#[test]
fn what_is_not_a_whole_ipv4_packet_is_refused() {
    let good = hex(GOLDEN[0].bytes);
    let spoilt = |at: usize, value: u8| {
        let mut packet = good.clone();
        packet[at] = value;
        packet
    };
    assert!(Datagram::parse(&good).is_some());
    assert!(Datagram::parse(&good[..good.len() - 1]).is_none(), "cut");
    assert!(Datagram::parse(&good[..19]).is_none(), "half a header");
    assert!(Datagram::parse(&spoilt(0, 0x65)).is_none(), "version 6");
    assert!(Datagram::parse(&spoilt(0, 0x44)).is_none(), "IHL 4");
    assert!(
        Datagram::parse(&spoilt(0, 0x4f)).is_none(),
        "IHL past the end"
    );
    assert!(
        Datagram::parse(&spoilt(3, 19)).is_none(),
        "total length in the header"
    );
    assert!(
        Datagram::parse(&spoilt(6, 0x20)).is_none(),
        "first fragment"
    );
    assert!(
        Datagram::parse(&spoilt(7, 0x01)).is_none(),
        "later fragment"
    );
    assert!(
        Datagram::parse(&spoilt(6, 0x40)).is_some(),
        "DF is no fragment"
    );
}

#[test]
fn the_form_of_an_advert_is_checked_in_order() {
    let good = hex(GOLDEN[0].bytes)[20..].to_vec();
    let error = |at: usize, value: u8| {
        let mut message = good.clone();
        message[at] = value;
        AdvertView::parse(&message).err()
    };
    assert_eq!(error(0, 0x31), Some(Malformed::Version(3)));
    assert_eq!(error(0, 0x22), Some(Malformed::Kind(2)));
    let (received, expected) = (24, 28);
    assert_eq!(error(3, 3), Some(Malformed::Length { received, expected }));
    assert_eq!(error(6, 0), Some(Malformed::Checksum));
    assert_eq!(
        error(23, 1),
        Some(Malformed::Checksum),
        "authentication data"
    );
    assert_eq!(AdvertView::parse(&[]).err(), Some(Malformed::Version(0)));
    let (received, expected) = (7, 24);
    let short = AdvertView::parse(&good[..7]).err();
    assert_eq!(short, Some(Malformed::Length { received, expected }));
}

#[test]
fn addresses_after_the_255th_are_left_out() {
    let addresses: Vec<Ipv4Addr> = (0..300).map(|n| Ipv4Addr::from(0x0a00_0000 + n)).collect();
    let repr = AdvertRepr {
        vrid: 1,
        priority: 1,
        interval: 1,
        password: None,
        addresses: &addresses,
    };
    let envelope = Envelope {
        source: ip("10.0.0.1"),
        destination: GROUP,
        ttl: TTL,
        id: 1,
    };
    let packet = repr.emit(&envelope);
    let datagram = Datagram::parse(&packet).unwrap();
    let advert = AdvertView::parse(datagram.payload).unwrap();
    assert!(
        advert
            .addresses()
            .eq(addresses[..MAX_ADDRESSES].iter().copied())
    );
}

proptest! {
    #[test]
    fn what_is_emitted_is_read_back(
        vrid in 1..=255_u8,
        priority: u8,
        interval in 1..=255_u8,
        password in proptest::option::of(any::<[u8; 8]>()),
        addresses in proptest::collection::vec(any::<u32>().prop_map(Ipv4Addr::from), 0..=255),
        source in any::<u32>().prop_map(Ipv4Addr::from),
        id: u16,
        ttl: u8,
        padding in 0..20_usize,
    ) {
        let repr = AdvertRepr { vrid, priority, interval, password, addresses: &addresses };
        let envelope = Envelope { source, destination: GROUP, ttl, id };
        let packet = repr.emit(&envelope);
        let (header, _) = etherparse::Ipv4Header::from_slice(&packet).unwrap();
        prop_assert_eq!(header.calc_header_checksum(), header.header_checksum);
        prop_assert_eq!(usize::from(header.total_len), packet.len());
        let mut padded = packet.clone();
        padded.resize(packet.len() + padding, 0);
        let datagram = Datagram::parse(&padded).unwrap();
        prop_assert_eq!((datagram.source, datagram.id, datagram.ttl), (source, id, ttl));
        let advert = AdvertView::parse(datagram.payload).unwrap();
        prop_assert!(advert.addresses().eq(addresses.iter().copied()));
        prop_assert_eq!(reemit(&datagram, &advert), packet);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Some(datagram) = Datagram::parse(&bytes) {
            let _ = AdvertView::parse(datagram.payload).map(|advert| advert.addresses().count());
        }
        let _ = AdvertView::parse(&bytes).map(|advert| advert.addresses().count());
    }
}
