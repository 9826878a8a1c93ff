//! The lock file of this engine, kept where others look for it.

use std::{fs::DirBuilder, io, os::unix::fs::DirBuilderExt, path::Path};

use super::{
    log::{Level, Line},
    repeats::Reports,
};
use crate::{
    sys::instance_lock::{InstanceLock, LockError},
    time::Instant,
};

/// The lock, and what was said about it.
#[derive(Debug)]
pub(super) struct LockFile {
    lock: InstanceLock,
    reports: Reports<()>,
}

impl LockFile {
    /// Keeps `lock`, which is held.
    pub(super) const fn new(lock: InstanceLock) -> Self {
        Self {
            lock,
            reports: Reports::new(),
        }
    }

    /// The path of the file.
    pub(super) fn path(&self) -> &Path {
        self.lock.path()
    }

    /// Makes the file anew where somebody has removed it, with its folder: without it a second engine could
    /// start on the same socket. To be called once a second or so. A line for the log.
    pub(super) fn keep(&mut self, now: Instant) -> Option<Line> {
        let path = self.lock.path().to_owned();
        let mut restored = false;
        let outcome = if self.lock.is_in_place() {
            Ok(())
        } else {
            restored = true;
            path.parent()
                .map_or(Ok(()), make_folder)
                .and_then(|()| self.lock.restore().map_err(into_io))
        };
        let what = format_args!("the lock file {}", path.display());
        match self.reports.note(now, (), outcome.as_ref().copied(), what) {
            None if restored && outcome.is_ok() => Some(Line {
                level: Level::Warning,
                text: format!("{what} was removed: made anew"),
            }),
            line => line,
        }
    }
}

/// Makes a folder, with those that it is in, for files that nobody else may replace: mode 0755 at most, whatever the
/// umask is.
///
/// # Errors
/// What the kernel said.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}

fn into_io(error: LockError) -> io::Error {
    match error {
        LockError::Io { error, .. } => error,
        held @ LockError::Held { .. } => io::Error::other(held),
    }
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, time::Duration};

    use std::fs;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    /// A folder of this test's own.
    fn folder(name: &str) -> PathBuf {
        let name = format!("xvs-lock-file-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn a_file_that_was_removed_is_there_again_and_keeps_others_out() {
        let folder = folder("removed");
        let path = folder.join("lock");
        let mut file = LockFile::new(InstanceLock::acquire(&path).unwrap());
        assert_eq!(file.keep(at(0)), None);
        fs::remove_dir_all(&folder).unwrap();
        let line = file.keep(at(1)).unwrap().text;
        assert!(line.ends_with("lock was removed: made anew"), "{line}");
        assert_eq!(file.keep(at(2)), None);
        let second = InstanceLock::acquire(&path);
        assert!(matches!(second, Err(LockError::Held { .. })), "{second:?}");
        drop(file);
        assert!(!path.exists());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_second_engine_that_was_quicker_is_named_and_keeps_its_file() {
        let folder = folder("second");
        let path = folder.join("lock");
        let mut file = LockFile::new(InstanceLock::acquire(&path).unwrap());
        fs::remove_file(&path).unwrap();
        let second = InstanceLock::acquire(&path).unwrap();
        let line = file.keep(at(0)).unwrap().text;
        assert!(line.contains("is in use by process"), "{line}");
        assert_eq!(file.keep(at(1)), None);
        drop(second);
        let line = file.keep(at(2)).unwrap().text;
        assert!(line.ends_with("works again after 2 failures"), "{line}");
        fs::remove_file(&path).unwrap();
        let second = InstanceLock::acquire(&path).unwrap();
        drop(file);
        assert!(path.exists(), "it is the second one's");
        drop(second);
        fs::remove_dir_all(&folder).unwrap();
    }
}
