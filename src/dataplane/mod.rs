//! Frames in, frames out: the I/O seam, the worker and its burst stages, and publishing of tables.

pub mod af_packet;
pub mod af_xdp;
pub mod handover;
pub mod io;
mod limit;
pub mod memory;
mod output;
mod parking;
pub mod publish;
#[cfg(test)]
mod size_tests;
mod stages;
pub mod worker;
