//! Network namespaces (keepalived `net_namespace`).

use std::{fs::File, io, os::fd::AsRawFd, path::Path};

/// Where `ip netns` keeps its names.
const NAMES: &str = "/run/netns";

/// Moves the calling thread, and the threads that it starts later, into the network namespace
/// that `ip netns add` created as `name`. Sockets that are open already stay where they are.
///
/// Needs `CAP_SYS_ADMIN`, so it comes before privileges are dropped; and before the guardian is
/// started, which must undo things in the same namespace.
pub fn enter(name: &str) -> io::Result<()> {
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name:?} is not the name of a network namespace"),
        ));
    }
    let namespace = File::open(Path::new(NAMES).join(name))?;
    // SAFETY: the descriptor is open during the call. Changing the network namespace changes
    // nothing that the compiler or the standard library relies on.
    let status = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    super::done(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_lead_elsewhere() {
        for name in ["", ".", "..", "../self/ns/net", "a/b"] {
            let error = enter(name).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
    }

    #[test]
    fn an_unknown_name_is_not_found() {
        let error = enter("xvs-no-such-namespace").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
