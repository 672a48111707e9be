//! What the REST API is about: this instance and its ports.

use std::cell::RefCell;
use std::fmt;

use api::server::BackendError;
use api::{Info, PortId, PortSpec, PortStatus, Stats};

use crate::port::Driver;

/// Asks a network driver that counts. It runs on the thread of the API, so it must answer or give up soon.
pub(crate) type Count = Box<dyn FnMut() -> anyhow::Result<Stats>>;

/// The state behind the API. One thread uses it.
pub(crate) struct Backend {
    info: Info,
    ports: RefCell<Option<Box<dyn Driver>>>,
    count: RefCell<Option<Count>>,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { info, ports, count } = self;
        let counts = count.try_borrow().is_ok_and(|count| count.is_some());
        let mut fields = f.debug_struct("Backend");
        fields.field("info", info).field("ports", ports).field("counts", &counts).finish()
    }
}

impl Backend {
    pub(crate) fn new(mut info: Info, ports: Option<Box<dyn Driver>>) -> Self {
        info.port_driver = ports.as_ref().map(|driver| driver.info());
        Self { info, ports: RefCell::new(ports), count: RefCell::new(None) }
    }

    /// Where the statistics come from. Without it the network driver has none.
    pub(crate) fn count_with(&self, count: Count) {
        self.count.replace(Some(count));
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

    fn stats(&self) -> Result<Stats, BackendError> {
        let Some(count) = &mut *self.count.borrow_mut() else {
            let driver = self.info.network_driver.as_ref().map(|network| network.driver.clone());
            return Err(BackendError::NoStatistics(driver.unwrap_or_default()));
        };
        count().map_err(|e| BackendError::Failed(crate::exit::describe(&e)))
    }
}

#[cfg(test)]
mod tests {
    use api::NetworkDriverInfo;
    use api::server::Backend as _;

    use super::*;

    #[test]
    fn statistics_come_from_the_driver_if_it_counts() {
        let driver = "pasta".to_owned();
        let network_driver = Some(NetworkDriverInfo { driver, ..NetworkDriverInfo::default() });
        let backend = Backend::new(Info { network_driver, ..Info::default() }, None);
        assert_eq!(backend.stats(), Err(BackendError::NoStatistics("pasta".into())));
        let mut looks = 0;
        backend.count_with(Box::new(move || {
            looks += 1;
            anyhow::ensure!(looks < 2, "the gateway is gone");
            Ok(Stats { restarts: looks, ..Stats::default() })
        }));
        assert_eq!(backend.stats().map(|stats| stats.restarts), Ok(1));
        assert_eq!(backend.stats(), Err(BackendError::Failed("the gateway is gone".into())));
    }
}
