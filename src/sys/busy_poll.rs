//! Busy polling (`--busy-poll`): the driver's receive work is done in the worker's own system calls
//! instead of in interrupts, so that one processor does all, with a better tail and no moves between two.
//!
//! The kernel's part is to hold interrupts back while somebody polls: `napi_defer_hard_irqs` and
//! `gro_flush_timeout` of the interface. When nobody does, the timer below turns them on again.

use std::{
    fs, io,
    os::fd::{AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
    ptr,
};

use super::{device::InterfaceSpec, sockopt};

/// How long one call polls when nothing is there, in microseconds.
const BUSY_POLL_US: i32 = 20;
/// Packets that one call takes from the driver. More than 64 needs CAP_NET_ADMIN.
const BUDGET: i32 = 256;
/// Empty polls until the driver's interrupts are on again.
const DEFER_HARD_IRQS: u32 = 2;
/// Nanoseconds after which the kernel polls by itself when nobody did: ten times as long as a worker that
/// is busy takes for a burst.
const FLUSH_TIMEOUT_NS: u32 = 200_000;

/// Has the calls on `socket`, an AF_XDP one, do the receive work of its queue.
///
/// # Errors
/// What setsockopt(2) reported: the kernel is older than 5.11, or CAP_NET_ADMIN is missing.
pub(super) fn prefer(socket: BorrowedFd<'_>) -> io::Result<()> {
    for (option, value) in [
        (libc::SO_PREFER_BUSY_POLL, 1),
        (libc::SO_BUSY_POLL, BUSY_POLL_US),
        (libc::SO_BUSY_POLL_BUDGET, BUDGET),
    ] {
        sockopt::set_int(socket, libc::SOL_SOCKET, option, value)?;
    }
    Ok(())
}

/// Does the receive work of the queue that `socket` is bound to. That there is none is no error.
pub(super) fn poll_once(socket: BorrowedFd<'_>) {
    // SAFETY: a length of 0 means that nothing is written to the null pointer; the descriptor is open for
    // as long as it is borrowed. What the call reports is of no matter: frames show in the ring.
    unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            ptr::null_mut(),
            0,
            libc::MSG_DONTWAIT,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    };
}

/// The settings of an interface that [`Deferral::begin`] changed, and what they were.
#[derive(Debug)]
pub struct Deferral {
    folder: PathBuf,
    ifindex: u32,
    former: Vec<(&'static str, String)>,
}

impl Deferral {
    /// Has `spec`'s interface hold interrupts back while its queues are polled. After a crash it stays so,
    /// which costs the host up to 200 µs of latency on that interface and nothing else.
    ///
    /// # Errors
    /// What the kernel refused; or its settings in `/sys` are not those of this network namespace.
    pub fn begin(spec: &InterfaceSpec) -> io::Result<Self> {
        let mut deferral = Self {
            folder: Path::new("/sys/class/net").join(&spec.name),
            ifindex: spec.ifindex,
            former: Vec::new(),
        };
        if !deferral.is_there() {
            let other = "/sys shows another network namespace";
            return Err(io::Error::new(io::ErrorKind::NotFound, other));
        }
        for (name, value) in [
            ("napi_defer_hard_irqs", DEFER_HARD_IRQS),
            ("gro_flush_timeout", FLUSH_TIMEOUT_NS),
        ] {
            let file = deferral.folder.join(name);
            let former = fs::read_to_string(&file);
            if let Err(error) = former
                .and_then(|former| fs::write(&file, value.to_string()).map(|()| former))
                .map(|former| deferral.former.push((name, former)))
            {
                deferral.end();
                return Err(error);
            }
        }
        Ok(deferral)
    }

    /// Makes all as it was, unless another interface has the name now.
    pub fn end(&self) {
        if !self.is_there() {
            return;
        }
        for (name, former) in &self.former {
            // What the kernel refuses stays: it costs latency and nothing else.
            let _ = fs::write(self.folder.join(name), former.trim());
        }
    }

    fn is_there(&self) -> bool {
        let index = fs::read_to_string(self.folder.join("ifindex"));
        index.is_ok_and(|text| text.trim() == self.ifindex.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_here_is_left_alone() {
        let spec = InterfaceSpec {
            name: "lo".to_owned(),
            ifindex: 4711,
        };
        let error = Deferral::begin(&spec).unwrap_err();
        assert!(error.to_string().contains("another network namespace"));
    }
}
