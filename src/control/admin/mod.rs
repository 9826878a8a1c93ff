//! The control socket: a Unix socket, mode 0600, that answers one JSON request a line.
//!
//! Nothing a client does may hold up the loop: clients are few, requests short, answers buffered
//! and written as the client reads them, and whoever is idle too long is shown the door. What takes
//! longer to find is answered later, and a long answer is made as it is read.

pub(super) mod enquiries;

use std::{
    collections::VecDeque,
    fmt,
    fs::{self, File},
    io::{self, Read, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use mio::{
    Interest, Registry, Token,
    event::Event,
    net::{UnixListener, UnixStream},
};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{
    api::{Request, Response},
    lock_file,
    log::{Level, Line},
    repeats::Reports,
};
use crate::time::Instant;

/// Clients served at the same time; more are refused at once. People and scrapers are few.
const MAX_CLIENTS: usize = 64;
/// Clients that wait to be served.
const BACKLOG: i32 = 128;
/// Longest request line in bytes. The requests of today are under 100.
const MAX_REQUEST: usize = 64 * 1024;
/// A client that neither asks nor reads for this long is disconnected.
const IDLE: Duration = Duration::from_secs(5);
/// How long clients wait that could not be accepted, as there was no descriptor: the kernel tells of them but once.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// Answers a request, or has [`AdminSocket::finish`] called for it when the answer is known.
pub type Answer<'a> = dyn FnMut(Ticket, Request) -> Option<Response> + 'a;

/// A long answer: its bytes in pieces, each of which is made when the one before has been read.
pub type Pieces = Box<dyn Iterator<Item = Vec<u8>>>;

/// Whose request it is that is answered later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    place: usize,
    /// Tells one client in the place from the next.
    client: u64,
}

#[cfg(test)]
impl Ticket {
    /// A ticket of nobody.
    pub(super) const fn new(place: usize, client: u64) -> Self {
        Self { place, client }
    }
}

/// The listening socket and its clients. Uses the tokens `first_token..first_token + TOKENS`.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    /// The file at `path` that is ours.
    file: FileId,
    first_token: usize,
    clients: Vec<Option<Client>>,
    /// Clients that ever were.
    count: u64,
    /// When the next look is due for clients that could not be accepted.
    accept_at: Option<Instant>,
    reports: Reports<Trouble>,
    /// Lines for the log.
    lines: VecDeque<Line>,
}

/// What tells one file from all others that there are.
type FileId = (u64, u64);

/// What can go wrong with the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    Accept,
    File,
}

struct Client {
    stream: UnixStream,
    number: u64,
    request: Vec<u8>,
    answer: Vec<u8>,
    /// Bytes of `answer` that the client has.
    written: usize,
    /// What comes after `answer`.
    more: Option<Pieces>,
    /// It asked for something that is answered later.
    pending: bool,
    /// The client will ask nothing more.
    asked_all: bool,
    /// Its turn is not over: [`AdminSocket::handle_timeout`] goes on.
    waiting: bool,
    last_seen: Instant,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("number", &self.number)
            .field("pending", &self.pending)
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}

impl AdminSocket {
    /// How many tokens the socket and its clients use.
    pub const TOKENS: usize = MAX_CLIENTS + 1;

    /// Listens on `path`, mode 0600, and registers with `registry`. A socket file that a crash
    /// left behind is replaced: the caller holds the lock that says that nobody else uses it.
    ///
    /// # Errors
    /// What the file system or the socket said.
    pub fn open(path: &Path, registry: &Registry, first_token: usize) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let (listener, file) = listen(path, registry, first_token)?;
        let clients = (0..MAX_CLIENTS).map(|_| None).collect();
        Ok(Self {
            listener,
            path: path.to_owned(),
            file,
            first_token,
            clients,
            count: 0,
            accept_at: None,
            reports: Reports::new(),
            lines: VecDeque::new(),
        })
    }

    /// Sees to it that the socket can be found: makes it anew when its file is gone, with its folder. A file
    /// of somebody else in its place is left alone until it is gone. To be called once a second or so.
    pub fn keep(&mut self, now: Instant, registry: &Registry) {
        let outcome = match file_id(&self.path) {
            Ok(found) if found == self.file => Ok(()),
            Ok(_) => Err(io::Error::other(
                "another file has taken the place of ours: remove it",
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_anew(registry),
            Err(error) => Err(error),
        };
        let what = format_args!("the control socket {}", self.path.display());
        self.lines.extend(
            self.reports
                .note(now, Trouble::File, outcome.as_ref().copied(), what),
        );
    }

    /// The next line for the log.
    pub fn poll_line(&mut self) -> Option<Line> {
        self.lines.pop_front()
    }

    fn make_anew(&mut self, registry: &Registry) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            lock_file::make_folder(folder)?;
        }
        let (listener, file) = listen(&self.path, registry, self.first_token)?;
        // Closing the former one takes it out of the poll.
        (self.listener, self.file) = (listener, file);
        let path = self.path.display();
        self.lines.push_back(Line {
            level: Level::Warning,
            text: format!("the control socket {path} was removed: made anew"),
        });
        Ok(())
    }

    /// Handles an event whose token is one of this socket's; `answer` answers a request.
    pub fn handle_event(
        &mut self,
        now: Instant,
        registry: &Registry,
        event: &Event,
        answer: &mut Answer<'_>,
    ) {
        let offset = event.token().0 - self.first_token;
        if offset == 0 {
            return self.accept(now, registry);
        }
        let place = offset - 1;
        let Some(slot) = self.clients.get_mut(place) else {
            return;
        };
        let Some(client) = slot else { return };
        client.last_seen = now;
        if !matches!(client.serve(place, answer), Ok(Progress::Open)) {
            close(slot, registry);
        }
    }

    /// Goes on with clients that asked several things at once, and disconnects those that have been
    /// idle too long.
    pub fn handle_timeout(&mut self, now: Instant, registry: &Registry, answer: &mut Answer<'_>) {
        for (place, slot) in self.clients.iter_mut().enumerate() {
            let Some(client) = slot else { continue };
            let keep = if client.waiting {
                client.last_seen = now;
                matches!(client.serve(place, answer), Ok(Progress::Open))
            } else {
                client.pending || now - client.last_seen < IDLE
            };
            if !keep {
                close(slot, registry);
            }
        }
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept(now, registry);
        }
    }

    /// When [`Self::handle_timeout`] has something to do next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = |client: &Client| match client.waiting {
            true => Instant::ZERO,
            false => client.last_seen + IDLE,
        };
        let clients = self.clients.iter().flatten();
        let due = clients.filter(|client| client.waiting || !client.pending);
        due.map(next).chain(self.accept_at).min()
    }

    /// Answers a request that was to be answered later. [`Self::handle_timeout`] is due then. Nothing happens if
    /// the client has gone.
    pub fn finish(&mut self, ticket: Ticket, answer: Pieces) {
        let client = self.clients.get_mut(ticket.place).and_then(Option::as_mut);
        if let Some(client) = client.filter(|it| it.pending && it.number == ticket.client) {
            client.pending = false;
            client.more = Some(answer);
            client.waiting = true;
        }
    }

    fn accept(&mut self, now: Instant, registry: &Registry) {
        self.accept_at = None;
        let outcome = loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.welcome(now, registry, stream),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => break Ok(()),
                    // That client has gone, or a signal came.
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                    _ => break Err(error),
                },
            }
        };
        if outcome.is_err() {
            self.accept_at = Some(now + ACCEPT_AGAIN);
        }
        let what = "accepting a client of the control socket";
        self.lines.extend(
            self.reports
                .note(now, Trouble::Accept, outcome.as_ref().copied(), what),
        );
    }

    fn welcome(&mut self, now: Instant, registry: &Registry, mut stream: UnixStream) {
        let free = self.clients.iter().position(Option::is_none);
        let Some(index) = free else { return };
        let token = Token(self.first_token + 1 + index);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if registry.register(&mut stream, token, interest).is_ok() {
            self.count += 1;
            let client = Client {
                stream,
                number: self.count,
                request: Vec::new(),
                answer: Vec::new(),
                written: 0,
                more: None,
                pending: false,
                asked_all: false,
                waiting: false,
                last_seen: now,
            };
            self.clients[index] = Some(client);
        }
    }
}

/// Makes the socket, with its file.
fn listen(path: &Path, registry: &Registry, token: usize) -> io::Result<(UnixListener, FileId)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The file gets the mode of the socket: nobody connects in between, whatever the umask is.
    let same = File::from(OwnedFd::from(socket.try_clone()?));
    same.set_permissions(fs::Permissions::from_mode(0o600))?;
    socket.bind(&SockAddr::unix(path)?)?;
    let made = || -> io::Result<(UnixListener, FileId)> {
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let mut listener = UnixListener::from_std(socket.into());
        registry.register(&mut listener, Token(token), Interest::READABLE)?;
        Ok((listener, file_id(path)?))
    };
    let made = made();
    if made.is_err() {
        // Nobody listens: a file would be in the way of the next attempt.
        let _ = fs::remove_file(path);
    }
    made
}

fn file_id(path: &Path) -> io::Result<FileId> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if file_id(&self.path).is_ok_and(|found| found == self.file) {
            // Nothing can be done about a failure, and the next start replaces the file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn close(slot: &mut Option<Client>, registry: &Registry) {
    if let Some(mut client) = slot.take() {
        // Closing the socket deregisters it as well; failure leaves nothing behind.
        let _ = registry.deregister(&mut client.stream);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Open,
    Finished,
}

impl Client {
    /// Takes a turn: reads, writes, answers one request at the most, or goes on with a long answer. A client that sends many has
    /// the next one answered in a later turn, when it has read the answer before.
    fn serve(&mut self, place: usize, answer: &mut Answer<'_>) -> io::Result<Progress> {
        self.read()?;
        self.waiting = false;
        if self.write()? {
            if let Some(more) = &mut self.more {
                match more.next() {
                    Some(piece) => self.answer = piece,
                    None => self.more = None,
                }
                self.waiting = self.write()?;
                return Ok(Progress::Open);
            }
            if self.pending {
                return Ok(Progress::Open);
            }
            let Some(end) = self.request.iter().position(|&byte| byte == b'\n') else {
                let done = if self.asked_all {
                    Progress::Finished
                } else {
                    Progress::Open
                };
                return Ok(done);
            };
            let line: Vec<u8> = self.request.drain(..=end).collect();
            let ticket = Ticket {
                place,
                client: self.number,
            };
            let response = match serde_json::from_slice(&line) {
                Ok(request) => answer(ticket, request),
                Err(error) => Some(Response::Error(format!("not a request: {error}"))),
            };
            let Some(response) = response else {
                self.pending = true;
                return Ok(Progress::Open);
            };
            serde_json::to_writer(&mut self.answer, &response)?;
            self.answer.push(b'\n');
            // No event tells of what was read already.
            self.waiting = self.write()?;
        }
        Ok(Progress::Open)
    }

    fn read(&mut self) -> io::Result<()> {
        let mut chunk = [0; 4096];
        while !self.asked_all {
            match self.stream.read(&mut chunk) {
                Ok(0) => self.asked_all = true,
                Ok(count) => self.request.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if self.request.len() > MAX_REQUEST {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(())
    }

    /// Writes what the client takes. Whether it has everything.
    fn write(&mut self) -> io::Result<bool> {
        while self.written < self.answer.len() {
            match self.stream.write(&self.answer[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.answer.clear();
        self.written = 0;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        os::unix::net::UnixStream as StdStream,
    };

    use mio::{Events, Poll};

    use super::{
        super::api::{Lateness, VrrpStatus},
        *,
    };

    const NO_INSTANCES: &str = r#"{"vrrp":{"instances":[],"timer_lateness":{"count":0,"p50_us":0,"p99_us":0,"max_us":0}}}"#;

    struct Served {
        poll: Poll,
        socket: AdminSocket,
        path: PathBuf,
        /// Requests that are to be answered later.
        tickets: Vec<Ticket>,
    }

    impl Served {
        fn open(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("xvs-admin-{}-{name}", std::process::id()));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let poll = Poll::new().unwrap();
            let socket = AdminSocket::open(&path, poll.registry(), 10).unwrap();
            Self {
                poll,
                socket,
                path,
                tickets: Vec::new(),
            }
        }

        /// Serves whatever is waiting until a turn brings nothing.
        fn serve(&mut self, now: Instant) {
            let tickets = &mut self.tickets;
            let mut answer = |ticket, request| match request {
                Request::Reload => Some(Response::Reload(Default::default())),
                Request::Vrrp => Some(Response::Vrrp(VrrpStatus {
                    instances: Vec::new(),
                    timer_lateness: Lateness::default(),
                })),
                Request::List => Some(Response::Error("x".repeat(1_000_000))),
                Request::Connections(_) => {
                    tickets.push(ticket);
                    None
                }
            };
            let mut events = Events::with_capacity(16);
            loop {
                let registry = self.poll.registry().try_clone().unwrap();
                let wait = match self.socket.poll_timeout() {
                    Some(Instant::ZERO) => Duration::ZERO,
                    _ => Duration::from_millis(20),
                };
                self.poll.poll(&mut events, Some(wait)).unwrap();
                if events.is_empty() && !wait.is_zero() {
                    return;
                }
                for event in &events {
                    self.socket.handle_event(now, &registry, event, &mut answer);
                }
                self.socket.handle_timeout(now, &registry, &mut answer);
            }
        }
    }

    #[test]
    fn requests_are_answered_line_by_line_and_nonsense_is_named() {
        let mut served = Served::open("lines");
        let mode = fs::metadata(&served.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut client = StdStream::connect(&served.path).unwrap();
        client
            .write_all(b"{\"command\":\"vrrp\"}\nnonsense\n{\"comm")
            .unwrap();
        served.serve(Instant::ZERO);
        client.write_all(b"and\":\"vrrp\"}\n").unwrap();
        served.serve(Instant::ZERO);
        let mut lines = BufReader::new(client).lines().map(Result::unwrap);
        assert_eq!(lines.next().unwrap(), NO_INSTANCES);
        assert!(lines.next().unwrap().contains("not a request"));
        assert_eq!(lines.next().unwrap(), NO_INSTANCES);
    }

    /// What a client that comes now is answered.
    fn ask(served: &mut Served) -> String {
        let mut client = StdStream::connect(&served.path).unwrap();
        client.write_all(b"{\"command\":\"vrrp\"}\n").unwrap();
        served.serve(Instant::ZERO);
        BufReader::new(client).lines().next().unwrap().unwrap()
    }

    impl Served {
        fn keep(&mut self, seconds: u64) -> Vec<String> {
            let now = Instant::ZERO + Duration::from_secs(seconds);
            self.socket.keep(now, self.poll.registry());
            let lines = std::iter::from_fn(|| self.socket.poll_line());
            lines.map(|line| line.text).collect()
        }
    }

    #[test]
    fn a_socket_whose_folder_was_removed_is_there_again_and_clients_stay() {
        let mut served = Served::open("removed/socket");
        let folder = served.path.parent().unwrap().to_owned();
        let mut client = StdStream::connect(&served.path).unwrap();
        served.serve(Instant::ZERO);
        assert!(served.keep(0).is_empty());
        fs::remove_dir_all(&folder).unwrap();
        let lines = served.keep(1);
        assert!(lines[0].ends_with("was removed: made anew"), "{lines:?}");
        assert!(served.keep(2).is_empty());
        let mode = fs::metadata(&served.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(ask(&mut served), NO_INSTANCES);
        client.write_all(b"{\"command\":\"vrrp\"}\n").unwrap();
        served.serve(Instant::ZERO);
        let answer = BufReader::new(client).lines().next().unwrap().unwrap();
        assert_eq!(answer, NO_INSTANCES);
        drop(served);
        fs::remove_dir(&folder).unwrap();
    }

    #[test]
    fn a_file_of_somebody_else_in_its_place_is_named_once_and_left_alone() {
        let mut served = Served::open("replaced");
        let path = served.path.clone();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        let lines = served.keep(0);
        assert!(lines[0].contains("another file has taken the place"));
        assert!(served.keep(1).is_empty());
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        fs::remove_file(&path).unwrap();
        let lines = served.keep(2);
        assert!(lines[0].ends_with("was removed: made anew"), "{lines:?}");
        assert!(
            lines[1].ends_with("works again after 2 failures"),
            "{lines:?}"
        );
        assert_eq!(ask(&mut served), NO_INSTANCES);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        drop(served);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn an_answer_larger_than_the_socket_buffer_arrives_whole() {
        let mut served = Served::open("large");
        let mut client = StdStream::connect(&served.path).unwrap();
        client.write_all(b"{\"command\":\"list\"}\n").unwrap();
        served.serve(Instant::ZERO);
        client.set_nonblocking(true).unwrap();
        let mut received = Vec::new();
        for _ in 0..10_000 {
            let mut chunk = [0; 65_536];
            match client.read(&mut chunk) {
                Ok(count) => received.extend_from_slice(&chunk[..count]),
                Err(_) => served.serve(Instant::ZERO),
            }
            if received.ends_with(b"\n") {
                break;
            }
        }
        assert_eq!(received.len(), 1_000_000 + "{\"error\":\"\"}\n".len());
    }

    #[test]
    fn idle_and_endless_clients_are_disconnected() {
        let mut served = Served::open("idle");
        let mut idle = StdStream::connect(&served.path).unwrap();
        served.serve(Instant::ZERO);
        let deadline = served.socket.poll_timeout().unwrap();
        assert_eq!(deadline, Instant::ZERO + IDLE);
        let nobody = &mut |_, _| unreachable!("nothing was asked");
        served
            .socket
            .handle_timeout(deadline, served.poll.registry(), nobody);
        assert_eq!(idle.read(&mut [0]).unwrap(), 0);
        assert_eq!(served.socket.poll_timeout(), None);

        let mut endless = StdStream::connect(&served.path).unwrap();
        endless.set_nonblocking(true).unwrap();
        for _ in 0..64 {
            let _ = endless.write(&[b'x'; 16_384]);
            served.serve(Instant::ZERO);
        }
        assert_eq!(
            served.socket.poll_timeout(),
            None,
            "the endless request was kept"
        );
    }

    #[test]
    fn a_client_that_has_asked_all_is_let_go_with_its_answers() {
        let mut served = Served::open("all");
        let mut client = StdStream::connect(&served.path).unwrap();
        let questions = "{\"command\":\"vrrp\"}\n".repeat(100);
        client.write_all(questions.as_bytes()).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        served.serve(Instant::ZERO);
        let answers = BufReader::new(client).lines().map(Result::unwrap);
        assert_eq!(answers.filter(|answer| answer == NO_INSTANCES).count(), 100);
        assert_eq!(served.socket.poll_timeout(), None, "its place is free");
    }

    const LATER: &[u8] = b"{\"command\":\"connections\"}\n";

    /// A long answer of `count` pieces.
    fn pieces(count: usize) -> Pieces {
        let all = (0..count).map(|n| format!("{n:07},").repeat(1000).into_bytes());
        Box::new(all.chain([b"end\n".to_vec()]))
    }

    /// Reads so many bytes, serving whenever nothing is there.
    fn read(served: &mut Served, now: Instant, client: &mut StdStream, count: usize) -> Vec<u8> {
        client.set_nonblocking(true).unwrap();
        let mut received = Vec::new();
        for _ in 0..10_000 {
            let mut chunk = [0; 65_536];
            match client.read(&mut chunk) {
                Ok(count) => received.extend_from_slice(&chunk[..count]),
                Err(_) => served.serve(now),
            }
            if received.len() >= count {
                break;
            }
        }
        received
    }

    #[test]
    fn a_late_answer_comes_before_that_to_the_next_request() {
        let mut served = Served::open("late");
        let mut client = StdStream::connect(&served.path).unwrap();
        client.write_all(LATER).unwrap();
        client.write_all(b"{\"command\":\"vrrp\"}\n").unwrap();
        served.serve(Instant::ZERO);
        let mut other = StdStream::connect(&served.path).unwrap();
        other.write_all(b"{\"command\":\"vrrp\"}\n").unwrap();
        let known = [NO_INSTANCES.as_bytes(), b"\n"].concat();
        assert_eq!(
            read(&mut served, Instant::ZERO, &mut other, known.len()),
            known
        );
        drop(other);
        served.serve(Instant::ZERO);
        assert_eq!(
            client
                .set_nonblocking(true)
                .and_then(|()| client.read(&mut [0]))
                .ok(),
            None
        );
        assert_eq!(
            served.socket.poll_timeout(),
            None,
            "it is not its fault that it waits"
        );

        let later = Instant::ZERO + IDLE * 3;
        served.serve(later);
        let ticket = served.tickets.pop().unwrap();
        served.socket.finish(ticket, pieces(200));
        assert_eq!(served.socket.poll_timeout(), Some(Instant::ZERO));
        let mut expected: Vec<u8> = pieces(200).flatten().collect();
        expected.extend(known);
        let answer = read(&mut served, later, &mut client, expected.len());
        assert!(
            answer == expected,
            "1.6 MB arrive whole, then the next answer"
        );
        served.socket.finish(ticket, pieces(1));
        served.serve(later);
        assert!(client.read(&mut [0]).is_err(), "it is answered once");
    }

    #[test]
    fn the_answer_for_one_who_has_gone_reaches_nobody_else() {
        let mut served = Served::open("gone");
        let mut client = StdStream::connect(&served.path).unwrap();
        client.write_all(LATER).unwrap();
        served.serve(Instant::ZERO);
        drop(client);
        served.serve(Instant::ZERO);
        let ticket = served.tickets.pop().unwrap();
        served.socket.finish(ticket, pieces(1));
        served.serve(Instant::ZERO);
        assert_eq!(served.socket.poll_timeout(), None, "its place is free");

        let mut next = StdStream::connect(&served.path).unwrap();
        next.write_all(LATER).unwrap();
        served.serve(Instant::ZERO);
        let own = served.tickets.pop().unwrap();
        assert_eq!(own.place, ticket.place);
        served.socket.finish(ticket, pieces(5));
        served.serve(Instant::ZERO);
        next.set_nonblocking(true).unwrap();
        assert!(next.read(&mut [0]).is_err(), "that was not for it");
        served.socket.finish(own, pieces(0));
        assert_eq!(read(&mut served, Instant::ZERO, &mut next, 4), b"end\n");
    }

    #[test]
    fn the_socket_file_goes_with_the_socket() {
        let served = Served::open("file");
        let path = served.path.clone();
        assert!(path.exists());
        drop(served);
        assert!(!path.exists());
    }
}
