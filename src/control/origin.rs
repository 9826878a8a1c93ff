//! Where the configuration comes from: its file on this host, the files that it includes, and what tells this host
//! from its peers.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::config::{self, Host, Parsed, Request, Unreadable};

/// A configuration file, and what reading it depends on beside the file.
#[derive(Clone, Debug)]
pub struct Origin {
    file: PathBuf,
    id: String,
    seed: u64,
}

impl Origin {
    /// A file, read as this host: its configuration id is the host's name up to the first dot.
    pub fn new(file: PathBuf) -> Self {
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let id = name.trim().split('.').next().unwrap_or_default().to_owned();
        // Drawn once, so that a reload does not give other random numbers than the start.
        let seed = fastrand::u64(..);
        Self { file, id, seed }
    }

    /// With this configuration id (keepalived's `-i`).
    pub fn with_id(self, id: String) -> Self {
        Self { id, ..self }
    }

    /// Another file, with all else alike.
    pub fn with_file(self, file: PathBuf) -> Self {
        Self { file, ..self }
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Reads the file and all that it includes.
    ///
    /// # Errors
    /// What the system said about the file itself.
    pub fn read(&self) -> io::Result<Parsed> {
        let text = fs::read(&self.file)?;
        Ok(config::read(&Request {
            file: &self.file.display().to_string(),
            text: &text,
            id: &self.id,
            seed: self.seed,
            host: &ThisHost,
        }))
    }
}

/// The machine that this program runs on.
struct ThisHost;

impl Host for ThisHost {
    fn matching(&self, pattern: &str) -> Vec<String> {
        // As glob(3) does where nothing is asked of it: `*` skips hidden files and stops at a slash.
        let options = glob::MatchOptions {
            require_literal_separator: true,
            require_literal_leading_dot: true,
            ..glob::MatchOptions::default()
        };
        // Only to the crate do two stars mean more than one.
        let mut pattern = pattern.to_owned();
        while pattern.contains("**") {
            pattern = pattern.replace("**", "*");
        }
        let paths = glob::glob_with(&pattern, options)
            .ok()
            .into_iter()
            .flatten();
        let found = paths.filter_map(Result::ok);
        found.map(|path| path.display().to_string()).collect()
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, Unreadable> {
        /// Who may execute a file: anybody.
        const EXECUTABLE: u32 = 0o111;
        let failed = |error: io::Error| Unreadable::Failed(error.to_string());
        // Asked before it is opened: opening a pipe waits for its writer.
        let about = fs::metadata(path).map_err(failed)?;
        if !about.is_file() {
            return Err(Unreadable::NoFile);
        }
        if about.permissions().mode() & EXECUTABLE != 0 {
            return Err(Unreadable::Executable);
        }
        fs::read(path).map_err(failed)
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}
