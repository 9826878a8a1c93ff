//! The frames of AF_XDP: one umem for all sockets, and the token that stands for one frame.
//!
//! xsk-rs's descriptors are `Copy`, so that nothing stops a program from sending a frame and writing
//! to it meanwhile. Here each descriptor is in exactly one of these places, and moves between them
//! by value:
//!
//! - the free list of the pool;
//! - a ring, or the kernel's hands (which the pool counts);
//! - one [`Frame`], which is not `Copy` or `Clone` and is minted only from a descriptor that the
//!   kernel just gave up.
//!
//! So the holder of a `Frame` is the only one who can reach its chunk: that is what makes
//! [`Frame::bytes_mut`] sound. The umem outlives every `Frame`, as the pool frees it only when none is
//! out, and leaks it otherwise.

use std::{io, num::NonZeroU32, ptr::NonNull, sync::OnceLock};

use xsk_rs::{
    FrameDesc, Umem,
    config::{FrameSize, QueueSize, UmemConfig},
};

use super::open_error::OpenError;
use crate::addr::PortId;

/// Bytes of a chunk: the smaller of the two sizes that every zero-copy driver takes. It holds a
/// 1,500-byte packet with two VLAN tags and the headrooms below.
pub const CHUNK: u32 = 2048;
/// Bytes before the packet that are ours, beside the kernel's own 256 (XDP_PACKET_HEADROOM): room
/// for an outer header where a driver uses up the kernel's.
pub const HEADROOM: u32 = 64;
/// Entries of each ring of each socket. A burst of 64 every 30 µs is 2 Mpps: this is 1 ms of that.
pub const RING: u32 = 2048;
/// Bytes that a received frame can have: what is left of a chunk.
pub const ROOM: u32 = CHUNK - HEADROOM - 256;
const _: () = assert!(
    ROOM >= 1500 + 14 + 2 * 4,
    "a full-sized packet with two VLAN tags fits a chunk"
);

/// A frame in the holder's hands: the right to one chunk of the umem. It is sent or released; one
/// that is just dropped counts as in hand for ever.
#[derive(Debug)]
pub struct Frame {
    /// `'static` by the pool's promise to free the umem only when no frame is out.
    umem: &'static Umem,
    desc: FrameDesc,
    port: PortId,
}

impl Frame {
    /// From the destination MAC address to the end of the payload.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `desc` is of this umem, lies within one chunk (the kernel wrote it, `grow_front`
        // keeps it so), and this token is the only way to that chunk (module documentation).
        unsafe { self.umem.data(&self.desc) }.contents()
    }

    /// The same bytes, to be changed.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `&mut self` excludes other borrows of the token.
        let mut data = unsafe { self.umem.data_mut(&mut self.desc) };
        let bytes = data.contents_mut();
        let (start, len) = (bytes.as_mut_ptr(), bytes.len());
        // SAFETY: the same slice, whose borrow `data` would end with itself; the umem outlives the
        // token, and the result borrows the token exclusively.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    /// Moves the start `by` bytes towards the start of the chunk; `false` when that is too far.
    #[must_use]
    pub fn grow_front(&mut self, by: usize) -> bool {
        let start = self.desc.addr();
        if by > start % CHUNK as usize {
            return false;
        }
        let len = self.desc.lengths().data() + by;
        set_addr(&mut self.desc, start - by);
        // SAFETY: as in `bytes_mut`; the moved start is in the same chunk.
        unsafe { self.umem.data_mut(&mut self.desc) }
            .cursor()
            .set_pos(len);
        true
    }

    /// Cuts it off behind its first `len` bytes; a shorter frame stays as it is.
    pub fn truncate(&mut self, len: usize) {
        let len = len.min(self.desc.lengths().data());
        // SAFETY: as in `bytes_mut`; the frame only becomes shorter.
        unsafe { self.umem.data_mut(&mut self.desc) }
            .cursor()
            .set_pos(len);
    }

    /// Makes it `len` bytes long; `false` when the chunk ends before that.
    #[must_use]
    pub fn resize(&mut self, len: usize) -> bool {
        let room = CHUNK as usize - self.desc.addr() % CHUNK as usize;
        if len > room {
            return false;
        }
        // SAFETY: as in `bytes_mut`; the frame still ends in its chunk.
        unsafe { self.umem.data_mut(&mut self.desc) }
            .cursor()
            .set_pos(len);
        self.desc.lengths().data() == len
    }

    /// The port that it came in on.
    #[inline]
    pub const fn port(&self) -> PortId {
        self.port
    }
}

/// Owns the umem and knows where each of its frames is. One worker's.
pub(super) struct Pool {
    umem: NonNull<Umem>,
    free: Vec<FrameDesc>,
    total: u64,
    in_kernel: u64,
    in_hand: u64,
}

// SAFETY: the pool owns its umem, which is `Send` and `Sync`; frames hold shared references only.
unsafe impl Send for Pool {}

impl Pool {
    /// A umem of `frames` frames, all free.
    pub(super) fn new(frames: NonZeroU32) -> Result<Self, OpenError> {
        let needed = u64::from(frames.get()) * u64::from(CHUNK);
        raise_memlock_limit();
        let refused = |source| OpenError::Refused {
            action: "make the memory for packets".to_owned(),
            source,
        };
        let size = |n| QueueSize::new(n).map_err(|e| refused(io::Error::other(e.to_string())));
        let config = UmemConfig::builder()
            .frame_size(
                FrameSize::new(CHUNK).map_err(|e| refused(io::Error::other(e.to_string())))?,
            )
            .frame_headroom(HEADROOM)
            .fill_queue_size(size(RING)?)
            .comp_queue_size(size(RING)?)
            .build()
            .map_err(|e| refused(io::Error::other(e.to_string())))?;
        let (umem, free) = Umem::new(config, frames, false).map_err(|e| {
            let source = errno_of(&e);
            match source.raw_os_error() {
                // The kernel says ENOBUFS when the limit of locked memory is reached.
                Some(libc::ENOBUFS) => OpenError::LockedMemory { needed },
                Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::ENOPROTOOPT) => {
                    OpenError::NoAfXdp
                }
                Some(libc::EPERM | libc::EACCES) => OpenError::Privilege {
                    action: "open an AF_XDP socket",
                    needs: "CAP_NET_RAW",
                },
                _ => refused(source),
            }
        })?;
        if addr_offset().is_none() {
            return Err(refused(io::Error::other(
                "xsk-rs's descriptors are not as expected; build with xsk-rs 0.11",
            )));
        }
        Ok(Self {
            umem: NonNull::from(Box::leak(Box::new(umem))),
            total: free.len() as u64,
            free,
            in_kernel: 0,
            in_hand: 0,
        })
    }

    /// The umem, to bind sockets to.
    pub(super) fn umem(&self) -> &'static Umem {
        // SAFETY: the box is freed only by `drop`, and then only when no frame holds this reference;
        // sockets keep handles of their own, not the reference.
        unsafe { self.umem.as_ref() }
    }

    /// Takes up to `limit` free descriptors, to be given to the kernel.
    pub(super) fn take_free(&mut self, limit: usize) -> std::vec::Drain<'_, FrameDesc> {
        let keep = self.free.len().saturating_sub(limit);
        self.in_kernel += (self.free.len() - keep) as u64;
        self.free.drain(keep..)
    }

    /// Takes back descriptors of [`Self::take_free`] that did not go into a ring.
    pub(super) fn give_back(&mut self, descs: &[FrameDesc]) {
        self.in_kernel -= descs.len() as u64;
        self.free.extend_from_slice(descs);
    }

    /// Free descriptors there are.
    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// Takes back descriptors whose transmission the kernel has completed.
    pub(super) fn completed(&mut self, descs: &[FrameDesc]) {
        self.in_kernel -= descs.len() as u64;
        self.free.extend_from_slice(descs);
    }

    /// The token for a descriptor that the kernel has filled.
    pub(super) fn received(&mut self, desc: FrameDesc, port: PortId) -> Frame {
        self.in_kernel -= 1;
        self.in_hand += 1;
        Frame {
            umem: self.umem(),
            desc,
            port,
        }
    }

    /// The token for a free frame, empty and with all its headroom, as if received on `port`.
    pub(super) fn spare(&mut self, port: PortId) -> Option<Frame> {
        let mut desc = self.free.pop()?;
        let start = desc.addr() - desc.addr() % CHUNK as usize;
        set_addr(&mut desc, start + (CHUNK - ROOM) as usize);
        desc.set_options(0);
        self.in_hand += 1;
        let mut frame = Frame {
            umem: self.umem(),
            desc,
            port,
        };
        frame.truncate(0);
        Some(frame)
    }

    /// The descriptor of a frame that is to be sent: the token ends here.
    pub(super) fn sent(&mut self, frame: Frame) -> FrameDesc {
        let desc = self.redeem(frame);
        self.in_kernel += 1;
        desc
    }

    /// Makes a frame free again.
    pub(super) fn release(&mut self, frame: Frame) {
        let desc = self.redeem(frame);
        self.free.push(desc);
    }

    fn redeem(&mut self, frame: Frame) -> FrameDesc {
        assert!(
            std::ptr::eq(frame.umem, self.umem.as_ptr()),
            "a frame of another umem"
        );
        self.in_hand -= 1;
        frame.desc
    }

    /// Frames that exist.
    pub(super) const fn total(&self) -> u64 {
        self.total
    }

    /// Frames in a ring or in the kernel's hands.
    pub(super) const fn in_kernel(&self) -> u64 {
        self.in_kernel
    }

    /// Frames whose token somebody holds.
    pub(super) const fn in_hand(&self) -> u64 {
        self.in_hand
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // A token that is still out may be used: its memory must stay. Then the umem is leaked.
        if self.in_hand == 0 {
            // SAFETY: made by `Box::leak` in `new` and freed only here; no frame refers to it.
            drop(unsafe { Box::from_raw(self.umem.as_ptr()) });
        }
    }
}

/// Moves a descriptor's start. xsk-rs offers no way to, though the kernel takes any start within a
/// chunk, and an outer header before the packet is just that.
fn set_addr(desc: &mut FrameDesc, addr: usize) {
    let Some(offset) = addr_offset() else {
        return;
    };
    // SAFETY: `offset` is where `FrameDesc` has its address (found below), an integer of this type.
    unsafe {
        (&raw mut *desc)
            .cast::<u8>()
            .add(offset)
            .cast::<usize>()
            .write(addr);
    }
}

/// Where a `FrameDesc` has its address: the place that changes what `addr()` says when written to.
/// Every field of the structure is an integer, so any value may be tried; none is read but by xsk-rs.
fn addr_offset() -> Option<usize> {
    const MARK: usize = 0x5a5a_1234;
    static OFFSET: OnceLock<Option<usize>> = OnceLock::new();
    *OFFSET.get_or_init(|| {
        let places = 0..=size_of::<FrameDesc>().checked_sub(size_of::<usize>())?;
        places.step_by(align_of::<usize>()).find(|offset| {
            let mut desc = FrameDesc::default();
            // SAFETY: the place is aligned and within the structure, whose fields are all integers.
            unsafe {
                (&raw mut desc)
                    .cast::<u8>()
                    .add(*offset)
                    .cast::<usize>()
                    .write(MARK);
            }
            desc.addr() == MARK && desc.lengths().data() == 0 && desc.options() == 0
        })
    })
}

/// The errno below an error of xsk-rs.
pub(super) fn errno_of(error: &dyn std::error::Error) -> io::Error {
    error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .and_then(io::Error::raw_os_error)
        .map_or_else(
            || io::Error::other(error.to_string()),
            io::Error::from_raw_os_error,
        )
}

/// Raises the limit of locked memory as far as we may: without CAP_IPC_LOCK the umem counts against
/// it. When we may not, making the umem fails and its error says what to do.
fn raise_memlock_limit() {
    for limit in [libc::RLIM_INFINITY, hard_memlock_limit()] {
        let limit = libc::rlimit {
            rlim_cur: limit,
            rlim_max: limit,
        };
        // SAFETY: the limit is a valid structure, alive for the call.
        if unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) } == 0 {
            return;
        }
    }
}

fn hard_memlock_limit() -> libc::rlim_t {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is writable and alive for the call.
    unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) };
    limit.rlim_max
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_of_xsk_rs_can_be_moved() {
        let mut desc = FrameDesc::default();
        desc.set_options(7);
        set_addr(&mut desc, 4096 + 20);
        assert_eq!(desc.addr(), 4116);
        assert_eq!((desc.options(), desc.lengths().data()), (7, 0));
    }
}
