//! The AF_XDP sockets of one interface, as libxdp opens and closes them.
//!
//! The calls are libxdp's own, not those of its wrapper xsk-rs: that one maps the memory of a umem
//! itself, so that two interfaces could share none, and its descriptors cannot be moved within a chunk,
//! which an outer header before the packet takes. What remains is small: who may touch which ring, and
//! that libxdp, which counts without locks, is called by one thread at a time.
//!
//! An interface's first socket registers the memory as a umem, the others share it (they may: the first is
//! bound by then); each has fill and completion rings of its own, as it is bound to a queue of its own.

use std::{
    cell::UnsafeCell,
    ffi::{CStr, c_char},
    io, mem,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd},
    ptr::{self, NonNull},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use libxdp_sys as xdp;

use super::{
    super::{
        device::InterfaceSpec,
        open_error::OpenError,
        sockopt,
        umem::{CHUNK, FrameMemory, HEADROOM, Span},
    },
    CopyMode, RING,
};

/// What is written by libxdp at the start and by the socket's owner from then on.
struct Rings {
    rx: xdp::xsk_ring_cons,
    tx: xdp::xsk_ring_prod,
    fill: xdp::xsk_ring_prod,
    comp: xdp::xsk_ring_cons,
}

/// The sockets of an interface. They are closed by the last of their owners.
struct Sockets {
    umem: *mut xdp::xsk_umem,
    sockets: Vec<*mut xdp::xsk_socket>,
    /// One for each queue, all from the start on: libxdp keeps the addresses of these, and looks there again when it
    /// closes a socket.
    rings: Vec<UnsafeCell<Rings>>,
    /// What the umem is made of.
    memory: Arc<FrameMemory>,
}

// SAFETY: after `open` libxdp is called by `drop` alone, so by one thread, after all `Socket`s are gone.
unsafe impl Send for Sockets {}
// SAFETY: as above; nothing is reached through a shared reference.
unsafe impl Sync for Sockets {}

impl Drop for Sockets {
    fn drop(&mut self) {
        for socket in self.sockets.drain(..) {
            // SAFETY: made by libxdp, deleted once; its rings are still where they were.
            unsafe { xdp::xsk_socket__delete(socket) };
        }
        // SAFETY: null, which is nothing, or made by libxdp and deleted once; no socket uses it any more, and
        // the rings that it may still know are where they were.
        unsafe { xdp::xsk_umem__delete(self.umem) };
    }
}

/// One socket, bound to one queue: its rings, which are the holder's alone.
pub(super) struct Socket {
    rings: NonNull<Rings>,
    fd: RawFd,
    of: Arc<Sockets>,
}

// SAFETY: there is one `Socket` for each `Rings`, so whoever has it may use them, on any thread.
unsafe impl Send for Socket {}

/// Opens a socket on each of the `queues` of `spec`'s interface, on `memory`.
///
/// # Errors
/// [`OpenError::QueueBusy`] when a queue is taken, maybe by a socket that was just closed; or what the kernel
/// refused.
pub(super) fn open(
    memory: &Arc<FrameMemory>,
    spec: &InterfaceSpec,
    queues: u32,
    mode: CopyMode,
) -> Result<Vec<Socket>, OpenError> {
    let mut all = Sockets {
        umem: ptr::null_mut(),
        sockets: Vec::new(),
        // SAFETY: rings are integers and pointers, for which zero is a value.
        rings: (0..queues)
            .map(|_| UnsafeCell::new(unsafe { mem::zeroed() }))
            .collect(),
        memory: Arc::clone(memory),
    };
    // By its index, whatever its name is by now.
    let name = Name::of(spec)?;
    for queue in 0..queues {
        all.add(spec, &name, queue, mode)?;
    }
    // Names can change hands: it was the right one if it still is.
    if Name::of(spec)? != name {
        return Err(OpenError::NoInterface {
            interface: spec.name.clone(),
        });
    }
    let all = Arc::new(all);
    let sockets = all.sockets.iter().zip(&all.rings);
    let socket = |(socket, rings): (&*mut xdp::xsk_socket, &UnsafeCell<Rings>)| Socket {
        // SAFETY: a pointer to what the vector holds is not null.
        rings: unsafe { NonNull::new_unchecked(rings.get()) },
        // SAFETY: libxdp made the socket, and it is not deleted.
        fd: unsafe { xdp::xsk_socket__fd(*socket) },
        of: Arc::clone(&all),
    };
    Ok(sockets.map(socket).collect())
}

/// How many descriptors the kernel sends in one call in copy mode; <linux/if_xdp.h>, Linux 6.17.
const XDP_MAX_TX_SKB_BUDGET: i32 = 9;

impl Sockets {
    fn add(
        &mut self,
        spec: &InterfaceSpec,
        name: &Name,
        queue: u32,
        mode: CopyMode,
    ) -> Result<(), OpenError> {
        let at = self.rings[queue as usize].get();
        if self.umem.is_null() {
            self.umem = self.register(at)?;
        }
        // SAFETY: the structure is integers, for which zero is a value.
        let mut config: xdp::xsk_socket_config = unsafe { mem::zeroed() };
        config.rx_size = RING;
        config.tx_size = RING;
        config.__bindgen_anon_1.libxdp_flags = xdp::XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD;
        let copy = match mode {
            CopyMode::ZeroCopy => xdp::XDP_ZEROCOPY,
            CopyMode::Copy => xdp::XDP_COPY,
        };
        // Those that share the umem have the first one's.
        config.bind_flags = u16::try_from(copy | xdp::XDP_USE_NEED_WAKEUP).unwrap_or(0);
        let mut socket = ptr::null_mut();
        // SAFETY: the umem is libxdp's and alive; the rings stay where they are as long as the socket, and
        // only this call writes them now. For the first socket, fill and completion ring are those that the
        // umem was made with.
        let code = unsafe {
            xdp::xsk_socket__create_shared(
                &mut socket,
                name.0.as_ptr(),
                queue,
                self.umem,
                &raw mut (*at).rx,
                &raw mut (*at).tx,
                &raw mut (*at).fill,
                &raw mut (*at).comp,
                &config,
            )
        };
        if code != 0 {
            return Err(match -code {
                libc::EBUSY => OpenError::QueueBusy {
                    interface: spec.name.clone(),
                    queue,
                },
                errno => OpenError::from_errno(
                    &spec.name,
                    "bind an AF_XDP socket",
                    io::Error::from_raw_os_error(errno),
                ),
            });
        }
        self.sockets.push(socket);
        // SAFETY: libxdp made the socket. It opened the descriptor without this flag, for all but the first.
        unsafe { libc::fcntl(xdp::xsk_socket__fd(socket), libc::F_SETFD, libc::FD_CLOEXEC) };
        if mode == CopyMode::Copy {
            // SAFETY: the descriptor is that of the socket, which is not deleted.
            let fd = unsafe { BorrowedFd::borrow_raw(xdp::xsk_socket__fd(socket)) };
            let most = i32::try_from(RING).unwrap_or(i32::MAX);
            // An older kernel sends fewer at a time, which costs no more than further calls.
            let _ = sockopt::set_int(fd, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, most);
        }
        Ok(())
    }

    /// Registers the memory as a umem of this interface, whose first socket has these rings.
    fn register(&self, rings: *mut Rings) -> Result<*mut xdp::xsk_umem, OpenError> {
        let config = xdp::xsk_umem_config {
            fill_size: RING,
            comp_size: RING,
            frame_size: CHUNK,
            frame_headroom: HEADROOM,
            flags: 0,
        };
        let fd = new_socket().map_err(|source| self.refused(source))?;
        let mut umem = ptr::null_mut();
        // SAFETY: the memory is mapped for its length and lives as long as the umem; the rings stay where they are
        // as long, too. libxdp takes the descriptor over, also when it fails.
        let code = unsafe {
            xdp::xsk_umem__create_with_fd(
                &mut umem,
                fd.into_raw_fd(),
                self.memory.start().cast(),
                self.memory.bytes(),
                &raw mut (*rings).fill,
                &raw mut (*rings).comp,
                &config,
            )
        };
        if code != 0 {
            return Err(self.refused(io::Error::from_raw_os_error(-code)));
        }
        Ok(umem)
    }

    fn refused(&self, source: io::Error) -> OpenError {
        match source.raw_os_error() {
            // The kernel says ENOBUFS when the limit of locked memory is reached.
            Some(libc::ENOBUFS) => OpenError::LockedMemory {
                needed: self.memory.bytes(),
            },
            Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::ENOPROTOOPT) => {
                OpenError::NoAfXdp
            }
            Some(libc::EPERM | libc::EACCES) => OpenError::Privilege {
                action: "open an AF_XDP socket",
                needs: "CAP_NET_RAW",
            },
            _ => OpenError::Refused {
                action: "make the memory for packets".to_owned(),
                source,
            },
        }
    }
}

fn new_socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just created, so it is open and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An interface's name, as libxdp wants it.
struct Name([c_char; libc::IF_NAMESIZE]);

impl Name {
    /// The name that the interface of this index has now.
    fn of(spec: &InterfaceSpec) -> Result<Self, OpenError> {
        let mut name = [0; libc::IF_NAMESIZE];
        // SAFETY: the buffer has the size that the call asks for.
        if unsafe { libc::if_indextoname(spec.ifindex, name.as_mut_ptr()) }.is_null() {
            return Err(OpenError::NoInterface {
                interface: spec.name.clone(),
            });
        }
        Ok(Self(name))
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        // SAFETY: `if_indextoname` ended both by a zero within the buffer.
        unsafe { CStr::from_ptr(self.0.as_ptr()) == CStr::from_ptr(other.0.as_ptr()) }
    }
}

impl Socket {
    fn rings(&mut self) -> &mut Rings {
        // SAFETY: the rings live as long as `of`; this is the only `Socket` of it (`open`), borrowed exclusively,
        // and libxdp looks at it only after this is gone.
        unsafe { self.rings.as_mut() }
    }

    /// The socket's descriptor.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: it is open for as long as `of` is there.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }

    /// The memory that it was opened on.
    pub(super) fn memory(&self) -> &Arc<FrameMemory> {
        &self.of.memory
    }

    /// Gives `each` the frames that were received, at most so many. How many there were.
    #[inline]
    pub(super) fn receive(&mut self, most: usize, mut each: impl FnMut(Span)) -> usize {
        let ring = &mut self.rings().rx;
        let mut index = 0;
        // SAFETY: libxdp set the ring up, and it is borrowed exclusively.
        let count = unsafe { xdp::xsk_ring_cons__peek(ring, entries(most), &mut index) };
        for n in 0..count {
            let at = index.wrapping_add(n) & ring.mask;
            // SAFETY: the place is within the ring, and the kernel has filled it: it is among `count`.
            let desc = unsafe { ring.ring.cast::<xdp::xdp_desc>().add(at as usize).read() };
            each(span(&desc));
        }
        // SAFETY: as above; so many were taken out.
        unsafe { xdp::xsk_ring_cons__release(ring, count) };
        count as usize
    }

    /// Gives `each` the chunks that the kernel has sent, at most so many. How many there were.
    #[inline]
    pub(super) fn completed(&mut self, most: usize, mut each: impl FnMut(u32)) -> usize {
        let ring = &mut self.rings().comp;
        let mut index = 0;
        // SAFETY: libxdp set the ring up, and it is borrowed exclusively.
        let count = unsafe { xdp::xsk_ring_cons__peek(ring, entries(most), &mut index) };
        for n in 0..count {
            let at = index.wrapping_add(n) & ring.mask;
            // SAFETY: the place is within the ring, and the kernel has filled it: it is among `count`.
            let addr = unsafe { ring.ring.cast::<u64>().add(at as usize).read() };
            each(chunk_of(addr));
        }
        // SAFETY: as above; so many were taken out.
        unsafe { xdp::xsk_ring_cons__release(ring, count) };
        count as usize
    }

    /// Gives the kernel empty chunks to fill. Whether there was room for all; if not, it took none.
    #[inline]
    pub(super) fn fill(&mut self, chunks: &[u32]) -> bool {
        let ring = &mut self.rings().fill;
        let mut index = 0;
        // SAFETY: libxdp set the ring up, and it is borrowed exclusively.
        let count = unsafe { xdp::xsk_ring_prod__reserve(ring, entries(chunks.len()), &mut index) };
        for (n, chunk) in (0..count).zip(chunks) {
            let at = index.wrapping_add(n) & ring.mask;
            let addr = u64::from(*chunk) * u64::from(CHUNK);
            // SAFETY: the place is within the ring, and reserved: it is among `count`.
            unsafe { ring.ring.cast::<u64>().add(at as usize).write(addr) };
        }
        // SAFETY: as above; so many places were written.
        unsafe { xdp::xsk_ring_prod__submit(ring, count) };
        count as usize == chunks.len()
    }

    /// Gives the kernel frames to send. Whether there was room for all; if not, it took none.
    #[inline]
    pub(super) fn send(&mut self, spans: &[Span]) -> bool {
        let ring = &mut self.rings().tx;
        let mut index = 0;
        // SAFETY: libxdp set the ring up, and it is borrowed exclusively.
        let count = unsafe { xdp::xsk_ring_prod__reserve(ring, entries(spans.len()), &mut index) };
        for (n, span) in (0..count).zip(spans) {
            let at = index.wrapping_add(n) & ring.mask;
            let desc = xdp::xdp_desc {
                addr: span.at.into(),
                len: span.len.into(),
                options: 0,
            };
            // SAFETY: the place is within the ring, and reserved: it is among `count`.
            unsafe {
                ring.ring
                    .cast::<xdp::xdp_desc>()
                    .add(at as usize)
                    .write(desc)
            };
        }
        // SAFETY: as above; so many places were written.
        unsafe { xdp::xsk_ring_prod__submit(ring, count) };
        count as usize == spans.len()
    }

    /// Free places of the fill ring: no more than there are, and all of them where fewer than so many are known.
    #[inline]
    pub(super) fn fill_room(&mut self, wanted: u32) -> u32 {
        // SAFETY: libxdp set the ring up, and it is borrowed exclusively.
        unsafe { xdp::xsk_prod_nb_free(&mut self.rings().fill, wanted) }.min(RING)
    }

    /// Free places of the transmit ring, likewise.
    #[inline]
    pub(super) fn send_room(&mut self, wanted: u32) -> u32 {
        // SAFETY: libxdp set the ring up, and it is borrowed exclusively.
        unsafe { xdp::xsk_prod_nb_free(&mut self.rings().tx, wanted) }.min(RING)
    }

    /// Frames in the transmit ring that the kernel has not looked at.
    #[inline]
    pub(super) fn unsent(&mut self) -> u32 {
        used(&self.rings().tx)
    }

    /// Frames that the four rings show.
    pub(super) fn in_rings(&mut self) -> u32 {
        let rings = self.rings();
        waiting(&rings.rx) + waiting(&rings.comp) + used(&rings.fill) + used(&rings.tx)
    }

    /// Whether the kernel is to be told that there are frames to send.
    #[inline]
    pub(super) fn send_needs_wakeup(&mut self) -> bool {
        needs_wakeup(&self.rings().tx)
    }

    /// Whether the kernel is to be told that there are chunks to fill.
    #[inline]
    pub(super) fn fill_needs_wakeup(&mut self) -> bool {
        needs_wakeup(&self.rings().fill)
    }

    /// Has the kernel look at the transmit ring.
    ///
    /// # Errors
    /// What sendto(2) reported, but that the device is busy or down.
    pub(super) fn wake_to_send(&self) -> io::Result<()> {
        // SAFETY: a length of 0 means that nothing is read from the null pointer; the descriptor is open.
        let code =
            unsafe { libc::sendto(self.fd, ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0) };
        if code < 0 {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::ENOBUFS | libc::EAGAIN | libc::EBUSY | libc::ENETDOWN) => {}
                _ => return Err(error),
            }
        }
        Ok(())
    }

    /// Has the kernel look at the fill ring.
    pub(super) fn wake_to_fill(&self) {
        let mut entry = libc::pollfd {
            fd: self.fd,
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one entry, alive for the call. What it reports is of no matter.
        unsafe { libc::poll(&mut entry, 1, 0) };
    }
}

/// Whether a socket has lost its interface, which was deleted or went to another network namespace.
pub(super) fn is_unbound(socket: BorrowedFd<'_>) -> bool {
    // SAFETY: a length of 0 means that nothing is written to the null pointer; the descriptor is open.
    let code = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            ptr::null_mut(),
            0,
            libc::MSG_DONTWAIT,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    };
    code < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ENXIO)
}

/// A count as rings have it; none is larger than one.
fn entries(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(RING).min(RING)
}

fn chunk_of(addr: u64) -> u32 {
    u32::try_from(addr / u64::from(CHUNK)).unwrap_or(u32::MAX)
}

fn span(desc: &xdp::xdp_desc) -> Span {
    Span {
        at: u32::try_from(desc.addr).unwrap_or(u32::MAX),
        len: u16::try_from(desc.len).unwrap_or(0),
    }
}

/// What the kernel has put into a ring and nobody has taken out.
fn waiting(ring: &xdp::xsk_ring_cons) -> u32 {
    // SAFETY: libxdp set it up: an aligned integer in memory that the kernel shares, alive with the socket.
    let produced = unsafe { AtomicU32::from_ptr(ring.producer) }.load(Ordering::Acquire);
    produced.wrapping_sub(ring.cached_cons)
}

/// What was put into a ring and the kernel has not taken out.
fn used(ring: &xdp::xsk_ring_prod) -> u32 {
    // SAFETY: libxdp set it up: an aligned integer in memory that the kernel shares, alive with the socket.
    let consumed = unsafe { AtomicU32::from_ptr(ring.consumer) }.load(Ordering::Acquire);
    ring.cached_prod.wrapping_sub(consumed)
}

fn needs_wakeup(ring: &xdp::xsk_ring_prod) -> bool {
    // SAFETY: libxdp set it up: an aligned integer in memory that the kernel shares, alive with the socket.
    let flags = unsafe { AtomicU32::from_ptr(ring.flags) }.load(Ordering::Relaxed);
    flags & xdp::XDP_RING_NEED_WAKEUP != 0
}
