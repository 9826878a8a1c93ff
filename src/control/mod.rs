//! The control thread: one mio loop that drives the protocol machines and everything slow. A folder a room.

pub mod admin;
pub mod api;
pub mod checks;
pub mod cleanup;
pub mod engine;
pub mod forwarding;
mod lock_file;
pub mod log;
pub mod origin;
mod pace;
mod repeats;
mod vrrp;
