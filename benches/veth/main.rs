//! xvs on veth, beside other things that could stand in its place, in turns: a bare XDP redirect, the kernel's
//! forwarding, nftables, HAProxy. `scripts/bench veth`; as root, two processors, some ten minutes.
//!
//! Claims, of medians of one run at 1,024 flows: with the fast path DR passes at least 1.9 times the packets a second
//! of nftables' DNAT, NAT 1.7 times in each direction, TUN 1.5 times; with 1 % of new flows all of them 1.3 times.

#![allow(clippy::unwrap_used, reason = "what fails here ends the bench")]

mod bed;
mod flood;
mod frames;
mod latency;
mod ways;
mod web;

use std::{env, process::ExitCode, time::Duration};

use bed::{Bed, Links};

/// Longest run.
const LIMIT: Duration = Duration::from_secs(1200);

fn main() -> ExitCode {
    // All benches are run with the filter that was given; this one takes minutes, and runs by its name only.
    let wanted: Vec<_> = env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    if wanted.first().is_none_or(|name| name != "veth") {
        return ExitCode::SUCCESS;
    }
    if let Some(status) = bed::rerun_inside(LIMIT) {
        return status;
    }
    let part = |name: &str| wanted.len() < 2 || wanted.iter().any(|w| w == name);
    let folder = bed::folder();
    let _logs = bed::Logs;
    let mut status = ExitCode::SUCCESS;
    if part("flood") && !flood::run(&folder) {
        status = ExitCode::FAILURE;
    }
    if part("web") {
        let _bed = Bed::build(Links::Redirected);
        web::run(&folder);
    }
    if part("latency") {
        let _bed = Bed::build(Links::Plain);
        latency::run(&folder);
    }
    status
}
