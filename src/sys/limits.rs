//! What the process is allowed: resource limits, capabilities, its name and its parent.

use std::{ffi::CString, fs, io};

/// Raises the amount of memory that may be locked, for the umem and maps, as far as possible.
/// Answers the limit in bytes that is in force, `u64::MAX` for none.
///
/// A process with `CAP_IPC_LOCK` needs no limit; without it the hard limit is what the service
/// manager gave (`LimitMEMLOCK=`), and an umem beyond it fails with "No buffer space available".
pub fn raise_memlock() -> io::Result<u64> {
    raise(libc::RLIMIT_MEMLOCK, libc::RLIM_INFINITY)
}

/// Raises the number of open descriptors to `wanted`, or to the hard limit (`LimitNOFILE=`) where
/// that is lower. Answers the number that is in force. Never lowers it.
pub fn raise_nofile(wanted: u64) -> io::Result<u64> {
    raise(libc::RLIMIT_NOFILE, wanted)
}

/// The capabilities that the engine needs and the calling thread does not have, by name.
///
/// `CAP_SYS_ADMIN` stands in for `CAP_BPF`, as in the kernel.
pub fn capabilities_missing() -> io::Result<Vec<&'static str>> {
    let status = fs::read_to_string("/proc/thread-self/status")?;
    effective_capabilities(&status)
        .map(missing)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no CapEff in /proc status"))
}

/// Names the calling thread, as `ps -L` and `top -H` show it; the name of the main thread is the
/// name of the process. The kernel keeps the first 15 bytes.
pub fn name_current_thread(name: &str) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: PR_SET_NAME reads a NUL-terminated string, which `name` is and stays for the call.
    let status = unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    super::done(status)
}

/// Asks the kernel to send SIGKILL to this process when the *thread* that created it ends, so
/// that a helper process does not outlive the engine.
///
/// `parent` is the engine's process id, taken before the fork: when it has died in between, no
/// signal would ever come, and this fails with `ESRCH`.
pub fn parent_death_signal(parent: u32) -> io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes a signal number and touches no memory of ours.
    let status = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    if std::os::unix::process::parent_id() == parent {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::ESRCH))
    }
}

/// What the engine needs, with the number of its bit (`linux/capability.h`).
const NEEDED: [(&str, u32); 4] = [
    ("CAP_NET_ADMIN", 12),
    ("CAP_NET_RAW", 13),
    ("CAP_IPC_LOCK", 14),
    ("CAP_BPF", CAP_BPF),
];
const CAP_BPF: u32 = 39;
const CAP_SYS_ADMIN: u32 = 21;

/// The `CapEff` bits of a `/proc/…/status` text.
fn effective_capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn missing(effective: u64) -> Vec<&'static str> {
    let has = |bit: u32| effective & (1 << bit) != 0;
    let covered = |bit: u32| has(bit) || (bit == CAP_BPF && has(CAP_SYS_ADMIN));
    NEEDED
        .iter()
        .filter(|(_, bit)| !covered(*bit))
        .map(|(name, _)| *name)
        .collect()
}

/// Raises a limit to `wanted`; where the hard limit cannot be raised, to the hard limit.
fn raise(resource: libc::__rlimit_resource_t, wanted: u64) -> io::Result<u64> {
    let current = limit(resource)?.0;
    if current.rlim_cur >= wanted {
        return Ok(current.rlim_cur);
    }
    let full = libc::rlimit {
        rlim_cur: wanted,
        rlim_max: current.rlim_max.max(wanted),
    };
    let within = libc::rlimit {
        rlim_cur: current.rlim_max.min(wanted),
        rlim_max: current.rlim_max,
    };
    set_limit(resource, Limit(full)).or_else(|_| set_limit(resource, Limit(within)))?;
    Ok(limit(resource)?.0.rlim_cur)
}

/// A resource limit: what holds, and how far that may be raised.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit(libc::rlimit);

impl Limit {
    /// The same with another limit that holds, as far as that may be raised.
    pub(super) fn with_soft(self, soft: Option<u64>) -> Self {
        let mut limit = self.0;
        limit.rlim_cur = soft.map_or(limit.rlim_cur, |soft| soft.min(limit.rlim_max));
        Self(limit)
    }
}

pub(super) fn limit(resource: libc::__rlimit_resource_t) -> io::Result<Limit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a live, writable rlimit for the duration of the call.
    let status = unsafe { libc::getrlimit(resource, &raw mut limit) };
    if status == 0 {
        Ok(Limit(limit))
    } else {
        Err(io::Error::last_os_error())
    }
}

pub(super) fn set_limit(resource: libc::__rlimit_resource_t, limit: Limit) -> io::Result<()> {
    // SAFETY: `limit` is a live rlimit for the duration of the call.
    let status = unsafe { libc::setrlimit(resource, &raw const limit.0) };
    super::done(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_is_read_not_the_permitted_one() {
        let status = "Name:\txvs\nCapPrm:\t000001ffffffffff\nCapEff:\t0000000000003000\n";
        let effective = effective_capabilities(status).unwrap();
        assert_eq!(missing(effective), ["CAP_IPC_LOCK", "CAP_BPF"]);
        assert_eq!(effective_capabilities("CapPrm:\t3000\n"), None);
    }

    #[test]
    fn sys_admin_covers_bpf_and_nothing_else() {
        let admin = 1 << CAP_SYS_ADMIN;
        assert_eq!(
            missing(admin),
            ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK"]
        );
        assert!(missing((0b111 << 12) | admin).is_empty());
        assert!(missing(u64::MAX).is_empty());
    }

    #[test]
    fn the_kernels_status_file_has_the_line() {
        capabilities_missing().unwrap();
    }

    #[test]
    fn descriptors_rise_to_the_hard_limit_and_never_fall() {
        let hard = limit(libc::RLIMIT_NOFILE).unwrap().0.rlim_max;
        assert_eq!(raise_nofile(hard).unwrap(), hard);
        assert_eq!(raise_nofile(1).unwrap(), hard);
    }

    #[test]
    fn locked_memory_ends_at_the_hard_limit_at_least() {
        let hard = limit(libc::RLIMIT_MEMLOCK).unwrap().0.rlim_max;
        assert!(raise_memlock().unwrap() >= hard);
    }

    #[test]
    fn a_thread_shows_its_name() {
        std::thread::spawn(|| {
            name_current_thread("xvs-a-name-too-long").unwrap();
            let comm = fs::read_to_string("/proc/thread-self/comm").unwrap();
            assert_eq!(comm.trim(), "xvs-a-name-too-");
        })
        .join()
        .unwrap();
    }
}
