//! Frames in, frames out: the I/O seam, the worker and its burst stages, and publishing of tables.

pub mod af_packet;
pub mod af_xdp;
pub mod enquiry;
pub mod handover;
pub mod io;
mod limit;
pub mod memory;
pub mod offload;
mod output;
mod parking;
pub mod ports;
pub mod publish;
mod stages;
pub mod unfinished;
pub mod worker;
