//! What the REST API is about: this instance and its ports.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use api::server::{BackendError, Lines};
use api::{Info, PortId, PortSpec, PortStatus, Stats};

use tokio::sync::oneshot;

use crate::drivers::{FlowLog, Statistics};
use crate::followers::Followers;
use crate::port::Worker;

/// How long a network driver may take to say what it has counted.
const STATISTICS_TIMEOUT: Duration = Duration::from_secs(5);

/// The state behind the API. One thread uses it.
pub(crate) struct Backend {
    info: Info,
    ports: RefCell<Option<Worker>>,
    statistics: RefCell<Option<Statistics>>,
    followers: Option<Rc<Followers>>,
}

impl Backend {
    pub(crate) fn new(
        mut info: Info,
        ports: Option<Worker>,
        statistics: Option<Statistics>,
        flow_log: Option<FlowLog>,
    ) -> Self {
        info.port_driver = ports.as_ref().map(Worker::info);
        let followers = flow_log.map(|ask| Rc::new(Followers::new(ask)));
        Self { info, ports: RefCell::new(ports), statistics: RefCell::new(statistics), followers }
    }

    pub(crate) fn stop(&self) {
        drop(self.ports.take());
    }

    /// Ends answers that go on. Those that are to come end at once.
    pub(crate) fn end_follows(&self) {
        if let Some(followers) = &self.followers {
            followers.end();
        }
    }

    pub(crate) fn helper_restarted(&self) {
        if let Some(ports) = self.ports.borrow().as_ref() {
            ports.helper_restarted();
        }
    }

    fn driver(&self) -> String {
        let network = self.info.network_driver.as_ref();
        network.map(|network| network.driver.clone()).unwrap_or_default()
    }

    fn with<T>(&self, f: impl FnOnce(&Worker) -> T) -> Result<T, BackendError> {
        let ports = self.ports.borrow();
        ports.as_ref().map(f).ok_or(BackendError::NoPortDriver)
    }
}

async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, BackendError>>,
) -> Result<T, BackendError> {
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
        Err(BackendError::Failed(format!(
            "the network driver did not answer within {} s\nhint: try again in a moment; if the network driver hangs, it is restarted",
            limit.as_secs_f32()
        )))
    })
}

async fn answer<T>(answer: oneshot::Receiver<anyhow::Result<T>>) -> Result<T, BackendError> {
    let answer = answer.await.unwrap_or_else(|_| Err(anyhow::anyhow!("the thread has exited")));
    answer.map_err(|e| BackendError::Failed(crate::exit::describe(&e)))
}

impl api::server::Backend for Backend {
    fn info(&self) -> Result<Info, BackendError> {
        Ok(self.info.clone())
    }

    fn ports(&self) -> Result<Vec<PortStatus>, BackendError> {
        self.with(Worker::list)
    }

    async fn add(&self, spec: PortSpec) -> Result<PortStatus, BackendError> {
        answer(self.with(|ports| ports.add(spec))?).await
    }

    async fn remove(&self, id: PortId) -> Result<(), BackendError> {
        answer(self.with(|ports| ports.remove(id))?).await
    }

    async fn stats(&self) -> Result<Stats, BackendError> {
        let asked = self.statistics.borrow_mut().as_mut().map(|ask| ask());
        let Some(asked) = asked else {
            return Err(BackendError::NoStatistics(self.driver()));
        };
        within(STATISTICS_TIMEOUT, answer(asked)).await
    }

    async fn flows(&self) -> Result<Lines, BackendError> {
        let Some(followers) = &self.followers else {
            return Err(BackendError::NoFlowLog(self.driver()));
        };
        let (lines, begun) = followers.follow()?;
        within(STATISTICS_TIMEOUT, answer(begun)).await?;
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use api::NetworkDriverInfo;
    use api::server::Backend as _;

    use super::*;

    #[tokio::test]
    async fn statistics_come_from_the_driver_if_it_counts() {
        let driver = "pasta".to_owned();
        let network_driver = Some(NetworkDriverInfo { driver, ..NetworkDriverInfo::default() });
        let info = || Info { network_driver: network_driver.clone(), ..Info::default() };
        let backend = Backend::new(info(), None, None, None);
        assert_eq!(backend.stats().await, Err(BackendError::NoStatistics("pasta".into())));
        assert_eq!(backend.flows().await.unwrap_err(), BackendError::NoFlowLog("pasta".into()));
        let mut looks = 0;
        let statistics: Statistics = Box::new(move || {
            looks += 1;
            let (reply, answer) = oneshot::channel();
            match looks {
                1 => reply.send(Ok(Stats { restarts: looks, ..Stats::default() })).unwrap(),
                _ => reply.send(Err(anyhow::anyhow!("the gateway is gone"))).unwrap(),
            }
            answer
        });
        let backend = Backend::new(info(), None, Some(statistics), None);
        assert_eq!(backend.stats().await.map(|stats| stats.restarts), Ok(1));
        assert_eq!(backend.stats().await, Err(BackendError::Failed("the gateway is gone".into())));
        let (_silent, never) = oneshot::channel::<anyhow::Result<()>>();
        let late = within(Duration::from_millis(20), answer(never)).await.unwrap_err();
        assert!(late.to_string().contains("did not answer within 0.02 s"), "{late}");
    }
}
