//! What the control socket is answered.

use mio::Registry;

use super::{
    super::{
        admin::AdminSocket,
        api::{FrameCounts, Lateness, NamedCount, Request, Response, ServiceList, VrrpStatus},
    },
    Engine,
};
use crate::{
    stats::{DropReason, ReplyReason, WorkerStats},
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
        turn: impl FnOnce(&mut AdminSocket, &Registry, &mut dyn FnMut(Request) -> Response),
    ) {
        let Some(mut admin) = self.admin.take() else {
            return;
        };
        turn(&mut admin, self.poll.registry(), &mut |request| {
            self.answer(request)
        });
        self.admin = Some(admin);
    }

    fn answer(&self, request: Request) -> Response {
        match request {
            Request::Vrrp => Response::Vrrp(VrrpStatus {
                instances: self.vrrp.status(clock::now(), clock::wall()),
                timer_lateness: Lateness {
                    count: self.lateness.len(),
                    p50_us: self.lateness.value_at_quantile(0.5),
                    p99_us: self.lateness.value_at_quantile(0.99),
                    max_us: self.lateness.max(),
                },
            }),
            Request::List => Response::List(self.list()),
        }
    }

    fn list(&self) -> ServiceList {
        let Some(data_plane) = &self.data_plane else {
            return ServiceList::default();
        };
        let stats = data_plane.stats();
        let replied = ReplyReason::ALL
            .iter()
            .map(|reason| stats.sum(|worker| worker.replies(*reason).get()))
            .sum();
        let drops = DropReason::ALL.iter().map(|reason| NamedCount {
            name: reason.name().to_owned(),
            count: stats.sum(|worker| worker.drops(*reason).get()),
        });
        ServiceList {
            io: data_plane.report().to_vec(),
            connection_table_size: data_plane.connections() as u64,
            steering: data_plane.steering_counts(),
            frames: FrameCounts {
                received: stats.sum(|worker| worker.frames_in.get()),
                forwarded: stats
                    .sum(|worker| worker.frames_out.get())
                    .saturating_sub(replied),
                replied,
                dropped: stats.sum(WorkerStats::dropped),
            },
            drops: drops.filter(|drop| drop.count > 0).collect(),
            io_drops: data_plane.io_drops(),
            services: self
                .services
                .status(&self.health, &self.hops, &self.ports, stats),
        }
    }
}
