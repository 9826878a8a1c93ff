//! Files that are complete or not there, and the writer's alone to read.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process,
};

/// Writes a file, mode 0600, that takes the place of the file or link of its name: under another name first. Nothing
/// is written through a link, and nothing but a file is replaced: a device, a pipe or a folder stays.
///
/// # Errors
/// What the kernel said: then what was there is as it was, and nothing else is left.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            return Err(io::Error::other("is no file that could be replaced"));
        }
        _ => {}
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", process::id()));
    let unfinished = PathBuf::from(name);
    let written = write_new(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, path));
    if written.is_err() {
        // It takes room on a full disk.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::{
        fs::{FileTypeExt, PermissionsExt, symlink},
        net::UnixListener,
    };

    use super::*;

    #[test]
    fn links_are_replaced_and_what_is_no_file_stays() {
        let folder = std::env::temp_dir().join(format!("xvs-whole-{}", process::id()));
        fs::create_dir_all(folder.join("folder")).unwrap();
        let target = folder.join("target");
        fs::write(&target, "precious").unwrap();
        let link = folder.join("link");
        symlink(&target, &link).unwrap();
        replace(&link, b"whole").unwrap();
        let written = fs::symlink_metadata(&link).unwrap();
        assert!(written.is_file());
        assert_eq!(written.permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&link).unwrap(), "whole");
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
        let socket = folder.join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        // As /dev/stdout is one.
        symlink(&socket, folder.join("to-socket")).unwrap();
        for name in ["socket", "to-socket", "folder"] {
            let error = replace(&folder.join(name), b"whole").unwrap_err();
            assert!(error.to_string().contains("no file"), "{name}: {error}");
        }
        assert!(
            fs::metadata(folder.join("to-socket"))
                .unwrap()
                .file_type()
                .is_socket()
        );
        assert!(replace(&folder.join("no/such"), b"whole").is_err());
        let left = fs::read_dir(&folder).unwrap().count();
        assert_eq!(left, 5, "half a file is left");
        fs::remove_dir_all(&folder).unwrap();
    }
}
