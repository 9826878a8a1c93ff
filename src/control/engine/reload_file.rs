//! `reload_file`: a file that is there while the configuration is read, so that whoever changes it can wait meanwhile.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::PathBuf,
};

/// The file, from before the configuration is read until that is done.
pub(super) struct ReloadFile(PathBuf);

impl ReloadFile {
    /// Makes the file, or cuts the one that is there to nothing: its writer sees by that that reading has begun.
    ///
    /// # Errors
    /// A line for the log, which stops no reload: it cannot be made, or is a link, another name of some file, or no
    /// file at all, of which nothing is to be cut.
    pub(super) fn make(path: PathBuf) -> Result<Self, String> {
        let failed = |error: io::Error| format!("reload_file {}: {error}", path.display());
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o644);
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY);
        let file = options.open(&path).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        if !about.is_file() || about.nlink() > 1 {
            let error = io::Error::other("is no file of its own that could be cut to nothing");
            return Err(failed(error));
        }
        file.set_len(0).map_err(failed)?;
        Ok(Self(path))
    }

    /// Removes it: all is read.
    ///
    /// # Errors
    /// A line for the log.
    pub(super) fn remove(self) -> Result<(), String> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(format!(
                "removing the reload_file {}: {error}",
                self.0.display()
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_cut_and_removed_and_nothing_else_is_touched() {
        let folder = std::env::temp_dir().join(format!("xvs-mark-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let place = |name: &str| folder.join(name);
        fs::write(place("there"), "someone changes the configuration").unwrap();
        for name in ["new", "there"] {
            let file = ReloadFile::make(place(name)).unwrap();
            assert_eq!(fs::read(place(name)).unwrap(), b"");
            file.remove().unwrap();
            assert!(!place(name).exists());
        }
        fs::write(place("precious"), "precious").unwrap();
        symlink(place("precious"), place("link")).unwrap();
        fs::hard_link(place("precious"), place("name")).unwrap();
        for name in ["link", "name", "no/such", "."] {
            let error = ReloadFile::make(place(name)).err().expect(name);
            assert!(error.starts_with("reload_file /"), "{error}");
        }
        assert_eq!(fs::read(place("precious")).unwrap(), b"precious");
        let file = ReloadFile::make(place("gone")).unwrap();
        fs::remove_file(place("gone")).unwrap();
        file.remove().unwrap();
        fs::remove_dir_all(folder).unwrap();
    }
}
