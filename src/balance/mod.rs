//! What a balancer is: flow keys, the service table and its schedulers, the connection table with
//! persistence templates in it, TCP state, and the rewriting of packets.
//!
//! Pure: time comes in as a [`Tick`](crate::time::Tick), frames as byte slices, and every packet
//! goes out as a [`Verdict`]. One [`Balancer`] belongs to one worker, which feeds it
//! [`Packet`]s that it has classified.

#![forbid(unsafe_code)]

mod balancer;
mod conntable;
mod key;
mod owner;
mod packet;
mod picker;
pub mod rewrite;
mod service;
mod state;
pub mod tcp;

pub use self::{
    balancer::{Balancer, Verdict},
    conntable::{Bucket, ConnTable, Home, NewConn, Record, Slot, Turn},
    key::FlowKey,
    owner::Ownership,
    packet::{Kind, Packet, classify},
    picker::{Cursor, Entry, Picker, Scheduler},
    service::{
        BuildError, MAX_SERVICES, Method, NextHop, Persistence, Real, RealId, RealRef, RealSpec,
        Service, ServiceId, ServiceKey, ServiceSpec, ServiceTable,
    },
    state::{State, Timeouts},
};

#[cfg(test)]
mod trace_tests;
