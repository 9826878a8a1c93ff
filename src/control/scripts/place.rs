//! Where a program is: found, runnable by who is to run it, and safe from others.

use std::{
    env,
    ffi::OsString,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf, absolute},
};

use crate::sys::script::Identity;

/// Most links on the way to a file, as for the kernel (path_resolution(7)).
const MOST_LINKS: usize = 40;
/// The bit of folders in which everybody may write, but remove and rename only what is theirs.
const STICKY: u32 = 0o1000;

/// A program, and all there is on the way to it.
#[derive(Debug)]
pub(super) struct Place {
    /// As it was written, or found.
    written: PathBuf,
    /// Without links.
    real: PathBuf,
    /// Every folder, link and file that the kernel comes by, in its order.
    way: Vec<(PathBuf, Metadata)>,
}

impl Place {
    /// The program `name`: a path, or a name to look for in the folders of `path`, that `identity` can run.
    ///
    /// # Errors
    /// Why it cannot be run.
    pub(super) fn find(name: &str, path: &str, identity: &Identity) -> Result<Self, String> {
        let of = |file: &Path| {
            let place = Self::look(file);
            let place = place.map_err(|error| format!("{} cannot be run: {error}", file.display()));
            place.and_then(|place| place.runs_for(identity).map(|()| place))
        };
        if name.contains('/') {
            return of(Path::new(name));
        }
        let mut folders = env::split_paths(path);
        folders
            .find_map(|folder| of(&folder.join(name)).ok())
            .ok_or_else(|| format!("{name} is not found in PATH"))
    }

    /// Follows the way to a file as the kernel does.
    fn look(file: &Path) -> io::Result<Self> {
        let written = absolute(file)?;
        let mut real = PathBuf::from("/");
        let mut way = vec![(real.clone(), fs::symlink_metadata(&real)?)];
        let mut ahead = Vec::new();
        push_reversed(&written, &mut ahead);
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            if name == ".." {
                real.pop();
                continue;
            }
            let next = real.join(name);
            let data = fs::symlink_metadata(&next)?;
            if data.is_symlink() {
                links += 1;
                if links > MOST_LINKS {
                    return Err(io::Error::from_raw_os_error(libc::ELOOP));
                }
                let target = fs::read_link(&next)?;
                if target.is_absolute() {
                    real = PathBuf::from("/");
                }
                push_reversed(&target, &mut ahead);
            } else {
                real.clone_from(&next);
            }
            way.push((next, data));
        }
        Ok(Self { written, real, way })
    }

    fn runs_for(&self, identity: &Identity) -> Result<(), String> {
        let real = self.real.display();
        let Some((_, file)) = self.way.iter().find(|(path, _)| *path == self.real) else {
            return Err(format!("{real} is no file"));
        };
        if !file.is_file() {
            return Err(format!("{real} is no file"));
        }
        let mut folders = self.way.iter().filter(|(_, data)| data.is_dir());
        let closed = folders.find(|(_, data)| !may_run(data, identity));
        if let Some((folder, _)) = closed {
            let (folder, uid) = (folder.display(), identity.uid);
            return Err(format!("{real} is behind {folder}, closed to user {uid}"));
        }
        if may_run(file, identity) {
            Ok(())
        } else {
            let (uid, gid) = (identity.uid, identity.gid);
            Err(format!(
                "{real} is not executable for user {uid} with group {gid}"
            ))
        }
    }

    /// The first thing on the way that others than root can change or replace. Unless links are kept, they are
    /// resolved before anything is run, and only the way without them counts.
    pub(super) fn weakest(&self, keep_links: bool) -> Option<&Path> {
        let mut way = self.way.iter();
        way.find(|(path, data)| {
            let counts = keep_links || self.real.starts_with(path);
            counts && is_weak(data)
        })
        .map(|(path, _)| path.as_path())
    }

    /// The path without links.
    pub(super) fn real(&self) -> &Path {
        &self.real
    }

    /// The path to run.
    pub(super) fn program(&self, keep_links: bool) -> &Path {
        if keep_links {
            &self.written
        } else {
            &self.real
        }
    }
}

/// Puts the names of a path on a stack, the first one on top.
fn push_reversed(path: &Path, stack: &mut Vec<OsString>) {
    let names = path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    stack.extend(names);
}

/// Whether `identity` may run a file or go through a folder.
fn may_run(data: &Metadata, identity: &Identity) -> bool {
    let mode = data.mode();
    let bits = if identity.uid == 0 {
        // Root goes through every folder.
        return data.is_dir() || mode & 0o111 != 0;
    } else if data.uid() == identity.uid {
        0o100
    } else if data.gid() == identity.gid || identity.groups.contains(&data.gid()) {
        0o010
    } else {
        0o001
    };
    mode & bits != 0
}

/// Whether others than root, or root's group, can change something: theirs, or open to them. In a sticky folder they
/// can make things, but not replace what is root's.
fn is_weak(data: &Metadata) -> bool {
    let mode = data.mode();
    let open = (mode & 0o020 != 0 && data.gid() != 0) || mode & 0o002 != 0;
    let guarded = data.is_symlink() || (data.is_dir() && mode & STICKY != 0);
    data.uid() != 0 || (open && !guarded)
}
