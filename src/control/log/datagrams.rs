//! Lines as datagrams to a daemon of this host: syslog and the journal.

use std::{io, os::unix::net::UnixDatagram, path::PathBuf};

use super::{
    options::{Facility, Ident, Options},
    output::Sink,
    record::Record,
};

/// Where the journal takes messages in its own protocol.
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";

/// What a daemon expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Syslog { json: bool },
    Journal,
}

/// A daemon that takes a datagram a line.
#[derive(Debug)]
pub(super) struct Daemon {
    path: PathBuf,
    protocol: Protocol,
    facility: Facility,
    ident: Ident,
    process: u32,
    /// `None` until it was there, and after it has gone.
    socket: Option<UnixDatagram>,
}

impl Daemon {
    /// The syslog daemon that `options` name.
    pub(super) fn syslog(options: &Options) -> Self {
        let protocol = Protocol::Syslog { json: options.json };
        Self::new(options.syslog_socket.clone(), protocol, options)
    }

    /// The journal.
    pub(super) fn journal(options: &Options) -> Self {
        Self::new(JOURNAL_SOCKET.into(), Protocol::Journal, options)
    }

    fn new(path: PathBuf, protocol: Protocol, options: &Options) -> Self {
        Self {
            path,
            protocol,
            facility: options.facility,
            ident: options.ident.clone(),
            process: std::process::id(),
            socket: None,
        }
    }

    fn connect(&self) -> io::Result<UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect(&self.path)?;
        Ok(socket)
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        if let Some(socket) = &self.socket {
            match socket.send(message) {
                Ok(_) => return Ok(()),
                // It is there, and does not take this now.
                Err(error) if !is_gone(&error) => return Err(error),
                // It has ended; another one may have its place.
                Err(_) => self.socket = None,
            }
        }
        let socket = self.connect()?;
        socket.send(message)?;
        self.socket = Some(socket);
        Ok(())
    }
}

/// Whether an error says that nobody has the other end any more.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected
            | io::ErrorKind::BrokenPipe
    )
}

impl Sink for Daemon {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        let (facility, process) = (self.facility, self.process);
        let message = match self.protocol {
            Protocol::Syslog { json } => record.syslog(facility, &self.ident, process, json),
            Protocol::Journal => record.journal(facility, &self.ident, process),
        };
        self.send(message.as_bytes())
    }

    fn name(&self) -> Option<String> {
        Some(self.path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::SystemTime};

    use super::{
        super::{options::Level, output::Output, record::Room},
        *,
    };

    const WALL: SystemTime = SystemTime::UNIX_EPOCH;

    fn record(text: &str) -> Record {
        Record::new(WALL, (Level::Notice, Room::Checks), &text, &[])
    }

    fn socket_path(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("xvs-log-{name}-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        path
    }

    fn received(listener: &UnixDatagram) -> Vec<String> {
        listener.set_nonblocking(true).unwrap();
        let mut buffer = [0; 8192];
        std::iter::from_fn(|| {
            let count = listener.recv(&mut buffer).ok()?;
            Some(String::from_utf8(buffer[..count].to_vec()).unwrap())
        })
        .collect()
    }

    fn texts(listener: &UnixDatagram) -> Vec<String> {
        let messages = received(listener);
        messages
            .iter()
            .map(|message| message.split_once("]: ").unwrap().1.to_owned())
            .collect()
    }

    #[test]
    fn a_syslog_daemon_that_goes_costs_lines_and_is_found_again() {
        let path = socket_path("syslog");
        let options = Options {
            syslog_socket: path.clone(),
            ..Options::default()
        };
        let mut output = Output::new(Daemon::syslog(&options));
        output.write(WALL, &record("before it is there"));
        let first = UnixDatagram::bind(&path).unwrap();
        output.write(WALL, &record("there"));
        let missing = format!(
            "a line of this log is lost: {}: No such file or directory (os error 2)",
            path.display()
        );
        assert_eq!(texts(&first), [missing.as_str(), "there"]);

        drop(first);
        for text in ["refused", "and refused"] {
            output.write(WALL, &record(text));
        }
        fs::remove_file(&path).unwrap();
        output.tell_loss(WALL);
        assert_eq!(output.loss.as_ref().map(|loss| loss.lines), Some(2));
        let second = UnixDatagram::bind(&path).unwrap();
        output.tell_loss(WALL);
        output.tell_loss(WALL);
        output.write(WALL, &record("again"));
        let texts = texts(&second);
        assert!(
            texts[0].starts_with("2 lines of this log are lost: "),
            "{texts:?}"
        );
        assert_eq!(texts[1..], ["again"]);

        // A restart between two lines costs none.
        drop(second);
        fs::remove_file(&path).unwrap();
        let third = UnixDatagram::bind(&path).unwrap();
        output.write(WALL, &record("to the new one"));
        assert_eq!(received(&third).len(), 1);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_syslog_daemon_that_does_not_read_costs_lines_and_not_time() {
        const LINES: usize = 2_000;
        let path = socket_path("full");
        let options = Options {
            syslog_socket: path.clone(),
            ..Options::default()
        };
        let listener = UnixDatagram::bind(&path).unwrap();
        let mut output = Output::new(Daemon::syslog(&options));
        for number in 0..LINES {
            output.write(WALL, &record(&format!("{number}")));
        }
        let mut whole = texts(&listener).len();
        output.tell_loss(WALL);
        let told = &texts(&listener)[0];
        let (count, why) = told.split_once(" lines of this log are lost: ").unwrap();
        assert!(why.ends_with(": its reader was behind"), "{told}");
        whole += count.parse::<usize>().unwrap();
        assert_eq!(whole, LINES);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn the_journal_gets_its_own_protocol() {
        let path = socket_path("journal");
        let listener = UnixDatagram::bind(&path).unwrap();
        let options = Options::default();
        let daemon = Daemon::new(path.clone(), Protocol::Journal, &options);
        Output::new(daemon).write(WALL, &record("Gained quorum"));
        let messages = received(&listener);
        assert!(messages[0].starts_with("MESSAGE=Gained quorum\nPRIORITY=5\n"));
        fs::remove_file(&path).unwrap();
    }
}
