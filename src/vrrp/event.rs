//! What an instance has to say, in keepalived's words.

use std::{fmt, net::Ipv4Addr, sync::Arc, time::Duration};

use super::receive::RejectReason;

/// A line for the log: `(NAME) text`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Name of the instance.
    pub name: Arc<str>,
    /// What happened.
    pub event: Event,
}

impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}) {}", self.name, self.event)
    }
}

/// Something worth a line. `Display` gives keepalived's text where keepalived has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The startup delay begins.
    StartupDelay(Duration),
    /// BACKUP for the first time.
    EnteringBackupInit,
    /// BACKUP after MASTER or FAULT.
    EnteringBackup,
    /// MASTER.
    EnteringMaster,
    /// FAULT.
    EnteringFault {
        /// Why.
        reason: FaultReason,
    },
    /// The addresses are about to be added.
    SettingAddresses,
    /// The addresses are about to be removed.
    RemovingAddresses,
    /// The Master_Down_Timer has fired.
    AdvertTimeout,
    /// A priority 0 advert has been sent.
    SentPriorityZero,
    /// BACKUP: the MASTER says that it stops.
    BackupReceivedPriorityZero,
    /// MASTER: another MASTER says that it stops.
    MasterReceivedPriorityZero,
    /// MASTER: gives way.
    HigherPriority {
        /// Sender.
        from: Ipv4Addr,
        /// Its priority.
        priority: u8,
        /// Our effective priority.
        ours: u8,
    },
    /// MASTER: gives way to an equal priority with a higher address.
    HigherAddress {
        /// Sender.
        from: Ipv4Addr,
        /// Its priority and ours.
        priority: u8,
    },
    /// MASTER: stays.
    LowerPriority {
        /// Sender.
        from: Ipv4Addr,
        /// Its priority.
        priority: u8,
        /// Our effective priority.
        ours: u8,
    },
    /// BACKUP: does not count as a sign of life, so this router takes over.
    Discarding {
        /// Sender.
        from: Ipv4Addr,
        /// Its priority.
        priority: u8,
    },
    /// BACKUP: the `preempt_delay` begins.
    PreemptDelayStarted(Duration),
    /// BACKUP: a MASTER that may stay was heard within the `preempt_delay`.
    PreemptDelayStopped,
    /// Two routers claim to own the addresses.
    OwnerConflict {
        /// The other one.
        from: Ipv4Addr,
    },
    /// The number of addresses in an accepted advert is not ours.
    AddressCount {
        /// Addresses configured.
        expected: usize,
        /// Addresses in the advert.
        received: usize,
    },
    /// An accepted advert of that router does not contain an address of ours.
    AddressMissing {
        /// Sender.
        from: Ipv4Addr,
        /// Our virtual router ID.
        vrid: u8,
        /// The first such address.
        address: Ipv4Addr,
    },
    /// Trackers have moved the effective priority.
    PriorityChanged {
        /// From.
        from: u8,
        /// To.
        to: u8,
    },
    /// An advert was sent this long after its time.
    LateAdvert(Duration),
    /// An advert was refused.
    Rejected {
        /// Why.
        reason: RejectReason,
        /// Sender.
        from: Ipv4Addr,
        /// The number that is wrong; addresses as numbers.
        received: u32,
        /// What it should be.
        expected: u32,
    },
    /// Too many senders: messages about further ones are left out, they are still counted.
    FurtherSendersNotLogged,
}

/// Why an instance cannot take part. `Display` says it in a few words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultReason {
    /// No interface has this name, its own or that of a virtual address.
    NoInterface(String),
    /// The interface of this name is down, or nothing is plugged in.
    LinkDown(String),
    /// Something else that the caller found and put into words, see
    /// [`Router::set_obstacle`](super::Router::set_obstacle).
    Obstacle(String),
    /// The interface of this name, its own, has no address that adverts could come from.
    NoAddress(String),
}

impl fmt::Display for FaultReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoInterface(interface) => write!(f, "{interface} does not exist"),
            Self::LinkDown(interface) => write!(f, "{interface} is down"),
            Self::Obstacle(what) => f.write_str(what),
            Self::NoAddress(interface) => write!(f, "{interface} has no IPv4 address"),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StartupDelay(delay) => {
                write!(f, "Delaying startup for {} seconds", delay.as_secs_f64())
            }
            Self::EnteringBackupInit => f.write_str("Entering BACKUP STATE (init)"),
            Self::EnteringBackup => f.write_str("Entering BACKUP STATE"),
            Self::EnteringMaster => f.write_str("Entering MASTER STATE"),
            Self::EnteringFault { reason } => write!(f, "Entering FAULT STATE ({reason})"),
            Self::SettingAddresses => f.write_str("setting VIPs."),
            Self::RemovingAddresses => f.write_str("removing VIPs."),
            Self::AdvertTimeout => f.write_str("Receive advertisement timeout"),
            Self::SentPriorityZero => f.write_str("sent 0 priority"),
            Self::BackupReceivedPriorityZero => {
                f.write_str("Backup received priority 0 advertisement")
            }
            Self::MasterReceivedPriorityZero => f.write_str("Master received priority 0 message"),
            Self::HigherPriority {
                from,
                priority,
                ours,
            } => write!(
                f,
                "Master received advert from {from} with higher priority {priority}, ours {ours}"
            ),
            Self::HigherAddress { from, priority } => write!(
                f,
                "Master received advert from {from} with same priority {priority} \
                 but higher IP address than ours"
            ),
            Self::LowerPriority {
                from,
                priority,
                ours,
            } => write!(
                f,
                "Received advert from {from} with lower priority {priority}, ours {ours}, \
                 forcing new election"
            ),
            Self::Discarding { from, priority } => write!(
                f,
                "received lower priority ({priority}) advert from {from} - discarding"
            ),
            Self::PreemptDelayStarted(delay) => {
                write!(f, "start preempt delay ({:.6})", delay.as_secs_f64())
            }
            Self::PreemptDelayStopped => f.write_str("stop preempt delay"),
            Self::OwnerConflict { from } => write!(
                f,
                "CONFIGURATION ERROR: {from} and this router are both configured as address owner \
                 (priority 255)"
            ),
            Self::AddressCount { expected, received } => {
                write!(f, "expected {expected} VIPs but received {received}")
            }
            Self::AddressMissing {
                from,
                vrid,
                address,
            } => write!(
                f,
                "ip address {address} associated with VRID {vrid} not present in MASTER advert: {from}"
            ),
            Self::PriorityChanged { from, to } => {
                write!(f, "Changing effective priority from {from} to {to}")
            }
            Self::LateAdvert(late) => {
                write!(f, "advert sent {:.3} seconds late", late.as_secs_f64())
            }
            Self::Rejected {
                reason,
                from,
                received,
                expected,
            } => write_rejected(f, *reason, *from, *received, *expected),
            Self::FurtherSendersNotLogged => {
                f.write_str("adverts of too many senders: messages about further ones are left out")
            }
        }
    }
}

fn write_rejected(
    f: &mut fmt::Formatter<'_>,
    reason: RejectReason,
    from: Ipv4Addr,
    received: u32,
    expected: u32,
) -> fmt::Result {
    match reason {
        RejectReason::Ttl => {
            write!(
                f,
                "invalid TTL/HL. Received {received} and expect {expected}"
            )
        }
        RejectReason::Version => {
            write!(
                f,
                "wrong version. Received {received} and expect {expected}"
            )
        }
        RejectReason::Length => {
            let how = if received < expected { "short" } else { "long" };
            write!(
                f,
                "vrrp packet too {how}, length {received} and expect {expected}"
            )
        }
        RejectReason::Kind => {
            write!(f, "Invalid packet type. {received} and expect {expected}")
        }
        RejectReason::Checksum => f.write_str("Invalid VRRPv2 checksum"),
        RejectReason::AuthTypeUnknown => write!(f, "Invalid auth type: {received}"),
        RejectReason::AuthTypeMismatch => {
            write!(f, "received a {received} auth, expecting {expected}!")
        }
        RejectReason::Password => f.write_str("received an invalid passwd!"),
        RejectReason::Interval => write!(
            f,
            "advertisement interval mismatch mine={expected} sec rcv'd={received} sec"
        ),
        RejectReason::SourceInvalid => {
            write!(
                f,
                "advert from {from}, which is no router's address - discarding"
            )
        }
        RejectReason::SourceOwn => write!(
            f,
            "advert from our own address {from} - discarding (duplicate address or a loop)"
        ),
        RejectReason::SourceNotPeer => {
            write!(
                f,
                "unicast source address {from} not a unicast peer - discarding"
            )
        }
        RejectReason::Destination => write!(
            f,
            "advert from {from} to {} - discarding, expecting {}",
            Ipv4Addr::from(received),
            Ipv4Addr::from(expected)
        ),
        // Not the fault of an instance, and not logged.
        RejectReason::Malformed
        | RejectReason::Protocol
        | RejectReason::UnknownVrid
        | RejectReason::NotRunning => write!(f, "advert from {from} - discarding ({reason})"),
    }
}
