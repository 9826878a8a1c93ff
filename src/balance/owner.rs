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
    /// any queue, from the client's address and port. `None`: the flow is that of the worker that
    /// received it.
    #[inline]
    pub fn owner<K: FlowKey>(self, packet: &Packet<K>, table: &ServiceTable) -> Option<u32> {
        let key = packet.key;
        let service = if packet.answers {
            table.returns(key.vip(), key.protocol(), key.vport())
        } else {
            table.service(&packet.question())
        }?;
        if let Some(prefix) = service.client_prefix() {
            return Some(self.share_of(folded(key.template(prefix, 0).client())));
        }
        service.sees_answers().then(|| {
            let port = u64::from(key.client_port());
            self.share_of(folded(key.client()) ^ port.rotate_left(40))
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
    use super::*;

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
