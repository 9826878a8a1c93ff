//! Which worker has a flow, when there are several.

use std::net::IpAddr;

use super::{FlowKey, Packet, ServiceTable};

/// The division of flows among workers. The same for all of them, so that each says the same.
///
/// Most flows are those of the worker that receives them: the NIC keeps a flow on one queue. What must be
/// decided in one place although it comes in on several queues has an owner that follows from the packet.
#[derive(Clone, Copy, Debug)]
pub struct Ownership {
    workers: u32,
    seed: u64,
}

impl Ownership {
    /// Among so many `workers`, at least 1. `seed` is drawn at start, so that no stranger can aim at
    /// one worker.
    pub const fn new(workers: u32, seed: u64) -> Self {
        Self { workers, seed }
    }

    /// How many workers there are.
    pub const fn workers(self) -> u32 {
        self.workers
    }

    /// The worker that has the packet's flow: for a persistent virtual server it follows from the client's
    /// network (`persistence_granularity`), as templates are per network; with NAT, whose answers may come in on
    /// any queue, from the client's address and port, or its network when any virtual server with NAT is persistent. `None`: the flow is that of the worker that
    /// received it.
    #[inline]
    pub fn owner<K: FlowKey>(self, packet: &Packet<K>, table: &ServiceTable) -> Option<u32> {
        let key = packet.key;
        let network = |prefix| self.share_of(folded(key.template(prefix, 0).client()));
        if !packet.answers {
            let service = table.service(&packet.question())?;
            if !service.sees_answers() {
                return service.client_prefix().map(network);
            }
        }
        // A real server may be that of several virtual servers, and its answer does not say of which: one rule for
        // all of them.
        Some(match table.nat_prefix(key.client().is_ipv6()) {
            Some(prefix) => network(prefix),
            None => {
                let port = u64::from(key.client_port());
                self.share_of(folded(key.client()) ^ port.rotate_left(40))
            }
        })
    }

    /// The worker whose share `what` falls into: each gets as many.
    #[inline]
    const fn share_of(self, what: u64) -> u32 {
        // Two odd multipliers with a fold between: each bit of the top half depends on all of `what`.
        let mixed = (what ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32;
        ((mixed * self.workers as u64) >> 32) as u32
    }
}

/// An address in one word.
fn folded(addr: IpAddr) -> u64 {
    match addr {
        IpAddr::V4(addr) => u64::from(addr.to_bits()),
        IpAddr::V6(addr) => {
            let [high, low] =
                [64, 0].map(|shift: u32| addr.to_bits() >> shift & u128::from(u64::MAX));
            // Each half fits in a word.
            let [high, low] = [high, low].map(|half| u64::try_from(half).unwrap_or(0));
            high.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ low
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::{
        addr::{Endpoint, L4Proto},
        balance::{
            Environment, HopId, Key4, LbKind, Limits, Match, Persistence, RealId, RealSpec,
            Scheduler, ServiceId, ServiceKey, ServiceSpec,
        },
    };

    /// A virtual server on this port, with one real server, the same for all.
    fn service(port: u16, method: LbKind, prefix: Option<u8>) -> ServiceSpec {
        ServiceSpec {
            id: ServiceId(port.into()),
            epoch: NonZeroU32::MIN,
            matches: vec![Match::Address(ServiceKey {
                protocol: L4Proto::Tcp,
                endpoint: Endpoint::new([10, 0, 0, 9].into(), port),
            })],
            scheduler: Scheduler::Rr,
            persistence: prefix.map(|prefix| Persistence {
                timeout: std::time::Duration::from_secs(50),
                prefix,
            }),
            one_packet: false,
            reals: vec![RealSpec {
                id: RealId(port.into()),
                epoch: NonZeroU32::MIN,
                endpoint: Endpoint::new([10, 0, 0, 100].into(), 8080),
                method,
                weight: 1,
                last_weight: 1,
                limits: Limits::default(),
                available: true,
                failed: false,
                hop: HopId(0),
            }],
            draining: Vec::new(),
        }
    }

    fn packet(client: [u8; 4], client_port: u16, to: (u8, u16), answers: bool) -> Packet<Key4> {
        let to = ([10, 0, 0, to.0].into(), to.1);
        Packet {
            key: Key4::new((client.into(), client_port), to, 6),
            answers,
            ..Packet::NONE
        }
    }

    #[test]
    fn an_answer_has_the_owner_of_what_it_answers_whichever_virtual_server_that_was() {
        let services = [
            service(80, LbKind::Nat, None),
            service(81, LbKind::Nat, Some(24)),
            service(82, LbKind::Nat, Some(16)),
        ];
        let table = ServiceTable::build(1, &services, Environment::default()).unwrap();
        let ownership = Ownership::new(7, 3);
        for client in 0..=255 {
            let (client, port) = ([10, client, 5, client], 1000 + u16::from(client));
            let answer = ownership.owner(&packet(client, port, (100, 8080), true), &table);
            assert!(answer.is_some());
            for vport in 80..=82 {
                let asked = packet(client, port, (9, vport), false);
                assert_eq!(ownership.owner(&asked, &table), answer, "{vport}");
            }
        }
    }

    #[test]
    fn persistent_clients_of_one_network_have_one_owner_and_plain_direct_routing_has_none() {
        let services = [
            service(80, LbKind::Dr, None),
            service(81, LbKind::Dr, Some(24)),
        ];
        let table = ServiceTable::build(1, &services, Environment::default()).unwrap();
        let ownership = Ownership::new(7, 3);
        let owner = |client, vport| ownership.owner(&packet(client, 5, (9, vport), false), &table);
        assert_eq!(owner([10, 1, 1, 1], 80), None);
        assert!(owner([10, 1, 1, 1], 81).is_some());
        assert_eq!(owner([10, 1, 1, 1], 81), owner([10, 1, 1, 200], 81));
    }

    #[test]
    fn shares_are_even_and_depend_on_the_seed() {
        for workers in [1, 2, 3, 8, 64] {
            let ownership = Ownership::new(workers, 0x1234_5678_9abc_def0);
            let other = Ownership::new(workers, 1);
            let mut shares = vec![0_u32; workers as usize];
            let mut moved = 0;
            for network in 0..64_000_u64 {
                // Clients' networks differ in the middle bits: /24s of one another.
                let network = 0x0a00_0000 + (network << 8);
                shares[ownership.share_of(network) as usize] += 1;
                moved += u32::from(ownership.share_of(network) != other.share_of(network));
            }
            let even = 64_000 / workers;
            assert!(
                shares.iter().all(|n| n.abs_diff(even) < even / 5),
                "{shares:?}"
            );
            assert!(workers == 1 || moved > 64_000 / 4, "{moved} of {workers}");
        }
    }
}
