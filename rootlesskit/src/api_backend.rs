//! What the REST API is about: this instance and its ports.

use std::cell::RefCell;

use api::server::BackendError;
use api::{Info, PortId, PortSpec, PortStatus};

use crate::port::Driver;

/// The state behind the API. One thread uses it.
#[derive(Debug)]
pub(crate) struct Backend {
    info: Info,
    ports: RefCell<Option<Box<dyn Driver>>>,
}

impl Backend {
    pub(crate) fn new(mut info: Info, ports: Option<Box<dyn Driver>>) -> Self {
        info.port_driver = ports.as_ref().map(|driver| driver.info());
        Self { info, ports: RefCell::new(ports) }
    }

    /// Closes all ports.
    pub(crate) fn stop(&self) {
        drop(self.ports.take());
    }

    /// Tells the port driver that the network helper was started anew.
    pub(crate) fn helper_restarted(&self) {
        if let Some(ports) = self.ports.borrow_mut().as_mut() {
            ports.helper_restarted();
        }
    }

    fn with<T>(
        &self,
        f: impl FnOnce(&mut dyn Driver) -> anyhow::Result<T>,
    ) -> Result<T, BackendError> {
        let mut ports = self.ports.borrow_mut();
        let ports = ports.as_mut().ok_or(BackendError::NoPortDriver)?;
        f(ports.as_mut()).map_err(|e| BackendError::Failed(crate::exit::describe(&e)))
    }
}

impl api::server::Backend for Backend {
    fn info(&self) -> Result<Info, BackendError> {
        Ok(self.info.clone())
    }

    fn ports(&self) -> Result<Vec<PortStatus>, BackendError> {
        self.with(|ports| Ok(ports.list()))
    }

    async fn add(&self, spec: PortSpec) -> Result<PortStatus, BackendError> {
        self.with(|ports| ports.add(spec))
    }

    async fn remove(&self, id: PortId) -> Result<(), BackendError> {
        self.with(|ports| ports.remove(id))
    }
}
