//! What a thread does that opens an interface.

use std::sync::Arc;

use super::{Attempt, Backend, OpenPort};
use crate::{
    addr::PortId,
    sys::{
        affinity,
        device::{InterfaceSpec, Properties},
        open_error::OpenError,
        steer::{PortProgram, Unloaded},
    },
};

/// What a thread that opens an interface begins with.
pub(super) struct Job<B: Backend> {
    pub(super) backend: Arc<B>,
    pub(super) spec: InterfaceSpec,
    pub(super) properties: Properties,
    pub(super) port: PortId,
    pub(super) program: Program,
    pub(super) no_zero_copy: Option<String>,
    pub(super) cpu: Option<usize>,
}

pub(super) enum Program {
    Loaded(PortProgram),
    Unloaded(Unloaded),
}

impl<B: Backend> Job<B> {
    /// Opens the interface, which may take a while.
    pub(super) fn run(self) -> Tried<B::Part> {
        if let Some(cpu) = self.cpu {
            // Elsewhere it works as well, if more slowly: the kernel takes memory for the frames from the node
            // of who asks for it first.
            let _ = affinity::pin_current_thread(cpu);
        }
        let mut tried = Tried {
            port: self.port,
            program: None,
            no_zero_copy: self.no_zero_copy,
            result: Err(OpenError::NoAfXdp),
        };
        let mut program = match self.program {
            Program::Loaded(program) => program,
            Program::Unloaded(unloaded) => match unloaded.load(&self.spec) {
                Ok(program) => program,
                Err(error) => {
                    tried.result = Err(error);
                    return tried;
                }
            },
        };
        let attempt = Attempt {
            spec: &self.spec,
            properties: &self.properties,
            port: self.port,
            program: &mut program,
            no_zero_copy: &mut tried.no_zero_copy,
        };
        // Before any socket: that somebody else's program is there must not make its interface restart queues.
        tried.result = match attempt.program.is_attached() {
            Ok(_) => self.backend.open(attempt),
            Err(error) => Err(error),
        };
        if tried.result.is_err() {
            drop(program.take_sockets());
            program.undo();
        }
        tried.program = Some(program);
        tried
    }
}

/// What came of it.
pub(super) struct Tried<P> {
    pub(super) port: PortId,
    pub(super) program: Option<PortProgram>,
    pub(super) no_zero_copy: Option<String>,
    pub(super) result: Result<OpenPort<P>, OpenError>,
}
