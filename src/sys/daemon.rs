//! Leaving the terminal: the process that was called waits until the daemon, its copy, has started or failed, and
//! tells which.

use std::{
    fs::OpenOptions,
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::fd::AsRawFd,
};

use super::guardian::threads;

/// One process that has become two.
#[derive(Debug)]
pub enum Forked {
    /// The one that was called: it has to wait, and to end.
    Caller(Caller),
    /// The daemon: it leads a session of its own, works in `/`, and its standard streams lead nowhere.
    Daemon(Starting),
}

/// Waits for the daemon.
#[derive(Debug)]
pub struct Caller(PipeReader);

/// Is waited for. Dropping it without a report counts as a failed start.
#[derive(Debug)]
pub struct Starting(PipeWriter);

/// Forks a daemon.
///
/// Must be called while the process has one thread.
///
/// # Errors
/// What the kernel said, or that there are several threads.
pub fn fork() -> io::Result<Forked> {
    if threads()? != 1 {
        return Err(io::Error::other(
            "a daemon must be forked before any other thread is started",
        ));
    }
    let (theirs, ours) = io::pipe()?;
    // SAFETY: this process has one thread, so the child is a whole copy of it: no lock is held by a thread that
    // the child lacks.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(theirs);
            let starting = Starting(ours);
            match leave_terminal() {
                Ok(()) => Ok(Forked::Daemon(starting)),
                Err(error) => {
                    starting.report(Err(&format!("leaving the terminal: {error}")));
                    // SAFETY: ends this process; neither exit handlers nor buffers of the caller's copy are run or
                    // flushed a second time.
                    unsafe { libc::_exit(1) }
                }
            }
        }
        _ => Ok(Forked::Caller(Caller(theirs))),
    }
}

impl Caller {
    /// Waits until the daemon reports.
    ///
    /// # Errors
    /// Why the start has failed.
    pub fn wait(mut self) -> Result<(), String> {
        let mut report = Vec::new();
        // What came before an error counts.
        let _ = self.0.read_to_end(&mut report);
        match report.split_first() {
            Some((&STARTED, _)) => Ok(()),
            Some((_, why)) => Err(String::from_utf8_lossy(why).into_owned()),
            None => Err("the daemon has ended before it had started".to_owned()),
        }
    }
}

impl Starting {
    /// Has the caller end: it has started, or why not.
    pub fn report(mut self, outcome: Result<(), &str>) {
        let report = match outcome {
            Ok(()) => vec![STARTED],
            Err(why) => [&[FAILED], why.as_bytes()].concat(),
        };
        // Whoever was waiting may have gone: then nobody is to be told.
        let _ = self.0.write_all(&report);
    }
}

/// The first byte of a report.
const STARTED: u8 = b's';
/// The first byte of another, before the reason.
const FAILED: u8 = b'f';

fn leave_terminal() -> io::Result<()> {
    // SAFETY: takes no argument; a child that was just forked leads no group, so it succeeds.
    unsafe { libc::setsid() };
    std::env::set_current_dir("/")?;
    let nowhere = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    for standard in [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO] {
        // SAFETY: `nowhere` is open; the standard streams are not owned by anybody as descriptors.
        if unsafe { libc::dup2(nowhere.as_raw_fd(), standard) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Sets the permission bits that new files do not get: 0 to 0o777.
pub fn set_umask(mask: u32) {
    // SAFETY: takes a number and touches no memory; it cannot fail.
    unsafe { libc::umask(mask & 0o777) };
}
