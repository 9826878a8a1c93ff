//! The state that one process leaves for another: always whole, never waited for.

use std::{
    ffi::CStr,
    fs::File,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, RawFd},
        unix::fs::FileExt,
    },
};

/// A slot begins with its generation and the length of what follows, 8 bytes each.
const HEADER: usize = 16;

/// The end that writes. Two slots are written in turns, so that one is always whole.
#[derive(Debug)]
pub(super) struct Writer {
    slots: [File; 2],
    /// Of the newest state; 0 is none, and marks a slot that is being written.
    generation: u64,
}

/// The end that reads.
#[derive(Debug)]
pub(super) struct Reader {
    slots: [File; 2],
}

/// Both ends of an empty state.
pub(super) fn pair() -> io::Result<(Writer, Reader)> {
    let slots = [memory_file()?, memory_file()?];
    let shared = [slots[0].try_clone()?, slots[1].try_clone()?];
    let writer = Writer {
        slots,
        generation: 0,
    };
    Ok((writer, Reader { slots: shared }))
}

impl Writer {
    /// Replaces the state.
    pub(super) fn write(&mut self, state: &[u8]) -> io::Result<()> {
        let next = self.generation + 1;
        let slot = &self.slots[usize::from(next % 2 == 1)];
        slot.write_all_at(&0_u64.to_ne_bytes(), 0)?;
        slot.write_all_at(state, HEADER as u64)?;
        // Sixteen bytes within one page: the kernel copies them whole or, when this process is
        // killed before, not at all.
        slot.write_all_at(&header(next, state.len()), 0)?;
        self.generation = next;
        Ok(())
    }
}

impl Reader {
    /// The newest state that was written whole; `None` when there was none.
    pub(super) fn read(&self) -> Option<Vec<u8>> {
        let (_, slot, length) = self
            .slots
            .iter()
            .filter_map(|slot| {
                let mut header = [0; HEADER];
                slot.read_exact_at(&mut header, 0).ok()?;
                let (generation, length) = header.split_at(8);
                let generation = u64::from_ne_bytes(generation.try_into().ok()?);
                let length = u64::from_ne_bytes(length.try_into().ok()?);
                (generation != 0).then_some((generation, slot, length))
            })
            .max_by_key(|(generation, ..)| *generation)?;
        let mut state = vec![0; usize::try_from(length).ok()?];
        slot.read_exact_at(&mut state, HEADER as u64).ok()?;
        Some(state)
    }

    /// The descriptors that reading needs.
    pub(super) fn fds(&self) -> [RawFd; 2] {
        [self.slots[0].as_raw_fd(), self.slots[1].as_raw_fd()]
    }
}

fn header(generation: u64, length: usize) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&generation.to_ne_bytes());
    header[8..].copy_from_slice(&(length as u64).to_ne_bytes());
    header
}

/// A file that lives in memory and has no name elsewhere.
fn memory_file() -> io::Result<File> {
    const NAME: &CStr = c"xvs-guardian-state";
    // SAFETY: NAME is a NUL-terminated string.
    let fd = unsafe { libc::memfd_create(NAME.as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it for us, and nobody else knows it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_state_is_read_longer_or_shorter() {
        let (mut writer, reader) = pair().unwrap();
        assert_eq!(reader.read(), None);
        for state in ["first", "the second, which is longer", "3rd", "", "fifth"] {
            writer.write(state.as_bytes()).unwrap();
            assert_eq!(reader.read().unwrap(), state.as_bytes());
        }
    }

    #[test]
    fn a_writer_that_dies_halfway_leaves_the_state_before() {
        let (mut writer, reader) = pair().unwrap();
        for state in ["one", "two", "three"] {
            writer.write(state.as_bytes()).unwrap();
            // What a writer does that is killed before it writes the header.
            let slot = &writer.slots[usize::from(writer.generation.is_multiple_of(2))];
            slot.write_all_at(&0_u64.to_ne_bytes(), 0).unwrap();
            slot.write_all_at(b"half of a state", HEADER as u64)
                .unwrap();
            assert_eq!(reader.read().unwrap(), state.as_bytes());
        }
    }
}
