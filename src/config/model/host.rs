//! What stands outside of `global_defs` and concerns the process and the interfaces of the host.

use std::time::Duration;

use super::plain::{plain, words};

plain! {
    /// The process as a whole.
    Process {
        /// A name for this process among several.
        instance: Option<String> = "instance",
        /// Files with process ids are in a folder of their own.
        use_pid_dir: bool = "use_pid_dir",
        /// The network namespace to run in.
        net_namespace: Option<String> = "net_namespace",
        /// The network namespace of IPVS's table; without a name the one that the process was started in.
        net_namespace_ipvs: Option<Vec<String>> = "net_namespace_ipvs",
        /// ipsets are used within a network namespace, too.
        namespace_with_ipsets: bool = "namespace_with_ipsets",
        /// Seconds that a stop waits for child processes. `None`: 5.
        child_wait_time: Option<u32> = "child_wait_time",
        /// All links are polled instead of watched.
        linkbeat_use_polling: bool = "linkbeat_use_polling",
    }
}

/// `garp_group`: interfaces that share the pacing of announcements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GarpGroup {
    /// `garp_interval`: pause between two gratuitous ARPs. Microseconds; default none of its own.
    pub garp_interval: Option<Duration>,
    /// `gna_interval`: pause between two unsolicited neighbour advertisements. Microseconds; default none of its own.
    pub gna_interval: Option<Duration>,
    /// `interface`, `interfaces`: the interfaces.
    pub interfaces: Vec<String>,
}

/// An entry of `interface_up_down_delays`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpDownDelay {
    /// The interface.
    pub interface: String,
    /// How long it must be down before it counts as down. Microseconds, up to 255 s.
    pub down: Duration,
    /// How long it must be up before it counts as up. Microseconds, up to 255 s. keepalived's program takes 0 where it
    /// is not given, though its manual says that it is as `down`.
    pub up: Duration,
}

words! {
    /// How a link is polled.
    LinkPoll {
        /// By the PHY's registers.
        Mii = "MII",
        /// By the driver's word.
        Ethtool = "ETHTOOL",
        /// By the flags of the interface.
        Ioctl = "IOCTL",
    }
}

/// An entry of `linkbeat_interfaces`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linkbeat {
    /// The interface.
    pub interface: String,
    /// How its link is polled. `None`: the first way that works.
    pub by: Option<LinkPoll>,
}
