//! Sizes. The MTUs that IPVS tells are in `ipvs_tests`.

use etherparse::{IpNumber, SlicedPacket, defrag::IpDefragPool};
use proptest::prelude::*;

use super::{
    super::{fixtures::*, *},
    *,
};
use crate::addr::L4Proto;

const IPIP4: Option<(Family, TunnelKind)> = Some((Family::V4, TunnelKind::Ipip));
const IPIP6: Option<(Family, TunnelKind)> = Some((Family::V6, TunnelKind::Ipip));

const fn passage(
    family: Family,
    length: usize,
    dont_fragment: bool,
    path_mtu: u16,
    tunnel: Option<(Family, TunnelKind)>,
) -> Passage {
    Passage {
        family,
        length,
        dont_fragment,
        silent: false,
        path_mtu,
        tunnel,
    }
}

#[test]
fn sizes_are_judged_as_ipvs_judges_them() {
    use Family::{V4, V6};
    for (passage, expected) in [
        (passage(V4, 1500, true, 1500, None), Fit::Forward),
        (passage(V4, 1501, true, 1500, None), Fit::TooBig(1500)),
        (passage(V4, 1501, false, 1500, None), Fit::Split(1500)),
        (passage(V6, 1501, false, 1500, None), Fit::TooBig(1500)),
        (passage(V4, 1480, true, 1500, IPIP4), Fit::Forward),
        (passage(V4, 1481, true, 1500, IPIP4), Fit::TooBig(1480)),
        (passage(V4, 1481, false, 1500, IPIP4), Fit::SplitOuter(1500)),
        (passage(V4, 1460, true, 1500, IPIP6), Fit::Forward),
        (passage(V4, 1461, true, 1500, IPIP6), Fit::TooBig(1460)),
        (passage(V4, 1461, false, 1500, IPIP6), Fit::Split(1460)),
        (passage(V6, 1481, false, 1500, IPIP4), Fit::TooBig(1480)),
        (passage(V6, 1461, false, 1500, IPIP6), Fit::TooBig(1460)),
        // Below what the families guarantee.
        (passage(V4, 40, true, 87, IPIP4), Fit::Drop),
        (passage(V4, 40, true, 88, IPIP4), Fit::Forward),
        // IPVS drops these: it takes what IPv6 guarantees for what must be left of it.
        (passage(V4, 40, true, 1319, IPIP6), Fit::Forward),
        (passage(V4, 40, true, 107, IPIP6), Fit::Drop),
        (passage(V6, 40, true, 1319, IPIP6), Fit::Drop),
        (passage(V6, 40, true, 1320, IPIP6), Fit::Forward),
        (passage(V4, 40, true, 10, IPIP4), Fit::Drop),
        // No IPv6 host goes below 1280.
        (passage(V6, 1280, false, 1290, IPIP4), Fit::SplitOuter(1290)),
        (passage(V6, 1281, false, 1290, IPIP4), Fit::TooBig(1280)),
    ] {
        assert_eq!(fit(&passage, true), expected, "{passage:?}");
    }
}

#[test]
fn nobody_is_told_about_errors_and_later_fragments() {
    for (family, tunnel) in [(Family::V4, None), (Family::V4, IPIP4), (Family::V6, IPIP6)] {
        let silent = Passage {
            silent: true,
            ..passage(family, 1501, true, 1500, tunnel)
        };
        assert_eq!(fit(&silent, true), Fit::Drop);
    }
    let free = Passage {
        silent: true,
        ..passage(Family::V4, 1501, false, 1500, None)
    };
    assert_eq!(fit(&free, true), Fit::Split(1500));
}

#[test]
fn without_pmtu_discovery_a_tunnel_over_ipv4_takes_everything() {
    let through = |outer| passage(Family::V4, 1500, true, 1500, outer);
    assert_eq!(fit(&through(IPIP4), false), Fit::SplitOuter(1500));
    assert_eq!(fit(&through(IPIP6), false), Fit::TooBig(1460));
    let direct = passage(Family::V4, 1501, true, 1500, None);
    assert_eq!(
        fit(&direct, false),
        Fit::TooBig(1500),
        "the sysctl is about tunnels"
    );
}

#[test]
fn what_cannot_be_cut_in_two_is_refused() {
    let mut spec = Spec::new(false, L4Proto::Udp);
    let mut second = [0; 2000];
    let cut = |spec: &Spec, mtu, second: &mut [u8]| split(&mut spec.frame(), 14, mtu, second);
    spec.data = vec![1; 1000];
    assert_eq!(
        cut(&spec, 1028, &mut second),
        Err(Refused::TooLong),
        "it fits"
    );
    assert!(cut(&spec, 600, &mut second).is_ok());
    assert_eq!(cut(&spec, 500, &mut second), Err(Refused::TooLong), "three");
    assert_eq!(cut(&spec, 600, &mut second[..100]), Err(Refused::TooLong));
    assert_eq!(cut(&spec, 27, &mut second), Err(Refused::TooLong));
    spec.options = true;
    assert_eq!(cut(&spec, 600, &mut second), Err(Refused::TooLong));
    let six = Spec::new(true, L4Proto::Udp);
    assert_eq!(cut(&six, 60, &mut second), Err(Refused::NotIp));
}

proptest! {
    /// etherparse puts the fragments together again.
    #[test]
    fn two_fragments_are_the_packet(
        data in proptest::collection::vec(any::<u8>(), 30..1400),
        mtu in 68_u16..1400,
        tags in 0_usize..3,
        padding in 0_usize..9,
    ) {
        let spec = Spec { data, tags, padding, ..Spec::new(false, L4Proto::Udp) };
        let mut first = spec.frame();
        let mut second = [0; 1500];
        let Ok((length, second_len)) = split(&mut first, spec.network(), mtu, &mut second) else {
            return Ok(());
        };
        first.truncate(length);
        let mut pool = IpDefragPool::<(), ()>::new();
        let mut whole = None;
        for frame in [first.as_slice(), &second[..second_len]] {
            prop_assert!(frame.len() - usize::from(spec.network()) <= usize::from(mtu));
            prop_assert_eq!(&frame[..spec.network().into()], &spec.frame()[..spec.network().into()]);
            let sliced = SlicedPacket::from_ethernet(frame).unwrap();
            let header = sliced.net.as_ref().unwrap().ipv4_ref().unwrap().header();
            prop_assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
            prop_assert!(whole.is_none());
            whole = pool.process_sliced_packet(&sliced, (), ()).unwrap();
        }
        let whole = whole.unwrap();
        prop_assert_eq!(whole.ip_number, IpNumber::UDP);
        prop_assert_eq!(whole.payload, spec.segment());
    }

    #[test]
    fn fragments_can_be_cut_again_and_nothing_panics(
        mut frame in proptest::collection::vec(any::<u8>(), 0..300),
        network in 0_u8..40,
        mtu: u16,
        room in 0_usize..300,
    ) {
        let _ = split(&mut frame, network, mtu, &mut vec![0; room]);
        let mut spec = Spec { part: Part::Later, ..Spec::new(false, L4Proto::Udp) };
        spec.data = frame;
        let mut second = vec![0; 400];
        if let Ok((first_len, second_len)) = split(&mut spec.frame(), 14, 68, &mut second) {
            let (ip, payload) = Ipv4::split(&second[14..second_len]).unwrap();
            prop_assert_eq!(ip.fragment_offset(), 1480 + first_len - 34);
            prop_assert_eq!(first_len - 34 + payload.len(), spec.segment().len());
            prop_assert!(!ip.more_fragments());
        }
    }
}
