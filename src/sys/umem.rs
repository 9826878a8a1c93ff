//! The frames of AF_XDP: one umem for all sockets, and the token that stands for one frame.
//!
//! xsk-rs's descriptors are `Copy`, so that nothing stops a program from sending a frame and writing
//! to it meanwhile. Here each descriptor is in exactly one of these places, and moves between them
//! by value:
//!
//! - the free list of a pool (one a worker), or the spare ones that pools share;
//! - a ring, or the kernel's hands (which a pool counts);
//! - one [`Frame`] (or [`Parted`], between two pools), which is not `Copy` or `Clone` and is minted only from a descriptor that the
//!   kernel just gave up.
//!
//! So the holder of a `Frame` is the only one who can reach its chunk: that is what makes
//! [`Frame::bytes_mut`] sound. The umem outlives every `Frame`, as the last pool frees it only when
//! none is out, and leaks it otherwise.

use std::{
    io,
    num::NonZeroU32,
    ptr::NonNull,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
};

use crossbeam::queue::ArrayQueue;
use xsk_rs::{
    FrameDesc, Umem,
    config::{FrameSize, QueueSize, UmemConfig},
};

use super::{huge_pages, open_error::OpenError};
use crate::addr::PortId;

/// Bytes of a chunk: the smaller of the two sizes that every zero-copy driver takes. It holds a
/// 1,500-byte packet with two VLAN tags and the headrooms below.
pub const CHUNK: u32 = 2048;
/// Bytes before the packet that are ours, beside the kernel's own 256 (XDP_PACKET_HEADROOM): room
/// for an outer header where a driver uses up the kernel's.
pub const HEADROOM: u32 = 64;
/// Entries of each ring of each socket. A burst of 64 every 30 µs is 2 Mpps: this is 1 ms of that.
pub const RING: u32 = 2048;
/// Descriptors moved in one ring access.
pub(super) const BATCH: usize = 64;
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
    /// `'static` by the region's promise to free the umem only when no frame is out.
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

/// The umem, and what its pools share.
struct Region {
    umem: NonNull<Umem>,
    /// Frames that exist.
    frames: u64,
    /// Whether it lies in huge pages.
    huge: bool,
    /// Free descriptors of pools that have more than they need, for those that have fewer: frames move
    /// to where they are sent from when workers hand them over. Room for all, so that giving never fails.
    /// None where there is one pool.
    spare: Option<ArrayQueue<FrameDesc>>,
    /// Tokens that pools left behind when they were dropped.
    out: AtomicI64,
}

// SAFETY: the umem is `Send` and `Sync`, and the pointer to it is only changed by `drop`.
unsafe impl Send for Region {}
// SAFETY: as above; all else is made to be shared.
unsafe impl Sync for Region {}

impl Region {
    /// The umem.
    fn umem(&self) -> &'static Umem {
        // SAFETY: the box is freed only by `drop`, and then only when no frame holds this reference;
        // sockets keep handles of their own, not the reference.
        unsafe { self.umem.as_ref() }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // A token that is still out may be used: its memory must stay. Then the umem is leaked. The last
        // pool's `drop` came before this one, and with it (by the reference count) all others.
        if *self.out.get_mut() == 0 {
            // SAFETY: made by `Box::leak` in `pools` and freed only here; no frame refers to it.
            drop(unsafe { Box::from_raw(self.umem.as_ptr()) });
        }
    }
}

/// A frame on its way from one pool to another of the same umem.
#[derive(Debug)]
pub struct Parted(Frame);

/// Frames of the umem that one worker is answerable for, and where each of them is.
pub(super) struct Pool {
    region: Arc<Region>,
    books: Books,
}

/// Makes a umem for pools that begin with so many frames each, all free. In huge pages, if there are
/// enough.
pub(super) fn pools(frames: &[u32]) -> Result<Vec<Pool>, OpenError> {
    let total = frames.iter().copied().fold(0, u32::saturating_add);
    let Some(count) = NonZeroU32::new(total) else {
        return Ok(Vec::new());
    };
    let needed = u64::from(total) * u64::from(CHUNK);
    raise_memlock_limit();
    let huge_wanted = huge_pages::are_free_for(needed);
    let (umem, mut free, huge) = match create(count, huge_wanted) {
        Ok((umem, free)) => (umem, free, huge_wanted),
        // Somebody else was faster: it goes without.
        Err(_) if huge_wanted => {
            let (umem, free) = create(count, false)?;
            (umem, free, false)
        }
        Err(error) => return Err(error),
    };
    if addr_offset().is_none() {
        return Err(refused(io::Error::other(
            "xsk-rs's descriptors are not as expected; build with xsk-rs 0.11",
        )));
    }
    let region = Arc::new(Region {
        umem: NonNull::from(Box::leak(Box::new(umem))),
        frames: free.len() as u64,
        huge,
        spare: (frames.len() > 1).then(|| ArrayQueue::new(free.len())),
        out: AtomicI64::new(0),
    });
    let pool = |share: &u32| {
        let rest = free.len() - (*share as usize).min(free.len());
        Pool {
            region: Arc::clone(&region),
            books: Books::new(free.split_off(rest)),
        }
    };
    Ok(frames.iter().map(pool).collect())
}

fn create(frames: NonZeroU32, huge: bool) -> Result<(Umem, Vec<FrameDesc>), OpenError> {
    let size = |n| QueueSize::new(n).map_err(|e| refused(io::Error::other(e.to_string())));
    let config = UmemConfig::builder()
        .frame_size(FrameSize::new(CHUNK).map_err(|e| refused(io::Error::other(e.to_string())))?)
        .frame_headroom(HEADROOM)
        .fill_queue_size(size(RING)?)
        .comp_queue_size(size(RING)?)
        .build()
        .map_err(|e| refused(io::Error::other(e.to_string())))?;
    Umem::new(config, frames, huge).map_err(|e| {
        let source = errno_of(&e);
        match source.raw_os_error() {
            // The kernel says ENOBUFS when the limit of locked memory is reached.
            Some(libc::ENOBUFS) => OpenError::LockedMemory {
                needed: u64::from(frames.get()) * u64::from(CHUNK),
            },
            Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::ENOPROTOOPT) => {
                OpenError::NoAfXdp
            }
            Some(libc::EPERM | libc::EACCES) => OpenError::Privilege {
                action: "open an AF_XDP socket",
                needs: "CAP_NET_RAW",
            },
            _ => refused(source),
        }
    })
}

fn refused(source: io::Error) -> OpenError {
    OpenError::Refused {
        action: "make the memory for packets".to_owned(),
        source,
    }
}

impl Pool {
    /// The umem, to bind sockets to.
    pub(super) fn umem(&self) -> &'static Umem {
        self.region.umem()
    }

    /// The books, where descriptors are moved that stand for no token.
    pub(super) const fn books(&mut self) -> &mut Books {
        &mut self.books
    }

    /// Evens out with the other pools: takes spare frames when short of free ones, gives when there are
    /// more than enough.
    #[inline]
    pub(super) fn even_out(&mut self) {
        if let Some(spare) = &self.region.spare {
            self.books.even_out(spare);
        }
    }

    /// The token for a descriptor that the kernel has filled.
    #[inline]
    pub(super) fn received(&mut self, desc: FrameDesc, port: PortId) -> Frame {
        self.books.in_kernel -= 1;
        self.books.in_hand += 1;
        Frame {
            umem: self.umem(),
            desc,
            port,
        }
    }

    /// The descriptor of a frame that is to be sent: the token ends here.
    #[inline]
    pub(super) fn sent(&mut self, frame: Frame) -> FrameDesc {
        let desc = self.redeem(frame);
        self.books.in_kernel += 1;
        desc
    }

    /// Makes a frame free again.
    pub(super) fn release(&mut self, frame: Frame) {
        let desc = self.redeem(frame);
        self.books.free.push(desc);
    }

    /// The token for a free frame, empty and with all its headroom, as if received on `port`.
    pub(super) fn blank(&mut self, port: PortId) -> Option<Frame> {
        let mut desc = self.books.free.pop()?;
        let start = desc.addr() - desc.addr() % CHUNK as usize;
        set_addr(&mut desc, start + (CHUNK - ROOM) as usize);
        desc.set_options(0);
        self.books.in_hand += 1;
        let mut frame = Frame {
            umem: self.umem(),
            desc,
            port,
        };
        frame.truncate(0);
        Some(frame)
    }

    /// Lets go of a frame that another pool of the umem is to take over.
    pub(super) fn part(&mut self, frame: Frame) -> Parted {
        assert!(
            std::ptr::eq(frame.umem, self.umem()),
            "a frame of another umem"
        );
        self.books.in_hand -= 1;
        self.books.parted += 1;
        Parted(frame)
    }

    /// Takes over a frame that another pool of the umem has let go of.
    pub(super) fn take_over(&mut self, parted: Parted) -> Frame {
        assert!(
            std::ptr::eq(parted.0.umem, self.umem()),
            "a frame of another umem"
        );
        self.books.in_hand += 1;
        self.books.parted -= 1;
        parted.0
    }

    fn redeem(&mut self, frame: Frame) -> FrameDesc {
        assert!(
            std::ptr::eq(frame.umem, self.umem()),
            "a frame of another umem"
        );
        self.books.in_hand -= 1;
        frame.desc
    }

    /// Frames of the whole umem.
    pub(super) fn whole(&self) -> u64 {
        self.region.frames
    }

    /// Frames that no pool is answerable for now, as one has given them away.
    pub(super) fn spare(&self) -> u64 {
        let spare = self.region.spare.as_ref();
        spare.map_or(0, |spare| spare.len() as u64)
    }

    /// Whether the umem lies in huge pages.
    pub(super) fn is_huge(&self) -> bool {
        self.region.huge
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // What a frame's last pool let go of, the next one took over: over all pools it is what is out.
        let out = i64::try_from(self.books.in_hand).unwrap_or(i64::MAX) + self.books.parted;
        self.region.out.fetch_add(out, Ordering::Relaxed);
    }
}

/// A pool's counts, and its free frames. Each frame is in exactly one place:
/// `total == in_kernel + free + in_hand` at any time.
pub(super) struct Books {
    free: Vec<FrameDesc>,
    /// Frames that the pool began with.
    begun: u64,
    /// Spare frames taken, less those given.
    drawn: i64,
    /// Frames let go of, less those taken over.
    parted: i64,
    in_kernel: u64,
    in_hand: u64,
}

impl Books {
    /// Books of a pool that begins with these frames.
    fn new(mut free: Vec<FrameDesc>) -> Self {
        let begun = free.len();
        // What comes back between two times of evening out: full completion rings, and a burst.
        free.reserve_exact(begun + 4 * BATCH);
        Self {
            free,
            begun: begun as u64,
            drawn: 0,
            parted: 0,
            in_kernel: 0,
            in_hand: 0,
        }
    }

    /// Takes up to `limit` free descriptors, to be given to the kernel.
    pub(super) fn take_free(&mut self, limit: usize) -> std::vec::Drain<'_, FrameDesc> {
        let keep = self.free.len().saturating_sub(limit);
        self.in_kernel += (self.free.len() - keep) as u64;
        self.free.drain(keep..)
    }

    /// Takes back descriptors of [`Self::take_free`] that did not go into a ring, or those whose
    /// transmission the kernel has completed.
    pub(super) fn give_back(&mut self, descs: &[FrameDesc]) {
        self.in_kernel -= descs.len() as u64;
        self.free.extend_from_slice(descs);
    }

    /// Frames that are free when all else is as it was meant: half of the share fills the fill rings.
    const fn enough(&self) -> usize {
        // No more than fit in memory.
        (self.begun / 2) as usize
    }

    fn even_out(&mut self, spare: &ArrayQueue<FrameDesc>) {
        if self.free.len() < BATCH {
            // Two bursts: one is what the next turn takes, the other makes up leeway.
            let taken = std::iter::from_fn(|| spare.pop()).take(2 * BATCH);
            let before = self.free.len();
            self.free.extend(taken);
            self.drawn += (self.free.len() - before).cast_signed() as i64;
        } else if self.free.len() >= self.enough() + BATCH {
            while self.free.len() > self.enough()
                && let Some(desc) = self.free.pop()
            {
                if let Err(desc) = spare.push(desc) {
                    self.free.push(desc);
                    return;
                }
                self.drawn -= 1;
            }
        }
    }

    /// Free descriptors there are.
    pub(super) const fn free(&self) -> usize {
        self.free.len()
    }

    /// Frames that the pool is answerable for.
    pub(super) fn total(&self) -> u64 {
        self.begun.saturating_add_signed(self.drawn - self.parted)
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

    fn books(frames: usize) -> Books {
        Books::new(vec![FrameDesc::default(); frames])
    }

    fn conserved(books: &[&Books], spare: &ArrayQueue<FrameDesc>, whole: u64) -> bool {
        let kept = |b: &&Books| b.total() == b.in_kernel() + b.free() as u64 + b.in_hand();
        let total: u64 = books.iter().map(|books| books.total()).sum();
        books.iter().all(kept) && total + spare.len() as u64 == whole
    }

    #[test]
    fn frames_that_pile_up_in_one_pool_come_back_to_the_other() {
        // What one receives the other sends: without evening out, the first would run dry.
        const SHARE: usize = 1024;
        let (mut receiver, mut sender) = (books(SHARE), books(SHARE));
        let spare = ArrayQueue::new(2 * SHARE);
        // Both fill their rings, as at start.
        receiver.take_free(SHARE / 2);
        sender.take_free(SHARE / 2);
        for turn in 0..1000 {
            receiver.even_out(&spare);
            sender.even_out(&spare);
            assert_eq!(receiver.take_free(BATCH).len(), BATCH, "turn {turn}");
            // A burst comes in, is handed over, and sent.
            receiver.in_kernel -= BATCH as u64;
            receiver.parted += BATCH as i64;
            sender.parted -= BATCH as i64;
            sender.in_kernel += BATCH as u64;
            sender.give_back(&[FrameDesc::default(); BATCH]);
            let all = [&receiver, &sender];
            assert!(conserved(&all, &spare, 2 * SHARE as u64), "turn {turn}");
        }
        // The surplus is for whoever needs it, and none is with one that has enough.
        assert!(sender.free() < sender.enough() + 2 * BATCH);
        assert!(!spare.is_empty());
    }

    #[test]
    fn a_pool_that_has_enough_and_not_too_much_leaves_the_others_alone() {
        let mut books = books(1024);
        let spare = ArrayQueue::new(1024);
        books.take_free(512);
        books.even_out(&spare);
        assert_eq!((books.free(), spare.len()), (512, 0));
        books.take_free(512 - BATCH);
        books.even_out(&spare);
        assert_eq!((books.free(), spare.len()), (BATCH, 0));
        // Short, and nobody has any: it stays so.
        books.take_free(1);
        books.even_out(&spare);
        assert_eq!(books.free(), BATCH - 1);
        assert!(conserved(&[&books], &spare, 1024));
    }

    #[test]
    fn what_nobody_has_room_for_is_kept() {
        let mut books = books(1024);
        let spare = ArrayQueue::new(3);
        books.even_out(&spare);
        assert_eq!((books.free(), spare.len()), (1021, 3));
        assert!(conserved(&[&books], &spare, 1024));
    }
}
