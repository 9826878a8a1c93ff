//! `vrrp_sync_group` and `track_group`: instances that belong together.

use std::collections::{HashMap, HashSet};

use super::{
    diagnostic::{Draft, Drafts},
    keyword::{Given, Keyword, REFUSED, Table, UNAPPLIED, WITH_BLOCK, block, line, plain_keywords},
    model::{NotifyScript, SyncGroup, TrackGroup},
    notify::{Notifies, NotifyRules},
    read::At,
    source::{Span, quoted},
    support::judge_missing,
    tracking::{self, TrackersDraft, Watchable, Weighing},
    tree::Stmt,
    unique::Unique,
    walk::walk,
};

/// A `vrrp_sync_group` block while it is read.
#[derive(Debug)]
pub(super) struct SyncGroupDraft {
    pub(super) name: String,
    span: Span,
    members: Unique<At<String>>,
    trackers: TrackersDraft,
    notify: Vec<NotifyScript>,
    smtp_alert: Option<bool>,
    notify_priority_changes: Option<bool>,
    tracking_weight: bool,
    global_tracking: bool,
}

pub(super) static TABLE: Table<SyncGroupDraft> = Table {
    block: "vrrp_sync_group",
    keywords: &[KEYWORDS, NotifyRules::<SyncGroupDraft>::STATES, PLAIN],
};

impl Notifies for SyncGroupDraft {
    fn notify(&mut self) -> &mut Vec<NotifyScript> {
        &mut self.notify
    }
}

plain_keywords! { static PLAIN: SyncGroupDraft [];
    "smtp_alert": UNAPPLIED, "mail about this group; default smtp_alert_vrrp or smtp_alert of global_defs", boolean() => smtp_alert;
    "notify_priority_changes": UNAPPLIED, "changes of priority are written to the pipes, too", boolean() => notify_priority_changes;
    "sync_group_tracking_weight": WITH_BLOCK, "weights of what members track count, though they may make members differ", flag() => tracking_weight;
    "global_tracking": WITH_BLOCK, "what one member tracks is tracked by all; of keepalived 1.x", flag() => global_tracking;
}

fn track(draft: &mut SyncGroupDraft, stmt: &Given<'_>, drafts: &mut Drafts) {
    tracking::track(&mut draft.trackers, stmt, drafts);
}

static KEYWORDS: &[Keyword<SyncGroupDraft>] = &[
    block("group", WITH_BLOCK, "names of instances")
        .only_here()
        .read(|draft, stmt, drafts| members(&mut draft.members, stmt, drafts)),
    block(
        "track_interface",
        WITH_BLOCK,
        "interfaces whose loss costs all members priority or means FAULT",
    )
    .read(|draft, stmt, drafts| {
        tracking::interfaces(&mut draft.trackers.interfaces, stmt, drafts);
    }),
    block(
        "track_script",
        WITH_BLOCK,
        "scripts whose results bear on all members",
    )
    .read(track),
    block(
        "track_file",
        WITH_BLOCK,
        "files whose numbers bear on all members",
    )
    .only_here()
    .read(track),
    block(
        "track_process",
        WITH_BLOCK,
        "processes whose absence bears on all members",
    )
    .only_here()
    .read(track),
    block(
        "track_bfd",
        WITH_BLOCK,
        "BFD sessions whose loss bears on all members",
    )
    .read(track),
];

/// The names of a list, which may stand on one line or on several.
fn members(list: &mut Unique<At<String>>, stmt: &Stmt, drafts: &mut Drafts) {
    stmt.no_more(0, drafts);
    for entry in stmt.body() {
        for word in std::iter::once(&entry.keyword).chain(&entry.args) {
            let (value, span) = (word.text.clone(), word.span);
            if !list.insert(&word.text, At { value, span }) {
                let message = format!("{} is given again; it counts once", quoted(&word.text));
                drafts.push(Draft::warning(span, message));
            }
        }
    }
}

impl SyncGroupDraft {
    /// Reads a `vrrp_sync_group` block.
    pub(super) fn read(stmt: &Stmt, drafts: &mut Drafts) -> Option<Self> {
        let name = stmt.text(drafts)?;
        let mut draft = Self {
            name,
            span: stmt.keyword.span,
            members: Unique::default(),
            trackers: TrackersDraft::default(),
            notify: Vec::new(),
            smtp_alert: None,
            notify_priority_changes: None,
            tracking_weight: false,
            global_tracking: false,
        };
        walk(&mut draft, stmt.body(), &TABLE, drafts);
        Some(draft)
    }

    /// Drops members that are not there or are another group's; `taken` are those that have a group.
    pub(super) fn claim(
        &mut self,
        instances: &HashSet<&str>,
        taken: &mut HashMap<String, bool>,
        drafts: &mut Drafts,
    ) {
        let weighing = self.tracking_weight;
        let group = quoted(&self.name);
        self.members.list.retain(|member| {
            let name = &member.value;
            let message = if !instances.contains(&name.as_str()) {
                format!(
                    "vrrp_sync_group {group}: there is no vrrp_instance {}; it is ignored",
                    quoted(name)
                )
            } else if taken.contains_key(name) {
                format!(
                    "vrrp_instance {} is in another vrrp_sync_group; it is ignored",
                    quoted(name)
                )
            } else {
                taken.insert(name.clone(), weighing);
                return true;
            };
            drafts.push(Draft::warning(member.span, message));
            false
        });
    }

    /// What the group comes to; nothing without a member. `alert` is what `global_defs` says about mail.
    pub(super) fn finish(
        self,
        watchable: &Watchable,
        alert: Option<bool>,
        drafts: &mut Drafts,
    ) -> Option<SyncGroup> {
        let name = quoted(&self.name);
        match self.members.list.as_slice() {
            [] => {
                let message = format!("vrrp_sync_group {name} has no members and is ignored");
                drafts.push(Draft::warning(self.span, message));
                return None;
            }
            // Alone, a member changes state as it would without its group.
            [_] => {
                let message = format!("vrrp_sync_group {name} has one member and no effect on it");
                drafts.push(Draft::warning(self.span, message));
            }
            _ => judge_missing(
                REFUSED,
                &format!("vrrp_sync_group {name}"),
                "its members change state together",
                self.span,
                drafts,
            ),
        }
        if self.global_tracking {
            let message = "`global_tracking` is old; let the group track what all members do";
            drafts.push(Draft::deprecated(self.span, message));
        }
        let mut trackers = self.trackers;
        let mut track_interface = Vec::new();
        for entry in std::mem::take(&mut trackers.interfaces) {
            let interface = entry.value.interface.clone();
            let missing = format!("{} bears on all its members", quoted(&interface));
            judge_missing(
                REFUSED,
                "`track_interface` of a group",
                &missing,
                entry.span,
                drafts,
            );
            track_interface.push(entry.value);
        }
        let whose = format!("vrrp_sync_group {name}");
        Some(SyncGroup {
            members: self
                .members
                .list
                .into_iter()
                .map(|member| member.value)
                .collect(),
            track_interface,
            trackers: trackers.finish(&whose, watchable, Weighing::Plain, drafts),
            name: self.name,
            notify: self.notify,
            smtp_alert: self.smtp_alert.or(alert),
            notify_priority_changes: self.notify_priority_changes,
            tracking_weight: self.tracking_weight,
            global_tracking: self.global_tracking,
        })
    }
}

/// A `track_group` block while it is read.
#[derive(Debug, Default)]
pub(super) struct TrackGroupDraft {
    members: Unique<At<String>>,
}

pub(super) static TRACK_GROUP: Table<TrackGroupDraft> = Table {
    block: "track_group",
    keywords: &[TRACK_GROUP_KEYWORDS],
};

static TRACK_GROUP_KEYWORDS: &[Keyword<TrackGroupDraft>] =
    &[block("group", WITH_BLOCK, "names of instances")
        .only_here()
        .read(|draft, stmt, drafts| members(&mut draft.members, stmt, drafts))];

/// Reads a `track_group` block.
pub(super) fn track_group(stmt: &Stmt, drafts: &mut Drafts) -> Option<At<TrackGroup>> {
    let name = stmt.text(drafts)?;
    let mut draft = TrackGroupDraft::default();
    walk(&mut draft, stmt.body(), &TRACK_GROUP, drafts);
    let members = draft.members.list.into_iter().map(|member| member.value);
    let value = TrackGroup {
        name,
        members: members.collect(),
    };
    let span = stmt.keyword.span;
    Some(At { value, span })
}
