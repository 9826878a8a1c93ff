//! What forwarding is lent for a turn: the time, the log, the kernel's answers.

use std::{fmt::Display, time::SystemTime};

use crate::{
    control::log::{Level, Log, Room},
    sys::netlink::Netlink,
    time::Instant,
};

/// Now, and where to say something.
pub(in crate::control) struct Voice<'a> {
    pub(in crate::control) now: Instant,
    pub(in crate::control) wall: SystemTime,
    pub(in crate::control) log: &'a mut Log,
}

impl Voice<'_> {
    #[track_caller]
    pub(super) fn say(&mut self, level: Level, text: impl Display) {
        let now = (self.now, self.wall);
        self.log.say(now, Room::Forwarding, level, text);
    }
}

/// What is needed to look something up, and to say so.
pub(in crate::control) struct View<'a> {
    pub(in crate::control) voice: Voice<'a>,
    pub(in crate::control) netlink: &'a mut Netlink,
}

impl View<'_> {
    #[track_caller]
    pub(super) fn say(&mut self, level: Level, text: impl Display) {
        self.voice.say(level, text);
    }
}
