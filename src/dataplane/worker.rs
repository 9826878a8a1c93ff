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
    publish::Reader,
    stages::{self, Meta},
};
use crate::{
    balance::{Balancer, Turn},
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
    metas: Box<[Meta; BURST]>,
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
            metas: Box::new([Meta::NONE; BURST]),
            swept_to: None,
            to_sweep: 0,
        }
    }

    /// Handles the frames that are waiting, at most [`BURST`]. How many there were.
    pub fn turn(&mut self, now: Instant) -> usize {
        self.reader.refresh();
        let table = self.reader.table();
        let turn = Turn {
            tick: now.tick(),
            timeouts: table.timeouts(),
            stats: &self.stats,
        };
        self.io.reclaim();
        self.io.receive(&mut self.frames);
        let frames = self.frames.len();
        if frames > 0 {
            let balancer = &mut self.balancer;
            let metas = &mut self.metas[..frames];
            let bytes = stages::classify_burst(&self.frames, metas, balancer);
            stages::locate_burst(metas, balancer, turn);
            stages::decide_burst(metas, balancer, table, turn);
            let out =
                stages::rewrite_burst(&mut self.frames, metas, &mut self.io, table, &self.stats);
            let refused = self.io.flush();
            self.stats.frames_in.add(frames as u64);
            self.stats.bytes_in.add(bytes);
            self.stats.frames_out.add(out);
            // Also of earlier turns: those were counted as sent.
            self.stats.frames_out.sub(refused);
            self.stats.drops(DropReason::TransmitFull).add(refused);
        }
        self.sweep(now.tick(), if frames > 0 { SWEEP_BUSY } else { SWEEP_IDLE });
        frames
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
        Ok(())
    }

    /// Ends the worker: the tables are gone, the I/O is given back.
    pub fn into_io(self) -> Io {
        self.io
    }

    /// The I/O, for what only its backend knows.
    pub const fn io_mut(&mut self) -> &mut Io {
        &mut self.io
    }

    /// Where every frame is. Conserved between turns, with none in hand.
    pub fn account(&mut self) -> FrameAccount {
        self.io.account()
    }

    /// The tables.
    pub const fn balancer(&self) -> &Balancer {
        &self.balancer
    }

    /// Sweeps what has become due, `most` buckets at most in this turn.
    fn sweep(&mut self, tick: Tick, most: usize) {
        let buckets = self.balancer.conns().buckets();
        let passed = tick.since(self.swept_to.replace(tick).unwrap_or(tick)) as usize;
        if passed > 0 {
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
#[path = "worker_tests.rs"]
mod tests;
