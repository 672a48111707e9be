//! What the REST API is about: this instance and its ports.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use api::policy::{FileTraffic, PolicyFile, PolicyStatus};
use api::server::{BackendError, Lines};
use api::{Info, PortId, PortSpec, PortStatus, Stats};

use tokio::sync::oneshot;

use crate::drivers::{PolicyQuestion, Questions, Statistics};
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
    policy: Option<PolicyQuestion>,
}

impl Backend {
    pub(crate) fn new(mut info: Info, ports: Option<Worker>, questions: Questions) -> Self {
        let Questions { statistics, flow_log, policy } = questions;
        info.port_driver = ports.as_ref().map(Worker::info);
        let followers = flow_log.map(|ask| Rc::new(Followers::new(ask)));
        Self {
            info,
            ports: RefCell::new(ports),
            statistics: RefCell::new(statistics),
            followers,
            policy,
        }
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

/// Adds what the gateway has counted for a file. A rule that it has not heard of yet has counted nothing.
fn count(file: &mut PolicyFile, counted: &FileTraffic) {
    for rule in &mut file.rules {
        let same = counted.rules.iter().find(|counted| counted.name == rule.rule.name);
        rule.matched = same.map_or(0, |counted| counted.matched);
    }
    file.default_matched = counted.default.matched;
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

    async fn policy(&self) -> Result<PolicyStatus, BackendError> {
        let Some(policy) = &self.policy else { return Err(BackendError::NoPolicy) };
        let counted = self.stats().await?.policy.unwrap_or_default();
        let mut status = policy();
        for file in &mut status.files {
            if let Some(counted) = counted.files.iter().find(|counted| counted.file == file.file) {
                count(file, counted);
            }
        }
        Ok(status)
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
    use api::policy::{PolicyRule, PolicyTraffic, RuleTraffic};
    use api::server::Backend as _;

    use super::*;

    #[tokio::test]
    async fn statistics_come_from_the_driver_if_it_counts() {
        let driver = "pasta".to_owned();
        let network_driver = Some(NetworkDriverInfo { driver, ..NetworkDriverInfo::default() });
        let info = || Info { network_driver: network_driver.clone(), ..Info::default() };
        let backend = Backend::new(info(), None, Questions::default());
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
        let questions = Questions { statistics: Some(statistics), ..Questions::default() };
        let backend = Backend::new(info(), None, questions);
        assert_eq!(backend.stats().await.map(|stats| stats.restarts), Ok(1));
        assert_eq!(backend.stats().await, Err(BackendError::Failed("the gateway is gone".into())));
        assert_eq!(backend.policy().await, Err(BackendError::NoPolicy));
        let (_silent, never) = oneshot::channel::<anyhow::Result<()>>();
        let late = within(Duration::from_millis(20), answer(never)).await.unwrap_err();
        assert!(late.to_string().contains("did not answer within 0.02 s"), "{late}");
    }

    #[tokio::test]
    async fn the_policy_has_the_counters_of_the_gateway_by_the_names_of_rules() {
        let file = |name: &str, rules: &[&str]| {
            let rule = |name: &&str| PolicyRule {
                rule: egress::Rule {
                    name: (*name).to_owned(),
                    action: egress::Action::Deny,
                    from: None,
                    to: Vec::new(),
                    protocols: Vec::new(),
                    ports: Vec::new(),
                },
                senders: None,
                matched: 0,
            };
            let rules = rules.iter().map(rule).collect();
            PolicyFile { file: name.to_owned(), rules, ..PolicyFile::default() }
        };
        let status = PolicyStatus {
            files: vec![file("/a", &["x", "new", "y"]), file("/b", &["x"])],
            ..PolicyStatus::default()
        };
        let traffic = |name: &str, matched| {
            let name = name.to_owned();
            RuleTraffic { name, matched, ..RuleTraffic::default() }
        };
        let counted = FileTraffic {
            file: "/a".to_owned(),
            rules: vec![traffic("y", 2), traffic("x", 1)],
            default: traffic("default", 3),
            ..FileTraffic::default()
        };
        let statistics: Statistics = Box::new(move || {
            let (reply, answer) = oneshot::channel();
            let policy = Some(PolicyTraffic { files: vec![counted.clone()] });
            reply.send(Ok(Stats { policy, ..Stats::default() })).unwrap();
            answer
        });
        let policy: PolicyQuestion = Box::new(move || status.clone());
        let (statistics, policy) = (Some(statistics), Some(policy));
        let questions = Questions { statistics, flow_log: None, policy };
        let backend = Backend::new(Info::default(), None, questions);
        let status = backend.policy().await.unwrap();
        let matched = |file: &PolicyFile| -> (Vec<u64>, u64) {
            (file.rules.iter().map(|rule| rule.matched).collect(), file.default_matched)
        };
        assert_eq!(matched(&status.files[0]), (vec![1, 0, 2], 3));
        assert_eq!(matched(&status.files[1]), (vec![0], 0));
    }
}
