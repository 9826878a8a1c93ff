//! What keepalived lets pass and its users regret: notes and warnings that change nothing.

use std::collections::HashSet;

use super::{
    defaults,
    diagnostic::{Draft, Drafts},
    model::{SyncGroup, Trackers, VrrpInstance, VrrpScript},
    source::{Span, quoted},
    tracking::Named,
};

/// Scripts that nobody watches never run.
pub(super) fn unused(
    scripts: &[Named<VrrpScript>],
    instances: &[(Span, VrrpInstance)],
    groups: &[SyncGroup],
    drafts: &mut Drafts,
) {
    let own = instances.iter().map(|(_, instance)| &instance.trackers);
    let all = own.chain(groups.iter().map(|group| &group.trackers));
    let used: HashSet<&str> = all
        .flat_map(|trackers| &trackers.scripts)
        .map(|tracked| tracked.name.as_str())
        .collect();
    for script in scripts {
        let name = script.value.name.as_str();
        if !used.contains(name) {
            let message = format!(
                "no instance tracks vrrp_script {}: it never runs",
                quoted(name)
            );
            let hint = format!("track_script {{ {name} }} in a vrrp_instance");
            drafts.push(Draft::warning(script.span, message).hint(hint));
        }
    }
}

/// What weights can do to an instance's priority.
#[derive(Debug, Default)]
struct Weights {
    /// How far it can fall when everything fails.
    fall: u32,
    /// Whether there are weights at all.
    some: bool,
}

impl Weights {
    fn of(instance: &VrrpInstance) -> Self {
        let Trackers {
            scripts,
            files: _,
            processes,
            bfds,
        } = &instance.trackers;
        let tracked = scripts.iter().chain(processes).chain(bfds);
        let weights = tracked.map(|tracked| tracked.weight);
        let interfaces = instance.track_interface.iter();
        let all = weights.chain(interfaces.map(|entry| entry.weight.into()));
        let mut found = Self::default();
        for weight in all.filter(|weight| *weight != 0) {
            found.some = true;
            // What is added while all is well is missed when it fails.
            found.fall = found.fall.saturating_add(weight.unsigned_abs());
        }
        found
    }
}

/// Weights that change nothing, and choices of which one excludes the other.
pub(super) fn weights(instances: &[(Span, VrrpInstance)], drafts: &mut Drafts) {
    for (span, instance) in instances {
        let name = quoted(&instance.name);
        let weights = Weights::of(instance);
        if weights.some && !instance.preempt {
            let message =
                format!("vrrp_instance {name}: weights cannot make another node take over");
            let hint = "with nopreempt there a node of higher priority leaves a lower MASTER alone; \
                        a weight of 0 means FAULT";
            drafts.push(Draft::warning(*span, message).hint(hint));
        } else if weights.some && weights.fall < usual_gap(instance) {
            let message = format!(
                "vrrp_instance {name}: all weights together change the priority by {} only",
                weights.fall
            );
            let hint = "less than the gap to the other node's priority changes nothing; a weight of 0 means FAULT";
            drafts.push(Draft::note(*span, message).hint(hint));
        }
    }
}

/// How far the priorities of two nodes usually are apart: a backup has the default, or ten less.
fn usual_gap(instance: &VrrpInstance) -> u32 {
    match instance.priority.checked_sub(defaults::PRIORITY) {
        None | Some(0) => 2,
        Some(above) => above.into(),
    }
}
