//! The control thread: one mio loop that drives the protocol machines and everything slow. A folder a room.

pub mod admin;
pub mod api;
pub mod checks;
pub mod cleanup;
mod dump;
pub mod engine;
pub mod forwarding;
pub mod host_check;
#[cfg(test)]
mod hostile;
pub mod identity;
pub mod launch;
pub mod load;
mod lock_file;
pub mod log;
pub mod origin;
mod pace;
mod pid_files;
mod reload_time;
mod repeats;
mod scripts;
mod vrrp;
mod whole_file;
