//! NAT against frames that etherparse builds for the other addresses and ports.

use std::net::IpAddr;

use proptest::prelude::*;

use super::{
    super::{fixtures::*, *},
    *,
};

/// What `spec` is after its way through NAT.
fn translated(spec: &Spec, source: bool, to: (IpAddr, u16)) -> Vec<u8> {
    let mut after = spec.clone();
    if source {
        (after.source, after.ports[0]) = to;
    } else {
        (after.destination, after.ports[1]) = to;
    }
    after.ttl -= 1;
    let mut frame = after.frame();
    frame[..6].copy_from_slice(&HOP.destination.0);
    frame[6..12].copy_from_slice(&HOP.source.0);
    frame
}

fn to_real(frame: &mut [u8], spec: &Spec, real: (IpAddr, u16)) -> Result<(), Refused> {
    match real.0 {
        IpAddr::V4(address) => nat_to_real(frame, &spec.place(), (address, real.1), &HOP),
        IpAddr::V6(address) => nat_to_real(frame, &spec.place(), (address, real.1), &HOP),
    }
}

fn to_client(frame: &mut [u8], spec: &Spec, vip: (IpAddr, u16)) -> Result<(), Refused> {
    match vip.0 {
        IpAddr::V4(address) => nat_to_client(frame, &spec.place(), (address, vip.1), &HOP),
        IpAddr::V6(address) => nat_to_client(frame, &spec.place(), (address, vip.1), &HOP),
    }
}

fn real_of(spec: &Spec) -> IpAddr {
    match spec.source {
        IpAddr::V4(_) => REAL4.into(),
        IpAddr::V6(_) => REAL6.into(),
    }
}

const PROTOCOLS: [L4Proto; 3] = [L4Proto::Tcp, L4Proto::Udp, L4Proto::Sctp];

/// Every protocol in both families; plain, with options, with one and two tags, with padding.
fn table() -> Vec<Spec> {
    let mut specs = Vec::new();
    for six in [false, true] {
        for protocol in PROTOCOLS {
            let plain = Spec::new(six, protocol);
            for (options, tags, padding) in
                [(false, 0, 0), (true, 0, 5), (false, 1, 0), (true, 2, 46)]
            {
                specs.push(Spec {
                    options,
                    tags,
                    padding,
                    ..plain.clone()
                });
            }
        }
    }
    specs
}

#[test]
fn a_packet_to_the_real_server_is_the_one_that_etherparse_builds() {
    for spec in table() {
        let real = (real_of(&spec), 8080);
        let mut frame = spec.frame();
        to_real(&mut frame, &spec, real).unwrap();
        assert_eq!(frame, translated(&spec, false, real), "{spec:?}");
    }
}

#[test]
fn a_packet_to_the_client_is_the_one_that_etherparse_builds() {
    for spec in table() {
        let vip = (real_of(&spec), 443);
        let mut frame = spec.frame();
        to_client(&mut frame, &spec, vip).unwrap();
        assert_eq!(frame, translated(&spec, true, vip), "{spec:?}");
    }
}

#[test]
fn a_datagram_without_a_sum_stays_without() {
    for six in [false, true] {
        let spec = Spec {
            no_sum: true,
            ..Spec::new(six, L4Proto::Udp)
        };
        let real = (real_of(&spec), 8080);
        let mut frame = spec.frame();
        to_real(&mut frame, &spec, real).unwrap();
        assert_eq!(frame, translated(&spec, false, real));
    }
}

/// The data is chosen so that the sum over the translated datagram is 0, which goes out as 0xffff.
#[test]
fn a_sum_that_comes_to_zero_goes_out_as_all_ones() {
    let real = (IpAddr::from(REAL4), 8080);
    let mut spec = Spec::new(false, L4Proto::Udp);
    spec.data = vec![0, 0];
    let probe = translated(&spec, false, real);
    let sum = u16::from_be_bytes([probe[40], probe[41]]);
    spec.data = sum.to_be_bytes().to_vec();
    let mut frame = spec.frame();
    to_real(&mut frame, &spec, real).unwrap();
    assert_eq!(frame[40..42], [0xff, 0xff]);
    assert_eq!(frame, translated(&spec, false, real));
}

#[test]
fn a_wrong_sum_stays_wrong() {
    for spec in table() {
        let real = (real_of(&spec), 8080);
        let mut frame = spec.frame();
        let last = frame.len() - 1 - spec.padding;
        frame[last] ^= 0x10;
        to_real(&mut frame, &spec, real).unwrap();
        let mut expected = translated(&spec, false, real);
        expected[last] ^= 0x10;
        assert_eq!(frame, expected, "{spec:?}");
    }
}

#[test]
fn fragments_change_what_they_have() {
    for six in [false, true] {
        for protocol in PROTOCOLS {
            let mut spec = Spec {
                part: Part::First,
                ..Spec::new(six, protocol)
            };
            let real = (real_of(&spec), 8080);
            let mut frame = spec.frame();
            let outcome = to_real(&mut frame, &spec, real);
            if protocol == L4Proto::Sctp {
                assert_eq!(outcome, Err(Refused::SctpFragment));
                let same_port = (real.0, spec.ports[1]);
                to_real(&mut frame, &spec, same_port).unwrap();
                assert_eq!(frame, translated(&spec, false, same_port));
            } else {
                // The checksum is over more than this fragment: it changes by the same amount.
                assert_eq!(outcome, Ok(()));
                assert_eq!(frame, translated(&spec, false, real));
            }
            spec.part = Part::Later;
            // What looks like ports is data.
            let before = spec.frame();
            let mut frame = before.clone();
            to_real(&mut frame, &spec, real).unwrap();
            let data = 14 + usize::from(spec.place().transport);
            assert_eq!(frame[data..], before[data..]);
            let headers = translated(&spec, false, real);
            assert_eq!(frame[..data], headers[..data]);
        }
    }
}

#[test]
fn a_frame_that_ends_in_a_header_is_refused() {
    for spec in table() {
        let whole = spec.frame();
        let real = (real_of(&spec), 8080);
        let needed = usize::from(spec.network())
            + usize::from(spec.place().transport)
            + match spec.protocol {
                L4Proto::Tcp => 18,
                L4Proto::Udp => 8,
                L4Proto::Sctp => 12,
            };
        for length in 0..needed {
            let refused = to_real(&mut whole[..length].to_vec(), &spec, real);
            assert!(refused.is_err(), "{length} bytes");
        }
    }
}

fn some_place() -> impl Strategy<Value = Place> {
    (
        any::<u8>(),
        0_u16..120,
        prop::sample::select(PROTOCOLS.to_vec()),
        prop::sample::select(vec![Part::Whole, Part::First, Part::Later]),
    )
        .prop_map(|(network, transport, protocol, part)| Place {
            network: network % 40,
            transport,
            protocol,
            part,
        })
}

proptest! {
    #[test]
    fn there_and_back_is_the_identity_but_for_the_ttl(
        six: bool,
        protocol in prop::sample::select(PROTOCOLS.to_vec()),
        ports: [u16; 2],
        real4: [u8; 4],
        real6: [u8; 16],
        port: u16,
        data in proptest::collection::vec(any::<u8>(), 4..200),
        options: bool,
        tags in 0_usize..3,
    ) {
        let spec = Spec { ports, data, options, tags, ..Spec::new(six, protocol) };
        let real: IpAddr = if six { real6.into() } else { real4.into() };
        let mut frame = spec.frame();
        to_real(&mut frame, &spec, (real, port)).unwrap();
        prop_assert_eq!(&frame, &translated(&spec, false, (real, port)));
        to_real(&mut frame, &spec, (spec.destination, ports[1])).unwrap();
        let mut expected = Spec { ttl: spec.ttl - 2, ..spec.clone() }.frame();
        expected[..12].copy_from_slice(&frame[..12]);
        prop_assert_eq!(frame, expected);
    }

    #[test]
    fn random_bytes_at_random_places_never_panic(
        mut frame in proptest::collection::vec(any::<u8>(), 0..200),
        place in some_place(),
    ) {
        let _ = nat_to_real(&mut frame, &place, (REAL4, 1), &HOP);
        let _ = nat_to_client(&mut frame, &place, (REAL4, 1), &HOP);
        let _ = nat_to_real(&mut frame, &place, (REAL6, 1), &HOP);
        let _ = nat_to_client(&mut frame, &place, (REAL6, 1), &HOP);
    }
}
