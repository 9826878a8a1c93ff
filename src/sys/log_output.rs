//! Writing log lines without ever waiting for whoever reads them.

use std::{
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
};

/// Longest line, its end included; a pipe takes this much at once when it is ready (`PIPE_BUF`).
pub const MAX_LINE: usize = 4096;

/// Standard error, as a place for lines. Whoever shares it (a shell, the guardian) is left alone:
/// its flags are theirs as well, so it is not made non-blocking.
#[derive(Debug)]
pub struct LogOutput {
    /// A pipe or terminal, opened a second time, which never blocks. `None` for what cannot be
    /// opened again (a socket) or must not be (a file, whose end two descriptors would not share).
    reopened: Option<File>,
}

impl LogOutput {
    /// Standard error as it is now.
    pub fn stderr() -> Self {
        Self {
            reopened: reopen(io::stderr().as_fd()),
        }
    }

    /// The pipe or terminal `target`, for a test.
    #[cfg(test)]
    pub(crate) fn reopen(target: &impl AsFd) -> Self {
        let reopened = reopen(target.as_fd());
        assert!(reopened.is_some());
        Self { reopened }
    }

    /// Writes `bytes` or the beginning of them, if that can be done without waiting, and answers how many
    /// were. A reader that has stopped (a full pipe, a frozen journal) never costs the caller's time.
    ///
    /// # Errors
    /// `WouldBlock` when the reader is behind, else what the write said.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(mut file) = self.reopened.as_ref() {
            return file.write(bytes);
        }
        let stderr = io::stderr();
        let fd = stderr.as_fd();
        match send(fd, bytes) {
            Err(error) if error.raw_os_error() == Some(libc::ENOTSOCK) => {}
            sent => return sent,
        }
        if !is_ready(fd)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        stderr.lock().write(bytes)
    }
}

/// Opens a pipe or a character device again, so that the flags are our own.
fn reopen(fd: BorrowedFd<'_>) -> Option<File> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let kind = std::fs::metadata(&path).ok()?.file_type();
    if !kind.is_fifo() && !kind.is_char_device() {
        return None;
    }
    let mut options = File::options();
    options.write(true);
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options.open(path).ok()
}

/// Writes to a socket, without waiting and without a signal.
fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the pointer and the length describe `bytes`, which outlives the call; the kernel
    // refuses if the descriptor is no socket.
    let sent = unsafe {
        libc::send(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            flags,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Whether a write would be answered at once, be it by an error.
fn is_ready(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: `poll` is one valid pollfd that lives through the call, and the count says one.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    if ready < 0 {
        return Err(io::Error::last_os_error());
    }
    if poll.revents & libc::POLLNVAL != 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    Ok(ready > 0)
}
