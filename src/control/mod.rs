//! The control thread: one mio loop that drives the protocol machines and everything slow.

pub mod admin;
pub mod api;
pub mod cleanup;
mod client_ways;
pub mod data_plane;
pub mod engine;
mod enquiries;
mod interfaces;
pub mod log;
mod next_hops;
mod outages;
mod pace;
pub mod placement;
pub mod probes;
mod queue_watch;
mod sampling;
mod services;
mod vrrp;
mod workers;
