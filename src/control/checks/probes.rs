//! The sockets of TCP checks: non-blocking connects on the control loop's poll, no thread.
//!
//! A probe is over when the handshake is. The connection is then *reset* (`SO_LINGER` 0), not
//! closed in order: who closes first keeps the connection in TIME_WAIT for a minute, and a
//! balancer that probes one address for many virtual servers would pile up tens of thousands of
//! them until its local ports to that address are used up, which looks like a failed real server.
//! A reset leaves nothing behind on either side: of 1,000 probes of an nginx that were closed in
//! order 963 stood in TIME_WAIT a second later, of 1,000 that were reset none. The real server's
//! program sees a client that went away without a word either way; nginx writes one line at level
//! `info`, and nothing at level `error` or in its access log, in both cases.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt, io,
    net::SocketAddr,
    time::Duration,
};

use mio::{Interest, Registry, Token, net::TcpStream};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::{
    check::{CheckerId, Deferral, ProbeError, ProbeResult, TcpProbe},
    time::Instant,
};

/// How many times a slot is used before a token occurs again. A stale event would have to be kept
/// that long to be mistaken; events live for one turn of the loop.
const GENERATIONS: usize = 1 << 32;

/// TCP probes under way.
///
/// Every probe that [`TcpProbes::start`] accepts gives exactly one result, at its timeout at the
/// latest. Results are pulled with [`TcpProbes::poll_result`], also those known at once (on
/// loopback a connect may finish within the call).
#[derive(Debug)]
pub struct TcpProbes {
    registry: Registry,
    first_token: usize,
    slots: Vec<Slot>,
    free: Vec<usize>,
    deadlines: BTreeSet<(Instant, usize)>,
    results: VecDeque<(CheckerId, ProbeResult)>,
}

/// A place for one probe. The generation grows with every use, and is part of the token: an
/// event that was fetched before the slot was emptied and filled again carries the old one.
#[derive(Debug, Default)]
struct Slot {
    generation: usize,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    checker: CheckerId,
    stream: TcpStream,
    deadline: Instant,
}

/// Why a probe could not be started. None of these says anything about the real server.
#[derive(Debug)]
pub enum StartError {
    /// All slots are taken.
    Full,
    /// The process or the machine has no descriptor or memory left (EMFILE, ENFILE, ENOBUFS, …).
    Descriptors(io::Error),
    /// The source address is not on this machine, is taken, or its ports are used up
    /// (EADDRNOTAVAIL, EADDRINUSE).
    Address(io::Error),
    /// A socket option was refused, such as a mark without CAP_NET_ADMIN.
    Setup(io::Error),
}

impl TcpProbes {
    /// Room for `capacity` probes at the same time, on the poll of `registry`. Tokens from
    /// `first_token` on belong to it and all of them.
    pub fn new(registry: Registry, first_token: usize, capacity: usize) -> Self {
        Self {
            registry,
            first_token,
            slots: (0..capacity).map(|_| Slot::default()).collect(),
            free: (0..capacity).rev().collect(),
            deadlines: BTreeSet::new(),
            results: VecDeque::new(),
        }
    }

    /// Starts to connect.
    ///
    /// # Errors
    ///
    /// This machine could not do it. A real server that refuses, or that no route leads to, is
    /// a result.
    pub fn start(
        &mut self,
        now: Instant,
        checker: CheckerId,
        probe: &TcpProbe,
    ) -> Result<(), StartError> {
        let slot = *self.free.last().ok_or(StartError::Full)?;
        let socket = prepare(probe)?;
        match socket.connect(&SockAddr::from(probe.target)) {
            Ok(()) => self.results.push_back((checker, Ok(()))),
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
                let mut stream = TcpStream::from_std(socket.into());
                let token = self.token(slot);
                self.registry
                    .register(&mut stream, token, Interest::WRITABLE)
                    .map_err(StartError::Descriptors)?;
                let deadline = now + probe.timeout;
                self.free.pop();
                self.deadlines.insert((deadline, slot));
                self.slots[slot].running = Some(Running {
                    checker,
                    stream,
                    deadline,
                });
            }
            Err(error) => match StartError::local(error) {
                Ok(local) => return Err(local),
                Err(remote) => self.results.push_back((checker, Err(failure(&remote)))),
            },
        }
        Ok(())
    }

    /// Takes an event with one of its tokens. A stale one is ignored.
    pub fn handle_event(&mut self, token: Token) {
        let Some(slot) = self.slot_of(token) else {
            return;
        };
        if let Some(result) = self.slots[slot].running.as_ref().and_then(Running::outcome) {
            self.finish(slot, result);
        }
    }

    /// Ends the probes whose time is up. One whose connection stands by now has passed, even
    /// if its event has not been seen: a late loop is not the real server's fault.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(_, slot)) = self
            .deadlines
            .first()
            .filter(|(deadline, _)| *deadline <= now)
        {
            let running = self.slots[slot].running.as_ref();
            let outcome = running.and_then(Running::outcome);
            self.finish(slot, outcome.unwrap_or(Err(ProbeError::Timeout)));
        }
    }

    /// The next result.
    pub fn poll_result(&mut self) -> Option<(CheckerId, ProbeResult)> {
        self.results.pop_front()
    }

    /// When [`Self::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Connections being established now.
    pub fn running(&self) -> usize {
        self.deadlines.len()
    }

    fn token(&self, slot: usize) -> Token {
        let generation = self.slots[slot].generation % GENERATIONS;
        Token(self.first_token + generation * self.slots.len() + slot)
    }

    /// The slot that this token means, if it still is the use of the slot that it was made for.
    fn slot_of(&self, token: Token) -> Option<usize> {
        let slot = token
            .0
            .checked_sub(self.first_token)?
            .checked_rem(self.slots.len())?;
        (self.token(slot) == token).then_some(slot)
    }

    /// Frees the slot and keeps the result. Closing the socket takes it out of the poll.
    fn finish(&mut self, slot: usize, result: ProbeResult) {
        let place = &mut self.slots[slot];
        if let Some(running) = place.running.take() {
            place.generation = place.generation.wrapping_add(1);
            self.free.push(slot);
            self.deadlines.remove(&(running.deadline, slot));
            self.results.push_back((running.checker, result));
        }
    }
}

impl Running {
    /// How it ended, if it has: an error waits on the socket, or it has a peer.
    fn outcome(&self) -> Option<ProbeResult> {
        match self.stream.take_error() {
            Ok(Some(error)) | Err(error) => return Some(Err(failure(&error))),
            Ok(None) => {}
        }
        match self.stream.peer_addr() {
            Ok(_) => Some(Ok(())),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => None,
            Err(error) => Some(Err(failure(&error))),
        }
    }
}

impl StartError {
    /// What the checker is to be told.
    pub const fn deferral(&self) -> Deferral {
        match self {
            Self::Full | Self::Descriptors(_) => Deferral::Descriptors,
            Self::Address(_) => Deferral::Address,
            Self::Setup(_) => Deferral::Setup,
        }
    }

    /// The local reason behind a refused system call, or the error itself when it has none.
    fn local(error: io::Error) -> Result<Self, io::Error> {
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EAGAIN) => {
                Ok(Self::Descriptors(error))
            }
            Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE) => Ok(Self::Address(error)),
            _ => Err(error),
        }
    }

    fn of_setup(error: io::Error) -> Self {
        Self::local(error).unwrap_or_else(Self::Setup)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("all probe slots are taken"),
            Self::Descriptors(error) => write!(f, "no descriptor for a probe: {error}"),
            Self::Address(error) => write!(f, "no source address for a probe: {error}"),
            Self::Setup(error) => write!(f, "cannot set up a probe's socket: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// A socket that is ready to connect, and that resets its connection when it is dropped.
fn prepare(probe: &TcpProbe) -> Result<Socket, StartError> {
    let domain = Domain::for_address(probe.target);
    let socket =
        Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).map_err(StartError::of_setup)?;
    let set_up = || -> io::Result<()> {
        socket.set_nonblocking(true)?;
        socket.set_linger(Some(Duration::ZERO))?;
        if let Some(mark) = probe.mark {
            socket.set_mark(mark)?;
        }
        if let Some(source) = probe.bind {
            bind(&socket, source)?;
        }
        Ok(())
    };
    set_up().map_err(StartError::of_setup)?;
    Ok(socket)
}

/// Binds to the source; several probes may share a fixed port, as their targets differ.
fn bind(socket: &Socket, source: SocketAddr) -> io::Result<()> {
    if source.port() != 0 {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&SockAddr::from(source))
}

/// An error of the connection in words that are the same on every system.
fn failure(error: &io::Error) -> ProbeError {
    match error.kind() {
        io::ErrorKind::TimedOut => ProbeError::Timeout,
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable => ProbeError::Connect(error.kind().to_string().into()),
        _ => ProbeError::Connect(error.to_string().into()),
    }
}

#[cfg(test)]
mod tests;
