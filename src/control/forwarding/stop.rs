//! The end of forwarding: what becomes of the workers' frames, of connections, and of the program.

use super::{Forwarding, View};
use crate::{
    control::log::Level,
    dataplane::io::FrameAccount,
    stats::{AllStats, WorkerStats},
};

impl Forwarding {
    /// Stops the workers and detaches the program: the host sees all packets again. What there is to say. If it `keeps`
    /// the program, that goes on with established connections.
    ///
    /// # Errors
    /// What went wrong.
    pub(in crate::control) fn stop(
        &mut self,
        keeps: bool,
        view: &mut View<'_>,
    ) -> Result<(), String> {
        if let Some(opened) = self
            .opening
            .take()
            .and_then(|opening| opening.answer.recv().ok())
        {
            self.data_plane = opened.ok();
        }
        let outcome = self.stop_workers(keeps, view);
        if let Some(error) = self.local_way.stop(view.netlink) {
            view.say(Level::Error, error);
        }
        outcome
    }

    fn stop_workers(&mut self, keeps: bool, view: &mut View<'_>) -> Result<(), String> {
        let Some(mut data_plane) = self.data_plane.take() else {
            return Ok(());
        };
        let outcome = match data_plane.stop() {
            Ok(account) => {
                let (line, kept) = verdict(data_plane.stats(), account);
                let level = if kept { Level::Info } else { Level::Error };
                view.say(level, line);
                if kept {
                    Ok(())
                } else {
                    Err("frames were lost".to_owned())
                }
            }
            Err(error) => Err(error),
        };
        data_plane.keep(self.services.all());
        if keeps && data_plane.fast().is_some() {
            view.say(
                Level::Notice,
                "established connections go on without a daemon; new ones wait for the next start",
            );
            return outcome;
        }
        if keeps {
            view.say(
                Level::Warning,
                "--dont-release-ipvs: without a fast path nothing is forwarded without a daemon",
            );
        }
        match data_plane.leave() {
            Ok(false) => {}
            Ok(true) => view.say(Level::Info, "connections are left for the next start"),
            Err(error) => view.say(
                Level::Warning,
                format_args!("no connections are left for the next start: {error}"),
            ),
        }
        if let Err(error) = data_plane.detach() {
            view.say(
                Level::Error,
                format_args!("detaching the steering program: {error}"),
            );
        }
        outcome
    }
}

/// Whether all frames are accounted for, and a line that says so.
fn verdict(stats: AllStats<'_>, account: FrameAccount) -> (String, bool) {
    let (received, cut, sent, dropped) = (
        stats.sum(|worker| worker.frames_in.get()),
        stats.sum(|worker| worker.cut.get()),
        stats.sum(|worker| worker.frames_out.get()),
        stats.sum(WorkerStats::dropped),
    );
    let kept = account.is_settled() && received + cut == sent + dropped;
    let verdict = if kept {
        "frames conserved"
    } else {
        "FRAMES LOST"
    };
    let line = format!(
        "{verdict}: {received} received + {cut} cut off = {sent} sent + {dropped} dropped; {} in all = {} in the \
         kernel ({} in rings) + {} free + {} in hand",
        account.whole,
        account.in_kernel,
        account.in_rings,
        account.free + account.spare,
        account.in_hand
    );
    (line, kept)
}
