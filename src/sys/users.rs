//! Users and groups, as whatever the host asks (files, LDAP) knows them.

use std::{ffi::CString, io, ptr};

/// Room for an entry: more than a line of `/etc/passwd` or a group of a thousand members takes.
const ROOM: usize = 64 * 1024;

/// A user, as far as a process needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The user's number.
    pub uid: u32,
    /// The number of the user's own group.
    pub gid: u32,
}

/// The user of this name, if there is one.
///
/// # Errors
/// The host's databases cannot be asked.
pub fn user(name: &str) -> io::Result<Option<User>> {
    let Ok(name) = CString::new(name) else {
        return Ok(None);
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
    let user = User {
        uid: entry.pw_uid,
        gid: entry.pw_gid,
    };
    Ok(answer(error, !found.is_null())?.then_some(user))
}

/// The number of the group of this name, if there is one.
///
/// # Errors
/// The host's databases cannot be asked.
pub fn group(name: &str) -> io::Result<Option<u32>> {
    let Ok(name) = CString::new(name) else {
        return Ok(None);
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
    Ok(answer(error, !found.is_null())?.then_some(entry.gr_gid))
}

/// Most groups of a user (`NGROUPS_MAX` of the kernel).
const MOST_GROUPS: usize = 65_536;

/// The numbers of all groups of the user `name`, with `gid` among them.
///
/// # Errors
/// The host's databases cannot be asked.
pub fn groups_of(name: &str, gid: u32) -> io::Result<Vec<u32>> {
    let name = CString::new(name)?;
    let mut groups: Vec<libc::gid_t> = vec![0; MOST_GROUPS];
    let mut count = libc::c_int::try_from(groups.len()).unwrap_or(libc::c_int::MAX);
    // SAFETY: `name` ends with NUL, `groups` is writable for `count` numbers, and both are live for the call.
    let status =
        unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
    if status < 0 {
        return Err(io::Error::other("the user has too many groups"));
    }
    groups.truncate(usize::try_from(count).unwrap_or(0));
    Ok(groups)
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
        assert_eq!(user("root").unwrap(), Some(User { uid: 0, gid: 0 }));
        assert_eq!(group("root").unwrap(), Some(0));
        for name in ["xvs-no-such-name", "", "a\0b"] {
            assert_eq!(user(name).unwrap(), None, "{name:?}");
            assert_eq!(group(name).unwrap(), None, "{name:?}");
        }
    }

    #[test]
    fn a_user_is_in_its_own_group() {
        assert!(groups_of("root", 0).unwrap().contains(&0));
        assert_eq!(groups_of("xvs-no-such-name", 4711).unwrap(), [4711]);
    }
}
