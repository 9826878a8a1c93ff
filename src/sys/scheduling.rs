//! How the kernel schedules a thread: nice value, real-time priority, processors, and the limit of real-time work.
//!
//! A thread hands all of it but the real-time priority on to what it starts. The control thread may be asked to run
//! unlike the rest, so what it starts goes through [`spawn`], or takes up what is [`Usual`] itself.

use std::{
    io,
    mem::zeroed,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use super::{
    affinity,
    limits::{self, Limit},
};

/// How this process was scheduled when it started: for all that is not told otherwise.
#[derive(Debug)]
pub struct Usual {
    nice: i8,
    cpus: libc::cpu_set_t,
}

static USUAL: OnceLock<Usual> = OnceLock::new();

impl Usual {
    /// Notes how the calling thread is scheduled, at the first call; afterwards it answers the same.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn note() -> io::Result<&'static Self> {
        if let Some(usual) = USUAL.get() {
            return Ok(usual);
        }
        let noted = Self {
            nice: nice()?,
            cpus: affinity::own_set()?,
        };
        Ok(USUAL.get_or_init(|| noted))
    }

    /// What was noted.
    pub(super) fn noted() -> Option<&'static Self> {
        USUAL.get()
    }

    /// The nice value.
    pub const fn nice(&self) -> i8 {
        self.nice
    }

    /// Lets the calling thread run wherever the process may.
    ///
    /// # Errors
    /// What the kernel said: the processors are not there any more.
    pub fn run_anywhere(&self) -> io::Result<()> {
        affinity::set_own(&self.cpus)
    }

    /// Has the calling thread scheduled so, as far as the kernel allows. Allocates nothing, so that a child may call
    /// it between fork and exec.
    pub(super) fn take_up(&self) {
        // A child is none of a real-time thread in any case.
        let _ = set_nice(self.nice);
        let _ = self.run_anywhere();
    }
}

/// Starts a thread that is scheduled as the process was at first, whatever holds for the caller.
///
/// # Errors
/// The kernel has no room for one more.
pub fn spawn<T: Send + 'static>(
    name: String,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    thread::Builder::new().name(name).spawn(move || {
        if let Some(usual) = Usual::noted() {
            usual.take_up();
        }
        body()
    })
}

/// The nice value of the calling thread, -20 to 19.
///
/// # Errors
/// What the kernel said.
pub fn nice() -> io::Result<i8> {
    // SAFETY: takes two integers; 0 is the calling thread. The raw call answers 20 less the nice value, so that an
    // error is no value.
    let raw = unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(i8::try_from(20 - raw).unwrap_or(0))
}

/// Sets the nice value of the calling thread, -20 to 19. Lower ones need `CAP_SYS_NICE`.
///
/// # Errors
/// What the kernel said.
pub fn set_nice(nice: i8) -> io::Result<()> {
    // SAFETY: takes integers; 0 is the calling thread.
    super::done(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice.into()) })
}

/// Has the calling thread run in real time, round robin, with a priority of 1 to 99; `None`: as others do. What it
/// starts does not (`SCHED_RESET_ON_FORK`). Needs `CAP_SYS_NICE`.
///
/// # Errors
/// What the kernel said.
pub fn set_real_time(priority: Option<u8>) -> io::Result<()> {
    schedule(0, priority)
}

/// Schedules the thread `thread`; 0: the caller.
fn schedule(thread: libc::pid_t, priority: Option<u8>) -> io::Result<()> {
    let policy = match priority {
        Some(_) => libc::SCHED_RR,
        None => libc::SCHED_OTHER,
    };
    // SAFETY: all bytes zero are a sched_param: integers.
    let mut param: libc::sched_param = unsafe { zeroed() };
    param.sched_priority = priority.unwrap_or(0).into();
    // SAFETY: `param` is live and readable for the call.
    super::done(unsafe {
        libc::sched_setscheduler(thread, policy | libc::SCHED_RESET_ON_FORK, &raw const param)
    })
}

/// Whether the main thread has worked longer in real time than it may.
static EXCEEDED: AtomicBool = AtomicBool::new(false);

/// The limit of real-time work without a pause (`RLIMIT_RTTIME`), and what happens at it: the main thread, which
/// must be the one that runs in real time, goes on as an ordinary one, so that it takes the processor from nobody.
/// It does not end, as keepalived does.
#[derive(Debug)]
pub struct WorkLimit {
    before: Limit,
}

impl WorkLimit {
    /// Gets ready for a limit.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn new() -> io::Result<Self> {
        let before = limits::limit(libc::RLIMIT_RTTIME)?;
        // The whole process has the id of its main thread.
        let main = i32::try_from(std::process::id()).unwrap_or(0);
        let exceeded = move || {
            // Whoever has become an ordinary thread meanwhile is one.
            let _ = schedule(main, None);
            EXCEEDED.store(true, Ordering::Relaxed);
        };
        // SAFETY: the action makes a system call and stores a flag, both of which a signal handler may. An error of
        // the call is never made into text there.
        unsafe { signal_hook::low_level::register(libc::SIGXCPU, exceeded) }?;
        Ok(Self { before })
    }

    /// Sets it, in microseconds; `None`: what held before. To be set anew once it was exceeded.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn set(&self, micros: Option<u32>) -> io::Result<()> {
        limits::set_limit(
            libc::RLIMIT_RTTIME,
            self.before.with_soft(micros.map(u64::from)),
        )
    }

    /// Whether it was exceeded since this was last asked: then the main thread runs as others do.
    pub fn was_exceeded(&self) -> bool {
        EXCEEDED.swap(false, Ordering::Relaxed)
    }
}

/// Keeps what the process has in memory there, and what it gets once it is used; or no longer.
///
/// Only what is used is locked (`MCL_ONFAULT`): a table with room for a million connections takes no more memory
/// for it. Needs `CAP_IPC_LOCK`, or `RLIMIT_MEMLOCK` would end the process when it is reached.
///
/// # Errors
/// What the kernel said.
pub fn keep_in_memory(keep: bool) -> io::Result<()> {
    // SAFETY: neither takes a pointer; they change where pages may be, not what is in them.
    super::done(unsafe {
        if keep {
            libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT)
        } else {
            libc::munlockall()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_odd_thread_starts_is_scheduled_as_usual() {
        // In a thread of its own: the test runner's threads stay as they are.
        thread::spawn(|| {
            let usual = Usual::note().unwrap();
            let cpus = affinity::allowed_cpus().unwrap();
            let odd = (usual.nice() + 3).min(19);
            set_nice(odd).unwrap();
            affinity::run_on(&cpus[..1]).unwrap();
            assert_eq!(nice().unwrap(), odd);
            let seen = || (nice().unwrap(), affinity::allowed_cpus().unwrap());
            // As the kernel has it.
            assert_eq!(
                thread::spawn(seen).join().unwrap(),
                (odd, cpus[..1].to_vec())
            );
            let (nice, allowed) = spawn("xvs-test".to_owned(), seen).unwrap().join().unwrap();
            assert_eq!(allowed, cpus);
            // Only who may lower it can: root, as tests mostly are.
            assert!(nice == usual.nice() || (nice == odd && set_nice(usual.nice()).is_err()));
            assert!(std::ptr::eq(Usual::note().unwrap(), usual));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn nonsense_is_refused_by_the_kernel() {
        let error = set_real_time(Some(100)).unwrap_err();
        assert!(
            matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EPERM)),
            "{error}"
        );
    }
}
