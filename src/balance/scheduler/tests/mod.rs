//! Schedulers against golden vectors, against slow, literal models, and by their properties.
//! `balance::trace_tests` holds them to recordings of IPVS.

mod golden;
mod literal;
mod locality;
mod maglev;
mod shares;

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
};

use super::*;
use crate::balance::{RealId, ServiceId};

/// The real server `id`, reached at an address of its own.
fn entry(id: u32, weight: u32) -> Entry {
    Entry {
        real: RealRef {
            id: RealId(id),
            epoch: NonZeroU32::MIN,
        },
        endpoint: Endpoint::new(Ipv4Addr::from_bits(0x0a02_0000 | id).into(), 80),
        weight,
        last_weight: weight,
        limits: Limits::default(),
        listed: true,
    }
}

/// Real servers 0 and on, in the order of the list.
fn entries(weights: &[u32]) -> Vec<Entry> {
    let numbered = (0..).zip(weights);
    numbered.map(|(id, weight)| entry(id, *weight)).collect()
}

/// A picker whose list has those in this order: the first was added last.
fn picker(owner: u64, scheduler: Scheduler, list: &[Entry]) -> Picker {
    let added: Vec<Entry> = list.iter().rev().copied().collect();
    Picker::new(owner, scheduler, &added)
}

const SH: Scheduler = Scheduler::Sh {
    port: false,
    fallback: false,
};

const MH: Scheduler = Scheduler::Mh {
    port: false,
    fallback: false,
    size: MaglevSize::DEFAULT,
};

/// One of each.
const ALL: [Scheduler; 14] = [
    Scheduler::Rr,
    Scheduler::Wrr,
    Scheduler::Lc,
    Scheduler::Wlc,
    Scheduler::Sed,
    Scheduler::Nq,
    Scheduler::Fo,
    Scheduler::Ovf,
    SH,
    Scheduler::Dh,
    MH,
    Scheduler::Lblc,
    Scheduler::Lblcr,
    Scheduler::Twos,
];

/// A worker that asks the scheduler of one virtual server, and what it counted.
struct Rig {
    state: SchedulerState,
    stats: WorkerStats,
    now: Tick,
    client: IpAddr,
    client_port: u16,
    vip: IpAddr,
}

impl Rig {
    fn new() -> Self {
        Self {
            state: SchedulerState::new(7),
            stats: WorkerStats::new(),
            now: Tick::from_raw(1),
            client: Ipv4Addr::new(10, 0, 0, 1).into(),
            client_port: 1,
            vip: Ipv4Addr::new(10, 1, 0, 1).into(),
        }
    }

    fn pick(&mut self, picker: &Picker) -> Option<u32> {
        let ask = Ask {
            client: self.client,
            client_port: self.client_port,
            vip: self.vip,
            tick: self.now,
            stats: &self.stats,
        };
        let real = self.state.pick(ServiceId(0), picker, &ask)?;
        Some(real.id.0)
    }

    fn set_load(&self, id: u32, active: u64, inactive: u64) {
        let counters = self.stats.real(id);
        counters.claim(1);
        counters.active.set(active);
        counters.inactive.set(inactive);
    }

    /// A pick whose connection stays open.
    fn open(&mut self, picker: &Picker) -> Option<u32> {
        let id = self.pick(picker)?;
        let counters = self.stats.real(id);
        counters.claim(1);
        counters.active.add(1);
        let choice = *picker.choices.iter().find(|c| c.real.id.0 == id).unwrap();
        self.state
            .connected(choice.real, choice.limits, &self.stats);
        Some(id)
    }

    /// `count` picks as letters, `A` being the real server 0.
    fn letters(&mut self, picker: &Picker, count: usize) -> String {
        (0..count).map(|_| letter(self.pick(picker))).collect()
    }

    /// `count` picks whose connections stay open.
    fn letters_open(&mut self, picker: &Picker, count: usize) -> String {
        (0..count).map(|_| letter(self.open(picker))).collect()
    }
}

fn letter(real: Option<u32>) -> char {
    real.map_or('-', |id| char::from_u32(u32::from('A') + id).unwrap())
}
