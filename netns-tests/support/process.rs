//! A program that runs during a test, with its log.

use std::{
    fs,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    host::{run, tool},
    wait_for, wait_until,
};

/// Lines of a log that are shown when a test fails.
const TAIL: usize = 60;

/// A running program. Killed when dropped; its log is shown if that is because a test failed.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Where this run begins in the log file.
    begin: usize,
}

impl Process {
    /// Starts `command`; all that it prints goes to the file `log`, after what is there.
    pub(crate) fn spawn(name: &str, command: &mut Command, log: &Path) -> Self {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .unwrap_or_else(|e| panic!("{}: {e}", log.display()));
        let begin = file.metadata().map_or(0, |data| data.len());
        let second = file.try_clone().expect("a file handle can be copied");
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(second)
            .spawn()
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
            begin: usize::try_from(begin).expect("a log fits in memory"),
        }
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks the program to stop, as `systemctl stop` does.
    pub(crate) fn terminate(&self) {
        send(self.id(), Signal::TERM);
    }

    /// Has the program read its configuration anew, as `systemctl reload` does.
    pub(crate) fn hang_up(&self) {
        send(self.id(), Signal::HUP);
    }

    /// Asks keepalived to write its counters to a file.
    pub(crate) fn ask_for_statistics(&self) {
        send(self.id(), Signal::USR2);
    }

    /// Keeps the program from running, as a machine without a free processor does, until
    /// [`Self::resume`].
    pub(crate) fn pause(&self) {
        send(self.id(), Signal::STOP);
    }

    /// Ends [`Self::pause`].
    pub(crate) fn resume(&self) {
        send(self.id(), Signal::CONT);
    }

    /// Kills the program, as the kernel's out-of-memory killer does, and waits for its end.
    pub(crate) fn kill(&mut self) {
        kill_now(self.id());
        self.wait(Duration::from_secs(5));
    }

    /// Waits for the program's end.
    pub(crate) fn wait(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        wait_for(&what, limit, || {
            self.child.try_wait().expect("a child can be waited for")
        })
        .0
    }

    /// Whether the program has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// All that the program has printed in this run.
    pub(crate) fn log(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(text.get(self.begin..).unwrap_or_default()).into_owned()
    }

    /// The end of the log as it is now: a place for [`Self::wait_for_line`] to start at.
    pub(crate) fn mark(&self) -> usize {
        self.log().len()
    }

    /// Waits until `text` is in the log behind `mark`.
    pub(crate) fn wait_for_line(&self, mark: usize, text: &str, limit: Duration) -> Duration {
        let what = format!("{} prints {text:?}", self.name);
        wait_until(&what, limit, || self.log()[mark..].contains(text))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        kill_now(self.id());
        let _ = self.child.wait();
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
            eprintln!("--- {} said:\n{tail}\n---", self.name);
        }
    }
}

fn send(process: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) {
        // It may be gone already, which is what a signal would bring about.
        let _ = kill_process(pid, signal);
    }
}

/// Whether a process has ended, reaped by its parent or not yet.
pub(crate) fn has_ended(process: u32) -> bool {
    // The state follows the name, which is in brackets and may contain anything.
    let status = fs::read_to_string(format!("/proc/{process}/stat"));
    status.map_or(true, |status| {
        let state = status.rsplit(") ").next();
        state.is_some_and(|state| state.starts_with('Z'))
    })
}

/// A signal by its number, the real-time ones of the C library too, to one process.
pub(crate) fn signal(process: u32, number: i32) {
    // The crate knows no real-time signals.
    let arguments = [format!("kill -{number} {process}")];
    run(tool("sh").arg("-c").args(arguments));
}

/// SIGKILL to one process.
pub(crate) fn kill_now(process: u32) {
    send(process, Signal::KILL);
}
