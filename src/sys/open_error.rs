//! Why packet I/O could not be opened, and what to do about it.

use std::{error, fmt, io};

use crate::addr::PortId;

/// A failure to get at an interface's packets. Each message says what to do.
#[derive(Debug)]
pub enum OpenError {
    /// No interface of this name, or it went away meanwhile.
    NoInterface {
        /// The interface as the user named it.
        interface: String,
    },
    /// The interface has no Ethernet header: loopback, a tunnel, a tun device.
    NotEthernet {
        /// The interface.
        interface: String,
    },
    /// The kernel says "not permitted".
    Privilege {
        /// What was refused.
        action: &'static str,
        /// The capabilities that allow it, as capabilities(7) names them.
        needs: &'static str,
    },
    /// An XDP program or tc filter of somebody else is where ours would go.
    Foreign {
        /// The interface.
        interface: String,
        /// What is there: its kind, name and number.
        found: String,
        /// The command that removes it.
        remedy: String,
    },
    /// Another AF_XDP socket holds the queue.
    QueueBusy {
        /// The interface.
        interface: String,
        /// The queue's number.
        queue: u32,
    },
    /// The kernel was built without AF_XDP, or is older than 4.18.
    NoAfXdp,
    /// Too little memory may be locked for the frames.
    LockedMemory {
        /// What the frames take, in bytes.
        needed: u64,
    },
    /// The kernel would not load the steering program.
    Program {
        /// What the kernel answered.
        source: io::Error,
        /// The last lines of the verifier's log; empty when it never got that far.
        log: String,
    },
    /// More receive queues than the steering program's map has places.
    TooManyQueues {
        /// The interface.
        interface: String,
        /// How many it has.
        queues: u32,
    },
    /// All ports are taken.
    TooManyInterfaces {
        /// The one that is too many.
        interface: String,
    },
    /// The interface is down, and what was asked of it takes one that is up.
    Down {
        /// The interface.
        interface: String,
    },
    /// Anything else that the kernel refused.
    Refused {
        /// What was asked of it.
        action: String,
        /// What it answered.
        source: io::Error,
    },
}

impl OpenError {
    /// Whether AF_PACKET may work where AF_XDP failed with this: the kernel or the driver refused, not
    /// the administrator or another engine, and not for the moment only: what is chosen at start stays.
    pub fn is_xdp_refusal(&self) -> bool {
        match self {
            Self::NoAfXdp
            | Self::LockedMemory { .. }
            | Self::Program { .. }
            | Self::TooManyQueues { .. } => true,
            Self::Refused { source, .. } => !is_passing(source),
            _ => false,
        }
    }

    /// The error for what the kernel answered to `action` on `interface`.
    pub(crate) fn from_errno(interface: &str, action: &'static str, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::ENODEV | libc::ENXIO) => Self::NoInterface {
                interface: interface.to_owned(),
            },
            Some(libc::ENETDOWN) => Self::Down {
                interface: interface.to_owned(),
            },
            Some(libc::EPERM | libc::EACCES) => Self::Privilege {
                action,
                needs: "CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF",
            },
            _ => Self::Refused {
                action: format!("{interface}: {action}"),
                source,
            },
        }
    }
}

/// Whether the same call may succeed later, or with more descriptors.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::EMFILE | libc::ENFILE | libc::ENETDOWN
        )
    )
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoInterface { interface } => write!(
                f,
                "{interface}: no such interface; `ip link` lists those there are"
            ),
            Self::NotEthernet { interface } => write!(
                f,
                "{interface}: not an Ethernet interface; name the one that the clients' packets \
                 come in on"
            ),
            Self::Privilege { action, needs } => write!(
                f,
                "no permission to {action}: run as root or grant {needs} (systemd: \
                 AmbientCapabilities=)"
            ),
            Self::Foreign {
                interface,
                found,
                remedy,
            } => write!(
                f,
                "{interface}: {found} is attached and is not ours; remove it (`{remedy}`) or use \
                 another interface"
            ),
            Self::QueueBusy { interface, queue } => write!(
                f,
                "{interface}: another AF_XDP socket holds queue {queue}; is another xvs running? \
                 Stop the program that holds it (`ss --xdp -p` names it)"
            ),
            Self::NoAfXdp => f.write_str(
                "this kernel has no AF_XDP (CONFIG_XDP_SOCKETS, Linux 4.18); use --io af-packet",
            ),
            Self::LockedMemory { needed } => write!(
                f,
                "may not lock {} MiB of memory for packets: grant CAP_IPC_LOCK or raise the limit \
                 (systemd: LimitMEMLOCK=, shell: ulimit -l)",
                needed.div_ceil(1 << 20)
            ),
            Self::Program { source, log } => {
                write!(
                    f,
                    "the kernel would not load the steering program: {source}; it needs Linux \
                     5.11 with CONFIG_BPF_SYSCALL"
                )?;
                if log.is_empty() {
                    Ok(())
                } else {
                    write!(f, "; the verifier says: {log}")
                }
            }
            Self::TooManyQueues { interface, queues } => write!(
                f,
                "{interface}: {queues} receive queues are more than the steering program serves; \
                 lower them (`ethtool -L {interface} combined 64`)"
            ),
            Self::TooManyInterfaces { interface } => write!(
                f,
                "{interface}: no more than {} interfaces can be open at a time",
                PortId::COUNT
            ),
            Self::Down { interface } => write!(
                f,
                "{interface}: the interface is down, and its driver gives no packets before it is \
                 up; `ip link set {interface} up`"
            ),
            Self::Refused { action, source } => write!(f, "{action}: {source}"),
        }
    }
}

impl error::Error for OpenError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Program { source, .. } | Self::Refused { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_says_what_to_do() {
        let interface = || "eth7".to_owned();
        let errno = io::Error::from_raw_os_error;
        for (error, remedy) in [
            (
                OpenError::from_errno("eth7", "attach", errno(libc::ENODEV)),
                "ip link",
            ),
            (
                OpenError::from_errno("eth7", "attach", errno(libc::EPERM)),
                "CAP_NET_RAW",
            ),
            (OpenError::NoAfXdp, "--io af-packet"),
            (
                OpenError::LockedMemory { needed: 9 << 20 },
                "grant CAP_IPC_LOCK or raise",
            ),
            (
                OpenError::QueueBusy {
                    interface: interface(),
                    queue: 3,
                },
                "Stop the program",
            ),
            (
                OpenError::NotEthernet {
                    interface: interface(),
                },
                "name the one",
            ),
        ] {
            let text = error.to_string();
            assert!(text.contains(remedy), "{text}");
        }
        let down = OpenError::from_errno("eth7", "bind", errno(libc::ENETDOWN)).to_string();
        assert!(down.contains("ip link set eth7 up"), "{down}");
        let other = OpenError::from_errno("eth7", "attach", errno(libc::EINVAL)).to_string();
        assert!(other.starts_with("eth7: attach: "), "{other}");
    }
    #[test]
    fn what_passes_is_no_reason_to_settle_on_less() {
        for (errno, settle) in [
            (libc::EOPNOTSUPP, true),
            (libc::EINVAL, true),
            (libc::ERANGE, true),
            (libc::ENETDOWN, false),
            (libc::EBUSY, false),
            (libc::EMFILE, false),
            (libc::EPERM, false),
            (libc::ENODEV, false),
        ] {
            let error = OpenError::from_errno("eth7", "x", io::Error::from_raw_os_error(errno));
            assert_eq!(error.is_xdp_refusal(), settle, "{error}");
        }
    }
}
