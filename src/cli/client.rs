//! The client side of the control socket.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use crate::control::api::{Request, Response};

/// How long the daemon may take to answer before the client gives up, and to read a configuration: a large one
/// on a slow disk.
const PATIENCE: Duration = Duration::from_secs(5);
const RELOAD_PATIENCE: Duration = Duration::from_secs(60);

/// Asks the daemon behind `socket`.
///
/// # Errors
/// A sentence for the user: nobody listens, no permission, or an answer that is none.
pub(super) fn ask(socket: &Path, request: Request) -> Result<Response, String> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            format!(
                "no xvs listens on {} ({error}); is it running?",
                socket.display()
            )
        }
        _ => format!("{}: {error}", socket.display()),
    };
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    let patience = match request {
        Request::Reload => RELOAD_PATIENCE,
        _ => PATIENCE,
    };
    stream.set_read_timeout(Some(patience)).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    let mut line = serde_json::to_string(&request).map_err(|error| error.to_string())?;
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    BufReader::new(stream)
        .read_line(&mut answer)
        .map_err(failed)?;
    serde_json::from_str(&answer)
        .map_err(|error| format!("{}: the answer makes no sense: {error}", socket.display()))
}
