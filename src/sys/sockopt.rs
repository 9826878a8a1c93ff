//! The few socket options that socket2 has no method for.

use std::{
    io,
    mem::{size_of, zeroed},
    os::fd::{AsRawFd, BorrowedFd},
};

/// Makes the receive buffer of `socket` hold `bytes`, beyond `net.core.rmem_max` where
/// `CAP_NET_ADMIN` allows it (`SO_RCVBUFFORCE`), else up to that maximum (`SO_RCVBUF`).
pub(super) fn grow_receive_buffer(socket: BorrowedFd<'_>, bytes: i32) -> io::Result<()> {
    set_int(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes)
        .or_else(|_| set_int(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes))
}

/// The process that called `listen` on, or connected, the other end of the Unix socket `socket`.
pub(super) fn peer_credentials(socket: BorrowedFd<'_>) -> io::Result<libc::ucred> {
    // SAFETY: `ucred` is three integers, for which all zeroes is a value.
    let mut credentials: libc::ucred = unsafe { zeroed() };
    let mut length = socklen::<libc::ucred>();
    // SAFETY: the pointer and `length` describe `credentials`, which outlives the call; the
    // descriptor is open as long as `socket` is borrowed.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    if status == 0 {
        Ok(credentials)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sets an option whose value is an integer.
pub(super) fn set_int(socket: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which outlives the call; the
    // descriptor is open as long as `socket` is borrowed.
    let status = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            socklen::<i32>(),
        )
    };
    super::done(status)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the size of an option's value is a few bytes"
)]
const fn socklen<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}
