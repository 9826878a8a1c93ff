//! The control thread: one mio loop that drives the protocol machines and everything slow.

pub mod admin;
mod announcements;
pub mod api;
pub mod cleanup;
mod client_ways;
pub mod data_plane;
pub mod engine;
mod enquiries;
mod frame_watch;
mod interfaces;
mod last_will;
pub mod log;
mod next_hops;
mod outages;
mod pace;
pub mod placement;
pub mod probes;
mod put_back;
mod queue_watch;
mod repeats;
mod sampling;
mod services;
mod vrrp_io;
mod workers;
