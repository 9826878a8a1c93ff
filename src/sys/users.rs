//! Whether users and groups exist, as whatever the host asks (files, LDAP) knows them.

use std::{ffi::CString, io, ptr};

/// Room for an entry: more than a line of `/etc/passwd` or a group of a thousand members takes.
const ROOM: usize = 64 * 1024;

/// Whether there is a user of this name.
///
/// # Errors
/// The host's databases cannot be asked.
pub fn user_exists(name: &str) -> io::Result<bool> {
    let Ok(name) = CString::new(name) else {
        return Ok(false);
    };
    let mut room = vec![0; ROOM];
    // SAFETY: all bytes zero are a passwd: numbers and null pointers.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found = ptr::null_mut();
    // SAFETY: `name` ends with NUL; `entry`, `room` with its length, and `found` are live and writable for the call.
    let error = unsafe {
        libc::getpwnam_r(
            name.as_ptr(),
            &raw mut entry,
            room.as_mut_ptr(),
            room.len(),
            &raw mut found,
        )
    };
    answer(error, !found.is_null())
}

/// Whether there is a group of this name.
///
/// # Errors
/// The host's databases cannot be asked.
pub fn group_exists(name: &str) -> io::Result<bool> {
    let Ok(name) = CString::new(name) else {
        return Ok(false);
    };
    let mut room = vec![0; ROOM];
    // SAFETY: all bytes zero are a group: a number and null pointers.
    let mut entry: libc::group = unsafe { std::mem::zeroed() };
    let mut found = ptr::null_mut();
    // SAFETY: as above.
    let error = unsafe {
        libc::getgrnam_r(
            name.as_ptr(),
            &raw mut entry,
            room.as_mut_ptr(),
            room.len(),
            &raw mut found,
        )
    };
    answer(error, !found.is_null())
}

/// Some databases call it an error that there is none (getpwnam(3)).
fn answer(error: i32, found: bool) -> io::Result<bool> {
    match error {
        0 | libc::ENOENT | libc::ESRCH => Ok(found),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_exists_and_nobody_has_this_name() {
        assert!(user_exists("root").unwrap() && group_exists("root").unwrap());
        for name in ["xvs-no-such-name", "", "a\0b"] {
            assert!(!user_exists(name).unwrap(), "{name:?}");
            assert!(!group_exists(name).unwrap(), "{name:?}");
        }
    }
}
