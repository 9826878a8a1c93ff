//! The embedded BPF object and the calls of libbpf that serve it. libbpf is the copy that libxdp
//! brings along; nothing else is linked for this.

use std::{
    ffi::CStr,
    fs::File,
    io::{self, Read, Write},
    mem, ops,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr::{self, NonNull},
    slice,
    sync::{
        Once,
        atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use libbpf_sys as bpf;

use super::open_error::OpenError;

/// The object that `build.rs` compiled from `steer.bpf.c`.
static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/steer.bpf.o")));

/// ELF headers are read in place, so they must lie as the ELF specification aligns them.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

/// Bytes of a verifier log that are kept: its end says what was wrong.
const LOG_BYTES: usize = 256 * 1024;
/// Lines of a verifier log that are shown.
const LOG_LINES: usize = 6;

/// The program and its maps, opened and then loaded into the kernel. Closing it frees what nothing
/// else (an interface, a socket) holds.
pub(super) struct Object {
    raw: NonNull<bpf::bpf_object>,
    /// Where the kernel writes the verifier's log during [`Self::load`]. libbpf keeps the address, so
    /// this is never resized.
    log: Vec<u8>,
}

// SAFETY: libbpf objects have no tie to the thread that opened them; they are only not to be used by
// two at once, and `Object` is neither `Sync` nor `Clone`.
unsafe impl Send for Object {}

impl Object {
    /// Opens the object to load just `programs` of it.
    pub(super) fn open(programs: &[&CStr]) -> Result<Self, OpenError> {
        static QUIET: Once = Once::new();
        // SAFETY: a null callback is libbpf's way of saying "print nothing": what it would say goes
        // into our own errors, not onto a daemon's standard error.
        QUIET.call_once(|| unsafe {
            bpf::libbpf_set_print(None);
        });
        let mut log = vec![0; LOG_BYTES];
        // SAFETY: the options are plain integers and pointers, for which zero is a value.
        let mut options: bpf::bpf_object_open_opts = unsafe { mem::zeroed() };
        options.sz = size_of_as(&options);
        options.kernel_log_buf = log.as_mut_ptr().cast();
        options.kernel_log_size = LOG_BYTES as bpf::size_t;
        // SAFETY: the object's bytes are static and as long as said; `options` is alive for the call,
        // and the log it points at lives in `Self` for as long as the object.
        let raw = unsafe {
            bpf::bpf_object__open_mem(
                OBJECT.0.as_ptr().cast(),
                OBJECT.0.len() as bpf::size_t,
                &options,
            )
        };
        let raw = NonNull::new(raw).ok_or_else(|| OpenError::Program {
            source: io::Error::last_os_error(),
            log: String::new(),
        })?;
        let object = Self { raw, log };
        let mut program = ptr::null_mut();
        loop {
            // SAFETY: the object is open, and `program` is null or one of its programs.
            program = unsafe { bpf::bpf_object__next_program(raw.as_ptr(), program) };
            if program.is_null() {
                return Ok(object);
            }
            // SAFETY: `program` belongs to the open object, which owns its name, a C string.
            let wanted =
                programs.contains(&unsafe { CStr::from_ptr(bpf::bpf_program__name(program)) });
            // SAFETY: as above, and the object is not loaded yet.
            unsafe { bpf::bpf_program__set_autoload(program, wanted) };
        }
    }

    /// Makes the object use `map`'s kernel map for its own of that name. Only before [`Self::load`].
    pub(super) fn share(&mut self, name: &CStr, map: &Map) -> Result<(), OpenError> {
        // SAFETY: the map belongs to the open object; libbpf duplicates the descriptor.
        let code = unsafe { bpf::bpf_map__reuse_fd(self.find_map(name)?, map.fd.as_raw_fd()) };
        check(code).map_err(|source| OpenError::Program {
            source,
            log: String::new(),
        })?;
        Ok(())
    }

    /// Makes room for so many entries in a map. Only before [`Self::load`].
    pub(super) fn set_entries(&mut self, name: &CStr, entries: u32) -> Result<(), OpenError> {
        // SAFETY: the map belongs to the open object.
        let code = unsafe { bpf::bpf_map__set_max_entries(self.find_map(name)?, entries) };
        check(code).map_err(|source| OpenError::Program {
            source,
            log: String::new(),
        })?;
        Ok(())
    }

    /// Loads the programs chosen at [`Self::open`] and their maps into the kernel.
    pub(super) fn load(&mut self) -> Result<(), OpenError> {
        // SAFETY: the object is open, and its log buffer is alive.
        let code = unsafe { bpf::bpf_object__load(self.raw.as_ptr()) };
        check(code).map_err(|source| match source.raw_os_error() {
            Some(libc::EPERM) => OpenError::Privilege {
                action: "load the steering program",
                needs: "CAP_BPF and CAP_NET_ADMIN",
            },
            _ => OpenError::Program {
                source,
                log: log_tail(&self.log),
            },
        })?;
        Ok(())
    }

    /// A map of the loaded object.
    pub(super) fn map(&self, name: &CStr) -> Result<Map, OpenError> {
        let map = self.find_map(name)?;
        // SAFETY: the map belongs to this object, which is loaded and stays open during the calls.
        let (fd, key, value) = unsafe {
            (
                bpf::bpf_map__fd(map),
                bpf::bpf_map__key_size(map),
                bpf::bpf_map__value_size(map),
            )
        };
        // SAFETY: as above.
        let entries = unsafe { bpf::bpf_map__max_entries(map) };
        Ok(Map {
            fd: duplicate(fd)?,
            key: key as usize,
            value: value as usize,
            entries: entries as usize,
        })
    }

    /// A program of the loaded object.
    pub(super) fn program(&self, name: &CStr) -> Result<Program, OpenError> {
        // SAFETY: the object is open and the name is a C string.
        let program =
            unsafe { bpf::bpf_object__find_program_by_name(self.raw.as_ptr(), name.as_ptr()) };
        if program.is_null() {
            return Err(missing(name));
        }
        // SAFETY: the program belongs to this object, which is loaded.
        let fd = unsafe { bpf::bpf_program__fd(program) };
        Ok(Program { fd: duplicate(fd)? })
    }

    /// Lets the socket filter go on to its judge, both of this loaded object. The object must stay as long as
    /// the filter is to let anything through: without a descriptor of it the kernel empties the map.
    pub(super) fn set_judge(&self) -> Result<(), OpenError> {
        let judge = self.program(c"xvs_judge")?;
        self.map(c"judges")?
            .set(&0_u32.to_ne_bytes(), &judge.fd.as_raw_fd().to_ne_bytes())
            .map_err(|source| OpenError::Refused {
                action: "complete the socket filter".to_owned(),
                source,
            })
    }

    fn find_map(&self, name: &CStr) -> Result<*mut bpf::bpf_map, OpenError> {
        // SAFETY: the object is open and the name is a C string.
        let map = unsafe { bpf::bpf_object__find_map_by_name(self.raw.as_ptr(), name.as_ptr()) };
        if map.is_null() {
            return Err(missing(name));
        }
        Ok(map)
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: the object is open, and nobody holds a pointer into it: maps and programs are
        // handed out as descriptors of their own.
        unsafe { bpf::bpf_object__close(self.raw.as_ptr()) };
    }
}

/// A type that is a key or a value of a map as it lies in memory.
///
/// # Safety
/// It has no holes, and any bytes are a value of it.
pub(super) unsafe trait Plain: Copy {
    /// The value as the kernel reads it.
    fn bytes(&self) -> &[u8] {
        // SAFETY: as long as the value and alive as long, and without holes every byte is set.
        unsafe { slice::from_raw_parts(ptr::from_ref(self).cast(), size_of::<Self>()) }
    }
}

// SAFETY: a number.
unsafe impl Plain for u32 {}

/// A kernel map. Keys and values are bytes; their lengths are checked against the map's.
pub(super) struct Map {
    fd: OwnedFd,
    key: usize,
    value: usize,
    entries: usize,
}

/// An atomic integer, of a type that any bytes are a value of.
///
/// # Safety
/// It is one of the standard library's integers.
pub(super) unsafe trait Atomic {}

// SAFETY: integers.
unsafe impl Atomic for AtomicU8 {}
// SAFETY: as above.
unsafe impl Atomic for AtomicU16 {}
// SAFETY: as above.
unsafe impl Atomic for AtomicU32 {}
// SAFETY: as above.
unsafe impl Atomic for AtomicU64 {}

/// The values of an array map in this process's memory, where program and process read and write them at a time.
pub(super) struct Mapped {
    start: NonNull<u8>,
    value: usize,
    entries: usize,
}

// SAFETY: it hands out nothing but shared references to atomics, and unmaps only when it is dropped.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps so many values of so many bytes.
    fn new((value, entries): (usize, usize), flags: i32, fd: RawFd) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let length = value * entries;
        // SAFETY: a new mapping at a place of the kernel's choice.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            start: NonNull::new(start.cast()).ok_or_else(io::Error::last_os_error)?,
            value,
            entries,
        })
    }

    /// A copy of values of so many bytes that [`Self::write_to`] wrote. What is behind the last whole one is left.
    pub(super) fn read_from(file: &mut File, value: usize) -> io::Result<Self> {
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        let entries = length / value;
        if entries == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let copy = Self::new(
            (value, entries),
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
        )?;
        // SAFETY: this memory was just made, is as long, and nobody else knows it.
        let bytes = unsafe { slice::from_raw_parts_mut(copy.start.as_ptr(), value * entries) };
        file.read_exact(bytes)?;
        Ok(copy)
    }

    /// Writes values, those that there are of `entries`, as they are at this moment one by one.
    pub(super) fn write_to(
        &self,
        file: &mut impl Write,
        entries: ops::Range<usize>,
    ) -> io::Result<()> {
        for index in entries.start..entries.end.min(self.entries) {
            for offset in (0..self.value).step_by(8) {
                let word = self.at::<AtomicU64>(index, offset);
                file.write_all(&word.load(Ordering::Relaxed).to_ne_bytes())?;
            }
        }
        Ok(())
    }

    /// Values that there are.
    pub(super) const fn entries(&self) -> usize {
        self.entries
    }

    /// The integer at an offset of the value at `index`.
    ///
    /// # Panics
    /// If it is not in the map, or not aligned.
    #[inline]
    pub(super) fn at<A: Atomic>(&self, index: usize, offset: usize) -> &A {
        let is_in = index < self.entries && offset + size_of::<A>() <= self.value;
        assert!(
            is_in && offset.is_multiple_of(size_of::<A>()),
            "a map's value"
        );
        // SAFETY: it lies in the mapping, which lives as long as `self`, is aligned (values are multiples of 8 bytes
        // from the start of a page on), and any bytes are a value of it.
        unsafe { self.start.add(index * self.value + offset).cast().as_ref() }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this size, and no reference into it outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.value * self.entries) };
    }
}

impl Map {
    /// Maps the values of an array into memory. Its program allows that by `BPF_F_MMAPABLE`.
    pub(super) fn mapped(&self) -> io::Result<Mapped> {
        assert!(self.value.is_multiple_of(8), "the kernel rounds others up");
        Mapped::new(
            (self.value, self.entries),
            libc::MAP_SHARED,
            self.fd.as_raw_fd(),
        )
    }

    /// The kernel's number for it.
    pub(super) fn id(&self) -> io::Result<u32> {
        // SAFETY: the structure is plain integers, for which zero is a value: ask for no arrays.
        let mut info: bpf::bpf_map_info = unsafe { mem::zeroed() };
        describe(self.fd.as_raw_fd(), &mut info)?;
        Ok(info.id)
    }

    /// Bytes of a value, and values that there are at most.
    pub(super) const fn size(&self) -> (usize, usize) {
        (self.value, self.entries)
    }

    /// Sets the value of `key`, which is made if there is none.
    pub(super) fn set(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        assert_eq!(
            (key.len(), value.len()),
            (self.key, self.value),
            "map entry"
        );
        // SAFETY: key and value are as long as this map's, and alive for the call.
        check(unsafe {
            bpf::bpf_map_update_elem(
                self.fd.as_raw_fd(),
                key.as_ptr().cast(),
                value.as_ptr().cast(),
                bpf::BPF_ANY.into(),
            )
        })
        .map(drop)
    }

    /// Removes `key`; that there is none is not an error.
    pub(super) fn remove(&self, key: &[u8]) -> io::Result<()> {
        assert_eq!(key.len(), self.key, "map key");
        // SAFETY: the key is as long as this map's, and alive for the call.
        let code = unsafe { bpf::bpf_map_delete_elem(self.fd.as_raw_fd(), key.as_ptr().cast()) };
        match check(code) {
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other.map(drop),
        }
    }

    /// The sum over all processors of a per-processor 64-bit counter.
    pub(super) fn sum(&self, index: u32) -> io::Result<u64> {
        assert_eq!((self.key, self.value), (4, 8), "a counter's map");
        let mut values = vec![0_u64; processors()? as usize];
        // SAFETY: the key is 4 bytes, and the kernel writes one 8-byte value a possible processor;
        // both are alive for the call.
        check(unsafe {
            bpf::bpf_map_lookup_elem(
                self.fd.as_raw_fd(),
                (&raw const index).cast(),
                values.as_mut_ptr().cast(),
            )
        })?;
        Ok(values.iter().sum())
    }
}

/// How many processors there can be.
pub(super) fn processors() -> io::Result<u32> {
    // SAFETY: takes no arguments.
    let count = check(unsafe { bpf::libbpf_num_possible_cpus() })?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Bytes that a program can make a packet longer by.
const GROWTH: usize = 256;

/// What came of running a program.
pub(super) struct Run {
    pub(super) verdict: u32,
    /// The packet as the program left it.
    pub(super) packet: Vec<u8>,
    /// What one run took, on average.
    pub(super) each: Duration,
}

/// A loaded program.
pub(super) struct Program {
    fd: OwnedFd,
}

impl Program {
    /// The kernel's number for it.
    pub(super) fn id(&self) -> io::Result<u32> {
        program_info(self.fd.as_raw_fd()).map(|info| info.id)
    }

    /// What the program says of `packet`: runs it that many times in the kernel, on no interface.
    pub(super) fn run(&self, packet: &[u8], times: u32) -> io::Result<Run> {
        // SAFETY: the options are plain integers and pointers, for which zero is a value.
        let mut options: bpf::bpf_test_run_opts = unsafe { mem::zeroed() };
        options.sz = size_of_as(&options);
        options.data_in = packet.as_ptr().cast();
        options.data_size_in = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        options.repeat = times.try_into().unwrap_or(i32::MAX);
        let mut out = vec![0_u8; packet.len() + GROWTH];
        options.data_out = out.as_mut_ptr().cast();
        options.data_size_out = u32::try_from(out.len()).unwrap_or(u32::MAX);
        // SAFETY: the program is loaded, `packet` is as long as said and only read, and `out` is writable for as many
        // bytes as said.
        check(unsafe { bpf::bpf_prog_test_run_opts(self.fd.as_raw_fd(), &mut options) })?;
        out.truncate(options.data_size_out as usize);
        Ok(Run {
            packet: out,
            verdict: options.retval,
            each: Duration::from_nanos(options.duration.into()),
        })
    }
}

impl AsRawFd for Program {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// The name of the program with this number; `None` when there is none any more.
pub(super) fn program_name(id: u32) -> io::Result<Option<String>> {
    let Some(fd) = program_by_id(id)? else {
        return Ok(None);
    };
    let info = program_info(fd.as_raw_fd())?;
    let name = info.name.map(|c| c.to_ne_bytes()[0]);
    let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
    Ok(Some(String::from_utf8_lossy(&name[..end]).into_owned()))
}

/// The maps with these names of the program with this number, as far as it uses them.
pub(super) fn maps_of_program<const N: usize>(
    id: u32,
    names: [&CStr; N],
) -> io::Result<[Option<Map>; N]> {
    let mut found = [const { None }; N];
    let Some(program) = program_by_id(id)? else {
        return Ok(found);
    };
    let mut ids = [0_u32; MOST_MAPS];
    // SAFETY: the structure is plain integers, for which zero is a value.
    let mut info: bpf::bpf_prog_info = unsafe { mem::zeroed() };
    info.nr_map_ids = u32::try_from(ids.len()).unwrap_or(u32::MAX);
    info.map_ids = ids.as_mut_ptr().expose_provenance() as u64;
    describe(program.as_raw_fd(), &mut info)?;
    for id in ids.iter().take(info.nr_map_ids as usize) {
        // SAFETY: no pointers are passed.
        let fd = match check(unsafe { bpf::bpf_map_get_fd_by_id(*id) }) {
            // SAFETY: the descriptor was just made for us.
            Ok(fd) => unsafe { OwnedFd::from_raw_fd(raw_fd(fd)) },
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => continue,
            Err(e) => return Err(e),
        };
        // SAFETY: as above.
        let mut info: bpf::bpf_map_info = unsafe { mem::zeroed() };
        describe(fd.as_raw_fd(), &mut info)?;
        let name = info.name.map(|c| c.to_ne_bytes()[0]);
        let is_it = |wanted: &CStr| name.starts_with(wanted.to_bytes_with_nul());
        if let Some(at) = names.iter().position(|wanted| is_it(wanted)) {
            found[at] = Some(Map {
                fd,
                key: info.key_size as usize,
                value: info.value_size as usize,
                entries: info.max_entries as usize,
            });
        }
    }
    Ok(found)
}

/// Maps of a program that are looked at: more than the steering program has.
const MOST_MAPS: usize = 64;

/// A descriptor for the program with this number; `None` when there is none any more.
pub(super) fn program_by_id(id: u32) -> io::Result<Option<OwnedFd>> {
    // SAFETY: no pointers are passed.
    match check(unsafe { bpf::bpf_prog_get_fd_by_id(id) }) {
        // SAFETY: the descriptor was just made for us.
        Ok(fd) => Ok(Some(unsafe { OwnedFd::from_raw_fd(raw_fd(fd)) })),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

fn program_info(fd: RawFd) -> io::Result<bpf::bpf_prog_info> {
    // SAFETY: the structure is plain integers, for which zero is a value: ask for no arrays.
    let mut info: bpf::bpf_prog_info = unsafe { mem::zeroed() };
    describe(fd, &mut info)?;
    Ok(info)
}

/// Has the kernel describe a program or a map. What `info` points to is written, too.
fn describe<T>(fd: RawFd, info: &mut T) -> io::Result<()> {
    let mut len = u32::try_from(size_of::<T>()).unwrap_or(u32::MAX);
    // SAFETY: `info` is writable for `len` bytes, and both are alive for the call.
    check(unsafe { bpf::bpf_obj_get_info_by_fd(fd, ptr::from_mut(info).cast(), &mut len) })
        .map(drop)
}

/// What libbpf returned: a count or descriptor, or an errno below zero.
pub(super) fn check(code: i32) -> io::Result<usize> {
    usize::try_from(code).map_err(|_| io::Error::from_raw_os_error(code.saturating_neg()))
}

/// The size that libbpf's option structures carry in their first member.
pub(super) fn size_of_as<T>(_: &T) -> bpf::size_t {
    size_of::<T>() as bpf::size_t
}

fn raw_fd(fd: usize) -> RawFd {
    // It was one before `check` told it from an error.
    RawFd::try_from(fd).unwrap_or(-1)
}

fn duplicate(fd: RawFd) -> Result<OwnedFd, OpenError> {
    if fd < 0 {
        return Err(OpenError::Program {
            source: io::Error::from_raw_os_error(fd.saturating_neg()),
            log: String::new(),
        });
    }
    // SAFETY: libbpf returned `fd` for a loaded part of an open object: it is open during the call.
    unsafe { BorrowedFd::borrow_raw(fd) }
        .try_clone_to_owned()
        .map_err(|source| OpenError::Refused {
            action: "duplicate a BPF descriptor".to_owned(),
            source,
        })
}

fn missing(name: &CStr) -> OpenError {
    OpenError::Program {
        source: io::Error::from(io::ErrorKind::NotFound),
        log: format!("the embedded object has no {}", name.to_string_lossy()),
    }
}

fn log_tail(log: &[u8]) -> String {
    let end = log.iter().position(|b| *b == 0).unwrap_or(log.len());
    let text = String::from_utf8_lossy(&log[..end]);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_object_opens_and_has_what_is_named() {
        let object = Object::open(&[c"xvs_steer"]).unwrap();
        for name in [c"services", c"locals", c"stations", c"xsks", c"counters"] {
            assert!(object.find_map(name).is_ok(), "{name:?}");
        }
        assert!(object.find_map(c"nothing").is_err());
    }

    #[test]
    fn the_socket_filter_is_small_enough_for_older_kernels() {
        // With what it calls it would be longer than `net.core.optmem_max` lets it be before Linux 6.8,
        // and nothing says here how long: it must leave all to its judge.
        const MOST: u64 = 8;
        let object = Object::open(&[c"xvs_tap"]).unwrap();
        // SAFETY: the object is open, and owns the program.
        let instructions = unsafe {
            let program =
                bpf::bpf_object__find_program_by_name(object.raw.as_ptr(), c"xvs_tap".as_ptr());
            bpf::bpf_program__insn_cnt(program)
        };
        assert!(
            (1..=MOST).contains(&instructions),
            "{instructions} instructions"
        );
    }

    #[test]
    fn the_end_of_a_log_is_kept() {
        let mut log = b"1\n2\n3\n4\n5\n6\n7\n".to_vec();
        log.extend([0; 9]);
        assert_eq!(log_tail(&log), "2; 3; 4; 5; 6; 7");
        assert_eq!(log_tail(&[0; 4]), "");
    }
}
