//! Scripts: which file a command means, whom it runs as, whether it may run at all, and running one to its end.
//!
//! What is wrong with a script never keeps the daemon from starting: it does not run, and that is said. The rules are
//! keepalived's (`enable_script_security` and its neighbours), so that a script which runs there runs here.

mod occasion;
mod place;

use std::env;

pub(super) use self::occasion::{Stops, remarks, shutdown, startup};
use self::place::Place;
use crate::{
    config::{self, command_words},
    sys::{
        script::{Identity, Script},
        users,
    },
};

/// Who runs scripts where nobody is named and there is such a user (keepalived.conf(5), `script_user`).
const USUAL_USER: &str = "keepalived_script";
/// Where programs are looked for when the environment does not say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What holds for all scripts of a configuration.
#[derive(Debug)]
pub(super) struct Rules {
    /// No script runs as root that others can change.
    security: bool,
    /// Scripts get all groups of their user.
    supplementary: bool,
    /// Links in a path are followed when it is run, not before.
    keep_links: bool,
    /// Where programs without a folder are looked for.
    path: String,
    /// Whose privileges the daemon has.
    daemon: Identity,
    /// Whom scripts run as that name nobody, or why none can: `None` is the daemon's own user.
    usual: Result<Option<Identity>, String>,
}

/// A command of the configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Command<'a> {
    /// The program and its arguments, as written.
    pub(super) text: &'a str,
    /// Whom it is to run as.
    pub(super) user: Option<&'a str>,
    /// With which group.
    pub(super) group: Option<&'a str>,
}

impl<'a> From<&'a config::Script> for Command<'a> {
    fn from(script: &'a config::Script) -> Self {
        Self {
            text: &script.command,
            user: script.user.as_deref(),
            group: script.group.as_deref(),
        }
    }
}

impl<'a> From<&'a config::NotifyScript> for Command<'a> {
    fn from(script: &'a config::NotifyScript) -> Self {
        Self {
            text: &script.command,
            user: script.user.as_deref(),
            group: script.group.as_deref(),
        }
    }
}

impl Rules {
    /// The rules of `scripts` for a daemon with these privileges.
    pub(super) fn new(scripts: &config::Scripts, daemon: Identity) -> Self {
        let mut rules = Self {
            security: scripts.enable_script_security,
            supplementary: scripts.set_supplementary_groups,
            keep_links: scripts.use_symlink_paths,
            path: env::var("PATH").unwrap_or_else(|_| PATH.to_owned()),
            daemon,
            usual: Ok(None),
        };
        rules.usual = match &scripts.script_user {
            Some(owner) => rules
                .identity(&owner.user, owner.group.as_deref())
                .map(Some)
                .map_err(|why| format!("script_user: {why}")),
            None => match users::user(USUAL_USER) {
                Ok(Some(_)) => rules.identity(USUAL_USER, None).map(Some),
                // As keepalived does.
                Ok(None) if rules.security => Err(format!(
                    "enable_script_security asks for a script_user, and there is no user {USUAL_USER}"
                )),
                Ok(None) => Ok(None),
                Err(error) => Err(format!("user {USUAL_USER}: {error}")),
            },
        };
        rules
    }

    /// Why scripts that name nobody cannot run, if they cannot.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.usual.as_ref().err().map(String::as_str)
    }

    /// What to run for a command. What is odd about it goes to `odd`, a sentence each.
    ///
    /// # Errors
    /// Why it cannot or must not run.
    pub(super) fn find(
        &self,
        command: Command<'_>,
        odd: &mut Vec<String>,
    ) -> Result<Script, String> {
        let words = command_words(command.text).ok_or("a quote is not closed")?;
        let Some((program, arguments)) = words.split_first() else {
            return Err("there is no program in it".to_owned());
        };
        let identity = match (command.user, command.group) {
            (Some(user), group) => Some(self.identity(user, group)?),
            (None, _) => self.usual.clone()?,
        };
        let whom = identity.as_ref().unwrap_or(&self.daemon);
        let place = Place::find(program, &self.path, whom)?;
        if !program.contains('/') {
            let found = place.real().display();
            odd.push(format!(
                "{program} is looked for, and {found} found: write the whole path"
            ));
        }
        if whom.uid == 0
            && let Some(weak) = place.weakest(self.keep_links)
        {
            let weak = format!("others than root can change {}", weak.display());
            if self.security {
                return Err(format!("{weak}: not as root (enable_script_security)"));
            }
            odd.push(format!(
                "{weak}, and it runs as root: set a script_user, and enable_script_security"
            ));
        }
        Ok(Script {
            program: place.program(self.keep_links).to_owned(),
            arguments: arguments.iter().map(Into::into).collect(),
            identity,
        })
    }

    fn identity(&self, user: &str, group: Option<&str>) -> Result<Identity, String> {
        let known = users::user(user).map_err(|error| format!("user {user}: {error}"))?;
        let known = known.ok_or_else(|| format!("user {user} does not exist"))?;
        let gid = match group {
            Some(group) => users::group(group)
                .map_err(|error| format!("group {group}: {error}"))?
                .ok_or_else(|| format!("group {group} does not exist"))?,
            None => known.gid,
        };
        let groups = if self.supplementary {
            users::groups_of(user, gid).map_err(|error| format!("groups of {user}: {error}"))?
        } else {
            Vec::new()
        };
        Ok(Identity {
            uid: known.uid,
            gid,
            groups,
        })
    }
}

#[cfg(test)]
mod tests;
