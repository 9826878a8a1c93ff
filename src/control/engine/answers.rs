//! What the control socket is answered.

use std::{rc::Rc, time::SystemTime};

use mio::Registry;

use super::{
    super::{
        admin::{AdminSocket, Answer, Ticket},
        api::{
            ConnectionList, FrameCounts, Lateness, NamedCount, Request, Response, ServiceList,
            StageTiming, TableCounts, TimeBucket, VrrpStatus, WorkerCounts,
        },
    },
    Engine,
};
use crate::{
    stats::{AllStats, DropReason, ReplyReason, Stage, TIME_BUCKETS, WorkerStats},
    sys::clock,
    time::Instant,
};

impl Engine {
    pub(super) fn admin_timeout(&self) -> Option<Instant> {
        self.admin.as_ref().and_then(AdminSocket::poll_timeout)
    }

    /// Calls `turn` with the admin socket and what answers its clients: the rest of the engine.
    pub(super) fn with_admin(
        &mut self,
        turn: impl FnOnce(&mut AdminSocket, &Registry, &mut Answer<'_>),
    ) {
        let Some(mut admin) = self.admin.take() else {
            return;
        };
        let registry = Rc::clone(&self.admin_registry);
        turn(&mut admin, &registry, &mut |ticket, request| {
            self.answer(ticket, request)
        });
        while let Some(line) = admin.poll_line() {
            self.say_line(&line);
        }
        self.admin = Some(admin);
    }

    /// Sees to what others may have removed, and says what could not be said.
    pub(super) fn keep_files(&mut self, now: Instant, wall: SystemTime) {
        self.log.keep(now, wall);
        if let Some(line) = self.lock_file.keep(now) {
            self.say_line(&line);
        }
        self.with_admin(|admin, registry, _| admin.keep(now, registry));
    }

    /// Gives the answers that are known by now.
    pub(super) fn drive_enquiries(&mut self, now: Instant) {
        let (Some(admin), Some(data_plane)) = (&mut self.admin, self.forwarding.data_plane_mut())
        else {
            return;
        };
        let (workers, _) = data_plane.enquiries();
        while let Some((ticket, answer)) = self.enquiries.poll(now, workers) {
            admin.finish(ticket, answer);
        }
    }

    fn answer(&mut self, ticket: Ticket, request: Request) -> Option<Response> {
        Some(match request {
            Request::Connections(query) => {
                let Some(data_plane) = self.forwarding.data_plane_mut() else {
                    return Some(Response::Connections(ConnectionList::default()));
                };
                let workers = data_plane.enquiries();
                let begun = (self.enquiries).begin(clock::now(), ticket, &query, workers);
                data_plane.wake();
                return begun.err().map(Response::Error);
            }
            Request::Vrrp => Response::Vrrp(VrrpStatus {
                instances: self.vrrp.status(clock::now(), clock::wall()),
                timer_lateness: Lateness {
                    count: self.lateness.len(),
                    p50_us: self.lateness.value_at_quantile(0.5),
                    p99_us: self.lateness.value_at_quantile(0.99),
                    max_us: self.lateness.max(),
                },
            }),
            Request::List => Response::List(Box::new(self.list())),
            Request::Reload => {
                self.begin_reload(Some(ticket));
                return None;
            }
        })
    }

    pub(super) fn list(&self) -> ServiceList {
        let Some(data_plane) = self.forwarding.data_plane() else {
            return ServiceList::default();
        };
        let stats = data_plane.stats();
        let replies = ReplyReason::ALL.iter().map(|reason| NamedCount {
            name: reason.name().to_owned(),
            count: stats.sum(|worker| worker.replies(*reason).get()),
        });
        let replies: Vec<NamedCount> = replies.filter(|reply| reply.count > 0).collect();
        let replied = replies.iter().map(|reply| reply.count).sum();
        let drops = DropReason::ALL.iter().map(|reason| NamedCount {
            name: reason.name().to_owned(),
            count: stats.sum(|worker| worker.drops(*reason).get()),
        });
        ServiceList {
            io: data_plane.report(),
            connection_table_size: data_plane.connections() as u64,
            table: TableCounts {
                connections: stats.sum(|worker| worker.connections.get()),
                templates: stats.sum(|worker| worker.templates.get()),
                evicted: stats.sum(|worker| worker.evicted.get()),
                unstored: stats.sum(|worker| worker.unstored.get()),
            },
            steering: data_plane.steering_counts(),
            steering_refused: self.forwarding.refused().to_vec(),
            frames: FrameCounts {
                received: stats.sum(|worker| worker.frames_in.get()),
                forwarded: stats
                    .sum(|worker| worker.frames_out.get())
                    .saturating_sub(replied),
                replied,
                dropped: stats.sum(WorkerStats::dropped),
            },
            drops: drops.filter(|drop| drop.count > 0).collect(),
            replies,
            io_drops: data_plane.io_drops(),
            workers: stats
                .workers()
                .iter()
                .map(|worker| counts(worker))
                .collect(),
            timing: Stage::ALL
                .iter()
                .map(|stage| timing(stats, *stage))
                .collect(),
            services: self.forwarding.status(self.checks.health(), data_plane),
        }
    }
}

fn counts(worker: &WorkerStats) -> WorkerCounts {
    WorkerCounts {
        received: worker.frames_in.get(),
        sent: worker.frames_out.get(),
        dropped: worker.dropped(),
        handed_over: worker.handed_over.get(),
        taken_over: worker.taken_over.get(),
        connections: worker.connections.get(),
    }
}

fn timing(stats: AllStats<'_>, stage: Stage) -> StageTiming {
    let bucket = |n: usize| TimeBucket {
        below_ns: (n + 1 < TIME_BUCKETS).then_some(1 << n),
        bursts: stats.sum(|worker| worker.times.buckets(stage)[n]),
    };
    let all = (0..TIME_BUCKETS).map(bucket);
    StageTiming {
        stage: stage.name().to_owned(),
        buckets: all.filter(|bucket| bucket.bursts > 0).collect(),
    }
}
