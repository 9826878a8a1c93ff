//! The words of LVS that several layers share: what a virtual server and a real server are known by.

#![forbid(unsafe_code)]

/// The slot of a virtual server, allotted by control for as long as it exists. A slot that is used again
/// has another epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub u32);

/// The slot of a real server of one virtual server, allotted by control for as long as it exists, over all
/// virtual servers: index of its counters in every worker. A slot that is used again has another epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RealId(pub u32);
