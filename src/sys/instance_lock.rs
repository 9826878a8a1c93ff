//! One engine to a control socket, one owner to a virtual router.
//!
//! A pid file alone names a process that may be somebody else's by now, and two daemons with
//! different pid files would both become MASTER of the same virtual router. The locks here belong to
//! the kernel: they end with the process, however it ends.

use std::{
    error, fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    process,
};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::sys::{netlink::Link, sockopt};

/// A lock file that holds the process id of its owner. Removed when dropped.
#[derive(Debug)]
pub struct InstanceLock {
    path: PathBuf,
    /// Holds the lock while it is open.
    file: File,
}

/// Holds a virtual router of this network namespace for this process.
#[derive(Debug)]
pub struct VridLock {
    /// Holds the name while it is open.
    _name: Socket,
}

/// Holds the packets of an interface of this network namespace for this process's data plane.
#[derive(Debug)]
pub struct InterfaceLock {
    /// Holds the name while it is open.
    _name: Socket,
}

/// The address family of a virtual router: the VRIDs of IPv4 and IPv6 are independent
/// (RFC 9568 §5.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VridFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Why a lock was not taken.
#[derive(Debug)]
pub enum LockError {
    /// Another process has it.
    Held {
        /// What is locked, for people.
        what: String,
        /// The process that has it, where that can be known.
        holder: Option<Holder>,
    },
    /// The lock could not be tried.
    Io {
        /// What was to be locked.
        what: String,
        /// What went wrong.
        error: io::Error,
    },
}

/// The process that has a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub pid: u32,
    /// Its name, where it could be read.
    pub name: Option<String>,
    /// Its user, where that is known: anybody on the host can take the name of a virtual router.
    pub uid: Option<u32>,
}

impl InstanceLock {
    /// Takes the lock file at `path`, creating it when needed, and writes this process's id into
    /// it. Fails at once when another process has it.
    ///
    /// A file that a dead process left is taken over; what it says does not matter.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let what = || path.display().to_string();
        let failed = |error| LockError::Io {
            what: what(),
            error,
        };
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o644)
                .custom_flags(libc::O_NOFOLLOW)
                .open(path)
                .map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let text = fs::read_to_string(path).unwrap_or_default();
                    let holder = text.trim().parse().ok().map(|pid| Holder::new(pid, None));
                    return Err(LockError::Held {
                        what: what(),
                        holder,
                    });
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            // The former owner may have removed the file between our open and our lock: then this
            // is a lock on a file that nobody else will ever open.
            if !is_at(&file, path) {
                continue;
            }
            file.set_len(0).map_err(failed)?;
            writeln!(file, "{}", process::id()).map_err(failed)?;
            return Ok(Self {
                path: path.to_owned(),
                file,
            });
        }
    }

    /// Whether the file is where others look for it. Where it is not, another process can take the lock.
    pub fn is_in_place(&self) -> bool {
        is_at(&self.file, &self.path)
    }

    /// Takes the lock anew, for one whose file is not in place. Fails at once when another process was quicker;
    /// then this is called again.
    pub fn restore(&mut self) -> Result<(), LockError> {
        *self = Self::acquire(&self.path)?;
        Ok(())
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for InstanceLock {
    /// Removes the file while the lock is still held, so that it is nobody else's.
    fn drop(&mut self) {
        if self.is_in_place() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl VridLock {
    /// Takes virtual router `vrid` on `link`, in the network namespace of the calling thread.
    /// Fails at once when another process has it, whatever its configuration and pid file.
    pub fn acquire(link: &Link, family: VridFamily, vrid: u8) -> Result<Self, LockError> {
        let what = format!("VRID {vrid} ({family}) on {}", link.name);
        let name = format!("vrrp/{family}/{}/{vrid}", link.index);
        let _name = take_name(&name, what)?;
        Ok(Self { _name })
    }
}

impl InterfaceLock {
    /// Takes the packets of interface `ifindex`, called `name`, in the network namespace of the
    /// calling thread. Fails at once when another process has them.
    pub fn acquire(ifindex: u32, name: &str) -> Result<Self, LockError> {
        let _name = take_name(&format!("dataplane/{ifindex}"), format!("interface {name}"))?;
        Ok(Self { _name })
    }
}

/// Binds an abstract Unix socket: its name is unique within a network namespace, and goes with the
/// process that bound it. Interfaces are named by index: they can be renamed while in use.
fn take_name(name: &str, what: String) -> Result<Socket, LockError> {
    let bind = || -> io::Result<Result<Socket, SockAddr>> {
        let address = SockAddr::unix(format!("\0xvs/{name}"))?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        match socket.bind(&address) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Ok(Err(address)),
            Err(error) => return Err(error),
        }
        // Only so that others can ask who this is.
        socket.listen(ASKERS)?;
        Ok(Ok(socket))
    };
    match bind() {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(address)) => Err(LockError::Held {
            what,
            holder: listener_at(&address),
        }),
        Err(error) => Err(LockError::Io { what, error }),
    }
}

impl fmt::Display for VridFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

impl Holder {
    fn new(pid: u32, uid: Option<u32>) -> Self {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"))
            .ok()
            .map(|name| name.trim_end().to_owned());
        Self { pid, name, uid }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.pid)?;
        match (&self.name, self.uid) {
            (Some(name), Some(uid)) => write!(f, " ({name}, user {uid})"),
            (Some(name), None) => write!(f, " ({name})"),
            (None, Some(uid)) => write!(f, " (user {uid})"),
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held {
                what,
                holder: Some(holder),
            } => write!(f, "{what} is in use by {holder}"),
            Self::Held { what, holder: None } => write!(f, "{what} is in use by another process"),
            Self::Io { what, error } => write!(f, "cannot lock {what}: {error}"),
        }
    }
}

impl error::Error for LockError {}

/// Whether `path` still names the open `file`.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => open.ino() == named.ino() && open.dev() == named.dev(),
        _ => false,
    }
}

/// How many failed starts are told who the holder is: nobody accepts their connections, so
/// afterwards the queue is full.
const ASKERS: i32 = 1024;

/// Who listens at an address, as the kernel knows it from the call to `listen`.
fn listener_at(address: &SockAddr) -> Option<Holder> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).ok()?;
    socket.set_nonblocking(true).ok()?;
    socket.connect(address).ok()?;
    let peer = sockopt::peer_credentials(socket.as_fd()).ok()?;
    // 0 is a process that this process's pid namespace does not see.
    let pid = u32::try_from(peer.pid).ok().filter(|pid| *pid != 0)?;
    Some(Holder::new(pid, Some(peer.uid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path of this test's own, removed at the end however it ends.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let file = format!("xvs-lock-{}-{name}.pid", process::id());
            Self(std::env::temp_dir().join(file))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    fn loopback_as(index: u32) -> Link {
        Link {
            index,
            name: "eth0".to_owned(),
            mac: None,
            mtu: 1500,
            up: true,
            running: true,
            loopback: false,
            multicast: true,
            kind: None,
            master: None,
        }
    }

    #[test]
    fn the_second_engine_is_told_who_has_the_file() {
        let path = Scratch::new("second");
        let lock = InstanceLock::acquire(&path.0).unwrap();
        let text = fs::read_to_string(&path.0).unwrap();
        assert_eq!(text, format!("{}\n", process::id()));
        match InstanceLock::acquire(&path.0) {
            Err(LockError::Held {
                holder: Some(holder),
                ..
            }) => assert_eq!(holder.pid, process::id()),
            other => panic!("{other:?}"),
        }
        drop(lock);
        assert!(!path.0.exists());
        InstanceLock::acquire(&path.0).unwrap();
    }

    #[test]
    fn a_file_of_the_dead_is_taken_over_whatever_it_says() {
        let path = Scratch::new("stale");
        // Process 1 lives, but it is not an engine: a pid alone must not keep us from starting.
        fs::write(&path.0, "1\nand much more text than a process id needs\n").unwrap();
        let _lock = InstanceLock::acquire(&path.0).unwrap();
        let text = fs::read_to_string(&path.0).unwrap();
        assert_eq!(text, format!("{}\n", process::id()));
    }

    #[test]
    fn a_link_is_not_followed() {
        let path = Scratch::new("link");
        let target = Scratch::new("target");
        fs::write(&target.0, "precious").unwrap();
        std::os::unix::fs::symlink(&target.0, &path.0).unwrap();
        assert!(matches!(
            InstanceLock::acquire(&path.0),
            Err(LockError::Io { .. })
        ));
        assert_eq!(fs::read_to_string(&target.0).unwrap(), "precious");
    }

    #[test]
    fn a_virtual_router_has_one_owner() {
        // An index that no interface has: the tests of a developer's machine must not meet an engine.
        let link = loopback_as(0x7fff_0000 | (process::id() & 0xffff));
        let lock = VridLock::acquire(&link, VridFamily::V4, 51).unwrap();
        let error = VridLock::acquire(&link, VridFamily::V4, 51).unwrap_err();
        let text = error.to_string();
        let wanted = format!(
            "VRID 51 (IPv4) on eth0 is in use by process {} (",
            process::id()
        );
        assert!(text.starts_with(&wanted), "{text}");
        VridLock::acquire(&link, VridFamily::V6, 51).unwrap();
        VridLock::acquire(&link, VridFamily::V4, 52).unwrap();
        let other = loopback_as(link.index + 0x1_0000);
        VridLock::acquire(&other, VridFamily::V4, 51).unwrap();
        drop(lock);
        VridLock::acquire(&link, VridFamily::V4, 51).unwrap();
    }
}
