//! What becomes of packets whose connection is not as it should be: IPVS's sysctls, by their names,
//! and what it does not have.

use std::net::{Ipv4Addr, Ipv6Addr};

/// IPVS's sysctls with its defaults, and settings of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `conn_reuse_mode` bit 0 or 1: a SYN on a finished connection starts a new one. Default true.
    pub reuse_finished: bool,
    /// `conn_reuse_mode` bit 1: also on one in FIN_WAIT whose answers do not pass here. Default false.
    pub reuse_closing: bool,
    /// `expire_quiescent_template`: a template to a real server of weight 0 leads nobody any more.
    /// Default false.
    pub expire_quiescent_template: bool,
    /// `expire_nodest_conn`: a connection to a real server that left the configuration ends with its next
    /// packet, which then is treated as one of a new flow, instead of being dropped. Default true, unlike
    /// IPVS: a client that gets a reset connects anew at once.
    pub expire_nodest_conn: bool,
    /// `sloppy_tcp`: any segment but a reset may start a connection. Default false.
    pub sloppy_tcp: bool,
    /// `sloppy_sctp`: any chunk but ABORT may start a connection. Default false.
    pub sloppy_sctp: bool,
    /// `schedule_icmp`: an ICMP error about a flow that is not known goes where the scheduler would send the flow.
    /// Default false.
    pub schedule_icmp: bool,
    /// `nat_icmp_send`: a real server whose packet answers no connection is told so by ICMP. Default false:
    /// the packet is routed on.
    pub nat_icmp_send: bool,
    /// `pmtu_disc`: a tunnelled packet that may not be fragmented makes one that may not either. Default true.
    pub pmtu_disc: bool,
    /// TCP connections of a real server that is down or gone are reset with their next segment. Default false.
    pub reset_on_failure: bool,
    /// UDP flows of a real server that is down move to another one with their next packet. Default true.
    pub udp_move: bool,
    /// TUN: networks of ours, one a family, from which each flow takes an outer source address of its own, so that
    /// the real server's receive queues share the work. Default none: the address on the way there.
    pub tunnel_sources: TunnelSources,
}

/// Networks of outer source addresses: an address and how many leading bits of it stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunnelSources {
    /// For IPv4 outside.
    pub v4: Option<(Ipv4Addr, u8)>,
    /// For IPv6 outside.
    pub v6: Option<(Ipv6Addr, u8)>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            reuse_finished: true,
            reuse_closing: false,
            expire_quiescent_template: false,
            expire_nodest_conn: true,
            sloppy_tcp: false,
            sloppy_sctp: false,
            schedule_icmp: false,
            nat_icmp_send: false,
            pmtu_disc: true,
            reset_on_failure: false,
            udp_move: true,
            tunnel_sources: TunnelSources::default(),
        }
    }
}
