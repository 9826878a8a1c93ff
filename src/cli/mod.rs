//! The command line: `xvs run`, `check`, `list`, `vrrp`, `reload`, `cleanup`, and that of keepalived.
//!
//! Exit status: 0 done (warnings allowed), 1 the configuration would not start or the work failed, 2 the
//! command line is wrong or a file cannot be read; see `xvs run --help` for that of the daemon.

mod arguments;
mod ask;
mod check;
mod clean_up;
mod client;
mod conns;
mod keepalived;
mod list;
mod run;
mod timing;
mod vrrp;

use std::{ffi::OsString, io::Write, path::Path, process::ExitCode};

use clap::Parser;

use self::arguments::{Arguments, Command};

/// The configuration would not start, or the work failed.
const FAILED: u8 = 1;
/// The command line is wrong, or a file cannot be read.
const USAGE: u8 = 2;

/// Runs the command that the arguments name; all that a program called `keepalived` is asked is to run.
pub fn main() -> ExitCode {
    if is_keepalived(std::env::args_os().next()) {
        return keepalived::main();
    }
    // clap prints its own messages and exits with 2 on a wrong command line.
    let Arguments { command, socket } = Arguments::parse();
    match command {
        Command::Run(options) => run::run(&options, &socket, run::Name::Xvs),
        Command::Check(options) => check::check(&options),
        Command::List(list) => ask::show_list(&list, &socket),
        Command::Vrrp(query) => ask::show_vrrp(&query, &socket),
        Command::Reload(query) => ask::reload(&query, &socket),
        Command::Cleanup(config) => clean_up::clean_up(&config, &socket),
    }
}

/// Whether this program was called by keepalived's name.
fn is_keepalived(called: Option<OsString>) -> bool {
    let called = called.unwrap_or_default();
    Path::new(&called)
        .file_name()
        .is_some_and(|name| name == "keepalived")
}

fn print_json(value: &impl serde::Serialize) -> ExitCode {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(&(text + "\n")),
        Err(error) => fail(FAILED, &error.to_string()),
    }
}

/// Prints to standard output. A reader that has gone away (`| head`) is no failure.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            fail(FAILED, &error.to_string())
        }
        _ => ExitCode::SUCCESS,
    }
}

fn fail(status: u8, message: &str) -> ExitCode {
    tell(&format!("xvs: {message}\n"));
    ExitCode::from(status)
}

/// Writes to standard error. Where nobody listens there is nobody to tell.
fn tell(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keepalived_is_told_by_its_name_in_any_folder() {
        for (called, it_is) in [
            ("keepalived", true),
            ("/usr/sbin/keepalived", true),
            ("xvs", false),
            ("/opt/keepalived/xvs", false),
            ("keepalived2", false),
            ("", false),
        ] {
            assert_eq!(is_keepalived(Some(called.into())), it_is, "{called}");
        }
        assert!(!is_keepalived(None));
    }
}
