//! The interfaces of the data plane, as control opens and closes them while the workers run.
//!
//! An interface that is wanted is open, being opened, or waits: for itself to exist, to be up, for somebody
//! else's program to go. What it waits for is tried every second, said once, and shown. One that is deleted,
//! moved to another network namespace, given other queues, or whose program somebody took off is closed, and
//! opened again when it can be; the others do not notice, and no connection is forgotten.
//!
//! # Threads
//!
//! Opening and closing are done by a thread that lives as long as that takes, one for each interface: it takes
//! some 20 ms to load and attach the program on veth, and closing a socket waits for a grace period of the
//! kernel, 10 to 30 ms for each queue; many drivers need longer, as they restart their queues. The control
//! thread, whose adverts leave on time, only starts them and takes what they bring.
//!
//! # Frames
//!
//! A port is a slot, and each chunk that the kernel has is noted with it. When an interface goes, each worker
//! gives its sockets back and touches them no more; a thread closes them, and waits until the kernel has let
//! go of them, which it does later than close(2): until then a driver may still write to the chunks. Then each
//! worker takes back the chunks that the port had. The slot is free when, besides, all workers have left the
//! table that was published last when it went, and nothing that came in on it is between two workers.

mod control;
mod job;
mod machine;
pub mod orders;
mod slots;

use std::{fmt, os::fd::OwnedFd};

pub use self::{control::PortControl, machine::Ports};
use crate::{
    addr::PortId,
    stats::IoDrops,
    sys::{
        busy_poll::Deferral,
        device::{InterfaceSpec, Properties},
        open_error::OpenError,
        steer::{Hook, PortProgram},
        xsk::XskStatistics,
    },
};

/// How an interface's packets are got, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// AF_XDP; the driver writes into our frames.
    ZeroCopy,
    /// AF_XDP; the program runs in the driver, the kernel copies.
    NativeCopy,
    /// AF_XDP; the program runs in the kernel's receive path.
    Generic,
    /// AF_PACKET; the kernel copies, and an ingress filter drops its own copy.
    AfPacket,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZeroCopy => "AF_XDP zero-copy",
            Self::NativeCopy => "AF_XDP native copy",
            Self::Generic => "AF_XDP generic",
            Self::AfPacket => "AF_PACKET",
        })
    }
}

/// What was reached on one interface. Shown as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceReport {
    /// The interface.
    pub interface: String,
    /// What was reached.
    pub level: Level,
    /// Receive queues served.
    pub queues: u32,
    /// Why it is not a better level, and what else to know.
    pub notes: Vec<String>,
}

impl fmt::Display for InterfaceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.queues == 1 { "" } else { "s" };
        write!(
            f,
            "{}: {} on {} queue{plural}",
            self.interface, self.level, self.queues
        )?;
        if self.notes.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", self.notes.join("; "))
    }
}

/// How it stands with an interface that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortState {
    /// It is open as this port.
    Open(PortId, InterfaceReport),
    /// It is being opened.
    Opening,
    /// It cannot be opened now, for this reason; it is tried again every second.
    Waiting(String),
}

/// Something that has become of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortNews {
    /// A line that says so.
    pub text: String,
    /// Whether it is to be mended, else it is as it should be.
    pub trouble: bool,
}

/// An interface that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortStatus {
    /// Which it is.
    pub spec: InterfaceSpec,
    /// How it stands with it.
    pub state: PortState,
}

impl fmt::Display for PortStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            PortState::Open(_, report) => report.fmt(f),
            PortState::Opening => write!(f, "{}: being opened", self.spec),
            // The reason may begin with the interface, as errors do.
            PortState::Waiting(reason) => {
                let name = format!("{}: ", self.spec);
                let reason = reason.strip_prefix(&name).unwrap_or(reason);
                write!(f, "{name}waiting, as {reason}")
            }
        }
    }
}

/// One try to open an interface.
pub struct Attempt<'a> {
    /// The interface.
    pub spec: &'a InterfaceSpec,
    /// What it is.
    pub properties: &'a Properties,
    /// The port that it is to be.
    pub port: PortId,
    /// Its program, loaded; it may be attached already.
    pub program: &'a mut PortProgram,
    /// Why it cannot have zero-copy, if a former try has shown that.
    pub no_zero_copy: &'a mut Option<String>,
}

/// An interface that was opened.
pub struct OpenPort<P> {
    /// What each worker gets of it.
    pub parts: Vec<P>,
    /// What was reached.
    pub report: InterfaceReport,
    /// What is to be ended when it is closed.
    pub deferral: Option<Deferral>,
}

/// How packets are got at: what opens an interface and what closes it. Its calls may wait for the kernel, so they
/// are made on threads of their own.
pub trait Backend: Send + Sync + 'static {
    /// What one worker gets of an interface.
    type Part: Send + 'static;

    /// Where the kernel asks for the decision.
    const HOOK: Hook;

    /// Opens an interface and attaches its program.
    ///
    /// # Errors
    /// [`OpenError`]; then the attempt's program may be attached. [`OpenError::QueueBusy`] may pass in an instant.
    fn open(&self, attempt: Attempt<'_>) -> Result<OpenPort<Self::Part>, OpenError>;

    /// Whether the kernel has let go of so many queues of an interface whose sockets were closed.
    fn is_released(&self, spec: &InterfaceSpec, queues: u32) -> bool;

    /// Whether a socket has lost its interface for good.
    fn is_unbound(&self, socket: &OwnedFd) -> bool;

    /// Adds what the kernel counted for a socket: to `drops` what asking makes zero, to the result what it does not.
    fn count(&self, socket: &OwnedFd, drops: &IoDrops) -> Option<XskStatistics>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_one_line_with_the_reasons() {
        let mut report = InterfaceReport {
            interface: "eth1".to_owned(),
            level: Level::NativeCopy,
            queues: 4,
            notes: Vec::new(),
        };
        assert_eq!(report.to_string(), "eth1: AF_XDP native copy on 4 queues");
        report.queues = 1;
        report.notes = vec!["zero-copy: not supported".to_owned(), "b".to_owned()];
        assert_eq!(
            report.to_string(),
            "eth1: AF_XDP native copy on 1 queue (zero-copy: not supported; b)"
        );
    }

    #[test]
    fn a_status_names_its_interface_once() {
        let status = |state| PortStatus {
            spec: InterfaceSpec {
                name: "eth1".to_owned(),
                ifindex: 7,
            },
            state,
        };
        let waiting = |reason: &str| status(PortState::Waiting(reason.to_owned())).to_string();
        assert_eq!(waiting("eth1: it is down"), "eth1: waiting, as it is down");
        assert_eq!(waiting("no memory"), "eth1: waiting, as no memory");
        assert_eq!(status(PortState::Opening).to_string(), "eth1: being opened");
    }
}
