//! Interrupts a worker's sleep: an eventfd that its `poll` watches beside the sockets.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    sync::Arc,
};

/// A handle that wakes one worker. Clones wake the same worker; none of the calls blocks.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// A waker that nobody has used yet.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just created, so it is open and nobody else owns it.
        Ok(Self(Arc::new(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Ends the worker's current sleep, or its next one. Calls before it wakes count as one.
    pub fn wake(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: `one` is the 8 bytes that an eventfd takes, alive for the call. Its only failure,
        // a counter that is full, means that a wake-up is pending already.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Forgets the wake-ups so far; whether there were any.
    pub fn drain(&self) -> bool {
        let mut count = [0_u8; 8];
        // SAFETY: `count` is writable for the 8 bytes that an eventfd gives, alive for the call.
        let read =
            unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
        read > 0
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wakes_of_any_clone_are_seen_once() {
        let waker = Waker::new().unwrap();
        assert!(!waker.drain());
        waker.clone().wake();
        waker.wake();
        assert!(waker.drain());
        assert!(!waker.drain());
    }
}
