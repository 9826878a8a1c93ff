//! Which processors a thread runs on.

use std::{
    io,
    mem::{size_of, zeroed},
};

/// Ties the calling thread to processor `cpu`, counted as in `/proc/cpuinfo`.
///
/// Fails when the processor does not exist, is offline, or is outside the cpuset that the service
/// manager gave.
pub fn pin_current_thread(cpu: usize) -> io::Result<()> {
    run_on(&[cpu])
}

/// Lets the calling thread run on these processors and no others.
///
/// Fails when one has a number that no processor can have, or when none of them exists, is online and inside the
/// cpuset that the service manager gave.
pub fn run_on(cpus: &[usize]) -> io::Result<()> {
    let mut set = empty_set();
    for cpu in cpus {
        if *cpu >= MAX_CPUS {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // SAFETY: `cpu` is below the number of bits in the set.
        unsafe { libc::CPU_SET(*cpu, &mut set) };
    }
    set_own(&set)
}

/// Lets the calling thread run on the processors of `set`.
pub(super) fn set_own(set: &libc::cpu_set_t) -> io::Result<()> {
    // SAFETY: the pointer and the size describe `set`, which outlives the call; pid 0 is the
    // calling thread.
    let status = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), set) };
    super::done(status)
}

/// The processors that the calling thread may run on, in ascending order.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let set = own_set()?;
    // SAFETY: every `cpu` is below the number of bits in the set.
    let allowed = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &set) };
    Ok((0..MAX_CPUS).filter(allowed).collect())
}

/// The same as the kernel's set.
pub(super) fn own_set() -> io::Result<libc::cpu_set_t> {
    let mut set = empty_set();
    // SAFETY: the pointer and the size describe `set`, which outlives the call; pid 0 is the
    // calling thread.
    let status = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    if status == 0 {
        Ok(set)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Processors that a `cpu_set_t` can name.
const MAX_CPUS: usize = libc::CPU_SETSIZE as usize;

fn empty_set() -> libc::cpu_set_t {
    // SAFETY: a `cpu_set_t` is an array of integers, for which all zeroes is the empty set.
    unsafe { zeroed() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_may_run_on_that_processor_only() {
        // In a thread of its own: the test runner's threads stay where they may be.
        std::thread::spawn(|| {
            let last = *allowed_cpus().unwrap().last().unwrap();
            pin_current_thread(last).unwrap();
            assert_eq!(allowed_cpus().unwrap(), [last]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn processors_that_do_not_exist_are_refused() {
        assert!(pin_current_thread(MAX_CPUS).is_err());
        assert!(pin_current_thread(MAX_CPUS - 1).is_err());
    }
}
