//! What control calls, whatever carries the packets.

use std::collections::BTreeMap;

use super::{
    Backend, PortNews, PortStatus,
    machine::{Interface, PERIOD, Ports, STOP_PATIENCE, Stage, State},
};
use crate::{
    stats::{IoDrop, IoDrops},
    sys::{
        busy_poll::Deferral,
        clock,
        device::InterfaceSpec,
        open_error::OpenError,
        steer::{PortProgram, SteerCounters, Steering},
    },
    time::Instant,
};

/// The interfaces, whatever carries their packets.
pub trait PortControl: Send {
    /// From now on these interfaces are wanted: those among them that exist; the others are closed. At most
    /// [`PortId::COUNT`](crate::addr::PortId::COUNT) can be open.
    fn set_interfaces(&mut self, now: Instant, wanted: &[InterfaceSpec], newest: u64);

    /// Does what is due. To be called at [`Self::poll_timeout`] and after each call. `newest` is the generation of
    /// the table that was published last, `oldest` that of the oldest in use. What there is to say, a line each.
    fn handle_timeout(&mut self, now: Instant, newest: u64, oldest: u64) -> Vec<PortNews>;

    /// When there is something to do.
    fn poll_timeout(&self) -> Option<Instant>;

    /// The interfaces that are wanted.
    fn ports(&self) -> Vec<PortStatus>;

    /// Ports that are gone, and whose workers, frames or tables are still waited for.
    fn leaving(&self) -> usize;

    /// The steering program's tables.
    fn steering(&mut self) -> &mut Steering;

    /// What the steering program decided, over all interfaces that there were.
    fn steering_counts(&self) -> SteerCounters;

    /// What the kernel counted for all sockets that there were.
    fn kernel_drops(&self) -> &IoDrops;

    /// Takes the program off all interfaces, and ends what else was set on them.
    ///
    /// # Errors
    /// The first that an interface reported.
    fn detach(&mut self) -> Result<(), OpenError>;
}

impl<B: Backend> PortControl for Ports<B> {
    fn set_interfaces(&mut self, now: Instant, wanted: &[InterfaceSpec], newest: u64) {
        let wished: BTreeMap<u32, &InterfaceSpec> =
            wanted.iter().map(|spec| (spec.ifindex, spec)).collect();
        for interface in &mut self.wanted {
            interface.wanted = wished.contains_key(&interface.spec.ifindex);
        }
        let known = |ports: &Self, ifindex| {
            let mut wanted = ports.wanted.iter();
            wanted.any(|interface| interface.spec.ifindex == ifindex)
        };
        for spec in wanted {
            if !known(self, spec.ifindex) {
                self.wanted.push(Interface::new(spec.clone(), now));
            }
        }
        let (kept, left) = std::mem::take(&mut self.wanted)
            .into_iter()
            .partition(|interface| interface.wanted);
        self.wanted = kept;
        for interface in left {
            self.leave(interface, newest);
        }
        // What made the caller think of it may have changed what is open, too.
        self.look_at = Some(now);
    }

    fn handle_timeout(&mut self, now: Instant, newest: u64, oldest: u64) -> Vec<PortNews> {
        self.take_answers();
        for at in 0..self.leaving.len() {
            if self.leaving[at].stage == Stage::Closed {
                self.release(at);
            }
        }
        self.take_done(now, newest);
        if self.look_at.is_none_or(|at| at <= now) {
            self.look_at = Some(now + PERIOD);
            self.look(now, newest);
            // The kernel's count of an AF_PACKET socket has 32 bits: it is not to come round unseen.
            self.count_kernel_drops();
        }
        self.try_due(now, oldest);
        std::mem::take(&mut self.news)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let due = self
            .wanted
            .iter()
            .filter_map(|interface| match interface.state {
                State::Waiting { again, .. } if !self.is_closing(interface.spec.ifindex) => {
                    Some(again)
                }
                _ => None,
            });
        due.chain([self.look_at.unwrap_or_default()]).min()
    }

    fn ports(&self) -> Vec<PortStatus> {
        let wanted = self.wanted.iter().filter(|interface| interface.wanted);
        wanted.map(Interface::status).collect()
    }

    fn leaving(&self) -> usize {
        self.leaving.len()
    }

    fn steering(&mut self) -> &mut Steering {
        &mut self.steering
    }

    fn steering_counts(&self) -> SteerCounters {
        let mut sum = self.past.steering;
        for program in self.programs() {
            // One that is gone has nothing to say.
            sum += program.counters().unwrap_or_default();
        }
        sum
    }

    fn kernel_drops(&self) -> &IoDrops {
        self.count_kernel_drops();
        &self.drops
    }

    fn detach(&mut self) -> Result<(), OpenError> {
        let is_opening = |interface: &Interface| matches!(interface.state, State::Opening(_));
        while self.wanted.iter().any(is_opening) {
            match self.done.recv_timeout(STOP_PATIENCE) {
                Ok(done) => self.handle_done(clock::now(), 0, done),
                Err(_) => break,
            }
        }
        let mut result = self.steering.detach();
        for interface in &mut self.wanted {
            if let State::Open(open) = &interface.state {
                open.deferral.iter().for_each(Deferral::end);
            }
            if let Some(program) = &mut interface.program {
                let detached = program.detach();
                result = result.and(detached);
            }
        }
        result
    }
}

impl<B: Backend> Ports<B> {
    fn programs(&self) -> impl Iterator<Item = &PortProgram> {
        let interfaces = self.wanted.iter();
        interfaces.filter_map(|interface| match &interface.state {
            State::Open(open) => self.steering.port(open.port),
            _ => None,
        })
    }

    /// Asks the kernel what it counted for each socket.
    fn count_kernel_drops(&self) {
        let mut sum = self.past.xsk;
        for socket in self.programs().flat_map(PortProgram::sockets) {
            match self.backend.count(socket, &self.drops) {
                Some(one) => sum += one,
                // A sum without it would go back.
                None => return,
            }
        }
        for (what, count) in [
            (IoDrop::XskRxDropped, sum.rx_dropped),
            (IoDrop::XskRxRingFull, sum.rx_ring_full),
            (IoDrop::XskFillRingEmpty, sum.fill_ring_only_empty),
            (IoDrop::XskInvalidDescriptors, sum.invalid_descriptors),
        ] {
            self.drops.of(what).set(count);
        }
    }
}
