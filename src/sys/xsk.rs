//! AF_XDP sockets: every receive queue of every interface, on one umem, divided among the workers.
//!
//! Queue q of each interface is worker q's (by the remainder, where there are more queues than workers):
//! all sockets of one queue number are one worker's, so that no ring has two users. The rings are
//! xsk-rs's. What is added is who owns a frame (`umem`), how many the kernel has, and
//! the wake-ups: at most one round a ring, and only where the kernel asked.

use std::{
    ffi::CString,
    io, ops,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    thread,
    time::Duration,
};

use xsk_rs::{
    CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue,
    config::{BindFlags, Interface, LibxdpFlags, QueueSize, SocketConfig},
};

use super::{
    busy_poll,
    device::InterfaceSpec,
    open_error::OpenError,
    umem::{self, BATCH, Books, Frame, Parted, Pool, RING, errno_of},
};
use crate::addr::PortId;

/// Descriptors that the kernel sends in one call in copy mode: TX_BATCH_SIZE of net/xdp/xsk.c.
const KERNEL_TX_BATCH: u32 = 32;
/// How often a queue that is in use is tried again, and how long between: the kernel lets go of a
/// closed socket's queue from a work queue, some time after close(2) or the process's end.
const BUSY_TRIES: u32 = 100;
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Whether the kernel copies packets into the umem or the driver writes them there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyMode {
    /// The driver receives into and sends from the umem.
    ZeroCopy,
    /// The kernel copies; every driver can do it.
    Copy,
}

/// Packets that the kernel dropped before a socket's receive ring, or refused to send: `struct
/// xdp_statistics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XskStatistics {
    /// Larger than a chunk, or, in copy mode, no entry in the fill ring.
    pub rx_dropped: u64,
    /// The receive ring was full: the worker is too slow.
    pub rx_ring_full: u64,
    /// The kernel found the fill ring empty: too few frames, or the worker is too slow. In copy mode
    /// each is a packet that is counted in `rx_dropped` too, so it is no term of a sum.
    pub rx_fill_ring_empty: u64,
    /// Bad descriptors of ours, both ways. Anything but 0 is a bug.
    pub invalid_descriptors: u64,
}

impl ops::AddAssign for XskStatistics {
    fn add_assign(&mut self, other: Self) {
        self.rx_dropped += other.rx_dropped;
        self.rx_ring_full += other.rx_ring_full;
        self.rx_fill_ring_empty += other.rx_fill_ring_empty;
        self.invalid_descriptors += other.invalid_descriptors;
    }
}

/// One socket: one queue of one interface.
struct Queue {
    port: PortId,
    number: u32,
    // The rings before the socket's last handle goes; xsk-rs counts references, so order is free.
    rx: RxQueue,
    tx: TxQueue,
    fill: FillQueue,
    comp: CompQueue,
    /// Frames that `transmit` took and `flush` has not put into the ring yet.
    pending: Vec<FrameDesc>,
    /// Places of the transmit ring that are surely free, those for `pending` not counted.
    room: u32,
}

/// Where the frames of a set are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XskFrames {
    /// Frames of the umem, which is that of all sets.
    pub whole: u64,
    /// Free ones that any set may take.
    pub spare: u64,
    /// Frames that this set is answerable for.
    pub total: u64,
    /// Free ones.
    pub free: u64,
    /// Those given to the kernel, by our count.
    pub in_kernel: u64,
    /// Those whose token somebody holds.
    pub in_hand: u64,
    /// Those that the rings show now. Beside these the kernel has what it took from a ring and did not
    /// put into the other yet: the driver's receive buffers, packets being sent. Only without traffic
    /// is it exact: the kernel fills the next ring before it gives up the place in the last, and then a
    /// frame shows in both.
    pub in_rings: u64,
}

/// All sockets of one worker, and its frames.
pub struct XskSet {
    /// Grouped by port, in queue order.
    queues: Vec<Queue>,
    /// For each port, the first of its queues here: the one that its packets are sent from. Out of
    /// range for a port that has none here.
    first: Vec<usize>,
    /// For each port, the number of the set that has a queue of it for this one.
    carriers: Vec<u32>,
    /// Which set it is.
    number: u32,
    /// The queue to ask first next time, so that none starves.
    next: usize,
    /// Whether the driver's receive work is done in our calls.
    polling: bool,
    /// Wake-ups that the kernel answered with an error.
    wake_errors: u64,
    /// Where descriptors lie on their way between a ring and the pool; nothing is kept here.
    scratch: [FrameDesc; BATCH],
    pool: Pool,
}

impl XskSet {
    /// Binds a socket to each of the `queues` of each interface, with `frames_per_queue` frames for
    /// each, for so many `workers`: at most as many as an interface has queues, at least one. One umem
    /// has one mode: with [`CopyMode::ZeroCopy`], all interfaces must take it.
    ///
    /// # Errors
    /// [`OpenError::QueueBusy`] when somebody else has a queue, or what the kernel refused.
    pub fn bind(
        interfaces: &[(InterfaceSpec, u32)],
        mode: CopyMode,
        frames_per_queue: u32,
        workers: u32,
    ) -> Result<Vec<Self>, OpenError> {
        let most = interfaces.iter().map(|(_, queues)| *queues).max();
        let workers = workers.clamp(1, most.unwrap_or(1).max(1));
        let share = |worker: u32| {
            let queues = interfaces.iter().map(|(_, queues)| *queues);
            let own = queues.flat_map(|n| queues_of(worker, workers, n));
            own.fold(0_u32, |sum, _| sum.saturating_add(frames_per_queue))
        };
        let shares: Vec<u32> = (0..workers).map(share).collect();
        let pools = umem::pools(&shares)?;
        if pools.is_empty() {
            return Err(OpenError::NoInterface {
                interface: "(none named)".to_owned(),
            });
        }
        let numbered = (0..).zip(pools);
        numbered
            .map(|(worker, pool)| Self::bind_one(interfaces, mode, (worker, workers), pool))
            .collect()
    }

    fn bind_one(
        interfaces: &[(InterfaceSpec, u32)],
        mode: CopyMode,
        (number, workers): (u32, u32),
        pool: Pool,
    ) -> Result<Self, OpenError> {
        let mut set = Self {
            queues: Vec::new(),
            first: Vec::new(),
            carriers: Vec::new(),
            number,
            next: 0,
            polling: false,
            wake_errors: 0,
            scratch: [FrameDesc::default(); BATCH],
            pool,
        };
        for (port, (spec, queues)) in interfaces.iter().enumerate() {
            let has_some = number < *queues;
            set.first.push(if has_some {
                set.queues.len()
            } else {
                usize::MAX
            });
            set.carriers.push(number % queues.clamp(&1, &workers));
            let port = PortId(u8::try_from(port).unwrap_or(u8::MAX));
            for number in queues_of(number, workers, *queues) {
                set.queues
                    .push(Queue::bind(&set.pool, spec, port, number, mode)?);
            }
        }
        set.reclaim();
        Ok(set)
    }

    /// Takes back what the kernel has sent, and gives it empty frames to fill.
    pub fn reclaim(&mut self) {
        let books = self.pool.books();
        for queue in &mut self.queues {
            queue.collect(books, &mut self.scratch);
            queue.refill(books, &mut self.scratch);
        }
        self.pool.even_out();
    }

    /// Appends up to `limit` received frames to `burst`, a share from every queue in turn.
    pub fn receive(&mut self, burst: &mut Vec<Frame>, limit: usize) {
        let count = self.queues.len();
        let start = self.next;
        let mut left = limit;
        for step in 0..count {
            let at = (start + step) % count;
            let descs = &mut self.scratch[..left.min(BATCH)];
            let queue = &mut self.queues[at];
            // SAFETY: the ring belongs to a socket on the pool's umem. What comes out was handed to the
            // kernel by `refill`, and is written by nobody any more.
            let got = unsafe { queue.rx.consume(descs) };
            for desc in &descs[..got] {
                burst.push(self.pool.received(*desc, queue.port));
            }
            left -= got;
            if left == 0 {
                self.next = (at + 1) % count;
                return;
            }
        }
        if self.polling && left == limit {
            self.poll_drivers();
        }
    }

    /// Has every socket's queue polled by the calls that ask for frames, from now on.
    ///
    /// # Errors
    /// What the kernel refused; then frames come as before.
    pub fn prefer_busy_polling(&mut self) -> io::Result<()> {
        for queue in &self.queues {
            busy_poll::prefer(queue.socket())?;
        }
        self.polling = true;
        Ok(())
    }

    /// What comes of it is there at the next turn.
    #[cold]
    fn poll_drivers(&self) {
        for queue in &self.queues {
            busy_poll::poll_once(queue.socket());
        }
    }

    /// Queues `frame` for sending on `egress`.
    ///
    /// # Errors
    /// The frame, when the ring is full or there is no such port.
    pub fn transmit(&mut self, egress: PortId, frame: Frame) -> Result<(), Frame> {
        let Some(queue) = self
            .first
            .get(usize::from(egress.0))
            .and_then(|first| self.queues.get_mut(*first))
        else {
            return Err(frame);
        };
        if !queue.has_room() {
            return Err(frame);
        }
        queue.room -= 1;
        queue.pending.push(self.pool.sent(frame));
        Ok(())
    }

    /// Puts what [`Self::transmit`] queued into the rings and wakes the kernel where it sleeps. How many
    /// frames are left, as their device is busy or down; those of one that is gone are not counted.
    pub fn flush(&mut self) -> u32 {
        let mut left = 0;
        for first in &self.first {
            if let Some(queue) = self.queues.get_mut(*first) {
                match queue.flush() {
                    Ok(unsent) => left += unsent,
                    Err(_) => self.wake_errors += 1,
                }
            }
        }
        left
    }

    /// Makes a frame free again.
    pub fn release(&mut self, frame: Frame) {
        self.pool.release(frame);
    }

    /// Lets go of a frame that another set on the same umem is to take over.
    pub fn part(&mut self, frame: Frame) -> Parted {
        self.pool.part(frame)
    }

    /// Takes over a frame that another set on the same umem has let go of.
    pub fn take_over(&mut self, parted: Parted) -> Frame {
        self.pool.take_over(parted)
    }

    /// The set that sends on `egress` for this one, which has no queue there. `None` when this one has,
    /// or when there is no such port.
    pub fn carrier(&self, egress: PortId) -> Option<u32> {
        let carrier = self.carriers.get(usize::from(egress.0)).copied();
        carrier.filter(|carrier| *carrier != self.number)
    }

    /// Whether the frames lie in huge pages.
    pub fn is_huge(&self) -> bool {
        self.pool.is_huge()
    }

    /// A free frame without bytes, as if received on `port`.
    pub fn blank(&mut self, port: PortId) -> Option<Frame> {
        self.pool.blank(port)
    }

    /// Each socket, with the port and queue that it is bound to.
    pub fn sockets(&self) -> impl Iterator<Item = (PortId, u32, BorrowedFd<'_>)> {
        self.queues
            .iter()
            .map(|queue| (queue.port, queue.number, queue.socket()))
    }

    /// Where the frames are.
    pub fn frames(&mut self) -> XskFrames {
        let (whole, spare) = (self.pool.whole(), self.pool.spare());
        let books = self.pool.books();
        XskFrames {
            whole,
            spare,
            total: books.total(),
            free: books.free() as u64,
            in_kernel: books.in_kernel(),
            in_hand: books.in_hand(),
            in_rings: self.queues.iter_mut().map(Queue::in_rings).sum(),
        }
    }

    /// Wake-ups that the kernel answered with an error: the interface is gone.
    pub const fn wake_errors(&self) -> u64 {
        self.wake_errors
    }
}

impl Queue {
    fn bind(
        pool: &Pool,
        spec: &InterfaceSpec,
        port: PortId,
        number: u32,
        mode: CopyMode,
    ) -> Result<Self, OpenError> {
        let name = CString::new(spec.name.as_str()).map_err(|_| OpenError::NoInterface {
            interface: spec.name.clone(),
        })?;
        let interface = Interface::new(name);
        let mut tries = BUSY_TRIES;
        loop {
            let config = socket_config(mode)?;
            // SAFETY: the default program is inhibited, which is what xsk-rs asks for.
            match unsafe { Socket::new(config, pool.umem(), &interface, number) } {
                Ok((tx, rx, Some((fill, comp)))) => {
                    return Ok(Self {
                        port,
                        number,
                        rx,
                        tx,
                        fill,
                        comp,
                        pending: Vec::with_capacity(RING as usize),
                        room: 0,
                    });
                }
                // The rings went to another socket of ours: this pair was bound before.
                Ok((_, _, None)) => return Err(busy(spec, number)),
                Err(e) => match errno_of(&e) {
                    e if e.raw_os_error() != Some(libc::EBUSY) => {
                        return Err(OpenError::from_errno(
                            &spec.name,
                            "bind an AF_XDP socket",
                            e,
                        ));
                    }
                    _ if tries == 0 => return Err(busy(spec, number)),
                    _ => tries -= 1,
                },
            }
            thread::sleep(BUSY_PAUSE);
        }
    }

    /// Takes completed frames from the completion ring.
    fn collect(&mut self, books: &mut Books, descs: &mut [FrameDesc; BATCH]) {
        loop {
            // SAFETY: the ring belongs to a socket on the pool's umem. What comes out was handed to the
            // kernel by `flush` and is written by nobody any more.
            let count = unsafe { self.comp.consume(descs) };
            books.give_back(&descs[..count]);
            if count < BATCH {
                return;
            }
        }
    }

    /// Fills the fill ring as far as there are free frames.
    fn refill(&mut self, books: &mut Books, descs: &mut [FrameDesc; BATCH]) {
        let mut filled = false;
        loop {
            let room = self.fill.nb_free(RING).min(RING) as usize;
            let count = room.min(BATCH).min(books.free());
            if count == 0 {
                break;
            }
            for (to, from) in descs.iter_mut().zip(books.take_free(count)) {
                *to = from;
            }
            // SAFETY: the descriptors are of this socket's umem and were in the free list: no token and
            // no other ring has them.
            let done = unsafe { self.fill.produce(&descs[..count]) };
            filled |= done > 0;
            // There was room for all; but a frame that the ring did not take must not be lost.
            books.give_back(&descs[done..count]);
            if done < count {
                break;
            }
        }
        if filled && self.fill.needs_wakeup() {
            // Zero-copy drivers only; the poll in `wait` would do it, but a busy worker never gets there.
            let _ = self.fill.wakeup(self.rx.fd_mut(), 0);
        }
    }

    fn has_room(&mut self) -> bool {
        if self.room == 0 {
            // `pending` is not in the ring yet, but has its places.
            let pending = u32::try_from(self.pending.len()).unwrap_or(RING);
            self.room = self.tx.nb_free(RING).min(RING).saturating_sub(pending);
        }
        self.room > 0
    }

    /// Hands `pending` to the kernel and has it sent. How many are left in the ring.
    ///
    /// # Errors
    /// What the wake-up reported: the interface is gone.
    fn flush(&mut self) -> io::Result<u32> {
        if !self.pending.is_empty() {
            // SAFETY: the descriptors are of this socket's umem and were redeemed from tokens: nobody
            // else has them.
            let done = unsafe { self.tx.produce(&self.pending) };
            // `has_room` kept their places, so all went in; what did not waits for the next time.
            self.pending.drain(..done);
        }
        let mut waiting = self.unsent();
        // In copy mode one call sends a batch; the ring is done after so many, or the device is.
        let mut calls = waiting.div_ceil(KERNEL_TX_BATCH);
        while waiting > 0 && calls > 0 && self.tx.needs_wakeup() {
            self.tx.wakeup()?;
            let left = self.unsent();
            if left == waiting {
                // A device that is busy says nothing else; the next turn tries again.
                break;
            }
            waiting = left;
            calls -= 1;
        }
        Ok(waiting)
    }

    /// Frames that the four rings show, and those on their way into one.
    fn in_rings(&mut self) -> u64 {
        let out = self.rx.nb_avail_exact() + self.comp.nb_avail_exact();
        let filled = RING.saturating_sub(self.fill.nb_free_exact());
        u64::from(out + filled + self.unsent()) + self.pending.len() as u64
    }

    /// Frames in the transmit ring that the kernel has not looked at.
    fn unsent(&mut self) -> u32 {
        RING.saturating_sub(self.tx.nb_free_exact())
    }

    fn socket(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open for as long as `self` has its rings.
        unsafe { BorrowedFd::borrow_raw(self.rx.fd().as_raw_fd()) }
    }
}

/// The queues of an interface of so many `queues` that are `worker`'s, one of `workers`.
fn queues_of(worker: u32, workers: u32, queues: u32) -> impl Iterator<Item = u32> {
    (worker..queues).step_by(workers as usize)
}

/// What the kernel counted for an AF_XDP socket.
///
/// # Errors
/// What getsockopt(2) reported.
pub fn statistics(socket: &OwnedFd) -> io::Result<XskStatistics> {
    let mut raw = libc::xdp_statistics {
        rx_dropped: 0,
        rx_invalid_descs: 0,
        tx_invalid_descs: 0,
        rx_ring_full: 0,
        rx_fill_ring_empty_descs: 0,
        tx_ring_empty_descs: 0,
    };
    let mut len = libc::socklen_t::try_from(size_of::<libc::xdp_statistics>())
        .unwrap_or(libc::socklen_t::MAX);
    // SAFETY: `raw` is writable for `len` bytes, and both are alive for the call.
    let code = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            libc::XDP_STATISTICS,
            (&raw mut raw).cast(),
            &mut len,
        )
    };
    if code < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(XskStatistics {
        rx_dropped: raw.rx_dropped,
        rx_ring_full: raw.rx_ring_full,
        rx_fill_ring_empty: raw.rx_fill_ring_empty_descs,
        invalid_descriptors: raw.rx_invalid_descs + raw.tx_invalid_descs,
    })
}

fn socket_config(mode: CopyMode) -> Result<SocketConfig, OpenError> {
    let size = QueueSize::new(RING).map_err(|e| OpenError::Refused {
        action: "size the rings".to_owned(),
        source: io::Error::other(e.to_string()),
    })?;
    let copy = match mode {
        CopyMode::ZeroCopy => BindFlags::XDP_ZEROCOPY,
        CopyMode::Copy => BindFlags::XDP_COPY,
    };
    Ok(SocketConfig::builder()
        .rx_queue_size(size)
        .tx_queue_size(size)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(copy | BindFlags::XDP_USE_NEED_WAKEUP)
        .build())
}

fn busy(spec: &InterfaceSpec, queue: u32) -> OpenError {
    OpenError::QueueBusy {
        interface: spec.name.clone(),
        queue,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_queue_is_one_workers() {
        for workers in 1..9 {
            for queues in 0..20 {
                let all = (0..workers).flat_map(|worker| queues_of(worker, workers, queues));
                let mut all: Vec<_> = all.collect();
                all.sort_unstable();
                assert_eq!(all, Vec::from_iter(0..queues), "{workers} workers");
            }
        }
        assert_eq!(Vec::from_iter(queues_of(1, 3, 8)), [1, 4, 7]);
    }
}
