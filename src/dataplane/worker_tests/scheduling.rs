//! Schedulers as packets meet them: thresholds, weight 0, sorry servers.

use super::{
    frames::{ACK, FIN, SYN},
    *,
};

fn syn(port: u16) -> Pkt {
    tcp((CLIENT4, port), (VIP4, 80), SYN)
}

fn quiet(id: u32) -> RealSpec {
    RealSpec {
        weight: 0,
        ..real(id)
    }
}

#[test]
fn a_real_server_at_its_upper_threshold_gets_no_more_until_it_is_below_the_lower() {
    let limited = RealSpec {
        limits: Limits { upper: 3, lower: 2 },
        ..real(11)
    };
    let mut lab = Lab::full(&[service(vec![limited, real(12)])]);
    let reached: Vec<_> = (0..8)
        .map(|port| lab.goes_to(&syn(port)).unwrap())
        .collect();
    assert_eq!(reached, [11, 12, 11, 12, 11, 12, 12, 12]);
    lab.assert_counts(11, 3, 0);
    // Established ones go on. Those that close still count, until they are over.
    for port in [0, 2] {
        for flags in [ACK, FIN | ACK] {
            let pkt = tcp((CLIENT4, port), (VIP4, 80), flags);
            assert_eq!(lab.goes_to(&pkt), Some(11));
        }
    }
    lab.assert_counts(11, 1, 2);
    assert_eq!(lab.goes_to(&syn(10)), Some(12));
    lab.advance(30);
    assert_eq!(lab.goes_to(&tcp((CLIENT4, 4), (VIP4, 80), ACK)), Some(11));
    lab.advance(90);
    for _ in 0..10 {
        lab.advance(1);
        lab.turn();
    }
    lab.assert_counts(11, 1, 0);
    let reached: Vec<_> = (20..24)
        .map(|port| lab.goes_to(&syn(port)).unwrap())
        .collect();
    assert!(reached.contains(&11), "{reached:?}");
}

#[test]
fn weight_0_takes_no_new_connections_and_keeps_the_old_ones() {
    let mut lab = Lab::full(&[service(vec![real(11), real(12)])]);
    assert_eq!(lab.goes_to(&syn(1)), Some(11));
    lab.publish_with(&[service(vec![quiet(11), real(12)])], |_| {});
    assert_eq!(lab.goes_to(&tcp((CLIENT4, 1), (VIP4, 80), ACK)), Some(11));
    for port in 2..5 {
        assert_eq!(lab.goes_to(&syn(port)), Some(12));
    }
    lab.publish_with(&[service(vec![real(11), real(12)])], |_| {});
    assert_eq!(lab.goes_to(&syn(5)), Some(11));
}

#[test]
fn a_syn_leaves_a_real_server_of_weight_0_where_connections_may_expire() {
    for (expires, reuse, now) in [(true, true, 12), (false, true, 11), (true, false, 11)] {
        let mut lab = Lab::full(&[service(vec![real(11), real(12)])]);
        assert_eq!(lab.goes_to(&syn(1)), Some(11));
        lab.publish_with(&[service(vec![quiet(11), real(12)])], |environment| {
            environment.policy.expire_nodest_conn = expires;
            environment.policy.reuse_finished = reuse;
        });
        assert_eq!(lab.goes_to(&syn(1)), Some(now), "{expires} {reuse}");
    }
}

#[test]
fn a_sorry_server_stands_in_as_one_real_server_and_gives_way() {
    let sorry = RealSpec {
        endpoint: Endpoint::new([10, 2, 0, 99].into(), 80),
        ..real(99)
    };
    let mut lab = Lab::full(&[service(vec![real(11)])]);
    assert_eq!(lab.goes_to(&syn(1)), Some(11));
    lab.publish_with(&[service(vec![sorry])], |_| {});
    assert_eq!(lab.goes_to(&syn(2)), Some(99));
    lab.publish_with(&[service(vec![real(11)])], |_| {});
    assert_eq!(lab.goes_to(&syn(3)), Some(11));
    assert_eq!(lab.goes_to(&syn(2)), Some(11), "the sorry server is gone");
    lab.assert_counts(99, 0, 0);
}

#[test]
fn hashes_lead_a_client_to_one_real_server_whatever_the_order_of_its_connections() {
    for scheduler in [
        Scheduler::Sh {
            port: false,
            fallback: false,
        },
        Scheduler::Mh {
            port: false,
            fallback: false,
            size: crate::balance::MaglevSize::default(),
        },
    ] {
        let specs = [ServiceSpec {
            scheduler,
            ..service(vec![real(11), real(12), real(13)])
        }];
        let (mut one, mut other) = (Lab::full(&specs), Lab::full(&specs));
        for n in 0..50_u8 {
            let at = |host: u8, port| {
                let pkt = tcp((CLIENT4, port), (VIP4, 80), SYN);
                Pkt {
                    from: ([10, 1, 1, host].into(), port),
                    ..pkt
                }
            };
            let first = one.goes_to(&at(n, 1)).unwrap();
            assert_eq!(one.goes_to(&at(n, 2)), Some(first));
            assert_eq!(other.goes_to(&at(49 - n, 3)), one.goes_to(&at(49 - n, 4)));
        }
    }
}

#[test]
fn a_real_server_that_drains_keeps_its_connections_and_gets_no_others() {
    let reals = || vec![real(11), real(12)];
    let persistence = Persistence {
        timeout: Duration::from_secs(300),
        prefix: 32,
    };
    for persistence in [None, Some(persistence)] {
        let spec = |reals, draining| ServiceSpec {
            persistence,
            draining,
            ..service(reals)
        };
        let mut lab = Lab::full(&[spec(reals(), Vec::new())]);
        assert_eq!(lab.goes_to(&syn(1)), Some(11));
        let left = reals().remove(0);
        lab.publish_with(&[spec(vec![real(12)], vec![left])], |environment| {
            // It is not down.
            environment.policy.reset_on_failure = true;
        });
        for flags in [ACK, FIN | ACK] {
            let pkt = tcp((CLIENT4, 1), (VIP4, 80), flags);
            assert_eq!(lab.goes_to(&pkt), Some(11));
        }
        for port in 2..5 {
            assert_eq!(lab.goes_to(&syn(port)), Some(12));
        }
        lab.publish_with(&[spec(reals(), Vec::new())], |_| {});
        // Who is persistent has moved by now.
        let next = if persistence.is_some() { 12 } else { 11 };
        assert_eq!(lab.goes_to(&syn(5)), Some(next));
    }
}
