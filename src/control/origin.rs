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
    /// Absolute, as far as the system can say where it is.
    folder: String,
    id: String,
    all_files: bool,
    seed: u64,
}

impl Origin {
    /// A file, read as this host: its configuration id is the host's name up to the first dot.
    pub fn new(file: PathBuf) -> Self {
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let id = name.trim().split('.').next().unwrap_or_default().to_owned();
        // Drawn once, so that a reload does not give other random numbers than the start.
        let seed = fastrand::u64(..);
        let folder = folder_of(&file);
        Self {
            file,
            folder,
            id,
            all_files: false,
            seed,
        }
    }

    /// With this configuration id (keepalived's `-i`).
    pub fn with_id(self, id: String) -> Self {
        Self { id, ..self }
    }

    /// With every included file having to be there and be read (keepalived's `-e`).
    pub fn with_all_files(self) -> Self {
        Self {
            all_files: true,
            ..self
        }
    }

    /// Another file, with all else alike.
    pub fn with_file(self, file: PathBuf) -> Self {
        let folder = folder_of(&file);
        Self {
            file,
            folder,
            ..self
        }
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
            folder: &self.folder,
            text: &text,
            id: &self.id,
            seed: self.seed,
            all_files: self.all_files,
            host: &ThisHost,
        }))
    }
}

/// What relative includes of a file count from, wherever the process goes meanwhile.
fn folder_of(file: &Path) -> String {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let folder = absolute.parent().map(|folder| folder.display().to_string());
    folder.unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of its own with these files, of which those named `*.sh` may be executed.
    fn folder(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("xvs-origin-{}-{name}", std::process::id()));
        fs::create_dir_all(folder.join("sub")).unwrap();
        for (name, text) in files {
            let path = folder.join(name);
            fs::write(&path, text).unwrap();
            let mode = if name.ends_with(".sh") { 0o755 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        folder
    }

    #[test]
    fn a_file_is_read_with_what_it_includes_and_as_this_host() {
        let folder = folder(
            "host",
            &[
                (
                    "main",
                    "include sub/*\n@left global_defs { router_id l }\n@^left global_defs { router_id r${_PWD} }",
                ),
                ("sub/b.conf", "zork2"),
                ("sub/a.conf", "zork1"),
                ("sub/.hidden", "zork3"),
                ("sub/c.sh", "zork4"),
            ],
        );
        let origin = Origin::new(folder.join("main"));
        let parsed = origin.read().unwrap();
        let said: Vec<_> = parsed
            .diagnostics
            .iter()
            .map(|d| d.message.as_str())
            .collect();
        assert!(
            said[0].ends_with("c.sh` is not read: it may be executed"),
            "{said:?}"
        );
        assert_eq!(
            said[1..3],
            ["unknown keyword `zork1`", "unknown keyword `zork2`"]
        );
        assert_eq!(parsed.files().len(), 3, "{:?}", parsed.files());
        let shown = folder.display().to_string();
        assert_eq!(parsed.config.global.router_id, Some(format!("r{shown}")));
        let left = origin.with_id("left".to_owned()).read().unwrap();
        assert_eq!(left.config.global.router_id.as_deref(), Some("l"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn every_file_has_to_be_there_whatever_the_configuration_checks() {
        let text = "global_defs {\ninclude_check -match\n}\ninclude sub/none\ninclude sub/*.none\n";
        let folder = folder("all", &[("main", text)]);
        let origin = Origin::new(folder.join("main"));
        assert!(!origin.read().unwrap().has_errors());
        let parsed = origin.with_all_files().read().unwrap();
        let errors = parsed.report().matches(": error: ").count();
        assert_eq!(errors, 2, "{}", parsed.report());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_relative_path_means_the_folder_of_the_start() {
        let origin = Origin::new(PathBuf::from("some.conf"));
        assert!(origin.file().is_relative());
        let folder = std::env::current_dir().unwrap();
        assert_eq!(origin.folder, folder.display().to_string());
    }

    #[test]
    fn another_file_includes_from_its_own_folder() {
        let one = folder("one", &[("main", "include more"), ("more", "zork1")]);
        let other = folder("other", &[("main", "include more"), ("more", "zork2")]);
        let origin = Origin::new(one.join("main")).with_file(other.join("main"));
        let parsed = origin.read().unwrap();
        assert_eq!(parsed.diagnostics[0].message, "unknown keyword `zork2`");
        for folder in [one, other] {
            fs::remove_dir_all(folder).unwrap();
        }
    }
}
