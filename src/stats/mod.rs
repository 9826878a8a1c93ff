//! What a worker counts, and how control reads it while the worker runs.
//!
//! Each worker is the only writer of its [`WorkerStats`]; control reads through an `Arc`. Numbers
//! that belong together may therefore be read a packet apart, which is what a counter promises.

#![forbid(unsafe_code)]

mod counter;
mod io;
mod rates;
mod reasons;
mod timing;
mod worker;

pub use self::{
    counter::Counter,
    io::IoDrops,
    rates::{Averages, Estimator, Rates, Totals},
    reasons::{DropReason, IoDrop, ReplyReason, Stage},
    timing::{StageTimes, TIME_BUCKETS},
    worker::{AllStats, Below, MAX_REALS, RealCounters, WorkerStats},
};
