//! AF_XDP sockets: every receive queue of every interface, on one memory, divided among the workers.
//!
//! Queue q of each interface is worker q's (by the remainder, where there are more queues than workers):
//! all sockets of one queue number are one worker's, so that no ring has two users. Opening them and the
//! rings is in `sockets`. What is added here is who owns a frame (`umem`), how many the kernel has, and
//! the wake-ups: at most one round a ring, and only where the kernel asked. Interfaces come and go one by
//! one: [`PortQueues`] is what one of them has for one worker.

mod sockets;

use std::{
    io, ops,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use self::sockets::Socket;
use super::{
    busy_poll,
    device::{self, InterfaceSpec},
    open_error::OpenError,
    umem::{BATCH, CHUNK, Frame, FrameLedger, FrameMemory, Parted, Pool, Span},
};
use crate::addr::PortId;

/// Entries of each ring of each socket. A burst of 64 every 30 µs is 2 Mpps: this is 1 ms of that.
pub const RING: u32 = 2048;
/// Descriptors that the kernel sends in one call in copy mode: TX_BATCH_SIZE of net/xdp/xsk.c.
const KERNEL_TX_BATCH: u32 = 32;

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
    /// Of these, those of sockets that have counted more of them than dropped packets.
    pub fill_ring_only_empty: u64,
    /// Bad descriptors of ours, both ways. Anything but 0 is a bug.
    pub invalid_descriptors: u64,
}

impl ops::AddAssign for XskStatistics {
    fn add_assign(&mut self, other: Self) {
        self.rx_dropped += other.rx_dropped;
        self.rx_ring_full += other.rx_ring_full;
        self.rx_fill_ring_empty += other.rx_fill_ring_empty;
        self.fill_ring_only_empty += other.fill_ring_only_empty;
        self.invalid_descriptors += other.invalid_descriptors;
    }
}

/// One socket: one queue of one interface.
struct Queue {
    number: u32,
    socket: Socket,
    /// Frames that `transmit` took and `flush` has not put into the ring yet.
    pending: Vec<Span>,
    /// Places of the transmit ring that are surely free, those for `pending` not counted.
    room: u32,
}

/// One worker's queues of one interface; there may be none.
pub struct PortQueues {
    port: PortId,
    queues: Vec<Queue>,
    /// The queue to ask first next time, so that none starves.
    next: usize,
    /// The worker that sends on the interface for this one, which has no queue of it.
    carrier: Option<u32>,
    /// Whether the driver's receive work is done in our calls.
    polling: bool,
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
    /// In the order in which they came; with room for all that there can be.
    ports: Vec<PortQueues>,
    /// For each port, its place in `ports`.
    places: [Option<u8>; PortId::COUNT],
    /// The port to ask first next time, so that none starves.
    next: usize,
    /// Entries that each fill ring is to have: fewer than fit where many queues share the frames.
    fill: u32,
    /// Whether any port has the driver's receive work done in our calls.
    polling: bool,
    /// Wake-ups that the kernel answered with an error.
    wake_errors: u64,
    pool: Pool,
}

/// Binds a socket to each of the `queues` of `spec`'s interface, on `memory`, for so many `workers`: what each
/// of them gets. The kernel writes to none of the memory before a worker has it.
///
/// # Errors
/// [`OpenError::QueueBusy`] when somebody has a queue: it may be the kernel itself, which lets go of a closed
/// socket's queue some time after close(2) or the process's end. Or what the kernel refused.
pub fn bind(
    memory: &Arc<FrameMemory>,
    spec: &InterfaceSpec,
    (port, queues): (PortId, u32),
    mode: CopyMode,
    workers: u32,
) -> Result<Vec<PortQueues>, OpenError> {
    let (queues, workers) = (queues.max(1), workers.max(1));
    let sockets = sockets::open(memory, spec, queues, mode)?;
    let part = |worker: u32| PortQueues {
        port,
        queues: Vec::with_capacity(queues.div_ceil(workers) as usize),
        next: 0,
        carrier: (worker >= queues).then_some(worker % queues),
        polling: false,
    };
    let mut parts: Vec<PortQueues> = (0..workers).map(part).collect();
    for (number, socket) in (0..).zip(sockets) {
        parts[worker_of(number, workers)].queues.push(Queue {
            number,
            socket,
            pending: Vec::with_capacity(RING as usize),
            room: 0,
        });
    }
    Ok(parts)
}

/// Whether a socket of [`bind`] has lost its interface, which was deleted or went to another network namespace.
/// It does not come back to life with it.
pub fn is_unbound(socket: &OwnedFd) -> bool {
    sockets::is_unbound(socket.as_fd())
}

/// Whether the kernel has let go of the sockets that were bound to so many queues of `spec`'s interface and that
/// were closed: only then are the frames that they had not written to any more. It is asked by binding others
/// for a moment: nothing else tells.
pub fn is_released(spec: &InterfaceSpec, queues: u32) -> bool {
    /// A page of the smallest size.
    const FRAMES: u32 = 4096 / CHUNK;
    let Ok((memory, _)) = FrameMemory::new(FRAMES, 1) else {
        return false;
    };
    match sockets::open(&memory, spec, queues.max(1), CopyMode::Copy) {
        Ok(_) => true,
        // The kernel lets go of an interface's sockets while it takes the interface away, and finishes that
        // before it gives the lock to who asks next.
        Err(OpenError::NoInterface { .. }) => {
            device::wait_for_changes();
            true
        }
        Err(_) => false,
    }
}

impl PortQueues {
    /// The port that they are of.
    pub const fn port(&self) -> PortId {
        self.port
    }

    /// Each socket, with the queue that it is bound to.
    pub fn sockets(&self) -> impl Iterator<Item = (u32, BorrowedFd<'_>)> {
        self.queues
            .iter()
            .map(|queue| (queue.number, queue.socket.fd()))
    }

    /// Has every socket's queue polled by the calls that ask for frames, from now on.
    ///
    /// # Errors
    /// What the kernel refused; then frames come as before.
    pub fn prefer_busy_polling(&mut self) -> io::Result<()> {
        for queue in &self.queues {
            busy_poll::prefer(queue.socket.fd())?;
        }
        self.polling = true;
        Ok(())
    }

    /// Appends up to `limit` received frames to `burst`, a share from every queue in turn. How many.
    fn receive(&mut self, pool: &mut Pool, burst: &mut Vec<Frame>, limit: usize) -> usize {
        let count = self.queues.len();
        let (start, port) = (self.next, self.port);
        let mut left = limit;
        for step in 0..count {
            let at = (start + step) % count;
            let socket = &mut self.queues[at].socket;
            left -= socket.receive(left, |span| burst.push(pool.received(span, port)));
            if left == 0 {
                self.next = (at + 1) % count;
                break;
            }
        }
        limit - left
    }
}

impl XskSet {
    /// A worker's set without any interface, with the frames of `pool`.
    pub fn new(pool: Pool) -> Self {
        Self {
            ports: Vec::with_capacity(PortId::COUNT),
            places: [None; PortId::COUNT],
            next: 0,
            fill: RING,
            polling: false,
            wake_errors: 0,
            pool,
        }
    }

    /// Takes an interface's queues for its own, and gives the kernel frames to fill. They are on the pool's
    /// memory, and their port is not open.
    pub fn open(&mut self, part: PortQueues) {
        let on_ours = |queue: &Queue| Arc::ptr_eq(queue.socket.memory(), self.pool.memory());
        assert!(part.queues.iter().all(on_ours), "sockets on other memory");
        let port = usize::from(part.port.0);
        assert!(self.places[port].is_none(), "port {port} is open");
        self.ports.push(part);
        self.find_places();
        self.reclaim();
    }

    /// Lets go of an interface's queues. The frames that they have are still the kernel's, until it has let go
    /// of them and [`Self::recover`] is called. Also how many of them were to be sent and had not been looked
    /// at. `None` when the port is not open.
    pub fn close(&mut self, port: PortId) -> Option<(PortQueues, u64)> {
        let place = self.place(port)?;
        let mut part = self.ports.remove(place);
        self.find_places();
        let mut lost = 0;
        for queue in &mut part.queues {
            lost += queue.pending.len() as u64 + u64::from(queue.socket.unsent());
            queue.pending.clear();
        }
        Some((part, lost))
    }

    /// Frees the frames that `port` had when it was closed: the kernel has let go of them. How many.
    pub fn recover(&mut self, port: PortId) -> u64 {
        assert!(self.place(port).is_none(), "port {} is open", port.0);
        let recovered = self.pool.ledger().recover(port);
        self.pool.even_out();
        recovered
    }

    /// What there is of each interface.
    pub fn ports(&self) -> impl Iterator<Item = &PortQueues> {
        self.ports.iter()
    }

    /// Whether an interface has this port.
    pub fn is_open(&self, port: PortId) -> bool {
        self.place(port).is_some()
    }

    #[inline]
    fn place(&self, port: PortId) -> Option<usize> {
        let place = self.places.get(usize::from(port.0))?;
        place.map(usize::from)
    }

    fn find_places(&mut self) {
        self.places = [None; PortId::COUNT];
        for (place, part) in (0..).zip(&self.ports) {
            self.places[usize::from(part.port.0)] = Some(place);
        }
        self.next = 0;
        self.polling = self.ports.iter().any(|part| part.polling);
        let queues = self.ports.iter().map(|part| part.queues.len());
        let queues = queues.sum::<usize>().max(1);
        let share = self.pool.ledger().enough() / queues;
        self.fill = u32::try_from(share).unwrap_or(RING).min(RING);
    }

    /// Takes back what the kernel has sent, and gives it empty frames to fill.
    pub fn reclaim(&mut self) {
        let ledger = self.pool.ledger();
        for part in &mut self.ports {
            for queue in &mut part.queues {
                queue.collect(ledger);
                queue.refill(ledger, part.port, self.fill);
            }
        }
        self.pool.even_out();
    }

    /// Appends up to `limit` received frames to `burst`, a share from every queue in turn.
    pub fn receive(&mut self, burst: &mut Vec<Frame>, limit: usize) {
        let count = self.ports.len();
        let start = self.next;
        let mut left = limit;
        for step in 0..count {
            let at = (start + step) % count;
            left -= self.ports[at].receive(&mut self.pool, burst, left);
            if left == 0 {
                self.next = (at + 1) % count;
                return;
            }
        }
        if self.polling && left == limit {
            self.poll_drivers();
        }
    }

    /// What comes of it is there at the next turn.
    #[cold]
    fn poll_drivers(&self) {
        for part in self.ports.iter().filter(|part| part.polling) {
            for queue in &part.queues {
                busy_poll::poll_once(queue.socket.fd());
            }
        }
    }

    /// Queues `frame` for sending on `egress`.
    ///
    /// # Errors
    /// The frame, when the ring is full or this set has no queue there.
    #[inline]
    pub fn transmit(&mut self, egress: PortId, frame: Frame) -> Result<(), Frame> {
        let place = self.place(egress);
        let part = place.and_then(|place| self.ports.get_mut(place));
        let Some(queue) = part.and_then(|part| part.queues.first_mut()) else {
            return Err(frame);
        };
        if !queue.has_room() {
            return Err(frame);
        }
        queue.room -= 1;
        queue.pending.push(self.pool.sent(frame, egress));
        Ok(())
    }

    /// Puts what [`Self::transmit`] queued into the rings and wakes the kernel where it sleeps. How many
    /// frames are left, as their device is busy or down; those of one that is gone are not counted.
    pub fn flush(&mut self) -> u32 {
        let mut left = 0;
        for part in &mut self.ports {
            if let Some(queue) = part.queues.first_mut() {
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

    /// Lets go of a frame that another set on the same memory is to take over.
    pub fn part(&mut self, frame: Frame) -> Parted {
        self.pool.part(frame)
    }

    /// Takes over a frame that another set on the same memory has let go of.
    pub fn take_over(&mut self, parted: Parted) -> Frame {
        self.pool.take_over(parted)
    }

    /// The set that sends on `egress` for this one, which has no queue there. `None` when this one has,
    /// or when there is no such port.
    pub fn carrier(&self, egress: PortId) -> Option<u32> {
        self.ports[self.place(egress)?].carrier
    }

    /// A free frame without bytes, as if received on `port`.
    pub fn blank(&mut self, port: PortId) -> Option<Frame> {
        self.pool.blank(port)
    }

    /// Where the frames are.
    pub fn frames(&mut self) -> XskFrames {
        let (whole, spare) = (self.pool.whole(), self.pool.spare());
        let ledger = self.pool.ledger();
        let queues = self.ports.iter_mut().flat_map(|part| &mut part.queues);
        XskFrames {
            whole,
            spare,
            total: ledger.total(),
            free: ledger.free() as u64,
            in_kernel: ledger.in_kernel(),
            in_hand: ledger.in_hand(),
            in_rings: queues.map(Queue::in_rings).sum(),
        }
    }

    /// Wake-ups that the kernel answered with an error: the interface is gone.
    pub const fn wake_errors(&self) -> u64 {
        self.wake_errors
    }
}

impl Queue {
    /// Takes completed frames from the completion ring.
    fn collect(&mut self, ledger: &mut FrameLedger) {
        while self
            .socket
            .completed(BATCH, |chunk| ledger.give_back(chunk))
            == BATCH
        {}
    }

    /// Has the fill ring hold so many chunks, as far as there are free ones.
    fn refill(&mut self, ledger: &mut FrameLedger, port: PortId, fill: u32) {
        let mut chunks = [0; BATCH];
        let mut filled = false;
        loop {
            let room = self.socket.fill_room(RING).saturating_sub(RING - fill);
            let most = (room as usize).min(BATCH);
            let count = ledger.lend_free(port, &mut chunks[..most]);
            if count == 0 {
                break;
            }
            let taken = self.socket.fill(&chunks[..count]);
            if !taken {
                // There was room for all; but a frame that the ring did not take must not be lost.
                chunks[..count]
                    .iter()
                    .for_each(|chunk| ledger.give_back(*chunk));
                break;
            }
            filled = true;
        }
        if filled && self.socket.fill_needs_wakeup() {
            // Zero-copy drivers only; the poll in `wait` would do it, but a busy worker never gets there.
            self.socket.wake_to_fill();
        }
    }

    #[inline]
    fn has_room(&mut self) -> bool {
        if self.room == 0 {
            // `pending` is not in the ring yet, but has its places.
            let pending = u32::try_from(self.pending.len()).unwrap_or(RING);
            self.room = self.socket.send_room(RING).saturating_sub(pending);
        }
        self.room > 0
    }

    /// Hands `pending` to the kernel and has it sent. How many are left in the ring.
    ///
    /// # Errors
    /// What the wake-up reported: the interface is gone.
    fn flush(&mut self) -> io::Result<u32> {
        // `has_room` kept their places, so all go in; if not, they wait for the next time.
        if !self.pending.is_empty() && self.socket.send(&self.pending) {
            self.pending.clear();
        }
        let mut waiting = self.socket.unsent();
        // In copy mode one call sends a batch; the ring is done after so many, or the device is.
        let mut calls = waiting.div_ceil(KERNEL_TX_BATCH);
        while waiting > 0 && calls > 0 && self.socket.send_needs_wakeup() {
            self.socket.wake_to_send()?;
            let left = self.socket.unsent();
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
        u64::from(self.socket.in_rings()) + self.pending.len() as u64
    }
}

/// The worker that a queue is of.
const fn worker_of(queue: u32, workers: u32) -> usize {
    (queue % workers) as usize
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
        fill_ring_only_empty: raw.rx_fill_ring_empty_descs.saturating_sub(raw.rx_dropped),
        invalid_descriptors: raw.rx_invalid_descs + raw.tx_invalid_descs,
    })
}
