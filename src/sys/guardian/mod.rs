//! A small process that outlives the engine by just long enough to undo what it did.
//!
//! The engine's packets, VIPs and programs must not outlive it unattended. The guardian is forked
//! before the engine has threads or large memory, sleeps, and wakes when the engine ends without
//! having said goodbye, however that happens: SIGKILL, a crash, the out-of-memory killer. It then
//! runs one function on the last state that the engine left for it.
//!
//! The kernel tears down the memory of a process before it closes its sockets: an engine without
//! much memory is noticed within 0.2 ms of its kill, one with 256 MiB of ordinary pages after
//! 21 ms (measured; huge pages cost less). A core dump is written before either: the engine should
//! not write one.
//!
//! The state is left in files that live in memory, in turns: writing never waits for the guardian,
//! and a half-written state is never read. Death is noticed twice over: by the end of the socket
//! between the two, and by a pidfd, in case a third process inherited the engine's end of it.

mod state;

use std::{
    fs::OpenOptions,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use self::state::{Reader, Writer};
use crate::sys::{clock, limits, signals};

/// The engine's end. Dropping it without [`goodbye`](Self::goodbye) counts as a death.
#[derive(Debug)]
pub struct Guardian {
    socket: UnixStream,
    pid: libc::pid_t,
    state: Writer,
}

impl Guardian {
    /// Forks the guardian. `on_death` runs in it, at most once, with the last state that
    /// [`update`](Self::update) left, or an empty one.
    ///
    /// Must be called while the process has one thread, and in the network namespace that the
    /// engine works in. In the guardian, standard input and output lead nowhere and every other
    /// descriptor but standard error is closed: `on_death` opens what it needs, and must not use
    /// what it brought along.
    pub fn spawn(on_death: impl FnOnce(&[u8])) -> io::Result<Self> {
        if threads()? != 1 {
            return Err(io::Error::other(
                "the guardian must be started before any other thread",
            ));
        }
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (writer, reader) = state::pair()?;
        let engine = pidfd_of_self()?;
        // SAFETY: this process has one thread, so the child is a whole copy of it: no lock is held
        // by a thread that the child lacks.
        let pid = unsafe { libc::fork() };
        match pid {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                let watch = Watch {
                    socket: theirs,
                    engine,
                    state: reader,
                };
                // A panic must not unwind into the engine's own stack, of which this is a copy.
                let status = catch_unwind(AssertUnwindSafe(|| guard(watch, on_death)));
                // SAFETY: ends this process; neither exit handlers nor buffers of the engine's
                // copy are run or flushed a second time.
                unsafe { libc::_exit(i32::from(!matches!(status, Ok(Ok(()))))) }
            }
            _ => Ok(Self {
                socket: ours,
                pid,
                state: writer,
            }),
        }
    }

    /// Leaves `state` for the guardian, instead of what was there. Never waits. An engine that dies
    /// in the middle of it leaves the state before.
    pub fn update(&mut self, state: &[u8]) -> io::Result<()> {
        self.state.write(state)
    }

    /// Whether the guardian lives. It should always; where it does not, say so in the log.
    pub fn is_alive(&self) -> bool {
        let mut byte = [0];
        // The guardian never writes: nothing to read means that it is there, the end that it is not.
        matches!((&self.socket).read(&mut byte),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// The guardian's process id.
    pub fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    /// Sends the guardian away: the engine has undone everything itself. Waits until it is gone, at
    /// most a second.
    pub fn goodbye(self) -> io::Result<()> {
        let said = (&self.socket).write_all(&[GOODBYE]);
        self.socket.set_nonblocking(false)?;
        self.socket.set_read_timeout(Some(FAREWELL))?;
        // Its end of the socket closes when it exits; what the read says does not matter.
        let _ = (&self.socket).read(&mut [0]);
        self.reap()?;
        said
    }

    /// Collects the exit status, so that no zombie is left.
    fn reap(&self) -> io::Result<()> {
        let deadline = clock::now() + FAREWELL;
        loop {
            // SAFETY: no status is asked for, so nothing is written; `pid` is a child of this
            // process that nobody else waits for.
            let reaped = unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), libc::WNOHANG) };
            match reaped {
                0 if clock::now() < deadline => std::thread::yield_now(),
                0 => return Err(io::ErrorKind::TimedOut.into()),
                -1 => return Err(io::Error::last_os_error()),
                _ => return Ok(()),
            }
        }
    }
}

impl AsFd for Guardian {
    /// Becomes readable when the guardian dies.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What the guardian has.
struct Watch {
    socket: UnixStream,
    engine: OwnedFd,
    state: Reader,
}

/// The byte that the engine sends when it ends in order.
const GOODBYE: u8 = b'g';

/// How long the engine waits for the guardian to go.
const FAREWELL: Duration = Duration::from_secs(1);

/// The name that `ps` shows.
const NAME: &str = "xvs-guardian";

/// Signals that reach a whole process group or service and are meant for the engine.
const IGNORED: [i32; 10] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGPIPE,
    libc::SIGALRM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGTSTP,
    libc::SIGTTOU,
];

/// The guardian's life.
fn guard(watch: Watch, on_death: impl FnOnce(&[u8])) -> io::Result<()> {
    settle(&watch)?;
    if engine_said_goodbye(&watch) {
        return Ok(());
    }
    let state = watch.state.read().unwrap_or_default();
    on_death(&state);
    Ok(())
}

/// Makes this process one of its own.
fn settle(watch: &Watch) -> io::Result<()> {
    let real_time = [signals::json(), signals::clear_statistics()];
    for signal in IGNORED.into_iter().chain(real_time) {
        // SAFETY: SIG_IGN installs no handler, so no code of ours runs in signal context.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    // SAFETY: takes no argument; a child that was just forked leads no group, so it succeeds.
    unsafe { libc::setsid() };
    limits::name_current_thread(NAME)?;
    // It is small and must be there when memory is short. Needs CAP_SYS_RESOURCE: a wish.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    let [first, second] = watch.state.fds();
    let mut kept = [
        watch.socket.as_raw_fd(),
        watch.engine.as_raw_fd(),
        first,
        second,
    ];
    kept.sort_unstable();
    close_all_but(kept);
    let nowhere = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    for standard in [libc::STDIN_FILENO, libc::STDOUT_FILENO] {
        // SAFETY: `nowhere` is open; what stdin and stdout were is not used by anybody as an
        // owned descriptor.
        unsafe { libc::dup2(nowhere.as_raw_fd(), standard) };
    }
    Ok(())
}

/// Closes every descriptor above standard error except `kept`, which is sorted.
fn close_all_but(kept: [RawFd; 4]) {
    let mut first = libc::STDERR_FILENO + 1;
    for fd in kept {
        close_range(first, fd - 1);
        first = first.max(fd + 1);
    }
    close_range(first, RawFd::MAX);
}

fn close_range(first: RawFd, last: RawFd) {
    if first <= last {
        // SAFETY: closes descriptors of the engine's copy. Their owners are on a stack and a heap
        // that this process never returns to, so none is used or closed again.
        unsafe {
            libc::syscall(
                libc::SYS_close_range,
                first.unsigned_abs(),
                last.unsigned_abs(),
                0_u32,
            )
        };
    }
}

/// Sleeps until the engine ends or says goodbye.
fn engine_said_goodbye(watch: &Watch) -> bool {
    let mut polled = [watch.socket.as_raw_fd(), watch.engine.as_raw_fd()].map(|fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    });
    loop {
        // SAFETY: the pointer and the number describe `polled`, which outlives the call.
        let ready = unsafe { libc::poll(polled.as_mut_ptr(), 2, -1) };
        if ready <= 0 {
            // Only a signal; it has no time limit.
            continue;
        }
        if watch.socket.set_nonblocking(true).is_err() {
            return false;
        }
        let mut byte = [0];
        match (&watch.socket).read(&mut byte) {
            Ok(1) => return byte[0] == GOODBYE,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The end of the socket, or of the engine while somebody else holds the socket.
            _ => return false,
        }
    }
}

/// How many threads this process has.
pub(super) fn threads() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// A descriptor that becomes readable when this process has ended.
fn pidfd_of_self() -> io::Result<OwnedFd> {
    // SAFETY: takes two integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0_u32) };
    let fd = RawFd::try_from(fd).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
