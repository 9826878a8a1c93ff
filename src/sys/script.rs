//! Running a script: a process of its own, with nothing of ours but what it needs.
//!
//! It leads a process group, so that it can be killed with what it has started. Its standard streams lead nowhere.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
};

use super::scheduling::Usual;

/// Variables that would have the script run something else than it says.
const DANGEROUS: [&str; 3] = ["LD_PRELOAD", "LD_LIBRARY_PATH", "IFS"];

/// How long a script that was killed is waited for, in milliseconds.
const LAST_MOMENT: libc::c_int = 1_000;

/// Who a process is for the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user's number.
    pub uid: u32,
    /// The group's.
    pub gid: u32,
    /// Numbers of further groups.
    pub groups: Vec<u32>,
}

impl Identity {
    /// Root, in its own group alone.
    pub const ROOT: Self = Self {
        uid: 0,
        gid: 0,
        groups: Vec::new(),
    };

    /// This process's user and group.
    pub fn own() -> Self {
        // SAFETY: neither takes an argument, and neither fails.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        Self {
            uid,
            gid,
            groups: Vec::new(),
        }
    }
}

/// What is run, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The file: an absolute path.
    pub program: PathBuf,
    /// The words behind its name.
    pub arguments: Vec<OsString>,
    /// Whose privileges it has; `None`: this process's.
    pub identity: Option<Identity>,
}

/// A script that runs. Readable (as a descriptor) when it has ended. Its whole group is killed when this is dropped
/// before its end was seen.
#[derive(Debug)]
pub struct Running {
    child: Child,
    pidfd: OwnedFd,
    seen: bool,
}

impl Script {
    /// Starts it. A file without `#!` line is read by the shell, as execvp(3) has it. It ends with the thread that
    /// calls this.
    ///
    /// # Errors
    /// What the kernel said: it cannot be run, or not as this user.
    pub fn start(&self) -> io::Result<Running> {
        let parent = std::process::id();
        let identity = self.identity.clone();
        let usual = Usual::noted();
        let become_it = move || {
            if let Some(usual) = usual {
                usual.take_up();
            }
            if let Some(identity) = &identity {
                become_user(identity)?;
            }
            // Last: a change of the user takes it back.
            end_with_parent(parent)
        };
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        for name in DANGEROUS {
            command.env_remove(name);
        }
        // SAFETY: between fork and exec it makes system calls alone, on numbers and memory that were there before.
        unsafe { command.pre_exec(become_it) };
        let mut child = command.spawn()?;
        match pidfd(&child) {
            Ok(pidfd) => Ok(Running {
                child,
                pidfd,
                seen: false,
            }),
            Err(error) => {
                kill_group(&child);
                let _ = child.wait();
                Err(error)
            }
        }
    }
}

impl Running {
    /// How it ended, if it has.
    ///
    /// # Errors
    /// Somebody else has waited for it.
    pub fn poll_end(&mut self) -> io::Result<Option<End>> {
        let status = self.child.try_wait()?;
        self.seen |= status.is_some();
        Ok(status.map(End::of))
    }

    /// The process's number, which is its group's, too.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl AsRawFd for Running {
    fn as_raw_fd(&self) -> RawFd {
        self.pidfd.as_raw_fd()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.seen {
            kill_group(&self.child);
            // A process that hangs in the kernel, or that we may not kill, must not hold this one up: it stays.
            let mut polled = libc::pollfd {
                fd: self.pidfd.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: the pointer and the number describe `polled`, which outlives the call.
            unsafe { libc::poll(&raw mut polled, 1, LAST_MOMENT) };
            let _ = self.child.try_wait();
        }
    }
}

/// How a script ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status; 0: it has succeeded.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

impl End {
    fn of(status: ExitStatus) -> Self {
        let killed = || Self::Killed(status.signal().unwrap_or(0));
        status.code().map_or_else(killed, Self::Exited)
    }
}

fn kill_group(child: &Child) {
    let group = libc::pid_t::try_from(child.id()).unwrap_or(0);
    if group > 1 {
        // SAFETY: takes integers. The leader was not waited for, so its number is no other group's.
        unsafe { libc::kill(-group, libc::SIGKILL) };
    }
}

/// A descriptor that becomes readable when the child has ended.
fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0_u32) };
    let fd = RawFd::try_from(fd).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives up what this process is for `identity`. Allocates nothing.
fn become_user(identity: &Identity) -> io::Result<()> {
    let groups = &identity.groups;
    // SAFETY: the pointer and the number describe `groups`, which outlives the call.
    answer(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) })?;
    // SAFETY: takes an integer; the user goes last, as the others are root's to change.
    answer(unsafe { libc::setgid(identity.gid) })?;
    // SAFETY: takes an integer.
    answer(unsafe { libc::setuid(identity.uid) })
}

/// Has the kernel end this process when `parent`, or the thread of it that has forked, ends. Allocates nothing.
fn end_with_parent(parent: u32) -> io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes a signal number and touches no memory of ours.
    answer(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) })?;
    if std::os::unix::process::parent_id() == parent {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::ESRCH))
    }
}

fn answer(status: libc::c_int) -> io::Result<()> {
    super::done(status)
}
