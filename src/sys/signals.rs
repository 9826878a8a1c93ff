//! Numbers of the real-time signals that keepalived uses. They are not constants: the C library keeps the first
//! few of the kernel's for itself.

/// Asks for the state as JSON: `SIGRTMIN+2`.
pub fn json() -> i32 {
    libc::SIGRTMIN() + 2
}

/// Sets the statistics to zero: `SIGRTMAX-1`.
pub fn clear_statistics() -> i32 {
    libc::SIGRTMAX() - 1
}
