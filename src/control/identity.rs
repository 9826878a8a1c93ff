//! Which of several daemons of one machine this is, and what its files and names in the log are called for it:
//! keepalived's names, and by the same rule those that keepalived has none for.

use std::path::{Path, PathBuf};

use super::api::DEFAULT_SOCKET;
use crate::config::Config;

/// Where files with process ids are by default.
const RUN: &str = "/run";
/// The folder of their own that they have where there may be several daemons.
const PID_FOLDER: &str = "/run/keepalived";

/// What tells this daemon from others on the same machine. The default is one that is alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// keepalived's `-s` and `net_namespace`: the network namespace that it runs in, by its name. `None`: the caller's.
    pub namespace: Option<String>,
    /// keepalived's `instance`: its name among several in one network namespace.
    pub instance: Option<String>,
    /// keepalived's `use_pid_dir`: its files with process ids are in a folder of their own in any case.
    pub pid_dir: bool,
}

impl Identity {
    /// As the configuration has it.
    pub fn of(config: &Config) -> Self {
        let process = &config.process;
        Self {
            namespace: process.net_namespace.clone(),
            instance: process.instance.clone(),
            pid_dir: process.use_pid_dir,
        }
    }

    /// What tells it from others in the names of files and in the log: `NAMESPACE`, `INSTANCE` or
    /// `NAMESPACE_INSTANCE`; empty for one that is alone.
    pub fn name(&self) -> String {
        let parts = self.namespace.iter().chain(&self.instance);
        parts.map(String::as_str).collect::<Vec<_>>().join("_")
    }

    /// What follows keepalived's names in the log: empty, or `_` and [`Self::name`].
    pub fn suffix(&self) -> String {
        match self.name() {
            name if name.is_empty() => name,
            name => format!("_{name}"),
        }
    }

    /// The folder of files with process ids.
    pub fn pid_folder(&self) -> PathBuf {
        let alone = self.namespace.is_none() && self.instance.is_none() && !self.pid_dir;
        let folder = Path::new(if alone { RUN } else { PID_FOLDER });
        match &self.namespace {
            Some(namespace) => folder.join(namespace),
            None => folder.to_owned(),
        }
    }

    /// A file in that folder: `part` and the instance, with this extension.
    pub fn run_file(&self, part: &str, extension: &str) -> PathBuf {
        let instance = self.instance.iter().map(|name| format!("_{name}"));
        let instance: String = instance.collect();
        self.pid_folder()
            .join(format!("{part}{instance}.{extension}"))
    }

    /// The control socket where none is asked for. keepalived has none, and a socket has one daemon: so each network
    /// namespace, and each instance in it, has a folder, which all else that lies beside the socket is in as well.
    pub fn socket(&self) -> PathBuf {
        let usual = Path::new(DEFAULT_SOCKET);
        let mut folder = usual.parent().unwrap_or_else(|| Path::new(RUN)).to_owned();
        for (kind, name) in [("netns", &self.namespace), ("instance", &self.instance)] {
            if let Some(name) = name {
                folder.extend([kind, name.as_str()]);
            }
        }
        folder.join(usual.file_name().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(namespace: &str, instance: &str, pid_dir: bool) -> Identity {
        let given = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        Identity {
            namespace: given(namespace),
            instance: given(instance),
            pid_dir,
        }
    }

    #[test]
    fn names_are_those_of_keepalived_2_2_7() {
        for (namespace, instance, pid_dir, pid, suffix) in [
            ("", "", false, "/run/vrrp.pid", ""),
            ("", "", true, "/run/keepalived/vrrp.pid", ""),
            ("", "foo", false, "/run/keepalived/vrrp_foo.pid", "_foo"),
            ("blue", "", false, "/run/keepalived/blue/vrrp.pid", "_blue"),
            (
                "blue",
                "foo",
                true,
                "/run/keepalived/blue/vrrp_foo.pid",
                "_blue_foo",
            ),
        ] {
            let identity = identity(namespace, instance, pid_dir);
            assert_eq!(identity.run_file("vrrp", "pid"), Path::new(pid));
            assert_eq!(identity.suffix(), suffix, "{pid}");
        }
    }

    #[test]
    fn no_two_daemons_have_one_socket() {
        let sockets = [
            identity("", "", false),
            identity("foo", "", false),
            identity("", "foo", false),
            identity("a", "b", false),
            identity("a_b", "", false),
            identity("", "a_b", false),
        ];
        let mut sockets: Vec<PathBuf> = sockets.iter().map(Identity::socket).collect();
        assert_eq!(sockets[0], Path::new(DEFAULT_SOCKET));
        assert_eq!(
            sockets[3],
            Path::new("/run/xvs/netns/a/instance/b/control.sock")
        );
        let count = sockets.len();
        sockets.sort();
        sockets.dedup();
        assert_eq!(sockets.len(), count);
    }
}
