//! Files that hold the process id, for scripts and service managers that look for them.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process,
};

/// The files of this process, mode 0644. Removed when dropped, those that are still ours.
#[derive(Debug, Default)]
pub(super) struct PidFiles(Vec<(PathBuf, File)>);

impl PidFiles {
    /// Writes them. What a dead process has left is replaced; a link is replaced, not followed.
    ///
    /// # Errors
    /// A sentence: one cannot be written, or a keepalived that runs has written it.
    pub(super) fn write(paths: &[PathBuf]) -> Result<Self, String> {
        let mut written = Self::default();
        for path in paths {
            if let Some(pid) = owner(path) {
                return Err(format!(
                    "{} names process {pid}, a keepalived that runs: stop it first",
                    path.display()
                ));
            }
            let file = write(path).map_err(|error| format!("{}: {error}", path.display()))?;
            written.0.push((path.clone(), file));
        }
        Ok(written)
    }
}

impl Drop for PidFiles {
    fn drop(&mut self) {
        for (path, file) in &self.0 {
            if is_at(file, path) {
                // The next start replaces it.
                let _ = fs::remove_file(path);
            }
        }
    }
}

fn write(path: &Path) -> io::Result<File> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() || found.is_symlink() => fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::other("is no file that could be replaced")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)?;
    // Whatever the umask is.
    file.set_permissions(Permissions::from_mode(0o644))?;
    writeln!(file, "{}", process::id())?;
    Ok(file)
}

/// The keepalived that a file names, if it runs: a number alone may be another process's by now.
fn owner(path: &Path) -> Option<u32> {
    let text = fs::read_to_string(path).ok()?;
    let pid: u32 = text.trim().parse().ok()?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    (pid != process::id() && name.trim_end() == "keepalived").then_some(pid)
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => open.ino() == named.ino() && open.dev() == named.dev(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("xvs-pid-{}-{name}", process::id()))
    }

    #[test]
    fn stale_files_and_links_are_replaced_and_ours_removed() {
        let paths = [place("stale"), place("link")];
        let target = place("target");
        // Process 1 lives, and is no keepalived.
        fs::write(&paths[0], "1\n").unwrap();
        fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, &paths[1]).unwrap();
        let files = PidFiles::write(&paths).unwrap();
        for path in &paths {
            let text = fs::read_to_string(path).unwrap();
            assert_eq!(text, format!("{}\n", process::id()));
            let data = fs::symlink_metadata(path).unwrap();
            assert!(data.is_file());
            assert_eq!(data.permissions().mode() & 0o777, 0o644);
        }
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
        // Somebody else has taken the place of the second one.
        fs::remove_file(&paths[1]).unwrap();
        fs::write(&paths[1], "1\n").unwrap();
        drop(files);
        assert!(!paths[0].exists() && paths[1].exists());
        for path in [&paths[1], &target] {
            fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_takes_those_before_it_along() {
        let paths = [place("first"), place("no-such-folder").join("second")];
        let error = PidFiles::write(&paths).unwrap_err();
        assert!(error.contains("second: No such file"), "{error}");
        assert!(!paths[0].exists());
    }

    #[test]
    fn the_file_of_a_keepalived_that_runs_is_left_alone() {
        let path = place("running");
        let (sender, stop) = std::sync::mpsc::channel::<()>();
        let (told, named) = std::sync::mpsc::channel();
        // A thread has a name of its own, and a place in /proc.
        let other = std::thread::Builder::new().name("keepalived".to_owned());
        let other = other.spawn(move || {
            let me = fs::read_link("/proc/thread-self").unwrap();
            let id = me.file_name().unwrap().to_str().unwrap().to_owned();
            told.send(id).unwrap();
            let _ = stop.recv();
        });
        let id = named.recv().unwrap();
        fs::write(&path, &id).unwrap();
        let error = PidFiles::write(std::slice::from_ref(&path)).unwrap_err();
        assert!(error.contains(&format!("names process {id}")), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), id);
        drop(sender);
        other.unwrap().join().unwrap();
        drop(PidFiles::write(std::slice::from_ref(&path)).unwrap());
        assert!(!path.exists());
    }
}
