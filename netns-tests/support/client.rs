//! What clients do: `curl`, `wrk`, and plain connections.

use std::{
    collections::BTreeMap,
    io,
    io::{Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use socket2::{Domain, Socket, Type};

use super::host::Host;

/// How many requests each real server answered, by its name.
pub(crate) type Shares = BTreeMap<String, usize>;

/// What `wrk` saw.
#[derive(Debug)]
pub(crate) struct Load {
    /// Complete answers.
    pub(crate) requests: usize,
    /// Socket errors, timeouts and answers that are not 2xx or 3xx.
    pub(crate) failures: usize,
}

/// Makes `count` requests with `curl`, each on a connection of its own, `at_once` at a time, from
/// the address `source`. Gives the answers, sorted by nothing.
pub(crate) fn curl(
    host: &Host,
    source: impl Into<IpAddr>,
    target: SocketAddr,
    count: usize,
    at_once: usize,
) -> Vec<String> {
    let url = format!("http://{target}/?[1-{count}]");
    let source = source.into().to_string();
    let at_once = at_once.to_string();
    let mut arguments = vec![
        "--silent",
        "--show-error",
        "--fail",
        "--fail-early",
        "--max-time",
        "5",
    ];
    arguments.extend(["--interface", &source, "--header", "Connection: close"]);
    if count > 1 {
        arguments.extend(["--parallel", "--parallel-immediate"]);
        arguments.extend(["--parallel-max", &at_once]);
    }
    arguments.push(&url);
    let output = host.output("curl", &arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "curl: {}\n{errors}", output.status);
    let answers = String::from_utf8_lossy(&output.stdout);
    let answers: Vec<String> = answers.lines().map(str::to_owned).collect();
    assert_eq!(answers.len(), count, "curl made requests without an answer");
    answers
}

/// What `curl` gets from a URL, within eight seconds.
pub(crate) fn fetch(host: &Host, url: &str) -> Vec<u8> {
    let output = host.output(
        "curl",
        &["--silent", "--show-error", "--fail", "--max-time", "8", url],
    );
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{url}: {}\n{errors}",
        output.status
    );
    output.stdout
}

/// Sends all of `content` to a [`tcp_sink`], and gives the receipt.
///
/// [`tcp_sink`]: super::echo::Server::tcp_sink
pub(crate) fn upload(
    source: impl Into<IpAddr>,
    target: SocketAddr,
    content: &[u8],
) -> io::Result<String> {
    let mut stream = connect(source, target, Duration::from_secs(8))?;
    stream.write_all(content)?;
    stream.shutdown(Shutdown::Write)?;
    let mut receipt = String::new();
    stream.read_to_string(&mut receipt)?;
    Ok(receipt)
}

/// Keeps `connections` clients busy for `seconds` with `wrk`: a new connection for every request.
pub(crate) fn wrk(host: &Host, target: SocketAddr, connections: usize, seconds: u32) -> Load {
    let connections = format!("--connections={connections}");
    let duration = format!("--duration={seconds}s");
    let url = format!("http://{target}/");
    let arguments = [
        "--threads=1",
        &connections,
        &duration,
        "--timeout=2s",
        "--header=Connection: close",
        &url,
    ];
    let output = host.output("wrk", &arguments);
    assert!(output.status.success(), "wrk: {output:?}");
    read_wrk(&String::from_utf8_lossy(&output.stdout))
}

/// Reads the report of `wrk`.
pub(crate) fn read_wrk(report: &str) -> Load {
    let number = |word: &str| word.trim_end_matches(',').parse::<usize>().ok();
    let mut load = Load {
        requests: 0,
        failures: 0,
    };
    for line in report.lines().map(str::trim) {
        if line.contains(" requests in ") {
            load.requests = line.split(' ').next().and_then(number).unwrap_or(0);
        } else if line.starts_with("Socket errors:") {
            load.failures += line.split(' ').filter_map(number).sum::<usize>();
        } else if let Some(rest) = line.strip_prefix("Non-2xx or 3xx responses:") {
            load.failures += number(rest.trim()).unwrap_or(1);
        }
    }
    assert!(load.requests > 0, "wrk reports no requests:\n{report}");
    load
}

/// Counts answers by the real server that gave them.
pub(crate) fn shares(answers: &[String]) -> Shares {
    let mut shares = Shares::new();
    for answer in answers {
        *shares.entry(server_of(answer).to_owned()).or_default() += 1;
    }
    shares
}

/// Shares must be as the weights say, within three hundredths of all requests: a client's port
/// that comes round again belongs to the connection that is remembered, not to the scheduler.
pub(crate) fn assert_shares(shares: &Shares, requests: usize, weights: &[usize]) {
    let total: usize = weights.iter().sum();
    for (number, weight) in weights.iter().enumerate() {
        let name = format!("real{}", number + 1);
        let got = shares.get(&name).copied().unwrap_or(0);
        let due = requests * weight / total;
        assert!(
            got.abs_diff(due) <= requests * 3 / 100,
            "{name} has weight {weight} of {total} and answered {got} of {requests}: {shares:?}"
        );
    }
}

/// The name of the real server in its answer.
pub(crate) fn server_of(answer: &str) -> &str {
    answer.split(' ').next().unwrap_or(answer)
}

/// A TCP connection from `source` to `target`, on the machine of the calling thread. `timeout`
/// holds for connecting and for every read and write after it.
pub(crate) fn connect(
    source: impl Into<IpAddr>,
    target: SocketAddr,
    timeout: Duration,
) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source.into(), 0).into())?;
    socket.connect_timeout(&target.into(), timeout)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    Ok(stream)
}

/// One request that leaves the connection open, and the first line of the answer's body.
pub(crate) fn ask(stream: &mut TcpStream) -> io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: vip\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&answer);
        if let Some((_, body)) = text.split_once("\r\n\r\n")
            && let Some((line, _)) = body.split_once('\n')
        {
            return Ok(line.to_owned());
        }
    }
}

/// One request on a connection of its own.
pub(crate) fn get(
    source: impl Into<IpAddr>,
    target: SocketAddr,
    timeout: Duration,
) -> io::Result<String> {
    ask(&mut connect(source, target, timeout)?)
}

/// As [`get`], but leaves by a reset: the balancer then forgets the connection in ten seconds
/// (`CLOSE`), not in two minutes.
pub(crate) fn get_and_reset(source: impl Into<IpAddr>, target: SocketAddr) -> io::Result<String> {
    let mut stream = connect(source, target, Duration::from_secs(2))?;
    let answer = ask(&mut stream)?;
    Socket::from(stream).set_linger(Some(Duration::ZERO))?;
    Ok(answer)
}
