//! Health checks: when a real server is probed, when it counts as failed, and what that does to
//! the pool of its virtual server.
//!
//! ```text
//!             settings                       probes to make (Action)
//! control ──────────────▶ Health ─────────────────────────────────────▶ control::checks
//!            results        ├─ CheckSet   timers, concurrency, one Checker each
//!         ──────────────▶   └─ Pool       one a virtual server: quorum, sorry server
//!                                          what happened (Event), what it means (RealView)
//! ```
//!
//! Nothing here opens a socket or reads a clock: `now` is an argument, and outputs are pulled
//! (`poll_action`, `poll_event`, `poll_timeout`). The rules are keepalived's, with these
//! differences, each deliberate:
//!
//! * The first probe leaves within a second instead of `1 s + random(0..delay_loop)`: real servers
//!   are in the pool before their first check, so every second of waiting sends clients to a dead
//!   one. To keep thousands of checks from staying in step for ever, the *second* probe follows
//!   after `random(0..delay_loop)`. An explicit `warmup` is honoured as `random(0..warmup)`.
//! * A probe that this machine could not start (no descriptor, no source address) says nothing
//!   about the real server: it is delayed and reported, never counted as a failure.
//! * A reload keeps the state of every checker that still probes the same thing.
//! * A quorum is never below 1, also when all weights are 0.

#![forbid(unsafe_code)]

mod checker;
mod event;
mod health;
mod pool;
mod set;
mod settings;

pub use checker::{Checker, Judgement, Outcome};
pub use event::{Event, QuorumChange};
pub use health::Health;
pub use pool::{Pool, RealView};
pub use set::{Action, CheckSet, MAX_PROBES};
pub use settings::{
    CheckerId, CheckerSettings, Deferral, Member, Probe, ProbeError, ProbeResult, RealSettings,
    ServiceName, SorryServer, TcpProbe, VirtualSettings,
};
