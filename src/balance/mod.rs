//! What a balancer is: flow keys, the service table and its schedulers, the connection table with
//! persistence templates in it, TCP state, and the rewriting of packets.
//!
//! Pure: time comes in as a [`Tick`](crate::time::Tick), frames as byte slices, and every packet
//! goes out as a [`Verdict`]. One [`Balancer`] belongs to one worker, which feeds it
//! [`Packet`]s that it has classified.

#![forbid(unsafe_code)]

mod balancer;
mod conntable;
mod fragments;
mod inherited;
mod key;
mod listing;
mod offload;
mod owner;
mod packet;
mod path_mtu;
mod policy;
pub mod rewrite;
mod routes;
mod scheduler;
pub mod sctp;
mod service;
mod state;
pub mod tcp;

pub use self::{
    balancer::{Balancer, Decider, Verdict},
    conntable::{Bucket, Candidates, ConnTable, NewConn, Record, Slot, Turn},
    fragments::Fragments,
    inherited::Inherited,
    key::{FlowKey, Key4, Key6},
    listing::{ConnEntry, ConnFilter, Listing},
    offload::{FlowId, Offload},
    owner::Ownership,
    packet::{Classifier, Kind, Packet},
    path_mtu::PathMtus,
    policy::{Policy, TunnelSources},
    routes::{Route, Routes, Way},
    scheduler::{
        Ask, Entry, Limits, Load, MaglevSize, MaglevTables, Others, Picker, Scheduler,
        SchedulerState,
    },
    service::{
        BuildError, Environment, Hop, HopId, LbKind, MAX_SERVICES, MarkRule, Match, NextHop,
        Persistence, PortSpec, Question, Real, RealId, RealRef, RealSpec, Service, ServiceId,
        ServiceKey, ServiceSpec, ServiceTable, TableBuilder,
    },
    state::{State, Timeouts},
};

#[cfg(test)]
mod trace_tests;
