//! lb_kind DR, and what holds for every kind: frames that go nowhere, full rings, resets, a worker's end.

use etherparse::PacketBuilder;

use super::*;

#[test]
fn direct_routing_changes_stations_and_ttl_and_nothing_else() {
    let plain = segment(CLIENT, 4000, Say::Syn);
    let mut padded = segment(CLIENT, 4001, Say::Syn);
    padded.extend([0; 17]);
    let customer = tagged(&plain, 0x8100);
    for (name, frame, network) in [
        ("plain", plain.clone(), 14),
        ("padded", padded, 14),
        ("one tag", customer.clone(), 18),
        ("two tags", tagged(&customer, 0x88a8), 22),
        ("IP options", with_options(&plain), 14),
        ("lowest TTL", build(CLIENT, 4002, Say::Syn, b"", 2), 14),
        (
            "a full frame",
            build(CLIENT, 4003, Say::Syn, &[7; 1460], 255),
            14,
        ),
    ] {
        let mut lab = Lab::new(service(vec![real(11)]));
        assert_eq!(
            lab.send(&frame),
            Some((EGRESS, routed(&frame, network, 11))),
            "{name}"
        );
        lab.assert_counts(11, 1, 0);
        let counters = lab.stats.real(11);
        assert_eq!((counters.connections.get(), counters.packets.get()), (1, 1));
        let ip_length = u16::from_be_bytes([frame[network + 2], frame[network + 3]]);
        assert_eq!(counters.bytes.get(), u64::from(ip_length));
        assert_eq!(
            (lab.stats.frames_in.get(), lab.stats.frames_out.get()),
            (1, 1)
        );
        assert_eq!(lab.stats.bytes_in.get(), frame.len() as u64);
    }
}

#[test]
fn every_frame_that_goes_nowhere_is_counted_by_its_reason() {
    use DropReason as D;
    let good = segment(CLIENT, 4000, Say::Syn);
    let edit = |at: usize, bytes: &[u8]| {
        let mut frame = good.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        if at >= 14 {
            fix_ip_checksum(&mut frame, 20);
        }
        frame
    };
    let mut broken = good.clone();
    broken[22] = 9;
    for (frame, reason) in [
        (good[..13].to_vec(), D::FrameTooShort),
        (edit(12, &[0x86, 0xdc]), D::EtherType),
        (good[..30].to_vec(), D::Ipv4Header),
        (good[..good.len() - 1].to_vec(), D::Ipv4Length),
        (broken, D::Ipv4Checksum),
        (edit(26, &[224]), D::SourceAddress),
        (edit(26, &[255, 255, 255, 255]), D::SourceAddress),
        (edit(26, &[127]), D::SourceAddress),
        (edit(0, &[0xff; 6]), D::GroupFrame),
        (edit(23, &[50]), D::Protocol),
        (edit(46, &[0x40]), D::TcpHeader),
        (edit(36, &[0, 81]), D::NoService),
        (segment(CLIENT, 4000, Say::Rst), D::UnknownReset),
    ] {
        Lab::new(service(vec![real(11)])).assert_dropped(&frame, reason);
    }
    let unresolved = RealSpec {
        hop: NOWHERE,
        ..real(11)
    };
    let mut lab = Lab::new(service(vec![unresolved]));
    assert!(lab.worker.io_mut().inject(INGRESS, &good));
    assert_eq!(lab.worker.turn(lab.now), 1);
    assert_eq!(lab.worker.account().in_hand, 1, "it waits");
    lab.advance(3);
    lab.worker.turn(lab.now);
    assert!(lab.worker.account().is_settled());
    assert_eq!(lab.stats.drops(D::NoNextHop).get(), 1);
}

#[test]
fn what_the_kernel_refuses_at_the_flush_is_dropped_and_not_sent() {
    let mut lab = Lab::new(service(vec![real(11)]));
    for port in 0..5 {
        let frame = segment(CLIENT, port, Say::Syn);
        assert!(lab.worker.io_mut().inject(INGRESS, &frame));
    }
    lab.worker.io_mut().refuse(2);
    assert_eq!(lab.worker.turn(lab.now), 5);
    assert_eq!(lab.stats.frames_out.get(), 3);
    assert_eq!(lab.stats.drops(DropReason::TransmitFull).get(), 2);
    assert_eq!(lab.worker.io_mut().discard(), 3);
    assert!(lab.worker.account().is_settled());
}

#[test]
fn a_full_transmit_ring_costs_the_frame_and_no_more() {
    let mut lab = Lab::new(service(vec![real(11)]));
    for port in 0..70 {
        assert!(
            lab.worker
                .io_mut()
                .inject(INGRESS, &segment(CLIENT, port, Say::Syn))
        );
    }
    assert_eq!(
        (lab.worker.turn(lab.now), lab.worker.turn(lab.now)),
        (64, 6)
    );
    assert_eq!(lab.stats.drops(DropReason::TransmitFull).get(), 6);
    assert_eq!(lab.worker.io_mut().discard(), 64);
    assert!(lab.worker.account().is_conserved());
}

#[test]
fn a_segment_of_an_unknown_flow_is_reset() {
    let strangers = [
        (build(CLIENT, 4000, Say::Ack, b"hello", 64), 5000, 0, false),
        (build(CLIENT, 4000, Say::Fin, b"", 64), 5000, 0, false),
        (
            with_options(&build(CLIENT, 4000, Say::Ack, b"hello", 64)),
            5000,
            0,
            false,
        ),
    ];
    let mut nothing = build(CLIENT, 4000, Say::Rst, b"hello", 64);
    nothing[47] = 0x01;
    let cases = strangers.into_iter().chain([(nothing, 0, 1006, true)]);
    for (frame, sequence, acknowledgment, ack) in cases {
        let mut lab = Lab::new(service(vec![real(11)]));
        let (port, answer) = lab.send(&frame).unwrap();
        assert_eq!(port, INGRESS);
        let tcp = PacketBuilder::ethernet2(OUR_MAC, ROUTER_MAC)
            .ip(etherparse::IpHeaders::Ipv4(
                {
                    let tcp = etherparse::IpNumber::TCP;
                    let mut ip = etherparse::Ipv4Header::new(0, 64, tcp, VIP, CLIENT).unwrap();
                    ip.dont_fragment = true;
                    ip
                },
                etherparse::Ipv4Extensions::default(),
            ))
            .tcp(80, 4000, sequence, 0)
            .rst();
        let tcp = if ack { tcp.ack(acknowledgment) } else { tcp };
        let mut expected = Vec::new();
        tcp.write(&mut expected, &[]).unwrap();
        assert_eq!(answer, expected);
        assert_eq!(lab.stats.replies(ReplyReason::UnknownFlow).get(), 1);
        assert_eq!(lab.stats.dropped(), 0);
        let tagged = tagged(&frame, 0x8100);
        let (_, answer) = lab.send(&tagged).unwrap();
        assert_eq!(&answer[12..18], &tagged[12..18], "the tag stays");
        assert_eq!(answer[18..], expected[14..]);
    }
}

#[test]
fn a_connection_is_counted_through_its_life() {
    let mut lab = Lab::new(service(vec![real(11)]));
    let say = |lab: &mut Lab, what, active, inactive| {
        assert_eq!(lab.reaches(&segment(CLIENT, 4000, what)), Some(11));
        lab.assert_counts(11, active, inactive);
    };
    say(&mut lab, Say::Syn, 1, 0);
    say(&mut lab, Say::Ack, 1, 0);
    lab.advance(899);
    say(&mut lab, Say::Ack, 1, 0);
    say(&mut lab, Say::Fin, 0, 1);
    lab.advance(119);
    say(&mut lab, Say::Ack, 0, 1);
    lab.advance(120);
    // The sweep finds it without a packet, in its own time.
    for _ in 0..10 {
        lab.advance(1);
        lab.worker.turn(lab.now);
    }
    lab.assert_counts(11, 0, 0);
    assert!(lab.worker.balancer().conns().is_empty());
    assert_eq!(lab.stats.connections.get(), 0);
}

#[test]
fn a_worker_stops_when_it_is_told_and_has_every_frame() {
    let mut lab = Lab::new(service(vec![real(11)]));
    assert!(
        lab.worker
            .io_mut()
            .inject(INGRESS, &segment(CLIENT, 1, Say::Syn))
    );
    let (stop, calls) = (AtomicBool::new(false), std::cell::Cell::new(0_u64));
    let clock = || {
        calls.set(calls.get() + 1);
        stop.store(calls.get() == 200, Ordering::Relaxed);
        Instant::from_nanos(calls.get() * 1_000_000)
    };
    lab.worker.run(clock, &stop).unwrap();
    assert_eq!((calls.get(), lab.stats.frames_out.get()), (200, 1));
    let mut io = lab.worker.into_io();
    io.discard();
    let account = io.account();
    assert_eq!(
        (account.free, account.total),
        (account.total, 2 * BURST as u64)
    );
}
