//! The thread "publish", on which a port driver works once the API serves.
//!
//! Drivers talk to helpers that may hang (slirp4netns, pesto and pasta, the gateway). Here that keeps nobody waiting but
//! those who want a port changed: the list of ports, signals and the end of the child are the main thread's, which never
//! waits for this one.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use api::{PortDriverInfo, PortId, PortSpec, PortStatus};
use tokio::sync::oneshot;

use super::Driver;

/// How long the end waits for the driver to close its ports. One that talks to a helper that hangs is left alone: its
/// ports end with the process.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

type Answer<T> = oneshot::Receiver<anyhow::Result<T>>;
type Reply<T> = oneshot::Sender<anyhow::Result<T>>;

#[derive(Debug)]
enum Job {
    Add(PortSpec, Reply<PortStatus>),
    Remove(PortId, Reply<()>),
    HelperRestarted,
}

#[derive(Debug, Default)]
struct Known(Mutex<BTreeMap<PortId, PortSpec>>);

impl Known {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PortId, PortSpec>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A port driver on its thread. Dropping it closes the ports.
#[derive(Debug)]
pub(crate) struct Worker {
    info: PortDriverInfo,
    /// `None` only while it is being dropped.
    jobs: Option<Sender<Job>>,
    known: Arc<Known>,
    /// Ends when the thread has.
    closed: Receiver<()>,
}

impl Worker {
    /// Gives the driver, with what it has published already, to a new thread.
    pub(crate) fn start(driver: Box<dyn Driver + Send>) -> anyhow::Result<Self> {
        let info = driver.info();
        let ports = driver.list().into_iter().map(|port| (port.id, port.spec)).collect();
        let known = Arc::new(Known(Mutex::new(ports)));
        let ((jobs, todo), (closing, closed)) = (channel(), channel());
        let theirs = Arc::clone(&known);
        let body = move || {
            let _closing: Sender<()> = closing;
            run(driver, &todo, &theirs);
        };
        std::thread::Builder::new()
            .name("publish".to_owned())
            .spawn(body)
            .context("failed to start the thread that publishes ports")?;
        Ok(Self { info, jobs: Some(jobs), known, closed })
    }

    pub(crate) fn info(&self) -> PortDriverInfo {
        self.info.clone()
    }

    /// The published ports, oldest first.
    pub(crate) fn list(&self) -> Vec<PortStatus> {
        let known = self.known.lock();
        known.iter().map(|(id, spec)| PortStatus { id: *id, spec: spec.clone() }).collect()
    }

    pub(crate) fn add(&self, spec: PortSpec) -> Answer<PortStatus> {
        self.post(|reply| Job::Add(spec, reply))
    }

    pub(crate) fn remove(&self, id: PortId) -> Answer<()> {
        self.post(|reply| Job::Remove(id, reply))
    }

    pub(crate) fn helper_restarted(&self) {
        if let Some(jobs) = &self.jobs {
            // Without the thread there are no ports.
            let _ = jobs.send(Job::HelperRestarted);
        }
    }

    fn post<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        if let Some(jobs) = &self.jobs {
            // If the thread is gone, so is the reply, which says it.
            let _ = jobs.send(job(reply));
        }
        answer
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        if self.closed.recv_timeout(CLOSE_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
            tracing::debug!("the port driver is still busy");
        }
    }
}

/// The thread's body. Whoever asked may have gone away; what was asked is done all the same.
fn run(mut driver: Box<dyn Driver + Send>, todo: &Receiver<Job>, known: &Known) {
    while let Ok(job) = todo.recv() {
        match job {
            Job::Add(spec, reply) => {
                let added = driver.add(spec);
                if let Ok(PortStatus { id, spec }) = &added {
                    known.lock().insert(*id, spec.clone());
                }
                let _ = reply.send(added);
            }
            Job::Remove(id, reply) => {
                let removed = driver.remove(id);
                // A port that may still be there stays in the list, so that it can be withdrawn again.
                if removed.is_ok() || driver.list().iter().all(|port| port.id != id) {
                    known.lock().remove(&id);
                }
                let _ = reply.send(removed);
            }
            Job::HelperRestarted => driver.helper_restarted(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{SyncSender, sync_channel};
    use std::time::Instant;

    /// Publishes nothing, and waits for a word before it answers about port 1.
    #[derive(Debug)]
    struct Slow {
        ports: Vec<PortStatus>,
        word: Receiver<()>,
    }

    impl Driver for Slow {
        fn info(&self) -> PortDriverInfo {
            PortDriverInfo { driver: "slow".to_owned(), ..PortDriverInfo::default() }
        }

        fn list(&self) -> Vec<PortStatus> {
            self.ports.clone()
        }

        fn add(&mut self, spec: PortSpec) -> anyhow::Result<PortStatus> {
            if spec.parent_port == 1 {
                let _ = self.word.recv();
            }
            let id = PortId::try_from(self.ports.len())? + 1;
            self.ports.push(PortStatus { id, spec: spec.clone() });
            Ok(PortStatus { id, spec })
        }

        fn remove(&mut self, id: PortId) -> anyhow::Result<()> {
            self.ports.retain(|port| port.id != id);
            anyhow::bail!("refused, and gone")
        }
    }

    fn slow() -> (Worker, SyncSender<()>) {
        let (sender, word) = sync_channel(0);
        let worker = Worker::start(Box::new(Slow { ports: Vec::new(), word })).unwrap();
        (worker, sender)
    }

    fn spec(port: i64) -> PortSpec {
        format!("127.0.0.1:{port}:80/tcp").parse().unwrap()
    }

    #[test]
    fn a_driver_that_waits_for_its_helper_keeps_nobody_else_waiting() {
        let (worker, word) = slow();
        worker.add(spec(2)).blocking_recv().unwrap().unwrap();
        let begin = Instant::now();
        let mut hangs = worker.add(spec(1));
        worker.helper_restarted();
        assert_eq!(worker.list().len(), 1);
        assert_eq!(worker.info().driver, "slow");
        assert!(hangs.try_recv().is_err());
        assert!(begin.elapsed() < CLOSE_TIMEOUT);
        word.send(()).unwrap();
        assert_eq!(hangs.blocking_recv().unwrap().unwrap().id, 2);
        assert_eq!(worker.list().len(), 2);
        assert!(worker.remove(1).blocking_recv().unwrap().is_err());
        assert_eq!(worker.list().len(), 1);
    }

    #[test]
    fn the_end_does_not_wait_for_a_helper_that_hangs() {
        let (worker, _word) = slow();
        let _hangs = worker.add(spec(1));
        let begin = Instant::now();
        drop(worker);
        assert!(begin.elapsed() < CLOSE_TIMEOUT * 10);
    }
}
