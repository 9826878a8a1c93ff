//! Servers that give back what they get, as threads on a machine.

use std::{
    io,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    thread::JoinHandle,
    time::Duration,
};

use super::{host::Host, millis, secs};

/// How often a server looks whether it is to end.
pub(crate) const LOOK: Duration = millis(20);

/// A thread that ends when this is dropped.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Calls `serve` on `host` again and again. What it waits for it must not wait for longer than about
    /// [`LOOK`].
    pub(crate) fn start(host: &Host, mut serve: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (network, told) = (host.network(), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            network.move_this_thread();
            while !told.load(Ordering::Relaxed) {
                serve();
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// A UDP service at `address` that answers `NAME ` and what it got.
    pub(crate) fn udp_echo(host: &Host, address: SocketAddr) -> Self {
        let socket = host.inside(|| UdpSocket::bind(address));
        let socket = socket.unwrap_or_else(|e| panic!("UDP {address}: {e}"));
        let waits = socket.set_read_timeout(Some(LOOK));
        waits.expect("a timeout can be set");
        let name = host.role().to_owned();
        let mut buffer = vec![0; 65_536];
        Self::start(host, move || {
            if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let answer = [name.as_bytes(), b" ", &buffer[..length]].concat();
                // A client that is gone is none of its business.
                let _ = socket.send_to(&answer, from);
            }
        })
    }

    /// A TCP service at `address` that reads to the end and answers how much it was and its CRC32c.
    pub(crate) fn tcp_sink(host: &Host, address: SocketAddr) -> Self {
        let listener = host.inside(|| TcpListener::bind(address));
        let listener = listener.unwrap_or_else(|e| panic!("TCP {address}: {e}"));
        listener.set_nonblocking(true).expect("sockets can be so");
        Self::start(host, move || match listener.accept() {
            Ok((stream, _)) => {
                // A checker connects and says nothing.
                let _ = swallow(stream);
            }
            Err(_) => thread::sleep(LOOK),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed.
            let _ = thread.join();
        }
    }
}

fn swallow(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(secs(5)))?;
    let mut buffer = vec![0; 65_536];
    let (mut sum, mut crc) = (0, 0);
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return stream.write_all(receipt(sum, crc).as_bytes());
        }
        sum += length;
        crc = crc32c::crc32c_append(crc, &buffer[..length]);
    }
}

fn receipt(length: usize, crc: u32) -> String {
    format!("{length} bytes, {crc:08x}")
}

/// What [`Server::tcp_sink`] must answer.
pub(crate) fn receipt_for(content: &[u8]) -> String {
    receipt(content.len(), crc32c::crc32c(content))
}

/// A UDP socket of a client on the machine of the calling thread, connected to `target`.
pub(crate) fn udp_client(source: impl Into<IpAddr>, target: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddr::new(source.into(), 0))?;
    socket.set_read_timeout(Some(secs(2)))?;
    socket.connect(target)?;
    Ok(socket)
}

/// Asks a [`Server::udp_echo`] once. Gives the name of the one that answered, with the right content.
pub(crate) fn ask_udp(socket: &UdpSocket, content: &[u8]) -> io::Result<String> {
    socket.send(content)?;
    let mut buffer = vec![0; 65_536];
    let length = socket.recv(&mut buffer)?;
    let answer = &buffer[..length];
    let name = answer
        .split(|byte| *byte == b' ')
        .next()
        .unwrap_or_default();
    if answer.get(name.len() + 1..) != Some(content) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// Bytes without a pattern, the same ones each time.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let words = std::iter::repeat_with(&mut next).take(length.div_ceil(8));
    let mut bytes: Vec<u8> = words.flatten().collect();
    bytes.truncate(length);
    bytes
}
