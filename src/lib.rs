//! xvs: keepalived and the kernel's IPVS in one program that needs no `ip_vs` module.
//!
//! It reads `keepalived.conf`, elects a master by VRRP, takes the virtual addresses over by ARP,
//! checks real servers, and forwards layer-4 traffic itself, in userspace, over AF_XDP.
//!
//! # The house
//!
//! The arrow names the only layers that a layer may import; `tidy.rs` holds everybody to it.
//!
//! ```text
//! main.rs      arguments in, exit code out                                        -> cli
//! time         Instant, Tick (coarse), no clock of its own                        -> nothing
//! addr         MacAddr, prefixes, families, L4Proto, Endpoint                     -> nothing
//! lvs          words of LVS: ids of virtual and real servers, lb_algo, lb_kind    -> addr
//! wire         one file a header: ethernet, ipv4, tcp, icmp, arp, vrrp, checksum  -> addr
//! stats        Counter, DropReason, per-service and per-real counters             -> nothing
//! balance      what a balancer is: flow key and hash, service table, schedulers,
//!              connection and persistence tables, TCP state, rewrite              -> wire addr lvs time stats
//! vrrp         the VRRP machine, and a simulated LAN for its tests                -> wire addr time
//! check        the health-check machines and quorum                               -> addr lvs time
//! config       keepalived.conf: lexer, parser, model with units, diagnostics      -> addr lvs time
//! sys          all unsafe code, every system call                                 -> addr time
//! dataplane    PacketIo (AF_XDP, AF_PACKET, in memory), workers, publishing       -> balance wire addr stats time sys
//! control      the mio loop, a folder a room: engine (loop, reload), forwarding,
//!              checks, VRRP, control socket                                       -> all of the above
//! cli          run, check, list, vrrp, reload, cleanup; keepalived's options      -> config control stats
//! ```
//!
//! Pure layers (time, addr, lvs, wire, stats, balance, vrrp, check, config) see no clock, no file
//! descriptor and no unsafe code. Data flows down by call; upper layers *pull* what happened
//! (`poll_action()`), lower layers never call up.
//!
//! # Threads, and who owns what
//!
//! One forwarding worker a queue and one control thread. A worker owns its frames, its connection
//! table and its counters, and never allocates, locks, logs or reads a clock per packet. Worker q has
//! queue q of every interface; what must be decided in one place wherever it comes in (a persistent
//! client's connections) has an owner that follows from the packet, and is handed over to it by a
//! bounded ring. Control owns the configuration, the protocol machines and the steering program's
//! maps; it builds an immutable `ServiceTable` for every change and publishes it, and frees the old
//! one after every worker has reported the new generation. Order is make-before-break: a virtual
//! server is published before the steering program sends its packets, and withdrawn the other way
//! round.

pub mod addr;
pub mod balance;
pub mod check;
pub mod cli;
pub mod config;
pub mod control;
pub mod dataplane;
pub mod lvs;
pub mod stats;
#[allow(unsafe_code, reason = "the one layer that talks to the kernel")]
pub mod sys;
#[cfg(test)]
mod tidy;
pub mod time;
pub mod vrrp;
pub mod wire;
