//! The memory for frames, and the token that stands for one frame.
//!
//! There is one piece of memory for all interfaces, so that a frame goes out on any of them without a
//! copy. The kernel is told of it once an interface: each registers the same memory as a umem of its
//! own (`xsk`). One umem for all would tie them together: the kernel shares a umem only through a socket
//! that is bound, and libxdp always takes the first, so that after the first interface is deleted
//! nothing can be opened any more; and all would have the copy mode of the first.
//!
//! A chunk is 2 KiB of that memory. Each is in exactly one of these places, and moves between them by
//! value:
//!
//! - the free list of a pool (one a worker), or the spare ones that pools share;
//! - a ring, or the kernel's hands: then the pool that lent it has noted the port that it went to,
//!   so that all that an interface had is found when it goes away, also what only its driver saw;
//! - one [`Frame`] (or [`Parted`], between two pools), which is not `Copy` or `Clone` and is minted only for
//!   a chunk that the kernel just gave up.
//!
//! So the holder of a `Frame` is the only one who can reach its chunk: that is what makes
//! [`Frame::bytes_mut`] sound. The memory outlives every `Frame`, as the last pool frees it only when
//! none is out, and leaks it otherwise.

use std::{
    io,
    ptr::{self, NonNull},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use crossbeam::queue::ArrayQueue;

use super::{huge_pages, limits, open_error::OpenError};
use crate::addr::PortId;

/// Bytes of a chunk: the smaller of the two sizes that every zero-copy driver takes. It holds a
/// 1,500-byte packet with two VLAN tags and the headrooms below.
pub const CHUNK: u32 = 2048;
/// Bytes before the packet that are ours, beside the kernel's own 256 (XDP_PACKET_HEADROOM): room
/// for an outer header where a driver uses up the kernel's.
pub const HEADROOM: u32 = 64;
/// Descriptors moved in one ring access.
pub(super) const BATCH: usize = 64;
/// Bytes that a received frame can have: what is left of a chunk.
pub const ROOM: u32 = CHUNK - HEADROOM - 256;
const _: () = assert!(
    ROOM >= 1500 + 14 + 2 * 4,
    "a full-sized packet with two VLAN tags fits a chunk"
);
/// Chunks that there can be: 4 GiB, as their places are counted in 32 bits.
pub const MOST_FRAMES: u32 = u32::MAX / CHUNK;

/// Bytes of a chunk that hold a packet: where in the memory they begin, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) at: u32,
    pub(super) len: u16,
}

impl Span {
    /// The number of its chunk.
    const fn chunk(self) -> u32 {
        self.at / CHUNK
    }
}

/// A frame in the holder's hands: the right to one chunk of the memory. It is sent or released; one
/// that is just dropped counts as in hand for ever.
#[derive(Debug)]
pub struct Frame {
    /// Where the memory begins. It stays mapped as long as a frame is out.
    memory: NonNull<u8>,
    /// Where its bytes begin in the memory, and how many there are.
    at: u32,
    len: u16,
    port: PortId,
}

const _: () = assert!(size_of::<Frame>() == 16, "moved in two registers");

// SAFETY: a frame is the only way to its chunk, so whoever has it may use it, on any thread.
unsafe impl Send for Frame {}

impl Frame {
    /// From the destination MAC address to the end of the payload.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        let (at, len) = (self.at as usize, self.len.into());
        // SAFETY: the bytes lie within one chunk of the memory (the kernel wrote it, `grow_front` and
        // `resize` keep it so), and this token is the only way to that chunk (module documentation).
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().add(at), len) }
    }

    /// The same bytes, to be changed.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let (at, len) = (self.at as usize, self.len.into());
        // SAFETY: as in `bytes`, and `&mut self` excludes other borrows of the token.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr().add(at), len) }
    }

    /// Moves the start `by` bytes towards the start of the chunk; `false` when that is too far.
    #[must_use]
    #[inline]
    pub fn grow_front(&mut self, by: usize) -> bool {
        let Ok(by) = u16::try_from(by) else {
            return false;
        };
        if u32::from(by) > self.at % CHUNK {
            return false;
        }
        self.at -= u32::from(by);
        self.len += by;
        true
    }

    /// Cuts it off behind its first `len` bytes; a shorter frame stays as it is.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.len = u16::try_from(len).map_or(self.len, |len| len.min(self.len));
    }

    /// Makes it `len` bytes long; `false` when the chunk ends before that.
    #[must_use]
    pub fn resize(&mut self, len: usize) -> bool {
        match u16::try_from(len) {
            Ok(len) if u32::from(len) <= CHUNK - self.at % CHUNK => {
                self.len = len;
                true
            }
            _ => false,
        }
    }

    /// The port that it came in on.
    #[inline]
    pub const fn port(&self) -> PortId {
        self.port
    }
}

/// The memory of all frames, and what the pools on it share.
pub struct FrameMemory {
    start: NonNull<u8>,
    /// Chunks that there are.
    frames: u32,
    /// Whether it lies in huge pages.
    huge: bool,
    /// Free chunks of pools that have more than they need, for those that have fewer: frames move
    /// to where they are sent from when workers hand them over. Room for all, so that giving never fails.
    /// None where there is one pool.
    spare: Option<ArrayQueue<u32>>,
    /// Tokens that pools left behind when they were dropped.
    out: AtomicI64,
}

// SAFETY: the pointer is only followed by the holders of frames, and the mapping only changed by `drop`.
unsafe impl Send for FrameMemory {}
// SAFETY: as above; all else is made to be shared.
unsafe impl Sync for FrameMemory {}

impl FrameMemory {
    /// Maps memory for so many frames, at most [`MOST_FRAMES`], divided among so many pools that begin
    /// with all frames free. In huge pages, if there are enough.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn new(frames: u32, pools: u32) -> Result<(Arc<Self>, Vec<Pool>), OpenError> {
        let (frames, pools) = (frames.min(MOST_FRAMES), pools.max(1));
        let bytes = frames as usize * CHUNK as usize;
        // Without CAP_IPC_LOCK what is registered counts. When we may not, an interface's error says so.
        let _ = limits::raise_memlock();
        let wanted = huge_pages::are_free_for(bytes as u64);
        let (start, huge) = match map(bytes, wanted) {
            Ok(start) => (start, wanted),
            // Somebody else was faster: it goes without.
            Err(_) if wanted => (map(bytes, false)?, false),
            Err(error) => return Err(error),
        };
        let memory = Arc::new(Self {
            start,
            frames,
            huge,
            spare: (pools > 1).then(|| ArrayQueue::new(frames as usize)),
            out: AtomicI64::new(0),
        });
        let (share, rest) = (frames / pools, frames % pools);
        let mut from = 0;
        let pool = |number| {
            let chunks = from..from + share + u32::from(number < rest);
            from = chunks.end;
            Pool {
                memory: Arc::clone(&memory),
                ledger: FrameLedger::new(chunks, frames),
            }
        };
        let pools = (0..pools).map(pool).collect();
        Ok((memory, pools))
    }

    /// Where it begins, for the kernel.
    pub(super) const fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Its size in bytes.
    pub const fn bytes(&self) -> u64 {
        self.frames as u64 * CHUNK as u64
    }

    /// Whether it lies in huge pages.
    pub const fn is_huge(&self) -> bool {
        self.huge
    }
}

impl Drop for FrameMemory {
    fn drop(&mut self) {
        // A token that is still out may be used: its memory must stay. Then it is leaked. The last
        // pool's `drop` came before this one, and with it (by the reference count) all others.
        if *self.out.get_mut() == 0 {
            let bytes = self.frames as usize * CHUNK as usize;
            // SAFETY: mapped in `new` with this length and unmapped only here; no frame refers to it. The
            // kernel holds pages of its own of what a socket has registered.
            unsafe { libc::munmap(self.start.as_ptr().cast(), bytes) };
        }
    }
}

/// Maps so many bytes.
fn map(bytes: usize, huge: bool) -> Result<NonNull<u8>, OpenError> {
    let kind = if huge { libc::MAP_HUGETLB } else { 0 };
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that there is.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | kind,
            -1,
            0,
        )
    };
    let refused = || OpenError::Refused {
        action: "make the memory for packets".to_owned(),
        source: io::Error::last_os_error(),
    };
    if start == libc::MAP_FAILED {
        return Err(refused());
    }
    NonNull::new(start.cast()).ok_or_else(refused)
}

/// A frame on its way from one pool to another on the same memory.
#[derive(Debug)]
pub struct Parted(Frame);

/// Frames of the memory that one worker is answerable for, and where each of them is.
pub struct Pool {
    memory: Arc<FrameMemory>,
    ledger: FrameLedger,
}

impl Pool {
    /// The memory that the frames are on.
    pub const fn memory(&self) -> &Arc<FrameMemory> {
        &self.memory
    }

    /// The ledger, where chunks are moved that stand for no token.
    pub(super) const fn ledger(&mut self) -> &mut FrameLedger {
        &mut self.ledger
    }

    /// Evens out with the other pools: takes spare frames when short of free ones, gives when there are
    /// more than enough.
    #[inline]
    pub(super) fn even_out(&mut self) {
        if let Some(spare) = &self.memory.spare {
            self.ledger.even_out(spare);
        }
    }

    /// The token for a chunk that the kernel has filled for `port`.
    #[inline]
    pub(super) fn received(&mut self, span: Span, port: PortId) -> Frame {
        self.ledger.take_back(span);
        self.ledger.in_hand += 1;
        Frame {
            memory: self.memory.start,
            at: span.at,
            len: span.len,
            port,
        }
    }

    /// Where the bytes of a frame are that is to be sent on `egress`: the token ends here.
    #[inline]
    pub(super) fn sent(&mut self, frame: Frame, egress: PortId) -> Span {
        let span = self.redeem(frame);
        self.ledger.lend(span.chunk(), egress);
        span
    }

    /// Makes a frame free again.
    pub(super) fn release(&mut self, frame: Frame) {
        let span = self.redeem(frame);
        self.ledger.free.push(span.chunk());
    }

    /// The token for a free frame, empty and with all its headroom, as if received on `port`.
    pub(super) fn blank(&mut self, port: PortId) -> Option<Frame> {
        let chunk = self.ledger.free.pop()?;
        self.ledger.in_hand += 1;
        Some(Frame {
            memory: self.memory.start,
            at: chunk * CHUNK + (CHUNK - ROOM),
            len: 0,
            port,
        })
    }

    /// Lets go of a frame that another pool on the memory is to take over.
    pub(super) fn part(&mut self, frame: Frame) -> Parted {
        self.check(&frame);
        self.ledger.in_hand -= 1;
        self.ledger.parted += 1;
        Parted(frame)
    }

    /// Takes over a frame that another pool on the memory has let go of.
    pub(super) fn take_over(&mut self, parted: Parted) -> Frame {
        self.check(&parted.0);
        self.ledger.in_hand += 1;
        self.ledger.parted -= 1;
        parted.0
    }

    fn redeem(&mut self, frame: Frame) -> Span {
        self.check(&frame);
        self.ledger.in_hand -= 1;
        Span {
            at: frame.at,
            len: frame.len,
        }
    }

    #[inline]
    fn check(&self, frame: &Frame) {
        assert!(frame.memory == self.memory.start, "a frame of other memory");
    }

    /// Frames of the whole memory.
    pub(super) fn whole(&self) -> u64 {
        self.memory.frames.into()
    }

    /// Frames that no pool is answerable for now, as one has given them away.
    pub(super) fn spare(&self) -> u64 {
        let spare = self.memory.spare.as_ref();
        spare.map_or(0, |spare| spare.len() as u64)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // What a frame's last pool let go of, the next one took over: over all pools it is what is out.
        let out = i64::try_from(self.ledger.in_hand).unwrap_or(i64::MAX) + self.ledger.parted;
        self.memory.out.fetch_add(out, Ordering::Relaxed);
    }
}

/// A pool's counts, its free chunks, and who has those that it lent. Each frame is in exactly one place:
/// `total == in_kernel + free + in_hand` at any time.
pub(super) struct FrameLedger {
    free: Vec<u32>,
    /// For each chunk of the memory: 0, or one more than the port that this pool lent it to. The pool that
    /// lent a chunk is the one that gets it back, as a queue is one worker's.
    lent_to: Box<[u8]>,
    /// Frames that the pool began with.
    begun: u64,
    /// Spare frames taken, less those given.
    drawn: i64,
    /// Frames let go of, less those taken over.
    parted: i64,
    in_kernel: u64,
    in_hand: u64,
}

impl FrameLedger {
    /// The ledger of a pool that begins with `chunks`, out of `all` that there are.
    fn new(chunks: std::ops::Range<u32>, all: u32) -> Self {
        let begun = u64::from(chunks.end - chunks.start);
        // Any number of frames may come to it: from the others, and all at once from an interface.
        let mut free = Vec::with_capacity(all as usize);
        // The lowest are used first, so that what is not needed is never touched.
        free.extend(chunks.rev());
        Self {
            free,
            lent_to: vec![0; all as usize].into_boxed_slice(),
            begun,
            drawn: 0,
            parted: 0,
            in_kernel: 0,
            in_hand: 0,
        }
    }

    /// Lends free chunks to `port`, one for each place of `chunks`. How many there were.
    #[inline]
    pub(super) fn lend_free(&mut self, port: PortId, chunks: &mut [u32]) -> usize {
        let keep = self.free.len().saturating_sub(chunks.len());
        let count = self.free.len() - keep;
        for (to, chunk) in chunks.iter_mut().zip(self.free.drain(keep..)) {
            *to = chunk;
            self.lent_to[chunk as usize] = port.0 + 1;
        }
        self.in_kernel += count as u64;
        count
    }

    /// Notes that `port` has a chunk now.
    #[inline]
    fn lend(&mut self, chunk: u32, port: PortId) {
        self.lent_to[chunk as usize] = port.0 + 1;
        self.in_kernel += 1;
    }

    /// Notes that the kernel has given a chunk up.
    #[inline]
    fn take_back(&mut self, span: Span) {
        self.lent_to[span.chunk() as usize] = 0;
        self.in_kernel -= 1;
    }

    /// Takes back a chunk that did not go into a ring, or that the kernel has sent: it is free.
    #[inline]
    pub(super) fn give_back(&mut self, chunk: u32) {
        self.lent_to[chunk as usize] = 0;
        self.in_kernel -= 1;
        self.free.push(chunk);
    }

    /// Frees all chunks that `port` has, once the kernel has let go of them. How many.
    pub(super) fn recover(&mut self, port: PortId) -> u64 {
        let before = self.free.len();
        for (chunk, lent_to) in (0..).zip(&mut self.lent_to) {
            if *lent_to == port.0 + 1 {
                *lent_to = 0;
                self.free.push(chunk);
            }
        }
        let recovered = (self.free.len() - before) as u64;
        self.in_kernel -= recovered;
        recovered
    }

    /// Frames that are free when all else is as it was meant: half of the share fills the fill rings.
    pub(super) const fn enough(&self) -> usize {
        // No more than fit in memory.
        (self.begun / 2) as usize
    }

    fn even_out(&mut self, spare: &ArrayQueue<u32>) {
        if self.free.len() < BATCH {
            // Two bursts: one is what the next turn takes, the other makes up leeway.
            let taken = std::iter::from_fn(|| spare.pop()).take(2 * BATCH);
            let before = self.free.len();
            self.free.extend(taken);
            self.drawn += (self.free.len() - before).cast_signed() as i64;
        } else if self.free.len() >= self.enough() + BATCH {
            while self.free.len() > self.enough()
                && let Some(chunk) = self.free.pop()
            {
                if let Err(chunk) = spare.push(chunk) {
                    self.free.push(chunk);
                    return;
                }
                self.drawn -= 1;
            }
        }
    }

    /// Free chunks there are.
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

#[cfg(test)]
#[path = "umem_tests.rs"]
mod tests;
