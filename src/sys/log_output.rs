//! Writing log lines without ever waiting for whoever reads them.

use std::{
    io::{self, Write},
    os::fd::AsRawFd,
};

/// Longest line written whole; a pipe takes this much at once when it is ready (`PIPE_BUF`).
pub const MAX_LINE: usize = 4096;

/// Writes `line` to standard error if that can be done without waiting. A reader that has stopped
/// (a full pipe, a frozen journal) costs the line, never the caller's time.
///
/// # Errors
/// `WouldBlock` when the reader is behind, else what the write said.
pub fn try_write_stderr(line: &[u8]) -> io::Result<()> {
    let stderr = io::stderr();
    let mut poll = libc::pollfd {
        fd: stderr.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: `poll` is one valid pollfd that lives through the call, and the count says one.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    if ready < 1 || poll.revents & libc::POLLOUT == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    stderr.lock().write_all(&line[..line.len().min(MAX_LINE)])
}
