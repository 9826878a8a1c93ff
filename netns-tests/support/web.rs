//! Real nginx on a real server: says who it is and who asks, and keeps a log.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
};

use super::{host::Host, lan::Lan, process::Process, secs, wait_until};

/// The ports that every web server of the tests listens on.
const PORTS: [u16; 2] = [80, 8080];

/// One nginx. Answers `NAME CLIENT-ADDRESS` to every request.
pub(crate) struct WebServer {
    process: Process,
    folder: PathBuf,
}

impl WebServer {
    /// Starts nginx on `host` and waits until it accepts connections.
    pub(crate) fn start(place: &impl AsRef<Path>, host: &Host) -> Self {
        let name = host.role();
        let folder = place.as_ref().join(format!("nginx-{name}"));
        fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let file = folder.join("nginx.conf");
        let listen = PORTS.map(|port| {
            format!("listen {port} backlog=4096; listen [::]:{port} backlog=4096 ipv6only=on;")
        });
        let config = format!(
            "daemon off; master_process off; user root; pid {folder}/pid; error_log {folder}/error.log warn;
             events {{ worker_connections 8192; }}
             http {{
               log_format who '$remote_addr $server_addr';
               access_log {folder}/access.log who;
               keepalive_requests 1000000;
               server {{
                 {listen}
                 location / {{ default_type text/plain; return 200 \"{name} $remote_addr\\n\"; }}
                 location /port {{ default_type text/plain; return 200 \"{name} $server_port\\n\"; }}
                 location /file {{ root {folder}; }}
               }}
             }}",
            folder = folder.display(),
            listen = listen.join(" "),
        );
        fs::write(&file, config).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let mut command = host.command("nginx");
        command.arg("-p").arg(&folder).arg("-c").arg(&file);
        command.arg("-e").arg(folder.join("error.log"));
        let process = Process::spawn(&format!("nginx on {name}"), &mut command, &{
            folder.join("output.log")
        });
        let server = Self { process, folder };
        for port in PORTS {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            wait_until(
                &format!("nginx on {name} listens on {port}"),
                secs(5),
                || host.inside(|| TcpStream::connect_timeout(&address, secs(1)).is_ok()),
            );
        }
        server
    }

    /// Starts nginx on every real server.
    pub(crate) fn start_all(lan: &Lan) -> Vec<Self> {
        let hosts = lan.reals.iter();
        hosts.map(|host| Self::start(lan, host)).collect()
    }

    /// Makes this the content of `/file`.
    pub(crate) fn offer(&self, content: &[u8]) {
        let file = self.folder.join("file");
        fs::write(&file, content).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }

    /// Kills nginx: its sockets close, so that connection attempts are refused.
    pub(crate) fn kill(mut self) {
        self.process.kill();
    }

    /// The client addresses of all requests so far, in the order of their ends.
    pub(crate) fn clients(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.join("access.log"));
        let log = log.unwrap_or_else(|e| panic!("access log of nginx: {e}"));
        log.lines()
            .filter_map(|line| line.split(' ').next().map(str::to_owned))
            .collect()
    }
}
