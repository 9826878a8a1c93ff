//! A worker: takes bursts of frames from its I/O, decides on them, and passes them on.
//!
//! It owns its tables and its frames, allocates nothing after it was made, takes no lock, writes no
//! log, and reads no clock: `now` is handed to [`Worker::turn`] once a burst.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    io::{BURST, FrameAccount, PacketIo},
    limit::ReplyLimit,
    output::Output,
    parking::Parking,
    publish::Reader,
    stages::{self, Metas},
};
use crate::{
    balance::{Balancer, PathMtus, Turn},
    stats::{DropReason, WorkerStats},
    time::{Instant, Tick},
};

/// Turns without a frame before a worker sleeps: about as long as a packet takes to be answered
/// within a rack, so that a conversation does not pay a wake-up for every packet.
const SPIN_TURNS: u32 = 64;

/// The longest sleep of an idle worker: by then it notices a new table, a stop and expiry.
const IDLE_WAIT: Duration = Duration::from_millis(50);

/// How long a sweep takes to pass by every entry. Half of the shortest of the long timeouts would
/// do; at 5 s the counts of connections lag behind by no more than a look at them does.
const SWEEP_TICKS: usize = 5 * Tick::PER_SECOND as usize;

/// Buckets that a turn with frames sweeps at most: one for four frames of a full burst.
const SWEEP_BUSY: usize = 16;

/// Buckets that a turn without frames sweeps at most: some ten microseconds.
const SWEEP_IDLE: usize = 1024;

/// What a worker is made with.
#[derive(Clone, Copy, Debug)]
pub struct WorkerOptions {
    /// Connections and persistence templates that fit in its table. One takes 48 bytes.
    ///
    /// Default 1,048,576: 48 MiB. IPVS has no limit but memory, of which it takes six times as
    /// much for each.
    pub connections: usize,
    /// Seed of the hash of flows, drawn at start.
    pub hash_seed: u64,
}

impl WorkerOptions {
    /// The default number of connections, with a seed that was drawn at start.
    pub const fn with_seed(hash_seed: u64) -> Self {
        Self {
            connections: 1 << 20,
            hash_seed,
        }
    }
}

/// A forwarding worker.
#[derive(Debug)]
pub struct Worker<Io: PacketIo> {
    io: Io,
    reader: Reader,
    balancer: Balancer,
    stats: Arc<WorkerStats>,
    frames: Vec<Io::Frame>,
    metas: Box<Metas>,
    parking: Parking<Io::Frame>,
    /// Of the frames at the front of `frames`, those that were parked: since when.
    waited: Vec<Tick>,
    /// Parked frames that are still to be looked at again.
    to_retry: usize,
    limit: ReplyLimit,
    paths: PathMtus,
    /// Identification of the last outer IPv4 header.
    ids: u16,
    /// Up to when the sweep has done its share.
    swept_to: Option<Tick>,
    /// Buckets that the sweep owes.
    to_sweep: usize,
}

impl<Io: PacketIo> Worker<Io> {
    /// A worker on `io`, with empty tables.
    pub fn new(io: Io, reader: Reader, stats: Arc<WorkerStats>, options: WorkerOptions) -> Self {
        let balancer = Balancer::new(options.connections, options.hash_seed);
        Self {
            io,
            reader,
            balancer,
            stats,
            frames: Vec::with_capacity(BURST),
            metas: Box::new(Metas::NONE),
            parking: Parking::new(),
            waited: Vec::with_capacity(BURST),
            to_retry: 0,
            limit: ReplyLimit::new(),
            paths: PathMtus::new(),
            ids: 0,
            swept_to: None,
            to_sweep: 0,
        }
    }

    /// Handles the frames that are waiting, at most [`BURST`]. How many there were.
    pub fn turn(&mut self, now: Instant) -> usize {
        self.reader.refresh();
        let table = self.reader.table();
        self.io.reclaim();
        let version = (table.generation(), self.balancer.first_fragments());
        self.unpark(version);
        self.io.receive(&mut self.frames);
        let frames = self.frames.len();
        let new = frames - self.waited.len();
        if frames > 0 {
            let table = self.reader.table();
            let turn = Turn {
                tick: now.tick(),
                timeouts: table.timeouts(),
                stats: &self.stats,
            };
            let (balancer, metas) = (&mut self.balancer, &mut *self.metas);
            let bytes = stages::classify_burst(&self.frames, metas, balancer, table, turn);
            stages::locate_burst(frames, metas, balancer, turn);
            stages::decide_burst(frames, metas, balancer, table, turn);
            let mut output = Output {
                io: &mut self.io,
                reader: &self.reader,
                parking: &mut self.parking,
                limit: &mut self.limit,
                paths: &mut self.paths,
                second: None,
                ids: &mut self.ids,
                turn,
            };
            let out = stages::rewrite_burst(&mut self.frames, &self.waited, metas, &mut output);
            self.waited.clear();
            let refused = self.io.flush();
            self.stats.frames_in.add(new as u64);
            self.stats.bytes_in.add(bytes);
            self.stats.frames_out.add(out);
            // Also of earlier turns: those were counted as sent.
            self.stats.frames_out.sub(refused);
            self.stats.drops(DropReason::TransmitFull).add(refused);
        }
        self.sweep(now.tick(), if frames > 0 { SWEEP_BUSY } else { SWEEP_IDLE });
        new
    }

    /// Works until `stop` is set: turn after turn while frames come, sleeping when none do.
    ///
    /// # Errors
    /// What the I/O reported when it was asked to sleep.
    pub fn run(&mut self, clock: impl Fn() -> Instant, stop: &AtomicBool) -> io::Result<()> {
        let mut empty_turns = 0;
        while !stop.load(Ordering::Relaxed) {
            if self.turn(clock()) > 0 {
                empty_turns = 0;
            } else if empty_turns < SPIN_TURNS {
                empty_turns += 1;
                std::hint::spin_loop();
            } else {
                self.io.wait(IDLE_WAIT)?;
            }
        }
        self.clear_parking();
        Ok(())
    }

    /// Ends the worker: the tables are gone, the I/O is given back.
    pub fn into_io(mut self) -> Io {
        self.clear_parking();
        self.io
    }

    /// The I/O, for what only its backend knows.
    pub const fn io_mut(&mut self) -> &mut Io {
        &mut self.io
    }

    /// Where every frame is. Conserved between turns; in hand are those that wait for a next hop or a first fragment.
    pub fn account(&mut self) -> FrameAccount {
        self.io.account()
    }

    /// The tables.
    pub const fn balancer(&self) -> &Balancer {
        &self.balancer
    }

    /// Takes parked frames for another look if what they wait for may have come, oldest first.
    fn unpark(&mut self, version: (u64, u64)) {
        if self.parking.is_empty() {
            return;
        }
        if self.to_retry == 0 {
            self.to_retry = self.parking.retry(version);
        }
        while self.to_retry > 0 && self.frames.len() < BURST {
            self.to_retry -= 1;
            let Some((frame, since)) = self.parking.take() else {
                self.to_retry = 0;
                return;
            };
            self.frames.push(frame);
            self.waited.push(since);
        }
    }

    /// Drops the parked frames that have waited long enough.
    fn expire_parking(&mut self, now: Tick) {
        while let Some((frame, reason)) = self.parking.expired(now) {
            self.stats.drops(reason).add(1);
            self.io.release(frame);
        }
    }

    fn clear_parking(&mut self) {
        while let Some((frame, reason)) = self.parking.give_up() {
            self.stats.drops(reason).add(1);
            self.io.release(frame);
        }
    }

    /// Sweeps what has become due, `most` buckets at most in this turn.
    fn sweep(&mut self, tick: Tick, most: usize) {
        let buckets = self.balancer.conns().buckets();
        let passed = tick.since(self.swept_to.replace(tick).unwrap_or(tick)) as usize;
        if passed > 0 {
            if !self.parking.is_empty() {
                self.expire_parking(tick);
            }
            let due = passed.saturating_mul(buckets).div_ceil(SWEEP_TICKS);
            self.to_sweep = (self.to_sweep + due).min(buckets);
        }
        let share = self.to_sweep.min(most);
        if share > 0 {
            self.to_sweep -= share;
            let turn = Turn {
                tick,
                timeouts: self.reader.table().timeouts(),
                stats: &self.stats,
            };
            self.balancer.sweep(share, turn);
        }
    }
}

#[cfg(test)]
#[path = "worker_tests/mod.rs"]
mod tests;
