//! Telling the service manager how it goes, as sd_notify(3) describes it: datagrams of `NAME=value` lines.
//!
//! The crates that do this send with calls that wait when the manager is behind; the control thread must not.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process,
    time::Duration,
};

/// The service manager.
#[derive(Debug)]
pub struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Duration>,
}

impl Manager {
    /// The one that has started this process and wants to hear from it (`NOTIFY_SOCKET`), if there is one.
    ///
    /// # Errors
    /// Its socket cannot be used: an address of another kind than a path or an abstract name.
    pub fn from_env() -> io::Result<Option<Self>> {
        let Some(name) = env::var_os("NOTIFY_SOCKET") else {
            return Ok(None);
        };
        let read = |name| env::var(name).ok();
        let watchdog = watchdog(
            read("WATCHDOG_USEC").as_deref(),
            read("WATCHDOG_PID").as_deref(),
        );
        Self::at(&name, watchdog).map(Some)
    }

    /// The one that listens at `name`, a path or `@` and an abstract name.
    ///
    /// # Errors
    /// As [`Self::from_env`].
    pub fn at(name: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            address,
            watchdog,
        })
    }

    /// How long the manager lets pass between two `WATCHDOG=1` before it takes the process for dead. `None`: for
    /// ever.
    pub const fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Sends `lines`, if that can be done without waiting.
    ///
    /// # Errors
    /// `WouldBlock` when the manager is behind, else what the kernel said.
    pub fn tell(&self, lines: &str) -> io::Result<()> {
        self.socket
            .send_to_addr(lines.as_bytes(), &self.address)
            .map(drop)
    }
}

/// The time of a watchdog that is meant for this process.
fn watchdog(microseconds: Option<&str>, pid: Option<&str>) -> Option<Duration> {
    let ours = pid.is_none_or(|pid| pid.parse() == Ok(process::id()));
    let microseconds = microseconds.and_then(|text| text.parse().ok());
    let wanted = microseconds.filter(|&microseconds| ours && microseconds > 0);
    wanted.map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_behind_a_path_or_an_abstract_name_is_told() {
        let path = env::temp_dir().join(format!("xvs-notify-{}", process::id()));
        let abstract_name = format!("@xvs-notify-{}", process::id());
        let address = SocketAddr::from_abstract_name(&abstract_name[1..]).unwrap();
        for (listener, name) in [
            (UnixDatagram::bind(&path).unwrap(), path.as_os_str()),
            (
                UnixDatagram::bind_addr(&address).unwrap(),
                OsStr::new(&abstract_name),
            ),
        ] {
            Manager::at(name, None).unwrap().tell("READY=1\n").unwrap();
            let mut heard = [0; 32];
            let count = listener.recv(&mut heard).unwrap();
            assert_eq!(&heard[..count], b"READY=1\n");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(Manager::at(OsStr::new("vsock:2:1"), None).is_err());
    }

    #[test]
    fn a_manager_that_is_behind_costs_no_time() {
        let name = format!("@xvs-notify-full-{}", process::id());
        let address = SocketAddr::from_abstract_name(&name[1..]).unwrap();
        let _listener = UnixDatagram::bind_addr(&address).unwrap();
        let manager = Manager::at(OsStr::new(&name), None).unwrap();
        let full = (0..100_000).find_map(|_| manager.tell("WATCHDOG=1\n").err());
        assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_watchdog_of_another_process_is_none() {
        let own = process::id().to_string();
        let minute = Some(Duration::from_secs(60));
        assert_eq!(watchdog(Some("60000000"), None), minute);
        assert_eq!(watchdog(Some("60000000"), Some(&own)), minute);
        assert_eq!(watchdog(Some("60000000"), Some("1")), None);
        assert_eq!(watchdog(Some("0"), None), None);
        assert_eq!(watchdog(Some("soon"), None), None);
        assert_eq!(watchdog(None, None), None);
    }
}
