//! Sleeping until a descriptor has something to say.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    ptr,
    time::Duration,
};

use super::waker::Waker;

/// The descriptors that one worker sleeps on: its sockets and its waker. Sleeping allocates nothing.
#[derive(Debug)]
pub struct PollSet {
    waker: Waker,
    /// The waker's entry, then the sockets' in the order they were added.
    entries: Vec<libc::pollfd>,
    /// Errors that sockets reported.
    errors: u64,
}

impl PollSet {
    /// A set that only `waker` wakes, with room for so many sockets: adding them allocates nothing.
    pub fn new(waker: Waker, sockets: usize) -> Self {
        let mut entries = Vec::with_capacity(1 + sockets);
        entries.push(readable(waker.as_fd().as_raw_fd()));
        Self {
            waker,
            entries,
            errors: 0,
        }
    }

    /// Adds a socket, which must stay open for as long as the set is waited on. A number that no
    /// longer names a socket is noticed and ignored, not trusted.
    pub fn add(&mut self, socket: BorrowedFd<'_>) {
        self.entries.push(readable(socket.as_raw_fd()));
    }

    /// Takes all sockets out.
    pub fn clear(&mut self) {
        self.entries.truncate(1);
    }

    /// Sleeps until a socket is readable, the waker fired or `timeout` passed. An error of a socket
    /// (its interface went down) ends the sleep once: it is taken off the socket and counted. A socket
    /// that stays in error is left out from then on, or the worker would never sleep again.
    ///
    /// # Errors
    /// What ppoll(2) reported; an interrupted sleep is not an error.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        let timeout = libc::timespec {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let count = libc::nfds_t::try_from(self.entries.len()).unwrap_or(libc::nfds_t::MAX);
        // SAFETY: `entries` holds `count` initialised entries and `timeout` is a valid timespec, both
        // alive for the call; a null signal mask leaves the mask as it is.
        let ready = unsafe { libc::ppoll(self.entries.as_mut_ptr(), count, &timeout, ptr::null()) };
        if ready < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted {
                Ok(())
            } else {
                Err(error)
            };
        }
        if ready == 0 {
            return Ok(());
        }
        for entry in &mut self.entries {
            let in_error = entry.revents & libc::POLLERR != 0;
            let taken = in_error && take_error(entry.fd);
            self.errors += u64::from(in_error);
            if entry.revents & (libc::POLLHUP | libc::POLLNVAL) != 0 || (in_error && !taken) {
                // A negative descriptor is skipped by ppoll.
                entry.fd = -1;
            }
        }
        self.waker.drain();
        Ok(())
    }

    /// Errors that sockets reported so far.
    pub const fn errors(&self) -> u64 {
        self.errors
    }
}

/// Takes the pending error off a socket, which nothing else does for AF_XDP; whether there was one.
fn take_error(fd: RawFd) -> bool {
    let mut error: libc::c_int = 0;
    let mut len = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0);
    // SAFETY: `error` is writable for `len` bytes, and both are alive for the call. What `fd` is does
    // not matter: the kernel refuses if it is no socket.
    let code = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            (&raw mut error).cast(),
            &mut len,
        )
    };
    code == 0 && error != 0
}

const fn readable(fd: RawFd) -> libc::pollfd {
    libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::sys::clock;

    #[test]
    fn a_socket_in_error_ends_the_sleep_once() {
        const SLEEP: Duration = Duration::from_millis(50);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(gone.local_addr().unwrap()).unwrap();
        drop(gone);
        // On loopback the refusal is there before the call returns.
        socket.send(b"x").unwrap();
        let mut poll = PollSet::new(Waker::new().unwrap(), 1);
        poll.add(socket.as_fd());
        poll.wait(Duration::from_secs(60)).unwrap();
        assert_eq!(poll.errors(), 1);
        let begin = clock::now();
        poll.wait(SLEEP).unwrap();
        assert!(clock::now() - begin >= SLEEP);
        assert_eq!(poll.errors(), 1);
        // It is still waited on.
        socket.send(b"x").unwrap();
        poll.wait(Duration::from_secs(60)).unwrap();
        assert_eq!(poll.errors(), 2);
    }
}
