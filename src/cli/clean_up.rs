//! `xvs cleanup`.

use std::{path::Path, process::ExitCode};

use super::{FAILED, USAGE, arguments::ConfigFile, fail, print, tell};
use crate::{
    config::Config,
    control::{cleanup, identity::Identity, load::Source},
};

/// Removes what a crash has left, and says what.
pub(super) fn clean_up(config: &ConfigFile, socket: Option<&Path>) -> ExitCode {
    // A file that has been broken since does not keep the steering program on the interfaces.
    let config = read(&config.file);
    let usual = config.as_ref().map(|config| Identity::of(config).socket());
    let usual = usual.unwrap_or_else(|_| Identity::default().socket());
    let socket = socket.unwrap_or(&usual);
    let cleaned = match cleanup::cleanup(config.as_ref().ok(), socket) {
        Ok(cleaned) => cleaned,
        Err(message) => return fail(FAILED, &message),
    };
    for line in &cleaned.removed {
        print(&format!("{line}\n"));
    }
    for line in &cleaned.left {
        tell(&format!("xvs: left as it is: {line}\n"));
    }
    match config {
        Err(status) => {
            tell("xvs: virtual addresses were not looked for: see above\n");
            status
        }
        Ok(_) if !cleaned.left.is_empty() => ExitCode::from(FAILED),
        Ok(_) if cleaned.removed.is_empty() => print("nothing was left behind\n"),
        Ok(_) => ExitCode::SUCCESS,
    }
}

/// Reads a configuration and prints what there is to say about it. The status to exit with, if it must not be used.
fn read(file: &Path) -> Result<Config, ExitCode> {
    let parsed = match Source::of(file.to_owned()).read() {
        Ok(parsed) => parsed,
        Err(error) => return Err(fail(USAGE, &format!("{}: {error}", file.display()))),
    };
    tell(&parsed.report());
    if parsed.has_errors() {
        Err(ExitCode::from(FAILED))
    } else {
        Ok(parsed.config)
    }
}
