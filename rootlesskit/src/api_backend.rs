//! What the REST API is about: this instance and its ports.

use std::cell::RefCell;
use std::fmt;
use std::time::Duration;

use api::server::BackendError;
use api::{Info, PortId, PortSpec, PortStatus, Stats};

use tokio::sync::oneshot;

use crate::port::Worker;

/// How long a network driver may take to say what it has counted.
const COUNT: Duration = Duration::from_secs(5);

/// Asks a network driver that counts. It runs on the thread of the API, so it returns at once; the answer comes.
pub(crate) type Count = Box<dyn FnMut() -> oneshot::Receiver<anyhow::Result<Stats>>>;

/// The state behind the API. One thread uses it.
pub(crate) struct Backend {
    info: Info,
    ports: RefCell<Option<Worker>>,
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
    pub(crate) fn new(mut info: Info, ports: Option<Worker>) -> Self {
        info.port_driver = ports.as_ref().map(Worker::info);
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
        if let Some(ports) = self.ports.borrow().as_ref() {
            ports.helper_restarted();
        }
    }

    fn with<T>(&self, f: impl FnOnce(&Worker) -> T) -> Result<T, BackendError> {
        let ports = self.ports.borrow();
        ports.as_ref().map(f).ok_or(BackendError::NoPortDriver)
    }
}

/// What comes in time.
async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, BackendError>>,
) -> Result<T, BackendError> {
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
        Err(BackendError::Failed(format!(
            "the network driver did not answer within {} s\nhint: if it hangs, it is started again; ask again in a moment",
            limit.as_secs_f32()
        )))
    })
}

/// What another thread answers.
async fn answer<T>(answer: oneshot::Receiver<anyhow::Result<T>>) -> Result<T, BackendError> {
    let answer = answer.await.unwrap_or_else(|_| Err(anyhow::anyhow!("the thread has ended")));
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
        let asked = self.count.borrow_mut().as_mut().map(|count| count());
        let Some(asked) = asked else {
            let driver = self.info.network_driver.as_ref().map(|network| network.driver.clone());
            return Err(BackendError::NoStatistics(driver.unwrap_or_default()));
        };
        within(COUNT, answer(asked)).await
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
        let backend = Backend::new(Info { network_driver, ..Info::default() }, None);
        assert_eq!(backend.stats().await, Err(BackendError::NoStatistics("pasta".into())));
        let mut looks = 0;
        backend.count_with(Box::new(move || {
            looks += 1;
            let (reply, answer) = oneshot::channel();
            match looks {
                1 => reply.send(Ok(Stats { restarts: looks, ..Stats::default() })).unwrap(),
                _ => reply.send(Err(anyhow::anyhow!("the gateway is gone"))).unwrap(),
            }
            answer
        }));
        assert_eq!(backend.stats().await.map(|stats| stats.restarts), Ok(1));
        assert_eq!(backend.stats().await, Err(BackendError::Failed("the gateway is gone".into())));
        let (_silent, never) = oneshot::channel::<anyhow::Result<()>>();
        let late = within(Duration::from_millis(20), answer(never)).await.unwrap_err();
        assert!(late.to_string().contains("did not answer within 0.02 s"), "{late}");
    }
}
