//! xvs on veth, beside other things that could stand in its place, in turns: a bare AF_XDP forwarder, the kernel
//! with nftables, HAProxy. `scripts/bench veth`; as root, two processors, under five minutes.
//!
//! Claims: a worker passes at least 0.95 of the packets a second that a forwarder over AF_XDP passes which does
//! nothing but set the MAC addresses, by DR, NAT and TUN.

#![allow(clippy::unwrap_used, reason = "what fails here ends the bench")]

mod bed;
mod flood;
mod latency;
mod ways;
mod web;

use std::{env, process::ExitCode, time::Duration};

/// Longest run.
const LIMIT: Duration = Duration::from_secs(290);

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
    bed::build();
    let folder = bed::folder();
    let _logs = bed::Logs;
    if part("flood") {
        flood::run(&folder);
    }
    if part("web") {
        web::run(&folder);
    }
    if part("latency") {
        latency::run(&folder);
    }
    ExitCode::SUCCESS
}
