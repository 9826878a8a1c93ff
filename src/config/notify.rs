//! Scripts for changes of state, which instances and groups of them have alike.

use std::marker::PhantomData;

use super::{
    keyword::{Keyword, UNAPPLIED, lines},
    model::{NotifyEvent, NotifyScript},
    read::add_script,
};

/// What has scripts for its changes of state.
pub(super) trait Notifies {
    /// The scripts that were read so far.
    fn notify(&mut self) -> &mut Vec<NotifyScript>;
}

/// The keywords of its block that name them.
pub(super) struct NotifyRules<T>(PhantomData<T>);

impl<T: Notifies + 'static> NotifyRules<T> {
    pub(super) const STATES: &'static [Keyword<T>] = &[
        lines("notify", UNAPPLIED, "a script for every change of state")
            .script()
            .read(|d, s, x| add_script(d.notify(), NotifyEvent::Any, s, x)),
        lines(
            "notify_master",
            UNAPPLIED,
            "a script for the change to MASTER",
        )
        .script()
        .read(|d, s, x| add_script(d.notify(), NotifyEvent::Master, s, x)),
        lines(
            "notify_backup",
            UNAPPLIED,
            "a script for the change to BACKUP",
        )
        .script()
        .read(|d, s, x| add_script(d.notify(), NotifyEvent::Backup, s, x)),
        lines(
            "notify_fault",
            UNAPPLIED,
            "a script for the change to FAULT",
        )
        .script()
        .read(|d, s, x| add_script(d.notify(), NotifyEvent::Fault, s, x)),
        lines("notify_stop", UNAPPLIED, "a script for the stop")
            .script()
            .read(|d, s, x| add_script(d.notify(), NotifyEvent::Stop, s, x)),
    ];
}
