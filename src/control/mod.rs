//! The control thread: one mio loop that drives the protocol machines and everything slow.

pub mod admin;
pub mod api;
mod checks;
pub mod cleanup;
mod client_ways;
pub mod data_plane;
pub mod engine;
mod enquiries;
mod forwarding;
mod frame_watch;
mod local_way;
mod lock_file;
pub mod log;
mod next_hops;
mod outages;
mod pace;
pub mod placement;
mod ports;
pub mod probes;
mod reload;
mod repeats;
mod sampling;
mod services;
mod token;
mod vrrp;
mod workers;
